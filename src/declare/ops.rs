//! Operations that are not in the scalar table, expanded to primitives.

use super::decode::Args;
use super::diagnostic::{Diagnostic, Span};
use super::entry::EntryLowering;
use super::syntax::Node;
use crate::ir::{DType, Distribution, NodeId, Op, Real, ReduceKind, Type};
use crate::scalar::ScalarOp;
use std::collections::BTreeSet;

/// Their names.
pub const OPERATIONS: [&str; 20] = [
    "Mean",
    "Sum",
    "ReduceMax",
    "Reshape",
    "Broadcast",
    "Transpose",
    "Slice",
    "Concat",
    "MatMul",
    "OneHot",
    "Softmax",
    "LogSoftmax",
    "Normal",
    "Uniform",
    "Bernoulli",
    "Gradient",
    "Detach",
    "Convert",
    "Flatten",
    "Iota",
];

impl<'n> EntryLowering<'_, '_, 'n> {
    /// One of [`OPERATIONS`].
    pub fn primitive(&mut self, name: &str, mut args: Args<'n>, span: Span) -> Option<NodeId> {
        match name {
            "Mean" | "Sum" | "ReduceMax" => self.reduce(name, args, span),
            "Reshape" | "Broadcast" => {
                let (x, shape) = (args.required(self.d(), "x"), args.required(self.d(), "shape"));
                args.finish(self.d());
                let x = x.and_then(|n| self.expr(n));
                let (shape, x) = (shape.and_then(|n| self.shape_of(n))?, x?);
                if name == "Broadcast" {
                    return self.repeat(x, &shape, span);
                }
                self.add(Op::Reshape { to: shape }, &[x], "reshape", span)
            }
            "Transpose" => {
                let (x, permutation) = (args.required(self.d(), "x"), args.required(self.d(), "permutation"));
                args.finish(self.d());
                let x = x.and_then(|n| self.expr(n));
                let permutation = permutation.and_then(|n| self.dimensions(n))?;
                self.add(Op::Transpose { permutation }, &[x?], "transpose", span)
            }
            "Slice" => {
                let x = args.required(self.d(), "x");
                let (start, end) = (args.required(self.d(), "start"), args.required(self.d(), "end"));
                args.finish(self.d());
                let x = x.and_then(|n| self.expr(n));
                let start = start.and_then(|n| self.dimensions(n));
                let end = end.and_then(|n| self.shape_of(n));
                self.add(Op::Slice { start: start?, end: end? }, &[x?], "slice", span)
            }
            "Concat" => {
                let (items, axis) = (args.required(self.d(), "items"), args.required(self.d(), "axis"));
                args.finish(self.d());
                let axis = axis.and_then(|n| self.d().usize(n, "a dimension"));
                let items = items.and_then(|n| self.d().list(n, "what is joined"))?;
                let items: Vec<Option<NodeId>> = items.iter().map(|n| self.expr(n)).collect();
                let items: Vec<NodeId> = items.into_iter().collect::<Option<_>>()?;
                self.add(Op::Concat { axis: axis? }, &items, "concat", span)
            }
            "MatMul" => {
                let (a, b) = (args.required(self.d(), "a"), args.required(self.d(), "b"));
                args.finish(self.d());
                let (a, b) = (a.and_then(|n| self.expr(n)), b.and_then(|n| self.expr(n)));
                self.add(Op::MatMul, &[a?, b?], "matmul", span)
            }
            "OneHot" => self.one_hot(args, span),
            "Softmax" | "LogSoftmax" => {
                let x = self.only_operand(args)?;
                self.softmax(name == "LogSoftmax", x, span)
            }
            "Normal" | "Uniform" | "Bernoulli" => self.random(name, args, span),
            "Gradient" => self.gradient(args, span),
            "Detach" => {
                let x = self.only_operand(args)?;
                self.add(Op::Detach, &[x], "detach", span)
            }
            "Convert" => {
                let (x, to) = (args.required(self.d(), "x"), args.required(self.d(), "to"));
                args.finish(self.d());
                let x = x.and_then(|n| self.expr(n));
                let types = [("F32", DType::F32), ("Bf16", DType::Bf16)];
                let to = to.and_then(|n| self.d().choice(n, "an element type", &types))?;
                self.add(Op::Convert { to }, &[x?], "convert", span)
            }
            "Flatten" => {
                let x = self.only_operand(args)?;
                self.flatten(x, span)
            }
            "Iota" => {
                let (shape, axis) = (args.required(self.d(), "shape"), args.required(self.d(), "axis"));
                args.finish(self.d());
                let axis = axis.and_then(|n| self.d().usize(n, "a dimension"));
                let shape = shape.and_then(|n| self.shape_of(n))?;
                self.add(Op::Iota { axis: axis?, ty: Type::f32(shape) }, &[], "iota", span)
            }
            other => unreachable!("`{other}` is in the list of operations, but has no arm here"),
        }
    }

