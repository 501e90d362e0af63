//! Forms of the logistic function and its logarithm that neither overflow nor cancel.

use super::rewrite::{Rewriter, Rule, rewrite, rules};
use super::{PassContext, Report};
use crate::ir::{Graph, NodeId, Op};
use crate::scalar::ScalarOp::{Add, Div, Exp, Log, Neg, Sigmoid, Softplus, Sub};

/// Replaces written-out logistic functions and their logarithms by `sigmoid` and `softplus`, so that
/// binary cross-entropy on probabilities, `-(t·log σ(x) + (1-t)·log(1 - σ(x)))`, is as exact and as
/// finite as on logits. It runs before differentiation as well: the derivative of `softplus` is
/// `sigmoid`, where that of `log σ(x)` divides by a `σ(x)` that has underflown.
///
/// The identities, with σ for `sigmoid` and s for `softplus`, s(x) = log(1 + exp x):
/// `1/(1 + exp(-x)) = exp x/(1 + exp x) = σ(x)`, `log(1 + exp x) = s(x)`, `log σ(x) = -s(-x)`,
/// `log(1 - σ(x)) = -s(x)`.
///
/// ```text
/// %p: f32[8] = sigmoid %x                     %negated: f32[8] = neg %x
/// %y: f32[8] = log %p                  →      %s: f32[8] = softplus %negated
///                                             %y: f32[8] = neg %s
/// ```
pub fn stable(graph: &mut Graph, context: &PassContext) -> Report {
    rewrite(graph, RULES, context)
}

pub(super) const RULES: &[Rule] = rules! {
    sigmoid: Nothing, "1 / (1 + exp -x) → σ(x)";
    sigmoid_of_quotient: Finite, "exp x / (1 + exp x) → σ(x)";
    softplus: Range, "log(1 + exp x) → s(x)";
    log_sigmoid: Range, "log σ(x) → -s(-x)", "log(1 - σ(x)) → -s(x)";
};

/// The `x` of `1 + exp x`.
fn one_plus_exp(r: &Rewriter, id: NodeId) -> Option<NodeId> {
    r.either(id, Add)?.into_iter().find(|[one, _]| r.is(*one, 1.0)).and_then(|[_, e]| r.unary(e, Exp))
}

fn negated(r: &mut Rewriter, x: NodeId) -> NodeId {
    match r.unary(x, Neg) {
        Some(inner) => inner,
        None => r.apply(Neg, &[x]),
    }
}

fn sigmoid(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let Op::Scalar(Div) = r.root(id) else { return None };
    let [above, below] = r.operands(id).try_into().ok()?;
    let x = one_plus_exp(r, below)?;
    r.is(above, 1.0).then(|| {
        let x = negated(r, x);
        r.apply(Sigmoid, &[x])
    })
}

/// The quotient of two infinities is not a number, where `x` is large.
fn sigmoid_of_quotient(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let Op::Scalar(Div) = r.root(id) else { return None };
    let [above, below] = r.operands(id).try_into().ok()?;
    let x = one_plus_exp(r, below)?;
    (r.unary(above, Exp) == Some(x)).then(|| r.apply(Sigmoid, &[x]))
}

fn softplus(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let Op::Scalar(Log) = r.root(id) else { return None };
    let x = one_plus_exp(r, r.operand(id))?;
    Some(r.apply(Softplus, &[x]))
}

fn log_sigmoid(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let Op::Scalar(Log) = r.root(id) else { return None };
    let p = r.operand(id);
    let x = if let Some(x) = r.unary(p, Sigmoid) {
        r.by("log σ(x) → -s(-x)");
        negated(r, x)
    } else {
        let [one, p] = r.scalar(p, Sub).filter(|[one, _]| r.is(*one, 1.0))?;
        let _ = one;
        r.by("log(1 - σ(x)) → -s(x)");
        r.unary(p, Sigmoid)?
    };
    let s = r.apply(Softplus, &[x]);
    Some(r.apply(Neg, &[s]))
}
