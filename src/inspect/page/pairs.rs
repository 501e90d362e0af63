//! Which kernels of two programs are the same.

use super::data::RoleData;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// What a kernel is known by in both programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub name: String,
    pub kind: &'static str,
    pub role: RoleData,
    /// The node that it is built around: its name, and the scope of its layer.
    pub core: Option<Core>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Core {
    pub name: String,
    pub scope: String,
}

/// A kernel of A, of B, or of both, by position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pair {
    pub a: Option<usize>,
    pub b: Option<usize>,
}

/// Kernels of one name are the same; of those left, the ones around one node; then those that do work of one kind and
/// role for one layer, around values of one name if there are such. All are there once, A's in their order, then the rest
/// of B.
pub(super) fn pairs(a: &[Known], b: &[Known]) -> Vec<Pair> {
    let mut matched = Matched { of_a: vec![None; a.len()], is_free: vec![true; b.len()] };
    matched.round(a, b, |kernel| Some(&kernel.name));
    matched.round(a, b, |kernel| kernel.core.as_ref().map(|core| &core.name));
    matched.round(a, b, |kernel| Some((kernel.work()?, kernel.core.as_ref()?.stem())));
    matched.round(a, b, Known::work);
    let ours = matched.of_a.iter().enumerate().map(|(a, &b)| Pair { a: Some(a), b });
    let theirs = matched.is_free.iter().enumerate().filter(|(_, is_free)| **is_free);
    ours.chain(theirs.map(|(b, _)| Pair { a: None, b: Some(b) })).collect()
}

impl Known {
    /// Its kind, its role and its layer; an update's network is enough, since all parameters may be updated at once.
    fn work(&self) -> Option<(&'static str, &RoleData, &str)> {
        let scope = self.core.as_ref().map_or("", |core| &core.scope);
        match self.role {
            RoleData::Optimiser(_) => Some((self.kind, &self.role, "")),
            RoleData::Leaf | RoleData::Forward | RoleData::Gradient(_) => {
                (!scope.is_empty()).then_some((self.kind, &self.role, scope))
            }
        }
    }
}

impl Core {
    /// The last part of the name, without what passes put behind it.
    fn stem(&self) -> &str {
        let last = self.name.rsplit('/').next().unwrap_or(&self.name);
        let last = last.split_once('.').map_or(last, |(stem, _)| stem);
        last.strip_suffix("_bf16").unwrap_or(last)
    }
}

struct Matched {
    /// By a kernel of A, that of B.
    of_a: Vec<Option<usize>>,
    /// Whether a kernel of B is still to be matched.
    is_free: Vec<bool>,
}

impl Matched {
    /// Matches those that are left by a key, in their order.
    fn round<'k, K: Hash + Eq>(&mut self, a: &'k [Known], b: &'k [Known], key: impl Fn(&'k Known) -> Option<K>) {
        let mut by_key: HashMap<K, VecDeque<usize>> = HashMap::new();
        for (at, kernel) in b.iter().enumerate().filter(|(at, _)| self.is_free[*at]) {
            if let Some(key) = key(kernel) {
                by_key.entry(key).or_default().push_back(at);
            }
        }
        for (of, kernel) in self.of_a.iter_mut().zip(a).filter(|(of, _)| of.is_none()) {
            *of = key(kernel).and_then(|key| by_key.get_mut(&key)?.pop_front());
            if let Some(at) = *of {
                self.is_free[at] = false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(name: &str, kind: &'static str, role: RoleData, core: [&str; 2]) -> Known {
        Known { name: name.into(), kind, role, core: Some(Core { name: core[0].into(), scope: core[1].into() }) }
    }

    fn forward(name: &str, core: &str, scope: &str) -> Known {
        known(name, "transform", RoleData::Forward, [core, scope])
    }

    fn matched(a: &[Known], b: &[Known]) -> Vec<(Option<usize>, Option<usize>)> {
        pairs(a, b).into_iter().map(|pair| (pair.a, pair.b)).collect()
    }

    #[test]
    fn names_come_before_nodes_and_nodes_before_layers() {
        let a = [forward("k", "net/1-conv/x", "net/1-conv"), forward("l", "net/2-conv/y", "net/2-conv")];
        let b = [forward("l", "net/1-conv/x", "net/1-conv"), forward("m", "net/1-conv/x", "net/1-conv")];
        assert_eq!(matched(&a, &b), [(Some(0), Some(1)), (Some(1), Some(0))]);
    }

    /// In bf16 the same work is built around values that are rounded first.
    #[test]
    fn work_of_one_kind_for_one_layer_is_the_same() {
        let layer = "fake/generator/4-conv";
        let at = |last: &str| format!("{layer}/{last}");
        let a = [forward("r", &at("filter_bf16"), layer), forward("s", &at("output_bf16"), layer)];
        let b = [forward("u", &at("output.1"), layer), forward("v", &at("filter"), layer)];
        assert_eq!(matched(&a, &b), [(Some(0), Some(1)), (Some(1), Some(0))]);
        // Of another name, in their order.
        let c = [forward("w", &at("product"), layer), forward("z", &at("product"), "fake/generator/5-conv")];
        assert_eq!(matched(&a, &c), [(Some(0), Some(0)), (Some(1), None), (None, Some(1))]);
    }

    #[test]
    fn roles_and_kinds_are_kept_apart_and_what_has_no_layer_alone() {
        let gradient = || RoleData::Gradient("loss".into());
        let a = [known("a", "transform", gradient(), ["x.1", "net/1"]), forward("b", "c", "")];
        let b = [forward("d", "x.2", "net/1"), known("e", "contraction", gradient(), ["x.3", "net/1"])];
        let none = |k: usize| (Some(k), None);
        assert_eq!(matched(&a, &b), [none(0), none(1), (None, Some(0)), (None, Some(1))]);
        assert_eq!(matched(&a[1..], &[forward("f", "g", "")]), [none(0), (None, Some(0))]);
    }

    #[test]
    fn updates_of_one_network_are_the_same() {
        let update = |name: &str, of: &str| {
            known(name, "multi-tensor", RoleData::Optimiser(of.into()), ["reduce_max.7", &format!("{of}/{name}")])
        };
        let other = |name: &str, of: &str| Known { core: None, ..update(name, of) };
        let (a, b) = ([update("a", "g"), update("b", "d")], [other("c", "d"), other("e", "g")]);
        assert_eq!(matched(&a, &b), [(Some(0), Some(1)), (Some(1), Some(0))]);
    }
}
