//! Kernels as CUDA C++: the text itself, and that it computes what the interpreter computes.

mod contractions;
mod emulate;
mod graphs;
mod statistics;
mod tensor;
mod text;
