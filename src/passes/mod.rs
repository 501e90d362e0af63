//! Rewrites of graphs that keep what is computed.
//!
//! Each pass is a plain function of a graph in a file of its own. [`FORWARD`] runs before differentiation
//! and [`PIPELINE`] after it, in the order in which they are listed; then, for targets that want it, [`DEVICE`].
//!
//! # What rewrites assume
//!
//! Passes that are tables of rules say in each row what it assumes ([`Assumes`]). By default nothing that is not a
//! number or infinite in the interpreter is hidden: rows that assume `Finite` apply under `--fast-math` alone
//! ([`PassContext::fast_math`]), or in a pass that is itself asked for. These rows assume something; all others keep
//! NaN, infinities and numbers as they are. The sign of a zero is not kept (`x + 0 → x`), nor is the rounding of sums
//! and products whose constants are joined. `operand-precision` rounds, and is all that does. `winograd` multiplies and
//! adds in another way, with errors of up to 1e-5 of the norm of what it computes (1e-4 with `--math fast`), and what is
//! not finite there spreads to the other results of its tile (`--math exact` leaves it out). `im2col` multiplies padding: what
//! is not finite in a filter spreads to there. Behind a dropout, `signs` may give what is not finite of a dropped element's
//! gradient to the other of two selections that are added up.
//!
//! | pass | rule | rewrites | assumes |
//! |---|---|---|---|
//! | `stable` | `sigmoid_of_quotient` | exp x / (1 + exp x) → σ(x) | Finite |
//! | `stable` | `softplus` | log(1 + exp x) → s(x) | Range |
//! | `stable` | `log_sigmoid` | log σ(x) → -s(-x), log(1 - σ(x)) → -s(x) | Range |
//! | `drop-biases` | `shifted_both` | (x + b) - (m + b) → x - m | Finite |
//! | `arithmetic` | `sub_same` | x - x → 0 | Finite |
//! | `arithmetic` | `square_of_root` | √x · √x → x | Finite |
//! | `arithmetic` | `absorb` | x · 0 → 0, 0 / x → 0, a contraction with zeros → 0, a transform of zeros → 0, windows of zeros → 0 | Finite |
//! | `arithmetic` | `pow_of_half` | x^½ → √x, x^-½ → rsqrt x | Finite |
//! | `arithmetic` | `inverse` | exp(log x) → x, log(exp x) → x, √(x · x) → abs x | Finite |
//! | `arithmetic` | `select_extremum` | select(x > y, x, y) → max(x, y), select(x < y, x, y) → min(x, y) | Finite |
//! | `arithmetic` | `compare_same_or_equal` | x = x → 1, x ≤ x → 1, x ≥ x → 1 | Finite |
//! | `reductions` | `of_centred` | sum(x + c · sum x) → sum x · (1 + n · c) | Alike |
//! | `reductions` | `factor_out` | sum(x · c) → sum x · c, sum(x / c) → sum x / c, sum(-x) → -sum x | Alike |
//! | `reductions` | `inner_factor` | sum(x · (y · c)) → sum(x · y) · c | Alike |
//! | `reductions` | `of_summed` | sum(x + y · c) → sum x + sum y · c where sum x and sum y are there | Alike |

mod arithmetic;
mod cse;
mod dead;
mod deviations;
mod drop_biases;
mod fold;
mod im2col;
mod log;
mod merge_calls;
mod movement;
mod operand_precision;
mod reductions;
mod rewrite;
mod signs;
mod stable;
mod thin_products;
mod through;
mod unflatten;
mod validate;
mod winograd;

use crate::ir::Graph;
use crate::types::Rounding;
pub use arithmetic::arithmetic;
pub use cse::cse;
pub use dead::dead;
pub use deviations::deviations;
pub use drop_biases::drop_biases;
pub use fold::fold;
pub use im2col::im2col;
pub use log::Log;
pub use merge_calls::merge_calls;
pub use movement::movement;
pub use operand_precision::operand_precision;
pub use reductions::reductions;
pub use rewrite::{Applied, Rule};
pub use signs::signs;
pub use stable::stable;
pub use thin_products::thin_products;
pub use through::through;
pub use unflatten::unflatten;
pub use validate::{Compared, Mismatch, validate};
pub use winograd::winograd;

/// What a pass did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Rewrites that were applied.
    pub changed: usize,
    pub nodes_before: usize,
    pub nodes_after: usize,
    /// Which rule rewrote which node, of a pass that is a table of rules.
    pub log: Log,
}

