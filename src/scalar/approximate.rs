//! Transcendental functions in f32 without branches, so that loops over them become vector code.
//!
//! Each reduces its argument by an exact identity and sums a Taylor series on what is left, whose
//! remainder is below half a unit in the last place. The results are within a few units in the last
//! place, which the tests measure against f64.

use std::f32::consts::{LN_2, LOG2_E};

/// Adding and taking away 1.5·2²³ rounds to the nearest whole number.
const ROUND: f32 = 12_582_912.0;
/// The upper bits of ln 2, whose products with whole numbers up to 2⁸ are exact, and the rest.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;

/// `(n, r)` with `x = n·ln 2 + r` and `|r| ≤ ln 2 / 2`; n as a float and a whole number.
#[inline(always)]
fn reduce(x: f32) -> (i32, f32) {
    let shifted = x * LOG2_E + ROUND;
    let n = shifted - ROUND;
    (shifted.to_bits() as i32 - ROUND.to_bits() as i32, (x - n * LN_2_HIGH) - n * LN_2_LOW)
}

/// `exp r − 1` for `|r| ≤ ln 2 / 2`.
#[inline(always)]
fn exp_less_one(r: f32) -> f32 {
    let tail = 1.0 / 120.0 + r * (1.0 / 720.0 + r * (1.0 / 5040.0));
    let tail = 1.0 / 2.0 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * tail));
    r + r * r * tail
}

/// 2ⁿ for `-126 ≤ n ≤ 127`.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits(((n + 127) << 23) as u32)
}

#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Beyond these the result is 0 or infinite; `clamp` keeps what is not a number.
    let (n, r) = reduce(x.clamp(-104.0, 89.0));
    let half = n >> 1;
    (1.0 + exp_less_one(r)) * power_of_two(half) * power_of_two(n - half)
}

/// `2·artanh s / s − 2` as a series in `s²`, of which the first `terms` are taken.
#[inline(always)]
fn artanh_tail(s: f32) -> f32 {
    let q = s * s;
    let tail = 2.0 / 11.0 + q * (2.0 / 13.0 + q * (2.0 / 15.0));
    q * (2.0 / 3.0 + q * (2.0 / 5.0 + q * (2.0 / 7.0 + q * (2.0 / 9.0 + q * tail))))
}

#[inline(always)]
pub fn log(x: f32) -> f32 {
    const SCALE: f32 = (1u32 << 23) as f32;
    let is_subnormal = x < f32::MIN_POSITIVE;
    let bits = if is_subnormal { x * SCALE } else { x }.to_bits();
    // The exponent that brings the fraction between √½ and √2.
    let exponent = (bits.wrapping_sub(0x3F35_04F3) as i32) >> 23;
    let fraction = f32::from_bits(bits.wrapping_sub((exponent << 23) as u32));
    let n = exponent as f32 - if is_subnormal { 23.0 } else { 0.0 };
    let f = fraction - 1.0;
    let s = f / (fraction + 1.0);
    // 2s = f − s·f, which keeps the digits of f.
    let value = n * LN_2_HIGH + (f - s * (f - artanh_tail(s)) + n * LN_2_LOW);
    let value = if x > 0.0 { value } else { f32::NAN };
    let value = if x == f32::INFINITY { x } else { value };
    if x == 0.0 { f32::NEG_INFINITY } else { value }
}

#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    // tanh y = t / (t + 2) with t = exp 2y − 1, in which nothing cancels near 0.
    let (n, r) = reduce(2.0 * x.abs().min(20.0));
    let scale = power_of_two(n);
    let t = scale * exp_less_one(r) + (scale - 1.0);
    let value = (t / (t + 2.0)).copysign(x);
    if x.is_nan() { x } else { value }
}

#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[inline(always)]
pub fn softplus(x: f32) -> f32 {
    // log(1 + z) = 2 artanh(z / (2 + z)), for 0 ≤ z ≤ 1.
    let z = exp(-x.abs());
    let s = z / (2.0 + z);
    let value = x.max(0.0) + s * (2.0 + artanh_tail(s));
    if x.is_nan() { x } else { value }
}

