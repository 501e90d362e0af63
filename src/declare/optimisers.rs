//! `Minimise`: gradients and the updates that optimisers make of them.

use super::diagnostic::{Diagnostic, Span};
use super::entry::EntryLowering;
use super::syntax::{Node, Value};
use crate::ir::{Initialiser, NodeId, Op, Probe, Role, StateRole, Type};
use crate::scalar::ScalarOp;
use std::collections::BTreeSet;

/// An optimiser and its settings.
#[derive(Debug, Clone, Copy)]
enum Optimiser {
    /// Kingma & Ba, "Adam", ICLR 2015, algorithm 1, with ε outside of the root as PyTorch has it.
    Adam { rate: f64, beta1: f64, beta2: f64, epsilon: f64 },
    /// Stochastic gradient descent; with momentum as PyTorch has it: `m = μ·m + g`, `p = p − rate·m`.
    Sgd { rate: f64, momentum: f64 },
}

impl<'n> EntryLowering<'_, '_, 'n> {
    pub fn minimise(&mut self, span: Span, loss: &'n Node, network: &'n Node, optimiser: &'n Node) {
        let loss_name = match &loss.value {
            Value::Str(name) => name.clone(),
            _ => "loss".to_string(),
        };
        let loss_node = self.expr(loss);
        let optimiser = self.optimiser(optimiser);
        let Some((network, at)) = self.quoted(network, "the network") else { return };
        let program = self.lowering.program;
        if program.network(network).is_none() {
            let known: Vec<&str> = program.networks.iter().map(|n| n.name.text.as_str()).collect();
            let diagnostic = Diagnostic::new("unknown-network", format!("there is no network `{network}`"))
                .label(at, "not declared")
                .suggest(network, &known);
            self.d().report(diagnostic);
            return;
        }
        let (Some(loss_node), Some(optimiser)) = (loss_node, optimiser) else { return };
        let ty = self.graph.ty(loss_node).clone();
        if ty != Type::f32([]) {
            let diagnostic = Diagnostic::new("non-scalar-loss", "a loss must be one number")
                .label(loss.span, format!("this is {ty}"))
                .help("`Mean(...)` or `Sum(...)` makes one number of many");
            self.d().report(diagnostic);
            return;
        }
        let prefix = format!("{network}/");
        let parameters: Vec<String> = (self.lowering.states.iter())
            .filter(|s| s.role == StateRole::Parameter && s.name.starts_with(&prefix))
            .map(|s| s.name.clone())
            .filter(|name| self.current.contains_key(name))
            .collect();
        let reached = self.reached_from(loss_node);
        if !parameters.iter().any(|p| reached.contains(&self.current[p])) {
            let diagnostic = Diagnostic::new("independent-loss", format!("the loss does not depend on `{network}`"))
                .label(loss.span, "this loss")
                .label(at, "has no parameter that it depends on")
                .help("does the step call the network, and before its parameters were updated?");
            self.d().report(diagnostic);
            return;
        }
        let scope = std::mem::replace(&mut self.scope, vec![format!("minimise-{loss_name}")]);
        self.role = Role::Gradient(loss_name.clone());
        let mut gradients: Vec<(String, NodeId)> = Vec::new();
        for parameter in parameters {
            let of = self.current[&parameter];
            if reached.contains(&of) {
                let gradient = self.leaf_of(Op::Gradient, &[loss_node, of], &format!("gradient/{parameter}"), span);
                self.graph.probes.push(Probe { name: format!("gradient/{loss_name}/{parameter}"), node: gradient });
                gradients.push((parameter, gradient));
            }
        }
        self.role = Role::Optimiser(network.to_string());
        match optimiser {
            Optimiser::Adam { rate, beta1, beta2, epsilon } => {
                let t = self.state(
                    &format!("{network}/adam/t"),
                    Type::f32([]),
                    StateRole::Optimiser,
                    Initialiser::Constant(0.0),
                    span,
                );
                let one = self.constant(1.0, span);
                let t = self.must(ScalarOp::Add, &[t, one], span);
                self.current.insert(format!("{network}/adam/t"), t);
                let corrections = [beta1, beta2].map(|beta| {
                    let beta = self.constant(beta, span);
                    let power = self.must(ScalarOp::Pow, &[beta, t], span);
                    self.must(ScalarOp::Sub, &[one, power], span)
                });
                let rate = self.constant(rate, span);
                let rate = self.must(ScalarOp::Div, &[rate, corrections[0]], span);
                let root = self.must(ScalarOp::Sqrt, &[corrections[1]], span);
                let epsilon = self.constant(epsilon, span);
                for (parameter, gradient) in gradients {
                    let m = self.average(&format!("{parameter}/adam_m"), gradient, beta1, span);
                    let square = self.must(ScalarOp::Mul, &[gradient, gradient], span);
                    let v = self.average(&format!("{parameter}/adam_v"), square, beta2, span);
                    let v = self.must(ScalarOp::Sqrt, &[v], span);
                    let v = self.must(ScalarOp::Div, &[v, root], span);
                    let v = self.must(ScalarOp::Add, &[v, epsilon], span);
                    let step = self.must(ScalarOp::Mul, &[m, rate], span);
                    let step = self.must(ScalarOp::Div, &[step, v], span);
                    self.descend(&parameter, step, span);
                }
            }
            Optimiser::Sgd { rate, momentum } => {
                let rate = self.constant(rate, span);
                for (parameter, gradient) in gradients {
                    let mut direction = gradient;
                    if momentum != 0.0 {
                        let name = format!("{parameter}/momentum");
                        let (old, decay) = (self.memory(&name, gradient, span), self.constant(momentum, span));
                        let kept = self.must(ScalarOp::Mul, &[old, decay], span);
                        direction = self.must(ScalarOp::Add, &[kept, gradient], span);
                        self.current.insert(name, direction);
                    }
                    let step = self.must(ScalarOp::Mul, &[direction, rate], span);
                    self.descend(&parameter, step, span);
                }
            }
        }
        self.role = Role::Forward;
        self.scope = scope;
    }

