//! Matrix products as blocks of threads with tensor cores compute them: which dimensions a tile has, and which are
//! fixed for a block.
//!
//! A block has a tile of one dimension of the rows, one of the columns and one of the depth, of which whole runs of
//! 16 bytes are copied (of bf16 also of 8). All other dimensions of rows and columns are fixed for it, so that what
//! depends on them is the same for all its threads. The other dimensions of the depth are loops, and where an operand
//! is an image, the range of each loop follows from the block's fixed coordinates: taps that fall on padding are not
//! computed at all. So a convolution of pixel-major images is a plain product for each pixel and tap, whose rows are
//! the images.

use super::access::{Access, Bound};
use super::body::{Body, Contraction};
use super::choice::{Math, ThreadBlocks, Tile};
use super::few_columns;
use super::gemm::Gemm;
use super::warpgroup;
use crate::tensor::DType;

/// Fewer rows, columns or terms would leave most of a tile empty.
const LEAST: usize = 16;
/// Elements that are copied at a time at least: 16 bytes of f32, 8 of bf16.
const RUN: isize = 4;
/// Bytes of a row of one piece of an operand.
const PIECE: usize = 128;
/// Rows and columns of the tiles that there are kernels for.
pub const TILES: [(usize, usize); 3] = [(128, 128), (128, 64), (64, 64)];
/// Most pieces of operands that are in shared memory at a time.
pub const MOST_STAGES: usize = 4;
/// Bytes of shared memory that a block may have on every GPU with these tensor cores (CUDA C++ Programming Guide, "Technical
/// Specifications per Compute Capability"): kernels for one of them run on newer ones.
pub const MOST_SHARED: usize = 99 << 10;
/// What of it is for reductions of a tile, beside the tile.
pub const BESIDE: usize = 3 << 10;
/// The warps that share a tile's rows and columns.
pub const WARPS: [usize; 2] = [2, 2];

/// Most points of a product that are sorted by their taps.
const MOST_ORDERED: usize = 4096;

/// A matrix product in tiles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tiling {
    /// The sizes of the dimensions that are fixed for a block.
    pub fixed: Vec<usize>,
    /// The sizes of the tiled dimensions.
    pub rows: usize,
    pub columns: usize,
    pub depth: usize,
    /// The sizes of the loops around the depth, the outer one first: 1 where there are fewer, 0 where nothing is summed.
    pub loops: [usize; 2],
    /// The operands, without bounds: over the fixed dimensions, the loops, rows (of the second: columns) and depth.
    pub operands: [Access; 2],
    /// Of an operand that a prologue computes of what is staged (see [`Operand::Computed`](super::body::Operand)) the index
    /// along each of its dimensions, over the same.
    pub operand_coordinates: [Vec<Access>; 2],
    /// When a tap is inside the images.
    pub bounds: Vec<LoopBound>,
    /// The output's row-major positions, over the fixed dimensions, rows and columns.
    pub out: Access,
}

/// A condition on one of the loops: `0 ≤ base + step · i < below`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoopBound {
    /// Which loop; where `step` is 0, any, and no iteration is inside where the condition does not hold.
    pub number: usize,
    /// Over the fixed dimensions.
    pub base: Access,
    /// Not negative.
    pub step: isize,
    pub below: usize,
}

/// How a contraction is computed by tiles: its products, each a launch. `None` where operands do not lie in memory so
/// that whole runs can be copied, or where it is too small.
pub fn tilings<B>(c: &Contraction<B>) -> Option<Vec<Tiling>> {
    let coordinates = c.prologue_coordinates();
    let tilings: Option<Vec<Tiling>> =
        merged(c.staged_gemms()).iter().map(|gemm| Tiling::with_coordinates(gemm, &coordinates)).collect();
    // What the epilogue's space cuts, such as images of several calls, tiles don't straddle.
    tilings.map(|tilings| tilings.into_iter().map(|tiling| tiling.within(&c.space)).collect())
}

/// Bytes of an element of an operand in memory.
fn element_bytes(math: Math) -> usize {
    math.operands().map_or(size_of::<f32>(), DType::size)
}

/// Terms of a sum in one piece of an operand.
pub fn step(math: Math) -> usize {
    PIECE / element_bytes(math)
}

/// Whether a choice is one that there is a kernel for, and computes a body.
pub fn suits<B>(blocks: &ThreadBlocks, body: &Body<B>) -> bool {
    let Body::Contraction(c) = body else { return false };
    if warpgroup::is_kernel(blocks) {
        return tilings(c).is_some_and(|tilings| tilings.iter().all(|tiling| warpgroup::is_read(tiling, blocks.math)));
    }
    if few_columns::is_choice(blocks) {
        return few_columns::of(c).as_ref() == Some(blocks);
    }
    blocks.math == Math::Fma || (is_kernel(blocks) && tilings(c).is_some())
}

