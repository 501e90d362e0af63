//! Strided views: how an index space reads a row-major buffer.
//!
//! Movement operations never move anything inside a kernel: each is applied to the view through which
//! a leaf of the kernel's expression reads its buffer.

use crate::ir::Shape;
use serde::{Deserialize, Serialize};

/// An affine map from the points of an index space to the elements of a row-major buffer.
///
/// The element of point `i` is at `offset + Σ i[d]·strides[d]`; a point outside `mask` reads 0.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct View {
    pub offset: isize,
    /// One for each dimension of the index space, in elements; 0 repeats.
    pub strides: Vec<isize>,
    /// The valid range `lo..hi` of each dimension, where some points are outside.
    pub mask: Option<Vec<(usize, usize)>>,
}

/// The row-major strides of `shape`, with 0 where a dimension has size 1.
pub fn contiguous_strides(shape: &[usize]) -> Vec<isize> {
    let mut strides = vec![0; shape.len()];
    let mut stride = 1isize;
    for (s, &size) in strides.iter_mut().zip(shape).rev() {
        *s = if size == 1 { 0 } else { stride };
        stride *= size as isize;
    }
    strides
}

impl View {
    /// The view of a whole buffer by its own shape. Dimensions of size 1 have stride 0, so that equal
    /// maps are equal views.
    pub fn contiguous(shape: &[usize]) -> View {
        View { offset: 0, strides: contiguous_strides(shape), mask: None }
    }

    /// Whether every point of `shape` reads the element at its own row-major position.
    pub fn is_contiguous(&self, shape: &[usize]) -> bool {
        *self == View::contiguous(shape)
    }

    /// The view with its dimensions permuted: dimension `d` of the result is `permutation[d]`.
    pub fn permuted(&self, permutation: &[usize]) -> View {
        View {
            offset: self.offset,
            strides: permutation.iter().map(|&p| self.strides[p]).collect(),
            mask: self.mask.as_ref().map(|m| permutation.iter().map(|&p| m[p]).collect()),
        }
    }

    /// The view with dimensions of size 1 of `shape` repeated to the sizes of `to`.
    pub fn broadcast(&self, shape: &[usize], to: &[usize]) -> View {
        let mut mask = self.mask.clone();
        if let Some(mask) = &mut mask {
            for d in 0..to.len() {
                if shape[d] != to[d] {
                    // A repeated dimension is inside wherever its one element is.
                    mask[d] = if mask[d] == (0, 1) { (0, to[d]) } else { (0, 0) };
                }
            }
        }
        View { mask, ..self.clone() }
    }

    /// The view with the order along `axes` reversed.
    pub fn reversed(&self, shape: &[usize], axes: &[usize]) -> View {
        let mut view = self.clone();
        for &d in axes {
            view.offset += view.strides[d] * (shape[d] as isize - 1);
            view.strides[d] = -view.strides[d];
            if let Some(mask) = &mut view.mask {
                mask[d] = (shape[d] - mask[d].1, shape[d] - mask[d].0);
            }
        }
        view.normalised(shape)
    }

    /// Point `i` of the result reads point `i + by(d)` of this view; what lies outside `shape` is 0.
    pub fn shifted(&self, shape: &[usize], to: &[usize], by: impl Fn(usize) -> isize) -> View {
        let mut view = self.clone();
        let mut mask = Vec::with_capacity(to.len());
        for d in 0..to.len() {
            view.offset += self.strides[d] * by(d);
            let (lo, hi) = self.mask.as_ref().map_or((0, shape[d]), |m| m[d]);
            let moved = |x: usize| (x as isize - by(d)).clamp(0, to[d] as isize) as usize;
            mask.push((moved(lo), moved(hi)));
        }
        view.mask = Some(mask);
        view.normalised(to)
    }

