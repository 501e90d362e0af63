//! Movement operations that undo each other, do nothing, or can be one.

use super::rewrite::{Rewriter, Rule, rewrite, rules};
use super::{PassContext, Report};
use crate::ir::{DType, Graph, NodeId, Op};

/// Cancels and merges movement operations. Broadcasts go last in a chain of movements, so that what
/// moves is small and the broadcast can go on through scalar operations; a transposition that only
/// moves dimensions of size 1 becomes a reshape.
///
/// ```text
/// %a: f32[3,2] = transpose %x [1,0]           %y: f32[6] = reshape %x [6]
/// %b: f32[2,3] = transpose %a [1,0]
/// %c: f32[3,2] = reshape %b [3,2]      →
/// %y: f32[6] = reshape %c [6]
/// ```
pub fn movement(graph: &mut Graph, context: &PassContext) -> Report {
    rewrite(graph, RULES, context)
}

pub(super) const RULES: &[Rule] = rules! {
    identity: Nothing, "a movement that moves nothing → its operand";
    convert: Nothing, "convert(convert x) → x, from bf16 to f32 and back";
    reshape: Nothing, "reshape(reshape x) → reshape x", "reshape(broadcast x) → broadcast(reshape x)";
    transpose: Nothing, "transpose(transpose x) → transpose x", "transpose(broadcast x) → broadcast(transpose x)",
        "transpose(x · y) → transpose y · transpose x", "transpose x → reshape x where only dimensions of size 1 move";
    broadcast: Nothing, "broadcast(broadcast x) → broadcast x";
    pad: Nothing, "pad(pad x) → pad x";
    slice: Nothing, "slice(slice x) → slice x", "slice(pad x) → 0", "slice(pad x) → slice x",
        "slice(concat(x, y)) → slice x", "slice(broadcast x) → broadcast(slice x)";
    reverse: Nothing, "reverse(reverse x) → x", "reverse(reverse x) → reverse x",
        "reverse(broadcast x) → broadcast(reverse x)";
    concat: Nothing, "concat(concat(x, y), z) → concat(x, y, z)";
    concat_of_slices: Nothing, "concat(slice x, slice x) → slice x where one goes on from the other";
    iota: Nothing, "iota → broadcast(iota)";
};

/// A movement that leaves every element where it is.
fn identity(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let still = match r.root(id) {
        Op::Reshape { .. } | Op::Broadcast { .. } | Op::Slice { .. } => r.ty(r.operand(id)) == r.ty(id),
        Op::Transpose { permutation } => permutation.iter().enumerate().all(|(i, &p)| i == p),
        Op::Convert { to } => r.ty(r.operand(id)).dtype == *to,
        Op::Pad { low, high } => low.iter().chain(high).all(|&n| n == 0),
        Op::Reverse { axes } => axes.iter().all(|&a| r.shape(id)[a] == 1),
        Op::Concat { .. } => r.operands(id).len() == 1,
        _ => false,
    };
    still.then(|| r.operand(id))
}

/// bf16 to f32 and back is exact. The other way round it rounds, and stays.
fn convert(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let &Op::Convert { to } = r.root(id) else { return None };
    let wide = r.operand(id);
    let &Op::Convert { to: DType::F32 } = r.op(wide)? else { return None };
    let narrow = r.operand(wide);
    (r.ty(narrow).dtype == to).then_some(narrow)
}

/// Ranges of dimensions of two shapes with equal products, as short as possible, in order.
pub(super) fn regroup(from: &[usize], to: &[usize]) -> Vec<(std::ops::Range<usize>, std::ops::Range<usize>)> {
    let (mut i, mut j) = (0, 0);
    let mut groups = Vec::new();
    while i < from.len() || j < to.len() {
        let (i0, j0) = (i, j);
        let next = |shape: &[usize], at: &mut usize| {
            *at += 1;
            shape.get(*at - 1).copied()
        };
        let mut p = if i < from.len() { next(from, &mut i).unwrap_or(1) } else { 1 };
        let mut q = if j < to.len() { next(to, &mut j).unwrap_or(1) } else { 1 };
        while p != q {
            let factor = if p < q { next(from, &mut i).map(|f| p *= f) } else { next(to, &mut j).map(|f| q *= f) };
            if factor.is_none() {
                // Not reached for shapes of equal element counts.
                return vec![(0..from.len(), 0..to.len())];
            }
        }
        groups.push((i0..i, j0..j));
    }
    groups
}

/// Where a value of shape `small`, broadcast to `from`, is reshaped to `to`: the shape it can be given
/// instead, to be broadcast afterwards.
fn reshape_before_broadcast(small: &[usize], from: &[usize], to: &[usize]) -> Option<Vec<usize>> {
    let mut shape = Vec::with_capacity(to.len());
    for (i, j) in regroup(from, to) {
        if small[i.clone()] == from[i.clone()] {
            shape.extend(&to[j]);
        } else if small[i].iter().all(|&s| s == 1) {
            shape.extend(j.map(|_| 1));
        } else {
            return None;
        }
    }
    Some(shape)
}

