//! A graph's values in f64, by the operations' definitions: what central differences are taken of.

use crate::ir::{Graph, NodeId, Op, ReduceKind, Window};
use std::collections::HashMap;

/// The value of every node. A draw is some fixed sequence: its derivative does not depend on which.
pub(super) fn evaluate(graph: &Graph, inputs: &HashMap<String, Vec<f64>>) -> HashMap<NodeId, Vec<f64>> {
    let mut values: HashMap<NodeId, Vec<f64>> = HashMap::new();
    for id in graph.topological() {
        let operands = graph.operands(id);
        let arrays: Vec<Array<'_>> =
            operands.iter().map(|o| Array { values: &values[o], shape: graph.shape(*o) }).collect();
        let value = apply(graph.op(id), &arrays, graph.shape(id), inputs);
        values.insert(id, value);
    }
    values
}

/// A tensor in row-major order.
#[derive(Clone, Copy)]
struct Array<'a> {
    values: &'a [f64],
    shape: &'a [usize],
}

impl Array<'_> {
    fn at(&self, index: &[usize]) -> f64 {
        self.values[position(index, self.shape)]
    }
}

fn position(index: &[usize], shape: &[usize]) -> usize {
    index.iter().zip(shape).fold(0, |position, (i, size)| position * size + i)
}

fn index(mut position: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for axis in (0..shape.len()).rev() {
        index[axis] = position % shape[axis];
        position /= shape[axis];
    }
    index
}

fn apply(op: &Op, x: &[Array<'_>], out: &[usize], inputs: &HashMap<String, Vec<f64>>) -> Vec<f64> {
    let count: usize = out.iter().product();
    let each = |f: &dyn Fn(Vec<usize>) -> f64| (0..count).map(|i| f(index(i, out))).collect::<Vec<f64>>();
    match op {
        Op::Input { name, .. } | Op::State { name, .. } => inputs[name].clone(),
        Op::Constant { value, .. } => vec![value.0; count],
        Op::Iota { axis, .. } => each(&|i| i[*axis] as f64),
        Op::Random { .. } => (0..count).map(|i| (1.0 + i as f64).sin()).collect(),
        Op::Scalar(scalar) => {
            let lane = |i: usize| scalar.eval(&x.iter().map(|a| a.values[i]).collect::<Vec<_>>());
            (0..count).map(lane).collect()
        }
        Op::Reshape { .. } => x[0].values.to_vec(),
        Op::Transpose { permutation } => each(&|i| {
            let mut from = vec![0; i.len()];
            for (result, &operand) in permutation.iter().enumerate() {
                from[operand] = i[result];
            }
            x[0].at(&from)
        }),
        Op::Broadcast { .. } => each(&|i| {
            let from: Vec<usize> = i.iter().zip(x[0].shape).map(|(&i, &size)| if size == 1 { 0 } else { i }).collect();
            x[0].at(&from)
        }),
        Op::Pad { low, .. } => each(&|i| {
            let from: Option<Vec<usize>> = (i.iter().zip(low).zip(x[0].shape))
                .map(|((i, low), &size)| i.checked_sub(*low).filter(|&from| from < size))
                .collect();
            from.map_or(0.0, |from| x[0].at(&from))
        }),
        Op::Slice { start, .. } => {
            each(&|i| x[0].at(&i.iter().zip(start).map(|(i, start)| i + start).collect::<Vec<_>>()))
        }
        Op::Concat { axis } => each(&|mut i| {
            let mut part = 0;
            while i[*axis] >= x[part].shape[*axis] {
                i[*axis] -= x[part].shape[*axis];
                part += 1;
            }
            x[part].at(&i)
        }),
        Op::Reverse { axes } => each(&|mut i| {
            for &axis in axes {
                i[axis] = out[axis] - 1 - i[axis];
            }
            x[0].at(&i)
        }),
        Op::Reduce { kind, axes } => {
            let (start, combine): (f64, fn(f64, f64) -> f64) = match kind {
                ReduceKind::Sum => (0.0, |a, b| a + b),
                ReduceKind::Max => (f64::NEG_INFINITY, f64::max),
            };
            let mut result = vec![start; count];
            for (i, &value) in x[0].values.iter().enumerate() {
                let mut to = index(i, x[0].shape);
                axes.iter().for_each(|&axis| to[axis] = 0);
                let slot = &mut result[position(&to, out)];
                *slot = combine(*slot, value);
            }
            result
        }
        Op::MatMul => each(&|i| {
            let rank = i.len();
            let term = |k: usize| {
                let (mut a, mut b) = (i.clone(), i.clone());
                (a[rank - 1], b[rank - 2]) = (k, k);
                x[0].at(&a) * x[1].at(&b)
            };
            (0..x[0].shape[rank - 1]).map(term).sum()
        }),
        Op::Conv2d { window } => {
            let terms = conv_terms(window, x[0].shape, x[1].shape, out);
            collect(out, terms.iter().map(|[image, filter, result]| (result, x[0].at(image) * x[1].at(filter))))
        }
        Op::Conv2dInputGrad { window, .. } => {
            let terms = conv_terms(window, out, x[1].shape, x[0].shape);
            collect(out, terms.iter().map(|[image, filter, result]| (image, x[0].at(result) * x[1].at(filter))))
        }
        Op::Conv2dFilterGrad { window, .. } => {
            let terms = conv_terms(window, x[0].shape, out, x[1].shape);
            collect(out, terms.iter().map(|[image, filter, result]| (filter, x[0].at(image) * x[1].at(result))))
        }
        Op::Gradient => panic!("a gradient is left"),
    }
}

/// The indices into image, filter and result of every product in a convolution.
fn conv_terms(window: &Window, image: &[usize], filter: &[usize], result: &[usize]) -> Vec<[[usize; 4]; 3]> {
    // All of: example, output channel, input channel, output row and column, filter row and column.
    let loops = [image[0], filter[0], filter[1], result[2], result[3], filter[2], filter[3]];
    let mut terms = vec![];
    for at in 0..loops.iter().product() {
        let [n, o, c, i, j, k, l] = index(at, &loops)[..] else { unreachable!("seven loops") };
        let row = (i * window.stride[0] + k).checked_sub(window.pad[0]).filter(|&row| row < image[2]);
        let column = (j * window.stride[1] + l).checked_sub(window.pad[1]).filter(|&column| column < image[3]);
        if let (Some(row), Some(column)) = (row, column) {
            terms.push([[n, c, row, column], [o, c, k, l], [n, o, i, j]]);
        }
    }
    terms
}

/// The sums of the terms that go to the same element.
fn collect<'a>(shape: &[usize], terms: impl Iterator<Item = (&'a [usize; 4], f64)>) -> Vec<f64> {
    let mut sums = vec![0.0; shape.iter().product()];
    for (index, term) in terms {
        sums[position(index, shape)] += term;
    }
    sums
}
