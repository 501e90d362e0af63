//! Lowering: from a group of graph nodes to the body of one kernel.
//!
//! Elementwise nodes become expressions; movement nodes become views of the leaves; reductions and
//! the nodes that depend on them are sorted into sweeps. Lowering fails, without harm, where a group
//! cannot be one kernel, so that fusion simply tries.

use super::dimensions::{cut, reduced_dimensions, same_reduction};
use super::movement::through;
use super::physical::Orders;
use super::value::ValueId;
use super::windows::{tap_moves, taps_apart};
use crate::ir::{DType, Graph, NodeId, Op, Real, Role, Shape};
use crate::kernel::access::{Access, kept_shape};
use crate::kernel::body::{
    Body, Contraction, EpilogueReduction, Expr, ExprId, Exprs, Finish, Nest, Operand, Reduction, SlotId, Store, Sweep,
    TransformBody, Word, squared_deviation,
};
use crate::kernel::contraction::{ContractionKind, ConvShape};
use crate::kernel::target::{HalfOperands, Policy};
use crate::scalar::ScalarOp;
use crate::types::ReduceKind;
use std::collections::HashMap;

/// Why a group is not one kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The value of this node must be in memory: a reshape that no view expresses is applied to it.
    NeedsBuffer(NodeId),
    /// The members do not line up in one index space.
    Misaligned,
}

/// What a group of nodes is built around.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Core {
    /// A loop nest over a space with some dimensions reduced.
    Nest { space: Shape, reduced: Vec<bool> },
    /// One contraction and its epilogue.
    Contraction(NodeId),
    /// One transform.
    Transform(NodeId),
}

/// One movement from a value to its user.
#[derive(Debug, Clone)]
struct Move {
    op: Op,
    from: Shape,
    to: Shape,
    /// The node that is moved.
    operand: Option<NodeId>,
}

/// An index into the interned chains of moves; 0 is the empty chain.
type ChainId = usize;

/// Which of a nest's two spaces an expression is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Points {
    Full,
    Kept,
}

/// Where a member's value is found by the others.
#[derive(Debug, Clone, Copy)]
enum MemberValue {
    Full(ExprId),
    Slot(SlotId),
}

/// Lowers groups of one graph. `in_memory` says which nodes have their value in a buffer when the
/// kernel runs (inputs and state included); buffers are named by the node's index.
#[derive(Clone, Copy)]
pub struct Lowering<'g> {
    pub graph: &'g Graph,
    pub in_memory: &'g [bool],
    /// Values that lie in memory in another order than their shape's.
    pub orders: &'g Orders,
    /// Whether convolutions read operands in any order.
    pub strided_images: bool,
    /// Which contractions read operands that are stored as bf16.
    pub half_operands: HalfOperands,
    /// Whether contractions compute operands where they stage them.
    pub stages: bool,
}

/// A body under construction.
struct BodyBuilder<'l> {
    lowering: &'l Lowering<'l>,
    space: Shape,
    kept: Shape,
    reduced: Vec<bool>,
    exprs: Exprs<ValueId>,
    interned: HashMap<Expr<ValueId>, ExprId>,
    /// The first sweep in which each expression can be evaluated: one after the slots it reads.
    ready: Vec<usize>,
    slot_sweep: Vec<usize>,
    members: HashMap<NodeId, MemberValue>,
    accumulator: Option<NodeId>,
    /// The member whose value is being expressed: it is not read from memory.
    computed: Option<NodeId>,
    chains: Vec<(ChainId, Move)>,
    chain_ids: HashMap<(ChainId, Option<NodeId>, NodeId), ChainId>,
    values: HashMap<(NodeId, ChainId, Points), ExprId>,
}

impl<'g> Lowering<'g> {
    pub fn new(graph: &'g Graph, in_memory: &'g [bool], orders: &'g Orders, policy: &Policy) -> Self {
        let &Policy { strided_images, half_operands, prologue_reads, .. } = policy;
        Lowering { graph, in_memory, orders, strided_images, half_operands, stages: prologue_reads > 0 }
    }
}

