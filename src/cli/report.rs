//! `gcc-gan report`.

use super::output::check_output;
use anyhow::{Result, bail};
use gcc_gan::inspect::bytes;
use gcc_gan::inspect::report::{Found, Limits, csv, read_runs, render, report_data};
use gcc_gan::train::{rundir, starts};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Show what became of runs, side by side, in one HTML file
///
/// The page shows the curves of all metrics, the sample images over the training, and how each run was made: its
/// commands, seed, settings, data and machine. It needs neither a network nor a server.
///
/// What is damaged, such as a line of metrics or a sample image, and a folder that is not a run are told of, here and on
/// the page, and all else is shown. The exit status is 1 where no run could be read.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gcc-gan report runs/dcgan-001
  gcc-gan report runs/dcgan-001 runs/dcgan-002 -o compared.html
  gcc-gan report runs/dcgan-001 -o metrics.csv
  gcc-gan report runs/dcgan-001 -o report.json
  gcc-gan report runs/dcgan-001 --json | jq '.runs[0].figures'")]
pub struct Args {
    /// Folders of runs; what is in them only is looked at, so they may be training meanwhile
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The file to write: a page (.html), the metrics alone (.csv), or what --json prints (.json) [default: report.html]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// At most N sample images of each run on the page [default: 100, fewer where they are large]
    #[arg(long, value_name = "N", conflicts_with = "json")]
    samples: Option<usize>,
    /// The data behind the page as JSON, on standard output without -o, with all lines of the metrics and the names of all
    /// images
    #[arg(long)]
    json: bool,
}

/// What to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Page,
    Csv,
    Json,
}

impl Form {
    /// By the name of a file, and whether JSON is asked for.
    fn of(output: &Path, is_json: bool) -> Result<Form> {
        let extension = output.extension().map(|e| e.to_string_lossy().to_lowercase());
        match extension.as_deref() {
            Some("html" | "htm" | "csv") if is_json => {
                bail!("--json is for JSON, and {} names another format: end it in .json", output.display())
            }
            Some("html" | "htm") => Ok(Form::Page),
            Some("csv") => Ok(Form::Csv),
            Some("json") => Ok(Form::Json),
            _ if is_json => Ok(Form::Json),
            _ => bail!("{} says no format: a name that ends in .html, .csv or .json was expected", output.display()),
        }
    }
}

pub fn run(args: Args) -> Result<ExitCode> {
    let output = match (&args.output, args.json) {
        (None, true) => None,
        (output, _) => Some(output.clone().unwrap_or_else(|| "report.html".into())),
    };
    let form = output.as_deref().map_or(Ok(Form::Json), |output| Form::of(output, args.json))?;
    if let (Form::Csv | Form::Json, Some(_), Some(output)) = (form, args.samples, &output) {
        bail!("--samples is for the page, and {} has no images: leave it out", output.display());
    }
    let found = read_runs(&args.runs)?;
    for run in &found.runs {
        let files = [rundir::METRICS, starts::FILE, rundir::LOCK].map(|name| run.folder.join(name));
        let samples = run.samples.iter().map(|(_, file)| file);
        if let Some(output) = &output {
            check_output(output, &files.iter().chain(samples).map(PathBuf::as_path).collect::<Vec<_>>())?;
        }
    }
    let text = text(&found, form, args.samples)?;
    let Some(output) = output else {
        super::print_exact(&text)?;
        return Ok(ExitCode::SUCCESS);
    };
    super::output::write(&output, text.as_bytes())?;
    let open = if form == Form::Page { ": open it in a browser" } else { "" };
    super::print(&format!("wrote {} ({}){open}", output.display(), bytes(text.len())))?;
    Ok(ExitCode::SUCCESS)
}

/// What is written; what is missing from it is told on standard error.
fn text(found: &Found, form: Form, samples: Option<usize>) -> Result<String> {
    let limits = match (form, samples) {
        (Form::Csv | Form::Json, _) => Limits::ALL,
        (Form::Page, None) => Limits::PAGE,
        (Form::Page, Some(samples)) => Limits { samples, bytes: u64::MAX, ..Limits::PAGE },
    };
    let data = report_data(&found.runs, &found.left_out, limits);
    for left_out in &data.left_out {
        super::warn(&format!("left out: {}", left_out.problem));
    }
    for run in &data.runs {
        run.notes.iter().for_each(|note| super::warn(&format!("{}: {note}", run.folder)));
        if form == Form::Csv {
            continue;
        }
        let shown = run.samples.len();
        // Who wants none knows.
        if shown < run.all_samples && samples != Some(0) {
            let hint = if samples.is_none() { "; --samples sets another number" } else { "" };
            super::note(&format!("{}: {shown} of its {} sample images are shown{hint}", run.folder, run.all_samples));
        }
        if let Some(problem) = &run.problem {
            super::warn(&format!("{}: its program is not shown: {problem}", run.folder));
        }
        if let Some(problem) = &run.unread {
            super::warn(&format!("{}: how it was started is not shown: {problem}", run.folder));
        }
    }
    Ok(match form {
        Form::Csv => csv(&found.runs),
        Form::Page => render(&data),
        Form::Json => serde_json::to_string_pretty(&data)? + "\n",
    })
}
