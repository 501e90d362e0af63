//! All measures of a set of images, against the real ones of a data set.

use super::classes::{self, Classes};
use super::classifier::{Classifier, Seen};
use super::frechet::Gaussian;
use super::kernel_distance::{KernelDistance, kernel_distance};
use super::neighbours::{self, Nearest, PrecisionRecall, precision_recall, squared_radii};
use super::{Images, QualityError};
use crate::train::batches::permutation;
use crate::train::data::Dataset;
use serde::Serialize;

/// Fewest images that can be measured.
pub const FEWEST: usize = 20;
/// Images that are measured where nothing else is asked for, if there are as many real ones.
pub const USUAL: usize = 10_000;
/// Images whose nearest training image is looked for.
pub const NEAREST: usize = 1000;
/// The seed of the choice of real images. It is fixed: the same samples have the same measures.
const SEED: u64 = 3;

/// What was measured of images.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measures {
    pub frechet_distance: f64,
    pub kernel_distance: KernelDistance,
    pub classifier_score: f64,
    #[serde(flatten)]
    pub precision_recall: PrecisionRecall,
    pub classes: Classes,
    /// The mean distance of the first images to the nearest training image other than themselves: see
    /// [`neighbours::nearest`]. 0 where that was not looked for.
    pub nearest_training: f64,
}

/// What was measured of generated images, and what was seen in each.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    pub measures: Measures,
    /// The class that the classifier sees in each image.
    pub predicted: Vec<usize>,
    /// The training image that each of the first [`NEAREST`] is nearest to.
    pub nearest: Vec<Nearest>,
}

/// Real images to measure others against.
pub struct Judge {
    classifier: Classifier,
    threads: usize,
    training: Images,
    /// Real images of the same number that are in no way compared with themselves, and their numbers among the training
    /// images where they are of these.
    held_out: (Images, Option<Vec<u32>>),
    reference: Seen,
    gaussian: Gaussian,
    radii: Vec<f64>,
}

