//! Static memory planning: live ranges and sizes in, arena offsets out.
//!
//! The problem is *dynamic storage allocation*: rectangles whose horizontal extent (the live range) is fixed are
//! moved vertically (the offset) until none overlap, as low as possible. It is NP-hard, and greedy placement, which
//! is right on most networks, is off by tens of per cent on the hard ones. So the planner works in three stages and
//! stops at the first that reaches the lower bound:
//!
//! 1. `problem`: time is compressed to its maximal cliques, and cut where nothing is live across;
//! 2. `greedy`: first-fit under a handful of orders, microseconds for an ordinary network, and nearly linear in its
//!    size (`occupied`);
//! 3. `search`: backtracking under a height limit (`tree`, `partial`), restarted with other orders and limits.
//!
//! Effort is counted in steps, never in seconds: equal inputs give equal plans on every machine.
//!
//! Nothing here is trusted: [`crate::plan::overlap`] checks every plan for overlaps by another method.

mod greedy;
pub mod instances;
mod occupied;
mod partial;
mod problem;
mod rng;
mod search;
mod sections;
#[cfg(test)]
mod tests;
mod tree;

use problem::Component;
use thiserror::Error;

/// A buffer to place: when it is live and how large it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LiveRange {
    /// First schedule position at which the buffer holds its value.
    pub start: usize,
    /// The position after the last one: the range is half-open. A buffer with `start == end` is never live: it
    /// shares its place, which is inside the arena all the same, with any other.
    pub end: usize,
    /// Bytes.
    pub size: usize,
}

/// How the planner works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannerOptions {
    /// Every offset and the arena size are multiples of this many bytes (at least 1, not necessarily a power of two).
    pub alignment: usize,
    /// Upper limit of the search's effort, in elementary steps (a buffer visited in an inner loop). 0: greedy alone.
    /// The default is about a second of one core, and is spent on hard inputs alone. No search is begun that could
    /// not place all buffers twice within it.
    pub max_steps: u64,
}

impl Default for PlannerOptions {
    fn default() -> Self {
        Self { alignment: 64, max_steps: 250_000_000 }
    }
}

/// Where each buffer lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Byte offset of each buffer, in the order of the input. 0 for buffers that are never live or of size 0.
    pub offsets: Vec<usize>,
    /// Bytes of the arena: the highest end of a buffer, rounded up to the alignment.
    pub arena_size: usize,
    /// The largest sum, over time, of the aligned sizes of live buffers, in bytes (or the size of one that is never
    /// live, if that is larger). No plan is smaller.
    pub lower_bound: usize,
    /// Search steps taken, 0 where a greedy order was good enough.
    pub steps: u64,
}

impl MemoryPlan {
    /// Arena size over lower bound: 1.0 is optimal. 1.0 for an empty plan too.
    pub fn ratio(&self) -> f64 {
        if self.lower_bound == 0 { 1.0 } else { self.arena_size as f64 / self.lower_bound as f64 }
    }
}

/// Why no plan was made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MemoryError {
    /// `alignment` was 0.
    #[error("the alignment must be at least 1 byte")]
    ZeroAlignment,
    /// `start > end`.
    #[error("buffer {buffer} ends (position {end}) before it starts (position {start})")]
    ReversedRange {
        /// Index in the input.
        buffer: usize,
        /// Its start.
        start: usize,
        /// Its end.
        end: usize,
    },
    /// The sizes, rounded up to the alignment, do not add up within the address space.
    #[error("buffer {buffer} ({size} bytes) makes the buffers larger, together, than the address space")]
    TooLarge {
        /// Index in the input of the buffer at which the sum overflowed.
        buffer: usize,
        /// Its size in bytes.
        size: usize,
    },
}

