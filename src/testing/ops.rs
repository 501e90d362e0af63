//! Random graphs: the operations, each with a bound on its result.

use super::graphs::{Grower, Known};
use crate::ir::{DType, Distribution, NodeId, Op, Real, ReduceKind, Shape, Type, Window};
use crate::scalar::ScalarOp;

/// f32 holds every integer up to this exactly.
const EXACT_INTEGERS: f64 = 16_777_216.0;

impl Grower {
    /// One more real value.
    pub fn real_step(&mut self) -> Known {
        let x = self.choices.pick(&self.reals);
        match self.choices.below(20) {
            0 if self.choices.one_in(3) => self.decay(x),
            0..=3 => self.unary(x),
            4..=7 => self.binary(x),
            8 | 9 => self.reduce(x),
            10 => self.broadcast_back(x),
            11..=13 => {
                let ops = self.movement(x.id);
                Known { id: ops, ..x }
            }
            14 if !self.options.smooth => self.masked(x),
            15 if self.options.draws => self.draw(x),
            16 if self.options.contractions => self.matmul(x),
            17 | 18 if self.options.contractions => self.convolution(),
            19 => self.generated(),
            _ => self.unary(x),
        }
    }

    /// One more integer value.
    pub fn integer_step(&mut self) -> Known {
        let x = self.choices.pick(&self.integers);
        let shape = self.shape(x.id);
        match self.choices.below(4) {
            0 => {
                let alike = self.alike(&self.integers, x);
                let y = self.choices.pick(&alike);
                let id = self.scalar(ScalarOp::AddU32, &[x.id, y.id]);
                Known { id, bound: (x.bound + y.bound).min(f64::from(u32::MAX)), exact: true }
            }
            1 if !shape.is_empty() => {
                let axis = self.choices.below(shape.len());
                let bound = (shape[axis] - 1) as f64;
                Known { id: self.op(Op::Iota { axis, ty: Type::u32(shape) }, &[]), bound, exact: true }
            }
            2 => {
                let value = self.choices.pick(&[0, 1, 7, u32::MAX]);
                let id = self.op(Op::constant(f64::from(value), DType::U32, shape), &[]);
                Known { id, bound: f64::from(value), exact: true }
            }
            _ => Known { id: self.movement(x.id), ..x },
        }
    }

    /// Values of the shape of `x`, which is one of them.
    fn alike(&self, among: &[Known], x: Known) -> Vec<Known> {
        among.iter().copied().filter(|y| self.graph.shape(y.id) == self.graph.shape(x.id)).collect()
    }

    /// A value of at least 1/2 that grows with the magnitude of `x`.
    fn positive(&mut self, x: Known) -> Known {
        let shape = self.shape(x.id);
        let half = self.constant(0.5, &shape);
        let (size, bound) = if self.options.smooth || self.choices.one_in(2) {
            (self.scalar(ScalarOp::Mul, &[x.id, x.id]), x.bound * x.bound)
        } else {
            (self.scalar(ScalarOp::Abs, &[x.id]), x.bound)
        };
        Known { id: self.scalar(ScalarOp::Add, &[size, half]), bound: bound + 0.5, exact: false }
    }

    fn unary(&mut self, x: Known) -> Known {
        use ScalarOp::*;
        let smooth = [
            Neg, Exp, Log, Sqrt, Rsqrt, Tanh, Sigmoid, Softplus, Sin, Cos, Tan, Asin, Acos, Atan, Sinh, Cosh, Asinh,
            Acosh, Atanh, Erf,
        ];
        let jumps = [Abs, Sign, Floor, Ceil, Round, IsNan];
        let any = [&smooth[..], &jumps].concat();
        let op = if self.options.smooth { self.choices.pick(&smooth) } else { self.choices.pick(&any) };
        let mut x = x;
        match op {
            // e^x is tame where x is small, and jumps need exact values.
            Exp | Tan | Sinh | Cosh if x.bound > 1.0 => {
                x = Known { id: self.scalar(Tanh, &[x.id]), bound: 1.0, exact: false }
            }
            Sign | Floor | Ceil | Round | IsNan if !x.exact => x = self.exact(x.id),
            Log | Sqrt | Rsqrt => x = self.positive(x),
            Asin | Acos | Atanh => x = self.scale(x, 0.75 / x.bound.max(1.0)),
            Acosh => {
                let more = self.positive(x);
                let one = self.constant(1.0, &self.shape(more.id));
                x = Known { id: self.scalar(Add, &[more.id, one]), bound: more.bound + 1.0, exact: false };
            }
            _ => {}
        }
        let bound = match op {
            Neg | Abs | Asinh | Acosh => x.bound,
            Floor | Ceil | Round => x.bound + 1.0,
            Tan | Sinh | Cosh | Asin | Atan | Atanh => 1.6,
            Acos => 3.2,
            Exp => x.bound.exp(),
            Log => x.bound.ln().max(2.0f64.ln()),
            Sqrt => x.bound.sqrt(),
            Rsqrt => 2.0f64.sqrt(),
            Softplus => x.bound + 2.0f64.ln(),
            _ => 1.0,
        };
        let exact = x.exact && matches!(op, Neg | Abs | Sign | Floor | Ceil | Round | IsNan);
        Known { id: self.scalar(op, &[x.id]), bound, exact }
    }

