//! Reductions over dimensions, and sums along one.

use super::diagnostic::Span;
use super::nodes::Nodes;
use super::ops::Expand;
use super::rows::{Arg, Kind, Param, Row, rows};
use crate::ir::{NodeId, Op, ReduceKind};
use crate::scalar::ScalarOp;

rows! {
    /// Reductions.
    REDUCTIONS: Expand; |n, at|
    /// The mean over all dimensions, or over some, which stay with size 1.
    Mean(x: Value, axes: Axes = None, keepdims: Keep = None), r#"Mean("x", [1])"# =>
        n.mean(x, &Over(axes, keepdims), at.span);
    /// The sum over all dimensions, or over some, which stay with size 1.
    Sum(x: Value, axes: Axes = None, keepdims: Keep = None), r#"Sum("x", [1])"# =>
        n.total(ReduceKind::Sum, x, &Over(axes, keepdims), at.span);
    /// The largest element over all dimensions, or over some, which stay with size 1.
    ReduceMax(x: Value, axes: Axes = None, keepdims: Keep = None), r#"ReduceMax("x")"# =>
        n.total(ReduceKind::Max, x, &Over(axes, keepdims), at.span);
    /// The smallest element over all dimensions, or over some, which stay with size 1.
    ReduceMin(x: Value, axes: Axes = None, keepdims: Keep = None), r#"ReduceMin("x")"# => {
        let negative = n.apply(ScalarOp::Neg, &[x], at.span)?;
        let largest = n.total(ReduceKind::Max, negative, &Over(axes, keepdims), at.span)?;
        n.apply_as(ScalarOp::Neg, &[largest], "min", at.span)
    };
    /// The product over all dimensions, or over some, which stay with size 1.
    ReduceProd(x: Value, axes: Axes = None, keepdims: Keep = None), r#"ReduceProd("x", [-1])"# => {
        let over = Over(axes, keepdims);
        let axes = n.axes(over.0.as_deref(), x, at.span)?;
        let product = n.product(x, &axes, at.span)?;
        n.dropped(product, &axes, &over, at.span)
    };
    /// The sum of absolute values: the L1 norm.
    ReduceL1(x: Value, axes: Axes = None, keepdims: Keep = None), r#"ReduceL1("x", [1])"# => {
        let size = n.apply(ScalarOp::Abs, &[x], at.span)?;
        n.total(ReduceKind::Sum, size, &Over(axes, keepdims), at.span)
    };
    /// The square root of the sum of squares: the L2 norm. Of zeros alone its gradient is 0.
    ReduceL2(x: Value, axes: Axes = None, keepdims: Keep = None), r#"ReduceL2("x", [1])"# => {
        let sum = n.sum_of_squares(x, &Over(axes, keepdims), at.span)?;
        n.above_zero(sum, at.span, |n, sum| n.apply(ScalarOp::Sqrt, &[sum], at.span))
    };
    /// The sum of squares.
    ReduceSumSquare(x: Value, axes: Axes = None, keepdims: Keep = None), r#"ReduceSumSquare("x", [1])"# =>
        n.sum_of_squares(x, &Over(axes, keepdims), at.span);
    /// The logarithm of the sum.
    ReduceLogSum(x: Value, axes: Axes = None, keepdims: Keep = None), r#"ReduceLogSum(Exp("x"), [1])"# => {
        let sum = n.total(ReduceKind::Sum, x, &Over(axes, keepdims), at.span)?;
        n.apply(ScalarOp::Log, &[sum], at.span)
    };
    /// The logarithm of the sum of exponentials, without overflow.
    ReduceLogSumExp(x: Value, axes: Axes = None, keepdims: Keep = None), r#"ReduceLogSumExp("x", [1])"# =>
        n.log_sum_exp(x, &Over(axes, keepdims), at.span);
    /// The mean squared deviation from the mean; `unbiased` divides by one less than the number of elements.
    Variance(x: Value, axes: Axes = None, keepdims: Keep = None, unbiased: Flag = false), r#"Variance("x", [1])"# =>
        n.variance_over(x, &Over(axes, keepdims), unbiased, at.span);
    /// Sums of all elements up to each one along a dimension: without it (`exclusive`), or from the end on (`reverse`).
    CumSum(x: Value, axis: Dimension, exclusive: Flag = false, reverse: Flag = false), r#"CumSum("x", 1)"# =>
        n.cumulative(ScalarOp::Add, 0.0, x, axis, (exclusive, reverse), at.span);
    /// Products of elements up to each one along a dimension: without it (`exclusive`), or from the end on (`reverse`).
    CumProd(x: Value, axis: Dimension, exclusive: Flag = false, reverse: Flag = false), r#"CumProd("x", 1)"# =>
        n.cumulative(ScalarOp::Mul, 1.0, x, axis, (exclusive, reverse), at.span);
}

