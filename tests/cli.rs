//! The command line as a user types it.

mod common;

use common::{fail, gcc_gan, run, succeed, text, train};
use safetensors::SafeTensors;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

fn line_of(line: &str) -> serde_json::Value {
    serde_json::from_str(line).unwrap()
}

/// The tensors of a GAN's checkpoint as they are in the file.
fn tensors(file: &Path) -> Vec<(String, Vec<u8>)> {
    let tensors = tensors_of(file);
    assert!(tensors.len() > 20);
    tensors
}

fn tensors_of(file: &Path) -> Vec<(String, Vec<u8>)> {
    let bytes = fs::read(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Vec<_> = file.iter().map(|(n, t)| (n.to_string(), t.data().to_vec())).collect();
    tensors.sort();
    tensors
}

#[test]
fn training_leaves_a_run_behind() {
    let dir = TempDir::new().unwrap();
    let out = succeed(dir.path(), &train(&["--steps", "4", "--sample-every", "2", "--name", "first"]));
    assert!(out.contains("data: 10,000 built-in MNIST digits\n"), "{out}");
    assert!(out.lines().last().unwrap().starts_with("4 steps complete"), "{out}");
    let at = |path: &str| dir.path().join("runs/first").join(path);
    for step in [0, 2, 4] {
        let image = image::open(at(&format!("samples/step-{step:08}.png"))).unwrap();
        assert_eq!((image.width(), image.height()), (182, 182), "6x6 images of 28 pixels, 2 apart");
    }
    let metrics = fs::read_to_string(at("metrics.jsonl")).unwrap();
    let last: serde_json::Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
    assert_eq!(last["step"], 4);
    assert!(last["loss_d"].as_f64().unwrap() > 0.0 && last["loss_g"].as_f64().unwrap() > 0.0, "{last}");
    let diversity: Vec<f64> = metrics.lines().map(|line| line_of(line)["diversity"].as_f64().unwrap()).collect();
    assert!(diversity.len() == 2 && diversity.iter().all(|d| *d > 0.0 && *d < 0.5), "{diversity:?}");
    tensors(&at("checkpoint.safetensors"));
    // The same name again is refused, and nothing is lost.
    let err = fail(dir.path(), 1, &train(&["--steps", "4", "--name", "first"]));
    assert!(err.contains("first"), "{err}");

    succeed(dir.path(), &["sample", "--checkpoint", "runs/first", "--grid", "2x3", "-o", "s.png"]);
    let image = image::open(dir.path().join("s.png")).unwrap();
    assert_eq!((image.width(), image.height()), (92, 62));
    succeed(dir.path(), &["sample", "--checkpoint", "runs/first", "--grid", "2x3", "--seed", "1", "-o", "t.png"]);
    assert_ne!(fs::read(dir.path().join("s.png")).unwrap(), fs::read(dir.path().join("t.png")).unwrap());
}

#[test]
fn how_often_is_logged_is_chosen() {
    let dir = TempDir::new().unwrap();
    let out = succeed(dir.path(), &train(&["--steps", "5", "--log-every", "2", "--name", "a"]));
    let metrics = fs::read_to_string(dir.path().join("runs/a/metrics.jsonl")).unwrap();
    let steps: Vec<_> = metrics.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()).collect();
    assert_eq!(steps.iter().map(|line| line["step"].as_u64().unwrap()).collect::<Vec<_>>(), [2, 4, 5]);
    for step in ["step      2  ", "step      4  ", "step      5  "] {
        assert!(out.contains(step), "{out}");
    }
    let names = fs::read_dir(dir.path().join("runs/a")).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.filter(|name| name.to_str().unwrap().starts_with("events.out.tfevents.")).count(), 1);
    let err = fail(dir.path(), 2, &train(&["--log-every", "0"]));
    assert!(err.contains("--log-every"), "{err}");
}

#[test]
fn resuming_goes_on_bit_by_bit() {
    let dir = TempDir::new().unwrap();
    succeed(dir.path(), &train(&["--steps", "6", "--name", "whole", "--threads", "1"]));
    succeed(dir.path(), &train(&["--steps", "3", "--name", "parts"]));
    succeed(dir.path(), &["train", "--offline", "--resume", "runs/parts", "--steps", "6"]);
    let of = |run: &str| tensors(&dir.path().join("runs").join(run).join("checkpoint.safetensors"));
    assert!(of("whole") == of("parts"));
    succeed(dir.path(), &train(&["--steps", "6", "--name", "other", "--seed", "1"]));
    assert!(of("whole") != of("other"), "another seed gives other bits");
}

/// The epoch's last, smaller batch is trained on too: 10,000 = 1 · 9,996 + 4.
#[test]
fn the_last_smaller_batch_is_trained_on() {
    let dir = TempDir::new().unwrap();
    let sets = ["--set", "batch=9996", "--set", "noise_batch=2", "--data", "embedded"];
    let program = dir.path().join("tiny.ron");
    fs::write(&program, TINY_GAN).unwrap();
    let out = succeed(dir.path(), &[&["train", "tiny.ron", "--offline", "--epochs", "1"][..], &sets].concat());
    assert!(out.contains("2 steps an epoch") && out.contains("end of epoch"), "{out}");
}

const TINY_GAN: &str = r#"Program(
    name: "tiny",
    sizes: { "batch": 64, "noise_batch": "batch" },
    networks: {
        "_made": Network(input: [2], layers: [Dense(784), Reshape([1, 28, 28])]),
        "judged": Network(input: [1, 28, 28], layers: [Flatten(), Dense(1)]),
    },
    entries: {
        "train_step": Entry(
            inputs: { "real": Images(["batch", 1, 28, 28]) },
            steps: [
                Let("fake", Call("_made", Normal(["noise_batch", 2]), Training)),
                Let("loss", Sub(Mean(Call("judged", "fake", Training)), Mean(Call("judged", "real", Training)))),
                Minimise("loss", "judged", Sgd(lr: 0.001)),
            ],
            outputs: ["loss"],
        ),
    },
)"#;

#[cfg(unix)]
fn signal(id: u32, signal: &str) {
    let status = Command::new("kill").args([signal, &id.to_string()]).status().unwrap();
    assert!(status.success());
}

/// Starts training and waits until it is under way.
#[cfg(unix)]
fn started(dir: &Path, args: &[&str]) -> (std::process::Child, BufReader<std::process::ChildStdout>) {
    let mut child = gcc_gan(dir, args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("run: ") {
        line.clear();
        assert_ne!(out.read_line(&mut line).unwrap(), 0, "training ended before it began");
    }
    let samples = dir.join("runs").join(line["run: ".len()..].trim().rsplit('/').next().unwrap()).join("samples");
    while fs::read_dir(&samples).map_or(0, Iterator::count) < 2 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    (child, out)
}

#[cfg(unix)]
#[test]
fn an_interrupt_saves_and_says_how_to_resume() {
    let dir = TempDir::new().unwrap();
    let args = train(&["--steps", "100000", "--sample-every", "1", "--name", "r"]);
    let (mut child, mut out) = started(dir.path(), &args);
    signal(child.id(), "-INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut out, &mut rest).unwrap();
    assert!(rest.contains("resume with: gcc-gan train --resume runs/r"), "{rest}");
    let metrics = fs::read_to_string(dir.path().join("runs/r/metrics.jsonl")).unwrap_or_default();
    let out = succeed(dir.path(), &["train", "--offline", "--resume", "--steps", "1"]);
    assert!(out.contains("nothing to do"), "{out}\n{metrics}");
}

/// 28×28 images, all of one grey, as a file.
fn put_images(dir: &Path, name: &str, count: u8) {
    let mut bytes = vec![0, 0, 8, 3, 0, 0, 0, count, 0, 0, 0, 28, 0, 0, 0, 28];
    bytes.resize(16 + usize::from(count) * 784, 9);
    fs::write(dir.join(name), bytes).unwrap();
}

#[test]
fn built_in_programs_are_listed() {
    let dir = TempDir::new().unwrap();
    let listed = succeed(dir.path(), &["graphs"]);
    let names = gcc_gan::declare::builtin::NAMES;
    assert_eq!(listed.lines().count(), 1 + names.len(), "{listed}");
    assert!(names.iter().all(|name| listed.contains(&format!("\n{name} "))), "{listed}");
    let json: serde_json::Value = serde_json::from_str(&succeed(dir.path(), &["graphs", "--json"])).unwrap();
    let cgan = json.as_array().unwrap().iter().find(|program| program["name"] == "cgan").unwrap();
    assert_eq!(cgan["data"], serde_json::json!(["28x28 grey", "10 classes"]));
}

/// By class where a program takes labels, and with averaged weights where it keeps them.
#[test]
fn samples_are_chosen() {
    let dir = TempDir::new().unwrap();
    let data = ["--data", "embedded", "--offline", "--steps", "2", "--set", "batch=8", "--set", "features=2"];
    for program in ["cgan", "dcgan-paper"] {
        succeed(dir.path(), &[&["train", program][..], &data[..]].concat());
    }
    let sample = |run_of: &str, more: &[&str]| {
        let checkpoint = format!("runs/{run_of}-001");
        let args = ["sample", "--checkpoint", &checkpoint, "--grid", "2x3", "-o", "a.png"];
        let output = run(dir.path(), &[&args[..], more].concat());
        (output.status.code(), text(&output.stderr), fs::read(dir.path().join("a.png")).unwrap_or_default())
    };
    let (rows, sevens) = (sample("cgan", &[]), sample("cgan", &["--label", "7"]));
    assert!(rows.0 == Some(0) && sevens.0 == Some(0) && rows.2 != sevens.2, "{}{}", rows.1, sevens.1);
    let (plain, averaged) = (sample("dcgan-paper", &[]), sample("dcgan-paper", &["--ema"]));
    assert!(plain.0 == Some(0) && averaged.0 == Some(0) && plain.2 != averaged.2, "{}{}", plain.1, averaged.1);
    for (run_of, more, told) in [
        ("cgan", &["--label", "10"][..], "has no class 10: labels are from 0 to 9"),
        ("dcgan-paper", &["--label", "1"], "takes no labels, so none can be chosen"),
        ("cgan", &["--ema"], "keeps no moving average of a network"),
    ] {
        let (code, error, _) = sample(run_of, more);
        assert!(code == Some(1) && error.contains(told), "{error}");
    }
}

/// Arrays of numpy and CIFAR-10's files, which a program of another size takes fitted.
#[test]
fn arrays_and_cifar_10_are_trained_on() {
    let dir = TempDir::new().unwrap();
    let header = "{'descr': '|u1', 'fortran_order': False, 'shape': (12, 28, 28, 3), }\n";
    let start = [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes()].concat();
    let pixels: Vec<u8> = (0..12 * 28 * 28 * 3).map(|i| (i % 251) as u8).collect();
    fs::write(dir.path().join("images.npy"), [start, pixels].concat()).unwrap();
    let records: Vec<u8> = (0..20 * 3073).map(|i| if i % 3073 == 0 { (i / 3073 % 10) as u8 } else { 90 }).collect();
    fs::create_dir(dir.path().join("cifar")).unwrap();
    fs::write(dir.path().join("cifar/data_batch_1.bin"), records).unwrap();
    let out = succeed(dir.path(), &["data", "show", "images.npy"]);
    assert!(out.contains("28×28 pixels, RGB"), "{out}");
    let out = succeed(dir.path(), &["data", "show", "cifar"]);
    assert!(out.contains("32×32 pixels, RGB") && out.contains("9: 2"), "{out}");
    for (program, data) in [("mlp-gan", "images.npy"), ("cgan", "cifar")] {
        let out =
            succeed(dir.path(), &["train", program, "--data", data, "--offline", "--steps", "1", "--set", "batch=8"]);
        assert!(out.contains("note: ") && out.contains("grey"), "{out}");
    }
    fs::write(dir.path().join("cifar/data_batch_1.bin"), [1; 100]).unwrap();
    let error = fail(dir.path(), 1, &["train", "cgan", "--data", "cifar", "--offline"]);
    assert!(error.contains("data_batch_1.bin has 100 bytes"), "{error}");
    fs::write(dir.path().join("images.npy"), b"\x93NUMPY\x01").unwrap();
    let error = fail(dir.path(), 1, &["train", "--data", "images.npy", "--offline"]);
    assert!(error.contains("images.npy: ") && error.contains("numpy.save"), "{error}");
}

/// Of any type, order and rank; what is something else is called by its name.
#[test]
fn arrays_of_every_kind_are_data() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    let doubles: Vec<u8> = (0..2 * 784).flat_map(|i| (f64::from(i % 7) / 6.0).to_le_bytes()).collect();
    fs::write(at("d.npy"), npy("<f8", "True", "(2, 28, 28)", &doubles)).unwrap();
    let out = succeed(dir.path(), &["data", "show", "d.npy"]);
    assert!(out.contains("28×28 pixels, grey") && out.contains("are read as from 0 to 1"), "{out}");
    let idx = |code: u8, dims: &[u32], data: &[u8]| {
        let dims: Vec<u8> = dims.iter().flat_map(|d| d.to_be_bytes()).collect();
        [&[0, 0, code, (dims.len() / 4) as u8], &dims[..], data].concat()
    };
    fs::write(at("rows"), idx(0x0b, &[16, 784], &[0, 7].repeat(16 * 784))).unwrap();
    assert!(succeed(dir.path(), &["data", "show", "rows"]).contains("28×28 pixels, grey"));
    succeed(dir.path(), &["train", "mlp-gan", "--data", "rows", "--offline", "--steps", "1", "--set", "batch=8"]);
    fs::write(at("five"), idx(8, &[2, 1, 9, 8, 3], &[0; 2 * 9 * 8 * 3])).unwrap();
    assert!(succeed(dir.path(), &["data", "show", "five"]).contains("9×8 pixels, RGB"));
    image::GrayImage::new(4, 4).save(at("one.png")).unwrap();
    fs::write(at("a.npz"), b"PK\x03\x04 and so on").unwrap();
    for (data, told) in [
        ("one.png", "one.png is one picture: give the folder that holds the pictures, as in --data ."),
        ("a.npz", "a.npz is a ZIP archive, of NumPy arrays: unpack it"),
    ] {
        for args in [&["data", "show", data][..], &["train", "--data", data, "--offline"]] {
            let err = fail(dir.path(), 1, args);
            assert!(err.contains(told), "{err}");
        }
    }
}

/// What keeps a folder of pictures from being of use is named.
#[test]
fn folders_of_no_use_say_why() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    for folder in ["broken", "photos/a", "photos/b"] {
        fs::create_dir_all(at(folder)).unwrap();
    }
    fs::write(at("broken/x.png"), "no picture").unwrap();
    let err = fail(dir.path(), 1, &["data", "show", "broken"]);
    assert!(err.contains("has no picture that can be used: 1 of 1 files cannot be used: x.png ("), "{err}");
    for name in ["photos/a/1.png", "photos/b/2.png", "photos/stray.png"] {
        image::GrayImage::new(28, 28).save(at(name)).unwrap();
    }
    let told = "stray.png lies beside sub-folders, so these are not taken for classes: move it into one, or away";
    assert!(succeed(dir.path(), &["data", "show", "photos"]).contains(told));
    // Three pictures are fewer than a batch of 64, which is not what is wrong here.
    let err = fail(dir.path(), 1, &["train", "cgan", "--data", "photos", "--offline"]);
    assert!(err.contains(&format!("it has no labels, which `labels` takes ({told})")), "{err}");
}

