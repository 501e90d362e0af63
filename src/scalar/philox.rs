//! Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1,
//! 2, 3", SC 2011). A word is a pure function of key and counter, so a draw has the same bits on every
//! device and in every schedule.

/// The block of four words for a key and a counter.
pub fn philox4x32_10(key: [u32; 2], counter: [u32; 4]) -> [u32; 4] {
    let [mut k0, mut k1] = key;
    let mut c = counter;
    for _ in 0..10 {
        let p0 = u64::from(c[0]) * 0xD251_1F53;
        let p1 = u64::from(c[2]) * 0xCD9E_8D57;
        c = [(p1 >> 32) as u32 ^ c[1] ^ k0, p1 as u32, (p0 >> 32) as u32 ^ c[3] ^ k1, p0 as u32];
        k0 = k0.wrapping_add(0x9E37_79B9);
        k1 = k1.wrapping_add(0xBB67_AE85);
    }
    c
}

/// The number of a stream: 64-bit FNV-1a of its name.
pub fn stream_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// Word `element` of a draw: word `element % 4` of the block that counts `element / 4`.
pub fn word(seed: [u32; 2], step: u32, stream: u64, element: u64) -> u32 {
    let counter = [(element / 4) as u32, step, stream as u32, (stream >> 32) as u32];
    philox4x32_10(seed, counter)[(element % 4) as usize]
}

/// Uniform on [0, 1), in steps of 2^-24: exact in f32.
pub fn uniform(seed: [u32; 2], step: u32, stream: u64, element: u64) -> f64 {
    f64::from(word(seed, step, stream, element) >> 8) / f64::from(1u32 << 24)
}

/// Standard normal, by the Box–Muller transform of neighbouring uniform draws; the first of a pair is
/// moved to (0, 1], so that its logarithm is finite.
pub fn normal(seed: [u32; 2], step: u32, stream: u64, element: u64) -> f64 {
    let first = element & !1;
    let unit = 1.0 / f64::from(1u32 << 24);
    let radius = (-2.0 * (uniform(seed, step, stream, first) + unit).ln()).sqrt();
    let angle = std::f64::consts::TAU * uniform(seed, step, stream, first + 1);
    if element.is_multiple_of(2) { radius * angle.cos() } else { radius * angle.sin() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        // From Random123's kat_vectors.
        assert_eq!(philox4x32_10([0; 2], [0; 4]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox4x32_10([u32::MAX; 2], [u32::MAX; 4]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    }

    #[test]
    fn normal_draws_have_mean_0_and_variance_1() {
        let n = 100_000;
        let draws: Vec<f64> = (0..n).map(|i| normal([1, 2], 3, stream_hash("x"), i)).collect();
        let mean = draws.iter().sum::<f64>() / n as f64;
        let variance = draws.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n as f64;
        // Standard errors: 0.0032 and 0.0045.
        assert!(mean.abs() < 0.015 && (variance - 1.0).abs() < 0.02, "mean {mean}, variance {variance}");
    }
}
