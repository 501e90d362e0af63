//! Steps of training at each precision, by kernels as the host runs them: three against the interpreter, with whole batches and
//! with one that fills no tile, the losses of twenty beside the CPU's, and samples.

use crate::compiler::compiler;
use crate::emulated::Emulated;
use gcc_gan::compile::{Options, compile};
use gcc_gan::exec::cpu::CpuDevice;
use gcc_gan::ir::Module;
use gcc_gan::kernel::choice::{Algorithm, Math};
use gcc_gan::kernel::target::{Architecture, Precision, Target};
use gcc_gan::plan::Plan;
use gcc_gan::replay::{Replay, Tensors};
use gcc_gan::testing::program_inputs;

const FEW: usize = 3;
const MANY: usize = 20;

/// The sizes of a whole batch and of the last one of an epoch, which has as many images as are left and fills no tile.
const BATCHES: [usize; 2] = [16, 21];

const PROGRAM: &str = include_str!("gan.ron");

/// How far a precision may be off, and how far it is at least, since it rounds: norms of differences, as parts of the norm.
struct Tolerances {
    /// What tensor cores multiply.
    maths: &'static [Math],
    /// Of what the first step gives, losses and gradients: the least and the most of the worst of them.
    first: [f64; 2],
    /// Of what the others give.
    later: f64,
    /// Of the state after the few steps.
    state: f64,
    /// Of an image of a sample.
    images: f64,
    /// Of a loss of one of many steps.
    losses: f64,
}

/// The program with no kink in its activations, and no whole step by Adam of a gradient that is rounding alone, such as that of
/// a bias before a normalisation: where operands are rounded, one sum near zero on the other side of a rectifier's kink is off
/// by more than all the rest, which is a twentieth of a gradient.
fn smooth() -> String {
    let smooth = PROGRAM.replace("LeakyRelu(0.2)", "Tanh()").replace("Relu()", "Tanh()");
    smooth.replace("Adam(lr: 1e-3)", "Adam(lr: 1e-3, epsilon: 1e-3)")
}

fn compiled(program: &str, batch: usize, target: Target, precision: Precision) -> (Plan, Module) {
    let options = Options { target, precision, sets: vec![format!("batch={batch}")], ..Options::default() };
    let compiled = compile("gan.ron", program, &options, &mut |_| {}).unwrap();
    (compiled.plan.unwrap(), compiled.module)
}

fn replay(module: &Module, entry: &str, steps: usize) -> Replay {
    Replay::new(module, entry, program_inputs(module, entry, steps), steps, 7).unwrap()
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|x| x * x).sum::<f64>().sqrt()
}

/// The norm of the difference of two tensors, as a part of that of the second.
fn difference(found: &Tensors, expected: &Tensors, name: &str) -> f64 {
    let (found, expected) = (found[name].to_f64(), expected[name].to_f64());
    // What is nearly zero has no digits.
    let floor = 1e-3 * (expected.len() as f64).sqrt();
    let part = norm(found.iter().zip(&expected).map(|(a, b)| a - b)) / norm(expected.iter().copied()).max(floor);
    if part.is_nan() { f64::INFINITY } else { part }
}

/// The tensor of these that is off most, and how far.
fn worst<'n>(found: &Tensors, expected: &Tensors, names: impl Iterator<Item = &'n String>) -> (f64, &'n str) {
    let off = names.map(|name| (difference(found, expected, name), name.as_str()));
    off.max_by(|(a, _), (b, _)| a.total_cmp(b)).expect("there are such")
}

