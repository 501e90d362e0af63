//! Entries: inputs, steps and outputs to one graph each.

use super::diagnostic::{Diagnostic, Span};
use super::expr::Expressions;
use super::nodes::{Nodes, SEED, STEP};
use super::optimisers::Trained;
use super::program::{self, InputType, Program, duplicate};
use super::ron::decode::Decoder;
use super::ron::{Name, Node};
use super::rows::{Arg, Kind, Param, Row, find, names};
use super::sizes::{Sizes, unused};
use crate::ir::{Entry, InputDecl, NodeId, Output, StateDecl, Type};
use std::collections::{BTreeMap, BTreeSet};

/// Takes a step of an entry. Arguments are in the order of the row; none stands for one that is left out.
type Take = for<'e, 'l, 'n> fn(&'e mut EntryLowering<'l, 'n>, Span, &[Option<&'n Node>]) -> Option<()>;

const NETWORK: Param = Param { name: "network", kind: Kind::Written("the name of a network"), default: None };
const DECAY: Param = Param { name: "decay", kind: Kind::Fraction, default: None };

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
            Param { name: "network", kind: Kind::Written("the name of a network, or a list of names"), default: None },
            Param { name: "optimiser", kind: Kind::Written("an optimiser"), default: None },
        ],
        meaning: "Updates the parameters of networks so that a loss becomes smaller; what follows sees them updated.",
        example: r#"Minimise(Mean(Call("net", "images", Training)), "net", Adam(lr: 1e-3))"#,
        expand: |entry, span, args| entry.minimise(span, args),
    },
    Row {
        name: "Average",
        params: &[NETWORK, DECAY, Param { name: "ramp", kind: Kind::Flag, default: Some(|| Arg::Flag(false)) }],
        meaning: "Keeps a moving average of a network's parameters, for `gcc-gan sample --ema`; `ramp` shortens it at first.",
        example: r#"Average("net", 0.999)"#,
        expand: |entry, span, args| entry.average(span, args),
    },
    Row {
        name: "Repeat",
        params: &[
            Param { name: "times", kind: Kind::Size, default: None },
            Param { name: "steps", kind: Kind::Written("a list of steps"), default: None },
            Param {
                name: "each",
                kind: Kind::Written("names for the parts of values, as in {\"real\": \"images\"}"),
                default: Some(|| Arg::Nothing),
            },
        ],
        meaning: "Steps that are taken several times, with new draws; `each` names an equal part of a value for each time.",
        example: r#"Repeat(times: 2, each: {"part": "images"}, steps: [Let("z", Call("net", "part", Training))])"#,
        expand: |entry, span, args| entry.repeat(span, args),
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
    /// Whether its runs are counted: whatever learns or averages is.
    changes_state: bool,
    /// The networks that this entry updates, and where it says so first.
    updated: BTreeMap<String, Span>,
    /// Those that it averages.
    averaged: BTreeMap<String, Span>,
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
            changes_state: false,
            updated: BTreeMap::new(),
            averaged: BTreeMap::new(),
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
        if self.changes_state {
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
        let decl = InputDecl { name, ty: Type::new(dtype, shape), feed, below: None, from_end: false, meaning };
        self.expressions.nodes().input(decl, input.span)
    }

    fn step(&mut self, step: &'n Node) {
        let Some((kind, args)) = self.d().call(step, "a step") else { return };
        let Some(row) = find(STEPS, &kind.text) else {
            let diagnostic = Diagnostic::new("unknown-step", format!("there is no step `{}`", kind.text))
                .label(kind.span, format!("expected {}", super::diagnostic::one_of(&names(STEPS))))
                .did_you_mean(&kind.text, &names(STEPS));
            self.d().report(diagnostic);
            return;
        };
        let before = self.d().diags.len();
        let given = self.expressions.all_given(row.params, args);
        if let Some(given) = given
            && (self.d().diags.len() == before || row.name != "Repeat")
        {
            (row.expand)(self, step.span, &given);
        }
    }

    fn minimise(&mut self, span: Span, args: &[Option<&'n Node>]) -> Option<()> {
        self.changes_state = true;
        let [Some(loss), Some(networks), Some(optimiser)] = *args else { return None };
        for network in self.expressions.minimise(span, loss, networks, optimiser, self.trained)? {
            self.updated.entry(network.to_string()).or_insert(span);
        }
        Some(())
    }

    fn average(&mut self, span: Span, args: &[Option<&'n Node>]) -> Option<()> {
        self.changes_state = true;
        let [Some(network), Some(decay), ramp] = *args else { return None };
        let ramp = match ramp {
            Some(ramp) => self.d().bool(ramp, "`ramp`"),
            None => Some(false),
        };
        let decay = self.expressions.argument(&DECAY, decay);
        let (name, at) = self.expressions.network_name(network)?;
        if let Some(first) = self.averaged.insert(name.to_string(), span) {
            let diagnostic = Diagnostic::new("duplicate-name", format!("`{name}` is averaged twice in this entry"))
                .label(span, "averaged again here")
                .label(first, "first averaged here")
                .help("a `Repeat` around it counts too: put it behind");
            self.d().report(diagnostic);
            return None;
        }
        let Arg::Fraction(decay) = decay? else { return None };
        self.expressions.nodes().average_network(name, (decay, ramp?), span, at)
    }

    /// Steps taken several times. The names of the last time stay.
    fn repeat(&mut self, span: Span, args: &[Option<&'n Node>]) -> Option<()> {
        let [Some(times), Some(steps), each] = *args else { return None };
        let times = self.expressions.size(times, "`times`");
        let steps = self.d().list(steps, "`steps`")?;
        let parts = match each {
            Some(each) => self.parts(each, times?)?,
            None => Vec::new(),
        };
        let outside: BTreeSet<String> = self.expressions.bound().keys().cloned().collect();
        for time in 0..times? {
            // Names of the time before are free again.
            self.expressions.forget_all_but(&outside);
            let nodes = self.expressions.nodes();
            nodes.descend(span)?;
            for (name, whole, at) in &parts {
                let part = self.expressions.nodes().part(*whole, (time, times?), &name.text, *at);
                self.expressions.bind(name, part);
            }
            let before = self.d().diags.len();
            steps.iter().for_each(|step| self.step(step));
            let is_wrong = self.d().diags.len() > before;
            let nodes = self.expressions.nodes();
            nodes.leave();
            // What is wrong once is wrong each time.
            if is_wrong || nodes.is_exhausted() {
                break;
            }
        }
        Some(())
    }

    /// The names that `each` gives, each with the value that it names parts of.
    fn parts(&mut self, each: &'n Node, times: usize) -> Option<Vec<(Name, NodeId, Span)>> {
        let named = self.d().named_map(each, "`each`")?;
        let mut parts = Vec::new();
        for (name, value) in named {
            if !program::is_identifier(&name.text) {
                program::bad_name(&name.text, name.span, self.d());
                return None;
            }
            let whole = self.expressions.expr(value);
            if !self.is_free(&name) {
                return None;
            }
            let whole = whole?;
            let ty = self.expressions.nodes().ty(whole).clone();
            if ty.shape.first().is_none_or(|first| !first.is_multiple_of(times)) {
                let message = format!("this cannot be taken in {times} equal parts");
                let diagnostic = Diagnostic::new("shape-mismatch", message)
                    .label(value.span, format!("it is {ty}"))
                    .help("parts are taken along the first dimension, which must be a multiple of `times`");
                self.d().report(diagnostic);
                return None;
            }
            parts.push((name, whole, value.span));
        }
        Some(parts)
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

    fn bind(&mut self, args: &[Option<&'n Node>]) -> Option<()> {
        let [Some(name), Some(value)] = *args else { return None };
        let text = self.d().str(name, "`name`")?;
        let name = Name { text: text.into(), span: name.span };
        if !program::is_identifier(&name.text) {
            program::bad_name(&name.text, name.span, self.d());
            return None;
        }
        let is_free = self.is_free(&name);
        let nodes = self.expressions.nodes();
        let before = nodes.graph.bound();
        nodes.enter(&name.text);
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
        Some(())
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
        if entry.outputs.is_empty() && !self.changes_state {
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
