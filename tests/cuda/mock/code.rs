//! Compiled code in plans: where it comes from, which of it is run, and what is said where there is none.

use super::*;

/// Nobody's compiler.
const NO_NVRTC: Setting = ("GCC_GAN_NVRTC", "/nowhere");

/// A folder with the program and a plan of it with code for sm_80 and sm_90, compiled on this machine.
struct Compiled {
    dir: TempDir,
    /// A cache that knows nothing, as on another machine.
    elsewhere: String,
    log: String,
    runs: usize,
}

impl Compiled {
    fn new(mock: &Path) -> Compiled {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("layers.ron"), LAYERS).unwrap();
        let args =
            ["compile", "layers.ron", "--device", "cuda:sm_80,sm_90", "--device-code", "always", "-o", "layers.plan"];
        let (out, _) = succeed(mock, dir.path(), &args, NO_FAULT);
        assert!(out.contains("by NVRTC 12.8: sm_80, sm_90a, PTX for sm_80 and newer"), "{out}");
        let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
        Compiled { elsewhere: path("elsewhere"), log: path("log"), dir, runs: 0 }
    }

    fn there(&self) -> Setting<'_> {
        ("XDG_CACHE_HOME", &self.elsewhere)
    }

    /// A run of the plan: what was compiled and loaded, and what the run left.
    fn run(&mut self, mock: &Path, more: &[&str], settings: &[Setting]) -> (Vec<String>, Left) {
        self.runs += 1;
        let name = format!("run{}", self.runs);
        let _ = fs::remove_file(&self.log);
        let settings = [settings, &[("GCC_GAN_MOCK_LOG", self.log.as_str())]].concat();
        succeed(mock, self.dir.path(), &[&train_plan(&name)[..], more].concat(), &settings);
        let mut lines: Vec<String> = fs::read_to_string(&self.log).unwrap().lines().map(str::to_string).collect();
        lines.sort();
        lines.dedup();
        (lines, left(self.dir.path(), &name))
    }

    /// Standard error of a run of the plan that can't be, and leaves nothing.
    fn fail(&self, mock: &Path, more: &[&str], settings: &[Setting]) -> String {
        let err = fail(mock, self.dir.path(), &[&train_plan("none")[..], more].concat(), settings);
        assert!(!self.dir.path().join("runs/none").exists(), "{err}");
        err
    }
}

fn train_plan(name: &str) -> Vec<&str> {
    let args = ["train", "layers.plan", "--offline", "--data", "embedded", "--steps", STEPS, "--device", "cuda"];
    [&args[..], &["--name", name]].concat()
}

const TRUST: &[&str] = &["--trust-device-code"];

#[test]
fn a_plan_with_code_runs_with_the_driver_alone() {
    let Some(mock) = mock() else { return };
    let mut plan = Compiled::new(mock);
    // Where it was compiled its code is known.
    let (loaded, expected) = plan.run(mock, &[], &[NO_NVRTC]);
    assert_eq!(loaded, ["load cubin 80"]);

    let elsewhere = plan.elsewhere.clone();
    let there = ("XDG_CACHE_HOME", elsewhere.as_str());
    let err = plan.fail(mock, &[], &[NO_NVRTC, there]);
    for part in
        ["(sm_80, sm_90a, PTX for sm_80 and newer)", "not compiled on this machine", "--trust-device-code", "/nowhere"]
    {
        assert!(err.contains(part), "{part}: {err}");
    }
    let (loaded, found) = plan.run(mock, TRUST, &[NO_NVRTC, there]);
    assert_eq!(loaded, ["load cubin 80"]);
    assert!(found == expected);
    // What was trusted is remembered, so a run is resumed from its checkpoint alone.
    let args = ["train", "--offline", "--resume", "runs/run2", "--steps", "5", "--device", "cuda"];
    succeed(mock, plan.dir.path(), &args, &[NO_NVRTC, there]);
}