/// Between seeds, larger, of the data and over the training: in each format, and never of what a program has not.
#[test]
fn pictures_are_made_of_a_run() {
    let dir = TempDir::new().unwrap();
    for program in ["vae", "cgan"] {
        let set = if program == "vae" { "hidden=8" } else { "features=2" };
        let args = ["train", program, "--data", "embedded", "--offline", "--steps", "4", "--sample-every", "1"];
        succeed(dir.path(), &[&args[..], &["--set", "batch=8", "--set", set]].concat());
    }
    let at = |name: &str| dir.path().join(name);
    let sample = |more: &[&str], name: &str| {
        let args = ["sample", "--checkpoint", "runs/vae-001", "--grid", "4x5", "-o", name];
        succeed(dir.path(), &[&args[..], more].concat());
        image::open(at(name)).unwrap().into_luma8()
    };
    let plain = sample(&["--seed", "3"], "a.png");
    assert_eq!(plain.dimensions(), (5 * 30 + 2, 4 * 30 + 2));
    let large = sample(&["--seed", "3", "--scale", "3"], "a.webp");
    assert!(plain.enumerate_pixels().all(|(x, y, pixel)| large.get_pixel(3 * x + 1, 3 * y + 2) == pixel));
    // The noise of a row on the way is that of its image, at either end.
    let way = sample(&["--interpolate", "3,4"], "b.png");
    let cell = |picture: &image::GrayImage, row: u32, column: u32| {
        image::imageops::crop_imm(picture, 2 + 30 * column, 2 + 30 * row, 28, 28).to_image()
    };
    assert_eq!(cell(&way, 1, 0), cell(&plain, 0, 1));
    assert_eq!(cell(&way, 1, 4), cell(&sample(&["--seed", "4"], "c.png"), 0, 1));
    assert_ne!(sample(&["--seed", "3", "--truncation", "0.5"], "d.png"), plain);
    let digits = sample(&["--reconstruct", "--data", "embedded", "--offline"], "e.png");
    let lit = |row: u32| cell(&digits, row, 2).pixels().filter(|pixel| pixel.0[0] == 0).count();
    assert!(lit(0) > 400 && lit(1) < 400, "a digit has black around it, a decoder that learned nothing has none");
    let frames = |name: &str| {
        let file = std::io::BufReader::new(fs::File::open(at(name)).unwrap());
        image::AnimationDecoder::into_frames(image::codecs::gif::GifDecoder::new(file).unwrap()).count()
    };
    sample(&["--interpolate", "3,4,5", "--frames", "2", "--fps", "50"], "f.gif");
    assert_eq!(frames("f.gif"), 6);
    succeed(dir.path(), &["animate", "runs/cgan-001", "--scale", "2", "-o", "g.gif"]);
    assert_eq!(frames("g.gif"), 5);
    for (args, told) in [
        (&["sample", "--checkpoint", "runs/vae-001", "--interpolate", "1", "-o", "x.gif"][..], "two seeds or more"),
        (
            &["sample", "--checkpoint", "runs/vae-001", "--interpolate", "1,2", "--fps", "9", "-o", "x.png"],
            "end it in .gif",
        ),
        (
            &["sample", "--checkpoint", "runs/vae-001", "--reconstruct", "--grid", "3x3", "-o", "x.png"],
            "an even number",
        ),
        (&["sample", "--checkpoint", "runs/cgan-001", "--reconstruct", "-o", "x.png"], "has no entry `reconstruct`"),
        (
            &["sample", "runs/vae-001", "-o", "x"],
            "x names no format by its end: .png, .jpg, .gif or .webp was expected",
        ),
        (&["sample", "runs/cgan-001", "--label", "8-10", "-o", "x.png"], "has no class 10: labels are from 0 to 9"),
        (&["sample", "runs/vae-001", "--grid", "1000x1000", "--scale", "2", "-o", "x.png"], "60004×60004 pixels"),
        (&["sample", "runs/vae-001", "--grid", "1000x2", "-o", "x.webp"], "a WebP file can have"),
        (&["animate", "runs/vae-001", "-o", "x.webp"], "x.webp cannot hold a moving picture: end it in .gif"),
        (&["animate", "runs", "-o", "x.gif"], "there is no run in runs: the folder of a run, which holds"),
        (&["animate", "runs", "-o", "x.gif"], "; the latest in it is runs/"),
        (&["animate", "runs/vae-001", "-o", "no/folder/x.gif"], "x.gif cannot be written"),
    ] {
        let error = fail(dir.path(), 1, args);
        assert!(error.contains(told), "{error}");
    }
    let label = |classes: &str| {
        let args = ["sample", "runs/cgan-001", "--grid", "4x2", "--label", classes, "-o", "h.png"];
        succeed(dir.path(), &args);
        fs::read(at("h.png")).unwrap()
    };
    assert_eq!(label("2-4,7"), label("2,3,4,7"));
    for (args, told) in [
        (&["--label", "seven"][..], "a class such as 7, or a range such as 0-9, was expected"),
        (&["--label", "-1"], "a class such as 7, or a range such as 0-9, was expected"),
        (&["--checkpoint", "runs/cgan-001"], "cannot be used with"),
    ] {
        let error = fail(dir.path(), 2, &[&["sample", "runs/cgan-001", "-o", "x.png"][..], args].concat());
        assert!(error.contains(told), "{error}");
    }
    assert!(fail(dir.path(), 2, &["sample", "-o", "x.png"]).contains("RUN"));
    fs::write(at("runs/vae-001/samples/step-00000002.png"), b"not a picture").unwrap();
    let error = fail(dir.path(), 1, &["animate", "runs/vae-001", "-o", "x.gif"]);
    assert!(error.contains("step-00000002.png cannot be read"), "{error}");
    assert!(!at("x.gif").exists());
}

/// A run is resumed as it was begun, to the same end, where no other is named.
#[test]
fn a_run_is_resumed_to_the_end_that_it_was_to_reach() {
    let dir = TempDir::new().unwrap();
    put_images(dir.path(), "images", 40);
    succeed(dir.path(), &["train", "mlp-gan", "--set", "batch=8", "--data", "images", "--steps", "3"]);
    assert!(succeed(dir.path(), &["train", "--resume"]).contains("nothing to do until step 3"));
    let out = succeed(dir.path(), &["train", "--resume", "--epochs", "2"]);
    assert!(out.contains("10 steps complete in "), "{out}");
    assert!(succeed(dir.path(), &["train", "--resume"]).contains("nothing to do until step 10"));
}

