//! The first question of fusion: which nodes have a value of their own.

use super::draws::{kept_as_bits, source};
use super::fuse::{base, core_of};
use super::lower::{Lowering, Refusal};
use super::physical::{Orders, PIXEL_MAJOR};
use crate::ir::{DType, Distribution, Graph, NodeId, Op};
use crate::kernel::body::Body;
use crate::kernel::target::{Fusion, HalfOperands, Layout, Policy, Strategy};
use crate::kernel::tiling::{Tiling, tilings};
use std::collections::HashSet;

/// How deep expressions nest at most, counted in elementwise operations and movements. Deeper down a value becomes an atom,
/// and is computed before: lowering walks down expressions by recursion.
const MAX_DEPTH: usize = 96;

/// Which nodes are atoms, where state lies in the given orders, and which have their value in memory once computed (atoms, inputs, state).
pub(super) fn choose_atoms(
    graph: &Graph,
    order: &[NodeId],
    strategy: &Strategy,
    orders: &Orders,
) -> (Vec<bool>, Vec<bool>) {
    let (fusion, policy) = (strategy.fusion, &strategy.policy);
    let mut atoms = vec![false; graph.bound()];
    let leaf = |id: NodeId| is_leaf(graph, id);
    for id in graph.results() {
        let id = base(graph, id);
        atoms[id.index()] |= !leaf(id);
    }
    for draw in kept_as_bits(graph, policy) {
        atoms[draw.index()] = true;
    }
    let mut depth = vec![0; graph.bound()];
    for &id in order {
        let op = graph.op(id);
        if op.is_contraction() || matches!(op, Op::Reduce { .. } | Op::Col2im { .. } | Op::Winograd(_)) {
            atoms[id.index()] = true;
        }
        if fusion == Fusion::Off
            && (matches!(op, Op::Scalar(_) | Op::Convert { .. } | Op::Random { .. } | Op::Iota { .. }))
        {
            atoms[id.index()] = true;
        }
        if op.is_contraction() {
            for operand in graph.operands(id) {
                force_operand(graph, id, operand, policy, orders, &mut atoms);
            }
        }
        if let Op::Col2im { .. } = op {
            // Each element is read at several places.
            let operand = source(graph, graph.operands(id)[0]);
            atoms[operand.index()] |= !leaf(operand);
        }
        if let Op::Random { .. } = op {
            for operand in graph.operands(id) {
                let constant = matches!(graph.op(operand), Op::Constant { .. });
                atoms[operand.index()] |= !leaf(operand) && !constant;
            }
        }
        if let Op::Broadcast { .. } | Op::Im2col { .. } = op {
            // Computed once per repeated element, not once per copy.
            let elements = graph.ty(id).elements();
            let operand = graph.operands(id)[0];
            let is_repeated = graph.ty(source(graph, operand)).elements() < elements;
            // Also what is put together first.
            let mut values = if is_repeated { vec![operand] } else { Vec::new() };
            let mut seen = HashSet::new();
            while let Some(value) = values.pop() {
                let value = source(graph, value);
                if !seen.insert(value) {
                    continue;
                }
                if let Op::Concat { .. } = graph.op(value) {
                    values.extend(graph.operands(value));
                    continue;
                }
                let is_kept = !is_cheap(graph, value, elements, policy.repeated_weight, &atoms);
                atoms[value.index()] |= is_kept && matches!(graph.op(value), Op::Scalar(_) | Op::Convert { .. });
            }
        }
        if matches!(op, Op::Scalar(_) | Op::Convert { .. } | Op::Random { .. })
            && is_shared(graph, id)
            && !is_cheap(graph, id, graph.ty(id).elements(), policy.recompute_weight, &atoms)
        {
            // What contractions read as bf16 is not stored in f32 beside that.
            let kept = widened(graph, id).filter(|_| policy.half_operands != HalfOperands::None).unwrap_or(id);
            atoms[kept.index()] |= !leaf(kept);
        }
        if !atoms[id.index()] && !leaf(id) {
            let deepest = graph.operands(id).into_iter().map(|operand| depth[operand.index()]).max();
            depth[id.index()] = deepest.map_or(0, |deepest| deepest + 1);
            // A moved value is better not stored: what it moves soon is.
            let limit = if op.is_movement() { 2 * MAX_DEPTH } else { MAX_DEPTH };
            if depth[id.index()] >= limit {
                atoms[id.index()] = true;
                depth[id.index()] = 0;
            }
        }
    }
    // A value under a reshape that no view expresses needs a buffer; each round finds the next such.
    let mut in_memory: Vec<bool> = vec![false; graph.bound()];
    for id in graph.ids() {
        in_memory[id.index()] = atoms[id.index()] || leaf(id);
    }
    let mut candidates: Vec<NodeId> = order.iter().copied().filter(|id| atoms[id.index()]).collect();
    while !candidates.is_empty() {
        let lowering = Lowering::new(graph, &in_memory, orders, policy);
        let mut more = Vec::new();
        for id in candidates {
            match lowering.body(&core_of(graph, id), &[id], &|_| true) {
                Ok(_) => {}
                Err(Refusal::NeedsBuffer(node)) => {
                    assert!(!in_memory[node.index()], "{} is in memory already", graph.node(node).name);
                    if !std::mem::replace(&mut atoms[node.index()], true) {
                        more.push(node);
                    }
                }
                Err(Refusal::Misaligned) => panic!("the node {} alone does not make a kernel", graph.node(id).name),
            }
        }
        candidates = affected(graph, &more, &in_memory);
        more.iter().for_each(|node| in_memory[node.index()] = true);
    }
    (atoms, in_memory)
}

