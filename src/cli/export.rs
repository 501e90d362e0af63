//! `gcc-gan export`.

use super::output::check_output;
use super::screen::shown;
use anyhow::{Context, Result, anyhow, bail};
use gcc_gan::declare;
use gcc_gan::export::onnx::{self, Callee, ExportError, Facts, Program};
use gcc_gan::export::{self, weights};
use gcc_gan::train::checkpoint::{self, Checkpoint};
use gcc_gan::train::{rundir, sampling};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Take a trained model to other programs
///
/// ONNX: one entry that does not train, or one network in inference mode, with its weights. Inputs and outputs have the
/// program's names. Labels are int64. The first dimension is `N`, any number of examples, where the program allows it.
/// Random draws are inputs.
///
/// safetensors: parameters and running statistics by the names and in the layouts of PyTorch, as a
/// `torch.nn.Sequential` of the same layers has them: generator.4.weight; with --network, 4.weight.
/// `gcc-gan import` reads them again.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gcc-gan export runs/dcgan-001 -o generator.onnx
  gcc-gan export runs/dcgan-paper-001 --ema -o generator.onnx
  gcc-gan export runs/vae-001 --network decoder -o decoder.onnx
  gcc-gan export runs/dcgan-001 -o dcgan.safetensors
  gcc-gan export runs/dcgan-001 --network generator -o generator.safetensors")]
pub struct Args {
    /// A run's folder, or a checkpoint file
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// What to write [default: what the name of --output ends in, and onnx without one]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// The file to write [default: the program's name with the format's]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The entry that becomes a model [default: sample]
    #[arg(long, value_name = "NAME", conflicts_with = "network")]
    entry: Option<String>,
    /// The network that becomes a model, in inference mode
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// With the moving averages of the weights, of a program that keeps them by `Average`
    #[arg(long)]
    ema: bool,
    /// The version of ONNX's operators, 20 to 28: an older one for older runtimes [default: 28]
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u16).range(20..=28))]
    opset: Option<u16>,
    /// Print what was written as JSON
    #[arg(long)]
    json: bool,
}

/// `--format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// An ONNX model
    Onnx,
    /// Weights for PyTorch
    Safetensors,
}

impl Format {
    fn extension(self) -> &'static str {
        match self {
            Format::Onnx => "onnx",
            Format::Safetensors => "safetensors",
        }
    }

    /// By the name of a file.
    fn of(file: &Path) -> Option<Format> {
        let extension = file.extension()?.to_str()?;
        [Format::Onnx, Format::Safetensors]
            .into_iter()
            .find(|format| extension.eq_ignore_ascii_case(format.extension()))
    }
}

pub fn run(args: Args) -> Result<ExitCode> {
    let file = rundir::checkpoint_of(&args.run)?;
    let format = match (args.format, &args.output) {
        (Some(format), _) => format,
        (None, Some(output)) => Format::of(output).with_context(|| {
            let output = output.display();
            format!("{output} names no format by its end: .onnx or .safetensors was expected, or --format beside it")
        })?,
        (None, None) => Format::Onnx,
    };
    let mut checkpoint = checkpoint::load(&file)?;
    let output = match &args.output {
        Some(output) => output.clone(),
        None => {
            let output = PathBuf::from(format!("{}.{}", checkpoint.meta.program, format.extension()));
            if output.exists() {
                bail!("{} exists already: name the file to write with -o", output.display());
            }
            output
        }
    };
    check_output(&output, &[&file])?;
    if args.ema {
        sampling::use_averages(&mut checkpoint)?;
    }
    match format {
        Format::Onnx => write_onnx(&args, &checkpoint, &output),
        Format::Safetensors => write_weights(&args, &checkpoint, &output),
    }
}

