//! The scalar operations: one table row each.
//!
//! A row holds everything any room needs to know about an operation: its name in the text form, its
//! signature, its meaning in f64 (the oracle), its spelling in CUDA C++, its vector function on the
//! CPU, and its partial derivatives. Adding an operation is adding a row to the table in `table.rs`.

mod approximate;
mod pairs;
pub mod philox;
pub(crate) mod simd;
#[cfg(test)]
mod special_tests;
mod table;
mod vector;

pub use crate::tensor::Lane;
pub use pairs::pair;
pub use philox::stream_hash;
pub use table::ScalarOp;
pub(crate) use vector::larger;

/// What a derivative rule may build: scalar expressions over the values of some graph.
///
/// Rules are generic over this trait so that the table depends on no graph type. All operands of one
/// call have the same shape, which the implementor knows.
pub trait ScalarBuilder {
    /// A handle to a value in the graph under construction.
    type Value: Copy;
    /// The constant `value`, of the rule's shape.
    fn constant(&mut self, value: f64) -> Self::Value;
    /// `op` applied element by element.
    fn apply(&mut self, op: ScalarOp, args: &[Self::Value]) -> Self::Value;
}

/// `x` in the table's vector functions is a tile of f32 lanes; u32 lanes travel as their bits.
pub type VectorFn = fn(out: &mut [f32], args: &[&[f32]]);
