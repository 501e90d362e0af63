//! Entries: inputs, steps and outputs to one graph each.

use super::decode::Decoder;
use super::diagnostic::{Diagnostic, Span};
use super::program::{self, Program, duplicate};
use super::sizes::{Sizes, unused};
use super::syntax::{Name, Node, Value};
use crate::ir::{
    DType, Entry, Feed, Graph, Initialiser, InputDecl, Module, NodeId, Op, Origin, Output, Role, StateDecl, StateRole,
    Type, Update,
};
use crate::scalar::ScalarOp;
use std::collections::{BTreeMap, BTreeSet};

/// A program on its way to a module.
pub struct Lowering<'p, 'n> {
    pub program: &'p Program<'n>,
    pub sizes: Sizes,
    data_sizes: &'p [(String, usize)],
    pub d: Decoder,
    pub states: Vec<StateDecl>,
    pub used: BTreeSet<String>,
}

/// The name of the state that counts steps.
pub const STEP: &str = "step";
/// The name of the input that holds the seed.
pub const SEED: &str = "seed";

impl<'p, 'n> Lowering<'p, 'n> {
    pub fn new(program: &'p Program<'n>, sizes: Sizes, data_sizes: &'p [(String, usize)], d: Decoder) -> Self {
        Lowering { program, sizes, data_sizes, d, states: Vec::new(), used: BTreeSet::new() }
    }

    /// The module, or everything that is wrong.
    pub fn lower(mut self) -> Result<Module, Vec<Diagnostic>> {
        let program = self.program;
        let mut entries = Vec::new();
        for entry in &program.entries {
            entries.push(EntryLowering::new(&mut self, &entry.name.text).lower(entry));
        }
        self.sizes.report_unused(program, &mut self.d);
        for network in program.networks.iter().filter(|n| !self.used.contains(&n.name.text)) {
            unused(&mut self.d, "network", &network.name.text, network.name.span);
        }
        for function in program.functions.iter().filter(|f| !self.used.contains(&f.name.text)) {
            unused(&mut self.d, "function", &function.name.text, function.name.span);
        }
        if !self.d.diags.is_empty() {
            return Err(self.d.diags);
        }
        entries.insert(0, super::init::entry(&self.states));
        Ok(Module { name: program.name.clone(), states: self.states, entries })
    }
}

/// What a name stands for: a node, or nothing where its expression is wrong.
#[derive(Debug, Clone, Copy)]
pub struct Binding {
    pub node: Option<NodeId>,
    pub span: Span,
    pub used: bool,
}

/// Names that expressions may use.
pub type Frame = BTreeMap<String, Binding>;

/// One entry on its way to a graph.
pub struct EntryLowering<'l, 'p, 'n> {
    pub lowering: &'l mut Lowering<'p, 'n>,
    pub graph: Graph,
    inputs: Vec<InputDecl>,
    pub frame: Frame,
    /// The present value of each state tensor.
    pub current: BTreeMap<String, NodeId>,
    /// The leaf of each state tensor.
    leaves: BTreeMap<String, NodeId>,
    /// The declarations around the node that is being built, and what the node is for.
    pub scope: Vec<String>,
    pub role: Role,
    scopes: BTreeSet<String>,
    streams: BTreeSet<String>,
    minimises: bool,
    /// Functions that are being expanded.
    pub expanding: Vec<String>,
}

impl<'l, 'p, 'n> EntryLowering<'l, 'p, 'n> {
    fn new(lowering: &'l mut Lowering<'p, 'n>, name: &str) -> Self {
        EntryLowering {
            lowering,
            graph: Graph::new(name),
            inputs: Vec::new(),
            frame: Frame::new(),
            current: BTreeMap::new(),
            leaves: BTreeMap::new(),
            scope: Vec::new(),
            role: Role::Forward,
            scopes: BTreeSet::new(),
            streams: BTreeSet::new(),
            minimises: false,
            expanding: Vec::new(),
        }
    }

    pub fn d(&mut self) -> &mut Decoder {
        &mut self.lowering.d
    }

    fn lower(mut self, entry: &program::Entry<'n>) -> Entry {
        for input in &entry.inputs {
            self.input(input);
        }
        for step in entry.steps {
            self.step(step);
        }
        self.outputs(entry);
        if self.minimises && self.leaves.contains_key(STEP) {
            // The next step draws other numbers.
            let step = self.current[STEP];
            let one = self.leaf(Op::constant(1.0, DType::U32, []), "one", entry.name.span);
            let next = self.leaf_of(Op::Scalar(ScalarOp::AddU32), &[step, one], "next_step", entry.name.span);
            self.current.insert(STEP.into(), next);
        }
        for (name, node) in &self.current {
            if self.leaves.get(name) != Some(node) {
                self.graph.updates.push(Update { state: name.clone(), node: *node });
            }
        }
        Entry { graph: self.graph, inputs: self.inputs }
    }

