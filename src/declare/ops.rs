//! Operations that are not in the scalar table, expanded to primitives.

use super::diagnostic::{Diagnostic, Span};
use super::nodes::Nodes;
use super::rows::{Arg, At, Kind, Param, Row, rows};
use crate::ir::{DType, Distribution, NodeId, Op, Real, Type};
use crate::scalar::ScalarOp;

/// Adds the nodes of an operation.
pub type Expand = fn(&mut Nodes<'_>, &At, &[Arg]) -> Option<NodeId>;

rows! {
    /// Products of matrices, and what makes tensors of numbers.
    TENSORS: Expand; |n, at|
    /// The matrix product over the last two dimensions, others repeated as in `Add`; a vector is one row or column.
    MatMul(a: Value, b: Value), r#"MatMul("x", Transpose("y", [1, 0]))"# => n.matmul(a, b, at.span);
    /// `alpha`·a·b + `beta`·c, with a or b transposed.
    Gemm(
        a: Value, b: Value, c: MaybeValue = None, alpha: Number = 1.0, beta: Number = 1.0, trans_a: Flag = false,
        trans_b: Flag = false
    ), r#"Gemm(a: "x", b: "y", trans_b: true)"# => n.gemm([a, b], c, [alpha, beta], [trans_a, trans_b], at.span);
    /// A product of tensors, summed over dimensions whose letters are not in the result, as in "ij,jk->ik"; "..." are others.
    Einsum(equation: Text, items: Values), r#"Einsum("ij,kj->ik", ["x", "y"])"# => n.einsum(&equation, &items, at.span);
    /// Rounded to bfloat16 (`Bf16`), which halves what a stored value takes, or widened again (`F32`).
    Convert(x: Value, to: ElementType), r#"Convert(Convert("x", Bf16), F32)"# =>
        n.add(Op::Convert { to }, &[x], "convert", at.span);
    /// Every element the same number.
    ConstantOfShape(shape: Sizes, value: Number = 0.0), "ConstantOfShape([4, 6], 1.0)" =>
        n.add(Op::constant(value, DType::F32, shape), &[], "constant", at.span);
    /// The index along a dimension, as numbers.
    Iota(shape: Sizes, axis: Dimension), "Iota([4, 6], 1)" => {
        let axis = n.axis(axis, shape.len(), at.span)?;
        n.add(Op::Iota { axis, ty: Type::f32(shape) }, &[], "iota", at.span)
    };
    /// Numbers from `start` to before `limit`, in steps of `delta`.
    Range(start: Number, limit: Number, delta: Number = 1.0), "Range(0, 10, 2)" =>
        n.range([start, limit, delta], at.span);
    /// 1 on the diagonal `k` of a matrix, and 0 elsewhere.
    Eye(rows: Size, columns: Size, k: Integer = 0), "Eye(4, 6)" => n.eye([rows, columns], k, at.span);
    /// `Eye` of the size of a matrix.
    EyeLike(x: Value, k: Integer = 0), r#"EyeLike("x", 1)"# => {
        let &[rows, columns] = n.shape(x) else {
            n.misfit(x, "`EyeLike` takes a matrix", "it has two dimensions", at.span);
            return None;
        };
        n.eye([rows, columns], k, at.span)
    };
    /// The sizes of x, from number `start` to before `end`, as numbers.
    Shape(x: Value, start: Integer = 0, end: Integer = i64::MAX), r#"Shape("x")"# => n.sizes_of(x, start, end, at.span);
    /// The number of elements, as a number.
    Size(x: Value), r#"Size("x")"# => {
        let elements: usize = n.shape(x).iter().product();
        n.constant(elements as f64, at.span)
    };
    /// With `training`, elements become 0 with the probability `rate` and others are scaled up; else x itself.
    Dropout(x: Value, rate: Fraction = 0.5, training: Flag = false), r#"Dropout("x", 0.25, true)"# =>
        if training { n.dropout(x, rate, at.span) } else { Some(x) };
}

/// Operations that stand in the same places.
#[derive(Debug)]
pub struct OpGroup {
    pub title: &'static str,
    pub place: &'static str,
    pub rows: &'static [Row<Expand>],
}

