//! Variances as reductions of their own.

use super::rewrite::{Rewriter, Rule, rewrite, rules};
use super::{PassContext, Report};
use crate::ir::{Graph, NodeId, Op, ReduceKind};
use crate::scalar::ScalarOp::{Mul, Sub};

/// Takes the sum of squared deviations from the mean as one reduction, where [`PassContext::deviations`] asks for it. What is
/// reduced is then the values themselves and not something that needs their mean first, so that a contraction can reduce
/// what it computes to both, tile by tile.
///
/// ```text
/// %s: f32[1,4] = reduce_sum %x axes=[0]
/// %m: f32[1,4] = mul %s %eighth               %s: f32[1,4] = reduce_sum %x axes=[0]
/// %b: f32[8,4] = broadcast %m            →    %v: f32[1,4] = reduce_deviations %x axes=[0]
/// %c: f32[8,4] = sub %x %b
/// %q: f32[8,4] = mul %c %c
/// %v: f32[1,4] = reduce_sum %q axes=[0]
/// ```
pub fn deviations(graph: &mut Graph, context: &PassContext) -> Report {
    if context.deviations { rewrite(graph, RULES, context) } else { Report::new(0, graph.len(), graph) }
}

pub(super) const RULES: &[Rule] = rules! {
    of_squares: Nothing, "sum((x - sum x · (1 / n))²) → deviations x";
};

fn of_squares(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let Op::Reduce { kind: ReduceKind::Sum, axes } = r.root(id) else { return None };
    let axes = axes.clone();
    let [centred, other] = r.scalar(r.operand(id), Mul)?;
    if centred != other {
        return None;
    }
    let [x, mean] = r.scalar(centred, Sub)?;
    let Op::Broadcast { .. } = r.op(mean)? else { return None };
    let factors = r.either(r.operand(mean), Mul)?;
    let is_mean = factors.into_iter().any(|[sum, c]| {
        let is_sum = match r.op(sum) {
            Some(Op::Reduce { kind: ReduceKind::Sum, axes: inner }) => *inner == axes && r.operand(sum) == x,
            _ => false,
        };
        // A reciprocal is rounded.
        let count = r.ty(x).elements() as f64 / r.ty(sum).elements() as f64;
        is_sum && r.constant(c).is_some_and(|c| (c * count - 1.0).abs() < 1e-12)
    });
    is_mean.then(|| r.add(Op::Reduce { kind: ReduceKind::Deviations, axes }, &[x]))
}
