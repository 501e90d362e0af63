//! Operands of contractions in fewer bits.

use super::{PassContext, Report};
use crate::ir::{DType, Graph, NodeId, Op, added};
use crate::scalar::ScalarOp;
use crate::types::Rounding;
use std::collections::{HashMap, HashSet};

/// Fewer rows, columns or terms are not worth a tile of a device's matrix units.
const LEAST: usize = 16;

/// Rounds what large contractions multiply where [`PassContext::operands`] asks for it. A value is rounded once, where it is
/// computed, and however many contractions read it: movements are of what is rounded.
///
/// What else reads the value reads it rounded too where that spares the value itself: then only the rounded one is in
/// memory. These are signs and orderings beside a constant, which rounding hardly touches, and other elementwise operations
/// of which no sum and no result is made but by way of a further large contraction. If the value is a result, a leaf, or
/// reduced itself, or one of its users is of another kind, all of them go on reading it as it is. So states, statistics,
/// losses, updates and sums into the gradients of parameters are computed from f32, and what is compared with a number that
/// was computed is as exact as that: a maximum that was rounded equals none of the elements it was taken from.
///
/// ```text
/// %y: f32[32,32] = max %x %zero               %y: f32[32,32] = max %x %zero
/// %z: f32[32,32] = matmul %y %w        →      %y_bf16: bf16[32,32] = convert %y
/// %m: f32[32,32] = gt %y %zero                %y_wide: f32[32,32] = convert %y_bf16
///                                             %w_bf16: bf16[32,32] = convert %w
///                                             %w_wide: f32[32,32] = convert %w_bf16
///                                             %z: f32[32,32] = matmul %y_wide %w_wide
///                                             %m: f32[32,32] = gt %y_wide %zero
/// ```
pub fn operand_precision(graph: &mut Graph, context: &PassContext) -> Report {
    let nodes_before = graph.len();
    let Some(rounding) = context.operands else {
        return Report::new(0, nodes_before, graph);
    };
    graph.remove_dead();
    let order = graph.topological();
    let large: Vec<NodeId> = order.iter().copied().filter(|&id| is_large(graph, id, context)).collect();
    let in_f32 = needed_in_f32(graph, &order, context);
    let mut rounded = Rounded { rounding, narrow: HashMap::new(), wide: HashMap::new() };
    let needed = rounded.sources(graph, &large);
    let sources: Vec<NodeId> = order.into_iter().filter(|id| needed.contains(id)).collect();
    for &id in &sources {
        rounded.round(graph, id);
    }
    let mut changed = 0;
    for &id in &large {
        for operand in graph.operands(id) {
            let new = rounded.widened(graph, operand);
            if new != operand {
                graph.replace_operand(id, operand, new);
                changed += 1;
            }
        }
    }
    let computed: Vec<NodeId> = sources.into_iter().filter(|&id| !graph.op(id).is_movement()).collect();
    // Movements of what was not rounded read it no more. What goes now, such as a conversion that only they read, must be
    // told from nodes that are added later.
    graph.remove_dead();
    let left: Vec<NodeId> = computed.into_iter().filter(|&id| graph.contains(id)).collect();
    for id in left {
        changed += rounded.share(graph, id, &in_f32, context);
    }
    Report::new(changed, nodes_before, graph)
}

/// Whether it is a contraction that is worth it.
fn is_large(graph: &Graph, id: NodeId, context: &PassContext) -> bool {
    // The last two dimensions of matrices; batch and channels of convolutions, whose pixels do not count.
    let first = |shape: &[usize]| if *graph.op(id) == Op::MatMul { shape.len() - 2 } else { 0 };
    let sizes = |operand: NodeId| graph.shape(operand)[first(graph.shape(operand))..][..2].to_vec();
    let is_rounded = *graph.op(id) == Op::MatMul || (graph.op(id).is_contraction() && !context.matrices_alone);
    is_rounded && graph.operands(id).into_iter().flat_map(sizes).all(|size| size >= LEAST)
}

/// By a node's index, whether results or sums are made of it elementwise.
fn needed_in_f32(graph: &Graph, order: &[NodeId], context: &PassContext) -> Vec<bool> {
    let mut needed = vec![false; graph.bound()];
    for &id in order.iter().rev() {
        needed[id.index()] =
            graph.is_result(id) || graph.users(id).into_iter().any(|user| matters(graph, user, &needed, context));
    }
    needed
}