impl Lowering<'_> {
    /// The body of a group: `core` and `members` in topological order, of which those that `stored`
    /// picks are written to memory.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn body(
        &self,
        core: &Core,
        members: &[NodeId],
        stored: &dyn Fn(NodeId) -> bool,
    ) -> Result<Body<ValueId>, Refusal> {
        let body = match core {
            Core::Nest { space, reduced } => Body::Nests(vec![self.nest(space, reduced, members, stored)?]),
            Core::Contraction(main) => Body::Contraction(self.contraction(*main, members, stored)?),
            Core::Transform(main) => Body::Transform(self.transform(*main, members)?),
        };
        // What a contraction multiplies, for one, cannot be computed by its epilogue.
        let reads_own = body.reads().any(|value| members.iter().any(|&m| ValueId::of(m) == *value));
        if reads_own { Err(Refusal::Misaligned) } else { Ok(body) }
    }

    fn builder(&self, space: Shape, reduced: Vec<bool>) -> BodyBuilder<'_> {
        BodyBuilder {
            lowering: self,
            kept: kept_shape(&space, &reduced),
            space,
            reduced,
            exprs: Exprs::default(),
            interned: HashMap::new(),
            ready: Vec::new(),
            slot_sweep: Vec::new(),
            members: HashMap::new(),
            accumulator: None,
            computed: None,
            chains: vec![(0, Move { op: Op::MatMul, from: vec![], to: vec![], operand: None })],
            chain_ids: HashMap::new(),
            values: HashMap::new(),
        }
    }

    fn nest(
        &self,
        space: &[usize],
        reduced: &[bool],
        members: &[NodeId],
        stored: &dyn Fn(NodeId) -> bool,
    ) -> Result<Nest<ValueId>, Refusal> {
        let mut b = self.builder(space.to_vec(), reduced.to_vec());
        let (full, kept): (usize, usize) = (b.space.iter().product(), b.kept.iter().product());
        let mut sweeps: Vec<Sweep<ValueId>> = Vec::new();
        let sweep_at = |sweeps: &mut Vec<Sweep<ValueId>>, i: usize| {
            if sweeps.len() <= i {
                sweeps.resize_with(i + 1, Sweep::default);
            }
        };
        for &member in members {
            let elements = self.graph.ty(member).elements();
            b.computed = Some(member);
            if let Op::Reduce { kind, axes } = self.graph.op(member) {
                let operand = self.graph.operands(member)[0];
                if !same_reduction(self.graph.shape(operand), axes, space, reduced) {
                    return Err(Refusal::Misaligned);
                }
                let value = b.aligned(operand, Points::Full)?;
                let sweep = b.ready[value.index()];
                if !reduced.contains(&true) {
                    // Over no dimension: the operand itself, which is its own mean.
                    let value = match kind {
                        ReduceKind::Sum | ReduceKind::Max => value,
                        ReduceKind::Deviations => b.expr(Expr::Scalar { op: ScalarOp::Sub, args: vec![value, value] }),
                    };
                    sweep_at(&mut sweeps, sweep);
                    b.members.insert(member, MemberValue::Full(value));
                    if stored(member) {
                        sweeps[sweep].stores.push(b.store(value, member, Points::Full)?);
                    }
                    continue;
                }
                let mut reduced_to = |b: &mut BodyBuilder, kind: ReduceKind, value: ExprId| {
                    let sweep = b.ready[value.index()];
                    sweep_at(&mut sweeps, sweep);
                    let found = sweeps[sweep].reductions.iter().find(|r| (r.kind, r.value) == (kind, value));
                    found.map(|reduction| reduction.slot).unwrap_or_else(|| {
                        let slot = b.new_slot(sweep);
                        sweeps[sweep].reductions.push(Reduction { kind, value, slot });
                        slot
                    })
                };
                let slot = match kind {
                    ReduceKind::Sum | ReduceKind::Max => reduced_to(&mut b, *kind, value),
                    ReduceKind::Deviations => {
                        let sum = reduced_to(&mut b, ReduceKind::Sum, value);
                        let square = b.squared_deviation(value, sum);
                        reduced_to(&mut b, ReduceKind::Sum, square)
                    }
                };
                let sweep = b.slot_sweep[slot.index()];
                b.members.insert(member, MemberValue::Slot(slot));
                if stored(member) {
                    let value = b.expr(Expr::Slot(slot));
                    sweeps[sweep].kept_stores.push(b.store(value, member, Points::Kept)?);
                }
            } else if elements == full {
                let value = b.aligned(member, Points::Full)?;
                let sweep = b.ready[value.index()];
                sweep_at(&mut sweeps, sweep);
                b.members.insert(member, MemberValue::Full(value));
                if stored(member) {
                    sweeps[sweep].stores.push(b.store(value, member, Points::Full)?);
                }
            } else if elements == kept && self.graph.ty(member).dtype.is_real() {
                let value = b.aligned(member, Points::Kept)?;
                // Evaluated after the sweep that gives its last slot.
                let sweep = b.ready[value.index()].saturating_sub(1);
                let slot = b.new_slot(sweep);
                sweep_at(&mut sweeps, sweep);
                sweeps[sweep].kept.push((slot, value));
                b.members.insert(member, MemberValue::Slot(slot));
                if stored(member) {
                    let value = b.expr(Expr::Slot(slot));
                    sweeps[sweep].kept_stores.push(b.store(value, member, Points::Kept)?);
                }
            } else {
                // Slots hold reals.
                return Err(Refusal::Misaligned);
            }
        }
        let slots = b.slot_sweep.len();
        Ok(Nest { space: b.space, reduced: b.reduced, exprs: b.exprs, slots, sweeps })
    }

    fn contraction(
        &self,
        main: NodeId,
        members: &[NodeId],
        stored: &dyn Fn(NodeId) -> bool,
    ) -> Result<Contraction<ValueId>, Refusal> {
        let kind = self.contraction_kind(main);
        let (operand_shapes, space) = kind.shapes();
        let mut operands = Vec::new();
        for (operand, shape) in self.graph.operands(main).into_iter().zip(operand_shapes) {
            operands.push(self.operand(&kind, operand, shape)?);
        }
        let operands: [Operand<ValueId>; 2] = operands.try_into().map_err(|_| Refusal::Misaligned)?;

        // How a reduction reduces, what, and over which of that one's dimensions.
        let reduced = |&member: &NodeId| match self.graph.op(member) {
            Op::Reduce { kind, axes } => Some((*kind, self.graph.operands(member)[0], axes)),
            _ => None,
        };
        // Of an update, tiles reduce whole dimensions or nothing: the sums would be swept in memory.
        let is_update = |id: NodeId| matches!(self.graph.node(id).origin.role, Role::Optimiser(_));
        let space = match members.iter().filter(|&&member| !is_update(member)).find_map(reduced) {
            Some((_, of, axes)) => cut(&space, self.graph.shape(of), axes).ok_or(Refusal::Misaligned)?,
            None => space,
        };
        let rank = space.len();
        let mut b = self.builder(space, vec![false; rank]);
        b.accumulator = Some(main);
        let accumulator = b.expr(Expr::Accumulator);
        b.members.insert(main, MemberValue::Full(accumulator));
        let (mut stores, mut reductions): (Vec<Store<ValueId>>, Vec<EpilogueReduction>) = (Vec::new(), Vec::new());
        if let Some((_, of, axes)) = members.iter().find_map(reduced) {
            b.reduced = reduced_dimensions(self.graph.shape(of), axes, &b.space).ok_or(Refusal::Misaligned)?;
        }
        // Over what is kept: members that need not come after the reductions.
        let mut finish = self.builder(kept_shape(&b.space, &b.reduced), vec![false; rank]);
        let mut finished: Vec<Store<ValueId>> = Vec::new();
        if stored(main) {
            stores.push(b.store(accumulator, main, Points::Full)?);
        }
        for &member in members.iter().filter(|&&m| m != main) {
            let (builder, stores, value) = match reduced(&member) {
                Some((kind, of, axes)) => {
                    if reduced_dimensions(self.graph.shape(of), axes, &b.space).as_ref() != Some(&b.reduced) {
                        return Err(Refusal::Misaligned);
                    }
                    let value = b.aligned(of, Points::Full)?;
                    reductions.push(EpilogueReduction { kind, value });
                    let slot = finish.new_slot(0);
                    let value = finish.expr(Expr::Slot(slot));
                    (&mut finish, &mut finished, value)
                }
                None => {
                    let is_full = self.graph.ty(member).elements() == self.graph.ty(main).elements();
                    let (builder, stores) = if is_full { (&mut b, &mut stores) } else { (&mut finish, &mut finished) };
                    builder.computed = Some(member);
                    let value = builder.aligned(member, Points::Full)?;
                    (builder, stores, value)
                }
            };
            builder.members.insert(member, MemberValue::Full(value));
            if stored(member) {
                stores.push(builder.store(value, member, Points::Full)?);
            }
        }
        let (space, reduced, exprs) = (b.space, b.reduced, b.exprs);
        let finish = Finish { exprs: finish.exprs, stores: finished };
        Ok(Contraction { kind, operands, space, exprs, stores, reduced, reductions, finish })
    }

    fn transform(&self, main: NodeId, members: &[NodeId]) -> Result<TransformBody<ValueId>, Refusal> {
        let Op::Winograd(transform) = self.graph.op(main) else { unreachable!("the core is a transform") };
        let operand = self.graph.operands(main)[0];
        let result = match members {
            [one] if *one == main => main,
            // The store rounds: see `fuse`.
            [first, rounded] if *first == main && *self.graph.op(*rounded) == Op::Convert { to: DType::Bf16 } => {
                *rounded
            }
            _ => return Err(Refusal::Misaligned),
        };
        if self.graph.operands(result) != [main] && result != main {
            return Err(Refusal::Misaligned);
        }
        let (from, to) = (self.graph.shape(operand), self.graph.shape(main));
        let mut b = self.builder(from.to_vec(), vec![false; from.len()]);
        let value = b.aligned(operand, Points::Full)?;
        let buffer = match &b.exprs[value] {
            Expr::Load { buffer, access, .. } if access.is_contiguous(from) => *buffer,
            _ => return Err(Refusal::NeedsBuffer(operand)),
        };
        if !b.stored(result).is_contiguous(to) {
            return Err(Refusal::Misaligned);
        }
        let mut exprs = Exprs::default();
        let value = exprs.push(Expr::Accumulator);
        let store = Store { value, buffer: ValueId::of(result), access: Access::contiguous(to) };
        let map = transform.map(from, to);
        let planes = [map[0], map[1]];
        Ok(TransformBody { transform: *transform, planes, operand: buffer, space: to.to_vec(), exprs, store })
    }

    /// An operand as a view of a buffer where it is one that the contraction can read, else as a
    /// prologue.
    fn operand(&self, kind: &ContractionKind, operand: NodeId, shape: Shape) -> Result<Operand<ValueId>, Refusal> {
        let rank = shape.len();
        let mut b = self.builder(shape, vec![false; rank]);
        let value = b.aligned(operand, Points::Full)?;
        if let Expr::Load { buffer, access, .. } = &b.exprs[value] {
            // What is stored as bf16 is widened by a prologue, or as it is read.
            let is_f32 = self.graph.ty(NodeId::new(buffer.index())).dtype == DType::F32;
            let readable = (is_f32 || self.half_operands.include(matches!(kind, ContractionKind::MatMul { .. })))
                && match kind {
                    ContractionKind::MatMul { .. } => access.bounds.is_empty(),
                    ContractionKind::Conv2d(_)
                    | ContractionKind::Conv2dInputGrad(_)
                    | ContractionKind::Conv2dFilterGrad(_) => {
                        access.is_contiguous(&b.space) || (self.strided_images && access.bounds.is_empty())
                    }
                };
            if readable {
                return Ok(Operand::Buffer { buffer: *buffer, access: access.clone() });
            }
        }
        debug_assert_eq!(Some(value), b.exprs.last(), "the operand is the last expression");
        let staged = self.staged(kind, &b);
        Ok(Operand::Computed { exprs: b.exprs, staged })
    }

    /// The load of a prologue's expressions that a contraction may stage: one that reads another element for each of the
    /// operand's.
    fn staged(&self, kind: &ContractionKind, b: &BodyBuilder) -> Option<ExprId> {
        let is_staged = |id: &ExprId| match &b.exprs[*id] {
            Expr::Load { buffer, access, .. } => {
                let node = NodeId::new(buffer.index());
                let is_bits = matches!(self.graph.op(node), Op::Random { .. });
                let varies = b.space.iter().zip(&access.strides).all(|(&size, &stride)| size == 1 || stride != 0);
                self.graph.ty(node).dtype == DType::F32 && !is_bits && varies && access.bounds.is_empty()
            }
            _ => false,
        };
        (self.stages && kind.is_one_product()).then(|| b.exprs.ids().find(is_staged)).flatten()
    }

    fn contraction_kind(&self, main: NodeId) -> ContractionKind {
        let operands = self.graph.operands(main);
        let (a, b) = (self.graph.shape(operands[0]), self.graph.shape(operands[1]));
        let out = self.graph.shape(main);
        let hw = |shape: &[usize]| [shape[2], shape[3]];
        match self.graph.op(main) {
            Op::MatMul => {
                let rank = a.len();
                let batch = a[..rank - 2].iter().product();
                ContractionKind::MatMul { batch, m: a[rank - 2], k: a[rank - 1], n: b[rank - 1] }
            }
            Op::Conv2d { window } => ContractionKind::Conv2d(ConvShape {
                n: a[0],
                c: a[1],
                input: hw(a),
                o: b[0],
                kernel: hw(b),
                output: hw(out),
                window: *window,
            }),
            Op::Conv2dInputGrad { window, .. } => ContractionKind::Conv2dInputGrad(ConvShape {
                n: a[0],
                c: b[1],
                input: hw(out),
                o: b[0],
                kernel: hw(b),
                output: hw(a),
                window: *window,
            }),
            Op::Conv2dFilterGrad { window, .. } => ContractionKind::Conv2dFilterGrad(ConvShape {
                n: a[0],
                c: a[1],
                input: hw(a),
                o: b[1],
                kernel: hw(out),
                output: hw(b),
                window: *window,
            }),
            op => unreachable!("{} is not a contraction", op.name()),
        }
    }
}

