//! Layers, expanded to primitive operations.

use super::diagnostic::{Diagnostic, Span};
use super::entry::EntryLowering;
use super::nodes::written;
use super::program::Network;
use super::ron::Node;
use super::ron::decode::Args;
use crate::ir::{Distribution, Initialiser, NodeId, Op, Real, ReduceKind, StateRole, Type};
use crate::scalar::{Lane, ScalarOp};

/// How a network is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Batch statistics, which the running ones follow; dropout drops.
    Training,
    /// Running statistics; dropout does nothing.
    Inference,
}

/// The names of the layers, beside which every scalar function of one real number is a layer too.
pub const LAYERS: [&str; 13] = [
    "Dense",
    "Conv",
    "ConvTranspose",
    "BatchNorm",
    "Dropout",
    "Relu",
    "LeakyRelu",
    "Tanh",
    "Sigmoid",
    "Flatten",
    "Reshape",
    "MaxPool",
    "AvgPool",
];

/// The scalar function that is a layer of this name.
fn activation(name: &str) -> Option<ScalarOp> {
    let is_real = |op: &ScalarOp| op.operand_lanes() == [Lane::Real];
    ScalarOp::ALL.iter().copied().filter(is_real).find(|&op| written(op) == name)
}

/// `ConvTranspose` as `conv_transpose`.
fn snake(name: &str) -> String {
    let mut snake = String::new();
    for (i, c) in name.chars().enumerate() {
        if c.is_ascii_uppercase() && i > 0 {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

/// The layer that is being expanded.
pub struct Layer {
    /// `generator/3-conv_transpose`: what its state is named after.
    path: String,
    /// For messages.
    pub name: String,
    pub span: Span,
    mode: Mode,
}

impl<'n> EntryLowering<'_, '_, 'n> {
    /// The output of a network for the input `x`: `[batch, ...]`.
    pub fn network(&mut self, network: &Network<'n>, x: NodeId, mode: Mode, span: Span) -> Option<NodeId> {
        let expected = self.shape_of(network.input)?;
        let found = self.graph.shape(x).to_vec();
        let fits = found.split_first().map(|(_, rest)| rest) == Some(&expected[..]);
        if !fits || *self.graph.ty(x) != Type::f32(found) {
            let sizes: Vec<String> =
                ["batch".to_string()].into_iter().chain(expected.iter().map(usize::to_string)).collect();
            let diagnostic = Diagnostic::new("shape-mismatch", format!("this is no input for `{}`", network.name.text))
                .label(span, format!("the input is {}", self.graph.ty(x)))
                .label(network.input.span, format!("expected f32[{}]", sizes.join(",")));
            self.d().report(diagnostic);
            return None;
        }
        self.enter(&network.name.text);
        let mut value = Some(x);
        for (number, layer) in network.layers.iter().enumerate() {
            match value {
                Some(x) => value = self.layer(network, number, layer, x, mode),
                // What comes after a mistake is looked at only as far as it does not depend on it.
                None => drop(self.known_layer(layer)),
            }
        }
        self.scope.pop();
        value
    }

    fn known_layer(&mut self, node: &'n Node) -> Option<(&'n str, Args<'n>)> {
        let (name, args) = self.d().call(node, "a layer")?;
        let text = name.text.as_str();
        if LAYERS.contains(&text) || activation(text).is_some() {
            return Some((text, args));
        }
        let mut diagnostic = Diagnostic::new("unknown-layer", format!("there is no layer `{text}`"))
            .label(name.span, "not known")
            .suggest(text, &LAYERS);
        if self.lowering.program.network(text).is_some() {
            diagnostic = diagnostic.help("networks do not hold networks: call one after the other in a step");
        }
        self.d().report(diagnostic);
        None
    }

    fn layer(&mut self, network: &Network<'n>, number: usize, node: &'n Node, x: NodeId, mode: Mode) -> Option<NodeId> {
        let (name, args) = self.known_layer(node)?;
        let short = format!("{number}-{}", snake(name));
        let path = format!("{}/{short}", network.name.text);
        let layer = Layer { path, name: name.to_string(), span: node.span, mode };
        self.descend(node.span)?;
        self.scope.push(short);
        let value = self.expand(&layer, args, x);
        self.scope.pop();
        self.leave();
        value
    }

    fn expand(&mut self, layer: &Layer, mut args: Args<'n>, x: NodeId) -> Option<NodeId> {
        let span = layer.span;
        match layer.name.as_str() {
            "Dense" => self.dense(layer, args, x),
            "Conv" => self.conv(layer, args, x, false),
            "ConvTranspose" => self.conv(layer, args, x, true),
            "BatchNorm" => self.batch_norm(layer, args, x),
            "Dropout" => self.dropout(layer, args, x),
            "MaxPool" | "AvgPool" => self.pool(layer, args, x),
            "LeakyRelu" => {
                let slope = args.required(self.d(), "slope");
                args.finish(self.d());
                let slope = self.number_of(slope?, "the slope")?;
                let (zero, slope) = (self.constant(0.0, span)?, self.constant(slope, span)?);
                let is_positive = self.apply_as(ScalarOp::Gt, &[x, zero], "is_positive", span)?;
                let scaled = self.apply_as(ScalarOp::Mul, &[x, slope], "scaled", span)?;
                self.apply(ScalarOp::Select, &[is_positive, x, scaled], span)
            }
            "Reshape" => {
                let shape = args.required(self.d(), "shape");
                args.finish(self.d());
                let mut to = vec![self.graph.shape(x)[0]];
                to.extend(self.shape_of(shape?)?);
                self.add(Op::Reshape { to }, &[x], "reshape", span)
            }
            "Relu" => {
                args.finish(self.d());
                let zero = self.constant(0.0, span)?;
                self.apply(ScalarOp::Max, &[x, zero], span)
            }
            "Flatten" => {
                args.finish(self.d());
                self.flatten(x, span)
            }
            name => {
                args.finish(self.d());
                self.apply(activation(name)?, &[x], span)
            }
        }
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

    fn parameter(&mut self, layer: &Layer, name: &str, shape: Vec<usize>, init: Initialiser) -> Option<NodeId> {
        self.state(&format!("{}/{name}", layer.path), Type::f32(shape), StateRole::Parameter, init, layer.span)
    }

    /// Weights uniform on ±√(6 / (fan in + fan out)) (Glorot & Bengio, AISTATS 2010, equation 16), where `fans`
    /// is that sum: channels in and out, each times the elements of the kernel.
    pub fn weight(&mut self, layer: &Layer, shape: Vec<usize>, fans: f64) -> Option<NodeId> {
        self.parameter(layer, "weight", shape, Initialiser::Uniform { limit: (6.0 / fans).sqrt() })
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

    /// Whether a bias is added: yes, where nothing is said.
    pub fn bias_wanted(&mut self, args: &mut Args<'n>) -> bool {
        args.optional("bias").and_then(|n| self.d().bool(n, "`bias`")).unwrap_or(true)
    }

    fn dense(&mut self, layer: &Layer, mut args: Args<'n>, x: NodeId) -> Option<NodeId> {
        let units = args.required(self.d(), "units");
        let bias = self.bias_wanted(&mut args);
        args.finish(self.d());
        let units = self.size_of(units?, "the number of units")?;
        self.expect_rank(layer, x, 2, "[batch, features]", "`Flatten()` in front of it makes one row of each example")?;
        let features = self.graph.shape(x)[1];
        let weight = self.weight(layer, vec![features, units], (features + units) as f64)?;
        let y = self.add(Op::MatMul, &[x, weight], "matmul", layer.span)?;
        if bias { self.add_bias(layer, y) } else { Some(y) }
    }

    /// Ioffe & Szegedy, "Batch Normalization", ICML 2015, algorithms 1 and 2: each channel (dimension 1) is
    /// normalised over all other dimensions. The running variance is the unbiased one, as PyTorch has it.
    fn batch_norm(&mut self, layer: &Layer, mut args: Args<'n>, x: NodeId) -> Option<NodeId> {
        let epsilon = args.optional("epsilon");
        let momentum = args.optional("momentum");
        args.finish(self.d());
        let epsilon = epsilon.map_or(Some(1e-5), |n| self.number_in(n, "`epsilon`", 0.0..f64::INFINITY));
        let momentum = momentum.map_or(Some(0.1), |n| self.number_in(n, "`momentum`", 0.0..1.0));
        let (epsilon, momentum) = (epsilon?, momentum?);
        let span = layer.span;
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
    fn dropout(&mut self, layer: &Layer, mut args: Args<'n>, x: NodeId) -> Option<NodeId> {
        let rate = args.required(self.d(), "rate");
        args.finish(self.d());
        let rate = self.number_in(rate?, "the rate", 0.0..1.0)?;
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
