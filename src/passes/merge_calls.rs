//! What runs twice with the same weights, as one with twice the batch.

mod apply;

use super::rewrite::differentiated;
use super::{PassContext, Report};
use crate::ir::{DType, Graph, NodeId, Op, Real, ReduceKind, Type, infer};
use crate::scalar::ScalarOp;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};

/// Computes two calls of the same layers as one, where [`PassContext::merge_calls`] asks for it: contractions that share
/// a filter or matrix and do not depend on each other become one whose other operand holds both batches, and so does what
/// is computed in the same way of their results for a further such contraction. What is each call's own stays so: its
/// statistics over its batch (where [`PassContext::deviations`], by one reduction of both batches as `[2,N,...]`, of which
/// both calls' variances and the like are computed at once), its draws, and elementwise operations for anything else, which
/// recompute of the halves what they need. Accumulated gradients, the sum of two products over the batches, become one
/// product over both.
///
/// ```text
/// %a: f32[4,8] = matmul %x %w                 %xy: f32[8,5] = concat %x %y axis=0
/// %b: f32[4,8] = matmul %y %w          →      %ab: f32[8,8] = matmul %xy %w
/// %r: f32[4,8] = tanh %a                      %rs: f32[8,8] = tanh %ab
/// %s: f32[4,8] = tanh %b                      %cd: f32[8,2] = matmul %rs %v
/// %c: f32[4,2] = matmul %r %v                 %c: f32[4,2] = slice %cd start=[0,0] end=[4,2]
/// %d: f32[4,2] = matmul %s %v                 %d: f32[4,2] = slice %cd start=[4,0] end=[8,2]
/// ```
///
/// How it stays acyclic: every node has a time, later than its operands', and the two of a pair have the same. A pair is
/// made where the earlier one can be put off, which it can unless the later one depends on it.
pub fn merge_calls(graph: &mut Graph, context: &PassContext) -> Report {
    let nodes_before = graph.len();
    let mut changed = 0;
    // A gradient would be of one of a pair, and what is merged computes both.
    if context.merge_calls && differentiated(graph).is_empty() {
        // Four calls are two pairs, and then one.
        loop {
            let order = graph.topological();
            let plan = Pairing::new(graph, &order, context.deviations).plan(&order);
            if plan.is_empty() {
                break;
            }
            changed += plan.len();
            apply::apply(graph, &plan);
        }
    }
    Report::new(changed, nodes_before, graph)
}

/// Of the contractions with one operand, how many are tried at most with each other one: those before it.
const MOST_CANDIDATES: usize = 4;

/// How many nodes that another is computed of are looked at for their side.
const MOST_ANCESTORS: usize = 64;

/// Which of a pair a node is; its batch comes first or second.
type Side = usize;

/// What a node does, its batch's size left out: two nodes of equal keys on the two sides of a pair do the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    op: Op,
    /// The result's shape without the batch.
    tail: Vec<usize>,
    feeds: Vec<Feed>,
}

/// What a key says of an operand.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Feed {
    /// One of this pair.
    Pair(usize),
    /// What both share: a contraction's filter or matrix.
    Shared(NodeId),
    Constant(Real, DType),
    /// Something of its own for each side, or repeated for the whole batch: the two are put one after the other.
    Own,
}

/// What is merged: two nodes by one with both batches, or a sum of two products over them by one product.
#[derive(Debug, Clone, Copy)]
enum Merge {
    Pair {
        nodes: [NodeId; 2],
        /// Whether they are one value for each call: see [`Pairing::of_calls`].
        is_of_calls: bool,
    },
    Sum {
        sum: NodeId,
        products: [NodeId; 2],
    },
}

