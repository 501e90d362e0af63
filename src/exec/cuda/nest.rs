//! Loop nests as bodies of functions, and how many blocks of how many threads run them.

use super::bits;
use super::expr::{Expressions, Scope, c_type};
use super::fours::{FOUR, by_fours};
use super::index::{BY_FOURS, KEPT, LANE, POINT, Points, REDUCED, Space};
use super::names::Names;
use super::walk::by_sectors;
use crate::kernel::access::Access;
use crate::kernel::body::{BufferId, Expr, Nest, Store, Sweep};
use crate::plan::{Buffer, BufferRole, ReduceKind, Storage};
use std::collections::{BTreeMap, BTreeSet};

/// Threads of a block that runs an elementwise nest.
pub const THREADS: usize = 256;
/// Most blocks of an elementwise nest, which then strides over its points.
pub const MOST_BLOCKS: usize = 4096;
/// Points of a sweep that a thread should have at least before a block gets more threads.
const POINTS_PER_THREAD: usize = 4;
const WARP: usize = 32;
const MOST_THREADS: usize = 1024;

/// How the threads of a block share a nest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Walk {
    /// One thread for each point, or for each four: see [`by_fours`].
    Elementwise,
    /// The innermost dimension is reduced: a block for each kept point, whose threads sweep together.
    Rows,
    /// The innermost dimension is kept: a block for 32 kept points, one for each lane of a warp, so that
    /// reads are coalesced; its warps share the sweep.
    Columns,
}

/// The body of the function that runs one nest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NestCode {
    /// Lines, indented from the body on.
    pub lines: Vec<String>,
    /// How many blocks run it; each finds its number in `block` and theirs in `blocks`.
    pub blocks: usize,
    /// Threads of a block that suit it. The code is right for any number of whole warps up to 32.
    pub threads: usize,
}

/// How the threads of a block share a nest over a space.
pub fn walk_of(nest: &Nest<BufferId>, space: &Space) -> Walk {
    match (nest.reduced.contains(&true), space.is_kept_innermost()) {
        (false, _) => Walk::Elementwise,
        (true, true) if space.points(KEPT) > 1 => Walk::Columns,
        (true, _) => Walk::Rows,
    }
}

/// The space of a nest, with dimensions merged where all that it touches allows it.
pub fn space_of(nest: &Nest<BufferId>) -> Space {
    Space::new(&nest.space, &nest.reduced, &accesses(nest))
}

/// How a nest reads and writes.
fn accesses(nest: &Nest<BufferId>) -> Vec<&Access> {
    let reads = nest.exprs.iter().filter_map(Expr::access);
    reads.chain(nest.stores().map(|store| &store.access)).collect()
}

/// The space of a nest whose dimension `lane` has the four points of one thread.
fn space_by_fours(nest: &Nest<BufferId>, lane: usize) -> Space {
    let variables: Vec<usize> = (0..nest.space.len()).map(|d| if d == lane { LANE } else { POINT }).collect();
    Space::over(&nest.space, &variables, &BY_FOURS, &accesses(nest))
}

/// Renders a nest. `block` and `blocks` are how the text finds the block's number and their count.
pub fn render_nest(nest: &Nest<BufferId>, buffers: &[Buffer], block: &str, blocks: &str) -> NestCode {
    if let Some(code) = bits::render(nest, buffers, block, blocks) {
        return code;
    }
    let nest = by_sectors(nest, buffers);
    let fours = by_fours(&nest, buffers);
    let nest = fours.as_ref().map_or(&*nest, |(nest, _)| nest);
    let lane = fours.as_ref().map(|(_, lane)| *lane);
    let space = lane.map_or_else(|| space_of(nest), |lane| space_by_fours(nest, lane));
    let walk = walk_of(nest, &space);
    let mut names = Names::default();
    let (reads, writes) = touched(nest);
    let pointers = pointers_of(&mut names, &reads, &writes, buffers);
    let mut lines: Vec<String> = vec![format!("// {}", describe(nest))];
    for (&b, name) in &pointers {
        lines.push(declaration(&buffers[b.index()], name, writes.contains(&b)));
    }
    let inner = match (walk, lane) {
        (Walk::Elementwise, None) => POINT,
        (Walk::Elementwise, Some(_)) => LANE,
        (Walk::Rows | Walk::Columns, _) => REDUCED,
    };
    let mut expressions = Expressions::new(nest, buffers, &pointers, space, names, inner);
    expressions.fours = lane;
    let writer = Writer { expressions, walk, block, blocks };
    let (blocks, threads) = writer.launch();
    lines.extend(match (walk, lane) {
        (Walk::Elementwise, None) => writer.elementwise(),
        (Walk::Elementwise, Some(_)) => writer.by_fours(),
        (Walk::Rows | Walk::Columns, _) => writer.reducing(),
    });
    NestCode { lines, blocks, threads }
}

