//! The vector–Jacobian product of every operation: one table.
//!
//! For `y = op(x…)` inside a computation of a scalar `L`, a rule takes `dy = ∂L/∂y` and gives
//! `∂L/∂x` for each operand. Each rule of a linear operation is its adjoint: the map `A*` with
//! `⟨dy, A x⟩ = ⟨A* dy, x⟩`.

use super::partials;
use crate::ir::{Builder, DType, Graph, NodeId, Op, ReduceKind};
use crate::scalar::ScalarOp;

/// Whether a derivative passes from node `id` to its operand number `operand`. It does not where the
/// operand is an integer, nor where the result is constant between jumps, as a comparison is.
pub fn flows(graph: &Graph, id: NodeId, operand: usize) -> bool {
    match graph.op(id) {
        Op::Scalar(op) => partials::exists(*op, operand),
        Op::Detach => false,
        _ => graph.ty(graph.operands(id)[operand]).dtype.is_real(),
    }
}

/// The adjoints of the operands of node `id`, whose own adjoint is `dy`.
///
/// One entry an operand; `None` where `needed` is false. Only nodes for needed operands are built.
pub(super) fn vjp(b: &mut Builder<'_>, id: NodeId, dy: NodeId, needed: &[bool]) -> Vec<Option<NodeId>> {
    let op = b.graph.op(id).clone();
    let operands = b.graph.operands(id);
    let shape = |b: &Builder<'_>, i: usize| b.shape(operands[i]);
    match op {
        Op::Input { .. } | Op::State { .. } | Op::Constant { .. } | Op::Iota { .. } => vec![],
        Op::Random { .. } => vec![None, None],
        Op::Detach => vec![None],
        Op::Scalar(op) => partials::vjp(b, op, &operands, id, dy, needed),

        Op::Reshape { .. } => {
            let to = shape(b, 0);
            vec![Some(b.reshape(dy, &to))]
        }
        Op::Transpose { permutation } => {
            let mut inverse = vec![0; permutation.len()];
            for (result, &operand) in permutation.iter().enumerate() {
                inverse[operand] = result;
            }
            vec![Some(b.transpose(dy, &inverse))]
        }
        // An element that was repeated collects from all its copies.
        Op::Broadcast { to } => {
            let from = shape(b, 0);
            let axes: Vec<usize> = (0..to.len()).filter(|&axis| from[axis] != to[axis]).collect();
            // Sums are taken in f32.
            let dtype = b.graph.ty(dy).dtype;
            let dy = convert(b, dy, DType::F32);
            let sum = b.sum(dy, &axes);
            vec![Some(convert(b, sum, dtype))]
        }
        Op::Pad { low, .. } => {
            let end = low.iter().zip(shape(b, 0)).map(|(l, size)| l + size).collect();
            vec![Some(b.op(Op::Slice { start: low, end }, &[dy]))]
        }
        Op::Slice { start, end } => {
            let high = shape(b, 0).iter().zip(end).map(|(size, e)| size - e).collect();
            vec![Some(b.op(Op::Pad { low: start, high }, &[dy]))]
        }
        Op::Concat { axis } => {
            let (mut start, mut end) = (vec![0; b.graph.shape(id).len()], b.shape(id));
            let mut parts = Vec::with_capacity(operands.len());
            for (i, &needed) in needed.iter().enumerate() {
                end[axis] = start[axis] + shape(b, i)[axis];
                let slice = Op::Slice { start: start.clone(), end: end.clone() };
                parts.push(needed.then(|| b.op(slice, &[dy])));
                start[axis] = end[axis];
            }
            parts
        }
        Op::Reverse { axes } => vec![Some(b.op(Op::Reverse { axes }, &[dy]))],

        // Straight through: the steps of rounding have no derivative of their own.
        Op::Convert { .. } => {
            let back = b.graph.ty(operands[0]).dtype;
            vec![Some(convert(b, dy, back))]
        }

        Op::Reduce { kind: ReduceKind::Sum, .. } => {
            let to = shape(b, 0);
            vec![Some(b.broadcast(dy, &to))]
        }
        // Elements that tie for the maximum share its gradient equally.
        Op::Reduce { kind: ReduceKind::Max, axes } => {
            let (x, to) = (operands[0], shape(b, 0));
            let maximum = b.broadcast(id, &to);
            let is_maximum = b.scalar(ScalarOp::Eq, &[x, maximum]);
            let ties = b.sum(is_maximum, &axes);
            let share = b.div(dy, ties);
            let share = b.broadcast(share, &to);
            vec![Some(b.mul(share, is_maximum))]
        }
        // That the mean moves too does not matter: deviations from it sum to nothing.
        Op::Reduce { kind: ReduceKind::Deviations, axes } => {
            let (x, to) = (operands[0], shape(b, 0));
            let mean = b.mean(x, &axes);
            let mean = b.broadcast(mean, &to);
            let centred = b.sub(x, mean);
            let twice = b.scale(dy, 2.0);
            let twice = b.broadcast(twice, &to);
            vec![Some(b.mul(twice, centred))]
        }

        Op::MatMul => {
            let (x, w) = (operands[0], operands[1]);
            let dx = needed[0].then(|| {
                let transposed = transpose_last(b, w);
                b.matmul(dy, transposed)
            });
            let dw = needed[1].then(|| {
                let transposed = transpose_last(b, x);
                b.matmul(transposed, dy)
            });
            vec![dx, dw]
        }

        // The three convolutions are the three partial maps of one trilinear form in input, filter
        // and output gradient, ⟨g, conv2d(x, w)⟩ = ⟨x, input_grad(g, w)⟩ = ⟨w, filter_grad(x, g)⟩,
        // so the adjoint of each is one of the other two.
        Op::Conv2d { window } => {
            let (x, w) = (operands[0], operands[1]);
            let (size, kernel) = (image_size(b, x), image_size(b, w));
            vec![
                needed[0].then(|| b.op(Op::Conv2dInputGrad { window, size }, &[dy, w])),
                needed[1].then(|| b.op(Op::Conv2dFilterGrad { window, kernel }, &[x, dy])),
            ]
        }
        Op::Conv2dInputGrad { window, .. } => {
            let (g, w) = (operands[0], operands[1]);
            let kernel = image_size(b, w);
            vec![
                needed[0].then(|| b.op(Op::Conv2d { window }, &[dy, w])),
                needed[1].then(|| b.op(Op::Conv2dFilterGrad { window, kernel }, &[dy, g])),
            ]
        }
        Op::Conv2dFilterGrad { window, .. } => {
            let (x, g) = (operands[0], operands[1]);
            let size = image_size(b, x);
            vec![
                needed[0].then(|| b.op(Op::Conv2dInputGrad { window, size }, &[g, dy])),
                needed[1].then(|| b.op(Op::Conv2d { window }, &[x, dy])),
            ]
        }

        // Linear, and each other's adjoint. Images whose sizes are no multiples of the strides have some more rows and columns
        // meanwhile, and windows that have no element are not there.
        Op::Im2col { window, kernel } => {
            let from = shape(b, 0);
            let size = [0, 1].map(|d| from[d + 2].next_multiple_of(window.stride[d]));
            let images = b.op(Op::Col2im { window, kernel, size }, &[dy]);
            vec![Some(b.op(Op::Slice { start: vec![0; 4], end: from }, &[images]))]
        }
        Op::Col2im { window, kernel, .. } => {
            let to = shape(b, 0);
            let windows = b.op(Op::Im2col { window, kernel }, &[dy]);
            vec![Some(b.op(Op::Slice { start: vec![0; 4], end: to }, &[windows]))]
        }
        Op::Winograd(transform) => vec![Some(b.op(Op::Winograd(transform.adjoint()), &[dy]))],

        Op::Gradient => unreachable!("gradients are expanded operands first"),
    }
}

/// `x` as that type.
pub(super) fn convert(b: &mut Builder<'_>, x: NodeId, to: DType) -> NodeId {
    if b.graph.ty(x).dtype == to { x } else { b.op(Op::Convert { to }, &[x]) }
}

/// `x` with its last two dimensions swapped.
fn transpose_last(b: &mut Builder<'_>, x: NodeId) -> NodeId {
    let rank = b.graph.shape(x).len();
    let mut permutation: Vec<usize> = (0..rank).collect();
    permutation.swap(rank - 2, rank - 1);
    b.transpose(x, &permutation)
}

/// Height and width of a tensor of rank 4.
fn image_size(b: &Builder<'_>, x: NodeId) -> [usize; 2] {
    let shape = b.graph.shape(x);
    [shape[2], shape[3]]
}
