//! Another program beside the one of the page: what its graph has that this one has not, and what its kernels take.
//!
//! The page's program is A, the other one B, and changes are told from B to A. Nodes are matched by their names, kernels by
//! theirs and then by the nodes that they are built around.

use super::data::{EntryData, Numbered, PageData, RoleData, check_program, kernel_role, node_data, results};
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
    /// Whether times are measured, in both; else they are the least that the page's machine allows.
    pub measured: bool,
    /// What the changes add up to, in seconds: all of B's kernels, and all of A's; of measured steps with the time between
    /// kernels.
    pub from: f64,
    pub to: f64,
    /// The largest first.
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
    /// Seconds in B, and in A.
    pub from: f64,
    pub to: f64,
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

/// Puts another program beside the one of a page, which was made from `observed`.
///
/// # Errors
/// When the other one has not the entry that the page shows first, or the profile is not of it.
pub fn add_base(
    data: &mut PageData,
    (observed, profile): (&Observed, Option<&Profile>),
    (base, base_profile): (&Observed, Option<&Profile>),
) -> Result<(), AgainstError> {
    if let Some(profile) = base_profile {
        check_program(base, &profile.subject)?;
    }
    let names: BTreeSet<&str> = base.histories.iter().map(|h| h.entry.as_str()).collect();
    let ours: BTreeSet<&str> = observed.histories.iter().map(|h| h.entry.as_str()).collect();
    let listed = |names: &BTreeSet<&str>| names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
    let main = data.entries.get(data.main).map_or("", |entry| entry.name.as_str());
    if ours.is_disjoint(&names) {
        return Err(AgainstError::OtherEntries { ours: listed(&ours), theirs: listed(&names) });
    }
    if !names.contains(main) {
        return Err(AgainstError::NoMain { main: main.into(), theirs: listed(&names) });
    }
    let only = |of: &BTreeSet<&str>, other: &BTreeSet<&str>| of.difference(other).map(ToString::to_string).collect();
    data.against = Some(AgainstData {
        a: side(observed, profile),
        b: side(base, base_profile),
        only_a: only(&ours, &names),
        only_b: only(&names, &ours),
    });
    for entry in &mut data.entries {
        let (Some(history), Some(plan)) = (base.history(&entry.name), base.plan.entry(&entry.name)) else { continue };
        let Some(newer) = observed.history(&entry.name) else { continue };
        let is_measured = |p: &&Profile| p.subject.entry == entry.name && entry.profile.is_some();
        let profile = base_profile.filter(is_measured);
        let same_text = base.text == observed.text;
        entry.base = Some(base_data(
            entry,
            newer.last(),
            &Base { observed: base, graph: history.last(), plan, same_text },
            &data.machine,
            profile,
        )?);
    }
    Ok(())
}

fn side(observed: &Observed, profile: Option<&Profile>) -> Side {
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
    }
}

/// What is known of an entry of B.
struct Base<'b> {
    observed: &'b Observed,
    graph: &'b Graph,
    plan: &'b EntryPlan,
    /// Whether lines of the program are lines of A's too.
    same_text: bool,
}

fn base_data(
    entry: &mut EntryData,
    newer: &Graph,
    base: &Base,
    machine: &Machine,
    profile: Option<&Profile>,
) -> Result<BaseData, ProfileError> {
    let mut numbered = Numbered::of(entry);
    let nodes = base_nodes(entry, newer, base, &mut numbered);
    let results = results(base.graph, &mut numbered);
    let schedule = &base.plan.schedule;
    let by_name = by_name(base.graph);
    let kernels: Vec<BaseKernel> = (schedule.kernels.iter())
        .map(|kernel| {
            let core = kernel_core(base.graph, &by_name, kernel);
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
    let ceilings = || schedule.kernels.iter().map(|kernel| machine.kernel_seconds(kernel, &schedule.buffers)).collect();
    let measured = profile.zip(entry.profile.as_ref());
    let (from, to, between): (Vec<f64>, Vec<f64>, Option<[f64; 2]>) = match measured {
        Some((profile, ours)) => {
            let times = profile.kernels(schedule)?;
            (
                times.iter().map(|time| time.seconds).collect(),
                ours.kernels.iter().map(|time| time.seconds).collect(),
                Some([profile.step_time().between_seconds, ours.step.between_seconds]),
            )
        }
        None => (ceilings(), entry.kernels.iter().map(|kernel| kernel.ceiling).collect(), None),
    };
    let mut changes: Vec<Change> = pairs(entry, &kernels)
        .into_iter()
        .map(|(a, b)| Change { a, b, from: b.map_or(0.0, |b| from[b]), to: a.map_or(0.0, |a| to[a]) })
        .collect();
    changes.extend(between.map(|[from, to]| Change { a: None, b: None, from, to }));
    let (from, to) = (changes.iter().map(|c| c.from).sum(), changes.iter().map(|c| c.to).sum());
    // Kernels are in the order of A's schedule, and stay so where changes are the same.
    changes.sort_by(|x, y| (y.to - y.from).abs().total_cmp(&(x.to - x.from).abs()));
    Ok(BaseData {
        nodes,
        results,
        kernels,
        arena: schedule.arena_bytes,
        lower_bound: schedule.lower_bound,
        measured: measured.is_some(),
        from,
        to,
        changes,
    })
}

/// Which kernels of A and B are the same: of one name, else around one node. All are there once.
fn pairs(entry: &EntryData, base: &[BaseKernel]) -> Vec<(Option<usize>, Option<usize>)> {
    let mut left: BTreeSet<usize> = (0..base.len()).collect();
    let mut of: Vec<Option<usize>> = vec![None; entry.kernels.len()];
    let mut named: HashMap<&str, Vec<usize>> = HashMap::new();
    let mut around: HashMap<usize, Vec<usize>> = HashMap::new();
    // The last first, so that the first is taken first.
    for (b, kernel) in base.iter().enumerate().rev() {
        named.entry(&kernel.name).or_default().push(b);
        if let Some(core) = kernel.core {
            around.entry(core).or_default().push(b);
        }
    }
    for (a, kernel) in entry.kernels.iter().enumerate() {
        of[a] = named.get_mut(kernel.name.as_str()).and_then(Vec::pop).filter(|b| left.remove(b));
    }
    for (a, kernel) in entry.kernels.iter().enumerate() {
        let Some(candidates) = kernel.core.filter(|_| of[a].is_none()).and_then(|core| around.get_mut(&core)) else {
            continue;
        };
        while let (None, Some(b)) = (of[a], candidates.pop()) {
            of[a] = left.remove(&b).then_some(b);
        }
    }
    let ours = of.into_iter().enumerate().map(|(a, b)| (Some(a), b));
    ours.chain(left.into_iter().map(|b| (None, Some(b)))).collect()
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