/// Whether there is a kernel of tensor cores for a choice.
pub fn is_kernel(blocks: &ThreadBlocks) -> bool {
    let Tile { rows, columns, depth } = blocks.tile;
    let is_tile = TILES.contains(&(rows, columns)) && depth == step(blocks.math);
    // Of a plan file they may be any numbers: only those of a kernel are multiplied.
    if !is_tile || blocks.warps != WARPS || !(2..=MOST_STAGES).contains(&blocks.stages) {
        return false;
    }
    // Sums of split operands take twice the registers.
    let fits = blocks.math != Math::Tf32x3 || rows * columns < 128 * 128;
    fits && shared_bytes(blocks) + BESIDE <= MOST_SHARED
}

/// How many pieces of operands are in shared memory at a time, where nobody wants another number: as many as two blocks of a
/// multiprocessor have place for.
pub fn usual_stages(rows: usize, columns: usize) -> usize {
    if rows * columns <= 64 * 64 { MOST_STAGES } else { 3 }
}

/// Bytes of shared memory that a tile takes: pieces of both operands for each stage, and afterwards the sums.
pub fn shared_bytes(blocks: &ThreadBlocks) -> usize {
    let Tile { rows, columns, depth } = blocks.tile;
    let pieces = blocks.stages * (rows + columns) * depth * element_bytes(blocks.math);
    // Lines of sums lie along rows or along columns.
    let sums = (rows * (columns + PAD)).max(columns * (rows + PAD)) * size_of::<f32>();
    pieces.max(sums)
}

/// Floats between lines of sums in shared memory.
const PAD: usize = 8;

/// A product's dimensions: those of its batch, rows, columns and depth, one after the other.
struct Dimensions {
    sizes: Vec<usize>,
    /// Where rows, columns and depth start.
    starts: [usize; 3],
}

impl Dimensions {
    fn of(gemm: &Gemm) -> Dimensions {
        let sizes = [&gemm.batch[..], &gemm.m, &gemm.n, &gemm.k].concat();
        let rows = gemm.batch.len();
        let columns = rows + gemm.m.len();
        Dimensions { sizes, starts: [rows, columns, columns + gemm.n.len()] }
    }

    /// The dimensions of batch, rows, columns and depth.
    fn groups(&self) -> [std::ops::Range<usize>; 4] {
        let [m, n, k] = self.starts;
        [0..m, m..n, n..k, k..self.sizes.len()]
    }

    /// An access over some of the groups as one over all dimensions; those of size 1 have no stride.
    fn lifted(&self, access: &Access, groups: [usize; 3]) -> Access {
        let dims: Vec<usize> = groups.into_iter().flat_map(|g| self.groups()[g].clone()).collect();
        let lift = |strides: &[isize]| {
            let mut lifted = vec![0; self.sizes.len()];
            let used = dims.iter().zip(strides).filter(|(d, _)| self.sizes[**d] > 1);
            used.for_each(|(&d, &stride)| lifted[d] = stride);
            lifted
        };
        let bound = |b: &Bound| Bound { strides: lift(&b.strides), ..b.clone() };
        Access {
            offset: access.offset,
            strides: lift(&access.strides),
            bounds: access.bounds.iter().map(bound).collect(),
        }
    }
}

impl Tiling {
    /// A product in tiles, of the dimensions that make the largest ones.
    pub fn new(gemm: &Gemm) -> Option<Tiling> {
        Tiling::with_coordinates(gemm, &[Vec::new(), Vec::new()])
    }

    /// The same where the coordinates of operands are wanted: see [`Contraction::prologue_coordinates`].
    fn with_coordinates(gemm: &Gemm, coordinates: &[Vec<Access>; 2]) -> Option<Tiling> {
        let dims = Dimensions::of(gemm);
        let [_, m, n, k] = dims.groups();
        let large = |group: std::ops::Range<usize>| group.filter(|&d| dims.sizes[d] >= LEAST).collect::<Vec<_>>();
        let (m, n, k) = (large(m), large(n), large(k));
        let mut best: Option<(usize, Tiling)> = None;
        for &row in &m {
            for &column in &n {
                for &depth in &k {
                    let volume = dims.sizes[row] * dims.sizes[column] * dims.sizes[depth];
                    if best.as_ref().is_some_and(|(most, _)| *most >= volume) {
                        continue;
                    }
                    best = Tiling::of(gemm, coordinates, &dims, [row, column, depth])
                        .map(|tiling| (volume, tiling))
                        .or(best);
                }
            }
        }
        best.map(|(_, tiling)| tiling)
    }