/// What gathers batches on the device is in the plan too, and is trusted as its kernels are.
#[test]
fn a_plan_with_code_keeps_the_examples_on_the_gpu() {
    let Some(mock) = mock() else { return };
    let mut plan = Compiled::new(mock);
    let elsewhere = plan.elsewhere.clone();
    let there = ("XDG_CACHE_HOME", elsewhere.as_str());
    // Nothing is compiled, though it could be.
    assert_eq!(plan.run(mock, TRUST, &[there]).0, ["load cubin 80"]);
    let settings = [NO_NVRTC, there, ("GCC_GAN_LOG", "debug")];
    let kept = "10000 examples are kept on the device";
    let (_, err) = succeed(mock, plan.dir.path(), &[&train_plan("trusted")[..], TRUST].concat(), &settings);
    assert!(err.contains(kept), "{err}");
    // From the cache, where it is kept once it was trusted.
    let args = ["train", "--offline", "--resume", "runs/trusted", "--steps", "5", "--device", "cuda"];
    let (_, err) = succeed(mock, plan.dir.path(), &args, &settings);
    assert!(err.contains(kept), "{err}");
    // Where it is not trusted that is said once.
    let settings = [("XDG_CACHE_HOME", format!("{elsewhere}2")), ("GCC_GAN_LOG", "debug".to_string())];
    let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
    let (_, err) = succeed(mock, plan.dir.path(), &train_plan("again"), &settings);
    assert!(err.contains(kept) && err.matches("not compiled on this machine").count() == 1, "{err}");
}

/// The last batch of an epoch has kernels of its own.
#[test]
fn where_the_last_batch_has_no_code_nothing_is_left_behind() {
    let Some(mock) = mock() else { return };
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("layers.ron"), one_layer()).unwrap();
    // Of 10,000 digits 1 is left.
    let compile = ["compile", "layers.ron", "--set", "batch=3", "--device", "cuda:sm_80", "-o", "layers.plan"];
    let cache = dir.path().join("cache").to_string_lossy().into_owned();
    let settings = [NO_NVRTC, ("XDG_CACHE_HOME", cache.as_str()), ("GCC_GAN_LOG", "debug")];
    succeed(mock, dir.path(), &compile, NO_FAULT);
    let train = [&train_plan("run")[..], TRUST].concat();
    let err = fail(mock, dir.path(), &train, &settings);
    assert!(err.contains("`gcc-gan compile --specialise N`"), "{err}");
    assert!(!dir.path().join("runs").exists());
    succeed(mock, dir.path(), &[&compile[..], &["--specialise", "1"]].concat(), NO_FAULT);
    let (_, err) = succeed(mock, dir.path(), &train, &settings);
    assert!(err.contains("10000 examples are kept on the device"), "{err}");
    let err = fail(mock, dir.path(), &train, &settings);
    assert!(err.contains("the run runs/run exists already"), "{err}");
    // Nor is anything where memory ends while the plan is loaded.
    let full = [&settings[..], &[("GCC_GAN_MOCK_FAULT", "out_of_memory")]].concat();
    fail(mock, dir.path(), &[&train[..], &["--out", "others"]].concat(), &full);
    assert!(!dir.path().join("others").exists());
}

