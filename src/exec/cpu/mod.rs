//! The CPU executor.
//!
//! Everything is made ready when an executor is built: each kernel's programs, the arena, and what the
//! workers need beside it. A run allocates nothing. Kernels run one after the other; the tasks of one are
//! shared out among threads.

mod ceilings;
mod contraction;
mod gemm;
mod nest;
mod pool;
mod program;
mod random;
#[cfg(test)]
mod tests;
mod tile;

use super::{ExecError, Executor, TensorMut, TensorRef};
use crate::plan::kernel::{Body, BufferId, Kernel};
use crate::plan::{self, Buffer, BufferRole, DType, EntryPlan, Plan, Type};
pub use ceilings::{Ceilings, Spread, ceilings};
use contraction::{ContractionProgram, Needs, Phase, Worker};
use gemm::Isa;
use nest::{NestProgram, Scratch};
use pool::Pool;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use tile::Arena;

/// A kernel made ready.
#[derive(Debug)]
enum KernelProgram {
    Nests(Vec<NestProgram>),
    Contraction(ContractionProgram),
}

/// A tensor's place in the arena.
#[derive(Debug, Clone)]
struct Place {
    name: String,
    dtype: DType,
    first: usize,
    elements: usize,
}

/// An entry made ready.
#[derive(Debug)]
struct EntryProgram {
    kernels: Vec<KernelProgram>,
    /// In the order of the plan; the second is absent where no kernel reads the input.
    inputs: Vec<(Place, bool)>,
    outputs: Vec<Place>,
}

/// Runs a plan on the processor's cores.
#[derive(Debug)]
pub struct CpuExecutor {
    plan: Plan,
    memory: Memory,
    entries: Vec<EntryProgram>,
    states: Vec<Place>,
    pool: Pool,
    workers: Vec<Mutex<Worker>>,
}

/// Floats that start at a cache line.
#[derive(Debug)]
struct Memory {
    floats: Vec<f32>,
    skip: usize,
}

const LINE: usize = plan::ALIGNMENT / size_of::<f32>();

impl Memory {
    fn new(floats: usize) -> Result<Memory, ExecError> {
        let total = floats.checked_add(LINE).ok_or(ExecError::OutOfMemory(usize::MAX))?;
        let mut memory = Vec::new();
        memory.try_reserve_exact(total).map_err(|_| ExecError::OutOfMemory(total.saturating_mul(4)))?;
        memory.resize(total, 0.0);
        let skip = memory.as_ptr().align_offset(plan::ALIGNMENT).min(LINE);
        Ok(Memory { floats: memory, skip })
    }

    fn all(&mut self) -> &mut [f32] {
        &mut self.floats[self.skip..]
    }
}

impl CpuExecutor {
    /// Makes a plan ready to run on `threads` threads. All state is zero.
    ///
    /// # Errors
    /// When the plan does not pass its verification, or its arena does not fit the memory.
    pub fn new(plan: Plan, threads: usize) -> Result<CpuExecutor, ExecError> {
        Self::with_isa(plan, threads, Isa::detect())
    }

    fn with_isa(plan: Plan, threads: usize, isa: Isa) -> Result<CpuExecutor, ExecError> {
        plan::verify(&plan).map_err(|e| ExecError::InvalidPlan(e.to_string()))?;
        let arena = plan.arena_bytes() / size_of::<f32>();
        let entries: Vec<EntryProgram> = plan.entries.iter().map(|e| EntryProgram::new(e, isa, arena)).collect();
        let kernels = || entries.iter().flat_map(|e| &e.kernels);
        let shared = kernels().map(KernelProgram::shared_floats).max().unwrap_or(0);
        let memory = Memory::new(arena + shared)?;
        let nests: Vec<&NestProgram> = kernels().flat_map(KernelProgram::nests).collect();
        let programs: Vec<_> = kernels().flat_map(KernelProgram::phases).filter_map(Phase::program).collect();
        let needs = kernels().map(KernelProgram::needs).fold(Needs::default(), Needs::max);
        let pool = Pool::new(threads);
        let workers = (0..pool.threads())
            .map(|_| Mutex::new(Worker::new(Scratch::new(nests.iter().copied(), &programs), needs)))
            .collect();
        let states = (plan.states.iter())
            .map(|s| place(&s.name, &s.ty, plan.state_layout.offsets.get(&s.name).copied().unwrap_or(0)))
            .collect();
        Ok(CpuExecutor { plan, memory, entries, states, pool, workers })
    }

