//! One reverse sweep: the gradients of one loss with respect to any number of nodes.

use super::rules;
use crate::ir::{Builder, DType, Graph, NodeId, Op, Origin, Role};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

/// What a sweep gives.
pub(super) struct Sweep {
    /// For each wanted node the node that holds the gradient with respect to it.
    pub gradients: HashMap<NodeId, NodeId>,
    /// The wanted nodes that do not reach the loss, in the order in which they were asked for.
    pub unconnected: Vec<NodeId>,
}

/// Builds d `y` / d `x` for every `x` of `wanted`.
///
/// Walks from `y` towards the leaves, and looks at nothing that `y` does not depend on. A node's adjoint is complete when the walk arrives at it,
/// since all its users were visited before; its rule then gives one contribution to each operand
/// that lies on a path from a wanted node.
pub(super) fn run(graph: &mut Graph, y: NodeId, wanted: &[NodeId]) -> Sweep {
    let order = graph.topological_to(y);
    let active = reached_from(graph, &order, wanted);
    let forward: HashSet<NodeId> = order.iter().copied().collect();
    let loss = loss_name(graph, y);
    let origin = |graph: &Graph, id: NodeId| {
        let Origin { span, scope, .. } = graph.node(id).origin.clone();
        Origin { span, scope, role: Role::Gradient(loss.clone()) }
    };

    let mut contributions: HashMap<NodeId, Vec<NodeId>> = HashMap::new();
    if active[y.index()] {
        let seed = Op::constant(1.0, DType::F32, graph.shape(y));
        let origin = origin(graph, y);
        contributions.entry(y).or_default().push(Builder::new(graph, origin).op(seed, &[]));
    }
    let mut sweep = Sweep { gradients: HashMap::new(), unconnected: Vec::new() };
    let mut named = HashSet::new();
    let asked: HashSet<NodeId> = wanted.iter().copied().collect();
    for &id in order.iter().rev() {
        // Contributions come in the order of the walk, so the order of additions is fixed.
        let Some(parts) = contributions.remove(&id) else { continue };
        let origin = origin(graph, id);
        let mut b = Builder::new(graph, origin);
        let Some(adjoint) = parts.into_iter().reduce(|sum, part| add(&mut b, sum, part)) else { continue };
        debug_assert_eq!(b.graph.ty(adjoint), b.graph.ty(id), "adjoint of {}", b.graph.node(id).name);
        // An adjoint can be a forward node, which keeps its name, or that of several nodes.
        if !forward.contains(&adjoint) && named.insert(adjoint) {
            let name = format!("d_{}", b.graph.node(id).name);
            b.graph.rename(adjoint, &name);
        }
        if asked.contains(&id) {
            sweep.gradients.insert(id, adjoint);
        }
        let operands = b.graph.operands(id);
        let needed: Vec<bool> = (operands.iter().enumerate())
            .map(|(i, &operand)| active[operand.index()] && rules::flows(b.graph, id, i))
            .collect();
        if needed.contains(&true) {
            for (operand, part) in operands.into_iter().zip(rules::vjp(&mut b, id, adjoint, &needed)) {
                contributions.entry(operand).or_default().extend(part);
            }
        }
    }
    for &x in wanted {
        if let Entry::Vacant(gradient) = sweep.gradients.entry(x) {
            let zeros = Op::constant(0.0, DType::F32, graph.shape(x));
            let (origin, name) = (origin(graph, x), format!("d_{}", graph.node(x).name));
            gradient.insert(Builder::new(graph, origin).named(&name, zeros, &[]));
            sweep.unconnected.push(x);
        }
    }
    sweep
}

/// The sum of two adjoints, taken in f32 and of their type.
fn add(b: &mut Builder<'_>, x: NodeId, y: NodeId) -> NodeId {
    let dtype = b.graph.ty(x).dtype;
    let [x, y] = [x, y].map(|part| rules::convert(b, part, DType::F32));
    let sum = b.add(x, y);
    rules::convert(b, sum, dtype)
}

/// Which nodes, by index, depend on a node of `wanted` through differentiable operations alone.
fn reached_from(graph: &Graph, order: &[NodeId], wanted: &[NodeId]) -> Vec<bool> {
    let mut reached = vec![false; graph.bound()];
    for &x in wanted {
        reached[x.index()] = true;
    }
    for &id in order {
        let through = |(i, operand): (usize, NodeId)| reached[operand.index()] && rules::flows(graph, id, i);
        if !reached[id.index()] && graph.operands(id).into_iter().enumerate().any(through) {
            reached[id.index()] = true;
        }
    }
    reached
}

/// What people call the loss: the output it is given as, or else its node.
fn loss_name(graph: &Graph, y: NodeId) -> String {
    match graph.outputs.iter().find(|o| o.node == y) {
        Some(output) => output.name.clone(),
        None => graph.node(y).name.clone(),
    }
}
