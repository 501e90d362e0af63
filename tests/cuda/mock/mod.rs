//! The program on a GPU that is not there: NVIDIA's two libraries are mocked by mock.cpp, which runs kernels on the host.
//! A process opens libraries once, so each run is a process of its own.

mod code;
#[path = "../compiler.rs"]
mod compiler;
mod script;

use compiler::compiler;
use gcc_gan::exec::cuda::{CudaDevice, Missing};
use safetensors::SafeTensors;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use tempfile::TempDir;

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cuda/mock/gan.ron");
/// How mock.cpp compiles kernels, and how it is compiled. No `-march`, so that nothing is contracted.
const FLAGS: [&str; 6] = ["-std=c++17", "-O1", "-fPIC", "-ffp-contract=off", "-fno-strict-aliasing", "-w"];

/// The folder with the mocked libraries, and with the code that they compiled; `None`, and a line that says why, where
/// there is no compiler. It is kept for the next time, as long as all that it was made from is the same.
fn mock() -> Option<&'static Path> {
    static MOCK: OnceLock<Option<PathBuf>> = OnceLock::new();
    let made = MOCK.get_or_init(|| {
        let compiler = compiler()?;
        let version = Command::new(&compiler).arg("--version").output().unwrap();
        let sources = [include_str!("mock.cpp"), include_str!("../emulate.h")];
        let mut hash = DefaultHasher::new();
        (&compiler, version.stdout, sources, FLAGS).hash(&mut hash);
        let all = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let folder = all.join(format!("cuda-mock-{:016x}", hash.finish()));
        if !folder.is_dir() {
            let new = tempfile::tempdir_in(all).unwrap();
            build(&compiler, new.path(), sources);
            // Another process may have been faster: what it made is the same.
            let _ = fs::rename(new.path(), &folder);
        }
        Some(folder)
    });
    made.as_deref()
}

fn build(compiler: &str, folder: &Path, [libraries, emulation]: [&str; 2]) {
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
    write("mock.cpp", libraries);
    write("emulate.h", emulation);
    write("flags", &format!("'{compiler}' {}", FLAGS.join(" ")));
    for arguments in [
        &["-shared", "mock.cpp", "-o", "libcuda.so.1", "-ldl"][..],
        &["-x", "c++-header", "emulate.h", "-o", "emulate.h.gch"],
    ] {
        let done = Command::new(compiler).args(FLAGS).args(arguments).current_dir(folder).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    for name in ["libcuda.so", "libnvrtc.so.12"] {
        fs::copy(folder.join("libcuda.so.1"), folder.join(name)).unwrap();
    }
}

/// A command that finds the mocked libraries, and changes nothing of the user's.
fn on_mock(mock: &Path, program: &Path, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(dir).env("HOME", dir).env("XDG_CACHE_HOME", mock.join("cache"));
    command.env("LD_LIBRARY_PATH", mock).env("GCC_GAN_NVRTC", mock).env("COLUMNS", "100");
    for name in ["GCC_GAN_DATA", "GCC_GAN_LOG"] {
        command.env_remove(name);
    }
    for name in ["ORDER", "FAULT", "KILL", "MEMORY", "ARCHITECTURE", "GRAPHS", "LOG"] {
        command.env_remove(format!("GCC_GAN_MOCK_{name}"));
    }
    command
}

type Setting<'s> = (&'s str, &'s str);
const NO_FAULT: &[Setting] = &[];

fn gcc_gan(mock: &Path, dir: &Path, args: &[&str], settings: &[Setting]) -> Output {
    let mut command = on_mock(mock, Path::new(env!("CARGO_BIN_EXE_gcc-gan")), dir);
    command.args(args).envs(settings.iter().copied()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Standard output and standard error of a command that succeeds.
fn succeed(mock: &Path, dir: &Path, args: &[&str], settings: &[Setting]) -> (String, String) {
    let output = gcc_gan(mock, dir, args, settings);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{args:?} {settings:?}: {}\n{out}{err}", output.status);
    (out, err)
}

/// Standard error of a command that says what is wrong and ends with status 1.
fn fail(mock: &Path, dir: &Path, args: &[&str], settings: &[Setting]) -> String {
    let output = gcc_gan(mock, dir, args, settings);
    let err = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{args:?} {settings:?}:\n{}{err}", text(&output.stdout));
    assert!(!err.contains("panicked") && err.ends_with('\n'), "{args:?} {settings:?}:\n{err}");
    err
}

fn train<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["train", PROGRAM, "--offline", "--data", "embedded", "--sample-every", "1"], more].concat()
}

fn on_cuda<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&train(more)[..], &["--device", "cuda"]].concat()
}

