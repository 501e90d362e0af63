//! Which offsets are taken when: what first-fit asks.
//!
//! A segment tree over the sections (J. L. Bentley, "Solutions to Klee's rectangle problems", 1977). Each node stands
//! for a stretch of time, a buffer's live range is cut into O(log n) of them, and the taken offsets are kept as merged
//! intervals, few where the placement is dense. So a place is found in nearly constant time, whether live ranges are
//! short and many or nested and long; a list of all placed buffers takes quadratic time on both.

use super::problem::Rect;

pub(super) struct Occupied {
    /// Number of leaves, a power of two: section `s` is node `leaves + s`, and the parent of node `k` is `k / 2`.
    leaves: usize,
    /// Per node: offsets taken throughout its stretch, by buffers that take no parent's whole stretch.
    throughout: Vec<Intervals>,
    /// Per node: offsets taken at some time in its stretch, by buffers that take no parent's whole stretch.
    sometime: Vec<Intervals>,
}

impl Occupied {
    pub fn new(sections: usize) -> Self {
        let leaves = sections.next_power_of_two();
        let none = vec![Intervals::default(); 2 * leaves];
        Self { leaves, throughout: none.clone(), sometime: none }
    }

    /// Takes `rect.size` from `low` on.
    pub fn insert(&mut self, rect: &Rect, low: u64) {
        let top = low + rect.size;
        for node in self.cover(rect) {
            self.throughout[node].insert(low, top);
            self.sometime[node].insert(low, top);
        }
        for node in self.around(rect) {
            self.sometime[node].insert(low, top);
        }
    }

    /// The lowest offset at which `rect` fits.
    pub fn lowest_fit(&self, rect: &Rect) -> u64 {
        let inside = self.cover(rect).map(|node| &self.sometime[node]);
        let around = self.around(rect).map(|node| &self.throughout[node]);
        let mut lists: Vec<&[(u64, u64)]> =
            inside.chain(around).map(|list| &list.0[..]).filter(|list| !list.is_empty()).collect();
        // Each list in turn raises the offset to where it has room, until all agree. What lies below is dropped.
        let (mut offset, mut agreed, mut next) = (0, 0, 0);
        while agreed < lists.len() {
            let list = &mut lists[next];
            agreed += 1;
            while let Some((&(start, end), rest)) = list.split_first() {
                if end > offset {
                    if start >= offset + rect.size {
                        break;
                    }
                    offset = end;
                    agreed = 1;
                }
                *list = rest;
            }
            next = if next + 1 == lists.len() { 0 } else { next + 1 };
        }
        offset
    }

    /// The fewest nodes whose stretches make up the live range.
    fn cover(&self, rect: &Rect) -> impl Iterator<Item = usize> + use<> {
        let (mut from, mut to) = (self.leaves + rect.first, self.leaves + rect.last + 1);
        std::iter::from_fn(move || {
            if from >= to {
                return None;
            }
            let ends = [(from % 2 == 1).then_some(from), (to % 2 == 1).then_some(to - 1)];
            (from, to) = (from.div_ceil(2), to / 2);
            Some(ends)
        })
        .flatten()
        .flatten()
    }

    /// The inner nodes that hold the first or the last section: among them all that stand above the cover.
    fn around(&self, rect: &Rect) -> impl Iterator<Item = usize> + use<> {
        let (mut a, mut b) = (self.leaves + rect.first, self.leaves + rect.last);
        std::iter::from_fn(move || {
            (a, b) = (a / 2, b / 2);
            (a > 0).then(|| [Some(a), (b != a).then_some(b)])
        })
        .flatten()
        .flatten()
    }
}

/// Disjoint intervals, ascending, none touching the next.
#[derive(Clone, Default)]
struct Intervals(Vec<(u64, u64)>);

impl Intervals {
    fn insert(&mut self, low: u64, top: u64) {
        let from = self.0.partition_point(|&(_, end)| end < low);
        let to = self.0.partition_point(|&(start, _)| start <= top);
        match &mut self.0[from..to] {
            [] => self.0.insert(from, (low, top)),
            [first, .., last] => {
                first.1 = last.1.max(top);
                first.0 = first.0.min(low);
                self.0.drain(from + 1..to);
            }
            [one] => *one = (one.0.min(low), one.1.max(top)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::memory::rng::SplitMix64;

    /// The same question put to a plain list.
    fn lowest_fit_by_definition(placed: &[(Rect, u64)], rect: &Rect) -> u64 {
        let others = || placed.iter().filter(|(other, _)| other.first <= rect.last && rect.first <= other.last);
        let free =
            |&offset: &u64| others().all(|(other, low)| offset + rect.size <= *low || low + other.size <= offset);
        let tops = others().map(|(other, low)| low + other.size);
        std::iter::once(0).chain(tops).filter(free).min().unwrap()
    }

    #[test]
    fn agrees_with_a_plain_list() {
        for seed in 0..40 {
            let mut rng = SplitMix64(seed);
            let sections = 1 + rng.below(40);
            let mut occupied = Occupied::new(sections);
            let mut placed: Vec<(Rect, u64)> = Vec::new();
            for buffer in 0..120 {
                let first = rng.below(sections);
                let last = first + rng.below(sections - first);
                let rect = Rect { buffer, first, last, size: 1 + rng.below(20) as u64 };
                let low = occupied.lowest_fit(&rect);
                assert_eq!(low, lowest_fit_by_definition(&placed, &rect), "seed {seed}, buffer {buffer}");
                occupied.insert(&rect, low);
                placed.push((rect, low));
            }
        }
    }
}
