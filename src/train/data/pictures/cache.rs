//! Decoded pictures as bytes in the user's cache folder, so that a second start reads them and decodes nothing.
//!
//! There is one file for a folder of pictures and a size. It says what it was made of, in a digest of the names, sizes and
//! times of the files, and is decoded anew where that differs. It is untrusted like any other file: what is cut off,
//! altered or from another version counts as absent.

use std::io::{self, Read, Write};
use std::path::Path;

use flate2::Crc;
use serde::{Deserialize, Serialize};

use super::{Decoded, Summary};
use crate::atomic;
use crate::train::data::fit::ImageSize;

/// Begins a cache file. The number changes with the format, and where pictures are decoded or resized differently.
const MAGIC: &[u8; 20] = b"gcc-gan pictures 1\r\n";

/// The most bytes of what is before the pixels.
const MOST_HEADER: u64 = 1 << 28;

/// What a cache file is made of.
pub(super) type Key = [u8; 32];

/// What is before the pixels.
#[derive(Serialize, Deserialize)]
struct Header {
    size: ImageSize,
    failures: Vec<(usize, String)>,
    summary: Summary,
}

/// Writes a file, all or nothing: magic, key, checksum, length of the header, header, pixels.
pub(super) fn write(path: &Path, key: &Key, size: ImageSize, decoded: &Decoded) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let header = Header { size, failures: decoded.failures.clone(), summary: decoded.summary };
    let header = serde_json::to_vec(&header)?;
    let mut crc = Crc::new();
    crc.update(&header);
    crc.update(&decoded.images);
    atomic::write(path, |out| {
        out.write_all(MAGIC)?;
        out.write_all(key)?;
        out.write_all(&crc.sum().to_le_bytes())?;
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        Write::write_all(out, &decoded.images)
    })
}

/// The pictures of a file that was made of `key`: `count` files as `size`. `None` where it was not, or is damaged.
pub(super) fn read(mut file: impl Read, key: &Key, count: usize, size: ImageSize) -> Option<Decoded> {
    let mut start = [0; 20 + 32 + 4 + 8];
    file.read_exact(&mut start).ok()?;
    let (magic, rest) = start.split_at(20);
    let (made_of, rest) = rest.split_at(32);
    let (checksum, length) = rest.split_at(4);
    let length = u64::from_le_bytes(length.try_into().ok()?);
    if magic != MAGIC || made_of != key || length > MOST_HEADER {
        return None;
    }
    let mut header = Vec::new();
    file.by_ref().take(length).read_to_end(&mut header).ok()?;
    let mut crc = Crc::new();
    crc.update(&header);
    let Header { size: own, failures, summary } = serde_json::from_slice(&header).ok()?;
    // In order and each once, or the labels would belong to other pictures.
    let is_in_order = failures.windows(2).all(|pair| pair[0].0 < pair[1].0);
    if own != size || !is_in_order || failures.last().is_some_and(|(i, _)| *i >= count) {
        return None;
    }
    let bytes = size.bytes().checked_mul(count - failures.len())?;
    let mut images = Vec::new();
    images.try_reserve_exact(bytes).ok()?;
    file.by_ref().take(bytes as u64).read_to_end(&mut images).ok()?;
    crc.update(&images);
    let is_whole = images.len() == bytes && file.read(&mut [0]).ok()? == 0;
    (is_whole && crc.sum().to_le_bytes() == checksum).then_some(Decoded { images, failures, summary })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: ImageSize = ImageSize { channels: 3, rows: 2, columns: 2 };

    fn decoded() -> Decoded {
        let summary = Summary { smallest: [1, 2], largest: [30, 40], ..Summary::default() };
        Decoded { images: (0..24).collect(), failures: vec![(1, "it is empty".into())], summary }
    }

    #[test]
    fn what_was_written_is_read_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/folder/file");
        write(&path, &[7; 32], SIZE, &decoded()).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(read(&bytes[..], &[7; 32], 3, SIZE), Some(decoded()));
        assert_eq!(read(&bytes[..], &[8; 32], 3, SIZE), None);
        assert_eq!(read(&bytes[..], &[7; 32], 4, SIZE), None);
        assert_eq!(read(&bytes[..], &[7; 32], 3, ImageSize { rows: 1, columns: 4, ..SIZE }), None);
        for end in 0..bytes.len() {
            assert_eq!(read(&bytes[..end], &[7; 32], 3, SIZE), None, "{end}");
        }
        for i in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[i] ^= 0x10;
            assert_eq!(read(&damaged[..], &[7; 32], 3, SIZE), None, "{i}");
        }
        assert_eq!(read(&[&bytes[..], &[0]].concat()[..], &[7; 32], 3, SIZE), None);
    }

    #[test]
    fn a_cache_that_cannot_be_written_is_an_error_here() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert!(write(&dir.path().join("file/inside"), &[0; 32], SIZE, &decoded()).is_err());
    }
}
