//! How a run was begun and resumed: `run.json` in its folder, for whoever wants to know later what made it.
//!
//! No result depends on the file: a run without one, of an older version or by the library alone, resumes to the same bits
//! and samples as any other. Only how often something is left behind is taken from it. So it is written before the first
//! step of every start, and what goes wrong with it ends no run.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use super::pace::Habits;
use crate::atomic;

/// The file's name in a run's folder.
pub const FILE: &str = "run.json";

/// What the file says it is; the number grows when an older program could misread it.
const FORMAT: &str = "gcc-gan run 1";
/// [`FORMAT`] without its number.
const FORMAT_NAME: &str = "gcc-gan run ";

/// One start of a run: its first, or a resume.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Start {
    /// The command line, quoted so that a shell reads it as it was.
    pub command: String,
    /// When, as `2026-01-31T12:00:00Z`.
    pub time: String,
    /// The step that it went on from: 0 for a run's first start.
    pub step: u64,
    /// gcc-gan's version.
    pub version: String,
    pub machine: Machine,
    /// The name of [`crate::kernel::target::Precision`].
    pub precision: String,
    /// The seed of all randomness.
    pub seed: u64,
    /// The sizes and values that were set, by this start or one before it.
    pub sets: BTreeMap<String, String>,
    pub data: Data,
    /// SHA-256 of the plan as `gcc-gan compile -o` writes it, before the entries for smaller batches are added.
    pub plan: String,
    /// How often something was to be left behind, by this start or one before it. Older versions did not record it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub habits: Option<Habits>,
}

/// What a start ran on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Machine {
    /// The processor's model, where the system tells it.
    pub cpu: Option<String>,
    /// The device that trained, in words.
    pub device: String,
    /// Threads of the CPU that work for or beside the device.
    pub threads: usize,
}

/// What a start trained on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Data {
    /// The `--data` argument that finds it again.
    pub name: String,
    /// Images that are trained on.
    pub images: usize,
    /// The checksum of them all, by which a resumed run sees that they are the same.
    pub digest: String,
}

/// A file that cannot be used.
#[derive(Debug, Error)]
pub enum StartsError {
    #[error("{file} cannot be {verb}: {error}", file = .file.display())]
    Io { verb: &'static str, file: PathBuf, error: io::Error },
    #[error("{file} was written by a newer gcc-gan (its format is \"{format}\", and this version knows \"{FORMAT}\")", file = .file.display())]
    Newer { file: PathBuf, format: String },
    #[error("{file}, line {line}: {reason}; correct it or remove the file, which only tells how the run was started", file = .file.display())]
    Damaged { file: PathBuf, line: usize, reason: String },
}

/// The file as it is written. Starts that are there already are kept as they are, also what a newer version says in
/// them.
#[derive(Serialize, Deserialize)]
struct File {
    format: String,
    starts: Vec<Value>,
}

/// The starts of a run in their order; none where the file is not there.
///
/// # Errors
/// When it cannot be read or is not such a file.
pub fn read(run: &Path) -> Result<Vec<Start>, StartsError> {
    let file = run.join(FILE);
    let damaged = |error: serde_json::Error| damaged(&file, &error);
    load(&file)?.into_iter().map(|start| serde_json::from_value(start).map_err(damaged)).collect()
}

/// Adds a start to a run's file. That of a new run begins the file anew, whatever a killed process left there. A damaged
/// one is put aside as `run.json.damaged`, and the file begins anew: then this gives the damage.
///
/// # Errors
/// When the file cannot be written.
pub fn add(run: &Path, start: &Start, is_new: bool) -> Result<Option<StartsError>, StartsError> {
    let file = run.join(FILE);
    let (mut starts, damage) = match if is_new { Ok(Vec::new()) } else { load(&file) } {
        Ok(starts) => (starts, None),
        // What a newer version wrote is no damage: it stays as it is, without this start.
        Err(error @ (StartsError::Io { .. } | StartsError::Newer { .. })) => return Err(error),
        Err(error) => {
            let aside = run.join(format!("{FILE}.damaged"));
            fs::rename(&file, &aside).map_err(|error| StartsError::Io {
                verb: "put aside",
                file: file.clone(),
                error,
            })?;
            (Vec::new(), Some(error))
        }
    };
    let failed = |error| StartsError::Io { verb: "written", file: file.clone(), error };
    starts.push(serde_json::to_value(start).map_err(|error| failed(error.into()))?);
    let text = serde_json::to_string_pretty(&File { format: FORMAT.into(), starts });
    let text = text.map_err(|error| failed(error.into()))? + "\n";
    atomic::write(&file, |out| out.write_all(text.as_bytes())).map_err(failed)?;
    Ok(damage)
}

fn load(file: &Path) -> Result<Vec<Value>, StartsError> {
    let bytes = match atomic::read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        bytes => bytes.map_err(|error| StartsError::Io { verb: "read", file: file.to_owned(), error })?,
    };
    let found: File = serde_json::from_slice(&bytes).map_err(|error| damaged(file, &error))?;
    let number = |format: &str| format.strip_prefix(FORMAT_NAME).and_then(|number| number.parse::<u32>().ok());
    if number(&found.format) > number(FORMAT) {
        return Err(StartsError::Newer { file: file.to_owned(), format: found.format });
    }
    if found.format != FORMAT {
        let reason = format!("its format is {:?}, and {FORMAT:?} was expected", found.format);
        return Err(StartsError::Damaged { file: file.to_owned(), line: 1, reason });
    }
    Ok(found.starts)
}

fn damaged(file: &Path, error: &serde_json::Error) -> StartsError {
    // An error within a value that was read already has no line.
    StartsError::Damaged { file: file.to_owned(), line: error.line().max(1), reason: error.to_string() }
}

