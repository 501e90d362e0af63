//! The choice of an algorithm for each kernel, and the buffers that it works in.
//!
//! Choices follow from sizes by rule, so that a plan is the same wherever it is made.

use super::assemble::Assembled;
use super::fuse::FusedKernel;
use super::value::ValueId;
use crate::kernel::access::kept_shape;
use crate::kernel::body::{Body, BufferId, Contraction, Expr, ExprId, Exprs, Kernel, Operand, ReduceKind, Store};
use crate::kernel::choice::{
    Algorithm, Choice, Columns, ImageChoice, MAX_SPLITS, Math, RowSource, ThreadBlocks, Tile, WIDEST_PANEL, Workspace,
};
use crate::kernel::contraction::ContractionKind;
use crate::kernel::few_columns;
use crate::kernel::gemm::Gemm;
use crate::kernel::schedule::{Buffer, BufferRole, StateLayout, Storage};
use crate::kernel::target::{Architecture, MULTIPROCESSORS, Precision, Strategy, Target};
use crate::kernel::tile_reduction::TileReduction;
use crate::kernel::tiling::{self, MOST_STAGES, TILES, Tiling, WARPS, tilings};
use crate::kernel::warpgroup;
use crate::scalar::ScalarOp;
use crate::tensor::DType;
use crate::types::MAX_BLOCK;
use std::collections::{BTreeMap, HashSet};
use std::hash::Hash;

/// Up to this many columns a product is computed as dot products instead of padding a panel.
const FEW_COLUMNS: usize = 3;
/// Up to this many numbers of an image under a filter's taps, patches of pixels are an operand of a convolution's
/// product or of a filter gradient's, or the result of an input gradient's. Measured with 1 to 64 channels.
const FEW_TAPS: usize = 80;
const FEW_TAPS_OF_FILTER_GRADIENT: usize = 128;
const FEW_TAPS_OF_INPUT_GRADIENT: usize = 256;
/// Tap rows with fewer floats are gathered into one row of the product first.
const SHORT_RUN: usize = 32;
/// The most terms that are summed at a time: a panel of columns then stays in a first-level cache of 32 KiB.
const DEPTH: usize = 256;
/// A task's block of a matrix product, of rows of pixels, and of a filter gradient, which stays in a second-level
/// cache.
const MATMUL: Tile = Tile { rows: 192, columns: 256, depth: DEPTH };
const IMAGES: Tile = Tile { rows: 192, columns: WIDEST_PANEL, depth: DEPTH };
const PATCHES: Tile = Tile { rows: 192, columns: 512, depth: DEPTH };
const FILTER_GRADIENT: Tile = Tile { rows: 288, columns: 128, depth: DEPTH };

/// Algorithms by the names of the kernels that they were tuned for.
pub type Tuned<'t> = BTreeMap<&'t str, &'t Algorithm>;

/// Chooses for every kernel, and adds the buffers of its workspace. What was tuned is taken where it can compute the kernel on
/// this target.
pub fn select(work: &mut Assembled, states: &StateLayout, strategy: &Strategy, tuned: &Tuned) {
    let Assembled { kernels, buffers, .. } = work;
    let rounded = rounded_buffers(kernels, buffers, states);
    for kernel in kernels {
        let stored = |b: &BufferId| stored_as(buffers[b.index()].dtype, rounded.contains(b));
        let own = tuned.get(kernel.name.as_str()).filter(|algorithm| {
            let dtype = |b: &BufferId| buffers[b.index()].dtype;
            algorithm.suits(strategy.target)
                && algorithm.fits(&kernel.body)
                && algorithm.reads_operands(&kernel.body, dtype)
                && is_of_precision(algorithm, &kernel.body, strategy.precision, &stored)
        });
        let algorithm = own.map_or_else(
            || match strategy.target {
                Target::Cpu => on_cpu(&kernel.body),
                Target::Cuda(architecture) => on_cuda(&kernel.body, architecture, strategy.precision, &stored),
            },
            |&algorithm| algorithm.clone(),
        );
        take(kernel, algorithm, buffers);
    }
}

/// Of each kernel, before buffers have numbers, whether it is a contraction whose algorithm reduces in its epilogue, tile by
/// tile. `dtype` gives the element type of a value, and `copies` are state tensors that hold numbers of tf32.
pub fn reduced_in_tiles(
    kernels: &[FusedKernel],
    dtype: &dyn Fn(&ValueId) -> DType,
    copies: &HashSet<ValueId>,
    strategy: &Strategy,
) -> Vec<bool> {
    let rounded = rounded(kernels.iter().map(|kernel| &kernel.body), copies.clone(), HashSet::new());
    let stored = |value: &ValueId| stored_as(dtype(value), rounded.contains(value));
    let is_reduced = |kernel: &FusedKernel| match (&kernel.body, strategy.target) {
        (body @ Body::Contraction(contraction), Target::Cuda(architecture)) if !contraction.reductions.is_empty() => {
            on_cuda(body, architecture, strategy.precision, &stored).tile_reduction(contraction).is_some()
        }
        _ => false,
    };
    kernels.iter().map(is_reduced).collect()
}

