//! The order of a schedule's launches as a graph: which must be complete before which.
//!
//! What counts are bytes of the arena. Two kernels that touch the same bytes, one of them writing, run in the order of the
//! schedule, whether the bytes are one buffer or two that share a place one after the other; all others may run at the same
//! time.

use crate::kernel::body::{BufferId, Kernel};
use crate::kernel::schedule::Buffer;
use std::collections::BTreeMap;
use std::ops::Range;

/// The bytes that one kernel touches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    pub reads: Vec<Range<usize>>,
    pub writes: Vec<Range<usize>>,
}

impl Touched {
    /// What a kernel touches, its workspace included.
    pub fn by(kernel: &Kernel, buffers: &[Buffer]) -> Touched {
        let bytes = |id: &BufferId| buffers[id.index()].span();
        let workspace = kernel.choice.workspace.iter().map(|w| &w.buffer);
        Touched {
            reads: kernel.reads.iter().map(bytes).collect(),
            writes: kernel.writes.iter().chain(workspace).map(bytes).collect(),
        }
    }
}

/// For each kernel the earlier ones that must be complete, in ascending order, without those that another of them waits for.
pub fn dependencies(kernels: &[Touched]) -> Vec<Vec<usize>> {
    let mut arena = Arena::default();
    let words = kernels.len().div_ceil(64);
    // For each kernel a bit for itself and for each that is complete before it.
    let mut complete: Vec<Vec<u64>> = Vec::with_capacity(kernels.len());
    let mut all = Vec::with_capacity(kernels.len());
    for (index, touched) in kernels.iter().enumerate() {
        let mut before = arena.touch(index, touched);
        before.sort_unstable();
        before.dedup();
        let mut own = vec![0u64; words];
        let mut kept = Vec::new();
        // The later ones first: they wait for most.
        for &other in before.iter().rev() {
            if own[other / 64] >> (other % 64) & 1 == 0 {
                kept.push(other);
                own.iter_mut().zip(&complete[other]).for_each(|(own, other)| *own |= other);
            }
        }
        own[index / 64] |= 1 << (index % 64);
        complete.push(own);
        kept.reverse();
        all.push(kept);
    }
    all
}

/// Who touched bytes last.
#[derive(Debug, Clone, Default)]
struct Last {
    writer: Option<usize>,
    /// Since they were written.
    readers: Vec<usize>,
}

/// The bytes in pieces, each by its first byte: everything up to the next one was touched by the same kernels.
#[derive(Debug, Default)]
struct Arena {
    pieces: BTreeMap<usize, Last>,
}

impl Arena {
    /// Notes what a kernel touches; gives those that it must wait for, some of them several times.
    fn touch(&mut self, kernel: usize, touched: &Touched) -> Vec<usize> {
        let mut before = Vec::new();
        for range in &touched.reads {
            for piece in self.pieces_of(range) {
                before.extend(piece.writer.filter(|&writer| writer != kernel));
                piece.readers.push(kernel);
            }
        }
        for range in &touched.writes {
            for piece in self.pieces_of(range) {
                before.extend(piece.writer.iter().chain(&piece.readers).filter(|&&other| other != kernel));
                *piece = Last { writer: Some(kernel), readers: Vec::new() };
            }
        }
        before
    }

    /// The pieces that make up a range exactly.
    fn pieces_of(&mut self, range: &Range<usize>) -> impl Iterator<Item = &mut Last> {
        if !range.is_empty() {
            self.cut(range.start);
            self.cut(range.end);
        }
        let range = if range.is_empty() { 0..0 } else { range.clone() };
        self.pieces.range_mut(range).map(|(_, piece)| piece)
    }

