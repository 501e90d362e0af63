//! Common subexpressions.

use super::rewrite::differentiated;
use super::{PassContext, Report};
use crate::ir::{Graph, NodeId, Op};
use crate::scalar::ScalarOp;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// Computes equal expressions once. Two nodes are equal when their operations, with all attributes, and
/// their operands are; operands of sums, products and tests for equality in either order. Random draws
/// of one stream, shape, seed and step are equal by definition. The oldest node stays.
///
/// A node that a gradient is taken with respect to is left alone: to merge it with an equal one would
/// add the other's uses to its gradient.
///
/// ```text
/// %a: f32[2] = mul %x %y                      %a: f32[2] = mul %x %y
/// %b: f32[2] = mul %y %x               →      %z: f32[2] = add %a %a
/// %z: f32[2] = add %a %b
/// ```
pub fn cse(graph: &mut Graph, _: &PassContext) -> Report {
    let nodes_before = graph.len();
    let opaque = differentiated(graph);
    let mut seen: HashMap<(Op, Vec<NodeId>), NodeId> = HashMap::new();
    let mut changed = 0;
    for id in graph.topological() {
        if opaque.contains(&id) {
            continue;
        }
        let op = graph.op(id).clone();
        let mut operands = graph.operands(id);
        if commutes(&op) {
            operands.sort_unstable();
        }
        match seen.entry((op, operands)) {
            Entry::Vacant(entry) => {
                entry.insert(id);
            }
            Entry::Occupied(entry) => {
                graph.replace_uses(id, *entry.get());
                graph.remove(id);
                changed += 1;
            }
        }
    }
    Report::new(changed, nodes_before, graph)
}

/// `max` and `min` do not commute: at a tie their derivative goes to the second operand, and of 0 and -0 they give
/// the second.
fn commutes(op: &Op) -> bool {
    matches!(op, Op::Scalar(ScalarOp::Add | ScalarOp::Mul | ScalarOp::Eq | ScalarOp::AddU32))
}
