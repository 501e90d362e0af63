//! Running loop nests.
//!
//! Work is cut into tasks by the nest's sizes alone, and each sum is taken in one fixed order, so the
//! bits do not depend on the number of threads.

use super::arena::{Arena, Location};
use super::fold::{SWEPT_TWICE, combine, identity, max_lanes, sum_lanes};
use super::tile::{Registers, Segment, Surroundings};
use super::tile_program::{Reader, TILE, TileProgram, TileSpace};
use super::walk::{Positions, TASK_POINTS, Walk};
use crate::kernel::access::kept_shape;
use crate::kernel::body::{BufferId, ExprId, Exprs, Nest, Store, Sweep};
use crate::plan::{DType, ReduceKind};
use crate::scalar::{larger, simd::multiversion};
use crate::tensor::{Bf16, Native};

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

/// A nest made ready to run on one plan's arena.
#[derive(Debug)]
pub struct NestProgram {
    walk: Walk,
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
        let full = TileSpace { shape: &nest.space, repeated: &nest.reduced };
        let no_repeat = vec![false; nest.space.len()];
        let kept = TileSpace { shape: &kept_shape, repeated: &no_repeat };
        let sweeps = nest.sweeps.iter().map(|sweep| sweep_program(&nest.exprs, sweep, full, kept, place)).collect();
        let reductions = nest.sweeps.iter().map(|p| p.reductions.len()).max().unwrap_or(0);
        NestProgram { walk: Walk::new(&nest.space, &nest.reduced), sweeps, slots: nest.slots, reductions }
    }

    fn programs(&self) -> impl Iterator<Item = &TileProgram> {
        self.sweeps.iter().flat_map(|p| {
            let kept = p.kept.iter().map(|k| &k.1);
            std::iter::once(&p.full).chain(kept).chain(p.kept_stores.iter().map(|k| &k.0))
        })
    }

    /// How many tasks the nest is cut into.
    pub fn tasks(&self) -> usize {
        self.walk.tasks()
    }

    /// Runs one task.
    pub fn run(&self, task: usize, arena: Arena, scratch: &mut Scratch) {
        match &self.walk {
            Walk::Elementwise { points } => {
                let start = task * TASK_POINTS;
                self.elementwise(start, TASK_POINTS.min(points - start), arena, scratch);
            }
            Walk::Rows { kept, points_per_task, run, runs } => {
                let start = task * points_per_task;
                for point in start..(start + points_per_task).min(kept.count) {
                    self.rows(point, kept.at(point), *run, runs, arena, scratch);
                }
            }
            Walk::Columns { kept, run, tile, rows } => {
                let tiles = run.div_ceil(*tile);
                let start = task % tiles * tile;
                let point = task / tiles * run + start;
                self.columns(point, kept.at(point), (*tile).min(run - start), rows, arena, scratch);
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

    fn rows(&self, kept: usize, first: usize, run: usize, runs: &Positions, arena: Arena, scratch: &mut Scratch) {
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

    fn columns(&self, kept: usize, first: usize, points: usize, rows: &Positions, arena: Arena, scratch: &mut Scratch) {
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
