//! Reductions of what the epilogue of a product in tiles computes: each tile leaves a partial result for every row or
//! column of its own, or one for all, and these are combined in one order by a launch of their own.

use super::access::{Access, kept_shape};
use super::body::{
    BufferId, Contraction, Expr, ExprId, Exprs, Finish, Nest, Reduction, SlotId, Sweep, squared_deviation,
};
use super::choice::{Math, ThreadBlocks, Tile};
use super::tiling::{BESIDE, coordinates, tilings};
use crate::scalar::{Lane, ScalarOp};
use crate::tensor::{DType, Shape};
use crate::types::{Real, ReduceKind};

/// The most numbers that each thread reduces with others in shared memory, which has place for so many of 128 threads. Only
/// GPUs with much more of it have blocks of more threads.
const MOST_NUMBERS: usize = BESIDE / (128 * size_of::<f32>());

/// Which of a tile's results there is a partial result for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    Rows,
    Columns,
    /// One for the whole tile.
    Neither,
}

/// Reductions by tiles, all over the same dimensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TileReduction<B> {
    /// What is reduced, expressions of the epilogue, to a sum or a maximum.
    pub values: Vec<(ReduceKind, ExprId)>,
    /// Which of these, a sum, is also reduced to the squared deviations from each tile's own mean. Their sums lie behind all
    /// others.
    pub deviated: Option<usize>,
    /// How many elements of a tile come to one partial result, where the tiles are whole.
    pub elements: usize,
    pub kept: Kept,
    /// The shape of one value's partial results, which lie row-major, those of the next value behind them: the product's
    /// fixed dimensions, the tiles along what each reduces, and the rows or columns that are kept (of the whole product);
    /// where neither are, tiles down and across.
    pub space: Shape,
    /// Which of these are combined.
    pub reduced: Vec<bool>,
    /// What the contraction's reductions are, by their numbers.
    pub results: Vec<TileResult>,
    /// What is done with them, over the contraction's kept shape.
    pub finish: Finish<B>,
    /// Each dimension of that shape by those of `space`.
    coordinates: Vec<Access>,
}

/// What partial results are combined to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TileResult {
    /// The number of the value.
    pub value: usize,
    /// Whether it is the sum of its squared deviations from the mean.
    pub deviations: bool,
}

