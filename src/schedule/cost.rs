//! What work costs: floating-point operations, bytes, and the time that a machine needs for them.

use super::Buffer;
use super::kernel::{Body, Expr, Kernel, Nest};
use super::view::kept_shape;
use crate::ir::{DType, Graph, NodeId, Op};

/// The ceilings of a machine, for the roofline model (Williams, Waterman & Patterson, "Roofline: an insightful visual
/// performance model for multicore architectures", CACM 52(4), 2009).
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Machine {
    pub flops_per_second: f64,
    /// To and from main memory.
    pub bytes_per_second: f64,
    /// Seconds that a launch takes beside its work.
    pub launch_seconds: f64,
}

impl Machine {
    /// Two cores with 256-bit vectors on one memory channel: what predictions are made for where nothing was
    /// measured, so that they are the same everywhere.
    pub const NOMINAL: Machine = Machine { flops_per_second: 150e9, bytes_per_second: 20e9, launch_seconds: 5e-6 };

    /// The time for so much work at the lower of the two ceilings.
    pub fn seconds(&self, flops: u64, bytes: u64) -> f64 {
        self.launch_seconds + (flops as f64 / self.flops_per_second).max(bytes as f64 / self.bytes_per_second)
    }

    /// The time that a kernel is predicted to take.
    pub fn kernel_seconds(&self, kernel: &Kernel, buffers: &[Buffer]) -> f64 {
        self.seconds(flops(kernel), bytes_moved(kernel, buffers))
    }

    /// Operations a byte at which the two ceilings meet.
    pub fn ridge(&self) -> f64 {
        self.flops_per_second / self.bytes_per_second
    }
}

/// Floating-point operations of one launch: two for each term of a contraction's sums, one for each
/// scalar operation and reduced element.
pub fn flops(kernel: &Kernel) -> u64 {
    let scalar = |exprs: &[Expr]| exprs.iter().filter(|e| matches!(e, Expr::Scalar { .. })).count() as u64;
    let points = |shape: &[usize]| shape.iter().product::<usize>() as u64;
    match &kernel.body {
        Body::Contraction(c) => c.kind.flops() + scalar(&c.exprs) * points(&c.space),
        Body::Nests(nests) => nests.iter().map(nest_flops).sum(),
    }
}

/// Of a loop nest: what is needed over the full space at each of its points, the rest once for each kept point.
fn nest_flops(nest: &Nest) -> u64 {
    let mut full = vec![false; nest.exprs.len()];
    for pass in &nest.passes {
        let roots = pass.reductions.iter().map(|r| r.value).chain(pass.stores.iter().map(|s| s.value));
        roots.for_each(|root| full[root] = true);
    }
    // Operands come before their users.
    for id in (0..nest.exprs.len()).rev() {
        if let (true, Expr::Scalar { args, .. }) = (full[id], &nest.exprs[id]) {
            args.iter().for_each(|&arg| full[arg] = true);
        }
    }
    let points: u64 = nest.space.iter().product::<usize>() as u64;
    let kept: u64 = kept_shape(&nest.space, &nest.reduced).iter().product::<usize>() as u64;
    let scalars = nest.exprs.iter().zip(&full).filter(|(expr, _)| matches!(expr, Expr::Scalar { .. }));
    let work: u64 = scalars.map(|(_, &full)| if full { points } else { kept }).sum();
    work + nest.passes.iter().map(|p| p.reductions.len() as u64).sum::<u64>() * points
}

/// Bytes that one launch reads and writes, each buffer once.
pub fn bytes_moved(kernel: &Kernel, buffers: &[Buffer]) -> u64 {
    kernel.reads.iter().chain(&kernel.writes).map(|&b| buffers[b].bytes() as u64).sum()
}

/// Floating-point operations of one node by itself, counted as [`flops`] does.
pub fn node_flops(graph: &Graph, id: NodeId) -> u64 {
    let operands = graph.operands(id);
    let size = |dims: &[usize]| dims.iter().product::<usize>() as u64;
    let shape = |operand: usize| operands.get(operand).map_or(&[][..], |&o| graph.shape(o));
    let own = size(graph.shape(id));
    match graph.op(id) {
        Op::Scalar(_) | Op::Convert { to: DType::Bf16 } => own,
        Op::Convert { to: DType::F32 | DType::U32 } => 0,
        Op::Reduce { .. } => size(shape(0)),
        Op::MatMul => 2 * own * shape(0).last().map_or(0, |&k| k as u64),
        // Every element of the convolution's output is a sum over the filter of one output channel.
        Op::Conv2d { .. } => 2 * own * size(shape(1).get(1..).unwrap_or_default()),
        Op::Conv2dInputGrad { .. } => 2 * size(shape(0)) * size(shape(1).get(1..).unwrap_or_default()),
        Op::Conv2dFilterGrad { .. } => 2 * size(shape(1)) * size(graph.shape(id).get(1..).unwrap_or_default()),
        Op::Input { .. }
        | Op::State { .. }
        | Op::Constant { .. }
        | Op::Iota { .. }
        | Op::Random { .. }
        | Op::Reshape { .. }
        | Op::Transpose { .. }
        | Op::Broadcast { .. }
        | Op::Pad { .. }
        | Op::Slice { .. }
        | Op::Concat { .. }
        | Op::Reverse { .. }
        | Op::Detach
        | Op::Gradient => 0,
    }
}

/// Bytes of a node's operands and its result: what it moves where nothing is fused.
pub fn node_bytes(graph: &Graph, id: NodeId) -> u64 {
    let operands = graph.operands(id);
    operands.iter().map(|&o| graph.ty(o).bytes() as u64).sum::<u64>() + graph.ty(id).bytes() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::{Options, compile};
    use crate::declare::builtin;

    /// Fusion moves work, it does not change how much the contractions are.
    #[test]
    fn contractions_cost_the_same_as_nodes_and_as_kernels() {
        let text = builtin::text("dcgan").unwrap();
        let compiled = compile("dcgan", text, &Options::default(), &mut |_| {}).unwrap();
        let graph = &compiled.module.entries.iter().find(|e| e.graph.name == "train_step").unwrap().graph;
        let contraction = |id: &NodeId| graph.op(*id).is_contraction();
        let nodes: u64 = graph.ids().iter().filter(|id| contraction(id)).map(|&id| node_flops(graph, id)).sum();
        let kernels = &compiled.plan.as_ref().unwrap().entry("train_step").unwrap().schedule.kernels;
        let bodies = kernels.iter().map(|k| match &k.body {
            Body::Contraction(c) => c.kind.flops(),
            Body::Nests(_) => 0,
        });
        assert_eq!(nodes, bodies.sum::<u64>());
        assert!(nodes > 60_000_000_000);
    }

    #[test]
    fn the_lower_ceiling_decides() {
        let machine = Machine { flops_per_second: 100.0, bytes_per_second: 10.0, launch_seconds: 1.0 };
        assert_eq!(machine.ridge(), 10.0);
        assert_eq!([machine.seconds(1000, 10), machine.seconds(10, 1000)], [11.0, 101.0]);
    }
}
