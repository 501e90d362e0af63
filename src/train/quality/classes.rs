//! What a classifier says of images: how sure it is, and how many of each class there are.

use super::Matrix;
use serde::Serialize;

/// The part of an even share that a class must have to count as covered.
pub const COVERED: f64 = 0.1;

/// The classes that a classifier sees in images.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Classes {
    /// Images of each class.
    pub counts: Vec<usize>,
    /// Classes with a tenth of an even share or more.
    pub covered: usize,
    /// Shannon's entropy of the counts, divided by that of even ones: 1 where all classes are as frequent.
    pub balance: f64,
}

/// The class of each example: the largest logit's, the first of several. `logits` are `[classes, count]`.
pub fn predicted(logits: &Matrix) -> Vec<usize> {
    let largest =
        |best: usize, i: usize, column: &nalgebra::DVectorView<f64>| if column[i] > column[best] { i } else { best };
    logits.column_iter().map(|column| (0..column.len()).fold(0, |best, i| largest(best, i, &column))).collect()
}

/// The order in which images stand by their classes, those of one class by how sure the classifier is, the surest first.
pub fn order(logits: &Matrix) -> Vec<usize> {
    let classes = predicted(logits);
    // What all other classes weigh beside the likeliest: less is surer.
    let doubt = |i: usize| {
        let column = logits.column(i);
        column.iter().map(|logit| (logit - column.max()).exp()).sum::<f64>()
    };
    let mut order: Vec<usize> = (0..classes.len()).collect();
    order.sort_by(|&a, &b| classes[a].cmp(&classes[b]).then(doubt(a).total_cmp(&doubt(b))));
    order
}

impl Classes {
    pub fn of(logits: &Matrix) -> Classes {
        let mut counts = vec![0; logits.nrows()];
        predicted(logits).into_iter().for_each(|class| counts[class] += 1);
        let (total, even) = (logits.ncols() as f64, 1.0 / counts.len() as f64);
        let shares = counts.iter().map(|&count| count as f64 / total);
        let entropy: f64 = shares.clone().filter(|&p| p > 0.0).map(|p| p * (1.0 / p).ln()).sum();
        let covered = shares.filter(|&p| p >= COVERED * even).count();
        let balance = if counts.len() > 1 { entropy / (counts.len() as f64).ln() } else { 1.0 };
        Classes { counts, covered, balance }
    }
}

/// The classifier score, which is the Inception Score with this classifier in Inception's place: the exponential of the mean
/// over images of KL(p(y|x) ‖ p(y)), where p(y) is the mean of p(y|x) (Salimans, Goodfellow, Zaremba, Cheung, Radford & Chen,
/// "Improved Techniques for Training GANs", 2016, section 4). From 1 to the number of classes. `logits` are
/// `[classes, count]`; all images are taken together, where that paper took the mean over ten parts.
pub fn score(logits: &Matrix) -> f64 {
    let count = logits.ncols() as f64;
    let mut log_p = logits.clone();
    for mut column in log_p.column_iter_mut() {
        let largest = column.max();
        let total: f64 = column.iter().map(|x| (x - largest).exp()).sum();
        column.add_scalar_mut(-largest - total.ln());
    }
    let marginal = log_p.map(f64::exp).column_sum() / count;
    let divergence: f64 = (log_p.column_iter())
        .map(|column| {
            // A class that no image has has no part in any sum.
            let parts = column.iter().zip(marginal.iter()).filter(|(_, m)| **m > 0.0);
            parts.map(|(log, m)| log.exp() * (log - m.ln())).sum::<f64>()
        })
        .sum();
    (divergence / count).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sure of every image, evenly of `classes` of 4.
    fn sure(classes: usize) -> Matrix {
        Matrix::from_fn(4, 24, |i, j| if i == j % classes { 900.0 } else { 0.0 })
    }

    #[test]
    fn the_score_is_the_number_of_classes_that_are_surely_there() {
        for classes in 1..=4 {
            assert!((score(&sure(classes)) - classes as f64).abs() < 1e-9);
        }
        assert!((score(&Matrix::from_fn(4, 9, |_, j| j as f64)) - 1.0).abs() < 1e-12, "sure of nothing");
    }

    #[test]
    fn classes_are_counted() {
        let half = Classes::of(&sure(2));
        assert_eq!((half.counts, half.covered), (vec![12, 12, 0, 0], 2));
        // Two of class 1, the surer one first, before one of class 2.
        let logits = Matrix::from_column_slice(3, 3, &[0.0, 0.0, 5.0, 0.0, 1.0, 0.0, 0.0, 4.0, 0.0]);
        assert_eq!(order(&logits), [2, 1, 0]);
        assert!((half.balance - 0.5).abs() < 1e-12);
        assert_eq!(Classes::of(&sure(4)).balance, 1.0);
        assert_eq!(predicted(&Matrix::from_column_slice(3, 2, &[1.0, 1.0, 0.0, -3.0, -2.0, -1.0])), [0, 2]);
    }
}
