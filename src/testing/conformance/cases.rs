//! The cases of the suite, by group.

use super::Tolerance;
use crate::ir::{Bindings, Builder, Graph, NodeId, Op, Origin, Output, Update};
use crate::scalar::ScalarOp;
use crate::tensor::{DType, Lane, Type};
use crate::testing::{GraphOptions, random_bindings, random_graph, special_bindings};
use crate::types::{Distribution, Real, ReduceKind, Window};

/// A graph with values for its inputs and state.
#[derive(Debug, Clone)]
pub struct Case {
    pub name: String,
    pub graph: Graph,
    pub given: Bindings<f32>,
    pub tolerance: Tolerance,
}

/// The groups, in an order from simple to whole.
pub const GROUPS: [&str; 8] =
    ["scalars", "movement", "reductions", "contractions", "draws", "state", "random_graphs", "programs"];

/// Whole training steps: a GAN with a gradient penalty, which differentiates twice, one with labels, and one with
/// convolutions, batch normalisation and dropout.
pub const PROGRAMS: [(&str, &str); 3] = [
    ("wgan-gp", include_str!("../../../tests/programs/wgan-gp.ron")),
    ("conditional", include_str!("../../../tests/programs/conditional.ron")),
    ("convolutional", include_str!("../../../tests/pytorch/small.ron")),
];

/// The cases of a group.
///
/// # Panics
/// When there is no such group.
pub fn cases(group: &str) -> Vec<Case> {
    match group {
        "scalars" => scalars(),
        "movement" => movement(),
        "reductions" => reductions(),
        "contractions" => contractions(),
        "draws" => draws(),
        "state" => state(),
        "random_graphs" => random_graphs(),
        "programs" => Vec::new(),
        other => panic!("there is no group {other}"),
    }
}

struct Maker<'g>(Builder<'g>);

impl Maker<'_> {
    fn input(&mut self, name: &str, shape: &[usize]) -> NodeId {
        self.0.named(name, Op::Input { name: name.into(), ty: Type::f32(shape) }, &[])
    }

    fn op(&mut self, op: Op, operands: &[NodeId]) -> NodeId {
        self.0.op(op, operands)
    }

    fn scalar(&mut self, op: ScalarOp, operands: &[NodeId]) -> NodeId {
        self.0.op(Op::Scalar(op), operands)
    }

    fn reduce(&mut self, kind: ReduceKind, x: NodeId, axes: &[usize]) -> NodeId {
        self.op(Op::Reduce { kind, axes: axes.to_vec() }, &[x])
    }
}

fn case(name: &str, tolerance: Tolerance, make: impl FnOnce(&mut Maker) -> Vec<NodeId>) -> Case {
    let mut graph = Graph::new("case");
    let outputs = make(&mut Maker(Builder::new(&mut graph, Origin::default())));
    let named = outputs.into_iter().enumerate();
    graph.outputs = named.map(|(i, node)| Output { name: format!("y{i}"), node }).collect();
    let given = random_bindings(&graph, 11);
    Case { name: name.into(), graph, given, tolerance }
}

/// Every operation of the table that takes real numbers, on ordinary values and with special ones strewn in.
fn scalars() -> Vec<Case> {
    let real = |op: &&ScalarOp| op.operand_lanes().iter().all(|lane| *lane == Lane::Real);
    let mut found = Vec::new();
    for &op in ScalarOp::ALL.iter().filter(real) {
        let make = |m: &mut Maker| {
            let names = ["a", "b", "c"];
            let mut args: Vec<NodeId> =
                names[..op.operand_lanes().len()].iter().map(|n| m.input(n, &[3, 519])).collect();
            // Bases and arguments of roots and logarithms are kept where these are real.
            let positive = m.scalar(ScalarOp::Abs, &[args[0]]);
            if matches!(op, ScalarOp::Log | ScalarOp::Sqrt | ScalarOp::Rsqrt | ScalarOp::Pow) {
                args[0] = positive;
            }
            vec![m.scalar(op, &args)]
        };
        found.push(case(op.name(), Tolerance::Relative(2e-5), make));
        let mut special = case(&format!("{} of special values", op.name()), Tolerance::Kinds(2e-5), make);
        special.given = special_bindings(&special.graph, 5, 4);
        found.push(special);
    }
    // Derivatives of these divide by values near zero: what is left is checked with special values.
    found.retain(|c| !matches!(c.name.as_str(), "rsqrt" | "div" | "pow"));
    found
}

