//! Plans on an NVIDIA GPU, where this machine has one and NVRTC: the conformance suite, and that runs are what a single
//! order of launches gives. Where it has none, some of it on a mock.

#[cfg(target_os = "linux")]
#[path = "cuda/mock/mod.rs"]
mod mock;

#[path = "cuda/kernels_alone.rs"]
mod kernels_alone;

use gcc_gan::compile::{Options, compile};
use gcc_gan::exec::cpu::CpuDevice;
use gcc_gan::exec::cuda::{CudaDevice, Missing, Progress, nvrtc};
use gcc_gan::exec::{Device, Examples, ExecError, Executor, Watched, watched};
use gcc_gan::ir::Module;
use gcc_gan::kernel::cost::Multiplied;
use gcc_gan::kernel::target::{Architecture, Precision, Target};
use gcc_gan::plan::Plan;
use gcc_gan::replay::Replay;
use gcc_gan::tensor::{Tensor, TensorMut, TensorRef};
use gcc_gan::testing::conformance::{Exceptions, GROUPS, Tolerances, group, prepare, report};
use gcc_gan::testing::{program_inputs, strategies_at};
use gcc_gan::types::{Feed, InputDecl, StateDecl};
use std::sync::{Arc, Mutex};

/// The first GPU; `None`, and a line that says why, where there is none to use.
fn gpu() -> Option<CudaDevice> {
    let device = CudaDevice::new(0).and_then(|device| Ok(nvrtc::find().map(|_| device)?));
    match device {
        Ok(device) => Some(device),
        Err(Missing::NoDriver) => {
            println!("skipped: no CUDA driver");
            None
        }
        Err(missing) => {
            println!("skipped: {missing}");
            None
        }
    }
}

fn target(device: &CudaDevice) -> Target {
    Target::Cuda(device.info().architecture)
}

/// Checks one group of cases on the device.
fn check(name: &str) {
    check_at(name, Precision::F32, &Tolerances::F32);
}

fn check_at(name: &str, precision: Precision, tolerances: &Tolerances) {
    let Some(device) = gpu() else { return };
    let prepared = prepare(&group(name), &strategies_at(target(&device), precision), tolerances);
    let found = report(&device, &prepared, &Exceptions::none());
    print!("{found}");
    assert!(found.is_ok(), "failed: {:?}", found.failed());
}

macro_rules! conformance {
    ($($group:ident)*) => {
        const CHECKED: &[&str] = &[$(stringify!($group)),*];
        mod conformance {
            $(#[test]
            fn $group() {
                super::check(stringify!($group));
            })*
        }
    };
}

conformance!(
    scalars special_values elementwise reductions multi_tensor matrix_products convolutions contraction_fusion prologues transforms windows
    layouts sliced_operands draws bf16 states odd_sizes random_graphs training_steps
);

macro_rules! precisions {
    ($($group:ident)*) => {
        $(mod $group {
            use super::*;
            #[test]
            fn in_tf32() {
                check_at(stringify!($group), Precision::Tf32, &Tolerances::TF32);
            }
            #[test]
            fn in_bf16() {
                check_at(stringify!($group), Precision::Bf16, &Tolerances::BF16);
            }
        })*
    };
}

// Those in which contractions have operands of their own, of all sizes.
precisions!(matrix_products convolutions contraction_fusion prologues windows layouts sliced_operands);

#[test]
fn every_group_is_checked() {
    assert_eq!(CHECKED, GROUPS);
}

/// Set where each kernel takes long to compile.
const FEW_KERNELS: &str = "GCC_GAN_TEST_FEW_KERNELS";

/// A GAN with convolutions, batch normalisation and dropout, whose step fits a test.
fn program(target: Target) -> Program {
    let few = std::env::var_os(FEW_KERNELS).is_some();
    compiled(target, if few { include_str!("cuda/mock/gan.ron") } else { include_str!("pytorch/small.ron") }, &[])
}

type Program = (Arc<Plan>, Module);

fn compiled(target: Target, text: &str, sets: &[&str]) -> Program {
    compiled_at(target, Precision::F32, text, sets)
}

