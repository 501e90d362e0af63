//! Entries: inputs, steps and outputs to one graph each.

use super::decode::Decoder;
use super::diagnostic::{Diagnostic, Span, one_of};
use super::lowering::{Binding, Frame, Lowering, SEED, STEP};
use super::program::{self, duplicate};
use super::sizes::unused;
use super::syntax::{Name, Node};
use crate::ir::{DType, Entry, Feed, Graph, InputDecl, NodeId, Op, Output, Role, Type, Update};
use crate::scalar::ScalarOp;
use std::collections::{BTreeMap, BTreeSet};

/// One entry on its way to a graph.
pub struct EntryLowering<'l, 'p, 'n> {
    pub lowering: &'l mut Lowering<'p, 'n>,
    pub graph: Graph,
    pub inputs: Vec<InputDecl>,
    /// The names that the expression at hand may use: the entry's, or a function's parameters.
    pub frame: Frame,
    /// The present value of each state tensor.
    pub current: BTreeMap<String, NodeId>,
    /// The leaf of each state tensor.
    pub leaves: BTreeMap<String, NodeId>,
    /// The input that holds the seed, once something draws.
    pub seed: Option<NodeId>,
    /// The declarations around the node that is being built, and what the node is for.
    pub scope: Vec<String>,
    pub role: Role,
    /// Scopes and streams that are taken.
    pub scopes: BTreeSet<String>,
    pub streams: BTreeSet<String>,
    minimises: bool,
    /// The networks that this entry updates, and where it says so first.
    pub updated: BTreeMap<String, Span>,
    /// Functions that are being expanded, from the outside in.
    pub expanding: Vec<String>,
    /// See [`EntryLowering::descend`].
    pub expansions: usize,
    pub depth: usize,
    pub exhausted: bool,
}

impl<'l, 'p, 'n> EntryLowering<'l, 'p, 'n> {
    pub fn new(lowering: &'l mut Lowering<'p, 'n>, name: &str) -> Self {
        EntryLowering {
            lowering,
            graph: Graph::new(name),
            inputs: Vec::new(),
            frame: Frame::new(),
            current: BTreeMap::new(),
            leaves: BTreeMap::new(),
            seed: None,
            scope: Vec::new(),
            role: Role::Forward,
            scopes: BTreeSet::new(),
            streams: BTreeSet::new(),
            minimises: false,
            updated: BTreeMap::new(),
            expanding: Vec::new(),
            expansions: 0,
            depth: 0,
            exhausted: false,
        }
    }

    pub fn d(&mut self) -> &mut Decoder {
        &mut self.lowering.d
    }

    /// The graph, as far as it can be made; what is wrong is with the decoder.
    pub fn lower(mut self, entry: &program::Entry<'n>) -> Entry {
        let before = self.d().diags.len();
        for input in &entry.inputs {
            self.input(input);
        }
        for step in entry.steps {
            self.step(step);
        }
        self.outputs(entry);
        if self.d().diags.len() == before {
            self.report_unused(entry);
        }
        if self.minimises {
            self.flag_non_finite();
            self.count_step(entry.name.span);
        }
        for (name, node) in &self.current {
            if self.leaves.get(name) != Some(node) {
                self.graph.updates.push(Update { state: name.clone(), node: *node });
            }
        }
        // Constants that were given another shape where they are used.
        self.graph.remove_dead();
        Entry { graph: self.graph, inputs: self.inputs }
    }

    /// An entry that learns counts its runs, so that the next one draws other numbers.
    fn count_step(&mut self, span: Span) -> Option<()> {
        let step = self.step_count(span)?;
        let one = self.add(Op::constant(1.0, DType::U32, []), &[], "one", span)?;
        let next = self.add(Op::Scalar(ScalarOp::AddU32), &[step, one], "next_step", span)?;
        self.current.insert(STEP.into(), next);
        Some(())
    }

    fn input(&mut self, input: &program::Input<'n>) {
        let name = &input.name.text;
        if [SEED, STEP].contains(&name.as_str()) {
            let what = if name == SEED { "the seed of all draws" } else { "the count of steps" };
            self.d().report(
                Diagnostic::new("reserved-name", format!("`{name}` is {what}"))
                    .label(input.name.span, "choose another name"),
            );
            return;
        }
        if !self.is_free(&input.name) {
            return;
        }
        let node = self.input_node(input);
        self.frame.insert(name.clone(), Binding { node, span: input.name.span, used: false });
    }

