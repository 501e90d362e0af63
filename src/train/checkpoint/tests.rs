//! Tests of saving and loading checkpoints, and of what a kill, a full disk or a flipped bit does to them.

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

fn meta(step: u64) -> Meta {
    Meta {
        program: "small".into(),
        text: "(sizes: {})".into(),
        sets: [("batch".to_owned(), "64".to_owned())].into(),
        data: "auto".into(),
        digest: "0123456789abcdef".into(),
        target: Some(Target { epochs: Some(3), steps: None }),
        optional: Vec::new(),
        tuned: Vec::new(),
        fusion: crate::kernel::target::Fusion::On,
        fast_math: false,
        convolutions: Convolutions::default(),
        made_for: None,
        ran_on: None,
        precision: Precision::default(),
        seed: u64::MAX,
        step,
        position: Position { epoch: 2, batch: 7 },
    }
}

const WEIGHTS: [f32; 6] = [1.0, -0.0, f32::MIN_POSITIVE / 2.0, f32::NEG_INFINITY, 1e-30, 3.5];

fn tensors() -> [(&'static str, Tensor); 4] {
    [
        ("w", Tensor::new([2, 3], &WEIGHTS)),
        ("counter", Tensor::new([2], &[7, u32::MAX])),
        ("adam t", Tensor::new([], &[3.0f32])),
        ("nothing", Tensor::new::<f32>([0, 4], &[])),
    ]
}

fn owned(tensors: &[(&str, Tensor)]) -> Vec<(String, Tensor)> {
    tensors.iter().map(|(name, tensor)| (name.to_string(), tensor.clone())).collect()
}

fn save_all(file: &Path, meta: &Meta, tensors: &[(&str, Tensor)]) -> Result<(), CheckpointError> {
    save(file, meta, &mut owned(tensors))
}

fn write_all(out: &mut impl Write, meta: &Meta, tensors: &[(&str, Tensor)]) -> Result<(), Problem> {
    write_to(out, meta, &mut owned(tensors))
}

fn bytes() -> Vec<u8> {
    let mut out = Vec::new();
    write_all(&mut out, &meta(5), &tensors()).unwrap();
    out
}

fn load_bytes(bytes: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c");
    fs::write(&file, bytes).unwrap();
    load(&file).unwrap_err().to_string().replace(dir.path().to_str().unwrap(), "DIR")
}

#[test]
fn what_is_saved_is_loaded_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.safetensors");
    save_all(&file, &meta(5), &tensors()).unwrap();
    let loaded = load(&file).unwrap();
    assert_eq!(loaded.meta, meta(5));
    assert_eq!(loaded.tensors.len(), 4);
    // Tensors are equal where their bits are.
    for (name, tensor) in tensors() {
        assert_eq!(loaded.tensors[name], tensor);
    }
}

#[test]
fn facts_of_older_versions_are_read() {
    let mut old = serde_json::to_value(meta(7)).unwrap();
    for newer in ["digest", "optional", "fusion", "fast_math", "convolutions", "target"] {
        assert!(old.as_object_mut().unwrap().remove(newer).is_some(), "{newer}");
    }
    let read: Meta = serde_json::from_value(old.clone()).unwrap();
    assert_eq!((read.step, read.target, read.convolutions), (7, None, Convolutions::Accurate));
    for (is_exact, how) in [(true, Convolutions::Exact), (false, Convolutions::Accurate)] {
        old["direct_convolutions"] = is_exact.into();
        assert_eq!(serde_json::from_value::<Meta>(old.clone()).unwrap().convolutions, how);
    }
}

#[test]
fn tensors_larger_than_a_block_survive() {
    let values: Vec<f32> = (0..5000).map(|i| i as f32).collect();
    let mut out = Vec::new();
    write_all(&mut out, &meta(0), &[("x", Tensor::new([5000], &values))]).unwrap();
    assert_eq!(try_decode(&out).unwrap().1["x"].values(), Some(&values[..]));
}

/// The bytes are those of the format: the crate's own reader agrees, and the tensors are aligned.
#[test]
fn other_readers_understand_the_file() {
    let (bytes, again) = (bytes(), bytes());
    assert_eq!(bytes, again, "the same state gives the same file");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor("counter").unwrap();
    assert_eq!((view.dtype(), view.shape()), (safetensors::Dtype::U32, &[2usize][..]));
    assert_eq!(view.data(), [7, 0, 0, 0, 255, 255, 255, 255]);
    assert_eq!(u64::from_le_bytes(bytes[..8].try_into().unwrap()) % 8, 0);
}

#[test]
fn the_one_before_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c");
    for step in 1..=4 {
        save_all(&file, &meta(step), &tensors()).unwrap();
        assert_eq!(load(&file).unwrap().meta.step, step);
        if step > 1 {
            assert_eq!(load(&previous(&file)).unwrap().meta.step, step - 1);
        }
    }
    // As after a kill between keeping the old one and putting the new one in its place.
    keep_previous(&file).unwrap();
    keep_previous(&file).unwrap();
    assert_eq!(load(&previous(&file)).unwrap().meta.step, 4);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no litter");
}

#[test]
fn contradictions_are_refused_and_the_old_file_stays() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c");
    save_all(&file, &meta(1), &tensors()).unwrap();
    let one = |name| (name, Tensor::new([2], &[1.0f32, 2.0]));
    let cases =
        [(vec![one("a"), one("a")], "a occurs twice"), (vec![one("__metadata__")], "a name that the format reserves")];
    for (tensors, message) in cases {
        let error = save_all(&file, &meta(2), &tensors).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    assert_eq!(load(&file).unwrap().meta.step, 1);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no litter");
}