fn resume<'a>(run: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["train", "--offline", "--steps", STEPS, "--resume", run], more].concat()
}

/// What a lost device's error ends with.
const RESUME: &str = "resume from there: gcc-gan train --resume runs/run --device cuda --offline\n";
const STEPS: &str = "4";

/// What a run left behind.
#[derive(Debug, Clone, PartialEq)]
struct Left {
    tensors: Vec<(String, Vec<u8>)>,
    losses: Vec<(String, f64)>,
}

fn left(dir: &Path, run: &str) -> Left {
    let run = dir.join("runs").join(run);
    let bytes = fs::read(run.join("checkpoint.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Vec<_> = file.iter().map(|(n, t)| (n.to_string(), t.data().to_vec())).collect();
    tensors.sort();
    let metrics = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let last: serde_json::Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
    assert_eq!(last["step"].to_string(), STEPS);
    let losses = last.as_object().unwrap().iter().filter(|(name, _)| name.starts_with("loss"));
    let losses: Vec<_> = losses.map(|(name, loss)| (name.clone(), loss.as_f64().unwrap())).collect();
    assert!(!losses.is_empty());
    Left { tensors, losses }
}

fn assert_near(found: &Left, expected: &Left, tolerance: f64) {
    for ((name, found), (_, expected)) in found.losses.iter().zip(&expected.losses) {
        assert!((found - expected).abs() <= tolerance * expected.abs(), "{name}: {found}, expected {expected}");
    }
}

/// A run of all steps on the GPU, made once, in a folder that stays.
fn whole(mock: &Path) -> &'static (PathBuf, Left) {
    static WHOLE: OnceLock<(PathBuf, Left)> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let dir = mock.join("whole");
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).unwrap();
        let (out, _) = succeed(mock, &dir, &on_cuda(&["--steps", STEPS, "--name", "whole"]), NO_FAULT);
        assert!(out.contains("on Mock GPU (GPU 0, sm_80)"), "{out}");
        let left = left(&dir, "whole");
        (dir, left)
    })
}

/// The same run on the CPU.
fn on_cpu(mock: &Path) -> Left {
    let dir = TempDir::new().unwrap();
    succeed(mock, dir.path(), &train(&["--steps", STEPS, "--name", "cpu", "--device", "cpu"]), NO_FAULT);
    left(dir.path(), "cpu")
}

#[test]
fn the_gpu_is_listed_and_one_that_is_not_there_is_refused() {
    let Some(mock) = mock() else { return };
    let dir = TempDir::new().unwrap();
    let (out, _) = succeed(mock, dir.path(), &["devices"], NO_FAULT);
    for part in ["cuda:0   Mock GPU, sm_80, 1.0 GiB", "driver for CUDA 12.8", "NVRTC 12.8"] {
        assert!(out.contains(part), "{out}");
    }
    // A variable that is empty is as one that is not set: the system's loader finds the library.
    let (out, _) = succeed(mock, dir.path(), &["devices"], &[("GCC_GAN_NVRTC", "")]);
    assert!(out.contains("NVRTC 12.8"), "{out}");
    let err = fail(mock, dir.path(), &train(&["--device", "cuda:1"]), NO_FAULT);
    assert!(err.contains("there is no GPU 1: there is 1, counted from 0"), "{err}");
}

#[test]
fn a_run_is_that_of_the_cpu_and_has_the_same_bits_in_every_order() {
    let Some(mock) = mock() else { return };
    let (_, whole) = whole(mock);
    assert_near(whole, &on_cpu(mock), 1e-4);
    let dir = TempDir::new().unwrap();
    for (run, order) in [("a", "last"), ("b", "random:1"), ("c", "random:2")] {
        let settings = [("GCC_GAN_MOCK_ORDER", order)];
        succeed(mock, dir.path(), &on_cuda(&["--steps", STEPS, "--name", run]), &settings);
        assert!(left(dir.path(), run) == *whole, "{order}");
    }
}

