//! Matrix products and the three convolutions, plain and with what is fused into them.

use super::case::{Agreement, Case};
use super::fixture::Fixture;
use crate::ir::{NodeId, Op, ReduceKind, Window};
use crate::scalar::ScalarOp;
use crate::testing::{Choices, special_bindings};

/// Of sums of up to a few thousand products of numbers in [-1, 1].
pub const PRODUCTS: Agreement = Agreement::Near(4e-5);

/// `[batch, m, k] · [batch, k, n]`, each operand as it lies in memory or transposed.
fn product(f: &mut Fixture, [batch, m, n, k]: [usize; 4], transposed: [bool; 2], computed: bool) -> NodeId {
    let mut operand = |name: &str, rows: usize, columns: usize, transposed: bool| {
        let shape = if transposed { [batch, columns, rows] } else { [batch, rows, columns] };
        let x = f.input(name, &shape);
        let mut b = f.builder();
        let x = if computed { b.scalar(ScalarOp::Exp, &[x]) } else { x };
        if transposed { b.transpose(x, &[0, 2, 1]) } else { x }
    };
    let (a, b) = (operand("a", m, k, transposed[0]), operand("b", k, n, transposed[1]));
    f.builder().matmul(a, b)
}

pub fn matrix_products() -> Vec<Case> {
    let mut cases = Vec::new();
    let sizes = [
        [1, 1, 1, 1],
        [1, 1, 1, 513],
        [1, 1, 257, 3],
        [1, 257, 1, 3],
        [3, 7, 5, 11],
        [1, 13, 33, 257],
        [1, 128, 96, 300],
        [2, 65, 31, 64],
        [1, 12, 32, 256],
        [1, 13, 33, 300],
        [2, 65, 17, 513],
    ];
    for [batch, m, n, k] in sizes {
        for transposed in [[false, false], [true, false], [false, true], [true, true]] {
            let mut f = Fixture::new();
            let result = product(&mut f, [batch, m, n, k], transposed, false);
            f.output("result", result);
            let t = transposed.map(|t| if t { "ᵀ" } else { "" });
            cases.push(f.case(format!("{batch} of {m}x{k}{} by {k}x{n}{}", t[0], t[1]), PRODUCTS));
        }
    }
    let mut choices = Choices::new(5);
    for i in 0..16 {
        let mut f = Fixture::new();
        let mut size = |most| 1 + choices.below(most);
        let sizes = [size(3), size(70), size(70), size(70)];
        let result = product(&mut f, sizes, [i & 1 == 1, i & 2 == 2], false);
        f.output("result", result);
        f.given = special_bindings(&f.graph, i, 2 + 24 * i as usize);
        cases.push(f.case(format!("special values in {sizes:?}, {i}"), Agreement::Special(4e-5)));
    }
    cases
}

#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Forward,
    InputGrad,
    FilterGrad,
}

/// The sizes of a convolution of `n` images of `c` channels to `o`.
#[derive(Clone, Copy)]
pub struct Sizes {
    pub n: usize,
    pub c: usize,
    pub o: usize,
    pub size: [usize; 2],
    pub kernel: [usize; 2],
    pub window: Window,
}

impl Sizes {
    pub fn out(&self) -> [usize; 2] {
        [0, 1].map(|d| (self.size[d] + 2 * self.window.pad[d] - self.kernel[d]) / self.window.stride[d] + 1)
    }

    fn is_possible(&self) -> bool {
        (0..2).all(|d| self.size[d] + 2 * self.window.pad[d] >= self.kernel[d])
    }

    pub fn describe(&self) -> String {
        let Sizes { n, c, o, size, kernel, window } = self;
        format!("{n}x{c}x{size:?} to {o} by {kernel:?} stride {:?} pad {:?}", window.stride, window.pad)
    }

    pub fn add(&self, f: &mut Fixture, kind: Kind) -> NodeId {
        let Sizes { n, c, o, size, kernel, window } = *self;
        let out = self.out();
        let (x, w, y) = ([n, c, size[0], size[1]], [o, c, kernel[0], kernel[1]], [n, o, out[0], out[1]]);
        let (op, a, b) = match kind {
            Kind::Forward => (Op::Conv2d { window }, x, w),
            Kind::InputGrad => (Op::Conv2dInputGrad { window, size }, y, w),
            Kind::FilterGrad => (Op::Conv2dFilterGrad { window, kernel }, x, y),
        };
        let operands = [f.input("a", &a), f.input("b", &b)];
        f.op(op, &operands)
    }
}