    fn must(&mut self, op: ScalarOp, operands: &[NodeId], span: Span) -> NodeId {
        match self.apply(op, operands, span) {
            Some(node) => node,
            None => unreachable!("an optimiser's operands fit"),
        }
    }

    /// An optimiser's state tensor, as large as `like`.
    fn memory(&mut self, name: &str, like: NodeId, span: Span) -> NodeId {
        let ty = self.graph.ty(like).clone();
        self.state(name, ty, StateRole::Optimiser, Initialiser::Constant(0.0), span)
    }

    /// The moving average `beta·old + (1 − beta)·x`, kept as state.
    fn average(&mut self, name: &str, x: NodeId, beta: f64, span: Span) -> NodeId {
        let old = self.memory(name, x, span);
        let (keep, follow) = (self.constant(beta, span), self.constant(1.0 - beta, span));
        let kept = self.must(ScalarOp::Mul, &[old, keep], span);
        let followed = self.must(ScalarOp::Mul, &[x, follow], span);
        let next = self.must(ScalarOp::Add, &[kept, followed], span);
        self.current.insert(name.to_string(), next);
        next
    }

    fn descend(&mut self, parameter: &str, step: NodeId, span: Span) {
        let next = self.must(ScalarOp::Sub, &[self.current[parameter], step], span);
        // A later loss sees the updated parameter, not how it came about.
        let next = self.leaf_of(Op::Detach, &[next], "next", span);
        self.current.insert(parameter.to_string(), next);
    }

    /// Every node that a value depends on.
    fn reached_from(&self, node: NodeId) -> BTreeSet<NodeId> {
        let mut reached = BTreeSet::new();
        let mut stack = vec![node];
        while let Some(node) = stack.pop() {
            if reached.insert(node) {
                stack.extend(self.graph.operands(node));
            }
        }
        reached
    }

    fn optimiser(&mut self, node: &'n Node) -> Option<Optimiser> {
        let (name, mut args) = self.d().call(node, "an optimiser")?;
        let mut setting = |this: &mut Self, name: &'static str, default: Option<f64>, below: f64| {
            let given = match default {
                Some(_) => args.optional(name),
                None => args.required(this.d(), name),
            };
            let Some(given) = given else { return default };
            let value = this.number_of(given, &format!("`{name}`"))?;
            if (0.0..below).contains(&value) {
                return Some(value);
            }
            let expected = if below == f64::INFINITY { "from 0 on".into() } else { format!("from 0 to below {below}") };
            let diagnostic = Diagnostic::new("bad-value", format!("`{name}` is {value}"))
                .label(given.span, format!("expected a number {expected}"));
            this.d().report(diagnostic);
            None
        };
        let optimiser = match name.text.as_str() {
            "Adam" => {
                let rate = setting(self, "lr", None, f64::INFINITY);
                let beta1 = setting(self, "beta1", Some(0.9), 1.0);
                let beta2 = setting(self, "beta2", Some(0.999), 1.0);
                let epsilon = setting(self, "epsilon", Some(1e-8), f64::INFINITY);
                (|| Some(Optimiser::Adam { rate: rate?, beta1: beta1?, beta2: beta2?, epsilon: epsilon? }))()
            }
            "Sgd" => {
                let rate = setting(self, "lr", None, f64::INFINITY);
                let momentum = setting(self, "momentum", Some(0.0), 1.0);
                (|| Some(Optimiser::Sgd { rate: rate?, momentum: momentum? }))()
            }
            other => {
                let diagnostic = Diagnostic::new("unknown-optimiser", format!("there is no optimiser `{other}`"))
                    .label(name.span, "not known")
                    .suggest(other, &["Adam", "Sgd"]);
                self.d().report(diagnostic);
                return None;
            }
        };
        args.finish(self.d());
        optimiser
    }
}
