//! Choosing by measurement: the algorithm of each kernel that makes a whole step the fastest on the GPU that is here.
//!
//! A candidate is checked first, alone and on random numbers, against the plainest way to compute its kernel; then the step
//! is measured with it, as a whole, because what a kernel finds in a cache and what runs beside it is part of its time.
//! What comes of it is a list of choices for the compiler, which a plan keeps: nothing that is measured later changes what a
//! plan computes.

use crate::compile::{CompileError, Options, compile};
use crate::exec::{Device, ExecError, Executor, TensorRef};
use crate::kernel::body::{BufferId, Kernel};
use crate::kernel::choice::{Algorithm, TunedKernel};
use crate::kernel::schedule::{Buffer, BufferRole, Schedule, StateLayout, Storage};
use crate::kernel::target::Precision;
use crate::plan::{self, EntryPlan, INIT, Plan, Source};
use crate::schedule::arena::lay_out;
use crate::schedule::assemble::Assembled;
use crate::schedule::select::{candidates, plainest, take};
use crate::tensor::{Bf16, DType, Tensor, Type};
use crate::types::{Feed, Initialiser, StateDecl, StateRole};
use serde::Serialize;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// Algorithms for each kernel, the present one among them.
    pub candidates: usize,
    /// Steps of one measurement, and measurements of which the shortest counts.
    pub steps: usize,
    pub rounds: usize,
}

/// Why nothing was tuned.
#[derive(Debug, thiserror::Error)]
pub enum TuneError {
    #[error(transparent)]
    Compile(#[from] CompileError),
    #[error(transparent)]
    Exec(#[from] ExecError),
    #[error("entry `{0}` has no kernel with more than one way to compute it on this device")]
    NothingToChoose(String),
}

/// What was found for one kernel.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Found {
    pub kernel: String,
    pub before: String,
    pub after: String,
    /// Algorithms that were measured, the one before among them.
    pub measured: usize,
    /// Those whose results were wrong, each with its error.
    pub refused: Vec<(String, f64)>,
    /// Those that the device does not run, each with what it said.
    pub unsupported: Vec<(String, String)>,
    /// Seconds of a step with the algorithm before and with the one after.
    pub seconds_before: f64,
    pub seconds_after: f64,
}

/// What came of a candidate.
enum Outcome {
    /// Its results are off by so much.
    Wrong(f64),
    /// Seconds of a step, and all choices with this one.
    Measured(f64, Vec<TunedKernel>),
}

/// What tuning came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Tuned {
    pub kernels: Vec<Found>,
    pub choices: Vec<TunedKernel>,
    /// Seconds of a step at the start and at the end, measured in the same way.
    pub seconds_before: f64,
    pub seconds_after: f64,
}

/// What is told of the work under way: how many of how many kernels are done.
pub type Progress<'p> = &'p mut dyn FnMut(usize, usize);

/// Less than this part of a step's time is noise.
const GAIN: f64 = 0.003;

/// Largest error, as a part of the largest number, that a candidate may make beside the plainest way, which adds in f32.
fn tolerance(precision: Precision) -> f64 {
    match precision {
        Precision::F32 => 1e-5,
        Precision::Tf32 => 2e-3,
        Precision::Bf16 => 2e-2,
    }
}

