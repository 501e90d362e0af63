//! The kernels of the DCGAN's training step against what this machine can do at most, for each way to compute it.
//!
//!     cargo bench --bench kernels [-- NAME...]
//!
//! NAME is accurate, fast, exact or bf16; all without one. A kernel's ceiling is the larger of the times that its arithmetic and
//! its memory need at the rates that are measured first.

use gcc_gan::compile::{Options, compile};
use gcc_gan::declare::builtin;
use gcc_gan::exec::cpu::CpuDevice;
use gcc_gan::inspect::profile::grouped::{By, GroupTime};
use gcc_gan::inspect::profile::measure;
use gcc_gan::inspect::profile::origin::{KernelOrigin, KernelRole, kernel_origins};
use gcc_gan::inspect::{Align, Table};
use gcc_gan::kernel::body::KernelKind;
use gcc_gan::kernel::target::{Convolutions, Precision};
use gcc_gan::train::session::entry;
use std::sync::Arc;

const STEPS: usize = 9;
const MODES: [(&str, Convolutions, Precision); 4] = [
    ("accurate", Convolutions::Accurate, Precision::F32),
    ("fast", Convolutions::Fast, Precision::F32),
    ("exact", Convolutions::Exact, Precision::F32),
    ("bf16", Convolutions::Accurate, Precision::Bf16),
];

fn main() {
    // Cargo adds an option of its own.
    let names: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    if let Some(unknown) = names.iter().find(|&name| MODES.iter().all(|(known, ..)| known != name)) {
        panic!("`{unknown}` is none of accurate, fast, exact and bf16");
    }
    for (name, convolutions, precision) in MODES {
        if names.is_empty() || names.iter().any(|wanted| wanted == name) {
            mode(name, convolutions, precision);
        }
    }
}

/// Measures the step computed in one way, and prints its kernels by kind, and its contractions by algorithm and role.
fn mode(name: &str, convolutions: Convolutions, precision: Precision) {
    let text = builtin::text("dcgan").expect("a built-in program");
    let options = Options { convolutions, precision, ..Options::default() };
    let compiled = compile("dcgan", text, &options, &mut |_| {}).expect("it compiles");
    let plan = Arc::new(compiled.plan.expect("compiled to the end"));
    let threads = std::thread::available_parallelism().map_or(1, Into::into);
    let device = CpuDevice::new(threads);
    let mut profile = measure(&device, plan.clone(), entry::TRAIN, STEPS, 0, &mut |_| {}).expect("it runs");
    let schedule = &plan.entry(entry::TRAIN).expect("the training step").schedule;
    let graph = compiled.module.entries.iter().map(|e| &e.graph).find(|graph| graph.name == entry::TRAIN);
    profile.origins = kernel_origins(graph.expect("the training step"), schedule);
    let kernels = profile.kernels(schedule).expect("the schedule that was measured");

    println!("{name}\n{}", profile.group_table(&kernels, By::Kind));
    let contractions = kernels.iter().filter(|k| k.kind == KernelKind::Contraction.name()).map(|k| {
        let algorithm = schedule.kernels[k.kernel].choice.algorithm.name();
        (format!("{algorithm}, {}", k.origin.as_ref().map_or("rest", role)), k)
    });
    println!("{}", table("contractions", &profile.groups_named(contractions)));
}

fn role(origin: &KernelOrigin) -> &'static str {
    match origin.role {
        KernelRole::Forward => "forward",
        KernelRole::Gradient => "backward",
        KernelRole::Optimiser => "update",
    }
}

fn table(head: &str, groups: &[GroupTime]) -> String {
    let mut table = Table::new([vec![Align::Right; 4], vec![Align::Left]].concat());
    table.row(["ms", "at ceiling", "of ceiling", "kernels", head]);
    for group in groups {
        table.row([
            format!("{:.2}", group.seconds * 1e3),
            format!("{:.2}", group.ceiling_seconds * 1e3),
            format!("{:.0}%", group.of_ceiling * 100.0),
            group.kernels.to_string(),
            group.name.clone(),
        ]);
    }
    table.render("")
}
