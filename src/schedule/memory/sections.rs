//! A set of sections, as bits.

#[derive(Clone)]
pub(super) struct Sections(Vec<u64>);

impl Sections {
    /// The empty set, with room for sections below `count`.
    pub fn new(count: usize) -> Self {
        Self(vec![0; count.div_ceil(64)])
    }

    pub fn extend(&mut self, sections: impl IntoIterator<Item = usize>) {
        for section in sections {
            self.0[section / 64] |= 1 << (section % 64);
        }
    }

    pub fn contains(&self, section: usize) -> bool {
        self.0[section / 64] >> (section % 64) & 1 == 1
    }

    pub fn union(&mut self, other: &Self) {
        for (a, b) in self.0.iter_mut().zip(&other.0) {
            *a |= b;
        }
    }
}
