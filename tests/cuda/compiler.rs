//! The host's C++ compiler, for tests that compile kernels for the host.

use std::process::Command;

/// The name of the compiler; `None`, and a line that says why, where there is none.
pub fn compiler() -> Option<String> {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_string());
    if Command::new(&compiler).arg("--version").output().is_err() {
        eprintln!("skipped: no C++ compiler `{compiler}` (set CXX)");
        return None;
    }
    Some(compiler)
}
