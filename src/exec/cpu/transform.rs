//! Transforms of minimal filtering.
//!
//! A task takes some neighbouring lanes (channels) of one outer index (an image) through both matrices in its own
//! memory: maps have their lanes far apart and are turned on the way, points have them next to each other.
//!
//! The points of a plane are far apart in memory, often by a multiple of what a cache holds, where none of them stays.
//! So each is touched once, a few cache lines at a time: on the way to points a result goes there from registers, on
//! the way back the row of points that is needed next is copied first. That is why the matrix down comes first in one
//! direction and last in the other.

use super::arena::{Arena, Location};
use super::gemm::pair;
use super::transpose::{Turned, transpose};
use crate::kernel::body::{BufferId, TransformBody};
use crate::scalar::simd::multiversion;
use crate::tensor::{Bf16, DType};
use crate::winograd::{Direction, LANES, Matrix, Planes, Transform};

/// Numbers of [`LANES`] planes.
type Line = [f32; LANES];

/// Most lines that are taken through the matrices together.
const MOST_LINES: usize = 8;
/// Tasks that are enough for every thread to have some.
const ENOUGH_TASKS: usize = 64;
/// How many reads ahead points are asked for: fewer than a cache has places for them.
const AHEAD: usize = 6;
/// Floats that stay in a core's own cache, about: what tasks work in.
const CACHED: usize = 1 << 17;
/// Points of more floats than that are not in any cache when they are read.
const LARGE: usize = 1 << 21;

/// Lines that start where cache lines do.
#[repr(align(64))]
struct Aligned<const LINES: usize>([Line; LINES]);

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
    /// Lanes of a task.
    group: usize,
    /// Whether results go past the caches.
    is_large: bool,
}

/// A matrix by rows, without its zeros.
#[derive(Debug)]
struct Sparse {
    /// Where the terms of each row start, and the last row's end.
    starts: Vec<usize>,
    /// Columns and factors.
    terms: Vec<(usize, f32)>,
    columns: usize,
}

impl Sparse {
    fn new(matrix: &Matrix) -> Sparse {
        let (mut starts, mut terms) = (vec![0], Vec::new());
        for row in 0..matrix.rows {
            let all = (0..matrix.columns).map(|column| (column, matrix.at(row, column) as f32));
            terms.extend(all.filter(|(_, value)| *value != 0.0));
            starts.push(terms.len());
        }
        Sparse { starts, terms, columns: matrix.columns }
    }

    fn height(&self) -> usize {
        self.starts.len() - 1
    }

    #[inline(always)]
    fn rows(&self) -> impl Iterator<Item = &[(usize, f32)]> {
        self.starts.windows(2).map(|of| &self.terms[of[0]..of[1]])
    }
}

impl TransformProgram {
    pub fn new(body: &TransformBody<BufferId>, place: &dyn Fn(BufferId) -> Location) -> TransformProgram {
        let to = place(body.store.buffer);
        let rounds = to.dtype == DType::Bf16;
        TransformProgram::of(&body.transform, body.layout(), place(body.operand).first(), (to.first(), rounds))
    }

    fn of(transform: &Transform, planes: Planes, from: usize, (to, rounds): (usize, bool)) -> TransformProgram {
        let [down, across] = transform.matrices();
        let mut program = TransformProgram {
            is_large: planes.points_offsets.len() * planes.outer * planes.lanes > LARGE,
            planes,
            is_to_points: transform.direction == Direction::ToPoints,
            from,
            to,
            rounds,
            down: Sparse::new(&down),
            across: Sparse::new(&across),
            group: MOST_LINES * LANES,
        };
        while program.group > LANES && (program.needs() > CACHED || program.tasks() < ENOUGH_TASKS) {
            program.group /= 2;
        }
        program
    }

    fn groups(&self) -> usize {
        self.planes.lanes.div_ceil(self.group)
    }

    pub fn tasks(&self) -> usize {
        self.planes.outer * self.groups()
    }

    /// Floats of memory that a task works in.
    pub fn needs(&self) -> usize {
        let (down, across) = (&self.down, &self.across);
        let elements = if self.is_to_points {
            down.columns * across.columns + across.columns
        } else {
            across.columns + down.columns * across.height() + down.height() * across.height()
        };
        let turned = if self.is_to_points { 0 } else { down.height() * across.height() * LANES };
        elements * self.group + turned
    }

    pub fn run(&self, task: usize, arena: Arena, memory: &mut [f32]) {
        let (outer, group) = (task / self.groups(), task % self.groups());
        let end = self.planes.lanes.min((group + 1) * self.group);
        let mut first = group * self.group;
        while first < end {
            let lanes = match end - first {
                lanes if lanes < LANES => lanes,
                lanes => LANES << (lanes / LANES).ilog2(),
            };
            let of_map = outer * self.planes.map_strides[0] + first * self.planes.map_strides[1];
            let of_points = outer * self.planes.points_stride + first;
            let (from, to) = if self.is_to_points { (of_map, of_points) } else { (of_points, of_map) };
            transformed(self, self.from + from, self.to + to, lanes, arena, memory);
            first += lanes;
        }
    }
}

