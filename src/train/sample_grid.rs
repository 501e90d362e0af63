//! Grids of generated images as PNG files.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use thiserror::Error;

use crate::atomic;

/// Black pixels around and between the images of a grid, as torchvision's `make_grid` has them.
const PADDING: usize = 2;

/// The largest width or height of a picture, in pixels.
const MAX_SIDE: usize = 1 << 15;

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

/// Why a picture could not be made.
#[derive(Debug, Error)]
pub enum ImageError {
    /// A grid that cannot be read.
    #[error("\"{0}\" is not a grid: rows x columns were expected, each from 1 to 1000, for instance 8x8")]
    Grid(String),
    /// Values that are not images.
    #[error(
        "values of shape {shape:?} ({count} of them) cannot be shown: [n, 1, height, width] or [n, 3, height, width] was expected"
    )]
    Shape {
        /// The shape.
        shape: Vec<usize>,
        /// The number of values.
        count: usize,
    },
    /// A picture of too many pixels.
    #[error("a {grid} grid of {height}×{width} images is larger than the {MAX_SIDE} pixels a side supported")]
    TooLarge {
        /// The grid.
        grid: Grid,
        /// Of one image.
        height: usize,
        /// Of one image.
        width: usize,
    },
    /// A file name that promises another format.
    #[error("{path} would not be a PNG by its name: end it in .png, the one format there is", path = .0.display())]
    Format(PathBuf),
    /// The file could not be written.
    #[error("{path} cannot be written: {error}", path = .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// A picture of 8 bits a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// In pixels.
    pub width: usize,
    /// In pixels.
    pub height: usize,
    /// 1 (grey) or 3 (red, green, blue).
    pub channels: usize,
    /// `height × width × channels`.
    pub data: Vec<u8>,
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
    let side = |cells: usize, size: usize| {
        let total = size.checked_add(PADDING)?.checked_mul(cells)?.checked_add(PADDING)?;
        (total <= MAX_SIDE).then_some(total)
    };
    let (Some(picture_height), Some(picture_width)) = (side(grid.rows, height), side(grid.columns, width)) else {
        return Err(ImageError::TooLarge { grid, height, width });
    };

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

/// Whether a PNG may be written under this name: it ends in `.png`, or in nothing that names a format.
///
/// # Errors
/// Where it may not.
pub fn check_format(path: &Path) -> Result<(), ImageError> {
    match path.extension() {
        Some(extension) if !extension.eq_ignore_ascii_case("png") => Err(ImageError::Format(path.to_owned())),
        _ => Ok(()),
    }
}

/// [`lay_out`], written to `path` as a PNG, all or nothing.
pub fn write_png(path: &Path, values: &[f32], shape: &[usize], grid: Grid) -> Result<(), ImageError> {
    let picture = lay_out(values, shape, grid)?;
    let color = if picture.channels == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
    // Both are at most MAX_SIDE.
    let (width, height) = (picture.width as u32, picture.height as u32);
    atomic::write(path, |out| {
        PngEncoder::new(out).write_image(&picture.data, width, height, color).map_err(|error| match error {
            image::ImageError::IoError(error) => error,
            other => io::Error::other(other),
        })
    })
    .map_err(|error| ImageError::Write { path: path.to_owned(), error })
}

/// -1 is 0 and 1 is 255: the inverse of the map in [`super::batches::fill_images`], rounded to the nearest.
fn to_byte(value: f32) -> u8 {
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

    #[test]
    fn a_png_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("grid.png");
        let values: Vec<f32> = (0..2 * 3 * 4 * 5).map(|i| (i as f32 / 60.0) - 1.0).collect();
        let (shape, grid) = ([2, 3, 4, 5], Grid { rows: 1, columns: 2 });
        write_png(&path, &values, &shape, grid).unwrap();
        let back = image::open(&path).unwrap().into_rgb8();
        assert_eq!(back.into_raw(), lay_out(&values, &shape, grid).unwrap().data);
        for (name, fits) in [("a.png", true), ("a.PNG", true), ("a", true), ("a.jpg", false), ("a.png.gif", false)] {
            assert_eq!(check_format(Path::new(name)).is_ok(), fits, "{name}");
        }
        let error = write_png(&dir.path().join("no/folder.png"), &values, &shape, grid).unwrap_err();
        assert!(error.to_string().contains("folder.png cannot be written: "), "{error}");
    }
}
