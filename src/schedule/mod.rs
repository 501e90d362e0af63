//! From an optimised graph to a static schedule: fusion into kernels, their order, and the memory
//! plan.

pub mod kernel;
pub mod view;
