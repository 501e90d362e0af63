//! The folder of a run, `runs/<name>/`: its layout, its name, and that only one process trains into it.
//!
//! ```text
//! runs/dcgan-001/
//!   checkpoint.safetensors       the state, and the program's text
//!   checkpoint.safetensors.prev  the one before it
//!   best.safetensors             the one with the best samples so far, where they are measured
//!   checkpoints/step-*           the last of them, as many as were asked for
//!   run.json                     how it was started and resumed
//!   metrics.jsonl                one line a measurement
//!   events.out.tfevents.*        the same with the samples for TensorBoard, a file for each process that trained
//!   samples/step-00001000.png    grids of generated images
//!   lock                         held by the process that trains
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use super::{checkpoint, starts};
use crate::atomic;

/// Why a run's folder cannot be used.
#[derive(Debug, Error)]
pub enum RunError {
    /// A name that is not a folder name.
    #[error("\"{0}\" cannot name a run: letters, digits, '-', '_' and '.' were expected, and no '.' in front")]
    Name(String),
    /// A new run under a name that is taken.
    #[error("the run {dir} exists already: resume it (--resume {dir}), or choose another name", dir = .0.display())]
    Exists(PathBuf),
    /// A run that is not there.
    #[error(
        "there is no run in {dir}: the folder of a run, which holds {CHECKPOINT}, was expected{}", below_it(.below),
        dir = .dir.display()
    )]
    Missing {
        /// Where it should be.
        dir: PathBuf,
        /// The latest run in a folder of that one.
        below: Option<PathBuf>,
    },
    /// Another process trains into it.
    #[error("another process is training into {dir}: wait for it, stop it, or take another name", dir = .0.display())]
    Locked(PathBuf),
    /// The system refused.
    #[error("{path} cannot be {verb}: {error}", path = .path.display())]
    Io {
        /// What was to be done.
        verb: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

fn missing(dir: &Path) -> RunError {
    RunError::Missing { dir: dir.to_owned(), below: latest(dir) }
}

/// Which run may have been meant.
fn below_it(below: &Option<PathBuf>) -> String {
    below.as_ref().map_or(String::new(), |run| format!("; the latest in it is {}", run.display()))
}

/// Where runs are, where the user names no other folder.
pub const RUNS: &str = "runs";
/// The name of the checkpoint in a run's folder.
pub const CHECKPOINT: &str = "checkpoint.safetensors";
/// The name of the best checkpoint.
const BEST: &str = "best.safetensors";
/// The folder of those that are kept by their steps.
const KEPT: &str = "checkpoints";
/// How their names end.
const SAFETENSORS: &str = ".safetensors";

/// A run's folder that this process may write to. The lock ends with the value, or with the process, however it ends. A
/// folder in which no checkpoint was ever saved is removed with the value, so that a run that failed at once is not in
/// the way of the next try.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    /// Whether it was made by this process.
    is_new: bool,
    _lock: File,
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if self.is_new && !self.checkpoint().exists() {
            // Only what is ours: a folder with anything else in it stays.
            atomic::remove_stale(&self.path, Duration::ZERO);
            let _ = fs::remove_dir(self.samples());
            let _ = fs::remove_file(self.path.join(starts::FILE));
            let _ = fs::remove_file(self.path.join(LOCK));
            let _ = fs::remove_dir(&self.path);
        }
    }
}

/// The name of the file by which a process keeps others from training into a run's folder.
pub const LOCK: &str = "lock";
/// The name of the metrics in a run's folder.
pub const METRICS: &str = "metrics.jsonl";

impl RunDir {
    /// That there can be a new run of this name, as [`RunDir::create`] would say it, before anything is made.
    pub fn check(root: &Path, name: Option<&str>, program: &str) -> Result<(), RunError> {
        let Some(name) = name else { return checked(program).map(|_| ()) };
        let path = root.join(checked(name)?);
        if path.exists() && !is_unused(&path) { Err(RunError::Exists(path)) } else { Ok(()) }
    }

