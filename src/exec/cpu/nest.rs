//! Running loop nests.
//!
//! Work is cut into tasks by the nest's sizes alone, and each sum is taken in one fixed order, so the
//! bits do not depend on the number of threads.

use super::arena::{Arena, Floats, Location};
use super::fold::{SWEPT_TWICE, combine, fold, identity, max_lanes, sum_lanes};
use super::tile::{Registers, Segment, Surroundings};
use super::tile_program::{Reader, TILE, TileProgram, TileSpace};
use super::walk::{Columns, Rows, TASK_POINTS, Walk};
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
    slots: Floats,
    /// The slots that a sweep reads, over the points of a tile.
    spread: Floats,
    partials: Floats,
    totals: Vec<f64>,
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
            slots: Floats::new(slots * TILE),
            spread: Floats::new(slots * TILE),
            partials: Floats::new(reductions * TILE),
            totals: vec![0.0; reductions * TILE],
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
        NestProgram {
            walk: Walk::new(&nest.space, &nest.reduced, nest.sweeps.len()),
            sweeps,
            slots: nest.slots,
            reductions,
        }
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
            Walk::Rows(rows) => {
                rows.points(task).for_each(|(point, first)| self.rows(point, first, rows, arena, scratch));
            }
            Walk::Columns(columns) => {
                columns.tiles_of(task).for_each(|(kept, first)| self.columns(kept, first, columns, arena, scratch));
            }
        }
    }

    fn elementwise(&self, start: usize, points: usize, arena: Arena, scratch: &mut Scratch) {
        let around = Surroundings { arena, slots: &[], accumulator: &[] };
        for sweep in &self.sweeps {
            scratch.registers.share(&sweep.full, around, &[Segment { start, len: 1 }], true);
            let tile = sweep.full.tile();
            for at in (start..start + points).step_by(tile) {
                let segment = [Segment { start: at, len: tile.min(start + points - at) }];
                let start_of_next = at + segment[0].len;
                let next = Segment { start: start_of_next, len: tile.min(start + points - start_of_next) };
                scratch.registers.run_before(next, &sweep.full, around, &segment, segment[0].len);
                write(&scratch.registers, &sweep.stores, around, &segment);
            }
        }
    }

    /// Sweeps one kept point, which starts at `first`.
    fn rows(&self, kept: usize, first: usize, rows: &Rows, arena: Arena, scratch: &mut Scratch) {
        let Scratch { registers, slots, totals, segments, .. } = scratch;
        for sweep in &self.sweeps {
            if !(sweep.reductions.is_empty() && sweep.stores.is_empty()) {
                let around = Surroundings { arena, slots, accumulator: &[] };
                registers.share(&sweep.full, around, &[Segment { start: first, len: 1 }], true);
                for (sum, (kind, ..)) in totals.iter_mut().zip(&sweep.reductions) {
                    *sum = identity(*kind).into();
                }
                let mut part = |segments: &mut Vec<Segment>, points: usize, next: Segment| {
                    registers.run_before(next, &sweep.full, around, segments, points);
                    for (sum, (kind, value, _)) in totals.iter_mut().zip(&sweep.reductions) {
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
                let tile = sweep.full.tile();
                let mut points = 0;
                for start in rows.runs.iter() {
                    let mut done = 0;
                    while done < rows.run {
                        let len = (rows.run - done).min(tile - points);
                        segments.push(Segment { start: first + start + done, len });
                        done += len;
                        points += len;
                        if points == tile {
                            let next = Segment { start: first + start + done, len: tile.min(rows.run - done) };
                            part(segments, points, next);
                            points = 0;
                        }
                    }
                }
                if points > 0 {
                    part(segments, points, Segment::NONE);
                }
                for (sum, (_, _, slot)) in totals.iter().zip(&sweep.reductions) {
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

    /// Sweeps some consecutive kept points, the first of which starts at `first`.
    fn columns(&self, kept: Segment, first: usize, columns: &Columns, arena: Arena, scratch: &mut Scratch) {
        let rows = &columns.rows;
        let Scratch { registers, slots, spread, partials, totals, .. } = scratch;
        let points = kept.len * columns.each;
        for sweep in &self.sweeps {
            if !(sweep.reductions.is_empty() && sweep.stores.is_empty()) {
                for slot in sweep.full.slots() {
                    spread_lanes(&mut spread[slot * TILE..][..points], &slots[slot * TILE..][..kept.len]);
                }
                let around = Surroundings { arena, slots: spread, accumulator: &[] };
                registers.share(&sweep.full, around, &[Segment { start: first, len: points }], false);
                for (totals, (kind, ..)) in totals.chunks_mut(TILE).zip(&sweep.reductions) {
                    totals[..kept.len].fill(identity(*kind).into());
                }
                let mut positions = rows.iter().peekable();
                for begun in (0..rows.count).step_by(PARTIAL_ROWS) {
                    let block = PARTIAL_ROWS.min(rows.count - begun);
                    for (partial, (kind, ..)) in partials.chunks_mut(TILE).zip(&sweep.reductions) {
                        partial[..points].fill(identity(*kind));
                    }
                    for _ in 0..block {
                        let Some(row) = positions.next() else { break };
                        let segment = [Segment { start: first + row, len: points }];
                        let following = |next: &usize| Segment { start: first + next, len: points };
                        let next = positions.peek().map_or(Segment::NONE, following);
                        registers.run_before(next, &sweep.full, around, &segment, points);
                        for (partial, (kind, value, _)) in partials.chunks_mut(TILE).zip(&sweep.reductions) {
                            combine(*kind, &mut partial[..points], registers.value(*value, around, points));
                        }
                        write(registers, &sweep.stores, around, &segment);
                    }
                    let partials = partials.chunks(TILE).map(|partial| &partial[..points]);
                    for ((totals, partial), (kind, ..)) in totals.chunks_mut(TILE).zip(partials).zip(&sweep.reductions)
                    {
                        fold(*kind, &mut totals[..kept.len], partial);
                    }
                }
                for (totals, (_, _, slot)) in totals.chunks(TILE).zip(&sweep.reductions) {
                    let lanes = slots[slot * TILE..][..kept.len].iter_mut();
                    lanes.zip(totals).for_each(|(lane, total)| *lane = *total as f32);
                }
            }
            for (slot, program, value) in &sweep.kept {
                let around = Surroundings { arena, slots, accumulator: &[] };
                registers.share(program, around, &[kept], false);
                registers.run(program, around, &[kept], kept.len);
                let value = registers.value(*value, around, kept.len).to_owned_lanes();
                slots[slot * TILE..][..kept.len].copy_from_slice(&value[..kept.len]);
            }
            keep(registers, sweep, Surroundings { arena, slots, accumulator: &[] }, &[kept]);
        }
    }
}

/// Repeats each value over as many neighbouring lanes as there are for it.
fn spread_lanes(lanes: &mut [f32], values: &[f32]) {
    let each = lanes.len() / values.len();
    lanes.chunks_exact_mut(each).zip(values).for_each(|(lanes, value)| lanes.fill(*value));
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
                    (None, DType::F32 | DType::U32) => around.arena.store_in(store.base, segment.start, head),
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
