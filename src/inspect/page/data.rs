//! What the page shows, as data: every entry at every stage, its kernels, its memory, its times.
//!
//! Most nodes are the same from stage to stage, so each is stored once and a stage is a list of indices; names are
//! indices into one table.

use super::against::{AgainstData, BaseData};
use super::lines::{LineBytes, LineShare, Lines};
use super::rules::{RuleData, Rules, check};
use crate::exec::cuda;
use crate::inspect::node_cost::{node_bytes, node_flops};
use crate::inspect::profile::{KernelTime, Launch, Profile, ProfileError, StepTime, Subject, live_bytes};
use crate::inspect::{
    Costs, Group, History, MissedFusions, Observed, Peak, ValueSummary, by_name, costs, group_path, hand_overs,
    kernel_core, kernel_text, missed_fusions, peak, placement, strategy_of, value_count,
};
use crate::ir::text::Printer;
use crate::ir::{Graph, NodeId, Op, Role};
use crate::kernel::cost::{bytes_moved, flops, multiplied};
use crate::passes::Compared;
use crate::plan::{Buffer, BufferRole, EntryPlan, Machine};
use crate::train::starts::quoted;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};

/// Everything on the page.
#[derive(Debug, Serialize)]
pub struct PageData {
    pub program: String,
    pub file: String,
    /// What a command takes to compile it again: the program and its `--set`s.
    pub arguments: String,
    pub source: String,
    pub sets: Vec<String>,
    /// The ceilings behind the least times: measured where there is a profile, else nominal.
    pub machine: Machine,
    /// The index of the entry to show first.
    pub main: usize,
    pub entries: Vec<EntryData>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub against: Option<AgainstData>,
}

#[derive(Debug, Serialize)]
pub struct EntryData {
    pub name: String,
    pub names: Vec<String>,
    pub groups: Vec<Group>,
    pub nodes: Vec<NodeData>,
    pub stages: Vec<StageData>,
    /// What the rules of its passes rewrote.
    pub rules: Vec<RuleData>,
    pub kernels: Vec<KernelData>,
    pub buffers: Vec<BufferData>,
    /// Live bytes at each position of the schedule.
    pub live: Vec<usize>,
    /// By line of the source, the live bytes at the first position at which most are live.
    pub line_peak: Vec<LineBytes>,
    pub arena: usize,
    pub lower_bound: usize,
    /// Bytes of the state at the start of the arena.
    pub state: usize,
    pub missed: MissedFusions,
    pub peak: Option<Peak>,
    pub costs: Costs,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<ProfileData>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<ValuesData>,
    /// What it is compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<BaseData>,
}

/// The values of a step.
#[derive(Debug, Serialize)]
pub struct ValuesData {
    /// What the step is of, as a part of a sentence.
    pub about: String,
    /// By name.
    pub nodes: Vec<(usize, ValueSummary)>,
}

impl EntryData {
    /// Shows the values of a step; those of nodes that are at no stage are left out.
    pub fn set_values(&mut self, about: String, mut values: BTreeMap<String, ValueSummary>) {
        let found = self.names.iter().enumerate().filter_map(|(i, name)| Some((i, values.remove(name)?)));
        self.values = Some(ValuesData { about, nodes: found.collect() });
    }
}

#[derive(Debug, PartialEq, Serialize)]
pub struct NodeData {
    pub name: usize,
    /// The line of the text form.
    pub text: String,
    pub op: String,
    pub ty: String,
    /// Names of the operands, in order.
    pub operands: Vec<usize>,
    pub scope: String,
    pub role: RoleData,
    /// The groups around it, from the outside in.
    pub groups: Vec<usize>,
    /// The line of the source, from 1; 0 where there is none.
    pub line: usize,
    pub flops: u64,
    pub bytes: u64,
}

/// What a node or kernel is for, and of which loss or network.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(tag = "kind", content = "of", rename_all = "snake_case")]
pub enum RoleData {
    /// Input, state or constant.
    Leaf,
    Forward,
    Gradient(String),
    Optimiser(String),
}

