//! Contractions by tensor cores, run on the host by an emulation of what warps do together.

use crate::contractions::{Single, single};
use crate::emulate::{launches, program_of, run_program};
use gcc_gan::exec::cuda::{prelude, render};
use gcc_gan::kernel::access::Access;
use gcc_gan::kernel::choice::{Math, ThreadBlocks, Tile};
use gcc_gan::kernel::contraction::{ContractionKind, ConvShape};
use gcc_gan::testing::products::{by_definition, points};
use gcc_gan::types::Window;

/// Images as `[h][w][n][c]`, filters as `[h][w][o][c]`.
const PIXELS: &[usize] = &[2, 3, 0, 1];
/// Filters as `[h][w][c][o]`, and images with their channels before the images.
const TURNED: &[usize] = &[2, 3, 1, 0];
const PLAIN: &[usize] = &[0, 1, 2];

fn blocks(math: Math, tile: [usize; 2], stages: usize, splits: usize) -> ThreadBlocks {
    let [rows, columns] = tile;
    ThreadBlocks { math, tile: Tile { rows, columns, depth: 32 }, warps: [2, 2], stages, splits }
}

fn conv(n: usize, [c, o]: [usize; 2], input: [usize; 2], kernel: usize, stride: usize, pad: usize) -> ConvShape {
    let output = input.map(|size| (size + 2 * pad - kernel) / stride + 1);
    let window = Window { stride: [stride; 2], pad: [pad; 2] };
    ConvShape { n, c, input, o, kernel: [kernel; 2], output, window }
}

