//! Three training steps of PyTorch in float64, replayed. `tests/pytorch/reference.py` made the fixture.

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
    let expected = tensors(include_bytes!("pytorch/small/expected.safetensors"));
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

#[test]
fn the_reference_interpreter_agrees_with_pytorch_in_f64() {
    check(&replay().run_reference().unwrap(), 1e-9);
}

#[test]
fn the_cpu_executor_agrees_with_pytorch() {
    let source = Source {
        name: "small.ron".into(),
        text: PROGRAM.into(),
        overrides: vec![],
        optional: vec![],
        tuned: vec![],
        fusion: gcc_gan::schedule::Fusion::On,
        target: Default::default(),
        precision: Default::default(),
        fast_math: false,
        convolutions: Default::default(),
    };
    for threads in [1, 2] {
        check(&replay().run_on(source.clone(), &CpuDevice::new(threads)).unwrap(), 1e-4);
    }
}
