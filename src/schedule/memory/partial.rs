//! A partial placement under a height limit: what the search decided, what follows from it, and how to take it back.
//!
//! After each decision every section touched is checked: its unplaced buffers, none below its lowest possible offset,
//! must still fit under the limit one on top of the other. A section whose unplaced buffers are all in another one too
//! cannot fail before that one does, and its check is put off until it has a buffer of its own. The fewer buffers are
//! left, the fewer sections have one: most checks are never made. (MiniMalloc, cited in [`super::tree`], infers its
//! sections anew as buffers are placed; here they stay, and are passed over.)

use super::problem::Component;
use super::sections::Sections;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// May be placed at its lowest offset.
    Free,
    /// Unplaced, and known not to lie on top of the placed ones: it will rest on an unplaced one.
    Raised,
    Placed,
}

#[derive(Clone, Copy)]
enum Undo {
    Rect {
        rect: usize,
        base: u64,
        low: u64,
        state: State,
    },
    /// `own`: a buffer of the section was changed, not only its put-off check made.
    Section {
        section: usize,
        old: Profile,
        own: bool,
    },
}

/// What the unplaced buffers of a section, none below its lowest possible offset, come to.
#[derive(Clone, Copy)]
pub(super) struct Profile {
    /// The least of their lowest offsets.
    pub floor: u64,
    /// How high they must reach at least.
    pub bound: u64,
    /// Its check was put off: the two are of an earlier state.
    stale: bool,
}

pub(super) struct Partial<'a> {
    pub component: &'a Component,
    /// Per rectangle: the others that share a section with it.
    pub neighbours: Vec<Vec<u32>>,
    /// Per section: its rectangles. Their order is a cache (nearly ascending by `open`), free to change.
    members: Vec<Vec<u32>>,
    /// Per rectangle: as in the component, side by side for the inner loops.
    pub size: Vec<u64>,
    pub limit: u64,
    /// Per rectangle: the highest top of the placed ones that overlap it.
    base: Vec<u64>,
    /// Per rectangle: the lowest offset still possible; the offset itself once placed.
    pub low: Vec<u64>,
    /// Per rectangle: `low`, or `u64::MAX` once placed.
    open: Vec<u64>,
    state: Vec<State>,
    profile: Vec<Profile>,
    /// Per section: how many unplaced rectangles have it as their first.
    starts: Vec<u32>,
    /// Per section: how many unplaced rectangles have it as their last.
    ends: Vec<u32>,
    /// The sections whose unplaced rectangles are not all in another one too, ascending. Every unplaced rectangle is
    /// in one of them.
    pub maximal: Vec<usize>,
    trail: Vec<Undo>,
    pub unplaced: usize,
    /// Per section: whether a rectangle of it has changed since the last check.
    dirty: Vec<bool>,
    /// Elementary steps taken so far.
    pub steps: u64,
}

impl<'a> Partial<'a> {
    pub fn new(component: &'a Component) -> Self {
        let rects = &component.rects;
        let sections = component.load.len();
        let mut members = vec![Vec::new(); sections];
        for (i, rect) in rects.iter().enumerate() {
            for s in rect.sections() {
                members[s].push(i as u32);
            }
        }
        let mut neighbours = vec![Vec::new(); rects.len()];
        for (i, rect) in rects.iter().enumerate() {
            let later = rects[i + 1..].iter().take_while(|other| other.first <= rect.last).count();
            for j in i + 1..=i + later {
                neighbours[i].push(j as u32);
                neighbours[j].push(i as u32);
            }
        }
        Self {
            component,
            neighbours,
            members,
            size: rects.iter().map(|r| r.size).collect(),
            limit: 0,
            base: vec![0; rects.len()],
            low: vec![0; rects.len()],
            open: vec![0; rects.len()],
            state: vec![State::Free; rects.len()],
            profile: vec![Profile { floor: 0, bound: 0, stale: false }; sections],
            starts: vec![0; sections],
            ends: vec![0; sections],
            maximal: Vec::with_capacity(sections),
            trail: Vec::new(),
            unplaced: rects.len(),
            dirty: vec![false; sections],
            steps: 0,
        }
    }

    /// Nothing is placed, under a new limit, which no section's load may exceed.
    pub fn reset(&mut self, limit: u64) {
        debug_assert!(self.component.lower_bound() <= limit);
        self.limit = limit;
        self.base.fill(0);
        self.low.fill(0);
        self.open.fill(0);
        self.state.fill(State::Free);
        for (profile, &load) in self.profile.iter_mut().zip(&self.component.load) {
            *profile = Profile { floor: 0, bound: load, stale: false };
        }
        self.starts.fill(0);
        self.ends.fill(0);
        for rect in &self.component.rects {
            self.starts[rect.first] += 1;
            self.ends[rect.last] += 1;
        }
        self.trail.clear();
        self.unplaced = self.component.rects.len();
        self.maximal.clear();
        self.maximal.extend(0..self.component.load.len());
    }

