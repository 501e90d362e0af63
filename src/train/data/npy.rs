//! Arrays as `numpy.save` writes them ("NEP 1: A Simple File Format for NumPy Arrays"), and data sets of them.
//!
//! Nothing is allocated by what a header says: the elements are what follows it in the file, and must be as many.

use super::planes::channels_first;
use super::{Dataset, Source, Split};
use crate::atomic;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// What a file begins with.
pub const MAGIC: &[u8] = b"\x93NUMPY";

/// A file that could not be used, and why.
#[derive(Debug, Error)]
pub enum NpyError {
    #[error("{file} cannot be read: {error}", file = .file.display())]
    Read { file: PathBuf, error: io::Error },
    #[error("{file}: {problem}; {expected} was expected", file = .file.display())]
    Content { file: PathBuf, problem: String, expected: &'static str },
}

const IMAGES: &str = "an array of images [count, height, width], with 1 or 3 channels before or behind the height and the \
                      width, that numpy.save wrote, of uint8 or of float32";
const LABELS: &str = "an array [count] of whole numbers from 0 to 255 that numpy.save wrote, one for each image";

/// An array in a file's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Array<'b> {
    pub sizes: Vec<usize>,
    /// As numpy writes it: `<f4` are float32, least significant byte first.
    pub of_type: &'b str,
    /// The elements, the last index fastest.
    pub data: &'b [u8],
}

impl Array<'_> {
    /// The elements of an array of float32.
    pub fn floats(&self) -> Vec<f32> {
        self.data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }
}

/// Reads the header of an NPY file.
///
/// # Errors
/// What is wrong with it, as "its array …".
pub fn parse(bytes: &[u8]) -> Result<Array<'_>, String> {
    let end = || "it ends within its header".to_string();
    let rest = bytes.strip_prefix(MAGIC).ok_or("it is no NPY file")?;
    let (length, at): (usize, usize) = match *rest {
        [1, _, a, b, ..] => (usize::from(u16::from_le_bytes([a, b])), 4),
        [2 | 3, _, a, b, c, d, ..] => (u32::from_le_bytes([a, b, c, d]) as usize, 6),
        _ => return Err("it is of a version of the format that is not known".into()),
    };
    let header = at.checked_add(length).and_then(|to| rest.get(at..to)).ok_or_else(end)?;
    let data = &rest[at + length..];
    let header = std::str::from_utf8(header).map_err(|_| "its header is no text")?;
    let field = |name: &str| {
        let (_, value) = header.split_once(&format!("'{name}':"))?;
        Some(value.trim_start())
    };
    let of_type = field("descr").and_then(|value| value.strip_prefix('\'')?.split('\'').next());
    let of_type = of_type.ok_or("its elements are of several types")?;
    if field("fortran_order").is_none_or(|value| !value.starts_with("False")) {
        return Err("its array is in Fortran's order".into());
    }
    let sizes = field("shape").and_then(|value| value.strip_prefix('(')?.split(')').next());
    let sizes: Option<Vec<usize>> = sizes.and_then(|list| {
        let sizes = list.split(',').map(str::trim).filter(|size| !size.is_empty());
        sizes.map(|size| size.parse().ok()).collect()
    });
    let sizes = sizes.ok_or("its header names no shape")?;
    let width = of_type.get(2..).and_then(|width| width.parse::<usize>().ok()).filter(|&width| width > 0);
    let width = width.ok_or_else(|| format!("its elements are of the type {of_type}"))?;
    let expected = sizes.iter().try_fold(width, |total, &size| total.checked_mul(size));
    if expected != Some(data.len()) {
        return Err(format!("it has {} bytes of elements where {sizes:?} of them were announced", data.len()));
    }
    Ok(Array { sizes, of_type, data })
}

/// Whether a file begins as an NPY file does.
pub fn is_npy(path: &Path) -> bool {
    let mut first = [0; MAGIC.len()];
    atomic::check_ordinary(path).is_ok()
        && std::fs::File::open(path).is_ok_and(|mut file| io::Read::read_exact(&mut file, &mut first).is_ok())
        && first == MAGIC
}

/// The data set of a file of images: its labels are beside it, in the file of its name with `y` or `labels` in the place of
/// `x` or `images`, and so are test images, with `test` in the place of `train`.
///
/// # Errors
/// When a file cannot be read, or does not hold what it should.
pub fn load(path: &Path, name: String) -> Result<Dataset, NpyError> {
    let mut notes = Vec::new();
    let train = split(path, &mut notes)?;
    let test = beside(path, &[("train", "test"), ("train", "val")]);
    let test = test.map(|file| split(&file, &mut notes)).transpose()?;
    notes.dedup();
    let why = format!("images in {}", path.display());
    Ok(Dataset { name, source: Source::Given(path.to_owned()), why, classes: None, notes, train, test })
}

