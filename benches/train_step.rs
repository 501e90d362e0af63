//! The time of one training step of each built-in program, of the DCGAN for several sizes of batch and in every way to
//! compute it, and the peak memory of each.
//!
//!     cargo bench --bench train_step [-- FILTER]
//!
//! Inputs are noise: a step takes the same time on any data.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use gcc_gan::compile::{Options, compile};
use gcc_gan::declare::builtin;
use gcc_gan::exec::cpu::CpuDevice;
use gcc_gan::exec::{Device, Executor, TensorRef};
use gcc_gan::ir::{DType, Feed};
use gcc_gan::kernel::target::{Convolutions, Precision};
use gcc_gan::train::session::{entry, examples};
use std::time::Duration;

/// The largest resident set of the process since [`forget_peak`], in MiB, where the system tells.
fn peak_memory() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<f64>().ok().map(|kib| kib / 1024.0)
}

/// Has Linux take the peak from now on. Where that can't be, the peak is of all that ran so far: smaller steps come first.
fn forget_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn step(group: &mut BenchmarkGroup<WallTime>, program: &str, how: &str, options: &Options) {
    let text = builtin::text(program).expect("a built-in program");
    let compiled = compile(program, text, options, &mut |_| {}).expect("built-in programs compile");
    let plan = compiled.plan.expect("compiled to the end");
    let index = |wanted: &str| plan.entries.iter().position(|e| e.name == wanted).expect("an entry");
    let (init, step) = (index(entry::INIT), index(entry::TRAIN));
    let batch = examples(&plan.entries[step]);
    let (declared, seed) = (plan.entries[step].inputs.clone(), [1, 0]);
    let floats: Vec<Vec<f32>> = (declared.iter())
        .map(|i| (0..i.ty.elements()).map(|e| (e * 7919 % 511) as f32 / 255.0 - 1.0).collect())
        .collect();
    let words: Vec<Vec<u32>> = declared.iter().map(|i| (0..i.ty.elements()).map(|e| e as u32 % 10).collect()).collect();
    let inputs: Vec<TensorRef> = (declared.iter().zip(floats.iter().zip(&words)))
        .map(|(i, (f, w))| match (i.feed, i.ty.dtype) {
            (Feed::Seed, _) => TensorRef::u32(&seed),
            (_, DType::F32 | DType::Bf16) => TensorRef::f32(f),
            (_, DType::U32) => TensorRef::u32(w),
        })
        .collect();
    let threads = std::thread::available_parallelism().map_or(1, Into::into);
    let name = format!("{program}{how}/batch-{batch}/{threads}-threads");
    let mut executor: Option<Box<dyn Executor>> = None;
    group.throughput(Throughput::Elements(batch as u64));
    group.bench_function(&name, |b| {
        // Only what passes the filter is loaded.
        let executor = executor.get_or_insert_with(|| {
            forget_peak();
            let mut executor = CpuDevice::new(threads).load(plan.clone().into()).expect("a verified plan");
            executor.run(init, &[TensorRef::u32(&seed)]).expect("initialisation");
            executor
        });
        b.iter(|| executor.run(step, &inputs).expect("a step"));
    });
    if executor.is_some() {
        match peak_memory() {
            Some(mib) => println!("{name}: peak memory of the process {mib:.0} MiB"),
            None => println!("{name}: this system does not tell the peak memory"),
        }
    }
}

fn train_steps(c: &mut Criterion) {
    let mut group = c.benchmark_group("train_step");
    // A step takes as long as any other: few samples do, each of as many steps.
    group.sampling_mode(SamplingMode::Flat).sample_size(12);
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(6));
    for program in ["lenet", "mlp-gan"] {
        step(&mut group, program, "", &Options::default());
    }
    let of_batch = |batch: usize| Options { sets: vec![format!("batch={batch}")], ..Options::default() };
    for batch in [16, 32, 64, 128] {
        step(&mut group, "dcgan", "", &of_batch(batch));
    }
    for (how, convolutions, precision) in [
        (", fast", Convolutions::Fast, Precision::F32),
        (", exact", Convolutions::Exact, Precision::F32),
        (", bf16", Convolutions::Accurate, Precision::Bf16),
    ] {
        step(&mut group, "dcgan", how, &Options { convolutions, precision, ..of_batch(128) });
    }
    for batch in [256, 512] {
        step(&mut group, "dcgan", "", &of_batch(batch));
    }
    group.finish();
}

fn compilation(c: &mut Criterion) {
    let text = builtin::text("dcgan").expect("a built-in program");
    c.bench_function("compile/dcgan", |b| {
        b.iter(|| compile("dcgan", text, &Options::default(), &mut |_| {}).expect("it compiles"));
    });
}

criterion_group!(benches, train_steps, compilation);
criterion_main!(benches);
