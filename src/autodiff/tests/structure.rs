//! What is built, and what is not.

use crate::autodiff::{Report, differentiate};
use crate::ir::{Builder, DType, Graph, NodeId, Op, Origin, Output, Probe, Role, Span, Type, Update};
use crate::scalar::ScalarOp;

fn origin(scope: &str, start: usize) -> Origin {
    Origin { span: Some(Span { start, end: start + 1 }), scope: scope.into(), role: Role::Forward }
}

fn state(graph: &mut Graph, name: &str, shape: &[usize]) -> NodeId {
    let op = Op::State { name: name.into(), ty: Type::f32(shape) };
    Builder::new(graph, origin(name, 0)).named(name, op, &[])
}

fn gradient(graph: &mut Graph, y: NodeId, x: NodeId) -> NodeId {
    Builder::new(graph, Origin::default()).op(Op::Gradient, &[y, x])
}

fn output(graph: &mut Graph, name: &str, node: NodeId) {
    graph.outputs.push(Output { name: name.into(), node });
}

fn total(b: &mut Builder<'_>, x: NodeId) -> NodeId {
    let axes: Vec<usize> = (0..b.shape(x).len()).collect();
    let sum = b.sum(x, &axes);
    b.reshape(sum, &[])
}

fn count(graph: &Graph, wanted: impl Fn(&Op) -> bool) -> usize {
    graph.ids().into_iter().filter(|&id| wanted(graph.op(id))).count()
}

/// A generator and a discriminator of one matrix each: `tanh(tanh(z · g) · d)`, summed.
struct Pair {
    graph: Graph,
    g: NodeId,
    d: NodeId,
    fake: NodeId,
    loss: NodeId,
}

fn pair() -> Pair {
    let mut graph = Graph::new("pair");
    let z = Op::Input { name: "z".into(), ty: Type::f32([2, 3]) };
    let z = Builder::new(&mut graph, origin("", 0)).named("z", z, &[]);
    let (g, d) = (state(&mut graph, "g", &[3, 4]), state(&mut graph, "d", &[4, 1]));
    let mut b = Builder::new(&mut graph, origin("fake/generator", 10));
    let fake = b.named("fake_raw", Op::MatMul, &[z, g]);
    let fake = b.scalar(ScalarOp::Tanh, &[fake]);
    b.origin = origin("score/discriminator", 20);
    let score = b.named("score_raw", Op::MatMul, &[fake, d]);
    let score = b.scalar(ScalarOp::Tanh, &[score]);
    let loss = total(&mut b, score);
    output(&mut graph, "loss", loss);
    Pair { graph, g, d, fake, loss }
}

/// The scopes of the forward nodes whose rules were applied.
fn differentiated_scopes(graph: &Graph) -> Vec<String> {
    let gradients = graph.ids().into_iter().filter(|&id| matches!(graph.node(id).origin.role, Role::Gradient(_)));
    let mut scopes: Vec<String> = gradients.map(|id| graph.node(id).origin.scope.clone()).collect();
    scopes.sort();
    scopes.dedup();
    scopes
}

#[test]
fn the_discriminator_half_builds_nothing_for_the_generator() {
    let Pair { mut graph, d, loss, .. } = pair();
    let wanted = gradient(&mut graph, loss, d);
    output(&mut graph, "d_d", wanted);
    differentiate(&mut graph);
    // Two forward products and that of d's own gradient, without the one that would give d_fake.
    assert_eq!(count(&graph, |op| *op == Op::MatMul), 3);
    assert_eq!(differentiated_scopes(&graph), ["score/discriminator"]);
    // Nothing was built that is not used.
    assert_eq!(graph.remove_dead(), 0, "dead nodes:\n{graph:?}");
}

