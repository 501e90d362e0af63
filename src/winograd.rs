//! Winograd's minimal filtering: convolutions with fewer multiplications (S. Winograd, Arithmetic Complexity of
//! Computations, 1980; for networks A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks",
//! CVPR 2016, section 4).
//!
//! F(m, r) computes m neighbouring results of a filter of r taps from the values of both polynomials at m + r - 1 points:
//! y = Aᵀ[(G w) ⊙ (Bᵀ x)]. Along each axis of a map these are small constant matrices, tiling, padding and stride included: a
//! stride of s takes a map apart into s phases, each of which meets every s-th tap. So an image's transform is T·x·Tᵀ, and
//! the product at the points is a matrix product for each point, over channels and phases.

use crate::types::{MAX_BLOCK, Window};
use serde::{Deserialize, Serialize};

/// Which tensor of a convolution is transformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    Input,
    Filter,
    Output,
}

/// From which side a transform goes. Each is the other's adjoint (its matrices are transposed), not its inverse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From a map to points.
    ToPoints,
    FromPoints,
}

/// One axis of a convolution by minimal filtering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Axis {
    /// Sizes of the input, the filter and the output.
    pub input: usize,
    pub kernel: usize,
    pub output: usize,
    pub stride: usize,
    pub pad: usize,
    /// Results of one tile: m.
    pub tile: usize,
}

/// A transform of one tensor of a convolution, the same along rows and columns.
///
/// | part | map | points |
/// |---|---|---|
/// | input | `[n, c, h, w]` | `[points, tiles · n, phases · c]` |
/// | filter | `[o, c, kh, kw]` | `[points, phases · c, o]` |
/// | output | `[n, o, oh, ow]` | `[points, tiles · n, o]` |
///
/// so that input times filter is the output at each point. Points, tiles and phases are numbered row by row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Transform {
    pub part: Part,
    pub direction: Direction,
    /// Down and across.
    pub axes: [Axis; 2],
}

/// A matrix in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    pub rows: usize,
    pub columns: usize,
    pub values: Vec<f64>,
}

/// The points that polynomials are evaluated at, the first of them for small tiles; infinity is always one more.
/// Small powers of two: their multiples are exact.
const POINTS: [f64; 7] = [0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5];
/// The same for tiles of 9, 10 and 11 points: of sets of small fractions those that were found to round least, with 5 taps 3,
/// 5 and 15 times as much as 8 points. Why such sets do better than powers of two: B. Barabasz and others, "Error Analysis
/// and Improving the Accuracy of Winograd Convolution for Deep Neural Networks", ACM TOMS 46, 2020.
const POINTS_OF_9: [f64; 8] = [0.0, 0.4, -2.0 / 3.0, 0.8, -1.0, 4.0 / 3.0, -2.5, 3.0];
const POINTS_OF_10: [f64; 9] = [0.0, 0.4, -0.4, 0.8, -0.8, -1.25, 4.0 / 3.0, -2.0, 3.0];
const POINTS_OF_11: [f64; 10] = [0.0, -0.25, 0.4, -2.0 / 3.0, 0.75, -1.0, 4.0 / 3.0, -1.5, 2.0, -4.0];
/// Planes that are transformed together by a thread.
pub const LANES: usize = 16;
/// Most points of an axis.
pub const MOST_POINTS: usize = POINTS_OF_11.len() + 1;

/// The order of a filter's points in memory where rows and columns are exchanged.
pub const TURNED: [usize; 3] = [0, 2, 1];

impl Part {
    pub const ALL: [Part; 3] = [Part::Input, Part::Filter, Part::Output];
}

impl Direction {
    pub const ALL: [Direction; 2] = [Direction::ToPoints, Direction::FromPoints];
}

impl Matrix {
    fn zeros(rows: usize, columns: usize) -> Matrix {
        Matrix { rows, columns, values: vec![0.0; rows * columns] }
    }

    pub fn at(&self, row: usize, column: usize) -> f64 {
        self.values[row * self.columns + column]
    }

    fn set(&mut self, row: usize, column: usize, value: f64) {
        self.values[row * self.columns + column] = value;
    }

    pub fn transposed(&self) -> Matrix {
        let mut other = Matrix::zeros(self.columns, self.rows);
        for row in 0..self.rows {
            for column in 0..self.columns {
                other.set(column, row, self.at(row, column));
            }
        }
        other
    }
}

