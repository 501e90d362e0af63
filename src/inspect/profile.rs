//! Measured times of kernels: as a table, and as a trace that Perfetto and Chrome's about:tracing open.

use super::{Align, Table, bytes};
use crate::exec::{Ceilings, Device, ExecError, Spread, TensorRef};
use crate::kernel::cost::{bytes_moved, flops};
use crate::kernel::schedule::Schedule;
use crate::plan::{ALIGNMENT, BufferRole, DType, EntryPlan, Feed, INIT, Machine, Plan};
use crate::tensor::{Bf16, Tensor};
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
}

/// One kernel over all steps.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KernelTime {
    pub kernel: usize,
    pub name: String,
    pub kind: &'static str,
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
    let Ceilings { machine, spread } = device.ceilings()?;
    let index = |wanted: &str| {
        let found = plan.entries.iter().position(|e| e.name == wanted && e.sizes.is_empty());
        found.ok_or_else(|| ExecError::Unknown { what: "entry", name: wanted.into() })
    };
    let (init, entry_index) = (index(INIT)?, index(entry)?);
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
    Ok(Profile { subject, launches })
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
            match (i.feed, i.ty.dtype) {
                (Feed::Seed, _) => Tensor::new([2], &words),
                (_, DType::F32) => Tensor::new(shape, &elements.map(real).collect::<Vec<_>>()),
                (_, DType::Bf16) => Tensor::new(shape, &elements.map(|e| Bf16::from_f32(real(e))).collect::<Vec<_>>()),
                (_, DType::U32) => {
                    let below = i.below.unwrap_or(1 << 24) as u32;
                    Tensor::new(shape, &elements.map(|e| mixed(e) % below).collect::<Vec<_>>())
                }
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
        let typical = self.typical_steps();
        let mut samples: Vec<Vec<f64>> = vec![Vec::new(); schedule.kernels.len()];
        let mut sums = vec![0.0; schedule.kernels.len()];
        for launch in &self.launches {
            let of = samples.get_mut(launch.kernel).ok_or_else(|| {
                ProfileError::OtherProgram(format!(
                    "it has a kernel {}, the schedule {}",
                    launch.kernel,
                    schedule.kernels.len()
                ))
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
        Ok((schedule.kernels.iter().zip(samples.iter_mut().zip(sums)).enumerate())
            .map(|(index, (kernel, (samples, sum)))| {
                let seconds = sum / typical.len() as f64;
                let (flops, bytes) = (flops(kernel), bytes_moved(kernel, &schedule.buffers));
                let ceiling_seconds = machine.seconds(flops, bytes);
                let median_seconds = median(samples);
                KernelTime {
                    kernel: index,
                    name: kernel.name.clone(),
                    kind: kernel.kind().name(),
                    seconds,
                    // The median left them in order.
                    min_seconds: samples[0],
                    median_seconds,
                    max_seconds: samples[samples.len() - 1],
                    share: seconds / step.max(f64::MIN_POSITIVE),
                    flops,
                    bytes,
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
        for launch in &self.launches {
            let kernel = schedule
                .kernels
                .get(launch.kernel)
                .ok_or_else(|| ProfileError::OtherProgram("kernels differ".into()))?;
            let bytes = live.get(launch.kernel).copied().unwrap_or(0);
            let counter = Event {
                args: args([("bytes", bytes.into())]),
                ts: micros(launch.start),
                ..Event::new("arena, live", "C")
            };
            events.push(counter);
            events.push(Event {
                cat: kernel.kind().name().into(),
                ts: micros(launch.start),
                dur: Some(micros(launch.seconds)),
                args: args([
                    ("kernel", launch.kernel.into()),
                    ("step", launch.step.into()),
                    ("flops", flops(kernel).into()),
                    ("bytes", bytes_moved(kernel, &schedule.buffers).into()),
                ]),
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
        let trace: Trace = serde_json::from_str(text).map_err(|error| ProfileError::Format(error.to_string()))?;
        Ok(trace.other_data)
    }

    /// Reads what [`Profile::to_trace`] wrote.
    ///
    /// # Errors
    /// When the text is something else, or the kernels are not those of the schedule.
    pub fn from_trace(text: &str, schedule: &Schedule) -> Result<Profile, ProfileError> {
        let trace: Trace = serde_json::from_str(text).map_err(|error| ProfileError::Format(error.to_string()))?;
        let mut launches = Vec::new();
        for event in trace.trace_events.iter().filter(|e| e.ph == "X") {
            let number = |name: &str| {
                let value =
                    event.args.get(name).and_then(serde_json::Value::as_u64).and_then(|v| usize::try_from(v).ok());
                value.ok_or_else(|| ProfileError::Format(format!("the event `{}` has no {name}", event.name)))
            };
            let (step, kernel) = (number("step")?, number("kernel")?);
            let known = schedule.kernels.get(kernel).map(|k| k.name.as_str());
            if known != Some(event.name.as_str()) {
                let here = known.map_or("not there".into(), |name| format!("`{name}`"));
                return Err(ProfileError::OtherProgram(format!(
                    "its kernel {kernel} is `{}`, here it is {here}",
                    event.name
                )));
            }
            let (start, seconds) = (event.ts / 1e6, event.dur.unwrap_or(0.0) / 1e6);
            if !(start.is_finite() && seconds.is_finite() && seconds >= 0.0) {
                return Err(ProfileError::Format(format!("the event `{}` has no time", event.name)));
            }
            launches.push(Launch { step, kernel, start, seconds });
        }
        Ok(Profile { subject: trace.other_data, launches })
    }

    /// The figures as a table, the slowest kernel first. Its first column adds up to the step.
    pub fn table(&self, kernels: &[KernelTime]) -> String {
        let mut order: Vec<&KernelTime> = kernels.iter().collect();
        order.sort_by(|a, b| b.seconds.total_cmp(&a.seconds).then(a.kernel.cmp(&b.kernel)));
        let step = self.step_time();
        let ms = |seconds: f64| format!("{:.3}", seconds * 1e3);
        let percent = |part: f64| format!("{:.1}%", part * 100.0);
        let right = [Align::Right; 10];
        let mut table = Table::new([&right[..], &[Align::Left, Align::Left]].concat());
        table.row([
            "ms",
            "share",
            "min",
            "median",
            "max",
            "at ceiling",
            "of ceiling",
            "GFLOP/s",
            "GB/s",
            "#",
            "kind",
            "kernel",
        ]);
        for k in order {
            table.row([
                ms(k.seconds),
                percent(k.share),
                ms(k.min_seconds),
                ms(k.median_seconds),
                ms(k.max_seconds),
                ms(k.ceiling_seconds),
                format!("{:.0}%", k.of_ceiling * 100.0),
                format!("{:.1}", k.flops as f64 / k.seconds.max(f64::MIN_POSITIVE) / 1e9),
                format!("{:.1}", k.bytes as f64 / k.seconds.max(f64::MIN_POSITIVE) / 1e9),
                k.kernel.to_string(),
                k.kind.to_string(),
                k.name.clone(),
            ]);
        }
        let ceiling: f64 = kernels.iter().map(|k| k.ceiling_seconds).sum();
        let blank = || String::new();
        let rest = |name: &str, seconds: f64, spread: [String; 3], ceiling: String| {
            let share = percent(seconds / step.seconds.max(f64::MIN_POSITIVE));
            let [min, median, max] = spread;
            let start = [ms(seconds), share, min, median, max, ceiling];
            let end = [blank(), blank(), blank(), blank(), blank(), name.to_string()];
            [start, end].concat()
        };
        table.row(rest("between kernels", step.between_seconds, [blank(), blank(), blank()], blank()));
        let whole = [step.min_seconds, step.median_seconds, step.max_seconds].map(ms);
        table.row(rest("the step", step.seconds, whole, ms(ceiling)));
        let Subject { machine, spread, .. } = &self.subject;
        let sum = |numbers: &mut dyn Iterator<Item = u64>| numbers.fold(0, u64::saturating_add);
        let (flops, moved) = (sum(&mut kernels.iter().map(|k| k.flops)), sum(&mut kernels.iter().map(|k| k.bytes)));
        let within = |part: f64| format!("(±{:.1}%)", part * 100.0);
        let busy = spread.busy().map_or(String::new(), |why| {
            format!("the machine was busy: {why}. Ceilings may be too low and times too long; measure again when it is idle\n")
        });
        format!(
            "{} of {}: {:.1} ms a step (mean of the {} typical of {} steps), {} kernels, {:.1} GFLOP/s, {} moved; at the \
             ceilings {:.1} ms\n\
             measured ceilings: {:.1} GFLOP/s {}, {:.1} GB/s {}, {:.1} µs a launch {}; {}\n{busy}\n{}",
            self.subject.entry,
            self.subject.program,
            step.seconds * 1e3,
            self.typical_steps().len(),
            self.subject.steps,
            kernels.len(),
            flops as f64 / step.seconds.max(f64::MIN_POSITIVE) / 1e9,
            bytes(moved as usize),
            ceiling * 1e3,
            machine.flops_per_second / 1e9,
            within(spread.arithmetic),
            machine.bytes_per_second / 1e9,
            within(spread.memory),
            machine.launch_seconds * 1e6,
            within(spread.launch),
            self.subject.device,
            table.render("")
        )
    }
}

/// By position in the schedule, the bytes that are in use there: all state, and every buffer that is live.
pub fn live_bytes(schedule: &Schedule, state_bytes: usize) -> Vec<usize> {
    (0..schedule.kernels.len())
        .map(|at| {
            let passing = schedule.buffers.iter().filter(|b| !matches!(b.role, BufferRole::State(_)));
            let live = passing.filter(|b| b.live.0 <= at && at < b.live.1);
            state_bytes + live.map(|b| b.bytes().next_multiple_of(ALIGNMENT)).sum::<usize>()
        })
        .collect()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    match values {
        [] => 0.0,
        v if v.len() % 2 == 1 => v[v.len() / 2],
        v => (v[v.len() / 2 - 1] + v[v.len() / 2]) / 2.0,
    }
}

/// The Trace Event Format, as far as it is used here.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Trace {
    display_time_unit: String,
    other_data: Subject,
    trace_events: Vec<Event>,
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
}

fn args<const N: usize>(pairs: [(&str, serde_json::Value); N]) -> BTreeMap<String, serde_json::Value> {
    pairs.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::{Options, compile};
    use crate::declare::builtin;
    use crate::exec::cpu::CpuDevice;

    fn profiled() -> (Arc<Plan>, Profile) {
        let options = Options { sets: vec!["batch=4".into()], ..Options::default() };
        let text = builtin::text("lenet").unwrap();
        let plan = compile("lenet", text, &options, &mut |_| {}).unwrap().plan.unwrap();
        let plan = Arc::new(plan);
        let profile = measure(&CpuDevice::new(1), plan.clone(), "train_step", 3, 0, &mut |_| {}).unwrap();
        (plan, profile)
    }

    #[test]
    fn a_trace_reads_back_and_times_add_up() {
        let (plan, profile) = profiled();
        let schedule = &plan.entry("train_step").unwrap().schedule;
        assert_eq!(profile.launches.len(), 3 * schedule.kernels.len());
        let trace = profile.to_trace(schedule, plan.state_layout.bytes).unwrap();
        let back = Profile::from_trace(&trace, schedule).unwrap();
        assert_eq!(back.subject, profile.subject);
        let close =
            |a: &Launch, b: &Launch| (a.step, a.kernel) == (b.step, b.kernel) && (a.seconds - b.seconds).abs() < 1e-9;
        assert!(back.launches.iter().zip(&profile.launches).all(|(a, b)| close(a, b)));
        let kernels = profile.kernels(schedule).unwrap();
        // The kernels and the time between them are the step.
        let step = profile.step_time();
        let sum = kernels.iter().map(|k| k.seconds).sum::<f64>() + step.between_seconds;
        assert!((sum / step.seconds - 1.0).abs() < 1e-9, "{sum} {step:?}");
        assert!(step.between_seconds >= 0.0 && step.min_seconds <= step.median_seconds);
        for k in &kernels {
            assert!(k.min_seconds <= k.median_seconds && k.median_seconds <= k.max_seconds, "{k:?}");
            assert!(k.min_seconds <= k.seconds && k.seconds <= k.max_seconds, "{k:?}");
        }
        // Kernels run one after the other: a step is no shorter than they are together.
        let first: f64 = profile.launches.iter().filter(|l| l.step == 0).map(|l| l.seconds).sum();
        let step_end = profile.launches.iter().filter(|l| l.step == 0).map(|l| l.start + l.seconds).fold(0.0, f64::max);
        assert!(first <= step_end + 1e-6, "{first} {step_end}");
        let table = profile.table(&kernels);
        let rows = table.lines().skip_while(|line| !line.is_empty()).skip(2);
        let all: Vec<f64> = rows.map(|row| row.split_whitespace().next().unwrap().parse().unwrap()).collect();
        let (whole, parts) = all.split_last().unwrap();
        assert_eq!(parts.len(), kernels.len() + 1);
        let rounding = 0.0005 * all.len() as f64;
        assert!((parts.iter().sum::<f64>() - whole).abs() <= rounding, "{table}");
    }

    /// A step in which the machine did something else counts in the longest time alone.
    #[test]
    fn a_disturbed_step_is_not_typical() {
        let (plan, mut profile) = profiled();
        let schedule = &plan.entry("train_step").unwrap().schedule;
        let launch = |step: usize, kernel: usize| Launch {
            step,
            kernel,
            start: step as f64 * 1000.0 + kernel as f64 * 1.25,
            // The step ends with it.
            seconds: if (step, kernel) == (1, 2) { 400.0 } else { 1.0 },
        };
        let count = schedule.kernels.len();
        profile.launches = (0..4).flat_map(|step| (0..count).map(move |kernel| launch(step, kernel))).collect();
        let kernels = profile.kernels(schedule).unwrap();
        assert_eq!(profile.typical_steps().len(), 2);
        assert_eq!([kernels[2].min_seconds, kernels[2].seconds, kernels[2].max_seconds], [1.0, 1.0, 400.0]);
        let step = profile.step_time();
        assert!((step.between_seconds - 0.25 * (count - 1) as f64).abs() < 1e-9, "{step:?}");
    }

    #[test]
    fn a_profile_of_something_else_is_refused() {
        let (plan, profile) = profiled();
        let trace = profile.to_trace(&plan.entry("train_step").unwrap().schedule, 0).unwrap();
        let other = &plan.entry("evaluate").unwrap().schedule;
        assert!(matches!(Profile::from_trace(&trace, other), Err(ProfileError::OtherProgram(_))));
        for text in ["", "{}", "[1]", "{\"traceEvents\":[]}"] {
            assert!(matches!(Profile::from_trace(text, other), Err(ProfileError::Format(_))), "{text}");
        }
    }
}
