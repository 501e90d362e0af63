//! What a run's folder holds about its training, read back.

use crate::train::checkpoint::{self, Meta};
use crate::train::rundir::{self, RunError};
use crate::train::starts::{self, Start};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
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

/// A line of a run's metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    pub step: u64,
    /// Absent in a file that other programs wrote.
    pub epoch: Option<f64>,
    /// Seconds of training until then, those before each resume included.
    pub seconds: Option<f64>,
    /// All other numbers by name, the rate among them; `None` is one that was not finite.
    pub values: BTreeMap<String, Option<f64>>,
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
        let text = match crate::atomic::read(&metrics) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            text => text.map_err(|error| ReportError::Io { file: metrics.clone(), error })?,
        };
        let (lines, falls) = lines(&text, &metrics)?;
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

/// The lines of a metrics file, and the steps after which its clock began anew: each process counts from 0. A last line
/// that is not complete is one that is being written.
fn lines(text: &[u8], file: &Path) -> Result<(Vec<Line>, Vec<u64>), ReportError> {
    let (mut lines, mut resumed): (Vec<Line>, Vec<u64>) = (Vec::new(), Vec::new());
    let (mut before, mut last) = (0.0, 0.0);
    for (index, bytes) in text.split_inclusive(|&b| b == b'\n').enumerate() {
        let problem = |problem: String| ReportError::Line { file: file.to_owned(), line: index + 1, problem };
        if bytes.last() != Some(&b'\n') {
            break;
        }
        let mut fields: Map<String, Value> =
            serde_json::from_slice(bytes).map_err(|error| problem(format!("a JSON object was expected ({error})")))?;
        let step = fields.remove("step").and_then(|step| step.as_u64());
        let step = step.ok_or_else(|| problem("a whole number \"step\" was expected".into()))?;
        if let Some(line) = lines.last().filter(|line| line.step > step) {
            return Err(problem(format!("step {step} comes after step {}", line.step)));
        }
        let mut number = |name: &str| fields.remove(name).and_then(|value| value.as_f64());
        let epoch = number("epoch");
        let seconds = number("seconds").map(|seconds| {
            if seconds < last {
                before += last;
                resumed.extend(lines.last().map(|line| line.step));
            }
            last = seconds;
            before + seconds
        });
        // What is no number, another program has put there.
        let values = fields.into_iter().filter(|(_, value)| value.is_number() || value.is_null());
        let values = values.map(|(name, value)| (name, value.as_f64())).collect();
        lines.push(Line { step, epoch, seconds, values });
    }
    Ok((lines, resumed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(Vec<Line>, Vec<u64>), String> {
        lines(text.as_bytes(), Path::new("m.jsonl")).map_err(|error| error.to_string())
    }

    #[test]
    fn the_clock_goes_on_after_a_resume() {
        let text = "{\"step\":1,\"seconds\":2.0,\"a\":1}\n{\"step\":2,\"seconds\":4.0}\n{\"step\":3,\"seconds\":1.5}\n\
                    {\"step\":4,\"seconds\":3.0,\"note\":\"x\",\"b\":null}\n{\"step\":5,\"sec";
        let (lines, resumed) = read(text).unwrap();
        assert_eq!(lines.iter().map(|line| line.seconds.unwrap()).collect::<Vec<_>>(), [2.0, 4.0, 5.5, 7.0]);
        assert_eq!(resumed, [2]);
        assert_eq!(lines[0].values, [("a".to_string(), Some(1.0))].into());
        assert_eq!(lines[3].values, [("b".to_string(), None)].into());
        assert_eq!(lines[0].epoch, None);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, expected) in [
            ("{\"step\":1}\nmy notes\n", "m.jsonl, line 2: a JSON object was expected (expected value"),
            ("[1]\n", "m.jsonl, line 1: a JSON object was expected"),
            ("{\"loss\":1}\n", "m.jsonl, line 1: a whole number \"step\" was expected; correct or remove the line"),
            ("{\"step\":-1}\n", "line 1: a whole number"),
            ("{\"step\":7}\n{\"step\":6}\n", "line 2: step 6 comes after step 7"),
            ("\u{0}\n", "line 1: "),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(read("").unwrap().0, []);
    }
}
