//! Running contractions.
//!
//! Each is a few parallel phases: operands are put into the layout that the inner kernels want, then
//! blocks of the product are computed in a worker's own memory, where the epilogue turns them into what
//! is stored. Work is cut by sizes alone and each sum has one order, so the bits do not depend on the
//! number of threads.

mod filter_grad;
mod images;
mod layout;
mod matmul;

use super::arena::{Arena, Location};
use super::gemm::Isa;
use super::nest::{NestProgram, Scratch, Write, write};
use super::program::{Program, TILE, TileSpace};
use super::tile::{Registers, Segment, Surroundings};
use crate::kernel::access::Access;
use crate::kernel::body::{BufferId, Contraction, Expr, ExprId, Exprs, Nest, Operand, Pass, Store};
use crate::kernel::contraction::ContractionKind;
use crate::plan::DType;
use crate::tensor::Shape;
use filter_grad::{FilterGrad, Gather};
use images::{Geometry, ImageProduct, PackFilter};
use matmul::MatMul;
use std::sync::Arc;

/// The most of the summed dimension that is taken at a time: a panel of columns then stays in a
/// first-level cache of 32 KiB.
const DEPTH: usize = 256;

/// A contraction made ready to run on one plan's arena.
#[derive(Debug)]
pub struct ContractionProgram {
    pub phases: Vec<Phase>,
    /// Floats of memory shared by the workers that it needs while it runs.
    pub shared_floats: usize,
}

/// Tasks that may run at the same time. Phases run one after the other.
#[derive(Debug)]
pub enum Phase {
    Nest(NestProgram),
    PackFilter(PackFilter),
    Images(ImageProduct),
    Gather(Arc<Gather>),
    FilterGrad(FilterGrad),
    MatMul(MatMul),
}

/// What one worker needs; reused from kernel to kernel.
#[derive(Debug, Default)]
pub struct Worker {
    pub nest: Scratch,
    /// Rows, in the order that the inner kernels read.
    rows: Vec<f32>,
    /// Panels of columns.
    columns: Vec<f32>,
    /// A block of the product.
    block: Vec<f32>,
    /// The same in the order of the output.
    out: Vec<f32>,
    starts: Vec<usize>,
}

/// How much of each a program needs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Needs {
    rows: usize,
    columns: usize,
    block: usize,
    out: usize,
    starts: usize,
}

impl Needs {
    pub fn max(self, other: Needs) -> Needs {
        Needs {
            rows: self.rows.max(other.rows),
            columns: self.columns.max(other.columns),
            block: self.block.max(other.block),
            out: self.out.max(other.out),
            starts: self.starts.max(other.starts),
        }
    }
}

impl Worker {
    pub fn new(nest: Scratch, needs: Needs) -> Worker {
        Worker {
            nest,
            rows: vec![0.0; needs.rows],
            columns: vec![0.0; needs.columns],
            block: vec![0.0; needs.block],
            out: vec![0.0; needs.out],
            starts: Vec::with_capacity(needs.starts),
        }
    }
}

/// What becomes of a product's elements.
#[derive(Debug)]
pub(super) struct Epilogue {
    program: Program,
    stores: Vec<Write>,
}

impl Epilogue {
    /// Where the product is stored as it is, and nothing else.
    fn plain(&self, exprs: &Exprs<BufferId>) -> Option<usize> {
        match self.stores.as_slice() {
            [store]
                if exprs[store.value] == Expr::Accumulator && store.to.is_none() && store.base.dtype == DType::F32 =>
            {
                Some(store.base.first())
            }
            _ => None,
        }
    }

    /// Before [`Epilogue::run`], once a task.
    fn share(&self, arena: Arena, registers: &mut Registers) {
        let around = Surroundings { arena, slots: &[], accumulator: &[] };
        registers.share(&self.program, around, &[Segment { start: 0, len: 1 }], true);
    }

    /// Stores what comes of the sums of consecutive points of the output.
    fn run(&self, start: usize, sums: &[f32], arena: Arena, registers: &mut Registers) {
        for (i, accumulator) in sums.chunks(TILE).enumerate() {
            let around = Surroundings { arena, slots: &[], accumulator };
            let segment = [Segment { start: start + i * TILE, len: accumulator.len() }];
            registers.run(&self.program, around, &segment, accumulator.len());
            write(registers, &self.stores, around, &segment);
        }
    }
}

/// An operand in memory.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// The float at which its buffer starts.
    base: usize,
    access: Access,
}

/// Hands out memory that the workers share while one contraction runs.
struct SharedMemory {
    base: usize,
    used: usize,
}

impl SharedMemory {
    fn take(&mut self, floats: usize) -> usize {
        let at = self.base + self.used;
        self.used += floats.next_multiple_of(16);
        at
    }
}