#[test]
fn the_best_code_for_the_gpu_is_loaded() {
    let Some(mock) = mock() else { return };
    let mut plan = Compiled::new(mock);
    let elsewhere = plan.elsewhere.clone();
    for (capability, expected) in [("86", "load cubin 80"), ("90", "load cubin 90"), ("100", "load PTX 80")] {
        let cache = format!("{elsewhere}{capability}");
        let settings = [NO_NVRTC, ("XDG_CACHE_HOME", cache.as_str()), ("GCC_GAN_MOCK_ARCHITECTURE", capability)];
        assert_eq!(plan.run(mock, TRUST, &settings).0, [expected], "sm_{capability}");
    }
    // A driver that takes none of the cubins.
    let cache = format!("{elsewhere}-no-cubin");
    let settings = [NO_NVRTC, ("XDG_CACHE_HOME", cache.as_str()), ("GCC_GAN_MOCK_FAULT", "no_cubin")];
    assert_eq!(plan.run(mock, TRUST, &settings).0, ["load PTX 80"]);
    // An older GPU has none.
    let err = plan.fail(mock, &[], &[NO_NVRTC, plan.there(), ("GCC_GAN_MOCK_ARCHITECTURE", "75")]);
    assert!(err.contains("--device cuda:sm_75 -o FILE") && err.contains("/nowhere"), "{err}");
}

#[test]
fn code_of_another_machine_is_compiled_again() {
    let Some(mock) = mock() else { return };
    let mut plan = Compiled::new(mock);
    let elsewhere = plan.elsewhere.clone();
    let (loaded, _) = plan.run(mock, &[], &[("XDG_CACHE_HOME", &elsewhere)]);
    assert_eq!(loaded, ["compile 80", "load cubin 80"]);
    let err =
        gcc_gan(mock, plan.dir.path(), &train_plan("again"), &[("XDG_CACHE_HOME", &format!("{elsewhere}2"))]).stderr;
    assert!(text(&err).contains("not compiled on this machine: its kernels are compiled again"), "{}", text(&err));
}

#[test]
fn code_that_is_damaged_or_not_there_is_told() {
    let Some(mock) = mock() else { return };
    let plan = Compiled::new(mock);
    let file = plan.dir.path().join("layers.plan");
    let whole = fs::read(&file).unwrap();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for damaged in [&flipped, &whole[..whole.len() - 1]] {
        fs::write(&file, damaged).unwrap();
        let err = plan.fail(mock, TRUST, NO_FAULT);
        assert!(
            err.contains("layers.plan is damaged (of its device code: ") && err.contains("compile it again"),
            "{err}"
        );
    }
    // Without a compiler the plan is the same but for its code.
    let compile = |more: &[&str], settings: &[Setting]| {
        let args = [&["compile", "layers.ron", "--device", "cuda:sm_80", "-o", "layers.plan"], more].concat();
        succeed(mock, plan.dir.path(), &args, settings).0
    };
    let out = compile(&[], &[NO_NVRTC]);
    assert!(out.contains("device code    none: $GCC_GAN_NVRTC is `/nowhere`"), "{out}");
    let without = fs::read(&file).unwrap();
    assert!(!compile(&["--device-code", "never"], NO_FAULT).contains("device code"));
    assert!(fs::read(&file).unwrap() == without && whole.starts_with(&without));
    let err = plan.fail(mock, TRUST, NO_FAULT);
    assert!(err.contains("--trust-device-code: there is no device code here"), "{err}");
    let newer = ["compile", "layers.ron", "--device", "cuda:sm_90", "-o", "newer.plan"];
    succeed(mock, plan.dir.path(), &newer, NO_FAULT);
    let err = plan.fail(mock, &["--trust-device-code=newer.plan"], NO_FAULT);
    assert!(err.contains("newer.plan has code for sm_90a, which this GPU of sm_80 does not run"), "{err}");

    let always = ["compile", "layers.ron", "--device-code", "always", "-o", "none.plan", "--device"];
    let refused =
        |device: &str, settings: &[Setting]| fail(mock, plan.dir.path(), &[&always[..], &[device]].concat(), settings);
    assert!(refused("cuda:sm_80", &[NO_NVRTC]).contains("there is no libnvrtc.so.* there"));
    assert!(
        refused("cuda:sm_80,sm_130", NO_FAULT).contains("does not compile for sm_130 (it knows sm_75, sm_80, sm_90)")
    );
    assert!(refused("cuda:sm_130", NO_FAULT).starts_with("warning: sm_130 is newer than all that is known here"));
    assert!(refused("cpu", NO_FAULT).contains("--device-code always is for GPUs"));
    assert!(!plan.dir.path().join("none.plan").exists());
    let older = gcc_gan(mock, plan.dir.path(), &["compile", "layers.ron", "--device", "cuda:sm_90,sm_80"], NO_FAULT);
    assert!(text(&older.stderr).contains("sm_80 can't run those of sm_90: name the oldest first"));
    let cpu = fail(mock, plan.dir.path(), &train(&["--trust-device-code"]), NO_FAULT);
    assert!(cpu.contains("--trust-device-code is for GPUs"), "{cpu}");
}