/// Tunes the kernels of an entry of a program, one after the other in the order in which they run.
///
/// # Errors
/// When the program doesn't compile, there is nothing to choose from, or the device fails.
pub fn tune(
    device: &dyn Device,
    (name, text): (&str, &str),
    options: &Options,
    entry: &str,
    effort: &Effort,
    progress: Progress,
) -> Result<Tuned, TuneError> {
    let options = Options { stop_after: None, specialise: Vec::new(), validate: None, ..options.clone() };
    let compiled = |tuned: &[TunedKernel]| -> Result<Plan, TuneError> {
        let options = Options { tuned: tuned.to_vec(), ..options.clone() };
        let plan = compile(name, text, &options, &mut |_| {})?.plan;
        let mut plan = plan.unwrap_or_else(|| unreachable!("nothing is stopped"));
        plan.entries.retain(|e| e.sizes.is_empty() && (e.name == entry || e.name == INIT));
        Ok(plan)
    };
    // What was tuned before for this entry is where the search starts.
    let mut choices = options.tuned.clone();
    let start = compiled(&choices)?;
    let schedule = &entry_of(&start, entry)?.schedule;
    let kernels: Vec<(&Kernel, Vec<Algorithm>)> = (schedule.kernels.iter())
        .map(|kernel| (kernel, candidates(kernel, options.target, effort.candidates)))
        .filter(|(_, algorithms)| algorithms.len() > 1)
        .collect();
    if kernels.is_empty() {
        return Err(TuneError::NothingToChoose(entry.into()));
    }
    let seconds_before = step_seconds(device, start.clone(), entry, effort)?;
    let mut best = seconds_before;
    let mut found = Vec::new();
    for (number, (kernel, algorithms)) in kernels.iter().enumerate() {
        progress(number, kernels.len());
        let expected = alone(device, &start.source, schedule, kernel, plainest(&kernel.body))?;
        let (mut refused, mut unsupported) = (Vec::new(), Vec::new());
        let mut measured = 1;
        let mut fastest: Option<(f64, Vec<TunedKernel>, String)> = None;
        for algorithm in &algorithms[1..] {
            let outcome = (|| {
                let results = alone(device, &start.source, schedule, kernel, algorithm.clone())?;
                let error = largest_error(&results, &expected);
                if error > tolerance(options.precision) {
                    return Ok(Outcome::Wrong(error));
                }
                let with = with_choice(&choices, entry, kernel, algorithm);
                Ok(Outcome::Measured(step_seconds(device, compiled(&with)?, entry, effort)?, with))
            })();
            match outcome {
                Ok(Outcome::Wrong(error)) => refused.push((algorithm.to_string(), error)),
                Ok(Outcome::Measured(seconds, with)) => {
                    measured += 1;
                    if seconds < best * (1.0 - GAIN) && fastest.as_ref().is_none_or(|(least, ..)| seconds < *least) {
                        fastest = Some((seconds, with, algorithm.to_string()));
                    }
                }
                Err(TuneError::Exec(ExecError::Unsupported { what, .. })) => {
                    unsupported.push((algorithm.to_string(), what));
                }
                Err(error) => return Err(error),
            }
        }
        let (before, seconds_before) = (algorithms[0].to_string(), best);
        let mut after = before.clone();
        if let Some((seconds, with, algorithm)) = fastest {
            (best, choices, after) = (seconds, with, algorithm);
        }
        let kernel = kernel.name.clone();
        found.push(Found {
            kernel,
            before,
            after,
            measured,
            refused,
            unsupported,
            seconds_before,
            seconds_after: best,
        });
    }
    progress(kernels.len(), kernels.len());
    let seconds_after = step_seconds(device, compiled(&choices)?, entry, effort)?;
    Ok(Tuned { kernels: found, choices, seconds_before, seconds_after })
}

fn entry_of<'p>(plan: &'p Plan, name: &str) -> Result<&'p EntryPlan, ExecError> {
    plan.entry(name).ok_or_else(|| ExecError::Unknown { what: "entry", name: name.into() })
}

fn with_choice(choices: &[TunedKernel], entry: &str, kernel: &Kernel, algorithm: &Algorithm) -> Vec<TunedKernel> {
    let is_this = |t: &&TunedKernel| t.entry == entry && t.sizes.is_empty() && t.kernel == kernel.name;
    let mut with: Vec<TunedKernel> = choices.iter().filter(|t| !is_this(t)).cloned().collect();
    let (entry, kernel, algorithm) = (entry.to_string(), kernel.name.clone(), algorithm.clone());
    with.push(TunedKernel { entry, sizes: Vec::new(), kernel, algorithm });
    with
}

/// Seconds of a step in a row of them, at best.
fn step_seconds(device: &dyn Device, plan: Plan, entry: &str, effort: &Effort) -> Result<f64, TuneError> {
    let plan = Arc::new(plan);
    let mut executor = device.load(plan.clone())?;
    let index = |name: &str| plan.entries.iter().position(|e| e.name == name);
    if let Some(init) = index(INIT) {
        run(executor.as_mut(), init, &inputs(&plan.entries[init]), 1)?;
    }
    let at = index(entry).ok_or_else(|| ExecError::Unknown { what: "entry", name: entry.into() })?;
    let given = inputs(&plan.entries[at]);
    run(executor.as_mut(), at, &given, 1)?;
    let mut best = f64::INFINITY;
    for _ in 0..effort.rounds.max(1) {
        let begun = Instant::now();
        run(executor.as_mut(), at, &given, effort.steps.max(1))?;
        best = best.min(begun.elapsed().as_secs_f64() / effort.steps.max(1) as f64);
    }
    Ok(best)
}

fn run(executor: &mut dyn Executor, entry: usize, given: &[Tensor], times: usize) -> Result<(), ExecError> {
    let views: Vec<TensorRef> = given.iter().map(Tensor::view).collect();
    for _ in 0..times {
        executor.submit(entry, &views)?;
    }
    executor.wait()
}