fn movement() -> Vec<Case> {
    let moved = |name: &str, shape: &[usize], op: Op| {
        case(name, Tolerance::Bits, move |m| {
            let x = m.input("x", shape);
            let y = m.op(op, &[x]);
            vec![m.scalar(ScalarOp::Neg, &[y])]
        })
    };
    vec![
        moved("transpose", &[5, 7, 33], Op::Transpose { permutation: vec![2, 0, 1] }),
        moved("reverse", &[5, 513], Op::Reverse { axes: vec![0, 1] }),
        moved("slice", &[9, 521], Op::Slice { start: vec![2, 3], end: vec![7, 520] }),
        moved("pad", &[3, 5, 7], Op::Pad { low: vec![1, 0, 4], high: vec![0, 2, 3] }),
        moved("broadcast", &[1, 17, 1], Op::Broadcast { to: vec![6, 17, 65] }),
        moved("reshape of one element", &[1, 1], Op::Reshape { to: vec![] }),
        case("concat", Tolerance::Bits, |m| {
            let parts = [m.input("a", &[3, 5]), m.input("b", &[3, 1]), m.input("c", &[3, 511])];
            vec![m.op(Op::Concat { axis: 1 }, &parts)]
        }),
        case("a split of what is padded", Tolerance::Bits, |m| {
            let x = m.input("x", &[4, 10]);
            let padded = m.op(Op::Pad { low: vec![0, 1], high: vec![0, 1] }, &[x]);
            let split = m.op(Op::Reshape { to: vec![4, 3, 4] }, &[padded]);
            let turned = m.op(Op::Transpose { permutation: vec![1, 2, 0] }, &[split]);
            vec![m.scalar(ScalarOp::Neg, &[turned])]
        }),
    ]
}

fn reductions() -> Vec<Case> {
    let mut found = Vec::new();
    for (shape, axes) in [
        (vec![1, 1], vec![0, 1]),
        (vec![3, 521], vec![1]),
        (vec![521, 3], vec![0]),
        (vec![13, 4, 7, 5], vec![0, 2, 3]),
        (vec![70_001], vec![0]),
        (vec![6, 33, 65], vec![1]),
    ] {
        for kind in [ReduceKind::Sum, ReduceKind::Max] {
            let name = format!("{} over {axes:?} of {shape:?}", kind.name());
            found.push(case(&name, Tolerance::Relative(1e-5), |m| {
                let x = m.input("x", &shape);
                vec![m.reduce(kind, x, &axes)]
            }));
        }
    }
    found.push(case("normalisation in sweeps", Tolerance::Relative(2e-5), |m| {
        let x = m.input("x", &[17, 3, 5, 7]);
        let count = m.op(Op::constant(1.0 / (17.0 * 35.0), DType::F32, [1, 3, 1, 1]), &[]);
        let mean_of = |m: &mut Maker, x: NodeId| {
            let sum = m.reduce(ReduceKind::Sum, x, &[0, 2, 3]);
            m.scalar(ScalarOp::Mul, &[sum, count])
        };
        let spread = |m: &mut Maker, x: NodeId| m.op(Op::Broadcast { to: vec![17, 3, 5, 7] }, &[x]);
        let mean = mean_of(m, x);
        let wide = spread(m, mean);
        let centred = m.scalar(ScalarOp::Sub, &[x, wide]);
        let square = m.scalar(ScalarOp::Mul, &[centred, centred]);
        let variance = mean_of(m, square);
        let wide = spread(m, variance);
        let deviation = m.scalar(ScalarOp::Sqrt, &[wide]);
        vec![m.scalar(ScalarOp::Div, &[centred, deviation]), mean, variance]
    }));
    found
}

fn contractions() -> Vec<Case> {
    let relative = Tolerance::Relative(1e-5);
    let mut found = Vec::new();
    for [batch, m_size, k, n] in [[1, 1, 1, 1], [1, 13, 300, 33], [3, 7, 5, 2], [2, 65, 513, 17], [1, 257, 31, 1]] {
        found.push(case(&format!("matmul {batch}x{m_size}x{k}x{n}"), relative, |m| {
            let (a, b) = (m.input("a", &[batch, k, m_size]), m.input("b", &[batch, k, n]));
            let a = m.op(Op::Transpose { permutation: vec![0, 2, 1] }, &[a]);
            let product = m.op(Op::MatMul, &[a, b]);
            let half = m.scalar(ScalarOp::Abs, &[product]);
            vec![product, half]
        }));
    }
    for (n, c, o, size, kernel, stride, pad) in [
        (1, 1, 1, [1, 1], [1, 1], [1, 1], [0, 0]),
        (3, 5, 7, [9, 11], [3, 2], [2, 1], [1, 0]),
        (2, 3, 33, [8, 8], [4, 4], [2, 2], [1, 1]),
        (5, 17, 2, [7, 7], [5, 5], [1, 1], [2, 2]),
        (2, 4, 6, [5, 6], [2, 3], [3, 3], [0, 2]),
    ] {
        let window = Window { stride, pad };
        let out = [0, 1].map(|d| (size[d] + 2 * pad[d] - kernel[d]) / stride[d] + 1);
        let name = |what: &str| format!("{what} of {size:?} by {kernel:?}, stride {stride:?}, padding {pad:?}");
        let (image, filter) = ([n, c, size[0], size[1]], [o, c, kernel[0], kernel[1]]);
        let gradient = [n, o, out[0], out[1]];
        found.push(case(&name("convolution"), relative, |m| {
            let (x, w, b) = (m.input("x", &image), m.input("w", &filter), m.input("b", &[1, o, 1, 1]));
            let y = m.op(Op::Conv2d { window }, &[x, w]);
            let b = m.op(Op::Broadcast { to: gradient.to_vec() }, &[b]);
            let sum = m.scalar(ScalarOp::Add, &[y, b]);
            vec![m.scalar(ScalarOp::Abs, &[sum]), y]
        }));
        found.push(case(&name("input gradient"), relative, |m| {
            let (dy, w) = (m.input("dy", &gradient), m.input("w", &filter));
            let dx = m.op(Op::Conv2dInputGrad { window, size }, &[dy, w]);
            vec![m.scalar(ScalarOp::Neg, &[dx])]
        }));
        found.push(case(&name("filter gradient"), relative, |m| {
            let (x, dy) = (m.input("x", &image), m.input("dy", &gradient));
            let dw = m.op(Op::Conv2dFilterGrad { window, kernel }, &[x, dy]);
            vec![m.scalar(ScalarOp::Neg, &[dw]), dw]
        }));
    }
    found.push(case("convolution of the head of an input", relative, |m| {
        let (x, w) = (m.input("x", &[6, 2, 5, 5]), m.input("w", &[3, 2, 3, 3]));
        let head = m.op(Op::Slice { start: vec![0; 4], end: vec![4, 2, 5, 5] }, &[x]);
        vec![m.op(Op::Conv2d { window: Window { stride: [1, 1], pad: [1, 1] } }, &[head, w])]
    }));
    found.push(case("statistics of a convolution", relative, |m| {
        let (x, w) = (m.input("x", &[3, 2, 6, 5]), m.input("w", &[4, 2, 3, 3]));
        let y = m.op(Op::Conv2d { window: Window { stride: [1, 1], pad: [1, 1] } }, &[x, w]);
        vec![m.reduce(ReduceKind::Sum, y, &[0, 2, 3]), m.reduce(ReduceKind::Max, y, &[0, 2, 3]), y]
    }));
    found
}

