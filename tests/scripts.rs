//! What scripts and shells use: JSON of a training run, silence, completions, manual pages.

mod common;

use common::{fail, run, succeed, text, train};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

#[test]
fn a_script_can_follow_a_training_run() {
    let dir = TempDir::new().unwrap();
    let more =
        ["--steps", "4", "--json", "--log-every", "2", "--eval-every", "3", "--eval-samples", "20", "--keep", "1"];
    let out = succeed(dir.path(), &train(&more));
    let events: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let named = |name: &str| -> Vec<&Value> { events.iter().filter(|event| event["event"] == name).collect() };
    let begin = events.first().unwrap();
    assert!(begin["event"] == "begin" && begin["run"] == "runs/dcgan-001" && begin["program"] == "dcgan", "{begin}");
    assert!(begin["set"]["batch"] == "8" && begin["until"] == 4 && begin["images"] == 10_000, "{begin}");
    assert_eq!(named("report").iter().map(|e| &e["step"]).collect::<Vec<_>>(), [2, 4]);
    assert!(named("report")[1]["values"]["loss_d"].is_number());
    let examined = named("examined");
    assert_eq!(examined.iter().map(|e| &e["step"]).collect::<Vec<_>>(), [3, 4]);
    assert!(examined[0]["is_best"] == true && examined[0]["values"]["eval_frechet_distance"].is_number());
    for event in named("saved").iter().chain(&named("sampled")) {
        assert!(dir.path().join(event["file"].as_str().unwrap()).is_file(), "{event}");
    }
    let end = events.last().unwrap();
    assert!(end["event"] == "end" && end["ended"] == "complete" && end["step"] == 4, "{end}");
    let run = dir.path().join("runs/dcgan-001");
    assert!(run.join("best.safetensors").is_file());
    let kept = fs::read_dir(run.join("checkpoints")).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(kept.collect::<Vec<_>>(), ["step-00000004.safetensors"]);
    succeed(dir.path(), &["sample", "--checkpoint", "runs/dcgan-001/best.safetensors", "--sort", "-o", "a.png"]);
    let err =
        fail(dir.path(), 1, &["sample", "--checkpoint", "runs/dcgan-001", "-o", "runs/dcgan-001/best.safetensors"]);
    assert!(err.contains("would be overwritten"), "{err}");

    let out = succeed(dir.path(), &["train", "--offline", "--resume", "--json"]);
    assert!(out.lines().last().unwrap().contains("nothing to do"), "{out}");
    let err = fail(dir.path(), 2, &train(&["--eval-samples", "50"]));
    assert!(err.contains("--eval-every"), "{err}");
    let err = fail(dir.path(), 1, &["train", "lenet", "--offline", "--data", "embedded", "--eval-every", "5"]);
    assert!(err.contains("`sample` of `lenet` is not there"), "{err}");
    assert!(!dir.path().join("runs/lenet-001").exists());
}

