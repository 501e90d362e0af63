//! What is written so far of an ONNX graph, and the values that later nodes find in it.

use super::proto::{Attribute, AttributeKind, Constant, Dimension, ElementType, Graph, Node, Size, TensorShape};
use super::proto::{TensorType, ValueInfo, ValueType};
use super::sizes::Dim;
use crate::tensor::{DType, Tensor, Type};
use std::collections::{HashMap, HashSet};

/// What the number of examples is called in shapes.
const EXAMPLES: &str = "N";

/// A tensor of the ONNX graph. Its dimensions are those of the node that it stands for or, where ONNX repeats elements
/// by itself, 1; a single number has none.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    pub name: String,
    pub dims: Vec<Dim>,
}

/// An ONNX graph that grows.
#[derive(Debug, Default)]
pub struct Writer {
    pub nodes: Vec<Node>,
    pub constants: Vec<Constant>,
    pub inputs: Vec<ValueInfo>,
    pub outputs: Vec<ValueInfo>,
    /// Where the number of examples is found: an input, and which dimension of it.
    pub counted: Option<(String, usize)>,
    /// Masks of 0 and 1 that were made from truth values, with these.
    truths: HashMap<String, String>,
    names: HashSet<String>,
    /// What the nodes that are written now say of where they come from.
    pub source: String,
}

impl Writer {
    /// Keeps a name for what is called that.
    pub fn reserve(&mut self, name: &str) {
        self.names.insert(name.into());
    }

    /// A name that nothing has: this, or this with a number.
    pub fn unique(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_string();
        let mut number = 1;
        while !self.names.insert(name.clone()) {
            name = format!("{wanted}.{number}");
            number += 1;
        }
        name
    }

    /// Writes an operation with one result of exactly this name.
    pub fn exactly(&mut self, op: &str, inputs: &[&str], attributes: Vec<Attribute>, name: &str) -> String {
        self.nodes.push(Node {
            input: inputs.iter().map(ToString::to_string).collect(),
            output: vec![name.into()],
            name: name.into(),
            op_type: op.into(),
            attribute: attributes,
            doc_string: self.source.clone(),
        });
        name.into()
    }

    /// Writes an operation that is part of what `of` says, and returns its result's name.
    pub fn part(&mut self, op: &str, inputs: &[&str], attributes: Vec<Attribute>, of: &str) -> String {
        let name = self.unique(&format!("{of}/{}", op.to_lowercase()));
        self.exactly(op, inputs, attributes, &name)
    }

    /// A conversion to another element type.
    pub fn cast(&mut self, input: &str, to: ElementType, name: &str) -> String {
        self.exactly("Cast", &[input], vec![int("to", to as i64)], name)
    }

    /// A constant tensor.
    pub fn constant(&mut self, name: &str, dims: &[usize], element: ElementType, bytes: Vec<u8>) -> String {
        self.constants.push(Constant {
            dims: dims.iter().map(|&d| d as i64).collect(),
            data_type: Some(element as i32),
            name: name.into(),
            raw_data: Some(bytes),
        });
        name.into()
    }

    /// A tensor of the program's state, under that shape.
    pub fn weights(&mut self, name: &str, dims: &[usize], tensor: &Tensor) -> String {
        let bytes = match tensor.values::<u32>() {
            Some(values) => values.iter().flat_map(|&v| i64::from(v).to_le_bytes()).collect(),
            None => tensor.view().to_le_bytes().into_owned(),
        };
        self.constant(name, dims, element(tensor.dtype()), bytes)
    }

    /// Whole numbers in a row, as shapes and axes are given.
    pub fn integers(&mut self, values: &[i64], of: &str, what: &str) -> String {
        let name = self.unique(&format!("{of}/{what}"));
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.constant(&name, &[values.len()], ElementType::Int64, bytes)
    }

    /// Axes in a row.
    pub fn axes(&mut self, axes: &[usize], of: &str) -> String {
        let axes: Vec<i64> = axes.iter().map(|&axis| axis as i64).collect();
        self.integers(&axes, of, "axes")
    }

    /// A single number; the same number is written once. No node's name has a colon.
    pub fn number(&mut self, value: f64, dtype: DType) -> Value {
        let (name, bytes) = match dtype {
            DType::F32 | DType::Bf16 => (format!("constant:{:?}", value as f32), (value as f32).to_le_bytes().to_vec()),
            DType::U32 => (format!("integer:{value}"), (value as i64).to_le_bytes().to_vec()),
        };
        let is_same = |c: &&Constant| c.name == name && c.raw_data.as_ref() == Some(&bytes);
        if self.constants.iter().find(is_same).is_none() {
            let element = if dtype == DType::U32 { ElementType::Int64 } else { ElementType::Float };
            self.constant(&name, &[], element, bytes);
        }
        Value { name, dims: Vec::new() }
    }

