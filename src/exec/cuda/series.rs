//! Rows of runs on examples that are kept on the device.
//!
//! The graph of such a run has two launches more. The first gathers the inputs from the examples' bytes, by the numbers
//! that the host has left on the *desk*, a place behind the plan's arena; the last copies what is looked at to the desk,
//! and counts the run. So one graph is launched as often as there are runs, and the host waits for none of them.

use super::driver::{Context, DriverError, Event, Function, Graph, Memory, Pinned, Stream};
use super::graph::Touched;
use super::{KernelText, Launch, names, prelude};
use crate::exec::{Examples, MOST_RUNS, Watched, watched};
use crate::kernel::access::ordered_strides;
use crate::plan::{ALIGNMENT, Buffer, BufferRole, DType, EntryPlan, Feed, Plan, Type};
use crate::types::InputDecl;
use std::ops::Range;
use std::sync::Arc;

/// What the functions of a row of runs rely on.
const GATHER: &str = include_str!("../../../kernels/gather.cuh");
/// Bytes of the struct `Desk`.
const HEADER: usize = 32;
const THREADS: u32 = 256;
/// Elements of the inputs for each thread, roughly.
const EACH: usize = 4;

/// Where the desk is: its header, the numbers of examples, and a row of scalars for each run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Desk {
    start: usize,
    rows: usize,
    end: usize,
}

impl Desk {
    /// Behind the arena of a plan, with room for all of its entries.
    pub fn of(plan: &Plan) -> Desk {
        let entries = || plan.entries.iter();
        let start = plan.arena_bytes().next_multiple_of(ALIGNMENT);
        let numbers = entries().map(examples_of).max().unwrap_or(0) * MOST_RUNS;
        let scalars = (0..plan.entries.len()).map(|i| watched(plan, i).count()).max().unwrap_or(0) * MOST_RUNS;
        let rows = (start + HEADER + numbers * size_of::<u32>()).next_multiple_of(ALIGNMENT);
        Desk { start, rows, end: rows + scalars * size_of::<f32>() }
    }

    /// Bytes of the arena with the desk.
    pub fn end(&self) -> usize {
        self.end
    }
}

/// How many examples an entry takes.
fn examples_of(entry: &EntryPlan) -> usize {
    let data = entry.inputs.iter().find(|i| matches!(i.feed, Feed::Images | Feed::Labels));
    data.and_then(|input| input.ty.shape.first().copied()).unwrap_or(0)
}

/// Whether there are examples that an entry can be run on.
pub fn is_fed_from_examples(entry: &EntryPlan) -> bool {
    examples_of(entry) > 0 && entry.inputs.iter().all(|input| input.feed != Feed::Caller)
}

/// A text with a name in messages, and with all that it relies on.
pub fn named(text: &KernelText) -> (String, String) {
    ("gather.cu".to_string(), format!("{}\n{}", prelude(), text.source))
}

/// Why an entry can't be run on some examples; nothing where it can.
pub fn misfit(entry: &EntryPlan, examples: Examples) -> Option<String> {
    let batch = examples_of(entry);
    if batch == 0 {
        return Some("it takes no images and no labels".into());
    }
    let problem = |input: &InputDecl| {
        let of_batch = input.ty.shape.first() == Some(&batch);
        let fits = match input.feed {
            Feed::Images => {
                let pixels = examples.images.len() / examples.count.max(1);
                of_batch && input.ty.dtype == DType::F32 && input.ty.elements() == batch * pixels
            }
            Feed::Labels => {
                let is_there = examples.labels.is_some_and(|labels| labels.len() == examples.count);
                is_there && input.ty == Type::new(DType::U32, [batch])
            }
            Feed::Seed => input.ty.dtype == DType::U32 && input.ty.elements() == 2,
            Feed::Caller => false,
        };
        (!fits).then(|| format!("`{}` of {} does not come from them", input.name, input.ty))
    };
    entry.inputs.iter().find_map(problem)
}

