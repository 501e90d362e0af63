//! Every rule, first and second derivatives, over random shapes and attributes.

use super::Problem;
use crate::ir::{DType, Distribution, Op, ReduceKind, Shape, Type, Window};
use crate::scalar::{Lane, ScalarOp};
use crate::winograd::{Axis, Direction, Part, Transform};
use proptest::prelude::*;

/// An operation and the shapes of its operands.
type Application = (Op, Vec<Shape>);

fn shape(rank: impl Into<proptest::collection::SizeRange>) -> impl Strategy<Value = Shape> {
    proptest::collection::vec(1usize..4, rank)
}

/// Each element of `0..rank` or not.
fn axes(rank: usize) -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(any::<bool>(), rank)
        .prop_map(|chosen| (0..chosen.len()).filter(|&axis| chosen[axis]).collect())
}

fn movement() -> impl Strategy<Value = Application> {
    let reshape = shape(0..4).prop_flat_map(|from| {
        let n: usize = from.iter().product();
        let other = prop_oneof![Just(vec![n]), Just(vec![1, n, 1]), Just(from.clone()).prop_shuffle()];
        other.prop_map(move |to| (Op::Reshape { to }, vec![from.clone()]))
    });
    let transpose = shape(0..5).prop_flat_map(|from| {
        let identity: Vec<usize> = (0..from.len()).collect();
        let permutation = Just(identity).prop_shuffle();
        permutation.prop_map(move |permutation| (Op::Transpose { permutation }, vec![from.clone()]))
    });
    let broadcast = shape(0..4).prop_flat_map(|to| {
        axes(to.len()).prop_map(move |repeated| {
            let from = (0..to.len()).map(|axis| if repeated.contains(&axis) { 1 } else { to[axis] }).collect();
            (Op::Broadcast { to: to.clone() }, vec![from])
        })
    });
    let pad = shape(0..4).prop_flat_map(|from| {
        let amounts = || proptest::collection::vec(0usize..3, from.len());
        let from = from.clone();
        (amounts(), amounts()).prop_map(move |(low, high)| (Op::Pad { low, high }, vec![from.clone()]))
    });
    let slice = proptest::collection::vec((0usize..2, 1usize..3, 0usize..2), 0..4).prop_map(|parts| {
        let from = parts.iter().map(|(before, kept, after)| before + kept + after).collect();
        let start = parts.iter().map(|(before, _, _)| *before).collect();
        let end = parts.iter().map(|(before, kept, _)| before + kept).collect();
        (Op::Slice { start, end }, vec![from])
    });
    let concat = (shape(1..4), proptest::collection::vec(1usize..4, 1..4)).prop_flat_map(|(like, sizes)| {
        (0..like.len()).prop_map(move |axis| {
            let part = |&size: &usize| {
                let mut shape = like.clone();
                shape[axis] = size;
                shape
            };
            (Op::Concat { axis }, sizes.iter().map(part).collect())
        })
    });
    let reverse = shape(0..4)
        .prop_flat_map(|from| axes(from.len()).prop_map(move |axes| (Op::Reverse { axes }, vec![from.clone()])));
    prop_oneof![reshape, transpose, broadcast, pad, slice, concat, reverse]
}

fn reduction() -> impl Strategy<Value = Application> {
    let kind = prop_oneof![Just(ReduceKind::Sum), Just(ReduceKind::Max), Just(ReduceKind::Deviations)];
    (shape(0..4), kind).prop_flat_map(|(from, kind)| {
        axes(from.len()).prop_map(move |axes| (Op::Reduce { kind, axes }, vec![from.clone()]))
    })
}

fn matmul() -> impl Strategy<Value = Application> {
    (shape(0..3), 1usize..4, 1usize..4, 1usize..4).prop_map(|(batch, m, k, n)| {
        let matrix = |rows, columns| [batch.clone(), vec![rows, columns]].concat();
        (Op::MatMul, vec![matrix(m, k), matrix(k, n)])
    })
}

/// One of the three convolutions of random geometry, with strides that leave rows over as well.
fn convolution() -> impl Strategy<Value = Application> {
    let pair = |low: usize, high: usize| [low..high, low..high];
    let geometry = (pair(1, 4), pair(1, 4), pair(0, 3), pair(0, 5));
    (1usize..3, 1usize..3, 1usize..3, geometry, 0..3).prop_map(|(n, c, o, (kernel, stride, pad, extra), which)| {
        let window = Window { stride, pad };
        // Large enough for the kernel to fit once.
        let size = [0, 1].map(|i| (kernel[i] + extra[i]).saturating_sub(2 * pad[i]).max(1));
        let out = [0, 1].map(|i| (size[i] + 2 * pad[i] - kernel[i]) / stride[i] + 1);
        let image = vec![n, c, size[0], size[1]];
        let filter = vec![o, c, kernel[0], kernel[1]];
        let result = vec![n, o, out[0], out[1]];
        match which {
            0 => (Op::Conv2d { window }, vec![image, filter]),
            1 => (Op::Conv2dInputGrad { window, size }, vec![result, filter]),
            _ => (Op::Conv2dFilterGrad { window, kernel }, vec![image, result]),
        }
    })
}

