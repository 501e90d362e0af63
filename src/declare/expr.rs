//! Expressions: names, numbers, operations, calls of functions and networks.

use super::diagnostic::{Diagnostic, Span};
use super::entry::EntryLowering;
use super::layers::{LAYERS, Mode};
use super::lowering::{Binding, Frame};
use super::nodes::{scalar_named, written};
use super::ops::OPERATIONS;
use super::program::Function;
use super::ron::decode::Args;
use super::ron::{Name, Node, Value};
use super::sizes::{cycle, unused};
use crate::ir::NodeId;
use crate::scalar::ScalarOp;

/// The modes in which a network is called, as they are written.
const MODES: [(&str, Mode); 2] = [("Training", Mode::Training), ("Inference", Mode::Inference)];

/// Whether an operation of the language is called so.
pub fn is_operation(name: &str) -> bool {
    name == "Call" || OPERATIONS.contains(&name) || scalar_named(name).is_some()
}

impl<'n> EntryLowering<'_, '_, 'n> {
    /// The value of an expression: a name in quotes, a number, or an operation on expressions.
    pub fn expr(&mut self, node: &'n Node) -> Option<NodeId> {
        self.descend(node.span)?;
        let value = match &node.value {
            Value::Str(text) => self.name(&Name { text: text.clone(), span: node.span }),
            Value::Int(x) => self.constant(*x as f64, node.span),
            Value::Float(x) => self.constant(*x, node.span),
            Value::Tuple { name: Some(name), .. } | Value::Struct { name: Some(name), .. } => {
                self.operation(name, node)
            }
            Value::Unit { name: Some(name) } if !self.frame.contains_key(&name.text) => self.operation(name, node),
            Value::Unit { name: Some(_) } => {
                self.d().str(node, "the name of a value");
                None
            }
            _ => {
                self.d().wrong_type(node, "an expression", "a name in quotes, a number or an operation `Name(...)`");
                None
            }
        };
        self.leave();
        value
    }

    /// The node that a name stands for.
    fn name(&mut self, name: &Name) -> Option<NodeId> {
        if let Some(binding) = self.frame.get_mut(&name.text) {
            binding.used = true;
            return binding.node;
        }
        if let Some(number) = self.lowering.sizes.named_number(&name.text) {
            return self.constant(number, name.span);
        }
        let program = self.lowering.program;
        if self.lowering.sizes.is_declared(&name.text) {
            // Its own declaration is wrong, and told there.
            return None;
        }
        let numbers = program.values.iter().chain(&program.sizes).map(|(n, _)| n.text.as_str());
        let known: Vec<String> = self.frame.keys().cloned().collect();
        let known: Vec<&str> = known.iter().map(String::as_str).chain(numbers).collect();
        let mut diagnostic = Diagnostic::new("unknown-name", format!("there is no value `{}`", name.text))
            .label(name.span, if self.expanding.is_empty() { "not declared before this" } else { "not a parameter" })
            .suggest(&name.text, &known);
        if program.network(&name.text).is_some() {
            diagnostic = diagnostic.help(format!("a network is called: Call(\"{}\", ..., Training)", name.text));
        }
        self.d().report(diagnostic);
        None
    }

    fn operation(&mut self, name: &'n Name, node: &'n Node) -> Option<NodeId> {
        if let Some(op) = scalar_named(&name.text) {
            return self.scalar(op, node);
        }
        let (_, args) = self.d().call(node, "an operation")?;
        if name.text == "Call" {
            return self.call_network(args, node.span);
        }
        if OPERATIONS.contains(&name.text.as_str()) {
            return self.primitive(&name.text, args, node.span);
        }
        let program = self.lowering.program;
        if let Some(function) = program.function(&name.text) {
            return self.call_function(function, name, node);
        }
        let scalars: Vec<String> = ScalarOp::ALL.iter().map(|&op| written(op)).collect();
        let functions = program.functions.iter().map(|f| f.name.text.as_str());
        let known: Vec<&str> = (OPERATIONS.into_iter().chain(["Call"]))
            .chain(scalars.iter().map(String::as_str))
            .chain(functions)
            .collect();
        let text = name.text.as_str();
        let mut diagnostic = Diagnostic::new("unknown-op", format!("there is no operation `{text}`"))
            .label(name.span, "not known")
            .did_you_mean(text, &known);
        if LAYERS.contains(&text) {
            diagnostic = diagnostic.help(format!("`{text}` is a layer: it stands among the `layers` of a network"));
        } else if program.network(text).is_some() {
            diagnostic = diagnostic.help(format!("a network is called: Call(\"{text}\", ..., Training)"));
        } else if ["Let", "Minimise"].contains(&text) {
            diagnostic = diagnostic.help(format!("`{text}` is a step of its own, not part of an expression"));
        }
        self.d().report(diagnostic);
        None
    }

