//! The matrix products that a contraction is computed by, and where each reads and writes.
//!
//! Only this file knows how convolutions and their gradients become matrix products: executors take their loops from
//! it, and the verifier takes the elements that are touched.

use super::access::{Access, Bound};
use super::body::{Contraction, Operand};
use super::contraction::{ContractionKind, ConvShape};
use crate::tensor::Shape;

/// `out[b,m,n] = Σₖ a[b,m,k] · b[b,k,n]`, where each of `batch`, `m`, `n` and `k` is some dimensions, outermost first.
///
/// The accesses are into the contraction's operands and into its output as a row-major tensor. Where an operand is an
/// image, its first bound is on the row and its second on the column of the pixel that is read, also where they always
/// hold: outside of them an operand is 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gemm {
    pub batch: Shape,
    pub m: Shape,
    pub n: Shape,
    /// A size of 0 where nothing is summed: the results are then 0.
    pub k: Shape,
    /// Into the first operand, over `batch`, `m` and `k`; into the second for a filter gradient.
    pub a: Access,
    /// Into the second operand, over `batch`, `k` and `n`; into the first for a filter gradient.
    pub b: Access,
    /// Over `batch`, `m` and `n`.
    pub out: Access,
}

impl Gemm {
    /// The space over which an access of two of the groups is, the batch's dimensions first.
    pub fn space(&self, groups: [&Shape; 2]) -> Shape {
        [&self.batch[..], groups[0], groups[1]].concat()
    }

    /// How many sums there are.
    pub fn results(&self) -> usize {
        [&self.batch, &self.m, &self.n].into_iter().flatten().product()
    }

    /// Elements of the rows of one image, where `m` is images and pixels: each row has all terms of one pixel.
    pub fn gathered(&self) -> usize {
        self.m.iter().skip(1).product::<usize>().saturating_mul(self.depth())
    }

    /// How many terms each has.
    pub fn depth(&self) -> usize {
        self.k.iter().product()
    }
}

impl<B> Contraction<B> {
    /// The matrix products of its operands as they lie in memory, those of prologues row-major.
    pub fn gemms(&self) -> Vec<Gemm> {
        self.products(false)
    }

    /// The same of what is staged of them (see [`Operand::staged`]).
    pub fn staged_gemms(&self) -> Vec<Gemm> {
        self.products(true)
    }

    fn products(&self, stages_prologues: bool) -> Vec<Gemm> {
        let (shapes, _) = self.kind.shapes();
        let access = |side: usize| {
            let operand: &Operand<B> = &self.operands[side];
            match operand.staged().filter(|_| stages_prologues || operand.exprs().is_none()) {
                Some((_, access)) => access.clone(),
                None => Access::contiguous(&shapes[side]),
            }
        };
        self.kind.gemms_of([&access(0), &access(1)])
    }

    /// Where prologues compute the one product's `a` or `b` of what is staged, for each dimension of the contraction's operand
    /// the index at which that is read, over the product's own dimensions. Taps on padding have indices outside.
    pub fn prologue_coordinates(&self) -> [Vec<Access>; 2] {
        let (shapes, _) = self.kind.shapes();
        let shapes = self.kind.in_product_order([&shapes[0], &shapes[1]]);
        let operands = self.kind.in_product_order([&self.operands[0], &self.operands[1]]);
        [0, 1].map(|side| {
            let dimensions = if operands[side].has_staged_prologue() { 0..shapes[side].len() } else { 0..0 };
            // Products are linear in the strides: a stride of 1 along one dimension alone reads its index.
            let along = |d: usize| {
                let index = |rank: usize| Access {
                    offset: 0,
                    strides: (0..rank).map(|other| isize::from(other == d)).collect(),
                    bounds: Vec::new(),
                };
                let [first, second] = self.kind.in_product_order([0, 1].map(|side| index(shapes[side].len())));
                let [gemm] = <[Gemm; 1]>::try_from(self.kind.gemms_of([&first, &second])).ok()?;
                Some(if side == 0 { gemm.a } else { gemm.b })
            };
            dimensions.map_while(along).collect()
        })
    }
}