/// A transform of minimal filtering, to points or from them.
fn transform() -> impl Strategy<Value = Application> {
    let axis =
        (1usize..4, 1usize..3, 0usize..2, 1usize..3, 0usize..4).prop_map(|(kernel, stride, pad, tile, extra)| {
            let input = (kernel + extra).saturating_sub(2 * pad).max(1);
            let output = (input + 2 * pad - kernel) / stride + 1;
            Axis { input, kernel, output, stride, pad, tile }
        });
    let parts = (prop::sample::select(&Part::ALL[..]), prop::sample::select(&Direction::ALL[..]));
    ([axis.clone(), axis], parts, 1usize..3, 1usize..3).prop_map(|(axes, (part, direction), n, c)| {
        let to_points = Transform { part, direction: Direction::ToPoints, axes };
        let map = vec![n, c, axes[0].size(part), axes[1].size(part)];
        let points = to_points.result(&map).unwrap();
        let operand = if direction == Direction::ToPoints { map } else { points };
        (Op::Winograd(Transform { direction, ..to_points }), vec![operand])
    })
}

/// Windows of images, or what they add up to.
fn windows() -> impl Strategy<Value = Application> {
    let pair = |low: usize, high: usize| [low..high, low..high];
    let geometry = (pair(1, 4), pair(1, 4), pair(0, 3), pair(0, 5));
    (1usize..3, 1usize..3, geometry, any::<bool>()).prop_map(|(n, c, (kernel, stride, pad, extra), is_back)| {
        let window = Window { stride, pad };
        let size = [0, 1].map(|i| (kernel[i] + extra[i]).saturating_sub(2 * pad[i]).max(1));
        let out = [0, 1].map(|i| (size[i] + 2 * pad[i] - kernel[i]) / stride[i] + 1);
        if is_back {
            let size = [0, 1].map(|i| size[i].next_multiple_of(stride[i]));
            let windows = vec![n, c * kernel[0] * kernel[1], out[0], out[1]];
            (Op::Col2im { window, kernel, size }, vec![windows])
        } else {
            (Op::Im2col { window, kernel }, vec![vec![n, c, size[0], size[1]]])
        }
    })
}

