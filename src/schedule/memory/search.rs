//! Backtracking search for a placement under a height limit, and the portfolio that drives it.
//!
//! A placement can always be pushed down until every buffer rests on the floor or on a buffer that overlaps it in
//! time. The search builds such *canonical* placements from the bottom: a node of the tree picks a buffer `b` under
//! which no unplaced one fits any more, and tries first `b` right there, then `b` *not* there; in the second case it
//! must come to rest on some unplaced buffer that overlaps it, which raises its lowest possible offset. After each
//! decision every section touched is checked: its unplaced buffers, none below its lowest possible offset, must still
//! fit under the limit one on top of the other.
//!
//! Canonical placements, inference per section and the cutting of time are the ideas of M. D. Moffitt, "MiniMalloc:
//! A Lightweight Memory Allocator for Hardware-Accelerated Machine Learning", ASPLOS 2023; the two-way branching
//! with its raised bounds and the section weights learned from failures (F. Boussemart et al., "Boosting Systematic
//! Search by Weighting Constraints", ECAI 2004), kept over restarts, are not from there.

use super::problem::Component;
use super::rng::SplitMix64;

/// Height still worth work: a plan within 1/`GOOD_ENOUGH` of the goal ends the search once `POLISH` is spent.
const GOOD_ENOUGH: u64 = 100;

/// Lowers `offsets` towards height `goal` with at most about `budget` steps; returns the steps taken.
pub(super) fn improve(component: &Component, offsets: &mut Vec<u64>, goal: u64, budget: u64) -> u64 {
    let mut height = component.height(offsets);
    if budget == 0 || height <= goal {
        return 0;
    }
    let mut search = Search::new(component);
    let mut proven = goal; // no placement is lower than this
    let mut slice = 200_000u64;
    let mut round = 0u64;
    while search.steps < budget && height > proven {
        // Limits from the bound to just below the best, so that an easy one is found fast and a hard one is tried.
        let gap = height - proven;
        let limit = match round % 4 {
            0 | 2 => proven,
            1 => proven + (proven / GOOD_ENOUGH).min(gap - 1),
            _ => proven + (gap - 1) / 2,
        };
        let until = budget.min(search.steps + slice);
        match search.run(limit, round, until) {
            Outcome::Found => {
                let found = search.offsets();
                height = component.height(&found);
                *offsets = found;
            }
            Outcome::Refuted => proven = limit + 1,
            Outcome::OutOfSteps => {}
        }
        round += 1;
        if round.is_multiple_of(16) {
            slice += slice / 2;
        }
    }
    search.steps
}

enum Outcome {
    Found,
    Refuted,
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

/// A decision on the stack: `rect` was placed when the trail had this length.
struct Decision {
    rect: usize,
    trail: usize,
}

struct Search<'a> {
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
    /// Per section: how often it refuted a node, over all restarts, aged.
    weight: Vec<f64>,
    unplaced: usize,
    dirty: Vec<bool>,
    score: Vec<f64>,
    steps: u64,
}

