//! Where a run's numbers stopped being finite: the first node in the first such step, and its line in the program.
//!
//! A step on a device leaves nothing behind but its results, and the networks are looked at only every so many steps.
//! So the run goes back to its checkpoint and does the steps since again, which gives the same bits. The step that went
//! wrong is then evaluated node by node, by the reference interpreter in f32. From each result that is not finite the
//! search goes back through operands that are not, down to nodes whose operands all are. What is infinite and comes to
//! nothing, as where a selection takes the other value, is on no such way and so is not blamed. Of the nodes that are
//! left the first in the order of evaluation is named.
//!
//! Nothing is written: the checkpoint stays as it is.

use super::checkpoint;
use super::observer::Observer;
use super::session::{Session, SessionError};
use super::thousands;
use super::trainer::TrainError;
use crate::compile::differentiated;
use crate::declare::diagnostic::{Diagnostic, Diagnostics};
use crate::exec::MOST_RUNS;
use crate::ir::{Bindings, Data, Graph, NodeId, Op, Role, Value, evaluate_while};
use crate::scalar::ScalarOp;
use crate::tensor::Tensor;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// A step made something infinite or NaN.
#[derive(Debug, Clone)]
pub struct NonFinite {
    /// The networks whose state is no longer finite; none where only a loss is not.
    pub networks: Vec<String>,
    /// All was finite after this step, and no longer after the other.
    pub after: u64,
    pub step: u64,
    /// The losses of the last step.
    pub values: BTreeMap<String, f32>,
    /// The last checkpoint and its step.
    pub checkpoint: PathBuf,
    pub saved: u64,
    pub run: PathBuf,
    /// Where it began; absent where that was not found.
    pub first: Option<Box<First>>,
}

impl fmt::Display for NonFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match &self.networks[..] {
            [] => "a loss".to_string(),
            networks => networks.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(" and "),
        };
        let when = match self.after + 1 == self.step {
            true => format!("in step {}", self.step),
            false => format!("between steps {} and {}", self.after + 1, self.step),
        };
        let values: Vec<String> = self.values.iter().map(|(name, value)| format!("{name} {value}")).collect();
        let values = if values.is_empty() { String::new() } else { format!(" ({})", values.join(", ")) };
        let first = self.first.as_ref().map_or(String::new(), |first| format!(", first {first}"));
        write!(
            f,
            "{what} became infinite or NaN {when}{values}{first}; the last good checkpoint is {}, of step {}. Lower \
             the learning rate with --set, in a new run or with --resume {}, or try another --seed",
            self.checkpoint.display(),
            self.saved,
            self.run.display()
        )
    }
}

/// The first node with an element that is infinite or NaN, of those that made a result so.
#[derive(Debug, Clone)]
pub struct First {
    /// The step, counted from 1.
    pub step: u64,
    /// The node's name and operation.
    pub node: String,
    pub op: &'static str,
    /// The enclosing declarations from the outside in, joined with `/`: call, network, layer. Empty outside of all.
    pub scope: String,
    /// Whether an element is NaN; otherwise one is infinite.
    pub is_nan: bool,
    /// The name, the least and the largest element of each of its operands.
    pub operands: Vec<(String, f64, f64)>,
    /// Its declaration in the program's text.
    pub place: Diagnostics,
}

impl fmt::Display for First {
    /// A part of a sentence: "in `d_x` of step 7 (mlp-gan.ron:12:5)".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "in `{}` of step {}", self.node, thousands(self.step as usize))?;
        match self.place.entries().first().and_then(Diagnostic::span) {
            Some(span) => {
                let (line, column) = self.place.line_column(span.start);
                write!(f, " ({}:{line}:{column})", self.place.source_name())
            }
            None => Ok(()),
        }
    }
}

