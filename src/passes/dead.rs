//! Dead code.

use super::{PassContext, Report};
use crate::ir::Graph;

/// Removes what no output and no update depends on, and the probes on such nodes. Gradients nobody
/// asked for go here, and so are never computed.
///
/// ```text
/// %x: f32[2] = input "x"                      %x: f32[2] = input "x"
/// %u: f32[2] = exp %x                  →      %y: f32[2] = neg %x
/// %y: f32[2] = neg %x                         output y = %y
/// output y = %y
/// ```
pub fn dead(graph: &mut Graph, _: &PassContext) -> Report {
    let nodes_before = graph.len();
    let changed = graph.remove_dead();
    Report::new(changed, nodes_before, graph)
}
