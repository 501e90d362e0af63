//! Expressions: names, numbers, operations, calls of functions and networks.

use super::diagnostic::{Diagnostic, Span};
use super::entry::STEPS;
use super::foreign;
use super::layers::{LAYERS, Mode};
use super::nodes::{Nodes, scalar_named, written};
use super::ops::{Expand, OPERATIONS};
use super::program::{Function, Program};
use super::ron::decode::{Args, Decoder};
use super::ron::{Name, Node, Value};
use super::rows::{Arg, At, Kind, Pads, Param, Rate, Row, find, names};
use super::sizes::{Sizes, cycle, held, unused};
use crate::ir::{DType, MAX_PADDED, NodeId};
use crate::scalar::ScalarOp;
use std::collections::{BTreeMap, BTreeSet};

/// The modes in which a network is called, as they are written.
const ELEMENT_TYPES: [(&str, DType); 2] = [("F32", DType::F32), ("Bf16", DType::Bf16)];
const MODES: [(&str, Mode); 2] = [("Training", Mode::Training), ("Inference", Mode::Inference)];

/// Calls a network. It is the only operation that needs the program.
type Call = for<'l, 'n> fn(&mut Expressions<'l, 'n>, Span, &[&'n Node]) -> Option<NodeId>;

/// The call of a network.
pub const CALLS: &[Row<Call>] = &[Row {
    name: "Call",
    params: &[
        Param { name: "network", kind: Kind::Written("the name of a network"), default: None },
        Param { name: "input", kind: Kind::Value, default: None },
        Param { name: "mode", kind: Kind::Written("Training or Inference"), default: None },
    ],
    meaning: "The output of a network, with batch statistics and dropout (Training) or without (Inference).",
    example: r#"Call("net", "images", Training)"#,
    expand: |expressions, span, args| expressions.call_network(args, span),
}];

/// The operation of that name.
fn operation(name: &str) -> Option<&'static Row<Expand>> {
    OPERATIONS.iter().find_map(|group| find(group.rows, name))
}

/// Whether an operation of the language is called so.
pub fn is_operation(name: &str) -> bool {
    find(CALLS, name).is_some() || operation(name).is_some() || scalar_named(name).is_some()
}

/// Whether nothing is given, in a word.
fn is_none(node: &Node) -> bool {
    is_word(node, "None")
}

/// Whether the word stands there that `gcc-gan ops` prints for what is left out.
fn is_word(node: &Node, word: &str) -> bool {
    matches!(&node.value, Value::Unit { name: Some(name) } if name.text == word)
}

/// What a name stands for: a node, or nothing where its expression is wrong.
#[derive(Debug, Clone, Copy)]
pub struct Binding {
    pub node: Option<NodeId>,
    /// Where the name is given.
    pub span: Span,
    pub used: bool,
}

/// Names that expressions may use.
type Frame = BTreeMap<String, Binding>;

/// Expressions of an entry, which become nodes.
pub struct Expressions<'l, 'n> {
    nodes: Nodes<'l>,
    program: &'l Program<'n>,
    sizes: &'l Sizes,
    /// Names of networks and functions that some entry uses.
    used: &'l mut BTreeSet<String>,
    /// The names that the expression at hand may use: the entry's, or a function's parameters.
    frame: Frame,
    /// Functions that are being expanded, from the outside in.
    expanding: Vec<String>,
}

impl<'l, 'n> Expressions<'l, 'n> {
    pub fn new(nodes: Nodes<'l>, program: &'l Program<'n>, sizes: &'l Sizes, used: &'l mut BTreeSet<String>) -> Self {
        Expressions { nodes, program, sizes, used, frame: Frame::new(), expanding: Vec::new() }
    }

    pub fn nodes(&mut self) -> &mut Nodes<'l> {
        &mut self.nodes
    }

    pub fn into_nodes(self) -> Nodes<'l> {
        self.nodes
    }

    /// Where mistakes are reported.
    pub fn d(&mut self) -> &mut Decoder {
        self.nodes.d()
    }

    pub fn program(&self) -> &'l Program<'n> {
        self.program
    }

    /// The names that may be used.
    pub fn bound(&self) -> &BTreeMap<String, Binding> {
        &self.frame
    }

    /// Lets a name stand for a node.
    pub fn bind(&mut self, name: &Name, node: Option<NodeId>) {
        self.frame.insert(name.text.clone(), Binding { node, span: name.span, used: false });
    }

    /// Frees every name but these.
    pub fn forget_all_but(&mut self, kept: &BTreeSet<String>) {
        self.frame.retain(|name, _| kept.contains(name));
    }

    /// What a name stands for, which is then used.
    pub fn look_up(&mut self, name: &str) -> Option<Binding> {
        let binding = self.frame.get_mut(name)?;
        binding.used = true;
        Some(*binding)
    }

    /// A list of sizes.
    pub fn shape(&mut self, node: &Node, what: &str) -> Option<Vec<usize>> {
        self.sizes.shape(self.program, node, what, self.nodes.d())
    }

    /// A size.
    pub fn size(&mut self, node: &Node, what: &str) -> Option<usize> {
        self.sizes.size(self.program, node, what, self.nodes.d())
    }

    /// The arguments of a row, and where they stand.
    pub fn arguments<T>(&mut self, row: &Row<T>, args: Args<'n>, span: Span) -> Option<(Vec<Arg>, Vec<Span>)> {
        self.arguments_for(row.params, args, span)
    }

    /// What is given for each parameter; reports what is missing without a default, and what is too much.
    pub fn given(&mut self, params: &[Param], mut args: Args<'n>) -> Vec<Option<&'n Node>> {
        let given = (params.iter())
            .map(|param| match param.default {
                Some(_) => args.optional(param.name),
                None => args.required(self.d(), param.name),
            })
            .collect();
        args.finish(self.d());
        given
    }

    /// The same, where nothing is missing.
    pub fn all_given(&mut self, params: &[Param], args: Args<'n>) -> Option<Vec<Option<&'n Node>>> {
        let given = self.given(params, args);
        let is_whole = params.iter().zip(&given).all(|(param, node)| node.is_some() || param.default.is_some());
        is_whole.then_some(given)
    }

    /// Arguments, and where they stand. All are read before the first that is wrong ends it.
    pub fn arguments_for(&mut self, params: &[Param], args: Args<'n>, span: Span) -> Option<(Vec<Arg>, Vec<Span>)> {
        let given = self.given(params, args);
        let spans = given.iter().map(|node| node.map_or(span, |n| n.span)).collect();
        let read: Vec<Option<Arg>> = (params.iter().zip(given))
            .map(|(param, node)| match (node, param.default) {
                (Some(node), _) => self.argument(param, node),
                (None, default) => default.map(|default| default()),
            })
            .collect();
        Some((read.into_iter().collect::<Option<_>>()?, spans))
    }

    /// What a parameter's argument says.
    pub fn argument(&mut self, param: &Param, node: &'n Node) -> Option<Arg> {
        let what = format!("`{}`", param.name);
        Some(match param.kind {
            Kind::Value => Arg::Value(self.expr(node)?),
            Kind::MaybeValue if is_none(node) => Arg::MaybeValue(None),
            Kind::MaybeValue => Arg::MaybeValue(Some(self.expr(node)?)),
            Kind::Values => {
                let items = self.d().list(node, &what)?;
                let items: Vec<Option<NodeId>> = items.iter().map(|n| self.expr(n)).collect();
                Arg::Values(items.into_iter().collect::<Option<_>>()?)
            }
            Kind::Size => Arg::Size(self.size(node, &what)?),
            Kind::Sizes => Arg::Sizes(self.shape(node, &what)?),
            Kind::Shape => Arg::Shape(self.integers(node, &what)?),
            Kind::Lengths
                if param.default.is_some_and(|d| d() == Arg::Lengths(Vec::new())) && is_word(node, "size") =>
            {
                Arg::Lengths(Vec::new())
            }
            Kind::Lengths => Arg::Lengths(self.lengths(node, &what, 1)?),
            Kind::Amounts => Arg::Amounts(self.lengths(node, &what, 0)?),
            Kind::Pads => Arg::Pads(self.pads(node, &what)?),
            Kind::Dimension => Arg::Dimension(self.integer(node, &what)?),
            Kind::Permutation if is_word(node, "reversed") => Arg::Permutation(None),
            Kind::Permutation => Arg::Permutation(Some(self.integers(node, &what)?)),
            Kind::Axes if is_word(node, "all") => Arg::Axes(None),
            Kind::Axes => Arg::Axes(Some(self.integers(node, &what)?)),
            Kind::Integer => Arg::Integer(self.integer(node, &what)?),
            Kind::Integers => Arg::Integers(self.integers(node, &what)?),
            Kind::Numbers => {
                let items = self.d().list(node, &what)?;
                let numbers: Vec<Option<f64>> =
                    items.iter().map(|n| self.number_in(n, param, f64::is_finite)).collect();
                Arg::Numbers(numbers.into_iter().collect::<Option<_>>()?)
            }
            Kind::Number => Arg::Number(self.number_in(node, param, f64::is_finite)?),
            Kind::MaybeNumber if is_none(node) => Arg::MaybeNumber(None),
            Kind::MaybeNumber => Arg::MaybeNumber(Some(self.number_in(node, param, f64::is_finite)?)),
            Kind::NotNegative => Arg::NotNegative(self.number_in(node, param, |x| (0.0..f64::INFINITY).contains(&x))?),
            Kind::Positive => Arg::Positive(self.number_in(node, param, |x| x > 0.0 && x.is_finite())?),
            Kind::Fraction => Arg::Fraction(self.number_in(node, param, |x| (0.0..1.0).contains(&x))?),
            Kind::Probability => Arg::Probability(self.number_in(node, param, |x| (0.0..=1.0).contains(&x))?),
            Kind::Rate => Arg::Rate(self.rate(node, param)?),
            Kind::Flag => Arg::Flag(self.d().bool(node, &what)?),
            Kind::Keep => Arg::Keep(Some(self.d().bool(node, &what)?)),
            Kind::Text => Arg::Text(self.d().str(node, &what)?.to_string()),
            Kind::Word(words) => {
                let table: Vec<(&str, &'static str)> = words.iter().map(|&word| (word, word)).collect();
                Arg::Word(self.d().choice(node, &what, &table)?)
            }
            Kind::ElementType => Arg::ElementType(self.d().choice(node, &what, &ELEMENT_TYPES)?),
            Kind::Written(_) => Arg::Written,
        })
    }

    fn number(&mut self, node: &Node, what: &str) -> Option<f64> {
        self.sizes.number(self.program, node, what, self.nodes.d())
    }

    /// A number, 0 or more, or an expression that gives one in each step.
    fn rate(&mut self, node: &'n Node, param: &Param) -> Option<Rate> {
        let is_number = match &node.value {
            Value::Int(_) | Value::Float(_) => true,
            Value::Str(name) => !self.frame.contains_key(name),
            _ => false,
        };
        if is_number {
            return Some(Rate::Fixed(self.number_in(node, param, |x| (0.0..f64::INFINITY).contains(&x))?));
        }
        let value = self.expr(node)?;
        let message = format!("`{}` must be a single number", param.name);
        self.nodes.expect_scalar(value, &message, node.span)?;
        Some(Rate::Computed(value))
    }

    /// The number of an argument, where it is one that `fits`.
    fn number_in(&mut self, node: &Node, param: &Param, fits: fn(f64) -> bool) -> Option<f64> {
        let what = format!("`{}`", param.name);
        let value = self.number(node, &what)?;
        // What is near 1 may be 1 as f32, which a moving average must not be.
        if fits(value) && fits(f64::from(value as f32)) {
            return Some(value);
        }
        let rounded = if fits(value) { format!(", which f32 rounds to {:?}", value as f32) } else { String::new() };
        let mut diagnostic = Diagnostic::new("bad-value", format!("{what} is {value}{rounded}"))
            .label(node.span, format!("expected {}", param.kind.words()));
        if let Some(default) = param.default {
            diagnostic = diagnostic.help(format!("without it, {what} is {}", default()));
        }
        self.d().report(diagnostic);
        None
    }

    fn integer(&mut self, node: &Node, what: &str) -> Option<i64> {
        self.sizes.integer(self.program, node, what, self.nodes.d())
    }

    /// A list of whole numbers, or one.
    fn integers(&mut self, node: &Node, what: &str) -> Option<Vec<i64>> {
        let items = match &node.value {
            Value::List(_) | Value::Tuple { name: None, .. } | Value::Unit { name: None } => {
                self.d().list(node, what)?
            }
            Value::Int(x) => return Some(vec![*x]),
            // A name or arithmetic that stands for one.
            Value::Str(_) | Value::Tuple { .. } => return Some(vec![self.integer(node, what)?]),
            _ => self.d().list(node, what)?,
        };
        let each = format!("an element of {what}");
        let numbers: Vec<Option<i64>> = items.iter().map(|n| self.integer(n, &each)).collect();
        numbers.into_iter().collect()
    }

    /// What is added around images.
    fn pads(&mut self, node: &Node, what: &str) -> Option<Pads> {
        match &node.value {
            Value::Unit { name: Some(_) } => {
                let table = [("Same", Pads::Same), ("SameLower", Pads::SameLower)];
                let chosen = self.d().choice(node, what, &[("Same", 0), ("SameLower", 1)])?;
                table.into_iter().nth(chosen).map(|(_, pads)| pads)
            }
            _ => Some(Pads::Sides(self.lengths(node, what, 0)?)),
        }
    }

    /// One number, or a list of them, each from `least` on.
    fn lengths(&mut self, node: &Node, what: &str, least: usize) -> Option<Vec<usize>> {
        let list = match &node.value {
            Value::List(items) | Value::Tuple { name: None, items } if !items.is_empty() => {
                let sizes: Vec<Option<usize>> = items.iter().map(|item| self.size_or_zero(item, what)).collect();
                sizes.into_iter().collect::<Option<Vec<usize>>>()?
            }
            _ => vec![self.size_or_zero(node, what)?],
        };
        if let Some(large) = list.iter().find(|&&p| p > MAX_PADDED) {
            self.beyond_padded(what, large, node.span);
            return None;
        }
        if list.iter().all(|&p| p >= least) {
            return Some(list);
        }
        let diagnostic =
            Diagnostic::new("bad-value", format!("{what} must be at least {least}")).label(node.span, "too small");
        self.d().report(diagnostic);
        None
    }

    fn size_or_zero(&mut self, node: &Node, what: &str) -> Option<usize> {
        match node.value {
            Value::Int(0) => Some(0),
            Value::Int(large) if large > MAX_PADDED as i64 => {
                self.beyond_padded(what, &large, node.span);
                None
            }
            Value::Tuple { name: Some(_), .. } if self.integer(node, what)? == 0 => Some(0),
            _ => self.size(node, what),
        }
    }

    fn beyond_padded(&mut self, what: &str, large: &dyn std::fmt::Display, span: Span) {
        let diagnostic = Diagnostic::new("too-large", format!("{what} is {large}"))
            .label(span, format!("expected at most {MAX_PADDED}"));
        self.d().report(diagnostic);
    }

    /// The value of an expression: a name in quotes, a number, or an operation on expressions.
    pub fn expr(&mut self, node: &'n Node) -> Option<NodeId> {
        self.nodes.descend(node.span)?;
        let value = match &node.value {
            Value::Str(text) => self.name(&Name { text: text.clone(), span: node.span }),
            Value::Int(x) => self.nodes.constant(*x as f64, node.span),
            Value::Float(x) => held(*x, node.span, self.d()).and_then(|x| self.nodes.constant(x, node.span)),
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
        self.nodes.leave();
        value
    }

    /// The node that a name stands for.
    fn name(&mut self, name: &Name) -> Option<NodeId> {
        if let Some(binding) = self.look_up(&name.text) {
            return binding.node;
        }
        if let Some(number) = self.sizes.named_number(&name.text) {
            return self.nodes.constant(number, name.span);
        }
        let program = self.program;
        if self.sizes.is_declared(&name.text) {
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
        if let Some(row) = find(CALLS, &name.text) {
            return self.call(row, args, node.span);
        }
        if let Some(row) = operation(&name.text) {
            let (args, spans) = self.arguments(row, args, node.span)?;
            return (row.expand)(&mut self.nodes, &At { span: node.span, args: spans }, &args);
        }
        let program = self.program;
        if let Some(function) = program.function(&name.text) {
            return self.call_function(function, name, node);
        }
        let scalars: Vec<String> = ScalarOp::ALL.iter().map(|&op| written(op)).collect();
        let functions = program.functions.iter().map(|f| f.name.text.as_str());
        let tables: Vec<&str> = OPERATIONS.iter().flat_map(|group| names(group.rows)).chain(names(CALLS)).collect();
        let known: Vec<&str> =
            (tables.into_iter()).chain(scalars.iter().map(String::as_str)).chain(functions).collect();
        let text = name.text.as_str();
        let mut diagnostic = Diagnostic::new("unknown-op", format!("there is no operation `{text}`"))
            .label(name.span, "not known")
            .did_you_mean(foreign::ours(text).unwrap_or(text), &known);
        if find(LAYERS, text).is_some() {
            diagnostic = diagnostic.help(format!("`{text}` is a layer: it stands among the `layers` of a network"));
        } else if program.network(text).is_some() {
            diagnostic = diagnostic.help(format!("a network is called: Call(\"{text}\", ..., Training)"));
        } else if find(STEPS, text).is_some() {
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
            return rest.iter().try_fold(*first, |a, &b| self.nodes.apply(op, &[a, b], node.span));
        }
        self.nodes.apply(op, &operands, node.span)
    }

    fn call_function(&mut self, function: &Function<'n>, name: &Name, node: &'n Node) -> Option<NodeId> {
        self.used.insert(name.text.clone());
        let args = self.function_arguments(function, node);
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
    fn function_arguments(&mut self, function: &Function<'n>, node: &'n Node) -> Option<Vec<&'n Node>> {
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

    fn call(&mut self, row: &Row<Call>, mut args: Args<'n>, span: Span) -> Option<NodeId> {
        let given: Vec<Option<&'n Node>> = row.params.iter().map(|p| args.required(self.d(), p.name)).collect();
        args.finish(self.d());
        (row.expand)(self, span, &given.into_iter().collect::<Option<Vec<_>>>()?)
    }

    fn call_network(&mut self, args: &[&'n Node], span: Span) -> Option<NodeId> {
        let [network, x, mode] = args else { return None };
        let mode = self.d().choice(mode, "the mode", &MODES);
        let x = self.expr(x);
        let (name, _) = self.network_name(network)?;
        let network = self.program.network(name)?;
        let value = x.zip(mode).and_then(|(x, mode)| self.network(network, x, mode, span));
        if value.is_none() {
            self.nodes().broken.insert(name.to_string());
        }
        value
    }

    /// The name of a network that there is, and its place.
    pub fn network_name(&mut self, node: &'n Node) -> Option<(&'n str, Span)> {
        let name = self.d().str(node, "the network")?;
        let program = self.program;
        if program.network(name).is_some() {
            self.used.insert(name.to_string());
            return Some((name, node.span));
        }
        let known: Vec<&str> = program.networks.iter().map(|n| n.name.text.as_str()).collect();
        let mut diagnostic = Diagnostic::new("unknown-network", format!("there is no network `{name}`"))
            .label(node.span, "not declared")
            .suggest(name, &known);
        if program.function(name).is_some() {
            diagnostic = diagnostic.help(format!("`{name}` is a function, not a network"));
        }
        self.d().report(diagnostic);
        None
    }
}

/// Kinds of error in a function's body that depend on what it was called with.
const DEPENDS_ON_CALL: [&str; 4] = ["shape-mismatch", "wrong-dtype", "non-scalar-loss", "independent-loss"];