/// A number for each element, of which a few bits are more than tf32 has.
fn numbers(count: usize, salt: u32) -> Vec<f32> {
    let number = |i: u32| (i ^ salt).wrapping_mul(0x9E37_79B9).rotate_left(15).wrapping_mul(0x85EB_CA6B) >> 8;
    (0..count as u32).map(|i| number(i) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// Row-major values of a shape as bytes, in another order of its dimensions.
fn bytes_in(order: &[usize], shape: &[usize], values: &[f32]) -> Vec<u8> {
    let access = Access::ordered(shape, order);
    let mut moved = vec![0.0; values.len()];
    for (point, value) in points(shape).zip(values) {
        moved[access.element(&point).unwrap() as usize] = *value;
    }
    moved.into_iter().flat_map(f32::to_ne_bytes).collect()
}

struct Case {
    kind: ContractionKind,
    orders: [&'static [usize]; 3],
    blocks: ThreadBlocks,
}

/// Runs every case and compares it with its definition.
fn check(cases: &[Case]) {
    let (mut text, mut main, mut input) =
        (format!("#include \"emulate.h\"\n{}\n", prelude()), String::new(), Vec::new());
    let mut expected: Vec<(Single, Vec<f64>)> = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let mut single = single(case.kind, case.orders, case.blocks);
        single.kernel.name = format!("case{number}");
        assert!(single.kernel.choice.algorithm.fits(&single.kernel.body), "case {number}");
        // What nobody wrote is not a number.
        let mut arena = vec![0xff; single.arena_bytes];
        let mut values = Vec::new();
        for (i, buffer) in single.buffers[..3].iter().enumerate() {
            let order: Vec<usize> = if i < 2 { case.orders[i].to_vec() } else { (0..buffer.shape.len()).collect() };
            let depth: f32 = if i == 0 { 0.05 } else { 1.0 };
            values.push(numbers(buffer.elements(), i as u32).into_iter().map(|x| x * depth).collect::<Vec<f32>>());
            let bytes = bytes_in(&order, &buffer.shape, &values[i]);
            arena[buffer.offset..][..bytes.len()].copy_from_slice(&bytes);
        }
        let rendered = render(&single.kernel, &single.buffers);
        text += &rendered.source;
        let bytes = arena.len();
        main += &format!("    {{\n        std::vector<unsigned char> arena({bytes});\n");
        main += &format!("        emulation::transfer(in, arena.data(), {bytes}, false);\n");
        main += &launches(&rendered.launches);
        main += &format!("        emulation::transfer(out, arena.data(), {bytes}, true);\n    }}\n");
        input.extend(arena);
        let (_, shape) = case.kind.shapes();
        let [first, second] = [0, 1].map(|i| values[i].iter().copied().map(f64::from).collect::<Vec<f64>>());
        let sums = by_definition(&case.kind, &first, &second);
        let y = points(&shape).zip(sums).map(|(p, sum)| (sum + f64::from(values[2][p[1]])).tanh());
        expected.push((single, y.collect()));
    }
    text += &program_of(&main);
    let Some([forwards, backwards]) = run_program(&text, &input) else { return };
    let mut start = 0;
    for (case, (single, expected)) in cases.iter().zip(expected) {
        let y = &single.buffers[3];
        let bytes = start + y.offset..start + y.offset + y.bytes();
        start += single.arena_bytes;
        assert_eq!(
            forwards[bytes.clone()],
            backwards[bytes.clone()],
            "{:?} depends on the order of threads",
            case.kind
        );
        let found: Vec<f32> =
            forwards[bytes].chunks_exact(4).map(|b| f32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect();
        let access = Access::ordered(&y.shape, case.orders[2]);
        let (mut error, mut size) = (0.0, 0.0);
        for (point, expected) in points(&y.shape).zip(expected) {
            let difference = f64::from(found[access.element(&point).unwrap() as usize]) - expected;
            error += difference * difference;
            size += expected * expected;
        }
        let error = (error / size).sqrt();
        // Half of the mantissa's last bit at most, and on average a good deal less.
        let most = match case.blocks.math {
            Math::Fma | Math::Tf32x3 => 1e-6,
            Math::Tf32 => 5e-4,
            Math::Bf16 => 4e-3,
        };
        assert!(error < most, "{:?}, {:?}: an error of {error:.1e}", case.kind, case.blocks);
    }
}

const MATHS: [Math; 3] = [Math::Tf32, Math::Tf32x3, Math::Bf16];

#[test]
fn matrix_products_are_right_at_every_remainder() {
    let turned: &[usize] = &[0, 2, 1];
    let case = |math, [m, n, k]: [usize; 3], orders, tile, stages, splits| Case {
        kind: ContractionKind::MatMul { batch: 1, m, n, k },
        orders,
        blocks: blocks(math, tile, stages, splits),
    };
    let mut cases = Vec::new();
    for math in MATHS {
        cases.push(case(math, [64, 64, 64], [PLAIN, PLAIN, PLAIN], [64, 64], 2, 1));
        cases.push(case(math, [100, 72, 52], [PLAIN, turned, PLAIN], [64, 64], 3, 1));
        cases.push(case(math, [36, 68, 300], [turned, PLAIN, turned], [128, 64], 3, 3));
        cases.push(case(math, [20, 16, 132], [turned, turned, PLAIN], [64, 64], 4, 1));
    }
    cases.push(case(Math::Tf32, [132, 140, 40], [PLAIN, PLAIN, PLAIN], [128, 128], 2, 1));
    let batch = ContractionKind::MatMul { batch: 3, m: 32, n: 24, k: 20 };
    cases.push(Case { kind: batch, orders: [PLAIN; 3], blocks: blocks(Math::Tf32x3, [64, 64], 2, 1) });
    check(&cases);
}

#[test]
fn convolutions_of_pixel_major_images_are_right() {
    let mut cases = Vec::new();
    let strided = conv(20, [16, 36], [6, 4], 4, 2, 1);
    for math in MATHS {
        let blocks = |splits| blocks(math, [64, 64], 3, splits);
        let case = |kind, orders, splits| Case { kind, orders, blocks: blocks(splits) };
        cases.push(case(ContractionKind::Conv2d(strided), [PIXELS, PIXELS, PIXELS], 1));
        cases.push(case(ContractionKind::Conv2dInputGrad(strided), [PIXELS, TURNED, PIXELS], 2));
        cases.push(case(ContractionKind::Conv2dFilterGrad(strided), [PIXELS, PIXELS, PIXELS], 3));
    }
    let blocks = |splits| blocks(Math::Tf32x3, [64, 64], 2, splits);
    let case = |kind, orders, splits| Case { kind, orders, blocks: blocks(splits) };
    let odd = conv(16, [16, 16], [5, 4], 3, 2, 1);
    cases.push(case(ContractionKind::Conv2dInputGrad(odd), [PIXELS, TURNED, PIXELS], 1));
    let wide = conv(24, [20, 16], [3, 4], 5, 1, 2);
    cases.push(case(ContractionKind::Conv2d(wide), [PIXELS, TURNED, PIXELS], 2));
    cases.push(case(ContractionKind::Conv2dInputGrad(wide), [PIXELS, PIXELS, TURNED], 1));
    cases.push(case(ContractionKind::Conv2dFilterGrad(wide), [PIXELS, PIXELS, TURNED], 1));
    // Some pixels have no tap that is not on padding: their sums are 0.
    let sparse = conv(16, [16, 16], [2, 2], 1, 1, 2);
    cases.push(case(ContractionKind::Conv2d(sparse), [PIXELS, PIXELS, PIXELS], 1));
    check(&cases);
}

#[test]
fn a_convolution_is_its_sizes_its_taps_and_its_epilogue() {
    let kind = ContractionKind::Conv2dInputGrad(conv(128, [64, 128], [14, 14], 4, 2, 1));
    let single = single(kind, [PIXELS, TURNED, PIXELS], blocks(Math::Tf32, [128, 64], 3, 1));
    insta::assert_snapshot!(render(&single.kernel, &single.buffers).source);
}

/// Parts of sums are in the order of the output, so that neighbouring threads write and read neighbours.
#[test]
fn parts_of_sums_lie_as_the_output_does() {
    let conv = conv(128, [64, 128], [14, 14], 4, 2, 1);
    let single =
        single(ContractionKind::Conv2dFilterGrad(conv), [PIXELS, PIXELS, PIXELS], blocks(Math::Tf32, [128, 64], 3, 2));
    let text = render(&single.kernel, &single.buffers).source;
    let (product, epilogue) = text.split_once("contraction_kernel_epilogue(").unwrap();
    let elements = 128 * 64 * 4 * 4;
    for expected in ["= sums[i];".to_string(), format!("= sums[i + {elements}];"), "y[i] = y_new;".to_string()] {
        assert!(epilogue.contains(&expected), "there is no `{expected}` in {epilogue}");
    }
    // Rows are output channels and columns input channels.
    let store = format!("sums[part * {elements}u + 8192 * p + 64 * k + r] = accumulator;");
    assert!(product.contains(&store), "there is no `{store}` in {product}");
}
