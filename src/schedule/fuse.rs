//! Fusion: which nodes are computed by which kernel.
//!
//! 1. Some nodes must have a value of their own, if only inside a kernel: the *atoms*. They are the
//!    results, contractions, reductions, and elementwise values with several users that cost more to
//!    recompute than to keep. All others are inlined where they are used.
//! 2. Each atom starts as a group of its own. In topological order every atom's group is merged with
//!    its producers' and with groups that read the same memory, wherever the merged group still lowers
//!    to one kernel and no path leaves the group and comes back. Kernels over much memory that have hardly any of it
//!    in common stay apart, so that each can run when it is wanted.
//!    An update joins the contraction that makes its gradient, where the target wants that and nobody else reads it, and so do
//!    reductions of what a contraction computes, where its algorithm can reduce tile by tile, and what is computed of them
//!    element by element, or has their shape, where the contraction need not wait for anything else.
//! 3. The groups that update one network's parameters, and look at them on the way, become one multi-tensor kernel. So do
//!    draws of bits, each of which is a group of its own, and where the target wants that, those that round states.

mod why;

use super::atoms::choose_atoms;
use super::dimensions::same_reduction;
use super::draws::kept_as_bits;
use super::lower::{Core, Lowering, Refusal};
use super::multi_tensor::multi_tensor;
use super::physical::{Orders, is_rounded_state, pixel_major, walked_in_memory_order};
use super::topological::Topological;
use super::value::ValueId;
use super::windows::{residues_apart, taps_apart};
use crate::ir::{Graph, NodeId, Op, Role};
use crate::kernel::body::{Body, Expr};
use crate::kernel::target::{EpilogueReductions, Fusion, Layout, Policy, Strategy};
use crate::scalar::ScalarOp;
use std::collections::{BTreeMap, BTreeSet, HashSet};
pub use why::{NotFused, why_not_fused};

/// What kernels have in common that become one multi-tensor kernel.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Together {
    /// They update parameters of one network.
    Optimiser(String),
    /// They draw bits.
    Bits,
    /// They round states, and so wait for no other kernel.
    Rounded,
}

/// The nodes of one kernel.
#[derive(Debug, Clone)]
pub struct Group {
    pub core: Core,
    /// In topological order.
    pub members: Vec<NodeId>,
    /// The network whose parameters are updated here.
    pub optimiser: Option<String>,
}

/// One kernel before its buffers have numbers: they are named by the node's index.
#[derive(Debug, Clone)]
pub struct FusedKernel {
    pub body: Body<ValueId>,
    /// The atoms in it, in topological order; the first contraction or reduction names it.
    pub members: Vec<NodeId>,
}

/// Kernels, the values that lie in memory in another order than their shape's, and those that are kept as bits.
#[derive(Debug, Clone, Default)]
pub struct Fused {
    pub kernels: Vec<FusedKernel>,
    pub orders: Orders,
    pub bits: HashSet<NodeId>,
}

/// A group whose expressions come from this many nodes grows no further: fusion has saved what it can by then, and
/// devices and their compilers handle a kernel of that size well.
const FULL_WEIGHT: usize = 256;

/// Kernels over at least so many elements are worth a launch of their own, unless they have in common more than this
/// part of them.
const LARGE: usize = 1 << 16;
const LITTLE: usize = 16;

/// Of the groups that read one value, how many are tried at most with each atom: those next to its own.
const MOST_SIBLINGS: usize = 64;

/// The nodes that results depend on in topological order, and by a node's index its place in it.
fn live_order(graph: &Graph) -> (Vec<NodeId>, Vec<usize>) {
    let live = graph.live();
    let order: Vec<NodeId> = graph.topological().into_iter().filter(|id| live[id.index()]).collect();
    let mut rank = vec![0; graph.bound()];
    for (i, id) in order.iter().enumerate() {
        rank[id.index()] = i;
    }
    (order, rank)
}

/// Groups the nodes that results depend on into kernels, in a topological order of kernels. `states` are the orders of
/// state tensors and of what they are updated to.
///
/// Which reductions a contraction computes is known once it has an algorithm, which it has once it is known how its operands
/// lie in memory. So all are fused that may be, and where `are_reduced` says of a contraction among the kernels that its
/// algorithm does not reduce tile by tile, fusion starts again without its reductions.
pub fn fuse(
    graph: &Graph,
    strategy: &Strategy,
    states: &Orders,
    are_reduced: &dyn Fn(&[FusedKernel]) -> Vec<bool>,
) -> Fused {
    let mut apart = HashSet::new();
    loop {
        let fused = fuse_but(graph, strategy, states, &apart);
        let declined = match strategy.policy.epilogue_reductions {
            EpilogueReductions::Never | EpilogueReductions::Always => break fused,
            EpilogueReductions::InTiles => {
                let kernels = fused.kernels.iter().zip(are_reduced(&fused.kernels));
                let not_reduced = kernels.filter(|(_, is_reduced)| !is_reduced).map(|(kernel, _)| kernel);
                reductions_of_contractions(graph, not_reduced)
            }
        };
        let before = apart.len();
        apart.extend(declined);
        if apart.len() == before {
            break fused;
        }
    }
}