/// A command line as a shell reads it: what is more than letters, digits and a few signs is quoted.
pub fn quoted<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> String {
    let words = arguments.into_iter().map(|argument| quote(argument.as_ref().as_encoded_bytes()));
    words.collect::<Vec<_>>().join(" ")
}

fn quote(word: &[u8]) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%^".contains(c);
    match std::str::from_utf8(word) {
        Ok(text) if !text.is_empty() && text.chars().all(is_plain) => text.to_string(),
        Ok(text) if !text.chars().any(char::is_control) => format!("'{}'", text.replace('\'', r"'\''")),
        // What has no safe form between plain quotes: bash, zsh and ksh read this.
        _ => {
            let byte = |&b: &u8| match b {
                b'\'' | b'\\' => format!("\\{}", char::from(b)),
                b' '..=b'~' => char::from(b).to_string(),
                _ => format!("\\x{b:02x}"),
            };
            format!("$'{}'", word.iter().map(byte).collect::<String>())
        }
    }
}

/// A moment to the second, in UTC: `2026-01-31T12:00:00Z`. The date is found as in H. Hinnant, "chrono-Compatible
/// Low-Level Date Algorithms", `civil_from_days`: years begin in March, so that a leap day is a year's last.
pub fn time_text(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    // Days since 1 March of the year 0, and an era is 400 years.
    let days = seconds / 86_400 + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The processor's model, where the system tells it: on Linux in `/proc/cpuinfo`, of x86.
pub fn cpu_model() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(step: u64) -> Start {
        let habits = Some(Habits { keep: Some(3), ..Habits::default() });
        Start { command: "gcc-gan train".into(), step, seed: u64::MAX, habits, ..Start::default() }
    }

    #[test]
    fn starts_are_added_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), []);
        assert!(add(dir.path(), &start(0), true).unwrap().is_none());
        assert!(add(dir.path(), &start(7), false).unwrap().is_none());
        assert_eq!(read(dir.path()).unwrap(), [start(0), start(7)]);
        // A new run takes the place of one that was killed before it saved anything.
        add(dir.path(), &start(1), true).unwrap();
        assert_eq!(read(dir.path()).unwrap(), [start(1)]);
    }

    #[test]
    fn what_a_newer_version_says_stays() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(FILE);
        fs::write(&file, r#"{"format":"gcc-gan run 1","starts":[{"step":3,"weather":"rain"}]}"#).unwrap();
        add(dir.path(), &start(7), false).unwrap();
        assert!(fs::read_to_string(&file).unwrap().contains(r#""weather": "rain""#));
        assert_eq!(read(dir.path()).unwrap(), [Start { step: 3, ..Start::default() }, start(7)]);
    }

    #[test]
    fn the_file_of_a_newer_version_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(FILE);
        let text = r#"{"format":"gcc-gan run 9","starts":[]}"#;
        fs::write(&file, text).unwrap();
        for error in [read(dir.path()).unwrap_err(), add(dir.path(), &start(7), false).unwrap_err()] {
            assert!(
                error.to_string().contains("run.json was written by a newer gcc-gan (its format is \"gcc-gan run 9\"")
            );
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
    }

    #[test]
    fn a_damaged_file_is_told_of_and_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(FILE);
        for (text, expected) in [
            ("{\"format\": \"gcc-gan run 1\",\n\"starts\": [{\"step\"", "run.json, line 2: "),
            ("{\"format\":\"a diary\",\"starts\":[]}", "line 1: its format is \"a diary\""),
            ("{\"format\":\"gcc-gan run 1\",\"starts\":[{\"step\":-3}]}", "line 1: invalid value: integer `-3`"),
        ] {
            fs::write(&file, text).unwrap();
            let error = read(dir.path()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        fs::write(&file, "not JSON").unwrap();
        let damage = add(dir.path(), &start(7), false).unwrap().unwrap().to_string();
        assert!(damage.contains("run.json, line 1: "), "{damage}");
        assert_eq!(read(dir.path()).unwrap(), [start(7)]);
        assert_eq!(fs::read_to_string(dir.path().join("run.json.damaged")).unwrap(), "not JSON");
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        assert!(add(dir.path(), &start(8), false).is_err());
    }

    #[test]
    fn commands_are_quoted_for_a_shell() {
        let words = ["gcc-gan", "train", "--set", "lr=1e-4", "--data", "my photos/it's", "", "$HOME", "a\nb\\'"];
        let expected = r"gcc-gan train --set lr=1e-4 --data 'my photos/it'\''s' '' '$HOME' $'a\x0ab\\\''";
        assert_eq!(quoted(words), expected);
    }

    #[cfg(unix)]
    #[test]
    fn a_shell_reads_a_quoted_command_as_it_was() {
        use std::os::unix::ffi::OsStrExt;
        let words: [&[u8]; 6] = [b"a b", b"it's", b"~x", b"*?[!#;&|<>`\"$(", b"line\nnext\t\\", b"\xff\xfe 9"];
        let command = format!("printf '%s\\0' {}", quoted(words.map(OsStr::from_bytes)));
        let output = std::process::Command::new("bash").args(["-c", &command]).output().expect("bash, to read it");
        let found: Vec<&[u8]> = output.stdout.split(|b| *b == 0).take(words.len()).collect();
        assert_eq!(found, words);
    }

    #[test]
    fn times_are_dates_of_the_calendar() {
        let at = |seconds| time_text(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(951_868_799), "2000-02-29T23:59:59Z");
        assert_eq!(at(1_798_761_599), "2026-12-31T23:59:59Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00Z");
    }
}
