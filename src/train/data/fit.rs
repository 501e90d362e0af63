//! The size and the colours that a program takes, and bringing images to them.
//!
//! An image is resized so that it covers what is wanted, and what stands over on two sides is cut off: the centre stays,
//! and nothing is distorted. The filter is Lanczos's of three lobes, stretched where an image gets smaller, so that every
//! pixel counts. Grey of a colour is its luminance by ITU-R BT.709, on the values as they are stored.

use std::fmt;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::{U8, U8x3};
use fast_image_resize::{FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer};
use serde::{Deserialize, Serialize};

use super::{Dataset, Split};

/// The size of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSize {
    /// 1 is grey, 3 are red, green and blue.
    pub channels: usize,
    /// Height in pixels.
    pub rows: usize,
    /// Width in pixels.
    pub columns: usize,
}

impl ImageSize {
    /// Bytes of an image.
    pub fn bytes(&self) -> usize {
        self.channels * self.rows * self.columns
    }

    /// "grey", "RGB", or the number of channels.
    pub fn colours(&self) -> String {
        match self.channels {
            1 => "grey".into(),
            3 => "RGB".into(),
            other => format!("of {other} channels"),
        }
    }
}

impl fmt::Display for ImageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}×{} {}", self.rows, self.columns, self.colours())
    }
}

/// What a program takes for one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Channels, rows and columns.
    Size(ImageSize),
    /// So many values in a row, whatever they mean.
    Values(usize),
}

impl Wanted {
    /// Reads the shape of an input, without the batch. `None` where it is no image's.
    pub fn of_shape(shape: &[usize]) -> Option<Wanted> {
        match *shape {
            [channels, rows, columns] => Some(Wanted::Size(ImageSize { channels, rows, columns })),
            [rows, columns] => Some(Wanted::Size(ImageSize { channels: 1, rows, columns })),
            [values] => Some(Wanted::Values(values)),
            _ => None,
        }
    }

    /// The size for images that have the size `own`, or none yet. Values in a row are square images, grey or else RGB,
    /// unless the images have as many values already.
    pub fn size(self, own: Option<ImageSize>) -> Option<ImageSize> {
        let square = |channels: usize, values: usize| {
            let side = values.isqrt();
            (side * side == values).then_some(ImageSize { channels, rows: side, columns: side })
        };
        match (self, own) {
            (Wanted::Size(size), _) => Some(size),
            (Wanted::Values(values), Some(own)) if own.bytes() == values => Some(own),
            (Wanted::Values(values), _) if values.is_multiple_of(3) => square(1, values).or(square(3, values / 3)),
            (Wanted::Values(values), _) => square(1, values),
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wanted::Size(size) => write!(f, "{size}"),
            Wanted::Values(values) => write!(f, "{values} values in a row"),
        }
    }
}

/// Pixels of one image, the channels of a pixel side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pixels {
    /// Never empty, and 1 or 3 channels.
    pub size: ImageSize,
    pub data: Vec<u8>,
}

impl Pixels {
    /// Writes the image as `wanted` (1 or 3 channels), the channels one after the other, into `out`.
    pub fn fit(self, resizer: &mut Resizer, wanted: ImageSize, out: &mut [u8]) -> Result<(), String> {
        // Grey first: it is a third of the work.
        let image = if wanted.channels == 1 { self.grey() } else { self };
        let channels = image.size.channels;
        let data = if (image.size.rows, image.size.columns) == (wanted.rows, wanted.columns) {
            image.data
        } else if channels == 1 {
            image.resized::<U8>(resizer, wanted)?
        } else {
            image.resized::<U8x3>(resizer, wanted)?
        };
        let plane = wanted.rows * wanted.columns;
        for (channel, plane) in out.chunks_exact_mut(plane).enumerate() {
            let values = data.iter().skip(channel % channels).step_by(channels);
            plane.iter_mut().zip(values).for_each(|(to, from)| *to = *from);
        }
        Ok(())
    }

