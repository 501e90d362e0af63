//! An entry or a network of a program as an ONNX model, with the weights of a run.
//!
//! What is written is the declared graph: its primitives are ONNX's operations, apart from a bias, which goes into
//! the convolution or product that it is added to. Sizes that follow the number of examples are found by declaring the
//! program for several numbers of examples; they are then `N` in the model, or worked out from it. Random draws become
//! inputs.

mod nodes;
pub mod proto;
mod scalars;
mod sizes;
#[cfg(test)]
mod tests;
mod writer;

use super::networks;
use crate::autodiff::differentiate;
use crate::declare::diagnostic::{Diagnostic, Diagnostics};
use crate::declare::{self, Number};
use crate::ir::{Distribution, Entry, Graph, NodeId, Op, StateRole, Type};
use crate::tensor::Tensor;
use nodes::{Refusal, export as nodes_of};
use prost::Message;
use sizes::Family;
use std::collections::{BTreeMap, HashMap};

/// The versions of ONNX's operators that models can be made for: what they say is the same in all of them.
pub const OPSETS: std::ops::RangeInclusive<u16> = 20..=28;

/// The version of the file format, which every runtime that has the oldest of [`OPSETS`] reads.
const IR_VERSION: i64 = 10;

/// Most bytes of a model in one file.
const MOST: usize = i32::MAX as usize;

/// A program as it was trained.
#[derive(Debug, Clone, Copy)]
pub struct Program<'a> {
    pub name: &'a str,
    pub text: &'a str,
    /// Sizes and values instead of the program's own, as `name=value`.
    pub sets: &'a [String],
}

/// What becomes a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Callee<'a> {
    Entry(&'a str),
    /// In inference mode.
    Network(&'a str),
}

/// What a model says of itself.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The version of ONNX's operators.
    pub opset: u16,
    /// The model's version: training steps that are complete.
    pub step: u64,
    /// Anything else, by name.
    pub properties: Vec<(String, String)>,
}

/// A model that was made.
#[derive(Debug, Clone)]
pub struct Exported {
    pub model: proto::Model,
    /// Why the number of examples is fixed, where it is: in words.
    pub fixed: Option<String>,
}

