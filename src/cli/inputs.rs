//! `gcc-gan inputs`.

use super::program_text::{ProgramArgs, program_and_options};
use anyhow::{Result, bail};
use gcc_gan::declare;
use gcc_gan::inspect::{Align, Table};
use gcc_gan::replay::{Name, NameKind, names};
use std::process::ExitCode;

/// List every name that `gcc-gan run` takes and gives, with its shape and meaning
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gcc-gan inputs graphs/dcgan.ron
  gcc-gan inputs dcgan train_step --json")]
pub struct Args {
    #[command(flatten)]
    program: ProgramArgs,
    /// Only this entry
    #[arg(value_name = "ENTRY")]
    entry: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
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
