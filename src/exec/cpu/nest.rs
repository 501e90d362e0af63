//! Running loop nests.
//!
//! Work is cut into tasks by the nest's sizes alone, and each sum is taken in one fixed order, so the
//! bits do not depend on the number of threads.

use super::arena::{Arena, Location};
use super::tile::{Registers, Segment, Surroundings};
use super::tile_program::{Reader, TILE, TileProgram, TileSpace};
use crate::kernel::access::kept_shape;
use crate::kernel::body::{BufferId, ExprId, Exprs, Nest, Store, Sweep};
use crate::plan::{DType, ReduceKind};
use crate::scalar::{larger, simd::multiversion};
use crate::tensor::{Bf16, Native};
use crate::types::MAX_RANK;

/// Full-space points that one task should have at least, so that handing it out costs nothing.
const TASK_POINTS: usize = 16 * TILE;
/// Floats of one buffer that a kept tile reads in a sweep: they stay in a second-level cache until the next one.
const SWEEP_FLOATS: usize = 32 * 1024;
/// Rows that are summed in f32 before they are added to the total: bounds the rounding error.
const PARTIAL_ROWS: usize = 32;

/// A value that goes to memory.
#[derive(Debug)]
pub struct Write {
    pub value: ExprId,
    pub base: Location,
    /// Where each point goes in the buffer, unless point `i` goes to element `i`.
    pub to: Option<Reader>,
}

impl Write {
    /// `place` says where a buffer is.
    pub fn new(store: &Store<BufferId>, space: &[usize], place: &dyn Fn(BufferId) -> Location) -> Write {
        let to = Some(Reader::new(&store.access, space)).filter(|reader| !reader.is_direct());
        Write { value: store.value, base: place(store.buffer), to }
    }
}

/// One sweep made ready.
#[derive(Debug)]
struct SweepProgram {
    full: TileProgram,
    /// The last is the slot.
    reductions: Vec<(ReduceKind, ExprId, usize)>,
    stores: Vec<Write>,
    kept: Vec<(usize, TileProgram, ExprId)>,
    kept_stores: Vec<(TileProgram, Write)>,
}

/// How a nest's space is walked.
#[derive(Debug)]
enum Walk {
    /// Nothing is reduced.
    Elementwise { points: usize },
    /// The innermost dimensions are reduced: a task is some kept points, each swept alone.
    Rows {
        kept_points: usize,
        points_per_task: usize,
        /// Consecutive reduced points.
        run: usize,
        /// Where each run starts, relative to its kept point's first.
        runs: Positions,
    },
    /// The innermost dimensions are kept: a task is a tile of consecutive kept points, and each step of a
    /// sweep is one row of as many points.
    Columns {
        /// Consecutive kept points, cut into tiles of `tile`.
        run: usize,
        tile: usize,
        runs: usize,
        /// Where each row starts, relative to the tile's first.
        rows: Positions,
    },
}

/// A nest made ready to run on one plan's arena.
#[derive(Debug)]
pub struct NestProgram {
    walk: Walk,
    /// Size, row-major stride in the full space, for each kept dimension, outermost first.
    kept_dims: Vec<(usize, usize)>,
    sweeps: Vec<SweepProgram>,
    slots: usize,
    reductions: usize,
}

/// What a worker needs to run nests; reused from kernel to kernel.
#[derive(Debug, Default)]
pub struct Scratch {
    pub registers: Registers,
    slots: Vec<f32>,
    partials: Vec<f32>,
    sums: Vec<f64>,
    segments: Vec<Segment>,
}

impl Scratch {
    /// Room for any one of the given nests, and for programs outside of nests.
    pub fn new<'n>(nests: impl Iterator<Item = &'n NestProgram> + Clone, programs: &[&'n TileProgram]) -> Scratch {
        let all = nests.clone().flat_map(NestProgram::programs).chain(programs.iter().copied());
        let slots = nests.clone().map(|n| n.slots).max().unwrap_or(0);
        let reductions = nests.map(|n| n.reductions).max().unwrap_or(0);
        Scratch {
            registers: Registers::for_programs(all),
            slots: vec![0.0; slots * TILE],
            partials: vec![0.0; reductions * TILE],
            sums: vec![0.0; reductions],
            segments: Vec::with_capacity(TILE),
        }
    }
}

