//! The state of an executor: its first values, those of a checkpoint, and looking at it.

use super::{Feeds, SessionError, entry, seed_words};
use crate::exec::{ExecError, Executor, TensorRef};
use crate::plan::{Feed, StateRole, Type};
use crate::tensor::{Bf16, Tensor};
use crate::train::checkpoint::{Checkpoint, Tensors};
use crate::types::StateDecl;
use std::collections::BTreeSet;

/// The network that a state tensor belongs to: the first part of its name.
pub(in crate::train) fn network_of(state: &str) -> &str {
    state.split('/').next().unwrap_or(state)
}

/// All state tensors of an executor, as a checkpoint takes them: one by one.
pub struct State<'e> {
    executor: &'e mut dyn Executor,
    /// For a tensor that is not in the host's memory.
    room: Tensor,
}

impl<'e> State<'e> {
    pub fn of(executor: &'e mut dyn Executor) -> State<'e> {
        State { executor, room: Tensor::zeros(Type::f32([0])) }
    }

    /// The networks with an element that is infinite or NaN.
    ///
    /// # Errors
    /// When the executor fails.
    pub fn non_finite(&mut self) -> Result<Vec<String>, ExecError> {
        let mut found = BTreeSet::new();
        for (i, (name, _)) in self.types().iter().enumerate() {
            let tensor = self.view(i)?;
            let singles = tensor.values::<f32>().into_iter().flatten().copied();
            let halves = tensor.values::<Bf16>().into_iter().flatten().map(|v| v.to_f32());
            if !singles.chain(halves).all(f32::is_finite) {
                found.insert(network_of(name).to_string());
            }
        }
        Ok(found.into_iter().collect())
    }
}

impl Tensors for State<'_> {
    fn types(&self) -> Vec<(String, Type)> {
        self.executor.plan().states.iter().map(|state| (state.name.clone(), state.ty.clone())).collect()
    }

    fn view(&mut self, index: usize) -> Result<TensorRef<'_>, ExecError> {
        self.executor.view_state(index, &mut self.room)
    }
}

/// A copy of a state tensor, by its index in the executor's plan.
pub(in crate::train) fn copy_state(executor: &mut dyn Executor, index: usize) -> Result<Tensor, ExecError> {
    let mut tensor = Tensor::zeros(executor.plan().states[index].ty.clone());
    executor.read_state(index, tensor.view_mut())?;
    Ok(tensor)
}

/// Runs the `init` entry of an executor's plan.
///
/// # Errors
/// When there is none.
pub fn initialise(executor: &mut dyn Executor, seed: u64) -> Result<(), SessionError> {
    let plan = executor.plan();
    let index = plan.entries.iter().position(|e| e.name == entry::INIT && e.sizes.is_empty());
    let Some(index) = index else {
        return Err(ExecError::Unknown { what: "entry", name: entry::INIT.into() }.into());
    };
    let mut feeds = Feeds::new(index, &plan.entries[index]);
    for (feed, buffer) in &mut feeds.buffers {
        if let (Feed::Seed, Some(values)) = (feed, buffer.values_mut()) {
            values.copy_from_slice(&seed_words(seed));
        }
    }
    Ok(feeds.run(executor)?)
}

/// Gives an executor the state of a checkpoint.
///
/// # Errors
/// When a state tensor is missing or of another type or shape.
pub fn restore(executor: &mut dyn Executor, checkpoint: &Checkpoint) -> Result<(), SessionError> {
    let declared = executor.plan().states.clone();
    // Checkpoints of older versions have no flags, and only finite state was saved since.
    let is_there =
        |state: &StateDecl| state.role != StateRole::NonFinite || checkpoint.tensors.contains_key(&state.name);
    let expected: Vec<(&str, &Type)> =
        declared.iter().filter(|state| is_there(state)).map(|state| (state.name.as_str(), &state.ty)).collect();
    checkpoint.check(&expected)?;
    for (i, state) in declared.iter().enumerate() {
        if !is_there(state) {
            executor.write_state(i, TensorRef::f32(&[0.0]))?;
            continue;
        }
        executor.write_state(i, checkpoint.tensors[&state.name].view())?;
    }
    Ok(())
}