impl<'a> Search<'a> {
    fn new(component: &'a Component) -> Self {
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
            weight: vec![1.0; sections],
            unplaced: rects.len(),
            dirty: vec![false; sections],
            score: vec![0.0; rects.len()],
            steps: 0,
        }
    }

    fn offsets(&self) -> Vec<u64> {
        self.low.clone()
    }

    fn reset(&mut self, limit: u64, round: u64) {
        self.limit = limit;
        self.base.fill(0);
        self.low.fill(0);
        self.state.fill(State::Free);
        self.floor.fill(0);
        self.bound.copy_from_slice(&self.component.load);
        self.trail.clear();
        self.unplaced = self.component.rects.len();
        for weight in &mut self.weight {
            *weight = 1.0 + (*weight - 1.0) * 0.9;
        }
        let mut rng = SplitMix64(round);
        let kind = (round / 4) % 4;
        let noise = if round < 16 { 0.0 } else { 0.5 };
        for (score, rect) in self.score.iter_mut().zip(&self.component.rects) {
            let size = rect.size as f64;
            let span = rect.span() as f64;
            let plain = match kind {
                0 => size * span,
                1 => span * span * size,
                2 => size * size * span,
                _ => span,
            };
            *score = plain * (1.0 + noise * (rng.unit() - 0.5) * 2.0);
        }
    }

    /// Depth-first search under `limit` until `self.steps` reaches `until`.
    fn run(&mut self, limit: u64, round: u64, until: u64) -> Outcome {
        self.reset(limit, round);
        if self.component.lower_bound() > limit {
            return Outcome::Refuted;
        }
        let rule = round / 2 % 3;
        let mut decisions: Vec<Decision> = Vec::new();
        while self.unplaced > 0 {
            if self.steps >= until {
                return Outcome::OutOfSteps;
            }
            let trail = self.trail.len();
            let sound = match self.pick(rule) {
                Pick::Place(rect) => {
                    decisions.push(Decision { rect, trail });
                    self.place(rect)
                }
                Pick::Lift(rect) => self.lift(rect),
            };
            if sound {
                continue;
            }
            loop {
                let Some(Decision { rect, trail }) = decisions.pop() else {
                    return Outcome::Refuted;
                };
                self.undo(trail);
                if self.exclude(rect) {
                    break;
                }
            }
        }
        Outcome::Found
    }

    fn undo(&mut self, to: usize) {
        while self.trail.len() > to {
            match self.trail.pop() {
                Some(Undo::Rect { rect, base, low, state }) => {
                    if self.state[rect] == State::Placed && state != State::Placed {
                        self.unplaced += 1;
                    }
                    self.base[rect] = base;
                    self.low[rect] = low;
                    self.state[rect] = state;
                }
                Some(Undo::Section { section, floor, bound }) => {
                    self.floor[section] = floor;
                    self.bound[section] = bound;
                }
                None => return,
            }
        }
    }

    fn save(&mut self, rect: usize) {
        self.trail.push(Undo::Rect { rect, base: self.base[rect], low: self.low[rect], state: self.state[rect] });
    }

    fn touch(&mut self, rect: usize) {
        let rect = &self.component.rects[rect];
        self.dirty[rect.sections()].fill(true);
    }

    /// Fixes `rect` at its lowest offset. False: the limit cannot be kept any more.
    fn place(&mut self, rect: usize) -> bool {
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
            // Not above: a raised one was held up by `rect` among others, so by `top` at most.
            if self.low[other] < top {
                self.low[other] = top;
                self.touch(other);
            }
        }
        self.steps += self.neighbours[rect].len() as u64;
        self.settle()
    }

    /// Decides that `rect` does not lie at its lowest offset, and so neither do its unplaced twins.
    fn exclude(&mut self, rect: usize) -> bool {
        let rects = &self.component.rects;
        let this = rects[rect];
        self.save(rect);
        self.state[rect] = State::Raised;
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
    fn lift(&mut self, rect: usize) -> bool {
        let Some(support) = self.support(rect) else {
            return false;
        };
        if support > self.low[rect] {
            self.save(rect);
            self.low[rect] = support;
            self.touch(rect);
        }
        self.settle()
    }

    /// Recomputes the touched sections. False: one of them cannot stay under the limit.
    fn settle(&mut self) -> bool {
        let mut sound = true;
        for section in 0..self.dirty.len() {
            if !std::mem::take(&mut self.dirty[section]) || !sound {
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
                self.weight[section] += 1.0;
                sound = false;
            }
        }
        sound
    }

    /// The next buffer to branch on.
    fn pick(&mut self, rule: u64) -> Pick {
        let open = (0..self.floor.len()).filter(|&s| self.floor[s] != u64::MAX);
        let slack = |s: usize| (self.limit - self.bound[s]) as f64;
        let key = |s: usize| match rule {
            0 => (self.floor[s] as f64, slack(s)),
            1 => ((1.0 + slack(s)) / self.weight[s], self.floor[s] as f64),
            _ => (slack(s), self.floor[s] as f64),
        };
        let section = open
            .map(|s| (key(s), s))
            .min_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal))
            .map_or(0, |(_, s)| s);
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
                None if self.state[rect] == State::Free => return Pick::Place(rect),
                None => return Pick::Lift(rect),
            }
        }
    }
}

enum Pick {
    Place(usize),
    /// The support of a raised rectangle has risen since: raise it too.
    Lift(usize),
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
