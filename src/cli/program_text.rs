//! Which program a user means, and compiling it.

use super::device::Opened;
use anyhow::{Context, Result, bail};
use gcc_gan::atomic;
use gcc_gan::compile::{CompileError, Compiled, Options, Stage, compile};
use gcc_gan::declare::diagnostic::Diagnostics;
use gcc_gan::declare::{self, builtin};
use gcc_gan::inspect::{Observed, main_entry, observe_with};
use gcc_gan::kernel::target::Convolutions;
use gcc_gan::plan::{self, EntryPlan, Plan};
use gcc_gan::train::checkpoint::Checkpoint;
use gcc_gan::train::session;
use std::path::{Path, PathBuf};

/// A program's text and its name in messages.
#[derive(Debug, Clone)]
pub struct ProgramText {
    pub name: String,
    pub text: String,
}

/// What a path given as a program leads to.
#[derive(Debug)]
pub enum Found {
    Source(ProgramText),
    Plan(Box<Plan>),
}

/// Finds a program: a file with a graph or a plan, or the name of a built-in program.
pub fn find(path: &Path) -> Result<Found> {
    if plan::is_plan(path) {
        return Ok(Found::Plan(Box::new(plan::load(path)?)));
    }
    Ok(Found::Source(source(path)?))
}

/// Finds a program's text; that inside a plan where the path leads to one.
pub fn source(path: &Path) -> Result<ProgramText> {
    if let Some(text) = path.to_str().filter(|_| !path.exists()).and_then(builtin::text) {
        return Ok(ProgramText { name: format!("graphs/{}.ron", path.display()), text: text.to_string() });
    }
    if plan::is_plan(path) {
        let plan = plan::load(path)?;
        return Ok(ProgramText { name: plan.source.name, text: plan.source.text });
    }
    let bytes = atomic::read(path).with_context(|| {
        format!("{} cannot be read, and is not a built-in program: `gcc-gan graphs` lists them", path.display())
    })?;
    if bytes.is_empty() {
        bail!("{} is empty: a graph in RON or a plan was expected", path.display());
    }
    const MOST: usize = 16 << 20;
    if bytes.len() > MOST {
        bail!("{} has {} bytes: that is not a graph in RON", path.display(), bytes.len());
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(ProgramText { name: path.display().to_string(), text }),
        Err(error) => bail!(
            "{} is neither a graph (it is not UTF-8 text, from byte {} on) nor a plan",
            path.display(),
            error.utf8_error().valid_up_to()
        ),
    }
}

impl ProgramText {
    pub fn compile(&self, options: &Options) -> Result<Compiled> {
        self.compile_observed(options, &mut |_| {})
    }

    pub fn compile_observed(&self, options: &Options, observe: &mut dyn FnMut(Stage)) -> Result<Compiled> {
        let compiled = compile(&self.name, &self.text, options, observe)?;
        show_warnings(&compiled);
        Ok(compiled)
    }
}

/// Shows what is odd about a program that was compiled.
fn show_warnings(compiled: &Compiled) {
    if let Some(warnings) = &compiled.warnings {
        super::show(warnings);
    }
}

/// The plan of a checkpoint's program for a device: see [`session::compile_again`].
pub fn plan_again(checkpoint: &Checkpoint, sets: &[String], on: &Opened, deny_warnings: bool) -> Result<Plan> {
    let meta = &checkpoint.meta;
    let target = (on.target_of(meta), on.precision(meta.precision));
    let compiled = session::compile_again(checkpoint, sets, target, deny_warnings)?;
    show_warnings(&compiled);
    plan_of(compiled)
}

/// A program's text, and what to compile it with: what a plan was compiled with, then what the arguments set.
pub fn program_and_options(args: &ProgramArgs) -> Result<(ProgramText, Options)> {
    let (program, mut options) = match find(&args.program)? {
        Found::Source(program) => (program, Options::default()),
        Found::Plan(plan) => {
            let options = Options::of(&plan.source);
            (ProgramText { name: plan.source.name, text: plan.source.text }, options)
        }
    };
    options.sets.extend(args.sets.iter().cloned());
    Ok((program, options))
}

/// Compiles a program and keeps every stage. A plan keeps its own kernels and memory; the stages before them are those
/// that its program passes now.
pub fn observed(args: &ProgramArgs) -> Result<Observed> {
    observed_with(args, None, None)
}

