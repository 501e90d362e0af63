//! The emitted text, compiled by the host's C++ compiler and run thread by thread, against the
//! interpreter.

use crate::graphs;
use crate::host::Program;
use gcc_gan::exec::cuda::{Launch, prelude, render};
use gcc_gan::ir::text::parse;
use gcc_gan::ir::{Bindings, Builder, DType, Data, Graph, Op, Origin, Output, ReduceKind, Value, evaluate};
use gcc_gan::kernel::body::KernelKind;
use gcc_gan::kernel::choice::{Algorithm, Math, Purpose};
use gcc_gan::kernel::schedule::{Buffer, BufferRole, Schedule, StateLayout};
use gcc_gan::kernel::target::{Architecture, Precision, Target};
use gcc_gan::kernel::warpgroup;
use gcc_gan::passes::{PassContext, operand_precision};
use gcc_gan::schedule::select::Tuned;
use gcc_gan::schedule::{Fusion, Strategy, schedule_tuned};
use gcc_gan::testing::{GraphOptions, random_bindings, random_graph, special_bindings};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A graph with everything that a run needs.
pub struct Case {
    pub graph: Graph,
    pub schedule: Schedule,
    pub bindings: Bindings<f32>,
    arena: Vec<u8>,
}

/// A strategy for GPUs.
pub fn gpu(fusion: Fusion, precision: Precision) -> Strategy {
    Strategy::new(fusion, Target::Cuda(Architecture(80)), precision)
}

fn case(graph: Graph, fusion: Fusion, seed: u64) -> Case {
    let bindings = random_bindings(&graph, seed);
    case_of(graph, fusion, bindings)
}

fn case_of(graph: Graph, fusion: Fusion, bindings: Bindings<f32>) -> Case {
    case_by(graph, gpu(fusion, Precision::F32), bindings)
}

pub fn case_by(graph: Graph, strategy: Strategy, bindings: Bindings<f32>) -> Case {
    case_tuned(graph, strategy, bindings, &Tuned::new())
}

/// With algorithms of their own for kernels of these names.
pub fn case_tuned(graph: Graph, strategy: Strategy, bindings: Bindings<f32>, tuned: &Tuned) -> Case {
    let states: BTreeMap<_, _> = (graph.ids().into_iter())
        .filter_map(|id| match graph.op(id) {
            Op::State { name, ty } => Some((name.clone(), ty.clone())),
            _ => None,
        })
        .collect();
    let layout = StateLayout::new(states.iter().map(|(name, ty)| (name.as_str(), ty))).unwrap();
    let schedule = schedule_tuned(&graph, &layout, strategy, tuned).unwrap();
    // What nobody wrote is not a number.
    let mut arena = vec![0xff; schedule.arena_bytes];
    for buffer in &schedule.buffers {
        if let BufferRole::Input(name) | BufferRole::State(name) = &buffer.role {
            let tensor = bindings[name].to_tensor(buffer.dtype);
            let bytes = tensor.view().bytes();
            arena[buffer.offset..][..bytes.len()].copy_from_slice(bytes);
        }
    }
    Case { graph, schedule, bindings, arena }
}

/// One program that runs every case on the arenas in a file.
fn program(cases: &[Case]) -> String {
    let mut text = format!("#include \"emulate.h\"\n{}\n", prelude());
    let mut main = String::new();
    for (number, case) in cases.iter().enumerate() {
        writeln!(main, "    {{\n        std::vector<unsigned char> arena({});", case.arena.len().max(1)).unwrap();
        writeln!(main, "        emulation::transfer(in, arena.data(), {}, false);", case.arena.len()).unwrap();
        for kernel in &case.schedule.kernels {
            let mut kernel = kernel.clone();
            kernel.name = format!("case{number}_{}", kernel.name);
            let rendered = render(&kernel, &case.schedule.buffers);
            text += &rendered.source;
            main += &launches(&rendered.launches);
        }
        writeln!(main, "        emulation::transfer(out, arena.data(), {}, true);\n    }}", case.arena.len()).unwrap();
    }
    text += &program_of(&main);
    text
}