impl Report {
    /// Of a pass whose rewrites are all of one kind, on a graph that had so many nodes.
    fn new(changed: usize, nodes_before: usize, graph: &Graph) -> Report {
        Report { changed, nodes_before, nodes_after: graph.len(), log: Log::default() }
    }
}

/// What passes need to know besides the graph.
#[derive(Debug, Clone, Copy, Default)]
pub struct PassContext {
    /// Whether rewrites may assume that all numbers are finite ([`Assumes::Finite`]).
    pub fast_math: bool,
    /// Whether images are to have four dimensions wherever they can, because the target lays them out pixel by pixel.
    pub images: bool,
    /// Whether matrix products of vectors are to be elementwise products and their sums.
    pub thin_products: bool,
    /// Whether calls of the same layers are to be one of both batches.
    pub merge_calls: bool,
    /// Whether convolutions of images of few channels are to be convolutions of their windows.
    pub im2col: bool,
    /// Whether the signs of a leaky relu's operand are to be those of its result, where that is in memory anyway.
    pub signs: bool,
    /// Where convolutions may be computed by minimal filtering.
    pub minimal_filtering: Option<MinimalFiltering>,
    /// Whether sums of squared deviations are to be reductions of their own, and statistics of several calls one reduction.
    pub deviations: bool,
    /// What large contractions are to multiply, where not f32.
    pub operands: Option<Rounding>,
    /// Whether these are matrix products alone, and convolutions stay as they are.
    pub matrices_alone: bool,
}

/// What decides about convolutions by minimal filtering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinimalFiltering {
    /// Operations a byte at which the target computes and moves numbers equally long.
    pub flops_per_byte: usize,
    /// Most points of an axis: see [`Convolutions::most_points`](crate::kernel::target::Convolutions::most_points).
    pub most_points: usize,
}

impl PassContext {
    /// Whether [`DEVICE`] is to run.
    pub fn is_for_device(&self) -> bool {
        self.images
            || self.thin_products
            || self.merge_calls
            || self.im2col
            || self.signs
            || self.deviations
            || self.operands.is_some()
    }
}

/// What a rewrite assumes about numbers that are not finite, the least first. In exact arithmetic every rewrite is an
/// identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Assumes {
    /// Nothing: NaN and infinities come out as they do without it.
    Nothing,
    /// That all that is not finite is alike: what is not finite stays so, but a NaN may become an infinity or
    /// the other way.
    Alike,
    /// That nothing in between leaves the range of floats. The rewrite is right for NaN and infinite operands;
    /// where the written form overflows or underflows on the way, the result is the finite one it stands for.
    Range,
    /// That operands and all in between are finite and where the operations are defined.
    Finite,
}

/// A pass and its name. Names are unique: where a pass runs more than once, the number of the run follows (`cse-2`).
#[derive(Debug, Clone, Copy)]
pub struct Pass {
    pub name: &'static str,
    /// What it does, in a sentence.
    pub about: &'static str,
    /// The most that its rewrites assume where finite numbers may not be assumed.
    pub assumes: Assumes,
    pub run: fn(&mut Graph, &PassContext) -> Report,
}

impl Pass {
    /// The most that its rewrites assume.
    pub fn assumes(&self, context: &PassContext) -> Assumes {
        if context.fast_math { Assumes::Finite } else { self.assumes }
    }
}

/// A sentence for each pass; some run several times.
mod about {
    pub const STABLE: &str = "Logarithms of sums of exponentials, where written out, become stable operations.";
    pub const DEAD: &str = "Nodes that no output and no update depends on are removed.";
    pub const FOLD: &str = "Operations on constants are computed now.";
    pub const ARITHMETIC: &str = "Neutral and absorbing elements, double negations and the like are simplified away.";
    pub const MOVEMENT: &str =
        "Chains of reshapes, transpositions and broadcasts are merged, or removed where they undo each other.";
    pub const THROUGH: &str =
        "Movements are moved through elementwise operations, to where they help fusion or vanish.";
    pub const REDUCTIONS: &str = "Reductions of broadcasts and of other reductions become smaller ones.";
    pub const CSE: &str = "Nodes that compute the same become one.";
    pub const THIN_PRODUCTS: &str = "Matrix products of vectors become elementwise products and their sums.";
    pub const UNFLATTEN: &str =
        "What a layer has flattened between a matrix product and a convolution has the shape of images.";
    pub const WINOGRAD: &str = "Convolutions become matrix products between transforms, where that is faster.";
    pub const DEVIATIONS: &str = "Sums of squared deviations from a mean become reductions of their own.";
    pub const MERGE_CALLS: &str = "What runs twice with the same weights runs once with both batches.";
    pub const IM2COL: &str = "Convolutions of images of few channels become convolutions of their windows.";
    pub const SIGNS: &str = "The signs of a leaky relu's operand are read from its result, which is in memory anyway.";
    pub const OPERAND_PRECISION: &str =
        "What large contractions multiply is rounded once, to what the target's matrix units take.";
    pub const DROP_BIASES: &str =
        "Biases before a batch normalisation in training mode, whose gradient is zero, are no longer updated.";
}

