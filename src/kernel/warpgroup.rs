//! Matrix products by warpgroups (`kernels/wgmma.cuh`): which choices there are kernels for, and what these read.
//!
//! Four warps of a GPU of sm_90 multiply together, and their tensor cores read operands from shared memory as they are
//! in memory: f32 as tf32, its mantissa cut off after 10 bits, and bf16. In f32 both operands must lie along the depth.

use super::access::Access;
use super::choice::{Math, ThreadBlocks, Tile};
use super::tiling::{MOST_STAGES, Tiling};
use crate::tensor::DType;

/// Rows of a warpgroup.
pub const ROWS: usize = 64;
/// Rows and columns of the tiles that there are kernels for. Of the larger ones a multiprocessor has place for one block only,
/// but each byte of their operands is multiplied more often.
pub const TILES: [(usize, usize); 6] = [(128, 128), (128, 64), (64, 64), (256, 64), (128, 256), (256, 128)];
/// Bytes of a line of an operand in shared memory.
const LINE: usize = 128;
/// Bytes that are copied at a time.
const RUN: usize = 16;

/// How many pieces of operands are in shared memory at a time, where nobody wants another number: two blocks of a multiprocessor
/// have place for them, or one with a large tile.
pub fn usual_stages(rows: usize, columns: usize) -> usize {
    if (rows, columns) == (128, 128) { 3 } else { MOST_STAGES }
}

/// A choice of warpgroups: each of their warps has 16 rows of the tile and all its columns.
pub fn blocks(math: Math, (rows, columns): (usize, usize), stages: usize, splits: usize) -> ThreadBlocks {
    let depth = LINE / element(math).map_or(size_of::<f32>(), DType::size);
    ThreadBlocks { math, tile: Tile { rows, columns, depth }, warps: warps(rows), stages, splits }
}

/// Whether a choice is one of warpgroups.
pub fn is_choice(blocks: &ThreadBlocks) -> bool {
    blocks.warps == warps(blocks.tile.rows)
}

fn warps(rows: usize) -> [usize; 2] {
    [rows / 16, 1]
}

/// What operands are in memory to be multiplied in this way; `None` where warpgroups don't.
pub fn element(math: Math) -> Option<DType> {
    match math {
        Math::Tf32 | Math::Tf32Stored => Some(DType::F32),
        Math::Bf16Stored => Some(DType::Bf16),
        Math::Fma | Math::Tf32x3 | Math::Bf16 => None,
    }
}

/// Whether there is a kernel of warpgroups for a choice.
pub fn is_kernel(choice: &ThreadBlocks) -> bool {
    let ThreadBlocks { math, tile: Tile { rows, columns, .. }, stages, splits, .. } = *choice;
    let is_tile = TILES.contains(&(rows, columns)) && (2..=MOST_STAGES).contains(&stages);
    is_tile && element(math).is_some() && *choice == blocks(math, (rows, columns), stages, splits)
}

/// Whether warpgroups read the operands of a product where they are, if these are of the element type for `math`.
pub fn is_read(tiling: &Tiling, math: Math) -> bool {
    let is_along_depth = || [0, 1].iter().all(|&side| tiling.lines(side).0);
    match element(math) {
        Some(DType::Bf16) => tiling.operands.iter().all(|operand| is_in_runs(operand, RUN / DType::Bf16.size())),
        Some(_) => is_along_depth(),
        None => false,
    }
}

/// Whether runs of so many elements start at multiples of their size; of the last two strides one is 1.
fn is_in_runs(operand: &Access, run: usize) -> bool {
    let run = run as isize;
    let others = operand.strides.iter().filter(|&&stride| stride % run != 0).collect::<Vec<_>>();
    operand.offset % run == 0 && others == [&1]
}