/// One epoch of five steps is done; the two that follow have two steps each. What is too little for a batch is refused
/// without advice that would be refused too.
#[test]
fn epochs_count_on_after_a_change_of_data() {
    let dir = TempDir::new().unwrap();
    for (name, count) in [("forty", 40), ("sixteen", 16), ("four", 4)] {
        put_images(dir.path(), name, count);
    }
    succeed(dir.path(), &["train", "mlp-gan", "--set", "batch=8", "--data", "forty", "--epochs", "1"]);
    let resume = |data: &str, epochs: &str| {
        let output = run(dir.path(), &["train", "--resume", "--data", data, "--epochs", epochs]);
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, out, err) = resume("sixteen", "3");
    assert!(code == Some(0) && out.contains("9 steps complete in "), "{out}\n{err}");
    let (code, out, _) = resume("sixteen", "3");
    assert!(code == Some(0) && out.contains("nothing to do until step 9"), "{out}");
    // In the middle of an epoch of other data there is no place to go to: that epoch begins anew.
    succeed(dir.path(), &["train", "--resume", "--steps", "10"]);
    let (code, out, err) = resume("forty", "4");
    assert!(code == Some(0) && out.contains("15 steps complete in "), "{out}\n{err}");
    let (code, _, err) = resume("four", "5");
    assert!(code == Some(1) && err.contains("it has 4 examples, a batch takes 8; a run keeps its sizes"), "{err}");
    assert!(!err.contains("--set"), "{err}");
}

#[cfg(unix)]
#[test]
fn a_kill_loses_nothing_that_was_saved() {
    let dir = TempDir::new().unwrap();
    for round in 0..3 {
        let name = format!("k{round}");
        let args = train(&["--steps", "100000", "--sample-every", "1", "--name", &name]);
        let (mut child, _out) = started(dir.path(), &args);
        std::thread::sleep(std::time::Duration::from_millis(37 * round));
        signal(child.id(), "-KILL");
        child.wait().unwrap();
        let run = format!("runs/{name}");
        tensors(&dir.path().join(&run).join("checkpoint.safetensors"));
        let out = succeed(dir.path(), &["train", "--offline", "--resume", &run, "--steps", "1"]);
        assert!(out.contains("nothing to do") || out.contains("1 step complete"), "{out}");
    }
}

#[test]
fn plans_are_compiled_verified_and_trained() {
    let dir = TempDir::new().unwrap();
    let out = succeed(dir.path(), &["compile", "mlp-gan", "--set", "batch=8", "-o", "a.plan"]);
    assert!(out.contains("arena") && out.contains("wrote a.plan"), "{out}");
    let out = succeed(dir.path(), &["verify", "a.plan"]);
    assert!(out.contains("lower bound"), "{out}");
    succeed(dir.path(), &["train", "a.plan", "--offline", "--data", "embedded", "--steps", "2"]);
    let figures: serde_json::Value =
        serde_json::from_str(&succeed(dir.path(), &["compile", "dcgan", "--json"])).unwrap();
    assert_eq!(figures["parameters"], 4_891_266, "{figures}");

    let plan = fs::read(dir.path().join("a.plan")).unwrap();
    let mut flipped = plan.clone();
    flipped[plan.len() / 2] ^= 4;
    for (name, bytes) in [("flipped", &flipped[..]), ("short", &plan[..plan.len() / 2]), ("empty", &[])] {
        fs::write(dir.path().join(name), bytes).unwrap();
        let err = fail(dir.path(), 1, &["verify", name]);
        assert!(err.contains(name), "{err}");
        fail(dir.path(), 1, &["train", name, "--offline"]);
    }
}

#[test]
fn every_stage_can_be_printed() {
    let dir = TempDir::new().unwrap();
    for format in ["text", "ron", "json", "dot", "svg"] {
        for stage in ["declared", "differentiated", "optimised", "kernels"] {
            let out = succeed(dir.path(), &["compile", "lenet", "--emit", format, "--stage", stage]);
            assert!(out.contains("conv"), "{format} {stage}");
        }
    }
    for (format, start) in [("dot", "digraph"), ("text", "entry"), ("memory", "entry"), ("cuda", "//")] {
        let stage: &[&str] = if ["dot", "text"].contains(&format) { &["--stage", "kernels"] } else { &[] };
        let out = succeed(dir.path(), &[&["compile", "lenet", "--emit", format][..], stage].concat());
        assert!(out.starts_with(start), "{format}: {out:.80}");
    }
    succeed(dir.path(), &["compile", "lenet", "--dump-passes", "passes", "--verify"]);
    assert!(fs::read_dir(dir.path().join("passes")).unwrap().count() > 30);
    let out = succeed(dir.path(), &["compile", "lenet", "--stop-after", "stable", "--emit", "text"]);
    assert!(out.contains("gradient"), "differentiation has not been run");
    succeed(dir.path(), &["compile", "dcgan", "--pass", "drop-biases"]);
}

/// A profile adds kernels up by what they are for, of a program and of its plan.
#[test]
fn a_profile_is_grouped() {
    let dir = TempDir::new().unwrap();
    succeed(dir.path(), &["compile", "lenet", "--set", "batch=4", "-o", "lenet.plan"]);
    let program: &[&str] = &["profile", "lenet", "--set", "batch=4", "--steps", "2", "--by"];
    let plan: &[&str] = &["profile", "lenet.plan", "--steps", "2", "--by"];
    for profile in [program, plan] {
        for (by, row) in [
            ("layer", "body/0-conv"),
            ("call", "body/0-conv of logits"),
            ("role", "backward of loss"),
            ("kind", "contraction"),
            ("kernel", "conv2d_logits_body_0_conv"),
        ] {
            let out = succeed(dir.path(), &[profile, &[by]].concat());
            assert!(out.contains(row) && out.contains("between kernels") && out.contains("the step"), "{by}: {out}");
        }
    }
    let out = succeed(dir.path(), &[program, &["layer", "--json"]].concat());
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["by"], "layer");
    let sum = |list: &str| json[list].as_array().unwrap().iter().map(|g| g["seconds"].as_f64().unwrap()).sum::<f64>();
    assert!((sum("groups") / sum("kernels") - 1.0).abs() < 1e-9, "{out}");
    let is_backward = |k: &&serde_json::Value| k["role"] == "gradient" && k["of"] == "loss" && k["call"] == "logits";
    assert!(json["kernels"].as_array().unwrap().iter().filter(is_backward).count() > 1, "{out}");
    let err = fail(dir.path(), 2, &[program, &["step"]].concat());
    assert!(err.contains("layer") && err.contains("role"), "{err}");
}

