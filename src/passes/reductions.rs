//! Reductions of less.

use super::rewrite::{Rewriter, Rule, rewrite, rules};
use super::{PassContext, Report};
use crate::ir::{Graph, NodeId, Op, ReduceKind};
use crate::scalar::ScalarOp::{self, Add, Div, Mul, Neg, Sub};

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
    merge: Nothing, "sum(sum x) → sum x", "max(max x) → max x";
    of_broadcast: Nothing, "sum(broadcast x) → broadcast(sum x · n)", "max(broadcast x) → broadcast(max x)";
    of_movement: Nothing, "sum(move x) → move(sum x)", "max(move x) → move(max x)";
    of_centred: Alike, "sum(x + c · sum x) → sum x · (1 + n · c)";
    factor_out: Alike, "sum(x · c) → sum x · c", "sum(x / c) → sum x / c", "sum(-x) → -sum x";
    inner_factor: Alike, "sum(x · (y · c)) → sum(x · y) · c";
    of_summed: Alike, "sum(x + y · c) → sum x + sum y · c where sum x and sum y are there";
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

/// Says which of two rewrites is applied.
fn by(r: &mut Rewriter, kind: ReduceKind, of_sum: &'static str, of_max: &'static str) {
    r.by(if kind == ReduceKind::Max { of_max } else { of_sum });
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
            by(r, kind, "sum(sum x) → sum x", "max(max x) → max x");
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
    by(r, kind, "sum(broadcast x) → broadcast(sum x · n)", "max(broadcast x) → broadcast(max x)");
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
    by(r, kind, "sum(move x) → move(sum x)", "max(move x) → move(max x)");
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
        r.by("sum(-x) → -sum x");
        let sum = reduce(r, ReduceKind::Sum, axes, x);
        return Some(r.apply(Neg, &[sum]));
    }
    let (op, pairs) = match (r.scalar(a, Mul), r.scalar(a, Div)) {
        (Some([x, y]), _) => (Mul, vec![[x, y], [y, x]]),
        (_, Some([x, y])) => (Div, vec![[x, y]]),
        _ => return None,
    };
    let to = r.shape(id).to_vec();
    let [x, c] = pairs.into_iter().find(|&[_, c]| is_alike(r, c, &axes))?;
    r.by(if op == Mul { "sum(x · c) → sum x · c" } else { "sum(x / c) → sum x / c" });
    let sum = reduce(r, ReduceKind::Sum, axes, x);
    let factor = alike(r, c, &to);
    Some(r.apply(op, &[sum, factor]))
}

/// Whether all elements along the axes are the same: a constant, or what is broadcast.
fn is_alike(r: &Rewriter, x: NodeId, axes: &[usize]) -> bool {
    let is_broadcast = || matches!(r.op(x), Some(Op::Broadcast { .. }));
    r.constant(x).is_some() || (is_broadcast() && axes.iter().all(|&axis| r.shape(r.operand(x))[axis] == 1))
}

/// One of the elements along the axes of which [`is_alike`] holds, for each element of a shape without them.
fn alike(r: &mut Rewriter, x: NodeId, to: &[usize]) -> NodeId {
    r.resplat(x, to).unwrap_or_else(|| {
        let small = r.operand(x);
        r.broadcast(small, to)
    })
}

/// `sum(x · (y · c)) → sum(x · y) · c`, with `c` the same along the summed axes, where nothing else needs the summands. So the
/// gradients of a normalisation's scale and variance are one sum.
fn inner_factor(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let (ReduceKind::Sum, axes, a) = root(r, id)? else { return None };
    if !r.used_once(a) {
        return None;
    }
    let of_factor = |[x, scaled]: [NodeId; 2]| {
        let factors = r.either(scaled, Mul).into_iter().flatten();
        factors.into_iter().find(|&[_, c]| is_alike(r, c, &axes)).map(|[y, c]| (x, y, c))
    };
    let (x, y, c) = r.either(a, Mul)?.into_iter().find_map(of_factor)?;
    let to = r.shape(id).to_vec();
    let product = r.apply(Mul, &[x, y]);
    let sum = reduce(r, ReduceKind::Sum, axes, product);
    let factor = alike(r, c, &to);
    Some(r.apply(Mul, &[sum, factor]))
}

