//! Reducing the lanes of tiles.

use crate::plan::ReduceKind;
use crate::scalar::{larger, simd::multiversion};

/// A plan whose nests reduce so is refused when it is loaded.
pub const SWEPT_TWICE: &str = "nests sweep twice for deviations";

/// What changes nothing that it is combined with.
pub fn identity(kind: ReduceKind) -> f32 {
    match kind {
        ReduceKind::Sum => 0.0,
        ReduceKind::Max => f32::NEG_INFINITY,
        ReduceKind::Deviations => unreachable!("{SWEPT_TWICE}"),
    }
}

/// Combines lane by lane.
pub fn combine(kind: ReduceKind, into: &mut [f32], lanes: &[f32]) {
    match kind {
        ReduceKind::Sum => combine_sum(into, lanes),
        ReduceKind::Max => combine_max(into, lanes),
        ReduceKind::Deviations => unreachable!("{SWEPT_TWICE}"),
    }
}

/// Combines each total with as many neighbouring lanes as there are for it.
pub fn fold(kind: ReduceKind, totals: &mut [f64], lanes: &[f32]) {
    match kind {
        ReduceKind::Sum => add_groups(totals, lanes),
        ReduceKind::Max => max_groups(totals, lanes),
        ReduceKind::Deviations => unreachable!("{SWEPT_TWICE}"),
    }
}

const LANES: usize = 16;

multiversion! {
    fn add_groups(totals: &mut [f64], lanes: &[f32]) {
        if totals.len() == lanes.len() {
            totals.iter_mut().zip(lanes).for_each(|(total, x)| *total += f64::from(*x));
            return;
        }
        let groups = lanes.chunks_exact(lanes.len() / totals.len());
        for (total, group) in totals.iter_mut().zip(groups) {
            *total += f64::from(sum_tree(group));
        }
    }
}

multiversion! {
    fn max_groups(totals: &mut [f64], lanes: &[f32]) {
        let groups = lanes.chunks_exact(lanes.len() / totals.len());
        for (total, group) in totals.iter_mut().zip(groups) {
            *total = larger(*total as f32, max_tree(group)).into();
        }
    }
}

multiversion! {
    pub fn sum_lanes(lanes: &[f32]) -> f32 {
        sum_tree(lanes)
    }
}

multiversion! {
    pub fn max_lanes(lanes: &[f32]) -> f32 {
        max_tree(lanes)
    }
}

/// The sum in a fixed tree: as many partial sums as the widest vectors have lanes.
#[inline(always)]
fn sum_tree(lanes: &[f32]) -> f32 {
    let mut sums = [0f32; LANES];
    let chunks = lanes.chunks_exact(LANES);
    for (sum, x) in sums.iter_mut().zip(chunks.remainder()) {
        *sum += x;
    }
    for chunk in chunks {
        for i in 0..LANES {
            sums[i] += chunk[i];
        }
    }
    for width in [8, 4, 2, 1] {
        for i in 0..width {
            sums[i] += sums[i + width];
        }
    }
    sums[0]
}

/// The largest, or NaN where there is one; in the same tree as sums, so that equal bits come out everywhere.
#[inline(always)]
fn max_tree(lanes: &[f32]) -> f32 {
    let mut largest = [f32::NEG_INFINITY; LANES];
    let chunks = lanes.chunks_exact(LANES);
    for (a, &b) in largest.iter_mut().zip(chunks.remainder()) {
        *a = larger(*a, b);
    }
    for chunk in chunks {
        for i in 0..LANES {
            largest[i] = larger(largest[i], chunk[i]);
        }
    }
    for width in [8, 4, 2, 1] {
        for i in 0..width {
            largest[i] = larger(largest[i], largest[i + width]);
        }
    }
    largest[0]
}

multiversion! {
    fn combine_sum(into: &mut [f32], lanes: &[f32]) {
        for (a, &b) in into.iter_mut().zip(lanes) {
            *a += b;
        }
    }
}

multiversion! {
    fn combine_max(into: &mut [f32], lanes: &[f32]) {
        for (a, &b) in into.iter_mut().zip(lanes) {
            *a = larger(*a, b);
        }
    }
}
