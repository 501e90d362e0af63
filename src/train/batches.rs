//! The order in which training images are used, and filling a batch with them.
//!
//! Every epoch is a fresh permutation that depends on the seed and the epoch alone, never on what came before: a
//! position is two numbers, and going to it gives the very batches that an uninterrupted run would have had. The
//! permutation is Fisher and Yates's (Knuth, TAOCP 2, 3.4.2, algorithm P) over xoshiro256++, whose output is fixed by
//! its definition (`rand`'s `StdRng` may change between versions), with our own bounded draw for the same reason.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use super::data::Split;

/// A place between two batches of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Position {
    /// Epochs that are complete.
    pub epoch: u64,
    /// Batches of the current epoch that have been used; less than [`Batches::per_epoch`].
    pub batch: u64,
}

/// An endless sequence of batches of image indices, epoch after epoch.
#[derive(Debug, Clone)]
pub struct Batches {
    seed: u64,
    size: usize,
    /// Whether an epoch ends before a batch that would be smaller than the others.
    whole_only: bool,
    position: Position,
    /// The permutation of epoch `ordered`; the buffer is reused, so going on allocates nothing.
    order: Vec<u32>,
    ordered: u64,
}

/// One batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch<'a> {
    /// Where the run stood before it.
    pub position: Position,
    /// The images in it: the full size, but for the last of an epoch, which has what is left.
    pub indices: &'a [u32],
    /// Whether the epoch ends with it.
    pub ends_epoch: bool,
}

impl Batches {
    /// Batches of `size` out of `count` images, from the beginning.
    ///
    /// # Panics
    /// If either is zero, or `count` does not fit in 32 bits.
    pub fn new(count: usize, size: usize, seed: u64) -> Batches {
        assert!(count > 0 && size > 0, "a batch needs images");
        let order = permutation(count, seed, 0);
        Batches { seed, size, whole_only: false, position: Position::default(), order, ordered: 0 }
    }

    /// The same without the smaller last batch of each epoch: the images that no whole batch has room for are others in
    /// each epoch.
    ///
    /// # Panics
    /// If there are fewer images than a batch has.
    pub fn whole_only(self) -> Batches {
        assert!(self.order.len() >= self.size, "there is one whole batch");
        Batches { whole_only: true, ..self }
    }

    /// Batches in one epoch, with the last, smaller one where there is one.
    pub fn per_epoch(&self) -> u64 {
        match self.whole_only {
            true => (self.order.len() / self.size) as u64,
            false => self.order.len().div_ceil(self.size) as u64,
        }
    }

    /// Images in the last batch of an epoch.
    pub fn last_size(&self) -> usize {
        match self.order.len() % self.size {
            0 => self.size,
            _ if self.whole_only => self.size,
            rest => rest,
        }
    }

    /// Images in the next batch.
    pub fn next_size(&self) -> usize {
        if self.position.batch + 1 == self.per_epoch() { self.last_size() } else { self.size }
    }

    /// Where the next batch begins.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Goes to `position`, so that the next batch is the one that an uninterrupted run would have had there. A batch
    /// number past the epoch's end counts on into the following epochs.
    pub fn seek(&mut self, position: Position) {
        let per_epoch = self.per_epoch();
        self.position = Position {
            epoch: position.epoch.wrapping_add(position.batch / per_epoch),
            batch: position.batch % per_epoch,
        };
    }

    /// The next batch. Allocates nothing.
    // Not an iterator: the batch borrows from the sequence.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Batch<'_> {
        let position = self.position;
        if self.ordered != position.epoch {
            self.order.iter_mut().zip(0..).for_each(|(slot, index)| *slot = index);
            shuffle(&mut self.order, self.seed, position.epoch);
            self.ordered = position.epoch;
        }
        let ends_epoch = position.batch + 1 == self.per_epoch();
        self.position = match ends_epoch {
            true => Position { epoch: position.epoch.wrapping_add(1), batch: 0 },
            false => Position { batch: position.batch + 1, ..position },
        };
        let start = position.batch as usize * self.size;
        let end = (start + self.size).min(self.order.len());
        Batch { position, indices: &self.order[start..end], ends_epoch }
    }
}

