//! The inner kernels of matrix products: a few rows times one panel of columns, held in registers.
//!
//! Rows are given by pointers and one step along k, so that a convolution's rows (patches of an image
//! with its channels innermost) are read where they are, with no patch matrix (the indirect convolution
//! of Dukhan, "The Indirect Convolution Algorithm", arXiv 1907.02129), and so is a transposed matrix.
//! Columns are packed in panels. With the first panel the rows come from memory, which takes longer than
//! multiplying them: the next rows are asked for before they are needed. With the other panels, what the
//! next product reads is ([`Ahead`]).

use crate::scalar::simd::{Level, go_no_wider, multiversion};
use crate::tensor::Bf16;
use std::sync::OnceLock;

/// Most rows of any kernel.
pub const MAX_ROWS: usize = 12;
/// Floats of a cache line.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
const LINE: usize = 16;

/// What each 32-bit word of a product's rows and columns holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Words {
    F32,
    /// Two of bf16, neighbours along the sum; the first is in the lower half.
    Bf16Pairs,
}

/// The rows of one tile in memory.
pub struct Tile {
    /// Where each starts.
    rows: [*const f32; MAX_ROWS],
    /// From one element of a row to the next.
    step: usize,
    /// What the processor can be asked for meanwhile.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    later: Later,
}

/// What is read later and the caches may not have.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
enum Later {
    Nothing,
    /// The rows that are multiplied next.
    Rows([*const f32; MAX_ROWS]),
    Lines(Ahead),
}

/// Memory that is read after a product and is asked for while its panels but the first are multiplied: equally long rows,
/// one stride apart.
#[derive(Debug, Clone, Copy)]
pub struct Ahead {
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    from: *const u8,
    /// In bytes.
    stride: usize,
    /// Cache lines of a row, and of all.
    row_lines: usize,
    lines: usize,
    asked: usize,
}

impl Ahead {
    /// Nothing.
    pub const NONE: Ahead = Ahead { from: std::ptr::null(), stride: 0, row_lines: 1, lines: 0, asked: 0 };
    /// Cache lines that are asked for while [`LINE`] elements of each row are multiplied: so many that a product's columns
    /// are there at its end, and no more than memory gives in the time.
    const AT_ONCE: usize = 4;

    /// So many rows of some elements each, `stride` elements apart.
    pub fn new<T>(from: &[T], rows: usize, length: usize, stride: usize) -> Ahead {
        let bytes = LINE * size_of::<f32>();
        let row_lines = (length * size_of::<T>()).div_ceil(bytes).max(1);
        let lines = if from.is_empty() { 0 } else { rows * row_lines };
        Ahead { from: from.as_ptr().cast(), stride: stride * size_of::<T>(), row_lines, lines, asked: 0 }
    }

    /// Where a line is.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    #[inline(always)]
    fn byte(&self, line: usize) -> usize {
        line / self.row_lines * self.stride + line % self.row_lines * LINE * size_of::<f32>()
    }

    /// Asks for the lines that are due at element `first` of the rows.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn ask(&self, first: usize) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        let from = self.asked + first / LINE * Ahead::AT_ONCE;
        for line in from..(from + Ahead::AT_ONCE).min(self.lines) {
            // SAFETY: a prefetch of any address is sound.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(self.from.wrapping_add(self.byte(line)).cast()) };
        }
    }
}

impl Tile {
    /// Asks for what is read later: of the next rows, what they have at the [`LINE`] elements from `first` on.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn prefetch(&self, rows: usize, first: usize) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        let next = match &self.later {
            Later::Nothing => return,
            Later::Lines(ahead) => return ahead.ask(first),
            Later::Rows(next) => next,
        };
        // SAFETY: a prefetch of any address is sound.
        let prefetch = |row: usize, k: usize| unsafe {
            _mm_prefetch::<_MM_HINT_T1>(next[row].wrapping_add(k * self.step).cast());
        };
        if self.step == 1 {
            (0..rows).for_each(|row| prefetch(row, first));
        } else {
            // Rows are neighbours: what the last one's line lacks came with the rows of this tile.
            (first..first + LINE).for_each(|k| prefetch(rows - 1, k));
        }
    }
}

