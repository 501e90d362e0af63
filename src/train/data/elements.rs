//! The numbers of arrays in files, of any type and in either order of bytes, as pixels or as labels.
//!
//! What pixels mean follows from their range. Whole numbers are from 0 to 255. Others are from 0 to 1 where all are, else
//! from -1 to 1 where all are, else from 0 to 255.

use crate::tensor::half_to_f32;

/// The kind of a number, whatever its width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Unsigned,
    Signed,
    Float,
}

/// Numbers as they lie in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elements<'b> {
    kind: Kind,
    /// Bytes of each.
    width: usize,
    most_significant_first: bool,
    data: &'b [u8],
}

impl<'b> Elements<'b> {
    /// `None` where there is no such type.
    pub fn new(kind: Kind, width: usize, most_significant_first: bool, data: &'b [u8]) -> Option<Elements<'b>> {
        let is_known = if kind == Kind::Float { matches!(width, 2 | 4 | 8) } else { matches!(width, 1 | 2 | 4 | 8) };
        is_known.then_some(Elements { kind, width, most_significant_first, data })
    }

    /// Unsigned bytes as they are.
    pub fn bytes(&self) -> Option<&'b [u8]> {
        (self.kind == Kind::Unsigned && self.width == 1).then_some(self.data)
    }

    /// Numbers that are not whole by their type; those of 64 bits are rounded.
    pub fn floats(&self) -> Option<Vec<f32>> {
        let of = |bits: u64| match self.width {
            2 => half_to_f32(bits as u16),
            4 => f32::from_bits(bits as u32),
            _ => f64::from_bits(bits) as f32,
        };
        (self.kind == Kind::Float).then(|| self.bits().map(of).collect())
    }