    /// Begins a piece at a byte.
    fn cut(&mut self, at: usize) {
        let last = self.pieces.range(..=at).next_back().map(|(_, piece)| piece.clone()).unwrap_or_default();
        self.pieces.entry(at).or_insert(last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Of ranges as their first byte and the one after their last.
    fn touched(reads: &[(usize, usize)], writes: &[(usize, usize)]) -> Touched {
        let ranges = |pairs: &[(usize, usize)]| pairs.iter().map(|&(start, end)| start..end).collect();
        Touched { reads: ranges(reads), writes: ranges(writes) }
    }

    #[test]
    fn readers_wait_for_the_writer_and_not_for_each_other() {
        let kernels = [
            touched(&[], &[(0, 8)]),
            touched(&[(0, 8)], &[(8, 16)]),
            touched(&[(0, 4)], &[(16, 24)]),
            touched(&[(8, 24)], &[]),
        ];
        assert_eq!(dependencies(&kernels), [vec![], vec![0], vec![0], vec![1, 2]]);
    }

    #[test]
    fn bytes_that_are_used_again_order_kernels() {
        // The third writes where the second reads, the fourth where nobody read what the third wrote.
        let kernels = [
            touched(&[], &[(0, 8)]),
            touched(&[(0, 8)], &[(8, 16)]),
            touched(&[], &[(4, 6)]),
            touched(&[], &[(5, 20)]),
        ];
        assert_eq!(dependencies(&kernels), [vec![], vec![0], vec![1], vec![2]]);
    }

    #[test]
    fn neighbours_and_empty_ranges_touch_nothing_of_each_other() {
        let kernels = [touched(&[], &[(0, 8)]), touched(&[(8, 16)], &[(16, 24)]), touched(&[(4, 4)], &[(30, 30)])];
        assert_eq!(dependencies(&kernels), vec![Vec::<usize>::new(); 3]);
    }

    #[test]
    fn a_kernel_that_updates_in_place_waits_for_readers_of_the_old_value() {
        let kernels = [touched(&[(0, 8)], &[(8, 16)]), touched(&[(0, 8)], &[(0, 8)]), touched(&[(0, 8)], &[])];
        assert_eq!(dependencies(&kernels), [vec![], vec![0], vec![1]]);
    }

    #[test]
    fn what_is_waited_for_already_is_left_out() {
        let kernels = [touched(&[], &[(0, 8)]), touched(&[(0, 8)], &[(8, 16)]), touched(&[(0, 16)], &[(16, 24)])];
        assert_eq!(dependencies(&kernels), [vec![], vec![0], vec![1]]);
    }

    fn reachable(after: &[Vec<usize>]) -> Vec<Vec<bool>> {
        let mut all: Vec<Vec<bool>> = Vec::new();
        for before in after {
            let mut own = vec![false; after.len()];
            for &other in before {
                own[other] = true;
                all[other].iter().enumerate().filter(|(_, is)| **is).for_each(|(i, _)| own[i] = true);
            }
            all.push(own);
        }
        all
    }

    proptest! {
        /// The definition: a path leads from one kernel to another exactly if a chain of conflicts does, and no edge could
        /// be left out.
        #[test]
        fn order_is_that_of_conflicts(
            raw in prop::collection::vec(prop::collection::vec((any::<bool>(), 0usize..40, 0usize..12), 0..4), 0..14),
        ) {
            let kernels: Vec<Touched> = raw.iter().map(|all| {
                let of = |write| all.iter().filter(|a| a.0 == write).map(|&(_, start, len)| start..start + len).collect();
                Touched { reads: of(false), writes: of(true) }
            }).collect();
            let meet = |a: &[Range<usize>], b: &[Range<usize>]| {
                a.iter().any(|a| b.iter().any(|b| a.start.max(b.start) < a.end.min(b.end)))
            };
            let conflicts: Vec<Vec<usize>> = kernels.iter().enumerate().map(|(j, b)| {
                (0..j).filter(|&i| {
                    let a = &kernels[i];
                    meet(&a.writes, &b.reads) || meet(&a.writes, &b.writes) || meet(&a.reads, &b.writes)
                }).collect()
            }).collect();
            let found = dependencies(&kernels);
            prop_assert_eq!(reachable(&found), reachable(&conflicts));
            for kernel in 0..found.len() {
                for edge in 0..found[kernel].len() {
                    let mut fewer = found.clone();
                    fewer[kernel].remove(edge);
                    prop_assert_ne!(reachable(&fewer), reachable(&found));
                }
            }
        }
    }
}
