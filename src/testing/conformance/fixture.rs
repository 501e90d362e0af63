//! A graph under construction, with values for its leaves.

use super::case::{Agreement, Case};
use crate::ir::{Bindings, Builder, Graph, NodeId, Op, Origin, Output, Update, Value};
use crate::scalar::philox;
use crate::tensor::{DType, Type};

pub struct Fixture {
    pub graph: Graph,
    pub given: Bindings<f32>,
}

/// Numbers in [-1, 1).
pub fn noise(shape: &[usize], seed: u32) -> Value<f32> {
    let elements = 0..shape.iter().product::<usize>() as u64;
    let values = elements.map(|i| philox::uniform([seed, 7], 0, 1, i) as f32 * 2.0 - 1.0).collect();
    Value::real(shape, values)
}

impl Fixture {
    pub fn new() -> Fixture {
        Fixture { graph: Graph::new("g"), given: Bindings::new() }
    }

    pub fn leaf(&mut self, op: Op, name: &str) -> NodeId {
        self.graph.add(op, &[], name, Origin::default()).expect("a leaf takes no operands")
    }

    /// An f32 input of noise.
    pub fn input(&mut self, name: &str, shape: &[usize]) -> NodeId {
        self.input_of(name, DType::F32, noise(shape, self.given.len() as u32))
    }

    /// An input of given values.
    pub fn input_of(&mut self, name: &str, dtype: DType, value: Value<f32>) -> NodeId {
        let op = Op::Input { name: name.into(), ty: Type::new(dtype, value.shape.clone()) };
        self.given.insert(name.into(), value);
        self.leaf(op, name)
    }

    /// An f32 state tensor that starts as noise.
    pub fn state(&mut self, name: &str, shape: &[usize]) -> NodeId {
        self.state_of(name, DType::F32, noise(shape, 100 + self.given.len() as u32))
    }

    pub fn state_of(&mut self, name: &str, dtype: DType, value: Value<f32>) -> NodeId {
        let op = Op::State { name: name.into(), ty: Type::new(dtype, value.shape.clone()) };
        self.given.insert(name.into(), value);
        self.leaf(op, name)
    }

    pub fn builder(&mut self) -> Builder<'_> {
        Builder::new(&mut self.graph, Origin::default())
    }

    pub fn op(&mut self, op: Op, operands: &[NodeId]) -> NodeId {
        self.builder().op(op, operands)
    }

    pub fn output(&mut self, name: &str, node: NodeId) {
        self.graph.outputs.push(Output { name: name.into(), node });
    }

    pub fn update(&mut self, state: &str, node: NodeId) {
        self.graph.updates.push(Update { state: state.into(), node });
    }

    pub fn case(self, name: impl Into<String>, agreement: Agreement) -> Case {
        Case::of(name, self.graph, self.given, agreement)
    }
}