/// The finite ones of some points.
fn finite(points: usize) -> &'static [f64] {
    match points {
        11 => &POINTS_OF_11,
        10 => &POINTS_OF_10,
        9 => &POINTS_OF_9,
        _ => &POINTS[..points - 1],
    }
}

/// The matrices Aᵀ (m rows), G and Bᵀ (a row for each point, infinity last) of F(m, r), by Lagrange's interpolation (as in
/// Blahut, Fast Algorithms for Signal Processing, 2010, section 5.2, transposed).
fn matrices(m: usize, r: usize) -> [Matrix; 3] {
    let points = m + r - 1;
    let finite = finite(points);
    let (mut a, mut g, mut b) = (Matrix::zeros(m, points), Matrix::zeros(points, r), Matrix::zeros(points, points));
    // The coefficients of the product of (x - other) over the points but one, from the constant on.
    let product_without = |point: Option<usize>| {
        let others = finite.iter().enumerate().filter(|(q, _)| Some(*q) != point);
        others.fold(vec![1.0], |polynomial, (_, &other)| {
            let mut next = vec![0.0; polynomial.len() + 1];
            for (power, coefficient) in polynomial.iter().enumerate() {
                next[power + 1] += coefficient;
                next[power] -= coefficient * other;
            }
            next
        })
    };
    for (p, &x) in finite.iter().enumerate() {
        let others = finite.iter().enumerate().filter(|(q, _)| *q != p);
        let denominator: f64 = others.map(|(_, other)| x - other).product();
        (0..m).for_each(|i| a.set(i, p, x.powi(i as i32)));
        (0..r).for_each(|i| g.set(p, i, x.powi(i as i32) / denominator));
        product_without(Some(p)).iter().enumerate().for_each(|(i, &value)| b.set(p, i, value));
    }
    a.set(m - 1, points - 1, 1.0);
    g.set(points - 1, r - 1, 1.0);
    product_without(None).iter().enumerate().for_each(|(i, &value)| b.set(points - 1, i, value));
    [a, g, b]
}

impl Axis {
    /// The taps of the filter that one phase of the input meets: r.
    pub fn taps(&self) -> usize {
        self.kernel.div_ceil(self.stride)
    }

    pub fn points(&self) -> usize {
        self.tile + self.taps() - 1
    }

    pub fn tiles(&self) -> usize {
        self.output.div_ceil(self.tile)
    }

    pub fn phases(&self) -> usize {
        self.stride
    }

    /// The size of a part's map.
    pub fn size(&self, part: Part) -> usize {
        match part {
            Part::Input => self.input,
            Part::Filter => self.kernel,
            Part::Output => self.output,
        }
    }

    /// Whether it describes a convolution that can be computed so.
    fn is_sound(&self) -> bool {
        let sizes = [self.input, self.kernel, self.output, self.stride, self.tile];
        let fits = |padded: usize| padded.checked_sub(self.kernel).map(|rest| rest / self.stride + 1);
        sizes.iter().all(|&size| size > 0 && size <= crate::types::MAX_PADDED)
            && self.pad <= crate::types::MAX_PADDED
            && self.taps() <= MOST_POINTS
            && self.tile <= MOST_POINTS
            && self.points() <= MOST_POINTS
            && fits(self.input + 2 * self.pad) == Some(self.output)
    }

    /// Rows of a part's matrix: phases, tiles and points, each that the part has, in this order.
    pub fn rows(&self, part: Part) -> usize {
        match part {
            Part::Input => self.phases() * self.tiles() * self.points(),
            Part::Filter => self.phases() * self.points(),
            Part::Output => self.tiles() * self.points(),
        }
    }

    /// The phase, tile and point of a row of a part's matrix.
    pub fn row(&self, part: Part, row: usize) -> [usize; 3] {
        let (rest, point) = (row / self.points(), row % self.points());
        match part {
            Part::Input => [rest / self.tiles(), rest % self.tiles(), point],
            Part::Filter => [rest, 0, point],
            Part::Output => [0, rest, point],
        }
    }

