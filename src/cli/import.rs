//! `gcc-gan import`.

use super::program_text::source;
use anyhow::{Context, Result, anyhow, bail};
use gcc_gan::atomic;
use gcc_gan::declare;
use gcc_gan::export::weights;
use gcc_gan::ir::{Bindings, Module, Value, evaluate};
use gcc_gan::tensor::Tensor;
use gcc_gan::train::checkpoint::{self, Meta};
use gcc_gan::train::rundir::{self, RunDir};
use gcc_gan::types::{Feed, INIT};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Make a run of weights that another program trained
///
/// FILE is a safetensors file with every parameter and running statistic of the program, by PyTorch's names and
/// layouts, as `gcc-gan export` writes them, or by the names that `gcc-gan inputs` lists; by the latter it may hold
/// other state too. What is not in it starts from the seed. With --network it has the weights of one network, as
/// `gcc-gan export --network` writes them; the other networks then are as in the run that --into names. The new run is at
/// step 0: sample from it, export it, or resume it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gcc-gan import weights.safetensors --program dcgan -o runs/theirs
  gcc-gan import weights.safetensors --into runs/dcgan-001 -o runs/theirs   the program and sizes of that run
  gcc-gan import generator.safetensors --network generator --into runs/dcgan-001 -o runs/theirs   one network
  gcc-gan sample runs/theirs -o digits.png
  gcc-gan train --resume runs/theirs --epochs 2")]
#[command(group = clap::ArgGroup::new("whose").required(true))]
pub struct Args {
    /// A safetensors file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// A run whose program, sizes and data the new one has; it is not changed
    #[arg(long, value_name = "RUN", group = "whose")]
    into: Option<PathBuf>,
    /// A graph in RON, a plan, or a built-in program: see `gcc-gan graphs`
    #[arg(long, value_name = "PROGRAM", group = "whose")]
    program: Option<PathBuf>,
    /// The network whose weights the file has, by names that do not begin with the network's
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// Another value for one of the program's sizes or values; may be given several times
    #[arg(long = "set", value_name = "NAME=VALUE")]
    sets: Vec<String>,
    /// What `train --resume` trains on [default: that of the other run, else auto]
    #[arg(long)]
    data: Option<String>,
    /// The seed of what is not in the file, and of training
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The folder of the new run
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
    /// Print what was read as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<ExitCode> {
    let (root, name) = folder(&args.output)?;
    RunDir::check(root, Some(name), "")?;
    let (mut meta, before) = match (&args.into, &args.program) {
        (Some(run), _) => {
            let checkpoint = checkpoint::load(&rundir::checkpoint_of(run)?)?;
            (checkpoint.meta, checkpoint.tensors)
        }
        (None, Some(program)) => {
            let program = source(program)?;
            let meta = Meta { program: program.name, text: program.text, data: "auto".into(), ..Meta::default() };
            (meta, BTreeMap::new())
        }
        (None, None) => bail!("--into or --program says whose weights they are"),
    };
    for set in &args.sets {
        let (name, value) = set.split_once('=').with_context(|| format!("--set {set}: `name=value` was expected"))?;
        meta.sets.insert(name.trim().into(), value.trim().into());
    }
    if let Some(data) = args.data {
        (meta.data, meta.digest) = (data, String::new());
    }
    let module = declare::load(&meta.program, &meta.text, &meta.set_arguments(), &[])?;
    meta.program.clone_from(&module.name);
    (meta.seed, meta.step, meta.position, meta.target) = (args.seed, 0, Default::default(), None);

    let bytes = atomic::read(&args.file).with_context(|| format!("{} cannot be read", args.file.display()))?;
    let network = args.network.as_deref();
    let imported = weights::decode(&bytes, &module.states, network)
        .map_err(|error| anyhow!("{} cannot be imported: {error}", args.file.display()))?;
    let mut tensors = initial(&module, args.seed)?;
    let mut kept = 0;
    if let Some(network) = network {
        let others = others(&module, network, before)?;
        kept = others.len();
        tensors.extend(others);
    }
    let count = imported.tensors.len();
    tensors.extend(imported.tensors);
    let mut tensors: Vec<(String, Tensor)> = tensors.into_iter().collect();

    let dir = RunDir::create(root, Some(name), &meta.program)?;
    checkpoint::save(&dir.checkpoint(), &meta, &mut tensors)?;
    if args.json {
        super::print_json(&serde_json::json!({
            "run": args.output, "program": meta.program, "tensors": count, "kept": kept, "converted": imported.converted,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = format!("wrote {}: {count} tensors for `{}`, at step 0", args.output.display(), meta.program);
    if kept > 0 {
        text += &format!("\nall of the other networks is as in {}", args.into.unwrap_or_default().display());
    }
    for (from, count) in imported.converted {
        text += &format!("\n{count} of them converted from {from}");
    }
    super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// The folder that holds the run's, and the run's name.
fn folder(output: &Path) -> Result<(&Path, &str)> {
    let name = output.file_name().and_then(|name| name.to_str());
    let name = name.with_context(|| format!("{} cannot name a run's folder", output.display()))?;
    let root = output.parent().filter(|root| !root.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((root, name))
}

/// What a run has of all networks but one: their parameters, statistics and what their optimisers remember.
fn others(module: &Module, network: &str, run: BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
    let of_another = |name: &str| name.split_once('/').is_some_and(|(of, _)| of != network);
    let mut others = BTreeMap::new();
    for (name, tensor) in run.into_iter().filter(|(name, _)| of_another(name)) {
        let Some(state) = module.states.iter().find(|state| state.name == name) else { continue };
        if *tensor.ty() != state.ty {
            bail!(
                "`{name}` of the run is {}, and would be {}: leave out the --set that changes it",
                tensor.ty(),
                state.ty
            );
        }
        others.insert(name, tensor);
    }
    Ok(others)
}

/// The state that a program starts with, by the reference interpreter.
fn initial(module: &Module, seed: u64) -> Result<BTreeMap<String, Tensor>> {
    let init = module.entries.iter().find(|e| e.graph.name == INIT).context("the program has no entry `init`")?;
    let seeds = init.inputs.iter().filter(|i| i.feed == Feed::Seed);
    let words = || Value::u32([2], vec![seed as u32, (seed >> 32) as u32]);
    let bindings: Bindings<f32> = seeds.map(|input| (input.name.clone(), words())).collect();
    let made: BTreeMap<String, Value<f32>> = evaluate(&init.graph, &bindings)?.updates.into_iter().collect();
    module
        .states
        .iter()
        .map(|state| {
            let value = made.get(&state.name).with_context(|| format!("`init` does not make `{}`", state.name))?;
            Ok((state.name.clone(), value.to_tensor(state.ty.dtype)))
        })
        .collect()
}
