//! The library's rooms and which others each may use, checked against the paths in the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Every room with the rooms that it may use. Rooms come after those that they use.
const ROOMS: [(&str, &[&str]); 22] = [
    ("tensor", &[]),
    ("scalar", &["tensor"]),
    ("types", &["tensor"]),
    ("atomic", &[]),
    ("visible", &[]),
    ("winograd", &["types"]),
    ("kernel", &["scalar", "tensor", "types", "winograd"]),
    ("plan", &["atomic", "kernel", "scalar", "tensor", "types", "winograd"]),
    ("exec", &["atomic", "kernel", "plan", "scalar", "tensor", "types", "winograd"]),
    ("ir", &["scalar", "tensor", "types", "winograd"]),
    ("autodiff", &["ir", "scalar", "tensor", "types"]),
    ("declare", &["autodiff", "ir", "scalar", "tensor", "types"]),
    ("export", &["autodiff", "declare", "ir", "scalar", "tensor", "types"]),
    ("passes", &["autodiff", "ir", "scalar", "tensor", "types", "winograd"]),
    ("schedule", &["ir", "kernel", "scalar", "tensor", "types", "winograd"]),
    ("compile", &["autodiff", "declare", "ir", "kernel", "passes", "plan", "schedule", "tensor", "types"]),
    (
        "train",
        &["atomic", "compile", "declare", "exec", "ir", "kernel", "plan", "scalar", "tensor", "types", "visible"],
    ),
    ("replay", &["autodiff", "compile", "declare", "exec", "ir", "passes", "plan", "tensor", "types"]),
    ("tune", &["compile", "exec", "kernel", "plan", "schedule", "tensor", "types"]),
    (
        "inspect",
        &[
            "atomic", "compile", "declare", "exec", "ir", "kernel", "passes", "plan", "replay", "scalar", "schedule",
            "tensor", "train", "types", "visible", "winograd",
        ],
    ),
    (
        "testing",
        &[
            "autodiff", "compile", "declare", "exec", "inspect", "ir", "kernel", "passes", "plan", "replay", "scalar",
            "schedule", "tensor", "train", "types", "winograd",
        ],
    ),
    ("cli", &[]),
];

/// A plan runs without the compiler: these use neither its rooms nor the graph.
const RUNTIME: [&str; 7] = ["scalar", "tensor", "types", "winograd", "kernel", "plan", "exec"];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn is_test(path: &Path) -> bool {
    path.components().any(|part| {
        let part = part.as_os_str().to_string_lossy();
        part == "tests" || part == "tests.rs" || part.ends_with("_tests.rs")
    })
}

/// The code of a file without its comments and without the tests at its end.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_string();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The rooms that each room names as `crate::…`, each with a file that does.
fn uses() -> BTreeMap<String, BTreeMap<String, PathBuf>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut found: BTreeMap<String, BTreeMap<String, PathBuf>> = BTreeMap::new();
    for file in files.into_iter().filter(|file| !is_test(file)) {
        let inner = file.strip_prefix(&root).unwrap();
        let room = inner.components().next().unwrap().as_os_str().to_string_lossy().trim_end_matches(".rs").to_string();
        if ["lib", "main"].contains(&room.as_str()) {
            continue;
        }
        let text = code(&file);
        let room_uses = found.entry(room.clone()).or_default();
        for part in text.split("crate::").skip(1) {
            let used: String = part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if used != room && !used.is_empty() {
                room_uses.entry(used).or_insert_with(|| inner.to_path_buf());
            }
        }
    }
    found
}

#[test]
fn rooms_use_only_what_stands_below_them() {
    let known: BTreeMap<&str, BTreeSet<&str>> =
        ROOMS.iter().map(|(room, below)| (*room, below.iter().copied().collect())).collect();
    let mut wrong = Vec::new();
    for (room, used) in uses() {
        let Some(allowed) = known.get(room.as_str()) else {
            wrong.push(format!("`{room}` is a new room: say here what it may use"));
            continue;
        };
        for (other, file) in used.iter().filter(|(other, _)| !allowed.contains(other.as_str())) {
            wrong.push(format!("{} uses `{other}`, which `{room}` may not", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is allowed has no circle: each room's list holds rooms that come before it.
#[test]
fn no_circle_is_allowed() {
    for (i, (room, below)) in ROOMS.iter().enumerate() {
        for other in *below {
            let place = ROOMS.iter().position(|(name, _)| name == other);
            assert!(place.is_some_and(|place| place < i), "`{room}` uses `{other}`, which comes after it");
        }
    }
}

#[test]
fn a_plan_runs_without_the_compiler() {
    for (room, below) in ROOMS.iter().filter(|(room, _)| RUNTIME.contains(room)) {
        let others: Vec<&&str> = below.iter().filter(|other| !RUNTIME.contains(other) && **other != "atomic").collect();
        assert!(others.is_empty(), "`{room}` may use {others:?}");
    }
}
