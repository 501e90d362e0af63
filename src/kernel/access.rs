//! Accesses: how an index space reads or writes a buffer.
//!
//! An access is an affine map with bounds. Movement operations, the taps of a convolution, the windows of a pooling and
//! padding are all accesses, so none of them copies memory, and the elements that an access touches follow from its
//! numbers alone.

use crate::tensor::Shape;
use crate::types::Window;
use serde::{Deserialize, Serialize};

/// An affine map from the points of an index space to the elements of a buffer.
///
/// Point `i` is at element `offset + Σ i[d]·strides[d]` if it is inside all bounds; outside it reads 0.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Access {
    pub offset: isize,
    /// One for each dimension of the index space, in elements; 0 repeats.
    pub strides: Vec<isize>,
    /// Empty where every point is inside.
    pub bounds: Vec<Bound>,
}

/// A condition on a point `i`: `0 ≤ offset + Σ i[d]·strides[d] < below`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Bound {
    pub offset: isize,
    pub strides: Vec<isize>,
    pub below: usize,
}

/// The row-major strides of `shape`, with 0 where a dimension has size 1.
pub fn contiguous_strides(shape: &[usize]) -> Vec<isize> {
    let order: Vec<usize> = (0..shape.len()).collect();
    ordered_strides(shape, &order)
}

/// The strides of `shape` where its dimensions lie in memory in the given order, outermost first; 0 where a dimension
/// has size 1.
pub fn ordered_strides(shape: &[usize], order: &[usize]) -> Vec<isize> {
    let mut strides = vec![0; shape.len()];
    let mut stride = 1isize;
    for &d in order.iter().rev() {
        strides[d] = if shape[d] == 1 { 0 } else { stride };
        stride *= shape[d] as isize;
    }
    strides
}

impl Bound {
    /// That dimension `d` is in `range`.
    fn dimension(rank: usize, d: usize, range: (usize, usize)) -> Bound {
        let mut strides = vec![0; rank];
        strides[d] = 1;
        Bound { offset: -(range.0 as isize), strides, below: range.1.saturating_sub(range.0) }
    }

    /// The one dimension that the bound depends on, where it is one.
    fn only_dimension(&self) -> Option<usize> {
        let mut used = (0..self.strides.len()).filter(|&d| self.strides[d] != 0);
        let first = used.next();
        first.filter(|_| used.next().is_none())
    }

    /// Whether it holds at a point.
    pub fn holds(&self, point: &[usize]) -> bool {
        let at = linear(self.offset, &self.strides, point);
        at >= 0 && at < self.below as i128
    }
}

fn linear(offset: isize, strides: &[isize], point: &[usize]) -> i128 {
    strides.iter().zip(point).map(|(&s, &i)| s as i128 * i as i128).sum::<i128>() + offset as i128
}

impl Access {
    /// The access of a whole buffer by its own shape, row-major. Dimensions of size 1 have stride 0, so that equal
    /// maps are equal accesses.
    pub fn contiguous(shape: &[usize]) -> Access {
        Access { offset: 0, strides: contiguous_strides(shape), bounds: Vec::new() }
    }

    /// The access of a whole buffer by its own shape, with its dimensions in memory in the given order.
    pub fn ordered(shape: &[usize], order: &[usize]) -> Access {
        Access { offset: 0, strides: ordered_strides(shape, order), bounds: Vec::new() }
    }

    /// Whether every point of `shape` is at the element of its own row-major position.
    pub fn is_contiguous(&self, shape: &[usize]) -> bool {
        *self == Access::contiguous(shape)
    }

    /// Whether the points of `space` are, in some order, exactly the elements 0, 1, 2, …
    pub fn is_bijective(&self, space: &[usize]) -> bool {
        if self.offset != 0 || !self.bounds.is_empty() || self.strides.len() != space.len() {
            return false;
        }
        let mut dims: Vec<(isize, usize)> =
            self.strides.iter().copied().zip(space.iter().copied()).filter(|(_, size)| *size != 1).collect();
        dims.sort_unstable();
        let mut expected = 1i128;
        dims.into_iter().all(|(stride, size)| {
            let fits = stride as i128 == expected;
            expected = expected.saturating_mul(size as i128);
            fits
        })
    }

