//! Movement operations through scalar operations.

use super::rewrite::{Rewriter, Rule, rewrite, rules};
use super::{PassContext, Report};
use crate::ir::{Graph, NodeId, Op};

/// Moves broadcasts, reshapes and transpositions behind scalar operations, and slices before them. What
/// is computed is then computed before it is repeated and after it is cut, chains of scalar operations
/// run over one shape, and movements meet each other and cancel. Constants count as moved in any way.
///
/// ```text
/// %a: f32[8,4] = broadcast %x [8,4]           %e: f32[1,4] = exp %x
/// %y: f32[8,4] = exp %a                →      %y: f32[8,4] = broadcast %e [8,4]
/// ```
pub fn through(graph: &mut Graph, context: &PassContext) -> Report {
    rewrite(graph, RULES, context)
}

pub(super) const RULES: &[Rule] = rules! {
    after_broadcast: Nothing, "op(broadcast x, broadcast y) → broadcast(op(x, y))";
    after_reshape: Nothing, "op(reshape x, reshape y) → reshape(op(x, y))";
    after_transpose: Nothing, "op(transpose x, transpose y) → transpose(op(x, y))";
    before_slice: Nothing, "slice(op(x, y)) → op(slice x, slice y)";
};

/// The operands of a scalar operation; nothing where all are constants, which folding is for.
fn moving(r: &Rewriter, id: NodeId) -> Option<(Op, Vec<NodeId>)> {
    let op @ Op::Scalar(_) = r.root(id) else { return None };
    let operands = r.operands(id);
    operands.iter().any(|&x| r.constant(x).is_none()).then(|| (op.clone(), operands))
}

/// `op(broadcast a, broadcast b) → broadcast(op(a', b'))`, with `a'` and `b'` of the smallest shape that
/// holds both.
fn after_broadcast(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let (op, operands) = moving(r, id)?;
    let to = r.shape(id).to_vec();
    let mut small = vec![1; to.len()];
    for &x in operands.iter().filter(|&&x| r.constant(x).is_none()) {
        let Op::Broadcast { .. } = r.op(x)? else { return None };
        small.iter_mut().zip(r.shape(r.operand(x))).for_each(|(s, &size)| *s = size.max(*s));
    }
    if small == to {
        return None;
    }
    let operands: Vec<NodeId> = operands
        .into_iter()
        .map(|x| match r.resplat(x, &small) {
            Some(constant) => constant,
            None => {
                let inner = r.operand(x);
                r.broadcast(inner, &small)
            }
        })
        .collect();
    let result = r.add(op, &operands);
    Some(r.broadcast(result, &to))
}

/// `op(move a, move b) → move(op(a, b))` for a movement that keeps every element once.
fn after(r: &mut Rewriter, id: NodeId, is_kind: fn(&Op) -> bool) -> Option<NodeId> {
    let (op, operands) = moving(r, id)?;
    let mut found: Option<(Op, NodeId)> = None;
    for &x in operands.iter().filter(|&&x| r.constant(x).is_none()) {
        let movement = r.op(x).filter(|op| is_kind(op))?;
        let inner = r.operand(x);
        match &found {
            None => found = Some((movement.clone(), inner)),
            Some((other, first)) if other == movement && r.shape(*first) == r.shape(inner) => {}
            Some(_) => return None,
        }
    }
    let (movement, first) = found?;
    let shape = r.shape(first).to_vec();
    let operands: Vec<NodeId> = operands
        .into_iter()
        .map(|x| match r.resplat(x, &shape) {
            Some(constant) => constant,
            None => r.operand(x),
        })
        .collect();
    let result = r.add(op, &operands);
    Some(r.add(movement, &[result]))
}

fn after_reshape(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    after(r, id, |op| matches!(op, Op::Reshape { .. }))
}

fn after_transpose(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    after(r, id, |op| matches!(op, Op::Transpose { .. }))
}

/// `slice(op(a, b)) → op(slice a, slice b)` where nothing else needs the whole.
fn before_slice(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let slice @ Op::Slice { .. } = r.root(id) else { return None };
    let (slice, whole) = (slice.clone(), r.operand(id));
    let op @ Op::Scalar(_) = r.op(whole)? else { return None };
    if !r.used_once(whole) {
        return None;
    }
    let (op, to) = (op.clone(), r.shape(id).to_vec());
    let operands: Vec<NodeId> = r
        .operands(whole)
        .into_iter()
        .map(|x| match r.resplat(x, &to) {
            Some(constant) => constant,
            None => r.add(slice.clone(), &[x]),
        })
        .collect();
    Some(r.add(op, &operands))
}