#[test]
fn two_profiles_are_compared() {
    let dir = TempDir::new().unwrap();
    for (file, program) in [("a.json", &["lenet"][..]), ("b.json", &["lenet", "--seed", "1"]), ("c.json", &["mlp-gan"])]
    {
        let sets: &[&str] = &["--set", "batch=4", "--steps", "2", "-o", file];
        succeed(dir.path(), &[&["profile"], program, sets].concat());
    }
    let out = succeed(dir.path(), &["profile", "a.json", "--against", "b.json"]);
    for part in ["A: a.json: train_step of lenet", "B: b.json", "B / A", "conv2d_logits_body_0_conv", "the step"] {
        assert!(out.contains(part), "{part}: {out}");
    }
    assert!(!out.contains("only in"), "{out}");
    let out = succeed(dir.path(), &["profile", "a.json", "--against", "b.json", "--by", "layer"]);
    assert!(out.contains("body/0-conv") && !out.contains("conv2d_logits"), "{out}");
    let out = succeed(dir.path(), &["profile", "a.json", "--against", "c.json", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    let rows = json["rows"].as_array().unwrap();
    let (a, b) = (|r: &serde_json::Value| r["seconds_a"].as_f64(), |r: &serde_json::Value| r["seconds_b"].as_f64());
    assert!(rows.iter().any(|r| b(r).is_none()) && rows.iter().any(|r| a(r).is_none()), "{out}");
    let sum = |of: fn(&serde_json::Value) -> Option<f64>| rows.iter().filter_map(of).sum::<f64>();
    let whole = a(&json["between_kernels"]).unwrap() + sum(a);
    assert!((whole / a(&json["step"]).unwrap() - 1.0).abs() < 1e-9, "{out}");
    assert!(rows.is_sorted_by_key(|r| -r["difference"].as_f64().unwrap().abs()), "{out}");

    // A file without what its kernels are for, as older versions wrote it.
    let old = fs::read_to_string(dir.path().join("a.json")).unwrap().replace("\"layer\":", "\"other\":");
    fs::write(dir.path().join("old.json"), old).unwrap();
    succeed(dir.path(), &["profile", "a.json", "--against", "old.json"]);
    fs::write(dir.path().join("no.json"), "{}").unwrap();
    fs::write(dir.path().join("latin.json"), [b'{', 0xe4]).unwrap();
    for (args, file, why) in [
        (&["a.json", "--against", "no.json"][..], "no.json", "not a profile that `gcc-gan profile` wrote"),
        (&["latin.json", "--against", "a.json"], "latin.json", "not a profile"),
        (&["a.json", "--against", "none.json"], "none.json", "cannot be read"),
        (&["lenet", "--against", "a.json"], "lenet", "-o FILE"),
        (&["a.json", "--against", "."], ".", "a folder"),
        (&["a.json", "--against", "old.json", "--by", "layer"], "old.json", "older version"),
    ] {
        let err = fail(dir.path(), 1, &[&["profile"], args].concat());
        assert!(err.starts_with(&format!("error: {file}")) && err.contains(why) && err.lines().count() == 1, "{err}");
    }
    for option in [&["--steps", "3"][..], &["-o", "x.json"], &["--set", "batch=4"], &["--device", "cpu"]] {
        let err = fail(dir.path(), 2, &[&["profile", "a.json", "--against", "b.json"], option].concat());
        assert!(err.contains("cannot be used with"), "{err}");
    }
}

#[test]
fn a_program_is_looked_into() {
    let dir = TempDir::new().unwrap();
    let out = succeed(dir.path(), &["profile", "lenet", "--set", "batch=4", "--steps", "2", "-o", "step.json"]);
    assert!(out.contains("measured ceilings") && out.contains("conv2d"), "{out}");
    let inspect = ["inspect", "lenet", "--set", "batch=4", "--profile", "step.json", "-o", "lenet.html"];
    assert!(succeed(dir.path(), &inspect).contains("wrote lenet.html"));
    let page = fs::read_to_string(dir.path().join("lenet.html")).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.contains("between_seconds"));
    // A profile of other sizes has the same kernels: their times would be wrong here.
    for other in ["lenet", "mlp-gan"] {
        let err = fail(dir.path(), 1, &["inspect", other, "--profile", "step.json", "-o", "x.html"]);
        assert!(err.contains("step.json") && err.contains("another program"), "{err}");
    }
    fs::write(dir.path().join("no.json"), "{}").unwrap();
    let err = fail(dir.path(), 1, &["inspect", "lenet", "--profile", "no.json", "-o", "x.html"]);
    assert!(err.contains("no.json") && err.contains("gcc-gan profile"), "{err}");
    assert!(!dir.path().join("x.html").exists());

    let out = succeed(dir.path(), &["explain", "dcgan", "fake_d/generator/1-batch_norm/centred"]);
    assert!(out.contains("graphs/dcgan.ron:32") && out.contains("kernel [4]"), "{out}");
    assert!(fail(dir.path(), 1, &["explain", "dcgan", "1-batch_norm/centred"]).contains("did you mean"));
    let out = succeed(dir.path(), &["explain", "dcgan"]);
    assert!(out.contains("not fused: a reduction needs all of the contraction's result"), "{out}");
    assert!(out.contains("no plan of this schedule can be smaller") || out.contains("the arena has"), "{out}");

    succeed(dir.path(), &["compile", "mlp-gan", "--set", "batch=8", "-o", "a.plan"]);
    assert_eq!(succeed(dir.path(), &["diff", "a.plan", "mlp-gan", "--set-b", "batch=8"]), "");
    let output = run(dir.path(), &["diff", "a.plan", "mlp-gan"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("entry train_step"), "{}", text(&output.stdout));
    // The same kernels, for other GPUs.
    for (plan, architecture) in [("b.plan", "cuda:sm_80"), ("c.plan", "cuda:sm_86")] {
        let args =
            ["compile", "mlp-gan", "--device", architecture, "--precision", "tf32", "--device-code", "never", "-o"];
        succeed(dir.path(), &[&args[..], &[plan]].concat());
    }
    let output = run(dir.path(), &["diff", "b.plan", "c.plan"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), "made for GPUs of sm_80 in tf32 → GPUs of sm_86 in tf32\n");
    assert!(
        succeed(dir.path(), &["verify", "c.plan"]).contains("a valid plan of `mlp-gan` for GPUs of sm_86 in tf32\n")
    );
    let err = fail(dir.path(), 1, &["profile", "c.plan"]);
    assert!(err.contains("is compiled for GPUs of sm_86 in tf32: profile it there with --device cuda, "), "{err}");
    // A plan keeps what was set in it wherever it is looked at.
    assert!(succeed(dir.path(), &["inputs", "a.plan"]).contains("f32[8,1,28,28]"));
    assert!(succeed(dir.path(), &["compile", "a.plan", "--emit", "text"]).contains("f32[8,1,28,28]"));
}

#[test]
fn tensors_without_effect_are_refused() {
    let dir = TempDir::new().unwrap();
    let zeros = vec![0u8; 4 * 64];
    let tensor = |shape: &[usize]| {
        let bytes = &zeros[..4 * shape.iter().product::<usize>()];
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.to_vec(), bytes).unwrap()
    };
    for (name, shape, message) in [
        ("discriminator/0-conv/bias@1", &[64][..], "only inputs and draws differ from step to step"),
        ("real@7", &[64], "there are 3 steps"),
    ] {
        safetensors::serialize_to_file([(name, tensor(shape))], None, &dir.path().join("in")).unwrap();
        let io = ["run", "dcgan", "train_step", "--steps", "3", "--inputs", "in", "--outputs", "out"];
        assert!(fail(dir.path(), 1, &io).contains(message));
    }
}

#[test]
fn a_run_sees_that_its_data_was_changed() {
    let dir = TempDir::new().unwrap();
    let images = |pixel: u8| {
        let mut bytes = vec![0, 0, 8, 3, 0, 0, 0, 16, 0, 0, 0, 28, 0, 0, 0, 28];
        bytes.resize(16 + 16 * 784, pixel);
        fs::write(dir.path().join("images"), bytes).unwrap();
    };
    images(9);
    succeed(dir.path(), &["train", "mlp-gan", "--set", "batch=8", "--data", "images", "--steps", "1"]);
    succeed(dir.path(), &["train", "--resume", "--steps", "2"]);
    images(200);
    let err = fail(dir.path(), 1, &["train", "--resume", "--steps", "3"]);
    assert!(err.contains("other images") && err.contains("--data"), "{err}");
    let output = run(dir.path(), &["train", "--resume", "--steps", "3", "--data", "images"]);
    let err = text(&output.stderr);
    assert!(output.status.success() && err.contains("warning: the data differ: the run was trained on "), "{err}");
    assert!(err.contains("continues with 16 images in images"), "{err}");
    succeed(dir.path(), &["train", "--resume", "--steps", "4"]);
}

#[test]
fn a_value_can_be_changed_on_the_way_and_a_size_cannot() {
    let dir = TempDir::new().unwrap();
    succeed(dir.path(), &["train", "mlp-gan", "--offline", "--set", "batch=8", "--data", "embedded", "--steps", "1"]);
    let err = fail(dir.path(), 1, &["train", "--resume", "--set", "batch=4", "--steps", "2"]);
    assert!(err.contains("a run keeps its sizes"), "{err}");
    let err = fail(dir.path(), 1, &["train", "--resume", "--set", "ls=1", "--steps", "2"]);
    assert!(err.contains("did you mean `lr`?"), "{err}");
    let out = succeed(dir.path(), &["train", "--resume", "--set", "lr=1e-5", "--steps", "2"]);
    assert!(out.contains("set: batch=8 lr=1e-5"), "{out}");
    // It is recorded: the next time need not say it again.
    let out = succeed(dir.path(), &["train", "--resume", "--steps", "3"]);
    assert!(out.contains("set: batch=8 lr=1e-5"), "{out}");
}

/// Losses that are NaN, or hidden by a maximum: either way nothing is saved over the good checkpoint.
#[test]
fn a_run_that_is_no_longer_finite_fails() {
    let dir = TempDir::new().unwrap();
    let args = ["train", "lenet", "--offline", "--data", "embedded", "--set", "batch=8", "--set", "lr=1e38"];
    let more = ["--steps", "12", "--sample-every", "5", "--name", "r"];
    let err = fail(dir.path(), 1, &[&args[..], &more].concat());
    assert!(err.contains("`body` and `head` became infinite or NaN"), "{err}");
    assert!(err.contains("the last good checkpoint is runs/r/checkpoint.safetensors, of step 0"), "{err}");
    assert!(err.contains("learning rate"), "{err}");
    assert!(err.contains("evaluated operation by operation") && err.contains("the first value that is "), "{err}");
    assert!(err.contains("graphs/lenet.ron:") && err.contains("from finite values"), "{err}");
    for (_, bytes) in tensors_of(&dir.path().join("runs/r/checkpoint.safetensors")) {
        assert!(bytes.as_chunks::<4>().0.iter().all(|b| f32::from_le_bytes(*b).is_finite()));
    }
    succeed(dir.path(), &["train", "--offline", "--resume", "runs/r", "--set", "lr=1e-3", "--steps", "2"]);
}

/// The line and column in a user's own program, and what came in there.
#[test]
fn where_a_run_stopped_being_finite_is_shown() {
    let dir = TempDir::new().unwrap();
    let text = r#"Program(
    name: "own",
    sizes: { "batch": 8 },
    networks: { "net": Network(input: [1, 28, 28], layers: [Flatten(), Dense(1)]) },
    entries: {
        "train_step": Entry(
            inputs: { "x": Images(["batch", 1, 28, 28]) },
            steps: [
                Let("y", Call("net", "x", Training)),
                Let("none", Sub("y", "y")),
                Let("loss", Neg(Mean(Log("none")))),
                Minimise("loss", "net", Sgd(lr: 0.1)),
            ],
            outputs: ["loss"],
        ),
    },
)
"#;
    fs::write(dir.path().join("own.ron"), text).unwrap();
    let args = ["train", "own.ron", "--offline", "--data", "embedded", "--steps", "3", "--name", "r"];
    let err = fail(dir.path(), 1, &args);
    assert!(err.contains("-[own.ron:11:38]"), "{err}");
    assert!(err.contains("`log`, from finite values") && err.contains("`none` = 0.0000"), "{err}");
    assert!(err.contains("of step 1 (own.ron:11:38)"), "{err}");
    assert!(dir.path().join("runs/r/checkpoint.safetensors").is_file());
}

#[cfg(target_os = "linux")]
#[test]
fn a_closed_standard_output_ends_no_run() {
    let dir = TempDir::new().unwrap();
    for (name, close) in [("gone", true), ("full", false)] {
        let args = train(&["--steps", "3", "--name", name]);
        let mut command = gcc_gan(dir.path(), &args);
        let command = match close {
            true => command.stdout(Stdio::piped()),
            false => command.stdout(fs::File::create("/dev/full").unwrap()),
        };
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let err = text(&output.stderr);
        assert!(output.status.success(), "{err}");
        assert_eq!(err.matches("standard output cannot be written").count(), 1, "{err}");
        let metrics = fs::read_to_string(dir.path().join("runs").join(name).join("metrics.jsonl")).unwrap();
        assert!(metrics.contains("\"step\":3"), "{metrics}");
    }
}

/// A limit on the size of files is a disk that is full.
#[cfg(unix)]
#[test]
fn a_run_that_fails_at_once_leaves_nothing_in_the_way() {
    let dir = TempDir::new().unwrap();
    let args = train(&["--steps", "1", "--name", "r"]);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -f 8; trap '' XFSZ; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_gcc-gan")]).args(&args);
    let output = limited.current_dir(dir.path()).env("HOME", dir.path()).output().unwrap();
    let err = text(&output.stderr);
    assert!(output.status.code() == Some(1) && err.contains("cannot be written"), "{err}");
    assert!(!dir.path().join("runs/r").exists(), "{err}");
    succeed(dir.path(), &args);
}

#[cfg(unix)]
#[test]
fn pipes_and_devices_are_refused() {
    let dir = TempDir::new().unwrap();
    assert!(Command::new("mkfifo").arg(dir.path().join("pipe")).status().unwrap().success());
    let cases: &[&[&str]] = &[
        &["compile", "pipe"],
        &["compile", "/dev/zero"],
        &["verify", "pipe"],
        &["train", "pipe", "--offline"],
        &["train", "--offline", "--data", "pipe"],
        &["train", "--offline", "--data", "/dev/zero"],
        &["sample", "--checkpoint", "pipe", "-o", "x.png"],
        &["run", "mlp-gan", "sample", "--inputs", "pipe", "--outputs", "out"],
        &["run", "mlp-gan", "init", "--checkpoint", "pipe", "--outputs", "out"],
        &["inspect", "lenet", "--profile", "pipe", "-o", "x.html"],
        &["inspect", "lenet", "--profile", "/dev/zero", "-o", "x.html"],
    ];
    for args in cases {
        let err = fail(dir.path(), 1, args);
        assert!(err.contains("a pipe or a device"), "{args:?}: {err}");
    }
}

#[test]
fn labels_out_of_range_are_refused() {
    let dir = TempDir::new().unwrap();
    let images = vec![0u8; 4 * 2 * 784];
    let labels: Vec<u8> = [3u32, 10].iter().flat_map(|l| l.to_le_bytes()).collect();
    let view =
        |dtype, shape: &[usize], bytes| safetensors::tensor::TensorView::new(dtype, shape.to_vec(), bytes).unwrap();
    let tensors = [
        ("images", view(safetensors::Dtype::F32, &[2, 1, 28, 28], &images[..])),
        ("labels", view(safetensors::Dtype::U32, &[2], &labels[..])),
    ];
    safetensors::serialize_to_file(tensors, None, &dir.path().join("in")).unwrap();
    let args = ["run", "lenet", "evaluate", "--set", "batch=2", "--inputs", "in", "--outputs", "out"];
    let err = fail(dir.path(), 1, &args);
    assert!(err.contains("`labels` has 10 at [1]: its elements are indices, whole numbers from 0 to 9"), "{err}");
}