/// Whether a user of a value needs it in f32.
fn matters(graph: &Graph, user: NodeId, needed: &[bool], context: &PassContext) -> bool {
    match graph.op(user) {
        Op::Scalar(ScalarOp::Sign) => false,
        Op::Scalar(ScalarOp::Lt | ScalarOp::Le | ScalarOp::Gt | ScalarOp::Ge) => {
            !graph.operands(user).into_iter().any(|operand| is_constant(graph, operand))
        }
        Op::Scalar(ScalarOp::Eq) => true,
        // What is rounded anyway.
        Op::Convert { to: DType::Bf16 } => false,
        Op::Scalar(ScalarOp::RoundTf32) => false,
        Op::Scalar(_)
        | Op::Convert { .. }
        | Op::Reshape { .. }
        | Op::Transpose { .. }
        | Op::Broadcast { .. }
        | Op::Pad { .. }
        | Op::Slice { .. }
        | Op::Concat { .. }
        | Op::Reverse { .. } => needed[user.index()],
        Op::MatMul | Op::Conv2d { .. } | Op::Conv2dInputGrad { .. } | Op::Conv2dFilterGrad { .. } => {
            !is_large(graph, user, context)
        }
        // Rounded pixels are pixels of what is rounded, but the rounding is after it.
        Op::Im2col { .. } => needed[user.index()],
        Op::Reduce { .. }
        | Op::Col2im { .. }
        | Op::Winograd(_)
        | Op::Input { .. }
        | Op::State { .. }
        | Op::Constant { .. }
        | Op::Iota { .. }
        | Op::Random { .. }
        | Op::Detach
        | Op::Gradient => true,
    }
}

/// Whether a value is a constant, moved perhaps.
fn is_constant(graph: &Graph, mut id: NodeId) -> bool {
    while let (true, [operand]) = (graph.op(id).is_movement(), &graph.operands(id)[..]) {
        id = *operand;
    }
    matches!(graph.op(id), Op::Constant { .. })
}

/// Values and what they are rounded.
struct Rounded {
    rounding: Rounding,
    /// bf16, or f32 of fewer bits.
    narrow: HashMap<NodeId, NodeId>,
    /// The same in f32.
    wide: HashMap<NodeId, NodeId>,
}

impl Rounded {
    /// The values that some contractions read by way of movements, with the movements.
    fn sources(&self, graph: &Graph, contractions: &[NodeId]) -> HashSet<NodeId> {
        let mut found = HashSet::new();
        let mut stack: Vec<NodeId> = contractions.iter().flat_map(|&id| graph.operands(id)).collect();
        while let Some(id) = stack.pop() {
            if found.insert(id) && graph.op(id).is_movement() {
                stack.extend(graph.operands(id));
            }
        }
        found
    }

    /// Adds what a value is rounded, operands of movements first.
    fn round(&mut self, graph: &mut Graph, id: NodeId) {
        let (op, suffix) = (Op::rounding(self.rounding), self.rounding.name());
        let operands = graph.operands(id);
        let own = graph.op(id).clone();
        let narrow = if own.is_movement() {
            let narrow: Vec<NodeId> = operands.iter().map(|operand| self.narrow[operand]).collect();
            if narrow == operands { id } else { added(graph, id, own, &narrow, suffix) }
        } else if own == op {
            id
        } else if self.rounding == Rounding::Bf16 && is_widening(graph, id) {
            operands[0]
        } else {
            let found = graph.users(id).into_iter().find(|&user| *graph.op(user) == op);
            found.unwrap_or_else(|| added(graph, id, op, &[id], suffix))
        };
        self.narrow.insert(id, narrow);
    }

    /// A value of f32 rounded, in f32.
    fn widened(&mut self, graph: &mut Graph, id: NodeId) -> NodeId {
        let narrow = self.narrow[&id];
        if !is_half(graph, narrow) {
            return narrow;
        }
        let wide = if is_widening(graph, id) && graph.operands(id)[0] == narrow {
            id
        } else {
            let known = self.wide.get(&narrow).copied();
            let found = known.or_else(|| graph.users(narrow).into_iter().find(|&user| is_widening(graph, user)));
            found.unwrap_or_else(|| added(graph, id, Op::Convert { to: DType::F32 }, &[narrow], "wide"))
        };
        self.wide.insert(narrow, wide);
        wide
    }

    /// Lets whatever reads a value read it rounded, where that may be and nothing is left that reads it as it is; whether it
    /// was so.
    fn share(&mut self, graph: &mut Graph, id: NodeId, in_f32: &[bool], context: &PassContext) -> usize {
        let narrow = self.narrow[&id];
        let is_leaf = matches!(graph.op(id), Op::Input { .. } | Op::State { .. } | Op::Constant { .. });
        let others: Vec<NodeId> = graph.users(id).into_iter().filter(|&user| user != narrow).collect();
        let may_change = |&user: &NodeId| !matters(graph, user, in_f32, context);
        if narrow == id || is_leaf || graph.is_result(id) || others.is_empty() || !others.iter().all(may_change) {
            return 0;
        }
        let wide = self.widened(graph, id);
        if wide == id {
            return 0;
        }
        others.into_iter().for_each(|user| graph.replace_operand(user, id, wide));
        1
    }
}

fn is_half(graph: &Graph, id: NodeId) -> bool {
    graph.ty(id).dtype == DType::Bf16
}

/// Whether a node converts bf16 to f32.
fn is_widening(graph: &Graph, id: NodeId) -> bool {
    *graph.op(id) == Op::Convert { to: DType::F32 } && is_half(graph, graph.operands(id)[0])
}