/// The same bits on every device, whatever the shape and however many are drawn at a time.
fn draws() -> Vec<Case> {
    let distributions = [
        ("uniform", Distribution::Uniform, Tolerance::Bits),
        // The logarithm and cosine of a device may differ in the last place.
        ("normal", Distribution::Normal, Tolerance::Relative(1e-6)),
        ("bernoulli", Distribution::Bernoulli(Real(0.25)), Tolerance::Bits),
    ];
    let mut found = Vec::new();
    for (name, distribution, tolerance) in distributions {
        for shape in [vec![1], vec![7, 131], vec![3, 5, 2, 67]] {
            found.push(case(&format!("{name} of {shape:?}"), tolerance, |m| {
                let ty = |n: usize| Type::u32([n]);
                let seed = m.0.named("seed", Op::Input { name: "seed".into(), ty: ty(2) }, &[]);
                let step = m.0.named("step", Op::Input { name: "step".into(), ty: Type::u32([]) }, &[]);
                let op = Op::Random { distribution, stream: "a/stream".into(), shape: shape.clone() };
                vec![m.op(op, &[seed, step])]
            }));
        }
    }
    found
}

/// Updates in place, of old values that others need, and bf16 in memory.
fn state() -> Vec<Case> {
    let state = |m: &mut Maker, name: &str, ty: Type| m.0.named(name, Op::State { name: name.into(), ty }, &[]);
    let mut swap = case("two states change places", Tolerance::Bits, |m| {
        let (a, b) = (state(m, "a", Type::f32([517])), state(m, "b", Type::f32([517])));
        vec![m.scalar(ScalarOp::Sub, &[a, b]), a]
    });
    let node = |graph: &Graph, name: &str| {
        let found = graph.ids().into_iter().find(|&id| graph.node(id).name == name);
        found.expect("the state is there")
    };
    let (a, b) = (node(&swap.graph, "a"), node(&swap.graph, "b"));
    swap.graph.updates = vec![Update { state: "a".into(), node: b }, Update { state: "b".into(), node: a }];
    let mut halves = case("bf16 in memory", Tolerance::Bits, |m| {
        let x = m.input("x", &[6, 41]);
        let old = state(m, "half", Type::new(DType::Bf16, [6, 41]));
        let wide = m.op(Op::Convert { to: DType::F32 }, &[old]);
        let sum = m.scalar(ScalarOp::Add, &[x, wide]);
        let new = m.0.named("new", Op::Convert { to: DType::Bf16 }, &[sum]);
        vec![m.op(Op::Convert { to: DType::F32 }, &[new])]
    });
    let new = node(&halves.graph, "new");
    halves.graph.updates = vec![Update { state: "half".into(), node: new }];
    vec![swap, halves]
}

fn random_graphs() -> Vec<Case> {
    (0..24)
        .map(|seed| {
            let graph = random_graph(seed, GraphOptions { steps: 12, ..GraphOptions::default() });
            let given = random_bindings(&graph, seed);
            Case { name: format!("random graph {seed}"), graph, given, tolerance: Tolerance::Relative(1e-4) }
        })
        .collect()
}