    /// How many threads run a kernel.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    fn write_inputs(&mut self, entry: usize, inputs: &[TensorRef]) -> Result<(), ExecError> {
        let program = nth(&self.entries, entry, "entry")?;
        if inputs.len() != program.inputs.len() {
            return Err(ExecError::WrongInputs {
                entry: self.plan.entries[entry].name.clone(),
                expected: program.inputs.len(),
                found: inputs.len(),
            });
        }
        let memory = self.memory.all();
        for ((place, is_used), input) in program.inputs.iter().zip(inputs) {
            place.write("input", memory, *input, *is_used)?;
        }
        Ok(())
    }

    fn kernel(kernel: &KernelProgram, arena: Arena, pool: &Pool, workers: &[Mutex<Worker>]) {
        let worker = |index: usize| workers[index].lock().unwrap_or_else(PoisonError::into_inner);
        match kernel {
            KernelProgram::Nests(nests) => {
                let tasks = nests.iter().map(NestProgram::tasks).sum();
                pool.run(tasks, &|task, index| {
                    let mut task = task;
                    for nest in nests {
                        if task < nest.tasks() {
                            return nest.run(task, arena, &mut worker(index).nest);
                        }
                        task -= nest.tasks();
                    }
                });
            }
            KernelProgram::Contraction(contraction) => {
                for phase in &contraction.phases {
                    pool.run(phase.tasks(), &|task, index| phase.run(task, arena, &mut worker(index)));
                }
            }
        }
    }
}

fn place(name: &str, ty: &Type, offset: usize) -> Place {
    Place { name: name.into(), dtype: ty.dtype, first: offset / size_of::<f32>(), elements: ty.elements() }
}

impl EntryProgram {
    fn new(entry: &EntryPlan, isa: Isa, shared: usize) -> EntryProgram {
        let buffers = &entry.schedule.buffers;
        let first = |id: BufferId| buffers[id].offset / size_of::<f32>();
        let of_buffer = |name: &str, b: &Buffer| Place {
            name: name.into(),
            dtype: b.dtype,
            first: b.offset / size_of::<f32>(),
            elements: b.elements(),
        };
        let inputs = (entry.inputs.iter())
            .map(|input| {
                let buffer = buffers.iter().find(|b| b.role == BufferRole::Input(input.name.clone()));
                buffer.map_or((place(&input.name, &input.ty, 0), false), |b| (of_buffer(&input.name, b), true))
            })
            .collect();
        EntryProgram {
            kernels: entry.schedule.kernels.iter().map(|k| KernelProgram::new(k, isa, &first, shared)).collect(),
            inputs,
            outputs: entry.schedule.outputs.iter().map(|o| of_buffer(&o.name, &buffers[o.buffer])).collect(),
        }
    }
}

impl KernelProgram {
    fn new(kernel: &Kernel, isa: Isa, first: &dyn Fn(BufferId) -> usize, shared: usize) -> KernelProgram {
        match &kernel.body {
            Body::Nests(nests) => KernelProgram::Nests(nests.iter().map(|n| NestProgram::new(n, first)).collect()),
            Body::Contraction(c) => KernelProgram::Contraction(ContractionProgram::new(c, isa, first, shared)),
        }
    }

    fn phases(&self) -> &[Phase] {
        match self {
            KernelProgram::Nests(_) => &[],
            KernelProgram::Contraction(c) => &c.phases,
        }
    }