fn compiled_at(target: Target, precision: Precision, text: &str, sets: &[&str]) -> Program {
    let sets = sets.iter().map(|set| set.to_string()).collect();
    let options = Options { target, precision, sets, ..Options::default() };
    let compiled = compile("test.ron", text, &options, &mut |_| {}).unwrap();
    (compiled.plan.unwrap().into(), compiled.module)
}

/// What a run is given.
fn inputs(plan: &Plan, module: &Module, entry: usize, step: usize) -> Vec<Tensor> {
    let entry = &plan.entries[entry];
    let given = program_inputs(module, &entry.name, step + 1);
    let name = |name: &str| if step == 0 { name.to_string() } else { format!("{name}@{step}") };
    let tensor = |input: &InputDecl| match input.feed {
        Feed::Seed => Tensor::new([2], &[11u32, 3]),
        _ => given[&name(&input.name)].to_tensor(input.ty.dtype),
    };
    entry.inputs.iter().map(tensor).collect()
}

fn entry(plan: &Plan, name: &str) -> usize {
    plan.entries.iter().position(|e| e.name == name && e.sizes.is_empty()).unwrap()
}

/// How a step is run.
#[derive(Debug, Clone, Copy, PartialEq)]
enum How {
    /// Handed over one after the other, without waiting.
    Submitted,
    /// Each waited for.
    Run,
    /// Kernel by kernel.
    Profiled,
}

fn states(executor: &mut dyn Executor, plan: &Plan) -> Vec<Tensor> {
    let read = |(i, state): (usize, &StateDecl)| {
        let mut tensor = Tensor::zeros(state.ty.clone());
        executor.read_state(i, tensor.view_mut()).unwrap();
        tensor
    };
    plan.states.iter().enumerate().map(read).collect()
}

fn step(executor: &mut dyn Executor, module: &Module, name: &str, number: usize, how: How) {
    let plan = executor.plan().clone();
    let entry = entry(&plan, name);
    let inputs = inputs(&plan, module, entry, number);
    let inputs: Vec<TensorRef> = inputs.iter().map(Tensor::view).collect();
    match how {
        How::Submitted => executor.submit(entry, &inputs).unwrap(),
        How::Run => executor.run(entry, &inputs).unwrap(),
        How::Profiled => {
            let timings = executor.profile(entry, &inputs).unwrap();
            let kernels = plan.entries[entry].schedule.kernels.len();
            assert!(timings.iter().map(|t| t.kernel).eq(0..kernels), "each kernel once, in order");
            assert!(timings.windows(2).all(|pair| pair[0].start + pair[0].length <= pair[1].start + SLACK));
        }
    }
}

/// What rounding of times may come to: events give milliseconds as f32, since the first of them.
const SLACK: std::time::Duration = std::time::Duration::from_micros(100);

/// The state after initialisation and some steps.
fn after(device: &dyn Device, program: &Program, steps: usize, how: How) -> Vec<Tensor> {
    let (plan, module) = program;
    let mut executor = device.load(plan.clone()).unwrap();
    step(executor.as_mut(), module, "init", 0, How::Run);
    for number in 0..steps {
        step(executor.as_mut(), module, "train_step", number, how);
    }
    states(executor.as_mut(), plan)
}

#[test]
fn graphs_and_single_launches_and_repetitions_give_the_same_bits() {
    let Some(device) = gpu() else { return };
    let program = program(target(&device));
    let expected = after(&device, &program, 5, How::Profiled);
    assert!(expected != after(&device, &program, 4, How::Run), "a step changes the state");
    for how in [How::Run, How::Submitted, How::Submitted] {
        assert!(expected == after(&device, &program, 5, how), "{how:?}");
    }
}

/// Whoever waits for the first run sees how far the compiler is.
#[test]
fn compiling_kernels_is_told_one_by_one() {
    let Some(device) = gpu() else { return };
    let (plan, _) = program(target(&device));
    let told: Arc<Mutex<Vec<(usize, usize)>>> = Arc::default();
    let hears = told.clone();
    let device = device.with_progress(Progress::new(move |done, of| hears.lock().unwrap().push((done, of))));
    device.load(plan).unwrap();
    let told = told.lock().unwrap();
    let of = told[0].1;
    assert!(of > 10 && told.iter().copied().eq((1..=of).map(|done| (done, of))), "{told:?}");
}

