//! The order of kernels: dependencies first, then little memory.
//!
//! Two lists are made and the one with the lower peak is taken: the order of the program, and a
//! greedy one that always runs the ready kernel after which the fewest bytes are live. Finding the
//! best order is NP-hard (Sethi, SIAM J. Computing 1975).

use super::assemble::Assembled;
use super::select::workspace;
use crate::kernel::body::{BufferId, Kernel};
use crate::kernel::schedule::BufferRole;
use std::collections::BTreeSet;

/// Sorts the kernels of a schedule.
pub fn order(work: &mut Assembled) {
    let candidates = [program_order(work), greedy_order(work)];
    let Some(best) = candidates.into_iter().min_by_key(|order| peak(work, order)) else { return };
    apply(work, &best);
}

fn apply(work: &mut Assembled, order: &[usize]) {
    let mut position = vec![0; order.len()];
    order.iter().enumerate().for_each(|(p, &k)| position[k] = p);
    work.kernels = order.iter().map(|&k| work.kernels[k].clone()).collect();
    work.before = order.iter().map(|&k| work.before[k].iter().map(|&b| position[b]).collect()).collect();
}

/// Kernels as they were made, except where one must wait for a later one.
fn program_order(work: &Assembled) -> Vec<usize> {
    list(work, vec![0; work.kernels.len()], |_| Vec::new())
}

fn greedy_order(work: &Assembled) -> Vec<usize> {
    let buffer = |b: BufferId| &work.buffers[b.index()];
    let is_temporary = |b: BufferId| buffer(b).role == BufferRole::Temporary;
    let allocated = |b: BufferId| matches!(buffer(b).role, BufferRole::Temporary | BufferRole::Output);
    // For each buffer how many of its readers have yet to run, and the sum of their numbers: the number of the last one.
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
    list(work, changes, |ran| {
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

/// List scheduling: of the ready kernels the one of the least cost runs next, the first of several. `ran` gives
/// the kernels that cost less after one has run, and how much less.
fn list(work: &Assembled, mut cost: Vec<i128>, mut ran: impl FnMut(usize) -> Vec<(usize, i128)>) -> Vec<usize> {
    let n = work.kernels.len();
    let mut missing: Vec<usize> = work.before.iter().map(BTreeSet::len).collect();
    let mut after = vec![Vec::new(); n];
    for (k, before) in work.before.iter().enumerate() {
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

/// The largest sum of bytes of live temporaries, outputs and workspace.
fn peak(work: &Assembled, order: &[usize]) -> usize {
    let mut last_use = vec![0; work.buffers.len()];
    for (position, &k) in order.iter().enumerate() {
        let kernel = &work.kernels[k];
        kernel.reads.iter().chain(&kernel.writes).for_each(|b| last_use[b.index()] = position);
    }
    let mut seen = vec![false; work.buffers.len()];
    let (mut live, mut peak) = (0usize, 0usize);
    for (position, &k) in order.iter().enumerate() {
        let kernel = &work.kernels[k];
        let temporary =
            |b: &BufferId| matches!(work.buffers[b.index()].role, BufferRole::Temporary | BufferRole::Output);
        for &b in kernel.writes.iter().filter(|b| temporary(b)) {
            if !std::mem::replace(&mut seen[b.index()], true) {
                live += work.buffers[b.index()].bytes();
            }
        }
        let workspace: usize = workspace(kernel).map(|b| work.buffers[b.index()].bytes()).sum();
        peak = peak.max(live + workspace);
        let used: BTreeSet<BufferId> =
            kernel.reads.iter().chain(&kernel.writes).copied().filter(|b| temporary(b)).collect();
        for b in used {
            let buffer = &work.buffers[b.index()];
            if last_use[b.index()] == position && buffer.role == BufferRole::Temporary {
                live -= buffer.bytes();
            }
        }
    }
    peak
}
