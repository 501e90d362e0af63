//! A GPU's own instructions as text, by one of NVIDIA's disassemblers.

use super::nvrtc::find_program;
use std::io::{self, Write as _};
use std::path::PathBuf;
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

/// A disassembler of this machine.
#[derive(Debug)]
pub struct Disassembler {
    program: PathBuf,
    /// Arguments before the file.
    before: &'static [&'static str],
}

impl Disassembler {
    /// # Errors
    /// When there is none.
    pub fn find() -> Result<Disassembler, DisassemblerMissing> {
        let found = |&(name, before): &(&str, &'static [&'static str])| {
            Some(Disassembler { program: find_program(name, &FOLDERS)?, before })
        };
        PROGRAMS.iter().find_map(found).ok_or(DisassemblerMissing::NotFound)
    }

    /// The instructions of a cubin as text.
    ///
    /// # Errors
    /// When the program can't be run, or refuses the cubin.
    pub fn text(&self, cubin: &[u8]) -> Result<String, DisassemblerMissing> {
        let not_run = |problem| DisassemblerMissing::NotRun { path: self.program.clone(), problem };
        let mut file = tempfile::Builder::new().suffix(".cubin").tempfile().map_err(not_run)?;
        file.write_all(cubin).and_then(|()| file.flush()).map_err(not_run)?;
        let output = Command::new(&self.program).args(self.before).arg(file.path()).output().map_err(not_run)?;
        if !output.status.success() {
            let problem = String::from_utf8_lossy(&output.stderr).trim().to_string();
            return Err(DisassemblerMissing::Refused { path: self.program.clone(), problem });
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
