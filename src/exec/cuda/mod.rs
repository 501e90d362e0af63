//! CUDA: kernels as C++ text, and NVIDIA's GPUs as devices that run them.
//!
//! Each kernel is one or a few `extern "C" __global__` functions of one argument, the arena. Where a buffer is in the
//! arena is a constant of the text, and whatever changes from step to step is read from buffers, so a graph of launches
//! that is built once replays right. The sums of a kernel are trees of one shape: a run gives the same bits each time.
//!
//! Loop nests are written whole (`nest`), with the draws of `kernels/philox.cuh` and the sums of `kernels/reduce.cuh`; long
//! sums of few results in two launches (`parts`). Matrix products call a
//! function of `kernels/gemm.cuh` (`contraction`), or by tensor cores one of `kernels/tensor.cuh` or
//! `kernels/wgmma.cuh` (`tensor`), with what is theirs alone: sizes, operands and epilogue.
//!
//! Running is built from below: `driver` and [`nvrtc`] are NVIDIA's two libraries, opened when they are first needed;
//! `code` makes functions of texts by them and `cache`, or takes what comes with a plan; `graph` orders launches by the bytes
//! that they touch; `series` has several runs follow each other on examples that the device keeps; and `executor` runs plans.
//! Without a GPU, `ahead` compiles a plan's kernels: `ptx` makes their PTX fit older drivers, `resources` reads from their
//! cubins what they take, and `sass` has them disassembled.

mod ahead;
mod bits;
mod cache;
mod code;
mod contraction;
mod device;
mod driver;
mod executor;
mod expr;
mod fours;
mod graph;
mod index;
mod measure;
mod names;
mod nest;
pub mod nvrtc;
mod order;
mod parts;
mod ptx;
mod resources;
mod sass;
mod series;
mod tensor;
mod transform;
mod walk;

use crate::kernel::body::{Body, BufferId, Kernel, Nest};
use crate::kernel::choice::{Algorithm, Purpose};
use crate::kernel::schedule::Schedule;
use crate::plan::{Buffer, Plan};
pub use ahead::{Ahead, AheadError, FunctionResources, compile_ahead, compiler_for};
pub use code::Progress;
pub use device::{CudaDevice, DeviceInfo, Missing, arena_bytes, devices};
pub use driver::DriverError;
use nest::{NestCode, indented, render_nest};
pub use resources::Resources;
pub use sass::{Disassembler, DisassemblerMissing};
use walk::by_sectors;

/// What the text of kernels relies on. Of all: the wait that they begin with, and numbers of fewer bits.
const PRELUDE: &str = include_str!("../../../kernels/prelude.cuh");
const PHILOX: &str = include_str!("../../../kernels/philox.cuh");
const REDUCE: &str = include_str!("../../../kernels/reduce.cuh");
/// Of contractions: one by one, by tensor cores, and by warpgroups, which rely on what is before them.
const GEMM: &str = include_str!("../../../kernels/gemm.cuh");
const TENSOR: &str = include_str!("../../../kernels/tensor.cuh");
const WGMMA: &str = include_str!("../../../kernels/wgmma.cuh");

/// One launch of a function `void name(unsigned char* arena)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    pub function: String,
    /// Blocks, in one dimension.
    pub grid: u32,
    /// Threads of a block, in one dimension.
    pub block: u32,
    /// Bytes of shared memory that are asked for at the launch.
    pub shared_bytes: u32,
}

/// A kernel's text and how it is launched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelText {
    /// Its functions and what they call, but for the [`prelude`].
    pub source: String,
    /// One after the other.
    pub launches: Vec<Launch>,
}

/// The text that the kernels of every schedule rely on.
pub fn prelude() -> String {
    [PRELUDE, PHILOX, REDUCE, GEMM, TENSOR, WGMMA].join("\n")
}

/// Renders a kernel. `buffers` are those of its schedule.
pub fn render(kernel: &Kernel, buffers: &[Buffer]) -> KernelText {
    render_named(kernel, buffers, "")
}

fn render_named(kernel: &Kernel, buffers: &[Buffer], prefix: &str) -> KernelText {
    // No function of a library is called like this.
    let name = format!("{prefix}{}_kernel", names::identifier(&kernel.name));
    let mut text = KernelText {
        source: format!("// {} kernel of {}\n", kernel.kind().name(), listed(&kernel.nodes)),
        launches: Vec::new(),
    };
    match &kernel.body {
        Body::Nests(nests) => {
            match (nests.as_slice(), &kernel.choice.algorithm, kernel.choice.buffer(Purpose::Partials)) {
                ([nest], &Algorithm::SplitSweeps { parts }, Some(partials)) => {
                    parts::render(&mut text, &name, &by_sectors(nest, buffers), parts, partials, buffers);
                }
                _ => text.add_nests(&name, nests, buffers),
            }
        }
        Body::Transform(t) => transform::render(&mut text, &name, t, buffers),
        Body::Contraction(c) => contraction::render(&mut text, &name, c, &kernel.choice, buffers),
    }
    text
}

