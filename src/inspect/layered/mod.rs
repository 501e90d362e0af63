//! Layered layout of boxes and arrows, top to bottom.
//!
//! In four steps, each with a bound on its work, so that every graph is laid out: cycles are cut and boxes get ranks
//! ([`rank`]), a vertex for each rank that an arrow passes keeps its way free, ranks are ordered so that few arrows
//! cross ([`order`]), and vertices move sideways to what they are joined with, as far as the order lets them.

mod order;
mod rank;

use std::collections::BTreeMap;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    pub x: f64,
    pub y: f64,
}

/// Where boxes and arrows are; everything lies between 0 and the width and height.
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
/// Vertices for the ranks that arrows pass. Where that is not enough, the longest arrows are drawn straight, behind
/// what is in their way.
const MOST_BENDS: usize = 40_000;

/// Lays out boxes of the given widths and heights. Arrows may form cycles and may be there twice; one from a box to
/// itself has no points.
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
    let forward = rank::without_cycles(sizes.len(), arrows);
    let mut rank = rank::ranks(sizes.len(), &forward);
    let height = |&(from, to): &(usize, usize)| rank[from].abs_diff(rank[to]);
    let longest = longest_with_bends(&mut arrows.iter().map(height).collect::<Vec<_>>());
    // One vertex for each rank that an arrow passes: every step goes from a rank to the next.
    let mut all = sizes.to_vec();
    let (mut steps, mut ways) = (Vec::new(), Vec::new());
    for &(from, to) in arrows {
        let (top, bottom) = if rank[from] <= rank[to] { (from, to) } else { (to, from) };
        let mut way = vec![top];
        if rank[bottom] - rank[top] <= longest {
            for passed in rank[top] + 1..rank[bottom] {
                way.push(all.len());
                all.push((LANE, 0.0));
                rank.push(passed);
            }
        }
        way.push(bottom);
        if from != to {
            steps.extend(way.windows(2).map(|pair| (pair[0], pair[1])));
        }
        if top != from {
            way.reverse();
        }
        ways.push(way);
    }
    let between_neighbours: Vec<(usize, usize)> =
        steps.iter().copied().filter(|&(from, to)| rank[to] == rank[from] + 1).collect();
    let rows = order::ordered(&rank, &between_neighbours);
    let mut half = vec![0.0f64; rows.len()];
    rank.iter().zip(&all).for_each(|(&rank, (_, height))| half[rank] = half[rank].max(height / 2.0));
    let mut middle = 0.0;
    let middles: Vec<f64> = (half.iter().enumerate())
        .map(|(rank, half_height)| {
            middle += half_height + if rank > 0 { half[rank - 1] + GAP } else { 0.0 };
            middle
        })
        .collect();
    let mut centres: Vec<Point> = rank.iter().map(|&rank| Point { x: 0.0, y: middles[rank] }).collect();
    draw_together(&mut centres, &all, &steps, &rows, sizes.len());
    let left = all.iter().zip(&centres).map(|((w, _), c)| c.x - w / 2.0).fold(f64::INFINITY, f64::min);
    centres.iter_mut().for_each(|centre| centre.x -= left);
    let ranks = Ranks { of: rank, half };
    let arrows = (arrows.iter().zip(&ways))
        .map(|((from, to), way)| if from == to { Vec::new() } else { route(way, &centres, &all, &ranks) })
        .collect();
    let width = all.iter().zip(&centres).map(|((w, _), c)| c.x + w / 2.0).fold(0.0, f64::max);
    let height = middles.iter().zip(&ranks.half).map(|(middle, half)| middle + half).fold(0.0, f64::max);
    centres.truncate(sizes.len());
    Layout { boxes: centres, arrows, width, height }
}

/// The most ranks that an arrow may span to get a vertex on each that it passes, within [`MOST_BENDS`].
fn longest_with_bends(heights: &mut [usize]) -> usize {
    heights.sort_unstable();
    let mut bends = 0usize;
    let too_long = heights.iter().find(|height| {
        bends += height.saturating_sub(1);
        bends > MOST_BENDS
    });
    // All of one length or none.
    too_long.map_or(usize::MAX, |height| height - 1)
}

