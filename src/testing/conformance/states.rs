//! State: updated in place, handed from entry to entry, read and written between runs.

use super::case::{Agreement, Case};
use super::fixture::Fixture;
use crate::ir::{Bindings, Graph, Op, Origin, Output, Update, Value};
use crate::scalar::ScalarOp;
use crate::tensor::{DType, Type};

fn several(name: &str, graphs: Vec<Graph>, given: Bindings<f32>, runs: &[usize], agreement: Agreement) -> Case {
    Case { graphs, runs: runs.to_vec(), ..Case::of(name, Graph::new(name), given, agreement) }
}

fn repeated(f: Fixture, name: &str, runs: usize, agreement: Agreement) -> Case {
    f.case(name, agreement).repeated(runs)
}

pub fn states() -> Vec<Case> {
    vec![
        running_total(),
        swapped(),
        old_value_is_output(),
        shifted(),
        unread(),
        untouched(),
        handed_over(),
        product_of_itself(),
    ]
}

fn running_total() -> Case {
    let mut f = Fixture::new();
    let (x, total) = (f.input("x", &[5, 103]), f.state("total", &[5, 103]));
    let next = f.builder().add(total, x);
    f.update("total", next);
    repeated(f, "a running total", 5, Agreement::Exact)
}

/// Each becomes the other: neither may be overwritten before it was read.
fn swapped() -> Case {
    let mut f = Fixture::new();
    let (a, b) = (f.state("a", &[64]), f.state("b", &[64]));
    f.update("a", b);
    f.update("b", a);
    repeated(f, "two tensors change places", 3, Agreement::Exact)
}

fn old_value_is_output() -> Case {
    let mut f = Fixture::new();
    let (x, state) = (f.input("x", &[33]), f.state("state", &[33]));
    let next = f.builder().mul(state, x);
    let difference = f.builder().sub(next, state);
    f.output("old", state);
    f.output("next", next);
    f.output("difference", difference);
    f.update("state", next);
    repeated(f, "the old value is read after the update", 3, Agreement::Exact)
}

/// Elements of an update come from other elements of the state: it can't be made in place.
fn shifted() -> Case {
    let mut f = Fixture::new();
    let state = f.state("state", &[7, 9]);
    let reversed = f.op(Op::Reverse { axes: vec![0, 1] }, &[state]);
    let sum = f.builder().add(reversed, state);
    let turned = f.op(Op::Reshape { to: vec![9, 7] }, &[sum]);
    let turned = f.op(Op::Transpose { permutation: vec![1, 0] }, &[turned]);
    f.update("state", turned);
    repeated(f, "elements that move", 4, Agreement::Exact)
}

/// State that is written and never read, from an input and from a constant.
fn unread() -> Case {
    let mut f = Fixture::new();
    let x = f.input("x", &[6]);
    f.update("last", x);
    let constant = f.builder().constant(0.5, &[3]);
    f.update("constant", constant);
    repeated(f, "state that is only written", 2, Agreement::Exact)
}

/// State that an entry reads and leaves as it is.
fn untouched() -> Case {
    let mut f = Fixture::new();
    let (x, w) = (f.input("x", &[4, 6]), f.state("w", &[6, 3]));
    let y = f.builder().matmul(x, w);
    let y = f.builder().scalar(ScalarOp::Tanh, &[y]);
    f.output("y", y);
    repeated(f, "state that stays", 3, Agreement::Near(1e-5))
}

fn product_of_itself() -> Case {
    let mut f = Fixture::new();
    let w = f.state("w", &[20, 20]);
    let next = f.builder().matmul(w, w);
    let next = f.builder().scale(next, 0.125);
    f.update("w", next);
    repeated(f, "a product in the place of its operand", 3, Agreement::Near(1e-5))
}

/// Initialisation, steps and evaluation as entries of one plan, with other sizes and in any order.
fn handed_over() -> Case {
    let leaf = |graph: &mut Graph, op: Op, name: &str| {
        graph.add(op, &[], name, Origin::default()).expect("a leaf takes no operands")
    };
    let state = |graph: &mut Graph, name: &str, shape: &[usize]| {
        leaf(graph, Op::State { name: name.into(), ty: Type::f32(shape) }, name)
    };
    let count = |graph: &mut Graph| leaf(graph, Op::State { name: "count".into(), ty: Type::u32([]) }, "count");
    let mut given = Bindings::new();

    let mut init = Graph::new("init");
    let seed = leaf(&mut init, Op::Input { name: "seed".into(), ty: Type::u32([2]) }, "seed");
    given.insert("seed".into(), Value::u32([2], vec![3, 4]));
    let zero = leaf(&mut init, Op::constant(0.0, DType::U32, []), "zero");
    let distribution = crate::ir::Distribution::Uniform;
    let op = Op::Random { distribution, stream: "init/w".into(), shape: vec![8, 5] };
    let w = init.add(op, &[seed, zero], "w", Origin::default()).expect("a seed and a step");
    init.updates = vec![Update { state: "w".into(), node: w }, Update { state: "count".into(), node: zero }];

    // The step for whole batches, and for the last of an epoch.
    let step = |name: &str, input: &str, batch: usize, given: &mut Bindings<f32>| {
        let mut graph = Graph::new(name);
        let x = leaf(&mut graph, Op::Input { name: input.into(), ty: Type::f32([batch, 8]) }, input);
        given.insert(input.into(), super::fixture::noise(&[batch, 8], batch as u32));
        let w = state(&mut graph, "w", &[8, 5]);
        let old = count(&mut graph);
        let mut b = crate::ir::Builder::new(&mut graph, Origin::default());
        let y = b.matmul(x, w);
        let total = b.mean(y, &[0, 1]);
        let turned = b.transpose(x, &[1, 0]);
        let gradient = b.matmul(turned, y);
        let change = b.scale(gradient, -0.01);
        let next = b.add(w, change);
        let one = b.op(Op::constant(1.0, DType::U32, []), &[]);
        let counted = b.scalar(ScalarOp::AddU32, &[old, one]);
        graph.outputs.push(Output { name: "loss".into(), node: total });
        graph.updates = vec![Update { state: "w".into(), node: next }, Update { state: "count".into(), node: counted }];
        graph
    };
    let (whole, last) = (step("whole", "x16", 16, &mut given), step("last", "x3", 3, &mut given));

    let mut evaluate = Graph::new("evaluate");
    let w = state(&mut evaluate, "w", &[8, 5]);
    let old = count(&mut evaluate);
    let mut b = crate::ir::Builder::new(&mut evaluate, Origin::default());
    let total = b.sum(w, &[0]);
    evaluate.outputs = vec![Output { name: "total".into(), node: total }, Output { name: "count".into(), node: old }];

    let graphs = vec![init, whole, last, evaluate];
    let runs = [0, 3, 1, 1, 2, 3, 1, 2, 3, 0, 3];
    several("entries hand state over", graphs, given, &runs, Agreement::Near(1e-5))
}
