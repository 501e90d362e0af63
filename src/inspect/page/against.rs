//! Another program beside the one of the page: what its graph has that this one has not, and what its kernels take.
//!
//! The page's program is A, the other one B, and changes are told from B to A. Nodes are matched by their names, kernels as
//! `pairs.rs` has it. Times are compared where both are measured, or where both are for the same target: the ceilings of one
//! machine say nothing of another.

use super::data::{EntryData, Numbered, PageData, RoleData, check_program, kernel_role, node_data, results};
use super::pairs::{Core, Known, Pair, pairs};
use super::times::{FromTo, Seconds, Sums};
use crate::inspect::diff::lines;
use crate::inspect::profile::{Profile, ProfileError};
use crate::inspect::{Observed, by_name, kernel_core};
use crate::ir::{Graph, NodeId, Op};
use crate::kernel::cost::{bytes_moved, flops};
use crate::kernel::target::{Convolutions, Target};
use crate::plan::{EntryPlan, Machine};
use crate::schedule::Fusion;
use serde::Serialize;
use std::collections::{BTreeSet, HashMap, HashSet};

/// What is compared.
#[derive(Debug, Serialize)]
pub struct AgainstData {
    pub a: Side,
    pub b: Side,
    /// Entries that only one of the two has.
    pub only_a: Vec<String>,
    pub only_b: Vec<String>,
}

/// One of two programs.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Side {
    pub program: String,
    pub file: String,
    /// What it was compiled with, word by word.
    pub with: Vec<String>,
    /// Where it was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// What those times are from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
}

/// An entry of B.
#[derive(Debug, Serialize)]
pub struct BaseData {
    /// The graph after its last pass: indices of the entry's nodes, operands before users. What is the same in A is A's.
    pub nodes: Vec<usize>,
    pub results: Vec<(&'static str, String, usize)>,
    pub kernels: Vec<BaseKernel>,
    pub arena: usize,
    pub lower_bound: usize,
    /// What the changes of times add up to; nothing where times say nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sums: Option<Sums>,
    /// What became of each kernel: the largest change of time first, else in A's order.
    pub changes: Vec<Change>,
}

#[derive(Debug, Serialize)]
pub struct BaseKernel {
    pub name: String,
    pub kind: &'static str,
    pub role: RoleData,
    /// The name of the node that it is built around.
    pub core: Option<usize>,
    pub flops: u64,
    pub bytes: u64,
}

/// What became of a kernel.
#[derive(Debug, PartialEq, Serialize)]
pub struct Change {
    /// The kernel of A, and that of B; neither is the time between kernels.
    pub a: Option<usize>,
    pub b: Option<usize>,
    #[serde(flatten)]
    pub seconds: Option<FromTo>,
}

/// One of two programs, and how it was measured.
#[derive(Debug, Clone)]
pub struct Compared<'c> {
    pub observed: &'c Observed,
    pub profile: Option<&'c Profile>,
    /// The profile's file.
    pub profile_file: Option<String>,
}

/// Why two programs cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum AgainstError {
    #[error("they have no entry in common: this program has {ours}, the other one {theirs}")]
    OtherEntries { ours: String, theirs: String },
    #[error("the other program has no entry `{main}`, which is shown first: it has {theirs}")]
    NoMain { main: String, theirs: String },
    #[error(transparent)]
    Profile(#[from] ProfileError),
}