#[test]
fn runs_are_resumed_bit_by_bit_and_on_other_devices() {
    let Some(mock) = mock() else { return };
    let (_, whole) = whole(mock);
    let dir = TempDir::new().unwrap();
    succeed(mock, dir.path(), &on_cuda(&["--steps", "2", "--name", "gpu"]), NO_FAULT);
    succeed(mock, dir.path(), &on_cuda(&["--steps", "2", "--name", "there"]), NO_FAULT);
    succeed(mock, dir.path(), &train(&["--steps", "2", "--name", "back"]), NO_FAULT);
    succeed(mock, dir.path(), &resume("runs/gpu", &["--device", "cuda"]), NO_FAULT);
    let (_, told) = succeed(mock, dir.path(), &resume("runs/there", &["--device", "cpu"]), NO_FAULT);
    assert!(
        told.contains(
            "note: the run was on a GPU in f32 until now, and goes on on the CPU in f32: --device cuda goes on there"
        ),
        "{told}"
    );
    succeed(mock, dir.path(), &resume("runs/back", &["--device", "cuda"]), NO_FAULT);
    assert!(left(dir.path(), "gpu") == *whole);
    for run in ["there", "back"] {
        let other = left(dir.path(), run);
        assert!(other.tensors != whole.tensors, "{run} was on another device");
        assert_near(&other, whole, 1e-4);
    }
}

#[test]
fn images_are_those_of_the_cpu() {
    let Some(mock) = mock() else { return };
    let (dir, _) = whole(mock);
    let images = ["cpu", "cuda"].map(|device| {
        let file = format!("{device}.png");
        let args = ["sample", "--checkpoint", "runs/whole", "--grid", "2x3", "--device", device, "-o", &file];
        succeed(mock, dir, &args, NO_FAULT);
        image::open(dir.join(file)).unwrap().to_luma8()
    });
    let [cpu, gpu] = images.each_ref().map(|image| image.as_raw());
    assert!(cpu.len() == gpu.len() && cpu.iter().zip(gpu).all(|(a, b)| a.abs_diff(*b) <= 1));
    assert!(cpu.iter().any(|&pixel| pixel != cpu[0]), "there is something to see");
}

#[test]
fn a_step_is_profiled_kernel_by_kernel() {
    let Some(mock) = mock() else { return };
    whole(mock);
    let dir = TempDir::new().unwrap();
    let args = ["profile", PROGRAM, "--steps", "1", "--device", "cuda", "--json"];
    let (out, _) = succeed(mock, dir.path(), &args, NO_FAULT);
    let figures: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(figures["kernels"].as_array().unwrap().len() > 10, "{out}");
}

/// Each fault ends a run that goes on from a checkpoint. Afterwards it goes on as if nothing had been.
#[test]
fn a_fault_is_one_clear_sentence_and_nothing_is_lost() {
    let Some(mock) = mock() else { return };
    let (_, whole) = whole(mock);
    let dir = TempDir::new().unwrap();
    succeed(mock, dir.path(), &on_cuda(&["--steps", "2", "--name", "run"]), NO_FAULT);
    let before = fs::read(dir.path().join("runs/run/checkpoint.safetensors")).unwrap();
    let faults: [(&str, &[&str]); 7] = [
        ("no_device", &["the NVIDIA driver sees no GPU", "CUDA_VISIBLE_DEVICES"]),
        ("old_driver", &["the NVIDIA driver is too old (it is for CUDA 11.4)", "install one for CUDA 12.0 or newer"]),
        (
            "out_of_memory",
            &["Mock GPU", "the plan's arena takes", "and 0.0 MiB of 1024.0 MiB are free", "--set batch="],
        ),
        ("no_binary", &["Mock GPU", "its driver does not take the kernels' code", "install a newer driver"]),
        ("illegal_address:3", &["Mock GPU (GPU 0, sm_80) was lost", "illegal memory access", RESUME]),
        ("lost:9", &["Mock GPU (GPU 0, sm_80) was lost", "ECC", RESUME]),
        ("unheard_of:9", &["Mock GPU (GPU 0, sm_80) was lost", "error 4321", RESUME]),
    ];
    for (fault, parts) in faults {
        let args = resume("runs/run", &["--device", "cuda"]);
        let err = fail(mock, dir.path(), &args, &[("GCC_GAN_MOCK_FAULT", fault)]);
        for part in parts {
            assert!(err.contains(part), "{fault}: {err}");
        }
        assert!(fs::read(dir.path().join("runs/run/checkpoint.safetensors")).unwrap() == before, "{fault}");
    }
    // In the first steps of another, before there is a checkpoint.
    let args =
        ["train", PROGRAM, "--offline", "--data", "embedded", "--steps", "40", "--device", "cuda", "--name", "new"];
    let err = fail(mock, dir.path(), &args, &[("GCC_GAN_MOCK_FAULT", "lost:10")]);
    assert!(err.contains("is gone, and there was none yet: train again"), "{err}");
    // Killed in the fourth step, after the checkpoint of the third. Each gathers its inputs first, and notes its losses.
    let launches = 3 + before_step_four(mock, dir.path());
    let args = [&resume("runs/run", &["--device", "cuda"])[..], &["--sample-every", "1"]].concat();
    let killed = gcc_gan(mock, dir.path(), &args, &[("GCC_GAN_MOCK_KILL", &launches.to_string())]);
    assert_eq!(killed.status.code(), None, "{}", text(&killed.stderr));
    succeed(mock, dir.path(), &resume("runs/run", &["--device", "cuda"]), NO_FAULT);
    assert!(left(dir.path(), "run") == *whole);
}

