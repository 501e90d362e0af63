//! Which rule made what a pass changed, and how a pass was checked, as data.

use super::data::Numbered;
use crate::inspect::{History, Observed};
use crate::passes::{Applied, Compared};
use serde::Serialize;

/// One of the rewrites of a pass's rule.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct RuleData {
    pub name: &'static str,
    /// As `before → after`.
    pub rewrite: &'static str,
}

/// What rules did in all stages, each rewrite once.
#[derive(Debug, Default)]
pub(super) struct Rules {
    rules: Vec<Applied>,
}

impl Rules {
    /// For a stage, by the index of a node's name the rewrites that made, replaced or removed it, in order.
    pub fn of_stage(&mut self, history: &History, stage: usize, numbered: &mut Numbered) -> Vec<(usize, Vec<usize>)> {
        let by_name = history.rules(stage);
        by_name
            .into_iter()
            .map(|(name, rules)| (numbered.name(&name), rules.into_iter().map(|by| self.index(by)).collect()))
            .collect()
    }

    /// Passes have some hundred rewrites in all.
    fn index(&mut self, by: Applied) -> usize {
        self.rules.iter().position(|known| *known == by).unwrap_or_else(|| {
            self.rules.push(by);
            self.rules.len() - 1
        })
    }

    pub fn data(self) -> Vec<RuleData> {
        self.rules.into_iter().map(|by| RuleData { name: by.rule.name, rewrite: by.rewrite }).collect()
    }
}

/// What was compared after a stage, where passes were checked against the interpreter.
pub(super) fn check(observed: &Observed, entry: &str, stage: &str) -> Option<Compared> {
    let mut checks = observed.compiled.summary.checks.iter();
    let found = checks.find(|check| check.entry == entry && check.sizes.is_empty() && check.pass == stage);
    found.map(|check| check.compared)
}
