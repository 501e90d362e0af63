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

/// Images of a batch that fills tiles, and of one that does not, as an epoch's last one may not.
const BATCHES: [usize; 2] = [16, 21];

const PROGRAM: &str = include_str!("gan.ron");

/// How far a precision may be off, and how far it is at least, since it rounds: norms of differences, as parts of the norm.
struct Tolerances {
    /// How most products are computed.
    maths: &'static [Math],
    /// Of what the first step gives, losses and gradients: the least and the most of the worst of them.
    first: [f64; 2],
    /// Of what the others give.
    later: f64,
    /// Of what the few steps change the state by.
    state: f64,
    /// Of an image of a sample.
    images: f64,
    /// Of a loss of one of many steps.
    losses: f64,
}

const F32: Tolerances =
    Tolerances { maths: &[Math::Tf32x3], first: [0.0, 1e-5], later: 1e-5, state: 1e-4, images: 1e-5, losses: 1e-5 };
const TF32: Tolerances = Tolerances {
    maths: &[Math::Tf32, Math::Tf32Stored],
    first: [5e-5, 2e-3],
    later: 3e-3,
    state: 2e-2,
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

/// The program with tanh for its relus, and with a larger epsilon of Adam. A rounding can move a sum near zero across a relu's
/// kink, which changes a gradient by more than all other roundings do, by up to a tenth and more; and Adam makes a whole step of
/// a gradient that is nothing but rounding.
fn smooth() -> String {
    let smooth = PROGRAM.replace("LeakyRelu(0.2)", "Tanh()").replace("Relu()", "Tanh()");
    let smooth = smooth.replace("Adam(lr: 1e-3)", "Adam(lr: 1e-3, epsilon: 1e-3)");
    assert!(!smooth.contains("Relu") && smooth.matches("epsilon").count() == 2, "{smooth}");
    smooth
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

/// The norm of the difference of values from others, as a part of these others' norm. Where their root mean square is below
/// `digits` they are nearly zero, and have no digits to compare.
fn off(found: impl Iterator<Item = f64>, expected: &[f64], digits: f64) -> f64 {
    let least = digits * (expected.len() as f64).sqrt();
    let part = norm(found.zip(expected).map(|(a, b)| a - b)) / norm(expected.iter().copied()).max(least);
    if part.is_nan() { f64::INFINITY } else { part }
}

fn difference(found: &Tensors, expected: &Tensors, name: &str) -> f64 {
    off(found[name].to_f64().into_iter(), &expected[name].to_f64(), 1e-3)
}

/// As [`difference`], of how a state changed since it was `before`.
fn difference_of_change([found, expected, before]: [&Tensors; 3], name: &str) -> f64 {
    let [found, expected, before] = [found, expected, before].map(|tensors| tensors[name].to_f64());
    let change = |after: Vec<f64>| after.into_iter().zip(&before).map(|(a, b)| a - b).collect::<Vec<_>>();
    off(change(found).into_iter(), &change(expected), 1e-12)
}

/// The tensor of these that is off most, and how far.
fn worst<'n>(found: &Tensors, expected: &Tensors, names: impl Iterator<Item = &'n String>) -> (f64, &'n str) {
    worst_by(names, |name| difference(found, expected, name))
}

fn worst_by<'n>(names: impl Iterator<Item = &'n String>, off: impl Fn(&str) -> f64) -> (f64, &'n str) {
    let off = names.map(|name| (off(name), name.as_str()));
    off.max_by(|(a, _), (b, _)| a.total_cmp(b)).expect("there are such")
}

fn check(precision: Precision, program_of_few: &str, tolerances: &Tolerances) {
    if compiler().is_none() {
        return;
    }
    let device = Emulated::default();
    for batch in BATCHES {
        let (gpu, _) = compiled(program_of_few, batch, Target::Cuda(Architecture(80)), precision);
        check_few(program_of_few, batch, &gpu, tolerances, &device);
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

/// A plan in which warpgroups compute whatever they can, also what the model gives to warps.
fn by_warpgroups(program: &str, batch: usize, precision: Precision) -> Plan {
    let target = Target::Cuda(Architecture(90));
    let (plan, _) = compiled(program, batch, target, precision);
    let is_by_warpgroups =
        |algorithm: &Algorithm| matches!(algorithm, Algorithm::ThreadBlocks(blocks) if warpgroup::is_choice(blocks));
    let tuned = plan.entries.iter().flat_map(|entry| {
        entry.schedule.kernels.iter().filter_map(|kernel| {
            let algorithm = candidates(kernel, target, usize::MAX).into_iter().find(is_by_warpgroups)?;
            let (entry, kernel) = (entry.name.clone(), kernel.name.clone());
            Some(TunedKernel { entry, sizes: Vec::new(), kernel, algorithm })
        })
    });
    compiled_with(tuned.collect(), program, batch, target, precision).0
}

/// How many products of the steps that a device has just run are computed by blocks like these.
fn count(device: &Emulated, like: impl Fn(&ThreadBlocks) -> bool) -> usize {
    let plan = device.loaded().unwrap();
    let kernels = &plan.entry("train_step").unwrap().schedule.kernels;
    let algorithms = kernels.iter().map(|kernel| &kernel.choice.algorithm);
    algorithms.filter(|algorithm| matches!(algorithm, Algorithm::ThreadBlocks(blocks) if like(blocks))).count()
}

/// A few steps of a program beside the interpreter's.
fn check_few(program: &str, batch: usize, gpu: &Plan, tolerances: &Tolerances, device: &Emulated) {
    // The module of a plan for a GPU also has states that only its kernels know.
    let (_, module) = compiled(program, batch, Target::Cpu, Precision::F32);
    let precision = gpu.source.precision;
    let before = replay(&module, "init", 1).run_reference().unwrap();
    let few = replay(&module, "train_step", FEW);
    let expected = few.run_reference().unwrap();
    let found = few.run_on(gpu.source.clone(), device).unwrap();
    assert!(found.keys().eq(expected.keys()));
    let is_state = |name: &String| gpu.states.iter().any(|state| state.name == *name);
    let of_first = |name: &&String| name.ends_with("@0");
    let of_others = |name: &&String| !is_state(name) && !name.ends_with("@0");
    let first = worst(&found, &expected, expected.keys().filter(of_first));
    let later = worst(&found, &expected, expected.keys().filter(of_others));
    let state = worst_by(expected.keys().filter(|name| is_state(name)), |name| {
        difference_of_change([&found, &expected, &before], name)
    });
    let products = count(device, |blocks| tolerances.maths.contains(&blocks.math));
    assert!(products >= 10, "{products} products by {:?}", tolerances.maths);
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
            check_few(&program, batch, &gpu, &tolerances, &device);
            let products = count(&device, warpgroup::is_choice);
            assert!(products >= 15, "{products} by warpgroups");
        }
    }
}
