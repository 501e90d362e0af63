//! Arrays as `numpy.save` writes them ("NEP 1: A Simple File Format for NumPy Arrays"), and data sets of them.
//!
//! Nothing is allocated by what a header says: the elements are what follows it in the file, and must be as many.

use super::elements::{Elements, Kind};
use super::planes::channels_first;
use super::{Dataset, Source, Split, Wanted};
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
                      width, or [count, pixels], that numpy.save wrote, of whole numbers from 0 to 255, or of floats \
                      from 0 or -1 to 1, or to 255";
const LABELS: &str = "an array [count] of whole numbers from 0 to 255 that numpy.save wrote, one for each image";

/// An array in a file's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Array<'b> {
    pub sizes: Vec<usize>,
    /// As numpy writes it: `<f4` are float32, least significant byte first.
    pub of_type: &'b str,
    /// Whether the first index is the fastest, not the last.
    pub is_fortran: bool,
    /// The elements.
    pub data: &'b [u8],
}

impl<'b> Array<'b> {
    /// The elements, in the order of the file.
    ///
    /// # Errors
    /// When they are of a type that no pixels or labels have.
    pub fn elements(&self) -> Result<Elements<'b>, String> {
        let kind = match self.of_type.get(1..2) {
            Some("u") => Some(Kind::Unsigned),
            Some("i") => Some(Kind::Signed),
            Some("f") => Some(Kind::Float),
            _ => None,
        };
        let width = self.of_type.get(2..).and_then(|width| width.parse().ok());
        let of = |(kind, width)| Elements::new(kind, width, self.of_type.starts_with('>'), self.data);
        kind.zip(width).and_then(of).ok_or_else(|| format!("its elements are of the type {}", self.of_type))
    }

    /// Values that are in the order of the file, one for each element, with the last index the fastest.
    pub fn in_order(&self, values: Vec<u8>) -> Vec<u8> {
        if !self.is_fortran {
            return values;
        }
        let step = |d: usize| self.sizes[..d].iter().product();
        let steps: Vec<usize> = (0..self.sizes.len()).map(step).collect();
        let (mut index, mut at) = (vec![0; self.sizes.len()], 0);
        let mut turned = Vec::with_capacity(values.len());
        for _ in 0..values.len() {
            turned.push(values[at]);
            for d in (0..index.len()).rev() {
                index[d] += 1;
                at += steps[d];
                if index[d] < self.sizes[d] {
                    break;
                }
                at -= steps[d] * self.sizes[d];
                index[d] = 0;
            }
        }
        turned
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
    let is_fortran = match field("fortran_order") {
        Some(value) if value.starts_with("False") => false,
        Some(value) if value.starts_with("True") => true,
        _ => return Err("its header does not say in which order its elements are".into()),
    };
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
    Ok(Array { sizes, of_type, is_fortran, data })
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
/// `wanted` is what a program takes, which decides how pixels in a row lie.
///
/// # Errors
/// When a file cannot be read, or does not hold what it should.
pub fn load(path: &Path, name: String, wanted: Option<Wanted>) -> Result<Dataset, NpyError> {
    let mut notes = Vec::new();
    let train = split(path, wanted, &mut notes)?;
    let test = beside(path, &[("train", "test"), ("train", "val")]);
    let test = test.map(|file| split(&file, wanted, &mut notes)).transpose()?;
    notes.dedup();
    let why = format!("images in {}", path.display());
    Ok(Dataset {
        name,
        source: Source::Given(path.to_owned()),
        why,
        classes: None,
        notes,
        unlabelled: None,
        train,
        test,
    })
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

fn split(path: &Path, wanted: Option<Wanted>, notes: &mut Vec<String>) -> Result<Split, NpyError> {
    let read = |file: &Path| atomic::read(file).map_err(|error| NpyError::Read { file: file.to_owned(), error });
    let bytes = read(path)?;
    let wrong = |problem| NpyError::Content { file: path.to_owned(), problem, expected: IMAGES };
    let (sizes, pixels) = images(&bytes, notes).map_err(wrong)?;
    let (count, size, images) =
        channels_first(&sizes, pixels, wanted).ok_or_else(|| wrong(format!("its array has the shape {sizes:?}")))?;
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
    let (pixels, range) = array.elements()?.pixels()?;
    let pixels = array.in_order(pixels);
    if let Some(range) = range {
        notes.push(format!("the pixels of {:?} are read as {range}", array.sizes));
    }
    Ok((array.sizes, pixels))
}

/// One class for each of `count` images, of an NPY file.
///
/// # Errors
/// As [`images`].
pub fn labels(bytes: &[u8], count: usize) -> Result<Vec<u8>, String> {
    let array = parse(bytes)?;
    if !matches!(array.sizes[..], [found] | [found, 1] if found == count) {
        return Err(format!("its array has the shape {:?}, and there are {count} images", array.sizes));
    }
    array.elements()?.labels()
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
        let data = load(&path, "mine".into(), None).unwrap();
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
        let error = load(&path, "mine".into(), None).unwrap_err().to_string();
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

    /// What `numpy.save(file, numpy.asfortranarray(x))` writes is read as `x`.
    #[test]
    fn other_types_and_orders_are_read() {
        let of = |bytes: &[u8]| images(bytes, &mut Vec::new()).unwrap();
        assert_eq!(of(&file(">i2", "(1, 1, 2)", &[0, 7, 0, 255])), (vec![1, 1, 2], vec![7, 255]));
        let doubles: Vec<u8> = [0.0f64, 1.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(of(&file("<f8", "(1, 1, 2)", &doubles)).1, [0, 255]);
        // Two images of two rows and three columns, from 0 to 11 in the order of C.
        let turned = [0, 6, 3, 9, 1, 7, 4, 10, 2, 8, 5, 11];
        let bytes = file("|u1", "(2, 2, 3)", &turned);
        let at = bytes.windows(5).position(|w| w == b"False").unwrap();
        let fortran = [&bytes[..at], b"True ", &bytes[at + 5..]].concat();
        assert_eq!(of(&fortran), (vec![2, 2, 3], (0..12).collect::<Vec<u8>>()));
    }

    #[test]
    fn what_is_wrong_is_told() {
        let cases = [
            (file("|u1", "(2, 1, 3)", &[0; 5]), "5 bytes of elements"),
            (file("|u1", "(99999999999, 99999999999, 3)", &[0; 5]), "5 bytes of elements"),
            (file("|u1", "(2, x)", &[0; 5]), "names no shape"),
            (file("<f16", "(1, 1, 1)", &[0; 16]), "the type <f16"),
            (file("<c8", "(1, 1, 1)", &[0; 8]), "the type <c8"),
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
        assert!(labels(&wide, 2).unwrap_err().contains("a label is 256, not"));
        assert!(labels(&file("|i1", "(1, 1)", &[255]), 1).is_err());
        assert_eq!(labels(&file("<u2", "(1, 1)", &[255, 0]), 1).unwrap(), [255]);
    }
}
