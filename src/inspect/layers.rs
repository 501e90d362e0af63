//! What layers and roles cost, what binds them, and where a step's time goes besides.

use super::profile::origin::{KernelOrigin, KernelRole, REST, kernel_origins};
use super::profile::{KernelTime, Profile, median};
use crate::ir::Graph;
use crate::kernel::body::{Body, BufferId, Expr, Kernel, Nest};
use crate::kernel::cost::{bytes_moved, flops, multiplied};
use crate::kernel::schedule::Schedule;
use crate::plan::Machine;
use serde::Serialize;
use std::collections::BTreeMap;

/// The kernels of one layer in one role, all its calls together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerCost {
    pub layer: String,
    pub role: KernelRole,
    /// By their positions.
    pub kernels: Vec<usize>,
    pub flops: u64,
    pub bytes: u64,
    /// The least time in seconds that the ceilings allow: the sum of what each kernel's own ceiling gives.
    pub ceiling: f64,
    /// Of that, launches.
    pub launches: f64,
    pub bound: Bound,
    /// Where it was measured: the mean over the typical steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
}

/// What takes most of the least time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    Launches,
    Memory,
    Arithmetic,
}

/// A part of a step's time. Every kernel is in one part.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TimePart {
    pub name: &'static str,
    /// What it is, in a sentence.
    pub about: &'static str,
    pub kernels: usize,
    pub seconds: f64,
}

/// The costs of an entry's layers, and where its step's time goes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Costs {
    /// Layers in the order in which they are first computed, each by role.
    pub layers: Vec<LayerCost>,
    /// What adds up to the step: measured, or at the ceilings.
    pub parts: Vec<TimePart>,
    /// Seconds from the end of a step to the start of the next, where it was measured: the median. No part of the step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub between_steps: Option<f64>,
}

/// What one kernel does.
struct Cost {
    flops: u64,
    bytes: u64,
    arithmetic: f64,
    memory: f64,
    seconds: Option<f64>,
    draws: bool,
}

/// Adds up the kernels of a schedule that was made from a graph; with measured times where a profile of it is given, whose
/// times of kernels are `times`.
pub fn costs(
    graph: &Graph,
    schedule: &Schedule,
    machine: &Machine,
    measured: Option<(&Profile, &[KernelTime])>,
) -> Costs {
    let Schedule { kernels, buffers, .. } = schedule;
    let cost = |(k, kernel): (usize, &Kernel)| {
        let (flops, bytes) = (flops(kernel), bytes_moved(kernel, buffers));
        Cost {
            flops,
            bytes,
            arithmetic: flops as f64 / machine.flops_ceiling(multiplied(kernel, buffers)),
            memory: bytes as f64 / machine.bytes_per_second,
            seconds: measured.map(|(_, times)| times[k].seconds),
            draws: draws(kernel),
        }
    };
    let costs: Vec<Cost> = kernels.iter().enumerate().map(cost).collect();
    let origins = kernel_origins(graph, schedule);
    Costs {
        layers: layers(&origins, &costs, machine),
        parts: parts(&origins, &costs, machine, measured.map(|(profile, _)| profile)),
        between_steps: measured.and_then(|(profile, _)| between_steps(profile)),
    }
}

