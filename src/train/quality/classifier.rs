//! The classifier whose features images are compared by: `lenet`, with weights that are part of the program.
//!
//! The authors of the usual measures advise against features of Inception for digits, which it has never seen. These weights
//! were trained on the full MNIST (`gcc-gan train lenet --data mnist --epochs 3 --seed 1`: 99.05% on its test images);
//! `tests/data/make_classifier.py` took them out of the run.

use super::{Images, Matrix, QualityError};
use crate::compile::{Options, compile};
use crate::declare::builtin;
use crate::exec::cpu::CpuDevice;
use crate::exec::{Device, Executor, TensorMut};
use crate::kernel::target::Convolutions;
use crate::tensor::Tensor;
use crate::train::batches::to_unit;
use crate::types::StateRole;
use safetensors::SafeTensors;
use sha2::{Digest, Sha256};
use std::sync::Arc;

const WEIGHTS: &[u8] = include_bytes!("lenet.safetensors");
/// The SHA-256 of the file: distances in features of other weights mean something else.
pub const SHA256: &str = "36ceaa9ef8ead2f7d618886cf43492c9dfe6622d228ae7d82ee8f2cac5b65cd2";
/// The shape of the images that it takes: channels, height, width.
pub const IMAGE: [usize; 3] = [1, 28, 28];
/// Images at a time.
const BATCH: usize = 100;
const ENTRY: &str = "features";

/// What the classifier sees in images.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// `[84, count]`: what the layer before the logits gives, one image a column.
    pub features: Matrix,
    /// `[classes, count]`.
    pub logits: Matrix,
}

/// The classifier, ready to run on the CPU.
pub struct Classifier {
    executor: Box<dyn Executor>,
    entry: usize,
}

impl Classifier {
    /// On so many threads; what it sees does not depend on their number.
    ///
    /// # Errors
    /// When its memory is not there. That it compiles and fits its weights is tested.
    pub fn new(threads: usize) -> Result<Classifier, QualityError> {
        let broken = |problem: String| QualityError::Classifier(problem);
        if format!("{:x}", Sha256::digest(WEIGHTS)) != SHA256 {
            return Err(broken("its weights are not those that its hash names".into()));
        }
        let text = builtin::text("lenet").ok_or_else(|| broken("there is no such program".into()))?;
        let options =
            Options { sets: vec![format!("batch={BATCH}")], convolutions: Convolutions::Exact, ..Options::default() };
        let compiled = compile("lenet", text, &options, &mut |_| {}).map_err(|error| broken(error.to_string()))?;
        let mut plan = compiled.plan.ok_or_else(|| broken("it has no plan".into()))?;
        plan.entries.retain(|entry| entry.name == ENTRY);
        if plan.entries.is_empty() {
            return Err(broken(format!("it has no entry `{ENTRY}`")));
        }
        let mut executor = CpuDevice::new(threads).load(Arc::new(plan))?;
        let file = SafeTensors::deserialize(WEIGHTS).map_err(|error| broken(error.to_string()))?;
        for (i, state) in executor.plan().states.clone().iter().enumerate() {
            if state.role == StateRole::Parameter {
                let view = file.tensor(&state.name).map_err(|error| broken(error.to_string()))?;
                let tensor = Tensor::from_le_bytes(state.ty.clone(), view.data());
                let tensor = tensor.ok_or_else(|| broken(format!("`{}` is not {}", state.name, state.ty)))?;
                executor.write_state(i, tensor.view())?;
            }
        }
        Ok(Classifier { executor, entry: 0 })
    }

    /// What it sees in images, which must have the shape [`IMAGE`]. `progress` is told how many are done.
    ///
    /// # Errors
    /// When they have another, or the executor fails.
    pub fn see(&mut self, images: &Images, progress: &mut dyn FnMut(usize)) -> Result<Seen, QualityError> {
        Images::check(images.shape)?;
        let schedule = &self.executor.plan().entries[self.entry].schedule;
        let widths: Vec<usize> = schedule.outputs.iter().map(|output| output.shape[1]).collect();
        let [mut features, mut logits] =
            [widths[0], widths[1]].map(|width| (width, Vec::new(), vec![0.0f32; width * BATCH]));
        let mut input = Tensor::zeros(self.executor.plan().entries[self.entry].inputs[0].ty.clone());
        for part in images.bytes.chunks(BATCH * images.pixels()) {
            let slots = input.values_mut().into_iter().flatten();
            // A last batch that is not whole is filled up with the middle grey, and what is seen in that left out.
            let values = part.iter().copied().map(to_unit).chain(std::iter::repeat(0.0));
            slots.zip(values).for_each(|(slot, value): (&mut f32, f32)| *slot = value);
            self.executor.run(self.entry, &[input.view()])?;
            let count = part.len() / images.pixels();
            for (output, (width, all, room)) in [&mut features, &mut logits].into_iter().enumerate() {
                self.executor.read_output(self.entry, output, TensorMut::f32(room))?;
                all.extend(room[..count * *width].iter().map(|&value| f64::from(value)));
            }
            progress(features.1.len() / features.0);
        }
        let matrix = |(width, all, _): (usize, Vec<f64>, Vec<f32>)| Matrix::from_vec(width, all.len() / width, all);
        Ok(Seen { features: matrix(features), logits: matrix(logits) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::data::embedded;
    use crate::train::quality::classes::predicted;

    #[test]
    fn the_classifier_reads_the_digits_inside_the_program() {
        let digits = embedded::load().train;
        let images = Images::of_split(&digits);
        let seen = Classifier::new(2).unwrap().see(&images, &mut |_| {}).unwrap();
        assert_eq!(seen.features.shape(), (84, 10_000));
        let labels = digits.labels.unwrap();
        let right = predicted(&seen.logits).iter().zip(&labels).filter(|(p, l)| **p == usize::from(**l)).count();
        assert!(right >= 9_800, "{right} of 10,000");
        assert!(right < 10_000, "none of 10,000 wrong is too good to be true");
        // The last batch is not whole, and threads change no bit.
        let few = Images { bytes: images.bytes[..150 * 784].to_vec(), shape: IMAGE };
        let again = Classifier::new(1).unwrap().see(&few, &mut |_| {}).unwrap();
        assert_eq!(again.features, seen.features.columns(0, 150).clone_owned());
    }
}
