use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn overlaps(a: (Point, (f64, f64)), b: (Point, (f64, f64))) -> bool {
    let apart = |p: f64, q: f64, sizes: f64| (p - q).abs() >= sizes / 2.0 - 1e-6;
    !apart(a.0.x, b.0.x, a.1.0 + b.1.0) && !apart(a.0.y, b.0.y, a.1.1 + b.1.1)
}

/// What holds of every layout: no two boxes overlap, all is inside, arrows go from edge to edge, and the same input
/// gives the same layout.
fn check(sizes: &[(f64, f64)], arrows: &[(usize, usize)]) -> Layout {
    let layout = layered(sizes, arrows);
    let inside = |p: &Point| {
        assert!(p.x >= -1e-6 && p.x <= layout.width + 1e-6, "{p:?} of {}", layout.width);
        assert!(p.y >= -1e-6 && p.y <= layout.height + 1e-6, "{p:?} of {}", layout.height);
    };
    for a in 0..sizes.len() {
        for b in 0..a {
            let (p, q) = ((layout.boxes[a], sizes[a]), (layout.boxes[b], sizes[b]));
            assert!(!overlaps(p, q), "{a} {p:?} and {b} {q:?}");
        }
        let (Point { x, y }, (w, h)) = (layout.boxes[a], sizes[a]);
        inside(&Point { x: x - w / 2.0, y: y - h / 2.0 });
        inside(&Point { x: x + w / 2.0, y: y + h / 2.0 });
    }
    for (&(from, to), points) in arrows.iter().zip(&layout.arrows) {
        assert_eq!(points.is_empty(), from == to);
        let (Some(start), Some(end)) = (points.first(), points.last()) else { continue };
        points.iter().for_each(inside);
        for (point, at) in [(start, from), (end, to)] {
            assert!(((point.y - layout.boxes[at].y).abs() - sizes[at].1 / 2.0).abs() < 1e-6, "an end is at an edge");
            assert!((point.x - layout.boxes[at].x).abs() <= sizes[at].0 / 2.0 + 1e-6);
        }
    }
    assert_eq!(layout, layered(sizes, arrows));
    layout
}

proptest! {
    /// Graphs without cycles are drawn from top to bottom.
    #[test]
    fn without_cycles_all_goes_down(
        sizes in prop::collection::vec((20.0..200.0f64, 20.0..90.0f64), 1..24),
        arrows in prop::collection::btree_set((0usize..24, 0usize..24), 0..40),
    ) {
        let n = sizes.len();
        let arrows: BTreeSet<(usize, usize)> =
            arrows.into_iter().map(|(a, b)| (a % n, b % n)).filter(|(a, b)| a < b).collect();
        let arrows: Vec<_> = arrows.into_iter().collect();
        let layout = check(&sizes, &arrows);
        for &(from, to) in &arrows {
            prop_assert!(layout.boxes[from].y < layout.boxes[to].y, "top to bottom");
        }
    }

    /// As condensed graphs may be: with cycles, arrows to oneself and arrows that are there twice, nothing, one box,
    /// boxes apart from the rest, and as many arrows as there can be.
    #[test]
    fn everything_is_laid_out(
        sizes in prop::collection::vec((20.0..400.0f64, 20.0..900.0f64), 0..40),
        arrows in prop::collection::vec((0usize..40, 0usize..40), 0..160),
    ) {
        let n = sizes.len();
        let arrows: Vec<_> = arrows.into_iter().filter(|_| n > 0).map(|(a, b)| (a % n, b % n)).collect();
        check(&sizes, &arrows);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Large ones: that they end, and soon, is what is tested.
    #[test]
    fn large_random_graphs_end(n in 500usize..2000, seeds in prop::collection::vec((any::<u32>(), any::<u32>()), 0..4000)) {
        let arrows: Vec<_> = seeds.into_iter().map(|(a, b)| (a as usize % n, b as usize % n)).collect();
        prop_assert_eq!(layered(&vec![(80.0, 30.0); n], &arrows).boxes.len(), n);
    }
}

#[test]
fn cycles_and_nothing_at_all_are_laid_out() {
    assert_eq!(layered(&[], &[]).boxes, []);
    assert_eq!(layered(&[(30.0, 20.0)], &[(0, 0)]).boxes, [Point { x: 15.0, y: 10.0 }]);
    let ring = check(&[(30.0, 20.0); 3], &[(0, 1), (1, 2), (2, 0)]);
    let heights: BTreeSet<i64> = ring.boxes.iter().map(|centre| centre.y as i64).collect();
    assert_eq!(heights.len(), 3, "{ring:?}");
}

/// A long chain with an arrow from each box to the last, a wide fan, and everything joined with everything.
#[test]
fn large_graphs_end() {
    let lay_out = |n: usize, arrows: &[(usize, usize)]| {
        let started = std::time::Instant::now();
        let layout = layered(&vec![(80.0, 30.0); n], arrows);
        assert_eq!(layout.boxes.len(), n);
        assert!(started.elapsed().as_secs() < 60, "{n} boxes took {:?}", started.elapsed());
        layout
    };
    let n = 20_000;
    let chain: Vec<_> = (1..n).map(|i| (i - 1, i)).chain((0..n).map(|i| (i, n - 1))).collect();
    lay_out(n, &chain);
    let fan: Vec<_> = (1..4_000).map(|i| (0, i)).collect();
    lay_out(4_000, &fan);
    let all: Vec<_> = (0..100).flat_map(|a| (0..100).map(move |b| (a, b))).collect();
    lay_out(100, &all);
}

/// The way of a long arrow is kept free: it is straight where nothing is in its way.
#[test]
fn long_arrows_are_straight() {
    let sizes = [(60.0, 24.0); 6];
    let layout = check(&sizes, &[(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (0, 5)]);
    let long = &layout.arrows[5];
    let bends = &long[1..long.len() - 1];
    let turns = bends.windows(2).filter(|pair| (pair[0].x - pair[1].x).abs() > 1.0).count();
    assert!(turns <= 2, "{long:?}");
}
