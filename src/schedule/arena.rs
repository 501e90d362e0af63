//! Places in the arena: live ranges, in-place reuse, offsets.

use super::ScheduleError;
use super::assemble::{Assembled, nests_reading, writes_where_it_reads};
use super::memory::{LiveRange, PlannerOptions, plan_memory};
use super::select::workspace;
use crate::kernel::schedule::{ALIGNMENT, BufferRole, Schedule, StateLayout, Storage};

/// Gives every buffer of sorted kernels its live range and its offset.
///
/// State comes first, at the places that `states` gives; the rest of the arena is planned. An input is
/// live from the start to its last use, an output from its writer to the end. A buffer that dies in the
/// kernel that writes another of its size, element for element, hands its place on.
///
/// # Errors
/// When the arena does not fit the address space.
pub fn lay_out(work: Assembled, states: &StateLayout) -> Result<Schedule, ScheduleError> {
    let Assembled { kernels, mut buffers, outputs, .. } = work;
    let end = kernels.len();
    let mut first_write = vec![None; buffers.len()];
    let mut last_use = vec![None; buffers.len()];
    for (position, kernel) in kernels.iter().enumerate() {
        for &b in &kernel.writes {
            first_write[b.index()].get_or_insert(position);
        }
        for b in workspace(kernel) {
            first_write[b.index()] = Some(position);
            last_use[b.index()] = Some(position);
        }
        for &b in kernel.reads.iter().chain(&kernel.writes) {
            last_use[b.index()] = Some(position);
        }
    }
    let mut output = vec![false; buffers.len()];
    outputs.iter().for_each(|o| output[o.buffer.index()] = true);
    let is_output = |b: usize| output[b];
    for (b, buffer) in buffers.iter_mut().enumerate() {
        let after_use = last_use[b].map_or(1, |p: usize| p + 1);
        buffer.live = match buffer.role {
            BufferRole::State(_) => (0, end),
            BufferRole::Input(_) if is_output(b) => (0, end.max(1)),
            BufferRole::Input(_) => (0, after_use),
            BufferRole::Output => (first_write[b].unwrap_or(0), end),
            BufferRole::Temporary | BufferRole::Workspace => (first_write[b].unwrap_or(0), after_use),
        };
    }

    // Which allocation each buffer is in: its own, or that of the buffer it takes over from.
    let mut allocation: Vec<usize> = (0..buffers.len()).collect();
    for (position, kernel) in kernels.iter().enumerate() {
        let reading = nests_reading(&kernel.body);
        for &result in &kernel.writes {
            let new = result.index();
            let fresh = buffers[new].live.0 == position
                && allocation[new] == new
                && matches!(buffers[new].role, BufferRole::Temporary | BufferRole::Output)
                && first_write[new] == Some(position);
            if !fresh {
                continue;
            }
            let dying = kernel.reads.iter().copied().find(|&read| {
                let old = &buffers[read.index()];
                matches!(old.role, BufferRole::Temporary | BufferRole::Input(_))
                    && !is_output(read.index())
                    && old.live.1 == position + 1
                    && old.live.0 < position
                    && old.bytes() == buffers[new].bytes()
                    && old.dtype.size() == buffers[new].dtype.size()
                    && [old.storage, buffers[new].storage] == [Storage::Elements; 2]
                    && kernel.writes.binary_search(&read).is_err()
                    && writes_where_it_reads(&kernel.body, &reading, read, result)
            });
            if let Some(old) = dying {
                allocation[new] = allocation[old.index()];
                buffers[old.index()].live.1 = position;
            }
        }
    }

    let mut ranges: Vec<Option<LiveRange>> = vec![None; buffers.len()];
    for (b, buffer) in buffers.iter().enumerate() {
        if matches!(buffer.role, BufferRole::State(_)) {
            continue;
        }
        let (start, end) = buffer.live;
        let range = ranges[allocation[b]].get_or_insert(LiveRange { start, end, size: buffer.bytes() });
        range.start = range.start.min(start);
        range.end = range.end.max(end);
    }
    let planned: Vec<LiveRange> = ranges.iter().flatten().copied().collect();
    let options = PlannerOptions { alignment: ALIGNMENT, ..PlannerOptions::default() };
    let plan = plan_memory(&planned, &options).map_err(|_| ScheduleError::TooLarge)?;
    let mut next = plan.offsets.iter();
    let offsets: Vec<Option<usize>> = ranges.iter().map(|r| r.and_then(|_| next.next().copied())).collect();
    for b in 0..buffers.len() {
        if let Some(offset) = offsets[allocation[b]]
            && !matches!(buffers[b].role, BufferRole::State(_))
        {
            buffers[b].offset = states.bytes.checked_add(offset).ok_or(ScheduleError::TooLarge)?;
        }
    }
    let total = |bytes: usize| states.bytes.checked_add(bytes).ok_or(ScheduleError::TooLarge);
    Ok(Schedule {
        kernels,
        buffers,
        outputs,
        arena_bytes: total(plan.arena_size)?,
        lower_bound: total(plan.lower_bound)?,
    })
}
