//! Pictures of 8 bits a channel, still or moving, and the files that hold them.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use image::codecs::gif::{GifEncoder, Repeat};
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::codecs::webp::WebPEncoder;
use image::{Delay, ExtendedColorType, Frame, ImageEncoder, ImageError as DecodeError, ImageReader, Limits, RgbaImage};
use thiserror::Error;

use super::sample_grid::Grid;
use crate::atomic;

/// The largest width or height of a picture, in pixels.
pub const MAX_SIDE: usize = 1 << 15;
/// The largest of a WebP file, whose header has 14 bits for either.
const MAX_WEBP_SIDE: usize = 1 << 14;
/// The most bytes that reading one picture may take.
const MAX_BYTES: u64 = 1 << 32;
/// Of 100; the sharp edges of a grid show at less.
const JPEG_QUALITY: u8 = 95;

/// Why a picture could not be made, written or read.
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
    /// A picture of too many pixels for a scale or a file's format.
    #[error("a picture of {height}×{width} pixels is larger than the {most} a side that {what} can have")]
    Side {
        /// In pixels.
        height: usize,
        /// In pixels.
        width: usize,
        /// The largest.
        most: usize,
        /// What has that limit.
        what: String,
    },
    /// A file name that says nothing of a format that there is.
    #[error("{path} names no format by its end: .png, .jpg, .gif or .webp was expected", path = .0.display())]
    Format(PathBuf),
    /// A file name that says nothing of a format that moves.
    #[error("{path} cannot hold a moving picture: end it in .gif", path = .0.display())]
    Still(PathBuf),
    /// A moving picture of nothing.
    #[error("there are no pictures to put into {path}", path = .0.display())]
    Empty(PathBuf),
    /// Pictures of different sizes in one that moves.
    #[error("the pictures are of two sizes: one has {}×{} pixels, another {}×{}", first.0, first.1, other.0, other.1)]
    Sizes {
        /// Height and width of the first.
        first: (usize, usize),
        /// Height and width of one that differs.
        other: (usize, usize),
    },
    /// The file could not be written.
    #[error("{path} cannot be written: {error}", path = .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file could not be read.
    #[error("{path} cannot be read: {reason}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system or the decoder said.
        reason: String,
    },
}

/// A format of picture files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Without loss.
    Png,
    /// With loss.
    Jpeg,
    /// Up to 256 colours a picture, and it may move. Without loss where there are no more, as in grey pictures.
    Gif,
    /// Without loss.
    WebP,
}

impl Format {
    /// The format that a file's name ends in.
    ///
    /// # Errors
    /// Where it has no ending, or another.
    pub fn of(path: &Path) -> Result<Format, ImageError> {
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
        match ending.as_deref() {
            Some("png") => Ok(Format::Png),
            Some("jpg" | "jpeg") => Ok(Format::Jpeg),
            Some("gif") => Ok(Format::Gif),
            Some("webp") => Ok(Format::WebP),
            _ => Err(ImageError::Format(path.to_owned())),
        }
    }

    /// As [`Format::of`], of a picture that moves.
    ///
    /// # Errors
    /// Where the file's name ends in nothing that moves.
    pub fn check_moving(path: &Path) -> Result<(), ImageError> {
        match Format::of(path) {
            Ok(Format::Gif) => Ok(()),
            _ => Err(ImageError::Still(path.to_owned())),
        }
    }

    /// That its files can hold a picture of a size in pixels.
    ///
    /// # Errors
    /// When they cannot.
    pub fn check_size(self, [height, width]: [usize; 2]) -> Result<(), ImageError> {
        let most = if self == Format::WebP { MAX_WEBP_SIDE - 1 } else { MAX_SIDE };
        if height.max(width) > most {
            return Err(ImageError::Side { height, width, most, what: self.to_string() });
        }
        Ok(())
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Png => "a PNG file",
            Format::Jpeg => "a JPEG file",
            Format::Gif => "a GIF file",
            Format::WebP => "a WebP file",
        })
    }
}

