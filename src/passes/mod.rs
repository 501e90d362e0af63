//! Rewrites of graphs that keep what is computed.
//!
//! Each pass is a plain function of a graph in a file of its own. [`FORWARD`] runs before differentiation
//! and [`PIPELINE`] after it, in the order in which they are listed.

mod arithmetic;
mod cse;
mod dead;
mod drop_biases;
mod fold;
mod movement;
mod reductions;
mod rewrite;
mod stable;
mod through;
mod validate;

use crate::ir::Graph;
pub use arithmetic::arithmetic;
pub use cse::cse;
pub use dead::dead;
pub use drop_biases::drop_biases;
pub use fold::fold;
pub use movement::movement;
pub use reductions::reductions;
pub use stable::stable;
pub use through::through;
pub use validate::{Mismatch, validate};

/// What a pass did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Rewrites that were applied.
    pub changed: usize,
    pub nodes_before: usize,
    pub nodes_after: usize,
}

/// A pass and its name.
#[derive(Debug, Clone, Copy)]
pub struct Pass {
    pub name: &'static str,
    pub run: fn(&mut Graph) -> Report,
}

/// Before differentiation: what makes derivatives finite, and what would be differentiated for nothing.
pub const FORWARD: &[Pass] = &[Pass { name: "stable", run: stable }, Pass { name: "dead", run: dead }];

/// After differentiation.
pub const PIPELINE: &[Pass] = &[
    Pass { name: "dead-gradients", run: dead },
    Pass { name: "fold", run: fold },
    Pass { name: "arithmetic", run: arithmetic },
    Pass { name: "movement", run: movement },
    Pass { name: "through", run: through },
    Pass { name: "reductions", run: reductions },
    Pass { name: "cse", run: cse },
    Pass { name: "arithmetic-again", run: arithmetic },
    Pass { name: "movement-again", run: movement },
    Pass { name: "reductions-again", run: reductions },
    Pass { name: "fold-again", run: fold },
    Pass { name: "arithmetic-at-last", run: arithmetic },
    Pass { name: "cse-again", run: cse },
    Pass { name: "dead-at-last", run: dead },
];

/// Passes that run before differentiation where they are asked for.
pub const OPTIONAL: &[Pass] = &[Pass { name: "drop-biases", run: drop_biases }];

#[cfg(test)]
mod tests;
