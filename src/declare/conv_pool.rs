//! Layers for images: convolutions and pooling.

use super::diagnostic::Diagnostic;
use super::layers::Layer;
use super::nodes::Nodes;
use crate::ir::{NodeId, Op, ReduceKind, Window};
use crate::scalar::ScalarOp;

/// What these layers take, in words.
const IMAGES: &str = "images [batch, channels, height, width]";

impl Nodes<'_> {
    /// A convolution, or its transpose, which is the gradient of a convolution in its input. Weights are laid
    /// out as PyTorch has them: `[out, in, height, width]`, transposed `[in, out, height, width]`.
    pub fn conv(
        &mut self,
        layer: &Layer,
        channels: usize,
        kernel: [usize; 2],
        window: Window,
        bias: bool,
        is_transposed: bool,
    ) -> Option<NodeId> {
        let x = layer.input;
        self.expect_rank(layer, x, 4, IMAGES, "`Reshape([channels, height, width])` in front of it makes images")?;
        let [_, input, height, width] = self.graph.shape(x)[..] else { return None };
        let fans = (input + channels) as f64 * kernel[0] as f64 * kernel[1] as f64;
        let (from, to) = if is_transposed { (input, channels) } else { (channels, input) };
        let shape = vec![from, to, kernel[0], kernel[1]];
        let y = if is_transposed {
            // Sizes are below 2^31, so nothing overflows.
            let size = |d: usize, n: usize| ((n - 1) * window.stride[d] + kernel[d]).checked_sub(2 * window.pad[d]);
            let (Some(height @ 1..), Some(width @ 1..)) = (size(0, height), size(1, width)) else {
                let diagnostic = Diagnostic::new("shape-mismatch", "the output would be empty")
                    .label(layer.span, format!("its input is {}", self.graph.ty(x)))
                    .help("the padding removes everything the kernel adds");
                self.d().report(diagnostic);
                return None;
            };
            let weight = self.weight(layer, shape, fans, 1)?;
            self.add(Op::Conv2dInputGrad { window, size: [height, width] }, &[x, weight], "conv_transpose", layer.span)?
        } else {
            let weight = self.weight(layer, shape, fans, 0)?;
            self.add(Op::Conv2d { window }, &[x, weight], "conv", layer.span)?
        };
        if bias { self.add_bias(layer, y) } else { Some(y) }
    }

    /// Windows of `size` × `size` that do not overlap.
    pub fn pool(&mut self, layer: &Layer, size: usize, kind: ReduceKind) -> Option<NodeId> {
        let (x, span) = (layer.input, layer.span);
        self.expect_rank(layer, x, 4, IMAGES, "pooling is for images")?;
        let [batch, channels, height, width] = self.graph.shape(x)[..] else { return None };
        if height % size != 0 || width % size != 0 {
            let diagnostic = Diagnostic::new("shape-mismatch", format!("windows of {size} do not divide the image"))
                .label(span, format!("its input is {}", self.graph.ty(x)))
                .help(format!("height and width must be multiples of {size}"));
            self.d().report(diagnostic);
            return None;
        }
        let (rows, columns) = (height / size, width / size);
        let windows = Op::Reshape { to: vec![batch, channels, rows, size, columns, size] };
        let windows = self.add(windows, &[x], "windows", span)?;
        let pooled = self.add(
            Op::Reduce { kind, axes: vec![3, 5] },
            &[windows],
            if kind == ReduceKind::Max { "max" } else { "sum" },
            span,
        )?;
        let pooled = self.add(Op::Reshape { to: vec![batch, channels, rows, columns] }, &[pooled], "pooled", span)?;
        if kind == ReduceKind::Max {
            return Some(pooled);
        }
        let inverse = self.constant(1.0 / (size * size) as f64, span)?;
        self.apply_as(ScalarOp::Mul, &[pooled, inverse], "mean", span)
    }
}
