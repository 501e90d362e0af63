//! Normalisation, as operations that take scales and offsets, and the losses of classifiers.

use super::diagnostic::Span;
use super::nodes::Nodes;
use super::ops::Expand;
use super::rows::{Arg, Kind, Param, Row, rows};
use crate::ir::{DType, NodeId, ReduceKind};
use crate::scalar::ScalarOp;

rows! {
    /// Normalisation with given scales and offsets.
    NORMS: Expand; |n, at|
    /// Mean 0 and variance 1 over the dimensions from `axis` on, then scaled and shifted (Ba et al., arXiv 1607.06450).
    LayerNormalization(
        x: Value, scale: MaybeValue = None, bias: MaybeValue = None, axis: Dimension = -1, epsilon: Positive = 1e-5
    ),
        r#"LayerNormalization("x")"# => {
        let axes = n.axes_from(x, axis, at.span)?;
        let normal = n.normalised(x, &axes, epsilon, at.span)?;
        n.scaled_and_shifted(normal, [scale, bias], at.span)
    };
    /// Divided by the root mean square over dimensions from `axis` on, then scaled (Zhang & Sennrich, NeurIPS 2019).
    RMSNormalization(x: Value, scale: MaybeValue = None, axis: Dimension = -1, epsilon: Positive = 1e-5),
        r#"RMSNormalization("x")"# => {
        let axes = n.axes_from(x, axis, at.span)?;
        let normal = n.rms_normalised(x, &axes, epsilon, at.span)?;
        n.scaled_and_shifted(normal, [scale, None], at.span)
    };
    /// Channels of a given mean and variance, or those of the batch, to mean 0 and variance 1, then scaled and shifted.
    BatchNormalization(
        x: Value, scale: Value, bias: Value, mean: MaybeValue = None, variance: MaybeValue = None,
        epsilon: Positive = 1e-5
    ), r#"BatchNormalization("images", 1, 0)"# =>
        n.batch_normalised(x, [scale, bias], [mean, variance], epsilon, at.span);
    /// Channels of each example to mean 0 and variance 1, then scaled and shifted (Ulyanov et al., arXiv 1607.08022).
    InstanceNormalization(x: Value, scale: Value, bias: Value, epsilon: Positive = 1e-5),
        r#"InstanceNormalization("images", 1, 0)"# => {
        let normal = n.group_normalised(x, None, epsilon, at.span)?;
        n.scaled_by_channel(normal, [scale, bias], at.span)
    };
    /// Each group of channels of each example to mean 0 and variance 1, then scaled and shifted (Wu & He, ECCV 2018).
    GroupNormalization(x: Value, scale: Value, bias: Value, groups: Size, epsilon: Positive = 1e-5),
        r#"GroupNormalization("images", 1, 0, 1)"# => {
        let normal = n.group_normalised(x, Some(groups), epsilon, at.span)?;
        n.scaled_by_channel(normal, [scale, bias], at.span)
    };
    /// x / (bias + alpha / size·sum of squares of `size` channels around x)^beta (Krizhevsky et al., NeurIPS 2012).
    LRN(x: Value, size: Size, alpha: Number = 1e-4, beta: Number = 0.75, bias: Number = 1.0), r#"LRN("images", 3)"# =>
        n.local_response(x, size, [alpha, beta, bias], at.span);
}

rows! {
    /// Losses of classifiers: scores are [examples, classes, ...], targets are labels of that shape without the
    /// classes.
    LOSSES: Expand; |n, at|
    /// Minus the log-probability of each target, times its class's weight; `Mean` divides by the sum of the weights.
    NegativeLogLikelihoodLoss(
        x: Value, target: Value, weight: MaybeValue = None, ignore_index: MaybeNumber = None,
        reduction: Word(LOSS_REDUCTIONS) = "Mean"
    ), r#"NegativeLogLikelihoodLoss(LogSoftmax("x"), "labels")"# =>
        n.likelihood_loss(x, target, weight, (ignore_index, reduction), at.span);
    /// The same of the logarithm of the softmax of scores over the classes.
    SoftmaxCrossEntropyLoss(
        x: Value, target: Value, weight: MaybeValue = None, ignore_index: MaybeNumber = None,
        reduction: Word(LOSS_REDUCTIONS) = "Mean"
    ), r#"SoftmaxCrossEntropyLoss("x", "labels")"# => {
        let x = n.softmax(true, x, 1, at.span)?;
        n.likelihood_loss(x, target, weight, (ignore_index, reduction), at.span)
    };
}