/// Looks for the first node, where `each` is the time of a step, and tells the observer what is done meanwhile. The
/// session is at some step since the checkpoint afterwards. That the search fails hides nothing: it is a note.
pub(super) fn look_for_first(
    session: &mut Session,
    found: &NonFinite,
    each: Duration,
    observer: &mut dyn Observer,
) -> Option<First> {
    let (why, hint) = match find(session, found, each, observer) {
        Ok(Found::First(first)) => return Some(*first),
        Ok(Found::Nothing(why)) => (why.to_string(), ""),
        Ok(Found::StaysFinite(step)) => {
            let why = format!("evaluated in f32 as it was declared, step {} stays finite", thousands(step as usize));
            (why, ": --precision f32 and no fast math would show whether that is why")
        }
        Err(error) => (error.to_string(), ""),
    };
    observer.note(&format!("where the numbers stopped being finite is not known ({why}{hint})"));
    None
}

/// What came of a search.
enum Found {
    First(Box<First>),
    /// The numbers of the step stay finite where nothing is rounded or rewritten as on the device.
    StaysFinite(u64),
    /// There is none, for this reason.
    Nothing(&'static str),
}

const INTERRUPTED: Found = Found::Nothing("the search was interrupted");

/// The state and the inputs of a step, by name.
type Given = Vec<(String, Tensor)>;

fn find(
    session: &mut Session,
    found: &NonFinite,
    each: Duration,
    observer: &mut dyn Observer,
) -> Result<Found, TrainError> {
    if observer.is_cancelled() {
        return Ok(INTERRUPTED);
    }
    let again = found.step - found.saved;
    observer.note(&format!(
        "numbers became infinite or NaN; to find out where, {} done again from the checkpoint of step {}{} (Ctrl-C \
         leaves that out)",
        if again == 1 { "a step is".to_string() } else { format!("{} steps are", thousands(again as usize)) },
        thousands(found.saved as usize),
        lasting(each.mul_f64(again as f64))
    ));
    let by_loss = found.networks.is_empty();
    let mut from = found.after.max(found.saved);
    let mut before = loop {
        if !go_to(session, found, from, observer)? {
            return Ok(INTERRUPTED);
        }
        let state = session.copy_states().map_err(SessionError::from)?;
        if from == found.saved || state.iter().all(|(_, tensor)| is_finite(tensor)) {
            break state;
        }
        // What no flag is about was not finite before the last step after which flags said so.
        from = found.saved;
    };
    while session.step_count() < found.step {
        if observer.is_cancelled() {
            return Ok(INTERRUPTED);
        }
        let (entry, inputs) = session.next_inputs();
        session.advance(1)?;
        let after = session.copy_states().map_err(SessionError::from)?;
        let mut wrong = not_finite(&after);
        if by_loss || !wrong.is_empty() {
            let scalars = session.scalars()?;
            wrong.extend(scalars.into_iter().filter(|(_, value)| !value.is_finite()).map(|(name, _)| name));
        }
        if !wrong.is_empty() {
            before.extend(inputs);
            return first(session, entry, before, &wrong, observer);
        }
        before = after;
    }
    Ok(Found::Nothing("the same steps stay finite this time"))
}

/// Restores the checkpoint and trains up to a step; `false` where the observer wants no more.
fn go_to(session: &mut Session, found: &NonFinite, step: u64, observer: &mut dyn Observer) -> Result<bool, TrainError> {
    let checkpoint = checkpoint::load(&found.checkpoint)?;
    session.restore(&checkpoint)?;
    drop(checkpoint);
    while session.step_count() < step {
        if observer.is_cancelled() {
            return Ok(false);
        }
        session.advance((step - session.step_count()).min(MOST_RUNS as u64))?;
    }
    Ok(true)
}

/// A part of a sentence about how long something takes, where that is long.
fn lasting(time: Duration) -> String {
    match time.as_secs() {
        0..5 => String::new(),
        seconds @ 5..90 => format!(", which takes about {seconds} s"),
        seconds => format!(", which takes about {} min", seconds.div_ceil(60)),
    }
}

fn not_finite(tensors: &[(String, Tensor)]) -> BTreeSet<String> {
    tensors.iter().filter(|(_, tensor)| !is_finite(tensor)).map(|(name, _)| name.clone()).collect()
}

fn is_finite(tensor: &Tensor) -> bool {
    reals(&Value::<f32>::from_tensor(tensor)).iter().all(|v| v.is_finite())
}

/// The elements of what holds reals.
fn reals(value: &Value<f32>) -> &[f32] {
    match &value.data {
        Data::Real(values) => values,
        Data::U32(_) => &[],
    }
}

/// Evaluates the step that the session has just done, to find the node by which the named results are not finite.
fn first(
    session: &Session,
    entry: usize,
    given: Given,
    wrong: &BTreeSet<String>,
    observer: &mut dyn Observer,
) -> Result<Found, TrainError> {
    let (plan, step) = (session.plan(), session.step_count());
    let graph = match differentiated(plan, &plan.entries[entry]) {
        Ok(Some(graph)) => graph,
        Ok(None) => return Ok(Found::Nothing("the plan does not hold the text of its step")),
        Err(error) => {
            tracing::debug!("{error}");
            return Ok(Found::Nothing("this version reads the program in another way"));
        }
    };
    observer.note(&format!(
        "it was in step {}, which is evaluated operation by operation now: slow where networks are large",
        thousands(step as usize)
    ));
    let bindings: Bindings<f32> =
        given.iter().map(|(name, tensor)| (name.clone(), Value::from_tensor(tensor))).collect();
    drop(given);
    let outputs = graph.outputs.iter().filter(|o| wrong.contains(&o.name)).map(|o| o.node);
    let updates = graph.updates.iter().filter(|u| wrong.contains(&u.state)).map(|u| u.node);
    let results: Vec<NodeId> = outputs.chain(updates).collect();
    let mut trail = Trail::default();
    let mut is_cancelled = false;
    let evaluated = evaluate_while(&graph, &bindings, &results, &mut |id, operands, value| {
        trail.see(&graph, id, operands, value);
        is_cancelled = observer.is_cancelled();
        !is_cancelled
    });
    if let Err(error) = evaluated {
        tracing::debug!("{error}");
        return Ok(Found::Nothing("the step's graph takes what the device does not need"));
    }
    if is_cancelled {
        return Ok(INTERRUPTED);
    }
    let Some(source) = trail.first_source(&results) else { return Ok(Found::StaysFinite(step)) };
    Ok(Found::First(Box::new(describe(&graph, source, step, (&plan.source.name, &plan.source.text)))))
}

/// A node that is infinite or NaN where its operands are not.
#[derive(Debug, Clone)]
struct Start {
    node: NodeId,
    is_nan: bool,
    /// The least and the largest element of each operand.
    ranges: Vec<(f64, f64)>,
}

/// What was not finite during an evaluation.
#[derive(Debug, Default)]
struct Trail {
    /// The operands by which a node is not finite, and its place in the order of evaluation.
    by: HashMap<NodeId, (usize, Vec<NodeId>)>,
    starts: HashMap<NodeId, Start>,
}

impl Trail {
    fn see(&mut self, graph: &Graph, id: NodeId, operands: &[&Value<f32>], value: &Value<f32>) {
        // A constant that is infinite is meant to be.
        if reals(value).iter().all(|v| v.is_finite()) || matches!(graph.op(id), Op::Constant { .. }) {
            return;
        }
        let ids = graph.operands(id);
        let to_blame = |k: &usize| self.by.contains_key(&ids[*k]) && reaches(graph.op(id), *k, operands, value);
        let by: Vec<NodeId> = (0..ids.len()).filter(to_blame).map(|k| ids[k]).collect();
        if by.is_empty() {
            let ranges = operands.iter().map(|operand| range(operand)).collect();
            let is_nan = reals(value).iter().any(|v| v.is_nan());
            self.starts.insert(id, Start { node: id, is_nan, ranges });
        }
        self.by.insert(id, (self.by.len(), by));
    }

