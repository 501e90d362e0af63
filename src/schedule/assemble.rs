//! Numbering the buffers of fused kernels, and letting state be updated in place.

use super::ScheduleError;
use super::fuse::{FusedKernel, base, loads};
use crate::ir::{Graph, NodeId, Op};
use crate::kernel::body::{Body, Expr, Kernel, Nest, Operand, Pass, Store};
use crate::kernel::schedule::{Buffer, BufferRole, ScheduleOutput, StateLayout};
use crate::kernel::view::{View, kept_shape};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

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
pub fn assemble(graph: &Graph, fused: Vec<FusedKernel>, states: &StateLayout) -> Result<Assembled, ScheduleError> {
    let mut work = Work::new(graph, fused);
    work.keep_old_states(graph);
    for update in &graph.updates {
        let Some(state) = state_node(graph, &update.state) else {
            return Err(ScheduleError::UnknownState(update.state.clone()));
        };
        let value = base(graph, update.node);
        if value != state && !work.write_in_place(value.index(), state.index()) {
            work.copy_into(graph, value, state);
        }
    }
    work.number(graph, states)
}

/// Kernels whose buffers are still named by the node whose value they hold (or a number beyond, for
/// copies), which keeps a state tensor's old and new value apart.
struct Work {
    kernels: Vec<FusedKernel>,
    before: Vec<BTreeSet<usize>>,
    reads: Vec<HashSet<usize>>,
    /// The kernel that computes each value.
    writer: HashMap<usize, usize>,
    /// Values that are written into the place of a state tensor, by the state node's index.
    in_place: BTreeMap<usize, usize>,
    /// What the values beyond the graph's nodes are copies of.
    copies: HashMap<usize, NodeId>,
    /// For state that is given out and updated: the copy that is given out.
    given_out: HashMap<NodeId, usize>,
    next_value: usize,
}

impl Work {
    fn new(graph: &Graph, kernels: Vec<FusedKernel>) -> Work {
        let mut work = Work {
            kernels: Vec::new(),
            before: Vec::new(),
            reads: Vec::new(),
            writer: HashMap::new(),
            in_place: BTreeMap::new(),
            copies: HashMap::new(),
            given_out: HashMap::new(),
            next_value: graph.bound(),
        };
        for kernel in kernels {
            work.push(kernel);
        }
        work
    }

    /// Adds a kernel after all that it reads and before what overwrites that.
    fn push(&mut self, mut kernel: FusedKernel) {
        let index = self.kernels.len();
        let reads: HashSet<usize> = loads(&kernel.body).into_iter().collect();
        kernel.body.each_store(&mut |store| {
            self.writer.insert(store.buffer, index);
        });
        for (value, state) in &self.in_place {
            if reads.contains(state) {
                self.before[self.writer[value]].insert(index);
            }
        }
        self.before.push(reads.iter().filter_map(|r| self.writer.get(r).copied()).filter(|&w| w != index).collect());
        self.reads.push(reads);
        self.kernels.push(kernel);
    }

    /// Whether `later` must run after `earlier` already.
    fn follows(&self, later: usize, earlier: usize) -> bool {
        let mut stack = vec![later];
        let mut seen = HashSet::from([later]);
        while let Some(kernel) = stack.pop() {
            if kernel == earlier {
                return true;
            }
            stack.extend(self.before[kernel].iter().copied().filter(|k| seen.insert(*k)));
        }
        false
    }

    /// Lets the kernel that computes `value` write it over the state's old value, if every other reader
    /// of the old value can run before, and the kernel itself reads it only where it writes.
    fn write_in_place(&mut self, value: usize, state: usize) -> bool {
        let Some(&writer) = self.writer.get(&value) else { return false };
        let readers: Vec<usize> =
            (0..self.kernels.len()).filter(|&k| k != writer && self.reads[k].contains(&state)).collect();
        let possible = !self.in_place.contains_key(&value)
            && !readers.iter().any(|&reader| self.follows(reader, writer))
            && writes_where_it_reads(&self.kernels[writer].body, state, value);
        if possible {
            self.before[writer].extend(readers);
            self.in_place.insert(value, state);
        }
        possible
    }

    /// Copies state that is an output as it was before the run, and is updated by it.
    fn keep_old_states(&mut self, graph: &Graph) {
        for output in &graph.outputs {
            let value = base(graph, output.node);
            let Op::State { name, .. } = graph.op(value) else { continue };
            let is_updated = graph.updates.iter().any(|u| u.state == *name && base(graph, u.node) != value);
            if is_updated && !self.given_out.contains_key(&value) {
                let copy = self.copy(value, value.index(), graph.shape(value));
                self.given_out.insert(value, copy);
            }
        }
    }

