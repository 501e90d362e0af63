//! Which matrix products of few columns have a kernel of their own (`product_few_columns` in `kernels/gemm.cuh`), such as
//! the convolution that makes grey images. Of a square tile most columns would be empty.

use super::body::Contraction;
use super::choice::{Math, ThreadBlocks, Tile};
use super::target::MULTIPROCESSORS;

/// Rows of a block: 32 for each warp.
pub const ROWS: usize = 128;
/// Its threads.
pub const THREADS: usize = 128;
/// Terms of a sum that a warp adds at a time.
const STEP: usize = 32;
const MOST_COLUMNS: usize = 4;
/// Most elements of all columns together: a warp keeps them in registers.
const MOST_HELD: usize = 1024;
/// Rows that give a warp to each scheduler of an H100. Of fewer, sums in parts keep more of it busy.
const WORTHWHILE: usize = MULTIPROCESSORS * 4 * 32;

/// A choice of such a kernel.
pub fn blocks(columns: usize) -> ThreadBlocks {
    let tile = Tile { rows: ROWS, columns, depth: STEP };
    ThreadBlocks { math: Math::Fma, tile, warps: [ROWS / 32, 1], stages: 1, splits: 1 }
}

/// Whether a choice is of this kernel.
pub fn is_choice(choice: &ThreadBlocks) -> bool {
    choice.math == Math::Fma && choice.tile.rows == ROWS
}

/// The choice that computes a contraction, whose first operand lies in memory along the terms of a sum.
pub fn of<B>(c: &Contraction<B>) -> Option<ThreadBlocks> {
    let gemms = c.gemms();
    let columns: usize = gemms.first().map(|gemm| gemm.n.iter().product())?;
    let suits = gemms.iter().all(|gemm| {
        let [batch, across] = [&gemm.batch, &gemm.n].map(|dims| dims.iter().product::<usize>());
        let is_held = (STEP..=MOST_HELD / columns.max(1)).contains(&gemm.depth());
        let is_along_depth = gemm.a.strides.last() == Some(&1) && gemm.k.last().is_some_and(|&size| size >= STEP);
        batch == 1 && across == columns && is_held && is_along_depth
    });
    (suits && (1..=MOST_COLUMNS).contains(&columns)).then(|| blocks(columns))
}

/// The choice where it is worth it.
pub fn worthwhile<B>(c: &Contraction<B>) -> Option<ThreadBlocks> {
    let columns = of(c)?;
    (c.space.iter().product::<usize>() >= WORTHWHILE * columns.tile.columns).then_some(columns)
}
