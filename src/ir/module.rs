//! A module: the entry points of one program and the state they share.

use super::Graph;
use crate::types::{InputDecl, StateDecl};
use serde::{Deserialize, Serialize};

/// An entry point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub graph: Graph,
    pub inputs: Vec<InputDecl>,
}

/// A whole program, as `declare` gives it and the compiler takes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Module {
    pub name: String,
    pub states: Vec<StateDecl>,
    /// In the order of declaration; entry names are the graphs' names.
    pub entries: Vec<Entry>,
}
