//! What a run's folder holds about its training, read back.

use crate::train::checkpoint::{self, Meta};
use crate::train::metrics::{self, Line, Placed};
use crate::train::rundir::{self, RunError};
use crate::train::starts::{self, Start};
use serde::Serialize;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// That there is nothing to report on; the message ends with what the user can do.
#[derive(Debug, thiserror::Error)]
#[error("{}", listed(.0))]
pub struct NoRun(Vec<LeftOut>);

fn listed(left_out: &[LeftOut]) -> String {
    let problems: Vec<&str> = left_out.iter().map(|each| each.problem.as_str()).collect();
    match problems[..] {
        [only] => only.into(),
        _ => format!("no run could be read: {}", problems.join("; ")),
    }
}

/// A folder that is not shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    pub folder: String,
    pub problem: String,
}

/// Runs that were read, and the folders that could not be.
#[derive(Debug)]
pub struct Found {
    pub runs: Vec<Run>,
    pub left_out: Vec<LeftOut>,
}

/// A run as it was found.
#[derive(Debug)]
pub struct Run {
    /// As it is called in the report.
    pub name: String,
    pub folder: PathBuf,
    /// Its first start and each resume; none where an older version trained it.
    pub starts: Vec<Start>,
    /// Why the record of its starts cannot be read.
    pub unread: Option<String>,
    /// What of its files could not be read and is not shown, in sentences without a full stop.
    pub notes: Vec<String>,
    /// Its metrics. Their seconds are of all processes that trained the run.
    pub lines: Vec<Line>,
    /// The steps at which it was resumed, as its starts say or else its clock.
    pub resumed: Vec<u64>,
    /// The sample grids by step.
    pub samples: Vec<(u64, PathBuf)>,
    /// What its checkpoint says of it, or why that cannot be read.
    pub meta: Result<Meta, String>,
}

/// Reads runs by their folders. They may be training meanwhile. What is damaged is noted and left out, and all else is shown.
///
/// # Errors
/// When none of the folders is that of a run.
pub fn read_runs(folders: &[PathBuf]) -> Result<Found, NoRun> {
    let mut runs: Vec<Run> = Vec::new();
    let mut left_out = Vec::new();
    for folder in folders {
        let whole = fs::canonicalize(folder).unwrap_or_else(|_| folder.clone());
        if runs.iter().any(|run| fs::canonicalize(&run.folder).is_ok_and(|other| other == whole)) {
            continue;
        }
        let name = whole.file_name().map_or_else(|| folder.display().to_string(), |n| n.to_string_lossy().into_owned());
        match read_run(folder, name) {
            Ok(run) => runs.push(run),
            Err(error) => {
                left_out.push(LeftOut { folder: folder.display().to_string(), problem: error.to_string() });
            }
        }
    }
    if runs.is_empty() {
        return Err(NoRun(left_out));
    }
    // Runs of one name, from several folders, are called by their paths.
    let names: Vec<String> = runs.iter().map(|run| run.name.clone()).collect();
    for run in &mut runs {
        if names.iter().filter(|name| **name == run.name).count() > 1 {
            run.name = run.folder.display().to_string();
        }
    }
    Ok(Found { runs, left_out })
}

fn read_run(folder: &Path, name: String) -> Result<Run, RunError> {
    let samples = rundir::samples_of(folder)?;
    // The curves need no record: what is wrong with it is told beside them.
    let (starts, unread) = match starts::read(folder) {
        Ok(starts) => (starts, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    let metrics = folder.join(rundir::METRICS);
    let (found, mut notes) = match metrics::read(&metrics) {
        Ok(found) => (found, Vec::new()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (Vec::new(), Vec::new()),
        Err(error) => (Vec::new(), vec![format!("{} cannot be read: {error}", metrics.display())]),
    };
    let Lines { lines, falls, note } = lines(found, &metrics);
    notes.extend(note);
    // The record begins late where an older version began the run, or where it was damaged once.
    let begins = starts.first().is_some_and(|start| start.step == 0);
    let resumed = match starts.is_empty() {
        false => starts.iter().skip(usize::from(begins)).map(|start| start.step).collect(),
        true => falls,
    };
    let meta = rundir::checkpoint_of(folder)?;
    let meta = checkpoint::load(&meta).map(|checkpoint| checkpoint.meta).map_err(|error| error.to_string());
    Ok(Run { name, folder: folder.to_owned(), starts, unread, notes, lines, resumed, samples, meta })
}

/// The lines of a metrics file.
struct Lines {
    lines: Vec<Line>,
    /// The steps after which the clock began anew: in files of older versions each process counts from 0.
    falls: Vec<u64>,
    /// What is wrong with those that are left out.
    note: Option<String>,
}

fn lines(found: Vec<Placed>, file: &Path) -> Lines {
    let (mut lines, mut falls): (Vec<Line>, Vec<u64>) = (Vec::new(), Vec::new());
    let (mut before, mut last) = (0.0, 0.0);
    let mut wrong: Vec<(usize, String)> = Vec::new();
    for Placed { number, line, .. } in found {
        let mut line = match line {
            Ok(line) => line,
            Err(problem) => {
                wrong.push((number, problem));
                continue;
            }
        };
        if let Some(earlier) = lines.last().filter(|earlier| earlier.step > line.step) {
            wrong.push((number, format!("step {} comes after step {}", line.step, earlier.step)));
            continue;
        }
        if let Some(seconds) = &mut line.seconds {
            if *seconds < last {
                before += last;
                falls.extend(lines.last().map(|line| line.step));
            }
            last = *seconds;
            *seconds += before;
        }
        lines.push(line);
    }
    let note = wrong.first().map(|(number, problem)| match wrong.len() {
        1 => format!("{}, line {number}, is left out: {problem}", file.display()),
        count => {
            format!("{count} lines of {} are left out, the first of them line {number}: {problem}", file.display())
        }
    });
    Lines { lines, falls, note }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Lines {
        lines(metrics::Lines::new(text.as_bytes()).map(Result::unwrap).collect(), Path::new("m.jsonl"))
    }

    #[test]
    fn the_clock_goes_on_after_a_resume() {
        let text = "{\"step\":1,\"seconds\":2.0}\n{\"step\":2,\"seconds\":4.0}\n{\"step\":3,\"seconds\":1.5}\n\
                    {\"step\":4,\"seconds\":3.0}\n{\"step\":5,\"sec";
        let found = read(text);
        assert_eq!(found.lines.iter().map(|line| line.seconds.unwrap()).collect::<Vec<_>>(), [2.0, 4.0, 5.5, 7.0]);
        assert_eq!((found.falls, found.note), (vec![2], None));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_the_rest_read() {
        for (text, expected) in [
            ("{\"step\":1}\nmy notes\n", "m.jsonl, line 2, is left out: a JSON object was expected (expected value"),
            ("{\"loss\":1}\n{\"step\":1}\n", "m.jsonl, line 1, is left out: a whole number \"step\" was expected"),
            ("{\"step\":7}\n{\"step\":6}\n", "m.jsonl, line 2, is left out: step 6 comes after step 7"),
            ("x\n{\"step\":7}\n\n", "2 lines of m.jsonl are left out, the first of them line 1: a JSON object"),
        ] {
            let found = read(text);
            let note = found.note.unwrap();
            assert!(note.starts_with(expected), "{note}");
            assert_eq!(found.lines.len(), 1);
        }
        assert_eq!(read("").note, None);
    }
}
