//! The conformance suite: what every device must compute, as named cases that are run against the interpreter.
//!
//! A device passes when [`run_group`] finds no problem in any of [`GROUPS`]. What it can't do, or does otherwise, is listed
//! as an exception by the name of the case, with the reason; an exception that is no longer needed is a problem too.

mod case;
mod contractions;
mod draws;
mod fixture;
mod half;
mod movement;
mod nests;
mod random;
mod reference;
mod scalars;
mod states;
mod steps;
#[cfg(test)]
mod tests;

pub use case::{Agreement, Case};
pub use reference::plan_of;

use crate::exec::Device;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Cases on one subject.
type Group = (&'static str, fn() -> Vec<Case>);

/// Every group by name, with what makes its cases.
pub const GROUPS: &[Group] = &[
    ("scalars", scalars::ordinary),
    ("special_values", scalars::special),
    ("elementwise", nests::elementwise),
    ("reductions", nests::reductions),
    ("multi_tensor", nests::multi_tensor),
    ("matrix_products", contractions::matrix_products),
    ("convolutions", contractions::convolutions),
    ("contraction_fusion", contractions::fusion),
    ("layouts", movement::layouts),
    ("sliced_operands", movement::sliced_operands),
    ("draws", draws::draws),
    ("bf16", half::bf16),
    ("states", states::states),
    ("odd_sizes", nests::odd_sizes),
    ("random_graphs", random::graphs),
    ("training_steps", steps::training_steps),
];

/// Cases that a device is known not to pass, with the reasons.
#[derive(Debug, Clone, Default)]
pub struct Exceptions(Vec<(&'static str, &'static str)>);

impl Exceptions {
    /// A device that passes everything.
    pub fn none() -> Exceptions {
        Exceptions::default()
    }

    /// With one more: the case's whole name, as `convolutions/conv2d …`.
    pub fn with(mut self, case: &'static str, reason: &'static str) -> Exceptions {
        self.0.push((case, reason));
        self
    }
}

/// What came of one case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// With a digest of the bits of all results, by which runs can be compared.
    Passed(u64),
    Failed(String),
    /// It failed, as was expected.
    Excepted {
        reason: &'static str,
        problem: String,
    },
    /// It passed, though it is listed as an exception.
    NeedlessException,
}

/// What came of the cases of one or more groups, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub device: String,
    pub outcomes: Vec<(String, Outcome)>,
    /// Exceptions whose case is not there.
    pub unknown: Vec<&'static str>,
}

impl Report {
    /// Whether every case passed or is rightly an exception.
    pub fn is_ok(&self) -> bool {
        let fine = |outcome: &Outcome| matches!(outcome, Outcome::Passed(_) | Outcome::Excepted { .. });
        self.unknown.is_empty() && self.outcomes.iter().all(|(_, outcome)| fine(outcome))
    }
}

impl fmt::Display for Report {
    /// One line for all that passed, and one for each case that did not.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let passed = self.outcomes.iter().filter(|(_, o)| matches!(o, Outcome::Passed(_))).count();
        writeln!(f, "{}: {passed} of {} cases passed", self.device, self.outcomes.len())?;
        for (case, outcome) in &self.outcomes {
            match outcome {
                Outcome::Passed(_) => {}
                Outcome::Failed(problem) => writeln!(f, "  {case}: {problem}")?,
                Outcome::Excepted { reason, problem } => writeln!(f, "  {case}: excepted, {reason} ({problem})")?,
                Outcome::NeedlessException => writeln!(f, "  {case}: passes, so the exception must go")?,
            }
        }
        self.unknown.iter().try_for_each(|case| writeln!(f, "  {case}: an exception for a case that is not there"))
    }
}

/// Runs every case of every group.
pub fn run(device: &dyn Device, exceptions: &Exceptions) -> Report {
    let reports = GROUPS.iter().map(|(group, _)| run_group(device, group, exceptions));
    let mut all = Report { device: device.name(), outcomes: Vec::new(), unknown: Vec::new() };
    for report in reports {
        all.outcomes.extend(report.outcomes);
        all.unknown.extend(report.unknown);
    }
    let known = |case: &str| GROUPS.iter().any(|(group, _)| in_group(case, group));
    all.unknown.extend(exceptions.0.iter().map(|(case, _)| *case).filter(|case| !known(case)));
    all
}

/// Runs the cases of one of [`GROUPS`]. Exceptions that belong to others are left alone.
///
/// # Panics
/// When there is no such group.
pub fn run_group(device: &dyn Device, group: &str, exceptions: &Exceptions) -> Report {
    let found = GROUPS.iter().find(|(name, _)| *name == group);
    let (_, cases) = found.unwrap_or_else(|| panic!("there is no group `{group}`"));
    let mut unknown: Vec<_> = exceptions.0.iter().map(|(case, _)| *case).filter(|c| in_group(c, group)).collect();
    let outcomes = (cases().into_iter())
        .map(|case| {
            let name = format!("{group}/{}", case.name);
            unknown.retain(|excepted| *excepted != name);
            let reason = exceptions.0.iter().find(|(excepted, _)| *excepted == name).map(|(_, reason)| *reason);
            let outcome = match (outcome_of(&case, device), reason) {
                (Ok(digest), None) => Outcome::Passed(digest),
                (Ok(_), Some(_)) => Outcome::NeedlessException,
                (Err(problem), Some(reason)) => Outcome::Excepted { reason, problem },
                (Err(problem), None) => Outcome::Failed(problem),
            };
            (name, outcome)
        })
        .collect();
    Report { device: device.name(), outcomes, unknown }
}

fn in_group(case: &str, group: &str) -> bool {
    case.split_once('/').is_some_and(|(of, _)| of == group)
}

/// A case that panics has failed, and the others are still run.
fn outcome_of(case: &Case, device: &dyn Device) -> Result<u64, String> {
    catch_unwind(AssertUnwindSafe(|| case.run(device))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(format!("panicked: {text}"))
    })
}
