//! What the report shows, as data: the same for its page and for `--json`.

use super::read::{LeftOut, Run};
use crate::train::metrics::Line;
use crate::train::picture::{ImageError, Picture};
use crate::train::starts::Start;
use crate::train::thousands;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Everything in a report.
#[derive(Debug, Serialize)]
pub struct ReportData {
    pub runs: Vec<RunData>,
    /// Folders that are not shown.
    pub left_out: Vec<LeftOut>,
    /// How the runs were made, side by side.
    pub settings: Vec<Setting>,
}

#[derive(Debug, Serialize)]
pub struct RunData {
    pub name: String,
    pub folder: String,
    /// The program's name and text; absent where the checkpoint cannot be read, and then the next says why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    pub starts: Vec<Start>,
    /// Why the record of its starts cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unread: Option<String>,
    /// What else of its files could not be read and is not shown.
    pub notes: Vec<String>,
    /// Where it was resumed, and what that changed.
    pub resumes: Vec<Resume>,
    /// Lines of the metrics, and how many of them are below: one of each `every`.
    pub lines: usize,
    pub every: usize,
    pub steps: Vec<u64>,
    pub epochs: Vec<Option<f64>>,
    /// Seconds of training, those before each resume included.
    pub seconds: Vec<Option<f64>>,
    pub series: Vec<Series>,
    /// Of all lines.
    pub figures: Vec<Figure>,
    /// How many sample grids there are, but for damaged ones, and those that are shown.
    pub all_samples: usize,
    pub samples: Vec<Sample>,
}

#[derive(Debug, PartialEq, Serialize)]
pub struct Resume {
    pub step: u64,
    pub about: String,
}

/// A metric's values.
#[derive(Debug, PartialEq, Serialize)]
pub struct Series {
    pub name: String,
    /// The lines that have it, where not all do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Vec<usize>>,
    /// `None` where it was not finite.
    pub values: Vec<Option<f64>>,
}

/// What became of a metric.
#[derive(Debug, PartialEq, Serialize)]
pub struct Figure {
    pub name: String,
    /// The last value with its step, `None` where it was not finite; the lowest and the highest.
    pub last: (u64, Option<f64>),
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lowest: Option<(u64, f64)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub highest: Option<(u64, f64)>,
    /// How often it was not finite.
    pub lost: usize,
}

#[derive(Debug, PartialEq, Serialize)]
pub struct Sample {
    pub step: u64,
    pub file: String,
    /// The PNG in base 64, on the page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub png: Option<String>,
}

/// A row of the settings: what each run has there.
#[derive(Debug, PartialEq, Serialize)]
pub struct Setting {
    pub name: String,
    /// Several where it changed over a run's starts; none where it is not known.
    pub values: Vec<Vec<String>>,
    /// Whether the runs differ in it, where that says something.
    pub differs: bool,
}

/// How much is shown.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Lines of metrics of each run.
    pub lines: usize,
    /// Sample grids of each run.
    pub samples: usize,
    /// Bytes of all sample grids together.
    pub bytes: u64,
    /// Whether the images themselves are part of the data.
    pub with_images: bool,
}

impl Limits {
    /// Everything, images as the names of their files.
    pub const ALL: Limits = Limits { lines: usize::MAX, samples: usize::MAX, bytes: u64::MAX, with_images: false };
    /// What a browser shows with ease.
    pub const PAGE: Limits = Limits { lines: 10_000, samples: 100, bytes: 16 << 20, with_images: true };
}

/// The report on some runs, without what could not be read of them.
pub fn report_data(runs: &[Run], left_out: &[LeftOut], limits: Limits) -> ReportData {
    let shown = shown_steps(runs, limits);
    let data = runs.iter().map(|run| run_data(run, &shown, limits)).collect();
    ReportData { runs: data, left_out: left_out.to_vec(), settings: settings(runs) }
}