    fn nests(&self) -> Box<dyn Iterator<Item = &NestProgram> + '_> {
        match self {
            KernelProgram::Nests(nests) => Box::new(nests.iter()),
            KernelProgram::Contraction(c) => Box::new(c.phases.iter().filter_map(Phase::nest)),
        }
    }

    fn shared_floats(&self) -> usize {
        match self {
            KernelProgram::Nests(_) => 0,
            KernelProgram::Contraction(c) => c.shared_floats,
        }
    }

    fn needs(&self) -> Needs {
        match self {
            KernelProgram::Nests(_) => Needs::default(),
            KernelProgram::Contraction(c) => c.needs(),
        }
    }
}

impl Place {
    fn check(&self, what: &'static str, dtype: DType, len: usize) -> Result<(), ExecError> {
        if (dtype, len) == (self.dtype, self.elements) {
            return Ok(());
        }
        Err(ExecError::WrongTensor {
            what,
            name: self.name.clone(),
            expected: format!("{} elements of {}", self.elements, self.dtype),
            found: format!("{len} of {dtype}"),
        })
    }

    fn write(&self, what: &'static str, memory: &mut [f32], from: TensorRef, is_used: bool) -> Result<(), ExecError> {
        match from {
            TensorRef::F32(values) => {
                self.check(what, DType::F32, values.len())?;
                if is_used {
                    memory[self.first..][..self.elements].copy_from_slice(values);
                }
            }
            TensorRef::U32(values) => {
                self.check(what, DType::U32, values.len())?;
                if is_used {
                    let to = &mut memory[self.first..][..self.elements];
                    to.iter_mut().zip(values).for_each(|(to, &from)| *to = f32::from_bits(from));
                }
            }
        }
        Ok(())
    }

    fn read(&self, what: &'static str, memory: &[f32], into: TensorMut) -> Result<(), ExecError> {
        let from = &memory[self.first..][..self.elements];
        match into {
            TensorMut::F32(values) => {
                self.check(what, DType::F32, values.len())?;
                values.copy_from_slice(from);
            }
            TensorMut::U32(values) => {
                self.check(what, DType::U32, values.len())?;
                values.iter_mut().zip(from).for_each(|(to, from)| *to = from.to_bits());
            }
        }
        Ok(())
    }
}

fn nth<'t, T>(items: &'t [T], index: usize, what: &'static str) -> Result<&'t T, ExecError> {
    items.get(index).ok_or_else(|| ExecError::Unknown { what, name: format!("number {index}") })
}

impl Executor for CpuExecutor {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn run(&mut self, entry: usize, inputs: &[TensorRef]) -> Result<(), ExecError> {
        self.write_inputs(entry, inputs)?;
        let arena = Arena::new(self.memory.all());
        for kernel in &self.entries[entry].kernels {
            Self::kernel(kernel, arena, &self.pool, &self.workers);
        }
        Ok(())
    }

    fn run_observed(
        &mut self,
        entry: usize,
        inputs: &[TensorRef],
        observe: &mut dyn FnMut(usize, Instant),
    ) -> Result<(), ExecError> {
        self.write_inputs(entry, inputs)?;
        let arena = Arena::new(self.memory.all());
        for (index, kernel) in self.entries[entry].kernels.iter().enumerate() {
            let started = Instant::now();
            Self::kernel(kernel, arena, &self.pool, &self.workers);
            observe(index, started);
        }
        Ok(())
    }

    fn read_output(&mut self, entry: usize, output: usize, into: TensorMut) -> Result<(), ExecError> {
        let place = nth(&nth(&self.entries, entry, "entry")?.outputs, output, "output")?;
        place.read("output", self.memory.all(), into)
    }

    fn read_state(&mut self, state: usize, into: TensorMut) -> Result<(), ExecError> {
        nth(&self.states, state, "state")?.read("state", self.memory.all(), into)
    }

    fn write_state(&mut self, state: usize, from: TensorRef) -> Result<(), ExecError> {
        nth(&self.states, state, "state")?.write("state", self.memory.all(), from, true)
    }
}
