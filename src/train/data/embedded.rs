//! The 10,000 MNIST training digits inside the program, so that it can train with no files and no network.
//!
//! Made by `tests/data/make_embedded.py`; their origin and licence are in `ATTRIBUTION.md` beside this file.

use super::idx::{self, Content};
use super::{Dataset, Source, Split};

const IMAGES: &[u8] = include_bytes!("mnist-10k-images-idx3-ubyte.gz");
const LABELS: &[u8] = include_bytes!("mnist-10k-labels-idx1-ubyte.gz");

/// The text that goes with the digits: where they come from and under which licence.
pub const ATTRIBUTION: &str = include_str!("ATTRIBUTION.md");

/// The embedded digits as a training set; there is no test set beside them ([`Dataset::hold_out`] makes one).
pub fn load() -> Dataset {
    // These bytes are part of the program, and the tests below read them: only a broken build can fail here.
    let images = idx::parse(IMAGES, Content::Images, "embedded images").expect("embedded images are sound");
    let labels = idx::parse(LABELS, Content::Labels, "embedded labels").expect("embedded labels are sound");
    Dataset {
        name: "mnist-10k".into(),
        source: Source::Embedded,
        why: "built-in MNIST digits".into(),
        classes: None,
        notes: Vec::new(),
        unlabelled: None,
        train: Split {
            channels: 1,
            rows: images.dims[1],
            columns: images.dims[2],
            images: images.data,
            labels: Some(labels.data),
        },
        test: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_ten_classes_are_there_and_mixed() {
        let train = load().train;
        assert_eq!((train.len(), train.rows, train.columns), (10_000, 28, 28));
        assert_eq!(train.class_counts(), Some(vec![1001, 1127, 991, 1032, 980, 863, 1014, 1070, 944, 978]));
        for part in train.labels.unwrap().chunks(1000) {
            assert!((0..10).all(|class| part.iter().filter(|&&label| label == class).count() >= 60));
        }
    }
}