/// Finds offsets for `buffers` such that no two live at the same position share a byte, in an arena as small as the
/// effort allowed by `options` finds.
///
/// The result is the same for the same input, whatever the machine and its load.
///
/// # Errors
///
/// See [`MemoryError`]; a well-formed input whose sizes sum below a quarter of the address space always has a plan.
///
/// # Examples
///
/// ```
/// use gcc_gan::schedule::memory::{plan_memory, LiveRange, PlannerOptions};
///
/// let buffers = [
///     LiveRange { start: 0, end: 2, size: 256 },
///     LiveRange { start: 1, end: 3, size: 128 },
///     LiveRange { start: 2, end: 4, size: 256 }, // may take the place of the first
/// ];
/// let plan = plan_memory(&buffers, &PlannerOptions::default())?;
/// assert_eq!(plan.arena_size, 384);
/// assert_eq!(plan.arena_size, plan.lower_bound);
/// # Ok::<(), gcc_gan::schedule::memory::MemoryError>(())
/// ```
pub fn plan_memory(buffers: &[LiveRange], options: &PlannerOptions) -> Result<MemoryPlan, MemoryError> {
    let units = sizes_in_units(buffers, options.alignment)?;
    let components = problem::split(buffers, &units);
    let lower_bound =
        components.iter().map(Component::lower_bound).chain(never_live(buffers, &units)).max().unwrap_or(0);

    let mut placements: Vec<Vec<u64>> = components.iter().map(|c| greedy::best(c, lower_bound)).collect();

    // The tallest part first: once it is known how low that one goes, the others need go no lower.
    let mut by_height: Vec<(u64, usize)> =
        components.iter().zip(&placements).enumerate().map(|(i, (c, offsets))| (c.height(offsets), i)).collect();
    by_height.sort_by_key(|&(height, i)| (std::cmp::Reverse(height), i));
    let mut goal = lower_bound;
    let mut steps = 0;
    for (height, i) in by_height {
        if height <= goal {
            break;
        }
        let budget = options.max_steps.saturating_sub(steps);
        steps += search::improve(&components[i], &mut placements[i], goal, budget);
        goal = goal.max(components[i].height(&placements[i]));
    }

    // `goal` is now the height of the tallest part, or the lower bound where that is reached.
    let mut offsets = vec![0; buffers.len()];
    for (component, placement) in components.iter().zip(&placements) {
        for (rect, &offset) in component.rects.iter().zip(placement) {
            // Fits: every height is at most the sum of all sizes, which `sizes_in_units` bounds in bytes.
            offsets[rect.buffer] = offset as usize * options.alignment;
        }
    }
    Ok(MemoryPlan {
        offsets,
        arena_size: goal as usize * options.alignment,
        lower_bound: lower_bound as usize * options.alignment,
        steps,
    })
}

/// Sizes of the buffers that are in no component.
fn never_live<'a>(buffers: &'a [LiveRange], units: &'a [u64]) -> impl Iterator<Item = u64> + 'a {
    let empty = buffers.iter().zip(units).filter(|(b, _)| b.start == b.end);
    empty.map(|(_, &size)| size)
}

/// Sizes rounded up to whole alignment units. The search adds up to four heights, so the sum of all sizes is held
/// below a quarter of the address space, in bytes; nothing after this can overflow.
fn sizes_in_units(buffers: &[LiveRange], alignment: usize) -> Result<Vec<u64>, MemoryError> {
    if alignment == 0 {
        return Err(MemoryError::ZeroAlignment);
    }
    let mut sum = 0usize;
    let mut units = Vec::with_capacity(buffers.len());
    for (buffer, range) in buffers.iter().enumerate() {
        let &LiveRange { start, end, size } = range;
        if start > end {
            return Err(MemoryError::ReversedRange { buffer, start, end });
        }
        let count = size.div_ceil(alignment);
        sum = count
            .checked_mul(alignment)
            .and_then(|bytes| sum.checked_add(bytes))
            .filter(|&sum| sum <= usize::MAX / 4)
            .ok_or(MemoryError::TooLarge { buffer, size })?;
        units.push(count as u64);
    }
    Ok(units)
}
