//! Kernels: what one launch computes, as data.
//!
//! A kernel's body is a small expression graph over an index space, which a device renders: the CPU
//! evaluates it tile by tile, CUDA gets C++ text. No device's habits are in here.

use crate::ir::{DType, Distribution, Real, Shape, Window};
use crate::kernel::view::View;
use crate::scalar::ScalarOp;
use serde::{Deserialize, Serialize};

/// An index into the buffers of a schedule.
pub type BufferId = usize;
/// An index into the expressions of a body.
pub type ExprId = usize;
/// An index into the slots of a nest: see [`Nest`].
pub type SlotId = usize;

/// A 32-bit word that a random draw is keyed with.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Word {
    Constant(u32),
    /// Element `offset` of a u32 buffer.
    Load {
        buffer: BufferId,
        offset: usize,
    },
}

/// One value for each point of an index space. Operands come before their users.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Expr {
    /// The same value everywhere.
    Constant { value: Real, dtype: DType },
    /// What the view reads of the buffer.
    Load { buffer: BufferId, view: View },
    /// 1 inside the view's mask, 0 outside: pads what is computed in the kernel.
    Inside { view: View },
    /// `(element / divisor) % modulus`, where `element` is what the view reads of the row-major positions
    /// of an iota's shape: the index along one axis. 0 outside the mask.
    Iota { view: View, divisor: usize, modulus: usize, dtype: DType },
    /// Element `view` of a draw (see `ir::Op::Random`); 0 outside the mask.
    Random { distribution: Distribution, stream: u64, seed: [Word; 2], step: Word, view: View },
    /// A value of the nest's kept space, repeated along the reduced dimensions.
    Slot(SlotId),
    /// The complete sum of the contraction at this point of its output.
    Accumulator,
    /// An operation from the scalar table.
    Scalar { op: ScalarOp, args: Vec<ExprId> },
}

/// Writes a value of each point of a space into a buffer, at the point's row-major position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Store {
    pub value: ExprId,
    pub buffer: BufferId,
}

/// How a pass combines a value over the reduced dimensions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reduction {
    pub kind: ReduceKind,
    pub value: ExprId,
    /// Where the result goes.
    pub slot: SlotId,
}

pub use crate::ir::ReduceKind;

/// One sweep over the reduced dimensions, for one point of the kept space.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pass {
    /// Over the full space: combined into slots.
    pub reductions: Vec<Reduction>,
    /// Over the full space: written at the full space's row-major positions.
    pub stores: Vec<Store>,
    /// Over the kept space, after the sweep and in order: values computed into slots. Their
    /// expressions are over the kept shape (`Load` views have stride 0 on reduced dimensions).
    pub kept: Vec<(SlotId, ExprId)>,
    /// Over the kept space, after `kept`: written at the kept shape's row-major positions.
    pub kept_stores: Vec<Store>,
}

/// A loop nest over an index space, some of whose dimensions are reduced.
///
/// For each point of the kept space (the dimensions that are not reduced) the passes run one after
/// the other; each sweeps the reduced dimensions once. So batch normalisation is one nest of three
/// passes (mean, variance, normalise) that reads its input from memory once, where a kept point's data
/// fits a cache. A purely elementwise kernel has nothing reduced and one pass with `stores` only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nest {
    pub space: Shape,
    /// For each dimension of the space, whether it is reduced.
    pub reduced: Vec<bool>,
    pub exprs: Vec<Expr>,
    /// How many kept values there are.
    pub slots: usize,
    pub passes: Vec<Pass>,
}

/// A contraction and its sizes. All images are NCHW, filters OIHW.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContractionKind {
    /// `[batch, m, k] · [batch, k, n] → [batch, m, n]`.
    MatMul { batch: usize, m: usize, n: usize, k: usize },
    /// Operands input and filter; output `[n, o, oh, ow]`.
    Conv2d(ConvShape),
    /// Operands output gradient and filter; output `[n, c, h, w]`.
    Conv2dInputGrad(ConvShape),
    /// Operands input and output gradient; output `[o, c, kh, kw]`.
    Conv2dFilterGrad(ConvShape),
}

/// The sizes of the convolution `[n,c,h,w] * [o,c,kh,kw] → [n,o,oh,ow]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConvShape {
    pub n: usize,
    pub c: usize,
    /// Height and width of the input, the kernel and the output.
    pub input: [usize; 2],
    pub o: usize,
    pub kernel: [usize; 2],
    pub output: [usize; 2],
    pub window: Window,
}

/// Where a contraction's operand comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operand {
    /// A buffer: of a matrix product under any unmasked view over `[batch, rows, columns]`, of a
    /// convolution row-major.
    Buffer { buffer: BufferId, view: View },
    /// A prologue: expressions over the operand's shape, the last of which is the operand.
    Computed { exprs: Vec<Expr> },
}

/// A matrix product or convolution with what is fused around it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contraction {
    pub kind: ContractionKind,
    pub operands: [Operand; 2],
    /// The shape of the output, which is the index space of the epilogue (coalesced).
    pub space: Shape,
    /// The epilogue: expressions over the output.
    pub exprs: Vec<Expr>,
    pub stores: Vec<Store>,
}

