//! The same seed gives the same bits, for any number of threads; and a step allocates nothing.

use gcc_gan::compile::{Options, compile};
use gcc_gan::exec::cpu::CpuDevice;
use gcc_gan::exec::{Device, TensorMut, TensorRef};
use gcc_gan::ir::Feed;
use gcc_gan::plan::Plan;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts allocations of all threads.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn dcgan(batch: usize) -> Arc<Plan> {
    let sets = ["batch", "noise_batch"].map(|size| format!("{size}={batch}")).to_vec();
    let options = Options { sets, ..Options::default() };
    compile("dcgan.ron", include_str!("../graphs/dcgan.ron"), &options, &mut |_| {}).unwrap().plan.unwrap().into()
}

/// A batch that depends on the step, and the seed.
struct Inputs {
    images: Vec<f32>,
    seed: [u32; 2],
}

impl Inputs {
    fn new(plan: &Plan, entry: usize, step: usize) -> Inputs {
        let images = plan.entries[entry].inputs.iter().filter(|i| i.feed == Feed::Images);
        let elements = images.map(|i| i.ty.elements()).sum();
        let pixel = |i: usize| ((i * 31 + step * 17) % 255) as f32 * 2.0 / 255.0 - 1.0;
        Inputs { images: (0..elements).map(pixel).collect(), seed: [9, 0] }
    }

    fn tensors(&self, plan: &Plan, entry: usize) -> Vec<TensorRef<'_>> {
        let tensor = |feed: Feed| match feed {
            Feed::Seed => TensorRef::u32(&self.seed),
            _ => TensorRef::f32(&self.images),
        };
        plan.entries[entry].inputs.iter().map(|i| tensor(i.feed)).collect()
    }
}

fn entry(plan: &Plan, name: &str) -> usize {
    plan.entries.iter().position(|e| e.name == name).unwrap()
}

/// The bits of all state after initialisation and some steps.
fn bits_after(plan: &Arc<Plan>, steps: usize, threads: usize) -> Vec<u32> {
    let mut executor = CpuDevice::new(threads).load(plan.clone()).unwrap();
    for (name, steps) in [("init", 1), ("train_step", steps)] {
        let entry = entry(plan, name);
        for step in 0..steps {
            let inputs = Inputs::new(plan, entry, step);
            executor.run(entry, &inputs.tensors(plan, entry)).unwrap();
        }
    }
    let mut bits = Vec::new();
    for (i, state) in plan.states.iter().enumerate() {
        if state.ty.dtype == gcc_gan::ir::DType::U32 {
            let mut words = vec![0; state.ty.elements()];
            executor.read_state(i, TensorMut::u32(&mut words)).unwrap();
            bits.extend(words);
            continue;
        }
        let mut values = vec![0.0; state.ty.elements()];
        executor.read_state(i, TensorMut::f32(&mut values)).unwrap();
        assert!(values.iter().all(|v| v.is_finite()), "{}", state.name);
        bits.extend(values.iter().map(|v| v.to_bits()));
    }
    bits
}

#[test]
fn twenty_steps_give_the_same_bits_for_any_number_of_threads() {
    let plan = dcgan(4);
    let expected = bits_after(&plan, 20, 1);
    assert_ne!(expected, bits_after(&plan, 19, 1), "a step changes the state");
    for threads in [1, 2, 3] {
        assert!(bits_after(&plan, 20, threads) == expected, "{threads} threads give other bits");
    }
}

#[test]
fn a_step_allocates_nothing() {
    let plan = dcgan(4);
    let mut executor = CpuDevice::new(2).load(plan.clone()).unwrap();
    let (init, step) = (entry(&plan, "init"), entry(&plan, "train_step"));
    let (start, inputs) = (Inputs::new(&plan, init, 0), Inputs::new(&plan, step, 0));
    executor.run(init, &start.tensors(&plan, init)).unwrap();
    let tensors = inputs.tensors(&plan, step);
    executor.run(step, &tensors).unwrap();
    // Other tests of this file allocate meanwhile; a step that does so does it every time.
    let least = (0..20)
        .map(|_| {
            let before = ALLOCATIONS.load(Ordering::SeqCst);
            executor.run(step, &tensors).unwrap();
            ALLOCATIONS.load(Ordering::SeqCst) - before
        })
        .min();
    assert_eq!(least, Some(0));
    assert!(ALLOCATIONS.load(Ordering::SeqCst) > 0, "the counting allocator is in use");
}
