//! What a GPU can do at most, measured, and the pause that measurements begin with.

use super::code::{self, Given};
use super::device::{DeviceInfo, no_memory, refusal};
use super::driver::{Context, DriverError, Event, Function, Graph, Memory, Module, Node, Shape, Stream};
use super::{nvrtc, prelude};
use crate::exec::{Ceilings, ExecError, Spread};
use crate::kernel::cost::Multiplied;
use crate::kernel::target::Architecture;
use crate::plan::{Caches, Machine};
use std::collections::BTreeSet;
use std::sync::Arc;

const TEXT: &str = include_str!("../../../kernels/measure.cu");
const THREADS: u32 = 256;
/// Blocks of a multiprocessor in the arithmetic test.
const BLOCKS: u32 = 8;
const CHAINS: u32 = 512;
/// What each array of the bandwidth test has for each multiprocessor: together far more than a cache holds.
const FLOATS: usize = 1 << 18;
/// How often a thread of the test of the second-level cache reads 16 bytes of it.
const READS: u32 = 64;
/// Blocks of a multiprocessor, threads of a block, and results of a block, in the tests of tensor cores.
const PRODUCT_BLOCKS: u32 = 2;
const PRODUCT_THREADS: u32 = 128;
const PRODUCT_RESULTS: f64 = 64.0 * 256.0;
/// Bytes of a block's operands where warpgroups multiply: a line of 128 for each row and column.
const PRODUCT_OPERANDS: u32 = (64 + 256) * 128;
/// Launches in one measurement, and how often it is taken. The best counts.
const LAUNCHES: u32 = 4;
const ROUNDS: usize = 8;
/// Empty kernels in a graph whose time is that of launches.
const NODES: u32 = 32;
/// How long the host may take for one launch and its event.
const LAUNCH_MICROS: usize = 8;

/// How large the tests are.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    /// Of each array in memory.
    floats: usize,
    /// Of what is read from the cache.
    cached: usize,
    /// Pieces of operands that tensor cores multiply.
    pieces: u32,
}

impl Sizes {
    /// What the pause needs: nothing is measured.
    const NONE: Sizes = Sizes { floats: FLOATS, cached: FLOATS, pieces: 1 };

    fn of(info: &DeviceInfo) -> Sizes {
        let multiprocessors = info.multiprocessors.max(1);
        // A quarter of the cache stays in it, whatever else there is. What all threads read at once is less.
        let at_once = (BLOCKS * THREADS) as usize * multiprocessors * 4;
        let floats = FLOATS * multiprocessors;
        let cached = (info.cache / 4 / size_of::<f32>()).clamp(at_once, floats) / 4 * 4;
        // Long enough for a launch not to count; short for a GPU of few multiprocessors, which is one that is emulated.
        Sizes { floats, cached, pieces: 64 * multiprocessors.min(16) as u32 }
    }
}

fn module(
    device: &str,
    architecture: Architecture,
    context: &Arc<Context>,
    sizes: Sizes,
    micros: usize,
) -> Result<Arc<Module>, ExecError> {
    let defined = [
        ("FLOATS", sizes.floats),
        ("CACHED", sizes.cached),
        ("READS", READS as usize),
        ("CHAINS", CHAINS as usize),
        ("PIECES", sizes.pieces as usize),
        ("MICROS", micros),
        ("MEASURES_TENSOR_CORES", usize::from(architecture.has_tensor_cores())),
        ("MEASURES_WARPGROUPS", usize::from(architecture.has_warpgroups())),
    ];
    let defined: String = defined.iter().map(|(name, value)| format!("#define {name} {value}\n")).collect();
    let texts = [("measure.cu".to_string(), format!("{}\n{defined}{TEXT}", prelude()))];
    if let (Err(missing), Err(_)) =
        (nvrtc::find(), code::check(device, architecture, &Given::default(), || texts.to_vec()))
    {
        let what = format!("what measures has kernels of its own, which no plan holds: {missing}");
        return Err(ExecError::Unavailable { device: device.into(), what });
    }
    let mut modules = code::load(device, architecture, context, &Given::default(), &texts)?.modules;
    Ok(modules.remove(0))
}

/// A launch that keeps the device busy while the host launches what is to be measured: without it the device would wait
/// for each launch, and the time would be the host's.
#[derive(Debug)]
pub struct Pause {
    function: Function,
}

impl Pause {
    /// Long enough for so many launches, each with an event.
    pub fn new(
        device: &str,
        architecture: Architecture,
        context: &Arc<Context>,
        launches: usize,
    ) -> Result<Pause, ExecError> {
        // A multiple of a round number, so that a cache has few of these.
        let micros = (launches * LAUNCH_MICROS).next_multiple_of(1000).min(20_000);
        let module = module(device, architecture, context, Sizes::NONE, micros)?;
        Ok(Pause { function: module.function("pause", 0).map_err(|error| refusal(device, error))? })
    }

    pub fn launch(&self, stream: &Stream, arena: &Memory) -> Result<(), DriverError> {
        // SAFETY: it touches no memory.
        unsafe { stream.launch(&self.function, Shape { grid: 1, block: 1, shared_bytes: 0 }, arena) }
    }
}

/// The best of several rounds, in seconds.
struct Best {
    seconds: f64,
    /// How far the third best is above, as a part of 1.
    spread: f64,
}