    fn only_operand(&mut self, mut args: Args<'n>) -> Option<NodeId> {
        let x = args.required(self.d(), "x");
        args.finish(self.d());
        self.expr(x?)
    }

    /// Sizes by number or name.
    pub fn shape_of(&mut self, node: &Node) -> Option<Vec<usize>> {
        let program = self.lowering.program;
        self.lowering.sizes.shape(program, node, "a list of sizes", &mut self.lowering.d)
    }

    pub fn size_of(&mut self, node: &Node, what: &str) -> Option<usize> {
        let program = self.lowering.program;
        self.lowering.sizes.size(program, node, what, &mut self.lowering.d)
    }

    pub fn number_of(&mut self, node: &Node, what: &str) -> Option<f64> {
        let program = self.lowering.program;
        self.lowering.sizes.number(program, node, what, &mut self.lowering.d)
    }

    /// A number with a lower limit, that counts too, and an upper one, that does not.
    pub fn number_in(&mut self, node: &Node, what: &str, range: std::ops::Range<f64>) -> Option<f64> {
        let value = self.number_of(node, what)?;
        if range.contains(&value) {
            return Some(value);
        }
        let expected = match range.end {
            f64::INFINITY => format!("expected a number from {} on", range.start),
            end => format!("expected a number from {} to below {end}", range.start),
        };
        self.d().report(Diagnostic::new("bad-value", format!("{what} is {value}")).label(node.span, expected));
        None
    }

    /// Numbers of dimensions, from 0 on.
    fn dimensions(&mut self, node: &Node) -> Option<Vec<usize>> {
        let items = self.d().list(node, "a list of dimensions")?;
        let axes: Vec<Option<usize>> = items.iter().map(|n| self.d().usize(n, "a dimension")).collect();
        axes.into_iter().collect()
    }

    /// Over all dimensions, to a scalar; or over some, which stay with size 1, so that the result still stands
    /// beside the operand.
    fn reduce(&mut self, name: &str, mut args: Args<'n>, span: Span) -> Option<NodeId> {
        let x = args.required(self.d(), "x");
        let axes = args.optional("axes");
        args.finish(self.d());
        let x = x.and_then(|n| self.expr(n));
        let given = match axes {
            Some(node) => Some(self.dimensions(node)?),
            None => None,
        };
        let x = x?;
        let is_total = given.is_none();
        let mut axes = given.unwrap_or_else(|| (0..self.graph.shape(x).len()).collect());
        axes.sort_unstable();
        axes.dedup();
        let count: usize = axes.iter().filter_map(|&a| self.graph.shape(x).get(a)).product();
        let (kind, label) = match name {
            "ReduceMax" => (ReduceKind::Max, "max"),
            "Sum" | "Mean" => (ReduceKind::Sum, "sum"),
            other => unreachable!("`{other}` is no reduction"),
        };
        let mut value = x;
        if !axes.is_empty() {
            value = self.add(Op::Reduce { kind, axes }, &[value], label, span)?;
        }
        if is_total && !self.graph.shape(value).is_empty() {
            value = self.add(Op::Reshape { to: vec![] }, &[value], label, span)?;
        }
        if name == "Mean" {
            let inverse = self.constant(1.0 / count as f64, span)?;
            value = self.apply_as(ScalarOp::Mul, &[value, inverse], "mean", span)?;
        }
        Some(value)
    }

    /// `x` repeated to exactly `shape`.
    fn repeat(&mut self, x: NodeId, shape: &[usize], span: Span) -> Option<NodeId> {
        let from = self.graph.shape(x);
        let fits = from.len() <= shape.len()
            && from.iter().rev().zip(shape.iter().rev()).all(|(&from, &to)| from == 1 || from == to);
        if fits {
            return self.broadcast_to(x, shape, span);
        }
        let diagnostic = Diagnostic::new("shape-mismatch", format!("this cannot be repeated to {shape:?}"))
            .label(span, format!("it is {}", self.graph.ty(x)))
            .help("sizes are compared from the last on; only a size of 1 can be repeated");
        self.d().report(diagnostic);
        None
    }

    /// `[n, ...]` to `[n, all the rest]`.
    pub fn flatten(&mut self, x: NodeId, span: Span) -> Option<NodeId> {
        let shape = self.graph.shape(x).to_vec();
        let Some((first, rest)) = shape.split_first() else {
            self.d().report(Diagnostic::new("shape-mismatch", "a scalar cannot be flattened").label(span, "in this"));
            return None;
        };
        self.add(Op::Reshape { to: vec![*first, rest.iter().product()] }, &[x], "flatten", span)
    }