    /// The product in tiles of these dimensions of rows, columns and depth.
    fn of(gemm: &Gemm, coordinates: &[Vec<Access>; 2], dims: &Dimensions, tiled: [usize; 3]) -> Option<Tiling> {
        let [row, column, depth] = tiled;
        let [batch, m, n, k] = dims.groups();
        let is_open = |d: &usize| !tiled.contains(d) && dims.sizes[*d] != 1;
        let fixed: Vec<usize> = batch.chain(m).chain(n).filter(is_open).collect();
        let mut loops: Vec<usize> = k.filter(is_open).collect();
        if loops.len() > 2 || fixed.iter().any(|&d| dims.sizes[d] == 0) {
            return None;
        }
        let groups = [[0, 1, 3], [0, 3, 2]];
        let a = dims.lifted(&gemm.a, groups[0]);
        let b = dims.lifted(&gemm.b, groups[1]);
        let out = dims.lifted(&gemm.out, [0, 1, 2]);
        if !is_copied(&a, row, depth) || !is_copied(&b, column, depth) {
            return None;
        }
        let over = |access: &Access, dims: &[&[usize]]| Access {
            offset: access.offset,
            strides: dims.concat().iter().map(|&d| access.strides.get(d).copied().unwrap_or(0)).collect(),
            bounds: Vec::new(),
        };
        let mut bounds = Vec::new();
        for bound in a.bounds.iter().chain(&b.bounds) {
            if always_holds(bound, &dims.sizes) {
                continue;
            }
            let mut bounded = (0..loops.len()).filter(|&l| bound.strides[loops[l]] != 0);
            let number = bounded.next();
            if bounded.next().is_some() || tiled.iter().any(|&d| bound.strides[d] != 0) {
                return None;
            }
            let step = number.map_or(0, |l| bound.strides[loops[l]]);
            if step < 0 {
                return None;
            }
            let base = Access { offset: bound.offset, strides: bound.strides.clone(), bounds: Vec::new() };
            // A loop that is not there is put outside of those that are.
            let number = number.map_or(1, |l| l + 2 - loops.len());
            bounds.push(LoopBound { number, base: over(&base, &[&fixed]), step, below: bound.below });
        }
        let none = dims.sizes.len();
        while loops.len() < 2 {
            loops.insert(0, none);
        }
        let size = |d: usize| dims.sizes.get(d).copied().unwrap_or(1);
        let read = |side: usize, access: &Access| over(access, &[&fixed, &loops, &[[row, column][side], depth]]);
        let index = |side: usize| move |access: &Access| dims.lifted(access, groups[side]);
        Some(Tiling {
            rows: size(row),
            columns: size(column),
            depth: size(depth),
            loops: [size(loops[0]), size(loops[1])],
            operands: [read(0, &a), read(1, &b)],
            operand_coordinates: [0, 1]
                .map(|side| coordinates[side].iter().map(index(side)).map(|a| read(side, &a)).collect()),
            bounds,
            out: over(&out, &[&fixed, &[row, column]]),
            fixed: fixed.iter().map(|&d| size(d)).collect(),
        })
    }

    /// The same product with tiles of only a part of the rows, where that gives every point of it coordinates in a space and
    /// else there are none: the parts are one more fixed dimension.
    fn within(self, space: &[usize]) -> Tiling {
        let has_coordinates = |tiling: &Tiling| {
            let sizes = [&tiling.fixed[..], &[tiling.rows, tiling.columns]].concat();
            coordinates(&tiling.out, &sizes, space).is_some()
        };
        if has_coordinates(&self) {
            return self;
        }
        // Whole runs of neighbouring rows are copied.
        let run = if self.lines(0).0 { 1 } else { RUN as usize };
        let are_parts = |&parts: &usize| parts > 1 && parts < self.rows && self.rows.is_multiple_of(parts * run);
        space.iter().copied().filter(are_parts).map(|parts| self.in_parts(parts)).find(has_coordinates).unwrap_or(self)
    }

    /// With rows in parts, each as long.
    fn in_parts(&self, parts: usize) -> Tiling {
        let (fixed, rows) = (self.fixed.len(), self.rows / parts);
        let with = |access: &Access, along: isize| {
            let mut access = access.clone();
            access.strides.insert(fixed, along * rows as isize);
            access
        };
        let [a, b] = &self.operands;
        let along_rows = |access: &Access| with(access, access.strides[fixed + 2]);
        let [of_a, of_b] = &self.operand_coordinates;
        let of_bound = |bound: &LoopBound| LoopBound { base: with(&bound.base, 0), ..bound.clone() };
        Tiling {
            fixed: [&self.fixed[..], &[parts]].concat(),
            rows,
            operands: [along_rows(a), with(b, 0)],
            operand_coordinates: [
                of_a.iter().map(along_rows).collect(),
                of_b.iter().map(|index| with(index, 0)).collect(),
            ],
            bounds: self.bounds.iter().map(of_bound).collect(),
            out: with(&self.out, self.out.strides[fixed]),
            ..self.clone()
        }
    }

