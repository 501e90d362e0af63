//! `Minimise`: gradients and the updates that optimisers make of them.

use super::diagnostic::{Diagnostic, Span};
use super::expr::Expressions;
use super::nodes::Nodes;
use super::ron::{Node, Value};
use super::rows::{Arg, At, Kind, Param, Row, find, names, rows};
use crate::autodiff::flows;
use crate::ir::{Initialiser, NodeId, Op, Probe, Role, StateRole, Type};
use crate::scalar::ScalarOp;
use std::collections::{BTreeMap, BTreeSet};

/// What the entries of a program train.
#[derive(Debug, Default)]
pub struct Trained {
    /// Networks that some `Minimise` updates, each with the place where the first one names it.
    pub networks: BTreeMap<String, Span>,
    /// Parameters that some loss has a gradient in.
    pub parameters: BTreeSet<String>,
}

/// An optimiser and its settings.
#[derive(Debug, Clone, Copy)]
pub enum Optimiser {
    /// Kingma & Ba, "Adam", ICLR 2015, algorithm 1, with ε outside of the root as PyTorch has it:
    /// `p − (rate / (1 − β₁ᵗ)) · m / (√v / √(1 − β₂ᵗ) + ε)`.
    Adam { rate: f64, beta1: f64, beta2: f64, epsilon: f64 },
    /// Stochastic gradient descent; with momentum as PyTorch has it: `m = μ·m + g`, `p − rate·m`.
    Sgd { rate: f64, momentum: f64 },
}

