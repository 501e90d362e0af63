//! `gcc-gan inputs`.

use super::output::check_output;
use super::program_text::{ProgramArgs, program_and_options};
use anyhow::{Result, bail};
use gcc_gan::declare;
use gcc_gan::inspect::{Align, Table};
use gcc_gan::ir::{Feed, Module, Value};
use gcc_gan::replay::{Name, NameKind, Tensors, names};
use gcc_gan::scalar::{philox, stream_hash};
use gcc_gan::tensor::DType;
use std::path::PathBuf;
use std::process::ExitCode;

/// List every name that `gcc-gan run` takes and gives, with its shape and meaning
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gcc-gan inputs graphs/dcgan.ron
  gcc-gan inputs dcgan train_step --json
  gcc-gan inputs dcgan sample --example noise.safetensors   something for `gcc-gan run dcgan sample --inputs` to take")]
pub struct Args {
    #[command(flatten)]
    program: ProgramArgs,
    /// Only this entry
    #[arg(value_name = "ENTRY")]
    entry: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Write example inputs of ENTRY into this safetensors file: images in [-1, 1], labels in turn, else normal noise
    #[arg(long, value_name = "FILE", requires = "entry", conflicts_with = "json")]
    example: Option<PathBuf>,
}

pub fn run(args: Args) -> Result<ExitCode> {
    let (program, options) = program_and_options(&args.program)?;
    let module = declare::load(&program.name, &program.text, &options.sets, &[])?;
    if let Some(entry) = &args.entry
        && !module.entries.iter().any(|e| e.graph.name == *entry)
    {
        let known: Vec<&str> = module.entries.iter().map(|e| e.graph.name.as_str()).collect();
        bail!("there is no entry `{entry}`; the program has {}", known.join(", "));
    }
    if let (Some(file), Some(entry)) = (&args.example, &args.entry) {
        check_output(file, &[&args.program.program])?;
        let tensors = example(&module, entry);
        if tensors.is_empty() {
            bail!("`{entry}` takes no inputs: `gcc-gan run` needs none for it");
        }
        super::run::write(file, &tensors, false)?;
        let shown: Vec<String> = tensors.iter().map(|(name, value)| format!("{name} {}", value.ty())).collect();
        super::print(&format!("wrote {}: {}", file.display(), shown.join(", ")))?;
        return Ok(ExitCode::SUCCESS);
    }
    let names = names(&module, args.entry.as_deref());
    if args.json {
        super::print_json(&names)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = String::new();
    for entry in names.chunk_by(|a, b| a.entry == b.entry) {
        text += &format!("{}\n", entry[0].entry);
        for (title, wanted) in [
            ("inputs, which must be given", &[NameKind::Input][..]),
            ("random draws, which may be given", &[NameKind::Draw]),
            ("state, which may be given and is returned afterwards", &[NameKind::State]),
            ("returned", &[NameKind::Output, NameKind::Gradient]),
        ] {
            let of_kind: Vec<&Name> = entry.iter().filter(|n| wanted.contains(&n.kind)).collect();
            if of_kind.is_empty() {
                continue;
            }
            let mut table = Table::new([Align::Left, Align::Left, Align::Left]);
            for name in of_kind {
                table.row([name.name.clone(), name.ty.to_string(), name.meaning.clone()]);
            }
            text += &format!("  {title}:\n{}", table.render("    "));
        }
        text.push('\n');
    }
    let callables = declare::callables(&program.name, &program.text)?;
    if args.entry.is_none() && !callables.is_empty() {
        text += "networks and functions, which can be run by themselves\n";
        for (name, params) in callables {
            text += &format!("  {name}({}) -> output\n", params.join(", "));
        }
    }
    super::print(text.trim_end())?;
    Ok(ExitCode::SUCCESS)
}

/// Inputs that an entry takes, the same at each call.
fn example(module: &Module, entry: &str) -> Tensors {
    let entries = module.entries.iter().filter(|e| e.graph.name == entry);
    let inputs = entries.flat_map(|e| &e.inputs).filter(|input| input.feed != Feed::Seed);
    inputs
        .map(|input| {
            let (stream, count, shape) = (stream_hash(&input.name), input.ty.elements(), input.ty.shape.clone());
            let index = |i| i % input.below.unwrap_or(1);
            let value = match (input.ty.dtype, input.feed) {
                (DType::U32, _) => Value::u32(shape, (0..count).map(|i| index(i) as u32).collect()),
                (_, _) if input.below.is_some() => Value::real(shape, (0..count).map(|i| index(i) as f64).collect()),
                (_, Feed::Images) => {
                    let uniform = |i| 2.0 * philox::uniform([0, 0], 0, stream, i as u64) - 1.0;
                    Value::real(shape, (0..count).map(uniform).collect())
                }
                (_, _) => {
                    let normal = |i| philox::normal([0, 0], 0, stream, i as u64);
                    Value::real(shape, (0..count).map(normal).collect())
                }
            };
            (input.name.clone(), value)
        })
        .collect()
}