    /// The bits of each element, in the low end.
    fn bits(&self) -> impl Iterator<Item = u64> + 'b {
        let (width, most_significant_first) = (self.width, self.most_significant_first);
        self.data.chunks_exact(width).map(move |element| {
            let mut word = [0; 8];
            if most_significant_first {
                word[8 - width..].copy_from_slice(element);
                u64::from_be_bytes(word)
            } else {
                word[..width].copy_from_slice(element);
                u64::from_le_bytes(word)
            }
        })
    }

    /// Each element of a type of whole numbers; what is beyond `i64` is its largest.
    fn whole(&self) -> impl Iterator<Item = i64> + 'b {
        let (unused, is_signed) = (64 - 8 * self.width as u32, self.kind == Kind::Signed);
        self.bits().map(move |bits| match is_signed {
            true => ((bits << unused) as i64) >> unused,
            false => i64::try_from(bits).unwrap_or(i64::MAX),
        })
    }

    /// Pixels from 0 to 255, and for numbers that are not whole the range that they are read as.
    ///
    /// # Errors
    /// When they are in no range of pixels.
    pub fn pixels(&self) -> Result<(Vec<u8>, Option<&'static str>), String> {
        if let Some(bytes) = self.bytes() {
            return Ok((bytes.to_vec(), None));
        }
        let Some(values) = self.floats() else {
            let (least, most) = self.whole().fold((i64::MAX, i64::MIN), |(a, b), x| (a.min(x), b.max(x)));
            if least < 0 || most > 255 {
                return Err(format!("its elements are from {least} to {most}: whole numbers must be from 0 to 255"));
            }
            return Ok((self.whole().map(|x| x as u8).collect(), None));
        };
        let (least, most) = values.iter().fold((f32::MAX, f32::MIN), |(a, b), &x| (a.min(x), b.max(x)));
        let (scale, shift, range) = match () {
            () if values.iter().any(|x| !x.is_finite()) => return Err("some of its elements are not finite".into()),
            () if least >= 0.0 && most <= 1.0 => (255.0, 0.0, "from 0 to 1"),
            () if least >= -1.0 && most <= 1.0 => (127.5, 127.5, "from -1 to 1"),
            () if least >= 0.0 && most <= 255.0 => (1.0, 0.0, "from 0 to 255"),
            () => return Err(format!("its elements are from {least} to {most}, not from 0 or -1 to 1, or to 255")),
        };
        Ok((values.into_iter().map(|x| (x * scale + shift).round() as u8).collect(), Some(range)))
    }

    /// Labels: whole numbers from 0 to 255, of any type.
    ///
    /// # Errors
    /// When one is something else.
    pub fn labels(&self) -> Result<Vec<u8>, String> {
        let wrong = |x: String| format!("a label is {x}, not a whole number from 0 to 255");
        match self.floats() {
            Some(values) => {
                let is_label = |x: &f32| x.fract() == 0.0 && (0.0..=255.0).contains(x);
                values.iter().map(|x| is_label(x).then_some(*x as u8).ok_or_else(|| wrong(x.to_string()))).collect()
            }
            None => self.whole().map(|x| u8::try_from(x).map_err(|_| wrong(x.to_string()))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: Kind, width: usize, data: &[u8]) -> Elements<'_> {
        Elements::new(kind, width, true, data).unwrap()
    }

    #[test]
    fn either_order_of_bytes_and_every_width_is_read() {
        let words = [0u64, 1, 200, 255];
        for width in [1, 2, 4, 8] {
            for kind in [Kind::Unsigned, Kind::Signed] {
                if (kind, width) == (Kind::Signed, 1) {
                    continue;
                }
                let first: Vec<u8> = words.iter().flat_map(|w| w.to_be_bytes()[8 - width..].to_vec()).collect();
                let last: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()[..width].to_vec()).collect();
                for (most_significant_first, data) in [(true, first), (false, last)] {
                    let elements = Elements::new(kind, width, most_significant_first, &data).unwrap();
                    assert_eq!(elements.pixels().unwrap(), (vec![0, 1, 200, 255], None), "{kind:?} {width}");
                    assert_eq!(elements.labels().unwrap(), [0, 1, 200, 255], "{kind:?} {width}");
                }
            }
        }
        assert_eq!(Elements::new(Kind::Float, 1, true, &[]), None);
        assert_eq!(Elements::new(Kind::Signed, 3, true, &[]), None);
    }

    #[test]
    fn floats_of_every_width_mean_the_same() {
        let values = [-1.0f64, 0.0, 0.5, 1.0];
        let doubles: Vec<u8> = values.iter().flat_map(|x| x.to_be_bytes()).collect();
        let floats: Vec<u8> = values.iter().flat_map(|x| (*x as f32).to_be_bytes()).collect();
        let halves: Vec<u8> = [0xbc00u16, 0, 0x3800, 0x3c00].iter().flat_map(|x| x.to_be_bytes()).collect();
        for (width, data) in [(8, doubles), (4, floats), (2, halves)] {
            let (pixels, range) = of(Kind::Float, width, &data).pixels().unwrap();
            assert_eq!((pixels, range), (vec![0, 128, 191, 255], Some("from -1 to 1")), "{width}");
            assert!(of(Kind::Float, width, &data).labels().unwrap_err().contains("a label is -1"));
        }
        assert_eq!(of(Kind::Float, 4, &7f32.to_be_bytes()).labels().unwrap(), [7]);
        assert!(of(Kind::Float, 8, &1e300f64.to_be_bytes()).pixels().unwrap_err().contains("not finite"));
    }

    #[test]
    fn whole_numbers_out_of_range_are_told() {
        for (kind, width, data, told) in [
            (Kind::Signed, 1, &[255][..], "from -1 to -1"),
            (Kind::Signed, 2, &[255, 254, 0, 3], "from -2 to 3"),
            (Kind::Unsigned, 2, &[1, 0], "from 256 to 256"),
            (Kind::Unsigned, 8, &[255; 8], "from 9223372036854775807 to"),
        ] {
            assert!(of(kind, width, data).pixels().unwrap_err().contains(told), "{told}");
            assert!(of(kind, width, data).labels().is_err());
        }
    }
}
