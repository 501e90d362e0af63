//! Measured times of kernels: as a table, and as a trace that Perfetto and Chrome's about:tracing open.

pub mod compare;
pub mod grouped;
pub mod origin;
mod table;
#[cfg(test)]
mod tests;

use crate::exec::{Ceilings, Device, ExecError, Spread, TensorRef};
use crate::kernel::body::Kernel;
use crate::kernel::cost::{Multiplied, bytes_moved, flops, multiplied};
use crate::kernel::schedule::Schedule;
use crate::plan::{ALIGNMENT, BufferRole, DType, EntryPlan, Feed, INIT, Machine, Plan};
use crate::tensor::{Bf16, Tensor};
use origin::KernelOrigin;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a profile is of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subject {
    pub program: String,
    pub entry: String,
    pub sets: Vec<String>,
    /// The device's name.
    pub device: String,
    pub steps: usize,
    /// Measured in the same process, before the steps.
    pub machine: Machine,
    /// How well those ceilings repeat.
    #[serde(default)]
    pub spread: Spread,
}

/// One launch of a kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Launch {
    pub step: usize,
    /// The kernel's position in the schedule.
    pub kernel: usize,
    /// Seconds from the first step's start.
    pub start: f64,
    pub seconds: f64,
}

/// The times of some steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    pub subject: Subject,
    pub launches: Vec<Launch>,
    /// By a kernel's position in the schedule, what it is for, where that is known (see [`origin::kernel_origins`]).
    pub origins: Vec<Option<KernelOrigin>>,
}

/// What a kernel's figures are made from, besides its times.
#[derive(Debug, Clone, PartialEq)]
struct Facts {
    name: String,
    kind: String,
    flops: u64,
    bytes: u64,
    multiplied: Multiplied,
}

/// Of each kernel of a schedule.
fn facts(schedule: &Schedule) -> Vec<Facts> {
    let of = |kernel: &Kernel| Facts {
        name: kernel.name.clone(),
        kind: kernel.kind().name().into(),
        flops: flops(kernel),
        bytes: bytes_moved(kernel, &schedule.buffers),
        multiplied: multiplied(kernel, &schedule.buffers),
    };
    schedule.kernels.iter().map(of).collect()
}

/// A profile as a file has it, without the program that was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    pub profile: Profile,
    pub kernels: Vec<KernelTime>,
}

/// One kernel over all steps.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KernelTime {
    pub kernel: usize,
    pub name: String,
    pub kind: String,
    #[serde(flatten)]
    pub origin: Option<KernelOrigin>,
    /// The mean over the typical steps ([`Profile::typical_steps`]); with the time between kernels these add up to the
    /// step.
    pub seconds: f64,
    /// Over all steps.
    pub min_seconds: f64,
    pub median_seconds: f64,
    pub max_seconds: f64,
    /// Of the step.
    pub share: f64,
    pub flops: u64,
    pub bytes: u64,
    /// Whose ceiling that of arithmetic is.
    pub multiplied: Multiplied,
    /// The part of the time that the machine needs at the ceiling that binds this kernel.
    pub of_ceiling: f64,
    /// The least time that the measured ceilings allow.
    pub ceiling_seconds: f64,
}

/// A whole step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct StepTime {
    /// From the start of the first kernel to the end of the last: the mean over the typical steps.
    pub seconds: f64,
    /// Of those, what passes between kernels.
    pub between_seconds: f64,
    /// Over all steps.
    pub min_seconds: f64,
    pub median_seconds: f64,
    pub max_seconds: f64,
}

/// A profile that cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    #[error(transparent)]
    Exec(#[from] ExecError),
    #[error("this is not a profile that `gcc-gan profile` wrote: {0}")]
    Format(String),
    #[error("the profile is of another program: {0}; profile this one")]
    OtherProgram(String),
}

