//! Random draws: the same bits on every device.

use super::case::{Agreement, Case};
use super::fixture::Fixture;
use crate::ir::{Distribution, Op, Real, Value};
use crate::tensor::DType;

/// Shapes whose elements are no whole number of blocks, and one that no tile holds.
const SHAPES: [&[usize]; 7] = [&[], &[1], &[3], &[13, 7], &[7, 131], &[2, 3, 5, 11], &[4099]];

/// A normal draw is computed in f64 and rounded once; half a unit of the last place is left to a library's logarithm.
const NORMAL: Agreement = Agreement::Each(1.2e-7);

pub fn draws() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, distribution, agreement) in [
        ("uniform", Distribution::Uniform, Agreement::Exact),
        ("normal", Distribution::Normal, NORMAL),
        ("bernoulli 0.25", Distribution::Bernoulli(Real(0.25)), Agreement::Exact),
        ("bernoulli 0", Distribution::Bernoulli(Real(0.0)), Agreement::Exact),
        ("bernoulli 1", Distribution::Bernoulli(Real(1.0)), Agreement::Exact),
    ] {
        for shape in SHAPES {
            let mut f = Fixture::new();
            let seed = f.input_of("seed", DType::U32, Value::u32([2], vec![0x1234_5678, 9]));
            let step = f.state_of("step", DType::U32, Value::u32([], vec![u32::MAX]));
            let draw = |stream: &str| Op::Random { distribution, stream: stream.into(), shape: shape.to_vec() };
            let first = f.op(draw("first"), &[seed, step]);
            let second = f.op(draw("second"), &[seed, step]);
            // Where it is used, after a movement, and stored.
            let moved = f.op(Op::Reverse { axes: (0..shape.len()).collect() }, &[second]);
            let sum = f.builder().mul(first, moved);
            f.output("first", first);
            f.output("moved", moved);
            if distribution != Distribution::Normal {
                f.output("product", sum);
            }
            cases.push(f.case(format!("{name} {shape:?}"), agreement));
        }
    }
    cases.push(counted());
    cases
}

/// The step is state that an entry counts on: each run draws anew, also where the count wraps around.
fn counted() -> Case {
    let mut f = Fixture::new();
    let seed = f.input_of("seed", DType::U32, Value::u32([2], vec![1, 2]));
    let step = f.state_of("step", DType::U32, Value::u32([], vec![u32::MAX - 1]));
    let op = Op::Random { distribution: Distribution::Uniform, stream: "dropout/mask".into(), shape: vec![37] };
    let draw = f.op(op, &[seed, step]);
    let one = f.op(Op::constant(1.0, DType::U32, []), &[]);
    let next = f.op(Op::Scalar(crate::scalar::ScalarOp::AddU32), &[step, one]);
    f.output("draw", draw);
    f.update("step", next);
    f.case("one step after the other", Agreement::Exact).repeated(4)
}
