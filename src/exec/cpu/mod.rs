//! The CPU as a device.
//!
//! Everything is prepared when an executor is built: each kernel's programs, the arena, and what the
//! workers need besides it. A run allocates nothing. Kernels run one after the other; the tasks of one are
//! divided among the threads.

mod arena;
mod caches;
mod ceilings;
mod contraction;
mod far;
mod fold;
mod gemm;
mod nest;
mod pool;
mod random;
mod simulated;
#[cfg(test)]
mod tests;
mod tile;
mod tile_program;
mod transform;
mod transpose;
mod walk;

use super::{
    Ceilings, Device, ExecError, Executor, KernelTiming, TensorMut, TensorRef, check_count, check_tensor, nth,
};
use crate::kernel::body::{Body, BufferId, Kernel};
use crate::kernel::cost::Multiplied;
use crate::kernel::target::Target;
use crate::plan::{self, Buffer, BufferRole, DType, EntryPlan, Plan, Type};
use crate::tensor::Tensor;
use arena::{Arena, Location, Memory};
use contraction::{ContractionProgram, Needs, Phase, Worker};
pub use gemm::Isa;
use nest::{NestProgram, Scratch};
use pool::Pool;
pub use simulated::{TaskTimes, simulated};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use transform::TransformProgram;

/// A kernel made ready.
#[derive(Debug)]
enum KernelProgram {
    Nests(Vec<NestProgram>),
    Contraction(ContractionProgram),
    Transform(TransformProgram),
}

/// A tensor's place in the arena.
#[derive(Debug, Clone)]
struct TensorSpan {
    name: String,
    at: Location,
    elements: usize,
}

/// An entry made ready.
#[derive(Debug)]
struct EntryProgram {
    kernels: Vec<KernelProgram>,
    /// In the order of the plan; the second is absent where no kernel reads the input.
    inputs: Vec<(TensorSpan, bool)>,
    outputs: Vec<TensorSpan>,
}

/// The processor's cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuDevice {
    /// How many threads run a kernel, at least one; the system may give fewer. Results do not depend on it.
    pub threads: usize,
    /// What matrix products are computed with. Results differ by rounding from one to another.
    pub isa: Isa,
}

impl CpuDevice {
    /// This many threads, with the widest instruction set that this processor has.
    pub fn new(threads: usize) -> CpuDevice {
        CpuDevice { threads: threads.max(1), isa: Isa::detect() }
    }

    fn check_isa(&self) -> Result<(), ExecError> {
        if Isa::available().contains(&self.isa) {
            return Ok(());
        }
        let what = format!("this processor has no {}", self.isa.name());
        Err(ExecError::Unsupported { device: self.name(), what })
    }
}

impl Device for CpuDevice {
    fn name(&self) -> String {
        let plural = if self.threads == 1 { "" } else { "s" };
        format!("CPU ({}, {} thread{plural})", self.isa.name(), self.threads)
    }

    fn load(&self, plan: Arc<Plan>) -> Result<Box<dyn Executor>, ExecError> {
        self.check_isa()?;
        if let Target::Cuda(architecture) = plan.source.target {
            let what = format!("the plan's kernels are for GPUs ({architecture}); compile its program for the CPU");
            return Err(ExecError::Unsupported { device: self.name(), what });
        }
        Ok(Box::new(CpuExecutor::new(plan, self.threads, self.isa)?))
    }

    fn ceilings(&self, multiplied: &BTreeSet<Multiplied>) -> Result<Ceilings, ExecError> {
        self.check_isa()?;
        ceilings::ceilings(self.threads, self.isa, multiplied.contains(&Multiplied::Bf16))
    }
}

/// Runs a plan on the processor's cores. A run is complete when `submit` returns.
#[derive(Debug)]
struct CpuExecutor {
    plan: Arc<Plan>,
    memory: Memory,
    entries: Vec<EntryProgram>,
    states: Vec<TensorSpan>,
    pool: Pool,
    workers: Vec<Mutex<Worker>>,
}

