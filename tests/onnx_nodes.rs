//! The node cases that the Python package `onnx` publishes, each said as one expression: `tests/onnx/` has the script
//! and what cannot be said. `.ci/run` makes the environment and runs this.

use std::path::Path;
use std::process::Command;

/// How many cases agree; more may, none less.
const LEAST: usize = 711;

#[test]
#[ignore = "needs target/onnx-venv with tests/onnx/requirements.txt, which .ci/run makes"]
fn published_node_cases_agree() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/onnx-venv/bin/python");
    let output = Command::new(&python)
        .arg(root.join("tests/onnx/nodes.py"))
        .arg(env!("CARGO_BIN_EXE_gcc-gan"))
        .args(["--least", &LEAST.to_string()])
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", python.display()));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}