/// What arguments change of the options of a program.
pub type Change<'c> = &'c dyn Fn(&mut Options) -> Result<()>;

/// As [`observed`], with passes checked on inputs from a seed, and with other options where a program is no plan.
pub fn observed_with(args: &ProgramArgs, validate: Option<u64>, change: Option<Change>) -> Result<Observed> {
    let mut options = Options { sets: args.sets.clone(), ..Options::default() };
    let (program, plan) = match find(&args.program)? {
        Found::Source(program) => {
            change.map_or(Ok(()), |change| change(&mut options))?;
            (program, None)
        }
        Found::Plan(plan) if change.is_some() => bail!(
            "{} is a plan, compiled for {} in {}: to compile it in another way, name its program",
            args.program.display(),
            plan.source.target,
            plan.source.precision.name()
        ),
        Found::Plan(plan) => {
            if !args.sets.is_empty() {
                bail!("{} is a plan, whose sizes are fixed: --set needs the program itself", args.program.display());
            }
            options = Options::of(&plan.source);
            (ProgramText { name: plan.source.name.clone(), text: plan.source.text.clone() }, Some(*plan))
        }
    };
    options.validate = validate;
    Ok(observe_with(&program.name, &program.text, &options, plan)?)
}

/// The entry that was asked for, or the main one.
pub fn entry_of<'p>(plan: &'p Plan, asked: Option<&str>) -> Result<&'p EntryPlan> {
    let name = asked.unwrap_or_else(|| main_entry(plan));
    let known = || plan.entries.iter().filter(|e| e.sizes.is_empty()).map(|e| e.name.as_str()).collect::<Vec<_>>();
    plan.entry(name).with_context(|| format!("there is no entry `{name}`; the program has {}", known().join(", ")))
}

/// The plan of a program that was compiled to the end.
pub fn plan_of(compiled: Compiled) -> Result<Plan> {
    compiled.plan.context("compilation stopped before there was a plan")
}

/// What is wrong in a program's text, where that is what an error is about.
pub fn diagnostics(error: &anyhow::Error) -> Option<&Diagnostics> {
    error.chain().find_map(|cause| {
        let declared = match cause.downcast_ref::<CompileError>() {
            Some(CompileError::Declare(error)) => error,
            Some(_) => return None,
            None => cause.downcast_ref::<declare::Error>()?,
        };
        declared.diagnostics()
    })
}

/// The arguments that choose and change a program.
#[derive(Debug, clap::Args)]
pub struct ProgramArgs {
    /// A graph in RON, a plan, or a built-in program: see `gcc-gan graphs`
    #[arg(value_name = "PROGRAM")]
    pub program: PathBuf,
    /// Another value for one of the program's sizes or values; may be given several times
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub sets: Vec<String>,
}

/// The arguments that say what arithmetic may be changed.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct MathArgs {
    /// Allow rewrites that are wrong for NaN and infinities, such as x - x → 0
    #[arg(long)]
    fast_math: bool,
    /// How convolutions are computed [default: accurate, or as a plan was compiled]
    #[arg(long, value_enum, value_name = "HOW")]
    math: Option<Math>,
}

/// `--math`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Math {
    /// Every one as it is written
    Exact,
    /// Large ones on the CPU by Winograd's minimal filtering: results are within 1e-5 of the direct ones' norm
    Accurate,
    /// The same with larger tiles: within 1e-4, closer than TF32
    Fast,
}

impl From<Math> for Convolutions {
    fn from(math: Math) -> Convolutions {
        match math {
            Math::Exact => Convolutions::Exact,
            Math::Accurate => Convolutions::Accurate,
            Math::Fast => Convolutions::Fast,
        }
    }
}

impl MathArgs {
    /// Makes options those that were asked for. What was not keeps what a plan has.
    pub fn apply(self, options: &mut Options) {
        options.fast_math |= self.fast_math;
        if let Some(math) = self.math {
            options.convolutions = math.into();
        }
    }

    /// Whether that changes anything.
    pub fn changes(self, options: &Options) -> bool {
        let mut changed = options.clone();
        self.apply(&mut changed);
        (changed.fast_math, changed.convolutions) != (options.fast_math, options.convolutions)
    }
}
