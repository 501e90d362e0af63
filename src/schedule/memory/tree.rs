//! Depth-first search for a placement under a height limit.
//!
//! A placement can always be pushed down until every buffer rests on the floor or on a buffer that overlaps it in
//! time. The search builds such *canonical* placements from the bottom: a node of the tree picks a buffer `b` under
//! which no unplaced one fits any more, and tries first `b` right there, then `b` *not* there; in the second case it
//! must come to rest on some unplaced buffer that overlaps it, which raises its lowest possible offset. After each
//! decision every section touched is checked: its unplaced buffers, none below its lowest possible offset, must still
//! fit under the limit one on top of the other.
//!
//! Canonical placements and inference per section are ideas of M. D. Moffitt, "MiniMalloc: A Lightweight Memory
//! Allocator for Hardware-Accelerated Machine Learning", ASPLOS 2023. The two-way branching with its raised bounds is
//! not from there, nor is conflict-directed backjumping (P. Prosser, "Hybrid Algorithms for the Constraint
//! Satisfaction Problem", 1993), which takes the place of its cutting of time during the search.

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

pub(super) enum Outcome {
    /// All are placed: see [`Search::offsets`].
    Found,
    /// No placement keeps the limit.
    Refuted,
    /// Undecided.
    OutOfSteps,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// May be placed at its lowest offset.
    Free,
    /// Unplaced, and known not to lie on top of the placed ones: it will rest on an unplaced one.
    Raised,
    Placed,
}

#[derive(Clone, Copy)]
enum Undo {
    Rect { rect: usize, base: u64, low: u64, state: State },
    Section { section: usize, floor: u64, bound: u64 },
}

/// Why a stretch of the trail was written.
#[derive(Clone)]
enum Cause {
    /// Decision: placed at its lowest offset.
    Place,
    /// Not placed there after all, since that fails because of what these sections held.
    Exclude(Sections),
    /// Raised to what its neighbours offer.
    Lift,
}

/// A stretch of the trail, from `trail` on: what happened to `rect` and all that follows from it.
struct Step {
    rect: usize,
    cause: Cause,
    trail: usize,
}

pub(super) struct Search<'a> {
    component: &'a Component,
    /// Per rectangle: the others that share a section with it.
    neighbours: Vec<Vec<u32>>,
    /// Per section: its rectangles. Their order is a cache (nearly ascending by `low`), free to change.
    members: Vec<Vec<u32>>,
    limit: u64,
    /// Per rectangle: the highest top of the placed ones that overlap it.
    base: Vec<u64>,
    /// Per rectangle: the lowest offset still possible; the offset itself once placed.
    low: Vec<u64>,
    state: Vec<State>,
    /// Per section: the least `low` of its unplaced rectangles; `u64::MAX` if none.
    floor: Vec<u64>,
    /// Per section: how high its unplaced rectangles must reach at least.
    bound: Vec<u64>,
    trail: Vec<Undo>,
    unplaced: usize,
    dirty: Vec<bool>,
    /// Per rectangle: of several that could lie on a section's floor, the highest score is tried first.
    score: Vec<f64>,
    /// Elementary steps taken so far, over all runs.
    pub steps: u64,
}

impl<'a> Search<'a> {
    pub fn new(component: &'a Component) -> Self {
        let rects = &component.rects;
        let sections = component.load.len();
        let mut members = vec![Vec::new(); sections];
        for (i, rect) in rects.iter().enumerate() {
            for s in rect.sections() {
                members[s].push(i as u32);
            }
        }
        let neighbours = (0..rects.len())
            .map(|i| {
                let others = (0..rects.len()).filter(|&j| j != i && rects[i].overlaps(&rects[j]));
                others.map(|j| j as u32).collect()
            })
            .collect();
        Self {
            component,
            neighbours,
            members,
            limit: 0,
            base: vec![0; rects.len()],
            low: vec![0; rects.len()],
            state: vec![State::Free; rects.len()],
            floor: vec![0; sections],
            bound: vec![0; sections],
            trail: Vec::new(),
            unplaced: rects.len(),
            dirty: vec![false; sections],
            score: vec![0.0; rects.len()],
            steps: 0,
        }
    }

    /// The placement, after `Outcome::Found`.
    pub fn offsets(&self) -> Vec<u64> {
        self.low.clone()
    }

