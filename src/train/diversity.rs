//! Whether samples are of as many kinds as images are, and a watch over that while a generator is trained.
//!
//! The diversity of n samples is
//!
//! ```text
//! 1/n · Σᵢ min over j ≠ i of ‖sᵢ − sⱼ‖  /  the same of n real images,    ‖x‖ = the root mean square over pixels
//! ```
//!
//! A generator that makes fewer different images than it is asked for has near duplicates among its samples, which is
//! what Arora & Zhang ("Do GANs actually learn the distribution? An empirical study", 2017) count. So the distance to
//! the *nearest* other sample goes to 0 where there are too few modes; the mean distance of all pairs does not, with
//! two modes it still is half of what it was. To divide by the figure of real images makes data sets comparable.
//! Of 36 samples of MNIST a DCGAN, a dense GAN and a variational autoencoder that learn have from 0.6 to 1.1. A dense
//! GAN whose generator learns a hundred times too fast has from 0.1 to 0.4, and near 0 once all are one image.
//!
//! An untrained generator makes nearly equal images too (from 0.01 to 0.4 at the start). So the watch waits until
//! samples were diverse once, or until so many steps are done that they would be.
//!
//! Where a program takes labels its samples are of all classes in turn, as those in its pictures are, and the figure is
//! the same: a class whose samples are all alike counts as one image.

use super::batches::fill_images;
use super::data::Dataset;
use super::sampling::Images;
use super::session::entry;
use super::thousands;
use crate::plan::{DType, Feed, Plan};
use std::path::Path;

/// The name of the measure among a run's values.
pub const DIVERSITY: &str = "diversity";
/// From here on samples are diverse.
const DIVERSE: f32 = 0.5;
/// Below this they are not. In between nothing is said, so that a figure about a limit is told of once.
const COLLAPSED: f32 = 0.25;
/// Steps after which samples would have been diverse: twice as many as the slowest run took that we measured.
const PATIENCE: u64 = 3000;

/// The mean distance of each image to the nearest other: the root mean square over its pixels, which are cut to
/// [-1, 1] as in a picture. `None` of fewer than two images, and where one is not finite.
pub fn nearest(images: &[f32], pixels: usize) -> Option<f64> {
    let images: Vec<&[f32]> = images.chunks_exact(pixels.max(1)).collect();
    if images.len() < 2 || images.iter().any(|image| image.iter().any(|x| !x.is_finite())) {
        return None;
    }
    let mut nearest = vec![f64::INFINITY; images.len()];
    for i in 0..images.len() {
        for j in 0..i {
            let squares = images[i].iter().zip(images[j]).map(|(a, b)| {
                let difference = f64::from(a.clamp(-1.0, 1.0) - b.clamp(-1.0, 1.0));
                difference * difference
            });
            let distance = (squares.sum::<f64>() / pixels as f64).sqrt();
            nearest[i] = nearest[i].min(distance);
            nearest[j] = nearest[j].min(distance);
        }
    }
    Some(nearest.iter().sum::<f64>() / images.len() as f64)
}

/// What the samples were like so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not diverse yet.
    Starting,
    Diverse,
    /// No longer diverse, which was told.
    Collapsed,
}

/// A watch over the samples of one run.
#[derive(Debug, Clone)]
pub struct Watch {
    /// The figure of real images: how many, and their channels, rows and columns.
    real: f64,
    count: usize,
    shape: [usize; 3],
    state: State,
}

impl Watch {
    /// A watch over `count` samples at a time. The real images are taken at equal distances from those that are trained
    /// on, which may be sorted by classes. `None` where samples are no measure of diversity: the program's `sample`
    /// takes no noise, or the images are fewer than two or all the same.
    pub fn new(plan: &Plan, data: &Dataset, count: usize) -> Option<Watch> {
        let sample = plan.entry(entry::SAMPLE)?;
        let is_noise = |feed: Feed, dtype: DType| match feed {
            Feed::Seed => true,
            Feed::Images | Feed::Labels => false,
            Feed::Caller => dtype.is_real(),
        };
        if !sample.inputs.iter().any(|input| is_noise(input.feed, input.ty.dtype)) {
            return None;
        }
        let split = &data.train;
        let count = count.min(split.len());
        let chosen: Vec<u32> = (0..count).map(|i| (i * split.len() / count) as u32).collect();
        let mut images = vec![0.0; count * split.pixels()];
        fill_images(split, &chosen, &mut images);
        let real = nearest(&images, split.pixels()).filter(|real| *real > 0.0)?;
        Some(Watch { real, count, shape: [split.channels, split.rows, split.columns], state: State::Starting })
    }

