//! `gcc-gan train`.

use super::device::{DeviceArgs, Opened};
use super::fitting::{Sizes, explained};
use super::program_text::{Found, MathArgs, ProgramText, find};
use super::screen::{Screen, beginning, heading, shown};
use anyhow::{Context, Result, anyhow, bail};
use gcc_gan::compile::Options;
use gcc_gan::declare::{self, Number};
use gcc_gan::exec::ExecError;
use gcc_gan::kernel::target;
use gcc_gan::plan::{self, EntryPlan, Plan};
use gcc_gan::train::checkpoint::{self, Checkpoint, Meta};
use gcc_gan::train::data::Dataset;
use gcc_gan::train::examiner::Examiner;
use gcc_gan::train::observer::Observer;
use gcc_gan::train::pace::{Habits, Target};
use gcc_gan::train::rundir::{self, RunDir};
use gcc_gan::train::session::{self, Session, SessionError};
use gcc_gan::train::starts::{self, Start};
use gcc_gan::train::thousands;
use gcc_gan::train::trainer::{self, Ended, TrainError};
use serde_json::json;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

/// Train a program
///
/// Without arguments: the DCGAN on the full MNIST, where it can be found or downloaded, else on 10,000
/// digits inside the program. Losses, sample images and checkpoints go to a new folder under runs/.
/// Ctrl-C finishes the step, saves, and says how to resume. A run whose parameters become infinite or NaN ends with an
/// error, and its last good checkpoint stays.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("measured").args(["eval_every", "resume"]).multiple(true)))]
#[command(after_help = "\
Examples:
  gcc-gan train
  gcc-gan train --steps 300 --data embedded
  gcc-gan train lenet --epochs 2
  gcc-gan train dcgan-paper --eval-every 1000 --keep 3   measure the samples, and keep the best checkpoint
  gcc-gan train --device cuda --precision tf32
  gcc-gan train dcgan-gpu.plan --device cuda --trust-device-code   with a GPU's driver alone: see `compile`
  gcc-gan train graphs/dcgan.ron --set batch=64 --set lr_gen=1e-4 --data fashion-mnist
  gcc-gan train dcgan64 --data ~/photos   pictures are resized and centre-cropped; sub-folders are classes
  gcc-gan train --resume                  resume the run that was saved last
  gcc-gan train --resume runs/dcgan-001 --epochs 20 --set lr_gen=1e-4")]
pub struct Args {
    /// A graph in RON, a plan, or a built-in program: see `gcc-gan graphs` [default: dcgan]
    #[arg(value_name = "PROGRAM")]
    program: Option<PathBuf>,
    /// Refuse a program that has warnings, such as a size that nothing uses (a plan is not read again)
    #[arg(long)]
    deny_warnings: bool,
    /// auto, mnist, fashion-mnist, embedded, a folder of PNG or JPEG files (sub-folders are classes), a folder with IDX
    /// files, NPY arrays or CIFAR-10's binary files, or one such file [default: auto]
    #[arg(long)]
    data: Option<String>,
    /// Refuse data with a picture that cannot be read, which is skipped otherwise
    #[arg(long)]
    strict: bool,
    /// Train until N epochs are complete [default: 10, without --steps; with --resume, as far as the run was to go]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    epochs: Option<u64>,
    /// Train until N steps are complete
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,
    /// The seed of all randomness [default: 2, with which the DCGAN's first samples show strokes early; other commands
    /// have 0]
    #[arg(long)]
    seed: Option<u64>,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    math: MathArgs,
    /// Another value for one of the program's sizes or values; may be given several times. With --resume, for one of
    /// its values, such as a learning rate
    #[arg(long = "set", value_name = "NAME=VALUE")]
    sets: Vec<String>,
    /// The folder that holds the runs
    #[arg(long, default_value = rundir::RUNS, value_name = "DIR")]
    out: PathBuf,
    /// The run's name [default: the program's with a number]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Steps between sample images, and between checkpoints within an epoch [default: 1000]
    #[arg(long, value_name = "STEPS", value_parser = clap::value_parser!(u64).range(1..))]
    sample_every: Option<u64>,
    /// Steps between lines of metrics.jsonl and points in TensorBoard, and between printed lines [default: 50, and 1000
    /// between printed lines]
    #[arg(long, value_name = "STEPS", value_parser = clap::value_parser!(u64).range(1..))]
    log_every: Option<u64>,
    /// Measure the samples of the run's seed every N steps as `eval` does, by moving averages of the weights where the
    /// program keeps them; 0 is never. The figures are in the metrics, and the best checkpoint so far is kept as
    /// best.safetensors
    #[arg(long, value_name = "STEPS")]
    eval_every: Option<u64>,
    /// Samples to measure each time [default: 2,000, or as many as can be compared with the real images]
    #[arg(long, value_name = "N", requires = "measured")]
    eval_samples: Option<usize>,
    /// Keep the last N checkpoints, in the run's folder checkpoints/ by their steps [default: 0]
    #[arg(long, value_name = "N")]
    keep: Option<usize>,
    /// Resume a run: its folder, or the one under --out that was saved last. What it was told by --sample-every,
    /// --log-every, --eval-every, --eval-samples and --keep still holds, unless another value is given
    #[arg(long, value_name = "RUN", num_args = 0..=1, conflicts_with_all = ["program", "seed", "name", "fast_math", "math"])]
    resume: Option<Option<PathBuf>>,
    /// Print JSON in place of text, an object a line: the run's beginning, reports, what was measured and saved, and its end
    #[arg(long)]
    json: bool,
    /// Never use the network
    #[arg(long)]
    offline: bool,
}

