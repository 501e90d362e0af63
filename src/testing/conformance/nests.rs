//! Loop nests: elementwise, over rows, over columns, in several sweeps; several tensors in one kernel; odd sizes.

use super::case::{Agreement, Case};
use super::draws::{keys, mask};
use super::fixture::{Fixture, noise};
use crate::ir::{Data, NodeId, Op, ReduceKind, Value};
use crate::scalar::ScalarOp;
use crate::tensor::{DType, Type};

/// Sums of thousands of terms, in another order than the interpreter's.
const SUMS: Agreement = Agreement::Near(1e-5);

fn reduce(f: &mut Fixture, kind: ReduceKind, x: NodeId, axes: &[usize]) -> NodeId {
    f.op(Op::Reduce { kind, axes: axes.to_vec() }, &[x])
}

/// A chain with two results, one of which is read again after movement.
fn chain(shape: &[usize]) -> Fixture {
    let mut f = Fixture::new();
    let (x, y) = (f.input("x", shape), f.input("y", shape));
    let mut b = f.builder();
    let product = b.mul(x, y);
    let sum = b.add(product, x);
    let largest = b.scalar(ScalarOp::Max, &[sum, y]);
    f.output("sum", sum);
    f.output("largest", largest);
    f
}

pub fn elementwise() -> Vec<Case> {
    let mut cases: Vec<Case> = [&[][..], &[1], &[3, 5], &[2, 3, 4, 5], &[1, 1, 7, 1]]
        .map(|shape| chain(shape).case(format!("chain {shape:?}"), Agreement::Exact))
        .into();
    // Operands that are repeated along each dimension, and along all.
    for small in [[1, 7, 5], [4, 1, 5], [4, 7, 1], [1, 1, 1], [1, 1, 5], [4, 1, 1], [1, 7, 1]] {
        let mut f = Fixture::new();
        let (x, y) = (f.input("x", &[4, 7, 5]), f.input("y", &small));
        let mut b = f.builder();
        let y = b.broadcast(y, &[4, 7, 5]);
        let z = b.sub(x, y);
        f.output("z", z);
        cases.push(f.case(format!("broadcast {small:?}"), Agreement::Exact));
    }
    let mut f = Fixture::new();
    let x = f.input("x", &[6, 11]);
    let mut b = f.builder();
    let mut value = x;
    // More values at once than a device has registers.
    let all: Vec<NodeId> = (0..40)
        .map(|i| {
            value = b.scale(value, if i % 2 == 0 { 0.5 } else { -2.0 });
            value = b.add(value, x);
            value
        })
        .collect();
    let total = all.iter().rev().copied().reduce(|a, c| b.add(a, c)).expect("forty values");
    f.output("total", total);
    cases.push(f.case("forty values alive at once", Agreement::Exact));
    let mut f = Fixture::new();
    let x = f.input("x", &[3, 4]);
    f.output("a", x);
    f.output("b", x);
    let constant = f.builder().constant(0.1, &[2, 2]);
    f.output("constant", constant);
    cases.push(f.case("an input and a constant as outputs", Agreement::Exact));
    cases.push(indices());
    cases.push(many_points());
    cases
}

