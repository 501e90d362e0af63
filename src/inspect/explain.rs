//! Why a node is where it is.

use super::node_cost::{node_bytes, node_flops};
use super::{History, Observed, bytes, choice_text, count, hand_overs, placement, strategy_of, value_count};
use crate::ir::text::Printer;
use crate::ir::{Graph, NodeId, Role};
use crate::kernel::schedule::{BufferRole, Schedule};
use crate::schedule::fuse::why_not_fused;
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// A node that is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    #[error("there is no entry `{0}`")]
    NoEntry(String),
    #[error("no stage of `{entry}` has a node `{name}`{}", near(.similar))]
    NoNode { entry: String, name: String, similar: Vec<String> },
    #[error("`{0}` is removed by a pass; only remaining nodes are fused")]
    Removed(String),
}

fn near(similar: &[String]) -> String {
    match similar {
        [] => "; `gcc-gan compile PROGRAM --emit text` lists all names".into(),
        names => format!("; did you mean one of\n  {}", names.join("\n  ")),
    }
}

/// Tells of one node: its declaration, the passes that touched it, its kernel and its buffer.
///
/// # Errors
/// When there is no such entry or node.
pub fn explain(observed: &Observed, entry: &str, name: &str) -> Result<String, ExplainError> {
    let (history, schedule) = entry_of(observed, entry)?;
    let name = &resolve(history, name)?;
    let (stage, graph, id) = newest(history, name);
    let node = graph.node(id);
    let mut text = format!("{}\n", Printer::default().node(graph, id));
    if stage + 1 < history.stages.len() {
        let _ = writeln!(text, "  as it was after `{}`; it is removed later", stage_name(history, stage));
    }
    text.push('\n');
    let role = match &node.origin.role {
        Role::Forward => "forward".to_string(),
        Role::Gradient(loss) => format!("gradient of {loss}"),
        Role::Optimiser(network) => format!("update of {network}"),
    };
    let scope = if node.origin.scope.is_empty() { String::new() } else { format!(", in {}", node.origin.scope) };
    let _ = writeln!(text, "role      {role}{scope}");
    match node.origin.span {
        Some(span) => {
            let line = observed.line_of(span.start);
            let source = observed.text.lines().nth(line - 1).unwrap_or_default().trim();
            let _ = writeln!(text, "declared  {}:{line}\n          {line} | {source}", observed.file);
        }
        None => text.push_str("declared  on no line of its own: it is part of the program's state or inputs\n"),
    }
    let (flops, moved) = (node_flops(graph, id), node_bytes(graph, id));
    let _ = writeln!(text, "cost      {} FLOPs, {} in and out", count(flops), bytes(moved as usize));
    text.push_str("\npasses\n");
    text.push_str(&passes(history, name));
    if stage + 1 == history.stages.len() {
        text.push_str("\nplace\n");
        text.push_str(&place(graph, schedule, name));
    }
    Ok(text)
}

/// Tells of two nodes whether one kernel computes both, and why not.
///
/// # Errors
/// When there is no such entry or node, or a node is not left after all passes.
pub fn explain_pair(observed: &Observed, entry: &str, a: &str, b: &str) -> Result<String, ExplainError> {
    let (history, schedule) = entry_of(observed, entry)?;
    let graph = history.last();
    let placed = placement(graph, schedule);
    let found = |name: &str| -> Result<(String, NodeId), ExplainError> {
        let name = resolve(history, name)?;
        let id = graph.find(&name).ok_or_else(|| ExplainError::Removed(name.clone()))?;
        Ok((name, id))
    };
    let ((a, a_id), (b, b_id)) = (found(a)?, found(b)?);
    let kernels = |name: &str| placed.kernels.get(name).cloned().unwrap_or_default();
    let (of_a, of_b) = (kernels(&a), kernels(&b));
    let title = |k: &usize| format!("[{k}] {}", schedule.kernels[*k].name);
    let both: Vec<String> = of_a.intersection(&of_b).map(title).collect();
    if !both.is_empty() {
        return Ok(format!("%{a} and %{b} are computed in one kernel: {}\n", both.join(", ")));
    }
    let mut text = String::new();
    for (name, kernels) in [(&a, &of_a), (&b, &of_b)] {
        let titles: Vec<String> = kernels.iter().map(title).collect();
        let place = if titles.is_empty() {
            "is not computed: it is an input or state".into()
        } else {
            format!("is in {}", titles.join(", "))
        };
        let _ = writeln!(text, "%{name} {place}");
    }
    // What is computed where it is used is as far from others as what uses it.
    let stored = |name: &str, id: NodeId, kernels: &BTreeSet<usize>| -> Option<NodeId> {
        let kernel = &schedule.kernels[*kernels.first()?];
        if kernel.nodes.iter().any(|node| node == name) { Some(id) } else { graph.find(kernel.nodes.first()?) }
    };
    let ends = (stored(&a, a_id, &of_a), stored(&b, b_id, &of_b));
    let reason = match ends {
        (Some(x), Some(y)) => {
            let plan = &observed.plan;
            why_not_fused(graph, &plan.state_layout, &strategy_of(plan), &[(x, y)]).pop().flatten()
        }
        _ => None,
    };
    let reason = reason.map_or("one of them is not computed by any kernel".to_string(), |reason| reason.to_string());
    let _ = writeln!(text, "not fused: {reason}");
    Ok(text)
}

