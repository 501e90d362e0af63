//! The portfolio: many short searches, under several limits and orders, until the goal or the budget is reached.
//!
//! The time a depth-first search takes varies by orders of magnitude with the order it tries buffers in, and no one
//! order is good on all inputs (measured on the ASPLOS 2023 instances of MiniMalloc and on
//! [`super::instances::perfect_packing`]). Most that end do so early, so each round tries another order for a while
//! that follows Luby's sequence (M. Luby, A. Sinclair and D. Zuckerman, "Optimal Speedup of Las Vegas Algorithms",
//! 1993).
//!
//! The limit is as important: a search under one that cannot be kept finds nothing, however long. So two tracks share
//! the steps evenly. One insists on the best that may exist; the other goes down in strides from what was found.

use super::problem::{Component, Rect};
use super::rng::SplitMix64;
use super::tree::{Order, Outcome, Rule, Search};

/// Components in which more pairs of buffers overlap are left as greedy placed them: the search lists them all, in
/// 8 bytes a pair.
const MOST_OVERLAPS: usize = 8 << 20;
/// Nodes of the shortest searches, for each buffer: enough to place all and to go back a few times.
const NODES_PER_BUFFER: u64 = 2;
/// One of how many nodes is visited to see how long a search takes.
const SAMPLE: u64 = 16;
/// How many scores there are: see [`plain_score`].
const SCORES: u64 = 5;
/// The noise on them, in turn, once all were tried without under both rules.
const NOISE: [f64; 4] = [0.1, 0.3, 0.1, 1.0];

/// One sequence of rounds.
#[derive(Default)]
struct Track {
    /// Rounds that found nothing. (A round that finds a placement is repeated, under a lower limit.)
    failures: u64,
    steps: u64,
}

/// Lowers `offsets` towards height `goal` with about `budget` steps at most (over by one node of the tree); returns
/// the steps taken. Gives up at once where the budget is too small for the component.
pub(super) fn improve(component: &Component, offsets: &mut Vec<u64>, goal: u64, budget: u64) -> u64 {
    let mut height = component.height(offsets);
    if budget == 0 || height <= goal || component.overlaps() > MOST_OVERLAPS {
        return 0;
    }
    let mut search = Search::new(component);
    // A budget too small to place all even once finds nothing. A sample shows it: a node takes hundreds of times longer
    // where thousands of buffers live at once.
    let most = budget / SAMPLE;
    search.run(height - 1, &order(component, 0), offsets.len() as u64 / SAMPLE + 1, most);
    if search.steps() >= most {
        return search.steps();
    }
    let mut proven = goal; // lower than this is impossible, or of no use
    let (mut at_bound, mut descent) = (Track::default(), Track::default());
    while height > proven && search.steps() < budget {
        let before = search.steps();
        let (track, limit) = if at_bound.steps <= descent.steps {
            (&mut at_bound, proven)
        } else {
            // Lower by a half of the gap at first; by less and less where that fails, then by a half again.
            let stride = (height - proven) >> (1 + descent.failures % 4);
            (&mut descent, height - stride.max(1))
        };
        let nodes = offsets.len() as u64 * NODES_PER_BUFFER * luby(track.failures + 1);
        let outcome = search.run(limit, &order(component, track.failures), nodes, budget);
        track.steps += search.steps() - before;
        match outcome {
            Outcome::Found => {
                *offsets = search.offsets();
                height = component.height(offsets);
            }
            Outcome::Refuted => {
                proven = limit + 1;
                track.failures += 1;
            }
            Outcome::OutOfSteps => track.failures += 1,
        }
    }
    search.steps()
}

/// The order of a round: all scores in turn, then under the other rule, then with noise and mostly the first rule.
fn order(component: &Component, round: u64) -> Order {
    let mut rng = SplitMix64(round);
    let cycle = round / SCORES;
    let noise = match cycle {
        0 | 1 => 0.0,
        _ => NOISE[(cycle % 4) as usize],
    };
    let rule = if cycle % 4 == 1 { Rule::LeastSlack } else { Rule::LowestFloor };
    let score = |rect: &Rect| plain_score(rect, round % SCORES) * (1.0 + noise * (2.0 * rng.unit() - 1.0));
    Order { rule, score: component.rects.iter().map(score).collect() }
}

/// Long first, large first, and mixtures of the two.
fn plain_score(rect: &Rect, kind: u64) -> f64 {
    let (size, span) = (rect.size as f64, rect.span() as f64);
    match kind {
        0 => span + size * 1e-9, // size breaks ties
        1 => size,
        2 => span * size,
        3 => span * span * size,
        _ => span.sqrt() * size.sqrt().sqrt(),
    }
}

/// Luby's sequence from index 1: 1, 1, 2, 1, 1, 2, 4, … Each power of two appears half as often as the one below it.
fn luby(mut index: u64) -> u64 {
    loop {
        // The first 2ᵏ − 1 terms end in 2ᵏ⁻¹, and what follows repeats them.
        let power = (index + 1).next_power_of_two();
        if power == index + 1 {
            return power / 2;
        }
        index -= power / 2 - 1;
    }
}

#[cfg(test)]
mod tests {
    use super::luby;

    #[test]
    fn lubys_sequence_begins_as_published() {
        let terms: Vec<u64> = (1..=15).map(luby).collect();
        assert_eq!(terms, [1, 1, 2, 1, 1, 2, 4, 1, 1, 2, 1, 1, 2, 4, 8]);
    }
}
