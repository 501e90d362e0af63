//! `gcc-gan report`, and what a run records for it, as a user meets them.

mod common;

use common::{fail, succeed_with as succeed};
use serde_json::Value;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

const TRAIN: [&str; 11] = [
    "train",
    "mlp-gan",
    "--offline",
    "--data",
    "embedded",
    "--set",
    "batch=8",
    "--set",
    "noise_batch=8",
    "--log-every",
    "1",
];

fn starts(dir: &Path, run: &str) -> Vec<Value> {
    let text = fs::read_to_string(dir.join("runs").join(run).join("run.json")).unwrap();
    let file: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(file["format"], "gcc-gan run 1");
    file["starts"].as_array().unwrap().clone()
}

#[test]
fn every_start_is_recorded() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    let data = ["--name", "a", "--steps", "2", "--seed", "7", "--set", "lr=1e-3"];
    succeed(dir, &[&TRAIN[..], &data].concat());
    // Nothing is left to do: no start.
    succeed(dir, &["train", "--resume", "--offline"]);
    succeed(dir, &["train", "--resume", "runs/a", "--offline", "--steps", "3", "--set", "lr=1e-5", "--threads", "1"]);
    let found = starts(dir, "a");
    let [first, second] = &found[..] else { panic!("{found:?}") };
    let command = first["command"].as_str().unwrap();
    assert!(command.ends_with(
        "gcc-gan train mlp-gan --offline --data embedded --set batch=8 --set noise_batch=8 --log-every 1 --name a \
         --steps 2 --seed 7 --set lr=1e-3"
    ));
    let time = first["time"].as_str().unwrap();
    assert!(time.len() == 20 && time > "2026-01-01" && time.ends_with('Z'), "{time}");
    assert_eq!((&first["step"], &second["step"]), (&0.into(), &2.into()));
    assert_eq!((&first["seed"], &second["seed"]), (&7.into(), &7.into()));
    assert_eq!((&first["sets"]["lr"], &second["sets"]["lr"]), (&"1e-3".into(), &"1e-5".into()));
    assert_eq!(second["machine"]["threads"], 1);
    assert!(second["machine"]["device"].as_str().unwrap().contains("1 thread)"));
    assert_eq!((&first["precision"], &first["version"]), (&"f32".into(), &env!("CARGO_PKG_VERSION").into()));
    assert_eq!((&first["data"]["name"], &first["data"]["images"]), (&"embedded".into(), &10_000.into()));
    assert_eq!(first["data"]["digest"], second["data"]["digest"]);
    assert_ne!(first["plan"], second["plan"]);
    // The plan is the one that `compile` writes.
    let sets = ["--set", "batch=8", "--set", "noise_batch=8", "--set", "lr=1e-3", "-o", "a.plan"];
    succeed(dir, &[&["compile", "mlp-gan"], &sets[..]].concat());
    let header: String = fs::read(dir.join("a.plan")).unwrap()[20..52].iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(first["plan"], header.as_str());
}

/// What a resume does not name holds as before, and what it names holds from then on.
#[test]
fn a_resumed_run_keeps_its_habits() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    let train = |more: &[&str]| succeed(dir, &[&["train", "--offline"], more].concat()).0;
    let kept = || {
        let files = fs::read_dir(dir.join("runs/a/checkpoints")).unwrap();
        let mut names: Vec<String> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let out =
        succeed(dir, &[&TRAIN[..], &["--name", "a", "--steps", "4", "--sample-every", "2", "--keep", "2"]].concat()).0;
    assert!(!out.contains("as before"), "{out}");
    let out = train(&["--resume", "--steps", "6"]);
    assert!(out.contains("\nas before: --sample-every 2 --log-every 1 --keep 2 (another value changes it)\n"), "{out}");
    assert_eq!(kept(), ["step-00000004.safetensors", "step-00000006.safetensors"]);
    let out = train(&["--resume", "--steps", "7", "--keep", "1", "--log-every", "5"]);
    assert!(out.contains("as before: --sample-every 2 (another"), "{out}");
    let out = train(&["--resume", "--steps", "8"]);
    assert!(out.contains("as before: --sample-every 2 --log-every 5 --keep 1 (another"), "{out}");
    assert_eq!(kept(), ["step-00000008.safetensors"]);
    let metrics = fs::read_to_string(dir.join("runs/a/metrics.jsonl")).unwrap();
    assert_eq!(metrics.lines().count(), 8, "{metrics}");
    assert_eq!(starts(dir, "a")[3]["habits"], serde_json::json!({"sample_every": 2, "log_every": 5, "keep": 1}));
    // Who resumes a run without a record is told nothing and has the defaults.
    fs::remove_file(dir.join("runs/a/run.json")).unwrap();
    assert!(!train(&["--resume", "--steps", "9"]).contains("as before"));
}

