//! Material for tests, here and in other crates: random graphs and values for them.
//!
//! Not part of the product's interface.

mod bindings;
mod choices;
pub mod conformance;
pub mod formats;
mod graphs;
pub mod kernels;
mod ops;
pub mod products;
pub mod programs;

use crate::ir::{Module, Value};
use crate::kernel::target::{EpilogueReductions, Fusion, Layout, Policy, Precision, Strategy, Target};
use crate::replay::Tensors;
use crate::tensor::DType;
use crate::types::Feed;

pub use bindings::{random_bindings, special_bindings};
pub use choices::Choices;
pub use graphs::{GraphOptions, random_graph};

/// Values for the data that an entry takes in some steps.
pub fn program_inputs(module: &Module, entry: &str, steps: usize) -> Tensors {
    let inputs = module.entries.iter().filter(|e| e.graph.name == entry).flat_map(|e| &e.inputs);
    let mut given = Tensors::new();
    for input in inputs.filter(|i| i.feed != Feed::Seed) {
        for step in 0..steps {
            let mut choices = Choices::new(crate::scalar::stream_hash(&input.name) ^ step as u64);
            let elements = 0..input.ty.elements();
            let value = match (input.ty.dtype, input.below) {
                (DType::F32 | DType::Bf16, Some(below)) => {
                    Value::real(input.ty.shape.clone(), elements.map(|_| choices.below(below) as f64).collect())
                }
                (DType::F32 | DType::Bf16, None) => {
                    Value::real(input.ty.shape.clone(), elements.map(|_| choices.real()).collect())
                }
                (DType::U32, below) => {
                    let below = below.unwrap_or(2);
                    Value::u32(input.ty.shape.clone(), elements.map(|_| choices.below(below) as u32).collect())
                }
            };
            given.insert(if step == 0 { input.name.clone() } else { format!("{}@{step}", input.name) }, value);
        }
    }
    given
}

/// The ways in which tests schedule a graph: fused, not fused, and by a policy that does all that fusion can do, as a device
/// with many cores may want it.
pub fn strategies() -> [(&'static str, Strategy); 3] {
    strategies_for(Target::default())
}

/// [`strategies`] for another target.
pub fn strategies_for(target: Target) -> [(&'static str, Strategy); 3] {
    strategies_at(target, Precision::default())
}

/// [`strategies_for`] at another precision of contractions.
pub fn strategies_at(target: Target, precision: Precision) -> [(&'static str, Strategy); 3] {
    let fused = Strategy::new(Fusion::On, target, precision);
    // Whatever lowers the peak of memory.
    let recompute_percent = fused.policy.recompute_percent.map(|_| 1000);
    let not_fused = Policy { recompute_percent, ..fused.policy };
    let policy = Policy {
        recompute_weight: 1000,
        repeated_weight: 1000,
        prologue_elements: usize::MAX,
        prologue_reads: usize::MAX,
        epilogue_reductions: EpilogueReductions::Always,
        updates_in_epilogues: true,
        serial_elements: usize::MAX,
        parallel_points: 0,
        thin_products: true,
        merge_calls: true,
        im2col: true,
        signs: true,
        layout: Layout::PixelMajor,
        recompute_percent,
        ..fused.policy
    };
    [
        ("fused", fused),
        ("not fused", Strategy { fusion: Fusion::Off, policy: not_fused, ..fused }),
        ("everything fused", Strategy { policy, ..fused }),
    ]
}

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
