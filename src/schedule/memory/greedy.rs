//! First-fit placement under several orders: enough for most networks.

use super::problem::Component;
use std::cmp::Reverse;

/// The lowest of the placements that first-fit finds under each order; stops at one of height `goal` or less.
pub(super) fn best(component: &Component, goal: u64) -> Vec<u64> {
    let mut best: Option<(u64, Vec<u64>)> = None;
    for order in orders(component) {
        let offsets = first_fit(component, &order);
        let height = component.height(&offsets);
        if best.as_ref().is_none_or(|(lowest, _)| height < *lowest) {
            best = Some((height, offsets));
        }
        if height <= goal {
            break;
        }
    }
    best.map(|(_, offsets)| offsets).unwrap_or_default()
}

/// Large first, large area first, long first, busiest time first, early first. Ties fall to the input's order.
fn orders(component: &Component) -> impl Iterator<Item = Vec<usize>> + '_ {
    type Key<'a> = Box<dyn Fn(usize) -> (Reverse<u64>, Reverse<u64>) + 'a>;
    let rects = &component.rects;
    let size = |i: usize| rects[i].size;
    let span = |i: usize| rects[i].span() as u64;
    let load = |i: usize| {
        let loads = &component.load[rects[i].sections()];
        loads.iter().copied().max().unwrap_or(0)
    };
    let keys: [Key<'_>; 5] = [
        Box::new(move |i| (Reverse(size(i)), Reverse(span(i)))),
        Box::new(move |i| (Reverse(size(i).saturating_mul(span(i))), Reverse(size(i)))),
        Box::new(move |i| (Reverse(span(i)), Reverse(size(i)))),
        Box::new(move |i| (Reverse(load(i)), Reverse(size(i)))),
        Box::new(move |i| (Reverse(u64::MAX - rects[i].first as u64), Reverse(size(i)))),
    ];
    keys.into_iter().map(|key| {
        let mut order: Vec<usize> = (0..rects.len()).collect();
        order.sort_by_cached_key(|&i| (key(i), i));
        order
    })
}

/// Places each buffer of `order` at the lowest offset that the buffers placed before it leave.
fn first_fit(component: &Component, order: &[usize]) -> Vec<u64> {
    let rects = &component.rects;
    let mut offsets = vec![0; rects.len()];
    let mut placed: Vec<usize> = Vec::with_capacity(rects.len()); // ascending by offset
    for &i in order {
        let mut offset = 0;
        for &j in &placed {
            if !rects[i].overlaps(&rects[j]) {
                continue;
            }
            if offset + rects[i].size <= offsets[j] {
                break;
            }
            offset = offset.max(offsets[j] + rects[j].size);
        }
        offsets[i] = offset;
        let at = placed.partition_point(|&j| offsets[j] <= offset);
        placed.insert(at, i);
    }
    offsets
}
