//! From an optimised graph to a static schedule: fusion into kernels, their order, and the memory
//! plan.
//!
//! [`states`] gives state tensors their places, and says of which rounded copies are kept; [`fuse`] groups nodes into
//! kernels and [`lower`] gives each its body, [`physical`] the order of dimensions in memory; [`assemble`] numbers the
//! buffers and lets state be updated in place; [`select`] chooses an algorithm for each kernel and adds its workspace;
//! [`order`] sorts the kernels, and [`recompute`] has what is cheap computed twice where that saves memory; [`turn`] has
//! the points of filters lie as products read them; [`arena`] gives every buffer its place in the arena.

pub mod arena;
pub mod assemble;
mod atoms;
mod dimensions;
mod draws;
pub mod fuse;
mod improve;
mod live;
pub mod lower;
pub mod memory;
pub mod movement;
mod multi_tensor;
pub mod order;
pub mod physical;
pub mod recompute;
pub mod select;
pub mod states;
mod topological;
pub mod turn;
pub mod value;
mod windows;

use crate::ir::{Graph, NodeId, Op, Origin};
use crate::kernel::schedule::{Schedule, StateLayout, StateTooLarge};
use crate::kernel::target::Target;
use std::collections::BTreeSet;

pub use crate::kernel::target::{Fusion, Strategy};
use fuse::FusedKernel;
use select::Tuned;
use value::ValueId;

/// A graph that cannot be scheduled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    #[error("state `{0}` has no place in the state layout")]
    UnknownState(String),
    #[error("state `{0}` lies in memory in an order in which this entry cannot read it")]
    StateOrder(String),
    #[error("the arena does not fit the address space")]
    TooLarge,
}

impl From<StateTooLarge> for ScheduleError {
    fn from(_: StateTooLarge) -> Self {
        ScheduleError::TooLarge
    }
}

/// Schedules a graph: fuses it into kernels, orders them and plans the memory.
///
/// # Errors
/// When the graph uses a state tensor that `states` does not place, or the arena is too large.
pub fn schedule(graph: &Graph, states: &StateLayout, strategy: impl Into<Strategy>) -> Result<Schedule, ScheduleError> {
    schedule_tuned(graph, states, strategy.into(), &Tuned::new())
}

/// As [`schedule`], where kernels with a name in `tuned` are computed by that algorithm.
///
/// # Errors
/// As [`schedule`].
pub fn schedule_tuned(
    graph: &Graph,
    states: &StateLayout,
    strategy: Strategy,
    tuned: &Tuned,
) -> Result<Schedule, ScheduleError> {
    let graph = with_state_nodes(graph);
    if let Some(state) = physical::unreadable_state(&graph, states) {
        return Err(ScheduleError::StateOrder(state));
    }
    let value_type = |value: &ValueId| graph.ty(NodeId::new(value.index())).dtype;
    let copies = states::in_tf32(&graph, states);
    let are_reduced = |kernels: &[FusedKernel]| select::reduced_in_tiles(kernels, &value_type, &copies, &strategy);
    let fused = fuse::fuse(&graph, &strategy, &physical::of_states(&graph, states), &are_reduced);
    let mut assembled = assemble::assemble(&graph, fused, states)?;
    select::select(&mut assembled, states, &strategy, tuned);
    let percent = strategy.policy.recompute_percent;
    order::order(&mut assembled, percent.is_some());
    if let Some(percent) = percent {
        recompute::recompute(&mut assembled, percent);
    }
    if strategy.target == Target::Cpu {
        turn::turn(&mut assembled);
    }
    arena::lay_out(assembled, states)
}

/// How many kernels a graph comes to.
///
/// # Errors
/// When the graph uses a state tensor that `states` does not place.
pub fn count_kernels(graph: &Graph, states: &StateLayout, fusion: Fusion) -> Result<usize, ScheduleError> {
    let graph = with_state_nodes(graph);
    let fused = fuse::fuse(&graph, &fusion.into(), &physical::Orders::new(), &|kernels| vec![false; kernels.len()]);
    Ok(assemble::assemble(&graph, fused, states)?.kernels.len())
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
