//! Files that are written: which may be, and how.

use anyhow::{Context, Result, bail};
use gcc_gan::atomic;
use gcc_gan::train::rundir;
use std::fs;
use std::path::Path;

/// Refuses an output file that would take the place of what is read, by whatever path or link it is named, or of a
/// run's checkpoint. To be called before anything takes time.
pub fn check_output(output: &Path, inputs: &[&Path]) -> Result<()> {
    if output == Path::new("-") {
        bail!("`-` does not stand for standard output here: name a file (./- is one of that name)");
    }
    if inputs.iter().any(|input| is_same_file(input, output)) {
        bail!("{} is read here, and would be overwritten: name another file to write", output.display());
    }
    if fs::canonicalize(output).is_ok_and(|path| rundir::is_checkpoint(&path)) {
        bail!("{} is the checkpoint of a run, and would be overwritten: name another file to write", output.display());
    }
    Ok(())
}

/// Writes a file, all or nothing.
pub fn write(file: &Path, bytes: &[u8]) -> Result<()> {
    atomic::write(file, |out| out.write_all(bytes)).with_context(|| format!("{} cannot be written", file.display()))
}

/// Whether both lead to one ordinary file.
fn is_same_file(a: &Path, b: &Path) -> bool {
    #[cfg(unix)]
    let identity = |path: &Path| {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(path).ok().filter(fs::Metadata::is_file).map(|m| (m.dev(), m.ino()))
    };
    #[cfg(not(unix))]
    let identity = |path: &Path| fs::canonicalize(path).ok().filter(|path| path.is_file());
    identity(a).is_some_and(|a| Some(a) == identity(b))
}
