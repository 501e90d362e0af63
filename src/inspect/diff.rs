//! What differs between two programs, as lines for a code review.

use super::{Align, Observed, Table, bytes, choice_text, count, kernel_text, value_count};
use crate::ir::text::Printer;
use crate::ir::{Graph, Op};
use crate::kernel::cost::{bytes_moved, flops};
use crate::kernel::schedule::Schedule;
use crate::plan::{EntryPlan, Machine};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Compares two compiled programs: what they are made for, state, and for each entry its figures, nodes, kernels and
/// memory. At most `most` lines are listed of each. `None` where nothing differs.
pub fn diff(a: &Observed, b: &Observed, most: usize) -> Option<String> {
    let mut text = String::new();
    let [from, to] = [a, b].map(|o| o.plan.source.made_for());
    if from != to {
        let _ = writeln!(text, "made for {from} → {to}");
    }
    let states = |o: &Observed| -> BTreeMap<String, String> {
        o.plan.states.iter().map(|s| (s.name.clone(), format!("{:?} {} {:?}", s.role, s.ty, s.init))).collect()
    };
    listed(&mut text, "state", &states(a), &states(b), most);
    let names = |o: &Observed| -> BTreeMap<(String, String), usize> {
        let sizes = |e: &EntryPlan| e.sizes.iter().map(|(name, size)| format!(" {name}={size}")).collect::<String>();
        o.plan.entries.iter().enumerate().map(|(i, e)| ((e.name.clone(), sizes(e)), i)).collect()
    };
    let (of_a, of_b) = (names(a), names(b));
    let all: std::collections::BTreeSet<_> = of_a.keys().chain(of_b.keys()).collect();
    for key in all {
        let title = format!("{}{}", key.0, key.1);
        match (of_a.get(key), of_b.get(key)) {
            (Some(&i), Some(&j)) => {
                let part = entry_diff(a, &a.plan.entries[i], b, &b.plan.entries[j], most);
                if !part.is_empty() {
                    let _ = write!(text, "entry {title}\n{part}");
                }
            }
            (Some(_), None) => text.push_str(&format!("- entry {title}\n")),
            (None, _) => text.push_str(&format!("+ entry {title}\n")),
        }
    }
    (!text.is_empty()).then_some(text)
}

fn entry_diff(a: &Observed, left: &EntryPlan, b: &Observed, right: &EntryPlan, most: usize) -> String {
    let mut text = String::new();
    // Specialisations have the entry's graph for other sizes: their kernels and memory tell.
    let own = |o: &Observed, e: &EntryPlan| o.history(&e.name).filter(|_| e.sizes.is_empty()).map(|h| h.last().clone());
    let graphs = (own(a, left), own(b, right));
    let mut table = Table::new([Align::Left, Align::Right, Align::Left, Align::Right, Align::Right]);
    let mut row = |what: &str, x: f64, y: f64, show: &dyn Fn(f64) -> String| {
        if x != y {
            let change = if x == 0.0 { String::new() } else { format!("{:+.1}%", (y / x - 1.0) * 100.0) };
            table.row([what.to_string(), show(x), "→".into(), show(y), change]);
        }
    };
    let whole = |x: f64| format!("{x}");
    if let (Some(g), Some(h)) = &graphs {
        row("nodes", g.len() as f64, h.len() as f64, &whole);
    }
    let (s, t) = (&left.schedule, &right.schedule);
    let sum = |s: &Schedule, of: &dyn Fn(&crate::kernel::body::Kernel) -> f64| s.kernels.iter().map(of).sum::<f64>();
    row("kernels", s.kernels.len() as f64, t.kernels.len() as f64, &whole);
    row("FLOPs", sum(s, &|k| flops(k) as f64), sum(t, &|k| flops(k) as f64), &|x| count(x as u64));
    let moved = |s: &Schedule| sum(s, &|k| bytes_moved(k, &s.buffers) as f64);
    row("bytes moved", moved(s), moved(t), &|x| bytes(x as usize));
    row("arena", s.arena_bytes as f64, t.arena_bytes as f64, &|x| bytes(x as usize));
    row("lower bound", s.lower_bound as f64, t.lower_bound as f64, &|x| bytes(x as usize));
    let at_ceiling = |o: &Observed, s: &Schedule| {
        let machine = Machine::nominal(o.plan.source.target);
        sum(s, &|k| machine.kernel_seconds(k, &s.buffers))
    };
    row("time at assumed ceilings", at_ceiling(a, s), at_ceiling(b, t), &|x| format!("{:.3} ms", x * 1e3));
    text.push_str(&table.render("  "));
    if let (Some(g), Some(h)) = &graphs {
        listed(&mut text, "nodes", &lines(g), &lines(h), most);
    }
    listed(&mut text, "kernels", &kernels(s), &kernels(t), most);
    listed(&mut text, "buffers", &buffers(s), &buffers(t), most);
    if text.is_empty() && order(s) != order(t) {
        text.push_str("  the same kernels run in another order\n");
    }
    text
}