/// So many points that a thread of a GPU has several: beside each other in memory, repeated, bounded, not aligned, across, as
/// bf16, and as bits.
fn many_points() -> Case {
    let shape = [64, 64, 72];
    let mut f = Fixture::new();
    let (x, row, turned) = (f.input("x", &shape), f.input("row", &[1, 1, 72]), f.input("turned", &[64, 72, 64]));
    let (small, shifted) = (f.input("small", &[61, 64, 72]), f.input("shifted", &[64, 64, 73]));
    let keys = keys(&mut f);
    let draw = mask(&mut f, "mask", &shape, keys);
    let narrow = f.state("narrow", &shape);
    let mut b = f.builder();
    let row = b.broadcast(row, &shape);
    let turned = b.transpose(turned, &[0, 2, 1]);
    let padded = b.op(Op::Pad { low: vec![1, 0, 0], high: vec![2, 0, 0] }, &[small]);
    let shifted = b.op(Op::Slice { start: vec![0, 0, 1], end: vec![64, 64, 73] }, &[shifted]);
    let mut sum = b.mul(x, row);
    for term in [turned, padded, shifted, draw] {
        sum = b.add(sum, term);
    }
    let index = b.op(Op::Iota { axis: 2, ty: Type::f32(shape) }, &[]);
    let indexed = b.mul(sum, index);
    let half = b.op(Op::Convert { to: DType::Bf16 }, &[sum]);
    let wide = b.op(Op::Convert { to: DType::F32 }, &[half]);
    let next = b.add(narrow, wide);
    for (name, node) in [("sum", sum), ("indexed", indexed), ("half", half)] {
        f.output(name, node);
    }
    f.update("narrow", next);
    f.case("many points", Agreement::Exact)
}

/// Indices along each axis, as both types, plain and moved.
fn indices() -> Case {
    let mut f = Fixture::new();
    for axis in 0..3 {
        for (kind, ty) in [("real", Type::f32([3, 5, 7])), ("integer", Type::u32([3, 5, 7]))] {
            let x = f.op(Op::Iota { axis, ty }, &[]);
            let turned = f.op(Op::Transpose { permutation: vec![2, 0, 1] }, &[x]);
            let cut = f.op(Op::Slice { start: vec![2, 1, 0], end: vec![6, 3, 4] }, &[turned]);
            f.output(&format!("{kind} {axis}"), x);
            f.output(&format!("{kind} {axis}, moved"), cut);
        }
    }
    f.case("indices", Agreement::Exact)
}

pub fn reductions() -> Vec<Case> {
    let mut cases = Vec::new();
    let shapes: [(&[usize], &[usize]); 18] = [
        (&[5, 33], &[1]),
        (&[5, 33], &[0]),
        (&[5, 33], &[0, 1]),
        (&[3, 1000], &[1]),
        (&[1000, 3], &[0]),
        (&[2, 3, 4, 5], &[1]),
        (&[2, 3, 4, 5], &[0, 2, 3]),
        (&[2, 3, 4, 5], &[1, 2]),
        (&[1, 1], &[0, 1]),
        (&[70, 37], &[]),
        (&[70_001], &[0]),
        (&[6, 33, 65], &[1]),
        (&[13, 4, 7, 5], &[0, 2, 3]),
        // Short runs with kept dimensions around them, more rows of them than are summed at once, tiles with a rest.
        (&[70, 23, 7, 7], &[0, 2, 3]),
        (&[3, 2, 11, 37, 6], &[0, 2, 4]),
        (&[3, 41, 1, 2], &[0, 3]),
        (&[300, 9], &[1]),
        (&[2, 5, 511], &[0, 2]),
    ];
    for (shape, axes) in shapes {
        for kind in [ReduceKind::Sum, ReduceKind::Max, ReduceKind::Deviations] {
            let mut f = Fixture::new();
            let x = f.input("x", shape);
            let computed = f.builder().mul(x, x);
            let plain = reduce(&mut f, kind, x, axes);
            let of_computed = reduce(&mut f, kind, computed, axes);
            f.output("plain", plain);
            f.output("of computed", of_computed);
            let agreement = if kind == ReduceKind::Max { Agreement::Exact } else { SUMS };
            cases.push(f.case(format!("{kind:?} of {shape:?} along {axes:?}").to_lowercase(), agreement));
        }
    }
    cases.extend([softmax(17, 10), softmax(3, 700), batch_norm(6, 4, 5), batch_norm(1, 3, 1)]);
    cases.extend([softmax(301, 10), batch_norm(67, 33, 7), batch_norm(3, 5, 14)]);
    cases.extend([deviations(), kept_stores(), narrow_stores()]);
    cases.push(one_nan());
    cases
}

