//! The pixels under a filter's taps, for images of few channels.
//!
//! Images are read as they lie in memory, channel by channel: the pixels that one tap meets under neighbouring pixels
//! of the output are in one row of the image, a stride apart.

use crate::exec::cpu::arena::Arena;
use crate::kernel::contraction::ConvShape;
use crate::scalar::simd::multiversion;
use std::ops::Range;

/// For each image a matrix of a row for each tap, in the filter's order of channels, rows and columns, and a column for
/// each pixel of the output. Taps on padding are 0.
#[derive(Debug)]
pub struct Patches {
    conv: ConvShape,
    taps: Vec<Tap>,
}

/// A number of the filter's for one channel of the output.
#[derive(Debug, Clone)]
struct Tap {
    channel: usize,
    place: [usize; 2],
    /// The columns of the output under which the tap is not beside the image.
    columns: Range<usize>,
}

/// Consecutive pixels of the output, and the rows that they are in.
#[derive(Debug, Clone)]
struct Span {
    pixels: Range<usize>,
    rows: Range<usize>,
}

/// Neighbouring pixels of the output under which a tap is on the image.
#[derive(Debug, Clone, Copy)]
struct Run {
    /// The first, counted from the first of those asked for.
    pixel: usize,
    len: usize,
    /// The row of the image, and the column under the first pixel; the others are a stride apart.
    at: [usize; 2],
}

impl Patches {
    pub fn new(conv: &ConvShape) -> Patches {
        let ([_, right], [_, left]) = (conv.window.stride, conv.window.pad);
        let tap = |tap: usize| {
            let column = tap % conv.kernel[1];
            let low = left.saturating_sub(column).div_ceil(right);
            let high = (conv.input[1] + left).saturating_sub(column).div_ceil(right);
            Tap {
                channel: tap / (conv.kernel[0] * conv.kernel[1]),
                place: [tap / conv.kernel[1] % conv.kernel[0], column],
                columns: low..high.min(conv.output[1]),
            }
        };
        Patches { conv: *conv, taps: (0..conv.taps()).map(tap).collect() }
    }

    fn span(&self, pixels: Range<usize>) -> Span {
        let columns = self.conv.output[1];
        Span { rows: pixels.start / columns..pixels.end.div_ceil(columns), pixels }
    }

    /// The runs of a tap over some pixels, in order.
    #[inline(always)]
    fn runs(&self, tap: &Tap, span: &Span) -> impl Iterator<Item = Run> {
        let ConvShape { input: [height, _], output: [_, columns], window, .. } = self.conv;
        let ([down, right], [top, left]) = (window.stride, window.pad);
        let (Span { pixels, rows }, Tap { place: [i, j], columns: on_image, .. }) = (span.clone(), tap.clone());
        rows.filter_map(move |y| {
            let row = (y * down + i).checked_sub(top).filter(|row| *row < height)?;
            let first = on_image.start.max(pixels.start.saturating_sub(y * columns));
            let end = on_image.end.min(pixels.end - y * columns);
            let len = end.checked_sub(first).filter(|len| *len > 0)?;
            Some(Run { pixel: y * columns + first - pixels.start, len, at: [row, first * right + j - left] })
        })
    }

    /// Columns from `column` on, for the rows from `start` on: a panel of `lanes`, of which `used` exist. Rows are taps and
    /// columns pixels, or the other way where the matrix is turned. `images` is the float at which the images start.
    pub fn pack(
        &self,
        [images, image]: [usize; 2],
        [start, column]: [usize; 2],
        [used, lanes]: [usize; 2],
        is_turned: bool,
        packed: &mut [f32],
        arena: Arena,
    ) {
        let (rows, columns) = (start..start + packed.len() / lanes, column..column + used);
        let (taps, pixels, apart) = if is_turned { (columns, rows, [1, lanes]) } else { (rows, columns, [lanes, 1]) };
        let [at, floats] = self.image(images, image);
        copy(self, arena.read(at, floats), taps, pixels, apart, packed);
    }

    /// Where an image starts, and its length.
    fn image(&self, images: usize, image: usize) -> [usize; 2] {
        let floats = self.conv.c * self.conv.input[0] * self.conv.input[1];
        [images + image * floats, floats]
    }
}

multiversion! {
    /// Writes the pixels under some taps, which are to be so far apart: `apart[0]` floats from tap to tap and
    /// `apart[1]` from pixel to pixel. Everything else is 0.
    fn copy(
        patches: &Patches,
        image: &[f32],
        taps: Range<usize>,
        pixels: Range<usize>,
        apart: [usize; 2],
        to: &mut [f32],
    ) {
        to.fill(0.0);
        let [height, width] = patches.conv.input;
        let stride = patches.conv.window.stride[1];
        let span = patches.span(pixels);
        for (i, tap) in patches.taps[taps].iter().enumerate() {
            let plane = &image[tap.channel * height * width..][..height * width];
            let to = &mut to[i * apart[0]..];
            for Run { pixel, len, at: [row, column] } in patches.runs(tap, &span) {
                let from = &plane[row * width + column..][..(len - 1) * stride + 1];
                let to = &mut to[pixel * apart[1]..][..(len - 1) * apart[1] + 1];
                match (stride, apart[1]) {
                    (1, 1) => to.copy_from_slice(from),
                    (2, 1) => to.iter_mut().zip(from.iter().step_by(2)).for_each(|(to, from)| *to = *from),
                    (_, apart) => {
                        let to = to.iter_mut().step_by(apart);
                        to.zip(from.iter().step_by(stride)).for_each(|(to, from)| *to = *from);
                    }
                }
            }
        }
    }
}

multiversion! {
    /// Adds to an image's pixels what each tap has for them: `sums` has `width` floats from tap to tap, one for each of
    /// `pixels` of the output. Of the image there are `lines` of each channel, and a pixel's taps are added in order.
    pub fn add_taps(
        patches: &Patches,
        sums: &[f32],
        width: usize,
        pixels: Range<usize>,
        lines: Range<usize>,
        image: &mut [f32],
    ) {
        let ConvShape { input, window, .. } = patches.conv;
        let (columns, stride) = (input[1], window.stride[1]);
        let plane = lines.len() * columns;
        let span = patches.span(pixels);
        for (tap, sums) in patches.taps.iter().zip(sums.chunks(width.max(1))) {
            let image = &mut image[tap.channel * plane..][..plane];
            let runs = patches.runs(tap, &span).filter(|run| lines.contains(&run.at[0]));
            for Run { pixel, len, at: [row, column] } in runs {
                let sums = &sums[pixel..][..len];
                let to = &mut image[(row - lines.start) * columns + column..][..(len - 1) * stride + 1];
                match stride {
                    1 => to.iter_mut().zip(sums).for_each(|(to, sum)| *to += sum),
                    2 => to.chunks_mut(2).zip(sums).for_each(|(to, sum)| to[0] += sum),
                    _ => to.iter_mut().step_by(stride).zip(sums).for_each(|(to, sum)| *to += sum),
                }
            }
        }
    }
}
