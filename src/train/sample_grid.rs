//! Generated images side by side.

use std::fmt;
use std::str::FromStr;

use super::picture::{ImageError, MAX_SIDE, Picture};

/// Black pixels around and between the images of a grid, as torchvision's `make_grid` has them.
const PADDING: usize = 2;

/// A number of rows and columns; written "8x8".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// Images above one another.
    pub rows: usize,
    /// Images side by side.
    pub columns: usize,
}

impl Grid {
    /// How many images it holds.
    pub fn cells(self) -> usize {
        self.rows * self.columns
    }
}

impl fmt::Display for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.rows, self.columns)
    }
}

impl FromStr for Grid {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Grid, ImageError> {
        let size = |part: &str| part.trim().parse().ok().filter(|size| (1..=1000).contains(size));
        text.split_once(['x', 'X', '×'])
            .and_then(|(rows, columns)| Some(Grid { rows: size(rows)?, columns: size(columns)? }))
            .ok_or_else(|| ImageError::Grid(text.into()))
    }
}

/// Height and width of a grid of images of a size, in pixels.
///
/// # Errors
/// When a picture cannot be so large.
pub fn size(grid: Grid, height: usize, width: usize) -> Result<[usize; 2], ImageError> {
    let side = |cells: usize, size: usize| {
        let total = size.checked_add(PADDING)?.checked_mul(cells)?.checked_add(PADDING)?;
        (total <= MAX_SIDE).then_some(total)
    };
    let sides = side(grid.rows, height).zip(side(grid.columns, width));
    sides.map(|(height, width)| [height, width]).ok_or(ImageError::TooLarge { grid, height, width })
}

/// Lays images side by side. `values` are in [-1, 1] (what is outside is cut off, and NaN is black), `shape` is
/// `[n, 1 or 3, height, width]`. Images are placed row by row; those that the grid has no room for are left out, and
/// cells that are left stay black.
pub fn lay_out(values: &[f32], shape: &[usize], grid: Grid) -> Result<Picture, ImageError> {
    let wrong = || ImageError::Shape { shape: shape.to_vec(), count: values.len() };
    let &[count, channels @ (1 | 3), height, width] = shape else { return Err(wrong()) };
    let product = shape.iter().try_fold(1usize, |total, &size| total.checked_mul(size));
    if product != Some(values.len()) || values.is_empty() {
        return Err(wrong());
    }
    let [picture_height, picture_width] = size(grid, height, width)?;

    let mut data = vec![0; picture_height * picture_width * channels];
    let images = values.chunks_exact(channels * height * width);
    for (cell, image) in images.take(count.min(grid.cells())).enumerate() {
        let top = PADDING + cell / grid.columns * (height + PADDING);
        let left = PADDING + cell % grid.columns * (width + PADDING);
        for (channel, plane) in image.chunks_exact(height * width).enumerate() {
            for (y, row) in plane.chunks_exact(width).enumerate() {
                let start = ((top + y) * picture_width + left) * channels + channel;
                let pixels = data[start..].iter_mut().step_by(channels);
                pixels.zip(row).for_each(|(pixel, &value)| *pixel = to_byte(value));
            }
        }
    }
    Ok(Picture { width: picture_width, height: picture_height, channels, data })
}

/// -1 is 0 and 1 is 255: the inverse of [`super::batches::to_unit`], rounded to the nearest.
pub fn to_byte(value: f32) -> u8 {
    // A cast from a float saturates, and makes NaN zero.
    ((value + 1.0) * 127.5).round() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_are_read() {
        let grid = |text: &str| text.parse::<Grid>().ok().map(|g| (g.rows, g.columns));
        assert_eq!(grid("8x8"), Some((8, 8)));
        assert_eq!(grid("2 X 10"), Some((2, 10)));
        for bad in ["", "8", "x", "0x3", "3x0", "-1x2", "8x8x8", "1001x1", "99999999999999999999x1", "axb"] {
            let error = bad.parse::<Grid>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("\"{bad}\" is not a grid")), "{error}");
        }
        assert_eq!("6x4".parse::<Grid>().unwrap().to_string(), "6x4");
    }

    #[test]
    fn every_byte_survives_the_way_to_floats_and_back() {
        for byte in 0..=255u8 {
            assert_eq!(to_byte(2.0 * f32::from(byte) / 255.0 - 1.0), byte);
        }
        assert_eq!([f32::NAN, -7.0, 7.0, f32::INFINITY].map(to_byte), [0, 0, 255, 255]);
    }

    #[test]
    fn images_are_placed_row_by_row() {
        // Three 1×2 images in a 2×2 grid: the fourth cell stays black.
        let values = [1.0, -1.0, 0.0, 1.0, 1.0, 1.0];
        let picture = lay_out(&values, &[3, 1, 1, 2], Grid { rows: 2, columns: 2 }).unwrap();
        assert_eq!((picture.width, picture.height), (10, 8));
        let lit: Vec<_> =
            picture.data.iter().enumerate().filter(|(_, p)| **p > 0).map(|(i, p)| (i / 10, i % 10, *p)).collect();
        assert_eq!(lit, [(2, 2, 255), (2, 6, 128), (2, 7, 255), (5, 2, 255), (5, 3, 255)]);
    }

    #[test]
    fn colours_are_interleaved_and_surplus_images_left_out() {
        let values = [-1.0, 0.0, 1.0, 1.0, 1.0, 1.0];
        let picture = lay_out(&values, &[2, 3, 1, 1], Grid { rows: 1, columns: 1 }).unwrap();
        assert_eq!((picture.width, picture.channels), (5, 3));
        assert_eq!(picture.data[(2 * 5 + 2) * 3..][..3], [0, 128, 255]);
        assert_eq!(picture.data.iter().filter(|p| **p > 0).count(), 2);
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let grid = Grid { rows: 1, columns: 1 };
        for shape in [&[4usize][..], &[1, 2, 1, 2], &[1, 1, 1, 5], &[0, 1, 2, 2], &[usize::MAX, 1, 2, 2]] {
            let error = lay_out(&[0.0; 4], shape, grid).unwrap_err();
            assert!(matches!(error, ImageError::Shape { .. }), "{error}");
        }
        let error = lay_out(&[0.0; 1000], &[1, 1, 1, 1000], Grid { rows: 1, columns: 1000 }).unwrap_err();
        assert!(matches!(error, ImageError::TooLarge { .. }), "{error}");
    }
}