/// What a kernel does.
// There are some hundred bodies in a program: their size does not matter.
#[allow(clippy::large_enum_variant)]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// Loop nests that do not depend on each other. More than one is a multi-tensor kernel.
    Nests(Vec<Nest>),
    Contraction(Contraction),
}

/// One launch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// Unique in the schedule; an identifier in C.
    pub name: String,
    pub body: Body,
    /// The buffers that are read, each once, in ascending order.
    pub reads: Vec<BufferId>,
    /// The buffers that are written, each once, in ascending order.
    pub writes: Vec<BufferId>,
    /// The names of the nodes that are computed here, operands before users.
    pub nodes: Vec<String>,
}

/// The sort of a kernel, as summaries count them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KernelKind {
    Contraction,
    Reduction,
    Elementwise,
    MultiTensor,
}

impl KernelKind {
    pub fn name(self) -> &'static str {
        match self {
            KernelKind::Contraction => "contraction",
            KernelKind::Reduction => "reduction",
            KernelKind::Elementwise => "elementwise",
            KernelKind::MultiTensor => "multi-tensor",
        }
    }
}

impl Kernel {
    pub fn kind(&self) -> KernelKind {
        match &self.body {
            Body::Contraction(_) => KernelKind::Contraction,
            Body::Nests(nests) => match nests.as_slice() {
                [nest] if nest.reduced.contains(&true) => KernelKind::Reduction,
                [_] => KernelKind::Elementwise,
                _ => KernelKind::MultiTensor,
            },
        }
    }
}

impl ContractionKind {
    /// The shapes of the two operands and of the output.
    pub fn shapes(&self) -> ([Shape; 2], Shape) {
        match *self {
            ContractionKind::MatMul { batch, m, n, k } => ([vec![batch, m, k], vec![batch, k, n]], vec![batch, m, n]),
            ContractionKind::Conv2d(c) => ([c.input_shape(), c.filter_shape()], c.output_shape()),
            ContractionKind::Conv2dInputGrad(c) => ([c.output_shape(), c.filter_shape()], c.input_shape()),
            ContractionKind::Conv2dFilterGrad(c) => ([c.input_shape(), c.output_shape()], c.filter_shape()),
        }
    }

    /// Multiplications and additions, not counting those with padding as saved.
    pub fn flops(&self) -> u64 {
        match *self {
            ContractionKind::MatMul { batch, m, n, k } => 2 * (batch * m) as u64 * (n * k) as u64,
            ContractionKind::Conv2d(c) | ContractionKind::Conv2dInputGrad(c) | ContractionKind::Conv2dFilterGrad(c) => {
                2 * (c.n * c.o * c.output[0] * c.output[1]) as u64 * (c.c * c.kernel[0] * c.kernel[1]) as u64
            }
        }
    }
}

impl ConvShape {
    pub fn input_shape(&self) -> Shape {
        vec![self.n, self.c, self.input[0], self.input[1]]
    }

    pub fn filter_shape(&self) -> Shape {
        vec![self.o, self.c, self.kernel[0], self.kernel[1]]
    }

    pub fn output_shape(&self) -> Shape {
        vec![self.n, self.o, self.output[0], self.output[1]]
    }
}

impl Body {
    /// Calls `f` with every reference to a buffer that is read.
    pub fn each_read(&mut self, f: &mut dyn FnMut(&mut BufferId)) {
        fn expr(expr: &mut Expr, f: &mut dyn FnMut(&mut BufferId)) {
            match expr {
                Expr::Load { buffer, .. } => f(buffer),
                Expr::Random { seed: [a, b], step, .. } => {
                    for word in [a, b, step] {
                        if let Word::Load { buffer, .. } = word {
                            f(buffer);
                        }
                    }
                }
                Expr::Constant { .. }
                | Expr::Inside { .. }
                | Expr::Iota { .. }
                | Expr::Slot(_)
                | Expr::Accumulator
                | Expr::Scalar { .. } => {}
            }
        }
        match self {
            Body::Nests(nests) => nests.iter_mut().flat_map(|n| &mut n.exprs).for_each(|e| expr(e, f)),
            Body::Contraction(c) => {
                for operand in &mut c.operands {
                    match operand {
                        Operand::Buffer { buffer, .. } => f(buffer),
                        Operand::Computed { exprs } => exprs.iter_mut().for_each(|e| expr(e, f)),
                    }
                }
                c.exprs.iter_mut().for_each(|e| expr(e, f));
            }
        }
    }

    /// Calls `f` with every store.
    pub fn each_store(&mut self, f: &mut dyn FnMut(&mut Store)) {
        match self {
            Body::Nests(nests) => {
                let passes = nests.iter_mut().flat_map(|n| &mut n.passes);
                passes.flat_map(|p| p.stores.iter_mut().chain(&mut p.kept_stores)).for_each(f);
            }
            Body::Contraction(c) => c.stores.iter_mut().for_each(f),
        }
    }
}
