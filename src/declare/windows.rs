//! Windows that slide over images: convolutions and pooling in one, two or three dimensions, with any padding, stride
//! and dilation, expanded to the plain two-dimensional ones, to slices and to padding.

use super::diagnostic::Span;
use super::nodes::Nodes;
use super::rows::Pads;
use crate::ir::{DType, NodeId, Op, ReduceKind, Window};
use crate::scalar::ScalarOp;

/// What is between the elements of a window, between windows, and around images: as it was written.
#[derive(Debug, Clone)]
pub struct Spacing {
    /// One for each dimension of an image, or one for all.
    pub stride: Vec<usize>,
    pub pads: Pads,
    pub dilation: Vec<usize>,
}

/// A window along one dimension of an image.
#[derive(Debug, Clone, Copy)]
struct Sides {
    kernel: usize,
    stride: usize,
    dilation: usize,
    low: usize,
    high: usize,
}

impl Sides {
    /// From a window's first element to its last.
    fn reach(&self) -> usize {
        (self.kernel - 1).saturating_mul(self.dilation).saturating_add(1)
    }

    /// How often the window fits into so many elements and the padding. With `ceil` the last window may go beyond the
    /// end, but not start there.
    fn count(&self, size: usize, ceil: bool) -> Option<usize> {
        let room = size.saturating_add(self.low).saturating_add(self.high).checked_sub(self.reach())?;
        let rounded = if ceil { room.div_ceil(self.stride) } else { room / self.stride };
        let beyond = ceil && rounded * self.stride >= size + self.low;
        Some(rounded + 1 - usize::from(beyond))
    }
}

/// What pooling makes of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    Max,
    /// With padding counted as zeros, or not.
    Average {
        padded: bool,
    },
    Sum,
}

