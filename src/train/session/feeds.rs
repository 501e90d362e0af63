//! What an entry is given in each step.

use crate::exec::{ExecError, Executor, TensorRef};
use crate::plan::{EntryPlan, Feed};
use crate::tensor::Tensor;
use crate::train::batches::{fill_images, fill_labels};
use crate::train::data::Split;

/// Most inputs of an entry that is trained with.
pub(super) const MAX_INPUTS: usize = 16;

/// Where an entry's inputs come from, with room for each.
#[derive(Debug)]
pub(in crate::train) struct Feeds {
    pub(super) entry: usize,
    /// Examples in one run; 0 where no input comes from the data set.
    pub(super) examples: usize,
    pub(in crate::train) buffers: Vec<(Feed, Tensor)>,
}

impl Feeds {
    pub(in crate::train) fn new(index: usize, entry: &EntryPlan) -> Feeds {
        let buffers = entry.inputs.iter().map(|input| (input.feed, Tensor::zeros(input.ty.clone()))).collect();
        Feeds { entry: index, examples: examples(entry), buffers }
    }

    /// Fills the inputs from a batch; `false` where labels are wanted and there are none.
    pub(in crate::train) fn fill(&mut self, split: &Split, indices: &[u32], seed: u64) -> bool {
        let mut filled = true;
        for (feed, buffer) in &mut self.buffers {
            filled &= match feed {
                Feed::Images => buffer.values_mut().map(|values| fill_images(split, indices, values)).is_some(),
                Feed::Labels => buffer.values_mut().is_some_and(|values| fill_labels(split, indices, values)),
                Feed::Seed => buffer.values_mut().map(|values| values.copy_from_slice(&seed_words(seed))).is_some(),
                Feed::Caller => false,
            };
        }
        filled
    }

    /// Runs the entry. An entry has few inputs, so their list is on the stack: a step allocates
    /// nothing.
    pub(in crate::train) fn run(&self, executor: &mut dyn Executor) -> Result<(), ExecError> {
        let mut list = [TensorRef::f32(&[]); MAX_INPUTS];
        for (slot, (_, buffer)) in list.iter_mut().zip(&self.buffers) {
            *slot = buffer.view();
        }
        executor.submit(self.entry, &list[..self.buffers.len().min(MAX_INPUTS)])
    }
}

/// How many examples of the data set an entry takes.
pub fn examples(entry: &EntryPlan) -> usize {
    let data = entry.inputs.iter().find(|i| matches!(i.feed, Feed::Images | Feed::Labels));
    data.and_then(|input| input.ty.shape.first().copied()).unwrap_or(0)
}

pub(in crate::train) fn seed_words(seed: u64) -> [u32; 2] {
    [seed as u32, (seed >> 32) as u32]
}