/// Pairs under construction.
struct Pairing<'g> {
    graph: &'g Graph,
    /// By a node's index its place in the graph's order.
    rank: Vec<usize>,
    /// By a node's index.
    time: Vec<usize>,
    pairs: Vec<[NodeId; 2]>,
    /// Each node's pair, and which of it it is.
    pair_of: HashMap<NodeId, (usize, Side)>,
    /// The pairs of one value for each call: statistics and what is computed of them alone.
    of_calls: HashSet<usize>,
    /// Whether statistics of both sides are taken by one reduction.
    takes_statistics: bool,
    /// How many more nodes may be looked at in search of dependences, so that all takes near-linear time.
    budget: usize,
}

impl<'g> Pairing<'g> {
    fn new(graph: &'g Graph, order: &[NodeId], takes_statistics: bool) -> Self {
        let (mut rank, mut time) = (vec![0; graph.bound()], vec![0; graph.bound()]);
        for (place, &id) in order.iter().enumerate() {
            rank[id.index()] = place;
            time[id.index()] = graph.operands(id).into_iter().map(|x| time[x.index()] + 1).max().unwrap_or(0);
        }
        Pairing {
            graph,
            rank,
            time,
            pairs: Vec::new(),
            pair_of: HashMap::new(),
            of_calls: HashSet::new(),
            takes_statistics,
            budget: 64 * order.len(),
        }
    }

    /// All that can be merged, in an order in which operands come before users.
    fn plan(mut self, order: &[NodeId]) -> Vec<Merge> {
        let mut waiting: HashMap<Key, Vec<NodeId>> = HashMap::new();
        for &id in order.iter().filter(|&&id| is_batched_contraction(self.graph, id)) {
            if self.pair_of.contains_key(&id) {
                continue;
            }
            let Some(key) = self.contraction_key(id) else { continue };
            let candidates = waiting.entry(key).or_default();
            candidates.retain(|other| !self.pair_of.contains_key(other));
            if let Some(&other) = candidates.iter().rev().find(|&&other| self.is_possible(other, id)) {
                // A gradient's sides are those of the values that it is computed of, so that products of both add up.
                let [first, second] = if self.side_of(other) == Some(1) { [id, other] } else { [other, id] };
                self.grow(first, second);
            } else {
                candidates.push(id);
                if candidates.len() > MOST_CANDIDATES {
                    candidates.remove(0);
                }
            }
        }
        let mut plan: Vec<(usize, usize, Merge)> = Vec::new();
        let at = |id: NodeId| (self.time[id.index()], self.rank[id.index()]);
        for (number, &nodes) in self.pairs.iter().enumerate() {
            let (time, rank) = at(nodes[0]);
            plan.push((time, rank, Merge::Pair { nodes, is_of_calls: self.of_calls.contains(&number) }));
        }
        let joined = self.joined();
        for &id in order.iter().filter(|id| !self.pair_of.contains_key(id)) {
            if let Some(products) = self.accumulated(id, &joined) {
                let (time, rank) = at(id);
                plan.push((time, rank, Merge::Sum { sum: id, products }));
            }
        }
        plan.sort_unstable_by_key(|&(time, rank, _)| (time, rank));
        plan.into_iter().map(|(_, _, merge)| merge).collect()
    }

    /// Of the paired values that a node is computed of, the side of the nearest.
    fn side_of(&self, id: NodeId) -> Option<Side> {
        let mut queue = VecDeque::from([id]);
        let mut seen = HashSet::from([id]);
        while let Some(id) = queue.pop_front().filter(|_| seen.len() < MOST_ANCESTORS) {
            if let Some(&(_, side)) = self.pair_of.get(&id) {
                return Some(side);
            }
            queue.extend(self.graph.operands(id).into_iter().filter(|&operand| seen.insert(operand)));
        }
        None
    }

