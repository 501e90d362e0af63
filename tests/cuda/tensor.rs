//! Contractions by tensor cores, run on the host by an emulation of what warps do together.

use crate::contractions::{Single, single};
use crate::emulate::{launches, program_of, run_program, try_program};
use gcc_gan::compile::{Options, compile};
use gcc_gan::exec::cuda::{prelude, render};
use gcc_gan::kernel::access::Access;
use gcc_gan::kernel::body::{Body, Operand};
use gcc_gan::kernel::choice::{Algorithm, Math, ThreadBlocks, Tile};
use gcc_gan::kernel::contraction::{ContractionKind, ConvShape};
use gcc_gan::kernel::few_columns;
use gcc_gan::kernel::target::{Architecture, Precision, Target};
use gcc_gan::kernel::tiling::step;
use gcc_gan::kernel::warpgroup;
use gcc_gan::tensor::{Bf16, DType, round_to_tf32};
use gcc_gan::testing::products::{by_definition, points};
use gcc_gan::types::Window;

/// Images as `[h][w][n][c]`, filters as `[h][w][o][c]`.
const PIXELS: &[usize] = &[2, 3, 0, 1];
/// Filters as `[h][w][c][o]`, and images with their channels before the images.
const TURNED: &[usize] = &[2, 3, 1, 0];
const PLAIN: &[usize] = &[0, 1, 2];

