//! Functions of one tensor that are not in the scalar table: activations, and what normalises along dimensions. Each is
//! a layer, too.

use super::diagnostic::{Diagnostic, Span};
use super::nodes::Nodes;
use super::ops::Expand;
use super::rows::{Arg, Kind, Param, Row, rows};
use crate::ir::{NodeId, Op, ReduceKind};
use crate::scalar::ScalarOp;

rows! {
    /// Functions of one tensor, which are layers, too.
    FUNCTIONS: Expand; |n, at|
    /// The value itself.
    Identity(x: Value), r#"Identity("x")"# => Some(x);
    /// Negative numbers become 0.
    Relu(x: Value), r#"Relu("x")"# => n.with(ScalarOp::Max, x, 0.0, at.span);
    /// Negative numbers are multiplied by `slope`.
    LeakyRelu(x: Value, slope: Number = 0.01), r#"LeakyRelu("x", 0.2)"# => n.leaky_relu(x, slope, at.span);
    /// Negative numbers x become `alpha`·(e^x − 1) (Clevert et al., ICLR 2016).
    Elu(x: Value, alpha: Number = 1.0), r#"Elu("x")"# => n.elu(x, [1.0, alpha, 1.0], at.span);
    /// `gamma` times Elu with `alpha` (Klambauer et al., "Self-Normalizing Neural Networks", NeurIPS 2017).
    Selu(x: Value, alpha: Number = 1.6732632423543772, gamma: Number = 1.0507009873554805), r#"Selu("x")"# =>
        n.elu(x, [gamma, alpha, 1.0], at.span);
    /// Negative numbers x become `alpha`·(e^(x / alpha) − 1) (Barron, arXiv 1704.07483).
    Celu(x: Value, alpha: Positive = 1.0), r#"Celu("x", 2.0)"# => n.elu(x, [1.0, alpha, 1.0 / alpha], at.span);
    /// x times the probability of a normal number below x, or `Tanh` for it (Hendrycks & Gimpel, arXiv 1606.08415).
    Gelu(x: Value, approximate: Word(&["None", "Tanh"]) = "None"), r#"Gelu("x")"# =>
        n.gelu(x, approximate == "Tanh", at.span);
    /// x·sigmoid(`alpha`·x) (Ramachandran et al., arXiv 1710.05941).
    Swish(x: Value, alpha: Number = 1.0), r#"Swish("x")"# => n.swish(x, alpha, at.span);
    /// x·sigmoid(x): `Swish` under PyTorch's name.
    Silu(x: Value), r#"Silu("x")"# => n.swish(x, 1.0, at.span);
    /// `alpha`·x + `beta`, kept between 0 and 1.
    HardSigmoid(x: Value, alpha: Number = 0.2, beta: Number = 0.5), r#"HardSigmoid("x")"# =>
        n.hard_sigmoid(x, alpha, beta, at.span);
    /// x times (x + 3) / 6 kept between 0 and 1.
    HardSwish(x: Value), r#"HardSwish("x")"# => {
        let gate = n.hard_sigmoid(x, 1.0 / 6.0, 0.5, at.span)?;
        n.apply_as(ScalarOp::Mul, &[x, gate], "hard_swish", at.span)
    };
    /// x·tanh(softplus(x)) (Misra, BMVC 2020).
    Mish(x: Value), r#"Mish("x")"# => {
        let soft = n.apply(ScalarOp::Softplus, &[x], at.span)?;
        let gate = n.apply(ScalarOp::Tanh, &[soft], at.span)?;
        n.apply_as(ScalarOp::Mul, &[x, gate], "mish", at.span)
    };
    /// x / (1 + |x|).
    Softsign(x: Value), r#"Softsign("x")"# => {
        let size = n.apply(ScalarOp::Abs, &[x], at.span)?;
        let more = n.with(ScalarOp::Add, size, 1.0, at.span)?;
        n.apply_as(ScalarOp::Div, &[x, more], "softsign", at.span)
    };
    /// Numbers up to `alpha` become 0.
    ThresholdedRelu(x: Value, alpha: Number = 1.0), r#"ThresholdedRelu("x", 0.5)"# => {
        let above = n.with(ScalarOp::Gt, x, alpha, at.span)?;
        let zero = n.constant(0.0, at.span)?;
        n.apply(ScalarOp::Select, &[above, x, zero], at.span)
    };
    /// Numbers between -`lambd` and `lambd` become 0, the others come nearer to 0 by `bias`.
    Shrink(x: Value, bias: Number = 0.0, lambd: NotNegative = 0.5), r#"Shrink("x", 0.5)"# =>
        n.shrink(x, bias, lambd, at.span);
    /// Numbers below `min` become `min`, those above `max` become `max`.
    Clip(x: Value, min: MaybeValue = None, max: MaybeValue = None), r#"Clip("x", 0, 6)"# => {
        let x = min.map_or(Some(x), |min| n.apply_as(ScalarOp::Max, &[x, min], "clip", at.span))?;
        max.map_or(Some(x), |max| n.apply_as(ScalarOp::Min, &[x, max], "clip", at.span))
    };
    /// 1 / x.
    Reciprocal(x: Value), r#"Reciprocal("x")"# => {
        let one = n.constant(1.0, at.span)?;
        n.apply_as(ScalarOp::Div, &[one, x], "reciprocal", at.span)
    };
    /// 1 where a mask is 0, and 0 where it is not.
    Not(x: Value), r#"Not("x")"# => n.with(ScalarOp::Eq, x, 0.0, at.span);
    /// Whether numbers are infinite, as 1 or 0; those of one sign may be left out.
    IsInf(x: Value, detect_negative: Flag = true, detect_positive: Flag = true), r#"IsInf("x")"# => {
        let x = if detect_negative && detect_positive { n.apply(ScalarOp::Abs, &[x], at.span)? } else { x };
        let infinity = if detect_positive { f64::INFINITY } else { f64::NEG_INFINITY };
        let found = n.with(ScalarOp::Eq, x, infinity, at.span)?;
        // Neither is asked for: it is 0 everywhere.
        let any = f64::from(u8::from(detect_negative || detect_positive));
        if any == 1.0 { Some(found) } else { n.with(ScalarOp::Mul, found, any, at.span) }
    };
    /// Exponentials over their sum, along one dimension.
    Softmax(x: Value, axis: Dimension = -1), r#"Softmax("x")"# => n.softmax(false, x, axis, at.span);
    /// The logarithm of the softmax, without overflow.
    LogSoftmax(x: Value, axis: Dimension = -1), r#"LogSoftmax("x")"# => n.softmax(true, x, axis, at.span);
    /// 1 at the first of the largest elements along one dimension, and 0 elsewhere.
    Hardmax(x: Value, axis: Dimension = -1), r#"Hardmax("x")"# => {
        let place = n.arg_extreme(x, axis, (true, true, false), at.span)?;
        let axis = n.axis(axis, n.shape(x).len(), at.span)?;
        n.is_index(place, n.shape(x)[axis], axis, at.span)
    };
    /// Divided by the L1 or L2 norm along one dimension; 0 where that is 0.
    LpNormalization(x: Value, axis: Dimension = -1, p: Integer = 2), r#"LpNormalization("x")"# =>
        n.lp_normalised(x, axis, p, at.span);
    /// To mean 0 and variance 1 over some dimensions, of images over all but the channels.
    MeanVarianceNormalization(x: Value, axes: Axes = Some(vec![0, 2, 3])), r#"MeanVarianceNormalization("x", [1])"# => {
        let axes = n.axes(axes.as_deref(), x, at.span)?;
        n.normalised(x, &axes, 1e-18, at.span)
    };
}

