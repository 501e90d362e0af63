//! How long the memory planner takes: ordinary networks, small and large, and hard packings. `MINIMALLOC_INSTANCES`,
//! if set, names a folder of CSV files to plan as well (`benchmarks/challenging` of MiniMalloc's repository).

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use gcc_gan::plan::overlap::{Placement, check_no_overlap};
use gcc_gan::schedule::memory::instances::{evaluation, from_csv, perfect_packing, training_step};
use gcc_gan::schedule::memory::{PlannerOptions, plan_memory};
use std::hint::black_box;

fn planner(c: &mut Criterion) {
    let options = PlannerOptions::default();
    let mut group = c.benchmark_group("plan_memory");
    group.sample_size(10);
    for count in [200, 5_000, 20_000] {
        let step = training_step(1, count);
        let id = BenchmarkId::new("training_step", count);
        group.bench_function(id, |b| b.iter(|| plan_memory(black_box(&step), &options)));
        let pass = evaluation(1, count);
        let id = BenchmarkId::new("evaluation", count);
        group.bench_function(id, |b| b.iter(|| plan_memory(black_box(&pass), &options)));
    }
    for (count, seed) in [(150, 10), (250, 14), (350, 12), (450, 13)] {
        let buffers = perfect_packing(seed, count, 1 << 20, 1 << 20, 1024);
        let id = BenchmarkId::new("perfect_packing", count);
        group.bench_function(id, |b| b.iter(|| plan_memory(black_box(&buffers), &options)));
    }
    group.finish();
}

fn published(c: &mut Criterion) {
    let Ok(folder) = std::env::var("MINIMALLOC_INSTANCES") else { return };
    let files = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{folder}: {e}"));
    let mut paths: Vec<_> = files.filter_map(|file| Some(file.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "csv"));
    paths.sort();
    let mut group = c.benchmark_group("published");
    group.sample_size(10);
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let buffers = from_csv(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        group.bench_function(name, |b| b.iter(|| plan_memory(black_box(&buffers), &PlannerOptions::default())));
    }
    group.finish();
}

fn checker(c: &mut Criterion) {
    let buffers = training_step(1, 4000);
    let options = PlannerOptions { max_steps: 0, ..PlannerOptions::default() };
    let plan = plan_memory(&buffers, &options).expect("well-formed");
    let placements: Vec<Placement> = buffers
        .iter()
        .zip(&plan.offsets)
        .map(|(b, &offset)| Placement { start: b.start, end: b.end, offset, size: b.size })
        .collect();
    c.bench_function("check_no_overlap/4000", |b| b.iter(|| check_no_overlap(black_box(&placements), plan.arena_size)));
}

criterion_group!(benches, planner, published, checker);
criterion_main!(benches);
