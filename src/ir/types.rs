//! Types of tensors, and where a node comes from.

use crate::scalar::Lane;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The element type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// A real number: 32 bits on devices; the reference can also evaluate it in 64.
    F32,
    /// An unsigned 32-bit integer: step counters, random seeds and class labels.
    U32,
}

impl DType {
    /// Bytes of one element on a device.
    pub fn size(self) -> usize {
        4
    }

    /// What elements are while they are computed with.
    pub fn lane(self) -> Lane {
        match self {
            DType::F32 => Lane::Real,
            DType::U32 => Lane::U32,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DType::F32 => "f32",
            DType::U32 => "u32",
        })
    }
}

/// The sizes of a tensor's dimensions, outermost first; empty for a scalar.
pub type Shape = Vec<usize>;

/// Element type and shape. Written `f32[128,64,14,14]`; a scalar is `f32[]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Type {
    pub dtype: DType,
    pub shape: Shape,
}

impl Type {
    pub fn new(dtype: DType, shape: impl Into<Shape>) -> Self {
        Type { dtype, shape: shape.into() }
    }

    pub fn f32(shape: impl Into<Shape>) -> Self {
        Type::new(DType::F32, shape)
    }

    pub fn u32(shape: impl Into<Shape>) -> Self {
        Type::new(DType::U32, shape)
    }

    /// The number of elements; 1 for a scalar.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The bytes a device needs for one such tensor.
    pub fn bytes(&self) -> usize {
        self.elements() * self.dtype.size()
    }

    pub fn rank(&self) -> usize {
        self.shape.len()
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype)?;
        for (i, size) in self.shape.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{size}")?;
        }
        f.write_str("]")
    }
}

/// An f64 that is compared and hashed by its bits, so that attributes can be keys.
/// Its serialised form, which also carries infinities through JSON, is in `serial`.
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

/// A range of bytes in the declaring source text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Span {
    pub start: usize,
    pub end: usize,
}

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
