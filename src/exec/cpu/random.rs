//! Random draws, many at a time.

use crate::plan::Distribution;
use crate::scalar::simd::multiversion;

/// The key and the constant part of the counter of one draw: see `ir::Op::Random`.
#[derive(Debug, Clone, Copy)]
pub struct Draw {
    pub seed: [u32; 2],
    pub step: u32,
    pub stream: u64,
}

/// Blocks of words that are computed side by side: so many that the next round of one need not wait for the last.
const BLOCKS: usize = 32;
const BATCH: usize = 4 * BLOCKS;
/// Bits of a word that a draw is made of.
const BITS: u32 = 24;

/// Elements `start..start + out.len()` of a draw.
pub fn fill(draw: Draw, distribution: Distribution, start: usize, out: &mut [f32]) {
    match distribution {
        Distribution::Uniform => batches(start, out, |block, batch| uniform_batch(draw, block, batch)),
        Distribution::Normal => batches(start, out, |block, batch| {
            uniform_batch(draw, block, batch);
            normal_batch(batch);
        }),
        Distribution::Bernoulli(p) => {
            // As many of all numbers of so many bits are below `p` when they are scaled to [0, 1).
            let below = (f64::from(p.0 as f32) * f64::from(1u32 << BITS)).ceil() as u32;
            batches(start, out, |block, batch| bernoulli_batch(draw, block, below, batch));
        }
    }
}

/// Fills elements batch by batch; `f` is given a batch's first block.
fn batches(start: usize, out: &mut [f32], f: impl Fn(u32, &mut [f32; BATCH])) {
    let mut done = 0;
    while done < out.len() {
        let (block, skip) = ((start + done) / 4, (start + done) % 4);
        let rest = &mut out[done..];
        match rest.first_chunk_mut() {
            Some(batch) if skip == 0 => {
                f(block as u32, batch);
                done += BATCH;
            }
            _ => {
                let mut batch = [0f32; BATCH];
                f(block as u32, &mut batch);
                let n = (BATCH - skip).min(rest.len());
                rest[..n].copy_from_slice(&batch[skip..skip + n]);
                done += n;
            }
        }
    }
}

multiversion! {
    /// The uniform draws of consecutive blocks.
    fn uniform_batch(draw: Draw, first_block: u32, out: &mut [f32; BATCH]) {
        let unit = 1.0 / (1u32 << BITS) as f32;
        words(draw, first_block, out, |word| (word >> (u32::BITS - BITS)) as f32 * unit);
    }
}

multiversion! {
    /// 1 where the bits of a draw are a number below `below`, else 0.
    fn bernoulli_batch(draw: Draw, first_block: u32, below: u32, out: &mut [f32; BATCH]) {
        words(draw, first_block, out, |word| if word >> (u32::BITS - BITS) < below { 1.0 } else { 0.0 });
    }
}

/// What `f` makes of the words of consecutive blocks (Philox4x32-10; Salmon et al., SC 2011).
#[inline(always)]
fn words(draw: Draw, first_block: u32, out: &mut [f32; BATCH], f: impl Fn(u32) -> f32) {
    // Words in lower halves, where a product takes them from; what is above them means nothing.
    const WORD: u64 = u32::MAX as u64;
    let mut c0: [u64; BLOCKS] = std::array::from_fn(|i| u64::from(first_block.wrapping_add(i as u32)));
    let mut c1 = [u64::from(draw.step); BLOCKS];
    let mut c2 = [draw.stream; BLOCKS];
    let mut c3 = [draw.stream >> 32; BLOCKS];
    let [mut k0, mut k1] = draw.seed;
    for _ in 0..10 {
        for i in 0..BLOCKS {
            let p0 = (c0[i] & WORD) * 0xD251_1F53;
            let p1 = (c2[i] & WORD) * 0xCD9E_8D57;
            c0[i] = (p1 >> 32) ^ c1[i] ^ u64::from(k0);
            c2[i] = (p0 >> 32) ^ c3[i] ^ u64::from(k1);
            (c1[i], c3[i]) = (p1, p0);
        }
        k0 = k0.wrapping_add(0x9E37_79B9);
        k1 = k1.wrapping_add(0xBB67_AE85);
    }
    let mut pairs = [0; 2 * BLOCKS];
    for i in 0..BLOCKS {
        pairs[2 * i] = c0[i] & WORD | c1[i] << 32;
        pairs[2 * i + 1] = c2[i] & WORD | c3[i] << 32;
    }
    for (out, pair) in out.chunks_exact_mut(2).zip(pairs) {
        out[0] = f(pair as u32);
        out[1] = f((pair >> 32) as u32);
    }
}

/// Box–Muller on neighbouring pairs; the first of a pair is moved to (0, 1] so that its logarithm is
/// finite.
fn normal_batch(batch: &mut [f32; BATCH]) {
    let unit = 1.0 / f64::from(1u32 << BITS);
    for pair in batch.chunks_exact_mut(2) {
        let radius = (-2.0 * (f64::from(pair[0]) + unit).ln()).sqrt();
        let angle = std::f64::consts::TAU * f64::from(pair[1]);
        pair[0] = (radius * angle.cos()) as f32;
        pair[1] = (radius * angle.sin()) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scalar::philox;
    use crate::scalar::simd::at_each_level;
    use crate::types::Real;

    #[test]
    fn every_part_of_a_draw_is_the_same_draw() {
        let draw = Draw { seed: [7, u32::MAX], step: 5, stream: 0x0123_4567_89ab_cdef };
        let uniform = |i: usize| philox::uniform(draw.seed, draw.step, draw.stream, i as u64);
        let p = 0.3f32;
        at_each_level(|_| {
            for (start, len) in [(0, 1), (3, 5), (1, 127), (4, 128), (8, 300), (130, 259), (1 << 34, 140)] {
                let mut found = vec![-1.0; len];
                fill(draw, Distribution::Uniform, start, &mut found);
                assert!(found.iter().zip(start..).all(|(&x, i)| f64::from(x) == uniform(i)), "{start} {len}");
                fill(draw, Distribution::Bernoulli(Real(f64::from(p))), start, &mut found);
                let expected = |i| if uniform(i) < f64::from(p) { 1.0 } else { 0.0 };
                assert!(found.iter().zip(start..).all(|(&x, i)| x == expected(i)), "{start} {len}");
                fill(draw, Distribution::Normal, start, &mut found);
                let normal = |i: usize| philox::normal(draw.seed, draw.step, draw.stream, i as u64);
                assert!(found.iter().zip(start..).all(|(&x, i)| (f64::from(x) - normal(i)).abs() < 1e-6), "{start}");
            }
            for (p, every) in [(0.0, 0.0), (1.0, 1.0)] {
                let mut found = vec![0.5; 1000];
                fill(draw, Distribution::Bernoulli(Real(p)), 0, &mut found);
                assert!(found.iter().all(|&x| x == every), "with probability {p}");
            }
        });
    }
}
