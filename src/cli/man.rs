//! `gcc-gan man`.

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_mangen::{Man, generate_to};
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

/// Write the manual pages, one for each command
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gcc-gan man ~/.local/share/man/man1      then: man gcc-gan, man gcc-gan-train
  gcc-gan man | man -l -                   the first page, without writing any")]
pub struct Args {
    /// The folder to write them to, which is made if need be [default: the first page on standard output]
    #[arg(value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

pub fn run(args: Args) -> Result<ExitCode> {
    let command = super::Cli::command();
    let Some(folder) = args.folder else {
        let mut page = Vec::new();
        Man::new(command).render(&mut page)?;
        super::print_exact(&String::from_utf8(page)?)?;
        return Ok(ExitCode::SUCCESS);
    };
    fs::create_dir_all(&folder).with_context(|| format!("the folder {} cannot be made", folder.display()))?;
    generate_to(command, &folder).with_context(|| format!("{} cannot be written to", folder.display()))?;
    super::print(&format!("wrote the pages to {}: `man -l {}`", folder.display(), folder.join("gcc-gan.1").display()))?;
    Ok(ExitCode::SUCCESS)
}