    /// Makes the folder of a new run under `root`: `name`, or else `program` with the next free number.
    pub fn create(root: &Path, name: Option<&str>, program: &str) -> Result<RunDir, RunError> {
        fs::create_dir_all(root).map_err(|error| io_error("made", root, error))?;
        let path = match name {
            Some(name) => {
                let path = root.join(checked(name)?);
                match fs::create_dir(&path) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match is_unused(&path) {
                        true => {}
                        false => return Err(RunError::Exists(path)),
                    },
                    made => made.map_err(|error| io_error("made", &path, error))?,
                }
                path
            }
            None => numbered(root, checked(program)?)?,
        };
        let mut run = RunDir::lock(path)?;
        run.is_new = true;
        let samples = run.samples();
        fs::create_dir_all(&samples).map_err(|error| io_error("made", &samples, error))?;
        Ok(run)
    }

    /// Opens the folder of a run to resume it. What a killed process left half-written is removed.
    pub fn open(path: &Path) -> Result<RunDir, RunError> {
        if !path.join(CHECKPOINT).is_file() {
            return Err(missing(path));
        }
        let run = RunDir::lock(path.to_owned())?;
        let samples = run.samples();
        fs::create_dir_all(&samples).map_err(|error| io_error("made", &samples, error))?;
        [path, &samples, &path.join(KEPT)].into_iter().for_each(|dir| atomic::remove_stale(dir, Duration::ZERO));
        Ok(run)
    }

    /// The system's lock on a file, unlike the mere presence of one, ends with its process: a kill blocks nobody.
    fn lock(path: PathBuf) -> Result<RunDir, RunError> {
        let file = path.join(LOCK);
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(&file);
        let lock = lock.map_err(|error| io_error("written", &file, error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(RunError::Locked(path)),
            // Some network file systems have no locks. Not to train there at all would be worse.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                let shown = file.display().to_string();
                let shown = crate::visible::visible(&shown);
                tracing::warn!("{shown} cannot be locked: start no second process in this run");
            }
            Err(TryLockError::Error(error)) => return Err(io_error("locked", &file, error)),
        }
        Ok(RunDir { path, is_new: false, _lock: lock })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The checkpoint.
    pub fn checkpoint(&self) -> PathBuf {
        self.path.join(CHECKPOINT)
    }

    /// The checkpoint whose samples were the best, where they are measured.
    pub fn best(&self) -> PathBuf {
        self.path.join(BEST)
    }

    /// Where the checkpoint of a step is kept, if it is.
    pub fn kept(&self, step: u64) -> PathBuf {
        self.path.join(KEPT).join(format!("{}{SAFETENSORS}", of_step(step)))
    }

    /// Keeps the present checkpoint, which is of `step`, beside those of the steps before it, `count` in all. Those of later
    /// steps, as of a run that was set back, stay as they are.
    ///
    /// # Errors
    /// When it cannot be kept. That one of the others cannot be removed is none.
    pub fn keep(&self, step: u64, count: usize) -> Result<(), RunError> {
        if count == 0 {
            return Ok(());
        }
        let dir = self.path.join(KEPT);
        fs::create_dir_all(&dir).map_err(|error| io_error("made", &dir, error))?;
        let file = self.kept(step);
        checkpoint::keep_as(&self.checkpoint(), &file).map_err(|error| io_error("written", &file, error))?;
        let mut kept = numbered_files(&dir, SAFETENSORS).map_err(|error| io_error("read", &dir, error))?;
        kept.retain(|(of, _)| *of <= step);
        for (_, file) in kept.iter().rev().skip(count) {
            let _ = fs::remove_file(file);
        }
        Ok(())
    }

    /// Keeps the present checkpoint as the best.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn keep_best(&self) -> Result<(), RunError> {
        checkpoint::keep_as(&self.checkpoint(), &self.best()).map_err(|error| io_error("written", &self.best(), error))
    }

    /// The metrics.
    pub fn metrics(&self) -> PathBuf {
        self.path.join(METRICS)
    }

    /// The folder of sample grids.
    pub fn samples(&self) -> PathBuf {
        self.path.join("samples")
    }

    /// The sample grid of a step.
    pub fn sample(&self, step: u64) -> PathBuf {
        self.samples().join(format!("{}.png", of_step(step)))
    }
}

/// The name of what is of a step. Names sort as their steps do.
fn of_step(step: u64) -> String {
    format!("step-{step:08}")
}

