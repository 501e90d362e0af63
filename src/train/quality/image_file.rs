//! Images of other programs, to be measured: NPY files (numpy's own format, "NEP 1: A Simple File Format for NumPy Arrays"),
//! and IDX files as MNIST's.

use super::{Images, QualityError};
use crate::atomic;
use crate::train::data::idx::{self, Content, IdxError, Problem};
use crate::train::data::npy;
use crate::train::data::planes::channels_first;
use crate::train::sample_grid::to_byte;
use std::io;
use std::path::{Path, PathBuf};

/// Why a file gives no images.
#[derive(Debug, thiserror::Error)]
pub enum ImageFileError {
    #[error("{file} cannot be read: {error}", file = .file.display())]
    Read { file: PathBuf, error: io::Error },
    #[error(transparent)]
    Idx(#[from] IdxError),
    #[error(
        "{file}: {problem}; an IDX file, or an array of images [count, 1, 28, 28] or [count, 28, 28] that numpy.save wrote, of \
         bytes (uint8) or of floats from -1 (black) to 1, was expected", file = .file.display()
    )]
    Npy { file: PathBuf, problem: String },
    #[error("{file}: {error}", file = .file.display())]
    Shape { file: PathBuf, error: QualityError },
}

/// Reads the images of a file: NPY by its first bytes, else IDX.
///
/// # Errors
/// When it is neither, or holds no images that can be measured.
pub fn read(file: &Path) -> Result<Images, ImageFileError> {
    let bytes = atomic::read(file).map_err(|error| ImageFileError::Read { file: file.to_owned(), error })?;
    let check = |shape| Images::check(shape).map_err(|error| ImageFileError::Shape { file: file.to_owned(), error });
    if bytes.starts_with(npy::MAGIC) {
        let wrong = |problem| ImageFileError::Npy { file: file.to_owned(), problem };
        let array = npy::parse(&bytes).map_err(wrong)?;
        let shape = npy_shape(&array).map_err(wrong)?;
        // Before the values: of images of another size they need not be from -1 to 1 either, and that says less.
        check(shape)?;
        return npy_images(&array, shape).map_err(wrong);
    }
    let idx = idx::read(file, Content::Images)?;
    let dims = idx.dims.clone();
    let Some((_, size, bytes)) = channels_first(&idx.dims, idx.data, None) else {
        return Err(IdxError { file: file.display().to_string(), problem: Problem::Channels { dims } }.into());
    };
    let shape = [size.channels, size.rows, size.columns];
    check(shape)?;
    Ok(Images { bytes, shape })
}

/// Channels, height and width of the images in an array, or what is wrong with it.
fn npy_shape(array: &npy::Array) -> Result<[usize; 3], String> {
    let (count, shape) = match array.sizes[..] {
        [count, height, width] => (count, [1, height, width]),
        [count, channels, height, width] => (count, [channels, height, width]),
        _ => (0, [0; 3]),
    };
    if count == 0 || shape.contains(&0) {
        return Err(format!("its array has the shape {:?}", array.sizes));
    }
    Ok(shape)
}

/// The images in an array, or what is wrong with it.
fn npy_images(array: &npy::Array, shape: [usize; 3]) -> Result<Images, String> {
    let elements = array.elements()?;
    if let Some(bytes) = elements.bytes() {
        return Ok(Images { bytes: array.in_order(bytes.to_vec()), shape });
    }
    let values = elements.floats().ok_or_else(|| format!("its elements are of the type {}", array.of_type))?;
    if let Some(value) = values.iter().find(|value| !(-1.001..=1.001).contains(*value)) {
        return Err(format!("its elements are not from -1 to 1: {value} is among them"));
    }
    if values.iter().all(|&value| value >= 0.0) {
        return Err("none of its elements is below 0, where -1 is black".into());
    }
    Ok(Images { bytes: array.in_order(values.into_iter().map(to_byte).collect()), shape })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::data::npy::MAGIC;
    use crate::train::data::npy::tests::file;

    fn npy(bytes: &[u8]) -> Result<Images, String> {
        let array = npy::parse(bytes)?;
        npy_images(&array, npy_shape(&array)?)
    }

    #[test]
    fn images_of_another_size_are_told_of_before_their_values() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("small.npy");
        std::fs::write(&path, file("<f4", "(1, 1, 1)", &7.0f32.to_le_bytes())).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("small.npy: images of 1 channels and 1×1 pixels cannot be measured"), "{error}");
    }

    #[test]
    fn arrays_of_numpy_are_read() {
        let bytes = npy(&file("|u1", "(2, 1, 1, 3)", &[0, 1, 2, 3, 4, 255])).unwrap();
        assert_eq!(bytes, Images { bytes: vec![0, 1, 2, 3, 4, 255], shape: [1, 1, 3] });
        let floats: Vec<u8> = [-1.0f32, 1.0, 0.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(npy(&file("<f4", "(3, 1, 1)", &floats)).unwrap().bytes, [0, 255, 128]);
    }

    #[test]
    fn what_is_wrong_is_told() {
        let ones: Vec<u8> = [1.0f32, 0.5].iter().flat_map(|x| x.to_le_bytes()).collect();
        let large: Vec<u8> = [1.0f32, -7.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        let cases = [
            (file("|u1", "(2, 3)", &[0; 6]), "shape [2, 3]"),
            (file("|u1", "(0, 1, 1)", &[]), "shape [0, 1, 1]"),
            (file("|u1", "(2, 1, 3)", &[0; 5]), "5 bytes of elements"),
            (file("|u1", "(99999999999, 99999999999, 3)", &[0; 5]), "5 bytes of elements"),
            (file("<i4", "(1, 1, 1)", &[0; 4]), "the type <i4"),
            (file("<f4", "(2, 1, 1)", &ones), "none of its elements is below 0"),
            (file("<f4", "(2, 1, 1)", &large), "-7 is among them"),
            (file("|u1", "(2, 1, 1)", &[0; 2])[..20].to_vec(), "ends within its header"),
            (MAGIC.to_vec(), "not known"),
        ];
        for (bytes, problem) in cases {
            let error = npy(&bytes).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
    }
}
