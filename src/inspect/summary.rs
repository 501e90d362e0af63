//! A summary of a compilation as text.

use super::{Align, Table, bytes, count};
use crate::compile::{EntrySummary, Summary};
use crate::schedule::Fusion;
use std::fmt::Write as _;

/// The figures of a compilation: a table for each entry.
pub fn summary_text(summary: &Summary) -> String {
    let mut text = format!(
        "{}: {} parameters in {} tensors, {} of state; compiled in {:.2} s\n",
        summary.program,
        count(summary.parameters as u64),
        summary.parameter_tensors,
        bytes(summary.state_bytes),
        summary.elapsed.as_secs_f64()
    );
    for entry in &summary.entries {
        let sizes: Vec<String> = entry.sizes.iter().map(|(name, size)| format!(" {name}={size}")).collect();
        let _ = write!(text, "\n{}{}\n{}", entry.name, sizes.concat(), entry_table(summary, entry).render("  "));
    }
    if !summary.checks.is_empty() {
        let _ = write!(
            text,
            "\npasses, checked against the interpreter in f64 on random inputs\n{}",
            checks(summary).render("  ")
        );
    }
    text
}

/// What was compared after each pass; a pass that left an entry as it was is not in it.
fn checks(summary: &Summary) -> Table {
    let mut table = Table::new([Align::Left, Align::Right, Align::Right, Align::Left]);
    table.row(["pass", "values compared", "worst relative error", "entry"]);
    let mut unchanged = 0;
    for check in &summary.checks {
        if check.compared.values == 0 {
            unchanged += 1;
            continue;
        }
        let error = check.compared.worst_relative_error;
        let sizes: String = check.sizes.iter().map(|(name, size)| format!(" {name}={size}")).collect();
        table.row([
            check.pass.clone(),
            check.compared.values.to_string(),
            if error == 0.0 { "0".into() } else { format!("{error:.1e}") },
            format!("{}{sizes}", check.entry),
        ]);
    }
    if unchanged > 0 {
        table.row([format!("{unchanged} more changed nothing")]);
    }
    table
}

fn entry_table(summary: &Summary, entry: &EntrySummary) -> Table {
    let mut table = Table::new([Align::Left, Align::Left]);
    let mut nodes = String::new();
    let mut last = None;
    for (stage, count) in &entry.stages {
        // Passes that change nothing are left out.
        if last != Some(count) {
            let arrow = if last.is_some() { " → " } else { "" };
            let _ = write!(nodes, "{arrow}{count} {stage}");
        }
        last = Some(count);
    }
    let kinds: Vec<String> = entry.kernels_by_kind.iter().map(|(kind, n)| format!("{n} {}", kind.name())).collect();
    let ratio = entry.arena_bytes as f64 / entry.lower_bound.max(1) as f64;
    table.row(["nodes", &nodes]);
    let fused = match summary.fusion {
        Fusion::On => format!("{} → {} by fusion", entry.kernels_unfused, entry.kernels),
        Fusion::Off => format!("{}, fusion off", entry.kernels),
    };
    table.row(["kernels", &format!("{fused}: {}", kinds.join(", "))]);
    table.row(["launches", &entry.launches.to_string()]);
    if !entry.algorithms.is_empty() {
        let algorithms: Vec<String> = entry.algorithms.iter().map(|(name, n)| format!("{n} by {name}")).collect();
        table.row(["contractions", &algorithms.join("; ")]);
    }
    table.row(["FLOPs", &count(entry.flops)]);
    table.row(["bytes moved", &bytes(entry.bytes_moved as usize)]);
    let arena = format!("{} (lower bound {}, ratio {ratio:.4})", bytes(entry.arena_bytes), bytes(entry.lower_bound));
    table.row(["arena", &arena]);
    if entry.workspace_bytes > 0 {
        table.row(["workspace", &format!("{} at most, in the arena", bytes(entry.workspace_bytes))]);
    }
    table
}