fn blocks(math: Math, tile: [usize; 2], stages: usize, splits: usize) -> ThreadBlocks {
    let [rows, columns] = tile;
    ThreadBlocks { math, tile: Tile { rows, columns, depth: step(math) }, warps: [2, 2], stages, splits }
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

/// What a contraction's operand is where that is stored for its kernel.
fn as_stored(math: Math, value: f32) -> f32 {
    match math {
        Math::Fma | Math::Tf32 | Math::Tf32x3 | Math::Bf16 => value,
        Math::Tf32Stored => round_to_tf32(value),
        Math::Bf16Stored => Bf16::from_f32(value).to_f32(),
    }
}

/// Row-major values of a shape as bytes of a type, in another order of its dimensions.
fn bytes_in(order: &[usize], shape: &[usize], values: &[f32], dtype: DType) -> Vec<u8> {
    let access = Access::ordered(shape, order);
    let mut moved = vec![0.0; values.len()];
    for (point, value) in points(shape).zip(values) {
        moved[access.element(&point).unwrap() as usize] = *value;
    }
    match dtype {
        DType::F32 | DType::U32 => moved.into_iter().flat_map(f32::to_ne_bytes).collect(),
        DType::Bf16 => moved.into_iter().flat_map(|x| Bf16::from_f32(x).0.to_ne_bytes()).collect(),
    }
}

struct Case {
    kind: ContractionKind,
    orders: [&'static [usize]; 3],
    blocks: ThreadBlocks,
}

impl Case {
    /// The most that its result may be off, as a part of its norm.
    fn tolerance(&self) -> f64 {
        // Half of the mantissa's last bit at most, and on average a good deal less. Of what is rounded already, none.
        match self.blocks.math {
            Math::Fma | Math::Tf32x3 | Math::Tf32Stored | Math::Bf16Stored => 1e-6,
            Math::Tf32 if warpgroup::is_choice(&self.blocks) => 1e-3,
            Math::Tf32 => 5e-4,
            Math::Bf16 => 4e-3,
        }
    }
}

/// Runs every case and compares it with its definition.
fn check(cases: &[Case]) {
    for (case, error) in cases.iter().zip(errors(cases)) {
        assert!(error < case.tolerance(), "{:?}, {:?}: an error of {error:.1e}", case.kind, case.blocks);
    }
}

/// How far each case is from its definition, as a part of its norm.
fn errors(cases: &[Case]) -> Vec<f64> {
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
            let number = |x: f32| if i < 2 { as_stored(case.blocks.math, x * depth) } else { x };
            values.push(numbers(buffer.elements(), i as u32).into_iter().map(number).collect::<Vec<f32>>());
            let bytes = bytes_in(&order, &buffer.shape, &values[i], buffer.dtype);
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
    let Some([forwards, backwards]) = run_program(&text, &input) else { return Vec::new() };
    let mut start = 0;
    let mut errors = Vec::new();
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
        errors.push((error / size).sqrt());
    }
    errors
}

const MATHS: [Math; 5] = [Math::Tf32, Math::Tf32Stored, Math::Tf32x3, Math::Bf16, Math::Bf16Stored];

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
    cases.push(case(Math::Bf16Stored, [136, 144, 200], [PLAIN, PLAIN, PLAIN], [128, 128], 3, 1));
    cases.push(case(Math::Bf16Stored, [136, 140, 136], [turned, turned, PLAIN], [128, 128], 2, 2));
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

/// By a warp for every 32 rows: of a batch that fills no block, of depths that fill no warp's last turn, and of each residue.
#[test]
fn products_of_few_columns_are_right() {
    let case = |kind, orders, columns| Case { kind, orders, blocks: few_columns::blocks(columns) };
    let images = conv(5, [1, 40], [10, 12], 4, 2, 1);
    let odd = conv(3, [3, 36], [7, 7], 3, 1, 1);
    let depth = |depth: usize, columns: usize| ContractionKind::MatMul { batch: 1, m: 150, n: columns, k: depth };
    let turned: &[usize] = &[0, 2, 1];
    let cases = [
        case(ContractionKind::Conv2dInputGrad(images), [PIXELS, PIXELS, PIXELS], 1),
        case(ContractionKind::Conv2dInputGrad(odd), [PIXELS, TURNED, PIXELS], 3),
        case(ContractionKind::Conv2d(conv(4, [33, 2], [6, 5], 3, 1, 1)), [PIXELS, PIXELS, TURNED], 2),
        case(depth(32, 4), [PLAIN, PLAIN, PLAIN], 4),
        case(depth(1000, 1), [PLAIN, turned, PLAIN], 1),
    ];
    check(&cases);
    let fits = |kind: ContractionKind, orders: [&[usize]; 3], blocks: ThreadBlocks| {
        Algorithm::ThreadBlocks(blocks).fits(&single(kind, orders, blocks).kernel.body)
    };
    let plain = [PLAIN, PLAIN, PLAIN];
    assert!(fits(depth(64, 4), plain, few_columns::blocks(4)));
    // Too many columns, too deep for the registers, not along the depth, in parts, and another's columns.
    assert!(!fits(depth(64, 5), plain, few_columns::blocks(5)));
    assert!(!fits(depth(300, 4), plain, few_columns::blocks(4)));
    assert!(!fits(depth(64, 4), [turned, PLAIN, PLAIN], few_columns::blocks(4)));
    assert!(!fits(depth(64, 4), plain, ThreadBlocks { splits: 2, ..few_columns::blocks(4) }));
    assert!(!fits(depth(64, 4), plain, few_columns::blocks(3)));
}

/// In tf32 warpgroups multiply in both passes of all layers that are large enough, but filters' gradients, and warps what reads
/// or makes grey images, by their windows.
#[test]
fn the_dcgan_is_multiplied_by_warpgroups_and_its_grey_images_by_warps() {
    let options = Options { target: Target::Cuda(Architecture(90)), precision: Precision::Tf32, ..Options::default() };
    let text = include_str!("../../graphs/dcgan.ron");
    let compiled = compile("dcgan.ron", text, &options, &mut |_| {}).unwrap();
    let plan = compiled.plan.unwrap();
    let step = plan.entries.iter().find(|entry| entry.name == "train_step").unwrap();
    let of = |is: &dyn Fn(&ThreadBlocks) -> bool| {
        let kernels = step.schedule.kernels.iter().filter(|kernel| match &kernel.choice.algorithm {
            Algorithm::ThreadBlocks(blocks) => is(blocks),
            _ => false,
        });
        kernels.map(|kernel| kernel.name.as_str()).collect::<Vec<_>>()
    };
    let by_warpgroups = of(&warpgroup::is_choice);
    // Filters' gradients, whose operands lie beside each other along no sum.
    let by_warps = of(&|blocks| blocks.math != Math::Fma && !warpgroup::is_choice(blocks));
    let others = by_warps.iter().filter(|name| !name.ends_with("_weight")).collect::<Vec<_>>();
    assert_eq!(
        others,
        [
            &"conv2d_filter_grad_d_discriminator_0_conv_weight_product",
            &"conv2d_filter_grad_d_generator_10_conv_transpose_weight_product",
        ]
    );
    assert_eq!((by_warpgroups.len(), by_warps.len()), (14, 6), "{by_warpgroups:?}, {by_warps:?}");
    assert_eq!(of(&few_columns::is_choice), Vec::<&str>::new());
    // Statistics and what follows from them where they are complete, weights rounded where they are updated, means where they are used.
    assert_eq!(step.schedule.kernels.len(), 46);
    // Some need a second one, most of them for sums that were split.
    let launches = |kernel| render(kernel, &step.schedule.buffers).launches.len();
    let summary = compiled.summary.entries.iter().find(|entry| entry.name == "train_step").unwrap();
    assert_eq!((step.schedule.kernels.iter().map(launches).sum::<usize>(), summary.launches), (64, 64));
}

/// Also of strided gradients, each of whose products is a launch where they can't be one.
#[test]
fn launches_are_counted_as_they_are_rendered() {
    let gan = include_str!("gan.ron");
    let odd = gan
        .replace("ConvTranspose(channels: 16, kernel: 4,", "ConvTranspose(channels: 16, kernel: 3, output_padding: 1,")
        .replace("ConvTranspose(channels: 1, kernel: 4,", "ConvTranspose(channels: 1, kernel: 3, output_padding: 1,")
        .replace("kernel: 4,", "kernel: 3,");
    let programs = [gan, &odd, include_str!("../../graphs/dcgan.ron"), include_str!("../../graphs/wgan-gp.ron")];
    for (architecture, precision) in [(75, Precision::F32), (80, Precision::F32), (90, Precision::Tf32)] {
        for program in programs {
            let target = Target::Cuda(Architecture(architecture));
            let options = Options { target, precision, ..Options::default() };
            let compiled = compile("program.ron", program, &options, &mut |_| {}).unwrap();
            for (entry, summary) in compiled.plan.unwrap().entries.iter().zip(&compiled.summary.entries) {
                let launches = |kernel| render(kernel, &entry.schedule.buffers).launches.len();
                let rendered = entry.schedule.kernels.iter().map(launches).sum::<usize>();
                assert_eq!(summary.launches, rendered, "{} of sm_{architecture}: {program:.60}", entry.name);
            }
        }
    }
}

/// What its last layer reads of the layer before is normalised there, and once more for the gradient of its filter.
#[test]
fn the_dcgan_s_last_layer_normalises_what_it_reads() {
    let prologues = |precision| {
        let options = Options { target: Target::Cuda(Architecture(90)), precision, ..Options::default() };
        let text = include_str!("../../graphs/dcgan.ron");
        let plan = compile("dcgan.ron", text, &options, &mut |_| {}).unwrap().plan.unwrap();
        let step = plan.entries.iter().find(|entry| entry.name == "train_step").unwrap();
        let kernels = step.schedule.kernels.iter().filter(|kernel| match &kernel.body {
            Body::Contraction(c) => c.operands.iter().any(Operand::has_staged_prologue),
            Body::Nests(_) | Body::Transform(_) => false,
        });
        let texts = kernels.map(|kernel| render(kernel, &step.schedule.buffers).source);
        texts.map(|text| (text.contains("A_PROLOGUE = true"), text.contains("B_PROLOGUE = true"))).collect::<Vec<_>>()
    };
    assert_eq!(prologues(Precision::F32), [(true, false); 2]);
    assert_eq!(prologues(Precision::Tf32), [(true, false); 2]);
    // Stored, it is half as large as what it is computed of.
    assert_eq!(prologues(Precision::Bf16), []);
}

/// What a dense layer gives lies pixel by pixel, also where nothing but an activation is between it and a convolution, so that
/// tensor cores multiply it in all of the DCGAN's layers.
#[test]
fn the_dcgan_s_samples_are_multiplied_by_tensor_cores() {
    for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
        let options = Options { target: Target::Cuda(Architecture(90)), precision, ..Options::default() };
        let text = include_str!("../../graphs/dcgan.ron");
        let plan = compile("dcgan.ron", text, &options, &mut |_| {}).unwrap().plan.unwrap();
        let sample = plan.entries.iter().find(|entry| entry.name == "sample").unwrap();
        let maths = sample.schedule.kernels.iter().filter_map(|kernel| match &kernel.choice.algorithm {
            Algorithm::ThreadBlocks(blocks) => Some(blocks.math),
            _ => None,
        });
        let maths: Vec<Math> = maths.collect();
        assert!(maths.len() == 4 && !maths.contains(&Math::Fma), "{precision:?}: {maths:?}");
    }
}

