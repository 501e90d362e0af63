//! A run that is killed again and again ends with the bits of one that never was.

#![cfg(unix)]

use gcc_gan::train::checkpoint;
use gcc_gan::train::metrics::Record;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Kills of one run.
const KILLS: u32 = 200;
/// The longest that all of them may take.
const BOUND: Duration = Duration::from_secs(600);

/// Small enough that a process begins, trains and saves within a fraction of a second; with moving averages, running statistics
/// and dropout, so that there is state of every kind.
const PROGRAM: &str = r#"Program(
    name: "small",
    sizes: { "batch": 4 },
    networks: {
        "made": Network(input: [2], layers: [Dense(8), BatchNorm(), Relu(), Dense(784), Reshape([1, 28, 28])]),
        "judged": Network(input: [1, 28, 28], layers: [Flatten(), Dropout(0.5), Dense(1)]),
    },
    entries: {
        "train_step": Entry(
            inputs: { "real": Images(["batch", 1, 28, 28]) },
            steps: [
                Let("fake", Call("made", Normal(["batch", 2]), Training)),
                Let("loss", Sub(Mean(Call("judged", "fake", Training)), Mean(Call("judged", "real", Training)))),
                Minimise("loss", "judged", Adam(lr: 0.001)),
                Let("loss_made", Neg(Mean(Call("judged", "fake", Training)))),
                Minimise("loss_made", "made", Adam(lr: 0.001)),
                Average("made", 0.99),
            ],
            outputs: ["loss"],
        ),
        "sample": Entry(
            inputs: { "noise": Tensor([36, 2]) },
            steps: [Let("images", Call("made", "noise", Inference))],
            outputs: ["images"],
        ),
    },
)"#;

/// As many images as make epochs of five steps.
fn put_images(dir: &Path) {
    let mut bytes = vec![0, 0, 8, 3, 0, 0, 0, 20, 0, 0, 0, 28, 0, 0, 0, 28];
    bytes.extend((0..20 * 784u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8));
    fs::write(dir.join("images-idx3-ubyte"), bytes).unwrap();
}

fn train(dir: &Path, run: &str, steps: u64) -> Child {
    let steps = steps.to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_gcc-gan"));
    command.current_dir(dir).args([
        "train",
        "--steps",
        &steps,
        "--sample-every",
        "3",
        "--log-every",
        "2",
        "--keep",
        "2",
    ]);
    command.args(["--threads", "1", "--offline"]);
    match dir.join("runs").join(run).join("checkpoint.safetensors").exists() {
        true => command.args(["--resume", &format!("runs/{run}")]),
        false => command.args(["small.ron", "--data", "images-idx3-ubyte", "--name", run]),
    };
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Trains up to a step without being killed.
fn finish(dir: &Path, run: &str, steps: u64) -> Duration {
    let begun = Instant::now();
    let output = train(dir, run, steps).wait_with_output().unwrap();
    assert!(output.status.success(), "{run}: {}", String::from_utf8_lossy(&output.stderr));
    begun.elapsed()
}

/// All lines but for their times.
fn metrics(run: &Path) -> Vec<(u64, BTreeMap<String, Option<f64>>)> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let records = text.lines().map(|line| serde_json::from_str::<Record>(line).unwrap());
    records.map(|record| (record.step, record.values)).collect()
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries.map(|e| (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap())).collect()
}

#[test]
fn two_hundred_kills_change_no_bit() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("small.ron"), PROGRAM).unwrap();
    put_images(dir.path());
    let runs = dir.path().join("runs");
    // How long a process lives that does little more than begin and end: kills fall into what it does before its first
    // step, within steps, and while it saves.
    let alone = finish(dir.path(), "first", 3);
    let begun = Instant::now();
    let mut random = 1u32;
    let mut without_error = 0;
    for kill in 0..KILLS {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let part = f64::from(random >> 8) / f64::from(1 << 24);
        let mut child = train(dir.path(), "killed", 1_000_000);
        std::thread::sleep(alone.mul_f64(0.2 + 1.6 * part));
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        // It did not end by itself, and said nothing of what the one before it left behind.
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code().is_none(), "kill {kill}: {:?} {said}", output.status);
        without_error += u32::from(said.is_empty());
        assert!(begun.elapsed() < BOUND, "{kill} kills in {:?}", begun.elapsed());
    }
    assert_eq!(without_error, KILLS);
    let file = runs.join("killed/checkpoint.safetensors");
    let step = checkpoint::load(&file).unwrap().meta.step;
    assert!(step > 20, "only {step} steps survived {KILLS} kills");
    let last = step + 7;
    finish(dir.path(), "killed", last);
    finish(dir.path(), "whole", last);
    let [killed, whole] = ["killed", "whole"].map(|run| runs.join(run));
    assert!(fs::read(&file).unwrap() == fs::read(whole.join("checkpoint.safetensors")).unwrap(), "other bits");
    assert_eq!(metrics(&killed), metrics(&whole));
    for folder in ["samples", "checkpoints"] {
        let [killed, whole] = [&killed, &whole].map(|run| files(&run.join(folder)));
        assert_eq!(killed.keys().collect::<Vec<_>>(), whole.keys().collect::<Vec<_>>(), "{folder}");
        assert!(killed == whole, "{folder}");
    }
    let names = files_of(&killed);
    assert!(names.iter().all(|name| !name.starts_with('.') && !name.contains("tmp")), "left behind: {names:?}");
}

fn files_of(dir: &Path) -> Vec<String> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}