/// A sum that follows from others.
enum Summed {
    /// That is there.
    Is(NodeId),
    /// Of so many elements that are alike.
    Repeated(NodeId, f64),
    /// A sum by a number.
    Times(NodeId, f64),
    Of(ScalarOp, Vec<Summed>),
    /// A sum by (`Mul`) or divided by something that is the same for all summands.
    By(ScalarOp, Box<Summed>, NodeId),
}

/// How many operations are looked through for sums that are there.
const MOST_SUMMANDS: usize = 16;

/// `sum(x + y · c) → sum x + sum y · c` and the like where all sums are there already, or are of what a mean is taken from:
/// nothing is reduced any more. So is the gradient of a normalisation's mean.
fn of_summed(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let (ReduceKind::Sum, axes, a) = root(r, id)? else { return None };
    let is_sum = r.scalar::<2>(a, Add).is_some() || r.scalar::<2>(a, Sub).is_some();
    let mut budget = MOST_SUMMANDS;
    let summed = if is_sum { summed(r, a, &axes, id, &mut budget)? } else { return None };
    let to = r.shape(id).to_vec();
    Some(build(r, summed, &to))
}

/// The sum of a value along axes, where it need not be computed; `but` is not among what is there.
fn summed(r: &Rewriter, x: NodeId, axes: &[usize], but: NodeId, budget: &mut usize) -> Option<Summed> {
    *budget = budget.checked_sub(1)?;
    let is_there = |x: NodeId| {
        let is_sum = |user: &NodeId| *r.root(*user) == Op::Reduce { kind: ReduceKind::Sum, axes: axes.to_vec() };
        r.users(x).into_iter().filter(|&user| user != but).find(is_sum)
    };
    let count: f64 = axes.iter().map(|&axis| r.shape(x)[axis] as f64).product();
    if is_alike(r, x, axes) {
        return Some(Summed::Repeated(x, count));
    }
    if let Some(sum) = is_there(x) {
        return Some(Summed::Is(sum));
    }
    if let Some([y, mean]) = r.scalar(x, Sub) {
        // What is left when a mean is taken away: nothing, but for infinities.
        let factors =
            if is_alike(r, mean, axes) && r.constant(mean).is_none() { r.either(r.operand(mean), Mul) } else { None };
        let sum = is_there(y);
        let by = factors.into_iter().flatten().find(|[of, _]| Some(*of) == sum).and_then(|[_, c]| r.constant(c));
        if let (Some(sum), Some(by)) = (sum, by) {
            let factor = 1.0 - count * by;
            // A reciprocal is rounded.
            return Some(Summed::Times(sum, if factor.abs() < 1e-12 { 0.0 } else { factor }));
        }
    }
    for op in [Add, Sub] {
        if let Some([y, z]) = r.scalar(x, op) {
            let both = vec![summed(r, y, axes, but, budget)?, summed(r, z, axes, but, budget)?];
            return Some(Summed::Of(op, both));
        }
    }
    if let Some(y) = r.unary(x, Neg) {
        return Some(Summed::Of(Neg, vec![summed(r, y, axes, but, budget)?]));
    }
    if let Some([y, c]) = r.scalar(x, Div).filter(|[_, c]| is_alike(r, *c, axes)) {
        return Some(Summed::By(Div, Box::new(summed(r, y, axes, but, budget)?), c));
    }
    let [y, c] = r.either(x, Mul)?.into_iter().find(|[_, c]| is_alike(r, *c, axes))?;
    Some(Summed::By(Mul, Box::new(summed(r, y, axes, but, budget)?), c))
}

fn build(r: &mut Rewriter, summed: Summed, to: &[usize]) -> NodeId {
    match summed {
        Summed::Is(sum) => sum,
        Summed::Repeated(x, count) => {
            let one = alike(r, x, to);
            let count = r.constant_like(count, one);
            r.apply(Mul, &[one, count])
        }
        Summed::Times(sum, by) => {
            let by = r.constant_like(by, sum);
            r.apply(Mul, &[sum, by])
        }
        Summed::Of(op, of) => {
            let of: Vec<NodeId> = of.into_iter().map(|summed| build(r, summed, to)).collect();
            r.apply(op, &of)
        }
        Summed::By(op, summed, c) => {
            let sum = build(r, *summed, to);
            let factor = alike(r, c, to);
            r.apply(op, &[sum, factor])
        }
    }
}