/// The text of what begins and ends a run of an entry, and the bytes that each of its two launches touches.
pub fn text(plan: &Plan, entry: usize, desk: Desk) -> (KernelText, [Touched; 2]) {
    let mut text = KernelText { source: GATHER.to_string(), launches: Vec::new() };
    let own = &plan.entries[entry];
    let header = desk.start..desk.start + HEADER;
    let read = std::iter::once(desk.start..desk.rows).collect();
    let written = gather(&mut text, own, desk);
    let gathers = Touched { reads: read, writes: written };
    let places: Vec<Range<usize>> = watched(plan, entry).map(|it| place(plan, own, it)).collect();
    let rows = desk.rows..desk.rows + MOST_RUNS * places.len() * size_of::<f32>();
    let mut body = vec![format!("Desk* desk = (Desk*)(arena + {});", desk.start)];
    body.push(format!("float* row = (float*)(arena + {}) + {} * desk->run;", desk.rows, places.len()));
    body.push("if (threadIdx.x > 0) return;".into());
    body.extend(places.iter().enumerate().map(|(i, p)| format!("row[{i}] = *(const float*)(arena + {});", p.start)));
    body.push("desk->run += 1;".into());
    text.source.push('\n');
    text.add_function(Launch { function: "note_kernel".into(), grid: 1, block: 32, shared_bytes: 0 }, body);
    let notes = Touched { reads: [places, vec![header.clone()]].concat(), writes: vec![header, rows] };
    (text, [gathers, notes])
}

/// Where something that is looked at lies.
fn place(plan: &Plan, entry: &EntryPlan, what: Watched) -> Range<usize> {
    let start = match what {
        Watched::Output(i) => entry.schedule.buffers[entry.schedule.outputs[i].buffer.index()].offset,
        Watched::State(i) => plan.state_layout.offsets.get(&plan.states[i].name).copied().unwrap_or(0),
    };
    start..start + size_of::<f32>()
}

/// Adds the function that gathers an entry's inputs; gives the bytes that it writes.
fn gather(text: &mut KernelText, entry: &EntryPlan, desk: Desk) -> Vec<Range<usize>> {
    let buffers = &entry.schedule.buffers;
    let mut body = vec![
        format!("const Desk* desk = (const Desk*)(arena + {});", desk.start),
        format!("const unsigned* examples = (const unsigned*)(desk + 1) + {} * desk->run;", examples_of(entry)),
        "const unsigned thread = blockIdx.x * blockDim.x + threadIdx.x, threads = gridDim.x * blockDim.x;".to_string(),
    ];
    let mut written = Vec::new();
    let mut most = 1;
    for (number, input) in entry.inputs.iter().enumerate() {
        // Absent where no kernel reads it.
        let is_it = |b: &&Buffer| matches!(&b.role, BufferRole::Input(name) if *name == input.name);
        let Some(buffer) = buffers.iter().find(is_it) else { continue };
        let (elements, offset) = (buffer.elements(), buffer.offset);
        written.push(buffer.span());
        most = most.max(elements);
        let name = format!("{}_{number}", names::identifier(&input.name));
        let (ty, value) = match input.feed {
            Feed::Images => ("float", image_element(buffer)),
            Feed::Labels => ("unsigned", "((const unsigned char*)desk->labels)[examples[i]]".to_string()),
            Feed::Seed | Feed::Caller => ("unsigned", "desk->seed[i]".to_string()),
        };
        body.push(format!("{ty}* {name} = ({ty}*)(arena + {offset});  // input {}: {}", input.name, input.ty));
        body.push(format!("for (unsigned i = thread; i < {elements}; i += threads) {{"));
        body.push(format!("    {name}[i] = {value};"));
        body.push("}".into());
    }
    let grid = most.div_ceil(THREADS as usize * EACH) as u32;
    text.source.push('\n');
    text.add_function(Launch { function: "gather_kernel".into(), grid, block: THREADS, shared_bytes: 0 }, body);
    written
}

