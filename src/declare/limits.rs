//! What an entry's inputs may hold where they are indices: the bound goes from the operation that takes an index back to
//! the inputs, through all that only moves or converts values. An index that is computed has no bound.

use super::nodes::Nodes;
use crate::ir::{Graph, NodeId, Op, Type};
use crate::scalar::ScalarOp;
use std::collections::{BTreeMap, BTreeSet};

/// Which whole numbers are indices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// The number of places.
    pub below: usize,
    /// Whether negative numbers count from the end.
    pub from_end: bool,
}

impl Bound {
    fn and(self, other: Bound) -> Bound {
        Bound { below: self.below.min(other.below), from_end: self.from_end && other.from_end }
    }

    fn or(self, other: Bound) -> Bound {
        Bound { below: self.below.max(other.below), from_end: self.from_end || other.from_end }
    }
}

/// The bounds of labels, and those of numbers, which may mean something out of range too.
#[derive(Debug, Default)]
pub struct Limits {
    labels: Found,
    numbers: Found,
}

impl Limits {
    /// The bound of each input.
    pub fn of_inputs(self, graph: &Graph) -> BTreeMap<String, Bound> {
        let mut bounds = self.numbers.of_inputs(graph, |ty| ty.dtype.is_real());
        bounds.extend(self.labels.of_inputs(graph, |ty| !ty.dtype.is_real()));
        bounds
    }
}

/// The bounds that were found so far.
#[derive(Debug, Default)]
struct Found {
    bounds: BTreeMap<NodeId, Bound>,
    /// Slices that have a bound, by what they are taken of.
    slices: BTreeMap<NodeId, BTreeSet<NodeId>>,
}

impl Found {
    /// Says that the values of `x` are indices within a bound.
    fn add(&mut self, graph: &Graph, x: NodeId, bound: Bound) {
        let mut stack = vec![(x, bound)];
        while let Some((x, mut bound)) = stack.pop() {
            if let Some(&other) = self.bounds.get(&x) {
                bound = bound.and(other);
                if bound == other {
                    continue;
                }
            }
            self.bounds.insert(x, bound);
            let operands = graph.operands(x);
            match graph.op(x) {
                Op::Scalar(ScalarOp::ToReal)
                | Op::Reshape { .. }
                | Op::Transpose { .. }
                | Op::Broadcast { .. }
                | Op::Concat { .. }
                | Op::Reverse { .. }
                | Op::Detach => stack.extend(operands.into_iter().map(|operand| (operand, bound))),
                // What is outside a slice may be no index.
                Op::Slice { .. } => {
                    for of in operands {
                        self.slices.entry(of).or_default().insert(x);
                    }
                }
                _ => {}
            }
        }
    }

    /// The bound of each input of some types: where all of a value is taken in slices, each of which has a bound, it has
    /// the widest of them.
    fn of_inputs(mut self, graph: &Graph, is_wanted: fn(&Type) -> bool) -> BTreeMap<String, Bound> {
        // Operands come before what is made of them, so the slices of what comes last are all known.
        while let Some((whole, slices)) = self.slices.pop_last() {
            if let Some(bound) = self.bound_of_whole(graph, whole, &slices) {
                self.add(graph, whole, bound);
            }
        }
        let named = self.bounds.iter().filter_map(|(&node, &bound)| match graph.op(node) {
            Op::Input { name, ty } if is_wanted(ty) => Some((name.clone(), bound)),
            _ => None,
        });
        named.collect()
    }

    fn bound_of_whole(&self, graph: &Graph, whole: NodeId, slices: &BTreeSet<NodeId>) -> Option<Bound> {
        let shape = graph.shape(whole);
        // Of slices along one dimension, where each begins and ends.
        let mut by_axis: BTreeMap<usize, Vec<(usize, usize, Bound)>> = BTreeMap::new();
        for slice in slices {
            let (Op::Slice { start, end }, Some(&bound)) = (graph.op(*slice), self.bounds.get(slice)) else { continue };
            let mut cut = (0..shape.len()).filter(|&d| (start[d], end[d]) != (0, shape[d]));
            if let (axis, None) = (cut.next().unwrap_or(0), cut.next())
                && axis < shape.len()
            {
                by_axis.entry(axis).or_default().push((start[axis], end[axis], bound));
            }
        }
        by_axis.into_iter().find_map(|(axis, mut parts)| {
            parts.sort_by_key(|&(start, ..)| start);
            let mut covered = 0;
            let mut widest: Option<Bound> = None;
            for (start, end, bound) in parts {
                if start > covered {
                    return None;
                }
                covered = covered.max(end);
                widest = Some(widest.map_or(bound, |other| other.or(bound)));
            }
            widest.filter(|_| covered == shape[axis])
        })
    }
}