    /// How many combinations of the fixed coordinates there are.
    pub fn points(&self) -> usize {
        self.fixed.iter().product()
    }

    /// Where an operand starts for a block, over the fixed dimensions.
    pub fn base(&self, side: usize) -> Access {
        let operand = &self.operands[side];
        let strides = operand.strides[..self.fixed.len()].to_vec();
        Access { offset: operand.offset, strides, bounds: Vec::new() }
    }

    /// The strides of an operand along the loops.
    pub fn loop_strides(&self, side: usize) -> [isize; 2] {
        let first = self.fixed.len();
        [self.operands[side].strides[first], self.operands[side].strides[first + 1]]
    }

    /// Whether an operand's elements are next to each other along the depth, and how far apart lines of them are.
    pub fn lines(&self, side: usize) -> (bool, usize) {
        let first = self.fixed.len() + 2;
        match self.operands[side].strides[first..] {
            [line, 1] => (true, line.unsigned_abs()),
            [_, line] => (false, line.unsigned_abs()),
            _ => (true, 0),
        }
    }

    /// How many bytes of an operand are copied at a time: runs of 16 bytes start at multiples of that, or of bf16 only those
    /// of 8 do.
    pub fn copy_bytes(&self, side: usize, math: Math) -> usize {
        let operand = &self.operands[side];
        let run = PIECE / 8 / element_bytes(math);
        // One dimension has neighbours in memory.
        let others = operand.strides.iter().filter(|stride| **stride != 1);
        let is_whole = others.chain([&operand.offset]).all(|place| place.unsigned_abs().is_multiple_of(run));
        if is_whole { 16 } else { 8 }
    }

    /// How many products of pieces that are `step` deep each of a block's tiles takes on average, padding not counted.
    pub fn mean_steps(&self, step: usize) -> usize {
        let taps: usize = self.taps().sum();
        (taps * self.depth.div_ceil(step)).div_ceil(self.points().max(1))
    }

    /// Operations of all its products, those with padding left out: two for each term.
    pub fn flops(&self) -> u64 {
        2 * self.taps().sum::<usize>() as u64 * (self.rows * self.columns * self.depth) as u64
    }

    /// How many elements of an operand are copied in tiles whose other side has so many rows or columns, padding not counted.
    pub fn staged(&self, side: usize, tile: usize) -> usize {
        let [own, other] = if side == 0 { [self.rows, self.columns] } else { [self.columns, self.rows] };
        self.taps().sum::<usize>() * self.depth * own * other.div_ceil(tile)
    }

    /// How many pieces of operands the block with the most taps goes through.
    pub fn most_steps(&self, step: usize) -> usize {
        self.taps().max().unwrap_or(0) * self.depth.div_ceil(step)
    }

    /// The points, those with the most taps first, where they do not all have as many: started in this order, the last
    /// blocks to end are short ones. `None` too where a table of them would be long.
    pub fn longest_first(&self) -> Option<Vec<usize>> {
        if self.points() > MOST_ORDERED {
            return None;
        }
        let taps: Vec<usize> = self.taps().collect();
        let mut order: Vec<usize> = (0..taps.len()).collect();
        order.sort_by_key(|&point| std::cmp::Reverse(taps[point]));
        taps.iter().any(|&count| count != taps[0]).then_some(order)
    }

    /// For each point how many taps are not on padding.
    fn taps(&self) -> impl Iterator<Item = usize> {
        (0..self.points()).map(|number| {
            let mut rest = number;
            let mut at = vec![0; self.fixed.len()];
            for d in (0..at.len()).rev() {
                at[d] = rest % self.fixed[d];
                rest /= self.fixed[d];
            }
            let mut ranges = self.loops.map(|size| (0, size));
            for bound in &self.bounds {
                let base: isize = bound.base.strides.iter().zip(&at).map(|(s, &i)| s * i as isize).sum();
                let range = &mut ranges[bound.number];
                let inside = bound.inside(bound.base.offset + base, self.loops[bound.number]);
                *range = (range.0.max(inside.0), range.1.min(inside.1));
            }
            ranges.iter().map(|(lo, hi)| hi.saturating_sub(*lo)).product()
        })
    }
}

