//! Runs plans on a GPU.
//!
//! An entry is one graph of launches that is built when the plan is loaded: a run copies its inputs and launches the graph.
//! All memory is reserved before the first run.

use super::ahead;
use super::code::{self, Given};
use super::device::{loss, no_memory, no_memory_beside_arena, refusal};
use super::driver::{Context, DriverError, Event, Function, Graph, Kind, Memory, Module, Node, Pinned, Shape, Stream};
use super::graph::{Touched, dependencies};
use super::measure::Pause;
use super::order;
use super::series::{self, Desk, Runs, Series};
use crate::exec::{
    Examples, ExecError, Executor, KernelTiming, Moment, TensorMut, TensorRef, check_count, check_tensor, nth,
};
use crate::kernel::body::BufferId;
use crate::kernel::schedule::WORD_BITS;
use crate::kernel::target::Architecture;
use crate::plan::{ALIGNMENT, Buffer, BufferRole, DType, EntryPlan, Plan, Storage, Type};
use crate::tensor::Tensor;
use crate::types::Rounding;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Why examples are not kept; a run goes on without.
const NO_ROOM: &str = "examples are not kept on the device: too little of its memory is free";

/// A tensor's place in the arena, and how it lies there.
#[derive(Debug, Clone)]
struct Place {
    name: String,
    offset: usize,
    ty: Type,
    /// See [`Buffer::order`].
    order: Vec<usize>,
}

/// An input of an entry.
#[derive(Debug)]
struct Input {
    place: Place,
    /// Where it waits for its copy; absent where no kernel reads it.
    staged: Option<usize>,
}

/// A copy of a state tensor.
#[derive(Debug)]
struct StateCopy {
    /// An index into the plan's states.
    of: usize,
    rounding: Rounding,
    place: Place,
}

/// A launch made ready.
#[derive(Debug)]
struct Launch {
    function: Function,
    shape: Shape,
}

/// An entry made ready.
#[derive(Debug)]
struct Entry {
    /// The launches of each kernel.
    kernels: Vec<Vec<Launch>>,
    /// In the order of the plan.
    inputs: Vec<Input>,
    outputs: Vec<Place>,
    /// Absent where there is nothing to launch.
    graph: Option<Graph>,
}

/// Inputs on their way to the device.
#[derive(Debug)]
struct Staging {
    bytes: Pinned,
    /// Their copies are made.
    copied: Event,
}

/// What is measured with.
#[derive(Debug)]
struct Clock {
    /// One more than the most kernels of an entry.
    events: Vec<Event>,
    pause: Pause,
}

/// Runs a plan on a GPU.
#[derive(Debug)]
pub struct CudaExecutor {
    plan: Arc<Plan>,
    device: String,
    architecture: Architecture,
    /// Code that may be used in place of what would be compiled.
    given: Given,
    entries: Vec<Entry>,
    states: Vec<Place>,
    copies: Vec<StateCopy>,
    /// Used in turns, so that one run's inputs are taken while those of the run before are on their way.
    staging: [Staging; 2],
    turn: usize,
    clock: Option<Clock>,
    desk: Desk,
    /// Examples that are kept.
    series: Option<Series>,
    /// Why nothing works any more.
    lost: Option<ExecError>,
    arena: Memory,
    stream: Stream,
    context: Arc<Context>,
}