multiversion! {
    /// Some lanes of one outer index: at most a line, or several whole ones.
    fn transformed(program: &TransformProgram, from: usize, to: usize, lanes: usize, arena: Arena, memory: &mut [f32]) {
        match lanes / LANES {
            8 => program.lines::<8>(from, to, lanes, arena, memory),
            4 => program.lines::<4>(from, to, lanes, arena, memory),
            2 => program.lines::<2>(from, to, lanes, arena, memory),
            _ => program.lines::<1>(from, to, lanes, arena, memory),
        }
    }
}

impl TransformProgram {
    #[inline(always)]
    fn lines<const LINES: usize>(&self, from: usize, to: usize, lanes: usize, arena: Arena, memory: &mut [f32]) {
        if self.is_to_points {
            self.map_to_points::<LINES>(from, to, lanes, arena, memory);
        } else {
            self.points_to_map::<LINES>(from, to, lanes, arena, memory);
        }
    }

    /// `points = down · map · acrossᵀ` for each lane.
    #[inline(always)]
    fn map_to_points<const LINES: usize>(
        &self,
        from: usize,
        to: usize,
        lanes: usize,
        arena: Arena,
        memory: &mut [f32],
    ) {
        let (width, area) = (self.across.columns, self.down.columns * self.across.columns);
        let (map, half) = side_by_side::<LINES>(memory).split_at_mut(area);
        let stride = self.planes.map_strides[1];
        let rows = lanes.min(LANES);
        for line in 0..LINES {
            let from = arena.read(from + line * LANES * stride, (rows - 1) * stride + area);
            let turned = Turned { from, stride, rows, columns: area, to_stride: LINES * LANES };
            transpose(turned, &mut map.as_flattened_mut().as_flattened_mut()[line * LANES..]);
        }
        let half = &mut half[..width];
        let mut offsets = self.planes.points_offsets.iter();
        for terms in self.down.rows() {
            for (column, half) in half.iter_mut().enumerate() {
                sum(terms, &map[column..], width, half);
            }
            for (terms, offset) in self.across.rows().zip(&mut offsets) {
                let at = to + offset;
                if !self.rounds && !self.is_large && lanes >= LANES {
                    // SAFETY: as below; no other slice of the elements is in use.
                    let into = unsafe { arena.write(at, LINES * LANES) };
                    sum(terms, half, 1, &mut side_by_side(into)[0]);
                    continue;
                }
                let mut sums = Aligned([[0.0; LANES]; LINES]);
                let Aligned(sums) = &mut sums;
                sum(terms, half, 1, sums);
                // SAFETY: a task's lanes of an outer index are its own, and the result lies apart from the operand;
                // what goes past the caches is settled before the task ends.
                unsafe {
                    if self.rounds {
                        self.store_rounded(at, sums, lanes, arena);
                    } else if lanes < LANES {
                        arena.store(at, &sums[0][..lanes]);
                    } else {
                        arena.stream(at, sums);
                    }
                }
            }
        }
    }

    /// Stores lanes of bf16.
    ///
    /// # Safety
    /// As for [`Arena::store`], and for [`Arena::stream`] where results are large.
    #[inline(always)]
    unsafe fn store_rounded<const LINES: usize>(&self, at: usize, sums: &[Line; LINES], lanes: usize, arena: Arena) {
        let rounded = sums.map(|line| line.map(Bf16::from_f32));
        let rounded = &rounded.as_flattened()[..lanes];
        if !(self.is_large && lanes >= 2 * LANES && at.is_multiple_of(2)) {
            // SAFETY: by the caller's word.
            return unsafe { arena.store(at, rounded) };
        }
        // Two to a word: half as many whole lines.
        let mut words = [[0.0; LANES]; MOST_LINES / 2];
        for (word, halves) in words.as_flattened_mut().iter_mut().zip(rounded.chunks_exact(2)) {
            *word = pair(halves[0], halves[1]);
        }
        // SAFETY: by the caller's word.
        unsafe { arena.stream(at / 2, &words[..lanes / 2 / LANES]) };
    }

