//! The choice of an algorithm for each kernel, and the buffers that it works in.
//!
//! Choices follow from sizes by rule, so that a plan is the same wherever it is made.

use super::assemble::Assembled;
use crate::kernel::body::{Body, BufferId, Kernel};
use crate::kernel::choice::{Algorithm, Choice, Columns, ImageChoice, RowSource, Tile, WIDEST_PANEL, Workspace};
use crate::kernel::contraction::ContractionKind;
use crate::kernel::gemm::Gemm;
use crate::kernel::schedule::{Buffer, BufferRole};
use crate::kernel::target::Target;
use crate::tensor::DType;
use crate::types::MAX_BLOCK;

/// Up to this many columns a product is computed as dot products instead of padding a panel.
const FEW_COLUMNS: usize = 3;
/// Tap rows with fewer floats are gathered into one row of the product first.
const SHORT_RUN: usize = 32;
/// The most terms that are summed at a time: a panel of columns then stays in a first-level cache of 32 KiB.
const DEPTH: usize = 256;
/// A task's block of a matrix product, of rows of pixels, and of a filter gradient, which stays in a second-level
/// cache.
const MATMUL: Tile = Tile { rows: 192, columns: 256, depth: DEPTH };
const IMAGES: Tile = Tile { rows: 192, columns: WIDEST_PANEL, depth: DEPTH };
const FILTER_GRADIENT: Tile = Tile { rows: 288, columns: 128, depth: DEPTH };

/// Chooses for every kernel, and adds the buffers of its workspace.
pub fn select(work: &mut Assembled, target: Target) {
    let Assembled { kernels, buffers, .. } = work;
    for kernel in kernels {
        let algorithm = match target {
            Target::Cpu => on_cpu(&kernel.body),
        };
        let needed = algorithm.workspace(&kernel.body, |b| buffers[b.index()].dtype);
        let workspace = (needed.into_iter().filter(|(_, floats)| *floats > 0))
            .map(|(purpose, floats)| {
                buffers.push(Buffer {
                    name: format!("{}: {}", kernel.name, purpose.name()),
                    dtype: DType::F32,
                    shape: vec![floats],
                    order: Vec::new(),
                    role: BufferRole::Workspace,
                    offset: 0,
                    live: (0, 0),
                });
                Workspace { purpose, buffer: BufferId::new(buffers.len() - 1) }
            })
            .collect();
        kernel.choice = Choice { algorithm, workspace };
    }
}

fn on_cpu(body: &Body<BufferId>) -> Algorithm {
    let Body::Contraction(contraction) = body else { return Algorithm::Loops };
    let gemms = contraction.kind.gemms();
    let columns = gemms.first().map_or(0, |gemm| gemm.n.iter().product());
    let columns = if columns <= FEW_COLUMNS { Columns::Dots } else { Columns::Panels };
    match contraction.kind {
        ContractionKind::MatMul { .. } => Algorithm::MatMul { columns, tile: MATMUL },
        ContractionKind::Conv2d(_) | ContractionKind::Conv2dInputGrad(_) => {
            let rows = gemms.iter().map(row_source).collect();
            Algorithm::Images(ImageChoice { columns, rows, tile: IMAGES })
        }
        ContractionKind::Conv2dFilterGrad(_) => Algorithm::FilterGradient { tile: FILTER_GRADIENT },
    }
}

/// The taps of one row of a filter are consecutive floats of the padded image, those of several rows are not. Rows that
/// a thread has no room for stay where they are.
fn row_source(gemm: &Gemm) -> RowSource {
    let run: usize = gemm.k.iter().skip(1).product();
    let is_short = (1..SHORT_RUN).contains(&run) && gemm.k.first().is_some_and(|&rows| rows > 1);
    if is_short && gemm.gathered() <= MAX_BLOCK { RowSource::Gathered } else { RowSource::InPlace }
}

/// What a kernel has before one was chosen.
pub(super) fn none_yet() -> Choice {
    Choice { algorithm: Algorithm::Loops, workspace: Vec::new() }
}

/// The buffers that a kernel works in.
pub(super) fn workspace(kernel: &Kernel) -> impl Iterator<Item = BufferId> {
    kernel.choice.workspace.iter().map(|w| w.buffer)
}
