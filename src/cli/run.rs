//! `gcc-gan run`.

use super::device::DeviceArgs;
use super::output::check_output;
use super::program_text::{MathArgs, source};
use super::screen::shown;
use anyhow::{Context, Result, anyhow, bail};
use gcc_gan::atomic;
use gcc_gan::compile::Options;
use gcc_gan::declare;
use gcc_gan::ir::{Data, Module, StateRole, Value};
use gcc_gan::plan;
use gcc_gan::replay::{NameKind, Replay, Tensors, decode_tensors, names};
use gcc_gan::train::checkpoint;
use gcc_gan::train::rundir;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Run an entry, a network or a function of a program on given tensors
///
/// Inputs and outputs are safetensors files. Inputs may hold the entry's inputs, state (parameters, running
/// statistics, optimiser moments) and any random draw, each by the name that `gcc-gan inputs` lists; a tensor
/// called `NAME@2` is NAME in the third step only. State that is not given is initialised from the seed.
/// Outputs hold outputs, gradients and the state after the last step; with --steps, those of each step also as
/// `NAME@STEP`. A network takes `input`, for any number of examples, and its parameters; a function takes its
/// parameters; both give `output`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gcc-gan run dcgan train_step --inputs in.safetensors --outputs out.safetensors
  gcc-gan run dcgan train_step --inputs in.safetensors --outputs out.safetensors --steps 3 --f64-reference
  gcc-gan run dcgan init --outputs parameters.safetensors --seed 7
  gcc-gan run dcgan generator --inputs noise.safetensors --outputs images.safetensors
  gcc-gan run dcgan generator --checkpoint runs/dcgan-001 --inputs noise.safetensors --outputs images.safetensors")]
pub struct Args {
    /// A graph in RON, a plan, or a built-in program: see `gcc-gan graphs`
    program: PathBuf,
    /// What to run: an entry such as train_step, a network (in inference mode) or a function
    #[arg(value_name = "NAME")]
    entry: String,
    /// A safetensors file with what is given
    #[arg(long, value_name = "FILE")]
    inputs: Option<PathBuf>,
    /// Take the state from a run's folder or a checkpoint file, but for what --inputs gives
    #[arg(long, value_name = "RUN")]
    checkpoint: Option<PathBuf>,
    /// The safetensors file to write
    #[arg(long, value_name = "FILE")]
    outputs: PathBuf,
    /// How often to run it, each time on the state that the time before left
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    steps: u16,
    /// The seed of initialisation and draws
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Evaluate the declared graph by the reference interpreter in f64 (slow) instead of compiling it
    #[arg(long)]
    f64_reference: bool,
    /// Print what was written as JSON: the file, and the tensors in it
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    math: MathArgs,
    /// Another value for one of the program's sizes or values; may be given several times
    #[arg(long = "set", value_name = "NAME=VALUE")]
    sets: Vec<String>,
    /// Refuse a program that has warnings, such as a size that nothing uses
    #[arg(long)]
    deny_warnings: bool,
}

