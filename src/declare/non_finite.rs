//! The flag of each network that a step updates: whether it is still finite.

use super::diagnostic::Span;
use super::nodes::Nodes;
use crate::ir::{Initialiser, NodeId, Op, ReduceKind, Role, StateRole, Type};
use crate::scalar::ScalarOp;
use std::collections::BTreeMap;

/// Least elements of a part, and most parts of a tensor: see [`parts`].
const LEAST_ELEMENTS: usize = 1024;
const MOST_PARTS: usize = 1024;
/// The name of a network's flag among its state.
const NON_FINITE: &str = "non_finite";

impl Nodes<'_> {
    /// Adds to each updated network its flag: whether an element of what the entry made of its parameters and running
    /// statistics is infinite or NaN, now or at an earlier step.
    ///
    /// Losses alone do not tell: a maximum, a comparison or a saturated unit can hide what has happened behind it. The
    /// optimiser's memory is left out, since what is infinite or NaN in it is so in the parameter too (but for an
    /// infinite second moment, whose parameter stands still), and a step would read twice as much more.
    pub fn flag_non_finite(&mut self, updated: &BTreeMap<String, Span>) -> Option<()> {
        for (network, &span) in updated {
            self.push_scope(network);
            self.push_scope(NON_FINITE);
            self.set_role(Role::Optimiser(network.clone()));
            self.flag_network(network, span)?;
            self.set_role(Role::Forward);
            self.pop_scope();
            self.pop_scope();
        }
        Some(())
    }

    fn flag_network(&mut self, network: &str, span: Span) -> Option<()> {
        let name = format!("{network}/{NON_FINITE}");
        let flag = self.state(&name, Type::f32([]), StateRole::NonFinite, Initialiser::Constant(0.0), span)?;
        let mut largest = Vec::new();
        for node in self.changed_state(network, |role| matches!(role, StateRole::Parameter | StateRole::Statistic)) {
            largest.push(self.largest_of_parts(node, span)?);
        }
        // All of them in one small reduction: shorter ones go on with zeros.
        let longest = largest.iter().map(|&x| self.shape(x)[0]).max()?;
        let mut together = None;
        for x in largest {
            let pad = Op::Pad { low: vec![0], high: vec![longest - self.shape(x)[0]] };
            let x = if self.shape(x)[0] == longest { x } else { self.add(pad, &[x], "padded", span)? };
            together = Some(match together {
                Some(others) => self.apply_as(ScalarOp::Max, &[others, x], "together", span)?,
                None => x,
            });
        }
        let (most, zero, one) =
            (self.constant(f32::MAX.into(), span)?, self.constant(0.0, span)?, self.constant(1.0, span)?);
        // A comparison with NaN is 0, so this holds of finite numbers alone. No rewrite may assume otherwise.
        let finite = self.apply_as(ScalarOp::Le, &[together?, most], "finite", span)?;
        let marks = self.apply_as(ScalarOp::Select, &[finite, zero, one], "marks", span)?;
        let found = self.add(Op::Reduce { kind: ReduceKind::Max, axes: vec![0] }, &[marks], "any", span)?;
        let found = self.add(Op::Reshape { to: vec![] }, &[found], "found", span)?;
        let flag = self.apply_as(ScalarOp::Max, &[flag, found], "flag", span)?;
        self.current.insert(name, flag);
        Some(())
    }

    /// The largest magnitude in each part of a tensor, `f32[parts]`: NaN where there is one. A small tensor is one part.
    /// The parts are swept side by side, by the kernel that updates the tensor, which need not be read again.
    fn largest_of_parts(&mut self, node: NodeId, span: Span) -> Option<NodeId> {
        let shape = self.shape(node).to_vec();
        let sizes = self.apply_as(ScalarOp::Abs, &[node], "size", span)?;
        let (of, kept, parts) = match outer_dimensions(&shape) {
            Some(outer) => (sizes, outer, shape[..outer].iter().product()),
            None => {
                let elements = shape.iter().product();
                let parts = parts(elements);
                (self.add(Op::Reshape { to: vec![parts, elements / parts] }, &[sizes], "parts", span)?, 1, parts)
            }
        };
        let axes = (kept..self.shape(of).len()).collect();
        let largest = self.add(Op::Reduce { kind: ReduceKind::Max, axes }, &[of], "largest", span)?;
        self.add(Op::Reshape { to: vec![parts] }, &[largest], "largest", span)
    }
}

/// How many of the first dimensions give a tensor's parts, where some do that are neither many nor small: in whatever order
/// the dimensions lie in memory, nothing is reshaped then.
fn outer_dimensions(shape: &[usize]) -> Option<usize> {
    let is_cut = |&outer: &usize| {
        let [parts, size] = [&shape[..outer], &shape[outer..]].map(|dims| dims.iter().product::<usize>());
        (2..=MOST_PARTS).contains(&parts) && size >= LEAST_ELEMENTS
    };
    (1..shape.len()).rev().find(is_cut)
}

/// Into how many parts a tensor's elements are cut: as many as threads and blocks can share, none too small to be worth
/// its number.
fn parts(elements: usize) -> usize {
    let most = (elements / LEAST_ELEMENTS).clamp(1, MOST_PARTS);
    (1..=most).rev().find(|&parts| elements.is_multiple_of(parts)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::{outer_dimensions, parts};

    #[test]
    fn parts_divide_a_tensor() {
        assert_eq!([1, 10, 1024, 2047, 2048, 12_544, 300 * 12_544].map(parts), [1, 1, 1, 1, 2, 8, 1024]);
        // A prime is one part.
        assert_eq!(parts(1_000_003), 1);
    }

    #[test]
    fn whole_dimensions_are_parts_where_they_can_be() {
        let shapes: [&[usize]; 6] =
            [&[300, 12_544], &[256, 128, 5, 5], &[8, 4, 1024], &[64, 1, 4, 4], &[6272, 1], &[4096]];
        assert_eq!(shapes.map(outer_dimensions), [Some(1), Some(1), Some(2), None, None, None]);
    }
}