/// The reductions in epilogues of those kernels that are contractions, but for those of updates.
fn reductions_of_contractions<'k>(graph: &Graph, kernels: impl Iterator<Item = &'k FusedKernel>) -> Vec<NodeId> {
    let contractions = kernels.filter(|kernel| matches!(kernel.body, Body::Contraction(_)));
    contractions.flat_map(|kernel| &kernel.members).copied().filter(|&id| is_statistic(graph, id)).collect()
}

/// Whether a node is a reduction that is not part of an update.
fn is_statistic(graph: &Graph, id: NodeId) -> bool {
    matches!(graph.op(id), Op::Reduce { .. }) && !matches!(graph.node(id).origin.role, Role::Optimiser(_))
}

/// [`fuse`] where no contraction computes the reductions `apart`.
fn fuse_but(graph: &Graph, strategy: &Strategy, states: &Orders, apart: &HashSet<NodeId>) -> Fused {
    let fusion = strategy.fusion;
    let (order, rank) = live_order(graph);
    let (atoms, in_memory) = choose_atoms(graph, &order, strategy, states);
    let lowering = Lowering::new(graph, &in_memory, states, &strategy.policy);
    let mut groups = Groups::new(&lowering, &order, &atoms, &rank, strategy.policy);
    groups.apart.clone_from(apart);
    if fusion == Fusion::On {
        for &atom in order.iter().filter(|id| atoms[id.index()]) {
            groups.merge_around(atom);
        }
    }
    let bits = groups.bits.clone();
    let mut groups = groups.finish(&rank);
    let results: HashSet<NodeId> = graph.results().into_iter().map(|id| base(graph, id)).collect();

    // What other groups read must be stored, and so must results.
    let read = |groups: &[Group]| -> HashSet<ValueId> {
        let mut read = HashSet::new();
        for group in groups {
            if let Ok(body) = lowering.body(&group.core, &group.members, &|_| true) {
                let own: HashSet<ValueId> = group.members.iter().map(|&m| ValueId::of(m)).collect();
                read.extend(body.reads().filter(|value| !own.contains(value)));
            }
        }
        read
    };
    // A group of which nothing is stored is no kernel: windows, where no tap of theirs lies on a pixel.
    let read = loop {
        let (read, before) = (read(&groups), groups.len());
        let is_stored = |id: &NodeId| results.contains(id) || read.contains(&ValueId::of(*id));
        groups.retain(|group| group.members.iter().any(is_stored));
        if groups.len() == before {
            break read;
        }
    };
    let stored = |id: NodeId| results.contains(&id) || read.contains(&ValueId::of(id));
    let orders = match strategy.policy.layout {
        Layout::RowMajor => states.clone(),
        Layout::PixelMajor => {
            pixel_major(&lowering, &groups, &|id| read.contains(&ValueId::of(id)) && !results.contains(&id))
        }
    };
    let lowering = Lowering { orders: &orders, ..lowering };
    let mut kernels: Vec<(Option<Together>, FusedKernel)> = Vec::new();
    for group in groups {
        let body = match lowering.body(&group.core, &group.members, &stored) {
            Ok(body) if orders.is_empty() => body,
            Ok(body) => walked_in_memory_order(body),
            Err(refusal) => panic!("a group that was accepted no longer lowers: {refusal:?}"),
        };
        let nests = matches!(&body, Body::Nests(_));
        let together = match group.optimiser.clone() {
            _ if group.members.iter().any(|member| bits.contains(member)) => Some(Together::Bits),
            _ if strategy.policy.rounds_together
                && group.members.iter().all(|&member| is_rounded_state(graph, member)) =>
            {
                Some(Together::Rounded)
            }
            network => network.map(Together::Optimiser),
        };
        let key = together.filter(|_| nests && fusion == Fusion::On);
        kernels.push((key, FusedKernel { body, members: group.members }));
    }
    Fused { kernels: multi_tensor(kernels), orders, bits }
}

/// The node whose buffer holds the value: reshapes move nothing.
pub fn base(graph: &Graph, mut id: NodeId) -> NodeId {
    while let Op::Reshape { .. } = graph.op(id) {
        id = graph.operands(id)[0];
    }
    id
}

pub(super) fn core_of(graph: &Graph, id: NodeId) -> Core {
    match graph.op(id) {
        op if op.is_contraction() => Core::Contraction(id),
        Op::Winograd(_) => Core::Transform(id),
        Op::Reduce { axes, .. } => {
            let space = graph.shape(graph.operands(id)[0]).to_vec();
            let reduced = (0..space.len()).map(|d| axes.contains(&d)).collect();
            Core::Nest { space, reduced }
        }
        op => {
            let space = match op {
                Op::Im2col { kernel, .. } => taps_apart(*kernel, graph.shape(graph.operands(id)[0]), graph.shape(id)),
                Op::Col2im { window, .. } => residues_apart(window, graph.shape(id)),
                _ => graph.shape(id).to_vec(),
            };
            let reduced = vec![false; space.len()];
            Core::Nest { space, reduced }
        }
    }
}

