//! Operations on images, with their filters as values, and resizing.

use super::diagnostic::Span;
use super::nodes::Nodes;
use super::ops::Expand;
use super::rows::{Arg, Kind, Pads, Param, Row, rows};
use super::windows::{Pooling, Spacing};
use crate::ir::{NodeId, Op, ReduceKind};
use crate::scalar::ScalarOp;

rows! {
    /// Operations on images `[batch, channels, height, width]`, or with one or three dimensions instead of two.
    IMAGES: Expand; |n, at|
    /// A convolution with a filter [channels out, channels in / groups, height, width] and one `bias` for each channel.
    Conv(
        x: Value, weight: Value, bias: MaybeValue = None, stride: Lengths = vec![1], pad: Pads = Pads::Sides(vec![0]),
        dilation: Lengths = vec![1], groups: Size = 1
    ), r#"Conv(x: "images", weight: Normal([2, 1, 3, 3]), pad: Same)"# => {
        let y = n.convolution(x, weight, &Spacing { stride, pads: pad, dilation }, groups, at.span)?;
        n.add_by_channel(y, bias, at.span)
    };
    /// A transposed convolution, filter [in, out / groups, height, width]; `output_padding` adds at the end.
    ConvTranspose(
        x: Value, weight: Value, bias: MaybeValue = None, stride: Lengths = vec![1], pad: Pads = Pads::Sides(vec![0]),
        dilation: Lengths = vec![1], groups: Size = 1, output_padding: Amounts = vec![0]
    ), r#"ConvTranspose(x: "images", weight: Normal([1, 2, 3, 3]), stride: 2, pad: 1, output_padding: 1)"# => {
        let y = n.transposed(x, weight, &Spacing { stride, pads: pad, dilation }, (&output_padding, groups), at.span)?;
        n.add_by_channel(y, bias, at.span)
    };
    /// The largest of each window; without a stride windows lie side by side; `ceil` keeps a last one that is cut off.
    MaxPool(
        x: Value, size: Lengths, stride: Lengths = vec![], pad: Pads = Pads::Sides(vec![0]),
        dilation: Lengths = vec![1], ceil: Flag = false
    ), r#"MaxPool(x: "images", size: 3, stride: 2, pad: 1)"# =>
        n.pooled(x, (&size, ceil), &Spacing { stride, pads: pad, dilation }, Pooling::Max, at.span);
    /// The mean of each window of `size`, in which padding counts as zeros with `count_include_pad`.
    AveragePool(
        x: Value, size: Lengths, stride: Lengths = vec![], pad: Pads = Pads::Sides(vec![0]),
        dilation: Lengths = vec![1], ceil: Flag = false, count_include_pad: Flag = false
    ), r#"AveragePool(x: "images", size: 3, stride: 2, pad: 1)"# => {
        let pooling = Pooling::Average { padded: count_include_pad };
        n.pooled(x, (&size, ceil), &Spacing { stride, pads: pad, dilation }, pooling, at.span)
    };
    /// The `p`-norm of each window of `size`.
    LpPool(
        x: Value, size: Lengths, stride: Lengths = vec![], pad: Pads = Pads::Sides(vec![0]),
        dilation: Lengths = vec![1], ceil: Flag = false, p: Positive = 2.0
    ), r#"LpPool(x: "images", size: 2)"# => {
        let size_of = n.apply(ScalarOp::Abs, &[x], at.span)?;
        let power = n.with(ScalarOp::Pow, size_of, p, at.span)?;
        let sum = n.pooled(power, (&size, ceil), &Spacing { stride, pads: pad, dilation }, Pooling::Sum, at.span)?;
        n.above_zero(sum, at.span, |n, sum| n.with(ScalarOp::Pow, sum, 1.0 / p, at.span))
    };
    /// The mean of all pixels of each channel, which stay with size 1.
    GlobalAveragePool(x: Value), r#"GlobalAveragePool("images")"# => {
        let axes = n.pixels(x, at.span)?;
        n.mean_kept(x, &axes, at.span)
    };
    /// The largest of all pixels of each channel, which stay with size 1.
    GlobalMaxPool(x: Value), r#"GlobalMaxPool("images")"# => {
        let axes = n.pixels(x, at.span)?;
        n.reduced(ReduceKind::Max, x, &axes, at.span)
    };
    /// The `p`-norm of all pixels of each channel, which stay with size 1.
    GlobalLpPool(x: Value, p: Positive = 2.0), r#"GlobalLpPool("images")"# => {
        let axes = n.pixels(x, at.span)?;
        let size = n.apply(ScalarOp::Abs, &[x], at.span)?;
        let power = n.with(ScalarOp::Pow, size, p, at.span)?;
        let sum = n.reduced(ReduceKind::Sum, power, &axes, at.span)?;
        n.above_zero(sum, at.span, |n, sum| n.with(ScalarOp::Pow, sum, 1.0 / p, at.span))
    };
    /// Images so many times as high and wide: pixels repeated, or with lines drawn between them (`Linear`: bilinear).
    Upsample(x: Value, scale: Lengths = vec![2], mode: Word(&["Nearest", "Linear"]) = "Nearest"),
        r#"Upsample("images", 2, Linear)"# =>
        n.upsampled(x, &scale, mode == "Linear", at.span);
    /// Other sizes, or sizes times scales, for the last dimensions, as many as are given, or for `axes`.
    Resize(
        x: Value, sizes: Sizes = vec![], mode: Word(&["Nearest", "Linear", "Cubic"]) = "Nearest",
        coordinates: Word(COORDINATES) = "HalfPixel", rounding: Word(ROUNDINGS) = "RoundPreferFloor",
        scales: Numbers = vec![],
        axes: Axes = None, antialias: Flag = false, cubic: Number = -0.75, exclude_outside: Flag = false
    ), r#"Resize("images", [5, 12], Linear)"# => {
        let how = Resizing { mode, coordinates, rounding, antialias, cubic, exclude_outside };
        n.resized(x, (&sizes, &scales), axes, &how, at.span)
    };
}