impl NestProgram {
    /// `place` says where a buffer is.
    pub fn new(nest: &Nest<BufferId>, place: &dyn Fn(BufferId) -> Location) -> NestProgram {
        let kept_shape = kept_shape(&nest.space, &nest.reduced);
        let strides = row_major(&nest.space);
        let dims = |reduced: bool| -> Vec<(usize, usize)> {
            (0..nest.space.len())
                .filter(|&d| nest.reduced[d] == reduced && nest.space[d] != 1)
                .map(|d| (nest.space[d], strides[d]))
                .collect()
        };
        let (kept_dims, reduced_dims) = (dims(false), dims(true));
        let innermost = (0..nest.space.len()).rev().find(|&d| nest.space[d] != 1);
        let is_elementwise = !nest.reduced.contains(&true);
        let walk = match innermost {
            _ if is_elementwise => Walk::Elementwise { points: nest.space.iter().product() },
            Some(d) if !nest.reduced[d] => {
                let (run, outer) = inner_run(&kept_dims);
                let rows = Positions::new(&reduced_dims);
                let tile = (SWEEP_FLOATS / rows.count).clamp(16, TILE) / 16 * 16;
                let runs = kept_dims[..outer].iter().map(|d| d.0).product();
                Walk::Columns { run, tile, runs, rows }
            }
            _ => {
                let (run, outer) = inner_run(&reduced_dims);
                let runs = Positions::new(&reduced_dims[..outer]);
                let kept_points = kept_dims.iter().map(|d| d.0).product();
                let points_per_task = (TASK_POINTS / (run * runs.count)).clamp(1, kept_points);
                Walk::Rows { kept_points, points_per_task, run, runs }
            }
        };
        let full = TileSpace { shape: &nest.space, repeated: &nest.reduced };
        let no_repeat = vec![false; nest.space.len()];
        let kept = TileSpace { shape: &kept_shape, repeated: &no_repeat };
        let sweeps = nest.sweeps.iter().map(|sweep| sweep_program(&nest.exprs, sweep, full, kept, place)).collect();
        let reductions = nest.sweeps.iter().map(|p| p.reductions.len()).max().unwrap_or(0);
        NestProgram { walk, kept_dims, sweeps, slots: nest.slots, reductions }
    }

    fn programs(&self) -> impl Iterator<Item = &TileProgram> {
        self.sweeps.iter().flat_map(|p| {
            let kept = p.kept.iter().map(|k| &k.1);
            std::iter::once(&p.full).chain(kept).chain(p.kept_stores.iter().map(|k| &k.0))
        })
    }

    /// How many tasks the nest is cut into.
    pub fn tasks(&self) -> usize {
        match &self.walk {
            Walk::Elementwise { points } => points.div_ceil(TASK_POINTS),
            Walk::Rows { kept_points, points_per_task, .. } => kept_points.div_ceil(*points_per_task),
            Walk::Columns { run, tile, runs, .. } => runs * run.div_ceil(*tile),
        }
    }

    /// Runs one task.
    pub fn run(&self, task: usize, arena: Arena, scratch: &mut Scratch) {
        match &self.walk {
            Walk::Elementwise { points } => {
                let start = task * TASK_POINTS;
                self.elementwise(start, TASK_POINTS.min(points - start), arena, scratch);
            }
            Walk::Rows { kept_points, points_per_task, run, runs } => {
                let start = task * points_per_task;
                for kept in start..(start + points_per_task).min(*kept_points) {
                    self.rows(kept, *run, runs, arena, scratch);
                }
            }
            Walk::Columns { run, tile, rows, .. } => {
                let tiles = run.div_ceil(*tile);
                let start = task % tiles * tile;
                let kept = task / tiles * run + start;
                self.columns(kept, (*tile).min(run - start), rows, arena, scratch);
            }
        }
    }

    fn elementwise(&self, start: usize, points: usize, arena: Arena, scratch: &mut Scratch) {
        let around = Surroundings { arena, slots: &[], accumulator: &[] };
        for sweep in &self.sweeps {
            scratch.registers.share(&sweep.full, around, &[Segment { start, len: 1 }], true);
            for at in (start..start + points).step_by(TILE) {
                let segment = [Segment { start: at, len: TILE.min(start + points - at) }];
                scratch.registers.run(&sweep.full, around, &segment, segment[0].len);
                write(&scratch.registers, &sweep.stores, around, &segment);
            }
        }
    }

