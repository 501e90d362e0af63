//! `gcc-gan inspect`.

use super::device::{Accuracy, CompileFor};
use super::output::check_output;
use super::program_text::{Change, MathArgs, ProgramArgs, entry_of, observed_with};
use anyhow::{Context, Result, bail};
use gcc_gan::atomic;
use gcc_gan::compile::Options;
use gcc_gan::exec::Device;
use gcc_gan::exec::cpu::CpuDevice;
use gcc_gan::inspect::page::{Compared, PageData, add_base, arguments, check_program, page_data, render};
use gcc_gan::inspect::profile::Profile;
use gcc_gan::inspect::{Observed, summarise_values};
use gcc_gan::ir::{Bindings, Value};
use gcc_gan::kernel::target::Precision;
use gcc_gan::schedule::Fusion;
use gcc_gan::train::checkpoint::{self, Meta};
use gcc_gan::train::session::{self, Session};
use gcc_gan::train::{rundir, thousands};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Show everything the compiler does, in one HTML file
///
/// The page shows the graph at every stage, with what each pass changed and by which rule; the kernels under their
/// roofline; the memory map; with --profile, the timeline of a measured step; with --values, what its values look like;
/// and, with --against, what differs from another program, down to the milliseconds of each kernel. It needs neither a
/// network nor a server.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gcc-gan inspect graphs/dcgan.ron -o dcgan.html
  gcc-gan inspect dcgan.plan -o dcgan.html
  gcc-gan inspect mlp-gan --validate -o checked.html
  gcc-gan inspect dcgan --values runs/dcgan-001 -o dcgan.html
  gcc-gan profile dcgan --steps 20 -o step.json && gcc-gan inspect dcgan --profile step.json -o dcgan.html
  gcc-gan inspect dcgan --set batch=64 --against dcgan -o batch.html
  gcc-gan inspect dcgan --device cuda:sm_90 --against dcgan -o devices.html
  gcc-gan inspect dcgan --profile new.json --against-profile old.json -o times.html")]
