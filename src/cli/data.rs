//! `gcc-gan data`.

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use gcc_gan::inspect::{Align, Table, bytes};
use gcc_gan::train::data::{self, Dataset, FileState, Known, Locations, Progress, Request, Split};
use gcc_gan::train::thousands;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::process::ExitCode;

/// Show, fetch and verify data sets
///
/// Sets are looked for in the folder that $GCC_GAN_DATA names, then in the user's cache folder.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gcc-gan data show                  what `gcc-gan train` would train on
  gcc-gan data show --data ~/digits  what is in a folder of IDX files
  gcc-gan data fetch fashion-mnist   download into the cache folder
  gcc-gan data verify                compare the files there with their SHA-256")]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show what a --data argument leads to
    Show {
        /// auto, mnist, fashion-mnist, embedded, a folder with IDX files, or one IDX file
        #[arg(long, default_value = "auto", value_name = "DATA")]
        data: String,
        /// Never use the network
        #[arg(long)]
        offline: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Download a set into the cache folder
    Fetch {
        /// mnist or fashion-mnist
        #[arg(default_value = "mnist", value_parser = known)]
        set: Known,
    },
    /// Compare a set's files, in $GCC_GAN_DATA or else the cache folder, with what they should be
    Verify {
        /// mnist or fashion-mnist
        #[arg(default_value = "mnist", value_parser = known)]
        set: Known,
    },
}

fn known(name: &str) -> Result<Known, String> {
    let names: Vec<&str> = Known::ALL.iter().map(|set| set.name()).collect();
    Known::by_name(name).ok_or_else(|| format!("the known sets are {}", names.join(" and ")))
}

/// Finds a data set, with a progress bar where something is downloaded.
pub fn load(argument: &str, offline: bool) -> Result<Dataset> {
    let mut bar = Download::default();
    let locations = Locations { offline, ..Locations::of_user() };
    let dataset = data::load(&Request::parse(argument), &locations, &mut |progress| bar.show(progress));
    bar.finish();
    Ok(dataset?)
}

/// A bar for each file that is fetched; nothing where standard error is no terminal.
#[derive(Default)]
struct Download {
    bar: Option<(&'static str, ProgressBar)>,
}

impl Download {
    fn show(&mut self, progress: Progress) {
        if self.bar.as_ref().is_none_or(|(file, _)| *file != progress.file) {
            self.finish();
            let style = ProgressStyle::with_template("fetching {msg} {wide_bar} {bytes}/{total_bytes} {eta}");
            let bar = ProgressBar::new(progress.total).with_message(progress.file);
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            self.bar = Some((progress.file, bar));
        }
        if let Some((_, bar)) = &self.bar {
            bar.set_position(progress.received);
        }
    }

    fn finish(&mut self) {
        if let Some((_, bar)) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

#[derive(Serialize)]
struct Shown {
    name: String,
    source: String,
    height: usize,
    width: usize,
    train: usize,
    test: usize,
    train_classes: Option<Vec<usize>>,
}

pub fn run(args: Args) -> Result<ExitCode> {
    match args.action.unwrap_or(Action::Show { data: "auto".into(), offline: true, json: false }) {
        Action::Show { data, offline, json } => show(&load(&data, offline)?, json),
        Action::Fetch { set } => {
            let dir = Locations::of_user().cache_of(set).context("the system names no cache folder: set HOME")?;
            let mut bar = Download::default();
            let fetched = data::download::fetch(set, &dir, &mut |progress| bar.show(progress));
            bar.finish();
            fetched?;
            super::print(&format!("{} is in {}", set.name(), dir.display()))?;
            Ok(ExitCode::SUCCESS)
        }
        Action::Verify { set } => verify(set),
    }
}

fn show(dataset: &Dataset, json: bool) -> Result<ExitCode> {
    let classes = |split: &Split| split.class_counts();
    let shown = Shown {
        name: dataset.name.clone(),
        source: dataset.why.clone(),
        height: dataset.train.rows,
        width: dataset.train.columns,
        train: dataset.train.len(),
        test: dataset.test.as_ref().map_or(0, Split::len),
        train_classes: classes(&dataset.train),
    };
    if json {
        super::print_json(&shown)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new([Align::Left, Align::Left]);
    table.row(["data", &format!("{} {}", thousands(shown.train), shown.source)]);
    table.row(["images", &format!("{}×{} pixels, grey", shown.height, shown.width)]);
    table.row(["training", &thousands(shown.train)]);
    table.row(["test", &thousands(shown.test)]);
    if let Some(counts) = &shown.train_classes {
        let counts: Vec<String> =
            counts.iter().enumerate().map(|(class, n)| format!("{class}: {}", thousands(*n))).collect();
        table.row(["classes", &counts.join("  ")]);
    }
    super::print(&table.render(""))?;
    Ok(ExitCode::SUCCESS)
}

fn verify(set: Known) -> Result<ExitCode> {
    let locations = Locations::of_user();
    let (dir, is_ours) = match locations.environment_of(set)? {
        Some(dir) => (dir, false),
        None => (locations.cache_of(set).context("the system names no cache folder: set HOME")?, true),
    };
    let mut table = Table::new([Align::Left, Align::Right, Align::Left]);
    let mut problems = Vec::new();
    for (name, size, state) in data::download::verify_folder(set, &dir) {
        let state = match state {
            FileState::Good => "good".to_string(),
            FileState::Missing => {
                problems.push("missing");
                "missing".to_string()
            }
            FileState::Damaged(how) => {
                problems.push("damaged");
                format!("damaged: {how}")
            }
        };
        table.row([name, bytes(size as usize), state]);
    }
    super::print(&format!("{}\n{}", dir.display(), table.render("  ")))?;
    problems.sort();
    problems.dedup();
    if problems.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let problem = problems.join(" or ");
    if is_ours {
        bail!("{}: files are {problem}; `gcc-gan data fetch {}` fetches them again", dir.display(), set.name());
    }
    bail!("{} (from ${}): files are {problem}; bring good ones, or unset the variable", dir.display(), data::ENV);
}
