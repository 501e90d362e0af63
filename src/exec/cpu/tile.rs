//! Evaluating a program on one tile.

use super::arena::Arena;
use super::random::{Draw, fill};
use super::tile_program::{Action, JointBound, Key, Reader, Step, TILE, TileProgram};
use crate::kernel::access::solve;
use crate::kernel::body::ExprId;
use crate::plan::DType;
use crate::tensor::{Bf16, Native};
use crate::types::MAX_RANK;

/// A run of points of a space, consecutive in row-major order.
#[derive(Debug, Clone, Copy)]
pub struct Segment {
    pub start: usize,
    pub len: usize,
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

/// Where a value of the current tile is.
#[derive(Debug, Clone, Copy, Default)]
enum Location {
    #[default]
    Register,
    /// At an f32 of the arena.
    Arena(usize),
    Slot(usize),
    Accumulator,
}

/// A worker's registers.
#[derive(Debug, Default)]
pub struct Registers {
    lanes: Vec<f32>,
    places: Vec<(Location, usize)>,
}

impl Registers {
    /// Room for any of the given programs.
    pub fn for_programs<'p>(programs: impl Iterator<Item = &'p TileProgram>) -> Registers {
        let (mut registers, mut exprs) = (0, 0);
        for program in programs {
            registers = registers.max(program.registers);
            exprs = exprs.max(program.exprs);
        }
        Registers { lanes: vec![0.0; registers * TILE], places: vec![(Location::Register, 0); exprs] }
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
                        self.lanes[step.register * TILE..][..TILE].fill(value);
                        self.places[step.expr.index()] = (Location::Register, step.register);
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
        for step in &program.steps {
            self.step(step, around, segments, points);
        }
    }

    /// Asks for what the program reads of a segment that follows soon.
    pub fn prefetch(program: &TileProgram, arena: Arena, segment: Segment) {
        for step in &program.steps {
            match &step.action {
                Action::Load { base, reader } if reader.is_direct() && base.dtype != DType::Bf16 => {
                    arena.prefetch::<f32>(reader.element(base.first(), segment.start), segment.len);
                }
                _ => {}
            }
        }
    }

    /// The first `points` lanes of a value that was computed.
    pub fn value<'v>(&'v self, expr: ExprId, around: Surroundings<'v>, points: usize) -> &'v [f32] {
        let (place, register) = self.places[expr.index()];
        match place {
            Location::Register => &self.lanes[register * TILE..][..points],
            Location::Arena(start) => {
                // The arena outlives the launch, and so the surroundings.
                let arena = around.arena;
                // SAFETY: `read` checks bounds; the lifetime is that of the memory behind the arena.
                unsafe { std::slice::from_raw_parts(arena.read(start, points).as_ptr(), points) }
            }
            Location::Slot(slot) => &around.slots[slot * TILE..][..points],
            Location::Accumulator => &around.accumulator[..points],
        }
    }

    fn step(&mut self, step: &Step, around: Surroundings, segments: &[Segment], points: usize) {
        let mut place = Location::Register;
        if let Action::Apply { function, args } = &step.action {
            const MAX_ARITY: usize = 4;
            let (before, rest) = self.lanes.split_at_mut(step.register * TILE);
            let (out, after) = rest.split_at_mut(TILE);
            let mut operands: [&[f32]; MAX_ARITY] = [&[]; MAX_ARITY];
            for (operand, &arg) in operands.iter_mut().zip(args) {
                let (place, register) = self.places[arg.index()];
                *operand = match place {
                    Location::Register if register < step.register => &before[register * TILE..][..points],
                    Location::Register => &after[(register - step.register - 1) * TILE..][..points],
                    Location::Arena(start) => around.arena.read(start, points),
                    Location::Slot(slot) => &around.slots[slot * TILE..][..points],
                    Location::Accumulator => &around.accumulator[..points],
                };
            }
            function(&mut out[..points], &operands[..args.len()]);
            self.places[step.expr.index()] = (Location::Register, step.register);
            return;
        }
        let out = &mut self.lanes[step.register * TILE..][..points];
        match &step.action {
            Action::Fill(value) => out.fill(*value),
            Action::Load { base, reader } => {
                if let ([segment], true) = (segments, reader.is_direct() && base.dtype != DType::Bf16) {
                    place = Location::Arena(reader.element(base.first(), segment.start));
                } else {
                    let mut out = out;
                    for segment in segments {
                        let (head, tail) = out.split_at_mut(segment.len);
                        reader.runs(segment.start, head, |element, stride, out| match base.dtype {
                            DType::F32 | DType::U32 => {
                                gather(around.arena, base.first(), element, stride, out, |x: f32| x);
                            }
                            DType::Bf16 => gather(around.arena, base.first(), element, stride, out, Bf16::to_f32),
                        });
                        out = tail;
                    }
                }
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
            Action::Slot(slot) => place = Location::Slot(*slot),
            Action::Accumulator => place = Location::Accumulator,
            Action::Apply { .. } => unreachable!("handled above"),
        }
        self.places[step.expr.index()] = (place, step.register);
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
    /// The float of the arena that point `start` of a direct access reads.
    fn element(&self, base: usize, start: usize) -> usize {
        (base as isize + self.offset) as usize + start
    }

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
