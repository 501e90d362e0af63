//! The CPU executor.

mod gemm;
mod nest;
mod pool;
mod program;
mod random;
mod tile;
