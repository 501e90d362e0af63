//! A step of the DCGAN on 1 to all threads of this machine, and, from the times of its tasks on one thread, on up to 64.
//!
//!     cargo bench --bench threads
//!
//! What is simulated is how the tasks fill the threads, with memory as fast for all as for one. The kernels that keep 64
//! threads waiting most come after.

use gcc_gan::compile::{Options, compile};
use gcc_gan::declare::builtin;
use gcc_gan::exec::cpu::{CpuDevice, TaskTimes, simulated};
use gcc_gan::exec::{Device, TensorRef};
use gcc_gan::ir::{DType, Feed};
use gcc_gan::train::session::entry;
use std::sync::Arc;
use std::time::{Duration, Instant};

const STEPS: usize = 7;
/// What it takes threads that poll to meet, and to begin the next tasks together.
const MEETING: Duration = Duration::from_micros(3);
const THREADS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];

fn main() {
    let compiled =
        compile("dcgan", builtin::text("dcgan").expect("a built-in program"), &Options::default(), &mut |_| {})
            .expect("it compiles");
    let plan = Arc::new(compiled.plan.expect("compiled to the end"));
    let index = |wanted: &str| plan.entries.iter().position(|e| e.name == wanted).expect("an entry");
    let (init, step) = (index(entry::INIT), index(entry::TRAIN));
    let seed = [1, 0];
    let floats: Vec<Vec<f32>> = (plan.entries[step].inputs.iter())
        .map(|i| (0..i.ty.elements()).map(|e| (e * 7919 % 511) as f32 / 255.0 - 1.0).collect())
        .collect();
    let inputs: Vec<TensorRef> = (plan.entries[step].inputs.iter().zip(&floats))
        .map(|(i, floats)| match (i.feed, i.ty.dtype) {
            (Feed::Seed, _) => TensorRef::u32(&seed),
            (_, DType::F32) => TensorRef::f32(floats),
            (_, dtype) => panic!("the DCGAN takes no {dtype:?}"),
        })
        .collect();

    let cores = std::thread::available_parallelism().map_or(1, Into::into);
    println!("threads      ms   speed-up");
    let mut alone = 0.0;
    for threads in 1..=cores {
        let mut executor = CpuDevice::new(threads).load(plan.clone()).expect("a verified plan");
        executor.run(init, &[TensorRef::u32(&seed)]).expect("initialisation");
        let mut times: Vec<f64> = (0..STEPS)
            .map(|_| {
                let started = Instant::now();
                executor.run(step, &inputs).expect("a step");
                started.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        times.sort_by(f64::total_cmp);
        let median = times[STEPS / 2];
        if threads == 1 {
            alone = median;
        }
        println!("{threads:>7} {median:>7.1} {:>9.2}  measured", alone / median);
    }

    let device = CpuDevice::new(1);
    let sets = device.task_times(plan.clone(), (init, &[TensorRef::u32(&seed)]), (step, &inputs), STEPS).expect("runs");
    let time = |threads| simulated(&sets, threads, MEETING);
    for threads in THREADS {
        let (one, ms) = (time(1).as_secs_f64(), time(threads).as_secs_f64() * 1e3);
        println!("{threads:>7} {ms:>7.1} {:>9.2}  simulated", one * 1e3 / ms);
    }

    // Beyond an even share of its work, by kernel.
    let kernels = &plan.entries[step].schedule.kernels;
    let most = THREADS[THREADS.len() - 1];
    let mut waiting: Vec<(Duration, usize, usize)> = (0..kernels.len())
        .map(|kernel| {
            let own: Vec<TaskTimes> = sets.iter().filter(|set| set.kernel == kernel).cloned().collect();
            let fewest = own.iter().map(|set| set.tasks.len()).min().unwrap_or(0);
            let share = simulated(&own, 1, Duration::ZERO) / most as u32;
            (simulated(&own, most, MEETING).saturating_sub(share), kernel, fewest)
        })
        .collect();
    waiting.sort_by(|a, b| b.cmp(a));
    println!("\nwhat {most} threads wait for beyond an even share of the work:");
    for (time, kernel, fewest) in waiting.iter().take(10) {
        println!("{:>7.3} ms  {} (at least {fewest} tasks a set)", time.as_secs_f64() * 1e3, kernels[*kernel].name);
    }
}
