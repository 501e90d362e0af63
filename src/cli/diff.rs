//! `gcc-gan diff`.

use super::program_text::{ProgramArgs, observed};
use anyhow::Result;
use gcc_gan::inspect::diff;
use gcc_gan::visible::visible;
use std::path::PathBuf;
use std::process::ExitCode;

/// Show what differs between two programs, or a plan and a program
///
/// State, and for each entry its nodes after all passes, kernels, memory and time at the ceilings of an assumed machine (two
/// CPU cores, or an H100 for a GPU's plan).
/// Exit status 0: nothing differs. 1: something does.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gcc-gan diff dcgan my-dcgan.ron
  gcc-gan diff dcgan.plan graphs/dcgan.ron       is the plan still what the program compiles to?
  gcc-gan diff dcgan dcgan --set-b batch=64      what another size changes")]
pub struct Args {
    /// A graph in RON, a plan, or a built-in program
    a: PathBuf,
    /// What to compare it with
    b: PathBuf,
    /// Another value for one of the first program's sizes or values
    #[arg(long, value_name = "NAME=VALUE")]
    set_a: Vec<String>,
    /// Another value for one of the second program's sizes or values
    #[arg(long, value_name = "NAME=VALUE")]
    set_b: Vec<String>,
    /// List everything, however long
    #[arg(long)]
    all: bool,
}

/// Lines of each list that are shown without --all.
const MOST: usize = 12;

pub fn run(args: Args) -> Result<ExitCode> {
    let a = observed(&ProgramArgs { program: args.a, sets: args.set_a })?;
    let b = observed(&ProgramArgs { program: args.b, sets: args.set_b })?;
    match diff(&a, &b, if args.all { usize::MAX } else { MOST }) {
        None => Ok(ExitCode::SUCCESS),
        Some(text) => {
            super::print(&visible(&text))?;
            Ok(ExitCode::from(1))
        }
    }
}