    /// A size as a tensor of one number; `None` where no input has the number of examples.
    pub fn size(&mut self, dim: Dim, of: &str) -> Option<String> {
        if let Some(value) = dim.value() {
            return Some(self.integers(&[value], of, "size"));
        }
        let (input, axis) = self.counted.clone()?;
        let axis = axis as i64;
        let mut size = self.part("Shape", &[&input], vec![int("start", axis), int("end", axis + 1)], of);
        if dim.per_example != 1 {
            let factor = self.integers(&[dim.per_example], of, "factor");
            size = self.part("Mul", &[&size, &factor], Vec::new(), of);
        }
        if dim.rest != 0 {
            let rest = self.integers(&[dim.rest], of, "rest");
            size = self.part("Add", &[&size, &rest], Vec::new(), of);
        }
        Some(size)
    }

    /// Sizes, as a tensor of them; `None` as for [`Writer::size`].
    pub fn sizes(&mut self, dims: &[Dim], of: &str) -> Option<String> {
        if let Some(values) = dims.iter().map(|d| d.value()).collect::<Option<Vec<_>>>() {
            return Some(self.integers(&values, of, "shape"));
        }
        let parts = dims.iter().map(|&d| self.size(d, of)).collect::<Option<Vec<_>>>()?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        Some(self.part("Concat", &parts, vec![int("axis", 0)], of))
    }

    /// A value with all its elements, as those operations need it that repeat none by themselves.
    pub fn whole(&mut self, value: &Value, dims: &[Dim], of: &str) -> Option<String> {
        if value.dims == dims {
            return Some(value.name.clone());
        }
        let shape = self.sizes(dims, of)?;
        Some(self.part("Expand", &[&value.name, &shape], Vec::new(), of))
    }

    /// Writes a comparison as a mask of 0 and 1.
    pub fn mask(&mut self, op: &str, inputs: &[&str], name: &str) -> String {
        let truth = self.part(op, inputs, Vec::new(), name);
        self.truths.insert(name.into(), truth.clone());
        self.cast(&truth, ElementType::Float, name)
    }

    /// Where a mask, or any number, is not 0, as truth values.
    pub fn truth(&mut self, mask: &str, of: &str) -> String {
        if let Some(truth) = self.truths.get(mask) {
            return truth.clone();
        }
        let name = self.unique(&format!("{of}/truth"));
        self.cast(mask, ElementType::Bool, &name)
    }

    /// What is given to the model, or what it gives.
    pub fn info(name: &str, dtype: DType, dims: &[Dim], meaning: &str) -> ValueInfo {
        let size = |dim: &Dim| match (dim.value(), dim.per_example, dim.rest) {
            (Some(value), ..) => Size::Value(value),
            (None, 1, 0) => Size::Name(EXAMPLES.into()),
            (None, per, 0) => Size::Name(format!("{per}*{EXAMPLES}")),
            (None, per, rest) => Size::Name(format!("{per}*{EXAMPLES}{rest:+}")),
        };
        let dim = dims.iter().map(|dim| Dimension { size: Some(size(dim)) }).collect();
        let ty = TensorType { elem_type: Some(element(dtype) as i32), shape: Some(TensorShape { dim }) };
        ValueInfo { name: name.into(), ty: Some(ValueType { tensor_type: Some(ty) }), doc_string: meaning.into() }
    }

    /// The graph, without what no output depends on.
    pub fn finish(mut self, name: &str, doc_string: String) -> Graph {
        let mut used: HashSet<String> = self.outputs.iter().map(|o| o.name.clone()).collect();
        let mut kept = Vec::new();
        while let Some(node) = self.nodes.pop() {
            if node.output.iter().any(|o| used.contains(o)) {
                used.extend(node.input.iter().cloned());
                kept.push(node);
            }
        }
        kept.reverse();
        self.constants.retain(|c| used.contains(&c.name));
        Graph {
            node: kept,
            name: name.into(),
            initializer: self.constants,
            doc_string,
            input: self.inputs,
            output: self.outputs,
        }
    }
}

/// An attribute of one whole number.
pub fn int(name: &str, value: i64) -> Attribute {
    let kind = Some(AttributeKind::Int as i32);
    Attribute { name: name.into(), i: Some(value), ints: Vec::new(), kind }
}

/// An attribute of whole numbers.
pub fn ints(name: &str, values: impl IntoIterator<Item = usize>) -> Attribute {
    let ints = values.into_iter().map(|v| v as i64).collect();
    Attribute { name: name.into(), i: None, ints, kind: Some(AttributeKind::Ints as i32) }
}

/// What elements are in ONNX: whole numbers are its usual int64.
pub fn element(dtype: DType) -> ElementType {
    match dtype {
        DType::F32 => ElementType::Float,
        DType::U32 => ElementType::Int64,
        DType::Bf16 => ElementType::Bfloat16,
    }
}

/// A type with its sizes as they are.
pub fn fixed(ty: &Type) -> Vec<Dim> {
    ty.shape.iter().map(|&size| Dim::fixed(size)).collect()
}