fn write_weights(args: &Args, checkpoint: &Checkpoint, output: &Path) -> Result<ExitCode> {
    for (option, is_given) in [("--entry", args.entry.is_some()), ("--opset", args.opset.is_some())] {
        if is_given {
            bail!("{option} is for ONNX: weights are those of the program, or of one network by --network");
        }
    }
    let meta = &checkpoint.meta;
    let module = declare::load(&meta.program, &meta.text, &meta.set_arguments(), &[])?;
    let named = weights::names(&module.states, args.network.as_deref());
    if named.is_empty() {
        let network = args.network.as_deref().unwrap_or_default();
        let known = export::networks(&module.states).join(", ");
        bail!("`{}` has no parameters of a network `{network}`; it has those of {known}", meta.program);
    }
    let bytes = weights::encode(&named, &checkpoint.tensors).map_err(|error| anyhow!(error))?;
    super::output::write(output, &bytes)?;
    if args.json {
        super::print_json(&serde_json::json!({
            "file": shown(output), "format": "safetensors", "bytes": bytes.len(), "step": meta.step,
            "tensors": named.iter().map(|n| (n.theirs.clone(), n.ours.clone())).collect::<BTreeMap<_, _>>(),
        }))?;
    } else {
        super::print(&format!(
            "wrote {}: {} tensors of `{}` after {} steps, {:.1} MB",
            output.display(),
            named.len(),
            meta.program,
            meta.step,
            bytes.len() as f64 / 1e6
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn write_onnx(args: &Args, checkpoint: &Checkpoint, output: &Path) -> Result<ExitCode> {
    let meta = &checkpoint.meta;
    let sets = meta.set_arguments();
    let program = Program { name: &meta.program, text: &meta.text, sets: &sets };
    let callee = match (&args.network, &args.entry) {
        (Some(network), _) => Callee::Network(network),
        (None, Some(entry)) => Callee::Entry(entry),
        (None, None) => Callee::Entry("sample"),
    };
    let opset = args.opset.unwrap_or(*onnx::OPSETS.end());
    let facts = Facts { opset, step: meta.step, properties: properties(meta, args.ema) };
    let is_usual = args.network.is_none() && args.entry.is_none();
    let exported = onnx::export(program, callee, &checkpoint.tensors, &facts).map_err(|error| match error {
        // Shown with the lines of the program.
        ExportError::Declare(error) => error.into(),
        ExportError::Unknown { .. } if is_usual => {
            anyhow!("{error}: name one with --entry, or a network with --network")
        }
        error => anyhow::Error::from(error),
    })?;
    let bytes = onnx::encode(&exported.model);
    super::output::write(output, &bytes)?;
    let graph = exported.model.graph.unwrap_or_default();
    let names = |values: &[onnx::proto::ValueInfo]| values.iter().map(|v| v.name.clone()).collect::<Vec<_>>();
    if args.json {
        super::print_json(&serde_json::json!({
            "file": shown(output), "format": "onnx", "opset": opset, "bytes": bytes.len(), "nodes": graph.node.len(),
            "inputs": names(&graph.input), "outputs": names(&graph.output), "step": meta.step,
            "any_number_of_examples": exported.fixed.is_none(),
        }))?;
    } else {
        super::print(&format!(
            "wrote {}: {} -> {} after {} steps, {} nodes of opset {opset}, {:.1} MB",
            output.display(),
            names(&graph.input).join(", "),
            names(&graph.output).join(", "),
            meta.step,
            graph.node.len(),
            bytes.len() as f64 / 1e6
        ))?;
    }
    if let Some(why) = exported.fixed {
        tracing::warn!("the number of examples is fixed: {why}");
    }
    Ok(ExitCode::SUCCESS)
}

/// What a model says of where it comes from.
fn properties(meta: &checkpoint::Meta, ema: bool) -> Vec<(String, String)> {
    let hash = format!("{:x}", Sha256::digest(&meta.text));
    let mut facts = vec![
        ("program", meta.program.clone()),
        ("program_sha256", hash),
        ("step", meta.step.to_string()),
        ("seed", meta.seed.to_string()),
        ("version", env!("CARGO_PKG_VERSION").to_string()),
        ("weights", if ema { "moving averages" } else { "as trained" }.to_string()),
    ];
    if !meta.sets.is_empty() {
        facts.push(("sets", meta.set_arguments().join(" ")));
    }
    facts.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
}