/// What a reduction is over, as it was written: dimensions, and whether they stay.
pub struct Over(Option<Vec<i64>>, Option<bool>);

impl Nodes<'_> {
    /// A result in which dimensions have the size 1, without them where they do not stay.
    fn dropped(&mut self, value: NodeId, axes: &[usize], over: &Over, span: Span) -> Option<NodeId> {
        let Over(given, keep) = over;
        if keep.unwrap_or(given.is_some()) {
            return Some(value);
        }
        let shape = self.shape(value);
        let to: Vec<usize> = (0..shape.len()).filter(|d| !axes.contains(d)).map(|d| shape[d]).collect();
        let label = self.graph.op(value).name().trim_start_matches("reduce_").to_string();
        if self.shape(value) == to { Some(value) } else { self.add(Op::Reshape { to }, &[value], &label, span) }
    }

    /// Over sorted dimensions, which stay with size 1.
    pub fn reduced(&mut self, kind: ReduceKind, x: NodeId, axes: &[usize], span: Span) -> Option<NodeId> {
        if axes.is_empty() {
            return Some(x);
        }
        self.add(Op::Reduce { kind, axes: axes.to_vec() }, &[x], kind.name(), span)
    }

    /// Over one dimension, which goes.
    pub fn reduced_away(&mut self, kind: ReduceKind, x: NodeId, axis: usize, span: Span) -> Option<NodeId> {
        let value = self.reduced(kind, x, &[axis], span)?;
        self.squeezed(value, axis, span)
    }

    /// What there is so far, if anything, combined with what comes next.
    pub fn combined(
        &mut self,
        op: ScalarOp,
        before: Option<NodeId>,
        next: NodeId,
        name: &str,
        span: Span,
    ) -> Option<NodeId> {
        before.map_or(Some(next), |before| self.apply_as(op, &[before, next], name, span))
    }

    /// What a root makes of numbers of at least 0. It is 0 at 0, with a derivative of 0 in the place of an infinite one, which
    /// would make the gradient of what was summed NaN.
    pub fn above_zero(
        &mut self,
        x: NodeId,
        span: Span,
        root: impl FnOnce(&mut Self, NodeId) -> Option<NodeId>,
    ) -> Option<NodeId> {
        let (zero, one) = (self.constant(0.0, span)?, self.constant(1.0, span)?);
        let is_zero = self.apply(ScalarOp::Eq, &[x, zero], span)?;
        let safe = self.apply(ScalarOp::Select, &[is_zero, one, x], span)?;
        let root = root(self, safe)?;
        self.apply_as(ScalarOp::Select, &[is_zero, zero, root], "norm", span)
    }

    /// The sum of all elements: `f32[]`.
    pub fn sum_of_all(&mut self, x: NodeId, span: Span) -> Option<NodeId> {
        self.total(ReduceKind::Sum, x, &Over(None, None), span)
    }

    fn total(&mut self, kind: ReduceKind, x: NodeId, over: &Over, span: Span) -> Option<NodeId> {
        let axes = self.axes(over.0.as_deref(), x, span)?;
        let value = self.reduced(kind, x, &axes, span)?;
        self.dropped(value, &axes, over, span)
    }

    fn count(&self, x: NodeId, axes: &[usize]) -> usize {
        axes.iter().map(|&d| self.shape(x)[d]).product()
    }

    fn mean(&mut self, x: NodeId, over: &Over, span: Span) -> Option<NodeId> {
        let axes = self.axes(over.0.as_deref(), x, span)?;
        let sum = self.reduced(ReduceKind::Sum, x, &axes, span)?;
        let sum = self.dropped(sum, &axes, over, span)?;
        let inverse = self.constant(1.0 / self.count(x, &axes) as f64, span)?;
        self.apply_as(ScalarOp::Mul, &[sum, inverse], "mean", span)
    }

    /// The mean over sorted dimensions, which stay with size 1.
    pub fn mean_kept(&mut self, x: NodeId, axes: &[usize], span: Span) -> Option<NodeId> {
        let sum = self.reduced(ReduceKind::Sum, x, axes, span)?;
        let inverse = self.constant(1.0 / self.count(x, axes) as f64, span)?;
        self.apply_as(ScalarOp::Mul, &[sum, inverse], "mean", span)
    }

    /// `x` without its mean over sorted dimensions, and its biased variance over them.
    pub fn centred(&mut self, x: NodeId, axes: &[usize], span: Span) -> Option<(NodeId, NodeId)> {
        let mean = self.mean_kept(x, axes, span)?;
        let centred = self.apply_as(ScalarOp::Sub, &[x, mean], "centred", span)?;
        let square = self.apply_as(ScalarOp::Mul, &[centred, centred], "square", span)?;
        Some((centred, self.mean_kept(square, axes, span)?))
    }

    fn variance_over(&mut self, x: NodeId, over: &Over, unbiased: bool, span: Span) -> Option<NodeId> {
        let axes = self.axes(over.0.as_deref(), x, span)?;
        let count = self.count(x, &axes);
        let (_, mut variance) = self.centred(x, &axes, span)?;
        if unbiased {
            if count < 2 {
                self.misfit(x, "one value has no unbiased variance", "leave `unbiased` out", span);
                return None;
            }
            variance = self.with(ScalarOp::Mul, variance, count as f64 / (count - 1) as f64, span)?;
        }
        self.dropped(variance, &axes, over, span)
    }

    fn sum_of_squares(&mut self, x: NodeId, over: &Over, span: Span) -> Option<NodeId> {
        let square = self.apply_as(ScalarOp::Mul, &[x, x], "square", span)?;
        self.total(ReduceKind::Sum, square, over, span)
    }

    /// The largest is taken away first. The result does not depend on what is taken away, so no gradient goes through
    /// it.
    fn log_sum_exp(&mut self, x: NodeId, over: &Over, span: Span) -> Option<NodeId> {
        let axes = self.axes(over.0.as_deref(), x, span)?;
        let largest = self.reduced(ReduceKind::Max, x, &axes, span)?;
        // An infinity cannot be taken away from itself.
        let largest = self.with(ScalarOp::Max, largest, f64::from(f32::MIN), span)?;
        let largest = self.with(ScalarOp::Min, largest, f64::from(f32::MAX), span)?;
        let shift = self.add(Op::Detach, &[largest], "shift", span)?;
        let shifted = self.apply_as(ScalarOp::Sub, &[x, shift], "shifted", span)?;
        let exp = self.apply(ScalarOp::Exp, &[shifted], span)?;
        let sum = self.reduced(ReduceKind::Sum, exp, &axes, span)?;
        let log = self.apply(ScalarOp::Log, &[sum], span)?;
        let value = self.apply_as(ScalarOp::Add, &[log, shift], "log_sum_exp", span)?;
        self.dropped(value, &axes, over, span)
    }

    /// The product over sorted dimensions, which stay with size 1: one half times the other, until one element is left.
    pub fn product(&mut self, x: NodeId, axes: &[usize], span: Span) -> Option<NodeId> {
        let shape = self.shape(x).to_vec();
        let kept: Vec<usize> = (0..shape.len()).filter(|d| !axes.contains(d)).collect();
        let last = self.permuted(x, [&kept[..], axes].concat(), span)?;
        let mut flat: Vec<usize> = kept.iter().map(|&d| shape[d]).collect();
        let axis = flat.len();
        flat.push(self.count(x, axes));
        let mut value = self.reshaped(last, flat, span)?;
        let mut odd: Option<NodeId> = None;
        loop {
            let size = self.shape(value)[axis];
            if size % 2 == 1 {
                // The one that has no partner waits for the end.
                let alone = self.sliced(value, axis, [size - 1, size], span)?;
                odd = Some(self.combined(ScalarOp::Mul, odd, alone, "product", span)?);
            }
            let half = size / 2;
            if half == 0 {
                break;
            }
            let (a, b) =
                (self.sliced(value, axis, [0, half], span)?, self.sliced(value, axis, [half, 2 * half], span)?);
            value = self.apply_as(ScalarOp::Mul, &[a, b], "product", span)?;
        }
        let to = (0..shape.len()).map(|d| if axes.contains(&d) { 1 } else { shape[d] }).collect();
        self.reshaped(odd?, to, span)
    }

    /// Each element with the one 1, 2, 4, ... places before it (Hillis & Steele, CACM 29(12), 1986): as many rounds as
    /// the length has binary digits.
    fn cumulative(
        &mut self,
        op: ScalarOp,
        neutral: f64,
        x: NodeId,
        axis: i64,
        (exclusive, reverse): (bool, bool),
        span: Span,
    ) -> Option<NodeId> {
        let axis = self.axis(axis, self.shape(x).len(), span)?;
        let size = self.shape(x)[axis];
        let turned = Op::Reverse { axes: vec![axis] };
        let mut value = if reverse { self.add(turned.clone(), &[x], "reverse", span)? } else { x };
        let later = |n: &mut Self, value: NodeId, by: usize| {
            let start = n.sliced(value, axis, [0, size - by], span)?;
            n.filled(start, axis, [by, 0], neutral, span)
        };
        if exclusive && size == 1 {
            let shape = self.shape(x).to_vec();
            return self.add(Op::constant(neutral, self.ty(x).dtype, shape), &[], "neutral", span);
        }
        if exclusive {
            value = later(self, value, 1)?;
        }
        let mut by = 1;
        while by < size {
            let before = later(self, value, by)?;
            value = self.apply_as(op, &[value, before], "cumulative", span)?;
            by *= 2;
        }
        if reverse { self.add(turned, &[value], "reverse", span) } else { Some(value) }
    }
}
