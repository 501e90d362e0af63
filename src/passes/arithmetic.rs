//! Algebraic simplification of scalar operations.

use super::fold::holds;
use super::rewrite::{Rewriter, Rule, rewrite, rules};
use super::{PassContext, Report};
use crate::ir::{DType, Graph, NodeId, Op};
use crate::scalar::ScalarOp::{self, *};

/// Simplifies scalar operations by a table of identities: neutral and absorbing elements, negations,
/// chains of constants, inverse functions, powers, selections. Constants become second operands, and a
/// constant that is subtracted becomes one that is added, so that other rules have one form to match.
///
/// Division by a constant becomes a multiplication only where the reciprocal is exact, for a power of
/// two. Constants are only combined into one that f32 holds in full precision.
///
/// ```text
/// %one: f32[4] = constant 1                   %y: f32[4] = neg %x
/// %a: f32[4] = mul %one %x
/// %zero: f32[4] = constant 0           →
/// %y: f32[4] = sub %zero %a
/// ```
pub fn arithmetic(graph: &mut Graph, context: &PassContext) -> Report {
    rewrite(graph, RULES, context)
}

pub(super) const RULES: &[Rule] = rules! {
    constant_second: Nothing, "c + x → x + c", "c · x → x · c";
    add: Nothing, "x + 0 → x", "(x + c) + d → x + (c + d)", "(c - x) + d → (c + d) - x", "x + -y → x - y",
        "-x + y → y - x", "x + x → x · 2";
    sub: Nothing, "x - c → x + -c", "0 - x → -x", "x - -y → x + y", "c - (d - x) → x + (c - d)",
        "c - (x + d) → (c - d) - x", "-x - y → -(x + y)";
    sub_same: Finite, "x - x → 0";
    mul: Nothing, "x · 1 → x", "x · -1 → -x", "(x · c) · d → x · (c · d)", "-x · c → x · -c",
        "(c / x) · d → (c · d) / x", "-x · -y → x · y", "x · (1 / y) → x / y";
    square_of_root: Finite, "√x · √x → x";
    absorb: Finite, "x · 0 → 0", "0 / x → 0", "a contraction with zeros → 0", "a transform of zeros → 0",
        "windows of zeros → 0";
    div: Nothing, "x / 1 → x", "x / ±2ⁿ → x · ±2⁻ⁿ", "-x / -y → x / y", "1 / √x → rsqrt x";
    neg: Nothing, "-(-x) → x", "-(x - y) → y - x", "-(x · c) → x · -c", "-(c / x) → -c / x", "-(x + c) → -c - x";
    hoist_negation: Nothing, "-x · y → -(x · y)", "x · -y → -(x · y)", "-x / y → -(x / y)", "x / -y → -(x / y)";
    extremum: Nothing, "max(x, x) → x", "min(x, x) → x", "max(max(x, c), d) → max(x, max(c, d))",
        "min(min(x, c), d) → min(x, min(c, d))";
    pow: Nothing, "x⁰ → 1", "x¹ → x", "x² → x · x", "x⁻¹ → 1 / x";
    pow_of_half: Finite, "x^½ → √x", "x^-½ → rsqrt x";
    inverse: Finite, "exp(log x) → x", "log(exp x) → x", "√(x · x) → abs x";
    even: Nothing, "|-x| → |x|", "||x|| → |x|", "cos(-x) → cos x", "cos |x| → cos x";
    select: Nothing, "select(m, x, x) → x", "select(1, x, y) → x", "select(0, x, y) → y",
        "select(x < y, 1, 0) → x < y";
    select_extremum: Finite, "select(x > y, x, y) → max(x, y)", "select(x < y, x, y) → min(x, y)";
    compare_same: Nothing, "x < x → 0", "x > x → 0";
    compare_same_or_equal: Finite, "x = x → 1", "x ≤ x → 1", "x ≥ x → 1";
    counter: Nothing, "n + 0 → n", "(n + c) + d → n + (c + d) of counters";
};