impl Nodes<'_> {
    /// Says that values of `x` are taken for indices of `places` places; `from_end`: or for negative ones, from the end.
    pub fn limit_indices(&mut self, x: NodeId, places: usize, from_end: bool) {
        self.limits.numbers.add(&self.graph, x, Bound { below: places, from_end });
        self.limit_labels(x, places);
    }

    /// Says that labels in `x` are below `classes`, where numbers may be something else.
    pub fn limit_labels(&mut self, x: NodeId, classes: usize) {
        self.limits.labels.add(&self.graph, x, Bound { below: classes, from_end: false });
    }
}

#[cfg(test)]
mod tests {
    use crate::declare;

    /// The bounds of the inputs `x`, `labels` and `table` of an entry that gives this value.
    fn bounds(inputs: &str, value: &str) -> Vec<(String, Option<usize>, bool)> {
        let text = format!(
            r#"Program(
                name: "p",
                networks: {{
                    "by_class": Network(input: [], layers: [Embedding(10, 4)]),
                    "by_two": Network(input: [2], layers: [Embedding(6, 4)]),
                }},
                entries: {{ "e": Entry(inputs: {{ {inputs} }}, steps: [Let("y", {value})], outputs: ["y"]) }},
            )"#
        );
        let module = declare::load("p", &text, &[], &[]).unwrap_or_else(|error| panic!("{value}: {error}"));
        let entry = module.entries.iter().find(|e| e.graph.name == "e").unwrap();
        entry.inputs.iter().map(|i| (i.name.clone(), i.below, i.from_end)).collect()
    }

    /// The bound of the input that an expression takes indices from.
    fn bound(input: &str, value: &str) -> Option<(usize, bool)> {
        let found = bounds(&format!(r#""x": {input}, "table": Tensor([7, 3])"#), value);
        found.into_iter().find(|(name, ..)| name == "x").and_then(|(_, below, from_end)| Some((below?, from_end)))
    }

    #[test]
    fn a_bound_goes_back_through_what_only_moves_indices() {
        for (value, expected) in [
            (r#"OneHot("x", 5)"#, 5),
            (r#"OneHot(ToReal("x"), 5)"#, 5),
            (r#"Call("by_class", ToReal("x"), Inference)"#, 10),
            (r#"Call("by_class", "x", Inference)"#, 10),
            (r#"Call("by_two", Reshape("x", [2, 2]), Inference)"#, 6),
            (r#"Gather("table", Reverse(Transpose(Reshape("x", [2, 2]))))"#, 7),
            (r#"Gather("table", Concat([ToReal("x"), Iota([2], 0)], 0))"#, 7),
            (r#"Add(OneHot("x", 5), OneHot(Detach(ToReal("x")), 5))"#, 5),
            (r#"Add(Gather("table", "x"), Slice(OneHot("x", 5), [2], [5], [1]))"#, 5),
            (r#"NegativeLogLikelihoodLoss(Broadcast(0.0, [4, 3]), "x")"#, 3),
        ] {
            // Labels have no negative numbers.
            let (below, _) = bound("Labels([4])", value).unwrap_or_else(|| panic!("{value}"));
            assert_eq!(below, expected, "{value}");
        }
    }

    #[test]
    fn numbers_may_count_from_the_end_where_all_uses_allow_it() {
        assert_eq!(bound("Tensor([4])", r#"Gather("table", "x")"#), Some((7, true)));
        assert_eq!(bound("Tensor([4])", r#"Call("by_class", "x", Inference)"#), Some((10, false)));
        assert_eq!(
            bound("Tensor([4])", r#"Add(Sum(Gather("table", "x")), Call("by_class", "x", Inference))"#),
            Some((7, false))
        );
    }

    #[test]
    fn what_is_computed_has_no_bound() {
        for value in [r#"Gather("table", Add("x", 1.0))"#, r#"Gather("table", Clip("x", 0.0, 6.0))"#] {
            assert_eq!(bound("Tensor([4])", value), None, "{value}");
        }
    }

    /// ONNX has vectors without a 1 for them.
    #[test]
    fn numbers_that_are_no_class_have_vectors_too() {
        assert_eq!(bound("Tensor([4])", r#"OneHot("x", 5)"#), None);
        assert_eq!(bound("Tensor([4])", r#"Add(Sum(Gather("table", "x")), OneHot("x", 5))"#), Some((7, true)));
    }

    /// The other numbers of an input may be something else.
    #[test]
    fn slices_bind_the_whole_only_together() {
        let first = r#"Gather("table", Slice("x", [0], [2]))"#;
        let second = r#"Gather(Slice("table", [0], [3]), Slice("x", [2], [4]))"#;
        assert_eq!(bound("Tensor([4])", first), None);
        assert_eq!(bound("Tensor([4])", &format!("Add({first}, {second})")), Some((7, true)));
        let (a, b) = (r#"Slice("x", [0, 0], [4, 1])"#, r#"Slice("x", [0, 1], [2, 2])"#);
        let both = format!(r#"Add(Sum(Gather("table", {a})), Sum(Gather("table", {b})))"#);
        assert_eq!(bound("Tensor([4, 2])", &both), None);
        let rows = r#"GatherND("table", Reshape("x", [2, 2]))"#;
        assert_eq!(bound("Tensor([4])", rows), Some((7, true)));
    }
}
