//! What kernels are made for.

use serde::{Deserialize, Serialize};

/// How much fusion may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fusion {
    /// Every operation that computes is a kernel of its own: the baseline that summaries compare with.
    Off,
    #[default]
    On,
}