/// How the losses of examples become one.
const LOSS_REDUCTIONS: &[&str] = &["Mean", "Sum", "None"];

impl Nodes<'_> {
    fn axes_from(&mut self, x: NodeId, axis: i64, span: Span) -> Option<Vec<usize>> {
        let rank = self.shape(x).len();
        Some((self.axis(axis, rank, span)?..rank).collect())
    }

    /// To mean 0 and variance 1 over sorted dimensions.
    pub fn normalised(&mut self, x: NodeId, axes: &[usize], epsilon: f64, span: Span) -> Option<NodeId> {
        let (centred, variance) = self.centred(x, axes, span)?;
        self.over_root(centred, variance, epsilon, span)
    }

    /// `x / √(square + ε)`
    fn over_root(&mut self, x: NodeId, square: NodeId, epsilon: f64, span: Span) -> Option<NodeId> {
        let shifted = self.with(ScalarOp::Add, square, epsilon, span)?;
        let inverse = self.apply(ScalarOp::Rsqrt, &[shifted], span)?;
        self.apply_as(ScalarOp::Mul, &[x, inverse], "normalised", span)
    }

    /// To a mean square of 1 over sorted dimensions.
    pub fn rms_normalised(&mut self, x: NodeId, axes: &[usize], epsilon: f64, span: Span) -> Option<NodeId> {
        let square = self.apply_as(ScalarOp::Mul, &[x, x], "square", span)?;
        let mean = self.mean_kept(square, axes, span)?;
        self.over_root(x, mean, epsilon, span)
    }

    /// Times the first and plus the second, where there are.
    pub fn scaled_and_shifted(&mut self, x: NodeId, [scale, bias]: [Option<NodeId>; 2], span: Span) -> Option<NodeId> {
        let scaled = scale.map_or(Some(x), |scale| self.apply_as(ScalarOp::Mul, &[x, scale], "scaled", span))?;
        bias.map_or(Some(scaled), |bias| self.apply_as(ScalarOp::Add, &[scaled, bias], "add_offset", span))
    }

    /// A vector with a number for each channel, or one number for all, to the rank of `x`.
    pub fn by_channel(&mut self, vector: NodeId, x: NodeId, span: Span) -> Option<NodeId> {
        let (of, shape) = (self.shape(vector).to_vec(), self.shape(x).to_vec());
        match of[..] {
            [] => Some(vector),
            [count] if shape.len() >= 2 && count == shape[1] => {
                let mut to = vec![1; shape.len()];
                to[1] = count;
                self.reshaped(vector, to, span)
            }
            _ => {
                let message = format!("there is not one number for each channel of {}", self.ty(x));
                self.misfit(vector, message, "channels are dimension 1; give a vector, or one number for all", span);
                None
            }
        }
    }

    fn scaled_by_channel(&mut self, x: NodeId, given: [NodeId; 2], span: Span) -> Option<NodeId> {
        let [scale, bias] = given;
        let (scale, bias) = (self.by_channel(scale, x, span)?, self.by_channel(bias, x, span)?);
        self.scaled_and_shifted(x, [Some(scale), Some(bias)], span)
    }

    fn batch_normalised(
        &mut self,
        x: NodeId,
        given: [NodeId; 2],
        [mean, variance]: [Option<NodeId>; 2],
        epsilon: f64,
        span: Span,
    ) -> Option<NodeId> {
        let rank = self.shape(x).len();
        if rank < 2 {
            self.misfit(x, "there are no channels", "they are dimension 1", span);
            return None;
        }
        let normal = match (mean, variance) {
            (Some(mean), Some(variance)) => {
                let (mean, variance) = (self.by_channel(mean, x, span)?, self.by_channel(variance, x, span)?);
                let centred = self.apply_as(ScalarOp::Sub, &[x, mean], "centred", span)?;
                self.over_root(centred, variance, epsilon, span)?
            }
            (None, None) => {
                let axes: Vec<usize> = (0..rank).filter(|&d| d != 1).collect();
                self.normalised(x, &axes, epsilon, span)?
            }
            _ => {
                self.misfit(
                    x,
                    "either the mean or the variance is missing",
                    "give both, or neither for those of the batch",
                    span,
                );
                return None;
            }
        };
        self.scaled_by_channel(normal, given, span)
    }

    /// Over the pixels and the channels of each of some groups, or of each channel.
    pub fn group_normalised(&mut self, x: NodeId, groups: Option<usize>, epsilon: f64, span: Span) -> Option<NodeId> {
        let shape = self.shape(x).to_vec();
        let &[examples, channels, ..] = &shape[..] else {
            self.misfit(x, "there are no channels", "they are dimension 1", span);
            return None;
        };
        let groups = groups.unwrap_or(channels);
        if !channels.is_multiple_of(groups) {
            self.misfit(
                x,
                format!("{channels} channels cannot be cut into {groups} groups"),
                "the groups must divide the channels",
                span,
            );
            return None;
        }
        let rest = shape[2..].iter().product::<usize>() * (channels / groups);
        let flat = self.reshaped(x, vec![examples, groups, rest], span)?;
        let normal = self.normalised(flat, &[2], epsilon, span)?;
        self.reshaped(normal, shape, span)
    }

    fn local_response(&mut self, x: NodeId, size: usize, [alpha, beta, bias]: [f64; 3], span: Span) -> Option<NodeId> {
        let shape = self.shape(x).to_vec();
        if shape.len() < 2 {
            self.misfit(x, "there are no channels", "they are dimension 1", span);
            return None;
        }
        self.limit_parts(x, size, "channels", span)?;
        let square = self.apply_as(ScalarOp::Mul, &[x, x], "square", span)?;
        let low = (size - 1) / 2;
        let padded = self.padded(square, 1, [low, size - 1 - low], span)?;
        let mut sum = self.sliced(padded, 1, [0, shape[1]], span)?;
        for offset in 1..size {
            let next = self.sliced(padded, 1, [offset, offset + shape[1]], span)?;
            sum = self.apply(ScalarOp::Add, &[sum, next], span)?;
        }
        let scaled = self.with(ScalarOp::Mul, sum, alpha / size as f64, span)?;
        let shifted = self.with(ScalarOp::Add, scaled, bias, span)?;
        let power = self.with(ScalarOp::Pow, shifted, beta, span)?;
        self.apply_as(ScalarOp::Div, &[x, power], "local_response", span)
    }

    fn likelihood_loss(
        &mut self,
        x: NodeId,
        target: NodeId,
        weight: Option<NodeId>,
        (ignored, reduction): (Option<f64>, &str),
        span: Span,
    ) -> Option<NodeId> {
        let (shape, wanted) = (self.shape(x).to_vec(), self.shape(target).to_vec());
        if shape.len() < 2 || [&shape[..1], &shape[2..]].concat() != wanted {
            let message = format!("the targets are {}", self.ty(target));
            self.misfit(
                x,
                message,
                "scores are [examples, classes, ...], targets have the same shape without the classes",
                span,
            );
            return None;
        }
        let classes = shape[1];
        if ignored.is_none() {
            self.limit_indices(target, classes, false);
        }
        let mut to = wanted.clone();
        to.insert(1, 1);
        let labels =
            if self.ty(target).dtype == DType::U32 { self.apply(ScalarOp::ToReal, &[target], span)? } else { target };
        let labels = self.reshaped(labels, to, span)?;
        let mask = self.is_index(labels, classes, 1, span)?;
        // What is not under the mask plays no part, also where it is infinite.
        let chosen = self.masked(mask, x, span)?;
        let score = self.reduced(ReduceKind::Sum, chosen, &[1], span)?;
        let mut loss = self.apply(ScalarOp::Neg, &[score], span)?;
        let mut weights = match weight {
            Some(weight) => {
                let weight = self.by_channel(weight, x, span)?;
                let weighted = self.apply(ScalarOp::Mul, &[mask, weight], span)?;
                Some(self.reduced(ReduceKind::Sum, weighted, &[1], span)?)
            }
            None => None,
        };
        if let Some(ignored) = ignored {
            let is_ignored = self.with(ScalarOp::Eq, labels, ignored, span)?;
            let (zero, one) = (self.constant(0.0, span)?, self.constant(1.0, span)?);
            weights = Some(self.apply(ScalarOp::Select, &[is_ignored, zero, weights.unwrap_or(one)], span)?);
        }
        if let Some(weights) = weights {
            loss = self.apply(ScalarOp::Mul, &[loss, weights], span)?;
        }
        if reduction == "None" {
            return self.reshaped(loss, wanted, span);
        }
        let total = self.sum_of_all(loss, span)?;
        if reduction == "Sum" {
            return Some(total);
        }
        match weights {
            Some(weights) => {
                let sum = self.sum_of_all(weights, span)?;
                self.apply_as(ScalarOp::Div, &[total, sum], "loss", span)
            }
            None => self.with(ScalarOp::Mul, total, 1.0 / wanted.iter().product::<usize>() as f64, span),
        }
    }
}