    /// Copies `value` into the state's place by a kernel that runs last; through a temporary where the
    /// value is itself an input or an old state, which may be overwritten by then.
    fn copy_into(&mut self, graph: &Graph, value: NodeId, state: NodeId) {
        let shape = graph.shape(value);
        let mut source = value.index();
        if !self.writer.contains_key(&source) {
            source = self.copy(value, value.index(), shape);
        }
        let target = self.copy(value, source, shape);
        let placed = self.write_in_place(target, state.index());
        assert!(placed, "nothing depends on the last copy into {}", graph.node(state).name);
    }

    /// Adds a kernel that copies `from`, which holds `node`'s value, to a new value.
    fn copy(&mut self, node: NodeId, from: usize, shape: &[usize]) -> usize {
        let to = self.next_value;
        self.next_value += 1;
        self.copies.insert(to, node);
        let load = Expr::Load { buffer: from, view: View::contiguous(shape) };
        let pass = Pass { stores: vec![Store { value: 0, buffer: to }], ..Pass::default() };
        let (space, reduced) = (shape.to_vec(), vec![false; shape.len()]);
        let nest = Nest { space, reduced, exprs: vec![load], slots: 0, passes: vec![pass] };
        self.push(FusedKernel { body: Body::Nests(vec![nest]), members: Vec::new() });
        to
    }

