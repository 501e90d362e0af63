use super::*;
use crate::ir::text::parse;
use crate::ir::{Node, Output, Probe, Update};
use crate::testing::{GraphOptions, graphs};
use proptest::prelude::*;

const STEP: &str = r#"
graph step {
  %seed: u32[2] = input "seed"
  %step: u32[] = state "step"
  %x: f32[2,3] = input "x"
  %w: f32[3,4] = state "w"
  %noise: f32[2,3] = random normal "noise" %seed %step
  %noisy: f32[2,3] = add %x %noise
  %y: f32[2,4] = matmul %noisy %w
  %w2: f32[3,4] = neg %w
  output y = %y
  update "w" = %w2
  probe "noisy" = %noisy
}"#;

fn step() -> Graph {
    parse(STEP).unwrap()
}

fn with_line(line: &str) -> Graph {
    parse(&STEP.replace("  output y", &format!("  {line}\n  output y"))).unwrap()
}

fn id(graph: &Graph, name: &str) -> NodeId {
    graph.find(name).unwrap()
}

fn complaint(graph: &Graph) -> String {
    verify(graph).unwrap_err().to_string()
}

#[test]
fn a_sound_graph_passes() {
    assert_eq!(verify(&step()), Ok(()));
    assert_eq!(verify(&Graph::new("empty")), Ok(()));
    // The same input, state and draw may occur twice.
    let twice = r#"%again: f32[2,3] = random normal "noise" %seed %step
        %s2: u32[2] = input "seed"
        %third: f32[2,3] = random normal "noise" %s2 %step"#;
    assert_eq!(verify(&with_line(twice)), Ok(()));
}

