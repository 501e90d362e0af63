//! `Minimise`: gradients and the updates that optimisers make of them.

use super::diagnostic::{Diagnostic, Span};
use super::expr::Expressions;
use super::nodes::Nodes;
use super::program::duplicate;
use super::ron::{Node, Value};
use super::rows::{Arg, At, Kind, Param, Rate, Row, find, names, rows};
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

/// An optimiser and its settings. Each is computed as PyTorch's of the same name.
#[derive(Debug, Clone, Copy)]
pub enum Optimiser {
    Adam(Adam),
    Sgd(Sgd),
    RmsProp(RmsProp),
}

/// Kingma & Ba, "Adam", ICLR 2015, algorithm 1, with ε outside of the root as PyTorch has it:
/// `p − (rate / (1 − β₁ᵗ)) · m / (√v / √(1 − β₂ᵗ) + ε)`.
#[derive(Debug, Clone, Copy)]
pub struct Adam {
    rate: Rate,
    beta1: f64,
    beta2: f64,
    epsilon: f64,
    decay: Decay,
    /// Reddi, Kale & Kumar, "On the Convergence of Adam and Beyond", ICLR 2018: by the largest `v` so far.
    amsgrad: bool,
}

/// How weights are pulled towards 0, by a factor.
#[derive(Debug, Clone, Copy)]
enum Decay {
    /// `g + factor·p` takes the place of the gradient.
    InGradient(f64),
    /// Loshchilov & Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, algorithm 2, times the whole rate as in
    /// PyTorch: the step starts from `p·(1 − rate·factor)`.
    Decoupled(f64),
}

/// Stochastic gradient descent; with momentum `m = μ·m + g`, and `p − rate·m`, or with Nesterov's
/// `p − rate·(g + μ·m)` (Sutskever, Martens, Dahl & Hinton, ICML 2013).
#[derive(Debug, Clone, Copy)]
pub struct Sgd {
    rate: Rate,
    momentum: f64,
    nesterov: bool,
    decay: f64,
}

/// Tieleman & Hinton, lecture 6.5 of "Neural Networks for Machine Learning", 2012: `p − rate·m`, where `m = μ·m + g / (√v + ε)`
/// and `v` is the running mean of `g²`, less the square of that of `g` where centred (Graves, 2013).
#[derive(Debug, Clone, Copy)]
pub struct RmsProp {
    rate: Rate,
    alpha: f64,
    epsilon: f64,
    momentum: f64,
    is_centred: bool,
    decay: f64,
}

