//! The kernel distance between two sets of features.

use super::Matrix;
use super::pairs::on_threads;
use crate::train::batches::permutation;
use serde::Serialize;

/// Subsets that are compared.
pub const SUBSETS: usize = 100;
/// Most features in a subset.
pub const SUBSET_SIZE: usize = 1000;
/// The seeds of the choice of subsets. They are fixed: the same features have the same distance.
const SEEDS: [u64; 2] = [1, 2];

/// The mean over subsets, and its spread: the standard deviation from subset to subset.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct KernelDistance {
    pub mean: f64,
    pub spread: f64,
}

/// How many of `real` and `made` features are in a subset: half of them where there are few, so that subsets differ.
pub fn subset_size(real: usize, made: usize) -> usize {
    SUBSET_SIZE.min(real / 2).min(made / 2)
}

/// Which features are in subset number `subset`: of the real ones, and of those made.
pub fn subset(real: usize, made: usize, subset: usize) -> [Vec<u32>; 2] {
    let size = subset_size(real, made);
    let chosen = |count: usize, seed: u64| {
        let mut order = permutation(count, seed, subset as u64);
        order.truncate(size);
        order
    };
    [chosen(real, SEEDS[0]), chosen(made, SEEDS[1])]
}

/// The squared maximum mean discrepancy of features `[width, count]` under the kernel k(x, y) = (xᵀy/width + 1)³, by its
/// unbiased estimate on subsets, as Bińkowski, Sutherland, Arbel & Gretton have it ("Demystifying MMD GANs", 2018,
/// equation 4 and section 4): of m real features x and as many made y
///
/// Σ_{i≠j} k(xᵢ, xⱼ) / m(m-1) + Σ_{i≠j} k(yᵢ, yⱼ) / m(m-1) - 2 Σ k(xᵢ, yⱼ) / m²
///
/// It may be below 0, since its mean is not. Needs four features of each at least.
pub fn kernel_distance(real: &Matrix, made: &Matrix, threads: usize) -> KernelDistance {
    let estimates = on_threads(threads, SUBSETS, |number| {
        let [x, y] = subset(real.ncols(), made.ncols(), number);
        estimate(&select(real, &x), &select(made, &y))
    });
    let mean = estimates.iter().sum::<f64>() / SUBSETS as f64;
    let variance = estimates.iter().map(|e| (e - mean) * (e - mean)).sum::<f64>() / (SUBSETS - 1) as f64;
    KernelDistance { mean, spread: variance.sqrt() }
}

fn select(features: &Matrix, columns: &[u32]) -> Matrix {
    Matrix::from_columns(&columns.iter().map(|&c| features.column(c as usize)).collect::<Vec<_>>())
}

/// The estimate of [`kernel_distance`] on one subset: of as many features `x` as `y`, two at least.
pub fn estimate(x: &Matrix, y: &Matrix) -> f64 {
    let m = x.ncols() as f64;
    let (xt, yt) = (x.transpose(), y.transpose());
    let width = x.nrows() as f64;
    let sum = |products: Matrix| products.iter().map(|product| (product / width + 1.0).powi(3)).sum::<f64>();
    let with_itself =
        |points: &Matrix| points.column_iter().map(|p| (p.norm_squared() / width + 1.0).powi(3)).sum::<f64>();
    let pairs = m * (m - 1.0);
    (sum(&xt * x) - with_itself(x)) / pairs + (sum(yt * y) - with_itself(y)) / pairs - 2.0 * sum(xt * y) / (m * m)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_is_that_of_the_definition() {
        let (x, y) = (Matrix::from_row_slice(1, 2, &[0.0, 1.0]), Matrix::from_row_slice(1, 2, &[1.0, 2.0]));
        // k(0, 1) = 1, k(1, 2) = 27; k(0, ·) = 1 twice, k(1, 1) = 8, k(1, 2) = 27.
        assert!((estimate(&x, &y) - (1.0 + 27.0 - 2.0 * 37.0 / 4.0)).abs() < 1e-12);
    }

    #[test]
    fn subsets_differ_and_hold_nothing_twice() {
        let [a, b] = subset(50, 40, 0);
        assert_eq!((a.len(), b.len()), (20, 20));
        let [c, _] = subset(50, 40, 1);
        assert_ne!(a, c);
        let unique: std::collections::BTreeSet<_> = a.iter().collect();
        assert!(unique.len() == 20 && a.iter().all(|&i| i < 50));
        assert_eq!(subset_size(10_000, 10_000), 1000);
    }

    #[test]
    fn threads_change_no_bit_and_equal_sets_are_close() {
        let wave = |i: usize, j: usize| ((i * 31 + j * 17) as f64).sin();
        let (a, b) = (Matrix::from_fn(6, 80, wave), Matrix::from_fn(6, 90, |i, j| wave(i, j + 1000)));
        let far = b.map(|x| x + 1.0);
        assert_eq!(kernel_distance(&a, &b, 1), kernel_distance(&a, &b, 3));
        let (near, far) = (kernel_distance(&a, &b, 1), kernel_distance(&a, &far, 1));
        assert!(near.mean.abs() < 0.2 && far.mean > 1.0, "{near:?} {far:?}");
    }
}
