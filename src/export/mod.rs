//! Models for other programs, and from there: an entry as an ONNX model ([`onnx`]), and weights under PyTorch's names
//! ([`weights`]).

pub mod onnx;
pub mod weights;