/// Images by class, where a class is a row of a table.
const BY_CLASS: &str = r#"Program(
    name: "by-class",
    sizes: { "batch": 2, "classes": 10 },
    networks: {
        "embedding": Network(input: [], layers: [Embedding("classes", 4)]),
        "generator": Network(input: [4], layers: [Dense(4), Tanh(), Reshape([1, 2, 2])]),
    },
    entries: {
        "train_step": Entry(
            inputs: { "real": Images(["batch", 1, 2, 2]), "labels": Labels(["batch"]) },
            steps: [
                Let("fake", Call("generator", Call("embedding", "labels", Training), Training)),
                Let("loss", Mean(Abs(Sub("real", "fake")))),
                Minimise("loss", ["generator", "embedding"], Adam(lr: 1e-2)),
                Average("generator", 0.9),
            ],
            outputs: ["loss"],
        ),
        "sample": Entry(
            inputs: { "noise": Tensor([4]), "labels": Labels([4]) },
            steps: [
                Let("class", Add(Call("embedding", ToReal("labels"), Inference), Reshape("noise", [4, 1]))),
                Let("images", Call("generator", "class", Inference)),
            ],
            outputs: ["images"],
        ),
        "rows": Entry(
            inputs: { "table": Tensor([3, 2]), "i": Tensor([2, 2]), "j": Tensor([2]) },
            steps: [Let("of_i", Gather("table", "i")), Let("of_j", Call("embedding", "j", Inference))],
            outputs: ["of_i", "of_j"],
        ),
    },
)"#;

fn npy(of_type: &str, order: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{of_type}', 'fortran_order': {order}, 'shape': {shape}, }}\n");
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// A class that a table has no row for would be a row of zeros, without a word.
#[test]
fn classes_out_of_a_table_are_refused() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("p.ron"), BY_CLASS).unwrap();
    fs::write(dir.path().join("x_train.npy"), npy("|u1", "False", "(4, 2, 2)", &[9; 16])).unwrap();
    let train = |labels: &[u8]| {
        fs::write(dir.path().join("y_train.npy"), npy("|u1", "False", "(4,)", labels)).unwrap();
        run(dir.path(), &["train", "p.ron", "--data", "x_train.npy", "--steps", "2"])
    };
    let err = text(&train(&[0, 9, 13, 1]).stderr);
    assert!(err.contains("it has labels up to 13, the program expects `labels` below 10"), "{err}");
    let trained = train(&[0, 9, 3, 1]);
    assert!(trained.status.success(), "{}", text(&trained.stderr));
    let sample = |label| ["sample", "--checkpoint", "runs/by-class-001", "--label", label, "-o", "a.png"];
    succeed(dir.path(), &sample("9"));
    let err = fail(dir.path(), 1, &sample("10"));
    assert!(err.contains("has no class 10: labels are from 0 to 9"), "{err}");

    let rows = |i: [f32; 4], j: [f32; 2]| {
        let bytes = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        let [table, i, j] = [bytes(&[0.5; 6]), bytes(&i), bytes(&j)];
        let view = |shape: &[usize], bytes| {
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.to_vec(), bytes).unwrap()
        };
        let tensors = [("table", view(&[3, 2], &table)), ("i", view(&[2, 2], &i)), ("j", view(&[2], &j))];
        safetensors::serialize_to_file(tensors, None, &dir.path().join("in")).unwrap();
        text(&run(dir.path(), &["run", "p.ron", "rows", "--inputs", "in", "--outputs", "out"]).stderr)
    };
    assert_eq!(rows([-3.0, 2.0, 0.0, 1.0], [0.0, 9.0]), "");
    for (i, j, told) in [
        ([0.0, 1.0, 3.0, 0.0], [0.0; 2], "`i` has 3 at [1, 0]: its elements are indices, whole numbers from -3 to 2"),
        ([0.0, -4.0, 0.0, 0.0], [0.0; 2], "`i` has -4 at [0, 1]"),
        ([0.0, 0.0, 0.0, 1.5], [0.0; 2], "`i` has 1.5 at [1, 1]"),
        ([f32::NAN, 0.0, 0.0, 0.0], [0.0; 2], "`i` has NaN at [0, 0]"),
        ([0.0; 4], [0.0, -1.0], "`j` has -1 at [1]: its elements are indices, whole numbers from 0 to 9"),
    ] {
        let err = rows(i, j);
        assert!(err.contains(told), "{err}");
    }
    succeed(dir.path(), &["inputs", "p.ron", "rows", "--example", "example"]);
    succeed(dir.path(), &["run", "p.ron", "rows", "--inputs", "example", "--outputs", "out"]);
    succeed(dir.path(), &["profile", "p.ron", "--steps", "1"]);
}

/// One mistake in a network is one error, whatever uses the network after it.
#[test]
fn what_follows_from_a_mistake_is_not_told() {
    let dir = TempDir::new().unwrap();
    let odd = BY_CLASS.replace("Embedding(\"classes\", 4)", "Embedding(\"classes\", 4), Dense(\"none\")");
    let odd = odd.replace("Average(\"generator\"", "Average(\"embedding\"");
    fs::write(dir.path().join("p.ron"), odd).unwrap();
    let err = fail(dir.path(), 1, &["compile", "p.ron"]);
    assert!(err.contains("none") && !err.contains("to average") && !err.contains("does not depend"), "{err}");
}

/// The state of a run instead of the initial one, also for a network by itself.
#[test]
fn entries_and_networks_run_on_the_state_of_a_run() {
    let dir = TempDir::new().unwrap();
    succeed(
        dir.path(),
        &[
            "train",
            "mlp-gan",
            "--offline",
            "--set",
            "latent=5",
            "--set",
            "batch=8",
            "--data",
            "embedded",
            "--steps",
            "1",
            "--name",
            "r",
        ],
    );
    let noise: Vec<u8> = (0..15).flat_map(|i| (i as f32 / 7.0).to_le_bytes()).collect();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![3, 5], &noise).unwrap();
    safetensors::serialize_to_file([("input", view)], None, &dir.path().join("in")).unwrap();
    let output = |more: &[&str], out: &str| {
        let args = ["run", "mlp-gan", "generator", "--inputs", "in", "--outputs", out];
        succeed(dir.path(), &[&args[..], more].concat());
        let bytes = fs::read(dir.path().join(out)).unwrap();
        SafeTensors::deserialize(&bytes).unwrap().tensor("output").unwrap().data().to_vec()
    };
    let trained = output(&["--checkpoint", "runs/r"], "a");
    assert!(trained != output(&["--set", "latent=5"], "b"));
    assert!(trained == output(&["--checkpoint", "runs/r/checkpoint.safetensors", "--seed", "9"], "c"));
    // State that the entry does not take is what it was.
    let noise = vec![0; 36 * 5 * size_of::<f32>()];
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![36, 5], &noise).unwrap();
    safetensors::serialize_to_file([("noise", view)], None, &dir.path().join("noise")).unwrap();
    let sample = ["run", "mlp-gan", "sample", "--checkpoint", "runs/r", "--inputs", "noise", "--outputs", "e"];
    succeed(dir.path(), &sample);
    let after = tensors_of(&dir.path().join("e"));
    for tensor in tensors(&dir.path().join("runs/r/checkpoint.safetensors")) {
        assert!(after.contains(&tensor), "{}", tensor.0);
    }
    let err = fail(dir.path(), 1, &["run", "lenet", "train_step", "--checkpoint", "runs/r", "--outputs", "d"]);
    assert!(err.contains("it is a checkpoint of `mlp-gan`"), "{err}");
    let err = fail(dir.path(), 1, &["run", "dcgan", "train_step", "--checkpoint", "runs/r", "--outputs", "d"]);
    assert!(err.contains("checkpoint.safetensors, a checkpoint of another program, `mlp-gan`\n"), "{err}");
    let err = fail(dir.path(), 1, &["sample", "--checkpoint", "runs/r", "-o", "x.bmp"]);
    assert!(err.contains("x.bmp names no format by its end: .png, .jpg, .gif or .webp was expected"), "{err}");
}

/// A checkpoint's numbers are run in the precision that they were trained in, unless another is asked for.
#[test]
fn a_checkpoint_is_run_in_its_own_precision() {
    let dir = TempDir::new().unwrap();
    let train = ["train", "mlp-gan", "--offline", "--data", "embedded", "--steps", "1", "--name", "r"];
    succeed(dir.path(), &[&train[..], &["--precision", "bf16"]].concat());
    let noise: Vec<u8> = (0..36 * 64).flat_map(|i| ((i % 13) as f32 / 7.0).to_le_bytes()).collect();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![36, 64], &noise).unwrap();
    safetensors::serialize_to_file([("noise", view)], None, &dir.path().join("noise")).unwrap();
    let images = |more: &[&str]| {
        let args = ["run", "mlp-gan", "sample", "--checkpoint", "runs/r", "--inputs", "noise", "--outputs", "out"];
        succeed(dir.path(), &[&args[..], more].concat());
        fs::read(dir.path().join("out")).unwrap()
    };
    let own = images(&[]);
    assert!(own == images(&["--precision", "bf16"]));
    assert!(own != images(&["--precision", "f32"]));
}

#[test]
fn verified_data_is_what_would_be_used() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("data/mnist");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("train-images-idx3-ubyte"), "not images").unwrap();
    let verify = |root: &str| gcc_gan(dir.path(), &["data", "verify"]).env("GCC_GAN_DATA", root).output().unwrap();
    let output = verify("data");
    assert_eq!(output.status.code(), Some(1));
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(out.starts_with("data/mnist\n") && out.contains("damaged: 47040016 bytes expected"), "{out}");
    assert!(err.contains("from $GCC_GAN_DATA") && err.contains("damaged or missing"), "{err}");
    let err = text(&verify("nowhere").stderr);
    assert!(err.contains("$GCC_GAN_DATA is nowhere"), "{err}");
}

/// A program that trains in a moment on RGB pictures, with their classes.
const TINY_RGB: &str = r#"Program(
    name: "tiny-rgb",
    sizes: { "batch": 4, "classes": 3 },
    networks: { "judge": Network(input: [3, 6, 6], layers: [Flatten(), Dense("classes")]) },
    entries: { "train_step": Entry(
        inputs: { "x": Images(["batch", 3, 6, 6]), "t": Labels(["batch"]) },
        steps: [
            Let("y", LogSoftmax(Call("judge", "x", Training))),
            Let("loss", Neg(Mean(Mul(OneHot("t", "classes"), "y")))),
            Minimise("loss", "judge", Adam(lr: 0.001)),
        ],
        outputs: ["loss"],
    ) },
)"#;

