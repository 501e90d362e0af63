//! Layered layout of boxes and arrows, top to bottom.
//!
//! Ranks, order and positions come from `rust-sugiyama` (after Gansner et al., "A technique for drawing directed graphs",
//! IEEE TSE 19(3), 1993; Brandes & Köpf, "Fast and simple horizontal coordinate assignment", GD 2001). It places boxes;
//! the ways of long arrows between them are found by giving it a small box for each rank that an arrow passes.

use rust_sugiyama::configure::{Config, CrossingMinimization, RankingType};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    pub x: f64,
    pub y: f64,
}

/// Where boxes and arrows are; everything lies within the width and height, from 0 on.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    /// The middle of each box.
    pub boxes: Vec<Point>,
    /// The points that each arrow goes through, from its first box's edge to its second's.
    pub arrows: Vec<Vec<Point>>,
    pub width: f64,
    pub height: f64,
}

/// Space between boxes beside each other, and between ranks.
const GAP: f64 = 22.0;
/// Width kept free for an arrow that passes a rank.
const LANE: f64 = 4.0;
/// How far from a box's corner an arrow ends.
const CORNER: f64 = 8.0;

/// Lays out boxes of the given widths and heights. Arrows may form cycles; an arrow from a box to itself or a second one
/// between the same boxes is not asked for.
pub fn layered(sizes: &[(f64, f64)], arrows: &[(usize, usize)]) -> Layout {
    let first = place(sizes, arrows);
    let ranks = Ranks::new(&first, sizes);
    // One vertex for each rank that an arrow passes. Now no arrow passes any, and all ranks stay as they are.
    let mut all = sizes.to_vec();
    let mut steps = Vec::new();
    let mut ways: Vec<Vec<usize>> = Vec::new();
    for &(from, to) in arrows {
        let (top, bottom) = if ranks.of[from] <= ranks.of[to] { (from, to) } else { (to, from) };
        let mut way = vec![top];
        for _ in ranks.of[top] + 1..ranks.of[bottom] {
            way.push(all.len());
            all.push((LANE, 0.0));
        }
        way.push(bottom);
        steps.extend(way.windows(2).map(|pair| (pair[0], pair[1])));
        if top != from {
            way.reverse();
        }
        ways.push(way);
    }
    let mut centres = place(&all, &steps);
    let left = all.iter().zip(&centres).map(|((w, _), c)| c.x - w / 2.0).fold(f64::INFINITY, f64::min);
    let top = all.iter().zip(&centres).map(|((_, h), c)| c.y - h / 2.0).fold(f64::INFINITY, f64::min);
    for centre in &mut centres {
        *centre = Point { x: centre.x - left, y: centre.y - top };
    }
    let ranks = Ranks::new(&centres, &all);
    let arrows = ways.iter().map(|way| route(way, &centres, &all, &ranks)).collect();
    let extent = |of: fn(&Point) -> f64, half: fn(&(f64, f64)) -> f64| {
        all.iter().zip(&centres).map(|(size, centre)| of(centre) + half(size) / 2.0).fold(0.0, f64::max)
    };
    let (width, height) = (extent(|p| p.x, |s| s.0), extent(|p| p.y, |s| s.1));
    centres.truncate(sizes.len());
    Layout { boxes: centres, arrows, width, height }
}

/// The middles of boxes; what is not connected stands side by side.
fn place(sizes: &[(f64, f64)], arrows: &[(usize, usize)]) -> Vec<Point> {
    let config = Config {
        minimum_length: 1,
        vertex_spacing: GAP,
        dummy_vertices: true,
        dummy_size: 0.3,
        ranking_type: RankingType::MinimizeEdgeLength,
        c_minimization: CrossingMinimization::Barycenter,
        transpose: sizes.len() < 400,
    };
    let mut centres = vec![Point { x: 0.0, y: 0.0 }; sizes.len()];
    let mut start = 0.0;
    for part in parts(sizes.len(), arrows) {
        // The library numbers what it is given from 0 on.
        let local: BTreeMap<usize, u32> = part.iter().enumerate().map(|(i, &v)| (v, i as u32)).collect();
        let vertices: Vec<(u32, (f64, f64))> = part.iter().map(|&v| (local[&v], sizes[v])).collect();
        let edges: Vec<(u32, u32)> =
            arrows.iter().filter_map(|(from, to)| Some((*local.get(from)?, *local.get(to)?))).collect();
        let placed: Vec<(usize, (f64, f64))> = if edges.is_empty() {
            part.iter().map(|&v| (v, (0.0, 0.0))).collect()
        } else {
            let layouts = rust_sugiyama::from_vertices_and_edges(&vertices, &edges, &config);
            let positions = layouts.into_iter().flat_map(|(positions, ..)| positions);
            positions.filter_map(|(v, at)| Some((*part.get(v)?, at))).collect()
        };
        let left = placed.iter().map(|&(v, (x, _))| x - sizes[v].0 / 2.0).fold(f64::INFINITY, f64::min);
        // Parts hang from the same line.
        let top = placed.iter().map(|&(v, (_, y))| y - sizes[v].1 / 2.0).fold(f64::INFINITY, f64::min);
        for &(v, (x, y)) in &placed {
            centres[v] = Point { x: start + x - left, y: y - top };
        }
        start = placed.iter().map(|&(v, _)| centres[v].x + sizes[v].0 / 2.0 + GAP).fold(start, f64::max);
    }
    centres
}

