//! Depth-first search for a placement under a height limit.
//!
//! A placement can always be pushed down until every buffer rests on the floor or on a buffer that overlaps it in
//! time. The search builds such *canonical* placements from the bottom: a node of the tree picks a buffer `b` under
//! which no unplaced one fits any more, and tries first `b` right there, then `b` *not* there; in the second case it
//! must come to rest on some unplaced buffer that overlaps it, which raises its lowest possible offset. What follows
//! from a decision is in [`super::partial`].
//!
//! Canonical placements and inference per section are ideas of M. D. Moffitt, "MiniMalloc: A Lightweight Memory
//! Allocator for Hardware-Accelerated Machine Learning", ASPLOS 2023. The two-way branching with its raised bounds is
//! not from there, nor is conflict-directed backjumping (P. Prosser, "Hybrid Algorithms for the Constraint
//! Satisfaction Problem", 1993), which takes the place of its cutting of time during the search.

use super::partial::{Partial, State};
use super::problem::Component;
use super::sections::Sections;

/// Which section the next buffer is taken from. Ties fall to the other rule, then to the earlier section.
#[derive(Clone, Copy)]
pub(super) enum Rule {
    /// Fill the valleys first.
    LowestFloor,
    /// Fill what is closest to the limit first.
    LeastSlack,
}

/// The order in which the tree's branches are tried.
pub(super) struct Order {
    pub rule: Rule,
    /// Per rectangle: of several that could lie on a section's floor, the highest score is tried first.
    pub score: Vec<f64>,
}

pub(super) enum Outcome {
    /// All are placed: see [`Search::offsets`].
    Found,
    /// No placement keeps the limit.
    Refuted,
    /// Undecided.
    OutOfSteps,
}

/// Why a stretch of the trail was written.
enum Cause {
    /// Decision: placed at its lowest offset.
    Place,
    /// Not placed there after all, since that fails because of what these sections held.
    Exclude(Sections),
    /// Raised to what its neighbours offer.
    Lift,
}

/// A stretch of the trail, from `mark` on: what happened to `rect` and all that follows from it.
struct Step {
    rect: usize,
    cause: Cause,
    mark: usize,
}

pub(super) struct Search<'a> {
    partial: Partial<'a>,
}

impl<'a> Search<'a> {
    pub fn new(component: &'a Component) -> Self {
        Self { partial: Partial::new(component) }
    }

    /// Elementary steps taken so far, over all runs.
    pub fn steps(&self) -> u64 {
        self.partial.steps
    }

    /// The placement, after `Outcome::Found`.
    pub fn offsets(&self) -> Vec<u64> {
        self.partial.low.clone()
    }

    /// Depth-first search under `limit`, through at most `nodes` nodes and until [`Self::steps`] reaches `until`.
    pub fn run(&mut self, limit: u64, order: &Order, nodes: u64, until: u64) -> Outcome {
        if self.partial.component.lower_bound() > limit {
            return Outcome::Refuted;
        }
        self.partial.reset(limit);
        let mut history: Vec<Step> = Vec::new();
        let mut visited = 0;
        while self.partial.unplaced > 0 {
            if visited >= nodes || self.steps() >= until {
                return Outcome::OutOfSteps;
            }
            visited += 1;
            let (rect, cause) = self.pick(order);
            let place = matches!(cause, Cause::Place);
            history.push(Step { rect, cause, mark: self.partial.mark() });
            let sound = if place { self.partial.place(rect) } else { self.partial.lift(rect) };
            let open = match sound {
                Ok(()) => true,
                Err(conflict) => self.backtrack(&mut history, conflict),
            };
            if !open {
                return Outcome::Refuted;
            }
        }
        Outcome::Found
    }

    /// Undoes steps up to the last decision that had a part in the conflict, and takes that one's other branch.
    /// Steps that touched none of the sections in conflict are passed over: without them the same conflict arises.
    /// False: no decision is left.
    fn backtrack(&mut self, history: &mut Vec<Step>, mut conflict: Sections) -> bool {
        while let Some(step) = history.pop() {
            if !self.partial.undo(step.mark, &conflict) {
                continue;
            }
            conflict.extend(self.partial.component.rects[step.rect].sections());
            match step.cause {
                Cause::Lift => {}
                Cause::Exclude(reason) => conflict.union(&reason),
                Cause::Place => {
                    history.push(Step {
                        rect: step.rect,
                        cause: Cause::Exclude(conflict.clone()),
                        mark: self.partial.mark(),
                    });
                    match self.partial.exclude(step.rect) {
                        Ok(()) => return true,
                        Err(other) => conflict = other,
                    }
                }
            }
        }
        false
    }

    /// The next buffer to branch on.
    fn pick(&mut self, order: &Order) -> (usize, Cause) {
        let partial = &mut self.partial;
        partial.steps += partial.maximal.len() as u64;
        let key = |section: usize| {
            let profile = partial.profile(section);
            let slack = partial.limit - profile.bound;
            match order.rule {
                Rule::LowestFloor => (profile.floor, slack),
                Rule::LeastSlack => (slack, profile.floor),
            }
        };
        let open = partial.maximal.iter().copied();
        let section = open.min_by_key(|&s| (key(s), s)).expect("an unplaced buffer has a section");
        let is_free = |rect: usize| partial.state(rect) == State::Free;
        let lowest = partial.lowest(section).max_by(|&a, &b| {
            let by_score = order.score[a].total_cmp(&order.score[b]);
            is_free(a).cmp(&is_free(b)).then(by_score).then(b.cmp(&a))
        });
        let mut rect = lowest.expect("an open section has an unplaced member");
        // Whatever still fits under it comes first; offsets fall strictly, so this ends.
        loop {
            partial.steps += partial.neighbours[rect].len() as u64;
            let top = |j: usize| partial.low[j] + partial.size[j];
            let under = partial.neighbours[rect]
                .iter()
                .map(|&j| j as usize)
                .filter(|&j| top(j) <= partial.low[rect] && partial.state(j) != State::Placed)
                .min_by_key(|&j| (top(j), j));
            match under {
                Some(other) => rect = other,
                None if partial.state(rect) == State::Free => return (rect, Cause::Place),
                None => return (rect, Cause::Lift),
            }
        }
    }
}
