//! Derivatives of scalar operations, from the scalar table's partial derivatives.
//!
//! The table states all partial derivatives of an operation at once. They are first recorded as
//! expressions, and only those that are needed become nodes: the derivative of `x / 3` in `x` is not
//! accompanied by one in the constant.

use crate::ir::{Builder, NodeId, Op};
use crate::scalar::{ScalarBuilder, ScalarOp};

/// Whether the table states a derivative of `op` with respect to its operand number `operand`.
pub(super) fn exists(op: ScalarOp, operand: usize) -> bool {
    let mut recorder = Recorder::default();
    let args = vec![0; op.operand_lanes().len()];
    op.partials(&mut recorder, &args, 0)[operand].is_some()
}

/// The adjoints `dy · ∂op/∂operand` of the needed operands, where `y = op(operands)`.
pub(super) fn vjp(
    b: &mut Builder<'_>,
    op: ScalarOp,
    operands: &[NodeId],
    y: NodeId,
    dy: NodeId,
    needed: &[bool],
) -> Vec<Option<NodeId>> {
    let mut recorder = Recorder::default();
    let args: Vec<usize> = operands.iter().map(|&id| recorder.push(Term::Node(id))).collect();
    let result = recorder.push(Term::Node(y));
    let partials = op.partials(&mut recorder, &args, result);
    (partials.into_iter().zip(needed))
        .map(|(partial, &needed)| partial.filter(|_| needed).map(|term| recorder.times(b, dy, term)))
        .collect()
}

/// A recorded scalar expression. Terms are referred to by their position in the recorder.
#[derive(Debug, Clone)]
enum Term {
    Literal(f64),
    Node(NodeId),
    Apply(ScalarOp, Vec<usize>),
}

#[derive(Debug, Default)]
struct Recorder {
    terms: Vec<Term>,
}

impl ScalarBuilder for Recorder {
    type Value = usize;

    fn constant(&mut self, value: f64) -> usize {
        self.push(Term::Literal(value))
    }

    fn apply(&mut self, op: ScalarOp, args: &[usize]) -> usize {
        self.push(Term::Apply(op, args.to_vec()))
    }
}

impl Recorder {
    fn push(&mut self, term: Term) -> usize {
        self.terms.push(term);
        self.terms.len() - 1
    }

    fn is_literal(&self, term: usize, value: f64) -> bool {
        matches!(self.terms[term], Term::Literal(v) if v == value)
    }

    /// Nodes for a term, of the shape of `like`. A term that was built before is not built again.
    fn build(&mut self, b: &mut Builder<'_>, like: NodeId, term: usize) -> NodeId {
        let id = match self.terms[term].clone() {
            Term::Node(id) => return id,
            Term::Literal(value) => {
                let shape = b.shape(like);
                b.constant(value, &shape)
            }
            Term::Apply(op, args) => {
                let args: Vec<NodeId> = args.into_iter().map(|arg| self.build(b, like, arg)).collect();
                b.scalar(op, &args)
            }
        };
        self.terms[term] = Term::Node(id);
        id
    }

    /// Nodes for `dy · term`. The multiplication is left out where the term's form allows:
    /// `dy · 1 = dy`, `dy · −1 = −dy`, `dy · −t = −(dy · t)`, `dy · (1 / t) = dy / t`, and a mask
    /// selects `dy`.
    fn times(&mut self, b: &mut Builder<'_>, dy: NodeId, term: usize) -> NodeId {
        match self.terms[term].clone() {
            Term::Literal(1.0) => dy,
            Term::Literal(-1.0) => b.scalar(ScalarOp::Neg, &[dy]),
            Term::Apply(ScalarOp::Neg, args) => {
                let product = self.times(b, dy, args[0]);
                b.scalar(ScalarOp::Neg, &[product])
            }
            Term::Apply(ScalarOp::Div, args) if self.is_literal(args[0], 1.0) => {
                let divisor = self.build(b, dy, args[1]);
                b.div(dy, divisor)
            }
            Term::Apply(ScalarOp::Select, args) if self.is_literal(args[1], 1.0) && self.is_literal(args[2], 0.0) => {
                let (mask, zero) = (self.build(b, dy, args[0]), self.build(b, dy, args[2]));
                b.scalar(ScalarOp::Select, &[mask, dy, zero])
            }
            Term::Apply(ScalarOp::Select, args) if self.is_literal(args[1], 0.0) && self.is_literal(args[2], 1.0) => {
                let (mask, zero) = (self.build(b, dy, args[0]), self.build(b, dy, args[1]));
                b.scalar(ScalarOp::Select, &[mask, zero, dy])
            }
            _ => {
                let partial = self.build(b, dy, term);
                if is_one(b, dy) { partial } else { b.mul(dy, partial) }
            }
        }
    }
}

fn is_one(b: &Builder<'_>, id: NodeId) -> bool {
    matches!(b.graph.op(id), Op::Constant { value, .. } if value.0 == 1.0)
}
