//! Transforms of minimal filtering.
//!
//! A task takes some neighbouring lanes (channels) of one outer index (an image) through both matrices in its own memory:
//! maps have their lanes far apart and are turned on the way, points have them next to each other.

use super::arena::{Arena, Location};
use crate::kernel::body::{BufferId, TransformBody};
use crate::scalar::simd::multiversion;
use crate::tensor::{Bf16, DType};
use crate::winograd::{Direction, LANES, Matrix, Planes};

/// Numbers of [`LANES`] planes.
type Line = [f32; LANES];

/// A transform made ready to run on one plan's arena.
#[derive(Debug)]
pub struct TransformProgram {
    planes: Planes,
    is_to_points: bool,
    /// Elements at which the operand and the result start.
    from: usize,
    to: usize,
    /// Whether what is stored is rounded to bf16.
    rounds: bool,
    down: Sparse,
    across: Sparse,
}

/// A matrix by rows, without its zeros.
#[derive(Debug)]
struct Sparse {
    rows: Vec<Vec<(usize, f32)>>,
    columns: usize,
}

impl Sparse {
    fn new(matrix: &Matrix) -> Sparse {
        let row = |row: usize| {
            let all = (0..matrix.columns).map(|column| (column, matrix.at(row, column) as f32));
            all.filter(|(_, value)| *value != 0.0).collect()
        };
        Sparse { rows: (0..matrix.rows).map(row).collect(), columns: matrix.columns }
    }
}

impl TransformProgram {
    pub fn new(body: &TransformBody<BufferId>, place: &dyn Fn(BufferId) -> Location) -> TransformProgram {
        let [down, across] = body.transform.matrices();
        TransformProgram {
            planes: body.transform.planes(body.planes),
            is_to_points: body.transform.direction == Direction::ToPoints,
            from: place(body.operand).first(),
            to: place(body.store.buffer).first(),
            rounds: place(body.store.buffer).dtype == DType::Bf16,
            down: Sparse::new(&down),
            across: Sparse::new(&across),
        }
    }

    pub fn tasks(&self) -> usize {
        self.planes.outer
    }

    /// Floats of memory that a task works in.
    pub fn needs(&self) -> usize {
        (self.down.columns * self.across.columns
            + self.down.rows.len() * self.across.columns
            + self.down.rows.len() * self.across.rows.len())
            * LANES
    }

    pub fn run(&self, task: usize, arena: Arena, memory: &mut [f32]) {
        let (lines, _) = memory.as_chunks_mut::<LANES>();
        let (operand, rest) = lines.split_at_mut(self.down.columns * self.across.columns);
        let (half, rest) = rest.split_at_mut(self.down.rows.len() * self.across.columns);
        let result = &mut rest[..self.down.rows.len() * self.across.rows.len()];
        for first in (0..self.planes.lanes).step_by(LANES) {
            let lanes = LANES.min(self.planes.lanes - first);
            let of_map = task * self.planes.map_strides[0] + first * self.planes.map_strides[1];
            let of_points = task * self.planes.points_stride + first;
            if self.is_to_points {
                self.read_map(self.from + of_map, lanes, operand, arena);
            } else {
                for (line, offset) in operand.iter_mut().zip(&self.planes.points_offsets) {
                    line[..lanes].copy_from_slice(arena.read(self.from + of_points + offset, lanes));
                }
            }
            both(&self.down, &self.across, operand, half, result);
            if self.is_to_points {
                for (line, offset) in result.iter().zip(&self.planes.points_offsets) {
                    let at = self.to + of_points + offset;
                    // SAFETY: a task's outer index is its own, and the result lies apart from the operand.
                    unsafe {
                        match self.rounds {
                            true => arena.store(at, &line.map(Bf16::from_f32)[..lanes]),
                            false => arena.store(at, &line[..lanes]),
                        }
                    }
                }
            } else {
                self.write_map(self.to + of_map, lanes, result, arena);
            }
        }
    }

    /// The planes of lanes one after the other, each taken apart over the lines.
    fn read_map(&self, start: usize, lanes: usize, into: &mut [Line], arena: Arena) {
        for lane in 0..lanes {
            let plane = arena.read(start + lane * self.planes.map_strides[1], into.len());
            into.iter_mut().zip(plane).for_each(|(line, value)| line[lane] = *value);
        }
    }

    fn write_map(&self, start: usize, lanes: usize, from: &[Line], arena: Arena) {
        for lane in 0..lanes {
            let at = start + lane * self.planes.map_strides[1];
            if self.rounds {
                // SAFETY: as for points; no other slice is in use.
                let plane = unsafe { arena.write(at, from.len()) };
                plane.iter_mut().zip(from).for_each(|(value, line)| *value = Bf16::from_f32(line[lane]));
            } else {
                // SAFETY: as above.
                let plane = unsafe { arena.write(at, from.len()) };
                plane.iter_mut().zip(from).for_each(|(value, line)| *value = line[lane]);
            }
        }
    }
}

multiversion! {
    /// `result = down · operand · acrossᵀ` for each lane.
    fn both(down: &Sparse, across: &Sparse, operand: &[Line], half: &mut [Line], result: &mut [Line]) {
        let width = across.columns;
        for (terms, half) in down.rows.iter().zip(half.chunks_exact_mut(width)) {
            for (j, half) in half.iter_mut().enumerate() {
                *half = sum(terms, |i| &operand[i * width + j]);
            }
        }
        for (half, result) in half.chunks_exact(width).zip(result.chunks_exact_mut(across.rows.len())) {
            for (terms, result) in across.rows.iter().zip(result) {
                *result = sum(terms, |j| &half[j]);
            }
        }
    }
}

/// Products with the terms of a row added up in order.
#[inline(always)]
fn sum<'l>(terms: &[(usize, f32)], line: impl Fn(usize) -> &'l Line) -> Line {
    let mut sum = [0.0; LANES];
    for &(at, factor) in terms {
        let line = line(at);
        for i in 0..LANES {
            sum[i] += factor * line[i];
        }
    }
    sum
}
