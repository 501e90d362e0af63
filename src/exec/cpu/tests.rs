//! The executor against the interpreter.

use super::*;
use crate::ir::{Bindings, Builder, Data, Graph, NodeId, Op, Origin, Output, Value, Window};
use crate::ir::{Update, evaluate};
use crate::passes;
use crate::scalar::ScalarOp;
use crate::schedule::Fusion;
use crate::tensor::Tensor;
use crate::testing::conformance::{Fixture, bf16_specials, noise, plan_of};
use crate::testing::{GraphOptions, graphs, random_bindings, special_bindings, strategies};
use crate::types::ReduceKind;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Outputs and new states of one run.
fn run(plan: &Arc<Plan>, given: &Bindings<f32>, threads: usize, isa: Isa) -> BTreeMap<String, Vec<f32>> {
    let mut executor = CpuDevice { threads, isa }.load(plan.clone()).unwrap();
    let tensor = |name: &str, dtype: DType| given[name].to_tensor(dtype);
    for (i, state) in plan.states.iter().enumerate() {
        if given.contains_key(&state.name) {
            executor.write_state(i, tensor(&state.name, state.ty.dtype).view()).unwrap();
        }
    }
    let inputs: Vec<Tensor> = plan.entries[0].inputs.iter().map(|i| tensor(&i.name, i.ty.dtype)).collect();
    let inputs: Vec<TensorRef> = inputs.iter().map(Tensor::view).collect();
    executor.run(0, &inputs).unwrap();
    let floats = |tensor: &Tensor| match tensor.values::<u32>() {
        Some(words) => words.iter().map(|&w| w as f32).collect(),
        None => match Value::<f32>::from_tensor(tensor).data {
            Data::Real(values) => values,
            Data::U32(_) => unreachable!("handled above"),
        },
    };
    let mut results = BTreeMap::new();
    for (i, output) in plan.entries[0].schedule.outputs.iter().enumerate() {
        let buffer = &plan.entries[0].schedule.buffers[output.buffer.index()];
        let mut tensor = Tensor::zeros(Type::new(buffer.dtype, buffer.shape.clone()));
        executor.read_output(0, i, tensor.view_mut()).unwrap();
        results.insert(format!("output {}", output.name), floats(&tensor));
    }
    for (i, state) in plan.states.iter().enumerate() {
        let mut tensor = Tensor::zeros(state.ty.clone());
        executor.read_state(i, tensor.view_mut()).unwrap();
        results.insert(format!("state {}", state.name), floats(&tensor));
    }
    results
}

/// Compares every instruction set, with and without fusion and for one and three threads, with the interpreter.
fn check(graph: &Graph, given: &Bindings<f32>) -> Result<(), String> {
    let exact: Bindings<f64> = (given.iter())
        .map(|(name, value)| {
            let data = match &value.data {
                Data::Real(values) => Data::Real(values.iter().map(|&v| f64::from(v)).collect()),
                Data::U32(values) => Data::U32(values.clone()),
            };
            (name.clone(), Value { shape: value.shape.clone(), data })
        })
        .collect();
    let expected = evaluate(graph, &exact).map_err(|e| e.to_string())?;
    for (fusion, strategy) in strategies() {
        let plan = plan_of(graph, strategy);
        plan::verify(&plan).map_err(|e| e.to_string())?;
        for isa in Isa::available() {
            let found = run(&plan, given, 1, isa);
            let bits = |results: &BTreeMap<String, Vec<f32>>| -> Vec<Vec<u32>> {
                results.values().map(|values| values.iter().map(|v| v.to_bits()).collect()).collect()
            };
            if bits(&run(&plan, given, 3, isa)) != bits(&found) {
                return Err(format!("{isa:?}, {fusion:?}: other bits on three threads"));
            }
            let outputs = expected.outputs.iter().map(|(name, v)| (format!("output {name}"), v));
            let updates = expected.updates.iter().map(|(name, v)| (format!("state {name}"), v));
            for (name, value) in outputs.chain(updates) {
                let found = found.get(&name).ok_or_else(|| format!("{isa:?}, {fusion:?}: {name} is missing"))?;
                let finite = value.to_f64().into_iter().filter(|x| x.is_finite());
                let scale = finite.fold(1.0, |a: f64, b| a.max(b.abs()));
                for (i, (a, b)) in value.to_f64().into_iter().zip(found).enumerate() {
                    let b64 = f64::from(*b);
                    // Beyond f32's range the executor has infinities, or what becomes of them.
                    let in_range = a.abs() < f64::from(f32::MAX) / 1e3;
                    let same = (a - b64).abs() <= 4e-5 * scale || (a.is_nan() && b64.is_nan()) || a == b64;
                    if !same && in_range {
                        return Err(format!("{isa:?}, {fusion:?}: element {i} of {name} is {b}, expected {a}"));
                    }
                }
            }
        }
    }
    Ok(())
}

