//! Reductions of less.

use super::rewrite::{Rewriter, Rule, rewrite, rules};
use super::{PassContext, Report};
use crate::ir::{Graph, NodeId, Op, ReduceKind};
use crate::scalar::ScalarOp::{Add, Div, Mul, Neg};

/// Reduces less, and later: not along dimensions of size 1, not twice, not what was repeated before,
/// and factors that are the same for all summands are applied to the sum.
///
/// ```text
/// %b: f32[64,4] = broadcast %c [64,4]         %s: f32[1,4] = reduce_sum %x [0]
/// %m: f32[64,4] = mul %x %b            →      %y: f32[1,4] = mul %s %c
/// %y: f32[1,4] = reduce_sum %m [0]
/// ```
pub fn reductions(graph: &mut Graph, context: &PassContext) -> Report {
    rewrite(graph, RULES, context)
}

pub(super) const RULES: &[Rule] = rules! {
    trim: Nothing, "a reduction along axes of size 1 → its operand";
    merge: Nothing, "sum(sum x) → sum x, max(max x) → max x";
    of_broadcast: Nothing, "sum(broadcast x) → broadcast(sum x · n), max(broadcast x) → broadcast(max x)";
    of_movement: Nothing, "sum(move x) → move(sum x), max(move x) → move(max x)";
    of_centred: Alike, "sum(x + c · sum x) → sum x · (1 + n · c)";
    factor_out: Alike, "sum(x · c) → sum x · c, sum(x / c) → sum x / c, sum(-x) → -sum x";
};

/// The kind, axes and operand of a sum or maximum.
fn root(r: &Rewriter, id: NodeId) -> Option<(ReduceKind, Vec<usize>, NodeId)> {
    match r.root(id) {
        Op::Reduce { kind: kind @ (ReduceKind::Sum | ReduceKind::Max), axes } => {
            Some((*kind, axes.clone(), r.operand(id)))
        }
        _ => None,
    }
}

/// A reduction; `x` itself without axes.
fn reduce(r: &mut Rewriter, kind: ReduceKind, axes: Vec<usize>, x: NodeId) -> NodeId {
    if axes.is_empty() { x } else { r.add(Op::Reduce { kind, axes }, &[x]) }
}

/// Axes of size 1 hold nothing to reduce.
fn trim(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let (kind, mut axes, x) = root(r, id)?;
    let before = axes.len();
    axes.retain(|&a| r.shape(x)[a] != 1);
    (axes.len() < before || before == 0).then(|| reduce(r, kind, axes, x))
}

/// `reduce(reduce x)` of one kind, along the axes of both.
fn merge(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let (kind, mut axes, a) = root(r, id)?;
    match r.op(a)? {
        Op::Reduce { kind: inner, axes: more } if *inner == kind && r.used_once(a) => {
            axes.extend(more.iter().filter(|a| !axes.contains(a)).copied().collect::<Vec<_>>());
            axes.sort_unstable();
            let x = r.operand(a);
            Some(reduce(r, kind, axes, x))
        }
        _ => None,
    }
}

/// The sum of a value repeated `n` times is `n` times the value, its maximum is the value.
fn of_broadcast(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let (kind, axes, a) = root(r, id)?;
    let Op::Broadcast { .. } = r.op(a)? else { return None };
    let x = r.operand(a);
    let repeated = |axis: &usize| r.shape(x)[*axis] != r.shape(a)[*axis];
    let count: f64 = axes.iter().filter(|&a| repeated(a)).map(|&axis| r.shape(a)[axis] as f64).product();
    let (gone, kept): (Vec<usize>, Vec<usize>) = axes.iter().partition(|&axis| repeated(axis));
    if gone.is_empty() && r.shape(x) == r.shape(a) {
        return None;
    }
    // Where the broadcast is along other axes only, the reduction still is of less before it.
    let to = r.shape(id).to_vec();
    let mut result = reduce(r, kind, kept, x);
    if kind == ReduceKind::Sum && count != 1.0 {
        let n = r.constant_like(count, result);
        result = r.apply(Mul, &[result, n]);
    }
    Some(r.broadcast(result, &to))
}