fn check((op, operands): Application, seed: u64) {
    let build = |problem: &mut Problem| {
        let operands: Vec<_> = operands.iter().map(|shape| problem.variable(shape, [-1.0, 1.0])).collect();
        problem.builder().op(op.clone(), &operands)
    };
    Problem::check_twice(build, seed);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn movement_agrees_with_differences(application in movement(), seed: u64) {
        check(application, seed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn reductions_agree_with_differences(application in reduction(), seed: u64) {
        check(application, seed);
    }

    #[test]
    fn matmul_agrees_with_differences(application in matmul(), seed: u64) {
        check(application, seed);
    }

    #[test]
    fn windows_agree_with_differences(application in windows(), seed: u64) {
        check(application, seed);
    }

    #[test]
    fn transforms_agree_with_differences(application in transform(), seed: u64) {
        check(application, seed);
    }

    #[test]
    fn convolutions_agree_with_differences(application in convolution(), seed: u64) {
        check(application, seed);
    }
}

/// The interval on which an operation is checked: where it has a derivative.
fn domain(op: ScalarOp) -> [f64; 2] {
    match op {
        ScalarOp::Asin | ScalarOp::Acos | ScalarOp::Atanh => [-0.8, 0.8],
        ScalarOp::Tan => [-1.0, 1.0],
        ScalarOp::Acosh => [1.5, 3.0],
        ScalarOp::Fmod | ScalarOp::Div | ScalarOp::Pow | ScalarOp::Log | ScalarOp::Sqrt | ScalarOp::Rsqrt => [0.5, 2.0],
        _ => [-2.0, 2.0],
    }
}

fn is_real(op: ScalarOp) -> bool {
    op.result_lane() == Lane::Real && op.operand_lanes().iter().all(|lane| *lane == Lane::Real)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    /// Every operation of the table on real numbers, comparisons included: theirs is zero. Rounding has a jump within
    /// any difference that is large enough to be taken.
    #[test]
    fn scalars_agree_with_differences(shape in shape(0..3), seed: u64) {
        let rounds = |op: ScalarOp| matches!(op, ScalarOp::RoundBf16 | ScalarOp::RoundTf32);
        for &op in ScalarOp::ALL.iter().filter(|op| is_real(**op) && !rounds(**op)) {
            let build = |problem: &mut Problem| {
                let mut operands: Vec<_> =
                    op.operand_lanes().iter().map(|_| problem.variable(&shape, domain(op))).collect();
                if op == ScalarOp::Select {
                    // A mask that is 0 in some places.
                    operands[0] = problem.builder().scalar(ScalarOp::Lt, &[operands[0], operands[1]]);
                }
                problem.builder().scalar(op, &operands)
            };
            Problem::check_twice(build, seed);
        }
    }
}

/// At a tie no difference is defined: the rule shares the gradient equally.
#[test]
fn ties_for_the_maximum_share_its_gradient() {
    let mut problem = Problem::new(0);
    let x = problem.variable(&[2, 4], [0.0, 1.0]);
    problem.variables[0].1 = vec![1.0, 3.0, 3.0, 2.0, 5.0, 5.0, 5.0, 5.0];
    let maximum = problem.builder().op(Op::Reduce { kind: ReduceKind::Max, axes: vec![1] }, &[x]);
    let loss = problem.project(maximum);
    problem.variables[1].1 = vec![1.0, 2.0];
    assert_eq!(problem.gradients(loss)[0], [0.0, 0.5, 0.5, 0.0, 0.5, 0.5, 0.5, 0.5]);
}

/// At a tie the table gives the whole derivative to the second operand.
#[test]
fn ties_of_two_operands_go_to_the_second() {
    for op in [ScalarOp::Max, ScalarOp::Min] {
        let mut problem = Problem::new(0);
        let (a, b) = (problem.variable(&[], [0.0, 1.0]), problem.variable(&[], [0.0, 1.0]));
        (problem.variables[0].1, problem.variables[1].1) = (vec![0.5], vec![0.5]);
        let loss = problem.builder().scalar(op, &[a, b]);
        assert_eq!(problem.gradients(loss), [[0.0], [1.0]]);
    }
}

#[test]
fn one_operand_in_both_places_collects_both() {
    for op in [ScalarOp::Mul, ScalarOp::Div, ScalarOp::Pow, ScalarOp::Sub] {
        let build = |problem: &mut Problem| {
            let x = problem.variable(&[3], [0.5, 2.0]);
            problem.builder().scalar(op, &[x, x])
        };
        Problem::check_twice(build, 1);
    }
}

/// Draws, indices, integers and constants meet a variable, and only the variable gets a derivative.
#[test]
fn leaves_take_part_as_constants() {
    let build = |problem: &mut Problem| {
        let x = problem.variable(&[2, 3], [-1.0, 1.0]);
        let mut b = problem.builder();
        let seed = b.op(Op::constant(7.0, DType::U32, [2]), &[]);
        let step = b.op(Op::constant(3.0, DType::U32, []), &[]);
        let random = Op::Random { distribution: Distribution::Normal, stream: "noise".into(), shape: vec![2, 3] };
        let noise = b.op(random, &[seed, step]);
        let index = b.op(Op::Iota { axis: 1, ty: Type::u32([2, 3]) }, &[]);
        let index = b.scalar(ScalarOp::AddU32, &[index, index]);
        let index = b.scalar(ScalarOp::ToReal, &[index]);
        let position = b.op(Op::Iota { axis: 0, ty: Type::f32([2, 3]) }, &[]);
        let square = b.mul(x, x);
        let product = b.mul(square, noise);
        let shifted = b.sub(product, index);
        let shifted = b.mul(position, shifted);
        b.add(shifted, square)
    };
    Problem::check_twice(build, 5);
}

/// Gradients of `Σ op(a, b) · dy` at one point.
fn gradients_at(op: ScalarOp, [a, b]: [f64; 2], dy: f64) -> Vec<Vec<f64>> {
    let mut problem = Problem::new(0);
    let operands = [problem.variable(&[], [0.0, 1.0]), problem.variable(&[], [0.0, 1.0])];
    let result = problem.builder().scalar(op, &operands);
    let loss = problem.project(result);
    for (variable, value) in problem.variables.iter_mut().zip([a, b, dy]) {
        variable.1 = vec![value];
    }
    problem.gradients(loss)
}

/// As in PyTorch: `x⁰` is constant, and so is `0ᵇ` for positive `b`.
#[test]
fn powers_of_zero_have_finite_derivatives_where_they_have_any() {
    for (a, b, expected) in
        [(0.0, 0.0, [0.0, 0.0]), (0.0, 1.0, [1.0, 0.0]), (0.0, 2.0, [0.0, 0.0]), (3.0, 0.0, [0.0, 3f64.ln()])]
    {
        let found = gradients_at(ScalarOp::Pow, [a, b], 1.0);
        assert_eq!([found[0][0], found[1][0]], expected, "{a} to the power {b}");
    }
    assert_eq!(gradients_at(ScalarOp::Pow, [0.0, 0.5], 1.0)[0], [f64::INFINITY]);
}

/// A dead unit passes nothing on, an infinite adjoint included; one that is not a number passes on what comes.
#[test]
fn a_rectifier_selects_its_adjoint() {
    assert_eq!(gradients_at(ScalarOp::Max, [-1.0, 0.0], f64::INFINITY)[0], [0.0]);
    assert_eq!(gradients_at(ScalarOp::Max, [1.0, 0.0], f64::INFINITY)[0], [f64::INFINITY]);
    assert_eq!(gradients_at(ScalarOp::Max, [f64::NAN, 0.0], 2.0)[..2], [[2.0], [2.0]]);
    assert_eq!(gradients_at(ScalarOp::Min, [f64::NAN, 0.0], 2.0)[..2], [[2.0], [2.0]]);
}
