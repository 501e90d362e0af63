//! Draws of 0 or 1, such as those of dropout. Where it pays, a kernel makes all of them and keeps them as bits: a block of
//! Philox gives four neighbours, which would each compute it anew where they are used, forward and backward.

use super::fuse::base;
use crate::ir::{Distribution, Graph, NodeId, Op};
use crate::kernel::target::Policy;
use std::collections::HashSet;

/// The draws that are kept as bits: those of 0 or 1 of which nobody needs numbers in memory, as callers do and
/// contractions.
pub(super) fn kept_as_bits(graph: &Graph, policy: &Policy) -> HashSet<NodeId> {
    if !policy.draws_as_bits {
        return HashSet::new();
    }
    let is_draw = |id: &NodeId| matches!(graph.op(*id), Op::Random { distribution: Distribution::Bernoulli(_), .. });
    let mut draws: HashSet<NodeId> = graph.ids().into_iter().filter(is_draw).collect();
    for result in graph.results() {
        draws.remove(&base(graph, result));
    }
    for contraction in graph.ids().into_iter().filter(|id| graph.op(*id).is_contraction()) {
        for operand in graph.operands(contraction) {
            draws.remove(&source(graph, operand));
        }
    }
    draws
}

/// The first node below movement operations.
pub(super) fn source(graph: &Graph, mut id: NodeId) -> NodeId {
    while graph.op(id).is_movement() && !matches!(graph.op(id), Op::Concat { .. }) {
        id = graph.operands(id)[0];
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::Value;
    use crate::kernel::body::{Body, Expr};
    use crate::kernel::target::{Architecture, Fusion, Precision, Strategy, Target};
    use crate::tensor::DType;
    use crate::testing::conformance::{Fixture, plan_of};

    /// How many of a program's expressions draw, where a draw is summed along either axis, by kernels of their own.
    fn draws(distribution: Distribution, target: Target) -> usize {
        let mut f = Fixture::new();
        let seed = f.input_of("seed", DType::U32, Value::u32([2], vec![1, 2]));
        let step = f.state_of("step", DType::U32, Value::u32([], vec![3]));
        let draw = f.op(Op::Random { distribution, stream: "z".into(), shape: vec![60, 50] }, &[seed, step]);
        for (name, axis) in [("rows", 1), ("columns", 0)] {
            let x = f.input(name, &[60, 50]);
            let product = f.builder().mul(x, draw);
            let sum = f.builder().sum(product, &[axis]);
            f.output(name, sum);
        }
        let plan = plan_of(&f.graph, Strategy::new(Fusion::On, target, Precision::F32));
        let kernels = &plan.entries[0].schedule.kernels;
        let exprs = kernels.iter().flat_map(|kernel| match &kernel.body {
            Body::Nests(nests) => nests.iter().flat_map(|nest| nest.exprs.iter()).collect::<Vec<_>>(),
            Body::Contraction(c) => c.exprs.iter().chain(c.finish.exprs.iter()).collect(),
            Body::Transform(t) => t.exprs.iter().collect(),
        });
        exprs.filter(|expr| matches!(expr, Expr::Random { .. })).count()
    }

    #[test]
    fn what_costs_more_than_memory_is_drawn_once() {
        let gpu = Target::Cuda(Architecture(80));
        assert_eq!(draws(Distribution::Normal, gpu), 1);
        assert_eq!(draws(Distribution::Normal, Target::Cpu), 1);
        // A block of Philox costs a GPU less than a write and a read.
        assert_eq!(draws(Distribution::Uniform, gpu), 2);
    }
}
