//! Turning a block of numbers in memory.

use crate::scalar::simd::{self, multiversion};

/// Rows that are turned together: a cache line of what is written, and few enough that a line of each stays in the
/// first-level cache however far they are apart.
const BLOCK: usize = 16;
/// Rows and columns that are turned in registers.
const SMALL: usize = simd::TURNED;

/// `rows` rows of `columns` numbers, and where they go.
pub struct Turned<'t> {
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
    pub fn transpose(turned: Turned<'_>, into: &mut [f32]) {
        let Turned { from, stride, rows, columns, to_stride } = turned;
        let whole = columns - columns % SMALL;
        for first in (0..rows).step_by(BLOCK) {
            let end = rows.min(first + BLOCK);
            let small = end - (end - first) % SMALL;
            if small > first && whole > 0 {
                let (from, into) = (&from[first * stride..], &mut into[first..]);
                // Of a known number of rows there is code without a loop.
                if small - first == BLOCK {
                    simd::turn_squares([BLOCK, whole], (from, stride), (into, to_stride));
                } else {
                    simd::turn_squares([small - first, whole], (from, stride), (into, to_stride));
                }
            }
            for row in first..end {
                for column in if row < small { whole } else { 0 }..columns {
                    into[column * to_stride + row] = from[row * stride + column];
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
                [(1, 1, 1, 1), (16, 16, 16, 16), (17, 33, 40, 32), (48, 31, 31, 50), (23, 6, 7, 29), (3, 49, 49, 16)]
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

    #[test]
    fn nothing_is_read_or_written_outside() {
        let from = vec![1.0; 16 * 16];
        // Stride, what is there to read, from column to column, and room for what is written.
        for (stride, there, to_stride, room) in [(16, 256, 16, 255), (16, 255, 16, 256), (usize::MAX / 4, 256, 16, 256)]
        {
            let turn = || {
                let turned = Turned { from: &from[..there], stride, rows: 16, columns: 16, to_stride };
                transpose(turned, &mut vec![0.0; room]);
            };
            assert!(std::panic::catch_unwind(turn).is_err(), "{stride}, {there}, {to_stride}, {room}");
        }
    }
}
