//! The table itself, and what is generated from it.

use super::{Lane, ScalarBuilder, VectorFn};
use crate::tensor::{round_to_bf16, round_to_tf32};
use serde::{Deserialize, Serialize};

/// Comparisons give 1 where they hold and 0 elsewhere, so that masks multiply.
fn mask(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}

/// 0 under a mask and 1 elsewhere, in the form in which an adjoint is selected instead of multiplied.
fn one_unless<B: ScalarBuilder>(e: &mut B, mask: B::Value) -> B::Value {
    let (zero, one) = (e.constant(0.0), e.constant(1.0));
    e.apply(ScalarOp::Select, &[mask, zero, one])
}

/// `factor · (y + 1)`: the derivative of `y = e^(factor·x) − 1`.
fn growth<B: ScalarBuilder>(e: &mut B, factor: B::Value, y: B::Value) -> B::Value {
    let one = e.constant(1.0);
    let power = e.apply(ScalarOp::Add, &[y, one]);
    e.apply(ScalarOp::Mul, &[factor, power])
}

/// `a² + number`.
fn square_and<B: ScalarBuilder>(e: &mut B, a: B::Value, number: f64) -> B::Value {
    let (square, number) = (e.apply(ScalarOp::Mul, &[a, a]), e.constant(number));
    e.apply(ScalarOp::Add, &[square, number])
}

/// `1 - a²`.
fn one_less_square<B: ScalarBuilder>(e: &mut B, a: B::Value) -> B::Value {
    let (square, one) = (e.apply(ScalarOp::Mul, &[a, a]), e.constant(1.0));
    e.apply(ScalarOp::Sub, &[one, square])
}

/// The error function by a series of positive terms (Abramowitz & Stegun, 7.1.6), of which f64 tells no more than 200
/// apart below 6; beyond, it is 1 to the last place.
fn erf(a: f64) -> f64 {
    let x = a.abs();
    if x.is_nan() || x >= 6.0 {
        return if x.is_nan() { a } else { 1f64.copysign(a) };
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= 2.0 * x * x / f64::from(2 * n + 1);
        sum += term;
    }
    (std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum).copysign(a)
}

macro_rules! scalar_ops {
    ($(
        $(#[doc = $doc:literal])+
        $variant:ident $name:literal ($($arg:ident : $lane:ident),+) -> $result:ident,
        f64: $meaning:expr,
        cuda: $cuda:literal,
        cpu: $cpu:expr, cost: $cost:literal,
        derivative: |$b:pat_param, $y:pat_param| [$($partial:expr),+];
    )*) => {
        /// An operation on scalars, applied element by element to operands of one shape.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum ScalarOp { $($(#[doc = $doc])+ $variant,)* }

        impl ScalarOp {
            /// Every operation, in table order.
            pub const ALL: &'static [ScalarOp] = &[$(ScalarOp::$variant,)*];

            /// The name in the text form and in the graph language.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it computes, in one line.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii(),)* }
            }

            /// The lane types of the operands, in order.
            pub fn operand_lanes(self) -> &'static [Lane] {
                match self { $(Self::$variant => &[$(Lane::$lane),+],)* }
            }

            /// The lane type of the result.
            pub fn result_lane(self) -> Lane {
                match self { $(Self::$variant => Lane::$result,)* }
            }

            /// The value in f64: the meaning that every executor is held to. U32 lanes come and go as
            /// integral f64 values.
            pub fn eval(self, args: &[f64]) -> f64 {
                match self { $(Self::$variant => {
                    let [$($arg),+] = args else { panic!("{} takes other operands: {args:?}", self.name()) };
                    $(let $arg = *$arg;)+
                    $meaning
                })* }
            }

            /// CUDA C++ with `{0}`, `{1}`, … where the operands go.
            pub fn cuda(self) -> &'static str {
                match self { $(Self::$variant => $cuda,)* }
            }

            /// The CPU's function over a tile: `out.len()` lanes of each operand.
            pub fn vector_fn(self) -> VectorFn {
                match self { $(Self::$variant => $cpu(),)* }
            }

            /// What computing one result costs, with an addition as 1: fusion weighs computing again against keeping.
            pub fn cost(self) -> usize {
                match self { $(Self::$variant => $cost,)* }
            }

            /// The partial derivatives of the result with respect to each operand, as expressions over
            /// the operands `args` and the result `y`; `None` where the derivative is zero everywhere
            /// it exists.
            pub fn partials<B: ScalarBuilder>(
                self, builder: &mut B, args: &[B::Value], y: B::Value,
            ) -> Vec<Option<B::Value>> {
                #[allow(unused_variables)]
                match self { $(Self::$variant => {
                    let [$($arg),+] = args else { panic!("{} takes other operands", self.name()) };
                    $(let $arg = *$arg;)+
                    let ($b, $y) = (builder, y);
                    vec![$($partial),+]
                })* }
            }
        }
    };
}

