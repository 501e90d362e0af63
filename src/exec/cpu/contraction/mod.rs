//! Running contractions.
//!
//! Each is a few parallel phases: operands are put into the layout that the inner kernels want, then
//! blocks of the product are computed in a worker's own memory, where the epilogue turns them into what
//! is stored. Work is cut by sizes alone and each sum has one order, so the bits do not depend on the
//! number of threads.

mod filter_grad;
mod frame;
mod images;
mod input_grad;
mod matmul;
mod matrix;
mod patches;
mod sum_parts;

use super::arena::{Arena, Floats, Location};
use super::gemm::Isa;
use super::nest::{NestProgram, Scratch, Write, write};
use super::tile::{Registers, Segment, Surroundings};
use super::tile_program::{TILE, TileProgram, TileSpace};
use crate::kernel::access::Access;
use crate::kernel::body::{BufferId, Contraction, ExprId, Nest, Operand, Store};
use crate::kernel::choice::{Algorithm, Choice, Columns, Purpose, images_added};
use crate::kernel::contraction::ContractionKind;
use crate::tensor::{DType, Shape};
use filter_grad::{FilterGrad, Gather};
use images::{Geometry, ImageProduct, PackFilter};
use input_grad::InputGrad;
use matmul::{ColumnSource, MatMul, Results};
use matrix::Matrix;
use patches::Patches;
use std::sync::Arc;
use sum_parts::SumParts;

/// A contraction made ready to run on one plan's arena.
#[derive(Debug)]
pub struct ContractionProgram {
    pub phases: Vec<Phase>,
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
    InputGrad(InputGrad),
    SumParts(SumParts),
}

/// What one worker needs; reused from kernel to kernel.
#[derive(Debug, Default)]
pub struct Worker {
    pub nest: Scratch,
    /// Rows, in the order that the inner kernels read.
    rows: Floats,
    /// Panels of columns.
    columns: Floats,
    /// A block of the product.
    block: Floats,
    /// The same in the order of the output.
    out: Floats,
    starts: Vec<usize>,
    /// How many workers share a kernel's tasks: the task that this one is given next is about as many further.
    workers: usize,
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
    pub fn block(floats: usize) -> Needs {
        Needs { block: floats, ..Needs::default() }
    }

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
    /// Memory for one task, as much as any needs.
    pub fn block(&mut self) -> &mut [f32] {
        &mut self.block
    }

    pub fn new(nest: Scratch, needs: Needs, workers: usize) -> Worker {
        Worker {
            nest,
            rows: Floats::new(needs.rows),
            columns: Floats::new(needs.columns),
            block: Floats::new(needs.block),
            out: Floats::new(needs.out),
            starts: Vec::with_capacity(needs.starts),
            workers,
        }
    }
}

/// What becomes of a product's elements.
#[derive(Debug)]
pub struct Epilogue {
    program: TileProgram,
    stores: Vec<Write>,
}

