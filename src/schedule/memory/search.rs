//! The portfolio: many short searches, under several limits and orders, until the goal or the budget is reached.
//!
//! The time a depth-first search takes varies by orders of magnitude with the order it tries buffers in, and no one
//! order is good on all inputs (measured on the ASPLOS 2023 instances of MiniMalloc and on
//! [`super::instances::perfect_packing`]). So each round runs under another order, for a slice of steps that grows.

use super::problem::Component;
use super::rng::SplitMix64;
use super::tree::{Outcome, Rule, Search};

/// Components with more buffers are left as greedy placed them: the search keeps who overlaps whom, which takes
/// quadratic memory (64 MiB at this size, if all do).
const MOST_BUFFERS: usize = 4096;
/// Steps of the first slices.
const FIRST_SLICE: u64 = 200_000;
/// Rounds after which slices grow by half.
const GROWTH_ROUNDS: u64 = 16;
/// Rounds under the plain orders, before noise is added to them.
const PLAIN_ROUNDS: u64 = 16;
/// Strength of that noise, in turn.
const NOISE: [f64; 4] = [0.1, 0.3, 0.7, 1.0];

/// Lowers `offsets` towards height `goal` with about `budget` steps at most (over by one node of the tree); returns
/// the steps taken.
pub(super) fn improve(component: &Component, offsets: &mut Vec<u64>, goal: u64, budget: u64) -> u64 {
    let mut height = component.height(offsets);
    if budget == 0 || height <= goal || offsets.len() > MOST_BUFFERS {
        return 0;
    }
    let mut search = Search::new(component);
    let mut proven = goal; // lower than this is impossible, or of no use
    let mut slice = FIRST_SLICE;
    for round in 0.. {
        if search.steps >= budget || height <= proven {
            break;
        }
        // Mostly the bound itself: a tight limit prunes best. The others make sure that something is found.
        let gap = height - proven;
        let above = |percent: u64| proven + (proven / 100 * percent).min(gap - 1);
        let limit = match round / 4 % 8 {
            1 | 7 => above(1),
            3 => proven + (gap - 1) / 2,
            5 => above(5),
            _ => proven,
        };
        let rule = match round / 16 % 4 {
            1 => Rule::LeastSlack,
            _ => Rule::LowestFloor,
        };
        let until = budget.min(search.steps + slice);
        match search.run(limit, scores(component, round), rule, until) {
            Outcome::Found => {
                *offsets = search.offsets();
                height = component.height(offsets);
            }
            Outcome::Refuted => proven = limit + 1,
            Outcome::OutOfSteps => {}
        }
        if (round + 1) % GROWTH_ROUNDS == 0 {
            slice += slice / 2;
        }
    }
    search.steps
}

/// The order of a round: by span, by span and size in three mixtures; later with noise.
fn scores(component: &Component, round: u64) -> Vec<f64> {
    let mut rng = SplitMix64(round);
    let noise = match round {
        0..PLAIN_ROUNDS => 0.0,
        _ => NOISE[(round / 4 % 4) as usize],
    };
    let score = |rect: &super::problem::Rect| {
        let (size, span) = (rect.size as f64, rect.span() as f64);
        let plain = match round % 4 {
            0 => span + size * 1e-9, // size breaks ties
            1 => span.sqrt() * size.sqrt().sqrt(),
            2 => span * size,
            _ => span * span * size,
        };
        plain * (1.0 + noise * (2.0 * rng.unit() - 1.0))
    };
    component.rects.iter().map(score).collect()
}
