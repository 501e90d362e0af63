//! Convolutions of images of few channels as convolutions of their windows.

use super::rewrite::replace;
use super::{PassContext, Report};
use crate::ir::{Graph, NodeId, Op, Type, Window, added, infer};

/// Channels that tensor cores take at once, at least: with fewer in a tile most of it would be empty.
const LEAST: usize = 16;
/// Taps come in multiples of this many, so that a pixel's windows can be copied 16 bytes at a time, also as bf16.
const RUN: usize = 8;
/// Windows may have a pixel in common as often as those of a 4x4 kernel do: more would take much memory, and the sum of so many
/// taps long.
const MOST_TIMES: usize = 16;
/// Most taps.
const MOST_TAPS: usize = 256;

/// Computes convolutions of images of few channels, such as grey ones, as 1x1 convolutions of their windows
/// ([`Op::Im2col`]), whose channels are the taps, where [`PassContext::im2col`] asks for it. So the three products of such
/// a layer are as deep or as wide as tensor cores want them, and the gradient in the images ([`Op::Col2im`]) reads its
/// operand once, not once for each tap.
///
/// ```text
///                                                    %c: f32[8,16,14,14] = im2col %x stride=[2,2] …
///                                                    %f: f32[64,16,1,1] = reshape %w
/// %y: f32[8,64,14,14] = conv2d %x %w …          →    %y: f32[8,64,14,14] = conv2d %c %f stride=[1,1] …
/// %dx: f32[8,1,28,28] = conv2d_input_grad %dy %w …   %dc: f32[8,16,14,14] = conv2d_input_grad %dy %f …
///                                                    %dx: f32[8,1,28,28] = col2im %dc …
/// %dw: f32[64,1,4,4] = conv2d_filter_grad %x %dy …   %df: f32[64,16,1,1] = conv2d_filter_grad %c %dy …
///                                                    %dw: f32[64,1,4,4] = reshape %df
/// ```
///
/// Windows take more memory than images, as many times as windows have a pixel in common. Images of many channels stay
/// as they are, and so do large kernels.
pub fn im2col(graph: &mut Graph, context: &PassContext) -> Report {
    let nodes_before = graph.len();
    let mut changed = 0;
    if context.im2col {
        for id in graph.topological() {
            changed += usize::from(rewrite(graph, id).is_some());
        }
    }
    Report::new(changed, nodes_before, graph)
}

/// That of a 1x1 convolution.
const POINTWISE: Window = Window { stride: [1; 2], pad: [0; 2] };

fn rewrite(graph: &mut Graph, id: NodeId) -> Option<()> {
    let op = graph.op(id).clone();
    let (Op::Conv2d { window } | Op::Conv2dInputGrad { window, .. } | Op::Conv2dFilterGrad { window, .. }) = op else {
        return None;
    };
    let [first, second] = <[NodeId; 2]>::try_from(graph.operands(id)).ok()?;
    let shape = |graph: &Graph, id: NodeId| <[usize; 4]>::try_from(graph.shape(id)).ok();
    // Images, the filter's size, and channels of the output.
    let (images, filter) = match op {
        Op::Conv2d { .. } => (shape(graph, first)?, shape(graph, second)?),
        Op::Conv2dInputGrad { .. } => (shape(graph, id)?, shape(graph, second)?),
        _ => (shape(graph, first)?, shape(graph, id)?),
    };
    let [o, c, down, across] = filter;
    let kernel = [down, across];
    let taps = c * down * across;
    let size = [images[2], images[3]];
    let is_small = c < LEAST && o >= LEAST && (LEAST..=MOST_TAPS).contains(&taps) && taps.is_multiple_of(RUN);
    let [times, strides] = [kernel, window.stride].map(|[down, across]| down * across);
    if !is_small || times > MOST_TIMES * strides {
        return None;
    }
    // Where there would be too many windows for a tensor, it stays as it is.
    let columns_op = Op::Im2col { window, kernel };
    infer(&columns_op, &[&Type::f32(images)]).ok()?;
    let new = match op {
        Op::Conv2d { .. } => {
            let columns = existing_or_added(graph, first, columns_op, "im2col");
            let filter = existing_or_added(graph, second, Op::Reshape { to: vec![o, taps, 1, 1] }, "taps");
            added(graph, id, Op::Conv2d { window: POINTWISE }, &[columns, filter], "product")
        }
        Op::Conv2dInputGrad { .. } => {
            if (0..2).any(|d| !size[d].is_multiple_of(window.stride[d])) {
                return None;
            }
            let filter = existing_or_added(graph, second, Op::Reshape { to: vec![o, taps, 1, 1] }, "taps");
            let windows = [graph.shape(first)[2], graph.shape(first)[3]];
            let product = Op::Conv2dInputGrad { window: POINTWISE, size: windows };
            let product = added(graph, id, product, &[first, filter], "product");
            added(graph, id, Op::Col2im { window, kernel, size }, &[product], "col2im")
        }
        _ => {
            let columns = existing_or_added(graph, first, columns_op, "im2col");
            let product = Op::Conv2dFilterGrad { window: POINTWISE, kernel: [1; 2] };
            let product = added(graph, id, product, &[columns, second], "product");
            added(graph, id, Op::Reshape { to: filter.to_vec() }, &[product], "taps")
        }
    };
    replace(graph, id, new);
    Some(())
}

/// What an operation makes of a value: the node that is there, or a new one.
fn existing_or_added(graph: &mut Graph, operand: NodeId, op: Op, suffix: &str) -> NodeId {
    let found = graph.users(operand).into_iter().find(|&user| *graph.op(user) == op);
    found.unwrap_or_else(|| added(graph, operand, op, &[operand], suffix))
}