    fn input(&mut self, input: &program::Input<'n>) {
        let program = self.lowering.program;
        let shape = self.lowering.sizes.shape(program, input.shape, "a size", &mut self.lowering.d);
        let mut node = None;
        if let Some(mut shape) = shape {
            let replaced = input.examples().and_then(|n| self.lowering.data_sizes.iter().find(|(name, _)| *name == n));
            if let (Some((_, size)), Some(first)) = (replaced, shape.first_mut()) {
                *first = *size;
            }
            let (rank, meaning) = match input.feed {
                Feed::Images => (4, "images of the data set, in [-1, 1]"),
                Feed::Labels => (1, "class labels of the data set"),
                Feed::Seed | Feed::Caller => (shape.len(), "given by the caller"),
            };
            if rank == shape.len() {
                let dtype = if input.feed == Feed::Labels { DType::U32 } else { DType::F32 };
                let ty = Type::new(dtype, shape);
                let name = input.name.text.clone();
                let op = Op::Input { name: name.clone(), ty: ty.clone() };
                node = self.add(op, &[], &name, input.span);
                let meaning = input.meaning.unwrap_or(meaning).to_string();
                self.inputs.push(InputDecl { name, ty, feed: input.feed, meaning });
            } else {
                self.d().report(
                    Diagnostic::new("shape-mismatch", format!("`{}` has {} sizes", input.name.text, shape.len()))
                        .label(
                            input.shape.span,
                            match rank {
                                4 => "images are [examples, channels, height, width]",
                                _ => "labels are [examples]",
                            },
                        ),
                );
            }
        }
        self.frame.insert(input.name.text.clone(), Binding { node, span: input.name.span, used: false });
    }

    fn step(&mut self, step: &'n Node) {
        let Some((kind, mut args)) = self.d().call(step, "a step") else { return };
        match kind.text.as_str() {
            "Let" => {
                let name = args.required(self.d(), "name");
                let value = args.required(self.d(), "value");
                args.finish(self.d());
                let (Some(name), Some(value)) = (name, value) else { return };
                let Some(text) = self.d().str(name, "a name") else { return };
                self.bind(text, name.span, value);
            }
            "Minimise" => {
                self.minimises = true;
                let loss = args.required(self.d(), "loss");
                let network = args.required(self.d(), "network");
                let optimiser = args.required(self.d(), "optimiser");
                args.finish(self.d());
                if let (Some(loss), Some(network), Some(optimiser)) = (loss, network, optimiser) {
                    self.minimise(step.span, loss, network, optimiser);
                }
            }
            other => {
                let diagnostic = Diagnostic::new("unknown-step", format!("there is no step `{other}`"))
                    .label(kind.span, "not known")
                    .suggest(other, &["Let", "Minimise"]);
                self.d().report(diagnostic);
            }
        }
    }

    fn bind(&mut self, name: &str, span: Span, value: &'n Node) {
        if !program::is_identifier(name) {
            let help = "letters, digits and any of `_ - .`, starting with a letter";
            self.d().report(Diagnostic::new("bad-name", format!("`{name}` is no name")).label(span, help));
            return;
        }
        if let Some(first) = self.frame.get(name).map(|b| b.span) {
            duplicate(self.d(), name, span, "two values", first);
            return;
        }
        let before = self.graph.len();
        self.scope.push(name.to_string());
        let node = self.expr(value);
        self.scope.pop();
        // A value that was only given a second name keeps its first.
        if let Some(node) = node.filter(|n| n.index() >= before) {
            self.graph.rename(node, name);
        }
        self.frame.insert(name.into(), Binding { node, span, used: false });
    }

    fn outputs(&mut self, entry: &program::Entry<'n>) {
        let mut seen: BTreeMap<&str, Span> = BTreeMap::new();
        for name in &entry.outputs {
            if let Some(first) = seen.insert(&name.text, name.span) {
                duplicate(self.d(), &name.text, name.span, "two outputs", first);
                continue;
            }
            if let Some(node) = self.name(&Name { text: name.text.clone(), span: name.span }) {
                self.graph.outputs.push(Output { name: name.text.clone(), node });
            }
        }
        if entry.outputs.is_empty() && !self.minimises {
            self.d().report(
                Diagnostic::new("no-results", format!("the entry `{}` gives nothing", entry.name.text))
                    .label(entry.outputs_span, "expected the name of a value"),
            );
        }
        let idle: Vec<(String, Span)> =
            self.frame.iter().filter(|(_, b)| !b.used).map(|(name, b)| (name.clone(), b.span)).collect();
        for (name, span) in idle {
            let what = if entry.inputs.iter().any(|i| i.name.text == name) { "input" } else { "value" };
            unused(self.d(), what, &name, span);
        }
    }

