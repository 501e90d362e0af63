//! Which dimensions of a kernel's space a reduction is over, where the two are shaped differently.

use crate::tensor::Shape;

/// The dimensions of `space` that reducing `axes` of `shape` is over, where each dimension is reduced or kept as a whole.
pub fn reduced_dimensions(shape: &[usize], axes: &[usize], space: &[usize]) -> Option<Vec<bool>> {
    let runs = runs(shape, &|d| axes.contains(&d));
    let (mut run, mut left) = (0, runs.first()?.0);
    let mut reduced = Vec::with_capacity(space.len());
    for &size in space {
        if left == 1 && size != 1 {
            run += 1;
            left = runs.get(run)?.0;
        }
        if size == 0 || !left.is_multiple_of(size) {
            return None;
        }
        left /= size;
        reduced.push(size != 1 && runs[run].1);
    }
    (same_reduction(shape, axes, space, &reduced) && reduced.contains(&true)).then_some(reduced)
}

/// The dimensions of `space` with those cut in two or more that reducing `axes` of `shape`, which has as many elements, is
/// over only a part of: those of images of several calls, say. `None` where no cut does it.
pub fn cut(space: &[usize], shape: &[usize], axes: &[usize]) -> Option<Shape> {
    let mut runs = runs(shape, &|d| axes.contains(&d)).into_iter().map(|(size, _)| size);
    let mut left = 1;
    let mut found = Vec::new();
    for &size in space {
        if size == 0 {
            return None;
        }
        let mut rest = size;
        if rest == 1 {
            found.push(1);
        }
        while rest > 1 {
            if left == 1 {
                left = runs.next()?;
            }
            let part = if rest.is_multiple_of(left) { left } else { rest };
            if !left.is_multiple_of(part) {
                return None;
            }
            found.push(part);
            (left, rest) = (left / part, rest / part);
        }
    }
    (left == 1 && runs.next().is_none()).then_some(found)
}

/// A space's dimensions without sizes of 1, neighbours alike merged: their sizes, and whether they are reduced.
fn runs(shape: &[usize], is_reduced: &dyn Fn(usize) -> bool) -> Vec<(usize, bool)> {
    let mut runs: Vec<(usize, bool)> = Vec::new();
    for (d, &size) in shape.iter().enumerate().filter(|(_, size)| **size != 1) {
        match runs.last_mut() {
            Some((total, r)) if *r == is_reduced(d) => *total *= size,
            _ => runs.push((size, is_reduced(d))),
        }
    }
    runs
}

/// Whether reducing `axes` of `shape` runs over the same points in the same order as reducing the
/// flagged dimensions of `space`: equal after dropping sizes of 1 and merging neighbours alike.
pub fn same_reduction(shape: &[usize], axes: &[usize], space: &[usize], reduced: &[bool]) -> bool {
    runs(shape, &|d| axes.contains(&d)) == runs(space, &|d| reduced[d])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_space_is_cut_where_a_reduction_is_over_a_part_of_a_dimension() {
        // Two calls of 128 images each; the same of rows that were images in the graph.
        let calls = cut(&[256, 64, 7, 7], &[2, 128, 64, 7, 7], &[1, 3, 4]).unwrap();
        assert_eq!(calls, [2, 128, 64, 7, 7]);
        let reduced = reduced_dimensions(&[2, 128, 64, 7, 7], &[1, 3, 4], &calls).unwrap();
        assert_eq!(reduced, [false, true, false, true, true]);
        let rows = cut(&[1, 256, 3136], &[2, 128, 64, 7, 7], &[1]).unwrap();
        assert_eq!(rows, [1, 2, 128, 3136]);
        assert_eq!(reduced_dimensions(&[2, 128, 64, 7, 7], &[1], &rows).unwrap(), [false, false, true, false]);
    }

    #[test]
    fn a_space_of_whole_dimensions_stays() {
        assert_eq!(cut(&[8, 3, 5, 5], &[8, 3, 5, 5], &[0, 2, 3]).unwrap(), [8, 3, 5, 5]);
        assert_eq!(cut(&[1, 8, 75], &[8, 3, 5, 5], &[0]).unwrap(), [1, 8, 75]);
        assert_eq!(reduced_dimensions(&[8, 75], &[0, 1], &[1, 8, 75]).unwrap(), [false, true, true]);
    }

    #[test]
    fn dimensions_that_overlap_are_refused() {
        // Six rows of four against four of six.
        assert_eq!(cut(&[6, 4], &[4, 6], &[1]), None);
        assert_eq!(cut(&[6, 4], &[5, 5], &[1]), None);
        assert_eq!(reduced_dimensions(&[4, 6], &[1], &[6, 4]), None);
        assert_eq!(reduced_dimensions(&[1, 1], &[0], &[1, 1]), None, "nothing is reduced");
    }
}
