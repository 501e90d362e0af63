//! Whether a kernel may write a result over a buffer that it reads.
//!
//! The planner decides this in its own way; here it is decided once more, by going through what a kernel does in the
//! order in which it does it. A device evaluates a kernel tile by tile and may read an operand until it stores the
//! tile, so a read is safe where it is of the element about to be written, and comes no later than that write.

use crate::kernel::access::Access;
use crate::kernel::body::{Body, BufferId, Contraction, Expr, ExprId, Exprs, Nest};
use crate::types::ReduceKind;
use std::collections::{BTreeSet, HashMap};

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

/// For each buffer that a body of nests reads, the nests that do.
pub(super) fn nests_reading(body: &Body<BufferId>) -> HashMap<BufferId, BTreeSet<usize>> {
    let mut reading: HashMap<BufferId, BTreeSet<usize>> = HashMap::new();
    if let Body::Nests(nests) = body {
        for (n, nest) in nests.iter().enumerate() {
            for &b in nest.exprs.reads() {
                reading.entry(b).or_default().insert(n);
            }
        }
    }
    reading
}

/// Whether `result` may lie where `old` does, which the kernel reads; `reading` is what [`nests_reading`] gives.
pub(super) fn may_overwrite(
    body: &Body<BufferId>,
    reading: &HashMap<BufferId, BTreeSet<usize>>,
    old: BufferId,
    result: BufferId,
) -> bool {
    match body {
        Body::Nests(nests) => reading.get(&old).into_iter().flatten().all(|&n| nest_may(&nests[n], old, result)),
        Body::Contraction(contraction) => contraction_may(contraction, old, result),
        Body::Transform(_) => false,
    }
}

fn nest_may(nest: &Nest<BufferId>, old: BufferId, result: BufferId) -> bool {
    let reads = readers(&nest.exprs, old);
    if reads.is_empty() {
        return true;
    }
    let events = events(nest);
    let writes = |event: &Event| matches!(event, Event::Stored(b) | Event::KeptStored(b) if *b == result);
    let [(write_sweep, write, _)] =
        events.iter().filter(|(_, event, _)| writes(event)).copied().collect::<Vec<_>>()[..]
    else {
        return false;
    };
    let Some(store) = nest.stores().find(|store| store.buffer == result) else { return false };
    reads.iter().all(|&read| loads_at(&nest.exprs[read], old, &store.access))
        && events.iter().all(|&(sweep, event, root)| {
            let needed = nest.exprs.needed([root]);
            if !reads.iter().any(|read| needed[read.index()]) {
                return true;
            }
            // A value that is only copied may be taken from its old place after the write.
            let is_copy =
                reads.contains(&root) && !writes(&event) && matches!(event, Event::Stored(_) | Event::KeptStored(_));
            let in_time = match (write.is_swept(), event.is_swept()) {
                // Element by element, in the same sweep or one before.
                (true, true) => sweep <= write_sweep,
                // After a sweep all its elements are written.
                (true, false) => sweep < write_sweep,
                // Points of the sweep that come later would see the kept result.
                (false, true) => false,
                // Kept values come before kept results; of those, one is written after the other.
                (false, false) => {
                    sweep < write_sweep || (sweep == write_sweep && (event == Event::Kept || writes(&event)))
                }
            };
            in_time && !is_copy
        })
}

/// What a nest does, by sweep.
fn events(nest: &Nest<BufferId>) -> Vec<(usize, Event, ExprId)> {
    let mut events = Vec::new();
    for (number, sweep) in nest.sweeps.iter().enumerate() {
        events.extend(sweep.reductions.iter().map(|r| (number, Event::Reduced, r.value)));
        events.extend(sweep.stores.iter().map(|s| (number, Event::Stored(s.buffer), s.value)));
        events.extend(sweep.kept.iter().map(|&(_, value)| (number, Event::Kept, value)));
        events.extend(sweep.kept_stores.iter().map(|s| (number, Event::KeptStored(s.buffer), s.value)));
    }
    events
}

/// The epilogue may read the element that it is about to write; the contraction itself reads all others too.
fn contraction_may(c: &Contraction<BufferId>, old: BufferId, result: BufferId) -> bool {
    let is_multiplied = c.operands.iter().any(|operand| operand.reads().any(|read| *read == old));
    let reads = readers(&c.exprs, old);
    if let Some(may) = c.finish.may_overwrite(&old, &result) {
        // Other points may still be computed.
        return !is_multiplied && reads.is_empty() && may;
    }
    let Some(write) = c.stores.iter().find(|store| store.buffer == result) else { return false };
    let in_place = reads.iter().all(|&read| loads_at(&c.exprs[read], old, &write.access));
    let is_copied = c.stores.iter().any(|store| store.buffer != result && reads.contains(&store.value));
    // Deviations are of what has been read once for its sum, and stores come between.
    let is_read_again = c.reductions.iter().filter(|r| r.kind == ReduceKind::Deviations).any(|reduction| {
        let needed = c.exprs.needed([reduction.value]);
        reads.iter().any(|read| needed[read.index()])
    });
    let is_read_later = is_read_again || !readers(&c.finish.exprs, old).is_empty();
    !is_multiplied && in_place && !is_copied && !is_read_later
}

/// The expressions that themselves read the buffer.
fn readers(exprs: &Exprs<BufferId>, buffer: BufferId) -> Vec<ExprId> {
    exprs.ids().filter(|&id| exprs[id].reads().any(|read| *read == buffer)).collect()
}

