//! Operations by index: one-hot vectors, the places of the largest, gathering and scattering. Indices are labels, or
//! whole numbers in f32; what is chosen is a selection under a mask, so that a chosen element keeps its bits and passes
//! its gradient on, and others, also infinite ones, play no part. An index that no place has chooses nothing, which is 0;
//! where it comes from an input it is refused before the entry runs ([`super::limits`]).
//!
//! Every index is compared with every place, in one sweep that keeps nothing: the work grows with their product. For large tables
//! networks have `Embedding`, a matrix product.

use super::diagnostic::Span;
use super::nodes::Nodes;
use super::ops::Expand;
use super::rows::{Arg, Kind, Param, Row, rows};
use crate::ir::{NodeId, Op, ReduceKind, Type};
use crate::scalar::ScalarOp;

rows! {
    /// Operations by index.
    INDEXING: Expand; |n, at|
    /// Labels or numbers as vectors along a new dimension, of `classes` elements: `on` at the label, else `off`.
    OneHot(labels: Value, classes: Size, axis: Dimension = -1, off: Number = 0.0, on: Number = 1.0),
        r#"OneHot("labels", 10)"# =>
        n.one_hot(labels, classes, (axis, off, on), at.span);
    /// The index of the largest element along a dimension, as a number; of several the first, or the `last`.
    ArgMax(x: Value, axis: Dimension = 0, keepdims: Flag = true, last: Flag = false), r#"ArgMax("x", -1, false)"# =>
        n.arg_extreme(x, axis, (true, keepdims, last), at.span);
    /// The index of the smallest element along a dimension, as a number; of several the first, or the `last`.
    ArgMin(x: Value, axis: Dimension = 0, keepdims: Flag = true, last: Flag = false), r#"ArgMin("x", -1, false)"# =>
        n.arg_extreme(x, axis, (false, keepdims, last), at.span);
    /// Slices of x by index, whose dimensions replace that of x; zeros where a computed index is out of range.
    Gather(x: Value, indices: Value, axis: Dimension = 0), r#"Gather("x", "labels", 1)"# =>
        n.gather(x, indices, axis, at.span);
    /// For each index the element of x in the same place in all dimensions but one, where the index says which.
    GatherElements(x: Value, indices: Value, axis: Dimension = 0), r#"GatherElements("x", ArgMax("x", 1), 1)"# =>
        n.gather_elements(x, indices, axis, at.span);
    /// For each row of `indices` (its last dimension) what is there in x; `batch_dims` first dimensions are shared.
    GatherND(x: Value, indices: Value, batch_dims: Integer = 0), r#"GatherND("x", Reshape("labels", [4, 1]))"# =>
        n.gather_nd(x, indices, batch_dims, at.span);
    /// x with elements replaced by `updates`, each index once, or combined with them: the inverse of `GatherElements`.
    ScatterElements(
        x: Value, indices: Value, updates: Value, axis: Dimension = 0, reduction: Word(REDUCTIONS) = "None"
    ),
        r#"ScatterElements("x", ArgMax("x", 1), Mean("x", [1]), 1)"# =>
        n.scatter_elements(x, indices, updates, axis, reduction, at.span);
    /// x with slices replaced by `updates`, each index once, or combined with them: the inverse of `GatherND`.
    ScatterND(x: Value, indices: Value, updates: Value, reduction: Word(REDUCTIONS) = "None"),
        r#"ScatterND("x", Reshape("labels", [4, 1]), "y", Add)"# =>
        n.scatter_nd(x, indices, updates, reduction, at.span);
}

/// How updates are combined with what is there.
const REDUCTIONS: &[&str] = &["None", "Add", "Mul", "Max", "Min"];

