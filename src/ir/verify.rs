//! The verifier: what every graph must satisfy, checked apart from the code that builds and rewrites.

use super::{Distribution, Graph, NodeId, Op, Shape, Type, TypeError, infer};
use std::collections::{HashMap, HashSet};

/// A rule that a graph breaks, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    #[error("node name `{name}` is not made of letters, digits and `_ . / -`")]
    IllegalName { name: String },
    #[error("there is a nameless {kind}")]
    NoName { kind: &'static str },
    #[error("two nodes are named `%{name}`")]
    DuplicateNode { name: String },
    #[error("`%{node}` depends on itself, or on a node that does")]
    Cycle { node: String },
    #[error("`%{node}` has operands at positions {positions:?}, which must count up from 0")]
    OperandPositions { node: String, positions: Vec<usize> },
    #[error("`%{node}` does not fit its operands: {source}")]
    Operands { node: String, source: TypeError },
    #[error("`%{node}` is typed {found}, but its operation gives {inferred}")]
    WrongType { node: String, found: Type, inferred: Type },
    #[error("{kind} `{name}` has type {first} at one node and {second} at `%{node}`")]
    TwoTypes { kind: &'static str, name: String, first: Box<Type>, second: Box<Type>, node: String },
    #[error("random stream `{stream}` is drawn at `%{first}` and otherwise at `%{second}`: {difference}")]
    TwoDraws { stream: String, first: String, second: String, difference: &'static str },
    #[error("{kind} `{name}` refers to a node that was removed")]
    Dangling { kind: &'static str, name: String },
    #[error("there are two {kind}s `{name}`")]
    DuplicateResult { kind: &'static str, name: String },
    #[error("update of `{state}`, a state of type {expected}, by `%{node}` of type {found}")]
    UpdateType { state: String, node: String, expected: Type, found: Type },
}

/// Whether a name can be a node's: not empty, of letters, digits and `_ . / -`.
pub fn is_legal_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(is_name_char)
}

pub(super) fn is_name_char(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.' | '/' | '-')
}

/// Checks every invariant of a graph; passes may rely on them and must keep them.
///
/// Names are legal, and nodes' names unique; no node depends on itself; operands are in place and fit
/// their operation, and each node's type is the inferred one; an input, a state tensor and a random stream
/// mean the same wherever they occur; outputs, updates and probes are nodes of the graph, each named
/// once, and an update has its state's type.
///
/// # Errors
/// The first rule that is broken, with the name of the node.
pub fn verify(graph: &Graph) -> Result<(), VerifyError> {
    names(graph)?;
    graph.try_topological().map_err(|id| VerifyError::Cycle { node: graph.node(id).name.clone() })?;
    types(graph)?;
    let states = leaves(graph)?;
    draws(graph)?;
    results(graph, &states)
}

fn names(graph: &Graph) -> Result<(), VerifyError> {
    let mut seen = HashSet::new();
    for id in graph.ids() {
        let name = &graph.node(id).name;
        if !is_legal_name(name) {
            return Err(VerifyError::IllegalName { name: name.clone() });
        }
        if !seen.insert(name) {
            return Err(VerifyError::DuplicateNode { name: name.clone() });
        }
    }
    Ok(())
}

fn types(graph: &Graph) -> Result<(), VerifyError> {
    for id in graph.ids() {
        let node = graph.node(id);
        let positions = graph.operand_positions(id);
        if positions.iter().enumerate().any(|(expected, &position)| expected != position) {
            return Err(VerifyError::OperandPositions { node: node.name.clone(), positions });
        }
        let operands = graph.operands(id);
        let operand_types: Vec<&Type> = operands.iter().map(|&operand| graph.ty(operand)).collect();
        let inferred = infer(&node.op, &operand_types)
            .map_err(|source| VerifyError::Operands { node: node.name.clone(), source })?;
        if inferred != node.ty {
            return Err(VerifyError::WrongType { node: node.name.clone(), found: node.ty.clone(), inferred });
        }
    }
    Ok(())
}

/// Inputs and states have one type each. Returns that of the states.
fn leaves(graph: &Graph) -> Result<HashMap<&str, &Type>, VerifyError> {
    let mut inputs: HashMap<&str, &Type> = HashMap::new();
    let mut states: HashMap<&str, &Type> = HashMap::new();
    for id in graph.ids() {
        let (kind, known, name, ty) = match graph.op(id) {
            Op::Input { name, ty } => ("input", &mut inputs, name, ty),
            Op::State { name, ty } => ("state", &mut states, name, ty),
            _ => continue,
        };
        if name.is_empty() {
            return Err(VerifyError::NoName { kind });
        }
        let first = *known.entry(name).or_insert(ty);
        if first != ty {
            return Err(VerifyError::TwoTypes {
                kind,
                name: name.clone(),
                first: Box::new(first.clone()),
                second: Box::new(ty.clone()),
                node: graph.node(id).name.clone(),
            });
        }
    }
    Ok(states)
}

/// A stream names one draw: the same numbers of the same seed and step in the same shape. Otherwise
/// two draws would silently be correlated, and overriding the stream by name would be ambiguous.
fn draws(graph: &Graph) -> Result<(), VerifyError> {
    struct Draw<'g> {
        node: NodeId,
        distribution: &'g Distribution,
        shape: &'g Shape,
        key: Vec<NodeId>,
    }
    let mut streams: HashMap<&str, Draw> = HashMap::new();
    for node in graph.ids() {
        let Op::Random { distribution, stream, shape } = graph.op(node) else { continue };
        let draw = Draw { node, distribution, shape, key: graph.operands(node) };
        let Some(first) = streams.get(stream.as_str()) else {
            streams.insert(stream, draw);
            continue;
        };
        let difference = if first.distribution != draw.distribution {
            "the distributions differ"
        } else if first.shape != draw.shape {
            "the shapes differ"
        } else if !same_value(graph, first.key[0], draw.key[0]) {
            "the seeds differ"
        } else if !same_value(graph, first.key[1], draw.key[1]) {
            "the steps differ"
        } else {
            continue;
        };
        return Err(VerifyError::TwoDraws {
            stream: stream.clone(),
            first: graph.node(first.node).name.clone(),
            second: graph.node(node).name.clone(),
            difference,
        });
    }
    Ok(())
}

/// Whether two nodes are one, or the same leaf twice.
fn same_value(graph: &Graph, a: NodeId, b: NodeId) -> bool {
    a == b || (graph.op(a) == graph.op(b) && graph.operands(a).is_empty())
}

fn results(graph: &Graph, states: &HashMap<&str, &Type>) -> Result<(), VerifyError> {
    let outputs = graph.outputs.iter().map(|o| ("output", &o.name, o.node));
    let updates = graph.updates.iter().map(|u| ("update", &u.state, u.node));
    let probes = graph.probes.iter().map(|p| ("probe", &p.name, p.node));
    let mut seen = HashSet::new();
    for (kind, name, node) in outputs.chain(updates).chain(probes) {
        if name.is_empty() {
            return Err(VerifyError::NoName { kind });
        }
        if !graph.contains(node) {
            return Err(VerifyError::Dangling { kind, name: name.clone() });
        }
        if !seen.insert((kind, name)) {
            return Err(VerifyError::DuplicateResult { kind, name: name.clone() });
        }
    }
    for update in &graph.updates {
        let found = graph.ty(update.node);
        match states.get(update.state.as_str()) {
            Some(&expected) if expected != found => {
                return Err(VerifyError::UpdateType {
                    state: update.state.clone(),
                    node: graph.node(update.node).name.clone(),
                    expected: expected.clone(),
                    found: found.clone(),
                });
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
