//! Every kernel of a run judged by itself: what it wrote beside what the CPU computes from what the kernel read.
//!
//! A kernel's operands are read from the device just before it runs, and its results just after. The nodes between the two
//! are a small graph, which the CPU computes in f32, an operation at a time and without the fusion, layouts and choices
//! under test. So nothing adds up from kernel to kernel, and a difference is that kernel's own. Since each kernel starts from
//! what the device has, a write to another's place would pass as its operand: so every buffer must be read with the bits
//! with which it was last written, by a kernel or the caller, and so must be at the end what lives on.

mod report;
#[cfg(test)]
mod tests;

use super::conformance::plan_of_all;
use crate::exec::cpu::CpuDevice;
use crate::exec::{Device, ExecError, Executor, Moment, TensorRef};
use crate::ir::{Graph, NodeId, Op, Origin, Output};
use crate::kernel::body::{BufferId, Kernel};
use crate::kernel::choice::{Algorithm, Math};
use crate::kernel::schedule::{Buffer, BufferRole, Schedule, Storage};
use crate::kernel::target::{Fusion, Precision, Strategy, Target};
use crate::scalar::ScalarOp;
use crate::schedule::fuse::base;
use crate::tensor::{DType, Tensor};
use report::difference;
pub use report::{Compared, Difference, Report};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Why kernels could not be compared.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Device(#[from] ExecError),
    #[error("kernel `{kernel}`: {problem}")]
    Kernel { kernel: String, problem: String },
    #[error("{reader} reads buffer `{buffer}`, which is not what was last written there")]
    Changed { reader: String, buffer: String },
}

/// Runs an entry kernel by kernel on a device that [can](Executor::step_through), and gives every buffer that every kernel
/// wrote beside what `cpu` makes of the kernel's operands. `graph` is the one that the entry was scheduled from.
///
/// # Errors
/// When the device fails, or what a kernel computes does not follow from the buffers that it reads.
pub fn compare_kernels(
    executor: &mut dyn Executor,
    graph: &Graph,
    entry: usize,
    inputs: &[TensorRef],
    cpu: &CpuDevice,
) -> Result<Report, Failure> {
    let plan = executor.plan().entries[entry].clone();
    let mut watch = Watch::new(graph, &plan.schedule, *cpu);
    for (input, given) in plan.inputs.iter().zip(inputs) {
        watch.give(&input.name, *given);
    }
    let mut failure = None;
    let run = executor.step_through(entry, inputs, &mut |moment| {
        watch.look(moment).map_err(|error| {
            // The run ends with an error of its own type; this one says more.
            let ended = ExecError::Unsupported { device: String::new(), what: error.to_string() };
            failure = Some(error);
            ended
        })
    });
    match (failure, run) {
        (Some(failure), _) => Err(failure),
        (None, run) => Ok(run.map(|()| Report { entry: graph.name.clone(), compared: watch.compared })?),
    }
}

type Read<'r> = &'r mut dyn FnMut(BufferId) -> Result<Tensor, ExecError>;

/// What is known of a buffer between two kernels.
#[derive(Debug, Clone, Copy)]
struct Holds {
    /// Whose value it is; absent where nobody has written it.
    node: Option<NodeId>,
    /// A digest of its bits, once they are known.
    bits: Option<u64>,
}

/// A run that is looked at.
struct Watch<'r> {
    graph: &'r Graph,
    schedule: &'r Schedule,
    cpu: CpuDevice,
    holds: Vec<Holds>,
    /// What the kernel that is next, or was just run, has read.
    operands: BTreeMap<NodeId, Tensor>,
    compared: Vec<Compared>,
}

