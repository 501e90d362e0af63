//! `gcc-gan compile`.

use super::device::{Accuracy, CompileFor};
use super::device_code::{self, DeviceCodeWanted};
use super::output::check_output;
use super::program_text::{MathArgs, ProgramArgs, entry_of, program_and_options};
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use gcc_gan::atomic;
use gcc_gan::compile::{Compiled, Options, Stage, Summary, stages};
use gcc_gan::exec::cuda;
use gcc_gan::inspect::{
    Detail, graph_dot, graph_svg, memory_text, schedule_dot, schedule_svg, schedule_text, summary_text,
};
use gcc_gan::ir::Graph;
use gcc_gan::kernel::target::{Architecture, Precision, Target};
use gcc_gan::plan::{self, EntryPlan};
use gcc_gan::schedule::Fusion;
use gcc_gan::train::session::entry;
use gcc_gan::visible::visible;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

/// Compile a program to a plan, and print a summary
///
/// With --emit, what is printed (or written to --output) is the program at some stage instead.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gcc-gan compile graphs/dcgan.ron                      figures of the compiled program
  gcc-gan compile graphs/dcgan.ron -o dcgan.plan        the plan, for `run`, `train` and `verify`
  gcc-gan compile dcgan --set batch=64 --set lr_gen=1e-4
  gcc-gan compile dcgan --emit svg --stage kernels -o dcgan.svg   a picture
  gcc-gan compile dcgan --emit svg --stage declared -o dcgan.svg
  gcc-gan compile dcgan --emit dot -o dcgan.dot         for Graphviz: dot -Tsvg dcgan.dot > dcgan.svg
  gcc-gan compile dcgan --emit text --stage declared --entry train_step
  gcc-gan compile dcgan --device cuda:sm_80 --precision tf32 -o dcgan-gpu.plan
  gcc-gan compile dcgan --device cuda:sm_80,sm_90 -o dcgan-gpu.plan   code for both kinds of GPU, and registers of kernels
  gcc-gan compile dcgan --device cuda:sm_90 --emit cuda -o dcgan.cu
  gcc-gan compile dcgan --device cuda:sm_90 --emit sass --entry train_step -o dcgan.sass
  gcc-gan compile mlp-gan --validate --dump-passes passes/")]
pub struct Args {
    #[command(flatten)]
    program: ProgramArgs,
    /// Where to write the plan, or what --emit asks for
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print the program itself
    #[arg(long, value_enum, value_name = "FORMAT")]
    emit: Option<Emit>,
    /// At which stage: declared, a pass by its name (differentiate among them), optimised (after the last), kernels
    #[arg(long, value_name = "STAGE", requires = "emit")]
    stage: Option<String>,
    /// What a box of --emit svg is: a layer where there are many nodes, else a node; at the stage kernels, a kernel
    #[arg(long, value_enum, value_name = "WHAT", requires = "emit")]
    by: Option<By>,
    /// Only this entry of the program; of several, pictures show the training step
    #[arg(long, value_name = "NAME", requires = "emit")]
    entry: Option<String>,
    /// Write the text of every entry after every pass into this folder
    #[arg(long, value_name = "DIR")]
    dump_passes: Option<PathBuf>,
    /// Stop after this pass; no plan is made
    #[arg(long, value_name = "PASS", conflicts_with = "stage")]
    stop_after: Option<String>,
    /// Verify the graph after every pass
    #[arg(long)]
    verify: bool,
    /// Check every pass against the reference interpreter in f64 on random inputs (slow for large graphs)
    #[arg(long)]
    validate: bool,
    /// Also run an optional pass: drop-biases
    #[arg(long = "pass", value_name = "PASS")]
    optional: Vec<String>,
    #[command(flatten)]
    math: MathArgs,
    /// Make every operation a kernel of its own
    #[arg(long)]
    no_fusion: bool,
    /// Also compile the entries that take data for batches of this size: an epoch's smaller last one
    #[arg(long, value_name = "EXAMPLES", value_delimiter = ',')]
    specialise: Vec<usize>,
    /// What to compile for: cpu, cuda (this machine's GPU), cuda:sm_80 (any GPU of that kind or newer; but cuda:sm_90,
    /// or sm_90a, is for that kind alone, whose own instructions it uses), or cuda:sm_80,sm_90 (the kernels of the first, with
    /// code for each) [default: cpu; cuda:sm_80 with --emit cuda, ptx or sass]
    #[arg(long, value_name = "DEVICE")]
    device: Option<CompileFor>,
    /// How accurate matrix products are; a CPU has f32 and bf16 [default: f32]
    #[arg(long, value_enum, value_name = "PRECISION")]
    precision: Option<Accuracy>,
    /// Whether kernels for a GPU are compiled too, into the plan, so that a GPU's driver alone can run it: where NVRTC is
    /// found, always (without it is an error), or never
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto")]
    device_code: DeviceCodeWanted,
    /// Refuse a program that has warnings, such as a size that nothing uses, or kernels for a GPU that use local memory
    #[arg(long)]
    deny_warnings: bool,
    /// Print the figures as JSON
    #[arg(long, conflicts_with = "emit")]
    json: bool,
}