impl CpuExecutor {
    fn new(plan: Arc<Plan>, threads: usize, isa: Isa) -> Result<CpuExecutor, ExecError> {
        plan::verify(&plan).map_err(|e| ExecError::InvalidPlan(e.to_string()))?;
        let entries: Vec<EntryProgram> = plan.entries.iter().map(|e| EntryProgram::new(e, isa)).collect();
        let kernels = || entries.iter().flat_map(|e| &e.kernels);
        let memory = Memory::new(plan.arena_bytes(), "the arena")?;
        let nests: Vec<&NestProgram> = kernels().flat_map(KernelProgram::nests).collect();
        let programs: Vec<_> = kernels().flat_map(KernelProgram::phases).filter_map(Phase::program).collect();
        let needs = kernels().map(KernelProgram::needs).fold(Needs::default(), Needs::max);
        let pool = Pool::new(threads);
        let workers = (0..pool.threads())
            .map(|_| Mutex::new(Worker::new(Scratch::new(nests.iter().copied(), &programs), needs, pool.threads())))
            .collect();
        let states = (plan.states.iter())
            .map(|s| place(&s.name, &s.ty, plan.state_layout.offsets.get(&s.name).copied().unwrap_or(0)))
            .collect();
        Ok(CpuExecutor { plan, memory, entries, states, pool, workers })
    }

    fn write_inputs(&mut self, entry: usize, inputs: &[TensorRef]) -> Result<(), ExecError> {
        let program = nth(&self.entries, entry, "entry")?;
        check_count(&self.plan.entries[entry], inputs)?;
        let memory = self.memory.all();
        for ((place, is_used), input) in program.inputs.iter().zip(inputs) {
            place.write("input", memory, *input, *is_used)?;
        }
        Ok(())
    }

    /// Runs an entry, and calls `observe` with each kernel and when it started, once it is complete.
    fn run_kernels(
        &mut self,
        entry: usize,
        inputs: &[TensorRef],
        mut observe: impl FnMut(usize, Instant),
    ) -> Result<(), ExecError> {
        self.write_inputs(entry, inputs)?;
        // SAFETY: the plan was verified when the executor was built, its kernels run one after the other, and the memory is
        // borrowed for as long.
        let arena = unsafe { Arena::new(self.memory.all()) };
        for (index, kernel) in self.entries[entry].kernels.iter().enumerate() {
            let started = Instant::now();
            Self::kernel(kernel, arena, &self.workers, &mut |tasks, body| self.pool.run(tasks, body));
            observe(index, started);
        }
        Ok(())
    }

    /// Has `run` run the tasks of a kernel, set by set; those of a set may run at the same time.
    fn kernel(
        kernel: &KernelProgram,
        arena: Arena,
        workers: &[Mutex<Worker>],
        run: &mut dyn FnMut(usize, &pool::Task<'_>),
    ) {
        let worker = |index: usize| workers[index].lock().unwrap_or_else(PoisonError::into_inner);
        let mut run = |tasks: usize, body: &pool::Task<'_>| {
            run(tasks, &|task, index| {
                body(task, index);
                // Its stores past the caches become visible.
                arena.settle();
            });
        };
        match kernel {
            KernelProgram::Nests(nests) => {
                let tasks = nests.iter().map(NestProgram::tasks).sum();
                run(tasks, &|task, index| {
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
                    run(phase.tasks(), &|task, index| phase.run(task, arena, &mut worker(index)));
                }
            }
            KernelProgram::Transform(transform) => {
                run(transform.tasks(), &|task, index| transform.run(task, arena, worker(index).block()));
            }
        }
    }
}

fn place(name: &str, ty: &Type, offset: usize) -> TensorSpan {
    TensorSpan { name: name.into(), at: Location::new(offset, ty.dtype), elements: ty.elements() }
}

impl EntryProgram {
    fn new(entry: &EntryPlan, isa: Isa) -> EntryProgram {
        let buffers = &entry.schedule.buffers;
        let far = far::stores(&entry.schedule);
        let of_buffer = |name: &str, b: &Buffer| TensorSpan {
            name: name.into(),
            at: Location::new(b.offset, b.dtype),
            elements: b.elements(),
        };
        let inputs = (entry.inputs.iter())
            .map(|input| {
                let buffer = buffers.iter().find(|b| b.role == BufferRole::Input(input.name.clone()));
                buffer.map_or((place(&input.name, &input.ty, 0), false), |b| (of_buffer(&input.name, b), true))
            })
            .collect();
        EntryProgram {
            kernels: (entry.schedule.kernels.iter().zip(&far))
                .map(|(kernel, far)| {
                    let place = |id: BufferId| {
                        let Buffer { offset, dtype, .. } = buffers[id.index()];
                        Location { is_far: far.contains(&id), ..Location::new(offset, dtype) }
                    };
                    KernelProgram::new(kernel, isa, &place)
                })
                .collect(),
            inputs,
            outputs: entry.schedule.outputs.iter().map(|o| of_buffer(&o.name, &buffers[o.buffer.index()])).collect(),
        }
    }
}

impl KernelProgram {
    fn new(kernel: &Kernel, isa: Isa, place: &dyn Fn(BufferId) -> Location) -> KernelProgram {
        match &kernel.body {
            Body::Nests(nests) => KernelProgram::Nests(nests.iter().map(|n| NestProgram::new(n, place)).collect()),
            Body::Transform(t) => KernelProgram::Transform(TransformProgram::new(t, place)),
            Body::Contraction(c) => KernelProgram::Contraction(ContractionProgram::new(c, &kernel.choice, isa, place)),
        }
    }