/// All operations but those of the scalar table and the call of networks.
pub const OPERATIONS: &[OpGroup] = &[
    OpGroup {
        title: "functions",
        place: "in expressions, and, without `x`, in the `layers` of a network",
        rows: super::activations::FUNCTIONS,
    },
    OpGroup { title: "elements", place: "in expressions, element by element", rows: super::activations::ELEMENTS },
    OpGroup { title: "reductions", place: "in expressions", rows: super::reductions::REDUCTIONS },
    OpGroup { title: "shapes", place: "in expressions", rows: super::movement::SHAPES },
    OpGroup { title: "indexing", place: "in expressions", rows: super::indexing::INDEXING },
    OpGroup { title: "tensors", place: "in expressions, on whole tensors", rows: TENSORS },
    OpGroup { title: "images", place: "in expressions", rows: super::images::IMAGES },
    OpGroup { title: "normalisation", place: "in expressions", rows: super::norms::NORMS },
    OpGroup { title: "losses", place: "in expressions", rows: super::norms::LOSSES },
    OpGroup { title: "draws", place: "in expressions: new random numbers in each step", rows: DRAWS },
    OpGroup { title: "gradients", place: "in expressions", rows: GRADIENTS },
    OpGroup {
        title: "schedules",
        place: "in expressions, as for a learning rate: numbers that follow the count of steps",
        rows: super::schedules::SCHEDULES,
    },
];

rows! {
    /// Random draws: new ones in each step.
    DRAWS: Expand; |n, at|
    /// Numbers of mean 0 and variance 1, normally distributed.
    Normal(shape: Sizes), "Normal([4, 6])" => n.draw(Distribution::Normal, shape, at.span);
    /// Numbers spread evenly from 0 to below 1.
    Uniform(shape: Sizes), "Uniform([4, 6])" => n.draw(Distribution::Uniform, shape, at.span);
    /// 1 with the probability `p`, else 0.
    Bernoulli(p: Probability, shape: Sizes), "Bernoulli(0.5, [4, 6])" =>
        n.draw(Distribution::Bernoulli(Real(p)), shape, at.span);
}

rows! {
    /// Derivatives as values.
    GRADIENTS: Expand; |n, at|
    /// The gradient of a single number in a value that it is computed from, as for a gradient penalty; it can be differentiated again.
    Gradient(of: Value, x: Value), r#"Gradient(Sum(Mul("x", "x")), "x")"# => n.gradient(of, x, at);
    /// The value itself, which no gradient flows through.
    Detach(x: Value), r#"Detach("x")"# => n.add(Op::Detach, &[x], "detach", at.span);
}