/// The default program with few images.
#[test]
fn steps_are_those_of_the_processor() {
    let Some(device) = gpu() else { return };
    let dcgan = |target| compiled(target, include_str!("../graphs/dcgan.ron"), &["batch=2", "noise_batch=2"]);
    let on_gpu = after(&device, &dcgan(target(&device)), 2, How::Submitted);
    let of_cpu = dcgan(Target::Cpu);
    let on_cpu = after(&CpuDevice::new(2), &of_cpu, 2, How::Run);
    for ((state, gpu), cpu) in of_cpu.0.states.iter().zip(&on_gpu).zip(&on_cpu) {
        let (Some(gpu), Some(cpu)) = (gpu.values::<f32>(), cpu.values::<f32>()) else {
            assert_eq!(gpu, cpu, "{}", state.name);
            continue;
        };
        // Adam turns the sign of a gradient that is nearly 0 into a whole step, so single elements may differ.
        let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let difference = norm(&mut gpu.iter().zip(cpu).map(|(a, b)| a - b));
        let (size, floor) = (norm(&mut cpu.iter().copied()), 1e-6 * (cpu.len() as f64).sqrt());
        assert!(difference <= 1e-2 * size + floor, "{}: {difference} of {size}", state.name);
    }
}

/// Three steps against the reference interpreter in f64: outputs, gradients and state.
#[test]
fn steps_are_those_of_the_interpreter() {
    const STEPS: usize = 3;
    let Some(device) = gpu() else { return };
    let (plan, module) = program(target(&device));
    let given = program_inputs(&module, "train_step", STEPS);
    let replay = Replay::new(&module, "train_step", given, STEPS, 7).unwrap();
    let expected = replay.run_reference().unwrap();
    let found = replay.run_on(plan.source.clone(), &device).unwrap();
    assert!(expected.keys().any(|name| name.ends_with("@2")), "outputs of the last step are among them");
    for (name, expected) in &expected {
        let (expected, found) = (expected.to_f64(), found[name].to_f64());
        let scale = expected.iter().fold(1.0f64, |most, x| most.max(x.abs()));
        for (i, (a, b)) in found.iter().zip(&expected).enumerate() {
            assert!((a - b).abs() <= 2e-3 * scale, "{name} [{i}]: {a}, expected {b}");
        }
    }
}

/// A run is resumed on another executor from what was read from the first.
#[test]
fn state_that_is_read_and_written_goes_on_with_the_same_bits() {
    let Some(device) = gpu() else { return };
    goes_on_with_the_same_bits(&device, &program(target(&device)));
}

/// The same where weights are kept rounded too: these copies follow what is written.
#[test]
fn copies_of_state_follow_what_is_written() {
    let Some(device) = gpu() else { return };
    if !device.info().architecture.has_tensor_cores() {
        return;
    }
    for precision in [Precision::Tf32, Precision::Bf16] {
        let program = compiled_at(target(&device), precision, include_str!("cuda/gan.ron"), &[]);
        assert!(program.0.state_layout.copies.len() > 3, "{:?}", program.0.state_layout.copies);
        goes_on_with_the_same_bits(&device, &program);
    }
}

fn goes_on_with_the_same_bits(device: &CudaDevice, program: &Program) {
    let (plan, module) = program;
    let middle = after(device, program, 2, How::Run);
    let mut executor = device.load(plan.clone()).unwrap();
    assert!(states(executor.as_mut(), plan).iter().all(|s| s.view().bytes().iter().all(|&b| b == 0)), "starts at zero");
    for (i, state) in middle.iter().enumerate() {
        executor.write_state(i, state.view()).unwrap();
    }
    assert!(states(executor.as_mut(), plan) == middle);
    step(executor.as_mut(), module, "train_step", 2, How::Run);
    assert!(states(executor.as_mut(), plan) == after(device, program, 3, How::Run));
}