    fn phases(&self) -> &[Phase] {
        match self {
            KernelProgram::Nests(_) | KernelProgram::Transform(_) => &[],
            KernelProgram::Contraction(c) => &c.phases,
        }
    }

    fn nests(&self) -> Box<dyn Iterator<Item = &NestProgram> + '_> {
        match self {
            KernelProgram::Nests(nests) => Box::new(nests.iter()),
            KernelProgram::Contraction(c) => Box::new(c.phases.iter().filter_map(Phase::nest)),
            KernelProgram::Transform(_) => Box::new(std::iter::empty()),
        }
    }

    fn needs(&self) -> Needs {
        match self {
            KernelProgram::Nests(_) => Needs::default(),
            KernelProgram::Contraction(c) => c.needs(),
            KernelProgram::Transform(t) => Needs::block(t.needs()),
        }
    }
}

impl TensorSpan {
    fn check(&self, what: &'static str, dtype: DType, len: usize) -> Result<(), ExecError> {
        check_tensor(what, &self.name, (self.at.dtype, self.elements), (dtype, len))
    }

    fn bytes(&self) -> Range<usize> {
        self.at.byte..self.at.byte + self.elements * self.at.dtype.size()
    }

    fn write(&self, what: &'static str, memory: &mut [u8], from: TensorRef, is_used: bool) -> Result<(), ExecError> {
        self.check(what, from.dtype(), from.len())?;
        if is_used {
            memory[self.bytes()].copy_from_slice(from.bytes());
        }
        Ok(())
    }

    fn read(&self, what: &'static str, memory: &[u8], into: TensorMut) -> Result<(), ExecError> {
        self.check(what, into.dtype(), into.len())?;
        into.into_bytes().copy_from_slice(&memory[self.bytes()]);
        Ok(())
    }
}

impl Executor for CpuExecutor {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn submit(&mut self, entry: usize, inputs: &[TensorRef]) -> Result<(), ExecError> {
        self.run_kernels(entry, inputs, |_, _| {})
    }

    fn wait(&mut self) -> Result<(), ExecError> {
        Ok(())
    }

    fn profile(&mut self, entry: usize, inputs: &[TensorRef]) -> Result<Vec<KernelTiming>, ExecError> {
        let mut timings = Vec::with_capacity(nth(&self.entries, entry, "entry")?.kernels.len());
        let begun = Instant::now();
        self.run_kernels(entry, inputs, |kernel, started| {
            timings.push(KernelTiming { kernel, start: started - begun, length: started.elapsed() });
        })?;
        Ok(timings)
    }

    fn read_output(&mut self, entry: usize, output: usize, into: TensorMut) -> Result<(), ExecError> {
        let place = nth(&nth(&self.entries, entry, "entry")?.outputs, output, "output")?;
        place.read("output", self.memory.all(), into)
    }

    fn read_state(&mut self, state: usize, into: TensorMut) -> Result<(), ExecError> {
        nth(&self.states, state, "state")?.read("state", self.memory.all(), into)
    }

    fn view_state<'a>(&'a mut self, state: usize, _: &'a mut Tensor) -> Result<TensorRef<'a>, ExecError> {
        let place = nth(&self.states, state, "state")?;
        let view = TensorRef::of_bytes(place.at.dtype, &self.memory.all()[place.bytes()]);
        Ok(view.unwrap_or_else(|| unreachable!("tensors in the arena are aligned")))
    }

    fn write_state(&mut self, state: usize, from: TensorRef) -> Result<(), ExecError> {
        nth(&self.states, state, "state")?.write("state", self.memory.all(), from, true)
    }
}
