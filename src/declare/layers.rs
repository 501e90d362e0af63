//! Layers, expanded to primitive operations.

use super::diagnostic::{Diagnostic, Span};
use super::nodes::Nodes;
use super::rows::{Arg, Kind, Pads, Param, Row, rows};
use super::weights::Weights;
use super::windows::{Pooling, Spacing};
use crate::ir::{Initialiser, NodeId, Op, ReduceKind, StateRole, Type};
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

/// What layers for images take, in words.
const IMAGES: &str = "images [batch, channels, height, width]";

/// Adds the nodes of a layer.
pub type Expand = fn(&mut Nodes<'_>, &Layer, &[Arg]) -> Option<NodeId>;

rows! {
    /// The layers; every scalar function of one real number is a layer too.
    LAYERS: Expand; |n, layer|
    /// Each of `units` results is a weighted sum of all features, [batch, features].
    Dense(units: Size, bias: Flag = true), "Dense(units: 10)" => n.dense(layer, units, bias);
    /// A convolution of images [batch, channels, height, width], or with one or three dimensions instead of two.
    Conv(
        channels: Size, kernel: Lengths, stride: Lengths = vec![1], pad: Pads = Pads::Sides(vec![0]), bias: Flag = true,
        dilation: Lengths = vec![1], groups: Size = 1
    ), "Conv(channels: 4, kernel: 4, stride: 2, pad: 1)" => {
        let spacing = Spacing { stride, pads: pad, dilation };
        n.conv(layer, (channels, &kernel), &spacing, groups, bias)
    };
    /// A transposed convolution: with a stride of 2 images double in size. `output_padding` adds at the end.
    ConvTranspose(
        channels: Size, kernel: Lengths, stride: Lengths = vec![1], pad: Pads = Pads::Sides(vec![0]), bias: Flag = true,
        dilation: Lengths = vec![1], groups: Size = 1, output_padding: Amounts = vec![0]
    ), "ConvTranspose(channels: 4, kernel: 4, stride: 2, pad: 1)" => {
        let spacing = Spacing { stride, pads: pad, dilation };
        n.conv_transpose(layer, (channels, &kernel), &spacing, (&output_padding, groups), bias)
    };
    /// Each channel to mean 0 and variance 1 over the batch, then scaled and shifted by learned numbers.
    BatchNorm(epsilon: Positive = 1e-5, momentum: Fraction = 0.1), "BatchNorm()" =>
        n.batch_norm(layer, epsilon, momentum);
    /// Each example to mean 0 and variance 1 from dimension `axis` on, then scaled and shifted by learned numbers.
    LayerNorm(axis: Dimension = 1, epsilon: Positive = 1e-5), "LayerNorm()" =>
        n.layer_norm(layer, axis, epsilon, false);
    /// Each example to a mean square of 1 over the dimensions from `axis` on, then scaled by learned numbers.
    RMSNorm(axis: Dimension = 1, epsilon: Positive = 1e-5), "RMSNorm()" => n.layer_norm(layer, axis, epsilon, true);
    /// Each channel of each example to mean 0 and variance 1, then scaled and shifted by learned numbers.
    InstanceNorm(epsilon: Positive = 1e-5), "InstanceNorm()" => n.group_norm(layer, None, epsilon);
    /// Each group of channels of each example to mean 0 and variance 1, then scaled and shifted by learned numbers.
    GroupNorm(groups: Size, epsilon: Positive = 1e-5), "GroupNorm(1)" => n.group_norm(layer, Some(groups), epsilon);
    /// In training, elements become 0 with the probability `rate`; the others are scaled up.
    Dropout(rate: Fraction), "Dropout(0.25)" =>
        if layer.mode == Mode::Inference { Some(layer.input) } else { n.dropout(layer.input, rate, layer.span) };
    /// Negative numbers are multiplied by a learned slope: one for all, or one for each channel.
    PRelu(start: Number = 0.25, per_channel: Flag = false), "PRelu()" => n.learned_slope(layer, start, per_channel);
    /// Class numbers (also labels, as a first layer) as learned vectors of `size`; zeros for a computed one out of range.
    Embedding(classes: Size, size: Size), "Embedding(10, 16)" => n.embedding(layer, classes, size);
    /// [batch, ...] as [batch, all the rest].
    Flatten(), "Flatten()" => n.flatten(layer.input, layer.span);
    /// The same elements of each example in another shape, written without the batch; one size may be -1.
    Reshape(shape: Shape), "Reshape([4, -1])" => n.reshape_examples(layer, &shape);
    /// The largest of each window; without a stride windows lie side by side; `ceil` keeps a last one that is cut off.
    MaxPool(
        size: Lengths, stride: Lengths = vec![], pad: Pads = Pads::Sides(vec![0]), dilation: Lengths = vec![1],
        ceil: Flag = false
    ), "MaxPool(2)" => {
        let spacing = Spacing { stride, pads: pad, dilation };
        n.pooled(layer.input, (&size, ceil), &spacing, Pooling::Max, layer.span)
    };
    /// The mean of each window of `size`, in which padding counts as zeros with `count_include_pad`.
    AvgPool(
        size: Lengths, stride: Lengths = vec![], pad: Pads = Pads::Sides(vec![0]), dilation: Lengths = vec![1],
        ceil: Flag = false,
        count_include_pad: Flag = false
    ), "AvgPool(2)" => {
        let spacing = Spacing { stride, pads: pad, dilation };
        n.pooled(layer.input, (&size, ceil), &spacing, Pooling::Average { padded: count_include_pad }, layer.span)
    };
    /// The mean of all pixels of each channel: [batch, channels, height, width] as [batch, channels].
    GlobalAvgPool(), "GlobalAvgPool()" => n.global_pool(layer, ReduceKind::Sum);
    /// The largest of all pixels of each channel: [batch, channels, height, width] as [batch, channels].
    GlobalMaxPool(), "GlobalMaxPool()" => n.global_pool(layer, ReduceKind::Max);
    /// Images so many times as high and wide: pixels repeated, or with lines drawn between them (`Linear`: bilinear).
    Upsample(scale: Lengths = vec![2], mode: Word(&["Nearest", "Linear"]) = "Nearest"), "Upsample(2)" =>
        n.upsampled(layer.input, &scale, mode == "Linear", layer.span);
}

impl Nodes<'_> {
    fn reshape_examples(&mut self, layer: &Layer, shape: &[i64]) -> Option<NodeId> {
        let x = layer.input;
        let to: Vec<i64> = [&[self.graph.shape(x)[0] as i64], shape].concat();
        self.reshape_to(x, &to, layer.span)
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
            let next = self.followed([old, keep], [new, follow], "followed", span)?;
            // No gradient flows through what was seen of earlier batches.
            let next = self.add(Op::Detach, &[next], name, span)?;
            self.current.insert(format!("{}/{name}", layer.path), next);
        }
        Some((centred, variance))
    }

    /// A convolution. Weights are laid out as PyTorch has them: `[out, in / groups, height, width]`.
    fn conv(
        &mut self,
        layer: &Layer,
        (channels, kernel): (usize, &[usize]),
        spacing: &Spacing,
        groups: usize,
        bias: bool,
    ) -> Option<NodeId> {
        let (input, kernel, fans) = self.expect_grouped(layer, channels, kernel, groups)?;
        let weight = self.weight(layer, [&[channels, input / groups], &kernel[..]].concat(), fans, 0)?;
        let y = self.convolution(layer.input, weight, spacing, groups, layer.span)?;
        if bias { self.add_bias(layer, y) } else { Some(y) }
    }

    /// The transpose of a convolution, which is its gradient in its input. Weights are laid out as PyTorch has them:
    /// `[in, out / groups, height, width]`.
    fn conv_transpose(
        &mut self,
        layer: &Layer,
        (channels, kernel): (usize, &[usize]),
        spacing: &Spacing,
        (extra, groups): (&[usize], usize),
        bias: bool,
    ) -> Option<NodeId> {
        let (input, kernel, fans) = self.expect_grouped(layer, channels, kernel, groups)?;
        let weight = self.weight(layer, [&[input, channels / groups], &kernel[..]].concat(), fans, 1)?;
        let y = self.transposed(layer.input, weight, spacing, (extra, groups), layer.span)?;
        if bias { self.add_bias(layer, y) } else { Some(y) }
    }

    /// The channels of images that groups divide, the sizes of the kernel, and the sum of its fans in and out.
    fn expect_grouped(
        &mut self,
        layer: &Layer,
        channels: usize,
        kernel: &[usize],
        groups: usize,
    ) -> Option<(usize, Vec<usize>, f64)> {
        let x = layer.input;
        let dimensions = self.shape(x).len().saturating_sub(2);
        if !(1..=3).contains(&dimensions) || ![1, dimensions].contains(&kernel.len()) {
            let hint = "`Reshape([channels, height, width])` in front of it makes images";
            self.expect_rank(layer, x, 4, IMAGES, hint)?;
            let hint = format!("give a kernel of {dimensions} sizes, or one for all");
            self.misfit(x, format!("the kernel has {} sizes", kernel.len()), hint, layer.span);
            return None;
        }
        let input = self.shape(x)[1];
        if !input.is_multiple_of(groups) || !channels.is_multiple_of(groups) {
            let message = format!("{groups} groups do not divide {input} channels in and {channels} out");
            self.misfit(x, message, "they must divide both", layer.span);
            return None;
        }
        let kernel = if kernel.len() == 1 { vec![kernel[0]; dimensions] } else { kernel.to_vec() };
        let elements: f64 = kernel.iter().map(|&k| k as f64).product();
        let fans = (input + channels) as f64 / groups as f64 * elements;
        Some((input, kernel, fans))
    }

    /// Scales and offsets have the shape of an example, from `axis` on, as in PyTorch.
    fn layer_norm(&mut self, layer: &Layer, axis: i64, epsilon: f64, by_root: bool) -> Option<NodeId> {
        let (x, span) = (layer.input, layer.span);
        let shape = self.shape(x).to_vec();
        let axis = self.axis(axis, shape.len(), span)?;
        if axis == 0 {
            self.misfit(x, "a layer does not mix examples", "dimension 0 is the batch: `axis` is from 1 on", span);
            return None;
        }
        let axes: Vec<usize> = (axis..shape.len()).collect();
        let scale = self.parameter(layer, "scale", shape[axis..].to_vec(), Initialiser::Constant(1.0))?;
        if by_root {
            let normal = self.rms_normalised(x, &axes, epsilon, span)?;
            return self.scaled_and_shifted(normal, [Some(scale), None], span);
        }
        let offset = self.parameter(layer, "offset", shape[axis..].to_vec(), Initialiser::Constant(0.0))?;
        let normal = self.normalised(x, &axes, epsilon, span)?;
        self.scaled_and_shifted(normal, [Some(scale), Some(offset)], span)
    }

    /// By groups of channels, or by single ones. Scales and offsets are one for each channel.
    fn group_norm(&mut self, layer: &Layer, groups: Option<usize>, epsilon: f64) -> Option<NodeId> {
        let (x, span) = (layer.input, layer.span);
        let normal = self.group_normalised(x, groups, epsilon, span)?;
        let channels = self.shape(x)[1];
        let scale = self.parameter(layer, "scale", vec![channels], Initialiser::Constant(1.0))?;
        let offset = self.parameter(layer, "offset", vec![channels], Initialiser::Constant(0.0))?;
        let (scale, offset) = (self.by_channel(scale, x, span)?, self.by_channel(offset, x, span)?);
        self.scaled_and_shifted(normal, [Some(scale), Some(offset)], span)
    }

    /// He et al., "Delving Deep into Rectifiers", ICCV 2015, section 2.1.
    fn learned_slope(&mut self, layer: &Layer, start: f64, per_channel: bool) -> Option<NodeId> {
        let (x, span) = (layer.input, layer.span);
        if per_channel && self.shape(x).len() < 2 {
            self.misfit(x, "there are no channels", "leave `per_channel` out for one slope for all", span);
            return None;
        }
        let shape = if per_channel { vec![self.shape(x)[1]] } else { vec![] };
        let slope = self.parameter(layer, "slope", shape, Initialiser::Constant(start))?;
        let slope = self.by_channel(slope, x, span)?;
        self.p_relu(x, slope, span)
    }

    /// Vectors of mean 0 and variance 1, chosen by a product with one-hot rows: labels or whole numbers below `classes`
    /// are given.
    fn embedding(&mut self, layer: &Layer, classes: usize, size: usize) -> Option<NodeId> {
        let (x, span) = (layer.input, layer.span);
        let shape = self.shape(x).to_vec();
        self.limit_indices(x, classes, false);
        let x = if self.ty(x).dtype.is_real() { x } else { self.apply(ScalarOp::ToReal, &[x], span)? };
        let table =
            self.parameter(layer, "weight", vec![classes, size], Initialiser::Uniform { limit: 3f64.sqrt() })?;
        let x = self.reshaped(x, vec![shape.iter().product(), 1], span)?;
        let x = self.add(Op::Detach, &[x], "classes", span)?;
        let rows = self.is_index(x, classes, 1, span)?;
        let vectors = self.add(Op::MatMul, &[rows, table], "embedding", span)?;
        self.reshaped(vectors, [&shape[..], &[size]].concat(), span)
    }

    fn global_pool(&mut self, layer: &Layer, kind: ReduceKind) -> Option<NodeId> {
        let (x, span) = (layer.input, layer.span);
        let shape = self.shape(x).to_vec();
        if shape.len() < 3 {
            self.expect_rank(layer, x, 4, IMAGES, "pooling is for images")?;
        }
        let axes: Vec<usize> = (2..shape.len()).collect();
        let pooled = match kind {
            ReduceKind::Max => self.reduced(kind, x, &axes, span)?,
            _ => self.mean_kept(x, &axes, span)?,
        };
        self.reshaped(pooled, shape[..2].to_vec(), span)
    }
}
