//! NaN, infinities, zeros of both signs and denormals in every operation that is not one of the scalar table's.

use super::case::{Agreement, Case};
use super::contractions::{KINDS, Kind, Sizes, window};
use super::fixture::Fixture;
use super::movement::MOVES;
use crate::ir::{Builder, Graph, NodeId, Op, Origin, ReduceKind, Window};
use crate::testing::{random_bindings, special_bindings};

pub fn special_values() -> Vec<Case> {
    let mut cases = super::scalars::special();
    cases.extend(MOVES.map(|(name, moved)| of_one(name, &[3, 4, 5], Agreement::Exact, moved)));
    cases.push(of_one("broadcast", &[3, 1, 5], Agreement::Exact, |f, x| {
        f.op(Op::Broadcast { to: vec![3, 70, 5] }, &[x])
    }));
    for axes in [vec![0], vec![1], vec![0, 1]] {
        for kind in [ReduceKind::Sum, ReduceKind::Max] {
            let name = format!("{} along {axes:?}", kind.name());
            let op = Op::Reduce { kind, axes: axes.clone() };
            cases.push(of_one(&name, &[41, 67], Agreement::Special(1e-5), |f, x| f.op(op, &[x])));
        }
    }
    cases.extend(convolutions());
    cases
}

/// An operation on one operand, of which every eighth element or so is special.
fn of_one(
    name: &str,
    shape: &[usize],
    agreement: Agreement,
    make: impl FnOnce(&mut Fixture, NodeId) -> NodeId,
) -> Case {
    let mut f = Fixture::new();
    let x = f.input("x", shape);
    let y = make(&mut f, x);
    f.output("y", y);
    f.given = special_bindings(&f.graph, 3, 8);
    f.case(name, agreement)
}

fn convolutions() -> Vec<Case> {
    let uneven = Window { stride: [2, 1], pad: [1, 2] };
    let all = [
        Sizes { n: 2, c: 3, o: 4, size: [6, 5], kernel: [3; 2], window: window(1, 1) },
        Sizes { n: 3, c: 17, o: 35, size: [7; 2], kernel: [5; 2], window: window(1, 2) },
        Sizes { n: 5, c: 1, o: 33, size: [10; 2], kernel: [4; 2], window: window(2, 1) },
        Sizes { n: 2, c: 5, o: 3, size: [7, 6], kernel: [3; 2], window: uneven },
        Sizes { n: 4, c: 7, o: 9, size: [5; 2], kernel: [2; 2], window: window(1, 0) },
    ];
    let mut cases = Vec::new();
    for sizes in all {
        for (name, kind) in KINDS {
            for (special, others) in [("a", "b"), ("b", "a"), ("both", "")] {
                let mut f = Fixture::new();
                let result = sizes.add(&mut f, kind);
                f.output("result", result);
                let ordinary = random_bindings::<f32>(&f.graph, 9);
                f.given = special_bindings(&f.graph, 9, 48);
                f.given.extend(ordinary.into_iter().filter(|(name, _)| name == others));
                let mut case = f.case(format!("{name} {}, {special}", sizes.describe()), Agreement::Special(4e-5));
                if special != "a" {
                    case.alternative = Some(vec![padded(&case.graphs[0], kind, sizes)]);
                }
                cases.push(case);
            }
        }
    }
    cases
}

/// The convolution with its padding as zeros in memory: what `b` has there multiplies a zero, which is NaN where it is not
/// finite. [`Op::Conv2d`] allows that. It is for the interpreter alone.
fn padded(graph: &Graph, kind: Kind, sizes: Sizes) -> Graph {
    let Sizes { n, c, o, size, kernel, window } = sizes;
    let mut graph = graph.clone();
    let leaf = |name: &str| {
        let named = |id: &NodeId| matches!(graph.op(*id), Op::Input { name: n, .. } if n == name);
        graph.ids().into_iter().find(named).expect("both operands are inputs")
    };
    let (x, w) = (leaf("a"), leaf("b"));
    let mut b = Builder::new(&mut graph, Origin::default());
    let flat = Window { pad: [0; 2], ..window };
    let around = |b: &mut Builder, x: NodeId| {
        let [high, wide] = window.pad;
        b.op(Op::Pad { low: vec![0, 0, high, wide], high: vec![0, 0, high, wide] }, &[x])
    };
    let result = match kind {
        Kind::Forward => {
            let x = around(&mut b, x);
            b.op(Op::Conv2d { window: flat }, &[x, w])
        }
        Kind::FilterGrad => {
            let x = around(&mut b, x);
            b.op(Op::Conv2dFilterGrad { window: flat, kernel }, &[x, w])
        }
        // The output's gradient, with zeros between and around its elements, convolved with the filter turned by 180°.
        Kind::InputGrad => {
            let (out, stride) = (sizes.out(), window.stride);
            let apart = b.reshape(x, &[n, o, out[0], 1, out[1], 1]);
            let high = vec![0, 0, 0, stride[0] - 1, 0, stride[1] - 1];
            let apart = b.op(Op::Pad { low: vec![0; 6], high }, &[apart]);
            let apart = b.reshape(apart, &[n, o, out[0] * stride[0], out[1] * stride[1]]);
            let length = [0, 1].map(|d| (out[d] - 1) * stride[d] + 1);
            let apart = b.op(Op::Slice { start: vec![0; 4], end: vec![n, o, length[0], length[1]] }, &[apart]);
            let low = [0, 1].map(|d| kernel[d] - 1 - window.pad[d]);
            let high = [0, 1].map(|d| size[d] + kernel[d] - 1 - length[d] - low[d]);
            let (low, high) = (vec![0, 0, low[0], low[1]], vec![0, 0, high[0], high[1]]);
            let apart = b.op(Op::Pad { low, high }, &[apart]);
            let turned = b.op(Op::Reverse { axes: vec![2, 3] }, &[w]);
            let turned = b.transpose(turned, &[1, 0, 2, 3]);
            let every = Window { stride: [1; 2], pad: [0; 2] };
            let result = b.op(Op::Conv2d { window: every }, &[apart, turned]);
            assert_eq!(b.shape(result), [n, c, size[0], size[1]]);
            result
        }
    };
    graph.outputs[0].node = result;
    graph
}