    /// The first node, in the order of evaluation, at which a way back from one of `results` ends.
    fn first_source(&self, results: &[NodeId]) -> Option<&Start> {
        let mut seen = BTreeMap::new();
        let mut stack: Vec<NodeId> = results.iter().copied().filter(|id| self.by.contains_key(id)).collect();
        while let Some(id) = stack.pop() {
            let (place, by) = &self.by[&id];
            if seen.insert(place, id).is_none() {
                stack.extend(by);
            }
        }
        seen.values().find_map(|id| self.starts.get(id))
    }
}

/// Whether what is not finite in operand `k` is so in the result.
fn reaches(op: &Op, k: usize, operands: &[&Value<f32>], value: &Value<f32>) -> bool {
    let Op::Scalar(op) = op else { return true };
    let is_taken = |i: usize| match (op, k) {
        (ScalarOp::Select, 1) => is_true(operands[0], i),
        (ScalarOp::Select, 2) => !is_true(operands[0], i),
        _ => true,
    };
    let mut pairs = reals(value).iter().zip(reals(operands[k])).enumerate();
    pairs.any(|(i, (v, x))| !v.is_finite() && !x.is_finite() && is_taken(i))
}

fn is_true(condition: &Value<f32>, i: usize) -> bool {
    match &condition.data {
        Data::Real(values) => values[i] != 0.0,
        Data::U32(values) => values[i] != 0,
    }
}

/// The least and the largest element; NaN is left out.
fn range(value: &Value<f32>) -> (f64, f64) {
    value.to_f64().iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(*v), high.max(*v)))
}

