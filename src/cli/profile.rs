//! `gcc-gan profile`.

use super::device::DeviceArgs;
use super::output::check_output;
use super::program_text::{Found, ProgramArgs, entry_of, find, plan_of};
use anyhow::{Result, anyhow, bail};
use gcc_gan::atomic;
use gcc_gan::compile::{Options, compile};
use gcc_gan::inspect::profile::compare::compare;
use gcc_gan::inspect::profile::grouped::{By, GroupTime};
use gcc_gan::inspect::profile::origin::kernel_origins;
use gcc_gan::inspect::profile::{KernelTime, Recorded, StepTime, Subject, measure};
use gcc_gan::kernel::target::Target;
use gcc_gan::visible::visible;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Measure every kernel of a step, or compare two measurements
///
/// Prints a table: the time of each kernel, its share, its shortest, median and longest time, the time that the
/// ceilings of this machine (measured first) allow, how close it comes to them, and its rates. The kernels and the time
/// between them add up to the step. With --output, every launch is also written as a trace that ui.perfetto.dev and
/// chrome://tracing open, and that `gcc-gan inspect --profile` shows. --by adds kernels up by layer, by call, by role or by
/// kind: a kernel that computes values of several layers belongs to that of its matrix product or reduction.
///
/// With --against, both files are traces that --output wrote, and nothing is measured: the table has both times of each
/// kernel (matched by name) or group, the difference and the ratio, what differs most first.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gcc-gan profile dcgan --steps 20
  gcc-gan profile dcgan --by layer
  gcc-gan profile dcgan --device cuda --precision bf16
  gcc-gan profile graphs/dcgan.ron --steps 20 -o step.json
  gcc-gan profile before.json --against after.json --by layer
  gcc-gan inspect graphs/dcgan.ron --profile step.json -o dcgan.html")]
pub struct Args {
    #[command(flatten)]
    program: ProgramArgs,
    /// Which entry; the training step where none is named
    #[arg(long, value_name = "NAME")]
    entry: Option<String>,
    /// How many steps to measure, after one that is not
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..), value_name = "N")]
    steps: u16,
    /// The trace to write
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// What the table has a row for
    #[arg(long, value_enum, default_value_t, value_name = "WHAT")]
    by: Rows,
    /// The seed of initialisation and draws (times hardly depend on it)
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Measure nothing: compare PROGRAM, which is a trace that --output wrote, with this other one
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = [
            "sets", "entry", "steps", "output", "seed", "device", "precision", "threads", "trust_device_code",
        ]
    )]
    against: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

/// `--by`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum Rows {
    /// Every kernel
    #[default]
    Kernel,
    /// Each layer, all its calls together, in columns for forward, backward and update
    Layer,
    /// Each call of each layer
    Call,
    /// Forward, backward of each loss, update of each network
    Role,
    /// Matrix products, reductions and so on
    Kind,
}

impl Rows {
    /// What kernels are added up by.
    fn groups(self) -> Option<By> {
        match self {
            Rows::Kernel => None,
            Rows::Layer => Some(By::Layer),
            Rows::Call => Some(By::Call),
            Rows::Role => Some(By::Role),
            Rows::Kind => Some(By::Kind),
        }
    }
}

#[derive(Serialize)]
struct Figures {
    #[serde(flatten)]
    subject: Subject,
    step: StepTime,
    /// Why the measured ceilings may be too low.
    #[serde(skip_serializing_if = "Option::is_none")]
    busy: Option<String>,
    kernels: Vec<KernelTime>,
    /// What `--by` adds up.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<By>,
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<Vec<GroupTime>>,
}

