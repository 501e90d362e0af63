//! The script for a machine with a GPU, gpu.sh: that it runs, and that its table says what failed and what was not proved.

use super::*;

/// The script's exit status and all that it said, with its results in the folder `gpu`.
fn script(mock: &Path, dir: &Path, args: &[&str], settings: &[Setting]) -> (i32, String) {
    let mut command = on_mock(mock, Path::new("bash"), dir);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cuda/gpu.sh")).args(["--out", "gpu"]).args(args);
    command.env("GCC_GAN", env!("CARGO_BIN_EXE_gcc-gan")).env("GCC_GAN_TESTS", std::env::current_exe().unwrap());
    let output = command.env("GCC_GAN_GPU_QUICK", "1").envs(settings.iter().copied()).output().unwrap();
    (output.status.code().unwrap(), text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn the_table_says_what_failed_and_what_was_not_proved() {
    let Some(mock) = mock() else { return };
    if cfg!(feature = "cust") || [("bash", "-c"), ("python3", "-V")].iter().any(|(name, arg)| !starts(name, arg)) {
        println!("not run: with the other driver, or here, where there is bash and Python");
        return;
    }
    whole(mock);
    let dir = TempDir::new().unwrap();
    let run = |args: &[&str], settings: &[Setting]| script(mock, dir.path(), args, settings);

    let (status, said) = run(&["numbers"], &[("GCC_GAN_MOCK_FAULT", "no_device")]);
    assert!(status == 2 && said.contains("nothing here can be checked"), "{status}: {said}");

    let (status, said) = run(&["numbers", "bits", "times"], NO_FAULT);
    assert!(status == 3 && said.contains(" 0 failed, 0 skipped"), "{status}: {said}");
    for part in [
        "2 of 2 tests passed",
        "each kernel by itself, bf16                                ok",
        "\n  bf16  train_step: 83 of the 83 buffers that ",
        "bf16, two at once: the second has the same bits            ok",
        "f32, resumed: the same bits                                ok",
        "\nnumbers, losses of 4 steps\nloss_d, mean of steps",
        "\n  gcc-gan train, f32: median ",
        "\n5 parts skipped or not complete: not proved (memcheck, racecheck, initcheck, synccheck, torch)",
    ] {
        assert!(said.contains(part), "no `{part}`: {said}");
    }

    // Another part's results stay.
    let (status, said) = run(&["--seconds", "1", "times"], NO_FAULT);
    assert!(status == 3 && said.contains("skipped: no time was left") && said.contains("\nbits\n"), "{status}: {said}");
    let (status, said) = run(&["--pack", "packed", "bits"], &[("GCC_GAN_MOCK_FAULT", "out_of_memory")]);
    assert!(status == 1 && said.contains("\nfailed: bits: f32, again, see ") && said.contains("\nnumbers\n"), "{said}");
    assert!(!said.contains("all passed"), "{said}");
    for file in ["table.txt", "results.tsv", "logs.tar.gz"] {
        assert!(dir.path().join("packed").join(file).is_file(), "{file}");
    }
}

fn starts(program: &str, argument: &str) -> bool {
    Command::new(program).args([argument, ""]).output().is_ok_and(|output| output.status.success())
}
