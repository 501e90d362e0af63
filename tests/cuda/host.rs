//! The programs that the host's C++ compiler makes of kernels and emulate.h.

use crate::compiler::compiler;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A program that changes what is in a file.
pub struct Program(TempDir);

impl Program {
    /// Compiles a text; `None` where there is no compiler.
    pub fn new(text: &str) -> Option<Program> {
        let compiler = compiler()?;
        let program = Program(tempfile::tempdir().unwrap());
        std::fs::write(program.at("kernels.cpp"), text).unwrap();
        let compiled = Command::new(&compiler)
            .args(["-std=c++17", "-O1", "-ffp-contract=off", "-fno-strict-aliasing", "-Wall", "-Wextra"])
            .args(["-Werror=unused-variable", "-Wno-unused-function", "-Wno-unknown-pragmas", "-o"])
            .arg(program.at("kernels"))
            .arg("-I")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cuda"))
            .arg(program.at("kernels.cpp"))
            .output()
            .unwrap();
        if !compiled.status.success() {
            let log = String::from_utf8_lossy(&compiled.stderr).into_owned();
            panic!("{} does not compile:\n{log}", program.0.keep().join("kernels.cpp").display());
        }
        Some(program)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// What it makes of its input with the threads in either order, or what it says when it ends early.
    pub fn run(&self, input: &[u8], arguments: &[&str]) -> [Result<Vec<u8>, String>; 2] {
        // Several threads may run it.
        let files = tempfile::tempdir_in(self.0.path()).unwrap();
        let at = |name: &str| files.path().join(name);
        std::fs::write(at("in"), input).unwrap();
        ["forwards", "backwards"].map(|order| {
            let mut command = Command::new(self.at("kernels"));
            let output = command.arg(at("in")).arg(at(order)).arg(order).args(arguments).output().unwrap();
            if output.status.success() {
                return Ok(std::fs::read(at(order)).unwrap());
            }
            Err(format!("the program ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr)))
        })
    }
}