    /// Its pixels, of type `P`, where it has as many rows and columns as `wanted`. The type is known here, since the code for
    /// the thirteen that there are takes a tenth of the library's compilation.
    fn resized<P: PixelTrait>(&self, resizer: &mut Resizer, wanted: ImageSize) -> Result<Vec<u8>, String> {
        let sides = |size: ImageSize| -> Result<[u32; 2], String> {
            let side = |n: usize| u32::try_from(n).map_err(|_| "it is too large".to_string());
            Ok([side(size.columns)?, side(size.rows)?])
        };
        let ([from_width, from_height], [width, height]) = (sides(self.size)?, sides(wanted)?);
        let source = TypedImageRef::<P>::from_buffer(from_width, from_height, &self.data).map_err(|e| e.to_string())?;
        let mut data = vec![0; wanted.rows * wanted.columns * self.size.channels];
        let mut resized = TypedImage::<P>::from_buffer(width, height, &mut data).map_err(|e| e.to_string())?;
        let options = ResizeOptions::new()
            .resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3))
            .fit_into_destination(Some((0.5, 0.5)));
        resizer.resize_typed(&source, &mut resized, &options).map_err(|e| e.to_string())?;
        drop(resized);
        Ok(data)
    }

    fn grey(self) -> Pixels {
        if self.size.channels == 1 {
            return self;
        }
        let data = self.data.chunks_exact(3).map(|p| luminance([p[0], p[1], p[2]])).collect();
        Pixels { size: ImageSize { channels: 1, ..self.size }, data }
    }
}

/// ITU-R BT.709, item 3.2, to the nearest.
fn luminance([red, green, blue]: [u8; 3]) -> u8 {
    ((2126 * u32::from(red) + 7152 * u32::from(green) + 722 * u32::from(blue) + 5000) / 10_000) as u8
}

/// Brings all images of a data set in memory to what a program takes, and notes what was done. What cannot be brought to
/// it (channels that are neither grey nor RGB) stays as it is.
pub fn fit(dataset: &mut Dataset, wanted: Wanted) {
    let own = dataset.train.size();
    let Some(size) = wanted.size(Some(own)) else { return };
    if own == size || ![own, size].iter().all(|s| matches!(s.channels, 1 | 3) && s.bytes() > 0) {
        return;
    }
    for split in std::iter::once(&mut dataset.train).chain(&mut dataset.test) {
        let Some(fitted) = fit_split(split, size) else { return };
        (split.images, split.channels) = (fitted, size.channels);
        (split.rows, split.columns) = (size.rows, size.columns);
    }
    let mut done = Vec::new();
    if (own.rows, own.columns) != (size.rows, size.columns) {
        let cropped = if own.rows * size.columns == own.columns * size.rows { "" } else { " and cropped" };
        done.push(format!("resized{cropped} from {}×{} to {}×{}", own.rows, own.columns, size.rows, size.columns));
    }
    if own.channels != size.channels {
        done.push(format!("made {}", size.colours()));
    }
    dataset.notes.push(format!("the images are {}, which the program takes", done.join(" and ")));
}

/// The images of a split as `size`; `None` where there is no memory for them.
fn fit_split(split: &Split, size: ImageSize) -> Option<Vec<u8>> {
    let own = split.size();
    let mut out = room(split.len(), size)?;
    each(split.len(), &mut out, size.bytes(), &mut |_| {}, || {
        let mut resizer = Resizer::new();
        move |i, slot: &mut [u8]| {
            let image = &split.images[i * own.bytes()..][..own.bytes()];
            let plane = own.rows * own.columns;
            let data = (0..plane).flat_map(|at| (0..own.channels).map(move |c| image[c * plane + at])).collect();
            // Sizes of images in memory fit in 32 bits, so nothing can fail; the slot would stay black.
            let _ = Pixels { size: own, data }.fit(&mut resizer, size, slot);
        }
    });
    Some(out)
}

/// Memory for `count` images; `None` where there is not so much.
pub(super) fn room(count: usize, size: ImageSize) -> Option<Vec<u8>> {
    let bytes = size.channels.checked_mul(size.rows)?.checked_mul(size.columns)?.checked_mul(count)?;
    let mut out = Vec::new();
    out.try_reserve_exact(bytes).ok()?;
    out.resize(bytes, 0);
    Some(out)
}

