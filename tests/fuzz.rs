//! Valid examples of each format that is read, changed in many ways: whatever they are, they are read or refused.
//!
//! The same functions are the targets of `fuzz/`, for as long as one likes.

use gcc_gan::exec::cpu::CpuDevice;
use gcc_gan::exec::cuda;
use gcc_gan::ir::{DType, text};
use gcc_gan::kernel::access::Access;
use gcc_gan::kernel::body::{Body, BufferId, Expr, Exprs, Kernel, Nest, Store, Sweep};
use gcc_gan::kernel::choice::{Algorithm, Choice};
use gcc_gan::kernel::target::Architecture;
use gcc_gan::plan::device_code::{self, CodeKind, CodeSet, DeviceCode, Image};
use gcc_gan::plan::{Buffer, BufferRole, Plan, Storage, decode, encode, verify};
use gcc_gan::scalar::{Lane, ScalarOp};
use gcc_gan::tensor::Tensor;
use gcc_gan::testing::formats::{self, PLAN, PROGRAM};
use gcc_gan::testing::{GraphOptions, random_graph};
use gcc_gan::train::checkpoint::{Meta, save};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::Value;
use sha2::Digest as _;
use std::io::{Read as _, Write as _};
use std::sync::Arc;

type Edit = (Index, Index, u8, u8);

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    prop::collection::vec((any::<Index>(), any::<Index>(), any::<u8>(), 0..8u8), 1..5)
}

/// Numbers at which arithmetic breaks.
const NUMBERS: &[&str] = &[
    "0",
    "-1",
    "2147483647",
    "2147483648",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "-9223372036854775808",
    "1e308",
    "1e999",
    "99999999999999999999999999",
];

/// Bytes flipped, removed, doubled, moved, cut off; digits replaced by huge numbers.
fn changed(example: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut bytes = example.to_vec();
    for (at, other, byte, edit) in edits {
        if bytes.is_empty() {
            break;
        }
        let (i, j) = (at.index(bytes.len()), other.index(bytes.len()));
        let (low, high) = (i.min(j), i.max(j));
        match edit {
            0 => bytes[i] = *byte,
            1 => bytes[i] ^= 1 << (byte % 8),
            2 => drop(bytes.drain(low..(low + usize::from(*byte)).min(bytes.len()))),
            3 => {
                let piece = bytes[low..high.min(low + 64)].to_vec();
                bytes.splice(i..i, piece);
            }
            4 => bytes.truncate(i),
            5 => bytes.splice(i..i, [0xff, 0xff, 0xff, 0xff]).for_each(drop),
            // A number becomes another.
            _ => {
                let Some(start) = (i..bytes.len()).find(|&k| bytes[k].is_ascii_digit()) else { continue };
                let end = (start..bytes.len()).find(|&k| !bytes[k].is_ascii_digit()).unwrap_or(bytes.len());
                let number = NUMBERS[usize::from(*byte) % NUMBERS.len()];
                bytes.splice(start..end, number.bytes());
            }
        }
    }
    bytes
}