impl Nodes<'_> {
    /// Indices as real numbers; negative ones count from the end.
    fn indices(&mut self, x: NodeId, size: usize, span: Span) -> Option<NodeId> {
        self.limit_indices(x, size, true);
        self.counted_from_start(x, size, span)
    }

    /// As real numbers, those that count from the end by what they are from the start.
    fn counted_from_start(&mut self, x: NodeId, size: usize, span: Span) -> Option<NodeId> {
        if !self.ty(x).dtype.is_real() {
            return self.apply(ScalarOp::ToReal, &[x], span);
        }
        let is_negative = self.with(ScalarOp::Lt, x, 0.0, span)?;
        let from_end = self.with(ScalarOp::Add, x, size as f64, span)?;
        let x = self.apply(ScalarOp::Select, &[is_negative, from_end, x], span)?;
        self.add(Op::Detach, &[x], "indices", span)
    }

    /// Reports more places than f32 tells apart: it holds whole numbers up to 2^24.
    fn expect_countable(&mut self, x: NodeId, places: usize, span: Span) -> Option<()> {
        const MOST: usize = 1 << 24;
        if places <= MOST {
            return Some(());
        }
        self.misfit(x, format!("there are {places} places to tell apart"), format!("indices go up to {MOST}"), span);
        None
    }

    /// 1 where the index along a dimension is that of `places`, which has the size 1 there.
    pub fn is_index(&mut self, places: NodeId, size: usize, axis: usize, span: Span) -> Option<NodeId> {
        self.expect_countable(places, size, span)?;
        let mut shape = vec![1; self.shape(places).len()];
        shape[axis] = size;
        let index = self.add(Op::Iota { axis, ty: Type::f32(shape) }, &[], "class", span)?;
        self.apply_as(ScalarOp::Eq, &[places, index], "one_hot", span)
    }

    fn one_hot(
        &mut self,
        labels: NodeId,
        classes: usize,
        (axis, off, on): (i64, f64, f64),
        span: Span,
    ) -> Option<NodeId> {
        let mut shape = self.shape(labels).to_vec();
        let axis = self.axis(axis, shape.len() + 1, span)?;
        shape.insert(axis, 1);
        self.limit_labels(labels, classes);
        let labels = self.counted_from_start(labels, classes, span)?;
        let labels = self.add(Op::Reshape { to: shape }, &[labels], "labels", span)?;
        let mask = self.is_index(labels, classes, axis, span)?;
        if (off, on) == (0.0, 1.0) {
            return Some(mask);
        }
        let (on, off) = (self.constant(on, span)?, self.constant(off, span)?);
        self.apply(ScalarOp::Select, &[mask, on, off], span)
    }

    /// A number that is not one is larger and smaller than all.
    pub fn arg_extreme(
        &mut self,
        x: NodeId,
        axis: i64,
        (largest, keep, last): (bool, bool, bool),
        span: Span,
    ) -> Option<NodeId> {
        let axis = self.axis(axis, self.shape(x).len(), span)?;
        let size = self.shape(x)[axis];
        self.expect_countable(x, size, span)?;
        let x = self.add(Op::Detach, &[x], "among", span)?;
        let x = if largest { x } else { self.apply(ScalarOp::Neg, &[x], span)? };
        let most = self.reduced(ReduceKind::Max, x, &[axis], span)?;
        let equal = self.apply(ScalarOp::Eq, &[x, most], span)?;
        let is_nan = self.apply(ScalarOp::IsNan, &[x], span)?;
        let found = self.apply(ScalarOp::Max, &[equal, is_nan], span)?;
        // The largest number among the candidates: the index itself, or how far it is from the end.
        let mut shape = vec![1; self.shape(x).len()];
        shape[axis] = size;
        let index = self.add(Op::Iota { axis, ty: Type::f32(shape) }, &[], "index", span)?;
        let rank = if last {
            index
        } else {
            let n = self.apply(ScalarOp::Neg, &[index], span)?;
            self.with(ScalarOp::Add, n, size as f64, span)?
        };
        let none = self.constant(-1.0, span)?;
        let rank = self.apply(ScalarOp::Select, &[found, rank, none], span)?;
        let rank = self.reduced(ReduceKind::Max, rank, &[axis], span)?;
        let mut place = rank;
        if !last {
            let negative = self.apply(ScalarOp::Neg, &[rank], span)?;
            place = self.with(ScalarOp::Add, negative, size as f64, span)?;
        }
        if keep { Some(place) } else { self.squeezed(place, axis, span) }
    }

    /// `x` where a mask is not 0, summed over one dimension, which goes.
    fn chosen(&mut self, mask: NodeId, x: NodeId, axis: usize, span: Span) -> Option<NodeId> {
        let chosen = self.masked(mask, x, span)?;
        self.reduced_away(ReduceKind::Sum, chosen, axis, span)
    }

    fn gather(&mut self, x: NodeId, indices: NodeId, axis: i64, span: Span) -> Option<NodeId> {
        let shape = self.shape(x).to_vec();
        let axis = self.axis(axis, shape.len(), span)?;
        let (size, wanted) = (shape[axis], self.shape(indices).to_vec());
        let indices = self.indices(indices, size, span)?;
        let (before, after) = (shape[..axis].iter().product(), shape[axis + 1..].iter().product());
        let count: usize = wanted.iter().product();
        let places = self.reshaped(indices, vec![1, count, 1, 1], span)?;
        let mask = self.is_index(places, size, 2, span)?;
        let x = self.reshaped(x, vec![before, 1, size, after], span)?;
        let found = self.chosen(mask, x, 2, span)?;
        self.reshaped(found, [&shape[..axis], &wanted, &shape[axis + 1..]].concat(), span)
    }

    /// Whether `indices` have the rank of `x` and are no larger but along one dimension; reports it where not.
    fn line_up(&mut self, x: NodeId, indices: NodeId, axis: usize, span: Span) -> Option<()> {
        let (shape, wanted) = (self.shape(x), self.shape(indices));
        if shape.len() == wanted.len() && (0..shape.len()).all(|d| d == axis || wanted[d] <= shape[d]) {
            return Some(());
        }
        let (message, x) = (format!("the indices are {}", self.ty(indices)), x);
        self.misfit(
            x,
            message,
            format!("they have as many dimensions, and are no larger but in dimension {axis}"),
            span,
        );
        None
    }

    fn gather_elements(&mut self, x: NodeId, indices: NodeId, axis: i64, span: Span) -> Option<NodeId> {
        let axis = self.axis(axis, self.shape(x).len(), span)?;
        self.line_up(x, indices, axis, span)?;
        let (size, wanted) = (self.shape(x)[axis], self.shape(indices).to_vec());
        let places = self.indices(indices, size, span)?;
        let mut x = x;
        for d in (0..wanted.len()).filter(|&d| d != axis) {
            x = self.sliced(x, d, [0, wanted[d]], span)?;
        }
        // [.., wanted, size, ..]
        let (mut from, mut to) = (self.shape(x).to_vec(), wanted);
        from.insert(axis, 1);
        to.insert(axis + 1, 1);
        let (x, places) = (self.reshaped(x, from, span)?, self.reshaped(places, to, span)?);
        let mask = self.is_index(places, size, axis + 1, span)?;
        self.chosen(mask, x, axis + 1, span)
    }

    /// Rows of indices into the first dimensions of a shape as one number each, `[batch, rows]`, and the number of
    /// places: `shared` dimensions are the batch.
    fn places(&mut self, x: NodeId, indices: NodeId, shared: usize, span: Span) -> Option<(NodeId, usize, usize)> {
        let (shape, wanted) = (self.shape(x).to_vec(), self.shape(indices).to_vec());
        let depth = wanted.last().copied().unwrap_or(0);
        if wanted.len() <= shared || depth == 0 || shared + depth > shape.len() || shape[..shared] != wanted[..shared] {
            let message = format!("the indices are {}", self.ty(indices));
            self.misfit(
                x,
                message,
                "their last dimension has a number for each of the first dimensions of x, after shared ones",
                span,
            );
            return None;
        }
        let (batch, rows) = (wanted[..shared].iter().product(), wanted[shared..wanted.len() - 1].iter().product());
        let indices = self.reshaped(indices, vec![batch, rows, depth], span)?;
        let mut place: Option<NodeId> = None;
        for (i, &size) in shape[shared..shared + depth].iter().enumerate() {
            let one = self.sliced(indices, 2, [i, i + 1], span)?;
            let one = self.indices(one, size, span)?;
            place = Some(match place {
                Some(before) => {
                    let before = self.with(ScalarOp::Mul, before, size as f64, span)?;
                    self.apply(ScalarOp::Add, &[before, one], span)?
                }
                None => one,
            });
        }
        Some((place?, depth, shape[shared..shared + depth].iter().product()))
    }

    fn gather_nd(&mut self, x: NodeId, indices: NodeId, batch_dims: i64, span: Span) -> Option<NodeId> {
        let (shape, wanted) = (self.shape(x).to_vec(), self.shape(indices).to_vec());
        let Some(shared) = usize::try_from(batch_dims).ok().filter(|&b| b < shape.len().min(wanted.len())) else {
            self.misfit(
                x,
                format!("`batch_dims` is {batch_dims}"),
                "it is the number of first dimensions that both share",
                span,
            );
            return None;
        };
        let (places, depth, count) = self.places(x, indices, shared, span)?;
        let &[batch, rows, _] = self.shape(places) else { return None };
        let places = self.reshaped(places, vec![batch, rows, 1, 1], span)?;
        let mask = self.is_index(places, count, 2, span)?;
        let rest = &shape[shared + depth..];
        let x = self.reshaped(x, vec![batch, 1, count, rest.iter().product()], span)?;
        let found = self.chosen(mask, x, 2, span)?;
        self.reshaped(found, [&wanted[..wanted.len() - 1], rest].concat(), span)
    }

    /// What is there combined with updates of which a mask says where they go: it has one more dimension than `x`,
    /// along which they are combined.
    fn scattered(
        &mut self,
        x: NodeId,
        mask: NodeId,
        updates: NodeId,
        (axis, reduction): (usize, &str),
        span: Span,
    ) -> Option<NodeId> {
        let neutral = match reduction {
            "Mul" => 1.0,
            "Max" | "Min" => f64::NEG_INFINITY,
            _ => 0.0,
        };
        let sign = reduction == "Min";
        let updates = if sign { self.apply(ScalarOp::Neg, &[updates], span)? } else { updates };
        let neutral = self.constant(neutral, span)?;
        let placed = self.apply(ScalarOp::Select, &[mask, updates, neutral], span)?;
        let to = self.shape(x).to_vec();
        let combined = match reduction {
            "Mul" => self.product(placed, &[axis], span)?,
            "Max" | "Min" => self.reduced(ReduceKind::Max, placed, &[axis], span)?,
            _ => self.reduced(ReduceKind::Sum, placed, &[axis], span)?,
        };
        let combined = self.reshaped(combined, to.clone(), span)?;
        match reduction {
            "Add" => self.apply_as(ScalarOp::Add, &[x, combined], "scattered", span),
            "Mul" => self.apply_as(ScalarOp::Mul, &[x, combined], "scattered", span),
            "Max" => self.apply_as(ScalarOp::Max, &[x, combined], "scattered", span),
            "Min" => {
                let smallest = self.apply(ScalarOp::Neg, &[combined], span)?;
                self.apply_as(ScalarOp::Min, &[x, smallest], "scattered", span)
            }
            _ => {
                let any = self.reduced_away(ReduceKind::Max, mask, axis, span)?;
                self.apply_as(ScalarOp::Select, &[any, combined, x], "scattered", span)
            }
        }
    }

    fn scatter_elements(
        &mut self,
        x: NodeId,
        indices: NodeId,
        updates: NodeId,
        axis: i64,
        reduction: &str,
        span: Span,
    ) -> Option<NodeId> {
        let shape = self.shape(x).to_vec();
        let axis = self.axis(axis, shape.len(), span)?;
        self.line_up(x, indices, axis, span)?;
        if self.shape(indices) != self.shape(updates) {
            let message = format!("the indices are {}", self.ty(indices));
            self.misfit(updates, message, "give an index for each update", span);
            return None;
        }
        let mut wanted = self.shape(indices).to_vec();
        let (mut places, mut updates) = (self.indices(indices, shape[axis], span)?, updates);
        for d in (0..shape.len()).filter(|&d| d != axis) {
            // Where no update is, the place is none.
            let missing = [0, shape[d] - wanted[d]];
            places = self.filled(places, d, missing, -1.0, span)?;
            updates = self.filled(updates, d, missing, 0.0, span)?;
            wanted[d] = shape[d];
        }
        wanted.insert(axis + 1, 1);
        let (places, updates) = (self.reshaped(places, wanted.clone(), span)?, self.reshaped(updates, wanted, span)?);
        let mask = self.is_index(places, shape[axis], axis + 1, span)?;
        self.scattered(x, mask, updates, (axis, reduction), span)
    }

    fn scatter_nd(
        &mut self,
        x: NodeId,
        indices: NodeId,
        updates: NodeId,
        reduction: &str,
        span: Span,
    ) -> Option<NodeId> {
        let (shape, wanted) = (self.shape(x).to_vec(), self.shape(indices).to_vec());
        let (places, depth, count) = self.places(x, indices, 0, span)?;
        let rest: usize = shape[depth..].iter().product();
        let expected = [&wanted[..wanted.len() - 1], &shape[depth..]].concat();
        if self.shape(updates) != expected {
            self.misfit(
                updates,
                format!("the updates should be f32{expected:?}"),
                "a slice of x for each row of indices",
                span,
            );
            return None;
        }
        let rows = self.shape(places)[1];
        let places = self.reshaped(places, vec![rows, 1, 1], span)?;
        let mask = self.is_index(places, count, 1, span)?;
        let updates = self.reshaped(updates, vec![rows, 1, rest], span)?;
        let flat = self.reshaped(x, vec![count, rest], span)?;
        let done = self.scattered(flat, mask, updates, (0, reduction), span)?;
        self.reshaped(done, shape, span)
    }
}
