//! Buffers that a kernel hands over: a result is written where an operand was read for the last time.

use crate::kernel::body::BufferId;
use crate::kernel::schedule::Schedule;

/// One buffer's place taken by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandOver {
    /// The kernel's position in the schedule.
    pub kernel: usize,
    /// What it reads; its contents are gone afterwards.
    pub old: BufferId,
    /// What it writes into the same bytes.
    pub new: BufferId,
}

/// Every hand-over of a schedule, in the order of its kernels. State that is updated where it is stays the same buffer
/// and is not among them.
pub fn hand_overs(schedule: &Schedule) -> Vec<HandOver> {
    let buffer = |b: BufferId| &schedule.buffers[b.index()];
    let mut found = Vec::new();
    for (kernel, k) in schedule.kernels.iter().enumerate() {
        for &new in &k.writes {
            let old = k.reads.iter().filter(|&&old| old != new && buffer(old).overlaps(buffer(new)));
            found.extend(old.map(|&old| HandOver { kernel, old, new }));
        }
    }
    found
}