fn check(precision: Precision, few_of: &str, tolerances: &Tolerances) {
    if compiler().is_none() {
        return;
    }
    let device = Emulated::default();
    for batch in BATCHES {
        check_few(few_of, batch, precision, tolerances, &device);
    }

    let (cpu, module) = compiled(PROGRAM, BATCHES[0], Target::Cpu, Precision::F32);
    let (gpu, _) = compiled(PROGRAM, BATCHES[0], Target::Cuda(Architecture(80)), precision);
    let sample = replay(&module, "sample", 1);
    let images = (sample.run_on(gpu.source.clone(), &device).unwrap(), sample.run_reference().unwrap());
    let images = worst(&images.0, &images.1, images.1.keys());
    let many = replay(&module, "train_step", MANY);
    let (on_cpu, found) =
        (many.run_on(cpu.source, &CpuDevice::new(1)).unwrap(), many.run_on(gpu.source, &device).unwrap());
    let losses: Vec<String> = (0..MANY).flat_map(|n| [format!("loss_d@{n}"), format!("loss_g@{n}")]).collect();
    let losses = worst(&found, &on_cpu, losses.iter());
    println!("{precision:?}: losses {losses:?}, images {images:?}");
    assert!(losses.0 <= tolerances.losses, "beside the CPU: {losses:?}");
    assert!(images.0 <= tolerances.images, "samples: {images:?}");
}

/// A few steps of a program beside the interpreter's.
fn check_few(program: &str, batch: usize, precision: Precision, tolerances: &Tolerances, device: &Emulated) {
    // The module of a plan for a GPU also has states that only its kernels know.
    let (_, module) = compiled(program, batch, Target::Cpu, Precision::F32);
    let (gpu, _) = compiled(program, batch, Target::Cuda(Architecture(80)), precision);
    let kernels = gpu.entries.iter().flat_map(|entry| &entry.schedule.kernels);
    let is_by_tensor_cores =
        |algorithm: &Algorithm| matches!(algorithm, Algorithm::ThreadBlocks(b) if tolerances.maths.contains(&b.math));
    let count = kernels.filter(|kernel| is_by_tensor_cores(&kernel.choice.algorithm)).count();
    assert!(count >= 10, "{count} products by tensor cores");

    let few = replay(&module, "train_step", FEW);
    let expected = few.run_reference().unwrap();
    let found = few.run_on(gpu.source.clone(), device).unwrap();
    assert!(found.keys().eq(expected.keys()));
    let is_state = |name: &String| gpu.states.iter().any(|state| state.name == *name);
    let of_first = |name: &&String| name.ends_with("@0");
    let of_others = |name: &&String| !is_state(name) && !name.ends_with("@0");
    let first = worst(&found, &expected, expected.keys().filter(of_first));
    let later = worst(&found, &expected, expected.keys().filter(of_others));
    let state = worst(&found, &expected, expected.keys().filter(|name| is_state(name)));
    println!("{precision:?}, {batch} images: first {first:?}, later {later:?}, state {state:?}");
    let [least, most] = tolerances.first;
    assert!(first.0 <= most, "in the first step of {batch} images: {first:?}");
    assert!(first.0 >= least, "operands are not rounded as they should be: {first:?}");
    assert!(later.0 <= tolerances.later, "in later steps of {batch} images: {later:?}");
    assert!(state.0 <= tolerances.state, "in the state after steps of {batch} images: {state:?}");
}

#[test]
fn steps_in_f32_are_those_of_the_interpreter_and_the_cpu() {
    let maths = &[Math::Tf32x3];
    let tolerances = Tolerances { maths, first: [0.0, 1e-5], later: 1e-5, state: 1e-5, images: 1e-5, losses: 1e-5 };
    check(Precision::F32, PROGRAM, &tolerances);
}

#[test]
fn steps_in_tf32_are_those_of_the_interpreter_and_the_cpu() {
    let maths = &[Math::Tf32, Math::Tf32Stored];
    let tolerances = Tolerances { maths, first: [5e-5, 2e-3], later: 3e-3, state: 1e-2, images: 2e-3, losses: 5e-3 };
    check(Precision::Tf32, &smooth(), &tolerances);
}

#[test]
fn steps_in_bf16_are_those_of_the_interpreter_and_the_cpu() {
    let maths = &[Math::Bf16, Math::Bf16Stored];
    let tolerances = Tolerances { maths, first: [1e-3, 2e-2], later: 2e-2, state: 1e-1, images: 2e-2, losses: 1e-2 };
    check(Precision::Bf16, &smooth(), &tolerances);
}