impl Epilogue {
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
pub(super) struct InMemory {
    /// The element at which its buffer starts.
    base: usize,
    access: Access,
    dtype: DType,
}

impl ContractionProgram {
    /// `place` says where a buffer is, those of the choice's workspace included.
    pub fn new(
        c: &Contraction<BufferId>,
        choice: &Choice,
        isa: Isa,
        place: &dyn Fn(BufferId) -> Location,
    ) -> ContractionProgram {
        // A plan's verification sees that there is the workspace that the algorithm needs.
        let workspace = |purpose: Purpose| choice.buffer(purpose).map_or(0, |buffer| place(buffer).first());
        let mut phases = Vec::new();
        let (shapes, _) = c.kind.shapes();
        let mut source = |operand: &Operand<BufferId>, shape: &Shape, purpose: Purpose| match operand {
            Operand::Buffer { buffer, access } => {
                let place = place(*buffer);
                InMemory { base: place.first(), access: access.clone(), dtype: place.dtype }
            }
            Operand::Computed { exprs, .. } => {
                let access = Access::contiguous(shape);
                if let (Some(value), Some(buffer)) = (exprs.last(), choice.buffer(purpose)) {
                    let stores = vec![Store { value, buffer, access: access.clone() }];
                    let prologue = Nest::elementwise(shape.clone(), exprs.clone(), stores);
                    phases.push(Phase::Nest(NestProgram::new(&prologue, place)));
                }
                InMemory { base: workspace(purpose), access, dtype: DType::F32 }
            }
        };
        let sources = [
            source(&c.operands[0], &shapes[0], Purpose::FirstOperand),
            source(&c.operands[1], &shapes[1], Purpose::SecondOperand),
        ];
        let roots: Vec<ExprId> = c.stores.iter().map(|s| s.value).collect();
        let no_repeat = vec![false; c.space.len()];
        // The sums as they are: in the one result where that is all, in the workspace where an epilogue sweeps them.
        let sums = choice.buffer(Purpose::Sums);
        let plain = match sums {
            Some(buffer) => Some(place(buffer)),
            None => {
                (c.stores.first()).filter(|_| c.is_stored_plainly(|b| place(*b).dtype)).map(|store| place(store.buffer))
            }
        };
        let results = || match plain {
            Some(to) => Results::Plain(to),
            None => Results::Through(Epilogue {
                program: TileProgram::new(&c.exprs, &roots, TileSpace { shape: &c.space, repeated: &no_repeat }, place),
                stores: c.stores.iter().map(|s| Write::new(s, &c.space, place)).collect(),
            }),
        };
        match (&choice.algorithm, &c.kind) {
            (Algorithm::MatMul { columns, tile }, &ContractionKind::MatMul { batch, m, n, k }) => {
                let sizes = [batch, m, n, k];
                let operands = (Matrix::of(&sources[0]), ColumnSource::Matrix(Matrix::of(&sources[1])));
                phases.push(Phase::MatMul(MatMul::new(isa, sizes, 1, *columns, *tile, operands, results())));
            }
            (Algorithm::Patches { tile }, &ContractionKind::Conv2d(conv)) => {
                let (taps, pixels) = (conv.taps(), conv.pixels());
                let filter = Matrix::new(sources[1].base, [0, taps as isize, 1]);
                let patches =
                    ColumnSource::Patches { of: Patches::new(&conv), images: sources[0].base, is_turned: false };
                let (sizes, operands) = ([conv.n, conv.o, pixels, taps], (filter, patches));
                phases.push(Phase::MatMul(MatMul::new(isa, sizes, 1, Columns::Panels, *tile, operands, results())));
            }
            (Algorithm::Patches { tile }, ContractionKind::Conv2dInputGrad(conv)) => {
                let operands = [sources[0].base, sources[1].base];
                phases.push(Phase::InputGrad(InputGrad::new(isa, conv, *tile, operands, results())));
            }
            (Algorithm::Patches { tile }, &ContractionKind::Conv2dFilterGrad(conv)) => {
                let (taps, pixels) = (conv.taps(), conv.pixels());
                let partials = Location::new(workspace(Purpose::Partials) * size_of::<f32>(), DType::F32);
                let strides = [conv.o * pixels, pixels, 1].map(|stride| stride as isize);
                let gradient = Matrix::new(sources[1].base, strides);
                let patches =
                    ColumnSource::Patches { of: Patches::new(&conv), images: sources[0].base, is_turned: true };
                let (sizes, operands) = ([conv.n, conv.o, taps, pixels], (gradient, patches));
                let (together, plain) = (images_added(conv.n), Results::Plain(partials));
                let product = MatMul::new(isa, sizes, together, Columns::Panels, *tile, operands, plain);
                phases.push(Phase::MatMul(product));
                let count = conv.n.div_ceil(together);
                phases.push(Phase::SumParts(SumParts::new(partials.first(), count, conv.o * taps, results())));
            }
            (Algorithm::Images(images), kind) => {
                let geometry = Arc::new(Geometry::new(kind, isa, images));
                let packed = workspace(Purpose::PackedFilter);
                phases.push(Phase::PackFilter(PackFilter::new(&geometry, sources[1].base, packed)));
                let product = ImageProduct::new(&geometry, isa, sources[0].base, packed, results());
                phases.push(Phase::Images(product));
            }
            (Algorithm::FilterGradient { tile }, ContractionKind::Conv2dFilterGrad(conv)) => {
                let made = [Purpose::PaddedImages, Purpose::GradientBlocks].map(workspace);
                let gather = Arc::new(Gather::new(conv, *tile, [sources[0].base, sources[1].base], made));
                phases.push(Phase::Gather(gather.clone()));
                phases.push(Phase::FilterGrad(FilterGrad::new(isa, gather, plain.map_or(0, Location::first))));
            }
            _ => unreachable!("a plan's verification sees that algorithms fit"),
        }
        if let Some(sums) = sums {
            let row_major = Access::contiguous(&c.space);
            phases.push(Phase::Nest(NestProgram::new(&c.epilogue(sums, &row_major, 1), place)));
        }
        ContractionProgram { phases }
    }

    pub fn needs(&self) -> Needs {
        self.phases.iter().map(Phase::needs).fold(Needs::default(), Needs::max)
    }
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
            Phase::InputGrad(grad) => grad.tasks(),
            Phase::SumParts(sum) => sum.tasks(),
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
            Phase::InputGrad(grad) => grad.run(task, arena, worker),
            Phase::SumParts(sum) => sum.run(task, arena, worker),
        }
    }

    fn needs(&self) -> Needs {
        match self {
            Phase::Nest(_) | Phase::PackFilter(_) | Phase::Gather(_) => Needs::default(),
            Phase::Images(product) => product.needs(),
            Phase::FilterGrad(grad) => grad.needs(),
            Phase::MatMul(product) => product.needs(),
            Phase::InputGrad(grad) => grad.needs(),
            Phase::SumParts(sum) => sum.needs(),
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
    pub fn program(&self) -> Option<&TileProgram> {
        match self {
            Phase::Images(product) => product.results.program(),
            Phase::MatMul(product) => product.results.program(),
            Phase::InputGrad(grad) => grad.results.program(),
            Phase::SumParts(sum) => sum.results.program(),
            Phase::Nest(_) | Phase::PackFilter(_) | Phase::Gather(_) | Phase::FilterGrad(_) => None,
        }
    }
}

/// Cuts `total` into equal parts of at most `most`; gives starts and lengths.
fn parts(total: usize, most: usize) -> Vec<(usize, usize)> {
    let count = total.div_ceil(most.max(1));
    let size = total.div_ceil(count.max(1)).max(1);
    (0..total).step_by(size).map(|start| (start, size.min(total - start))).collect()
}
