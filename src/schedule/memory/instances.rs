//! Inputs for tests and benchmarks: hard ones with a known optimum, large ordinary ones, and those of files.

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

/// As [`perfect_packing`], with each size lowered by a random part of at most one in `most` (at least 1), in whole
/// grains: it still fits `height` bytes, the largest sum of live sizes is below that, and the optimum is between.
pub fn loose_packing(
    seed: u64,
    count: usize,
    length: usize,
    height: usize,
    grain: usize,
    most: usize,
) -> Vec<LiveRange> {
    let grain = grain.max(1);
    let mut rng = SplitMix64(seed);
    let mut buffers = perfect_packing(seed, count, length, height, grain);
    for buffer in &mut buffers {
        buffer.size -= rng.below(buffer.size / grain / most.max(1) + 1) * grain;
    }
    buffers
}

/// A training step of about `count` buffers: activations live until their turn going backward, gradients for a moment,
/// some of them to the end, and some results skip a few layers. Sizes are multiples of 64 bytes, up to 256 KiB.
pub fn training_step(seed: u64, count: usize) -> Vec<LiveRange> {
    let mut rng = SplitMix64(seed);
    let layers = count / 4;
    let end = 2 * layers;
    let mut buffers = Vec::with_capacity(4 * layers);
    for start in 0..layers {
        let mut live = |start: usize, end: usize, most: usize| {
            buffers.push(LiveRange { start, end, size: 64 * (1 + rng.below(most)) });
        };
        let back = end - start - 1;
        live(start, back + 1, 4096);
        live(back, back + 2, 4096);
        live(start, start + 1 + start % 3, 4096);
        match start % 3 {
            0 => live(back, end, 512),
            1 => live(start, (start + 2 + start % 31).min(end), 4096),
            _ => live(back, back + 1, 4096),
        }
    }
    buffers
}

/// `count` buffers of an evaluation: nine in ten live for a few positions, the others for up to sixty.
pub fn evaluation(seed: u64, count: usize) -> Vec<LiveRange> {
    let mut rng = SplitMix64(seed);
    let live = |start| {
        let span = if rng.below(10) == 0 { 1 + rng.below(60) } else { 2 + rng.below(3) };
        LiveRange { start, end: start + span, size: 64 * (1 + rng.below(4096)) }
    };
    (0..count).map(live).collect()
}

/// Reads an instance in the format of MiniMalloc's benchmarks: a header that names the columns, among them `lower`,
/// `upper` (schedule positions, the range is half-open) and `size` (bytes), then a buffer a line.
///
/// # Errors
///
/// A message that names the line, counted from 1, of the first fault.
pub fn from_csv(text: &str) -> Result<Vec<LiveRange>, String> {
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let (_, header) = lines.next().ok_or("line 1: expected a header with the columns lower, upper and size")?;
    let names: Vec<&str> = header.split(',').map(str::trim).collect();
    let column = |name: &str| {
        let found = names.iter().position(|&n| n == name);
        found.ok_or_else(|| format!("line 1: no column `{name}` in the header `{header}`"))
    };
    let (lower, upper, size) = (column("lower")?, column("upper")?, column("size")?);
    let parse = |(index, line): (usize, &str)| {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let number = |column: usize| {
            let field = fields.get(column).copied().unwrap_or_default();
            let name = names[column];
            field.parse().map_err(|_| format!("line {}: `{field}` is not a whole number for `{name}`", index + 1))
        };
        Ok(LiveRange { start: number(lower)?, end: number(upper)?, size: number(size)? })
    };
    lines.map(parse).collect()
}
