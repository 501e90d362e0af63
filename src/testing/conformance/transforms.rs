//! Transforms of minimal filtering, to points and back, and images as the windows of convolutions.

use super::case::{Agreement, Case};
use super::fixture::Fixture;
use crate::ir::{Op, Window};
use crate::scalar::ScalarOp;
use crate::winograd::{Direction, Part, Transform};

/// Of sums of a few dozen products with the entries of small matrices, of at most some hundred.
const SUMS: Agreement = Agreement::Near(1e-5);

pub fn transforms() -> Vec<Case> {
    let mut cases = Vec::new();
    // The DCGAN's layers, one with uneven axes, and one with a lane more than a cache line holds.
    let square = |size: usize| [size; 2];
    let convolutions = [
        ([3, 33], square(1), square(2), [square(7), square(5), square(7)], [4, 4]),
        ([2, 16], square(2), square(1), [square(14), square(4), square(7)], [7, 7]),
        ([5, 3], [2, 1], [1, 0], [[9, 11], [3, 2], [5, 10]], [3, 4]),
        ([1, 17], square(3), square(0), [[7, 10], square(3), [2, 3]], [1, 2]),
    ];
    for ([n, c], stride, pad, sizes, tile) in convolutions {
        for part in Part::ALL {
            let transform = Transform::new(part, &Window { stride, pad }, sizes, tile).expect("it is a convolution");
            let to_points = Transform { direction: Direction::ToPoints, ..transform };
            let size = transform.axes.map(|axis| axis.size(part));
            let map = vec![n, c, size[0], size[1]];
            let points = to_points.result(&map).expect("it takes such a map");
            for direction in Direction::ALL {
                let transform = Transform { direction, ..transform };
                let operand = if direction == Direction::ToPoints { &map } else { &points };
                let mut f = Fixture::new();
                let x = f.input("x", operand);
                let result = f.op(Op::Winograd(transform), &[x]);
                f.output("result", result);
                cases.push(f.case(format!("{} {operand:?} of {sizes:?}", transform.name()), SUMS));
            }
        }
    }
    cases.push(transposed_points());
    cases
}

/// Windows of images and what they add up to, by themselves and beside elementwise operations, some that overlap, some with
/// pixels between them, and some that lie on padding alone.
pub fn windows() -> Vec<Case> {
    let square = |size: usize| [size; 2];
    let sizes = [
        ([2, 3], [6, 5], [2, 1], [1, 0], [3, 2]),
        ([5, 1], square(28), square(2), square(1), square(4)),
        ([3, 2], [9, 8], [3, 4], [0, 0], [2, 2]),
        ([1, 2], [4, 4], square(1), square(3), [2, 3]),
        ([33, 1], [4, 6], [2, 3], [1, 2], [5, 6]),
    ];
    let mut cases = Vec::new();
    for ([n, c], size, stride, pad, kernel) in sizes {
        let window = Window { stride, pad };
        let name = format!("{n} images of {c} channels, {size:?} by {kernel:?} stride {stride:?} pad {pad:?}");
        let mut f = Fixture::new();
        let x = f.input("x", &[n, c, size[0], size[1]]);
        let columns = f.op(Op::Im2col { window, kernel }, &[x]);
        f.output("columns", columns);
        let squares = f.builder().mul(x, x);
        let columns = f.op(Op::Im2col { window, kernel }, &[squares]);
        let doubled = f.builder().add(columns, columns);
        f.output("doubled", doubled);
        cases.push(f.case(format!("im2col of {name}"), Agreement::Exact));

        let whole = [0, 1].map(|d| size[d].next_multiple_of(stride[d]));
        let windows = [0, 1].map(|d| (size[d] + 2 * pad[d] - kernel[d]) / stride[d] + 1);
        let mut f = Fixture::new();
        let x = f.input("x", &[n, c * kernel[0] * kernel[1], windows[0], windows[1]]);
        let y = f.input("y", &[n, c, whole[0], whole[1]]);
        let images = f.op(Op::Col2im { window, kernel, size: whole }, &[x]);
        let sum = f.builder().add(images, y);
        let total = f.builder().sum(sum, &[0, 2, 3]);
        let squares = f.builder().mul(x, x);
        let of_computed = f.op(Op::Col2im { window, kernel, size: whole }, &[squares]);
        for (name, node) in [("images", images), ("sum", sum), ("total", total), ("of_computed", of_computed)] {
            f.output(name, node);
        }
        cases.push(f.case(format!("col2im of {name}"), SUMS));
    }
    cases.push(layer_by_windows());
    cases
}

/// A layer of grey images as products of windows, with the two gradients, as a GPU computes it.
fn layer_by_windows() -> Case {
    let (window, kernel, size) = (Window { stride: [2; 2], pad: [1; 2] }, [4; 2], [12; 2]);
    let plain = Window { stride: [1; 2], pad: [0; 2] };
    let mut f = Fixture::new();
    let x = f.input("x", &[32, 1, 12, 12]);
    let w = f.state("w", &[24, 1, 4, 4]);
    let columns = f.op(Op::Im2col { window, kernel }, &[x]);
    let filter = f.op(Op::Reshape { to: vec![24, 16, 1, 1] }, &[w]);
    let y = f.op(Op::Conv2d { window: plain }, &[columns, filter]);
    let y = f.op(Op::Scalar(ScalarOp::Tanh), &[y]);
    let dw = f.op(Op::Conv2dFilterGrad { window: plain, kernel: [1; 2] }, &[columns, y]);
    let dw = f.op(Op::Reshape { to: vec![24, 1, 4, 4] }, &[dw]);
    let dc = f.op(Op::Conv2dInputGrad { window: plain, size: [6; 2] }, &[y, filter]);
    let dx = f.op(Op::Col2im { window, kernel, size }, &[dc]);
    let dx = f.op(Op::Scalar(ScalarOp::Tanh), &[dx]);
    for (name, node) in [("y", y), ("dw", dw), ("dx", dx)] {
        f.output(name, node);
    }
    f.case("a layer of grey images by windows", SUMS)
}

/// A filter's points that a product reads transposed, which a target may have lie so in memory.
fn transposed_points() -> Case {
    let (window, sizes) = (Window { stride: [2; 2], pad: [1; 2] }, [[14; 2], [4; 2], [7; 2]]);
    let transform = Transform::new(Part::Filter, &window, sizes, [7, 7]).expect("it is a convolution");
    let mut f = Fixture::new();
    let filter = f.state("w", &[24, 20, 4, 4]);
    let gradient = f.input("gradient", &[64, 8, 24]);
    let points = f.op(Op::Winograd(transform), &[filter]);
    let transposed = f.op(Op::Transpose { permutation: vec![0, 2, 1] }, &[points]);
    let product = f.op(Op::MatMul, &[gradient, transposed]);
    f.output("product", product);
    f.case("a filter's points that a product reads transposed", SUMS)
}
