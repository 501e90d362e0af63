//! One PNG or JPEG file to pixels.
//!
//! Files are untrusted. A file's content decides what it is, not its name; what it claims to hold is believed only as far as
//! so few bytes can hold it, and no more than [`MOST`] is ever decoded of one picture.

use std::fmt;
use std::io::{self, Cursor};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use crate::atomic;
use crate::train::data::fit::{ImageSize, Pixels};
use crate::train::picture::why;

/// The most bytes of one decoded picture: 134 million RGB pixels.
const MOST: u64 = 400 << 20;

/// Above this, pictures are decoded one at a time, so that the threads together don't take all memory.
const LARGE: u64 = 48 << 20;

/// The most bytes of a file.
const MOST_OF_FILE: u64 = 1 << 30;

/// Neither format packs more: deflate makes at most 1032 bytes of one (a match of 258 by two bits), a JPEG scan at most 768
/// (a block of 64 values by two bits, and three of four values by subsampling), with some room for headers.
const MOST_PACKED: u64 = 1100;

/// The longest side of a picture.
const MOST_SIDE: u32 = 1 << 16;

/// Why a file gives no picture.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The file cannot be read now; it may be readable later though it does not change.
    Io(String),
    /// Its content is of no use.
    Content(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Failure::Io(text) | Failure::Content(text)) = self;
        f.write_str(text)
    }
}

/// A picture as it is stored, upright and on white.
#[derive(Debug)]
pub(super) struct Picture {
    pub pixels: Pixels,
    /// Whether something of it was transparent.
    pub is_transparent: bool,
}

/// Reads a file.
pub(super) fn read(path: &Path) -> Result<Picture, Failure> {
    let io = |error: io::Error| Failure::Io(error.to_string());
    atomic::check_ordinary(path).map_err(io)?;
    let length = std::fs::metadata(path).map_err(io)?.len();
    if length > MOST_OF_FILE {
        return Err(Failure::Content(format!("it has {length} bytes, more than the {MOST_OF_FILE} supported")));
    }
    decode(&std::fs::read(path).map_err(io)?)
}

/// Decodes the content of a file.
pub(super) fn decode(bytes: &[u8]) -> Result<Picture, Failure> {
    let wrong = |text: String| Err(Failure::Content(text));
    if bytes.is_empty() {
        return wrong("it is empty".into());
    }
    let format = match image::guess_format(bytes) {
        Ok(format @ (ImageFormat::Png | ImageFormat::Jpeg)) => format,
        Ok(other) => return wrong(format!("it is {}, and only PNG and JPEG are read", name_of(other))),
        Err(_) => return wrong("it is neither PNG nor JPEG by its content".into()),
    };
    if format == ImageFormat::Jpeg && !is_whole_jpeg(bytes) {
        return wrong("it is truncated: the end of the picture is missing".into());
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(MOST_SIDE);
    limits.max_image_height = Some(MOST_SIDE);
    limits.max_alloc = Some(MOST);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits);
    let damaged = |error: image::ImageError| Failure::Content(why(&error));
    let mut decoder = reader.into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    let total = decoder.total_bytes();
    if width == 0 || height == 0 {
        return wrong("it has no pixels".into());
    }
    if total > MOST {
        return wrong(format!("it is {width}×{height}, larger than supported"));
    }
    if total > MOST_PACKED * bytes.len() as u64 + (1 << 16) {
        return wrong(format!("it claims to be {width}×{height}, which {} bytes cannot hold", bytes.len()));
    }
    // A file with damaged EXIF data is still a picture.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    static ONE: Mutex<()> = Mutex::new(());
    let _alone = (total > LARGE).then(|| ONE.lock().unwrap_or_else(PoisonError::into_inner));
    let mut picture = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    picture.apply_orientation(orientation);
    Ok(on_white(picture))
}

/// Eight bits a channel, grey or RGB, with what is transparent blended with white.
fn on_white(picture: DynamicImage) -> Picture {
    let (columns, rows) = (picture.width() as usize, picture.height() as usize);
    let colour = picture.color();
    let channels = if colour.has_color() { 3 } else { 1 };
    let mut is_transparent = false;
    let data = match (colour.has_color(), colour.has_alpha()) {
        (false, false) => picture.into_luma8().into_raw(),
        (true, false) => picture.into_rgb8().into_raw(),
        (has_color, true) => {
            let with_alpha =
                if has_color { picture.into_rgba8().into_raw() } else { picture.into_luma_alpha8().into_raw() };
            let blend = |value: u8, alpha: u8| {
                let (value, alpha) = (u32::from(value), u32::from(alpha));
                ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8
            };
            let mut data = Vec::with_capacity(rows * columns * channels);
            for pixel in with_alpha.chunks_exact(channels + 1) {
                let alpha = pixel[channels];
                is_transparent |= alpha != 255;
                data.extend(pixel[..channels].iter().map(|&value| blend(value, alpha)));
            }
            data
        }
    };
    Picture { pixels: Pixels { size: ImageSize { channels, rows, columns }, data }, is_transparent }
}

