//! The target that kernels are compiled for.

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

/// What kernels are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Any processor: choices fit every instruction set.
    #[default]
    Cpu,
}

/// What fusion may do and what it takes to be worth it: a target's, unless somebody wants another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// An elementwise expression of at most this weight that reads at most one large buffer is computed
    /// again by each user: that costs less than a write and a read of memory.
    pub recompute_weight: usize,
    /// A contraction's operand of at most this many elements is computed by its prologue; a larger one beforehand,
    /// since a contraction reads its operands many times.
    pub prologue_elements: usize,
    /// Whether a contraction's epilogue may reduce what it computes, such as to a batch's statistics.
    pub epilogue_reductions: bool,
    /// A sweep of more elements than the first for fewer kept points than the second would leave cores idle.
    pub serial_elements: usize,
    pub parallel_points: usize,
    pub layout: Layout,
}

/// How images between kernels lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// As their shape says: `[n][c][h][w]`.
    RowMajor,
    /// `[h][w][n][c]` wherever every kernel that touches them can read and write it.
    PixelMajor,
}

impl Target {
    pub fn policy(self) -> Policy {
        match self {
            Target::Cpu => Policy {
                recompute_weight: 8,
                prologue_elements: 4096,
                epilogue_reductions: false,
                serial_elements: 1 << 16,
                parallel_points: 32,
                layout: Layout::RowMajor,
            },
        }
    }
}

/// How a graph is scheduled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strategy {
    pub fusion: Fusion,
    pub target: Target,
    pub policy: Policy,
}

impl Default for Strategy {
    fn default() -> Self {
        Fusion::default().into()
    }
}

/// For the default target, by its own policy.
impl From<Fusion> for Strategy {
    fn from(fusion: Fusion) -> Self {
        let target = Target::default();
        Strategy { fusion, target, policy: target.policy() }
    }
}
