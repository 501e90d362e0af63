//! Networks, expanded layer by layer.

use super::activations::FUNCTIONS;
use super::diagnostic::{Diagnostic, Span};
use super::expr::Expressions;
use super::foreign;
use super::layers::{Expand, LAYERS, Layer, Mode};
use super::nodes::{scalar_named, written};
use super::program::Network;
use super::ron::Node;
use super::ron::decode::Args;
use super::rows::{Arg, At, Kind, Param, Row, find, names};
use super::weights::{STARTS, Start, Weights};
use crate::ir::{DType, NodeId, Type};
use crate::scalar::{Lane, ScalarOp};

/// Adds the nodes of layers that are made of layers. Arguments are in the order of the row.
type Block = for<'l, 'n> fn(&mut Expressions<'l, 'n>, &Site, &[Option<&'n Node>]) -> Option<NodeId>;

const LAYERS_PARAM: Param = Param { name: "layers", kind: Kind::Written("a list of layers"), default: None };

/// Layers that are made of layers.
pub const BLOCKS: &[Row<Block>] = &[
    Row {
        name: "Repeat",
        params: &[Param { name: "times", kind: Kind::Size, default: None }, LAYERS_PARAM],
        meaning: "Layers that follow each other several times, each time with parameters of their own.",
        example: "Repeat(2, [Conv(channels: 4, kernel: 3, pad: 1), Relu()])",
        expand: |expressions, site, args| expressions.repeat_layers(site, args),
    },
    Row {
        name: "Residual",
        params: &[
            LAYERS_PARAM,
            Param { name: "shortcut", kind: Kind::Written("a list of layers"), default: Some(|| Arg::Nothing) },
        ],
        meaning: "What layers make of the input plus the input, or plus what the layers of `shortcut` make of it.",
        example: "Residual([BatchNorm(), Swish()])",
        expand: |expressions, site, args| expressions.residual(site, args),
    },
    Row {
        name: "SpectralNorm",
        params: &[Param { name: "layer", kind: Kind::Written("a layer with weights"), default: None }],
        meaning: "A layer whose weights are divided by their largest singular value (Miyato et al., 2018).",
        example: "SpectralNorm(Conv(channels: 4, kernel: 3))",
        expand: |expressions, site, args| expressions.spectral_norm(site, args),
    },
];

/// Whether a scalar function is a layer too: those of one real number are.
pub fn is_activation(op: ScalarOp) -> bool {
    op.operand_lanes() == [Lane::Real]
}

/// Where layers stand.
#[derive(Debug, Clone)]
pub struct Place {
    /// `generator`, or `generator/3-residual`: what the state of its layers is named after.
    path: String,
    mode: Mode,
    weights: Weights,
}

/// A layer among others.
pub struct Site<'p> {
    place: &'p Place,
    number: usize,
    span: Span,
    input: NodeId,
}

/// What a layer is.
enum Known {
    Row(&'static Row<Expand>),
    Block(&'static Row<Block>),
    /// A function of one tensor, which is what comes in.
    Function(&'static Row<super::ops::Expand>),
    Activation(ScalarOp),
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

impl<'n> Expressions<'_, 'n> {
    /// The output of a network for the input `x`: `[batch, ...]`.
    pub fn network(&mut self, network: &Network<'n>, x: NodeId, mode: Mode, span: Span) -> Option<NodeId> {
        let expected = self.shape(network.input, "`input`")?;
        let found = self.nodes().shape(x).to_vec();
        let fits = found.split_first().map(|(_, rest)| rest) == Some(&expected[..]);
        let takes_labels = network.layers.first().and_then(Node::name).is_some_and(|name| name.text == "Embedding");
        let dtype = if takes_labels { self.nodes().ty(x).dtype } else { DType::F32 };
        if !fits || *self.nodes().ty(x) != Type::new(dtype, found) {
            let sizes: Vec<String> =
                ["batch".to_string()].into_iter().chain(expected.iter().map(usize::to_string)).collect();
            let message = format!("`{}` can't take this input", network.name.text);
            let mut diagnostic = Diagnostic::new("shape-mismatch", message)
                .label(span, format!("the input is {}", self.nodes().ty(x)))
                .label(network.input.span, format!("expected f32[{}]", sizes.join(",")));
            if !self.nodes().ty(x).dtype.is_real() {
                diagnostic = diagnostic.help(
                    "a network takes labels where its first layer is `Embedding`, else real numbers: `ToReal` makes them",
                );
            }
            self.d().report(diagnostic);
            return None;
        }
        let start = match network.init {
            Some(init) => self.start(init)?,
            None => Start::Glorot,
        };
        self.nodes().enter(&network.name.text);
        let place = Place { path: network.name.text.clone(), mode, weights: Weights { start, is_spectral: false } };
        let value = self.layers(&place, network.layers, x);
        self.nodes().pop_scope();
        value
    }

    /// How the weights of a network start.
    fn start(&mut self, node: &'n Node) -> Option<Start> {
        let (name, args) = self.d().call(node, "a start of weights")?;
        let Some(row) = find(STARTS, &name.text) else {
            let diagnostic = Diagnostic::new("unknown-start", format!("weights can't start as `{}`", name.text))
                .label(name.span, "not known")
                .suggest(&name.text, &names(STARTS));
            self.d().report(diagnostic);
            return None;
        };
        let (args, spans) = self.arguments(row, args, node.span)?;
        (row.expand)(self.nodes(), &At { span: node.span, args: spans }, &args)
    }

    /// What layers make of `x`, one after the other.
    fn layers(&mut self, place: &Place, layers: &'n [Node], x: NodeId) -> Option<NodeId> {
        let mut value = Some(x);
        for (number, layer) in layers.iter().enumerate() {
            match value {
                Some(x) => value = self.layer(place, number, layer, x),
                // What comes after a mistake is looked at only as far as it does not depend on it.
                None => drop(self.known_layer(layer)),
            }
        }
        value
    }

    fn known_layer(&mut self, node: &'n Node) -> Option<(&'n str, Known, Args<'n>)> {
        let (name, args) = self.d().call(node, "a layer")?;
        let text = name.text.as_str();
        if let Some(row) = find(LAYERS, text) {
            return Some((text, Known::Row(row), args));
        }
        if let Some(row) = find(BLOCKS, text) {
            return Some((text, Known::Block(row), args));
        }
        if let Some(row) = find(FUNCTIONS, text) {
            return Some((text, Known::Function(row), args));
        }
        if let Some(op) = scalar_named(text).filter(|&op| is_activation(op)) {
            return Some((text, Known::Activation(op), args));
        }
        let activations: Vec<String> =
            ScalarOp::ALL.iter().copied().filter(|&op| is_activation(op)).map(written).collect();
        let layers = [names(LAYERS), names(BLOCKS), names(FUNCTIONS)].concat();
        let near: Vec<&str> = layers.into_iter().chain(activations.iter().map(String::as_str)).collect();
        let mut diagnostic = Diagnostic::new("unknown-layer", format!("there is no layer `{text}`"))
            .label(name.span, "not known")
            .did_you_mean(foreign::ours(text).unwrap_or(text), &near)
            .suggest(text, &names(LAYERS));
        if self.program().network(text).is_some() {
            diagnostic = diagnostic.help("networks do not hold networks: call one after the other in a step");
        }
        self.d().report(diagnostic);
        None
    }

    fn layer(&mut self, place: &Place, number: usize, node: &'n Node, x: NodeId) -> Option<NodeId> {
        let (name, known, args) = self.known_layer(node)?;
        if let Known::Block(row) = known {
            let site = Site { place, number, span: node.span, input: x };
            self.nodes().descend(node.span)?;
            let given = self.all_given(row.params, args);
            let value = given.and_then(|given| (row.expand)(self, &site, &given));
            self.nodes().leave();
            return value;
        }
        let short = format!("{number}-{}", snake(name));
        let path = format!("{}/{short}", place.path);
        let Place { mode, weights, .. } = *place;
        let layer = Layer { path, name: name.to_string(), span: node.span, mode, input: x, weights };
        self.nodes().descend(node.span)?;
        self.nodes().push_scope(&short);
        let value = match known {
            Known::Row(row) => {
                let read = self.arguments(row, args, node.span);
                read.and_then(|(args, _)| (row.expand)(self.nodes(), &layer, &args))
            }
            Known::Function(row) => self.arguments_for(&row.params[1..], args, node.span).and_then(|(args, spans)| {
                let at = At { span: node.span, args: [vec![node.span], spans].concat() };
                (row.expand)(self.nodes(), &at, &[vec![Arg::Value(x)], args].concat())
            }),
            Known::Activation(op) => {
                args.finish(self.d());
                self.nodes().apply(op, &[x], node.span)
            }
            Known::Block(_) => unreachable!("blocks are taken above"),
        };
        self.nodes().pop_scope();
        self.nodes().leave();
        value
    }

    /// What a list of layers makes of `x`, named after `name` below a place.
    fn inside(&mut self, place: &Place, name: &str, layers: &'n [Node], x: NodeId) -> Option<NodeId> {
        let place = Place { path: format!("{}/{name}", place.path), ..place.clone() };
        self.nodes().push_scope(name);
        let value = self.layers(&place, layers, x);
        self.nodes().pop_scope();
        value
    }

    fn repeat_layers(&mut self, site: &Site, args: &[Option<&'n Node>]) -> Option<NodeId> {
        let [Some(times), Some(layers)] = *args else { return None };
        let times = self.size(times, "`times`");
        let layers = self.d().list(layers, "`layers`")?;
        let name = format!("{}-repeat", site.number);
        let place = Place { path: format!("{}/{name}", site.place.path), ..site.place.clone() };
        self.nodes().push_scope(&name);
        let mut value = Some(site.input);
        for time in 0..times? {
            let counted = self.nodes().descend(site.span);
            value = counted.and(value).and_then(|x| self.inside(&place, &time.to_string(), layers, x));
            if value.is_none() {
                break;
            }
            self.nodes().leave();
        }
        self.nodes().pop_scope();
        value
    }

    /// He, Zhang, Ren & Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, equations 1 and 2.
    fn residual(&mut self, site: &Site, args: &[Option<&'n Node>]) -> Option<NodeId> {
        let [Some(layers), shortcut] = *args else { return None };
        let layers = self.d().list(layers, "`layers`");
        let shortcut = match shortcut {
            Some(shortcut) => Some(self.d().list(shortcut, "`shortcut`")?),
            None => None,
        };
        let name = format!("{}-residual", site.number);
        let made = self.inside(site.place, &name, layers?, site.input);
        let kept = match shortcut {
            Some(shortcut) => self.inside(site.place, &format!("{name}/shortcut"), shortcut, site.input),
            None => Some(site.input),
        };
        let (made, kept) = (made?, kept?);
        let [ours, theirs] = [made, kept].map(|x| self.nodes().ty(x).clone());
        if ours != theirs {
            let diagnostic = Diagnostic::new("shape-mismatch", "the sum of a residual needs two values of one shape")
                .label(site.span, format!("the layers give {ours}, the shortcut {theirs}"))
                .help("a shortcut of its own brings the input to that shape, as `shortcut: [Conv(channels: 8, kernel: 1)]`");
            self.d().report(diagnostic);
            return None;
        }
        self.nodes().push_scope(&name);
        let sum = self.nodes().apply_as(ScalarOp::Add, &[made, kept], "sum", site.span);
        self.nodes().pop_scope();
        sum
    }

    /// The layer is called what it would be called by itself. Of a block, the weights of all its layers are normalised.
    fn spectral_norm(&mut self, site: &Site, args: &[Option<&'n Node>]) -> Option<NodeId> {
        let [Some(layer)] = *args else { return None };
        let mut place = site.place.clone();
        place.weights.is_spectral = true;
        let before = self.nodes().normalised_weights();
        let value = self.layer(&place, site.number, layer, site.input);
        if value.is_some() && self.nodes().normalised_weights() == before {
            let diagnostic = Diagnostic::new("wrong-arguments", "`SpectralNorm` takes a layer with weights")
                .label(layer.span, "this has none to be normalised")
                .help("as in SpectralNorm(Conv(channels: 8, kernel: 3)); what has no weights stands by itself");
            self.d().report(diagnostic);
            return None;
        }
        value
    }
}