/// Whether an expression reads the very elements of `old` that a store with this access writes.
fn loads_at(expr: &Expr<BufferId>, old: BufferId, at: &Access) -> bool {
    matches!(expr, Expr::Load { buffer, access, .. } if *buffer == old && access == at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::body::{EpilogueReduction, Finish, Operand, Reduction, SlotId, Store, Sweep};
    use crate::kernel::contraction::ContractionKind;
    use crate::scalar::{Lane, ScalarOp};

    fn buffer(index: usize) -> BufferId {
        BufferId::new(index)
    }

    const SPACE: [usize; 2] = [4, 8];

    fn store(value: ExprId, into: usize) -> Store<BufferId> {
        Store { value, buffer: buffer(into), access: Access::contiguous(&SPACE) }
    }

    /// `new = exp(old)` over four rows of eight, where `old` is read by `access`.
    fn exp_of(access: Access) -> Nest<BufferId> {
        let mut exprs = Exprs::default();
        let old = exprs.push(Expr::Load { buffer: buffer(0), access, lane: Lane::Real });
        let exp = exprs.push(Expr::Scalar { op: ScalarOp::Exp, args: vec![old] });
        Nest {
            exprs,
            reduced: vec![false, true],
            slots: 1,
            sweeps: vec![Sweep { stores: vec![store(exp, 1)], ..Sweep::default() }],
            space: SPACE.to_vec(),
        }
    }

    fn exp() -> Nest<BufferId> {
        exp_of(Access::contiguous(&SPACE))
    }

    fn sum() -> Sweep<BufferId> {
        let reduction = Reduction { kind: ReduceKind::Sum, value: ExprId::new(0), slot: SlotId::new(0) };
        Sweep { reductions: vec![reduction], ..Sweep::default() }
    }

    fn may(nest: Nest<BufferId>) -> bool {
        {
            let body = Body::Nests(vec![nest]);
            may_overwrite(&body, &nests_reading(&body), buffer(0), buffer(1))
        }
    }

    #[test]
    fn element_for_element_in_the_same_sweep_or_before() {
        assert!(may(exp()));
        let mut reduced_before = exp();
        reduced_before.sweeps.insert(0, sum());
        assert!(may(reduced_before));
        let transposed = Access { strides: vec![1, 4], ..Access::contiguous(&SPACE) };
        let mut both_transposed = exp_of(transposed.clone());
        both_transposed.sweeps[0].stores[0].access = transposed;
        assert!(may(both_transposed));
    }

    #[test]
    fn what_is_read_later_or_elsewhere_is_kept() {
        let mut reduced_after = exp();
        reduced_after.sweeps.push(sum());
        let mut copied = exp();
        copied.sweeps[0].stores.push(store(ExprId::new(0), 2));
        let transposed = exp_of(Access { strides: vec![1, 4], ..Access::contiguous(&SPACE) });
        let shifted = exp_of(Access { offset: 1, ..Access::contiguous(&SPACE) });
        let mut kept_after = exp();
        kept_after.sweeps[0].kept.push((SlotId::new(0), ExprId::new(1)));
        let mut not_written_here = exp();
        not_written_here.sweeps[0].stores[0].buffer = buffer(2);
        for nest in [reduced_after, copied, transposed, shifted, kept_after, not_written_here] {
            assert!(!may(nest.clone()), "{nest:?}");
        }
    }

    /// A product whose columns are summed up, and the sums added to `old`, as a running mean follows a mean.
    fn followed() -> Contraction<BufferId> {
        let kind = ContractionKind::MatMul { batch: 1, m: 8, n: 4, k: 2 };
        let ([first, second], space) = kind.shapes();
        let operand =
            |index, shape: &[usize]| Operand::Buffer { buffer: buffer(index), access: Access::contiguous(shape) };
        let (mut exprs, mut finish) = (Exprs::default(), Finish::default());
        let value = exprs.push(Expr::Accumulator);
        let kept = Access::contiguous(&[1, 1, 4]);
        let sum = finish.exprs.push(Expr::Slot(SlotId::new(0)));
        let old = finish.exprs.push(Expr::Load { buffer: buffer(0), access: kept.clone(), lane: Lane::Real });
        let value_of = finish.exprs.push(Expr::Scalar { op: ScalarOp::Add, args: vec![sum, old] });
        finish.stores.push(Store { value: sum, buffer: buffer(2), access: kept.clone() });
        finish.stores.push(Store { value: value_of, buffer: buffer(1), access: kept });
        Contraction {
            kind,
            operands: [operand(5, &first), operand(6, &second)],
            exprs,
            stores: vec![Store { value, buffer: buffer(3), access: Access::contiguous(&space) }],
            reduced: vec![false, true, false],
            space,
            reductions: vec![EpilogueReduction { kind: ReduceKind::Sum, value }],
            finish,
        }
    }

    #[test]
    fn what_finishes_a_contraction_is_over_what_only_it_reads() {
        let may = |c: &Contraction<BufferId>, result| contraction_may(c, buffer(0), buffer(result));
        let c = followed();
        assert!(may(&c, 1), "element for element");
        assert!(!may(&c, 2), "another store comes before the one that reads it");
        assert!(!may(&c, 3), "it is read when all sums have been stored");
        let mut read_twice = c.clone();
        read_twice.finish.stores[0].value = ExprId::new(2);
        assert!(!may(&read_twice, 1), "one store comes after the other");
        let mut multiplied = c.clone();
        multiplied.operands[0] = Operand::Buffer { buffer: buffer(0), access: Access::contiguous(&[1, 8, 2]) };
        assert!(!may(&multiplied, 1));
        let mut added = c.clone();
        let access = Access { strides: vec![0, 0, 1], ..Access::contiguous(&c.space) };
        added.exprs.push(Expr::Load { buffer: buffer(0), access, lane: Lane::Real });
        assert!(!may(&added, 1), "sums of other rows are still to be computed");
        let mut shifted = c;
        shifted.finish.stores[1].access.offset = 1;
        assert!(!may(&shifted, 1));
    }
}
