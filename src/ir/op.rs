//! The primitives: one closed enum.

use crate::scalar::ScalarOp;
use crate::tensor::{DType, Shape, Type};
use crate::types::{Distribution, Real, ReduceKind, Rounding, Window};
use crate::winograd::Transform;
use serde::{Deserialize, Serialize};

/// A primitive operation. Operands are the node's incoming edges, in order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    // Leaves
    /// A tensor that the caller gives at each run.
    Input { name: String, ty: Type },
    /// The value of a persistent tensor at the start of the run.
    State { name: String, ty: Type },
    /// Every element is `value`. A u32 constant holds an integral value.
    Constant { value: Real, ty: Type },
    /// The element's index along `axis`.
    Iota { axis: usize, ty: Type },
    /// Counter-based random numbers (Philox4x32-10; Salmon et al., SC 2011), f32.
    /// Operands: seed `u32[2]`, step `u32[]`. Element `i` is word `i % 4` of the block
    /// with key = seed and counter = (i / 4, step, low and high half of the stream's hash).
    Random { distribution: Distribution, stream: String, shape: Shape },

    /// An operation from the scalar table, element by element; all shapes equal.
    Scalar(ScalarOp),

    // Movement
    /// The same elements in row-major order under another shape.
    Reshape { to: Shape },
    /// Result dimension `i` is operand dimension `permutation[i]`.
    Transpose { permutation: Vec<usize> },
    /// Dimensions of size 1 are repeated to the sizes of `to`, of equal rank.
    Broadcast { to: Shape },
    /// `low[i]` zeros before and `high[i]` after dimension `i`.
    Pad { low: Vec<usize>, high: Vec<usize> },
    /// Elements `start[i]..end[i]` of dimension `i`.
    Slice { start: Vec<usize>, end: Vec<usize> },
    /// The operands one after the other along `axis`.
    Concat { axis: usize },
    /// The order of elements reversed along each of `axes`.
    Reverse { axes: Vec<usize> },

    /// The same numbers as elements of another real type, f32 or bf16; rounded to nearest, ties to even, where that is
    /// narrower. Scalar operations, reductions and contractions take f32: what is stored as bf16 is converted before.
    Convert { to: DType },

    /// Elements along `axes` (sorted) combined; these dimensions stay, with size 1.
    Reduce { kind: ReduceKind, axes: Vec<usize> },

    // Contractions
    /// `[.., m, k] · [.., k, n] → [.., m, n]`, leading dimensions equal.
    MatMul,
    /// Cross-correlation: input `[N,C,H,W]`, filter `[O,C,KH,KW]` → `[N,O,OH,OW]` with
    /// `OH = (H + 2·pad − KH) / stride + 1`, which must be a whole number of at least 1
    /// after rounding down.
    ///
    /// Padding is absent: a filter's element on it adds nothing. Where that element (of the output's gradient, for
    /// [`Op::Conv2dFilterGrad`]) is NaN or infinite, the sum may also be NaN, as it is when padding is a zero in memory;
    /// which of the two is an executor's own. The interpreter takes the former.
    Conv2d { window: Window },
    /// The vector–Jacobian product of `Conv2d` in its input, and so also a transposed convolution:
    /// output gradient `[N,O,OH,OW]`, filter `[O,C,KH,KW]` → `[N,C,H,W]` with `[H,W] = size`.
    Conv2dInputGrad { window: Window, size: [usize; 2] },
    /// The vector–Jacobian product of `Conv2d` in its filter: input `[N,C,H,W]`, output gradient
    /// `[N,O,OH,OW]` → `[O,C,KH,KW]` with `[KH,KW] = kernel`.
    Conv2dFilterGrad { window: Window, kernel: [usize; 2] },

    /// The pixels that the windows of a convolution read, as the channels of images of its output's size: `[N,C,H,W]` →
    /// `[N,C·KH·KW,OH,OW]`, where channel `(c·KH + i)·KW + j` of a pixel is channel `c` of what tap `(i, j)` of its window
    /// reads, and 0 on padding. A convolution is the 1x1 convolution of it (Chellapilla, Puri & Simard, "High Performance
    /// Convolutional Neural Networks for Document Processing", IWFHR 2006).
    Im2col { window: Window, kernel: [usize; 2] },
    /// The vector–Jacobian product of `Im2col`: `[N,C·KH·KW,OH,OW]` → `[N,C,H,W]` with `[H,W] = size`, multiples of the
    /// strides. Each pixel is the sum of all windows' elements that lie on it. There may be fewer windows than the image
    /// has room for.
    Col2im { window: Window, kernel: [usize; 2], size: [usize; 2] },

    /// Constant matrices along the rows and columns of a convolution's input, filter or output, to the points of Winograd's
    /// minimal filtering or from there: see [`Transform`] for the shapes. A convolution is the transform of a product of
    /// transforms.
    Winograd(Transform),

    /// Its operand, through which no derivative passes: what is learnt from an updated parameter does not
    /// reach back through the update. Differentiation replaces every such node by its operand.
    Detach,

    /// The gradient of the first operand, a scalar, with respect to the second. Differentiation
    /// replaces every such node; none is left in a graph that is executed.
    Gradient,
}

