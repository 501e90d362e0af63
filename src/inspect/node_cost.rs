//! What a node costs by itself, where nothing is fused.

use crate::ir::{DType, Graph, NodeId, Op};

/// Floating-point operations of one node by itself, counted as [`crate::kernel::cost::flops`] does, but with those on padding.
pub fn node_flops(graph: &Graph, id: NodeId) -> u64 {
    let operands = graph.operands(id);
    let size = |dims: &[usize]| dims.iter().product::<usize>() as u64;
    let shape = |operand: usize| operands.get(operand).map_or(&[][..], |&o| graph.shape(o));
    let own = size(graph.shape(id));
    match graph.op(id) {
        Op::Scalar(_) | Op::Convert { to: DType::Bf16 } => own,
        Op::Convert { to: DType::F32 | DType::U32 } => 0,
        Op::Reduce { .. } | Op::Col2im { .. } => size(shape(0)),
        Op::MatMul => 2 * own * shape(0).last().map_or(0, |&k| k as u64),
        // Every element of the convolution's output is a sum over the filter of one output channel.
        Op::Conv2d { .. } => 2 * own * size(shape(1).get(1..).unwrap_or_default()),
        Op::Conv2dInputGrad { .. } => 2 * size(shape(0)) * size(shape(1).get(1..).unwrap_or_default()),
        Op::Conv2dFilterGrad { .. } => 2 * size(shape(1)) * size(graph.shape(id).get(1..).unwrap_or_default()),
        Op::Winograd(transform) => {
            let map = transform.map(graph.shape(operands[0]), graph.shape(id));
            transform.flops(map[0] * map[1])
        }
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
        | Op::Im2col { .. }
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
    use crate::kernel::body::Body;

    /// Fusion moves work, it does not change how much the contractions are.
    #[test]
    fn contractions_cost_the_same_as_nodes_and_as_kernels() {
        let text = builtin::text("dcgan").unwrap();
        let options = Options { convolutions: crate::kernel::target::Convolutions::Exact, ..Options::default() };
        let compiled = compile("dcgan", text, &options, &mut |_| {}).unwrap();
        let graph = &compiled.module.entries.iter().find(|e| e.graph.name == "train_step").unwrap().graph;
        let contraction = |id: &NodeId| graph.op(*id).is_contraction();
        let nodes: u64 = graph.ids().iter().filter(|id| contraction(id)).map(|&id| node_flops(graph, id)).sum();
        let kernels = &compiled.plan.as_ref().unwrap().entry("train_step").unwrap().schedule.kernels;
        let bodies = kernels.iter().map(|k| match &k.body {
            Body::Contraction(c) => c.kind.flops(),
            Body::Nests(_) | Body::Transform(_) => 0,
        });
        assert_eq!(nodes, bodies.sum::<u64>());
        assert!(nodes > 60_000_000_000);
    }
}
