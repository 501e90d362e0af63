//! `gcc-gan train`.

use super::program::{Found, Program, find};
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use gcc_gan::compile::{Options, compile};
use gcc_gan::exec::cpu::CpuExecutor;
use gcc_gan::inspect::visible;
use gcc_gan::plan::Plan;
use gcc_gan::train::checkpoint::{self, Checkpoint, Meta};
use gcc_gan::train::data::Dataset;
use gcc_gan::train::images::{self, Grid};
use gcc_gan::train::metrics::{Metrics, Record};
use gcc_gan::train::rundir::{self, RunDir};
use gcc_gan::train::session::{self, Session};
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Train a program
///
/// Without arguments: the DCGAN on the full MNIST, where it can be found or downloaded, else on 10,000
/// digits inside the program. Losses, sample images and checkpoints go to a new folder under runs/.
/// Ctrl-C finishes the step, saves, and says how to go on.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gcc-gan train
  gcc-gan train --steps 300 --data embedded
  gcc-gan train lenet --epochs 2
  gcc-gan train graphs/dcgan.ron --set batch=64 --set lr_gen=1e-4 --data fashion-mnist
  gcc-gan train --resume                  go on with the run that was saved last
  gcc-gan train --resume runs/dcgan-001 --epochs 20")]
pub struct Args {
    /// A graph in RON, a plan, or a built-in program: dcgan, mlp-gan, lenet [default: dcgan]
    #[arg(value_name = "PROGRAM")]
    program: Option<PathBuf>,
    /// Refuse a program that has warnings, such as a size that nothing uses (a plan is not read again)
    #[arg(long)]
    deny_warnings: bool,
    /// auto, mnist, fashion-mnist, embedded, a folder with IDX files, or one IDX file [default: auto]
    #[arg(long)]
    data: Option<String>,
    /// Train until so many epochs are complete [default: 10, without --steps]
    #[arg(long, value_name = "N")]
    epochs: Option<u64>,
    /// Train until so many steps are complete
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// The seed of all randomness [default: 2]
    #[arg(long)]
    seed: Option<u64>,
    /// Threads to use; the results do not depend on it [default: one for each core]
    #[arg(long, value_parser = super::thread_count, value_name = "N")]
    threads: Option<usize>,
    /// Allow rewrites that are wrong for NaN and infinities, such as x - x → 0
    #[arg(long)]
    fast_math: bool,
    /// Another value for one of the program's sizes or values; may be given several times
    #[arg(long = "set", value_name = "NAME=VALUE")]
    sets: Vec<String>,
    /// The folder that holds the runs
    #[arg(long, default_value = "runs", value_name = "DIR")]
    out: PathBuf,
    /// The run's name [default: the program's with a number]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Steps between sample images, and between checkpoints within an epoch
    #[arg(long, default_value_t = 1000, value_name = "STEPS", value_parser = clap::value_parser!(u64).range(1..))]
    sample_every: u64,
    /// Where to run
    #[arg(long, value_enum, default_value_t = Device::Auto)]
    device: Device,
    /// Go on with a run: its folder, or the one under --out that was saved last
    #[arg(long, value_name = "RUN", num_args = 0..=1, conflicts_with_all = ["program", "sets", "seed", "name", "fast_math"])]
    resume: Option<Option<PathBuf>>,
    /// Never use the network
    #[arg(long)]
    offline: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Device {
    /// The fastest there is: the processor
    Auto,
    /// The processor
    Cpu,
}

const DEFAULT_EPOCHS: u64 = 10;
/// One with which the built-in DCGAN's first images, after 300 steps, are strokes already. With others they may
/// still be a grid of dots then; later that makes no difference.
const DEFAULT_SEED: u64 = 2;
/// Steps between lines of the log and the metrics.
const REPORT_EVERY: u64 = 1000;
const METRICS_EVERY: u64 = 50;
/// Test images that are kept back where a data set has none.
const HELD_OUT: usize = 1000;
const GRID: Grid = Grid { rows: 6, columns: 6 };

/// What there is to train, and from where.
struct Job {
    program: Program,
    name: String,
    data: String,
    digest: String,
    seed: u64,
    resumed: Option<Checkpoint>,
    run: RunDir,
}

pub fn run(args: Args) -> Result<ExitCode> {
    let (job, plan, dataset) = match &args.resume {
        Some(run) => resume(&args, run.as_deref())?,
        None => start(&args)?,
    };
    // A handler that waited for a download would make Ctrl-C seem dead: it comes after.
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = interrupted.clone();
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::SeqCst) {
            // Asked twice: the user does not want to wait for the step and the checkpoint.
            eprintln!("stopped at once: what came after the last checkpoint is lost");
            std::process::exit(i32::from(super::INTERRUPTED));
        }
    })?;
    let plan = specialised(&job, plan, &dataset)?;
    // `auto` is the processor: no other device is built in yet.
    let (Device::Auto | Device::Cpu) = args.device;
    let executor = CpuExecutor::new(plan, super::threads(args.threads))?;
    let threads = executor.threads();
    let mut session = Session::new(Box::new(executor), dataset, job.seed)?;
    match &job.resumed {
        Some(checkpoint) => session.restore(checkpoint)?,
        None => session.initialise()?,
    }
    let test = session.data().test.as_ref().map_or(String::new(), |t| format!(", {} for testing", t.len()));
    super::print(&format!(
        "{} on {} images of {}{test}\n{} a batch, {} steps an epoch, on the CPU with {threads} thread{}; seed {}\nrun: {}",
        job.name,
        session.data().train.len(),
        session.data().why,
        batch_of(&session),
        session.steps_per_epoch(),
        if threads == 1 { "" } else { "s" },
        job.seed,
        job.run.path().display(),
    ))?;
    Trainer::new(&args, &job, session, &interrupted)?.train()
}

