//! Kernels as CUDA C++: the text itself, and that it computes what the interpreter computes.

mod compiler;
mod conformance;
mod contractions;
mod emulate;
mod emulated;
mod graphs;
mod host;
mod statistics;
mod steps;
mod tensor;
mod text;