impl<B: Clone> TileReduction<B> {
    /// The reductions of a contraction that is computed by one product, unsplit, by tensor cores, where every dimension
    /// of its tiles is either kept or reduced, and shared memory has place for it. `None` for others: they sweep sums in memory.
    pub fn of(c: &Contraction<B>, blocks: &ThreadBlocks) -> Option<TileReduction<B>> {
        if c.reductions.is_empty() || blocks.math == Math::Fma || blocks.splits != 1 {
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
        let Tile { rows, columns, .. } = blocks.tile;
        let [whole_down, whole_across] = [tiling.rows.is_multiple_of(rows), tiling.columns.is_multiple_of(columns)];
        let (elements, is_whole) = match kept {
            Kept::Columns => (rows, whole_down),
            Kept::Rows => (columns, whole_across),
            Kept::Neither => (rows * columns, whole_down && whole_across),
        };
        let mut deviated = None;
        let mut values: Vec<(ReduceKind, ExprId)> = Vec::new();
        let mut results = Vec::with_capacity(c.reductions.len());
        for reduction in &c.reductions {
            let deviations = reduction.kind == ReduceKind::Deviations;
            let kind = if deviations { ReduceKind::Sum } else { reduction.kind };
            let wanted = (kind, reduction.value);
            let value = values.iter().position(|value| *value == wanted).unwrap_or_else(|| {
                values.push(wanted);
                values.len() - 1
            });
            // Of one value a thread finds the elements again, and deviations of whole tiles are combined alike.
            if deviations && (deviated.is_some_and(|other| other != value) || !is_whole) {
                return None;
            }
            deviated = if deviations { Some(value) } else { deviated };
            results.push(TileResult { value, deviations });
        }
        // Over the partial results' dimensions; those that are reduced are not looked at.
        let of_partials = |d: usize| match &coordinates[d] {
            at if !c.reduced[d] && c.space[d] > 1 => {
                let strides =
                    (0..fixed).map(|p| at.strides[p]).chain([0, along.map_or(0, |p| at.strides[p])]).collect();
                Access { offset: at.offset, strides, bounds: Vec::new() }
            }
            _ => Access { offset: 0, strides: vec![0; fixed + 2], bounds: Vec::new() },
        };
        // A thread has one place in the lines of a tile that are stored, and reduces any number of values there. Of lines
        // only one is in shared memory.
        let is_of_lines = kept == if is_stored_along_rows(c, &coordinates, fixed) { Kept::Columns } else { Kept::Rows };
        if is_of_lines && values.len() > 1 {
            return None;
        }
        if values.len() + usize::from(deviated.is_some()) > MOST_NUMBERS {
            return None;
        }
        Some(TileReduction {
            values,
            deviated,
            elements,
            kept,
            space: [&tiling.fixed[..], &tail].concat(),
            reduced: [&is_reduced[..fixed], &[true, kept == Kept::Neither]].concat(),
            results,
            finish: c.finish.clone(),
            coordinates: (0..c.space.len()).map(of_partials).collect(),
        })
    }

    /// How many partial results there are of each value.
    pub fn partials(&self) -> usize {
        self.space.iter().product()
    }

    /// How many there are of all.
    pub fn floats(&self) -> usize {
        self.numbers().saturating_mul(self.partials())
    }

    /// How many numbers are reduced.
    fn numbers(&self) -> usize {
        self.values.len() + usize::from(self.deviated.is_some())
    }
}

/// Whether neighbouring rows of a product are neighbours in memory by what is stored first. `coordinates` are those of the
/// epilogue's space over the fixed dimensions, rows and columns.
pub fn is_stored_along_rows<B>(c: &Contraction<B>, coordinates: &[Access], fixed: usize) -> bool {
    c.stores.first().is_some_and(|store| {
        let strides = || store.access.strides.iter().zip(coordinates);
        let along = |p: usize| strides().map(|(stride, at)| stride * at.strides[p]).sum::<isize>().abs();
        along(fixed) == 1 && along(fixed + 1) != 1
    })
}

impl TileReduction<BufferId> {
    /// What combines the partial results. Squared deviations from the means of parts become those from the mean of all by the
    /// squares of how far the means are apart (Chan, Golub & LeVeque, "Algorithms for Computing the Sample Variance", The
    /// American Statistician 37, 1983, equation 2.1): a second sweep.
    pub fn combine(&self, partials: BufferId) -> Nest<BufferId> {
        let mut exprs = Exprs::default();
        let load = |exprs: &mut Exprs<BufferId>, number: usize| {
            let first = (number * self.partials()) as isize;
            let access = Access { offset: first, ..Access::contiguous(&self.space) };
            exprs.push(Expr::Load { buffer: partials, access, lane: Lane::Real })
        };
        let (mut sweep, mut second) = (Sweep::default(), Sweep::default());
        for (number, &(kind, _)) in self.values.iter().enumerate() {
            let value = load(&mut exprs, number);
            sweep.reductions.push(Reduction { kind, value, slot: SlotId::new(number) });
        }
        let mut slots = self.values.len();
        if let Some(deviated) = self.deviated {
            let sum = exprs.push(Expr::Slot(SlotId::new(deviated)));
            let parts = self.partials() / kept_shape(&self.space, &self.reduced).iter().product::<usize>();
            let of_part = load(&mut exprs, deviated);
            // From part to part, of sums: their mean is the sum of all divided by how many parts there are.
            let square = squared_deviation(&mut |expr| exprs.push(expr), of_part, sum, parts);
            let by_size = exprs.push(Expr::Constant { value: Real(1.0 / self.elements as f64), dtype: DType::F32 });
            let between = exprs.push(Expr::Scalar { op: ScalarOp::Mul, args: vec![square, by_size] });
            let within = load(&mut exprs, self.values.len());
            let value = exprs.push(Expr::Scalar { op: ScalarOp::Add, args: vec![within, between] });
            second.reductions.push(Reduction { kind: ReduceKind::Sum, value, slot: SlotId::new(slots) });
            slots += 1;
        }
        let slot = |result: &TileResult| SlotId::new(if result.deviations { slots - 1 } else { result.value });
        let results: Vec<SlotId> = self.results.iter().map(slot).collect();
        let mut sweeps = if self.deviated.is_some() { vec![sweep, second] } else { vec![sweep] };
        if let Some(last) = sweeps.last_mut() {
            last.kept_stores = self
                .finish
                .kept_stores(&mut exprs, &results, |access| access.through(&self.coordinates, self.space.len()));
        }
        Nest { space: self.space.clone(), reduced: self.reduced.clone(), exprs, slots, sweeps }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::body::{EpilogueReduction, Operand, Store};
    use crate::kernel::contraction::{ContractionKind, ConvShape};
    use crate::kernel::tiling::{MOST_SHARED, shared_bytes};
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
        let kept = kept_shape(&space, reduced);
        Contraction {
            kind,
            operands: [operand(0), operand(1)],
            space,
            exprs,
            stores: Vec::new(),
            reduced: reduced.to_vec(),
            reductions: vec![EpilogueReduction { kind: ReduceKind::Max, value }],
            finish: stored_at(&[Access::contiguous(&kept)]),
        }
    }

