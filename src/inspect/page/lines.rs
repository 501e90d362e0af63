//! What each line of the program costs: the work of kernels, shared among the lines whose nodes they compute, and the
//! bytes that are in use where most are.
//!
//! A kernel computes nodes of several lines, and takes one time. It is shared in proportion to what each of its nodes
//! does in it: the time of the node's FLOPs at the machine's peak, and that of the bytes that the node itself loads and
//! stores at the memory's. A value that stays inside the kernel moves no bytes. What several nodes load is loaded once,
//! and shared equally among them; working memory belongs to the node that the kernel is built around. So the shares of a
//! kernel add up to it, and those of all kernels to the step.

use super::data::Numbered;
use crate::inspect::node_cost::node_flops;
use crate::inspect::{Colour, Observed, Placement, group_path, kernel_core};
use crate::ir::{Graph, NodeId, Op, Role};
use crate::kernel::body::{BufferId, Kernel};
use crate::kernel::cost::{Machine, bytes_moved, flops, multiplied};
use crate::kernel::schedule::{ALIGNMENT, Buffer, BufferRole, Schedule};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};

/// The part of a kernel that is one line's, for one call and one role.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LineShare {
    /// From 1; 0 for what has no line.
    pub line: usize,
    /// `forward`, `gradient` or `optimiser`.
    pub role: &'static str,
    /// The group of the call or update, where there is one.
    pub call: Option<usize>,
    /// Of the kernel's time, from 0 to 1.
    pub time: f64,
    /// Of its FLOPs: a whole number but for what is not one node's.
    pub flops: f64,
    /// Of the bytes that it moves.
    pub bytes: f64,
}

/// Bytes in use whose values come from one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LineBytes {
    pub line: usize,
    pub bytes: usize,
}

/// An optimised graph with where its nodes ended.
pub(super) struct Lines<'a> {
    observed: &'a Observed,
    graph: &'a Graph,
    schedule: &'a Schedule,
    placed: &'a Placement,
    by_name: &'a HashMap<&'a str, NodeId>,
}

/// What one node does in a kernel.
#[derive(Debug, Clone, Copy, Default)]
struct Work {
    flops: f64,
    bytes: f64,
}

impl<'a> Lines<'a> {
    pub(super) fn new(
        observed: &'a Observed,
        graph: &'a Graph,
        schedule: &'a Schedule,
        placed: &'a Placement,
        by_name: &'a HashMap<&'a str, NodeId>,
    ) -> Self {
        Lines { observed, graph, schedule, placed, by_name }
    }

    /// By a kernel's position, its shares, by line. `nodes_of` has the nodes that each computes.
    pub(super) fn shares(
        &self,
        nodes_of: &[Vec<NodeId>],
        machine: &Machine,
        numbered: &mut Numbered,
    ) -> Vec<Vec<LineShare>> {
        let kernels = self.schedule.kernels.iter().zip(nodes_of);
        kernels.map(|(kernel, nodes)| self.kernel_shares(kernel, nodes, machine, numbered)).collect()
    }