/// A form of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Emit {
    /// One line a node; at the stage `kernels`, the body of each kernel
    Text,
    /// In RON
    Ron,
    /// In JSON
    Json,
    /// For Graphviz
    Dot,
    /// A picture, drawn without Graphviz
    Svg,
    /// The memory map: every buffer's place in the arena and when it is live
    Memory,
    /// CUDA C++ of every kernel, and how each is launched
    Cuda,
    /// What NVRTC compiles each kernel to, for the architecture named
    Ptx,
    /// The instructions of that GPU, as nvdisasm or cuobjdump shows them
    Sass,
}

impl Emit {
    /// Whether it is of the kernels alone, as they are for a GPU.
    fn is_for_gpu(self) -> bool {
        matches!(self, Emit::Cuda | Emit::Ptx | Emit::Sass)
    }
}

/// What a box of a picture stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    Layer,
    Node,
}

/// What --json prints.
#[derive(Serialize)]
struct Figures<'c> {
    #[serde(flatten)]
    summary: &'c Summary,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_code: Option<&'c device_code::Made>,
}

const KERNELS: &str = "kernels";
const OPTIMISED: &str = "optimised";

pub fn run(args: Args) -> Result<ExitCode> {
    if let Some(output) = &args.output {
        check_output(output, &[&args.program.program])?;
    }
    let (program, mut options) = program_and_options(&args.program)?;
    options.specialise = args.specialise.clone();
    options.optional.extend(args.optional.iter().cloned());
    args.math.apply(&mut options);
    if args.no_fusion {
        options.fusion = Fusion::Off;
    }
    let mut architectures = Vec::new();
    match &args.device {
        Some(device) => (options.target, architectures) = device.target()?,
        None if args.emit.is_some_and(Emit::is_for_gpu) && options.target == Target::Cpu => {
            options.target = Target::Cuda(Architecture(80));
        }
        None => {}
    }
    if let (Target::Cuda(architecture), true) = (options.target, architectures.is_empty()) {
        architectures.push(architecture);
    }
    if architectures.is_empty() && (args.device_code == DeviceCodeWanted::Always) {
        bail!("--device-code always is for GPUs: add --device cuda:sm_90");
    }
    if architectures.is_empty() && args.emit.is_some_and(Emit::is_for_gpu) {
        bail!("there are no such texts of kernels for the CPU: add --device cuda:sm_90");
    }
    if let Some(precision) = args.precision.map(Precision::from) {
        if !options.target.has(precision) {
            bail!("--precision {} is for GPUs: add --device cuda:sm_90", precision.name());
        }
        options.precision = precision;
    } else if !options.target.has(options.precision) {
        // That of a plan for a GPU.
        options.precision = Precision::F32;
    }
    options.validate = args.validate.then_some(0);
    options.stop_after = args.stop_after.clone();
    options.verify |= args.verify;
    options.deny_warnings = args.deny_warnings;
    let wanted = stage_of(&args, &options)?;
    let mut kept: Vec<(String, Graph)> = Vec::new();
    let mut dumped = Ok(());
    let mut number = std::collections::BTreeMap::<String, usize>::new();
    let progress = checking(args.validate);
    let mut passes_checked = 0;
    let mut observe = |stage: Stage| {
        passes_checked += usize::from(stage.name != "declared");
        progress.set_message(visible(&format!("{passes_checked}, {} after {}", stage.entry, stage.name)).into_owned());
        if wanted.as_deref() == Some(stage.name) {
            kept.push((stage.entry.to_string(), stage.graph.clone()));
        }
        if let (Some(dir), Ok(())) = (&args.dump_passes, &dumped) {
            let number = number.entry(stage.entry.to_string()).or_default();
            let file = dir.join(format!("{}.{number:02}-{}.txt", stage.entry, stage.name));
            *number += 1;
            dumped = std::fs::create_dir_all(dir)
                .and_then(|()| atomic::write(&file, |out| write!(out, "{}", stage.graph)))
                .with_context(|| format!("{} cannot be written", file.display()));
        }
    };
    let compiled = program.compile_observed(&options, &mut observe);
    progress.finish_and_clear();
    let compiled = compiled?;
    dumped?;
    if let Some(emit) = args.emit {
        let text = if matches!(emit, Emit::Ptx | Emit::Sass) {
            let plan = compiled.plan.context("--stop-after makes no kernels; drop it")?;
            device_code::text(&plan, &architectures[..1], args.entry.as_deref(), emit == Emit::Sass)?
        } else {
            emitted(emit, &args, compiled, kept)?
        };
        match &args.output {
            // Human-readable text may come from a stranger's file; RON and JSON write control characters as escapes.
            None if matches!(emit, Emit::Ron | Emit::Json) => super::print_exact(&text)?,
            None => super::print(&visible(&text))?,
            Some(file) => super::output::write(file, text.as_bytes())?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut plan = compiled.plan;
    let made = match &mut plan {
        Some(plan) => device_code::make(plan, &architectures, args.device_code, args.deny_warnings)?,
        None => None,
    };
    if let Some(file) = &args.output {
        let plan = plan.as_ref().context("--stop-after makes no plan to write; drop --output or add --emit")?;
        plan::save(plan, file)?;
    }
    if args.json {
        super::print_json(&Figures { summary: &compiled.summary, device_code: made.as_ref() })?;
    } else {
        super::print(&visible(&summary_text(&compiled.summary)))?;
        if let Some(made) = &made {
            super::print(&visible(&made.text()))?;
        }
        if let Some(file) = &args.output {
            super::print(&format!("\nwrote {}", file.display()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A line that tells how far --validate is; hidden where standard error is no terminal.
fn checking(validate: bool) -> ProgressBar {
    if !validate {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(None, super::bar_target());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} passes checked: {wide_msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(std::time::Duration::from_millis(200));
    bar
}

/// The stage to be kept for --emit, where it is a graph's.
fn stage_of(args: &Args, options: &Options) -> Result<Option<String>> {
    let Some(emit) = args.emit else { return Ok(None) };
    if args.by.is_some() && emit != Emit::Svg {
        bail!("--by says what is a box of --emit svg; other formats have none");
    }
    let of_kernels = emit == Emit::Memory || emit.is_for_gpu();
    let stages = stages(options.target, options.precision);
    let last = || stages.last().map(ToString::to_string);
    match args.stage.as_deref() {
        Some(KERNELS) => Ok(None),
        Some(_) if of_kernels => bail!("--emit memory, cuda, ptx and sass are always of the kernels"),
        Some(OPTIMISED) => Ok(last()),
        Some("differentiated") => Ok(Some(gcc_gan::compile::DIFFERENTIATE.into())),
        Some(stage) if stage == "declared" || stages.contains(&stage) || args.optional.iter().any(|o| o == stage) => {
            Ok(Some(stage.into()))
        }
        Some(stage) => {
            let hint = match stage {
                "schedule" => "; kernels are always given in the order in which they run: --stage kernels".to_string(),
                "expanded" => "; what declarations expand to is the stage declared".to_string(),
                _ => elsewhere(stage, options).map_or(String::new(), |add| format!("; {stage} is one with {add}")),
            };
            bail!(
                "there is no stage `{stage}`; the stages are declared, {}, {OPTIMISED}, {KERNELS}{hint}",
                stages.join(", ")
            )
        }
        None if of_kernels => Ok(None),
        None => Ok(args.stop_after.clone().or_else(last)),
    }
}

/// With which options there is a stage.
fn elsewhere(stage: &str, options: &Options) -> Option<String> {
    const DEVICES: [(&str, Target); 2] = [("cuda:sm_90", Target::Cuda(Architecture(90))), ("cpu", Target::Cpu)];
    let precisions = [options.precision, Precision::F32, Precision::Tf32, Precision::Bf16];
    let all = DEVICES.into_iter().flat_map(|device| precisions.map(|precision| (device, precision)));
    let mut there = all.filter(|((_, target), p)| target.has(*p) && stages(*target, *p).contains(&stage));
    there.next().map(|((device, _), precision)| {
        let precision = Some(precision).filter(|p| *p != options.precision);
        format!("--device {device}{}", precision.map_or(String::new(), |p| format!(" --precision {}", p.name())))
    })
}

fn emitted(emit: Emit, args: &Args, compiled: Compiled, mut kept: Vec<(String, Graph)>) -> Result<String> {
    // Specialisations pass the same stages again: the program's own sizes come first.
    let mut seen = std::collections::BTreeSet::new();
    kept.retain(|(entry, _)| seen.insert(entry.clone()));
    let known: Vec<String> = compiled.module.entries.iter().map(|e| e.graph.name.clone()).collect();
    if let Some(entry) = &args.entry {
        if !known.contains(entry) {
            bail!("there is no entry `{entry}`; the program has {}", known.join(", "));
        }
        kept.retain(|(name, _)| name == entry);
    }
    if !kept.is_empty() {
        return graphs_text(emit, &kept, args.by);
    }
    let plan = compiled.plan.context("--stop-after makes no kernels; drop it")?;
    if emit == Emit::Cuda && args.entry.is_none() {
        return Ok(cuda::render_plan(&plan));
    }
    let entries: Vec<&EntryPlan> = (plan.entries.iter())
        .filter(|e| args.entry.as_ref().is_none_or(|name| *name == e.name) && e.sizes.is_empty())
        .collect();
    // A file is one picture.
    let main = entry_of(&plan, args.entry.as_deref());
    match emit {
        Emit::Dot | Emit::Svg => {
            let main = main?;
            let entry = compiled.module.entries.iter().find(|e| e.graph.name == main.name);
            let graph = &entry.context("the plan has an entry that the program has not")?.graph;
            let draw = if emit == Emit::Dot { schedule_dot } else { schedule_svg };
            return Ok(draw(&main.name, &main.schedule, graph));
        }
        Emit::Json => return Ok(serde_json::to_string_pretty(&entries)?),
        Emit::Ron => return Ok(ron::ser::to_string_pretty(&entries, ron::ser::PrettyConfig::new().depth_limit(5))?),
        Emit::Text | Emit::Memory | Emit::Cuda | Emit::Ptx | Emit::Sass => {}
    }
    let mut text = String::new();
    for entry in entries {
        if emit != Emit::Cuda {
            let _ = writeln!(text, "entry {}", entry.name);
        }
        text.push_str(&match emit {
            Emit::Memory => memory_text(&entry.schedule),
            Emit::Cuda => cuda::render_schedule(&entry.name, &entry.schedule),
            Emit::Text | Emit::Ron | Emit::Json | Emit::Dot | Emit::Svg | Emit::Ptx | Emit::Sass => {
                schedule_text(&entry.schedule)
            }
        });
        text.push('\n');
    }
    Ok(text)
}

/// Nodes of a graph of which a picture still fits a page.
const MOST_NODES: usize = 150;

/// The graph that a picture is of, where there are several: the training step's, else the largest.
fn pictured(graphs: &[(String, Graph)]) -> Option<&Graph> {
    let train = graphs.iter().find(|(name, _)| name == entry::TRAIN);
    train.or_else(|| graphs.iter().max_by_key(|(_, graph)| graph.len())).map(|(_, graph)| graph)
}

fn graphs_text(emit: Emit, graphs: &[(String, Graph)], by: Option<By>) -> Result<String> {
    Ok(match emit {
        Emit::Dot => pictured(graphs).map_or(String::new(), graph_dot),
        Emit::Svg => pictured(graphs).map_or(String::new(), |graph| {
            let detail = match by {
                Some(By::Layer) => Detail::Layers,
                Some(By::Node) => Detail::Nodes,
                None if graph.len() > MOST_NODES => Detail::Layers,
                None => Detail::Nodes,
            };
            graph_svg(graph, detail)
        }),
        Emit::Ron => {
            let graphs: Vec<&Graph> = graphs.iter().map(|(_, g)| g).collect();
            ron::ser::to_string_pretty(&graphs, ron::ser::PrettyConfig::new().depth_limit(3))?
        }
        Emit::Json => {
            let graphs: Vec<&Graph> = graphs.iter().map(|(_, g)| g).collect();
            serde_json::to_string_pretty(&graphs)?
        }
        Emit::Text | Emit::Memory | Emit::Cuda | Emit::Ptx | Emit::Sass => {
            graphs.iter().map(|(_, g)| format!("{g}")).collect::<Vec<_>>().join("\n")
        }
    })
}