#[test]
fn wrong_tensors_and_wrong_plans_are_refused() {
    let Some(device) = gpu() else { return };
    let (cpu, _) = program(Target::Cpu);
    let refused = |plan: Arc<Plan>| device.load(plan).err().expect("the plan is refused").to_string();
    assert!(refused(cpu.clone()).contains("for the CPU"));
    let mut newer = Plan::clone(&cpu);
    newer.source.target = Target::Cuda(Architecture(999));
    assert!(refused(newer.clone().into()).contains("sm_999 and newer"));
    newer.source.target = Target::Cuda(Architecture(90));
    assert!(device.info().architecture == Architecture(90) || refused(newer.into()).contains("of sm_90;"));

    let (plan, module) = program(target(&device));
    let mut invalid = Plan::clone(&plan);
    invalid.state_layout.bytes = 1;
    assert!(matches!(device.load(invalid.into()), Err(ExecError::InvalidPlan(_))));
    let mut executor = device.load(plan.clone()).unwrap();
    let entry = entry(&plan, "train_step");
    let given = inputs(&plan, &module, entry, 0);
    let mut views: Vec<TensorRef> = given.iter().map(Tensor::view).collect();
    assert!(matches!(executor.submit(entry, &views[1..]), Err(ExecError::WrongInputs { .. })));
    let wrong = Tensor::new([1], &[1.0f32]);
    views[0] = wrong.view();
    assert!(matches!(executor.submit(entry, &views), Err(ExecError::WrongTensor { .. })));
    assert!(matches!(executor.submit(99, &[]), Err(ExecError::Unknown { .. })));
    assert!(matches!(executor.write_state(0, Tensor::new([3], &[1u32; 3]).view()), Err(ExecError::WrongTensor { .. })));
    // It works on.
    step(executor.as_mut(), &module, "train_step", 0, How::Run);
}

/// Nine images as a plan's step takes them, with labels. Large ones have every byte.
fn examples(plan: &Plan) -> (Vec<u8>, Vec<u8>) {
    let inputs = &plan.entries[entry(plan, "train_step")].inputs;
    let images = &inputs.iter().find(|input| input.feed == Feed::Images).unwrap().ty;
    let pixels = images.elements() / images.shape[0];
    ((0..9 * pixels).map(|i| (i * 31 + i / pixels) as u8).collect(), (0..9).collect())
}

fn kept<'d>((images, labels): &'d (Vec<u8>, Vec<u8>)) -> Examples<'d> {
    Examples { count: labels.len(), images, labels: Some(labels) }
}

/// Numbers of examples, `batch` for each of some runs.
fn numbers(batch: usize, first: usize, runs: usize) -> Vec<u32> {
    (first * batch..(first + runs) * batch).map(|i| (i * i + i / 5) as u32 % 9).collect()
}

const SEED: [u32; 2] = [11, 3];

/// The inputs of a run, as the host makes them.
fn staged(plan: &Plan, entry: usize, (images, labels): &(Vec<u8>, Vec<u8>), numbers: &[u32]) -> Vec<Tensor> {
    let size = images.len() / labels.len();
    let pixels = numbers.iter().flat_map(|&n| &images[n as usize * size..][..size]);
    let pixels: Vec<f32> = pixels.map(|&x| 2.0 * f32::from(x) / 255.0 - 1.0).collect();
    let tensor = |input: &InputDecl| match input.feed {
        Feed::Images => Tensor::new(input.ty.shape.clone(), &pixels),
        Feed::Labels => Tensor::new(
            input.ty.shape.clone(),
            &numbers.iter().map(|&n| labels[n as usize].into()).collect::<Vec<u32>>(),
        ),
        Feed::Seed => Tensor::new([2], &SEED),
        Feed::Caller => unreachable!("a step is fed from the data set"),
    };
    plan.entries[entry].inputs.iter().map(tensor).collect()
}

