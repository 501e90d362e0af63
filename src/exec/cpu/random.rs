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

/// Blocks that are computed side by side.
const BLOCKS: usize = 16;
const BATCH: usize = 4 * BLOCKS;

/// Elements `start..start + out.len()` of a draw.
pub fn fill(draw: Draw, distribution: Distribution, start: usize, out: &mut [f32]) {
    let mut done = 0;
    while done < out.len() {
        let element = start + done;
        let first_block = element / 4;
        let skip = element % 4;
        let n = (BATCH - skip).min(out.len() - done);
        let mut batch = [0f32; BATCH];
        uniform_batch(draw, first_block as u32, &mut batch);
        match distribution {
            Distribution::Uniform => {}
            Distribution::Normal => normal_batch(&mut batch),
            Distribution::Bernoulli(p) => bernoulli_batch(p.0 as f32, &mut batch),
        }
        out[done..done + n].copy_from_slice(&batch[skip..skip + n]);
        done += n;
    }
}

multiversion! {
    /// The uniform draws of consecutive blocks (Philox4x32-10; Salmon et al., SC 2011).
    fn uniform_batch(draw: Draw, first_block: u32, out: &mut [f32; BATCH]) {
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
        let unit = 1.0 / (1u32 << 24) as f32;
        for i in 0..BLOCKS {
            for (j, c) in [&c0, &c1, &c2, &c3].into_iter().enumerate() {
                out[4 * i + j] = (c[i] as u32 >> 8) as f32 * unit;
            }
        }
    }
}

/// Box–Muller on neighbouring pairs; the first of a pair is moved to (0, 1] so that its logarithm is
/// finite.
fn normal_batch(batch: &mut [f32; BATCH]) {
    let unit = 1.0 / f64::from(1u32 << 24);
    for pair in batch.chunks_exact_mut(2) {
        let radius = (-2.0 * (f64::from(pair[0]) + unit).ln()).sqrt();
        let angle = std::f64::consts::TAU * f64::from(pair[1]);
        pair[0] = (radius * angle.cos()) as f32;
        pair[1] = (radius * angle.sin()) as f32;
    }
}

multiversion! {
    fn bernoulli_batch(p: f32, batch: &mut [f32; BATCH]) {
        for x in batch {
            *x = if *x < p { 1.0 } else { 0.0 };
        }
    }
}
