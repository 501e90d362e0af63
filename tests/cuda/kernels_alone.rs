//! Every kernel of a program beside the CPU, each computed anew from what it read, at each precision: the DCGAN at its full
//! size.

use super::{FEW_KERNELS, How, Program, compiled_at, entry, gpu, inputs, states, step, target};
use gcc_gan::exec::cpu::CpuDevice;
use gcc_gan::exec::cuda::CudaDevice;
use gcc_gan::exec::{Device, Executor, TensorRef};
use gcc_gan::kernel::body::{Body, Kernel};
use gcc_gan::kernel::choice::{Algorithm, Math};
use gcc_gan::kernel::target::Precision;
use gcc_gan::plan::{Plan, ReduceKind};
use gcc_gan::tensor::Tensor;
use gcc_gan::testing::kernels::{Report, compare_kernels};

/// Sizes in place of the program's own, such as `batch=16,noise_batch=16`.
const SETS: &str = "GCC_GAN_TEST_SETS";

/// Steps before the one that is looked at. Adam's first are the signs of gradients, also of those that are rounding alone.
const BEFORE: usize = 2;

fn program(device: &CudaDevice, precision: Precision) -> Program {
    let few = std::env::var_os(FEW_KERNELS).is_some();
    let text = if few { include_str!("mock/gan.ron") } else { include_str!("../../graphs/dcgan.ron") };
    let sets = std::env::var(SETS).unwrap_or_default();
    let sets: Vec<&str> = sets.split(',').filter(|set| !set.is_empty()).collect();
    compiled_at(target(device), precision, text, &sets)
}

/// One run of an entry, kernel by kernel.
fn compared(executor: &mut dyn Executor, (plan, module): &Program, name: &str) -> Report {
    let at = entry(plan, name);
    let given = inputs(plan, module, at, BEFORE);
    let given: Vec<TensorRef> = given.iter().map(Tensor::view).collect();
    let graph = &module.entries.iter().find(|entry| entry.graph.name == name).unwrap().graph;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    compare_kernels(executor, graph, at, &given, &CpuDevice::new(threads)).unwrap()
}

/// All entries of a program, its step as it is after a few.
fn check(device: &CudaDevice, program: &Program) {
    let (plan, module) = program;
    let mut executor = device.load(plan.clone()).unwrap();
    let executor = executor.as_mut();
    let mut reports = vec![compared(executor, program, "init")];
    for number in 0..BEFORE {
        step(executor, module, "train_step", number, How::Run);
    }
    let before = states(executor, plan);
    reports.push(compared(executor, program, "train_step"));
    let after = states(executor, plan);
    let others = plan.entries.iter().map(|entry| entry.name.as_str());
    for name in others.filter(|name| !["init", "train_step"].contains(name)) {
        reports.push(compared(executor, program, name));
    }
    println!();
    reports.iter().for_each(|report| println!("{report}"));
    let far: Vec<String> = reports.iter().flat_map(Report::far).map(ToString::to_string).collect();
    assert!(far.is_empty(), "not the CPU's:\n{}", far.join("\n"));
    // What was looked at is what a run computes whose kernels overlap.
    for (i, state) in before.iter().enumerate() {
        executor.write_state(i, state.view()).unwrap();
    }
    step(executor, module, "train_step", BEFORE, How::Run);
    assert!(states(executor, plan) == after, "another state where nobody looks");
}

fn check_at(precision: Precision) {
    let Some(device) = gpu() else { return };
    check(&device, &program(&device, precision));
}

#[test]
fn in_f32() {
    check_at(Precision::F32);
}

#[test]
fn in_tf32() {
    check_at(Precision::Tf32);
}

#[test]
fn in_bf16() {
    check_at(Precision::Bf16);
}

/// In a small program with products that are large enough to be rounded.
#[cfg(target_os = "linux")]
#[test]
fn products_of_tensor_cores() {
    let Some(device) = gpu() else { return };
    for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
        check(&device, &compiled_at(target(&device), precision, super::mock::LAYERS, &[]));
    }
}

/// Products by tf32 where f32 is asked for are too far, though losses would hardly tell.
#[cfg(target_os = "linux")]
#[test]
fn products_of_too_few_bits_are_found() {
    let Some(device) = gpu() else { return };
    let (plan, module) = compiled_at(target(&device), Precision::F32, super::mock::LAYERS, &[]);
    let mut wrong = Plan::clone(&plan);
    let at = entry(&plan, "train_step");
    let mut changed = Vec::new();
    for kernel in &mut wrong.entries[at].schedule.kernels {
        if let Algorithm::ThreadBlocks(blocks) = &mut kernel.choice.algorithm
            && blocks.math == Math::Tf32x3
        {
            blocks.math = Math::Tf32;
            changed.push(kernel.name.clone());
        }
    }
    if !device.info().architecture.has_tensor_cores() {
        return;
    }
    assert!(!changed.is_empty(), "none multiplies by three products of tf32");
    let wrong: Program = (wrong.into(), module);
    let mut executor = device.load(wrong.0.clone()).unwrap();
    step(executor.as_mut(), &wrong.1, "init", 0, How::Run);
    let report = compared(executor.as_mut(), &wrong, "train_step");
    let mut found: Vec<_> = report.far().map(|one| one.kernel.clone()).collect();
    found.dedup();
    assert_eq!(found, changed, "{report}");
}

fn kernel<'p>(plan: &'p mut Plan, is_it: &dyn Fn(&Kernel) -> bool) -> &'p mut Kernel {
    let at = entry(plan, "train_step");
    plan.entries[at].schedule.kernels.iter_mut().find(|kernel| is_it(kernel)).unwrap()
}

/// A contraction that leaves out its epilogue, and a largest element in place of a sum: both are found, with their buffers,
/// and none of the kernels that read what they made.
#[test]
fn wrong_kernels_are_found_and_no_others() {
    let Some(device) = gpu() else { return };
    let (plan, module) = compiled_at(target(&device), Precision::F32, include_str!("mock/gan.ron"), &[]);
    let mut wrong = Plan::clone(&plan);
    let epilogue = kernel(&mut wrong, &|kernel| kernel.name == "conv2d_score_real_discriminator_0_conv_conv");
    let Body::Contraction(contraction) = &mut epilogue.body else { unreachable!("it convolves") };
    let [convolved, dropped] = contraction.stores.as_mut_slice() else { unreachable!("it has two results") };
    dropped.value = convolved.value;
    let reduction = kernel(&mut wrong, &|kernel| kernel.name == "reduce_sum_d_fake_generator_4_conv_transpose_bias");
    let Body::Nests(nests) = &mut reduction.body else { unreachable!("it reduces") };
    nests[0].sweeps[0].reductions[0].kind = ReduceKind::Max;

    let wrong: Program = (wrong.into(), module);
    let mut executor = device.load(wrong.0.clone()).unwrap();
    step(executor.as_mut(), &wrong.1, "init", 0, How::Run);
    let report = compared(executor.as_mut(), &wrong, "train_step");
    let found: Vec<_> = report.far().map(|one| (one.kernel.as_str(), one.buffer.as_str())).collect();
    let expected = [
        ("conv2d_score_real_discriminator_0_conv_conv", "score_real/discriminator/2-dropout/drop"),
        ("reduce_sum_d_fake_generator_4_conv_transpose_bias", "d_fake/generator/4-conv_transpose/bias"),
    ];
    assert_eq!(found, expected, "{report}");
    assert!(
        report.to_string().contains("\nFAR: conv2d_score_real_discriminator_0_conv_conv (fma), `score_real/"),
        "{report}"
    );
}
