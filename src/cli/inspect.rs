//! `gcc-gan inspect`.

use super::output::check_output;
use super::program_text::{ProgramArgs, entry_of, observed};
use anyhow::{Context, Result, bail};
use gcc_gan::atomic;
use gcc_gan::exec::Device;
use gcc_gan::exec::cpu::CpuDevice;
use gcc_gan::inspect::page::{PageData, page_data, render};
use gcc_gan::inspect::profile::Profile;
use gcc_gan::inspect::{Observed, summarise_values};
use gcc_gan::ir::{Bindings, Value};
use gcc_gan::train::checkpoint;
use gcc_gan::train::session::{self, Session};
use gcc_gan::train::{rundir, thousands};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Show everything the compiler does, in one HTML file
///
/// The page shows the graph at every stage, with what each pass changed; the kernels under their roofline; the memory
/// map; with --profile the timeline of a measured step, and with --values what its values look like. It needs neither a network nor a server.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gcc-gan inspect graphs/dcgan.ron -o dcgan.html
  gcc-gan inspect dcgan.plan -o dcgan.html
  gcc-gan inspect dcgan --values runs/dcgan-001 -o dcgan.html
  gcc-gan profile dcgan --steps 20 -o step.json && gcc-gan inspect dcgan --profile step.json -o dcgan.html")]
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
    #[arg(long, value_name = "RUN")]
    values: Option<PathBuf>,
    /// The data that the step takes [default: the run's own]
    #[arg(long, value_name = "DATA", requires = "values")]
    data: Option<String>,
    /// Never use the network
    #[arg(long, requires = "values")]
    offline: bool,
    /// The data behind the page instead, as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<ExitCode> {
    if let Some(output) = &args.output {
        let read: Vec<&Path> = [&args.program.program].into_iter().chain(&args.profile).map(PathBuf::as_path).collect();
        check_output(output, &read)?;
    }
    let observed = observed(&args.program)?;
    let mut profile = None;
    if let Some(file) = &args.profile {
        let bytes = atomic::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
        let wrong = || format!("{} cannot be shown", file.display());
        let text = String::from_utf8(bytes).with_context(wrong)?;
        let subject = Profile::subject_of(&text).with_context(wrong)?;
        let entry = entry_of(&observed.plan, Some(&subject.entry)).with_context(wrong)?;
        profile = Some(Profile::from_trace(&text, &entry.schedule).with_context(wrong)?);
    }
    let mut data = page_data(&observed, profile.as_ref()).with_context(|| {
        args.profile.as_ref().map_or(String::new(), |file| format!("{} cannot be shown", file.display()))
    })?;
    if let Some(run) = &args.values {
        add_values(&args, run, &observed, &mut data)
            .with_context(|| format!("the values of {} cannot be shown", run.display()))?;
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
    let data = args.data.as_ref().unwrap_or(&meta.data);
    let mut dataset = super::data::load_for(&plan, data, args.offline, false)?;
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
