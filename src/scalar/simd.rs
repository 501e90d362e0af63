//! Run-time choice among vector instruction sets, and what only vector instructions do well.

use std::sync::OnceLock;

/// Vector instruction sets that functions are compiled for, the widest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub(crate) enum Level {
    Generic,
    Avx2,
    Avx512,
}

/// The widest level that any function takes, where not all are allowed.
static WIDEST: OnceLock<Level> = OnceLock::new();

/// Has functions of this process go no wider from now on. Only the first call counts.
pub(crate) fn go_no_wider(level: Level) {
    WIDEST.get_or_init(|| level);
}

/// The widest that the processor has and that is allowed. (The standard library looks it up once.)
#[inline]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub(crate) fn level() -> Level {
    #[cfg(target_arch = "x86_64")]
    let widest = if std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512vl")
        && std::arch::is_x86_feature_detected!("avx512dq")
        && std::arch::is_x86_feature_detected!("avx512bw")
    {
        Level::Avx512
    } else if std::arch::is_x86_feature_detected!("avx2") {
        Level::Avx2
    } else {
        Level::Generic
    };
    #[cfg(not(target_arch = "x86_64"))]
    let widest = Level::Generic;
    #[cfg(test)]
    let widest = widest.min(LIMIT.get());
    WIDEST.get().map_or(widest, |&allowed| widest.min(allowed))
}

/// Runs `f` at each level that the processor has; functions that it calls on this thread go no wider.
#[cfg(test)]
pub(crate) fn at_each_level(mut f: impl FnMut(Level)) {
    for limit in [Level::Generic, Level::Avx2, Level::Avx512] {
        LIMIT.set(limit);
        if level() == limit {
            f(limit);
        }
    }
    LIMIT.set(Level::Avx512);
}

#[cfg(test)]
thread_local! {
    /// The widest level that functions called on this thread take.
    static LIMIT: std::cell::Cell<Level> = const { std::cell::Cell::new(Level::Avx512) };
}

/// Rows and columns of what [`turn`] turns.
pub(crate) const TURNED: usize = 4;

/// `into[column · to_stride + row] = from[row · stride + column]`, where both numbers are multiples of [`TURNED`]: a column
/// of small squares at a time, each turned in registers.
///
/// # Panics
/// Where a number is outside of its slice.
#[inline(always)]
pub(crate) fn turn_squares(
    [rows, columns]: [usize; 2],
    (from, stride): (&[f32], usize),
    (into, to_stride): (&mut [f32], usize),
) {
    if rows == 0 || columns == 0 {
        return;
    }
    let fits = |lines: usize, stride: usize, length: usize, len: usize| {
        let last = (lines - 1).checked_mul(stride).and_then(|last| last.checked_add(length));
        last.is_some_and(|last| last <= len)
    };
    assert!(rows.is_multiple_of(TURNED) && columns.is_multiple_of(TURNED), "no whole squares");
    assert!(
        fits(rows, stride, columns, from.len()) && fits(columns, to_stride, rows, into.len()),
        "outside of a slice"
    );
    let (from, into) = (from.as_ptr(), into.as_mut_ptr());
    for column in (0..columns).step_by(TURNED) {
        for row in (0..rows).step_by(TURNED) {
            // SAFETY: so many numbers from a row's and a column's first on are inside, by the assertion.
            unsafe {
                let lines = std::array::from_fn(|i| {
                    from.add((row + i) * stride + column).cast::<[f32; TURNED]>().read_unaligned()
                });
                for (j, line) in turn(lines).into_iter().enumerate() {
                    into.add((column + j) * to_stride + row).cast::<[f32; TURNED]>().write_unaligned(line);
                }
            }
        }
    }
}

/// The columns of some rows, turned in registers. (The compiler makes no vector instructions of the portable form.)
#[inline(always)]
pub(crate) fn turn(rows: [[f32; TURNED]; TURNED]) -> [[f32; TURNED]; TURNED] {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_mm_movehl_ps, _mm_movelh_ps, _mm_unpackhi_ps, _mm_unpacklo_ps};
        let [a, b, c, d] = rows.map(bytemuck::cast);
        // SAFETY: every such processor has SSE.
        let columns = unsafe {
            let (low, low_next) = (_mm_unpacklo_ps(a, b), _mm_unpacklo_ps(c, d));
            let (high, high_next) = (_mm_unpackhi_ps(a, b), _mm_unpackhi_ps(c, d));
            [
                _mm_movelh_ps(low, low_next),
                _mm_movehl_ps(low_next, low),
                _mm_movelh_ps(high, high_next),
                _mm_movehl_ps(high_next, high),
            ]
        };
        columns.map(bytemuck::cast)
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::array::from_fn(|column| rows.map(|row| row[column]))
}

/// Compiles a function's body once for each instruction set and picks the widest that the processor
/// has. No variant contracts `a * b + c`, so all give the same bits.
macro_rules! multiversion {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident : $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn generic($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn avx2($($arg: $ty),*) $(-> $ret)? { generic($($arg),*) }
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw")]
                fn avx512($($arg: $ty),*) $(-> $ret)? { generic($($arg),*) }
                use $crate::scalar::simd::{Level, level};
                match level() {
                    // SAFETY: the processor has the features that the function is compiled for.
                    Level::Avx512 => unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    Level::Avx2 => unsafe { avx2($($arg),*) },
                    Level::Generic => generic($($arg),*),
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            generic($($arg),*)
        }
    };
}
pub(crate) use multiversion;