rows! {
    /// Operations on the elements of two tensors that the scalar table does not have.
    ELEMENTS: Expand; |n, at|
    /// 1 where both masks are not 0, else 0.
    And(a: Value, b: Value), r#"And(Gt("x", 0), Lt("y", 1))"# => {
        let [a, b] = n.masks([a, b], at.span)?;
        n.apply_as(ScalarOp::Mul, &[a, b], "and", at.span)
    };
    /// 1 where a mask is not 0, else 0.
    Or(a: Value, b: Value), r#"Or(Gt("x", 0), Lt("y", 1))"# => {
        let [a, b] = n.masks([a, b], at.span)?;
        n.apply_as(ScalarOp::Max, &[a, b], "or", at.span)
    };
    /// 1 where one mask is not 0 and the other is, else 0.
    Xor(a: Value, b: Value), r#"Xor(Gt("x", 0), Lt("y", 1))"# => {
        let [a, b] = n.masks([a, b], at.span)?;
        let equal = n.apply(ScalarOp::Eq, &[a, b], at.span)?;
        n.with(ScalarOp::Eq, equal, 0.0, at.span)
    };
    /// The rest of a divided by b, with the sign of b, or of a where `fmod` is true.
    Mod(a: Value, b: Value, fmod: Flag = false), r#"Mod("x", 3)"# => n.modulo(a, b, fmod, at.span);
    /// Where x is negative, x times a slope, which may differ from element to element: the operation behind the layer.
    PRelu(x: Value, slope: Value), r#"PRelu("x", 0.25)"# => n.p_relu(x, slope, at.span);
    /// The mean of tensors, element by element.
    MeanOf(items: Values), r#"MeanOf(["x", "y"])"# => n.mean_of(&items, at.span);
}

