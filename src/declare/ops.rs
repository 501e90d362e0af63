//! Operations that are not in the scalar table, expanded to primitives.

use super::diagnostic::{Diagnostic, Span};
use super::nodes::Nodes;
use super::rows::{Arg, At, Kind, Param, Row, rows};
use crate::ir::{DType, Distribution, NodeId, Op, Real, ReduceKind, Type};
use crate::scalar::ScalarOp;

/// Adds the nodes of an operation.
pub type Expand = fn(&mut Nodes<'_>, &At, &[Arg]) -> Option<NodeId>;

rows! {
    /// Operations on whole tensors.
    TENSORS: Expand; |n, at|
    /// The mean over all dimensions, or over some, which stay with size 1.
    Mean(x: Value, axes: Axes = None), r#"Mean("x", [1])"# => n.mean(x, axes, at.span);
    /// The sum over all dimensions, or over some, which stay with size 1.
    Sum(x: Value, axes: Axes = None), r#"Sum("x", [1])"# => n.reduce(ReduceKind::Sum, x, axes, at.span).map(|(sum, _)| sum);
    /// The largest element over all dimensions, or over some, which stay with size 1.
    ReduceMax(x: Value, axes: Axes = None), r#"ReduceMax("x")"# => n.reduce(ReduceKind::Max, x, axes, at.span).map(|(max, _)| max);
    /// The same elements in another shape.
    Reshape(x: Value, shape: Sizes), r#"Reshape("x", [2, 12])"# => n.add(Op::Reshape { to: shape }, &[x], "reshape", at.span);
    /// Sizes of 1 repeated, new dimensions in front.
    Broadcast(x: Value, shape: Sizes), r#"Broadcast("x", [3, 4, 6])"# => n.repeat(x, &shape, at.span);
    /// Dimensions in another order: dimension i of the result is dimension permutation[i] of x.
    Transpose(x: Value, permutation: Dimensions), r#"Transpose("x", [1, 0])"# =>
        n.add(Op::Transpose { permutation }, &[x], "transpose", at.span);
    /// The elements from `start` to before `end` in each dimension.
    Slice(x: Value, start: Dimensions, end: Sizes), r#"Slice("x", [0, 2], [4, 5])"# =>
        n.add(Op::Slice { start, end }, &[x], "slice", at.span);
    /// Tensors joined along a dimension.
    Concat(items: Values, axis: Dimension), r#"Concat(["x", "y"], 1)"# => n.add(Op::Concat { axis }, &items, "concat", at.span);
    /// The matrix product over the last two dimensions; those before them are equal.
    MatMul(a: Value, b: Value), r#"MatMul("x", Transpose("y", [1, 0]))"# => n.add(Op::MatMul, &[a, b], "matmul", at.span);
    /// Labels u32[n] as [n, classes]: 1 at the label, else 0.
    OneHot(labels: Value, classes: Size), r#"OneHot("labels", 10)"# => n.one_hot(labels, classes, at.span);
    /// Exponentials over their sum, along the last dimension.
    Softmax(x: Value), r#"Softmax("x")"# => n.softmax(false, x, at.span);
    /// The logarithm of the softmax, without overflow.
    LogSoftmax(x: Value), r#"LogSoftmax("x")"# => n.softmax(true, x, at.span);
    /// Rounded to bfloat16 (`Bf16`), which halves what a stored value takes, or widened again (`F32`).
    Convert(x: Value, to: ElementType), r#"Convert(Convert("x", Bf16), F32)"# => n.add(Op::Convert { to }, &[x], "convert", at.span);
    /// [n, ...] as [n, all the rest].
    Flatten(x: Value), r#"Flatten("x")"# => n.flatten(x, at.span);
    /// The index along a dimension, as numbers.
    Iota(shape: Sizes, axis: Dimension), "Iota([4, 6], 1)" => n.add(Op::Iota { axis, ty: Type::f32(shape) }, &[], "iota", at.span);
}

rows! {
    /// Random draws: new ones in each step.
    DRAWS: Expand; |n, at|
    /// Numbers of mean 0 and variance 1, normally distributed.
    Normal(shape: Sizes), "Normal([4, 6])" => n.draw(Distribution::Normal, shape, at.span);
    /// Numbers spread evenly from 0 to below 1.
    Uniform(shape: Sizes), "Uniform([4, 6])" => n.draw(Distribution::Uniform, shape, at.span);
    /// 1 with the probability `p`, else 0.
    Bernoulli(p: Probability, shape: Sizes), "Bernoulli(0.5, [4, 6])" =>
        n.draw(Distribution::Bernoulli(Real(p)), shape, at.span);
}

rows! {
    /// Derivatives as values.
    GRADIENTS: Expand; |n, at|
    /// The gradient of a single number in a value that it is computed from, as for a gradient penalty; it can be differentiated again.
    Gradient(of: Value, x: Value), r#"Gradient(Sum(Mul("x", "x")), "x")"# => n.gradient(of, x, at);
    /// The value itself, which no gradient flows through.
    Detach(x: Value), r#"Detach("x")"# => n.add(Op::Detach, &[x], "detach", at.span);
}

impl Nodes<'_> {
    /// Over all dimensions, to a scalar; or over some, which stay with size 1, so that the result can still be combined
    /// with the operand. Also the number of elements that make up one of the result.
    pub fn reduce(
        &mut self,
        kind: ReduceKind,
        x: NodeId,
        axes: Option<Vec<usize>>,
        span: Span,
    ) -> Option<(NodeId, usize)> {
        let is_total = axes.is_none();
        let mut axes = axes.unwrap_or_else(|| (0..self.graph.shape(x).len()).collect());
        axes.sort_unstable();
        axes.dedup();
        let count: usize = axes.iter().filter_map(|&a| self.graph.shape(x).get(a)).product();
        let label = match kind {
            ReduceKind::Max => "max",
            ReduceKind::Sum => "sum",
            ReduceKind::Deviations => "deviations",
        };
        let mut value = x;
        if !axes.is_empty() {
            value = self.add(Op::Reduce { kind, axes }, &[value], label, span)?;
        }
        if is_total && !self.graph.shape(value).is_empty() {
            value = self.add(Op::Reshape { to: vec![] }, &[value], label, span)?;
        }
        Some((value, count))
    }

    fn mean(&mut self, x: NodeId, axes: Option<Vec<usize>>, span: Span) -> Option<NodeId> {
        let (sum, count) = self.reduce(ReduceKind::Sum, x, axes, span)?;
        let inverse = self.constant(1.0 / count as f64, span)?;
        self.apply_as(ScalarOp::Mul, &[sum, inverse], "mean", span)
    }

    /// `x` repeated to exactly `shape`.
    fn repeat(&mut self, x: NodeId, shape: &[usize], span: Span) -> Option<NodeId> {
        let from = self.graph.shape(x);
        let fits = from.len() <= shape.len()
            && from.iter().rev().zip(shape.iter().rev()).all(|(&from, &to)| from == 1 || from == to);
        if fits {
            return self.broadcast_to(x, shape, span);
        }
        let diagnostic = Diagnostic::new("shape-mismatch", format!("this cannot be repeated to {shape:?}"))
            .label(span, format!("it is {}", self.graph.ty(x)))
            .help("sizes are compared from the last on; only a size of 1 can be repeated");
        self.d().report(diagnostic);
        None
    }

    /// `[n, ...]` to `[n, all the rest]`.
    pub fn flatten(&mut self, x: NodeId, span: Span) -> Option<NodeId> {
        let shape = self.graph.shape(x).to_vec();
        let Some((first, rest)) = shape.split_first() else {
            self.d().report(Diagnostic::new("shape-mismatch", "a scalar cannot be flattened").label(span, "in this"));
            return None;
        };
        self.add(Op::Reshape { to: vec![*first, rest.iter().product()] }, &[x], "flatten", span)
    }

    fn one_hot(&mut self, labels: NodeId, classes: usize, span: Span) -> Option<NodeId> {
        let ty = self.graph.ty(labels).clone();
        if ty.dtype != DType::U32 || ty.rank() != 1 {
            let diagnostic = Diagnostic::new("shape-mismatch", "`OneHot` takes labels, u32[examples]")
                .label(span, format!("these are {ty}"));
            self.d().report(diagnostic);
            return None;
        }
        self.limit_labels(labels, classes);
        let count = ty.shape[0];
        let labels = self.apply(ScalarOp::ToReal, &[labels], span)?;
        let labels = self.add(Op::Reshape { to: vec![count, 1] }, &[labels], "labels", span)?;
        let index = self.add(Op::Iota { axis: 1, ty: Type::f32([1, classes]) }, &[], "class", span)?;
        self.apply_as(ScalarOp::Eq, &[labels, index], "one_hot", span)
    }

    /// Over the last dimension; the largest is taken away first, so that nothing overflows. The result does not depend
    /// on what is taken away, so no gradient goes through it.
    fn softmax(&mut self, log: bool, x: NodeId, span: Span) -> Option<NodeId> {
        let Some(last) = self.graph.shape(x).len().checked_sub(1) else {
            self.d().report(Diagnostic::new("shape-mismatch", "a scalar has no classes").label(span, "in this"));
            return None;
        };
        let max = self.add(Op::Reduce { kind: ReduceKind::Max, axes: vec![last] }, &[x], "max", span)?;
        let max = self.add(Op::Detach, &[max], "shift", span)?;
        let shifted = self.apply_as(ScalarOp::Sub, &[x, max], "shifted", span)?;
        let exp = self.apply(ScalarOp::Exp, &[shifted], span)?;
        let sum = self.add(Op::Reduce { kind: ReduceKind::Sum, axes: vec![last] }, &[exp], "sum", span)?;
        if log {
            let log = self.apply(ScalarOp::Log, &[sum], span)?;
            return self.apply_as(ScalarOp::Sub, &[shifted, log], "log_softmax", span);
        }
        self.apply_as(ScalarOp::Div, &[exp, sum], "softmax", span)
    }

    /// The gradient of a scalar with respect to a value that it is computed from: as for the penalty of
    /// Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017.
    fn gradient(&mut self, y: NodeId, x: NodeId, at: &At) -> Option<NodeId> {
        self.expect_scalar(y, "only a single number has a gradient", at.args[0])?;
        if !self.reached_from(y).contains(&x) {
            let diagnostic =
                Diagnostic::new("independent-loss", "the gradient of something that does not depend on it")
                    .label(at.args[0], "this is not computed")
                    .label(at.args[1], "from this");
            self.d().report(diagnostic);
            return None;
        }
        self.add(Op::Gradient, &[y, x], "gradient", at.span)
    }
}
