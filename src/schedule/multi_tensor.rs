//! Multi-tensor kernels: the updates of all parameters of a network by one optimiser, all draws of bits, or all states that
//! are rounded, in one launch.

use super::fuse::FusedKernel;
use super::value::ValueId;
use crate::kernel::body::Body;
use std::cmp::Reverse;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::hash::Hash;

/// Merges kernels with the same key, all of them nests, wherever no path leads from one to the other; returns all
/// kernels in a topological order.
pub fn multi_tensor<K: Eq + Hash>(kernels: Vec<(Option<K>, FusedKernel)>) -> Vec<FusedKernel> {
    let mut writer = HashMap::new();
    for (k, (_, kernel)) in kernels.iter().enumerate() {
        writer.extend(kernel.members.iter().map(|&m| (ValueId::of(m), k)));
    }
    let reads: Vec<BTreeSet<usize>> = (kernels.iter().enumerate())
        .map(|(k, (_, kernel))| {
            kernel.body.reads().filter_map(|value| writer.get(value).copied()).filter(|&w| w != k).collect()
        })
        .collect();
    let set_of = sets(&kernels, &reads);
    let mut sets: BTreeMap<usize, FusedKernel> = BTreeMap::new();
    for (k, (_, kernel)) in kernels.into_iter().enumerate() {
        match sets.entry(set_of[k]) {
            Entry::Vacant(entry) => drop(entry.insert(kernel)),
            Entry::Occupied(mut entry) => {
                let into = entry.get_mut();
                let (Body::Nests(nests), Body::Nests(more)) = (&mut into.body, kernel.body) else {
                    unreachable!("only nests have a key")
                };
                nests.extend(more);
                into.members.extend(kernel.members);
            }
        }
    }
    // By the set that is needed, those that need it, and by a set how many it still needs.
    let mut needed_by: HashMap<usize, Vec<usize>> = HashMap::new();
    let mut missing: HashMap<usize, usize> = HashMap::new();
    let mut needs: BTreeMap<usize, BTreeSet<usize>> = sets.keys().map(|&set| (set, BTreeSet::new())).collect();
    for (k, reads) in reads.iter().enumerate() {
        let needed = reads.iter().map(|&r| set_of[r]).filter(|&r| r != set_of[k]);
        needs.entry(set_of[k]).or_default().extend(needed);
    }
    let mut ready = BinaryHeap::new();
    for (set, needs) in needs {
        missing.insert(set, needs.len());
        if needs.is_empty() {
            ready.push(Reverse(set));
        }
        needs.into_iter().for_each(|needed| needed_by.entry(needed).or_default().push(set));
    }
    let mut result = Vec::new();
    while let Some(Reverse(next)) = ready.pop() {
        result.extend(sets.remove(&next));
        for user in needed_by.remove(&next).unwrap_or_default() {
            let missing = missing.entry(user).or_default();
            *missing -= 1;
            if *missing == 0 {
                ready.push(Reverse(user));
            }
        }
    }
    assert!(sets.is_empty(), "multi-tensor kernels that need each other");
    result
}

/// For each kernel the set that it is in, named by the first kernel of the set. The kernels are in a topological order, so
/// a set of earlier ones never needs a later one: only paths the other way matter.
fn sets<K: Eq + Hash>(kernels: &[(Option<K>, FusedKernel)], reads: &[BTreeSet<usize>]) -> Vec<usize> {
    debug_assert!(reads.iter().enumerate().all(|(k, reads)| reads.iter().all(|&read| read < k)));
    let mut set_of: Vec<usize> = (0..kernels.len()).collect();
    let mut members: Vec<Vec<usize>> = (0..kernels.len()).map(|k| vec![k]).collect();
    // Whether a set needs one with a key, or is one: no path that matters leads through any other.
    let mut keyed = vec![false; kernels.len()];
    let mut open: HashMap<&K, Vec<usize>> = HashMap::new();
    // By a set, the kernel for which it was last found to be needed.
    let mut needed_for = vec![usize::MAX; kernels.len()];
    for (k, (key, _)) in kernels.iter().enumerate() {
        let Some(key) = key else {
            keyed[k] = reads[k].iter().any(|&read| keyed[set_of[read]]);
            continue;
        };
        let mut stack = vec![k];
        while let Some(set) = stack.pop() {
            for read in members[set].iter().flat_map(|&member| &reads[member]) {
                let needed = set_of[*read];
                if keyed[needed] && std::mem::replace(&mut needed_for[needed], k) != k {
                    stack.push(needed);
                }
            }
        }
        let open = open.entry(key).or_default();
        match open.iter().rev().find(|&&set| needed_for[set] != k) {
            Some(&set) => {
                set_of[k] = set;
                members[set].push(k);
            }
            None => {
                keyed[k] = true;
                open.push(k);
            }
        }
    }
    set_of
}
