//! Contractions: matrix products and convolutions, and the matrix products that each is computed by.

use crate::tensor::Shape;
use crate::types::Window;
use serde::{Deserialize, Serialize};

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

    /// Whether it is one matrix product: the input gradient of a convolution is one for each residue by the stride.
    pub fn is_one_product(&self) -> bool {
        match self {
            ContractionKind::MatMul { .. } | ContractionKind::Conv2d(_) | ContractionKind::Conv2dFilterGrad(_) => true,
            ContractionKind::Conv2dInputGrad(c) => c.window.stride == [1, 1],
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

    /// How many numbers of an image one pixel of the output is a sum of.
    pub fn taps(&self) -> usize {
        self.c * self.kernel[0] * self.kernel[1]
    }

    /// Pixels of the output.
    pub fn pixels(&self) -> usize {
        self.output[0] * self.output[1]
    }
}