    /// Where a kept point's elements start in the full space.
    fn first_of(&self, mut kept: usize) -> usize {
        let mut first = 0;
        for &(size, stride) in self.kept_dims.iter().rev() {
            first += kept % size * stride;
            kept /= size;
        }
        first
    }

    fn rows(&self, kept: usize, run: usize, runs: &Positions, arena: Arena, scratch: &mut Scratch) {
        let first = self.first_of(kept);
        let Scratch { registers, slots, sums, segments, .. } = scratch;
        for sweep in &self.sweeps {
            if !(sweep.reductions.is_empty() && sweep.stores.is_empty()) {
                let around = Surroundings { arena, slots, accumulator: &[] };
                registers.share(&sweep.full, around, &[Segment { start: first, len: 1 }], true);
                for (sum, (kind, ..)) in sums.iter_mut().zip(&sweep.reductions) {
                    *sum = identity(*kind).into();
                }
                let mut part = |segments: &mut Vec<Segment>, points: usize| {
                    registers.run(&sweep.full, around, segments, points);
                    for (sum, (kind, value, _)) in sums.iter_mut().zip(&sweep.reductions) {
                        let lanes = registers.value(*value, around, points);
                        match kind {
                            ReduceKind::Sum => *sum += f64::from(sum_lanes(lanes)),
                            ReduceKind::Max => *sum = larger(*sum as f32, max_lanes(lanes)).into(),
                            ReduceKind::Deviations => unreachable!("{SWEPT_TWICE}"),
                        }
                    }
                    write(registers, &sweep.stores, around, segments);
                    segments.clear();
                };
                let mut points = 0;
                for start in runs.iter() {
                    let mut done = 0;
                    while done < run {
                        let len = (run - done).min(TILE - points);
                        segments.push(Segment { start: first + start + done, len });
                        done += len;
                        points += len;
                        if points == TILE {
                            part(segments, points);
                            points = 0;
                        }
                    }
                }
                if points > 0 {
                    part(segments, points);
                }
                for (sum, (_, _, slot)) in sums.iter().zip(&sweep.reductions) {
                    slots[slot * TILE..][..TILE].fill(*sum as f32);
                }
            }
            let segment = [Segment { start: kept, len: 1 }];
            for (slot, program, value) in &sweep.kept {
                let around = Surroundings { arena, slots, accumulator: &[] };
                registers.share(program, around, &segment, true);
                registers.run(program, around, &segment, 1);
                let value = registers.value(*value, around, 1)[0];
                slots[slot * TILE..][..TILE].fill(value);
            }
            keep(registers, sweep, Surroundings { arena, slots, accumulator: &[] }, &segment);
        }
    }

    fn columns(&self, kept: usize, points: usize, rows: &Positions, arena: Arena, scratch: &mut Scratch) {
        let first = self.first_of(kept);
        let Scratch { registers, slots, partials, .. } = scratch;
        for sweep in &self.sweeps {
            if !(sweep.reductions.is_empty() && sweep.stores.is_empty()) {
                let around = Surroundings { arena, slots, accumulator: &[] };
                registers.share(&sweep.full, around, &[Segment { start: first, len: points }], false);
                for (kind, _, slot) in &sweep.reductions {
                    slots[slot * TILE..][..points].fill(identity(*kind));
                }
                let mut positions = rows.iter();
                for begun in (0..rows.count).step_by(PARTIAL_ROWS) {
                    let block = PARTIAL_ROWS.min(rows.count - begun);
                    for (partial, (kind, ..)) in partials.chunks_mut(TILE).zip(&sweep.reductions) {
                        partial[..points].fill(identity(*kind));
                    }
                    for row in positions.by_ref().take(block) {
                        let segment = [Segment { start: first + row, len: points }];
                        let around = Surroundings { arena, slots, accumulator: &[] };
                        registers.run(&sweep.full, around, &segment, points);
                        for (partial, (kind, value, _)) in partials.chunks_mut(TILE).zip(&sweep.reductions) {
                            combine(*kind, &mut partial[..points], registers.value(*value, around, points));
                        }
                        write(registers, &sweep.stores, around, &segment);
                    }
                    for (partial, (kind, _, slot)) in partials.chunks(TILE).zip(&sweep.reductions) {
                        combine(*kind, &mut slots[slot * TILE..][..points], &partial[..points]);
                    }
                }
            }
            let segment = [Segment { start: kept, len: points }];
            for (slot, program, value) in &sweep.kept {
                let around = Surroundings { arena, slots, accumulator: &[] };
                registers.share(program, around, &segment, false);
                registers.run(program, around, &segment, points);
                let value = registers.value(*value, around, points).to_owned_lanes();
                slots[slot * TILE..][..points].copy_from_slice(&value[..points]);
            }
            keep(registers, sweep, Surroundings { arena, slots, accumulator: &[] }, &segment);
        }
    }
}