/// A product of [`Micro::ROWS`] rows and [`Micro::COLUMNS`] columns. Floats may stand for other [`Words`].
pub trait Micro: 'static {
    const ROWS: usize;
    const COLUMNS: usize;

    /// `c[i·ldc + j] = Σ a[i][k]·b[k·COLUMNS + j]` for `k < depth`, added to what is there if
    /// `accumulate`.
    ///
    /// # Safety
    /// `a` holds at least `ROWS` pointers to `depth` floats each, a step apart, `b` points to `depth · COLUMNS`
    /// floats, `c` to `ROWS` rows of `COLUMNS` floats that are `ldc` apart, and the processor has the kernel's
    /// instruction set.
    unsafe fn run(depth: usize, a: &Tile, b: *const f32, c: *mut f32, ldc: usize, accumulate: bool);
}

/// For any processor.
pub struct Portable;

impl Micro for Portable {
    const ROWS: usize = 4;
    const COLUMNS: usize = 16;

    unsafe fn run(depth: usize, a: &Tile, b: *const f32, c: *mut f32, ldc: usize, accumulate: bool) {
        // SAFETY: the caller's promises are those of the callee.
        unsafe { portable(depth, a, b, c, ldc, accumulate, |sum, x, y| sum + x * y) }
    }
}

/// Pairs of bf16 for any processor.
pub struct PortablePairs;

impl Micro for PortablePairs {
    const ROWS: usize = 4;
    const COLUMNS: usize = 16;

    unsafe fn run(depth: usize, a: &Tile, b: *const f32, c: *mut f32, ldc: usize, accumulate: bool) {
        let add = |sum, x, y| {
            let (x, y) = (halves(x), halves(y));
            sum + x[1] * y[1] + x[0] * y[0]
        };
        // SAFETY: the caller's promises are those of the callee.
        unsafe { portable(depth, a, b, c, ldc, accumulate, add) }
    }
}

/// 4 × 16, where `add` adds the product of two words to a sum.
///
/// # Safety
/// As for [`Micro::run`].
#[inline(always)]
unsafe fn portable(
    depth: usize,
    a: &Tile,
    b: *const f32,
    c: *mut f32,
    ldc: usize,
    accumulate: bool,
    add: impl Fn(f32, f32, f32) -> f32,
) {
    let mut sums = [[0f32; 16]; 4];
    for k in 0..depth {
        // SAFETY: `b` has `depth` rows of 16 words, each of `a` has `depth` words.
        let columns = unsafe { &*b.add(k * 16).cast::<[f32; 16]>() };
        for (sums, row) in sums.iter_mut().zip(a.rows) {
            // SAFETY: as above.
            let x = unsafe { *row.add(k * a.step) };
            for (sum, column) in sums.iter_mut().zip(columns) {
                *sum = add(*sum, x, *column);
            }
        }
    }
    for (i, sums) in sums.iter().enumerate() {
        // SAFETY: `c` has 4 rows of 16 floats, `ldc` apart.
        let row = unsafe { &mut *c.add(i * ldc).cast::<[f32; 16]>() };
        for (c, sum) in row.iter_mut().zip(sums) {
            *c = if accumulate { *c + sum } else { *sum };
        }
    }
}

/// The two of bf16 that a word holds.
#[inline(always)]
fn halves(word: f32) -> [f32; 2] {
    let bits = word.to_bits();
    [f32::from_bits(bits << 16), f32::from_bits(bits & 0xffff_0000)]
}

