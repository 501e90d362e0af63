//! How good generated images are, measured against real ones in the features of a classifier.
//!
//! Each measure is a function of its own, with the source of its formula; [`judge`] takes them together.

pub mod classes;
pub mod classifier;
pub mod frechet;
pub mod image_file;
pub mod judge;
pub mod kernel_distance;
pub mod neighbours;
mod pairs;

use super::data::Split;
use super::sample_grid::to_byte;
use super::sampling;
use crate::exec::ExecError;

/// Numbers of several examples: one example a column.
pub type Matrix = nalgebra::DMatrix<f64>;

/// Why images were not measured.
#[derive(Debug, thiserror::Error)]
pub enum QualityError {
    #[error(transparent)]
    Exec(#[from] ExecError),
    #[error("the built-in classifier does not run: {0}")]
    Classifier(String),
    #[error(
        "images of {} channels and {}×{} pixels cannot be measured: the built-in classifier, by whose features images are \
         compared, takes grey ones of 28×28", .0[0], .0[1], .0[2]
    )]
    Shape([usize; 3]),
    #[error("{asked} samples cannot be compared with these {real} real images: from {least} to {most} can")]
    Count { asked: usize, least: usize, most: usize, real: usize },
    #[error(
        "{needed} real images are needed, and there are {found}: name more with --data (without test images, half of the \
         training images are kept to measure real ones by)"
    )]
    TooFew { needed: usize, found: usize },
}

/// Images as bytes: generated ones rounded as in a picture, so that real and generated ones are alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    /// One image after the other.
    pub bytes: Vec<u8>,
    /// Channels, height and width of each.
    pub shape: [usize; 3],
}

impl Images {
    /// The number of images.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.pixels()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Numbers in one image.
    pub fn pixels(&self) -> usize {
        self.shape.iter().product()
    }

    /// Those of a data set.
    pub fn of_split(split: &Split) -> Images {
        Images { bytes: split.images.clone(), shape: [split.channels, split.rows, split.columns] }
    }

    /// Those that a program made, of [-1, 1].
    pub fn of_samples(samples: &sampling::Images) -> Images {
        let shape = [samples.shape[1], samples.shape[2], samples.shape[3]];
        let bytes = samples.values.iter().copied().map(to_byte).collect();
        Images { bytes, shape }
    }

    /// The images of these numbers.
    pub fn select(&self, numbers: &[u32]) -> Images {
        let pixels = self.pixels();
        let bytes = numbers.iter().flat_map(|&n| &self.bytes[n as usize * pixels..][..pixels]).copied().collect();
        Images { bytes, shape: self.shape }
    }

    /// That the classifier takes images of a shape: channels, height, width.
    ///
    /// # Errors
    /// When it does not.
    pub fn check(shape: [usize; 3]) -> Result<(), QualityError> {
        if shape == classifier::IMAGE { Ok(()) } else { Err(QualityError::Shape(shape)) }
    }
}
