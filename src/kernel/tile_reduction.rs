//! Reductions of what the epilogue of a product in tiles computes: each tile leaves a partial result for every row or
//! column of its own, or one for all, and these are combined in one order by a launch of their own.

use super::access::Access;
use super::body::{BufferId, Contraction, Expr, ExprId, Exprs, Nest, Reduction, SlotId, Store, Sweep};
use super::choice::{Math, ThreadBlocks};
use super::tiling::{coordinates, tilings};
use crate::scalar::Lane;
use crate::tensor::Shape;
use crate::types::ReduceKind;

/// Which of a tile's results there is a partial result for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    Rows,
    Columns,
    /// One for the whole tile.
    Neither,
}

/// A reduction by tiles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TileReduction<B> {
    pub kind: ReduceKind,
    /// What is reduced, an expression of the epilogue.
    pub value: ExprId,
    pub kept: Kept,
    /// The shape of the partial results, which lie row-major: the product's fixed dimensions, the tiles along what each
    /// reduces, and the rows or columns that are kept (of the whole product); where neither are, tiles down and across.
    pub space: Shape,
    /// Which of these are combined.
    pub reduced: Vec<bool>,
    /// Where the result goes: an access over the kept shape of the space.
    pub result: Access,
    pub buffer: B,
}

impl<B: Clone> TileReduction<B> {
    /// The one reduction of a contraction that is computed by one product, unsplit, by tensor cores, where every dimension
    /// of its tiles is either kept or reduced. `None` for others: they sweep sums in memory.
    pub fn of(c: &Contraction<B>, blocks: &ThreadBlocks) -> Option<TileReduction<B>> {
        let [reduction] = c.reductions.as_slice() else { return None };
        if blocks.math == Math::Fma || blocks.splits != 1 {
            return None;
        }
        let tilings = tilings(c)?;
        let [tiling] = tilings.as_slice() else { return None };
        let sizes = [&tiling.fixed[..], &[tiling.rows, tiling.columns]].concat();
        let coordinates = coordinates(&tiling.out, &sizes, &c.space)?;
        // Whether a dimension of the tiles runs over reduced dimensions alone.
        let mut is_reduced = Vec::with_capacity(sizes.len());
        for p in 0..sizes.len() {
            let mut moved = (0..c.space.len()).filter(|&d| coordinates[d].strides[p] != 0).map(|d| c.reduced[d]);
            let first = moved.next()?;
            if moved.any(|reduced| reduced != first) {
                return None;
            }
            is_reduced.push(first);
        }
        let fixed = tiling.fixed.len();
        let [down, across] = [tiling.rows.div_ceil(blocks.tile.rows), tiling.columns.div_ceil(blocks.tile.columns)];
        let (kept, tail, along) = match (is_reduced[fixed], is_reduced[fixed + 1]) {
            (true, false) => (Kept::Columns, [down, tiling.columns], Some(fixed + 1)),
            (false, true) => (Kept::Rows, [across, tiling.rows], Some(fixed)),
            (true, true) => (Kept::Neither, [down, across], None),
            (false, false) => return None,
        };
        // A result's element by the coordinates of its kept dimensions.
        let to = &reduction.result.access;
        let kept_dimensions = || (0..c.space.len()).filter(|&d| !c.reduced[d] && c.space[d] > 1);
        let stride = |p: usize| kept_dimensions().map(|d| to.strides[d] * coordinates[d].strides[p]).sum::<isize>();
        let offset = to.offset + kept_dimensions().map(|d| to.strides[d] * coordinates[d].offset).sum::<isize>();
        let strides = (0..fixed).map(stride).chain([0, along.map_or(0, stride)]).collect();
        Some(TileReduction {
            kind: reduction.kind,
            value: reduction.result.value,
            kept,
            space: [&tiling.fixed[..], &tail].concat(),
            reduced: [&is_reduced[..fixed], &[true, kept == Kept::Neither]].concat(),
            result: Access { offset, strides, bounds: Vec::new() },
            buffer: reduction.result.buffer.clone(),
        })
    }

    /// How many partial results there are.
    pub fn partials(&self) -> usize {
        self.space.iter().product()
    }
}

