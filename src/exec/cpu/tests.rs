//! What is the processor's own: plans that it refuses, its times, and what its policies make of a graph. What it must
//! compute is the conformance suite's subject.

use super::*;
use crate::ir::{Bindings, Builder, Data, Graph, NodeId, Op, Origin, Output, Value, Window, evaluate};
use crate::passes;
use crate::scalar::ScalarOp;
use crate::schedule::Fusion;
use crate::testing::conformance::{Agreement, Case, plan_of};
use crate::testing::strategies;
use crate::types::ReduceKind;

/// Runs a graph in every way of scheduling it, and compares with the interpreter.
fn check(graph: &Graph, given: &Bindings<f32>) -> Result<u64, String> {
    Case::of("a graph", graph.clone(), given.clone(), Agreement::Near(4e-5)).run(&CpuDevice::new(2))
}

fn noise(shape: &[usize], seed: u32) -> Value<f32> {
    let values = (0..shape.iter().product::<usize>() as u64)
        .map(|i| crate::scalar::philox::uniform([seed, 7], 0, 1, i) as f32 * 2.0 - 1.0)
        .collect();
    Value::real(shape, values)
}

struct Fixture {
    graph: Graph,
    given: Bindings<f32>,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture { graph: Graph::new("g"), given: Bindings::new() }
    }

    fn input(&mut self, name: &str, shape: &[usize]) -> NodeId {
        self.given.insert(name.into(), noise(shape, self.given.len() as u32));
        let op = Op::Input { name: name.into(), ty: Type::f32(shape) };
        self.graph.add(op, &[], name, Origin::default()).unwrap()
    }

    fn builder(&mut self) -> Builder<'_> {
        Builder::new(&mut self.graph, Origin::default())
    }

    fn output(&mut self, name: &str, node: NodeId) {
        self.graph.outputs.push(Output { name: name.into(), node });
    }
}

/// `1 − βᵗ` as the optimiser computes it, in f32, against f64 for the first hundred thousand steps.
#[test]
fn the_bias_correction_of_adam_is_right_to_the_last_place() {
    let text = include_str!("../../../tests/pytorch/small.ron");
    let module = crate::declare::load("small.ron", text, &[], &[]).unwrap();
    let mut graph = module.entries.iter().find(|e| e.graph.name == "train_step").unwrap().graph.clone();
    let node = |label: &str| {
        let named =
            |id: &NodeId| graph.node(*id).name.contains(label) && graph.node(*id).origin.scope.contains("loss_g");
        graph.ids().into_iter().find(named).unwrap_or_else(|| panic!("no {label}"))
    };
    let outputs = [("first", node("correction1")), ("second", node("correction2"))];
    graph.outputs = outputs.map(|(name, node)| Output { name: name.into(), node }).to_vec();
    graph.updates.clear();
    graph.probes.clear();
    graph.remove_dead();
    for pass in passes::PIPELINE {
        (pass.run)(&mut graph, &passes::PassContext::default());
    }
    let mut executor = CpuDevice::new(1).load(plan_of(&graph, Fusion::On)).unwrap();
    for t in 1..=100_000u32 {
        executor.write_state(0, TensorRef::f32(&[(t - 1) as f32])).unwrap();
        executor.run(0, &[]).unwrap();
        for (i, beta) in [0.9f64, 0.999].into_iter().enumerate() {
            let mut found = [0.0];
            executor.read_output(0, i, TensorMut::f32(&mut found)).unwrap();
            let exact = -(f64::from(t) * beta.ln()).exp_m1();
            let error = (f64::from(found[0]) / exact - 1.0).abs();
            assert!(error < 1e-7, "step {t}, beta {beta}: {} is off by {error:e}", found[0]);
        }
    }
}

#[test]
fn tensors_that_do_not_fit_are_refused() {
    let mut f = Fixture::new();
    let x = f.input("x", &[5]);
    f.output("x", x);
    let mut executor = CpuDevice::new(1).load(plan_of(&f.graph, Fusion::On)).unwrap();
    let error = |r: Result<(), ExecError>| r.unwrap_err().to_string();
    assert_eq!(error(executor.run(0, &[])), "entry `g` takes 1 inputs, got 0");
    let short = executor.run(0, &[TensorRef::f32(&[0.0; 4])]);
    assert_eq!(error(short), "input `x` takes 5 elements of f32, got 4 of f32");
    let words = executor.run(0, &[TensorRef::u32(&[0; 5])]);
    assert_eq!(error(words), "input `x` takes 5 elements of f32, got 5 of u32");
    assert_eq!(error(executor.run(1, &[])), "the plan has no entry `number 1`");
    assert_eq!(error(executor.read_output(0, 1, TensorMut::f32(&mut []))), "the plan has no output `number 1`");
    assert_eq!(executor.profile(1, &[]).unwrap_err().to_string(), "the plan has no entry `number 1`");
}