/// Puts an optimiser's settings together.
pub type Settings = fn(&mut Nodes<'_>, &At, &[Arg]) -> Option<Optimiser>;

rows! {
    /// The optimisers.
    OPTIMISERS: Settings; |_n, _at|
    /// Adam (Kingma & Ba, 2015): each parameter by the ratio of its gradient's running mean and root mean square.
    Adam(lr: NotNegative, beta1: Fraction = 0.9, beta2: Fraction = 0.999, epsilon: Positive = 1e-8),
        "Adam(lr: 1e-3)" => Some(Optimiser::Adam { rate: lr, beta1, beta2, epsilon });
    /// Stochastic gradient descent, with momentum where it is given.
    Sgd(lr: NotNegative, momentum: Fraction = 0.0), "Sgd(lr: 0.1, momentum: 0.9)" => Some(Optimiser::Sgd { rate: lr, momentum });
}

/// What an optimiser has worked out for all parameters together.
struct Shared {
    /// The rate, corrected for the bias of the first moment where there is one.
    rate: NodeId,
    /// `√(1 − β₂ᵗ)`
    root: Option<NodeId>,
}

impl<'n> Expressions<'_, 'n> {
    /// Updates the parameters of a network that the loss depends on, and gives the network's name. Whatever comes after
    /// sees them updated.
    pub fn minimise(
        &mut self,
        span: Span,
        loss: &'n Node,
        network: &'n Node,
        optimiser: &'n Node,
        trained: &mut Trained,
    ) -> Option<&'n str> {
        let name = match &loss.value {
            Value::Str(name) => name.clone(),
            _ => "loss".to_string(),
        };
        self.nodes().push_scope(&format!("minimise-{name}"));
        let done = self.updates(&name, span, loss, network, optimiser, trained);
        self.nodes().pop_scope();
        self.nodes().set_role(Role::Forward);
        done
    }

    fn updates(
        &mut self,
        loss_name: &str,
        span: Span,
        loss: &'n Node,
        network: &'n Node,
        optimiser: &'n Node,
        trained: &mut Trained,
    ) -> Option<&'n str> {
        let value = self.expr(loss);
        let optimiser = self.optimiser(optimiser);
        let network = self.network_name(network);
        let value = value?;
        self.nodes().expect_scalar(value, "a loss must be a single number", loss.span)?;
        let (network, at) = network?;
        let parameters = self.parameters(network, value, loss.span, at)?;
        self.note_trained(network, at, value, &parameters, trained);
        let optimiser = optimiser?;
        let nodes = self.nodes();
        nodes.set_role(Role::Gradient(loss_name.to_string()));
        let mut gradients: Vec<(String, NodeId)> = Vec::new();
        for parameter in parameters {
            let of = nodes.current[&parameter];
            let gradient = nodes.add(Op::Gradient, &[value, of], &format!("gradient/{parameter}"), span)?;
            nodes.graph.probes.push(Probe { name: format!("gradient/{loss_name}/{parameter}"), node: gradient });
            gradients.push((parameter, gradient));
        }
        nodes.set_role(Role::Optimiser(network.to_string()));
        let shared = nodes.shared(optimiser, network, span)?;
        for (parameter, gradient) in gradients {
            nodes.descend(span)?;
            nodes.push_scope(&parameter);
            let updated = nodes.update(optimiser, &shared, &parameter, gradient, span);
            nodes.pop_scope();
            nodes.leave();
            nodes.current.insert(parameter, updated?);
        }
        Some(network)
    }

    /// Notes which parameters the loss has a gradient in.
    fn note_trained(&mut self, network: &str, at: Span, loss: NodeId, parameters: &[String], trained: &mut Trained) {
        trained.networks.entry(network.to_string()).or_insert(at);
        let nodes = self.nodes();
        let mut reached = BTreeSet::new();
        let mut stack = vec![loss];
        while let Some(node) = stack.pop() {
            if reached.insert(node) {
                let operands = nodes.graph.operands(node).into_iter().enumerate();
                stack.extend(operands.filter(|&(i, _)| flows(&nodes.graph, node, i)).map(|(_, operand)| operand));
            }
        }
        let found = parameters.iter().filter(|p| reached.contains(&nodes.current[*p]));
        trained.parameters.extend(found.cloned());
    }

    /// The parameters of a network that the loss depends on.
    fn parameters(&mut self, network: &str, loss: NodeId, span: Span, at: Span) -> Option<Vec<String>> {
        let nodes = self.nodes();
        let all = nodes.parameters_of(network);
        let reached = nodes.reached_from(loss);
        let was_reached = all.iter().any(|p| reached.contains(&nodes.leaf(p)));
        let found: Vec<String> = all.into_iter().filter(|p| reached.contains(&nodes.current[p])).collect();
        if !found.is_empty() {
            return Some(found);
        }
        let mut diagnostic =
            Diagnostic::new("independent-loss", format!("the loss does not depend on the parameters of `{network}`"))
                .label(span, "this loss")
                .label(at, "nothing here to learn");
        if was_reached {
            let help = format!("it was computed before `{network}` was updated: move it behind that `Minimise`");
            diagnostic = diagnostic.help(help);
        }
        self.d().report(diagnostic);
        None
    }

    fn optimiser(&mut self, node: &'n Node) -> Option<Optimiser> {
        let (name, args) = self.d().call(node, "an optimiser")?;
        let Some(row) = find(OPTIMISERS, &name.text) else {
            let diagnostic = Diagnostic::new("unknown-optimiser", format!("there is no optimiser `{}`", name.text))
                .label(name.span, "not known")
                .suggest(&name.text, &names(OPTIMISERS));
            self.d().report(diagnostic);
            return None;
        };
        let (args, spans) = self.arguments(row, args, node.span)?;
        (row.expand)(self.nodes(), &At { span: node.span, args: spans }, &args)
    }
}

