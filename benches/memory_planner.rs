//! How long the memory planner takes: a network-like chain (greedy is enough) and hard packings (search).

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use gcc_gan::plan::overlap::{Placement, check_no_overlap};
use gcc_gan::schedule::memory::instances::perfect_packing;
use gcc_gan::schedule::memory::{LiveRange, PlannerOptions, plan_memory};
use std::hint::black_box;

/// A training step's shape: activations made going forward live until their turn going backward.
fn training_step(layers: usize) -> Vec<LiveRange> {
    let end = 2 * layers;
    let activations = (0..layers).map(|i| LiveRange { start: i, end: end - i, size: 4096 * (1 + i % 7) });
    let gradients = (layers..end).map(|i| LiveRange { start: i, end: i + 2, size: 4096 * (1 + (end - i) % 7) });
    activations.chain(gradients).collect()
}

fn planner(c: &mut Criterion) {
    let options = PlannerOptions::default();
    let mut group = c.benchmark_group("plan_memory");
    group.sample_size(10);
    let step = training_step(100);
    group.bench_function("training_step/200", |b| b.iter(|| plan_memory(black_box(&step), &options)));
    for (count, seed) in [(150, 10), (250, 14), (350, 12), (450, 13)] {
        let buffers = perfect_packing(seed, count, 1 << 20, 1 << 20, 1024);
        let id = BenchmarkId::new("perfect_packing", count);
        group.bench_function(id, |b| b.iter(|| plan_memory(black_box(&buffers), &options)));
    }
    group.finish();
}

fn checker(c: &mut Criterion) {
    let buffers = training_step(2000);
    let options = PlannerOptions { max_steps: 0, ..PlannerOptions::default() };
    let plan = plan_memory(&buffers, &options).expect("well-formed");
    let placements: Vec<Placement> = buffers
        .iter()
        .zip(&plan.offsets)
        .map(|(b, &offset)| Placement { start: b.start, end: b.end, offset, size: b.size })
        .collect();
    c.bench_function("check_no_overlap/4000", |b| b.iter(|| check_no_overlap(black_box(&placements), plan.arena_size)));
}

criterion_group!(benches, planner, checker);
criterion_main!(benches);