    /// Over another space of so many dimensions, whose points have these coordinates in the access's own.
    pub fn through(&self, coordinates: &[Access], rank: usize) -> Access {
        self.each_map(|strides, mut offset| {
            let mut result = vec![0; rank];
            for (coordinate, stride) in coordinates.iter().zip(strides) {
                offset += stride * coordinate.offset;
                result.iter_mut().zip(&coordinate.strides).for_each(|(to, s)| *to += stride * s);
            }
            (result, offset)
        })
    }

    /// With its dimensions permuted: dimension `d` of the result is `permutation[d]`.
    pub fn permuted(&self, permutation: &[usize]) -> Access {
        self.each_map(|strides, offset| (permutation.iter().map(|&p| strides[p]).collect(), offset))
    }

    /// With dimension `d`, of `size` points, as two: the number of a run of `run` points, and that of a point of the run.
    pub fn cut(&self, d: usize, size: usize, run: usize) -> Access {
        self.each_map(|strides, offset| {
            let mut strides = strides.to_vec();
            let step = strides[d];
            strides.insert(d + 1, step);
            // A dimension of size 1 has stride 0.
            strides[d] = if size == run { 0 } else { step * run as isize };
            (strides, offset)
        })
    }

    /// With dimensions of size 1 of `shape` repeated to the sizes of `to`.
    pub fn broadcast(&self, shape: &[usize], to: &[usize]) -> Access {
        let repeated = |d: usize| shape[d] != to[d];
        let once = |strides: &[isize], offset| {
            (strides.iter().enumerate().map(|(d, &s)| if repeated(d) { 0 } else { s }).collect(), offset)
        };
        self.each_map(once).normalised(to)
    }

    /// With the order along `axes` reversed.
    pub fn reversed(&self, shape: &[usize], axes: &[usize]) -> Access {
        let reversed = self.each_map(|strides, mut offset| {
            let mut strides = strides.to_vec();
            for &d in axes {
                offset += strides[d] * (shape[d] as isize - 1);
                strides[d] = -strides[d];
            }
            (strides, offset)
        });
        reversed.normalised(shape)
    }

    /// Point `i` of the result is point `i + by(d)` of this access; what lies outside `shape` is outside the bounds.
    pub fn shifted(&self, shape: &[usize], to: &[usize], by: impl Fn(usize) -> isize) -> Access {
        let mut access = self.each_map(|strides, offset| {
            let moved: isize = strides.iter().enumerate().map(|(d, s)| s * by(d)).sum();
            (strides.to_vec(), offset + moved)
        });
        for d in 0..to.len() {
            let mut strides = vec![0; to.len()];
            strides[d] = 1;
            access.bounds.push(Bound { offset: by(d), strides, below: shape[d] });
        }
        access.normalised(to)
    }

    /// What windows of a convolution read of images of `shape`, `[n,c,h,w]`, over `[n,c,kh,kw,oh,ow]`. Padding is outside the
    /// last two bounds, on the row and the column of the pixel, which are there also where they always hold.
    pub fn windows(&self, shape: &[usize], window: &Window) -> Access {
        let [stride, pad] = [window.stride, window.pad].map(|pair| pair.map(|size| size as isize));
        let mut access = self.each_map(|s, offset| {
            let strides = vec![s[0], s[1], s[2], s[3], s[2] * stride[0], s[3] * stride[1]];
            (strides, offset - pad[0] * s[2] - pad[1] * s[3])
        });
        for d in 0..2 {
            let mut strides = vec![0; 6];
            (strides[d + 2], strides[d + 4]) = (1, stride[d]);
            access.bounds.push(Bound { offset: -pad[d], strides, below: shape[d + 2] });
        }
        access
    }

    /// Under another shape of as many elements, where runs of dimensions of `shape` and of `to` with equal products
    /// match and each run of `shape` is one stride apart within, in the map and in every bound; else `None`.
    pub fn reshaped(&self, shape: &[usize], to: &[usize]) -> Option<Access> {
        let runs = matching_runs(shape, to)?;
        let reshape = |strides: &[isize]| -> Option<Vec<isize>> {
            let mut result = vec![0isize; to.len()];
            for (old, new) in &runs {
                let even = old.windows(2).all(|w| strides[w[0]] == strides[w[1]] * shape[w[1]] as isize);
                if !even {
                    return None;
                }
                let mut stride = old.last().map_or(0, |&d| strides[d]);
                for &d in new.iter().rev() {
                    result[d] = stride;
                    stride *= to[d] as isize;
                }
            }
            Some(result)
        };
        let mut bounds = Vec::with_capacity(self.bounds.len());
        for bound in &self.bounds {
            bounds.push(Bound { strides: reshape(&bound.strides)?, ..bound.clone() });
        }
        Some(Access { offset: self.offset, strides: reshape(&self.strides)?, bounds }.normalised(to))
    }

