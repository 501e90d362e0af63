//! Steps of training at each precision, by kernels as the host runs them: three against the interpreter, of whole batches and of
//! one that fills no tile, by warps, by warpgroups and without tensor cores; the losses of twenty beside the CPU's; and samples.

use crate::compiler::compiler;
use crate::emulated::Emulated;
use gcc_gan::compile::{Options, compile};
use gcc_gan::exec::cpu::CpuDevice;
use gcc_gan::ir::Module;
use gcc_gan::kernel::choice::{Algorithm, Math, ThreadBlocks, TunedKernel};
use gcc_gan::kernel::target::{Architecture, Precision, Target};
use gcc_gan::kernel::warpgroup;
use gcc_gan::plan::Plan;
use gcc_gan::replay::{Replay, Tensors};
use gcc_gan::schedule::select::candidates;
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

const F32: Tolerances =
    Tolerances { maths: &[Math::Tf32x3], first: [0.0, 1e-5], later: 1e-5, state: 1e-5, images: 1e-5, losses: 1e-5 };
const TF32: Tolerances = Tolerances {
    maths: &[Math::Tf32, Math::Tf32Stored],
    first: [5e-5, 2e-3],
    later: 3e-3,
    state: 1e-2,
    images: 2e-3,
    losses: 5e-3,
};

const BF16: Tolerances = Tolerances {
    maths: &[Math::Bf16, Math::Bf16Stored],
    first: [1e-3, 2e-2],
    later: 2e-2,
    state: 1e-1,
    images: 2e-2,
    losses: 1e-2,
};

/// The program with no kink in its activations, and no whole step by Adam of a gradient that is rounding alone, such as that of
/// a bias before a normalisation: where operands are rounded, one sum near zero on the other side of a rectifier's kink is off
/// by more than all the rest, which is a twentieth of a gradient.
fn smooth() -> String {
    let smooth = PROGRAM.replace("LeakyRelu(0.2)", "Tanh()").replace("Relu()", "Tanh()");
    smooth.replace("Adam(lr: 1e-3)", "Adam(lr: 1e-3, epsilon: 1e-3)")
}

fn compiled(program: &str, batch: usize, target: Target, precision: Precision) -> (Plan, Module) {
    compiled_with(Vec::new(), program, batch, target, precision)
}

fn compiled_with(
    tuned: Vec<TunedKernel>,
    program: &str,
    batch: usize,
    target: Target,
    precision: Precision,
) -> (Plan, Module) {
    let options = Options { tuned, target, precision, sets: vec![format!("batch={batch}")], ..Options::default() };
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
        let (gpu, _) = compiled(few_of, batch, Target::Cuda(Architecture(80)), precision);
        check_few(few_of, batch, &gpu, tolerances, &device);
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

/// A plan in which warpgroups compute whatever they can: products of this size are faster by warps.
fn by_warpgroups(program: &str, batch: usize, precision: Precision) -> Plan {
    let target = Target::Cuda(Architecture(90));
    let (plan, _) = compiled(program, batch, target, precision);
    let tuned = plan.entries.iter().flat_map(|entry| {
        entry.schedule.kernels.iter().filter_map(|kernel| {
            let mut all = candidates(kernel, target, usize::MAX).into_iter();
            let algorithm = all.find(|algorithm| count(&[algorithm], &warpgroup::is_choice) > 0)?;
            let (entry, kernel) = (entry.name.clone(), kernel.name.clone());
            Some(TunedKernel { entry, sizes: Vec::new(), kernel, algorithm })
        })
    });
    compiled_with(tuned.collect(), program, batch, target, precision).0
}

/// How many products are computed by blocks like these.
fn count(algorithms: &[&Algorithm], like: &dyn Fn(&ThreadBlocks) -> bool) -> usize {
    algorithms.iter().filter(|algorithm| matches!(algorithm, Algorithm::ThreadBlocks(blocks) if like(blocks))).count()
}

fn algorithms(plan: &Plan) -> Vec<&Algorithm> {
    let kernels = plan.entries.iter().flat_map(|entry| &entry.schedule.kernels);
    kernels.map(|kernel| &kernel.choice.algorithm).collect()
}

/// A few steps of a program beside the interpreter's.
fn check_few(program: &str, batch: usize, gpu: &Plan, tolerances: &Tolerances, device: &Emulated) {
    // The module of a plan for a GPU also has states that only its kernels know.
    let (_, module) = compiled(program, batch, Target::Cpu, Precision::F32);
    let precision = gpu.source.precision;
    let by_tensor_cores = count(&algorithms(gpu), &|blocks| tolerances.maths.contains(&blocks.math));
    assert!(by_tensor_cores >= 10, "{by_tensor_cores} products by tensor cores");

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
    check(Precision::F32, PROGRAM, &F32);
}

#[test]
fn steps_in_tf32_are_those_of_the_interpreter_and_the_cpu() {
    check(Precision::Tf32, &smooth(), &TF32);
}

#[test]
fn steps_in_bf16_are_those_of_the_interpreter_and_the_cpu() {
    check(Precision::Bf16, &smooth(), &BF16);
}

#[test]
fn steps_without_tensor_cores_are_those_of_the_interpreter() {
    if compiler().is_none() {
        return;
    }
    for batch in BATCHES {
        let (gpu, _) = compiled(PROGRAM, batch, Target::Cuda(Architecture(75)), Precision::F32);
        check_few(PROGRAM, batch, &gpu, &Tolerances { maths: &[Math::Fma], ..F32 }, &Emulated::default());
    }
}

#[test]
fn steps_by_warpgroups_are_those_of_the_interpreter() {
    if compiler().is_none() {
        return;
    }
    let device = Emulated::default();
    let program = smooth();
    for batch in BATCHES {
        for (precision, tolerances) in [(Precision::Tf32, TF32), (Precision::Bf16, BF16)] {
            let gpu = by_warpgroups(&program, batch, precision);
            let all = count(&algorithms(&gpu), &warpgroup::is_choice);
            assert!(all >= 15, "{all} products by warpgroups");
            check_few(&program, batch, &gpu, &tolerances, &device);
        }
    }
}