    /// Makes a pair, and pairs of what both sides go on with.
    fn grow(&mut self, first: NodeId, second: NodeId) {
        let mut next = self.pairs.len();
        self.pair(first, second);
        while let Some(&[first, second]) = self.pairs.get(next) {
            next += 1;
            let mut theirs: HashMap<Key, VecDeque<NodeId>> = HashMap::new();
            for user in self.graph.users(second) {
                if let Some(key) = self.key(user, 1) {
                    theirs.entry(key).or_default().push_back(user);
                }
            }
            for user in self.graph.users(first) {
                let Some(others) = self.key(user, 0).and_then(|key| theirs.get_mut(&key)) else { continue };
                while others.front().is_some_and(|other| self.pair_of.contains_key(other)) {
                    others.pop_front();
                }
                // A gradient may be scaled as a value is normalised: the nearest in time is what corresponds.
                let is_free = |other: &NodeId| *other != user && !self.pair_of.contains_key(other);
                let mut others: Vec<NodeId> = others.iter().copied().filter(is_free).take(MOST_CANDIDATES).collect();
                others.sort_by_key(|other| self.time[user.index()].abs_diff(self.time[other.index()]));
                for other in others {
                    if !self.is_added_up(user, other) && self.is_possible(user, other) {
                        self.pair(user, other);
                        break;
                    }
                }
            }
        }
    }

    fn pair(&mut self, first: NodeId, second: NodeId) {
        let number = self.pairs.len();
        let follows =
            |operand: &NodeId| self.pair_of.get(operand).is_some_and(|(pair, _)| self.of_calls.contains(pair));
        let op = self.graph.op(first);
        if is_statistic(op) || matches!(op, Op::Scalar(_)) && self.graph.operands(first).iter().any(follows) {
            self.of_calls.insert(number);
        }
        self.pairs.push([first, second]);
        self.pair_of.insert(first, (number, 0));
        self.pair_of.insert(second, (number, 1));
    }

    /// A contraction's key where nothing is known of the operand with the batch.
    fn contraction_key(&self, id: NodeId) -> Option<Key> {
        let operands = self.graph.operands(id);
        let tail = self.graph.shape(operands[0])[1..].to_vec();
        let feeds = vec![Feed::Own, Feed::Shared(operands[1])];
        Some(Key { op: self.graph.op(id).clone(), tail, feeds })
    }

    /// The key of a user of the given side; none for what cannot be merged or is.
    fn key(&self, id: NodeId, side: Side) -> Option<Key> {
        if self.pair_of.contains_key(&id) {
            return None;
        }
        let (graph, operands) = (self.graph, self.graph.operands(id));
        let (&batch, tail) = graph.shape(id).split_first()?;
        let mut op = graph.op(id).clone();
        let keeps_batch = match &mut op {
            Op::Scalar(_) | Op::Convert { .. } => true,
            Op::Broadcast { to } | Op::Reshape { to } => {
                to[0] = 0;
                graph.shape(operands[0]).first() == Some(&batch)
            }
            Op::Transpose { permutation } => permutation[0] == 0,
            Op::Reduce { axes, .. } => self.takes_statistics || !axes.contains(&0),
            _ => is_batched_contraction(graph, id),
        };
        if !keeps_batch {
            return None;
        }
        let mut feeds = Vec::with_capacity(operands.len());
        for (position, &operand) in operands.iter().enumerate() {
            feeds.push(match self.pair_of.get(&operand) {
                _ if position == 1 && op.is_contraction() => Feed::Shared(operand),
                Some(&(pair, of)) => {
                    if of != side {
                        return None;
                    }
                    Feed::Pair(pair)
                }
                None => match graph.op(operand) {
                    Op::Constant { value, ty } => Feed::Constant(*value, ty.dtype),
                    _ => Feed::Own,
                },
            });
        }
        // Each side goes on with its own statistics, but for what needs nothing else.
        let is_of_call = |feed: &Feed| matches!(feed, Feed::Pair(pair) if self.of_calls.contains(pair));
        let needs_nothing_else = |feed: &Feed| is_of_call(feed) || matches!(feed, Feed::Constant(..));
        if feeds.iter().any(is_of_call) && !(matches!(op, Op::Scalar(_)) && feeds.iter().all(needs_nothing_else)) {
            return None;
        }
        // What does not read the pair with its batch is no user for this purpose: a shared operand.
        feeds.iter().any(|feed| matches!(feed, Feed::Pair(_))).then(|| Key { op, tail: tail.to_vec(), feeds })
    }