/// The training images of a folder: `x_train.npy`, `train_images.npy` and the like.
pub fn in_folder(dir: &Path) -> Option<PathBuf> {
    let names = ["x_train.npy", "X_train.npy", "train_images.npy", "train.npy", "x.npy", "X.npy", "images.npy"];
    names.into_iter().map(|name| dir.join(name)).find(|path| is_npy(path))
}

/// The file that is called as `path` is, but for one part, where there is one.
fn beside(path: &Path, parts: &[(&str, &str)]) -> Option<PathBuf> {
    let stem = path.file_stem()?.to_str()?;
    let named = parts.iter().filter(|(from, _)| stem.contains(from)).map(|(from, to)| stem.replacen(from, to, 1));
    named.map(|stem| path.with_file_name(format!("{stem}.npy"))).find(|path| path.is_file())
}

fn split(path: &Path, notes: &mut Vec<String>) -> Result<Split, NpyError> {
    let read = |file: &Path| atomic::read(file).map_err(|error| NpyError::Read { file: file.to_owned(), error });
    let bytes = read(path)?;
    let wrong = |problem| NpyError::Content { file: path.to_owned(), problem, expected: IMAGES };
    let (sizes, pixels) = images(&bytes, notes).map_err(wrong)?;
    let (count, size, images) =
        channels_first(&sizes, pixels).ok_or_else(|| wrong(format!("its array has the shape {sizes:?}")))?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let parts: &[(&str, &str)] = match &*stem {
        stem if stem.starts_with(['x', 'X']) => &[("x", "y"), ("X", "y"), ("X", "Y")],
        _ => &[("images", "labels")],
    };
    let labels = match beside(path, parts) {
        None => None,
        Some(file) => {
            let wrong = |problem| NpyError::Content { file: file.clone(), problem, expected: LABELS };
            Some(labels(&read(&file)?, count).map_err(wrong)?)
        }
    };
    Ok(Split { images, labels, channels: size.channels, rows: size.rows, columns: size.columns })
}

/// The sizes and the pixels, from 0 to 255, of an NPY file of images; how they were read is noted.
///
/// # Errors
/// What is wrong with it, as "its array …".
pub fn images(bytes: &[u8], notes: &mut Vec<String>) -> Result<(Vec<usize>, Vec<u8>), String> {
    let array = parse(bytes)?;
    match array.of_type {
        "|u1" => Ok((array.sizes, array.data.to_vec())),
        "<f4" => {
            let (values, sizes) = (array.floats(), array.sizes);
            let (least, most) = values.iter().fold((f32::MAX, f32::MIN), |(a, b), &x| (a.min(x), b.max(x)));
            let (scale, shift) = match () {
                () if values.iter().any(|x| !x.is_finite()) => return Err("some of its elements are not finite".into()),
                () if least >= 0.0 && most <= 1.0 => (255.0, 0.0),
                () if least >= -1.0 && most <= 1.0 => (127.5, 127.5),
                () if least >= 0.0 && most <= 255.0 => (1.0, 0.0),
                () => return Err(format!("its elements are from {least} to {most}, not from 0 or -1 to 1, or to 255")),
            };
            let range = if shift > 0.0 {
                "from -1 to 1"
            } else if scale > 1.0 {
                "from 0 to 1"
            } else {
                "from 0 to 255"
            };
            notes.push(format!("the pixels of {sizes:?} are read as {range}"));
            Ok((sizes, values.into_iter().map(|x| (x * scale + shift).round() as u8).collect()))
        }
        other => Err(format!("its elements are of the type {other}")),
    }
}