/// The steps whose sample grids are shown: as many as the limits allow, evenly among all steps at which any run has
/// one, so that the runs are seen at the same steps.
fn shown_steps(runs: &[Run], limits: Limits) -> BTreeSet<u64> {
    let mut bytes_at: BTreeMap<u64, u64> = BTreeMap::new();
    for (step, file) in runs.iter().flat_map(|run| &run.samples) {
        // One that is gone is told of when it is to be shown.
        *bytes_at.entry(*step).or_default() += fs::metadata(file).map_or(0, |metadata| metadata.len());
    }
    let all: Vec<(u64, u64)> = bytes_at.into_iter().collect();
    let mut count = limits.samples.min(all.len());
    loop {
        let last = all.len().saturating_sub(1);
        let chosen = (0..count).map(|i| all[if count == 1 { last } else { i * last / (count - 1) }]);
        let bytes: u64 = chosen.clone().map(|(_, bytes)| bytes).sum();
        if bytes <= limits.bytes || count <= 2 {
            return chosen.map(|(step, _)| step).collect();
        }
        // In proportion; and fewer each time, so that it ends.
        let fitting = (count as f64 * limits.bytes as f64 / bytes as f64) as usize;
        count = fitting.clamp(2, count - 1);
    }
}

fn run_data(run: &Run, shown: &BTreeSet<u64>, limits: Limits) -> RunData {
    let every = run.lines.len().div_ceil(limits.lines).max(1);
    // The last line is always there: what came out in the end is what is looked for.
    let last = run.lines.len().saturating_sub(1);
    // What is on few lines, such as measures of samples, would be lost with those that are left out.
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    run.lines.iter().flat_map(|line| line.values.keys()).for_each(|name| *counts.entry(name).or_default() += 1);
    let is_rare = |name: &String| counts[name.as_str()] <= limits.lines;
    let mut lost = 0;
    let stays = |(i, line): &(usize, &Line)| {
        if (last - i).is_multiple_of(every) || line.values.keys().any(is_rare) {
            return true;
        }
        // Of a run that is NaN for long, the first lines tell as much as all.
        let is_lost = line.values.values().any(Option::is_none);
        lost += usize::from(is_lost);
        is_lost && lost <= limits.lines
    };
    let lines: Vec<&Line> = run.lines.iter().enumerate().filter(stays).map(|(_, line)| line).collect();
    // The last grid too, wherever the steps of other runs lie.
    let end = run.samples.last().map(|(step, _)| *step).filter(|_| limits.samples > 0);
    let samples = run.samples.iter().filter(|(step, _)| shown.contains(step) || Some(*step) == end);
    let (mut shown_samples, mut damaged) = (Vec::new(), Vec::new());
    for (step, file) in samples {
        let found = if limits.with_images { png(file).map(Some) } else { Ok(None) };
        match found {
            Ok(png) => shown_samples.push(Sample { step: *step, file: file.display().to_string(), png }),
            Err(error) => damaged.push(error.to_string()),
        }
    }
    let mut notes = run.notes.clone();
    notes.extend(damaged.first().map(|first| match damaged.len() {
        1 => format!("a sample image is left out: {first}"),
        count => format!("{count} sample images are left out, the first of them because {first}"),
    }));
    let meta = run.meta.as_ref();
    RunData {
        name: run.name.clone(),
        folder: run.folder.display().to_string(),
        program: meta.ok().map(|meta| meta.program.clone()),
        text: meta.ok().map(|meta| meta.text.clone()),
        problem: meta.err().cloned(),
        starts: run.starts.clone(),
        unread: run.unread.clone(),
        notes,
        resumes: resumes(run),
        lines: run.lines.len(),
        every,
        steps: lines.iter().map(|line| line.step).collect(),
        epochs: lines.iter().map(|line| line.epoch.map(short)).collect(),
        seconds: lines.iter().map(|line| line.seconds.map(short)).collect(),
        series: names(&run.lines).into_iter().map(|name| series(name, &lines)).collect(),
        figures: names(&run.lines).into_iter().map(|name| figure(name, &run.lines)).collect(),
        all_samples: run.samples.len() - damaged.len(),
        samples: shown_samples,
    }
}