/// Writes the images at `indices` into `out`, pixels mapped from 0…255 to [-1, 1] as 2x/255 − 1.
///
/// # Panics
/// If an index is out of range, or `out` is not `indices.len() × channels × rows × columns` long.
pub fn fill_images(split: &Split, indices: &[u32], out: &mut [f32]) {
    let pixels = split.pixels();
    assert_eq!(out.len(), indices.len() * pixels, "the buffer has the batch's size");
    for (slot, &index) in out.chunks_exact_mut(pixels).zip(indices) {
        let image = &split.images[index as usize * pixels..][..pixels];
        slot.iter_mut().zip(image).for_each(|(value, &pixel)| *value = to_unit(pixel));
    }
}

/// Writes the labels at `indices` into `out`; false, and nothing written, if the split has no labels.
///
/// # Panics
/// If an index is out of range, or `out` is not as long as `indices`.
pub fn fill_labels(split: &Split, indices: &[u32], out: &mut [u32]) -> bool {
    let Some(labels) = &split.labels else { return false };
    assert_eq!(out.len(), indices.len(), "the buffer has the batch's size");
    out.iter_mut().zip(indices).for_each(|(slot, &index)| *slot = labels[index as usize].into());
    true
}

/// 0 is -1 and 255 is 1, exactly.
pub fn to_unit(pixel: u8) -> f32 {
    2.0 * f32::from(pixel) / 255.0 - 1.0
}

/// The numbers below `count` in an order that depends on `seed` and `epoch` alone.
///
/// # Panics
/// If `count` does not fit in 32 bits.
pub(super) fn permutation(count: usize, seed: u64, epoch: u64) -> Vec<u32> {
    let count = u32::try_from(count).expect("an image's index fits in 32 bits");
    let mut order: Vec<u32> = (0..count).collect();
    shuffle(&mut order, seed, epoch);
    order
}

/// Permutes `order` by `seed` and `epoch`.
fn shuffle(order: &mut [u32], seed: u64, epoch: u64) {
    // The 256-bit state is drawn from two generators, one a number, so that neighbouring seeds and epochs have nothing
    // in common, and (seed 1, epoch 2) nothing with (seed 2, epoch 1).
    let mut state = [0; 32];
    Xoshiro256PlusPlus::seed_from_u64(seed).fill_bytes(&mut state);
    let mut epochs = [0; 32];
    Xoshiro256PlusPlus::seed_from_u64(!epoch).fill_bytes(&mut epochs);
    state.iter_mut().zip(epochs).for_each(|(a, b)| *a ^= b);
    let mut random = Xoshiro256PlusPlus::from_seed(state);
    for last in (1..order.len()).rev() {
        order.swap(last, below(&mut random, last as u64 + 1) as usize);
    }
}

