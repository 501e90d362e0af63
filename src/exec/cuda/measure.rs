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
/// What each array of the bandwidth test has for each multiprocessor: together far more than a cache holds.
const FLOATS: usize = 1 << 18;
/// Blocks of a multiprocessor, threads of a block, and results of a block, in the tests of tensor cores.
const PRODUCT_BLOCKS: u32 = 2;
const PRODUCT_THREADS: u32 = 128;
const PRODUCT_RESULTS: f64 = 64.0 * 256.0;
/// Bytes of a block's operands where warpgroups multiply: a line of 128 for each row and column.
const PRODUCT_OPERANDS: u32 = (64 + 256) * 128;
/// Products of tensor cores in one piece of operands.
const PRODUCT_PARTS: f64 = 4.0;
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
    /// How often a thread reads 16 bytes of that.
    reads: u32,
    /// Multiply-adds of each of a thread's chains.
    chains: u32,
    /// Pieces of operands that tensor cores multiply; 0 where they are not measured.
    pieces: u32,
}

impl Sizes {
    /// What the pause needs: nothing is measured.
    const NONE: Sizes = Sizes { floats: FLOATS, cached: FLOATS, reads: 4, chains: 1, pieces: 0 };

    fn of(info: &DeviceInfo) -> Sizes {
        let multiprocessors = info.multiprocessors.max(1);
        // A quarter of the cache stays in it, whatever else there is. What all threads read at once is less.
        let at_once = (BLOCKS * THREADS) as usize * multiprocessors * 4;
        let floats = FLOATS * multiprocessors;
        let cached = (info.cache / 4 / size_of::<f32>()).clamp(at_once, floats) / 4 * 4;
        // Long enough for a launch not to count; short for a GPU of few multiprocessors, which is one that is emulated.
        let times = multiprocessors.min(16) as u32;
        let pieces = if info.architecture.has_tensor_cores() { 64 * times } else { 0 };
        Sizes { floats, cached, reads: 32 * times, chains: 256 * times, pieces }
    }
}

fn text(architecture: Architecture, sizes: Sizes, micros: usize) -> String {
    let defined = [
        ("FLOATS", sizes.floats),
        ("CACHED", sizes.cached),
        ("READS", sizes.reads as usize),
        ("CHAINS", sizes.chains as usize),
        ("PIECES", sizes.pieces as usize),
        ("MICROS", micros),
        ("MEASURES_TENSOR_CORES", usize::from(sizes.pieces > 0)),
        ("MEASURES_WARPGROUPS", usize::from(architecture.has_warpgroups())),
    ];
    let defined: String = defined.iter().map(|(name, value)| format!("#define {name} {value}\n")).collect();
    format!("{}\n{defined}{TEXT}", prelude())
}

fn module(
    device: &str,
    architecture: Architecture,
    context: &Arc<Context>,
    sizes: Sizes,
    micros: usize,
) -> Result<Arc<Module>, ExecError> {
    let texts = [("measure.cu".to_string(), text(architecture, sizes, micros))];
    if let (Err(missing), Err(_)) =
        (nvrtc::find(), code::check(device, architecture, &Given::default(), || texts.to_vec()))
    {
        let what = format!("what measures has kernels of its own, which no plan holds: {missing}");
        return Err(ExecError::Unavailable { device: device.into(), what });
    }
    let failed = |error| refusal(device, error);
    let mut modules = code::load(device, architecture, context, &Given::default(), &texts, &failed)?.modules;
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
    // Operations a second, where something multiplies so; `terms` are those that tensor cores add at a time.
    let products = |name: &str, of: &[Multiplied], terms: f64| -> Result<Option<(f64, Best)>, ExecError> {
        if sizes.pieces == 0 || !of.iter().any(|of| multiplied.contains(of)) {
            return Ok(None);
        }
        let shared_bytes = if warpgroups { PRODUCT_OPERANDS } else { 0 };
        let grid = PRODUCT_BLOCKS * multiprocessors as u32;
        let function = module.function(name, shared_bytes).map_err(failed)?;
        let best = repeated(&function, Shape { grid, block: PRODUCT_THREADS, shared_bytes })?;
        let flops = launched(grid, 2.0 * PRODUCT_RESULTS * terms * PRODUCT_PARTS * f64::from(sizes.pieces));
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
    let flops = launched(blocks, f64::from(THREADS * 8 * sizes.chains) * 2.0);
    let read = launched(blocks, f64::from(THREADS * sizes.reads) * 16.0);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::cuda::resources;

    /// Where there is a compiler. A GPU would compile this when it is first measured.
    #[test]
    fn what_measures_compiles_for_every_kind_of_gpu() {
        let Ok(nvrtc) = nvrtc::find() else {
            eprintln!("skipped: no NVRTC");
            return;
        };
        for architecture in [75, 80, 86, 89, 90, 100, 120].map(Architecture) {
            let info = DeviceInfo {
                ordinal: 0,
                name: String::new(),
                architecture,
                memory: 1 << 34,
                multiprocessors: 132,
                cache: 50 << 20,
                driver: (12, 8),
            };
            for (sizes, kernels) in [(Sizes::of(&info), 7), (Sizes::NONE, 5)] {
                let text = text(architecture, sizes, 1000);
                let code = nvrtc.compile("measure.cu", &text, &nvrtc::exact_options(architecture));
                let found = code.as_ref().ok().and_then(|code| resources::read(&code.cubin));
                let Some(found) = found else {
                    assert!(!code.is_err_and(|log| log.contains("error:")), "{architecture} is refused");
                    eprintln!("skipped: the NVRTC here is a mock");
                    return;
                };
                let own = found.iter().filter(|(name, _)| *name != "kernels_await_predecessors");
                let count = if architecture.has_tensor_cores() { kernels } else { 5 };
                assert_eq!(own.clone().count(), count, "{architecture}: {found:?}");
                assert!(own.into_iter().all(|(_, taken)| taken.local_bytes == 0), "{architecture}: {found:?}");
            }
        }
    }
}