/// A picture in base 64. A browser would show nothing of one that is damaged, and not say so.
fn png(file: &Path) -> Result<String, ImageError> {
    Picture::read(file)?;
    let bytes = crate::atomic::read(file);
    let failed = |error: std::io::Error| ImageError::Read { path: file.to_owned(), reason: error.to_string() };
    bytes.map(|bytes| STANDARD.encode(bytes)).map_err(failed)
}

/// The metrics of a run, in alphabetical order, the rate at the end.
pub fn names(lines: &[Line]) -> Vec<&str> {
    let names: BTreeSet<&str> = lines.iter().flat_map(|line| line.values.keys().map(String::as_str)).collect();
    let (rate, mut names): (Vec<&str>, Vec<&str>) = names.into_iter().partition(|name| *name == RATE);
    names.extend(rate);
    names
}

const RATE: &str = "images_per_second";

fn series(name: &str, lines: &[&Line]) -> Series {
    let found = lines.iter().enumerate().filter_map(|(i, line)| Some((i, line.values.get(name)?.map(short))));
    let (at, values): (Vec<usize>, Vec<Option<f64>>) = found.unzip();
    Series { name: name.into(), at: Some(at).filter(|at| at.len() < lines.len()), values }
}

/// A number with as many digits as one of 32 bits has: what is measured has no more.
fn short(value: f64) -> f64 {
    let short = (value as f32).to_string().parse().unwrap_or(value);
    if f64::is_finite(short) { short } else { value }
}

fn figure(name: &str, lines: &[Line]) -> Figure {
    let found = || lines.iter().filter_map(|line| Some((line.step, *line.values.get(name)?)));
    let finite = || found().filter_map(|(step, value)| Some((step, value.map(short)?)));
    Figure {
        name: name.into(),
        last: found().next_back().map(|(step, value)| (step, value.map(short))).unwrap_or_default(),
        // Of equal ones the first.
        lowest: finite().min_by(|a, b| a.1.total_cmp(&b.1)),
        highest: finite().min_by(|a, b| b.1.total_cmp(&a.1)),
        lost: found().filter(|(_, value)| value.is_none()).count(),
    }
}

/// Where a run was resumed, and with which other values.
fn resumes(run: &Run) -> Vec<Resume> {
    let about = |i: usize, step: u64| {
        let mut about = format!("resumed after step {}", thousands(step as usize));
        // A first start that is a resume is of a run whose beginning is not known.
        let first = run.starts.len().saturating_sub(run.resumed.len());
        let Some([before, after]) = (first + i).checked_sub(1).and_then(|i| run.starts.get(i..i + 2)) else {
            return about;
        };
        let changed = |(name, value): (&String, &String)| {
            (before.sets.get(name) != Some(value)).then(|| format!("{name}={value}"))
        };
        let mut changes: Vec<String> = after.sets.iter().filter_map(changed).collect();
        for (what, before, after) in [
            ("data", &before.data.name, &after.data.name),
            ("data checksum", &before.data.digest, &after.data.digest),
            ("device", &before.machine.device, &after.machine.device),
            ("precision", &before.precision, &after.precision),
            ("version", &before.version, &after.version),
        ] {
            if before != after {
                changes.push(format!("{what} {after}"));
            }
        }
        if !changes.is_empty() {
            about += &format!(" with {}", changes.join(", "));
        }
        about
    };
    run.resumed.iter().enumerate().map(|(i, &step)| Resume { step, about: about(i, step) }).collect()
}