#[test]
fn illegal_and_missing_names() {
    for bad in ["", "two words", "100%", "a\nb"] {
        let mut graph = step();
        let y = id(&graph, "y");
        graph.node_mut(y).name = bad.into();
        assert_eq!(verify(&graph), Err(VerifyError::IllegalName { name: bad.into() }));
    }
    let mut graph = step();
    graph.outputs[0].name.clear();
    assert_eq!(verify(&graph), Err(VerifyError::NoName { kind: "output" }));
    let graph = with_line(r#"%nameless: f32[1] = input """#);
    assert_eq!(verify(&graph), Err(VerifyError::NoName { kind: "input" }));
}

#[test]
fn names_of_two_nodes() {
    let mut graph = step();
    let y = id(&graph, "y");
    graph.node_mut(y).name = "x".into();
    assert_eq!(complaint(&graph), "two nodes are named `%x`");
}

#[test]
fn cycles() {
    let mut graph = step();
    let (x, w2) = (id(&graph, "x"), id(&graph, "noisy"));
    graph.dag_mut().add_edge(w2, x, 0);
    assert_eq!(complaint(&graph), "`%x` depends on itself, or on a node that does");
    // A graph with a cycle can still be printed and compared.
    assert!(graph.to_string().contains("%x: f32[2,3] = input \"x\" %noisy"));
    assert_eq!(graph, graph.clone());
}

#[test]
fn operand_positions() {
    let mut graph = step();
    let (noisy, noise) = (id(&graph, "noisy"), id(&graph, "noise"));
    let edge = graph.dag_mut().find_edge(noise, noisy).unwrap();
    graph.dag_mut()[edge] = 2;
    assert_eq!(complaint(&graph), "`%noisy` has operands at positions [0, 2], which must count up from 0");
    graph.dag_mut()[edge] = 0;
    assert_eq!(complaint(&graph), "`%noisy` has operands at positions [0, 0], which must count up from 0");
}

#[test]
fn operand_counts() {
    let mut graph = step();
    let (noisy, noise) = (id(&graph, "noisy"), id(&graph, "noise"));
    graph.dag_mut().add_edge(noise, noisy, 2);
    assert_eq!(complaint(&graph), "`%noisy` does not fit its operands: add: takes 2 operands, got 3");
}

#[test]
fn operand_types() {
    let mut graph = step();
    let noisy = id(&graph, "noisy");
    graph.node_mut(noisy).op = Op::MatMul;
    let found = verify(&graph);
    assert!(matches!(&found, Err(VerifyError::Operands { node, .. }) if node == "noisy"), "{found:?}");
}

#[test]
fn result_types() {
    let mut graph = step();
    let y = id(&graph, "y");
    graph.node_mut(y).ty = Type::f32([4, 2]);
    assert_eq!(complaint(&graph), "`%y` is typed f32[4,2], but its operation gives f32[2,4]");
}

#[test]
fn inputs_and_states_of_two_types() {
    let graph = with_line(r#"%x2: f32[6] = input "x""#);
    assert_eq!(complaint(&graph), "input `x` has type f32[2,3] at one node and f32[6] at `%x2`");
    let graph = with_line(r#"%w3: u32[3,4] = state "w""#);
    assert_eq!(complaint(&graph), "state `w` has type f32[3,4] at one node and u32[3,4] at `%w3`");
}

#[test]
fn streams_drawn_in_two_ways() {
    let other = |line: &str, difference: &str| {
        let expected =
            format!("random stream `noise` is drawn at `%noise` and otherwise at `%other`: the {difference} differ");
        assert_eq!(complaint(&with_line(line)), expected);
    };
    other(r#"%other: f32[2,3] = random uniform "noise" %seed %step"#, "distributions");
    other(r#"%other: f32[3,2] = random normal "noise" %seed %step"#, "shapes");
    let seed = "%seed2: u32[2] = input \"seed2\"\n%other: f32[2,3] = random normal \"noise\" %seed2 %step";
    other(seed, "seeds");
    other("%s2 = add_u32 %step %step\n%other: f32[2,3] = random normal \"noise\" %seed %s2", "steps");
}

#[test]
fn results_that_were_removed() {
    let gone = NodeId::new(99);
    let mut graph = step();
    graph.outputs.push(Output { name: "lost".into(), node: gone });
    assert_eq!(complaint(&graph), "output `lost` refers to a node that was removed");
    assert!(graph.to_string().contains("output lost = %\"(removed)\""));
    let mut graph = step();
    graph.updates.push(Update { state: "step".into(), node: gone });
    assert_eq!(complaint(&graph), "update `step` refers to a node that was removed");
    let mut graph = step();
    graph.probes.push(Probe { name: "lost".into(), node: gone });
    assert_eq!(complaint(&graph), "probe `lost` refers to a node that was removed");
}

#[test]
fn results_of_one_name() {
    let mut graph = step();
    graph.outputs.push(graph.outputs[0].clone());
    assert_eq!(complaint(&graph), "there are two outputs `y`");
    let mut graph = step();
    graph.updates.push(graph.updates[0].clone());
    assert_eq!(complaint(&graph), "there are two updates `w`");
    let mut graph = step();
    graph.probes.push(graph.probes[0].clone());
    assert_eq!(complaint(&graph), "there are two probes `noisy`");
}

#[test]
fn updates_of_another_type() {
    let mut graph = step();
    graph.updates[0].node = id(&graph, "y");
    assert_eq!(complaint(&graph), "update of `w`, a state of type f32[3,4], by `%y` of type f32[2,4]");
    // A state that the graph sets without reading it can have any type.
    graph.updates[0].state = "unread".into();
    assert_eq!(verify(&graph), Ok(()));
}

#[test]
fn equality_is_up_to_handles() {
    let graph = step();
    // Another node that came and went leaves other handles and the same graph.
    let mut other = Graph::new("step");
    let gone = other.add(Op::constant(0.0, crate::ir::DType::F32, []), &[], "gone", Default::default()).unwrap();
    for id in graph.topological() {
        let Node { op, name, origin, .. } = graph.node(id).clone();
        let operands: Vec<NodeId> =
            graph.operands(id).iter().map(|&o| other.find(&graph.node(o).name).unwrap()).collect();
        other.add(op, &operands, &name, origin).unwrap();
    }
    other.remove(gone);
    let there = |name: &str| other.find(name).unwrap();
    let (y, w2, noisy) = (there("y"), there("w2"), there("noisy"));
    other.outputs.push(Output { name: "y".into(), node: y });
    other.updates.push(Update { state: "w".into(), node: w2 });
    other.probes.push(Probe { name: "noisy".into(), node: noisy });
    assert_ne!(y, id(&graph, "y"));
    assert_eq!(graph, other);

    type Change = fn(&mut Graph);
    let changes: [Change; 9] = [
        |g| g.name.push('x'),
        |g| g.outputs[0].node = g.updates[0].node,
        |g| g.outputs[0].name.push('x'),
        |g| g.updates[0].state.push('x'),
        |g| g.probes[0].node = g.outputs[0].node,
        |g| g.probes.clear(),
        |g| g.rename(g.outputs[0].node, "z"),
        |g| g.node_mut(g.outputs[0].node).origin.scope.push('x'),
        |g| {
            let (x, noise) = (g.find("x").unwrap(), g.find("noise").unwrap());
            g.replace_uses(noise, x);
        },
    ];
    for (number, change) in changes.iter().enumerate() {
        let mut changed = other.clone();
        change(&mut changed);
        assert_ne!(graph, changed, "change {number}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn random_graphs_pass(graph in graphs(GraphOptions { gradients: true, ..GraphOptions::default() })) {
        prop_assert_eq!(verify(&graph), Ok(()));
    }

    /// Only what a node depends on, in the order of the whole graph.
    #[test]
    fn the_order_up_to_a_node_is_part_of_the_whole(graph in graphs(GraphOptions::default())) {
        let order = graph.topological();
        for &y in &order {
            let mut needed = vec![false; graph.bound()];
            needed[y.index()] = true;
            for &id in order.iter().rev() {
                if needed[id.index()] {
                    graph.operands(id).into_iter().for_each(|x| needed[x.index()] = true);
                }
            }
            let expected: Vec<_> = order.iter().copied().filter(|id| needed[id.index()]).collect();
            prop_assert_eq!(graph.topological_to(y), expected);
        }
    }
}

/// What neither they nor their gradients could be computed for, however large the numbers.
#[test]
fn windows_that_do_not_fit_are_refused() {
    let complaint = |operand: &str, line: &str| {
        let text = format!("graph g {{\n%x: {operand} = input \"x\"\n%y: {line}\noutput y = %y\n}}");
        parse(&text).and_then(|graph| verify(&graph).map_err(|e| panic!("{e}"))).unwrap_err().to_string()
    };
    let image = "f32[1,1,4,4]";
    for (operand, line, expected) in [
        (image, "f32[1,4,3,3] = im2col %x stride=[0,1] pad=[0,0] kernel=[2,2]", "stride"),
        (image, "f32[1,0,5,5] = im2col %x stride=[1,1] pad=[0,0] kernel=[0,0]", "kernel"),
        (image, "f32[1,36,1,1] = im2col %x stride=[1,1] pad=[0,0] kernel=[6,6]", "kernel"),
        ("f32[1,1,1,1]", "f32[1,1,1,1] = im2col %x stride=[300,300] pad=[0,0] kernel=[1,1]", "90000 kinds of pixels"),
        ("f32[1,1,64,64]", "f32[1,4096,1,1] = im2col %x stride=[1,1] pad=[0,0] kernel=[64,64]", "more than 1024"),
        ("f32[1,3,2,2]", "f32[1,1,4,4] = col2im %x stride=[2,2] pad=[0,0] kernel=[2,2] size=[4,4]", "not a multiple"),
        ("f32[1,4,2,2]", "f32[1,1,5,4] = col2im %x stride=[2,2] pad=[0,0] kernel=[2,2] size=[5,4]", "multiples of the"),
        ("f32[1,4,3,2]", "f32[1,1,4,4] = col2im %x stride=[2,2] pad=[0,0] kernel=[2,2] size=[4,4]", "with room for"),
        (
            "f32[1,1024,1,1]",
            "f32[1,1,4000,4000] = col2im %x stride=[1,1] pad=[0,0] kernel=[32,32] size=[4000,4000]",
            "its windows have more than",
        ),
    ] {
        let found = complaint(operand, line);
        assert!(found.contains(expected), "{line}: {found}");
    }
}