/// `reshape(reshape x) → reshape x`, `reshape(broadcast x) → broadcast(reshape x)`.
fn reshape(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let Op::Reshape { to } = r.root(id) else { return None };
    let (to, a) = (to.clone(), r.operand(id));
    match r.op(a)? {
        Op::Reshape { .. } => {
            r.by("reshape(reshape x) → reshape x");
            let x = r.operand(a);
            Some(r.reshape(x, &to))
        }
        Op::Broadcast { .. } => {
            let x = r.operand(a);
            r.by("reshape(broadcast x) → broadcast(reshape x)");
            let small = reshape_before_broadcast(r.shape(x), r.shape(a), &to)?;
            let x = r.reshape(x, &small);
            Some(r.broadcast(x, &to))
        }
        _ => None,
    }
}

/// `transpose(transpose x) → transpose x`, `transpose(broadcast x) → broadcast(transpose x)`, a product's becomes that of its
/// operands, and a
/// transposition of dimensions of size 1 alone is a reshape.
fn transpose(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let Op::Transpose { permutation } = r.root(id) else { return None };
    let (permutation, a) = (permutation.clone(), r.operand(id));
    let wide: Vec<usize> = permutation.iter().copied().filter(|&p| r.shape(a)[p] != 1).collect();
    if wide.is_sorted() {
        r.by("transpose x → reshape x where only dimensions of size 1 move");
        let to = r.shape(id).to_vec();
        return Some(r.reshape(a, &to));
    }
    match r.op(a)? {
        Op::Transpose { permutation: inner } => {
            let composed: Vec<usize> = permutation.iter().map(|&p| inner[p]).collect();
            r.by("transpose(transpose x) → transpose x");
            let x = r.operand(a);
            Some(r.add(Op::Transpose { permutation: composed }, &[x]))
        }
        Op::Broadcast { .. } => {
            let (x, to) = (r.operand(a), r.shape(id).to_vec());
            r.by("transpose(broadcast x) → broadcast(transpose x)");
            let x = r.add(Op::Transpose { permutation }, &[x]);
            Some(r.broadcast(x, &to))
        }
        // The product reads its operands as they lie, so neither is moved.
        Op::MatMul if r.used_once(a) && swaps_rows_and_columns(&permutation) => {
            r.by("transpose(x · y) → transpose y · transpose x");
            let [x, y] = [0, 1].map(|side| r.operands(a)[side]);
            let [y, x] = [y, x].map(|operand| r.add(Op::Transpose { permutation: permutation.clone() }, &[operand]));
            Some(r.add(Op::MatMul, &[y, x]))
        }
        _ => None,
    }
}

/// Whether a permutation exchanges the last two dimensions alone.
pub(super) fn swaps_rows_and_columns(permutation: &[usize]) -> bool {
    let rank = permutation.len();
    let leading = permutation.iter().take_while(|&&d| d + 2 < rank);
    rank >= 2 && permutation[rank - 2..] == [rank - 1, rank - 2] && leading.enumerate().all(|(i, &d)| i == d)
}

/// `broadcast(broadcast x) → broadcast x`.
fn broadcast(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let Op::Broadcast { to } = r.root(id) else { return None };
    let (to, a) = (to.clone(), r.operand(id));
    let Op::Broadcast { .. } = r.op(a)? else { return None };
    let x = r.operand(a);
    Some(r.broadcast(x, &to))
}

/// `pad(pad x) → pad x`.
fn pad(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let Op::Pad { low, high } = r.root(id) else { return None };
    let a = r.operand(id);
    let Op::Pad { low: inner_low, high: inner_high } = r.op(a)? else { return None };
    let sum = |a: &[usize], b: &[usize]| a.iter().zip(b).map(|(a, b)| a + b).collect();
    let (low, high) = (sum(low, inner_low), sum(high, inner_high));
    let x = r.operand(a);
    Some(r.add(Op::Pad { low, high }, &[x]))
}