/// Two of bf16 as a word.
#[inline(always)]
pub fn pair(first: Bf16, second: Bf16) -> f32 {
    f32::from_bits(u32::from(first.0) | u32::from(second.0) << 16)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{LINE, Micro, Tile};
    use std::arch::x86_64::*;

    /// 6 × 16 in twelve 256-bit accumulators.
    pub struct Avx2;

    impl Micro for Avx2 {
        const ROWS: usize = 6;
        const COLUMNS: usize = 16;

        #[inline]
        unsafe fn run(depth: usize, a: &Tile, b: *const f32, c: *mut f32, ldc: usize, accumulate: bool) {
            // SAFETY: the caller's promises are those of the callee.
            unsafe { avx2(depth, a, b, c, ldc, accumulate) }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2(depth: usize, a: &Tile, b: *const f32, c: *mut f32, ldc: usize, accumulate: bool) {
        // SAFETY: all addresses are within what the caller promises: `depth` floats a row, 16 a column row,
        // 6 rows of 16 results.
        unsafe {
            let mut sums = [[_mm256_setzero_ps(); 2]; 6];
            for first in (0..depth).step_by(LINE) {
                a.prefetch(6, first);
                for k in first..(first + LINE).min(depth) {
                    let b0 = _mm256_loadu_ps(b.add(k * 16));
                    let b1 = _mm256_loadu_ps(b.add(k * 16 + 8));
                    for (sums, row) in sums.iter_mut().zip(a.rows) {
                        let x = _mm256_broadcast_ss(&*row.add(k * a.step));
                        sums[0] = _mm256_fmadd_ps(x, b0, sums[0]);
                        sums[1] = _mm256_fmadd_ps(x, b1, sums[1]);
                    }
                }
            }
            for (i, sums) in sums.iter().enumerate() {
                for (j, &sum) in sums.iter().enumerate() {
                    let at = c.add(i * ldc + 8 * j);
                    let value = if accumulate { _mm256_add_ps(_mm256_loadu_ps(at), sum) } else { sum };
                    _mm256_storeu_ps(at, value);
                }
            }
        }
    }

    /// A kernel of 12 × 32 in twenty-four 512-bit accumulators: its instruction set, and a sum with the product of a row's
    /// word and columns added.
    macro_rules! of_512_bits {
        (
            $(#[$meta:meta])* $kernel:ident, $function:ident, $features:literal,
            |$sum:ident, $x:ident, $columns:ident| $added:expr
        ) => {
            $(#[$meta])*
            pub struct $kernel;

            impl Micro for $kernel {
                const ROWS: usize = 12;
                const COLUMNS: usize = 32;

                #[inline]
                unsafe fn run(depth: usize, a: &Tile, b: *const f32, c: *mut f32, ldc: usize, accumulate: bool) {
                    // SAFETY: the caller's promises are those of the callee.
                    unsafe { $function(depth, a, b, c, ldc, accumulate) }
                }
            }

            #[target_feature(enable = $features)]
            unsafe fn $function(depth: usize, a: &Tile, b: *const f32, c: *mut f32, ldc: usize, accumulate: bool) {
                // SAFETY: as for `avx2`, with 12 rows and 32 columns.
                unsafe {
                    let mut sums = [[_mm512_setzero_ps(); 2]; 12];
                    for first in (0..depth).step_by(LINE) {
                        a.prefetch(12, first);
                        for k in first..(first + LINE).min(depth) {
                            let columns = [_mm512_loadu_ps(b.add(k * 32)), _mm512_loadu_ps(b.add(k * 32 + 16))];
                            for (sums, row) in sums.iter_mut().zip(a.rows) {
                                let $x = _mm512_set1_ps(*row.add(k * a.step));
                                for (sum, $columns) in sums.iter_mut().zip(columns) {
                                    let $sum = *sum;
                                    *sum = $added;
                                }
                            }
                        }
                    }
                    for (i, sums) in sums.iter().enumerate() {
                        for (j, &sum) in sums.iter().enumerate() {
                            let at = c.add(i * ldc + 16 * j);
                            let value = if accumulate { _mm512_add_ps(_mm512_loadu_ps(at), sum) } else { sum };
                            _mm512_storeu_ps(at, value);
                        }
                    }
                }
            }
        };
    }

    of_512_bits!(
        /// Of f32.
        Avx512, avx512, "avx512f", |sum, x, columns| _mm512_fmadd_ps(x, columns, sum)
    );
    of_512_bits!(
        /// Of pairs of bf16: twice as many products an instruction.
        Avx512Pairs, avx512_pairs, "avx512f,avx512bf16",
        |sum, x, columns| _mm512_dpbf16_ps(sum, pairs(x), pairs(columns))
    );

    /// Words as what they hold.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn pairs(words: __m512) -> __m512bh {
        // SAFETY: a vector of 32-bit words is as many pairs of bf16, and any bits are a pair.
        unsafe { std::mem::transmute(words) }
    }
}

#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512, Avx512Pairs};

#[cfg(target_arch = "aarch64")]
mod arm {
    use super::{Micro, Tile};
    use std::arch::aarch64::*;

    /// 6 × 16 in twenty-four 128-bit accumulators.
    pub struct Neon;

    impl Micro for Neon {
        const ROWS: usize = 6;
        const COLUMNS: usize = 16;

        #[inline]
        unsafe fn run(depth: usize, a: &Tile, b: *const f32, c: *mut f32, ldc: usize, accumulate: bool) {
            // SAFETY: all addresses are within what the caller promises: `depth` floats a row, 16 a column row,
            // 6 rows of 16 results. Every processor of this architecture has NEON.
            unsafe {
                let mut sums = [[vdupq_n_f32(0.0); 4]; 6];
                for k in 0..depth {
                    let columns = [0, 4, 8, 12].map(|j| vld1q_f32(b.add(k * 16 + j)));
                    for (sums, row) in sums.iter_mut().zip(a.rows) {
                        let x = vdupq_n_f32(*row.add(k * a.step));
                        for (sum, column) in sums.iter_mut().zip(columns) {
                            *sum = vfmaq_f32(*sum, x, column);
                        }
                    }
                }
                for (i, sums) in sums.iter().enumerate() {
                    for (j, &sum) in sums.iter().enumerate() {
                        let at = c.add(i * ldc + 4 * j);
                        let value = if accumulate { vaddq_f32(vld1q_f32(at), sum) } else { sum };
                        vst1q_f32(at, value);
                    }
                }
            }
        }
    }
}

#[cfg(target_arch = "aarch64")]
pub use arm::Neon;

/// An instruction set for which there is a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX-512 with products of bf16 (AVX512-BF16).
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

/// What a process was limited to.
static LIMIT: OnceLock<Isa> = OnceLock::new();

/// An inner kernel.
struct Kernel {
    rows: usize,
    columns: usize,
    block: fn(&Product, &mut Ahead, &mut [f32]),
}

impl Kernel {
    fn of<M: Micro>() -> Kernel {
        Kernel { rows: M::ROWS, columns: M::COLUMNS, block: block_with::<M> }
    }
}

impl Isa {
    /// The widest that this processor has and that [`Isa::limit`] allows.
    pub fn detect() -> Isa {
        LIMIT.get().copied().unwrap_or_else(|| *Isa::available().last().unwrap_or(&Isa::Portable))
    }

    /// Has this process use no wider instructions than these, in devices that are made from now on: to compare with
    /// other processors. Only the first call counts.
    pub fn limit(self) {
        let limit = *LIMIT.get_or_init(|| self);
        go_no_wider(match limit {
            Isa::Portable => Level::Generic,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Level::Avx2,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx512Bf16 => Level::Avx512,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => Level::Generic,
        });
    }

    /// All that this processor has, narrowest first.
    pub fn available() -> Vec<Isa> {
        let mut found = vec![Isa::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
                found.push(Isa::Avx2);
            }
            if std::arch::is_x86_feature_detected!("avx512f") {
                found.push(Isa::Avx512);
                if std::arch::is_x86_feature_detected!("avx512bf16") {
                    found.push(Isa::Avx512Bf16);
                }
            }
        }
        #[cfg(target_arch = "aarch64")]
        found.push(Isa::Neon);
        found
    }

    /// The instruction set's name, as processors' makers write it but in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => "avx512-bf16",
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => "neon",
        }
    }

    fn kernel(self, words: Words) -> Kernel {
        match (words, self) {
            (Words::F32, Isa::Portable) => Kernel::of::<Portable>(),
            #[cfg(target_arch = "x86_64")]
            (Words::F32, Isa::Avx2) => Kernel::of::<Avx2>(),
            #[cfg(target_arch = "x86_64")]
            (Words::F32, Isa::Avx512 | Isa::Avx512Bf16) => Kernel::of::<Avx512>(),
            #[cfg(target_arch = "x86_64")]
            (Words::Bf16Pairs, Isa::Avx512Bf16) => Kernel::of::<Avx512Pairs>(),
            #[cfg(target_arch = "aarch64")]
            (Words::F32, Isa::Neon) => Kernel::of::<Neon>(),
            (Words::Bf16Pairs, _) => Kernel::of::<PortablePairs>(),
        }
    }

    /// Rows and columns of the kernel for f32.
    pub(super) fn tile(self) -> (usize, usize) {
        self.tile_of(Words::F32)
    }

    /// Rows and columns of the kernel.
    pub(super) fn tile_of(self, words: Words) -> (usize, usize) {
        let Kernel { rows, columns, .. } = self.kernel(words);
        (rows, columns)
    }
}