impl Op {
    /// The name of the operation in the text form.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Input { .. } => "input",
            Op::State { .. } => "state",
            Op::Constant { .. } => "constant",
            Op::Iota { .. } => "iota",
            Op::Random { .. } => "random",
            Op::Scalar(op) => op.name(),
            Op::Reshape { .. } => "reshape",
            Op::Transpose { .. } => "transpose",
            Op::Broadcast { .. } => "broadcast",
            Op::Pad { .. } => "pad",
            Op::Slice { .. } => "slice",
            Op::Concat { .. } => "concat",
            Op::Reverse { .. } => "reverse",
            Op::Convert { .. } => "convert",
            Op::Reduce { kind: ReduceKind::Sum, .. } => "reduce_sum",
            Op::Reduce { kind: ReduceKind::Max, .. } => "reduce_max",
            Op::Reduce { kind: ReduceKind::Deviations, .. } => "reduce_deviations",
            Op::MatMul => "matmul",
            Op::Conv2d { .. } => "conv2d",
            Op::Conv2dInputGrad { .. } => "conv2d_input_grad",
            Op::Conv2dFilterGrad { .. } => "conv2d_filter_grad",
            Op::Im2col { .. } => "im2col",
            Op::Col2im { .. } => "col2im",
            Op::Winograd(transform) => transform.name(),
            Op::Detach => "detach",
            Op::Gradient => "gradient",
        }
    }

    /// A constant of `dtype` and `shape` whose every element is `value`.
    pub fn constant(value: f64, dtype: DType, shape: impl Into<Shape>) -> Op {
        Op::Constant { value: Real(value), ty: Type::new(dtype, shape) }
    }

    /// The operation that rounds f32.
    pub fn rounding(to: Rounding) -> Op {
        match to {
            Rounding::Tf32 => Op::Scalar(ScalarOp::RoundTf32),
            Rounding::Bf16 => Op::Convert { to: DType::Bf16 },
        }
    }

    /// What the operation rounds to, where it is one that rounds.
    pub fn rounds_to(&self) -> Option<Rounding> {
        [Rounding::Tf32, Rounding::Bf16].into_iter().find(|&to| *self == Op::rounding(to))
    }

    /// Whether the operation only moves elements.
    pub fn is_movement(&self) -> bool {
        matches!(
            self,
            Op::Reshape { .. }
                | Op::Transpose { .. }
                | Op::Broadcast { .. }
                | Op::Pad { .. }
                | Op::Slice { .. }
                | Op::Concat { .. }
                | Op::Reverse { .. }
        )
    }

    /// Whether the operation is a matrix product or one of the convolutions.
    pub fn is_contraction(&self) -> bool {
        matches!(self, Op::MatMul | Op::Conv2d { .. } | Op::Conv2dInputGrad { .. } | Op::Conv2dFilterGrad { .. })
    }
}