/// Whether a JPEG's segments and scans lead to its end marker (ITU-T T.81, annex B). The decoder fills up what is missing
/// with grey, and nobody wants to train on that.
fn is_whole_jpeg(bytes: &[u8]) -> bool {
    let mut at = 2;
    loop {
        let Some(next) = bytes.get(at..).and_then(|rest| rest.iter().position(|&b| b == 0xff)) else { return false };
        at += next;
        let Some(fill) = bytes[at..].iter().position(|&b| b != 0xff) else { return false };
        at += fill;
        let marker = bytes[at];
        at += 1;
        match marker {
            0xd9 => return true,
            // Markers without a length, and a byte 0xff of a scan.
            0x00 | 0x01 | 0xd0..=0xd8 => {}
            _ => match bytes.get(at..at + 2) {
                Some(length) => at += usize::from(u16::from_be_bytes([length[0], length[1]])),
                None => return false,
            },
        }
    }
}

/// A format as people write it.
fn name_of(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Gif => "a GIF",
        ImageFormat::WebP => "a WebP",
        ImageFormat::Bmp => "a BMP",
        ImageFormat::Tiff => "a TIFF",
        _ => "of another format",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::codecs::jpeg::JpegEncoder;
    use image::{Luma, LumaA, Rgb, RgbImage, Rgba};

    fn png(picture: impl Into<DynamicImage>) -> Vec<u8> {
        let mut bytes = Vec::new();
        picture.into().write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).unwrap();
        bytes
    }

    fn jpeg(picture: &RgbImage) -> Vec<u8> {
        let mut bytes = Vec::new();
        JpegEncoder::new_with_quality(&mut bytes, 95).encode_image(picture).unwrap();
        bytes
    }

    fn gradient(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| Rgb([(x * 9) as u8, (y * 7) as u8, 128]))
    }

    fn failure(bytes: &[u8]) -> String {
        decode(bytes).unwrap_err().to_string()
    }

    #[test]
    fn every_kind_of_png_is_read() {
        let data = |bytes: &[u8]| {
            let picture = decode(bytes).unwrap();
            (picture.pixels.size.channels, picture.pixels.data, picture.is_transparent)
        };
        assert_eq!(data(&png(gradient(1, 1))), (3, vec![0, 0, 128], false));
        let grey16 = image::ImageBuffer::from_pixel(1, 1, Luma([0x8080u16]));
        assert_eq!(data(&png(DynamicImage::ImageLuma16(grey16))), (1, vec![128], false));
        let clear = image::ImageBuffer::from_pixel(1, 1, Rgba([10u8, 20, 30, 0]));
        assert_eq!(data(&png(DynamicImage::ImageRgba8(clear))), (3, vec![255; 3], true));
        let half = image::ImageBuffer::from_pixel(1, 1, LumaA([0u8, 128]));
        assert_eq!(data(&png(DynamicImage::ImageLumaA8(half))), (1, vec![127], true));
        let solid = image::ImageBuffer::from_pixel(1, 1, Rgba([10u8, 20, 30, 255]));
        assert_eq!(data(&png(DynamicImage::ImageRgba8(solid))), (3, vec![10, 20, 30], false));
    }

    #[test]
    fn jpegs_turn_upright() {
        let picture = gradient(16, 8);
        let plain = jpeg(&picture);
        assert_eq!((decode(&plain).unwrap().pixels.size.rows, decode(&plain).unwrap().pixels.size.columns), (8, 16));
        // An EXIF segment with one entry, orientation (0x0112) = 6: to be turned by 90° clockwise.
        let mut exif =
            b"\xff\xe1\x00\x22Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0".to_vec();
        assert_eq!(exif.len(), 0x22 + 2);
        let mut turned = plain[..2].to_vec();
        turned.append(&mut exif);
        turned.extend(&plain[2..]);
        let upright = decode(&turned).unwrap().pixels;
        assert_eq!((upright.size.rows, upright.size.columns), (16, 8));
    }

    #[test]
    fn what_is_no_picture_is_told() {
        assert_eq!(failure(b""), "it is empty");
        assert_eq!(failure(b"hello there"), "it is neither PNG nor JPEG by its content");
        assert_eq!(failure(b"GIF89a......"), "it is a GIF, and only PNG and JPEG are read");
        let whole = jpeg(&gradient(64, 64));
        for end in [3, 20, whole.len() / 2, whole.len() - 2] {
            assert_eq!(failure(&whole[..end]), "it is truncated: the end of the picture is missing", "{end}");
        }
        let whole = png(gradient(64, 64));
        for end in [9, 20, whole.len() / 2] {
            assert_eq!(failure(&whole[..end]), "it is truncated: the end of the picture is missing", "{end}");
        }
        let mut damaged = whole.clone();
        damaged[20] ^= 1;
        assert_eq!(failure(&damaged), "it is damaged, or no picture");
        // The size is in the header: it is refused before there is memory for it.
        let mut vast = whole.clone();
        vast[16..24].copy_from_slice(&[0, 0, 0x20, 0, 0, 0, 0x20, 0]);
        let crc = {
            let mut crc = flate2::Crc::new();
            crc.update(&vast[12..29]);
            crc.sum().to_be_bytes()
        };
        vast[29..33].copy_from_slice(&crc);
        let told = failure(&vast);
        assert!(told.starts_with("it claims to be 8192×8192, which "), "{told}");
    }

    #[test]
    fn a_jpeg_with_more_behind_its_end_is_whole() {
        let mut bytes = jpeg(&gradient(8, 8));
        bytes.extend(b"and a film of three seconds");
        assert!(decode(&bytes).is_ok());
    }
}
