//! The IDX format of the MNIST files, plain or gzip-compressed.
//!
//! A file is: two zero bytes, a byte for the element type, a byte for the number of dimensions, each dimension as a
//! big-endian u32, then the elements in row-major order (described on the MNIST page,
//! <http://yann.lecun.com/exdb/mnist/>). Only unsigned bytes (type 0x08) are read: the MNIST family has no other.
//!
//! The header is untrusted. Nothing is allocated by what it says: elements are read as they come, at most one more
//! than it promises, so a file of a few bytes cannot claim a terabyte, and a gzip file cannot expand past its header.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use thiserror::Error;

/// The most elements a file may announce: 1 GiB, twenty times the MNIST training images.
pub const MAX_ELEMENTS: u64 = 1 << 30;

/// The element type "unsigned byte".
const UNSIGNED_BYTE: u8 = 0x08;

/// The content of an IDX file of unsigned bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idx {
    /// Sizes, outermost first: `[n]` for labels, `[n, rows, columns]` for images. None is zero.
    pub dims: Vec<usize>,
    /// The elements in row-major order, exactly as many as the product of `dims`.
    pub data: Vec<u8>,
}

/// What a file is supposed to hold, which decides how many dimensions it must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// `[n, rows, columns]`, or with channels `[n, channels, rows, columns]` or `[n, rows, columns, channels]`.
    Images,
    /// `[n]`.
    Labels,
}

impl Content {
    /// Whether it may have so many dimensions.
    pub fn has_rank(self, rank: u8) -> bool {
        match self {
            Content::Images => matches!(rank, 3 | 4),
            Content::Labels => rank == 1,
        }
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Content::Images => "images (3 dimensions, or 4 with channels)",
            Content::Labels => "labels (1 dimension)",
        })
    }
}

/// A file that could not be used, and why.
#[derive(Debug, Error)]
#[error("{file}: {problem}")]
pub struct IdxError {
    /// The file as the user knows it.
    pub file: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What can be wrong with an IDX file.
#[derive(Debug, Error)]
pub enum Problem {
    /// The system could not open or read it.
    #[error("cannot be read: {0}")]
    Io(io::Error),
    /// The compressed stream is damaged: bad data, a checksum that does not match, or an early end.
    #[error("the gzip data is damaged ({0}): get the file again")]
    Gzip(io::Error),
    /// The file ends inside its header.
    #[error("ends inside its header: {expected} bytes expected, {found} found")]
    ShortHeader {
        /// Bytes the header has.
        expected: usize,
        /// Bytes the file has.
        found: usize,
    },
    /// Not an IDX file.
    #[error(
        "is not an IDX file: it begins with {found:02x?}, and 00 00 08 03 (images) or 00 00 08 01 (labels) was expected"
    )]
    Magic {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// An IDX file of another element type.
    #[error("holds elements of type 0x{found:02x} ({}): only unsigned bytes (0x08) are supported", type_name(*.found))]
    ElementType {
        /// The type byte.
        found: u8,
    },
    /// An IDX file of something else, for instance labels where images belong.
    #[error("has {found} dimension(s), but {expected} were expected")]
    Rank {
        /// What the file should hold.
        expected: Content,
        /// The dimensions it has.
        found: u8,
    },
    /// Images of other than 1 or 3 channels.
    #[error("has images of the sizes {dims:?}: 1 or 3 channels were expected, before or behind rows and columns")]
    Channels {
        /// The sizes.
        dims: Vec<usize>,
    },
    /// A dimension is zero.
    #[error("announces the sizes {dims:?}: none may be zero")]
    Empty {
        /// The announced sizes.
        dims: Vec<u32>,
    },
    /// The announced size is absurd.
    #[error("announces the sizes {dims:?}, more than the {MAX_ELEMENTS} bytes supported")]
    TooLarge {
        /// The announced sizes.
        dims: Vec<u32>,
    },
    /// Fewer elements than announced.
    #[error("is truncated: its header announces {dims:?} = {expected} bytes, but {found} follow")]
    Truncated {
        /// The announced sizes.
        dims: Vec<u32>,
        /// Their product.
        expected: usize,
        /// The elements that are there.
        found: usize,
    },
    /// More than announced.
    #[error("has bytes after its end: its header announces {dims:?} = {expected} bytes, but more follow")]
    Trailing {
        /// The announced sizes.
        dims: Vec<u32>,
        /// Their product.
        expected: usize,
    },
}

