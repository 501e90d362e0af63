//! Expressions.

use super::decode::Args;
use super::diagnostic::{Diagnostic, Span};
use super::entry::{Binding, EntryLowering, Frame};
use super::layers::Mode;
use super::sizes::cycle;
use super::syntax::{Name, Node, Value};
use crate::ir::{DType, Distribution, NodeId, Op, Real, ReduceKind, Type};
use crate::scalar::{Lane, ScalarOp};

/// Operations that are not in the scalar table.
const OTHERS: [&str; 20] = [
    "Call",
    "Mean",
    "Sum",
    "MaxOver",
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
    "Flatten",
    "Iota",
];

/// How a scalar operation is written: `log` is `Log`, `add_u32` is `AddU32`.
fn written(op: ScalarOp) -> String {
    op.name().split('_').map(|part| part[..1].to_uppercase() + &part[1..]).collect()
}

impl<'n> EntryLowering<'_, '_, 'n> {
    /// The value of an expression: a name in quotes, a number, or an operation on expressions.
    pub fn expr(&mut self, node: &'n Node) -> Option<NodeId> {
        match &node.value {
            Value::Str(text) => self.name(&Name { text: text.clone(), span: node.span }),
            Value::Int(x) => Some(self.constant(*x as f64, node.span)),
            Value::Float(x) => Some(self.constant(*x, node.span)),
            Value::Tuple { name: Some(_), .. } | Value::Struct { name: Some(_), .. } => self.call(node),
            Value::Unit { name: Some(name) } if self.is_known(&name.text) => self.call(node),
            _ => {
                self.d().wrong_type(node, "an expression", "a name in quotes, a number or an operation `Name(...)`");
                None
            }
        }
    }

    fn is_known(&self, name: &str) -> bool {
        OTHERS.contains(&name)
            || ScalarOp::ALL.iter().any(|&op| written(op) == name)
            || self.lowering.program.function(name).is_some()
    }

    fn call(&mut self, node: &'n Node) -> Option<NodeId> {
        let (name, args) = self.d().call(node, "an operation")?;
        let span = node.span;
        if let Some(&op) = ScalarOp::ALL.iter().find(|&&op| written(op) == name.text) {
            return self.scalar(op, node, span);
        }
        if self.lowering.program.function(&name.text).is_some() {
            return self.function(name, node, span);
        }
        match name.text.as_str() {
            "Call" => self.call_network(args, span),
            "Mean" | "Sum" | "MaxOver" => self.reduce(&name.text, args, span),
            "Reshape" => {
                let (x, shape) = self.operand_and_shape(args)?;
                self.add(Op::Reshape { to: shape }, &[x], "reshape", span)
            }
            "Broadcast" => {
                let (x, shape) = self.operand_and_shape(args)?;
                self.broadcast_to(x, &shape, span)
            }
            "Flatten" => {
                let mut args = args;
                let x = args.required(self.d(), "x");
                args.finish(self.d());
                let x = self.expr(x?)?;
                self.flatten(x, span)
            }
            "Transpose" => {
                let (x, permutation) = self.operand_and_axes(args, "permutation")?;
                self.add(Op::Transpose { permutation }, &[x], "transpose", span)
            }
            "Slice" => self.slice(args, span),
            "Concat" => self.concat(args, span),
            "MatMul" => {
                let mut args = args;
                let (a, b) = (args.required(self.d(), "a"), args.required(self.d(), "b"));
                args.finish(self.d());
                let (a, b) = (self.expr(a?), self.expr(b?));
                self.add(Op::MatMul, &[a?, b?], "matmul", span)
            }
            "OneHot" => self.one_hot(args, span),
            "Softmax" | "LogSoftmax" => self.softmax(name.text == "LogSoftmax", args, span),
            "Iota" => self.iota(args, span),
            "Normal" | "Uniform" | "Bernoulli" => self.random(&name.text, args, span),
            "Detach" => {
                let mut args = args;
                let x = args.required(self.d(), "x");
                args.finish(self.d());
                let x = self.expr(x?)?;
                self.add(Op::Detach, &[x], "detach", span)
            }
            "Gradient" => {
                let mut args = args;
                let (loss, of) = (args.required(self.d(), "loss"), args.required(self.d(), "x"));
                args.finish(self.d());
                let (loss, of) = (self.expr(loss?), self.expr(of?));
                self.add(Op::Gradient, &[loss?, of?], "gradient", span)
            }
            other => {
                let scalars: Vec<String> = ScalarOp::ALL.iter().map(|&op| written(op)).collect();
                let functions = self.lowering.program.functions.iter().map(|f| f.name.text.as_str());
                let known: Vec<&str> =
                    OTHERS.into_iter().chain(scalars.iter().map(String::as_str)).chain(functions).collect();
                let diagnostic = Diagnostic::new("unknown-op", format!("there is no operation `{other}`"))
                    .label(name.span, "not known")
                    .did_you_mean(other, &known);
                self.d().report(diagnostic);
                None
            }
        }
    }