#[test]
fn a_damaged_record_stops_no_run() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    succeed(dir, &[&TRAIN[..], &["--name", "a", "--steps", "1"]].concat());
    let file = dir.join("runs/a/run.json");
    fs::write(&file, "{\"format\": \"gcc-gan run 1\",\n\"sta").unwrap();
    let (out, err) = succeed(dir, &["report", "runs/a"]);
    let told = "warning: runs/a: how it was started is not shown: runs/a/run.json, line 2: ";
    assert!(err.contains(told) && err.contains("correct it or remove the file") && out.contains("wrote"), "{err}");
    let (out, err) = succeed(dir, &["train", "--resume", "--offline", "--steps", "2"]);
    assert!(out.contains("2 steps complete"), "{out}");
    assert!(err.contains("how the run was started until now is lost: runs/a/run.json, line 2: "), "{err}");
    assert!(dir.join("runs/a/run.json.damaged").is_file());
    assert_eq!(starts(dir, "a").len(), 1);
    // Without one, as in older versions.
    fs::remove_file(&file).unwrap();
    succeed(dir, &["report", "runs/a"]);
    succeed(dir, &["train", "--resume", "--offline", "--steps", "3"]);
    assert_eq!(starts(dir, "a").len(), 1);
}

#[test]
fn runs_are_reported_on() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    succeed(dir, &[&TRAIN[..], &["--name", "a", "--steps", "3", "--sample-every", "1"]].concat());
    succeed(dir, &[&TRAIN[..], &["--name", "b", "--steps", "2", "--seed", "5"]].concat());
    let (out, _) = succeed(dir, &["report", "runs/a", "runs/b", "runs/a/."]);
    assert!(out.starts_with("wrote report.html (") && out.ends_with("): open it in a browser\n"), "{out}");
    let page = fs::read(dir.join("report.html")).unwrap();
    succeed(dir, &["report", "runs/a", "runs/b", "-o", "again.html"]);
    assert!(page == fs::read(dir.join("again.html")).unwrap(), "equal runs give equal bytes");
    let (_, err) = succeed(dir, &["report", "runs/a", "--samples", "2"]);
    assert!(err.contains("note: runs/a: 2 of its 4 sample images are shown"), "{err}");

    let (out, _) = succeed(dir, &["report", "runs/a", "runs/b", "--json"]);
    for json in [&["--json"][..], &[]] {
        succeed(dir, &[&["report", "runs/a", "runs/b", "-o", "r.json"], json].concat());
        assert_eq!(fs::read_to_string(dir.join("r.json")).unwrap(), out);
    }
    let data: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(data["runs"].as_array().unwrap().len(), 2);
    assert_eq!(data["runs"][0]["steps"], serde_json::json!([1, 2, 3]));
    assert_eq!(data["runs"][0]["samples"][3]["file"], "runs/a/samples/step-00000003.png");
    let seed = data["settings"].as_array().unwrap().iter().find(|row| row["name"] == "seed").unwrap();
    assert_eq!(seed, &serde_json::json!({"name": "seed", "values": [["2"], ["5"]], "differs": true}));

    succeed(dir, &["report", "runs/a", "runs/b", "-o", "m.csv"]);
    let csv = fs::read_to_string(dir.join("m.csv")).unwrap();
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines[0], "run,step,epoch,seconds,diversity,images_per_second,loss_d,loss_g");
    assert!(lines.len() == 6 && lines[1].starts_with("a,1,0.0008,") && lines[5].starts_with("b,2,"), "{csv}");
}

#[test]
fn what_cannot_be_reported_is_told() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    succeed(dir, &[&TRAIN[..], &["--name", "a", "--steps", "2"]].concat());
    let mistake = |args: &[&str], expected: &str| {
        let err = fail(dir, if expected.contains("error: ") { 2 } else { 1 }, &[&["report"], args].concat());
        assert!(err.contains(expected), "{args:?}: {err}");
    };
    mistake(&[], "error: the following required arguments were not provided");
    mistake(&["runs/none"], "there is no run in runs/none");
    mistake(&["."], "there is no run in .");
    mistake(&["runs/a/metrics.jsonl"], "there is no run in runs/a/metrics.jsonl");
    mistake(
        &["runs/a", "-o", "report.txt"],
        "report.txt says no format: a name that ends in .html, .csv or .json was expected",
    );
    mistake(&["runs/a", "-o", "m.csv", "--samples", "2"], "--samples is for the page");
    mistake(&["runs/a", "-o", "nowhere/r.html"], "nowhere/r.html cannot be written");
    mistake(&["runs/a", "--json", "-o", "x.html"], "--json is for JSON, and x.html names another format");
    mistake(&["runs/a", "--json", "--samples", "2"], "error: the argument '--json' cannot be used with");
    mistake(&["runs/none", "."], "no run could be read: there is no run in runs/none");
    let metrics = dir.join("runs/a/metrics.jsonl");
    let whole = fs::read_to_string(&metrics).unwrap();
    // What is being written is not yet there.
    fs::write(&metrics, format!("{whole}{{\"step\":3,\"lo")).unwrap();
    let (_, err) = succeed(dir, &["report", "runs/a"]);
    assert_eq!(err, "");
    // Without its checkpoint's content all else is shown.
    for name in ["checkpoint.safetensors", "checkpoint.safetensors.prev"] {
        let _ = fs::write(dir.join("runs/a").join(name), "damaged");
    }
    let (_, err) = succeed(dir, &["report", "runs/a"]);
    assert!(err.contains("warning: runs/a: its program is not shown: checkpoint runs/a/checkpoint"), "{err}");
}