/// Where a pixel of a resized image lies in the image.
const COORDINATES: &[&str] = &["HalfPixel", "HalfPixelSymmetric", "PytorchHalfPixel", "AlignCorners", "Asymmetric"];
/// Which pixel is nearest to a place.
const ROUNDINGS: &[&str] = &["RoundPreferFloor", "RoundPreferCeil", "Floor", "Ceil"];

/// How a pixel of the result is made of those of an image.
struct Resizing {
    mode: &'static str,
    coordinates: &'static str,
    rounding: &'static str,
    antialias: bool,
    cubic: f64,
    exclude_outside: bool,
}

impl Resizing {
    /// Where pixel `i` of `to` lies among `from` pixels.
    fn place(&self, i: usize, [from, to]: [usize; 2], scale: f64) -> f64 {
        let (i, from_f, to_f) = (i as f64, from as f64, to as f64);
        match self.coordinates {
            // A size that is given by its scale is not rounded here.
            "AlignCorners" if to > 1 => i * (from_f - 1.0) / (scale * from_f - 1.0),
            "AlignCorners" => 0.0,
            "Asymmetric" => i / scale,
            "PytorchHalfPixel" if to == 1 => 0.0,
            "HalfPixelSymmetric" => {
                // The middle of the result on the middle of the image, also where the size was rounded down.
                let adjustment = to_f / (scale * from_f);
                let offset = from_f / 2.0 * (1.0 - adjustment);
                offset + (i + 0.5) / scale - 0.5
            }
            _ => (i + 0.5) / scale - 0.5,
        }
    }