    /// Each reduction as it is, stored by an access of its own.
    fn stored_at(accesses: &[Access]) -> Finish<BufferId> {
        let mut finish = Finish::default();
        for (number, access) in accesses.iter().enumerate() {
            let value = finish.exprs.push(Expr::Slot(SlotId::new(number)));
            finish.stores.push(Store { value, buffer: BufferId::new(2 + number), access: access.clone() });
        }
        finish
    }

    /// By which strides of the partial results' space the first result is stored.
    fn strides(reduction: &TileReduction<BufferId>) -> Vec<isize> {
        let nest = reduction.combine(BufferId::new(9));
        nest.sweeps.last().unwrap().kept_stores[0].access.strides.clone()
    }

    #[test]
    fn tiles_keep_rows_columns_or_neither() {
        let kind = ContractionKind::MatMul { batch: 1, m: 300, n: 160, k: 64 };
        let of = |over: [bool; 3]| TileReduction::of(&reduced(kind, [&[0, 1, 2]; 2], &over), &BLOCKS).unwrap();
        let rows = of([false, false, true]);
        assert_eq!((rows.kept, rows.space, rows.reduced), (Kept::Rows, vec![3, 300], vec![true, false]));
        assert_eq!(strides(&of([false, false, true])), [0, 1]);
        let columns = of([false, true, false]);
        assert_eq!((columns.kept, columns.space, columns.reduced), (Kept::Columns, vec![3, 160], vec![true, false]));
        let neither = of([false, true, true]);
        assert_eq!((neither.kept, neither.space, neither.reduced), (Kept::Neither, vec![3, 3], vec![true, true]));
    }