/// A classifier: its step takes labels too, and draws.
const CLASSIFIER: &str = r#"Program(
    name: "classifier",
    sizes: { "batch": 4 },
    networks: { "net": Network(input: [1, 28, 28], layers: [Flatten(), Dropout(0.5), Dense(10)]) },
    entries: {
        "train_step": Entry(
            inputs: { "x": Images(["batch", 1, 28, 28]), "y": Labels(["batch"]) },
            steps: [
                Let("logits", Call("net", "x", Training)),
                Let("loss", Neg(Mean(Sum(Mul(OneHot("y", 10), LogSoftmax("logits")), [1])))),
                Let("first", Mean("logits")),
                Minimise("loss", "net", Sgd(lr: 0.01)),
            ],
            outputs: ["loss", "first"],
        ),
    },
)"#;

/// The scalars of runs and the state after them, on staged inputs and each run waited for.
fn one_by_one(device: &dyn Device, program: &Program, runs: usize) -> (Vec<f32>, Vec<Tensor>) {
    let (plan, module) = program;
    let mut executor = device.load(plan.clone()).unwrap();
    step(executor.as_mut(), module, "init", 0, How::Run);
    let (entry, data) = (entry(plan, "train_step"), examples(plan));
    let mut scalars = Vec::new();
    for run in 0..runs {
        let given = staged(plan, entry, &data, &numbers(4, run, 1));
        let given: Vec<TensorRef> = given.iter().map(Tensor::view).collect();
        // Kernel by kernel now and then.
        match run % 7 {
            3 => drop(executor.profile(entry, &given).unwrap()),
            _ => executor.run(entry, &given).unwrap(),
        }
        for it in watched(plan, entry) {
            let mut value = [0f32];
            match it {
                Watched::Output(i) => executor.read_output(entry, i, TensorMut::f32(&mut value)).unwrap(),
                Watched::State(i) => executor.read_state(i, TensorMut::f32(&mut value)).unwrap(),
            }
            scalars.push(value[0]);
        }
    }
    (scalars, states(executor.as_mut(), plan))
}

/// The same by series of the given lengths on kept examples, whose scalars are read one series late.
fn in_series(device: &dyn Device, program: &Program, lengths: &[usize]) -> (Vec<f32>, Vec<Tensor>) {
    let (plan, module) = program;
    let mut executor = device.load(plan.clone()).unwrap();
    step(executor.as_mut(), module, "init", 0, How::Run);
    let (entry, data) = (entry(plan, "train_step"), examples(plan));
    assert!(executor.keep(&[entry], kept(&data)).unwrap());
    let width = watched(plan, entry).count();
    let mut scalars = Vec::new();
    let mut read = |executor: &mut dyn Executor, before: usize, runs: usize| {
        let mut rows = vec![0.0; runs * width];
        executor.read_series(before, &mut rows).unwrap();
        scalars.extend(rows);
    };
    let mut first = 0;
    for (i, &runs) in lengths.iter().enumerate() {
        executor.submit_series(entry, SEED, &numbers(4, first, runs)).unwrap();
        first += runs;
        if i > 0 {
            read(executor.as_mut(), 1, lengths[i - 1]);
        }
    }
    read(executor.as_mut(), 0, *lengths.last().unwrap());
    (scalars, states(executor.as_mut(), plan))
}

fn bits((scalars, states): &(Vec<f32>, Vec<Tensor>)) -> (Vec<u32>, &[Tensor]) {
    (scalars.iter().map(|x| x.to_bits()).collect(), states)
}

/// Input by input, with pixels in the device's order, as the program wants them.
#[test]
fn series_on_kept_examples_give_the_bits_of_single_runs() {
    let Some(device) = gpu() else { return };
    for text in [include_str!("cuda/mock/gan.ron"), CLASSIFIER] {
        let program = compiled(target(&device), text, &[]);
        let expected = one_by_one(&device, &program, 9);
        assert!(expected.0.iter().all(|x| x.is_finite()) && expected.0[0] != expected.0[1]);
        for lengths in [&[9][..], &[1, 5, 1, 2], &[1; 9]] {
            assert!(bits(&expected) == bits(&in_series(&device, &program, lengths)), "{lengths:?}");
        }
    }
}

