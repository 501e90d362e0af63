//! Running plans.
//!
//! A [`Device`] makes a plan ready; the [`Executor`] that comes of it runs the plan's entries. A device may work while
//! its caller does something else: [`Executor::submit`] hands a run over, and whatever looks at results waits for it.

mod ceilings;
pub mod cpu;
pub mod cuda;

use crate::kernel::body::BufferId;
use crate::kernel::cost::Multiplied;
use crate::plan::{DType, EntryPlan, Plan, StateRole, Type};
use crate::tensor::Tensor;
pub use crate::tensor::{TensorMut, TensorRef};
pub use ceilings::{Ceilings, Spread};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Why a device or an executor failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecError {
    #[error("the plan is not valid: {0}; compile its program again")]
    InvalidPlan(String),
    #[error("the plan has no {what} `{name}`")]
    Unknown { what: &'static str, name: String },
    #[error("{what} `{name}` takes {expected}, got {found}")]
    WrongTensor { what: &'static str, name: String, expected: String, found: String },
    #[error("entry `{entry}` takes {expected} inputs, got {found}")]
    WrongInputs { entry: String, expected: usize, found: usize },
    /// The device has too little memory, or too little of it is free.
    #[error(
        "not enough memory for {what} of {bytes} bytes: make the batch smaller (`--set batch=`), or close other programs \
         that use memory"
    )]
    OutOfMemory { bytes: usize, what: String },
    /// The device has memory of its own, of which too little is free.
    #[error(
        "{device} can't be used: {what} takes {}, and {} of {} are free: make the batch smaller (`--set batch=`), or end \
         what else uses its memory",
        mebibytes(*bytes), mebibytes(*free), mebibytes(*total)
    )]
    DeviceFull { device: String, what: String, bytes: usize, free: usize, total: usize },
    /// What running on the device needs is not there.
    #[error("{device} can't be used: {what}")]
    Unavailable { device: String, what: String },
    /// The device stopped working; what was on it is lost.
    #[error("{device} was lost: {problem}; state since the last checkpoint is gone")]
    Lost { device: String, problem: String },
    /// The device can't run such a plan, though it is valid.
    #[error("{device} can't run this: {what}; choose another device")]
    Unsupported { device: String, what: String },
    #[error("entry `{entry}` can't be run on kept examples: {problem}")]
    Series { entry: String, problem: String },
}

/// Bytes as people read them.
fn mebibytes(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Item number `index` of a plan's entries, outputs or states.
fn nth<'t, T>(items: &'t [T], index: usize, what: &'static str) -> Result<&'t T, ExecError> {
    items.get(index).ok_or_else(|| ExecError::Unknown { what, name: format!("number {index}") })
}

/// That a tensor has the type and the number of elements that are taken.
fn check_tensor(
    what: &'static str,
    name: &str,
    (dtype, elements): (DType, usize),
    (found, len): (DType, usize),
) -> Result<(), ExecError> {
    if (found, len) == (dtype, elements) {
        return Ok(());
    }
    Err(ExecError::WrongTensor {
        what,
        name: name.into(),
        expected: format!("{elements} elements of {dtype}"),
        found: format!("{len} of {found}"),
    })
}

/// That an entry is given as many inputs as it takes.
fn check_count(entry: &EntryPlan, inputs: &[TensorRef]) -> Result<(), ExecError> {
    let (expected, found) = (entry.inputs.len(), inputs.len());
    if found == expected {
        return Ok(());
    }
    Err(ExecError::WrongInputs { entry: entry.name.clone(), expected, found })
}

/// Examples of a data set, for [`Executor::keep`].
#[derive(Debug, Clone, Copy)]
pub struct Examples<'d> {
    pub count: usize,
    /// Pixels, one example after the other and as many of each. An input gets `2x/255 - 1`.
    pub images: &'d [u8],
    /// One for each example, where there are any.
    pub labels: Option<&'d [u8]>,
}

/// Most runs of one [`Executor::submit_series`].
pub const MOST_RUNS: usize = 32;

/// A scalar that is noted of each run of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watched {
    /// An output of the entry, by its number.
    Output(usize),
    /// A state tensor of the plan after the run, by its number.
    State(usize),
}

