//! Kernels: what one launch computes, as data.
//!
//! A kernel's body is a small expression graph over an index space. Each executor translates it: the CPU evaluates it
//! tile by tile, CUDA compiles it from C++ text.

use super::access::{Access, kept_shape};
use super::choice::Choice;
use super::contraction::ContractionKind;
pub use super::expr::{BufferId, Expr, ExprId, Exprs, SlotId, Word};
use crate::scalar::ScalarOp;
use crate::tensor::{DType, Shape};
use crate::types::Real;
pub use crate::types::ReduceKind;
use crate::winograd::{Planes, Transform};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;

/// Writes a value of each point of a space into a buffer: the access takes the points, in some order, to exactly the
/// buffer's elements.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Store<B> {
    pub value: ExprId,
    pub buffer: B,
    pub access: Access,
}

/// How a sweep combines a value over the reduced dimensions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reduction {
    pub kind: ReduceKind,
    pub value: ExprId,
    /// Where the result goes.
    pub slot: SlotId,
}

/// One traversal of the reduced dimensions, for one point of the kept space.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sweep<B> {
    /// Over the full space: combined into slots.
    pub reductions: Vec<Reduction>,
    /// Over the full space: written.
    pub stores: Vec<Store<B>>,
    /// Over the kept space, after the sweep and in order: values computed into slots. Their
    /// expressions are over the kept shape (accesses have stride 0 on reduced dimensions).
    pub kept: Vec<(SlotId, ExprId)>,
    /// Over the kept space, after `kept`: written; their accesses are over the kept shape.
    pub kept_stores: Vec<Store<B>>,
}

/// A loop nest over an index space, some of whose dimensions are reduced.
///
/// For each point of the kept space (the dimensions that are not reduced) the sweeps run one after
/// the other; each covers the reduced dimensions once. So batch normalisation is one nest of three
/// sweeps (mean, variance, normalise) that reads its input from memory once, where a kept point's data
/// fits a cache. A purely elementwise kernel has nothing reduced and one sweep with `stores` only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nest<B> {
    pub space: Shape,
    /// For each dimension of the space, whether it is reduced.
    pub reduced: Vec<bool>,
    pub exprs: Exprs<B>,
    /// How many kept values there are.
    pub slots: usize,
    pub sweeps: Vec<Sweep<B>>,
}

/// Where a contraction's operand comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operand<B> {
    /// A buffer under an unbounded access over the operand's shape: of a matrix product any, of a convolution row-major where
    /// the target's are.
    Buffer { buffer: B, access: Access },
    /// A prologue: expressions over the operand's shape, the last of which is the operand. An algorithm that stages pieces of
    /// operands in shared memory may stage what the load `staged` reads, f32 by an unbounded access, and compute the operand
    /// there.
    Computed { exprs: Exprs<B>, staged: Option<ExprId> },
}

/// A matrix product or convolution with what is fused around it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contraction<B> {
    pub kind: ContractionKind,
    pub operands: [Operand<B>; 2],
    /// The shape of the output, which is the index space of the epilogue (coalesced); with dimensions cut in two or more where
    /// only a part of one is reduced, as the images of each call.
    pub space: Shape,
    /// The epilogue: expressions over the output.
    pub exprs: Exprs<B>,
    pub stores: Vec<Store<B>>,
    /// For each dimension of the space, whether the epilogue's reductions are over it.
    pub reduced: Vec<bool>,
    pub reductions: Vec<EpilogueReduction>,
    pub finish: Finish<B>,
}

/// A value of a contraction's epilogue combined over the reduced dimensions of its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpilogueReduction {
    pub kind: ReduceKind,
    pub value: ExprId,
}

/// What is done with an epilogue's reductions once they are complete, at each point of the kept shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finish<B> {
    /// Over the kept shape; [`Expr::Slot`] is the reduction of that number.
    pub exprs: Exprs<B>,
    pub stores: Vec<Store<B>>,
}

