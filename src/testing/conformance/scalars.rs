//! Every row of the table of scalar operations.

use super::case::{Agreement, Case};
use super::fixture::Fixture;
use crate::ir::{Op, Value};
use crate::scalar::{Lane, ScalarOp};
use crate::tensor::DType;
use crate::testing::Choices;

/// Whether IEEE 754 rounds the operation correctly.
pub fn is_rounded(op: ScalarOp) -> bool {
    use ScalarOp::*;
    let by_library = matches!(op, Tan | Asin | Acos | Atan | Sinh | Cosh | Asinh | Acosh | Atanh | Erf);
    !(by_library || matches!(op, Pow | Exp | Expm1Product | Log | Rsqrt | Tanh | Sigmoid | Softplus | Sin | Cos))
}

/// How near an operation must come: to the last bit where it is rounded correctly, else within a few units of the last
/// place, as function libraries do.
fn agreement(op: ScalarOp) -> Agreement {
    if is_rounded(op) { Agreement::Exact } else { Agreement::Each(2e-6) }
}

/// A case of one operation on columns of operands; u32 lanes take them as whole numbers.
fn case(op: ScalarOp, columns: &[Vec<f32>], agreement: Agreement) -> Case {
    let mut f = Fixture::new();
    let operands: Vec<_> = (columns.iter().zip(op.operand_lanes()).enumerate())
        .map(|(i, (column, lane))| match lane {
            Lane::Real => f.input_of(&format!("x{i}"), DType::F32, Value::real([column.len()], column.clone())),
            Lane::U32 => {
                let words = column.iter().map(|x| x.to_bits()).collect();
                f.input_of(&format!("x{i}"), DType::U32, Value::u32([column.len()], words))
            }
        })
        .collect();
    let result = f.op(Op::Scalar(op), &operands);
    f.output("result", result);
    f.case(op.name(), agreement)
}

/// Numbers of every size that training meets, positive and negative; 1,037 of them fill no vector.
pub fn ordinary() -> Vec<Case> {
    let column = |operand: usize| -> Vec<f32> {
        let mut choices = Choices::new(operand as u64);
        let mut number = || {
            let range = choices.pick(&[0.01, 1.0, 1.0, 8.0, 30.0]);
            (choices.real() * range) as f32
        };
        (0..1037).map(|_| number()).collect()
    };
    let columns = |op: &ScalarOp| (0..op.operand_lanes().len()).map(column).collect::<Vec<_>>();
    ScalarOp::ALL.iter().map(|op| case(*op, &columns(op), agreement(*op))).collect()
}

const SPECIAL: [f32; 13] = [
    f32::NAN,
    f32::INFINITY,
    f32::NEG_INFINITY,
    0.0,
    -0.0,
    1e-40,
    -1e-40,
    f32::MIN_POSITIVE,
    f32::MAX,
    f32::MIN,
    1.0,
    -0.5,
    -3.0,
];

/// All combinations of values at which operations are easily wrong.
pub fn special() -> Vec<Case> {
    let columns = |op: &ScalarOp| -> Vec<Vec<f32>> {
        let arity = op.operand_lanes().len();
        let every = 0..SPECIAL.len().pow(arity as u32);
        let digit = |at: usize, i: usize| at / SPECIAL.len().pow(i as u32) % SPECIAL.len();
        (0..arity).map(|i| every.clone().map(|at| SPECIAL[digit(at, i)]).collect()).collect()
    };
    // The sine of 3e38 is any number, by how its angle was reduced.
    let without_huge = |mut columns: Vec<Vec<f32>>| {
        columns[0].retain(|x| !x.is_finite() || x.abs() < 1e6);
        columns
    };
    (ScalarOp::ALL.iter())
        .map(|op| match op {
            ScalarOp::Sin | ScalarOp::Cos | ScalarOp::Tan => case(*op, &without_huge(columns(op)), agreement(*op)),
            op => case(*op, &columns(op), agreement(*op)),
        })
        .collect()
}