    /// The diversity of samples. `None` where they are fewer than the real images or of another size, or not finite.
    pub fn measure(&self, samples: &Images) -> Option<f32> {
        let pixels: usize = self.shape.iter().product();
        if samples.shape.get(1..) != Some(&self.shape[..]) {
            return None;
        }
        let samples = samples.values.get(..self.count * pixels)?;
        Some((nearest(samples, pixels)? / self.real) as f32)
    }

    /// What there is to warn of after the samples of a step, which are in `file`. It is told once, and again only where
    /// samples were diverse in between.
    pub fn look(&mut self, step: u64, diversity: f32, file: &Path) -> Option<String> {
        if diversity >= DIVERSE {
            self.state = State::Diverse;
        }
        let is_told = match self.state {
            State::Starting => step >= PATIENCE,
            State::Diverse => true,
            State::Collapsed => false,
        };
        if !is_told || diversity >= COLLAPSED {
            return None;
        }
        let what = if self.state == State::Starting { "are still nearly alike" } else { "have become nearly alike" };
        self.state = State::Collapsed;
        Some(format!(
            "the samples of step {} {what}: they differ {diversity:.2} times as much as real images do, each from the \
             one nearest to it (less than {COLLAPSED} is a collapse). See {}. The run goes on; a lower rate for the \
             generator, or another --seed, may do better",
            thousands(step as usize),
            file.display()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Images of two pixels.
    fn samples(values: &[f32]) -> Images {
        Images { values: values.to_vec(), shape: vec![values.len() / 2, 1, 1, 2] }
    }

    fn watch(real: &[f32]) -> Watch {
        let real = nearest(real, 2).unwrap();
        Watch { real, count: 4, shape: [1, 1, 2], state: State::Starting }
    }

    #[test]
    fn each_image_counts_by_the_one_nearest_to_it() {
        // The first two are a root mean square of 0.5 apart, the third is further from both: √(½(1² + 0.5²)).
        let images = [0.0, 0.0, 0.5, 0.5, 1.0, -0.5];
        let far = (0.5f64 * (0.25 + 1.0)).sqrt();
        assert_eq!(nearest(&images, 2), Some((0.5 + 0.5 + far) / 3.0));
        // What is outside is cut off.
        assert_eq!(nearest(&[3.0, 1.0, 1.0, 7.0], 2), Some(0.0));
        assert_eq!(nearest(&[0.0, 0.0], 2), None);
        assert_eq!(nearest(&[0.0, f32::NAN, 0.0, 0.0], 2), None);
    }

    #[test]
    fn fewer_modes_than_samples_come_to_nothing() {
        let real = [-1.0, -1.0, 1.0, -1.0, -1.0, 1.0, 1.0, 1.0];
        let watch = watch(&real);
        assert_eq!(watch.measure(&samples(&real)), Some(1.0));
        let two = [-1.0, -1.0, 1.0, 1.0, -1.0, -1.0, 1.0, 1.0];
        assert_eq!(watch.measure(&samples(&two)), Some(0.0));
        // Three of four: two are alike, and the others as far from them as ever.
        let three = [-1.0, -1.0, 1.0, -1.0, -1.0, 1.0, -1.0, 1.0];
        assert_eq!(watch.measure(&samples(&three)), Some(0.5));
        assert_eq!(watch.measure(&samples(&real[..6])), None, "too few");
        assert_eq!(watch.measure(&Images { shape: vec![2, 1, 2, 2], ..samples(&real) }), None, "of another size");
    }

    #[test]
    fn a_collapse_is_told_once_and_again_after_a_recovery() {
        let mut watch = watch(&[-1.0, -1.0, 1.0, 1.0]);
        let mut told = |step, diversity| watch.look(step, diversity, Path::new("s.png")).is_some();
        // Untrained networks make images that are alike.
        assert!(!told(0, 0.02) && !told(100, 0.1) && !told(200, 0.3));
        // Without having been diverse, in between says nothing.
        assert!(!told(300, 0.24));
        assert!(!told(400, 0.5) && !told(500, 0.26));
        assert!(told(600, 0.24));
        assert!(!told(700, 0.1) && !told(800, 0.4) && !told(900, 0.1));
        assert!(!told(1000, 0.7));
        assert!(told(1100, 0.01));
    }

    #[test]
    fn samples_that_were_never_diverse_are_told_of_in_the_end() {
        let mut watch = watch(&[-1.0, -1.0, 1.0, 1.0]);
        assert_eq!(watch.look(PATIENCE - 1, 0.1, Path::new("s.png")), None);
        let told = watch.look(PATIENCE, 0.1, Path::new("s.png")).unwrap();
        assert!(told.contains("step 3,000 are still nearly alike") && told.contains("0.10 times"), "{told}");
        assert!(told.contains("See s.png"), "{told}");
        assert_eq!(watch.look(PATIENCE + 1, 0.0, Path::new("s.png")), None);
    }
}