/// A convolution, with a fused bias and activation or plain.
#[allow(clippy::too_many_arguments)]
fn convolution(
    n: usize,
    c: usize,
    o: usize,
    size: [usize; 2],
    kernel: [usize; 2],
    window: Window,
    which: u8,
    fused: bool,
) -> Option<Fixture> {
    if (0..2).any(|d| size[d] + 2 * window.pad[d] < kernel[d]) {
        return None;
    }
    let out = [0, 1].map(|d| (size[d] + 2 * window.pad[d] - kernel[d]) / window.stride[d] + 1);
    let mut f = Fixture::new();
    let result = match which {
        0 => {
            let (x, w) = (f.input("x", &[n, c, size[0], size[1]]), f.input("w", &[o, c, kernel[0], kernel[1]]));
            f.builder().op(Op::Conv2d { window }, &[x, w])
        }
        1 => {
            let (y, w) = (f.input("y", &[n, o, out[0], out[1]]), f.input("w", &[o, c, kernel[0], kernel[1]]));
            f.builder().op(Op::Conv2dInputGrad { window, size }, &[y, w])
        }
        _ => {
            let (x, y) = (f.input("x", &[n, c, size[0], size[1]]), f.input("y", &[n, o, out[0], out[1]]));
            f.builder().op(Op::Conv2dFilterGrad { window, kernel }, &[x, y])
        }
    };
    let mut result = result;
    if fused {
        let shape = f.graph.shape(result).to_vec();
        let bias = f.input("bias", &[1, shape[1], 1, 1]);
        let mut b = f.builder();
        let bias = b.broadcast(bias, &shape);
        result = b.add(result, bias);
        result = b.scalar(ScalarOp::Tanh, &[result]);
    }
    f.output("result", result);
    Some(f)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn convolutions(
        n in 1usize..10, c in 1usize..36, o in 1usize..36, size in (1usize..9, 1usize..9),
        kernel in (1usize..6, 1usize..6), stride in (1usize..4, 1usize..4), pad in (0usize..4, 0usize..4),
        which in 0u8..3, fused: bool,
    ) {
        let window = Window { stride: stride.into(), pad: pad.into() };
        if let Some(f) = convolution(n, c, o, size.into(), kernel.into(), window, which, fused) {
            prop_assert_eq!(check(&f.graph, &f.given), Ok(()));
        }
    }

    #[test]
    fn convolutions_of_few_channels(
        n in 1usize..5, c in 1usize..4, o in 1usize..40, size in (1usize..16, 1usize..16),
        kernel in (1usize..6, 1usize..6), stride in (1usize..4, 1usize..4), pad in (0usize..6, 0usize..6),
        which in 0u8..3, fused: bool,
    ) {
        let window = Window { stride: stride.into(), pad: pad.into() };
        if let Some(f) = convolution(n, c, o, size.into(), kernel.into(), window, which, fused) {
            prop_assert_eq!(check(&f.graph, &f.given), Ok(()));
        }
    }

    #[test]
    fn matrix_products(
        batch in 1usize..4, m in 1usize..300, n in 1usize..300, k in 1usize..300,
        transposed: [bool; 2], fused: bool, computed: bool,
    ) {
        let mut f = Fixture::new();
        let mut operand = |name: &str, rows: usize, columns: usize, transposed: bool| {
            let shape = if transposed { [batch, columns, rows] } else { [batch, rows, columns] };
            let x = f.input(name, &shape);
            let mut b = f.builder();
            let x = if computed { b.scalar(ScalarOp::Exp, &[x]) } else { x };
            if transposed { b.transpose(x, &[0, 2, 1]) } else { x }
        };
        let (a, b) = (operand("a", m, k, transposed[0]), operand("b", k, n, transposed[1]));
        let mut product = f.builder().matmul(a, b);
        if fused {
            let bias = f.input("bias", &[1, 1, n]);
            let mut b = f.builder();
            let bias = b.broadcast(bias, &[batch, m, n]);
            product = b.add(product, bias);
            f.output("product", product);
        }
        f.output("result", product);
        prop_assert_eq!(check(&f.graph, &f.given), Ok(()));
    }
}

