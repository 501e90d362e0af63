//! What a run's folder holds about its training, read back.

use crate::train::checkpoint::{self, Meta};
use crate::train::metrics::{self, Line, Placed};
use crate::train::rundir::{self, RunError};
use crate::train::starts::{self, Start};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A run that cannot be reported on; the message ends with what the user can do.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error(transparent)]
    Run(#[from] RunError),
    #[error("{file} cannot be read: {error}", file = .file.display())]
    Io { file: PathBuf, error: io::Error },
    #[error("{file}, line {line}: {problem}; correct or remove the line", file = .file.display())]
    Line { file: PathBuf, line: usize, problem: String },
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
    /// Its metrics. Their seconds are of all processes that trained the run.
    pub lines: Vec<Line>,
    /// The steps at which it was resumed, as its starts say or else its clock.
    pub resumed: Vec<u64>,
    /// The sample grids by step.
    pub samples: Vec<(u64, PathBuf)>,
    /// What its checkpoint says of it, or why that cannot be read.
    pub meta: Result<Meta, String>,
}

/// Reads runs by their folders. They may be training meanwhile.
///
/// # Errors
/// When a folder is not that of a run, or its metrics are damaged: with the file and the line.
pub fn read_runs(folders: &[PathBuf]) -> Result<Vec<Run>, ReportError> {
    let mut runs: Vec<Run> = Vec::new();
    for folder in folders {
        let samples = rundir::samples_of(folder)?;
        let whole = fs::canonicalize(folder).unwrap_or_else(|_| folder.clone());
        if runs.iter().any(|run| fs::canonicalize(&run.folder).is_ok_and(|other| other == whole)) {
            continue;
        }
        let name = whole.file_name().map_or_else(|| folder.display().to_string(), |n| n.to_string_lossy().into_owned());
        // The curves need no record: what is wrong with it is told beside them.
        let (starts, unread) = match starts::read(folder) {
            Ok(starts) => (starts, None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        let metrics = folder.join(rundir::METRICS);
        let found = match metrics::read(&metrics) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            found => found.map_err(|error| ReportError::Io { file: metrics.clone(), error })?,
        };
        let (lines, falls) = lines(found, &metrics)?;
        // The record begins late where an older version began the run, or where it was damaged once.
        let begins = starts.first().is_some_and(|start| start.step == 0);
        let resumed = match starts.is_empty() {
            false => starts.iter().skip(usize::from(begins)).map(|start| start.step).collect(),
            true => falls,
        };
        let meta = rundir::checkpoint_of(folder)?;
        let meta = checkpoint::load(&meta).map(|checkpoint| checkpoint.meta).map_err(|error| error.to_string());
        runs.push(Run { name, folder: folder.clone(), starts, unread, lines, resumed, samples, meta });
    }
    // Runs of one name, from several folders, are called by their paths.
    let names: Vec<String> = runs.iter().map(|run| run.name.clone()).collect();
    for run in &mut runs {
        if names.iter().filter(|name| **name == run.name).count() > 1 {
            run.name = run.folder.display().to_string();
        }
    }
    Ok(runs)
}

/// The lines of a metrics file, and the steps after which its clock began anew: in files of older versions each process
/// counts from 0.
fn lines(found: Vec<Placed>, file: &Path) -> Result<(Vec<Line>, Vec<u64>), ReportError> {
    let (mut lines, mut resumed): (Vec<Line>, Vec<u64>) = (Vec::new(), Vec::new());
    let (mut before, mut last) = (0.0, 0.0);
    for Placed { number, line, .. } in found {
        let problem = |problem: String| ReportError::Line { file: file.to_owned(), line: number, problem };
        let mut line = line.map_err(problem)?;
        if let Some(earlier) = lines.last().filter(|earlier| earlier.step > line.step) {
            return Err(problem(format!("step {} comes after step {}", line.step, earlier.step)));
        }
        if let Some(seconds) = &mut line.seconds {
            if *seconds < last {
                before += last;
                resumed.extend(lines.last().map(|line| line.step));
            }
            last = *seconds;
            *seconds += before;
        }
        lines.push(line);
    }
    Ok((lines, resumed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(Vec<Line>, Vec<u64>), String> {
        let found = metrics::Lines::new(text.as_bytes()).map(Result::unwrap).collect();
        lines(found, Path::new("m.jsonl")).map_err(|error| error.to_string())
    }

    #[test]
    fn the_clock_goes_on_after_a_resume() {
        let text = "{\"step\":1,\"seconds\":2.0}\n{\"step\":2,\"seconds\":4.0}\n{\"step\":3,\"seconds\":1.5}\n\
                    {\"step\":4,\"seconds\":3.0}\n{\"step\":5,\"sec";
        let (lines, resumed) = read(text).unwrap();
        assert_eq!(lines.iter().map(|line| line.seconds.unwrap()).collect::<Vec<_>>(), [2.0, 4.0, 5.5, 7.0]);
        assert_eq!(resumed, [2]);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, expected) in [
            ("{\"step\":1}\nmy notes\n", "m.jsonl, line 2: a JSON object was expected (expected value"),
            ("{\"loss\":1}\n", "m.jsonl, line 1: a whole number \"step\" was expected; correct or remove the line"),
            ("{\"step\":7}\n{\"step\":6}\n", "line 2: step 6 comes after step 7"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(read("").unwrap().0, []);
    }
}