/// Before differentiation: what makes derivatives finite, and what would be differentiated for nothing.
pub const FORWARD: &[Pass] = &[
    Pass { name: "stable", about: about::STABLE, assumes: Assumes::Range, run: stable },
    Pass { name: "dead", about: about::DEAD, assumes: Assumes::Nothing, run: dead },
    Pass { name: "winograd", about: about::WINOGRAD, assumes: Assumes::Alike, run: winograd },
];

/// After differentiation.
pub const PIPELINE: &[Pass] = &[
    Pass { name: "dead-2", about: about::DEAD, assumes: Assumes::Nothing, run: dead },
    Pass { name: "fold", about: about::FOLD, assumes: Assumes::Nothing, run: fold },
    Pass { name: "arithmetic", about: about::ARITHMETIC, assumes: Assumes::Nothing, run: arithmetic },
    Pass { name: "movement", about: about::MOVEMENT, assumes: Assumes::Nothing, run: movement },
    Pass { name: "through", about: about::THROUGH, assumes: Assumes::Nothing, run: through },
    Pass { name: "reductions", about: about::REDUCTIONS, assumes: Assumes::Alike, run: reductions },
    Pass { name: "cse", about: about::CSE, assumes: Assumes::Nothing, run: cse },
    Pass { name: "arithmetic-2", about: about::ARITHMETIC, assumes: Assumes::Nothing, run: arithmetic },
    Pass { name: "movement-2", about: about::MOVEMENT, assumes: Assumes::Nothing, run: movement },
    Pass { name: "reductions-2", about: about::REDUCTIONS, assumes: Assumes::Alike, run: reductions },
    Pass { name: "fold-2", about: about::FOLD, assumes: Assumes::Nothing, run: fold },
    Pass { name: "arithmetic-3", about: about::ARITHMETIC, assumes: Assumes::Nothing, run: arithmetic },
    Pass { name: "cse-2", about: about::CSE, assumes: Assumes::Nothing, run: cse },
    Pass { name: "dead-3", about: about::DEAD, assumes: Assumes::Nothing, run: dead },
];

/// After the pipeline, where [`PassContext::is_for_device`]: the shape of work that a device with many cores and a memory
/// layout of its own is fast at. Of these a CPU in bf16 has use for the last.
pub const DEVICE: &[Pass] = &[
    Pass { name: "unflatten", about: about::UNFLATTEN, assumes: Assumes::Nothing, run: unflatten },
    Pass { name: "deviations", about: about::DEVIATIONS, assumes: Assumes::Nothing, run: deviations },
    Pass { name: "merge-calls", about: about::MERGE_CALLS, assumes: Assumes::Nothing, run: merge_calls },
    Pass { name: "thin-products", about: about::THIN_PRODUCTS, assumes: Assumes::Nothing, run: thin_products },
    Pass { name: "unflatten-2", about: about::UNFLATTEN, assumes: Assumes::Nothing, run: unflatten },
    Pass { name: "movement-3", about: about::MOVEMENT, assumes: Assumes::Nothing, run: movement },
    Pass { name: "cse-3", about: about::CSE, assumes: Assumes::Nothing, run: cse },
    Pass { name: "dead-4", about: about::DEAD, assumes: Assumes::Nothing, run: dead },
    Pass { name: "im2col", about: about::IM2COL, assumes: Assumes::Alike, run: im2col },
    Pass { name: "signs", about: about::SIGNS, assumes: Assumes::Alike, run: signs },
    Pass {
        name: "operand-precision",
        about: about::OPERAND_PRECISION,
        assumes: Assumes::Nothing,
        run: operand_precision,
    },
];

/// Passes that run before differentiation where they are asked for.
pub const OPTIONAL: &[Pass] =
    &[Pass { name: "drop-biases", about: about::DROP_BIASES, assumes: Assumes::Finite, run: drop_biases }];

#[cfg(test)]
mod device_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod winograd_tests;
