//! The IDX format of the MNIST files, plain or gzip-compressed.
//!
//! A file is: two zero bytes, a byte for the element type, a byte for the number of dimensions, each dimension as a
//! big-endian u32, then the elements in row-major order (described on the MNIST page,
//! <http://yann.lecun.com/exdb/mnist/>). The MNIST family has unsigned bytes (type 0x08); every other type is read too.
//!
//! The header is untrusted. Nothing is allocated by what it says: elements are read as they come, at most one more
//! than it promises, so a file of a few bytes cannot claim a terabyte, and a gzip file cannot expand past its header.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use thiserror::Error;

use super::elements::{Elements, Kind};

/// The most bytes of elements that a file may announce: 1 GiB, twenty times the MNIST training images.
pub const MAX_BYTES: u64 = 1 << 30;

/// The content of an IDX file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idx {
    /// Sizes, outermost first: `[n]` for labels, `[n, rows, columns]` for images. None is zero.
    pub dims: Vec<usize>,
    /// The elements in row-major order, exactly as many as the product of `dims`: pixels or labels.
    pub data: Vec<u8>,
    /// The range that pixels which are no whole numbers are read as.
    pub range: Option<&'static str>,
}

/// What a file is supposed to hold, which decides how many dimensions it must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// `[n, rows, columns]`, or with channels `[n, channels, rows, columns]` or `[n, rows, columns, channels]`, or
    /// `[n, pixels]`; any number of other sizes that are 1.
    Images,
    /// `[n]`, also followed by sizes that are 1.
    Labels,
}

impl Content {
    /// Whether it may have so many dimensions.
    pub fn has_rank(self, rank: u8) -> bool {
        match self {
            Content::Images => rank >= 2,
            Content::Labels => rank >= 1,
        }
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Content::Images => "images (2 dimensions or more)",
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
    /// Elements that are no pixels or no labels.
    #[error("cannot be used: {0}")]
    Elements(String),
    /// An IDX file of something else, for instance labels where images belong.
    #[error("has {found} dimension(s), but {expected} were expected")]
    Rank {
        /// What the file should hold.
        expected: Content,
        /// The dimensions it has.
        found: u8,
    },
    /// Images of other than 1 or 3 channels.
    #[error(
        "has images of the sizes {dims:?}: [count, rows, columns], with 1 or 3 channels before or behind these, or [count, pixels] were expected"
    )]
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
    #[error("announces the sizes {dims:?}, more than the {MAX_BYTES} bytes supported")]
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
    let (kind, width) = element_type(element).ok_or(Problem::Magic { found: magic })?;
    if !content.has_rank(rank) {
        return Err(Problem::Rank { expected: content, found: rank });
    }
    let dims = (0..usize::from(rank))
        .map(|i| header(&mut source, 4 + 4 * i, failed).map(u32::from_be_bytes))
        .collect::<Result<Vec<u32>, _>>()?;
    if dims.contains(&0) {
        return Err(Problem::Empty { dims });
    }
    if content == Content::Labels && dims[1..].iter().any(|&dim| dim != 1) {
        return Err(Problem::Rank { expected: content, found: rank });
    }
    let total =
        (dims.iter()).try_fold(width as u64, |total, &dim| total.checked_mul(dim.into()).filter(|&t| t <= MAX_BYTES));
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
            let dims = dims.into_iter().map(|d| d as usize).collect();
            if (kind, width) == (Kind::Unsigned, 1) {
                data.shrink_to_fit();
                return Ok(Idx { dims, data, range: None });
            }
            let elements = Elements::new(kind, width, true, &data).ok_or(Problem::Magic { found: magic })?;
            let (data, range) = match content {
                Content::Images => elements.pixels(),
                Content::Labels => elements.labels().map(|labels| (labels, None)),
            }
            .map_err(Problem::Elements)?;
            Ok(Idx { dims, data, range })
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

/// The element types of the format, with their bytes.
fn element_type(code: u8) -> Option<(Kind, usize)> {
    Some(match code {
        0x08 => (Kind::Unsigned, 1),
        0x09 => (Kind::Signed, 1),
        0x0b => (Kind::Signed, 2),
        0x0c => (Kind::Signed, 4),
        0x0d => (Kind::Float, 4),
        0x0e => (Kind::Float, 8),
        _ => return None,
    })
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
        let expected = Idx { dims: vec![2, 3, 4], data: (0..24).collect(), range: None };
        assert_eq!(parse(&images()[..], Content::Images, "f").unwrap(), expected);
        assert_eq!(parse(&gzip(&images())[..], Content::Images, "f").unwrap(), expected);
        let labels = file([0, 0, 8, 1], &[3], &[7, 0, 9]);
        assert_eq!(parse(&labels[..], Content::Labels, "f").unwrap().data, [7, 0, 9]);
    }

    #[test]
    fn every_type_and_rank_is_read() {
        let of = |code: u8, dims: &[u32], data: &[u8], content| {
            let read = parse(&file([0, 0, code, dims.len() as u8], dims, data)[..], content, "f").unwrap();
            (read.dims, read.data, read.range)
        };
        let bytes = |words: &[i16]| words.iter().flat_map(|w| w.to_be_bytes()).collect::<Vec<u8>>();
        assert_eq!(of(0x09, &[1, 2], &[0, 127], Content::Images), (vec![1, 2], vec![0, 127], None));
        assert_eq!(of(0x0b, &[1, 1, 2, 1, 1], &bytes(&[0, 255]), Content::Images).1, [0, 255]);
        assert_eq!(of(0x0c, &[2, 1], &[0, 0, 0, 3, 0, 0, 0, 250], Content::Labels).1, [3, 250]);
        let floats: Vec<u8> = [0.0f32, 1.0].iter().flat_map(|x| x.to_be_bytes()).collect();
        assert_eq!(of(0x0d, &[1, 1, 2], &floats, Content::Images).1, [0, 255]);
        let doubles: Vec<u8> = [-1.0f64, 1.0].iter().flat_map(|x| x.to_be_bytes()).collect();
        assert_eq!(of(0x0e, &[1, 1, 2], &doubles, Content::Images).2, Some("from -1 to 1"));
        let table = file([0, 0, 8, 2], &[2, 2], &[0; 4]);
        let error = parse(&table[..], Content::Labels, "f").unwrap_err().to_string();
        assert!(error.contains("has 2 dimension(s), but labels"), "{error}");
    }

    #[test]
    fn every_malformed_file_is_told_apart() {
        let cases: Vec<(&str, Vec<u8>)> = vec![
            ("empty", vec![]),
            ("short magic", vec![0, 0, 8]),
            ("short sizes", images()[..14].to_vec()),
            ("text", b"<html>".to_vec()),
            ("unknown type", file([0, 0, 7, 3], &[1, 1, 1], &[0])),
            ("floats", file([0, 0, 0x0d, 3], &[1, 1, 1], &[0xff; 4])),
            ("whole numbers", file([0, 0, 0x0b, 3], &[1, 1, 1], &[1, 0])),
            ("floats truncated", file([0, 0, 0x0d, 3], &[1, 1, 1], &[0; 3])),
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