/// The operands of the node under the rule, where that is `op`.
fn root<const N: usize>(r: &Rewriter, id: NodeId, op: ScalarOp) -> Option<[NodeId; N]> {
    if *r.root(id) == Op::Scalar(op) { r.operands(id).try_into().ok() } else { None }
}

/// A combined constant, where f32 holds it without overflow or loss of precision to underflow.
fn exact_enough(value: f64) -> Option<f64> {
    (value == 0.0 || (value.is_normal() && (value as f32).is_normal())).then_some(value)
}

/// `c + d`, where `x + c` cannot have overflown unless the sum does too.
fn joined_sum(c: f64, d: f64) -> Option<f64> {
    // Half a unit in the last place of the largest float: less does not take any finite float beyond it.
    let harmless = |c: f64| c.abs() < 2f64.powi(102);
    if harmless(c) && harmless(d) { exact_enough(c + d) } else { None }
}

/// `c · d`, where `x · c` cannot have overflown unless `x · c · d` does too.
fn joined_product(c: f64, d: f64) -> Option<f64> {
    let (size, product) = (c.abs(), c * d);
    let underflows = product == 0.0 && c != 0.0 && d != 0.0;
    if !underflows && (size <= 1.0 || size <= product.abs()) { exact_enough(product) } else { None }
}

/// `op(x, c)`.
fn with_constant(r: &mut Rewriter, op: ScalarOp, x: NodeId, c: f64) -> NodeId {
    let c = r.constant_like(c, x);
    r.apply(op, &[x, c])
}

fn constant_second(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let &Op::Scalar(op @ (Add | Mul | AddU32)) = r.root(id) else { return None };
    let [a, b] = r.operands(id).try_into().ok()?;
    (r.constant(a).is_some() && r.constant(b).is_none()).then(|| {
        r.by(if op == Mul { "c · x → x · c" } else { "c + x → x + c" });
        r.apply(op, &[b, a])
    })
}

fn add(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let [a, b] = root(r, id, Add)?;
    if let Some(d) = r.constant(b) {
        if d == 0.0 {
            r.by("x + 0 → x");
            return Some(a);
        }
        if let Some([x, c]) = r.scalar(a, Add)
            && let Some(sum) = r.constant(c).and_then(|c| joined_sum(c, d))
        {
            r.by("(x + c) + d → x + (c + d)");
            return Some(with_constant(r, Add, x, sum));
        }
        if let Some([c, x]) = r.scalar(a, Sub)
            && let Some(sum) = r.constant(c).and_then(|c| joined_sum(c, d))
        {
            r.by("(c - x) + d → (c + d) - x");
            let c = r.constant_like(sum, x);
            return Some(r.apply(Sub, &[c, x]));
        }
    }
    if let Some(y) = r.unary(b, Neg) {
        r.by("x + -y → x - y");
        return Some(r.apply(Sub, &[a, y]));
    }
    if let Some(y) = r.unary(a, Neg) {
        r.by("-x + y → y - x");
        return Some(r.apply(Sub, &[b, y]));
    }
    (a == b).then(|| {
        r.by("x + x → x · 2");
        with_constant(r, Mul, a, 2.0)
    })
}

fn sub(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let [a, b] = root(r, id, Sub)?;
    if let Some(c) = r.constant(b) {
        r.by("x - c → x + -c");
        return Some(with_constant(r, Add, a, -c));
    }
    if let Some(c) = r.constant(a) {
        if c == 0.0 {
            r.by("0 - x → -x");
            return Some(r.apply(Neg, &[b]));
        }
        if let Some([d, x]) = r.scalar(b, Sub)
            && let Some(difference) = r.constant(d).and_then(|d| joined_sum(c, -d))
        {
            r.by("c - (d - x) → x + (c - d)");
            return Some(with_constant(r, Add, x, difference));
        }
        if let Some([x, d]) = r.scalar(b, Add)
            && let Some(difference) = r.constant(d).and_then(|d| joined_sum(c, -d))
        {
            r.by("c - (x + d) → (c - d) - x");
            let c = r.constant_like(difference, x);
            return Some(r.apply(Sub, &[c, x]));
        }
    }
    if let Some(y) = r.unary(b, Neg) {
        r.by("x - -y → x + y");
        return Some(r.apply(Add, &[a, y]));
    }
    if let Some(x) = r.unary(a, Neg).filter(|_| r.used_once(a)) {
        r.by("-x - y → -(x + y)");
        let sum = r.apply(Add, &[x, b]);
        return Some(r.apply(Neg, &[sum]));
    }
    None
}