/// The files in a folder that are named by their steps, in the order of these.
fn numbered_files(dir: &Path, ending: &str) -> io::Result<Vec<(u64, PathBuf)>> {
    let step = |name: &str| -> Option<u64> { name.strip_prefix("step-")?.strip_suffix(ending)?.parse().ok() };
    let paths = fs::read_dir(dir)?.flatten().map(|entry| entry.path());
    let mut files: Vec<(u64, PathBuf)> =
        paths.filter_map(|path| Some((step(path.file_name()?.to_str()?)?, path))).collect();
    files.sort();
    Ok(files)
}

/// The checkpoint that a user means by `path`: a run's folder, or the file itself.
///
/// # Errors
/// When it is a folder, and not that of a run.
pub fn checkpoint_of(path: &Path) -> Result<PathBuf, RunError> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let file = path.join(CHECKPOINT);
    match file.exists() || checkpoint::previous(&file).exists() {
        true => Ok(file),
        false => Err(missing(path)),
    }
}

/// The sample grids of a run by their steps, in order; the run may be training meanwhile.
///
/// # Errors
/// When the folder is not that of a run, or cannot be read.
pub fn samples_of(run: &Path) -> Result<Vec<(u64, PathBuf)>, RunError> {
    if !run.is_dir() {
        return Err(missing(run));
    }
    checkpoint_of(run)?;
    let dir = run.join("samples");
    match numbered_files(&dir, ".png") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        files => files.map_err(|error| io_error("read", &dir, error)),
    }
}

/// Whether a file is a checkpoint in the folder of a run, by its name.
pub fn is_checkpoint(path: &Path) -> bool {
    let file = path.with_file_name(CHECKPOINT);
    let is_named = path == file || path == checkpoint::previous(&file) || path.ends_with(BEST);
    let is_kept = path.parent().is_some_and(|dir| dir.ends_with(KEPT)) && path.to_string_lossy().ends_with(SAFETENSORS);
    path.is_file() && (is_named || is_kept)
}

/// The run under `root` whose checkpoint was written last, if there is any.
pub fn latest(root: &Path) -> Option<PathBuf> {
    let runs = fs::read_dir(root).ok()?.flatten().map(|entry| entry.path());
    let saved = |run: &PathBuf| fs::metadata(run.join(CHECKPOINT)).and_then(|m| m.modified()).ok();
    // Two of the same moment are told apart by name, so that the answer does not depend on the folder's order.
    runs.filter_map(|run| Some((saved(&run)?, run))).max().map(|(_, run)| run)
}

/// Whether a folder is that of a run which was killed before its first checkpoint: nothing is in it but what every run
/// makes before that.
fn is_unused(path: &Path) -> bool {
    let Ok(entries) = fs::read_dir(path) else { return false };
    let is_lock = |name: &str| name == LOCK || name.starts_with(atomic::PREFIX);
    let is_empty = |dir: &Path| fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none());
    let mut is_run = false;
    for entry in entries {
        let Ok(entry) = entry else { return false };
        let name = entry.file_name();
        let name = name.to_str().unwrap_or_default();
        is_run |= name == LOCK;
        if !(is_lock(name) || name == starts::FILE || name == "samples" && is_empty(&entry.path())) {
            return false;
        }
    }
    is_run
}

/// Makes `root/stem-NNN` with the number after the highest there is.
fn numbered(root: &Path, stem: &str) -> Result<PathBuf, RunError> {
    let entries = fs::read_dir(root).map_err(|error| io_error("read", root, error))?;
    let number = |name: &str| -> Option<u32> { name.strip_prefix(stem)?.strip_prefix('-')?.parse().ok() };
    let highest = entries.flatten().filter_map(|entry| number(entry.file_name().to_str()?)).max().unwrap_or(0);
    for number in highest.saturating_add(1).. {
        let path = root.join(format!("{stem}-{number:03}"));
        match fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            // Another process was faster: its number is taken.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(io_error("made", &path, error)),
        }
    }
    Err(RunError::Exists(root.join(stem)))
}

/// Names that mean one new folder under `root`, on every system.
fn checked(name: &str) -> Result<&str, RunError> {
    let fine = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    match !name.is_empty() && !name.starts_with('.') && name.len() <= 100 && name.chars().all(fine) {
        true => Ok(name),
        false => Err(RunError::Name(name.into())),
    }
}