pub(super) fn entry_of<'o>(observed: &'o Observed, entry: &str) -> Result<(&'o History, &'o Schedule), ExplainError> {
    let missing = || ExplainError::NoEntry(entry.into());
    let history = observed.history(entry).ok_or_else(missing)?;
    Ok((history, &observed.plan.entry(entry).ok_or_else(missing)?.schedule))
}

/// The one node that is meant: by its name, or by a part of it that no other has.
fn resolve(history: &History, name: &str) -> Result<String, ExplainError> {
    let name = name.trim_start_matches('%');
    let mut all: BTreeSet<&str> = BTreeSet::new();
    for (_, graph) in &history.stages {
        all.extend(graph.ids().into_iter().map(|id| graph.node(id).name.as_str()));
    }
    if all.contains(name) {
        return Ok(name.to_string());
    }
    // State that is written and not read has no node of its own.
    let last = history.last();
    if let Some(update) = last.updates.iter().find(|update| update.state == name) {
        return Ok(last.node(update.node).name.clone());
    }
    let like: Vec<&str> = all.iter().copied().filter(|known| known.contains(name)).collect();
    if let [only] = like[..] {
        return Ok(only.to_string());
    }
    const MOST: usize = 8;
    let mut similar: Vec<String> = like.into_iter().map(String::from).collect();
    if similar.is_empty() {
        // Names that end alike, as users think of the last part.
        let last = name.rsplit('/').next().unwrap_or(name);
        similar = all.into_iter().filter(|known| known.rsplit('/').next() == Some(last)).map(String::from).collect();
    }
    similar.sort_by_key(String::len);
    similar.truncate(MOST);
    Err(ExplainError::NoNode { entry: history.entry.clone(), name: name.into(), similar })
}

/// The last stage that has the node.
fn newest<'h>(history: &'h History, name: &str) -> (usize, &'h Graph, NodeId) {
    let stages = history.stages.iter().enumerate().rev();
    let mut found = stages.filter_map(|(i, (_, graph))| Some((i, graph, graph.find(name)?)));
    found.next().expect("a resolved name is at some stage")
}

fn stage_name(history: &History, stage: usize) -> &str {
    &history.stages[stage].0
}

/// What each stage did to a node: it came, it changed, it went and what took its place.
fn passes(history: &History, name: &str) -> String {
    let mut text = String::new();
    let mut before: Option<(&Graph, NodeId, String)> = None;
    for (at, (stage, graph)) in history.stages.iter().enumerate() {
        let lines = text.len();
        let now = graph.find(name).map(|id| (graph, id, Printer::default().node(graph, id)));
        match (&before, &now) {
            (None, Some((_, _, line))) => {
                let verb = if stage == "declared" { "at the start" } else { "adds it" };
                let _ = writeln!(text, "  {stage:20} {verb}: {}", body(line));
            }
            (Some((_, _, old)), Some((_, _, new))) if old != new => {
                let _ = writeln!(text, "  {stage:20} changes it: {}\n  {:20}      to: {}", body(old), "", body(new));
            }
            (Some((old, id, _)), None) => {
                let instead = replacements(old, *id, graph);
                let what = if instead.is_empty() {
                    "its users are gone too".into()
                } else {
                    format!("its users now use {}", instead.join(", "))
                };
                let _ = writeln!(text, "  {stage:20} removes it; {what}");
            }
            _ => {}
        }
        if text.len() > lines {
            for by in history.rules(at).get(name).into_iter().flatten() {
                let _ = writeln!(text, "  {:20} by the rule {}: {}", "", by.rule.name, by.rewrite);
            }
        }
        before = now;
    }
    text
}

fn body(line: &str) -> &str {
    line.split_once(": ").map_or(line, |(_, body)| body)
}

/// What the users of a node that is gone use in its place.
fn replacements(old: &Graph, id: NodeId, new: &Graph) -> Vec<String> {
    let mut found = BTreeSet::new();
    for user in old.users(id) {
        let Some(same) = new.find(&old.node(user).name) else { continue };
        let (was, is) = (old.operands(user), new.operands(same));
        for (position, operand) in was.iter().enumerate().filter(|(_, operand)| **operand == id) {
            debug_assert_eq!(*operand, id);
            if was.len() == is.len() {
                found.insert(format!("%{}", new.node(is[position]).name));
            }
        }
    }
    found.into_iter().collect()
}