fn describe(graph: &Graph, start: &Start, step: u64, (name, text): (&str, &str)) -> First {
    let node = graph.node(start.node);
    let names = graph.operands(start.node).into_iter().map(|id| graph.node(id).name.clone());
    let operands: Vec<_> = names.zip(&start.ranges).map(|(name, (low, high))| (name, *low, *high)).collect();
    let what = if start.is_nan { "NaN" } else { "infinite" };
    let part = match &node.origin.role {
        Role::Forward => String::new(),
        Role::Gradient(loss) => format!(", in the gradient of `{loss}`"),
        Role::Optimiser(network) => format!(", in the optimiser of `{network}`"),
    };
    // A name that was made for an expansion holds where it is.
    let scope = match node.origin.scope.as_str() {
        scope if node.name.contains(scope) => String::new(),
        scope => format!(", in {scope}"),
    };
    let message =
        format!("the first value that is {what} is `{}` of step {}{part}{scope}", node.name, thousands(step as usize));
    let mut given: Vec<String> =
        operands.iter().map(|(name, low, high)| format!("`{name}` {}", between(*low, *high))).collect();
    given.dedup();
    let op = node.op.name();
    let mut place = Diagnostic::new("not-finite", message);
    if let Some(span) = node.origin.span {
        let is_finite = operands.iter().all(|(_, low, high)| low.is_finite() && high.is_finite());
        let from = if is_finite { "finite values" } else { "a constant that is not finite" };
        place = place.label(span, format!("`{op}`, from {from}"));
    }
    if !given.is_empty() {
        place = place.help(format!("`{op}` was given {}", given.join(" and ")));
    }
    First {
        step,
        node: node.name.clone(),
        op,
        scope: node.origin.scope.clone(),
        is_nan: start.is_nan,
        operands,
        place: Diagnostics::new(name, text, vec![place]),
    }
}

fn between(low: f64, high: f64) -> String {
    let figure =
        |x: f64| if x == 0.0 || (1e-3..1e5).contains(&x.abs()) { format!("{x:.4}") } else { format!("{x:.2e}") };
    if low == high { format!("= {}", figure(low)) } else { format!("from {} to {}", figure(low), figure(high)) }
}