/// The nodes themselves and the atoms in whose expressions they are.
fn affected(graph: &Graph, nodes: &[NodeId], in_memory: &[bool]) -> Vec<NodeId> {
    let (mut seen, mut stack) = (HashSet::new(), nodes.to_vec());
    let mut found: Vec<NodeId> = nodes.to_vec();
    while let Some(id) = stack.pop() {
        for user in graph.users(id) {
            if seen.insert(user) {
                if in_memory[user.index()] { found.push(user) } else { stack.push(user) }
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// The bf16 that a node converts to f32.
fn widened(graph: &Graph, id: NodeId) -> Option<NodeId> {
    let is_widening = *graph.op(id) == Op::Convert { to: DType::F32 };
    let operand = graph.operands(id).first().copied().filter(|_| is_widening)?;
    (graph.ty(operand).dtype == DType::Bf16).then_some(operand)
}

/// What a contraction reads of its operand in memory: the first node below movements and, where it may read bf16, below the
/// conversion of that to f32.
fn stored(graph: &Graph, contraction: NodeId, operand: NodeId, policy: &Policy) -> NodeId {
    let value = source(graph, operand);
    let reads_half = policy.half_operands.include(*graph.op(contraction) == Op::MatMul);
    match widened(graph, value) {
        Some(narrow) if reads_half => stored(graph, contraction, narrow, policy),
        _ => value,
    }
}

/// A contraction reads its operand many times: the operand is computed beforehand, unless it is so
/// small that computing it on the fly costs nothing, or a batch that is normalised where it is staged.
fn force_operand(
    graph: &Graph,
    contraction: NodeId,
    operand: NodeId,
    policy: &Policy,
    orders: &Orders,
    atoms: &mut [bool],
) {
    let value = stored(graph, contraction, operand, policy);
    let small = graph.ty(operand).elements() <= policy.prologue_elements && graph.has_one_user(value);
    let leaf = matches!(graph.op(value), Op::Input { .. } | Op::State { .. } | Op::Constant { .. });
    let is_prologue = || {
        let is_normalised = policy.prologue_reads > 0 && is_normalised_batch(graph, value, policy, atoms);
        is_normalised && is_staged_seldom(graph, contraction, value, policy, orders, atoms)
    };
    if !leaf && !small && !is_prologue() {
        atoms[value.index()] = true;
    }
}

/// How many of the nodes before a value are searched for the batch that its statistics are of; where that is further away, the
/// normalised batch is stored.
const SEARCHED: usize = 64;

/// Whether a value is what a contraction has made, normalised by statistics of that.
fn is_normalised_batch(graph: &Graph, value: NodeId, policy: &Policy, atoms: &[bool]) -> bool {
    let elements = graph.ty(value).elements();
    // As bf16 it is half as large as what it is computed of.
    if graph.ty(value).dtype != DType::F32 {
        return false;
    }
    let Some(reads) = cheap_reads(graph, value, elements, policy.recompute_weight, atoms) else { return false };
    let is_batch = |id: &&NodeId| is_large(graph, **id, elements) && graph.op(**id).is_contraction();
    let Some(&batch) = reads.iter().find(is_batch) else { return false };
    // What waits for no statistics is computed by the kernel that makes the batch.
    let mut near: Vec<NodeId> = reads.iter().copied().filter(|&read| read != batch).collect();
    let mut seen: HashSet<NodeId> = near.iter().copied().collect();
    let mut next = 0;
    while next < near.len().min(SEARCHED) {
        near.extend(graph.operands(near[next]).into_iter().filter(|&operand| seen.insert(operand)));
        next += 1;
    }
    seen.contains(&batch)
}

/// Columns of the tiles by which a product's reads are counted.
const TILE: usize = 128;

/// Whether tensor cores would compute a contraction with the prologue of a value, and stage each of its elements seldom.
fn is_staged_seldom(
    graph: &Graph,
    contraction: NodeId,
    value: NodeId,
    policy: &Policy,
    orders: &Orders,
    atoms: &[bool],
) -> bool {
    let (mut in_memory, mut orders) = (atoms.to_vec(), orders.clone());
    for operand in graph.operands(contraction) {
        let other = stored(graph, contraction, operand, policy);
        in_memory[other.index()] |= other != value;
    }
    for id in graph.ids() {
        let is_image = in_memory[id.index()] && !is_leaf(graph, id) && graph.shape(id).len() == 4;
        if is_image && policy.layout == Layout::PixelMajor {
            // As it will lie.
            orders.insert(id, PIXEL_MAJOR.to_vec());
        }
        in_memory[id.index()] |= is_leaf(graph, id);
    }
    let lowering = Lowering::new(graph, &in_memory, &orders, policy);
    let Ok(Body::Contraction(c)) = lowering.body(&core_of(graph, contraction), &[contraction], &|_| true) else {
        return false;
    };
    let Some(tilings) = tilings(&c) else { return false };
    let (shapes, _) = c.kind.shapes();
    let operands = c.kind.in_product_order([0, 1]).map(|side| (&c.operands[side], &shapes[side]));
    operands.into_iter().enumerate().all(|(side, (operand, shape))| {
        let staged = |tiling: &Tiling| tiling.staged(side, TILE);
        let (most, elements) = (policy.prologue_reads, shape.iter().product::<usize>());
        let is_seldom = tilings.iter().map(staged).sum::<usize>() <= most.saturating_mul(elements);
        operand.exprs().is_none() || (operand.has_staged_prologue() && is_seldom)
    })
}

/// Whether a value is in memory before anything is computed.
fn is_leaf(graph: &Graph, id: NodeId) -> bool {
    matches!(graph.op(id), Op::Input { .. } | Op::State { .. })
}

/// Whether a value has so many elements that reading it takes about as long as reading `elements`.
fn is_large(graph: &Graph, id: NodeId, elements: usize) -> bool {
    graph.ty(id).elements() * 8 > elements
}

/// Whether several nodes use the value, looking through movement operations.
fn is_shared(graph: &Graph, id: NodeId) -> bool {
    let mut users = 0;
    let mut stack = vec![id];
    while let Some(id) = stack.pop() {
        for user in graph.users(id) {
            if graph.op(user).is_movement() {
                stack.push(user);
            } else {
                users += 1;
            }
        }
        if users > 1 {
            return true;
        }
    }
    false
}

/// Whether computing the value again, at so many elements, costs less than keeping it in memory: operations of at most so much
/// weight.
fn is_cheap(graph: &Graph, id: NodeId, elements: usize, most_weight: usize, atoms: &[bool]) -> bool {
    cheap_reads(graph, id, elements, most_weight, atoms).is_some()
}

/// What is read to compute the value again, where that is cheap.
fn cheap_reads(graph: &Graph, id: NodeId, elements: usize, most_weight: usize, atoms: &[bool]) -> Option<Vec<NodeId>> {
    let (mut weight, mut large_reads, mut reads) = (0, 0, Vec::new());
    let mut seen = HashSet::new();
    let mut stack = vec![id];
    while let Some(node) = stack.pop() {
        if !seen.insert(node) {
            continue;
        }
        let in_memory = (node != id && atoms[node.index()]) || is_leaf(graph, node);
        if in_memory {
            large_reads += usize::from(is_large(graph, node, elements));
            reads.push(node);
            continue;
        }
        weight += match graph.op(node) {
            Op::Scalar(op) => op.cost(),
            Op::Convert { .. } => 1,
            // A block of Philox; on top of it a logarithm, a root and a sine in f64.
            Op::Random { distribution: Distribution::Uniform | Distribution::Bernoulli(_), .. } => 10,
            Op::Random { distribution: Distribution::Normal, .. } => 40,
            // What is not moved in memory is read at other places, and what remains is in memory by now.
            Op::Input { .. }
            | Op::State { .. }
            | Op::Constant { .. }
            | Op::Iota { .. }
            | Op::Reshape { .. }
            | Op::Transpose { .. }
            | Op::Broadcast { .. }
            | Op::Pad { .. }
            | Op::Slice { .. }
            | Op::Concat { .. }
            | Op::Reverse { .. }
            | Op::Reduce { .. }
            | Op::MatMul
            | Op::Conv2d { .. }
            | Op::Conv2dInputGrad { .. }
            | Op::Conv2dFilterGrad { .. }
            | Op::Im2col { .. }
            | Op::Col2im { .. }
            | Op::Winograd(_)
            | Op::Detach
            | Op::Gradient => 0,
        };
        if weight > most_weight || large_reads > 1 {
            return None;
        }
        stack.extend(graph.operands(node));
    }
    (large_reads <= 1).then_some(reads)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::text::parse;
    use crate::kernel::target::{Architecture, Precision, Target};

    fn stored(lines: &str) -> Vec<String> {
        let graph = parse(&format!("graph g {{\n{lines}\n}}")).unwrap();
        let strategy = Strategy::new(Fusion::On, Target::Cuda(Architecture(90)), Precision::F32);
        let (atoms, _) = choose_atoms(&graph, &graph.topological(), &strategy, &Orders::new());
        let mut names: Vec<String> =
            graph.ids().into_iter().filter(|id| atoms[id.index()]).map(|id| graph.node(id).name.clone()).collect();
        names.sort();
        names
    }

    /// Each part of what is repeated, also where the parts are put together first; what is put together as it is goes on.
    #[test]
    fn what_is_repeated_is_computed_once() {
        let repeated = r#"
            %x: f32[4,1] = input "x"
            %y: f32[4,1] = input "y"
            %a: f32[4,1] = sigmoid %x
            %b: f32[4,1] = sigmoid %y
            %ab: f32[8,1] = concat %a %b axis=0
            %wide: f32[8,64] = broadcast %ab
            %z: f32[8,64] = sin %wide
            output z = %z"#;
        assert_eq!(stored(repeated), ["a", "b", "z"]);
        let once = repeated
            .replace("%wide: f32[8,64] = broadcast %ab\n", "")
            .replace("f32[8,64] = sin %wide", "f32[8,1] = sin %ab");
        assert_eq!(stored(&once), ["z"]);
    }

    /// A batch that is normalised by its own statistics is stored where its elements are multiplied by many; one that waits for
    /// none is stored by what makes it.
    #[test]
    fn a_batch_is_normalised_by_the_product_that_reads_it_seldom() {
        let normalised = |units: usize, mean: &str| {
            let lines = format!(
                r#"
                %a: f32[128,32] = input "a"
                %b: f32[32,64] = input "b"
                %w: f32[64,{units}] = input "w"
                %known: f32[1,64] = input "known"
                %x: f32[128,64] = matmul %a %b
                %sum: f32[1,64] = reduce_sum %x axes=[0]
                %mean: f32[128,64] = broadcast %{mean}
                %y: f32[128,64] = sub %x %mean
                %z: f32[128,{units}] = matmul %y %w
                output z = %z
                output sum = %sum"#
            );
            stored(&lines)
        };
        assert_eq!(normalised(256, "sum"), ["sum", "x", "z"]);
        assert_eq!(normalised(260, "sum"), ["sum", "x", "y", "z"]);
        // Tensor cores would compute it with 16 or more units.
        assert_eq!(normalised(12, "sum"), ["sum", "x", "y", "z"]);
        assert_eq!(normalised(256, "known"), ["sum", "x", "y", "z"]);
    }
}
