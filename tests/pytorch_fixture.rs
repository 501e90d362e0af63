//! Training steps of PyTorch in float64, replayed: of a small DCGAN, and of small networks that are each trained in another
//! way. `tests/pytorch/reference.py` and `tests/pytorch/training.py` made the fixtures.

use gcc_gan::declare::load;
use gcc_gan::exec::cpu::CpuDevice;
use gcc_gan::ir::Value;
use gcc_gan::plan::Source;
use gcc_gan::replay::{Replay, Tensors};
use safetensors::tensor::{Dtype, SafeTensors};

const PROGRAM: &str = include_str!("pytorch/small.ron");

fn tensors(bytes: &[u8]) -> Tensors {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let value = |view: &safetensors::tensor::TensorView| {
        let (shape, data) = (view.shape().to_vec(), view.data());
        match view.dtype() {
            Dtype::F64 => Value::real(shape, data.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect()),
            Dtype::F32 => {
                Value::real(shape, data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b).into()).collect())
            }
            Dtype::U32 => Value::u32(shape, data.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect()),
            other => panic!("{other:?} in the fixture"),
        }
    };
    file.iter().map(|(name, view)| (name.to_string(), value(&view))).collect()
}

const TRAINING: &str = include_str!("pytorch/training.ron");

fn replay() -> Replay {
    let module = load("small.ron", PROGRAM, &[], &[]).unwrap();
    Replay::new(&module, "train_step", tensors(include_bytes!("pytorch/small/in.safetensors")), 3, 0).unwrap()
}

/// Biases whose true gradient is zero, because a batch normalisation takes away what they add. PyTorch computes
/// what rounding leaves of it, and Adam makes steps of up to the learning rate out of that; so their updates are
/// not compared, and their gradients next to those of the weight of the same layer.
const BEFORE_NORM: [&str; 3] =
    ["generator/0-dense/bias", "generator/4-conv_transpose/bias", "generator/7-conv_transpose/bias"];

/// Compares all that PyTorch gave: losses and gradients of each step, parameters, running statistics and moments.
fn check(found: &Tensors, tolerance: f64) {
    check_with(found, tensors(include_bytes!("pytorch/small/expected.safetensors")), tolerance);
}

fn check_with(found: &Tensors, expected: Tensors, tolerance: f64) {
    assert!(expected.len() > 100, "only {} tensors", expected.len());
    let mut compared = 0;
    for (name, value) in &expected {
        let base = name.split('@').next().unwrap();
        let mut scale_of = value.clone();
        if BEFORE_NORM.iter().any(|b| base.contains(b)) {
            if !base.starts_with("gradient/") {
                continue;
            }
            scale_of = expected[&name.replace("/bias", "/weight")].clone();
        }
        let scale = scale_of.to_f64().iter().fold(f64::MIN_POSITIVE, |m: f64, v| m.max(v.abs()));
        let found = found.get(name).unwrap_or_else(|| panic!("{name} is not returned"));
        assert_eq!(found.shape, value.shape, "{name}");
        for (i, (a, b)) in value.to_f64().iter().zip(found.to_f64()).enumerate() {
            assert!((a - b).abs() <= tolerance * scale, "{name}, element {i}: {b}, PyTorch has {a}");
        }
        compared += 1;
    }
    assert!(compared > 100, "only {compared} tensors were compared");
}

fn source(name: &str, text: &str) -> Source {
    Source {
        name: name.into(),
        text: text.into(),
        overrides: vec![],
        optional: vec![],
        tuned: vec![],
        fusion: gcc_gan::schedule::Fusion::On,
        target: Default::default(),
        precision: Default::default(),
        fast_math: false,
        convolutions: Default::default(),
    }
}

/// Optimisers, schedules, clipped gradients, moving averages and spectral normalisation.
#[test]
fn each_way_to_train_agrees_with_pytorch() {
    let module = load("training.ron", TRAINING, &[], &[]).unwrap();
    let given = tensors(include_bytes!("pytorch/training/in.safetensors"));
    let expected = || tensors(include_bytes!("pytorch/training/expected.safetensors"));
    let replay = Replay::new(&module, "train_step", given, 6, 0).unwrap();
    check_with(&replay.run_reference().unwrap(), expected(), 1e-12);
    for threads in [1, 2] {
        let source = source("training.ron", TRAINING);
        check_with(&replay.run_on(source, &CpuDevice::new(threads)).unwrap(), expected(), 1e-5);
    }
}

#[test]
fn the_reference_interpreter_agrees_with_pytorch_in_f64() {
    check(&replay().run_reference().unwrap(), 1e-9);
}

#[test]
fn the_cpu_executor_agrees_with_pytorch() {
    for threads in [1, 2] {
        check(&replay().run_on(source("small.ron", PROGRAM), &CpuDevice::new(threads)).unwrap(), 1e-4);
    }
}