/// A reduction of a transposed, reshaped, reversed or padded value.
fn of_movement(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let (kind, axes, a) = root(r, id)?;
    let to = r.shape(id).to_vec();
    match r.op(a)? {
        Op::Transpose { permutation } => {
            let permutation = permutation.clone();
            let mut inner: Vec<usize> = axes.iter().map(|&axis| permutation[axis]).collect();
            inner.sort_unstable();
            let x = r.operand(a);
            let result = reduce(r, kind, inner, x);
            Some(r.add(Op::Transpose { permutation }, &[result]))
        }
        // Of everything: the shape does not matter.
        Op::Reshape { .. } if to.iter().all(|&size| size == 1) => {
            let x = r.operand(a);
            let all = (0..r.ty(x).rank()).filter(|&axis| r.shape(x)[axis] != 1).collect();
            let result = reduce(r, kind, all, x);
            Some(r.reshape(result, &to))
        }
        Op::Reverse { axes: turned } if turned.iter().all(|axis| axes.contains(axis)) => {
            let x = r.operand(a);
            Some(reduce(r, kind, axes, x))
        }
        Op::Pad { low, high } if kind == ReduceKind::Sum => {
            let padded = (0..low.len()).filter(|&axis| low[axis] + high[axis] > 0);
            if !padded.into_iter().all(|axis| axes.contains(&axis)) {
                return None;
            }
            let x = r.operand(a);
            Some(reduce(r, kind, axes, x))
        }
        _ => None,
    }
}

/// `sum(x + c·sum(x)) → (1 + n·c)·sum(x)`, with `n` the number of summands: what is left when a mean is
/// taken away (`c = -1/n`) sums to nothing. So the gradient of a bias in front of a batch normalisation is the
/// zero that it is, and not what rounding makes of it, which Adam would blow up to steps of full size.
fn of_centred(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let (ReduceKind::Sum, axes, a) = root(r, id)? else { return None };
    for [x, shift] in r.either(a, Add)? {
        if !matches!(r.op(shift), Some(Op::Broadcast { .. })) {
            continue;
        }
        for [sum, c] in r.either(r.operand(shift), Mul).into_iter().flatten() {
            let is_sum = match r.op(sum) {
                Some(Op::Reduce { kind: ReduceKind::Sum, axes: inner }) => *inner == axes && r.operand(sum) == x,
                _ => false,
            };
            let Some(c) = r.constant(c).filter(|_| is_sum) else { continue };
            let count = r.ty(x).elements() / r.ty(sum).elements();
            let factor = 1.0 + count as f64 * c;
            // A reciprocal is rounded.
            let factor = if factor.abs() < 1e-12 { 0.0 } else { factor };
            let factor = r.constant_like(factor, sum);
            return Some(r.apply(Mul, &[sum, factor]));
        }
    }
    None
}

/// `sum(x · c) → sum(x) · c`, `sum(x / c) → sum(x) / c`, `sum(-x) → -sum(x)`, with `c` the same along
/// the summed axes, where nothing else needs the summands.
fn factor_out(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let (ReduceKind::Sum, axes, a) = root(r, id)? else { return None };
    if !r.used_once(a) {
        return None;
    }
    if let Some(x) = r.unary(a, Neg) {
        let sum = reduce(r, ReduceKind::Sum, axes, x);
        return Some(r.apply(Neg, &[sum]));
    }
    let (op, pairs) = match (r.scalar(a, Mul), r.scalar(a, Div)) {
        (Some([x, y]), _) => (Mul, vec![[x, y], [y, x]]),
        (_, Some([x, y])) => (Div, vec![[x, y]]),
        _ => return None,
    };
    let to = r.shape(id).to_vec();
    for [x, c] in pairs {
        let constant = r.constant(c).is_some();
        let broadcast = !constant
            && matches!(r.op(c), Some(Op::Broadcast { .. }))
            && axes.iter().all(|&axis| r.shape(r.operand(c))[axis] == 1);
        if !constant && !broadcast {
            continue;
        }
        let factor = match r.resplat(c, &to) {
            Some(factor) => factor,
            None => {
                let small = r.operand(c);
                r.broadcast(small, &to)
            }
        };
        let sum = reduce(r, ReduceKind::Sum, axes, x);
        return Some(r.apply(op, &[sum, factor]));
    }
    None
}
