//! Numbers that follow the count of steps, as for a learning rate: values of the graph, worked out from state in each step.
//!
//! Each is what PyTorch's scheduler of the same kind gives after `t` calls of its `step`, where `t` is the count of steps
//! before this one: `LinearLR`, `CosineAnnealingLR` (up to its end, where ours stays and PyTorch's rises again), `StepLR`,
//! `ExponentialLR`.

use super::nodes::Nodes;
use super::ops::Expand;
use super::rows::{Arg, Kind, Param, Rate, Row, rows};
use crate::ir::{NodeId, Span};
use crate::scalar::ScalarOp;

rows! {
    /// The schedules.
    SCHEDULES: Expand; |n, at|
    /// The count of steps before this one, as a number.
    StepCount(), "StepCount()" => n.steps_before(at.span);
    /// From one number to another in equal steps, then the other for good.
    LinearDecay(from: NotNegative, to: NotNegative, steps: Size), "LinearDecay(2e-4, 0.0, 10000)" =>
        n.linear_decay(from, to, steps, at.span);
    /// From one number to another along half a wave of a cosine, then the other for good (Loshchilov & Hutter, 2017).
    CosineDecay(from: NotNegative, to: NotNegative, steps: Size), "CosineDecay(2e-4, 0.0, 10000)" =>
        n.cosine_decay(from, to, steps, at.span);
    /// A number, multiplied by `factor` after every `every` steps.
    StepDecay(from: NotNegative, factor: NotNegative, every: Size), "StepDecay(1e-3, 0.5, 1000)" =>
        n.step_decay(from, factor, every, at.span);
    /// A number, multiplied by `factor` after each step.
    ExponentialDecay(from: NotNegative, factor: Positive), "ExponentialDecay(1e-3, 0.9999)" =>
        n.exponential_decay(from, factor, at.span);
    /// A number or schedule, multiplied by what rises from `start` to 1 in the first `steps` steps.
    WarmUp(rate: Rate, steps: Size, start: Fraction = 0.0), "WarmUp(CosineDecay(2e-4, 0.0, 10000), 500)" =>
        n.warm_up(rate, steps, start, at.span);
}

impl Nodes<'_> {
    /// A fixed rate as a constant, or the node of one that is computed.
    pub fn rate(&mut self, rate: Rate, span: Span) -> Option<NodeId> {
        match rate {
            Rate::Fixed(number) => self.constant(number, span),
            Rate::Computed(node) => Some(node),
        }
    }

    fn steps_before(&mut self, span: Span) -> Option<NodeId> {
        let step = self.step_count(span)?;
        self.apply_as(ScalarOp::ToReal, &[step], "steps", span)
    }

    /// The part of `steps` that is done: 1 from then on.
    fn part_done(&mut self, steps: usize, span: Span) -> Option<NodeId> {
        let (done, all, one) =
            (self.steps_before(span)?, self.constant(steps as f64, span)?, self.constant(1.0, span)?);
        let part = self.apply_as(ScalarOp::Div, &[done, all], "part", span)?;
        self.apply_as(ScalarOp::Min, &[part, one], "part_done", span)
    }

    /// `from·(1 − part) + to·part`, which is exact at both ends, however different they are.
    fn between(&mut self, from: f64, to: f64, part: NodeId, span: Span) -> Option<NodeId> {
        let (start, end, one) = (self.constant(from, span)?, self.constant(to, span)?, self.constant(1.0, span)?);
        let left = self.apply_as(ScalarOp::Sub, &[one, part], "part_left", span)?;
        let start = self.apply_as(ScalarOp::Mul, &[start, left], "of_start", span)?;
        let end = self.apply_as(ScalarOp::Mul, &[end, part], "of_end", span)?;
        self.apply_as(ScalarOp::Add, &[start, end], "rate", span)
    }

    fn linear_decay(&mut self, from: f64, to: f64, steps: usize, span: Span) -> Option<NodeId> {
        let part = self.part_done(steps, span)?;
        self.between(from, to, part, span)
    }

    /// `to + (from − to)·(1 + cos πp) / 2`: equation 5 of Loshchilov & Hutter, "SGDR", ICLR 2017, for one period.
    fn cosine_decay(&mut self, from: f64, to: f64, steps: usize, span: Span) -> Option<NodeId> {
        let (part, pi) = (self.part_done(steps, span)?, self.constant(std::f64::consts::PI, span)?);
        let angle = self.apply_as(ScalarOp::Mul, &[part, pi], "angle", span)?;
        let cos = self.apply(ScalarOp::Cos, &[angle], span)?;
        let (one, half) = (self.constant(1.0, span)?, self.constant(0.5, span)?);
        let raised = self.apply_as(ScalarOp::Sub, &[one, cos], "raised", span)?;
        let part = self.apply_as(ScalarOp::Mul, &[raised, half], "part", span)?;
        self.between(from, to, part, span)
    }

    fn step_decay(&mut self, from: f64, factor: f64, every: usize, span: Span) -> Option<NodeId> {
        let (done, every) = (self.steps_before(span)?, self.constant(every as f64, span)?);
        let periods = self.apply_as(ScalarOp::Div, &[done, every], "periods", span)?;
        let periods = self.apply_as(ScalarOp::Floor, &[periods], "whole_periods", span)?;
        let (start, factor) = (self.constant(from, span)?, self.constant(factor, span)?);
        let power = self.apply_as(ScalarOp::Pow, &[factor, periods], "power", span)?;
        self.apply_as(ScalarOp::Mul, &[start, power], "rate", span)
    }

    /// `from·factorᵗ` as `from·e^(t·ln factor)`, whose exponent has the logarithm as the sum of two f32: f32 holds 0.9999
    /// with an error that is 3e-4 of what a step changes.
    fn exponential_decay(&mut self, from: f64, factor: f64, span: Span) -> Option<NodeId> {
        let high = f64::from(factor.ln() as f32);
        let (high, low) = (self.constant(high, span)?, self.constant(factor.ln() - high, span)?);
        let (done, start) = (self.steps_before(span)?, self.constant(from, span)?);
        let high = self.apply_as(ScalarOp::Mul, &[done, high], "high", span)?;
        let low = self.apply_as(ScalarOp::Mul, &[done, low], "low", span)?;
        let exponent = self.apply_as(ScalarOp::Add, &[high, low], "exponent", span)?;
        let power = self.apply_as(ScalarOp::Exp, &[exponent], "power", span)?;
        self.apply_as(ScalarOp::Mul, &[start, power], "rate", span)
    }

    fn warm_up(&mut self, rate: Rate, steps: usize, start: f64, span: Span) -> Option<NodeId> {
        let rate = self.rate(rate, span)?;
        let part = self.part_done(steps, span)?;
        let factor = self.between(start, 1.0, part, span)?;
        self.apply_as(ScalarOp::Mul, &[rate, factor], "rate", span)
    }
}
