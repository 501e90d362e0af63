//! Buffers of bits: what plans for GPUs have, and what no plan may have.

use super::verify;
use crate::ir::{Distribution, Op, Real, Value};
use crate::kernel::access::Access;
use crate::kernel::bits::bit_draw;
use crate::kernel::body::{Body, BufferId, Expr, Exprs, Nest, Operand};
use crate::kernel::target::{Architecture, Fusion, Precision, Strategy, Target};
use crate::plan::{Buffer, BufferRole, Plan, Storage};
use crate::tensor::DType;
use crate::testing::conformance::{Agreement, Fixture, plan_of};

/// A product of images dropped by two masks, and what the second mask lets through.
fn plan(target: Target) -> Plan {
    let mut f = Fixture::new();
    let seed = f.input_of("seed", DType::U32, Value::u32([2], vec![1, 2]));
    let step = f.state_of("step", DType::U32, Value::u32([], vec![3]));
    let (x, w) = (f.input("x", &[7, 70]), f.state("w", &[70, 3]));
    let [first, second] = ["first", "second"].map(|stream| {
        let distribution = Distribution::Bernoulli(Real(0.5));
        f.op(Op::Random { distribution, stream: stream.into(), shape: vec![7, 70] }, &[seed, step])
    });
    let y = f.builder().mul(x, first);
    let y = f.builder().mul(y, second);
    let product = f.builder().matmul(y, w);
    let other = f.builder().mul(x, second);
    f.output("product", product);
    f.output("other", other);
    let graph = f.case("masks", Agreement::Exact).graphs.remove(0);
    Plan::clone(&plan_of(&graph, Strategy::new(Fusion::On, target, Precision::F32)))
}

const GPU: Target = Target::Cuda(Architecture(80));

fn bits(plan: &Plan) -> Vec<&Buffer> {
    plan.entries[0].schedule.buffers.iter().filter(|b| b.storage == Storage::Bits).collect()
}

#[test]
fn masks_are_drawn_by_one_kernel_as_bits() {
    let plan = plan(GPU);
    let words = (7 * 70usize).div_ceil(32);
    assert_eq!(bits(&plan).iter().map(|b| b.bytes()).collect::<Vec<_>>(), [4 * words; 2]);
    assert_eq!(bits(&plan)[0].type_text(), "bits[7,70]");
    let kernels = &plan.entries[0].schedule.kernels;
    let drawing: Vec<_> = (kernels.iter())
        .filter(|k| match &k.body {
            Body::Nests(nests) => nests.iter().any(|nest| bit_draw(nest).is_some()),
            Body::Contraction(_) | Body::Transform(_) => false,
        })
        .collect();
    let [kernel] = drawing[..] else { panic!("{} kernels draw", drawing.len()) };
    assert!(matches!(&kernel.body, Body::Nests(nests) if nests.len() == 2));
    let draws = |e: &Expr<BufferId>| matches!(e, Expr::Random { .. });
    let others = kernels.iter().filter(|k| k.name != kernel.name).flat_map(|k| match &k.body {
        Body::Nests(nests) => nests.iter().flat_map(|n| n.exprs.iter()).collect::<Vec<_>>(),
        Body::Contraction(c) => c.exprs.iter().chain(c.finish.exprs.iter()).collect(),
        Body::Transform(t) => t.exprs.iter().collect(),
    });
    assert_eq!(others.filter(|e| draws(e)).count(), 0, "no other kernel draws");
}

#[test]
fn a_processor_s_plan_has_no_bits() {
    assert!(bits(&plan(Target::Cpu)).is_empty());
}

fn each_buffer(plan: &mut Plan, change: impl Fn(&mut Buffer)) {
    plan.entries[0].schedule.buffers.iter_mut().filter(|b| b.storage == Storage::Bits).for_each(change);
}

fn each_draw(plan: &mut Plan, change: impl Fn(&mut Nest<BufferId>)) {
    for kernel in &mut plan.entries[0].schedule.kernels {
        if let Body::Nests(nests) = &mut kernel.body {
            nests.iter_mut().filter(|nest| bit_draw(*nest).is_some()).for_each(&change);
        }
    }
}

#[test]
fn bits_that_devices_could_not_rely_on_are_refused() {
    type Change = fn(&mut Plan);
    let changes: [(&str, Change); 8] = [
        ("can't be stored as bits", |p| p.source.target = Target::Cpu),
        ("can't be stored as bits", |p| each_buffer(p, |b| b.role = BufferRole::Output)),
        ("can't be stored as bits", |p| each_buffer(p, |b| b.dtype = DType::Bf16)),
        ("not drawn by a nest of their own", |p| {
            each_draw(p, |nest| {
                let mut exprs = Exprs::default();
                for mut expr in nest.exprs.iter().cloned() {
                    if let Expr::Random { distribution, .. } = &mut expr {
                        *distribution = Distribution::Uniform;
                    }
                    exprs.push(expr);
                }
                nest.exprs = exprs;
            })
        }),
        ("not drawn by a nest of their own", |p| {
            each_draw(p, |nest| {
                nest.exprs.push(Expr::Constant { value: Real(2.0), dtype: DType::F32 });
            })
        }),
        // As many words.
        ("elements", |p| each_buffer(p, |b| b.shape = vec![7, 69])),
        ("not drawn by a nest of their own", |p| {
            each_draw(p, |nest| {
                nest.sweeps[0].stores[0].access = Access { offset: 0, strides: vec![1, 7], bounds: vec![] }
            })
        }),
        ("not stored as real numbers", |p| {
            let mask = p.entries[0].schedule.buffers.iter().position(|b| b.storage == Storage::Bits).unwrap();
            for kernel in &mut p.entries[0].schedule.kernels {
                if let Body::Contraction(c) = &mut kernel.body {
                    let access = Access::contiguous(&c.kind.shapes().0[0]);
                    c.operands[0] = Operand::Buffer { buffer: BufferId::new(mask), access };
                    kernel.reads = c.operands.iter().flat_map(Operand::reads).copied().collect();
                    kernel.reads.sort();
                }
            }
        }),
    ];
    assert_eq!(verify(&plan(GPU)), Ok(()));
    for (i, (problem, change)) in changes.into_iter().enumerate() {
        let mut plan = plan(GPU);
        change(&mut plan);
        let error = verify(&plan).expect_err("the plan is refused").to_string();
        assert!(error.contains(problem), "change {i}: {error}");
    }
}
