//! The compiler as one call: from a program's text to a plan.

use crate::declare;
use crate::ir::{self, Entry, Feed, Graph, InputDecl, Module, StateDecl, StateRole};
use crate::kernel::body::{BufferId, Kernel, KernelKind};
use crate::kernel::choice::TunedKernel;
use crate::kernel::cost::{bytes_moved, flops};
use crate::kernel::schedule::{ALIGNMENT, Schedule, StateLayout, StateTooLarge};
use crate::kernel::target::{Convolutions, EpilogueReductions, Layout, Precision, Target};
use crate::passes::{self, Log, MinimalFiltering, Pass, PassContext};
use crate::plan::{self, EntryPlan, Plan, Source};
use crate::schedule::states::{lay_out_states, with_copies};
use crate::schedule::{Fusion, ScheduleError, Strategy, count_kernels, schedule_tuned};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What may be asked of the compiler.
#[derive(Debug, Clone)]
pub struct Options {
    /// Sizes and values instead of the program's own, as `name=value`.
    pub sets: Vec<String>,
    /// Numbers of examples for which the entries that take data are compiled too.
    pub specialise: Vec<usize>,
    pub fusion: Fusion,
    /// What kernels are made for.
    pub target: Target,
    pub precision: Precision,
    /// Names of [`passes::OPTIONAL`] to run.
    pub optional: Vec<String>,
    /// What was measured to be faster than what sizes lead to.
    pub tuned: Vec<TunedKernel>,
    /// Let passes assume that all numbers are finite; see the table of rewrites in [`passes`].
    pub fast_math: bool,
    pub convolutions: Convolutions,
    /// Verify the graph after every pass.
    pub verify: bool,
    /// Check every pass against the interpreter on random inputs drawn from this seed.
    pub validate: Option<u64>,
    /// The pass (or `differentiate`) after which to stop.
    pub stop_after: Option<String>,
    /// Refuse a program that has warnings.
    pub deny_warnings: bool,
}

impl Options {
    /// Those that a plan was compiled with.
    pub fn of(source: &Source) -> Options {
        Options {
            sets: source.overrides.clone(),
            optional: source.optional.clone(),
            tuned: source.tuned.clone(),
            fusion: source.fusion,
            target: source.target,
            precision: source.precision,
            fast_math: source.fast_math,
            convolutions: source.convolutions,
            ..Options::default()
        }
    }

    /// What a plan keeps of them, so that its program can be compiled again.
    pub fn source(&self, name: &str, text: &str) -> Source {
        Source {
            name: name.to_string(),
            text: text.to_string(),
            overrides: self.sets.clone(),
            optional: self.optional.clone(),
            tuned: self.tuned.clone(),
            fusion: self.fusion,
            target: self.target,
            precision: self.precision,
            fast_math: self.fast_math,
            convolutions: self.convolutions,
        }
    }

    /// How graphs are scheduled.
    pub fn strategy(&self) -> Strategy {
        Strategy::new(self.fusion, self.target, self.precision)
    }
}

impl Default for Options {
    fn default() -> Self {
        Options {
            sets: Vec::new(),
            specialise: Vec::new(),
            fusion: Fusion::On,
            target: Target::default(),
            precision: Precision::default(),
            optional: Vec::new(),
            tuned: Vec::new(),
            fast_math: false,
            convolutions: Convolutions::default(),
            verify: cfg!(debug_assertions),
            validate: None,
            stop_after: None,
            deny_warnings: false,
        }
    }
}