impl ContractionKind {
    /// The matrix products that this comes to; their results are every element of the output once.
    ///
    /// One for a matrix product, a convolution and a filter gradient. The gradient of a convolution in its input is one
    /// for each residue of the input's coordinates by the stride: pixels of one residue use the same taps of the
    /// filter.
    ///
    /// The operands are row-major.
    pub fn gemms(&self) -> Vec<Gemm> {
        let (shapes, _) = self.shapes();
        let [a, b] = shapes.each_ref().map(|shape| Access::contiguous(shape));
        self.gemms_of([&a, &b])
    }

    /// What belongs to the two operands, in the order of the products' own: the first operand of a filter gradient is the
    /// second of its product.
    pub fn in_product_order<T>(&self, [first, second]: [T; 2]) -> [T; 2] {
        match self {
            ContractionKind::Conv2dFilterGrad(_) => [second, first],
            ContractionKind::MatMul { .. } | ContractionKind::Conv2d(_) | ContractionKind::Conv2dInputGrad(_) => {
                [first, second]
            }
        }
    }

    /// [`ContractionKind::gemms`] of operands that are read by unbounded accesses over their shapes.
    pub fn gemms_of(&self, operands: [&Access; 2]) -> Vec<Gemm> {
        let [first, second] = operands;
        match self {
            &ContractionKind::MatMul { batch, m, n, k } => {
                let [batch_dims, m_dims, n_dims, k_dims] = [batch, m, n, k].map(|size| vec![size]);
                let (a, b, out) = (first.clone(), second.clone(), Access::contiguous(&[batch, m, n]));
                vec![Gemm { batch: batch_dims, m: m_dims, n: n_dims, k: k_dims, a, b, out }]
            }
            ContractionKind::Conv2d(c) => vec![forward(c, first.into(), second.into())],
            ContractionKind::Conv2dInputGrad(c) => {
                let lines = [0, 1].map(|d| (0..c.window.stride[d]).filter_map(|r| Line::new(c, d, r)).collect());
                let [rows, columns]: [Vec<Line>; 2] = lines;
                let (y, w) = (Strided::from(first), Strided::from(second));
                rows.iter().flat_map(|row| columns.iter().map(move |column| input_grad(c, y, w, row, column))).collect()
            }
            ContractionKind::Conv2dFilterGrad(c) => vec![filter_grad(c, first.into(), second.into())],
        }
    }
}

/// Where the elements of a tensor of four dimensions are.
#[derive(Debug, Clone, Copy)]
struct Strided {
    offset: isize,
    strides: [isize; 4],
}

impl From<&Access> for Strided {
    fn from(access: &Access) -> Strided {
        let mut strides = [0; 4];
        strides.iter_mut().zip(&access.strides).for_each(|(to, from)| *to = *from);
        Strided { offset: access.offset, strides }
    }
}

impl Strided {
    fn row_major(shape: &[usize]) -> Strided {
        Strided::from(&Access::contiguous(shape))
    }
}

/// The pixel of an image of `size` that a window reads, over dimensions of which `row` and `column` give the strides:
/// the bounds on its row and its column.
fn pixel(size: [usize; 2], row: (isize, Vec<isize>), column: (isize, Vec<isize>)) -> [Bound; 2] {
    [(row, size[0]), (column, size[1])].map(|((offset, strides), below)| Bound { offset, strides, below })
}

/// The access of an image's pixel, where `rest` gives the strides of all dimensions but its rows and columns.
fn image(of: Strided, bounds: [Bound; 2], rest: Vec<isize>) -> Access {
    let [row, column] = &bounds;
    let [.., down, right] = of.strides;
    let strides = rest.iter().zip(row.strides.iter().zip(&column.strides)).map(|(s, (r, c))| s + r * down + c * right);
    let offset = of.offset + row.offset * down + column.offset * right;
    Access { offset, strides: strides.collect(), bounds: bounds.to_vec() }
}

/// The input under the filter, over images, output rows and columns, tap rows and columns, and channels.
fn patches(c: &ConvShape, x: Strided) -> Access {
    unbounded(x.offset, x.strides.to_vec()).windows(&c.input_shape(), &c.window).permuted(&[0, 4, 5, 2, 3, 1])
}

fn unbounded(offset: isize, strides: Vec<isize>) -> Access {
    Access { offset, strides, bounds: Vec::new() }
}