    fn input_node(&mut self, input: &program::Input<'n>) -> Option<NodeId> {
        let program = self.lowering.program;
        let shape = self.lowering.sizes.shape(program, input.shape, "a size", &mut self.lowering.d)?;
        let (rank, form, meaning) = match input.feed {
            Feed::Images => (4, "[examples, channels, height, width]", "images of the data set, in [-1, 1]"),
            Feed::Labels => (1, "[examples]", "class labels of the data set"),
            Feed::Seed | Feed::Caller => (shape.len(), "", "given by the caller"),
        };
        let name = input.name.text.clone();
        if rank != shape.len() {
            let message = format!("`{name}` has {} sizes instead of {rank}", shape.len());
            let expected = format!("expected {form}");
            self.d().report(Diagnostic::new("shape-mismatch", message).label(input.shape.span, expected));
            return None;
        }
        let dtype = if input.feed == Feed::Labels { DType::U32 } else { DType::F32 };
        let ty = Type::new(dtype, shape);
        let node = self.add(Op::Input { name: name.clone(), ty: ty.clone() }, &[], &name, input.span)?;
        let meaning = input.meaning.unwrap_or(meaning).to_string();
        self.inputs.push(InputDecl { name, ty, feed: input.feed, below: None, meaning });
        Some(node)
    }

    fn step(&mut self, step: &'n Node) {
        const STEPS: [&str; 2] = ["Let", "Minimise"];
        let Some((kind, mut args)) = self.d().call(step, "a step") else { return };
        match kind.text.as_str() {
            "Let" => {
                let name = args.required(self.d(), "name");
                let value = args.required(self.d(), "value");
                args.finish(self.d());
                let (Some(name), Some(value)) = (name, value) else { return };
                let Some(text) = self.d().str(name, "a name") else { return };
                self.bind(Name { text: text.into(), span: name.span }, value);
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
                    .label(kind.span, format!("expected {}", one_of(&STEPS)))
                    .did_you_mean(other, &STEPS);
                self.d().report(diagnostic);
            }
        }
    }

    /// Whether a new value may have this name; reports it where not.
    fn is_free(&mut self, name: &Name) -> bool {
        if let Some(first) = self.frame.get(&name.text).map(|b| b.span) {
            duplicate(self.d(), &name.text, name.span, "two values of this entry", first);
            return false;
        }
        let program = self.lowering.program;
        for (what, names) in [("a size", &program.sizes), ("a value of the program", &program.values)] {
            if let Some((first, _)) = names.iter().find(|(n, _)| n.text == name.text) {
                duplicate(self.d(), &name.text, name.span, &format!("{what} already"), first.span);
                return false;
            }
        }
        true
    }

    fn bind(&mut self, name: Name, value: &'n Node) {
        if !program::is_identifier(&name.text) {
            return program::bad_name(&name.text, name.span, self.d());
        }
        let is_free = self.is_free(&name);
        let before = self.graph.bound();
        self.scope.push(name.text.clone());
        let node = self.expr(value);
        self.scope.pop();
        // A value that was only given a second name keeps its first.
        if let Some(node) = node.filter(|n| n.index() >= before) {
            self.graph.rename(node, &name.text);
        }
        if is_free {
            self.frame.insert(name.text, Binding { node, span: name.span, used: false });
        }
    }

    fn outputs(&mut self, entry: &program::Entry<'n>) {
        let mut seen: BTreeMap<&str, Span> = BTreeMap::new();
        for name in &entry.outputs {
            if let Some(first) = seen.insert(&name.text, name.span) {
                duplicate(self.d(), &name.text, name.span, "two outputs", first);
                continue;
            }
            if let Some(binding) = self.frame.get_mut(&name.text) {
                binding.used = true;
                if let Some(node) = binding.node {
                    self.graph.outputs.push(Output { name: name.text.clone(), node });
                }
                continue;
            }
            let known: Vec<String> = self.frame.keys().cloned().collect();
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            let message = format!("the entry `{}` has no value `{}`", entry.name.text, name.text);
            let diagnostic =
                Diagnostic::new("unknown-output", message).label(name.span, "not declared").suggest(&name.text, &known);
            self.d().report(diagnostic);
        }
        if entry.outputs.is_empty() && !self.minimises {
            let diagnostic = Diagnostic::new(
                "no-results",
                format!("the entry `{}` gives nothing and learns nothing", entry.name.text),
            )
            .label(entry.outputs_span, "expected the name of a value")
            .help("name a `Let` or an input here, or add a `Minimise` to the steps");
            self.d().report(diagnostic);
        }
    }

    fn report_unused(&mut self, entry: &program::Entry<'n>) {
        let idle: Vec<(String, Span)> =
            self.frame.iter().filter(|(_, b)| !b.used).map(|(name, b)| (name.clone(), b.span)).collect();
        for (name, span) in idle {
            let what = if entry.inputs.iter().any(|i| i.name.text == name) { "input" } else { "value" };
            unused(self.d(), what, &name, span);
        }
    }
}