pub struct Writer<'n> {
    pub expressions: Expressions<'n>,
    pub walk: Walk,
    /// How the text finds the number of the block among those that share the kept points, and their count.
    pub block: &'n str,
    pub blocks: &'n str,
}

impl Writer<'_> {
    /// How many blocks of how many threads suit the nest.
    pub fn launch(&self) -> (usize, usize) {
        let space = &self.expressions.space;
        match self.walk {
            Walk::Elementwise => (space.points(POINT).div_ceil(THREADS).min(MOST_BLOCKS), THREADS),
            Walk::Rows => {
                let threads = space.points(REDUCED).div_ceil(POINTS_PER_THREAD).next_multiple_of(WARP);
                (space.points(KEPT), threads.min(MOST_THREADS))
            }
            Walk::Columns => {
                let warps = space.points(REDUCED).div_ceil(POINTS_PER_THREAD).min(MOST_THREADS / WARP);
                (space.points(KEPT).div_ceil(WARP), warps * WARP)
            }
        }
    }

    fn elementwise(mut self) -> Vec<String> {
        let points = self.expressions.space.points(POINT);
        let (mut outer, mut inner) = (Scope::default(), Scope::default());
        for sweep in &self.expressions.nest.sweeps {
            self.point(sweep, &mut outer, &mut inner);
        }
        let Writer { expressions, block, blocks, .. } = self;
        let mut lines = outer.lines;
        lines.push(loop_over(points, block, blocks));
        lines.extend(indented(expressions.space.declarations(POINT)));
        lines.extend(indented(inner.lines));
        lines.push("}".to_string());
        lines
    }

    /// Four points a thread: what is the same for all of them, and what is read of them at once, is before the loop over them.
    fn by_fours(mut self) -> Vec<String> {
        let points = self.expressions.space.points(POINT);
        let (mut outer, mut inner) = (Scope::default(), Scope::default());
        let mut after = Vec::new();
        for sweep in &self.expressions.nest.sweeps {
            // All values first: a store may be over what another value is computed from.
            let values: Vec<String> =
                sweep.stores.iter().map(|s| self.expressions.full(s.value, &mut outer, &mut inner)).collect();
            for (store, value) in sweep.stores.iter().zip(values) {
                let pointer = self.expressions.pointers[&store.buffer].clone();
                if let Some(first) = self.expressions.four(store.buffer, &store.access) {
                    let element = self.expressions.space.element(&first, Points::Full);
                    let four = self.expressions.names.fresh(&format!("{pointer}_4"));
                    outer.lines.push(format!("Four {four};"));
                    inner.lines.push(format!("{four}.of[v] = {value};"));
                    after.push(format!("store_four({pointer} + {element}, {four});"));
                } else {
                    let element = self.expressions.space.element(&store.access, Points::Full);
                    let value = self.expressions.stored(store.buffer, value);
                    inner.lines.push(format!("{pointer}[{element}] = {value};"));
                }
            }
        }
        let Writer { expressions, block, blocks, .. } = self;
        let mut lines = vec![loop_over(points, block, blocks)];
        lines.extend(indented(expressions.space.declarations(POINT)));
        lines.extend(indented(outer.lines));
        lines.push("#pragma unroll".to_string());
        lines.push(format!("    for (unsigned v = 0; v < {FOUR}; ++v) {{"));
        lines.extend(indented(indented(inner.lines)));
        lines.push("    }".to_string());
        lines.extend(indented(after));
        lines.push("}".to_string());
        lines
    }

    fn reducing(mut self) -> Vec<String> {
        let mut outer = Scope::default();
        let sweeps = &self.expressions.nest.sweeps;
        for (number, sweep) in sweeps.iter().enumerate() {
            if sweeps.len() > 1 {
                outer.lines.push(format!("// sweep {} of {}", number + 1, sweeps.len()));
            }
            self.sweep(sweep, &mut outer);
        }
        let mut lines = self.kept_point();
        lines.extend(outer.lines);
        lines
    }

    /// What gives a thread its kept point, and that point's coordinates.
    pub fn kept_point(&self) -> Vec<String> {
        let kept = self.expressions.space.points(KEPT);
        let mut lines = Vec::new();
        match self.walk {
            Walk::Rows if kept == 1 => {}
            Walk::Rows | Walk::Elementwise => lines.push(format!("const unsigned k = {};", self.block)),
            Walk::Columns if self.has_idle_lanes() => {
                lines.push(format!("const unsigned column = {} * 32 + threadIdx.x % 32;", self.block));
                lines.push(format!("const bool active = column < {kept};"));
                lines.push(format!("const unsigned k = active ? column : {};  // idle lanes write nothing", kept - 1));
            }
            Walk::Columns => lines.push(format!("const unsigned k = {} * 32 + threadIdx.x % 32;", self.block)),
        }
        lines.extend(self.expressions.space.declarations(KEPT));
        lines
    }

    pub fn has_idle_lanes(&self) -> bool {
        self.walk == Walk::Columns && !self.expressions.space.points(KEPT).is_multiple_of(WARP)
    }

    fn sweep(&mut self, sweep: &Sweep<BufferId>, outer: &mut Scope) {
        let points = self.expressions.space.points(REDUCED).to_string();
        self.full_points(sweep, ["0", &points], outer);
        for &(slot, value) in &sweep.kept {
            let name = self.expressions.kept(value, outer);
            self.expressions.slots.insert(slot, name);
        }
        self.keep(sweep, outer);
    }

    /// The part of a sweep over the full space, for the reduced points from the first up to the second: what is reduced has
    /// its name, and is combined over the block.
    pub fn full_points(&mut self, sweep: &Sweep<BufferId>, [begin, end]: [&str; 2], outer: &mut Scope) {
        if !(sweep.reductions.is_empty() && sweep.stores.is_empty()) {
            let mut inner = Scope::default();
            self.expressions.space.start(REDUCED);
            let values = self.point(sweep, outer, &mut inner);
            let mut results = Vec::new();
            for (reduction, value) in sweep.reductions.iter().zip(values) {
                let (op, hint) = combiner(reduction.kind);
                let name = self.expressions.slot_name(reduction.slot, hint);
                outer.lines.push(format!("float {name} = {op}::identity();"));
                inner.lines.push(match reduction.kind {
                    ReduceKind::Sum => format!("{name} += {value};"),
                    ReduceKind::Max | ReduceKind::Deviations => format!("{name} = {op}::combine({name}, {value});"),
                });
                let over = if self.walk == Walk::Rows { "block" } else { "column" };
                results.push(format!("{name} = {over}_reduce<{op}>({name});"));
            }
            let (first, step) = match self.walk {
                Walk::Columns => ("threadIdx.x / 32", "blockDim.x / 32"),
                Walk::Rows | Walk::Elementwise => ("threadIdx.x", "blockDim.x"),
            };
            let first = if begin == "0" { first.to_string() } else { format!("{begin} + {first}") };
            outer.lines.push(format!("for (unsigned r = {first}; r < {end}; r += {step}) {{"));
            outer.lines.extend(indented(self.expressions.space.declarations(REDUCED)));
            outer.lines.extend(indented(std::mem::take(&mut inner.lines)));
            outer.lines.push("}".to_string());
            outer.lines.extend(results);
            self.expressions.names.release(inner.names());
        }
    }

    /// Writes one point of a sweep: all values, then the stores. Gives the reductions' values.
    fn point(&mut self, sweep: &Sweep<BufferId>, outer: &mut Scope, inner: &mut Scope) -> Vec<String> {
        let reduced = sweep.reductions.iter().map(|r| self.expressions.full(r.value, outer, inner)).collect();
        let stored: Vec<String> = sweep.stores.iter().map(|s| self.expressions.full(s.value, outer, inner)).collect();
        let guard = if self.has_idle_lanes() { "if (active) " } else { "" };
        for (store, value) in sweep.stores.iter().zip(stored) {
            let position = self.expressions.space.element(&store.access, Points::Full);
            let value = self.expressions.stored(store.buffer, value);
            let pointer = &self.expressions.pointers[&store.buffer];
            inner.lines.push(format!("{guard}{pointer}[{position}] = {value};"));
        }
        reduced
    }

    /// Writes the kept values that go to memory.
    fn keep(&mut self, sweep: &Sweep<BufferId>, outer: &mut Scope) {
        if sweep.kept_stores.is_empty() {
            return;
        }
        let values: Vec<String> = sweep.kept_stores.iter().map(|s| self.expressions.kept(s.value, outer)).collect();
        if self.overwrites_what_it_reads(&sweep.kept_stores) {
            outer.lines.push("__syncthreads();  // all have read what is overwritten now".to_string());
        }
        outer.lines.push(format!("if ({}) {{", self.first_threads()));
        for (store, value) in sweep.kept_stores.iter().zip(values) {
            let position = self.expressions.space.element(&store.access, Points::Kept);
            let value = self.expressions.stored(store.buffer, value);
            outer.lines.push(format!("    {}[{position}] = {value};", self.expressions.pointers[&store.buffer]));
        }
        outer.lines.push("}".to_string());
    }

    /// When a thread is the one that writes what its block has of a kept point.
    pub fn first_threads(&self) -> &'static str {
        match self.walk {
            Walk::Columns if self.has_idle_lanes() => "active && threadIdx.x < 32",
            Walk::Columns => "threadIdx.x < 32",
            Walk::Rows | Walk::Elementwise => "threadIdx.x == 0",
        }
    }

    /// Whether some of the stores are over memory that the nest reads, which every thread of a block does.
    fn overwrites_what_it_reads(&self, stores: &[Store<BufferId>]) -> bool {
        let buffers = self.expressions.buffers;
        let (reads, _) = touched(self.expressions.nest);
        stores.iter().any(|store| reads.iter().any(|b| buffers[b.index()].overlaps(&buffers[store.buffer.index()])))
    }
}

