//! The driver of all passes that are tables of local rules.

use super::{Assumes, Log, PassContext, Report};
use crate::ir::{Graph, NodeId, Op, Origin, Type};
use crate::scalar::ScalarOp;
use std::collections::{HashSet, VecDeque};

/// Looks at the operation of one node and at what feeds it, and gives a node of the same type that may
/// stand in its place. It builds nodes only when it gives one.
type Apply = fn(&mut Rewriter<'_>, NodeId) -> Option<NodeId>;

/// A local rule: a row of its pass's table.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// The name of the function behind it.
    pub name: &'static str,
    /// What it rewrites, each as `before → after`. Of several, its function says which one it applies.
    pub rewrites: &'static [&'static str],
    pub assumes: Assumes,
    pub(super) apply: Apply,
}

/// Names are unique in a table, and tables rewrite different things.
impl PartialEq for Rule {
    fn eq(&self, other: &Rule) -> bool {
        (self.name, self.rewrites) == (other.name, other.rewrites)
    }
}

impl Eq for Rule {}

impl Rule {
    /// The rewrite that the rule's function named; a rule with one need not name it.
    fn applied(&'static self, named: Option<&'static str>) -> Applied {
        debug_assert!(named.map_or(self.rewrites.len() == 1, |n| self.rewrites.contains(&n)), "{self:?}: {named:?}");
        Applied { rule: self, rewrite: named.unwrap_or(self.rewrites[0]) }
    }
}

/// One of a rule's rewrites, as it was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    pub rule: &'static Rule,
    pub rewrite: &'static str,
}

/// A table of rules: the function, what it assumes, and what it rewrites.
macro_rules! rules {
    ($($apply:ident: $assumes:ident, $($rewrite:literal),+;)+) => {
        &[$($crate::passes::rewrite::Rule {
            name: stringify!($apply),
            rewrites: &[$($rewrite),+],
            assumes: $crate::passes::Assumes::$assumes,
            apply: $apply,
        }),+]
    };
}
pub(super) use rules;

/// A graph under rewriting, as rules see it.
///
/// A node that some [`Op::Gradient`] differentiates with respect to is *opaque*. A rule does not see
/// what computes it, because a rule that looked past it would cut the path from it to the loss: with
/// `x = neg(y)`, `loss = f(neg(x))`, the rewrite `neg(neg(y)) → y` would make `d loss / d x` zero. And
/// an opaque node is never replaced by a node that was there before, whose other uses would add to the
/// gradient. Replacing it by a new node is safe: all its uses, the gradient's included, move together.
pub(super) struct Rewriter<'g> {
    graph: &'g mut Graph,
    opaque: HashSet<NodeId>,
    /// Nodes that the current rule has built.
    created: Vec<NodeId>,
    /// Operands of nodes that are gone.
    freed: Vec<NodeId>,
    /// The origin of the node under the current rule, which the nodes it builds inherit.
    origin: Origin,
    /// What the current rule said that it applies.
    rewrite: Option<&'static str>,
    log: Log,
}

/// The nodes that some gradient is taken with respect to.
pub(super) fn differentiated(graph: &Graph) -> HashSet<NodeId> {
    graph.ids().into_iter().filter(|&id| *graph.op(id) == Op::Gradient).map(|id| graph.operands(id)[1]).collect()
}

