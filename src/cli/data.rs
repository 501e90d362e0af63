//! `gcc-gan data`.

use super::program_text::{ProgramArgs, plan_of, program_and_options};
use anyhow::{Context, Result, bail};
use clap::Subcommand;
use gcc_gan::inspect::{Align, Table, bytes};
use gcc_gan::plan::Plan;
use gcc_gan::train::data::pictures::{Folder, Survey};
use gcc_gan::train::data::{self, Dataset, FileState, Fit, Known, Locations, Progress, Request, Split, Stage};
use gcc_gan::train::{session, thousands};
use gcc_gan::visible::visible;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Show, fetch and verify data sets
///
/// Sets are looked for in the folder that $GCC_GAN_DATA names, then in the user's cache folder.
///
/// Arrays (NPY, IDX) are [count, height, width], with 1 or 3 channels before or behind height and width, or [count, pixels].
/// Their elements are whole numbers from 0 to 255, or floats: from 0 to 1 where all are, else from -1 to 1 where all are, else
/// from 0 to 255. Labels are whole numbers from 0 to 255, one for each image.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gcc-gan data show                  what `gcc-gan train` would train on
  gcc-gan data show ~/photos         what is in a folder of PNG or JPEG files, or of IDX files
  gcc-gan data show ~/photos --program dcgan64  how it is fitted to what a program takes
  gcc-gan data fetch fashion-mnist   download into the cache folder
  gcc-gan data verify                compare the files there with their SHA-256")]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show what a --data argument leads to
    Show(ShowArgs),
    /// Download a set into the cache folder
    Fetch {
        /// mnist or fashion-mnist
        #[arg(default_value = "mnist", value_parser = known)]
        set: Known,
        /// Print the files that are there then as JSON
        #[arg(long)]
        json: bool,
    },
    /// Compare a set's files, in $GCC_GAN_DATA or else the cache folder, with what they should be
    Verify {
        /// mnist or fashion-mnist
        #[arg(default_value = "mnist", value_parser = known)]
        set: Known,
        /// Print what was found as JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Default, clap::Args)]
struct ShowArgs {
    /// auto, mnist, fashion-mnist, embedded, a folder of PNG or JPEG files (sub-folders are classes), a folder with IDX
    /// files, NPY arrays or CIFAR-10's binary files, or one such file [default: auto]
    #[arg(value_name = "DATA", conflicts_with = "data")]
    what: Option<String>,
    /// The same, as `train` has it
    #[arg(long, value_name = "DATA")]
    data: Option<String>,
    /// Show how the images are fitted to what this program takes
    #[arg(long, value_name = "PROGRAM")]
    program: Option<PathBuf>,
    /// Fail where a picture cannot be read
    #[arg(long)]
    strict: bool,
    /// Never use the network
    #[arg(long)]
    offline: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn known(name: &str) -> Result<Known, String> {
    let names: Vec<&str> = Known::ALL.iter().map(|set| set.name()).collect();
    Known::by_name(name).ok_or_else(|| format!("the known sets are {}", names.join(" and ")))
}

/// Finds a data set and brings its images to what a program takes, with a progress bar where that takes its time.
pub fn load_for(plan: &Plan, argument: &str, offline: bool, strict: bool) -> Result<Dataset> {
    load(argument, offline, Fit { wanted: session::wanted_images(plan), strict })
}

/// As [`load_for`], with the fit itself.
pub fn load(argument: &str, offline: bool, fit: Fit) -> Result<Dataset> {
    let mut bar = Bar::default();
    let locations = Locations { offline, ..Locations::of_user() };
    let dataset = data::load_fitted(&Request::parse(argument), &locations, fit, &mut |stage| bar.show(stage));
    bar.finish();
    Ok(dataset?)
}

/// A bar for each file that is fetched, and for pictures that are decoded; nothing where standard error is no terminal.
#[derive(Default)]
struct Bar {
    bar: Option<(&'static str, ProgressBar)>,
}

impl Bar {
    fn show(&mut self, stage: Stage) {
        let (what, template, done, of) = match stage {
            Stage::Fetch(Progress { file, received, total }) => {
                (file, "fetching {msg} {wide_bar} {bytes}/{total_bytes} {eta}", received, total)
            }
            Stage::Decode { done, of } => {
                ("pictures", "decoding {msg} {wide_bar} {human_pos}/{human_len} {eta}", done as u64, of as u64)
            }
        };
        if self.bar.as_ref().is_none_or(|(before, _)| *before != what) {
            self.finish();
            let bar = ProgressBar::with_draw_target(Some(of), super::bar_target()).with_message(what);
            bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
            self.bar = Some((what, bar));
        }
        if let Some((_, bar)) = &self.bar {
            bar.set_position(done);
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
    channels: usize,
    height: usize,
    width: usize,
    train: usize,
    test: usize,
    train_classes: Option<Vec<usize>>,
    classes: Option<Vec<String>>,
    notes: Vec<String>,
}

/// Pictures in files, as they are before a program says what it takes.
#[derive(Serialize)]
struct ShownPictures {
    source: String,
    /// Width and height.
    smallest: [usize; 2],
    largest: [usize; 2],
    grey: usize,
    transparent: usize,
    train: usize,
    test: usize,
    train_classes: Option<Vec<usize>>,
    classes: Option<Vec<String>>,
    skipped: Vec<(String, String)>,
    notes: Vec<String>,
}

pub fn run(args: Args) -> Result<ExitCode> {
    match args.action.unwrap_or(Action::Show(ShowArgs { offline: true, ..ShowArgs::default() })) {
        Action::Show(args) => show(&args),
        Action::Fetch { set, json } => {
            let dir = Locations::of_user().cache_of(set).context("the system names no cache folder: set HOME")?;
            let mut bar = Bar::default();
            let fetched = data::download::fetch(set, &dir, &mut |progress| bar.show(Stage::Fetch(progress)));
            bar.finish();
            fetched?;
            if json {
                super::print_json(&Verified::of(set, &dir))?;
                return Ok(ExitCode::SUCCESS);
            }
            super::print(&format!("{} is in {}", set.name(), dir.display()))?;
            Ok(ExitCode::SUCCESS)
        }
        Action::Verify { set, json } => verify(set, json),
    }
}

fn show(args: &ShowArgs) -> Result<ExitCode> {
    let asked = args.what.as_ref().or(args.data.as_ref()).map_or("auto", String::as_str);
    let wanted = match &args.program {
        Some(program) => {
            let (program, options) = program_and_options(&ProgramArgs { program: program.clone(), sets: Vec::new() })?;
            let plan = plan_of(program.compile(&options)?)?;
            let wanted = session::wanted_images(&plan);
            Some(wanted.with_context(|| format!("`{}` trains on no images: there is nothing to fit", plan.name))?)
        }
        None => None,
    };
    if let (Request::Path(path), None) = (Request::parse(asked), wanted)
        && let Some(folder) = Folder::at(&path)?
    {
        let of = folder.files();
        let mut bar = Bar::default();
        let survey = folder.survey(&mut |done| bar.show(Stage::Decode { done, of }));
        bar.finish();
        return show_pictures(&path, survey, args);
    }
    let dataset = load(asked, args.offline, Fit { wanted, strict: args.strict })?;
    let size = dataset.train.size();
    let shown = Shown {
        name: dataset.name.clone(),
        source: dataset.why.clone(),
        channels: size.channels,
        height: size.rows,
        width: size.columns,
        train: dataset.train.len(),
        test: dataset.test.as_ref().map_or(0, Split::len),
        train_classes: dataset.train.class_counts(),
        classes: dataset.classes.clone(),
        notes: dataset.notes.clone(),
    };
    if args.json {
        super::print_json(&shown)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new([Align::Left, Align::Left]);
    table.row(["data", &format!("{} {}", thousands(shown.train), shown.source)]);
    table.row(["images", &format!("{}×{} pixels, {}", shown.height, shown.width, size.colours())]);
    table.row(["training", &thousands(shown.train)]);
    table.row(["test", &thousands(shown.test)]);
    if let Some(counts) = &shown.train_classes {
        table.row(["classes", &classes(counts, shown.classes.as_deref())]);
    }
    for note in &shown.notes {
        table.row(["note", &visible(note)]);
    }
    super::print(&table.render(""))?;
    Ok(ExitCode::SUCCESS)
}

/// Each class with its images.
fn classes(counts: &[usize], names: Option<&[String]>) -> String {
    let name = |class: usize| names.and_then(|n| n.get(class)).map_or_else(|| class.to_string(), |n| visible(n).into());
    let each = |(class, count): (usize, &usize)| format!("{}: {}", name(class), thousands(*count));
    counts.iter().enumerate().map(each).collect::<Vec<String>>().join("  ")
}

fn show_pictures(path: &Path, survey: Survey, args: &ShowArgs) -> Result<ExitCode> {
    if let (true, Some(skipped)) = (args.strict, &survey.skipped) {
        bail!("{}: {skipped}; without --strict they are skipped", path.display());
    }
    if let (0, Some(skipped)) = (survey.train, &survey.skipped) {
        bail!("{} has no picture that can be used: {skipped}", path.display());
    }
    let summary = survey.summary;
    let (names, counts): (Vec<String>, Vec<usize>) = survey.classes.iter().flatten().cloned().unzip();
    let has_classes = survey.classes.is_some();
    if args.json {
        super::print_json(&ShownPictures {
            source: format!("pictures in {}", path.display()),
            smallest: summary.smallest,
            largest: summary.largest,
            grey: summary.grey,
            transparent: summary.transparent,
            train: survey.train,
            test: survey.test,
            train_classes: has_classes.then_some(counts),
            classes: has_classes.then_some(names),
            skipped: survey.skipped.map_or(Vec::new(), |skipped| skipped.files),
            notes: survey.notes,
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new([Align::Left, Align::Left]);
    table.row(["data", &format!("{} pictures in {}", thousands(survey.train), path.display())]);
    let all = survey.train + survey.test;
    let colours = format!("{} RGB, {} grey", thousands(all - summary.grey.min(all)), thousands(summary.grey));
    table.row(["images", &format!("{} (width first), {colours}", summary.sizes())]);
    table.row(["training", &thousands(survey.train)]);
    table.row(["test", &thousands(survey.test)]);
    if has_classes {
        table.row(["classes", &classes(&counts, Some(&names))]);
    }
    if let Some(skipped) = &survey.skipped {
        table.row(["skipped", &visible(&skipped.to_string())]);
    }
    for note in &survey.notes {
        table.row(["note", &visible(note)]);
    }
    table.row(["fitted", "resized and centre-cropped to what a program takes: --program dcgan64 shows how"]);
    super::print(&table.render(""))?;
    Ok(ExitCode::SUCCESS)
}

/// The files of a known set.
#[derive(Serialize)]
struct Verified {
    set: &'static str,
    folder: String,
    is_good: bool,
    files: Vec<VerifiedFile>,
}

#[derive(Serialize)]
struct VerifiedFile {
    name: String,
    /// What the whole file has.
    bytes: u64,
    /// good, missing or damaged.
    state: &'static str,
    /// What is wrong with a damaged one.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

impl Verified {
    fn of(set: Known, dir: &Path) -> Verified {
        let file = |(name, bytes, state)| {
            let (state, problem) = match state {
                FileState::Good => ("good", None),
                FileState::Missing => ("missing", None),
                FileState::Damaged(how) => ("damaged", Some(how)),
            };
            VerifiedFile { name, bytes, state, problem }
        };
        let files: Vec<VerifiedFile> = data::download::verify_folder(set, dir).into_iter().map(file).collect();
        let is_good = files.iter().all(|file| file.state == "good");
        Verified { set: set.name(), folder: dir.display().to_string(), is_good, files }
    }
}

fn verify(set: Known, json: bool) -> Result<ExitCode> {
    let locations = Locations::of_user();
    let (dir, is_ours) = match locations.environment_of(set)? {
        Some(dir) => (dir, false),
        None => (locations.cache_of(set).context("the system names no cache folder: set HOME")?, true),
    };
    let verified = Verified::of(set, &dir);
    if json {
        super::print_json(&verified)?;
    } else {
        let mut table = Table::new([Align::Left, Align::Right, Align::Left]);
        for VerifiedFile { name, bytes: size, state, problem } in &verified.files {
            let state = problem.as_ref().map_or(state.to_string(), |problem| format!("{state}: {problem}"));
            table.row([name.clone(), bytes(*size as usize), state]);
        }
        super::print(&format!("{}\n{}", dir.display(), table.render("  ")))?;
    }
    if verified.is_good {
        return Ok(ExitCode::SUCCESS);
    }
    let states: BTreeSet<&str> =
        verified.files.iter().map(|file| file.state).filter(|state| *state != "good").collect();
    let problem = states.into_iter().collect::<Vec<_>>().join(" or ");
    if is_ours {
        bail!("{}: files are {problem}; `gcc-gan data fetch {}` fetches them again", dir.display(), set.name());
    }
    bail!("{} (from ${}): files are {problem}; bring good ones, or unset the variable", dir.display(), data::ENV);
}
