//! Operations that move elements: shapes, slices, padding, repetition.

use super::diagnostic::{Diagnostic, Span};
use super::nodes::Nodes;
use super::ops::Expand;
use super::rows::{Arg, Kind, Param, Row, rows};
use crate::ir::{NodeId, Op, Type};
use crate::scalar::ScalarOp;

rows! {
    /// Operations on shapes.
    SHAPES: Expand; |n, at|
    /// The same elements in another shape; one size may be -1, for what is left, and 0 is the size that x has there.
    Reshape(x: Value, shape: Shape), r#"Reshape("x", [2, -1])"# => n.reshape_to(x, &shape, at.span);
    /// The dimensions before `axis` as one, and those from it on as one: [n, ...] as [n, all the rest].
    Flatten(x: Value, axis: Dimension = 1), r#"Flatten("x")"# => n.flatten_at(x, axis, at.span);
    /// Dimensions of size 1 removed: those of `axes`, or all.
    Squeeze(x: Value, axes: Axes = None), r#"Squeeze(Sum("x", [1]), [1])"# => n.squeeze(x, axes.as_deref(), at.span);
    /// New dimensions of size 1, which have the numbers `axes` in the result.
    Unsqueeze(x: Value, axes: Integers), r#"Unsqueeze("x", [0, -1])"# => n.unsqueeze(x, &axes, at.span);
    /// Dimensions in another order: dimension i of the result is dimension permutation[i] of x.
    Transpose(x: Value, permutation: Permutation = None), r#"Transpose("x", [1, 0])"# =>
        n.transpose(x, permutation.as_deref(), at.span);
    /// Sizes of 1 repeated, new dimensions in front.
    Broadcast(x: Value, shape: Sizes), r#"Broadcast("x", [3, 4, 6])"# => n.repeat(x, &shape, at.span);
    /// As `Broadcast`; where `shape` has a 1 or no size, x keeps its own.
    Expand(x: Value, shape: Sizes), r#"Expand("x", [3, 1, 6])"# => n.expand(x, &shape, at.span);
    /// The whole tensor repeated, so many times along each dimension.
    Tile(x: Value, repeats: Sizes), r#"Tile("x", [2, 3])"# => n.tile(x, &repeats, at.span);
    /// Every `steps`-th element from `starts` to before `ends` of the first dimensions, or `axes`, as in Python.
    Slice(x: Value, starts: Integers, ends: Integers, axes: Axes = None, steps: Integers = vec![1]),
        r#"Slice("x", [0, 2], [4, 5])"# =>
        n.slice(x, [&starts, &ends], axes, &steps, at.span);
    /// Part number `part`, from 0, of a dimension that is cut into parts of these sizes.
    Split(x: Value, sizes: Sizes, part: Integer, axis: Dimension = 0), r#"Split("x", [2, 4], 1, -1)"# =>
        n.split(x, &sizes, part, axis, at.span);
    /// Part number `part`, from 0, of a dimension cut into `count` equal parts, of which the last may be smaller.
    Chunk(x: Value, count: Size, part: Integer, axis: Dimension = 0), r#"Chunk("x", 2, 1, -1)"# =>
        n.chunk(x, count, part, axis, at.span);
    /// Tensors joined along a dimension.
    Concat(items: Values, axis: Dimension), r#"Concat(["x", "y"], 1)"# => n.concat(&items, axis, at.span);
    /// Elements added before each dimension (of `axes`), then after each: so many as `pads`; negative ones take away.
    Pad(
        x: Value, pads: Integers, mode: Word(&["Constant", "Reflect", "Edge", "Wrap"]) = "Constant",
        value: Number = 0.0, axes: Axes = None
    ),
        r#"Pad("x", [0, 1, 0, 2])"# => n.pad(x, &pads, (mode, value), axes, at.span);
    /// The order of elements reversed along dimensions.
    Reverse(x: Value, axes: Axes = None), r#"Reverse("x", [1])"# => {
        let axes = n.axes(axes.as_deref(), x, at.span)?;
        n.add(Op::Reverse { axes }, &[x], "reverse", at.span)
    };
    /// Of the last two dimensions, what is on and above the diagonal `k` (or on and below it), and 0 elsewhere.
    Trilu(x: Value, k: Integer = 0, upper: Flag = true), r#"Trilu("x", 0, false)"# => n.trilu(x, k, upper, at.span);
    /// Channels as pixels: [n, c, h, w] to [n, c / block², h·block, w·block]; `CRD` is PyTorch's PixelShuffle.
    DepthToSpace(x: Value, block: Size, mode: Word(&["DCR", "CRD"]) = "DCR"),
        r#"DepthToSpace(Reshape("x", [1, 4, 2, 3]), 2)"# =>
        n.depth_to_space(x, block, mode == "CRD", at.span);
    /// Pixels to channels: the inverse of `DepthToSpace`.
    SpaceToDepth(x: Value, block: Size, mode: Word(&["DCR", "CRD"]) = "DCR"), r#"SpaceToDepth("images", 2)"# =>
        n.space_to_depth(x, block, mode == "CRD", at.span);
}