#[test]
fn a_folder_of_pictures_is_trained_on() {
    let dir = TempDir::new().unwrap();
    for i in 0..12u8 {
        let class = dir.path().join("photos").join(["bird", "cat", "dög"][usize::from(i) % 3]);
        fs::create_dir_all(&class).unwrap();
        let picture = image::RgbImage::from_pixel(9, 7, image::Rgb([i * 20, 9, 200]));
        picture.save(class.join(format!("{i}.{}", if i < 6 { "png" } else { "jpg" }))).unwrap();
    }
    fs::write(dir.path().join("photos/cat/broken.png"), "no picture").unwrap();
    fs::write(dir.path().join("tiny.ron"), TINY_RGB).unwrap();
    let train = ["train", "tiny.ron", "--offline", "--data", "photos", "--epochs", "2"];
    let out = succeed(dir.path(), &[&train[..], &["--name", "r"]].concat());
    assert!(out.contains("data: 12 pictures in 3 classes in photos\n") && out.contains("6 steps complete"), "{out}");
    assert!(out.contains("note: the pictures, 9×7 pixels, are resized and centre-cropped to 6×6 RGB\n"), "{out}");
    assert!(
        out.contains("note: skipped: 1 of 13 files cannot be used: cat/broken.png (it is neither PNG nor"),
        "{out}"
    );
    let err = fail(dir.path(), 1, &[&train[..], &["--strict"]].concat());
    assert!(err.contains("cat/broken.png") && err.contains("without --strict they are skipped"), "{err}");
    let err = fail(dir.path(), 1, &[&train[..], &["--set", "classes=2"]].concat());
    assert!(err.contains("it has labels up to 2, the program expects `t` below 2"), "{err}");

    let shown = succeed(dir.path(), &["data", "show", "photos"]);
    assert!(shown.contains("bird: 4  cat: 4  dög: 4") && shown.contains("12 RGB, 0 grey"), "{shown}");
    let shown = succeed(dir.path(), &["data", "show", "photos", "--program", "tiny.ron", "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&shown["channels"], &shown["height"], &shown["train"]), (&3.into(), &6.into(), &12.into()));
    fail(dir.path(), 1, &["data", "show", "photos", "--strict"]);

    // A run is resumed on the same pictures alone; embedded digits are fitted, and it is said.
    let resume = ["train", "--offline", "--resume", "runs/r", "--epochs", "3"];
    succeed(dir.path(), &resume);
    fs::remove_file(dir.path().join("photos/bird/0.png")).unwrap();
    let err = fail(dir.path(), 1, &resume);
    assert!(err.contains("was trained on other images than"), "{err}");
    let embedded = ["train", "tiny.ron", "--offline", "--data", "embedded", "--set", "classes=10", "--steps", "1"];
    let out = succeed(dir.path(), &embedded);
    assert!(out.contains("the images are resized from 28×28 to 6×6 and made RGB, which the program takes"), "{out}");
    fs::create_dir(dir.path().join("flat")).unwrap();
    image::GrayImage::new(5, 5).save(dir.path().join("flat/a.png")).unwrap();
    let flat = ["train", "tiny.ron", "--offline", "--data", "flat", "--set", "batch=1"];
    let err = fail(dir.path(), 1, &flat);
    assert!(err.contains("it has no labels, which `t` takes (in a folder of pictures, sub-folders are"), "{err}");
}

#[test]
fn a_batch_that_does_not_divide_the_data_leaves_the_rest_out() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("literal.ron"), TINY_GAN.replace(r#"Images(["batch","#, "Images([3333,")).unwrap();
    let args = ["train", "literal.ron", "--offline", "--data", "embedded", "--epochs", "1"];
    let out = succeed(dir.path(), &args);
    assert!(out.contains("note: each epoch leaves out 1 of the 10,000 images"), "{out}");
    assert!(out.contains("3 steps an epoch") && out.contains("3 steps complete"), "{out}");
    let args = ["train", "literal.ron", "--offline", "--data", "images"];
    let mut bytes = vec![0, 0, 8, 3, 0, 0, 0, 16, 0, 0, 0, 28, 0, 0, 0, 28];
    bytes.resize(16 + 16 * 784, 9);
    fs::write(dir.path().join("images"), bytes).unwrap();
    let err = fail(dir.path(), 1, &args);
    assert!(err.contains("it has 16 examples, a batch takes 3333; the program's text fixes that number"), "{err}");
}

#[test]
fn networks_functions_and_entries_run_on_given_tensors() {
    let dir = TempDir::new().unwrap();
    let floats: Vec<u8> = (0..5 * 300).flat_map(|i| ((i % 7) as f32 - 3.0).to_le_bytes()).collect();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![5, 300], &floats).unwrap();
    safetensors::serialize_to_file([("input", view)], None, &dir.path().join("in.safetensors")).unwrap();
    let io = ["--inputs", "in.safetensors", "--outputs", "out.safetensors"];
    succeed(dir.path(), &[&["run", "dcgan", "generator"][..], &io].concat());
    let bytes = fs::read(dir.path().join("out.safetensors")).unwrap();
    let out = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(out.tensor("output").unwrap().shape(), [5, 1, 28, 28]);
    let err = fail(dir.path(), 1, &[&["run", "dcgan", "discriminator"][..], &io].concat());
    assert!(err.contains("`discriminator` can't take this input"), "{err}");
    let err = fail(dir.path(), 1, &[&["run", "dcgan", "BinaryCrossEntropy"][..], &io].concat());
    assert!(err.contains("`BinaryCrossEntropy` takes `x` and `t`, which must be given"), "{err}");
    let err = fail(dir.path(), 1, &[&["run", "dcgan", "train_step"][..], &io].concat());
    assert!(err.contains("input"), "{err}");
    let names: serde_json::Value = serde_json::from_str(&succeed(dir.path(), &["inputs", "dcgan", "--json"])).unwrap();
    assert!(names.as_array().unwrap().iter().any(|n| n["name"] == "real" && n["ty"] == "f32[128,1,28,28]"));
}

#[test]
fn mistakes_are_told_with_how_to_fix_them() {
    let dir = TempDir::new().unwrap();
    let put = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
    put("text.ron", b"not a graph");
    put("binary.ron", &[0xff, 0xfe, 0, 1]);
    put("wrong.idx", &[0, 0, 8, 3, 0, 0, 0, 9, 0, 0, 0, 28, 0, 0, 0, 28, 1, 2, 3]);
    put("broken.gz", &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1, 2, 3]);
    put("broken.safetensors", b"\xff\xff\xff\xff\xff\xff\xff\xff{}");
    fs::create_dir(dir.path().join("empty")).unwrap();
    let cases: &[(i32, &[&str])] = &[
        (2, &["trian"]),
        (2, &["train", "--steps", "many"]),
        (2, &["train", "--threads", "0"]),
        (2, &["sample", "-o", "x.png"]),
        (2, &["compile", "dcgan", "--emit", "svgg"]),
        (1, &["compile", "nowhere.ron"]),
        (1, &["compile", "empty"]),
        (1, &["compile", "text.ron"]),
        (1, &["compile", "binary.ron"]),
        (1, &["compile", "dcgan", "--set", "bach=3"]),
        (1, &["compile", "dcgan", "--stop-after", "flod"]),
        (1, &["compile", "dcgan", "--emit", "text", "--stage", "later"]),
        (1, &["compile", "dcgan", "--pass", "drop-everything"]),
        (1, &["compile", "dcgan", "-o", "no/folder/a.plan"]),
        (1, &["verify", "text.ron"]),
        (1, &["train", "--offline", "--data", "nowhere"]),
        (1, &["train", "--offline", "--data", "empty"]),
        (1, &["train", "--offline", "--data", "wrong.idx"]),
        (1, &["train", "--offline", "--data", "broken.gz"]),
        (1, &["train", "lenet", "--offline", "--data", "embedded", "--set", "classes=3"]),
        (1, &["train", "--offline", "--resume"]),
        (1, &["train", "--offline", "--resume", "empty"]),
        (1, &["sample", "--checkpoint", "broken.safetensors", "-o", "x.png"]),
        (1, &["run", "dcgan", "sample", "--inputs", "broken.safetensors", "--outputs", "out"]),
        (1, &["run", "dcgan", "simple", "--outputs", "out"]),
        (1, &["inputs", "dcgan", "simple"]),
    ];
    let mut told = String::new();
    for (code, args) in cases {
        let err = fail(dir.path(), *code, args).replace(&dir.path().display().to_string(), "DIR");
        told += &format!("$ gcc-gan {}\n{err}\n", args.join(" "));
    }
    insta::assert_snapshot!(told);
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 6, "nothing is left behind: {left:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told() {
    let dir = TempDir::new().unwrap();
    let err = fail(dir.path(), 1, &["run", "mlp-gan", "init", "--outputs", "/dev/full"]);
    assert!(err.contains("/dev/full"), "{err}");
    fail(dir.path(), 1, &["compile", "mlp-gan", "-o", "/dev/full"]);
    let output = gcc_gan(dir.path(), &["compile", "mlp-gan"]).stdout(fs::File::create("/dev/full").unwrap()).output();
    assert_eq!(output.unwrap().status.code(), Some(1));
    assert!(!fs::metadata("/dev/full").unwrap().is_file());
}

/// Rewrites that assume finite values are asked for, and a plan remembers that they were.
#[test]
fn fast_math_is_asked_for_and_kept() {
    let dir = TempDir::new().unwrap();
    let program = r#"Program(
        name: "p",
        entries: { "f": Entry(inputs: { "x": Tensor([4]) }, steps: [Let("y", Sub("x", "x"))], outputs: ["y"]) },
    )"#;
    fs::write(dir.path().join("p.ron"), program).unwrap();
    let optimised = |args: &[&str]| {
        succeed(dir.path(), &[&["compile"], args, &["--emit", "text", "--stage", "optimised"]].concat())
    };
    assert!(optimised(&["p.ron"]).contains("= sub "));
    assert!(!optimised(&["p.ron", "--fast-math"]).contains("= sub "));
    succeed(dir.path(), &["compile", "p.ron", "--fast-math", "-o", "p.plan"]);
    assert!(!optimised(&["p.plan"]).contains("= sub "));
}

/// Convolutions are computed as they are written where that is asked for, and a plan remembers that it was.
#[test]
fn exact_convolutions_are_asked_for_and_kept() {
    let dir = TempDir::new().unwrap();
    let program = r#"Program(
        name: "p",
        networks: { "net": Network(input: [64, 7, 7], layers: [Conv(64, 5, 1, 2)]) },
        entries: { "f": Entry(
            inputs: { "x": Tensor([64, 64, 7, 7]) }, steps: [Let("y", Call("net", "x", Training))], outputs: ["y"],
        ) },
    )"#;
    fs::write(dir.path().join("p.ron"), program).unwrap();
    let is_direct = |args: &[&str]| {
        let args = [&["compile"], args, &["--emit", "text", "--stage", "optimised"]].concat();
        let text = succeed(dir.path(), &args);
        assert_ne!(text.contains("= conv2d "), text.contains("= input_to_points "), "{text}");
        text.contains("= conv2d ")
    };
    assert!(!is_direct(&["p.ron"]) && !is_direct(&["p.ron", "--math", "fast"]));
    assert!(is_direct(&["p.ron", "--math", "exact"]));
    assert!(is_direct(&["p.ron", "--device", "cuda:sm_80"]), "GPUs have no use for it");
    succeed(dir.path(), &["compile", "p.ron", "--math", "exact", "-o", "p.plan"]);
    assert!(is_direct(&["p.plan"]) && !is_direct(&["p.plan", "--math", "fast"]));
}