pub const KINDS: [(&str, Kind); 3] =
    [("conv2d", Kind::Forward), ("input grad", Kind::InputGrad), ("filter grad", Kind::FilterGrad)];

/// A bias for each channel and an activation behind it.
fn with_epilogue(f: &mut Fixture, result: NodeId) -> NodeId {
    let shape = f.graph.shape(result).to_vec();
    let bias = f.input("bias", &[1, shape[1], 1, 1]);
    let mut b = f.builder();
    let bias = b.broadcast(bias, &shape);
    let sum = b.add(result, bias);
    b.scalar(ScalarOp::Tanh, &[sum])
}

pub fn window(stride: usize, pad: usize) -> Window {
    Window { stride: [stride; 2], pad: [pad; 2] }
}

pub fn convolutions() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut case = |sizes: Sizes, fused: bool| {
        for (name, kind) in KINDS {
            let mut f = Fixture::new();
            let mut result = sizes.add(&mut f, kind);
            if fused {
                result = with_epilogue(&mut f, result);
            }
            f.output("result", result);
            let fused = if fused { ", fused" } else { "" };
            cases.push(f.case(format!("{name} {}{fused}", sizes.describe()), PRODUCTS));
        }
    };
    // The layers of the DCGAN at a small, odd batch.
    for fused in [false, true] {
        case(Sizes { n: 3, c: 128, o: 64, size: [7; 2], kernel: [5; 2], window: window(1, 2) }, fused);
        case(Sizes { n: 3, c: 64, o: 128, size: [14; 2], kernel: [4; 2], window: window(2, 1) }, fused);
        case(Sizes { n: 5, c: 1, o: 64, size: [28; 2], kernel: [4; 2], window: window(2, 1) }, fused);
        case(Sizes { n: 1, c: 1, o: 1, size: [1; 2], kernel: [1; 2], window: window(1, 0) }, fused);
        let uneven = Window { stride: [2, 1], pad: [1, 0] };
        case(Sizes { n: 3, c: 5, o: 7, size: [9, 11], kernel: [3, 2], window: uneven }, fused);
        case(Sizes { n: 2, c: 3, o: 33, size: [8; 2], kernel: [4; 2], window: window(2, 1) }, fused);
        case(Sizes { n: 5, c: 17, o: 2, size: [7; 2], kernel: [5; 2], window: window(1, 2) }, fused);
        let wide = Window { stride: [3, 3], pad: [0, 2] };
        case(Sizes { n: 2, c: 4, o: 6, size: [5, 6], kernel: [2, 3], window: wide }, fused);
        // Few channels: kernels partly on padding alone, pixels that fill no panel, one image and many.
        case(Sizes { n: 1, c: 1, o: 5, size: [6, 9], kernel: [5, 3], window: window(1, 4) }, fused);
        case(Sizes { n: 1, c: 3, o: 13, size: [11, 7], kernel: [4, 3], window: window(3, 2) }, fused);
        case(Sizes { n: 37, c: 2, o: 3, size: [5, 4], kernel: [1, 4], window: wide }, fused);
        let shifted = Window { stride: [2, 3], pad: [3, 0] };
        case(Sizes { n: 2, c: 3, o: 4, size: [3, 8], kernel: [2, 5], window: shifted }, fused);
    }
    let mut choices = Choices::new(17);
    let mut made = 0;
    while made < 60 {
        let mut below = |most| choices.below(most);
        let sizes = Sizes {
            n: 1 + below(9),
            c: 1 + below(35),
            o: 1 + below(35),
            size: [1 + below(8), 1 + below(8)],
            kernel: [1 + below(5), 1 + below(5)],
            window: Window { stride: [1 + below(3), 1 + below(3)], pad: [below(4), below(4)] },
        };
        if sizes.is_possible() {
            case(sizes, made % 2 == 1);
            made += 1;
        }
    }
    cases
}