/// Below 1 the Maclaurin series (Abramowitz & Stegun, 7.1.5). From there on `1 - exp(-x²)·p(t)`, where `p` is a
/// polynomial in `t = 1 / (1 + x/2)`, fitted to `erfc(x)·exp(x²)` between 0.9 and 4.2 with a relative error of at most
/// 1e-9.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let size = x.abs();
    let q = size * size;
    let tail = -1.0 / 1320.0 + q * (1.0 / 9360.0 + q * (-1.0 / 75_600.0 + q * (1.0 / 685_440.0 - q / 6_894_720.0)));
    let tail = 1.0 / 10.0 + q * (-1.0 / 42.0 + q * (1.0 / 216.0 + q * tail));
    let near = 2.0 * FRAC_1_SQRT_PI * (size + size * q * (-1.0 / 3.0 + q * tail));
    let t = 1.0 / (1.0 + 0.5 * size);
    let p = 0.347_002_57 + t * (-0.102_063_6 + t * (0.561_483_6 + t * (-0.470_063_6 + t * 0.119_040_66)));
    let p = -1.511_665_8e-4 + t * (0.284_870_7 + t * (0.259_934_1 + t * p));
    let far = 1.0 - exp(-q.min(100.0)) * p;
    let value = if size < 1.0 { near } else { far };
    if x.is_nan() { x } else { value.copysign(x) }
}

/// `1 / √π`.
const FRAC_1_SQRT_PI: f32 = 0.564_189_6;

const _: () = assert!(LN_2_HIGH > LN_2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scalar::ScalarOp;

    /// The largest error in units in the last place over many floats of a range, and where it is.
    fn worst(f: fn(f32) -> f32, exact: fn(f64) -> f64, from: f32, to: f32) -> (f64, f32) {
        let mut worst = (0.0, from);
        for i in 0..=400_000 {
            let x = from + (to - from) * (i as f32 / 400_000.0);
            let (found, expected) = (f64::from(f(x)), exact(f64::from(x)));
            let unit = f64::from(f32::EPSILON) * expected.abs().max(f64::from(f32::MIN_POSITIVE));
            let error = (found - expected).abs() / unit;
            if error > worst.0 {
                worst = (error, x);
            }
        }
        worst
    }

    #[test]
    fn errors_are_a_few_units_in_the_last_place() {
        let softplus_exact = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p();
        for (name, f, exact, from, to) in [
            ("exp", exp as fn(f32) -> f32, f64::exp as fn(f64) -> f64, -87.0, 88.0),
            ("exp near 0", exp, f64::exp, -1.0, 1.0),
            ("log", log, f64::ln, 1e-30, 1e30),
            ("log near 1", log, f64::ln, 0.5, 2.0),
            ("tanh", tanh, f64::tanh, -12.0, 12.0),
            ("tanh near 0", tanh, f64::tanh, -0.01, 0.01),
            ("sigmoid", sigmoid, |x| 1.0 / (1.0 + (-x).exp()), -80.0, 30.0),
            ("softplus", softplus, softplus_exact, -80.0, 80.0),
            ("softplus near 0", softplus, softplus_exact, -2.0, 2.0),
            ("erf", erf, |x| ScalarOp::Erf.eval(&[x]), -6.0, 6.0),
            ("erf near 0", erf, |x| ScalarOp::Erf.eval(&[x]), -0.01, 0.01),
        ] {
            let (error, at) = worst(f, exact, from, to);
            assert!(error < 4.0, "{name} is {error:.2} units off at {at}");
        }
    }

    #[test]
    fn the_ends_of_the_range() {
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(log(0.0), f32::NEG_INFINITY);
        assert_eq!(log(f32::INFINITY), f32::INFINITY);
        assert_eq!(log(1.0), 0.0);
        assert!((log(1e-40) - 1e-40f32.ln()).abs() < 1e-4);
        assert!(log(-1.0).is_nan());
        assert_eq!((tanh(100.0), tanh(-100.0)), (1.0, -1.0));
        assert_eq!((sigmoid(200.0), sigmoid(-200.0)), (1.0, 0.0));
        assert_eq!((softplus(200.0), softplus(-200.0)), (200.0, 0.0));
        assert_eq!((erf(200.0), erf(f32::NEG_INFINITY), erf(0.0)), (1.0, -1.0, 0.0));
        for f in [exp, log, tanh, sigmoid, softplus, erf] {
            assert!(f(f32::NAN).is_nan());
        }
    }
}
