//! Steps of training at each precision, by kernels as the host runs them: three against the interpreter, the losses of twenty
//! beside the CPU's, and samples; and a step of a batch that fills no tile.

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

/// How far a precision may be off, and how far it is at least, since it rounds: norms of differences, as parts of the norm.
struct Tolerances {
    /// What tensor cores multiply.
    maths: &'static [Math],
    /// Of what the first step gives, losses and gradients: the least and the most of the worst of them.
    first: [f64; 2],
    /// Of what the others give, once Adam has made a whole step of gradients that are rounding alone.
    later: f64,
    /// Of the state after the few steps.
    state: f64,
    /// Of a loss of one of many steps.
    losses: f64,
}

fn compiled(target: Target, precision: Precision, sets: &[&str]) -> (Plan, Module) {
    let sets = sets.iter().map(ToString::to_string).collect();
    let options = Options { target, precision, sets, ..Options::default() };
    let compiled = compile("gan.ron", include_str!("gan.ron"), &options, &mut |_| {}).unwrap();
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

fn check(precision: Precision, tolerances: &Tolerances) {
    if compiler().is_none() {
        return;
    }
    let (cpu, module) = compiled(Target::Cpu, Precision::F32, &[]);
    let (gpu, _) = compiled(Target::Cuda(Architecture(80)), precision, &[]);
    let kernels = gpu.entries.iter().flat_map(|entry| &entry.schedule.kernels);
    let is_by_tensor_cores =
        |algorithm: &Algorithm| matches!(algorithm, Algorithm::ThreadBlocks(b) if tolerances.maths.contains(&b.math));
    let count = kernels.filter(|kernel| is_by_tensor_cores(&kernel.choice.algorithm)).count();
    assert!(count >= 10, "{count} products by tensor cores");

    let [few, many] = [FEW, MANY].map(|steps| replay(&module, "train_step", steps));
    let device = Emulated::default();
    let expected = few.run_reference().unwrap();
    let found = few.run_on(gpu.source.clone(), &device).unwrap();
    assert!(found.keys().eq(expected.keys()));
    let is_state = |name: &String| gpu.states.iter().any(|state| state.name == *name);
    let of_first = |name: &&String| name.ends_with("@0");
    let of_others = |name: &&String| !is_state(name) && !name.ends_with("@0");
    let first = worst(&found, &expected, expected.keys().filter(of_first));
    let later = worst(&found, &expected, expected.keys().filter(of_others));
    let state = worst(&found, &expected, expected.keys().filter(|name| is_state(name)));
    let sample = replay(&module, "sample", 1);
    let images = (sample.run_on(gpu.source.clone(), &device).unwrap(), sample.run_reference().unwrap());
    let images = worst(&images.0, &images.1, images.1.keys());
    let (on_cpu, found) =
        (many.run_on(cpu.source, &CpuDevice::new(1)).unwrap(), many.run_on(gpu.source, &device).unwrap());
    let losses: Vec<String> = (0..MANY).flat_map(|n| [format!("loss_d@{n}"), format!("loss_g@{n}")]).collect();
    let losses = worst(&found, &on_cpu, losses.iter());
    println!("{precision:?}: first {first:?}, later {later:?}, state {state:?}, losses {losses:?}, images {images:?}");
    let [least, most] = tolerances.first;
    assert!(first.0 <= most, "in the first step: {first:?}");
    assert!(first.0 >= least, "operands are not rounded as they should be: {first:?}");
    assert!(later.0 <= tolerances.later, "in later steps: {later:?}");
    assert!(state.0 <= tolerances.state, "in the state: {state:?}");
    assert!(losses.0 <= tolerances.losses, "beside the CPU: {losses:?}");
    assert!(images.0 <= most, "samples: {images:?}");
}

/// The last batch of an epoch has as many images as are left.
#[test]
fn a_batch_that_fills_no_tile_is_that_of_the_interpreter() {
    if compiler().is_none() {
        return;
    }
    let (gpu, module) = compiled(Target::Cuda(Architecture(80)), Precision::F32, &["batch=21"]);
    let step = replay(&module, "train_step", 1);
    let expected = step.run_reference().unwrap();
    let found = step.run_on(gpu.source, &Emulated::default()).unwrap();
    let off = worst(&found, &expected, expected.keys());
    assert!(off.0 <= 1e-5, "{off:?}");
}

#[test]
fn steps_in_f32_are_those_of_the_interpreter_and_the_cpu() {
    let maths = &[Math::Tf32x3];
    check(Precision::F32, &Tolerances { maths, first: [0.0, 1e-5], later: 1e-5, state: 1e-5, losses: 1e-5 });
}

#[test]
fn steps_in_tf32_are_those_of_the_interpreter_and_the_cpu() {
    let maths = &[Math::Tf32, Math::Tf32Stored];
    // The first layer's images are nearly -1 all over, so most of its filters' gradients cancels.
    check(Precision::Tf32, &Tolerances { maths, first: [5e-5, 3e-2], later: 4e-1, state: 1e-1, losses: 5e-3 });
}

#[test]
fn steps_in_bf16_are_those_of_the_interpreter_and_the_cpu() {
    let maths = &[Math::Bf16, Math::Bf16Stored];
    check(Precision::Bf16, &Tolerances { maths, first: [1e-3, 3e-1], later: 5e-1, state: 4e-1, losses: 1e-2 });
}