impl Args {
    /// What these say of how often to leave something behind.
    fn habits(&self) -> Habits {
        Habits {
            sample_every: self.sample_every,
            log_every: self.log_every,
            eval_every: self.eval_every,
            eval_samples: self.eval_samples,
            keep: self.keep,
        }
    }
}

const DEFAULT_EPOCHS: u64 = 10;
/// One with which the built-in DCGAN's first images, after 300 steps, are strokes already. With others they may
/// still be a grid of dots then; later that makes no difference.
const DEFAULT_SEED: u64 = 2;
/// Test images that are kept back where a data set has none.
const HELD_OUT: usize = 1000;
/// What there is to train, and from where.
struct Job {
    plan: Plan,
    dataset: Dataset,
    meta: Meta,
    resumed: Option<Checkpoint>,
    /// Whether it is resumed with other data.
    is_other: bool,
    /// The folder of a run that is resumed. That of a new one is made when nothing else can fail.
    run: Option<RunDir>,
    /// What a run that is resumed was told when it was started last.
    before: Habits,
}

pub fn run(args: Args) -> Result<ExitCode> {
    let mut screen = Screen::new(args.json);
    let opened = args.device.open()?;
    let mut job = match &args.resume {
        Some(run) => resume(&args, &opened, run.as_deref(), &mut screen)?,
        None => start(&args, &opened)?,
    };
    let digest = plan::digest(&job.plan).map_err(anyhow::Error::msg)?;
    let compiled = job.plan.entries.len();
    session::specialise(&mut job.plan, &job.dataset);
    opened.check(&job.plan).with_context(|| smaller_batches(&job.plan.entries[compiled..]))?;
    // A handler that waited for a download would make Ctrl-C seem dead: it comes after.
    let flag = screen.interrupted.clone();
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::SeqCst) {
            // Asked twice: the user does not want to wait for the step and the checkpoint.
            let _ = writeln!(io::stderr(), "stopped at once: what came after the last checkpoint is lost");
            std::process::exit(i32::from(super::INTERRUPTED));
        }
    })?;
    let program = job.plan.name.clone();
    let plan = Arc::new(job.plan);
    let sizes = if job.resumed.is_some() { Sizes::Kept } else { Sizes::Free };
    let executor = opened.device.load(plan.clone()).map_err(|e| explained(e.into(), &plan.source, sizes))?;
    drop(plan);
    let mut session = Session::new(executor, job.dataset, job.meta.seed)?;
    match &job.resumed {
        Some(checkpoint) => session.restore(checkpoint)?,
        None => session.initialise()?,
    }
    drop(job.resumed);
    let target = target(&args, &job.meta);
    job.meta.target = Some(target);
    let habits = args.habits().or(job.before);
    if args.eval_samples.is_some() && !habits.examines() {
        bail!("--eval-samples is how many samples are measured: say how often by --eval-every");
    }
    let pace = habits.pace(target.last_step(&session));
    if habits.examines() && session.step_count() < pace.until {
        let threads = args.device.thread_count();
        let examiner = Examiner::new(session.plan(), session.data(), habits.eval_samples, threads);
        session.examine_by(examiner.context("the samples cannot be measured: see --eval-every and --eval-samples")?);
    }
    let is_new = job.run.is_none();
    let run = match job.run {
        Some(run) => run,
        None => RunDir::create(&args.out, args.name.as_deref(), &program)?,
    };
    if job.is_other && session.step_count() < pace.until {
        // What is done again from the checkpoint, here or by another process, must begin at the same images.
        let meta = Meta { step: session.step_count(), position: session.position(), ..job.meta.clone() };
        checkpoint::save(&run.checkpoint(), &meta, &mut session.state())?;
    }
    let device = opened.device.name();
    let mut is_recorded = false;
    if session.step_count() < pace.until {
        let machine =
            starts::Machine { cpu: starts::cpu_model(), device: device.clone(), threads: args.device.thread_count() };
        let start = Start { machine, plan: digest, habits: Some(habits), ..begun(&session, &job.meta) };
        is_recorded = record(run.path(), is_new, &start, &mut screen);
    }
    screen.print(&heading(&session, &job.meta, &device, run.path()));
    let taken_over = job.before.without(args.habits()).arguments().join(" ");
    if !taken_over.is_empty() && session.step_count() < pace.until {
        screen.print(&format!("as before: {taken_over} (another value changes it)"));
    }
    screen.event(|| beginning(&session, &job.meta, &device, run.path(), &pace));
    let ended = trainer::train(&mut session, &run, job.meta, &pace, &mut screen);
    screen.clear();
    if let Err(TrainError::NonFinite(found)) = &ended
        && let Some(first) = &found.first
    {
        super::show(&first.place);
    }
    let (step, path) = (session.step_count(), run.path().display());
    let resume = starts::quoted([run.path()]);
    let mut resume = format!("gcc-gan train --resume {resume}{}", args.device.to_continue());
    // What is recorded need not be said again.
    let habits = if is_recorded { Vec::new() } else { habits.arguments() };
    habits.iter().map(String::as_str).chain(args.offline.then_some("--offline")).for_each(|option| {
        resume += " ";
        resume += option;
    });
    let steps = format!("{} step{}", thousands(step as usize), if step == 1 { "" } else { "s" });
    let ended = ended.map_err(|error| match &error {
        TrainError::Session(SessionError::Exec(ExecError::Lost { .. })) if run.checkpoint().is_file() => {
            anyhow!("{error}, resume from there: {resume}")
        }
        TrainError::Session(SessionError::Exec(ExecError::Lost { .. })) => {
            anyhow!("{error}, and there was none yet: train again")
        }
        _ => error.into(),
    });
    let seconds = screen.started.elapsed().as_secs_f64();
    let how = match &ended {
        Ok(Ended::Complete) => "complete",
        Ok(Ended::NothingToDo) => "nothing to do",
        Ok(Ended::Cancelled) => "interrupted",
        Err(_) => "failed",
    };
    let error = ended.as_ref().err().map(ToString::to_string);
    screen.event(|| {
        let run = shown(run.path());
        json!({ "event": "end", "ended": how, "step": step, "seconds": seconds, "run": run, "error": error })
    });
    match ended? {
        Ended::Complete => {
            screen.print(&format!("{steps} complete in {seconds:.0} s: {path}"));
            Ok(ExitCode::SUCCESS)
        }
        Ended::NothingToDo => {
            screen.print(&format!(
                "{steps} complete already: nothing to do until step {}; --epochs or --steps set another end",
                pace.until
            ));
            Ok(ExitCode::SUCCESS)
        }
        Ended::Cancelled => {
            screen.print(&format!("interrupted and saved after step {step}; resume with: {resume}"));
            Ok(ExitCode::from(super::INTERRUPTED))
        }
    }
}