/// A copy on the stack, so that a slot can be written while others are borrowed.
trait OwnedLanes {
    fn to_owned_lanes(&self) -> [f32; TILE];
}

impl OwnedLanes for [f32] {
    fn to_owned_lanes(&self) -> [f32; TILE] {
        let mut copy = [0.0; TILE];
        copy[..self.len()].copy_from_slice(self);
        copy
    }
}

fn sweep_program(
    exprs: &Exprs<BufferId>,
    sweep: &Sweep<BufferId>,
    full: TileSpace,
    kept: TileSpace,
    place: &dyn Fn(BufferId) -> Location,
) -> SweepProgram {
    let roots: Vec<ExprId> = sweep.swept().collect();
    SweepProgram {
        full: TileProgram::new(exprs, &roots, full, place),
        reductions: sweep.reductions.iter().map(|r| (r.kind, r.value, r.slot.index())).collect(),
        stores: sweep.stores.iter().map(|store| Write::new(store, full.shape, place)).collect(),
        kept: (sweep.kept.iter())
            .map(|&(slot, value)| (slot.index(), TileProgram::new(exprs, &[value], kept, place), value))
            .collect(),
        kept_stores: (sweep.kept_stores.iter())
            .map(|store| (TileProgram::new(exprs, &[store.value], kept, place), Write::new(store, kept.shape, place)))
            .collect(),
    }
}

/// Writes the kept values of a sweep.
fn keep(registers: &mut Registers, sweep: &SweepProgram, around: Surroundings, segment: &[Segment; 1]) {
    let splat = segment[0].len == 1;
    for (program, store) in &sweep.kept_stores {
        registers.share(program, around, segment, splat);
        registers.run(program, around, segment, segment[0].len);
        write(registers, std::slice::from_ref(store), around, segment);
    }
}

/// Copies values of a tile to where they belong.
pub fn write(registers: &Registers, stores: &[Write], around: Surroundings, segments: &[Segment]) {
    let points: usize = segments.iter().map(|s| s.len).sum();
    for store in stores {
        let mut value = registers.value(store.value, around, points);
        for segment in segments {
            let (head, tail) = value.split_at(segment.len);
            // SAFETY: a segment's points belong to one tile, and so to one task; a value that is read from the arena
            // may lie where a result does only if it is of the same elements, by the plan's verification.
            unsafe {
                let first = store.base.first();
                match (&store.to, store.base.dtype) {
                    (None, DType::F32 | DType::U32) => around.arena.store(first + segment.start, head),
                    (None, DType::Bf16) => narrow(around.arena.write(first + segment.start, head.len()), head),
                    (Some(to), DType::F32 | DType::U32) => scatter(around.arena, first, to, segment, head, |x: f32| x),
                    (Some(to), DType::Bf16) => scatter(around.arena, first, to, segment, head, Bf16::from_f32),
                }
            }
            value = tail;
        }
    }
}

/// Writes values to the elements that a reader gives to the points of a segment.
///
/// # Safety
/// The elements must be the calling task's alone, and no slice of them may be in use.
unsafe fn scatter<T: Native>(
    arena: Arena,
    base: usize,
    to: &Reader,
    segment: &Segment,
    values: &[f32],
    narrow: impl Fn(f32) -> T,
) {
    to.spans(segment.start, segment.len, |first, len, place| {
        let Some((element, stride)) = place else { return };
        let start = base.wrapping_add_signed(element);
        for (i, &value) in values[first..][..len].iter().enumerate() {
            // SAFETY: by the caller's word.
            unsafe { arena.put(start.wrapping_add_signed(i as isize * stride), narrow(value)) };
        }
    });
}

multiversion! {
    fn narrow(out: &mut [Bf16], lanes: &[f32]) {
        for (out, &x) in out.iter_mut().zip(lanes) {
            *out = Bf16::from_f32(x);
        }
    }
}