/// Numbers in (0, 1], of which no kernel makes a NaN: their logarithms, roots and quotients are finite. A multiplicative hash
/// spreads them (Knuth, The Art of Computer Programming 3, 6.4).
fn number(element: usize, salt: usize) -> f32 {
    let mixed = ((element + 7919 * salt) as u32).wrapping_mul(2_654_435_761) >> 8;
    (mixed + 1) as f32 / (1 << 24) as f32
}

/// Such numbers, or whole numbers below a bound.
fn numbers(ty: &Type, salt: usize, below: Option<u32>) -> Tensor {
    let elements = 0..ty.elements();
    let whole = |e, below: u32| (number(e, salt) * (below - 1) as f32) as u32;
    match (ty.dtype, below) {
        (DType::F32, Some(below)) => {
            Tensor::new(ty.shape.clone(), &elements.map(|e| whole(e, below) as f32).collect::<Vec<_>>())
        }
        (DType::F32, None) => Tensor::new(ty.shape.clone(), &elements.map(|e| number(e, salt)).collect::<Vec<_>>()),
        (DType::Bf16, _) => {
            Tensor::new(ty.shape.clone(), &elements.map(|e| Bf16::from_f32(number(e, salt))).collect::<Vec<_>>())
        }
        (DType::U32, _) => {
            let below = below.unwrap_or(1 << 24);
            Tensor::new(ty.shape.clone(), &elements.map(|e| whole(e, below)).collect::<Vec<_>>())
        }
    }
}

fn inputs(entry: &EntryPlan) -> Vec<Tensor> {
    let given = |(number, input): (usize, &crate::types::InputDecl)| match input.feed {
        Feed::Seed => Tensor::new([2], &[1u32, 0]),
        _ => numbers(&input.ty, number, input.below.map(|below| below as u32)),
    };
    entry.inputs.iter().enumerate().map(given).collect()
}

/// What a kernel writes when it runs alone on numbers that are always the same.
fn alone(
    device: &dyn Device,
    source: &Source,
    schedule: &Schedule,
    kernel: &Kernel,
    algorithm: Algorithm,
) -> Result<Vec<Tensor>, TuneError> {
    let (plan, written) = plan_of_one(source, schedule, kernel, algorithm)?;
    let mut executor = device.load(Arc::new(plan))?;
    let types: Vec<Type> = executor.plan().states.iter().map(|state| state.ty.clone()).collect();
    for (number, ty) in types.iter().enumerate() {
        executor.write_state(number, numbers(ty, number, (ty.dtype == DType::U32).then_some(2)).view())?;
    }
    executor.run(0, &[])?;
    let mut results = Vec::with_capacity(written.len());
    for state in written {
        let mut tensor = Tensor::zeros(types[state].clone());
        executor.read_state(state, tensor.view_mut())?;
        results.push(tensor);
    }
    Ok(results)
}

/// A plan of one kernel, whose buffers are all state; and the states that it writes.
fn plan_of_one(
    source: &Source,
    schedule: &Schedule,
    kernel: &Kernel,
    algorithm: Algorithm,
) -> Result<(Plan, Vec<usize>), TuneError> {
    let touched: BTreeSet<BufferId> = kernel.reads.iter().chain(&kernel.writes).copied().collect();
    let name = |id: &BufferId| format!("buffer{}", id.index());
    let states: Vec<StateDecl> = (touched.iter())
        .map(|id| {
            let buffer = &schedule.buffers[id.index()];
            let ty = Type::new(buffer.dtype, buffer.shape.clone());
            let init = Initialiser::Constant(0.0);
            StateDecl { name: name(id), ty, role: StateRole::Parameter, init, span: None }
        })
        .collect();
    let failed = |error: crate::schedule::ScheduleError| CompileError::Schedule { entry: kernel.name.clone(), error };
    let layout = StateLayout::new(states.iter().map(|s| (s.name.as_str(), &s.ty))).map_err(|e| failed(e.into()))?;
    let orders = touched.iter().map(|id| (name(id), schedule.buffers[id.index()].order.clone()));
    let layout = StateLayout { orders: orders.filter(|(_, order)| !order.is_empty()).collect(), ..layout };
    let mut buffers: Vec<Buffer> = (touched.iter())
        .map(|id| {
            let offset = layout.offsets.get(&name(id)).copied().unwrap_or(0);
            // State is kept in elements; what reads bits reads 0 or 1 in f32 alike.
            let (role, storage) = (BufferRole::State(name(id)), Storage::Elements);
            Buffer { role, storage, offset, name: name(id), ..schedule.buffers[id.index()].clone() }
        })
        .collect();
    let number = |id: &BufferId| BufferId::new(touched.iter().position(|t| t == id).unwrap_or(0));
    let numbers = |ids: &[BufferId]| ids.iter().map(number).collect();
    let mut kernel = Kernel {
        body: kernel.body.clone().map(&mut |id| number(&id)),
        reads: numbers(&kernel.reads),
        writes: numbers(&kernel.writes),
        ..kernel.clone()
    };
    take(&mut kernel, algorithm, &mut buffers);
    let written = kernel.writes.iter().map(|id| id.index()).collect();
    let work = Assembled { kernels: vec![kernel], before: vec![BTreeSet::new()], buffers, outputs: Vec::new() };
    let schedule = lay_out(work, &layout).map_err(failed)?;
    let entry = EntryPlan { name: "kernel".into(), sizes: Vec::new(), inputs: Vec::new(), schedule };
    let plan = Plan {
        name: "kernel".into(),
        source: source.clone(),
        states,
        state_layout: layout,
        entries: vec![entry],
        device_code: None,
    };
    plan::verify(&plan).map_err(CompileError::Plan)?;
    Ok((plan, written))
}