/// Why a program was not compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    #[error(transparent)]
    Declare(#[from] declare::Error),
    #[error("entry `{entry}`, after `{pass}`: the graph is not valid: {error}")]
    Invalid { entry: String, pass: String, error: Box<ir::VerifyError> },
    #[error("entry `{entry}`: `{pass}` changed what is computed: {error}")]
    Changed { entry: String, pass: String, error: Box<passes::Mismatch> },
    #[error("there is no pass `{name}`; the passes are {known}")]
    UnknownPass { name: String, known: String },
    #[error("entry `{entry}`: {error}")]
    Schedule { entry: String, error: ScheduleError },
    #[error("the plan is not fit to run, which is a mistake of the compiler: {0}")]
    Plan(plan::VerifyError),
    #[error(
        "nothing can be compiled for {0} examples: no entry takes data, or the size that counts its examples has no name"
    )]
    NoData(usize),
    #[error("with `{size}` at {examples}, the program has other state tensors: a plan has one state for all sizes")]
    OtherState { size: String, examples: usize },
}

/// A moment in the compilation of one entry's graph.
pub struct Stage<'s> {
    pub entry: &'s str,
    /// `declared`, the pass that was just run, or `differentiate`.
    pub name: &'s str,
    pub graph: &'s Graph,
    /// Which rule of the pass rewrote which node.
    pub log: &'s Log,
}

/// A compiled program, and a summary of how it was compiled.
#[derive(Debug)]
pub struct Compiled {
    /// The program after the last pass.
    pub module: Module,
    /// Absent where compilation was to stop after a pass.
    pub plan: Option<Plan>,
    pub summary: Summary,
    /// What is odd about the program's text, where it was read.
    pub warnings: Option<declare::diagnostic::Diagnostics>,
}

/// Figures of a compilation.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    pub program: String,
    /// Tensors and elements that optimisers learn.
    pub parameter_tensors: usize,
    pub parameters: usize,
    pub state_bytes: usize,
    pub fusion: Fusion,
    pub entries: Vec<EntrySummary>,
    /// With `validate`: what was compared after each pass.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<PassCheck>,
    #[serde(serialize_with = "seconds")]
    pub elapsed: Duration,
}

/// A pass that was checked against the interpreter.
#[derive(Debug, Clone, Serialize)]
pub struct PassCheck {
    pub entry: String,
    pub sizes: Vec<(String, usize)>,
    pub pass: String,
    #[serde(flatten)]
    pub compared: passes::Compared,
}

/// Figures of one entry.
#[derive(Debug, Clone, Serialize)]
pub struct EntrySummary {
    pub name: String,
    pub sizes: Vec<(String, usize)>,
    /// Nodes after each stage, in order.
    pub stages: Vec<(String, usize)>,
    /// What each operation as a kernel of its own would come to.
    pub kernels_unfused: usize,
    pub kernels: usize,
    pub kernels_by_kind: BTreeMap<KernelKind, usize>,
    /// Launches of one run: parallel loops on a CPU, kernel launches on a GPU. A kernel takes one or several, one after the
    /// other. What begins and ends several steps in a row is not counted.
    pub launches: usize,
    /// How many contractions each algorithm computes.
    pub algorithms: BTreeMap<&'static str, usize>,
    /// Floating-point operations of one run.
    pub flops: u64,
    /// Bytes that kernels read and write in one run.
    pub bytes_moved: u64,
    /// All memory of a run that threads share: state, inputs, values and workspace.
    pub arena_bytes: usize,
    pub lower_bound: usize,
    /// The largest workspace of a kernel; part of the arena.
    pub workspace_bytes: usize,
}

fn seconds<S: serde::Serializer>(duration: &Duration, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_f64(duration.as_secs_f64())
}

fn algorithms(schedule: &Schedule) -> BTreeMap<&'static str, usize> {
    let mut found = BTreeMap::new();
    for kernel in schedule.kernels.iter().filter(|k| k.kind() == KernelKind::Contraction) {
        *found.entry(kernel.choice.algorithm.name()).or_default() += 1;
    }
    found
}

fn launches(schedule: &Schedule) -> usize {
    let dtype = |buffer: &BufferId| schedule.buffers[buffer.index()].dtype;
    schedule.kernels.iter().map(|kernel| kernel.choice.algorithm.launches(&kernel.body, dtype)).sum()
}

