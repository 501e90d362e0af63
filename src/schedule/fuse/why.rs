//! Why kernels are as many as they are: what fusion says of two groups that it left apart.

use super::{GroupId, Groups, is_statistic, live_order};
use crate::ir::{Graph, NodeId};
use crate::kernel::schedule::StateLayout;
use crate::kernel::target::{Fusion, Strategy};
use crate::schedule::atoms::choose_atoms;
use crate::schedule::lower::Lowering;
use crate::schedule::physical::{of_states, unreadable_state};
use std::collections::HashSet;

/// Why two groups of nodes are not one kernel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotFused {
    #[error("one draws random bits, and a kernel of its own draws all of them")]
    Bits,
    #[error("they update different networks, or only one of them updates parameters")]
    Optimiser,
    #[error("one computes a scalar that the updates of all parameters wait for")]
    SharedScalar,
    #[error("both are contractions, and a kernel holds one")]
    TwoContractions,
    #[error("one is a convolution's transform, a kernel that can round its result but compute nothing else")]
    Transform,
    #[error("a matrix product would write an image row by row, and convolutions read it pixel by pixel")]
    ImageOfProduct,
    #[error("one is a copy of a weight in another order: a kernel of its own transposes it by tiles")]
    Turned,
    #[error("a reduction needs all of the contraction's result before its first element")]
    ReductionOfContraction,
    #[error("one of the kernels is large enough by itself: it computes {0} nodes")]
    Full(usize),
    #[error("their index spaces differ in size, and neither is the other's reduced shape")]
    Spaces,
    #[error("one kernel would spread much work over too few outputs, and leave cores idle")]
    Serial,
    #[error("both read and write much memory, and little of it is the same")]
    LittleInCommon,
    #[error("the larger would have to wait for a third kernel, which only the smaller one needs")]
    Waits,
    #[error("a path leads from one to the other through %{0}, which is in neither")]
    PathThrough(String),
    #[error("they do not line up in one index space, or one needs all of the other's result before its first element")]
    Misaligned,
    #[error("%{0} must be in memory between them: no view expresses how it is read")]
    NeedsBuffer(String),
    #[error(
        "neither reads what the other computes, and a contraction gains nothing from what only reads the same memory"
    )]
    Unrelated,
    #[error("neither reads what the other computes, nor do they read the same large value")]
    Apart,
    #[error("nothing is against it now, but when it was tried other kernels had not been merged yet")]
    Order,
    #[error("they were one kernel, but the algorithm of its contraction does not reduce what it would have to")]
    Declined,
    #[error("fusion was turned off")]
    Off,
}

impl NotFused {
    /// The reason in a few words, without names and numbers.
    pub fn title(&self) -> &'static str {
        match self {
            NotFused::Bits => "random bits",
            NotFused::Optimiser => "different updates",
            NotFused::SharedScalar => "a scalar for all updates",
            NotFused::TwoContractions => "two contractions",
            NotFused::Transform => "a transform of a convolution",
            NotFused::ImageOfProduct => "an image that a matrix product makes",
            NotFused::Turned => "a copy in another order",
            NotFused::ReductionOfContraction => "a reduction of a contraction",
            NotFused::Full(_) => "a full kernel",
            NotFused::Spaces => "different index spaces",
            NotFused::Serial => "idle cores",
            NotFused::LittleInCommon => "little shared memory traffic",
            NotFused::Waits => "a wait for a third kernel",
            NotFused::PathThrough(_) => "a path through a third kernel",
            NotFused::Misaligned => "different indexing",
            NotFused::NeedsBuffer(_) => "a value that must be in memory",
            NotFused::Unrelated | NotFused::Apart => "nothing in common",
            NotFused::Order => "the order of fusion",
            NotFused::Declined => "declined by the algorithm",
            NotFused::Off => "fusion was off",
        }
    }
}

/// For each pair of values that are computed by separate kernels, why: the reason found once everything else is merged.
/// `None` where one of the nodes has no value of its own. `states` and `strategy` are those that the graph was scheduled
/// with.
pub fn why_not_fused(
    graph: &Graph,
    states: &StateLayout,
    strategy: &Strategy,
    pairs: &[(NodeId, NodeId)],
) -> Vec<Option<NotFused>> {
    // Another graph than was scheduled, as where a newer version reads the program of an old plan.
    if unreadable_state(graph, states).is_some() {
        return vec![None; pairs.len()];
    }
    let (order, rank) = live_order(graph);
    let orders = of_states(graph, states);
    let (atoms, in_memory) = choose_atoms(graph, &order, strategy, &orders);
    let lowering = Lowering::new(graph, &in_memory, &orders, &strategy.policy);
    let merged = |apart: HashSet<NodeId>| {
        let mut groups = Groups::new(&lowering, &order, &atoms, &rank, strategy.policy);
        groups.apart = apart;
        let atoms_in_order = order.iter().filter(|id| atoms[id.index()] && strategy.fusion == Fusion::On);
        for &atom in atoms_in_order {
            groups.merge_around(atom);
        }
        groups
    };
    let mut groups = merged(HashSet::new());
    // What is in one group here and in two kernels is a reduction that the algorithm of its contraction declined.
    let is_together = |(a, b): &&(NodeId, NodeId)| {
        groups.group_of[a.index()].is_some() && groups.group_of[a.index()] == groups.group_of[b.index()]
    };
    let together = pairs.iter().filter(is_together).flat_map(|&(a, b)| [a, b]);
    let declined: HashSet<NodeId> = together.filter(|&id| is_statistic(graph, id)).collect();
    if !declined.is_empty() {
        groups = merged(declined);
    }
    let why = |(a, b): (NodeId, NodeId)| {
        let why = groups.why_apart(groups.group_of[a.index()]?, groups.group_of[b.index()]?)?;
        Some(if strategy.fusion == Fusion::Off { NotFused::Off } else { why })
    };
    pairs.iter().copied().map(why).collect()
}

impl Groups<'_> {
    fn why_apart(&self, a: GroupId, b: GroupId) -> Option<NotFused> {
        if a == b {
            return Some(NotFused::Declined);
        }
        let reads = |a: GroupId, b: GroupId| self.producers(a).contains(&b);
        let is_near = reads(a, b) || reads(b, a) || !self.reads[a].is_disjoint(&self.reads[b]);
        match self.merged(a, b) {
            Err(reason) if is_near => Some(reason),
            Err(reason @ (NotFused::Optimiser | NotFused::TwoContractions | NotFused::PathThrough(_))) => Some(reason),
            Ok(_) if reads(a, b) || reads(b, a) => Some(NotFused::Order),
            _ => Some(NotFused::Apart),
        }
    }
}
