//! The time of one training step of each built-in program, and the peak memory of the process.
//!
//!     cargo bench --bench train_step
//!
//! Inputs are noise: a step takes the same time on any data.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gcc_gan::compile::{Options, compile};
use gcc_gan::declare::builtin;
use gcc_gan::exec::cpu::CpuDevice;
use gcc_gan::exec::{Device, TensorRef};
use gcc_gan::ir::{DType, Feed};
use gcc_gan::train::session::{entry, examples};
use std::time::Duration;

/// The largest resident set of the process so far, in MiB, where the system tells.
fn peak_memory() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<f64>().ok().map(|kib| kib / 1024.0)
}

fn train_steps(c: &mut Criterion) {
    let threads = std::thread::available_parallelism().map_or(1, Into::into);
    let mut group = c.benchmark_group("train_step");
    group.sample_size(15).measurement_time(Duration::from_secs(12));
    // The largest comes last, so that the peak that is printed after a program is its own.
    for name in ["lenet", "mlp-gan", "dcgan"] {
        let text = builtin::text(name).expect("a built-in program");
        let compiled = compile(name, text, &Options::default(), &mut |_| {}).expect("built-in programs compile");
        let plan = compiled.plan.expect("compiled to the end");
        let index = |wanted: &str| plan.entries.iter().position(|e| e.name == wanted).expect("an entry");
        let (init, step) = (index(entry::INIT), index(entry::TRAIN));
        let batch = examples(&plan.entries[step]);
        let (declared, seeds) = (plan.entries[step].inputs.clone(), [[1, 0]; 1]);
        let floats: Vec<Vec<f32>> = (declared.iter())
            .map(|i| (0..i.ty.elements()).map(|e| (e * 7919 % 511) as f32 / 255.0 - 1.0).collect())
            .collect();
        let words: Vec<Vec<u32>> =
            declared.iter().map(|i| (0..i.ty.elements()).map(|e| e as u32 % 10).collect()).collect();
        let inputs: Vec<TensorRef> = (declared.iter().zip(floats.iter().zip(&words)))
            .map(|(i, (f, w))| match (i.feed, i.ty.dtype) {
                (Feed::Seed, _) => TensorRef::u32(&seeds[0]),
                (_, DType::F32 | DType::Bf16) => TensorRef::f32(f),
                (_, DType::U32) => TensorRef::u32(w),
            })
            .collect();
        let mut executor = CpuDevice::new(threads).load(plan.into()).expect("a verified plan");
        executor.run(init, &[TensorRef::u32(&seeds[0])]).expect("initialisation");
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(format!("{name}/{threads}-threads"), |b| {
            b.iter(|| executor.run(step, &inputs).expect("a step"));
        });
        match peak_memory() {
            Some(mib) => println!("{name}: peak memory of the process {mib:.0} MiB"),
            None => println!("{name}: this system does not tell the peak memory"),
        }
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
