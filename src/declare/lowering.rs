//! A program on its way to a module.

use super::decode::Decoder;
use super::diagnostic::{Diagnostic, Span};
use super::entry::EntryLowering;
use super::expr;
use super::program::Program;
use super::sizes::{Sizes, unused};
use crate::ir::{Entry, Module, NodeId, StateDecl};
use std::collections::{BTreeMap, BTreeSet};

/// The name of the state that counts steps.
pub const STEP: &str = "step";
/// The name of the input that holds the seed.
pub const SEED: &str = "seed";

/// What all entries share: numbers, state, and what was found to be wrong.
pub struct Lowering<'p, 'n> {
    pub program: &'p Program<'n>,
    pub sizes: Sizes,
    pub d: Decoder,
    /// In the order in which the entries come to them.
    pub states: Vec<StateDecl>,
    /// Names of networks and functions that some entry uses.
    pub used: BTreeSet<String>,
}

impl<'p, 'n> Lowering<'p, 'n> {
    pub fn new(program: &'p Program<'n>, sizes: Sizes, d: Decoder) -> Self {
        Lowering { program, sizes, d, states: Vec::new(), used: BTreeSet::new() }
    }

    /// The module, or everything that is wrong.
    pub fn lower(mut self) -> Result<Module, Vec<Diagnostic>> {
        let entries = self.entries();
        self.report_unused();
        self.finish(entries)
    }

    /// [`Lowering::lower`] for an entry that needs only a part of the program.
    pub fn lower_call(mut self) -> Result<Module, Vec<Diagnostic>> {
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
        }
        program.entries.iter().map(|entry| EntryLowering::new(self, &entry.name.text).lower(entry)).collect()
    }

    fn finish(self, mut entries: Vec<Entry>) -> Result<Module, Vec<Diagnostic>> {
        if !self.d.diags.is_empty() {
            return Err(self.d.diags);
        }
        entries.insert(0, super::init::entry(&self.states));
        Ok(Module { name: self.program.name.clone(), states: self.states, entries })
    }

    /// Reports what no entry uses. Not where something else is wrong: what is used only in an expression
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

/// What a name stands for: a node, or nothing where its expression is wrong.
#[derive(Debug, Clone, Copy)]
pub struct Binding {
    pub node: Option<NodeId>,
    /// Where the name is given.
    pub span: Span,
    pub used: bool,
}

/// Names that expressions may use.
pub type Frame = BTreeMap<String, Binding>;
