//! Where a GPU's memory is full: which batch would fit.

use anyhow::{Error, anyhow};
use gcc_gan::compile::{Options, compile};
use gcc_gan::declare::{self, Number};
use gcc_gan::exec::{ExecError, cuda};
use gcc_gan::inspect::bytes;
use gcc_gan::plan::Source;

/// Whether what did not fit can be given other sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sizes {
    Free,
    /// Those of a run.
    Kept,
}

/// An error, and where it is that a device's memory is too small for a plan of this source, a batch for which it is not.
pub fn explained(error: Error, source: &Source, sizes: Sizes) -> Error {
    let full = error.chain().find_map(|cause| match cause.downcast_ref() {
        Some(&ExecError::DeviceFull { free, .. }) => Some(free),
        _ => None,
    });
    let Some(free) = full else { return error };
    // Code, and graphs of launches, need some too.
    let Some(smaller) = fitting(source, free - free / 16) else {
        return anyhow!(
            "{error:#}; no smaller batch was found that fits, so only a GPU with more free memory would do"
        );
    };
    let (sets, taken) = (smaller.sets.join(" "), bytes(smaller.bytes));
    match sizes {
        Sizes::Free => anyhow!("{error:#}; with `{sets}` it takes {taken}, which fits"),
        Sizes::Kept => {
            anyhow!("{error:#}; a run keeps its sizes, but a new one with `{sets}` takes {taken}, which fits")
        }
    }
}

/// A way to compile a program.
struct Smaller {
    /// Arguments.
    sets: Vec<String>,
    /// Of the arena.
    bytes: usize,
}

/// The largest batch that leaves an arena of at most `room` bytes, of those that are half, a quarter and so on.
fn fitting(source: &Source, room: usize) -> Option<Smaller> {
    let Source { name, text, overrides, .. } = source;
    let sizes = |sets: &[String]| -> Option<Vec<(String, usize)>> {
        let size = |(name, number)| match number {
            Number::Size(size) => Some((name, size)),
            Number::Value(_) => None,
        };
        Some(declare::sizes(name, text, sets).ok()?.into_iter().filter_map(size).collect())
    };
    let examples = declare::data_size(name, text, None).ok()?;
    let is_batch = |name: &str| examples.as_deref() == Some(name) || name == "batch" || name.ends_with("_batch");
    let largest = sizes(overrides)?.into_iter().filter(|(name, _)| is_batch(name)).map(|(_, size)| size).max()?;
    let halves = std::iter::successors(Some(largest / 2), |batch| Some(batch / 2)).take_while(|&batch| batch > 0);
    halves.into_iter().find_map(|batch| {
        let mut sets: Vec<String> = Vec::new();
        // One that is declared as another follows it.
        while let Some((name, _)) = (sizes(&[overrides.as_slice(), &sets].concat())?.into_iter())
            .find(|(name, size)| is_batch(name) && *size > batch)
        {
            sets.push(format!("{name}={batch}"));
        }
        let options = Options::of(source);
        let options = Options { sets: [options.sets.as_slice(), &sets].concat(), ..options };
        let bytes = cuda::arena_bytes(&compile(name, text, &options, &mut |_| {}).ok()?.plan?);
        let sets = sets.into_iter().map(|set| format!("--set {set}")).collect();
        (bytes <= room).then_some(Smaller { sets, bytes })
    })
}
