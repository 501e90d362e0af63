//! Which stores are better not kept in caches.
//!
//! A line that is written through the caches is first read from memory, and drops another. Both are in vain where so much
//! else is read and written before the line is read again that no cache holds it then: activations that are kept for the
//! backward pass, and most of what a step leaves behind.

use crate::kernel::body::BufferId;
use crate::plan::Schedule;
use std::collections::{HashMap, HashSet};

/// So many bytes that kernels touch between a store and its first reader drive it out of the caches of a few cores.
const FAR: usize = 32 << 20;

/// For each kernel what it stores past the caches.
pub fn stores(schedule: &Schedule) -> Vec<HashSet<BufferId>> {
    further_than(FAR, schedule)
}

/// What is read only after so many bytes, or never.
fn further_than(far: usize, schedule: &Schedule) -> Vec<HashSet<BufferId>> {
    let buffer = |id: &BufferId| &schedule.buffers[id.index()];
    // From the last kernel on: bytes that it and those after it touch, and these bytes where each buffer is next read.
    let mut after = 0;
    let mut after_reader: HashMap<BufferId, usize> = HashMap::new();
    let mut stores: Vec<HashSet<BufferId>> = (schedule.kernels.iter().rev())
        .map(|kernel| {
            let is_far = |id: &BufferId| {
                let between = after_reader.get(id).map(|reader| after - reader);
                // What the kernel has just read is in a cache already, and may be the value itself.
                between.is_none_or(|between| between >= far)
                    && !kernel.reads.iter().any(|read| buffer(read).overlaps(buffer(id)))
            };
            let stores = kernel.writes.iter().copied().filter(is_far).collect();
            let written = kernel.writes.iter().filter(|id| !kernel.reads.contains(id));
            after += kernel.reads.iter().chain(written).map(|id| buffer(id).bytes()).sum::<usize>();
            after_reader.extend(kernel.reads.iter().map(|read| (*read, after)));
            stores
        })
        .collect();
    stores.reverse();
    stores
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::Output;
    use crate::kernel::target::Fusion;
    use crate::testing::conformance::{Fixture, plan_of};

    /// The results of a schedule of four kernels that go past the caches, where so many bytes drive them out.
    fn past_caches(bytes: usize) -> Vec<String> {
        let mut f = Fixture::new();
        let (x, y) = (f.input("x", &[64]), f.input("y", &[64]));
        let waits = f.builder().mul(x, x);
        let first = f.builder().mul(y, y);
        let second = f.builder().mul(first, first);
        let sum = f.builder().add(waits, second);
        for (name, node) in [("waits", waits), ("first", first), ("second", second), ("sum", sum)] {
            f.graph.outputs.push(Output { name: name.into(), node });
        }
        let plan = plan_of(&f.graph, Fusion::Off);
        let schedule = &plan.entries[0].schedule;
        assert_eq!(schedule.kernels.len(), 4);
        let name_of = |id: &BufferId| {
            let output = schedule.outputs.iter().find(|output| output.buffer == *id);
            output.map_or_else(String::new, |output| output.name.clone())
        };
        further_than(bytes, schedule).iter().flatten().map(name_of).collect()
    }

    #[test]
    fn what_waits_goes_past_the_caches_and_what_is_read_next_does_not() {
        // Each result has 256 bytes. Between the store of `waits` and its reader are two kernels, of 512 bytes each.
        assert_eq!(past_caches(usize::MAX), ["sum"], "nothing reads it");
        assert_eq!(past_caches(2 * 512), ["waits", "sum"]);
        assert_eq!(past_caches(2 * 512 + 1), ["sum"]);
        assert_eq!(past_caches(0), ["waits", "second", "sum"], "`first` lies where `y` did, which was just read");
    }
}
