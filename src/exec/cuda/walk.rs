//! Nests that read one tensor along one dimension and write, or read, another along a different one: transpositions, on the
//! way to something else.
//!
//! Neighbouring threads then are neighbours in one of the tensors only, and each of the other's elements costs a sector of
//! 32 bytes, of which seven eighths would be fetched for nothing: the other elements in it are wanted by blocks that run much
//! later. So points are taken in small tiles, of as many along the one dimension as fill a sector, and as many along the
//! other as a block has threads for the rest: every sector that a block fetches it uses whole, from the L1 cache.

use super::nest::{Walk, space_of, walk_of};
use crate::kernel::access::Access;
use crate::kernel::body::{BufferId, Expr, Nest};
use crate::plan::{Buffer, Storage};
use std::borrow::Cow;
use std::cmp::Reverse;

/// Elements of four bytes in a sector, what memory hands to an SM at once.
const SECTOR: usize = 8;

/// The nest with its dimensions cut and in another order, where that fills sectors.
pub fn by_sectors<'n>(nest: &'n Nest<BufferId>, buffers: &[Buffer]) -> Cow<'n, Nest<BufferId>> {
    let walked = match walk_of(nest, &space_of(nest)) {
        Walk::Elementwise => in_tiles(nest, buffers),
        Walk::Columns => along_rows(nest, buffers),
        Walk::Rows => None,
    };
    walked.map_or(Cow::Borrowed(nest), Cow::Owned)
}

/// How whole tensors as large as the space are read and written, what is written first.
fn whole<'n>(nest: &'n Nest<BufferId>, buffers: &'n [Buffer]) -> impl Iterator<Item = &'n Access> {
    let stores = nest.sweeps.iter().flat_map(|sweep| &sweep.stores).map(|store| (store.buffer, &store.access));
    let loads = nest.exprs.iter().filter_map(|expr| match expr {
        Expr::Load { buffer, access, .. } => Some((*buffer, access)),
        _ => None,
    });
    let spans = |access: &Access| (0..nest.space.len()).all(|d| nest.space[d] == 1 || access.strides[d] != 0);
    let is_whole = move |(buffer, access): &(BufferId, &Access)| {
        buffers[buffer.index()].storage == Storage::Elements && spans(access)
    };
    stores.chain(loads).filter(is_whole).map(|(_, access)| access)
}

/// The dimension whose neighbours are neighbours in memory.
fn fastest(access: &Access, space: &[usize]) -> Option<usize> {
    (0..space.len()).find(|&d| space[d] > 1 && access.strides[d].unsigned_abs() == 1)
}

/// Those dimensions of the space between whose points an access has less to go than between those along `d`, the one with
/// the widest steps first.
fn within(access: &Access, space: &[usize], d: usize) -> Vec<usize> {
    let step = |d: usize| access.strides[d].unsigned_abs();
    let mut inner: Vec<usize> = (0..space.len()).filter(|&e| space[e] > 1 && step(e) < step(d)).collect();
    inner.sort_by_key(|&e| Reverse(step(e)));
    inner
}

/// A nest that reduces nothing: the dimension along which one tensor lies is cut into runs that fill a sector, and those along
/// which another lies are walked between the runs and their elements.
fn in_tiles(nest: &Nest<BufferId>, buffers: &[Buffer]) -> Option<Nest<BufferId>> {
    let space = &nest.space;
    let can_be_cut = |d: usize| {
        let is_bounded = |expr: &Expr<BufferId>| expr.access().is_some_and(|access| access.is_bounded(d));
        space[d].is_multiple_of(SECTOR) && !nest.exprs.iter().any(is_bounded)
    };
    let runs = whole(nest, buffers).filter_map(|access| fastest(access, space)).find(|&d| can_be_cut(d))?;
    let crossing = whole(nest, buffers).find(|access| fastest(access, space).is_some_and(|d| d != runs))?;
    let across = within(crossing, space, runs);
    let mut order: Vec<usize> = (0..space.len()).filter(|d| *d != runs && !across.contains(d)).collect();
    // Dimensions as of the nest that is cut: `runs` is in two, of which the second is one more.
    let cut = |d: usize| if d > runs { d + 1 } else { d };
    order.push(runs);
    let mut order: Vec<usize> = order.into_iter().chain(across).map(cut).collect();
    order.push(runs + 1);
    Some(nest.cut(runs, SECTOR).permuted(&order))
}

