//! Layers, expanded to primitive operations.

use super::decode::Args;
use super::diagnostic::{Diagnostic, Span};
use super::entry::EntryLowering;
use super::program::Network;
use super::syntax::{Name, Node, Value};
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

const LAYERS: [&str; 13] = [
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
struct Layer {
    /// `generator/3-conv_transpose`: what its state is named after.
    path: String,
    /// For messages.
    name: String,
    span: Span,
    mode: Mode,
}

impl<'n> EntryLowering<'_, '_, 'n> {
    /// The output of a network for the input `x`: `[batch, ...]`.
    pub fn network(&mut self, network: &Network<'n>, x: NodeId, mode: Mode, span: Span) -> Option<NodeId> {
        let expected = self.shape_of(network.input)?;
        let found = self.graph.shape(x).to_vec();
        if found.split_first().map(|(_, rest)| rest) != Some(&expected[..]) {
            let sizes: Vec<String> = expected.iter().map(usize::to_string).collect();
            let diagnostic = Diagnostic::new("shape-mismatch", format!("this is no input for `{}`", network.name.text))
                .label(span, format!("the input is {}", self.graph.ty(x)))
                .label(network.input.span, format!("expected [batch, {}]", sizes.join(", ")));
            self.d().report(diagnostic);
            return None;
        }
        self.enter(&network.name.text);
        let mut value = Some(x);
        for (number, layer) in network.layers.iter().enumerate() {
            let Some(x) = value else { break };
            value = self.layer(network, number, layer, x, mode);
        }
        self.scope.pop();
        value
    }

    fn layer(&mut self, network: &Network<'n>, number: usize, node: &'n Node, x: NodeId, mode: Mode) -> Option<NodeId> {
        let (name, args) = self.d().call(node, "a layer")?;
        if !LAYERS.contains(&name.text.as_str()) {
            let diagnostic = Diagnostic::new("unknown-layer", format!("there is no layer `{}`", name.text))
                .label(name.span, "not known")
                .suggest(&name.text, &LAYERS);
            self.d().report(diagnostic);
            return None;
        }
        let short = format!("{number}-{}", snake(&name.text));
        let path = format!("{}/{short}", network.name.text);
        self.scope.push(short);
        let layer = Layer { path, name: name.text.clone(), span: node.span, mode };
        let value = self.expand(&layer, name, node, args, x);
        self.scope.pop();
        value
    }

    fn expand(&mut self, layer: &Layer, name: &Name, node: &'n Node, args: Args<'n>, x: NodeId) -> Option<NodeId> {
        let span = layer.span;
        match name.text.as_str() {
            "Dense" => self.dense(layer, args, x),
            "Conv" => self.conv(layer, args, x, false),
            "ConvTranspose" => self.conv(layer, args, x, true),
            "BatchNorm" => self.batch_norm(layer, args, x),
            "Dropout" => self.dropout(layer, args, x),
            "MaxPool" | "AvgPool" => self.pool(layer, args, x),
            "LeakyRelu" => {
                let mut args = args;
                let slope = args.required(self.d(), "slope");
                args.finish(self.d());
                let slope = self.number_of(slope?, "the slope")?;
                let (zero, slope) = (self.constant(0.0, span), self.constant(slope, span));
                let is_positive = self.apply(ScalarOp::Gt, &[x, zero], span)?;
                let scaled = self.apply(ScalarOp::Mul, &[x, slope], span)?;
                self.apply(ScalarOp::Select, &[is_positive, x, scaled], span)
            }
            "Reshape" => {
                let mut args = args;
                let shape = args.required(self.d(), "shape");
                args.finish(self.d());
                let mut to = vec![self.graph.shape(x)[0]];
                to.extend(self.shape_of(shape?)?);
                self.add(Op::Reshape { to }, &[x], "reshape", span)
            }
            plain => {
                // The others take no arguments.
                if !matches!(node.value, Value::Unit { .. }) {
                    args.finish(self.d());
                }
                match plain {
                    "Relu" => {
                        let zero = self.constant(0.0, span);
                        self.apply(ScalarOp::Max, &[x, zero], span)
                    }
                    "Tanh" => self.apply(ScalarOp::Tanh, &[x], span),
                    "Sigmoid" => self.apply(ScalarOp::Sigmoid, &[x], span),
                    _ => self.flatten(x, span),
                }
            }
        }
    }

    /// Reports an input of another rank than a layer takes.
    fn expect_rank(&mut self, layer: &Layer, x: NodeId, rank: usize, what: &str, hint: &str) -> Option<()> {
        if self.graph.shape(x).len() == rank {
            return Some(());
        }
        let diagnostic = Diagnostic::new("shape-mismatch", format!("`{}` takes {what}", layer.name))
            .label(layer.span, format!("its input is {}", self.graph.ty(x)))
            .help(hint);
        self.d().report(diagnostic);
        None
    }

    fn parameter(&mut self, layer: &Layer, name: &str, shape: Vec<usize>, init: Initialiser) -> NodeId {
        self.state(&format!("{}/{name}", layer.path), Type::f32(shape), StateRole::Parameter, init, layer.span)
    }

    /// Weights uniform on ±√(6 / (fan in + fan out)) (Glorot & Bengio, AISTATS 2010, equation 16).
    fn weight(&mut self, layer: &Layer, shape: Vec<usize>, fans: usize) -> NodeId {
        let limit = (6.0 / fans as f64).sqrt();
        self.parameter(layer, "weight", shape, Initialiser::Uniform { limit })
    }

    /// `x` plus one number for each index along dimension 1.
    fn add_bias(&mut self, layer: &Layer, x: NodeId) -> Option<NodeId> {
        let channels = self.graph.shape(x)[1];
        let bias = self.parameter(layer, "bias", vec![channels], Initialiser::Constant(0.0));
        let bias = self.along_channels(bias, x, layer.span)?;
        self.apply(ScalarOp::Add, &[x, bias], layer.span)
    }

    /// `[channels]` to the shape of `x`, along its dimension 1.
    fn along_channels(&mut self, vector: NodeId, x: NodeId, span: Span) -> Option<NodeId> {
        let mut to = vec![1; self.graph.shape(x).len()];
        to[1] = self.graph.shape(x)[1];
        self.add(Op::Reshape { to }, &[vector], "reshape", span)
    }

    /// A true-or-false argument that is true where it is left out.
    fn bias_wanted(&mut self, args: &mut Args<'n>) -> bool {
        args.optional("bias").and_then(|n| self.d().bool(n, "`bias`")).unwrap_or(true)
    }

    fn dense(&mut self, layer: &Layer, mut args: Args<'n>, x: NodeId) -> Option<NodeId> {
        let units = args.required(self.d(), "units");
        let bias = self.bias_wanted(&mut args);
        args.finish(self.d());
        let units = self.size_of(units?, "the number of units")?;
        self.expect_rank(layer, x, 2, "[batch, features]", "`Flatten()` in front of it makes one row of each example")?;
        let features = self.graph.shape(x)[1];
        let weight = self.weight(layer, vec![features, units], features + units);
        let y = self.add(Op::MatMul, &[x, weight], "matmul", layer.span)?;
        if bias { self.add_bias(layer, y) } else { Some(y) }
    }

    /// One size for both dimensions, or a list of two.
    fn pair(&mut self, node: &Node, what: &str, least: usize) -> Option<[usize; 2]> {
        let pair = match &node.value {
            Value::List(items) | Value::Tuple { name: None, items } if items.len() == 2 => {
                let sizes = [self.whole(&items[0], what), self.whole(&items[1], what)];
                [sizes[0]?, sizes[1]?]
            }
            _ => [self.whole(node, what)?; 2],
        };
        if pair.iter().all(|&p| p >= least) {
            return Some(pair);
        }
        let diagnostic =
            Diagnostic::new("bad-value", format!("{what} must be at least {least}")).label(node.span, "too small");
        self.d().report(diagnostic);
        None
    }

    /// A whole number from 0, or the name of a size.
    fn whole(&mut self, node: &Node, what: &str) -> Option<usize> {
        match node.value {
            Value::Int(0) => Some(0),
            _ => self.size_of(node, what),
        }
    }

    fn conv(&mut self, layer: &Layer, mut args: Args<'n>, x: NodeId, is_transposed: bool) -> Option<NodeId> {
        let channels = args.required(self.d(), "channels");
        let kernel = args.required(self.d(), "kernel");
        let stride = args.optional("stride");
        let pad = args.optional("pad");
        let bias = self.bias_wanted(&mut args);
        args.finish(self.d());
        let channels = channels.and_then(|n| self.size_of(n, "the number of channels"));
        let kernel = kernel.and_then(|n| self.pair(n, "the kernel", 1));
        let stride = stride.map_or(Some([1, 1]), |n| self.pair(n, "the stride", 1));
        let pad = pad.map_or(Some([0, 0]), |n| self.pair(n, "the padding", 0));
        let (channels, kernel, window) = (channels?, kernel?, Window { stride: stride?, pad: pad? });
        let hint = "`Reshape([channels, height, width])` in front of it makes images";
        self.expect_rank(layer, x, 4, "images [batch, channels, height, width]", hint)?;
        let [_, input, height, width] = self.graph.shape(x)[..] else { return None };
        let area = kernel[0] * kernel[1];
        let fans = (input + channels) * area;
        let y = if is_transposed {
            let weight = self.weight(layer, vec![input, channels, kernel[0], kernel[1]], fans);
            let size = |d: usize, n: usize| ((n - 1) * window.stride[d] + kernel[d]).checked_sub(2 * window.pad[d]);
            let (Some(height @ 1..), Some(width @ 1..)) = (size(0, height), size(1, width)) else {
                let diagnostic = Diagnostic::new("shape-mismatch", "nothing is left of the image")
                    .label(layer.span, format!("its input is {}", self.graph.ty(x)))
                    .help("the padding takes away more than the kernel adds");
                self.d().report(diagnostic);
                return None;
            };
            self.add(Op::Conv2dInputGrad { window, size: [height, width] }, &[x, weight], "conv_transpose", layer.span)?
        } else {
            let weight = self.weight(layer, vec![channels, input, kernel[0], kernel[1]], fans);
            self.add(Op::Conv2d { window }, &[x, weight], "conv", layer.span)?
        };
        if bias { self.add_bias(layer, y) } else { Some(y) }
    }

    /// Ioffe & Szegedy, "Batch Normalization", ICML 2015, algorithms 1 and 2: each channel (dimension 1) is
    /// normalised over all others. The running variance is the unbiased one.
    fn batch_norm(&mut self, layer: &Layer, mut args: Args<'n>, x: NodeId) -> Option<NodeId> {
        let epsilon = args.optional("epsilon");
        let momentum = args.optional("momentum");
        args.finish(self.d());
        let epsilon = epsilon.map_or(Some(1e-5), |n| self.number_of(n, "`epsilon`"));
        let momentum = momentum.map_or(Some(0.1), |n| self.number_of(n, "`momentum`"));
        let (epsilon, momentum) = (epsilon?, momentum?);
        let span = layer.span;
        let shape = self.graph.shape(x).to_vec();
        if shape.len() < 2 {
            return self.expect_rank(layer, x, 2, "[batch, features] or images", "").map(|()| x);
        }
        let channels = shape[1];
        let axes: Vec<usize> = (0..shape.len()).filter(|&d| d != 1).collect();
        let count: usize = axes.iter().map(|&d| shape[d]).product();
        let scale = self.parameter(layer, "scale", vec![channels], Initialiser::Constant(1.0));
        let offset = self.parameter(layer, "offset", vec![channels], Initialiser::Constant(0.0));
        let running = [("running_mean", 0.0), ("running_variance", 1.0)].map(|(name, start)| {
            let name = format!("{}/{name}", layer.path);
            let init = Initialiser::Constant(start);
            let node = self.state(&name, Type::f32([channels]), StateRole::Statistic, init, span);
            (name, node)
        });
        let epsilon = self.constant(epsilon, span);
        let (centred, variance) = match layer.mode {
            Mode::Training => {
                if count < 2 {
                    let diagnostic = Diagnostic::new("shape-mismatch", "one value for each channel has no variance")
                        .label(span, format!("its input is {}", self.graph.ty(x)));
                    self.d().report(diagnostic);
                    return None;
                }
                let sum = Op::Reduce { kind: ReduceKind::Sum, axes };
                let inverse = self.constant(1.0 / count as f64, span);
                let total = self.add(sum.clone(), &[x], "sum", span)?;
                let mean = self.apply(ScalarOp::Mul, &[total, inverse], span)?;
                let centred = self.apply(ScalarOp::Sub, &[x, mean], span)?;
                let square = self.apply(ScalarOp::Mul, &[centred, centred], span)?;
                let total = self.add(sum, &[square], "sum", span)?;
                let variance = self.apply(ScalarOp::Mul, &[total, inverse], span)?;
                let unbiased = self.constant(count as f64 / (count - 1) as f64, span);
                let unbiased = self.apply(ScalarOp::Mul, &[variance, unbiased], span)?;
                for ((name, old), new) in running.into_iter().zip([mean, unbiased]) {
                    let new = self.add(Op::Reshape { to: vec![channels] }, &[new], "reshape", span)?;
                    let (keep, follow) = (self.constant(1.0 - momentum, span), self.constant(momentum, span));
                    let kept = self.apply(ScalarOp::Mul, &[old, keep], span)?;
                    let followed = self.apply(ScalarOp::Mul, &[new, follow], span)?;
                    let next = self.apply(ScalarOp::Add, &[kept, followed], span)?;
                    let next = self.add(Op::Detach, &[next], "next", span)?;
                    self.current.insert(name, next);
                }
                (centred, variance)
            }
            Mode::Inference => {
                let [(_, mean), (_, variance)] = running;
                let mean = self.along_channels(mean, x, span)?;
                let variance = self.along_channels(variance, x, span)?;
                (self.apply(ScalarOp::Sub, &[x, mean], span)?, variance)
            }
        };
        let shifted = self.apply(ScalarOp::Add, &[variance, epsilon], span)?;
        let inverse = self.apply(ScalarOp::Rsqrt, &[shifted], span)?;
        let scale = self.along_channels(scale, x, span)?;
        let offset = self.along_channels(offset, x, span)?;
        let normal = self.apply(ScalarOp::Mul, &[centred, inverse], span)?;
        let scaled = self.apply(ScalarOp::Mul, &[normal, scale], span)?;
        self.apply(ScalarOp::Add, &[scaled, offset], span)
    }

    /// Srivastava et al., "Dropout", JMLR 15 (2014), in the form that scales while training.
    fn dropout(&mut self, layer: &Layer, mut args: Args<'n>, x: NodeId) -> Option<NodeId> {
        let rate = args.required(self.d(), "rate");
        args.finish(self.d());
        let rate_node = rate?;
        let rate = self.probability(rate_node, "the rate")?;
        if rate >= 1.0 {
            let diagnostic = Diagnostic::new("bad-value", "a rate of 1 leaves nothing")
                .label(rate_node.span, "expected a number below 1");
            self.d().report(diagnostic);
            return None;
        }
        if layer.mode == Mode::Inference || rate == 0.0 {
            return Some(x);
        }
        let shape = self.graph.shape(x).to_vec();
        let mask = self.draw(Distribution::Bernoulli(Real(1.0 - rate)), shape, layer.span)?;
        let scale = self.constant(1.0 / (1.0 - rate), layer.span);
        let scaled = self.apply(ScalarOp::Mul, &[mask, scale], layer.span)?;
        self.apply(ScalarOp::Mul, &[x, scaled], layer.span)
    }

    /// Windows of `size` × `size` that do not overlap.
    fn pool(&mut self, layer: &Layer, mut args: Args<'n>, x: NodeId) -> Option<NodeId> {
        let size = args.required(self.d(), "size");
        args.finish(self.d());
        let size = self.size_of(size?, "the size")?;
        let span = layer.span;
        self.expect_rank(layer, x, 4, "images [batch, channels, height, width]", "pooling is for images")?;
        let [batch, channels, height, width] = self.graph.shape(x)[..] else { return None };
        if height % size != 0 || width % size != 0 {
            let diagnostic = Diagnostic::new("shape-mismatch", format!("windows of {size} do not divide the image"))
                .label(span, format!("its input is {}", self.graph.ty(x)));
            self.d().report(diagnostic);
            return None;
        }
        let (rows, columns) = (height / size, width / size);
        let windows = Op::Reshape { to: vec![batch, channels, rows, size, columns, size] };
        let windows = self.add(windows, &[x], "windows", span)?;
        let kind = if layer.name == "MaxPool" { ReduceKind::Max } else { ReduceKind::Sum };
        let pooled = self.add(Op::Reduce { kind, axes: vec![3, 5] }, &[windows], "pool", span)?;
        let pooled = self.add(Op::Reshape { to: vec![batch, channels, rows, columns] }, &[pooled], "reshape", span)?;
        if kind == ReduceKind::Max {
            return Some(pooled);
        }
        let inverse = self.constant(1.0 / (size * size) as f64, span);
        self.apply(ScalarOp::Mul, &[pooled, inverse], span)
    }
}
