//! Whether a kernel may write a result over a buffer that it reads.
//!
//! The planner decides this in its own way; here it is decided once more, by going through what a kernel does in the order
//! in which it does it. A device evaluates a kernel tile by tile and may read an operand until it stores the tile, so a
//! read is safe where it is of the element about to be written, and comes no later than that write.

use crate::schedule::kernel::{Body, BufferId, Contraction, Expr, ExprId, Nest, Operand};
use crate::schedule::view::kept_shape;

/// Something that a nest does with the value of an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// Combined over the reduced dimensions, at every point of the full space.
    Reduced,
    /// Written at every point of the full space.
    Stored(BufferId),
    /// Computed once for each kept point, after the sweep.
    Kept,
    /// Written at each kept point, after all kept values.
    KeptStored(BufferId),
}

impl Event {
    fn is_swept(self) -> bool {
        matches!(self, Event::Reduced | Event::Stored(_))
    }
}

/// Whether `result` may lie where `old` does, which the kernel reads.
pub(super) fn may_overwrite(body: &Body, old: BufferId, result: BufferId) -> bool {
    match body {
        Body::Nests(nests) => nests.iter().all(|nest| nest_may(nest, old, result)),
        Body::Contraction(contraction) => contraction_may(contraction, old, result),
    }
}

fn nest_may(nest: &Nest, old: BufferId, result: BufferId) -> bool {
    let reads: Vec<ExprId> = (0..nest.exprs.len()).filter(|&e| touches(&nest.exprs[e], old)).collect();
    if reads.is_empty() {
        return true;
    }
    let events = events(nest);
    let writes = |event: &Event| matches!(event, Event::Stored(b) | Event::KeptStored(b) if *b == result);
    let [(write_pass, write, _)] = events.iter().filter(|(_, event, _)| writes(event)).copied().collect::<Vec<_>>()[..]
    else {
        return false;
    };
    let space = if write.is_swept() { nest.space.clone() } else { kept_shape(&nest.space, &nest.reduced) };
    let in_place = reads.iter().all(
        |&e| matches!(&nest.exprs[e], Expr::Load { buffer, view } if *buffer == old && view.is_contiguous(&space)),
    );
    in_place
        && events.iter().all(|&(pass, event, root)| {
            if !reads.iter().any(|&read| depends(&nest.exprs, root, read)) {
                return true;
            }
            // A value that is only copied may be taken from its old place after the write.
            let is_copy =
                reads.contains(&root) && !writes(&event) && matches!(event, Event::Stored(_) | Event::KeptStored(_));
            let in_time = match (write.is_swept(), event.is_swept()) {
                // Element by element, in the same sweep or one before.
                (true, true) => pass <= write_pass,
                // After a sweep all its elements are written.
                (true, false) => pass < write_pass,
                // Points of the sweep that come later would see the kept result.
                (false, true) => false,
                // Kept values come before kept results; of those, one is written after the other.
                (false, false) => pass < write_pass || (pass == write_pass && (event == Event::Kept || writes(&event))),
            };
            in_time && !is_copy
        })
}

/// What a nest does, by pass.
fn events(nest: &Nest) -> Vec<(usize, Event, ExprId)> {
    let mut events = Vec::new();
    for (number, pass) in nest.passes.iter().enumerate() {
        events.extend(pass.reductions.iter().map(|r| (number, Event::Reduced, r.value)));
        events.extend(pass.stores.iter().map(|s| (number, Event::Stored(s.buffer), s.value)));
        events.extend(pass.kept.iter().map(|&(_, value)| (number, Event::Kept, value)));
        events.extend(pass.kept_stores.iter().map(|s| (number, Event::KeptStored(s.buffer), s.value)));
    }
    events
}

