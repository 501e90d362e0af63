//! Graphs and schedules in the language of Graphviz.

use super::{Colour, by_name, kernel_core, value_count};
use crate::ir::{Graph, NodeId, Op};
use crate::kernel::body::BufferId;
use crate::kernel::schedule::{BufferRole, Schedule};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// A graph: one box a node, nested in boxes for what it was declared in; forward, backward and optimiser
/// told apart by colour.
pub fn graph_dot(graph: &Graph) -> String {
    let mut text = heading(&graph.name);
    let mut scopes = Scope::default();
    for id in graph.topological() {
        let path: Vec<&str> = graph.node(id).origin.scope.split('/').filter(|s| !s.is_empty()).collect();
        scopes.at(&path).nodes.push(id);
    }
    scopes.write(graph, &mut text, 1, &mut 0);
    for id in graph.topological() {
        for operand in graph.operands(id) {
            let _ = writeln!(text, "  n{} -> n{};", operand.index(), id.index());
        }
    }
    let results = (graph.outputs.iter().map(|o| (o.name.as_str(), "output", o.node)))
        .chain(graph.updates.iter().map(|u| (u.state.as_str(), "update", u.node)));
    for (i, (name, kind, node)) in results.enumerate() {
        let label = escape(&format!("{kind} {name}"));
        let _ = writeln!(text, "  r{i} [label=\"{label}\", shape=cds, {}];", style(Colour::Result));
        let _ = writeln!(text, "  n{} -> r{i};", node.index());
    }
    text.push_str("}\n");
    text
}

/// A schedule: one box a kernel in the order in which they run, an arrow for each buffer that one writes
/// and another reads. `graph` is what was scheduled.
pub fn schedule_dot(name: &str, schedule: &Schedule, graph: &Graph) -> String {
    let mut text = heading(name);
    let mut writer: BTreeMap<BufferId, String> = BTreeMap::new();
    for (i, buffer) in schedule.buffers.iter().enumerate() {
        let (kind, label) = match &buffer.role {
            BufferRole::Input(name) => ("input", name),
            BufferRole::State(name) => ("state", name),
            BufferRole::Output | BufferRole::Temporary | BufferRole::Workspace => continue,
        };
        let read = schedule.kernels.iter().any(|k| k.reads.contains(&BufferId::new(i)));
        if read && kind == "input" {
            let label = escape(&format!("{kind} {label}\n{}[{}]", buffer.dtype, sizes(&buffer.shape)));
            let _ = writeln!(text, "  b{i} [label=\"{label}\", shape=ellipse, {}];", style(Colour::Leaf));
            writer.insert(BufferId::new(i), format!("b{i}"));
        }
    }
    let mut last_writer = writer;
    let by_name = by_name(graph);
    for (k, kernel) in schedule.kernels.iter().enumerate() {
        let core = kernel_core(graph, &by_name, kernel);
        let colour = core.map_or(Colour::Forward, |id| Colour::of_role(&graph.node(id).origin.role));
        let values = value_count(kernel);
        let plural = if values == 1 { "" } else { "s" };
        let label = escape(&format!("[{k}] {}\n{}, {values} value{plural}", kernel.name, kernel.kind().name()));
        let _ = writeln!(text, "  k{k} [label=\"{label}\", {}];", style(colour));
        let sources: BTreeSet<&String> = kernel.reads.iter().filter_map(|b| last_writer.get(b)).collect();
        for source in sources {
            let _ = writeln!(text, "  {source} -> k{k};");
        }
        for &buffer in &kernel.writes {
            last_writer.insert(buffer, format!("k{k}"));
        }
    }
    for (i, output) in schedule.outputs.iter().enumerate() {
        let label = escape(&format!("output {}", output.name));
        let _ = writeln!(text, "  o{i} [label=\"{label}\", shape=cds, {}];", style(Colour::Result));
        if let Some(source) = last_writer.get(&output.buffer) {
            let _ = writeln!(text, "  {source} -> o{i};");
        }
    }
    text.push_str("}\n");
    text
}

fn heading(name: &str) -> String {
    format!(
        "digraph \"{}\" {{\n  graph [rankdir=TB, fontname=\"Helvetica\", nodesep=0.25, ranksep=0.35];\n  \
         node [shape=box, style=\"rounded,filled\", fontname=\"Helvetica\", fontsize=10];\n  \
         edge [color=\"#6f6f6f\", arrowsize=0.6];\n",
        escape(name)
    )
}

fn style(colour: Colour) -> String {
    let row = colour.row();
    format!("fillcolor=\"{}\", color=\"{}\"", row.fill, row.stroke)
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn sizes(shape: &[usize]) -> String {
    shape.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

/// Nodes by the declarations around them.
#[derive(Default)]
struct Scope {
    nodes: Vec<NodeId>,
    inner: BTreeMap<String, Scope>,
}

impl Scope {
    fn at(&mut self, path: &[&str]) -> &mut Scope {
        match path {
            [] => self,
            [first, rest @ ..] => self.inner.entry((*first).to_string()).or_default().at(rest),
        }
    }

    fn write(&self, graph: &Graph, text: &mut String, depth: usize, clusters: &mut usize) {
        let indent = "  ".repeat(depth);
        for &id in &self.nodes {
            let node = graph.node(id);
            let colour = Colour::of_node(&node.op, &node.origin.role);
            // The scope is drawn around the node: the name's last part is enough.
            let short = node.name.rsplit('/').next().unwrap_or(&node.name);
            let what = match &node.op {
                Op::Constant { value, .. } => format!("constant {value}"),
                Op::Input { name, .. } => format!("input {name}"),
                Op::State { name, .. } => format!("state {name}"),
                op => op.name().to_string(),
            };
            let first = if short == what { String::new() } else { format!("{short}\n") };
            let label = escape(&format!("{first}{what}\n{}", node.ty));
            let _ = writeln!(text, "{indent}n{} [label=\"{label}\", {}];", id.index(), style(colour));
        }
        for (name, scope) in &self.inner {
            let _ = writeln!(text, "{indent}subgraph cluster_{clusters} {{");
            *clusters += 1;
            let _ = writeln!(text, "{indent}  label=\"{}\"; fontsize=11; color=\"#b0b0b0\";", escape(name));
            scope.write(graph, text, depth + 1, clusters);
            let _ = writeln!(text, "{indent}}}");
        }
    }
}
