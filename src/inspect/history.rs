//! A compilation with every stage kept, for those who look at how a program came to be what it is.

use crate::compile::{CompileError, Compiled, Options, Stage, compile};
use crate::ir::Graph;
use crate::passes::{Applied, Log};
use crate::plan::Plan;
use std::collections::BTreeMap;

/// One entry's graph at every stage, in order; the first is `declared`.
#[derive(Debug, Clone)]
pub struct History {
    pub entry: String,
    pub stages: Vec<(String, Graph)>,
    /// By a stage's position, which rule rewrote which node.
    logs: Vec<Log>,
}

/// A compiled program with its past.
#[derive(Debug)]
pub struct Observed {
    /// The program's file, for messages.
    pub file: String,
    pub text: String,
    pub sets: Vec<String>,
    pub histories: Vec<History>,
    pub compiled: Compiled,
    pub plan: Plan,
    /// Where each line of the text ends: what [`Observed::line_of`] looks in.
    line_ends: Vec<usize>,
}

/// Compiles a program and keeps every stage. Where a plan is given, its options are taken, and it stands for the one that
/// would be made: it may have been made by another version.
///
/// # Errors
/// When the program does not compile.
pub fn observe(file: &str, text: &str, sets: &[String], given: Option<Plan>) -> Result<Observed, CompileError> {
    let options = match &given {
        Some(plan) => Options::of(&plan.source),
        None => Options { sets: sets.to_vec(), ..Options::default() },
    };
    observe_with(file, text, &options, given)
}

/// As [`observe`], with all that may be asked of the compiler but specialisations: a history is of the program's own sizes.
///
/// # Errors
/// When the program does not compile.
pub fn observe_with(file: &str, text: &str, options: &Options, given: Option<Plan>) -> Result<Observed, CompileError> {
    let mut histories: Vec<History> = Vec::new();
    let options = Options { specialise: Vec::new(), stop_after: None, ..options.clone() };
    let mut compiled = compile(file, text, &options, &mut |stage: Stage| {
        let history = match histories.iter().position(|h| h.entry == stage.entry) {
            Some(at) => &mut histories[at],
            None => {
                histories.push(History { entry: stage.entry.into(), stages: Vec::new(), logs: Vec::new() });
                histories.last_mut().expect("it was pushed just now")
            }
        };
        history.stages.push((stage.name.into(), stage.graph.clone()));
        history.logs.push(stage.log.clone());
    })?;
    let made = compiled.plan.take();
    let plan = given.or(made).expect("a compilation that is not told to stop makes a plan");
    let line_ends = text.match_indices('\n').map(|(at, _)| at).collect();
    Ok(Observed { file: file.into(), text: text.into(), sets: options.sets, histories, compiled, plan, line_ends })
}

impl History {
    /// The graph that was scheduled.
    pub fn last(&self) -> &Graph {
        &self.stages.last().expect("every history begins with what was declared").1
    }

    /// By the names of nodes, the rules that made, replaced or removed them on the way to a stage. Nothing of a pass that
    /// is not a table of rules.
    pub fn rules(&self, stage: usize) -> BTreeMap<String, Vec<Applied>> {
        match (stage.checked_sub(1).and_then(|before| self.stages.get(before)), self.stages.get(stage)) {
            (Some((_, before)), Some((_, after))) => self.logs[stage].by_name(before, after),
            _ => BTreeMap::new(),
        }
    }
}

impl Observed {
    pub fn history(&self, entry: &str) -> Option<&History> {
        self.histories.iter().find(|h| h.entry == entry)
    }

    /// The entry that people mean when they name none: the training step, else the one with most to do.
    pub fn main_entry(&self) -> &str {
        main_entry(&self.plan)
    }

    /// The line of the program's text, counted from 1, that a byte is in.
    pub fn line_of(&self, offset: usize) -> usize {
        1 + self.line_ends.partition_point(|&end| end < offset)
    }
}

/// The entry that people mean when they name none: the training step, else the one with most to do.
pub fn main_entry(plan: &Plan) -> &str {
    let own = || plan.entries.iter().filter(|e| e.sizes.is_empty());
    let work = |e: &&crate::plan::EntryPlan| {
        e.schedule.kernels.iter().map(crate::kernel::cost::flops).fold(0, u64::saturating_add)
    };
    let train = own().find(|e| e.name == crate::train::session::entry::TRAIN);
    train.or_else(|| own().max_by_key(work)).map_or("", |e| e.name.as_str())
}