/// The epilogue may read the element that it is about to write; the contraction itself reads all others too.
fn contraction_may(c: &Contraction, old: BufferId, result: BufferId) -> bool {
    let multiplied = c.operands.iter().any(|operand| match operand {
        Operand::Buffer { buffer, .. } => *buffer == old,
        Operand::Computed { exprs } => exprs.iter().any(|expr| touches(expr, old)),
    });
    let aligned = c.exprs.iter().filter(|expr| touches(expr, old)).all(|expr| match expr {
        Expr::Load { view, .. } => view.is_contiguous(&c.space),
        _ => false,
    });
    let copied = c.stores.iter().any(|s| s.buffer != result && touches(&c.exprs[s.value], old));
    !multiplied && aligned && !copied
}

/// Whether an expression itself reads the buffer.
fn touches(expr: &Expr, buffer: BufferId) -> bool {
    use crate::schedule::kernel::Word;
    match expr {
        Expr::Load { buffer: read, .. } => *read == buffer,
        Expr::Random { seed: [a, b], step, .. } => {
            [a, b, step].iter().any(|word| matches!(word, Word::Load { buffer: read, .. } if *read == buffer))
        }
        Expr::Constant { .. }
        | Expr::Inside { .. }
        | Expr::Iota { .. }
        | Expr::Slot(_)
        | Expr::Accumulator
        | Expr::Scalar { .. } => false,
    }
}

/// Whether computing `root` computes `wanted`.
fn depends(exprs: &[Expr], root: ExprId, wanted: ExprId) -> bool {
    let mut needed = vec![false; exprs.len()];
    needed[root] = true;
    // Operands come before their users.
    for id in (0..=root).rev() {
        if let (true, Expr::Scalar { args, .. }) = (needed[id], &exprs[id]) {
            args.iter().for_each(|&arg| needed[arg] = true);
        }
    }
    needed[wanted]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scalar::ScalarOp;
    use crate::schedule::kernel::{Pass, Reduction, Store};
    use crate::schedule::view::View;
    use crate::types::ReduceKind;

    const OLD: BufferId = 0;
    const NEW: BufferId = 1;
    const OTHER: BufferId = 2;

    /// `new = exp(old)` over four rows of eight.
    fn exp() -> Nest {
        let space = vec![4, 8];
        Nest {
            exprs: vec![
                Expr::Load { buffer: OLD, view: View::contiguous(&space) },
                Expr::Scalar { op: ScalarOp::Exp, args: vec![0] },
            ],
            reduced: vec![false, true],
            slots: 1,
            passes: vec![Pass { stores: vec![Store { value: 1, buffer: NEW }], ..Pass::default() }],
            space,
        }
    }

    fn sum(value: ExprId) -> Pass {
        Pass { reductions: vec![Reduction { kind: ReduceKind::Sum, value, slot: 0 }], ..Pass::default() }
    }

    fn may(nest: Nest) -> bool {
        may_overwrite(&Body::Nests(vec![nest]), OLD, NEW)
    }

    #[test]
    fn element_for_element_in_the_same_sweep_or_before() {
        assert!(may(exp()));
        let mut reduced_before = exp();
        reduced_before.passes.insert(0, sum(0));
        assert!(may(reduced_before));
    }

    #[test]
    fn what_is_read_later_or_elsewhere_is_kept() {
        let mut reduced_after = exp();
        reduced_after.passes.push(sum(0));
        let mut copied = exp();
        copied.passes[0].stores.push(Store { value: 0, buffer: OTHER });
        let mut transposed = exp();
        transposed.exprs[0] =
            Expr::Load { buffer: OLD, view: View { strides: vec![1, 4], ..View::contiguous(&[4, 8]) } };
        let mut shifted = exp();
        shifted.exprs[0] = Expr::Load { buffer: OLD, view: View { offset: 1, ..View::contiguous(&[4, 8]) } };
        let mut kept_after = exp();
        kept_after.passes[0].kept.push((0, 1));
        let mut not_written_here = exp();
        not_written_here.passes[0].stores[0].buffer = OTHER;
        for nest in [reduced_after, copied, transposed, shifted, kept_after, not_written_here] {
            assert!(!may(nest.clone()), "{nest:?}");
        }
    }
}