/// What is noted of each run of an entry in a series, in order: its outputs of one f32 element, and the states that say of a
/// network that it is no longer finite. `entry` is an index into the plan's entries.
pub fn watched(plan: &Plan, entry: usize) -> impl Iterator<Item = Watched> {
    scalar_outputs(&plan.entries[entry]).map(Watched::Output).chain(flags(plan).map(Watched::State))
}

/// The outputs of an entry that are one real number each: its losses and measures.
pub fn scalar_outputs(entry: &EntryPlan) -> impl Iterator<Item = usize> {
    let schedule = &entry.schedule;
    let is_scalar = |i: &usize| {
        let buffer = &schedule.buffers[schedule.outputs[*i].buffer.index()];
        buffer.elements() == 1 && buffer.dtype == DType::F32
    };
    (0..schedule.outputs.len()).filter(is_scalar)
}

/// The states that say of a network that it is no longer finite.
pub fn flags(plan: &Plan) -> impl Iterator<Item = usize> {
    let is_flag = |i: &usize| {
        let state = &plan.states[*i];
        state.role == StateRole::NonFinite && state.ty == Type::f32([])
    };
    (0..plan.states.len()).filter(is_flag)
}

/// Something that runs plans.
pub trait Device: Send + Sync {
    /// A human-readable name: the kind, and what its speed depends on.
    fn name(&self) -> String;

    /// Makes a plan ready to run: verifies it, and reserves its memory. All state is zero.
    ///
    /// # Errors
    /// When the plan does not pass its verification, the device can't run it, or its memory is too small.
    fn load(&self, plan: Arc<Plan>) -> Result<Box<dyn Executor>, ExecError>;

    /// Measures the device's peak speeds, in a few seconds: of arithmetic in f32, and of what else is multiplied, where the
    /// device has a way to measure it.
    ///
    /// # Errors
    /// When there is no memory for the measurement, or the device is lost.
    fn ceilings(&self, multiplied: &BTreeSet<Multiplied>) -> Result<Ceilings, ExecError>;
}

/// When one kernel of a run was at work, by the device's own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelTiming {
    /// An index into the entry's kernels.
    pub kernel: usize,
    /// From the start of the run.
    pub start: Duration,
    pub length: Duration,
}

/// A moment of a run that goes kernel by kernel: see [`Executor::step_through`].
pub struct Moment<'m> {
    /// An index into the entry's kernels.
    pub kernel: usize,
    /// Whether it is complete; else it has not begun.
    pub is_done: bool,
    /// Copies a buffer of the entry's schedule as it is now: in the order of its shape, and bits as numbers that are 0 or 1.
    pub read: &'m mut dyn FnMut(BufferId) -> Result<Tensor, ExecError>,
}

/// Runs the entries of one plan on one device. The state stays on the device from run to run.
pub trait Executor: Send {
    /// The plan that is run.
    fn plan(&self) -> &Plan;

    /// Starts a run of entry `entry` (an index into the plan's entries) with its inputs in the plan's order, after all runs
    /// that were started before. Returns as soon as the inputs are taken; the device may still be at work. A failure of the
    /// device may be reported by a later call.
    ///
    /// # Errors
    /// When an input's type or size is not what the entry takes, or the device fails.
    fn submit(&mut self, entry: usize, inputs: &[TensorRef]) -> Result<(), ExecError>;

    /// Waits until all runs are complete.
    ///
    /// # Errors
    /// When the device failed in one of them.
    fn wait(&mut self) -> Result<(), ExecError>;

    /// [`Executor::submit`] and [`Executor::wait`].
    ///
    /// # Errors
    /// As theirs.
    fn run(&mut self, entry: usize, inputs: &[TensorRef]) -> Result<(), ExecError> {
        self.submit(entry, inputs)?;
        self.wait()
    }

    /// As [`Executor::run`], and gives the time of each kernel, in the order in which they started. A device that overlaps
    /// kernels runs them one by one here.
    ///
    /// # Errors
    /// As [`Executor::run`].
    fn profile(&mut self, entry: usize, inputs: &[TensorRef]) -> Result<Vec<KernelTiming>, ExecError>;