    fn kernel_shares(
        &self,
        kernel: &Kernel,
        nodes: &[NodeId],
        machine: &Machine,
        numbered: &mut Numbered,
    ) -> Vec<LineShare> {
        let Some(core) = kernel_core(self.graph, self.by_name, kernel).or(nodes.last().copied()) else {
            // It only copies: it is for the value that it writes.
            let line = kernel.writes.first().map_or(0, |&b| self.buffer_line(b));
            let (flops, bytes) = (flops(kernel) as f64, bytes_moved(kernel, &self.schedule.buffers) as f64);
            return vec![LineShare { line, role: "forward", call: None, time: 1.0, flops, bytes }];
        };
        let computed: Vec<NodeId> = nodes.iter().copied().filter(|&id| !self.is_leaf(id)).collect();
        let mut work = self.loads_and_stores(kernel, &computed, core);
        for &id in &computed {
            work.entry(id).or_default().flops = node_flops(self.graph, id) as f64;
        }
        scale_flops(&mut work, core, flops(kernel) as f64);
        let peak = machine.flops_ceiling(multiplied(kernel, &self.schedule.buffers));
        let seconds = |work: &Work| work.flops / peak + work.bytes / machine.bytes_per_second;
        let whole: f64 = work.values().map(seconds).sum();
        let mut shares: Vec<LineShare> = Vec::new();
        let mut known: HashMap<(usize, &'static str, Option<usize>), usize> = HashMap::new();
        for (&id, work) in &work {
            let origin = &self.graph.node(id).origin;
            let call = numbered.groups(group_path(&origin.scope, &origin.role)).first().copied();
            let (line, role) = (self.node_line(id), role_name(&origin.role));
            let time = if whole > 0.0 { seconds(work) / whole } else { f64::from(u8::from(id == core)) };
            let at = *known.entry((line, role, call)).or_insert_with(|| {
                shares.push(LineShare { line, role, call, time: 0.0, flops: 0.0, bytes: 0.0 });
                shares.len() - 1
            });
            shares[at].time += time;
            shares[at].flops += work.flops;
            shares[at].bytes += work.bytes;
        }
        shares.sort_by_key(|share| share.line);
        shares
    }

    /// The bytes that each node loads and stores itself; the core has what no node does, such as working memory.
    fn loads_and_stores(&self, kernel: &Kernel, nodes: &[NodeId], core: NodeId) -> BTreeMap<NodeId, Work> {
        let mut work: BTreeMap<NodeId, Work> = nodes.iter().map(|&id| (id, Work::default())).collect();
        // By name: what is computed again has a buffer of the same name.
        let named = |buffers: &[BufferId]| -> HashMap<&str, usize> {
            buffers.iter().map(|&b| (self.schedule.buffers[b.index()].name.as_str(), b.index())).collect()
        };
        let (read, written) = (named(&kernel.reads), named(&kernel.writes));
        let own_name = |id: NodeId| self.graph.node(id).name.as_str();
        let buffer_of = |id: NodeId, among: &HashMap<&str, usize>| {
            let held = || self.placed.buffers.get(own_name(id)).map(|&b| self.schedule.buffers[b].name.as_str());
            among.get(own_name(id)).or_else(|| among.get(held()?)).copied()
        };
        let mut readers: HashMap<usize, Vec<NodeId>> = HashMap::new();
        let mut writers: HashMap<usize, Vec<NodeId>> = HashMap::new();
        for &id in nodes {
            // A reshape moves nothing, but where its value is stored in another order of dimensions.
            if matches!(self.graph.op(id), Op::Reshape { .. }) && !written.contains_key(own_name(id)) {
                continue;
            }
            for buffer in self.graph.operands(id).into_iter().filter_map(|operand| buffer_of(operand, &read)) {
                let readers = readers.entry(buffer).or_default();
                if readers.last() != Some(&id) {
                    readers.push(id);
                }
            }
            if let Some(buffer) = buffer_of(id, &written) {
                writers.entry(buffer).or_default().push(id);
            }
        }
        let core = [core];
        let mut give = |buffers: &[BufferId], by: &HashMap<usize, Vec<NodeId>>| {
            for buffer in buffers {
                let to = by.get(&buffer.index()).map_or(&core[..], Vec::as_slice);
                let each = self.schedule.buffers[buffer.index()].bytes() as f64 / to.len() as f64;
                for &id in to {
                    work.entry(id).or_default().bytes += each;
                }
            }
        };
        give(&kernel.reads, &readers);
        give(&kernel.writes, &writers);
        work
    }

    fn is_leaf(&self, id: NodeId) -> bool {
        Colour::of_node(self.graph.op(id), &self.graph.node(id).origin.role) == Colour::Leaf
    }

    /// From 1; 0 for a node that has none.
    fn node_line(&self, id: NodeId) -> usize {
        self.graph.node(id).origin.span.map_or(0, |span| self.observed.line_of(span.start))
    }

    /// The line that the value of a buffer comes from. Working memory has none of its own: see [`Lines::buffer_lines`].
    fn buffer_line(&self, buffer: BufferId) -> usize {
        let name = self.schedule.buffers[buffer.index()].name.as_str();
        self.by_name.get(name).map_or(0, |&id| self.node_line(id))
    }

    /// By a buffer's index, the line that its value comes from: 0 where there is none. Working memory is of the line
    /// of the node that its kernel is built around.
    pub(super) fn buffer_lines(&self) -> Vec<usize> {
        let mut lines: Vec<usize> =
            (0..self.schedule.buffers.len()).map(|b| self.buffer_line(BufferId::new(b))).collect();
        for kernel in &self.schedule.kernels {
            let Some(core) = kernel_core(self.graph, self.by_name, kernel) else { continue };
            for workspace in &kernel.choice.workspace {
                lines[workspace.buffer.index()] = self.node_line(core);
            }
        }
        lines
    }

    /// By line, what is in use at the position where most is, in ascending order; together as many as are in use.
    pub(super) fn at_the_peak(&self, buffer_lines: &[usize], live: &[usize], state: usize) -> Vec<LineBytes> {
        // The first of several, as on the page.
        let most = live.iter().max();
        let Some(peak) = live.iter().position(|bytes| Some(bytes) == most) else { return Vec::new() };
        let is_state = |buffer: &Buffer| matches!(buffer.role, BufferRole::State(_));
        let aligned = |buffer: &Buffer| buffer.bytes().next_multiple_of(ALIGNMENT);
        let mut found: BTreeMap<usize, usize> = BTreeMap::new();
        let mut own_state = 0;
        for (buffer, &line) in self.schedule.buffers.iter().zip(buffer_lines) {
            if is_state(buffer) {
                own_state += aligned(buffer);
            } else if !(buffer.live.0 <= peak && peak < buffer.live.1) {
                continue;
            }
            *found.entry(line).or_default() += aligned(buffer);
        }
        // State that only other entries use is there too.
        *found.entry(0).or_default() += state.saturating_sub(own_state);
        found.into_iter().filter(|&(_, bytes)| bytes > 0).map(|(line, bytes)| LineBytes { line, bytes }).collect()
    }
}

/// Makes what nodes compute by themselves add up to what the kernel does: it may compute a part of them once for many
/// points, or by another algorithm.
fn scale_flops(work: &mut BTreeMap<NodeId, Work>, core: NodeId, whole: f64) {
    let alone: f64 = work.values().map(|work| work.flops).sum();
    if alone > 0.0 {
        work.values_mut().for_each(|work| work.flops *= whole / alone);
    } else {
        work.entry(core).or_default().flops = whole;
    }
}

fn role_name(role: &Role) -> &'static str {
    match role {
        Role::Forward => "forward",
        Role::Gradient(_) => "gradient",
        Role::Optimiser(_) => "optimiser",
    }
}