/// Reads changed examples. The first case is the example itself, which `check` says is read.
fn fuzz(cases: u32, examples: &[Vec<u8>], read: fn(&[u8])) {
    examples.iter().for_each(|example| read(example));
    let mut runner = proptest::test_runner::TestRunner::new_with_rng(
        ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 64, ..ProptestConfig::default() },
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let strategy = (any::<Index>(), edits());
    let outcome = runner.run(&strategy, |(which, edits)| {
        read(&changed(&examples[which.index(examples.len())], &edits));
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn programs() {
    fuzz(1500, &[PROGRAM.into(), include_str!("../graphs/mlp-gan.ron").into()], formats::program);
}

#[test]
fn graphs_in_each_form() {
    let graphs: Vec<_> = (0..8).map(|seed| random_graph(seed, GraphOptions::default())).collect();
    for graph in &graphs {
        assert_eq!(text::parse(&graph.to_string()).unwrap().to_string(), graph.to_string());
    }
    let texts: Vec<Vec<u8>> = graphs.iter().map(|g| g.to_string().into()).collect();
    fuzz(3000, &texts, formats::graph_text);
    let json: Vec<Vec<u8>> = graphs.iter().map(|g| serde_json::to_vec(g).unwrap()).collect();
    fuzz(2000, &json, formats::graph_json);
    let ron: Vec<Vec<u8>> = graphs.iter().map(|g| ron::to_string(g).unwrap().into()).collect();
    fuzz(1500, &ron, formats::graph_ron);
}

#[test]
fn plans_with_a_damaged_file() {
    fuzz(2000, &[encode(&PLAN).unwrap()], formats::plan);
}

/// Compiled code beside a plan, which nothing but its own checks looks at. Its hash is right, whatever it holds.
#[test]
fn device_code_of_a_plan() {
    let image = |bytes: &[u8]| Image { source: [9; 32], bytes: bytes.to_vec() };
    let set = |kind, bytes: &[u8]| {
        let (architecture, options) = (Architecture(80), vec!["--gpu-architecture=sm_80".to_string()]);
        CodeSet { kind, architecture, own: false, options, images: vec![image(bytes)] }
    };
    // A whole ELF file: of this test.
    let mut elf = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    if !elf.starts_with(b"\x7fELF") {
        return;
    }
    // One section is left, behind the header: the names of sections, which is a zero byte.
    elf.truncate(64);
    elf[40..48].copy_from_slice(&64u64.to_le_bytes());
    elf[56..58].fill(0);
    elf[60..64].copy_from_slice(&[1, 0, 0, 0]);
    elf.extend([0; 64]);
    (elf[64 + 24], elf[64 + 32]) = (64, 1);
    let sets = vec![set(CodeKind::Cubin, &elf), set(CodeKind::Ptx, b".version 7.0\0")];
    let code = DeviceCode { compiler: (12, 8), sets };
    let section = device_code::encode(&code).unwrap();
    assert_eq!(device_code::decode(&section).unwrap(), code);
    let mut plain = Vec::new();
    flate2::read::ZlibDecoder::new(&section[48..]).read_to_end(&mut plain).unwrap();
    fuzz(3000, &[plain], |plain| {
        let mut out = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(plain).unwrap();
        let content = out.finish().unwrap();
        let hash = sha2::Sha256::digest(&content);
        let section = [b"CUDACODE", &(content.len() as u64).to_le_bytes()[..], &hash, &content].concat();
        if let Ok(code) = device_code::decode(&section) {
            code.check().unwrap();
            code.for_device(Architecture(90));
        }
    });
}

#[test]
fn checkpoints_and_inputs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.safetensors");
    let meta: Meta = serde_json::from_value(serde_json::json!({
        "program": "small", "text": PROGRAM, "sets": {}, "data": "auto", "digest": "", "optional": [],
        "fusion": "on", "fast_math": false, "seed": 1, "step": 3, "position": { "epoch": 0, "batch": 3 },
    }))
    .unwrap();
    let (a, b) = (Tensor::new([2, 3], &[0.5f32; 6]), Tensor::new([2], &[7u32; 2]));
    save(&file, &meta, &mut vec![("a/w".to_string(), a), ("count".to_string(), b)]).unwrap();
    let example = std::fs::read(&file).unwrap();
    assert!(gcc_gan::train::checkpoint::decode(&example, &file).is_ok());
    assert_eq!(gcc_gan::replay::decode_tensors(&example).unwrap().len(), 2);
    fuzz(6000, std::slice::from_ref(&example), formats::checkpoint);
    fuzz(6000, &[example], formats::run_inputs);
}

#[test]
fn data_sets() {
    let mut images = vec![0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 3];
    images.extend([7; 18]);
    let labels = vec![0, 0, 8, 1, 0, 0, 0, 3, 1, 2, 3];
    let packed = |bytes: &[u8]| {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    };
    let examples = [packed(&images), packed(&labels), images, labels];
    fuzz(10_000, &examples, formats::idx);
    let array = |of_type: &str, shape: &str, data: &[u8]| {
        let header = format!("{{'descr': '{of_type}', 'fortran_order': False, 'shape': {shape}, }}\n");
        [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), data].concat()
    };
    let examples = [
        array("|u1", "(2, 3, 3)", &[7; 18]),
        array("<f4", "(2, 1, 3)", &[0; 24]),
        array("<i8", "(3,)", &[1, 0, 0, 0, 0, 0, 0, 0].repeat(3)),
    ];
    fuzz(10_000, &examples, formats::npy);
}

#[test]
fn profiles() {
    let plan = &*PLAN;
    let schedule = &plan.entries[1].schedule;
    let measured =
        gcc_gan::inspect::profile::measure(&CpuDevice::new(1), Arc::new(plan.clone()), "train_step", 2, 0, &mut |_| {})
            .unwrap();
    let trace = measured.to_trace(schedule, plan.state_layout.bytes).unwrap();
    gcc_gan::inspect::profile::Profile::from_trace(&trace, schedule).unwrap();
    fuzz(2000, &[trace.into_bytes()], formats::profile);
}

/// Every place in a tree of values.
fn places(value: &Value, path: &mut Vec<usize>, found: &mut Vec<Vec<usize>>) {
    found.push(path.clone());
    let mut each = |items: &mut dyn Iterator<Item = &Value>| {
        for (i, item) in items.enumerate() {
            path.push(i);
            places(item, path, found);
            path.pop();
        }
    };
    match value {
        Value::Array(items) => each(&mut items.iter()),
        Value::Object(fields) => each(&mut fields.values()),
        _ => {}
    }
}

fn at<'v>(mut value: &'v mut Value, path: &[usize]) -> &'v mut Value {
    for &i in path {
        value = match value {
            Value::Array(items) => &mut items[i],
            Value::Object(fields) => fields.values_mut().nth(i).unwrap(),
            _ => unreachable!("a path leads through lists and structs"),
        };
    }
    value
}