fn io_error(verb: &'static str, path: &Path, error: io::Error) -> RunError {
    RunError::Io { verb, path: path.to_owned(), error }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(run: &RunDir) -> &str {
        run.path().file_name().unwrap().to_str().unwrap()
    }

    #[test]
    fn runs_are_numbered() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("made/runs");
        let first = RunDir::create(&root, None, "dcgan").unwrap();
        assert_eq!(name(&first), "dcgan-001");
        assert!(first.samples().is_dir());
        let second = RunDir::create(&root, None, "dcgan").unwrap();
        assert_eq!(name(&second), "dcgan-002");
        assert_eq!(name(&RunDir::create(&root, None, "lenet").unwrap()), "lenet-001");
        // After the highest, gaps and other names notwithstanding.
        fs::create_dir(root.join("dcgan-0041")).unwrap();
        fs::create_dir(root.join("dcgan-best")).unwrap();
        assert_eq!(name(&RunDir::create(&root, None, "dcgan").unwrap()), "dcgan-042");
        assert_eq!(first.sample(1000), root.join("dcgan-001/samples/step-00001000.png"));
        assert!(matches!(samples_of(first.path()), Err(RunError::Missing { .. })));
        fs::write(first.checkpoint(), "").unwrap();
        for name in ["step-00000500.png", "step-123456789.png", "step-00001000.png", "step-x.png", "mine.png"] {
            fs::write(first.samples().join(name), "").unwrap();
        }
        let steps: Vec<u64> = samples_of(first.path()).unwrap().into_iter().map(|(step, _)| step).collect();
        assert_eq!(steps, [500, 1000, 123_456_789]);
        fs::remove_dir_all(first.samples()).unwrap();
        assert_eq!(samples_of(first.path()).unwrap(), []);
        fs::remove_file(first.checkpoint()).unwrap();
    }

    #[test]
    fn processes_that_start_together_get_different_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let make = || RunDir::create(dir.path(), None, "dcgan").unwrap();
        let mut names: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
            // A run that saved nothing takes its folder away when it ends: all are kept until all are there.
            let runs: Vec<RunDir> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
            runs.iter().map(|run| name(run).to_owned()).collect()
        });
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 8);
    }

    #[test]
    fn names_are_checked_and_taken_once() {
        let dir = tempfile::tempdir().unwrap();
        for bad in ["", ".", "..", "a/b", "/a", ".a", "a b", "a\n", "a\\b", &"x".repeat(101)] {
            let error = RunDir::create(dir.path(), Some(bad), "dcgan").unwrap_err();
            assert!(matches!(error, RunError::Name(_)), "{error}");
            let error = RunDir::check(dir.path(), Some(bad), "dcgan").unwrap_err();
            assert!(matches!(error, RunError::Name(_)), "{error}");
        }
        RunDir::check(&dir.path().join("none"), Some("mine"), "dcgan").unwrap();
        RunDir::check(&dir.path().join("none"), None, "dcgan").unwrap();
        assert!(fs::read_dir(dir.path()).unwrap().next().is_none(), "nothing is made");
        let mine = RunDir::create(dir.path(), Some("mine"), "dcgan").unwrap();
        fs::write(mine.checkpoint(), "").unwrap();
        drop(mine);
        let error = RunDir::create(dir.path(), Some("mine"), "dcgan").unwrap_err();
        assert!(matches!(error, RunError::Exists(_)), "{error}");
        let error = RunDir::check(dir.path(), Some("mine"), "dcgan").unwrap_err();
        assert!(matches!(error, RunError::Exists(_)), "{error}");
        fs::write(dir.path().join("file"), "").unwrap();
        let error = RunDir::create(&dir.path().join("file"), None, "dcgan").unwrap_err();
        assert!(error.to_string().contains("file cannot be made: "), "{error}");
    }

    #[test]
    fn one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path(), Some("a"), "dcgan").unwrap();
        let path = run.path().to_owned();
        let error = RunDir::open(&path).unwrap_err();
        assert!(matches!(error, RunError::Missing { .. }), "{error}");
        fs::write(run.checkpoint(), "").unwrap();
        let error = RunDir::open(&path).unwrap_err();
        assert!(matches!(error, RunError::Locked(_)), "{error}");
        drop(run);
        // The file "lock" is still there, as after a kill.
        assert!(path.join("lock").exists());
        drop(RunDir::open(&path).unwrap());
    }

    #[test]
    fn a_folder_without_a_checkpoint_is_not_in_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let run = RunDir::create(dir.path(), Some("a"), "dcgan").unwrap();
        fs::write(path.join(starts::FILE), "{}").unwrap();
        drop(run);
        assert!(!path.exists());
        // As after a kill, when nothing tidies up.
        std::mem::forget(RunDir::create(dir.path(), Some("a"), "dcgan").unwrap());
        let error = RunDir::create(dir.path(), Some("a"), "dcgan").unwrap_err();
        assert!(matches!(error, RunError::Locked(_)), "it is still in use: {error}");
        fs::create_dir_all(dir.path().join("b/samples")).unwrap();
        fs::write(dir.path().join("b/lock"), "").unwrap();
        fs::write(dir.path().join("b").join(starts::FILE), "{}").unwrap();
        RunDir::check(dir.path(), Some("b"), "dcgan").unwrap();
        let run = RunDir::create(dir.path(), Some("b"), "dcgan").unwrap();
        // What somebody else put there is never removed.
        fs::write(dir.path().join("b/notes"), "").unwrap();
        drop(run);
        assert!(dir.path().join("b/notes").exists());
        let error = RunDir::create(dir.path(), Some("b"), "dcgan").unwrap_err();
        assert!(matches!(error, RunError::Exists(_)), "{error}");
    }

    #[test]
    fn the_last_checkpoints_are_kept_and_the_best() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path(), Some("a"), "dcgan").unwrap();
        let of = |file: PathBuf| fs::read_to_string(file).ok();
        for step in [10, 20, 30, 40] {
            fs::remove_file(run.checkpoint()).unwrap_or_default();
            fs::write(run.checkpoint(), step.to_string()).unwrap();
            run.keep(step, 0).unwrap();
            assert!(step > 10 || !run.path().join(KEPT).exists());
            run.keep(step, 2).unwrap();
            if step == 20 {
                run.keep_best().unwrap();
            }
        }
        assert_eq!([10, 20, 30, 40].map(|step| of(run.kept(step))), [None, None, Some("30".into()), Some("40".into())]);
        assert_eq!(of(run.best()), Some("20".into()));
        assert!(is_checkpoint(&run.best()) && is_checkpoint(&run.kept(30)) && !is_checkpoint(&run.kept(20)));
        // The run was set back: what came later stays until its steps are done again.
        run.keep(25, 1).unwrap();
        run.keep(25, 1).unwrap();
        assert_eq!([25, 30, 40].map(|step| of(run.kept(step))), ["40", "30", "40"].map(|text| Some(text.into())));
        fs::remove_dir_all(run.path().join(KEPT)).unwrap();
        fs::write(run.path().join(KEPT), "in the way").unwrap();
        let error = run.keep(50, 1).unwrap_err().to_string();
        assert!(error.contains("checkpoints cannot be made"), "{error}");
    }

    #[test]
    fn opening_clears_what_a_kill_left() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path(), Some("a"), "dcgan").unwrap();
        fs::write(run.checkpoint(), "").unwrap();
        let (_, left) = atomic::temporary_beside(&run.checkpoint()).unwrap().keep().unwrap();
        let path = run.path().to_owned();
        drop(run);
        RunDir::open(&path).unwrap();
        assert!(!left.exists());
    }

    #[test]
    fn the_latest_is_the_one_saved_last() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(latest(&dir.path().join("absent")), None);
        let now = std::time::SystemTime::now();
        for (name, age) in [("a", 20), ("b", 10), ("c", 30)] {
            let run = RunDir::create(dir.path(), Some(name), "dcgan").unwrap();
            let file = File::create(run.checkpoint()).unwrap();
            file.set_modified(now - Duration::from_secs(age)).unwrap();
        }
        let _without = RunDir::create(dir.path(), Some("without"), "dcgan").unwrap();
        let found = latest(dir.path()).unwrap();
        assert_eq!(found, dir.path().join("b"));
        let file = found.join(CHECKPOINT);
        assert_eq!(checkpoint_of(&found).unwrap(), file);
        assert_eq!(checkpoint_of(&file).unwrap(), file);
        assert!(is_checkpoint(&file) && !is_checkpoint(&found.join(LOCK)));
        let error = checkpoint_of(dir.path()).unwrap_err();
        assert!(matches!(error, RunError::Missing { .. }), "{error}");
    }
}