impl CudaExecutor {
    /// Makes a verified plan ready.
    pub fn new(
        plan: Arc<Plan>,
        device: String,
        architecture: Architecture,
        context: &Arc<Context>,
        given: Given,
    ) -> Result<CudaExecutor, ExecError> {
        let desk = Desk::of(&plan);
        let bytes = desk.end();
        let failed = |error: DriverError| no_memory_beside_arena(&device, context, bytes, error);
        let arena = Memory::new(context, bytes)
            .map_err(|error| no_memory(&device, context, bytes, "the plan's arena", error))?;
        let stream = Stream::new(context).map_err(failed)?;
        stream.clear(&arena, 0..plan.state_layout.bytes).map_err(failed)?;
        let mut kernels = kernels(&plan, &device, architecture, context, &given, &failed)?.into_iter();
        let mut entries = Vec::with_capacity(plan.entries.len());
        for entry in &plan.entries {
            let own: Vec<Vec<Launch>> = kernels.by_ref().take(entry.schedule.kernels.len()).collect();
            let graph = graph(&work(entry, &own), &arena, context).map_err(failed)?;
            if let Some(graph) = &graph {
                graph.upload(&stream).map_err(failed)?;
            }
            entries.push(Entry::new(entry, own, graph));
        }
        let staged = entries.iter().map(Entry::staged_bytes).max().unwrap_or(0);
        let staging = || {
            let bytes = Pinned::new(context, staged).map_err(failed)?;
            Ok(Staging { bytes, copied: Event::new(context).map_err(failed)? })
        };
        let staging = [staging()?, staging()?];
        let (states, copies) = (states(&plan), copies(&plan));
        stream.wait().map_err(failed)?;
        let context = context.clone();
        let (turn, clock, series, lost) = (0, None, None, None);
        Ok(CudaExecutor {
            plan,
            device,
            architecture,
            given,
            entries,
            states,
            copies,
            staging,
            turn,
            clock,
            desk,
            series,
            lost,
            arena,
            stream,
            context,
        })
    }

    /// Makes the calling thread ready, unless the device is lost.
    fn enter(&mut self) -> Result<(), ExecError> {
        if let Some(lost) = &self.lost {
            return Err(lost.clone());
        }
        self.context.enter().map_err(|error| self.note(error))
    }

    /// An error of the driver as one of the executor's. What is lost stays lost: all that follows is refused.
    fn note(&mut self, error: DriverError) -> ExecError {
        let error = loss(&self.device, error);
        if matches!(error, ExecError::Lost { .. }) {
            self.lost = Some(error.clone());
        }
        error
    }

    /// Checks inputs and has them copied when the runs before are done.
    fn write_inputs(&mut self, entry: usize, inputs: &[TensorRef]) -> Result<(), ExecError> {
        let program = nth(&self.entries, entry, "entry")?;
        check_count(&self.plan.entries[entry], inputs)?;
        for (input, given) in program.inputs.iter().zip(inputs) {
            input.place.check("input", given.dtype(), given.len())?;
        }
        let copied = Self::stage(program, inputs, &mut self.staging[self.turn], &self.stream, &self.arena);
        self.turn = 1 - self.turn;
        copied.map_err(|error| self.note(error))
    }

    fn stage(
        program: &Entry,
        inputs: &[TensorRef],
        staging: &mut Staging,
        stream: &Stream,
        arena: &Memory,
    ) -> Result<(), DriverError> {
        // Of the run before the last.
        staging.copied.wait()?;
        for (input, given) in program.inputs.iter().zip(inputs) {
            let Some(start) = input.staged else { continue };
            let place = &input.place;
            let into = &mut staging.bytes.bytes_mut()[start..][..place.ty.bytes()];
            order::to_device(given.bytes(), into, &place.ty.shape, &place.order, place.ty.dtype.size());
        }
        for input in &program.inputs {
            let Some(start) = input.staged else { continue };
            // SAFETY: nobody writes to the staged bytes before `copied` has happened, which is waited for above and before
            // they are freed.
            unsafe { stream.write_later(arena, input.place.bytes(), &staging.bytes, start) }?;
        }
        staging.copied.record(stream)
    }

    /// Launches the kernels one after the other, with an event before each and after the last.
    fn launch_timed(&mut self, entry: usize) -> Result<(), DriverError> {
        let kernels = &self.entries[entry].kernels;
        let Some(clock) = &self.clock else { return Ok(()) };
        // The device waits until all is launched: else it would wait for each launch, and that would be measured.
        clock.pause.launch(&self.stream, &self.arena)?;
        for (kernel, event) in kernels.iter().zip(&clock.events) {
            event.record(&self.stream)?;
            self.launch(kernel)?;
        }
        clock.events[kernels.len()].record(&self.stream)?;
        self.stream.wait()
    }

    fn launch(&self, kernel: &[Launch]) -> Result<(), DriverError> {
        for launch in kernel {
            // SAFETY: the kernels of a verified plan stay inside the arena, whose place and size they were made for.
            unsafe { self.stream.launch(&launch.function, launch.shape, &self.arena) }?;
        }
        Ok(())
    }