impl TileReduction<BufferId> {
    /// What combines the partial results.
    pub fn combine(&self, partials: BufferId) -> Nest<BufferId> {
        let mut exprs = Exprs::default();
        let access = Access::contiguous(&self.space);
        let value = exprs.push(Expr::Load { buffer: partials, access, lane: Lane::Real });
        let slot = SlotId::new(0);
        let result = exprs.push(Expr::Slot(slot));
        let sweep = Sweep {
            reductions: vec![Reduction { kind: self.kind, value, slot }],
            kept_stores: vec![Store { value: result, buffer: self.buffer, access: self.result.clone() }],
            ..Sweep::default()
        };
        Nest { space: self.space.clone(), reduced: self.reduced.clone(), exprs, slots: 1, sweeps: vec![sweep] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::access::kept_shape;
    use crate::kernel::body::{EpilogueReduction, Operand};
    use crate::kernel::choice::Tile;
    use crate::kernel::contraction::{ContractionKind, ConvShape};
    use crate::types::Window;

    const BLOCKS: ThreadBlocks = ThreadBlocks {
        math: Math::Tf32,
        tile: Tile { rows: 128, columns: 64, depth: 32 },
        warps: [2, 2],
        stages: 3,
        splits: 1,
    };

    /// A contraction of operands in these orders in memory whose sums are reduced over some dimensions.
    fn reduced(kind: ContractionKind, orders: [&[usize]; 2], reduced: &[bool]) -> Contraction<BufferId> {
        let (shapes, space) = kind.shapes();
        let operand = |side: usize| Operand::Buffer {
            buffer: BufferId::new(side),
            access: Access::ordered(&shapes[side], orders[side]),
        };
        let mut exprs = Exprs::default();
        let value = exprs.push(Expr::Accumulator);
        let access = Access::contiguous(&kept_shape(&space, reduced));
        let result = Store { value, buffer: BufferId::new(2), access };
        Contraction {
            kind,
            operands: [operand(0), operand(1)],
            space,
            exprs,
            stores: Vec::new(),
            reduced: reduced.to_vec(),
            reductions: vec![EpilogueReduction { kind: ReduceKind::Max, result }],
        }
    }

    #[test]
    fn tiles_keep_rows_columns_or_neither() {
        let kind = ContractionKind::MatMul { batch: 1, m: 300, n: 160, k: 64 };
        let of = |over: [bool; 3]| TileReduction::of(&reduced(kind, [&[0, 1, 2]; 2], &over), &BLOCKS).unwrap();
        let rows = of([false, false, true]);
        assert_eq!((rows.kept, rows.space, rows.reduced), (Kept::Rows, vec![3, 300], vec![true, false]));
        assert_eq!(rows.result.strides, [0, 1]);
        let columns = of([false, true, false]);
        assert_eq!((columns.kept, columns.space, columns.reduced), (Kept::Columns, vec![3, 160], vec![true, false]));
        let neither = of([false, true, true]);
        assert_eq!((neither.kept, neither.space, neither.reduced), (Kept::Neither, vec![3, 3], vec![true, true]));
    }

    #[test]
    fn pixels_are_combined_with_the_tiles() {
        let window = Window { stride: [1; 2], pad: [1; 2] };
        let conv = ConvShape { n: 256, c: 64, input: [7, 5], o: 80, kernel: [3; 2], output: [7, 5], window };
        let pixels: &[usize] = &[2, 3, 0, 1];
        let c = reduced(ContractionKind::Conv2d(conv), [pixels; 2], &[true, false, true, true]);
        let reduction = TileReduction::of(&c, &BLOCKS).unwrap();
        assert_eq!((reduction.kept, &reduction.space[..]), (Kept::Columns, &[7, 5, 2, 80][..]));
        assert_eq!(reduction.reduced, [true, true, true, false]);
        assert_eq!(reduction.result.strides, [0, 0, 0, 1]);
        // One result for each image and channel: every tile is whole results.
        let c = reduced(ContractionKind::Conv2d(conv), [pixels; 2], &[false, false, true, true]);
        assert_eq!(TileReduction::of(&c, &BLOCKS), None);
        // Parts of sums are no sums yet.
        let split = ThreadBlocks { splits: 2, ..BLOCKS };
        let c = reduced(ContractionKind::Conv2d(conv), [pixels; 2], &[true, false, true, true]);
        assert_eq!(TileReduction::of(&c, &split), None);
    }
}