#[derive(Debug, Serialize)]
pub struct StageData {
    pub name: String,
    /// A sentence about what happened.
    pub about: String,
    /// Indices of nodes, operands before users.
    pub nodes: Vec<usize>,
    /// What leaves the graph: its kind and name, and the name of the node.
    pub results: Vec<(&'static str, String, usize)>,
    /// By the name of a node, the rewrites that made, replaced or removed it, in order: indices of the entry's rules.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub by: Vec<(usize, Vec<usize>)>,
    /// What was compared with the stage before, where passes were checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<Compared>,
}

#[derive(Debug, Serialize)]
pub struct KernelData {
    pub name: String,
    pub kind: &'static str,
    pub role: RoleData,
    /// The name of the node that it is built around.
    pub core: Option<usize>,
    pub reads: Vec<usize>,
    pub writes: Vec<usize>,
    /// Names of the nodes that are computed in it, in the graph's order; some of them in other kernels too.
    pub nodes: Vec<usize>,
    /// The values that it is there for.
    pub values: usize,
    /// Results that are written in place: the buffer, and the one that it is written over.
    pub in_place: Vec<(usize, usize)>,
    pub flops: u64,
    pub bytes: u64,
    /// The least time in seconds that the ceilings allow.
    pub ceiling: f64,
    /// What of it is whose line.
    pub lines: Vec<LineShare>,
    pub body: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cuda: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct BufferData {
    pub name: String,
    pub role: &'static str,
    pub ty: String,
    pub offset: usize,
    pub bytes: usize,
    pub live: (usize, usize),
    /// The line of the source that its value comes from, from 1; 0 where there is none.
    pub line: usize,
    /// Names of the nodes whose values it holds.
    pub nodes: Vec<usize>,
}

#[derive(Debug, Serialize)]
pub struct ProfileData {
    pub device: String,
    pub steps: usize,
    pub step: StepTime,
    /// Why the measured ceilings may be too low.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub busy: Option<String>,
    pub kernels: Vec<KernelTime>,
    /// Where in `lanes` the step is whose length is nearest the median.
    pub typical: usize,
    pub lanes: Vec<Lane>,
}

/// What ran in one step.
#[derive(Debug, PartialEq, Serialize)]
pub struct Lane {
    pub step: usize,
    /// Kernel, and start and length in microseconds, from the step's start.
    pub launches: Vec<(usize, f64, f64)>,
}

/// How many steps a page shows at most, and how many launches in all: what a screen holds, and what keeps the page small.
const MOST_LANES: usize = 12;
const MOST_LAUNCHES: usize = 20_000;

/// Collects what the page shows. A profile belongs to the entry that it names.
///
/// # Errors
/// When the profile is of another program.
pub fn page_data(observed: &Observed, profile: Option<&Profile>) -> Result<PageData, ProfileError> {
    if let Some(profile) = profile {
        check_program(observed, &profile.subject)?;
    }
    let schedules = || observed.plan.entries.iter().map(|entry| &entry.schedule);
    let products = schedules().flat_map(|s| s.kernels.iter().map(|kernel| multiplied(kernel, &s.buffers))).collect();
    let nominal = Machine::nominal(observed.plan.source.target).of_products(&products);
    let machine = profile.map_or(nominal, |p| p.subject.machine);
    let main = profile.map_or(observed.main_entry(), |p| p.subject.entry.as_str());
    let mut entries = Vec::new();
    for history in &observed.histories {
        let Some(plan) = observed.plan.entry(&history.entry) else { continue };
        let profile = profile.filter(|p| p.subject.entry == history.entry);
        entries.push(entry_data(observed, history, plan, &machine, profile)?);
    }
    Ok(PageData {
        program: observed.plan.name.clone(),
        file: observed.file.clone(),
        arguments: arguments(&observed.file, &observed.sets),
        source: observed.text.clone(),
        sets: observed.sets.clone(),
        machine,
        main: entries.iter().position(|e| e.name == main).unwrap_or(0),
        entries,
        against: None,
    })
}

/// A program and its `--set`s as a shell takes them.
pub fn arguments(program: &str, sets: &[String]) -> String {
    quoted([program].into_iter().chain(sets.iter().flat_map(|set| ["--set", set.as_str()])))
}

/// Whether a profile is of a program, by its name and sizes.
///
/// # Errors
/// When it is of another.
pub fn check_program(observed: &Observed, subject: &Subject) -> Result<(), ProfileError> {
    let (name, sets) = (&observed.plan.name, &observed.plan.source.overrides);
    if (&subject.program, &subject.sets) == (name, sets) {
        return Ok(());
    }
    let with = |sets: &[String]| match sets {
        [] => " without --set".to_string(),
        sets => sets.iter().map(|set| format!(" --set {set}")).collect(),
    };
    let (theirs, ours) = (with(&subject.sets), with(sets));
    Err(ProfileError::OtherProgram(format!("it is of `{}`{theirs}, and this is `{name}`{ours}", subject.program)))
}

/// Numbers names and nodes, each stored once.
#[derive(Default)]
pub(super) struct Numbered {
    names: Vec<String>,
    name_index: HashMap<String, usize>,
    groups: Vec<Group>,
    group_index: HashMap<Group, usize>,
    pub nodes: Vec<NodeData>,
    node_index: HashMap<(usize, String, String, usize), Vec<usize>>,
}

impl Numbered {
    /// That of an entry, to add to; [`Numbered::give_back`] ends it.
    pub fn of(entry: &mut EntryData) -> Numbered {
        let (names, groups) = (std::mem::take(&mut entry.names), std::mem::take(&mut entry.groups));
        let name_index = names.iter().enumerate().map(|(i, name)| (name.clone(), i)).collect();
        let group_index = groups.iter().enumerate().map(|(i, group)| (group.clone(), i)).collect();
        let nodes = std::mem::take(&mut entry.nodes);
        Numbered { names, name_index, groups, group_index, nodes, node_index: HashMap::new() }
    }