fn workspace_bytes(schedule: &Schedule) -> usize {
    let of = |kernel: &Kernel| kernel.choice.workspace.iter().map(|w| schedule.buffers[w.buffer.index()].bytes()).sum();
    schedule.kernels.iter().map(of).max().unwrap_or(0)
}

/// What passes are told.
fn context(strategy: &Strategy, options: &Options) -> PassContext {
    let policy = strategy.policy;
    let most_points = options.convolutions.most_points(options.precision);
    PassContext {
        fast_math: options.fast_math,
        minimal_filtering: (policy.minimal_filtering.zip(most_points))
            .map(|(flops_per_byte, most_points)| MinimalFiltering { flops_per_byte, most_points }),
        images: policy.layout == Layout::PixelMajor,
        thin_products: policy.thin_products,
        merge_calls: policy.merge_calls,
        im2col: policy.im2col,
        signs: policy.signs,
        deviations: policy.epilogue_reductions != EpilogueReductions::Never,
        operands: strategy.rounding(),
        matrices_alone: strategy.target == Target::Cpu,
    }
}

/// The passes after differentiation.
fn after(context: &PassContext) -> impl Iterator<Item = &'static Pass> + use<> {
    let device = if context.is_for_device() { passes::DEVICE } else { &[] };
    passes::PIPELINE.iter().chain(device)
}

/// The name of the stage between the forward passes and the pipeline.
pub const DIFFERENTIATE: &str = "differentiate";

/// The name of the stage after all passes that has contractions read copies of state that are kept in fewer bits
/// ([`crate::schedule::states`]). It is not a pass: which copies there are depends on all entries.
pub const STATE_COPIES: &str = "state-copies";

/// The names of all stages after `declared` for a target and a precision, in order.
pub fn stages(target: Target, precision: Precision) -> Vec<&'static str> {
    let forward = passes::FORWARD.iter().map(|p| p.name);
    let strategy = Strategy::new(Fusion::On, target, precision);
    let context = context(&strategy, &Options::default());
    let last = strategy.state_copies().map(|_| STATE_COPIES);
    forward.chain([DIFFERENTIATE]).chain(after(&context).map(|p| p.name)).chain(last).collect()
}

/// Compiles a program. `observe` sees every entry's graph at every stage.
///
/// # Errors
/// When the program is wrong, or (with `verify` or `validate`) a pass is.
pub fn compile(
    name: &str,
    text: &str,
    options: &Options,
    observe: &mut dyn FnMut(Stage),
) -> Result<Compiled, CompileError> {
    let started = Instant::now();
    let optional = chosen(options)?;
    let declare::Loaded { module, warnings } = declare::load_with_warnings(name, text, &options.sets, &[])?;
    if options.deny_warnings && !warnings.is_empty() {
        return Err(declare::Error::Text(warnings.denied()).into());
    }
    let mut jobs = vec![(Vec::new(), module)];
    let data_size = declare::data_size(name, text, None)?;
    for &examples in &options.specialise {
        let size = data_size.clone().ok_or(CompileError::NoData(examples))?;
        let mut module = smaller(name, text, &options.sets, &size, examples, &jobs[0].1.states)?;
        module.entries.retain(|entry| takes_data(entry, examples));
        jobs.push((vec![(size, examples)], module));
    }
    let mut compiled = compile_jobs(jobs, options.source(name, text), options, &optional, None, observe)?;
    compiled.summary.elapsed = started.elapsed();
    compiled.warnings = Some(warnings);
    Ok(compiled)
}