    /// `labels: u32[n]` to `[n, classes]`: 1 at the label, else 0.
    fn one_hot(&mut self, mut args: Args<'n>, span: Span) -> Option<NodeId> {
        let (labels, classes) = (args.required(self.d(), "labels"), args.required(self.d(), "classes"));
        args.finish(self.d());
        let labels = labels.and_then(|n| self.expr(n));
        let classes = classes.and_then(|n| self.size_of(n, "the number of classes"));
        let (labels, classes) = (labels?, classes?);
        let ty = self.graph.ty(labels).clone();
        if ty.dtype != DType::U32 || ty.rank() != 1 {
            let diagnostic = Diagnostic::new("shape-mismatch", "`OneHot` takes labels, u32[examples]")
                .label(span, format!("these are {ty}"));
            self.d().report(diagnostic);
            return None;
        }
        if let Op::Input { name, .. } = self.graph.op(labels)
            && let Some(input) = self.inputs.iter_mut().find(|i| i.name == *name)
        {
            input.below = Some(input.below.map_or(classes, |other| other.min(classes)));
        }
        let count = ty.shape[0];
        let labels = self.apply(ScalarOp::ToReal, &[labels], span)?;
        let labels = self.add(Op::Reshape { to: vec![count, 1] }, &[labels], "labels", span)?;
        let index = self.add(Op::Iota { axis: 1, ty: Type::f32([1, classes]) }, &[], "class", span)?;
        self.apply_as(ScalarOp::Eq, &[labels, index], "one_hot", span)
    }

    /// Over the last dimension; the largest is taken away first, so that nothing overflows.
    fn softmax(&mut self, log: bool, x: NodeId, span: Span) -> Option<NodeId> {
        let Some(last) = self.graph.shape(x).len().checked_sub(1) else {
            self.d().report(Diagnostic::new("shape-mismatch", "a scalar has no classes").label(span, "in this"));
            return None;
        };
        let max = self.add(Op::Reduce { kind: ReduceKind::Max, axes: vec![last] }, &[x], "max", span)?;
        let shifted = self.apply_as(ScalarOp::Sub, &[x, max], "shifted", span)?;
        let exp = self.apply(ScalarOp::Exp, &[shifted], span)?;
        let sum = self.add(Op::Reduce { kind: ReduceKind::Sum, axes: vec![last] }, &[exp], "sum", span)?;
        if log {
            let log = self.apply(ScalarOp::Log, &[sum], span)?;
            return self.apply_as(ScalarOp::Sub, &[shifted, log], "log_softmax", span);
        }
        self.apply_as(ScalarOp::Div, &[exp, sum], "softmax", span)
    }

    fn random(&mut self, name: &str, mut args: Args<'n>, span: Span) -> Option<NodeId> {
        let p = if name == "Bernoulli" { args.required(self.d(), "p") } else { None };
        let shape = args.required(self.d(), "shape");
        args.finish(self.d());
        let shape = shape.and_then(|n| self.shape_of(n));
        let distribution = match name {
            "Normal" => Distribution::Normal,
            "Uniform" => Distribution::Uniform,
            "Bernoulli" => Distribution::Bernoulli(Real(self.probability(p?, "the probability")?)),
            other => unreachable!("`{other}` is no draw"),
        };
        self.draw(distribution, shape?, span)
    }

    /// A number from 0 to 1.
    fn probability(&mut self, node: &Node, what: &str) -> Option<f64> {
        let p = self.number_of(node, what)?;
        if (0.0..=1.0).contains(&p) {
            return Some(p);
        }
        self.d().report(
            Diagnostic::new("bad-value", format!("{what} is {p}")).label(node.span, "expected a number from 0 to 1"),
        );
        None
    }

    /// The gradient of a scalar with respect to a value that it is computed from: as for the penalty of
    /// Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017.
    fn gradient(&mut self, mut args: Args<'n>, span: Span) -> Option<NodeId> {
        let (of, to) = (args.required(self.d(), "of"), args.required(self.d(), "x"));
        args.finish(self.d());
        let y = of.and_then(|n| self.expr(n));
        let x = to.and_then(|n| self.expr(n));
        let (y, x, of) = (y?, x?, of?);
        self.expect_scalar(y, "only a single number has a gradient", of.span)?;
        if !self.reached_from(y).contains(&x) {
            let diagnostic =
                Diagnostic::new("independent-loss", "the gradient of something that does not depend on it")
                    .label(of.span, "this is not computed")
                    .label(to?.span, "from this");
            self.d().report(diagnostic);
            return None;
        }
        self.add(Op::Gradient, &[y, x], "gradient", span)
    }

    /// Reports anything but f32[].
    pub fn expect_scalar(&mut self, x: NodeId, message: &str, span: Span) -> Option<()> {
        let ty = self.graph.ty(x);
        if *ty == Type::f32([]) {
            return Some(());
        }
        let diagnostic = Diagnostic::new("non-scalar-loss", message)
            .label(span, format!("this is {ty}"))
            .help("`Mean(...)` or `Sum(...)` makes one number of many");
        self.d().report(diagnostic);
        None
    }

    /// Every node that a value depends on, itself included.
    pub fn reached_from(&self, node: NodeId) -> BTreeSet<NodeId> {
        let mut reached = BTreeSet::new();
        let mut stack = vec![node];
        while let Some(node) = stack.pop() {
            if reached.insert(node) {
                stack.extend(self.graph.operands(node));
            }
        }
        reached
    }
}
