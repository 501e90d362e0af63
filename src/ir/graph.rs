//! The graph: nodes on petgraph, operands as ordered edges.

use super::{Op, Origin, Type, TypeError, infer};
use petgraph::Direction;
use petgraph::stable_graph::{NodeIndex, StableDiGraph};
use petgraph::visit::EdgeRef;
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet};

/// A handle to a node of one graph. It stays valid until the node is removed.
pub type NodeId = NodeIndex<u32>;

/// An operation with its one result.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub op: Op,
    pub ty: Type,
    /// Unique in the graph: letters, digits and any of `_ . / -`.
    pub name: String,
    pub origin: Origin,
}

/// A value given to the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    pub name: String,
    pub node: NodeId,
}

/// The value that a state tensor has after the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    pub state: String,
    pub node: NodeId,
}

/// A value worth looking at, such as a parameter's gradient. It is not computed unless it is made an
/// output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    pub name: String,
    pub node: NodeId,
}

/// Why a node could not be added as it was stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    #[error("the name `{0}` is taken")]
    NameTaken(String),
    #[error(transparent)]
    Operands(#[from] TypeError),
    #[error("{op}: declared as {declared}, but its operands and attributes give {inferred}")]
    WrongType { op: &'static str, declared: Type, inferred: Type },
}

/// A function (state, inputs) → (state', outputs).
///
/// Two graphs are equal when they differ in their handles at most: they have the same name, the same
/// outputs, updates and probes and, in the order of [`Graph::topological`], the same nodes with operands
/// of the same names. In other words, when their text forms with origins are the same.
#[derive(Clone, Default)]
pub struct Graph {
    pub name: String,
    pub outputs: Vec<Output>,
    pub updates: Vec<Update>,
    pub probes: Vec<Probe>,
    /// An edge goes from an operand to its user; its weight is the operand's position.
    dag: StableDiGraph<Node, usize>,
    names: HashSet<String>,
    /// The next number to try for a name that is taken.
    suffixes: HashMap<String, usize>,
}

impl Graph {
    pub fn new(name: impl Into<String>) -> Self {
        Graph { name: name.into(), ..Graph::default() }
    }

    /// Adds a node; its type is inferred. A name that is taken gets a number appended.
    ///
    /// # Errors
    /// When the operands do not fit the operation.
    pub fn add(&mut self, op: Op, operands: &[NodeId], name: &str, origin: Origin) -> Result<NodeId, TypeError> {
        let types: Vec<&Type> = operands.iter().map(|&id| &self.dag[id].ty).collect();
        let ty = infer(&op, &types)?;
        let name = self.unique_name(name);
        let id = self.dag.add_node(Node { op, ty, name, origin });
        for (position, &operand) in operands.iter().enumerate() {
            self.dag.add_edge(operand, id, position);
        }
        Ok(id)
    }

    /// Adds a node under exactly this name, for readers of stored graphs. Where a type is declared, the
    /// inferred one must be the same.
    ///
    /// # Errors
    /// When the name is taken, the operands do not fit the operation, or the types differ.
    pub fn add_exact(
        &mut self,
        op: Op,
        operands: &[NodeId],
        name: &str,
        declared: Option<&Type>,
        origin: Origin,
    ) -> Result<NodeId, AddError> {
        if self.names.contains(name) {
            return Err(AddError::NameTaken(name.into()));
        }
        let types: Vec<&Type> = operands.iter().map(|&id| &self.dag[id].ty).collect();
        let inferred = infer(&op, &types)?;
        match declared {
            Some(declared) if *declared != inferred => {
                Err(AddError::WrongType { op: op.name(), declared: declared.clone(), inferred })
            }
            _ => Ok(self.add(op, operands, name, origin)?),
        }
    }

    fn unique_name(&mut self, wanted: &str) -> String {
        if self.names.insert(wanted.to_string()) {
            return wanted.to_string();
        }
        let next = self.suffixes.entry(wanted.to_string()).or_insert(1);
        loop {
            let candidate = format!("{wanted}.{next}");
            *next += 1;
            if self.names.insert(candidate.clone()) {
                return candidate;
            }
        }
    }

    /// The node behind a handle.
    ///
    /// # Panics
    /// When the node was removed: a broken invariant of the caller.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.dag[id]
    }

    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.dag[id]
    }

    pub fn op(&self, id: NodeId) -> &Op {
        &self.dag[id].op
    }

    pub fn ty(&self, id: NodeId) -> &Type {
        &self.dag[id].ty
    }

    pub fn shape(&self, id: NodeId) -> &[usize] {
        &self.dag[id].ty.shape
    }

    pub fn contains(&self, id: NodeId) -> bool {
        self.dag.contains_node(id)
    }

    pub fn len(&self) -> usize {
        self.dag.node_count()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Handles of all nodes, in the order in which they were added.
    pub fn ids(&self) -> Vec<NodeId> {
        self.dag.node_indices().collect()
    }

    /// One more than the largest index of a node: the length of a table indexed by `NodeId::index`.
    pub fn bound(&self) -> usize {
        self.dag.node_indices().next_back().map_or(0, |id| id.index() + 1)
    }

    /// The operands of a node, in order.
    pub fn operands(&self, id: NodeId) -> Vec<NodeId> {
        let mut edges: Vec<(usize, NodeId)> =
            self.dag.edges_directed(id, Direction::Incoming).map(|e| (*e.weight(), e.source())).collect();
        edges.sort_unstable_by_key(|(position, _)| *position);
        edges.into_iter().map(|(_, source)| source).collect()
    }

    /// The positions of a node's operands, sorted: `0..n` unless the graph is broken.
    pub(super) fn operand_positions(&self, id: NodeId) -> Vec<usize> {
        let mut positions: Vec<usize> = self.dag.edges_directed(id, Direction::Incoming).map(|e| *e.weight()).collect();
        positions.sort_unstable();
        positions
    }

    /// The bare graph, for tests that break it.
    #[cfg(test)]
    pub(super) fn dag_mut(&mut self) -> &mut StableDiGraph<Node, usize> {
        &mut self.dag
    }

    /// The nodes that use a node's value, in the order of their indices, each once.
    pub fn users(&self, id: NodeId) -> Vec<NodeId> {
        let users: BTreeSet<NodeId> = self.dag.neighbors_directed(id, Direction::Outgoing).collect();
        users.into_iter().collect()
    }

    /// Whether exactly one node uses a node's value, in whichever positions.
    pub fn has_one_user(&self, id: NodeId) -> bool {
        let mut users = self.dag.neighbors_directed(id, Direction::Outgoing);
        users.next().is_some_and(|first| users.all(|user| user == first))
    }

    /// How many operand positions a node's value fills.
    pub fn use_count(&self, id: NodeId) -> usize {
        self.dag.edges_directed(id, Direction::Outgoing).count()
    }

    /// Whether the node's value leaves the graph, as an output or an update.
    pub fn is_result(&self, id: NodeId) -> bool {
        self.outputs.iter().any(|o| o.node == id) || self.updates.iter().any(|u| u.node == id)
    }

    /// The node of that name.
    pub fn find(&self, name: &str) -> Option<NodeId> {
        self.dag.node_indices().find(|&id| self.dag[id].name == name)
    }

    /// All nodes, operands before users. Among nodes that are ready the oldest comes first, so the
    /// order is a function of the graph alone.
    ///
    /// # Panics
    /// On a cycle, which no way of building a graph can make.
    pub fn topological(&self) -> Vec<NodeId> {
        match self.try_topological() {
            Ok(order) => order,
            Err(id) => panic!("the graph {} has a cycle through {}", self.name, self.node(id).name),
        }
    }

    /// The nodes that `y` depends on and `y` itself, in the order in which [`Graph::topological`] has them; in time
    /// that their number sets, not that of the graph.
    pub fn topological_to(&self, y: NodeId) -> Vec<NodeId> {
        let mut missing = HashMap::from([(y, 0usize)]);
        let mut ready = BinaryHeap::new();
        let mut stack = vec![y];
        while let Some(id) = stack.pop() {
            let operands: Vec<NodeId> = self.dag.neighbors_directed(id, Direction::Incoming).collect();
            missing.insert(id, operands.len());
            if operands.is_empty() {
                ready.push(Reverse(id));
            }
            for operand in operands {
                missing.entry(operand).or_insert_with(|| {
                    stack.push(operand);
                    0
                });
            }
        }
        let mut order = Vec::with_capacity(missing.len());
        while let Some(Reverse(id)) = ready.pop() {
            order.push(id);
            for user in self.dag.neighbors_directed(id, Direction::Outgoing) {
                if let Some(left) = missing.get_mut(&user) {
                    *left -= 1;
                    if *left == 0 {
                        ready.push(Reverse(user));
                    }
                }
            }
        }
        order
    }

    /// As [`Graph::topological`], for graphs that may be broken.
    ///
    /// # Errors
    /// A node of a cycle, or one that depends on a cycle.
    pub(super) fn try_topological(&self) -> Result<Vec<NodeId>, NodeId> {
        let mut missing = vec![0usize; self.bound()];
        let mut ready = BinaryHeap::new();
        for id in self.dag.node_indices() {
            let operands = self.dag.edges_directed(id, Direction::Incoming).count();
            missing[id.index()] = operands;
            if operands == 0 {
                ready.push(Reverse(id));
            }
        }
        let mut order = Vec::with_capacity(self.len());
        while let Some(Reverse(id)) = ready.pop() {
            order.push(id);
            for user in self.dag.neighbors_directed(id, Direction::Outgoing) {
                missing[user.index()] -= 1;
                if missing[user.index()] == 0 {
                    ready.push(Reverse(user));
                }
            }
        }
        match self.dag.node_indices().find(|id| missing[id.index()] > 0) {
            None => Ok(order),
            Some(id) => Err(id),
        }
    }

    /// [`Graph::topological`], or the order of indices where a cycle leaves no other: for showing a
    /// graph, broken or not.
    pub(super) fn display_order(&self) -> Vec<NodeId> {
        self.try_topological().unwrap_or_else(|_| self.ids())
    }

    /// Every use of `old`, as an operand, output, update or probe, becomes a use of `new`.
    /// The types must be equal. `new` itself keeps its operands, also where it uses `old`.
    pub fn replace_uses(&mut self, old: NodeId, new: NodeId) {
        debug_assert_eq!(self.ty(old), self.ty(new), "{} replaced by {}", self.node(old).name, self.node(new).name);
        let edges: Vec<_> = self
            .dag
            .edges_directed(old, Direction::Outgoing)
            .filter(|e| e.target() != new)
            .map(|e| (e.id(), e.target(), *e.weight()))
            .collect();
        for (edge, user, position) in edges {
            self.dag.remove_edge(edge);
            self.dag.add_edge(new, user, position);
        }
        let slots = (self.outputs.iter_mut().map(|o| &mut o.node))
            .chain(self.updates.iter_mut().map(|u| &mut u.node))
            .chain(self.probes.iter_mut().map(|p| &mut p.node));
        for slot in slots.filter(|slot| **slot == old) {
            *slot = new;
        }
    }

    /// Every use of `old` by `user` becomes a use of `new`, of equal type.
    pub fn replace_operand(&mut self, user: NodeId, old: NodeId, new: NodeId) {
        debug_assert_eq!(self.ty(old), self.ty(new), "{} replaced by {}", self.node(old).name, self.node(new).name);
        let edges: Vec<_> = (self.dag.edges_connecting(old, user)).map(|e| (e.id(), *e.weight())).collect();
        for (edge, position) in edges {
            self.dag.remove_edge(edge);
            self.dag.add_edge(new, user, position);
        }
    }

    /// The operand of `user` at a position becomes `new`, of equal type.
    pub fn replace_operand_at(&mut self, user: NodeId, position: usize, new: NodeId) {
        let edge = self.dag.edges_directed(user, Direction::Incoming).find(|edge| *edge.weight() == position);
        if let Some((edge, old)) = edge.map(|edge| (edge.id(), edge.source())) {
            debug_assert_eq!(self.ty(old), self.ty(new), "{} replaced by {}", self.node(old).name, self.node(new).name);
            self.dag.remove_edge(edge);
            self.dag.add_edge(new, user, position);
        }
    }

    /// Gives a node another name; one that is taken gets a number appended.
    pub fn rename(&mut self, id: NodeId, wanted: &str) {
        let old = std::mem::take(&mut self.dag[id].name);
        self.names.remove(&old);
        self.dag[id].name = self.unique_name(wanted);
    }

    /// Removes a node that nothing uses.
    ///
    /// # Panics
    /// When something does use it, or it was removed before: a broken invariant of the caller.
    pub fn remove(&mut self, id: NodeId) {
        let used = self.dag.neighbors_directed(id, Direction::Outgoing).next().is_some()
            || self.is_result(id)
            || self.probes.iter().any(|p| p.node == id);
        assert!(!used, "{} is removed while in use", self.node(id).name);
        if let Some(node) = self.dag.remove_node(id) {
            self.names.remove(&node.name);
        }
    }

    /// The nodes whose values leave the graph: outputs and updates.
    pub fn results(&self) -> Vec<NodeId> {
        self.outputs.iter().map(|o| o.node).chain(self.updates.iter().map(|u| u.node)).collect()
    }

    /// By the index of a node, whether some output or update depends on it.
    pub fn live(&self) -> Vec<bool> {
        let mut live = vec![false; self.bound()];
        let mut stack = self.results();
        while let Some(id) = stack.pop() {
            if !std::mem::replace(&mut live[id.index()], true) {
                stack.extend(self.dag.neighbors_directed(id, Direction::Incoming));
            }
        }
        live
    }

    /// Removes every node that no output and no update depends on, and the probes on such nodes.
    /// Returns how many nodes went.
    pub fn remove_dead(&mut self) -> usize {
        let live = self.live();
        let dead: Vec<NodeId> = self.dag.node_indices().filter(|id| !live[id.index()]).collect();
        for &id in &dead {
            if let Some(node) = self.dag.remove_node(id) {
                self.names.remove(&node.name);
            }
        }
        self.probes.retain(|p| live[p.node.index()]);
        dead.len()
    }
}

