//! What a profile says, and that its parts add up.

use super::grouped::By;
use super::origin::{KernelRole, kernel_origins};
use super::*;
use crate::compile::{Options, compile};
use crate::declare::builtin;
use crate::exec::cpu::CpuDevice;
use crate::kernel::target::Precision;

fn profiled() -> (Arc<Plan>, Profile) {
    profiled_with(4, Precision::F32)
}

fn profiled_with(batch: usize, precision: Precision) -> (Arc<Plan>, Profile) {
    let options = Options { sets: vec![format!("batch={batch}")], precision, ..Options::default() };
    let text = builtin::text("lenet").unwrap();
    let compiled = compile("lenet", text, &options, &mut |_| {}).unwrap();
    let plan = Arc::new(compiled.plan.unwrap());
    let mut profile = measure(&CpuDevice::new(1), plan.clone(), "train_step", 3, 0, &mut |_| {}).unwrap();
    let entry = compiled.module.entries.iter().find(|e| e.graph.name == "train_step").unwrap();
    profile.origins = kernel_origins(&entry.graph, &plan.entry("train_step").unwrap().schedule);
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
    assert!(profile.origins.iter().flatten().count() > 5);
    assert_eq!(back.origins, profile.origins);
    let close =
        |a: &Launch, b: &Launch| (a.step, a.kernel) == (b.step, b.kernel) && (a.seconds - b.seconds).abs() < 1e-9;
    assert!(back.launches.iter().zip(&profile.launches).all(|(a, b)| close(a, b)));
    let kernels = profile.kernels(schedule).unwrap();
    // What is written says all that figures are made from.
    let recorded = Recorded::from_trace(&trace).unwrap();
    assert_eq!(recorded.profile.launches, back.launches);
    assert_eq!(recorded.kernels, back.kernels(schedule).unwrap());
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

/// Products of bf16 have a ceiling of their own, of which a heading tells and which a trace keeps.
#[test]
fn products_of_bf16_have_their_own_ceiling() {
    // Smaller products stay in f32.
    let (plan, mut profile) = profiled_with(32, Precision::Bf16);
    profile.subject.machine.bf16_flops_per_second = Some(1.0);
    let schedule = &plan.entry("train_step").unwrap().schedule;
    let kernels = profile.kernels(schedule).unwrap();
    let (bf16, f32): (Vec<_>, Vec<_>) = kernels.iter().partition(|k| k.multiplied == Multiplied::Bf16);
    assert!(!bf16.is_empty() && bf16.iter().all(|k| k.ceiling_seconds >= k.flops as f64), "{bf16:?}");
    assert!(!f32.is_empty() && f32.iter().all(|k| k.ceiling_seconds < 1.0), "{f32:?}");
    assert!(profile.heading(&kernels).contains("of products of bf16 0.0 GFLOP/s"), "{}", profile.heading(&kernels));
    let trace = profile.to_trace(schedule, plan.state_layout.bytes).unwrap();
    assert_eq!(Recorded::from_trace(&trace).unwrap().kernels, kernels_of(&trace, schedule));
    let (plan, profile) = profiled();
    let kernels = profile.kernels(&plan.entry("train_step").unwrap().schedule).unwrap();
    assert!(!profile.heading(&kernels).contains("products of bf16"), "{}", profile.heading(&kernels));
}

fn kernels_of(trace: &str, schedule: &Schedule) -> Vec<KernelTime> {
    Profile::from_trace(trace, schedule).unwrap().kernels(schedule).unwrap()
}

/// However kernels are grouped, each is in one group, and the groups with the time between kernels are the step.
#[test]
fn groups_add_up_to_the_step() {
    let (plan, profile) = profiled();
    let kernels = profile.kernels(&plan.entry("train_step").unwrap().schedule).unwrap();
    let step = profile.step_time();
    for by in [By::Layer, By::Call, By::Role, By::Kind] {
        let groups = profile.groups(&kernels, by);
        assert!(groups.len() > 1 && groups.is_sorted_by(|a, b| a.seconds >= b.seconds), "{by:?}");
        assert_eq!(groups.iter().map(|g| g.kernels).sum::<usize>(), kernels.len());
        assert_eq!(groups.iter().map(|g| g.flops).sum::<u64>(), kernels.iter().map(|k| k.flops).sum::<u64>());
        assert_eq!(groups.iter().map(|g| g.bytes).sum::<u64>(), kernels.iter().map(|k| k.bytes).sum::<u64>());
        let ceilings: f64 = groups.iter().map(|g| g.ceiling_seconds).sum();
        assert!((ceilings / kernels.iter().map(|k| k.ceiling_seconds).sum::<f64>() - 1.0).abs() < 1e-9);
        let seconds: f64 = groups.iter().map(|g| g.seconds).sum();
        assert!(((seconds + step.between_seconds) / step.seconds - 1.0).abs() < 1e-9, "{by:?}");
        let shares: f64 = groups.iter().map(|g| g.share).sum();
        assert!((shares + step.between_seconds / step.seconds - 1.0).abs() < 1e-9, "{by:?}");
        for g in &groups {
            // Every kernel of this step computes something, so each has a role.
            let roles = g.forward_seconds + g.backward_seconds + g.update_seconds;
            assert!((roles / g.seconds - 1.0).abs() < 1e-9, "{g:?}");
        }
        let table = profile.group_table(&kernels, by);
        let rows = table.lines().skip_while(|line| !line.is_empty()).skip(2);
        let all: Vec<f64> = rows.map(|row| row.split_whitespace().next().unwrap().parse().unwrap()).collect();
        let (whole, parts) = all.split_last().unwrap();
        assert_eq!(parts.len(), groups.len() + 1);
        assert!((parts.iter().sum::<f64>() - whole).abs() <= 0.0005 * all.len() as f64, "{table}");
    }
    let layers = profile.groups(&kernels, By::Layer);
    let conv = layers.iter().find(|g| g.name.ends_with("/0-conv")).expect("the first layer");
    assert!(conv.forward_seconds > 0.0 && conv.backward_seconds > 0.0, "{conv:?}");
    assert_eq!(conv.calls, ["logits"]);
}

/// Kernels of which nothing is known, as of a plan that another version compiled, are a group of their own.
#[test]
fn what_is_not_known_is_the_rest() {
    let (plan, mut profile) = profiled();
    let schedule = &plan.entry("train_step").unwrap().schedule;
    let update = |o: &&mut Option<KernelOrigin>| o.as_ref().is_some_and(|o| o.role == KernelRole::Optimiser);
    profile.origins.iter_mut().filter(update).for_each(|origin| *origin = None);
    let kernels = profile.kernels(schedule).unwrap();
    let roles = profile.groups(&kernels, By::Role);
    let names: BTreeSet<&str> = roles.iter().map(|g| g.name.as_str()).collect();
    assert_eq!(names, BTreeSet::from(["backward of loss", "forward", "rest"]));
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
        assert!(matches!(Recorded::from_trace(text), Err(ProfileError::Format(_))), "{text}");
    }
    let without = |what: &str, with: &str| {
        assert!(trace.contains(what), "{what}");
        Recorded::from_trace(&trace.replace(what, with)).expect_err(what).to_string()
    };
    assert!(without("\"ph\":\"X\"", "\"ph\":\"Y\"").contains("no kernels"));
    assert!(without("\"kernel\":3,", "\"kernel\":4,").contains("kernel 4 is `"));
    assert!(without("\"kernel\":3,", "\"kernel\":90000000000,").contains("no times of kernel 3"));
    assert!(without("\"flops\":", "\"flips\":").contains("has no flops"));
}