/// Three sweeps over each row: maximum, sum, quotient.
fn softmax(rows: usize, columns: usize) -> Case {
    let mut f = Fixture::new();
    let x = f.input("x", &[rows, columns]);
    let largest = reduce(&mut f, ReduceKind::Max, x, &[1]);
    let mut b = f.builder();
    let largest = b.broadcast(largest, &[rows, columns]);
    let centred = b.sub(x, largest);
    let powers = b.scalar(ScalarOp::Exp, &[centred]);
    let total = b.sum(powers, &[1]);
    let total = b.broadcast(total, &[rows, columns]);
    let softmax = b.div(powers, total);
    f.output("softmax", softmax);
    f.case(format!("softmax of {rows} rows of {columns}"), SUMS)
}

/// Mean and variance of each channel, kept and used at every point.
fn batch_norm(n: usize, channels: usize, size: usize) -> Case {
    let shape = [n, channels, size, size];
    let mut f = Fixture::new();
    let (x, scale) = (f.input("x", &shape), f.input("scale", &[1, channels, 1, 1]));
    let mut b = f.builder();
    let mean = b.mean(x, &[0, 2, 3]);
    let repeated = b.broadcast(mean, &shape);
    let centred = b.sub(x, repeated);
    let squares = b.mul(centred, centred);
    let variance = b.mean(squares, &[0, 2, 3]);
    let epsilon = b.constant(1e-5, &[1, channels, 1, 1]);
    let safe = b.add(variance, epsilon);
    let inverse = b.scalar(ScalarOp::Rsqrt, &[safe]);
    let factor = b.mul(inverse, scale);
    let factor = b.broadcast(factor, &shape);
    let normal = b.mul(centred, factor);
    for (name, node) in [("mean", mean), ("variance", variance), ("normal", normal)] {
        f.output(name, node);
    }
    f.case(format!("batch norm of {shape:?}"), Agreement::Near(4e-5))
}

/// As batch norm, but divided by a root at every point.
fn deviations() -> Case {
    let shape = [17, 3, 5, 7];
    let mut f = Fixture::new();
    let x = f.input("x", &shape);
    let mut b = f.builder();
    let mean = b.mean(x, &[0, 2, 3]);
    let repeated = b.broadcast(mean, &shape);
    let centred = b.sub(x, repeated);
    let squares = b.mul(centred, centred);
    let variance = b.mean(squares, &[0, 2, 3]);
    let repeated = b.broadcast(variance, &shape);
    let deviation = b.scalar(ScalarOp::Sqrt, &[repeated]);
    let normal = b.div(centred, deviation);
    for (name, node) in [("mean", mean), ("variance", variance), ("normal", normal)] {
        f.output(name, node);
    }
    f.case("divided by the deviation", Agreement::Near(2e-5))
}

/// What is computed once for each kept point is stored, besides what is stored at every point.
fn kept_stores() -> Case {
    let mut f = Fixture::new();
    let (x, w) = (f.input("x", &[9, 40]), f.input("w", &[9, 1]));
    let mut b = f.builder();
    let total = b.sum(x, &[1]);
    let weighted = b.mul(total, w);
    let doubled = b.add(weighted, weighted);
    let repeated = b.broadcast(doubled, &[9, 40]);
    let all = b.add(x, repeated);
    for (name, node) in [("weighted", weighted), ("doubled", doubled), ("all", all)] {
        f.output(name, node);
    }
    f.case("kept values stored beside all points", SUMS)
}

