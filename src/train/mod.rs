//! What a training run needs besides the compiler and the executor: data sets and their batches, checkpoints, sample
//! grids, metrics, and the folder of a run. Nothing here knows which device trains or which program is trained.
//!
//! Two promises hold throughout. A killed process leaves every file either as it was or complete ([`crate::atomic`]); and a
//! run that is resumed sees the same batches in the same order as one that was never stopped ([`batches`]).

pub mod batches;
pub mod checkpoint;
pub mod data;
pub mod images;
pub mod metrics;
pub mod rundir;
pub mod session;