/// One class for each of `count` images, of an NPY file.
///
/// # Errors
/// As [`images`].
pub fn labels(bytes: &[u8], count: usize) -> Result<Vec<u8>, String> {
    let Array { sizes, of_type, data } = parse(bytes)?;
    if !matches!(sizes[..], [found] | [found, 1] if found == count) {
        return Err(format!("its array has the shape {sizes:?}, and there are {count} images"));
    }
    let width = match of_type {
        "|u1" | "|i1" => 1,
        "<u2" | "<i2" => 2,
        "<u4" | "<i4" => 4,
        "<u8" | "<i8" => 8,
        other => return Err(format!("its elements are of the type {other}")),
    };
    let is_small = |label: &[u8]| label[1..].iter().all(|byte| *byte == 0) && (of_type != "|i1" || label[0] < 128);
    let label =
        |label: &[u8]| is_small(label).then_some(label[0]).ok_or_else(|| "a label is not from 0 to 255".to_string());
    data.chunks_exact(width).map(label).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::fs;

    /// An NPY file.
    pub fn file(of_type: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{of_type}', 'fortran_order': False, 'shape': {shape}, }}\n");
        [MAGIC, &[1, 0], &(header.len() as u16).to_le_bytes(), header.as_bytes(), data].concat()
    }

    fn floats(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|x| x.to_le_bytes()).collect()
    }

    #[test]
    fn a_data_set_is_found_from_its_images() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("x_train.npy"), file("|u1", "(2, 2, 1, 3)", &(0..12).collect::<Vec<u8>>())).unwrap();
        fs::write(at("y_train.npy"), file("<i8", "(2,)", &[7, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0])).unwrap();
        fs::write(at("x_test.npy"), file("<f4", "(1, 2, 1, 3)", &floats(&[0.0, 1.0, 0.5, 0.0, 0.0, 1.0]))).unwrap();
        let path = in_folder(dir.path()).unwrap();
        assert_eq!(path, at("x_train.npy"));
        let data = load(&path, "mine".into()).unwrap();
        // Channels stand behind the pixels in the file.
        assert_eq!(data.train.images, [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
        assert_eq!(data.train.labels, Some(vec![7, 1]));
        assert_eq!(data.test.unwrap().images, [0, 0, 255, 0, 128, 255]);
        assert_eq!(data.notes, ["the pixels of [1, 2, 1, 3] are read as from 0 to 1"]);
        fs::write(at("x_test.npy"), file("|u1", "(1, 2, 1)", &[1, 2])).unwrap();
        let request = crate::train::data::Request::Path(dir.path().into());
        let error = crate::train::data::load(&request, &Default::default(), &mut |_| {}).unwrap_err().to_string();
        assert!(error.ends_with("the training images are 2×1 RGB, but the test images are 2×1 grey"), "{error}");
        fs::write(at("y_train.npy"), file("|u1", "(3,)", &[1, 2, 3])).unwrap();
        let error = load(&path, "mine".into()).unwrap_err().to_string();
        assert!(error.contains("y_train.npy: its array has the shape [3], and there are 2 images; "), "{error}");
    }

    #[test]
    fn the_range_of_pixels_is_found() {
        let of = |values: &[f32]| {
            let mut notes = Vec::new();
            images(&file("<f4", &format!("(1, 1, {})", values.len()), &floats(values)), &mut notes).map(|(_, p)| p)
        };
        assert_eq!(of(&[0.0, 1.0, 0.2]).unwrap(), [0, 255, 51]);
        assert_eq!(of(&[-1.0, 1.0, 0.0]).unwrap(), [0, 255, 128]);
        assert_eq!(of(&[0.0, 254.6, 2.0]).unwrap(), [0, 255, 2]);
        assert!(of(&[0.0, 256.0]).unwrap_err().contains("from 0 to 256"));
        assert!(of(&[0.0, f32::NAN]).unwrap_err().contains("not finite"));
    }

    #[test]
    fn what_is_wrong_is_told() {
        let cases = [
            (file("|u1", "(2, 1, 3)", &[0; 5]), "5 bytes of elements"),
            (file("|u1", "(99999999999, 99999999999, 3)", &[0; 5]), "5 bytes of elements"),
            (file("|u1", "(2, x)", &[0; 5]), "names no shape"),
            (file("<f8", "(1, 1, 1)", &[0; 8]), "the type <f8"),
            (file("|O", "(1, 1, 1)", &[0; 8]), "the type |O"),
            (file("|u1", "(2, 1, 1)", &[0; 2])[..20].to_vec(), "ends within its header"),
            (MAGIC.to_vec(), "not known"),
            (b"P5".to_vec(), "no NPY file"),
        ];
        for (bytes, problem) in cases {
            let error = images(&bytes, &mut Vec::new()).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
        let wide = file("<i4", "(2,)", &[1, 0, 0, 0, 0, 1, 0, 0]);
        assert!(labels(&wide, 2).unwrap_err().contains("0 to 255"));
        assert!(labels(&file("|i1", "(1, 1)", &[255]), 1).is_err());
        assert_eq!(labels(&file("<u2", "(1, 1)", &[255, 0]), 1).unwrap(), [255]);
    }
}