/// Puts another program beside the one of a page, which was made from `ours`.
///
/// # Errors
/// When the other one has not the entry that the page shows first, or the profile is not of it.
pub fn add_base(data: &mut PageData, ours: &Compared, theirs: &Compared) -> Result<(), AgainstError> {
    let (observed, base) = (ours.observed, theirs.observed);
    if let Some(profile) = theirs.profile {
        check_program(base, &profile.subject)?;
    }
    let names: BTreeSet<&str> = base.histories.iter().map(|h| h.entry.as_str()).collect();
    let own_names: BTreeSet<&str> = observed.histories.iter().map(|h| h.entry.as_str()).collect();
    let listed = |names: &BTreeSet<&str>| names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
    let main = data.entries.get(data.main).map_or("", |entry| entry.name.as_str());
    if own_names.is_disjoint(&names) {
        return Err(AgainstError::OtherEntries { ours: listed(&own_names), theirs: listed(&names) });
    }
    if !names.contains(main) {
        return Err(AgainstError::NoMain { main: main.into(), theirs: listed(&names) });
    }
    let only = |of: &BTreeSet<&str>, other: &BTreeSet<&str>| of.difference(other).map(ToString::to_string).collect();
    data.against = Some(AgainstData {
        a: side(ours),
        b: side(theirs),
        only_a: only(&own_names, &names),
        only_b: only(&names, &own_names),
    });
    let same_text = base.text == observed.text;
    let same_target = base.plan.source.target == observed.plan.source.target;
    for entry in &mut data.entries {
        let (Some(history), Some(plan)) = (base.history(&entry.name), base.plan.entry(&entry.name)) else { continue };
        let Some(newer) = observed.history(&entry.name) else { continue };
        let of_entry = |p: &&Profile| p.subject.entry == entry.name && entry.profile.is_some();
        let base = Base {
            observed: base,
            graph: history.last(),
            plan,
            same_text,
            profile: theirs.profile.filter(of_entry),
            machine: same_target.then_some(&data.machine),
        };
        entry.base = Some(base_data(entry, newer.last(), &base)?);
    }
    Ok(())
}

fn side(compared: &Compared) -> Side {
    let Compared { observed, profile, profile_file } = compared;
    let source = &observed.plan.source;
    let target = match source.target {
        Target::Cpu => "cpu".to_string(),
        Target::Cuda(architecture) => format!("cuda:{architecture}"),
    };
    let mut with = source.overrides.clone();
    with.extend([target, source.precision.name().to_string()]);
    if source.fusion == Fusion::Off {
        with.push("no fusion".into());
    }
    if source.fast_math {
        with.push("fast math".into());
    }
    match source.convolutions {
        Convolutions::Exact => with.push("convolutions as written".into()),
        Convolutions::Fast => with.push("fast convolutions".into()),
        Convolutions::Accurate => {}
    }
    with.extend(source.optional.iter().cloned());
    Side {
        program: observed.plan.name.clone(),
        file: observed.file.clone(),
        with,
        device: profile.map(|p| p.subject.device.clone()),
        profile: profile_file.clone(),
    }
}

/// What is known of an entry of B.
struct Base<'b> {
    observed: &'b Observed,
    graph: &'b Graph,
    plan: &'b EntryPlan,
    /// Whether lines of the program are lines of A's too.
    same_text: bool,
    /// Its times, where A has some too.
    profile: Option<&'b Profile>,
    /// Whose ceilings hold for both.
    machine: Option<&'b Machine>,
}

fn base_data(entry: &mut EntryData, newer: &Graph, base: &Base) -> Result<BaseData, ProfileError> {
    let mut numbered = Numbered::of(entry);
    let nodes = base_nodes(entry, newer, base, &mut numbered);
    let results = results(base.graph, &mut numbered);
    let schedule = &base.plan.schedule;
    let names_of_base = by_name(base.graph);
    let mut known = Vec::new();
    let kernels: Vec<BaseKernel> = (schedule.kernels.iter())
        .map(|kernel| {
            let core = kernel_core(base.graph, &names_of_base, kernel);
            known.push(known_by(base.graph, kernel.name.clone(), kernel.kind().name(), core));
            BaseKernel {
                name: kernel.name.clone(),
                kind: kernel.kind().name(),
                role: kernel_role(base.graph, core),
                core: core.map(|id| numbered.name(&base.graph.node(id).name)),
                flops: flops(kernel),
                bytes: bytes_moved(kernel, &schedule.buffers),
            }
        })
        .collect();
    numbered.give_back(entry);
    let names = by_name(newer);
    let ours: Vec<Known> = (entry.kernels.iter())
        .map(|k| {
            let core = k.core.and_then(|core| names.get(entry.names[core].as_str()).copied());
            known_by(newer, k.name.clone(), k.kind, core)
        })
        .collect();
    let seconds = match base.profile.zip(entry.profile.as_ref()) {
        Some((theirs, ours)) => Some(Seconds::measured(ours, theirs, base.plan)?),
        None => base.machine.map(|machine| Seconds::least(entry, machine, base.plan)),
    };
    let mut changes: Vec<Change> = (pairs(&ours, &known).into_iter())
        .map(|Pair { a, b }| Change { a, b, seconds: seconds.as_ref().map(|s| s.of_pair(Pair { a, b })) })
        .collect();
    let between = seconds.as_ref().and_then(Seconds::between);
    changes.extend(between.map(|between| Change { a: None, b: None, seconds: Some(between) }));
    // Kernels are in the order of A's schedule, and stay so where changes are the same.
    let size = |change: &Change| change.seconds.map_or(0.0, |s| (s.to - s.from).abs());
    changes.sort_by(|x, y| size(y).total_cmp(&size(x)));
    Ok(BaseData {
        nodes,
        results,
        kernels,
        arena: schedule.arena_bytes,
        lower_bound: schedule.lower_bound,
        sums: seconds.map(|seconds| seconds.sums()),
        changes,
    })
}

