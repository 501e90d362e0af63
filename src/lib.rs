//! gcc-gan: a dataflow-graph compiler with a static-graph executor.

pub mod autodiff;
pub mod compile;
pub mod declare;
pub mod exec;
pub mod inspect;
pub mod ir;
pub mod passes;
pub mod plan;
pub mod replay;
pub mod scalar;
pub mod schedule;
#[doc(hidden)]
pub mod testing;
pub mod train;
