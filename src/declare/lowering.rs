//! A program on its way to a module.

use super::diagnostic::Diagnostic;
use super::entry::{DataSizes, EntryLowering, Shared};
use super::expr;
use super::program::Program;
use super::ron::decode::Decoder;
use super::sizes::{Sizes, unused};
use crate::ir::{Entry, Module, StateDecl};
use std::collections::BTreeSet;

/// A program, its numbers and what was found to be wrong so far.
pub struct Lowering<'p, 'n> {
    program: &'p Program<'n>,
    sizes: Sizes,
    data_sizes: &'p DataSizes,
    d: Decoder,
    /// In the order in which the entries come to them.
    states: Vec<StateDecl>,
    /// Names of networks and functions that some entry uses.
    used: BTreeSet<String>,
}

impl<'p, 'n> Lowering<'p, 'n> {
    pub fn new(program: &'p Program<'n>, sizes: Sizes, data_sizes: &'p DataSizes, d: Decoder) -> Self {
        Lowering { program, sizes, data_sizes, d, states: Vec::new(), used: BTreeSet::new() }
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
        let mut entries = Vec::new();
        for entry in &program.entries {
            let shared = Shared {
                program,
                sizes: &self.sizes,
                data_sizes: self.data_sizes,
                d: &mut self.d,
                states: &mut self.states,
                used: &mut self.used,
            };
            entries.push(EntryLowering::new(shared, &entry.name.text).lower(entry));
        }
        entries
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