fn sub_same(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let [a, b] = root(r, id, Sub)?;
    (a == b).then(|| r.constant_like(0.0, id))
}

fn mul(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let [a, b] = root(r, id, Mul)?;
    if let Some(d) = r.constant(b) {
        if d == 1.0 {
            r.by("x · 1 → x");
            return Some(a);
        }
        if d == -1.0 {
            r.by("x · -1 → -x");
            return Some(r.apply(Neg, &[a]));
        }
        if let Some(x) = r.unary(a, Neg) {
            r.by("-x · c → x · -c");
            return Some(with_constant(r, Mul, x, -d));
        }
        if let Some([x, c]) = r.scalar(a, Mul)
            && let Some(product) = r.constant(c).and_then(|c| joined_product(c, d))
        {
            r.by("(x · c) · d → x · (c · d)");
            return Some(with_constant(r, Mul, x, product));
        }
        if let Some([c, x]) = r.scalar(a, Div)
            && let Some(product) = r.constant(c).and_then(|c| joined_product(c, d))
        {
            r.by("(c / x) · d → (c · d) / x");
            let c = r.constant_like(product, x);
            return Some(r.apply(Div, &[c, x]));
        }
        return None;
    }
    if let (Some(x), Some(y)) = (r.unary(a, Neg), r.unary(b, Neg)) {
        r.by("-x · -y → x · y");
        return Some(r.apply(Mul, &[x, y]));
    }
    for [x, q] in [[a, b], [b, a]] {
        if let Some([one, y]) = r.scalar(q, Div)
            && r.is(one, 1.0)
            && r.used_once(q)
        {
            r.by("x · (1 / y) → x / y");
            return Some(r.apply(Div, &[x, y]));
        }
    }
    None
}

fn square_of_root(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let [a, b] = root(r, id, Mul)?;
    if a == b { r.unary(a, Sqrt) } else { None }
}

/// Zero times anything, by itself or in a contraction, and zero divided by anything, is zero.
fn absorb(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let operands = r.operands(id);
    let any = || operands.iter().any(|&x| r.is(x, 0.0));
    let (zero, rewrite) = match r.root(id) {
        Op::Scalar(Mul) => (any(), "x · 0 → 0"),
        Op::MatMul | Op::Conv2d { .. } | Op::Conv2dInputGrad { .. } | Op::Conv2dFilterGrad { .. } => {
            (any(), "a contraction with zeros → 0")
        }
        Op::Scalar(Div) => (r.is(operands[0], 0.0), "0 / x → 0"),
        Op::Winograd(_) => (r.is(operands[0], 0.0), "a transform of zeros → 0"),
        Op::Im2col { .. } | Op::Col2im { .. } => (r.is(operands[0], 0.0), "windows of zeros → 0"),
        _ => return None,
    };
    zero.then(|| {
        r.by(rewrite);
        r.constant_like(0.0, id)
    })
}

fn div(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let [a, b] = root(r, id, Div)?;
    if let Some(c) = r.constant(b) {
        if c == 1.0 {
            r.by("x / 1 → x");
            return Some(a);
        }
        // A power of two has no mantissa bits, and so has its reciprocal.
        let reciprocal = 1.0 / c;
        let power = c.is_normal() && c.to_bits() & ((1 << 52) - 1) == 0;
        return (power && (c as f32).is_normal() && (reciprocal as f32).is_normal()).then(|| {
            r.by("x / ±2ⁿ → x · ±2⁻ⁿ");
            with_constant(r, Mul, a, reciprocal)
        });
    }
    if let (Some(x), Some(y)) = (r.unary(a, Neg), r.unary(b, Neg)) {
        r.by("-x / -y → x / y");
        return Some(r.apply(Div, &[x, y]));
    }
    let x = r.unary(b, Sqrt)?;
    r.is(a, 1.0).then(|| {
        r.by("1 / √x → rsqrt x");
        r.apply(Rsqrt, &[x])
    })
}

