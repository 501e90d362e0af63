//! How a kernel is computed: an algorithm, the sizes of its blocks, and the memory that it needs besides its operands.
//!
//! A choice is made when a program is compiled and is part of the plan, so a run decides nothing, and all the memory of
//! a step is planned. Block sizes are chosen for the target's widest instruction set and work on the others.

use super::access::kept_shape;
use super::body::{Body, BufferId, Contraction, Expr, Nest, Operand, Sweep};
use super::contraction::{ContractionKind, ConvShape};
use super::few_columns;
use super::gemm::Gemm;
use super::target::Target;
use super::tile_reduction::TileReduction;
use super::tiling::{self, tilings};
use super::warpgroup;
use crate::tensor::DType;
use crate::types::MAX_BLOCK;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;

/// How one kernel is computed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    pub algorithm: Algorithm,
    /// Memory for this kernel alone.
    pub workspace: Vec<Workspace>,
}

/// An algorithm that was measured to be the fastest for a kernel, in place of the one that sizes lead to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunedKernel {
    /// The kernel's entry, and the sizes in which that differs from the program's own.
    pub entry: String,
    pub sizes: Vec<(String, usize)>,
    pub kernel: String,
    pub algorithm: Algorithm,
}

/// A buffer that a kernel uses while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workspace {
    pub purpose: Purpose,
    pub buffer: BufferId,
}

/// What a workspace holds, in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// What the prologue of the first or second operand computes, row-major, where that is stored first.
    FirstOperand,
    SecondOperand,
    /// The filter in panels of columns.
    PackedFilter,
    /// Images with their channels innermost and zeros around.
    PaddedImages,
    /// The output gradient in blocks along the summed dimension.
    GradientBlocks,
    /// For each reduction of a nest and each part of a sweep, the results at the kept points; of a contraction's
    /// epilogue, those of each tile (see [`TileReduction`]); of a filter gradient from patches, those of each block of
    /// images.
    Partials,
    /// The contraction's sums before the epilogue; one after the other where they are added in parts. Row-major, on a GPU
    /// by [`Contraction::order_of_sums`].
    Sums,
}

/// The ways to compute a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// Loops over the index space, tile by tile.
    Loops,
    /// Blocks of a matrix product, whose columns each task packs for itself.
    MatMul { columns: Columns, tile: Tile },
    /// A convolution or its gradient in the input: each image's pixels times the filter, which is packed first.
    Images(ImageChoice),
    /// The gradient of a convolution in its filter: blocks of the output gradient times padded images, both made first.
    FilterGradient { tile: Tile },
    /// A convolution of images of few channels, or its gradient in the input or the filter: for each image a product
    /// with the filter or with the output's gradient as they lie in memory, of which the patches of the image are an
    /// operand or the result.
    Patches { tile: Tile },
    /// One loop nest of few kept points, whose sweeps are cut into parts for different blocks of a GPU's threads; the
    /// results of parts are combined in order.
    SplitSweeps { parts: usize },
    /// The matrix products of a contraction in tiles, one for each block of a GPU's threads.
    ThreadBlocks(ThreadBlocks),
}

/// See [`Algorithm::ThreadBlocks`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadBlocks {
    pub math: Math,
    pub tile: Tile,
    /// How many warps share a tile's rows and its columns.
    pub warps: [usize; 2],
    /// How many pieces of operands are in shared memory at a time.
    pub stages: usize,
    /// In how many parts the terms of a sum are added by different blocks; the parts are added in order.
    pub splits: usize,
}

/// How a GPU multiplies and adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Math {
    /// One by one in f32: works for all operands.
    Fma,
    /// Tensor cores on operands rounded to tf32.
    Tf32,
    /// Tensor cores on operands that are stored rounded to tf32.
    Tf32Stored,
    /// Tensor cores on operands split into sums of two tf32: as accurate as f32.
    Tf32x3,
    /// Tensor cores on operands rounded to bf16.
    Bf16,
    /// Tensor cores on operands that are stored as bf16.
    Bf16Stored,
}