/// How the runs were made. A run of an older version has only what its checkpoint says.
fn settings(runs: &[Run]) -> Vec<Setting> {
    let mut rows = Vec::new();
    let mut row = |name: &str, can_differ: bool, of: &dyn Fn(&Run) -> Vec<String>| {
        let values: Vec<Vec<String>> = runs.iter().map(of).collect();
        if values.iter().all(Vec::is_empty) {
            return;
        }
        let differs = can_differ && values.iter().any(|value| *value != values[0]);
        rows.push(Setting { name: name.into(), values, differs });
    };
    let meta = |run: &Run, of: &dyn Fn(&crate::train::checkpoint::Meta) -> String| run.meta.as_ref().ok().map(of);
    // What the starts say, else the checkpoint.
    let either =
        |run: &Run, of: &dyn Fn(&Start) -> String, old: &dyn Fn(&crate::train::checkpoint::Meta) -> String| match run
            .starts
            .is_empty()
        {
            true => meta(run, old).into_iter().collect(),
            false => over(&run.starts, of),
        };
    row("commands", false, &|run| run.starts.iter().map(|start| start.command.clone()).collect());
    row("started", false, &|run| run.starts.iter().map(|start| readable(&start.time)).collect());
    row("resumes", false, &|run| resumes(run).into_iter().map(|resume| resume.about).collect());
    row("steps", true, &|run| meta(run, &|meta| thousands(meta.step as usize)).into_iter().collect());
    row("program", true, &|run| meta(run, &|meta| meta.program.clone()).into_iter().collect());
    row("seed", true, &|run| either(run, &|start| start.seed.to_string(), &|meta| meta.seed.to_string()));
    let sets = |run: &Run| -> BTreeSet<String> {
        let old = run.meta.as_ref().ok().map(|meta| meta.sets.keys().cloned());
        run.starts.iter().flat_map(|start| start.sets.keys().cloned()).chain(old.into_iter().flatten()).collect()
    };
    for name in runs.iter().flat_map(sets).collect::<BTreeSet<String>>() {
        let value = |sets: &BTreeMap<String, String>| sets.get(&name).map_or("the program's".into(), String::clone);
        row(&format!("set {name}"), true, &|run| either(run, &|start| value(&start.sets), &|meta| value(&meta.sets)));
    }
    row("data", true, &|run| either(run, &|start| start.data.name.clone(), &|meta| meta.data.clone()));
    row("training images", true, &|run| over(&run.starts, &|start| thousands(start.data.images)));
    row("data checksum", true, &|run| either(run, &|start| start.data.digest.clone(), &|meta| meta.digest.clone()));
    row("plan (SHA-256)", true, &|run| over(&run.starts, &|start| start.plan.clone()));
    let precision =
        |run: &Run| either(run, &|start| start.precision.clone(), &|meta| meta.precision.name().to_string());
    row("precision", true, &precision);
    row("device", true, &|run| over(&run.starts, &|start| start.machine.device.clone()));
    row("processor", true, &|run| over(&run.starts, &|start| start.machine.cpu.clone().unwrap_or_default()));
    row("threads", true, &|run| over(&run.starts, &|start| start.machine.threads.to_string()));
    row("gcc-gan", true, &|run| over(&run.starts, &|start| start.version.clone()));
    rows
}

/// A value over the starts of a run: one where it stayed, else each with the step from which it held.
fn over(starts: &[Start], of: &dyn Fn(&Start) -> String) -> Vec<String> {
    let mut found: Vec<(u64, String)> = Vec::new();
    for (step, value) in starts.iter().map(|start| (start.step, of(start))) {
        if found.last().is_none_or(|(_, last)| *last != value) {
            found.push((step, value));
        }
    }
    found.retain(|(_, value)| !value.is_empty());
    let text = |(i, (step, value)): (usize, (u64, String))| match i {
        0 => value,
        _ => format!("{value} after step {}", thousands(step as usize)),
    };
    found.into_iter().enumerate().map(text).collect()
}

/// `2026-01-31T12:00:00Z` with spaces.
fn readable(time: &str) -> String {
    time.replace('T', " ").replace('Z', " UTC")
}
