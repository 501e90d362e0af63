//! Evaluating a program on one tile.

use super::arena::Arena;
use super::random::{Draw, fill};
use super::tile_program::{Action, JointBound, Key, MAX_ARITY, Operands, Reader, Step, TILE, TileProgram};
use crate::kernel::access::solve;
use crate::kernel::body::ExprId;
use crate::plan::DType;
use crate::scalar::VectorFn;
use crate::tensor::{Bf16, Native};
use crate::types::MAX_RANK;

/// A run of points of a space, consecutive in row-major order.
#[derive(Debug, Clone, Copy)]
pub struct Segment {
    pub start: usize,
    pub len: usize,
}

impl Segment {
    pub const NONE: Segment = Segment { start: 0, len: 0 };
}

/// What the steps of a tile read besides the arena.
#[derive(Clone, Copy)]
pub struct Surroundings<'t> {
    pub arena: Arena,
    /// The nest's kept values, [`TILE`] lanes each.
    pub slots: &'t [f32],
    /// The contraction's results for the tile.
    pub accumulator: &'t [f32],
}

/// Where the lanes of a value of the current tile are: in a register, in the arena, or in the surroundings.
#[derive(Debug, Clone, Copy)]
struct Lanes {
    start: *const f32,
    /// How many there are at least.
    len: usize,
}

// SAFETY: the lanes are read only through the registers that the value belongs to, and while those are borrowed.
unsafe impl Send for Lanes {}
// SAFETY: as above.
unsafe impl Sync for Lanes {}

impl Lanes {
    const NONE: Lanes = Lanes { start: std::ptr::null(), len: 0 };

    fn of(lanes: &[f32]) -> Lanes {
        Lanes { start: lanes.as_ptr(), len: lanes.len() }
    }

    /// # Safety
    /// They must have been computed in surroundings that are still there, and their register must not be written while
    /// they are in use.
    unsafe fn first<'v>(self, points: usize) -> &'v [f32] {
        assert!(points <= self.len, "lanes that were not computed");
        // SAFETY: so many are there, by the caller's word.
        unsafe { std::slice::from_raw_parts(self.start, points) }
    }
}

/// A cache line, where vectors of any width are aligned.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Line(#[allow(dead_code)] [f32; LINE]);

const LINE: usize = 16;

/// Lines from one register to the next: one more than a tile has, so that the same lanes of several registers do not
/// compete for the same places of a cache.
const REGISTER: usize = TILE / LINE + 1;

/// A worker's registers.
#[derive(Debug, Default)]
pub struct Registers {
    lines: Vec<Line>,
    /// For each expression that was computed.
    values: Vec<Lanes>,
}