fn known_by(graph: &Graph, name: String, kind: &'static str, core: Option<NodeId>) -> Known {
    let role = kernel_role(graph, core);
    let core = core.map(|id| graph.node(id));
    let core = core.map(|node| Core { name: node.name.clone(), scope: node.origin.scope.clone() });
    Known { name, kind, role, core }
}

/// The nodes of B: A's where both have the same line of text, else nodes of their own. Constants have numbers for names,
/// so they are matched by what they are.
fn base_nodes(entry: &EntryData, newer: &Graph, base: &Base, numbered: &mut Numbered) -> Vec<usize> {
    let Base { observed, graph, .. } = base;
    let ours: HashMap<usize, usize> =
        entry.stages.last().map_or(HashMap::new(), |s| s.nodes.iter().map(|&n| (numbered.nodes[n].name, n)).collect());
    let constant = |graph: &Graph, id: NodeId| match graph.op(id) {
        Op::Constant { value, ty } => Some(format!("{value} {ty}")),
        _ => None,
    };
    let mut constants: HashMap<String, usize> = HashMap::new();
    let mut own_constants = HashSet::new();
    for id in newer.ids() {
        let index = ours.get(&numbered.name(&newer.node(id).name));
        if let (Some(what), Some(&index)) = (constant(newer, id), index) {
            own_constants.insert(index);
            constants.entry(what).or_insert(index);
        }
    }
    let (lines_a, lines_b) = (lines(newer), lines(graph));
    let mut nodes = Vec::new();
    let mut seen = HashSet::new();
    // By the name of a constant of B, the name that it has on the page.
    let mut called: HashMap<usize, usize> = HashMap::new();
    for id in graph.topological() {
        let name = &graph.node(id).name;
        let key = format!("%{name}");
        let number = numbered.name(name);
        let twin = match constant(graph, id) {
            Some(what) => constants.get(&what).copied(),
            None => ours.get(&number).copied().filter(|_| lines_a.get(&key) == lines_b.get(&key)),
        };
        let index = match twin {
            Some(twin) => {
                // A's constants, which B may have under other names.
                for operand in &numbered.nodes[twin].operands {
                    nodes.extend(ours.get(operand).filter(|n| own_constants.contains(n) && seen.insert(**n)));
                }
                twin
            }
            None => {
                let index = node_data(observed, graph, id, numbered);
                if constant(graph, id).is_some() && ours.contains_key(&number) {
                    numbered.nodes[index].name = numbered.name(&format!("{name} of B"));
                }
                let node = &mut numbered.nodes[index];
                node.operands
                    .iter_mut()
                    .for_each(|operand| *operand = called.get(operand).copied().unwrap_or(*operand));
                if !base.same_text {
                    node.line = 0;
                }
                index
            }
        };
        if constant(graph, id).is_some() {
            called.insert(number, numbered.nodes[index].name);
        }
        if seen.insert(index) {
            nodes.push(index);
        }
    }
    nodes
}