type GroupId = usize;

/// Groups under construction; a merged group's members move to the other, leaving it empty.
struct Groups<'l> {
    lowering: &'l Lowering<'l>,
    groups: Vec<Group>,
    /// The atoms, inputs and state that each group reads, its own members left out.
    reads: Vec<BTreeSet<NodeId>>,
    group_of: Vec<Option<GroupId>>,
    /// For each in-memory node, the groups that read it.
    readers: Vec<BTreeSet<GroupId>>,
    rank: &'l [usize],
    policy: Policy,
    /// The reductions that no contraction computes.
    apart: HashSet<NodeId>,
    /// The nodes whose values leave the graph.
    results: HashSet<NodeId>,
    /// The draws that are kept as bits.
    bits: HashSet<NodeId>,
    /// How many nodes each group's expressions come from, those in several counted as often.
    weight: Vec<usize>,
    /// What each group reads in another order than it computes, for groups that reduce nothing: see
    /// [`Groups::lowers_as_they_are`].
    moved: Vec<BTreeSet<NodeId>>,
    /// A topological order of the groups.
    order: Topological,
    /// Paths of atoms, each of which reads the one before; every atom is on one. For each group by a path the first and
    /// the last place that it has there.
    on_paths: Vec<BTreeMap<usize, (usize, usize)>>,
}

/// What two groups would be as one kernel.
struct Merged {
    core: Core,
    members: Vec<NodeId>,
    moved: BTreeSet<NodeId>,
}

impl<'l> Groups<'l> {
    fn new(lowering: &'l Lowering<'l>, order: &[NodeId], atoms: &[bool], rank: &'l [usize], policy: Policy) -> Self {
        let graph = lowering.graph;
        let mut this = Groups {
            lowering,
            groups: Vec::new(),
            reads: Vec::new(),
            group_of: vec![None; graph.bound()],
            readers: vec![BTreeSet::new(); graph.bound()],
            rank,
            policy,
            apart: HashSet::new(),
            results: graph.results().into_iter().collect(),
            bits: kept_as_bits(graph, &policy),
            weight: Vec::new(),
            moved: Vec::new(),
            order: Topological::default(),
            on_paths: Vec::new(),
        };
        // The last atom of each path, and by an atom its path and place there.
        let (mut last, mut place) = (Vec::new(), vec![(0, 0); graph.bound()]);
        for &id in order.iter().filter(|id| atoms[id.index()]) {
            let group = this.groups.len();
            let optimiser = match &graph.node(id).origin.role {
                Role::Optimiser(network) => Some(network.clone()),
                Role::Forward | Role::Gradient(_) => None,
            };
            let core = core_of(graph, id);
            this.moved.push(lowering.body(&core, &[id], &|_| true).map(|body| moved(&body)).unwrap_or_default());
            this.groups.push(Group { core, members: vec![id], optimiser });
            this.group_of[id.index()] = Some(group);
            this.order.push();
            let (reads, weight) = in_memory_operands(lowering, id);
            this.weight.push(weight);
            // On from the latest atom that it reads, where that ends a path.
            let latest = reads.iter().filter(|read| atoms[read.index()]).max_by_key(|read| rank[read.index()]);
            let (path, at) = match latest.map(|&read| (read, place[read.index()])) {
                Some((read, (path, at))) if last[path] == read => {
                    last[path] = id;
                    (path, at + 1)
                }
                _ => {
                    last.push(id);
                    (last.len() - 1, 0)
                }
            };
            place[id.index()] = (path, at);
            this.on_paths.push(BTreeMap::from([(path, (at, at))]));
            for read in &reads {
                this.readers[read.index()].insert(group);
            }
            this.reads.push(reads);
        }
        this
    }

    fn producers(&self, group: GroupId) -> BTreeSet<GroupId> {
        self.reads[group].iter().filter_map(|r| self.group_of[r.index()]).filter(|&g| g != group).collect()
    }

    /// Merges the atom's group with its producers' groups and with those that read the same memory.
    fn merge_around(&mut self, atom: NodeId) {
        let mut refused = HashSet::new();
        loop {
            let Some(group) = self.group_of[atom.index()] else { return };
            if self.weight[group] >= FULL_WEIGHT {
                return;
            }
            let mut producers: Vec<GroupId> = self.producers(group).into_iter().collect();
            // A group can need a later atom by way of a sibling.
            producers.retain(|&producer| !(self.is_later(producer, atom) && self.may_be_in_epilogue(producer)));
            // The latest producer first: its value is the freshest.
            producers.sort_by_key(|&g| std::cmp::Reverse(self.groups[g].members.last().map(|m| self.rank[m.index()])));
            let full = self.graph().ty(atom).elements().max(self.space_elements(group));
            let large = self.reads[group].iter().filter(|read| self.graph().ty(**read).elements() * 2 > full);
            let siblings = large.flat_map(|read| self.siblings(group, *read));
            let found = producers.into_iter().chain(siblings).find_map(|other| {
                if refused.contains(&other) {
                    return None;
                }
                let merged = match self.surely_around(other, group) {
                    Some(_) => None,
                    None => self.merged(other, group).ok(),
                };
                if merged.is_none() {
                    refused.insert(other);
                }
                merged.map(|merged| (other, merged))
            });
            let Some((other, merged)) = found else { return };
            self.merge(other, group, merged);
        }
    }