/// In the DCGAN's step what suits tensor cores is multiplied as it is stored, and nothing is stored in f32 only to be widened
/// bf16.
#[test]
fn the_dcgan_stores_what_it_multiplies() {
    for (precision, math) in [(Precision::Tf32, Math::Tf32Stored), (Precision::Bf16, Math::Bf16Stored)] {
        let options = Options { target: Target::Cuda(Architecture(90)), precision, ..Options::default() };
        let text = include_str!("../../graphs/dcgan.ron");
        let plan = compile("dcgan.ron", text, &options, &mut |_| {}).unwrap().plan.unwrap();
        let step = plan.entries.iter().find(|entry| entry.name == "train_step").unwrap();
        let maths = step.schedule.kernels.iter().filter_map(|kernel| match &kernel.choice.algorithm {
            Algorithm::ThreadBlocks(blocks) if blocks.math != Math::Fma => Some(blocks.math),
            _ => None,
        });
        let maths: Vec<Math> = maths.collect();
        assert_eq!(maths, [math; 20]);
        let widened = step.schedule.buffers.iter().filter(|buffer| buffer.name.ends_with("_wide"));
        assert_eq!(widened.map(|buffer| &buffer.name).collect::<Vec<_>>(), Vec::<&String>::new());
    }
}

/// Of bf16, runs of 8 bytes are copied where those of 16 do not start at multiples of their size.
#[test]
fn runs_of_bf16_are_copied_as_long_as_they_are_aligned() {
    let text = |k| {
        let kind = ContractionKind::MatMul { batch: 1, m: 64, n: 64, k };
        let single = single(kind, [PLAIN, PLAIN, PLAIN], blocks(Math::Bf16Stored, [64, 64], 3, 1));
        render(&single.kernel, &single.buffers).source
    };
    assert!(text(304).contains("A_LINE = 304, A_COPY = 16;"), "{}", text(304));
    assert!(text(300).contains("A_LINE = 300, A_COPY = 8;"), "{}", text(300));
    assert!(text(300).contains("B_LINE = 64, B_COPY = 16;"), "{}", text(300));
}