impl Nodes<'_> {
    fn matmul(&mut self, a: NodeId, b: NodeId, span: Span) -> Option<NodeId> {
        let (from_a, from_b) = (self.shape(a).to_vec(), self.shape(b).to_vec());
        let (is_row, is_column) = (from_a.len() == 1, from_b.len() == 1);
        let fits = !from_a.is_empty() && !from_b.is_empty();
        if !fits || from_a.last() != from_b.get(from_b.len().saturating_sub(2)) {
            let message = format!("`MatMul` of {} and {}", self.ty(a), self.ty(b));
            let help = "the last size of the first is that of the second before its last";
            self.misfit(a, message, help, span);
            return None;
        }
        let row = [&[1][..], &from_a].concat();
        let column = [&from_b[..], &[1]].concat();
        let mut a = if is_row { self.reshaped(a, row, span)? } else { a };
        let mut b = if is_column { self.reshaped(b, column, span)? } else { b };
        let (batch_a, batch_b) =
            (from_a[..from_a.len().saturating_sub(2)].to_vec(), from_b[..from_b.len().saturating_sub(2)].to_vec());
        let rows = self.shape(a)[self.shape(a).len() - 2];
        let columns = self.shape(b)[self.shape(b).len() - 1];
        let mut product;
        let batch;
        if batch_b.is_empty() && !batch_a.is_empty() {
            // One matrix for all: their rows are rows of one.
            let inner = self.shape(a)[self.shape(a).len() - 1];
            let all = batch_a.iter().product::<usize>() * rows;
            a = self.reshaped(a, vec![all, inner], span)?;
            product = self.add(Op::MatMul, &[a, b], "matmul", span)?;
            batch = batch_a;
        } else {
            let rank = batch_a.len().max(batch_b.len());
            let size = |of: &[usize], d: usize| (d + of.len()).checked_sub(rank).map_or(1, |d| of[d]);
            batch = (0..rank).map(|d| size(&batch_a, d).max(size(&batch_b, d))).collect();
            for x in [&mut a, &mut b] {
                let own = self.shape(*x).to_vec();
                let to = [&batch[..], &own[own.len() - 2..]].concat();
                let fits = (0..rank).all(|d| [1, batch[d]].contains(&size(&own[..own.len() - 2], d)));
                if !fits {
                    let message = format!("matrices in {batch_a:?} and in {batch_b:?} do not fit");
                    self.misfit(
                        *x,
                        message,
                        "sizes are compared from the last on; they must be equal, or one of them 1",
                        span,
                    );
                    return None;
                }
                *x = self.broadcast_to(*x, &to, span)?;
            }
            product = self.add(Op::MatMul, &[a, b], "matmul", span)?;
        }
        let mut to = batch;
        to.extend((!is_row).then_some(rows));
        to.extend((!is_column).then_some(columns));
        product = self.reshaped(product, to, span)?;
        Some(product)
    }

    fn gemm(
        &mut self,
        of: [NodeId; 2],
        c: Option<NodeId>,
        [alpha, beta]: [f64; 2],
        transposed: [bool; 2],
        span: Span,
    ) -> Option<NodeId> {
        let mut of = of;
        for (x, is_transposed) in of.iter_mut().zip(transposed) {
            if self.shape(*x).len() != 2 {
                self.misfit(*x, "`Gemm` takes matrices", "they have two dimensions; `MatMul` takes more", span);
                return None;
            }
            if is_transposed {
                *x = self.permuted(*x, vec![1, 0], span)?;
            }
        }
        let mut product = self.matmul(of[0], of[1], span)?;
        if alpha != 1.0 {
            product = self.with(ScalarOp::Mul, product, alpha, span)?;
        }
        let Some(c) = c else { return Some(product) };
        let c = if beta == 1.0 { c } else { self.with(ScalarOp::Mul, c, beta, span)? };
        let result = self.shape(product).to_vec();
        let sum = self.apply_as(ScalarOp::Add, &[product, c], "gemm", span)?;
        if self.shape(sum) != result {
            self.misfit(
                c,
                format!("this is larger than the product, f32{result:?}"),
                "it must fit into the product",
                span,
            );
            return None;
        }
        Some(sum)
    }

    fn range(&mut self, [start, limit, delta]: [f64; 3], span: Span) -> Option<NodeId> {
        let count = ((limit - start) / delta).ceil();
        if !(1.0..=f64::from(i32::MAX)).contains(&count) {
            let what = if count > 1.0 { "too much" } else { "nothing" };
            let message = format!("there is {what} from {start} to {limit} in steps of {delta}");
            let diagnostic = Diagnostic::new("bad-value", message).label(span, "in this");
            self.d().report(diagnostic);
            return None;
        }
        let index = self.add(Op::Iota { axis: 0, ty: Type::f32([count as usize]) }, &[], "index", span)?;
        let scaled = self.with(ScalarOp::Mul, index, delta, span)?;
        self.with(ScalarOp::Add, scaled, start, span)
    }

    fn eye(&mut self, shape: [usize; 2], k: i64, span: Span) -> Option<NodeId> {
        let row = self.add(Op::Iota { axis: 0, ty: Type::f32(shape) }, &[], "row", span)?;
        let column = self.add(Op::Iota { axis: 1, ty: Type::f32(shape) }, &[], "column", span)?;
        let diagonal = self.with(ScalarOp::Add, row, k as f64, span)?;
        self.apply_as(ScalarOp::Eq, &[diagonal, column], "eye", span)
    }

    fn sizes_of(&mut self, x: NodeId, start: i64, end: i64, span: Span) -> Option<NodeId> {
        let shape = self.shape(x).to_vec();
        let rank = shape.len() as i64;
        let place = |at: i64| (if at < 0 { at.saturating_add(rank) } else { at }).clamp(0, rank) as usize;
        let (start, end) = (place(start), place(end));
        if start >= end {
            self.misfit(x, "no sizes are left", format!("there are {rank}"), span);
            return None;
        }
        let sizes: Vec<f64> = shape[start..end].iter().map(|&size| size as f64).collect();
        self.vector(&sizes, span)
    }

    /// Srivastava et al., "Dropout", JMLR 15 (2014), in the form that scales while training.
    pub fn dropout(&mut self, x: NodeId, rate: f64, span: Span) -> Option<NodeId> {
        if rate == 0.0 {
            return Some(x);
        }
        let shape = self.shape(x).to_vec();
        let mask = self.draw(Distribution::Bernoulli(Real(1.0 - rate)), shape, span)?;
        let scale = self.constant(1.0 / (1.0 - rate), span)?;
        let scaled = self.apply_as(ScalarOp::Mul, &[mask, scale], "scaled_mask", span)?;
        self.apply_as(ScalarOp::Mul, &[x, scaled], "drop", span)
    }

    /// The gradient of a scalar with respect to a value that it is computed from: as for the penalty of
    /// Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017.
    fn gradient(&mut self, y: NodeId, x: NodeId, at: &At) -> Option<NodeId> {
        self.expect_scalar(y, "only a single number has a gradient", at.args[0])?;
        if !self.reached_from(y).contains(&x) {
            let diagnostic =
                Diagnostic::new("independent-loss", "the gradient of something that does not depend on it")
                    .label(at.args[0], "this is not computed")
                    .label(at.args[1], "from this");
            self.d().report(diagnostic);
            return None;
        }
        self.add(Op::Gradient, &[y, x], "gradient", at.span)
    }
}
