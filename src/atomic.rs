//! Replacing a file so that whoever looks, at any moment and after any crash, sees the old content or the new one.
//!
//! The content goes to a temporary file in the same folder (a rename is atomic only within a file system), is forced to
//! the disk, and takes the place of the old file by a rename; then the folder is forced to the disk too, because the
//! rename lives in the folder. A full disk is noticed before the rename, so the old file survives it.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use tempfile::NamedTempFile;

/// Temporary files begin with this, so that [`remove_stale`] can tell what a killed process left behind.
pub const PREFIX: &str = ".gcc-gan-tmp-";

/// Writes `path` through `body`, all or nothing. Any error of `body` or of the disk leaves the old file as it was.
/// What is there and is no ordinary file (`/dev/null`, a pipe) is written to as it stands.
///
/// # Errors
/// Those of `body` and of the disk.
pub fn write(path: &Path, body: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|there| !there.is_file() && !there.is_dir()) {
        let mut out = BufWriter::new(fs::OpenOptions::new().write(true).open(path)?);
        body(&mut out)?;
        return out.flush();
    }
    let mut out = BufWriter::with_capacity(1 << 16, temporary_beside(path)?);
    body(&mut out)?;
    commit(out.into_inner().map_err(io::IntoInnerError::into_error)?, path)
}

/// Reads an ordinary file whole.
///
/// # Errors
/// Those of the disk, and what is not an ordinary file: see [`check_ordinary`].
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    check_ordinary(path)?;
    fs::read(path)
}

/// An error where a path leads to a folder, a pipe or a device: reading these would wait for ever, or never end.
///
/// # Errors
/// As said, and where nothing is there.
pub fn check_ordinary(path: &Path) -> io::Result<()> {
    let kind = fs::metadata(path)?.file_type();
    if kind.is_file() {
        return Ok(());
    }
    let what = if kind.is_dir() { "a folder" } else { "a pipe or a device" };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what}, and an ordinary file was expected")))
}

/// A new empty file in `path`'s folder; it is removed when dropped without a [`commit`].
pub fn temporary_beside(path: &Path) -> io::Result<NamedTempFile> {
    // Tells of a missing folder without the temporary file's name.
    fs::metadata(folder(path))?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX);
    // The crate's default is a private 0600; these are ordinary files, so let the user's umask decide.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder(path))
}

/// Forces `temporary` to the disk and gives it the name `path`.
pub fn commit(temporary: NamedTempFile, path: &Path) -> io::Result<()> {
    temporary.as_file().sync_all()?;
    temporary.persist(path).map_err(|failed| failed.error)?;
    sync_folder(folder(path))
}

/// Removes temporary files that a killed process left in `dir`, if they have not been written to for `idle`. Failing
/// to is no error: they only take space.
pub fn remove_stale(dir: &Path, idle: Duration) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
        if ours && age.is_some_and(|age| age >= idle) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The folder that holds `path`: "." for a bare file name.
fn folder(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(unix)]
fn sync_folder(dir: &Path) -> io::Result<()> {
    match File::open(dir)?.sync_all() {
        // Some network file systems do not support it; the rename has happened all the same.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        other => other,
    }
}

/// Other systems give no way to open a folder for this.
#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn replaces_the_whole_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write(&path, |out| out.write_all(b"a long first version")).unwrap();
        write(&path, |out| out.write_all(b"short")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"short");
        assert_eq!(names(dir.path()), ["a"]);
    }

    #[cfg(unix)]
    #[test]
    fn only_ordinary_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let error = read(Path::new("/dev/zero")).unwrap_err().to_string();
        assert!(error.contains("a pipe or a device"), "{error}");
        let error = read(dir.path()).unwrap_err().to_string();
        assert!(error.contains("a folder"), "{error}");
        let path = dir.path().join("a");
        fs::write(&path, "x").unwrap();
        assert_eq!(read(&path).unwrap(), b"x");
    }

    #[cfg(unix)]
    #[test]
    fn devices_are_written_to_and_stay() {
        write(Path::new("/dev/null"), |out| out.write_all(b"gone")).unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }

    #[test]
    fn an_error_midway_leaves_the_old_file_and_no_litter() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write(&path, |out| out.write_all(b"old")).unwrap();
        let error = write(&path, |out| {
            out.write_all(&vec![0; 1 << 20])?;
            Err(io::ErrorKind::StorageFull.into())
        })
        .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(dir.path()), ["a"]);
    }

    #[test]
    fn only_our_idle_temporary_files_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(format!("{PREFIX}x")), "left over").unwrap();
        fs::write(dir.path().join("mine"), "").unwrap();
        remove_stale(dir.path(), Duration::from_secs(3600));
        assert_eq!(names(dir.path()).len(), 2);
        remove_stale(dir.path(), Duration::ZERO);
        assert_eq!(names(dir.path()), ["mine"]);
    }

    #[cfg(unix)]
    #[test]
    fn files_are_as_readable_as_any_other() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let (ours, plain) = (dir.path().join("ours"), dir.path().join("plain"));
        write(&ours, |out| out.write_all(b"x")).unwrap();
        fs::write(&plain, "x").unwrap();
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&plain));
    }
}
