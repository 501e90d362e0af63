//! Programs far larger than the built-in ones: what they compile to is right, no stack overflows, and the time grows with
//! their size, not with its square.

use gcc_gan::compile::{Compiled, Options, compile};
use gcc_gan::exec::cpu::CpuDevice;
use gcc_gan::exec::{Device, TensorMut, TensorRef};
use gcc_gan::inspect::observe;
use gcc_gan::inspect::page::{page_data, render};
use gcc_gan::ir::{Bindings, Value, evaluate};
use gcc_gan::kernel::body::BufferId;
use gcc_gan::kernel::schedule::BufferRole;
use gcc_gan::testing::programs;
use std::sync::Arc;
use std::time::{Duration, Instant};

const X: [f32; 8] = [0.5, -0.25, 1.0, 0.75, -1.0, 0.125, -0.5, 0.25];

fn compiled(text: &str, validate: Option<u64>) -> Compiled {
    let options = Options { validate, ..Options::default() };
    compile("large.ron", text, &options, &mut |_| {}).unwrap()
}

/// In a thread with the stack that threads have by default, whatever the main thread's is.
fn on_a_small_stack(body: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(body).unwrap();
    thread.join().unwrap();
}

/// Compiles, checks every pass, runs on the processor, and compares the first output with the interpreter's.
fn check(text: &str) {
    let compiled = compiled(text, Some(7));
    let entry = compiled.module.entries.iter().find(|e| e.graph.name == "run").unwrap();
    let x = Value::real([8], X.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>());
    let expected = evaluate::<f64>(&entry.graph, &Bindings::from([("x".to_string(), x)])).unwrap();

    let plan = Arc::new(compiled.plan.unwrap());
    let run = plan.entries.iter().position(|e| e.name == "run").unwrap();
    let mut executor = CpuDevice::new(2).load(plan).unwrap();
    executor.run(run, &[TensorRef::f32(&X)]).unwrap();
    for (i, (name, expected)) in expected.outputs.iter().enumerate().take(3) {
        let expected = expected.to_f64();
        let mut found = vec![0.0f32; expected.len()];
        executor.read_output(run, i, TensorMut::f32(&mut found)).unwrap();
        for (found, expected) in found.iter().zip(&expected) {
            assert!(
                (f64::from(*found) - expected).abs() <= 1e-4 * expected.abs().max(1.0),
                "{name}: {found} {expected}"
            );
        }
    }
}

/// Kernels of the entry, and nodes of the largest.
fn kernels(compiled: &Compiled) -> (usize, usize) {
    let kernels = &compiled.plan.as_ref().unwrap().entry("run").unwrap().schedule.kernels;
    (kernels.len(), kernels.iter().map(|k| k.nodes.len()).max().unwrap())
}

#[test]
fn a_chain_of_thirty_thousand_operations() {
    on_a_small_stack(|| check(&programs::chain(30_000, false)));
}

#[test]
fn the_gradient_of_a_long_chain() {
    on_a_small_stack(|| check(&programs::chain(10_000, true)));
}

#[test]
fn many_outputs_branches_and_parts() {
    on_a_small_stack(|| {
        check(&programs::outputs(1_000));
        check(&programs::branches(1_000));
        check(&programs::concat(500));
        check(&programs::shifts(500));
    });
}

/// Kernels take no more than they gain by: what reads one value is in few of them, none beyond its bound.
#[test]
fn kernels_are_few_and_bounded() {
    for (text, most) in
        [(programs::outputs(1_000), 10), (programs::branches(500), 16), (programs::chain(2_000, true), 100)]
    {
        let (kernels, nodes) = kernels(&compiled(&text, None));
        assert!(kernels <= most && nodes <= 512, "{kernels} kernels of up to {nodes} nodes");
    }
}

/// Parameters are updated many to a kernel, beside what looks whether they are finite.
#[test]
fn many_layers_with_an_optimiser() {
    on_a_small_stack(|| {
        for (layer, count) in [("Dense(8), Relu()", 100), ("Dense(8), BatchNorm(), Relu()", 40)] {
            let compiled = compiled(&programs::network(layer, count), None);
            let schedule = &compiled.plan.as_ref().unwrap().entry("run").unwrap().schedule;
            let is_parameter = |b: &BufferId| {
                let buffer = &schedule.buffers[b.index()];
                matches!(&buffer.role, BufferRole::State(name) if name.starts_with("net/")) && buffer.elements() == 64
            };
            let updates = schedule.kernels.iter().filter(|k| k.writes.iter().any(is_parameter)).count();
            assert!(updates <= count / 2, "{layer}: {count} weights are updated by {updates} kernels");
            assert!(schedule.kernels.len() <= 7 * count, "{layer}: {} kernels", schedule.kernels.len());
        }
    });
}

/// Eight times the nodes take about eight times as long; with the square of their number it would be 64 times.
#[test]
fn the_page_grows_with_the_program() {
    let time = |nodes: usize| -> Duration {
        let observed = observe("large.ron", &programs::chain(nodes, false), &[], None).unwrap();
        let start = Instant::now();
        assert!(render(&page_data(&observed, None).unwrap()).len() > 100 * nodes);
        start.elapsed()
    };
    // Something else may keep the machine busy during the longer one.
    let mut ratios = (0..3).map(|_| time(16_000).as_secs_f64() / time(2_000).as_secs_f64());
    assert!(ratios.any(|ratio| ratio < 24.0));
}
