//! The Fréchet distance between two sets of features.

use super::Matrix;
use nalgebra::{DVector, SymmetricEigen};

/// Mean and covariance of features.
#[derive(Debug, Clone, PartialEq)]
pub struct Gaussian {
    mean: DVector<f64>,
    covariance: Matrix,
}

impl Gaussian {
    /// Of features `[width, count]`, one example a column. The covariance is divided by `count - 1`, as of a sample.
    pub fn of(features: &Matrix) -> Gaussian {
        let mean = features.column_mean();
        let mut centred = features.clone();
        centred.column_iter_mut().for_each(|mut column| column -= &mean);
        let covariance = &centred * centred.transpose() / (features.ncols().max(2) - 1) as f64;
        Gaussian { mean, covariance }
    }

    /// The Fréchet distance of two normal distributions:
    /// |μ₁ - μ₂|² + tr(Σ₁ + Σ₂ - 2(Σ₁Σ₂)^½)
    /// (Heusel, Ramsauer, Unterthiner, Nessler & Hochreiter, "GANs Trained by a Two Time-Scale Update Rule Converge to a
    /// Local Nash Equilibrium", 2017, equation 6).
    ///
    /// Σ₁Σ₂ is not symmetric. It has the eigenvalues of Σ₁^½Σ₂Σ₁^½, which is, and the trace of the root is the sum of
    /// their roots. What rounding makes negative is 0.
    pub fn distance(&self, other: &Gaussian) -> f64 {
        let root = square_root(&self.covariance);
        let product = &root * &other.covariance * &root;
        // Its two halves differ by rounding.
        let symmetric = (&product + product.transpose()) / 2.0;
        let trace: f64 = symmetric.symmetric_eigenvalues().iter().map(|value| value.max(0.0).sqrt()).sum();
        let means = (&self.mean - &other.mean).norm_squared();
        (means + self.covariance.trace() + other.covariance.trace() - 2.0 * trace).max(0.0)
    }
}

/// The root of a symmetric matrix without negative eigenvalues.
fn square_root(matrix: &Matrix) -> Matrix {
    let SymmetricEigen { eigenvectors, eigenvalues } = matrix.clone().symmetric_eigen();
    let roots = eigenvalues.map(|value| value.max(0.0).sqrt());
    &eigenvectors * Matrix::from_diagonal(&roots) * eigenvectors.transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In one dimension it is (μ₁ - μ₂)² + (σ₁ - σ₂)².
    #[test]
    fn in_one_dimension_it_is_known() {
        let a = Gaussian::of(&Matrix::from_row_slice(1, 2, &[-1.0, 1.0]));
        let b = Gaussian::of(&Matrix::from_row_slice(1, 2, &[1.0, 7.0]));
        let deviations = 2f64.sqrt() - 18f64.sqrt();
        assert!((a.distance(&b) - (16.0 + deviations * deviations)).abs() < 1e-12);
    }

    /// A distance: none of a set from itself, the same both ways, and defined where features never vary.
    #[test]
    fn it_is_a_distance() {
        let wave = |i: usize, j: usize| (i as f64 * 1.3 + j as f64 * 0.7).sin();
        let a = Matrix::from_fn(5, 40, |i, j| if i == 2 { 0.0 } else { wave(i, j * j) });
        let b = Matrix::from_fn(5, 30, |i, j| if i == 2 { 0.0 } else { 2.0 * wave(j * j, i) + 0.1 });
        let (a, b) = (Gaussian::of(&a), Gaussian::of(&b));
        assert!(a.distance(&a) < 1e-12);
        assert!(a.distance(&b) > 0.1);
        // Waves have few dimensions: other eigenvalues are 0 up to rounding, whose root is 1e-8.
        assert!((a.distance(&b) - b.distance(&a)).abs() < 1e-6);
    }
}