    /// Groups that read the same value and take more: all in their order, or of many those with the nearest numbers, which
    /// is next to the group in the program.
    fn siblings(&self, group: GroupId, read: NodeId) -> Vec<GroupId> {
        let readers = &self.readers[read.index()];
        let is_open = |&g: &GroupId| g != group && self.weight[g] < FULL_WEIGHT && !self.may_be_in_epilogue(g);
        let most = if readers.len() <= MOST_SIBLINGS { MOST_SIBLINGS } else { MOST_SIBLINGS / 2 };
        let mut siblings: Vec<GroupId> = readers.range(..group).rev().copied().filter(is_open).take(most).collect();
        siblings.reverse();
        siblings.extend(readers.range(group..).copied().filter(is_open).take(most));
        siblings
    }

    /// Whether the group is a reduction alone that a contraction may compute where it makes what is reduced. That comes first.
    fn may_be_in_epilogue(&self, group: GroupId) -> bool {
        let is_contraction = |g: GroupId| matches!(self.groups[g].core, Core::Contraction(_));
        match self.groups[group].members[..] {
            [only] => {
                self.policy.epilogue_reductions == EpilogueReductions::InTiles
                    && matches!(self.graph().op(only), Op::Reduce { .. })
                    && !self.apart.contains(&only)
                    && self.producers(group).into_iter().any(is_contraction)
            }
            _ => false,
        }
    }

    /// Whether a group has not had its turn when an atom has.
    fn is_later(&self, group: GroupId, atom: NodeId) -> bool {
        self.groups[group].members.first().is_some_and(|first| self.rank[first.index()] > self.rank[atom.index()])
    }

    /// A third group through which a path leads from one to the other, where that is known without a walk: what the later
    /// group reads is further on a path on which the earlier one is. In a deep network's step nearly all pairs that are asked
    /// for are such, and a walk would go through most of the network.
    fn surely_around(&self, a: GroupId, b: GroupId) -> Option<GroupId> {
        let (from, to) = if self.order.is_before(a, b) { (a, b) } else { (b, a) };
        let starts = &self.on_paths[from];
        let mut producers = self.reads[to].iter().filter_map(|r| self.group_of[r.index()]).filter(|&p| p != from);
        producers.find(|&p| {
            let is_further =
                |(path, (_, last)): (&usize, &(usize, usize))| starts.get(path).is_some_and(|(first, _)| first < last);
            self.on_paths[p].iter().any(is_further)
        })
    }

