//! Every command of the README runs as it is written there.
//!
//! What takes hours is interrupted as a user would, once its run is saved. Commands for a GPU may end with the error that says
//! what this machine lacks.

#![cfg(unix)]

use gcc_gan::train::data::{Split, embedded};
use safetensors::{Dtype, tensor::TensorView};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Commands that are not run here, and why.
const ELSEWHERE: [(&str, &str); 4] = [
    ("cargo test", "is what runs this"),
    ("cargo install", "changes the machine"),
    ("tensorboard ", "is another program's; tests/tensorboard/ reads the files with it"),
    ("tests/cuda/gpu.sh", "is for a machine with a GPU"),
];
/// What errors say where there is no GPU, no driver or no compiler for it.
const NO_GPU: [&str; 2] = ["libcuda", "NVRTC"];
/// Images of the data sets here: enough for some batches.
const IMAGES: usize = 1000;

/// The lines of all blocks of shell commands, without their remarks.
fn commands() -> Vec<String> {
    let readme = include_str!("../README.md");
    let blocks = readme.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let lines = blocks.flat_map(str::lines).map(|line| line.split(" #").next().unwrap().trim());
    lines.filter(|line| !line.is_empty()).map(String::from).collect()
}

/// A folder as a user's, with the files that the README takes to be there.
struct Home {
    dir: TempDir,
    path: String,
}

impl Home {
    fn new() -> Home {
        let dir = TempDir::new().unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_gcc-gan")).parent().unwrap().display();
        let path = format!("{program}:{}", std::env::var("PATH").unwrap());
        let home = Home { dir, path };
        std::os::unix::fs::symlink(concat!(env!("CARGO_MANIFEST_DIR"), "/graphs"), home.at("graphs")).unwrap();
        let digits = embedded::load().train;
        for set in ["mnist", "fashion-mnist"] {
            put_set(&home.at("data").join(set), &digits);
        }
        put_pictures(&home.at("photos"));
        let dcgan = fs::read_to_string(home.at("graphs/dcgan.ron")).unwrap();
        fs::write(home.at("my-dcgan.ron"), dcgan.replace("\"batch\": 128", "\"batch\": 64")).unwrap();
        put_array(&home.at("samples.npy"), &digits);
        home
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn start(&self, line: &str) -> Child {
        let [out, err] = ["out.txt", "err.txt"].map(|name| File::create(self.at(name)).unwrap());
        let mut command = Command::new("sh");
        // The shell's place is taken, so that an interrupt reaches the program.
        command.args(["-c", &format!("exec {line}")]).current_dir(self.dir.path());
        command.env("PATH", &self.path).env("HOME", self.dir.path()).env("GCC_GAN_DATA", self.at("data"));
        command.env("XDG_CACHE_HOME", self.at("cache"));
        command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().unwrap()
    }

    /// What the command wrote on either stream.
    fn said(&self) -> [String; 2] {
        ["out.txt", "err.txt"].map(|name| fs::read_to_string(self.at(name)).unwrap_or_default())
    }

    /// Waits for a command; one that trains is interrupted when its run is saved and it has gone on.
    fn end(&self, mut child: Child) -> ExitStatus {
        let begun = Instant::now();
        let mut is_asked = false;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            let [out, _] = self.said();
            let run = out.lines().find_map(|line| line.strip_prefix("run: "));
            let is_saved = run.is_some_and(|run| self.at(run).join("checkpoint.safetensors").exists());
            if is_saved && !is_asked {
                std::thread::sleep(Duration::from_millis(500));
                is_asked = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success();
            }
            assert!(begun.elapsed() < Duration::from_secs(900), "it takes too long");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn run(&self, line: &str) {
        let begun = Instant::now();
        let output = line.split_once(" -o ").map(|(_, rest)| self.at(rest.split_whitespace().next().unwrap()));
        // Of an earlier command, so that only this one can have written it.
        output.iter().for_each(|file| drop(fs::remove_file(file)));
        let status = self.end(self.start(line));
        let [out, err] = self.said();
        let trains = line.starts_with("gcc-gan train");
        let differs = line.starts_with("gcc-gan diff") && status.code() == Some(1) && !out.is_empty();
        let lacks_gpu = line.contains("cuda") && NO_GPU.iter().any(|name| err.contains(name));
        let interrupted = trains && status.code() == Some(130);
        let fine = status.success() || interrupted || differs || (lacks_gpu && status.code() == Some(1));
        assert!(fine, "`{line}` ended with {status}\n{out}\n{err}");
        if let Some(file) = output.filter(|_| status.success()) {
            assert!(file.exists(), "`{line}` wrote no {}", file.display());
        }
        println!("{:6.1} s  {line}", begun.elapsed().as_secs_f64());
    }
}

fn put_set(dir: &Path, digits: &Split) {
    fs::create_dir_all(dir).unwrap();
    let of = |kind: u8, count: usize, shape: &[u32], bytes: &[u8]| {
        let mut file = vec![0, 0, 8, kind];
        file.extend((count as u32).to_be_bytes());
        shape.iter().for_each(|size| file.extend(size.to_be_bytes()));
        file.extend(bytes);
        file
    };
    let labels = digits.labels.as_ref().unwrap();
    for (name, first) in [("train", 0), ("t10k", IMAGES)] {
        let images = &digits.images[first * 784..][..IMAGES * 784];
        fs::write(dir.join(format!("{name}-images-idx3-ubyte")), of(3, IMAGES, &[28, 28], images)).unwrap();
        let labels = &labels[first..][..IMAGES];
        fs::write(dir.join(format!("{name}-labels-idx1-ubyte")), of(1, IMAGES, &[], labels)).unwrap();
    }
}

fn put_pictures(dir: &Path) {
    for (i, class) in (0..160u32).zip(["cats", "dogs"].into_iter().cycle()) {
        fs::create_dir_all(dir.join(class)).unwrap();
        let pixel = |x: u32, y: u32| image::Rgb([(x + i) as u8, (3 * y) as u8, (x * y + i) as u8]);
        let picture = image::RgbImage::from_fn(70 + i % 9, 80, pixel);
        picture.save(dir.join(class).join(format!("{i}.png"))).unwrap();
    }
}

/// As `numpy.save` writes it.
fn put_array(file: &Path, digits: &Split) {
    let mut header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({IMAGES}, 28, 28), }}");
    header += &" ".repeat(127 - 10 - header.len());
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.bytes());
    bytes.extend(&digits.images[..IMAGES * 784]);
    fs::write(file, bytes).unwrap();
}

