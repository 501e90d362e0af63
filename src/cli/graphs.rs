//! `gcc-gan graphs`.

use anyhow::Result;
use gcc_gan::declare::{self, builtin};
use gcc_gan::inspect::{Align, Table};
use gcc_gan::ir::{Feed, StateRole};
use gcc_gan::train::session::entry;
use serde::Serialize;
use std::process::ExitCode;

/// List the built-in programs: their names, what they are, and the data that they take
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gcc-gan graphs
  gcc-gan train dcgan-paper       a name works wherever a program's file does")]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Program {
    name: &'static str,
    about: &'static str,
    /// What a step takes of the data set.
    data: Vec<String>,
    /// Elements of all parameters.
    parameters: usize,
}

pub fn run(args: Args) -> Result<ExitCode> {
    let programs = builtin::NAMES.into_iter().map(program).collect::<Result<Vec<Program>>>()?;
    if args.json {
        super::print_json(&programs)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new([Align::Left, Align::Left, Align::Right, Align::Left]);
    table.row(["name", "data", "parameters", ""].map(String::from));
    for Program { name, about, data, parameters } in programs {
        table.row([name.into(), data.join(", "), gcc_gan::train::thousands(parameters), about.into()]);
    }
    super::print(table.render("").trim_end())?;
    Ok(ExitCode::SUCCESS)
}

fn program(name: &'static str) -> Result<Program> {
    let (text, about) = (builtin::text(name).unwrap_or_default(), builtin::about(name).unwrap_or_default());
    let module = declare::load(name, text, &[], &[])?;
    let step = module.entries.iter().filter(|e| e.graph.name == entry::TRAIN).flat_map(|e| &e.inputs);
    let data = step.filter_map(|input| match (input.feed, &input.ty.shape[..]) {
        (Feed::Images, [_, channels, height, width]) => {
            let colour = if *channels == 3 { "RGB" } else { "grey" };
            Some(format!("{height}x{width} {colour}"))
        }
        (Feed::Labels, _) => Some(match input.below {
            Some(classes) => format!("{classes} classes"),
            None => "labels".to_string(),
        }),
        (Feed::Images | Feed::Seed | Feed::Caller, _) => None,
    });
    let parameters = module.states.iter().filter(|s| s.role == StateRole::Parameter).map(|s| s.ty.elements()).sum();
    Ok(Program { name, about, data: data.collect(), parameters })
}