/// A transform of minimal filtering, from one buffer to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransformBody<B> {
    pub transform: Transform,
    /// The first two sizes of the map.
    pub planes: [usize; 2],
    /// Row-major, as the result is.
    pub operand: B,
    /// The result's shape.
    pub space: Shape,
    /// What is stored of the sums: themselves.
    pub exprs: Exprs<B>,
    pub store: Store<B>,
}

impl<B> TransformBody<B> {
    /// Where it finds and leaves its numbers.
    pub fn layout(&self) -> Planes {
        let is_row_major = self.store.access.is_contiguous(&self.space);
        if is_row_major { self.transform.planes(self.planes) } else { self.transform.turned_planes(self.planes) }
    }
}

/// What a kernel does.
// There are some hundred bodies in a program: their size does not matter.
#[allow(clippy::large_enum_variant)]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body<B> {
    /// Loop nests that do not depend on each other. More than one is a multi-tensor kernel.
    Nests(Vec<Nest<B>>),
    Contraction(Contraction<B>),
    Transform(TransformBody<B>),
}

/// One launch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// Unique in the schedule; an identifier in C.
    pub name: String,
    pub body: Body<BufferId>,
    /// How it is computed.
    pub choice: Choice,
    /// The buffers that are read, each once, in ascending order.
    pub reads: Vec<BufferId>,
    /// The buffers that are written, each once, in ascending order.
    pub writes: Vec<BufferId>,
    /// The names of the nodes that are computed here, operands before users.
    pub nodes: Vec<String>,
}

/// The sort of a kernel, as summaries count them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KernelKind {
    Contraction,
    Transform,
    Reduction,
    Elementwise,
    MultiTensor,
}

impl KernelKind {
    pub fn name(self) -> &'static str {
        match self {
            KernelKind::Contraction => "contraction",
            KernelKind::Transform => "transform",
            KernelKind::Reduction => "reduction",
            KernelKind::Elementwise => "elementwise",
            KernelKind::MultiTensor => "multi-tensor",
        }
    }
}

impl Kernel {
    pub fn kind(&self) -> KernelKind {
        match &self.body {
            Body::Contraction(_) => KernelKind::Contraction,
            Body::Transform(_) => KernelKind::Transform,
            Body::Nests(nests) => match nests.as_slice() {
                [nest] if nest.reduced.contains(&true) => KernelKind::Reduction,
                [_] => KernelKind::Elementwise,
                _ => KernelKind::MultiTensor,
            },
        }
    }
}

impl<B> Default for Sweep<B> {
    fn default() -> Self {
        Sweep { reductions: Vec::new(), stores: Vec::new(), kept: Vec::new(), kept_stores: Vec::new() }
    }
}

impl<B> Default for Finish<B> {
    fn default() -> Self {
        Finish { exprs: Exprs::default(), stores: Vec::new() }
    }
}

impl<B: PartialEq> Finish<B> {
    /// Whether `result` may lie over `old`, where it is stored here: what is read of that is the very element that is written.
    /// One store comes after the other, so no other may need it.
    pub fn may_overwrite(&self, old: &B, result: &B) -> Option<bool> {
        let (own, others): (Vec<_>, Vec<_>) = self.stores.iter().partition(|store| store.buffer == *result);
        let write = own.first()?;
        let needed = self.exprs.needed(others.iter().map(|store| store.value));
        let may_read = |id: ExprId| {
            let is_written = matches!(&self.exprs[id], Expr::Load { access, .. } if *access == write.access);
            is_written && !needed[id.index()]
        };
        Some(self.exprs.ids().filter(|&id| self.exprs[id].reads().any(|read| read == old)).all(may_read))
    }
}