impl Math {
    pub fn name(self) -> &'static str {
        match self {
            Math::Fma => "fma",
            Math::Tf32 => "tf32",
            Math::Tf32Stored => "stored tf32",
            Math::Tf32x3 => "3xtf32",
            Math::Bf16 => "bf16",
            Math::Bf16Stored => "stored bf16",
        }
    }

    /// What operands are in memory; `None` where it does not matter.
    pub fn operands(self) -> Option<DType> {
        match self {
            Math::Fma => None,
            Math::Tf32 | Math::Tf32Stored | Math::Tf32x3 | Math::Bf16 => Some(DType::F32),
            Math::Bf16Stored => Some(DType::Bf16),
        }
    }
}

/// See [`Algorithm::Images`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageChoice {
    pub columns: Columns,
    /// For each of the contraction's products (see [`ContractionKind::gemms`]), where its rows come from.
    pub rows: Vec<RowSource>,
    pub tile: Tile,
}

/// How the columns of a product are multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Columns {
    /// Packed side by side, as many as vectors hold.
    Panels,
    /// One by one, as dot products: for few columns.
    Dots,
}

/// Where the rows of a product come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowSource {
    /// They are read where they are in the padded image.
    InPlace,
    /// They are copied to consecutive memory first: for short runs of channels.
    Gathered,
}

/// Most rows and columns of the block that one task computes, and how many terms are summed at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tile {
    pub rows: usize,
    pub columns: usize,
    pub depth: usize,
}

/// Columns of the widest panel of any instruction set.
pub const WIDEST_PANEL: usize = 32;
/// Most rows, columns and terms of a [`Tile`].
pub const MAX_TILE: usize = 4096;
/// Most parts of a sum.
pub const MAX_SPLITS: usize = 128;