/// Measures `steps` runs of an entry on a device, after one that warms up. State is initialised from `seed`; inputs
/// are numbers without meaning, which take as long as any others.
///
/// # Errors
/// When there is no such entry, or no memory for the run.
pub fn measure(
    device: &dyn Device,
    plan: Arc<Plan>,
    entry: &str,
    steps: usize,
    seed: u64,
    progress: &mut dyn FnMut(usize),
) -> Result<Profile, ProfileError> {
    let index = |wanted: &str| {
        let found = plan.entries.iter().position(|e| e.name == wanted && e.sizes.is_empty());
        found.ok_or_else(|| ExecError::Unknown { what: "entry", name: wanted.into() })
    };
    let (init, entry_index) = (index(INIT)?, index(entry)?);
    let Schedule { kernels, buffers, .. } = &plan.entries[entry_index].schedule;
    let Ceilings { machine, spread } = device.ceilings(&kernels.iter().map(|k| multiplied(k, buffers)).collect())?;
    let mut executor = device.load(plan.clone())?;
    let first = inputs(&plan.entries[init], seed);
    executor.run(init, &views(&first))?;
    let given = inputs(&plan.entries[entry_index], seed);
    let mut launches = Vec::with_capacity(steps * plan.entries[entry_index].schedule.kernels.len());
    let mut origin = Instant::now();
    for step in 0..=steps {
        if step == 1 {
            origin = Instant::now();
        }
        let begun = origin.elapsed();
        let timings = executor.profile(entry_index, &views(&given))?;
        if step > 0 {
            let seconds = |time: Duration| time.as_secs_f64();
            launches.extend(timings.iter().map(|t| Launch {
                step: step - 1,
                kernel: t.kernel,
                start: seconds(begun + t.start),
                seconds: seconds(t.length),
            }));
        }
        progress(step);
    }
    let subject = Subject {
        program: plan.name.clone(),
        entry: entry.into(),
        sets: plan.source.overrides.clone(),
        device: device.name(),
        steps,
        machine,
        spread,
    };
    Ok(Profile { subject, launches, origins: Vec::new() })
}

/// Numbers without meaning for every input; the seed is one.
fn inputs(entry: &EntryPlan, seed: u64) -> Vec<Tensor> {
    let words = [seed as u32, (seed >> 32) as u32];
    // A multiplicative hash spreads the values; they need not be random.
    let mixed = |element: usize| (element as u32).wrapping_mul(2_654_435_761) >> 8;
    let real = |element: usize| mixed(element) as f32 / (1 << 23) as f32 - 1.0;
    (entry.inputs.iter())
        .map(|i| {
            let (shape, elements) = (i.ty.shape.clone(), 0..i.ty.elements());
            let below = i.below.unwrap_or(1 << 24) as u32;
            match (i.feed, i.ty.dtype) {
                (Feed::Seed, _) => Tensor::new([2], &words),
                (_, DType::F32) if i.below.is_some() => {
                    Tensor::new(shape, &elements.map(|e| (mixed(e) % below) as f32).collect::<Vec<_>>())
                }
                (_, DType::F32) => Tensor::new(shape, &elements.map(real).collect::<Vec<_>>()),
                (_, DType::Bf16) => Tensor::new(shape, &elements.map(|e| Bf16::from_f32(real(e))).collect::<Vec<_>>()),
                (_, DType::U32) => Tensor::new(shape, &elements.map(|e| mixed(e) % below).collect::<Vec<_>>()),
            }
        })
        .collect()
}

fn views(tensors: &[Tensor]) -> Vec<TensorRef<'_>> {
    tensors.iter().map(Tensor::view).collect()
}

impl Profile {
    /// Every kernel's figures, in the order of the schedule.
    ///
    /// # Errors
    /// When the schedule is not the one that was measured.
    pub fn kernels(&self, schedule: &Schedule) -> Result<Vec<KernelTime>, ProfileError> {
        self.times(&facts(schedule))
    }