/// What is missing where a plan has no code of the entries that were added to it.
fn smaller_batches(added: &[EntryPlan]) -> String {
    let mut sizes: Vec<String> = added.iter().flat_map(|e| &e.sizes).map(|(_, size)| size.to_string()).collect();
    sizes.dedup();
    let sizes = sizes.join(",");
    format!("what an epoch leaves for its last batch needs kernels of its own (`gcc-gan compile --specialise {sizes}`)")
}

fn start(args: &Args, opened: &Opened) -> Result<Job> {
    let default = PathBuf::from("dcgan");
    let (program, mut options, plan) = match find(args.program.as_ref().unwrap_or(&default))? {
        Found::Source(program) => (program, Options { sets: args.sets.clone(), ..Options::default() }, None),
        Found::Plan(plan) => {
            let mut options = Options::of(&plan.source);
            options.sets.extend(args.sets.iter().cloned());
            let program = ProgramText { name: plan.source.name.clone(), text: plan.source.text.clone() };
            // What it was compiled with is what was asked for: it is used as it is.
            let stays = args.sets.is_empty() && !args.math.changes(&options) && opened.suits(&plan);
            if !opened.suits(&plan) {
                opened.check_trusted(&plan)?;
                super::note("the plan's kernels are not for this device and precision: its program is compiled again");
            }
            (program, options, stays.then_some(*plan))
        }
    };
    args.math.apply(&mut options);
    opened.aim(&mut options);
    options.deny_warnings = args.deny_warnings;
    let plan = match plan {
        Some(plan) => plan,
        None => super::program_text::plan_of(program.compile(&options)?)?,
    };
    opened.check(&plan)?;
    if plan.entry(session::entry::TRAIN).is_none() {
        bail!("`{}` has no entry `{}`: it cannot be trained", plan.name, session::entry::TRAIN);
    }
    RunDir::check(&args.out, args.name.as_deref(), &plan.name)?;
    let data = args.data.clone().unwrap_or_else(|| "auto".into());
    let mut dataset = super::data::load_for(&plan, &data, args.offline, args.strict)?;
    let meta = Meta::new(&plan, &dataset, args.seed.unwrap_or(DEFAULT_SEED));
    let meta = Meta { ran_on: Some(opened.target), ..meta };
    hold_out(&plan, &mut dataset);
    session::check_data(&plan, &dataset)?;
    Ok(Job { plan, dataset, meta, resumed: None, is_other: false, run: None, before: Habits::default() })
}