impl Algorithm {
    pub fn name(&self) -> &'static str {
        match self {
            Algorithm::Loops => "loops",
            Algorithm::SplitSweeps { .. } => "split sweeps",
            Algorithm::MatMul { columns: Columns::Panels, .. } => "matmul in panels",
            Algorithm::MatMul { columns: Columns::Dots, .. } => "dot products",
            Algorithm::Images(ImageChoice { columns: Columns::Dots, .. }) => "images, dot products",
            Algorithm::Images(choice) if choice.rows.contains(&RowSource::Gathered) => "images, rows gathered",
            Algorithm::Images(_) => "images, rows in place",
            Algorithm::FilterGradient { .. } => "filter gradient in blocks",
            Algorithm::Patches { .. } => "patches of images",
            Algorithm::ThreadBlocks(blocks) if warpgroup::is_choice(blocks) => match blocks.math {
                Math::Bf16Stored | Math::Bf16 => "warpgroups, stored bf16",
                Math::Tf32Stored => "warpgroups, stored tf32",
                Math::Tf32 | Math::Fma | Math::Tf32x3 => "warpgroups, tf32",
            },
            Algorithm::ThreadBlocks(blocks) if few_columns::is_choice(blocks) => "few columns, fma",
            Algorithm::ThreadBlocks(blocks) => match blocks.math {
                Math::Fma => "thread blocks, fma",
                Math::Tf32 => "thread blocks, tf32",
                Math::Tf32Stored => "thread blocks, stored tf32",
                Math::Tf32x3 => "thread blocks, 3xtf32",
                Math::Bf16 => "thread blocks, bf16",
                Math::Bf16Stored => "thread blocks, stored bf16",
            },
        }
    }

    /// The sizes of its blocks, where it has some.
    pub fn tile(&self) -> Option<Tile> {
        match self {
            Algorithm::Loops | Algorithm::SplitSweeps { .. } => None,
            Algorithm::MatMul { tile, .. } | Algorithm::FilterGradient { tile } | Algorithm::Patches { tile } => {
                Some(*tile)
            }
            Algorithm::Images(choice) => Some(choice.tile),
            Algorithm::ThreadBlocks(blocks) => Some(blocks.tile),
        }
    }

    /// How many pieces of operands are in shared memory at a time, where that is not as usual.
    fn unusual_stages(&self) -> Option<usize> {
        let Algorithm::ThreadBlocks(blocks) = self else { return None };
        let Tile { rows, columns, .. } = blocks.tile;
        let is_usual = match blocks.math {
            Math::Fma => true,
            _ if warpgroup::is_choice(blocks) => blocks.stages == warpgroup::usual_stages(rows, columns),
            _ => blocks.stages == tiling::usual_stages(rows, columns),
        };
        (!is_usual).then_some(blocks.stages)
    }

    /// Whether it is one of a target's.
    pub fn suits(&self, target: Target) -> bool {
        match (self, target) {
            (Algorithm::Loops, _) => true,
            (Algorithm::ThreadBlocks(blocks), Target::Cuda(architecture)) => {
                let has_them = !warpgroup::is_choice(blocks) || architecture.has_warpgroups();
                blocks.math == Math::Fma || (architecture.has_tensor_cores() && has_them)
            }
            (Algorithm::SplitSweeps { .. }, target) => matches!(target, Target::Cuda(_)),
            (Algorithm::ThreadBlocks(_), Target::Cpu) => false,
            (
                Algorithm::MatMul { .. }
                | Algorithm::Images(_)
                | Algorithm::FilterGradient { .. }
                | Algorithm::Patches { .. },
                target,
            ) => target == Target::Cpu,
        }
    }

    /// Whether it can compute a body.
    pub fn fits(&self, body: &Body<BufferId>) -> bool {
        match (self, body) {
            (Algorithm::Loops, Body::Nests(_) | Body::Transform(_)) => true,
            (Algorithm::MatMul { .. }, Body::Contraction(c)) => matches!(c.kind, ContractionKind::MatMul { .. }),
            (Algorithm::Images(choice), Body::Contraction(c)) => {
                matches!(c.kind, ContractionKind::Conv2d(_) | ContractionKind::Conv2dInputGrad(_))
                    && c.is_row_major()
                    && c.kind.gemms().len() == choice.rows.len()
            }
            (Algorithm::FilterGradient { .. }, Body::Contraction(c)) => {
                matches!(c.kind, ContractionKind::Conv2dFilterGrad(_)) && c.is_row_major()
            }
            (Algorithm::Patches { tile }, Body::Contraction(c)) => {
                c.is_row_major()
                    && match &c.kind {
                        ContractionKind::Conv2d(_) | ContractionKind::Conv2dFilterGrad(_) => true,
                        ContractionKind::Conv2dInputGrad(conv) => patches_made(conv, *tile) <= MAX_BLOCK,
                        ContractionKind::MatMul { .. } => false,
                    }
            }
            (Algorithm::ThreadBlocks(blocks), body @ Body::Contraction(_)) => tiling::suits(blocks, body),
            (Algorithm::SplitSweeps { parts }, Body::Nests(nests)) => {
                (2..=MAX_SPLITS).contains(parts) && nests.len() == 1 && nests[0].reduced.contains(&true)
            }
            (Algorithm::Loops | Algorithm::SplitSweeps { .. }, Body::Contraction(_))
            | (_, Body::Nests(_) | Body::Transform(_)) => false,
        }
    }

    /// Whether it reads operands of the types that a body's have in memory. `dtype` gives a buffer's element type.
    pub fn reads_operands<B>(&self, body: &Body<B>, dtype: impl Fn(&B) -> DType) -> bool {
        let Body::Contraction(c) = body else { return true };
        let reads = |found: DType| match self {
            Algorithm::ThreadBlocks(blocks) => blocks.math.operands().is_none_or(|read| read == found),
            Algorithm::MatMul { .. } => matches!(found, DType::F32 | DType::Bf16),
            Algorithm::Loops
            | Algorithm::SplitSweeps { .. }
            | Algorithm::Images(_)
            | Algorithm::FilterGradient { .. }
            | Algorithm::Patches { .. } => found == DType::F32,
        };
        c.operand_types(dtype).into_iter().all(reads)
    }

    /// The workspace that it needs for a body, in f32. `dtype` gives a buffer's element type.
    pub fn workspace<B: Clone>(&self, body: &Body<B>, dtype: impl Fn(&B) -> DType) -> Vec<(Purpose, usize)> {
        let c = match (body, self) {
            (Body::Contraction(c), _) => c,
            (Body::Nests(nests), Algorithm::SplitSweeps { parts }) => {
                let partials = |nest: &Nest<B>| {
                    let reductions: usize = nest.sweeps.iter().map(|sweep| sweep.reductions.len()).sum();
                    let kept: usize = kept_shape(&nest.space, &nest.reduced).iter().product();
                    reductions.saturating_mul(*parts).saturating_mul(kept)
                };
                return nests.iter().map(|nest| (Purpose::Partials, partials(nest))).collect();
            }
            (Body::Nests(_) | Body::Transform(_), _) => return Vec::new(),
        };
        let (shapes, output) = c.kind.shapes();
        let purposes = [Purpose::FirstOperand, Purpose::SecondOperand];
        let computed =
            c.operands.iter().zip(&shapes).zip(purposes).filter(|((operand, _), _)| self.stores_prologue(operand));
        let mut found: Vec<(Purpose, usize)> =
            computed.map(|((_, shape), purpose)| (purpose, shape.iter().product())).collect();
        match (self, &c.kind) {
            (Algorithm::Images(choice), kind) => {
                found.push((Purpose::PackedFilter, packed_filter(&kind.gemms(), choice.columns)));
            }
            (Algorithm::FilterGradient { tile }, ContractionKind::Conv2dFilterGrad(conv)) => {
                let [height, width] = padded_size(conv);
                let pixels = conv.n * conv.output[0] * conv.output[1];
                found.push((Purpose::PaddedImages, conv.n * conv.c * height * width));
                found.push((Purpose::GradientBlocks, pixels.next_multiple_of(tile.depth.max(1)) * conv.o));
            }
            (Algorithm::Patches { .. }, ContractionKind::Conv2dFilterGrad(conv)) => {
                let parts = conv.n.div_ceil(images_added(conv.n));
                found.push((Purpose::Partials, parts * conv.o * conv.taps()));
            }
            (
                Algorithm::Loops
                | Algorithm::SplitSweeps { .. }
                | Algorithm::MatMul { .. }
                | Algorithm::FilterGradient { .. }
                | Algorithm::Patches { .. }
                | Algorithm::ThreadBlocks(_),
                _,
            ) => {}
        }
        if let Some(reduction) = self.tile_reduction(c) {
            found.push((Purpose::Partials, reduction.floats()));
        }
        if self.sweeps_sums(c, dtype) {
            found.push((Purpose::Sums, self.splits().saturating_mul(output.iter().product())));
        }
        found
    }

    /// Whether what an operand's prologue computes is stored before anything is multiplied.
    pub fn stores_prologue<B>(&self, operand: &Operand<B>) -> bool {
        let stages = match self {
            Algorithm::ThreadBlocks(blocks) => blocks.math != Math::Fma,
            Algorithm::Loops
            | Algorithm::SplitSweeps { .. }
            | Algorithm::MatMul { .. }
            | Algorithm::Images(_)
            | Algorithm::FilterGradient { .. }
            | Algorithm::Patches { .. } => false,
        };
        operand.exprs().is_some() && !(stages && operand.has_staged_prologue())
    }

    /// How the epilogue reduces by tiles, where it does.
    pub fn tile_reduction<B: Clone>(&self, c: &Contraction<B>) -> Option<TileReduction<B>> {
        match self {
            Algorithm::ThreadBlocks(blocks) => TileReduction::of(c, blocks),
            Algorithm::Loops
            | Algorithm::SplitSweeps { .. }
            | Algorithm::MatMul { .. }
            | Algorithm::Images(_)
            | Algorithm::FilterGradient { .. }
            | Algorithm::Patches { .. } => None,
        }
    }

    /// Whether the epilogue is a sweep of its own over the sums in memory.
    fn sweeps_sums<B: Clone>(&self, c: &Contraction<B>, dtype: impl Fn(&B) -> DType) -> bool {
        // The sums of a filter gradient come in an order of their own.
        let is_scattered = matches!(self, Algorithm::FilterGradient { .. }) && !c.is_stored_plainly(dtype);
        let reduces_sums = !c.reductions.is_empty() && self.tile_reduction(c).is_none();
        is_scattered || reduces_sums || self.splits() > 1
    }

    /// In how many parts sums are added.
    pub fn splits(&self) -> usize {
        match self {
            Algorithm::ThreadBlocks(blocks) => blocks.splits,
            Algorithm::SplitSweeps { parts } => *parts,
            Algorithm::Loops
            | Algorithm::MatMul { .. }
            | Algorithm::Images(_)
            | Algorithm::FilterGradient { .. }
            | Algorithm::Patches { .. } => 1,
        }
    }

    /// How many times the workers are set going for a body, one after the other.
    pub fn launches<B: Clone>(&self, body: &Body<B>, dtype: impl Fn(&B) -> DType) -> usize {
        let c = match (body, self) {
            (Body::Contraction(c), _) => c,
            (Body::Nests(nests), Algorithm::SplitSweeps { .. }) => {
                let over_full = |sweep: &&Sweep<B>| !(sweep.reductions.is_empty() && sweep.stores.is_empty());
                let sweeps = || nests.iter().flat_map(|nest| &nest.sweeps);
                let stores_kept = sweeps().any(|sweep| !sweep.kept_stores.is_empty());
                return sweeps().filter(over_full).count() + usize::from(stores_kept);
            }
            (Body::Nests(_) | Body::Transform(_), _) => return 1,
        };
        let prologues = c.operands.iter().filter(|operand| self.stores_prologue(operand)).count();
        prologues
            + match self {
                Algorithm::Loops | Algorithm::SplitSweeps { .. } | Algorithm::MatMul { .. } => 1,
                // Each product of a strided input gradient.
                Algorithm::ThreadBlocks(blocks) => match tilings(c).filter(|_| blocks.math != Math::Fma) {
                    Some(products) => products.len(),
                    None => c.kind.gemms().len(),
                },
                Algorithm::Images(_) | Algorithm::FilterGradient { .. } => 2,
                Algorithm::Patches { .. } => 1 + usize::from(matches!(c.kind, ContractionKind::Conv2dFilterGrad(_))),
            }
            + usize::from(self.sweeps_sums(c, dtype))
            + usize::from(self.tile_reduction(c).is_some())
    }
}