/// A plan whose nests reduce so is refused when it is loaded.
const SWEPT_TWICE: &str = "nests sweep twice for deviations";

fn identity(kind: ReduceKind) -> f32 {
    match kind {
        ReduceKind::Sum => 0.0,
        ReduceKind::Max => f32::NEG_INFINITY,
        ReduceKind::Deviations => unreachable!("{SWEPT_TWICE}"),
    }
}

fn combine(kind: ReduceKind, into: &mut [f32], lanes: &[f32]) {
    match kind {
        ReduceKind::Sum => into.iter_mut().zip(lanes).for_each(|(a, b)| *a += b),
        ReduceKind::Max => combine_max(into, lanes),
        ReduceKind::Deviations => unreachable!("{SWEPT_TWICE}"),
    }
}

const LANES: usize = 16;

multiversion! {
    /// The sum in a fixed tree: as many partial sums as the widest vectors have lanes.
    fn sum_lanes(lanes: &[f32]) -> f32 {
        let mut sums = [0f32; LANES];
        let chunks = lanes.chunks_exact(LANES);
        for (sum, x) in sums.iter_mut().zip(chunks.remainder()) {
            *sum += x;
        }
        for chunk in chunks {
            for i in 0..LANES {
                sums[i] += chunk[i];
            }
        }
        for width in [8, 4, 2, 1] {
            for i in 0..width {
                sums[i] += sums[i + width];
            }
        }
        sums[0]
    }
}

multiversion! {
    /// The largest, or NaN where there is one; in the same tree as sums, so that equal bits come out everywhere.
    fn max_lanes(lanes: &[f32]) -> f32 {
        let mut largest = [f32::NEG_INFINITY; LANES];
        let chunks = lanes.chunks_exact(LANES);
        for (a, &b) in largest.iter_mut().zip(chunks.remainder()) {
            *a = larger(*a, b);
        }
        for chunk in chunks {
            for i in 0..LANES {
                largest[i] = larger(largest[i], chunk[i]);
            }
        }
        for width in [8, 4, 2, 1] {
            for i in 0..width {
                largest[i] = larger(largest[i], largest[i + width]);
            }
        }
        largest[0]
    }
}

multiversion! {
    fn combine_max(into: &mut [f32], lanes: &[f32]) {
        for (a, &b) in into.iter_mut().zip(lanes) {
            *a = larger(*a, b);
        }
    }
}

fn row_major(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for d in (1..shape.len()).rev() {
        strides[d - 1] = strides[d] * shape[d];
    }
    strides
}

/// The number of consecutive points that the innermost dimensions make, and how many dimensions are
/// outside of them.
fn inner_run(dims: &[(usize, usize)]) -> (usize, usize) {
    let mut run = 1;
    let mut outer = dims.len();
    while outer > 0 && dims[outer - 1].1 == run {
        run *= dims[outer - 1].0;
        outer -= 1;
    }
    (run, outer)
}

/// The row-major positions of all points of some dimensions, in order. There may be as many as a tensor has elements,
/// so they are counted off, not listed.
#[derive(Debug)]
struct Positions {
    /// Size and stride of each dimension, outermost first.
    dims: Vec<(usize, usize)>,
    count: usize,
}

impl Positions {
    fn new(dims: &[(usize, usize)]) -> Positions {
        Positions { dims: dims.to_vec(), count: dims.iter().map(|d| d.0).product() }
    }

    fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        let mut index = [0usize; MAX_RANK];
        let mut position = 0;
        (0..self.count).map(move |_| {
            let current = position;
            for (i, &(size, stride)) in index.iter_mut().zip(&self.dims).rev() {
                *i += 1;
                position += stride;
                if *i < size {
                    break;
                }
                position -= size * stride;
                *i = 0;
            }
            current
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Positions;

    #[test]
    fn positions_are_counted_in_row_major_order() {
        let positions = |dims: &[(usize, usize)]| Positions::new(dims).iter().collect::<Vec<_>>();
        assert_eq!(positions(&[(3, 20), (2, 7)]), [0, 7, 20, 27, 40, 47]);
        assert_eq!(positions(&[]), [0]);
        let many = Positions::new(&[(1 << 20, 1 << 12), (1 << 10, 2)]);
        assert_eq!((many.count, many.iter().nth(1025)), (1 << 30, Some((1 << 12) + 2)));
    }
}