    /// `e^(x·(c + d)) − 1`, with an exponent between -1 and 1.
    fn decay(&mut self, x: Known) -> Known {
        let shape = self.shape(x.id);
        let x = self.scale(x, 1.0 / x.bound.max(1.0));
        let (high, low) = (self.constant(-0.875, &shape), self.constant(2f64.powi(-12), &shape));
        Known { id: self.scalar(ScalarOp::Expm1Product, &[x.id, high, low]), bound: 2.0, exact: false }
    }

    fn binary(&mut self, x: Known) -> Known {
        use ScalarOp::*;
        let alike = self.alike(&self.reals, x);
        let y = self.choices.pick(&alike);
        let smooth = [Add, Sub, Mul, Div, Pow];
        let any = [Add, Sub, Mul, Div, Pow, Max, Min, Fmod];
        let op = if self.options.smooth { self.choices.pick(&smooth) } else { self.choices.pick(&any) };
        match op {
            Div => {
                let y = self.positive(y);
                Known { id: self.scalar(Div, &[x.id, y.id]), bound: 2.0 * x.bound, exact: false }
            }
            // The rest of a division jumps, so both are the same in f32 and f64.
            Fmod => {
                let x = self.exact(x.id);
                let divisor = self.choices.pick(&[0.75, -1.5]);
                let divisor = self.constant(divisor, &self.shape(x.id));
                Known { id: self.scalar(Fmod, &[x.id, divisor]), bound: 1.5, exact: true }
            }
            Pow => {
                let base = self.positive(x);
                let exponent = self.scalar(Tanh, &[y.id]);
                Known { id: self.scalar(Pow, &[base.id, exponent]), bound: base.bound.max(2.0), exact: false }
            }
            _ => {
                let bound = match op {
                    Mul => x.bound * y.bound,
                    Max | Min => x.bound.max(y.bound),
                    _ => x.bound + y.bound,
                };
                let exact = matches!(op, Max | Min) && x.exact && y.exact;
                Known { id: self.scalar(op, &[x.id, y.id]), bound, exact }
            }
        }
    }

    fn reduce(&mut self, x: Known) -> Known {
        let shape = self.shape(x.id);
        let axes = self.choices.some_of(shape.len());
        let count: usize = axes.iter().map(|&a| shape[a]).product();
        let reduced = if !self.options.smooth && self.choices.one_in(3) {
            Known { id: self.op(Op::Reduce { kind: ReduceKind::Max, axes }, &[x.id]), ..x }
        } else if self.choices.one_in(6) {
            let id = self.op(Op::Reduce { kind: ReduceKind::Deviations, axes }, &[x.id]);
            let bound = 4.0 * x.bound * x.bound;
            self.scale(Known { id, bound: bound * count as f64, exact: false }, 1.0 / count as f64)
        } else {
            let id = self.op(Op::Reduce { kind: ReduceKind::Sum, axes }, &[x.id]);
            self.scale(Known { id, bound: x.bound * count as f64, exact: false }, 1.0 / count as f64)
        };
        if self.choices.one_in(3) {
            return reduced;
        }
        Known { id: self.op(Op::Broadcast { to: shape }, &[reduced.id]), ..reduced }
    }

    /// Back to the shape that most nodes have, where that is possible.
    fn broadcast_back(&mut self, x: Known) -> Known {
        let (shape, base) = (self.shape(x.id), self.base.clone());
        let fits = shape.len() == base.len() && shape.iter().zip(&base).all(|(&from, &to)| from == to || from == 1);
        if fits { Known { id: self.op(Op::Broadcast { to: base }, &[x.id]), ..x } } else { self.unary(x) }
    }

