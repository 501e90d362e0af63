//! Where the nodes of an optimised graph ended: in which kernels, in which buffer.

use crate::ir::{Graph, NodeId, Op};
use crate::kernel::body::Kernel;
use crate::kernel::schedule::{BufferRole, Schedule};
use crate::schedule::fuse::base;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// By a node's name, where it ended up.
#[derive(Debug, Clone, Default)]
pub struct Placement {
    /// The kernels that compute it: one, or several where it is cheaper to compute again than to keep.
    pub kernels: BTreeMap<String, BTreeSet<usize>>,
    /// The buffer that holds its value, where it has one.
    pub buffers: BTreeMap<String, usize>,
}

/// Finds where every node of a graph is in the schedule that was made from it.
pub fn placement(graph: &Graph, schedule: &Schedule) -> Placement {
    let mut computed: HashMap<&str, Vec<usize>> = HashMap::new();
    for (k, kernel) in schedule.kernels.iter().enumerate() {
        for node in &kernel.nodes {
            computed.entry(node).or_default().push(k);
        }
    }
    let by_name = by_name(graph);
    let is_stored = |id: NodeId| {
        computed.contains_key(graph.node(id).name.as_str())
            || matches!(graph.op(id), Op::Input { .. } | Op::State { .. })
    };
    let mut found = Placement::default();
    let each = computed.iter().flat_map(|(&name, kernels)| kernels.iter().map(move |&k| (name, k)));
    for (name, k) in each {
        let Some(&id) = by_name.get(name) else { continue };
        found.kernels.entry(name.to_string()).or_default().insert(k);
        let mut stack = graph.operands(id);
        while let Some(id) = stack.pop() {
            if !is_stored(id) && found.kernels.entry(graph.node(id).name.clone()).or_default().insert(k) {
                stack.extend(graph.operands(id));
            }
        }
    }
    let buffers: HashMap<&str, usize> =
        schedule.buffers.iter().enumerate().map(|(i, b)| (b.name.as_str(), i)).collect();
    for id in graph.ids() {
        let root = base(graph, id);
        if let Some(&buffer) = buffers.get(graph.node(root).name.as_str()) {
            found.buffers.insert(graph.node(id).name.clone(), buffer);
            // A reshape moves nothing: it is where its operand is.
            if root != id
                && let Some(kernels) = computed.get(graph.node(root).name.as_str())
            {
                found.kernels.entry(graph.node(id).name.clone()).or_default().extend(kernels);
            }
        }
    }
    let states: HashMap<&str, usize> = (schedule.buffers.iter().enumerate())
        .filter_map(|(i, b)| match &b.role {
            BufferRole::State(name) => Some((name.as_str(), i)),
            BufferRole::Input(_) | BufferRole::Output | BufferRole::Temporary | BufferRole::Workspace => None,
        })
        .collect();
    for update in &graph.updates {
        if let Some(&buffer) = states.get(update.state.as_str()) {
            found.buffers.entry(graph.node(update.node).name.clone()).or_insert(buffer);
        }
    }
    found
}

/// The nodes of a graph by their names, for those who look for many.
pub fn by_name(graph: &Graph) -> HashMap<&str, NodeId> {
    graph.ids().into_iter().map(|id| (graph.node(id).name.as_str(), id)).collect()
}

/// The node that a kernel is built around: its first contraction or reduction, else its last node. `by_name` holds the
/// graph's nodes.
pub fn kernel_core(graph: &Graph, by_name: &HashMap<&str, NodeId>, kernel: &Kernel) -> Option<NodeId> {
    let nodes: Vec<NodeId> = kernel.nodes.iter().filter_map(|name| by_name.get(name.as_str()).copied()).collect();
    let heavy = nodes.iter().find(|&&id| graph.op(id).is_contraction() || matches!(graph.op(id), Op::Reduce { .. }));
    heavy.or(nodes.last()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::{Options, compile};
    use crate::declare::builtin;

    /// What a schedule computes again is in both kernels, and every kernel has what it says that it computes.
    #[test]
    fn every_kernel_has_its_nodes() {
        let mut again = 0;
        for program in builtin::NAMES {
            let compiled = compile(program, builtin::text(program).unwrap(), &Options::default(), &mut |_| {}).unwrap();
            let plan = compiled.plan.as_ref().unwrap();
            for entry in &compiled.module.entries {
                let Some(of_plan) = plan.entry(&entry.graph.name) else { continue };
                let (placed, nodes) = (placement(&entry.graph, &of_plan.schedule), by_name(&entry.graph));
                for (k, kernel) in of_plan.schedule.kernels.iter().enumerate() {
                    for node in kernel.nodes.iter().filter(|name| nodes.contains_key(name.as_str())) {
                        assert!(placed.kernels[node].contains(&k), "{program}: {node} is in {}", kernel.name);
                        again += usize::from(kernel.name.contains("_again"));
                    }
                }
            }
        }
        assert!(again > 0, "nothing is computed again, so this test sees less than it says");
    }
}