impl PartialEq for Graph {
    fn eq(&self, other: &Self) -> bool {
        // The order decides how a graph is scheduled, so it is part of what a graph is.
        let (ours, theirs) = (self.display_order(), other.display_order());
        if self.name != other.name || ours.len() != theirs.len() {
            return false;
        }
        let twin: HashMap<NodeId, NodeId> = ours.iter().copied().zip(theirs.iter().copied()).collect();
        let same = |a: NodeId, b: NodeId| twin.get(&a) == Some(&b);
        let same_nodes = ours.iter().zip(&theirs).all(|(&a, &b)| {
            let (left, right) = (self.operands(a), other.operands(b));
            self.node(a) == other.node(b)
                && left.len() == right.len()
                && left.into_iter().zip(right).all(|(a, b)| same(a, b))
        });
        same_nodes
            && self.outputs.len() == other.outputs.len()
            && (self.outputs.iter().zip(&other.outputs)).all(|(a, b)| a.name == b.name && same(a.node, b.node))
            && self.updates.len() == other.updates.len()
            && (self.updates.iter().zip(&other.updates)).all(|(a, b)| a.state == b.state && same(a.node, b.node))
            && self.probes.len() == other.probes.len()
            && (self.probes.iter().zip(&other.probes)).all(|(a, b)| a.name == b.name && same(a.node, b.node))
    }
}
