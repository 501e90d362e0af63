//! Transforms of minimal filtering, to points and back.

use super::case::{Agreement, Case};
use super::fixture::Fixture;
use crate::ir::{Op, Window};
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
