//! `Minimise`: gradients and the updates that optimisers make of them.

use super::diagnostic::{Diagnostic, Span};
use super::entry::EntryLowering;
use super::syntax::{Node, Value};
use crate::ir::{Initialiser, NodeId, Op, Probe, ReduceKind, Role, StateRole, Type};
use crate::scalar::ScalarOp;
use std::collections::BTreeMap;

/// Most tensors whose elements are added up to see whether one is not finite. What is near the largest f32 in all of them
/// together counts as infinite: it would be so a step later.
const MOST_TOGETHER: usize = 8;
/// The name of a network's flag among its state: see [`EntryLowering::flag_non_finite`].
const NON_FINITE: &str = "non_finite";

/// An optimiser and its settings.
#[derive(Debug, Clone, Copy)]
enum Optimiser {
    /// Kingma & Ba, "Adam", ICLR 2015, algorithm 1, with ε outside of the root as PyTorch has it:
    /// `p − (rate / (1 − β₁ᵗ)) · m / (√v / √(1 − β₂ᵗ) + ε)`.
    Adam { rate: f64, beta1: f64, beta2: f64, epsilon: f64 },
    /// Stochastic gradient descent; with momentum as PyTorch has it: `m = μ·m + g`, `p − rate·m`.
    Sgd { rate: f64, momentum: f64 },
}

/// What an optimiser has worked out for all parameters together.
struct Shared {
    /// The rate, corrected for the bias of the first moment where there is one.
    rate: NodeId,
    /// `√(1 − β₂ᵗ)`
    root: Option<NodeId>,
}

impl<'n> EntryLowering<'_, '_, 'n> {
    /// Updates the parameters of a network that the loss depends on. Whatever comes after sees them updated.
    pub fn minimise(&mut self, span: Span, loss: &'n Node, network: &'n Node, optimiser: &'n Node) -> Option<()> {
        let name = match &loss.value {
            Value::Str(name) => name.clone(),
            _ => "loss".to_string(),
        };
        self.scope = vec![format!("minimise-{name}")];
        let done = self.updates(&name, span, loss, network, optimiser);
        self.scope.clear();
        self.role = Role::Forward;
        done
    }

    fn updates(
        &mut self,
        loss_name: &str,
        span: Span,
        loss: &'n Node,
        network: &'n Node,
        optimiser: &'n Node,
    ) -> Option<()> {
        let value = self.expr(loss);
        let optimiser = self.optimiser(optimiser);
        let network = self.network_name(network);
        let value = value?;
        self.expect_scalar(value, "a loss must be a single number", loss.span)?;
        let (network, at) = network?;
        let parameters = self.parameters(network, value, loss.span, at)?;
        let optimiser = optimiser?;
        self.role = Role::Gradient(loss_name.to_string());
        let mut gradients: Vec<(String, NodeId)> = Vec::new();
        for parameter in parameters {
            let of = self.current[&parameter];
            let gradient = self.add(Op::Gradient, &[value, of], &format!("gradient/{parameter}"), span)?;
            self.graph.probes.push(Probe { name: format!("gradient/{loss_name}/{parameter}"), node: gradient });
            gradients.push((parameter, gradient));
        }
        self.updated.entry(network.to_string()).or_insert(span);
        self.role = Role::Optimiser(network.to_string());
        let shared = self.shared(optimiser, network, span)?;
        for (parameter, gradient) in gradients {
            self.descend(span)?;
            self.scope.push(parameter.clone());
            let updated = self.update(optimiser, &shared, &parameter, gradient, span);
            self.scope.pop();
            self.leave();
            self.current.insert(parameter, updated?);
        }
        Some(())
    }

    /// Adds to each updated network its flag: whether an element of what the entry made of its parameters and running
    /// statistics is infinite or NaN, now or at an earlier step.
    ///
    /// Losses alone do not tell: a maximum, a comparison or a saturated unit can hide what has happened behind it. The
    /// optimiser's memory is left out, since what is infinite or NaN in it is so in the parameter too (but for an infinite
    /// second moment, whose parameter stands still), and a step would read twice as much more.
    pub fn flag_non_finite(&mut self) -> Option<()> {
        for (network, span) in std::mem::take(&mut self.updated) {
            self.scope = vec![network.clone(), NON_FINITE.to_string()];
            self.role = Role::Optimiser(network.clone());
            self.flag_network(&network, span)?;
            self.scope.clear();
            self.role = Role::Forward;
        }
        Some(())
    }