    /// What [`Self::undo`] needs to come back to this state.
    pub fn mark(&self) -> usize {
        self.trail.len()
    }

    pub fn state(&self, rect: usize) -> State {
        self.state[rect]
    }

    /// Up to date for the maximal sections alone.
    pub fn profile(&self, section: usize) -> Profile {
        self.profile[section]
    }

    /// The unplaced rectangles at the floor of a maximal section.
    pub fn lowest(&self, section: usize) -> impl Iterator<Item = usize> + '_ {
        let floor = self.profile[section].floor;
        self.members[section].iter().map(|&i| i as usize).filter(move |&i| self.open[i] == floor)
    }

    /// Restores the state at mark `to`. True if any section of `conflict` was touched since.
    pub fn undo(&mut self, to: usize, conflict: &Sections) -> bool {
        let mut touched = false;
        for undo in self.trail.drain(to..).rev() {
            match undo {
                Undo::Rect { rect, base, low, state } => {
                    if self.state[rect] == State::Placed && state != State::Placed {
                        self.unplaced += 1;
                        let reopened = &self.component.rects[rect];
                        self.starts[reopened.first] += 1;
                        self.ends[reopened.last] += 1;
                    }
                    self.base[rect] = base;
                    self.low[rect] = low;
                    self.open[rect] = low;
                    self.state[rect] = state;
                }
                Undo::Section { section, old, own } => {
                    self.profile[section] = old;
                    touched |= own && conflict.contains(section);
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
    pub fn place(&mut self, rect: usize) -> Result<(), Sections> {
        self.save(rect);
        self.state[rect] = State::Placed;
        self.open[rect] = u64::MAX;
        self.unplaced -= 1;
        let placed = &self.component.rects[rect];
        self.starts[placed.first] -= 1;
        self.ends[placed.last] -= 1;
        self.touch(rect);
        let top = self.low[rect] + self.size[rect];
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
            self.open[other] = top;
            self.touch(other);
        }
        self.steps += self.neighbours[rect].len() as u64;
        self.settle()
    }

    /// Decides that `rect` does not lie at its lowest offset, and so neither do its unplaced twins.
    pub fn exclude(&mut self, rect: usize) -> Result<(), Sections> {
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
        others.filter(|&j| self.state[j] != State::Placed).map(|j| self.low[j] + self.size[j]).min()
    }

    /// Raises the lowest offset of a raised rectangle to what its neighbours offer.
    pub fn lift(&mut self, rect: usize) -> Result<(), Sections> {
        let Some(support) = self.support(rect) else {
            return Err(self.conflict(self.component.rects[rect].sections()));
        };
        if support > self.low[rect] {
            self.save(rect);
            self.low[rect] = support;
            self.open[rect] = support;
            self.touch(rect);
        }
        self.settle()
    }

    /// Checks the touched sections among the maximal ones. Errors: the first that cannot stay under the limit.
    fn settle(&mut self) -> Result<(), Sections> {
        let mut failed = None;
        let mut growing = false;
        self.maximal.clear();
        self.steps += self.dirty.len() as u64;
        for section in 0..self.dirty.len() {
            // As in `problem`: a set is maximal where a start is followed by an end.
            growing |= self.starts[section] > 0;
            let maximal = growing && self.ends[section] > 0;
            if maximal {
                growing = false;
                self.maximal.push(section);
            }
            let own = std::mem::take(&mut self.dirty[section]);
            let old = self.profile[section];
            if failed.is_some() || !(own || (maximal && old.stale)) {
                continue;
            }
            self.trail.push(Undo::Section { section, old, own });
            if !maximal {
                self.profile[section].stale = true;
                continue;
            }
            self.profile[section] = self.measure(section);
            if self.profile[section].bound > self.limit {
                failed = Some(section);
            }
        }
        match failed {
            None => Ok(()),
            Some(section) => Err(self.conflict([section])),
        }
    }

    fn measure(&mut self, section: usize) -> Profile {
        let members = &mut self.members[section];
        self.steps += members.len() as u64;
        let open = &self.open;
        insertion_sort(members, |i| open[i as usize]);
        let unplaced = members.iter().map(|&i| i as usize).take_while(|&i| open[i] != u64::MAX);
        let bound = unplaced.fold(0, |top, i| open[i].max(top) + self.size[i]);
        Profile { floor: open[members[0] as usize], bound, stale: false }
    }

    fn conflict(&self, sections: impl IntoIterator<Item = usize>) -> Sections {
        let mut conflict = Sections::new(self.profile.len());
        conflict.extend(sections);
        conflict
    }
}

fn insertion_sort(items: &mut [u32], key: impl Fn(u32) -> u64) {
    for i in 1..items.len() {
        let item = items[i];
        let rank = key(item);
        let mut j = i;
        while j > 0 && key(items[j - 1]) > rank {
            items[j] = items[j - 1];
            j -= 1;
        }
        items[j] = item;
    }
}
