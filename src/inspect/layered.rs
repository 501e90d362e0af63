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
    let mut all = Layout {
        boxes: vec![Point { x: 0.0, y: 0.0 }; sizes.len()],
        arrows: vec![Vec::new(); arrows.len()],
        width: 0.0,
        height: 0.0,
    };
    let parts: Vec<(Vec<usize>, Vec<usize>, Layout)> = (parts(sizes.len(), arrows).into_iter())
        .map(|part| {
            let local: BTreeMap<usize, usize> = part.iter().enumerate().map(|(i, &v)| (v, i)).collect();
            let own: Vec<usize> = (0..arrows.len()).filter(|&a| local.contains_key(&arrows[a].0)).collect();
            let part_sizes: Vec<(f64, f64)> = part.iter().map(|&v| sizes[v]).collect();
            let part_arrows: Vec<(usize, usize)> =
                own.iter().map(|&a| (local[&arrows[a].0], local[&arrows[a].1])).collect();
            let layout = lay_out_part(&part_sizes, &part_arrows);
            (part, own, layout)
        })
        .collect();
    // What is not connected stands in rows, together about as wide as high.
    let area: f64 = parts.iter().map(|(.., l)| (l.width + GAP) * (l.height + GAP)).sum();
    let most = parts.iter().map(|(.., l)| l.width).fold(1.3 * area.sqrt(), f64::max);
    let mut rows: Vec<(f64, f64, Vec<usize>)> = Vec::new();
    for (index, (.., layout)) in parts.iter().enumerate() {
        match rows.last_mut() {
            Some((width, height, row)) if *width + GAP + layout.width <= most => {
                *width += GAP + layout.width;
                *height = height.max(layout.height);
                row.push(index);
            }
            _ => rows.push((layout.width, layout.height, vec![index])),
        }
    }
    all.width = rows.iter().map(|(width, ..)| *width).fold(0.0, f64::max);
    let mut y = 0.0;
    for (width, height, row) in rows {
        let mut x = (all.width - width) / 2.0;
        for (part, own, layout) in row.into_iter().map(|index| &parts[index]) {
            let shift = |p: &Point| Point { x: p.x + x, y: p.y + y };
            part.iter().zip(&layout.boxes).for_each(|(&v, centre)| all.boxes[v] = shift(centre));
            own.iter().zip(&layout.arrows).for_each(|(&a, points)| all.arrows[a] = points.iter().map(shift).collect());
            x += layout.width + GAP;
        }
        all.height = y + height;
        y += height + GAP;
    }
    all
}

/// Lays out boxes that are all connected.
fn lay_out_part(sizes: &[(f64, f64)], arrows: &[(usize, usize)]) -> Layout {
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
    draw_together(&mut centres, &all, &steps, sizes.len());
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

/// The middles of connected boxes, as the library places them.
fn place(sizes: &[(f64, f64)], arrows: &[(usize, usize)]) -> Vec<Point> {
    let mut centres = vec![Point { x: 0.0, y: 0.0 }; sizes.len()];
    if arrows.is_empty() {
        return centres;
    }
    let config = Config {
        minimum_length: 1,
        vertex_spacing: GAP,
        dummy_vertices: true,
        dummy_size: 0.3,
        ranking_type: RankingType::MinimizeEdgeLength,
        c_minimization: CrossingMinimization::Barycenter,
        transpose: sizes.len() < 400,
    };
    let vertices: Vec<(u32, (f64, f64))> = sizes.iter().enumerate().map(|(v, &size)| (v as u32, size)).collect();
    let edges: Vec<(u32, u32)> = arrows.iter().map(|&(from, to)| (from as u32, to as u32)).collect();
    for (positions, ..) in rust_sugiyama::from_vertices_and_edges(&vertices, &edges, &config) {
        for (v, (x, y)) in positions {
            if let Some(centre) = centres.get_mut(v) {
                *centre = Point { x, y };
            }
        }
    }
    centres
}

/// Moves boxes sideways to the middle of what they are connected with, as far as the order in their ranks lets them:
/// boxes of very different widths leave gaps otherwise. `boxes` are the vertices that are more than a bend of an arrow.
fn draw_together(centres: &mut [Point], sizes: &[(f64, f64)], steps: &[(usize, usize)], boxes: usize) {
    const ROUNDS: usize = 30;
    let mut neighbours: Vec<Vec<(usize, f64)>> = vec![Vec::new(); sizes.len()];
    for &(from, to) in steps {
        // Long arrows are kept straight.
        let weight = [1.0, 2.0, 6.0][usize::from(from >= boxes) + usize::from(to >= boxes)];
        neighbours[from].push((to, weight));
        neighbours[to].push((from, weight));
    }
    let ranks = Ranks::new(centres, sizes);
    let mut rows: Vec<Vec<usize>> = vec![Vec::new(); ranks.half.len()];
    (0..sizes.len()).for_each(|v| rows[ranks.of[v]].push(v));
    rows.iter_mut().for_each(|row| row.sort_by(|&a, &b| centres[a].x.total_cmp(&centres[b].x).then(a.cmp(&b))));
    let gap =
        |a: usize, b: usize| (sizes[a].0 + sizes[b].0) / 2.0 + if a >= boxes && b >= boxes { LANE } else { GAP * 0.75 };
    for round in 0..ROUNDS {
        let order: Vec<usize> =
            if round % 2 == 0 { (0..rows.len()).collect() } else { (0..rows.len()).rev().collect() };
        for row in order.into_iter().map(|rank| &rows[rank]) {
            // The least squares under an order: neighbours that want to pass each other move as one block
            // (pool adjacent violators).
            let mut offset = 0.0;
            let mut blocks: Vec<(f64, f64, usize)> = Vec::new();
            let mut offsets = Vec::with_capacity(row.len());
            for (i, &v) in row.iter().enumerate() {
                offset += if i > 0 { gap(row[i - 1], v) } else { 0.0 };
                offsets.push(offset);
                let weight: f64 = neighbours[v].iter().map(|(_, w)| w).sum();
                let sum: f64 = neighbours[v].iter().map(|&(n, w)| w * centres[n].x).sum();
                let (wish, weight) = if weight > 0.0 { (sum / weight, weight) } else { (centres[v].x, 0.1) };
                blocks.push((wish - offset, weight, 1));
                while let [.., (a, wa, na), (b, wb, nb)] = blocks[..]
                    && a > b
                {
                    blocks.truncate(blocks.len() - 2);
                    blocks.push(((a * wa + b * wb) / (wa + wb), wa + wb, na + nb));
                }
            }
            let placed = blocks.iter().flat_map(|&(at, _, n)| std::iter::repeat_n(at, n));
            for ((&v, at), offset) in row.iter().zip(placed).zip(&offsets) {
                centres[v].x = at + offset;
            }
        }
    }
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