/// Applies rules until none applies: those that the context allows. Nodes are first visited operands before users, and
/// again when they, or what feeds them, are replaced.
///
/// A replacement that is new takes the name of the node it replaces. Nodes that are left without a use
/// go.
pub(super) fn rewrite(
    graph: &mut Graph,
    rules: impl IntoIterator<Item = &'static Rule>,
    context: &PassContext,
) -> Report {
    let nodes_before = graph.len();
    let mut queue: VecDeque<NodeId> = graph.topological().into();
    let opaque = differentiated(graph);
    let mut rewriter = Rewriter {
        graph,
        opaque,
        created: Vec::new(),
        freed: Vec::new(),
        origin: Origin::default(),
        rewrite: None,
        log: Log::default(),
    };
    // No set of rules here undoes what another does, so this is never reached; if it ever were, a
    // valid graph and an unfinished rewrite would be the result.
    let limit = 256 + 16 * nodes_before;
    let rules: Vec<&'static Rule> =
        rules.into_iter().filter(|rule| context.fast_math || rule.assumes != Assumes::Finite).collect();
    let mut changed = 0;
    while let Some(id) = queue.pop_front() {
        if !rewriter.graph.contains(id) {
            continue;
        }
        let Some((new, users)) = rewriter.apply_first(&rules, id) else { continue };
        changed += 1;
        queue.extend(rewriter.created.drain(..));
        queue.push_back(new);
        // Those that used `new` before are fed by what fed them.
        queue.extend(users);
        // What has one use left may go with it, which rules ask of a node and of its operands.
        let freed = std::mem::take(&mut rewriter.freed);
        for id in freed.into_iter().filter(|&id| rewriter.graph.contains(id)) {
            if let Some(user) = rewriter.only_user(id) {
                queue.extend([id, user]);
            }
        }
        debug_assert!(changed < limit, "rules of {} do not come to an end", rewriter.graph.name);
        if changed >= limit {
            break;
        }
    }
    let log = rewriter.log;
    Report { changed, nodes_before, nodes_after: graph.len(), log }
}