fn layers(origins: &[Option<KernelOrigin>], costs: &[Cost], machine: &Machine) -> Vec<LayerCost> {
    let mut first: Vec<&str> = Vec::new();
    let mut place: BTreeMap<&str, usize> = BTreeMap::new();
    let mut members: BTreeMap<(usize, KernelRole), Vec<usize>> = BTreeMap::new();
    for (k, origin) in origins.iter().enumerate() {
        let (layer, role) = origin.as_ref().map_or((REST, KernelRole::Forward), |o| (o.layer.as_str(), o.role));
        let at = *place.entry(layer).or_insert_with(|| {
            first.push(layer);
            first.len() - 1
        });
        members.entry((at, role)).or_default().push(k);
    }
    let cost = |((layer, role), kernels): ((usize, KernelRole), Vec<usize>)| {
        let of = || kernels.iter().map(|&k| &costs[k]);
        let launches = machine.launch_seconds * kernels.len() as f64;
        // What binds each kernel by itself: sums of both would hide that some are bound by one and some by the other.
        let arithmetic: f64 = of().filter(|c| c.arithmetic >= c.memory).map(|c| c.arithmetic).sum();
        let memory: f64 = of().filter(|c| c.arithmetic < c.memory).map(|c| c.memory).sum();
        let bound = if launches > arithmetic.max(memory) {
            Bound::Launches
        } else if memory > arithmetic {
            Bound::Memory
        } else {
            Bound::Arithmetic
        };
        LayerCost {
            layer: first[layer].to_string(),
            role,
            flops: of().map(|c| c.flops).fold(0, u64::saturating_add),
            bytes: of().map(|c| c.bytes).fold(0, u64::saturating_add),
            ceiling: launches + arithmetic + memory,
            launches,
            bound,
            seconds: of().map(|c| c.seconds).sum(),
            kernels,
        }
    };
    members.into_iter().map(cost).collect()
}

fn parts(
    origins: &[Option<KernelOrigin>],
    costs: &[Cost],
    machine: &Machine,
    profile: Option<&Profile>,
) -> Vec<TimePart> {
    const KERNELS: [(&str, &str); 5] = [
        ("forward", "kernels that compute values"),
        ("backward", "kernels that compute gradients"),
        ("update", "kernels that update parameters and the optimiser's state"),
        (
            "draws",
            "kernels that draw random numbers, with what is fused with them; contractions that draw a mask are not among them",
        ),
        ("copies", "kernels that only copy"),
    ];
    let part_of = |k: usize| match &origins[k] {
        _ if costs[k].draws => 3,
        None => 4,
        Some(origin) => match origin.role {
            KernelRole::Forward => 0,
            KernelRole::Gradient => 1,
            KernelRole::Optimiser => 2,
        },
    };
    let mut parts = KERNELS.map(|(name, about)| TimePart { name, about, kernels: 0, seconds: 0.0 }).to_vec();
    for (k, cost) in costs.iter().enumerate() {
        let part = &mut parts[part_of(k)];
        part.kernels += 1;
        part.seconds += cost.seconds.unwrap_or(cost.arithmetic.max(cost.memory));
    }
    parts.retain(|part| part.kernels > 0);
    parts.push(match profile {
        Some(profile) => TimePart {
            name: "between kernels",
            about: "from the end of a kernel to the start of the next: threads meet, and the next launch is prepared",
            kernels: 0,
            seconds: profile.step_time().between_seconds,
        },
        None => TimePart {
            name: "launches",
            about: "what a launch takes besides its work, once for each kernel",
            kernels: 0,
            seconds: machine.launch_seconds * costs.len() as f64,
        },
    });
    parts
}

/// The median time from the end of a step to the start of the next.
fn between_steps(profile: &Profile) -> Option<f64> {
    let mut spans: BTreeMap<usize, (f64, f64)> = BTreeMap::new();
    for launch in &profile.launches {
        let span = spans.entry(launch.step).or_insert((f64::INFINITY, f64::NEG_INFINITY));
        *span = (span.0.min(launch.start), span.1.max(launch.start + launch.seconds));
    }
    let spans: Vec<(f64, f64)> = spans.into_values().collect();
    let mut gaps: Vec<f64> = spans.windows(2).map(|pair| pair[1].0 - pair[0].1).collect();
    (!gaps.is_empty()).then(|| median(&mut gaps))
}