/// Calls a body for the numbers 0 to `count`, each with its own `bytes` of `out` (not 0), in all threads that the machine
/// has. Each thread has a body of its own, which `make` makes. `tick` is told on the calling thread, now and then, how
/// many are done.
pub(super) fn each<Body: FnMut(usize, &mut [u8])>(
    count: usize,
    out: &mut [u8],
    bytes: usize,
    tick: &mut dyn FnMut(usize),
    make: impl Fn() -> Body + Sync,
) {
    let slots = Mutex::new(out.chunks_exact_mut(bytes).take(count).enumerate());
    let done = AtomicUsize::new(0);
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(count);
    let (alive, ended) = mpsc::channel::<()>();
    thread::scope(|scope| {
        for _ in 0..threads {
            let alive = alive.clone();
            let (slots, done, make) = (&slots, &done, &make);
            scope.spawn(move || {
                // Dropped with the thread, which tells that it has ended.
                let _alive = alive;
                let mut body = make();
                loop {
                    let next = slots.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some((i, slot)) = next else { break };
                    body(i, slot);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        drop(alive);
        while ended.recv_timeout(Duration::from_millis(100)) == Err(RecvTimeoutError::Timeout) {
            tick(done.load(Ordering::Relaxed));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::data::Source;

    fn size(channels: usize, rows: usize, columns: usize) -> ImageSize {
        ImageSize { channels, rows, columns }
    }

    #[test]
    fn shapes_are_sizes() {
        assert_eq!(Wanted::of_shape(&[3, 4, 5]), Some(Wanted::Size(size(3, 4, 5))));
        assert_eq!(Wanted::of_shape(&[4, 5]), Some(Wanted::Size(size(1, 4, 5))));
        assert_eq!(Wanted::of_shape(&[1, 2, 3, 4]), None);
        let flat = |values, own| Wanted::Values(values).size(own);
        assert_eq!(flat(784, None), Some(size(1, 28, 28)));
        assert_eq!(flat(3072, None), Some(size(3, 32, 32)));
        assert_eq!(flat(20, Some(size(1, 4, 5))), Some(size(1, 4, 5)));
        assert_eq!(flat(20, Some(size(1, 4, 4))), None);
    }

    #[test]
    fn grey_is_luminance() {
        let greys = [[0; 3], [255; 3], [255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 20, 30]].map(luminance);
        assert_eq!(greys, [0, 255, 54, 182, 18, 19]);
    }

    /// A picture wider than what is wanted loses its sides. (The filter looks a little past what is cut off.)
    #[test]
    fn the_centre_stays() {
        let mut data = vec![0u8; 20 * 4 * 3];
        for (i, pixel) in data.chunks_exact_mut(3).enumerate() {
            pixel.copy_from_slice(if (2..18).contains(&(i % 20)) { &[200, 100, 50] } else { &[0, 0, 255] });
        }
        let image = Pixels { size: size(3, 4, 20), data };
        for side in [2, 4, 9] {
            let mut out = vec![0; 3 * side * side];
            image.clone().fit(&mut Resizer::new(), size(3, side, side), &mut out).unwrap();
            for (plane, value) in out.chunks_exact(side * side).zip([200, 100, 50]) {
                assert!(plane.iter().all(|&v| v == value), "{side}: {plane:?}");
            }
        }
        let mut grey = [0; 4];
        image.fit(&mut Resizer::new(), size(1, 2, 2), &mut grey).unwrap();
        assert_eq!(grey, [luminance([200, 100, 50]); 4]);
    }

    /// Every other column is white: smaller by eight, all that is left is grey.
    #[test]
    fn smaller_images_are_averages() {
        let data = (0..64 * 64).map(|i| if i % 2 == 0 { 255 } else { 0 }).collect();
        let mut out = vec![0; 3 * 64];
        Pixels { size: size(1, 64, 64), data }.fit(&mut Resizer::new(), size(3, 8, 8), &mut out).unwrap();
        assert!(out.iter().all(|v| (118..138).contains(v)), "{out:?}");
    }

    #[test]
    fn a_set_in_memory_is_fitted_and_says_so() {
        let split = |count: usize| Split {
            images: (0..count * 12).map(|i| i as u8).collect(),
            labels: None,
            channels: 3,
            rows: 2,
            columns: 2,
        };
        let mut set = Dataset {
            name: "s".into(),
            source: Source::Embedded,
            why: String::new(),
            classes: None,
            notes: Vec::new(),
            unlabelled: None,
            train: split(3),
            test: Some(split(2)),
        };
        let before = set.clone();
        fit(&mut set, Wanted::Size(size(3, 2, 2)));
        fit(&mut set, Wanted::Size(size(4, 2, 2)));
        assert_eq!(set, before);
        fit(&mut set, Wanted::Values(9));
        assert_eq!(set.notes, ["the images are resized from 2×2 to 3×3 and made grey, which the program takes"]);
        assert_eq!((set.train.len(), set.test.as_ref().unwrap().len(), set.train.size()), (3, 2, size(1, 3, 3)));
        assert_eq!(set.train.images[..9], set.test.unwrap().images[..9]);
    }
}
