//! Building well-typed nodes in few words, for rules that know what they build.

use super::{DType, Graph, NodeId, Op, Origin, ReduceKind, Shape};
use crate::scalar::{ScalarBuilder, ScalarOp};

/// Adds nodes of one origin to a graph.
///
/// # Panics
/// Every method panics when operands do not fit: the caller is a rule whose types are right by
/// construction. Where operands come from a user, call [`Graph::add`], which gives an error.
pub struct Builder<'g> {
    pub graph: &'g mut Graph,
    pub origin: Origin,
}

impl<'g> Builder<'g> {
    pub fn new(graph: &'g mut Graph, origin: Origin) -> Self {
        Builder { graph, origin }
    }

    /// Adds a node that is named after its operation.
    pub fn op(&mut self, op: Op, operands: &[NodeId]) -> NodeId {
        let name = op.name();
        self.named(name, op, operands)
    }

    /// Adds a node of the given name.
    pub fn named(&mut self, name: &str, op: Op, operands: &[NodeId]) -> NodeId {
        match self.graph.add(op, operands, name, self.origin.clone()) {
            Ok(id) => id,
            Err(error) => panic!("a rule built an ill-typed node: {error}"),
        }
    }

    pub fn shape(&self, id: NodeId) -> Shape {
        self.graph.shape(id).to_vec()
    }

    /// An f32 constant.
    pub fn constant(&mut self, value: f64, shape: &[usize]) -> NodeId {
        self.op(Op::constant(value, DType::F32, shape), &[])
    }

    pub fn scalar(&mut self, op: ScalarOp, operands: &[NodeId]) -> NodeId {
        self.op(Op::Scalar(op), operands)
    }

    pub fn add(&mut self, a: NodeId, b: NodeId) -> NodeId {
        self.scalar(ScalarOp::Add, &[a, b])
    }

    pub fn sub(&mut self, a: NodeId, b: NodeId) -> NodeId {
        self.scalar(ScalarOp::Sub, &[a, b])
    }

    pub fn mul(&mut self, a: NodeId, b: NodeId) -> NodeId {
        self.scalar(ScalarOp::Mul, &[a, b])
    }

    pub fn div(&mut self, a: NodeId, b: NodeId) -> NodeId {
        self.scalar(ScalarOp::Div, &[a, b])
    }

    /// `x · value`.
    pub fn scale(&mut self, x: NodeId, value: f64) -> NodeId {
        let shape = self.shape(x);
        let c = self.constant(value, &shape);
        self.mul(x, c)
    }

    /// `x` under another shape; `x` itself where the shape is its own.
    pub fn reshape(&mut self, x: NodeId, to: &[usize]) -> NodeId {
        if self.graph.shape(x) == to { x } else { self.op(Op::Reshape { to: to.to_vec() }, &[x]) }
    }

    /// `x` repeated along its dimensions of size 1; `x` itself where nothing is to repeat.
    pub fn broadcast(&mut self, x: NodeId, to: &[usize]) -> NodeId {
        if self.graph.shape(x) == to { x } else { self.op(Op::Broadcast { to: to.to_vec() }, &[x]) }
    }

    pub fn transpose(&mut self, x: NodeId, permutation: &[usize]) -> NodeId {
        self.op(Op::Transpose { permutation: permutation.to_vec() }, &[x])
    }

    /// The sum along `axes`, which stay with size 1; `x` itself without axes.
    pub fn sum(&mut self, x: NodeId, axes: &[usize]) -> NodeId {
        if axes.is_empty() {
            return x;
        }
        self.op(Op::Reduce { kind: ReduceKind::Sum, axes: axes.to_vec() }, &[x])
    }

    /// The mean along `axes`, which stay with size 1.
    pub fn mean(&mut self, x: NodeId, axes: &[usize]) -> NodeId {
        let count: usize = axes.iter().map(|&a| self.graph.shape(x)[a]).product();
        let sum = self.sum(x, axes);
        self.scale(sum, 1.0 / count as f64)
    }

    /// `a · b` over the last two dimensions.
    pub fn matmul(&mut self, a: NodeId, b: NodeId) -> NodeId {
        self.op(Op::MatMul, &[a, b])
    }

    /// A view of this builder as the scalar table's derivative rules see it: constants take `shape`.
    pub fn scalar_rules(&mut self, shape: Shape) -> ScalarRules<'_, 'g> {
        ScalarRules { builder: self, shape }
    }
}

/// See [`Builder::scalar_rules`].
pub struct ScalarRules<'b, 'g> {
    builder: &'b mut Builder<'g>,
    shape: Shape,
}

impl ScalarBuilder for ScalarRules<'_, '_> {
    type Value = NodeId;

    fn constant(&mut self, value: f64) -> NodeId {
        self.builder.constant(value, &self.shape)
    }

    fn apply(&mut self, op: ScalarOp, args: &[NodeId]) -> NodeId {
        self.builder.scalar(op, args)
    }
}

/// A new node beside `id`, named after it.
///
/// # Panics
/// As [`Builder`].
pub fn added(graph: &mut Graph, id: NodeId, op: Op, operands: &[NodeId], suffix: &str) -> NodeId {
    let name = format!("{}_{suffix}", graph.node(id).name);
    let origin = graph.node(id).origin.clone();
    Builder::new(graph, origin).named(&name, op, operands)
}