/// The rows of a product, in memory that outlives it.
pub struct Rows<'p> {
    pub data: &'p [f32],
    /// Where each row starts in `data`.
    pub starts: &'p [usize],
    /// From one element of a row to the next, where rows are neighbours; else 1.
    pub step: usize,
}

/// `c[i·width + j] (+)= Σ rows[i][offset + k·step] · columns[j / lanes][k][j % lanes]` for `k < depth`, where
/// `width = panels · lanes`.
pub struct Product<'p> {
    pub words: Words,
    pub rows: Rows<'p>,
    pub offset: usize,
    pub depth: usize,
    /// Panels of columns, one after the other.
    pub columns: &'p [f32],
    pub panels: usize,
    /// Whether the sums are added to what is there.
    pub accumulate: bool,
}

/// Computes a product whose panels have the lanes of the instruction set's tile.
///
/// `c` has room for the rows rounded up to the tile's: what lies beyond is overwritten with nothing of
/// use.
pub fn block(isa: Isa, product: &Product, c: &mut [f32]) {
    let mut nothing = Ahead::NONE;
    block_before(isa, product, &mut nothing, c);
}

/// As [`block`], and asks meanwhile for some of what is read afterwards.
pub fn block_before(isa: Isa, product: &Product, ahead: &mut Ahead, c: &mut [f32]) {
    (isa.kernel(product.words).block)(product, ahead, c);
}

