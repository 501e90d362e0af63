//! The target that kernels are compiled for.

use crate::types::Rounding;
use serde::{Deserialize, Serialize};
use std::fmt;

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
    /// NVIDIA GPUs that run kernels for this architecture.
    Cuda(Architecture),
}

/// In words.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Target::Cpu => f.write_str("CPUs"),
            Target::Cuda(architecture) => write!(f, "GPUs of {architecture}"),
        }
    }
}

/// The compute capability of an NVIDIA GPU times ten: 90 is 9.0, which compilers call `sm_90`.
///
/// Kernels for one run on newer ones too, but for those of `sm_90`: they are what compilers call `sm_90a`, with
/// instructions that no other architecture has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Architecture(pub u32);

impl Architecture {
    /// The oldest that kernels are written for.
    pub const OLDEST: Architecture = Architecture(75);

    /// All that there are of it and newer ones, as far as this version knows. NVIDIA renamed 101 to 110.
    pub const KNOWN: [Architecture; 13] = [
        Self::OLDEST,
        Architecture(80),
        Architecture(86),
        Architecture(87),
        Architecture(88),
        Architecture(89),
        Architecture(90),
        Architecture(100),
        Architecture(101),
        Architecture(103),
        Architecture(110),
        Architecture(120),
        Self::NEWEST,
    ];

    /// The newest that this version knows.
    pub const NEWEST: Architecture = Architecture(121);

    /// Whether it has instructions that later ones don't have: those whose names may end with an `a`.
    pub fn has_own(self) -> bool {
        self.0 >= 90
    }

    /// Whether it multiplies matrices of tf32 and bf16, and copies to shared memory asynchronously.
    pub fn has_tensor_cores(self) -> bool {
        self.0 >= 80
    }

    /// Whether groups of four warps multiply matrices together (`wgmma`).
    pub fn has_warpgroups(self) -> bool {
        self == Architecture(90)
    }

    /// Whether it runs kernels that were made for another.
    pub fn runs(self, other: Architecture) -> bool {
        other == self || (other < self && !other.has_warpgroups())
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "sm_{}", self.0)
    }
}

/// How accurate contractions are. All else is in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// As accurate as multiplications and additions in f32.
    #[default]
    F32,
    /// Operands are rounded to 10 bits of mantissa (NVIDIA's TF32), sums are in f32.
    Tf32,
    /// Operands are rounded to bf16, and those of large contractions stored so; sums are in f32.
    Bf16,
}

impl Precision {
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Tf32 => "tf32",
            Precision::Bf16 => "bf16",
        }
    }
}

/// How convolutions are computed, where the target has a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Convolutions {
    /// As they are written.
    Exact,
    /// Large ones by minimal filtering, within 1e-5 of the norm of what they are: about ten times the rounding errors of
    /// the sums as they are written.
    #[default]
    Accurate,
    /// The same with larger tiles, within 1e-4: more accurate than operands rounded to TF32.
    Fast,
}

impl Convolutions {
    /// The most points of an axis that minimal filtering may take, if any. Each point more costs accuracy. Operands that
    /// are rounded to bf16 have none to spare.
    pub fn most_points(self, precision: Precision) -> Option<usize> {
        match (self, precision) {
            (Convolutions::Exact, _) => None,
            (Convolutions::Accurate, _) | (Convolutions::Fast, Precision::Tf32 | Precision::Bf16) => Some(8),
            (Convolutions::Fast, Precision::F32) => Some(11),
        }
    }
}

/// Multiprocessors of the GPU that choices are made for, an H100.
pub const MULTIPROCESSORS: usize = 132;

