//! The order of kernels: dependencies first, then little memory.
//!
//! Three lists are made and the one with the lowest peak is taken: the order of the program, a greedy one that always
//! runs the ready kernel after which the fewest bytes are live, and a greedy one from the end. Then kernels are moved
//! as long as that helps (`improve.rs`). Finding the best order is NP-hard (Sethi, SIAM J. Computing 1975).

use super::assemble::Assembled;
use super::improve::improve;
use super::live::Accesses;
use crate::kernel::body::{BufferId, Kernel};
use crate::kernel::schedule::BufferRole;
use std::collections::BTreeSet;

/// Sorts the kernels of a schedule. The first two lists are all where memory is not `scarce`.
pub fn order(work: &mut Assembled, scarce: bool) {
    let accesses = Accesses::of(work);
    let mut candidates = vec![program_order(work), greedy_order(work)];
    if scarce {
        candidates.push(backward_order(work));
    }
    let Some(best) = candidates.into_iter().min_by_key(|order| accesses.live(order).peak) else { return };
    apply(work, &best);
    if scarce {
        improve(work);
    }
}

/// Puts the kernels into this order.
pub(super) fn apply(work: &mut Assembled, order: &[usize]) {
    let mut position = vec![0; order.len()];
    order.iter().enumerate().for_each(|(p, &k)| position[k] = p);
    work.kernels = order.iter().map(|&k| work.kernels[k].clone()).collect();
    work.before = order.iter().map(|&k| work.before[k].iter().map(|&b| position[b]).collect()).collect();
}

/// Kernels as they were made, except where one must wait for a later one.
fn program_order(work: &Assembled) -> Vec<usize> {
    list(&work.before, vec![0; work.kernels.len()], |_| Vec::new())
}

fn greedy_order(work: &Assembled) -> Vec<usize> {
    let buffer = |b: BufferId| &work.buffers[b.index()];
    let is_temporary = |b: BufferId| buffer(b).role == BufferRole::Temporary;
    let allocated = |b: BufferId| matches!(buffer(b).role, BufferRole::Temporary | BufferRole::Output);
    // For each buffer how many of its readers have yet to run, and the sum of their numbers: the number of the last
    // one.
    let mut readers = vec![(0usize, 0usize); work.buffers.len()];
    for (k, kernel) in work.kernels.iter().enumerate() {
        for b in &kernel.reads {
            let (count, sum) = &mut readers[b.index()];
            (*count, *sum) = (*count + 1, *sum + k);
        }
    }
    let change = |kernel: &Kernel| -> i128 {
        let new: usize = kernel.writes.iter().filter(|&&b| allocated(b)).map(|&b| buffer(b).bytes()).sum();
        let freed: usize = (kernel.reads.iter().filter(|&&b| is_temporary(b) && readers[b.index()].0 == 1))
            .map(|&b| buffer(b).bytes())
            .sum();
        new as i128 - freed as i128
    };
    let changes = work.kernels.iter().map(change).collect();
    list(&work.before, changes, |ran| {
        let mut less = Vec::new();
        for &b in &work.kernels[ran].reads {
            let (count, sum) = &mut readers[b.index()];
            (*count, *sum) = (*count - 1, *sum - ran);
            if *count == 1 && is_temporary(b) {
                less.push((*sum, buffer(b).bytes() as i128));
            }
        }
        less
    })
}

/// What runs last is chosen first, and before it always the kernel before which the fewest bytes are live. So what is
/// made early for much later, such as the first values of a program's second half, is made as late as it can be.
fn backward_order(work: &Assembled) -> Vec<usize> {
    let n = work.kernels.len();
    // Kernels are numbered from the end, so that of several that cost the same the last is taken.
    let mirrored = |k: usize| n - 1 - k;
    let mut after = vec![BTreeSet::new(); n];
    for (k, before) in work.before.iter().enumerate() {
        for &b in before {
            after[mirrored(b)].insert(mirrored(k));
        }
    }
    let bytes = |b: BufferId| work.buffers[b.index()].bytes() as i128;
    let is_temporary = |b: &&BufferId| work.buffers[b.index()].role == BufferRole::Temporary;
    let allocated = |b: &&BufferId| matches!(work.buffers[b.index()].role, BufferRole::Temporary | BufferRole::Output);
    let change = |kernel: &Kernel| -> i128 {
        let needed: i128 = kernel.reads.iter().filter(is_temporary).map(|&b| bytes(b)).sum();
        let made: i128 = kernel.writes.iter().filter(allocated).map(|&b| bytes(b)).sum();
        needed - made
    };
    let changes = work.kernels.iter().rev().map(change).collect();
    let mut readers = vec![Vec::new(); work.buffers.len()];
    for (k, kernel) in work.kernels.iter().enumerate() {
        kernel.reads.iter().filter(is_temporary).for_each(|b| readers[b.index()].push(mirrored(k)));
    }
    let mut order = list(&after, changes, |ran| {
        let reads = work.kernels[mirrored(ran)].reads.iter();
        // The first time that a buffer is needed it becomes live, for its other readers too.
        reads.flat_map(|&b| std::mem::take(&mut readers[b.index()]).into_iter().map(move |k| (k, bytes(b)))).collect()
    });
    order.reverse();
    order.into_iter().map(mirrored).collect()
}

/// List scheduling: of the ready kernels the one of the least cost runs next, the first of several. `ran` gives
/// the kernels that cost less after one has run, and how much less.
fn list(
    before: &[BTreeSet<usize>],
    mut cost: Vec<i128>,
    mut ran: impl FnMut(usize) -> Vec<(usize, i128)>,
) -> Vec<usize> {
    let n = before.len();
    let mut missing: Vec<usize> = before.iter().map(BTreeSet::len).collect();
    let mut after = vec![Vec::new(); n];
    for (k, before) in before.iter().enumerate() {
        before.iter().for_each(|&b| after[b].push(k));
    }
    let mut ready: BTreeSet<(i128, usize)> = (0..n).filter(|&k| missing[k] == 0).map(|k| (cost[k], k)).collect();
    let mut order = Vec::with_capacity(n);
    while let Some((_, next)) = ready.pop_first() {
        order.push(next);
        for (k, less) in ran(next) {
            let was_ready = ready.remove(&(cost[k], k));
            cost[k] -= less;
            if was_ready {
                ready.insert((cost[k], k));
            }
        }
        for &k in &after[next] {
            missing[k] -= 1;
            if missing[k] == 0 {
                ready.insert((cost[k], k));
            }
        }
    }
    assert_eq!(order.len(), n, "kernels depend on each other in a cycle");
    order
}