    /// Whether the two are sums over the batch that something adds up: these become one sum over both batches.
    fn is_added_up(&self, a: NodeId, b: NodeId) -> bool {
        let users = self.graph.users(a);
        is_statistic(self.graph.op(a)) && self.graph.users(b).iter().any(|user| users.contains(user))
    }

    /// Whether the two can be one: what they are put together to is not too large, and the earlier one can be put off
    /// to the later one's time, which it then is.
    fn is_possible(&mut self, a: NodeId, b: NodeId) -> bool {
        self.fits(a, b) && self.bring_together(a, b)
    }

    fn fits(&self, a: NodeId, b: NodeId) -> bool {
        let graph = self.graph;
        let joined = |a: NodeId, b: NodeId| infer(&Op::Concat { axis: 0 }, &[graph.ty(a), graph.ty(b)]).ok();
        let Some(together) = joined(a, b) else { return false };
        let of_batch = graph.operands(a).len() - usize::from(graph.op(a).is_contraction());
        let mut types = Vec::new();
        for (position, (x, y)) in graph.operands(a).into_iter().zip(graph.operands(b)).enumerate() {
            match if position < of_batch { joined(x, y) } else { Some(graph.ty(x).clone()) } {
                Some(ty) => types.push(ty),
                None => return false,
            }
        }
        if is_statistic(graph.op(a)) {
            // Both batches as one more dimension.
            let batch = |id: NodeId| graph.shape(graph.operands(id)[0])[0];
            return batch(a) == batch(b) && !types.is_empty();
        }
        let op = of_both(graph, a, together.shape[0]);
        infer(&op, &types.iter().collect::<Vec<_>>()).is_ok_and(|ty| ty == together)
    }

    /// What uses a node or the other one of its pair.
    fn users(&self, id: NodeId) -> Vec<NodeId> {
        match self.pair_of.get(&id) {
            Some(&(pair, _)) => self.pairs[pair].iter().flat_map(|&id| self.graph.users(id)).collect(),
            None => self.graph.users(id),
        }
    }

    fn mate(&self, id: NodeId) -> Option<NodeId> {
        self.pair_of.get(&id).map(|&(pair, side)| self.pairs[pair][1 - side])
    }

    /// Gives both nodes the time of the later one, and whatever follows the earlier one later times, unless the later
    /// one is among that.
    fn bring_together(&mut self, a: NodeId, b: NodeId) -> bool {
        let time = |this: &Self, id: NodeId| this.time[id.index()];
        let (early, late) = if time(self, a) <= time(self, b) { (a, b) } else { (b, a) };
        let until = time(self, late);
        if time(self, early) < until {
            // What is as late as `late` leads to later nodes only.
            let mut seen = HashSet::from([early]);
            let mut stack = vec![early];
            while let Some(id) = stack.pop() {
                for user in self.users(id) {
                    if user == late || self.budget == 0 {
                        return false;
                    }
                    self.budget -= 1;
                    if time(self, user) < until && seen.insert(user) {
                        stack.push(user);
                    }
                }
            }
        }
        // By the times that they had, so that all that a node follows has its time when the node's turn comes.
        let mut queue = BinaryHeap::from([Reverse((time(self, early), early))]);
        self.time[early.index()] = until;
        let mut is_queued = HashSet::new();
        while let Some(Reverse((_, id))) = queue.pop() {
            let at = time(self, id);
            for user in self.users(id) {
                self.budget = self.budget.saturating_sub(1);
                let before = time(self, user);
                if before > at {
                    continue;
                }
                self.time[user.index()] = at + 1;
                let mate = self.mate(user);
                if let Some(mate) = mate {
                    self.time[mate.index()] = at + 1;
                }
                // The two of a pair have one turn.
                if is_queued.insert(mate.map_or(user, |mate| mate.min(user))) {
                    queue.push(Reverse((before, user)));
                }
            }
        }
        true
    }