    fn timings(&self, entry: usize) -> Result<Vec<KernelTiming>, DriverError> {
        let Some(clock) = &self.clock else { return Ok(Vec::new()) };
        let events = &clock.events;
        (0..self.entries[entry].kernels.len())
            .map(|kernel| {
                let start = events[kernel].since(&events[0])?;
                Ok(KernelTiming { kernel, start, length: events[kernel + 1].since(&events[kernel])? })
            })
            .collect()
    }

    fn make_clock(&mut self) -> Result<(), ExecError> {
        if self.clock.is_none() {
            let most = self.entries.iter().map(|entry| entry.kernels.len()).max().unwrap_or(0);
            let pause = Pause::new(&self.device, self.architecture, &self.context, most)?;
            let events: Result<Vec<Event>, DriverError> = (0..=most).map(|_| Event::new(&self.context)).collect();
            self.clock = Some(Clock { events: events.map_err(|error| self.note(error))?, pause });
        }
        Ok(())
    }

    /// The graphs of runs on kept examples; `None` where there is no room for them, or neither code of what begins and ends
    /// them nor what compiles it.
    fn runs(&mut self, entries: &[usize]) -> Result<Option<Vec<Runs>>, ExecError> {
        let made: Vec<_> = entries.iter().map(|&entry| series::text(&self.plan, entry, self.desk)).collect();
        let texts: Vec<(String, String)> = made.iter().map(|(text, _)| series::named(text)).collect();
        let failed = |error| refusal(&self.device, error);
        let modules = match code::load(&self.device, self.architecture, &self.context, &self.given, &texts, &failed) {
            Err(ExecError::Unavailable { what, .. }) => {
                tracing::debug!("examples are not kept on the device: {what}");
                return Ok(None);
            }
            loaded => loaded?.modules,
        };
        let mut runs = Vec::new();
        for ((&entry, (text, touched)), module) in entries.iter().zip(&made).zip(&modules) {
            match self.runs_of(entry, &text.launches, touched, module) {
                Err(error) if error.kind == Kind::OutOfMemory => {
                    tracing::debug!("{NO_ROOM}");
                    return Ok(None);
                }
                made => runs.extend(made.map_err(|error| self.note(error))?),
            }
        }
        Ok(Some(runs))
    }

    /// The graph of runs of an entry, from the launches that begin and end them.
    fn runs_of(
        &self,
        entry: usize,
        ends: &[super::Launch],
        [gathers, notes]: &[Touched; 2],
        module: &Arc<Module>,
    ) -> Result<Option<Runs>, DriverError> {
        let own = launches(ends, module)?;
        let mut work = work(&self.plan.entries[entry], &self.entries[entry].kernels);
        work.insert(0, (gathers.clone(), &own[..1]));
        work.push((notes.clone(), &own[1..]));
        let Some(graph) = graph(&work, &self.arena, &self.context)? else { return Ok(None) };
        graph.upload(&self.stream)?;
        let code = own.iter().map(|launch| launch.function.clone()).collect();
        Ok(Some(Runs::new(&self.plan, entry, graph, code)))
    }

    fn read(&mut self, what: &'static str, place: &Place, into: TensorMut) -> Result<(), ExecError> {
        place.check(what, into.dtype(), into.len())?;
        let into = into.into_bytes();
        let read = if place.order.is_empty() {
            self.stream.read(&self.arena, place.bytes(), into)
        } else {
            let mut there = vec![0; into.len()];
            let read = self.stream.read(&self.arena, place.bytes(), &mut there);
            order::from_device(&there, into, &place.ty.shape, &place.order, place.ty.dtype.size());
            read
        };
        read.map_err(|error| self.note(error))
    }

    fn write(&self, place: &Place, from: TensorRef) -> Result<(), DriverError> {
        if place.order.is_empty() {
            return self.stream.write(&self.arena, place.bytes(), from.bytes());
        }
        let mut there = vec![0; place.ty.bytes()];
        order::to_device(from.bytes(), &mut there, &place.ty.shape, &place.order, place.ty.dtype.size());
        self.stream.write(&self.arena, place.bytes(), &there)
    }