/// Puts an optimiser's settings together.
pub type Settings = fn(&mut Nodes<'_>, &At, &[Arg]) -> Option<Optimiser>;

rows! {
    /// The optimisers.
    OPTIMISERS: Settings; |n, at|
    /// Adam (Kingma & Ba, 2015): each parameter by the ratio of its gradient's running mean and root mean square.
    Adam(lr: Rate, beta1: Fraction = 0.9, beta2: Fraction = 0.999, epsilon: Positive = 1e-8, weight_decay: NotNegative = 0.0,
        amsgrad: Flag = false), "Adam(lr: 1e-3)" =>
        Some(Optimiser::Adam(Adam { rate: lr, beta1, beta2, epsilon, decay: Decay::InGradient(weight_decay), amsgrad }));
    /// Adam with weights that shrink by `lr * weight_decay` of themselves in each step (Loshchilov & Hutter, 2019).
    AdamW(lr: Rate, beta1: Fraction = 0.9, beta2: Fraction = 0.999, epsilon: Positive = 1e-8, weight_decay: NotNegative = 0.01,
        amsgrad: Flag = false), "AdamW(lr: CosineDecay(1e-3, 0.0, 5000))" =>
        Some(Optimiser::Adam(Adam { rate: lr, beta1, beta2, epsilon, decay: Decay::Decoupled(weight_decay), amsgrad }));
    /// Each parameter by its gradient over the root of its running mean square (Tieleman & Hinton, 2012).
    RmsProp(lr: Rate, alpha: Fraction = 0.99, epsilon: Positive = 1e-8, momentum: Fraction = 0.0, centred: Flag = false,
        weight_decay: NotNegative = 0.0), "RmsProp(lr: 5e-5)" =>
        Some(Optimiser::RmsProp(RmsProp { rate: lr, alpha, epsilon, momentum, is_centred: centred, decay: weight_decay }));
    /// Stochastic gradient descent, with momentum where it is given.
    Sgd(lr: Rate, momentum: Fraction = 0.0, nesterov: Flag = false, weight_decay: NotNegative = 0.0),
        "Sgd(lr: 0.1, momentum: 0.9)" => n.sgd(Sgd { rate: lr, momentum, nesterov, decay: weight_decay }, at);
}

/// What becomes of the gradients before an optimiser sees them.
#[derive(Debug, Clone, Copy)]
pub enum Clip {
    /// Each element to at most this magnitude.
    Value(f64),
    /// All together to at most this norm (Pascanu, Mikolov & Bengio, ICML 2013): times `limit / (norm + 1e-6)` where that
    /// is below 1, as PyTorch has it.
    Norm(f64),
}

const OPTIMISER: Param = Param { name: "optimiser", kind: Kind::Written("an optimiser"), default: None };

/// Makes a clip of its limit.
pub type Limit = fn(f64) -> Clip;

/// What stands around an optimiser.
pub const CLIPS: &[Row<Limit>] = &[
    Row {
        name: "ClipNorm",
        params: &[Param { name: "norm", kind: Kind::Positive, default: None }, OPTIMISER],
        meaning: "An optimiser whose gradients, all of the step together, are scaled down to at most this norm.",
        example: "ClipNorm(1.0, Adam(lr: 1e-3))",
        expand: Clip::Norm,
    },
    Row {
        name: "ClipValue",
        params: &[Param { name: "value", kind: Kind::Positive, default: None }, OPTIMISER],
        meaning: "An optimiser whose gradients are cut off, each element at this magnitude.",
        example: "ClipValue(0.5, Adam(lr: 1e-3))",
        expand: Clip::Value,
    },
];

/// An optimiser with what stands around it, from the outside in.
struct Method {
    clips: Vec<Clip>,
    optimiser: Optimiser,
}

/// A parameter of a network, and its gradient.
struct Pair {
    network: String,
    parameter: String,
    gradient: NodeId,
}

/// What an optimiser has worked out for all parameters of a network together.
struct Shared {
    /// The rate, corrected for the bias of the first moment where there is one.
    rate: NodeId,
    /// `√(1 − β₂ᵗ)`
    root: Option<NodeId>,
    /// What is left of a weight that decays by itself.
    kept: Option<NodeId>,
}

impl<'n> Expressions<'_, 'n> {
    /// Updates the parameters of some networks that the loss depends on, and gives the networks' names. Whatever comes
    /// after sees them updated.
    pub fn minimise(
        &mut self,
        span: Span,
        loss: &'n Node,
        networks: &'n Node,
        optimiser: &'n Node,
        trained: &mut Trained,
    ) -> Option<Vec<&'n str>> {
        let name = match &loss.value {
            Value::Str(name) => name.clone(),
            _ => "loss".to_string(),
        };
        self.nodes().enter(&format!("minimise-{name}"));
        let done = self.updates(&name, span, loss, networks, optimiser, trained);
        self.nodes().pop_scope();
        self.nodes().set_role(Role::Forward);
        done
    }

    fn updates(
        &mut self,
        loss_name: &str,
        span: Span,
        loss: &'n Node,
        networks: &'n Node,
        optimiser: &'n Node,
        trained: &mut Trained,
    ) -> Option<Vec<&'n str>> {
        let value = self.expr(loss);
        let networks = self.networks(networks);
        // What a rate is worked out from is part of the updates.
        if let Some((first, _)) = networks.iter().flatten().next() {
            self.nodes().set_role(Role::Optimiser(first.to_string()));
        }
        let method = self.method(optimiser);
        let value = value?;
        self.nodes().expect_scalar(value, "a loss must be a single number", loss.span)?;
        let networks = networks?;
        let mut parameters: Vec<(&'n str, String)> = Vec::new();
        for &(network, at) in &networks {
            let found = self.parameters(network, value, loss.span, at)?;
            self.note_trained(network, at, value, &found, trained);
            parameters.extend(found.into_iter().map(|parameter| (network, parameter)));
        }
        let Method { clips, optimiser } = method?;
        let nodes = self.nodes();
        nodes.set_role(Role::Gradient(loss_name.to_string()));
        // A step may minimise a loss of the same name again.
        let group = nodes.probe_group(&format!("gradient/{loss_name}"));
        let mut pairs: Vec<Pair> = Vec::new();
        for (network, parameter) in parameters {
            let of = nodes.current[&parameter];
            let gradient = nodes.add(Op::Gradient, &[value, of], &format!("gradient/{parameter}"), span)?;
            nodes.graph.probes.push(Probe { name: format!("{group}/{parameter}"), node: gradient });
            pairs.push(Pair { network: network.to_string(), parameter, gradient });
        }
        for clip in clips {
            nodes.set_role(Role::Gradient(loss_name.to_string()));
            nodes.clip(clip, &mut pairs, span)?;
        }
        let mut shared: BTreeMap<String, Shared> = BTreeMap::new();
        for Pair { network, parameter, gradient } in pairs {
            nodes.set_role(Role::Optimiser(network.clone()));
            if !shared.contains_key(&network) {
                let of_network = nodes.shared(optimiser, &network, span)?;
                shared.insert(network.clone(), of_network);
            }
            nodes.descend(span)?;
            nodes.push_scope(&parameter);
            let updated = nodes.update(optimiser, &shared[&network], &parameter, gradient, span);
            nodes.pop_scope();
            nodes.leave();
            nodes.current.insert(parameter, updated?);
        }
        Some(networks.into_iter().map(|(network, _)| network).collect())
    }

    /// The name of a network, or a list of them.
    fn networks(&mut self, node: &'n Node) -> Option<Vec<(&'n str, Span)>> {
        let Value::List(items) = &node.value else { return Some(vec![self.network_name(node)?]) };
        if items.is_empty() {
            self.d().wrong_type(node, "`network`", "the name of a network, or a list of names");
            return None;
        }
        let found: Vec<Option<(&'n str, Span)>> = items.iter().map(|item| self.network_name(item)).collect();
        let found = found.into_iter().collect::<Option<Vec<_>>>()?;
        for (i, (name, span)) in found.iter().enumerate() {
            if let Some((_, first)) = found[..i].iter().find(|(other, _)| other == name) {
                duplicate(self.d(), name, *span, "two networks of this step", *first);
                return None;
            }
        }
        Some(found)
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
        if all.is_empty() && nodes.broken.contains(network) {
            return None;
        }
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

    fn method(&mut self, node: &'n Node) -> Option<Method> {
        self.nodes().descend(node.span)?;
        let method = self.method_below(node);
        self.nodes().leave();
        method
    }

    fn method_below(&mut self, node: &'n Node) -> Option<Method> {
        let (name, args) = self.d().call(node, "an optimiser")?;
        if let Some(row) = find(CLIPS, &name.text) {
            let [limit, inner] = self.given(row.params, args)[..] else { return None };
            let limit = limit.and_then(|node| self.argument(&row.params[0], node));
            let mut method = self.method(inner?)?;
            let Arg::Positive(limit) = limit? else { return None };
            method.clips.insert(0, (row.expand)(limit));
            return Some(method);
        }
        let Some(row) = find(OPTIMISERS, &name.text) else {
            let known = [names(OPTIMISERS), names(CLIPS)].concat();
            let diagnostic = Diagnostic::new("unknown-optimiser", format!("there is no optimiser `{}`", name.text))
                .label(name.span, "not known")
                .suggest(&name.text, &known);
            self.d().report(diagnostic);
            return None;
        };
        let (args, spans) = self.arguments(row, args, node.span)?;
        let optimiser = (row.expand)(self.nodes(), &At { span: node.span, args: spans }, &args)?;
        Some(Method { clips: Vec::new(), optimiser })
    }
}

impl Nodes<'_> {
    fn sgd(&mut self, sgd: Sgd, at: &At) -> Option<Optimiser> {
        if sgd.nesterov && sgd.momentum == 0.0 {
            let diagnostic = Diagnostic::new("bad-value", "Nesterov's step needs a momentum")
                .label(at.args[2], "without one it changes nothing")
                .help("give `momentum: 0.9`, for instance, or leave `nesterov` out");
            self.d().report(diagnostic);
            return None;
        }
        Some(Optimiser::Sgd(sgd))
    }

    /// Puts clipped gradients in the place of those that there are.
    fn clip(&mut self, clip: Clip, pairs: &mut [Pair], span: Span) -> Option<()> {
        match clip {
            Clip::Value(limit) => {
                for Pair { network, gradient, parameter } in pairs {
                    self.set_role(Role::Optimiser(network.clone()));
                    self.push_scope(parameter);
                    let (high, low) = (self.constant(limit, span)?, self.constant(-limit, span)?);
                    let clipped = self.apply_as(ScalarOp::Min, &[*gradient, high], "below_limit", span)?;
                    *gradient = self.apply_as(ScalarOp::Max, &[clipped, low], "clipped", span)?;
                    self.pop_scope();
                }
            }
            Clip::Norm(limit) => {
                let mut total = None;
                for Pair { gradient, parameter, .. } in pairs.iter() {
                    self.push_scope(parameter);
                    let square = self.apply_as(ScalarOp::Mul, &[*gradient, *gradient], "square", span)?;
                    let sum = self.sum_of_all(square, span)?;
                    self.pop_scope();
                    total = Some(self.combined(ScalarOp::Add, total, sum, "sum_of_squares", span)?);
                }
                let norm = self.apply_as(ScalarOp::Sqrt, &[total?], "norm", span)?;
                let (small, limit, one) =
                    (self.constant(1e-6, span)?, self.constant(limit, span)?, self.constant(1.0, span)?);
                let norm = self.apply_as(ScalarOp::Add, &[norm, small], "norm", span)?;
                let factor = self.apply_as(ScalarOp::Div, &[limit, norm], "factor", span)?;
                let factor = self.apply_as(ScalarOp::Min, &[factor, one], "factor", span)?;
                for Pair { network, gradient, parameter } in pairs {
                    self.set_role(Role::Optimiser(network.clone()));
                    self.push_scope(parameter);
                    *gradient = self.apply_as(ScalarOp::Mul, &[*gradient, factor], "clipped", span)?;
                    self.pop_scope();
                }
            }
        }
        Some(())
    }

    fn shared(&mut self, optimiser: Optimiser, network: &str, span: Span) -> Option<Shared> {
        let (Optimiser::Adam(Adam { rate, .. })
        | Optimiser::Sgd(Sgd { rate, .. })
        | Optimiser::RmsProp(RmsProp { rate, .. })) = optimiser;
        let Optimiser::Adam(Adam { beta1, beta2, decay, .. }) = optimiser else {
            return Some(Shared { rate: self.rate(rate, span)?, root: None, kept: None });
        };
        let name = format!("{network}/adam/t");
        let t = self.memory(&name, Type::f32([]), span)?;
        let one = self.constant(1.0, span)?;
        let t = self.apply_as(ScalarOp::Add, &[t, one], "t", span)?;
        self.current.insert(name, t);
        let first = self.bias_correction(beta1, t, "correction1", span)?;
        let second = self.bias_correction(beta2, t, "correction2", span)?;
        let whole = self.rate(rate, span)?;
        let rate = self.apply_as(ScalarOp::Div, &[whole, first], "rate", span)?;
        let root = self.apply(ScalarOp::Sqrt, &[second], span)?;
        let kept = match decay {
            Decay::Decoupled(factor) if factor != 0.0 => {
                let factor = self.constant(factor, span)?;
                let lost = self.apply_as(ScalarOp::Mul, &[whole, factor], "lost", span)?;
                Some(self.apply_as(ScalarOp::Sub, &[one, lost], "kept_of_weights", span)?)
            }
            Decay::Decoupled(_) | Decay::InGradient(_) => None,
        };
        Some(Shared { rate, root: Some(root), kept })
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
            Optimiser::Adam(adam) => self.adam_step(adam, shared, parameter, gradient, span)?,
            Optimiser::Sgd(Sgd { momentum, nesterov, decay, .. }) => {
                let gradient = self.decayed(parameter, gradient, decay, span)?;
                let mut direction = gradient;
                if momentum != 0.0 {
                    direction = self.momentum(parameter, gradient, momentum, span)?;
                }
                if nesterov {
                    let momentum = self.constant(momentum, span)?;
                    let ahead = self.apply_as(ScalarOp::Mul, &[direction, momentum], "ahead", span)?;
                    direction = self.apply_as(ScalarOp::Add, &[ahead, gradient], "nesterov", span)?;
                }
                self.apply_as(ScalarOp::Mul, &[direction, shared.rate], "step", span)?
            }
            Optimiser::RmsProp(rms) => self.rms_prop_step(rms, shared, parameter, gradient, span)?,
        };
        let mut from = self.current[parameter];
        if let Some(kept) = shared.kept {
            from = self.apply_as(ScalarOp::Mul, &[from, kept], "decayed", span)?;
        }
        let next = self.apply_as(ScalarOp::Sub, &[from, step], "updated", span)?;
        // A later loss sees the updated parameter, not how it came about.
        self.add(Op::Detach, &[next], "detached", span)
    }

    fn adam_step(
        &mut self,
        adam: Adam,
        shared: &Shared,
        parameter: &str,
        gradient: NodeId,
        span: Span,
    ) -> Option<NodeId> {
        let gradient = match adam.decay {
            Decay::InGradient(factor) => self.decayed(parameter, gradient, factor, span)?,
            Decay::Decoupled(_) => gradient,
        };
        let m = self.average(&format!("{parameter}/adam_m"), gradient, adam.beta1, "m", span)?;
        let square = self.apply_as(ScalarOp::Mul, &[gradient, gradient], "square", span)?;
        let mut v = self.average(&format!("{parameter}/adam_v"), square, adam.beta2, "v", span)?;
        if adam.amsgrad {
            let name = format!("{parameter}/adam_v_max");
            let ty = self.graph.ty(v).clone();
            let most = self.memory(&name, ty, span)?;
            v = self.apply_as(ScalarOp::Max, &[most, v], "v_max", span)?;
            self.current.insert(name, v);
        }
        let root = self.apply(ScalarOp::Sqrt, &[v], span)?;
        let root = self.apply_as(ScalarOp::Div, &[root, shared.root?], "corrected", span)?;
        let epsilon = self.constant(adam.epsilon, span)?;
        let denominator = self.apply_as(ScalarOp::Add, &[root, epsilon], "denominator", span)?;
        let scaled = self.apply_as(ScalarOp::Mul, &[m, shared.rate], "scaled", span)?;
        self.apply_as(ScalarOp::Div, &[scaled, denominator], "step", span)
    }

    fn rms_prop_step(
        &mut self,
        rms: RmsProp,
        shared: &Shared,
        parameter: &str,
        gradient: NodeId,
        span: Span,
    ) -> Option<NodeId> {
        let gradient = self.decayed(parameter, gradient, rms.decay, span)?;
        let square = self.apply_as(ScalarOp::Mul, &[gradient, gradient], "square", span)?;
        let mut v = self.average(&format!("{parameter}/rms_v"), square, rms.alpha, "v", span)?;
        if rms.is_centred {
            let mean = self.average(&format!("{parameter}/rms_mean"), gradient, rms.alpha, "mean", span)?;
            let square = self.apply_as(ScalarOp::Mul, &[mean, mean], "square_of_mean", span)?;
            let centred = self.apply_as(ScalarOp::Sub, &[v, square], "centred", span)?;
            // Rounding must not make a variance negative, whose root is NaN.
            let zero = self.constant(0.0, span)?;
            v = self.apply_as(ScalarOp::Max, &[centred, zero], "variance", span)?;
        }
        let root = self.apply(ScalarOp::Sqrt, &[v], span)?;
        let epsilon = self.constant(rms.epsilon, span)?;
        let denominator = self.apply_as(ScalarOp::Add, &[root, epsilon], "denominator", span)?;
        let mut direction = self.apply_as(ScalarOp::Div, &[gradient, denominator], "scaled", span)?;
        if rms.momentum != 0.0 {
            direction = self.momentum(parameter, direction, rms.momentum, span)?;
        }
        self.apply_as(ScalarOp::Mul, &[direction, shared.rate], "step", span)
    }

    /// `gradient + factor·p`
    fn decayed(&mut self, parameter: &str, gradient: NodeId, factor: f64, span: Span) -> Option<NodeId> {
        if factor == 0.0 {
            return Some(gradient);
        }
        let factor = self.constant(factor, span)?;
        let decay = self.apply_as(ScalarOp::Mul, &[self.current[parameter], factor], "decay", span)?;
        self.apply_as(ScalarOp::Add, &[gradient, decay], "decayed", span)
    }

    /// `m = momentum·m + x`, kept as state.
    fn momentum(&mut self, parameter: &str, x: NodeId, momentum: f64, span: Span) -> Option<NodeId> {
        let name = format!("{parameter}/momentum");
        let ty = self.graph.ty(x).clone();
        let (old, decay) = (self.memory(&name, ty, span)?, self.constant(momentum, span)?);
        let kept = self.apply_as(ScalarOp::Mul, &[old, decay], "kept", span)?;
        let direction = self.apply_as(ScalarOp::Add, &[kept, x], "direction", span)?;
        self.current.insert(name, direction);
        Some(direction)
    }

    /// An optimiser's state tensor, zero at first.
    fn memory(&mut self, name: &str, ty: Type, span: Span) -> Option<NodeId> {
        self.state(name, ty, StateRole::Optimiser, Initialiser::Constant(0.0), span)
    }

    /// The moving average `beta·old + (1 − beta)·x`, kept as state.
    fn average(&mut self, name: &str, x: NodeId, beta: f64, label: &str, span: Span) -> Option<NodeId> {
        let old = self.memory(name, self.graph.ty(x).clone(), span)?;
        let (keep, follow) = (self.constant(beta, span)?, self.constant(1.0 - beta, span)?);
        let next = self.followed([old, keep], [x, follow], label, span)?;
        self.current.insert(name.to_string(), next);
        Some(next)
    }
}