    fn reset(&mut self, limit: u64) {
        self.limit = limit;
        self.base.fill(0);
        self.low.fill(0);
        self.state.fill(State::Free);
        self.floor.fill(0);
        self.bound.copy_from_slice(&self.component.load);
        self.trail.clear();
        self.unplaced = self.component.rects.len();
    }

    /// Depth-first search under `limit` until `self.steps` reaches `until`.
    pub fn run(&mut self, limit: u64, score: Vec<f64>, rule: Rule, until: u64) -> Outcome {
        self.reset(limit);
        self.score = score;
        if self.component.lower_bound() > limit {
            return Outcome::Refuted;
        }
        let mut history: Vec<Step> = Vec::new();
        while self.unplaced > 0 {
            if self.steps >= until {
                return Outcome::OutOfSteps;
            }
            let (rect, cause) = self.pick(rule);
            let place = matches!(cause, Cause::Place);
            history.push(Step { rect, cause, trail: self.trail.len() });
            let sound = if place { self.place(rect) } else { self.lift(rect) };
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
            if !self.undo(step.trail, &conflict) {
                continue;
            }
            conflict.extend(self.component.rects[step.rect].sections());
            match step.cause {
                Cause::Lift => {}
                Cause::Exclude(reason) => conflict.union(&reason),
                Cause::Place => {
                    history.push(Step {
                        rect: step.rect,
                        cause: Cause::Exclude(conflict.clone()),
                        trail: self.trail.len(),
                    });
                    match self.exclude(step.rect) {
                        Ok(()) => return true,
                        Err(other) => conflict = other,
                    }
                }
            }
        }
        false
    }

    /// Restores the state at trail length `to`. True if any section of `conflict` was touched since.
    fn undo(&mut self, to: usize, conflict: &Sections) -> bool {
        let mut touched = false;
        for undo in self.trail.drain(to..).rev() {
            match undo {
                Undo::Rect { rect, base, low, state } => {
                    if self.state[rect] == State::Placed && state != State::Placed {
                        self.unplaced += 1;
                    }
                    self.base[rect] = base;
                    self.low[rect] = low;
                    self.state[rect] = state;
                }
                Undo::Section { section, floor, bound } => {
                    self.floor[section] = floor;
                    self.bound[section] = bound;
                    touched |= conflict.contains(section);
                }
            }
        }
        touched
    }

    fn save(&mut self, rect: usize) {
        self.trail.push(Undo::Rect { rect, base: self.base[rect], low: self.low[rect], state: self.state[rect] });
    }

    fn touch(&mut self, rect: usize) {
        let rect = &self.component.rects[rect];
        self.dirty[rect.sections()].fill(true);
    }

    /// Fixes `rect` at its lowest offset. Errors: the sections that cannot keep the limit any more.
    fn place(&mut self, rect: usize) -> Result<(), Sections> {
        self.save(rect);
        self.state[rect] = State::Placed;
        self.unplaced -= 1;
        self.touch(rect);
        let top = self.low[rect] + self.component.rects[rect].size;
        for k in 0..self.neighbours[rect].len() {
            let other = self.neighbours[rect][k] as usize;
            if self.state[other] == State::Placed || self.base[other] >= top {
                continue;
            }
            self.save(other);
            self.base[other] = top;
            self.state[other] = State::Free;
            // Never lowered: a raised one was held up by `rect` among others, so by `top` at most.
            self.low[other] = top;
            self.touch(other);
        }
        self.steps += self.neighbours[rect].len() as u64;
        self.settle()
    }

    /// Decides that `rect` does not lie at its lowest offset, and so neither do its unplaced twins.
    fn exclude(&mut self, rect: usize) -> Result<(), Sections> {
        let rects = &self.component.rects;
        let this = rects[rect];
        self.save(rect);
        self.state[rect] = State::Raised;
        self.touch(rect);
        for k in 0..self.neighbours[rect].len() {
            let other = self.neighbours[rect][k] as usize;
            let twin = rects[other];
            if twin.first == this.first
                && twin.last == this.last
                && twin.size == this.size
                && self.state[other] == State::Free
            {
                self.save(other);
                self.state[other] = State::Raised;
                self.touch(other);
            }
        }
        self.lift(rect)
    }