    /// The figures of kernels of which these facts are known.
    fn times(&self, kernels: &[Facts]) -> Result<Vec<KernelTime>, ProfileError> {
        let typical = self.typical_steps();
        let mut samples: Vec<Vec<f64>> = vec![Vec::new(); kernels.len()];
        let mut sums = vec![0.0; kernels.len()];
        for launch in &self.launches {
            let of = samples.get_mut(launch.kernel).ok_or_else(|| {
                let count = kernels.len();
                ProfileError::OtherProgram(format!("it has a kernel {}, the schedule {count}", launch.kernel))
            })?;
            of.push(launch.seconds);
            if typical.contains(&launch.step) {
                sums[launch.kernel] += launch.seconds;
            }
        }
        if let Some(kernel) = samples.iter().position(Vec::is_empty) {
            return Err(ProfileError::OtherProgram(format!("it has no times of kernel {kernel}")));
        }
        let step = self.step_time().seconds;
        let machine = &self.subject.machine;
        Ok((kernels.iter().zip(samples.iter_mut().zip(sums)).enumerate())
            .map(|(index, (kernel, (samples, sum)))| {
                let seconds = sum / typical.len() as f64;
                let Facts { name, kind, flops, bytes, multiplied } = kernel.clone();
                let ceiling_seconds = machine.seconds(flops, bytes, multiplied);
                let median_seconds = median(samples);
                KernelTime {
                    kernel: index,
                    name,
                    kind,
                    origin: self.origins.get(index).cloned().flatten(),
                    seconds,
                    // The median left them in order.
                    min_seconds: samples[0],
                    median_seconds,
                    max_seconds: samples[samples.len() - 1],
                    share: seconds / step.max(f64::MIN_POSITIVE),
                    flops,
                    bytes,
                    multiplied,
                    of_ceiling: (ceiling_seconds - machine.launch_seconds) / seconds.max(f64::MIN_POSITIVE),
                    ceiling_seconds,
                }
            })
            .collect())
    }

    /// The times of the steps as a whole.
    pub fn step_time(&self) -> StepTime {
        let (steps, typical) = (self.steps(), self.typical_steps());
        let of = typical.len().max(1) as f64;
        let seconds = typical.iter().filter_map(|step| steps.get(step)).sum::<f64>() / of;
        let in_kernels: f64 = self.launches.iter().filter(|l| typical.contains(&l.step)).map(|l| l.seconds).sum();
        let mut lengths: Vec<f64> = steps.into_values().collect();
        let median_seconds = median(&mut lengths);
        StepTime {
            seconds,
            between_seconds: seconds - in_kernels / of,
            min_seconds: lengths.first().copied().unwrap_or(0.0),
            median_seconds,
            max_seconds: lengths.last().copied().unwrap_or(0.0),
        }
    }

    /// The half of the steps whose lengths are nearest the median: a step in which the machine did something else is
    /// not among them, and the means over the same steps add up.
    pub fn typical_steps(&self) -> BTreeSet<usize> {
        self.by_distance().map_or(BTreeSet::new(), |steps| steps[..steps.len().div_ceil(2)].iter().copied().collect())
    }

    /// The step whose length is nearest the median.
    pub fn typical_step(&self) -> usize {
        self.by_distance().map_or(0, |steps| steps[0])
    }

    /// All steps, the one whose length is nearest the median first.
    fn by_distance(&self) -> Option<Vec<usize>> {
        let steps = self.steps();
        let median = median(&mut steps.values().copied().collect::<Vec<_>>());
        let mut order: Vec<usize> = steps.keys().copied().collect();
        order.sort_by(|a, b| (steps[a] - median).abs().total_cmp(&(steps[b] - median).abs()));
        (!order.is_empty()).then_some(order)
    }

    /// The length in seconds of each step.
    fn steps(&self) -> BTreeMap<usize, f64> {
        let mut steps: BTreeMap<usize, (f64, f64)> = BTreeMap::new();
        for launch in &self.launches {
            let end = launch.start + launch.seconds;
            let range = steps.entry(launch.step).or_insert((launch.start, end));
            *range = (range.0.min(launch.start), range.1.max(end));
        }
        steps.into_iter().map(|(step, (start, end))| (step, end - start)).collect()
    }

