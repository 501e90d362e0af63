use super::*;
use crate::ir::{DType, Entry, Feed, Graph, Initialiser, InputDecl, Module, Node, Op, Origin, Role, Span};
use crate::ir::{Output, StateDecl, StateRole, Type};
use crate::testing::{Choices, GraphOptions, graphs};
use proptest::prelude::*;

/// A graph with every operation that has a form of its own.
const ALL_FORMS: &str = r#"graph step {
  %seed: u32[2] = input "seed"
  %step: u32[] = state "step"
  %x: f32[2,3,8,8] = input "x"
  %w: f32[4,3,4,4] = state "d/0-conv/weight"
  %c: f32[] = constant -1e-8
  %big: f32[2] = constant inf
  %iota: u32[3,2] = iota axis=1
  %mask: f32[2,4,4,4] = random bernoulli(0.75) "d/drop" %seed %step
  %noise: f32[5] = random normal "noise" %seed %step
  %conv: f32[2,4,4,4] = conv2d %x %w stride=[2,2] pad=[1,1]
  %conv.1: f32[2,4,4,4] = mul %conv %mask
  %dx: f32[2,3,8,8] = conv2d_input_grad %conv.1 %w stride=[2,2] pad=[1,1] size=[8,8]
  %dw: f32[4,3,4,4] = conv2d_filter_grad %x %conv.1 stride=[2,2] pad=[1,1] kernel=[4,4]
  %max: f32[1,4,4,1] = reduce_max %conv axes=[0,3]
  %wide: f32[2,4,4,6] = broadcast %max
  %pad: f32[7] = pad %noise low=[0] high=[2]
  %cut: f32[3] = slice %pad start=[1] end=[4]
  %both: f32[10] = concat %cut %pad axis=0
  %rev: f32[10] = reverse %both axes=[0]
  %flat: f32[2,5] = reshape %rev
  %turned: f32[5,2] = transpose %flat permutation=[1,0]
  %product: f32[2,2] = matmul %flat %turned
  %narrow: bf16[2,2] = convert %product
  %wide.1: f32[2,2] = convert %narrow
  %sum: f32[1,1] = reduce_sum %product axes=[0,1]
  %slope: f32[2,5] = gradient %sum %flat
  output loss_d = %sum
  output "in two words" = %slope
  update "d/0-conv/weight" = %dw
  probe "wide" = %wide
}
"#;

#[test]
fn every_form_reads_back_and_prints_the_same() {
    let graph = parse(ALL_FORMS).unwrap();
    assert_eq!(graph.to_string(), ALL_FORMS);
    assert_eq!(crate::ir::verify(&graph), Ok(()));
}

#[test]
fn origins_follow_a_hash() {
    let text = r#"graph g {
  %a: f32[] = constant 1.0  # generator/4-conv @1234..1280 gradient(loss_d)
  %b: f32[] = constant 1.0  # @0..3
  %c: f32[] = constant 1.0  # optimiser("the generator")
  %d: f32[] = constant 1.0  # "a \"scope\"\n@1" optimiser(d)
  %e: f32[] = constant 1.0  # gradient @4..5
  %f: f32[] = constant 1.0
}
"#;
    let graph = parse(text).unwrap();
    let origin = |name: &str| graph.node(graph.find(name).unwrap()).origin.clone();
    let full = Origin {
        span: Some(Span { start: 1234, end: 1280 }),
        scope: "generator/4-conv".into(),
        role: Role::Gradient("loss_d".into()),
    };
    assert_eq!(origin("a"), full);
    assert_eq!(origin("c").role, Role::Optimiser("the generator".into()));
    assert_eq!(origin("d").scope, "a \"scope\"\n@1");
    assert_eq!(origin("e").scope, "gradient");
    assert_eq!(origin("f"), Origin::default());
    assert_eq!(Printer { origins: true }.graph(&graph), text);
    assert!(!graph.to_string().contains('#'));
    let d = graph.find("d").unwrap();
    assert_eq!(Printer::default().node(&graph, d), "%d: f32[] = constant 1.0");
}

#[test]
fn tests_may_be_written_with_comments_and_without_types() {
    let graph = parse(
        "// A comment.\n graph g { // another\n\n %a: f32[2] = constant +1e+0 //so\n\t%b=neg %a\r\n output b=%b }\n//end",
    );
    assert_eq!(
        graph.unwrap().to_string(),
        "graph g {\n  %a: f32[2] = constant 1.0\n  %b: f32[2] = neg %a\n  output b = %b\n}\n"
    );
    assert_eq!(parse("graph g {}").unwrap(), Graph::new("g"));
}

