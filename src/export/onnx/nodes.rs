//! Every primitive in ONNX.

use super::proto::{Attribute, ValueInfo};
use super::sizes::{Dim, Family, Number};
use super::writer::{Value, Writer, element, fixed, int, ints};
use crate::ir::{Graph, NodeId, Op, ReduceKind, Window};
use crate::scalar::ScalarOp;
use crate::tensor::{DType, Tensor};
use std::collections::{BTreeMap, HashMap};

/// Why a node was not written.
#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    /// ONNX, or this writer, cannot say it; with the reason in words.
    CannotSay { node: NodeId, why: String },
    /// It can be said for a fixed number of examples only.
    Varies { node: String },
}

/// A graph being said in ONNX.
pub struct Export<'a> {
    family: &'a Family,
    graph: &'a Graph,
    weights: &'a BTreeMap<String, Tensor>,
    /// What inputs mean, by name.
    meanings: &'a BTreeMap<String, String>,
    pub writer: Writer,
    values: HashMap<NodeId, Value>,
    shapes: HashMap<NodeId, Vec<Dim>>,
}

/// Says a graph in ONNX. `source` tells where a node was declared, in words.
///
/// # Errors
/// When a node cannot be said.
pub fn export(
    family: &Family,
    weights: &BTreeMap<String, Tensor>,
    meanings: &BTreeMap<String, String>,
    source: &dyn Fn(NodeId) -> String,
) -> Result<Writer, Refusal> {
    let graph = family.graph();
    let (values, shapes) = (HashMap::new(), HashMap::new());
    let mut export = Export { family, graph, weights, meanings, writer: Writer::default(), values, shapes };
    graph.outputs.iter().for_each(|output| export.writer.reserve(&output.name));
    for (place, &id) in family.order().iter().enumerate() {
        let varies = || Refusal::Varies { node: graph.node(id).name.clone() };
        let shape = family.shape(place).ok_or_else(varies)?;
        if let Op::Input { name, .. } = graph.op(id) {
            export.writer.reserve(name);
            let axis = shape.iter().position(|&d| d == Dim { per_example: 1, rest: 0 });
            if let Some(axis) = axis.filter(|_| export.writer.counted.is_none()) {
                export.writer.counted = Some((name.clone(), axis));
            }
        }
        export.shapes.insert(id, shape);
    }
    for (place, &id) in family.order().iter().enumerate() {
        export.writer.source = source(id);
        let value = export.node(place, id)?;
        export.values.insert(id, value);
    }
    export.outputs()?;
    Ok(export.writer)
}

