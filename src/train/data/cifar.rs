//! CIFAR-10's binary version: records of a label and 32×32 RGB pixels, the three channels one after the other (Krizhevsky,
//! "Learning Multiple Layers of Features from Tiny Images", 2009; the format is on the data set's page,
//! <https://www.cs.toronto.edu/~kriz/cifar.html>).

use super::{Dataset, Source, Split};
use crate::atomic;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

const SIDE: usize = 32;
const CHANNELS: usize = 3;
const PIXELS: usize = CHANNELS * SIDE * SIDE;
const CLASSES: u8 = 10;
/// The names of the classes, a line each.
const NAMES: &str = "batches.meta.txt";

/// A file that could not be used, and why.
#[derive(Debug, Error)]
pub enum CifarError {
    #[error("{file} cannot be read: {error}", file = .file.display())]
    Read { file: PathBuf, error: io::Error },
    #[error(
        "{file} has {bytes} bytes: CIFAR-10's binary version has {} for each image, a label and 32×32 RGB pixels",
        1 + PIXELS, file = .file.display()
    )]
    Length { file: PathBuf, bytes: usize },
    #[error("{file}: image {image} has the label {label}, and CIFAR-10 has those from 0 to 9", file = .file.display())]
    Label { file: PathBuf, image: usize, label: u8 },
}

/// The files for training in a folder, in their order; empty where it is another folder. The archive's own folder within
/// counts too.
pub fn batches(dir: &Path) -> Vec<PathBuf> {
    let of = |dir: &Path| -> Vec<PathBuf> {
        (1..=5).map(|i| dir.join(format!("data_batch_{i}.bin"))).filter(|path| path.is_file()).collect()
    };
    let found = of(dir);
    if found.is_empty() { of(&dir.join("cifar-10-batches-bin")) } else { found }
}

/// Whether a single file is one of the set, by its name.
pub fn is_batch(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "bin")
}

/// The data set of some files, with the test images beside them.
///
/// # Errors
/// When a file cannot be read, or is no such file.
pub fn load(path: &Path, files: &[PathBuf], name: String) -> Result<Dataset, CifarError> {
    let train = split(files)?;
    let dir = files.first().and_then(|file| file.parent()).unwrap_or(path);
    let test = dir.join("test_batch.bin");
    let test = (path.is_dir() && test.is_file()).then(|| split(&[test])).transpose()?;
    let names = atomic::read(&dir.join(NAMES)).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let names = names.map(|text| text.lines().map(str::trim).filter(|l| !l.is_empty()).map(String::from).collect());
    let classes = names.filter(|names: &Vec<String>| names.len() == usize::from(CLASSES));
    let why = format!("CIFAR-10 images in {}", path.display());
    Ok(Dataset {
        name,
        source: Source::Given(path.to_owned()),
        why,
        classes,
        notes: Vec::new(),
        unlabelled: None,
        train,
        test,
    })
}

fn split(files: &[PathBuf]) -> Result<Split, CifarError> {
    let (mut images, mut labels) = (Vec::new(), Vec::new());
    for file in files {
        let bytes = atomic::read(file).map_err(|error| CifarError::Read { file: file.clone(), error })?;
        let (records, rest) = bytes.as_chunks::<{ 1 + PIXELS }>();
        if records.is_empty() || !rest.is_empty() {
            return Err(CifarError::Length { file: file.clone(), bytes: bytes.len() });
        }
        for (image, [label, pixels @ ..]) in records.iter().enumerate() {
            if *label >= CLASSES {
                return Err(CifarError::Label { file: file.clone(), image, label: *label });
            }
            labels.push(*label);
            images.extend_from_slice(pixels);
        }
    }
    Ok(Split { images, labels: Some(labels), channels: CHANNELS, rows: SIDE, columns: SIDE })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn records(labels: &[u8]) -> Vec<u8> {
        labels
            .iter()
            .flat_map(|&label| std::iter::once(label).chain((0..PIXELS).map(move |i| (i / 1024) as u8 * 9 + label)))
            .collect()
    }

    #[test]
    fn batches_and_names_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("cifar-10-batches-bin");
        fs::create_dir(&inner).unwrap();
        assert!(batches(dir.path()).is_empty());
        for (name, labels) in [("data_batch_2.bin", &[3][..]), ("data_batch_1.bin", &[0, 9]), ("test_batch.bin", &[5])]
        {
            fs::write(inner.join(name), records(labels)).unwrap();
        }
        let names: Vec<String> = (0..10).map(|i| format!("class {i}")).collect();
        fs::write(inner.join(NAMES), names.join("\n") + "\n\n").unwrap();
        let data = load(dir.path(), &batches(dir.path()), "mine".into()).unwrap();
        assert_eq!(data.train.labels, Some(vec![0, 9, 3]));
        let pixel = |image: usize, channel: usize| data.train.images[image * PIXELS + channel * 1024 + 7];
        assert_eq!([pixel(0, 0), pixel(1, 1), pixel(2, 2)], [0, 18, 21]);
        assert_eq!(data.test.unwrap().labels, Some(vec![5]));
        assert_eq!(data.classes, Some(names));
    }

    #[test]
    fn other_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let told = |bytes: &[u8]| {
            let file = dir.path().join("data_batch_1.bin");
            fs::write(&file, bytes).unwrap();
            load(dir.path(), &[file], "mine".into()).unwrap_err().to_string()
        };
        assert!(told(&[]).contains("data_batch_1.bin has 0 bytes: "));
        assert!(told(&records(&[1])[1..]).contains("has 3072 bytes"));
        assert!(told(&records(&[1, 10])).contains("image 1 has the label 10"));
    }
}
