//! bf16: stored, converted, moved, and read by contractions.

use super::case::{Agreement, Case};
use super::fixture::{Fixture, noise};
use crate::ir::{Builder, NodeId, Op, Value};
use crate::scalar::ScalarOp;
use crate::tensor::DType;
use crate::testing::Choices;

/// Values at which rounding to bf16 is easily wrong: signed zeros, denormals, ties, what becomes infinite, NaN.
pub fn bf16_specials() -> Vec<f32> {
    let bits = [
        0x0000_0000u32,
        0x8000_0000,
        0x0000_0001,
        0x0000_8000,
        0x0000_8001,
        0x0001_8000,
        0x8000_8001,
        0x0080_0000,
        0x3f80_8000,
        0x3f81_8000,
        0x3f80_8001,
        0x3f81_7fff,
        0xbf80_8000,
        0x7f7f_7fff,
        0x7f7f_8000,
        0x7f7f_ffff,
        0xff7f_ffff,
        0x7f80_0000,
        0xff80_0000,
        0x7fc0_0000,
        0x7f80_0001,
        0xffff_ffff,
        0x42f7_8000,
        0x3eaa_aaab,
    ];
    bits.map(f32::from_bits).to_vec()
}

fn convert(b: &mut Builder, x: NodeId, to: DType) -> NodeId {
    b.op(Op::Convert { to }, &[x])
}

pub fn bf16() -> Vec<Case> {
    let mut cases = vec![in_place_and_in_memory(), wider_than_its_operand(), stored_product(), product_of_stored()];
    cases.extend((0..48).map(random));
    cases
}

/// Rounded where it is used and where it is stored, through movement, and in a state tensor.
fn in_place_and_in_memory() -> Case {
    let mut f = Fixture::new();
    let x = f.input_of("x", DType::F32, Value::real([24], bf16_specials()));
    let stored = f.input_of("stored", DType::F32, Value::real([24], bf16_specials()));
    let half = f.state_of("half", DType::Bf16, Value::real([24], bf16_specials()));
    let mut b = f.builder();
    let narrow = convert(&mut b, x, DType::Bf16);
    let wide = convert(&mut b, narrow, DType::F32);
    let passed = b.add(wide, stored);
    let moved = b.op(Op::Pad { low: vec![3], high: vec![5] }, &[narrow]);
    let moved = b.op(Op::Reverse { axes: vec![0] }, &[moved]);
    let old = convert(&mut b, half, DType::F32);
    let sum = b.add(old, wide);
    let next = convert(&mut b, sum, DType::Bf16);
    for (name, node) in [("narrow", narrow), ("passed", passed), ("moved", moved), ("old", old)] {
        f.output(name, node);
    }
    f.update("half", next);
    f.case("in place and in memory", Agreement::Exact)
}

/// An f32 result has the bytes of a bf16 buffer of twice as many elements, but must not take its place: what is stored
/// for one element would overwrite two.
fn wider_than_its_operand() -> Case {
    let mut f = Fixture::new();
    let x = f.input("x", &[4096]);
    let mut b = f.builder();
    let narrow = convert(&mut b, x, DType::Bf16);
    let half = b.op(Op::Slice { start: vec![0], end: vec![2048] }, &[narrow]);
    let wide = convert(&mut b, half, DType::F32);
    let doubled = b.add(wide, wide);
    f.output("doubled", doubled);
    f.case("a result wider than its operand", Agreement::Exact)
}

/// Sums differ in their order, so a stored product may be on the other side of a step of rounding; but it is the product
/// that the device itself computed, rounded.
fn stored_product() -> Case {
    let mut f = Fixture::new();
    let (x, w) = (f.input("x", &[9, 17]), f.input("w", &[17, 12]));
    let mut b = f.builder();
    let product = b.matmul(x, w);
    let narrow = convert(&mut b, product, DType::Bf16);
    let rounded = b.scalar(ScalarOp::RoundBf16, &[product]);
    let wide = convert(&mut b, narrow, DType::F32);
    let difference = b.sub(rounded, wide);
    // The tolerance of a step of rounding must not hide one here.
    let difference = b.scale(difference, 1e6);
    f.output("narrow", narrow);
    f.output("difference", difference);
    f.case("a product stored as bf16", Agreement::Near(1.0 / 128.0))
}

fn product_of_stored() -> Case {
    let mut f = Fixture::new();
    let (x, w) = (f.input("x", &[9, 17]), f.input("w", &[17, 12]));
    let half = f.input_of("half", DType::Bf16, noise(&[12, 3], 5));
    let mut b = f.builder();
    let [x, w] = [x, w].map(|v| {
        let narrow = convert(&mut b, v, DType::Bf16);
        convert(&mut b, narrow, DType::F32)
    });
    let product = b.matmul(x, w);
    let half = convert(&mut b, half, DType::F32);
    let second = b.matmul(product, half);
    f.output("product", product);
    f.output("second", second);
    f.case("products of what is stored as bf16", Agreement::Near(1e-5))
}

/// One step of a random graph of operations that are exact or correctly rounded in f32 too.
fn step(b: &mut Builder, values: &mut Vec<NodeId>, choices: &mut Choices) {
    let x = choices.pick(values);
    let shape = b.shape(x);
    let wide = |b: &mut Builder, x: NodeId| match b.graph.ty(x).dtype {
        DType::Bf16 => b.op(Op::Convert { to: DType::F32 }, &[x]),
        DType::F32 | DType::U32 => x,
    };
    let next = match choices.below(8) {
        0..=2 => {
            let to = choices.pick(&[DType::Bf16, DType::Bf16, DType::F32]);
            convert(b, x, to)
        }
        3 | 4 => {
            let y = choices.pick(values);
            let (x, y) = (wide(b, x), wide(b, y));
            let op = choices.pick(&[ScalarOp::Add, ScalarOp::Sub, ScalarOp::Mul]);
            if b.shape(y) == shape { b.scalar(op, &[x, y]) } else { b.scalar(op, &[x, x]) }
        }
        5 => b.transpose(x, &[1, 0]),
        6 => {
            let padded = b.op(Op::Pad { low: vec![1, 0], high: vec![0, 2] }, &[x]);
            b.op(Op::Slice { start: vec![0, 1], end: vec![shape[0], shape[1] + 1] }, &[padded])
        }
        _ => {
            let first = b.op(Op::Slice { start: vec![0, 0], end: vec![1, shape[1]] }, &[x]);
            b.op(Op::Broadcast { to: shape }, &[first])
        }
    };
    values.push(next);
}

fn random(seed: u64) -> Case {
    let mut f = Fixture::new();
    let mut choices = Choices::new(seed);
    let mut values = vec![
        f.input_of("x", DType::F32, Value::real([4, 6], bf16_specials())),
        f.input("y", &[4, 6]),
        f.input_of("half", DType::Bf16, noise(&[4, 6], seed as u32)),
    ];
    let mut b = f.builder();
    for _ in 0..4 + seed % 20 {
        step(&mut b, &mut values, &mut choices);
    }
    for (i, &value) in values[3..].iter().rev().take(3).enumerate() {
        f.output(&format!("result{i}"), value);
    }
    f.case(format!("random converts {seed}"), Agreement::Exact)
}