    fn flag_network(&mut self, network: &str, span: Span) -> Option<()> {
        let prefix = format!("{network}/");
        // Tensors of one shape are looked at together: a reduction for each bias would be many launches for few bytes.
        let mut changed: BTreeMap<Vec<usize>, Vec<NodeId>> = BTreeMap::new();
        for state in self.lowering.states.iter().filter(|s| s.name.starts_with(&prefix)) {
            let looked_at = matches!(state.role, StateRole::Parameter | StateRole::Statistic);
            let node = self.current.get(&state.name).filter(|&node| self.leaves.get(&state.name) != Some(node));
            if let (true, Some(&node)) = (looked_at, node) {
                changed.entry(state.ty.shape.clone()).or_default().push(node);
            }
        }
        let name = format!("{network}/{NON_FINITE}");
        let mut flag = self.state(&name, Type::f32([]), StateRole::NonFinite, Initialiser::Constant(0.0), span)?;
        let (largest, zero, one) =
            (self.constant(f32::MAX.into(), span)?, self.constant(0.0, span)?, self.constant(1.0, span)?);
        for (shape, nodes) in &changed {
            for together in nodes.chunks(MOST_TOGETHER) {
                let mut total = None;
                for &node in together {
                    let size = self.apply_as(ScalarOp::Abs, &[node], "size", span)?;
                    total = Some(match total {
                        Some(total) => self.apply_as(ScalarOp::Add, &[total, size], "total", span)?,
                        None => size,
                    });
                }
                // A comparison with NaN is 0, so this holds of finite numbers alone. No rewrite may assume otherwise.
                let finite = self.apply_as(ScalarOp::Le, &[total?, largest], "finite", span)?;
                let mark = self.apply_as(ScalarOp::Select, &[finite, zero, one], "mark", span)?;
                let reduce = Op::Reduce { kind: ReduceKind::Max, axes: (0..shape.len()).collect() };
                let mark = if shape.is_empty() { mark } else { self.add(reduce, &[mark], "any", span)? };
                let mark = self.add(Op::Reshape { to: vec![] }, &[mark], "found", span)?;
                flag = self.apply_as(ScalarOp::Max, &[flag, mark], "flag", span)?;
            }
        }
        self.current.insert(name, flag);
        Some(())
    }

    /// The parameters of a network that the loss depends on.
    fn parameters(&mut self, network: &str, loss: NodeId, span: Span, at: Span) -> Option<Vec<String>> {
        let prefix = format!("{network}/");
        let all: Vec<String> = (self.lowering.states.iter())
            .filter(|s| s.role == StateRole::Parameter && s.name.starts_with(&prefix))
            .map(|s| s.name.clone())
            .filter(|name| self.current.contains_key(name))
            .collect();
        let reached = self.reached_from(loss);
        let was_reached = all.iter().any(|p| reached.contains(&self.leaves[p]));
        let found: Vec<String> = all.into_iter().filter(|p| reached.contains(&self.current[p])).collect();
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

    fn shared(&mut self, optimiser: Optimiser, network: &str, span: Span) -> Option<Shared> {
        match optimiser {
            Optimiser::Sgd { rate, .. } => Some(Shared { rate: self.constant(rate, span)?, root: None }),
            Optimiser::Adam { rate, beta1, beta2, .. } => {
                let name = format!("{network}/adam/t");
                let t = self.memory(&name, Type::f32([]), span)?;
                let one = self.constant(1.0, span)?;
                let t = self.apply_as(ScalarOp::Add, &[t, one], "t", span)?;
                self.current.insert(name, t);
                let mut correction = |beta: f64, label: &str| {
                    let beta = self.constant(beta, span)?;
                    let power = self.apply(ScalarOp::Pow, &[beta, t], span)?;
                    self.apply_as(ScalarOp::Sub, &[one, power], label, span)
                };
                let (first, second) = (correction(beta1, "correction1")?, correction(beta2, "correction2")?);
                let rate = self.constant(rate, span)?;
                let rate = self.apply_as(ScalarOp::Div, &[rate, first], "rate", span)?;
                Some(Shared { rate, root: Some(self.apply(ScalarOp::Sqrt, &[second], span)?) })
            }
        }
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

    fn optimiser(&mut self, node: &'n Node) -> Option<Optimiser> {
        const OPTIMISERS: [&str; 2] = ["Adam", "Sgd"];
        let (name, mut args) = self.d().call(node, "an optimiser")?;
        if !OPTIMISERS.contains(&name.text.as_str()) {
            let diagnostic = Diagnostic::new("unknown-optimiser", format!("there is no optimiser `{}`", name.text))
                .label(name.span, "not known")
                .suggest(&name.text, &OPTIMISERS);
            self.d().report(diagnostic);
            return None;
        }
        let is_adam = name.text == "Adam";
        let rate = args.required(self.d(), "lr");
        let rate = rate.and_then(|n| self.number_in(n, "the learning rate", 0.0..f64::INFINITY));
        let mut setting = |name: &'static str, default: f64, end: f64| match args.optional(name) {
            Some(node) => self.number_in(node, &format!("`{name}`"), 0.0..end),
            None => Some(default),
        };
        let optimiser = if is_adam {
            let (beta1, beta2) = (setting("beta1", 0.9, 1.0), setting("beta2", 0.999, 1.0));
            let epsilon = setting("epsilon", 1e-8, f64::INFINITY);
            let all = || Some(Optimiser::Adam { rate: rate?, beta1: beta1?, beta2: beta2?, epsilon: epsilon? });
            all()
        } else {
            let momentum = setting("momentum", 0.0, 1.0);
            let all = || Some(Optimiser::Sgd { rate: rate?, momentum: momentum? });
            all()
        };
        args.finish(self.d());
        optimiser
    }
}