/// Measures the ceilings of a GPU, in less than a second.
///
/// Arithmetic: multiply-adds in f32, outside of tensor cores. Memory: the triad `a = b + s·c` of the STREAM benchmark
/// (McCalpin, 1995), counted as two reads and one write. Cache: reads of what fits the second level. Launch: a graph of empty
/// kernels, one after the other, by their number. Products by tensor cores: those of `multiplied`, of operands that are in
/// registers or shared memory already.
pub fn ceilings(
    device: &str,
    info: &DeviceInfo,
    context: &Arc<Context>,
    multiplied: &BTreeSet<Multiplied>,
) -> Result<Ceilings, ExecError> {
    let failed = |error: DriverError| refusal(device, error);
    let multiprocessors = info.multiprocessors.max(1);
    let sizes = Sizes::of(info);
    let floats = sizes.floats;
    let module = module(device, info.architecture, context, sizes, 1000)?;
    let bytes = 3 * floats * size_of::<f32>();
    let memory = Memory::new(context, bytes)
        .map_err(|error| no_memory(device, context, bytes, "the measurement of ceilings", error))?;
    let stream = Stream::new(context).map_err(failed)?;
    stream.clear(&memory, 0..bytes).map_err(failed)?;
    let warpgroups = info.architecture.has_warpgroups();
    let function = |name: &str| module.function(name, 0).map_err(failed);
    let pause = Pause { function: function("pause")? };
    let [begin, end] = [Event::new(context).map_err(failed)?, Event::new(context).map_err(failed)?];
    let best = |work: &dyn Fn() -> Result<(), DriverError>| -> Result<Best, DriverError> {
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            pause.launch(&stream, &memory)?;
            begin.record(&stream)?;
            work()?;
            end.record(&stream)?;
            stream.wait()?;
            times.push(end.since(&begin)?.as_secs_f64().max(1e-9));
        }
        times.sort_by(f64::total_cmp);
        Ok(Best { seconds: times[0], spread: 1.0 - times[0] / times[2] })
    };
    let repeated = |function: &Function, shape: Shape| {
        // SAFETY: the threads of the triad are a quarter of the elements; the cached ones are some of them; the other kernels
        // write at most the first.
        best(&|| (0..LAUNCHES).try_for_each(|_| unsafe { stream.launch(function, shape, &memory) })).map_err(failed)
    };
    let shape = |grid: u32| Shape { grid, block: THREADS, shared_bytes: 0 };
    let blocks = BLOCKS * multiprocessors as u32;
    let arithmetic = repeated(&function("arithmetic")?, shape(blocks))?;
    let triad = repeated(&function("triad")?, shape(floats as u32 / 4 / THREADS))?;
    let reading = repeated(&function("reading")?, shape(blocks))?;
    let launched = |blocks: u32, work: f64| f64::from(LAUNCHES) * f64::from(blocks) * work;
    // The terms of a product that tensor cores add at a time.
    let products = |name: &str, of: &[Multiplied], terms: f64| -> Result<Option<(f64, Best)>, ExecError> {
        if !info.architecture.has_tensor_cores() || !of.iter().any(|of| multiplied.contains(of)) {
            return Ok(None);
        }
        let shared_bytes = if warpgroups { PRODUCT_OPERANDS } else { 0 };
        let grid = PRODUCT_BLOCKS * multiprocessors as u32;
        let function = module.function(name, shared_bytes).map_err(failed)?;
        let best = repeated(&function, Shape { grid, block: PRODUCT_THREADS, shared_bytes })?;
        let flops = launched(grid, 2.0 * PRODUCT_RESULTS * terms * 4.0 * f64::from(sizes.pieces));
        Ok(Some((flops / best.seconds, best)))
    };
    let tf32 = products("products_of_tf32", &[Multiplied::Tf32, Multiplied::Tf32x3], 8.0)?;
    let bf16 = products("products_of_bf16", &[Multiplied::Bf16], 16.0)?;
    let nothing = function("nothing")?;
    let node = |i: usize| Node {
        function: nothing.clone(),
        shape: Shape { grid: 1, block: 32, shared_bytes: 0 },
        after: i.checked_sub(1).into_iter().collect(),
    };
    let nodes: Vec<Node> = (0..NODES as usize).map(node).collect();
    // SAFETY: the kernel touches no memory, and the graph is dropped before it.
    let graph = unsafe { Graph::new(context, &nodes, &memory) }.map_err(failed)?;
    graph.upload(&stream).map_err(failed)?;
    let launch = best(&|| graph.launch(&stream)).map_err(failed)?;
    let flops = launched(blocks, f64::from(THREADS * 8 * CHAINS) * 2.0);
    let read = launched(blocks, f64::from(THREADS * READS) * 16.0);
    let spread = |products: &Option<(f64, Best)>| products.as_ref().map_or(0.0, |(_, best)| best.spread);
    Ok(Ceilings {
        machine: Machine {
            flops_per_second: flops / arithmetic.seconds,
            tf32_flops_per_second: tf32.as_ref().map(|(rate, _)| *rate),
            bf16_flops_per_second: bf16.as_ref().map(|(rate, _)| *rate),
            bytes_per_second: f64::from(LAUNCHES) * bytes as f64 / triad.seconds,
            caches: Caches { last_level: Some(read / reading.seconds), ..Caches::UNKNOWN },
            launch_seconds: launch.seconds / f64::from(NODES),
        },
        spread: Spread {
            arithmetic: arithmetic.spread,
            tf32: spread(&tf32),
            bf16: spread(&bf16),
            memory: triad.spread,
            cache: reading.spread,
            launch: launch.spread,
            ..Spread::default()
        },
    })
}