#[test]
fn warpgroups_multiply_what_warps_do() {
    let turned: &[usize] = &[0, 2, 1];
    let by = warpgroup::blocks;
    let mut cases = Vec::new();
    // Floats along the depth on both sides, and bf16 in every order.
    for (m, n, k, tile, stages, splits) in [
        (64, 64, 64, (64, 64), 2, 1),
        (100, 72, 52, (64, 64), 3, 1),
        (36, 68, 300, (128, 64), 3, 3),
        (132, 140, 68, (128, 128), 2, 1),
        (20, 16, 132, (128, 128), 4, 1),
        (260, 52, 36, (256, 64), 2, 2),
        (140, 260, 68, (128, 256), 4, 1),
        (228, 100, 132, (256, 128), 3, 1),
    ] {
        let kind = ContractionKind::MatMul { batch: 1, m, n, k };
        let orders = [[PLAIN, turned, PLAIN], [PLAIN, turned, turned]];
        cases.extend(orders.map(|orders| Case { kind, orders, blocks: by(Math::Tf32Stored, tile, stages, splits) }));
        let kind = ContractionKind::MatMul {
            batch: 1,
            m: m.next_multiple_of(8),
            n: n.next_multiple_of(8),
            k: k.next_multiple_of(8),
        };
        for a in [PLAIN, turned] {
            for b in [PLAIN, turned] {
                cases.push(Case { kind, orders: [a, b, PLAIN], blocks: by(Math::Bf16Stored, tile, stages, splits) });
            }
        }
    }
    let batch = ContractionKind::MatMul { batch: 3, m: 32, n: 24, k: 20 };
    cases.push(Case { kind: batch, orders: [PLAIN, turned, PLAIN], blocks: by(Math::Tf32Stored, (64, 64), 2, 1) });
    check(&cases);
}

