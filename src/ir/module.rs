//! A module: the entry points of one program and the state they share.

use super::{Graph, Span, Type};
use serde::{Deserialize, Serialize};

/// The entry that gives every state tensor its first value; every program has it.
pub const INIT: &str = "init";

/// What gives an input its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Feed {
    /// Images of the data set, mapped to [-1, 1]: `[batch, channels, height, width]`.
    Images,
    /// Class labels of the same examples: `u32[batch]`.
    Labels,
    /// The random seed: `u32[2]`.
    Seed,
    /// The caller, each time.
    Caller,
}

/// One input of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputDecl {
    pub name: String,
    pub ty: Type,
    pub feed: Feed,
    /// Integers must be below this, where the entry takes them for one of so many classes.
    pub below: Option<usize>,
    /// A sentence for people.
    pub meaning: String,
}

/// What a state tensor is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateRole {
    /// Learnt by an optimiser.
    Parameter,
    /// A running statistic.
    Statistic,
    /// An optimiser's memory (moments, step count).
    Optimiser,
    /// The count of steps that keys the random draws.
    Counter,
    /// Of a network: 0 as long as all that steps made of its state was finite, 1 from then on. An `f32[]` that the step
    /// itself writes, so that a run need not look at every tensor, or at every step, to know.
    NonFinite,
}

/// The value a state tensor has before the first step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Initialiser {
    Constant(f64),
    /// Uniform on [-limit, limit] (Glorot & Bengio, AISTATS 2010, equation 16, where
    /// `limit = sqrt(6 / (fan_in + fan_out))`).
    Uniform {
        limit: f64,
    },
}

/// A tensor that lives from step to step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StateDecl {
    pub name: String,
    pub ty: Type,
    pub role: StateRole,
    pub init: Initialiser,
    pub span: Option<Span>,
}

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