impl Choice {
    /// The buffer of a purpose.
    pub fn buffer(&self, purpose: Purpose) -> Option<BufferId> {
        self.workspace.iter().find(|w| w.purpose == purpose).map(|w| w.buffer)
    }
}

impl<B> Contraction<B> {
    /// Whether the operands that are read from buffers lie there row-major, though more may lie behind them.
    pub fn is_row_major(&self) -> bool {
        let (shapes, _) = self.kind.shapes();
        self.operands.iter().zip(&shapes).all(|(operand, shape)| match operand {
            Operand::Buffer { access, .. } => access.is_contiguous(shape),
            Operand::Computed { .. } => true,
        })
    }

    /// What the operands are in memory: what prologues compute is f32.
    pub fn operand_types(&self, dtype: impl Fn(&B) -> DType) -> [DType; 2] {
        [0, 1].map(|side| match &self.operands[side] {
            Operand::Buffer { buffer, .. } => dtype(buffer),
            Operand::Computed { .. } => DType::F32,
        })
    }

    /// Whether the sums are stored as they are, row-major in f32, and nothing else is done with them.
    pub fn is_stored_plainly(&self, dtype: impl Fn(&B) -> DType) -> bool {
        match self.stores.as_slice() {
            [store] if self.reductions.is_empty() => {
                matches!(self.exprs.get(store.value), Some(Expr::Accumulator))
                    && store.access.is_contiguous(&self.space)
                    && dtype(&store.buffer) == DType::F32
            }
            _ => false,
        }
    }
}