/// What a smaller batch would take is compiled, and that it fits is true.
#[test]
fn where_memory_is_too_small_a_batch_that_fits_is_named() {
    let Some(mock) = mock() else { return };
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("layers.ron"), LAYERS).unwrap();
    let args = ["train", "layers.ron", "--offline", "--data", "embedded", "--steps", "1", "--device", "cuda"];
    let large = [&args[..], &["--set", "batch=256", "--name", "large"]].concat();
    let little = ("GCC_GAN_MOCK_MEMORY", "1000000");
    let err = fail(mock, dir.path(), &large, &[little]);
    assert!(err.contains(" MiB, and 1.0 MiB of 1.0 MiB are free"), "{err}");
    let (_, named) = err.split_once("; with `--set batch=").unwrap_or_else(|| panic!("{err}"));
    let (batch, rest) = named.split_once('`').unwrap();
    assert!(rest.contains("it takes ") && rest.contains(", which fits"), "{err}");
    // Half of it or more would have been named if it fitted.
    let batch: usize = batch.parse().unwrap();
    assert!((16..256).contains(&batch), "{err}");
    let set = format!("batch={batch}");
    succeed(mock, dir.path(), &[&args[..], &["--set", &set, "--name", "small"]].concat(), &[little]);
    // The state alone takes more than this.
    let err = fail(mock, dir.path(), &large, &[("GCC_GAN_MOCK_MEMORY", "1000")]);
    assert!(err.contains("; no smaller batch was found that fits"), "{err}");
    // So does what is beside the arena.
    let err = fail(mock, dir.path(), &large, &[("GCC_GAN_MOCK_FAULT", "full_at_graph:1")]);
    assert!(err.contains("beside which kernels and graphs need some, takes ") && err.contains(" are free"), "{err}");
    assert!(err.contains("; with `--set batch=128` it takes "), "{err}");
    // A run keeps its sizes.
    succeed(mock, dir.path(), &large, NO_FAULT);
    let again = resume("runs/large", &["--device", "cuda"]);
    let err = fail(mock, dir.path(), &again, &[little]);
    assert!(err.contains(&format!("; a run keeps its sizes, but a new one with `--set {set}` takes ")), "{err}");
}

/// Launches of a training step, which is the first thing that a resumed run does.
fn before_step_four(mock: &Path, dir: &Path) -> usize {
    let args = ["profile", PROGRAM, "--steps", "1", "--device", "cuda", "--json"];
    let (out, _) = succeed(mock, dir, &args, NO_FAULT);
    let figures: serde_json::Value = serde_json::from_str(&out).unwrap();
    figures["kernels"].as_array().unwrap().len()
}

/// Few kernels, of which those of products are large enough for tensor cores.
pub const LAYERS: &str = r#"Program(
    name: "layers",
    sizes: { "batch": 16 },
    networks: {
        "judged": Network(input: [1, 28, 28], layers: [Flatten(), Dense(16), LeakyRelu(0.2), Dense(1)]),
    },
    entries: {
        "train_step": Entry(
            inputs: { "real": Images(["batch", 1, 28, 28]) },
            steps: [
                Let("loss", Mean(Softplus(Call("judged", "real", Training)))),
                Minimise("loss", "judged", Adam(lr: 0.001)),
            ],
            outputs: ["loss"],
        ),
    },
)"#;

/// A run of the program above.
fn layers(mock: &Path, dir: &Path, run: &str, more: &[&str], settings: &[Setting]) -> Left {
    run_of(LAYERS, mock, dir, run, more, settings)
}

fn run_of(program: &str, mock: &Path, dir: &Path, run: &str, more: &[&str], settings: &[Setting]) -> Left {
    fs::write(dir.join("layers.ron"), program).unwrap();
    let args = ["train", "layers.ron", "--offline", "--data", "embedded", "--steps", STEPS, "--name", run];
    succeed(mock, dir, &[&args[..], more].concat(), settings);
    left(dir, run)
}