/// A batch that is normalised by its statistics over some axes, scaled and shifted, and its relu.
fn normalised(f: &mut Fixture, x: NodeId, axes: &[usize], scale: NodeId, shift: NodeId) -> NodeId {
    let shape = f.graph.shape(x).to_vec();
    let mut b = f.builder();
    let mean = b.mean(x, axes);
    let mean_of_all = b.broadcast(mean, &shape);
    let deviation = b.sub(x, mean_of_all);
    let squared = b.mul(deviation, deviation);
    let variance = b.mean(squared, axes);
    let kept = b.shape(variance);
    let epsilon = b.constant(1e-3, &kept);
    let variance = b.add(variance, epsilon);
    let root = b.scalar(ScalarOp::Rsqrt, &[variance]);
    let [root, scale, shift] = [root, scale, shift].map(|one| b.broadcast(one, &shape));
    let unit = b.mul(deviation, root);
    let scaled = b.mul(unit, scale);
    let shifted = b.add(scaled, shift);
    let zero = b.constant(0.0, &shape);
    b.scalar(ScalarOp::Max, &[shifted, zero])
}

/// Contractions of what another contraction has made, normalised by statistics of that: by prologues, where a device does so.
pub fn prologues() -> Vec<Case> {
    let mut cases = Vec::new();
    // Rows, terms and columns that fill tiles and pieces or do not, and lie so that whole runs can be copied or do not.
    for [m, n, k] in [[128, 64, 64], [37, 24, 40], [64, 200, 132], [21, 18, 19]] {
        let mut f = Fixture::new();
        let [a, b, c] =
            [("a", [1, m, 32]), ("b", [1, 32, k]), ("c", [1, k, n])].map(|(name, shape)| f.input(name, &shape));
        let [scale, shift] = ["scale", "shift"].map(|name| f.input(name, &[1, 1, k]));
        let x = f.builder().matmul(a, b);
        let y = normalised(&mut f, x, &[1], scale, shift);
        let result = f.builder().matmul(y, c);
        f.output("result", result);
        // As in the gradient of the second matrix.
        let by = f.input("by", &[1, m, n]);
        let mut b = f.builder();
        let turned = b.transpose(y, &[0, 2, 1]);
        let gradient = b.matmul(turned, by);
        f.output("gradient", gradient);
        cases.push(f.case(format!("matrix of {m}x{k} by {k}x{n}"), PRODUCTS));
    }
    // Statistics of parts of the rows, which lie beside each other in memory: whole runs of them are copied, or no parts.
    for (parts, rows, normalises) in [(2, 36, true), (4, 60, false)] {
        let mut f = Fixture::new();
        let [a, b] = [("a", [128, 32]), ("b", [32, rows])].map(|(name, shape)| f.input(name, &shape));
        // Called as what kernels have names for themselves.
        let [scale, shift] = ["inner", "element"].map(|name| f.input(name, &[1, rows]));
        let of = f.input("of", &[128, 64]);
        let x = f.builder().matmul(a, b);
        let x = if normalises { normalised(&mut f, x, &[0], scale, shift) } else { x };
        let mut b = f.builder();
        let turned = b.transpose(x, &[1, 0]);
        let product = b.matmul(turned, of);
        let cut = b.reshape(product, &[parts, rows / parts, 64]);
        let sums = b.sum(cut, &[1]);
        f.output("product", product);
        f.output("sums", sums);
        cases.push(f.case(format!("{parts} parts of {} rows", rows / parts), PRODUCTS));
    }
    let sizes =
        |n, c, o, size, kernel: usize, pad| Sizes { n, c, o, size, kernel: [kernel; 2], window: window(1, pad) };
    for (sizes, images) in [
        (sizes(36, 20, 24, [3, 5], 1, 0), 0..36),
        // The second of two calls' images.
        (sizes(40, 64, 16, [2, 4], 1, 0), 20..40),
        // Taps on padding, and images from within a batch.
        (sizes(36, 16, 16, [5, 4], 3, 1), 0..36),
        (sizes(24, 24, 16, [4, 4], 3, 2), 4..20),
    ] {
        for (name, kind) in KINDS {
            let mut f = Fixture::new();
            let Sizes { n, c, size: [height, width], window, .. } = sizes;
            let (a, b) = (f.input("image", &[n, 16, height, width]), f.input("first", &[c, 16, 1, 1]));
            let x = f.op(Op::Conv2d { window: self::window(1, 0) }, &[a, b]);
            let [scale, shift] = ["scale", "shift"].map(|name| f.input(name, &[1, c, 1, 1]));
            let y = normalised(&mut f, x, &[0, 2, 3], scale, shift);
            let (start, end) = (vec![images.start, 0, 0, 0], vec![images.end, c, height, width]);
            let y = f.op(Op::Slice { start, end }, &[y]);
            let (count, out) = (images.len(), sizes.out());
            let result = match kind {
                Kind::Forward => {
                    let filter = f.input("filter", &[sizes.o, c, sizes.kernel[0], sizes.kernel[1]]);
                    f.op(Op::Conv2d { window }, &[y, filter])
                }
                // Of an image whose convolution has the batch's sizes.
                Kind::InputGrad => {
                    let filter = f.input("filter", &[c, sizes.o, sizes.kernel[0], sizes.kernel[1]]);
                    let size = [0, 1].map(|d| sizes.size[d] + sizes.kernel[d] - 1 - 2 * window.pad[d]);
                    f.op(Op::Conv2dInputGrad { window, size }, &[y, filter])
                }
                Kind::FilterGrad => {
                    let of = f.input("of", &[count, sizes.o, out[0], out[1]]);
                    f.op(Op::Conv2dFilterGrad { window, kernel: sizes.kernel }, &[y, of])
                }
            };
            f.output("result", result);
            let of = format!("{name} {}, images {images:?}", sizes.describe());
            cases.push(f.case(of, PRODUCTS));
        }
    }
    cases
}

