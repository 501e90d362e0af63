//! The kernel IR: what one launch computes, as data. It stands below the compiler and the executors, and knows neither
//! graphs nor devices.

pub mod access;
pub mod body;
pub mod choice;
pub mod contraction;
pub mod cost;
pub mod expr;
pub mod gemm;
pub mod schedule;
pub mod target;