/// The calls that launch a kernel.
pub fn launches(launches: &[Launch]) -> String {
    let mut text = String::new();
    for Launch { function, grid, block, shared_bytes } in launches {
        let shape = format!("{grid}, {block}, {shared_bytes}");
        writeln!(text, "        emulation::launch({function}, {shape}, arena.data(), backwards);").unwrap();
    }
    text
}

/// The main function of a program with these statements, which read arenas from `in` and write them to `out`.
pub fn program_of(statements: &str) -> String {
    let mut text = "int main(int, char** arguments) {\n".to_string();
    text += "    FILE* in = fopen(arguments[1], \"rb\");\n    FILE* out = fopen(arguments[2], \"wb\");\n";
    text += "    const bool backwards = arguments[3][0] == 'b';\n";
    text += statements;
    text += "    return fclose(out);\n}\n";
    text
}

/// The arenas after running each case's kernels.
fn run(cases: &[Case]) -> Option<[Vec<u8>; 2]> {
    run_program(&program(cases), &cases.iter().flat_map(|c| c.arena.clone()).collect::<Vec<u8>>())
}

/// What a program makes of its input, with the threads in either order; `None` where there is no compiler.
pub fn run_program(text: &str, input: &[u8]) -> Option<[Vec<u8>; 2]> {
    try_program(text, input).map(|results| results.map(|result| result.unwrap_or_else(|said| panic!("{said}"))))
}

/// The same, or what the program says when it ends early.
pub fn try_program(text: &str, input: &[u8]) -> Option<[Result<Vec<u8>, String>; 2]> {
    Program::new(text).map(|program| program.run(input, &[]))
}

