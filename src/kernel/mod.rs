//! The kernel IR: what one launch computes, as data. It stands below the compiler and the executors, and knows neither
//! graphs nor devices.

pub mod body;
pub mod cost;
pub mod schedule;
pub mod target;
pub mod view;
