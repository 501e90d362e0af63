//! From an optimised graph to a static schedule: fusion into kernels, their order, and the memory
//! plan.
//!
//! [`fuse`] groups nodes into kernels and [`lower`] gives each its body; [`assemble`] numbers the
//! buffers and lets state be updated in place; [`order`] sorts the kernels; [`layout`] gives every
//! buffer its place in the arena.

pub mod assemble;
pub mod fuse;
pub mod kernel;
pub mod layout;
pub mod lower;
pub mod order;
pub mod view;

use crate::ir::{DType, Graph, Shape};
use kernel::{BufferId, Kernel};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub use fuse::Fusion;

/// What a buffer holds for longer than the kernels that use it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BufferRole {
    /// Written by the caller before the run.
    Input(String),
    /// Lives from run to run; the same place in every entry.
    State(String),
    /// Read by the caller after the run.
    Output,
    /// Lives only within the run.
    Temporary,
}

/// A tensor in the arena.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buffer {
    /// The name of the node whose value it holds.
    pub name: String,
    pub dtype: DType,
    pub shape: Shape,
    pub role: BufferRole,
    /// Bytes from the start of the arena.
    pub offset: usize,
    /// The half-open range of schedule positions in which its contents matter.
    pub live: (usize, usize),
}

impl Buffer {
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn bytes(&self) -> usize {
        self.elements() * self.dtype.size()
    }
}

/// A named result of the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleOutput {
    pub name: String,
    pub shape: Shape,
    pub buffer: BufferId,
}

/// Kernels in the order in which they run, and where their buffers are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    pub kernels: Vec<Kernel>,
    pub buffers: Vec<Buffer>,
    pub outputs: Vec<ScheduleOutput>,
    /// Bytes of the arena, state included.
    pub arena_bytes: usize,
    /// The largest sum of bytes that are live at one position, state included: no arena is smaller.
    pub lower_bound: usize,
}

/// The places of the state tensors at the start of the arena, shared by all entries of a module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateLayout {
    /// Offset in bytes of each state tensor.
    pub offsets: BTreeMap<String, usize>,
    /// Bytes of the whole region.
    pub bytes: usize,
}

/// A graph that cannot be scheduled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    #[error("state `{0}` has no place in the state layout")]
    UnknownState(String),
    #[error("the arena does not fit the address space")]
    TooLarge,
}

/// Bytes to which every buffer is aligned: a cache line, and the widest vector.
pub const ALIGNMENT: usize = 64;

/// Schedules a graph: fuses it into kernels, orders them and plans the memory.
///
/// # Errors
/// When the graph uses a state tensor that `states` does not place, or the arena is too large.
pub fn schedule(graph: &Graph, states: &StateLayout, fusion: Fusion) -> Result<Schedule, ScheduleError> {
    let fused = fuse::fuse(graph, fusion);
    let mut assembled = assemble::assemble(graph, fused, states)?;
    order::order(&mut assembled);
    layout::layout(assembled, states)
}