#[test]
fn ptx_and_instructions_are_shown_kernel_by_kernel() {
    let Some(mock) = mock() else { return };
    let plan = Compiled::new(mock);
    let dir = plan.dir.path();
    let emit = |what| ["compile", "layers.ron", "--device", "cuda:sm_80", "--entry", "train_step", "--emit", what];
    let (ptx, _) = succeed(mock, dir, &emit("ptx"), NO_FAULT);
    let (json, _) = succeed(mock, dir, &["compile", "layers.ron", "--device", "cuda:sm_80", "--json"], NO_FAULT);
    let figures: serde_json::Value = serde_json::from_str(&json).unwrap();
    let entry = figures["entries"].as_array().unwrap().iter().find(|e| e["name"] == "train_step").unwrap();
    let kernels = entry["kernels"].as_u64().unwrap() as usize;
    assert!(ptx.starts_with("// --- train_step [0] ") && ptx.contains("\n.target sm_80\n"), "{ptx}");
    assert_eq!(ptx.matches("// --- train_step [").count(), kernels);
    assert_eq!(figures["device_code"]["runs_on"], serde_json::json!(["sm_80", "PTX for sm_80 and newer"]));

    let path = |folder: &Path| format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
    let program = dir.join("bin/nvdisasm");
    fs::create_dir(dir.join("bin")).unwrap();
    fs::write(&program, "#!/bin/sh\necho \"sass of $(head -c 4 \"$2\" | tail -c 3)\"\n").unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let (sass, _) = succeed(mock, dir, &emit("sass"), &[("PATH", &path(&dir.join("bin")))]);
    assert_eq!(sass.matches("\nsass of ELF\n").count(), kernels, "{sass}");
    fs::write(&program, "#!/bin/sh\necho it is so >&2; exit 1\n").unwrap();
    let err = fail(mock, dir, &emit("sass"), &[("PATH", &path(&dir.join("bin")))]);
    assert!(err.contains("nvdisasm does not understand what NVRTC made: it is so"), "{err}");
    let err = fail(mock, dir, &["compile", "layers.ron", "--emit", "ptx", "--entry", "none"], NO_FAULT);
    assert!(err.contains("there is no entry `none`"), "{err}");
}

/// On the GPU on which it began, a run of a plan for an older one goes on with that plan's kernels, and so with its bits and its code.
#[test]
fn a_run_of_a_plan_for_an_older_gpu_is_resumed_with_its_kernels() {
    let Some(mock) = mock() else { return };
    let mut plan = Compiled::new(mock);
    let hopper = ("GCC_GAN_MOCK_ARCHITECTURE", "90");
    let (loaded, expected) = plan.run(mock, &[], &[NO_NVRTC, hopper]);
    assert_eq!(loaded, ["load cubin 90"]);
    let train = ["train", "layers.plan", "--offline", "--data", "embedded", "--device", "cuda", "--name", "parts"];
    succeed(mock, plan.dir.path(), &[&train[..], &["--steps", "2"]].concat(), &[NO_NVRTC, hopper]);
    succeed(mock, plan.dir.path(), &resume("runs/parts", &["--device", "cuda"]), &[NO_NVRTC, hopper]);
    assert!(left(plan.dir.path(), "parts") == expected);
}
