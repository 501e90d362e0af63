//! Hard inputs with a known optimum, for tests and benchmarks.

use super::LiveRange;
use super::rng::SplitMix64;

/// `count` buffers that fill an arena of `height` bytes over `length` schedule positions without a gap, in an order
/// that tells nothing: a plan at the lower bound, `height`, exists, and every wasted byte shows.
///
/// The rectangle is cut again and again: the piece with the largest area (mostly) is cut in time or in memory, at a
/// random place that is a multiple of `grain` bytes. Fewer buffers come back when no piece can be cut any more.
pub fn perfect_packing(seed: u64, count: usize, length: usize, height: usize, grain: usize) -> Vec<LiveRange> {
    let mut rng = SplitMix64(seed);
    let grain = grain.max(1);
    let mut pieces = vec![LiveRange { start: 0, end: length, size: height }];
    let mut failures = 0;
    while pieces.len() < count && failures < 1000 {
        // The larger of three random pieces: sizes stay uneven, and few slivers are cut further.
        let pick = (0..3)
            .map(|_| rng.below(pieces.len()))
            .max_by_key(|&i| (pieces[i].end - pieces[i].start) as u128 * pieces[i].size as u128)
            .unwrap_or(0);
        let piece = pieces[pick];
        let span = piece.end - piece.start;
        let grains = piece.size / grain;
        // Wide pieces are cut in memory and tall ones in time, by relative extent, with a coin for variety.
        let tall = grains as f64 * grain as f64 / height as f64 > span as f64 / length as f64;
        let in_memory = if rng.unit() < 0.7 { tall } else { !tall };
        let (mut a, mut b) = (piece, piece);
        if in_memory && grains >= 2 {
            a.size = (1 + rng.below(grains - 1)) * grain;
            b.size = piece.size - a.size;
        } else if !in_memory && span >= 2 {
            a.end = piece.start + 1 + rng.below(span - 1);
            b.start = a.end;
        } else {
            failures += 1;
            continue;
        }
        pieces[pick] = a;
        pieces.push(b);
    }
    for i in (1..pieces.len()).rev() {
        pieces.swap(i, rng.below(i + 1));
    }
    pieces
}