impl Nodes<'_> {
    fn shared(&mut self, optimiser: Optimiser, network: &str, span: Span) -> Option<Shared> {
        match optimiser {
            Optimiser::Sgd { rate, .. } => Some(Shared { rate: self.constant(rate, span)?, root: None }),
            Optimiser::Adam { rate, beta1, beta2, .. } => {
                let name = format!("{network}/adam/t");
                let t = self.memory(&name, Type::f32([]), span)?;
                let one = self.constant(1.0, span)?;
                let t = self.apply_as(ScalarOp::Add, &[t, one], "t", span)?;
                self.current.insert(name, t);
                let first = self.bias_correction(beta1, t, "correction1", span)?;
                let second = self.bias_correction(beta2, t, "correction2", span)?;
                let rate = self.constant(rate, span)?;
                let rate = self.apply_as(ScalarOp::Div, &[rate, first], "rate", span)?;
                Some(Shared { rate, root: Some(self.apply(ScalarOp::Sqrt, &[second], span)?) })
            }
        }
    }

    /// `1 − βᵗ`, to the last place of f32 for every `t`. Written as such it cancels: f32 holds 0.999 with an error that
    /// is 1e-5 of `1 − 0.999`. So it is `-(e^(t·ln β) − 1)`, with `ln β` as the sum of two f32.
    fn bias_correction(&mut self, beta: f64, t: NodeId, label: &str, span: Span) -> Option<NodeId> {
        if beta == 0.0 {
            return self.constant(1.0, span);
        }
        let high = f64::from(beta.ln() as f32);
        let (high, low) = (self.constant(high, span)?, self.constant(beta.ln() - high, span)?);
        let negative = self.apply(ScalarOp::Expm1Product, &[t, high, low], span)?;
        self.apply_as(ScalarOp::Neg, &[negative], label, span)
    }

    /// The parameter after the step.
    fn update(
        &mut self,
        optimiser: Optimiser,
        shared: &Shared,
        parameter: &str,
        gradient: NodeId,
        span: Span,
    ) -> Option<NodeId> {
        let step = match optimiser {
            Optimiser::Adam { beta1, beta2, epsilon, .. } => {
                let m = self.average(&format!("{parameter}/adam_m"), gradient, beta1, "m", span)?;
                let square = self.apply_as(ScalarOp::Mul, &[gradient, gradient], "square", span)?;
                let v = self.average(&format!("{parameter}/adam_v"), square, beta2, "v", span)?;
                let root = self.apply(ScalarOp::Sqrt, &[v], span)?;
                let root = self.apply_as(ScalarOp::Div, &[root, shared.root?], "corrected", span)?;
                let epsilon = self.constant(epsilon, span)?;
                let denominator = self.apply_as(ScalarOp::Add, &[root, epsilon], "denominator", span)?;
                let scaled = self.apply_as(ScalarOp::Mul, &[m, shared.rate], "scaled", span)?;
                self.apply_as(ScalarOp::Div, &[scaled, denominator], "step", span)?
            }
            Optimiser::Sgd { momentum, .. } => {
                let mut direction = gradient;
                if momentum != 0.0 {
                    let name = format!("{parameter}/momentum");
                    let ty = self.graph.ty(gradient).clone();
                    let (old, decay) = (self.memory(&name, ty, span)?, self.constant(momentum, span)?);
                    let kept = self.apply_as(ScalarOp::Mul, &[old, decay], "kept", span)?;
                    direction = self.apply_as(ScalarOp::Add, &[kept, gradient], "direction", span)?;
                    self.current.insert(name, direction);
                }
                self.apply_as(ScalarOp::Mul, &[direction, shared.rate], "step", span)?
            }
        };
        let next = self.apply_as(ScalarOp::Sub, &[self.current[parameter], step], "updated", span)?;
        // A later loss sees the updated parameter, not how it came about.
        self.add(Op::Detach, &[next], "detached", span)
    }

    /// An optimiser's state tensor, zero at first.
    fn memory(&mut self, name: &str, ty: Type, span: Span) -> Option<NodeId> {
        self.state(name, ty, StateRole::Optimiser, Initialiser::Constant(0.0), span)
    }

    /// The moving average `beta·old + (1 − beta)·x`, kept as state.
    fn average(&mut self, name: &str, x: NodeId, beta: f64, label: &str, span: Span) -> Option<NodeId> {
        let old = self.memory(name, self.graph.ty(x).clone(), span)?;
        let (keep, follow) = (self.constant(beta, span)?, self.constant(1.0 - beta, span)?);
        let kept = self.apply_as(ScalarOp::Mul, &[old, keep], "kept", span)?;
        let followed = self.apply_as(ScalarOp::Mul, &[x, follow], "followed", span)?;
        let next = self.apply_as(ScalarOp::Add, &[kept, followed], label, span)?;
        self.current.insert(name.to_string(), next);
        Some(next)
    }
}