/// Moves boxes sideways to the middle of what they are joined with, as far as the order in their ranks lets them.
/// `boxes` are the vertices that are more than a bend of an arrow.
fn draw_together(
    centres: &mut [Point],
    sizes: &[(f64, f64)],
    steps: &[(usize, usize)],
    rows: &[Vec<usize>],
    boxes: usize,
) {
    /// The first look at one side only, the one that they come from: so long arrows are straight from the start.
    const ONE_SIDED: usize = 10;
    const ROUNDS: usize = 40;
    let mut above: Vec<Vec<(usize, f64)>> = vec![Vec::new(); sizes.len()];
    let mut below = above.clone();
    for &(from, to) in steps {
        // Long arrows are kept straight.
        let weight = [1.0, 2.0, 6.0][usize::from(from >= boxes) + usize::from(to >= boxes)];
        below[from].push((to, weight));
        above[to].push((from, weight));
    }
    let gap =
        |a: usize, b: usize| (sizes[a].0 + sizes[b].0) / 2.0 + if a >= boxes && b >= boxes { LANE } else { GAP * 0.75 };
    for row in rows {
        let offsets = offsets(row, &gap);
        let middle = offsets.last().map_or(0.0, |last| last / 2.0);
        row.iter().zip(offsets).for_each(|(&v, offset)| centres[v].x = offset - middle);
    }
    for round in 0..ROUNDS {
        let down = round % 2 == 0;
        for step in 0..rows.len() {
            let row = &rows[if down { step } else { rows.len() - 1 - step }];
            let joined = |v: usize| {
                let (near, far) = if down { (&above[v], &below[v]) } else { (&below[v], &above[v]) };
                let far = if round < ONE_SIDED && !near.is_empty() { &[][..] } else { far };
                let all = || near.iter().chain(far);
                let weight: f64 = all().map(|(_, weight)| weight).sum();
                let sum: f64 = all().map(|&(n, weight)| weight * centres[n].x).sum();
                if weight > 0.0 { (sum / weight, weight) } else { (centres[v].x, 0.1) }
            };
            let wishes: Vec<(f64, f64)> = row.iter().map(|&v| joined(v)).collect();
            let placed = near_wishes(&offsets(row, &gap), &wishes);
            row.iter().zip(placed).for_each(|(&v, x)| centres[v].x = x);
        }
    }
}

/// The middles of a rank's vertices when they stand as close as they may, the first at 0.
fn offsets(row: &[usize], gap: &dyn Fn(usize, usize) -> f64) -> Vec<f64> {
    let mut offset = 0.0;
    (0..row.len())
        .map(|i| {
            offset += if i > 0 { gap(row[i - 1], row[i]) } else { 0.0 };
            offset
        })
        .collect()
}

/// The least squares to wishes (a place and its weight) in the given order and with at least those distances:
/// neighbours that want to pass each other move as one block (pool adjacent violators).
fn near_wishes(offsets: &[f64], wishes: &[(f64, f64)]) -> Vec<f64> {
    let mut blocks: Vec<(f64, f64, usize)> = Vec::new();
    for (offset, &(wish, weight)) in offsets.iter().zip(wishes) {
        blocks.push((wish - offset, weight, 1));
        while let [.., (a, wa, na), (b, wb, nb)] = blocks[..]
            && a > b
        {
            blocks.truncate(blocks.len() - 2);
            blocks.push(((a * wa + b * wb) / (wa + wb), wa + wb, na + nb));
        }
    }
    let placed = blocks.iter().flat_map(|&(at, _, n)| std::iter::repeat_n(at, n));
    placed.zip(offsets).map(|(at, offset)| at + offset).collect()
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

/// Where vertices stand.
struct Ranks {
    of: Vec<usize>,
    /// Half the height of the highest vertex of each rank.
    half: Vec<f64>,
}

/// The points of an arrow. It goes upright through every rank that it leaves, passes or enters, as its neighbours there
/// may be higher than itself.
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
mod tests;
