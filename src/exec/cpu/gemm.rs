//! The inner kernels of matrix products: a few rows times one panel of columns, held in registers.
//!
//! Rows are given by pointers, contiguous along k, so that a convolution's rows (patches of an image
//! with its channels innermost) are read where they are, with no patch matrix (the indirect convolution
//! of Dukhan, "The Indirect Convolution Algorithm", arXiv 1907.02129). Columns are packed in panels.

/// Most rows of any kernel.
pub const MAX_ROWS: usize = 12;

/// A product of [`Micro::ROWS`] rows and [`Micro::COLUMNS`] columns.
pub trait Micro: 'static {
    const ROWS: usize;
    const COLUMNS: usize;

    /// `c[i·ldc + j] = Σ a[i][k]·b[k·COLUMNS + j]` for `k < depth`, added to what is there if
    /// `accumulate`.
    ///
    /// # Safety
    /// `a` holds at least `ROWS` pointers to `depth` floats each, `b` points to `depth · COLUMNS` floats,
    /// `c` to `ROWS` rows of `COLUMNS` floats that are `ldc` apart, and the processor has the kernel's
    /// instruction set.
    unsafe fn run(depth: usize, a: &[*const f32; MAX_ROWS], b: *const f32, c: *mut f32, ldc: usize, accumulate: bool);
}

/// For any processor.
pub struct Portable;

impl Micro for Portable {
    const ROWS: usize = 4;
    const COLUMNS: usize = 16;