    /// What a buffer holds now, in the order of its shape.
    fn read_buffer(&mut self, buffer: &Buffer) -> Result<Tensor, ExecError> {
        let place = Place::of(&buffer.name, buffer);
        let mut tensor = Tensor::zeros(place.ty.clone());
        if buffer.storage == Storage::Elements {
            self.read("buffer", &place, tensor.view_mut())?;
            return Ok(tensor);
        }
        let mut words = Tensor::zeros(Type::u32([buffer.elements().div_ceil(WORD_BITS)]));
        let packed = Place { ty: words.ty().clone(), order: Vec::new(), ..place.clone() };
        self.read("buffer", &packed, words.view_mut())?;
        let words = words.values::<u32>().unwrap_or_default();
        let bit = |i: usize| f32::from(words[i / WORD_BITS] >> (i % WORD_BITS) & 1 != 0);
        let there: Vec<f32> = (0..buffer.elements()).map(bit).collect();
        let (there, into) = (TensorRef::f32(&there).bytes(), tensor.view_mut().into_bytes());
        order::from_device(there, into, &place.ty.shape, &place.order, place.ty.dtype.size());
        Ok(tensor)
    }
}

impl Drop for CudaExecutor {
    fn drop(&mut self) {
        // Copies from staged bytes may be under way. On a lost device nothing is.
        let _ = self.context.enter();
        let _ = self.stream.wait();
    }
}

/// The kernels of all entries, ready to be launched.
fn kernels(
    plan: &Plan,
    device: &str,
    architecture: Architecture,
    context: &Arc<Context>,
    given: &Given,
    failed: &dyn Fn(DriverError) -> ExecError,
) -> Result<Vec<Vec<Launch>>, ExecError> {
    let texts = ahead::texts(plan);
    let named: Vec<(String, String)> = texts.iter().map(|text| text.named.clone()).collect();
    let loaded = code::load(device, architecture, context, given, &named, failed)?;
    if loaded.passes_over_given {
        tracing::warn!(
            "the plan's device code was not compiled on this machine: its kernels are compiled again \
             (--trust-device-code runs it as it is)"
        );
    }
    let ready = |(text, module): (&ahead::Text, _)| launches(&text.launches, module).map_err(failed);
    texts.iter().zip(&loaded.modules).map(ready).collect()
}

/// The launches of a text that was loaded.
fn launches(launches: &[super::Launch], module: &Arc<Module>) -> Result<Vec<Launch>, DriverError> {
    let ready = |launch: &super::Launch| {
        let function = module.function(&launch.function, launch.shared_bytes)?;
        let shape = Shape { grid: launch.grid, block: launch.block, shared_bytes: launch.shared_bytes };
        Ok(Launch { function, shape })
    };
    launches.iter().map(ready).collect()
}

/// The launches of each kernel of an entry, and the bytes that it touches.
fn work<'k>(entry: &EntryPlan, kernels: &'k [Vec<Launch>]) -> Vec<(Touched, &'k [Launch])> {
    let touched = entry.schedule.kernels.iter().map(|kernel| Touched::by(kernel, &entry.schedule.buffers));
    touched.zip(kernels.iter().map(Vec::as_slice)).collect()
}

/// Launches as a graph; where bytes touch, they run in the order in which they are given.
fn graph(work: &[(Touched, &[Launch])], arena: &Memory, context: &Arc<Context>) -> Result<Option<Graph>, DriverError> {
    let touched: Vec<Touched> = work.iter().map(|(touched, _)| touched.clone()).collect();
    let mut nodes: Vec<Node> = Vec::new();
    // Of each kernel the last launch.
    let mut last: Vec<usize> = Vec::new();
    for (before, (_, launches)) in dependencies(&touched).iter().zip(work) {
        let mut after: Vec<usize> = before.iter().map(|&kernel| last[kernel]).collect();
        for launch in *launches {
            let (function, shape) = (launch.function.clone(), launch.shape);
            nodes.push(Node { function, shape, after: std::mem::take(&mut after) });
            after = vec![nodes.len() - 1];
        }
        last.push(nodes.len().saturating_sub(1));
    }
    if nodes.is_empty() {
        return Ok(None);
    }
    // SAFETY: the kernels of a verified plan stay inside the arena, whose size they were made for; the executor keeps both.
    unsafe { Graph::new(context, &nodes, arena) }.map(Some)
}