impl Rewriter<'_> {
    /// Applies the first rule that fits, and gives what now stands for the node, and its users.
    fn apply_first(&mut self, rules: &[&'static Rule], id: NodeId) -> Option<(NodeId, Vec<NodeId>)> {
        for &rule in rules {
            self.created.clear();
            self.rewrite = None;
            self.origin.clone_from(&self.graph.node(id).origin);
            let Some(new) = (rule.apply)(self, id).filter(|&new| new != id) else {
                debug_assert!(self.created.is_empty(), "a rule built nodes for nothing");
                continue;
            };
            let fresh = self.created.contains(&new);
            if self.opaque.contains(&id) && !fresh {
                while let Some(unused) = self.created.pop() {
                    self.sweep(unused, None);
                }
                continue;
            }
            let users = self.graph.users(id);
            self.graph.replace_uses(id, new);
            if self.opaque.remove(&id) {
                self.opaque.insert(new);
            }
            let name = self.graph.node(id).name.clone();
            let applied = rule.applied(self.rewrite);
            self.created.iter().for_each(|&node| self.log.made(applied, node));
            if fresh {
                self.log.replaced(applied, id, new);
            }
            self.sweep(id, Some(applied));
            if fresh && !self.graph.contains(id) {
                self.graph.rename(new, &name);
            }
            return Some((new, users));
        }
        None
    }

    /// Removes a node that nothing uses, and what only it used. That is logged where a rewrite is named.
    fn sweep(&mut self, id: NodeId, by: Option<Applied>) {
        let mut stack = vec![id];
        while let Some(id) = stack.pop() {
            let probed = |graph: &Graph| graph.probes.iter().any(|p| p.node == id);
            if !self.graph.contains(id)
                || self.graph.use_count(id) > 0
                || self.graph.is_result(id)
                || probed(self.graph)
            {
                continue;
            }
            let operands = self.graph.operands(id);
            self.freed.extend(&operands);
            stack.extend(operands);
            self.graph.remove(id);
            if let Some(by) = by {
                self.log.removed(by, id);
            }
        }
    }

    // Looking

    /// The operation of the node under the rule.
    pub fn root(&self, id: NodeId) -> &Op {
        self.graph.op(id)
    }

    /// The operation that computes an operand; nothing where that is opaque.
    pub fn op(&self, id: NodeId) -> Option<&Op> {
        if self.opaque.contains(&id) { None } else { Some(self.graph.op(id)) }
    }

    pub fn operands(&self, id: NodeId) -> Vec<NodeId> {
        self.graph.operands(id)
    }

    /// The first operand of a node.
    pub fn operand(&self, id: NodeId) -> NodeId {
        self.graph.operands(id)[0]
    }

    pub fn ty(&self, id: NodeId) -> &Type {
        self.graph.ty(id)
    }

    pub fn shape(&self, id: NodeId) -> &[usize] {
        self.graph.shape(id)
    }

    /// The value of a constant operand.
    pub fn constant(&self, id: NodeId) -> Option<f64> {
        match self.op(id)? {
            Op::Constant { value, .. } => Some(value.0),
            _ => None,
        }
    }

    pub fn is(&self, id: NodeId, value: f64) -> bool {
        self.constant(id) == Some(value)
    }

    /// The operands of an operand that is a certain scalar operation.
    pub fn scalar<const N: usize>(&self, id: NodeId, op: ScalarOp) -> Option<[NodeId; N]> {
        if *self.op(id)? != Op::Scalar(op) {
            return None;
        }
        self.graph.operands(id).try_into().ok()
    }

    /// The operands of a commutative binary operation, in either order.
    pub fn either(&self, id: NodeId, op: ScalarOp) -> Option<[[NodeId; 2]; 2]> {
        let [a, b] = self.scalar(id, op)?;
        Some([[a, b], [b, a]])
    }

    /// The operand of a unary operation.
    pub fn unary(&self, id: NodeId, op: ScalarOp) -> Option<NodeId> {
        self.scalar(id, op).map(|[x]| x)
    }

    pub fn users(&self, id: NodeId) -> Vec<NodeId> {
        self.graph.users(id)
    }

    /// Whether nothing but one operand position uses a node, so that it goes when that use goes.
    pub fn used_once(&self, id: NodeId) -> bool {
        self.graph.use_count(id) == 1 && !self.graph.is_result(id)
    }

    /// The only user of a node.
    pub fn only_user(&self, id: NodeId) -> Option<NodeId> {
        if self.used_once(id) { self.graph.users(id).first().copied() } else { None }
    }

    // Building

    /// Says which of the rule's rewrites is applied, should it be; of several calls the last counts.
    pub fn by(&mut self, rewrite: &'static str) {
        self.rewrite = Some(rewrite);
    }

    /// Adds a node.
    pub fn add(&mut self, op: Op, operands: &[NodeId]) -> NodeId {
        let name = op.name();
        match self.graph.add(op, operands, name, self.origin.clone()) {
            Ok(id) => {
                self.created.push(id);
                id
            }
            Err(error) => panic!("a rule built an ill-typed node: {error}"),
        }
    }

    pub fn apply(&mut self, op: ScalarOp, operands: &[NodeId]) -> NodeId {
        self.add(Op::Scalar(op), operands)
    }

    /// A constant of the type of `like`.
    pub fn constant_like(&mut self, value: f64, like: NodeId) -> NodeId {
        let Type { dtype, shape } = self.graph.ty(like).clone();
        self.add(Op::constant(value, dtype, shape), &[])
    }

    /// A constant under another shape.
    pub fn resplat(&mut self, id: NodeId, shape: &[usize]) -> Option<NodeId> {
        let value = self.constant(id)?;
        let dtype = self.graph.ty(id).dtype;
        Some(self.add(Op::constant(value, dtype, shape), &[]))
    }

    /// `x` under another shape; `x` itself where the shape is its own.
    pub fn reshape(&mut self, x: NodeId, to: &[usize]) -> NodeId {
        if self.shape(x) == to { x } else { self.add(Op::Reshape { to: to.to_vec() }, &[x]) }
    }

    /// `x` repeated along its dimensions of size 1; `x` itself where nothing is to repeat.
    pub fn broadcast(&mut self, x: NodeId, to: &[usize]) -> NodeId {
        if self.shape(x) == to { x } else { self.add(Op::Broadcast { to: to.to_vec() }, &[x]) }
    }
}

/// Puts a new node in the place of another, whose users and name it gets.
pub fn replace(graph: &mut Graph, id: NodeId, new: NodeId) {
    let name = graph.node(id).name.clone();
    graph.replace_uses(id, new);
    graph.remove(id);
    graph.rename(new, &name);
}