fn place(graph: &Graph, schedule: &Schedule, name: &str) -> String {
    let placed = placement(graph, schedule);
    let mut text = String::new();
    let kernels = placed.kernels.get(name).cloned().unwrap_or_default();
    for &k in &kernels {
        let kernel = &schedule.kernels[k];
        let own = kernel.nodes.iter().any(|node| node == name);
        let how = if own { "is computed in" } else { "is computed where it is used, in" };
        let values = value_count(kernel);
        let plural = if values == 1 { "" } else { "s" };
        let _ =
            writeln!(text, "  {how} kernel [{k}] {} ({}, {values} value{plural})", kernel.name, kernel.kind().name());
        if let Some(choice) = choice_text(kernel, &schedule.buffers) {
            let _ = writeln!(text, "    by {choice}");
        }
    }
    if kernels.is_empty() {
        text.push_str("  is computed by no kernel: it is an input, state, or a view of one\n");
    }
    match placed.buffers.get(name).map(|&b| (b, &schedule.buffers[b])) {
        Some((index, buffer)) => {
            let live = match &buffer.role {
                BufferRole::State(state) => format!("the state `{state}`, from run to run"),
                _ => format!("live from kernel {} to {}", buffer.live.0, buffer.live.1.saturating_sub(1)),
            };
            let _ =
                writeln!(text, "  is held at offset {} of the arena, {}: {live}", buffer.offset, bytes(buffer.bytes()));
            for pair in hand_overs(schedule) {
                let (of, k) = (|b: usize| &schedule.buffers[b].name, pair.kernel);
                if pair.new.index() == index {
                    let _ = writeln!(text, "  is written in place by kernel [{k}], over {}", of(pair.old.index()));
                }
                if pair.old.index() == index {
                    let _ = writeln!(text, "  is overwritten in place by kernel [{k}], with {}", of(pair.new.index()));
                }
            }
        }
        None => text.push_str("  is never in memory: it lives in its kernel's tiles\n"),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::Options;
    use crate::declare::builtin;
    use crate::inspect::{observe, observe_with};
    use crate::kernel::target::{Architecture, Precision, Target};

    fn dcgan() -> Observed {
        observe("graphs/dcgan.ron", builtin::text("dcgan").unwrap(), &[], None).unwrap()
    }

    #[test]
    fn nodes_of_the_dcgan() {
        let dcgan = dcgan();
        let told = |name| explain(&dcgan, "train_step", name).unwrap();
        insta::assert_snapshot!("kept", told("%fake_d/generator/1-batch_norm/centred"));
        insta::assert_snapshot!("removed", told("fake_g/generator/1-batch_norm/offset"));
        insta::assert_snapshot!("stored", told("score_real/discriminator/0-conv/conv"));
    }

    /// A copy that an entry writes and does not read.
    #[test]
    fn state_that_is_only_written_is_what_is_written() {
        let options =
            Options { target: Target::Cuda(Architecture(90)), precision: Precision::Tf32, ..Options::default() };
        let text = builtin::text("dcgan").unwrap();
        let dcgan = observe_with("graphs/dcgan.ron", text, &options, None).unwrap();
        let told = explain(&dcgan, "init", "generator/7-conv_transpose/weight.tf32").unwrap();
        assert!(told.starts_with("%generator/7-conv_transpose/weight_tf32: f32[128,64,4,4]"), "{told}");
    }

    #[test]
    fn pairs_of_the_dcgan() {
        let dcgan = dcgan();
        let pair = |a, b| explain_pair(&dcgan, "train_step", a, b).unwrap();
        let text = [
            pair("score_real/discriminator/0-conv/conv", "score_real/discriminator/0-conv/add_bias"),
            pair("score_real/discriminator/0-conv/conv", "score_real/discriminator/3-conv/conv"),
            pair("fake_d/generator/0-dense/matmul", "fake_d/generator/1-batch_norm/sum"),
            pair("noise_d", "noise_g"),
        ];
        insta::assert_snapshot!("pairs", text.join("\n"));
    }

    #[test]
    fn what_is_not_there_is_said_with_what_is() {
        let dcgan = dcgan();
        let error = explain(&dcgan, "train_step", "generator/1-batch_norm/centred").unwrap_err();
        assert!(error.to_string().contains("fake_d/generator/1-batch_norm/centred"), "{error}");
        assert_eq!(explain(&dcgan, "nothing", "x"), Err(ExplainError::NoEntry("nothing".into())));
    }
}