impl BodyBuilder<'_> {
    fn graph(&self) -> &Graph {
        self.lowering.graph
    }

    fn expr(&mut self, expr: Expr<ValueId>) -> ExprId {
        if let Some(&id) = self.interned.get(&expr) {
            return id;
        }
        let ready = match &expr {
            Expr::Slot(slot) => self.slot_sweep[slot.index()] + 1,
            expr => expr.args().iter().map(|a| self.ready[a.index()]).max().unwrap_or(0),
        };
        let id = self.exprs.push(expr.clone());
        self.interned.insert(expr, id);
        self.ready.push(ready);
        id
    }

    /// The square of how far a value is from the mean that its sum comes to.
    fn squared_deviation(&mut self, value: ExprId, sum: SlotId) -> ExprId {
        let count = self.space.iter().product::<usize>() / self.kept.iter().product::<usize>();
        let sum = self.expr(Expr::Slot(sum));
        squared_deviation(&mut |expr| self.expr(expr), value, sum, count)
    }

    fn new_slot(&mut self, sweep: usize) -> SlotId {
        self.slot_sweep.push(sweep);
        SlotId::new(self.slot_sweep.len() - 1)
    }

    /// The store of a member's value, its elements in row-major order laid over the space of those points.
    fn store(&self, value: ExprId, member: NodeId, points: Points) -> Result<Store<ValueId>, Refusal> {
        let space = match points {
            Points::Full => &self.space,
            Points::Kept => &self.kept,
        };
        let access = self.stored(member).reshaped(self.graph().shape(member), space).ok_or(Refusal::Misaligned)?;
        Ok(Store { value, buffer: ValueId::of(member), access })
    }

    /// The value of `node`, its elements in row-major order laid over the space of those points.
    fn aligned(&mut self, node: NodeId, points: Points) -> Result<ExprId, Refusal> {
        let to = match points {
            Points::Full => self.space.clone(),
            Points::Kept => self.kept.clone(),
        };
        let from = self.graph().shape(node).to_vec();
        if from.iter().product::<usize>() != to.iter().product::<usize>() {
            return Err(Refusal::Misaligned);
        }
        let chain = if from == to {
            0
        } else {
            self.chain(0, None, node, Move { op: Op::Reshape { to: to.clone() }, from, to, operand: Some(node) })
        };
        self.value(node, chain, points)
    }

    /// The chain `parent` with one more, innermost move.
    fn chain(&mut self, parent: ChainId, mover: Option<NodeId>, moved: NodeId, step: Move) -> ChainId {
        if let Some(&id) = self.chain_ids.get(&(parent, mover, moved)) {
            return id;
        }
        let id = self.chains.len();
        self.chains.push((parent, step));
        self.chain_ids.insert((parent, mover, moved), id);
        id
    }

    /// A value's buffer by the value's shape.
    fn stored(&self, node: NodeId) -> Access {
        let shape = self.graph().shape(node);
        match self.lowering.orders.get(&node) {
            Some(order) => Access::ordered(shape, order),
            None => Access::contiguous(shape),
        }
    }

    /// The access through a chain of a value of `shape` that lies row-major.
    fn access(&self, shape: &[usize], chain: ChainId) -> Result<Access, Refusal> {
        self.through(Access::contiguous(shape), chain)
    }

    /// An access of a value through a chain.
    fn through(&self, mut access: Access, mut chain: ChainId) -> Result<Access, Refusal> {
        while chain != 0 {
            let &(mut parent, ref step) = &self.chains[chain];
            let (mut op, mut to) = (&step.op, &step.to);
            // What one reshape merges, the next may split again.
            while let (Op::Reshape { .. }, Op::Reshape { .. }) = (op, &self.chains[parent].1.op) {
                (op, to) = (&self.chains[parent].1.op, &self.chains[parent].1.to);
                parent = self.chains[parent].0;
            }
            access = match through(&access, op, &step.from, to) {
                Some(access) => access,
                None => return Err(step.operand.map_or(Refusal::Misaligned, Refusal::NeedsBuffer)),
            };
            chain = parent;
        }
        Ok(access)
    }

    fn value(&mut self, node: NodeId, chain: ChainId, points: Points) -> Result<ExprId, Refusal> {
        if let Some(&id) = self.values.get(&(node, chain, points)) {
            return Ok(id);
        }
        let id = self.fresh_value(node, chain, points)?;
        self.values.insert((node, chain, points), id);
        Ok(id)
    }

    fn fresh_value(&mut self, node: NodeId, chain: ChainId, points: Points) -> Result<ExprId, Refusal> {
        let graph = self.lowering.graph;
        let ty = graph.ty(node);
        if let Some(&place) = self.members.get(&node) {
            return self.member_value(node, place, chain, points);
        }
        if self.lowering.in_memory[node.index()] && self.computed != Some(node) {
            let access = self.through(self.stored(node), chain)?;
            return Ok(self.expr(Expr::Load { buffer: ValueId::of(node), access, lane: ty.dtype.lane() }));
        }
        match graph.op(node) {
            Op::Constant { value, ty } => {
                // Expressions compute in f32: bf16 is in buffers only.
                let dtype = if ty.dtype == DType::U32 { DType::U32 } else { DType::F32 };
                let value = self.expr(Expr::Constant { value: *value, dtype });
                let shape = ty.shape.clone();
                self.inside_only(value, &shape, chain)
            }
            Op::Iota { axis, ty } => {
                let access = self.access(&ty.shape, chain)?;
                let divisor = ty.shape[axis + 1..].iter().product();
                Ok(self.expr(Expr::Iota { access, divisor, modulus: ty.shape[*axis], dtype: ty.dtype }))
            }
            Op::Random { distribution, stream, shape } => {
                let access = self.access(shape, chain)?;
                let operands = graph.operands(node);
                let seed = [self.word(operands[0], 0)?, self.word(operands[0], 1)?];
                let step = self.word(operands[1], 0)?;
                let stream = crate::scalar::stream_hash(stream);
                Ok(self.expr(Expr::Random { distribution: *distribution, stream, seed, step, access }))
            }
            Op::Scalar(op) => {
                let args = graph
                    .operands(node)
                    .into_iter()
                    .map(|operand| self.value(operand, chain, points))
                    .collect::<Result<_, _>>()?;
                Ok(self.expr(Expr::Scalar { op: *op, args }))
            }
            Op::Convert { to } => {
                let value = self.value(graph.operands(node)[0], chain, points)?;
                Ok(match to {
                    DType::Bf16 => self.expr(Expr::Scalar { op: ScalarOp::RoundBf16, args: vec![value] }),
                    DType::F32 | DType::U32 => value,
                })
            }
            op @ (Op::Reshape { .. }
            | Op::Transpose { .. }
            | Op::Broadcast { .. }
            | Op::Slice { .. }
            | Op::Reverse { .. }) => {
                let operand = graph.operands(node)[0];
                let inner = self.push(chain, node, operand, op.clone());
                self.value(operand, inner, points)
            }
            op @ Op::Pad { .. } => {
                let operand = graph.operands(node)[0];
                let inner = self.push(chain, node, operand, op.clone());
                self.padded(operand, inner, points)
            }
            op @ Op::Im2col { kernel, .. } => {
                let operand = graph.operands(node)[0];
                let taps = taps_apart(*kernel, graph.shape(operand), &ty.shape);
                let whole = Move {
                    op: Op::Reshape { to: ty.shape.clone() },
                    from: taps.clone(),
                    to: ty.shape.clone(),
                    operand: Some(node),
                };
                let chain = self.chain(chain, Some(node), node, whole);
                let from = graph.shape(operand).to_vec();
                let step = Move { op: op.clone(), from, to: taps, operand: Some(operand) };
                let inner = self.chain(chain, Some(node), operand, step);
                self.padded(operand, inner, points)
            }
            Op::Col2im { window, kernel, .. } => {
                let operand = graph.operands(node)[0];
                let mut sum = None;
                for steps in tap_moves(window, *kernel, graph.shape(operand), &ty.shape) {
                    let mut inner = chain;
                    let mut to = ty.shape.clone();
                    for (op, from) in steps {
                        self.chains.push((inner, Move { op, from: from.clone(), to, operand: Some(operand) }));
                        (inner, to) = (self.chains.len() - 1, from);
                    }
                    let value = self.padded(operand, inner, points)?;
                    sum = Some(match sum {
                        None => value,
                        Some(sum) => self.expr(Expr::Scalar { op: ScalarOp::Add, args: vec![sum, value] }),
                    });
                }
                match sum {
                    Some(sum) => Ok(sum),
                    None => Ok(self.expr(Expr::Constant { value: Real(0.0), dtype: DType::F32 })),
                }
            }
            Op::Concat { axis } => {
                let mut start = 0;
                let mut result = None;
                for operand in graph.operands(node) {
                    let size = graph.shape(operand)[*axis];
                    let mut low = vec![0; ty.rank()];
                    let mut high = low.clone();
                    low[*axis] = start;
                    high[*axis] = ty.shape[*axis] - start - size;
                    start += size;
                    let step = Move {
                        op: Op::Pad { low, high },
                        from: graph.shape(operand).to_vec(),
                        to: ty.shape.clone(),
                        operand: Some(operand),
                    };
                    // One operand may appear twice, at different places: a chain for each.
                    let inner = self.chains.len();
                    self.chains.push((chain, step));
                    let value = self.value(operand, inner, points)?;
                    result = Some(match result {
                        None => value,
                        Some(rest) => {
                            let access = self.inside(graph.shape(operand), inner)?;
                            let inside = self.expr(Expr::Inside { access });
                            self.expr(Expr::Scalar { op: ScalarOp::Select, args: vec![inside, value, rest] })
                        }
                    });
                }
                result.ok_or(Refusal::Misaligned)
            }
            Op::Reduce { .. }
            | Op::MatMul
            | Op::Conv2d { .. }
            | Op::Conv2dInputGrad { .. }
            | Op::Conv2dFilterGrad { .. }
            | Op::Winograd(_) => Err(Refusal::NeedsBuffer(node)),
            Op::Input { .. } | Op::State { .. } => unreachable!("inputs and state are in memory"),
            Op::Gradient | Op::Detach => unreachable!("differentiation leaves none"),
        }
    }

    fn push(&mut self, chain: ChainId, mover: NodeId, operand: NodeId, op: Op) -> ChainId {
        let (from, to) = (self.graph().shape(operand).to_vec(), self.graph().shape(mover).to_vec());
        self.chain(chain, Some(mover), operand, Move { op, from, to, operand: Some(operand) })
    }

    /// A value through a chain that ends in padding: 0 outside.
    fn padded(&mut self, operand: NodeId, chain: ChainId, points: Points) -> Result<ExprId, Refusal> {
        let value = self.value(operand, chain, points)?;
        // A leaf's own access is bounded already.
        if matches!(self.exprs[value], Expr::Scalar { .. } | Expr::Slot(_) | Expr::Accumulator) {
            let shape = self.graph().shape(operand).to_vec();
            self.inside_only(value, &shape, chain)
        } else {
            Ok(value)
        }
    }

    /// A member's value can be used only at the point that computes it.
    fn member_value(
        &mut self,
        node: NodeId,
        place: MemberValue,
        chain: ChainId,
        points: Points,
    ) -> Result<ExprId, Refusal> {
        let access = self.access(self.lowering.graph.shape(node), chain)?;
        match (place, points) {
            (MemberValue::Full(expr), Points::Full) if access.is_contiguous(&self.space) => Ok(expr),
            // The kept shape has size 1 where the space is reduced, so its strides are 0 there.
            (MemberValue::Slot(slot), _) if access.is_contiguous(&self.kept) => Ok(self.expr(Expr::Slot(slot))),
            _ => Err(Refusal::Misaligned),
        }
    }

    /// The bounds of a value alone.
    fn inside(&self, shape: &[usize], chain: ChainId) -> Result<Access, Refusal> {
        let access = self.access(shape, chain)?;
        Ok(Access { offset: 0, strides: vec![0; access.strides.len()], bounds: access.bounds })
    }

    /// `value` inside the chain's bounds, else 0.
    fn inside_only(&mut self, value: ExprId, shape: &[usize], chain: ChainId) -> Result<ExprId, Refusal> {
        // Bounds come from padding alone, and a constant's elements are all alike: reshapes that no
        // view expresses do not matter where there is no padding.
        if !self.is_padded(chain) {
            return Ok(value);
        }
        let access = self.inside(shape, chain)?;
        if access.bounds.is_empty() {
            return Ok(value);
        }
        let inside = self.expr(Expr::Inside { access });
        let zero = self.expr(Expr::Constant { value: Real(0.0), dtype: DType::F32 });
        Ok(self.expr(Expr::Scalar { op: ScalarOp::Select, args: vec![inside, value, zero] }))
    }

    fn is_padded(&self, mut chain: ChainId) -> bool {
        while chain != 0 {
            let (parent, step) = &self.chains[chain];
            if matches!(step.op, Op::Pad { .. } | Op::Im2col { .. }) {
                return true;
            }
            chain = *parent;
        }
        false
    }

    fn word(&self, node: NodeId, offset: usize) -> Result<Word<ValueId>, Refusal> {
        match self.graph().op(node) {
            Op::Constant { value, .. } => Ok(Word::Constant(value.0 as u32)),
            _ if self.lowering.in_memory[node.index()] && !self.members.contains_key(&node) => {
                Ok(Word::Load { buffer: ValueId::of(node), offset })
            }
            _ => Err(Refusal::NeedsBuffer(node)),
        }
    }
}
