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
use super::rows::{Arg, At, Row, find, names};
use crate::ir::{NodeId, Type};
use crate::scalar::{Lane, ScalarOp};

/// Whether a scalar function is a layer too: those of one real number are.
pub fn is_activation(op: ScalarOp) -> bool {
    op.operand_lanes() == [Lane::Real]
}

/// What a layer is.
enum Known {
    Row(&'static Row<Expand>),
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
        if !fits || *self.nodes().ty(x) != Type::f32(found) {
            let sizes: Vec<String> =
                ["batch".to_string()].into_iter().chain(expected.iter().map(usize::to_string)).collect();
            let message = format!("`{}` can't take this input", network.name.text);
            let diagnostic = Diagnostic::new("shape-mismatch", message)
                .label(span, format!("the input is {}", self.nodes().ty(x)))
                .label(network.input.span, format!("expected f32[{}]", sizes.join(",")));
            self.d().report(diagnostic);
            return None;
        }
        self.nodes().enter(&network.name.text);
        let mut value = Some(x);
        for (number, layer) in network.layers.iter().enumerate() {
            match value {
                Some(x) => value = self.layer(network, number, layer, x, mode),
                // What comes after a mistake is looked at only as far as it does not depend on it.
                None => drop(self.known_layer(layer)),
            }
        }
        self.nodes().pop_scope();
        value
    }

    fn known_layer(&mut self, node: &'n Node) -> Option<(&'n str, Known, Args<'n>)> {
        let (name, args) = self.d().call(node, "a layer")?;
        let text = name.text.as_str();
        if let Some(row) = find(LAYERS, text) {
            return Some((text, Known::Row(row), args));
        }
        if let Some(row) = find(FUNCTIONS, text) {
            return Some((text, Known::Function(row), args));
        }
        if let Some(op) = scalar_named(text).filter(|&op| is_activation(op)) {
            return Some((text, Known::Activation(op), args));
        }
        let activations: Vec<String> =
            ScalarOp::ALL.iter().copied().filter(|&op| is_activation(op)).map(written).collect();
        let layers = [names(LAYERS), names(FUNCTIONS)].concat();
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

    fn layer(&mut self, network: &Network<'n>, number: usize, node: &'n Node, x: NodeId, mode: Mode) -> Option<NodeId> {
        let (name, known, args) = self.known_layer(node)?;
        let short = format!("{number}-{}", snake(name));
        let path = format!("{}/{short}", network.name.text);
        let layer = Layer { path, name: name.to_string(), span: node.span, mode, input: x };
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
        };
        self.nodes().pop_scope();
        self.nodes().leave();
        value
    }
}