impl Judge {
    /// Against as many training images as there are samples: these, or [`USUAL`] or as many as can be. Others are kept to
    /// measure real images by: test images, where there are enough, else training images.
    ///
    /// # Errors
    /// When there are too few, the classifier does not take them, or does not run.
    pub fn new(
        data: &Dataset,
        samples: Option<usize>,
        threads: usize,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Judge, QualityError> {
        let training = Images::of_split(&data.train);
        Images::check(training.shape)?;
        let most = Judge::most(data);
        if most < FEWEST {
            return Err(QualityError::TooFew { needed: 2 * FEWEST, found: training.len() });
        }
        let count = samples.unwrap_or(USUAL.min(most));
        if !(FEWEST..=most).contains(&count) {
            return Err(QualityError::Count { asked: count, least: FEWEST, most, real: training.len() });
        }
        let mut numbers = permutation(training.len(), SEED, 0);
        let held_out = match &data.test {
            Some(test) if test.len() >= count => {
                (Images::of_split(test).select(&permutation(test.len(), SEED, 1)[..count]), None)
            }
            _ => {
                let others = numbers[count..2 * count].to_vec();
                (training.select(&others), Some(others))
            }
        };
        numbers.truncate(count);
        let mut classifier = Classifier::new(threads)?;
        let reference = classifier.see(&training.select(&numbers), progress)?;
        let gaussian = Gaussian::of(&reference.features);
        let radii = squared_radii(&reference.features, threads);
        Ok(Judge { classifier, threads, training, held_out, reference, gaussian, radii })
    }

    /// The most images that can be measured against those of a data set.
    pub fn most(data: &Dataset) -> usize {
        let of_test = data.test.as_ref().map_or(0, |test| test.len().min(data.train.len()));
        of_test.max(data.train.len() / 2)
    }

    /// The number of images to measure: as many as there are real ones to compare them with.
    pub fn count(&self) -> usize {
        self.radii.len()
    }

    /// Measures generated images.
    ///
    /// # Errors
    /// When the classifier does not take them, or fails.
    pub fn measure(&mut self, images: &Images, progress: &mut dyn FnMut(usize)) -> Result<Judged, QualityError> {
        self.measure_but(images, (None, NEAREST), progress)
    }

    /// The same measures without the nearest training images, for which the most time is needed.
    ///
    /// # Errors
    /// When the classifier does not take the images, or fails.
    pub fn compare(&mut self, images: &Images) -> Result<Measures, QualityError> {
        Ok(self.measure_but(images, (None, 0), &mut |_| {})?.measures)
    }

    /// Measures real images in the same way: no samples can be expected to do better.
    ///
    /// # Errors
    /// When the classifier fails.
    pub fn floor(&mut self, progress: &mut dyn FnMut(usize)) -> Result<Measures, QualityError> {
        let (images, own) = self.held_out.clone();
        Ok(self.measure_but(&images, (own.as_deref(), NEAREST), progress)?.measures)
    }

    fn measure_but(
        &mut self,
        images: &Images,
        (own, nearest): (Option<&[u32]>, usize),
        progress: &mut dyn FnMut(usize),
    ) -> Result<Judged, QualityError> {
        let seen = self.classifier.see(images, progress)?;
        let radii = squared_radii(&seen.features, self.threads);
        let some = images.len().min(nearest) * images.pixels();
        let (training, pixels) = (&self.training.bytes, images.pixels());
        let nearest = neighbours::nearest(&images.bytes[..some], training, pixels, own, self.threads);
        let real = (&self.reference.features, &self.radii[..]);
        let measures = Measures {
            frechet_distance: self.gaussian.distance(&Gaussian::of(&seen.features)),
            kernel_distance: kernel_distance(&self.reference.features, &seen.features, self.threads),
            classifier_score: classes::score(&seen.logits),
            precision_recall: precision_recall(real, (&seen.features, &radii), self.threads),
            classes: Classes::of(&seen.logits),
            nearest_training: nearest.iter().map(|n| n.distance).sum::<f64>() / nearest.len().max(1) as f64,
        };
        Ok(Judged { measures, predicted: classes::predicted(&seen.logits), nearest })
    }

    /// The training image of a number.
    pub fn training_image(&self, number: usize) -> &[u8] {
        let pixels = self.training.pixels();
        &self.training.bytes[number * pixels..][..pixels]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::data::embedded;

    /// Real images are near to real ones in every measure, noise is far, and threads change no bit.
    #[test]
    fn noise_is_told_from_digits() {
        let data = embedded::load();
        let mut judge = Judge::new(&data, Some(300), 2, &mut |_| {}).unwrap();
        let floor = judge.floor(&mut |_| {}).unwrap();
        let noise = (0..300 * 784u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let noise = Images { bytes: noise, shape: [1, 28, 28] };
        let Judged { measures, .. } = judge.measure(&noise, &mut |_| {}).unwrap();
        assert!(measures.frechet_distance > 10.0 * floor.frechet_distance, "{measures:?} {floor:?}");
        assert!(measures.kernel_distance.mean > 10.0 * floor.kernel_distance.mean.abs());
        assert!(measures.classifier_score < 3.0 && floor.classifier_score > 8.0);
        assert!(measures.precision_recall.precision < 0.1 && floor.precision_recall.precision > 0.8);
        assert!(measures.nearest_training > floor.nearest_training && floor.nearest_training > 0.05);
        assert!(floor.classes.covered == 10 && floor.classes.balance > 0.95);
        let again = Judge::new(&data, Some(300), 1, &mut |_| {}).unwrap().floor(&mut |_| {}).unwrap();
        assert_eq!(again, floor);
        let error = Judge::new(&data, Some(6000), 1, &mut |_| {}).err().unwrap().to_string();
        assert!(error.contains("from 20 to 5000"), "{error}");
    }

    #[test]
    fn a_training_image_is_known_as_one() {
        let data = embedded::load();
        let mut judge = Judge::new(&data, Some(20), 1, &mut |_| {}).unwrap();
        let copies = Images::of_split(&data.train).select(&(0..20).collect::<Vec<_>>());
        let Judged { measures, nearest, .. } = judge.measure(&copies, &mut |_| {}).unwrap();
        assert_eq!(measures.nearest_training, 0.0);
        assert!(nearest.iter().enumerate().all(|(i, n)| n.index == i));
        assert_eq!(judge.training_image(7), &data.train.images[7 * 784..8 * 784]);
    }
}
