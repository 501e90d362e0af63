//! Small graphs in the shapes that training steps are made of.

use gcc_gan::ir::{
    Builder, DType, Distribution, Graph, NodeId, Op, Origin, Output, Real, ReduceKind, Role, Type, Update, Window,
};
use gcc_gan::scalar::{Lane, ScalarOp};

/// A parameter of `[132, 72]` and its momentum updated by a gradient, and a reduction of the magnitudes.
pub fn update_by_gradient(kind: ReduceKind, axes: &[usize]) -> Graph {
    graph("update_by_gradient", |b| {
        let (x, y) = (input(b, "x", Type::f32([132, 64])), input(b, "y", Type::f32([64, 72])));
        let (w, m) = (state(b, "w", Type::f32([132, 72])), state(b, "m", Type::f32([132, 72])));
        let gradient = b.op(Op::MatMul, &[x, y]);
        b.origin.role = Role::Optimiser("network".to_string());
        let [kept, rate] = [0.9, 0.1].map(|x| b.constant(x, &[132, 72]));
        let (old, new) = (b.mul(m, kept), b.mul(gradient, rate));
        let momentum = b.add(old, new);
        let step = b.mul(momentum, rate);
        let updated = b.sub(w, step);
        let size = b.scalar(ScalarOp::Abs, &[updated]);
        let reduced = b.op(Op::Reduce { kind, axes: axes.to_vec() }, &[size]);
        update(b, "m", momentum);
        update(b, "w", updated);
        vec![("reduced", reduced)]
    })
}

