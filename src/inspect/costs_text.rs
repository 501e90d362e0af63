//! Missed fusions and the peak of memory as text.

use super::explain::{ExplainError, entry_of};
use super::table::{Align, Table, bytes};
use super::{Again, Observed, Peak, Why, missed_fusions, peak, strategy_of};
use crate::kernel::schedule::Schedule;
use crate::plan::Machine;
use std::fmt::Write as _;

/// How many missed fusions and buffers are listed.
const MOST: usize = 12;

/// What an entry's kernels and its memory could be: the fusions that were missed, those that would save most first, and what
/// is live at the peak.
///
/// # Errors
/// When there is no such entry.
pub fn explain_entry(observed: &Observed, entry: &str, machine: &Machine) -> Result<String, ExplainError> {
    let (history, schedule) = entry_of(observed, entry)?;
    let plan = &observed.plan;
    let missed = missed_fusions(history.last(), schedule, &plan.state_layout, &strategy_of(plan), machine);
    let mut text = format!(
        "missed fusions: what one kernel in the place of two would save, on an assumed machine of {:.0} GB/s and {} a launch\n",
        machine.bytes_per_second / 1e9,
        time(machine.launch_seconds)
    );
    for pair in missed.pairs.iter().take(MOST) {
        let title = |k: usize| format!("[{k}] {}", schedule.kernels[k].name);
        let through: Vec<&str> = pair.buffers.iter().map(|&b| schedule.buffers[b].name.as_str()).collect();
        let _ = writeln!(
            text,
            "  {}, {} less: {} -> {}\n      through %{}\n      not fused: {}",
            time(pair.seconds),
            bytes(pair.bytes as usize),
            title(pair.from),
            title(pair.to),
            through.join(", %"),
            missed.reasons[pair.reason].text
        );
    }
    if missed.pairs.len() > MOST {
        let _ = writeln!(text, "  and {} more that save less", missed.pairs.len() - MOST);
    }
    let _ = match missed.pairs.len() {
        0 => writeln!(text, "  none: no kernel reads what another one writes"),
        count => writeln!(
            text,
            "  the {count} add up to {}; all at once would save at most {}, and {}",
            time(missed.sum_seconds),
            time(missed.together_seconds),
            bytes(missed.together_bytes as usize)
        ),
    };
    if let Some(peak) = peak(schedule, plan.state_layout.bytes, machine) {
        let _ = write!(text, "\n{}", peak_text(&peak, schedule));
    }
    Ok(text)
}

fn peak_text(peak: &Peak, schedule: &Schedule) -> String {
    let over = schedule.arena_bytes.saturating_sub(peak.bytes);
    let tight = match over {
        0 => "the arena is as large: no plan of this schedule can be smaller".to_string(),
        _ => format!("the arena has {} more", bytes(over)),
    };
    let (k, together) = (peak.at, bytes(peak.bytes));
    let mut text = format!("peak: {together} must be there together while kernel [{k}] runs; {tight}\n");
    let mut table = Table::new([Align::Right, Align::Right, Align::Right, Align::Right, Align::Left, Align::Left]);
    table.row(["bytes", "would free", "falls at most", "costs", "buffer", "why"]);
    let (states, others): (Vec<_>, Vec<_>) = peak.buffers.iter().partition(|b| b.why == Why::State);
    let blank = || [String::new(), String::new(), String::new()];
    for live in others.iter().take(MOST) {
        let again = match &live.again {
            Again::Possible { seconds, bytes: free, falls, .. } => [bytes(*free), bytes(*falls), time(*seconds)],
            Again::Never | Again::Input | Again::Overwritten { .. } => blank(),
        };
        let why = match live.why {
            Why::State => "kept from run to run".to_string(),
            Why::InUse => format!("in use in kernel [{k}]"),
            Why::NeededBy(next) => format!("needed by kernel [{next}]"),
            Why::Output => "a result, kept to the end".to_string(),
        };
        let name = schedule.buffers[live.buffer].name.clone();
        table.row([vec![bytes(live.bytes)], again.to_vec(), vec![name, why]].concat());
    }
    let mut row = |size: usize, what: String| {
        table.row([vec![bytes(size)], blank().to_vec(), vec![what]].concat());
    };
    let rest = others.get(MOST..).unwrap_or_default();
    if !rest.is_empty() {
        row(rest.iter().map(|b| b.bytes).sum(), format!("{} smaller buffers", rest.len()));
    }
    row(states.iter().map(|b| b.bytes).sum::<usize>() + peak.other_state, "all state".to_string());
    text.push_str(&table.render("  "));
    text
}

fn time(seconds: f64) -> String {
    match seconds {
        1.0.. => format!("{seconds:.2} s"),
        1e-3..1.0 => format!("{:.2} ms", seconds * 1e3),
        1e-6..1e-3 => format!("{:.1} µs", seconds * 1e6),
        _ => format!("{:.0} ns", seconds * 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::observe;

    #[test]
    fn an_entry_of_a_small_program() {
        let text = r#"Program(
            name: "small",
            networks: { "net": Network(input: [8], layers: [Dense(16), Relu(), Dense(4)]) },
            entries: {
                "train_step": Entry(
                    inputs: { "x": Tensor([32, 8]) },
                    steps: [
                        Let("y", Call("net", "x", Training)),
                        Let("loss", Mean(Mul("y", "y"))),
                        Minimise("loss", "net", Sgd(lr: 0.1)),
                    ],
                    outputs: ["loss"],
                ),
            },
        )"#;
        let observed = observe("small.ron", text, &[], None).unwrap();
        insta::assert_snapshot!(explain_entry(&observed, "train_step", &Machine::NOMINAL).unwrap());
        assert!(explain_entry(&observed, "nothing", &Machine::NOMINAL).is_err());
    }
}