impl<B: Clone> Finish<B> {
    /// The kept stores of a nest that reduces the same. Adds their expressions to the nest's. `slots` are the nest's slots of
    /// the reductions in order, and `map` takes an access over the kept shape to one over the nest's.
    pub fn kept_stores(
        &self,
        exprs: &mut Exprs<B>,
        slots: &[SlotId],
        map: impl Fn(&Access) -> Access,
    ) -> Vec<Store<B>> {
        let own = self.exprs.clone().with_accesses(&map);
        let renumbered = exprs.append(own, |expr| match expr {
            Expr::Slot(slot) => Expr::Slot(slots[slot.index()]),
            other => other,
        });
        let store = |store: &Store<B>| Store {
            value: renumbered[store.value.index()],
            buffer: store.buffer.clone(),
            access: map(&store.access),
        };
        self.stores.iter().map(store).collect()
    }
}

impl<B> Sweep<B> {
    /// What is evaluated at every point of the full space.
    pub fn swept(&self) -> impl Iterator<Item = ExprId> {
        self.reductions.iter().map(|r| r.value).chain(self.stores.iter().map(|s| s.value))
    }

    /// What is evaluated at every kept point.
    pub fn kept_values(&self) -> impl Iterator<Item = ExprId> {
        self.kept.iter().map(|(_, value)| *value).chain(self.kept_stores.iter().map(|s| s.value))
    }
}

impl<B> Nest<B> {
    /// Computes values at every point of a space and stores them.
    pub fn elementwise(space: Shape, exprs: Exprs<B>, stores: Vec<Store<B>>) -> Nest<B> {
        let sweep = Sweep { stores, ..Sweep::default() };
        Nest { reduced: vec![false; space.len()], space, exprs, slots: 0, sweeps: vec![sweep] }
    }

    pub fn stores(&self) -> impl Iterator<Item = &Store<B>> {
        self.sweeps.iter().flat_map(|p| p.stores.iter().chain(&p.kept_stores))
    }
}

impl<B: Clone> Nest<B> {
    /// The nest with its dimensions in the order in which they lie in memory, so that neighbouring points are neighbours
    /// there: by what the first store of the most elements writes, or where that writes less than the whole space, by what
    /// the widest load reads.
    pub fn in_memory_order(self) -> Nest<B> {
        let spanned = |access: &Access| access.strides.iter().filter(|stride| **stride != 0).count();
        let stores = self.sweeps.iter().flat_map(|sweep| &sweep.stores).map(|store| &store.access);
        let loads = self.exprs.iter().filter_map(|expr| match expr {
            Expr::Load { access, .. } => Some(access),
            _ => None,
        });
        // The first of those that span most dimensions.
        let Some(leading) = stores.chain(loads).min_by_key(|access| Reverse(spanned(access))) else { return self };
        let mut permutation: Vec<usize> = (0..self.space.len()).collect();
        permutation.sort_by_key(|&d| Reverse(leading.strides[d].unsigned_abs()));
        if permutation.is_sorted() { self } else { self.permuted(&permutation) }
    }

    /// With its dimensions in another order: dimension `d` of the result is `permutation[d]`.
    pub fn permuted(&self, permutation: &[usize]) -> Nest<B> {
        let space = permutation.iter().map(|&d| self.space[d]).collect();
        let reduced = permutation.iter().map(|&d| self.reduced[d]).collect();
        self.with_accesses(space, reduced, |access| access.permuted(permutation))
    }

    /// With dimension `d` as two: the number of a run of `run` points, which divide it, and that of a point of the run.
    pub fn cut(&self, d: usize, run: usize) -> Nest<B> {
        let (mut space, mut reduced) = (self.space.clone(), self.reduced.clone());
        space[d] /= run;
        space.insert(d + 1, run);
        reduced.insert(d + 1, reduced[d]);
        self.with_accesses(space, reduced, |access| access.cut(d, self.space[d], run))
    }

    /// Over another space, whose points each access of the nest's is taken to.
    fn with_accesses(&self, space: Shape, reduced: Vec<bool>, map: impl Fn(&Access) -> Access) -> Nest<B> {
        let mapped = |stores: &[Store<B>]| -> Vec<Store<B>> {
            stores.iter().map(|store| Store { access: map(&store.access), ..store.clone() }).collect()
        };
        let sweep = |sweep: &Sweep<B>| Sweep {
            stores: mapped(&sweep.stores),
            kept_stores: mapped(&sweep.kept_stores),
            ..sweep.clone()
        };
        let sweeps = self.sweeps.iter().map(sweep).collect();
        Nest { space, reduced, exprs: self.exprs.clone().with_accesses(&map), slots: self.slots, sweeps }
    }
}