pub struct Args {
    #[command(flatten)]
    program: ProgramArgs,
    /// The HTML file to write; standard output where none is given
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Measured times, as `gcc-gan profile` writes them
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// The values of the next training step of a run, evaluated by the reference interpreter: pictures, histograms, and
    /// what is NaN or infinite. A run's folder, or a checkpoint file, of the same program
    #[arg(long, value_name = "RUN", conflicts_with = "device")]
    values: Option<PathBuf>,
    /// The data that the step takes [default: the run's own]
    #[arg(long, value_name = "DATA", requires = "values")]
    data: Option<String>,
    /// Never use the network
    #[arg(long, requires = "values")]
    offline: bool,
    /// Check every pass against the reference interpreter in f64 on random inputs, and show how well it did (slow for large
    /// graphs)
    #[arg(long)]
    validate: bool,
    /// What to compile for: cpu, cuda (this machine's GPU) or cuda:sm_80 (that kind) [default: cpu]
    #[arg(long, value_name = "DEVICE")]
    device: Option<CompileFor>,
    /// How accurate matrix products are; a CPU has f32 and bf16 [default: f32]
    #[arg(long, value_enum, value_name = "PRECISION")]
    precision: Option<Accuracy>,
    /// Also run an optional pass: drop-biases
    #[arg(long = "pass", value_name = "PASS")]
    optional: Vec<String>,
    #[command(flatten)]
    math: MathArgs,
    /// Make every operation a kernel of its own
    #[arg(long)]
    no_fusion: bool,
    /// Show what differs from this other program: a graph in RON, a plan, or a built-in program
    #[arg(long, value_name = "PROGRAM")]
    against: Option<PathBuf>,
    /// Another value for one of the other program's sizes or values
    #[arg(long = "against-set", value_name = "NAME=VALUE", requires = "against")]
    against_sets: Vec<String>,
    /// What to compile the other program for [default: cpu]
    #[arg(long, value_name = "DEVICE", requires = "against")]
    against_device: Option<CompileFor>,
    /// How accurate the other program's matrix products are [default: f32]
    #[arg(long, value_enum, value_name = "PRECISION", requires = "against")]
    against_precision: Option<Accuracy>,
    /// Measured times of the other program; without --against, older times of the same one
    #[arg(long, value_name = "FILE", requires = "profile")]
    against_profile: Option<PathBuf>,
    /// The data behind the page instead, as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<ExitCode> {
    if let Some(output) = &args.output {
        let files = [&args.profile, &args.values, &args.against, &args.against_profile].into_iter().flatten();
        let read: Vec<&Path> = [&args.program.program].into_iter().chain(files).map(PathBuf::as_path).collect();
        check_output(output, &read)?;
    }
    let change = |options: &mut Options| {
        options.optional.extend(args.optional.iter().cloned());
        args.math.apply(options);
        if args.no_fusion {
            options.fusion = Fusion::Off;
        }
        aim(options, args.device.as_ref(), args.precision)
    };
    let is_changed = !args.optional.is_empty()
        || args.no_fusion
        || args.device.is_some()
        || args.precision.is_some()
        || args.math.changes(&Options::default());
    let change = is_changed.then_some(&change as Change);
    let observed = observed_with(&args.program, args.validate.then_some(0), change)?;
    let profile = args.profile.as_ref().map(|file| profile_of(file, &observed)).transpose()?;
    let mut data = page_data(&observed, profile.as_ref()).with_context(|| {
        args.profile.as_ref().map_or(String::new(), |file| format!("{} cannot be shown", file.display()))
    })?;
    // As it was named here: a built-in program has no file, and a plan keeps its sizes.
    if let Some(program) = args.program.program.to_str() {
        data.arguments = arguments(program, &args.program.sets);
    }
    if let Some(run) = &args.values {
        add_values(&args, run, &observed, &mut data)
            .with_context(|| format!("the values of {} cannot be shown", run.display()))?;
    }
    let base = args.against.as_ref().map(|program| other(&args, program)).transpose()?;
    if base.is_some() || args.against_profile.is_some() {
        let base = base.as_ref().unwrap_or(&observed);
        let base_profile = args.against_profile.as_ref().map(|file| profile_of(file, base)).transpose()?;
        let with = args.against.as_ref().or(args.against_profile.as_ref());
        let side = |observed, profile, file: &Option<PathBuf>| Compared {
            observed,
            profile,
            profile_file: file.as_ref().map(|file| file.display().to_string()),
        };
        let ours = side(&observed, profile.as_ref(), &args.profile);
        let theirs = side(base, base_profile.as_ref(), &args.against_profile);
        add_base(&mut data, &ours, &theirs).with_context(|| {
            with.map_or(String::new(), |file| {
                format!("{} cannot be compared with {}", args.program.program.display(), file.display())
            })
        })?;
    }
    let text = if args.json { serde_json::to_string_pretty(&data)? } else { render(&data) };
    match &args.output {
        None => super::print_exact(&text)?,
        Some(file) => {
            super::output::write(file, text.as_bytes())?;
            let size = gcc_gan::inspect::bytes(text.len());
            super::print(&format!("wrote {} ({size}): open it in a browser", file.display()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Evaluates the step that a run would do next, and puts its values on the page.
fn add_values(args: &Args, run: &Path, observed: &Observed, data: &mut PageData) -> Result<()> {
    if !run.exists() {
        let runs = Path::new(rundir::RUNS);
        let like = rundir::latest(runs).unwrap_or_else(|| runs.join("dcgan-001"));
        bail!("there is no such run: name the folder that `gcc-gan train` made, such as {}", like.display());
    }
    let checkpoint = checkpoint::load(&rundir::checkpoint_of(run)?)?;
    let meta = &checkpoint.meta;
    if meta.text != observed.text || meta.sets != session::sets(&observed.plan) {
        let sets: String = meta.sets.iter().map(|(name, value)| format!(" --set {name}={value}")).collect();
        let sets = if sets.is_empty() { " without --set".to_string() } else { format!(" with{sets}") };
        bail!("its program is another: it was trained on `{}`{sets}", meta.program);
    }
    let name = session::entry::TRAIN;
    let (Some(history), Some(shown)) = (observed.history(name), data.entries.iter_mut().find(|e| e.name == name))
    else {
        bail!("the program has no entry `{name}`");
    };
    let plan = observed.plan.clone();
    let source = args.data.as_ref().unwrap_or(&meta.data);
    let mut dataset = super::data::load_for(&plan, source, args.offline, false).with_context(|| match args.data {
        Some(_) => "there is nothing for the step to take".to_string(),
        None => format!("{source}, which it was trained on, is not there: name what the step takes with --data"),
    })?;
    let digest = Meta::new(&plan, &dataset, meta.seed).digest;
    if args.data.is_none() && !meta.digest.is_empty() && meta.digest != digest {
        bail!(
            "it was trained on other images than {source} holds now: bring those back, or name what the step takes with --data"
        );
    }
    super::train::hold_out(&plan, &mut dataset);
    session::check_data(&plan, &dataset)?;
    let mut session = Session::new(CpuDevice::new(1).load(Arc::new(plan))?, dataset, meta.seed)?;
    session.restore(&checkpoint)?;
    let given = session.next_step()?;
    let bindings: Bindings<f32> =
        given.iter().map(|(name, tensor)| (name.clone(), Value::from_tensor(tensor))).collect();
    drop((session, given));
    let bar = super::sample::bar(history.last().topological().len() as u64, "nodes");
    let values = summarise_values(history.last(), &bindings, || bar.inc(1))?;
    bar.finish_and_clear();
    shown.set_values(format!("step {} of {}", thousands(meta.step as usize + 1), run.display()), values);
    Ok(())
}

/// The program of --against.
fn other(args: &Args, program: &Path) -> Result<Observed> {
    let is_profile = |text: String| Profile::subject_of(&text).is_ok();
    if program.extension().is_some_and(|end| end == "json")
        && atomic::read(program).ok().and_then(|bytes| String::from_utf8(bytes).ok()).is_some_and(is_profile)
    {
        bail!("{} is a profile, not a program: give it as --against-profile", program.display());
    }
    let change = |options: &mut Options| aim(options, args.against_device.as_ref(), args.against_precision);
    let is_changed = args.against_device.is_some() || args.against_precision.is_some();
    let program = ProgramArgs { program: program.to_path_buf(), sets: args.against_sets.clone() };
    observed_with(&program, None, is_changed.then_some(&change as Change))
        .with_context(|| format!("there is nothing to compare with in {}", program.program.display()))
}

fn aim(options: &mut Options, device: Option<&CompileFor>, precision: Option<Accuracy>) -> Result<()> {
    if let Some(device) = device {
        options.target = device.target()?.0;
    }
    if let Some(precision) = precision.map(Precision::from) {
        if !options.target.has(precision) {
            bail!("{} is a precision of GPUs: compile for one, such as cuda:sm_90", precision.name());
        }
        options.precision = precision;
    }
    Ok(())
}

/// Reads the measured times of one of a program's entries.
fn profile_of(file: &Path, observed: &Observed) -> Result<Profile> {
    let bytes = atomic::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let wrong = || format!("{} cannot be shown", file.display());
    let text = String::from_utf8(bytes).with_context(wrong)?;
    let subject = Profile::subject_of(&text).with_context(wrong)?;
    check_program(observed, &subject).with_context(wrong)?;
    let entry = entry_of(&observed.plan, Some(&subject.entry)).with_context(wrong)?;
    Profile::from_trace(&text, &entry.schedule).with_context(wrong)
}
