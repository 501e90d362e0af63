//! Merging what is planned.

use super::{Merge, factors, is_statistic, of_both};
use crate::ir::{Graph, NodeId, Op, Origin};
use std::collections::{HashMap, VecDeque};

/// How many movements are followed from a value to a contraction.
const MOST_MOVEMENTS: usize = 16;

/// Whether a node is a contraction or moves what it uses to one: such values are in memory anyway.
fn is_for_contraction(graph: &Graph, id: NodeId) -> bool {
    let mut queue = VecDeque::from([id]);
    for _ in 0..MOST_MOVEMENTS {
        let Some(id) = queue.pop_front() else { return false };
        if graph.op(id).is_contraction() {
            return true;
        }
        if graph.op(id).is_movement() {
            queue.extend(graph.users(id));
        }
    }
    false
}

/// What is repeated for the whole batch.
fn spread(graph: &Graph, id: NodeId) -> Option<NodeId> {
    let Op::Broadcast { .. } = graph.op(id) else { return None };
    let small = graph.operands(id)[0];
    (graph.shape(small).first() == Some(&1)).then_some(small)
}

/// A graph while nodes of both batches are added.
struct Merger<'g> {
    graph: &'g mut Graph,
    /// What two values of the graph as it was are one after the other.
    both: HashMap<[NodeId; 2], NodeId>,
    /// What stands for a node that was merged.
    current: HashMap<NodeId, NodeId>,
}

/// Merges what the plan says.
pub(super) fn apply(graph: &mut Graph, plan: &[Merge]) {
    let mut merger = Merger { graph, both: HashMap::new(), current: HashMap::new() };
    // Operands as they were: uses change on the way.
    let mut before: HashMap<NodeId, Vec<NodeId>> = HashMap::new();
    for merge in plan {
        match *merge {
            Merge::Pair { nodes, .. } => before.extend(nodes.map(|id| (id, merger.graph.operands(id)))),
            Merge::Sum { products, .. } => {
                before.extend(products.map(|id| (id, factors(merger.graph, id).unwrap_or_default())));
            }
        }
    }
    for merge in plan {
        match *merge {
            Merge::Pair { nodes, is_of_calls } => {
                merger.merge_pair(nodes, is_of_calls, &before[&nodes[0]], &before[&nodes[1]]);
            }
            Merge::Sum { sum, products: [a, b] } => merger.merge_sum(sum, a, &before[&a], &before[&b]),
        }
    }
    let old: Vec<NodeId> = (plan.iter().rev())
        .flat_map(|merge| match *merge {
            Merge::Pair { nodes, .. } => nodes.to_vec(),
            Merge::Sum { sum, .. } => vec![sum],
        })
        .collect();
    let renamed: Vec<(NodeId, NodeId)> = plan.iter().rev().filter_map(|merge| merger.renamed(*merge)).collect();
    let names: Vec<String> = renamed.iter().map(|&(old, _)| merger.graph.node(old).name.clone()).collect();
    let parts = old.iter().map(|&id| merger.current(id));
    let merged = renamed.iter().map(|&(_, new)| new);
    let unused: Vec<NodeId> = old.iter().copied().chain(parts).chain(merged).collect();
    for id in unused {
        sweep(merger.graph, id);
    }
    for ((old, new), name) in renamed.into_iter().zip(names) {
        if merger.graph.contains(new) && !merger.graph.contains(old) {
            merger.graph.rename(new, &name);
        }
    }
}

