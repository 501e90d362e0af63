//! `gcc-gan tune`.

use super::device::DeviceArgs;
use super::device_code::{self, DeviceCodeWanted};
use super::output::check_output;
use super::program_text::{ProgramArgs, entry_of, plan_of, program_and_options};
use anyhow::{Result, bail};
use gcc_gan::compile::Options;
use gcc_gan::kernel::target::Target;
use gcc_gan::plan;
use gcc_gan::tune::{Effort, Found, Tuned, tune};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;

/// Choose each kernel's algorithm by measurement on the GPU that is here
///
/// The compiler chooses tiles and the number of parts of a sum by a model of a GPU. This measures the whole step with
/// others, kernel by kernel, keeps what is faster, and writes a plan with those choices: `gcc-gan train PLAN` and all other
/// commands take it. Every candidate's results are compared with the plainest way to compute its kernel before it is
/// measured. A plan's results depend on its choices in the last places (the order of sums), and on nothing that is measured
/// later.
#[derive(Debug, clap::Args)]
#[command(
    // On the CPU kernels have one algorithm each.
    mut_arg("device", |device| device.default_value("cuda")),
    after_help = "\
Examples:
  gcc-gan tune dcgan --precision tf32 -o dcgan.plan
  gcc-gan train dcgan.plan --device cuda
  gcc-gan tune dcgan --device cuda:1 --candidates 12 --steps 100 -o dcgan.plan"
)]
pub struct Args {
    #[command(flatten)]
    program: ProgramArgs,
    /// The plan to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Which entry; the training step where none is named
    #[arg(long, value_name = "NAME")]
    entry: Option<String>,
    /// How many algorithms to try for a kernel, the present one among them
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(2..), value_name = "N")]
    candidates: u8,
    /// Steps of one measurement
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..), value_name = "N")]
    steps: u16,
    /// Measurements of a candidate, of which the shortest counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..), value_name = "N")]
    rounds: u8,
    #[command(flatten)]
    device: DeviceArgs,
    /// Whether the kernels that were chosen are put into the plan compiled, so that a driver alone can run it: where NVRTC is
    /// found, always (without it is an error), or never
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto")]
    device_code: DeviceCodeWanted,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Figures<'f> {
    program: &'f str,
    entry: &'f str,
    device: String,
    seconds_before: f64,
    seconds_after: f64,
    kernels: &'f [Found],
    #[serde(skip_serializing_if = "Option::is_none")]
    device_code: Option<&'f device_code::Made>,
}

pub fn run(args: Args) -> Result<ExitCode> {
    check_output(&args.output, &[&args.program.program])?;
    let opened = args.device.open()?.without_bar();
    let Target::Cuda(architecture) = opened.target else {
        bail!("there is nothing to tune on the CPU, where kernels have one algorithm each: add --device cuda");
    };
    device_code::check(&[architecture], args.device_code)?;
    let (program, mut options) = program_and_options(&args.program)?;
    opened.aim(&mut options);
    // What is wrong with the program is said before anything is measured.
    let untuned = plan_of(program.compile(&options)?)?;
    let entry = entry_of(&untuned, args.entry.as_deref())?.name.clone();
    let style = ProgressStyle::with_template("tuning {bar:30} {pos}/{len} kernels  {eta} left")?;
    // Hidden where standard error is no terminal.
    let bar = ProgressBar::with_draw_target(None, super::bar_target()).with_style(style);
    let effort = Effort { candidates: args.candidates.into(), steps: args.steps.into(), rounds: args.rounds.into() };
    let progress = &mut |done: usize, of: usize| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
    };
    let device = opened.device.as_ref();
    let tuned = tune(device, (&program.name, &program.text), &options, &entry, &effort, progress)?;
    bar.finish_and_clear();
    let options = Options { tuned: tuned.choices.clone(), ..options };
    let mut plan = plan_of(program.compile(&options)?)?;
    let made = device_code::make(&mut plan, &[architecture], args.device_code, false)?;
    plan::save(&plan, &args.output)?;
    if args.json {
        super::print_json(&Figures {
            program: &plan.name,
            entry: &entry,
            device: device.name(),
            seconds_before: tuned.seconds_before,
            seconds_after: tuned.seconds_after,
            kernels: &tuned.kernels,
            device_code: made.as_ref(),
        })?;
    } else {
        super::print(&gcc_gan::visible::visible(&report(&tuned, &entry, &device.name())))?;
        if let Some(made) = &made {
            super::print(&gcc_gan::visible::visible(&made.text()))?;
        }
        super::print(&format!("wrote {}: gcc-gan train takes it", args.output.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn report(tuned: &Tuned, entry: &str, device: &str) -> String {
    let ms = |seconds: f64| seconds * 1e3;
    let mut text = format!(
        "{entry} on {device}: {:.3} ms a step, {:.3} before\n",
        ms(tuned.seconds_after),
        ms(tuned.seconds_before)
    );
    let changed: Vec<&Found> = tuned.kernels.iter().filter(|found| found.before != found.after).collect();
    let width = changed.iter().map(|found| found.kernel.chars().count()).max().unwrap_or(0);
    for found in &changed {
        text += &format!(
            "  {:width$}  {} -> {}  ({:+.1} us)\n",
            found.kernel,
            found.before,
            found.after,
            (found.seconds_after - found.seconds_before) * 1e6
        );
    }
    let measured: usize = tuned.kernels.iter().map(|found| found.measured).sum();
    text += &format!(
        "{} of {} kernels have another algorithm; {measured} were measured\n",
        changed.len(),
        tuned.kernels.len()
    );
    for found in &tuned.kernels {
        for (algorithm, error) in &found.refused {
            text += &format!("refused for {}: {algorithm}, whose results are off by {error:.1e}\n", found.kernel);
        }
        for (algorithm, what) in &found.unsupported {
            text += &format!("passed over for {}: {algorithm}, which the GPU does not run: {what}\n", found.kernel);
        }
    }
    text
}
