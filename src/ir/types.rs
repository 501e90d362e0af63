//! Where a node comes from.

use crate::types::Span;
use serde::{Deserialize, Serialize};

/// What a node is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Part of the declared computation.
    #[default]
    Forward,
    /// Part of computing the gradient of the named loss.
    Gradient(String),
    /// Part of updating the parameters of the named network.
    Optimiser(String),
}

/// Where a node comes from: every dump and every error can point back at the user's line.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Origin {
    /// The declaration it was expanded from.
    pub span: Option<Span>,
    /// The enclosing declarations from the outside in, joined with `/`: call, network, layer.
    pub scope: String,
    pub role: Role,
}
