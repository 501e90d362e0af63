//! Random draws: the same bits on every device.

use super::case::{Agreement, Case};
use super::fixture::Fixture;
use crate::ir::{Distribution, NodeId, Op, Real, Value, Window};
use crate::tensor::DType;

/// Shapes whose elements are no whole number of blocks, and one that no tile holds.
const SHAPES: [&[usize]; 7] = [&[], &[1], &[3], &[13, 7], &[7, 131], &[2, 3, 5, 11], &[4099]];

/// A normal draw is computed in f64 and rounded once; half a unit of the last place is left to a library's logarithm.
const NORMAL: Agreement = Agreement::Each(1.2e-7);

pub fn draws() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, distribution, agreement) in [
        ("uniform", Distribution::Uniform, Agreement::Exact),
        ("normal", Distribution::Normal, NORMAL),
        ("bernoulli 0.25", Distribution::Bernoulli(Real(0.25)), Agreement::Exact),
        ("bernoulli 0", Distribution::Bernoulli(Real(0.0)), Agreement::Exact),
        ("bernoulli 1", Distribution::Bernoulli(Real(1.0)), Agreement::Exact),
    ] {
        for shape in SHAPES {
            let mut f = Fixture::new();
            let seed = f.input_of("seed", DType::U32, Value::u32([2], vec![0x1234_5678, 9]));
            let step = f.state_of("step", DType::U32, Value::u32([], vec![u32::MAX]));
            let draw = |stream: &str| Op::Random { distribution, stream: stream.into(), shape: shape.to_vec() };
            let first = f.op(draw("first"), &[seed, step]);
            let second = f.op(draw("second"), &[seed, step]);
            // Where it is used, after a movement, and stored.
            let moved = f.op(Op::Reverse { axes: (0..shape.len()).collect() }, &[second]);
            let sum = f.builder().mul(first, moved);
            f.output("first", first);
            f.output("moved", moved);
            if distribution != Distribution::Normal {
                f.output("product", sum);
            }
            cases.push(f.case(format!("{name} {shape:?}"), agreement));
        }
    }
    cases.extend(SHAPES.iter().map(|shape| dropped(shape)));
    cases.extend(IMAGES.iter().map(|shape| dropped_images(*shape)));
    cases.push(counted());
    cases
}

/// A draw of 0 or 1 for each element, of which three in four are 1, divided by that probability.
pub fn mask(f: &mut Fixture, stream: &str, shape: &[usize], [seed, step]: [NodeId; 2]) -> NodeId {
    let distribution = Distribution::Bernoulli(Real(0.75));
    let op = Op::Random { distribution, stream: stream.into(), shape: shape.to_vec() };
    let draw = f.op(op, &[seed, step]);
    f.builder().scale(draw, 1.0 / 0.75)
}

/// What keys draws: a seed and a step.
pub fn keys(f: &mut Fixture) -> [NodeId; 2] {
    let seed = f.input_of("seed", DType::U32, Value::u32([2], vec![0x1234_5678, 9]));
    let step = f.state_of("step", DType::U32, Value::u32([], vec![3]));
    [seed, step]
}

/// Dropout forward and backward, by masks that are read in order, reversed, padded, joined, and summed.
fn dropped(shape: &[usize]) -> Case {
    let mut f = Fixture::new();
    let keys = keys(&mut f);
    let (x, dy) = (f.input("x", shape), f.input("dy", shape));
    let [first, second] = ["first", "second"].map(|stream| mask(&mut f, stream, shape, keys));
    let y = f.builder().mul(x, first);
    let dx = f.builder().mul(dy, first);
    let reversed = f.op(Op::Reverse { axes: (0..shape.len()).collect() }, &[second]);
    let moved = f.builder().mul(x, reversed);
    let (low, high) = (vec![1; shape.len()], vec![2; shape.len()]);
    let padded = f.op(Op::Pad { low, high }, &[first]);
    let padded = f.builder().scale(padded, 0.5);
    let axes: Vec<usize> = (0..shape.len()).collect();
    let total = f.builder().sum(second, &axes);
    for (name, node) in [("y", y), ("dx", dx), ("moved", moved), ("padded", padded), ("total", total)] {
        f.output(name, node);
    }
    if !shape.is_empty() {
        let joined = f.op(Op::Concat { axis: 0 }, &[second, first]);
        let joined = f.builder().scale(joined, -1.0);
        f.output("joined", joined);
    }
    f.case(format!("dropout {shape:?}"), Agreement::Near(1e-6))
}

/// Images that are no whole number of blocks, or whose images and channels are no whole number of words, and some of both
/// that are.
const IMAGES: [[usize; 4]; 6] =
    [[4, 8, 7, 7], [2, 16, 6, 12], [2, 32, 13, 10], [3, 5, 7, 7], [1, 1, 3, 3], [5, 33, 2, 2]];

/// Dropout between convolutions, of two batches with masks of their own that are joined, forward and backward.
fn dropped_images(shape: [usize; 4]) -> Case {
    let [n, c, h, w] = shape;
    let mut f = Fixture::new();
    let keys = keys(&mut f);
    let x = f.input("x", &[2 * n, 3, h, w]);
    let filters = [f.state("first", &[c, 3, 1, 1]), f.state("second", &[2, c, 1, 1])];
    let masks = ["real", "fake"].map(|stream| mask(&mut f, stream, &shape, keys));
    let kept = f.op(Op::Concat { axis: 0 }, &masks);
    let window = Window { stride: [1, 1], pad: [0, 0] };
    let y = f.op(Op::Conv2d { window }, &[x, filters[0]]);
    let y = f.builder().mul(y, kept);
    let z = f.op(Op::Conv2d { window }, &[y, filters[1]]);
    let dy = f.op(Op::Conv2dInputGrad { window, size: [h, w] }, &[z, filters[1]]);
    let dy = f.builder().mul(dy, kept);
    let dx = f.op(Op::Conv2dInputGrad { window, size: [h, w] }, &[dy, filters[0]]);
    let dfilter = f.op(Op::Conv2dFilterGrad { window, kernel: [1, 1] }, &[x, dy]);
    // What is flattened is read in the order of its shape.
    let flat = f.builder().mul(y, kept);
    let flat = f.builder().reshape(flat, &[2 * n, c * h * w]);
    let sums = f.builder().sum(flat, &[1]);
    for (name, node) in [("z", z), ("dx", dx), ("dfilter", dfilter), ("sums", sums)] {
        f.output(name, node);
    }
    f.case(format!("dropped images {shape:?}"), Agreement::Near(1e-5))
}

/// The step is state that an entry counts on: each run draws anew, also where the count wraps around.
fn counted() -> Case {
    let mut f = Fixture::new();
    let seed = f.input_of("seed", DType::U32, Value::u32([2], vec![1, 2]));
    let step = f.state_of("step", DType::U32, Value::u32([], vec![u32::MAX - 1]));
    let op = Op::Random { distribution: Distribution::Uniform, stream: "dropout/mask".into(), shape: vec![37] };
    let draw = f.op(op, &[seed, step]);
    let one = f.op(Op::constant(1.0, DType::U32, []), &[]);
    let next = f.op(Op::Scalar(crate::scalar::ScalarOp::AddU32), &[step, one]);
    f.output("draw", draw);
    f.update("step", next);
    f.case("one step after the other", Agreement::Exact).repeated(4)
}
