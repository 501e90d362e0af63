use super::*;
use crate::ir::text::{Printer, parse};
use crate::ir::{Graph, Op, evaluate, evaluate_nodes, verify};
use crate::scalar::ScalarOp;
use proptest::prelude::*;
use std::collections::BTreeSet;

pub(super) fn operation_names(options: GraphOptions) -> BTreeSet<&'static str> {
    (0..300)
        .map(|seed| random_graph(seed, options))
        .flat_map(|graph| graph.ids().into_iter().map(|id| graph.op(id).name()).collect::<Vec<_>>())
        .collect()
}

#[test]
fn every_operation_occurs() {
    // These jump: evaluations in f32 and f64 would differ by more than their own rounding.
    let jumps = |op: ScalarOp| matches!(op, ScalarOp::RoundBf16 | ScalarOp::RoundTf32);
    let scalars = ScalarOp::ALL.iter().filter(|op| !jumps(**op)).map(|op| op.name());
    let others = [
        "input",
        "state",
        "constant",
        "iota",
        "random",
        "reshape",
        "transpose",
        "broadcast",
        "pad",
        "slice",
        "concat",
        "reverse",
        "reduce_sum",
        "reduce_max",
        "reduce_deviations",
        "matmul",
        "conv2d",
        "conv2d_input_grad",
        "conv2d_filter_grad",
        "im2col",
        "col2im",
        "gradient",
    ];
    let all: BTreeSet<&str> = scalars.chain(others).collect();
    assert_eq!(operation_names(GraphOptions { gradients: true, ..GraphOptions::default() }), all);
}

#[test]
fn options_leave_operations_out() {
    let names = operation_names(GraphOptions { contractions: false, draws: false, ..GraphOptions::default() });
    for absent in ["matmul", "conv2d", "conv2d_input_grad", "conv2d_filter_grad", "random", "gradient"] {
        assert!(!names.contains(absent), "{absent}");
    }
    let names = operation_names(GraphOptions { smooth: true, ..GraphOptions::default() });
    for absent in ["max", "min", "abs", "sign", "lt", "eq", "select", "reduce_max"] {
        assert!(!names.contains(absent), "{absent}");
    }
}

#[test]
fn the_same_seed_gives_the_same_graph() {
    let options = GraphOptions::default();
    assert_eq!(random_graph(7, options), random_graph(7, options));
    assert_ne!(random_graph(7, options), random_graph(8, options));
    let mut graph = random_graph(7, options);
    let before = random_bindings::<f64>(&graph, 1);
    graph.remove_dead();
    for (name, value) in random_bindings::<f64>(&graph, 1) {
        assert_eq!(before[&name], value);
    }
}

fn finite_and_bounded(graph: &Graph, seed: u64) -> Result<(), TestCaseError> {
    let bindings = random_bindings::<f64>(graph, seed);
    let outcome = evaluate(graph, &bindings).map_err(|e| TestCaseError::fail(e.to_string()))?;
    for (name, value) in outcome.outputs.iter().chain(&outcome.updates) {
        prop_assert!(value.to_f64().iter().all(|v| v.is_finite()), "{}", name);
    }
    let reals: Vec<_> =
        graph.outputs.iter().filter(|o| o.name == "loss" || o.name.starts_with("real")).map(|o| o.node).collect();
    for (id, value) in evaluate_nodes(graph, &bindings, &reals).unwrap() {
        let largest = value.to_f64().into_iter().fold(0.0, |a: f64, b| a.max(b.abs()));
        prop_assert!(largest <= 2.0 * 16.0, "{} reaches {}", graph.node(id).name, largest);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_graphs_are_valid_and_have_finite_values(
        graph in graphs(GraphOptions { steps: 40, ..GraphOptions::default() }),
        seed in any::<u64>(),
    ) {
        prop_assert_eq!(verify(&graph), Ok(()));
        finite_and_bounded(&graph, seed)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn gradients_of_random_graphs_are_valid_and_finite(
        graph in graphs(GraphOptions { gradients: true, ..GraphOptions::default() }),
        seed in any::<u64>(),
    ) {
        let mut graph = graph;
        crate::autodiff::differentiate(&mut graph);
        prop_assert_eq!(verify(&graph), Ok(()));
        prop_assert_eq!(&parse(&Printer { origins: true }.graph(&graph)).unwrap(), &graph);
        let outcome = evaluate(&graph, &random_bindings::<f64>(&graph, seed))
            .map_err(|e| TestCaseError::fail(e.to_string()))?;
        let (_, gradient) = outcome.outputs.iter().find(|(name, _)| name == "gradient").unwrap();
        prop_assert!(gradient.to_f64().iter().all(|v| v.is_finite()));
    }
}

#[test]
fn f32_and_f64_differ_by_rounding_alone() {
    for seed in 0..500 {
        let graph = random_graph(seed, GraphOptions::default());
        let wide = evaluate(&graph, &random_bindings::<f64>(&graph, seed)).unwrap();
        let narrow = evaluate(&graph, &random_bindings::<f32>(&graph, seed)).unwrap();
        for ((name, wide), (_, narrow)) in
            wide.outputs.iter().chain(&wide.updates).zip(narrow.outputs.iter().chain(&narrow.updates))
        {
            for (w, n) in wide.to_f64().iter().zip(narrow.to_f64()) {
                assert!((w - n).abs() <= 1e-3 * w.abs().max(1.0), "graph {seed}: {name} is {w} in f64, {n} in f32");
            }
        }
        assert!(graph.ids().iter().all(|&id| !matches!(graph.op(id), Op::Gradient)));
    }
}