    /// What takes a part's map to points.
    pub fn matrix(&self, part: Part) -> Matrix {
        let [a, g, b] = matrices(self.tile, self.taps());
        let mut matrix = Matrix::zeros(self.rows(part), self.size(part));
        for q in 0..matrix.rows {
            let [phase, tile, point] = self.row(part, q);
            match part {
                // y[i] = Σ x[stride·i + k - pad]·w[k], where k = stride·tap + phase.
                Part::Input => {
                    for j in 0..self.points() {
                        let at = (self.stride * (tile * self.tile + j) + phase).checked_sub(self.pad);
                        if let Some(at) = at.filter(|&at| at < self.input) {
                            matrix.set(q, at, b.at(point, j));
                        }
                    }
                }
                Part::Filter => {
                    for tap in 0..self.taps() {
                        let at = self.stride * tap + phase;
                        if at < self.kernel {
                            matrix.set(q, at, g.at(point, tap));
                        }
                    }
                }
                Part::Output => {
                    for i in 0..self.tile.min(self.output - tile * self.tile) {
                        matrix.set(q, tile * self.tile + i, a.at(i, point));
                    }
                }
            }
        }
        matrix
    }
}

/// Where a transform finds its numbers: maps and points as `outer × lanes` small planes, lane by lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planes {
    pub outer: usize,
    pub lanes: usize,
    /// Strides of the map's planes; within one, elements lie row by row.
    pub map_strides: [usize; 2],
    /// The stride of the points' outer index; lanes are neighbours.
    pub points_stride: usize,
    /// Where the element of each pair of rows of the two matrices is.
    pub points_offsets: Vec<usize>,
}

impl Transform {
    /// One tensor's transform of a convolution of maps and filters of these sizes.
    ///
    /// `None` where there are more points than are known, or no such convolution.
    pub fn new(part: Part, window: &Window, sizes: [[usize; 2]; 3], tile: [usize; 2]) -> Option<Transform> {
        let [input, kernel, output] = sizes;
        let axes = [0, 1].map(|d| Axis {
            input: input[d],
            kernel: kernel[d],
            output: output[d],
            stride: window.stride[d],
            pad: window.pad[d],
            tile: tile[d],
        });
        let direction = if part == Part::Output { Direction::FromPoints } else { Direction::ToPoints };
        let transform = Transform { part, direction, axes };
        transform.is_sound().then_some(transform)
    }

    /// Whether its axes describe a convolution that can be computed so, of maps that fit a thread's own memory.
    pub fn is_sound(&self) -> bool {
        self.axes.iter().all(Axis::is_sound) && self.plane() <= MAX_BLOCK / LANES
    }

    /// Elements of one plane on its way: the map, the points, and what is between, down being done.
    fn plane(&self) -> usize {
        let [down, across] = self.axes;
        let [from, to] = [down.size(self.part), down.rows(self.part)];
        let [width, wide] = [across.size(self.part), across.rows(self.part)];
        let area = |height: usize, width: usize| height.saturating_mul(width);
        area(from, width).saturating_add(area(to, wide)).saturating_add(area(to, width).max(area(from, wide)))
    }

    pub fn adjoint(self) -> Transform {
        let direction = match self.direction {
            Direction::ToPoints => Direction::FromPoints,
            Direction::FromPoints => Direction::ToPoints,
        };
        Transform { direction, ..self }
    }

    /// Which of its operand and its result is the map; the other one is its points.
    pub fn map<T>(&self, operand: T, result: T) -> T {
        match self.direction {
            Direction::ToPoints => operand,
            Direction::FromPoints => result,
        }
    }

