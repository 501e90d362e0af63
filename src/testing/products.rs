//! What contractions compute, by definition.

use crate::kernel::contraction::ContractionKind;
use std::ops::{AddAssign, Mul};

/// The points of a space in row-major order.
pub fn points(space: &[usize]) -> impl Iterator<Item = Vec<usize>> + '_ {
    (0..space.iter().product::<usize>()).map(|mut rest| {
        let mut point = vec![0; space.len()];
        for d in (0..space.len()).rev() {
            point[d] = rest % space[d];
            rest /= space[d];
        }
        point
    })
}

/// A contraction of row-major operands; a convolution for each pair of output pixel and tap that meets the input.
pub fn by_definition<T>(kind: &ContractionKind, first: &[T], second: &[T]) -> Vec<T>
where
    T: Copy + Default + AddAssign + Mul<Output = T>,
{
    let (_, shape) = kind.shapes();
    let mut out = vec![T::default(); shape.iter().product()];
    let mut add = |at: usize, i: usize, j: usize| out[at] += first[i] * second[j];
    match *kind {
        ContractionKind::MatMul { batch, m, n, k } => {
            for p in points(&[batch, m, n, k]) {
                add((p[0] * m + p[1]) * n + p[2], (p[0] * m + p[1]) * k + p[3], (p[0] * k + p[3]) * n + p[2]);
            }
        }
        ContractionKind::Conv2d(c) | ContractionKind::Conv2dInputGrad(c) | ContractionKind::Conv2dFilterGrad(c) => {
            for p in points(&[c.n, c.o, c.output[0], c.output[1], c.c, c.kernel[0], c.kernel[1]]) {
                let [n, o, oy, ox, ch, ky, kx] = p[..] else { unreachable!("a point of seven dimensions") };
                let y = (oy * c.window.stride[0] + ky).checked_sub(c.window.pad[0]).filter(|&y| y < c.input[0]);
                let x = (ox * c.window.stride[1] + kx).checked_sub(c.window.pad[1]).filter(|&x| x < c.input[1]);
                let (Some(y), Some(x)) = (y, x) else { continue };
                let input = ((n * c.c + ch) * c.input[0] + y) * c.input[1] + x;
                let filter = ((o * c.c + ch) * c.kernel[0] + ky) * c.kernel[1] + kx;
                let output = ((n * c.o + o) * c.output[0] + oy) * c.output[1] + ox;
                match kind {
                    ContractionKind::Conv2d(_) => add(output, input, filter),
                    ContractionKind::Conv2dInputGrad(_) => add(input, output, filter),
                    ContractionKind::Conv2dFilterGrad(_) | ContractionKind::MatMul { .. } => add(filter, input, output),
                }
            }
        }
    }
    out
}
