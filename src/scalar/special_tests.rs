//! NaN, infinities, zeros and denormals through every row of the table, at every vector instruction set.

use super::simd::at_each_level;
use super::{Lane, ScalarOp, larger};

const SPECIAL: [f32; 14] = [
    f32::NAN,
    f32::INFINITY,
    f32::NEG_INFINITY,
    0.0,
    -0.0,
    1e-45,
    -1e-40,
    f32::MIN_POSITIVE,
    f32::MAX,
    f32::MIN,
    1.0,
    -1.0,
    0.5,
    -3.0,
];

/// Whether a value in f32 is what the table means: not a number, an infinity or a number where that is.
fn agrees(op: ScalarOp, found: f32, meant: f64) -> bool {
    let meant = meant as f32;
    // What is below the normal numbers may be rounded away. The sine of a large angle is near what it is.
    let near =
        1e-5 * meant.abs() + if matches!(op, ScalarOp::Sin | ScalarOp::Cos | ScalarOp::Tan) { 1e-5 } else { 1e-38 };
    (found.is_nan() && meant.is_nan()) || found == meant || (meant.is_finite() && (found - meant).abs() <= near)
}

#[test]
fn every_operation_of_special_values_means_the_same_at_every_level() {
    let mut levels = 0;
    at_each_level(|level| {
        levels += 1;
        for &op in ScalarOp::ALL.iter().filter(|op| !op.operand_lanes().contains(&Lane::U32)) {
            let arity = op.operand_lanes().len();
            let count = SPECIAL.len().pow(arity as u32);
            let column = |i: usize| -> Vec<f32> {
                (0..count).map(|at| SPECIAL[at / SPECIAL.len().pow(i as u32) % SPECIAL.len()]).collect()
            };
            let columns: Vec<Vec<f32>> = (0..arity).map(column).collect();
            let mut found = vec![0.0; count];
            op.vector_fn()(&mut found, &columns.iter().map(Vec::as_slice).collect::<Vec<_>>());
            for (at, &found) in found.iter().enumerate() {
                let args: Vec<f64> = columns.iter().map(|column| f64::from(column[at])).collect();
                let meant = op.eval(&args);
                assert!(agrees(op, found, meant), "{level:?}: {} of {args:?} is {found}, not {meant}", op.name());
            }
        }
    });
    assert!(levels > 0);
}

#[test]
fn no_operation_on_numbers_swallows_what_is_not_one() {
    use ScalarOp::*;
    for &op in ScalarOp::ALL {
        let arity = op.operand_lanes().len();
        // Comparisons with NaN do not hold, a selection gives what is selected, and x⁰ is 1 of every x.
        if matches!(op, Lt | Le | Gt | Ge | Eq | Select | Pow | IsNan | AddU32 | ToReal) {
            continue;
        }
        for position in 0..arity {
            let mut args = vec![0.5; arity];
            args[position] = f64::NAN;
            assert!(op.eval(&args).is_nan(), "{}", op.name());
        }
    }
    assert_eq!([f64::NAN, 1.0, f64::INFINITY].map(|x| IsNan.eval(&[x])), [1.0, 0.0, 0.0]);
    for op in [Lt, Le, Gt, Ge, Eq] {
        assert_eq!(op.eval(&[f64::NAN, 1.0]) + op.eval(&[1.0, f64::NAN]) + op.eval(&[f64::NAN; 2]), 0.0);
    }
    assert!(larger(f32::NAN, 1.0).is_nan() && larger(1.0, f32::NAN).is_nan());
    assert_eq!((larger(1.0, 2.0), larger(f32::INFINITY, 2.0)), (2.0, f32::INFINITY));
}

/// Values of the error function to ten places: Abramowitz & Stegun, table 7.1.
#[test]
fn the_error_function_is_that_of_the_tables() {
    for (x, value) in [(0.1, 0.112_462_916_0), (0.5, 0.520_499_877_8), (1.0, 0.842_700_792_9), (2.0, 0.995_322_265_0)] {
        assert!((ScalarOp::Erf.eval(&[x]) - value).abs() < 1e-10, "{x}");
        assert_eq!(ScalarOp::Erf.eval(&[-x]), -ScalarOp::Erf.eval(&[x]));
    }
}