fn start(args: &Args) -> Result<(Job, Plan, Dataset)> {
    let default = PathBuf::from("dcgan");
    let (program, mut options, plan) = match find(args.program.as_ref().unwrap_or(&default))? {
        Found::Source(program) => (program, Options { sets: args.sets.clone(), ..Options::default() }, None),
        Found::Plan(plan) => {
            let mut options = Options::of(&plan.source);
            options.sets.extend(args.sets.iter().cloned());
            let program = Program { name: plan.source.name.clone(), text: plan.source.text.clone() };
            // What it was compiled with is what was asked for: it is used as it is.
            let stays = args.sets.is_empty() && (options.fast_math || !args.fast_math);
            (program, options, stays.then_some(*plan))
        }
    };
    options.fast_math |= args.fast_math;
    options.deny_warnings = args.deny_warnings;
    let plan = match plan {
        Some(plan) => plan,
        None => super::program::plan_of(program.compile(&options)?)?,
    };
    if plan.entry(session::entry::TRAIN).is_none() {
        bail!("`{}` has no entry `{}`: it cannot be trained", plan.name, session::entry::TRAIN);
    }
    let data = args.data.clone().unwrap_or_else(|| "auto".into());
    let mut dataset = super::data::load(&data, args.offline)?;
    let (data, digest) = (dataset.argument(), dataset.digest());
    hold_out(&plan, &mut dataset);
    session::check_data(&plan, &dataset)?;
    // Now that nothing else can be wrong with the arguments: no folder is left behind by a mistake.
    let run = RunDir::create(&args.out, args.name.as_deref(), &plan.name)?;
    let job = Job {
        program,
        name: plan.name.clone(),
        data,
        digest,
        seed: args.seed.unwrap_or(DEFAULT_SEED),
        resumed: None,
        run,
    };
    Ok((job, plan, dataset))
}

fn resume(args: &Args, run: Option<&Path>) -> Result<(Job, Plan, Dataset)> {
    let path = match run {
        Some(path) => path.to_path_buf(),
        None => rundir::latest(&args.out)
            .with_context(|| format!("there is no saved run in {} to go on with", args.out.display()))?,
    };
    let run = RunDir::open(&path)?;
    let checkpoint = checkpoint::load(&run.checkpoint())?;
    let meta = checkpoint.meta.clone();
    let program = Program { name: format!("{} (in {})", meta.program, run.checkpoint().display()), text: meta.text };
    let sets: Vec<String> = meta.sets.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let options = Options {
        sets,
        optional: meta.optional.clone(),
        fusion: meta.fusion,
        fast_math: meta.fast_math,
        deny_warnings: args.deny_warnings,
        ..Options::default()
    };
    let plan = super::program::plan_of(program.compile(&options)?)?;
    let mut dataset = super::data::load(args.data.as_ref().unwrap_or(&meta.data), args.offline)?;
    let (data, digest) = (dataset.argument(), dataset.digest());
    if args.data.is_none() && !meta.digest.is_empty() && meta.digest != digest {
        bail!(
            "{} was trained on other images than {} holds now ({}): bring those back, or say --data to go on with what you name",
            run.path().display(),
            meta.data,
            dataset.why
        );
    }
    if args.data.is_some() && !meta.digest.is_empty() && meta.digest != digest {
        eprintln!("the run goes on with {}: its epochs count in those from now on", visible(&dataset.why));
    }
    hold_out(&plan, &mut dataset);
    let (name, seed) = (plan.name.clone(), meta.seed);
    let job = Job { program, name, data, digest, seed, resumed: Some(checkpoint), run };
    Ok((job, plan, dataset))
}

