//! The flag of each network that a step updates: whether it is still finite.

use super::diagnostic::Span;
use super::nodes::Nodes;
use crate::ir::{Initialiser, NodeId, Op, ReduceKind, Role, StateRole, Type};
use crate::scalar::ScalarOp;
use std::collections::BTreeMap;

/// Most tensors whose elements are added up to see whether one is not finite. What is near the largest f32 in all of
/// them together counts as infinite: it would be so a step later.
const MOST_TOGETHER: usize = 8;
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
        // Tensors of one shape are looked at together: a reduction for each bias would be many launches for few bytes.
        let mut changed: BTreeMap<Vec<usize>, Vec<NodeId>> = BTreeMap::new();
        for node in self.changed_state(network, |role| matches!(role, StateRole::Parameter | StateRole::Statistic)) {
            changed.entry(self.shape(node).to_vec()).or_default().push(node);
        }
        let name = format!("{network}/{NON_FINITE}");
        let mut flag = self.state(&name, Type::f32([]), StateRole::NonFinite, Initialiser::Constant(0.0), span)?;
        let (largest, zero, one) =
            (self.constant(f32::MAX.into(), span)?, self.constant(0.0, span)?, self.constant(1.0, span)?);
        for (shape, nodes) in &changed {
            for together in nodes.chunks(MOST_TOGETHER) {
                let mut total = None;
                for &node in together {
                    let size = self.apply_as(ScalarOp::Abs, &[node], "size", span)?;
                    total = Some(match total {
                        Some(total) => self.apply_as(ScalarOp::Add, &[total, size], "total", span)?,
                        None => size,
                    });
                }
                // A comparison with NaN is 0, so this holds of finite numbers alone. No rewrite may assume otherwise.
                let finite = self.apply_as(ScalarOp::Le, &[total?, largest], "finite", span)?;
                let mark = self.apply_as(ScalarOp::Select, &[finite, zero, one], "mark", span)?;
                let reduce = Op::Reduce { kind: ReduceKind::Max, axes: (0..shape.len()).collect() };
                let mark = if shape.is_empty() { mark } else { self.add(reduce, &[mark], "any", span)? };
                let mark = self.add(Op::Reshape { to: vec![] }, &[mark], "found", span)?;
                flag = self.apply_as(ScalarOp::Max, &[flag, mark], "flag", span)?;
            }
        }
        self.current.insert(name, flag);
        Some(())
    }
}