/// The places of a plan's states.
fn states(plan: &Plan) -> Vec<Place> {
    plan.states.iter().map(|state| state_place(plan, &state.name, state.ty.clone())).collect()
}

fn copies(plan: &Plan) -> Vec<StateCopy> {
    let numbers: HashMap<&str, usize> = plan.states.iter().enumerate().map(|(i, s)| (s.name.as_str(), i)).collect();
    let copy = |(name, copy): (&String, &crate::plan::StateCopy)| {
        let of = *numbers.get(copy.of.as_str())?;
        let place = state_place(plan, name, copy.ty(&plan.states[of].ty));
        Some(StateCopy { of, rounding: copy.rounding, place })
    };
    plan.state_layout.copies.iter().filter_map(copy).collect()
}

/// The place of a state or a copy of one.
fn state_place(plan: &Plan, name: &str, ty: Type) -> Place {
    let layout = &plan.state_layout;
    let offset = layout.offsets.get(name).copied().unwrap_or(0);
    Place { name: name.into(), offset, ty, order: layout.orders.get(name).cloned().unwrap_or_default() }
}

impl Entry {
    fn new(entry: &EntryPlan, kernels: Vec<Vec<Launch>>, graph: Option<Graph>) -> Entry {
        let buffers = &entry.schedule.buffers;
        let mut staged = 0usize;
        let inputs = (entry.inputs.iter())
            .map(|input| {
                let buffer = buffers.iter().find(|b| b.role == BufferRole::Input(input.name.clone()));
                let Some(buffer) = buffer else {
                    let place = Place { name: input.name.clone(), offset: 0, ty: input.ty.clone(), order: Vec::new() };
                    return Input { place, staged: None };
                };
                let start = staged;
                staged = (start + buffer.bytes()).next_multiple_of(ALIGNMENT);
                Input { place: Place::of(&input.name, buffer), staged: Some(start) }
            })
            .collect();
        let outputs = entry.schedule.outputs.iter().map(|o| Place::of(&o.name, &buffers[o.buffer.index()])).collect();
        Entry { kernels, inputs, outputs, graph }
    }

    fn staged_bytes(&self) -> usize {
        let end = |input: &Input| input.staged.map_or(0, |start| start + input.place.ty.bytes());
        self.inputs.iter().map(end).max().unwrap_or(0)
    }
}

impl Place {
    fn of(name: &str, buffer: &Buffer) -> Place {
        let ty = Type::new(buffer.dtype, buffer.shape.clone());
        Place { name: name.into(), offset: buffer.offset, ty, order: buffer.order.clone() }
    }

    fn bytes(&self) -> Range<usize> {
        self.offset..self.offset + self.ty.bytes()
    }

    fn check(&self, what: &'static str, dtype: DType, len: usize) -> Result<(), ExecError> {
        check_tensor(what, &self.name, (self.ty.dtype, self.ty.elements()), (dtype, len))
    }
}

impl Executor for CudaExecutor {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn submit(&mut self, entry: usize, inputs: &[TensorRef]) -> Result<(), ExecError> {
        self.enter()?;
        self.write_inputs(entry, inputs)?;
        match &self.entries[entry].graph {
            None => Ok(()),
            Some(graph) => graph.launch(&self.stream).map_err(|error| self.note(error)),
        }
    }

    fn wait(&mut self) -> Result<(), ExecError> {
        self.enter()?;
        self.stream.wait().map_err(|error| self.note(error))
    }

    fn profile(&mut self, entry: usize, inputs: &[TensorRef]) -> Result<Vec<KernelTiming>, ExecError> {
        self.enter()?;
        nth(&self.entries, entry, "entry")?;
        self.make_clock()?;
        self.write_inputs(entry, inputs)?;
        self.launch_timed(entry).map_err(|error| self.note(error))?;
        self.timings(entry).map_err(|error| self.note(error))
    }