impl Registers {
    /// Room for any of the given programs.
    pub fn for_programs<'p>(programs: impl Iterator<Item = &'p TileProgram>) -> Registers {
        let (mut registers, mut exprs) = (0, 0);
        for program in programs {
            registers = registers.max(program.registers);
            exprs = exprs.max(program.exprs);
        }
        Registers { lines: vec![Line([0.0; LINE]); registers * REGISTER], values: vec![Lanes::NONE; exprs] }
    }

    /// Computes the shared values of a program. With `splat` each is one value (at the first point)
    /// repeated over the tile, else a tile over the segments.
    pub fn share(&mut self, program: &TileProgram, around: Surroundings, segments: &[Segment], splat: bool) {
        let points: usize = segments.iter().map(|s| s.len).sum();
        for step in &program.shared {
            if splat {
                let first = [Segment { start: segments[0].start, len: 1 }];
                match step.action {
                    Action::Apply { .. } => self.step(step, around, segments, TILE),
                    _ => {
                        self.step(step, around, &first, 1);
                        let value = self.value(step.expr, around, 1)[0];
                        // SAFETY: no slice of a register is in use here.
                        unsafe { self.register(step.register, TILE) }.fill(value);
                        self.values[step.expr.index()] = self.lanes(step.register);
                    }
                }
            } else {
                match step.action {
                    // A constant is read over tiles of any length.
                    Action::Fill(_) => self.step(step, around, segments, TILE),
                    _ => self.step(step, around, segments, points),
                }
            }
        }
    }

    /// Computes the other values of a program on a tile.
    pub fn run(&mut self, program: &TileProgram, around: Surroundings, segments: &[Segment], points: usize) {
        self.run_before(Segment::NONE, program, around, segments, points);
    }

    /// The same, and asks meanwhile for what the program reads of the segment that follows.
    pub fn run_before(
        &mut self,
        next: Segment,
        program: &TileProgram,
        around: Surroundings,
        segments: &[Segment],
        points: usize,
    ) {
        for step in &program.steps {
            match &step.action {
                Action::Apply { function, args } => self.apply(step, *function, args, points),
                Action::Read { first } => {
                    self.read(step, *first, around, segments, points);
                    around.arena.prefetch::<f32>(first + next.start, next.len);
                }
                _ => self.step(step, around, segments, points),
            }
        }
    }

    /// The first `points` lanes of a value that was computed in these surroundings.
    pub fn value<'v>(&'v self, expr: ExprId, _: Surroundings<'v>, points: usize) -> &'v [f32] {
        // SAFETY: the surroundings are there, and registers are written by steps alone, which borrow them.
        unsafe { self.values[expr.index()].first(points) }
    }

    fn start(&mut self, register: usize) -> *mut f32 {
        assert!((register + 1) * REGISTER <= self.lines.len(), "there are fewer registers");
        self.lines.as_mut_ptr().wrapping_add(register * REGISTER).cast()
    }

    fn lanes(&mut self, register: usize) -> Lanes {
        Lanes { start: self.start(register), len: TILE }
    }

    /// Lanes to be written.
    ///
    /// # Safety
    /// No slice of the register may be in use.
    unsafe fn register<'r>(&mut self, register: usize, points: usize) -> &'r mut [f32] {
        assert!(points <= TILE, "a register has fewer lanes");
        // SAFETY: the register is there, and unshared by the caller's word.
        unsafe { std::slice::from_raw_parts_mut(self.start(register), points) }
    }

    #[inline(always)]
    fn apply(&mut self, step: &Step, function: VectorFn, args: &Operands, points: usize) {
        let args = args.all();
        let mut operands: [&[f32]; MAX_ARITY] = [&[]; MAX_ARITY];
        for (operand, &arg) in operands.iter_mut().zip(args) {
            // SAFETY: the surroundings are there, and a step's result is never in the register of an operand.
            *operand = unsafe { self.values[arg.index()].first(points) };
        }
        // SAFETY: as above.
        function(unsafe { self.register(step.register, points) }, &operands[..args.len()]);
        self.values[step.expr.index()] = self.lanes(step.register);
    }

    /// Takes points where they are, or puts those of several segments together.
    #[inline(always)]
    fn read(&mut self, step: &Step, first: usize, around: Surroundings, segments: &[Segment], points: usize) {
        self.values[step.expr.index()] = match segments {
            [segment] => Lanes::of(around.arena.read(first + segment.start, points)),
            _ => {
                // SAFETY: no other slice of a register is in use.
                let mut out = unsafe { self.register(step.register, points) };
                for segment in segments {
                    let (head, tail) = out.split_at_mut(segment.len);
                    head.copy_from_slice(around.arena.read(first + segment.start, segment.len));
                    out = tail;
                }
                self.lanes(step.register)
            }
        };
    }

    /// Any step, those that need not be fast in place.
    #[inline(never)]
    fn step(&mut self, step: &Step, around: Surroundings, segments: &[Segment], points: usize) {
        let mut elsewhere = None;
        // SAFETY: no other slice of a register is in use below.
        let out = unsafe { self.register(step.register, points) };
        match &step.action {
            Action::Apply { function, args } => return self.apply(step, *function, args, points),
            Action::Read { first } => return self.read(step, *first, around, segments, points),
            Action::Fill(value) => out.fill(*value),
            Action::Load { base, reader } => {
                each_run(reader, segments, out, |element, stride, out| match base.dtype {
                    DType::F32 | DType::U32 => gather(around.arena, base.first(), element, stride, out, |x: f32| x),
                    DType::Bf16 => gather(around.arena, base.first(), element, stride, out, Bf16::to_f32),
                });
            }
            Action::Inside { reader } => each_run(reader, segments, out, |_, _, out| out.fill(1.0)),
            Action::Iota { reader, divisor, modulus, dtype } => {
                each_run(reader, segments, out, |element, stride, out| {
                    for (i, x) in out.iter_mut().enumerate() {
                        let element = (element + i as isize * stride) as usize;
                        let index = element / divisor % modulus;
                        *x = match dtype {
                            DType::F32 | DType::Bf16 => index as f32,
                            DType::U32 => f32::from_bits(index as u32),
                        };
                    }
                });
            }
            Action::Random { distribution, stream, seed, step, reader } => {
                let word = |key: Key| match key {
                    Key::Known(value) => value,
                    Key::At(float) => around.arena.read::<u32>(float, 1)[0],
                };
                let draw = Draw { seed: [word(seed[0]), word(seed[1])], step: word(*step), stream: *stream };
                each_run(reader, segments, out, |element, stride, out| match stride {
                    1 => fill(draw, *distribution, element as usize, out),
                    0 => {
                        fill(draw, *distribution, element as usize, &mut out[..1]);
                        let value = out[0];
                        out.fill(value);
                    }
                    _ => {
                        for i in 0..out.len() {
                            let element = (element + i as isize * stride) as usize;
                            fill(draw, *distribution, element, &mut out[i..=i]);
                        }
                    }
                });
            }
            Action::Slot(slot) => elsewhere = Some(Lanes::of(&around.slots[slot * TILE..][..TILE])),
            Action::Accumulator => elsewhere = Some(Lanes::of(around.accumulator)),
        }
        self.values[step.expr.index()] = elsewhere.unwrap_or(self.lanes(step.register));
    }
}