#[test]
fn every_precision_is_near_the_cpu() {
    let Some(mock) = mock() else { return };
    let dir = TempDir::new().unwrap();
    let cpu = layers(mock, dir.path(), "cpu", &[], NO_FAULT);
    let mut all = Vec::new();
    for (precision, tolerance) in [("f32", 1e-5), ("tf32", 5e-3), ("bf16", 3e-2)] {
        let device = ["--device", "cuda", "--precision", precision];
        let found = layers(mock, dir.path(), precision, &device, NO_FAULT);
        assert_near(&found, &cpu, tolerance);
        let other = layers(mock, dir.path(), &format!("{precision}-2"), &device, &[("GCC_GAN_MOCK_ORDER", "random:3")]);
        assert!(other == found, "{precision}");
        assert!(!all.contains(&found), "{precision} is rounded in its own way");
        all.push(found);
    }
}

/// The same in little, of which many steps can be run.
fn one_layer() -> String {
    LAYERS.replace(r#""batch": 16"#, r#""batch": 2"#).replace("Dense(16), LeakyRelu(0.2), ", "")
}

/// Memory that has room for the arena of such a program, but not for the examples.
const TOO_LITTLE: Setting = ("GCC_GAN_MOCK_MEMORY", "4000000");

/// The state, and of each line of the metrics the step and the loss.
fn tensors_and_lines(dir: &Path, run: &str) -> (Vec<(String, Vec<u8>)>, Vec<String>) {
    let run = dir.join("runs").join(run);
    let bytes = fs::read(run.join("checkpoint.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Vec<_> = file.iter().map(|(n, t)| (n.to_string(), t.data().to_vec())).collect();
    tensors.sort();
    let metrics = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let line = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(line["images_per_second"].as_f64().is_some_and(|rate| rate > 0.0 && rate.is_finite()), "{line}");
        format!("{} {} {}", line["step"], line["epoch"], line["loss"])
    };
    (tensors, metrics.lines().map(line).collect())
}

/// Where the device keeps the examples it does several steps at once, and nobody can tell from what is left behind.
#[test]
fn steps_that_are_handed_over_together_leave_what_single_ones_leave() {
    let Some(mock) = mock() else { return };
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("layers.ron"), one_layer()).unwrap();
    let run = |name: &str, steps: &str, settings: &[Setting]| {
        let args = ["train", "layers.ron", "--offline", "--data", "embedded", "--device", "cuda", "--name", name];
        let settings = [settings, &[("GCC_GAN_LOG", "debug")]].concat();
        gcc_gan(mock, dir.path(), &[&args[..], &["--steps", steps]].concat(), &settings)
    };
    let go_on = |name: &str| {
        let path = format!("runs/{name}");
        let args = ["train", "--offline", "--steps", "60", "--device", "cuda", "--resume", &path];
        succeed(mock, dir.path(), &args, NO_FAULT);
    };
    let staged = text(&run("staged", "60", &[TOO_LITTLE]).stderr);
    assert!(staged.contains("examples are not kept on the device: too little of its memory is free"), "{staged}");
    let expected = tensors_and_lines(dir.path(), "staged");
    assert!(expected.1.len() == 2 && expected.1[0].starts_with("50 ") && expected.1[1].starts_with("60 "));
    // The program has two graphs, and each row of runs one.
    let full = text(&run("full", "60", &[("GCC_GAN_MOCK_FAULT", "full_at_graph:3")]).stderr);
    assert!(full.contains("examples are not kept on the device: too little of its memory is free"), "{full}");
    assert!(tensors_and_lines(dir.path(), "full") == expected);
    let kept = text(&run("kept", "60", NO_FAULT).stderr);
    assert!(kept.contains("10000 examples are kept on the device"), "{kept}");
    assert!(tensors_and_lines(dir.path(), "kept") == expected);
    run("random", "60", &[("GCC_GAN_MOCK_ORDER", "random:4")]);
    assert!(tensors_and_lines(dir.path(), "random") == expected);
    // In the middle of what an uninterrupted run does together.
    run("resumed", "13", NO_FAULT);
    go_on("resumed");
    let (tensors, lines) = tensors_and_lines(dir.path(), "resumed");
    assert!(tensors == expected.0 && lines.len() == 3 && lines[0].starts_with("13 ") && lines[1..] == expected.1);
    // What came after the last checkpoint is done again.
    let killed = run("killed", "60", &[("GCC_GAN_MOCK_KILL", "300")]);
    assert_eq!(killed.status.code(), None, "{}", text(&killed.stderr));
    go_on("killed");
    assert!(tensors_and_lines(dir.path(), "killed") == expected);
}

/// From sm_90 on kernels are launched while those before them still run, where the driver can do that. The bits are the same.
#[test]
fn kernels_that_wait_by_themselves_are_launched_early() {
    let Some(mock) = mock() else { return };
    if cfg!(feature = "cust") {
        // Its bindings are older than such edges.
        return;
    }
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("layers.ron"), LAYERS).unwrap();
    let run = |name: &str, settings: &[Setting]| {
        let args = ["train", "layers.ron", "--offline", "--data", "embedded", "--device", "cuda", "--name", name];
        let settings = [settings, &[("GCC_GAN_MOCK_GRAPHS", "1")]].concat();
        let (_, err) = succeed(mock, dir.path(), &[&args[..], &["--steps", STEPS]].concat(), &settings);
        let edges = |kind: &str| {
            let count = |line: &str| -> Option<usize> { line.split_once(kind)?.0.rsplit(' ').next()?.parse().ok() };
            err.lines().filter_map(count).sum::<usize>()
        };
        (edges(" full"), edges(" programmatic"), left(dir.path(), name))
    };
    let hopper = ("GCC_GAN_MOCK_ARCHITECTURE", "90");
    let (full, early, expected) = run("hopper", &[hopper]);
    assert!(full == 0 && early > 0, "{full} and {early}");
    assert!(run("random", &[hopper, ("GCC_GAN_MOCK_ORDER", "random:5")]).2 == expected);
    let (other, none, left) = run("old-driver", &[hopper, ("GCC_GAN_MOCK_FAULT", "no_programmatic")]);
    assert!((other, none) == (early, 0) && left == expected, "{other} and {none}");
    assert_eq!(run("older", NO_FAULT).1, 0, "sm_80 has no such launches");
}