impl ContractionProgram {
    /// `place` says where a buffer is, `shared` is the first float behind it that
    /// contractions may use while they run.
    pub fn new(
        c: &Contraction<BufferId>,
        isa: Isa,
        place: &dyn Fn(BufferId) -> Location,
        shared: usize,
    ) -> ContractionProgram {
        let mut memory = SharedMemory { base: shared, used: 0 };
        let mut phases = Vec::new();
        let (shapes, _) = c.kind.shapes();
        let mut source = |operand: &Operand<BufferId>, shape: &Shape| match operand {
            Operand::Buffer { buffer, access } => Source { base: place(*buffer).first(), access: access.clone() },
            Operand::Computed { exprs } => {
                let base = memory.take(shape.iter().product());
                let access = Access::contiguous(shape);
                let value = ExprId::new(exprs.len().saturating_sub(1));
                let store = Store { value, buffer: outside(), access: access.clone() };
                phases.push(Phase::Nest(sweep(exprs.clone(), shape, vec![store], place, base)));
                Source { base, access }
            }
        };
        let sources = [source(&c.operands[0], &shapes[0]), source(&c.operands[1], &shapes[1])];
        let roots: Vec<ExprId> = c.stores.iter().map(|s| s.value).collect();
        let no_repeat = vec![false; c.space.len()];
        let epilogue = || Epilogue {
            program: Program::new(&c.exprs, &roots, TileSpace { shape: &c.space, repeated: &no_repeat }, place),
            stores: c.stores.iter().map(|s| Write::new(s, &c.space, place)).collect(),
        };
        let plain = epilogue().plain(&c.exprs);
        match &c.kind {
            ContractionKind::MatMul { batch, m, n, k } => {
                phases.push(Phase::MatMul(MatMul::new(isa, [*batch, *m, *n, *k], sources, epilogue(), plain)));
            }
            ContractionKind::Conv2d(conv) | ContractionKind::Conv2dInputGrad(conv) => {
                let geometry = Arc::new(match &c.kind {
                    ContractionKind::Conv2d(_) => Geometry::forward(conv, isa),
                    _ => Geometry::input_grad(conv, isa),
                });
                let packed = memory.take(geometry.packed_floats());
                phases.push(Phase::PackFilter(PackFilter::new(&geometry, sources[1].base, packed)));
                phases.push(Phase::Images(ImageProduct::new(
                    &geometry,
                    isa,
                    sources[0].base,
                    packed,
                    epilogue(),
                    plain,
                )));
            }
            ContractionKind::Conv2dFilterGrad(conv) => {
                let gather = Arc::new(Gather::new(conv, [sources[0].base, sources[1].base], |n| memory.take(n)));
                let into = plain.unwrap_or_else(|| memory.take(conv.filter_shape().iter().product()));
                phases.push(Phase::Gather(gather.clone()));
                phases.push(Phase::FilterGrad(FilterGrad::new(isa, gather, into)));
                if plain.is_none() {
                    // The sums come in an order of their own: what becomes of them is a sweep of its own.
                    let exprs = c.exprs.clone().with_accumulator_in(outside(), &c.space);
                    phases.push(Phase::Nest(sweep(exprs, &c.space, c.stores.clone(), place, into)));
                }
            }
        }
        ContractionProgram { phases, shared_floats: memory.used }
    }

    pub fn needs(&self) -> Needs {
        self.phases.iter().map(Phase::needs).fold(Needs::default(), Needs::max)
    }
}

/// Stands for memory that is no buffer of the plan.
fn outside() -> BufferId {
    BufferId::new(u32::MAX as usize)
}

/// An elementwise nest in which [`outside`] is at float `base`.
fn sweep(
    exprs: Exprs<BufferId>,
    space: &Shape,
    stores: Vec<Store<BufferId>>,
    place: &dyn Fn(BufferId) -> Location,
    base: usize,
) -> NestProgram {
    let base = Location::new(base * size_of::<f32>(), DType::F32);
    let pass = Pass { stores, ..Pass::default() };
    let nest = Nest { space: space.clone(), reduced: vec![false; space.len()], exprs, slots: 0, passes: vec![pass] };
    NestProgram::new(&nest, &|buffer| if buffer == outside() { base } else { place(buffer) })
}

impl Phase {
    pub fn tasks(&self) -> usize {
        match self {
            Phase::Nest(nest) => nest.tasks(),
            Phase::PackFilter(pack) => pack.tasks(),
            Phase::Images(product) => product.tasks(),
            Phase::Gather(gather) => gather.tasks(),
            Phase::FilterGrad(grad) => grad.tasks(),
            Phase::MatMul(product) => product.tasks(),
        }
    }

    pub fn run(&self, task: usize, arena: Arena, worker: &mut Worker) {
        match self {
            Phase::Nest(nest) => nest.run(task, arena, &mut worker.nest),
            Phase::PackFilter(pack) => pack.run(task, arena),
            Phase::Images(product) => product.run(task, arena, worker),
            Phase::Gather(gather) => gather.run(task, arena),
            Phase::FilterGrad(grad) => grad.run(task, arena, worker),
            Phase::MatMul(product) => product.run(task, arena, worker),
        }
    }

    fn needs(&self) -> Needs {
        match self {
            Phase::Nest(_) | Phase::PackFilter(_) | Phase::Gather(_) => Needs::default(),
            Phase::Images(product) => product.needs(),
            Phase::FilterGrad(grad) => grad.needs(),
            Phase::MatMul(product) => product.needs(),
        }
    }

    /// The nest of the phase, where it is one.
    pub fn nest(&self) -> Option<&NestProgram> {
        match self {
            Phase::Nest(nest) => Some(nest),
            _ => None,
        }
    }

    /// The program of the epilogue, where there is one.
    pub fn program(&self) -> Option<&Program> {
        match self {
            Phase::Images(product) => Some(&product.epilogue.program),
            Phase::MatMul(product) => Some(&product.epilogue.program),
            Phase::Nest(_) | Phase::PackFilter(_) | Phase::Gather(_) | Phase::FilterGrad(_) => None,
        }
    }
}

/// Cuts `total` into equal parts of at most `most`; gives starts and lengths.
fn parts(total: usize, most: usize) -> Vec<(usize, usize)> {
    let count = total.div_ceil(most);
    let size = total.div_ceil(count.max(1)).max(1);
    (0..total).step_by(size).map(|start| (start, size.min(total - start))).collect()
}