    #[test]
    fn one_value_is_reduced_to_several_results() {
        let kind = ContractionKind::MatMul { batch: 1, m: 256, n: 160, k: 64 };
        let with = |kinds: &[ReduceKind], over: [bool; 3]| {
            let mut c = reduced(kind, [&[0, 1, 2]; 2], &over);
            let EpilogueReduction { value, .. } = c.reductions[0];
            c.reductions = kinds.iter().map(|&kind| EpilogueReduction { kind, value }).collect();
            let access = c.finish.stores[0].access.clone();
            c.finish = stored_at(&vec![access; kinds.len()]);
            TileReduction::of(&c, &BLOCKS)
        };
        let [sum, max, deviations] = [ReduceKind::Sum, ReduceKind::Max, ReduceKind::Deviations];
        let columns = [false, true, false];
        let found = with(&[deviations, sum, max], columns).unwrap();
        assert_eq!(found.values.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [sum, max]);
        assert_eq!((found.deviated, found.elements, found.floats()), (Some(0), 128, 3 * 2 * 160));
        let numbers: Vec<_> = found.results.iter().map(|result| (result.value, result.deviations)).collect();
        assert_eq!(numbers, [(0, true), (0, false), (1, false)]);
        let nest = found.combine(BufferId::new(3));
        assert_eq!((nest.sweeps.len(), nest.slots), (2, 3));
        // Lines of a tile along columns have one value in shared memory, and its columns are not whole tiles.
        let rows = [false, false, true];
        assert!(with(&[sum], rows).is_some());
        assert_eq!(with(&[sum, max], rows), None);
        assert_eq!(with(&[deviations], rows), None);
    }

    /// A GPU refuses to launch blocks with more shared memory than it has.
    #[test]
    fn what_is_reduced_has_place_beside_the_operands() {
        let kind = ContractionKind::MatMul { batch: 1, m: 256, n: 128, k: 64 };
        let with = |values: usize| {
            let mut c = reduced(kind, [&[0, 1, 2]; 2], &[false, true, false]);
            let EpilogueReduction { kind, .. } = c.reductions[0];
            let value = |number| {
                let constant = Expr::Constant { value: Real(number as f64), dtype: DType::F32 };
                c.exprs.push(constant)
            };
            let values: Vec<ExprId> = (0..values).map(value).collect();
            c.reductions = values.into_iter().map(|value| EpilogueReduction { kind, value }).collect();
            let blocks = ThreadBlocks { tile: Tile { rows: 128, columns: 128, depth: 32 }, ..BLOCKS };
            // Of 128 threads.
            let bytes =
                |reduction: TileReduction<_>| shared_bytes(&blocks) + reduction.numbers() * 128 * size_of::<f32>();
            TileReduction::of(&c, &blocks).map(bytes)
        };
        assert!(with(1).is_some());
        assert_eq!(with(6), Some(MOST_SHARED));
        assert_eq!(with(7), None);
    }

    /// Rows of two calls are in different tiles where each call's are whole tiles, and else not tiled by call at all.
    #[test]
    fn tiles_are_of_one_call() {
        let of = |m: usize| {
            let kind = ContractionKind::MatMul { batch: 1, m, n: 64, k: 64 };
            let mut c = reduced(kind, [&[0, 1, 2]; 2], &[false, true, false]);
            c.space = vec![1, 2, m / 2, 64];
            c.reduced = vec![false, false, true, false];
            c.finish = stored_at(&[Access::contiguous(&kept_shape(&c.space, &c.reduced))]);
            c.reductions[0].kind = ReduceKind::Deviations;
            TileReduction::of(&c, &BLOCKS)
        };
        let two = of(512).unwrap();
        assert_eq!(
            (two.kept, &two.space[..], &two.reduced[..]),
            (Kept::Columns, &[2, 2, 64][..], &[false, true, false][..])
        );
        assert_eq!(strides(&two), [64, 0, 1]);
        assert_eq!(of(192), None);
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
        assert_eq!(strides(&reduction), [0, 0, 0, 1]);
        // One result for each image and channel: every tile is whole results.
        let c = reduced(ContractionKind::Conv2d(conv), [pixels; 2], &[false, false, true, true]);
        assert_eq!(TileReduction::of(&c, &BLOCKS), None);
        // Parts of sums are no sums yet.
        let split = ThreadBlocks { splits: 2, ..BLOCKS };
        let c = reduced(ContractionKind::Conv2d(conv), [pixels; 2], &[true, false, true, true]);
        assert_eq!(TileReduction::of(&c, &split), None);
    }
}