/// Adds to a plan its entry `entry` for another number of examples, with what the plan was compiled with.
///
/// # Errors
/// When the entry takes no data, its number of examples has no name, or the program does not fit that number.
pub fn specialise(plan: &mut Plan, entry: &str, examples: usize) -> Result<(), CompileError> {
    let Source { name, text, overrides, .. } = &plan.source;
    let options = Options::of(&plan.source);
    let size = declare::data_size(name, text, Some(entry))?.ok_or(CompileError::NoData(examples))?;
    let mut module = smaller(name, text, overrides, &size, examples, &plan.states)?;
    module.entries.retain(|e| e.graph.name == entry);
    let jobs = vec![(vec![(size, examples)], module)];
    let compiled =
        compile_jobs(jobs, plan.source.clone(), &options, &chosen(&options)?, Some(&plan.state_layout), &mut |_| {})?;
    plan.entries.extend(compiled.plan.into_iter().flat_map(|p| p.entries));
    Ok(())
}

/// The program for another number of examples. What has a size of its own stays as it is (see [`declare::load`]); where
/// that does not fit together, as where made images are mixed with real ones, the sizes that follow the data's change
/// too.
fn smaller(
    name: &str,
    text: &str,
    sets: &[String],
    size: &str,
    examples: usize,
    states: &[StateDecl],
) -> Result<Module, CompileError> {
    let same_state = |module: Module| {
        let same = module.states.iter().map(|s| (&s.name, &s.ty)).eq(states.iter().map(|s| (&s.name, &s.ty)));
        if same { Ok(module) } else { Err(CompileError::OtherState { size: size.to_string(), examples }) }
    };
    let alone = declare::load(name, text, sets, &[(size.to_string(), examples)]);
    alone.map_err(CompileError::from).and_then(same_state).or_else(|error| {
        let sets = [sets, &[format!("{size}={examples}")]].concat();
        declare::load(name, text, &sets, &[]).map_err(|_| error).and_then(same_state)
    })
}

/// The graph of one entry of a plan with its gradients, before the passes that follow [`DIFFERENTIATE`]: each node is
/// one operation that was declared, or belongs to the gradient of one. Convolutions are whole. `None` where the plan's
/// text has no such entry.
///
/// # Errors
/// When this version cannot read the program.
pub fn differentiated(plan: &Plan, entry: &EntryPlan) -> Result<Option<Graph>, CompileError> {
    let Source { name, text, overrides, .. } = &plan.source;
    let module = match &entry.sizes[..] {
        [(size, examples), ..] => smaller(name, text, overrides, size, *examples, &plan.states)?,
        [] => declare::load(name, text, overrides, &[])?,
    };
    let options = Options {
        convolutions: Convolutions::Exact,
        stop_after: Some(DIFFERENTIATE.to_string()),
        ..Options::of(&plan.source)
    };
    let Some(mut found) = module.entries.into_iter().find(|e| e.graph.name == entry.name) else { return Ok(None) };
    optimise(&mut found, &options, &chosen(&options)?, &mut |_| {}, &mut |_, _| {})?;
    Ok(Some(found.graph))
}

/// Compiles a module that was made in another way than by reading the whole of `source`.
///
/// # Errors
/// When it cannot be scheduled, or (with `verify` or `validate`) a pass is wrong.
pub fn compile_module(module: Module, source: Source, options: &Options) -> Result<Plan, CompileError> {
    let options = Options { stop_after: None, ..options.clone() };
    let optional = chosen(&options)?;
    let compiled = compile_jobs(vec![(Vec::new(), module)], source, &options, &optional, None, &mut |_| {})?;
    let Some(plan) = compiled.plan else { unreachable!("nothing is stopped") };
    Ok(plan)
}

/// The optional passes that were asked for, after a look at the names of all passes in the options.
fn chosen(options: &Options) -> Result<Vec<&'static Pass>, CompileError> {
    let known = stages(options.target, options.precision);
    let optional: Vec<&'static Pass> = (options.optional.iter())
        .map(|wanted| {
            passes::OPTIONAL.iter().find(|p| p.name == wanted).ok_or_else(|| CompileError::UnknownPass {
                name: wanted.clone(),
                known: listed(passes::OPTIONAL.iter().map(|p| p.name)),
            })
        })
        .collect::<Result<_, _>>()?;
    if let Some(stop) = options.stop_after.as_deref()
        && !known.contains(&stop)
        && !optional.iter().any(|p| p.name == stop)
    {
        return Err(CompileError::UnknownPass { name: stop.into(), known: listed(known) });
    }
    Ok(optional)
}

