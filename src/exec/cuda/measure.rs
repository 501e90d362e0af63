//! What a GPU can do at most, measured, and the pause that measurements begin with.

use super::code::{self, Given};
use super::device::{DeviceInfo, no_memory, refusal};
use super::driver::{Context, DriverError, Event, Function, Graph, Memory, Module, Node, Shape, Stream};
use super::nvrtc;
use crate::exec::{Ceilings, ExecError, Spread};
use crate::kernel::target::Architecture;
use crate::plan::{Caches, Machine};
use std::sync::Arc;

const TEXT: &str = include_str!("../../../kernels/measure.cu");
const THREADS: u32 = 256;
/// Blocks of a multiprocessor in the arithmetic test.
const BLOCKS: u32 = 8;
const CHAINS: u32 = 512;
/// What each array of the bandwidth test has for each multiprocessor: together far more than a cache holds.
const FLOATS: usize = 1 << 18;
/// Launches in one measurement, and how often it is taken. The best counts.
const LAUNCHES: u32 = 4;
const ROUNDS: usize = 8;
/// Empty kernels in a graph whose time is that of launches.
const NODES: u32 = 32;
/// How long the host may take for one launch and its event.
const LAUNCH_MICROS: usize = 8;

fn module(
    device: &str,
    architecture: Architecture,
    context: &Arc<Context>,
    floats: usize,
    micros: usize,
) -> Result<Arc<Module>, ExecError> {
    let text = format!("#define FLOATS {floats}\n#define CHAINS {CHAINS}\n#define MICROS {micros}\n{TEXT}");
    let texts = [("measure.cu".to_string(), text)];
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
        let module = module(device, architecture, context, FLOATS, micros)?;
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
/// (McCalpin, 1995), counted as two reads and one write. Launch: a graph of empty kernels, one after the other, by their
/// number.
pub fn ceilings(device: &str, info: &DeviceInfo, context: &Arc<Context>) -> Result<Ceilings, ExecError> {
    let failed = |error: DriverError| refusal(device, error);
    let multiprocessors = info.multiprocessors.max(1);
    let floats = FLOATS * multiprocessors;
    let module = module(device, info.architecture, context, floats, 1000)?;
    let bytes = 3 * floats * size_of::<f32>();
    let memory = Memory::new(context, bytes)
        .map_err(|error| no_memory(device, context, bytes, "the measurement of ceilings", error))?;
    let stream = Stream::new(context).map_err(failed)?;
    stream.clear(&memory, 0..bytes).map_err(failed)?;
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
    let repeated = |function: &Function, grid: u32| {
        let shape = Shape { grid, block: THREADS, shared_bytes: 0 };
        // SAFETY: the threads of the triad are a quarter of the elements; the other kernel writes at most the first.
        best(&|| (0..LAUNCHES).try_for_each(|_| unsafe { stream.launch(function, shape, &memory) }))
    };
    let blocks = BLOCKS * multiprocessors as u32;
    let arithmetic = repeated(&function("arithmetic")?, blocks).map_err(failed)?;
    let triad = repeated(&function("triad")?, floats as u32 / 4 / THREADS).map_err(failed)?;
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
    let flops = f64::from(LAUNCHES) * f64::from(blocks * THREADS) * f64::from(8 * CHAINS) * 2.0;
    Ok(Ceilings {
        machine: Machine {
            flops_per_second: flops / arithmetic.seconds,
            bf16_flops_per_second: None,
            bytes_per_second: f64::from(LAUNCHES) * bytes as f64 / triad.seconds,
            caches: Caches::UNKNOWN,
            launch_seconds: launch.seconds / f64::from(NODES),
        },
        spread: Spread {
            arithmetic: arithmetic.spread,
            memory: triad.spread,
            launch: launch.spread,
            ..Spread::default()
        },
    })
}
