//! How long programs of about ten thousand nodes take to compile.

use criterion::{Criterion, criterion_group, criterion_main};
use gcc_gan::compile::{Options, compile};
use gcc_gan::testing::programs;
use std::hint::black_box;

fn large_programs(c: &mut Criterion) {
    let programs = [
        ("chain of 10000", programs::chain(10_000, false)),
        ("chain of 3000 and its gradient", programs::chain(3_000, true)),
        ("4000 outputs", programs::outputs(4_000)),
        ("2000 branches", programs::branches(2_000)),
        ("concatenation of 2000", programs::concat(2_000)),
        ("300 dense layers by Adam", programs::network("Dense(8), Relu()", 300)),
        ("100 normalised layers by Adam", programs::network("Dense(8), BatchNorm(), Relu()", 100)),
    ];
    let mut group = c.benchmark_group("compile");
    group.sample_size(10);
    for (name, text) in &programs {
        group.bench_function(*name, |b| {
            b.iter(|| compile("large.ron", black_box(text), &Options::default(), &mut |_| {}));
        });
    }
    group.finish();
}

criterion_group!(benches, large_programs);
criterion_main!(benches);
