//! Numbering the buffers of fused kernels, and letting state be updated in place.

use super::ScheduleError;
use super::fuse::{Fused, FusedKernel, base};
use super::physical::Orders;
use super::select::none_yet;
use super::topological::Topological;
use super::value::ValueId;
use crate::ir::{Graph, NodeId, Op, Role};
use crate::kernel::access::{Access, kept_shape};
use crate::kernel::body::{Body, BufferId, Contraction, Expr, ExprId, Exprs, Kernel, Nest, Store, Sweep};
use crate::kernel::schedule::{Buffer, BufferRole, ScheduleOutput, StateLayout, Storage};
use crate::types::ReduceKind;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::Hash;

/// Kernels with numbered buffers and the orders between them, not yet sorted.
#[derive(Debug, Clone)]
pub struct Assembled {
    pub kernels: Vec<Kernel>,
    /// For each kernel, those that must run before it.
    pub before: Vec<BTreeSet<usize>>,
    pub buffers: Vec<Buffer>,
    pub outputs: Vec<ScheduleOutput>,
}

/// Numbers the buffers of `fused`, which are named by node index, and places state updates.
/// Every updated state tensor has a node in the graph.
///
/// # Errors
/// When the graph uses a state tensor that `states` does not place.
pub fn assemble(graph: &Graph, fused: Fused, states: &StateLayout) -> Result<Assembled, ScheduleError> {
    let Fused { kernels, orders, bits } = fused;
    let mut work = Work::new(graph, kernels, &orders);
    work.keep_old_states(graph);
    let state_nodes = state_nodes(graph);
    for update in &graph.updates {
        let Some(&state) = state_nodes.get(update.state.as_str()) else {
            return Err(ScheduleError::UnknownState(update.state.clone()));
        };
        let value = base(graph, update.node);
        // Two state tensors that become one value may lie in two orders.
        let is_alike = orders.get(&value) == orders.get(&state);
        if value != state && !(is_alike && work.write_in_place(ValueId::of(value), ValueId::of(state))) {
            work.copy_into(graph, value, state);
        }
    }
    work.number(graph, &orders, &bits, states)
}

/// Kernels whose buffers are still named by the node whose value they hold (or a number beyond, for
/// copies), which keeps a state tensor's old and new value apart.
struct Work<'o> {
    orders: &'o Orders,
    kernels: Vec<FusedKernel>,
    before: Vec<BTreeSet<usize>>,
    /// For each kernel, those of which it is known that they must run after it.
    after: Vec<Vec<usize>>,
    /// An order of the kernels that is right by `before`.
    order: Topological,
    /// The kernels that read each value.
    readers: HashMap<ValueId, Vec<usize>>,
    /// For each kernel of which it was asked, which of its nests read each value.
    nests_reading: HashMap<usize, HashMap<ValueId, Vec<usize>>>,
    /// The kernel that computes each value.
    writer: HashMap<ValueId, usize>,
    /// Values that are written into the place of a state tensor, by the state node's index.
    in_place: BTreeMap<ValueId, ValueId>,
    /// For each state tensor the kernels that write into its place.
    overwritten: HashMap<ValueId, Vec<usize>>,
    /// What the values beyond the graph's nodes are copies of.
    copies: HashMap<ValueId, NodeId>,
    /// For state that is returned and updated: the copy that is returned.
    returned: HashMap<NodeId, ValueId>,
    next_value: usize,
}