/// A slice of a slice is one slice; of padding it is zero, and of what is padded a slice of that; of a
/// concatenation's operand a slice of that; of a broadcast value a broadcast slice.
fn slice(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let Op::Slice { start, end } = r.root(id) else { return None };
    let (mut start, mut end, a) = (start.clone(), end.clone(), r.operand(id));
    match r.op(a)? {
        Op::Slice { start: inner, .. } => {
            start.iter_mut().zip(inner).for_each(|(s, i)| *s += i);
            end.iter_mut().zip(inner).for_each(|(e, i)| *e += i);
            r.by("slice(slice x) → slice x");
            let x = r.operand(a);
            Some(r.add(Op::Slice { start, end }, &[x]))
        }
        Op::Pad { low, .. } => {
            let x = r.operand(a);
            let low = low.clone();
            let axes = 0..start.len();
            if axes.clone().any(|i| end[i] <= low[i] || start[i] >= low[i] + r.shape(x)[i]) {
                r.by("slice(pad x) → 0");
                return Some(r.constant_like(0.0, id));
            }
            if axes.clone().any(|i| start[i] < low[i] || end[i] > low[i] + r.shape(x)[i]) {
                return None;
            }
            for i in axes {
                start[i] -= low[i];
                end[i] -= low[i];
            }
            r.by("slice(pad x) → slice x");
            Some(r.add(Op::Slice { start, end }, &[x]))
        }
        Op::Concat { axis } => {
            let axis = *axis;
            let mut offset = 0;
            for x in r.operands(a) {
                let size = r.shape(x)[axis];
                if (offset..offset + size).contains(&start[axis]) && end[axis] <= offset + size {
                    start[axis] -= offset;
                    end[axis] -= offset;
                    r.by("slice(concat(x, y)) → slice x");
                    return Some(r.add(Op::Slice { start, end }, &[x]));
                }
                offset += size;
            }
            None
        }
        Op::Broadcast { .. } => {
            let (x, to) = (r.operand(a), r.shape(id).to_vec());
            for (axis, &size) in r.shape(x).iter().enumerate() {
                if size == 1 {
                    (start[axis], end[axis]) = (0, 1);
                }
            }
            r.by("slice(broadcast x) → broadcast(slice x)");
            let x = r.add(Op::Slice { start, end }, &[x]);
            Some(r.broadcast(x, &to))
        }
        _ => None,
    }
}

/// `reverse(reverse x)` turns the axes that only one of them turns; `reverse(broadcast x)` becomes
/// `broadcast(reverse x)`, where axes of size 1 need no turning.
fn reverse(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let Op::Reverse { axes } = r.root(id) else { return None };
    let (axes, a) = (axes.clone(), r.operand(id));
    let x = r.operands(a).first().copied();
    match r.op(a)? {
        Op::Reverse { axes: inner } => {
            let mut both: Vec<usize> = axes.iter().filter(|a| !inner.contains(a)).copied().collect();
            both.extend(inner.iter().filter(|a| !axes.contains(a)));
            both.sort_unstable();
            let x = x?;
            r.by(if both.is_empty() { "reverse(reverse x) → x" } else { "reverse(reverse x) → reverse x" });
            Some(if both.is_empty() { x } else { r.add(Op::Reverse { axes: both }, &[x]) })
        }
        Op::Broadcast { .. } => {
            let (x, to) = (x?, r.shape(id).to_vec());
            let axes: Vec<usize> = axes.into_iter().filter(|&a| r.shape(x)[a] != 1).collect();
            r.by("reverse(broadcast x) → broadcast(reverse x)");
            let x = if axes.is_empty() { x } else { r.add(Op::Reverse { axes }, &[x]) };
            Some(r.broadcast(x, &to))
        }
        _ => None,
    }
}

/// A concatenation of concatenations along the same axis is one.
fn concat(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let &Op::Concat { axis } = r.root(id) else { return None };
    let operands = r.operands(id);
    let nested = |r: &Rewriter, x: NodeId| r.op(x) == Some(&Op::Concat { axis }) && r.used_once(x);
    if !operands.iter().any(|&x| nested(r, x)) {
        return None;
    }
    let flat: Vec<NodeId> =
        operands.into_iter().flat_map(|x| if nested(r, x) { r.operands(x) } else { vec![x] }).collect();
    Some(r.add(Op::Concat { axis }, &flat))
}

/// Slices of one value that follow each other are one slice.
fn concat_of_slices(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let &Op::Concat { axis } = r.root(id) else { return None };
    let mut whole: Option<(NodeId, Vec<usize>, Vec<usize>)> = None;
    for part in r.operands(id) {
        let Some(Op::Slice { start, end }) = r.op(part) else { return None };
        let x = r.operand(part);
        whole = Some(match whole {
            None => (x, start.clone(), end.clone()),
            Some((of, first, mut last)) => {
                let goes_on = (0..start.len()).all(|d| match d == axis {
                    true => start[d] == last[d],
                    false => start[d] == first[d] && end[d] == last[d],
                });
                if of != x || !goes_on {
                    return None;
                }
                last[axis] = end[axis];
                (of, first, last)
            }
        });
    }
    let (x, start, end) = whole?;
    Some(r.add(Op::Slice { start, end }, &[x]))
}

/// Indices along one axis, the same along all others, are a small iota, broadcast.
fn iota(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let Op::Iota { axis, ty } = r.root(id) else { return None };
    let (axis, mut small) = (*axis, ty.clone());
    (0..small.rank()).filter(|&i| i != axis).for_each(|i| small.shape[i] = 1);
    if small == *r.ty(id) {
        return None;
    }
    let to = r.shape(id).to_vec();
    let x = r.add(Op::Iota { axis, ty: small }, &[]);
    Some(r.broadcast(x, &to))
}
