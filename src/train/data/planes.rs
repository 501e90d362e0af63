//! The order of an image's values.

use super::{ImageSize, Wanted};

/// Brings images of the sizes `[count, rows, columns]`, `[count, channels, rows, columns]` or `[count, rows, columns,
/// channels]`, with 1 or 3 channels, to channels that stand one after the other; gives their number and size. Where both
/// ends could be the channels, the first are. Of more dimensions those of the size 1 are left out. `[count, pixels]` are
/// images as a program wants them, where these have as many pixels, else square ones, grey or of three planes. `None`
/// where they are of other sizes, or none.
pub fn channels_first(sizes: &[usize], data: Vec<u8>, wanted: Option<Wanted>) -> Option<(usize, ImageSize, Vec<u8>)> {
    let squeezed = match sizes {
        [count, each @ ..] if each.len() > 3 => {
            [&[*count], &each.iter().copied().filter(|&size| size != 1).collect::<Vec<_>>()[..]].concat()
        }
        _ => sizes.to_vec(),
    };
    let sizes = &squeezed[..];
    let is_last = |sizes: &[usize]| matches!(sizes, [_, rows, _, 1 | 3] if !matches!(rows, 1 | 3));
    let (count, size) = match *sizes {
        [count, pixels] => (count, in_a_row(pixels, wanted)?),
        [count, rows, columns] => (count, ImageSize { channels: 1, rows, columns }),
        [count, rows, columns, channels] if is_last(sizes) => (count, ImageSize { channels, rows, columns }),
        [count, channels @ (1 | 3), rows, columns] => (count, ImageSize { channels, rows, columns }),
        _ => return None,
    };
    let bytes = [count, size.channels, size.rows, size.columns];
    let total = bytes.iter().try_fold(1usize, |total, &size| total.checked_mul(size))?;
    if total == 0 || total != data.len() {
        return None;
    }
    if !is_last(sizes) || size.channels == 1 {
        return Some((count, size, data));
    }
    let mut turned = Vec::with_capacity(data.len());
    for image in data.chunks_exact(size.bytes()) {
        (0..size.channels).for_each(|channel| turned.extend(image.iter().skip(channel).step_by(size.channels)));
    }
    Some((count, size, turned))
}

/// The size of an image of so many pixels, those of each channel counted.
fn in_a_row(pixels: usize, wanted: Option<Wanted>) -> Option<ImageSize> {
    match wanted {
        Some(Wanted::Size(size)) if size.bytes() == pixels && matches!(size.channels, 1 | 3) => Some(size),
        _ => Wanted::Values(pixels).size(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_found_before_and_behind_the_pixels() {
        let of = |sizes: &[usize]| {
            let data = (0..sizes.iter().product::<usize>()).map(|i| i as u8).collect();
            channels_first(sizes, data, None).map(|(n, s, data)| (n, [s.channels, s.rows, s.columns], data))
        };
        assert_eq!(of(&[2, 1, 2]), Some((2, [1, 1, 2], vec![0, 1, 2, 3])));
        assert_eq!(of(&[1, 3, 1, 2]), Some((1, [3, 1, 2], vec![0, 1, 2, 3, 4, 5])));
        assert_eq!(of(&[1, 2, 2, 3]), Some((1, [3, 2, 2], vec![0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11])));
        assert_eq!(of(&[1, 2, 2, 1]), Some((1, [1, 2, 2], vec![0, 1, 2, 3])));
        for sizes in [&[4][..], &[0, 1, 1], &[1, 2, 2, 2], &[2, 2, 2, 2, 2], &[2, 0]] {
            assert_eq!(of(sizes), None, "{sizes:?}");
        }
    }

    #[test]
    fn pixels_in_a_row_and_sizes_of_1_are_taken() {
        let of = |sizes: &[usize], wanted| {
            let data = vec![0; sizes.iter().product::<usize>()];
            channels_first(sizes, data, wanted).map(|(n, s, _)| (n, [s.channels, s.rows, s.columns]))
        };
        let size = |channels, rows, columns| Some(Wanted::Size(ImageSize { channels, rows, columns }));
        assert_eq!(of(&[2, 784], None), Some((2, [1, 28, 28])));
        assert_eq!(of(&[2, 784], size(1, 14, 56)), Some((2, [1, 14, 56])));
        assert_eq!(of(&[2, 784], size(1, 32, 32)), Some((2, [1, 28, 28])));
        assert_eq!(of(&[2, 784], size(4, 14, 14)), Some((2, [1, 28, 28])));
        assert_eq!(of(&[2, 3072], None), Some((2, [3, 32, 32])));
        assert_eq!(of(&[2, 2], None), None);
        assert_eq!(of(&[2, 1, 28, 28, 1], None), Some((2, [1, 28, 28])));
        assert_eq!(of(&[2, 1, 3, 8, 8], None), Some((2, [3, 8, 8])));
        assert_eq!(of(&[1, 1, 8, 9, 1, 3], None), Some((1, [3, 8, 9])));
    }
}
