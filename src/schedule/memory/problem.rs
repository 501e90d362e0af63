//! The planner's input, reduced to what the placement depends on.
//!
//! Only *maximal* sets of simultaneously live buffers constrain a placement, and between two events nothing changes.
//! So time becomes a list of **sections**, one for each maximal set; and where no buffer is live across a section's
//! border the problem falls into independent **components**.

use super::LiveRange;

/// A buffer within a component.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rect {
    /// Index in the planner's input.
    pub buffer: usize,
    /// First section in which it is live.
    pub first: usize,
    /// Last section in which it is live (inclusive).
    pub last: usize,
    /// Size in alignment units, at least 1.
    pub size: u64,
}

impl Rect {
    #[cfg(test)]
    pub fn overlaps(&self, other: &Rect) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    pub fn sections(&self) -> std::ops::RangeInclusive<usize> {
        self.first..=self.last
    }

    /// Number of sections.
    pub fn span(&self) -> usize {
        self.last - self.first + 1
    }
}

/// Buffers that share no time with the others, ordered by first section.
#[derive(Debug)]
pub(super) struct Component {
    pub rects: Vec<Rect>,
    /// Per section: the sum of the sizes live in it.
    pub load: Vec<u64>,
}

impl Component {
    pub fn lower_bound(&self) -> u64 {
        self.load.iter().copied().max().unwrap_or(0)
    }

    /// Number of pairs that share a section.
    pub fn overlaps(&self) -> usize {
        let later = |(i, rect): (usize, &Rect)| self.rects[i + 1..].partition_point(|other| other.first <= rect.last);
        self.rects.iter().enumerate().map(later).sum()
    }

    /// Height of a placement (offsets in the order of `rects`).
    pub fn height(&self, offsets: &[u64]) -> u64 {
        let tops = self.rects.iter().zip(offsets).map(|(r, o)| o + r.size);
        tops.max().unwrap_or(0)
    }
}

/// Cuts the input into components. Buffers of size 0 or with an empty range are in none.
pub(super) fn split(buffers: &[LiveRange], units: &[u64]) -> Vec<Component> {
    let mut order: Vec<usize> =
        (0..buffers.len()).filter(|&i| units[i] > 0 && buffers[i].start < buffers[i].end).collect();
    order.sort_by_key(|&i| (buffers[i].start, i));

    let mut components = Vec::new();
    let mut rest = &order[..];
    while let Some(&head) = rest.first() {
        let mut end = buffers[head].end;
        let reach = rest.iter().position(|&i| {
            let outside = buffers[i].start >= end;
            end = end.max(buffers[i].end);
            outside
        });
        let (part, tail) = rest.split_at(reach.unwrap_or(rest.len()));
        components.push(component(buffers, units, part));
        rest = tail;
    }
    components
}

fn component(buffers: &[LiveRange], units: &[u64], part: &[usize]) -> Component {
    // A live set is maximal where a start is followed by an end. Ranges are half-open, so at equal positions ends
    // come first. `section` counts the maximal sets completed so far: a buffer that starts now is first in the set
    // being built, and one that ends now was last in the one just completed.
    let mut events: Vec<(usize, bool, usize)> = Vec::with_capacity(part.len() * 2);
    for (k, &i) in part.iter().enumerate() {
        events.push((buffers[i].end, false, k));
        events.push((buffers[i].start, true, k));
    }
    events.sort_unstable();
    let mut rects: Vec<Rect> =
        part.iter().map(|&buffer| Rect { buffer, first: 0, last: 0, size: units[buffer] }).collect();
    let (mut sum, mut section, mut growing, mut load) = (0u64, 0, false, Vec::new());
    for (_, is_start, k) in events {
        if is_start {
            growing = true;
            sum += rects[k].size;
            rects[k].first = section;
        } else {
            if growing {
                growing = false;
                load.push(sum);
                section += 1;
            }
            sum -= rects[k].size;
            rects[k].last = section - 1;
        }
    }
    Component { rects, load }
}