impl<'r> Watch<'r> {
    fn new(graph: &'r Graph, schedule: &'r Schedule, cpu: CpuDevice) -> Watch<'r> {
        let given = |buffer: &Buffer| match buffer.role {
            BufferRole::Input(_) | BufferRole::State(_) => graph.find(&buffer.name),
            BufferRole::Output | BufferRole::Temporary | BufferRole::Workspace => None,
        };
        let holds = schedule.buffers.iter().map(|buffer| Holds { node: given(buffer), bits: None }).collect();
        Watch { graph, schedule, cpu, holds, operands: BTreeMap::new(), compared: Vec::new() }
    }

    /// Notes an input, as kernels must find it.
    fn give(&mut self, input: &str, value: TensorRef) {
        for (buffer, holds) in self.schedule.buffers.iter().zip(&mut self.holds) {
            if matches!(&buffer.role, BufferRole::Input(name) if name == input) {
                holds.bits = Some(digest(value));
            }
        }
    }

    fn look(&mut self, Moment { kernel: index, is_done, read }: Moment) -> Result<(), Failure> {
        let kernel = &self.schedule.kernels[index];
        if index == 0 && !is_done {
            self.check(|role| matches!(role, BufferRole::State(_)), read)?;
        }
        if !is_done {
            return self.note(kernel, read);
        }
        self.compare(kernel, read)?;
        if index + 1 == self.schedule.kernels.len() {
            self.check(|role| matches!(role, BufferRole::State(_) | BufferRole::Output), read)?;
        }
        Ok(())
    }

    /// Reads a buffer, which must have the bits that it had before.
    fn read(&mut self, reader: &str, id: BufferId, read: Read) -> Result<Tensor, Failure> {
        let (tensor, known) = (read(id)?, &mut self.holds[id.index()].bits);
        let digest = digest(tensor.view());
        if *known.get_or_insert(digest) != digest {
            let buffer = self.schedule.buffers[id.index()].name.clone();
            return Err(Failure::Changed { reader: reader.to_string(), buffer });
        }
        Ok(tensor)
    }

    /// Reads what lives on, as the caller may.
    fn check(&mut self, is_such: impl Fn(&BufferRole) -> bool, read: Read) -> Result<(), Failure> {
        let lasting = (0..self.schedule.buffers.len()).filter(|&i| is_such(&self.schedule.buffers[i].role));
        for i in lasting {
            self.read("the caller", BufferId::new(i), read)?;
        }
        Ok(())
    }

    /// Keeps what a kernel is about to read.
    fn note(&mut self, kernel: &Kernel, read: Read) -> Result<(), Failure> {
        self.operands.clear();
        for &id in &kernel.reads {
            let tensor = self.read(&kernel.name, id, read)?;
            let unwritten =
                || problem(kernel, format!("it reads `{}` unwritten", self.schedule.buffers[id.index()].name));
            let node = self.holds[id.index()].node.ok_or_else(unwritten)?;
            self.operands.insert(node, tensor);
        }
        Ok(())
    }

    /// Compares what a kernel has written.
    fn compare(&mut self, kernel: &Kernel, read: Read) -> Result<(), Failure> {
        let mut written = Vec::new();
        for &id in &kernel.writes {
            let buffer = &self.schedule.buffers[id.index()];
            let node = self.result(buffer);
            let node = node.ok_or_else(|| problem(kernel, format!("no node has the value of `{}`", buffer.name)))?;
            let found = read(id)?;
            self.holds[id.index()] = Holds { node: Some(node), bits: Some(digest(found.view())) };
            written.push((buffer, node, found));
        }
        let nodes: BTreeSet<NodeId> = written.iter().map(|(_, node, _)| *node).collect();
        let expected = self.expected(&nodes).map_err(|what| problem(kernel, what))?;
        for (buffer, node, found) in written {
            let found = difference(&found, &expected[&node]);
            self.compared.push(Compared {
                kernel: kernel.name.clone(),
                math: math(kernel).map(Math::name),
                buffer: buffer.name.clone(),
                ty: buffer.type_text(),
                elements: buffer.elements(),
                found,
                allowed: self.allowed(kernel, buffer),
            });
        }
        Ok(())
    }

    /// The node whose value a kernel leaves in a buffer.
    fn result(&self, buffer: &Buffer) -> Option<NodeId> {
        let BufferRole::State(name) = &buffer.role else { return self.graph.find(&buffer.name) };
        let update = self.graph.updates.iter().find(|update| update.state == *name)?;
        Some(base(self.graph, update.node))
    }

    /// How near what a kernel leaves in a buffer must come, by what the kernel rounds.
    fn allowed(&self, kernel: &Kernel, buffer: &Buffer) -> Difference {
        if buffer.storage == Storage::Bits || buffer.dtype == DType::U32 {
            return Difference::NONE;
        }
        let nodes = || kernel.nodes.iter().filter_map(|name| self.graph.find(name)).map(|node| self.graph.op(node));
        let rounds = |op: &Op| nodes().any(|node| node == op);
        match () {
            () if rounds(&Op::Convert { to: DType::Bf16 }) => Difference::BF16,
            () if rounds(&Op::Scalar(ScalarOp::RoundTf32)) => Difference::TF32,
            () => Difference::F32,
        }
    }

    /// What the CPU makes of the operands.
    fn expected(&self, nodes: &BTreeSet<NodeId>) -> Result<BTreeMap<NodeId, Tensor>, String> {
        // What is copied needs no kernel.
        let copied = nodes.iter().filter_map(|node| Some((*node, self.operands.get(node)?.clone())));
        let mut expected: BTreeMap<NodeId, Tensor> = copied.collect();
        let computed: Vec<NodeId> = nodes.iter().copied().filter(|node| !expected.contains_key(node)).collect();
        if computed.is_empty() {
            return Ok(expected);
        }
        let graph = between(self.graph, &self.operands, &computed)?;
        let plan = plan_of_all(&[graph], Strategy::new(Fusion::Off, Target::Cpu, Precision::F32))?;
        let failed = |error: ExecError| format!("on the CPU: {error}");
        let mut executor = self.cpu.load(plan.clone()).map_err(failed)?;
        let by_name: BTreeMap<&str, &Tensor> =
            self.operands.iter().map(|(node, tensor)| (self.graph.node(*node).name.as_str(), tensor)).collect();
        let inputs: Vec<TensorRef> =
            plan.entries[0].inputs.iter().map(|input| by_name[input.name.as_str()].view()).collect();
        executor.run(0, &inputs).map_err(failed)?;
        for (i, node) in computed.into_iter().enumerate() {
            let mut tensor = Tensor::zeros(self.graph.ty(node).clone());
            executor.read_output(0, i, tensor.view_mut()).map_err(failed)?;
            expected.insert(node, tensor);
        }
        Ok(expected)
    }
}