impl LoopBound {
    /// The iterations of a loop of `size` for which it holds.
    fn inside(&self, base: isize, size: usize) -> (usize, usize) {
        match self.step {
            0 if base < 0 || base >= self.below as isize => (0, 0),
            0 => (0, size),
            step => super::access::solve(base, step, self.below, size),
        }
    }
}

/// Whether whole runs of an operand can be copied: it lies along the lines or along the depth, and runs start at
/// multiples of their size.
fn is_copied(access: &Access, line: usize, depth: usize) -> bool {
    let along = if access.strides[depth] == 1 {
        depth
    } else if access.strides[line] == 1 {
        line
    } else {
        return false;
    };
    let others = access.strides.iter().enumerate().filter(|(d, _)| *d != along);
    let lines = [line, depth].into_iter().filter(|&d| d != along).all(|d| access.strides[d] > 0);
    lines && access.offset % RUN == 0 && others.into_iter().all(|(_, stride)| stride % RUN == 0)
}

fn always_holds(bound: &Bound, sizes: &[usize]) -> bool {
    let ends = bound.strides.iter().zip(sizes).map(|(&s, &size)| s * (size.max(1) as isize - 1));
    let (least, greatest) = ends.fold((bound.offset, bound.offset), |(a, b), e| (a + e.min(0), b + e.max(0)));
    least >= 0 && greatest < bound.below as isize
}

/// Products that differ only in where they start as one with more dimensions of batch, where that start is an affine
/// function of one or two numbers: those of a convolution's input gradient, one for each residue by the stride.
fn merged(gemms: Vec<Gemm>) -> Vec<Gemm> {
    let Some(first) = gemms.first() else { return gemms };
    if gemms.len() == 1 || !gemms.iter().all(|gemm| anchored(gemm) == anchored(first)) {
        return gemms;
    }
    let starts: Vec<Vec<isize>> = gemms.iter().map(|gemm| offsets(gemm).to_vec()).collect();
    let count = gemms.len();
    for inner in (1..=count).rev().filter(|inner| count.is_multiple_of(*inner)) {
        let outer = count / inner;
        let from_first = |to: usize| starts[to].iter().zip(&starts[0]).map(|(a, b)| a - b).collect::<Vec<_>>();
        let along_inner = if inner > 1 { from_first(1) } else { vec![0; starts[0].len()] };
        let along_outer = if outer > 1 { from_first(inner) } else { vec![0; starts[0].len()] };
        let is_affine = (0..count).all(|i| {
            let (row, column) = ((i / inner) as isize, (i % inner) as isize);
            (0..starts[0].len()).all(|q| starts[i][q] == starts[0][q] + row * along_outer[q] + column * along_inner[q])
        });
        if is_affine {
            return vec![extended(first, [outer, inner], [&along_outer, &along_inner])];
        }
    }
    gemms
}

/// Where the accesses and bounds of a product start.
fn offsets(gemm: &Gemm) -> Vec<isize> {
    let all = [&gemm.a, &gemm.b, &gemm.out].into_iter();
    all.flat_map(|access| std::iter::once(access.offset).chain(access.bounds.iter().map(|b| b.offset))).collect()
}

/// A product without where it starts.
fn anchored(gemm: &Gemm) -> Gemm {
    let mut gemm = gemm.clone();
    for access in [&mut gemm.a, &mut gemm.b, &mut gemm.out] {
        access.offset = 0;
        access.bounds.iter_mut().for_each(|bound| bound.offset = 0);
    }
    gemm
}

/// A product with two dimensions of batch before its own, along which all offsets move.
fn extended(gemm: &Gemm, sizes: [usize; 2], along: [&[isize]; 2]) -> Gemm {
    let mut gemm = gemm.clone();
    gemm.batch = [&sizes[..], &gemm.batch].concat();
    let mut moves = along[0].iter().zip(along[1]).map(|(&outer, &inner)| [outer, inner]);
    for access in [&mut gemm.a, &mut gemm.b, &mut gemm.out] {
        let mut extend = |strides: &mut Vec<isize>| {
            strides.splice(0..0, moves.next().unwrap_or_default());
        };
        extend(&mut access.strides);
        access.bounds.iter_mut().for_each(|bound| extend(&mut bound.strides));
    }
    gemm
}