/// Why there is no model.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The program is wrong, or something in it cannot be said in ONNX.
    #[error(transparent)]
    Declare(#[from] declare::Error),
    #[error("there is no {kind} `{name}`; the program has {known}")]
    Unknown { kind: &'static str, name: String, known: String },
    #[error("the model would have {0} bytes: an ONNX file has at most {MOST}")]
    TooLarge(usize),
}

/// Makes a model of an entry or a network, with those weights: state tensors by name.
///
/// # Errors
/// When there is none of that name, it changes its state (as training does), or ONNX has no words for a part of it.
pub fn export(
    program: Program,
    callee: Callee,
    weights: &BTreeMap<String, Tensor>,
    facts: &Facts,
) -> Result<Exported, ExportError> {
    let (alone, size) = declared(program, callee, None)?;
    let examples = match (callee, &size) {
        (Callee::Network(_), _) => Some(2),
        (Callee::Entry(_), None) => None,
        (Callee::Entry(_), Some(size)) => {
            let sizes = declare::sizes(program.name, program.text, program.sets)?;
            sizes.into_iter().find_map(|(name, number)| match number {
                Number::Size(n) if name == *size => Some(n),
                Number::Size(_) | Number::Value(_) => None,
            })
        }
    };
    let mut fixed = "its inputs' first dimension has no name".to_string();
    for follow in [Follow::Alone, Follow::All] {
        let Some(examples) = examples else { break };
        // Not 1, which many sizes are; what divides the program's own number divides these.
        let numbers = [2, 3, 5].map(|times| times * examples);
        let each: Result<Vec<Declared>, ExportError> =
            numbers.iter().map(|&n| Ok(declared(program, callee, Some((n, follow)))?.0)).collect();
        let Ok(each) = each else { continue };
        let graphs = each.iter().map(|d| d.entry.graph.clone()).collect();
        let Some(family) = Family::new(numbers.to_vec(), graphs) else { continue };
        match model(program, callee, &family, &alone, weights, facts) {
            Ok(model) => return finished(model, None),
            Err(Refusal::Varies { node }) => fixed = format!("`{node}` does not follow the number of examples"),
            Err(Refusal::CannotSay { node, why }) => return Err(refused(program, family.graph(), node, &why)),
        }
    }
    let family = Family::new(Vec::new(), vec![alone.entry.graph.clone()]);
    let family = family.unwrap_or_else(|| unreachable!("one graph is as itself"));
    match model(program, callee, &family, &alone, weights, facts) {
        Ok(model) => finished(model, Some(fixed)),
        Err(Refusal::CannotSay { node, why }) => Err(refused(program, family.graph(), node, &why)),
        Err(Refusal::Varies { node }) => {
            let why = format!("the run's state does not fit `{node}`");
            let id = family.graph().find(&node).or(family.order().first().copied());
            Err(id.map_or(ExportError::Declare(declare::Error::Set(why.clone())), |id| {
                refused(program, family.graph(), id, &why)
            }))
        }
    }
}

fn finished(model: proto::Model, fixed: Option<String>) -> Result<Exported, ExportError> {
    let bytes = model.encoded_len();
    if bytes > MOST { Err(ExportError::TooLarge(bytes)) } else { Ok(Exported { model, fixed }) }
}

/// The bytes of the file.
pub fn encode(model: &proto::Model) -> Vec<u8> {
    model.encode_to_vec()
}

/// How sizes follow the number of examples.
#[derive(Debug, Clone, Copy)]
enum Follow {
    /// The size that counts them changes, and what has a size of its own stays.
    Alone,
    /// What is worked out from that size changes too.
    All,
}

/// An entry whose draws are inputs.
struct Declared {
    entry: Entry,
    meanings: BTreeMap<String, String>,
}

/// Declares what is to become a model, for a number of examples or the program's own; with the name of the size that
/// counts an entry's examples.
fn declared(
    program: Program,
    callee: Callee,
    examples: Option<(usize, Follow)>,
) -> Result<(Declared, Option<String>), ExportError> {
    let Program { name, text, sets } = program;
    let (module, called, size) = match callee {
        Callee::Entry(entry) => {
            let size = declare::leading_size(name, text, entry)?;
            let module = match (&size, examples) {
                (Some(size), Some((n, Follow::Alone))) => declare::load(name, text, sets, &[(size.clone(), n)])?,
                (Some(size), Some((n, Follow::All))) => {
                    declare::load(name, text, &[sets, &[format!("{size}={n}")]].concat(), &[])?
                }
                (None, _) | (_, None) => declare::load(name, text, sets, &[])?,
            };
            (module, entry, size)
        }
        Callee::Network(network) => {
            let Some(mut shape) = declare::network_input(name, text, sets, network)? else {
                let module = declare::load(name, text, sets, &[])?;
                let known = networks(&module.states).join(", ");
                return Err(ExportError::Unknown { kind: "network", name: network.into(), known });
            };
            shape.insert(0, examples.map_or(1, |(n, _)| n));
            let types = BTreeMap::from([("input".to_string(), Type::f32(shape))]);
            (declare::load_call(name, text, sets, network, &types)?.module, network, None)
        }
    };
    let Some(entry) = module.entries.iter().find(|e| e.graph.name == called) else {
        let known = module.entries.iter().map(|e| e.graph.name.as_str()).collect::<Vec<_>>().join(", ");
        return Err(ExportError::Unknown { kind: "entry", name: called.into(), known });
    };
    let is_counter = |state: &str| module.states.iter().any(|s| s.name == state && s.role == StateRole::Counter);
    if let Some(update) = entry.graph.updates.iter().find(|u| !is_counter(&u.state)) {
        let why = format!("it changes the state `{}`, and an ONNX model has none", update.state);
        return Err(refused(program, &entry.graph, update.node, &why));
    }
    Ok((functional(entry), size))
}

/// An entry without state of its own, random draws and requests for gradients.
fn functional(entry: &Entry) -> Declared {
    let mut entry = entry.clone();
    let graph = &mut entry.graph;
    let mut meanings: BTreeMap<String, String> =
        entry.inputs.iter().map(|i| (i.name.clone(), i.meaning.clone())).collect();
    let mut draws: HashMap<String, NodeId> = HashMap::new();
    for id in graph.topological() {
        let Op::Random { stream, distribution, .. } = graph.op(id).clone() else { continue };
        let drawn = match distribution {
            Distribution::Uniform => "uniform random numbers from [0, 1)".to_string(),
            Distribution::Normal => "standard normal random numbers".to_string(),
            Distribution::Bernoulli(p) => format!("1 with probability {p}, else 0"),
        };
        meanings.entry(stream.clone()).or_insert(drawn);
        let (ty, origin) = (graph.ty(id).clone(), graph.node(id).origin.clone());
        let input = draws.get(&stream).copied().or_else(|| {
            // A leaf takes no operands, so it always fits.
            graph.add(Op::Input { name: stream.clone(), ty }, &[], &stream, origin).ok()
        });
        if let Some(input) = input {
            graph.replace_uses(id, input);
            draws.insert(stream, input);
        }
    }
    graph.updates.clear();
    graph.probes.clear();
    differentiate(graph);
    graph.remove_dead();
    Declared { entry, meanings }
}

fn model(
    program: Program,
    callee: Callee,
    family: &Family,
    declared: &Declared,
    weights: &BTreeMap<String, Tensor>,
    facts: &Facts,
) -> Result<proto::Model, Refusal> {
    let graph = family.graph();
    let lines = Diagnostics::new(program.name, program.text, Vec::new());
    let source = |id: NodeId| {
        let origin = &graph.node(id).origin;
        let line = origin.span.map(|span| format!("line {}: ", lines.line_column(span.start).0));
        line.unwrap_or_default() + &origin.scope
    };
    let mut writer = nodes_of(family, weights, &declared.meanings, &source)?;
    let place = |name: &str| declared.entry.inputs.iter().position(|i| i.name == name).unwrap_or(usize::MAX);
    writer.inputs.sort_by_key(|input| place(&input.name));
    let (Callee::Entry(called) | Callee::Network(called)) = callee;
    let doc = format!("`{called}` of the program `{}` after {} steps", program.name, facts.step);
    let property = |(key, value): &(String, String)| proto::Property { key: key.clone(), value: value.clone() };
    Ok(proto::Model {
        ir_version: Some(IR_VERSION),
        producer_name: env!("CARGO_PKG_NAME").into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        domain: String::new(),
        model_version: Some(facts.step as i64),
        doc_string: doc.clone(),
        graph: Some(writer.finish(called, doc)),
        opset_import: vec![proto::OperatorSet { domain: Some(String::new()), version: Some(facts.opset.into()) }],
        metadata_props: facts.properties.iter().map(property).collect(),
    })
}

/// What cannot be said, with its place in the program's text.
fn refused(program: Program, graph: &Graph, node: NodeId, why: &str) -> ExportError {
    let node = graph.node(node);
    let message = format!("`{}` ({}) cannot be exported to ONNX: {why}", node.name, node.op.name());
    let mut diagnostic = Diagnostic::new("not-in-onnx", message);
    if let Some(span) = node.origin.span {
        diagnostic = diagnostic.label(span, "declared here");
    }
    let help = "choose an entry that only computes, such as `sample`, or a network by --network";
    let diagnostics = Diagnostics::new(program.name, program.text, vec![diagnostic.help(help)]);
    ExportError::Declare(declare::Error::Text(diagnostics))
}