    fn graph(&self) -> &'l Graph {
        self.lowering.graph
    }

    /// Whether the group computes numbers for the updates of larger parameters, such as Adam's bias
    /// corrections. In one kernel with the update of a bias of one element, it would keep all other
    /// updates out of that kernel.
    fn is_shared_scalar(&self, group: GroupId) -> bool {
        let optimiser = &self.groups[group].optimiser;
        let is_scalar = |g: GroupId| self.groups[g].members.iter().all(|m| self.graph().ty(*m).elements() == 1);
        if optimiser.is_none() || !is_scalar(group) {
            return false;
        }
        let (mut seen, mut stack) = (HashSet::from([group]), vec![group]);
        while let Some(next) = stack.pop() {
            for &reader in self.groups[next].members.iter().flat_map(|m| &self.readers[m.index()]) {
                if self.groups[reader].optimiser == *optimiser && seen.insert(reader) {
                    if !is_scalar(reader) {
                        return true;
                    }
                    stack.push(reader);
                }
            }
        }
        false
    }

    fn space_elements(&self, group: GroupId) -> usize {
        match &self.groups[group].core {
            Core::Nest { space, .. } => space.iter().product(),
            Core::Contraction(main) | Core::Transform(main) => self.graph().ty(*main).elements(),
        }
    }

    /// What `a` and `b` would be as one kernel, or why they can't be one.
    fn merged(&self, a: GroupId, b: GroupId) -> Result<Merged, NotFused> {
        let (ga, gb) = (&self.groups[a], &self.groups[b]);
        if ga.members.iter().chain(&gb.members).any(|member| self.bits.contains(member)) {
            return Err(NotFused::Bits);
        }
        if self.is_turned(ga) || self.is_turned(gb) {
            return Err(NotFused::Turned);
        }
        // Of an update nothing is split off to where its gradient is complete: it waits for the rate, too.
        let is_update = || self.is_update_of(a, b) || self.is_update_of(b, a);
        let finishes = || self.finishes(a, b) || self.finishes(b, a);
        if ga.optimiser != gb.optimiser && (!is_update() || finishes()) {
            return Err(NotFused::Optimiser);
        }
        let heaviest = self.weight[a].max(self.weight[b]);
        if heaviest >= FULL_WEIGHT {
            return Err(NotFused::Full(heaviest));
        }
        if self.is_shared_scalar(a) != self.is_shared_scalar(b) {
            return Err(NotFused::SharedScalar);
        }
        let core = self.merged_core(ga, gb)?;
        let mut members: Vec<NodeId> = ga.members.iter().chain(&gb.members).copied().collect();
        members.sort_by_key(|m| self.rank[m.index()]);
        if self.is_serial(&core, &members) || self.is_serial_in_epilogue(&core, ga, gb) {
            return Err(NotFused::Serial);
        }
        if self.delays(a, b) || self.delays(b, a) {
            return Err(NotFused::Waits);
        }
        if self.have_little_in_common(a, b) {
            return Err(NotFused::LittleInCommon);
        }
        if self.makes_wait(b, a) || self.makes_wait(a, b) {
            return Err(NotFused::Waits);
        }
        let known = self.surely_around(a, b);
        if let Some(through) = known.or_else(|| self.path_around(a, b)).or_else(|| self.path_around(b, a)) {
            let first = self.groups[through].members.first();
            return Err(NotFused::PathThrough(first.map_or(String::new(), |&m| self.graph().node(m).name.clone())));
        }
        if self.lowers_as_they_are(a, b) {
            debug_assert!(!cfg!(test) || self.lowering.body(&core, &members, &|_| true).is_ok());
            let moved = self.moved[a].union(&self.moved[b]).copied().collect();
            return Ok(Merged { core, members, moved });
        }
        match self.lowering.body(&core, &members, &|_| true) {
            Ok(body) if self.is_worthwhile(&body, a, b) => Ok(Merged { core, members, moved: moved(&body) }),
            Ok(_) => Err(NotFused::Unrelated),
            Err(Refusal::Misaligned) => Err(NotFused::Misaligned),
            Err(Refusal::NeedsBuffer(node)) => Err(NotFused::NeedsBuffer(self.graph().node(node).name.clone())),
        }
    }

    /// Whether a group rounds an updated weight into a copy whose dimensions lie in another order. Where the weight is computed
    /// by rows, each element of the copy would go to a sector of its own.
    fn is_turned(&self, group: &Group) -> bool {
        let graph = self.graph();
        let order = |id: NodeId| self.lowering.orders.get(&id);
        let is_across = |id: NodeId| {
            let rounds = graph.op(id).rounds_to().is_some() && self.results.contains(&id);
            let is_other = |value: NodeId| self.results.contains(&value) && order(value) != order(id);
            rounds && graph.operands(id).into_iter().any(is_other)
        };
        matches!(group.members[..], [only] if is_across(only))
    }

    /// Whether `update` updates a parameter by the gradient that `gradient` computes by a contraction, and nobody else wants
    /// that gradient.
    fn is_update_of(&self, gradient: GroupId, update: GroupId) -> bool {
        let Group { core, members, optimiser } = &self.groups[gradient];
        let network = &self.groups[update].optimiser;
        let mut readers = members.iter().flat_map(|m| &self.readers[m.index()]);
        self.policy.updates_in_epilogues
            && matches!(core, Core::Contraction(_))
            && optimiser.is_none()
            && network.is_some()
            && readers.all(|&reader| reader == gradient || self.groups[reader].optimiser == *network)
    }

    /// Whether one of the groups reduces, for few kept points, what the contraction of the other computes.
    fn is_serial_in_epilogue(&self, core: &Core, a: &Group, b: &Group) -> bool {
        let is_for_few = |group: &Group| match &group.core {
            Core::Nest { space, reduced } => {
                let kept: usize = crate::kernel::access::kept_shape(space, reduced).iter().product();
                reduced.contains(&true) && kept < self.policy.parallel_points
            }
            Core::Contraction(_) | Core::Transform(_) => false,
        };
        matches!(core, Core::Contraction(_)) && (is_for_few(a) || is_for_few(b))
    }

    /// Whether a group is computed, if it becomes one with a contraction, where that has reduced its results: at the points
    /// that it keeps.
    fn finishes(&self, group: GroupId, contraction: GroupId) -> bool {
        let Core::Contraction(main) = self.groups[contraction].core else { return false };
        matches!(self.groups[group].core, Core::Nest { .. })
            && self.space_elements(group) != self.graph().ty(main).elements()
    }

    /// Whether a group that finishes a contraction needs something else that the contraction does not wait for.
    fn delays(&self, group: GroupId, contraction: GroupId) -> bool {
        let is_waited_for = |producer: GroupId| producer == contraction || self.leads(producer, contraction);
        self.finishes(group, contraction) && !self.producers(group).into_iter().all(is_waited_for)
    }

    /// Whether the groups surely lower to one kernel, so that it need not be tried: both are over the same space, reduce
    /// nothing, and read each other's values only at the points that compute them.
    fn lowers_as_they_are(&self, a: GroupId, b: GroupId) -> bool {
        let is_elementwise = |core: &Core| matches!(core, Core::Nest { reduced, .. } if !reduced.contains(&true));
        let is_aligned =
            |of: GroupId, by: GroupId| !self.moved[by].iter().any(|r| self.group_of[r.index()] == Some(of));
        is_elementwise(&self.groups[a].core)
            && self.groups[a].core == self.groups[b].core
            && is_aligned(a, b)
            && is_aligned(b, a)
    }

    /// Makes `b` a part of `a`.
    fn merge(&mut self, a: GroupId, b: GroupId, merged: Merged) {
        self.reorder(a, b);
        let absorbed = std::mem::take(&mut self.groups[b].members);
        for member in absorbed {
            self.group_of[member.index()] = Some(a);
        }
        let reads = std::mem::take(&mut self.reads[b]);
        for read in &reads {
            self.readers[read.index()].remove(&b);
            self.readers[read.index()].insert(a);
        }
        self.reads[a].extend(reads);
        let own: Vec<NodeId> = self.reads[a].iter().copied().filter(|r| self.group_of[r.index()] == Some(a)).collect();
        for read in own {
            self.reads[a].remove(&read);
            self.readers[read.index()].remove(&a);
        }
        let optimiser = self.groups[b].optimiser.take();
        self.groups[a].optimiser = self.groups[a].optimiser.take().or(optimiser);
        self.groups[a].core = merged.core;
        self.groups[a].members = merged.members;
        self.moved[a] = merged.moved;
        self.weight[a] += self.weight[b];
        for (path, (first, last)) in std::mem::take(&mut self.on_paths[b]) {
            let (least, most) = self.on_paths[a].entry(path).or_insert((first, last));
            (*least, *most) = (first.min(*least), last.max(*most));
        }
    }

    /// Gives both groups a place in the order that is right for the two as one. Nothing is both between them and
    /// reached from both, or they would not be merged.
    fn reorder(&mut self, a: GroupId, b: GroupId) {
        let (first, last) = if self.order.is_before(a, b) { (a, b) } else { (b, a) };
        // What the later one needs must be before the two.
        let mut needed = vec![last];
        let mut seen = HashSet::from([first, last]);
        for i in 0.. {
            let Some(&group) = needed.get(i) else { break };
            let producers = self.reads[group].iter().filter_map(|r| self.group_of[r.index()]);
            needed.extend(producers.filter(|&p| self.order.is_before(first, p) && seen.insert(p)));
        }
        needed.remove(0);
        if needed.is_empty() {
            // The earlier place is right, and it is that of `a` from now on.
            if first != a {
                self.order.rearrange(&[a, b]);
            }
            return;
        }
        // And after the two what needs the earlier one.
        let mut users = vec![first];
        let mut seen = HashSet::from([first, last]);
        for i in 0.. {
            let Some(&group) = users.get(i) else { break };
            let readers = self.groups[group].members.iter().flat_map(|m| &self.readers[m.index()]).copied();
            users.extend(readers.filter(|&u| self.order.is_before(u, last) && seen.insert(u)));
        }
        users.remove(0);
        self.order.sort(&mut needed);
        self.order.sort(&mut users);
        needed.extend([a, b]);
        needed.extend(users);
        self.order.rearrange(&needed);
    }

    fn merged_core(&self, a: &Group, b: &Group) -> Result<Core, NotFused> {
        let graph = self.graph();
        match (&a.core, &b.core) {
            (Core::Transform(main), _) if is_rounding(graph, *main, &b.members) => Ok(a.core.clone()),
            (_, Core::Transform(main)) if is_rounding(graph, *main, &a.members) => Ok(b.core.clone()),
            (Core::Transform(_), _) | (_, Core::Transform(_)) => Err(NotFused::Transform),
            (Core::Contraction(_), Core::Contraction(_)) => Err(NotFused::TwoContractions),
            (Core::Contraction(main), Core::Nest { space, reduced })
            | (Core::Nest { space, reduced }, Core::Contraction(main)) => {
                let updates = a.optimiser.is_some() && a.optimiser == b.optimiser && self.policy.updates_in_epilogues;
                let is_apart = || a.members.iter().chain(&b.members).any(|member| self.apart.contains(member));
                let may_reduce = match self.policy.epilogue_reductions {
                    EpilogueReductions::Never => false,
                    EpilogueReductions::InTiles => !is_apart(),
                    EpilogueReductions::Always => true,
                };
                if reduced.contains(&true) && !may_reduce && !updates {
                    return Err(NotFused::ReductionOfContraction);
                }
                let nest = if matches!(a.core, Core::Contraction(_)) { b } else { a };
                let is_image = |&member: &NodeId| is_convolved_image(graph, member);
                if self.policy.layout == Layout::PixelMajor
                    && *graph.op(*main) == Op::MatMul
                    && nest.members.iter().any(is_image)
                {
                    return Err(NotFused::ImageOfProduct);
                }
                // All of it, or what is kept of it where something is reduced.
                let elements = space.iter().product::<usize>();
                let contraction = if matches!(a.core, Core::Contraction(_)) { a } else { b };
                let kept = contraction.members.iter().find(|&&member| is_statistic(graph, member));
                let fits = elements == graph.ty(*main).elements()
                    || kept.is_some_and(|&kept| elements == graph.ty(kept).elements() && !reduced.contains(&true));
                fits.then_some(Core::Contraction(*main)).ok_or(NotFused::Spaces)
            }
            (Core::Nest { space: sa, reduced: ra }, Core::Nest { space: sb, reduced: rb }) => {
                let (na, nb): (usize, usize) = (sa.iter().product(), sb.iter().product());
                let kept = |space: &[usize], reduced: &[bool]| -> usize {
                    crate::kernel::access::kept_shape(space, reduced).iter().product()
                };
                let core = match (ra.contains(&true), rb.contains(&true)) {
                    (true, true) => {
                        let axes: Vec<usize> = (0..sb.len()).filter(|&d| rb[d]).collect();
                        same_reduction(sb, &axes, sa, ra).then(|| a.core.clone())
                    }
                    (true, false) => (nb == na || nb == kept(sa, ra)).then(|| a.core.clone()),
                    (false, true) => (na == nb || na == kept(sb, rb)).then(|| b.core.clone()),
                    // Windows need the space that keeps their dimensions apart.
                    (false, false) => {
                        (na == nb).then(|| if has_windows(graph, b) { b.core.clone() } else { a.core.clone() })
                    }
                };
                core.ok_or(NotFused::Spaces)
            }
        }
    }

    /// Whether the merged nest would do much elementwise work for few kept points.
    fn is_serial(&self, core: &Core, members: &[NodeId]) -> bool {
        let Core::Nest { space, reduced } = core else { return false };
        let full: usize = space.iter().product();
        let kept: usize = crate::kernel::access::kept_shape(space, reduced).iter().product();
        let writes_full = || {
            members
                .iter()
                .any(|&m| !matches!(self.graph().op(m), Op::Reduce { .. }) && self.graph().ty(m).elements() == full)
        };
        let is_long = full > self.policy.serial_elements && kept < self.policy.parallel_points;
        full != kept && is_long && writes_full()
    }

    /// Whether what the groups read of each other and together is little beside what each goes through: as one kernel they
    /// would save next to nothing, and could not be far apart in the schedule.
    fn have_little_in_common(&self, a: GroupId, b: GroupId) -> bool {
        let least = self.space_elements(a).min(self.space_elements(b));
        if least < LARGE || self.groups[a].optimiser.is_some() || self.groups[b].optimiser.is_some() {
            return false;
        }
        let is_of = |read: &NodeId, group: GroupId| self.group_of[read.index()] == Some(group);
        let of_other = self.reads[a].iter().filter(|r| is_of(r, b)).chain(self.reads[b].iter().filter(|r| is_of(r, a)));
        let common = self.reads[a].intersection(&self.reads[b]);
        let elements: usize = of_other.chain(common).map(|&read| self.graph().ty(read).elements()).sum();
        elements < least / LITTLE
    }

    /// Whether the small group `user` of what `large` computes also needs another large group, which `large` does not. So it
    /// is where two calls of a network update a running mean one after the other: with the second call's mean in the first
    /// call's kernel, no call could run without the other.
    fn makes_wait(&self, user: GroupId, large: GroupId) -> bool {
        let elements = self.space_elements(large);
        let is_small = self.space_elements(user) < elements / LITTLE && self.groups[user].optimiser.is_none();
        if elements < LARGE || !is_small {
            return false;
        }
        let producers = self.producers(user);
        let is_new =
            |&other: &GroupId| other != large && self.space_elements(other) >= LARGE && !self.leads(other, large);
        producers.contains(&large) && producers.iter().any(is_new)
    }

    /// Whether one group needs another, directly or not.
    fn leads(&self, from: GroupId, to: GroupId) -> bool {
        self.producers(to).contains(&from) || self.path_around(from, to).is_some()
    }

    /// Groups that only read the same memory are merged unless one is a contraction, which gains nothing by it: but what
    /// can be done where it is finished needs no launch.
    fn is_worthwhile(&self, body: &Body<ValueId>, a: GroupId, b: GroupId) -> bool {
        let related = self.producers(b).contains(&a) || self.producers(a).contains(&b);
        related || matches!(body, Body::Nests(_)) || self.finishes(a, b) || self.finishes(b, a)
    }

    /// A third group through which a path leads from one group to the other.
    fn path_around(&self, from: GroupId, to: GroupId) -> Option<GroupId> {
        // A walk from `to` back over producers, without the direct edge; what is before `from` does not need it.
        if self.order.is_before(to, from) {
            return None;
        }
        let mut stack: Vec<GroupId> =
            self.producers(to).into_iter().filter(|&p| self.order.is_before(from, p)).collect();
        let mut seen: HashSet<GroupId> = stack.iter().copied().collect();
        while let Some(group) = stack.pop() {
            for producer in self.reads[group].iter().filter_map(|r| self.group_of[r.index()]) {
                if producer == from {
                    return Some(group);
                }
                if self.order.is_before(from, producer) && seen.insert(producer) {
                    stack.push(producer);
                }
            }
        }
        None
    }

    /// The groups in a topological order.
    fn finish(self, rank: &[usize]) -> Vec<Group> {
        let mut order = Vec::new();
        let mut state = vec![0u8; self.groups.len()];
        let mut ids: Vec<GroupId> = (0..self.groups.len()).filter(|&g| !self.groups[g].members.is_empty()).collect();
        let follows_producers = |g: GroupId| self.producers(g).into_iter().all(|p| self.order.is_before(p, g));
        debug_assert!(ids.iter().all(|&g| follows_producers(g)), "the order of groups was not kept");
        ids.sort_by_key(|&g| self.groups[g].members.first().map(|m| rank[m.index()]));
        for &root in &ids {
            let mut stack = vec![root];
            while let Some(&group) = stack.last() {
                match state[group] {
                    0 => {
                        state[group] = 1;
                        let mut producers: Vec<GroupId> = self.producers(group).into_iter().collect();
                        producers.retain(|&p| state[p] == 0);
                        producers.sort_by_key(|&g| {
                            std::cmp::Reverse(self.groups[g].members.first().map(|m| rank[m.index()]))
                        });
                        stack.extend(producers);
                    }
                    1 => {
                        state[group] = 2;
                        order.push(group);
                        stack.pop();
                    }
                    _ => {
                        stack.pop();
                    }
                }
            }
        }
        order.into_iter().map(|g| self.groups[g].clone()).collect()
    }
}