    /// Gives every value a buffer, the same one to a state's old and new value.
    fn number(mut self, graph: &Graph, states: &StateLayout) -> Result<Assembled, ScheduleError> {
        let mut buffers: Vec<Buffer> = Vec::new();
        let mut buffer_of: HashMap<usize, usize> = HashMap::new();
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
            buffer_of.insert(id.index(), buffers.len());
            buffers.push(Buffer { name: node.name.clone(), dtype, shape, role, offset, live: (0, 0) });
        }
        for kernel in &mut self.kernels {
            let mut stored = Vec::new();
            kernel.body.each_store(&mut |store| stored.push(store.buffer));
            for value in stored {
                let buffer = match self.in_place.get(&value) {
                    Some(state) => buffer_of[state],
                    None => {
                        let id = self.copies.get(&value).copied().unwrap_or_else(|| NodeId::new(value));
                        let node = graph.node(id);
                        let (dtype, shape, role) = (node.ty.dtype, node.ty.shape.clone(), BufferRole::Temporary);
                        buffers.push(Buffer { name: node.name.clone(), dtype, shape, role, offset: 0, live: (0, 0) });
                        buffers.len() - 1
                    }
                };
                buffer_of.insert(value, buffer);
            }
        }
        let mut names = HashSet::new();
        let mut kernels = Vec::new();
        for FusedKernel { mut body, members } in self.kernels {
            let (mut reads, mut writes) = (BTreeSet::new(), BTreeSet::new());
            body.each_read(&mut |buffer| {
                *buffer = buffer_of[buffer];
                reads.insert(*buffer);
            });
            body.each_store(&mut |store| {
                store.buffer = buffer_of[&store.buffer];
                writes.insert(store.buffer);
            });
            kernels.push(Kernel {
                name: unique(kernel_name(graph, &members), &mut names),
                body,
                reads: reads.into_iter().collect(),
                writes: writes.into_iter().collect(),
                nodes: members.iter().map(|&m| graph.node(m).name.clone()).collect(),
            });
        }
        let mut outputs = Vec::new();
        for output in &graph.outputs {
            let value = base(graph, output.node);
            let buffer = buffer_of[self.given_out.get(&value).unwrap_or(&value.index())];
            if buffers[buffer].role == BufferRole::Temporary {
                buffers[buffer].role = BufferRole::Output;
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

fn state_node(graph: &Graph, state: &str) -> Option<NodeId> {
    graph.ids().into_iter().find(|&id| matches!(graph.op(id), Op::State { name, .. } if name == state))
}

/// A name for people: the operation around which the kernel is built, and what its result is called.
fn kernel_name(graph: &Graph, members: &[NodeId]) -> String {
    let core = members.iter().find(|&&m| graph.op(m).is_contraction());
    let core = core.or_else(|| members.iter().find(|&&m| matches!(graph.op(m), Op::Reduce { .. })));
    let Some(&main) = core.or(members.last()) else { return "copy".to_string() };
    let node = graph.node(main);
    let named = if node.name.contains(node.op.name()) {
        node.name.clone()
    } else {
        format!("{}_{}", node.op.name(), node.name)
    };
    named.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

fn unique(name: String, taken: &mut HashSet<String>) -> String {
    let mut candidate = name.clone();
    let mut suffix = 1;
    while !taken.insert(candidate.clone()) {
        suffix += 1;
        candidate = format!("{name}_{suffix}");
    }
    candidate
}

/// Whether a kernel that stores `value` may write it over `old`, which it may read: every read of
/// `old` is of the very element that is written in the same step of the same nest, no later pass reads
/// it, and it is not stored elsewhere as it is (a device may then read it after the write).
pub fn writes_where_it_reads(body: &Body, old: usize, value: usize) -> bool {
    let reads_old = |expr: &Expr| matches!(expr, Expr::Load { buffer, .. } if *buffer == old);
    let keyed_by_old = |expr: &Expr| {
        let mut expr = Body::Nests(vec![Nest {
            space: vec![],
            reduced: vec![],
            exprs: vec![expr.clone()],
            slots: 0,
            passes: vec![],
        }]);
        let mut found = false;
        expr.each_read(&mut |buffer| found |= *buffer == old);
        found
    };
    match body {
        Body::Nests(nests) => nests.iter().all(|nest| {
            let reads: Vec<usize> = (0..nest.exprs.len()).filter(|&i| keyed_by_old(&nest.exprs[i])).collect();
            if reads.is_empty() {
                return true;
            }
            let kept = kept_shape(&nest.space, &nest.reduced);
            let [pass_index] = (0..nest.passes.len())
                .filter(|&p| nest.passes[p].stores.iter().chain(&nest.passes[p].kept_stores).any(|s| s.buffer == value))
                .collect::<Vec<_>>()[..]
            else {
                return false;
            };
            let at_kept = nest.passes[pass_index].kept_stores.iter().any(|s| s.buffer == value);
            let space = if at_kept { &kept } else { &nest.space };
            let aligned = reads.iter().all(
                |&i| matches!(&nest.exprs[i], Expr::Load { buffer, view } if *buffer == old && view.is_contiguous(space)),
            );
            let stored_as_is = nest
                .passes
                .iter()
                .flat_map(|p| p.stores.iter().chain(&p.kept_stores))
                .any(|s| s.buffer != value && reads.contains(&s.value));
            let used_in = |p: &Pass| uses(nest, p).iter().any(|e| reads.contains(e));
            // In a nest with reduced dimensions a full-level view of a kept-shaped buffer is another thing;
            // and a kept value may be read by later points only through slots.
            let later = nest.passes[pass_index + 1..].iter().any(used_in);
            let swept = at_kept && nest.passes.iter().any(|p| swept_uses(nest, p).iter().any(|e| reads.contains(e)));
            // Kept values are computed one after the other, each as it is written.
            let mut others = BTreeSet::new();
            let kept_stores = nest.passes[pass_index].kept_stores.iter();
            reach(nest, kept_stores.filter(|s| at_kept && s.buffer != value).map(|s| s.value), &mut others);
            aligned && !stored_as_is && !later && !swept && !reads.iter().any(|read| others.contains(read))
        }),
        Body::Contraction(c) => {
            let in_operand = c.operands.iter().any(|operand| match operand {
                Operand::Buffer { buffer, .. } => *buffer == old,
                Operand::Computed { exprs } => exprs.iter().any(keyed_by_old),
            });
            let aligned = c.exprs.iter().filter(|e| keyed_by_old(e)).all(
                |e| matches!(e, Expr::Load { view, .. } if reads_old(e) && view.is_contiguous(&c.space)),
            );
            let stored_as_is = c.stores.iter().any(|s| s.buffer != value && reads_old(&c.exprs[s.value]));
            !in_operand && aligned && !stored_as_is
        }
    }
}

/// The expressions that a pass evaluates.
fn uses(nest: &Nest, pass: &Pass) -> BTreeSet<usize> {
    let mut found = swept_uses(nest, pass);
    let kept = pass.kept.iter().map(|(_, value)| *value).chain(pass.kept_stores.iter().map(|s| s.value));
    reach(nest, kept, &mut found);
    found
}

/// The expressions that a pass evaluates at every point of the full space.
fn swept_uses(nest: &Nest, pass: &Pass) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let roots = pass.reductions.iter().map(|r| r.value).chain(pass.stores.iter().map(|s| s.value));
    reach(nest, roots, &mut found);
    found
}

fn reach(nest: &Nest, roots: impl Iterator<Item = usize>, found: &mut BTreeSet<usize>) {
    let mut stack: Vec<usize> = roots.collect();
    while let Some(id) = stack.pop() {
        if found.insert(id)
            && let Expr::Scalar { args, .. } = &nest.exprs[id]
        {
            stack.extend(args);
        }
    }
}
