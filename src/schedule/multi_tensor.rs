//! Multi-tensor kernels: the updates of all parameters of a network by one optimiser, in one launch.

use super::fuse::FusedKernel;
use super::value::ValueId;
use crate::kernel::body::Body;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Puts kernels with the same key, all of them nests, into one, wherever no path leads from one to the other; gives all
/// in a topological order.
pub fn multi_tensor(kernels: Vec<(Option<String>, FusedKernel)>) -> Vec<FusedKernel> {
    let mut writer = HashMap::new();
    for (k, (_, kernel)) in kernels.iter().enumerate() {
        writer.extend(kernel.members.iter().map(|&m| (ValueId::of(m), k)));
    }
    let reads: Vec<BTreeSet<usize>> = (kernels.iter().enumerate())
        .map(|(k, (_, kernel))| {
            kernel.body.reads().filter_map(|value| writer.get(value).copied()).filter(|&w| w != k).collect()
        })
        .collect();
    // Each kernel's set, named by the first in it.
    let mut set_of: Vec<usize> = (0..kernels.len()).collect();
    let mut open: Vec<(&String, usize)> = Vec::new();
    for (k, (key, _)) in kernels.iter().enumerate() {
        let Some(key) = key else { continue };
        let fits = |set: usize| !reaches(&reads, &set_of, set, k) && !reaches(&reads, &set_of, k, set);
        match open.iter().rev().find(|&&(other, set)| other == key && fits(set)) {
            Some(&(_, set)) => set_of[k] = set,
            None => open.push((key, k)),
        }
    }
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
    let mut missing: BTreeMap<usize, BTreeSet<usize>> = sets.keys().map(|&set| (set, BTreeSet::new())).collect();
    for (k, reads) in reads.iter().enumerate() {
        let needed = reads.iter().map(|&r| set_of[r]).filter(|&r| r != set_of[k]);
        missing.entry(set_of[k]).or_default().extend(needed);
    }
    let mut result = Vec::new();
    while let Some(next) = missing.iter().find(|(_, needed)| needed.is_empty()).map(|(&set, _)| set) {
        missing.remove(&next);
        for needed in missing.values_mut() {
            needed.remove(&next);
        }
        result.extend(sets.remove(&next));
    }
    assert!(sets.is_empty(), "multi-tensor kernels that need each other");
    result
}

/// Whether a kernel of the set `to` needs, over any way, one of the set `from`.
fn reaches(reads: &[BTreeSet<usize>], set_of: &[usize], from: usize, to: usize) -> bool {
    let mut seen = HashSet::from([to]);
    let mut stack = vec![to];
    while let Some(set) = stack.pop() {
        let members = (0..reads.len()).filter(|&k| set_of[k] == set);
        for read in members.flat_map(|k| &reads[k]) {
            if set_of[*read] == from {
                return true;
            }
            if seen.insert(set_of[*read]) {
                stack.push(set_of[*read]);
            }
        }
    }
    false
}
