//! Reverse-mode differentiation as a graph → graph transformation.
//!
//! A declaration asks for `gradient(y, x)`; [`differentiate`] replaces every such node by ordinary
//! nodes that compute it. The result holds no trace of how it came about: it can be optimised,
//! scheduled and differentiated again like anything else. Gradients of gradients need nothing
//! special, because every rule in `rules` builds only operations that have rules themselves.
//!
//! ```text
//! %y: f32[] = mul %x %x                        %y: f32[] = mul %x %x
//! %g: f32[] = gradient %y %x          →        %d_x: f32[] = add %x %x
//! ```

mod partials;
mod rules;
mod sweep;
#[cfg(test)]
mod tests;

use crate::ir::{Graph, NodeId, Op};
pub use rules::flows;
use std::collections::HashMap;

/// What [`differentiate`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Gradient nodes that were replaced.
    pub gradients: usize,
    /// Reverse sweeps: the gradients of one loss share one.
    pub sweeps: usize,
    /// Nodes that were added to compute the gradients.
    pub added: usize,
    /// Names of nodes whose gradient is zero because the loss does not depend on them through any
    /// differentiable path. For a parameter this is most likely a mistake in the declaration.
    pub unconnected: Vec<String>,
}

/// Replaces every [`Op::Gradient`] by nodes that compute it, and every [`Op::Detach`] by its operand; none
/// is left.
///
/// The derivative takes `x` as the independent variable also where `x` is computed from other
/// nodes. Nodes are built only along paths that lead from some wanted `x` to the loss. Where no
/// such path exists the gradient is a constant zero. Nodes that read the same state or input become
/// one node first, so that a variable has one gradient however often the graph mentions it.
///
/// Added nodes carry the span and scope of the forward node they belong to; the gradient of the
/// loss with respect to node `n` is named `d_n`.
pub fn differentiate(graph: &mut Graph) -> Report {
    let mut report = Report::default();
    if graph.ids().into_iter().any(|id| *graph.op(id) == Op::Gradient) {
        merge_variables(graph);
    }
    // Once for all: sweeps keep the order of the nodes that were there before them.
    for id in graph.topological() {
        if !graph.contains(id) || *graph.op(id) != Op::Gradient {
            continue;
        }
        let y = graph.operands(id)[0];
        // The loss of the first gradient in topological order depends on no other gradient, so an
        // `x` that does depend on one cannot reach that loss: all requests can be served at once.
        let requests: Vec<NodeId> = graph.users(y).into_iter().filter(|&id| is_gradient_of(graph, id, y)).collect();
        let wanted: Vec<NodeId> = requests.iter().map(|&id| graph.operands(id)[1]).collect();
        let before = graph.len();
        let sweep = sweep::run(graph, y, &wanted);
        report.added += graph.len() - before;
        report.sweeps += 1;
        report.gradients += requests.len();
        report.unconnected.extend(sweep.unconnected.iter().map(|&x| graph.node(x).name.clone()));
        for (request, x) in requests.into_iter().zip(wanted) {
            graph.replace_uses(request, sweep.gradients[&x]);
            graph.remove(request);
        }
    }
    // What held derivatives back has done its work.
    for id in graph.ids() {
        if *graph.op(id) == Op::Detach {
            graph.replace_uses(id, graph.operands(id)[0]);
            graph.remove(id);
        }
    }
    report
}

fn is_gradient_of(graph: &Graph, id: NodeId, y: NodeId) -> bool {
    *graph.op(id) == Op::Gradient && graph.operands(id)[0] == y
}

/// Lets every state and every input be read by one node.
fn merge_variables(graph: &mut Graph) {
    let mut first: HashMap<Op, NodeId> = HashMap::new();
    for id in graph.ids() {
        if matches!(graph.op(id), Op::State { .. } | Op::Input { .. }) {
            let kept = *first.entry(graph.op(id).clone()).or_insert(id);
            if kept != id {
                graph.replace_uses(id, kept);
                graph.remove(id);
            }
        }
    }
}