use super::vector as v;

scalar_ops! {
    /// `a + b`
    Add "add" (a: Real, b: Real) -> Real,
        f64: a + b, cuda: "({0} + {1})", cpu: v::add, cost: 1,
        derivative: |e, _| [Some(e.constant(1.0)), Some(e.constant(1.0))];
    /// `a - b`
    Sub "sub" (a: Real, b: Real) -> Real,
        f64: a - b, cuda: "({0} - {1})", cpu: v::sub, cost: 1,
        derivative: |e, _| [Some(e.constant(1.0)), Some(e.constant(-1.0))];
    /// `a * b`
    Mul "mul" (a: Real, b: Real) -> Real,
        f64: a * b, cuda: "({0} * {1})", cpu: v::mul, cost: 1,
        derivative: |_, _| [Some(b), Some(a)];
    /// `a / b`
    Div "div" (a: Real, b: Real) -> Real,
        f64: a / b, cuda: "({0} / {1})", cpu: v::div, cost: 4,
        derivative: |e, y| [
            { let one = e.constant(1.0); Some(e.apply(ScalarOp::Div, &[one, b])) },
            { let q = e.apply(ScalarOp::Div, &[y, b]); Some(e.apply(ScalarOp::Neg, &[q])) }
        ];
    /// The larger; NaN where an operand is. At a tie the derivative goes to `b`, so `max(x, 0)` has derivative 0
    /// at 0; at a NaN it goes to both.
    Max "max" (a: Real, b: Real) -> Real,
        f64: if a > b || a.is_nan() { a } else { b },
        cuda: "({0} > {1} || {0} != {0} ? {0} : {1})", cpu: v::max, cost: 1,
        derivative: |e, _| [
            { let m = e.apply(ScalarOp::Le, &[a, b]); Some(one_unless(e, m)) },
            { let m = e.apply(ScalarOp::Gt, &[a, b]); Some(one_unless(e, m)) }
        ];
    /// The smaller; NaN where an operand is. At a tie the derivative goes to `b`, at a NaN to both.
    Min "min" (a: Real, b: Real) -> Real,
        f64: if a < b || a.is_nan() { a } else { b },
        cuda: "({0} < {1} || {0} != {0} ? {0} : {1})", cpu: v::min, cost: 1,
        derivative: |e, _| [
            { let m = e.apply(ScalarOp::Ge, &[a, b]); Some(one_unless(e, m)) },
            { let m = e.apply(ScalarOp::Lt, &[a, b]); Some(one_unless(e, m)) }
        ];
    /// `a` to the power `b`. The derivatives are 0 where the power is constant though a factor is infinite: in `a` for
    /// `b = 0`, and in `b` for `a = 0` and `b ≥ 0`, as in PyTorch.
    Pow "pow" (a: Real, b: Real) -> Real,
        f64: a.powf(b), cuda: "powf({0}, {1})", cpu: v::pow, cost: 10,
        derivative: |e, y| [
            { let one = e.constant(1.0); let n = e.apply(ScalarOp::Sub, &[b, one]);
              let p = e.apply(ScalarOp::Pow, &[a, n]); let d = e.apply(ScalarOp::Mul, &[b, p]);
              let zero = e.constant(0.0); let flat = e.apply(ScalarOp::Eq, &[b, zero]);
              Some(e.apply(ScalarOp::Select, &[flat, zero, d])) },
            { let l = e.apply(ScalarOp::Log, &[a]); let d = e.apply(ScalarOp::Mul, &[y, l]);
              let zero = e.constant(0.0); let at_zero = e.apply(ScalarOp::Eq, &[a, zero]);
              let rising = e.apply(ScalarOp::Ge, &[b, zero]); let flat = e.apply(ScalarOp::Mul, &[at_zero, rising]);
              Some(e.apply(ScalarOp::Select, &[flat, zero, d])) }
        ];
    /// `-a`
    Neg "neg" (a: Real) -> Real,
        f64: -a, cuda: "(-{0})", cpu: v::neg, cost: 1,
        derivative: |e, _| [Some(e.constant(-1.0))];
    /// `|a|`, with derivative 0 at 0.
    Abs "abs" (a: Real) -> Real,
        f64: a.abs(), cuda: "fabsf({0})", cpu: v::abs, cost: 1,
        derivative: |e, _| [Some(e.apply(ScalarOp::Sign, &[a]))];
    /// -1, 0 or 1; NaN of NaN.
    Sign "sign" (a: Real) -> Real,
        f64: if a > 0.0 { 1.0 } else if a < 0.0 { -1.0 } else if a.is_nan() { a } else { 0.0 },
        cuda: "({0} != {0} ? {0} : (float)(({0} > 0.f) - ({0} < 0.f)))", cpu: v::sign, cost: 1,
        derivative: |_, _| [None];
    /// `e^a`
    Exp "exp" (a: Real) -> Real,
        f64: a.exp(), cuda: "expf({0})", cpu: v::exp, cost: 10,
        derivative: |_, y| [Some(y)];
    /// `e^(a·(b + c)) − 1`, exact to the last place also where it is near 0. The factor comes in two parts because one
    /// f32 does not hold the logarithm of a decay well enough: `1 − βᵗ = -expm1_product(t, high, low)`.
    Expm1Product "expm1_product" (a: Real, b: Real, c: Real) -> Real,
        f64: (a * (b + c)).exp_m1(),
        cuda: "(float)expm1((double){0} * ((double){1} + (double){2}))", cpu: v::expm1_product, cost: 20,
        derivative: |e, y| [
            { let f = e.apply(ScalarOp::Add, &[b, c]); Some(growth(e, f, y)) },
            Some(growth(e, a, y)), Some(growth(e, a, y))
        ];
    /// Natural logarithm.
    Log "log" (a: Real) -> Real,
        f64: a.ln(), cuda: "logf({0})", cpu: v::log, cost: 10,
        derivative: |e, _| [{ let one = e.constant(1.0); Some(e.apply(ScalarOp::Div, &[one, a])) }];
    /// Square root.
    Sqrt "sqrt" (a: Real) -> Real,
        f64: a.sqrt(), cuda: "sqrtf({0})", cpu: v::sqrt, cost: 4,
        derivative: |e, y| [{ let half = e.constant(0.5); Some(e.apply(ScalarOp::Div, &[half, y])) }];
    /// `1 / sqrt(a)`
    Rsqrt "rsqrt" (a: Real) -> Real,
        f64: 1.0 / a.sqrt(), cuda: "(1.f / sqrtf({0}))", cpu: v::rsqrt, cost: 4,
        derivative: |e, y| [{ let q = e.apply(ScalarOp::Div, &[y, a]); let h = e.constant(-0.5);
            Some(e.apply(ScalarOp::Mul, &[h, q])) }];
    /// Hyperbolic tangent.
    Tanh "tanh" (a: Real) -> Real,
        f64: a.tanh(), cuda: "tanhf({0})", cpu: v::tanh, cost: 10,
        derivative: |e, y| [{ let one = e.constant(1.0); let yy = e.apply(ScalarOp::Mul, &[y, y]);
            Some(e.apply(ScalarOp::Sub, &[one, yy])) }];
    /// `1 / (1 + e^-a)`
    Sigmoid "sigmoid" (a: Real) -> Real,
        f64: 1.0 / (1.0 + (-a).exp()), cuda: "(1.f / (1.f + expf(-{0})))", cpu: v::sigmoid, cost: 10,
        derivative: |e, y| [{ let one = e.constant(1.0); let z = e.apply(ScalarOp::Sub, &[one, y]);
            Some(e.apply(ScalarOp::Mul, &[y, z])) }];
    /// `log(1 + e^a)`, computed as `max(a, 0) + log1p(e^-|a|)` so that it never overflows.
    Softplus "softplus" (a: Real) -> Real,
        f64: a.max(0.0) + (-a.abs()).exp().ln_1p(),
        cuda: "(fmaxf({0}, 0.f) + log1pf(expf(-fabsf({0}))))", cpu: v::softplus, cost: 10,
        derivative: |e, _| [Some(e.apply(ScalarOp::Sigmoid, &[a]))];
    /// Sine of an angle in radians.
    Sin "sin" (a: Real) -> Real,
        f64: a.sin(), cuda: "sinf({0})", cpu: v::sin, cost: 10,
        derivative: |e, _| [Some(e.apply(ScalarOp::Cos, &[a]))];
    /// Cosine of an angle in radians.
    Cos "cos" (a: Real) -> Real,
        f64: a.cos(), cuda: "cosf({0})", cpu: v::cos, cost: 10,
        derivative: |e, _| [{ let s = e.apply(ScalarOp::Sin, &[a]); Some(e.apply(ScalarOp::Neg, &[s])) }];
    /// Tangent of an angle in radians.
    Tan "tan" (a: Real) -> Real,
        f64: a.tan(), cuda: "tanf({0})", cpu: v::tan, cost: 10,
        derivative: |e, y| [{ let yy = e.apply(ScalarOp::Mul, &[y, y]); let one = e.constant(1.0);
            Some(e.apply(ScalarOp::Add, &[yy, one])) }];
    /// The angle between -π/2 and π/2 whose sine is `a`.
    Asin "asin" (a: Real) -> Real,
        f64: a.asin(), cuda: "asinf({0})", cpu: v::asin, cost: 10,
        derivative: |e, _| [{ let rest = one_less_square(e, a); Some(e.apply(ScalarOp::Rsqrt, &[rest])) }];
    /// The angle between 0 and π whose cosine is `a`.
    Acos "acos" (a: Real) -> Real,
        f64: a.acos(), cuda: "acosf({0})", cpu: v::acos, cost: 10,
        derivative: |e, _| [{ let rest = one_less_square(e, a); let d = e.apply(ScalarOp::Rsqrt, &[rest]);
            Some(e.apply(ScalarOp::Neg, &[d])) }];
    /// The angle between -π/2 and π/2 whose tangent is `a`.
    Atan "atan" (a: Real) -> Real,
        f64: a.atan(), cuda: "atanf({0})", cpu: v::atan, cost: 10,
        derivative: |e, _| [{ let sum = square_and(e, a, 1.0); let one = e.constant(1.0);
            Some(e.apply(ScalarOp::Div, &[one, sum])) }];
    /// Hyperbolic sine.
    Sinh "sinh" (a: Real) -> Real,
        f64: a.sinh(), cuda: "sinhf({0})", cpu: v::sinh, cost: 10,
        derivative: |e, _| [Some(e.apply(ScalarOp::Cosh, &[a]))];
    /// Hyperbolic cosine.
    Cosh "cosh" (a: Real) -> Real,
        f64: a.cosh(), cuda: "coshf({0})", cpu: v::cosh, cost: 10,
        derivative: |e, _| [Some(e.apply(ScalarOp::Sinh, &[a]))];
    /// The number whose hyperbolic sine is `a`.
    Asinh "asinh" (a: Real) -> Real,
        f64: a.asinh(), cuda: "asinhf({0})", cpu: v::asinh, cost: 10,
        derivative: |e, _| [{ let sum = square_and(e, a, 1.0); Some(e.apply(ScalarOp::Rsqrt, &[sum])) }];
    /// The number from 0 on whose hyperbolic cosine is `a`, which is at least 1.
    Acosh "acosh" (a: Real) -> Real,
        f64: a.acosh(), cuda: "acoshf({0})", cpu: v::acosh, cost: 10,
        derivative: |e, _| [{ let rest = square_and(e, a, -1.0); Some(e.apply(ScalarOp::Rsqrt, &[rest])) }];
    /// The number whose hyperbolic tangent is `a`.
    Atanh "atanh" (a: Real) -> Real,
        f64: a.atanh(), cuda: "atanhf({0})", cpu: v::atanh, cost: 10,
        derivative: |e, _| [{ let rest = one_less_square(e, a); let one = e.constant(1.0);
            Some(e.apply(ScalarOp::Div, &[one, rest])) }];
    /// The error function, `2/√π · ∫ exp(-t²) dt` from 0 to `a`.
    Erf "erf" (a: Real) -> Real,
        f64: erf(a), cuda: "erff({0})", cpu: v::erf, cost: 12,
        derivative: |e, _| [{ let square = e.apply(ScalarOp::Mul, &[a, a]); let n = e.apply(ScalarOp::Neg, &[square]);
            let bell = e.apply(ScalarOp::Exp, &[n]); let scale = e.constant(std::f64::consts::FRAC_2_SQRT_PI);
            Some(e.apply(ScalarOp::Mul, &[bell, scale])) }];
    /// The largest whole number that is not above `a`; its derivative is 0.
    Floor "floor" (a: Real) -> Real,
        f64: a.floor(), cuda: "floorf({0})", cpu: v::floor, cost: 1,
        derivative: |_, _| [None];
    /// The smallest whole number that is not below `a`; its derivative is 0.
    Ceil "ceil" (a: Real) -> Real,
        f64: a.ceil(), cuda: "ceilf({0})", cpu: v::ceil, cost: 1,
        derivative: |_, _| [None];
    /// The nearest whole number, of two the even one; its derivative is 0.
    Round "round" (a: Real) -> Real,
        f64: a.round_ties_even(), cuda: "rintf({0})", cpu: v::round, cost: 1,
        derivative: |_, _| [None];
    /// The rest of `a` divided by `b`, with the sign of `a`, as in C. `Mod` has the sign of `b`.
    Fmod "fmod" (a: Real, b: Real) -> Real,
        f64: a % b, cuda: "fmodf({0}, {1})", cpu: v::fmod, cost: 10,
        derivative: |e, y| [
            Some(e.constant(1.0)),
            { let less = e.apply(ScalarOp::Sub, &[y, a]); Some(e.apply(ScalarOp::Div, &[less, b])) }
        ];
    /// Whether `a` is not a number, as 1 or 0.
    IsNan "is_nan" (a: Real) -> Real,
        f64: mask(a.is_nan()), cuda: "({0} != {0} ? 1.f : 0.f)", cpu: v::is_nan, cost: 1,
        derivative: |_, _| [None];
    /// `a < b` as 1 or 0.
    Lt "lt" (a: Real, b: Real) -> Real,
        f64: mask(a < b), cuda: "({0} < {1} ? 1.f : 0.f)", cpu: v::lt, cost: 1,
        derivative: |_, _| [None, None];
    /// `a <= b` as 1 or 0.
    Le "le" (a: Real, b: Real) -> Real,
        f64: mask(a <= b), cuda: "({0} <= {1} ? 1.f : 0.f)", cpu: v::le, cost: 1,
        derivative: |_, _| [None, None];
    /// `a > b` as 1 or 0.
    Gt "gt" (a: Real, b: Real) -> Real,
        f64: mask(a > b), cuda: "({0} > {1} ? 1.f : 0.f)", cpu: v::gt, cost: 1,
        derivative: |_, _| [None, None];
    /// `a >= b` as 1 or 0.
    Ge "ge" (a: Real, b: Real) -> Real,
        f64: mask(a >= b), cuda: "({0} >= {1} ? 1.f : 0.f)", cpu: v::ge, cost: 1,
        derivative: |_, _| [None, None];
    /// `a == b` as 1 or 0.
    Eq "eq" (a: Real, b: Real) -> Real,
        f64: mask(a == b), cuda: "({0} == {1} ? 1.f : 0.f)", cpu: v::eq, cost: 1,
        derivative: |_, _| [None, None];
    /// `a` where the mask `c` is not zero, else `b`.
    Select "select" (c: Real, a: Real, b: Real) -> Real,
        f64: if c != 0.0 { a } else { b }, cuda: "({0} != 0.f ? {1} : {2})", cpu: v::select, cost: 1,
        derivative: |e, _| [
            None,
            { let (one, zero) = (e.constant(1.0), e.constant(0.0)); Some(e.apply(ScalarOp::Select, &[c, one, zero])) },
            { let (one, zero) = (e.constant(1.0), e.constant(0.0)); Some(e.apply(ScalarOp::Select, &[c, zero, one])) }
        ];
    /// Wrapping addition of counters.
    AddU32 "add_u32" (a: U32, b: U32) -> U32,
        f64: f64::from((a as u32).wrapping_add(b as u32)), cuda: "({0} + {1})", cpu: v::add_u32, cost: 1,
        derivative: |_, _| [None, None];
    /// The real number nearest to a counter or a class label.
    ToReal "to_real" (a: U32) -> Real,
        f64: a, cuda: "((float){0})", cpu: v::to_real, cost: 1,
        derivative: |_, _| [None];
    /// The nearest number that bf16 holds, as an f32: what a value becomes that is stored so and read back.
    RoundBf16 "round_bf16" (a: Real) -> Real,
        f64: f64::from(round_to_bf16(a as f32)), cuda: "round_bf16({0})", cpu: v::round_bf16, cost: 1,
        derivative: |_, _| [None];
    /// The nearest number of 11 significant bits, of two the one with the greater magnitude: NVIDIA's TF32, as
    /// `cvt.rna.tf32.f32` rounds to it. NaN and infinities stay what they are.
    RoundTf32 "round_tf32" (a: Real) -> Real,
        f64: f64::from(round_to_tf32(a as f32)), cuda: "round_tf32({0})", cpu: v::round_tf32, cost: 1,
        derivative: |_, _| [None];
}