#[test]
fn the_generator_half_builds_no_gradient_of_the_discriminator() {
    let Pair { mut graph, g, d, loss, .. } = pair();
    let wanted = gradient(&mut graph, loss, g);
    output(&mut graph, "d_g", wanted);
    differentiate(&mut graph);
    assert_eq!(count(&graph, |op| *op == Op::MatMul), 4);
    assert_eq!(differentiated_scopes(&graph), ["fake/generator", "score/discriminator"]);
    let by_d: Vec<&str> = graph.users(d).into_iter().map(|id| graph.op(id).name()).collect();
    assert_eq!(by_d, ["matmul", "transpose"]);
    assert_eq!(graph.remove_dead(), 0, "dead nodes:\n{graph:?}");
}

#[test]
fn gradients_of_one_loss_share_one_sweep() {
    let Pair { mut graph, g, d, loss, .. } = pair();
    for x in [g, d, g] {
        let wanted = gradient(&mut graph, loss, x);
        output(&mut graph, "gradient", wanted);
    }
    let before = graph.len();
    let report = differentiate(&mut graph);
    assert_eq!(Report { added: 0, ..report.clone() }, Report { gradients: 3, sweeps: 1, ..Report::default() });
    assert_eq!(graph.len(), before + report.added - 3);
    assert_eq!(count(&graph, |op| *op == Op::MatMul), 5);
    assert_eq!(count(&graph, |op| *op == Op::Gradient), 0);
    assert_eq!(graph.outputs[1].node, graph.outputs[3].node);
    assert_eq!(graph.remove_dead(), 0, "dead nodes:\n{graph:?}");
}

/// `x` is the independent variable also where it is computed from others.
#[test]
fn the_gradient_in_a_computed_node_stops_there() {
    let Pair { mut graph, fake, loss, .. } = pair();
    let wanted = gradient(&mut graph, loss, fake);
    output(&mut graph, "d_fake", wanted);
    differentiate(&mut graph);
    assert_eq!(graph.node(graph.outputs[1].node).name, "d_tanh");
    assert_eq!(differentiated_scopes(&graph), ["score/discriminator"]);
    assert_eq!(count(&graph, |op| *op == Op::MatMul), 3);
}

#[test]
fn added_nodes_point_back_at_the_forward_node_and_name_the_loss() {
    let Pair { mut graph, d, loss, .. } = pair();
    let wanted = gradient(&mut graph, loss, d);
    output(&mut graph, "d_d", wanted);
    differentiate(&mut graph);
    let node = |name: &str| graph.node(graph.find(name).unwrap_or_else(|| panic!("{name} in {graph:?}")));
    let role = Role::Gradient("loss".into());
    assert_eq!(node("d_score_raw").origin, Origin { role: role.clone(), ..origin("score/discriminator", 20) });
    // The product is part of the rule of `score_raw`, whose operand `d` is.
    assert_eq!(node("d_d").origin, Origin { role, ..origin("score/discriminator", 20) });
    assert_eq!(*node("d_d").ty.shape, [4, 1]);
}

#[test]
fn every_kind_of_use_of_a_gradient_is_redirected() {
    let Pair { mut graph, d, loss, .. } = pair();
    let wanted = gradient(&mut graph, loss, d);
    output(&mut graph, "out", wanted);
    graph.updates.push(Update { state: "d".into(), node: wanted });
    graph.probes.push(Probe { name: "probe".into(), node: wanted });
    differentiate(&mut graph);
    let d_d = graph.find("d_d").expect("the gradient");
    assert_eq!((graph.outputs[1].node, graph.updates[0].node, graph.probes[0].node), (d_d, d_d, d_d));
}

#[test]
fn what_does_not_reach_the_loss_has_gradient_zero_and_is_reported() {
    let Pair { mut graph, loss, .. } = pair();
    let other = state(&mut graph, "other", &[2, 2]);
    // A comparison is constant between its jumps.
    let mut b = Builder::new(&mut graph, Origin::default());
    let mask = b.scalar(ScalarOp::Gt, &[other, other]);
    let mask = total(&mut b, mask);
    let sum = b.add(loss, mask);
    let wanted = gradient(&mut graph, sum, other);
    output(&mut graph, "d_other", wanted);
    let report = differentiate(&mut graph);
    assert_eq!(report.unconnected, ["other"]);
    assert_eq!(report.added, 1);
    assert_eq!(*graph.op(graph.outputs[1].node), Op::constant(0.0, DType::F32, [2, 2]));
}

