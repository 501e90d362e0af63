//! Graphs in serde's data model, and so in RON, JSON and bincode.
//!
//! A graph is stored as a flat list of nodes in topological order; operands, outputs, updates and probes
//! are indices into it. What is read is rebuilt node by node with every check that building has, so
//! a damaged file gives an error and never a broken graph.

use super::{AddError, Graph, NodeId, Op, Origin, Output, Probe, Type, Update};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::collections::HashMap;

#[derive(Serialize, Deserialize)]
#[serde(rename = "Graph")]
struct FlatGraph<'g> {
    name: Cow<'g, str>,
    nodes: Vec<FlatNode<'g>>,
    outputs: Vec<FlatResult<'g>>,
    updates: Vec<FlatResult<'g>>,
    probes: Vec<FlatResult<'g>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename = "Node")]
struct FlatNode<'g> {
    name: Cow<'g, str>,
    /// Follows from the rest; stored to be read by people and checked.
    ty: Cow<'g, Type>,
    op: Cow<'g, Op>,
    /// Indices of nodes before this one.
    operands: Vec<usize>,
    origin: Cow<'g, Origin>,
}

/// An output, update or probe.
#[derive(Serialize, Deserialize)]
#[serde(rename = "Result")]
struct FlatResult<'g> {
    name: Cow<'g, str>,
    node: usize,
}

/// Why stored nodes are not a graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum FlatError {
    #[error("node {index} (`{name}`): {source}")]
    Node { index: usize, name: String, source: AddError },
    #[error("node {index} (`{name}`): operand {operand} is not a node before it")]
    Operand { index: usize, name: String, operand: usize },
    #[error("{kind} `{name}` is node {node}, but there are only {len}")]
    Result { kind: &'static str, name: String, node: usize, len: usize },
}

impl<'g> FlatGraph<'g> {
    fn of(graph: &'g Graph) -> Result<Self, String> {
        let order = graph.try_topological().map_err(|id| format!("`{}` depends on itself", graph.node(id).name))?;
        let place: HashMap<NodeId, usize> = order.iter().enumerate().map(|(i, &id)| (id, i)).collect();
        let result = |name: &'g String, node: NodeId| match place.get(&node) {
            Some(&node) => Ok(FlatResult { name: name.into(), node }),
            None => Err(format!("`{name}` refers to a node that was removed")),
        };
        let nodes = order.iter().map(|&id| {
            let node = graph.node(id);
            FlatNode {
                name: (&node.name).into(),
                ty: Cow::Borrowed(&node.ty),
                op: Cow::Borrowed(&node.op),
                operands: graph.operands(id).iter().map(|operand| place[operand]).collect(),
                origin: Cow::Borrowed(&node.origin),
            }
        });
        Ok(FlatGraph {
            name: (&graph.name).into(),
            nodes: nodes.collect(),
            outputs: graph.outputs.iter().map(|o| result(&o.name, o.node)).collect::<Result<_, _>>()?,
            updates: graph.updates.iter().map(|u| result(&u.state, u.node)).collect::<Result<_, _>>()?,
            probes: graph.probes.iter().map(|p| result(&p.name, p.node)).collect::<Result<_, _>>()?,
        })
    }

    fn rebuild(self) -> Result<Graph, FlatError> {
        let mut graph = Graph::new(self.name);
        let mut ids: Vec<NodeId> = Vec::with_capacity(self.nodes.len());
        for (index, node) in self.nodes.into_iter().enumerate() {
            let mut operands = Vec::with_capacity(node.operands.len());
            for operand in node.operands {
                match ids.get(operand) {
                    Some(&id) => operands.push(id),
                    None => return Err(FlatError::Operand { index, name: node.name.into(), operand }),
                }
            }
            let added =
                graph.add_exact(node.op.into_owned(), &operands, &node.name, Some(&node.ty), node.origin.into_owned());
            ids.push(added.map_err(|source| FlatError::Node { index, name: node.name.into(), source })?);
        }
        let find = |kind, result: FlatResult| match ids.get(result.node) {
            Some(&id) => Ok((result.name.into_owned(), id)),
            None => Err(FlatError::Result { kind, name: result.name.into(), node: result.node, len: ids.len() }),
        };
        for result in self.outputs {
            let (name, node) = find("output", result)?;
            graph.outputs.push(Output { name, node });
        }
        for result in self.updates {
            let (state, node) = find("update", result)?;
            graph.updates.push(Update { state, node });
        }
        for result in self.probes {
            let (name, node) = find("probe", result)?;
            graph.probes.push(Probe { name, node });
        }
        Ok(graph)
    }
}

impl Serialize for Graph {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        FlatGraph::of(self).map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Graph {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        FlatGraph::deserialize(deserializer)?.rebuild().map_err(D::Error::custom)
    }
}

#[cfg(test)]
#[path = "serial_tests.rs"]
mod tests;