/// The head of the loop that gives a thread of an elementwise nest its points, or its fours.
fn loop_over(points: usize, block: &str, blocks: &str) -> String {
    format!("for (unsigned i = {block} * blockDim.x + threadIdx.x; i < {points}; i += {blocks} * blockDim.x) {{")
}

/// The type that combines the values of a reduction, and what its result may be called.
pub fn combiner(kind: ReduceKind) -> (&'static str, &'static str) {
    match kind {
        ReduceKind::Sum => ("Sum", "sum"),
        ReduceKind::Max => ("Max", "max"),
        ReduceKind::Deviations => unreachable!("nests sweep twice for deviations"),
    }
}

/// The buffers that a nest reads and writes.
pub fn touched(nest: &Nest<BufferId>) -> (BTreeSet<BufferId>, BTreeSet<BufferId>) {
    (nest.exprs.reads().copied().collect(), nest.stores().map(|store| store.buffer).collect())
}

/// The nest's space in words: `over [128,64,14,14], reduced to [1,64,1,1]`.
pub fn describe(nest: &Nest<BufferId>) -> String {
    let full = format!("over {}", sizes(&nest.space));
    if nest.reduced.contains(&true) {
        format!("{full}, reduced to {}", sizes(&crate::kernel::access::kept_shape(&nest.space, &nest.reduced)))
    } else {
        full
    }
}

