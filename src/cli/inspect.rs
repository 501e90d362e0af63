//! `gcc-gan inspect`.

use super::output::check_output;
use super::program_text::{ProgramArgs, entry_of, observed};
use anyhow::{Context, Result};
use gcc_gan::atomic;
use gcc_gan::inspect::page::{page_data, render};
use gcc_gan::inspect::profile::Profile;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Show everything the compiler does, in one HTML file
///
/// The page shows the graph at every stage, with what each pass changed; the kernels under their roofline; the memory
/// map; and, with --profile, the timeline of a measured step. It needs neither a network nor a server.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gcc-gan inspect graphs/dcgan.ron -o dcgan.html
  gcc-gan inspect dcgan.plan -o dcgan.html
  gcc-gan profile dcgan --steps 20 -o step.json && gcc-gan inspect dcgan --profile step.json -o dcgan.html")]
pub struct Args {
    #[command(flatten)]
    program: ProgramArgs,
    /// The HTML file to write; standard output where none is given
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Measured times, as `gcc-gan profile` writes them
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// The data behind the page instead, as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<ExitCode> {
    if let Some(output) = &args.output {
        let read: Vec<&Path> = [&args.program.program].into_iter().chain(&args.profile).map(PathBuf::as_path).collect();
        check_output(output, &read)?;
    }
    let observed = observed(&args.program)?;
    let mut profile = None;
    if let Some(file) = &args.profile {
        let bytes = atomic::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
        let wrong = || format!("{} cannot be shown", file.display());
        let text = String::from_utf8(bytes).with_context(wrong)?;
        let subject = Profile::subject_of(&text).with_context(wrong)?;
        let entry = entry_of(&observed.plan, Some(&subject.entry)).with_context(wrong)?;
        profile = Some(Profile::from_trace(&text, &entry.schedule).with_context(wrong)?);
    }
    let data = page_data(&observed, profile.as_ref()).with_context(|| {
        args.profile.as_ref().map_or(String::new(), |file| format!("{} cannot be shown", file.display()))
    })?;
    let text = if args.json { serde_json::to_string_pretty(&data)? } else { render(&data) };
    match &args.output {
        None => super::print_exact(&text)?,
        Some(file) => {
            super::output::write(file, text.as_bytes())?;
            let size = gcc_gan::inspect::bytes(text.len());
            super::print(&format!("wrote {} ({size}): open it in a browser", file.display()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
