//! Running plans.

pub mod cpu;
pub mod cuda;

use crate::plan::Plan;
pub use crate::tensor::{TensorMut, TensorRef};
use std::time::Instant;

/// Why an executor did not do what it was told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecError {
    #[error("the plan is not valid: {0}")]
    InvalidPlan(String),
    #[error("the plan has no {what} `{name}`")]
    Unknown { what: &'static str, name: String },
    #[error("{what} `{name}` takes {expected}, got {found}")]
    WrongTensor { what: &'static str, name: String, expected: String, found: String },
    #[error("entry `{entry}` takes {expected} inputs, got {found}")]
    WrongInputs { entry: String, expected: usize, found: usize },
    #[error("not enough memory for an arena of {0} bytes")]
    OutOfMemory(usize),
}

/// Runs the entries of one plan on one device. The state stays on the device from run to run.
pub trait Executor: Send {
    /// The plan that is run.
    fn plan(&self) -> &Plan;

    /// Runs entry `entry` (an index into the plan's entries) with its inputs in the plan's order.
    ///
    /// # Errors
    /// When an input's type or size is not what the entry takes.
    fn run(&mut self, entry: usize, inputs: &[TensorRef]) -> Result<(), ExecError>;

    /// As [`Executor::run`], and calls `observe` with each kernel (an index into the entry's kernels) once it is
    /// complete, and when it was started. Kernels are timed one by one, so a device that overlaps them is made to wait.
    ///
    /// # Errors
    /// As [`Executor::run`].
    fn run_observed(
        &mut self,
        entry: usize,
        inputs: &[TensorRef],
        observe: &mut dyn FnMut(usize, Instant),
    ) -> Result<(), ExecError>;

    /// Copies output `output` of the last run, which was of entry `entry`.
    ///
    /// # Errors
    /// When there is no such output, or `into` is of another type or size.
    fn read_output(&mut self, entry: usize, output: usize, into: TensorMut) -> Result<(), ExecError>;

    /// Copies state tensor `state` (an index into the plan's states).
    ///
    /// # Errors
    /// When there is no such state tensor, or `into` is of another type or size.
    fn read_state(&mut self, state: usize, into: TensorMut) -> Result<(), ExecError>;

    /// Replaces state tensor `state`.
    ///
    /// # Errors
    /// When there is no such state tensor, or `from` is of another type or size.
    fn write_state(&mut self, state: usize, from: TensorRef) -> Result<(), ExecError>;
}