    /// What it is called in the text form.
    pub fn name(&self) -> &'static str {
        match (self.part, self.direction) {
            (Part::Input, Direction::ToPoints) => "input_to_points",
            (Part::Filter, Direction::ToPoints) => "filter_to_points",
            (Part::Output, Direction::ToPoints) => "output_to_points",
            (Part::Input, Direction::FromPoints) => "input_from_points",
            (Part::Filter, Direction::FromPoints) => "filter_from_points",
            (Part::Output, Direction::FromPoints) => "output_from_points",
        }
    }

    fn each(&self, count: fn(&Axis) -> usize) -> usize {
        self.axes.iter().map(count).product()
    }

    pub fn points(&self) -> usize {
        self.each(Axis::points)
    }

    /// The shape of the result for an operand's shape; `None` where the operand is not such a tensor. Axes must be sound.
    pub fn result(&self, operand: &[usize]) -> Option<Vec<usize>> {
        let size = self.axes.map(|axis| axis.size(self.part));
        let [points, tiles, phases] = [self.points(), self.each(Axis::tiles), self.each(Axis::phases)];
        match (self.direction, operand) {
            (Direction::ToPoints, &[n, c, h, w]) => {
                let times = |a: usize, b: usize| a.checked_mul(b);
                let [rows, columns] = match self.part {
                    Part::Input => [times(tiles, n)?, times(phases, c)?],
                    Part::Filter => [times(phases, c)?, n],
                    Part::Output => [times(tiles, n)?, c],
                };
                ([h, w] == size).then(|| vec![points, rows, columns])
            }
            (Direction::FromPoints, &[p, rows, columns]) => {
                let whole = |total: usize, parts: usize| total.is_multiple_of(parts).then_some(total / parts);
                let [n, c] = match self.part {
                    Part::Input => [whole(rows, tiles)?, whole(columns, phases)?],
                    Part::Filter => [columns, whole(rows, phases)?],
                    Part::Output => [whole(rows, tiles)?, columns],
                };
                (p == points).then(|| vec![n, c, size[0], size[1]])
            }
            _ => None,
        }
    }

    /// The matrices down and across, from the operand to the result.
    pub fn matrices(&self) -> [Matrix; 2] {
        self.axes.map(|axis| match self.direction {
            Direction::ToPoints => axis.matrix(self.part),
            Direction::FromPoints => axis.matrix(self.part).transposed(),
        })
    }

    /// How a map of two outer dimensions and its points lie in memory, each in row-major order.
    pub fn planes(&self, planes: [usize; 2]) -> Planes {
        self.planes_of(planes, false)
    }

    /// The same where the rows and columns of a filter's points are exchanged in memory.
    pub fn turned_planes(&self, planes: [usize; 2]) -> Planes {
        self.planes_of(planes, self.part == Part::Filter)
    }

    fn planes_of(&self, [n, c]: [usize; 2], is_turned: bool) -> Planes {
        let [down, across] = self.axes;
        let area = down.size(self.part) * across.size(self.part);
        // The outer index is a row of what lies in memory, of which tiles or phases come before; the lane is a column.
        let (outer, lanes, map_strides) = match self.part {
            Part::Filter if !is_turned => (c, n, [area, c * area]),
            Part::Input | Part::Output | Part::Filter => (n, c, [c * area, area]),
        };
        let [tiles, phases] = [self.each(Axis::tiles), self.each(Axis::phases)];
        let [rows, columns] = match self.part {
            Part::Input => [tiles * outer, phases * lanes],
            Part::Filter if is_turned => [outer, phases * lanes],
            Part::Filter => [phases * outer, lanes],
            Part::Output => [tiles * outer, lanes],
        };
        let mut points_offsets = Vec::with_capacity(down.rows(self.part) * across.rows(self.part));
        for q in 0..down.rows(self.part) {
            for r in 0..across.rows(self.part) {
                let (d, a) = (down.row(self.part, q), across.row(self.part, r));
                let phase = d[0] * across.phases() + a[0];
                let tile = d[1] * across.tiles() + a[1];
                let point = d[2] * across.points() + a[2];
                let within = match self.part {
                    Part::Input => tile * outer * columns + phase * lanes,
                    Part::Filter if is_turned => phase * lanes,
                    Part::Filter => phase * outer * columns,
                    Part::Output => tile * outer * columns,
                };
                points_offsets.push(point * rows * columns + within);
            }
        }
        Planes { outer, lanes, map_strides, points_stride: columns, points_offsets }
    }

    /// Multiplications and additions for `planes` planes, zeros of the matrices left out, down first.
    pub fn flops(&self, planes: usize) -> u64 {
        let [down, across] = self.matrices();
        let present = |matrix: &Matrix| matrix.values.iter().filter(|&&value| value != 0.0).count();
        2 * (planes * (present(&down) * across.columns + down.rows * present(&across))) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The convolution along one axis by its matrices, beside its definition.
    fn check(axis: Axis) {
        assert!(axis.is_sound(), "{axis:?}");
        let x: Vec<f64> = (0..axis.input).map(|i| ((i * 37 + 11) % 19) as f64 - 9.0).collect();
        let w: Vec<f64> = (0..axis.kernel).map(|i| ((i * 23 + 5) % 17) as f64 - 8.0).collect();
        let times = |matrix: &Matrix, v: &[f64]| -> Vec<f64> {
            (0..matrix.rows).map(|row| v.iter().enumerate().map(|(i, v)| v * matrix.at(row, i)).sum()).collect()
        };
        let (u, v) = (times(&axis.matrix(Part::Input), &x), times(&axis.matrix(Part::Filter), &w));
        let mut product = vec![0.0; axis.rows(Part::Output)];
        for (q, u) in u.iter().enumerate() {
            let [phase, tile, point] = axis.row(Part::Input, q);
            product[tile * axis.points() + point] += u * v[phase * axis.points() + point];
        }
        let found = times(&axis.matrix(Part::Output).transposed(), &product);
        for (i, found) in found.iter().enumerate() {
            let term = |k: usize| {
                (axis.stride * i + k).checked_sub(axis.pad).and_then(|at| x.get(at)).map_or(0.0, |x| x * w[k])
            };
            let expected: f64 = (0..axis.kernel).map(term).sum();
            assert!((found - expected).abs() < 1e-9, "{axis:?} at {i}: {found} and {expected}");
        }
        assert_eq!(found.len(), axis.output);
    }

    #[test]
    fn every_axis_computes_its_convolution() {
        for (kernel, stride, pad) in [(5, 1, 2), (4, 2, 1), (3, 1, 1), (3, 2, 0), (1, 1, 0), (2, 3, 0), (5, 2, 2)] {
            for input in [5, 7, 14] {
                let output = (input + 2 * pad - kernel) / stride + 1;
                let taps = usize::div_ceil(kernel, stride);
                for tile in 1..=(MOST_POINTS + 1 - taps) {
                    check(Axis { input, kernel, output, stride, pad, tile });
                }
            }
        }
    }

    #[test]
    fn shapes_lead_there_and_back() {
        let window = Window { stride: [2, 2], pad: [1, 1] };
        let sizes = [[14, 14], [4, 4], [7, 7]];
        for (part, map, points) in [
            (Part::Input, [128, 64, 14, 14], [64, 128, 256]),
            (Part::Filter, [96, 64, 4, 4], [64, 256, 96]),
            (Part::Output, [128, 96, 7, 7], [64, 128, 96]),
        ] {
            let there =
                Transform { direction: Direction::ToPoints, ..Transform::new(part, &window, sizes, [7, 7]).unwrap() };
            assert_eq!(there.result(&map).as_deref(), Some(&points[..]));
            assert_eq!(there.adjoint().result(&points).as_deref(), Some(&map[..]));
            assert_eq!(there.result(&map[1..]), None);
            assert_eq!(there.adjoint().result(&[63, points[1], points[2]]), None);
        }
        assert_eq!(Transform::new(Part::Input, &window, sizes, [11, 7]), None, "more points than are known");
        assert_eq!(Transform::new(Part::Input, &window, [[14, 14], [4, 4], [8, 7]], [7, 7]), None);
        // A map that no thread has memory for.
        let large = |size: usize| {
            Transform::new(Part::Input, &Window { stride: [1; 2], pad: [1; 2] }, [[size; 2], [3; 2], [size; 2]], [4; 2])
        };
        assert!(large(256).is_some() && large(4096).is_none());
    }

    #[test]
    fn every_element_of_the_points_has_a_place() {
        let window = Window { stride: [2, 1], pad: [1, 2] };
        let sizes = [[8, 6], [4, 5], [4, 6]];
        for part in [Part::Input, Part::Filter, Part::Output] {
            let transform =
                Transform { direction: Direction::ToPoints, ..Transform::new(part, &window, sizes, [3, 4]).unwrap() };
            let size = transform.axes.map(|axis| axis.size(part));
            let elements = transform.result(&[3, 5, size[0], size[1]]).unwrap().iter().product();
            for planes in [transform.planes([3, 5]), transform.turned_planes([3, 5])] {
                let mut seen = vec![false; elements];
                for offset in &planes.points_offsets {
                    for outer in 0..planes.outer {
                        for lane in 0..planes.lanes {
                            let at = offset + outer * planes.points_stride + lane;
                            assert!(!std::mem::replace(&mut seen[at], true), "{part:?}: {at} twice");
                        }
                    }
                }
                assert!(seen.iter().all(|&seen| seen), "{part:?}");
            }
        }
    }
}