    /// The same change to the map and to the bounds.
    fn each_map(&self, change: impl Fn(&[isize], isize) -> (Vec<isize>, isize)) -> Access {
        let (strides, offset) = change(&self.strides, self.offset);
        let bounds = (self.bounds.iter())
            .map(|bound| {
                let (strides, offset) = change(&bound.strides, bound.offset);
                Bound { offset, strides, below: bound.below }
            })
            .collect();
        Access { offset, strides, bounds }
    }

    /// Equal accesses of `shape` made equal: a dimension of size 1 has stride 0, bounds on one dimension are one range
    /// of it, bounds that always hold are dropped, and where no point is inside there is one bound that never holds.
    pub fn normalised(mut self, shape: &[usize]) -> Access {
        let rank = shape.len();
        let drop_ones = |strides: &mut [isize]| {
            strides.iter_mut().zip(shape).filter(|(_, size)| **size == 1).for_each(|(stride, _)| *stride = 0);
        };
        drop_ones(&mut self.strides);
        let mut ranges: Vec<(usize, usize)> = shape.iter().map(|&size| (0, size)).collect();
        let mut joint = std::mem::take(&mut self.bounds);
        joint.iter_mut().for_each(|bound| drop_ones(&mut bound.strides));
        joint.retain(|bound| {
            let Some(d) = bound.only_dimension() else { return true };
            let (lo, hi) = solve(bound.offset, bound.strides[d], bound.below, shape[d]);
            ranges[d] = (ranges[d].0.max(lo), ranges[d].1.min(hi));
            false
        });
        let mut is_empty = ranges.iter().any(|&(lo, hi)| lo >= hi);
        let mut bounds = Vec::new();
        for bound in joint {
            let (least, greatest) = range_of(bound.offset, &bound.strides, &ranges);
            let below = bound.below as i128;
            is_empty |= greatest < 0 || least >= below;
            if !(least >= 0 && greatest < below) {
                bounds.push(bound);
            }
        }
        if is_empty {
            bounds = vec![Bound { offset: 0, strides: vec![0; rank], below: 0 }];
        } else {
            let narrow = (0..rank).filter(|&d| ranges[d] != (0, shape[d]));
            bounds.extend(narrow.map(|d| Bound::dimension(rank, d, ranges[d])));
        }
        bounds.sort();
        bounds.dedup();
        Access { bounds, ..self }
    }

    /// Whether any bound depends on dimension `d`.
    pub fn is_bounded(&self, d: usize) -> bool {
        self.bounds.iter().any(|bound| bound.strides[d] != 0)
    }

    /// For each dimension of `space` the range in which the bounds on it alone hold, and the bounds on several.
    pub fn ranges(&self, space: &[usize]) -> (Vec<(usize, usize)>, Vec<&Bound>) {
        let mut ranges: Vec<(usize, usize)> = space.iter().map(|&size| (0, size)).collect();
        let mut joint = Vec::new();
        for bound in &self.bounds {
            match bound.only_dimension() {
                Some(d) => {
                    let (lo, hi) = solve(bound.offset, bound.strides[d], bound.below, space[d]);
                    ranges[d] = (ranges[d].0.max(lo), ranges[d].1.min(hi));
                }
                None => joint.push(bound),
            }
        }
        (ranges, joint)
    }

    /// The element of a point, or `None` outside the bounds. Slow: for tests and verification.
    pub fn element(&self, point: &[usize]) -> Option<i128> {
        let inside = self.bounds.iter().all(|bound| bound.holds(point));
        inside.then(|| linear(self.offset, &self.strides, point))
    }

