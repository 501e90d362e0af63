//! Layers, expanded to primitive operations.

use super::diagnostic::{Diagnostic, Span};
use super::nodes::Nodes;
use super::rows::{Arg, Kind, Param, Row, rows};
use super::weights::Weights;
use crate::ir::{Distribution, Initialiser, NodeId, Op, Real, ReduceKind, StateRole, Type, Window};
use crate::scalar::ScalarOp;

/// How a network is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Batch statistics, which the running ones follow; dropout drops.
    Training,
    /// Running statistics; dropout does nothing.
    Inference,
}

/// The layer that is being expanded.
pub struct Layer {
    /// `generator/3-conv_transpose`: what its state is named after.
    pub path: String,
    /// For messages.
    pub name: String,
    pub span: Span,
    pub mode: Mode,
    pub input: NodeId,
    /// How its weights start, and whether they are normalised.
    pub weights: Weights,
}

/// Adds the nodes of a layer.
pub type Expand = fn(&mut Nodes<'_>, &Layer, &[Arg]) -> Option<NodeId>;

rows! {
    /// The layers; every scalar function of one real number is a layer too.
    LAYERS: Expand; |n, layer|
    /// Each of `units` results is a weighted sum of all features, [batch, features].
    Dense(units: Size, bias: Flag = true), "Dense(units: 10)" => n.dense(layer, units, bias);
    /// A convolution of images [batch, channels, height, width].
    Conv(channels: Size, kernel: Pair, stride: Pair = [1, 1], pad: Padding = [0, 0], bias: Flag = true),
        "Conv(channels: 4, kernel: 4, stride: 2, pad: 1)" => n.conv(layer, channels, kernel, Window { stride, pad }, bias, false);
    /// A transposed convolution: with a stride of 2 images become twice as high and wide.
    ConvTranspose(channels: Size, kernel: Pair, stride: Pair = [1, 1], pad: Padding = [0, 0], bias: Flag = true),
        "ConvTranspose(channels: 4, kernel: 4, stride: 2, pad: 1)" => n.conv(layer, channels, kernel, Window { stride, pad }, bias, true);
    /// Each channel to mean 0 and variance 1 over the batch, then scaled and shifted by learned numbers.
    BatchNorm(epsilon: Positive = 1e-5, momentum: Fraction = 0.1), "BatchNorm()" => n.batch_norm(layer, epsilon, momentum);
    /// In training, elements become 0 with the probability `rate`; the others are scaled up.
    Dropout(rate: Fraction), "Dropout(0.25)" => n.dropout(layer, rate);
    /// Negative numbers become 0.
    Relu(), "Relu()" => n.relu(layer);
    /// Negative numbers are multiplied by `slope`.
    LeakyRelu(slope: Number), "LeakyRelu(0.2)" => n.leaky_relu(layer, slope);
    /// [batch, ...] as [batch, all the rest].
    Flatten(), "Flatten()" => n.flatten(layer.input, layer.span);
    /// The same elements of each example in another shape, written without the batch.
    Reshape(shape: Sizes), "Reshape([4, 16])" => n.reshape_examples(layer, &shape);
    /// The largest of each `size` x `size` window; windows do not overlap.
    MaxPool(size: Size), "MaxPool(2)" => n.pool(layer, size, ReduceKind::Max);
    /// The mean of each `size` x `size` window; windows do not overlap.
    AvgPool(size: Size), "AvgPool(2)" => n.pool(layer, size, ReduceKind::Sum);
}

impl Nodes<'_> {
    fn relu(&mut self, layer: &Layer) -> Option<NodeId> {
        let (x, span) = (layer.input, layer.span);
        let zero = self.constant(0.0, span)?;
        self.apply(ScalarOp::Max, &[x, zero], span)
    }

    fn leaky_relu(&mut self, layer: &Layer, slope: f64) -> Option<NodeId> {
        let (x, span) = (layer.input, layer.span);
        let (zero, slope) = (self.constant(0.0, span)?, self.constant(slope, span)?);
        let is_positive = self.apply_as(ScalarOp::Gt, &[x, zero], "is_positive", span)?;
        let scaled = self.apply_as(ScalarOp::Mul, &[x, slope], "scaled", span)?;
        self.apply(ScalarOp::Select, &[is_positive, x, scaled], span)
    }

    fn reshape_examples(&mut self, layer: &Layer, shape: &[usize]) -> Option<NodeId> {
        let x = layer.input;
        let mut to = vec![self.graph.shape(x)[0]];
        to.extend(shape);
        self.add(Op::Reshape { to }, &[x], "reshape", layer.span)
    }

    /// Reports an input of another rank than a layer takes.
    pub fn expect_rank(&mut self, layer: &Layer, x: NodeId, rank: usize, what: &str, hint: &str) -> Option<()> {
        if self.graph.shape(x).len() == rank {
            return Some(());
        }
        let diagnostic = Diagnostic::new("shape-mismatch", format!("`{}` takes {what}", layer.name))
            .label(layer.span, format!("its input is {}", self.graph.ty(x)))
            .help(hint);
        self.d().report(diagnostic);
        None
    }

    pub fn parameter(&mut self, layer: &Layer, name: &str, shape: Vec<usize>, init: Initialiser) -> Option<NodeId> {
        self.state(&format!("{}/{name}", layer.path), Type::f32(shape), StateRole::Parameter, init, layer.span)
    }

    /// `x` plus one number for each index along dimension 1.
    pub fn add_bias(&mut self, layer: &Layer, x: NodeId) -> Option<NodeId> {
        let channels = self.graph.shape(x)[1];
        let bias = self.parameter(layer, "bias", vec![channels], Initialiser::Constant(0.0))?;
        let bias = self.along_channels(bias, x, "bias", layer.span)?;
        self.apply_as(ScalarOp::Add, &[x, bias], "add_bias", layer.span)
    }

    /// `[channels]` to the rank of `x`, along its dimension 1.
    fn along_channels(&mut self, vector: NodeId, x: NodeId, name: &str, span: Span) -> Option<NodeId> {
        let mut to = vec![1; self.graph.shape(x).len()];
        to[1] = self.graph.shape(x)[1];
        self.add(Op::Reshape { to }, &[vector], name, span)
    }

    fn dense(&mut self, layer: &Layer, units: usize, bias: bool) -> Option<NodeId> {
        let x = layer.input;
        self.expect_rank(layer, x, 2, "[batch, features]", "`Flatten()` in front of it makes one row of each example")?;
        let features = self.graph.shape(x)[1];
        let weight = self.weight(layer, vec![features, units], (features + units) as f64, 1)?;
        let y = self.add(Op::MatMul, &[x, weight], "matmul", layer.span)?;
        if bias { self.add_bias(layer, y) } else { Some(y) }
    }

    /// Ioffe & Szegedy, "Batch Normalization", ICML 2015, algorithms 1 and 2: each channel (dimension 1) is
    /// normalised over all other dimensions. The running variance is the unbiased one, as PyTorch has it.
    fn batch_norm(&mut self, layer: &Layer, epsilon: f64, momentum: f64) -> Option<NodeId> {
        let (x, span) = (layer.input, layer.span);
        let shape = self.graph.shape(x).to_vec();
        if shape.len() < 2 {
            let hint = "there is one value for each example: nothing to tell channels by";
            self.expect_rank(layer, x, 2, "[batch, features] or images", hint)?;
        }
        let channels = shape[1];
        let scale = self.parameter(layer, "scale", vec![channels], Initialiser::Constant(1.0))?;
        let offset = self.parameter(layer, "offset", vec![channels], Initialiser::Constant(0.0))?;
        let epsilon = self.constant(epsilon, span)?;
        let (centred, variance) = match layer.mode {
            Mode::Training => self.batch_statistics(layer, x, momentum)?,
            Mode::Inference => {
                let mean = self.running(layer, "running_mean", channels)?;
                let variance = self.running(layer, "running_variance", channels)?;
                let mean = self.along_channels(mean, x, "mean", span)?;
                let centred = self.apply_as(ScalarOp::Sub, &[x, mean], "centred", span)?;
                (centred, self.along_channels(variance, x, "variance", span)?)
            }
        };
        let shifted = self.apply_as(ScalarOp::Add, &[variance, epsilon], "shifted", span)?;
        let inverse = self.apply(ScalarOp::Rsqrt, &[shifted], span)?;
        let scale = self.along_channels(scale, x, "scale", span)?;
        let offset = self.along_channels(offset, x, "offset", span)?;
        let normal = self.apply_as(ScalarOp::Mul, &[centred, inverse], "normalised", span)?;
        let scaled = self.apply_as(ScalarOp::Mul, &[normal, scale], "scaled", span)?;
        self.apply_as(ScalarOp::Add, &[scaled, offset], "add_offset", span)
    }

    fn running(&mut self, layer: &Layer, name: &str, channels: usize) -> Option<NodeId> {
        let start = if name == "running_variance" { 1.0 } else { 0.0 };
        let (ty, init) = (Type::f32([channels]), Initialiser::Constant(start));
        self.state(&format!("{}/{name}", layer.path), ty, StateRole::Statistic, init, layer.span)
    }

    /// What is left of `x` without the mean of each channel, and the biased variance of each channel. The running
    /// statistics follow both.
    fn batch_statistics(&mut self, layer: &Layer, x: NodeId, momentum: f64) -> Option<(NodeId, NodeId)> {
        let span = layer.span;
        let shape = self.graph.shape(x).to_vec();
        let axes: Vec<usize> = (0..shape.len()).filter(|&d| d != 1).collect();
        let count: usize = axes.iter().map(|&d| shape[d]).product();
        if count < 2 {
            let diagnostic = Diagnostic::new("shape-mismatch", "one value for each channel has no variance")
                .label(span, format!("its input is {}", self.graph.ty(x)))
                .help("the batch must have at least 2 examples");
            self.d().report(diagnostic);
            return None;
        }
        let sum = Op::Reduce { kind: ReduceKind::Sum, axes };
        let inverse = self.constant(1.0 / count as f64, span)?;
        let total = self.add(sum.clone(), &[x], "sum", span)?;
        let mean = self.apply_as(ScalarOp::Mul, &[total, inverse], "mean", span)?;
        let centred = self.apply_as(ScalarOp::Sub, &[x, mean], "centred", span)?;
        let square = self.apply_as(ScalarOp::Mul, &[centred, centred], "square", span)?;
        let total = self.add(sum, &[square], "sum_of_squares", span)?;
        let variance = self.apply_as(ScalarOp::Mul, &[total, inverse], "variance", span)?;
        let unbiased = self.constant(count as f64 / (count - 1) as f64, span)?;
        let unbiased = self.apply_as(ScalarOp::Mul, &[variance, unbiased], "unbiased_variance", span)?;
        for (name, new) in [("running_mean", mean), ("running_variance", unbiased)] {
            let old = self.running(layer, name, shape[1])?;
            let new = self.add(Op::Reshape { to: vec![shape[1]] }, &[new], "reshape", span)?;
            let (keep, follow) = (self.constant(1.0 - momentum, span)?, self.constant(momentum, span)?);
            let kept = self.apply_as(ScalarOp::Mul, &[old, keep], "kept", span)?;
            let followed = self.apply_as(ScalarOp::Mul, &[new, follow], "followed", span)?;
            let next = self.apply_as(ScalarOp::Add, &[kept, followed], "followed", span)?;
            // No gradient flows through what was seen of earlier batches.
            let next = self.add(Op::Detach, &[next], name, span)?;
            self.current.insert(format!("{}/{name}", layer.path), next);
        }
        Some((centred, variance))
    }

    /// Srivastava et al., "Dropout", JMLR 15 (2014), in the form that scales while training.
    fn dropout(&mut self, layer: &Layer, rate: f64) -> Option<NodeId> {
        let x = layer.input;
        if layer.mode == Mode::Inference || rate == 0.0 {
            return Some(x);
        }
        let span = layer.span;
        let shape = self.graph.shape(x).to_vec();
        let mask = self.draw(Distribution::Bernoulli(Real(1.0 - rate)), shape, span)?;
        let scale = self.constant(1.0 / (1.0 - rate), span)?;
        let scaled = self.apply_as(ScalarOp::Mul, &[mask, scale], "scaled_mask", span)?;
        self.apply_as(ScalarOp::Mul, &[x, scaled], "drop", span)
    }
}
