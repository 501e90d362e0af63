//! `gcc-gan report`.

use super::output::check_output;
use anyhow::{Result, bail};
use gcc_gan::inspect::bytes;
use gcc_gan::inspect::report::{Limits, Run, csv, read_runs, render, report_data};
use gcc_gan::train::{rundir, starts};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Show what became of runs, side by side, in one HTML file
///
/// The page shows the curves of all metrics, the sample images over the training, and how each run was made: its
/// commands, seed, settings, data and machine. It needs neither a network nor a server.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gcc-gan report runs/dcgan-001
  gcc-gan report runs/dcgan-001 runs/dcgan-002 -o compared.html
  gcc-gan report runs/dcgan-001 -o metrics.csv
  gcc-gan report runs/dcgan-001 --json | jq '.runs[0].figures'")]
pub struct Args {
    /// Folders of runs; what is in them only is looked at, so they may be training meanwhile
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The file to write: a page (.html), or the metrics alone (.csv)
    #[arg(short, long, default_value = "report.html", value_name = "FILE", conflicts_with = "json")]
    output: PathBuf,
    /// At most N sample images of each run on the page [default: 100, fewer where they are large]
    #[arg(long, value_name = "N", conflicts_with = "json")]
    samples: Option<usize>,
    /// The data behind the page as JSON on standard output, with all lines of the metrics and the names of all images
    #[arg(long)]
    json: bool,
}

/// What to write, by the name of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Page,
    Csv,
}

fn form(output: &Path) -> Result<Form> {
    let extension = output.extension().map(|e| e.to_string_lossy().to_lowercase());
    match extension.as_deref() {
        Some("html" | "htm") => Ok(Form::Page),
        Some("csv") => Ok(Form::Csv),
        _ => bail!("{} says no format: a name that ends in .html or .csv was expected", output.display()),
    }
}

pub fn run(args: Args) -> Result<ExitCode> {
    if args.json {
        super::print_json(&report_data(&read_runs(&args.runs)?, Limits::ALL)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let form = form(&args.output)?;
    if form == Form::Csv && args.samples.is_some() {
        bail!("--samples is for the page, and {} has no images: leave it out", args.output.display());
    }
    let runs = read_runs(&args.runs)?;
    for run in &runs {
        let files = [rundir::METRICS, starts::FILE, rundir::LOCK].map(|name| run.folder.join(name));
        let samples = run.samples.iter().map(|(_, file)| file);
        check_output(&args.output, &files.iter().chain(samples).map(PathBuf::as_path).collect::<Vec<_>>())?;
    }
    let text = match form {
        Form::Csv => csv(&runs),
        Form::Page => page(&runs, args.samples)?,
    };
    super::output::write(&args.output, text.as_bytes())?;
    let open = if form == Form::Page { ": open it in a browser" } else { "" };
    super::print(&format!("wrote {} ({}){open}", args.output.display(), bytes(text.len())))?;
    Ok(ExitCode::SUCCESS)
}

fn page(runs: &[Run], samples: Option<usize>) -> Result<String> {
    let limits = match samples {
        None => Limits::PAGE,
        Some(samples) => Limits { samples, bytes: u64::MAX, ..Limits::PAGE },
    };
    let data = report_data(runs, limits)?;
    for run in &data.runs {
        let note = |text: String| super::print(&format!("note: {}: {text}", run.folder));
        let shown = run.samples.len();
        // Who wants none knows.
        if shown < run.all_samples && samples != Some(0) {
            let hint = if samples.is_none() { "; --samples sets another number" } else { "" };
            note(format!("{shown} of its {} sample images are shown{hint}", run.all_samples))?;
        }
        if let Some(problem) = &run.problem {
            note(format!("its program is not shown: {problem}"))?;
        }
        if let Some(problem) = &run.unread {
            note(format!("how it was started is not shown: {problem}"))?;
        }
    }
    Ok(render(&data))
}