    /// The lowest top of an unplaced neighbour: a raised rectangle can lie no lower.
    fn support(&mut self, rect: usize) -> Option<u64> {
        self.steps += self.neighbours[rect].len() as u64;
        let others = self.neighbours[rect].iter().map(|&j| j as usize);
        others.filter(|&j| self.state[j] != State::Placed).map(|j| self.low[j] + self.component.rects[j].size).min()
    }

    /// Raises the lowest offset of a raised rectangle to what its neighbours offer.
    fn lift(&mut self, rect: usize) -> Result<(), Sections> {
        let Some(support) = self.support(rect) else {
            return Err(self.conflict(self.component.rects[rect].sections()));
        };
        if support > self.low[rect] {
            self.save(rect);
            self.low[rect] = support;
            self.touch(rect);
        }
        self.settle()
    }

    /// Recomputes the touched sections. Errors: the first that cannot stay under the limit.
    fn settle(&mut self) -> Result<(), Sections> {
        let mut failed = None;
        for section in 0..self.dirty.len() {
            if !std::mem::take(&mut self.dirty[section]) || failed.is_some() {
                continue;
            }
            let members = &mut self.members[section];
            let key = |&i: &u32| match self.state[i as usize] {
                State::Placed => u64::MAX,
                _ => self.low[i as usize],
            };
            insertion_sort(members, key);
            self.steps += members.len() as u64;
            let mut bound = 0;
            let mut floor = u64::MAX;
            for i in members.iter().map(|&i| i as usize) {
                if self.state[i] == State::Placed {
                    break;
                }
                floor = floor.min(self.low[i]);
                bound = self.low[i].max(bound) + self.component.rects[i].size;
            }
            self.trail.push(Undo::Section { section, floor: self.floor[section], bound: self.bound[section] });
            self.floor[section] = floor;
            self.bound[section] = bound;
            if bound > self.limit {
                failed = Some(section);
            }
        }
        match failed {
            None => Ok(()),
            Some(section) => Err(self.conflict([section])),
        }
    }

    fn conflict(&self, sections: impl IntoIterator<Item = usize>) -> Sections {
        let mut conflict = Sections::new(self.floor.len());
        conflict.extend(sections);
        conflict
    }

    /// The next buffer to branch on.
    fn pick(&mut self, rule: Rule) -> (usize, Cause) {
        let open = (0..self.floor.len()).filter(|&s| self.floor[s] != u64::MAX);
        let key = |s: usize| match rule {
            Rule::LowestFloor => (self.floor[s], self.limit - self.bound[s]),
            Rule::LeastSlack => (self.limit - self.bound[s], self.floor[s]),
        };
        let section = open.min_by_key(|&s| (key(s), s)).expect("an unplaced buffer has a section");
        self.steps += self.floor.len() as u64 / 4;

        let lowest = self.members[section]
            .iter()
            .map(|&i| i as usize)
            .filter(|&i| self.state[i] != State::Placed && self.low[i] == self.floor[section]);
        let mut rect = lowest
            .max_by(|&a, &b| {
                let free = |i: usize| self.state[i] == State::Free;
                free(a).cmp(&free(b)).then(self.score[a].total_cmp(&self.score[b])).then(b.cmp(&a))
            })
            .expect("an open section has an unplaced member");
        // Whatever still fits under it comes first; offsets fall strictly, so this ends.
        loop {
            self.steps += self.neighbours[rect].len() as u64;
            let rects = &self.component.rects;
            let top = |j: usize| self.low[j] + rects[j].size;
            let under = self.neighbours[rect]
                .iter()
                .map(|&j| j as usize)
                .filter(|&j| self.state[j] != State::Placed && top(j) <= self.low[rect])
                .min_by_key(|&j| (top(j), j));
            match under {
                Some(other) => rect = other,
                None if self.state[rect] == State::Free => return (rect, Cause::Place),
                None => return (rect, Cause::Lift),
            }
        }
    }
}

fn insertion_sort(items: &mut [u32], key: impl Fn(&u32) -> u64) {
    for i in 1..items.len() {
        let item = items[i];
        let rank = key(&item);
        let mut j = i;
        while j > 0 && key(&items[j - 1]) > rank {
            items[j] = items[j - 1];
            j -= 1;
        }
        items[j] = item;
    }
}
