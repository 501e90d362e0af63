//! Models for other programs, and from there: an entry as an ONNX model ([`onnx`]), and weights under PyTorch's names
//! ([`weights`]).

pub mod onnx;
pub mod weights;

use crate::types::StateDecl;

/// The networks that have state, by name.
pub fn networks(states: &[StateDecl]) -> Vec<&str> {
    let mut names: Vec<&str> = states.iter().filter_map(|state| Some(state.name.split_once('/')?.0)).collect();
    names.sort_unstable();
    names.dedup();
    names
}