/// A run on the CPU computes at the precision that it began with, and says which; tf32 is of GPUs.
#[test]
fn a_run_in_bf16_stays_one() {
    let dir = TempDir::new().unwrap();
    let train = |more: &[&str]| {
        let args = ["train", "mlp-gan", "--set", "batch=32", "--data", "embedded", "--offline"];
        succeed(dir.path(), &[&args[..], more].concat())
    };
    let bf16 = ["--precision", "bf16"];
    assert!(train(&[&bf16[..], &["--steps", "4", "--name", "whole"]].concat()).contains(" in bf16, seed 2"));
    train(&[&bf16[..], &["--steps", "2", "--name", "parts"]].concat());
    let out = succeed(dir.path(), &["train", "--resume", "runs/parts", "--steps", "4", "--offline"]);
    assert!(out.contains(" in bf16, seed 2"), "{out}");
    train(&["--steps", "4", "--name", "f32"]);
    let state = |run: &str| fs::read(dir.path().join("runs").join(run).join("checkpoint.safetensors")).unwrap();
    assert!(state("whole") == state("parts") && state("whole") != state("f32"));
    let err = fail(dir.path(), 1, &["train", "mlp-gan", "--precision", "tf32"]);
    assert!(err.contains("--precision tf32 is for GPUs"), "{err}");
    let kernels = ["compile", "mlp-gan", "--precision", "bf16", "--emit", "text", "--stage", "operand-precision"];
    assert!(succeed(dir.path(), &kernels).contains("= convert "));
}

const NETWORK: &str = r#"networks: { "NAME": Network(input: [3], layers: [Dense(2), Relu()]) },
    entries: { "train_step": Entry(
        inputs: { "x": Tensor([2, 3]) },
        steps: [Let("loss", Mean(Call("NAME", "x", Training))), Minimise("loss", "NAME", Sgd(lr: 0.1))],
        outputs: ["loss"],
    ) }"#;

/// `--validate` says what it compared, as a table and in JSON, and that fusion is off where it is.
#[test]
fn validation_is_a_table() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("a.ron"), format!("Program(name: \"a\", {})", NETWORK.replace("NAME", "net"))).unwrap();
    let out = succeed(dir.path(), &["compile", "a.ron", "--validate", "--no-fusion"]);
    let header = out.lines().find(|line| line.contains("values compared")).unwrap_or_else(|| panic!("{out}"));
    assert!(header.contains("worst relative error") && header.contains("entry"), "{out}");
    assert!(out.lines().any(|line| line.contains("train_step") && line.contains("fold")), "{out}");
    assert!(out.contains(", fusion off:"), "{out}");
    let json = succeed(dir.path(), &["compile", "a.ron", "--validate", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let checks = json["checks"].as_array().unwrap();
    assert!(checks.iter().any(|check| check["values"].as_u64() > Some(0)), "{json}");
    assert!(checks.iter().all(|check| check["worst_relative_error"].as_f64().unwrap() <= 1e-9), "{json}");
    let plain = succeed(dir.path(), &["compile", "a.ron", "--json"]);
    assert!(!plain.contains("checks"), "{plain}");
}

/// A name from a file moves no cursor: neither one in a program nor one in a plan; both are refused.
#[test]
fn control_characters_in_names_are_shown() {
    let dir = TempDir::new().unwrap();
    let program = |name: &str| format!("Program(name: \"{name}\", {})", NETWORK.replace("NAME", "net"));
    fs::write(dir.path().join("escape.ron"), program(r"red\u{1b}[31m\u{9b}2J")).unwrap();
    let compiled = gcc_gan::compile::compile("a.ron", &program("a"), &Default::default(), &mut |_| {}).unwrap();
    let mut plan = compiled.plan.unwrap();
    plan.name = "\u{1b}[31mred\u{202e}".into();
    for entry in &mut plan.entries {
        entry.schedule.kernels.iter_mut().for_each(|kernel| kernel.name.push_str("\u{7}\r"));
        entry.schedule.buffers.iter_mut().for_each(|buffer| buffer.name.push('\u{9b}'));
    }
    gcc_gan::plan::save(&plan, &dir.path().join("escape.plan")).unwrap();
    let is_clean = |text: &str| text.chars().all(|c| c == '\n' || !(c.is_control() || c == '\u{202e}'));
    let mut shown = 0;
    for args in [
        &["compile", "escape.ron"][..],
        &["compile", "escape.plan", "--emit", "text", "--stage", "kernels"],
        &["profile", "escape.plan", "--steps", "1"],
        &["explain", "escape.plan", "loss/sum"],
        &["explain", "escape.plan"],
        &["diff", "escape.plan", "escape.plan"],
        &["diff", "escape.plan", "lenet"],
    ] {
        let out = run(dir.path(), args);
        assert_eq!(out.status.code(), Some(1), "{args:?}");
        let (out, err) = (text(&out.stdout), text(&out.stderr));
        assert!(is_clean(&out) && is_clean(&err), "{args:?}\n{out:?}\n{err:?}");
        shown += (out + &err).matches("\\u{").count();
    }
    assert!(shown > 3, "names are shown with what is in them");
}

/// One vocabulary: what the page calls a stage is its name here, and the other names lead to it.
#[test]
fn stages_have_one_name() {
    let dir = TempDir::new().unwrap();
    for (asked, meant) in [
        ("schedule", "--stage kernels"),
        ("expanded", "the stage declared"),
        ("im2col", "im2col is one with --device cuda:sm_90\n"),
    ] {
        let err = fail(dir.path(), 1, &["compile", "lenet", "--emit", "text", "--stage", asked]);
        assert!(err.contains(meant), "{err}");
    }
    let err = fail(dir.path(), 1, &["compile", "lenet", "--emit", "text", "--by", "layer"]);
    assert!(err.contains("--emit svg"), "{err}");
    let page = succeed(dir.path(), &["inspect", "lenet", "--json"]);
    let page: serde_json::Value = serde_json::from_str(&page).unwrap();
    let entry = &page["entries"][page["main"].as_u64().unwrap() as usize];
    let declared = &entry["stages"][0];
    assert_eq!(declared["name"], "declared");
    let text = succeed(dir.path(), &["compile", "lenet", "--json"]);
    let summary: serde_json::Value = serde_json::from_str(&text).unwrap();
    let same = summary["entries"].as_array().unwrap().iter().find(|e| e["name"] == entry["name"]).unwrap();
    assert_eq!(same["stages"][0][1].as_u64(), Some(declared["nodes"].as_array().unwrap().len() as u64));
}

/// A graph with one entry `f`, a function that it uses, and one that nobody does.
const FUNCTIONS: &str = r#"Program(
    name: "p",
    values: { "half": 0.5 },
    functions: {
        "Twice": Function(params: ["t"], body: Add("t", "t")),
        "Half": Function(params: ["h"], body: Mul("h", "half")),
    },
    entries: { "f": Entry(inputs: { "x": Tensor([4]) }, steps: [Let("y", Twice("x"))], outputs: ["y"]) },
)"#;

fn put_tensor(dir: &Path, file: &str, name: &str) {
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![4], &[0; 16]).unwrap();
    safetensors::serialize_to_file([(name, view)], None, &dir.join(file)).unwrap();
}

#[test]
fn a_function_that_is_run_is_used() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("p.ron"), FUNCTIONS).unwrap();
    put_tensor(dir.path(), "h", "h");
    succeed(dir.path(), &["run", "p.ron", "Half", "--inputs", "h", "--outputs", "o", "--deny-warnings"]);
    put_tensor(dir.path(), "t", "t");
    let err = fail(dir.path(), 1, &["run", "p.ron", "Twice", "--inputs", "t", "--outputs", "o", "--deny-warnings"]);
    assert!(err.contains("the function `Half` is never used"), "{err}");
    let err = fail(dir.path(), 1, &["run", "p.ron", "f", "--inputs", "t", "--outputs", "o2"]);
    assert!(err.contains("`t`"), "{err}");
    let err = fail(dir.path(), 1, &["run", "p.ron", "f", "--outputs", "o2"]);
    assert!(err.contains("has no other source for it\n"), "{err}");
}

/// What is read is never written over, by whatever name.
#[test]
fn no_input_is_overwritten() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("p.ron"), FUNCTIONS.replace("Half", "_Half").replace("\"half\"", "\"_half\"")).unwrap();
    put_tensor(dir.path(), "x", "x");
    fs::create_dir(at("folder")).unwrap();
    fs::hard_link(at("p.ron"), at("hard.ron")).unwrap();
    put_images(dir.path(), "images", 8);
    succeed(dir.path(), &["train", "mlp-gan", "--set", "batch=8", "--data", "images", "--steps", "1", "--name", "r"]);
    succeed(dir.path(), &["profile", "p.ron", "--steps", "1", "-o", "step.json"]);
    let checkpoint = "runs/r/checkpoint.safetensors";
    let mut cases: Vec<Vec<&str>> = vec![
        vec!["compile", "p.ron", "-o", "p.ron"],
        vec!["compile", "p.ron", "-o", "folder/../p.ron"],
        vec!["compile", "p.ron", "-o", "hard.ron"],
        vec!["compile", "p.ron", "--emit", "text", "-o", "p.ron"],
        vec!["inspect", "p.ron", "-o", "p.ron"],
        vec!["inspect", "p.ron", "--profile", "step.json", "-o", "step.json"],
        vec!["profile", "p.ron", "--steps", "1", "-o", "p.ron"],
        vec!["run", "p.ron", "f", "--inputs", "x", "--outputs", "x"],
        vec!["run", "p.ron", "f", "--inputs", "x", "--outputs", "p.ron"],
        vec!["run", "p.ron", "f", "--inputs", "x", "--outputs", checkpoint],
        vec!["run", "mlp-gan", "sample", "--checkpoint", "runs/r", "--outputs", checkpoint],
    ];
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("p.ron", at("link.ron")).unwrap();
        std::os::unix::fs::symlink(checkpoint, at("saved")).unwrap();
        cases.push(vec!["compile", "p.ron", "-o", "link.ron"]);
        cases.push(vec!["compile", "link.ron", "-o", "p.ron"]);
        cases.push(vec!["run", "p.ron", "f", "--inputs", "x", "--outputs", "saved"]);
    }
    let files = ["p.ron", "x", "step.json", checkpoint].map(at);
    let before = files.clone().map(|file| fs::read(file).unwrap());
    for args in &cases {
        let err = fail(dir.path(), 1, args);
        assert!(err.contains("would be overwritten"), "{args:?}: {err}");
    }
    assert!(before == files.map(|file| fs::read(file).unwrap()));
    let err = fail(dir.path(), 1, &["sample", "--checkpoint", "runs/r", "-o", "-"]);
    assert!(err.contains("standard output") && !at("-").exists(), "{err}");
    let err = fail(dir.path(), 1, &["sample", "--checkpoint", "runs", "-o", "x.png"]);
    assert!(err.contains("there is no run in runs: the folder of a run"), "{err}");
}