/// What commands that write files print for a script.
#[test]
fn what_was_written_is_told_as_json() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    let small = ["--set", "batch=8", "--set", "noise_batch=8", "--data", "embedded", "--offline"];
    let steps = ["--steps", "2", "--sample-every", "1", "--name", "r"];
    succeed(dir, &[&["train", "mlp-gan"][..], &small, &steps].concat());
    let told = |args: &[&str]| -> Value { serde_json::from_str(&succeed(dir, args)).unwrap() };
    let found = told(&["sample", "--checkpoint", "runs/r", "--grid", "2x3", "-o", "a.png", "--json"]);
    let expected = serde_json::json!({
        "file": "a.png", "pictures": 1, "height": 62, "width": 92, "images": 6, "program": "mlp-gan", "step": 2
    });
    assert_eq!(found, expected);
    let moving = ["--interpolate", "1,2", "--frames", "2", "--grid", "1x1", "-o", "a.gif", "--json", "-q"];
    let found = told(&[&["sample", "--checkpoint", "runs/r"][..], &moving].concat());
    assert_eq!((&found["pictures"], &found["height"], &found["images"]), (&4.into(), &32.into(), &1.into()));
    let found = told(&["animate", "runs/r", "-o", "b.gif", "--json"]);
    assert_eq!(found, serde_json::json!({"file": "b.gif", "pictures": 3, "first_step": 0, "last_step": 2}));
    let found = told(&["run", "mlp-gan", "init", "--outputs", "p.safetensors", "--f64-reference", "--json"]);
    assert_eq!((&found["file"], &found["name"], &found["steps"]), (&"p.safetensors".into(), &"init".into(), &1.into()));
    let weight = found["tensors"].as_array().unwrap().iter().find(|t| t["name"] == "generator/0-dense/weight").unwrap();
    assert!(weight["type"] == "f64" && weight["shape"].as_array().unwrap().len() == 2, "{weight}");

    // The answer is there where the check fails, too.
    let output = run(dir, &["data", "verify", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let found: Value = serde_json::from_str(&text(&output.stdout)).unwrap();
    assert!(found["set"] == "mnist" && found["is_good"] == false, "{found}");
    assert!(found["files"].as_array().unwrap().len() == 4 && found["files"][0]["state"] == "missing", "{found}");
}

/// A path need not be text.
#[cfg(unix)]
#[test]
fn a_folder_of_any_name_can_hold_runs() {
    use std::os::unix::ffi::OsStrExt;
    let dir = TempDir::new().unwrap();
    for more in [&["--json"][..], &[]] {
        let mut command = common::gcc_gan(dir.path(), &train(&["--steps", "1"]));
        let output = command.args(more).arg("--out").arg(std::ffi::OsStr::from_bytes(b"a \xff")).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
}

#[test]
fn a_run_that_fails_tells_a_script_so() {
    let dir = TempDir::new().unwrap();
    let args = ["train", "mlp-gan", "--offline", "--data", "embedded", "--set", "batch=8", "--set", "noise_batch=8"];
    let output = run(dir.path(), &[&args[..], &["--set", "lr=1e6", "--steps", "60", "--json", "-q"]].concat());
    assert_eq!(output.status.code(), Some(1));
    let out = text(&output.stdout);
    let end: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert!(end["ended"] == "failed" && end["error"].as_str().unwrap().contains("mlp-gan.ron:"), "{end}");
    assert!(!text(&output.stderr).contains("note: "), "{}", text(&output.stderr));
}

/// The metrics have these names themselves.
#[test]
fn outputs_have_names_of_their_own() {
    let dir = TempDir::new().unwrap();
    let program = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/graphs/mlp-gan.ron")).unwrap();
    fs::write(dir.path().join("a.ron"), program.replace("loss_d", "step")).unwrap();
    let err = fail(dir.path(), 1, &["train", "a.ron", "--offline", "--data", "embedded", "--steps", "1"]);
    assert!(err.contains("has the output `step`"), "{err}");
}

#[test]
fn quiet_leaves_only_what_a_script_wants() {
    let dir = TempDir::new().unwrap();
    assert_eq!(succeed(dir.path(), &train(&["--steps", "1", "-q"])), "");
    assert!(dir.path().join("runs/dcgan-001/checkpoint.safetensors").is_file());
    assert_eq!(succeed(dir.path(), &["-q", "compile", "mlp-gan", "-o", "a.plan"]), "");
    assert_eq!(succeed(dir.path(), &["verify", "a.plan", "--quiet"]), "");
    assert!(succeed(dir.path(), &["-q", "graphs", "--json"]).contains("dcgan"));
    fs::write(dir.path().join("a.plan"), "no plan").unwrap();
    assert!(fail(dir.path(), 1, &["-q", "verify", "a.plan"]).contains("a.plan"));
}

/// Every command and option of the program is known to the shells, and bash takes its script.
#[test]
fn shells_complete_commands() {
    let dir = TempDir::new().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = succeed(dir.path(), &["completions", shell]);
        for word in ["train", "interpolate", "eval-every", "completions"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
        fs::write(dir.path().join(shell), script).unwrap();
    }
    let asked =
        "source ./bash; COMP_WORDS=(gcc-gan tra); COMP_CWORD=1; _gcc__gan gcc-gan tra gcc-gan; echo ${COMPREPLY[*]}";
    match Command::new("bash").args(["-c", asked]).current_dir(dir.path()).stdin(Stdio::null()).output() {
        Ok(output) => assert_eq!(text(&output.stdout).trim(), "train", "{}", text(&output.stderr)),
        Err(error) => println!("not asked: bash does not start here ({error})"),
    }
    assert!(fail(dir.path(), 2, &["completions", "cmd"]).contains("possible values"));
}

#[test]
fn there_is_a_manual_page_for_every_command() {
    let dir = TempDir::new().unwrap();
    succeed(dir.path(), &["man", "pages/man1"]);
    let page = |name: &str| fs::read_to_string(dir.path().join("pages/man1").join(name)).unwrap();
    assert!(page("gcc-gan.1").contains(".SH"));
    let help = succeed(dir.path(), &["--help"]);
    let (_, rest) = help.split_once("Commands:").unwrap();
    // What a line has no room for stands further to the right.
    let lines = rest.lines().skip(1).take_while(|line| !line.is_empty());
    let commands = lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).filter(|name| !name.is_empty());
    for command in commands.filter(|name| *name != "help") {
        assert!(page(&format!("gcc-gan-{command}.1")).contains("SYNOPSIS"), "{command}");
    }
    assert!(succeed(dir.path(), &["man"]).contains(".TH gcc-gan"));
    fs::write(dir.path().join("file"), "").unwrap();
    let output = run(dir.path(), &["man", "file"]);
    assert!(!output.status.success() && text(&output.stderr).contains("file cannot be made"));
}

/// `share/` holds what the program prints, for packages. UPDATE_SHARE=1 renews it.
#[test]
fn the_files_for_packages_are_what_the_program_prints() {
    let share = Path::new(env!("CARGO_MANIFEST_DIR")).join("share");
    let dir = TempDir::new().unwrap();
    succeed(dir.path(), &["man", "man/man1"]);
    fs::create_dir(dir.path().join("completions")).unwrap();
    for (shell, file) in [("bash", "gcc-gan.bash"), ("zsh", "_gcc-gan"), ("fish", "gcc-gan.fish")] {
        fs::write(dir.path().join("completions").join(file), succeed(dir.path(), &["completions", shell])).unwrap();
    }
    let is_renewed = std::env::var_os("UPDATE_SHARE").is_some();
    for folder in ["completions", "man/man1"] {
        let (made, kept) = (dir.path().join(folder), share.join(folder));
        if is_renewed {
            let _ = fs::remove_dir_all(&kept);
            fs::create_dir_all(&kept).unwrap();
        }
        let names = |dir: &Path| -> BTreeSet<_> {
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect()
        };
        for name in names(&made) {
            if is_renewed {
                fs::copy(made.join(&name), kept.join(&name)).unwrap();
            }
            let same = fs::read(made.join(&name)).ok() == fs::read(kept.join(&name)).ok();
            assert!(same, "{folder}/{} in share/ is old: UPDATE_SHARE=1 cargo test --test scripts", name.display());
        }
        assert_eq!(names(&made), names(&kept), "of commands that are no more");
    }
}
