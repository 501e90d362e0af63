//! A topological order that is kept while edges are added and nodes are merged.
//!
//! Whether a path leads from one node to another is asked of every pair that might be merged. A walk back from the second
//! need not go beyond the first one's place in the order, and where the order must change, only nodes between
//! the two move (Pearce and Kelly, "A dynamic topological sort algorithm for directed acyclic graphs", J. Experimental
//! Algorithmics 2007).

/// By a node its place: what it needs is before it.
#[derive(Debug, Clone, Default)]
pub(super) struct Topological {
    places: Vec<usize>,
}

impl Topological {
    /// A node that needs earlier ones only.
    pub fn push(&mut self) {
        self.places.push(self.places.len());
    }

    pub fn is_before(&self, a: usize, b: usize) -> bool {
        self.places[a] < self.places[b]
    }

    /// Gives these nodes, in this order, the places that they have together. The caller has made sure that all that the
    /// order of others with them means stays true.
    pub fn rearrange(&mut self, nodes: &[usize]) {
        let mut places: Vec<usize> = nodes.iter().map(|&node| self.places[node]).collect();
        places.sort_unstable();
        nodes.iter().zip(places).for_each(|(&node, place)| self.places[node] = place);
    }

    pub fn sort(&self, nodes: &mut [usize]) {
        nodes.sort_unstable_by_key(|&node| self.places[node]);
    }
}