impl Export<'_> {
    fn varies(&self, id: NodeId) -> Refusal {
        Refusal::Varies { node: self.graph.node(id).name.clone() }
    }

    fn cannot(&self, id: NodeId, why: &str) -> Refusal {
        Refusal::CannotSay { node: id, why: why.into() }
    }

    /// A node's name, unless an output of another node is called that.
    fn name(&mut self, id: NodeId) -> String {
        let name = &self.graph.node(id).name;
        if self.graph.outputs.iter().any(|o| o.name == *name && o.node == id) {
            return name.clone();
        }
        self.writer.unique(name)
    }

    /// The operand of a node with all its elements.
    fn whole(&mut self, id: NodeId, position: usize, name: &str) -> Result<String, Refusal> {
        let operand = self.graph.operands(id)[position];
        let (value, dims) = (self.values[&operand].clone(), self.shapes[&operand].clone());
        self.writer.whole(&value, &dims, name).ok_or_else(|| self.varies(id))
    }

    fn node(&mut self, place: usize, id: NodeId) -> Result<Value, Refusal> {
        let graph = self.graph;
        let (operands, dims, dtype) = (graph.operands(id), self.shapes[&id].clone(), graph.ty(id).dtype);
        // What has no node of its own in ONNX.
        match graph.op(id) {
            Op::Input { name, .. } => {
                let meaning = self.meanings.get(name).map_or("", String::as_str);
                let info: ValueInfo = Writer::info(name, dtype, &dims, meaning);
                if !self.writer.inputs.contains(&info) {
                    self.writer.inputs.push(info);
                }
                return Ok(Value { name: name.clone(), dims });
            }
            Op::Constant { .. } => return self.number(place, id),
            Op::Detach => return Ok(self.values[&operands[0]].clone()),
            // ONNX's operations on elements repeat dimensions of size 1 by themselves.
            Op::Broadcast { .. } => return Ok(self.values[&operands[0]].clone()),
            Op::Scalar(ScalarOp::Add) => {
                if let Some(value) = self.biased(id, &operands) {
                    return Ok(value);
                }
            }
            Op::Reshape { .. } if self.values[&operands[0]].dims.is_empty() => {
                return Ok(self.values[&operands[0]].clone());
            }
            _ => {}
        }
        let name = self.name(id);
        let is_same = self.family.is_same(place, |graph, id| graph.op(id).clone());
        let mut whole = dims.clone();
        let written = match graph.op(id) {
            Op::Input { .. } | Op::Constant { .. } | Op::Detach | Op::Broadcast { .. } => {
                unreachable!("returned above")
            }
            Op::State { name: state, .. } => match self.weights.get(state) {
                Some(tensor) if fixed(tensor.ty()) == dims => self.writer.weights(&name, tensor.shape(), tensor),
                Some(_) => return Err(self.varies(id)),
                None => return Err(self.cannot(id, &format!("the run has no state `{state}`"))),
            },
            Op::Iota { axis, .. } => {
                whole = vec![Dim::fixed(1); dims.len()];
                whole[*axis] = dims[*axis];
                self.iota(id, dims[*axis], &whole, *axis, &name)?
            }
            Op::Scalar(op) => {
                let values: Vec<Value> = operands.iter().map(|o| self.values[o].clone()).collect();
                whole = repeated(&values);
                if let Some(relu) = self.relu(id, *op, &operands, &values, &name) {
                    return Ok(Value { name: relu, dims: whole });
                }
                let names: Vec<&str> = values.iter().map(|v| v.name.as_str()).collect();
                self.writer.scalar(*op, &names, &name).map_err(|why| self.cannot(id, why))?
            }
            Op::Reshape { .. } => self.reshape(id, &operands, &dims, &name)?,
            Op::Transpose { permutation } => {
                let value = self.values[&operands[0]].clone();
                if value.dims.is_empty() {
                    return Ok(value);
                }
                whole = permutation.iter().map(|&p| value.dims[p]).collect();
                self.writer.exactly("Transpose", &[&value.name], vec![ints("perm", permutation.iter().copied())], &name)
            }
            Op::Pad { low, high } => {
                if !is_same {
                    return Err(self.varies(id));
                }
                let x = self.whole(id, 0, &name)?;
                let pads: Vec<i64> = low.iter().chain(high).map(|&p| p as i64).collect();
                let pads = self.writer.integers(&pads, &name, "pads");
                self.writer.exactly("Pad", &[&x, &pads], Vec::new(), &name)
            }
            Op::Slice { .. } => self.slice(place, id, &name)?,
            Op::Concat { axis } => {
                let parts =
                    (0..operands.len()).map(|i| self.whole(id, i, &name)).collect::<Result<Vec<_>, Refusal>>()?;
                let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
                self.writer.exactly("Concat", &parts, vec![int("axis", *axis as i64)], &name)
            }
            Op::Reverse { axes } => {
                let x = self.whole(id, 0, &name)?;
                let row = |value: i64| vec![value; axes.len()];
                let starts = self.writer.integers(&row(-1), &name, "starts");
                // Beyond the first element, so that it is taken too.
                let ends = self.writer.integers(&row(i64::MIN), &name, "ends");
                let along = self.writer.axes(axes, &name);
                let steps = self.writer.integers(&row(-1), &name, "steps");
                self.writer.exactly("Slice", &[&x, &starts, &ends, &along, &steps], Vec::new(), &name)
            }
            Op::Convert { to } => {
                let value = self.values[&operands[0]].clone();
                whole = value.dims;
                self.writer.cast(&value.name, element(*to), &name)
            }
            Op::Reduce { kind, axes } => {
                let x = self.whole(id, 0, &name)?;
                let along = self.writer.axes(axes, &name);
                match kind {
                    ReduceKind::Sum => self.writer.exactly("ReduceSum", &[&x, &along], Vec::new(), &name),
                    ReduceKind::Max => self.writer.exactly("ReduceMax", &[&x, &along], Vec::new(), &name),
                    ReduceKind::Deviations => {
                        let mean = self.writer.part("ReduceMean", &[&x, &along], Vec::new(), &name);
                        let centred = self.writer.part("Sub", &[&x, &mean], Vec::new(), &name);
                        self.writer.exactly("ReduceSumSquare", &[&centred, &along], Vec::new(), &name)
                    }
                }
            }
            Op::MatMul => {
                let (a, b) = (self.whole(id, 0, &name)?, self.whole(id, 1, &name)?);
                self.writer.exactly("MatMul", &[&a, &b], Vec::new(), &name)
            }
            Op::Conv2d { window } => {
                let (x, filter) = (self.whole(id, 0, &name)?, self.whole(id, 1, &name)?);
                self.writer.exactly("Conv", &[&x, &filter], strides_and_pads(window), &name)
            }
            Op::Conv2dInputGrad { window, size } => {
                if !is_same {
                    return Err(self.varies(id));
                }
                let (images, kernel) = (graph.shape(operands[0]), graph.shape(operands[1]));
                let mut attributes = strides_and_pads(window);
                // Rows and columns that the strides do not reach.
                let extra = [0, 1].map(|d| {
                    let reached = (images[d + 2] - 1) * window.stride[d] + kernel[d + 2];
                    (size[d] + 2 * window.pad[d]).saturating_sub(reached)
                });
                if extra != [0, 0] {
                    attributes.push(ints("output_padding", extra));
                }
                let (x, filter) = (self.whole(id, 0, &name)?, self.whole(id, 1, &name)?);
                self.writer.exactly("ConvTranspose", &[&x, &filter], attributes, &name)
            }
            Op::Conv2dFilterGrad { .. } => {
                return Err(self.cannot(id, "ONNX has no gradient of a convolution in its filter"));
            }
            Op::Random { .. } => return Err(self.cannot(id, "ONNX cannot draw the same random numbers")),
            Op::Winograd(_) | Op::Im2col { .. } | Op::Col2im { .. } => {
                return Err(self.cannot(id, "it belongs to a way to compute convolutions"));
            }
            Op::Gradient => return Err(self.cannot(id, "it was not differentiated")),
        };
        Ok(Value { name: written, dims: whole })
    }

    /// A constant, or one that is divided by the number of examples.
    fn number(&mut self, place: usize, id: NodeId) -> Result<Value, Refusal> {
        let dtype = self.graph.ty(id).dtype;
        let of = |graph: &Graph, id| match graph.op(id) {
            Op::Constant { value, .. } => value.0,
            _ => f64::NAN,
        };
        let number = self.family.number(place, of).ok_or_else(|| self.varies(id))?;
        let value = match number {
            Number::Fixed(value) => self.writer.number(value, dtype),
            Number::PerExample(_) if dtype != DType::F32 => return Err(self.varies(id)),
            Number::PerExample(total) => {
                let name = self.name(id);
                let count = self.count(id, &name)?;
                let cast = self.writer.unique(&format!("{name}/examples"));
                let count = self.writer.cast(&count, element(DType::F32), &cast);
                let total = self.writer.number(total, dtype).name;
                Value { name: self.writer.exactly("Div", &[&total, &count], Vec::new(), &name), dims: Vec::new() }
            }
        };
        if dtype != DType::Bf16 {
            return Ok(value);
        }
        let name = self.name(id);
        Ok(Value { name: self.writer.cast(&value.name, element(dtype), &name), dims: Vec::new() })
    }

    /// The number of examples as a single number.
    fn count(&mut self, id: NodeId, name: &str) -> Result<String, Refusal> {
        self.scalar_size(id, Dim { per_example: 1, rest: 0 }, name)
    }

    fn scalar_size(&mut self, id: NodeId, dim: Dim, name: &str) -> Result<String, Refusal> {
        let size = self.writer.size(dim, name).ok_or_else(|| self.varies(id))?;
        Ok(self.writer.part("Squeeze", &[&size], Vec::new(), name))
    }

    /// A row of indices along an axis, with 1 for the other dimensions.
    fn iota(&mut self, id: NodeId, size: Dim, dims: &[Dim], axis: usize, name: &str) -> Result<String, Refusal> {
        let dtype = self.graph.ty(id).dtype;
        let target = element(dtype);
        if let (Some(size), true) = (size.value(), dtype != DType::Bf16) {
            let bytes = match dtype {
                DType::U32 => (0..size).flat_map(i64::to_le_bytes).collect(),
                DType::F32 | DType::Bf16 => (0..size).flat_map(|i| (i as f32).to_le_bytes()).collect(),
            };
            let mut shape = vec![1; dims.len()];
            shape[axis] = size as usize;
            return Ok(self.writer.constant(name, &shape, target, bytes));
        }
        let limit = self.scalar_size(id, size, name)?;
        let (zero, one) = (self.writer.number(0.0, DType::U32).name, self.writer.number(1.0, DType::U32).name);
        let range = self.writer.part("Range", &[&zero, &limit, &one], Vec::new(), name);
        let shape: Vec<i64> = (0..dims.len()).map(|d| if d == axis { -1 } else { 1 }).collect();
        let shape = self.writer.integers(&shape, name, "shape");
        let row = self.writer.part("Reshape", &[&range, &shape], Vec::new(), name);
        Ok(self.writer.cast(&row, target, name))
    }

    fn reshape(&mut self, id: NodeId, operands: &[NodeId], dims: &[Dim], name: &str) -> Result<String, Refusal> {
        if let Op::State { name: state, .. } = self.graph.op(operands[0])
            && let Some(tensor) = self.weights.get(state)
        {
            // Weights are stored as they are used.
            return Ok(self.writer.weights(name, self.graph.shape(id), tensor));
        }
        let x = self.whole(id, 0, name)?;
        let shape = if dims.iter().filter(|d| d.value().is_none()).count() == 1 {
            let sizes: Vec<i64> = dims.iter().map(|d| d.value().unwrap_or(-1)).collect();
            self.writer.integers(&sizes, name, "shape")
        } else {
            self.writer.sizes(dims, name).ok_or_else(|| self.varies(id))?
        };
        Ok(self.writer.exactly("Reshape", &[&x, &shape], Vec::new(), name))
    }

    fn slice(&mut self, place: usize, id: NodeId, name: &str) -> Result<String, Refusal> {
        let bounds = |is_end: bool| {
            self.family.dims(place, |graph, id| match graph.op(id) {
                Op::Slice { start, end } => if is_end { end } else { start }.clone(),
                _ => Vec::new(),
            })
        };
        let (Some(start), Some(end)) = (bounds(false), bounds(true)) else { return Err(self.varies(id)) };
        let x = self.whole(id, 0, name)?;
        let sizes = self.shapes[&self.graph.operands(id)[0]].clone();
        let axes: Vec<usize> = (0..sizes.len()).filter(|&d| start[d] != Dim::fixed(0) || end[d] != sizes[d]).collect();
        let of = |bounds: &[Dim]| axes.iter().map(|&a| bounds[a]).collect::<Vec<_>>();
        if axes.is_empty() {
            return Ok(self.writer.exactly("Identity", &[&x], Vec::new(), name));
        }
        let starts = self.writer.sizes(&of(&start), name).ok_or_else(|| self.varies(id))?;
        let ends = self.writer.sizes(&of(&end), name).ok_or_else(|| self.varies(id))?;
        let along = self.writer.axes(&axes, name);
        Ok(self.writer.exactly("Slice", &[&x, &starts, &ends, &along], Vec::new(), name))
    }

    /// Makes a bias part of the convolution or product that it is added to, where nothing else uses that.
    fn biased(&mut self, id: NodeId, operands: &[NodeId]) -> Option<Value> {
        let graph = self.graph;
        let (sum, bias) = [(0, 1), (1, 0)].into_iter().find_map(|(a, b)| {
            let takes_bias = match graph.op(operands[a]) {
                Op::Conv2d { .. } | Op::Conv2dInputGrad { .. } => true,
                Op::MatMul => graph.ty(operands[a]).rank() == 2,
                _ => false,
            };
            let is_alone = graph.use_count(operands[a]) == 1 && !graph.is_result(operands[a]);
            if !takes_bias || !is_alone {
                return None;
            }
            Some((operands[a], self.bias(operands[b], graph.shape(operands[a]))?))
        })?;
        let name = self.name(id);
        let (sum, bias) = (self.values[&sum].name.clone(), self.values[&bias].name.clone());
        let source = self.writer.source.clone();
        let node = self.writer.nodes.iter_mut().rev().find(|n| n.output[0] == sum)?;
        if node.op_type == "MatMul" {
            node.op_type = "Gemm".into();
        }
        node.input.push(bias);
        node.output = vec![name.clone()];
        node.name.clone_from(&name);
        node.doc_string = source;
        Some(Value { name, dims: self.shapes[&id].clone() })
    }

    /// The state tensor, of one element for each channel, that a node repeats for images of that shape.
    fn bias(&self, id: NodeId, of: &[usize]) -> Option<NodeId> {
        let graph = self.graph;
        let Op::Broadcast { .. } = graph.op(id) else { return None };
        let row = *graph.operands(id).first()?;
        let Op::Reshape { to } = graph.op(row) else { return None };
        let bias = *graph.operands(row).first()?;
        let is_row = to.iter().enumerate().all(|(d, &size)| size == if d == 1 { of[1] } else { 1 });
        let is_state = matches!(graph.op(bias), Op::State { .. }) && *graph.shape(bias) == [of[1]];
        (is_row && is_state && to.len() == of.len() && graph.ty(bias).dtype == DType::F32).then_some(bias)
    }

    /// The greater of a value and 0 has a name of its own.
    fn relu(&mut self, id: NodeId, op: ScalarOp, operands: &[NodeId], values: &[Value], name: &str) -> Option<String> {
        let is_zero = |id: NodeId| matches!(self.graph.op(id), Op::Constant { value, .. } if value.0 == 0.0);
        if op != ScalarOp::Max || self.graph.ty(id).dtype != DType::F32 || !is_zero(operands[1]) {
            return None;
        }
        Some(self.writer.exactly("Relu", &[&values[0].name], Vec::new(), name))
    }

    /// The graph's results, each under its name.
    fn outputs(&mut self) -> Result<(), Refusal> {
        let graph = self.graph;
        for output in &graph.outputs {
            let (value, dims) = (self.values[&output.node].clone(), self.shapes[&output.node].clone());
            let whole = self.writer.whole(&value, &dims, &output.name).ok_or_else(|| self.varies(output.node))?;
            if whole != output.name {
                self.writer.exactly("Identity", &[&whole], Vec::new(), &output.name);
            }
            let info = Writer::info(&output.name, graph.ty(output.node).dtype, &dims, "");
            self.writer.outputs.push(info);
        }
        Ok(())
    }
}

/// The dimensions that ONNX gives the result of an operation on elements.
fn repeated(values: &[Value]) -> Vec<Dim> {
    let one = Dim::fixed(1);
    let rank = values.iter().map(|v| v.dims.len()).max().unwrap_or(0);
    let along = |d: usize| values.iter().filter_map(|v| v.dims.get(d).copied()).find(|&d| d != one);
    (0..rank).map(|d| along(d).unwrap_or(one)).collect()
}

fn strides_and_pads(window: &Window) -> Vec<Attribute> {
    let [height, width] = window.pad;
    vec![ints("strides", window.stride), ints("pads", [height, width, height, width])]
}