#[test]
fn a_loss_that_diverges_in_the_middle_of_steps_ends_the_run_as_in_single_ones() {
    let Some(mock) = mock() else { return };
    let dir = TempDir::new().unwrap();
    let square = r#"Let("y", Call("judged", "real", Training)), Let("loss", Mean(Mul("y", "y"))),"#;
    let saturating = r#"Let("loss", Mean(Softplus(Call("judged", "real", Training)))),"#;
    let text = one_layer().replace(saturating, square).replace("Adam(lr: 0.001)", "Sgd(lr: 30.0)");
    fs::write(dir.path().join("diverges.ron"), text).unwrap();
    let args = ["train", "diverges.ron", "--offline", "--data", "embedded", "--device", "cuda", "--steps", "200"];
    for settings in [&[][..], &[TOO_LITTLE]] {
        // A machine that is busy shows something before step 50, and sees it then.
        let err = fail(mock, dir.path(), &args, settings);
        assert!(err.contains("`judged` became infinite or NaN between steps 1 and "), "{err}");
        assert!(err.contains("loss NaN") && err.contains("of step 0."), "{err}");
    }
}

#[test]
fn warpgroups_of_sm_90_train_as_warps_do() {
    let Some(mock) = mock() else { return };
    let dir = TempDir::new().unwrap();
    // The gradient of its second layer's input is a product of operands that both lie along its depth.
    let program = LAYERS.replace("Dense(1)]", "Dense(16), LeakyRelu(0.2), Dense(1)]");
    let run =
        |name: &str, more: &[&str], settings: &[Setting]| run_of(&program, mock, dir.path(), name, more, settings);
    let tf32 = ["--device", "cuda", "--precision", "tf32"];
    let hopper = ("GCC_GAN_MOCK_ARCHITECTURE", "90");
    let cpu = run("cpu", &[], NO_FAULT);
    let by_warps = run("warps", &tf32, NO_FAULT);
    let found = run("warpgroups", &tf32, &[hopper]);
    assert_near(&found, &cpu, 5e-3);
    assert_near(&found, &by_warps, 5e-3);
    assert!(run("again", &tf32, &[hopper, ("GCC_GAN_MOCK_ORDER", "random:3")]) == found);

    let args = |device, more: &[&'static str]| {
        [&["compile", "layers.ron", "--precision", "tf32", "--device", device], more].concat()
    };
    let is_by_warpgroups = |device| {
        let (text, _) = succeed(mock, dir.path(), &args(device, &["--emit", "cuda"]), NO_FAULT);
        text.contains("product_warpgroups<train_step")
    };
    assert!(is_by_warpgroups("cuda:sm_90") && is_by_warpgroups("cuda:sm_90a"));
    assert!(!is_by_warpgroups("cuda:sm_89") && !is_by_warpgroups("cuda:sm_100"));
    // Such a plan is for no other GPU; without warpgroups it is for newer ones too.
    succeed(mock, dir.path(), &args("cuda:sm_90a", &["-o", "hopper.plan"]), NO_FAULT);
    let train = ["train", "hopper.plan", "--offline", "--data", "embedded", "--steps", "1", "--device", "cuda"];
    let (out, err) = succeed(mock, dir.path(), &train, NO_FAULT);
    assert!((out + &err).contains("sm_80"));
}