impl<B: Clone> Contraction<B> {
    /// Where sums lie, each of their parts alike, that wait in memory for the epilogue of a kernel on a GPU: as what it
    /// stores first, so that neighbours are read, computed and written as neighbours.
    pub fn order_of_sums(&self) -> Access {
        match self.stores.first() {
            Some(store) => store.access.clone(),
            None => Access::contiguous(&self.space),
        }
    }

    /// The epilogue as a nest of its own, which reads the sums from a buffer by an access: in one or more parts, one after
    /// the other.
    pub fn epilogue(&self, sums: B, by: &Access, parts: usize) -> Nest<B> {
        let elements = self.space.iter().product();
        let (mut exprs, renumbered) = self.exprs.clone().with_accumulator_in(sums, by, elements, parts);
        let renumber = |store: &Store<B>| Store { value: renumbered[store.value.index()], ..store.clone() };
        let mut sweep = Sweep { stores: self.stores.iter().map(renumber).collect(), ..Sweep::default() };
        let mut second = Sweep::default();
        let mut slots = 0;
        let count = elements / kept_shape(&self.space, &self.reduced).iter().product::<usize>();
        let mut reduce = |sweep: &mut Sweep<B>, kind: ReduceKind, value: ExprId| {
            let slot = SlotId::new(slots);
            slots += 1;
            sweep.reductions.push(Reduction { kind, value, slot });
            slot
        };
        let mut results = Vec::with_capacity(self.reductions.len());
        for reduction in &self.reductions {
            let value = renumbered[reduction.value.index()];
            results.push(match reduction.kind {
                kind @ (ReduceKind::Sum | ReduceKind::Max) => reduce(&mut sweep, kind, value),
                ReduceKind::Deviations => {
                    let sum = reduce(&mut sweep, ReduceKind::Sum, value);
                    let sum = exprs.push(Expr::Slot(sum));
                    let square = squared_deviation(&mut |expr| exprs.push(expr), value, sum, count);
                    reduce(&mut second, ReduceKind::Sum, square)
                }
            });
        }
        let (space, reduced) = (self.space.clone(), self.reduced.clone());
        let mut sweeps = if second.reductions.is_empty() { vec![sweep] } else { vec![sweep, second] };
        if let Some(last) = sweeps.last_mut() {
            last.kept_stores = self.finish.kept_stores(&mut exprs, &results, Access::clone);
        }
        Nest { space, reduced, exprs, slots, sweeps }
    }
}

/// The square of how far a value is from the mean that the sum of `count` such comes to.
pub fn squared_deviation<B>(
    add: &mut dyn FnMut(Expr<B>) -> ExprId,
    value: ExprId,
    sum: ExprId,
    count: usize,
) -> ExprId {
    let of_one = add(Expr::Constant { value: Real(1.0 / count as f64), dtype: DType::F32 });
    let mean = add(Expr::Scalar { op: ScalarOp::Mul, args: vec![sum, of_one] });
    let deviation = add(Expr::Scalar { op: ScalarOp::Sub, args: vec![value, mean] });
    add(Expr::Scalar { op: ScalarOp::Mul, args: vec![deviation, deviation] })
}

impl<B> Operand<B> {
    /// What computes the operand, where it has a prologue.
    pub fn exprs(&self) -> Option<&Exprs<B>> {
        match self {
            Operand::Buffer { .. } => None,
            Operand::Computed { exprs, .. } => Some(exprs),
        }
    }

    /// What can be staged of it in shared memory, piece by piece: a buffer, and by which access over the operand's shape.
    pub fn staged(&self) -> Option<(&B, &Access)> {
        match self {
            Operand::Buffer { buffer, access } => Some((buffer, access)),
            Operand::Computed { exprs, staged } => match exprs.get((*staged)?)? {
                Expr::Load { buffer, access, .. } => Some((buffer, access)),
                _ => None,
            },
        }
    }