/// Has a kernel computed by an algorithm, and adds the buffers of its workspace.
pub fn take(kernel: &mut Kernel, algorithm: Algorithm, buffers: &mut Vec<Buffer>) {
    let needed = algorithm.workspace(&kernel.body, |b| buffers[b.index()].dtype);
    let workspace = (needed.into_iter().filter(|(_, floats)| *floats > 0))
        .map(|(purpose, floats)| {
            buffers.push(Buffer {
                name: format!("{}: {}", kernel.name, purpose.name()),
                dtype: DType::F32,
                storage: Storage::Elements,
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

fn on_cpu(body: &Body<BufferId>) -> Algorithm {
    let Body::Contraction(contraction) = body else { return Algorithm::Loops };
    let gemms = contraction.kind.gemms();
    let columns = gemms.first().map_or(0, |gemm| gemm.n.iter().product());
    let columns = if columns <= FEW_COLUMNS { Columns::Dots } else { Columns::Panels };
    let patches = Algorithm::Patches { tile: PATCHES };
    if has_few_taps(&contraction.kind) && patches.fits(body) {
        return patches;
    }
    match contraction.kind {
        ContractionKind::MatMul { .. } => Algorithm::MatMul { columns, tile: MATMUL },
        ContractionKind::Conv2d(_) | ContractionKind::Conv2dInputGrad(_) => {
            let rows = gemms.iter().map(row_source).collect();
            Algorithm::Images(ImageChoice { columns, rows, tile: IMAGES })
        }
        ContractionKind::Conv2dFilterGrad(_) => Algorithm::FilterGradient { tile: FILTER_GRADIENT },
    }
}

fn has_few_taps(kind: &ContractionKind) -> bool {
    match kind {
        ContractionKind::Conv2d(conv) => conv.taps() <= FEW_TAPS,
        ContractionKind::Conv2dFilterGrad(conv) => conv.taps() <= FEW_TAPS_OF_FILTER_GRADIENT,
        ContractionKind::Conv2dInputGrad(conv) => conv.taps() <= FEW_TAPS_OF_INPUT_GRADIENT,
        ContractionKind::MatMul { .. } => false,
    }
}

/// Blocks of threads that keep a GPU busy: two for each of the multiprocessors of a large one.
const ENOUGH_BLOCKS: usize = 264;
/// Reduced points that are worth a block's while.
const PART: usize = 512;
/// Terms of a sum that are.
const LEAST_DEPTH: usize = 128;

/// Blocks share a sweep where there are too few kept points for one or more blocks each.
fn nests_on_cuda<B>(body: &Body<B>) -> Algorithm {
    let Body::Nests(nests) = body else { return Algorithm::Loops };
    let [nest] = nests.as_slice() else { return Algorithm::Loops };
    let kept: usize = kept_shape(&nest.space, &nest.reduced).iter().product();
    let reduced = nest.space.iter().product::<usize>() / kept.max(1);
    // A block takes 32 kept points where these are next to each other in memory.
    let innermost = (0..nest.space.len()).rev().find(|&d| nest.space[d] != 1);
    let is_kept_innermost = innermost.is_some_and(|d| !nest.reduced[d]);
    let (blocks, reduced) = if is_kept_innermost { (kept.div_ceil(32), reduced * 32) } else { (kept, reduced) };
    let parts = ENOUGH_BLOCKS.div_ceil(blocks.max(1)).min(reduced / PART).min(MAX_SPLITS);
    if nest.reduced.contains(&true) && parts > 1 { Algorithm::SplitSweeps { parts } } else { Algorithm::Loops }
}

/// What a contraction's operand is in memory.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Stored {
    F32,
    /// f32, of which tf32 holds every number.
    Tf32,
    Bf16,
}

fn stored_as(dtype: DType, is_rounded: bool) -> Stored {
    match dtype {
        DType::F32 if is_rounded => Stored::Tf32,
        DType::F32 | DType::U32 => Stored::F32,
        DType::Bf16 => Stored::Bf16,
    }
}

/// Whether an expression is a number of tf32, also where it chooses between such: parts that lie one after the other.
/// `known` are values that hold nothing else.
fn is_tf32<B: Eq + Hash>(exprs: &Exprs<B>, mut value: ExprId, known: &HashSet<B>) -> bool {
    let is_one = |value: ExprId| match exprs.get(value) {
        Some(Expr::Scalar { op: ScalarOp::RoundTf32, .. }) => true,
        Some(Expr::Load { buffer, .. }) => known.contains(buffer),
        _ => false,
    };
    loop {
        let Some(Expr::Scalar { op: ScalarOp::Select, args }) = exprs.get(value) else {
            return is_one(value);
        };
        if !is_one(args[1]) {
            return false;
        }
        value = args[2];
    }
}

/// The buffers that hold nothing but numbers of tf32. Of state these are the copies: what other entries, a checkpoint or the
/// caller have put elsewhere is not rounded.
fn rounded_buffers(kernels: &[Kernel], buffers: &[Buffer], states: &StateLayout) -> HashSet<BufferId> {
    let (mut copies, mut others) = (HashSet::new(), HashSet::new());
    for (b, buffer) in buffers.iter().enumerate() {
        if let BufferRole::State(name) = &buffer.role {
            let set = if states.holds_tf32(name) { &mut copies } else { &mut others };
            set.insert(BufferId::new(b));
        }
    }
    rounded(kernels.iter().map(|kernel| &kernel.body), copies, others)
}

/// What holds nothing but numbers of tf32 of what kernels in a topological order read and store, where that is known of
/// `rounded` and not of `others`.
fn rounded<'k, B: Copy + Eq + Hash + 'k>(
    bodies: impl Iterator<Item = &'k Body<B>>,
    mut rounded: HashSet<B>,
    mut others: HashSet<B>,
) -> HashSet<B> {
    let mut add = |exprs: &Exprs<B>, store: &Store<B>| {
        if !others.contains(&store.buffer) && is_tf32(exprs, store.value, &rounded) {
            rounded.insert(store.buffer);
        } else {
            others.insert(store.buffer);
            rounded.remove(&store.buffer);
        }
    };
    for body in bodies {
        match body {
            Body::Nests(nests) => {
                nests.iter().for_each(|nest| nest.stores().for_each(|store| add(&nest.exprs, store)));
            }
            Body::Contraction(c) => {
                c.stores.iter().for_each(|store| add(&c.exprs, store));
                c.finish.stores.iter().for_each(|store| add(&c.finish.exprs, store));
            }
            Body::Transform(t) => add(&t.exprs, &t.store),
        }
    }
    rounded
}

fn on_cuda<B: Clone + Eq + Hash>(
    body: &Body<B>,
    architecture: Architecture,
    precision: Precision,
    stored: &dyn Fn(&B) -> Stored,
) -> Algorithm {
    let Body::Contraction(contraction) = body else { return nests_on_cuda(body) };
    let math = math(precision, stored_operands(contraction, stored)).filter(|_| architecture.has_tensor_cores());
    let products = math.and_then(|math| Some((math, tilings(contraction)?)));
    let Some((math, products)) = products else {
        let few = few_columns::worthwhile(contraction);
        return Algorithm::ThreadBlocks(few.unwrap_or_else(|| one_by_one(contraction)));
    };
    let by_warpgroups = by_warpgroups(&products, math, architecture);
    let are_apart = |blocks: &ThreadBlocks| has_statistics_apart(contraction, blocks);
    Algorithm::ThreadBlocks(on_tensor_cores(&products, math, by_warpgroups, &are_apart))
}

fn stored_operands<B: Eq + Hash>(contraction: &Contraction<B>, stored: &dyn Fn(&B) -> Stored) -> [Stored; 2] {
    [0, 1].map(|side| match &contraction.operands[side] {
        Operand::Buffer { buffer, .. } => stored(buffer),
        Operand::Computed { exprs, .. } => match exprs.last() {
            Some(value) if is_tf32(exprs, value, &HashSet::new()) => Stored::Tf32,
            _ => Stored::F32,
        },
    })
}

/// Whether an algorithm multiplies as precisely as is asked for: one that was tuned may be of another precision.
fn is_of_precision(
    algorithm: &Algorithm,
    body: &Body<BufferId>,
    precision: Precision,
    stored: &dyn Fn(&BufferId) -> Stored,
) -> bool {
    match (algorithm, body) {
        (Algorithm::ThreadBlocks(blocks), Body::Contraction(contraction)) => {
            blocks.math == Math::Fma || math(precision, stored_operands(contraction, stored)) == Some(blocks.math)
        }
        _ => true,
    }
}

/// Whether warpgroups may multiply products, whose operands are in memory what is multiplied so.
fn by_warpgroups(products: &[Tiling], math: Math, architecture: Architecture) -> bool {
    architecture.has_warpgroups() && products.iter().all(|product| warpgroup::is_read(product, math))
}

/// How tensor cores multiply operands; `None` where there is no kernel for them.
fn math(precision: Precision, operands: [Stored; 2]) -> Option<Math> {
    match (precision, operands) {
        (_, [Stored::Bf16, Stored::Bf16]) => Some(Math::Bf16Stored),
        (_, [Stored::Bf16, _] | [_, Stored::Bf16]) => None,
        (Precision::F32, _) => Some(Math::Tf32x3),
        (Precision::Tf32, [Stored::Tf32, Stored::Tf32]) => Some(Math::Tf32Stored),
        (Precision::Tf32, _) => Some(Math::Tf32),
        (Precision::Bf16, _) => Some(Math::Bf16),
    }
}

/// Multiplications and additions one by one, of sums cut into parts where there are too few tiles for a GPU.
fn one_by_one<B>(contraction: &Contraction<B>) -> ThreadBlocks {
    let tile = Tile { rows: 64, columns: 64, depth: 16 };
    let gemms = contraction.kind.gemms();
    let tiles = |gemm: &Gemm| {
        let [batch, rows, columns] = [&gemm.batch, &gemm.m, &gemm.n].map(|dims| dims.iter().product::<usize>());
        batch * rows.div_ceil(tile.rows) * columns.div_ceil(tile.columns)
    };
    let blocks: usize = gemms.iter().map(tiles).sum();
    let depth = gemms.iter().map(Gemm::depth).min().unwrap_or(0);
    let splits = ENOUGH_BLOCKS.div_ceil(blocks.max(1)).min(depth / LEAST_DEPTH).clamp(1, MAX_SPLITS);
    ThreadBlocks { math: Math::Fma, tile, warps: [4, 2], stages: 1, splits }
}

/// Multiplications of a multiprocessor in one cycle, in tf32: of the 1024 in the data sheet 62.9% by warps (`mma.sync`), and
/// 96% by warpgroups (`wgmma`), as arXiv 2501.12084 measures them on an H800 in bf16, of which there are twice as many.
const WARP_RATE: usize = 644;
const WARPGROUP_RATE: usize = 983;
/// Bytes of a multiprocessor's shared memory in one cycle, and of the GPU's second-level cache: what is written there and
/// read again, and what is read only (5.5 TB/s at 1755 MHz).
const SHARED_RATE: usize = 128;
const CACHE_RATE: usize = 1700;
const CACHE_READ_RATE: usize = 3100;
/// Blocks multiply while they wait for the cache, but not all the time: of the shorter of both, one part in so many shows.
const UNHIDDEN: usize = 8;
/// Instructions of a multiprocessor's lanes in one cycle, and those that normalise an element where it is staged: its part of the
/// read and the write of four in shared memory, normalisation, activation and rounding.
const LANE_RATE: usize = 128;
const PROLOGUE_INSTRUCTIONS: usize = 20;
/// Bytes of shared memory of a multiprocessor.
const SHARED_BYTES: usize = 227 << 10;
/// Cycles until a block multiplies, from its last product to its end, and until a kernel's blocks run.
const BLOCK_CYCLES: usize = 2000;
const LAUNCH_CYCLES: usize = 2500;
/// The parts of a sum that are tried: each is written and read once more. Many are for few results of many terms, such as the
/// gradient of a first layer's filters.
const PARTS: [usize; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32, 48, 64, 96, MAX_SPLITS];
/// Pieces of operands that a part should have at least.
const LEAST_PIECES: usize = 8;

/// The tile and the number of parts that take the fewest cycles by a simple model: waves of blocks, one for each
/// multiprocessor, each of which is as fast as its tensor cores or its shared memory allow, and as long as the block with
/// the most taps, and all together no faster than the cache gives them their operands; parts are added by one more kernel,
/// and statistics that are apart made by another. Among them are those of warpgroups where these may multiply the products.
fn on_tensor_cores(
    products: &[Tiling],
    math: Math,
    by_warpgroups: bool,
    are_apart: &dyn Fn(&ThreadBlocks) -> bool,
) -> ThreadBlocks {
    let usable = tensor_choices(products, math, by_warpgroups);
    usable
        .min_by_key(|blocks| cycles(products, blocks, are_apart(blocks)))
        .unwrap_or_else(|| by_warps(math, (64, 64), 1))
}

/// The tiles and numbers of parts that products can be computed with by tensor cores.
fn tensor_choices(products: &[Tiling], math: Math, by_warpgroups: bool) -> impl Iterator<Item = ThreadBlocks> {
    let in_parts =
        |tiles: &'static [(usize, usize)]| tiles.iter().flat_map(|&tile| PARTS.map(move |parts| (tile, parts)));
    let by_warps = in_parts(&TILES).map(move |(tile, parts)| by_warps(math, tile, parts)).filter(tiling::is_kernel);
    let warpgroup_tiles: &[_] = if by_warpgroups { &warpgroup::TILES } else { &[] };
    let of_warpgroup =
        move |(tile, parts)| warpgroup::blocks(math, tile, warpgroup::usual_stages(tile.0, tile.1), parts);
    by_warps.chain(in_parts(warpgroup_tiles).map(of_warpgroup)).filter(|blocks| {
        let pieces = products.iter().map(|product| product.mean_steps(blocks.tile.depth)).min().unwrap_or(0);
        blocks.splits == 1 || pieces / blocks.splits >= LEAST_PIECES
    })
}

fn by_warps(math: Math, (rows, columns): (usize, usize), splits: usize) -> ThreadBlocks {
    let tile = Tile { rows, columns, depth: tiling::step(math) };
    ThreadBlocks { math, tile, warps: WARPS, stages: tiling::usual_stages(rows, columns), splits }
}

/// At most `count` ways to compute a kernel of a schedule: first the one that it has, and of a product by tensor cores the same
/// with other numbers of pieces in shared memory, of which the model knows nothing; then the best of each tile, and all others,
/// by what the models expect of them. All round alike: they differ in the order of sums only.
pub fn candidates(kernel: &Kernel, target: Target, count: usize) -> Vec<Algorithm> {
    let (body, present) = (&kernel.body, kernel.choice.algorithm.clone());
    let others: Vec<Algorithm> = match (body, target) {
        (_, Target::Cpu) | (Body::Transform(_), _) => Vec::new(),
        (Body::Nests(_), Target::Cuda(_)) => {
            let parts = present.splits();
            let near = [parts / 2, parts * 2, parts / 4, parts * 4, 8, 16];
            let split = near.into_iter().filter(|parts| *parts > 1).map(|parts| Algorithm::SplitSweeps { parts });
            split.chain([Algorithm::Loops]).collect()
        }
        (Body::Contraction(contraction), Target::Cuda(architecture)) => {
            let Algorithm::ThreadBlocks(blocks) = present else { return vec![present] };
            match tilings(contraction).filter(|_| blocks.math != Math::Fma) {
                Some(products) => {
                    let by_warpgroups = by_warpgroups(&products, blocks.math, architecture);
                    // Warps round what warpgroups cut off: a choice changes no more than the order of sums.
                    let is_alike = |other: &ThreadBlocks| {
                        blocks.math != Math::Tf32 || warpgroup::is_choice(other) == warpgroup::is_choice(&blocks)
                    };
                    let all = tensor_choices(&products, blocks.math, by_warpgroups);
                    let mut all: Vec<ThreadBlocks> = all.filter(is_alike).collect();
                    all.sort_by_cached_key(|blocks| {
                        cycles(&products, blocks, has_statistics_apart(contraction, blocks))
                    });
                    let staged = (2..=MOST_STAGES).map(|stages| ThreadBlocks { stages, ..blocks });
                    let mut of_tiles: Vec<ThreadBlocks> = Vec::new();
                    for &other in &all {
                        if !of_tiles.iter().any(|best| (best.tile, best.warps) == (other.tile, other.warps)) {
                            of_tiles.push(other);
                        }
                    }
                    staged.chain(of_tiles).chain(all).map(Algorithm::ThreadBlocks).collect()
                }
                None => {
                    let near = [blocks.splits / 2, blocks.splits * 2, 1, blocks.splits / 4, blocks.splits * 4];
                    let split = near.into_iter().filter(|splits| (1..=MAX_SPLITS).contains(splits));
                    let split = split.map(|splits| ThreadBlocks { splits, ..blocks });
                    let others = few_columns::of(contraction).into_iter().chain([one_by_one(contraction)]);
                    others.chain(split).map(Algorithm::ThreadBlocks).collect()
                }
            }
        }
    };
    let mut found = vec![present];
    for other in others {
        if other.fits(body) && !found.contains(&other) {
            found.push(other);
        }
    }
    found.truncate(count.max(1));
    found
}

/// The plainest way to compute a kernel, which others are checked against.
pub fn plainest(body: &Body<BufferId>) -> Algorithm {
    match body {
        Body::Nests(_) | Body::Transform(_) => Algorithm::Loops,
        Body::Contraction(contraction) => {
            Algorithm::ThreadBlocks(ThreadBlocks { splits: 1, ..one_by_one(contraction) })
        }
    }
}

/// Whether a choice leaves an epilogue's sums, such as a batch's statistics, to a reduction of their own. A maximum, as
/// updates need it, is found by the launch that adds parts.
fn has_statistics_apart<B: Clone>(contraction: &Contraction<B>, blocks: &ThreadBlocks) -> bool {
    let has_statistics = contraction.reductions.iter().any(|reduction| reduction.kind != ReduceKind::Max);
    has_statistics && TileReduction::of(contraction, blocks).is_none()
}

/// How long products take by the model. Statistics that are apart are made by a reduction of three launches, which reads all
/// results.
fn cycles(products: &[Tiling], blocks: &ThreadBlocks, has_statistics_apart: bool) -> usize {
    let ThreadBlocks { math, tile: Tile { rows, columns, depth }, splits, .. } = *blocks;
    let area = rows * columns;
    let multiplications = match math {
        Math::Bf16 | Math::Bf16Stored => area * depth / 2,
        Math::Tf32 | Math::Tf32Stored | Math::Fma => area * depth,
        Math::Tf32x3 => 3 * area * depth,
    };
    // Pieces are written once. Each warp reads its half of either, and each warpgroup its own rows and all columns.
    let (rate, lines_read) = if warpgroup::is_choice(blocks) {
        (WARPGROUP_RATE, rows + rows.div_ceil(warpgroup::ROWS) * columns)
    } else {
        (WARP_RATE, 2 * (rows + columns))
    };
    let line = depth * math.operands().map_or(size_of::<f32>(), DType::size);
    let piece = (multiplications / rate).max((rows + columns + lines_read) * line / SHARED_RATE);
    // Where a multiprocessor has place for one block only, no other multiplies while its results are stored.
    let is_alone = 2 * tiling::shared_bytes(blocks) > SHARED_BYTES;
    let alone = if is_alone { area * size_of::<f32>() * MULTIPROCESSORS / CACHE_RATE } else { 0 };
    let mut total = 0;
    for product in products {
        let lines = [rows, columns].into_iter().zip(&product.operand_coordinates);
        let computed = lines.filter(|(_, coordinates)| !coordinates.is_empty()).map(|(lines, _)| lines).sum::<usize>();
        let piece = piece + computed * depth * PROLOGUE_INSTRUCTIONS / LANE_RATE;
        let tiles = product.points() * product.rows.div_ceil(rows) * product.columns.div_ceil(columns);
        let waves = (tiles * splits).div_ceil(MULTIPROCESSORS);
        let block = |steps: usize| steps.div_ceil(splits) * piece + BLOCK_CYCLES + alone;
        let mean = product.mean_steps(depth);
        let by_blocks = (waves * block(mean)).max(block(product.most_steps(depth)));
        let by_cache = tiles * mean * (rows + columns) * line / CACHE_READ_RATE;
        total += LAUNCH_CYCLES + by_blocks.max(by_cache) + by_blocks.min(by_cache) / UNHIDDEN;
        let results = product.points() * product.rows * product.columns * size_of::<f32>();
        if splits > 1 {
            total += 2 * splits * results / CACHE_RATE;
        }
        if has_statistics_apart {
            total += results / CACHE_READ_RATE;
        }
    }
    let launches = usize::from(splits > 1) + if has_statistics_apart { 3 } else { 0 };
    total + launches * LAUNCH_CYCLES
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::{Options, compile};
    use crate::kernel::access::Access;
    use crate::kernel::body::Nest;
    use crate::kernel::contraction::ConvShape;
    use crate::tensor::Lane;
    use crate::types::Window;

    /// A convolution of pixel-major images of 7 x 7 with a filter of 5 x 5.
    fn products(n: usize, [c, o]: [usize; 2]) -> Vec<Tiling> {
        let window = Window { stride: [1; 2], pad: [2; 2] };
        let conv = ConvShape { n, c, o, input: [7; 2], output: [7; 2], kernel: [5; 2], window };
        let kind = ContractionKind::Conv2d(conv);
        let (shapes, _) = kind.shapes();
        let [a, b] = shapes.map(|shape| Access::ordered(&shape, &[2, 3, 0, 1]));
        kind.gemms_of([&a, &b]).iter().map(|gemm| Tiling::new(gemm).unwrap()).collect()
    }

    /// The choice for one.
    fn choice(n: usize, channels: [usize; 2], math: Math, by_warpgroups: bool) -> (ThreadBlocks, usize) {
        let products = products(n, channels);
        let chosen = on_tensor_cores(&products, math, by_warpgroups, &|_| false);
        (chosen, cycles(&products, &chosen, false))
    }

    /// A kernel that stores what it reads of buffer 0, rounded to tf32, in another.
    fn rounding_into(buffer: usize) -> Kernel {
        let mut exprs = Exprs::default();
        let access = Access::ordered(&[8], &[0]);
        let load = Expr::Load { buffer: BufferId::new(0), access: access.clone(), lane: Lane::Real };
        let load = exprs.push(load);
        let value = exprs.push(Expr::Scalar { op: ScalarOp::RoundTf32, args: vec![load] });
        let buffer = BufferId::new(buffer);
        let nest = Nest::elementwise(vec![8], exprs, vec![Store { value, buffer, access }]);
        Kernel {
            name: format!("into{}", buffer.index()),
            body: Body::Nests(vec![nest]),
            choice: none_yet(),
            reads: vec![BufferId::new(0)],
            writes: vec![buffer],
            nodes: Vec::new(),
        }
    }

    /// The first step reads what was there before.
    #[test]
    fn state_that_a_step_rounds_is_not_rounded_yet() {
        let buffer = |role: BufferRole| Buffer {
            name: "x".into(),
            dtype: DType::F32,
            storage: Storage::Elements,
            shape: vec![8],
            order: Vec::new(),
            role,
            offset: 0,
            live: (0, 0),
        };
        let state = |name: &str| BufferRole::State(name.into());
        let roles = [BufferRole::Temporary, BufferRole::Temporary, state("x"), BufferRole::Output, state("x.tf32")];
        let copy = crate::kernel::schedule::StateCopy { of: "x".into(), rounding: crate::types::Rounding::Tf32 };
        let states = StateLayout { copies: [("x.tf32".into(), copy)].into(), ..StateLayout::default() };
        let found = rounded_buffers(&[1, 2, 3].map(rounding_into), &roles.clone().map(buffer), &states);
        assert_eq!(found, [1, 3, 4].map(BufferId::new).into());
        // What is copied of rounded numbers is rounded, but not what a later kernel stores among others.
        let copying = |from: usize, to: usize| {
            let mut kernel = rounding_into(to);
            let access = Access::ordered(&[8], &[0]);
            let mut exprs = Exprs::default();
            let value =
                exprs.push(Expr::Load { buffer: BufferId::new(from), access: access.clone(), lane: Lane::Real });
            let store = Store { value, buffer: BufferId::new(to), access };
            kernel.body = Body::Nests(vec![Nest::elementwise(vec![8], exprs, vec![store])]);
            kernel
        };
        let kernels = [rounding_into(1), copying(1, 3), copying(4, 5), copying(0, 6), rounding_into(6), copying(2, 7)];
        let roles = [&roles[..], &[BufferRole::Temporary, BufferRole::Temporary, BufferRole::Temporary]].concat();
        let buffers: Vec<Buffer> = roles.into_iter().map(buffer).collect();
        let found = rounded_buffers(&kernels, &buffers, &states);
        assert_eq!(found, [1, 3, 4, 5].map(BufferId::new).into());
    }

    /// A matrix of a product's sums, which are rounded where they are complete.
    #[test]
    fn what_is_rounded_of_an_epilogue_s_sums_is_known_to_be() {
        let text = r#"Program(
            name: "sums",
            networks: { "v": Network(input: [64], layers: [Dense(units: 64, bias: false)]) },
            entries: { "f": Entry(
                inputs: { "x": Tensor([128, 64, 64]), "y": Tensor([128, 64, 64]) },
                steps: [
                    Let("p", MatMul("x", "y")),
                    Let("s", Exp(Sum("p", [1]))),
                    Let("z", Call("v", Reshape("s", [128, 64]), Inference)),
                ],
                outputs: ["z"],
            ) },
        )"#;
        let (target, precision) = (Target::Cuda(Architecture(90)), Precision::Tf32);
        let options = Options { target, precision, ..Options::default() };
        let plan = compile("sums", text, &options, &mut |_| {}).unwrap().plan.unwrap();
        let kernels = plan.entry("f").unwrap().schedule.kernels.iter();
        let products = kernels.filter_map(|kernel| match (&kernel.body, &kernel.choice.algorithm) {
            (Body::Contraction(c), Algorithm::ThreadBlocks(blocks)) => Some((c.finish.stores.len(), blocks.math)),
            _ => None,
        });
        let products: Vec<_> = products.collect();
        assert!(matches!(products[..], [(1, _), (0, Math::Tf32Stored)]), "{products:?}");
    }

    /// Parts of sums leave a batch's statistics to a pass of their own, so that fewer parts are worth it.
    #[test]
    fn statistics_are_worth_a_longer_product() {
        let products = products(256, [256, 128]);
        let whole = by_warps(Math::Tf32x3, (128, 64), 1);
        let parts = ThreadBlocks { splits: 2, ..whole };
        let cost = |blocks: &ThreadBlocks, is_apart: bool| cycles(&products, blocks, is_apart);
        assert_eq!(cost(&whole, true) - cost(&whole, false), cost(&parts, true) - cost(&parts, false));
        assert!(cost(&parts, true) > cost(&parts, false) + 3 * LAUNCH_CYCLES);
        // A batch of 64 fills one of two tiles; parts of sums would keep more multiprocessors busy.
        let small = self::products(64, [256, 128]);
        let in_parts = |blocks: &ThreadBlocks| blocks.splits > 1;
        let splits = |are_apart: &dyn Fn(&ThreadBlocks) -> bool| {
            on_tensor_cores(&small, Math::Tf32Stored, false, are_apart).splits
        };
        assert!(splits(&|_| false) > splits(&in_parts), "{} and {}", splits(&|_| false), splits(&in_parts));
    }

    /// Of as many taps in all, uneven ones take longer where every block runs at once.
    #[test]
    fn the_block_with_the_most_taps_ends_last() {
        let products = products(128, [256, 128]);
        let blocks = by_warps(Math::Tf32, (128, 128), 1);
        let piece = 128 * 128 * 32 / WARP_RATE;
        // 25 taps of the pixels inside, of 8 pieces each.
        assert!(cycles(&products, &blocks, false) >= LAUNCH_CYCLES + 25 * 8 * piece + BLOCK_CYCLES);
        assert!(products[0].mean_steps(32) < 18 * 8);
    }

    /// Of 5 taps 3, 4, 5, 5, 5, 4 and 3 are inside along an axis of 7.
    #[test]
    fn taps_on_padding_are_no_operations() {
        let [product] = &products(128, [256, 64])[..] else { panic!("one product") };
        assert_eq!(product.flops(), 2 * 29 * 29 * 128 * 256 * 64);
    }

    #[test]
    fn warpgroups_are_chosen_where_they_are_faster() {
        for math in [Math::Tf32, Math::Bf16Stored] {
            let (by_warps, cycles_of_warps) = choice(256, [256, 128], math, false);
            let (chosen, cycles) = choice(256, [256, 128], math, true);
            assert!(!warpgroup::is_choice(&by_warps) && warpgroup::is_kernel(&chosen), "{chosen:?}");
            assert!(chosen.tile.rows * chosen.tile.columns >= 128 * 128, "{chosen:?}");
            assert!(cycles < cycles_of_warps, "{cycles} and {cycles_of_warps}");
        }
        // A batch of 36 fills one warpgroup, and one half of two.
        let (small, _) = choice(36, [256, 64], Math::Tf32, true);
        assert!(warpgroup::is_kernel(&small), "{small:?}");
        assert_eq!((small.tile.rows, small.tile.columns), (64, 64));
    }

    /// What is tried on a GPU can be launched on all that run its kernels. It differs in tiles and in pieces in shared memory.
    #[test]
    fn candidates_have_place_in_shared_memory() {
        let text = crate::declare::builtin::text("dcgan").unwrap();
        for (architecture, most, kibibytes) in [(80, 3, 99), (90, 4, 227), (100, 3, 99)] {
            let architecture = Architecture(architecture);
            let (target, precision) = (Target::Cuda(architecture), Precision::Tf32);
            let options = Options { target, precision, ..Options::default() };
            let plan = compile("dcgan", text, &options, &mut |_| {}).unwrap().plan.unwrap();
            let entry = plan.entry("train_step").unwrap();
            let (mut stages, mut tiles) = (HashSet::new(), HashSet::new());
            for kernel in &entry.schedule.kernels {
                for candidate in candidates(kernel, target, 8) {
                    let Algorithm::ThreadBlocks(blocks) = candidate else { continue };
                    if blocks.math == Math::Fma {
                        continue;
                    }
                    assert!(tiling::shared_bytes(&blocks) + tiling::BESIDE <= kibibytes << 10, "{blocks:?}");
                    let is_large = blocks.tile.rows * blocks.tile.columns == 128 * 128;
                    stages.extend(is_large.then_some(blocks.stages));
                    tiles.insert((blocks.tile.rows, blocks.tile.columns));
                }
            }
            assert_eq!(stages, (2..=most).collect(), "{architecture}");
            let has_warpgroups = architecture.has_warpgroups();
            assert_eq!(tiles.len(), if has_warpgroups { warpgroup::TILES.len() } else { TILES.len() }, "{tiles:?}");
        }
    }
}
