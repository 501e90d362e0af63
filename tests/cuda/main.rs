//! Kernels as CUDA C++: the text itself, and that it computes what the interpreter computes.

mod emulate;
mod graphs;
mod text;