/// A size with `factor` × `factor` pixels for each.
///
/// # Errors
/// When a picture cannot be so large.
pub fn scaled_size([height, width]: [usize; 2], factor: usize) -> Result<[usize; 2], ImageError> {
    let (height, width) = (height.saturating_mul(factor), width.saturating_mul(factor));
    if height.max(width) > MAX_SIDE {
        return Err(ImageError::Side { height, width, most: MAX_SIDE, what: "a picture".into() });
    }
    Ok([height, width])
}

/// A picture of 8 bits a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// In pixels, at most [`MAX_SIDE`].
    pub width: usize,
    /// In pixels, at most [`MAX_SIDE`].
    pub height: usize,
    /// 1 (grey) or 3 (red, green, blue).
    pub channels: usize,
    /// `height × width × channels`.
    pub data: Vec<u8>,
}

impl Picture {
    /// The same with `factor` × `factor` pixels for each, so that every edge stays sharp.
    ///
    /// # Errors
    /// When that has too many pixels.
    pub fn scaled(&self, factor: usize) -> Result<Picture, ImageError> {
        let [height, width] = scaled_size([self.height, self.width], factor)?;
        let mut data = Vec::with_capacity(height * width * self.channels);
        for row in self.data.chunks_exact((self.width * self.channels).max(1)) {
            let start = data.len();
            row.chunks_exact(self.channels).for_each(|pixel| (0..factor).for_each(|_| data.extend_from_slice(pixel)));
            let end = data.len();
            (1..factor).for_each(|_| data.extend_from_within(start..end));
        }
        Ok(Picture { width, height, channels: self.channels, data })
    }

    /// Reads a picture from a file of any [`Format`]; of a moving one the first.
    ///
    /// # Errors
    /// When the file cannot be read, is damaged, or is larger than a picture may be.
    pub fn read(path: &Path) -> Result<Picture, ImageError> {
        let failed = |reason: String| ImageError::Read { path: path.to_owned(), reason };
        atomic::check_ordinary(path).map_err(|error| failed(error.to_string()))?;
        let mut reader = ImageReader::open(path)
            .and_then(ImageReader::with_guessed_format)
            .map_err(|error| failed(error.to_string()))?;
        let mut limits = Limits::default();
        limits.max_image_width = Some(MAX_SIDE as u32);
        limits.max_image_height = Some(MAX_SIDE as u32);
        limits.max_alloc = Some(MAX_BYTES);
        reader.limits(limits);
        let image = reader.decode().map_err(|error| failed(why(&error)))?;
        let (width, height) = (image.width() as usize, image.height() as usize);
        Ok(if image.color().has_color() {
            Picture { width, height, channels: 3, data: image.into_rgb8().into_raw() }
        } else {
            Picture { width, height, channels: 1, data: image.into_luma8().into_raw() }
        })
    }

    /// Writes the picture to a file, all or nothing, in the format that its name ends in; gives the bytes of the file.
    ///
    /// # Errors
    /// When the name ends in no format, the picture is too large for it, or the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<Vec<u8>, ImageError> {
        let format = Format::of(path)?;
        format.check_size([self.height, self.width])?;
        let colour = if self.channels == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
        let (across, down) = (self.width as u32, self.height as u32);
        let mut bytes = Vec::new();
        let encoded = match format {
            Format::Png => PngEncoder::new(&mut bytes).write_image(&self.data, across, down, colour),
            Format::Jpeg => {
                JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY).write_image(&self.data, across, down, colour)
            }
            Format::WebP => WebPEncoder::new_lossless(&mut bytes).write_image(&self.data, across, down, colour),
            Format::Gif => GifEncoder::new(&mut bytes).encode_frame(self.frame(Duration::ZERO)),
        };
        encoded.map_err(|error| written(path, error))?;
        save(path, &bytes)?;
        Ok(bytes)
    }

    fn frame(&self, shown: Duration) -> Frame {
        let opaque = |pixel: &[u8]| match *pixel {
            [red, green, blue] => [red, green, blue, 255],
            _ => [pixel[0], pixel[0], pixel[0], 255],
        };
        let pixels = self.data.chunks_exact(self.channels).flat_map(opaque).collect();
        let image = RgbaImage::from_raw(self.width as u32, self.height as u32, pixels).unwrap_or_default();
        Frame::from_parts(image, 0, 0, Delay::from_saturating_duration(shown))
    }
}