impl Nodes<'_> {
    /// Which of `rank` dimensions is meant; reports one that there is not.
    pub fn axis(&mut self, axis: i64, rank: usize, span: Span) -> Option<usize> {
        let from_start = if axis < 0 { axis.saturating_add(rank as i64) } else { axis };
        if let Some(axis) = usize::try_from(from_start).ok().filter(|&axis| axis < rank) {
            return Some(axis);
        }
        let label = match rank {
            0 => "a single number has none".to_string(),
            _ => format!("there are {rank}: 0 to {}, or -{rank} to -1", rank - 1),
        };
        let message = format!("axis {axis} is out of range for rank {rank}");
        self.d().report(Diagnostic::new("shape-mismatch", message).label(span, label));
        None
    }

    /// Dimensions of `x`, sorted, each once; all where there is no list.
    pub fn axes(&mut self, axes: Option<&[i64]>, x: NodeId, span: Span) -> Option<Vec<usize>> {
        let rank = self.shape(x).len();
        let Some(axes) = axes else { return Some((0..rank).collect()) };
        let mut found = self.distinct_axes(axes, x, rank, span)?;
        found.sort_unstable();
        Some(found)
    }

    /// Dimensions among `rank`, in the order in which they are given. Reports one that is named twice.
    pub fn distinct_axes(&mut self, axes: &[i64], x: NodeId, rank: usize, span: Span) -> Option<Vec<usize>> {
        let found = axes.iter().map(|&a| self.axis(a, rank, span)).collect::<Option<Vec<usize>>>()?;
        if let Some(twice) = found.iter().enumerate().find(|(i, axis)| found[..*i].contains(axis)) {
            let help = "each is named once; a negative number counts from the end";
            self.misfit(x, format!("dimension {} is named twice", twice.1), help, span);
            return None;
        }
        Some(found)
    }

    /// Reports what does not fit. The type of `x` is the label.
    pub fn misfit(&mut self, x: NodeId, message: impl Into<String>, help: impl Into<String>, span: Span) {
        let label = format!("this is {}", self.ty(x));
        self.d().report(Diagnostic::new("shape-mismatch", message).label(span, label).help(help));
    }

    pub fn reshaped(&mut self, x: NodeId, to: Vec<usize>, span: Span) -> Option<NodeId> {
        if self.shape(x) == to { Some(x) } else { self.add(Op::Reshape { to }, &[x], "reshape", span) }
    }

    pub fn permuted(&mut self, x: NodeId, permutation: Vec<usize>, span: Span) -> Option<NodeId> {
        if permutation.is_sorted() {
            return Some(x);
        }
        self.add(Op::Transpose { permutation }, &[x], "transpose", span)
    }

    /// Without a dimension, which has the size 1.
    pub fn squeezed(&mut self, x: NodeId, axis: usize, span: Span) -> Option<NodeId> {
        let mut to = self.shape(x).to_vec();
        to.remove(axis);
        self.reshaped(x, to, span)
    }

    /// `x` where a mask is not 0, else 0, whatever `x` is there.
    pub fn masked(&mut self, mask: NodeId, x: NodeId, span: Span) -> Option<NodeId> {
        let zero = self.constant(0.0, span)?;
        self.apply(ScalarOp::Select, &[mask, x, zero], span)
    }

    /// Indices from `start` to before `end` along one dimension.
    pub fn sliced(&mut self, x: NodeId, axis: usize, [from, to]: [usize; 2], span: Span) -> Option<NodeId> {
        let mut end = self.shape(x).to_vec();
        if (from, to) == (0, end[axis]) {
            return Some(x);
        }
        let mut start = vec![0; end.len()];
        (start[axis], end[axis]) = (from, to);
        self.add(Op::Slice { start, end }, &[x], "slice", span)
    }

    /// Zeros before and after along one dimension.
    pub fn padded(&mut self, x: NodeId, axis: usize, [before, after]: [usize; 2], span: Span) -> Option<NodeId> {
        if before + after == 0 {
            return Some(x);
        }
        let (mut low, mut high) = (vec![0; self.shape(x).len()], vec![0; self.shape(x).len()]);
        (low[axis], high[axis]) = (before, after);
        self.add(Op::Pad { low, high }, &[x], "pad", span)
    }

    /// A number before and after along one dimension.
    pub fn filled(&mut self, x: NodeId, axis: usize, pads: [usize; 2], value: f64, span: Span) -> Option<NodeId> {
        if value == 0.0 {
            return self.padded(x, axis, pads, span);
        }
        let mut parts = Vec::new();
        for (place, count) in pads.into_iter().enumerate() {
            if place == 1 {
                parts.push(x);
            }
            if count > 0 {
                let mut shape = self.shape(x).to_vec();
                shape[axis] = count;
                parts.push(self.add(Op::constant(value, self.ty(x).dtype, shape), &[], "fill", span)?);
            }
        }
        self.joined(&parts, axis, span)
    }

    pub fn joined(&mut self, parts: &[NodeId], axis: usize, span: Span) -> Option<NodeId> {
        match parts {
            [x] => Some(*x),
            parts => self.add(Op::Concat { axis }, parts, "concat", span),
        }
    }

    /// `count` elements along a dimension: the first at `start`, each `stride` after the one before.
    pub fn stepped(
        &mut self,
        x: NodeId,
        axis: usize,
        (start, count, stride): (usize, usize, usize),
        span: Span,
    ) -> Option<NodeId> {
        let size = self.shape(x)[axis];
        if stride == 1 || count == 1 {
            return self.sliced(x, axis, [start, start + count], span);
        }
        let end = start + count * stride;
        let x = self.padded(x, axis, [0, end.saturating_sub(size)], span)?;
        let x = self.sliced(x, axis, [start, end], span)?;
        let mut shape = self.shape(x).to_vec();
        shape[axis] = count;
        let mut split = shape.clone();
        split.insert(axis + 1, stride);
        let x = self.reshaped(x, split, span)?;
        let x = self.sliced(x, axis + 1, [0, 1], span)?;
        self.reshaped(x, shape, span)
    }

    /// `stride - 1` zeros between every two elements along a dimension.
    pub fn spaced(&mut self, x: NodeId, axis: usize, stride: usize, span: Span) -> Option<NodeId> {
        let mut shape = self.shape(x).to_vec();
        let size = shape[axis];
        if stride == 1 || size == 1 {
            return Some(x);
        }
        let mut split = shape.clone();
        split.insert(axis + 1, 1);
        let x = self.reshaped(x, split, span)?;
        let x = self.padded(x, axis + 1, [0, stride - 1], span)?;
        shape[axis] = size * stride;
        let x = self.reshaped(x, shape, span)?;
        self.sliced(x, axis, [0, (size - 1) * stride + 1], span)
    }

    pub fn reshape_to(&mut self, x: NodeId, shape: &[i64], span: Span) -> Option<NodeId> {
        let from = self.shape(x).to_vec();
        let mut to = Vec::new();
        let mut rest = None;
        for (i, &size) in shape.iter().enumerate() {
            match size {
                -1 if rest.is_none() => {
                    rest = Some(i);
                    to.push(1);
                }
                0 if i < from.len() => to.push(from[i]),
                1.. => to.push(usize::try_from(size).ok()?),
                _ => {
                    let problem = format!("{size} cannot be size {i} of a shape");
                    self.misfit(
                        x,
                        problem,
                        "one size may be -1, for what is left; 0 is the size that x has there",
                        span,
                    );
                    return None;
                }
            }
        }
        if let Some(rest) = rest {
            let given = to.iter().fold(1, |product: usize, &size| product.saturating_mul(size));
            let elements: usize = from.iter().product();
            if !elements.is_multiple_of(given) {
                let problem = format!("{elements} elements cannot be divided by {given}");
                self.misfit(x, problem, "the sizes other than -1 must divide the elements", span);
                return None;
            }
            to[rest] = elements / given;
        }
        self.add(Op::Reshape { to }, &[x], "reshape", span)
    }

    /// `[n, ...]` to `[n, all the rest]`.
    pub fn flatten(&mut self, x: NodeId, span: Span) -> Option<NodeId> {
        if self.shape(x).is_empty() {
            self.d().report(Diagnostic::new("shape-mismatch", "a scalar cannot be flattened").label(span, "in this"));
            return None;
        }
        self.flatten_at(x, 1, span)
    }

    fn flatten_at(&mut self, x: NodeId, axis: i64, span: Span) -> Option<NodeId> {
        let shape = self.shape(x).to_vec();
        // One past the last is a place to cut, too.
        let axis = if axis == shape.len() as i64 { shape.len() } else { self.axis(axis, shape.len(), span)? };
        let to = vec![shape[..axis].iter().product(), shape[axis..].iter().product()];
        self.add(Op::Reshape { to }, &[x], "flatten", span)
    }

    fn squeeze(&mut self, x: NodeId, axes: Option<&[i64]>, span: Span) -> Option<NodeId> {
        let shape = self.shape(x).to_vec();
        let removed = match axes {
            Some(_) => self.axes(axes, x, span)?,
            None => (0..shape.len()).filter(|&d| shape[d] == 1).collect(),
        };
        if let Some(&large) = removed.iter().find(|&&d| shape[d] != 1) {
            self.misfit(
                x,
                format!("dimension {large} has size {}, not 1", shape[large]),
                "only sizes of 1 can be removed",
                span,
            );
            return None;
        }
        let to = (0..shape.len()).filter(|d| !removed.contains(d)).map(|d| shape[d]).collect();
        self.add(Op::Reshape { to }, &[x], "squeeze", span)
    }

    fn unsqueeze(&mut self, x: NodeId, axes: &[i64], span: Span) -> Option<NodeId> {
        let shape = self.shape(x).to_vec();
        let rank = shape.len() + axes.len();
        let new = self.distinct_axes(axes, x, rank, span)?;
        let mut sizes = shape.into_iter();
        let to = (0..rank).map(|d| if new.contains(&d) { 1 } else { sizes.next().unwrap_or(1) }).collect();
        self.add(Op::Reshape { to }, &[x], "unsqueeze", span)
    }

    fn transpose(&mut self, x: NodeId, permutation: Option<&[i64]>, span: Span) -> Option<NodeId> {
        let rank = self.shape(x).len();
        let permutation = match permutation {
            Some(given) => given.iter().map(|&a| self.axis(a, rank, span)).collect::<Option<_>>()?,
            None => (0..rank).rev().collect(),
        };
        self.add(Op::Transpose { permutation }, &[x], "transpose", span)
    }

    /// `x` repeated to exactly `shape`.
    fn repeat(&mut self, x: NodeId, shape: &[usize], span: Span) -> Option<NodeId> {
        let from = self.shape(x);
        let fits = from.len() <= shape.len()
            && from.iter().rev().zip(shape.iter().rev()).all(|(&from, &to)| from == 1 || from == to);
        if fits {
            return self.broadcast_to(x, shape, span);
        }
        let diagnostic = Diagnostic::new("shape-mismatch", format!("this cannot be repeated to {shape:?}"))
            .label(span, format!("it is {}", self.ty(x)))
            .help("sizes are compared from the last on; only a size of 1 can be repeated");
        self.d().report(diagnostic);
        None
    }

    fn expand(&mut self, x: NodeId, shape: &[usize], span: Span) -> Option<NodeId> {
        let from = self.shape(x).to_vec();
        let rank = from.len().max(shape.len());
        let size = |list: &[usize], d: usize| (d + list.len()).checked_sub(rank).map_or(1, |d| list[d]);
        let to: Vec<usize> =
            (0..rank).map(|d| if size(shape, d) == 1 { size(&from, d) } else { size(shape, d) }).collect();
        self.repeat(x, &to, span)
    }

    fn tile(&mut self, x: NodeId, repeats: &[usize], span: Span) -> Option<NodeId> {
        let shape = self.shape(x).to_vec();
        if repeats.len() != shape.len() {
            self.misfit(x, format!("{} repeats", repeats.len()), "give one for each dimension", span);
            return None;
        }
        // Every repeated dimension gets one of its own in front, which is broadcast.
        let pairs = |repeat: &dyn Fn(usize) -> usize| -> Vec<usize> {
            let repeated = |d: usize| if repeats[d] == 1 { vec![shape[d]] } else { vec![repeat(d), shape[d]] };
            (0..shape.len()).flat_map(repeated).collect()
        };
        let (single, many) = (pairs(&|_| 1), pairs(&|d| repeats[d]));
        let x = self.reshaped(x, single, span)?;
        let x = self.broadcast_to(x, &many, span)?;
        let to = (shape.iter().zip(repeats)).map(|(size, repeat)| size.saturating_mul(*repeat)).collect();
        self.reshaped(x, to, span)
    }

    fn slice(
        &mut self,
        x: NodeId,
        [starts, ends]: [&[i64]; 2],
        axes: Option<Vec<i64>>,
        steps: &[i64],
        span: Span,
    ) -> Option<NodeId> {
        let shape = self.shape(x).to_vec();
        let axes: Vec<usize> = match axes {
            Some(axes) => self.distinct_axes(&axes, x, shape.len(), span)?,
            None => (0..starts.len().min(shape.len())).collect(),
        };
        if starts.len() != axes.len() || ends.len() != axes.len() || ![1, axes.len()].contains(&steps.len()) {
            let problem = format!(
                "{} starts, {} ends and {} steps for {} dimensions",
                starts.len(),
                ends.len(),
                steps.len(),
                axes.len()
            );
            self.misfit(x, problem, "give a start and an end for each dimension, and one step or one for each", span);
            return None;
        }
        let (mut start, mut end) = (vec![0; shape.len()], shape.clone());
        let mut strides = Vec::new();
        for (i, &axis) in axes.iter().enumerate() {
            let (size, step) = (shape[axis] as i64, steps[if steps.len() == 1 { 0 } else { i }]);
            let forward = step > 0;
            // Backwards, what is before the first element is an end.
            let [low, high] = if forward { [0, size] } else { [-1, size - 1] };
            let place = |at: i64| (if at < 0 { at.saturating_add(size).max(-1) } else { at }).clamp(low, high);
            let (from, to) = (place(starts[i]), place(ends[i]));
            let length = if forward { to - from } else { from - to };
            if step == 0 || length <= 0 {
                let help = format!("dimension {axis} has the indices 0 to {}", size - 1);
                self.misfit(x, format!("nothing is left of {}..{} in steps of {step}", starts[i], ends[i]), help, span);
                return None;
            }
            let count = (length - 1) / step.saturating_abs() + 1;
            let [from, length, count] = [if forward { from } else { to + 1 }, length, count].map(|n| n as usize);
            (start[axis], end[axis]) = (from, from + length);
            let stride = if count == 1 { 1 } else { step.unsigned_abs() as usize };
            if count == 1 {
                // What is first in the order of the step.
                start[axis] = if forward { from } else { from + length - 1 };
                end[axis] = start[axis] + 1;
            } else if !forward || stride > 1 {
                strides.push((axis, forward, count, stride));
            }
        }
        let mut value = self.add(Op::Slice { start, end }, &[x], "slice", span)?;
        for (axis, forward, count, stride) in strides {
            if !forward {
                value = self.add(Op::Reverse { axes: vec![axis] }, &[value], "reverse", span)?;
            }
            value = self.stepped(value, axis, (0, count, stride), span)?;
        }
        Some(value)
    }

    fn split(&mut self, x: NodeId, sizes: &[usize], part: i64, axis: i64, span: Span) -> Option<NodeId> {
        let axis = self.axis(axis, self.shape(x).len(), span)?;
        let size = self.shape(x)[axis];
        let total = sizes.iter().fold(0, |sum: usize, &size| sum.saturating_add(size));
        if total != size {
            self.misfit(
                x,
                format!("the parts come to {total}, dimension {axis} to {size}"),
                "parts must come to the whole",
                span,
            );
            return None;
        }
        let part = self.axis(part, sizes.len(), span)?;
        let start: usize = sizes[..part].iter().sum();
        self.sliced(x, axis, [start, start + sizes[part]], span)
    }

    fn chunk(&mut self, x: NodeId, count: usize, part: i64, axis: i64, span: Span) -> Option<NodeId> {
        let number = self.axis(axis, self.shape(x).len(), span)?;
        let size = self.shape(x)[number];
        let each = size.div_ceil(count);
        if each * (count - 1) >= size {
            self.misfit(
                x,
                format!("{size} cannot be cut into {count} parts of {each}"),
                "choose fewer parts, or give sizes to `Split`",
                span,
            );
            return None;
        }
        let mut sizes = vec![each; count];
        sizes[count - 1] = size - each * (count - 1);
        self.split(x, &sizes, part, axis, span)
    }

    fn concat(&mut self, items: &[NodeId], axis: i64, span: Span) -> Option<NodeId> {
        let axis = match items.first() {
            Some(&first) => self.axis(axis, self.shape(first).len(), span)?,
            None => 0,
        };
        self.add(Op::Concat { axis }, items, "concat", span)
    }

    fn pad(
        &mut self,
        x: NodeId,
        pads: &[i64],
        (mode, value): (&str, f64),
        axes: Option<Vec<i64>>,
        span: Span,
    ) -> Option<NodeId> {
        let rank = self.shape(x).len();
        let axes: Vec<usize> = match axes {
            Some(axes) => self.distinct_axes(&axes, x, rank, span)?,
            None => (0..rank).collect(),
        };
        if pads.len() != 2 * axes.len() {
            let help = "give what is before each dimension, then what is after each";
            self.misfit(x, format!("{} pads for {} dimensions", pads.len(), axes.len()), help, span);
            return None;
        }
        let mut x = x;
        for (i, &axis) in axes.iter().enumerate() {
            let given = [pads[i], pads[axes.len() + i]];
            // What is negative is cut off first.
            let size = self.shape(x)[axis];
            let [from, less] = given.map(|pad| usize::try_from(pad.min(0).unsigned_abs()).unwrap_or(usize::MAX));
            if from.saturating_add(less) >= size {
                self.misfit(
                    x,
                    format!("nothing is left of dimension {axis}"),
                    "negative pads take elements away",
                    span,
                );
                return None;
            }
            x = self.sliced(x, axis, [from, size - less], span)?;
            let pads = given.map(|pad| usize::try_from(pad.max(0)).unwrap_or(0));
            if pads != [0, 0] {
                x = self.padded_as(x, axis, pads, (mode, value), span)?;
            }
        }
        Some(x)
    }

    /// Elements around a dimension: a number, the ones inside as in a mirror, the outermost, or those of the other end.
    fn padded_as(
        &mut self,
        x: NodeId,
        axis: usize,
        pads: [usize; 2],
        (mode, value): (&str, f64),
        span: Span,
    ) -> Option<NodeId> {
        let size = self.shape(x)[axis];
        let most = match mode {
            "Reflect" => size - 1,
            "Wrap" => size,
            "Edge" => usize::MAX,
            _ => return self.filled(x, axis, pads, value, span),
        };
        if let Some(large) = pads.iter().find(|&&pad| pad > most) {
            self.misfit(
                x,
                format!("`{mode}` cannot add {large} to dimension {axis}"),
                format!("it has {most} to give"),
                span,
            );
            return None;
        }
        let mut parts = Vec::new();
        for (place, count) in pads.into_iter().enumerate() {
            if place == 1 {
                parts.push(x);
            }
            if count == 0 {
                continue;
            }
            let range = match (mode, place) {
                ("Reflect", 0) => [1, 1 + count],
                ("Reflect", _) => [size - 1 - count, size - 1],
                ("Wrap", 0) => [size - count, size],
                ("Wrap", _) => [0, count],
                (_, 0) => [0, 1],
                _ => [size - 1, size],
            };
            let mut part = self.sliced(x, axis, range, span)?;
            match mode {
                "Reflect" => part = self.add(Op::Reverse { axes: vec![axis] }, &[part], "reverse", span)?,
                "Edge" => {
                    let mut to = self.shape(part).to_vec();
                    to[axis] = count;
                    part = self.broadcast_to(part, &to, span)?;
                }
                _ => {}
            }
            parts.push(part);
        }
        self.joined(&parts, axis, span)
    }

    fn trilu(&mut self, x: NodeId, k: i64, upper: bool, span: Span) -> Option<NodeId> {
        let &[.., rows, columns] = self.shape(x) else {
            self.misfit(x, "`Trilu` takes matrices", "they are the last two dimensions", span);
            return None;
        };
        let ty = Type::f32([rows, columns]);
        let row = self.add(Op::Iota { axis: 0, ty: ty.clone() }, &[], "row", span)?;
        let column = self.add(Op::Iota { axis: 1, ty }, &[], "column", span)?;
        let diagonal = self.apply_as(ScalarOp::Sub, &[column, row], "diagonal", span)?;
        let op = if upper { ScalarOp::Ge } else { ScalarOp::Le };
        let kept = self.with(op, diagonal, k as f64, span)?;
        self.masked(kept, x, span)
    }

    fn expect_images(&mut self, x: NodeId, span: Span) -> Option<[usize; 4]> {
        let &[n, c, h, w] = self.shape(x) else {
            self.misfit(x, "images [batch, channels, height, width] are expected", "`Reshape` makes them", span);
            return None;
        };
        Some([n, c, h, w])
    }

    fn depth_to_space(&mut self, x: NodeId, block: usize, channels_first: bool, span: Span) -> Option<NodeId> {
        let [n, c, h, w] = self.expect_images(x, span)?;
        let area = block.saturating_mul(block);
        if !c.is_multiple_of(area) {
            self.misfit(
                x,
                format!("{c} channels are not a multiple of {area}"),
                "each block takes so many channels",
                span,
            );
            return None;
        }
        let depth = c / area;
        let (split, permutation) = if channels_first {
            (vec![n, depth, block, block, h, w], vec![0, 1, 4, 2, 5, 3])
        } else {
            (vec![n, block, block, depth, h, w], vec![0, 3, 4, 1, 5, 2])
        };
        let x = self.reshaped(x, split, span)?;
        let x = self.permuted(x, permutation, span)?;
        self.reshaped(x, vec![n, depth, h * block, w * block], span)
    }

    fn space_to_depth(&mut self, x: NodeId, block: usize, channels_first: bool, span: Span) -> Option<NodeId> {
        let [n, c, h, w] = self.expect_images(x, span)?;
        if !h.is_multiple_of(block) || !w.is_multiple_of(block) {
            self.misfit(
                x,
                format!("blocks of {block} do not divide the image"),
                "height and width must be multiples",
                span,
            );
            return None;
        }
        let x = self.reshaped(x, vec![n, c, h / block, block, w / block, block], span)?;
        let permutation = if channels_first { vec![0, 1, 3, 5, 2, 4] } else { vec![0, 3, 5, 1, 2, 4] };
        let x = self.permuted(x, permutation, span)?;
        self.reshaped(x, vec![n, c * block * block, h / block, w / block], span)
    }
}
