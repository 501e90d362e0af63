//! Index arithmetic: views over an index space as text.

use crate::kernel::access::Access;
use std::collections::BTreeSet;

/// Whether something is over a nest's full space or over its kept points alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Points {
    Full,
    Kept,
}

/// A dimension of the simplified space, or several that are always walked as one.
#[derive(Debug, Clone)]
struct Coordinate {
    /// The innermost dimension of the nest's space that is in it.
    dimension: usize,
    size: usize,
    /// Which variable it is part of.
    variable: usize,
}

/// A loop variable: the row-major number of a point of the coordinates that it runs over.
#[derive(Debug, Clone)]
struct Variable {
    name: &'static str,
    coordinates: Vec<usize>,
}

/// A nest's index space without dimensions of size 1 and with neighbours merged, walked by one variable
/// (`i`) or by one over the kept (`k`) and one over the reduced (`r`) dimensions.
#[derive(Debug)]
pub struct Space {
    /// The sizes of the nest's own dimensions.
    sizes: Vec<usize>,
    coordinates: Vec<Coordinate>,
    variables: Vec<Variable>,
    /// The coordinates that texts refer to, apart from their variable.
    used: BTreeSet<usize>,
}

/// An element number as a sum over coordinates.
#[derive(Debug, Clone)]
struct Affine {
    offset: isize,
    /// One stride for each coordinate.
    strides: Vec<isize>,
}

/// The variable over all points of an elementwise nest.
pub const POINT: usize = 0;
/// The variables of an elementwise nest whose threads have four points each: fours, and the points of one.
pub const BY_FOURS: [&str; 2] = ["i", "v"];
pub const LANE: usize = 1;
/// The variables of a matrix product in tiles: what is fixed for a block, a row, and a column.
pub const TILED: [&str; 3] = ["p", "k", "r"];
/// The variables of an operand that is staged: what is fixed for a block, the outer and the inner tap, a row (of the second
/// operand: a column) of the whole product, and the depth.
pub const STAGED: [&str; 5] = ["p", "outer", "inner", "k", "r"];
/// The variables of a nest that reduces.
pub const KEPT: usize = 0;
pub const REDUCED: usize = 1;

