//! A run's measurements as JSON lines: one object a line, each with the step it belongs to.
//!
//! Every line is handed to the system as soon as it is written, so the file can be followed (`tail -f`) and a kill
//! loses at most the line being written. When a run is resumed at a step, what was logged after that step is removed,
//! because those steps are about to be done again.

mod lines;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::atomic;
pub use lines::{Line, Lines, Placed, read};

/// One line.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Record {
    /// Training steps that were complete.
    pub step: u64,
    /// Epochs that were complete, and the part of the present one.
    pub epoch: f64,
    /// Wall-clock seconds of training, in all processes that trained the run. What a kill took with it does not count.
    pub seconds: f64,
    /// Images trained on per second, since the line before; to sample, measure and save is left out.
    pub images_per_second: f64,
    /// The program's outputs by name, such as the losses. JSON has no NaN and no infinity: these become null.
    #[serde(flatten)]
    pub values: BTreeMap<String, Option<f64>>,
}

/// Why a metrics file could not be used.
#[derive(Debug, Error)]
pub enum MetricsError {
    /// The system refused.
    #[error("{file} cannot be written: {error}", file = .file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A line before the last that is not a record, which no kill of ours leaves behind.
    #[error("{file}, line {line}: {problem}; correct or remove the line", file = .file.display())]
    Line {
        /// The file.
        file: PathBuf,
        /// The line's number, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
}

/// What every line has, so that no output of a program can be called so.
pub const RESERVED: [&str; 4] = ["step", "epoch", "seconds", "images_per_second"];

/// A metrics file, open at its end.
#[derive(Debug)]
pub struct Metrics {
    path: PathBuf,
    file: File,
    line: Vec<u8>,
    seconds: f64,
    /// The length of the file up to its last whole line.
    whole: u64,
}

impl Metrics {
    /// Opens `path`, which is made if need be, to continue after `step`: later lines and a half-written last line are
    /// removed. A new run starts after step 0.
    pub fn open(path: &Path, step: u64) -> Result<Metrics, MetricsError> {
        let io = |error| MetricsError::Io { file: path.to_owned(), error };
        // The end of a device or a pipe might never come.
        match atomic::check_ordinary(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
        let kept = keep(&mut file, path, step)?;
        file.set_len(kept.bytes).map_err(io)?;
        file.seek(SeekFrom::Start(kept.bytes)).map_err(io)?;
        Ok(Metrics { path: path.to_owned(), file, line: Vec::new(), seconds: kept.seconds, whole: kept.bytes })
    }

    /// The seconds of the last line that was there when the file was opened; 0 where there was none.
    pub fn seconds_before(&self) -> f64 {
        self.seconds
    }

    /// Adds a line. Where only a part of it finds room, that is taken away again before the next.
    pub fn write(&mut self, record: &Record) -> Result<(), MetricsError> {
        let written = self.try_write(record);
        match &written {
            Ok(()) => self.whole += self.line.len() as u64,
            Err(_) => drop(self.file.set_len(self.whole).and_then(|()| self.file.seek(SeekFrom::Start(self.whole)))),
        }
        written
    }

    fn try_write(&mut self, record: &Record) -> Result<(), MetricsError> {
        self.line.clear();
        // One call, so that a reader never sees half a line for long.
        serde_json::to_writer(&mut self.line, record)
            .map_err(io::Error::from)
            .and_then(|()| {
                self.line.push(b'\n');
                self.file.write_all(&self.line)
            })
            .map_err(|error| MetricsError::Io { file: self.path.clone(), error })
    }
}

/// The steps at which a value of this name was measured, and the values.
///
/// # Errors
/// When the file cannot be read. Lines that are no records are passed over.
pub fn values(path: &Path, name: &str) -> io::Result<Vec<(u64, f64)>> {
    let lines = read(path)?.into_iter().filter_map(|placed| placed.line.ok());
    Ok(lines.filter_map(|line| Some((line.step, (*line.values.get(name)?)?))).collect())
}

/// The part of a file that stays: its length, and the seconds in its last line.
#[derive(Default)]
struct Kept {
    bytes: u64,
    seconds: f64,
}

/// What stays are the complete lines up to `step`.
fn keep(file: &mut File, path: &Path, step: u64) -> Result<Kept, MetricsError> {
    let mut kept = Kept::default();
    for placed in Lines::new(BufReader::new(file)) {
        let Placed { number, end, line } = placed.map_err(|error| MetricsError::Io { file: path.to_owned(), error })?;
        let line = line.map_err(|problem| MetricsError::Line { file: path.to_owned(), line: number, problem })?;
        if line.step > step {
            break;
        }
        kept = Kept { bytes: end, seconds: line.seconds.unwrap_or_default() };
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn record(step: u64) -> Record {
        let values = [("loss d".to_owned(), Some(0.5)), ("loss g".to_owned(), None)].into();
        Record { step, epoch: 0.25, seconds: 1.5, images_per_second: 800.0, values }
    }

    #[test]
    fn a_line_is_there_at_once_and_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.jsonl");
        let mut metrics = Metrics::open(&path, 0).unwrap();
        metrics.write(&record(1)).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        insta::assert_snapshot!(text, @r#"{"step":1,"epoch":0.25,"seconds":1.5,"images_per_second":800.0,"loss d":0.5,"loss g":null}"#);
        assert!(text.ends_with('\n'));
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record(1));
        // NaN, as of a loss that has diverged, must not make a line that nobody can read.
        let diverged = Record { values: [("loss".to_owned(), Some(f64::NAN))].into(), ..record(2) };
        metrics.write(&diverged).unwrap();
        assert!(fs::read_to_string(&path).unwrap().contains(r#""loss":null"#));
    }

    #[test]
    fn resuming_removes_what_will_be_done_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.jsonl");
        let mut metrics = Metrics::open(&path, 0).unwrap();
        (1..=5).for_each(|i| metrics.write(&record(i * 10)).unwrap());
        metrics.file.write_all(b"{\"step\":60,\"epo").unwrap();
        drop(metrics);
        let mut metrics = Metrics::open(&path, 30).unwrap();
        metrics.write(&record(31)).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let steps: Vec<u64> = text.lines().map(|l| serde_json::from_str::<Record>(l).unwrap().step).collect();
        assert_eq!(steps, [10, 20, 30, 31]);
        assert_eq!(metrics.seconds_before(), 1.5);
        assert_eq!(values(&path, "loss d").unwrap(), [(10, 0.5), (20, 0.5), (30, 0.5), (31, 0.5)]);
        assert_eq!(values(&path, "loss g").unwrap(), []);
    }

    #[test]
    fn a_half_written_line_alone_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.jsonl");
        fs::write(&path, "{\"step\":1}\n{\"step\":2").unwrap();
        Metrics::open(&path, 100).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"step\":1}\n");
    }

    #[test]
    fn a_foreign_line_is_not_thrown_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.jsonl");
        let text = "{\"step\":1}\nmy notes\n{\"step\":2}\n";
        fs::write(&path, text).unwrap();
        let error = Metrics::open(&path, 1).unwrap_err().to_string();
        assert!(error.contains("m.jsonl, line 2: a JSON object"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        let error = Metrics::open(dir.path(), 1).unwrap_err().to_string();
        assert!(error.contains("cannot be written: "), "{error}");
    }
}