    /// The weight of each of `from` pixels in a pixel that lies at `place`.
    fn weights(&self, place: f64, from: usize, scale: f64) -> Vec<f64> {
        let mut weights = vec![0.0; from];
        let nearest = |index: f64| index.clamp(0.0, (from - 1) as f64) as usize;
        if self.mode == "Nearest" {
            let index = match self.rounding {
                "Floor" => place.floor(),
                "Ceil" => place.ceil(),
                "RoundPreferCeil" => (place + 0.5).floor(),
                _ => (place - 0.5).ceil(),
            };
            weights[nearest(index)] = 1.0;
            return weights;
        }
        // Where an image becomes smaller, anti-aliasing widens the filter.
        let stretch = if self.antialias { scale.min(1.0) } else { 1.0 };
        let reach = (if self.mode == "Cubic" { 2.0 } else { 1.0 }) / stretch;
        // Further out all is the pixel at the edge.
        let place = place.clamp(-reach - 1.0, from as f64 + reach);
        let mut index = (place - reach).floor();
        while index <= place + reach {
            let distance = ((index - place) * stretch).abs();
            let weight = if self.mode == "Cubic" { keys(distance, self.cubic) } else { (1.0 - distance).max(0.0) };
            let is_outside = index < 0.0 || index > (from - 1) as f64;
            // Beyond the edge is the pixel at the edge.
            if !(self.exclude_outside && is_outside) {
                weights[nearest(index)] += weight;
            }
            index += 1.0;
        }
        let sum: f64 = weights.iter().sum();
        weights.iter().map(|w| w / sum).collect()
    }
}

/// The weight of a pixel at a distance (Keys, "Cubic convolution interpolation", IEEE ASSP 29(6), 1981, equations 4 and
/// 15).
fn keys(distance: f64, a: f64) -> f64 {
    let x = distance;
    match x {
        ..=1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
        ..2.0 => ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a,
        _ => 0.0,
    }
}