/// Elements of the packed filters of some products.
fn packed_filter(gemms: &[Gemm], columns: Columns) -> usize {
    let width = |gemm: &Gemm| {
        let columns_of: usize = gemm.n.iter().product();
        match columns {
            Columns::Dots => columns_of,
            Columns::Panels => columns_of.next_multiple_of(WIDEST_PANEL),
        }
    };
    gemms.iter().map(|gemm| gemm.depth() * width(gemm)).sum()
}

/// Rows and columns of a convolution's input with the zeros around it that its filter reads.
pub fn padded_size(conv: &ConvShape) -> [usize; 2] {
    [0, 1].map(|d| {
        let read = (conv.output[d] - 1) * conv.window.stride[d] + conv.kernel[d];
        read.max(conv.window.pad[d] + conv.input[d])
    })
}

/// Most parts that [`Algorithm::Patches`] adds a filter gradient in.
const PARTS_OF_IMAGES: usize = 32;

/// How many images' filter gradients one task adds.
pub fn images_added(images: usize) -> usize {
    images.div_ceil(PARTS_OF_IMAGES)
}

/// Rows of an image whose input gradient one task computes by [`Algorithm::Patches`]: as many as come from a tile's
/// columns of output pixels, but several times those that two neighbouring tasks both compute patches for.
pub fn lines_of_patches(conv: &ConvShape, tile: Tile) -> usize {
    let rows = tile.columns / conv.output[1].max(1);
    if rows >= conv.output[0] {
        return conv.input[0];
    }
    let lines = (rows * conv.window.stride[0] + 1).saturating_sub(conv.kernel[0]);
    lines.max(4 * conv.kernel[0]).min(conv.input[0])
}