    /// The elements of `x` in other places.
    fn movement(&mut self, x: NodeId) -> NodeId {
        let shape = self.shape(x);
        let rank = shape.len();
        let elements: usize = shape.iter().product();
        match self.choices.below(7) {
            0 => {
                let mut to = match self.choices.below(3) {
                    0 => vec![elements],
                    1 => shape.iter().rev().copied().collect(),
                    _ => shape,
                };
                if to.len() < 4 && self.choices.one_in(2) {
                    to.insert(self.choices.below(to.len() + 1), 1);
                }
                self.op(Op::Reshape { to }, &[x])
            }
            1 => {
                let mut permutation: Vec<usize> = (0..rank).collect();
                (1..rank).for_each(|i| permutation.swap(i, self.choices.below(i + 1)));
                self.op(Op::Transpose { permutation }, &[x])
            }
            2 => {
                let to = shape.iter().map(|&s| if s == 1 { self.choices.pick(&[1, 2, 3]) } else { s }).collect();
                self.op(Op::Broadcast { to }, &[x])
            }
            3 => {
                let low = shape.iter().map(|_| self.choices.below(2)).collect();
                let high = shape.iter().map(|_| self.choices.below(3)).collect();
                self.op(Op::Pad { low, high }, &[x])
            }
            4 => {
                let start: Vec<usize> = shape.iter().map(|&s| self.choices.below(s)).collect();
                let end = shape.iter().zip(&start).map(|(&s, &from)| from + 1 + self.choices.below(s - from)).collect();
                self.op(Op::Slice { start, end }, &[x])
            }
            5 if rank > 0 => {
                let axis = self.choices.below(rank);
                let axes = self.choices.some_of(rank);
                let turned = self.op(Op::Reverse { axes }, &[x]);
                let operands = [turned, x, turned];
                let count = 1 + self.choices.below(3);
                self.op(Op::Concat { axis }, &operands[..count])
            }
            _ => {
                let axes = self.choices.some_of(rank);
                self.op(Op::Reverse { axes }, &[x])
            }
        }
    }

    /// A value of the shape of `like` that is exact in f32.
    fn exact(&mut self, like: NodeId) -> Known {
        let shape = self.shape(like);
        let known: Vec<Known> =
            self.reals.iter().copied().filter(|k| k.exact && self.graph.shape(k.id) == shape).collect();
        if known.is_empty() || self.choices.one_in(4) { self.real_leaf(shape) } else { self.choices.pick(&known) }
    }

    /// `x` where a comparison of exact values holds, else something else.
    fn masked(&mut self, x: Known) -> Known {
        use ScalarOp::*;
        let shape = self.shape(x.id);
        let a = self.exact(x.id);
        let b = if self.choices.one_in(2) {
            let value = self.choices.real();
            self.constant(value, &shape)
        } else {
            self.exact(x.id).id
        };
        let op = self.choices.pick(&[Lt, Le, Gt, Ge, Eq]);
        let mask = self.scalar(op, &[a.id, b]);
        let alike = self.alike(&self.reals, x);
        let y = self.choices.pick(&alike);
        let id = if self.choices.one_in(3) {
            self.scalar(Mul, &[x.id, mask])
        } else {
            self.scalar(Select, &[mask, x.id, y.id])
        };
        Known { id, bound: x.bound.max(y.bound), exact: x.exact && y.exact }
    }

    fn draw(&mut self, x: Known) -> Known {
        let shape = self.shape(x.id);
        let p = self.choices.pick(&[0.0, 0.25, 0.75, 1.0]);
        let distribution =
            self.choices.pick(&[Distribution::Uniform, Distribution::Normal, Distribution::Bernoulli(Real(p))]);
        // The radius of the Box–Muller transform is at most sqrt(-2 ln 2^-24) < 6.
        let (bound, exact) = match distribution {
            Distribution::Uniform | Distribution::Bernoulli(_) => (1.0, true),
            Distribution::Normal => (6.0, false),
        };
        let stream = self.fresh("draw");
        let id = self.op(Op::Random { distribution, stream, shape }, &self.key.clone());
        let draw = Known { id, bound, exact };
        if self.choices.one_in(2) {
            return draw;
        }
        Known { id: self.scalar(ScalarOp::Mul, &[x.id, id]), bound: x.bound * bound, exact: false }
    }