/// A negation goes into a product, quotient or sum with a constant where that has no other use.
fn neg(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let [a] = root(r, id, Neg)?;
    if let Some(x) = r.unary(a, Neg) {
        r.by("-(-x) → x");
        return Some(x);
    }
    if let Some([x, y]) = r.scalar(a, Sub) {
        r.by("-(x - y) → y - x");
        return Some(r.apply(Sub, &[y, x]));
    }
    if !r.used_once(a) {
        return None;
    }
    if let Some([x, c]) = r.scalar(a, Mul)
        && let Some(c) = r.constant(c)
    {
        r.by("-(x · c) → x · -c");
        return Some(with_constant(r, Mul, x, -c));
    }
    if let Some([c, x]) = r.scalar(a, Div)
        && let Some(c) = r.constant(c)
    {
        r.by("-(c / x) → -c / x");
        let c = r.constant_like(-c, x);
        return Some(r.apply(Div, &[c, x]));
    }
    if let Some([x, c]) = r.scalar(a, Add)
        && let Some(c) = r.constant(c)
    {
        r.by("-(x + c) → -c - x");
        let c = r.constant_like(-c, x);
        return Some(r.apply(Sub, &[c, x]));
    }
    None
}

/// A negation comes out of a product or quotient where the only user is a sum, difference,
/// product with a constant or negation, into which the sign then goes.
fn hoist_negation(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let &Op::Scalar(op @ (Mul | Div)) = r.root(id) else { return None };
    let user = r.only_user(id)?;
    let absorbs = match r.root(user) {
        Op::Scalar(Add | Sub | Neg) => true,
        Op::Scalar(Mul) => r.operands(user).iter().any(|&x| r.constant(x).is_some()),
        _ => false,
    };
    if !absorbs {
        return None;
    }
    let [a, b] = r.operands(id).try_into().ok()?;
    let positive = if let Some(x) = r.unary(a, Neg) {
        r.by(if op == Mul { "-x · y → -(x · y)" } else { "-x / y → -(x / y)" });
        [x, b]
    } else if let Some(y) = r.unary(b, Neg) {
        r.by(if op == Mul { "x · -y → -(x · y)" } else { "x / -y → -(x / y)" });
        [a, y]
    } else {
        return None;
    };
    let result = r.apply(op, &positive);
    Some(r.apply(Neg, &[result]))
}

fn extremum(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let &Op::Scalar(op @ (Max | Min)) = r.root(id) else { return None };
    let [a, b] = r.operands(id).try_into().ok()?;
    let by = |max, min| if op == Max { max } else { min };
    if a == b {
        r.by(by("max(x, x) → x", "min(x, x) → x"));
        return Some(a);
    }
    let d = r.constant(b)?;
    let [x, c] = r.scalar(a, op)?;
    let c = r.constant(c)?;
    r.by(by("max(max(x, c), d) → max(x, max(c, d))", "min(min(x, c), d) → min(x, min(c, d))"));
    Some(with_constant(r, op, x, op.eval(&[c, d])))
}

fn pow(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let [x, c] = root(r, id, Pow)?;
    let exponent = r.constant(c)?;
    if exponent == 0.0 {
        r.by("x⁰ → 1");
        Some(r.constant_like(1.0, x))
    } else if exponent == 1.0 {
        r.by("x¹ → x");
        Some(x)
    } else if exponent == 2.0 {
        r.by("x² → x · x");
        Some(r.apply(Mul, &[x, x]))
    } else if exponent == -1.0 {
        r.by("x⁻¹ → 1 / x");
        let one = r.constant_like(1.0, x);
        Some(r.apply(Div, &[one, x]))
    } else {
        None
    }
}

