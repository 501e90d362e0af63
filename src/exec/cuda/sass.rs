//! A GPU's own instructions as text, by one of NVIDIA's disassemblers.

use super::nvrtc::find_program;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Why a cubin can't be disassembled.
#[derive(Debug, thiserror::Error)]
pub enum DisassemblerMissing {
    #[error(
        "neither nvdisasm nor cuobjdump, which show a GPU's instructions, is on the path or in a CUDA toolkit's folder: \
         `pip install nvidia-cuda-nvdisasm`"
    )]
    NotFound,
    #[error("{} can't be run: {problem}", path.display())]
    NotRun { path: PathBuf, problem: io::Error },
    #[error("{} does not understand what NVRTC made: {problem}", path.display())]
    Refused { path: PathBuf, problem: String },
}

/// The programs, each with the arguments that come before the file.
const PROGRAMS: [(&str, &[&str]); 2] = [("nvdisasm", &["-c"]), ("cuobjdump", &["-sass"])];
/// Where NVIDIA's Python packages have them.
const FOLDERS: [&str; 4] = ["cuda_nvdisasm/bin", "cuda_cuobjdump/bin", "cu12/bin", "cu13/bin"];

/// The instructions of cubins, each as text.
///
/// # Errors
/// When there is no disassembler, or it refuses a cubin.
pub fn disassemble<'c>(cubins: impl IntoIterator<Item = &'c [u8]>) -> Result<Vec<String>, DisassemblerMissing> {
    let found = |&(name, before): &(&str, &'static [&'static str])| Some((find_program(name, &FOLDERS)?, before));
    let (program, before) = PROGRAMS.iter().find_map(found).ok_or(DisassemblerMissing::NotFound)?;
    cubins.into_iter().map(|cubin| one(&program, before, cubin)).collect()
}

fn one(program: &Path, before: &[&str], cubin: &[u8]) -> Result<String, DisassemblerMissing> {
    let not_run = |problem| DisassemblerMissing::NotRun { path: program.to_path_buf(), problem };
    let mut file = tempfile::Builder::new().suffix(".cubin").tempfile().map_err(not_run)?;
    file.write_all(cubin).and_then(|()| file.flush()).map_err(not_run)?;
    let output = Command::new(program).args(before).arg(file.path()).output().map_err(not_run)?;
    if !output.status.success() {
        let problem = String::from_utf8_lossy(&output.stderr).trim().to_string();
        return Err(DisassemblerMissing::Refused { path: program.to_path_buf(), problem });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