/// By name, each node's line without its name; and what leaves the graph. Constants stand where they are used: their
/// names are numbers.
pub(super) fn lines(graph: &Graph) -> BTreeMap<String, String> {
    let printer = Printer::default();
    let values: BTreeMap<String, String> = (graph.ids().into_iter())
        .filter_map(|id| match graph.op(id) {
            Op::Constant { value, .. } => Some((format!("%{}", graph.node(id).name), value.to_string())),
            _ => None,
        })
        .collect();
    let line = |id| {
        let text = printer.node(graph, id);
        let words = text.split_once(": ").map_or("", |(_, rest)| rest).split(' ');
        words.map(|word| values.get(word).map_or(word, String::as_str)).collect::<Vec<_>>().join(" ")
    };
    let named = graph.topological().into_iter().map(|id| (format!("%{}", graph.node(id).name), id));
    let nodes = named.filter(|(name, _)| !values.contains_key(name)).map(|(name, id)| (name, line(id)));
    let outputs = graph.outputs.iter().map(|o| (format!("output {}", o.name), format!("%{}", graph.node(o.node).name)));
    let updates =
        graph.updates.iter().map(|u| (format!("update {}", u.state), format!("%{}", graph.node(u.node).name)));
    nodes.chain(outputs).chain(updates).collect()
}

fn kernels(schedule: &Schedule) -> BTreeMap<String, String> {
    let about = |k: &crate::kernel::body::Kernel| {
        // Bodies are long; that they differ is said by a short digest of theirs.
        let body = kernel_text(k, &schedule.buffers);
        let digest =
            body.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        format!(
            "{}{}, {}, {} FLOPs, {} moved, body {:08x}",
            k.kind().name(),
            choice_text(k, &schedule.buffers).map_or(String::new(), |choice| format!(" by {choice}")),
            if value_count(k) == 1 { "1 value".to_string() } else { format!("{} values", value_count(k)) },
            count(flops(k)),
            bytes(bytes_moved(k, &schedule.buffers) as usize),
            digest as u32
        )
    };
    schedule.kernels.iter().map(|k| (k.name.clone(), about(k))).collect()
}

fn buffers(schedule: &Schedule) -> BTreeMap<String, String> {
    let about = |b: &crate::plan::Buffer| format!("{} at {}, live {}..{}", b.type_text(), b.offset, b.live.0, b.live.1);
    schedule.buffers.iter().map(|b| (b.name.clone(), about(b))).collect()
}

fn order(schedule: &Schedule) -> Vec<&str> {
    schedule.kernels.iter().map(|k| k.name.as_str()).collect()
}

/// Lists what is in one map only, and what is not the same in both.
fn listed(text: &mut String, what: &str, a: &BTreeMap<String, String>, b: &BTreeMap<String, String>, most: usize) {
    let all: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let mut changes = Vec::new();
    let (mut gone, mut new, mut changed) = (0, 0, 0);
    for name in all {
        match (a.get(name), b.get(name)) {
            (Some(x), Some(y)) if x == y => {}
            (Some(x), Some(y)) => {
                changed += 1;
                changes.push(format!("  - {name}: {x}\n  + {name}: {y}\n"));
            }
            (Some(x), None) => {
                gone += 1;
                changes.push(format!("  - {name}: {x}\n"));
            }
            (None, y) => {
                new += 1;
                changes.push(format!("  + {name}: {}\n", y.map_or("", String::as_str)));
            }
        }
    }
    if changes.is_empty() {
        return;
    }
    let _ = writeln!(text, "  {what}: {gone} gone, {new} new, {changed} changed");
    let hidden = changes.len().saturating_sub(most);
    text.extend(changes.into_iter().take(most));
    if hidden > 0 {
        let _ = writeln!(text, "    and {hidden} more: --all shows them");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::observe;

    fn program(units: usize, activation: &str) -> Observed {
        let text = format!(
            r#"Program(
                name: "small",
                networks: {{ "net": Network(input: [3], layers: [Dense({units}), {activation}()]) }},
                entries: {{ "train_step": Entry(
                    inputs: {{ "x": Tensor([2, 3]) }},
                    steps: [Let("loss", Mean(Call("net", "x", Training))), Minimise("loss", "net", Sgd(lr: 0.1))],
                    outputs: ["loss"],
                ) }},
            )"#
        );
        observe("small.ron", &text, &[], None).unwrap()
    }

    #[test]
    fn a_program_does_not_differ_from_itself() {
        assert_eq!(diff(&program(2, "Relu"), &program(2, "Relu"), 10), None);
    }

    #[test]
    fn another_activation() {
        insta::assert_snapshot!(diff(&program(2, "Relu"), &program(2, "Tanh"), 6).unwrap());
    }

    #[test]
    fn long_lists_are_cut() {
        let text = diff(&program(2, "Relu"), &program(5, "Relu"), 1).unwrap();
        assert!(text.contains("more: --all shows them") && text.contains("- net/0-dense/bias"), "{text}");
    }
}
