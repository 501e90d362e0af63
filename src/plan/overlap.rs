//! Checks that a memory plan is sound: no two buffers that are live at the same time share a byte, and none leaves
//! the arena.
//!
//! This is what stands between a wrong plan (a planner's fault, or a plan file somebody edited) and memory
//! corruption, so it shares nothing with the planner: it sweeps time, keeping the live buffers in a set ordered by
//! offset, and looks at the two neighbours of each buffer that enters. Its input is untrusted: any values are
//! allowed, nothing overflows and nothing panics.

use std::collections::BTreeMap;
use thiserror::Error;

/// A buffer and the place it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Placement {
    /// First schedule position at which the buffer is live.
    pub start: usize,
    /// The position after the last one (half-open). A buffer with `start >= end` is never live.
    pub end: usize,
    /// Byte offset in the arena.
    pub offset: usize,
    /// Bytes. A buffer of size 0 occupies nothing.
    pub size: usize,
}

/// What is wrong with a plan. Buffers are named by their index in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CheckError {
    /// A buffer's last byte lies beyond the arena, or beyond the address space.
    #[error("buffer {buffer} ({size} bytes at offset {offset}) leaves the arena of {arena_size} bytes")]
    OutOfArena {
        /// Index of the buffer.
        buffer: usize,
        /// Its offset in bytes.
        offset: usize,
        /// Its size in bytes.
        size: usize,
        /// The arena's size in bytes.
        arena_size: usize,
    },
    /// A live range that ends before it starts: no schedule has one.
    #[error("buffer {buffer} ends (position {end}) before it starts (position {start})")]
    ReversedRange {
        /// Index of the buffer.
        buffer: usize,
        /// Its start.
        start: usize,
        /// Its end.
        end: usize,
    },
    /// Two buffers live at `position` share the byte at `offset`.
    #[error("buffers {first} and {second} are both live at position {position} and share the byte at offset {offset}")]
    Overlap {
        /// Index of the one that was live already (of the two).
        first: usize,
        /// Index of the one that enters at `position`.
        second: usize,
        /// Schedule position at which the overlap begins.
        position: usize,
        /// The lowest byte they share.
        offset: usize,
    },
}