/// The bits of each element: of bf16, those of the f32 of the same value.
fn words(arena: &[u8], buffer: &Buffer) -> Vec<u32> {
    let bytes = &arena[buffer.offset..][..buffer.bytes()];
    if buffer.dtype == DType::Bf16 {
        return bytes.chunks_exact(2).map(|b| u32::from(u16::from_ne_bytes([b[0], b[1]])) << 16).collect();
    }
    bytes.chunks_exact(4).map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn compare(what: &str, schedule: &Schedule, buffer: &Buffer, arenas: [&[u8]; 2], expected: &Value<f32>) {
    let [found, other] = arenas.map(|arena| words(arena, buffer));
    let kernels: Vec<&str> = schedule.kernels.iter().map(|k| k.name.as_str()).collect();
    assert_eq!(found, other, "{what} depends on the order of threads; kernels {kernels:?}");
    match &expected.data {
        Data::U32(values) => assert_eq!(&found, values, "{what}"),
        Data::Real(values) => {
            // Sums are taken in another order than the interpreter's.
            let largest = values.iter().filter(|v| v.is_finite()).fold(1f32, |m, v| m.max(v.abs()));
            for (i, (&bits, &expected)) in found.iter().zip(values).enumerate() {
                let x = f32::from_bits(bits);
                let near = expected.is_finite() && (x - expected).abs() <= 3e-6 * largest + 1e-5 * expected.abs();
                let same = near || x == expected || (x.is_nan() && expected.is_nan());
                assert!(same, "{what}, element {i}: {x}, expected {expected}; kernels {kernels:?}");
            }
        }
    }
}

/// Runs every case and compares it with the interpreter.
pub fn check(cases: &[Case]) {
    let Some([forwards, backwards]) = run(cases) else { return };
    let mut start = 0;
    for case in cases {
        let arenas = [&forwards, &backwards].map(|all| &all[start..start + case.arena.len()]);
        start += case.arena.len();
        let expected = evaluate(&case.graph, &case.bindings).unwrap();
        let name = &case.graph.name;
        let schedule = &case.schedule;
        for (output, (_, value)) in schedule.outputs.iter().zip(&expected.outputs) {
            let what = format!("output {} of {name}", output.name);
            compare(&what, schedule, &schedule.buffers[output.buffer.index()], arenas, value);
        }
        for (state, value) in &expected.updates {
            let is_it = |b: &&Buffer| matches!(&b.role, BufferRole::State(s) if s == state);
            let buffer = schedule.buffers.iter().find(is_it).expect("an updated state has a buffer");
            compare(&format!("state {state} of {name}"), schedule, buffer, arenas, value);
        }
    }
}

#[test]
fn known_graphs_compute_what_the_interpreter_computes() {
    let mut cases: Vec<Case> = graphs::all().into_iter().map(|g| case(g, Fusion::On, 7)).collect();
    cases.extend(graphs::all().into_iter().map(|g| case(g, Fusion::Off, 8)));
    check(&cases);
}

/// What a pass has rounded is multiplied as it is stored, in whatever order it lies in memory. All numbers are small and
/// whole, so that no sum rounds.
#[test]
fn stored_operands_are_multiplied_as_they_are() {
    const LAYERS: &str = r#"graph layers {
        %x: f32[16,16,6,6] = input "x"
        %f: f32[32,16,4,4] = state "f"
        %w: f32[288,20] = state "w"
        %y: f32[16,32,3,3] = conv2d %x %f stride=[2,2] pad=[1,1]
        %zero: f32[16,32,3,3] = constant 0.0
        %r = max %y %zero
        %rows: f32[16,288] = reshape %r
        %p: f32[16,20] = matmul %rows %w
        %wt: f32[20,288] = transpose %w permutation=[1,0]
        %eighth: f32[16,20] = constant 0.0078125
        %dp = mul %p %eighth
        %drows: f32[16,288] = matmul %dp %wt
        %dr: f32[16,32,3,3] = reshape %drows
        %is_positive = gt %r %zero
        %dy = select %is_positive %dr %zero
        %rowst: f32[288,16] = transpose %rows permutation=[1,0]
        %dw: f32[288,20] = matmul %rowst %dp
        %dx: f32[16,16,6,6] = conv2d_input_grad %dy %f stride=[2,2] pad=[1,1] size=[6,6]
        %df: f32[32,16,4,4] = conv2d_filter_grad %x %dy stride=[2,2] pad=[1,1] kernel=[4,4]
        %total: f32[1,32,1,1] = reduce_sum %dy axes=[0,2,3]
        output p = %p
        output dw = %dw
        output dx = %dx
        output df = %df
        output total = %total
        }"#;
    let mut cases = Vec::new();
    for (precision, math) in [(Precision::Tf32, Math::Tf32Stored), (Precision::Bf16, Math::Bf16Stored)] {
        for fusion in [Fusion::On, Fusion::Off] {
            let strategy = gpu(fusion, precision);
            let mut graph = parse(LAYERS).unwrap();
            let context = PassContext { operands: strategy.rounding(), ..PassContext::default() };
            operand_precision(&mut graph, &context);
            let mut bindings = random_bindings(&graph, 3);
            for value in bindings.values_mut() {
                if let Data::Real(values) = &mut value.data {
                    values.iter_mut().for_each(|v: &mut f32| *v = (*v * 1.5).round());
                }
            }
            let case = case_by(graph, strategy, bindings);
            for kernel in case.schedule.kernels.iter().filter(|k| k.kind() == KernelKind::Contraction) {
                let Algorithm::ThreadBlocks(blocks) = &kernel.choice.algorithm else { panic!("{}", kernel.name) };
                // Not fused, what is widened is stored.
                let is_stored = fusion == Fusion::On || precision == Precision::Tf32;
                assert!(blocks.math == math || !is_stored, "{}: {:?}", kernel.name, blocks.math);
            }
            cases.push(case);
        }
    }
    check(&cases);
}

#[test]
fn random_graphs_compute_what_the_interpreter_computes() {
    let options = GraphOptions::default();
    let cases: Vec<Case> = (0..60).map(|seed| case(random_graph(seed, options), Fusion::On, seed)).collect();
    let reductions = cases.iter().flat_map(|c| &c.schedule.kernels);
    assert!(reductions.filter(|k| k.kind() == KernelKind::Reduction).count() > 20, "the graphs should reduce");
    check(&cases);
}

