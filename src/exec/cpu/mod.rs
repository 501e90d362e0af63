//! The CPU executor.

mod nest;
mod program;
mod random;
mod tile;
