//! What is near to what: precision and recall, and the training images that samples are nearest to.

use super::Matrix;
use super::pairs::{BLOCK, Points, blocks, on_threads};
use serde::Serialize;

/// The number of neighbours whose distance makes a region around a feature.
pub const NEIGHBOURS: usize = 3;

/// The part of the samples that lie where real images do, and the part of the real images that lie where samples do.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PrecisionRecall {
    pub precision: f64,
    pub recall: f64,
}

/// The squared distance of each feature `[width, count]` to its third nearest other one.
pub fn squared_radii(features: &Matrix, threads: usize) -> Vec<f64> {
    let points = Points::new(features);
    let blocks = blocks(points.len());
    let of_block = |own: &std::ops::Range<usize>| {
        let mut nearest = vec![[f64::INFINITY; NEIGHBOURS]; own.len()];
        for others in &blocks {
            let distances = points.squared_distances(own, &points, others);
            for (column, other) in distances.column_iter().zip(others.clone()) {
                for ((list, &distance), i) in nearest.iter_mut().zip(column.iter()).zip(own.clone()) {
                    if i != other && distance < list[NEIGHBOURS - 1] {
                        // Sorted: what is farther moves on by one.
                        let place = list.partition_point(|&known| known <= distance);
                        list[place..].rotate_right(1);
                        list[place] = distance;
                    }
                }
            }
        }
        nearest.into_iter().map(|list| list[NEIGHBOURS - 1]).collect::<Vec<_>>()
    };
    on_threads(threads, blocks.len(), |task| of_block(&blocks[task])).concat()
}

/// Precision and recall of Kynkäänniemi, Karras, Laine, Lehtinen & Aila ("Improved Precision and Recall Metric for Assessing
/// Generative Models", 2019, equations 1 and 2): around each feature of a set is a ball as far as its third nearest
/// neighbour in that set; precision is the part of the samples in any ball of the real images, recall the part of the
/// real images in any ball of the samples. Both with their [`squared_radii`].
pub fn precision_recall(real: (&Matrix, &[f64]), made: (&Matrix, &[f64]), threads: usize) -> PrecisionRecall {
    let (real_points, made_points) = (Points::new(real.0), Points::new(made.0));
    let (real_blocks, made_blocks) = (blocks(real_points.len()), blocks(made_points.len()));
    let parts = on_threads(threads, made_blocks.len(), |task| {
        let own = &made_blocks[task];
        let (mut hits, mut reached) = (vec![false; own.len()], vec![false; real_points.len()]);
        for others in &real_blocks {
            let distances = made_points.squared_distances(own, &real_points, others);
            for (column, other) in distances.column_iter().zip(others.clone()) {
                for ((hit, &distance), radius) in hits.iter_mut().zip(column.iter()).zip(&made.1[own.clone()]) {
                    *hit |= distance <= real.1[other];
                    reached[other] |= distance <= *radius;
                }
            }
        }
        (hits, reached)
    });
    let hits = parts.iter().flat_map(|(hits, _)| hits).filter(|hit| **hit).count();
    let recalled = (0..real_points.len()).filter(|&i| parts.iter().any(|(_, reached)| reached[i])).count();
    PrecisionRecall {
        precision: hits as f64 / made_points.len() as f64,
        recall: recalled as f64 / real_points.len() as f64,
    }
}

/// A training image that is nearest to another image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Nearest {
    /// Its number.
    pub index: usize,
    /// The square root of the mean squared difference of their pixels, which go from 0 to 1.
    pub distance: f64,
}