    /// In the Trace Event Format: a complete event for each launch, and the live bytes of the arena as a counter.
    ///
    /// # Errors
    /// When the schedule is not the one that was measured.
    pub fn to_trace(&self, schedule: &Schedule, state_bytes: usize) -> Result<String, ProfileError> {
        let live = live_bytes(schedule, state_bytes);
        let micros = |seconds: f64| (seconds * 1e9).round() / 1e3;
        let mut events = vec![
            Event {
                args: args([("name", format!("{} {}", self.subject.program, self.subject.entry).into())]),
                ..Event::meta("process_name")
            },
            Event {
                args: args([("name", format!("kernels, {}", self.subject.device).into())]),
                ..Event::meta("thread_name")
            },
        ];
        let facts = facts(schedule);
        for launch in &self.launches {
            let kernel = facts.get(launch.kernel).ok_or_else(|| ProfileError::OtherProgram("kernels differ".into()))?;
            let bytes = live.get(launch.kernel).copied().unwrap_or(0);
            let counter = Event {
                args: args([("bytes", bytes.into())]),
                ts: micros(launch.start),
                ..Event::new("arena, live", "C")
            };
            events.push(counter);
            let mut args = args([
                ("kernel", launch.kernel.into()),
                ("step", launch.step.into()),
                ("flops", kernel.flops.into()),
                ("bytes", kernel.bytes.into()),
            ]);
            if kernel.multiplied != Multiplied::F32 {
                let name =
                    serde_json::to_value(kernel.multiplied).map_err(|error| ProfileError::Format(error.to_string()))?;
                args.insert(MULTIPLIED.into(), name);
            }
            if let Some(Some(origin)) = self.origins.get(launch.kernel) {
                args.extend(origin.to_args());
            }
            events.push(Event {
                cat: kernel.kind.clone(),
                ts: micros(launch.start),
                dur: Some(micros(launch.seconds)),
                args,
                ..Event::new(&kernel.name, "X")
            });
        }
        let trace = Trace { display_time_unit: "ms".into(), other_data: self.subject.clone(), trace_events: events };
        serde_json::to_string(&trace).map_err(|error| ProfileError::Format(error.to_string()))
    }

    /// What the text that [`Profile::to_trace`] wrote is a profile of.
    ///
    /// # Errors
    /// When the text is something else.
    pub fn subject_of(text: &str) -> Result<Subject, ProfileError> {
        Ok(Trace::parse(text)?.other_data)
    }

    /// Reads what [`Profile::to_trace`] wrote.
    ///
    /// # Errors
    /// When the text is something else, or the kernels are not those of the schedule.
    pub fn from_trace(text: &str, schedule: &Schedule) -> Result<Profile, ProfileError> {
        let trace = Trace::parse(text)?;
        let (mut launches, mut origins) = (Vec::new(), vec![None; schedule.kernels.len()]);
        for event in trace.launches() {
            let launch = event.launch()?;
            let known = schedule.kernels.get(launch.kernel).map(|k| k.name.as_str());
            if known != Some(event.name.as_str()) {
                let here = known.map_or("not there".into(), |name| format!("`{name}`"));
                return Err(ProfileError::OtherProgram(format!(
                    "its kernel {} is `{}`, here it is {here}",
                    launch.kernel, event.name
                )));
            }
            origins[launch.kernel] = KernelOrigin::from_args(&event.args);
            launches.push(launch);
        }
        Ok(Profile { subject: trace.other_data, launches, origins })
    }
}

impl Recorded {
    /// Reads what [`Profile::to_trace`] wrote, where the program is not at hand.
    ///
    /// # Errors
    /// When the text is something else.
    pub fn from_trace(text: &str) -> Result<Recorded, ProfileError> {
        let trace = Trace::parse(text)?;
        let mut launches = Vec::new();
        let mut found: BTreeMap<usize, (Facts, Option<KernelOrigin>)> = BTreeMap::new();
        for event in trace.launches() {
            let launch = event.launch()?;
            let (name, kind) = (event.name.clone(), event.cat.clone());
            let (flops, bytes) = (event.number("flops")?, event.number("bytes")?);
            let facts = Facts { name, kind, flops, bytes, multiplied: event.multiplied()? };
            let (known, _) =
                found.entry(launch.kernel).or_insert_with(|| (facts.clone(), KernelOrigin::from_args(&event.args)));
            if *known != facts {
                let two = format!("kernel {} is `{}` and `{}`", launch.kernel, known.name, facts.name);
                return Err(ProfileError::Format(two));
            }
            launches.push(launch);
        }
        if found.is_empty() {
            return Err(ProfileError::Format("it has no kernels".into()));
        }
        if let Some((missing, _)) = found.keys().enumerate().find(|(position, kernel)| position != *kernel) {
            return Err(ProfileError::Format(format!("it has no times of kernel {missing}")));
        }
        let (facts, origins): (Vec<Facts>, Vec<Option<KernelOrigin>>) = found.into_values().unzip();
        let profile = Profile { subject: trace.other_data, launches, origins };
        let kernels = profile.times(&facts)?;
        Ok(Recorded { profile, kernels })
    }
}