/// More pixels than a tile has columns, more channels than it has rows, more taps than are summed at a time, more
/// images than are added in parts.
#[test]
fn few_channels_of_images_larger_than_tiles() {
    let window = |stride, pad| Window { stride: [stride; 2], pad: [pad; 2] };
    let cases = [
        (2, [1, 7], [40, 37], [3, 3], window(1, 1)),
        (1, [3, 5], [70, 61], [4, 5], window(2, 1)),
        (1, [2, 200], [9, 8], [3, 2], window(1, 0)),
        (1, [4, 3], [12, 14], [9, 9], window(1, 4)),
        (1, [1, 260], [6, 5], [3, 3], window(2, 1)),
        (70, [1, 3], [5, 6], [3, 3], window(3, 1)),
    ];
    for (n, [c, o], size, kernel, window) in cases {
        for which in 0..3 {
            for fused in [false, true] {
                let f = convolution(n, c, o, size, kernel, window, which, fused).unwrap();
                assert_eq!(check(&f.graph, &f.given), Ok(()), "{which} of {n}x{c}x{size:?} to {o} by {kernel:?}");
            }
        }
    }
}

/// What is computed for windows of which no tap lies on a pixel is read by nobody.
#[test]
fn windows_that_lie_on_no_pixel() {
    let lines = r#"graph g {
        %x: f32[1,4,2,1] = input "x"
        %twice = add %x %x
        %windows: f32[1,8,1,1] = im2col %twice stride=[2,3] pad=[0,1] kernel=[2,1]
        %y: f32[1,4,2,3] = col2im %windows stride=[2,3] pad=[0,1] kernel=[2,1] size=[2,3]
        output y = %y
    }"#;
    let graph = crate::ir::text::parse(lines).unwrap();
    assert_eq!(check(&graph, &random_bindings(&graph, 0)), Ok(()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// As they are declared, and after all passes.
    #[test]
    fn random_graphs(graph in graphs(GraphOptions::default()), seed: u64) {
        let given = random_bindings(&graph, seed);
        prop_assert_eq!(check(&graph, &given), Ok(()), "as declared");
        let mut optimised = graph.clone();
        for pass in passes::FORWARD.iter().chain(passes::PIPELINE) {
            (pass.run)(&mut optimised, &passes::PassContext::default());
        }
        prop_assert_eq!(check(&optimised, &given), Ok(()), "optimised");
        let device = passes::PassContext { images: true, merge_calls: true, ..Default::default() };
        passes::DEVICE.iter().for_each(|pass| { (pass.run)(&mut optimised, &device); });
        prop_assert_eq!(check(&optimised, &given), Ok(()), "optimised for a device");
    }

    #[test]
    fn gradients_of_random_graphs(
        graph in graphs(GraphOptions { gradients: true, smooth: true, steps: 12, ..GraphOptions::default() }),
        seed: u64,
    ) {
        let given = random_bindings(&graph, seed);
        let mut graph = graph;
        crate::autodiff::differentiate(&mut graph);
        prop_assert_eq!(check(&graph, &given), Ok(()));
    }
}

/// Results on values that are not finite: NaN where the interpreter in f32 has NaN, infinities where it has them.
fn check_special(graph: &Graph, given: &Bindings<f32>) -> Result<(), String> {
    let expected = evaluate(graph, given).map_err(|e| e.to_string())?;
    for (fusion, strategy) in strategies() {
        let plan = plan_of(graph, strategy);
        for isa in Isa::available() {
            let found = run(&plan, given, 1, isa);
            let outputs = expected.outputs.iter().map(|(name, v)| (format!("output {name}"), v));
            let updates = expected.updates.iter().map(|(name, v)| (format!("state {name}"), v));
            for (name, value) in outputs.chain(updates) {
                let values = value.to_f64();
                let scale = values.iter().filter(|x| x.is_finite()).fold(1.0, |a: f64, b| a.max(b.abs()));
                for (i, (&a, &b)) in values.iter().zip(&found[&name]).enumerate() {
                    let b = f64::from(b);
                    let same = (a.is_nan() && b.is_nan()) || a == b || (a - b).abs() <= 4e-5 * scale;
                    if !same {
                        return Err(format!("{isa:?}, {fusion:?}: element {i} of {name} is {b}, expected {a}"));
                    }
                }
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn special_values_in_random_graphs(
        graph in graphs(GraphOptions { contractions: false, ..GraphOptions::default() }),
        seed: u64, rarity in 2usize..40,
    ) {
        prop_assert_eq!(check_special(&graph, &special_bindings(&graph, seed, rarity)), Ok(()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Blocks, panels and what they are filled up with bring nothing in and keep nothing out.
    #[test]
    fn special_values_in_matrix_products(
        batch in 1usize..3, m in 1usize..70, n in 1usize..70, k in 1usize..70,
        transposed: [bool; 2], seed: u64, rarity in 2usize..400,
    ) {
        let mut f = Fixture::new();
        let mut operand = |name: &str, rows: usize, columns: usize, transposed: bool| {
            let shape = if transposed { [batch, columns, rows] } else { [batch, rows, columns] };
            let x = f.input(name, &shape);
            if transposed { f.builder().transpose(x, &[0, 2, 1]) } else { x }
        };
        let (a, b) = (operand("a", m, k, transposed[0]), operand("b", k, n, transposed[1]));
        let product = f.builder().matmul(a, b);
        f.output("product", product);
        prop_assert_eq!(check_special(&f.graph, &special_bindings(&f.graph, seed, rarity)), Ok(()));
    }
}

/// A maximum over rows, columns and everything, of lengths that fill vectors and tiles and do not, with one NaN at
/// any place: it comes out where it went in and nowhere else.
#[test]
fn a_maximum_keeps_what_is_not_a_number() {
    let shapes: [(&[usize], _); 6] = [
        (&[3, 37], vec![1]),
        (&[3, 1000], vec![1]),
        (&[70, 37], vec![0]),
        (&[5, 33], vec![0, 1]),
        (&[40, 13, 7], vec![0, 2]),
        (&[31, 37], vec![1]),
    ];
    for (shape, axes) in shapes {
        let mut f = Fixture::new();
        let x = f.input("x", shape);
        let zero = f.builder().constant(0.0, shape);
        let relu = f.builder().scalar(ScalarOp::Max, &[x, zero]);
        let largest = f.builder().op(Op::Reduce { kind: crate::ir::ReduceKind::Max, axes }, &[x]);
        f.output("relu", relu);
        f.output("largest", largest);
        let count: usize = shape.iter().product();
        for at in [0, 1, 15, 16, 17, 31, 32, 36, count / 2, count - 1] {
            for special in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut given = f.given.clone();
                if let Data::Real(values) = &mut given.get_mut("x").unwrap().data {
                    values[at] = special;
                }
                check_special(&f.graph, &given).unwrap();
            }
        }
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
fn the_layers_of_the_dcgan_at_a_small_batch() {
    let window = |stride, pad| Window { stride: [stride; 2], pad: [pad; 2] };
    for which in 0..3 {
        for fused in [false, true] {
            for (c, o, size, kernel, window) in
                [(128, 256, 7, 5, window(1, 2)), (64, 128, 14, 4, window(2, 1)), (1, 64, 28, 4, window(2, 1))]
            {
                let f = convolution(9, c, o, [size; 2], [kernel; 2], window, which, fused).unwrap();
                check(&f.graph, &f.given).unwrap();
            }
        }
    }
}

#[test]
fn state_is_updated_in_place_and_stays() {
    let mut f = Fixture::new();
    let x = f.input("x", &[5]);
    let state = Op::State { name: "total".into(), ty: Type::f32([5]) };
    let total = f.graph.add(state, &[], "total", Origin::default()).unwrap();
    let next = f.builder().add(total, x);
    f.graph.updates.push(Update { state: "total".into(), node: next });
    let mut executor = CpuDevice::new(2).load(plan_of(&f.graph, Fusion::On)).unwrap();
    executor.write_state(0, TensorRef::f32(&[1.0; 5])).unwrap();
    for _ in 0..3 {
        executor.run(0, &[TensorRef::f32(&[2.0; 5])]).unwrap();
    }
    let mut found = [0.0; 5];
    executor.read_state(0, TensorMut::f32(&mut found)).unwrap();
    assert_eq!(found, [7.0; 5]);
}

/// The epilogue of the product reads the state once for its sum, and once for how far it is from its mean.
#[test]
fn deviations_of_a_state_are_of_what_it_was() {
    let text = "graph deviations {
        %s: f32[4,3] = state \"s\"
        %x: f32[4,5] = input \"x\"
        %w: f32[5,3] = input \"w\"
        %product: f32[4,3] = matmul %x %w
        %d: f32[1,3] = reduce_deviations %s axes=[0]
        %next: f32[4,3] = add %s %product
        output d = %d
        update \"s\" = %next
    }";
    let graph = crate::ir::text::parse(text).unwrap();
    assert_eq!(check(&graph, &random_bindings(&graph, 3)), Ok(()));
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

/// The same bits as the interpreter in f32, any NaN for any other.
fn check_bits(graph: &Graph, given: &Bindings<f32>) -> Result<(), String> {
    let expected = evaluate(graph, given).map_err(|e| e.to_string())?;
    for (fusion, strategy) in strategies() {
        let plan = plan_of(graph, strategy);
        plan::verify(&plan).map_err(|e| e.to_string())?;
        for isa in Isa::available() {
            let found = run(&plan, given, 2, isa);
            let outputs = expected.outputs.iter().map(|(name, v)| (format!("output {name}"), v));
            let updates = expected.updates.iter().map(|(name, v)| (format!("state {name}"), v));
            for (name, value) in outputs.chain(updates) {
                let Data::Real(values) = &value.data else { continue };
                for (i, (a, b)) in values.iter().zip(&found[&name]).enumerate() {
                    if a.to_bits() != b.to_bits() && !(a.is_nan() && b.is_nan()) {
                        return Err(format!("{isa:?}, {fusion:?}: element {i} of {name} is {b:e}, expected {a:e}"));
                    }
                }
            }
        }
    }
    Ok(())
}

#[test]
fn bf16_is_rounded_alike_in_place_and_in_memory() {
    let mut f = Fixture::new();
    let x = f.input("x", &[24]);
    let stored = f.input("stored", &[24]);
    for name in ["x", "stored"] {
        f.given.insert(name.into(), Value::real([24], bf16_specials()));
    }
    let state = Op::State { name: "half".into(), ty: Type::new(DType::Bf16, [24]) };
    let half = f.graph.add(state, &[], "half", Origin::default()).unwrap();
    f.given.insert("half".into(), Value::real([24], bf16_specials()));
    let mut b = f.builder();
    let to = |b: &mut Builder, x, to| b.op(Op::Convert { to }, &[x]);
    let narrow = to(&mut b, x, DType::Bf16);
    let wide = to(&mut b, narrow, DType::F32);
    let passed = b.add(wide, stored);
    // Through movement, padding and a row that several read.
    let moved = b.op(Op::Pad { low: vec![3], high: vec![5] }, &[narrow]);
    let moved = b.op(Op::Reverse { axes: vec![0] }, &[moved]);
    let old = to(&mut b, half, DType::F32);
    let sum = b.add(old, wide);
    let next = to(&mut b, sum, DType::Bf16);
    f.output("narrow", narrow);
    f.output("passed", passed);
    f.output("moved", moved);
    f.output("old", old);
    f.graph.updates.push(Update { state: "half".into(), node: next });
    check_bits(&f.graph, &f.given).unwrap();
}

/// An f32 result has the bytes of a bf16 buffer of twice as many elements, but must not take its place: what is stored
/// for one element would overwrite two.
#[test]
fn a_wider_result_does_not_take_a_narrower_operands_place() {
    let mut f = Fixture::new();
    let x = f.input("x", &[4096]);
    let mut b = f.builder();
    let narrow = b.op(Op::Convert { to: DType::Bf16 }, &[x]);
    let half = b.op(Op::Slice { start: vec![0], end: vec![2048] }, &[narrow]);
    let wide = b.op(Op::Convert { to: DType::F32 }, &[half]);
    let doubled = b.add(wide, wide);
    f.output("doubled", doubled);
    check_bits(&f.graph, &f.given).unwrap();
}

#[test]
fn a_contraction_reads_and_stores_bf16() {
    let mut f = Fixture::new();
    let (x, w) = (f.input("x", &[9, 17]), f.input("w", &[17, 12]));
    let mut b = f.builder();
    let [x, w] = [x, w].map(|v| {
        let narrow = b.op(Op::Convert { to: DType::Bf16 }, &[v]);
        b.op(Op::Convert { to: DType::F32 }, &[narrow])
    });
    let product = b.matmul(x, w);
    let narrow = b.op(Op::Convert { to: DType::Bf16 }, &[product]);
    f.output("narrow", narrow);
    f.output("product", product);
    let operand = Op::Input { name: "half".into(), ty: Type::new(DType::Bf16, [12, 3]) };
    let half = f.graph.add(operand, &[], "half", Origin::default()).unwrap();
    f.given.insert("half".into(), noise(&[12, 3], 5));
    let mut b = f.builder();
    let half = b.op(Op::Convert { to: DType::F32 }, &[half]);
    let second = b.matmul(product, half);
    f.output("second", second);
    // Sums differ in their order: the stored product may be on the other side of a step of rounding.
    let expected = evaluate(&f.graph, &f.given).unwrap();
    for (_, strategy) in strategies() {
        let plan = plan_of(&f.graph, strategy);
        for isa in Isa::available() {
            let found = run(&plan, &f.given, 2, isa);
            for (name, value) in &expected.outputs {
                let tolerance = if name == "narrow" { 1.0 / 128.0 } else { 1e-5 };
                for (a, b) in value.to_f64().into_iter().zip(&found[&format!("output {name}")]) {
                    assert!((a - f64::from(*b)).abs() <= tolerance * a.abs().max(1.0), "{isa:?} {name}: {b}, not {a}");
                }
            }
            let narrow = &found["output narrow"];
            let product = &found["output product"];
            assert!(narrow.iter().zip(product).all(|(n, p)| *n == crate::tensor::round_to_bf16(*p)), "{isa:?}");
        }
    }
}

/// One step of a random graph of operations that are exact or correctly rounded in f32 too.
fn bf16_step(b: &mut Builder, values: &mut Vec<NodeId>, choices: &mut crate::testing::Choices) {
    let x = choices.pick(values);
    let shape = b.shape(x);
    let wide = |b: &mut Builder, x: NodeId| match b.graph.ty(x).dtype {
        DType::Bf16 => b.op(Op::Convert { to: DType::F32 }, &[x]),
        DType::F32 | DType::U32 => x,
    };
    let next = match choices.below(8) {
        0..=2 => {
            let to = choices.pick(&[DType::Bf16, DType::Bf16, DType::F32]);
            b.op(Op::Convert { to }, &[x])
        }
        3 | 4 => {
            let y = choices.pick(values);
            let (x, y) = (wide(b, x), wide(b, y));
            let op = choices.pick(&[ScalarOp::Add, ScalarOp::Sub, ScalarOp::Mul]);
            if b.shape(y) == shape { b.scalar(op, &[x, y]) } else { b.scalar(op, &[x, x]) }
        }
        5 => b.transpose(x, &[1, 0]),
        6 => {
            let padded = b.op(Op::Pad { low: vec![1, 0], high: vec![0, 2] }, &[x]);
            b.op(Op::Slice { start: vec![0, 1], end: vec![shape[0], shape[1] + 1] }, &[padded])
        }
        _ => {
            let first = b.op(Op::Slice { start: vec![0, 0], end: vec![1, shape[1]] }, &[x]);
            b.op(Op::Broadcast { to: shape }, &[first])
        }
    };
    values.push(next);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Bit for bit, with specials among the inputs; as declared, and after all passes that only move and convert.
    #[test]
    fn random_graphs_with_converts(seed: u64, steps in 4usize..24) {
        let mut f = Fixture::new();
        let mut choices = crate::testing::Choices::new(seed);
        let mut values = vec![f.input("x", &[4, 6]), f.input("y", &[4, 6])];
        f.given.insert("x".into(), Value::real([4, 6], bf16_specials()));
        let ty = Type::new(DType::Bf16, [4, 6]);
        let half = f.graph.add(Op::Input { name: "half".into(), ty }, &[], "half", Origin::default()).unwrap();
        f.given.insert("half".into(), noise(&[4, 6], seed as u32));
        values.push(half);
        let mut b = f.builder();
        for _ in 0..steps {
            bf16_step(&mut b, &mut values, &mut choices);
        }
        for (i, &value) in values[3..].iter().rev().take(3).enumerate() {
            f.output(&format!("result{i}"), value);
        }
        prop_assert_eq!(check_bits(&f.graph, &f.given), Ok(()), "as declared:\n{}", f.graph);
        let before = evaluate(&f.graph, &f.given).unwrap();
        for pass in passes::PIPELINE.iter().filter(|p| ["movement", "fold", "cse", "dead"].contains(&p.name)) {
            (pass.run)(&mut f.graph, &passes::PassContext::default());
        }
        let bits = |e: &crate::ir::Evaluation<f32>| -> Vec<Vec<u64>> {
            let bits = |x: f64| if x.is_nan() { 1 } else { x.to_bits() };
            e.outputs.iter().map(|(_, v)| v.to_f64().into_iter().map(bits).collect()).collect()
        };
        prop_assert_eq!(bits(&before), bits(&evaluate(&f.graph, &f.given).unwrap()), "moved:\n{}", f.graph);
        prop_assert_eq!(check_bits(&f.graph, &f.given), Ok(()), "moved:\n{}", f.graph);
    }
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
            Body::Nests(_) | Body::Transform(_) => None,
        })
        .collect();
    assert_eq!(contractions[0].reductions.len(), 2, "{kernels:?}");
    let ordered = plan.entries[0].schedule.buffers.iter().filter(|b| !b.order.is_empty()).count();
    assert!(ordered > 0, "no image is pixel-major");
}