    /// Bounds on the least and greatest element that points of `space` inside the bounds are at, or `None` where no
    /// point is inside. Exact where no two bounds on several dimensions share one; wider else, never narrower.
    ///
    /// # Errors
    /// Where the ranks differ or the arithmetic overflows: the access may come from an untrusted file.
    pub fn element_range(&self, space: &[usize]) -> Result<Option<(isize, isize)>, Overflow> {
        let rank = space.len();
        if self.strides.len() != rank || self.bounds.iter().any(|bound| bound.strides.len() != rank) {
            return Err(Overflow);
        }
        if space.iter().any(|&size| size > 1 << 32) || rank > 64 {
            return Err(Overflow);
        }
        let (ranges, joint) = self.ranges(space);
        if ranges.iter().any(|&(lo, hi)| lo >= hi) {
            return Ok(None);
        }
        let (mut least, mut greatest) = (self.offset as i128, self.offset as i128);
        let mut rest = self.strides.clone();
        for bound in joint {
            let (from, to) = range_of(bound.offset, &bound.strides, &ranges);
            let (from, to) = (from.max(0), to.min(bound.below as i128 - 1));
            if from > to {
                return Ok(None);
            }
            // Where the map has a multiple of the bound's sum as a part, that part is bounded as the sum is.
            let Some(first) = (0..rank).find(|&d| bound.strides[d] != 0) else { continue };
            let Some(weight) = rest[first].checked_div(bound.strides[first]) else { continue };
            let is_part = (0..rank)
                .filter(|&d| bound.strides[d] != 0)
                .all(|d| rest[d] != 0 && rest[d] as i128 == weight as i128 * bound.strides[d] as i128);
            if is_part {
                let (a, b) = (weight as i128 * from, weight as i128 * to);
                let base = weight as i128 * bound.offset as i128;
                least += a.min(b) - base;
                greatest += a.max(b) - base;
                (0..rank).filter(|&d| bound.strides[d] != 0).for_each(|d| rest[d] = 0);
            }
        }
        let (a, b) = range_of(0, &rest, &ranges);
        let narrow = |x: i128| isize::try_from(x).map_err(|_| Overflow);
        Ok(Some((narrow(least + a)?, narrow(greatest + b)?)))
    }
}

/// The least and greatest value of a sum over points within `ranges`, none of which is empty.
fn range_of(offset: isize, strides: &[isize], ranges: &[(usize, usize)]) -> (i128, i128) {
    let (mut least, mut greatest) = (offset as i128, offset as i128);
    for (&stride, &(lo, hi)) in strides.iter().zip(ranges) {
        let (a, b) = (stride as i128 * lo as i128, stride as i128 * (hi.max(1) - 1).max(lo) as i128);
        least += a.min(b);
        greatest += a.max(b);
    }
    (least, greatest)
}

/// The range of `i < size` with `0 ≤ offset + stride·i < below`, for a stride other than 0; `(0, 0)` where it is empty.
pub fn solve(offset: isize, stride: isize, below: usize, size: usize) -> (usize, usize) {
    let (offset, stride, below) = (offset as i128, stride as i128, below as i128);
    // `first ≤ stride·i ≤ last`
    let (first, last) = (-offset, below - 1 - offset);
    let (lo, hi) = if stride > 0 {
        (first.div_euclid(stride) + i128::from(first.rem_euclid(stride) != 0), last.div_euclid(stride) + 1)
    } else {
        let (first, last, stride) = (-last, -first, -stride);
        (first.div_euclid(stride) + i128::from(first.rem_euclid(stride) != 0), last.div_euclid(stride) + 1)
    };
    let (lo, hi) = (lo.clamp(0, size as i128), hi.clamp(0, size as i128));
    if lo < hi { (lo as usize, hi as usize) } else { (0, 0) }
}

/// Runs of dimensions of two shapes with equal products, outermost first, without dimensions of size 1.
fn matching_runs(shape: &[usize], to: &[usize]) -> Option<Vec<(Vec<usize>, Vec<usize>)>> {
    let old: Vec<usize> = (0..shape.len()).filter(|&d| shape[d] != 1).collect();
    let new: Vec<usize> = (0..to.len()).filter(|&d| to[d] != 1).collect();
    let mut runs = Vec::new();
    let (mut i, mut j) = (0, 0);
    while i < old.len() && j < new.len() {
        let (i0, j0) = (i, j);
        let (mut a, mut b) = (shape[old[i]], to[new[j]]);
        (i, j) = (i + 1, j + 1);
        while a != b {
            if a < b {
                a *= shape[*old.get(i)?];
                i += 1;
            } else {
                b *= to[*new.get(j)?];
                j += 1;
            }
        }
        runs.push((old[i0..i].to_vec(), new[j0..j].to_vec()));
    }
    (i == old.len() && j == new.len()).then_some(runs)
}