/// Values of other types, stored at every point of a sweep over short runs and for each kept point.
fn narrow_stores() -> Case {
    let shape = [5, 29, 3, 7];
    let mut f = Fixture::new();
    let words = (0..shape.iter().product::<usize>() as u32).map(|i| i * 7 % 1000).collect();
    let words = f.input_of("words", DType::U32, Value::u32(shape, words));
    let more = f.input_of("more", DType::U32, Value::u32([1, 29, 1, 1], (0..29).collect()));
    let half = f.input_of("half", DType::Bf16, noise(&shape, 8));
    let mut b = f.builder();
    let more = b.broadcast(more, &shape);
    let next = b.scalar(ScalarOp::AddU32, &[words, more]);
    let real = b.scalar(ScalarOp::ToReal, &[next]);
    let wide = b.op(Op::Convert { to: DType::F32 }, &[half]);
    let product = b.mul(real, wide);
    let narrow = b.op(Op::Convert { to: DType::Bf16 }, &[product]);
    let largest = b.op(Op::Reduce { kind: ReduceKind::Max, axes: vec![0, 2, 3] }, &[product]);
    let narrow_largest = b.op(Op::Convert { to: DType::Bf16 }, &[largest]);
    for (name, node) in [("next", next), ("narrow", narrow), ("largest", largest), ("narrow largest", narrow_largest)] {
        f.output(name, node);
    }
    f.case("u32 and bf16 stored beside reductions", Agreement::Exact)
}

/// A NaN comes out of a maximum where it went in, and nowhere else.
fn one_nan() -> Case {
    let mut f = Fixture::new();
    let mut value = noise(&[60, 37], 3);
    if let Data::Real(values) = &mut value.data {
        for (i, at) in [0, 38, 76, 135, 165, 500, 1099, 2219].into_iter().enumerate() {
            values[at] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][i % 3];
        }
    }
    let x = f.input_of("x", DType::F32, value);
    for axes in [&[0][..], &[1], &[0, 1]] {
        let largest = reduce(&mut f, ReduceKind::Max, x, axes);
        f.output(&format!("along {axes:?}"), largest);
    }
    f.case("maximum with nan and infinities", Agreement::Exact)
}

/// Updates of many tensors of different sizes, which fusion puts in one kernel.
pub fn multi_tensor() -> Vec<Case> {
    let with_momentum = |sizes: &[usize], name: &str| {
        let mut f = Fixture::new();
        for (i, &size) in sizes.iter().enumerate() {
            let gradient = f.input(&format!("gradient{i}"), &[size]);
            let (weight, moment) = (f.state(&format!("w{i}"), &[size]), f.state(&format!("m{i}"), &[size]));
            let mut b = f.builder();
            let kept = b.scale(moment, 0.75);
            let moment = b.add(kept, gradient);
            let change = b.scale(moment, -0.125);
            let weight = b.add(weight, change);
            f.update(&format!("m{i}"), moment);
            f.update(&format!("w{i}"), weight);
        }
        f.case(name, Agreement::Exact).repeated(3)
    };
    vec![
        with_momentum(&[5], "one tensor"),
        with_momentum(&[1, 513, 7, 64, 3000, 2], "six tensors"),
        with_momentum(&[1; 40], "forty tensors of one element"),
    ]
}

/// One element, primes, one more than a tile of the CPU or a block of a GPU.
pub fn odd_sizes() -> Vec<Case> {
    let mut cases = Vec::new();
    for size in [1, 2, 3, 31, 33, 127, 255, 257, 511, 512, 513, 1021, 1025, 65_537] {
        cases.push(chain(&[size]).case(format!("chain of {size}"), Agreement::Exact));
        let shapes = [(size, 3), (3, size)];
        // A square is one shape.
        for &(rows, columns) in &shapes[usize::from(size == 3)..] {
            let mut f = Fixture::new();
            let x = f.input("x", &[rows, columns]);
            let mut b = f.builder();
            let down = b.sum(x, &[0]);
            let across = b.sum(x, &[1]);
            let all = b.sum(x, &[0, 1]);
            let turned = b.transpose(x, &[1, 0]);
            for (name, node) in [("down", down), ("across", across), ("all", all), ("turned", turned)] {
                f.output(name, node);
            }
            cases.push(f.case(format!("sums of {rows} x {columns}"), Agreement::Near(1e-5)));
        }
    }
    cases
}