/// `y[n,o,y,x] = Σ x[n,c,·] w[o,c,·]`.
fn forward(c: &ConvShape, x: Strided, w: Strided) -> Gemm {
    let Strided { offset, strides: w } = w;
    let Strided { strides: y, .. } = Strided::row_major(&c.output_shape());
    Gemm {
        batch: Vec::new(),
        m: vec![c.n, c.output[0], c.output[1]],
        n: vec![c.o],
        k: vec![c.kernel[0], c.kernel[1], c.c],
        a: patches(c, x),
        b: unbounded(offset, vec![w[2], w[3], w[1], w[0]]),
        out: unbounded(0, vec![y[0], y[2], y[3], y[1]]),
    }
}

/// `dw[o,c,·] = Σ dy[n,o,·] x[n,c,·]`, summed over all pixels of all images.
fn filter_grad(c: &ConvShape, x: Strided, y: Strided) -> Gemm {
    let Strided { offset, strides: y } = y;
    let Strided { strides: w, .. } = Strided::row_major(&c.filter_shape());
    Gemm {
        batch: Vec::new(),
        m: vec![c.o],
        n: vec![c.kernel[0], c.kernel[1], c.c],
        k: vec![c.n, c.output[0], c.output[1]],
        a: unbounded(offset, vec![y[1], y[0], y[2], y[3]]),
        b: patches(c, x),
        out: unbounded(0, vec![w[0], w[2], w[3], w[1]]),
    }
}

/// The coordinates of the input along one dimension that have one residue by the stride, and the taps that they use.
struct Line {
    /// The first coordinate, and how many there are, one stride apart.
    first: usize,
    count: usize,
    /// The output's coordinate for the first coordinate and the first tap; both rise by 1 with either.
    from: isize,
    /// The first tap; each next one is a stride before.
    tap: isize,
    taps: usize,
}

impl Line {
    fn new(c: &ConvShape, d: usize, residue: usize) -> Option<Line> {
        let (stride, pad) = (c.window.stride[d], c.window.pad[d]);
        let first = (residue + stride - pad % stride) % stride;
        let count = c.input[d].checked_sub(first + 1).map(|rest| rest / stride + 1)?;
        // Pixel h takes tap k of the output at (h + pad − k) / stride, where that is a whole number.
        let taps = c.kernel[d].saturating_sub(residue).div_ceil(stride);
        let tap = (residue + taps.saturating_sub(1) * stride) as isize;
        let from = ((first + pad - residue) / stride) as isize - taps.saturating_sub(1) as isize;
        Some(Line { first, count, from, tap, taps })
    }
}