/// Reads the file at `path`, which may be compressed or not: its first bytes tell, not its name.
pub fn read(path: &Path, content: Content) -> Result<Idx, IdxError> {
    let file = path.display().to_string();
    match crate::atomic::check_ordinary(path).and_then(|()| File::open(path)) {
        Ok(handle) => parse(BufReader::new(handle), content, &file),
        Err(error) => Err(IdxError { file, problem: Problem::Io(error) }),
    }
}

/// Reads an IDX file, compressed or not, from `source`; `file` names it in errors.
pub fn parse(mut source: impl io::BufRead, content: Content, file: &str) -> Result<Idx, IdxError> {
    let result = match source.fill_buf() {
        Err(error) => Err(Problem::Io(error)),
        Ok([0x1f, 0x8b, ..]) => decode(MultiGzDecoder::new(source), content, Problem::Gzip),
        Ok(_) => decode(source, content, Problem::Io),
    };
    result.map_err(|problem| IdxError { file: file.to_owned(), problem })
}

/// Reads the uncompressed format; `failed` says what an error of `source` means.
fn decode(mut source: impl Read, content: Content, failed: fn(io::Error) -> Problem) -> Result<Idx, Problem> {
    let magic: [u8; 4] = header(&mut source, 0, failed)?;
    let [0, 0, element, rank] = magic else { return Err(Problem::Magic { found: magic }) };
    if type_name(element) == "unknown" {
        return Err(Problem::Magic { found: magic });
    }
    if element != UNSIGNED_BYTE {
        return Err(Problem::ElementType { found: element });
    }
    if !content.has_rank(rank) {
        return Err(Problem::Rank { expected: content, found: rank });
    }
    let dims = (0..usize::from(rank))
        .map(|i| header(&mut source, 4 + 4 * i, failed).map(u32::from_be_bytes))
        .collect::<Result<Vec<u32>, _>>()?;
    if dims.contains(&0) {
        return Err(Problem::Empty { dims });
    }
    let total = dims.iter().try_fold(1u64, |total, &dim| total.checked_mul(dim.into()).filter(|&t| t <= MAX_ELEMENTS));
    let Some(total) = total else { return Err(Problem::TooLarge { dims }) };
    // At most 2^30, so it fits everywhere.
    let expected = total as usize;

    let mut data = Vec::new();
    // One byte more than announced, to notice what follows; it also reaches the gzip checksum, which is only compared
    // at the end of the stream.
    source.take(total + 1).read_to_end(&mut data).map_err(failed)?;
    match data.len() {
        found if found < expected => Err(Problem::Truncated { dims, expected, found }),
        found if found > expected => Err(Problem::Trailing { dims, expected }),
        _ => {
            data.shrink_to_fit();
            Ok(Idx { dims: dims.into_iter().map(|d| d as usize).collect(), data })
        }
    }
}