pub fn run(args: Args) -> Result<ExitCode> {
    if let Some(against) = &args.against {
        return compare_files([&args.program.program, against], args.by.groups(), args.json);
    }
    if let Some(output) = &args.output {
        check_output(output, &[&args.program.program])?;
    }
    let opened = args.device.open()?;
    let (plan, module) = match find(&args.program.program)? {
        Found::Source(program) => {
            let mut options = Options { sets: args.program.sets.clone(), ..Options::default() };
            opened.aim(&mut options);
            let compiled = program.compile(&options)?;
            let module = compiled.module.clone();
            (plan_of(compiled)?, Some(module))
        }
        Found::Plan(_) if !args.program.sets.is_empty() => {
            bail!("{} is a plan, whose sizes are fixed: --set needs the program itself", args.program.program.display())
        }
        Found::Plan(plan) if !opened.suits(&plan) => bail!(
            "{} is compiled for {}: profile it there with --device {}, and no other --precision, or profile its program",
            args.program.program.display(),
            plan.source.made_for(),
            if plan.source.target == Target::Cpu { "cpu" } else { "cuda" }
        ),
        Found::Plan(plan) => {
            // A plan has no graph. That of another version may have other nodes, and kernels of which nothing is known then.
            let source = &plan.source;
            let compiled = compile(&source.name, &source.text, &Options::of(source), &mut |_| {});
            (*plan, compiled.ok().map(|compiled| compiled.module))
        }
    };
    opened.check(&plan)?;
    let plan = Arc::new(plan);
    let entry = entry_of(&plan, args.entry.as_deref())?;
    if entry.schedule.kernels.is_empty() {
        bail!("`{}` has no kernels: there is nothing to measure; --entry names another", entry.name);
    }
    let style = ProgressStyle::with_template("measuring {bar:30} {pos}/{len} steps  {eta} left")?;
    // Hidden where standard error is no terminal.
    let bar = ProgressBar::with_draw_target(Some(args.steps.into()), super::bar_target()).with_style(style);
    let progress = &mut |step| bar.set_position(step as u64);
    let mut profile =
        measure(opened.device.as_ref(), plan.clone(), &entry.name, args.steps.into(), args.seed, progress)?;
    bar.finish_and_clear();
    let graph =
        module.iter().flat_map(|module| &module.entries).map(|e| &e.graph).find(|graph| graph.name == entry.name);
    profile.origins = graph.map_or(Vec::new(), |graph| kernel_origins(graph, &entry.schedule));
    let kernels = profile.kernels(&entry.schedule)?;
    if let Some(file) = &args.output {
        let trace = profile.to_trace(&entry.schedule, plan.state_layout.bytes)?;
        super::output::write(file, trace.as_bytes())?;
    }
    if args.json {
        super::print_json(&Figures {
            step: profile.step_time(),
            busy: profile.subject.spread.busy(),
            by: args.by.groups(),
            groups: args.by.groups().map(|by| profile.groups(&kernels, by)),
            subject: profile.subject,
            kernels,
        })?;
    } else {
        let table = match args.by.groups() {
            None => profile.table(&kernels),
            Some(by) => profile.group_table(&kernels, by),
        };
        super::print(&visible(&table))?;
        if let Some(file) = &args.output {
            super::print(&format!(
                "\nwrote {}: open it at ui.perfetto.dev, or with `gcc-gan inspect --profile`",
                file.display()
            ))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn compare_files(files: [&Path; 2], by: Option<By>, json: bool) -> Result<ExitCode> {
    let [a, b] = [recorded(files[0], by)?, recorded(files[1], by)?];
    let compared = compare(&a, &b, by);
    if json {
        super::print_json(&compared)?;
    } else {
        let names = files.map(|file| file.display().to_string());
        super::print(&visible(&compared.table([&names[0], &names[1]])))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads a trace to compare.
fn recorded(file: &Path, by: Option<By>) -> Result<Recorded> {
    let name = file.display();
    let bytes = atomic::read(file).map_err(|error| {
        anyhow!(
            "{name} cannot be read: {error}; --against compares two files that `gcc-gan profile PROGRAM -o FILE` wrote"
        )
    })?;
    let text = String::from_utf8(bytes).map_err(|error| anyhow!("{name} is not a profile: {error}"))?;
    let recorded = Recorded::from_trace(&text).map_err(|error| anyhow!("{name}: {error}"))?;
    let needs_origins = by.is_some_and(|by| by != By::Kind);
    if needs_origins && recorded.profile.origins.iter().all(Option::is_none) {
        bail!(
            "{name} does not say what its kernels are for, as an older version wrote it: measure again, or leave out --by"
        );
    }
    Ok(recorded)
}
