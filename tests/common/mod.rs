//! The program as a user starts it, for the tests of its commands.

// Each test program uses some of these.
#![allow(dead_code)]

use std::path::Path;
use std::process::{Command, Output};

/// The program in a folder of its own, without a network, a cache or a terminal.
pub fn gcc_gan(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gcc-gan"));
    command.args(args).current_dir(dir).env("HOME", dir).env("XDG_CACHE_HOME", dir.join("cache"));
    command.env_remove("GCC_GAN_DATA").env_remove("GCC_GAN_LOG").env("COLUMNS", "100");
    command
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub fn run(dir: &Path, args: &[&str]) -> Output {
    gcc_gan(dir, args).output().unwrap()
}

/// Standard output of a command that succeeds and says nothing on standard error.
pub fn succeed(dir: &Path, args: &[&str]) -> String {
    let (out, err) = succeed_with(dir, args);
    assert_eq!(err, "", "{args:?}");
    out
}

/// Standard output and standard error of a command that succeeds.
pub fn succeed_with(dir: &Path, args: &[&str]) -> (String, String) {
    let output = run(dir, args);
    let err = text(&output.stderr);
    assert!(output.status.success(), "{args:?}: {}\n{err}", output.status);
    (text(&output.stdout), err)
}

/// Standard error of a command that fails with `code`. It is no panic, and all of it ends in a line.
pub fn fail(dir: &Path, code: i32, args: &[&str]) -> String {
    let output = run(dir, args);
    let err = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}:\n{err}");
    assert!(!err.contains("panicked") && err.ends_with('\n') && err.len() > 10, "{args:?}:\n{err}");
    err
}

const SMALL: [&str; 6] = ["--set", "batch=8", "--set", "noise_batch=8", "--data", "embedded"];

/// Arguments that train the DCGAN on few images a step.
pub fn train<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["train", "--offline"][..], &SMALL, more].concat()
}