/// Boxes that arrows connect, each part sorted; the parts by their first box.
fn parts(boxes: usize, arrows: &[(usize, usize)]) -> Vec<Vec<usize>> {
    let mut neighbours = vec![Vec::new(); boxes];
    for &(from, to) in arrows {
        neighbours[from].push(to);
        neighbours[to].push(from);
    }
    let mut seen = vec![false; boxes];
    let mut parts = Vec::new();
    for start in 0..boxes {
        let (mut part, mut stack) = (Vec::new(), vec![start]);
        while let Some(v) = stack.pop() {
            if !std::mem::replace(&mut seen[v], true) {
                part.push(v);
                stack.extend(&neighbours[v]);
            }
        }
        if !part.is_empty() {
            part.sort_unstable();
            parts.push(part);
        }
    }
    parts
}

/// The rank of each box, counted within all: boxes with their middle at the same height.
struct Ranks {
    of: Vec<usize>,
    /// Half the height of the highest box in each rank.
    half: Vec<f64>,
}

impl Ranks {
    fn new(centres: &[Point], sizes: &[(f64, f64)]) -> Ranks {
        let key = |point: &Point| (point.y * 64.0).round() as i64;
        let heights: BTreeSet<i64> = centres.iter().map(key).collect();
        let index: BTreeMap<i64, usize> = heights.into_iter().enumerate().map(|(rank, y)| (y, rank)).collect();
        let of: Vec<usize> = centres.iter().map(|centre| index[&key(centre)]).collect();
        let mut half = vec![0.0f64; index.len()];
        for (rank, (_, height)) in of.iter().zip(sizes) {
            half[*rank] = half[*rank].max(height / 2.0);
        }
        Ranks { of, half }
    }
}

/// The points of an arrow. It goes upright through every rank that it leaves, passes or enters, as its neighbours there may
/// be higher than itself.
fn route(way: &[usize], centres: &[Point], sizes: &[(f64, f64)], ranks: &Ranks) -> Vec<Point> {
    let mut points = Vec::new();
    let (first, last) = (way[0], way[way.len() - 1]);
    let sign = if centres[first].y <= centres[last].y { 1.0 } else { -1.0 };
    // Each end is as near as it can be to where the arrow comes from.
    let end = |at: usize, next: usize| {
        let room = (sizes[at].0 / 2.0 - CORNER).max(0.0);
        centres[next].x.clamp(centres[at].x - room, centres[at].x + room)
    };
    for (step, &at) in way.iter().enumerate() {
        let (y, half) = (centres[at].y, ranks.half[ranks.of[at]]);
        let (x, from, to) = if step == 0 {
            (end(first, way[1]), sizes[at].1 / 2.0, half)
        } else if step + 1 == way.len() {
            (end(last, way[step - 1]), -half, -sizes[at].1 / 2.0)
        } else {
            (centres[at].x, -half, half)
        };
        points.push(Point { x, y: y + sign * from });
        points.push(Point { x, y: y + sign * to });
    }
    points.dedup();
    points
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn overlaps(a: (Point, (f64, f64)), b: (Point, (f64, f64))) -> bool {
        let apart = |p: f64, q: f64, sizes: f64| (p - q).abs() >= sizes / 2.0 - 1e-6;
        !apart(a.0.x, b.0.x, a.1.0 + b.1.0) && !apart(a.0.y, b.0.y, a.1.1 + b.1.1)
    }

    proptest! {
        /// No two boxes overlap, arrows go from edge to edge, all is inside, and the same input gives the same layout.
        #[test]
        fn nothing_overlaps(
            sizes in prop::collection::vec((20.0..200.0f64, 20.0..90.0f64), 1..24),
            arrows in prop::collection::btree_set((0usize..24, 0usize..24), 0..40),
        ) {
            let n = sizes.len();
            let arrows: BTreeSet<(usize, usize)> =
                arrows.into_iter().map(|(a, b)| (a % n, b % n)).filter(|(a, b)| a < b).collect();
            let arrows: Vec<_> = arrows.into_iter().collect();
            let layout = layered(&sizes, &arrows);
            for a in 0..n {
                for b in 0..a {
                    let (p, q) = ((layout.boxes[a], sizes[a]), (layout.boxes[b], sizes[b]));
                    prop_assert!(!overlaps(p, q), "{a} {p:?} and {b} {q:?}");
                }
                let (Point { x, y }, (w, h)) = (layout.boxes[a], sizes[a]);
                prop_assert!(x - w / 2.0 >= -1e-6 && x + w / 2.0 <= layout.width + 1e-6);
                prop_assert!(y - h / 2.0 >= -1e-6 && y + h / 2.0 <= layout.height + 1e-6);
            }
            for (&(from, to), points) in arrows.iter().zip(&layout.arrows) {
                prop_assert!(layout.boxes[from].y < layout.boxes[to].y, "top to bottom");
                let (start, end) = (points[0], points[points.len() - 1]);
                prop_assert!((start.y - layout.boxes[from].y - sizes[from].1 / 2.0).abs() < 1e-6);
                prop_assert!((end.y - layout.boxes[to].y + sizes[to].1 / 2.0).abs() < 1e-6);
                prop_assert!((start.x - layout.boxes[from].x).abs() <= sizes[from].0 / 2.0);
            }
            prop_assert_eq!(&layout, &layered(&sizes, &arrows));
        }
    }

    #[test]
    fn cycles_and_nothing_at_all_are_laid_out() {
        assert_eq!(layered(&[], &[]).boxes, []);
        let ring = layered(&[(30.0, 20.0); 3], &[(0, 1), (1, 2), (2, 0)]);
        assert_eq!(ring.arrows.len(), 3);
        let heights: BTreeSet<i64> = ring.boxes.iter().map(|centre| centre.y as i64).collect();
        assert_eq!(heights.len(), 3, "{ring:?}");
    }
}