    /// A constant, indices along an axis, or integers as reals.
    fn generated(&mut self) -> Known {
        let shape = self.base.clone();
        let kind = self.choices.below(3);
        if kind == 0 || (kind == 1 && shape.is_empty()) {
            // A value that only the shortest decimal of an f64 brings back.
            let value = self.choices.real() / 3.0;
            return Known { id: self.constant(value, &shape), bound: value.abs(), exact: false };
        }
        if kind == 1 {
            let axis = self.choices.below(shape.len());
            let bound = (shape[axis] - 1) as f64;
            return Known { id: self.op(Op::Iota { axis, ty: Type::f32(shape) }, &[]), bound, exact: true };
        }
        let x = self.choices.pick(&self.integers);
        let id = self.scalar(ScalarOp::ToReal, &[x.id]);
        Known { id, bound: x.bound, exact: x.bound <= EXACT_INTEGERS }
    }

    fn matmul(&mut self, x: Known) -> Known {
        let mut x = x;
        let mut shape = self.shape(x.id);
        if shape.len() < 2 {
            shape = vec![1, shape.iter().product()];
            x.id = self.op(Op::Reshape { to: shape.clone() }, &[x.id]);
        }
        let rank = shape.len();
        let (k, n) = (shape[rank - 1], self.choices.pick(&[1, 2, 4, 9]));
        let mut other: Shape = shape.clone();
        (other[rank - 2], other[rank - 1]) = (k, n);
        let weight = self.real_leaf(other);
        let id = self.op(Op::MatMul, &[x.id, weight.id]);
        let product = Known { id, bound: x.bound * weight.bound * k as f64, exact: false };
        self.scale(product, 1.0 / k as f64)
    }

    /// One of the three convolutions on a value of rank 4, or its windows.
    fn convolution(&mut self) -> Known {
        let images: Vec<Known> = self.reals.iter().copied().filter(|x| self.graph.shape(x.id).len() == 4).collect();
        let x = if images.is_empty() { self.real_leaf(vec![2, 3, 5, 4]) } else { self.choices.pick(&images) };
        let [n, c, h, w] = self.shape(x.id)[..] else { unreachable!("rank 4 was chosen") };
        let size = [h, w];
        let mut window = Window { stride: [1, 1], pad: [0, 0] };
        let mut kernel = [1, 1];
        for i in 0..2 {
            window.stride[i] = self.choices.pick(&[1, 1, 2, 3]);
            window.pad[i] = self.choices.below(3);
            kernel[i] = 1 + self.choices.below((size[i] + 2 * window.pad[i]).min(4));
        }
        let channels = self.choices.pick(&[1, 2, 3]);
        match self.choices.below(4) {
            0 => {
                let filter = self.real_leaf(vec![channels, c, kernel[0], kernel[1]]);
                let id = self.op(Op::Conv2d { window }, &[x.id, filter.id]);
                self.averaged(id, x, c * kernel[0] * kernel[1])
            }
            1 => {
                // Sizes that a convolution takes to that of `x`: one for each remainder of the stride.
                let mut wanted = [0, 0];
                for i in 0..2 {
                    kernel[i] = kernel[i].max(2 * window.pad[i] + 1);
                    let rest = self.choices.below(window.stride[i]);
                    wanted[i] = (size[i] - 1) * window.stride[i] + kernel[i] - 2 * window.pad[i] + rest;
                }
                let filter = self.real_leaf(vec![c, channels, kernel[0], kernel[1]]);
                let id = self.op(Op::Conv2dInputGrad { window, size: wanted }, &[x.id, filter.id]);
                self.averaged(id, x, c * kernel[0] * kernel[1])
            }
            2 => {
                let columns = self.op(Op::Im2col { window, kernel }, &[x.id]);
                if self.choices.one_in(2) {
                    return Known { id: columns, ..x };
                }
                let size = [0, 1].map(|i| size[i].next_multiple_of(window.stride[i]));
                let id = self.op(Op::Col2im { window, kernel, size }, &[columns]);
                self.averaged(id, x, kernel[0] * kernel[1])
            }
            _ => {
                let out = |i: usize| (size[i] + 2 * window.pad[i] - kernel[i]) / window.stride[i] + 1;
                let gradient = self.real_leaf(vec![n, channels, out(0), out(1)]);
                let id = self.op(Op::Conv2dFilterGrad { window, kernel }, &[x.id, gradient.id]);
                self.averaged(id, x, n * out(0) * out(1))
            }
        }
    }

    /// A sum of at most `terms` products of `x` with values of at most 1, brought back to the bound of `x`.
    fn averaged(&mut self, id: NodeId, x: Known, terms: usize) -> Known {
        self.scale(Known { id, bound: x.bound * terms as f64, exact: false }, 1.0 / terms as f64)
    }
}