#[test]
fn the_gradient_of_a_loss_in_itself_is_one() {
    let Pair { mut graph, loss, .. } = pair();
    let wanted = gradient(&mut graph, loss, loss);
    output(&mut graph, "one", wanted);
    differentiate(&mut graph);
    assert_eq!(*graph.op(graph.outputs[1].node), Op::constant(1.0, DType::F32, []));
}

/// Two nodes that read one state are one variable: its gradient counts both.
#[test]
fn nodes_that_read_the_same_state_are_one_variable() {
    let mut graph = Graph::new("twice");
    let (a, b) = (state(&mut graph, "w", &[]), state(&mut graph, "w", &[]));
    let product = Builder::new(&mut graph, Origin::default()).mul(a, b);
    let wanted = gradient(&mut graph, product, b);
    output(&mut graph, "d_w", wanted);
    differentiate(&mut graph);
    assert_eq!(count(&graph, |op| matches!(op, Op::State { .. })), 1);
    let sum = graph.outputs[0].node;
    assert_eq!(*graph.op(sum), Op::Scalar(ScalarOp::Add));
    assert_eq!(graph.operands(sum), [a, a]);
}

#[test]
fn a_graph_without_gradients_stays_as_it_is() {
    let Pair { mut graph, .. } = pair();
    let (names, before) =
        (|g: &Graph| g.ids().iter().map(|&id| g.node(id).name.clone()).collect::<Vec<_>>(), graph.clone());
    assert_eq!(differentiate(&mut graph), Report::default());
    assert_eq!(names(&graph), names(&before));
}

/// The derivative of a quotient by a constant does not come with one in the constant, and linear
/// operations do not multiply by one.
#[test]
fn only_needed_partial_derivatives_are_built() {
    let mut graph = Graph::new("small");
    let x = state(&mut graph, "x", &[]);
    let mut b = Builder::new(&mut graph, Origin::default());
    let three = b.constant(3.0, &[]);
    let quotient = b.div(x, three);
    let difference = b.sub(three, quotient);
    let wanted = gradient(&mut graph, difference, x);
    output(&mut graph, "d_x", wanted);
    let report = differentiate(&mut graph);
    // One, its negation, and the division by three.
    assert_eq!(report.added, 3);
    let d_x = graph.outputs[0].node;
    assert_eq!(*graph.op(d_x), Op::Scalar(ScalarOp::Div));
    assert_eq!(graph.operands(d_x)[1], three);
}

/// The result of a softmax does not depend on the maximum that is taken away: no gradient looks for where it is.
#[test]
fn the_maximum_of_a_softmax_has_no_gradient() {
    for loss in ["Mean(LogSoftmax(\"y\"))", "Mean(Mul(\"y\", Softmax(\"y\")))"] {
        let text = format!(
            r#"Program(
                name: "p",
                networks: {{ "net": Network(input: [3], layers: [Dense(units: 4)]) }},
                entries: {{ "train_step": Entry(
                    inputs: {{ "x": Tensor([2, 3]) }},
                    steps: [Let("y", Call("net", "x", Training)), Let("loss", {loss}), Minimise("loss", "net", Sgd(lr: 0.1))],
                    outputs: ["loss"],
                ) }},
            )"#
        );
        let module = crate::declare::load("p.ron", &text, &[], &[]).unwrap();
        let mut graph = module.entries.into_iter().find(|e| e.graph.name == "train_step").unwrap().graph;
        differentiate(&mut graph);
        let compares = |id: &NodeId| *graph.op(*id) == Op::Scalar(ScalarOp::Eq);
        assert!(!graph.ids().iter().any(compares), "{graph}");
    }
}