/// Noise for the generator of the DCGAN.
fn put_noise(file: &Path) {
    let bytes = vec![0; 4 * 128 * 300];
    let noise = TensorView::new(Dtype::F32, vec![128, 300], &bytes).unwrap();
    fs::write(file, safetensors::serialize([("input", noise)], None).unwrap()).unwrap();
}

#[test]
fn every_command_runs() {
    let home = Home::new();
    put_noise(&home.at("noise.safetensors"));
    // Runs that the text speaks of without a command of their own.
    for program in ["cgan", "vae", "dcgan-paper"] {
        home.run(&format!("gcc-gan train {program} --steps 1 --data embedded --set batch=16"));
    }
    for name in ["before", "after"] {
        home.run(&format!("gcc-gan profile mlp-gan --set batch=8 --steps 2 -o {name}.json"));
    }
    let commands = commands();
    assert!(commands.len() > 60, "{commands:?}");
    for line in &commands {
        // Its first command builds the program as well.
        let line = line.replace("cargo run --release --", "gcc-gan");
        match ELSEWHERE.iter().find(|(start, _)| line.starts_with(start)) {
            Some((_, why)) => println!("  not run  {line}: it {why}"),
            None => home.run(&line),
        }
    }
}

/// Words but for numbers, which other processors round otherwise, and for the marks at the edge of wrapped lines.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_whitespace().filter(|word| *word != "|" && word.parse::<f64>().is_err())
}

#[test]
fn the_shown_divergence_is_what_the_program_says() {
    let readme = include_str!("../README.md");
    let block = readme.split("```text\n$ gcc-gan train").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let (options, shown) = block.split_once('\n').unwrap();
    let home = Home::new();
    let status = home.start(&format!("gcc-gan train{options}")).wait().unwrap();
    assert_eq!(status.code(), Some(1));
    let [_, err] = home.said();
    // What is shown may leave lines out.
    let mut said = words(&err);
    for word in words(shown) {
        assert!(said.any(|found| found == word), "the README's `{word}` is not said, or not there:\n{err}");
    }
}