const INTEGERS: &[i64] = &[
    0,
    1,
    -1,
    2,
    3,
    7,
    63,
    64,
    1 << 15,
    1 << 16,
    i32::MAX as i64,
    1 << 31,
    1 << 32,
    1 << 40,
    1 << 62,
    i64::MAX,
    i64::MIN,
];

/// Changes one thing of a plan's structure.
fn doctor(tree: &mut Value, found: &[Vec<usize>], (which, other, byte, edit): &Edit) {
    let path = &found[which.index(found.len())];
    let replacement = at(tree, &found[other.index(found.len())]).clone();
    let value = at(tree, path);
    match value {
        Value::Number(n) if n.is_i64() || n.is_u64() => {
            let old = n.as_i64().unwrap_or(0);
            let integer = INTEGERS[usize::from(*byte) % INTEGERS.len()];
            *value = match edit {
                0 => old.wrapping_add(1).into(),
                1 => old.wrapping_sub(1).into(),
                2 => old.wrapping_neg().into(),
                3 => u64::MAX.into(),
                _ => integer.into(),
            };
        }
        Value::Number(_) => *value = serde_json::json!(1e300),
        Value::Bool(b) => *b = !*b,
        Value::String(text) => match (edit, &replacement) {
            (0, _) => text.push('\u{1b}'),
            (1, _) => *text = "\n".into(),
            (2, _) => text.clear(),
            (_, Value::String(other)) => text.clone_from(other),
            _ => *text = text.repeat(2),
        },
        Value::Array(items) if !items.is_empty() => {
            let i = usize::from(*byte) % items.len();
            match edit {
                0 | 1 => drop(items.remove(i)),
                2 | 3 => items.push(items[i].clone()),
                4 => items.clear(),
                5 => items.reverse(),
                6 => items.insert(0, items[i].clone()),
                _ => *value = replacement,
            }
        }
        _ => *value = replacement,
    }
}