#[test]
fn warpgroups_convolve_pixel_major_images() {
    let mut cases = Vec::new();
    let strided = conv(24, [16, 40], [6, 4], 4, 2, 1);
    let wide = conv(72, [32, 16], [3, 4], 5, 1, 2);
    for math in [Math::Tf32Stored, Math::Bf16Stored] {
        let case = |kind, orders, splits| Case { kind, orders, blocks: warpgroup::blocks(math, (64, 64), 3, splits) };
        cases.push(case(ContractionKind::Conv2d(strided), [PIXELS, PIXELS, PIXELS], 1));
        cases.push(case(ContractionKind::Conv2dInputGrad(strided), [PIXELS, TURNED, PIXELS], 2));
        cases.push(case(ContractionKind::Conv2d(wide), [PIXELS, PIXELS, TURNED], 3));
        // Some pixels have no tap that is not on padding: their sums are 0.
        let sparse = conv(16, [16, 16], [2, 2], 1, 1, 2);
        cases.push(case(ContractionKind::Conv2d(sparse), [PIXELS, PIXELS, PIXELS], 1));
    }
    // Along images, which bf16 alone may lie.
    let blocks = |splits| warpgroup::blocks(Math::Bf16Stored, (128, 64), 2, splits);
    let case = |kind, orders, splits| Case { kind, orders, blocks: blocks(splits) };
    cases.push(case(ContractionKind::Conv2dFilterGrad(strided), [PIXELS, PIXELS, PIXELS], 3));
    cases.push(case(ContractionKind::Conv2dInputGrad(wide), [PIXELS, PIXELS, PIXELS], 1));
    check(&cases);
}

/// Tensor cores read 10 bits of a float's mantissa and cut off the others.
#[test]
fn floats_that_are_not_rounded_are_cut_off_by_warpgroups() {
    let kind = ContractionKind::MatMul { batch: 1, m: 64, n: 64, k: 800 };
    let orders: [&[usize]; 3] = [PLAIN, &[0, 2, 1], PLAIN];
    let case = |blocks| Case { kind, orders, blocks };
    let cases = [case(blocks(Math::Tf32, [64, 64], 3, 1)), case(warpgroup::blocks(Math::Tf32, (64, 64), 3, 1))];
    let found = errors(&cases);
    if let [by_warps, by_warpgroups] = found[..] {
        let is_as_said = by_warps < 5e-4 && by_warpgroups < 1e-3;
        assert!(is_as_said && by_warpgroups > 1.5 * by_warps, "{by_warps:.1e} and {by_warpgroups:.1e}");
    }
}

