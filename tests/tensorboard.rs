//! A run's event files as TensorBoard itself reads them, also after a resume that does steps again. `.ci/run` makes the
//! environment and runs this.

use std::path::Path;
use std::process::Command;

#[test]
#[ignore = "needs target/tensorboard-venv with tests/tensorboard/requirements.txt, which .ci/run makes"]
fn tensorboard_reads_a_run_once() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = tempfile::tempdir().unwrap();
    let run = |command: &mut Command| {
        let output = command.current_dir(dir.path()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    };
    let train = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gcc-gan"));
        run(command.args(["train", "--offline", "--data", "embedded", "--log-every", "2"]).args(more));
    };
    let read = |steps: &[&str]| {
        let mut python = Command::new(root.join("target/tensorboard-venv/bin/python"));
        run(python.arg(root.join("tests/tensorboard/read.py")).arg("runs/a").args(steps));
    };
    let new = ["mlp-gan", "--set", "batch=8", "--name", "a", "--sample-every", "4"];
    train(&[&new[..], &["--steps", "4"]].concat());
    read(&["2", "4"]);
    // As after a kill: the checkpoint is of step 4, and what was logged goes on to step 7.
    let checkpoint = dir.path().join("runs/a/checkpoint.safetensors");
    let saved = std::fs::read(&checkpoint).unwrap();
    train(&["--resume", "runs/a", "--steps", "7", "--sample-every", "100"]);
    std::fs::write(&checkpoint, saved).unwrap();
    std::fs::remove_file(dir.path().join("runs/a/samples/step-00000007.png")).unwrap();
    train(&["--resume", "runs/a", "--steps", "6", "--sample-every", "100"]);
    read(&["2", "4", "6"]);
}