/// Times mean nothing here, so any choice may win; whatever wins computes the same, and is the plan's for good.
#[test]
fn a_tuned_plan_trains_as_before_and_is_resumed_with_its_own_choices() {
    let Some(mock) = mock() else { return };
    let dir = TempDir::new().unwrap();
    let untuned = layers(mock, dir.path(), "untuned", &["--device", "cuda"], NO_FAULT);
    let tune =
        ["tune", "layers.ron", "--candidates", "2", "--steps", "1", "--rounds", "1", "-o", "tuned.plan", "--json"];
    // On the first GPU, where none is named.
    let (out, _) = succeed(mock, dir.path(), &tune, NO_FAULT);
    let figures: serde_json::Value = serde_json::from_str(&out).unwrap();
    let kernels = figures["kernels"].as_array().unwrap();
    assert!(
        !kernels.is_empty() && kernels.iter().all(|k| k["measured"] == 2 && k["refused"] == serde_json::json!([])),
        "{out}"
    );
    // Another machine needs nothing but the driver for it.
    assert_eq!(figures["device_code"]["runs_on"], serde_json::json!(["sm_80", "PTX for sm_80 and newer"]), "{out}");
    let empty = dir.path().join("cache").to_string_lossy().into_owned();
    let there = [("GCC_GAN_NVRTC", "/nowhere"), ("XDG_CACHE_HOME", empty.as_str())];
    let train = ["train", "tuned.plan", "--offline", "--data", "embedded", "--device", "cuda"];
    let trusted = ["--steps", STEPS, "--name", "trusted", "--trust-device-code"];
    succeed(mock, dir.path(), &[&train[..], &trusted].concat(), &there);
    let err = fail(mock, dir.path(), &[&tune[..], &["--device", "cuda", "--device-code", "always"]].concat(), &there);
    assert!(err.contains("there is no libnvrtc.so.* there"), "{err}");
    let steps = |run, steps| [&train[..], &["--steps", steps, "--name", run]].concat();
    succeed(mock, dir.path(), &steps("whole", STEPS), NO_FAULT);
    let whole = left(dir.path(), "whole");
    assert_near(&whole, &untuned, 1e-5);
    assert!(left(dir.path(), "trusted") == whole);
    succeed(mock, dir.path(), &steps("parts", "2"), NO_FAULT);
    succeed(mock, dir.path(), &resume("runs/parts", &["--device", "cuda"]), NO_FAULT);
    assert!(left(dir.path(), "parts") == whole);
    // Where the plan is read again, its choices are those that were measured.
    let changed: Vec<&str> =
        kernels.iter().filter(|k| k["before"] != k["after"]).filter_map(|k| k["after"].as_str()).collect();
    let (text, _) = succeed(
        mock,
        dir.path(),
        &["compile", "tuned.plan", "--device", "cuda", "--emit", "text", "--stage", "kernels"],
        NO_FAULT,
    );
    assert!(changed.iter().all(|algorithm| text.contains(algorithm)), "{changed:?}\n{text}");
    let err = fail(mock, dir.path(), &[&tune[..], &["--device", "cpu"]].concat(), NO_FAULT);
    assert!(err.contains("nothing to tune on the CPU") && err.contains("--device cuda"), "{err}");
}

#[test]
fn a_driver_that_takes_no_cubins_compiles_ptx() {
    let Some(mock) = mock() else { return };
    let dir = TempDir::new().unwrap();
    let expected = layers(mock, dir.path(), "a", &["--device", "cuda"], NO_FAULT);
    assert!(layers(mock, dir.path(), "b", &["--device", "cuda"], &[("GCC_GAN_MOCK_FAULT", "no_cubin")]) == expected);
}

