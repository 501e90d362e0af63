//! From an optimised graph to a static schedule: fusion into kernels, their order, and the memory
//! plan.
//!
//! [`fuse`] groups nodes into kernels and [`lower`] gives each its body; [`assemble`] numbers the
//! buffers and lets state be updated in place; [`order`] sorts the kernels; [`layout`] gives every
//! buffer its place in the arena.

pub mod assemble;
mod atoms;
pub mod check;
pub mod cost;
pub mod fuse;
pub mod kernel;
pub mod layout;
pub mod lower;
pub mod memory;
mod multi_tensor;
pub mod order;
pub mod view;

use crate::ir::{DType, Graph, Op, Origin, Shape, Type};
use kernel::{BufferId, Kernel};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

pub use fuse::Fusion;

/// What a buffer holds for longer than the kernels that use it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
    let graph = with_state_nodes(graph);
    let fused = fuse::fuse(&graph, fusion);
    let mut assembled = assemble::assemble(&graph, fused, states)?;
    order::order(&mut assembled);
    layout::layout(assembled, states)
}

/// How many kernels a graph comes to.
///
/// # Errors
/// When the graph uses a state tensor that `states` does not place.
pub fn count_kernels(graph: &Graph, states: &StateLayout, fusion: Fusion) -> Result<usize, ScheduleError> {
    let graph = with_state_nodes(graph);
    Ok(assemble::assemble(&graph, fuse::fuse(&graph, fusion), states)?.kernels.len())
}

/// The graph with a node for every state tensor that it updates, also where it does not read it.
fn with_state_nodes(graph: &Graph) -> Graph {
    let mut graph = graph.clone();
    let read: BTreeSet<String> = (graph.ids().into_iter())
        .filter_map(|id| match graph.op(id) {
            Op::State { name, .. } => Some(name.clone()),
            _ => None,
        })
        .collect();
    for update in graph.updates.clone() {
        if !read.contains(&update.state) {
            let op = Op::State { name: update.state.clone(), ty: graph.ty(update.node).clone() };
            graph.add(op, &[], &update.state, Origin::default()).expect("a leaf takes no operands");
        }
    }
    graph
}

impl StateLayout {
    /// Places state tensors one after the other, in the given order.
    ///
    /// # Errors
    /// When they do not fit the address space.
    pub fn new<'s>(states: impl IntoIterator<Item = (&'s str, &'s Type)>) -> Result<Self, ScheduleError> {
        let mut layout = StateLayout::default();
        for (name, ty) in states {
            layout.offsets.insert(name.to_string(), layout.bytes);
            let end = layout.bytes.checked_add(ty.bytes()).and_then(|end| end.checked_next_multiple_of(ALIGNMENT));
            layout.bytes = end.ok_or(ScheduleError::TooLarge)?;
        }
        Ok(layout)
    }
}