/// Whether a kernel is there to draw random numbers: a contraction or a reduction that draws its own mask is not.
fn draws(kernel: &Kernel) -> bool {
    let is_random = |expr: &Expr<BufferId>| matches!(expr, Expr::Random { .. });
    let draws = |nest: &Nest<BufferId>| !nest.reduced.contains(&true) && nest.exprs.iter().any(is_random);
    matches!(&kernel.body, Body::Nests(nests) if nests.iter().any(draws))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::observe;
    use crate::inspect::profile::{Launch, Subject};

    fn dcgan() -> crate::inspect::Observed {
        observe("dcgan", crate::declare::builtin::text("dcgan").unwrap(), &[], None).unwrap()
    }

    /// Two steps in which kernel `k` takes `k + 1` microseconds and half a microsecond passes before each; between the steps
    /// pass 3 microseconds more.
    fn profile(kernels: usize) -> Profile {
        let subject = Subject {
            program: "dcgan".into(),
            entry: "train_step".into(),
            sets: Vec::new(),
            device: "test".into(),
            steps: 2,
            machine: Machine::NOMINAL,
            spread: Default::default(),
        };
        let mut launches = Vec::new();
        let mut now = 0.0;
        for step in 0..2 {
            for kernel in 0..kernels {
                let seconds = 1e-6 * (kernel + 1) as f64;
                now += 0.5e-6;
                launches.push(Launch { step, kernel, start: now, seconds });
                now += seconds;
            }
            now += 3e-6;
        }
        Profile { subject, launches, origins: Vec::new() }
    }

    #[test]
    fn layers_and_parts_add_up_to_the_step() {
        let observed = dcgan();
        let graph = observed.history("train_step").unwrap().last();
        let schedule = &observed.plan.entry("train_step").unwrap().schedule;
        let profile = profile(schedule.kernels.len());
        let times = profile.kernels(schedule).unwrap();
        let machine = &Machine::NOMINAL;
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-9 * b.abs().max(1e-3), "{a} {b}");
        let found = costs(graph, schedule, machine, Some((&profile, &times)));
        close(found.parts.iter().map(|p| p.seconds).sum(), profile.step_time().seconds);
        let in_kernels: f64 = found.layers.iter().map(|l| l.seconds.unwrap()).sum();
        close(in_kernels + profile.step_time().between_seconds, profile.step_time().seconds);
        close(found.between_steps.unwrap(), 3.5e-6);
        let mut all: Vec<usize> = found.layers.iter().flat_map(|l| l.kernels.clone()).collect();
        all.sort_unstable();
        assert_eq!(all, (0..schedule.kernels.len()).collect::<Vec<_>>());
        assert_eq!(found.parts.iter().map(|p| p.kernels).sum::<usize>(), schedule.kernels.len());

        // At the ceilings, where nothing was measured.
        let least = costs(graph, schedule, machine, None);
        let total: f64 = schedule.kernels.iter().map(|k| machine.kernel_seconds(k, &schedule.buffers)).sum();
        close(least.parts.iter().map(|p| p.seconds).sum(), total);
        close(least.layers.iter().map(|l| l.ceiling).sum(), total);
        assert!(least.between_steps.is_none() && least.layers.iter().all(|l| l.seconds.is_none()));
        assert!(least.parts.iter().any(|p| p.name == "draws"), "noise is drawn: {:?}", least.parts);
    }

    #[test]
    fn what_binds_a_layer_is_what_takes_most() {
        let observed = dcgan();
        let graph = observed.history("train_step").unwrap().last();
        let schedule = &observed.plan.entry("train_step").unwrap().schedule;
        let bounds = |machine: Machine| -> Vec<Bound> {
            costs(graph, schedule, &machine, None).layers.iter().map(|l| l.bound).collect()
        };
        let all = |bound: Bound, found: Vec<Bound>| assert!(found.iter().all(|&b| b == bound), "{bound:?}: {found:?}");
        all(Bound::Launches, bounds(Machine { launch_seconds: 10.0, ..Machine::NOMINAL }));
        all(Bound::Memory, bounds(Machine { launch_seconds: 0.0, flops_per_second: 1e30, ..Machine::NOMINAL }));
        let ordinary = bounds(Machine::NOMINAL);
        assert!(
            [Bound::Launches, Bound::Memory, Bound::Arithmetic].iter().all(|b| ordinary.contains(b)),
            "{ordinary:?}"
        );
    }
}