impl Merger<'_> {
    fn add(&mut self, op: Op, operands: &[NodeId], origin: Origin) -> NodeId {
        let name = op.name();
        match self.graph.add(op, operands, name, origin) {
            Ok(id) => id,
            Err(error) => panic!("a pair is ill-typed: {error}"),
        }
    }

    fn current(&self, id: NodeId) -> NodeId {
        self.current.get(&id).copied().unwrap_or(id)
    }

    /// The two values one after the other.
    fn both(&mut self, a: NodeId, b: NodeId) -> NodeId {
        if let Some(&id) = self.both.get(&[a, b]) {
            return id;
        }
        let (x, y, origin) = (self.current(a), self.current(b), self.graph.node(a).origin.clone());
        let mut ty = self.graph.ty(x).clone();
        ty.shape[0] += self.graph.shape(y)[0];
        let id = match (self.graph.op(x).clone(), self.graph.op(y).clone()) {
            (Op::Constant { value, .. }, Op::Constant { value: other, .. }) if value == other => {
                self.add(Op::Constant { value, ty }, &[], origin)
            }
            _ => match (spread(self.graph, x), spread(self.graph, y)) {
                (Some(small), Some(other)) if small == other => {
                    self.add(Op::Broadcast { to: ty.shape }, &[small], origin)
                }
                _ => self.add(Op::Concat { axis: 0 }, &[x, y], origin),
            },
        };
        self.both.insert([a, b], id);
        id
    }

    /// Two reductions over batches of a size as one over the batch within each call: `[2N,...]` as `[2,N,...]`.
    fn merge_statistics(&mut self, pair: [NodeId; 2], first: NodeId, second: NodeId) {
        let [a, b] = pair;
        let Op::Reduce { kind, axes } = self.graph.op(a).clone() else { return };
        let (origin, kept) = (self.graph.node(a).origin.clone(), self.graph.shape(a).to_vec());
        let both = self.both(first, second);
        let one = self.graph.shape(first).to_vec();
        let by_call = self.add(Op::Reshape { to: [&[2], &one[..]].concat() }, &[both], origin.clone());
        let axes = axes.into_iter().map(|axis| axis + 1).collect();
        let merged = self.add(Op::Reduce { kind, axes }, &[by_call], origin.clone());
        // `[2,1,...]` as `[2,...]`, which is one after the other.
        let to = [&[2], &kept[1..]].concat();
        let joined = self.add(Op::Reshape { to }, &[merged], origin.clone());
        self.both.insert(pair, joined);
        for (call, id) in [a, b].into_iter().enumerate() {
            let mut start = vec![0; kept.len() + 1];
            start[0] = call;
            let end = [&[call + 1], &kept[..]].concat();
            let part = self.add(Op::Slice { start, end }, &[merged], origin.clone());
            let part = self.add(Op::Reshape { to: kept.clone() }, &[part], origin.clone());
            self.graph.replace_uses(id, part);
            self.current.insert(id, part);
        }
    }

    fn merge_pair(&mut self, pair: [NodeId; 2], is_of_calls: bool, first: &[NodeId], second: &[NodeId]) {
        let [a, b] = pair;
        if is_statistic(self.graph.op(a)) {
            return self.merge_statistics(pair, first[0], second[0]);
        }
        let sizes = pair.map(|id| self.graph.shape(id)[0]);
        let op = of_both(self.graph, a, sizes[0] + sizes[1]);
        let is_contraction = op.is_contraction();
        let mut operands: Vec<NodeId> = Vec::with_capacity(first.len());
        for (position, (&x, &y)) in first.iter().zip(second).enumerate() {
            let is_shared = position == 1 && is_contraction;
            operands.push(if is_shared { self.current(x) } else { self.both(x, y) });
        }
        let merged = self.add(op, &operands, self.graph.node(a).origin.clone());
        self.both.insert(pair, merged);
        for (id, start) in [(a, 0), (b, sizes[0])] {
            let mut end = self.graph.shape(id).to_vec();
            let mut from = vec![0; end.len()];
            (from[0], end[0]) = (start, start + end[0]);
            let part = self.add(Op::Slice { start: from, end }, &[merged], self.graph.node(id).origin.clone());
            if is_contraction || is_of_calls {
                self.graph.replace_uses(id, part);
            } else {
                let mut users = self.graph.users(id);
                users.retain(|&user| is_for_contraction(self.graph, user));
                users.into_iter().for_each(|user| self.graph.replace_operand(user, id, part));
            }
            self.current.insert(id, part);
        }
    }

    fn merge_sum(&mut self, sum: NodeId, product: NodeId, first: &[NodeId], second: &[NodeId]) {
        let mut operands: Vec<NodeId> = first.iter().zip(second).map(|(&x, &y)| self.both(x, y)).collect();
        let (op, origin) = (self.graph.op(product).clone(), self.graph.node(sum).origin.clone());
        if op == Op::MatMul {
            operands[0] = self.add(Op::Transpose { permutation: vec![1, 0] }, &operands[..1], origin.clone());
        }
        let merged = self.add(op, &operands, origin);
        self.graph.replace_uses(sum, merged);
        self.current.insert(sum, merged);
    }

    /// A node that goes and the one that takes its name.
    fn renamed(&self, merge: Merge) -> Option<(NodeId, NodeId)> {
        match merge {
            Merge::Pair { nodes, .. } => {
                let both = *self.both.get(&nodes)?;
                // The reduction, not its reshape.
                let is_reshaped = is_statistic(self.graph.op(nodes[0]));
                Some((nodes[0], if is_reshaped { self.graph.operands(both)[0] } else { both }))
            }
            Merge::Sum { sum, .. } => Some((sum, *self.current.get(&sum)?)),
        }
    }
}

/// Removes a node that nothing uses, and what only it used.
fn sweep(graph: &mut Graph, id: NodeId) {
    let mut stack = vec![id];
    while let Some(id) = stack.pop() {
        let is_probed = |graph: &Graph| graph.probes.iter().any(|probe| probe.node == id);
        if !graph.contains(id) || graph.use_count(id) > 0 || graph.is_result(id) || is_probed(graph) {
            continue;
        }
        stack.extend(graph.operands(id));
        graph.remove(id);
    }
}