    fn step_through(
        &mut self,
        entry: usize,
        inputs: &[TensorRef],
        look: &mut dyn FnMut(Moment) -> Result<(), ExecError>,
    ) -> Result<(), ExecError> {
        self.enter()?;
        self.write_inputs(entry, inputs)?;
        let plan = self.plan.clone();
        let buffers = &plan.entries[entry].schedule.buffers;
        for kernel in 0..self.entries[entry].kernels.len() {
            for is_done in [false, true] {
                if is_done {
                    let done = self.launch(&self.entries[entry].kernels[kernel]).and_then(|()| self.stream.wait());
                    done.map_err(|error| self.note(error))?;
                }
                let mut read = |id: BufferId| self.read_buffer(nth(buffers, id.index(), "buffer")?);
                look(Moment { kernel, is_done, read: &mut read })?;
            }
        }
        self.wait()
    }

    fn read_output(&mut self, entry: usize, output: usize, into: TensorMut) -> Result<(), ExecError> {
        self.enter()?;
        let place = nth(&nth(&self.entries, entry, "entry")?.outputs, output, "output")?.clone();
        self.read("output", &place, into)
    }

    fn read_state(&mut self, state: usize, into: TensorMut) -> Result<(), ExecError> {
        self.enter()?;
        let place = nth(&self.states, state, "state")?.clone();
        self.read("state", &place, into)
    }

    fn write_state(&mut self, state: usize, from: TensorRef) -> Result<(), ExecError> {
        self.enter()?;
        let place = nth(&self.states, state, "state")?;
        place.check("state", from.dtype(), from.len())?;
        let mut written = self.write(place, from);
        for copy in self.copies.iter().filter(|copy| copy.of == state) {
            let Some(values) = from.values::<f32>() else { continue };
            written = written.and_then(|()| self.write(&copy.place, copy.rounding.round(values).view()));
        }
        written.map_err(|error| self.note(error))
    }

    fn keep(&mut self, entries: &[usize], examples: Examples) -> Result<bool, ExecError> {
        self.enter()?;
        // What was kept may be in use.
        self.stream.wait().map_err(|error| self.note(error))?;
        self.series = None;
        for &entry in entries {
            let entry = nth(&self.plan.entries, entry, "entry")?;
            if let Some(problem) = series::misfit(entry, examples) {
                tracing::debug!("examples are not kept on the device: `{}`, {problem}", entry.name);
                return Ok(false);
            }
        }
        let mut kept = match Series::new(&self.context, &self.stream, examples, self.desk) {
            Err(error) if error.kind == Kind::OutOfMemory => {
                tracing::debug!("{NO_ROOM}");
                return Ok(false);
            }
            kept => kept.map_err(|error| self.note(error))?,
        };
        let Some(runs) = self.runs(entries)? else { return Ok(false) };
        kept.runs = runs;
        tracing::debug!("{} examples are kept on the device", examples.count);
        self.series = Some(kept);
        Ok(true)
    }

    fn submit_series(&mut self, entry: usize, seed: [u32; 2], numbers: &[u32]) -> Result<(), ExecError> {
        self.enter()?;
        let name = &nth(&self.plan.entries, entry, "entry")?.name;
        let refused = |problem: String| ExecError::Series { entry: name.clone(), problem };
        let which = |series: &Series| series.runs.iter().position(|runs| runs.entry == entry);
        let Some((series, which)) = self.series.as_mut().and_then(|s| which(s).map(|which| (s, which))) else {
            return Err(refused("none are kept for it".into()));
        };
        if let Some(problem) = series.problem(&series.runs[which], numbers) {
            return Err(refused(problem));
        }
        let started = series.submit(which, seed, numbers, &self.stream, &self.arena);
        started.map_err(|error| self.note(error))
    }

    fn read_series(&mut self, before: usize, into: &mut [f32]) -> Result<(), ExecError> {
        self.enter()?;
        let Some(series) = self.series.as_ref().filter(|series| series.len(before) == Some(into.len())) else {
            let name = format!("number {before} from the end, of {} scalars", into.len());
            return Err(ExecError::Unknown { what: "series", name });
        };
        series.read(before, into).map_err(|error| self.note(error))
    }
}