#[test]
fn strange_names_and_numbers_come_back() {
    let mut graph = Graph::new("a \"graph\"\n");
    let names = ["", " ", "%x", "// x", "//x", "ünï", "a\\b", "\u{1}\u{200b}\0\t", "x#y", "{", "'"];
    let numbers = [0.1 + 0.2, -0.0, f64::MIN_POSITIVE, f64::MAX, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, -f64::NAN];
    for name in names {
        let op = Op::Input { name: name.into(), ty: Type::u32([1]) };
        graph.add(op, &[], name, Origin { scope: name.into(), ..Origin::default() }).unwrap();
    }
    for number in numbers {
        graph.add(Op::constant(number, DType::F32, []), &[], "n", Origin::default()).unwrap();
    }
    let node = graph.find("// x").unwrap();
    graph.outputs.push(Output { name: "//".into(), node });
    let text = Printer { origins: true }.graph(&graph);
    assert_eq!(text.lines().count(), 3 + names.len() + numbers.len());
    assert_eq!(parse(&text).unwrap(), graph);
}

fn complaint(line: &str) -> String {
    let text = format!("graph g {{\n  %a: f32[2,3] = input \"a\"\n  {line}\n  %z: f32[] = constant 1.0\n}}\n");
    parse(&text).unwrap_err().to_string()
}

#[test]
fn errors_say_where_and_what_was_expected() {
    let operations = "an operand `%name`, an attribute `key=…` or the end of the line";
    let cases = [
        ("%b", "3:5: expected `=`, found the end of the line"),
        ("b = neg %a", "3:3: expected a node `%name`, `output`, `update`, `probe` or `}`, found `b`"),
        ("% = neg %a", "3:5: expected a node's name, found `=`"),
        ("%b: f64[] = neg %a", "3:7: expected `f32`, `u32` or `bf16`, found `f64`"),
        ("%b: f32 = neg %a", "3:11: expected `[`, found `=`"),
        ("%b: f32[2;3] = neg %a", "3:12: expected `,` or `]`, found `;`"),
        ("%b: f32[-1] = neg %a", "3:11: expected a size, found `-1`"),
        ("%b = negate %a", "3:8: there is no operation `negate`"),
        ("%b = neg %c", "3:12: no node `%c` is defined before this line"),
        ("%b = neg %z", "3:12: no node `%z` is defined before this line"),
        ("%b = neg %a %a", "3:3: neg: takes 1 operands, got 2"),
        ("%a = neg %a", "3:3: the name `a` is taken"),
        ("%b: f32[3,2] = neg %a", "3:3: neg: declared as f32[3,2], but its operands and attributes give f32[2,3]"),
        ("%b = neg %a axes=[1]", "3:15: neg has no attribute `axes`"),
        ("%b = neg %a, %a", &format!("3:14: expected {operations}, found `,`")),
        ("%b = reduce_sum %a", "3:8: expected an attribute `axes=[…]`"),
        ("%b = reduce_sum %a axes=1", "3:22: expected `axes=[…]`"),
        ("%b = reduce_sum %a axes=[2]", "3:3: reduce_sum: axis 2 is out of range for rank 2"),
        ("%b = concat %a axis=[1]", "3:18: expected `axis=…`"),
        ("%b = conv2d %a %a stride=[1] pad=[0,0]", "3:21: expected two numbers, `stride=[1,1]`"),
        ("%b = input \"b\"", "3:8: expected a type before `input`: `%name: f32[2,3] = …`"),
        ("%b: f32[] = constant one", "3:24: expected a number, found `one`"),
        ("%b: u32[] = constant 0.5", "3:3: constant: 0.5 is not a u32"),
        ("%b: bf16[] = constant 0.1", "3:3: constant: 0.1 is not a bf16"),
        ("%b: u32[2,3] = convert %a", "3:3: convert: is between f32 and bf16, not from f32[2,3] to u32"),
        ("%b = convert %a", "3:8: expected a type before `convert`: `%name: f32[2,3] = …`"),
        ("%b: bf16[2] = iota axis=0", "3:3: iota: gives f32 or u32, not bf16"),
        ("%b: f32[] = input b", "3:21: expected the input's name in quotes, found `b`"),
        ("%b: f32[] = input \"b", "3:23: expected `\"` before the end of the line"),
        ("%b: f32[] = input \"\\q\"", "3:22: expected one of `\\n \\r \\t \\0 \\\\ \\\" \\u{…}`"),
        (
            "%b: f32[] = random gamma \"s\"",
            "3:22: expected `uniform`, `normal` or `bernoulli(probability)`, found `gamma`",
        ),
        ("%b = neg %a # s @1-2", "3:20: expected a range `start..end`, found `1-2`"),
        ("%b = neg %a # s forward", "3:19: expected `gradient(…)` or `optimiser(…)`, found `forward`"),
        ("%b = neg %a # s gradient(x) y", "3:31: expected the end of the line, found `y`"),
        ("output b = %b", "3:14: no node `%b` is defined before this line"),
        ("graph h {", "3:3: expected a node `%name`, `output`, `update`, `probe` or `}`, found `graph`"),
        ("} }", "3:5: expected nothing after the graph, found `}`"),
    ];
    for (line, expected) in cases {
        let (place, problem) = expected.split_once(": ").unwrap();
        let (at_line, column) = place.split_once(':').unwrap();
        assert_eq!(complaint(line), format!("line {at_line}, column {column}: {problem}"), "{line}");
    }
    assert_eq!(parse("").unwrap_err().to_string(), "line 1, column 1: expected `graph`, found the end of the text");
    assert_eq!(
        parse("graph g {\n").unwrap_err().to_string(),
        "line 2, column 1: expected a node `%name`, `output`, `update`, `probe` or `}`, found the end of the text"
    );
}