/// A kernel without one of its synchronisations, of which a GPU would often say nothing.
#[test]
fn warpgroups_that_do_not_wait_are_found_out() {
    let kind = ContractionKind::MatMul { batch: 1, m: 64, n: 64, k: 192 };
    let single = single(kind, [PLAIN, &[0, 2, 1], PLAIN], warpgroup::blocks(Math::Tf32, (64, 64), 2, 1));
    let rendered = render(&single.kernel, &single.buffers);
    let bytes = single.arena_bytes;
    let main = [
        format!("    std::vector<unsigned char> arena({bytes});\n"),
        format!("    emulation::transfer(in, arena.data(), {bytes}, false);\n"),
        launches(&rendered.launches),
        format!("    emulation::transfer(out, arena.data(), {bytes}, true);\n"),
    ];
    let input: Vec<u8> = numbers(bytes / 4, 0).into_iter().flat_map(f32::to_ne_bytes).collect();
    let without = |what: &str| {
        let prelude = prelude().replace(&format!("    {what}"), "");
        let text = format!("#include \"emulate.h\"\n{prelude}\n{}{}", rendered.source, program_of(&main.concat()));
        try_program(&text, &input)
    };
    let found = |what: &str, said: &str| {
        let Some(results) = without(what) else { return };
        let says = |result: &Result<_, String>| result.as_ref().is_err_and(|text| text.contains(said));
        assert!(results.iter().all(says), "without {what}: {results:?}");
    };
    found("show_copies();", "a copy is not shown to those who multiply");
    found("begin_multiplying();", "before their fence");
    found("await_products<1>();", "operands change while they are multiplied");
    // Sums that are not there yet are not a number.
    if let Some([Ok(found), _]) = without("await_products<0>();") {
        let y = &single.buffers[3];
        let mut y = found[y.offset..y.offset + y.bytes()].chunks_exact(4);
        assert!(y.all(|b| f32::from_ne_bytes([b[0], b[1], b[2], b[3]]).is_nan()));
    }
}

#[test]
fn operands_that_warpgroups_do_not_read_are_not_theirs() {
    let turned: &[usize] = &[0, 2, 1];
    let fits = |math, [m, n, k]: [usize; 3], orders| {
        let single =
            single(ContractionKind::MatMul { batch: 1, m, n, k }, orders, warpgroup::blocks(math, (64, 64), 3, 1));
        single.kernel.choice.algorithm.fits(&single.kernel.body)
    };
    assert!(fits(Math::Tf32, [64, 68, 36], [PLAIN, turned, PLAIN]));
    assert!(!fits(Math::Tf32, [64, 68, 36], [PLAIN, PLAIN, PLAIN]), "columns are neighbours");
    assert!(!fits(Math::Tf32x3, [64, 64, 64], [PLAIN, turned, PLAIN]), "there is no kernel");
    assert!(fits(Math::Bf16Stored, [64, 72, 40], [PLAIN, PLAIN, PLAIN]));
    assert!(
        !fits(Math::Bf16Stored, [64, 68, 40], [PLAIN, PLAIN, PLAIN]),
        "rows of 68 do not start at multiples of 16 bytes"
    );
}

#[test]
fn a_convolution_by_warpgroups_says_what_its_operands_are() {
    let kind = ContractionKind::Conv2d(conv(128, [64, 128], [14, 14], 4, 2, 1));
    let single = single(kind, [PIXELS, PIXELS, PIXELS], warpgroup::blocks(Math::Tf32, (128, 128), 3, 1));
    insta::assert_snapshot!(render(&single.kernel, &single.buffers).source);
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