/// The gradient is in no buffer, and what is reduced of the update is reduced tile by tile.
#[test]
fn updates_are_computed_where_their_gradients_are() {
    let mut cases: Vec<Case> = Vec::new();
    for (seed, axes) in [&[1][..], &[0], &[0, 1]].into_iter().enumerate() {
        for kind in [ReduceKind::Max, ReduceKind::Sum] {
            let graph = graphs::update_by_gradient(kind, axes);
            let mut strategy = gpu(Fusion::On, Precision::F32);
            // One result for everything too.
            strategy.policy.parallel_points = 0;
            let bindings = random_bindings(&graph, seed as u64);
            cases.push(case_by(graph, strategy, bindings));
        }
    }
    for Case { schedule, .. } in &cases {
        let [kernel] = &schedule.kernels[..] else { panic!("the update is in another kernel: {:?}", schedule.kernels) };
        assert!(schedule.buffers.iter().all(|buffer| buffer.role != BufferRole::Temporary));
        let purposes: Vec<Purpose> = kernel.choice.workspace.iter().map(|w| w.purpose).collect();
        assert_eq!(purposes, [Purpose::Partials]);
    }
    check(&cases);
}

/// Warpgroups leave to reductions what warps do. Numbers are few bits long, so that nothing is rounded.
#[test]
fn warpgroups_reduce_what_they_update() {
    let mut cases: Vec<Case> = Vec::new();
    for axes in [&[1][..], &[0], &[0, 1]] {
        let mut graph = graphs::update_by_gradient(ReduceKind::Max, axes);
        let target = Target::Cuda(Architecture(90));
        let mut strategy = Strategy::new(Fusion::On, target, Precision::Bf16);
        strategy.policy.parallel_points = 0;
        let context = PassContext { operands: strategy.rounding(), ..PassContext::default() };
        operand_precision(&mut graph, &context);
        let mut bindings = random_bindings(&graph, 7);
        for value in bindings.values_mut() {
            if let Data::Real(values) = &mut value.data {
                values.iter_mut().for_each(|v: &mut f32| *v = (*v * 1.5).round());
            }
        }
        let mut case = case_by(graph, strategy, bindings);
        let mut changed = 0;
        for kernel in &mut case.schedule.kernels {
            if let Algorithm::ThreadBlocks(blocks) = &mut kernel.choice.algorithm
                && blocks.math == Math::Bf16Stored
            {
                *blocks = warpgroup::blocks(blocks.math, (64, 64), 3, 1);
                changed += 1;
            }
        }
        assert_eq!(changed, 1, "the gradient is a product for tensor cores");
        cases.push(case);
    }
    check(&cases);
}

/// A gradient that something else reads too is in memory, and updates are in kernels of their own.
#[test]
fn a_gradient_that_others_read_is_stored() {
    let mut graph = graphs::update_by_gradient(ReduceKind::Max, &[1]);
    let gradient = graph.ids().into_iter().find(|&id| matches!(graph.op(id), Op::MatMul)).unwrap();
    let mut b = Builder::new(&mut graph, Origin::default());
    let node = b.op(Op::Reduce { kind: ReduceKind::Sum, axes: vec![0, 1] }, &[gradient]);
    graph.outputs.push(Output { name: "sum".to_string(), node });
    let case = case(graph, Fusion::On, 5);
    let is_gradient = |buffer: &Buffer| buffer.role == BufferRole::Temporary && buffer.shape == [132, 72];
    assert!(case.schedule.buffers.iter().any(is_gradient));
    check(&[case]);
}

#[test]
fn special_values_come_out_as_the_interpreter_has_them() {
    let mut cases: Vec<Case> = Vec::new();
    for seed in 0..4 {
        for graph in [graphs::scalar_operations(), graphs::extrema([5, 70]), graphs::extrema([64, 33])] {
            let bindings = special_bindings(&graph, seed, 8);
            cases.push(case_of(graph, Fusion::On, bindings));
        }
    }
    let options = GraphOptions { contractions: false, ..GraphOptions::default() };
    cases.extend((0..40).map(|seed| {
        let graph = random_graph(seed, options);
        let bindings = special_bindings(&graph, seed, 12);
        case_of(graph, Fusion::On, bindings)
    }));
    check(&cases);
}
