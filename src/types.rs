//! Plain data that graphs, kernels and plans share: attributes of operations, and what a program declares of its inputs
//! and state. Nothing here knows a graph.

use crate::tensor::{Bf16, DType, Tensor, Type, round_to_tf32};
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// How a reduction combines elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReduceKind {
    Sum,
    Max,
    /// The sum of the squared deviations from the mean: of `n` elements, `n` times their variance. In kernels only the epilogues
    /// of contractions reduce so; loop nests sweep twice.
    Deviations,
}

impl ReduceKind {
    pub fn name(self) -> &'static str {
        match self {
            ReduceKind::Sum => "sum",
            ReduceKind::Max => "max",
            ReduceKind::Deviations => "deviations",
        }
    }
}

/// What contractions multiply in place of f32; they add in f32 in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rounding {
    /// Numbers of 11 significant bits, kept as f32.
    Tf32,
    /// bf16, which takes half of the memory.
    Bf16,
}

impl Rounding {
    pub fn name(self) -> &'static str {
        match self {
            Rounding::Tf32 => "tf32",
            Rounding::Bf16 => "bf16",
        }
    }

    /// What rounded numbers are stored as.
    pub fn dtype(self) -> DType {
        match self {
            Rounding::Tf32 => DType::F32,
            Rounding::Bf16 => DType::Bf16,
        }
    }

    /// A vector of these numbers, rounded.
    pub fn round(self, values: &[f32]) -> Tensor {
        match self {
            Rounding::Tf32 => {
                Tensor::new([values.len()], &values.iter().map(|&x| round_to_tf32(x)).collect::<Vec<_>>())
            }
            Rounding::Bf16 => {
                Tensor::new([values.len()], &values.iter().map(|&x| Bf16::from_f32(x)).collect::<Vec<_>>())
            }
        }
    }
}

/// What a random draw is distributed as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Distribution {
    /// Uniform on [0, 1), in steps of 2^-24.
    Uniform,
    /// Standard normal, by the Box–Muller transform of pairs of uniform draws.
    Normal,
    /// 1 with the given probability, else 0.
    Bernoulli(Real),
}

/// Stride and symmetric zero padding of a two-dimensional convolution, as (height, width).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Window {
    pub stride: [usize; 2],
    pub pad: [usize; 2],
}

/// Most dimensions of a tensor, in programs and plans: executors walk them with fixed-size counters.
pub const MAX_RANK: usize = 12;
/// Most elements of one tensor: the indices of a kernel stay within 31 bits.
pub const MAX_ELEMENTS: usize = i32::MAX as usize;
/// Most rows or columns of an image with its padding, and of a stride.
pub const MAX_PADDED: usize = 1 << 15;
/// Most matrix products that the gradient of a convolution in its input comes to: one for each residue of the image's
/// coordinates by the stride.
pub const MAX_RESIDUES: usize = 1 << 16;
/// Most elements of a window whose elements are added up one by one.
pub const MAX_WINDOW: usize = 1 << 10;
/// Elements that a thread may always hold by itself, whatever the tensors' sizes: 64 MiB of f32.
pub const MAX_BLOCK: usize = 1 << 24;

impl Window {
    /// Whether there is room for a convolution of images of so many channels and this size: threads hold an image with
    /// its padding, which may therefore not be much larger than the image and the filter. The image with its padding
    /// has at most [`MAX_ELEMENTS`].
    ///
    /// # Errors
    /// What is too large, in words.
    pub fn check_room(&self, channels: usize, size: [usize; 2], kernel: [usize; 2]) -> Result<(), String> {
        let area = |[height, width]: [usize; 2]| height.saturating_mul(width);
        let padded =
            channels.saturating_mul(area([0, 1].map(|d| size[d].saturating_add(self.pad[d].saturating_mul(2)))));
        let given = channels.saturating_mul(area(size).saturating_add(area(kernel)));
        let room = given.saturating_mul(8).max(MAX_BLOCK);
        if padded > room {
            let pad = self.pad;
            return Err(format!("a padding of {pad:?} makes {padded} elements of each image, and {room} are the most"));
        }
        let residues = area([0, 1].map(|d| self.stride[d].min(size[d])));
        if residues > MAX_RESIDUES {
            let stride = self.stride;
            return Err(format!("a stride of {stride:?} has {residues} kinds of pixels, more than {MAX_RESIDUES}"));
        }
        Ok(())
    }
}

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
    /// Where the entry takes it for indices, such as class numbers: the number of places. They are whole numbers from 0
    /// on, below this.
    pub below: Option<usize>,
    /// Whether its indices may be negative too, which count from the end.
    pub from_end: bool,
    /// A human-readable sentence.
    pub meaning: String,
}

/// What the name of the moving average of a parameter or a network ends in.
pub const AVERAGE: &str = "/average";

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
    /// The moving average of the parameter whose name it has, with [`AVERAGE`] behind it.
    Average,
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
    /// Normally distributed about 0.
    Normal {
        deviation: f64,
    },
    /// A vector of length 1 in any direction.
    Direction,
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

/// A range of bytes in the declaring source text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Span {
    pub start: usize,
    pub end: usize,
}

/// An f64 that is compared and hashed by its bits, so that attributes can be keys.
/// Its serialised form carries infinities through JSON, too.
#[derive(Debug, Clone, Copy)]
pub struct Real(pub f64);

impl PartialEq for Real {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}
impl Eq for Real {}
impl std::hash::Hash for Real {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}
impl fmt::Display for Real {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Debug formatting is the shortest text that reads back to the same f64, with an exponent
        // where the number is very small or large.
        write!(f, "{:?}", self.0)
    }
}

/// A number; in human-readable formats, which may have no other way (JSON has none), infinities and NaNs
/// are strings.
impl Serialize for Real {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() && !self.0.is_finite() {
            serializer.collect_str(&Number(self.0))
        } else {
            serializer.serialize_f64(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Real {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_any(RealVisitor)
        } else {
            f64::deserialize(deserializer).map(Real)
        }
    }
}

struct RealVisitor;

impl Visitor<'_> for RealVisitor {
    type Value = Real;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, \"inf\", \"-inf\" or \"NaN\"")
    }

    fn visit_f64<E>(self, value: f64) -> Result<Real, E> {
        Ok(Real(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Real, E> {
        Ok(Real(value as f64))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Real, E> {
        Ok(Real(value as f64))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Real, E> {
        let number = Number::parse(value);
        number.map(|n| Real(n.0)).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(value), &self))
    }
}

/// A number as it is written in a graph: the shortest decimal that reads back to the same f64, `inf`,
/// `-inf`, `NaN`, or the bits of an unusual NaN in hexadecimal.
pub(crate) struct Number(pub f64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_nan() && self.0.to_bits() != f64::NAN.to_bits() {
            write!(f, "{:#018x}", self.0.to_bits())
        } else {
            write!(f, "{:?}", self.0)
        }
    }
}

impl Number {
    pub(crate) fn parse(text: &str) -> Option<Number> {
        match text.strip_prefix("0x") {
            Some(bits) => u64::from_str_radix(bits, 16).ok().map(f64::from_bits),
            None => text.parse().ok(),
        }
        .map(Number)
    }
}