/// What fusion may do and what it takes to be worth it: a target's, unless somebody wants another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// An elementwise expression of at most this weight that reads at most one large buffer is computed
    /// again by each user: that costs less than a write and a read of memory.
    pub recompute_weight: usize,
    /// The same for what is repeated along other dimensions, such as a batch's mean: computed again at every element, it
    /// needs no kernel that others wait for.
    pub repeated_weight: usize,
    /// A contraction's operand of at most this many elements is computed by its prologue; a larger one beforehand,
    /// since a contraction reads its operands many times.
    pub prologue_elements: usize,
    /// A contraction that stages each element of an operand at most so many times computes the operand there, where that is what
    /// another contraction has made, normalised by statistics of it: one kernel less, a write and a read. 0 where none does.
    pub prologue_reads: usize,
    /// When a contraction's epilogue reduces what it computes, such as to a batch's statistics.
    pub epilogue_reductions: EpilogueReductions,
    /// Whether a parameter is updated by the contraction that makes its gradient, which then need not be in memory, with
    /// what is reduced of the update.
    pub updates_in_epilogues: bool,
    /// A sweep of more elements than the first for fewer kept points than the second would leave cores idle.
    pub serial_elements: usize,
    pub parallel_points: usize,
    /// Whether matrix products of vectors are elementwise products and their sums.
    pub thin_products: bool,
    /// Whether calls of the same layers become one of both batches.
    pub merge_calls: bool,
    /// Whether convolutions of images of few channels are convolutions of their windows, so that tensor cores compute them.
    pub im2col: bool,
    /// Whether the signs of a leaky relu's operand are read from its result.
    pub signs: bool,
    /// Whether a kernel of their own makes all draws of 0 or 1, and keeps them as bits.
    pub draws_as_bits: bool,
    /// Whether all states that are rounded are in one launch, not each when it is wanted first.
    pub rounds_together: bool,
    /// Whether weights that contractions read rounded are kept so, by what updates them.
    pub state_copies: bool,
    pub layout: Layout,
    /// Whether convolutions read images and filters whose dimensions lie in any order.
    pub strided_images: bool,
    /// Operations a byte at which memory takes as long as computing, where minimal filtering is to be weighed against direct
    /// convolutions.
    pub minimal_filtering: Option<usize>,
    pub half_operands: HalfOperands,
    /// Most of an entry's time, in percent by the cost model, that may go into computing values again that would else
    /// lie in memory at its peak. Absent where memory is plentiful, and kernels that run together want places of their
    /// own in it.
    pub recompute_percent: Option<usize>,
}

/// Which contractions read operands that are stored as bf16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HalfOperands {
    None,
    /// Matrix products.
    MatMul,
    /// Convolutions too.
    All,
}

impl HalfOperands {
    /// Whether those of a matrix product, or else of a convolution, are among them.
    pub fn include(self, is_matmul: bool) -> bool {
        match self {
            HalfOperands::None => false,
            HalfOperands::MatMul => is_matmul,
            HalfOperands::All => true,
        }
    }
}

/// See [`Policy::epilogue_reductions`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EpilogueReductions {
    Never,
    /// Where the algorithm of the contraction reduces tile by tile: what is reduced need not be read again.
    InTiles,
    Always,
}

/// How images between kernels lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// As their shape says: `[n][c][h][w]`.
    RowMajor,
    /// `[h][w][n][c]` wherever every kernel that touches them can read and write it; filters, where convolutions read them
    /// in any order, `[kh][kw][o][c]`.
    PixelMajor,
}

impl Target {
    /// Whether it multiplies so: tf32 is of GPUs.
    pub fn has(self, precision: Precision) -> bool {
        match self {
            Target::Cpu => precision != Precision::Tf32,
            Target::Cuda(_) => true,
        }
    }

