//! Signs of values that are in memory anyway, in place of those of values that nothing else would read.

use super::{PassContext, Report};
use crate::ir::{Distribution, Graph, NodeId, Op, added};
use crate::scalar::ScalarOp;
use crate::scalar::ScalarOp::{Gt, Mul, Select};

/// Asks the result of a leaky relu for its sign, and no longer the value before it, where [`PassContext::signs`] asks for it and
/// a contraction reads that result: its slope is positive, so both are positive alike. Else the value before, which a
/// convolution's sums are, would be in memory from the layer's forward pass to its backward pass for its signs alone.
///
/// ```text
/// %p: f32[8,4] = gt %x %zero
/// %s: f32[8,4] = mul %x %slope
/// %l: f32[8,4] = select %p %x %s
/// %d: f32[8,4] = mul %l %mask                 …
/// %y: f32[8,3] = matmul %d %w                 %y: f32[8,3] = matmul %d %w
/// …                                      →    %q: f32[8,4] = gt %d %zero
/// %g: f32[8,4] = mul %dd %mask                %g: f32[8,4] = mul %dd %mask
/// %a: f32[8,4] = select %p %g %zero           %a: f32[8,4] = select %q %g %zero
/// %b: f32[8,4] = select %p %zero %g           %b: f32[8,4] = select %q %zero %g
/// ```
///
/// Behind a dropout, what is dropped has no sign any more, but there both branches are zero too: a mask is 0, or 1 and more
/// as dropout scales it, so nothing that was positive becomes zero for being small. (Where `operand-precision` follows, what it
/// rounds to zero does: numbers below 2^-134.)
pub fn signs(graph: &mut Graph, context: &PassContext) -> Report {
    let nodes_before = graph.len();
    let mut changed = 0;
    if context.signs {
        for id in graph.topological() {
            changed += rewrite(graph, id).unwrap_or(0);
        }
    }
    Report::new(changed, nodes_before, graph)
}

/// Rewrites the users of a comparison with zero; gives how many.
fn rewrite(graph: &mut Graph, positive: NodeId) -> Option<usize> {
    let [x, zero] = scalar(graph, positive, Gt)?;
    if constant(graph, zero) != Some(0.0) {
        return None;
    }
    let users = graph.users(positive);
    let (result, slope) = users.iter().find_map(|&user| Some((user, leaky_relu(graph, user, positive, x)?)))?;
    // The value would be kept all the same.
    if graph.is_result(x) || graph.users(x).into_iter().any(|user| ![positive, result, slope].contains(&user)) {
        return None;
    }
    let backward: Vec<NodeId> = users.into_iter().filter(|&user| user != result).collect();
    let kept = if is_multiplied(graph, result) {
        result
    } else {
        let (dropped, mask) = dropout(graph, result)?;
        if !is_multiplied(graph, dropped) || !backward.iter().all(|&user| is_of_mask(graph, user, positive, mask)) {
            return None;
        }
        dropped
    };
    if backward.is_empty() || backward.iter().any(|&user| scalar::<3>(graph, user, Select).is_none()) {
        return None;
    }
    let sign = added(graph, positive, Op::Scalar(Gt), &[kept, zero], "of_result");
    backward.iter().for_each(|&user| graph.replace_operand(user, positive, sign));
    Some(backward.len())
}

/// The operands of an operation from the scalar table.
fn scalar<const N: usize>(graph: &Graph, id: NodeId, op: ScalarOp) -> Option<[NodeId; N]> {
    if *graph.op(id) != Op::Scalar(op) { None } else { graph.operands(id).try_into().ok() }
}

/// The number that all elements of a value are.
fn constant(graph: &Graph, mut id: NodeId) -> Option<f64> {
    loop {
        match graph.op(id) {
            Op::Constant { value, .. } => return Some(value.0),
            Op::Reshape { .. } | Op::Transpose { .. } | Op::Broadcast { .. } | Op::Slice { .. } => {
                id = graph.operands(id)[0];
            }
            _ => return None,
        }
    }
}

/// Where a node is `x` or, unless that is positive, `x` times a positive slope: the product.
fn leaky_relu(graph: &Graph, id: NodeId, positive: NodeId, x: NodeId) -> Option<NodeId> {
    let [condition, then, scaled] = scalar(graph, id, Select)?;
    let factors: [NodeId; 2] = scalar(graph, scaled, Mul)?;
    let slope = factors.into_iter().find(|&factor| factor != x)?;
    let is_scaled = factors.contains(&x) && constant(graph, slope).is_some_and(|slope| slope > 0.0);
    (condition == positive && then == x && is_scaled).then_some(scaled)
}

/// The product of a value and a mask, and the mask.
fn dropout(graph: &Graph, value: NodeId) -> Option<(NodeId, NodeId)> {
    graph.users(value).into_iter().find_map(|user| {
        let factors: [NodeId; 2] = scalar(graph, user, Mul)?;
        let mask = factors.into_iter().find(|&factor| factor != value)?;
        is_mask(graph, mask).then_some((user, mask))
    })
}

/// Whether all elements are 0, or 1 and more.
fn is_mask(graph: &Graph, id: NodeId) -> bool {
    let operands = graph.operands(id);
    match graph.op(id) {
        Op::Random { distribution: Distribution::Bernoulli { .. }, .. } => true,
        Op::Constant { value, .. } => value.0 == 0.0 || value.0 >= 1.0,
        op if *op == Op::Scalar(Mul) || op.is_movement() => operands.into_iter().all(|operand| is_mask(graph, operand)),
        _ => false,
    }
}

/// Whether a selection is between zero and a product with the mask, either way.
fn is_of_mask(graph: &Graph, id: NodeId, positive: NodeId, mask: NodeId) -> bool {
    let Some([condition, then, otherwise]) = scalar(graph, id, Select) else { return false };
    let is_product = |id| scalar::<2>(graph, id, Mul).is_some_and(|factors| factors.contains(&mask));
    let is_zero = |id| constant(graph, id) == Some(0.0);
    let is_pair = (is_product(then) && is_zero(otherwise)) || (is_zero(then) && is_product(otherwise));
    condition == positive && is_pair
}

/// Whether a contraction reads a value, so that it is in memory.
fn is_multiplied(graph: &Graph, id: NodeId) -> bool {
    graph.users(id).into_iter().any(|user| graph.op(user).is_contraction())
}