/// A uniform number below `bound`, which is not zero (Lemire, *Fast Random Integer Generation in an Interval*, 2019).
fn below(random: &mut impl Rng, bound: u64) -> u64 {
    // The 2^64 mod bound lowest fractions are one too many for some results: draw again.
    let unfair = bound.wrapping_neg() % bound;
    loop {
        let product = u128::from(random.next_u64()) * u128::from(bound);
        if product as u64 >= unfair {
            return (product >> 64) as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn take(batches: &mut Batches, count: usize) -> Vec<(Position, Vec<u32>)> {
        let mut one = || {
            let batch = batches.next();
            (batch.position, batch.indices.to_vec())
        };
        (0..count).map(|_| one()).collect()
    }

    /// Pinned, because a change would break every `--resume` across versions. The numbers come from an independent
    /// program that follows the definitions of xoshiro256++, splitmix64 (its seeding), Lemire's draw and algorithm P.
    #[test]
    fn the_order_never_changes() {
        let mut batches = Batches::new(10, 10, 42);
        assert_eq!(batches.next().indices, PINNED[0]);
        assert_eq!(batches.next().indices, PINNED[1]);
    }

    const PINNED: [[u32; 10]; 2] = [[4, 9, 8, 6, 5, 0, 7, 1, 2, 3], [4, 9, 5, 1, 6, 0, 8, 2, 3, 7]];

    #[test]
    fn an_epoch_of_mnist_ends_with_96() {
        let mut batches = Batches::new(60_000, 128, 1);
        assert_eq!((batches.per_epoch(), batches.last_size()), (469, 96));
        let mut seen = vec![false; 60_000];
        for batch in 0..469 {
            let expected = batches.next_size();
            let Batch { position, indices, ends_epoch } = batches.next();
            assert_eq!(indices.len(), expected);
            assert_eq!(position, Position { epoch: 0, batch });
            assert_eq!(indices.len(), if batch == 468 { 96 } else { 128 });
            assert_eq!(ends_epoch, batch == 468);
            indices.iter().for_each(|&i| assert!(!std::mem::replace(&mut seen[i as usize], true)));
        }
        assert!(seen.into_iter().all(|seen| seen));
        assert_eq!(batches.position(), Position { epoch: 1, batch: 0 });
    }

    #[test]
    fn an_epoch_of_whole_batches_leaves_the_rest_out() {
        let mut batches = Batches::new(10, 4, 1).whole_only();
        assert_eq!((batches.per_epoch(), batches.last_size()), (2, 4));
        let ends: Vec<(usize, bool)> = (0..4)
            .map(|_| {
                let batch = batches.next();
                (batch.indices.len(), batch.ends_epoch)
            })
            .collect();
        assert_eq!(ends, [(4, false), (4, true), (4, false), (4, true)]);
        assert_eq!(batches.position(), Position { epoch: 2, batch: 0 });
    }

    #[test]
    fn seeds_and_epochs_give_other_orders() {
        let order = |seed, epoch| {
            let mut batches = Batches::new(100, 100, seed);
            batches.seek(Position { epoch, batch: 0 });
            batches.next().indices.to_vec()
        };
        let orders = [order(1, 0), order(1, 1), order(1, 2), order(2, 0), order(2, 1), order(0, 0), order(0, 1)];
        for (i, a) in orders.iter().enumerate() {
            assert!(orders[..i].iter().all(|b| a != b));
        }
    }

    /// Each of the 24 orders of four images about equally often: χ² with 23 degrees of freedom is below 49.7 with
    /// probability 0.999.
    #[test]
    fn permutations_are_uniform() {
        let mut counts = std::collections::HashMap::new();
        let mut batches = Batches::new(4, 4, 7);
        (0..24_000).for_each(|_| *counts.entry(batches.next().indices.to_vec()).or_insert(0) += 1);
        assert_eq!(counts.len(), 24);
        let chi2: f64 = counts.values().map(|&n| (f64::from(n) - 1000.0).powi(2) / 1000.0).sum();
        assert!(chi2 < 49.7, "{chi2}");
    }

    proptest! {
        #[test]
        fn seeking_equals_going_there(
            count in 1usize..60, size in 1usize..20, seed: u64, before in 0usize..50,
        ) {
            let mut whole = Batches::new(count, size, seed);
            take(&mut whole, before);
            let position = whole.position();
            let mut resumed = Batches::new(count, size, seed);
            resumed.seek(position);
            prop_assert_eq!(take(&mut whole, 30), take(&mut resumed, 30));
        }
    }

    #[test]
    fn images_and_labels_are_filled() {
        let split = Split {
            images: vec![0, 51, 255, 102, 0, 1],
            labels: Some(vec![3, 4, 5]),
            channels: 1,
            rows: 1,
            columns: 2,
        };
        let mut images = [0.0; 4];
        fill_images(&split, &[1, 0], &mut images);
        assert_eq!(images, [1.0, 2.0 * 102.0 / 255.0 - 1.0, -1.0, 2.0 * 51.0 / 255.0 - 1.0]);
        let mut labels = [0; 2];
        assert!(fill_labels(&split, &[2, 0], &mut labels));
        assert_eq!(labels, [5, 3]);
        assert!(!fill_labels(&Split { labels: None, ..split }, &[2, 0], &mut labels));
    }
}
