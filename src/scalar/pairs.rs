//! Two operations of arithmetic in one pass over a tile: what comes between need not go to memory and back.
//!
//! They round twice, as one after the other do, so the bits are the same.

use super::vector::lanes;
use super::{ScalarOp, VectorFn};

/// Which operand of the second operation the first one's result is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    First,
    Second,
    /// Either: they may be exchanged.
    Either,
}

macro_rules! pairs {
    ($($name:ident: $first:ident, $second:ident, $place:ident; |$a:ident, $b:ident, $c:ident| $value:expr;)*) => {
        lanes! { $($name($a, $b, $c) = $value;)* }

        const PAIRS: &[(ScalarOp, ScalarOp, Place, fn() -> VectorFn)] =
            &[$((ScalarOp::$first, ScalarOp::$second, Place::$place, $name),)*];
    };
}

// The names are of the operations in their order; `c` is the other operand of the second.
pairs! {
    add_add: Add, Add, Either; |a, b, c| (a + b) + c;
    add_mul: Add, Mul, Either; |a, b, c| (a + b) * c;
    add_sub: Add, Sub, First; |a, b, c| (a + b) - c;
    add_sub_from: Add, Sub, Second; |a, b, c| c - (a + b);
    add_div: Add, Div, First; |a, b, c| (a + b) / c;
    add_div_into: Add, Div, Second; |a, b, c| c / (a + b);
    sub_add: Sub, Add, Either; |a, b, c| (a - b) + c;
    sub_mul: Sub, Mul, Either; |a, b, c| (a - b) * c;
    sub_sub: Sub, Sub, First; |a, b, c| (a - b) - c;
    sub_sub_from: Sub, Sub, Second; |a, b, c| c - (a - b);
    sub_div: Sub, Div, First; |a, b, c| (a - b) / c;
    sub_div_into: Sub, Div, Second; |a, b, c| c / (a - b);
    mul_add: Mul, Add, Either; |a, b, c| (a * b) + c;
    mul_mul: Mul, Mul, Either; |a, b, c| (a * b) * c;
    mul_sub: Mul, Sub, First; |a, b, c| (a * b) - c;
    mul_sub_from: Mul, Sub, Second; |a, b, c| c - (a * b);
    mul_div: Mul, Div, First; |a, b, c| (a * b) / c;
    mul_div_into: Mul, Div, Second; |a, b, c| c / (a * b);
    div_add: Div, Add, Either; |a, b, c| (a / b) + c;
    div_mul: Div, Mul, Either; |a, b, c| (a / b) * c;
    div_sub: Div, Sub, First; |a, b, c| (a / b) - c;
    div_sub_from: Div, Sub, Second; |a, b, c| c - (a / b);
    div_div: Div, Div, First; |a, b, c| (a / b) / c;
    div_div_into: Div, Div, Second; |a, b, c| c / (a / b);
}

/// The function that applies `second` to the result of `first`, which is its operand `place`: it takes the operands of the
/// first and then the second's other one. Nothing where there is none.
pub fn pair(first: ScalarOp, second: ScalarOp, place: usize) -> Option<VectorFn> {
    let place = if place == 0 { Place::First } else { Place::Second };
    let found = PAIRS.iter().find(|(a, b, p, _)| (*a, *b) == (first, second) && (*p == place || *p == Place::Either));
    found.map(|(.., function)| function())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scalar::simd::at_each_level;

    #[test]
    fn a_pair_gives_the_bits_of_one_after_the_other() {
        let columns: Vec<Vec<f32>> =
            (0..3).map(|c| (0..67).map(|i| ((i * (37 + 8 * c) + 11) % 101) as f32 / 7.0 - 6.0).collect()).collect();
        let [a, b, c] = [0, 1, 2].map(|i| columns[i].as_slice());
        let mut tried = 0;
        at_each_level(|_| {
            for (first, second, place) in PAIRS.iter().flat_map(|&(first, second, place, _)| match place {
                Place::First => vec![(first, second, 0)],
                Place::Second => vec![(first, second, 1)],
                Place::Either => vec![(first, second, 0), (first, second, 1)],
            }) {
                let (mut between, mut expected, mut found) = (vec![0.0; 67], vec![0.0; 67], vec![0.0; 67]);
                first.vector_fn()(&mut between, &[a, b]);
                let operands: [&[f32]; 2] = if place == 0 { [&between, c] } else { [c, &between] };
                second.vector_fn()(&mut expected, &operands);
                pair(first, second, place).unwrap()(&mut found, &[a, b, c]);
                let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&found), bits(&expected), "{first:?} {second:?} {place}");
                tried += 1;
            }
        });
        assert!(tried >= 32 && pair(ScalarOp::Exp, ScalarOp::Add, 0).is_none());
    }
}
