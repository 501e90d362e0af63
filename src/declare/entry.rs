//! Entries: inputs, steps and outputs to one graph each.

use super::diagnostic::{Diagnostic, Span};
use super::expr::Expressions;
use super::nodes::{Nodes, SEED, STEP};
use super::optimisers::Trained;
use super::program::{self, InputType, Program, duplicate};
use super::ron::decode::Decoder;
use super::ron::{Name, Node};
use super::rows::{Kind, Param, Row, find, names};
use super::sizes::{Sizes, unused};
use crate::ir::{Entry, InputDecl, NodeId, Output, StateDecl, Type};
use std::collections::{BTreeMap, BTreeSet};

/// Takes a step of an entry. Arguments are in the order of the row.
type Take = for<'e, 'l, 'n> fn(&'e mut EntryLowering<'l, 'n>, Span, &[&'n Node]);

/// The steps of an entry.
pub const STEPS: &[Row<Take>] = &[
    Row {
        name: "Let",
        params: &[
            Param { name: "name", kind: Kind::Written("a name in quotes"), default: None },
            Param { name: "value", kind: Kind::Value, default: None },
        ],
        meaning: "Gives a value a name, for the steps after it and the outputs.",
        example: r#"Let("scores", Call("net", "images", Training))"#,
        expand: |entry, _, args| entry.bind(args),
    },
    Row {
        name: "Minimise",
        params: &[
            Param { name: "loss", kind: Kind::Value, default: None },
            Param { name: "network", kind: Kind::Written("the name of a network"), default: None },
            Param { name: "optimiser", kind: Kind::Written("an optimiser"), default: None },
        ],
        meaning: "Updates the parameters of a network so that a loss becomes smaller; what follows sees them updated.",
        example: r#"Minimise(Mean(Call("net", "images", Training)), "net", Adam(lr: 1e-3))"#,
        expand: |entry, span, args| entry.minimise(span, args),
    },
];

/// What the entries of a program share: its numbers, its state, and what was found to be wrong.
pub struct Shared<'l, 'n> {
    pub program: &'l Program<'n>,
    pub sizes: &'l Sizes,
    pub d: &'l mut Decoder,
    pub states: &'l mut Vec<StateDecl>,
    /// Names of networks and functions that some entry uses.
    pub used: &'l mut BTreeSet<String>,
    pub trained: &'l mut Trained,
}

/// One entry on its way to a graph.
pub struct EntryLowering<'l, 'n> {
    expressions: Expressions<'l, 'n>,
    trained: &'l mut Trained,
    minimises: bool,
    /// The networks that this entry updates, and where it says so first.
    updated: BTreeMap<String, Span>,
}

/// Whether the executor gives something under this name; reports it where so.
pub fn is_reserved(name: &Name, d: &mut Decoder) -> bool {
    let what = match name.text.as_str() {
        SEED => "the seed of all draws",
        STEP => "the count of steps",
        _ => return false,
    };
    let message = format!("`{}` is {what}", name.text);
    d.report(Diagnostic::new("reserved-name", message).label(name.span, "choose another name"));
    true
}

impl<'l, 'n> EntryLowering<'l, 'n> {
    pub fn new(shared: Shared<'l, 'n>, name: &str) -> Self {
        let Shared { program, sizes, d, states, used, trained } = shared;
        let nodes = Nodes::new(name, d, states);
        EntryLowering {
            expressions: Expressions::new(nodes, program, sizes, used),
            trained,
            minimises: false,
            updated: BTreeMap::new(),
        }
    }

    fn d(&mut self) -> &mut Decoder {
        self.expressions.d()
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
            self.expressions.nodes().flag_non_finite(&self.updated);
            self.expressions.nodes().count_step(entry.name.span);
        }
        self.expressions.into_nodes().finish()
    }

    fn input(&mut self, input: &program::Input<'n>) {
        if is_reserved(&input.name, self.d()) || !self.is_free(&input.name) {
            return;
        }
        let node = self.input_node(input);
        self.expressions.bind(&input.name, node);
    }

    fn input_node(&mut self, input: &program::Input<'n>) -> Option<NodeId> {
        let shape = self.expressions.shape(input.shape, "`shape`")?;
        let InputType { feed, dtype, form, meaning } = input.ty;
        let name = input.name.text.clone();
        if let Some(form) = form
            && form.len() != shape.len()
        {
            let message = format!("`{name}` has {} sizes instead of {}", shape.len(), form.len());
            let expected = format!("expected [{}]", form.join(", "));
            self.d().report(Diagnostic::new("shape-mismatch", message).label(input.shape.span, expected));
            return None;
        }
        let meaning = input.meaning.unwrap_or(meaning).to_string();
        let decl = InputDecl { name, ty: Type::new(dtype, shape), feed, below: None, meaning };
        self.expressions.nodes().input(decl, input.span)
    }

    fn step(&mut self, step: &'n Node) {
        let Some((kind, mut args)) = self.d().call(step, "a step") else { return };
        let Some(row) = find(STEPS, &kind.text) else {
            let diagnostic = Diagnostic::new("unknown-step", format!("there is no step `{}`", kind.text))
                .label(kind.span, format!("expected {}", super::diagnostic::one_of(&names(STEPS))))
                .did_you_mean(&kind.text, &names(STEPS));
            self.d().report(diagnostic);
            return;
        };
        let given: Vec<Option<&'n Node>> = row.params.iter().map(|p| args.required(self.d(), p.name)).collect();
        args.finish(self.d());
        if let Some(given) = given.into_iter().collect::<Option<Vec<_>>>() {
            (row.expand)(self, step.span, &given);
        }
    }

    fn minimise(&mut self, span: Span, args: &[&'n Node]) {
        self.minimises = true;
        if let [loss, network, optimiser] = args
            && let Some(network) = self.expressions.minimise(span, loss, network, optimiser, self.trained)
        {
            self.updated.entry(network.to_string()).or_insert(span);
        }
    }

    /// Whether a new value may have this name; reports it where not.
    fn is_free(&mut self, name: &Name) -> bool {
        if let Some(first) = self.expressions.bound().get(&name.text).map(|b| b.span) {
            duplicate(self.d(), &name.text, name.span, "two values of this entry", first);
            return false;
        }
        let program = self.expressions.program();
        !program.is_number(name, self.d())
    }

    fn bind(&mut self, args: &[&'n Node]) {
        let [name, value] = args else { return };
        let Some(text) = self.d().str(name, "`name`") else { return };
        let name = Name { text: text.into(), span: name.span };
        if !program::is_identifier(&name.text) {
            return program::bad_name(&name.text, name.span, self.d());
        }
        let is_free = self.is_free(&name);
        let nodes = self.expressions.nodes();
        let before = nodes.graph.bound();
        nodes.push_scope(&name.text);
        let node = self.expressions.expr(value);
        let nodes = self.expressions.nodes();
        nodes.pop_scope();
        // A value that was only given a second name keeps its first.
        if let Some(node) = node.filter(|n| n.index() >= before) {
            nodes.graph.rename(node, &name.text);
        }
        if is_free {
            self.expressions.bind(&name, node);
        }
    }

    fn outputs(&mut self, entry: &program::Entry<'n>) {
        let mut seen: BTreeMap<&str, Span> = BTreeMap::new();
        for name in &entry.outputs {
            if let Some(first) = seen.insert(&name.text, name.span) {
                duplicate(self.d(), &name.text, name.span, "two outputs", first);
                continue;
            }
            if let Some(binding) = self.expressions.look_up(&name.text) {
                if let Some(node) = binding.node {
                    self.expressions.nodes().graph.outputs.push(Output { name: name.text.clone(), node });
                }
                continue;
            }
            let known: Vec<String> =
                self.expressions.bound().keys().filter(|k| !seen.contains_key(k.as_str())).cloned().collect();
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
            self.expressions.bound().iter().filter(|(_, b)| !b.used).map(|(name, b)| (name.clone(), b.span)).collect();
        for (name, span) in idle {
            let what = if entry.inputs.iter().any(|i| i.name.text == name) { "input" } else { "value" };
            unused(self.d(), what, &name, span);
        }
    }
}