#[cfg(target_os = "linux")]
#[test]
fn an_output_that_cannot_be_written_is_named() {
    let dir = TempDir::new().unwrap();
    let text_of = &["compile", "mlp-gan", "--emit", "text"];
    for args in [&text_of[..], &["--help"], &["help", "train"], &["--version"]] {
        let full = gcc_gan(dir.path(), args).stdout(fs::File::create("/dev/full").unwrap()).output().unwrap();
        assert_eq!(full.status.code(), Some(1), "{args:?}");
        assert!(text(&full.stderr).contains("standard output cannot be written"), "{}", text(&full.stderr));
    }
    let mut child = gcc_gan(dir.path(), text_of).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let gone = child.wait_with_output().unwrap();
    assert_eq!((gone.status.code(), text(&gone.stderr).as_str()), (Some(141), ""));
}

/// A program whose samples are noise, of images that the classifier of `eval` takes.
const NOISE: &str = r#"Program(
    name: "noise",
    sizes: { "samples": 7 },
    networks: { "g": Network(input: [2], layers: [Dense(1)]) },
    entries: {
        "train_step": Entry(
            inputs: { "x": Images([4, 1, 28, 28]) },
            steps: [
                Let("loss", Mean(Mul(Mean("x"), Call("g", Normal([4, 2]), Training)))),
                Minimise("loss", "g", Sgd(lr: 0.1)),
            ],
            outputs: ["loss"],
        ),
        "sample": Entry(
            inputs: { "noise": Tensor(["samples", 784], "noise") },
            steps: [Let("images", Reshape("noise", ["samples", 1, 28, 28]))],
            outputs: ["images"],
        ),
    },
)"#;

#[test]
fn samples_are_measured() {
    let dir = TempDir::new().unwrap();
    let path = dir.path();
    fs::write(path.join("noise.ron"), NOISE).unwrap();
    let begin = ["train", "noise.ron", "--offline", "--data", "embedded", "--steps", "1", "--name", "r"];
    assert!(run(path, &begin).status.success());
    let eval = ["eval", "runs/r", "--offline", "--samples", "200"];
    let out = succeed(path, &[&eval[..], &["--threads", "1", "-o", "n.png"]].concat());
    insta::assert_snapshot!(out, @r"
    runs/r: `noise` after 1 steps, seed 0; 200 images against as many of 10,000 built-in MNIST digits
                                       samples              real
      Fréchet distance                  234.13              6.18  lower is better
      kernel distance (KID)   41.0906 ± 4.2800  -1.5181 ± 1.3824  lower is better
      precision                          0.560             0.910  samples that are like real images
      recall                             0.000             0.935  real images that there are samples like
      classifier score                    1.21              9.34  higher is better, up to 10
      classes covered                  2 of 10          10 of 10  with a tenth of an even share
      balance of classes                 0.145             0.989  1 where all are as frequent
      nearest training image             0.576             0.163  root mean square of pixels, of the first 200; far below real: copied
    samples of each class: 0: 0  1: 0  2: 8  3: 2  4: 2  5: 2  6: 0  7: 0  8: 186  9: 0
    wrote n.png: samples, each beside its nearest training image
    ");
    let image = image::open(path.join("n.png")).unwrap();
    assert_eq!((image.width(), image.height()), (302, 242), "8 rows of 5 pairs, 2 pixels apart");
    let json = |more: &[&str]| -> serde_json::Value {
        serde_json::from_str(&succeed(path, &[&eval[..], &["--json"], more].concat())).unwrap()
    };
    let (one, many) = (json(&["--threads", "1"]), json(&["--threads", "3"]));
    assert_eq!(one, many, "threads change no bit");
    assert_ne!(one["measures"], json(&["--seed", "1"])["measures"]);
    assert!(one["measures"]["frechet_distance"].as_f64() > one["real"]["frechet_distance"].as_f64());

    let told = [
        (&["--samples", "5001"][..], "from 20 to 5000"),
        (&["--samples", "3"], "from 20 to 5000"),
        (&["--ema"], "moving average"),
        (&["-o", "n.bmp"], "n.bmp names no format"),
        (&["-o", "runs/r/checkpoint.safetensors"], "overwritten"),
    ];
    for (more, part) in told {
        let err = fail(path, 1, &[&["eval", "runs/r", "--offline"][..], more].concat());
        assert!(err.contains(part), "{more:?}: {err}");
    }
    put_images(path, "few", 30);
    let err = fail(path, 1, &["eval", "runs/r", "--offline", "--data", "few"]);
    assert!(err.contains("40 real images are needed, and there are 30"), "{err}");
    // What makes no images, or others than the classifier takes, is refused before anything takes time.
    let other = NOISE.replace(r#""samples", 1, 28, 28"#, r#""samples", 4, 14, 14"#);
    for (name, text, part) in [("tiny", TINY_GAN, "no entry `sample`"), ("other", &other, "28×28")] {
        fs::write(path.join(name), text).unwrap();
        let trained = run(path, &["train", name, "--offline", "--data", "embedded", "--steps", "1", "--name", name]);
        assert!(trained.status.success(), "{}", self::text(&trained.stderr));
        let err = fail(path, 1, &["eval", &format!("runs/{name}"), "--offline"]);
        assert!(err.contains(part), "{err}");
    }
}

#[test]
fn models_go_elsewhere_and_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let sets = ["--set", "batch=8", "--data", "embedded", "--offline", "--steps", "2", "--name", "a"];
    succeed(path, &[&["train", "mlp-gan"][..], &sets].concat());

    let out = succeed(path, &["export", "runs/a", "-o", "a.onnx"]);
    assert!(out.starts_with("wrote a.onnx: noise -> images after 2 steps"), "{out}");
    let out = succeed(path, &["export", "runs/a", "--network", "generator", "--json"]);
    let facts: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&facts["file"], &facts["any_number_of_examples"]), (&"mlp-gan.onnx".into(), &true.into()));
    let err = fail(path, 1, &["export", "runs/a"]);
    assert!(err.contains("mlp-gan.onnx exists already") && err.contains("-o"), "{err}");
    let err = fail(path, 1, &["export", "runs/a", "--entry", "train_step", "-o", "b.onnx"]);
    assert!(err.contains("changes the state") && err.contains("Minimise") && err.contains("--network"), "{err}");
    for (args, told) in [
        (&["--entry", "smaple"][..], "no entry `smaple`"),
        (&["--network", "none"], "no network `none`"),
        (&["--ema"], "no moving average"),
        (&["--format", "safetensors", "--opset", "20"], "--opset is for ONNX"),
        (&["--format", "safetensors", "--network", "none"], "those of discriminator, generator"),
    ] {
        let err = fail(path, 1, &[&["export", "runs/a", "-o", "b.onnx"][..], args].concat());
        assert!(err.contains(told), "{err}");
    }
    for name in ["own.pt", "own"] {
        let err = fail(path, 1, &["export", "runs/a", "-o", name]);
        assert!(
            err.contains(&format!("{name} names no format by its end: .onnx or .safetensors was expected")),
            "{err}"
        );
    }
    fail(path, 2, &["export", "runs/a", "--opset", "3"]);
    let err = fail(path, 1, &["export", "runs/a", "-o", "runs/a/checkpoint.safetensors"]);
    assert!(err.contains("would be overwritten"), "{err}");
    if Path::new("/dev/full").exists() {
        let err = fail(path, 1, &["export", "runs/a", "--format", "onnx", "-o", "/dev/full"]);
        assert!(err.contains("/dev/full cannot be written"), "{err}");
    }
    assert!(!path.join("b.onnx").exists());

    succeed(path, &["export", "runs/a", "-o", "a.safetensors"]);
    let bytes = fs::read(path.join("a.safetensors")).unwrap();
    let weight = SafeTensors::deserialize(&bytes).unwrap().tensor("generator.0.weight").unwrap().shape().to_vec();
    assert_eq!(weight[1], 64);
    for from in [&["--into", "runs/a"][..], &["--program", "mlp-gan", "--set", "batch=8", "--data", "embedded"]] {
        let name = format!("runs/{}", &from[0][2..]);
        succeed(path, &[&["import", "a.safetensors", "-o", &name][..], from].concat());
        succeed(path, &["export", &name, "-o", "b.safetensors"]);
        assert_eq!(fs::read(path.join("b.safetensors")).unwrap(), bytes);
        succeed(path, &["train", "--offline", "--resume", &name, "--steps", "1"]);
        succeed(path, &["sample", "--checkpoint", &name, "--grid", "1x1", "-o", "a.png"]);
    }
    let err = fail(path, 1, &["import", "a.safetensors", "--into", "runs/a", "-o", "runs/a"]);
    assert!(err.contains("exists already"), "{err}");
    let err = fail(path, 1, &["import", "a.safetensors", "--program", "vae", "-o", "runs/v"]);
    assert!(err.contains("is missing") && err.contains("is not in the program"), "{err}");
    fs::write(path.join("cut.safetensors"), &bytes[..bytes.len() / 2]).unwrap();
    let err = fail(path, 1, &["import", "cut.safetensors", "--into", "runs/a", "-o", "runs/v"]);
    assert!(err.contains("cut.safetensors") && err.contains("truncated"), "{err}");
    fail(path, 2, &["import", "a.safetensors", "-o", "runs/v"]);
    assert!(!path.join("runs/v").exists());

    // One network, into a run that differs in all.
    succeed(
        path,
        &["train", "mlp-gan", "--seed", "9", "--steps", "2", "--set", "batch=8", "--data", "embedded", "--name", "z"],
    );
    succeed(path, &["export", "runs/a", "--network", "generator", "-o", "g.safetensors"]);
    let err = fail(path, 1, &["import", "g.safetensors", "--into", "runs/z", "-o", "runs/v"]);
    assert!(err.contains("say which by --network generator"), "{err}");
    let import = ["import", "g.safetensors", "--network", "generator", "--into", "runs/z", "-o", "runs/mixed"];
    assert!(succeed(path, &import).contains("all of the other networks is as in runs/z"));
    for (of, network) in [("a", "generator"), ("z", "discriminator")] {
        for (run, file) in [(of, "x.safetensors"), ("mixed", "y.safetensors")] {
            succeed(path, &["export", &format!("runs/{run}"), "--network", network, "-o", file]);
        }
        assert_eq!(fs::read(path.join("x.safetensors")).unwrap(), fs::read(path.join("y.safetensors")).unwrap());
    }
    succeed(path, &["train", "--offline", "--resume", "runs/mixed", "--steps", "1"]);
}

#[test]
fn example_inputs_can_be_run() {
    let dir = tempfile::tempdir().unwrap();
    for entry in ["train_step", "sample"] {
        let out = succeed(dir.path(), &["inputs", "cgan", entry, "--set", "batch=2", "--example", "in.safetensors"]);
        assert!(out.contains("labels u32["), "{out}");
        let io = ["--inputs", "in.safetensors", "--outputs", "out.safetensors", "--set", "batch=2"];
        succeed(dir.path(), &[&["run", "cgan", entry][..], &io].concat());
    }
    let err = fail(dir.path(), 1, &["inputs", "cgan", "init", "--example", "in.safetensors"]);
    assert!(err.contains("takes no inputs"), "{err}");
    fail(dir.path(), 2, &["inputs", "cgan", "--example", "in.safetensors"]);
}