/// An access whose arithmetic does not fit, or that is of another rank than its index space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the access does not fit its index space")]
pub struct Overflow;

/// The shape with its reduced dimensions set to 1.
pub fn kept_shape(space: &[usize], reduced: &[bool]) -> Shape {
    space.iter().zip(reduced).map(|(&size, &r)| if r { 1 } else { size }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn points(space: &[usize]) -> impl Iterator<Item = Vec<usize>> + '_ {
        (0..space.iter().product::<usize>()).map(move |mut rest| {
            let mut point = vec![0; space.len()];
            for d in (0..space.len()).rev() {
                point[d] = rest % space[d];
                rest /= space[d];
            }
            point
        })
    }

    fn access() -> impl Strategy<Value = (Access, Vec<usize>)> {
        prop::collection::vec(1usize..5, 1..4).prop_flat_map(|space| {
            let rank = space.len();
            let map = || (-6isize..6, prop::collection::vec(-4isize..5, rank));
            let bound = (map(), 0usize..9).prop_map(|((offset, strides), below)| Bound { offset, strides, below });
            (map(), prop::collection::vec(bound, 0..3), Just(space))
                .prop_map(|((offset, strides), bounds, space)| (Access { offset, strides, bounds }, space))
        })
    }

    proptest! {
        #[test]
        fn no_element_is_outside_of_the_range((access, space) in access()) {
            let range = access.element_range(&space).unwrap();
            for element in points(&space).filter_map(|point| access.element(&point)) {
                let (least, greatest) = range.expect("a point is inside");
                prop_assert!((least as i128..=greatest as i128).contains(&element));
            }
        }

        #[test]
        fn normalising_keeps_every_point((access, space) in access()) {
            let normal = access.clone().normalised(&space);
            for point in points(&space) {
                prop_assert_eq!(access.element(&point), normal.element(&point), "{:?} at {:?}", normal, point);
            }
            prop_assert_eq!(normal.clone().normalised(&space), normal);
        }

        #[test]
        fn the_solution_of_a_bound_is_its_points(
            offset in -9isize..9, stride in prop::sample::select(vec![-3isize, -2, -1, 1, 2, 3]), below in 0usize..9, size in 1usize..9,
        ) {
            let inside: Vec<usize> =
                (0..size).filter(|&i| (0..below as isize).contains(&(offset + stride * i as isize))).collect();
            let (lo, hi) = solve(offset, stride, below, size);
            prop_assert_eq!((lo..hi).collect::<Vec<_>>(), inside);
        }
    }

    /// A 3×3 window with padding 1 over a 5×5 plane reads 0..25, though the map alone goes from −6 to 30.
    #[test]
    fn the_range_of_a_window_is_exact() {
        let space = [5, 5, 3, 3];
        let row = Bound { offset: -1, strides: vec![1, 0, 1, 0], below: 5 };
        let column = Bound { offset: -1, strides: vec![0, 1, 0, 1], below: 5 };
        let window = Access { offset: -6, strides: vec![5, 1, 5, 1], bounds: vec![row, column] };
        assert_eq!(window.element_range(&space), Ok(Some((0, 24))));
        let unbounded = Access { bounds: Vec::new(), ..window };
        assert_eq!(unbounded.element_range(&space), Ok(Some((-6, 30))));
    }

    #[test]
    fn any_order_of_dimensions_fills_a_buffer() {
        assert!(Access::contiguous(&[3, 4, 5]).is_bijective(&[3, 4, 5]));
        assert!(Access::ordered(&[3, 1, 5], &[2, 0, 1]).is_bijective(&[3, 1, 5]));
        let twice = Access { strides: vec![0, 1], ..Access::contiguous(&[3, 4]) };
        assert!(!twice.is_bijective(&[3, 4]));
        let gap = Access { strides: vec![5, 1], ..Access::contiguous(&[3, 4]) };
        assert!(!gap.is_bijective(&[3, 4]));
    }
}