/// A power of -∞ is ∞ or 0, but its root is not a number.
fn pow_of_half(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let [x, c] = root(r, id, Pow)?;
    if r.is(c, 0.5) {
        r.by("x^½ → √x");
        Some(r.apply(Sqrt, &[x]))
    } else if r.is(c, -0.5) {
        r.by("x^-½ → rsqrt x");
        Some(r.apply(Rsqrt, &[x]))
    } else {
        None
    }
}

fn inverse(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let &Op::Scalar(op) = r.root(id) else { return None };
    let a = *r.operands(id).first()?;
    match op {
        Exp => {
            r.by("exp(log x) → x");
            r.unary(a, Log)
        }
        Log => {
            r.by("log(exp x) → x");
            r.unary(a, Exp)
        }
        Sqrt => {
            r.by("√(x · x) → abs x");
            let [x, y] = r.scalar(a, Mul)?;
            (x == y).then(|| r.apply(Abs, &[x]))
        }
        _ => None,
    }
}

fn even(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let &Op::Scalar(op @ (Abs | Cos)) = r.root(id) else { return None };
    let a = r.operand(id);
    let negated = r.unary(a, Neg);
    r.by(match (op, negated) {
        (Abs, Some(_)) => "|-x| → |x|",
        (Abs, None) => "||x|| → |x|",
        (_, Some(_)) => "cos(-x) → cos x",
        (_, None) => "cos |x| → cos x",
    });
    let x = negated.or_else(|| r.unary(a, Abs))?;
    Some(r.apply(op, &[x]))
}

/// A selection between equal values, by a constant mask, or of 1 and 0 by a mask of ones and zeros.
fn select(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let [mask, a, b] = root(r, id, Select)?;
    if a == b {
        r.by("select(m, x, x) → x");
        return Some(a);
    }
    if let Some(value) = r.constant(mask) {
        r.by(if value != 0.0 { "select(1, x, y) → x" } else { "select(0, x, y) → y" });
        return Some(if value != 0.0 { a } else { b });
    }
    r.by("select(x < y, 1, 0) → x < y");
    let comparison = matches!(r.op(mask)?, Op::Scalar(Lt | Le | Gt | Ge | Eq));
    (comparison && r.is(a, 1.0) && r.is(b, 0.0)).then_some(mask)
}

/// Where an operand is not a number, the selection gives `b` and the extremum NaN.
fn select_extremum(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let [mask, a, b] = root(r, id, Select)?;
    let greater = (Gt, Max, "select(x > y, x, y) → max(x, y)");
    let less = (Lt, Min, "select(x < y, x, y) → min(x, y)");
    for (comparison, op, rewrite) in [greater, less] {
        if r.scalar(mask, comparison) == Some([a, b]) {
            r.by(rewrite);
            return Some(r.apply(op, &[a, b]));
        }
    }
    None
}

fn compare_same(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let &Op::Scalar(op @ (Lt | Gt)) = r.root(id) else { return None };
    r.by(if op == Lt { "x < x → 0" } else { "x > x → 0" });
    let [a, b] = r.operands(id).try_into().ok()?;
    (a == b).then(|| r.constant_like(0.0, id))
}

fn compare_same_or_equal(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    r.by(match r.root(id) {
        Op::Scalar(Eq) => "x = x → 1",
        Op::Scalar(Le) => "x ≤ x → 1",
        Op::Scalar(Ge) => "x ≥ x → 1",
        _ => return None,
    });
    let [a, b] = r.operands(id).try_into().ok()?;
    (a == b).then(|| r.constant_like(1.0, id))
}

fn counter(r: &mut Rewriter, id: NodeId) -> Option<NodeId> {
    let [a, b] = root(r, id, AddU32)?;
    let d = r.constant(b)?;
    if d == 0.0 {
        r.by("n + 0 → n");
        return Some(a);
    }
    r.by("(n + c) + d → n + (c + d) of counters");
    let [n, c] = r.scalar(a, AddU32)?;
    let sum = AddU32.eval(&[r.constant(c)?, d]);
    debug_assert!(holds(sum, DType::U32));
    Some(with_constant(r, AddU32, n, sum))
}