/// A hostile plan has a right hash: its structure is changed, then it is encoded anew.
#[test]
fn doctored_plans_are_refused_or_used_safely() {
    let tree = serde_json::to_value(&*PLAN).unwrap();
    assert_eq!(serde_json::from_value::<Plan>(tree.clone()).unwrap(), *PLAN);
    let mut found = Vec::new();
    places(&tree, &mut Vec::new(), &mut found);
    let mut runner = proptest::test_runner::TestRunner::new_with_rng(
        ProptestConfig { cases: 2500, failure_persistence: None, max_shrink_iters: 64, ..ProptestConfig::default() },
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let (mut read, mut safe) = (0u32, 0u32);
    let strategy = prop::collection::vec((any::<Index>(), any::<Index>(), any::<u8>(), 0..8u8), 1..3);
    let counts = std::cell::RefCell::new((&mut read, &mut safe));
    let outcome = runner.run(&strategy, |edits| {
        let mut tree = tree.clone();
        let mut found = found.clone();
        for edit in &edits {
            doctor(&mut tree, &found, edit);
            found.clear();
            places(&tree, &mut Vec::new(), &mut found);
        }
        let Ok(plan) = serde_json::from_value::<Plan>(tree) else { return Ok(()) };
        *counts.borrow_mut().0 += 1;
        match verify(&plan) {
            Err(error) => {
                let has_control = error.to_string().contains(['\u{1b}', '\n']);
                prop_assert!(!has_control, "{:?}", error);
            }
            Ok(()) => {
                *counts.borrow_mut().1 += 1;
                let bytes = encode(&plan).unwrap();
                assert!(decode(&bytes, "doctored.plan".as_ref()).is_ok());
                formats::use_plan(&plan);
                // Pictures take longer than everything else.
                if counts.borrow().1.is_multiple_of(4) {
                    formats::look_at_plan(&plan);
                }
            }
        }
        Ok(())
    });
    outcome.unwrap();
    // Most changes keep the types, and some of those are harmless.
    assert!(read > 500 && safe > 50, "{read} of the plans could be decoded, {safe} were safe");
}

/// `x ← x·x`, so often that neither a call for each operation nor one for each of its operands would end well.
#[test]
fn a_long_chain_of_squares_is_rendered() {
    let space = vec![8];
    let access = Access::contiguous(&space);
    let mut exprs = Exprs::default();
    let load = Expr::Load { buffer: BufferId::new(0), access: access.clone(), lane: Lane::Real };
    let constant = Expr::Constant { value: gcc_gan::ir::Real(1.5), dtype: DType::F32 };
    for first in [load, constant] {
        let mut last = exprs.push(first);
        for _ in 0..20_000 {
            last = exprs.push(Expr::Scalar { op: ScalarOp::Mul, args: vec![last, last] });
        }
    }
    let store = |value: usize, to: usize| Store {
        value: gcc_gan::kernel::body::ExprId::new(value),
        buffer: BufferId::new(to),
        access: access.clone(),
    };
    let sweep = Sweep { stores: vec![store(20_000, 1), store(40_001, 2)], ..Sweep::default() };
    let nest = Nest { space, reduced: vec![false], exprs, slots: 0, sweeps: vec![sweep] };
    let ids = |ids: &[usize]| ids.iter().map(|&id| BufferId::new(id)).collect();
    let (reads, writes) = (ids(&[0]), ids(&[1, 2]));
    let choice = Choice { algorithm: Algorithm::Loops, workspace: vec![] };
    let kernel = Kernel { name: "squares".into(), body: Body::Nests(vec![nest]), reads, writes, nodes: vec![], choice };
    let buffer = |i: usize| Buffer {
        name: format!("b{i}"),
        dtype: DType::F32,
        storage: Storage::Elements,
        shape: vec![8],
        order: vec![],
        role: BufferRole::Temporary,
        offset: 64 * i,
        live: (0, 1),
    };
    let rendered = cuda::render(&kernel, &[buffer(0), buffer(1), buffer(2)]);
    assert!(rendered.source.matches(" * ").count() >= 40_000);
}