/// A module for each choice of sizes.
type Job = (Vec<(String, usize)>, Module);

fn compile_jobs(
    jobs: Vec<Job>,
    source: Source,
    options: &Options,
    optional: &[&Pass],
    known_layout: Option<&StateLayout>,
    observe: &mut dyn FnMut(Stage),
) -> Result<Compiled, CompileError> {
    let started = Instant::now();
    let mut module = jobs[0].1.clone();
    module.entries.clear();
    let mut checks = Vec::new();
    let mut optimised = Vec::new();
    for (sizes, job) in jobs {
        for mut entry in job.entries {
            let mut stages = Vec::new();
            let name = entry.graph.name.clone();
            let stopped = optimise(
                &mut entry,
                options,
                optional,
                &mut |stage| {
                    stages.push((stage.name.to_string(), stage.graph.len()));
                    observe(stage);
                },
                &mut |pass, compared| {
                    let entry = name.clone();
                    checks.push(PassCheck { entry, sizes: sizes.clone(), pass: pass.into(), compared });
                },
            )?;
            optimised.push((sizes.clone(), entry, stages, stopped));
        }
    }
    let strategy = options.strategy();
    let state_layout = match known_layout {
        Some(layout) => layout.clone(),
        None => {
            let graphs: Vec<&Graph> = optimised.iter().map(|(_, entry, ..)| &entry.graph).collect();
            let too_large =
                |error: StateTooLarge| CompileError::Schedule { entry: module.name.clone(), error: error.into() };
            lay_out_states(&module.states, &graphs, &strategy).map_err(too_large)?
        }
    };
    if strategy.state_copies().is_some() {
        for (_, entry, stages, stopped) in optimised.iter_mut().filter(|(.., stopped)| !stopped) {
            let (name, graph) = (entry.graph.name.clone(), &mut entry.graph);
            with_copies(graph, &state_layout);
            if options.verify {
                verified(graph, STATE_COPIES)?;
            }
            stages.push((STATE_COPIES.to_string(), graph.len()));
            observe(Stage { entry: &name, name: STATE_COPIES, graph, log: &Log::default() });
            *stopped = options.stop_after.as_deref() == Some(STATE_COPIES);
        }
    }
    let mut entries = Vec::new();
    let mut summaries = Vec::new();
    for (sizes, entry, stages, stopped) in optimised {
        let name = entry.graph.name.clone();
        if !stopped {
            let failed = |error| CompileError::Schedule { entry: name.clone(), error };
            let tuned = options.tuned.iter().filter(|t| t.entry == name && t.sizes == sizes);
            let tuned = tuned.map(|t| (t.kernel.as_str(), &t.algorithm)).collect();
            let schedule = schedule_tuned(&entry.graph, &state_layout, options.strategy(), &tuned).map_err(failed)?;
            let unfused = count_kernels(&entry.graph, &state_layout, Fusion::Off).map_err(failed)?;
            let mut kernels_by_kind = BTreeMap::new();
            schedule.kernels.iter().for_each(|k| *kernels_by_kind.entry(k.kind()).or_default() += 1);
            summaries.push(EntrySummary {
                name: name.clone(),
                sizes: sizes.clone(),
                stages,
                kernels_unfused: unfused,
                kernels: schedule.kernels.len(),
                kernels_by_kind,
                launches: launches(&schedule),
                algorithms: algorithms(&schedule),
                workspace_bytes: workspace_bytes(&schedule),
                flops: schedule.kernels.iter().map(flops).fold(0, u64::saturating_add),
                bytes_moved: schedule.kernels.iter().map(|k| bytes_moved(k, &schedule.buffers)).sum(),
                arena_bytes: schedule.arena_bytes,
                lower_bound: schedule.lower_bound,
            });
            entries.push(EntryPlan { name, sizes: sizes.clone(), inputs: entry.inputs.clone(), schedule });
        }
        if sizes.is_empty() {
            module.entries.push(entry);
        }
    }
    let parameters = module.states.iter().filter(|s| s.role == StateRole::Parameter);
    let summary = Summary {
        program: module.name.clone(),
        parameter_tensors: parameters.clone().count(),
        parameters: parameters.map(|s| s.ty.elements()).sum(),
        state_bytes: module.states.iter().map(|s| s.ty.bytes().next_multiple_of(ALIGNMENT)).sum(),
        fusion: options.fusion,
        entries: summaries,
        checks,
        elapsed: started.elapsed(),
    };
    let plan = options.stop_after.is_none().then(|| Plan {
        name: module.name.clone(),
        source,
        states: module.states.clone(),
        state_layout,
        entries,
        device_code: None,
    });
    if let Some(plan) = &plan {
        // What is written must load again: loading verifies.
        plan::verify(plan).map_err(CompileError::Plan)?;
    }
    Ok(Compiled { module, plan, summary, warnings: None })
}