/// By position in the schedule, the bytes that are in use there: all state, and every buffer that is live.
pub fn live_bytes(schedule: &Schedule, state_bytes: usize) -> Vec<usize> {
    // By position, the bytes that begin to be live there and those that no longer are.
    let mut changes = vec![(0, 0); schedule.kernels.len() + 1];
    for buffer in schedule.buffers.iter().filter(|b| !matches!(b.role, BufferRole::State(_)) && b.live.0 < b.live.1) {
        let bytes = buffer.bytes().next_multiple_of(ALIGNMENT);
        let end = schedule.kernels.len();
        changes[buffer.live.0.min(end)].0 += bytes;
        changes[buffer.live.1.min(end)].1 += bytes;
    }
    let running = changes[..schedule.kernels.len()].iter().scan(state_bytes, |live, (more, less)| {
        *live = *live + more - less;
        Some(*live)
    });
    running.collect()
}

pub(super) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    match values {
        [] => 0.0,
        v if v.len() % 2 == 1 => v[v.len() / 2],
        v => (v[v.len() / 2 - 1] + v[v.len() / 2]) / 2.0,
    }
}

/// The argument of an event that says what its kernel multiplies, where that is not f32.
const MULTIPLIED: &str = "multiplied";

/// The Trace Event Format, as far as it is used here.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Trace {
    display_time_unit: String,
    other_data: Subject,
    trace_events: Vec<Event>,
}

impl Trace {
    fn parse(text: &str) -> Result<Trace, ProfileError> {
        serde_json::from_str(text).map_err(|error| ProfileError::Format(error.to_string()))
    }

    /// The events that are launches of kernels.
    fn launches(&self) -> impl Iterator<Item = &Event> {
        self.trace_events.iter().filter(|event| event.ph == "X")
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Event {
    name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    cat: String,
    ph: String,
    #[serde(default)]
    pid: u32,
    #[serde(default)]
    tid: u32,
    /// Microseconds.
    #[serde(default)]
    ts: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dur: Option<f64>,
    #[serde(default)]
    args: BTreeMap<String, serde_json::Value>,
}

impl Event {
    fn new(name: &str, phase: &str) -> Event {
        Event { name: name.into(), ph: phase.into(), pid: 1, tid: 1, ..Event::default() }
    }

    fn meta(name: &str) -> Event {
        Event::new(name, "M")
    }

    /// An argument that is a whole number.
    fn number(&self, name: &str) -> Result<u64, ProfileError> {
        let value = self.args.get(name).and_then(serde_json::Value::as_u64);
        value.ok_or_else(|| ProfileError::Format(format!("the event `{}` has no {name}", self.name)))
    }

    /// F32 where nothing is said, as an older version wrote it.
    fn multiplied(&self) -> Result<Multiplied, ProfileError> {
        let Some(value) = self.args.get(MULTIPLIED) else { return Ok(Multiplied::F32) };
        serde_json::from_value(value.clone())
            .map_err(|error| ProfileError::Format(format!("the event `{}`: {MULTIPLIED}: {error}", self.name)))
    }

    fn launch(&self) -> Result<Launch, ProfileError> {
        let index = |name: &str| {
            let out_of_range = |_| ProfileError::Format(format!("the event `{}` has no such {name}", self.name));
            usize::try_from(self.number(name)?).map_err(out_of_range)
        };
        let (start, seconds) = (self.ts / 1e6, self.dur.unwrap_or(0.0) / 1e6);
        if !(start.is_finite() && seconds.is_finite() && seconds >= 0.0) {
            return Err(ProfileError::Format(format!("the event `{}` has no time", self.name)));
        }
        Ok(Launch { step: index("step")?, kernel: index("kernel")?, start, seconds })
    }
}

fn args<const N: usize>(pairs: [(&str, serde_json::Value); N]) -> BTreeMap<String, serde_json::Value> {
    pairs.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
}
