//! `gcc-gan ops`.

use anyhow::{Result, bail};
use gcc_gan::declare::vocabulary::{self, Group, Word, vocabulary};
use gcc_gan::inspect::{Align, Table};
use std::process::ExitCode;

/// List the words of the graph language: layers, operations, draws, optimisers, steps and inputs
///
/// With NAME, one of them in full.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gcc-gan ops
  gcc-gan ops ConvTranspose
  gcc-gan ops --json")]
pub struct Args {
    /// Only this word
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<ExitCode> {
    let mut groups = vocabulary();
    if let Some(name) = &args.name {
        for group in &mut groups {
            group.words.retain(|word| word.name == *name);
        }
        groups.retain(|group| !group.words.is_empty());
        if groups.is_empty() {
            let near: Vec<String> = vocabulary::near(name).iter().map(|n| format!("`{n}`")).collect();
            match near.as_slice() {
                [] => bail!("there is no `{name}` in the graph language; `gcc-gan ops` lists all"),
                near => bail!("there is no `{name}` in the graph language; did you mean {}?", near.join(" or ")),
            }
        }
    }
    if args.json {
        super::print_json(&groups)?;
    } else if args.name.is_some() {
        let shown: Vec<String> = groups.iter().flat_map(|g| g.words.iter().map(|w| in_full(g, w))).collect();
        super::print(&shown.join("\n"))?;
    } else {
        super::print(&listed(&groups))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn listed(groups: &[Group]) -> String {
    let mut text = String::new();
    for group in groups {
        let mut table = Table::new([Align::Left, Align::Left]);
        for word in &group.words {
            table.row([word.signature.clone(), word.meaning.clone()]);
        }
        text += &format!("{}, {}\n{}\n", group.title, group.place, table.render("  "));
    }
    text.trim_end().to_string()
}

fn in_full(group: &Group, word: &Word) -> String {
    let mut table = Table::new([Align::Left, Align::Left]);
    for argument in &word.arguments {
        let default = argument.default.as_ref().map_or(String::new(), |default| format!("; {default} where left out"));
        table.row([argument.name.clone(), format!("{}{default}", argument.kind)]);
    }
    format!(
        "{}\n  {}\n  Stands {}.\n{}\n  For example: {}\n",
        word.signature,
        word.meaning,
        group.place,
        table.render("    ").trim_end(),
        word.example
    )
}