/// The largest difference of two results as a part of the largest number of its tensor. What is not a number has to be
/// so in both.
fn largest_error(found: &[Tensor], expected: &[Tensor]) -> f64 {
    let all = |tensor: &Tensor| -> Vec<f64> {
        match tensor.ty().dtype {
            DType::F32 => tensor.values::<f32>().unwrap_or_default().iter().map(|&v| f64::from(v)).collect(),
            DType::Bf16 => tensor.values::<Bf16>().unwrap_or_default().iter().map(|v| f64::from(v.to_f32())).collect(),
            DType::U32 => tensor.values::<u32>().unwrap_or_default().iter().map(|&v| f64::from(v)).collect(),
        }
    };
    let of_tensor = |(found, expected): (&Tensor, &Tensor)| {
        let (found, expected) = (all(found), all(expected));
        let largest = expected.iter().filter(|v| v.is_finite()).fold(0.0, |most: f64, v| most.max(v.abs()));
        let error = |(&a, &b): (&f64, &f64)| {
            if a == b || (a.is_nan() && b.is_nan()) { 0.0 } else { ((a - b) / largest.max(f64::MIN_POSITIVE)).abs() }
        };
        let errors = found.iter().zip(&expected).map(error);
        errors.fold(0.0, |most: f64, e| if e.is_nan() { f64::INFINITY } else { most.max(e) })
    };
    found.iter().zip(expected).map(of_tensor).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::{Ceilings, KernelTiming, TensorMut};
    use crate::kernel::choice::Math;
    use crate::kernel::cost::Multiplied;
    use crate::kernel::tiling::usual_stages;

    #[test]
    fn errors_are_parts_of_the_largest_number_and_a_nan_in_one_is_endless() {
        let tensor = |values: &[f32]| vec![Tensor::new([values.len()], values)];
        assert_eq!(largest_error(&tensor(&[1.0, 4.0]), &tensor(&[1.0, 4.0])), 0.0);
        assert_eq!(largest_error(&tensor(&[2.0, 4.0]), &tensor(&[1.0, 4.0])), 0.25);
        assert_eq!(largest_error(&tensor(&[f32::NAN]), &tensor(&[f32::NAN])), 0.0);
        assert_eq!(largest_error(&tensor(&[f32::NAN, 1.0]), &tensor(&[1.0, 1.0])), f64::INFINITY);
    }

    /// A GPU that computes nothing, and refuses products with more or fewer pieces in shared memory than usual.
    struct Picky;

    struct Idle(Arc<Plan>);

    impl Device for Picky {
        fn name(&self) -> String {
            "picky".into()
        }

        fn load(&self, plan: Arc<Plan>) -> Result<Box<dyn Executor>, ExecError> {
            let is_too_much = |kernel: &Kernel| match &kernel.choice.algorithm {
                Algorithm::ThreadBlocks(blocks) if blocks.math != Math::Fma => {
                    blocks.stages != usual_stages(blocks.tile.rows, blocks.tile.columns)
                }
                _ => false,
            };
            let mut kernels = plan.entries.iter().flat_map(|entry| &entry.schedule.kernels);
            if kernels.any(is_too_much) {
                return Err(ExecError::Unsupported { device: self.name(), what: "too many resources".into() });
            }
            Ok(Box::new(Idle(plan)))
        }

        fn ceilings(&self, _: &BTreeSet<Multiplied>) -> Result<Ceilings, ExecError> {
            unreachable!("tuning measures none")
        }
    }

    impl Executor for Idle {
        fn plan(&self) -> &Plan {
            &self.0
        }

        fn submit(&mut self, _: usize, _: &[TensorRef]) -> Result<(), ExecError> {
            Ok(())
        }

        fn wait(&mut self) -> Result<(), ExecError> {
            Ok(())
        }

        fn profile(&mut self, _: usize, _: &[TensorRef]) -> Result<Vec<KernelTiming>, ExecError> {
            Ok(Vec::new())
        }

        fn read_output(&mut self, _: usize, _: usize, _: TensorMut) -> Result<(), ExecError> {
            Ok(())
        }

        fn read_state(&mut self, _: usize, _: TensorMut) -> Result<(), ExecError> {
            Ok(())
        }

        fn write_state(&mut self, _: usize, _: TensorRef) -> Result<(), ExecError> {
            Ok(())
        }
    }

    /// One candidate that a device does not run is not the end of it.
    #[test]
    fn what_a_device_refuses_is_passed_over() {
        use crate::kernel::target::{Architecture, Target};
        let text = crate::declare::builtin::text("mlp-gan").unwrap();
        let target = Target::Cuda(Architecture(80));
        let options = Options { target, precision: Precision::Tf32, ..Options::default() };
        let effort = Effort { candidates: 6, steps: 1, rounds: 1 };
        let tuned = tune(&Picky, ("mlp-gan", text), &options, "train_step", &effort, &mut |_, _| {}).unwrap();
        let unsupported: Vec<&(String, String)> = tuned.kernels.iter().flat_map(|found| &found.unsupported).collect();
        assert!(!unsupported.is_empty() && unsupported.iter().all(|(_, what)| what == "too many resources"));
        assert!(tuned.kernels.iter().any(|found| found.measured > 1), "others are measured");
    }

    #[test]
    fn a_choice_replaces_the_one_before() {
        let text = crate::declare::builtin::text("mlp-gan").unwrap();
        let plan = compile("mlp-gan", text, &Options::default(), &mut |_| {}).unwrap().plan.unwrap();
        let entry = plan.entry("train_step").unwrap();
        let (a, b) = (&entry.schedule.kernels[0], &entry.schedule.kernels[1]);
        let one = with_choice(&[], "train_step", a, &Algorithm::Loops);
        let two = with_choice(&one, "train_step", b, &Algorithm::Loops);
        let again = with_choice(&two, "train_step", a, &Algorithm::SplitSweeps { parts: 2 });
        assert_eq!(again.len(), 2);
        assert_eq!(again[1].algorithm, Algorithm::SplitSweeps { parts: 2 });
        let other = with_choice(&again, "sample", a, &Algorithm::Loops);
        assert_eq!(other.len(), 3, "of another entry");
    }

    /// A run may go on with another precision than the one that was tuned.
    #[test]
    fn what_was_tuned_holds_for_its_own_precision() {
        use crate::kernel::target::{Architecture, Target};
        let text = crate::declare::builtin::text("mlp-gan").unwrap();
        let plan_of = |precision, tuned: &[TunedKernel]| {
            let (target, tuned) = (Target::Cuda(Architecture(80)), tuned.to_vec());
            let options = Options { target, precision, tuned, ..Options::default() };
            compile("mlp-gan", text, &options, &mut |_| {}).unwrap().plan.unwrap()
        };
        let step = |plan: &Plan| plan.entry("train_step").unwrap().schedule.clone();
        let own = step(&plan_of(Precision::Tf32, &[]));
        let target = Target::Cuda(Architecture(80));
        let other = own.kernels.iter().find_map(|kernel| match &kernel.choice.algorithm {
            Algorithm::ThreadBlocks(blocks) if blocks.math == Math::Tf32Stored => {
                candidates(kernel, target, 3).pop().map(|algorithm| (kernel, algorithm))
            }
            _ => None,
        });
        let (kernel, algorithm) = other.unwrap();
        assert_ne!(algorithm, kernel.choice.algorithm);
        let tuned = with_choice(&[], "train_step", kernel, &algorithm);
        let chosen = |schedule: &Schedule| {
            schedule.kernels.iter().find(|k| k.name == kernel.name).map(|k| k.choice.algorithm.clone())
        };
        assert_eq!(chosen(&step(&plan_of(Precision::Tf32, &tuned))), Some(algorithm));
        assert_eq!(step(&plan_of(Precision::F32, &tuned)), step(&plan_of(Precision::F32, &[])));
    }
}
