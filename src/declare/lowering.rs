//! A program on its way to a module.

use super::diagnostic::{Diagnostic, Span};
use super::entry::{EntryLowering, Shared, is_reserved};
use super::expr;
use super::optimisers::Trained;
use super::program::Program;
use super::ron::decode::Decoder;
use super::sizes::{Sizes, unused};
use crate::ir::{Entry, Module, StateDecl, StateRole};
use std::collections::BTreeSet;

/// A module, and what does not keep it from being used.
pub struct Lowered {
    pub module: Module,
    pub warnings: Vec<Diagnostic>,
}

/// A program, its numbers and what was found to be wrong so far.
pub struct Lowering<'p, 'n> {
    program: &'p Program<'n>,
    sizes: Sizes,
    d: Decoder,
    /// In the order in which the entries come to them.
    states: Vec<StateDecl>,
    /// Names of networks and functions that some entry uses.
    used: BTreeSet<String>,
    trained: Trained,
}

impl<'p, 'n> Lowering<'p, 'n> {
    pub fn new(program: &'p Program<'n>, sizes: Sizes, d: Decoder) -> Self {
        Lowering { program, sizes, d, states: Vec::new(), used: BTreeSet::new(), trained: Trained::default() }
    }

    /// The module, or everything that is wrong.
    pub fn lower(mut self) -> Result<Lowered, Vec<Diagnostic>> {
        let entries = self.entries();
        self.report_unused();
        self.report_untrained();
        self.finish(entries)
    }

    /// [`Lowering::lower`] for an entry that needs only a part of the program.
    pub fn lower_call(mut self) -> Result<Lowered, Vec<Diagnostic>> {
        let entries = self.entries();
        self.finish(entries)
    }

    fn entries(&mut self) -> Vec<Entry> {
        let program = self.program;
        for function in &program.functions {
            if expr::is_operation(&function.name.text) {
                let message = format!("`{}` is the name of an operation", function.name.text);
                self.d.report(
                    Diagnostic::new("duplicate-name", message)
                        .label(function.name.span, "a function needs a name of its own"),
                );
            }
            // They are inputs where the function is run by itself: what no input may be called, no parameter may.
            for param in &function.params {
                let _ = is_reserved(param, &mut self.d) || program.is_number(param, &mut self.d);
            }
        }
        let mut entries = Vec::new();
        for entry in &program.entries {
            let shared = Shared {
                program,
                sizes: &self.sizes,
                d: &mut self.d,
                states: &mut self.states,
                used: &mut self.used,
                trained: &mut self.trained,
            };
            entries.push(EntryLowering::new(shared, &entry.name.text).lower(entry));
        }
        entries
    }

    fn finish(self, mut entries: Vec<Entry>) -> Result<Lowered, Vec<Diagnostic>> {
        if !self.d.diags.is_empty() {
            return Err(self.d.diags);
        }
        entries.insert(0, super::init::entry(&self.states));
        let module = Module { name: self.program.name.clone(), states: self.states, entries };
        Ok(Lowered { module, warnings: self.d.warnings })
    }

    /// Warns of parameters that no `Minimise` of their network gives a gradient, once for each layer.
    fn report_untrained(&mut self) {
        if !self.d.diags.is_empty() {
            return;
        }
        for (network, at) in &self.trained.networks {
            let prefix = format!("{network}/");
            let idle = |s: &&StateDecl| {
                s.role == StateRole::Parameter
                    && s.name.starts_with(&prefix)
                    && !self.trained.parameters.contains(&s.name)
            };
            let mut layers: Vec<(Option<Span>, Vec<String>)> = Vec::new();
            for state in self.states.iter().filter(idle) {
                match layers.iter_mut().find(|(span, _)| *span == state.span) {
                    Some((_, names)) => names.push(format!("`{}`", state.name)),
                    None => layers.push((state.span, vec![format!("`{}`", state.name)])),
                }
            }
            for (span, names) in layers {
                let verb = if names.len() == 1 { "gets" } else { "get" };
                let message = format!("{} {verb} no gradient", names.join(" and "));
                let warning = Diagnostic::new("no-gradient", message)
                    .label(span.unwrap_or(*at), "this layer learns nothing")
                    .label(*at, "no loss depends on it in a way that can be differentiated")
                    .help("a comparison, `Sign` or `Detach` on the way to the loss lets no gradient through");
                self.d.warn(warning);
            }
        }
        self.report_fixed();
    }

    /// Warns of networks with parameters that keep their first values while others are trained, except where their names
    /// start with `_`.
    fn report_fixed(&mut self) {
        if self.trained.networks.is_empty() {
            return;
        }
        for network in &self.program.networks {
            let name = &network.name.text;
            let prefix = format!("{name}/");
            let has_parameters =
                self.states.iter().any(|s| s.role == StateRole::Parameter && s.name.starts_with(&prefix));
            if has_parameters && !name.starts_with('_') && !self.trained.networks.contains_key(name) {
                let warning = Diagnostic::new("not-trained", format!("nothing trains the network `{name}`"))
                    .label(network.name.span, "its parameters keep their first values")
                    .help(
                        "name it in a `Minimise`, or let its name start with `_` if it is meant to stay as it begins",
                    );
                self.d.warn(warning);
            }
        }
    }

    /// Warns of what no entry uses. Not where something else is wrong: what is used only in an expression
    /// that could not be read would be called unused.
    fn report_unused(&mut self) {
        if !self.d.diags.is_empty() {
            return;
        }
        let program = self.program;
        self.sizes.report_unused(program, &mut self.d);
        for network in program.networks.iter().filter(|n| !self.used.contains(&n.name.text)) {
            unused(&mut self.d, "network", &network.name.text, network.name.span);
        }
        for function in program.functions.iter().filter(|f| !self.used.contains(&f.name.text)) {
            unused(&mut self.d, "function", &function.name.text, function.name.span);
        }
    }
}