/// The value of element `i` of images, counted in the order in which they lie in the arena.
fn image_element(buffer: &Buffer) -> String {
    let canonical: Vec<usize> = (0..buffer.shape.len()).collect();
    let order = if buffer.order.is_empty() { &canonical } else { &buffer.order };
    let strides = ordered_strides(&buffer.shape, order);
    let coordinate = |d: usize| match buffer.shape[d] {
        1 => "0u".to_string(),
        size => format!("i / {}u % {size}u", strides[d]),
    };
    let mut pixel = Vec::new();
    let mut pixels = 1usize;
    for d in (1..buffer.shape.len()).rev() {
        if buffer.shape[d] > 1 {
            pixel.push(format!("{} * {pixels}u", coordinate(d)));
        }
        pixels *= buffer.shape[d];
    }
    let pixel = if pixel.is_empty() { "0".to_string() } else { pixel.join(" + ") };
    format!("to_unit(((const unsigned char*)desk->images)[examples[{}] * {pixels}ull + {pixel}])", coordinate(0))
}

/// The runs of an entry made ready.
#[derive(Debug)]
pub struct Runs {
    pub graph: Graph,
    /// What begins and ends a run: a graph does not keep the code of its launches.
    _code: Vec<Function>,
    pub entry: usize,
    /// Examples of one run.
    pub examples: usize,
    /// Scalars that are noted of one run.
    pub scalars: usize,
}

impl Runs {
    pub fn new(plan: &Plan, entry: usize, graph: Graph, code: Vec<Function>) -> Runs {
        let scalars = watched(plan, entry).count();
        Runs { graph, _code: code, entry, examples: examples_of(&plan.entries[entry]), scalars }
    }
}

/// Bytes of the host, and when their copy is made.
#[derive(Debug)]
struct Copied {
    bytes: Pinned,
    made: Event,
    /// How many of the bytes it has.
    len: usize,
}

/// Examples on the device, and rows of runs on them.
#[derive(Debug)]
pub struct Series {
    pub runs: Vec<Runs>,
    /// Images and, behind them, labels.
    memory: Memory,
    count: usize,
    labels: usize,
    desk: Desk,
    /// Two of each, used in turns: while one row of runs is under way the next is handed over, and of the one before the
    /// scalars are read.
    sent: [Copied; 2],
    noted: [Copied; 2],
    /// Rows that were started.
    started: usize,
}

impl Series {
    /// Copies examples to the device.
    pub fn new(context: &Arc<Context>, stream: &Stream, examples: Examples, desk: Desk) -> Result<Series, DriverError> {
        let images = examples.images.len();
        let labels = images.next_multiple_of(ALIGNMENT);
        let memory = Memory::new(context, labels + examples.labels.map_or(0, <[u8]>::len))?;
        stream.write(&memory, 0..images, examples.images)?;
        if let Some(values) = examples.labels {
            stream.write(&memory, labels..labels + values.len(), values)?;
        }
        let copied =
            |bytes: usize| Ok(Copied { bytes: Pinned::new(context, bytes)?, made: Event::new(context)?, len: 0 });
        let (numbers, rows) = (desk.rows - desk.start, desk.end - desk.rows);
        let sent = [copied(numbers)?, copied(numbers)?];
        let noted = [copied(rows)?, copied(rows)?];
        Ok(Series { runs: Vec::new(), memory, count: examples.count, labels, desk, sent, noted, started: 0 })
    }

    /// Why these are no numbers of examples for runs.
    pub fn problem(&self, runs: &Runs, numbers: &[u32]) -> Option<String> {
        let (batch, found) = (runs.examples, numbers.len());
        if found == 0 || !found.is_multiple_of(batch) || found > batch * MOST_RUNS {
            return Some(format!("it takes {batch} examples for each of up to {MOST_RUNS} runs, got {found}"));
        }
        let beyond = numbers.iter().find(|&&n| n as usize >= self.count);
        beyond.map(|n| format!("there is no example {n} among {}, counted from 0", self.count))
    }