    /// As [`Executor::run`], but one kernel after the other: `look` sees the memory before and after each. By default a device
    /// can't do that.
    ///
    /// # Errors
    /// As [`Executor::run`], and the first of `look`, with which the run ends.
    fn step_through(
        &mut self,
        entry: usize,
        _inputs: &[TensorRef],
        _look: &mut dyn FnMut(Moment) -> Result<(), ExecError>,
    ) -> Result<(), ExecError> {
        nth(&self.plan().entries, entry, "entry")?;
        Err(ExecError::Unsupported {
            device: "this device".into(),
            what: "nothing can look between its kernels".into(),
        })
    }

    /// Copies output `output` of the last run, which was of entry `entry`, once it is complete.
    ///
    /// # Errors
    /// When there is no such output, `into` is of another type or size, or the device fails.
    fn read_output(&mut self, entry: usize, output: usize, into: TensorMut) -> Result<(), ExecError>;

    /// Copies state tensor `state` (an index into the plan's states), once all runs are complete.
    ///
    /// # Errors
    /// When there is no such state tensor, `into` is of another type or size, or the device fails.
    fn read_state(&mut self, state: usize, into: TensorMut) -> Result<(), ExecError>;

    /// State tensor `state`, once all runs are complete: where it lies, if that is memory of the host, else a copy in
    /// `room`, whatever that held before.
    ///
    /// # Errors
    /// When there is no such state tensor, or the device fails.
    fn view_state<'a>(&'a mut self, state: usize, room: &'a mut Tensor) -> Result<TensorRef<'a>, ExecError> {
        *room = Tensor::zeros(nth(&self.plan().states, state, "state")?.ty.clone());
        self.read_state(state, room.view_mut())?;
        Ok(room.view())
    }

    /// Replaces state tensor `state` and the copies that the plan keeps of it
    /// ([`StateLayout::copies`](crate::plan::StateLayout::copies)), once all runs are complete.
    ///
    /// # Errors
    /// When there is no such state tensor, `from` is of another type or size, or the device fails.
    fn write_state(&mut self, state: usize, from: TensorRef) -> Result<(), ExecError>;

    /// Keeps examples on the device, in place of those that were kept before, so that `entries` (indices into the plan's
    /// entries) can be run on them with [`Executor::submit_series`]. `false` where it does not: by default, where too little
    /// memory is free, or where an entry has inputs that do not come from examples and the seed. Inputs are then given by
    /// [`Executor::submit`].
    ///
    /// # Errors
    /// When there is no such entry, or the device fails.
    fn keep(&mut self, entries: &[usize], examples: Examples) -> Result<bool, ExecError> {
        let _ = (entries, examples);
        Ok(false)
    }

    /// Starts a series of runs of an entry, after all runs that were started before: as many as there are batches in
    /// `numbers`, the kept examples of each run by their numbers, and at most [`MOST_RUNS`]. The same as that many
    /// [`Executor::submit`], but that the host does nothing in between. Returns as soon as the numbers are taken, once the
    /// series before the last is complete. A failure of the device may be reported by a later call.
    ///
    /// # Errors
    /// When no examples are kept for the entry, the numbers are not whole batches of them, or the device fails.
    fn submit_series(&mut self, entry: usize, seed: [u32; 2], numbers: &[u32]) -> Result<(), ExecError> {
        let (_, _) = (seed, numbers);
        let entry = nth(&self.plan().entries, entry, "entry")?.name.clone();
        Err(ExecError::Series { entry, problem: "none are kept on this device".into() })
    }

    /// What is [`watched`] of each run of the last series (`before` is 0) or of the one before it (1), run after run, once
    /// that series is complete; what was started after it need not be.
    ///
    /// # Errors
    /// When there was no such series, `into` has another length, or the device fails.
    fn read_series(&mut self, before: usize, into: &mut [f32]) -> Result<(), ExecError> {
        let name = format!("number {before} from the end, of {} scalars", into.len());
        Err(ExecError::Unknown { what: "series", name })
    }
}
