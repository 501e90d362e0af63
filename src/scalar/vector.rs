//! The CPU's vector functions for the table: one loop a function, compiled once for each vector
//! instruction set. See [`approximate`] for the transcendental ones.

use super::VectorFn;
use super::approximate;
use crate::tensor::{round_to_bf16, round_to_tf32};

/// Defines, for each operation, what gives its function at the widest level that the processor has.
macro_rules! lanes {
    ($($name:ident($($arg:ident),+) = $value:expr;)*) => {$(
        pub(super) fn $name() -> VectorFn {
            #[inline(always)]
            fn generic(out: &mut [f32], args: &[&[f32]]) {
                let [$($arg),+] = args else { panic!("{} takes other operands", stringify!($name)) };
                let n = out.len();
                $(let $arg = &$arg[..n];)+
                for i in 0..n {
                    $(let $arg = $arg[i];)+
                    out[i] = $value;
                }
            }
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn avx2(out: &mut [f32], args: &[&[f32]]) { generic(out, args) }
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw")]
                fn avx512(out: &mut [f32], args: &[&[f32]]) { generic(out, args) }
                use $crate::scalar::simd::{Level, level};
                match level() {
                    // SAFETY: the processor has the features that the function is compiled for.
                    Level::Avx512 => return |out, args| unsafe { avx512(out, args) },
                    // SAFETY: as above.
                    Level::Avx2 => return |out, args| unsafe { avx2(out, args) },
                    Level::Generic => {}
                }
            }
            generic
        }
    )*};
}

pub(super) use lanes;

#[inline(always)]
fn mask(holds: bool) -> f32 {
    if holds { 1.0 } else { 0.0 }
}

/// The larger of two, and NaN where either is: `f32::max` gives the other operand. Two comparisons and a selection,
/// without a branch, so that loops over it become vector code.
#[inline(always)]
pub(crate) fn larger(a: f32, b: f32) -> f32 {
    if (a > b) | a.is_nan() { a } else { b }
}

lanes! {
    add(a, b) = a + b;
    sub(a, b) = a - b;
    mul(a, b) = a * b;
    div(a, b) = a / b;
    max(a, b) = larger(a, b);
    min(a, b) = if (a < b) | a.is_nan() { a } else { b };
    pow(a, b) = f64::from(a).powf(f64::from(b)) as f32;
    neg(a) = -a;
    abs(a) = a.abs();
    sign(a) = if a.is_nan() { a } else { mask(a > 0.0) - mask(a < 0.0) };
    exp(a) = approximate::exp(a);
    expm1_product(a, b, c) = (f64::from(a) * (f64::from(b) + f64::from(c))).exp_m1() as f32;
    log(a) = approximate::log(a);
    sqrt(a) = a.sqrt();
    rsqrt(a) = 1.0 / a.sqrt();
    tanh(a) = approximate::tanh(a);
    sigmoid(a) = approximate::sigmoid(a);
    softplus(a) = approximate::softplus(a);
    sin(a) = a.sin();
    cos(a) = a.cos();
    tan(a) = a.tan();
    asin(a) = f64::from(a).asin() as f32;
    acos(a) = f64::from(a).acos() as f32;
    atan(a) = f64::from(a).atan() as f32;
    sinh(a) = f64::from(a).sinh() as f32;
    cosh(a) = f64::from(a).cosh() as f32;
    asinh(a) = f64::from(a).asinh() as f32;
    acosh(a) = f64::from(a).acosh() as f32;
    atanh(a) = f64::from(a).atanh() as f32;
    erf(a) = approximate::erf(a);
    floor(a) = a.floor();
    ceil(a) = a.ceil();
    round(a) = a.round_ties_even();
    fmod(a, b) = a % b;
    is_nan(a) = mask(a.is_nan());
    lt(a, b) = mask(a < b);
    le(a, b) = mask(a <= b);
    gt(a, b) = mask(a > b);
    ge(a, b) = mask(a >= b);
    eq(a, b) = mask(a == b);
    select(c, a, b) = std::hint::select_unpredictable(c != 0.0, a, b);
    add_u32(a, b) = f32::from_bits(a.to_bits().wrapping_add(b.to_bits()));
    to_real(a) = a.to_bits() as f32;
    round_bf16(a) = round_to_bf16(a);
    round_tf32(a) = round_to_tf32(a);
}
