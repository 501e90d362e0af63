//! Which rule made what a pass changed, and how a pass was checked, as data.

use super::data::Numbered;
use crate::inspect::{History, Observed};
use crate::passes::{Compared, Rule};
use serde::Serialize;

/// A rule of a pass.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct RuleData {
    pub name: &'static str,
    /// What it rewrites, each as `before → after`.
    pub rewrites: &'static str,
}

/// The rules of all stages, each once.
#[derive(Debug, Default)]
pub(super) struct Rules {
    rules: Vec<&'static Rule>,
}

impl Rules {
    /// For a stage, by the index of a node's name the rules that made, replaced or removed it, in order.
    pub fn of_stage(&mut self, history: &History, stage: usize, numbered: &mut Numbered) -> Vec<(usize, Vec<usize>)> {
        let by_name = history.rules(stage);
        by_name
            .into_iter()
            .map(|(name, rules)| (numbered.name(&name), rules.into_iter().map(|rule| self.index(rule)).collect()))
            .collect()
    }

    /// A program's passes have some sixty rules in all.
    fn index(&mut self, rule: &'static Rule) -> usize {
        self.rules.iter().position(|known| *known == rule).unwrap_or_else(|| {
            self.rules.push(rule);
            self.rules.len() - 1
        })
    }

    pub fn data(self) -> Vec<RuleData> {
        self.rules.into_iter().map(|rule| RuleData { name: rule.name, rewrites: rule.rewrites }).collect()
    }
}

/// What was compared after a stage, where passes were checked against the interpreter.
pub(super) fn check(observed: &Observed, entry: &str, stage: &str) -> Option<Compared> {
    let mut checks = observed.compiled.summary.checks.iter();
    let found = checks.find(|check| check.entry == entry && check.sizes.is_empty() && check.pass == stage);
    found.map(|check| check.compared)
}