    fn scalar(&mut self, op: ScalarOp, node: &'n Node) -> Option<NodeId> {
        let items = match &node.value {
            Value::Tuple { items, .. } => &items[..],
            Value::Unit { .. } => &[],
            _ => {
                let what = format!("the operands of `{}`", written(op));
                self.d().wrong_type(node, &what, &format!("given by position, as in `{}(a, b)`", written(op)));
                return None;
            }
        };
        let arity = op.operand_lanes().len();
        let folds = matches!(op, ScalarOp::Add | ScalarOp::Mul | ScalarOp::Max | ScalarOp::Min);
        let operands: Vec<Option<NodeId>> = items.iter().map(|item| self.expr(item)).collect();
        if items.len() != arity && !(folds && items.len() > arity) {
            let noun = if arity == 1 { "operand" } else { "operands" };
            let least = if folds { "at least " } else { "" };
            let mut diagnostic =
                Diagnostic::new("wrong-arguments", format!("`{}` takes {least}{arity} {noun}", written(op)))
                    .label(node.span, format!("{} given", items.len()));
            if op == ScalarOp::Max && items.len() == 1 {
                diagnostic = diagnostic.help("`ReduceMax(...)` is the largest element of one tensor");
            }
            self.d().report(diagnostic);
            return None;
        }
        let operands: Vec<NodeId> = operands.into_iter().collect::<Option<_>>()?;
        if folds && operands.len() > arity {
            let (first, rest) = operands.split_first()?;
            return rest.iter().try_fold(*first, |a, &b| self.apply(op, &[a, b], node.span));
        }
        self.apply(op, &operands, node.span)
    }

    fn call_function(&mut self, function: &Function<'n>, name: &Name, node: &'n Node) -> Option<NodeId> {
        self.lowering.used.insert(name.text.clone());
        let args = self.arguments(function, node);
        if self.expanding.contains(&name.text) {
            let path = self.expanding.clone();
            cycle(self.d(), "function", &path, &name.text, name.span);
            return None;
        }
        let values: Vec<Option<NodeId>> = args?.into_iter().map(|item| self.expr(item)).collect();
        let all_right = values.iter().all(Option::is_some);
        let params = function.params.iter().zip(values);
        let frame: Frame =
            params.map(|(param, node)| (param.text.clone(), Binding { node, span: param.span, used: false })).collect();
        let outer = std::mem::replace(&mut self.frame, frame);
        let before = self.d().diags.len();
        self.expanding.push(name.text.clone());
        let value = self.expr(function.body);
        self.expanding.pop();
        let inner = std::mem::replace(&mut self.frame, outer);
        if self.expanding.is_empty() {
            // What does not fit inside depends on what was given here.
            let misfits = self.d().diags[before..].iter_mut().filter(|d| DEPENDS_ON_CALL.contains(&d.code));
            misfits.for_each(|d| d.labels.push((node.span, "in this call".to_string())));
        }
        if all_right && value.is_some() {
            for (param, binding) in inner.iter().filter(|(_, b)| !b.used) {
                unused(self.d(), "parameter", param, binding.span);
            }
        }
        if all_right { value } else { None }
    }

    /// The arguments of a function in the order of its parameters, given by position or by name.
    fn arguments(&mut self, function: &Function<'n>, node: &'n Node) -> Option<Vec<&'n Node>> {
        let params: Vec<&str> = function.params.iter().map(|p| p.text.as_str()).collect();
        let given = match &node.value {
            Value::Tuple { items, .. } => items.len(),
            Value::Struct { fields, .. } => fields.len(),
            _ => 0,
        };
        let found: Option<Vec<&'n Node>> = match &node.value {
            Value::Struct { fields, .. } => {
                let of = |param: &&str| fields.iter().find(|(f, _)| f.text == *param).map(|(_, value)| value);
                params.iter().map(of).collect()
            }
            Value::Tuple { items, .. } => Some(items.iter().collect()),
            _ => Some(Vec::new()),
        };
        match found {
            Some(found) if found.len() == params.len() && given == params.len() => Some(found),
            _ => {
                let form = format!("{}({})", function.name.text, params.join(", "));
                let diagnostic = Diagnostic::new("wrong-arguments", format!("the function is `{form}`"))
                    .label(node.span, format!("{given} given that do not fit"))
                    .label(function.name.span, "declared here");
                self.d().report(diagnostic);
                None
            }
        }
    }

    fn call_network(&mut self, mut args: Args<'n>, span: Span) -> Option<NodeId> {
        let network = args.required(self.d(), "network");
        let x = args.required(self.d(), "input");
        let mode = args.required(self.d(), "mode");
        args.finish(self.d());
        let mode = mode.and_then(|n| self.d().choice(n, "the mode", &MODES));
        let x = x.and_then(|n| self.expr(n));
        let (name, _) = self.network_name(network?)?;
        let program = self.lowering.program;
        let network = program.network(name)?;
        self.network(network, x?, mode?, span)
    }

    /// The name of a network that there is, and its place.
    pub fn network_name(&mut self, node: &'n Node) -> Option<(&'n str, Span)> {
        let name = self.d().str(node, "the network")?;
        let program = self.lowering.program;
        if program.network(name).is_some() {
            self.lowering.used.insert(name.to_string());
            return Some((name, node.span));
        }
        let known: Vec<&str> = program.networks.iter().map(|n| n.name.text.as_str()).collect();
        let mut diagnostic = Diagnostic::new("unknown-network", format!("there is no network `{name}`"))
            .label(node.span, "not declared")
            .suggest(name, &known);
        if program.function(name).is_some() {
            diagnostic = diagnostic.help(format!("a function is applied: `{name}(...)`"));
        }
        self.d().report(diagnostic);
        None
    }
}

/// Kinds of error in a function's body that depend on what it was called with.
const DEPENDS_ON_CALL: [&str; 4] = ["shape-mismatch", "wrong-dtype", "non-scalar-loss", "independent-loss"];