impl Nodes<'_> {
    /// The element of a list with one for each dimension, or one for all; reports a list of another length.
    fn each(&mut self, list: &[usize], dimensions: usize, (x, what): (NodeId, &str), span: Span) -> Option<Vec<usize>> {
        match list.len() {
            1 => Some(vec![list[0]; dimensions]),
            n if n == dimensions => Some(list.to_vec()),
            n => {
                let help = format!("give one for each of {dimensions} dimensions, or one for all");
                self.misfit(x, format!("`{what}` has {n} numbers"), help, span);
                None
            }
        }
    }

    /// The windows along each dimension of images of these sizes.
    fn sides(&mut self, x: NodeId, kernel: &[usize], spacing: &Spacing, span: Span) -> Option<Vec<Sides>> {
        let sizes = self.shape(x)[2..].to_vec();
        let count = sizes.len();
        let stride = self.each(&spacing.stride, count, (x, "stride"), span)?;
        let dilation = self.each(&spacing.dilation, count, (x, "dilation"), span)?;
        let mut sides: Vec<Sides> = (0..count)
            .map(|d| Sides { kernel: kernel[d], stride: stride[d], dilation: dilation[d], low: 0, high: 0 })
            .collect();
        match &spacing.pads {
            Pads::Sides(pads) if pads.len() == 2 * count && count > 0 => {
                sides.iter_mut().enumerate().for_each(|(d, side)| (side.low, side.high) = (pads[d], pads[count + d]));
            }
            Pads::Sides(pads) => {
                let pads = self.each(pads, count, (x, "pad"), span)?;
                sides.iter_mut().zip(pads).for_each(|(side, pad)| (side.low, side.high) = (pad, pad));
            }
            same => {
                for (side, size) in sides.iter_mut().zip(sizes) {
                    let last = (size.div_ceil(side.stride) - 1).saturating_mul(side.stride);
                    let total = last.saturating_add(side.reach()).saturating_sub(size);
                    side.low = if *same == Pads::Same { total / 2 } else { total - total / 2 };
                    side.high = total - side.low;
                }
            }
        }
        Some(sides)
    }

    /// Reports parts that are too many to be computed one by one.
    pub fn limit_parts(&mut self, x: NodeId, count: usize, what: &str, span: Span) -> Option<()> {
        const MOST: usize = 1024;
        if count <= MOST {
            return Some(());
        }
        self.misfit(
            x,
            format!("{count} {what} are too many"),
            format!("each is computed by itself; {MOST} are the most"),
            span,
        );
        None
    }

    /// Reports what is not images with one to three dimensions.
    fn expect_pixels(&mut self, x: NodeId, span: Span) -> Option<usize> {
        let dimensions = self.shape(x).len().saturating_sub(2);
        if (1..=3).contains(&dimensions) {
            return Some(dimensions);
        }
        self.misfit(
            x,
            "images [batch, channels, height, width] are expected",
            "or one or three dimensions instead of two",
            span,
        );
        None
    }

    fn expect_weight(&mut self, x: NodeId, weight: NodeId, [input, groups]: [usize; 2], span: Span) -> Option<()> {
        let (shape, of) = (self.shape(x).to_vec(), self.shape(weight).to_vec());
        let help = "a filter is [channels out, channels in / groups, height, width], of a transposed convolution \
                    [channels in, channels out / groups, height, width]";
        let fits = of.len() == shape.len() && of[0].is_multiple_of(groups) && input == shape[1];
        if !fits {
            let message = format!("the filter {} does not fit, in {groups} groups", self.ty(weight));
            self.misfit(x, message, help, span);
            return None;
        }
        Some(())
    }

    /// A convolution of images `[batch, channels, ...]` with a filter `[out, channels / groups, ...]`.
    pub fn convolution(
        &mut self,
        x: NodeId,
        weight: NodeId,
        spacing: &Spacing,
        groups: usize,
        span: Span,
    ) -> Option<NodeId> {
        let dimensions = self.expect_pixels(x, span)?;
        let of = self.shape(weight).to_vec();
        self.expect_weight(x, weight, [of.get(1).map_or(0, |c| c.saturating_mul(groups)), groups], span)?;
        let sides = self.sides(x, &of[2..], spacing, span)?;
        if groups != self.shape(x)[1] {
            self.limit_parts(x, groups, "groups", span)?;
        }
        match dimensions {
            1 => {
                let (x, weight) = (self.unsqueezed(x, span)?, self.unsqueezed(weight, span)?);
                let flat = Sides { kernel: 1, stride: 1, dilation: 1, low: 0, high: 0 };
                let y = self.convolution_2d(x, weight, [flat, sides[0]], groups, span)?;
                self.squeezed(y, 2, span)
            }
            2 => self.convolution_2d(x, weight, [sides[0], sides[1]], groups, span),
            _ => self.convolution_3d(x, weight, &sides, groups, span),
        }
    }

    /// `[n, c, l]` as `[n, c, 1, l]`.
    fn unsqueezed(&mut self, x: NodeId, span: Span) -> Option<NodeId> {
        let mut to = self.shape(x).to_vec();
        to.insert(2, 1);
        self.reshaped(x, to, span)
    }

    /// A filter with its elements as far apart as a dilation says.
    fn dilated(&mut self, weight: NodeId, sides: [Sides; 2], span: Span) -> Option<NodeId> {
        let weight = self.spaced(weight, 2, sides[0].dilation, span)?;
        self.spaced(weight, 3, sides[1].dilation, span)
    }

    fn convolution_2d(
        &mut self,
        x: NodeId,
        weight: NodeId,
        sides: [Sides; 2],
        groups: usize,
        span: Span,
    ) -> Option<NodeId> {
        let channels = self.shape(x)[1];
        if groups > 1 && groups == channels {
            return self.depthwise(x, weight, sides, span);
        }
        let weight = self.dilated(weight, sides, span)?;
        // What both sides have is the convolution's own padding; what one has more is added to the image.
        let pad = sides.map(|side| side.low.min(side.high));
        let mut x = x;
        for (d, side) in sides.into_iter().enumerate() {
            x = self.padded(x, 2 + d, [side.low - pad[d], side.high - pad[d]], span)?;
        }
        let window = Window { stride: sides.map(|side| side.stride), pad };
        let parts = self.grouped(groups, [(x, 1), (weight, 0)], span)?;
        let results = (parts.into_iter())
            .map(|[x, weight]| self.add(Op::Conv2d { window }, &[x, weight], "conv", span))
            .collect::<Option<Vec<_>>>()?;
        self.joined(&results, 1, span)
    }

    /// Equal parts of two tensors, each along a dimension of its own.
    fn grouped(&mut self, groups: usize, of: [(NodeId, usize); 2], span: Span) -> Option<Vec<[NodeId; 2]>> {
        let part = |n: &mut Self, (x, axis): (NodeId, usize), group: usize| {
            let size = n.shape(x)[axis] / groups;
            n.sliced(x, axis, [group * size, (group + 1) * size], span)
        };
        (0..groups).map(|group| Some([part(self, of[0], group)?, part(self, of[1], group)?])).collect()
    }

    /// A filter for each channel by itself: for each of its elements, the pixels that it meets times the element.
    fn depthwise(&mut self, x: NodeId, weight: NodeId, sides: [Sides; 2], span: Span) -> Option<NodeId> {
        let &[n, channels, height, width] = self.shape(x) else { return None };
        let out = [sides[0].count(height, false), sides[1].count(width, false)];
        let [Some(rows), Some(columns)] = out else {
            self.misfit(x, "the filter does not fit into the images", "make the padding larger", span);
            return None;
        };
        let mut image = x;
        for (d, side) in sides.into_iter().enumerate() {
            image = self.padded(image, 2 + d, [side.low, side.high], span)?;
        }
        self.limit_parts(
            x,
            sides[0].kernel.saturating_mul(sides[1].kernel),
            "elements of a filter for each channel",
            span,
        )?;
        let many = self.shape(weight)[0] / channels;
        let mut sum: Option<NodeId> = None;
        for row in 0..sides[0].kernel {
            let line = self.stepped(image, 2, (row * sides[0].dilation, rows, sides[0].stride), span)?;
            for column in 0..sides[1].kernel {
                let pixels = self.stepped(line, 3, (column * sides[1].dilation, columns, sides[1].stride), span)?;
                let pixels = self.reshaped(pixels, vec![n, channels, 1, rows, columns], span)?;
                let factor = self.sliced(weight, 2, [row, row + 1], span)?;
                let factor = self.sliced(factor, 3, [column, column + 1], span)?;
                let factor = self.reshaped(factor, vec![1, channels, many, 1, 1], span)?;
                let product = self.apply(ScalarOp::Mul, &[pixels, factor], span)?;
                sum = Some(self.combined(ScalarOp::Add, sum, product, ScalarOp::Add.name(), span)?);
            }
        }
        self.reshaped(sum?, vec![n, channels * many, rows, columns], span)
    }

    /// `[n, c, d, h, w]` as `[n·d, c, h, w]`.
    fn layers_first(&mut self, x: NodeId, span: Span) -> Option<NodeId> {
        let &[n, c, d, h, w] = self.shape(x) else { return None };
        let x = self.permuted(x, vec![0, 2, 1, 3, 4], span)?;
        self.reshaped(x, vec![n * d, c, h, w], span)
    }

    fn layers_last(&mut self, x: NodeId, examples: usize, span: Span) -> Option<NodeId> {
        let &[layers, c, h, w] = self.shape(x) else { return None };
        let x = self.reshaped(x, vec![examples, layers / examples, c, h, w], span)?;
        self.permuted(x, vec![0, 2, 1, 3, 4], span)
    }

    /// One layer of a filter `[o, c, d, h, w]`.
    fn filter_layer(&mut self, weight: NodeId, layer: usize, span: Span) -> Option<NodeId> {
        let weight = self.sliced(weight, 2, [layer, layer + 1], span)?;
        self.squeezed(weight, 2, span)
    }

    /// The sum over the layers of a filter of two-dimensional convolutions of the layers that they meet.
    fn convolution_3d(
        &mut self,
        x: NodeId,
        weight: NodeId,
        sides: &[Sides],
        groups: usize,
        span: Span,
    ) -> Option<NodeId> {
        let (examples, depth) = (self.shape(x)[0], self.shape(x)[2]);
        let Some(count) = sides[0].count(depth, false) else {
            self.misfit(x, "the filter does not fit into the images", "make the padding larger", span);
            return None;
        };
        self.limit_parts(x, sides[0].kernel, "layers of a filter", span)?;
        let x = self.padded(x, 2, [sides[0].low, sides[0].high], span)?;
        let mut sum: Option<NodeId> = None;
        for layer in 0..sides[0].kernel {
            let met = self.stepped(x, 2, (layer * sides[0].dilation, count, sides[0].stride), span)?;
            let (met, filter) = (self.layers_first(met, span)?, self.filter_layer(weight, layer, span)?);
            let y = self.convolution_2d(met, filter, [sides[1], sides[2]], groups, span)?;
            sum = Some(self.combined(ScalarOp::Add, sum, y, ScalarOp::Add.name(), span)?);
        }
        self.layers_last(sum?, examples, span)
    }

    /// The transpose of a convolution: images `[batch, channels, ...]` with a filter `[channels, out / groups, ...]`.
    /// `extra` elements, of which no more than the stride, are added at the end of each dimension.
    pub fn transposed(
        &mut self,
        x: NodeId,
        weight: NodeId,
        spacing: &Spacing,
        (extra, groups): (&[usize], usize),
        span: Span,
    ) -> Option<NodeId> {
        let dimensions = self.expect_pixels(x, span)?;
        let of = self.shape(weight).to_vec();
        self.expect_weight(x, weight, [of.first().copied().unwrap_or(0), groups], span)?;
        self.limit_parts(x, groups, "groups", span)?;
        let extra = self.each(extra, dimensions, (x, "output_padding"), span)?;
        // What is `Same` here is the image times the stride.
        let plain = match &spacing.pads {
            Pads::Sides(_) => spacing.clone(),
            _ => Spacing { pads: Pads::Sides(vec![0]), ..spacing.clone() },
        };
        let mut sides = self.sides(x, &of[2..], &plain, span)?;
        let mut sizes = Vec::new();
        for (d, side) in sides.iter_mut().enumerate() {
            let size = self.shape(x)[2 + d];
            let whole = ((size - 1).saturating_mul(side.stride)).saturating_add(side.reach()).saturating_add(extra[d]);
            if !matches!(spacing.pads, Pads::Sides(_)) {
                let total = whole.saturating_sub(size.saturating_mul(side.stride));
                side.low = if spacing.pads == Pads::Same { total / 2 } else { total - total / 2 };
                side.high = total - side.low;
            }
            match whole.checked_sub(side.low.saturating_add(side.high)) {
                Some(left @ 1..) => sizes.push(left),
                _ => {
                    self.misfit(x, "the output would be empty", "the padding removes everything the kernel adds", span);
                    return None;
                }
            }
        }
        match dimensions {
            1 => {
                let (x, weight) = (self.unsqueezed(x, span)?, self.unsqueezed(weight, span)?);
                let flat = Sides { kernel: 1, stride: 1, dilation: 1, low: 0, high: 0 };
                let y = self.transposed_2d(x, weight, ([flat, sides[0]], [1, sizes[0]]), groups, span)?;
                self.squeezed(y, 2, span)
            }
            2 => self.transposed_2d(x, weight, ([sides[0], sides[1]], [sizes[0], sizes[1]]), groups, span),
            _ => self.transposed_3d(x, weight, (&sides, &sizes), groups, span),
        }
    }

    fn transposed_2d(
        &mut self,
        x: NodeId,
        weight: NodeId,
        (sides, sizes): ([Sides; 2], [usize; 2]),
        groups: usize,
        span: Span,
    ) -> Option<NodeId> {
        let from = [self.shape(x)[2], self.shape(x)[3]];
        let weight = self.dilated(weight, sides, span)?;
        // The image that a convolution with this padding brings to the size of `x`, where there is one.
        let is_plain = (0..2).all(|d| {
            let side = sides[d];
            side.low == side.high
                && Sides { kernel: side.reach(), dilation: 1, ..side }.count(sizes[d], false) == Some(from[d])
        });
        let whole = [0, 1].map(|d| ((from[d] - 1).saturating_mul(sides[d].stride)).saturating_add(sides[d].reach()));
        let (pad, size) = if is_plain { (sides.map(|side| side.low), sizes) } else { ([0; 2], whole) };
        let op = Op::Conv2dInputGrad { window: Window { stride: sides.map(|side| side.stride), pad }, size };
        let parts = self.grouped(groups, [(x, 1), (weight, 0)], span)?;
        let results = (parts.into_iter())
            .map(|[x, weight]| self.add(op.clone(), &[x, weight], "conv_transpose", span))
            .collect::<Option<Vec<_>>>()?;
        let mut y = self.joined(&results, 1, span)?;
        for d in (0..2).filter(|_| !is_plain) {
            let end = sides[d].low + sizes[d];
            y = self.padded(y, 2 + d, [0, end.saturating_sub(whole[d])], span)?;
            y = self.sliced(y, 2 + d, [sides[d].low, end], span)?;
        }
        Some(y)
    }

    fn transposed_3d(
        &mut self,
        x: NodeId,
        weight: NodeId,
        (sides, sizes): (&[Sides], &[usize]),
        groups: usize,
        span: Span,
    ) -> Option<NodeId> {
        let (examples, side) = (self.shape(x)[0], sides[0]);
        self.limit_parts(x, side.kernel, "layers of a filter", span)?;
        let flat = self.layers_first(x, span)?;
        let end = side.low + sizes[0];
        let mut sum: Option<NodeId> = None;
        for layer in 0..side.kernel {
            let filter = self.filter_layer(weight, layer, span)?;
            let y = self.transposed_2d(flat, filter, ([sides[1], sides[2]], [sizes[1], sizes[2]]), groups, span)?;
            let y = self.layers_last(y, examples, span)?;
            let y = self.spaced(y, 2, side.stride, span)?;
            let start = layer * side.dilation;
            let y = self.padded(y, 2, [start, end.saturating_sub(start + self.shape(y)[2])], span)?;
            let y = self.sliced(y, 2, [side.low, end], span)?;
            sum = Some(self.combined(ScalarOp::Add, sum, y, ScalarOp::Add.name(), span)?);
        }
        sum
    }

    /// Pools windows of `kernel` elements; without a stride they do not overlap. With `ceil`, a last window may go
    /// beyond the padding.
    pub fn pooled(
        &mut self,
        x: NodeId,
        (kernel, ceil): (&[usize], bool),
        spacing: &Spacing,
        pooling: Pooling,
        span: Span,
    ) -> Option<NodeId> {
        let dimensions = self.expect_pixels(x, span)?;
        let kernel = self.each(kernel, dimensions, (x, "size"), span)?;
        let stride = if spacing.stride.is_empty() { kernel.clone() } else { spacing.stride.clone() };
        let sides = self.sides(x, &kernel, &Spacing { stride, ..spacing.clone() }, span)?;
        let sizes = self.shape(x)[2..].to_vec();
        let mut counts = Vec::new();
        for (side, &size) in sides.iter().zip(&sizes) {
            match side.count(size, ceil) {
                Some(count) if side.low.max(side.high) < side.reach() => counts.push(count),
                None => {
                    let message = format!("a window of {} does not fit into {size} pixels", side.reach());
                    self.misfit(x, message, "make the window smaller, or the padding larger", span);
                    return None;
                }
                _ => {
                    self.misfit(
                        x,
                        "a window would be on padding alone",
                        "the padding must be smaller than the window",
                        span,
                    );
                    return None;
                }
            }
        }
        let value = self.window_reductions(x, &sides, &counts, pooling, span)?;
        let Pooling::Average { padded } = pooling else { return Some(value) };
        // How many elements each window has, along each dimension.
        let mut factor = 1.0;
        let mut value = value;
        for (d, side) in sides.iter().enumerate() {
            let [from, to] =
                if padded { [0, side.low + sizes[d] + side.high] } else { [side.low, side.low + sizes[d]] };
            let elements = |window: usize| {
                let places = (0..side.kernel).map(|i| window * side.stride + i * side.dilation);
                places.filter(|place| (from..to).contains(place)).count()
            };
            let each: Vec<usize> = (0..counts[d]).map(elements).collect();
            if each.iter().all(|&n| n == each[0]) {
                factor /= each[0] as f64;
                continue;
            }
            let inverse = self.vector(&each.iter().map(|&n| 1.0 / n as f64).collect::<Vec<_>>(), span)?;
            let mut to = vec![1; dimensions + 2];
            to[2 + d] = counts[d];
            let inverse = self.reshaped(inverse, to, span)?;
            value = self.apply_as(ScalarOp::Mul, &[value, inverse], "mean", span)?;
        }
        let factor = self.constant(factor, span)?;
        self.apply_as(ScalarOp::Mul, &[value, factor], "mean", span)
    }

    /// A vector of numbers, from runs of equal ones.
    pub fn vector(&mut self, numbers: &[f64], span: Span) -> Option<NodeId> {
        let runs = numbers.chunk_by(|a, b| a == b);
        let parts = runs.map(|run| self.add(Op::constant(run[0], DType::F32, [run.len()]), &[], "numbers", span));
        let parts = parts.collect::<Option<Vec<_>>>()?;
        self.joined(&parts, 0, span)
    }

    /// The largest of each window, or its sum: dimension by dimension, or at once where windows lie side by side.
    fn window_reductions(
        &mut self,
        x: NodeId,
        sides: &[Sides],
        counts: &[usize],
        pooling: Pooling,
        span: Span,
    ) -> Option<NodeId> {
        let shape = self.shape(x).to_vec();
        let (kind, op, outside) = match pooling {
            Pooling::Max => (ReduceKind::Max, ScalarOp::Max, f64::NEG_INFINITY),
            _ => (ReduceKind::Sum, ScalarOp::Add, 0.0),
        };
        let side_by_side = sides.iter().zip(counts).zip(&shape[2..]).all(|((side, &count), &size)| {
            side.low == 0 && side.stride == side.kernel && side.dilation == 1 && count * side.kernel == size
        });
        if side_by_side {
            let (mut split, mut axes) = (shape[..2].to_vec(), Vec::new());
            for (side, &count) in sides.iter().zip(counts) {
                split.extend([count, side.kernel]);
                axes.push(split.len() - 1);
            }
            let windows = self.add(Op::Reshape { to: split }, &[x], "windows", span)?;
            let pooled = self.add(Op::Reduce { kind, axes }, &[windows], kind.name(), span)?;
            return self.add(Op::Reshape { to: [&shape[..2], counts].concat() }, &[pooled], "pooled", span);
        }
        let longest = sides.iter().map(|side| side.kernel).max().unwrap_or(0);
        self.limit_parts(x, longest, "elements of a window that meets others", span)?;
        let mut value = x;
        for (d, (side, &count)) in sides.iter().zip(counts).enumerate() {
            let axis = 2 + d;
            // From the start of the first window to the end of the last.
            let needed = (count - 1) * side.stride + side.reach();
            let size = shape[axis] + side.low;
            value = self.filled(value, axis, [side.low, needed.saturating_sub(size)], outside, span)?;
            let mut pooled: Option<NodeId> = None;
            for i in 0..side.kernel {
                let next = self.stepped(value, axis, (i * side.dilation, count, side.stride), span)?;
                pooled = Some(self.combined(op, pooled, next, op.name(), span)?);
            }
            value = pooled?;
        }
        Some(value)
    }
}