#[test]
fn five_hundred_steps_by_graphs_give_the_bits_of_single_launches() {
    let Some(device) = gpu() else { return };
    let program = compiled(target(&device), &CLASSIFIER.replace("28", "4"), &[]);
    let expected = one_by_one(&device, &program, 500);
    let lengths = [&[32; 15][..], &[20]].concat();
    assert!(bits(&expected) == bits(&in_series(&device, &program, &lengths)));
    let [.., before, _, _, last, _, _] = expected.0[..] else { unreachable!("each run has three") };
    assert_ne!(before, last, "the last step is another than the one before");
}

#[test]
fn what_is_no_series_is_refused() {
    let Some(device) = gpu() else { return };
    let (plan, module) = compiled(target(&device), CLASSIFIER, &[]);
    let mut executor = device.load(plan.clone()).unwrap();
    let (train, data) = (entry(&plan, "train_step"), examples(&plan));
    let refused = |executor: &mut dyn Executor, numbers: &[u32]| {
        executor.submit_series(train, SEED, numbers).unwrap_err().to_string()
    };
    assert!(refused(executor.as_mut(), &[0; 4]).contains("none are kept"));
    // No labels, pixels of another size, an entry that takes no examples.
    let images_alone = Examples { labels: None, ..kept(&data) };
    assert!(!executor.keep(&[train], images_alone).unwrap());
    assert!(!executor.keep(&[train], Examples { count: 3, ..kept(&data) }).unwrap());
    assert!(!executor.keep(&[entry(&plan, "init")], kept(&data)).unwrap());
    assert!(matches!(executor.keep(&[99], kept(&data)), Err(ExecError::Unknown { .. })));
    assert!(executor.keep(&[train], kept(&data)).unwrap());
    for (numbers, part) in
        [(&[][..], "got 0"), (&[0; 5], "got 5"), (&[0; 4 * 33], "got 132"), (&[0, 1, 9, 2], "no example 9")]
    {
        let text = refused(executor.as_mut(), numbers);
        assert!(text.contains("`train_step`") && text.contains(part), "{text}");
    }
    assert!(matches!(executor.read_series(0, &mut [0.0; 3]), Err(ExecError::Unknown { .. })));
    // It works on, and what is kept is replaced.
    step(executor.as_mut(), &module, "init", 0, How::Run);
    let other = (vec![7; 784], vec![1]);
    assert!(executor.keep(&[train], kept(&other)).unwrap());
    assert!(refused(executor.as_mut(), &[0, 0, 0, 1]).contains("no example 1 among 1"));
    executor.submit_series(train, SEED, &[0; 8]).unwrap();
    let mut rows = [0.0; 6];
    executor.read_series(0, &mut rows).unwrap();
    assert!(rows[0] > rows[3] && rows[0].is_finite(), "it learns the one example: {rows:?}");
    assert!(executor.read_series(1, &mut rows).is_err() && executor.read_series(0, &mut rows[1..]).is_err());
}

#[test]
fn ceilings_are_positive_numbers() {
    let Some(device) = gpu() else { return };
    let machine = device.ceilings(&[Multiplied::Tf32x3, Multiplied::Bf16].into()).unwrap().machine;
    let figures = [machine.flops_per_second, machine.bytes_per_second, machine.launch_seconds];
    let by_tensor_cores = [machine.tf32_flops_per_second, machine.bf16_flops_per_second];
    let all = figures.into_iter().chain(machine.caches.last_level).chain(by_tensor_cores.into_iter().flatten());
    assert!(all.clone().all(|figure| figure.is_finite() && figure > 0.0), "{machine:?}");
    let count = if device.info().architecture.has_tensor_cores() { 6 } else { 4 };
    assert_eq!(all.count(), count, "{machine:?}");
    // What nobody multiplies takes no time.
    let machine = device.ceilings(&[Multiplied::F32].into()).unwrap().machine;
    assert_eq!((machine.tf32_flops_per_second, machine.bf16_flops_per_second), (None, None));
}