impl Nodes<'_> {
    /// A scalar operation on a tensor and a number.
    pub fn with(&mut self, op: ScalarOp, x: NodeId, number: f64, span: Span) -> Option<NodeId> {
        let number = self.constant(number, span)?;
        self.apply(op, &[x, number], span)
    }

    /// 1 where tensors are not 0, else 0.
    fn masks(&mut self, given: [NodeId; 2], span: Span) -> Option<[NodeId; 2]> {
        let mut masks = given;
        for mask in &mut masks {
            let is_zero = self.with(ScalarOp::Eq, *mask, 0.0, span)?;
            *mask = self.with(ScalarOp::Eq, is_zero, 0.0, span)?;
        }
        Some(masks)
    }

    fn leaky_relu(&mut self, x: NodeId, slope: f64, span: Span) -> Option<NodeId> {
        let (zero, slope) = (self.constant(0.0, span)?, self.constant(slope, span)?);
        let is_positive = self.apply_as(ScalarOp::Gt, &[x, zero], "is_positive", span)?;
        let scaled = self.apply_as(ScalarOp::Mul, &[x, slope], "scaled", span)?;
        self.apply(ScalarOp::Select, &[is_positive, x, scaled], span)
    }

    pub fn p_relu(&mut self, x: NodeId, slope: NodeId, span: Span) -> Option<NodeId> {
        let is_negative = self.with(ScalarOp::Lt, x, 0.0, span)?;
        let scaled = self.apply_as(ScalarOp::Mul, &[x, slope], "scaled", span)?;
        self.apply(ScalarOp::Select, &[is_negative, scaled, x], span)
    }

    /// `gamma`·x where x is positive, `gamma·alpha·(e^(x·rate) − 1)` where not.
    fn elu(&mut self, x: NodeId, [gamma, alpha, rate]: [f64; 3], span: Span) -> Option<NodeId> {
        // Where x is large its exponential is not taken: an infinity would spoil the gradient.
        let low = self.with(ScalarOp::Min, x, 0.0, span)?;
        let low = if rate == 1.0 { low } else { self.with(ScalarOp::Mul, low, rate, span)? };
        let exp = self.apply(ScalarOp::Exp, &[low], span)?;
        let less = self.with(ScalarOp::Sub, exp, 1.0, span)?;
        let curve = self.with(ScalarOp::Mul, less, alpha * gamma, span)?;
        let line = if gamma == 1.0 { x } else { self.with(ScalarOp::Mul, x, gamma, span)? };
        let is_positive = self.with(ScalarOp::Gt, x, 0.0, span)?;
        self.apply(ScalarOp::Select, &[is_positive, line, curve], span)
    }

    fn gelu(&mut self, x: NodeId, by_tanh: bool, span: Span) -> Option<NodeId> {
        let curve = if by_tanh {
            let square = self.apply(ScalarOp::Mul, &[x, x], span)?;
            let bend = self.with(ScalarOp::Mul, square, 0.044_715, span)?;
            let bend = self.with(ScalarOp::Add, bend, 1.0, span)?;
            let bent = self.apply(ScalarOp::Mul, &[x, bend], span)?;
            let scaled = self.with(ScalarOp::Mul, bent, (2.0 / std::f64::consts::PI).sqrt(), span)?;
            self.apply(ScalarOp::Tanh, &[scaled], span)?
        } else {
            let scaled = self.with(ScalarOp::Mul, x, std::f64::consts::FRAC_1_SQRT_2, span)?;
            self.apply(ScalarOp::Erf, &[scaled], span)?
        };
        let more = self.with(ScalarOp::Add, curve, 1.0, span)?;
        let half = self.with(ScalarOp::Mul, x, 0.5, span)?;
        self.apply_as(ScalarOp::Mul, &[half, more], "gelu", span)
    }

    fn swish(&mut self, x: NodeId, alpha: f64, span: Span) -> Option<NodeId> {
        let scaled = if alpha == 1.0 { x } else { self.with(ScalarOp::Mul, x, alpha, span)? };
        let gate = self.apply(ScalarOp::Sigmoid, &[scaled], span)?;
        self.apply_as(ScalarOp::Mul, &[x, gate], "swish", span)
    }

    fn hard_sigmoid(&mut self, x: NodeId, alpha: f64, beta: f64, span: Span) -> Option<NodeId> {
        let scaled = self.with(ScalarOp::Mul, x, alpha, span)?;
        let line = self.with(ScalarOp::Add, scaled, beta, span)?;
        let low = self.with(ScalarOp::Max, line, 0.0, span)?;
        self.with(ScalarOp::Min, low, 1.0, span)
    }

    fn shrink(&mut self, x: NodeId, bias: f64, lambd: f64, span: Span) -> Option<NodeId> {
        let (below, above) = (self.with(ScalarOp::Lt, x, -lambd, span)?, self.with(ScalarOp::Gt, x, lambd, span)?);
        let (more, less) = (self.with(ScalarOp::Add, x, bias, span)?, self.with(ScalarOp::Sub, x, bias, span)?);
        let zero = self.constant(0.0, span)?;
        let upper = self.apply(ScalarOp::Select, &[above, less, zero], span)?;
        self.apply(ScalarOp::Select, &[below, more, upper], span)
    }

    fn modulo(&mut self, a: NodeId, b: NodeId, fmod: bool, span: Span) -> Option<NodeId> {
        let rest = self.apply(ScalarOp::Fmod, &[a, b], span)?;
        if fmod {
            return Some(rest);
        }
        let product = self.apply(ScalarOp::Sign, &[rest], span)?;
        let sign = self.apply(ScalarOp::Sign, &[b], span)?;
        let product = self.apply(ScalarOp::Mul, &[product, sign], span)?;
        let differs = self.with(ScalarOp::Lt, product, 0.0, span)?;
        let shifted = self.apply(ScalarOp::Add, &[rest, b], span)?;
        self.apply(ScalarOp::Select, &[differs, shifted, rest], span)
    }

    fn mean_of(&mut self, items: &[NodeId], span: Span) -> Option<NodeId> {
        let Some((&first, rest)) = items.split_first() else {
            self.d().report(Diagnostic::new("wrong-arguments", "nothing has no mean").label(span, "an empty list"));
            return None;
        };
        let sum = rest.iter().try_fold(first, |sum, &x| self.apply(ScalarOp::Add, &[sum, x], span))?;
        self.with(ScalarOp::Mul, sum, 1.0 / items.len() as f64, span)
    }

    /// The largest is taken away first, so that nothing overflows. The result does not depend on what is taken away, so
    /// no gradient goes through it.
    pub fn softmax(&mut self, log: bool, x: NodeId, axis: i64, span: Span) -> Option<NodeId> {
        let axis = self.axis(axis, self.shape(x).len(), span)?;
        let max = self.add(Op::Reduce { kind: ReduceKind::Max, axes: vec![axis] }, &[x], "max", span)?;
        let max = self.add(Op::Detach, &[max], "shift", span)?;
        let shifted = self.apply_as(ScalarOp::Sub, &[x, max], "shifted", span)?;
        let exp = self.apply(ScalarOp::Exp, &[shifted], span)?;
        let sum = self.add(Op::Reduce { kind: ReduceKind::Sum, axes: vec![axis] }, &[exp], "sum", span)?;
        if log {
            let log = self.apply(ScalarOp::Log, &[sum], span)?;
            return self.apply_as(ScalarOp::Sub, &[shifted, log], "log_softmax", span);
        }
        self.apply_as(ScalarOp::Div, &[exp, sum], "softmax", span)
    }

    fn lp_normalised(&mut self, x: NodeId, axis: i64, p: i64, span: Span) -> Option<NodeId> {
        let axis = self.axis(axis, self.shape(x).len(), span)?;
        if !(1..=2).contains(&p) {
            self.misfit(x, format!("`p` is {p}"), "expected 1 or 2", span);
            return None;
        }
        let power =
            if p == 1 { self.apply(ScalarOp::Abs, &[x], span)? } else { self.apply(ScalarOp::Mul, &[x, x], span)? };
        let sum = self.reduced(ReduceKind::Sum, power, &[axis], span)?;
        // Instead of 0 by 0, 0 by 1.
        let is_zero = self.with(ScalarOp::Eq, sum, 0.0, span)?;
        let one = self.constant(1.0, span)?;
        let sum = self.apply(ScalarOp::Select, &[is_zero, one, sum], span)?;
        let norm = if p == 1 { sum } else { self.apply(ScalarOp::Sqrt, &[sum], span)? };
        self.apply_as(ScalarOp::Div, &[x, norm], "normalised", span)
    }
}