    /// The values that contractions of both batches need one after the other.
    fn joined(&self) -> HashSet<[NodeId; 2]> {
        let contractions = self.pairs.iter().filter(|pair| self.graph.op(pair[0]).is_contraction());
        contractions.map(|pair| pair.map(|id| self.graph.operands(id)[0])).collect()
    }

    /// The two products or sums over a batch that a node adds up, the first batch's first, where both batches lie one
    /// after the other anyway.
    fn accumulated(&self, id: NodeId, joined: &HashSet<[NodeId; 2]>) -> Option<[NodeId; 2]> {
        let graph = self.graph;
        if *graph.op(id) != Op::Scalar(ScalarOp::Add) {
            return None;
        }
        let products: [NodeId; 2] = graph.operands(id).try_into().ok()?;
        let [a, b] = products;
        let is_only_here = |id: NodeId| {
            graph.use_count(id) == 1 && !graph.is_result(id) && graph.probes.iter().all(|probe| probe.node != id)
        };
        let is_paired = |id: NodeId| self.pair_of.contains_key(&id);
        if a == b || graph.op(a) != graph.op(b) || is_paired(a) || is_paired(b) || !is_only_here(a) || !is_only_here(b)
        {
            return None;
        }
        let mut swapped = Vec::new();
        for (x, y) in factors(graph, a)?.into_iter().zip(factors(graph, b)?) {
            let side = |id: NodeId| self.pair_of.get(&id).map(|&(_, side)| side);
            let is_pair = self.mate(x) == Some(y);
            let is_joined = |pair: [NodeId; 2]| joined.contains(&pair) && graph.op(a).is_contraction();
            swapped.push(match (is_pair, side(x)) {
                (true, Some(side)) => side == 1,
                _ if is_joined([x, y]) => false,
                _ if is_joined([y, x]) => true,
                _ => return None,
            });
        }
        let both = factors(graph, a)?.into_iter().zip(factors(graph, b)?);
        let both = both.map(|(x, y)| infer(&Op::Concat { axis: 0 }, &[graph.ty(x), graph.ty(y)]).ok());
        let both = both.collect::<Option<Vec<Type>>>()?;
        let fit = *graph.op(a) == Op::MatMul || infer(graph.op(a), &both.iter().collect::<Vec<_>>()).is_ok();
        let products = if swapped[0] { [b, a] } else { [a, b] };
        (fit && swapped.iter().all(|&s| s == swapped[0])).then_some(products)
    }
}

/// Whether a node is a contraction over a batch, dimension 0 of its first operand and its result, with something that
/// all examples share.
fn is_batched_contraction(graph: &Graph, id: NodeId) -> bool {
    match graph.op(id) {
        Op::Conv2d { .. } | Op::Conv2dInputGrad { .. } => true,
        Op::MatMul => graph.shape(id).len() == 2,
        _ => false,
    }
}

/// Whether an operation reduces over the batch.
fn is_statistic(op: &Op) -> bool {
    matches!(op, Op::Reduce { axes, .. } if axes.contains(&0))
}

/// What a product or sum over a batch is of: values whose dimension 0 is the batch.
fn factors(graph: &Graph, id: NodeId) -> Option<Vec<NodeId>> {
    let operands = graph.operands(id);
    match graph.op(id) {
        Op::Conv2dFilterGrad { .. } => Some(operands),
        Op::MatMul => match graph.op(operands[0]) {
            Op::Transpose { permutation } if *permutation == [1, 0] => {
                Some(vec![graph.operands(operands[0])[0], operands[1]])
            }
            _ => None,
        },
        Op::Reduce { kind: ReduceKind::Sum, axes } if axes.contains(&0) => Some(operands),
        _ => None,
    }
}

/// A node's operation with another batch.
fn of_both(graph: &Graph, id: NodeId, batch: usize) -> Op {
    let mut op = graph.op(id).clone();
    if let Op::Broadcast { to } | Op::Reshape { to } = &mut op {
        to[0] = batch;
    }
    op
}