    pub fn policy(self) -> Policy {
        match self {
            Target::Cpu => Policy {
                recompute_weight: 8,
                repeated_weight: 0,
                prologue_elements: 4096,
                prologue_reads: 0,
                epilogue_reductions: EpilogueReductions::Never,
                updates_in_epilogues: false,
                serial_elements: 1 << 16,
                parallel_points: 32,
                thin_products: false,
                // A merged call keeps the activations of both calls until the backward pass, and products of one batch fill
                // tiles already: the DCGAN's arena would grow from 129 to 168 MiB, and 1.6 GiB be moved in place of 1.5.
                merge_calls: false,
                im2col: false,
                // Not measured.
                signs: false,
                draws_as_bits: false,
                rounds_together: false,
                // Not measured.
                state_copies: false,
                layout: Layout::RowMajor,
                strided_images: false,
                minimal_filtering: Some(8),
                half_operands: HalfOperands::None,
                recompute_percent: Some(2),
            },
            Target::Cuda(architecture) => Policy {
                recompute_weight: 16,
                // A root and a quotient take some twenty instructions each, those at every element of an activation longer
                // than a small kernel.
                repeated_weight: 3,
                // What products multiply is stored first, but for what follows.
                prologue_elements: 0,
                // In the DCGAN's 1 x 1 product, which stages each element once, some twenty instructions for it take about 3 us
                // on an H100 beside the copies, and what they save, one launch and 26 MB to the cache and back, about 8. A 5 x 5
                // convolution stages each element 25 times: there they would save as much and take longer than its main loop.
                prologue_reads: if architecture.has_tensor_cores() { 2 } else { 0 },
                // A batch's statistics and their gradient's sums, and gradients of biases.
                epilogue_reductions: EpilogueReductions::InTiles,
                updates_in_epilogues: true,
                // Blocks share a sweep among their threads.
                serial_elements: 1 << 18,
                parallel_points: 16,
                thin_products: true,
                merge_calls: true,
                im2col: architecture.has_tensor_cores(),
                signs: true,
                draws_as_bits: true,
                rounds_together: true,
                state_copies: true,
                layout: Layout::PixelMajor,
                strided_images: true,
                // Tensor cores multiply faster than memory gives them transformed operands.
                minimal_filtering: None,
                half_operands: HalfOperands::None,
                recompute_percent: None,
            },
        }
    }
}

/// How a graph is scheduled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strategy {
    pub fusion: Fusion,
    pub target: Target,
    pub precision: Precision,
    pub policy: Policy,
}

impl Strategy {
    /// For a target, by its own policy.
    pub fn new(fusion: Fusion, target: Target, precision: Precision) -> Strategy {
        let half_operands = match (target, precision) {
            (Target::Cpu, Precision::Bf16) => HalfOperands::MatMul,
            (Target::Cuda(architecture), Precision::Bf16) if architecture.has_tensor_cores() => HalfOperands::All,
            (Target::Cpu | Target::Cuda(_), _) => HalfOperands::None,
        };
        // In bf16 what products read is half as large already, and beside them, which are faster, what makes it is not
        // cheap: the DCGAN's step would take 8% longer.
        let policy = target.policy();
        let recompute_percent = match precision {
            Precision::Bf16 => policy.recompute_percent.map(|_| 0),
            Precision::F32 | Precision::Tf32 => policy.recompute_percent,
        };
        Strategy { fusion, target, precision, policy: Policy { half_operands, recompute_percent, ..policy } }
    }
}

impl Strategy {
    /// What contractions multiply, where not f32: what tensor cores take, and a CPU's products of bf16.
    pub fn rounding(&self) -> Option<Rounding> {
        match (self.target, self.precision) {
            (Target::Cuda(architecture), Precision::Tf32) if architecture.has_tensor_cores() => Some(Rounding::Tf32),
            (Target::Cuda(architecture), Precision::Bf16) if architecture.has_tensor_cores() => Some(Rounding::Bf16),
            (Target::Cpu, Precision::Bf16) => Some(Rounding::Bf16),
            (Target::Cpu | Target::Cuda(_), Precision::F32 | Precision::Tf32 | Precision::Bf16) => None,
        }
    }

    /// In what form weights are kept beside themselves for contractions to read.
    pub fn state_copies(&self) -> Option<Rounding> {
        self.rounding().filter(|_| self.policy.state_copies)
    }
}

impl Default for Strategy {
    fn default() -> Self {
        Fusion::default().into()
    }
}

/// For the default target, by its own policy.
impl From<Fusion> for Strategy {
    fn from(fusion: Fusion) -> Self {
        Strategy::new(fusion, Target::default(), Precision::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_in_ascending_order() {
        assert!(Architecture::KNOWN.is_sorted_by(|a, b| a < b));
        assert_eq!(Architecture::KNOWN.last(), Some(&Architecture::NEWEST));
    }

    #[test]
    fn newer_gpus_run_kernels_for_older_ones_but_those_of_sm_90() {
        let runs = |gpu, kernels| Architecture(gpu).runs(Architecture(kernels));
        assert!(runs(80, 80) && runs(89, 80) && runs(90, 80) && runs(120, 89) && runs(90, 90));
        assert!(!runs(75, 80) && !runs(100, 90) && !runs(80, 90));
    }
}
