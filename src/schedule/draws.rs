//! Draws of 0 or 1, such as those of dropout. Where it pays, a kernel makes all of them and keeps them as bits: a block of
//! Philox gives four neighbours, which would each compute it anew where they are used, forward and backward.

use super::fuse::base;
use crate::ir::{Distribution, Graph, NodeId, Op};
use crate::kernel::target::Policy;
use std::collections::HashSet;

/// The draws that are kept as bits: those of 0 or 1 of which nobody needs numbers in memory, as callers do and
/// contractions.
pub(super) fn kept_as_bits(graph: &Graph, policy: &Policy) -> HashSet<NodeId> {
    if !policy.draws_as_bits {
        return HashSet::new();
    }
    let is_draw = |id: &NodeId| matches!(graph.op(*id), Op::Random { distribution: Distribution::Bernoulli(_), .. });
    let mut draws: HashSet<NodeId> = graph.ids().into_iter().filter(is_draw).collect();
    for result in graph.results() {
        draws.remove(&base(graph, result));
    }
    for contraction in graph.ids().into_iter().filter(|id| graph.op(*id).is_contraction()) {
        for operand in graph.operands(contraction) {
            draws.remove(&source(graph, operand));
        }
    }
    draws
}

/// The first node below movement operations.
pub(super) fn source(graph: &Graph, mut id: NodeId) -> NodeId {
    while graph.op(id).is_movement() && !matches!(graph.op(id), Op::Concat { .. }) {
        id = graph.operands(id)[0];
    }
    id
}
