//! The order in memory of the dimensions of values that go from kernel to kernel. The graph does not have one.

use super::fuse::{Group, base};
use super::lower::Lowering;
use super::value::ValueId;
use crate::ir::{Graph, NodeId, Op, Update};
use crate::kernel::body::{Body, Nest, Operand};
use crate::kernel::schedule::StateLayout;
use crate::kernel::tiling::tilings;
use crate::types::Rounding;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// By node, the dimensions of its value from the outermost in memory to the innermost, where that is not the shape's
/// own order.
pub type Orders = HashMap<NodeId, Vec<usize>>;

/// `[n][c][h][w]` as `[h][w][n][c]`, and `[o][c][kh][kw]` as `[kh][kw][o][c]`.
pub(super) const PIXEL_MAJOR: [usize; 4] = [2, 3, 0, 1];

/// What only `col2im` reads, as `[h][w][c][n]`: each tap of a window is a channel, and a thread adds up all taps for a pixel of
/// one image, so images are next to each other.
const WINDOWS: [usize; 4] = [2, 3, 1, 0];

/// The state tensors whose dimensions may lie in any order, with their ranks: every graph of the program can read and write
/// them so.
pub(super) fn free_states<'g>(graphs: impl IntoIterator<Item = &'g Graph>) -> BTreeMap<String, usize> {
    let (mut found, mut refused) = (BTreeMap::new(), BTreeSet::new());
    for graph in graphs {
        let states = graph.ids().into_iter().filter_map(|id| match graph.op(id) {
            Op::State { name, .. } => Some((name.clone(), id, can_move(graph, id))),
            _ => None,
        });
        let updates =
            graph.updates.iter().map(|update| (update.state.clone(), update.node, update_can_move(graph, update)));
        for (name, id, can_move) in states.chain(updates) {
            if !can_move {
                refused.insert(name.clone());
            }
            found.insert(name, graph.shape(id).len());
        }
    }
    found.retain(|name, _| !refused.contains(name));
    found
}

/// Whether nobody reads a value by a reshape, which no view of another order expresses, or by a transform of minimal
/// filtering, which reads rows of images; nor what it is rounded to, since a smaller batch may do without the rounding.
pub(super) fn can_move(graph: &Graph, id: NodeId) -> bool {
    graph.users(id).into_iter().all(|user| match graph.op(user) {
        Op::Reshape { .. } | Op::Winograd(_) => false,
        op => op.rounds_to().is_none() || can_move(graph, user),
    })
}

/// Whether what a state tensor is updated to can be written in another order.
fn update_can_move(graph: &Graph, update: &Update) -> bool {
    let value = base(graph, update.node);
    match graph.op(value) {
        Op::State { name, .. } if *name == update.state => true,
        Op::Input { .. } => false,
        _ => value == update.node && can_move(graph, value),
    }
}

/// A state tensor that the graph cannot read and write in the order that it has. Copies are not asked about: a graph is only
/// given those that it can read.
pub(super) fn unreadable_state(graph: &Graph, states: &StateLayout) -> Option<String> {
    let free = free_states([graph]);
    let used = graph.ids().into_iter().filter_map(|id| match graph.op(id) {
        Op::State { name, .. } => Some(name),
        _ => None,
    });
    let has_order = |name: &&String| states.orders.contains_key(*name) && !states.copies.contains_key(*name);
    used.into_iter().find(|name| has_order(name) && !free.contains_key(*name)).cloned()
}

/// The orders of the nodes that hold state and of those that it is updated to.
pub(super) fn of_states(graph: &Graph, states: &StateLayout) -> Orders {
    let state = |id: &NodeId| match graph.op(*id) {
        Op::State { name, .. } => states.orders.get(name).map(|order| (*id, order.clone())),
        _ => None,
    };
    let updates = graph.updates.iter().filter_map(|update| {
        let value = base(graph, update.node);
        let is_leaf = matches!(graph.op(value), Op::Input { .. } | Op::State { .. });
        let order = states.orders.get(&update.state).filter(|_| !is_leaf)?;
        Some((value, order.clone()))
    });
    graph.ids().iter().filter_map(state).chain(updates).collect()
}

/// Loop nests walked in the order of memory: see [`Nest::in_memory_order`].
pub(super) fn walked_in_memory_order<B: Clone>(body: Body<B>) -> Body<B> {
    match body {
        Body::Nests(nests) => Body::Nests(nests.into_iter().map(Nest::in_memory_order).collect()),
        body @ (Body::Contraction(_) | Body::Transform(_)) => body,
    }
}