    /// `map = down · points · acrossᵀ` for each lane.
    #[inline(always)]
    fn points_to_map<const LINES: usize>(
        &self,
        from: usize,
        to: usize,
        lanes: usize,
        arena: Arena,
        memory: &mut [f32],
    ) {
        let (length, width) = (self.across.columns, self.across.height());
        let (between, area) = (self.down.columns * width, self.down.height() * width);
        let (whole, turned) = memory.split_at_mut((length + between + area) * LINES * LANES);
        let (points, rest) = side_by_side::<LINES>(whole).split_at_mut(length);
        let (half, map) = rest.split_at_mut(between);
        for (row, offsets) in self.planes.points_offsets.chunks_exact(length).enumerate() {
            for (column, offset) in offsets.iter().enumerate() {
                if lanes < LANES {
                    points[column][0][..lanes].copy_from_slice(arena.read(from + offset, lanes));
                } else {
                    let values = arena.read(from + offset, LINES * LANES);
                    points[column].as_flattened_mut().iter_mut().zip(values).for_each(|(point, value)| *point = *value);
                }
                if let Some(offset) = self.planes.points_offsets.get(row * length + column + AHEAD) {
                    arena.prefetch_near::<f32>(from + offset, lanes);
                }
            }
            for (half, terms) in half[row * width..].iter_mut().zip(self.across.rows()) {
                sum(terms, points, 1, half);
            }
        }
        for (row, terms) in self.down.rows().enumerate() {
            for (column, map) in map[row * width..][..width].iter_mut().enumerate() {
                sum(terms, &half[column..], width, map);
            }
        }
        let (stride, columns) = (self.planes.map_strides[1], lanes.min(LANES));
        // Planes that are neighbours are written at once.
        let together = if stride == area { columns } else { 1 };
        for line in 0..LINES {
            let from = &map.as_flattened().as_flattened()[line * LANES..];
            transpose(Turned { from, stride: LINES * LANES, rows: area, columns, to_stride: area }, turned);
            for (i, planes) in turned[..columns * area].chunks_exact(together * area).enumerate() {
                let at = to + (line * LANES + i) * stride;
                // SAFETY: as for points; no other slice is in use.
                unsafe {
                    if self.rounds {
                        let into = arena.write(at, planes.len());
                        planes.iter().zip(into).for_each(|(value, to)| *to = Bf16::from_f32(*value));
                    } else {
                        arena.store(at, planes);
                    }
                }
            }
        }
    }
}

/// Elements of several lines each, next to each other.
#[inline(always)]
fn side_by_side<const LINES: usize>(memory: &mut [f32]) -> &mut [[Line; LINES]] {
    memory.as_chunks_mut().0.as_chunks_mut().0
}