fn block_with<M: Micro>(product: &Product, ahead: &mut Ahead, c: &mut [f32]) {
    let Product { rows: Rows { data, starts, step }, offset, depth, columns, panels, accumulate, .. } = *product;
    let width = panels * M::COLUMNS;
    assert!(columns.len() >= depth * width, "columns are missing");
    assert!(c.len() >= starts.len().next_multiple_of(M::ROWS) * width, "results have no room");
    let Some(&furthest) = starts.iter().max() else { return };
    assert!(depth > 0 && furthest + offset + (depth - 1) * step < data.len(), "rows leave their memory");
    for panel in 0..panels {
        let b = columns[panel * depth * M::COLUMNS..].as_ptr();
        let mut tiles = starts.chunks(M::ROWS).map(|starts| pointers(data, starts, offset)).peekable();
        let mut at = panel * M::COLUMNS;
        while let Some(rows) = tiles.next() {
            let later = match panel {
                0 => tiles.peek().map_or(Later::Nothing, |next| Later::Rows(*next)),
                _ if ahead.asked >= ahead.lines => Later::Nothing,
                _ => {
                    let now = *ahead;
                    ahead.asked += depth.div_ceil(LINE) * Ahead::AT_ONCE;
                    Later::Lines(now)
                }
            };
            // SAFETY: by the assertions rows, columns and results are all inside their slices; the
            // instruction set was detected.
            unsafe { M::run(depth, &Tile { rows, step, later }, b, c[at..].as_mut_ptr(), width, accumulate) };
            at += M::ROWS * width;
        }
    }
}

/// Where some rows start. Rows beyond the last repeat the first; their results are not used.
fn pointers(data: &[f32], starts: &[usize], offset: usize) -> [*const f32; MAX_ROWS] {
    let mut pointers = [data[starts[0] + offset..].as_ptr(); MAX_ROWS];
    for (pointer, start) in pointers.iter_mut().zip(starts) {
        *pointer = data[start + offset..].as_ptr();
    }
    pointers
}

/// Computes a product of f32 whose panels are single columns, as dot products of rows with a step of 1.
pub fn dots(product: &Product, c: &mut [f32]) {
    let Product { rows: Rows { data, starts, .. }, offset, depth, columns, panels, accumulate, .. } = *product;
    for (row, start) in c.chunks_exact_mut(panels).zip(starts) {
        let a = &data[start + offset..][..depth];
        for (value, column) in row.iter_mut().zip(columns.chunks_exact(depth.max(1))) {
            let sum = dot(a, column);
            *value = if accumulate { *value + sum } else { sum };
        }
    }
}

const LANES: usize = 32;

multiversion! {
    /// In a fixed tree: as many partial sums as four of the widest vectors' half have lanes.
    fn dot(a: &[f32], b: &[f32]) -> f32 {
        let mut sums = [0f32; LANES];
        let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
        for (i, (x, y)) in a_chunks.remainder().iter().zip(b_chunks.remainder()).enumerate() {
            sums[i] += x * y;
        }
        for (x, y) in a_chunks.zip(b_chunks) {
            for i in 0..LANES {
                sums[i] += x[i] * y[i];
            }
        }
        for width in [16, 8, 4, 2, 1] {
            for i in 0..width {
                sums[i] += sums[i + width];
            }
        }
        sums[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_what_will_be_read() {
        let memory = [0f32; 220];
        let ahead = Ahead::new(&memory, 3, 20, 100);
        let bytes: Vec<usize> = (0..ahead.lines).map(|line| ahead.byte(line)).collect();
        assert_eq!(bytes, [0, 64, 400, 464, 800, 864]);
        assert_eq!(Ahead::new(&memory[..0], 3, 0, 0).lines, 0);
    }
}