/// The in-memory nodes that an atom's expression reads, and how many nodes it comes from, constants left out.
fn in_memory_operands(lowering: &Lowering, atom: NodeId) -> (BTreeSet<NodeId>, usize) {
    let (mut found, mut weight) = (BTreeSet::new(), 1);
    let mut seen = HashSet::new();
    let mut stack = lowering.graph.operands(atom);
    while let Some(id) = stack.pop() {
        if !seen.insert(id) {
            continue;
        }
        if lowering.in_memory[id.index()] {
            found.insert(id);
        } else {
            weight += usize::from(!matches!(lowering.graph.op(id), Op::Constant { .. }));
            stack.extend(lowering.graph.operands(id));
        }
    }
    (found, weight)
}

/// What a body reads in another order than that of its space. Where another group computes some of that, the two do not
/// fit into one kernel as they are.
fn moved(body: &Body<ValueId>) -> BTreeSet<NodeId> {
    let Body::Nests(nests) = body else { return BTreeSet::new() };
    let mut moved = BTreeSet::new();
    for nest in nests {
        for expr in nest.exprs.iter() {
            if !matches!(expr, Expr::Load { access, .. } if access.is_contiguous(&nest.space)) {
                moved.extend(expr.reads().map(|value| NodeId::new(value.index())));
            }
        }
    }
    moved
}