    /// A full mask is no mask, and a dimension of size 1 has stride 0.
    fn normalised(mut self, shape: &[usize]) -> View {
        if self.mask.as_ref().is_some_and(|m| m.iter().zip(shape).all(|(&(lo, hi), &size)| lo == 0 && hi == size)) {
            self.mask = None;
        }
        for (stride, &size) in self.strides.iter_mut().zip(shape) {
            if size == 1 {
                *stride = 0;
            }
        }
        self
    }

    /// The view under another shape of as many elements: runs of dimensions of `shape` and of `to`
    /// with equal products are matched, and each run of `shape` must be one stride apart within.
    pub fn reshaped(&self, shape: &[usize], to: &[usize]) -> Option<View> {
        let mut strides = vec![0isize; to.len()];
        let mut mask: Vec<(usize, usize)> = to.iter().map(|&size| (0, size)).collect();
        let mut masked_out = false;
        // Dimensions of size 1 say nothing about strides; but their mask may exclude everything.
        let old: Vec<usize> = (0..shape.len()).filter(|&d| shape[d] != 1).collect();
        let new: Vec<usize> = (0..to.len()).filter(|&d| to[d] != 1).collect();
        if let Some(m) = &self.mask {
            masked_out = (0..shape.len()).any(|d| m[d].0 >= m[d].1);
        }
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
            let run = &old[i0..i];
            if !run.windows(2).all(|w| self.strides[w[0]] == self.strides[w[1]] * shape[w[1]] as isize) {
                return None;
            }
            if let Some(m) = &self.mask
                && run.iter().any(|&d| m[d] != (0, shape[d]))
            {
                if i - i0 > 1 || j - j0 > 1 {
                    return None;
                }
                mask[new[j0]] = m[run[0]];
            }
            let mut stride = self.strides[run[run.len() - 1]];
            for &d in new[j0..j].iter().rev() {
                strides[d] = stride;
                stride *= to[d] as isize;
            }
        }
        if i < old.len() || j < new.len() {
            return None;
        }
        if masked_out {
            match mask.first_mut() {
                Some(first) => *first = (0, 0),
                None => return None,
            }
        }
        Some(View { offset: self.offset, strides, mask: Some(mask) }.normalised(to))
    }

    /// Whether dimension `d` (of `size`) has points outside the mask.
    pub fn masks(&self, d: usize, size: usize) -> bool {
        self.mask.as_ref().is_some_and(|m| m[d] != (0, size))
    }

    /// The least and greatest element that points of `space` inside the mask read, or `None` where no
    /// point is inside. `Err` on overflow: the view may come from an untrusted file.
    pub fn element_range(&self, space: &[usize]) -> Result<Option<(isize, isize)>, Overflow> {
        if self.strides.len() != space.len() || self.mask.as_ref().is_some_and(|m| m.len() != space.len()) {
            return Err(Overflow);
        }
        let (mut least, mut greatest) = (self.offset, self.offset);
        for d in 0..space.len() {
            let (lo, hi) = self.mask.as_ref().map_or((0, space[d]), |m| m[d]);
            if hi > space[d] {
                return Err(Overflow);
            }
            if lo >= hi {
                return Ok(None);
            }
            let at = |i: usize| isize::try_from(i).ok().and_then(|i| i.checked_mul(self.strides[d])).ok_or(Overflow);
            let (a, b) = (at(lo)?, at(hi - 1)?);
            least = least.checked_add(a.min(b)).ok_or(Overflow)?;
            greatest = greatest.checked_add(a.max(b)).ok_or(Overflow)?;
        }
        Ok(Some((least, greatest)))
    }
}

/// A view whose arithmetic does not fit, or that is of another rank than its index space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the view does not fit its index space")]
pub struct Overflow;

/// The shape with dimensions `axes` set to 1.
pub fn kept_shape(space: &[usize], reduced: &[bool]) -> Shape {
    space.iter().zip(reduced).map(|(&size, &r)| if r { 1 } else { size }).collect()
}
