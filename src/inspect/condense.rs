//! A graph by its declarations: one box for each layer of each call, as people think of it.

use crate::ir::{Graph, NodeId, Op, Role, Span, Type};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// What one declaration came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The scope, or the node's name for what stands alone; with the role it is unique.
    pub name: String,
    pub role: Role,
    pub span: Option<Span>,
    /// In topological order.
    pub members: Vec<NodeId>,
    /// The parts whose values it uses, in ascending order.
    pub operands: Vec<usize>,
}

/// The parts of a graph, in the order in which their first nodes come. An optimiser's update of a network is one
/// part. State and constants are part of nothing.
pub fn condense(graph: &Graph) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut by_key: BTreeMap<(String, Option<Role>), usize> = BTreeMap::new();
    let mut part_of: Vec<Option<usize>> = vec![None; graph.bound()];
    for id in graph.topological() {
        let node = graph.node(id);
        if is_detail(graph, id) {
            continue;
        }
        // A gradient that is not differentiated yet belongs to the update that asks for it.
        let of_update = matches!(node.op, Op::Gradient) || matches!(node.origin.role, Role::Optimiser(_));
        let scope = node.origin.scope.as_str();
        let name = if of_update { scope.split('/').next().unwrap_or_default() } else { scope };
        let name = if name.is_empty() { node.name.clone() } else { name.to_string() };
        let key = (name.clone(), (!of_update).then(|| node.origin.role.clone()));
        let part = *by_key.entry(key).or_insert_with(|| {
            let (role, span) = (node.origin.role.clone(), node.origin.span);
            parts.push(Part { name, role, span, members: Vec::new(), operands: Vec::new() });
            parts.len() - 1
        });
        if matches!(node.origin.role, Role::Optimiser(_)) {
            parts[part].role = node.origin.role.clone();
        }
        parts[part].members.push(id);
        part_of[id.index()] = Some(part);
    }
    for (index, part) in parts.iter_mut().enumerate() {
        let uses = part.members.iter().flat_map(|&id| graph.operands(id));
        let operands: BTreeSet<usize> = uses.filter_map(|o| part_of[o.index()]).filter(|&p| p != index).collect();
        part.operands = operands.into_iter().collect();
    }
    parts
}

/// Whether a node is beside the point where declarations are shown: state, constants, the seed of draws and the
/// count of steps.
fn is_detail(graph: &Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    match &node.op {
        Op::State { .. } | Op::Constant { .. } => true,
        Op::Input { .. } => {
            let users = graph.users(id);
            !users.is_empty() && users.iter().all(|&user| matches!(graph.op(user), Op::Random { .. }))
        }
        _ => {
            let is_count = graph.updates.iter().any(|u| u.node == id) && graph.users(id).is_empty();
            is_count && node.origin.scope.is_empty() && node.ty == Type::u32([])
        }
    }
}

impl Part {
    /// The members' last node whose value leaves the part.
    pub fn result(&self, graph: &Graph) -> NodeId {
        let members: HashSet<NodeId> = self.members.iter().copied().collect();
        let leaves =
            |id: &&NodeId| graph.is_result(**id) || graph.users(**id).iter().any(|user| !members.contains(user));
        *self.members.iter().rev().find(leaves).unwrap_or(&self.members[self.members.len() - 1])
    }
}