fn problem(kernel: &Kernel, problem: String) -> Failure {
    Failure::Kernel { kernel: kernel.name.clone(), problem }
}

fn digest(tensor: TensorRef) -> u64 {
    let mut hasher = DefaultHasher::new();
    tensor.bytes().hash(&mut hasher);
    hasher.finish()
}

/// The graph from operands, which become inputs, to results.
fn between(graph: &Graph, operands: &BTreeMap<NodeId, Tensor>, results: &[NodeId]) -> Result<Graph, String> {
    let (mut needed, mut stack) = (BTreeSet::new(), results.to_vec());
    while let Some(id) = stack.pop() {
        if needed.insert(id) && !operands.contains_key(&id) {
            stack.extend(graph.operands(id));
        }
    }
    let mut part = Graph::new("kernel");
    let mut new = BTreeMap::new();
    for id in graph.topological().into_iter().filter(|id| needed.contains(id)) {
        let node = graph.node(id);
        let (op, from) = match (&node.op, operands.contains_key(&id)) {
            (_, true) => (Op::Input { name: node.name.clone(), ty: node.ty.clone() }, Vec::new()),
            (Op::Input { .. } | Op::State { .. }, false) => return Err(format!("it does not read `{}`", node.name)),
            (op, false) => (op.clone(), graph.operands(id).iter().map(|operand| new[operand]).collect()),
        };
        let added = part.add_exact(op, &from, &node.name, Some(&node.ty), Origin::default());
        new.insert(id, added.map_err(|error| format!("`{}`: {error}", node.name))?);
    }
    let output = |id: &NodeId| Output { name: graph.node(*id).name.clone(), node: new[id] };
    part.outputs = results.iter().map(output).collect();
    Ok(part)
}

fn math(kernel: &Kernel) -> Option<Math> {
    let Algorithm::ThreadBlocks(blocks) = &kernel.choice.algorithm else { return None };
    Some(blocks.math)
}