/// Writes pictures of one size to a GIF file that shows them one after the other, again and again; all or nothing. Each
/// comes with the time that it is shown, in hundredths of a second.
///
/// # Errors
/// When a picture is an error or of another size than the first, there is none, or the file cannot be written.
pub fn write_moving<E: From<ImageError>>(
    path: &Path,
    pictures: impl Iterator<Item = Result<(Picture, Duration), E>>,
) -> Result<(), E> {
    Format::check_moving(path)?;
    let mut bytes = Vec::new();
    let mut first = None;
    let mut encoder = GifEncoder::new(&mut bytes);
    encoder.set_repeat(Repeat::Infinite).map_err(|error| written(path, error))?;
    for picture in pictures {
        let (picture, shown) = picture?;
        let size = (picture.height, picture.width);
        if *first.get_or_insert(size) != size {
            return Err(ImageError::Sizes { first: first.unwrap_or(size), other: size }.into());
        }
        encoder.encode_frame(picture.frame(shown)).map_err(|error| written(path, error))?;
    }
    drop(encoder);
    if first.is_none() {
        return Err(ImageError::Empty(path.to_owned()).into());
    }
    Ok(save(path, &bytes)?)
}

fn written(path: &Path, error: image::ImageError) -> ImageError {
    let error = match error {
        image::ImageError::IoError(error) => error,
        other => io::Error::other(other),
    };
    ImageError::Write { path: path.to_owned(), error }
}

fn save(path: &Path, bytes: &[u8]) -> Result<(), ImageError> {
    atomic::write(path, |out| out.write_all(bytes)).map_err(|error| ImageError::Write { path: path.to_owned(), error })
}