fn resume(args: &Args, opened: &Opened, run: Option<&Path>, screen: &mut Screen) -> Result<Job> {
    let path = match run {
        Some(path) => path.to_path_buf(),
        None => rundir::latest(&args.out)
            .with_context(|| format!("there is no saved run in {} to resume", args.out.display()))?,
    };
    let run = RunDir::open(&path)?;
    let mut checkpoint = checkpoint::load(&run.checkpoint())?;
    let meta = &checkpoint.meta;
    let numbers = declare::sizes(&meta.program, &meta.text, &[])?;
    for set in &args.sets {
        let name = set.split('=').next().unwrap_or_default().trim();
        if let Some((_, Number::Size(_))) = numbers.iter().find(|(n, _)| n == name) {
            bail!(
                "--set {set}: a run keeps its sizes, and `{name}` is one; values such as a learning rate can be changed, \
                 and another size needs a new run"
            );
        }
    }
    if matches!((meta.ran_on, opened.target), (Some(target::Target::Cuda(_)), target::Target::Cpu)) {
        let (was, is) = (meta.precision.name(), opened.precision(meta.precision).name());
        let precision = if was == is { String::new() } else { format!(" --precision {was}") };
        super::note(&format!(
            "the run was on a GPU in {was} until now, and goes on on the CPU in {is}: --device cuda{precision} goes on there"
        ));
    }
    let plan = super::program_text::plan_again(&checkpoint, &args.sets, opened, args.deny_warnings)?;
    opened.check(&plan)?;
    let mut dataset =
        super::data::load_for(&plan, args.data.as_ref().unwrap_or(&meta.data), args.offline, args.strict)?;
    let now = Meta::new(&plan, &dataset, meta.seed);
    let now = Meta { target: meta.target, ran_on: Some(opened.target), ..now };
    let is_other = !meta.digest.is_empty() && meta.digest != now.digest;
    if is_other {
        match args.data {
            None => bail!(
                "{} was trained on other images than {} holds now ({} {}). Bring the former back, or name what to train \
                 on from now on with --data",
                run.path().display(),
                meta.data,
                thousands(dataset.train.len()),
                dataset.why
            ),
            Some(_) => screen.warning(&format!(
                "the data differ: the run was trained on {} until now, and continues with {} {}",
                meta.data,
                thousands(dataset.train.len()),
                dataset.why
            )),
        }
    }
    hold_out(&plan, &mut dataset);
    match session::check_data(&plan, &dataset) {
        Err(SessionError::TooFew { data, program, count, batch, .. }) => {
            let hint = "a run keeps its sizes: name more images with --data, or begin a new run".into();
            return Err(SessionError::TooFew { data, program, count, batch, hint }.into());
        }
        checked => checked?,
    }
    if is_other {
        // A place in an epoch of other images means nothing: the epoch begins anew.
        checkpoint.meta.position.batch = 0;
    }
    // One that cannot be read is told of when this start is added to it.
    let starts = starts::read(run.path()).unwrap_or_default();
    let before = starts.iter().rev().find_map(|start| start.habits).unwrap_or_default();
    Ok(Job { plan, dataset, meta: now, resumed: Some(checkpoint), is_other, run: Some(run), before })
}