/// Elements one stride apart, as lanes.
fn gather<T: Native>(
    arena: Arena,
    base: usize,
    element: isize,
    stride: isize,
    out: &mut [f32],
    lane: impl Fn(T) -> f32,
) {
    let at = |i: usize| (base as isize + element + i as isize * stride) as usize;
    match stride {
        0 => out.fill(lane(arena.read(at(0), 1)[0])),
        1 => {
            let from = arena.read(at(0), out.len());
            out.iter_mut().zip(from).for_each(|(x, &value)| *x = lane(value));
        }
        _ => {
            let last = at(out.len() - 1);
            let least = at(0).min(last);
            let span = arena.read(least, at(0).max(last) - least + 1);
            let mut position = at(0) - least;
            for x in out.iter_mut() {
                *x = lane(span[position]);
                position = position.wrapping_add_signed(stride);
            }
        }
    }
}

fn each_run(reader: &Reader, segments: &[Segment], out: &mut [f32], mut f: impl FnMut(isize, isize, &mut [f32])) {
    let mut out = out;
    for segment in segments {
        let (head, tail) = out.split_at_mut(segment.len);
        reader.runs(segment.start, head, &mut f);
        out = tail;
    }
}

impl Reader {
    /// Cuts the points from `start` on into runs of one stride: `f(element, stride, out)` fills each;
    /// points outside the bounds become 0.
    fn runs(&self, start: usize, out: &mut [f32], mut f: impl FnMut(isize, isize, &mut [f32])) {
        self.spans(start, out.len(), |from, len, place| match place {
            Some((element, stride)) => f(element, stride, &mut out[from..][..len]),
            None => out[from..][..len].fill(0.0),
        });
    }

    /// Cuts `len` points from `start` on into runs: `f(first, points, place)` for each, with the element of the first
    /// point and the stride, or `None` outside the bounds.
    pub fn spans(&self, start: usize, len: usize, mut f: impl FnMut(usize, usize, Option<(isize, isize)>)) {
        let dims = self.dims.as_slice();
        let mut index = [0usize; MAX_RANK];
        let mut rest = start;
        for (i, d) in index.iter_mut().zip(dims).rev() {
            *i = rest % d.size;
            rest /= d.size;
        }
        let Some((inner, outer)) = dims.split_last() else { return };
        let mut done = 0;
        while done < len {
            let at = index[outer.len()];
            let run = (inner.size - at).min(len - done);
            let inside = outer.iter().zip(&index).all(|(d, &i)| d.valid.0 <= i && i < d.valid.1);
            let (mut first, mut end) = inner.valid;
            for bound in &self.joint {
                let (lo, hi) = bound.inner_range(&index[..outer.len()], inner.size);
                (first, end) = (first.max(lo), end.min(hi));
            }
            let lo = first.clamp(at, at + run);
            let hi = if inside { end.clamp(lo, at + run) } else { lo };
            if lo > at {
                f(done, lo - at, None);
            }
            if hi > lo {
                let outside: isize = outer.iter().zip(&index).map(|(d, &i)| i as isize * d.stride).sum();
                let element = self.offset + outside + lo as isize * inner.stride;
                f(done + lo - at, hi - lo, Some((element, inner.stride)));
            }
            if at + run > hi {
                f(done + hi - at, at + run - hi, None);
            }
            done += run;
            index[outer.len()] = 0;
            for d in (0..outer.len()).rev() {
                index[d] += 1;
                if index[d] < outer[d].size {
                    break;
                }
                index[d] = 0;
            }
        }
    }
}

impl JointBound {
    /// The range of the innermost index, of `size`, in which the bound holds for given outer indices.
    fn inner_range(&self, outer: &[usize], size: usize) -> (usize, usize) {
        let around: isize = self.strides.iter().zip(outer).map(|(&s, &i)| s * i as isize).sum();
        match self.strides[outer.len()] {
            0 if (0..self.below as isize).contains(&(self.offset + around)) => (0, size),
            0 => (0, 0),
            stride => solve(self.offset + around, stride, self.below, size),
        }
    }
}