/// Elements that one task of [`Algorithm::Patches`] makes for an input gradient: of patches, or of the image.
fn patches_made(conv: &ConvShape, tile: Tile) -> usize {
    let lines = lines_of_patches(conv, tile);
    let met = ((lines + conv.kernel[0]).saturating_sub(2) / conv.window.stride[0] + 1).min(conv.output[0]);
    let patches = conv.taps().saturating_mul(met * conv.output[1]);
    patches.max((conv.c * conv.input[1]).saturating_mul(lines))
}

/// The rows of the output whose taps are on some rows of the image.
pub fn lines_met(conv: &ConvShape, lines: Range<usize>) -> Range<usize> {
    let (stride, pad) = (conv.window.stride[0], conv.window.pad[0]);
    let end = ((lines.end + pad).saturating_sub(1) / stride + 1).min(conv.output[0]);
    let start = (lines.start + pad + 1).saturating_sub(conv.kernel[0]).div_ceil(stride);
    start.min(end)..end
}

impl Purpose {
    pub fn name(self) -> &'static str {
        match self {
            Purpose::FirstOperand => "first operand",
            Purpose::SecondOperand => "second operand",
            Purpose::PackedFilter => "packed filter",
            Purpose::PaddedImages => "padded images",
            Purpose::GradientBlocks => "gradient blocks",
            Purpose::Partials => "partial results",
            Purpose::Sums => "sums",
        }
    }
}

/// In words: `images, rows in place, tile 192x32x256`.
impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())?;
        if let Some(Tile { rows, columns, depth }) = self.tile() {
            write!(f, ", tile {rows}x{columns}x{depth}")?;
        }
        if let Some(stages) = self.unusual_stages() {
            write!(f, ", {stages} stages")?;
        }
        match self.splits() {
            1 => Ok(()),
            splits => write!(f, ", {splits} splits"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Window;
    use proptest::prelude::*;

    proptest! {
        /// What one task of an input gradient makes has room for every block of rows, and has all taps of its pixels.
        #[test]
        fn the_rows_met_by_lines_of_an_image_have_their_taps(
            height in 1usize..40, kernel in 1usize..6, stride in 1usize..5, pad in 0usize..6, columns in 1usize..80,
        ) {
            prop_assume!(height + 2 * pad >= kernel);
            let output = (height + 2 * pad - kernel) / stride + 1;
            let window = Window { stride: [stride, 1], pad: [pad, 0] };
            let (input, output, kernel) = ([height, 6], [output, 5], [kernel, 2]);
            let conv = ConvShape { n: 1, c: 3, input, o: 2, kernel, output, window };
            let tile = Tile { rows: 1, columns, depth: 1 };
            let lines = lines_of_patches(&conv, tile);
            prop_assert!((1..=height).contains(&lines));
            for start in 0..height {
                let block = start..(start + lines).min(height);
                let met = lines_met(&conv, block.clone());
                prop_assert!(conv.taps() * met.len() * conv.output[1] <= patches_made(&conv, tile));
                let taps = |y: usize| (0..kernel[0]).filter_map(move |i| (y * stride + i).checked_sub(pad));
                let is_met = |y: &usize| taps(*y).any(|line| block.contains(&line));
                let expected: Vec<usize> = (0..output[0]).filter(is_met).collect();
                prop_assert!(expected.iter().all(|y| met.contains(y)), "{:?} of {:?}", met, expected);
            }
        }
    }

    /// A row of such an image alone has more taps than a thread may hold.
    #[test]
    fn patches_that_a_thread_has_no_room_for_are_not_made() {
        let body = |width: usize| {
            let window = Window { stride: [1; 2], pad: [0; 2] };
            let (input, kernel, output) = ([64, width], [32, 32], [33, width - 31]);
            ConvShape { n: 1, c: 1, input, o: 1, kernel, output, window }
        };
        let tile = Tile { rows: 192, columns: 512, depth: 256 };
        assert!(patches_made(&body(400), tile) <= MAX_BLOCK);
        assert!(patches_made(&body(1000), tile) > MAX_BLOCK);
    }
}