/// Builds a graph by a function that gives names to its results.
pub fn graph(name: &str, build: impl FnOnce(&mut Builder) -> Vec<(&'static str, NodeId)>) -> Graph {
    let mut graph = Graph::new(name);
    let mut b = Builder::new(&mut graph, Origin::default());
    let outputs = build(&mut b);
    graph.outputs = outputs.into_iter().map(|(name, node)| Output { name: name.to_string(), node }).collect();
    graph
}

pub fn input(b: &mut Builder, name: &str, ty: Type) -> NodeId {
    b.named(name, Op::Input { name: name.to_string(), ty }, &[])
}

pub fn state(b: &mut Builder, name: &str, ty: Type) -> NodeId {
    b.named(name, Op::State { name: name.to_string(), ty }, &[])
}

fn update(b: &mut Builder, state: &str, node: NodeId) {
    b.graph.updates.push(Update { state: state.to_string(), node });
}

fn max(b: &mut Builder, x: NodeId, axes: &[usize]) -> NodeId {
    b.op(Op::Reduce { kind: ReduceKind::Max, axes: axes.to_vec() }, &[x])
}

/// A chain with a bias and two results.
pub fn chain() -> Graph {
    graph("chain", |b| {
        let x = input(b, "x", Type::f32([32, 100]));
        let bias = state(b, "bias", Type::f32([1, 100]));
        let bias = b.broadcast(bias, &[32, 100]);
        let sum = b.add(x, bias);
        let y = b.scalar(ScalarOp::Tanh, &[sum]);
        let squared = b.mul(y, y);
        vec![("y", y), ("squared", squared)]
    })
}

/// Batch normalisation over all but the channels, with running statistics.
pub fn batch_norm(shape: [usize; 4]) -> Graph {
    graph("batch_norm", |b| {
        let kept = [1, shape[1], 1, 1];
        let x = input(b, "x", Type::f32(shape));
        let gamma = state(b, "gamma", Type::f32(kept));
        let running = state(b, "running_mean", Type::f32(kept));
        let mean = b.mean(x, &[0, 2, 3]);
        let wide = b.broadcast(mean, &shape);
        let centred = b.sub(x, wide);
        let squared = b.mul(centred, centred);
        let variance = b.mean(squared, &[0, 2, 3]);
        let epsilon = b.constant(1e-5, &kept);
        let variance = b.add(variance, epsilon);
        let inverse = b.scalar(ScalarOp::Rsqrt, &[variance]);
        let scale = b.mul(gamma, inverse);
        let scale = b.broadcast(scale, &shape);
        let y = b.mul(centred, scale);
        let old = b.scale(running, 0.9);
        let new = b.scale(mean, 0.1);
        let new = b.add(old, new);
        update(b, "running_mean", new);
        vec![("y", y)]
    })
}

/// Statistics over the batch alone: the reduced dimension is the outermost.
pub fn column_statistics() -> Graph {
    graph("column_statistics", |b| {
        let x = input(b, "x", Type::f32([40, 70]));
        let mean = b.mean(x, &[0]);
        let wide = b.broadcast(mean, &[40, 70]);
        let centred = b.sub(x, wide);
        let largest = max(b, centred, &[0]);
        let wide = b.broadcast(largest, &[40, 70]);
        let y = b.div(centred, wide);
        vec![("mean", mean), ("y", y)]
    })
}

/// Inverted dropout, whose key is a seed and a counter that the step moves on.
pub fn dropout() -> Graph {
    graph("dropout", |b| {
        let x = input(b, "x", Type::f32([8, 50]));
        let seed = state(b, "seed", Type::u32([2]));
        let step = state(b, "step", Type::u32([]));
        let keep = b.named(
            "keep",
            Op::Random { distribution: Distribution::Bernoulli(Real(0.75)), stream: "keep".into(), shape: vec![8, 50] },
            &[seed, step],
        );
        let scaled = b.scale(x, 1.0 / 0.75);
        let y = b.mul(keep, scaled);
        let one = b.op(Op::constant(1.0, DType::U32, []), &[]);
        let next = b.scalar(ScalarOp::AddU32, &[step, one]);
        update(b, "step", next);
        vec![("y", y)]
    })
}

/// Images dropped between two convolutions and once more behind them, forward and backward: masks that lie in memory as
/// images do.
pub fn dropped_images([images, channels, height, width]: [usize; 4]) -> Graph {
    graph("dropped_images", |b| {
        let [n, c, h, w] = [images, channels, height, width];
        let x = input(b, "x", Type::f32([n, 2, h, w]));
        let first = state(b, "first", Type::f32([c, 2, 1, 1]));
        let second = state(b, "second", Type::f32([c, c, 1, 1]));
        let seed = state(b, "seed", Type::u32([2]));
        let step = state(b, "step", Type::u32([]));
        let mask = |b: &mut Builder, stream: &str| {
            let distribution = Distribution::Bernoulli(Real(0.7));
            let op = Op::Random { distribution, stream: stream.into(), shape: vec![n, c, h, w] };
            let draw = b.named(stream, op, &[seed, step]);
            b.scale(draw, 1.0 / 0.7)
        };
        let masks = [mask(b, "inner"), mask(b, "outer")];
        let window = Window { stride: [1, 1], pad: [0, 0] };
        let y = b.op(Op::Conv2d { window }, &[x, first]);
        let y = b.mul(y, masks[0]);
        let z = b.op(Op::Conv2d { window }, &[y, second]);
        let z = b.mul(z, masks[1]);
        // As if the gradient were the result itself.
        let dz = b.mul(z, masks[1]);
        let dy = b.op(Op::Conv2dInputGrad { window, size: [h, w] }, &[dz, second]);
        let dy = b.mul(dy, masks[0]);
        let dx = b.op(Op::Conv2dInputGrad { window, size: [h, w] }, &[dy, first]);
        vec![("z", z), ("dx", dx)]
    })
}

/// Uniform and normal draws, read in order and transposed.
pub fn draws() -> Graph {
    graph("draws", |b| {
        let seed = state(b, "seed", Type::u32([2]));
        let step = state(b, "step", Type::u32([]));
        let draw = |b: &mut Builder, distribution, stream: &str| {
            b.named(stream, Op::Random { distribution, stream: stream.into(), shape: vec![30, 21] }, &[seed, step])
        };
        let uniform = draw(b, Distribution::Uniform, "u");
        let normal = draw(b, Distribution::Normal, "z");
        let turned = b.transpose(normal, &[1, 0]);
        let padded = b.op(Op::Pad { low: vec![1, 2], high: vec![0, 3] }, &[uniform]);
        vec![("turned", turned), ("padded", padded), ("z_in_order", normal)]
    })
}

/// Softmax over the innermost dimension.
pub fn softmax() -> Graph {
    graph("softmax", |b| {
        let x = input(b, "logits", Type::f32([128, 10]));
        let largest = max(b, x, &[1]);
        let wide = b.broadcast(largest, &[128, 10]);
        let shifted = b.sub(x, wide);
        let exps = b.scalar(ScalarOp::Exp, &[shifted]);
        let total = b.sum(exps, &[1]);
        let wide = b.broadcast(total, &[128, 10]);
        let y = b.div(exps, wide);
        vec![("y", y)]
    })
}

/// One number from many: a loss.
pub fn mean_loss() -> Graph {
    graph("mean_loss", |b| {
        let logits = input(b, "logits", Type::f32([6000, 1]));
        let loss = b.scalar(ScalarOp::Softplus, &[logits]);
        let loss = b.mean(loss, &[0, 1]);
        let loss = b.reshape(loss, &[]);
        vec![("loss", loss)]
    })
}

/// Class labels as one-hot rows, and pieces joined and reversed.
pub fn movements() -> Graph {
    graph("movements", |b| {
        let labels = input(b, "labels", Type::u32([12, 1]));
        let x = input(b, "x", Type::f32([12, 3, 5]));
        let labels = b.scalar(ScalarOp::ToReal, &[labels]);
        let labels = b.broadcast(labels, &[12, 10]);
        let classes = b.op(Op::Iota { axis: 1, ty: Type::f32([12, 10]) }, &[]);
        let one_hot = b.scalar(ScalarOp::Eq, &[labels, classes]);
        let turned = b.op(Op::Reverse { axes: vec![0, 2] }, &[x]);
        let part = b.op(Op::Slice { start: vec![0, 1, 2], end: vec![12, 3, 4] }, &[turned]);
        let part = b.op(Op::Pad { low: vec![0, 1, 0], high: vec![0, 0, 1] }, &[part]);
        let both = b.op(Op::Concat { axis: 2 }, &[part, x]);
        let places = b.op(Op::Iota { axis: 1, ty: Type::f32([12, 3, 8]) }, &[]);
        let y = b.mul(both, places);
        vec![("one_hot", one_hot), ("y", y)]
    })
}

/// Two parameters updated by one kernel, in place.
pub fn optimiser() -> Graph {
    graph("optimiser", |b| {
        for (name, shape) in [("dense", vec![300, 7]), ("bias", vec![7])] {
            b.origin.role = gcc_gan::ir::Role::Optimiser("net".to_string());
            let gradient = input(b, &format!("net/{name}/gradient"), Type::f32(shape.clone()));
            let weight = state(b, &format!("net/{name}/w"), Type::f32(shape.clone()));
            let moment = state(b, &format!("net/{name}/m"), Type::f32(shape.clone()));
            let old = b.scale(moment, 0.9);
            let new = b.scale(gradient, 0.1);
            let moment = b.add(old, new);
            let step = b.scale(moment, 2e-4);
            let weight = b.sub(weight, step);
            update(b, &format!("net/{name}/m"), moment);
            update(b, &format!("net/{name}/w"), weight);
        }
        vec![]
    })
}

/// Every scalar operation on reals.
pub fn scalar_operations() -> Graph {
    graph("scalar_operations", |b| {
        let shape = [6, 11];
        let x = input(b, "x", Type::f32(shape));
        let y = input(b, "y", Type::f32(shape));
        let size = b.scalar(ScalarOp::Abs, &[x]);
        let positive = b.constant(0.25, &shape);
        let positive = b.add(size, positive);
        let ops = ScalarOp::ALL.iter().filter(|op| op.operand_lanes().iter().all(|&l| l == Lane::Real));
        let results: Vec<NodeId> = ops.map(|&op| b.scalar(op, &[positive, y, x][..op.operand_lanes().len()])).collect();
        let all = b.op(Op::Concat { axis: 0 }, &results);
        vec![("all", all)]
    })
}

/// The larger, the smaller, and the largest along either dimension and both.
pub fn extrema(shape: [usize; 2]) -> Graph {
    graph("extrema", |b| {
        let (x, y) = (input(b, "x", Type::f32(shape)), input(b, "y", Type::f32(shape)));
        let (larger, smaller) = (b.scalar(ScalarOp::Max, &[x, y]), b.scalar(ScalarOp::Min, &[x, y]));
        let (rows, columns, all) = (max(b, x, &[1]), max(b, x, &[0]), max(b, y, &[0, 1]));
        vec![("larger", larger), ("smaller", smaller), ("rows", rows), ("columns", columns), ("all", all)]
    })
}

/// Values stored as bf16, rounded in place where they are not stored, and widened where they are read.
pub fn bf16() -> Graph {
    graph("bf16", |b| {
        let to = |b: &mut Builder, x, to| b.op(Op::Convert { to }, &[x]);
        let x = input(b, "x", Type::f32([6, 40]));
        let old = state(b, "half", Type::new(DType::Bf16, [6, 40]));
        let old = to(b, old, DType::F32);
        let narrow = to(b, x, DType::Bf16);
        let wide = to(b, narrow, DType::F32);
        let sum = b.add(old, wide);
        let new = to(b, sum, DType::Bf16);
        update(b, "half", new);
        // A maximum has the same bits in any order.
        let rows = b.op(Op::Reduce { kind: ReduceKind::Max, axes: vec![1] }, &[wide]);
        let rows = to(b, rows, DType::Bf16);
        vec![("narrow", narrow), ("sum", sum), ("rows", rows)]
    })
}

pub fn all() -> Vec<Graph> {
    vec![
        chain(),
        batch_norm([5, 3, 4, 6]),
        batch_norm([64, 2, 11, 9]),
        batch_norm([33, 45, 1, 1]),
        column_statistics(),
        dropout(),
        // Rows of whole words and of none, and columns that begin within a block of draws.
        dropped_images([4, 8, 7, 7]),
        dropped_images([2, 16, 6, 12]),
        dropped_images([3, 5, 4, 3]),
        draws(),
        softmax(),
        mean_loss(),
        movements(),
        optimiser(),
        scalar_operations(),
        bf16(),
    ]
}
