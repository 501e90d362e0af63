//! Layouts: results and operands that lie otherwise in memory than their shapes say.

use super::case::{Agreement, Case};
use super::contractions::PRODUCTS;
use super::fixture::Fixture;
use crate::ir::{NodeId, Op, Window};
use crate::scalar::ScalarOp;

pub type Move = (&'static str, fn(&mut Fixture, NodeId) -> NodeId);

/// Movements of a value of shape [3, 4, 5].
pub const MOVES: [Move; 13] = [
    ("transpose", |f, x| f.op(Op::Transpose { permutation: vec![2, 0, 1] }, &[x])),
    ("reshape", |f, x| f.op(Op::Reshape { to: vec![5, 12] }, &[x])),
    ("flatten", |f, x| f.op(Op::Reshape { to: vec![60] }, &[x])),
    ("slice of the head", |f, x| f.op(Op::Slice { start: vec![0, 0, 0], end: vec![2, 4, 5] }, &[x])),
    ("slice of the middle", |f, x| f.op(Op::Slice { start: vec![1, 1, 2], end: vec![2, 3, 4] }, &[x])),
    ("pad", |f, x| f.op(Op::Pad { low: vec![1, 0, 2], high: vec![0, 3, 1] }, &[x])),
    ("reverse", |f, x| f.op(Op::Reverse { axes: vec![0, 2] }, &[x])),
    ("concat", |f, x| f.op(Op::Concat { axis: 1 }, &[x, x, x])),
    ("transposed then reshaped", |f, x| {
        let y = f.op(Op::Transpose { permutation: vec![1, 2, 0] }, &[x]);
        f.op(Op::Reshape { to: vec![10, 6] }, &[y])
    }),
    ("padded then reversed", |f, x| {
        let y = f.op(Op::Pad { low: vec![0, 2, 0], high: vec![0, 0, 1] }, &[x]);
        f.op(Op::Reverse { axes: vec![1] }, &[y])
    }),
    ("sliced then padded back", |f, x| {
        let y = f.op(Op::Slice { start: vec![1, 0, 1], end: vec![3, 4, 4] }, &[x]);
        f.op(Op::Pad { low: vec![1, 0, 1], high: vec![0, 0, 1] }, &[y])
    }),
    ("a split of what is padded", |f, x| {
        let y = f.op(Op::Pad { low: vec![0, 0, 2], high: vec![0, 0, 1] }, &[x]);
        let y = f.op(Op::Reshape { to: vec![3, 4, 2, 4] }, &[y]);
        f.op(Op::Transpose { permutation: vec![2, 3, 0, 1] }, &[y])
    }),
    ("concatenated with its reverse", |f, x| {
        let y = f.op(Op::Reverse { axes: vec![1] }, &[x]);
        f.op(Op::Concat { axis: 2 }, &[x, y])
    }),
];

pub fn layouts() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, moved) in MOVES {
        let mut f = Fixture::new();
        let x = f.input("x", &[3, 4, 5]);
        let y = moved(&mut f, x);
        // Of an input, of what is computed, before further work, and both kept.
        let squares = f.builder().mul(x, x);
        let of_computed = moved(&mut f, squares);
        let used = f.builder().add(of_computed, y);
        for (name, node) in [("moved", y), ("computed", of_computed), ("squares", squares), ("used", used)] {
            f.output(name, node);
        }
        cases.push(f.case(name, Agreement::Exact));

        let mut f = Fixture::new();
        let x = f.input("x", &[3, 4, 5]);
        let y = moved(&mut f, x);
        let axes: Vec<usize> = (1..f.graph.shape(y).len().max(2)).filter(|&a| a < f.graph.shape(y).len()).collect();
        let mut b = f.builder();
        let total = b.sum(y, &axes);
        f.output("total", total);
        cases.push(f.case(format!("{name}, then summed"), Agreement::Near(1e-6)));
    }
    cases.extend(large_moves());
    cases
}