/// Checks that every buffer lies inside the arena and that no two buffers live at the same position overlap.
/// Takes O(n log n) time for n buffers and O(n) memory.
///
/// Every buffer must lie inside the arena, those that are never live too; only live ones of nonzero size can overlap.
///
/// # Errors
///
/// The first fault in order of time: see [`CheckError`].
pub fn check_no_overlap(placements: &[Placement], arena_size: usize) -> Result<(), CheckError> {
    let mut by_start = Vec::with_capacity(placements.len());
    let mut by_end = Vec::with_capacity(placements.len());
    for (buffer, placement) in placements.iter().enumerate() {
        let &Placement { start, end, offset, size } = placement;
        if start > end {
            return Err(CheckError::ReversedRange { buffer, start, end });
        }
        // Written so that nothing is added: `offset + size` may overflow.
        if offset > arena_size || size > arena_size - offset {
            return Err(CheckError::OutOfArena { buffer, offset, size, arena_size });
        }
        if start < end && size > 0 {
            by_start.push(buffer);
            by_end.push(buffer);
        }
    }
    by_start.sort_unstable_by_key(|&i| (placements[i].start, i));
    by_end.sort_unstable_by_key(|&i| (placements[i].end, i));

    // Live buffers by offset. They are disjoint as long as no fault was found, so offsets are unique and a newcomer
    // overlaps some live buffer only if it overlaps the nearest at or below its offset, or the nearest above it.
    let mut live: BTreeMap<usize, usize> = BTreeMap::new();
    let mut ended = by_end.into_iter().peekable();
    for buffer in by_start {
        let position = placements[buffer].start;
        while let Some(gone) = ended.next_if(|&i| placements[i].end <= position) {
            live.remove(&placements[gone].offset);
        }
        let Placement { offset, size, .. } = placements[buffer];
        let overlap = |first, offset| CheckError::Overlap { first, second: buffer, position, offset };
        match live.range(..=offset).next_back() {
            Some((&below, &other)) if offset - below < placements[other].size => {
                return Err(overlap(other, offset));
            }
            _ => {}
        }
        match live.range(offset..).next() {
            Some((&above, &other)) if above - offset < size => return Err(overlap(other, above)),
            _ => {}
        }
        live.insert(offset, buffer);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(start: usize, end: usize, offset: usize, size: usize) -> Placement {
        Placement { start, end, offset, size }
    }

    /// The definition, pair by pair, in arithmetic that cannot overflow.
    fn sound_by_definition(placements: &[Placement], arena_size: usize) -> bool {
        let wide = |x: usize| x as u128;
        let meet = |a0: usize, a1: u128, b0: usize, b1: u128| wide(a0).max(wide(b0)) < a1.min(b1);
        let inside = placements.iter().all(|p| p.start <= p.end && wide(p.offset) + wide(p.size) <= wide(arena_size));
        inside
            && placements.iter().enumerate().all(|(i, a)| {
                placements[..i].iter().all(|b| {
                    let in_time = meet(a.start, wide(a.end), b.start, wide(b.end));
                    let top = |p: &Placement| wide(p.offset) + wide(p.size);
                    !(in_time && meet(a.offset, top(a), b.offset, top(b)))
                })
            })
    }

    #[test]
    fn neighbours_in_time_and_in_memory_may_touch() {
        let plan = [at(0, 2, 0, 8), at(2, 4, 0, 8), at(0, 4, 8, 8)];
        assert_eq!(check_no_overlap(&plan, 16), Ok(()));
    }

    #[test]
    fn names_both_buffers_and_the_place() {
        let plan = [at(0, 9, 0, 8), at(0, 2, 32, 8), at(1, 4, 36, 8)];
        assert_eq!(
            check_no_overlap(&plan, 64),
            Err(CheckError::Overlap { first: 1, second: 2, position: 1, offset: 36 })
        );
    }

    #[test]
    fn finds_a_buffer_swallowed_from_below_and_from_above() {
        for (a, b) in [(at(0, 4, 0, 64), at(1, 2, 16, 8)), (at(0, 4, 16, 8), at(1, 2, 0, 64))] {
            let error = check_no_overlap(&[a, b], 64).unwrap_err();
            assert!(matches!(error, CheckError::Overlap { offset: 16, .. }));
        }
    }

    #[test]
    fn buffers_that_occupy_nothing_overlap_nothing_but_must_lie_inside() {
        let plan = [at(0, 4, 0, 8), at(1, 1, 0, 8), at(1, 3, 4, 0), at(5, 5, 8, 0)];
        assert_eq!(check_no_overlap(&plan, 8), Ok(()));
        let outside = check_no_overlap(&[at(1, 1, 4, 8)], 8).unwrap_err();
        assert!(matches!(outside, CheckError::OutOfArena { buffer: 0, .. }));
    }

    #[test]
    fn hostile_numbers_are_errors() {
        const MAX: usize = usize::MAX;
        for (placement, arena) in
            [(at(0, 1, MAX, MAX), MAX), (at(0, 1, 1, MAX), MAX), (at(0, MAX, MAX, 1), MAX), (at(0, 1, 9, 0), 8)]
        {
            let error = check_no_overlap(&[placement], arena).unwrap_err();
            assert!(matches!(error, CheckError::OutOfArena { .. }), "{error}");
        }
        assert_eq!(check_no_overlap(&[at(0, MAX, 0, MAX)], MAX), Ok(()));
        assert_eq!(
            check_no_overlap(&[at(3, 2, 0, 1)], 8),
            Err(CheckError::ReversedRange { buffer: 0, start: 3, end: 2 })
        );
    }

    /// Values near 0 (so that buffers meet) and near the end of the range (so that sums overflow).
    fn number() -> impl Strategy<Value = usize> {
        prop_oneof![20 => 0usize..24, 1 => (usize::MAX - 8)..=usize::MAX]
    }

    /// A sound plan by construction: a sweep over time that stacks each buffer on the lowest free offset.
    fn sound_plan() -> impl Strategy<Value = Vec<Placement>> {
        prop::collection::vec((0usize..20, 1usize..10, 1usize..16), 2..40).prop_map(|raw| {
            let mut plan: Vec<Placement> = Vec::new();
            for (start, span, size) in raw {
                let end = start + span;
                let meets = |p: &&Placement| p.start < end && start < p.end;
                let offset = plan.iter().filter(meets).map(|p| p.offset + p.size).max();
                plan.push(at(start, end, offset.unwrap_or(0), size));
            }
            plan
        })
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(
            raw in prop::collection::vec((number(), number(), number(), number()), 0..8),
            arena in number(),
        ) {
            let plan: Vec<_> = raw.into_iter().map(|(a, b, c, d)| at(a, b, c, d)).collect();
            prop_assert_eq!(
                check_no_overlap(&plan, arena).is_ok(),
                sound_by_definition(&plan, arena)
            );
        }

        #[test]
        fn sound_plans_pass_and_moved_buffers_are_found(
            plan in sound_plan(),
            pick in any::<prop::sample::Index>(),
            offset in 0usize..64,
        ) {
            let arena = 64 + plan.iter().map(|p| p.offset + p.size).max().unwrap_or(0);
            prop_assert_eq!(check_no_overlap(&plan, arena), Ok(()));
            let mut moved = plan.clone();
            moved[pick.index(plan.len())].offset = offset;
            let verdict = check_no_overlap(&moved, arena);
            prop_assert_eq!(verdict.is_ok(), sound_by_definition(&moved, arena));
            if let Err(CheckError::Overlap { first, second, .. }) = verdict {
                // The two it names really do overlap.
                prop_assert!(!sound_by_definition(&[moved[first], moved[second]], arena));
            }
        }
    }
}
