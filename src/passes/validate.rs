//! Translation validation: does a rewritten graph still compute the same?

use super::Assumes;
use crate::autodiff::differentiate;
use crate::ir::{
    Bindings, DType, Evaluation, Graph, InterpError, NodeId, Op, Origin, Output, Type, Update, Value, evaluate,
};
use crate::scalar::{ScalarOp, philox, stream_hash};
use std::cmp::Ordering;
use std::collections::HashMap;

/// How two graphs differ.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Mismatch {
    #[error("{what} has element {index} = {after}, where it was {before}")]
    Value { what: String, index: usize, before: f64, after: f64 },
    #[error("the results were {before}, and are {after}")]
    Results { before: String, after: String },
    #[error("the graph cannot be evaluated: {0}")]
    Interp(#[from] InterpError),
}

/// What a check of two graphs compared.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Compared {
    /// Elements of outputs and updated state; 0 where the graphs are the same and nothing had to be evaluated.
    pub values: usize,
    /// The largest difference, relative to the largest element of its tensor.
    pub worst_relative_error: f64,
}

/// Largest difference between results, relative to the largest element of a tensor: what f64 rounds.
const TOLERANCE: f64 = 1e-9;

/// Evaluates both graphs by the interpreter in f64, on the same random inputs, state and draws. What is not finite in
/// `before` may be finite in `after` only where the rewrites between them assume [`Assumes::Range`] or more. Where `after`
/// rounds more than `before`, both are evaluated without any rounding to bf16 or tf32.
///
/// # Errors
/// The first result that differs.
pub fn validate(before: &Graph, after: &Graph, assumes: Assumes, seed: u64) -> Result<Compared, Mismatch> {
    if roundings(after) > roundings(before) {
        return compare(&without_roundings(before), &without_roundings(after), assumes, seed);
    }
    compare(before, after, assumes, seed)
}

fn is_rounding(op: &Op) -> bool {
    matches!(op, Op::Convert { to: DType::Bf16 } | Op::Scalar(ScalarOp::RoundBf16 | ScalarOp::RoundTf32))
}

fn roundings(graph: &Graph) -> usize {
    graph.ids().into_iter().filter(|&id| is_rounding(graph.op(id))).count()
}

/// A graph whose values are f32 wherever it rounded them, and of types as before where they leave it.
fn without_roundings(graph: &Graph) -> Graph {
    let mut plain = Graph::new(graph.name.clone());
    let mut of = HashMap::new();
    let add = |plain: &mut Graph, op: &Op, operands: &[NodeId], name: &str| match plain.add(
        op.clone(),
        operands,
        name,
        Origin::default(),
    ) {
        Ok(id) => id,
        Err(error) => panic!("what is not rounded is ill-typed: {error}"),
    };
    for id in graph.topological() {
        let operands: Vec<NodeId> = graph.operands(id).iter().map(|operand| of[operand]).collect();
        let is_f32 = |id: &NodeId| plain.ty(*id).dtype == DType::F32;
        let is_left_out = match graph.op(id) {
            Op::Convert { to: DType::F32 } => operands.first().is_some_and(is_f32),
            op => is_rounding(op),
        };
        let new = match operands[..] {
            [operand] if is_left_out => operand,
            _ => add(&mut plain, graph.op(id), &operands, &graph.node(id).name),
        };
        of.insert(id, new);
    }
    let mut leaving = |id: NodeId| match graph.ty(id).dtype {
        DType::Bf16 => add(&mut plain, &Op::Convert { to: DType::Bf16 }, &[of[&id]], "result"),
        DType::F32 | DType::U32 => of[&id],
    };
    let outputs = graph.outputs.iter().map(|o| Output { node: leaving(o.node), ..o.clone() }).collect();
    let updates = graph.updates.iter().map(|u| Update { node: leaving(u.node), ..u.clone() }).collect();
    (plain.outputs, plain.updates) = (outputs, updates);
    plain
}

fn compare(before: &Graph, after: &Graph, assumes: Assumes, seed: u64) -> Result<Compared, Mismatch> {
    let mut compared = Compared { values: 0, worst_relative_error: 0.0 };
    if before == after {
        return Ok(compared);
    }
    let seed = [seed as u32, (seed >> 32) as u32];
    let run = |graph: &Graph| -> Result<Evaluation<f64>, Mismatch> {
        let mut graph = graph.clone();
        if graph.ids().into_iter().any(|id| *graph.op(id) == Op::Gradient) {
            differentiate(&mut graph);
        }
        Ok(evaluate(&graph, &bindings(&graph, seed))?)
    };
    let (before, after) = (run(before)?, run(after)?);
    let named = |e: &Evaluation<f64>| -> Vec<String> {
        let outputs = e.outputs.iter().map(|(name, v)| format!("output {name}: {}", v.ty()));
        outputs.chain(e.updates.iter().map(|(name, v)| format!("update {name}: {}", v.ty()))).collect()
    };
    let (names, others) = (named(&before), named(&after));
    if names != others {
        return Err(Mismatch::Results { before: names.join(", "), after: others.join(", ") });
    }
    let values = |e: Evaluation<f64>| e.outputs.into_iter().chain(e.updates).map(|(_, value)| value.to_f64());
    for ((what, before), after) in names.into_iter().zip(values(before)).zip(values(after)) {
        let scale = before.iter().fold(1e-3, |a: f64, b| if b.is_finite() { a.max(b.abs()) } else { a });
        for (index, (&before, &after)) in before.iter().zip(&after).enumerate() {
            if !before.is_finite() {
                // What overflowed before may be finite now: that is what some passes are for.
                if after.is_finite() && assumes < Assumes::Range {
                    return Err(Mismatch::Value { what, index, before, after });
                }
                continue;
            }
            let error = (before - after).abs() / scale;
            // Not NaN either.
            if !matches!(error.partial_cmp(&TOLERANCE), Some(Ordering::Less | Ordering::Equal)) {
                return Err(Mismatch::Value { what, index, before, after });
            }
            compared.values += 1;
            compared.worst_relative_error = compared.worst_relative_error.max(error);
        }
    }
    Ok(compared)
}

/// A value for each input and state tensor. Reals are in [-1, 1) for inputs; for state, which holds
/// variances and second moments too, they are positive, and of matrices and filters so small that sums of
/// products stay near 1. Whole numbers are below 10, which suits labels.
pub(super) fn bindings(graph: &Graph, seed: [u32; 2]) -> Bindings<f64> {
    let uniform = |name: &str, i: usize| philox::uniform(seed, 0, stream_hash(name), i as u64);
    let value = |name: &str, ty: &Type, real: &dyn Fn(f64) -> f64| {
        let elements = 0..ty.elements();
        match ty.dtype {
            DType::F32 | DType::Bf16 => {
                Value::real(ty.shape.clone(), elements.map(|i| real(uniform(name, i))).collect())
            }
            DType::U32 => Value::u32(ty.shape.clone(), elements.map(|i| (10.0 * uniform(name, i)) as u32).collect()),
        }
    };
    (graph.ids().into_iter())
        .filter_map(|id| match graph.op(id) {
            Op::Input { name, ty } => Some((name.clone(), value(name, ty, &|u| 2.0 * u - 1.0))),
            Op::State { name, ty } => {
                let fan = if ty.rank() < 2 { 1.0 } else { ty.elements() as f64 / ty.shape[0].min(ty.shape[1]) as f64 };
                Some((name.clone(), value(name, ty, &|u| (0.1 + 0.9 * u) / fan)))
            }
            _ => None,
        })
        .collect()
}