/// `dx[n,c,·] = Σ dy[n,o,·] w[o,c,·]` for pixels of one residue.
fn input_grad(c: &ConvShape, y: Strided, w: Strided, row: &Line, column: &Line) -> Gemm {
    let Strided { offset, strides: w } = w;
    let Strided { strides: x, .. } = Strided::row_major(&c.input_shape());
    let stride = c.window.stride.map(|size| size as isize);
    let bounds = pixel(c.output, (row.from, vec![0, 1, 0, 1, 0, 0]), (column.from, vec![0, 0, 1, 0, 1, 0]));
    Gemm {
        batch: Vec::new(),
        m: vec![c.n, row.count, column.count],
        n: vec![c.c],
        k: vec![row.taps, column.taps, c.o],
        a: image(y, bounds, vec![y.strides[0], 0, 0, 0, 0, y.strides[1]]),
        b: unbounded(
            offset + row.tap * w[2] + column.tap * w[3],
            vec![-stride[0] * w[2], -stride[1] * w[3], w[0], w[1]],
        ),
        out: unbounded(
            row.first as isize * x[2] + column.first as isize * x[3],
            vec![x[0], stride[0] * x[2], stride[1] * x[3], x[1]],
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::products::{by_definition, points};
    use crate::types::Window;
    use proptest::prelude::*;

    fn at(data: &[i64], access: &Access, groups: [&[usize]; 3]) -> i64 {
        access.element(&groups.concat()).map_or(0, |element| data[element as usize])
    }

    /// Evaluates the products one by one; every result must be written once.
    fn by_gemms(kind: &ContractionKind, gemms: Vec<Gemm>, first: &[i64], second: &[i64]) -> Vec<i64> {
        let (_, shape) = kind.shapes();
        let mut out = vec![None; shape.iter().product()];
        let [a, b] = kind.in_product_order([first, second]);
        for g in gemms {
            for batch in points(&g.batch) {
                for m in points(&g.m) {
                    for n in points(&g.n) {
                        let term = |k: Vec<usize>| at(a, &g.a, [&batch, &m, &k]) * at(b, &g.b, [&batch, &k, &n]);
                        let sum = points(&g.k).map(term).sum();
                        let to = g.out.element(&[&batch[..], &m, &n].concat()).unwrap() as usize;
                        assert_eq!(out[to].replace(sum), None, "{to} is written twice");
                    }
                }
            }
        }
        out.into_iter().map(|value| value.expect("every result is written")).collect()
    }

    fn conv() -> impl Strategy<Value = ConvShape> {
        let pair = |most: usize| [1..=most, 1..=most];
        let sizes = (1usize..3, 1usize..4, 1usize..4, pair(6), pair(4), pair(3), [0usize..4, 0usize..4]);
        sizes.prop_filter_map("the output is empty", |(n, c, o, input, kernel, stride, pad)| {
            let output = |d: usize| Some((input[d] + 2 * pad[d]).checked_sub(kernel[d])? / stride[d] + 1);
            let output = [output(0)?, output(1)?];
            Some(ConvShape { n, c, input, o, kernel, output, window: Window { stride, pad } })
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        #[test]
        fn convolutions_are_their_matrix_products(c in conv(), seed in any::<i64>()) {
            for kind in [ContractionKind::Conv2d(c), ContractionKind::Conv2dInputGrad(c), ContractionKind::Conv2dFilterGrad(c)] {
                let ([a, b], _) = kind.shapes();
                let data = |shape: &[usize], salt: i64| -> Vec<i64> {
                    let number = |i: i64| (seed ^ salt).wrapping_add(i).wrapping_mul(0x5851_F42D_4C95_7F2D) >> 60;
                    (0..shape.iter().product::<usize>() as i64).map(number).collect()
                };
                let (first, second) = (data(&a, 1), data(&b, 2));
                let expected = by_definition(&kind, &first, &second);
                prop_assert_eq!(&by_gemms(&kind, kind.gemms(), &first, &second), &expected, "{:?}", kind);
                // The same with the operands' dimensions in another order in memory, after some other elements.
                let order = [2, 3, 0, 1];
                let moved = |data: &[i64], shape: &[usize]| {
                    let access = Access { offset: 5, ..Access::ordered(shape, &order) };
                    let mut moved = vec![i64::MIN; 5 + data.len()];
                    for (point, value) in points(shape).zip(data) {
                        moved[access.element(&point).unwrap() as usize] = *value;
                    }
                    (access, moved)
                };
                let ((at_first, first), (at_second, second)) = (moved(&first, &a), moved(&second, &b));
                let gemms = kind.gemms_of([&at_first, &at_second]);
                prop_assert_eq!(&by_gemms(&kind, gemms, &first, &second), &expected, "{:?}", kind);
            }
        }
    }

    /// Most residues of a large stride have no pixel.
    #[test]
    fn a_stride_beyond_the_image_makes_no_empty_products() {
        let window = Window { stride: [crate::types::MAX_PADDED; 2], pad: [0; 2] };
        let c = ConvShape { n: 1, c: 1, input: [2, 3], o: 1, kernel: [1, 1], output: [1, 1], window };
        let gemms = ContractionKind::Conv2dInputGrad(c).gemms();
        assert_eq!(gemms.len(), 6);
        assert!(gemms.iter().all(|g| g.results() == 1));
    }

    #[test]
    fn an_input_gradient_is_a_product_for_each_residue() {
        let window = Window { stride: [2, 2], pad: [1, 1] };
        let c = ConvShape { n: 2, c: 3, input: [8, 8], o: 5, kernel: [4, 4], output: [4, 4], window };
        let gemms = ContractionKind::Conv2dInputGrad(c).gemms();
        assert_eq!(gemms.len(), 4);
        assert!(gemms.iter().all(|g| g.m == [2, 4, 4] && g.k == [2, 2, 5] && g.n == [3]));
        assert_eq!(ContractionKind::Conv2d(c).gemms().len(), 1);
    }
}