/// The nearest training image of each image, in pixels; the first of those that are equally near. Images are bytes,
/// `pixels` for each. `own[i]` is the number that image `i` itself has among the training images, which then does not count.
pub fn nearest(images: &[u8], training: &[u8], pixels: usize, own: Option<&[u32]>, threads: usize) -> Vec<Nearest> {
    // Sums of squares of whole numbers: f64 has them exactly, so neither blocks nor instructions make a difference.
    let columns =
        |bytes: &[u8]| Matrix::from_iterator(pixels, bytes.len() / pixels, bytes.iter().map(|&b| f64::from(b)));
    let images = columns(images);
    let points = Points::new(&images);
    let all = 0..points.len();
    let parts = on_threads(threads, training.len().div_ceil(BLOCK * pixels), |task| {
        let start = task * BLOCK;
        let bytes = &training[start * pixels..training.len().min((start + BLOCK) * pixels)];
        let block = columns(bytes);
        let others = Points::new(&block);
        let distances = points.squared_distances(&all, &others, &(0..others.len()));
        let mut best = vec![(f64::INFINITY, 0); points.len()];
        for (column, other) in distances.column_iter().zip(start..) {
            for (i, (best, &distance)) in best.iter_mut().zip(column.iter()).enumerate() {
                if distance < best.0 && own.is_none_or(|own| own[i] as usize != other) {
                    *best = (distance, other);
                }
            }
        }
        best
    });
    let first = |a: (f64, usize), b: (f64, usize)| if b.0 < a.0 { b } else { a };
    all.map(|i| {
        let (squared, index) = parts.iter().map(|part| part[i]).fold((f64::INFINITY, 0), first);
        Nearest { index, distance: (squared / pixels as f64).sqrt() / 255.0 }
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(count: usize, offset: f64) -> Matrix {
        Matrix::from_fn(3, count, |i, j| ((i * 7 + j * 13) as f64 * 0.37).sin() + offset)
    }

    /// By the definition, one distance after the other.
    #[test]
    fn radii_are_those_of_the_third_neighbour() {
        let points = points(BLOCK + 40, 0.0);
        let found = squared_radii(&points, 2);
        for i in [0, 1, BLOCK - 1, BLOCK, BLOCK + 39] {
            let mut all: Vec<f64> = (0..points.ncols())
                .filter(|&j| j != i)
                .map(|j| (points.column(i) - points.column(j)).norm_squared())
                .collect();
            all.sort_by(f64::total_cmp);
            assert!((found[i] - all[2]).abs() < 1e-12);
        }
        assert_eq!(found, squared_radii(&points, 1));
    }

    #[test]
    fn what_is_elsewhere_is_neither_precise_nor_recalled() {
        let (a, b) = (points(90, 0.0), points(60, 100.0));
        let (ra, rb) = (squared_radii(&a, 1), squared_radii(&b, 1));
        let with = |x, y| precision_recall(x, y, 2);
        assert_eq!(with((&a, &ra), (&b, &rb)), PrecisionRecall { precision: 0.0, recall: 0.0 });
        assert_eq!(with((&a, &ra), (&a, &ra)), PrecisionRecall { precision: 1.0, recall: 1.0 });
        // Four samples at one place: precise, and all else is missed.
        let one = Matrix::from_columns(&[a.column(0); 4]);
        let found = with((&a, &ra), (&one, &squared_radii(&one, 1)));
        assert!(found.precision == 1.0 && found.recall < 0.1, "{found:?}");
    }

    #[test]
    fn the_nearest_training_image_is_found() {
        let training: Vec<u8> = (0..2 * (BLOCK + 3)).map(|i| (i % 251) as u8).collect();
        let images = [&training[2 * (BLOCK + 1)..][..2], &[255, 0]].concat();
        let found = nearest(&images, &training, 2, None, 2);
        assert_eq!((found[0].index, found[0].distance), (nearest_by_hand(&images[..2], &training), 0.0));
        assert_eq!(found[1].index, nearest_by_hand(&images[2..], &training));
        let other = nearest(&images[..2], &training[..], 2, Some(&[found[0].index as u32]), 1);
        assert_ne!(other[0].index, found[0].index);
    }

    fn nearest_by_hand(image: &[u8], training: &[u8]) -> usize {
        let square = |a: u8, b: u8| (i64::from(a) - i64::from(b)).pow(2);
        let distances = training.chunks(2).map(|t| square(t[0], image[0]) + square(t[1], image[1]));
        distances.enumerate().min_by_key(|(i, d)| (*d, *i)).unwrap().0
    }
}