    pub fn give_back(self, entry: &mut EntryData) {
        (entry.names, entry.groups, entry.nodes) = (self.names, self.groups, self.nodes);
    }

    pub fn name(&mut self, name: &str) -> usize {
        if let Some(&index) = self.name_index.get(name) {
            return index;
        }
        self.names.push(name.to_string());
        self.name_index.insert(name.to_string(), self.names.len() - 1);
        self.names.len() - 1
    }

    pub(super) fn groups(&mut self, path: Vec<Group>) -> Vec<usize> {
        path.into_iter()
            .map(|group| {
                *self.group_index.entry(group).or_insert_with_key(|group| {
                    self.groups.push(group.clone());
                    self.groups.len() - 1
                })
            })
            .collect()
    }

    fn node(&mut self, node: NodeData) -> usize {
        let alike = self.node_index.entry((node.name, node.text.clone(), node.scope.clone(), node.line)).or_default();
        if let Some(&same) = alike.iter().find(|&&index| self.nodes[index] == node) {
            return same;
        }
        self.nodes.push(node);
        alike.push(self.nodes.len() - 1);
        self.nodes.len() - 1
    }
}

fn entry_data(
    observed: &Observed,
    history: &History,
    plan: &EntryPlan,
    machine: &Machine,
    profile: Option<&Profile>,
) -> Result<EntryData, ProfileError> {
    let mut numbered = Numbered::default();
    let mut stages = Vec::new();
    let mut rules = Rules::default();
    for (at, (name, graph)) in history.stages.iter().enumerate() {
        let nodes = graph.topological().into_iter().map(|id| node_data(observed, graph, id, &mut numbered)).collect();
        let results = results(graph, &mut numbered);
        let (by, check) = (rules.of_stage(history, at, &mut numbered), check(observed, &history.entry, name));
        stages.push(StageData { name: name.clone(), about: about(name), nodes, results, by, check });
    }
    let schedule = &plan.schedule;
    let graph = history.last();
    let placed = placement(graph, schedule);
    let order = graph.topological();
    let by_name = by_name(graph);
    // What belongs to each kernel, collected once: to search for it kernel by kernel is quadratic in the nodes.
    let mut nodes_of: Vec<Vec<NodeId>> = vec![Vec::new(); schedule.kernels.len()];
    for &id in &order {
        for &kernel in placed.kernels.get(&graph.node(id).name).into_iter().flatten() {
            nodes_of[kernel].push(id);
        }
    }
    let lines = Lines::new(observed, graph, schedule, &placed, &by_name);
    let shares = lines.shares(&nodes_of, machine, &mut numbered);
    let mut in_place: Vec<Vec<(usize, usize)>> = vec![Vec::new(); schedule.kernels.len()];
    for over in hand_overs(schedule) {
        in_place[over.kernel].push((over.new.index(), over.old.index()));
    }
    let kernels = (schedule.kernels.iter().zip(nodes_of).zip(in_place).zip(shares))
        .map(|(((kernel, nodes), in_place), lines)| {
            let core = kernel_core(graph, &by_name, kernel);
            KernelData {
                name: kernel.name.clone(),
                kind: kernel.kind().name(),
                role: kernel_role(graph, core),
                core: core.map(|id| numbered.name(&graph.node(id).name)),
                reads: kernel.reads.iter().map(|b| b.index()).collect(),
                writes: kernel.writes.iter().map(|b| b.index()).collect(),
                nodes: nodes.into_iter().map(|id| numbered.name(&graph.node(id).name)).collect(),
                values: value_count(kernel),
                in_place,
                flops: flops(kernel),
                bytes: bytes_moved(kernel, &schedule.buffers),
                ceiling: machine.kernel_seconds(kernel, &schedule.buffers),
                lines,
                body: kernel_text(kernel, &schedule.buffers),
                cuda: Some(cuda::render(kernel, &schedule.buffers).source),
            }
        })
        .collect();
    let mut held: Vec<Vec<usize>> = vec![Vec::new(); schedule.buffers.len()];
    for &id in &order {
        let name = &graph.node(id).name;
        if let Some(&buffer) = placed.buffers.get(name) {
            held[buffer].push(numbered.name(name));
        }
    }
    let state = observed.plan.state_layout.bytes;
    let missed = missed_fusions(graph, schedule, &observed.plan.state_layout, &strategy_of(&observed.plan), machine);
    let measured = profile;
    let buffer_lines = lines.buffer_lines();
    let live = live_bytes(schedule, state);
    let line_peak = lines.at_the_peak(&buffer_lines, &live, state);
    let buffers = (schedule.buffers.iter().zip(held).zip(buffer_lines))
        .map(|((buffer, nodes), line)| buffer_data(buffer, nodes, line))
        .collect();
    let profile = profile.map(|p| profile_data(p, plan)).transpose()?;
    let times = measured.zip(profile.as_ref().map(|p| &p.kernels[..]));
    Ok(EntryData {
        name: history.entry.clone(),
        names: numbered.names,
        groups: numbered.groups,
        nodes: numbered.nodes,
        stages,
        rules: rules.data(),
        kernels,
        buffers,
        live,
        line_peak,
        arena: schedule.arena_bytes,
        lower_bound: schedule.lower_bound,
        state,
        missed,
        peak: peak(schedule, state, machine),
        costs: costs(graph, schedule, machine, times),
        profile,
        values: None,
        base: None,
    })
}

/// What a kernel is for, from the node that it is built around.
pub(super) fn kernel_role(graph: &Graph, core: Option<NodeId>) -> RoleData {
    core.map_or(RoleData::Forward, |id| role_data(&graph.node(id).origin.role))
}

pub(super) fn node_data(observed: &Observed, graph: &Graph, id: NodeId, numbered: &mut Numbered) -> usize {
    let node = graph.node(id);
    let op = match &node.op {
        Op::Constant { value, .. } => value.to_string(),
        Op::Input { .. }
        | Op::State { .. }
        | Op::Iota { .. }
        | Op::Random { .. }
        | Op::Scalar(_)
        | Op::Reshape { .. }
        | Op::Transpose { .. }
        | Op::Broadcast { .. }
        | Op::Pad { .. }
        | Op::Slice { .. }
        | Op::Concat { .. }
        | Op::Reverse { .. }
        | Op::Convert { .. }
        | Op::Reduce { .. }
        | Op::MatMul
        | Op::Conv2d { .. }
        | Op::Conv2dInputGrad { .. }
        | Op::Conv2dFilterGrad { .. }
        | Op::Im2col { .. }
        | Op::Col2im { .. }
        | Op::Winograd(_)
        | Op::Detach
        | Op::Gradient => node.op.name().to_string(),
    };
    let is_leaf = matches!(node.op, Op::Input { .. } | Op::State { .. } | Op::Constant { .. });
    let data = NodeData {
        name: numbered.name(&node.name),
        text: Printer::default().node(graph, id),
        op,
        ty: node.ty.to_string(),
        operands: graph.operands(id).iter().map(|&o| numbered.name(&graph.node(o).name)).collect(),
        scope: node.origin.scope.clone(),
        groups: if is_leaf { Vec::new() } else { numbered.groups(group_path(&node.origin.scope, &node.origin.role)) },
        role: if is_leaf { RoleData::Leaf } else { role_data(&node.origin.role) },
        line: node.origin.span.map_or(0, |s| observed.line_of(s.start)),
        flops: node_flops(graph, id),
        bytes: node_bytes(graph, id),
    };
    numbered.node(data)
}

pub(super) fn results(graph: &Graph, numbered: &mut Numbered) -> Vec<(&'static str, String, usize)> {
    let outputs = graph.outputs.iter().map(|o| ("output", o.name.clone(), o.node));
    let updates = graph.updates.iter().map(|u| ("update", u.state.clone(), u.node));
    outputs.chain(updates).map(|(kind, name, node)| (kind, name, numbered.name(&graph.node(node).name))).collect()
}

fn role_data(role: &Role) -> RoleData {
    match role {
        Role::Forward => RoleData::Forward,
        Role::Gradient(of) => RoleData::Gradient(of.clone()),
        Role::Optimiser(of) => RoleData::Optimiser(of.clone()),
    }
}

fn buffer_data(buffer: &Buffer, nodes: Vec<usize>, line: usize) -> BufferData {
    let (role, name) = match &buffer.role {
        BufferRole::Input(name) => ("input", name),
        BufferRole::State(name) => ("state", name),
        BufferRole::Output => ("output", &buffer.name),
        BufferRole::Temporary => ("temporary", &buffer.name),
        BufferRole::Workspace => ("workspace", &buffer.name),
    };
    let ty = buffer.type_text();
    let (offset, bytes, live) = (buffer.offset, buffer.bytes(), buffer.live);
    BufferData { name: name.clone(), role, ty, offset, bytes, live, line, nodes }
}

fn profile_data(profile: &Profile, plan: &EntryPlan) -> Result<ProfileData, ProfileError> {
    let kernels = profile.kernels(&plan.schedule)?;
    let (typical, lanes) = lanes(&profile.launches, profile.typical_step());
    Ok(ProfileData {
        device: profile.subject.device.clone(),
        steps: profile.subject.steps,
        step: profile.step_time(),
        busy: profile.subject.spread.busy(),
        kernels,
        typical,
        lanes,
    })
}

/// The typical step and the first others, in their order, and where the typical one is among them.
fn lanes(launches: &[Launch], typical: usize) -> (usize, Vec<Lane>) {
    let mut by_step: BTreeMap<usize, Vec<&Launch>> = BTreeMap::new();
    for launch in launches {
        by_step.entry(launch.step).or_default().push(launch);
    }
    let longest = by_step.values().map(Vec::len).max().unwrap_or(1).max(1);
    let most = (MOST_LAUNCHES / longest).clamp(1, MOST_LANES);
    // Others are taken from the start, and one fewer where the typical step is behind them.
    let mut shown: Vec<usize> = by_step.keys().copied().take(most).collect();
    if !shown.contains(&typical) && by_step.contains_key(&typical) {
        shown.pop();
        shown.push(typical);
    }
    let micros = |seconds: f64| (seconds * 1e7).round() / 10.0;
    let lanes = shown.iter().map(|&step| {
        let start = by_step[&step].iter().map(|l| l.start).fold(f64::INFINITY, f64::min);
        let launches = by_step[&step].iter().map(|l| (l.kernel, micros(l.start - start), micros(l.seconds))).collect();
        Lane { step, launches }
    });
    (shown.iter().position(|&step| step == typical).unwrap_or(0), lanes.collect())
}

/// A sentence about what a stage did.
fn about(stage: &str) -> String {
    use crate::passes::{DEVICE, FORWARD, OPTIONAL, PIPELINE};
    let pass = FORWARD.iter().chain(OPTIONAL).chain(PIPELINE).chain(DEVICE).find(|p| p.name == stage);
    match (stage, pass) {
        ("declared", _) => "What the program says, every declaration expanded to primitive operations.".into(),
        (crate::compile::DIFFERENTIATE, _) => "Gradients built as nodes, by reverse mode.".into(),
        (crate::compile::STATE_COPIES, _) => {
            "Weights are kept rounded from step to step; what updates a weight writes its copies.".into()
        }
        (_, Some(pass)) => pass.about.into(),
        (_, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launches(steps: usize, kernels: usize) -> Vec<Launch> {
        let launch =
            |step, kernel| Launch { step, kernel, start: (step * kernels + kernel) as f64 * 1e-3, seconds: 5e-4 };
        (0..steps).flat_map(|step| (0..kernels).map(move |kernel| launch(step, kernel))).collect()
    }

    #[test]
    fn lanes_are_the_typical_step_and_the_first_others() {
        let (typical, lanes) = lanes(&launches(40, 2), 30);
        let steps: Vec<usize> = lanes.iter().map(|lane| lane.step).collect();
        assert_eq!(steps, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 30]);
        assert_eq!(typical, 11);
        // Every lane begins at its own start.
        assert_eq!(lanes[11].launches, [(0, 0.0, 500.0), (1, 1000.0, 500.0)]);
    }

    #[test]
    fn many_kernels_leave_room_for_few_steps() {
        let (typical, lanes) = lanes(&launches(3, 15_000), 2);
        assert_eq!((typical, lanes.len(), lanes[0].step), (0, 1, 2));
    }
}