/// A nest that reduces, for a block's lanes beside each other: what another tensor has along reduced dimensions is swept in
/// that order, so that the same lanes soon want what is in the same sectors.
fn along_rows(nest: &Nest<BufferId>, buffers: &[Buffer]) -> Option<Nest<BufferId>> {
    let space = &nest.space;
    let crossing = whole(nest, buffers).find(|access| fastest(access, space).is_some_and(|d| nest.reduced[d]))?;
    let lane = (0..space.len()).rev().find(|&d| space[d] > 1 && !nest.reduced[d])?;
    let across: Vec<usize> = within(crossing, space, lane).into_iter().filter(|&d| nest.reduced[d]).collect();
    let others = |d: &usize| !across.contains(d);
    let before: Vec<usize> = (0..lane).filter(others).collect();
    let order: Vec<usize> =
        before.into_iter().chain(across.clone()).chain((lane..space.len()).filter(others)).collect();
    (!order.is_sorted()).then(|| nest.permuted(&order))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::body::{Exprs, Reduction, SlotId, Store, Sweep};
    use crate::plan::{BufferRole, DType, ReduceKind};
    use crate::tensor::Lane;
    use std::collections::BTreeSet;

    fn buffers(storage: Storage) -> Vec<Buffer> {
        let buffer = |name: &str| Buffer {
            name: name.into(),
            dtype: DType::F32,
            storage,
            shape: Vec::new(),
            order: Vec::new(),
            role: BufferRole::Temporary,
            offset: 0,
            live: (0, 0),
        };
        ["from", "to"].map(buffer).to_vec()
    }

    /// A nest over images `[n][c][h][w]` that reads them in one order of memory.
    fn load(space: &[usize], order: &[usize]) -> (Exprs<BufferId>, crate::kernel::body::ExprId) {
        let mut exprs = Exprs::default();
        let access = Access::ordered(space, order);
        let value = exprs.push(Expr::Load { buffer: BufferId::new(0), access, lane: Lane::Real });
        (exprs, value)
    }

    /// One that stores what it reads, in another order.
    fn moving(space: &[usize], from: &[usize], to: &[usize]) -> Nest<BufferId> {
        let (exprs, value) = load(space, from);
        let store = Store { value, buffer: BufferId::new(1), access: Access::ordered(space, to) };
        Nest::elementwise(space.to_vec(), exprs, vec![store]).in_memory_order()
    }

    /// The elements that are read and written, point by point.
    fn elements(nest: &Nest<BufferId>) -> Vec<[i128; 2]> {
        let Some(Expr::Load { access, .. }) = nest.exprs.iter().next() else { panic!("nothing is read") };
        let stored = nest.stores().next().map_or(access, |store| &store.access);
        let mut points = vec![Vec::new()];
        for &size in &nest.space {
            points = points.into_iter().flat_map(|p| (0..size).map(move |i| [&p[..], &[i]].concat())).collect();
        }
        points.iter().map(|point| [access, stored].map(|access| access.element(point).unwrap())).collect()
    }

    /// How many sectors blocks of 256 threads fetch and fill, in all.
    fn sectors(nest: &Nest<BufferId>) -> usize {
        let of = |block: &[[i128; 2]], side: usize| -> usize {
            block.iter().map(|element| element[side] / SECTOR as i128).collect::<BTreeSet<_>>().len()
        };
        elements(nest).chunks(256).map(|block| of(block, 0) + of(block, 1)).sum()
    }

    const IMAGES: [usize; 4] = [0, 1, 2, 3];
    const PIXELS: [usize; 4] = [2, 3, 0, 1];

    #[test]
    fn a_transposition_uses_whole_sectors() {
        for space in [vec![4, 32, 7, 7], vec![3, 8, 5, 5], vec![2, 24, 16, 16], vec![8, 64, 3, 1]] {
            for [from, to] in [[IMAGES, PIXELS], [PIXELS, IMAGES]] {
                let nest = moving(&space, &from, &to);
                let walked = by_sectors(&nest, &buffers(Storage::Elements));
                let [mut before, mut after] = [elements(&nest), elements(&walked)];
                before.sort_unstable();
                after.sort_unstable();
                assert_eq!(before, after, "the same points, each once");
                let least = 2 * before.len().div_ceil(SECTOR);
                let (was, is) = (sectors(&nest), sectors(&walked));
                assert!(is * 10 <= least * 15 && is <= was, "{space:?}: {was} sectors, then {is}; all have {least}");
            }
        }
        let large = moving(&[4, 256, 7, 7], &IMAGES, &PIXELS);
        assert!(sectors(&large) > 3 * sectors(&by_sectors(&large, &buffers(Storage::Elements))));
    }

    #[test]
    fn others_are_walked_as_they_are() {
        let is_left =
            |nest: &Nest<BufferId>, storage: Storage| matches!(by_sectors(nest, &buffers(storage)), Cow::Borrowed(_));
        assert!(is_left(&moving(&[4, 32, 7, 7], &PIXELS, &PIXELS), Storage::Elements));
        // Nothing fills a sector: no dimension is a multiple of its elements.
        assert!(is_left(&moving(&[5, 31, 7, 7], &IMAGES, &PIXELS), Storage::Elements));
        // Bits lie closer.
        assert!(is_left(&moving(&[4, 32, 7, 7], &IMAGES, &PIXELS), Storage::Bits));
        // A bound on the dimension that would be cut.
        let mut bounded = moving(&[4, 32, 7, 7], &IMAGES, &PIXELS);
        let inside = Access::contiguous(&[7, 7, 4, 31]).shifted(&[7, 7, 4, 31], &[7, 7, 4, 32], |_| 0);
        assert!(inside.is_bounded(3));
        bounded.exprs.push(Expr::Inside { access: inside });
        assert!(is_left(&bounded, Storage::Elements));
    }

    /// Sums for each channel of rows `[n][c][h][w]`, beside pixels in the order of their memory.
    #[test]
    fn a_reduction_sweeps_along_what_lies_along_rows() {
        let space = [7, 7, 16, 64];
        let mut exprs = Exprs::default();
        let access = Access { offset: 0, strides: vec![7, 1, 64 * 49, 49], bounds: Vec::new() };
        let value = exprs.push(Expr::Load { buffer: BufferId::new(0), access, lane: Lane::Real });
        let reduction = Reduction { kind: ReduceKind::Sum, value, slot: SlotId::new(0) };
        let sweep = Sweep { reductions: vec![reduction], ..Sweep::default() };
        let reduced = vec![true, true, true, false];
        let nest = Nest { space: space.to_vec(), reduced, exprs, slots: 1, sweeps: vec![sweep] };
        let walked = by_sectors(&nest, &buffers(Storage::Elements));
        assert_eq!(walked.space, [16, 7, 7, 64]);
        assert_eq!(walked.reduced, [true, true, true, false]);
        let kept: Vec<i128> = elements(&nest).iter().map(|element| element[0]).collect();
        let mut other: Vec<i128> = elements(&walked).iter().map(|element| element[0]).collect();
        assert_ne!(kept, other);
        other.sort_unstable();
        let mut all = kept;
        all.sort_unstable();
        assert_eq!(all, other);
    }
}
