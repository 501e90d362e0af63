use super::*;
use crate::ir::text::parse;
use crate::ir::{Entry, Initialiser, Module, Real, StateDecl, StateRole};
use crate::testing::{Choices, GraphOptions, graphs};
use proptest::prelude::*;

const TINY: &str = r#"graph tiny {
  %x: f32[2,3] = input "x"
  %w: f32[2,3] = state "w"
  %y: f32[2,3] = add %x %w  # d/0 @3..9
  output y = %y
  update "w" = %y
  probe "x" = %x
}"#;

/// With a limit, as plans are read: a damaged length must not be allocated.
fn bincode_config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<{ 1 << 20 }>()
}

fn from_bincode(bytes: &[u8]) -> Result<Graph, bincode::error::DecodeError> {
    bincode::serde::decode_from_slice(bytes, bincode_config()).map(|(graph, _)| graph)
}

#[test]
fn json_and_ron_are_flat_lists_of_nodes() {
    let graph =
        parse("graph g {\n%a: f32[2] = constant 0.5\n%b = neg %a # d/0 @3..9 gradient(l)\noutput b = %b\n}").unwrap();
    let json = serde_json::to_string(&graph).unwrap().replace("{\"name\"", "\n{\"name\"");
    insta::assert_snapshot!(json, @r#"
    {"name":"g","nodes":[
    {"name":"a","ty":{"dtype":"f32","shape":[2]},"op":{"constant":{"value":0.5,"ty":{"dtype":"f32","shape":[2]}}},"operands":[],"origin":{"span":null,"scope":"","role":"forward"}},
    {"name":"b","ty":{"dtype":"f32","shape":[2]},"op":{"scalar":"neg"},"operands":[0],"origin":{"span":{"start":3,"end":9},"scope":"d/0","role":{"gradient":"l"}}}],"outputs":[
    {"name":"b","node":1}],"updates":[],"probes":[]}
    "#);
    insta::assert_snapshot!(ron::to_string(&graph).unwrap().replace("(name", "\n(name"), @r#"
    (name:"g",nodes:[
    (name:"a",ty:(dtype:f32,shape:[2]),op:constant(value:0.5,ty:(dtype:f32,shape:[2])),operands:[],origin:(span:None,scope:"",role:forward)),
    (name:"b",ty:(dtype:f32,shape:[2]),op:scalar(neg),operands:[0],origin:(span:Some((start:3,end:9)),scope:"d/0",role:gradient("l")))],outputs:[
    (name:"b",node:1)],updates:[],probes:[])
    "#);
}

/// Changes the JSON of the graph and gives the error of reading it.
fn complaint(from: &str, to: &str) -> String {
    let json = serde_json::to_string(&parse(TINY).unwrap()).unwrap();
    assert!(json.contains(from), "{from} is not in {json}");
    serde_json::from_str::<Graph>(&json.replace(from, to)).unwrap_err().to_string()
}

#[test]
fn damaged_nodes_are_refused() {
    let cases = [
        (r#""operands":[0,1]"#, r#""operands":[0,7]"#, "node 2 (`y`): operand 7 is not a node before it"),
        // A cycle cannot be written otherwise than with an operand that comes later.
        (r#""operands":[0,1]"#, r#""operands":[0,2]"#, "node 2 (`y`): operand 2 is not a node before it"),
        (r#""operands":[0,1]"#, r#""operands":[0]"#, "node 2 (`y`): add: takes 2 operands, got 1"),
        (r#"{"name":"w","ty""#, r#"{"name":"x","ty""#, "node 1 (`x`): the name `x` is taken"),
        (
            r#""ty":{"dtype":"f32","shape":[2,3]},"op":{"scalar""#,
            r#""ty":{"dtype":"f32","shape":[6]},"op":{"scalar""#,
            "node 2 (`y`): add: declared as f32[6], but its operands and attributes give f32[2,3]",
        ),
        (
            r#""outputs":[{"name":"y","node":2}]"#,
            r#""outputs":[{"name":"y","node":3}]"#,
            "output `y` is node 3, but there are only 3",
        ),
        (
            r#""updates":[{"name":"w","node":2}]"#,
            r#""updates":[{"name":"w","node":9}]"#,
            "update `w` is node 9, but there are only 3",
        ),
        (
            r#""probes":[{"name":"x","node":0}]"#,
            r#""probes":[{"name":"x","node":9}]"#,
            "probe `x` is node 9, but there are only 3",
        ),
    ];
    for (from, to, expected) in cases {
        let found = complaint(from, to);
        assert!(found.starts_with(expected), "{found}");
    }
}

#[test]
fn broken_graphs_are_not_written() {
    let mut graph = parse(TINY).unwrap();
    graph.outputs.push(Output { name: "lost".into(), node: NodeId::new(9) });
    let error = serde_json::to_string(&graph).unwrap_err().to_string();
    assert_eq!(error, "`lost` refers to a node that was removed");
    let mut graph = parse(TINY).unwrap();
    let (x, y) = (graph.find("x").unwrap(), graph.find("y").unwrap());
    graph.dag_mut().add_edge(y, x, 0);
    assert_eq!(serde_json::to_string(&graph).unwrap_err().to_string(), "`x` depends on itself");
}

#[test]
fn every_number_comes_back() {
    let numbers = [
        0.0,
        -0.0,
        1.0,
        0.1 + 0.2,
        -1e-320,
        f64::MAX,
        1e16,
        3e38,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
        -f64::NAN,
    ];
    for number in numbers.map(Real) {
        let json = serde_json::to_string(&number).unwrap();
        assert_eq!(serde_json::from_str::<Real>(&json).unwrap(), number, "{json}");
        let ron = ron::to_string(&number).unwrap();
        assert_eq!(ron::from_str::<Real>(&ron).unwrap(), number, "{ron}");
        let bytes = bincode::serde::encode_to_vec(number, bincode_config()).unwrap();
        let (back, _): (Real, usize) = bincode::serde::decode_from_slice(&bytes, bincode_config()).unwrap();
        assert_eq!(back, number);
    }
    assert_eq!(serde_json::from_str::<Real>("3").unwrap(), Real(3.0));
    assert_eq!(serde_json::from_str::<Real>("-3").unwrap(), Real(-3.0));
    assert!(serde_json::from_str::<Real>("\"three\"").unwrap_err().to_string().contains("a number"));
}

#[test]
fn modules_come_back() {
    let module = Module {
        name: "tiny".into(),
        states: vec![StateDecl {
            name: "w".into(),
            ty: Type::f32([2, 3]),
            role: StateRole::Parameter,
            init: Initialiser::Uniform { limit: 0.1 },
            span: None,
        }],
        entries: vec![Entry { graph: parse(TINY).unwrap(), inputs: vec![] }],
    };
    let json = serde_json::to_string(&module).unwrap();
    assert_eq!(serde_json::from_str::<Module>(&json).unwrap(), module);
    let ron = ron::to_string(&module).unwrap();
    assert_eq!(ron::from_str::<Module>(&ron).unwrap(), module);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn random_graphs_come_back(graph in graphs(GraphOptions { gradients: true, ..GraphOptions::default() })) {
        let json = serde_json::to_string(&graph).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Graph>(&json).unwrap(), &graph);
        let ron = ron::to_string(&graph).unwrap();
        prop_assert_eq!(&ron::from_str::<Graph>(&ron).unwrap(), &graph);
        let bytes = bincode::serde::encode_to_vec(&graph, bincode_config()).unwrap();
        prop_assert_eq!(&from_bincode(&bytes).unwrap(), &graph);
    }

    #[test]
    fn damaged_bytes_give_errors_or_graphs_but_never_panic(
        graph in graphs(GraphOptions { steps: 8, ..GraphOptions::default() }),
        seed in any::<u64>(),
    ) {
        let mut bytes = bincode::serde::encode_to_vec(&graph, bincode_config()).unwrap();
        let mut choices = Choices::new(seed);
        for _ in 0..1 + choices.below(4) {
            let at = choices.below(bytes.len());
            bytes[at] = choices.below(256) as u8;
        }
        if let Ok(graph) = from_bincode(&bytes) {
            prop_assert_eq!(serde_json::from_str::<Graph>(&serde_json::to_string(&graph).unwrap()).unwrap(), graph);
        }
    }
}
