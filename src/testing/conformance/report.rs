//! What comes of many cases on one device.

use super::case::{Case, Tolerances, Trial};
use super::{GROUPS, group, run};
use crate::exec::Device;
use crate::kernel::target::Strategy;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

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

    fn reason(&self, case: &str) -> Option<&'static str> {
        self.0.iter().find(|(excepted, _)| *excepted == case).map(|(_, reason)| *reason)
    }

    /// Exceptions whose case is not there, of the groups that are run and of no group.
    fn unknown(&self, cases: &[Prepared]) -> Vec<&'static str> {
        let group_of = |name: &'static str| name.split_once('/').map_or(name, |(group, _)| group);
        let is_of = |case: &Prepared, group: &str| case.name.split_once('/').is_some_and(|(of, _)| of == group);
        let mut unknown: Vec<&str> = self.0.iter().map(|(case, _)| *case).collect();
        unknown.retain(|case| cases.iter().all(|c| c.name != *case));
        unknown.retain(|case| {
            let of = group_of(case);
            !GROUPS.contains(&of) || cases.iter().any(|c| is_of(c, of)) && group(of).iter().all(|c| c.name != *case)
        });
        unknown
    }
}

/// A case with its trials, or why it has none.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The case's.
    pub name: String,
    pub trials: Result<Vec<Trial>, String>,
}

/// Compiles cases in each of the ways, for a device with these tolerances. Nothing is run on a device, so that one which
/// has to translate kernels can do it for all at once.
pub fn prepare(cases: &[Case], ways: &[(&str, Strategy)], tolerances: &Tolerances) -> Vec<Prepared> {
    let trials = |case: &Case| guarded(|| case.compile(ways, tolerances));
    cases.iter().map(|case| Prepared { name: case.name.clone(), trials: trials(case) }).collect()
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

/// What came of cases, in their order.
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

    /// The names of cases that failed.
    pub fn failed(&self) -> Vec<&str> {
        let failed = self.outcomes.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Failed(_)));
        failed.map(|(name, _)| name.as_str()).collect()
    }
}

impl fmt::Display for Report {
    /// A line for each case, and how many passed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (case, outcome) in &self.outcomes {
            match outcome {
                Outcome::Passed(_) => writeln!(f, "  {case}: passed")?,
                Outcome::Failed(problem) => writeln!(f, "  {case}: FAILED: {problem}")?,
                Outcome::Excepted { reason, problem } => writeln!(f, "  {case}: excepted, {reason} ({problem})")?,
                Outcome::NeedlessException => writeln!(f, "  {case}: passes, so the exception must go")?,
            }
        }
        for case in &self.unknown {
            writeln!(f, "  {case}: an exception for a case that is not there")?;
        }
        let passed = self.outcomes.iter().filter(|(_, o)| matches!(o, Outcome::Passed(_))).count();
        writeln!(f, "{}: {passed} of {} cases passed", self.device, self.outcomes.len())
    }
}

/// Runs cases that were prepared. One that fails, or panics, does not keep the others from running.
pub fn report(device: &dyn Device, cases: &[Prepared], exceptions: &Exceptions) -> Report {
    let outcome = |case: &Prepared| match (digest(device, case), exceptions.reason(&case.name)) {
        (Ok(digest), None) => Outcome::Passed(digest),
        (Ok(_), Some(_)) => Outcome::NeedlessException,
        (Err(problem), Some(reason)) => Outcome::Excepted { reason, problem },
        (Err(problem), None) => Outcome::Failed(problem),
    };
    let outcomes = cases.iter().map(|case| (case.name.clone(), outcome(case))).collect();
    Report { device: device.name(), outcomes, unknown: exceptions.unknown(cases) }
}

/// Runs every trial of a case, as long as they pass.
fn digest(device: &dyn Device, case: &Prepared) -> Result<u64, String> {
    let mut all = 0u64;
    for trial in case.trials.as_ref().map_err(Clone::clone)? {
        let bits = guarded(|| run(device, trial).map_err(|e| format!("{}: {e}", trial.way)))?;
        all = all.rotate_left(1) ^ bits;
    }
    Ok(all)
}

/// A panic as an error.
fn guarded<T>(make: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(make)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(format!("panicked: {text}"))
    })
}