/// The coordinates in a row-major `space` of the positions that `out` gives for points of `sizes`: for each dimension
/// of the space an affine function of the point. `None` where one coordinate's step would carry into another.
pub fn coordinates(out: &Access, sizes: &[usize], space: &[usize]) -> Option<Vec<Access>> {
    let mut unit = vec![1isize; space.len()];
    for d in (1..space.len()).rev() {
        unit[d - 1] = unit[d] * space[d] as isize;
    }
    let steps = |p: usize| sizes[p] as isize - 1;
    // Digits rise from those of the least position.
    let mut least = out.offset + (0..sizes.len()).map(|p| out.strides[p].min(0) * steps(p)).sum::<isize>();
    let zero = Access { offset: 0, strides: vec![0; sizes.len()], bounds: Vec::new() };
    let mut found = vec![zero; space.len()];
    for d in 0..space.len() {
        found[d].offset = least.div_euclid(unit[d]);
        least = least.rem_euclid(unit[d]);
    }
    let mut greatest: Vec<isize> = found.iter().map(|digit| digit.offset).collect();
    for p in (0..sizes.len()).filter(|&p| sizes[p] > 1) {
        let (stride, size) = (out.strides[p], out.strides[p].abs());
        let d = (0..space.len()).find(|&d| space[d] > 1 && size >= unit[d] && size % unit[d] == 0)?;
        found[d].strides[p] = stride / unit[d];
        found[d].offset -= (stride / unit[d]).min(0) * steps(p);
        greatest[d] += size / unit[d] * steps(p);
    }
    greatest.iter().zip(space).all(|(&digit, &size)| digit < size as isize).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::body::{Expr, Exprs, Finish, Operand};
    use crate::kernel::contraction::{ContractionKind, ConvShape};
    use crate::scalar::Lane;
    use crate::types::Window;

    /// A convolution of 64 images with 32 channels to 48.
    fn conv(input: [usize; 2], kernel: usize, stride: usize, pad: usize) -> ConvShape {
        let output = input.map(|size| (size + 2 * pad - kernel) / stride + 1);
        let window = Window { stride: [stride; 2], pad: [pad; 2] };
        ConvShape { n: 64, c: 32, input, o: 48, kernel: [kernel; 2], output, window }
    }

    /// The products of a contraction with its operands in these orders in memory.
    fn products(kind: ContractionKind, orders: [&[usize]; 2]) -> Option<Vec<Tiling>> {
        let (shapes, _) = kind.shapes();
        let [a, b] = [0, 1].map(|side| Access::ordered(&shapes[side], orders[side]));
        merged(kind.gemms_of([&a, &b])).iter().map(Tiling::new).collect()
    }

    #[test]
    fn a_plan_s_sizes_may_be_any_numbers() {
        let tile = Tile { rows: 128, columns: 64, depth: step(Math::Tf32) };
        let right = ThreadBlocks { math: Math::Tf32, tile, warps: WARPS, stages: 3, splits: 1 };
        assert!(is_kernel(&right));
        let most = usize::MAX;
        for wrong in [
            ThreadBlocks { tile: Tile { rows: most, ..tile }, ..right },
            ThreadBlocks { tile: Tile { columns: most, ..tile }, ..right },
            ThreadBlocks { tile: Tile { depth: most, ..tile }, ..right },
            ThreadBlocks { stages: most, ..right },
            ThreadBlocks { warps: [most; 2], ..right },
        ] {
            assert!(!is_kernel(&wrong) && !warpgroup::is_kernel(&wrong), "{wrong:?}");
        }
    }

    fn points(space: &[usize]) -> Vec<Vec<usize>> {
        let mut all = vec![Vec::new()];
        for &size in space {
            all = all.iter().flat_map(|p| (0..size).map(move |i| [&p[..], &[i]].concat())).collect();
        }
        all
    }

    /// The terms that a product multiplies: positions in the output and in both operands, sorted.
    fn terms_of(gemms: &[Gemm]) -> Vec<[i128; 3]> {
        let mut terms = Vec::new();
        for g in gemms {
            for p in points(&[&g.batch[..], &g.m, &g.n, &g.k].concat()) {
                let (batch, rest) = p.split_at(g.batch.len());
                let (m, rest) = rest.split_at(g.m.len());
                let (n, k) = rest.split_at(g.n.len());
                let a = g.a.element(&[batch, m, k].concat());
                let b = g.b.element(&[batch, k, n].concat());
                let out = g.out.element(&[batch, m, n].concat()).unwrap();
                terms.extend(a.zip(b).map(|(a, b)| [out, a, b]));
            }
        }
        terms.sort_unstable();
        terms
    }

    fn terms_of_tilings(tilings: &[Tiling]) -> Vec<[i128; 3]> {
        let mut terms = Vec::new();
        for t in tilings {
            for fixed in points(&t.fixed) {
                let mut ranges = t.loops.map(|size| (0, size));
                for bound in &t.bounds {
                    let base = bound.base.element(&fixed).unwrap() as isize;
                    let (lo, hi) = bound.inside(base, t.loops[bound.number]);
                    let range = &mut ranges[bound.number];
                    *range = (range.0.max(lo), range.1.min(hi));
                }
                for (outer, inner) in
                    (ranges[0].0..ranges[0].1).flat_map(|o| (ranges[1].0..ranges[1].1).map(move |i| (o, i)))
                {
                    for p in points(&[t.rows, t.columns, t.depth]) {
                        let at = |line: usize| [&fixed[..], &[outer, inner, line, p[2]]].concat();
                        let a = t.operands[0].element(&at(p[0])).unwrap();
                        let b = t.operands[1].element(&at(p[1])).unwrap();
                        let out = t.out.element(&[&fixed[..], &p[..2]].concat()).unwrap();
                        terms.push([out, a, b]);
                    }
                }
            }
        }
        terms.sort_unstable();
        terms
    }

    const PIXELS: &[usize] = &[2, 3, 0, 1];

    #[test]
    fn tiles_multiply_what_the_products_do_and_nothing_on_padding() {
        let small = |kernel, stride, pad| ConvShape { n: 16, c: 16, o: 20, ..conv([5, 4], kernel, stride, pad) };
        for c in [small(3, 1, 1), small(4, 2, 1), small(1, 1, 0), small(2, 3, 2)] {
            let turned: &[usize] = &[2, 3, 1, 0];
            let kinds = [
                (ContractionKind::Conv2d(c), [PIXELS, PIXELS]),
                (ContractionKind::Conv2d(c), [PIXELS, turned]),
                (ContractionKind::Conv2dInputGrad(c), [PIXELS, turned]),
                (ContractionKind::Conv2dFilterGrad(c), [PIXELS, PIXELS]),
            ];
            for (kind, orders) in kinds {
                let (shapes, _) = kind.shapes();
                let [a, b] = [0, 1].map(|side| Access::ordered(&shapes[side], orders[side]));
                let tilings = products(kind, orders).expect("pixel-major operands are copied in runs");
                assert_eq!(terms_of_tilings(&tilings), terms_of(&kind.gemms_of([&a, &b])), "{kind:?}");
            }
        }
    }

    #[test]
    fn a_convolution_is_a_product_of_images_for_each_pixel_and_tap() {
        let c = conv([7, 7], 5, 1, 2);
        let [tiling] = &products(ContractionKind::Conv2d(c), [PIXELS, PIXELS]).unwrap()[..] else { panic!() };
        assert_eq!((tiling.rows, tiling.columns, tiling.depth), (64, 48, 32));
        assert_eq!((&tiling.fixed[..], tiling.loops), (&[7, 7][..], [5, 5]));
        assert_eq!([tiling.lines(0), tiling.lines(1)], [(true, 32), (true, 32)]);
        // Of 25 taps of 49 pixels 31% are on padding.
        assert_eq!(tiling.mean_steps(step(Math::Tf32)), (29 * 29usize).div_ceil(49));
        assert_eq!(tiling.most_steps(step(Math::Tf32)), 25);
    }

    #[test]
    fn the_residues_of_a_strided_input_gradient_are_one_product() {
        let c = conv([8, 8], 4, 2, 1);
        let turned: &[usize] = &[2, 3, 1, 0];
        let tilings = products(ContractionKind::Conv2dInputGrad(c), [PIXELS, turned]).unwrap();
        let [tiling] = &tilings[..] else { panic!("{} products", tilings.len()) };
        assert_eq!((&tiling.fixed[..], tiling.loops), (&[2, 2, 4, 4][..], [2, 2]));
        // Residues with other numbers of pixels stay apart.
        let odd = conv([7, 8], 4, 2, 1);
        assert_eq!(products(ContractionKind::Conv2dInputGrad(odd), [PIXELS, turned]).unwrap().len(), 4);
    }

    #[test]
    fn a_filter_gradient_is_a_product_over_images_for_each_tap() {
        let c = conv([8, 8], 4, 2, 1);
        let [tiling] = &products(ContractionKind::Conv2dFilterGrad(c), [PIXELS, PIXELS]).unwrap()[..] else { panic!() };
        assert_eq!((tiling.rows, tiling.columns, tiling.depth), (48, 32, 64));
        assert_eq!((&tiling.fixed[..], tiling.loops), (&[4, 4][..], [4, 4]));
        assert_eq!([tiling.lines(0), tiling.lines(1)], [(false, 48), (false, 32)]);
    }

    #[test]
    fn operands_that_are_not_copied_in_runs_are_refused() {
        let c = conv([8, 8], 3, 1, 1);
        // Rows of pixels are bounded, so row-major images have no run that is always inside.
        let plain: &[usize] = &[0, 1, 2, 3];
        assert_eq!(products(ContractionKind::Conv2d(c), [plain, PIXELS]), None);
        let matmul = |m, n, k| products(ContractionKind::MatMul { batch: 1, m, n, k }, [&[0, 1, 2], &[0, 1, 2]]);
        assert!(matmul(100, 64, 300).is_some());
        assert!(matmul(100, 64, 30).is_none(), "rows of 30 floats do not start at multiples of 16 bytes");
        assert!(matmul(100, 8, 300).is_none(), "too few columns");
        assert!(matmul(16, 16, 16).is_some());
    }

    #[test]
    fn coordinates_of_positions_are_affine_or_refused() {
        let out = Access { offset: 22, strides: vec![24, -3, 6, -1], bounds: Vec::new() };
        let sizes = [3, 2, 1, 2];
        let found = coordinates(&out, &sizes, &[3, 4, 6]).unwrap();
        for p in points(&sizes) {
            let at: Vec<i128> = found.iter().map(|a| a.element(&p).unwrap()).collect();
            assert_eq!((at[0] * 4 + at[1]) * 6 + at[2], out.element(&p).unwrap());
            assert!((0..4).contains(&at[1]) && (0..6).contains(&at[2]));
        }
        // Five steps of 2 carry into the next row of 6.
        let carrying = Access { offset: 0, strides: vec![2], bounds: Vec::new() };
        assert_eq!(coordinates(&carrying, &[5], &[3, 6]), None);
    }

    /// A prologue's coordinates are those of the element that is staged.
    #[test]
    fn what_is_staged_is_at_its_coordinates() {
        let small = |kernel, pad| ConvShape { n: 32, c: 16, o: 20, ..conv([5, 4], kernel, 1, pad) };
        let mut kinds = vec![(ContractionKind::MatMul { batch: 2, m: 24, n: 20, k: 16 }, &[0, 1, 2][..])];
        for c in [small(1, 0), small(3, 1), small(2, 2)] {
            kinds.push((ContractionKind::Conv2d(c), PIXELS));
            kinds.push((ContractionKind::Conv2dInputGrad(c), PIXELS));
            kinds.push((ContractionKind::Conv2dFilterGrad(c), PIXELS));
        }
        for (kind, order) in kinds {
            let (shapes, out) = kind.shapes();
            let staged = |shape: &[usize]| {
                let (access, mut exprs) = (Access::ordered(shape, order), Exprs::default());
                let load = exprs.push(Expr::Load { buffer: 0, access, lane: Lane::Real });
                Operand::Computed { exprs, staged: Some(load) }
            };
            // Of what the epilogue's space cuts, tiles are parts of rows.
            let cut = |space: &[usize]| [&[2, space[0] / 2][..], &space[1..]].concat();
            for space in [out.clone(), cut(&out)] {
                let c = Contraction {
                    kind,
                    operands: [staged(&shapes[0]), staged(&shapes[1])],
                    reduced: vec![false; space.len()],
                    space,
                    exprs: Exprs::default(),
                    stores: Vec::new(),
                    reductions: Vec::new(),
                    finish: Finish::default(),
                };
                let tilings = tilings(&c).expect("pixel-major operands are copied in runs");
                let [tiling] = &tilings[..] else { panic!("{} products", tilings.len()) };
                let shapes = kind.in_product_order([&shapes[0], &shapes[1]]);
                for (side, lines) in [tiling.rows, tiling.columns].into_iter().enumerate() {
                    let from = Access::ordered(shapes[side], order);
                    let space = [&tiling.fixed[..], &tiling.loops, &[lines, tiling.depth]].concat();
                    for p in points(&space) {
                        let at = |access: &Access| access.element(&p).unwrap();
                        let indices: Vec<i128> = tiling.operand_coordinates[side].iter().map(at).collect();
                        let element: i128 = indices.iter().zip(&from.strides).map(|(i, &s)| i * s as i128).sum();
                        assert_eq!(indices.len(), shapes[side].len());
                        assert_eq!(element, at(&tiling.operands[side]), "{kind:?} {side} {p:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn pixels_with_more_taps_come_first() {
        let orders: [&[usize]; 2] = [&[2, 3, 0, 1]; 2];
        let same = conv([4, 5], 1, 1, 0);
        let tilings = products(ContractionKind::Conv2d(same), orders).unwrap();
        assert_eq!(tilings[0].longest_first(), None);
        // Of 3 x 3 pixels those at corners have 4 taps, those at edges 6.
        let padded = conv([3, 3], 3, 1, 1);
        let tilings = products(ContractionKind::Conv2d(padded), orders).unwrap();
        assert_eq!(tilings[0].longest_first(), Some(vec![4, 1, 3, 5, 7, 0, 2, 6, 8]));
    }
}
