//! Biases that a batch normalisation takes away again.

use super::rewrite::{Rewriter, Rule, rewrite, rules};
use super::{PassContext, Report};
use crate::ir::{Graph, NodeId, Op, ReduceKind};
use crate::scalar::ScalarOp::{Add, Mul, Sub};

/// Drops a bias in front of a training-mode batch normalisation from what is normalised: the mean takes it
/// away again. It stays a parameter and stays part of the running mean, which inference goes by, so that
/// checkpoints mean the same with and without this pass. Opt-in, because it runs before differentiation and
/// so the gradient of such a bias is not computed but zero by construction, and because it assumes a finite bias.
///
/// ```text
/// %b: f32[8,4] = broadcast %bias              %s: f32[1,4] = reduce_sum %x axes=[0]
/// %y: f32[8,4] = add %x %b                    %mean: f32[1,4] = mul %s %eighth
/// %s: f32[1,4] = reduce_sum %y axes=[0]  →    %m: f32[8,4] = broadcast %mean
/// %mean: f32[1,4] = mul %s %eighth            %z: f32[8,4] = sub %x %m
/// %m: f32[8,4] = broadcast %mean
/// %z: f32[8,4] = sub %y %m
/// ```
pub fn drop_biases(graph: &mut Graph, context: &PassContext) -> Report {
    // Who asks for this pass has agreed to what it assumes.
    rewrite(graph, RULES, &PassContext { fast_math: true, ..*context })
}

pub(super) const RULES: &[Rule] = rules! {
    mean_of_shifted: Nothing, "sum(x + b) / n → sum(x) / n + b";
    shifted_both: Finite, "(x + b) - (m + b) → x - m";
};

/// `x` and the small `b` of `x + broadcast b`.
fn shifted(r: &Rewriter, id: NodeId) -> Vec<(NodeId, NodeId)> {
    let sums = r.either(id, Add).into_iter().flatten();
    sums.filter(|&[_, b]| matches!(r.op(b), Some(Op::Broadcast { .. }))).map(|[x, b]| (x, r.operand(b))).collect()
}

/// `sum(x + b) / n → sum(x) / n + b`, with `b` the same for all `n` summands.
fn mean_of_shifted(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    if *r.root(id) != Op::Scalar(Mul) {
        return None;
    }
    let factors = r.operands(id);
    for (sum, scale) in [(factors[0], factors[1]), (factors[1], factors[0])] {
        let Some(Op::Reduce { kind: ReduceKind::Sum, axes }) = r.op(sum).cloned() else { continue };
        let Some(c) = r.constant(scale) else { continue };
        let count = r.ty(r.operand(sum)).elements() / r.ty(sum).elements();
        // The mean of `b` is `b`, but for how `1 / n` was rounded.
        if (c * count as f64 - 1.0).abs() > 1e-12 {
            continue;
        }
        for (x, b) in shifted(r, r.operand(sum)) {
            if r.shape(b) == r.shape(sum) {
                let total = r.add(Op::Reduce { kind: ReduceKind::Sum, axes }, &[x]);
                let mean = r.apply(Mul, &[total, scale]);
                return Some(r.apply(Add, &[mean, b]));
            }
        }
    }
    None
}

/// `(x + b) - (m + b) → x - m`.
fn shifted_both(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    if *r.root(id) != Op::Scalar(Sub) {
        return None;
    }
    let operands = r.operands(id);
    let Some(Op::Broadcast { .. }) = r.op(operands[1]) else { return None };
    let shape = r.shape(id).to_vec();
    for [m, b] in r.either(r.operand(operands[1]), Add)? {
        if let Some((x, _)) = shifted(r, operands[0]).into_iter().find(|&(_, small)| small == b) {
            let m = r.broadcast(m, &shape);
            return Some(r.apply(Sub, &[x, m]));
        }
    }
    None
}