/// Keeps back a tenth of the images, and no more than [`HELD_OUT`], for a program that measures itself on a set without
/// test images.
fn hold_out(plan: &Plan, dataset: &mut Dataset) {
    if plan.entries.iter().any(|e| e.name == session::entry::EVALUATE) {
        dataset.hold_out(HELD_OUT.min(dataset.train.len() / 10));
    }
}

/// The plan with the specialisations that the data set's last batches need.
fn specialised(job: &Job, plan: Plan, data: &Dataset) -> Result<Plan> {
    let missing = session::leftovers(&plan, data);
    if missing.is_empty() {
        return Ok(plan);
    }
    let options = Options { specialise: missing, ..Options::of(&plan.source) };
    super::program::plan_of(compile(&job.program.name, &job.program.text, &options, &mut |_| {})?)
}

fn batch_of(session: &Session) -> usize {
    session.plan().entry(session::entry::TRAIN).map_or(0, session::examples)
}

/// The loop, and what it leaves behind.
struct Trainer<'t> {
    args: &'t Args,
    job: &'t Job,
    session: Session,
    interrupted: &'t AtomicBool,
    metrics: Metrics,
    bar: ProgressBar,
    /// The step after which training is complete.
    last: u64,
    /// Since the last line of the metrics, of the log, and since the start.
    recent: Rate,
    logged: Rate,
    total: Rate,
}

#[derive(Clone, Copy)]
struct Rate {
    since: Instant,
    images: usize,
}

impl Rate {
    fn start() -> Rate {
        Rate { since: Instant::now(), images: 0 }
    }

    fn per_second(self) -> f64 {
        self.images as f64 / self.since.elapsed().as_secs_f64().max(1e-9)
    }
}

