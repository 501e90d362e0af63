//! Layers for images: convolutions and pooling.

use super::diagnostic::Diagnostic;
use super::entry::EntryLowering;
use super::layers::Layer;
use super::ron::decode::Args;
use super::ron::{Node, Value};
use crate::ir::{NodeId, Op, ReduceKind, Window};
use crate::scalar::ScalarOp;

/// What these layers take, in words.
const IMAGES: &str = "images [batch, channels, height, width]";

impl<'n> EntryLowering<'_, '_, 'n> {
    /// One size for both dimensions, or a list of two.
    fn pair(&mut self, node: &Node, what: &str, least: usize) -> Option<[usize; 2]> {
        let pair = match &node.value {
            Value::List(items) | Value::Tuple { name: None, items } if items.len() == 2 => {
                let sizes = [self.whole(&items[0], what), self.whole(&items[1], what)];
                [sizes[0]?, sizes[1]?]
            }
            _ => [self.whole(node, what)?; 2],
        };
        if pair.iter().all(|&p| p >= least) {
            return Some(pair);
        }
        let diagnostic =
            Diagnostic::new("bad-value", format!("{what} must be at least {least}")).label(node.span, "too small");
        self.d().report(diagnostic);
        None
    }

    /// A whole number from 0, or the name of a size.
    fn whole(&mut self, node: &Node, what: &str) -> Option<usize> {
        match node.value {
            Value::Int(0) => Some(0),
            _ => self.size_of(node, what),
        }
    }

    /// A convolution, or its transpose, which is the gradient of a convolution in its input. Weights are laid
    /// out as PyTorch has them: `[out, in, height, width]`, transposed `[in, out, height, width]`.
    pub fn conv(&mut self, layer: &Layer, mut args: Args<'n>, x: NodeId, is_transposed: bool) -> Option<NodeId> {
        let channels = args.required(self.d(), "channels");
        let kernel = args.required(self.d(), "kernel");
        let stride = args.optional("stride");
        let pad = args.optional("pad");
        let bias = self.bias_wanted(&mut args);
        args.finish(self.d());
        let channels = channels.and_then(|n| self.size_of(n, "the number of channels"));
        let kernel = kernel.and_then(|n| self.pair(n, "the kernel", 1));
        let stride = stride.map_or(Some([1, 1]), |n| self.pair(n, "the stride", 1));
        let pad = pad.map_or(Some([0, 0]), |n| self.pair(n, "the padding", 0));
        let (channels, kernel, window) = (channels?, kernel?, Window { stride: stride?, pad: pad? });
        self.expect_rank(layer, x, 4, IMAGES, "`Reshape([channels, height, width])` in front of it makes images")?;
        let [_, input, height, width] = self.graph.shape(x)[..] else { return None };
        let fans = (input + channels) as f64 * kernel[0] as f64 * kernel[1] as f64;
        let (from, to) = if is_transposed { (input, channels) } else { (channels, input) };
        let shape = vec![from, to, kernel[0], kernel[1]];
        let y = if is_transposed {
            // Sizes are below 2^31, so nothing overflows.
            let size = |d: usize, n: usize| ((n - 1) * window.stride[d] + kernel[d]).checked_sub(2 * window.pad[d]);
            let (Some(height @ 1..), Some(width @ 1..)) = (size(0, height), size(1, width)) else {
                let diagnostic = Diagnostic::new("shape-mismatch", "nothing is left of the image")
                    .label(layer.span, format!("its input is {}", self.graph.ty(x)))
                    .help("the padding takes away all that the kernel adds");
                self.d().report(diagnostic);
                return None;
            };
            let weight = self.weight(layer, shape, fans)?;
            self.add(Op::Conv2dInputGrad { window, size: [height, width] }, &[x, weight], "conv_transpose", layer.span)?
        } else {
            let weight = self.weight(layer, shape, fans)?;
            self.add(Op::Conv2d { window }, &[x, weight], "conv", layer.span)?
        };
        if bias { self.add_bias(layer, y) } else { Some(y) }
    }

    /// Windows of `size` × `size` that do not overlap.
    pub fn pool(&mut self, layer: &Layer, mut args: Args<'n>, x: NodeId) -> Option<NodeId> {
        let size = args.required(self.d(), "size");
        args.finish(self.d());
        let size = self.size_of(size?, "the size")?;
        let span = layer.span;
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
        let kind = if layer.name == "MaxPool" { ReduceKind::Max } else { ReduceKind::Sum };
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