    /// Starts a row of runs, number `which` of the entries, on examples without a [`Series::problem`].
    pub fn submit(
        &mut self,
        which: usize,
        seed: [u32; 2],
        numbers: &[u32],
        stream: &Stream,
        arena: &Memory,
    ) -> Result<(), DriverError> {
        let (runs, turn) = (&self.runs[which], self.started % 2);
        let (sent, noted, desk) = (&mut self.sent[turn], &mut self.noted[turn], self.desk);
        // Of the row before the last.
        sent.made.wait()?;
        sent.len = HEADER + size_of_val(numbers);
        let images = self.memory.address();
        let words = [seed[0], seed[1], 0, 0].into_iter().chain(numbers.iter().copied());
        let (addresses, rest) = sent.bytes.bytes_mut()[..sent.len].split_at_mut(16);
        addresses[..8].copy_from_slice(&images.to_ne_bytes());
        addresses[8..].copy_from_slice(&(images + self.labels as u64).to_ne_bytes());
        rest.chunks_exact_mut(4).zip(words).for_each(|(slot, word)| slot.copy_from_slice(&word.to_ne_bytes()));
        // SAFETY: nobody writes to the bytes before `made` has happened, which is waited for above and before they are freed.
        unsafe { stream.write_later(arena, desk.start..desk.start + sent.len, &sent.bytes, 0) }?;
        sent.made.record(stream)?;
        let count = numbers.len() / runs.examples;
        for _ in 0..count {
            runs.graph.launch(stream)?;
        }
        noted.len = count * runs.scalars * size_of::<f32>();
        // SAFETY: nobody looks at the bytes before `made` has happened, which is waited for in `read` and before they are
        // freed; a copy into them that is under way comes first in the stream.
        unsafe { stream.read_later(arena, desk.rows..desk.rows + noted.len, &mut noted.bytes) }?;
        noted.made.record(stream)?;
        self.started += 1;
        Ok(())
    }

    /// How many scalars there are of the last row of runs, or of the one `before` it.
    pub fn len(&self, before: usize) -> Option<usize> {
        (before < self.started.min(2)).then(|| self.noted[self.turn(before)].len / size_of::<f32>())
    }

    fn turn(&self, before: usize) -> usize {
        (self.started + 1 - before) % 2
    }

    /// Copies them, once the row is complete; later ones need not be.
    pub fn read(&self, before: usize, into: &mut [f32]) -> Result<(), DriverError> {
        let noted = &self.noted[self.turn(before)];
        noted.made.wait()?;
        let bytes = noted.bytes.bytes()[..noted.len].as_chunks::<4>().0;
        into.iter_mut().zip(bytes).for_each(|(slot, bytes)| *slot = f32::from_ne_bytes(*bytes));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(shape: &[usize], order: &[usize]) -> Buffer {
        Buffer {
            name: "x".into(),
            dtype: DType::F32,
            storage: Default::default(),
            shape: shape.to_vec(),
            order: order.to_vec(),
            role: BufferRole::Input("x".into()),
            offset: 0,
            live: (0, 0),
        }
    }

    #[test]
    fn an_element_of_images_is_found_in_every_order() {
        let plain = image_element(&buffer(&[5, 1, 4, 7], &[]));
        assert!(plain.ends_with("[examples[i / 28u % 5u] * 28ull + i / 1u % 7u * 1u + i / 7u % 4u * 7u])"), "{plain}");
        let pixel_major = image_element(&buffer(&[5, 1, 4, 7], &[2, 3, 0, 1]));
        let expected = "[examples[i / 1u % 5u] * 28ull + i / 5u % 7u * 1u + i / 35u % 4u * 7u])";
        assert!(pixel_major.ends_with(expected), "{pixel_major}");
        let flat = image_element(&buffer(&[5, 1], &[]));
        assert!(flat.ends_with("[examples[i / 1u % 5u] * 1ull + 0])"), "{flat}");
        let one = image_element(&buffer(&[1, 3], &[1, 0]));
        assert!(one.ends_with("[examples[0u] * 3ull + i / 1u % 3u * 1u])"), "{one}");
    }
}
