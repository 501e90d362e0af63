//! `gcc-gan explain`.

use super::program_text::{ProgramArgs, entry_of, observed};
use anyhow::Result;
use gcc_gan::inspect::{explain, explain_entry, explain_pair};
use gcc_gan::plan::Machine;
use gcc_gan::visible::visible;
use std::process::ExitCode;

/// Explain where a node came from and where it went, why two nodes are not in one kernel, or what kernels could be
///
/// Of one node: the line it was declared at, the passes that touched it, the kernel it ended in and the buffer that
/// holds it. A part of a name is enough where no other node has it. `gcc-gan compile --emit text` lists all names.
/// Without a node: which kernels could be one but are not, why, and what that would save on an assumed machine (two CPU
/// cores, or an H100); and what must be in memory together at the peak.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gcc-gan explain dcgan
  gcc-gan explain dcgan fake_d/generator/1-batch_norm/centred
  gcc-gan explain dcgan score_real/discriminator/0-conv/conv score_real/discriminator/3-conv/conv")]
pub struct Args {
    #[command(flatten)]
    program: ProgramArgs,
    /// The node's name; without one, the fusions that were missed and the peak of memory
    #[arg(value_name = "NODE")]
    node: Option<String>,
    /// Another node: why are they not fused?
    #[arg(value_name = "OTHER")]
    other: Option<String>,
    /// Which entry; the training step where none is named
    #[arg(long, value_name = "NAME")]
    entry: Option<String>,
}

pub fn run(args: Args) -> Result<ExitCode> {
    let observed = observed(&args.program)?;
    let entry = entry_of(&observed.plan, args.entry.as_deref())?;
    let text = match (&args.node, &args.other) {
        (None, _) => explain_entry(&observed, &entry.name, &Machine::nominal(observed.plan.source.target))?,
        (Some(node), None) => explain(&observed, &entry.name, node)?,
        (Some(node), Some(other)) => explain_pair(&observed, &entry.name, node, other)?,
    };
    super::print(&visible(&text))?;
    Ok(ExitCode::SUCCESS)
}