/// Why a picture cannot be decoded, in the words of a user: the decoder's own name its types.
pub(super) fn why(error: &DecodeError) -> String {
    match error {
        DecodeError::IoError(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            "it is truncated: the end of the picture is missing".into()
        }
        DecodeError::IoError(error) => error.to_string(),
        DecodeError::Limits(_) => "it is larger than supported".into(),
        DecodeError::Unsupported(_) => "it is of a kind that is not supported".into(),
        DecodeError::Decoding(_) | DecodeError::Encoding(_) | DecodeError::Parameter(_) => {
            "it is damaged, or no picture".into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::AnimationDecoder;
    use std::fs;

    fn picture(channels: usize) -> Picture {
        let data = (0..6 * 5 * channels).map(|i| (i * 37 % 251) as u8).collect();
        Picture { width: 6, height: 5, channels, data }
    }

    #[test]
    fn every_format_reads_back_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.png", "a.GIF", "a.webp", "a.jpg", "a.jpeg"] {
            for channels in [1, 3] {
                let (path, made) = (dir.path().join(name), picture(channels));
                made.write(&path).unwrap();
                let back = Picture::read(&path).unwrap();
                assert_eq!((back.width, back.height), (6, 5), "{name}");
                let grey = |p: &Picture| -> Vec<u8> { p.data.chunks_exact(p.channels).map(|pixel| pixel[0]).collect() };
                let furthest = grey(&back).iter().zip(grey(&made)).map(|(a, b)| a.abs_diff(b)).max().unwrap();
                let lossy = matches!(Format::of(&path).unwrap(), Format::Jpeg);
                // The chroma of neighbours is shared in a JPEG, so only grey ones are close.
                assert!(furthest == 0 || (lossy && (channels == 3 || furthest < 16)), "{name}: {furthest}");
            }
        }
        for name in ["a.bmp", "a", "png"] {
            let error = picture(1).write(&dir.path().join(name)).unwrap_err().to_string();
            let told = format!("{name} names no format by its end: .png, .jpg, .gif or .webp was expected");
            assert!(error.ends_with(&told), "{error}");
        }
        let error = picture(1).write(&dir.path().join("no/folder.png")).unwrap_err().to_string();
        assert!(error.contains("folder.png cannot be written: "), "{error}");
    }

    #[test]
    fn pixels_become_squares() {
        let small = Picture { width: 2, height: 1, channels: 3, data: vec![1, 2, 3, 4, 5, 6] };
        let large = small.scaled(2).unwrap();
        assert_eq!((large.width, large.height), (4, 2));
        let row = [1, 2, 3, 1, 2, 3, 4, 5, 6, 4, 5, 6];
        assert_eq!(large.data, [row, row].concat());
        assert_eq!(small.scaled(1).unwrap(), small);
        let error = small.scaled(1 << 14 | 1).unwrap_err().to_string();
        insta::assert_snapshot!(error, @"a picture of 16385×32770 pixels is larger than the 32768 a side that a picture can have");
        assert!(small.scaled(usize::MAX).is_err());
        let wide = Picture { width: MAX_WEBP_SIDE, height: 1, channels: 1, data: vec![0; MAX_WEBP_SIDE] };
        let error = wide.write(Path::new("never-written.webp")).unwrap_err().to_string();
        insta::assert_snapshot!(error, @"a picture of 1×16384 pixels is larger than the 16383 a side that a WebP file can have");
    }

    #[test]
    fn a_moving_picture_has_its_frames_and_their_times() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.gif");
        let mut second = picture(1);
        second.data.reverse();
        let frames = [(picture(1), 100), (second.clone(), 2000)];
        let timed = frames.map(|(picture, ms)| Ok::<_, ImageError>((picture, Duration::from_millis(ms))));
        write_moving(&path, timed.into_iter()).unwrap();
        let file = std::io::BufReader::new(fs::File::open(&path).unwrap());
        let back = image::codecs::gif::GifDecoder::new(file).unwrap().into_frames().collect_frames().unwrap();
        let times: Vec<_> = back.iter().map(|frame| frame.delay().numer_denom_ms()).collect();
        assert_eq!(times, [(100, 1), (2000, 1)]);
        let reds: Vec<u8> = back[1].buffer().pixels().map(|pixel| pixel.0[0]).collect();
        assert_eq!(reds, second.data);
    }

    #[test]
    fn what_cannot_move_is_refused_and_nothing_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.gif");
        let moving = |path: &Path, pictures: Vec<Picture>| {
            let timed = pictures.into_iter().map(|picture| Ok::<_, ImageError>((picture, Duration::from_millis(50))));
            write_moving(path, timed).unwrap_err().to_string()
        };
        let error = moving(&dir.path().join("a.png"), vec![picture(1)]);
        assert!(error.ends_with("a.png cannot hold a moving picture: end it in .gif"), "{error}");
        let error = moving(&path, Vec::new());
        assert!(error.starts_with("there are no pictures to put into "), "{error}");
        let error = moving(&path, vec![picture(1), picture(1).scaled(2).unwrap()]);
        insta::assert_snapshot!(error, @"the pictures are of two sizes: one has 5×6 pixels, another 10×12");
        assert!(!path.exists());
    }

    #[test]
    fn damaged_pictures_are_told_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.png");
        picture(3).write(&path).unwrap();
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() - 13 {
            fs::write(&path, &whole[..length]).unwrap();
            if let Err(error) = Picture::read(&path) {
                assert!(error.to_string().contains("a.png cannot be read: it is "), "{error}");
            }
        }
        fs::write(&path, "my notes").unwrap();
        let error = Picture::read(&path).unwrap_err().to_string();
        assert!(error.ends_with("it is damaged, or no picture"), "{error}");
        assert!(Picture::read(dir.path()).unwrap_err().to_string().contains("it is a folder"));
        assert!(Picture::read(&dir.path().join("b.png")).is_err());
    }
}