impl Space {
    /// The space of a nest that is read and written through `accesses`. Neighbouring dimensions are merged where all
    /// accesses allow it.
    pub fn new(space: &[usize], reduced: &[bool], accesses: &[&Access]) -> Space {
        let names: &[&'static str] = if reduced.contains(&true) { &["k", "r"] } else { &["i"] };
        let variables: Vec<usize> = reduced.iter().map(|&reduced| usize::from(reduced)).collect();
        Space::over(space, &variables, names, accesses)
    }

    /// A space whose dimensions are walked by the variable of that number among `names`, each.
    pub fn over(space: &[usize], variables: &[usize], names: &[&'static str], accesses: &[&Access]) -> Space {
        let mut coordinates: Vec<Coordinate> = Vec::new();
        for d in (0..space.len()).filter(|&d| space[d] != 1) {
            let variable = variables[d];
            let merges = |outer: &Coordinate| {
                outer.variable == variable
                    && accesses.iter().all(|access| {
                        !access.is_bounded(outer.dimension)
                            && !access.is_bounded(d)
                            && access.strides[outer.dimension] == access.strides[d] * space[d] as isize
                    })
            };
            match coordinates.last_mut() {
                Some(outer) if merges(outer) => {
                    *outer = Coordinate { dimension: d, size: outer.size * space[d], variable };
                }
                _ => coordinates.push(Coordinate { dimension: d, size: space[d], variable }),
            }
        }
        let variables = (names.iter().enumerate())
            .map(|(v, name)| Variable {
                name,
                coordinates: (0..coordinates.len()).filter(|&c| coordinates[c].variable == v).collect(),
            })
            .collect();
        Space { sizes: space.to_vec(), coordinates, variables, used: BTreeSet::new() }
    }

    /// How many points a variable runs over.
    pub fn points(&self, variable: usize) -> usize {
        self.variables[variable].coordinates.iter().map(|&c| self.coordinates[c].size).product()
    }

    /// Whether the innermost coordinate is a kept one, or there is none.
    pub fn is_kept_innermost(&self) -> bool {
        self.coordinates.last().is_none_or(|c| c.variable == KEPT)
    }

    /// Whether what the access reads at the full points changes along a variable.
    pub fn varies(&self, access: &Access, variable: usize) -> bool {
        self.variables[variable].coordinates.iter().any(|&c| {
            let d = self.coordinates[c].dimension;
            access.strides[d] != 0 || access.is_bounded(d)
        })
    }

    /// The element at which an access is.
    pub fn element(&mut self, access: &Access, over: Points) -> String {
        let affine = self.affine(access, over);
        self.sum(&affine)
    }

    /// `(element / divisor) % modulus` of what an access reads.
    pub fn quotient(&mut self, access: &Access, over: Points, divisor: usize, modulus: usize) -> String {
        let mut affine = self.affine(access, over);
        let (value, greatest) = if self.divide(&mut affine, divisor as isize) {
            if let Some(rest) = self.rest_below(&affine, modulus as isize) {
                return self.sum(&rest);
            }
            (parenthesised(self.sum(&affine)), self.greatest(&affine))
        } else {
            let value = format!("{} / {divisor}", parenthesised(self.sum(&affine)));
            (value, self.greatest(&affine) / divisor as isize)
        };
        if greatest < modulus as isize { value } else { format!("{value} % {modulus}") }
    }

    /// When a point is inside the access's bounds: `None` always, `Some("false")` never.
    pub fn condition(&mut self, access: &Access, over: Points) -> Option<String> {
        let (ranges, joint) = access.ranges(&self.sizes);
        if ranges.iter().any(|&(lo, hi)| lo >= hi) || joint.iter().any(|bound| bound.below == 0) {
            return Some("false".to_string());
        }
        let mut conditions = Vec::new();
        for c in self.at(over) {
            // A coordinate of merged dimensions has no bounds.
            let Coordinate { dimension, .. } = self.coordinates[c];
            let ((lo, hi), size) = (ranges[dimension], self.sizes[dimension]);
            if (lo, hi) == (0, size) {
                continue;
            }
            let name = self.coordinate(c);
            match (lo > 0, hi < size) {
                (true, true) if hi - lo == 1 => conditions.push(format!("{name} == {lo}")),
                (true, true) => conditions.push(format!("{name} >= {lo} && {name} < {hi}")),
                (true, false) => conditions.push(format!("{name} >= {lo}")),
                _ => conditions.push(format!("{name} < {hi}")),
            }
        }
        for bound in joint {
            let mut strides = vec![0; self.coordinates.len()];
            for c in self.at(over) {
                strides[c] = bound.strides[self.coordinates[c].dimension];
            }
            // Unsigned: what is below 0 wraps to more than any size.
            let sum = parenthesised(self.sum(&Affine { offset: bound.offset, strides }));
            conditions.push(format!("{sum} < {}u", bound.below));
        }
        (!conditions.is_empty()).then(|| conditions.join(" && "))
    }

    /// Whether an access has bounds, and reads outside of them what it reads inside: it does not change along the dimensions
    /// that they are on.
    pub fn is_alike_outside(&self, access: &Access) -> bool {
        let (ranges, joint) = access.ranges(&self.sizes);
        let is_free = |(d, &stride): (usize, &isize)| stride == 0 || !access.is_bounded(d);
        let has_points = joint.is_empty() && ranges.iter().all(|(lo, hi)| lo < hi);
        !access.bounds.is_empty() && has_points && access.strides.iter().enumerate().all(is_free)
    }

    /// Starts a loop over a variable anew: texts have referred to none of its coordinates.
    pub fn start(&mut self, variable: usize) {
        self.used.retain(|&c| self.coordinates[c].variable != variable);
    }

    /// The declarations of the coordinates of a variable that texts refer to.
    pub fn declarations(&self, variable: usize) -> Vec<String> {
        let Variable { name, coordinates } = &self.variables[variable];
        let mut inner: usize = 1;
        let mut lines = Vec::new();
        for (place, &c) in coordinates.iter().enumerate().rev() {
            if self.used.contains(&c) {
                let divided = if inner == 1 { String::new() } else { format!(" / {inner}") };
                let wrapped = if place == 0 { String::new() } else { format!(" % {}", self.coordinates[c].size) };
                lines.push(format!("const unsigned {name}{place} = {name}{divided}{wrapped};"));
            }
            inner *= self.coordinates[c].size;
        }
        lines.reverse();
        lines
    }

    /// The declarations of the coordinates of all variables.
    pub fn all_declarations(&self) -> Vec<String> {
        (0..self.variables.len()).flat_map(|variable| self.declarations(variable)).collect()
    }

    fn at(&self, over: Points) -> Vec<usize> {
        let all = 0..self.coordinates.len();
        all.filter(|&c| over == Points::Full || self.coordinates[c].variable == KEPT).collect()
    }

    fn affine(&self, access: &Access, over: Points) -> Affine {
        let mut strides = vec![0; self.coordinates.len()];
        for c in self.at(over) {
            strides[c] = access.strides[self.coordinates[c].dimension];
        }
        Affine { offset: access.offset, strides }
    }

    /// The name of a coordinate: of its variable where that has no other.
    fn coordinate(&mut self, c: usize) -> String {
        let Variable { name, coordinates } = &self.variables[self.coordinates[c].variable];
        if coordinates.len() == 1 {
            return (*name).to_string();
        }
        self.used.insert(c);
        let place = coordinates.iter().position(|&other| other == c).unwrap_or(0);
        format!("{name}{place}")
    }

    /// The sum as text: positive terms first, the largest stride first. Unsigned arithmetic wraps, so it
    /// is right in any order.
    fn sum(&mut self, affine: &Affine) -> String {
        let mut terms: Vec<(isize, String)> = Vec::new();
        for v in 0..self.variables.len() {
            let coordinates = self.variables[v].coordinates.clone();
            match self.whole(affine, &coordinates) {
                Some(stride) => terms.push((stride, self.variables[v].name.to_string())),
                None => {
                    for c in coordinates.into_iter().filter(|&c| affine.strides[c] != 0) {
                        terms.push((affine.strides[c], self.coordinate(c)));
                    }
                }
            }
        }
        terms.sort_by_key(|(stride, _)| std::cmp::Reverse(stride.unsigned_abs()));
        let (mut plus, mut minus) = (Vec::new(), Vec::new());
        for (stride, name) in terms {
            let size = stride.unsigned_abs();
            let text = if size == 1 { name } else { format!("{size} * {name}") };
            match stride {
                0 => {}
                1.. => plus.push(text),
                _ => minus.push(text),
            }
        }
        match affine.offset {
            0 => {}
            offset @ 1.. => plus.push(offset.to_string()),
            offset => minus.push(offset.unsigned_abs().to_string()),
        }
        if plus.is_empty() {
            plus.push("0".to_string());
        }
        std::iter::once(plus.join(" + ")).chain(minus).collect::<Vec<_>>().join(" - ")
    }

    /// The stride of a whole variable, where those of its coordinates are that times their row-major ones.
    fn whole(&self, affine: &Affine, coordinates: &[usize]) -> Option<isize> {
        let Some(&last) = coordinates.last() else { return Some(0) };
        let stride = affine.strides[last];
        let mut expected = stride;
        for &c in coordinates.iter().rev() {
            if affine.strides[c] != expected {
                return None;
            }
            expected = expected.checked_mul(self.coordinates[c].size as isize)?;
        }
        Some(stride)
    }

    /// The greatest value over all points.
    fn greatest(&self, affine: &Affine) -> isize {
        let terms = affine.strides.iter().zip(&self.coordinates);
        let terms = terms.map(|(&stride, c)| stride.saturating_mul(c.size as isize - 1).max(0));
        terms.fold(affine.offset, isize::saturating_add)
    }

    /// The part of the sum whose terms are no multiples of `by`, where it stays within `0..by`.
    fn rest_below(&self, affine: &Affine, by: isize) -> Option<Affine> {
        let offset = affine.offset.rem_euclid(by);
        let strides: Vec<isize> = affine.strides.iter().map(|&s| if s % by == 0 { 0 } else { s }).collect();
        let rest = Affine { offset, strides };
        let negative = rest.strides.iter().any(|&s| s < 0);
        (!negative && self.greatest(&rest) < by).then_some(rest)
    }

    /// Divides term by term where the rest cannot carry.
    fn divide(&self, affine: &mut Affine, by: isize) -> bool {
        let can = self.rest_below(affine, by).is_some();
        if can {
            affine.offset = affine.offset.div_euclid(by);
            affine.strides.iter_mut().for_each(|s| *s = if *s % by == 0 { *s / by } else { 0 });
        }
        can
    }
}

fn parenthesised(sum: String) -> String {
    if sum.contains(' ') { format!("({sum})") } else { sum }
}
