//! Turning a block of numbers in memory.

use crate::scalar::simd::multiversion;

/// Rows and columns that are turned together: a cache line each way, all of which stay in the first-level cache however far
/// rows are apart.
const BLOCK: usize = 16;

/// `rows` rows of `columns` numbers, and where they go.
pub(super) struct Turned<'t> {
    pub from: &'t [f32],
    /// From row to row.
    pub stride: usize,
    pub rows: usize,
    pub columns: usize,
    /// From column to column of what is written.
    pub to_stride: usize,
}

multiversion! {
    /// `into[column · to_stride + row] = from[row · stride + column]`.
    pub(super) fn transpose(turned: Turned<'_>, into: &mut [f32]) {
        let Turned { from, stride, rows, columns, to_stride } = turned;
        for row in (0..rows).step_by(BLOCK) {
            let height = BLOCK.min(rows - row);
            for column in (0..columns).step_by(BLOCK) {
                let width = BLOCK.min(columns - column);
                let mut block = [[0f32; BLOCK]; BLOCK];
                if height == BLOCK && width == BLOCK {
                    for (i, line) in block.iter_mut().enumerate() {
                        line.copy_from_slice(&from[(row + i) * stride + column..][..BLOCK]);
                    }
                    for j in 0..BLOCK {
                        let line: [f32; BLOCK] = std::array::from_fn(|i| block[i][j]);
                        into[(column + j) * to_stride + row..][..BLOCK].copy_from_slice(&line);
                    }
                } else {
                    for i in 0..height {
                        for j in 0..width {
                            into[(column + j) * to_stride + row + i] = from[(row + i) * stride + column + j];
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scalar::simd::at_each_level;

    #[test]
    fn every_number_goes_to_its_place_and_nothing_else_is_written() {
        at_each_level(|_| {
            for (rows, columns, stride, to_stride) in
                [(1, 1, 1, 1), (16, 16, 16, 16), (17, 33, 40, 32), (48, 31, 31, 50)]
            {
                let from: Vec<f32> = (0..rows * stride).map(|i| i as f32).collect();
                let mut into = vec![-1.0; columns * to_stride];
                transpose(Turned { from: &from, stride, rows, columns, to_stride }, &mut into);
                for (at, &found) in into.iter().enumerate() {
                    let (column, row) = (at / to_stride, at % to_stride);
                    let expected = if row < rows { (row * stride + column) as f32 } else { -1.0 };
                    assert_eq!(found, expected, "{row}, {column}");
                }
            }
        });
    }
}