    /// The node that a name stands for.
    pub fn name(&mut self, name: &Name) -> Option<NodeId> {
        if let Some(binding) = self.frame.get_mut(&name.text) {
            binding.used = true;
            return binding.node;
        }
        if let Some(number) = self.lowering.sizes.named_number(&name.text) {
            return Some(self.constant(number, name.span));
        }
        let program = self.lowering.program;
        let mut known: Vec<&str> = self.frame.keys().map(String::as_str).collect();
        known.extend(program.values.iter().chain(&program.sizes).map(|(n, _)| n.text.as_str()));
        let is_network = program.network(&name.text).is_some();
        let mut diagnostic = Diagnostic::new("unknown-name", format!("there is no value `{}`", name.text))
            .label(name.span, "not declared before this")
            .suggest(&name.text, &known);
        if is_network {
            diagnostic = diagnostic.help(format!("a network is called: Call(\"{}\", ..., Training)", name.text));
        }
        self.d().report(diagnostic);
        None
    }

    /// A constant scalar.
    pub fn constant(&mut self, value: f64, span: Span) -> NodeId {
        self.leaf(Op::constant(value, DType::F32, []), "constant", span)
    }

    /// Adds a node; a mistake in its types is reported at `span`.
    pub fn add(&mut self, op: Op, operands: &[NodeId], name: &str, span: Span) -> Option<NodeId> {
        let scope = self.scope.join("/");
        let full = if scope.is_empty() || name == scope { name.to_string() } else { format!("{scope}/{name}") };
        let origin = Origin { span: Some(span), scope, role: self.role.clone() };
        match self.graph.add(op, operands, &full, origin) {
            Ok(node) => Some(node),
            Err(error) => {
                let types: Vec<String> = operands.iter().map(|&o| self.graph.ty(o).to_string()).collect();
                let mut diagnostic = Diagnostic::new("shape-mismatch", error.to_string()).label(span, "in this");
                if !types.is_empty() {
                    diagnostic = diagnostic.help(format!("the operands are {}", types.join(" and ")));
                }
                self.d().report(diagnostic);
                None
            }
        }
    }

    /// Adds a node that fits by construction.
    pub fn leaf_of(&mut self, op: Op, operands: &[NodeId], name: &str, span: Span) -> NodeId {
        match self.add(op, operands, name, span) {
            Some(node) => node,
            None => unreachable!("an expansion built an ill-typed node"),
        }
    }

    pub fn leaf(&mut self, op: Op, name: &str, span: Span) -> NodeId {
        self.leaf_of(op, &[], name, span)
    }

    /// The present value of a state tensor, which is declared where it is new.
    pub fn state(&mut self, name: &str, ty: Type, role: StateRole, init: Initialiser, span: Span) -> NodeId {
        if !self.lowering.states.iter().any(|s| s.name == name) {
            let declared = StateDecl { name: name.into(), ty: ty.clone(), role, init, span: Some(span) };
            self.lowering.states.push(declared);
        }
        if let Some(&node) = self.current.get(name) {
            return node;
        }
        let origin = Origin { span: Some(span), scope: String::new(), role: Role::Forward };
        let node = match self.graph.add(Op::State { name: name.into(), ty }, &[], name, origin) {
            Ok(node) => node,
            Err(error) => unreachable!("a leaf takes no operands: {error}"),
        };
        self.current.insert(name.into(), node);
        self.leaves.insert(name.into(), node);
        node
    }

    /// A random draw that is named after where it stands.
    pub fn draw(&mut self, distribution: crate::ir::Distribution, shape: Vec<usize>, span: Span) -> Option<NodeId> {
        let path = format!("{}/{}", self.graph.name, self.scope.join("/"));
        let mut stream = path.clone();
        let mut number = 1;
        while !self.streams.insert(stream.clone()) {
            stream = format!("{path}.{number}");
            number += 1;
        }
        let seed = match self.graph.find(SEED) {
            Some(seed) => seed,
            None => {
                let ty = Type::u32([2]);
                let meaning = "the seed of all randomness".to_string();
                self.inputs.push(InputDecl { name: SEED.into(), ty: ty.clone(), feed: Feed::Seed, meaning });
                let scope = std::mem::take(&mut self.scope);
                let seed = self.leaf(Op::Input { name: SEED.into(), ty }, SEED, span);
                self.scope = scope;
                seed
            }
        };
        let step = self.state(STEP, Type::u32([]), StateRole::Counter, Initialiser::Constant(0.0), span);
        self.add(Op::Random { distribution, stream, shape }, &[seed, step], "draw", span)
    }

    /// Goes into a declaration; a path that was taken before gets a number.
    pub fn enter(&mut self, name: &str) {
        let path = self.scope.join("/");
        let mut unique = name.to_string();
        let mut number = 1;
        while !self.scopes.insert(format!("{path}/{unique}")) {
            unique = format!("{name}.{number}");
            number += 1;
        }
        self.scope.push(unique);
    }

    /// The one-word argument of a call that is a name in quotes, for messages.
    pub fn quoted<'a>(&mut self, node: &'a Node, what: &str) -> Option<(&'a str, Span)> {
        match &node.value {
            Value::Str(text) => Some((text, node.span)),
            _ => self.d().str(node, what).map(|text| (text, node.span)),
        }
    }
}