/// An arena that no machine has, though each of its buffers is possible, is an error and no abort.
#[test]
fn too_large_an_arena_is_an_error() {
    let error = Memory::new(1 << 60, "the arena").unwrap_err();
    assert_eq!(error, ExecError::OutOfMemory { bytes: 1 << 60, what: "the arena".into() });
    let text = error.to_string();
    assert!(text.contains("the arena of 1152921504606846976 bytes") && text.contains("batch smaller"), "{text}");
}

#[test]
fn kernels_are_timed_one_after_the_other() {
    let mut f = Fixture::new();
    let (x, y) = (f.input("x", &[40, 50]), f.input("y", &[50, 30]));
    let product = f.builder().matmul(x, y);
    let sum = f.builder().sum(product, &[0]);
    f.output("product", product);
    f.output("sum", sum);
    let mut executor = CpuDevice::new(2).load(plan_of(&f.graph, Fusion::On)).unwrap();
    let [x, y] = ["x", "y"].map(|name| f.given[name].to_tensor(DType::F32));
    let timings = executor.profile(0, &[x.view(), y.view()]).unwrap();
    let kernels: Vec<usize> = timings.iter().map(|t| t.kernel).collect();
    assert_eq!(kernels, (0..executor.plan().entries[0].schedule.kernels.len()).collect::<Vec<_>>());
    assert!(kernels.len() >= 2 && timings.windows(2).all(|t| t[0].start + t[0].length <= t[1].start), "{timings:?}");
    let bits = |executor: &mut Box<dyn Executor>| {
        let mut out = vec![0.0; 1200];
        executor.read_output(0, 0, TensorMut::f32(&mut out)).unwrap();
        out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
    };
    let profiled = bits(&mut executor);
    executor.run(0, &[x.view(), y.view()]).unwrap();
    assert_eq!(bits(&mut executor), profiled);
}

/// The derivative goes straight through, and sums of adjoints are taken in f32.
#[test]
fn gradients_pass_converts() {
    let mut f = Fixture::new();
    let x = f.input("x", &[1, 5]);
    let mut b = f.builder();
    let narrow = b.op(Op::Convert { to: DType::Bf16 }, &[x]);
    let repeated = b.broadcast(narrow, &[3, 5]);
    let wide = b.op(Op::Convert { to: DType::F32 }, &[repeated]);
    let again = b.op(Op::Convert { to: DType::F32 }, &[narrow]);
    let again = b.broadcast(again, &[3, 5]);
    let product = b.mul(wide, again);
    let loss = b.sum(product, &[0, 1]);
    let loss = b.reshape(loss, &[]);
    let gradient = b.op(Op::Gradient, &[loss, x]);
    f.output("gradient", gradient);
    crate::autodiff::differentiate(&mut f.graph);
    crate::ir::verify(&f.graph).unwrap();
    let found = evaluate(&f.graph, &f.given).unwrap().outputs[0].1.to_f64();
    let Data::Real(values) = &f.given["x"].data else { unreachable!("an f32 input") };
    for (found, x) in found.into_iter().zip(values) {
        let expected = 6.0 * f64::from(*x);
        assert!((found - expected).abs() <= 0.02 * expected.abs(), "{found}, expected {expected}");
    }
    check(&f.graph, &f.given).unwrap();
}

/// A convolution's batch statistics in its epilogue, and what is normalised by them in another order of dimensions.
#[test]
fn a_policy_may_fuse_statistics_and_order_dimensions() {
    let mut f = Fixture::new();
    let x = f.input("x", &[3, 4, 6, 6]);
    let w = f.input("w", &[5, 4, 3, 3]);
    let window = Window { stride: [1, 1], pad: [1, 1] };
    let mut b = f.builder();
    let y = b.op(Op::Conv2d { window }, &[x, w]);
    let total = b.op(Op::Reduce { kind: ReduceKind::Sum, axes: vec![0, 2, 3] }, &[y]);
    let largest = b.op(Op::Reduce { kind: ReduceKind::Max, axes: vec![0, 2, 3] }, &[y]);
    let mean = b.op(Op::Broadcast { to: vec![3, 5, 6, 6] }, &[total]);
    let z = b.scalar(ScalarOp::Sub, &[y, mean]);
    let z = b.op(Op::Conv2dInputGrad { window, size: [6, 6] }, &[z, w]);
    f.output("z", z);
    f.output("largest", largest);
    check(&f.graph, &f.given).unwrap();
    let (_, everything) = strategies()[2];
    let plan = plan_of(&f.graph, everything);
    let kernels = &plan.entries[0].schedule.kernels;
    let contractions: Vec<_> = kernels
        .iter()
        .filter_map(|k| match &k.body {
            Body::Contraction(c) => Some(c),
            Body::Nests(_) => None,
        })
        .collect();
    assert_eq!(contractions[0].reductions.len(), 2, "{kernels:?}");
    let ordered = plan.entries[0].schedule.buffers.iter().filter(|b| !b.order.is_empty()).count();
    assert!(ordered > 0, "no image is pixel-major");
}