impl<'t> Trainer<'t> {
    fn new(args: &'t Args, job: &'t Job, session: Session, interrupted: &'t AtomicBool) -> Result<Trainer<'t>> {
        let per_epoch = session.steps_per_epoch();
        let epochs = args.epochs.map(|n| n.saturating_mul(per_epoch));
        let last = match (epochs, args.steps) {
            (Some(epochs), Some(steps)) => epochs.min(steps),
            (Some(limit), None) | (None, Some(limit)) => limit,
            (None, None) => DEFAULT_EPOCHS * per_epoch,
        };
        let bar = ProgressBar::new(last).with_position(session.step_count());
        let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let metrics = Metrics::open(&job.run.metrics(), session.step_count())?;
        let [recent, logged, total] = [Rate::start(); 3];
        Ok(Trainer { args, job, session, interrupted, metrics, bar, last, recent, logged, total })
    }

    fn train(mut self) -> Result<ExitCode> {
        if self.session.step_count() >= self.last {
            let done = self.session.step_count();
            super::print(&format!("{done} steps are complete: nothing to do up to step {}", self.last))?;
            return Ok(ExitCode::SUCCESS);
        }
        if self.job.resumed.is_none() {
            self.save()?;
            self.sample()?;
        }
        let mut saved = self.session.step_count();
        let mut values = BTreeMap::new();
        while self.session.step_count() < self.last && !self.interrupted.load(Ordering::SeqCst) {
            let done = self.session.step()?;
            let step = self.session.step_count();
            self.recent.images += done.examples;
            self.logged.images += done.examples;
            self.total.images += done.examples;
            self.session.check_finite().inspect_err(|_| self.bar.finish_and_clear())?;
            values = self.session.scalars().map(|(name, value)| (name.to_string(), value)).collect();
            self.show(&values);
            let ends = step == self.last;
            if step.is_multiple_of(METRICS_EVERY) || done.ends_epoch || ends {
                self.record(&values, done.ends_epoch)?;
            }
            if step.is_multiple_of(self.args.sample_every) || ends {
                self.sample()?;
            }
            if step.is_multiple_of(self.args.sample_every) || done.ends_epoch || ends {
                self.save()?;
                saved = step;
            }
        }
        if saved != self.session.step_count() {
            self.save()?;
        }
        self.bar.finish_and_clear();
        let run = self.job.run.path().display();
        let step = self.session.step_count();
        if step < self.last {
            self.log(&values, "interrupted")?;
            super::print(&format!("saved after step {step}; go on with: gcc-gan train --resume {run}"))?;
            return Ok(ExitCode::from(super::INTERRUPTED));
        }
        super::print(&format!("{step} steps complete in {:.0} s: {run}", self.total.since.elapsed().as_secs_f64()))?;
        Ok(ExitCode::SUCCESS)
    }

    /// Epochs that are complete, and the part of the present one.
    fn epoch(&self) -> f64 {
        let position = self.session.position();
        position.epoch as f64 + position.batch as f64 / self.session.steps_per_epoch() as f64
    }

    fn show(&self, values: &BTreeMap<String, f32>) {
        let left = self.last - self.session.step_count();
        let rate = self.total.per_second();
        let seconds = left as f64 * batch_of(&self.session) as f64 / rate.max(1e-9);
        let left = Duration::from_secs_f64(seconds.clamp(0.0, 1e9));
        self.bar.set_message(format!(
            "epoch {:.2}  {rate:.0} images/s  {}  {} left",
            self.epoch(),
            visible(&listed(values)),
            indicatif::HumanDuration(left)
        ));
        self.bar.inc(1);
    }

    fn log(&mut self, values: &BTreeMap<String, f32>, what: &str) -> Result<()> {
        let line = format!(
            "step {:>6}  epoch {:>6.2}  {:>5.0} images/s  {}  {what}",
            self.session.step_count(),
            self.epoch(),
            self.logged.per_second(),
            listed(values)
        );
        self.bar.suspend(|| super::print(line.trim_end()))?;
        self.logged = Rate::start();
        Ok(())
    }

    /// Writes the metrics, and the log's line where it is due.
    fn record(&mut self, values: &BTreeMap<String, f32>, ends_epoch: bool) -> Result<()> {
        let step = self.session.step_count();
        let mut values: BTreeMap<String, f32> = values.clone();
        let (seconds, images_per_second) = (self.total.since.elapsed().as_secs_f64(), self.recent.per_second());
        let ends = step == self.last;
        if (ends_epoch || ends)
            && let Some(tests) = self.session.evaluate()?
        {
            values.extend(tests.into_iter().map(|(name, value)| (format!("test_{name}"), value)));
        }
        let finite = |x: &f32| x.is_finite().then(|| f64::from(*x));
        self.metrics.write(&Record {
            step,
            epoch: self.epoch(),
            seconds,
            images_per_second,
            values: values.iter().map(|(name, value)| (name.clone(), finite(value))).collect(),
        })?;
        self.recent = Rate::start();
        if ends_epoch || ends || step.is_multiple_of(REPORT_EVERY) {
            self.log(&values, if ends_epoch { "end of epoch" } else { "" })?;
        }
        Ok(())
    }

    fn sample(&mut self) -> Result<()> {
        if let Some(made) = self.session.sample(GRID.cells())? {
            images::write_png(&self.job.run.sample(self.session.step_count()), &made.values, &made.shape, GRID)?;
        }
        Ok(())
    }

    fn save(&mut self) -> Result<()> {
        let meta = Meta {
            program: self.job.name.clone(),
            text: self.job.program.text.clone(),
            sets: session::sets(self.session.plan()),
            data: self.job.data.clone(),
            digest: self.job.digest.clone(),
            optional: self.session.plan().source.optional.clone(),
            fusion: self.session.plan().source.fusion,
            fast_math: self.session.plan().source.fast_math,
            seed: self.job.seed,
            step: self.session.step_count(),
            position: self.session.position(),
        };
        let state = self.session.state()?;
        Ok(checkpoint::save(&self.job.run.checkpoint(), &meta, &state.tensors())?)
    }
}

fn listed(values: &BTreeMap<String, f32>) -> String {
    values.iter().map(|(name, value)| format!("{name} {value:.4}")).collect::<Vec<_>>().join("  ")
}