/// Gives pixel-major order to every image that goes from kernel to kernel (which `between` tells), where the kernels
/// that touch it can still be lowered, and to states in tf32 the order in which contractions read them best.
pub(super) fn pixel_major(lowering: &Lowering, groups: &[Group], between: &dyn Fn(NodeId) -> bool) -> Orders {
    let graph = lowering.graph;
    let mut orders = lowering.orders.clone();
    // By a value the groups that write or read it: no other has to do with its order.
    let mut touching: HashMap<ValueId, Vec<&Group>> = HashMap::new();
    for group in groups {
        let mut values: BTreeSet<ValueId> = group.members.iter().map(|&member| ValueId::of(member)).collect();
        if let Ok(body) = lowering.body(&group.core, &group.members, &|_| true) {
            values.extend(body.reads());
        }
        values.into_iter().for_each(|value| touching.entry(value).or_default().push(group));
    }
    let members = || groups.iter().flat_map(|group| &group.members).copied().filter(|&id| between(id));
    for image in members().filter(|&id| graph.shape(id).len() == 4) {
        let is_summed = graph.users(image).into_iter().all(|user| matches!(graph.op(user), Op::Col2im { .. }));
        for order in [WINDOWS, PIXEL_MAJOR].into_iter().skip(usize::from(!is_summed)) {
            orders.insert(image, order.to_vec());
            let lowering = Lowering { orders: &orders, ..*lowering };
            let lowers = |group: &&Group| lowering.body(&group.core, &group.members, &|_| true).is_ok();
            if touching[&ValueId::of(image)].iter().all(lowers) {
                break;
            }
            orders.remove(&image);
        }
    }
    // Of bf16 tensor cores read both orders.
    let is_tf32 = |&id: &NodeId| graph.op(id).rounds_to() == Some(Rounding::Tf32) && is_rounded_state(graph, id);
    for weight in members().filter(is_tf32) {
        put_along_depth(lowering, &mut orders, weight, &touching[&ValueId::of(weight)]);
    }
    orders
}

/// Whether a value is a state in fewer bits.
pub(super) fn is_rounded_state(graph: &Graph, id: NodeId) -> bool {
    let is_state = |&operand: &NodeId| matches!(graph.op(operand), Op::State { .. });
    graph.op(id).rounds_to().is_some() && graph.operands(id).iter().all(is_state)
}

/// Gives a matrix or filter the order in which most contractions that read it have the terms of a sum beside each other: so
/// tensor cores read them fastest, and some no other way.
fn put_along_depth(lowering: &Lowering, orders: &mut Orders, weight: NodeId, touching: &[&Group]) {
    let rank = lowering.graph.shape(weight).len();
    if rank < 2 {
        return;
    }
    let present = orders.get(&weight).cloned();
    let mut turned = present.clone().unwrap_or_else(|| (0..rank).collect());
    turned.swap(rank - 2, rank - 1);
    // How many read it so; none where a kernel that touches it can't be lowered.
    let readers = |orders: &Orders| {
        let lowering = Lowering { orders, ..*lowering };
        let bodies: Result<Vec<Body<ValueId>>, _> =
            touching.iter().map(|group| lowering.body(&group.core, &group.members, &|_| true)).collect();
        Some(bodies.ok()?.iter().filter(|body| reads_along_depth(body, ValueId::of(weight))).count())
    };
    let before = readers(orders);
    orders.insert(weight, turned);
    if readers(orders) <= before {
        match present {
            Some(present) => orders.insert(weight, present),
            None => orders.remove(&weight),
        };
    }
}

/// Whether a contraction by tensor cores has a value as an operand, and the terms of a sum beside each other in it.
fn reads_along_depth(body: &Body<ValueId>, value: ValueId) -> bool {
    let Body::Contraction(contraction) = body else { return false };
    let [first, second] = &contraction.operands;
    let operands = contraction.kind.in_product_order([first, second]);
    let is_along = |side: usize| match operands[side] {
        Operand::Buffer { buffer, .. } if *buffer == value => {
            tilings(contraction).is_some_and(|tilings| tilings.iter().all(|tiling| tiling.lines(side).0))
        }
        _ => false,
    };
    is_along(0) || is_along(1)
}