#[test]
fn auto_takes_the_gpu_that_works_and_else_says_why_it_is_the_cpu() {
    let Some(mock) = mock() else { return };
    let dir = TempDir::new().unwrap();
    whole(mock);
    let args = train(&["--steps", "1", "--device", "auto"]);
    let (_, err) = succeed(mock, dir.path(), &args, NO_FAULT);
    assert!(err.contains("device: Mock GPU (GPU 0, sm_80)\n"), "{err}");
    let (_, err) = succeed(mock, dir.path(), &args, &[("GCC_GAN_MOCK_FAULT", "no_device")]);
    assert!(err.contains("device: the CPU, since the NVIDIA driver sees no GPU\n"), "{err}");
    let (_, err) = succeed(mock, dir.path(), &args, &[("GCC_GAN_NVRTC", "/nowhere")]);
    assert!(err.contains("device: the CPU, since $GCC_GAN_NVRTC is `/nowhere`"), "{err}");
}

#[test]
fn without_a_driver_or_a_compiler_it_is_said_what_to_install() {
    let Some(mock) = mock() else { return };
    let dir = TempDir::new().unwrap();
    let args = train(&["--steps", "1", "--device", "cuda"]);
    // Nor is there code from the last time.
    let empty = dir.path().join("cache").to_string_lossy().into_owned();
    let err = fail(mock, dir.path(), &args, &[("GCC_GAN_NVRTC", "/nowhere"), ("XDG_CACHE_HOME", &empty)]);
    assert!(err.contains("there is no libnvrtc.so.* there"), "{err}");
    if cfg!(feature = "cust") {
        // Without the driver's functions such a program does not start.
        return;
    }
    // A library without the functions that are called.
    let compiler = compiler().unwrap();
    fs::write(dir.path().join("old.cpp"), "extern \"C\" unsigned cuInit(unsigned) { return 0; }").unwrap();
    let built = Command::new(compiler)
        .args(["-shared", "-fPIC", "old.cpp", "-o", "libcuda.so"])
        .current_dir(dir.path())
        .status()
        .unwrap();
    assert!(built.success());
    let folder = dir.path().to_string_lossy().into_owned();
    let err = fail(mock, dir.path(), &args, &[("LD_LIBRARY_PATH", &folder)]);
    assert!(err.contains("is too old (it has no cuDriverGetVersion)"), "{err}");
    // This process has not seen the mock.
    if matches!(CudaDevice::new(0), Err(Missing::NoDriver)) {
        let err = fail(mock, dir.path(), &args, &[("LD_LIBRARY_PATH", "")]);
        assert!(err.contains("there is no NVIDIA driver here (no libcuda.so.1): install one, or use the CPU"), "{err}");
    }
}

/// The tests of this binary that are for a GPU, but for those with many kernels.
#[test]
fn what_holds_for_a_gpu_holds_here() {
    let Some(mock) = mock() else { return };
    whole(mock);
    let dir = TempDir::new().unwrap();
    let tests = [
        "graphs_and_single_launches_and_repetitions_give_the_same_bits",
        "state_that_is_read_and_written_goes_on_with_the_same_bits",
        "compiling_kernels_is_told_one_by_one",
        "steps_are_those_of_the_interpreter",
        "wrong_tensors_and_wrong_plans_are_refused",
        "ceilings_are_positive_numbers",
        "series_on_kept_examples_give_the_bits_of_single_runs",
        "five_hundred_steps_by_graphs_give_the_bits_of_single_launches",
        "what_is_no_series_is_refused",
        "kernels_alone::in_f32",
        "kernels_alone::products_of_tensor_cores",
        "kernels_alone::products_of_too_few_bits_are_found",
        "kernels_alone::wrong_kernels_are_found_and_no_others",
    ];
    let mut command = on_mock(mock, &std::env::current_exe().unwrap(), dir.path());
    let output = command.env(super::FEW_KERNELS, "1").args(["--exact", "--nocapture"]).args(tests).output().unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    assert!(out.contains(&format!("{} passed", tests.len())) && !out.contains("skipped"), "{out}{err}");
}

/// Without tensor cores, and with warpgroups.
#[test]
fn ceilings_are_those_of_other_gpus_too() {
    let Some(mock) = mock() else { return };
    let dir = TempDir::new().unwrap();
    for capability in ["75", "90"] {
        let mut command = on_mock(mock, &std::env::current_exe().unwrap(), dir.path());
        command.env("GCC_GAN_MOCK_ARCHITECTURE", capability).args([
            "--exact",
            "--nocapture",
            "ceilings_are_positive_numbers",
        ]);
        let output = command.output().unwrap();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success() && out.contains("1 passed") && !out.contains("skipped"), "{out}{err}");
    }
}