impl KernelText {
    /// Adds a function that computes nests.
    fn add_nests(&mut self, name: &str, nests: &[Nest<BufferId>], buffers: &[Buffer]) {
        let (functions, body, grid, block) = match nests {
            [nest] => {
                let code = render_nest(nest, buffers, "blockIdx.x", "gridDim.x");
                (String::new(), code.lines, code.blocks, code.threads)
            }
            nests => parts(name, nests.iter().map(|n| render_nest(n, buffers, "block", "blocks")).collect()),
        };
        self.source += &functions;
        let launch = Launch { function: name.to_string(), grid: grid as u32, block: block as u32, shared_bytes: 0 };
        self.add_function(launch, body);
    }

    /// Adds a struct of constants and functions.
    fn add_struct(&mut self, name: &str, lines: impl IntoIterator<Item = String>) {
        self.source += &format!("struct {name} {{\n");
        for line in indented(lines) {
            self.source += &line;
            self.source.push('\n');
        }
        self.source += "};\n";
    }

    /// Adds a function and its launch.
    fn add_function(&mut self, launch: Launch, body: impl IntoIterator<Item = String>) {
        let Launch { function, grid, block, shared_bytes } = &launch;
        let shared = if *shared_bytes > 0 { format!(", {shared_bytes} bytes of shared memory") } else { String::new() };
        self.source += &format!("// launch: {grid} x {block} threads{shared}\n");
        // Products that share memory need most registers: see `kernels/prelude.cuh`.
        let bounds = if *shared_bytes > 0 { "PRODUCT_BOUNDS" } else { "__launch_bounds__" };
        self.source += &format!("extern \"C\" __global__ void {bounds}({block}) {function}(unsigned char* arena) {{\n");
        // Before anything else, in all threads: see `Graph`.
        for line in indented(std::iter::once("await_predecessors();".to_string()).chain(body)) {
            self.source += &line;
            self.source.push('\n');
        }
        self.source += "}\n";
        self.launches.push(launch);
    }
}

/// A function for each nest of a multi-tensor kernel, and the lines that give each its blocks.
fn parts(name: &str, parts: Vec<NestCode>) -> (String, Vec<String>, usize, usize) {
    let mut functions = String::new();
    let mut body = vec!["const unsigned block = blockIdx.x;".to_string()];
    let mut first = 0;
    let threads = parts.iter().map(|p| p.threads).max().unwrap_or(1);
    let count = parts.len();
    for (number, part) in parts.into_iter().enumerate() {
        let function = format!("{name}_part{number}");
        functions +=
            &format!("static __device__ void {function}(unsigned char* arena, unsigned block, unsigned blocks) {{\n");
        for line in indented(part.lines) {
            functions += &line;
            functions.push('\n');
        }
        functions += "}\n\n";
        let own = if first == 0 { "block".to_string() } else { format!("block - {first}") };
        let call = format!("{function}(arena, {own}, {})", part.blocks);
        first += part.blocks;
        body.push(match number {
            0 if count == 1 => format!("{call};"),
            0 => format!("if (block < {first}) {call};"),
            _ if number + 1 == count => format!("else {call};"),
            _ => format!("else if (block < {first}) {call};"),
        });
    }
    (functions, body, first, threads)
}

/// The kernels of a schedule as one text that NVRTC and nvcc compile.
pub fn render_schedule(name: &str, schedule: &Schedule) -> String {
    let mut text = heading(name);
    render_into(&mut text, schedule, "");
    text
}

/// The kernels of every entry of a plan as one text; names start with the entry's.
pub fn render_plan(plan: &Plan) -> String {
    let mut text = heading(&plan.name);
    for entry in &plan.entries {
        let sizes: Vec<String> = entry.sizes.iter().map(|(name, size)| format!("{name}{size}")).collect();
        let prefix = names::identifier(&[vec![entry.name.clone()], sizes].concat().join("_"));
        render_into(&mut text, &entry.schedule, &format!("{prefix}_"));
    }
    text
}

fn heading(name: &str) -> String {
    format!("// {}: generated by gcc-gan.\n\n{}", name.replace(['\n', '\r'], " "), prelude())
}

fn render_into(text: &mut String, schedule: &Schedule, prefix: &str) {
    *text += &format!(
        "\n// --- {}{} kernels; arena {} bytes ---\n",
        if prefix.is_empty() { String::new() } else { format!("{}: ", prefix.trim_end_matches('_')) },
        schedule.kernels.len(),
        schedule.arena_bytes,
    );
    for (position, kernel) in schedule.kernels.iter().enumerate() {
        *text += &format!("\n// [{position}] {}\n", kernel.name);
        *text += &render_named(kernel, &schedule.buffers, prefix).source;
    }
}

/// Names for a comment, of which a long list is cut.
fn listed(nodes: &[String]) -> String {
    const MOST: usize = 12;
    match nodes.len() {
        0 => "a copy".to_string(),
        n if n <= MOST => nodes.join(", "),
        n => format!("{}, and {} more", nodes[..MOST].join(", "), n - MOST),
    }
}