pub fn sizes(shape: &[usize]) -> String {
    format!("[{}]", shape.iter().map(usize::to_string).collect::<Vec<_>>().join(","))
}

/// Names for the pointers to the buffers that are read and written.
pub fn pointers_of(
    names: &mut Names,
    reads: &BTreeSet<BufferId>,
    writes: &BTreeSet<BufferId>,
    buffers: &[Buffer],
) -> BTreeMap<BufferId, String> {
    let used: Vec<BufferId> = reads.union(writes).copied().collect();
    names.pointers(&used, buffers)
}

/// A pointer to a buffer, with what the buffer is.
pub fn declaration(buffer: &Buffer, name: &str, is_written: bool) -> String {
    let constness = if is_written { "" } else { "const " };
    let ty = match buffer.storage {
        Storage::Elements => c_type(buffer.dtype),
        Storage::Bits => "unsigned",
    };
    let role = match &buffer.role {
        BufferRole::Input(_) => "input ",
        BufferRole::State(_) => "state ",
        BufferRole::Output => "output ",
        BufferRole::Temporary | BufferRole::Workspace => "",
    };
    format!(
        "{constness}{ty}* {name} = ({constness}{ty}*)(arena + {});  // {role}{}: {}",
        buffer.offset,
        buffer.name,
        buffer.type_text()
    )
}

pub fn indented(lines: impl IntoIterator<Item = String>) -> impl Iterator<Item = String> {
    lines.into_iter().map(|line| if line.is_empty() { line } else { format!("    {line}") })
}
