//! The kernel IR: what one launch computes, as data. The compiler and the executors both use it; it depends on
//! neither, and knows nothing of graphs or devices.

pub mod access;
pub mod bits;
pub mod body;
pub mod choice;
pub mod contraction;
pub mod cost;
pub mod expr;
pub mod few_columns;
pub mod gemm;
pub mod schedule;
pub mod target;
pub mod tile_reduction;
pub mod tiling;
pub mod warpgroup;
