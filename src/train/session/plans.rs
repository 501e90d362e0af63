//! The plan of a run: for what an epoch leaves, and compiled again from a checkpoint.

use super::{entry, examples, find};
use crate::compile::{self, CompileError, Compiled, Options};
use crate::kernel::target::{Precision, Target};
use crate::plan::Plan;
use crate::train::checkpoint::Checkpoint;
use crate::train::data::{Dataset, Split};
use std::collections::BTreeMap;

/// The entries that a data set needs besides those for whole batches, and the plan lacks, with their numbers of
/// examples: the last batch of an epoch, and the last of the test set.
pub fn leftovers(plan: &Plan, data: &Dataset) -> Vec<(&'static str, usize)> {
    let test = data.test.as_ref().map_or(0, Split::len);
    let needed = [(entry::TRAIN, data.train.len()), (entry::EVALUATE, test)].into_iter().filter_map(|(name, count)| {
        let left = plan.entry(name).map_or(0, |e| count.checked_rem(examples(e)).unwrap_or(0));
        (left > 0 && find(plan, name, left).is_none()).then_some((name, left))
    });
    needed.collect()
}

/// Adds the entries that a data set needs besides those for whole batches to a plan, as far as the program can be
/// compiled for so few examples. What is still missing then, a [`Session`](super::Session) leaves out and says so:
/// [`Session::left_out`](super::Session::left_out).
pub fn specialise(plan: &mut Plan, data: &Dataset) {
    for (entry, examples) in leftovers(plan, data) {
        if let Err(error) = compile::specialise(plan, entry, examples) {
            tracing::debug!("`{entry}` for {examples} examples: {error}");
        }
    }
}

/// A checkpoint's program, compiled as it was for the run but for the target and the precision, with `sets` on top of the
/// run's own.
///
/// # Errors
/// When the program cannot be compiled by this version, a `set` does not fit it, or it has warnings and they are
/// denied.
pub fn compile_again(
    checkpoint: &Checkpoint,
    sets: &[String],
    (target, precision): (Target, Precision),
    deny_warnings: bool,
) -> Result<Compiled, CompileError> {
    let meta = &checkpoint.meta;
    let mut all = meta.sets.clone();
    let mut odd = Vec::new();
    for set in sets {
        match set.split_once('=') {
            Some((name, value)) => drop(all.insert(name.trim().to_string(), value.trim().to_string())),
            // The compiler says what is wrong with it.
            None => odd.push(set.clone()),
        }
    }
    let sets = all.iter().map(|(name, value)| format!("{name}={value}")).chain(odd).collect();
    let options = Options {
        sets,
        optional: meta.optional.clone(),
        tuned: meta.tuned.clone(),
        fusion: meta.fusion,
        fast_math: meta.fast_math,
        convolutions: meta.convolutions,
        target,
        precision,
        deny_warnings,
        ..Options::default()
    };
    let name = format!("{} (in {})", meta.program, checkpoint.file.display());
    compile::compile(&name, &meta.text, &options, &mut |_| {})
}

/// The sizes and values that a plan was compiled with, as a checkpoint keeps them.
pub fn sets(plan: &Plan) -> BTreeMap<String, String> {
    let pairs = plan.source.overrides.iter().filter_map(|set| set.split_once('='));
    // As spaces around them mean nothing, they must not make two values of one name.
    pairs.map(|(name, value)| (name.trim().to_string(), value.trim().to_string())).collect()
}
