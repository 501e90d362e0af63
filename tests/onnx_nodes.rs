//! The node cases that the Python package `onnx` publishes, each said as one expression: `tests/onnx/` has the script
//! and what cannot be said. And models that are exported, against onnxruntime. `.ci/run` makes the environment and runs this.

use std::path::Path;
use std::process::Command;

/// How many cases agree; more may, none less.
const LEAST: usize = 711;

/// Runs a script of `tests/onnx/` on this program.
fn script(name: &str, args: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/onnx-venv/bin/python");
    let output = Command::new(&python)
        .arg(root.join("tests/onnx").join(name))
        .arg(env!("CARGO_BIN_EXE_gcc-gan"))
        .args(args)
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", python.display()));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

#[test]
#[ignore = "needs target/onnx-venv with tests/onnx/requirements.txt, which .ci/run makes"]
fn published_node_cases_agree() {
    script("nodes.py", &["--least", &LEAST.to_string()]);
}

#[test]
#[ignore = "needs target/onnx-venv with tests/onnx/requirements.txt, which .ci/run makes"]
fn exported_models_agree_with_onnxruntime() {
    script("export.py", &[]);
}
