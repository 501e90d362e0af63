//! What became of a program, as people read it.

use super::{Align, Table, bytes, count};
use crate::compile::{EntrySummary, Summary};
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
        let _ = write!(text, "\n{}{}\n{}", entry.name, sizes.concat(), entry_table(entry).render("  "));
    }
    text
}

fn entry_table(entry: &EntrySummary) -> Table {
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
    table.row(["kernels", &format!("{} → {} by fusion: {}", entry.kernels_unfused, entry.kernels, kinds.join(", "))]);
    table.row(["FLOPs", &count(entry.flops)]);
    table.row(["bytes moved", &bytes(entry.bytes_moved as usize)]);
    let arena = format!("{} (lower bound {}, ratio {ratio:.4})", bytes(entry.arena_bytes), bytes(entry.lower_bound));
    table.row(["arena", &arena]);
    table
}