/// The four bytes of the header at `offset`.
fn header(source: &mut impl Read, offset: usize, failed: fn(io::Error) -> Problem) -> Result<[u8; 4], Problem> {
    let mut bytes = [0; 4];
    let mut filled = 0;
    while filled < 4 {
        match source.read(&mut bytes[filled..]) {
            Ok(0) => return Err(Problem::ShortHeader { expected: offset + 4, found: offset + filled }),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(bytes)
}

/// The element types of the format.
fn type_name(element: u8) -> &'static str {
    match element {
        0x08 => "unsigned byte",
        0x09 => "signed byte",
        0x0b => "16-bit integer",
        0x0c => "32-bit integer",
        0x0d => "32-bit float",
        0x0e => "64-bit float",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;
    use std::io::Write;

    fn file(magic: [u8; 4], dims: &[u32], data: &[u8]) -> Vec<u8> {
        let mut bytes = magic.to_vec();
        dims.iter().for_each(|d| bytes.extend(d.to_be_bytes()));
        bytes.extend(data);
        bytes
    }

    fn images() -> Vec<u8> {
        file([0, 0, 8, 3], &[2, 3, 4], &(0..24).collect::<Vec<u8>>())
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn error(bytes: &[u8]) -> String {
        parse(bytes, Content::Images, "f.gz").unwrap_err().to_string()
    }

    #[test]
    fn reads_plain_and_compressed() {
        let expected = Idx { dims: vec![2, 3, 4], data: (0..24).collect() };
        assert_eq!(parse(&images()[..], Content::Images, "f").unwrap(), expected);
        assert_eq!(parse(&gzip(&images())[..], Content::Images, "f").unwrap(), expected);
        let labels = file([0, 0, 8, 1], &[3], &[7, 0, 9]);
        assert_eq!(parse(&labels[..], Content::Labels, "f").unwrap(), Idx { dims: vec![3], data: vec![7, 0, 9] });
    }

    #[test]
    fn every_malformed_file_is_told_apart() {
        let cases: Vec<(&str, Vec<u8>)> = vec![
            ("empty", vec![]),
            ("short magic", vec![0, 0, 8]),
            ("short sizes", images()[..14].to_vec()),
            ("text", b"<html>".to_vec()),
            ("unknown type", file([0, 0, 7, 3], &[1, 1, 1], &[0])),
            ("floats", file([0, 0, 0x0d, 3], &[1, 1, 1], &[0; 4])),
            ("labels", file([0, 0, 8, 1], &[1], &[0])),
            ("zero size", file([0, 0, 8, 3], &[0, 28, 28], &[])),
            ("absurd sizes", file([0, 0, 8, 3], &[u32::MAX; 3], &[0])),
            ("truncated", images()[..30].to_vec()),
            ("trailing", [&images()[..], &[0]].concat()),
            ("compressed truncated", gzip(&images()[..30])),
            ("compressed trailing", gzip(&[&images()[..], &[0; 100]].concat())),
            ("gzip cut", gzip(&images())[..30].to_vec()),
            ("gzip magic alone", vec![0x1f, 0x8b]),
            ("gzip junk after", [&gzip(&images())[..], b"junk"].concat()),
            ("gzip checksum", {
                let mut bytes = gzip(&images());
                let crc = bytes.len() - 8;
                bytes[crc] ^= 1;
                bytes
            }),
        ];
        let report: Vec<String> = cases.iter().map(|(name, bytes)| format!("{name}: {}", error(bytes))).collect();
        insta::assert_snapshot!(report.join("\n"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = read(Path::new("no/such/file"), Content::Images).unwrap_err().to_string();
        assert!(error.starts_with("no/such/file: cannot be read: "), "{error}");
    }

    /// A gzip stream of 64 MiB of zeros behind a header that announces 24 bytes: reading must stop at once.
    #[test]
    fn a_decompression_bomb_is_not_expanded() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&images()[..16]).unwrap();
        let zeros = vec![0; 1 << 20];
        for _ in 0..64 {
            encoder.write_all(&zeros).unwrap();
        }
        let bomb = encoder.finish().unwrap();
        let read = std::cell::Cell::new(0);
        struct Counting<'a>(&'a [u8], &'a std::cell::Cell<usize>);
        impl Read for Counting<'_> {
            fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
                let count = self.0.read(out)?;
                self.1.set(self.1.get() + count);
                Ok(count)
            }
        }
        let source = BufReader::with_capacity(512, Counting(&bomb, &read));
        let problem = parse(source, Content::Images, "bomb").unwrap_err().problem;
        assert!(matches!(problem, Problem::Trailing { expected: 24, .. }), "{problem}");
        assert!(read.get() <= bomb.len() / 10, "{} of {} bytes were read", read.get(), bomb.len());
    }

    /// What a header announces decides no allocation.
    #[test]
    fn a_large_announcement_costs_nothing() {
        let bytes = file([0, 0, 8, 3], &[1 << 10, 1 << 10, 1 << 10], &[1, 2, 3]);
        let problem = parse(&bytes[..], Content::Images, "f").unwrap_err().problem;
        assert!(matches!(problem, Problem::Truncated { expected: 0x4000_0000, found: 3, .. }), "{problem}");
    }

    proptest! {
        #[test]
        fn corrupted_files_never_panic(
            compressed: bool,
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            cut in any::<prop::sample::Index>(),
            truncate: bool,
        ) {
            let mut bytes = if compressed { gzip(&images()) } else { images() };
            for (at, value) in edits {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if truncate {
                bytes.truncate(cut.index(bytes.len()));
            }
            if let Ok(idx) = parse(&bytes[..], Content::Images, "f") {
                prop_assert_eq!(idx.dims.iter().product::<usize>(), idx.data.len());
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes[..], Content::Labels, "f");
        }
    }
}