    /// The positional arguments of a call.
    fn positional(&mut self, node: &'n Node) -> Option<&'n [Node]> {
        match &node.value {
            Value::Tuple { items, .. } => Some(items),
            Value::Unit { .. } => Some(&[]),
            _ => {
                self.d().wrong_type(node, "the operands", "given by position: `Name(a, b)`");
                None
            }
        }
    }

    fn scalar(&mut self, op: ScalarOp, node: &'n Node, span: Span) -> Option<NodeId> {
        let items = self.positional(node)?;
        let arity = op.operand_lanes().len();
        let folds = matches!(op, ScalarOp::Add | ScalarOp::Mul | ScalarOp::Max | ScalarOp::Min);
        if items.len() != arity && !(folds && items.len() > arity) {
            let diagnostic = Diagnostic::new(
                "wrong-arguments",
                format!("`{}` takes {arity} operands, got {}", written(op), items.len()),
            )
            .label(span, "in this");
            self.d().report(diagnostic);
            return None;
        }
        let operands: Vec<Option<NodeId>> = items.iter().map(|item| self.expr(item)).collect();
        let operands: Vec<NodeId> = operands.into_iter().collect::<Option<_>>()?;
        if folds && operands.len() > arity {
            let (first, rest) = operands.split_first()?;
            return rest.iter().try_fold(*first, |a, &b| self.apply(op, &[a, b], span));
        }
        self.apply(op, &operands, span)
    }

    /// A scalar operation on operands that are brought to one shape first, as NumPy does: aligned at the last
    /// dimension, sizes of 1 repeated.
    pub fn apply(&mut self, op: ScalarOp, operands: &[NodeId], span: Span) -> Option<NodeId> {
        let rank = operands.iter().map(|&o| self.graph.shape(o).len()).max().unwrap_or(0);
        let mut shape = vec![1; rank];
        for &operand in operands {
            let of = self.graph.shape(operand).to_vec();
            for (to, &size) in shape[rank - of.len()..].iter_mut().zip(&of) {
                if *to == 1 {
                    *to = size;
                } else if size != 1 && size != *to {
                    let types: Vec<String> = operands.iter().map(|&o| self.graph.ty(o).to_string()).collect();
                    let diagnostic =
                        Diagnostic::new("shape-mismatch", format!("the operands of `{}` do not fit", written(op)))
                            .label(span, format!("these are {}", types.join(" and ")))
                            .help("sizes are compared from the last on; they must be equal, or one of them 1");
                    self.d().report(diagnostic);
                    return None;
                }
            }
        }
        let mut fitted = Vec::new();
        for (&operand, lane) in operands.iter().zip(op.operand_lanes()) {
            let expected = if *lane == Lane::U32 { DType::U32 } else { DType::F32 };
            let found = self.graph.ty(operand).dtype;
            if found != expected {
                let mut diagnostic = Diagnostic::new("wrong-dtype", format!("`{}` takes {expected}", written(op)))
                    .label(span, format!("an operand is {}", self.graph.ty(operand)));
                if found == DType::U32 {
                    diagnostic = diagnostic.help("`ToReal(...)` makes real numbers of labels");
                }
                self.d().report(diagnostic);
                return None;
            }
            fitted.push(self.broadcast_to(operand, &shape, span)?);
        }
        self.add(Op::Scalar(op), &fitted, op.name(), span)
    }

    /// `x` with sizes of 1 put in front and repeated to `shape`.
    pub fn broadcast_to(&mut self, x: NodeId, shape: &[usize], span: Span) -> Option<NodeId> {
        let from = self.graph.shape(x).to_vec();
        if from == shape {
            return Some(x);
        }
        // A constant is the same at any shape.
        if let Op::Constant { value, ty } = self.graph.op(x).clone() {
            return Some(self.leaf(Op::constant(value.0, ty.dtype, shape), "constant", span));
        }
        let mut x = x;
        if from.len() < shape.len() {
            let to = [vec![1; shape.len() - from.len()], from].concat();
            x = self.add(Op::Reshape { to }, &[x], "reshape", span)?;
        }
        if self.graph.shape(x) == shape {
            return Some(x);
        }
        self.add(Op::Broadcast { to: shape.to_vec() }, &[x], "broadcast", span)
    }

    fn function(&mut self, name: &'n Name, node: &'n Node, span: Span) -> Option<NodeId> {
        let program = self.lowering.program;
        let function = program.function(&name.text)?;
        self.lowering.used.insert(name.text.clone());
        let items = self.positional(node)?;
        if items.len() != function.params.len() {
            let names: Vec<&str> = function.params.iter().map(|p| p.text.as_str()).collect();
            let diagnostic = Diagnostic::new(
                "wrong-arguments",
                format!("`{}` takes {} arguments, got {}", name.text, names.len(), items.len()),
            )
            .label(span, "in this")
            .label(function.name.span, format!("declared here with {}", names.join(", ")));
            self.d().report(diagnostic);
            return None;
        }
        if self.expanding.contains(&name.text) {
            let path = self.expanding.clone();
            cycle(self.d(), "function", &path, &name.text, name.span);
            return None;
        }
        let args: Vec<Option<NodeId>> = items.iter().map(|item| self.expr(item)).collect();
        let params = function.params.iter().zip(&args);
        let frame: Frame = params
            .map(|(param, &node)| (param.text.clone(), Binding { node, span: param.span, used: false }))
            .collect();
        let outer = std::mem::replace(&mut self.frame, frame);
        self.expanding.push(name.text.clone());
        let value = self.expr(function.body);
        self.expanding.pop();
        let inner = std::mem::replace(&mut self.frame, outer);
        for (param, binding) in inner.iter().filter(|(_, b)| !b.used) {
            super::sizes::unused(self.d(), "parameter", param, binding.span);
        }
        args.iter().all(Option::is_some).then_some(value?)
    }

    fn call_network(&mut self, mut args: Args<'n>, span: Span) -> Option<NodeId> {
        const MODES: [(&str, Mode); 2] = [("Training", Mode::Training), ("Inference", Mode::Inference)];
        let network = args.required(self.d(), "network");
        let x = args.required(self.d(), "input");
        let mode = args.required(self.d(), "mode");
        args.finish(self.d());
        let mode = mode.and_then(|n| self.d().choice(n, "the mode", &MODES));
        let x = x.and_then(|n| self.expr(n));
        let (name, at) = self.quoted(network?, "the network")?;
        let program = self.lowering.program;
        let Some(network) = program.network(name) else {
            let known: Vec<&str> = program.networks.iter().map(|n| n.name.text.as_str()).collect();
            let diagnostic = Diagnostic::new("unknown-network", format!("there is no network `{name}`"))
                .label(at, "not declared")
                .suggest(name, &known);
            self.d().report(diagnostic);
            return None;
        };
        self.lowering.used.insert(name.to_string());
        self.network(network, x?, mode?, span)
    }

    fn operand_and_shape(&mut self, mut args: Args<'n>) -> Option<(NodeId, Vec<usize>)> {
        let (x, shape) = (args.required(self.d(), "x"), args.required(self.d(), "shape"));
        args.finish(self.d());
        let x = x.and_then(|n| self.expr(n));
        let shape = shape.and_then(|n| self.shape_of(n));
        Some((x?, shape?))
    }

    fn operand_and_axes(&mut self, mut args: Args<'n>, name: &'static str) -> Option<(NodeId, Vec<usize>)> {
        let (x, axes) = (args.required(self.d(), "x"), args.required(self.d(), name));
        args.finish(self.d());
        let x = x.and_then(|n| self.expr(n));
        let axes = axes.and_then(|n| self.axes(n));
        Some((x?, axes?))
    }

    /// Sizes by number or name.
    pub fn shape_of(&mut self, node: &Node) -> Option<Vec<usize>> {
        let program = self.lowering.program;
        self.lowering.sizes.shape(program, node, "a size", &mut self.lowering.d)
    }

    pub fn size_of(&mut self, node: &Node, what: &str) -> Option<usize> {
        let program = self.lowering.program;
        self.lowering.sizes.size(program, node, what, &mut self.lowering.d)
    }

    pub fn number_of(&mut self, node: &Node, what: &str) -> Option<f64> {
        let program = self.lowering.program;
        self.lowering.sizes.number(program, node, what, &mut self.lowering.d)
    }

    fn axes(&mut self, node: &Node) -> Option<Vec<usize>> {
        let items = self.d().list(node, "a list of dimensions")?;
        let axes: Vec<Option<usize>> = items.iter().map(|n| self.d().usize(n, "a dimension")).collect();
        axes.into_iter().collect()
    }

    fn reduce(&mut self, name: &str, mut args: Args<'n>, span: Span) -> Option<NodeId> {
        let x = args.required(self.d(), "x");
        let axes = args.optional("axes");
        args.finish(self.d());
        let x = x.and_then(|n| self.expr(n))?;
        let all = axes.is_none();
        let rank = self.graph.shape(x).len();
        let mut axes = match axes {
            Some(node) => self.axes(node)?,
            None => (0..rank).collect(),
        };
        axes.sort_unstable();
        axes.dedup();
        let count: usize = axes.iter().filter_map(|&a| self.graph.shape(x).get(a)).product();
        let kind = if name == "MaxOver" { ReduceKind::Max } else { ReduceKind::Sum };
        let mut value = x;
        if !axes.is_empty() {
            value = self.add(Op::Reduce { kind, axes }, &[x], &name.to_lowercase(), span)?;
        }
        if all {
            // Over everything: a scalar.
            value = self.add(Op::Reshape { to: vec![] }, &[value], &name.to_lowercase(), span)?;
        }
        if name == "Mean" {
            let inverse = self.constant(1.0 / count as f64, span);
            value = self.apply(ScalarOp::Mul, &[value, inverse], span)?;
        }
        Some(value)
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

    fn slice(&mut self, mut args: Args<'n>, span: Span) -> Option<NodeId> {
        let x = args.required(self.d(), "x");
        let (start, end) = (args.required(self.d(), "start"), args.required(self.d(), "end"));
        args.finish(self.d());
        let x = x.and_then(|n| self.expr(n));
        let start = start.and_then(|n| self.axes(n));
        let end = end.and_then(|n| self.shape_of(n));
        self.add(Op::Slice { start: start?, end: end? }, &[x?], "slice", span)
    }

    fn concat(&mut self, mut args: Args<'n>, span: Span) -> Option<NodeId> {
        let (items, axis) = (args.required(self.d(), "items"), args.required(self.d(), "axis"));
        args.finish(self.d());
        let axis = axis.and_then(|n| self.d().usize(n, "a dimension"));
        let items = items.and_then(|n| self.d().list(n, "what is joined"))?;
        let items: Vec<Option<NodeId>> = items.iter().map(|n| self.expr(n)).collect();
        let items: Vec<NodeId> = items.into_iter().collect::<Option<_>>()?;
        self.add(Op::Concat { axis: axis? }, &items, "concat", span)
    }

    fn iota(&mut self, mut args: Args<'n>, span: Span) -> Option<NodeId> {
        let (shape, axis) = (args.required(self.d(), "shape"), args.required(self.d(), "axis"));
        args.finish(self.d());
        let axis = axis.and_then(|n| self.d().usize(n, "a dimension"));
        let shape = shape.and_then(|n| self.shape_of(n))?;
        self.add(Op::Iota { axis: axis?, ty: Type::f32(shape) }, &[], "iota", span)
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
        let count = ty.shape[0];
        let labels = self.apply(ScalarOp::ToReal, &[labels], span)?;
        let labels = self.add(Op::Reshape { to: vec![count, 1] }, &[labels], "reshape", span)?;
        let index = self.leaf(Op::Iota { axis: 1, ty: Type::f32([1, classes]) }, "class", span);
        self.apply(ScalarOp::Eq, &[labels, index], span)
    }

    /// Over the last dimension; the largest is taken away first, so that nothing overflows.
    fn softmax(&mut self, log: bool, mut args: Args<'n>, span: Span) -> Option<NodeId> {
        let x = args.required(self.d(), "x");
        args.finish(self.d());
        let x = x.and_then(|n| self.expr(n))?;
        let Some(last) = self.graph.shape(x).len().checked_sub(1) else {
            self.d().report(Diagnostic::new("shape-mismatch", "a scalar has no classes").label(span, "in this"));
            return None;
        };
        let max = self.add(Op::Reduce { kind: ReduceKind::Max, axes: vec![last] }, &[x], "max", span)?;
        let shifted = self.apply(ScalarOp::Sub, &[x, max], span)?;
        let exp = self.apply(ScalarOp::Exp, &[shifted], span)?;
        let sum = self.add(Op::Reduce { kind: ReduceKind::Sum, axes: vec![last] }, &[exp], "sum", span)?;
        if log {
            let log = self.apply(ScalarOp::Log, &[sum], span)?;
            return self.apply(ScalarOp::Sub, &[shifted, log], span);
        }
        self.apply(ScalarOp::Div, &[exp, sum], span)
    }

    fn random(&mut self, name: &str, mut args: Args<'n>, span: Span) -> Option<NodeId> {
        let p = if name == "Bernoulli" { args.required(self.d(), "p") } else { None };
        let shape = args.required(self.d(), "shape");
        args.finish(self.d());
        let shape = shape.and_then(|n| self.shape_of(n));
        let distribution = match name {
            "Normal" => Distribution::Normal,
            "Uniform" => Distribution::Uniform,
            _ => Distribution::Bernoulli(Real(self.probability(p?, "the probability")?)),
        };
        self.draw(distribution, shape?, span)
    }

    /// A number from 0 to 1.
    pub fn probability(&mut self, node: &Node, what: &str) -> Option<f64> {
        let p = self.number_of(node, what)?;
        if (0.0..=1.0).contains(&p) {
            return Some(p);
        }
        self.d().report(
            Diagnostic::new("bad-value", format!("{what} is {p}")).label(node.span, "expected a number from 0 to 1"),
        );
        None
    }
}
