//! Material for tests, here and in other crates: random graphs and values for them.
//!
//! Not part of the product's interface.

mod bindings;
mod choices;
pub mod formats;
mod graphs;
mod ops;

pub use bindings::{random_bindings, special_bindings};
pub use choices::Choices;
pub use graphs::{GraphOptions, random_graph};

/// Random graphs for proptest, which shrink to fewer steps. (Proptest is there for this crate's own
/// tests only; others map `any::<u64>()` through [`random_graph`].)
#[cfg(test)]
pub fn graphs(options: GraphOptions) -> impl proptest::strategy::Strategy<Value = crate::ir::Graph> {
    use proptest::prelude::*;
    (any::<u64>().no_shrink(), 0..=options.steps)
        .prop_map(move |(seed, steps)| random_graph(seed, GraphOptions { steps, ..options }))
}

#[cfg(test)]
mod tests;