/// What a contraction computes before and after its sums.
pub fn fusion() -> Vec<Case> {
    let mut cases = Vec::new();
    for transposed in [[false, false], [true, false], [false, true], [true, true]] {
        let mut f = Fixture::new();
        let result = product(&mut f, [2, 33, 21, 40], transposed, true);
        f.output("result", result);
        cases.push(f.case(format!("computed operands, transposed {transposed:?}"), PRODUCTS));
    }
    for (name, kind) in KINDS {
        let sizes = Sizes { n: 3, c: 5, o: 7, size: [6, 5], kernel: [3, 2], window: window(1, 1) };
        // The sums and two values of theirs are all stored.
        let mut f = Fixture::new();
        let result = sizes.add(&mut f, kind);
        let activated = with_epilogue(&mut f, result);
        let doubled = f.builder().scale(activated, 2.0);
        for (name, node) in [("result", result), ("activated", activated), ("doubled", doubled)] {
            f.output(name, node);
        }
        cases.push(f.case(format!("{name} with several stores"), PRODUCTS));

        // A residual of the result's own shape, and statistics of the batch.
        let mut f = Fixture::new();
        let result = sizes.add(&mut f, kind);
        let shape = f.graph.shape(result).to_vec();
        let residual = f.input("residual", &shape);
        let sum = f.builder().add(result, residual);
        for kind in [ReduceKind::Sum, ReduceKind::Max] {
            let reduced = f.op(Op::Reduce { kind, axes: vec![0, 2, 3] }, &[sum]);
            f.output(&format!("{kind:?}"), reduced);
        }
        let total = f.op(Op::Reduce { kind: ReduceKind::Sum, axes: vec![0, 2, 3] }, &[sum]);
        let mut b = f.builder();
        let total = b.broadcast(total, &shape);
        let centred = b.sub(sum, total);
        f.output("centred", centred);
        cases.push(f.case(format!("{name} with statistics"), PRODUCTS));

        // The next contraction reads what the first one's epilogue made.
        let mut f = Fixture::new();
        let result = sizes.add(&mut f, kind);
        let activated = with_epilogue(&mut f, result);
        let shape = f.graph.shape(activated).to_vec();
        let filter = f.input("filter", &[4, shape[1], 1, 1]);
        let next = f.op(Op::Conv2d { window: window(1, 0) }, &[activated, filter]);
        f.output("next", next);
        cases.push(f.case(format!("{name} before another"), PRODUCTS));
    }
    let mut f = Fixture::new();
    let result = product(&mut f, [1, 19, 23, 300], [false, true], false);
    let bias = f.input("bias", &[1, 1, 23]);
    let mut b = f.builder();
    let bias = b.broadcast(bias, &[1, 19, 23]);
    let sum = b.add(result, bias);
    let relu = b.constant(0.0, &[1, 19, 23]);
    let relu = b.scalar(ScalarOp::Max, &[sum, relu]);
    let turned = b.transpose(relu, &[0, 2, 1]);
    f.output("relu", relu);
    f.output("turned", turned);
    cases.push(f.case("dense layer with a transposed result", PRODUCTS));
    cases
}