/// More elements along the last dimension than a tile of the CPU or a block of a GPU has, and operands of different sizes.
fn large_moves() -> Vec<Case> {
    let moves: [(&[usize], Op); 6] = [
        (&[5, 7, 33], Op::Transpose { permutation: vec![2, 0, 1] }),
        (&[5, 513], Op::Reverse { axes: vec![0, 1] }),
        (&[9, 521], Op::Slice { start: vec![2, 3], end: vec![7, 520] }),
        (&[3, 5, 517], Op::Pad { low: vec![1, 0, 4], high: vec![0, 2, 3] }),
        (&[1, 17, 1], Op::Broadcast { to: vec![6, 17, 65] }),
        (&[1, 1], Op::Reshape { to: vec![] }),
    ];
    let mut cases: Vec<Case> = (moves.into_iter())
        .map(|(shape, op)| {
            let name = format!("{} of {shape:?}", op.name());
            let mut f = Fixture::new();
            let x = f.input("x", shape);
            let moved = f.op(op, &[x]);
            let negative = f.builder().scalar(ScalarOp::Neg, &[moved]);
            f.output("moved", moved);
            f.output("negative", negative);
            f.case(name, Agreement::Exact)
        })
        .collect();
    let mut f = Fixture::new();
    let parts = [f.input("a", &[3, 5]), f.input("b", &[3, 1]), f.input("c", &[3, 511])];
    let whole = f.op(Op::Concat { axis: 1 }, &parts);
    f.output("whole", whole);
    cases.push(f.case("concat of different sizes", Agreement::Exact));
    cases
}

/// A slice as a contraction's operand: at the head it lies contiguous in a larger buffer.
pub fn sliced_operands() -> Vec<Case> {
    let window = Window { stride: [1, 1], pad: [1, 1] };
    let cuts: [(&str, [usize; 4], [usize; 4]); 5] = [
        ("the head", [0, 0, 0, 0], [2, 3, 6, 6]),
        ("one image", [0, 0, 0, 0], [1, 3, 6, 6]),
        ("the tail", [3, 0, 0, 0], [5, 3, 6, 6]),
        ("some channels", [0, 1, 0, 0], [5, 3, 6, 6]),
        ("a patch", [1, 0, 2, 1], [3, 2, 6, 5]),
    ];
    let mut cases = Vec::new();
    for (name, start, end) in cuts {
        for of in ["input", "computed"] {
            let mut f = Fixture::new();
            let mut x = f.input("x", &[5, 3, 6, 6]);
            if of == "computed" {
                x = f.builder().mul(x, x);
                // Kept whole, so that the slice is a view of it.
                f.output("whole", x);
            }
            let x = f.op(Op::Slice { start: start.to_vec(), end: end.to_vec() }, &[x]);
            let [n, c, h, w] = [0, 1, 2, 3].map(|d| end[d] - start[d]);
            let filter = f.input("filter", &[4, c, 3, 3]);
            let gradient = f.input("gradient", &[n, 4, h, w]);
            let forward = f.op(Op::Conv2d { window }, &[x, filter]);
            let filter_grad = f.op(Op::Conv2dFilterGrad { window, kernel: [3, 3] }, &[x, gradient]);
            let back = f.input("back", &[c, 2, 3, 3]);
            let input_grad = f.op(Op::Conv2dInputGrad { window, size: [h, w] }, &[x, back]);
            let flat = f.builder().reshape(x, &[n, c * h * w]);
            let turned = f.builder().transpose(flat, &[1, 0]);
            let product = f.builder().matmul(flat, turned);
            for (name, node) in [("forward", forward), ("filter", filter_grad), ("input", input_grad)] {
                f.output(name, node);
            }
            f.output("product", product);
            cases.push(f.case(format!("{name} of an {of} value").replace("an computed", "a computed"), PRODUCTS));
        }
    }
    // A filter that is the head of a larger tensor, and one at its tail.
    for (name, start) in [("head", 0), ("tail", 2)] {
        let mut f = Fixture::new();
        let (x, all) = (f.input("x", &[2, 3, 6, 6]), f.input("all", &[6, 3, 3, 3]));
        let filter = f.op(Op::Slice { start: vec![start, 0, 0, 0], end: vec![start + 4, 3, 3, 3] }, &[all]);
        let result = f.op(Op::Conv2d { window }, &[x, filter]);
        f.output("result", result);
        cases.push(f.case(format!("a filter at the {name}"), PRODUCTS));
    }
    cases
}