#[test]
fn a_module_prints_its_states_inputs_and_graphs() {
    let module = Module {
        name: "tiny".into(),
        states: vec![StateDecl {
            name: "w".into(),
            ty: Type::f32([2, 3]),
            role: StateRole::Parameter,
            init: Initialiser::Uniform { limit: 0.5 },
            span: None,
        }],
        entries: vec![Entry {
            graph: parse("graph step {\n%x: f32[2,3] = input \"x\"\noutput x = %x\n}").unwrap(),
            inputs: vec![InputDecl {
                name: "x".into(),
                ty: Type::f32([2, 3]),
                feed: Feed::Caller,
                below: None,
                from_end: false,
                meaning: "Anything.".into(),
            }],
        }],
    };
    insta::assert_snapshot!(Printer::default().module(&module), @r#"
    module tiny {
      state "w": f32[2,3] = uniform 0.5  # parameter

      input "x": f32[2,3] = caller  # Anything.
      graph step {
        %x: f32[2,3] = input "x"
        output x = %x
      }
    }
    "#);
}

fn without_origins(graph: &Graph) -> Graph {
    let mut graph = graph.clone();
    for id in graph.ids() {
        let node: &mut Node = graph.node_mut(id);
        node.origin = Origin::default();
    }
    graph
}

/// `text` with a few characters taken out, doubled, exchanged or replaced, or a line moved.
fn damaged(text: &str, seed: u64) -> String {
    let mut choices = Choices::new(seed);
    let mut chars: Vec<char> = text.chars().collect();
    for _ in 0..1 + choices.below(4) {
        let (at, other) = (choices.below(chars.len()), choices.below(chars.len()));
        match choices.below(6) {
            0 => drop(chars.remove(at)),
            1 => chars.insert(at, chars[other]),
            2 => chars.swap(at, other),
            3 => chars[at] = choices.pick(&['%', '"', '[', ']', '=', '#', '\\', '\n', '0', '9', '@', '(', 'ß', '\0']),
            4 => chars.truncate(at.max(8)),
            _ => {
                let mut lines: Vec<String> = chars.iter().collect::<String>().lines().map(str::to_string).collect();
                let (from, to) = (choices.below(lines.len()), choices.below(lines.len()));
                let line = lines.remove(from);
                lines.insert(to, line);
                chars = lines.join("\n").chars().chain(['\n']).collect();
            }
        }
    }
    chars.into_iter().collect()
}

const ANY: GraphOptions =
    GraphOptions { steps: 24, max_elements: 2000, contractions: true, draws: true, smooth: false, gradients: true };

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn random_graphs_read_back(graph in graphs(ANY)) {
        let text = Printer { origins: true }.graph(&graph);
        let back = parse(&text).map_err(|e| TestCaseError::fail(format!("{e} in\n{text}")))?;
        prop_assert_eq!(&back, &graph);
        prop_assert_eq!(Printer { origins: true }.graph(&back), text);
        prop_assert_eq!(parse(&graph.to_string()).unwrap(), without_origins(&graph));
    }

    #[test]
    fn damaged_texts_give_errors_or_graphs_but_never_panic(graph in graphs(ANY), seed in any::<u64>()) {
        let text = damaged(&Printer { origins: true }.graph(&graph), seed);
        match parse(&text) {
            Ok(graph) => prop_assert_eq!(parse(&Printer { origins: true }.graph(&graph)).unwrap(), graph),
            Err(error) => {
                let lines = text.split('\n').count();
                prop_assert!((1..=lines).contains(&error.line) && error.column >= 1, "{} in\n{}", error, text);
            }
        }
    }

    #[test]
    fn any_text_gives_an_error_or_a_graph(text in "(graph g \\{\n)?[ -~\n%\"=\\[\\]#@]{0,200}") {
        let _ = parse(&text);
    }
}
