//! First-fit placement under several orders: enough for most networks.

use super::occupied::Occupied;
use super::problem::Component;
use std::cmp::Reverse;

/// The lowest of the placements that first-fit finds under each order; stops at one of height `goal` or less.
pub(super) fn best(component: &Component, goal: u64) -> Vec<u64> {
    let mut best: Option<(u64, Vec<u64>)> = None;
    for order in orders(component) {
        let lowest = best.as_ref().map_or(u64::MAX, |&(height, _)| height);
        if let Some(offsets) = first_fit(component, &order, lowest) {
            best = Some((component.height(&offsets), offsets));
        }
        if best.as_ref().is_some_and(|&(height, _)| height <= goal) {
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

/// Places each buffer of `order` at the lowest offset that the buffers placed before it leave. None: that comes to no
/// less than `height`.
fn first_fit(component: &Component, order: &[usize], height: u64) -> Option<Vec<u64>> {
    let mut offsets = vec![0; component.rects.len()];
    let mut occupied = Occupied::new(component.load.len());
    for &i in order {
        let rect = &component.rects[i];
        offsets[i] = occupied.lowest_fit(rect);
        if offsets[i] + rect.size >= height {
            return None;
        }
        occupied.insert(rect, offsets[i]);
    }
    Some(offsets)
}