/// Whether a value is an image of several pixels that a convolution reads, perhaps rounded. The epilogue of a matrix product
/// would write it row by row, where convolutions want it pixel by pixel.
fn is_convolved_image(graph: &Graph, id: NodeId) -> bool {
    let is_image = matches!(graph.shape(id), [_, _, h, w] if h * w > 1);
    let mut stack = if is_image { vec![id] } else { Vec::new() };
    while let Some(value) = stack.pop() {
        for user in graph.users(value) {
            match graph.op(user) {
                Op::Conv2d { .. } | Op::Conv2dInputGrad { .. } | Op::Conv2dFilterGrad { .. } => return true,
                Op::Convert { .. } | Op::Scalar(ScalarOp::RoundTf32) => stack.push(user),
                _ => {}
            }
        }
    }
    false
}

/// Whether a group's space is that of windows.
fn has_windows(graph: &Graph, group: &Group) -> bool {
    group.members.iter().any(|&member| matches!(graph.op(member), Op::Im2col { .. } | Op::Col2im { .. }))
}

/// Whether some nodes are one that rounds a transform to bf16, which nobody wants in f32.
fn is_rounding(graph: &Graph, transform: NodeId, nodes: &[NodeId]) -> bool {
    let [node] = nodes else { return false };
    *graph.op(*node) == Op::Convert { to: crate::ir::DType::Bf16 }
        && graph.users(transform) == [*node]
        && !graph.is_result(transform)
}