    /// Whether it has a prologue that can be computed where it is staged.
    pub fn has_staged_prologue(&self) -> bool {
        self.exprs().is_some() && self.staged().is_some()
    }

    pub fn reads(&self) -> impl Iterator<Item = &B> {
        let buffer = match self {
            Operand::Buffer { buffer, .. } => Some(buffer),
            Operand::Computed { .. } => None,
        };
        buffer.into_iter().chain(self.exprs().into_iter().flat_map(Exprs::reads))
    }
}

impl<B> Body<B> {
    /// Every reference to what is read, in order and repeated as often as it is read.
    pub fn reads(&self) -> Box<dyn Iterator<Item = &B> + '_> {
        match self {
            Body::Nests(nests) => Box::new(nests.iter().flat_map(|n| n.exprs.reads())),
            Body::Contraction(c) => {
                let epilogue = c.exprs.reads().chain(c.finish.exprs.reads());
                Box::new(c.operands.iter().flat_map(Operand::reads).chain(epilogue))
            }
            Body::Transform(t) => Box::new(std::iter::once(&t.operand)),
        }
    }

    /// Every store, in order.
    pub fn stores(&self) -> Box<dyn Iterator<Item = &Store<B>> + '_> {
        match self {
            Body::Nests(nests) => Box::new(nests.iter().flat_map(Nest::stores)),
            Body::Contraction(c) => Box::new(c.stores.iter().chain(&c.finish.stores)),
            Body::Transform(t) => Box::new(std::iter::once(&t.store)),
        }
    }

    /// The body with what it reads and writes named in another way.
    pub fn map<C>(self, name: &mut impl FnMut(B) -> C) -> Body<C> {
        fn store<B, C>(store: Store<B>, name: &mut impl FnMut(B) -> C) -> Store<C> {
            Store { value: store.value, buffer: name(store.buffer), access: store.access }
        }
        fn stores<B, C>(stores: Vec<Store<B>>, name: &mut impl FnMut(B) -> C) -> Vec<Store<C>> {
            stores.into_iter().map(|s| store(s, name)).collect()
        }
        fn nest<B, C>(nest: Nest<B>, name: &mut impl FnMut(B) -> C) -> Nest<C> {
            let sweeps = (nest.sweeps.into_iter())
                .map(|sweep| Sweep {
                    reductions: sweep.reductions,
                    stores: stores(sweep.stores, name),
                    kept: sweep.kept,
                    kept_stores: stores(sweep.kept_stores, name),
                })
                .collect();
            let exprs = nest.exprs.map(name);
            Nest { space: nest.space, reduced: nest.reduced, exprs, slots: nest.slots, sweeps }
        }
        fn operand<B, C>(operand: Operand<B>, name: &mut impl FnMut(B) -> C) -> Operand<C> {
            match operand {
                Operand::Buffer { buffer, access } => Operand::Buffer { buffer: name(buffer), access },
                Operand::Computed { exprs, staged } => Operand::Computed { exprs: exprs.map(name), staged },
            }
        }
        match self {
            Body::Nests(nests) => Body::Nests(nests.into_iter().map(|n| nest(n, name)).collect()),
            Body::Transform(t) => Body::Transform(TransformBody {
                transform: t.transform,
                planes: t.planes,
                operand: name(t.operand),
                space: t.space,
                exprs: t.exprs.map(name),
                store: store(t.store, name),
            }),
            Body::Contraction(c) => {
                let [a, b] = c.operands;
                Body::Contraction(Contraction {
                    kind: c.kind,
                    operands: [operand(a, name), operand(b, name)],
                    space: c.space,
                    exprs: c.exprs.map(name),
                    stores: stores(c.stores, name),
                    reduced: c.reduced,
                    reductions: c.reductions,
                    finish: Finish { exprs: c.finish.exprs.map(name), stores: stores(c.finish.stores, name) },
                })
            }
        }
    }
}