#[test]
fn every_damaged_file_is_told_apart() {
    let whole = bytes();
    let foreign = safetensors::serialize::<&str, safetensors::tensor::TensorView<'_>, _>([], None).unwrap();
    let half = safetensors::tensor::TensorView::new(safetensors::Dtype::F16, vec![1], &[0, 0]).unwrap();
    let facts: HashMap<_, _> = [("format", FORMAT), ("meta", "{}")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", vec![]),
        ("cut in the header", whole[..50].to_vec()),
        ("cut in the tensors", whole[..whole.len() - 1].to_vec()),
        ("longer", [&whole[..], &[0]].concat()),
        ("a huge header", [&u64::MAX.to_le_bytes()[..], &whole[8..]].concat()),
        ("not JSON", [&8u64.to_le_bytes()[..], b"{]      "].concat()),
        ("foreign", foreign),
        ("half precision", safetensors::serialize([("w", half)], Some(facts)).unwrap()),
        ("a flipped bit", {
            let mut bytes = whole.clone();
            *bytes.last_mut().unwrap() ^= 1;
            bytes
        }),
    ];
    let report: Vec<String> = cases.iter().map(|(name, bytes)| format!("{name}: {}", load_bytes(bytes))).collect();
    insta::assert_snapshot!(report.join("\n"));
}

#[test]
fn a_misfit_lists_each_tensor() {
    let (meta, tensors) = try_decode(&bytes()).unwrap();
    let checkpoint = Checkpoint { file: "runs/a/c".into(), meta, tensors };
    let check = |expected: &[(&str, Type)]| {
        checkpoint.check(&expected.iter().map(|(name, ty)| (*name, ty)).collect::<Vec<_>>())
    };
    let fitting = [
        ("w", Type::f32([2, 3])),
        ("counter", Type::u32([2])),
        ("adam t", Type::f32([])),
        ("nothing", Type::f32([0, 4])),
    ];
    check(&fitting).unwrap();
    let other = [
        ("w", Type::f32([3, 2])),
        ("counter", Type::f32([2])),
        ("bias", Type::f32([3])),
        ("nothing", Type::f32([0, 4])),
    ];
    insta::assert_snapshot!(check(&other).unwrap_err());
}

#[test]
fn a_damaged_file_points_at_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c");
    save_all(&file, &meta(1), &tensors()).unwrap();
    save_all(&file, &meta(2), &tensors()).unwrap();
    fs::write(&file, "junk").unwrap();
    let error = load(&file).unwrap_err().to_string();
    assert!(error.contains("rename ") && error.contains("c.prev to resume from there"), "{error}");
}

/// A device that is always full.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error() {
    let mut full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let problem = write_all(&mut full, &meta(1), &tensors()).unwrap_err();
    assert!(matches!(&problem, Problem::Write(error) if error.kind() == io::ErrorKind::StorageFull), "{problem}");
    let error = CheckpointError { file: "c".into(), problem }.to_string();
    assert!(error.contains("No space left on device"), "{error}");
}

/// The role of the process that [`a_kill_at_any_moment_leaves_a_whole_checkpoint`] kills: it saves without end.
#[test]
#[ignore = "started by another test, with a file to write"]
fn save_until_killed() {
    let Some(file) = std::env::var_os("GCC_GAN_TEST_CHECKPOINT") else { return };
    let values: Vec<u32> = vec![0; 1 << 16];
    for step in 0.. {
        let values: Vec<u32> = values.iter().map(|_| step as u32).collect();
        save_all(Path::new(&file), &meta(step), &[("x", Tensor::new([1 << 16], &values))]).unwrap();
    }
}

#[test]
fn a_kill_at_any_moment_leaves_a_whole_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c");
    let mut reached = 0;
    for round in 0..12u64 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["train::checkpoint::tests::save_until_killed", "--exact", "--ignored", "--quiet"])
            .env("GCC_GAN_TEST_CHECKPOINT", &file)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let start = std::time::Instant::now();
        while !file.exists() && start.elapsed().as_secs() < 30 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        std::thread::sleep(std::time::Duration::from_micros(20_000 + 3_713 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        for file in [file.clone(), previous(&file)].into_iter().filter(|file| file.exists()) {
            let loaded = load(&file).unwrap();
            let values = loaded.tensors["x"].values::<u32>().unwrap();
            assert!(values.iter().all(|&value| u64::from(value) == loaded.meta.step));
            reached = reached.max(loaded.meta.step);
        }
    }
    assert!(reached > 0, "the child never saved twice");
    atomic::remove_stale(dir.path(), std::time::Duration::ZERO);
    assert!(fs::read_dir(dir.path()).unwrap().count() <= 2, "what a kill leaves behind can be cleared away");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever is done to a checkpoint, loading gives an error or, if the content is the same, the same content.
    #[test]
    fn corrupted_files_never_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
        truncate in prop::bool::weighted(0.2),
    ) {
        let whole = bytes();
        let mut bytes = whole.clone();
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if truncate {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok((meta, tensors)) = try_decode(&bytes) {
            let (same_meta, same) = try_decode(&whole).unwrap();
            prop_assert_eq!(meta, same_meta);
            prop_assert_eq!(tensors, same);
        }
    }

    #[test]
    fn random_headers_never_panic(header in "[{}\":,a-z0-9\\[\\] ]{0,80}", tail in prop::collection::vec(any::<u8>(), 0..40)) {
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &tail].concat();
        prop_assert!(try_decode(&bytes).is_err());
    }
}