/// That a graph is valid after a stage.
fn verified(graph: &Graph, stage: &str) -> Result<(), CompileError> {
    ir::verify(graph).map_err(|error| CompileError::Invalid {
        entry: graph.name.clone(),
        pass: stage.to_string(),
        error: Box::new(error),
    })
}

fn listed<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    names.into_iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
}

/// Whether an entry takes so many examples of a data set.
fn takes_data(entry: &Entry, examples: usize) -> bool {
    let is_data = |input: &InputDecl| matches!(input.feed, Feed::Images | Feed::Labels);
    entry.inputs.iter().any(|input| is_data(input) && input.ty.shape.first() == Some(&examples))
}

/// Runs the passes over an entry's graph; whether it stopped before the last.
fn optimise(
    entry: &mut Entry,
    options: &Options,
    optional: &[&Pass],
    observe: &mut dyn FnMut(Stage),
    checked: &mut dyn FnMut(&str, passes::Compared),
) -> Result<bool, CompileError> {
    let name = entry.graph.name.clone();
    let graph = &mut entry.graph;
    let context = context(&options.strategy(), options);
    verified(graph, "declare")?;
    observe(Stage { entry: &name, name: "declared", graph, log: &Log::default() });
    let mut run = |pass: &Pass, graph: &mut Graph, observe: &mut dyn FnMut(Stage)| {
        let before = options.validate.map(|seed| (seed, graph.clone()));
        let report = (pass.run)(graph, &context);
        if options.verify {
            verified(graph, pass.name)?;
        }
        if let Some((seed, before)) = before {
            let compared = passes::validate(&before, graph, pass.assumes(&context), seed).map_err(|error| {
                CompileError::Changed { entry: name.clone(), pass: pass.name.to_string(), error: Box::new(error) }
            })?;
            checked(pass.name, compared);
        }
        observe(Stage { entry: &name, name: pass.name, graph, log: &report.log });
        Ok::<bool, CompileError>(options.stop_after.as_deref() == Some(pass.name))
    };
    for pass in passes::FORWARD.iter().chain(optional.iter().copied()) {
        if run(pass, graph, observe)? {
            return Ok(true);
        }
    }
    crate::autodiff::differentiate(graph);
    if options.verify {
        verified(graph, DIFFERENTIATE)?;
    }
    observe(Stage { entry: &name, name: DIFFERENTIATE, graph, log: &Log::default() });
    if options.stop_after.as_deref() == Some(DIFFERENTIATE) {
        return Ok(true);
    }
    for pass in after(&context) {
        if run(pass, graph, observe)? {
            return Ok(true);
        }
    }
    Ok(false)
}
