//! `gcc-gan verify`.

use anyhow::Result;
use gcc_gan::inspect::{Align, Table, bytes};
use gcc_gan::plan;
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;

/// Check a plan file: that it is intact, and that what it says can be run safely
///
/// The checker does not rely on the planner's work: it shows for every entry that no two buffers whose
/// contents matter at the same time overlap, and that every kernel stays inside its buffers.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  gcc-gan compile dcgan -o dcgan.plan && gcc-gan verify dcgan.plan")]
pub struct Args {
    /// A file that `gcc-gan compile -o` wrote
    plan: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Entry {
    name: String,
    sizes: Vec<(String, usize)>,
    kernels: usize,
    buffers: usize,
    arena_bytes: usize,
    lower_bound: usize,
}

pub fn run(args: Args) -> Result<ExitCode> {
    // Loading is verifying.
    let plan = plan::load(&args.plan)?;
    let entries: Vec<Entry> = (plan.entries.iter())
        .map(|entry| Entry {
            name: entry.name.clone(),
            sizes: entry.sizes.clone(),
            kernels: entry.schedule.kernels.len(),
            buffers: entry.schedule.buffers.len(),
            arena_bytes: entry.schedule.arena_bytes,
            lower_bound: entry.schedule.lower_bound,
        })
        .collect();
    if args.json {
        super::print_json(&entries)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new([Align::Left, Align::Right, Align::Right, Align::Right, Align::Right, Align::Right]);
    table.row(["entry", "kernels", "buffers", "arena", "lower bound", "ratio"]);
    for entry in &entries {
        let sizes: Vec<String> = entry.sizes.iter().map(|(name, size)| format!("{name}={size}")).collect();
        table.row([
            [vec![entry.name.clone()], sizes].concat().join(" "),
            entry.kernels.to_string(),
            entry.buffers.to_string(),
            format!("{} ({})", entry.arena_bytes, bytes(entry.arena_bytes)),
            entry.lower_bound.to_string(),
            format!("{:.4}", entry.arena_bytes as f64 / entry.lower_bound.max(1) as f64),
        ]);
    }
    let code = plan.device_code.as_ref().map_or(String::new(), |code| {
        format!("device code, whole but not looked into: {} ({})\n", code.architectures(), bytes(code.bytes()))
    });
    super::print(&format!(
        "{}: a valid plan of `{}` for {}\n{}{code}",
        args.plan.display(),
        plan.name,
        plan.source.made_for(),
        table.render("  ")
    ))?;
    Ok(ExitCode::SUCCESS)
}