    unsafe fn run(depth: usize, a: &[*const f32; MAX_ROWS], b: *const f32, c: *mut f32, ldc: usize, accumulate: bool) {
        let mut sums = [[0f32; 16]; 4];
        for k in 0..depth {
            // SAFETY: `b` has `depth` rows of 16 floats, each of `a` has `depth` floats.
            let columns = unsafe { &*b.add(k * 16).cast::<[f32; 16]>() };
            for (sums, row) in sums.iter_mut().zip(a) {
                // SAFETY: as above.
                let x = unsafe { *row.add(k) };
                for (sum, column) in sums.iter_mut().zip(columns) {
                    *sum += x * column;
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
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{MAX_ROWS, Micro};
    use std::arch::x86_64::*;

    /// 6 × 16 in twelve 256-bit accumulators.
    pub struct Avx2;

    impl Micro for Avx2 {
        const ROWS: usize = 6;
        const COLUMNS: usize = 16;

        #[inline]
        unsafe fn run(
            depth: usize,
            a: &[*const f32; MAX_ROWS],
            b: *const f32,
            c: *mut f32,
            ldc: usize,
            accumulate: bool,
        ) {
            // SAFETY: the caller's promises are those of the callee.
            unsafe { avx2(depth, a, b, c, ldc, accumulate) }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2(
        depth: usize,
        a: &[*const f32; MAX_ROWS],
        b: *const f32,
        c: *mut f32,
        ldc: usize,
        accumulate: bool,
    ) {
        // SAFETY: all addresses are within what the caller promises: `depth` floats a row, 16 a column row,
        // 6 rows of 16 results.
        unsafe {
            let mut sums = [[_mm256_setzero_ps(); 2]; 6];
            let rows: [*const f32; 6] = [a[0], a[1], a[2], a[3], a[4], a[5]];
            for k in 0..depth {
                let b0 = _mm256_loadu_ps(b.add(k * 16));
                let b1 = _mm256_loadu_ps(b.add(k * 16 + 8));
                for i in 0..6 {
                    let x = _mm256_broadcast_ss(&*rows[i].add(k));
                    sums[i][0] = _mm256_fmadd_ps(x, b0, sums[i][0]);
                    sums[i][1] = _mm256_fmadd_ps(x, b1, sums[i][1]);
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

    /// 12 × 32 in twenty-four 512-bit accumulators.
    pub struct Avx512;

    impl Micro for Avx512 {
        const ROWS: usize = 12;
        const COLUMNS: usize = 32;

        #[inline]
        unsafe fn run(
            depth: usize,
            a: &[*const f32; MAX_ROWS],
            b: *const f32,
            c: *mut f32,
            ldc: usize,
            accumulate: bool,
        ) {
            // SAFETY: the caller's promises are those of the callee.
            unsafe { avx512(depth, a, b, c, ldc, accumulate) }
        }
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn avx512(
        depth: usize,
        a: &[*const f32; MAX_ROWS],
        b: *const f32,
        c: *mut f32,
        ldc: usize,
        accumulate: bool,
    ) {
        // SAFETY: as for `avx2`, with 12 rows and 32 columns.
        unsafe {
            let mut sums = [[_mm512_setzero_ps(); 2]; 12];
            for k in 0..depth {
                let b0 = _mm512_loadu_ps(b.add(k * 32));
                let b1 = _mm512_loadu_ps(b.add(k * 32 + 16));
                for i in 0..12 {
                    let x = _mm512_set1_ps(*a[i].add(k));
                    sums[i][0] = _mm512_fmadd_ps(x, b0, sums[i][0]);
                    sums[i][1] = _mm512_fmadd_ps(x, b1, sums[i][1]);
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
}

#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512};

/// An instruction set for which there is a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Isa {
    /// The widest that this processor has.
    pub fn detect() -> Isa {
        *Isa::available().last().unwrap_or(&Isa::Portable)
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
            }
        }
        found
    }

    /// Rows and columns of the kernel.
    pub fn tile(self) -> (usize, usize) {
        match self {
            Isa::Portable => (Portable::ROWS, Portable::COLUMNS),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => (Avx2::ROWS, Avx2::COLUMNS),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => (Avx512::ROWS, Avx512::COLUMNS),
        }
    }
}

/// The rows of a product, in memory that outlives it.
pub struct Rows<'r> {
    pub data: &'r [f32],
    /// Where each row starts in `data`.
    pub starts: &'r [usize],
}

/// `c[i·ldc + j] (+)= Σ rows[i][offset + k] · panels[j / COLUMNS][k][j % COLUMNS]` for all rows and
/// `panels` panels of columns.
///
/// `c` has room for the rows rounded up to the kernel's and for whole panels of columns: what lies
/// beyond is overwritten with nothing of use.
pub fn block(
    isa: Isa,
    rows: &Rows,
    offset: usize,
    depth: usize,
    columns: &[f32],
    panels: usize,
    c: &mut [f32],
    accumulate: bool,
) {
    match isa {
        Isa::Portable => block_with::<Portable>(rows, offset, depth, columns, panels, c, accumulate),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => block_with::<Avx2>(rows, offset, depth, columns, panels, c, accumulate),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => block_with::<Avx512>(rows, offset, depth, columns, panels, c, accumulate),
    }
}

fn block_with<M: Micro>(
    rows: &Rows,
    offset: usize,
    depth: usize,
    columns: &[f32],
    panels: usize,
    c: &mut [f32],
    accumulate: bool,
) {
    let ldc = panels * M::COLUMNS;
    assert!(columns.len() >= panels * depth * M::COLUMNS, "columns are missing");
    assert!(c.len() >= rows.starts.len().next_multiple_of(M::ROWS) * ldc, "results have no room");
    let Some(&last) = rows.starts.last() else { return };
    let furthest = rows.starts.iter().copied().max().unwrap_or(last);
    assert!(furthest + offset + depth <= rows.data.len(), "rows leave their memory");
    for panel in 0..panels {
        let b = columns[panel * depth * M::COLUMNS..].as_ptr();
        for (tile, starts) in rows.starts.chunks(M::ROWS).enumerate() {
            let mut pointers = [std::ptr::null(); MAX_ROWS];
            for (i, pointer) in pointers.iter_mut().enumerate() {
                // Rows beyond the last repeat it; their results are not used.
                let start = starts.get(i).or(starts.last()).copied().unwrap_or(last);
                *pointer = rows.data[start + offset..].as_ptr();
            }
            let at = tile * M::ROWS * ldc + panel * M::COLUMNS;
            // SAFETY: by the assertions rows, columns and results are all inside their slices; the
            // instruction set was detected.
            unsafe { M::run(depth, &pointers, b, c[at..].as_mut_ptr(), ldc, accumulate) };
        }
    }
}