pub fn run(args: Args) -> Result<ExitCode> {
    let checkpoint = args.checkpoint.as_deref().map(rundir::checkpoint_of).transpose()?;
    let read_from: Vec<&Path> =
        [&args.program].into_iter().chain(&args.inputs).chain(&checkpoint).map(PathBuf::as_path).collect();
    check_output(&args.outputs, &read_from)?;
    let program = source(&args.program)?;
    let (mut sets, mut options) = (args.sets.clone(), Options::default());
    if plan::is_plan(&args.program) {
        options = Options::of(&plan::load(&args.program)?.source);
        sets.splice(0..0, options.sets.clone());
    }
    let checkpoint = checkpoint.as_deref().map(checkpoint::load).transpose()?;
    if let Some(meta) = checkpoint.as_ref().map(|c| &c.meta).filter(|meta| meta.text == program.text) {
        // The sizes that the state has, and the precision that it was trained in.
        sets.splice(0..0, meta.set_arguments());
        options.precision = meta.precision;
    }
    let mut loaded = declare::load_with_warnings(&program.name, &program.text, &sets, &[])?;
    let mut given = match &args.inputs {
        Some(file) => read(file)?,
        None => Tensors::new(),
    };
    let callables = declare::callables(&program.name, &program.text)?;
    let is_entry = loaded.module.entries.iter().any(|e| e.graph.name == args.entry);
    if !is_entry && callables.iter().any(|(n, _)| *n == args.entry) {
        let types = given.iter().map(|(name, value)| (name.clone(), value.ty())).collect();
        loaded = declare::load_call(&program.name, &program.text, &sets, &args.entry, &types)?;
    }
    let declare::Loaded { module, warnings } = loaded;
    if args.deny_warnings && !warnings.is_empty() {
        return Err(declare::Error::Text(warnings.denied()).into());
    }
    super::show(&warnings);
    // What the entry does not take is written out as it is.
    let mut beside = Tensors::new();
    let of_another = (checkpoint.as_ref().filter(|c| c.meta.text != program.text))
        .map(|c| format!("{}, a checkpoint of another program, `{}`", c.file.display(), c.meta.program));
    if let Some(checkpoint) = checkpoint {
        let mut found = false;
        for (name, tensor) in checkpoint.tensors {
            let Some(state) = module.states.iter().find(|s| s.name == name) else { continue };
            let value = Value::from_tensor(&tensor);
            if uses(&module, &args.entry, &name) {
                // Every program counts its steps.
                found |= state.role != StateRole::Counter;
                given.entry(name).or_insert(value);
            } else {
                beside.insert(name, value);
            }
        }
        if !found {
            bail!(
                "{} holds none of the state of `{}`: it is a checkpoint of `{}`",
                checkpoint.file.display(),
                args.entry,
                checkpoint.meta.program
            );
        }
    }
    let replay = Replay::new(&module, &args.entry, given, args.steps.into(), args.seed);
    let replay = match of_another {
        Some(whose) => replay.with_context(|| format!("with the state of {whose}"))?,
        None => replay?,
    };
    let replay = replay.beside(beside);
    let results = if args.f64_reference {
        replay.run_reference()?
    } else {
        let opened = args.device.open()?;
        opened.check_no_plan()?;
        opened.aim(&mut options);
        args.math.apply(&mut options);
        options.sets = sets;
        replay.run_on(options.source(&program.name, &program.text), opened.device.as_ref())?
    };
    write(&args.outputs, &results, args.f64_reference)?;
    if args.json {
        let tensors = results.iter().map(|(name, value)| {
            let dtype = match &value.data {
                Data::Real(_) if args.f64_reference => "f64",
                Data::Real(_) => "f32",
                Data::U32(_) => "u32",
            };
            json!({ "name": name, "type": dtype, "shape": value.shape })
        });
        super::print_json(&json!({
            "file": shown(&args.outputs), "program": program.name, "name": args.entry, "steps": args.steps,
            "tensors": tensors.collect::<Vec<_>>(),
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    super::print(&format!("wrote {}: {} tensors", args.outputs.display(), results.len()))?;
    Ok(ExitCode::SUCCESS)
}

/// Whether an entry takes a state tensor.
fn uses(module: &Module, entry: &str, state: &str) -> bool {
    names(module, Some(entry)).iter().any(|n| n.kind == NameKind::State && n.name == state)
}

fn read(file: &Path) -> Result<Tensors> {
    let bytes = atomic::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
    decode_tensors(&bytes).map_err(|error| anyhow!("{}: {error}", file.display()))
}

/// Writes tensors as `--inputs` takes them.
pub fn write(file: &Path, tensors: &Tensors, in_f64: bool) -> Result<()> {
    let encoded: Vec<(&String, Dtype, &[usize], Vec<u8>)> = (tensors.iter())
        .map(|(name, value)| {
            let (dtype, bytes) = match &value.data {
                Data::Real(values) if in_f64 => (Dtype::F64, values.iter().flat_map(|v| v.to_le_bytes()).collect()),
                Data::Real(values) => (Dtype::F32, values.iter().flat_map(|&v| (v as f32).to_le_bytes()).collect()),
                Data::U32(values) => (Dtype::U32, values.iter().flat_map(|v| v.to_le_bytes()).collect()),
            };
            (name, dtype, value.shape.as_slice(), bytes)
        })
        .collect();
    let views = (encoded.iter())
        .map(|(name, dtype, shape, bytes)| Ok((*name, TensorView::new(*dtype, shape.to_vec(), bytes)?)))
        .collect::<Result<Vec<_>>>()?;
    let bytes = safetensors::serialize(views, None)?;
    super::output::write(file, &bytes)
}