impl Nodes<'_> {
    /// `x` plus one number for each channel, where there are.
    pub fn add_by_channel(&mut self, x: NodeId, bias: Option<NodeId>, span: Span) -> Option<NodeId> {
        let Some(bias) = bias else { return Some(x) };
        let bias = self.by_channel(bias, x, span)?;
        self.apply_as(ScalarOp::Add, &[x, bias], "add_bias", span)
    }

    /// The dimensions of pixels.
    fn pixels(&mut self, x: NodeId, span: Span) -> Option<Vec<usize>> {
        let rank = self.shape(x).len();
        if rank > 2 {
            return Some((2..rank).collect());
        }
        self.misfit(x, "images [batch, channels, height, width] are expected", "there are no pixels", span);
        None
    }

    pub fn upsampled(&mut self, x: NodeId, scale: &[usize], is_linear: bool, span: Span) -> Option<NodeId> {
        let axes = self.pixels(x, span)?;
        if scale.len() != 1 && scale.len() != axes.len() {
            let help = "give one for each dimension of the image, or one for all";
            self.misfit(x, format!("{} scales", scale.len()), help, span);
            return None;
        }
        let mut value = x;
        for (i, axis) in axes.into_iter().enumerate() {
            let times = scale[if scale.len() == 1 { 0 } else { i }];
            value = match (times, is_linear) {
                (1, _) => value,
                (_, true) => self.interpolated(value, axis, times, span)?,
                (_, false) => self.repeated(value, axis, times, span)?,
            };
        }
        Some(value)
    }

    /// Every element along a dimension so many times.
    fn repeated(&mut self, x: NodeId, axis: usize, times: usize, span: Span) -> Option<NodeId> {
        let mut to = self.shape(x).to_vec();
        to.insert(axis + 1, 1);
        let x = self.reshaped(x, to.clone(), span)?;
        to[axis + 1] = times;
        let x = self.broadcast_to(x, &to, span)?;
        to.remove(axis + 1);
        to[axis] = to[axis].saturating_mul(times);
        self.reshaped(x, to, span)
    }

    /// Between the centres of neighbours a line is drawn; beyond the outermost, it is level. Each of the `times` new
    /// elements that lie around an old one has the same weights everywhere.
    fn interpolated(&mut self, x: NodeId, axis: usize, times: usize, span: Span) -> Option<NodeId> {
        self.limit_parts(x, times, "times", span)?;
        let mut to = self.shape(x).to_vec();
        let size = to[axis];
        let (first, last) = (self.sliced(x, axis, [0, 1], span)?, self.sliced(x, axis, [size - 1, size], span)?);
        let wide = self.joined(&[first, x, last], axis, span)?;
        let (before, after) =
            (self.sliced(wide, axis, [0, size], span)?, self.sliced(wide, axis, [2, size + 2], span)?);
        to.insert(axis + 1, 1);
        let mut phases = Vec::new();
        for phase in 0..times {
            // From the old centre, in its own unit.
            let distance = (phase as f64 + 0.5) / times as f64 - 0.5;
            let neighbour = if distance < 0.0 { before } else { after };
            let own = self.with(ScalarOp::Mul, x, 1.0 - distance.abs(), span)?;
            let other = self.with(ScalarOp::Mul, neighbour, distance.abs(), span)?;
            let sum = self.apply(ScalarOp::Add, &[own, other], span)?;
            phases.push(self.reshaped(sum, to.clone(), span)?);
        }
        let joined = self.joined(&phases, axis + 1, span)?;
        to.remove(axis + 1);
        to[axis] = size.saturating_mul(times);
        self.reshaped(joined, to, span)
    }

    fn resized(
        &mut self,
        x: NodeId,
        (sizes, scales): (&[usize], &[f64]),
        axes: Option<Vec<i64>>,
        how: &Resizing,
        span: Span,
    ) -> Option<NodeId> {
        let rank = self.shape(x).len();
        let axes: Vec<usize> = match axes {
            Some(axes) => self.distinct_axes(&axes, x, rank, span)?,
            None => (rank.saturating_sub(sizes.len().max(scales.len()))..rank).collect(),
        };
        let given = [sizes.len(), scales.len()];
        if given == [0, 0] || given.iter().any(|&n| n != 0 && n != axes.len()) {
            let message = format!("{} sizes and {} scales for {} dimensions", sizes.len(), scales.len(), axes.len());
            self.misfit(x, message, "give a size for each, or a scale, or both", span);
            return None;
        }
        let mut value = x;
        for (i, &axis) in axes.iter().enumerate() {
            let from = self.shape(x)[axis];
            let scaled = scales.get(i).map(|scale| (scale * from as f64).floor() as usize);
            let to = sizes.get(i).copied().or(scaled).unwrap_or(0);
            let scale = scales.get(i).copied().unwrap_or(to as f64 / from as f64);
            if to == 0 || scale.is_nan() || scale <= 0.0 {
                self.misfit(
                    x,
                    format!("dimension {axis} would become {to}"),
                    "a scale is greater than 0, a size too",
                    span,
                );
                return None;
            }
            let exact = scale * from as f64;
            if (exact - to as f64).abs() >= 1.0 || exact < 0.5 {
                let message = format!("{from} by a scale of {scale} is not {to}");
                self.misfit(x, message, "a size beside a scale is what the scale comes to, rounded", span);
                return None;
            }
            if from != to || scale != 1.0 {
                value = self.resized_along(value, axis, (to, scale), how, span)?;
            }
        }
        Some(value)
    }

    /// Along one dimension: a product with the matrix of the weights.
    fn resized_along(
        &mut self,
        x: NodeId,
        axis: usize,
        (to, scale): (usize, f64),
        how: &Resizing,
        span: Span,
    ) -> Option<NodeId> {
        let from = self.shape(x)[axis];
        self.limit_parts(x, to.max(from), "pixels of a dimension", span)?;
        let rows: Vec<Vec<f64>> = (0..to).map(|i| how.weights(how.place(i, [from, to], scale), from, scale)).collect();
        // The matrix of weights, from runs of equal numbers.
        let flat: Vec<f64> = (0..from).flat_map(|source| rows.iter().map(move |row| row[source])).collect();
        let matrix = self.vector(&flat, span)?;
        let matrix = self.reshaped(matrix, vec![from, to], span)?;
        let shape = self.shape(x).to_vec();
        let rank = shape.len();
        let mut order: Vec<usize> = (0..rank).filter(|&d| d != axis).collect();
        order.push(axis);
        let last = self.permuted(x, order.clone(), span)?;
        let flat = self.reshaped(last, vec![shape.iter().product::<usize>() / from, from], span)?;
        let done = self.add(Op::MatMul, &[flat, matrix], "resize", span)?;
        let mut split: Vec<usize> = order[..rank - 1].iter().map(|&d| shape[d]).collect();
        split.push(to);
        let done = self.reshaped(done, split, span)?;
        let mut back = vec![0; rank];
        order.iter().enumerate().for_each(|(place, &d)| back[d] = place);
        self.permuted(done, back, span)
    }
}