/// Products with the terms of a row added up in order. A term's column is `stride` elements from the next one.
#[inline(always)]
fn sum<const LINES: usize>(terms: &[(usize, f32)], from: &[[Line; LINES]], stride: usize, into: &mut [Line; LINES]) {
    let mut sums = [[0.0; LANES]; LINES];
    for &(column, factor) in terms {
        let lines = from[column * stride].as_flattened();
        for (sum, value) in sums.as_flattened_mut().iter_mut().zip(lines) {
            *sum += factor * value;
        }
    }
    for (to, sum) in into.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
        *to = *sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::cpu::arena::Memory;
    use crate::scalar::simd::at_each_level;
    use crate::types::Window;
    use crate::winograd::Part;

    /// What a program should write, by the matrices as they are, and the same sums of absolute values.
    fn expected(transform: &Transform, planes: &Planes, operand: &[f32]) -> Vec<[f64; 2]> {
        let [down, across] = transform.matrices();
        let mut result = vec![[0.0; 2]; planes.outer * planes.lanes * down.rows * across.rows];
        let of_map =
            |outer: usize, lane: usize, i: usize| outer * planes.map_strides[0] + lane * planes.map_strides[1] + i;
        let of_points =
            |outer: usize, lane: usize, i: usize| outer * planes.points_stride + lane + planes.points_offsets[i];
        let is_to_points = transform.direction == Direction::ToPoints;
        for outer in 0..planes.outer {
            for lane in 0..planes.lanes {
                let from = |i| if is_to_points { of_map(outer, lane, i) } else { of_points(outer, lane, i) };
                let to = |i| if is_to_points { of_points(outer, lane, i) } else { of_map(outer, lane, i) };
                // A sum, and of absolute values.
                let sums = |terms: &mut dyn Iterator<Item = [f64; 3]>| {
                    let add = |sum: [f64; 2], [factor, value, size]: [f64; 3]| {
                        [sum[0] + factor * value, sum[1] + factor.abs() * size]
                    };
                    terms.fold([0.0; 2], add)
                };
                for r in 0..across.rows {
                    let value = |i, j| f64::from(operand[from(i * across.columns + j)]);
                    let term = |i, j| [across.at(r, j), value(i, j), value(i, j).abs()];
                    let half: Vec<[f64; 2]> =
                        (0..down.columns).map(|i| sums(&mut (0..across.columns).map(|j| term(i, j)))).collect();
                    for q in 0..down.rows {
                        let terms = half.iter().enumerate().map(|(i, &[value, size])| [down.at(q, i), value, size]);
                        result[to(q * across.rows + r)] = sums(&mut { terms });
                    }
                }
            }
        }
        result
    }

    fn check(transform: &Transform, planes: &Planes, alike: &mut Vec<Vec<f32>>) {
        const GUARD: f32 = 12345.0;
        let count = |rows: fn(&Matrix) -> usize| transform.matrices().iter().map(rows).product::<usize>();
        let [length, written] = [count(|m| m.columns), count(|m| m.rows)].map(|n| n * planes.outer * planes.lanes);
        let to = length.next_multiple_of(LANES);
        let mut memory = Memory::new((to + written + LANES) * size_of::<f32>(), "a test").unwrap();
        let operand: Vec<f32> = (0..length).map(|i| ((i * 37 + 11) % 101) as f32 / 50.0 - 1.0).collect();
        let expected = expected(transform, planes, &operand);
        for is_large in [false, true] {
            let floats = memory.floats();
            floats.fill(GUARD);
            floats[..length].copy_from_slice(&operand);
            let of_size = TransformProgram::of(transform, planes.clone(), 0, (to, false));
            let program = TransformProgram { is_large, ..of_size };
            let mut own = vec![f32::NAN; program.needs()];
            // SAFETY: the tasks run one after the other.
            let arena = unsafe { Arena::new(memory.all()) };
            (0..program.tasks()).for_each(|task| program.run(task, arena, &mut own));
            let floats = memory.floats();
            assert_eq!(floats[..length], operand);
            assert!(floats[length..to].iter().chain(&floats[to + written..]).all(|&guard| guard == GUARD));
            let found = floats[to..to + written].to_vec();
            for (i, (&found, &[expected, size])) in found.iter().zip(&expected).enumerate() {
                let is_near = (f64::from(found) - expected).abs() <= 1e-6 * size;
                assert!(is_near, "{transform:?} of {planes:?} at {i}: {found}, not {expected}");
            }
            alike.push(found);
        }
    }

    #[test]
    fn every_transform_of_every_number_of_lanes_is_its_matrices() {
        let square = |size: usize| [size; 2];
        let convolutions = [
            (square(1), square(2), [square(7), square(5), square(7)], [4, 4]),
            (square(2), square(1), [square(14), square(4), square(7)], [7, 7]),
            ([2, 1], [1, 0], [[9, 11], [3, 2], [5, 10]], [3, 4]),
            (square(1), square(0), [square(1), square(1), square(1)], [1, 1]),
        ];
        for (stride, pad, sizes, tile) in convolutions {
            for part in Part::ALL {
                let transform = Transform::new(part, &Window { stride, pad }, sizes, tile).unwrap();
                for direction in Direction::ALL {
                    let transform = Transform { direction, ..transform };
                    for lanes in if cfg!(miri) { vec![17] } else { vec![1, 15, 16, 17, 33, 64, 127, 128, 200] } {
                        let planes = if part == Part::Filter { [lanes, 2] } else { [2, lanes] };
                        let turned = transform.turned_planes([2, lanes]);
                        for planes in [transform.planes(planes), turned] {
                            let mut alike = Vec::new();
                            at_each_level(|_| check(&transform, &planes, &mut alike));
                            assert!(alike.windows(2).all(|pair| pair[0] == pair[1]), "instruction sets differ");
                        }
                    }
                }
            }
        }
    }

    /// A map that leaves no room for several lines at a time.
    #[test]
    fn large_planes_go_line_by_line() {
        let sizes = [[64; 2], [3; 2], [64; 2]];
        let transform = Transform::new(Part::Input, &Window { stride: [1; 2], pad: [1; 2] }, sizes, [4; 2]).unwrap();
        for direction in Direction::ALL {
            let transform = Transform { direction, ..transform };
            let program = TransformProgram::of(&transform, transform.planes([1, 40]), 0, (0, false));
            assert!(program.group < MOST_LINES * LANES);
            assert!(program.needs() <= CACHED || program.group == LANES);
            check(&transform, &transform.planes([1, 40]), &mut Vec::new());
        }
    }

    #[test]
    fn one_image_is_divided_among_threads_too() {
        let sizes = [[7; 2], [5; 2], [7; 2]];
        let transform = Transform::new(Part::Output, &Window { stride: [1; 2], pad: [2; 2] }, sizes, [4; 2]).unwrap();
        let tasks = |planes| TransformProgram::of(&transform, transform.planes(planes), 0, (0, false)).tasks();
        assert_eq!([tasks([1, 256]), tasks([128, 256]), tasks([128, 20])], [16, 256, 128]);
    }
}
