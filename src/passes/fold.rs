//! Constant folding.

use super::rewrite::{Rewriter, Rule, rewrite, rules};
use super::{PassContext, Report};
use crate::ir::{DType, Graph, NodeId, Op, ReduceKind};
use crate::tensor::round_to_bf16;

/// Computes what depends on constants alone. A constant is one value in every element, so movement and
/// reductions of constants fold too, whatever their size.
///
/// Values are computed in f64 and kept so: executors round them to f32 once, which is at least as near
/// to the declared computation as rounding after every operation. A value that no f32 can hold (a
/// result beyond its range or below, an infinity, not a number) is left for the device to compute, which then
/// shows what it shows without this pass.
///
/// ```text
/// %a: f32[] = constant 2                      %z: f32[4] = constant 6
/// %b: f32[] = constant 3
/// %y: f32[] = mul %a %b                →
/// %r: f32[1] = reshape %y [1]
/// %z: f32[4] = broadcast %r [4]
/// ```
pub fn fold(graph: &mut Graph, context: &PassContext) -> Report {
    rewrite(graph, RULES, context)
}

pub(super) const RULES: &[Rule] = rules! {
    scalar: Nothing, "op(c, d) → its value, where a float holds it";
    convert: Nothing, "convert c → c rounded, where a float holds it";
    movement: Nothing, "a movement of c → c";
    concat: Nothing, "concat(c, c) → c";
    reduce: Nothing, "max(c, …, c) → c", "deviations c → 0", "c + … + c → n · c, where a float holds it";
    iota: Nothing, "an iota along an axis of size 1 → 0";
};

/// Whether a device can hold a value: neither beyond the range of floats nor rounded away near zero.
pub(super) fn holds(value: f64, dtype: DType) -> bool {
    match dtype {
        DType::F32 => value == 0.0 || (value as f32).is_normal(),
        DType::Bf16 => value == 0.0 || round_to_bf16(value as f32).is_normal(),
        DType::U32 => true,
    }
}

fn scalar(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let &Op::Scalar(op) = r.root(id) else { return None };
    let args: Option<Vec<f64>> = r.operands(id).into_iter().map(|x| r.constant(x)).collect();
    let value = op.eval(&args?);
    holds(value, r.ty(id).dtype).then(|| r.constant_like(value, id))
}

/// A constant is rounded as its device would round it.
fn convert(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let &Op::Convert { to } = r.root(id) else { return None };
    let value = r.constant(r.operand(id))?;
    let value = if to == DType::Bf16 { f64::from(round_to_bf16(value as f32)) } else { value };
    holds(value, to).then(|| r.constant_like(value, id))
}

fn movement(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let value = match r.root(id) {
        Op::Reshape { .. } | Op::Transpose { .. } | Op::Broadcast { .. } | Op::Slice { .. } | Op::Reverse { .. } => {
            r.constant(r.operand(id))?
        }
        Op::Pad { .. } => r.constant(r.operand(id)).filter(|&v| v == 0.0)?,
        _ => return None,
    };
    Some(r.constant_like(value, id))
}

fn concat(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let Op::Concat { .. } = r.root(id) else { return None };
    let operands = r.operands(id);
    let value = r.constant(operands[0])?;
    let equal = operands.iter().all(|&x| r.constant(x).is_some_and(|v| v.to_bits() == value.to_bits()));
    equal.then(|| r.constant_like(value, id))
}

fn reduce(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let Op::Reduce { kind, axes } = r.root(id) else { return None };
    let x = r.operand(id);
    let (value, rewrite) = match kind {
        ReduceKind::Max => (r.constant(x)?, "max(c, …, c) → c"),
        // What is not finite deviates from itself.
        ReduceKind::Deviations => (r.constant(x)? - r.constant(x)?, "deviations c → 0"),
        ReduceKind::Sum => {
            let summands: f64 = axes.iter().map(|&a| r.shape(x)[a] as f64).product();
            (r.constant(x)? * summands, "c + … + c → n · c, where a float holds it")
        }
    };
    holds(value, DType::F32).then(|| {
        r.by(rewrite);
        r.constant_like(value, id)
    })
}

/// The only index along an axis of size 1 is 0.
fn iota(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let Op::Iota { axis, ty } = r.root(id) else { return None };
    (ty.shape[*axis] == 1).then(|| r.constant_like(0.0, id))
}