/// One bad line, picture or folder hides nothing else, and is told of wherever the report is.
#[test]
fn what_is_damaged_is_told_and_the_rest_shown() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    for name in ["a", "b"] {
        succeed(dir, &[&TRAIN[..], &["--name", name, "--steps", "4", "--sample-every", "2"]].concat());
    }
    let metrics = dir.join("runs/b/metrics.jsonl");
    let whole = fs::read_to_string(&metrics).unwrap();
    let mut lines: Vec<&str> = whole.lines().collect();
    lines[2] = &lines[2][..20];
    fs::write(&metrics, lines.join("\n") + "\n").unwrap();
    let sample = dir.join("runs/a/samples/step-00000002.png");
    let bytes = fs::read(&sample).unwrap();
    fs::write(&sample, &bytes[..bytes.len() / 2]).unwrap();
    fs::create_dir(dir.join("runs/empty")).unwrap();
    let told = [
        "left out: there is no run in runs/gone",
        "left out: there is no run in runs/empty",
        "runs/b: runs/b/metrics.jsonl, line 3, is left out: a JSON object was expected",
        "runs/a: a sample image is left out: runs/a/samples/step-00000002.png cannot be read: ",
    ];
    let runs = ["report", "runs/gone", "runs/a", "runs/empty", "runs/b"];
    let (out, err) = succeed(dir, &runs);
    assert!(out.starts_with("wrote report.html"), "{out}");
    for told in told {
        assert!(err.contains(&format!("warning: {told}")), "{told}: {err}");
    }
    let page = fs::read_to_string(dir.join("report.html")).unwrap();
    for told in ["there is no run in runs/gone", "line 3, is left out: ", "a sample image is left out: "] {
        assert!(page.contains(told), "{told}");
    }
    let (out, err) = succeed(dir, &[&runs[..], &["--json", "-q"]].concat());
    assert!(err.contains(told[2]), "{err}");
    let data: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(data["left_out"][0]["folder"], "runs/gone");
    assert_eq!(data["runs"][1]["steps"], serde_json::json!([1, 2, 4]));
    let (_, err) = succeed(dir, &[&runs[..], &["-o", "m.csv"]].concat());
    assert!(err.contains(told[0]) && err.contains(told[2]), "{err}");
    assert_eq!(fs::read_to_string(dir.join("m.csv")).unwrap().lines().count(), 1 + 4 + 3);
}

/// The interpreter's values of the step after the checkpoint are those that the run logs when it goes on.
#[test]
fn the_values_of_the_next_step_are_shown() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    succeed(dir, &[&TRAIN[..], &["--name", "a", "--steps", "2"]].concat());
    let sets = ["--set", "batch=8", "--set", "noise_batch=8"];
    let inspect = ["inspect", "mlp-gan", "--offline", "--values", "runs/a"];
    let (data, _) = succeed(dir, &[&inspect[..], &sets, &["--json"]].concat());
    let data: Value = serde_json::from_str(&data).unwrap();
    let entry = data["entries"].as_array().unwrap().iter().find(|entry| entry["name"] == "train_step").unwrap();
    assert_eq!(entry["values"]["about"], "step 3 of runs/a");
    let names = entry["names"].as_array().unwrap();
    let nodes = entry["values"]["nodes"].as_array().unwrap();
    let value = |name: &str| {
        let index = names.iter().position(|found| found == name).unwrap();
        &nodes.iter().find(|node| node[0] == index).unwrap()[1]
    };
    let results = entry["stages"].as_array().unwrap().last().unwrap()["results"].as_array().unwrap();
    let node_of = |output: &str| {
        let result = results.iter().find(|r| r[0] == "output" && r[1] == output).unwrap();
        names[result[2].as_u64().unwrap() as usize].as_str().unwrap()
    };
    assert_eq!(value("real")["picture"]["about"], "[0..4, 0, :, :]");
    succeed(dir, &["train", "--resume", "runs/a", "--offline", "--steps", "3", "--log-every", "1"]);
    let metrics = fs::read_to_string(dir.join("runs/a/metrics.jsonl")).unwrap();
    let last: Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
    assert_eq!(last["step"], 3);
    for loss in ["loss_d", "loss_g"] {
        let (shown, logged) = (value(node_of(loss))["mean"].as_f64().unwrap(), last[loss].as_f64().unwrap());
        assert!((shown - logged).abs() < 1e-4 * logged.abs(), "{loss}: {shown} shown, {logged} logged");
    }

    let error = fail(dir, 1, &inspect);
    assert!(error.contains("it was trained on `mlp-gan` with --set batch=8 --set noise_batch=8"), "{error}");
    let error = fail(dir, 1, &[&inspect[..4], &["runs/b"]].concat());
    assert!(error.contains("the values of runs/b cannot be shown"), "{error}");
}