impl<'o> Work<'o> {
    fn new(graph: &Graph, kernels: Vec<FusedKernel>, orders: &'o Orders) -> Work<'o> {
        let mut work = Work {
            orders,
            kernels: Vec::new(),
            before: Vec::new(),
            after: Vec::new(),
            order: Topological::default(),
            readers: HashMap::new(),
            nests_reading: HashMap::new(),
            writer: HashMap::new(),
            in_place: BTreeMap::new(),
            overwritten: HashMap::new(),
            copies: HashMap::new(),
            returned: HashMap::new(),
            next_value: graph.bound(),
        };
        for kernel in kernels {
            work.push(kernel);
        }
        work
    }

    /// Adds a kernel after all that it reads and before what overwrites that.
    fn push(&mut self, kernel: FusedKernel) {
        let index = self.kernels.len();
        let reads: HashSet<ValueId> = kernel.body.reads().copied().collect();
        self.writer.extend(kernel.body.stores().map(|store| (store.buffer, index)));
        let before: BTreeSet<usize> =
            reads.iter().filter_map(|r| self.writer.get(r).copied()).filter(|&w| w != index).collect();
        self.after.push(Vec::new());
        self.order.push();
        before.iter().for_each(|&k| self.after[k].push(index));
        self.before.push(before);
        let late: Vec<usize> = reads.iter().filter_map(|read| self.overwritten.get(read)).flatten().copied().collect();
        reads.into_iter().for_each(|read| self.readers.entry(read).or_default().push(index));
        self.kernels.push(kernel);
        late.into_iter().for_each(|writer| self.run_before(index, writer));
    }

    /// Whether `later` must run after `earlier` already.
    fn follows(&self, later: usize, earlier: usize) -> bool {
        later == earlier || self.needed(later, earlier).iter().any(|&k| self.before[k].contains(&earlier))
    }

    /// The kernel and those that must run before it, as far as their places in the order are after that of `since`.
    fn needed(&self, kernel: usize, since: usize) -> Vec<usize> {
        let (mut found, mut seen) = (vec![kernel], HashSet::from([kernel]));
        for i in 0.. {
            let Some(&kernel) = found.get(i) else { break };
            let before = self.before[kernel].iter().copied();
            found.extend(before.filter(|&k| self.order.is_before(since, k) && seen.insert(k)));
        }
        found
    }

    /// Makes `earlier` run before `later`, which it does not follow.
    fn run_before(&mut self, earlier: usize, later: usize) {
        if !self.before[later].insert(earlier) {
            return;
        }
        self.after[earlier].push(later);
        if self.order.is_before(earlier, later) {
            return;
        }
        // What the earlier one needs comes before the later one and what needs that.
        let mut sorted = self.needed(earlier, later);
        let (mut users, mut seen) = (vec![later], HashSet::from([later]));
        for i in 0.. {
            let Some(&kernel) = users.get(i) else { break };
            let after = self.after[kernel].iter().copied();
            users.extend(after.filter(|&k| self.order.is_before(k, earlier) && seen.insert(k)));
        }
        self.order.sort(&mut sorted);
        self.order.sort(&mut users);
        sorted.extend(users);
        self.order.rearrange(&sorted);
    }

    /// Lets the kernel that computes `value` write it over the state's old value, if every other reader
    /// of the old value can run before, and the kernel itself reads it only where it writes.
    fn write_in_place(&mut self, value: ValueId, state: ValueId) -> bool {
        let Some(&writer) = self.writer.get(&value) else { return false };
        let readers = self.readers.get(&state).into_iter().flatten().copied().filter(|&k| k != writer);
        let readers: Vec<usize> = readers.collect();
        if self.in_place.contains_key(&value) || readers.iter().any(|&reader| self.follows(reader, writer)) {
            return false;
        }
        let body = &self.kernels[writer].body;
        let nests = self.nests_reading.entry(writer).or_insert_with(|| nests_reading(body));
        let possible = writes_where_it_reads(body, nests, state, value);
        if possible {
            readers.into_iter().for_each(|reader| self.run_before(reader, writer));
            self.in_place.insert(value, state);
            self.overwritten.entry(state).or_default().push(writer);
        }
        possible
    }

    /// Copies state that is an output as it was before the run, and is updated by it.
    fn keep_old_states(&mut self, graph: &Graph) {
        for output in &graph.outputs {
            let value = base(graph, output.node);
            let Op::State { name, .. } = graph.op(value) else { continue };
            let is_updated = graph.updates.iter().any(|u| u.state == *name && base(graph, u.node) != value);
            if is_updated && !self.returned.contains_key(&value) {
                let copy = self.copy(graph, value, ValueId::of(value), value);
                self.returned.insert(value, copy);
            }
        }
    }

    /// Copies `value` into the state's place by a kernel that runs last; through a temporary where the
    /// value is itself an input or an old state, which may be overwritten by then.
    fn copy_into(&mut self, graph: &Graph, value: NodeId, state: NodeId) {
        let mut source = ValueId::of(value);
        if !self.writer.contains_key(&source) {
            source = self.copy(graph, value, source, value);
        }
        let target = self.copy(graph, value, source, state);
        let placed = self.write_in_place(target, ValueId::of(state));
        assert!(placed, "nothing depends on the last copy into {}", graph.node(state).name);
    }

    /// Adds a kernel that copies `from`, which holds `node`'s value, to a new value in the order of node `like`.
    fn copy(&mut self, graph: &Graph, node: NodeId, from: ValueId, like: NodeId) -> ValueId {
        let (shape, lane) = (graph.shape(node), graph.ty(node).dtype.lane());
        let access = |node: NodeId| match self.orders.get(&node) {
            Some(order) => Access::ordered(shape, order),
            None => Access::contiguous(shape),
        };
        let (read, written) = (access(node), access(like));
        let to = ValueId::new(self.next_value);
        self.next_value += 1;
        self.copies.insert(to, like);
        let mut exprs = Exprs::default();
        let value = exprs.push(Expr::Load { buffer: from, access: read, lane });
        let sweep = Sweep { stores: vec![Store { value, buffer: to, access: written }], ..Sweep::default() };
        let (space, reduced) = (shape.to_vec(), vec![false; shape.len()]);
        let nest = Nest { space, reduced, exprs, slots: 0, sweeps: vec![sweep] };
        self.push(FusedKernel { body: Body::Nests(vec![nest]), members: Vec::new() });
        to
    }

    /// Gives every value a buffer, the same one to a state's old and new value.
    fn number(
        self,
        graph: &Graph,
        orders: &Orders,
        bits: &HashSet<NodeId>,
        states: &StateLayout,
    ) -> Result<Assembled, ScheduleError> {
        let follows = |k: usize| self.before[k].iter().all(|&before| self.order.is_before(before, k));
        debug_assert!((0..self.kernels.len()).all(follows), "the order of kernels was not kept");
        let mut buffers: Vec<Buffer> = Vec::new();
        let mut buffer_of: HashMap<ValueId, BufferId> = HashMap::new();
        for id in graph.ids() {
            let role = match graph.op(id) {
                Op::Input { name, .. } => BufferRole::Input(name.clone()),
                Op::State { name, .. } => BufferRole::State(name.clone()),
                _ => continue,
            };
            let offset = match &role {
                BufferRole::State(name) => {
                    *states.offsets.get(name).ok_or_else(|| ScheduleError::UnknownState(name.clone()))?
                }
                _ => 0,
            };
            let node = graph.node(id);
            let (dtype, shape) = (node.ty.dtype, node.ty.shape.clone());
            buffer_of.insert(ValueId::of(id), BufferId::new(buffers.len()));
            let order = match &role {
                BufferRole::State(name) => states.orders.get(name).cloned().unwrap_or_default(),
                _ => Vec::new(),
            };
            let (name, storage) = (node.name.clone(), Storage::Elements);
            buffers.push(Buffer { name, dtype, storage, shape, order, role, offset, live: (0, 0) });
        }
        for kernel in &self.kernels {
            for value in kernel.body.stores().map(|store| store.buffer) {
                let buffer = match self.in_place.get(&value) {
                    Some(state) => buffer_of[state],
                    None => {
                        let id = self.copies.get(&value).copied().unwrap_or_else(|| NodeId::new(value.index()));
                        let node = graph.node(id);
                        let (dtype, shape, role) = (node.ty.dtype, node.ty.shape.clone(), BufferRole::Temporary);
                        let order = orders.get(&id).cloned().unwrap_or_default();
                        let storage = if bits.contains(&id) { Storage::Bits } else { Storage::Elements };
                        buffers.push(Buffer {
                            name: node.name.clone(),
                            dtype,
                            storage,
                            shape,
                            order,
                            role,
                            offset: 0,
                            live: (0, 0),
                        });
                        BufferId::new(buffers.len() - 1)
                    }
                };
                buffer_of.insert(value, buffer);
            }
        }
        let (mut names, mut next) = (HashSet::new(), HashMap::new());
        let mut kernels = Vec::new();
        for FusedKernel { body, members } in self.kernels {
            let body = body.map(&mut |value| buffer_of[&value]);
            let reads: BTreeSet<BufferId> = body.reads().copied().collect();
            let writes: BTreeSet<BufferId> = body.stores().map(|store| store.buffer).collect();
            kernels.push(Kernel {
                name: unique(kernel_name(graph, &members), &mut names, &mut next),
                body,
                choice: none_yet(),
                reads: reads.into_iter().collect(),
                writes: writes.into_iter().collect(),
                nodes: members.iter().map(|&m| graph.node(m).name.clone()).collect(),
            });
        }
        let mut outputs = Vec::new();
        for output in &graph.outputs {
            let value = base(graph, output.node);
            let buffer = buffer_of[self.returned.get(&value).unwrap_or(&ValueId::of(value))];
            let role = &mut buffers[buffer.index()].role;
            if *role == BufferRole::Temporary {
                *role = BufferRole::Output;
            }
            outputs.push(ScheduleOutput {
                name: output.name.clone(),
                shape: graph.shape(output.node).to_vec(),
                buffer,
            });
        }
        Ok(Assembled { kernels, before: self.before, buffers, outputs })
    }
}

/// The first node of each state tensor.
fn state_nodes(graph: &Graph) -> HashMap<&str, NodeId> {
    let mut nodes = HashMap::new();
    for id in graph.ids() {
        if let Op::State { name, .. } = graph.op(id) {
            nodes.entry(name.as_str()).or_insert(id);
        }
    }
    nodes
}

/// A human-readable name: the operation around which the kernel is built, and what its result is called. The reductions
/// of an update only look at what it makes.
fn kernel_name(graph: &Graph, members: &[NodeId]) -> String {
    let reduces = |&&m: &&NodeId| matches!(graph.op(m), Op::Reduce { .. });
    let updates = |&&m: &&NodeId| matches!(graph.node(m).origin.role, Role::Optimiser(_));
    let core = members.iter().find(|&&m| graph.op(m).is_contraction());
    let core = core.or_else(|| members.iter().find(|m| reduces(m) && !updates(m)));
    let core = core.or_else(|| members.iter().rfind(|m| !reduces(m)));
    let Some(&main) = core.or(members.last()) else { return "copy".to_string() };
    let node = graph.node(main);
    let named = if node.name.contains(node.op.name()) {
        node.name.clone()
    } else {
        format!("{}_{}", node.op.name(), node.name)
    };
    named.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

/// A name that is not taken; `next` holds the number to try next for each name that was.
fn unique(name: String, taken: &mut HashSet<String>, next: &mut HashMap<String, usize>) -> String {
    if taken.insert(name.clone()) {
        return name;
    }
    let suffix = next.entry(name.clone()).or_insert(2);
    loop {
        let candidate = format!("{name}_{suffix}");
        *suffix += 1;
        if taken.insert(candidate.clone()) {
            return candidate;
        }
    }
}

/// For each value that a body of nests reads, the nests that do.
pub fn nests_reading<B: Copy + Eq + Hash>(body: &Body<B>) -> HashMap<B, Vec<usize>> {
    let mut reading: HashMap<B, Vec<usize>> = HashMap::new();
    let nests: &[Nest<B>] = match body {
        Body::Nests(nests) => nests,
        Body::Contraction(_) | Body::Transform(_) => &[],
    };
    for (n, nest) in nests.iter().enumerate() {
        for &read in nest.exprs.reads() {
            let nests = reading.entry(read).or_default();
            if nests.last() != Some(&n) {
                nests.push(n);
            }
        }
    }
    reading
}

/// Whether a kernel that stores `value` may write it over `old`, which it may read: every read of
/// `old` is of the very element that is written in the same step of the same nest, no later sweep reads
/// it, and it is not stored elsewhere as it is (a device may then read it after the write). `reading` is what
/// [`nests_reading`] gives for the body: a kernel that updates a thousand tensors is asked a thousand times.
pub fn writes_where_it_reads<B: Copy + Eq + Hash>(
    body: &Body<B>,
    reading: &HashMap<B, Vec<usize>>,
    old: B,
    value: B,
) -> bool {
    match body {
        Body::Nests(nests) => {
            reading.get(&old).into_iter().flatten().all(|&n| nest_writes_where_it_reads(&nests[n], old, value))
        }
        Body::Contraction(c) => contraction_writes_where_it_reads(c, old, value),
        Body::Transform(t) => t.operand != old,
    }
}

fn nest_writes_where_it_reads<B: Copy + PartialEq>(nest: &Nest<B>, old: B, value: B) -> bool {
    let reads = readers(&nest.exprs, old);
    if reads.is_empty() {
        return true;
    }
    let kept = kept_shape(&nest.space, &nest.reduced);
    let is_result = |s: &&Store<B>| s.buffer == value;
    let writing: Vec<usize> = (0..nest.sweeps.len())
        .filter(|&p| nest.sweeps[p].stores.iter().chain(&nest.sweeps[p].kept_stores).any(|s| is_result(&s)))
        .collect();
    let [sweep_index] = writing[..] else { return false };
    let sweep = &nest.sweeps[sweep_index];
    let at_kept = sweep.kept_stores.iter().any(|s| is_result(&s));
    let Some(write) = sweep.stores.iter().chain(&sweep.kept_stores).find(is_result) else { return false };
    let space = if at_kept { &kept } else { &nest.space };
    let aligned = write.access.strides.len() == space.len() && reads_only(&nest.exprs, &reads, old, &write.access);
    let stored_as_is = nest.stores().any(|s| s.buffer != value && reads.contains(&s.value));
    let uses = |sweep: &Sweep<B>, kept: bool| {
        let kept_values = sweep.kept_values().filter(|_| kept);
        let needed = nest.exprs.needed(sweep.swept().chain(kept_values));
        reads.iter().any(|read| needed[read.index()])
    };
    // In a nest with reduced dimensions a full-level access of a kept-shaped buffer is another thing;
    // and a kept value may be read by later points only through slots.
    let later = nest.sweeps[sweep_index + 1..].iter().any(|p| uses(p, true));
    let swept = at_kept && nest.sweeps.iter().any(|p| uses(p, false));
    // Kept values are computed one after the other, each as it is written.
    let others = sweep.kept_stores.iter().filter(|s| at_kept && s.buffer != value).map(|s| s.value);
    let others = nest.exprs.needed(others);
    aligned && !stored_as_is && !later && !swept && !reads.iter().any(|read| others[read.index()])
}

fn contraction_writes_where_it_reads<B: Copy + PartialEq>(c: &Contraction<B>, old: B, value: B) -> bool {
    let is_multiplied = c.operands.iter().any(|operand| operand.reads().any(|read| *read == old));
    let reads = readers(&c.exprs, old);
    if let Some(may) = c.finish.may_overwrite(&old, &value) {
        // Other points may still be computed.
        return !is_multiplied && reads.is_empty() && may;
    }
    let aligned = match c.stores.iter().find(|s| s.buffer == value) {
        Some(write) => reads_only(&c.exprs, &reads, old, &write.access),
        None => reads.is_empty(),
    };
    let stored_as_is = c.stores.iter().any(|s| s.buffer != value && reads.contains(&s.value));
    // A second sweep reads what deviations are of, after the first has stored.
    let deviations = c.reductions.iter().filter(|r| r.kind == ReduceKind::Deviations).map(|r| r.value);
    let swept_again = c.exprs.needed(deviations);
    let is_read_again = reads.iter().any(|read| swept_again[read.index()]);
    let is_read_later = is_read_again || !readers(&c.finish.exprs, old).is_empty();
    !is_multiplied && aligned && !stored_as_is && !is_read_later
}

/// The expressions that themselves read `old`.
fn readers<B: PartialEq>(exprs: &Exprs<B>, old: B) -> Vec<ExprId> {
    exprs.ids().filter(|&id| exprs[id].reads().any(|read| *read == old)).collect()
}

/// Whether all of `reads` load `old` by this access.
fn reads_only<B: PartialEq>(exprs: &Exprs<B>, reads: &[ExprId], old: B, by: &Access) -> bool {
    let is_such =
        |id: &ExprId| matches!(&exprs[*id], Expr::Load { buffer, access, .. } if *buffer == old && access == by);
    reads.iter().all(is_such)
}