/// Keeps back a tenth of the images, and no more than [`HELD_OUT`], for a program that measures itself on a set without
/// test images.
pub(super) fn hold_out(plan: &Plan, dataset: &mut Dataset) {
    if plan.entries.iter().any(|e| e.name == session::entry::EVALUATE) {
        dataset.hold_out(HELD_OUT.min(dataset.train.len() / 10));
    }
}

/// What is known of this start from the run itself.
fn begun(session: &Session, meta: &Meta) -> Start {
    Start {
        command: starts::quoted(std::env::args_os()),
        time: starts::time_text(SystemTime::now()),
        step: session.step_count(),
        version: env!("CARGO_PKG_VERSION").into(),
        precision: meta.precision.name().into(),
        seed: meta.seed,
        sets: meta.sets.clone(),
        data: starts::Data { name: meta.data.clone(), images: session.data().train.len(), digest: meta.digest.clone() },
        ..Start::default()
    }
}

/// Adds a start to the run's record; gives whether it could. To train is worth more than the record: what goes wrong is a
/// warning.
fn record(run: &Path, is_new: bool, start: &Start, screen: &mut Screen) -> bool {
    match starts::add(run, start, is_new) {
        Ok(None) => true,
        Ok(Some(damage)) => {
            screen.warning(&format!(
                "how the run was started until now is lost: {damage} (it is kept as {}.damaged); options such as --keep \
                 have to be given again",
                starts::FILE
            ));
            true
        }
        Err(error) => {
            screen.warning(&format!("how the run was started is not recorded: {error}"));
            false
        }
    }
}

/// How far to train: what the arguments say, else what the run was to reach when it was last begun or resumed.
fn target(args: &Args, meta: &Meta) -> Target {
    match (args.epochs, args.steps) {
        (None, None) => meta.target.unwrap_or(Target { epochs: Some(DEFAULT_EPOCHS), steps: None }),
        (epochs, steps) => Target { epochs, steps },
    }
}
