use super::*;
use crate::inspect::{observe, observe_with};
use crate::kernel::target::{Architecture, Target};
use insta::assert_json_snapshot;

const SMALL: &str = r#"Program(
    name: "small",
    sizes: { "batch": 2 },
    networks: { "net": Network(input: [3], layers: [Dense(2), Relu()]) },
    entries: {
        "train_step": Entry(
            inputs: { "x": Tensor(["batch", 3]) },
            steps: [
                Let("y", Call("net", "x", Training)),
                Let("loss", Mean(Mul("y", "y"))),
                Minimise("loss", "net", Sgd(lr: 0.1)),
            ],
            outputs: ["loss"],
        ),
    },
)"#;

fn data(text: &str) -> PageData {
    page_data(&observe("small.ron", text, &[], None).unwrap(), None).unwrap()
}

#[test]
fn data_of_a_small_program() {
    let data = data(SMALL);
    let entry = &data.entries[data.main];
    assert_eq!(entry.name, "train_step");
    let declared = &entry.stages[0];
    let nodes: Vec<_> = declared.nodes.iter().map(|&n| &entry.nodes[n]).collect();
    assert_json_snapshot!("declared", nodes);
    let sizes: Vec<_> = entry.stages.iter().map(|s| (&s.name, s.nodes.len())).collect();
    assert_json_snapshot!("stages", sizes);
    assert_json_snapshot!("kernels", entry.kernels);
    assert_json_snapshot!("buffers", entry.buffers);
}

/// Whatever the page looks up is there.
#[test]
fn data_is_whole() {
    for program in crate::declare::builtin::NAMES {
        let text = crate::declare::builtin::text(program).unwrap();
        let data = data(text);
        for entry in &data.entries {
            let name = |&n: &usize| &entry.names[n];
            for stage in &entry.stages {
                let here: Vec<&String> = stage.nodes.iter().map(|&n| name(&entry.nodes[n].name)).collect();
                let unique: std::collections::BTreeSet<&String> = here.iter().copied().collect();
                assert_eq!(here.len(), unique.len(), "{program} {}: names are unique", stage.name);
                for &node in &stage.nodes {
                    let node = &entry.nodes[node];
                    assert!(
                        node.operands.iter().all(|o| unique.contains(name(o))),
                        "{program} {}: {node:?}",
                        stage.name
                    );
                    assert!(node.line <= text.lines().count());
                }
            }
            // Every node of the last stage that does something is computed in some kernel.
            let last = entry.stages.last().unwrap();
            for &index in &last.nodes {
                let node = &entry.nodes[index];
                // A reshape moves nothing.
                let somewhere =
                    node.text.contains(" = reshape ") || entry.kernels.iter().any(|k| k.nodes.contains(&node.name));
                assert!(somewhere || node.role == data::RoleData::Leaf, "{program} {}: {}", entry.name, node.text);
            }
            assert_eq!(entry.live.iter().max(), Some(&entry.lower_bound), "{program} {}", entry.name);
            assert_lines_add_up(program, entry, text.lines().count());
        }
    }
}

#[test]
fn a_page_is_whole_and_deterministic() {
    let observed = observe("a<b>.ron", SMALL, &[], None).unwrap();
    let text = page(&observed, None).unwrap();
    assert_eq!(text, page(&observe("a<b>.ron", SMALL, &[], None).unwrap(), None).unwrap());
    assert!(text.starts_with("<!doctype html>") && text.ends_with("</html>\n"));
    assert!(["{{title}}", "{{style}}", "{{data}}", "{{scripts}}"].iter().all(|slot| !text.contains(slot)));
    // Nothing in the data ends its script element, and it is what was collected.
    let (_, rest) = text.split_once("<script id=\"data\" type=\"application/json\">").unwrap();
    let (json, _) = rest.split_once("</script>").unwrap();
    let back: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!(back["file"], "a<b>.ron");
    assert_eq!(back["entries"].as_array().unwrap().len(), 2);
    assert!(!json.contains('<'));
    // It loads nothing from elsewhere.
    for link in ["src=", "@import", "url(http", "fetch(", "XMLHttpRequest"] {
        let own = text.replace(SCRIPTS[0].1, "");
        assert!(!own.contains(link), "{link}");
    }
}

/// What lines are told to cost is what kernels take, and what is in use at the peak.
fn assert_lines_add_up(program: &str, entry: &EntryData, lines: usize) {
    for kernel in &entry.kernels {
        let is = |of: fn(&LineShare) -> f64, whole: f64| {
            let sum: f64 = kernel.lines.iter().map(of).sum();
            assert!((sum - whole).abs() <= 1e-9 * whole.max(1.0), "{program} {}: {:?}", kernel.name, kernel.lines);
        };
        is(|share| share.time, 1.0);
        is(|share| share.flops, kernel.flops as f64);
        is(|share| share.bytes, kernel.bytes as f64);
        assert!(kernel.lines.iter().all(|share| share.time >= 0.0 && share.line <= lines));
        let whose: std::collections::BTreeSet<_> = kernel.lines.iter().map(|s| (s.line, s.role, s.call)).collect();
        assert_eq!(whose.len(), kernel.lines.len(), "{program} {}: each once", kernel.name);
    }
    let peak: usize = entry.line_peak.iter().map(|at| at.bytes).sum();
    assert_eq!(peak, entry.lower_bound, "{program} {}", entry.name);
}

/// Two layers and their update, each on a line of its own: what each does is counted by hand.
#[test]
fn lines_have_what_their_layers_do() {
    const TWO: &str = r#"Program(
    name: "two",
    sizes: { "batch": 16 },
    networks: { "net": Network(input: [32], layers: [
        Dense(64),
        Dense(8),
    ]) },
    entries: {
        "train_step": Entry(
            inputs: { "x": Tensor(["batch", 32]) },
            steps: [
                Let("y", Call("net", "x", Training)),
                Let("loss", Mean(Mul("y", "y"))),
                Minimise("loss", "net", Sgd(lr: 0.1)),
            ],
            outputs: ["loss"],
        ),
    },
)"#;
    let data = data(TWO);
    let entry = &data.entries[data.main];
    let shares = |line: usize, role: &str| -> Vec<&LineShare> {
        entry.kernels.iter().flat_map(|k| &k.lines).filter(|s| s.line == line && s.role == role).collect()
    };
    let flops = |line, role| shares(line, role).iter().map(|s| s.flops).sum::<f64>();
    // Never less than what is counted here, and hardly more: flags and scalars are not counted.
    let is = |line, role, wanted: usize| {
        let (found, wanted) = (flops(line, role), wanted as f64);
        assert!((wanted..1.01 * wanted).contains(&found), "line {line}, {role}: {found} for {wanted}");
    };
    // A product of [16,32] and [32,64], and a bias that is added; then [16,64] and [64,8].
    is(5, "forward", 2 * 16 * 32 * 64 + 16 * 64);
    is(6, "forward", 2 * 16 * 64 * 8 + 16 * 8);
    // Backward: of weights in both, of the input in the second alone; a bias's gradient is a sum over the batch; and the
    // loss's own gradient, which the second layer's output gets.
    is(5, "gradient", 2 * 16 * 32 * 64 + 16 * 64);
    is(6, "gradient", 2 * 2 * 16 * 64 * 8 + 2 * 16 * 8);
    // The update of every parameter is of the line that asks for it: times the rate, and a difference; then its size,
    // and the largest of those, to see whether all are finite.
    is(14, "optimiser", 4 * (32 * 64 + 64 + 64 * 8 + 8));
    assert_eq!(flops(14, "forward") + flops(5, "optimiser"), 0.0);
    // At the peak the parameters are in use, in lines of the cache.
    let at = |line| entry.line_peak.iter().find(|at| at.line == line).map_or(0, |at| at.bytes);
    let least = 4 * (32 * 64 + 64);
    assert!(at(5) >= least, "{:?}", entry.line_peak);
}

fn unmeasured(observed: &Observed) -> Compared<'_> {
    Compared { observed, profile: None, profile_file: None }
}

fn compared(a: &str, b: &str, sets: &[&str]) -> PageData {
    let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
    let (a, b) = (observe("a.ron", a, &[], None).unwrap(), observe("b.ron", b, &sets, None).unwrap());
    let mut data = page_data(&a, None).unwrap();
    add_base(&mut data, &unmeasured(&a), &unmeasured(&b)).unwrap();
    data
}

#[test]
fn a_program_is_like_itself() {
    let data = compared(SMALL, SMALL, &[]);
    for entry in &data.entries {
        let base = entry.base.as_ref().unwrap();
        let sorted = |nodes: &[usize]| nodes.iter().copied().collect::<std::collections::BTreeSet<_>>();
        assert_eq!(sorted(&base.nodes), sorted(&entry.stages.last().unwrap().nodes), "{}", entry.name);
        assert_eq!(base.changes.len(), entry.kernels.len());
        assert!(base.changes.iter().all(|c| c.a.is_some() && c.a == c.b && c.seconds.is_some_and(|s| s.from == s.to)));
    }
    let against = data.against.unwrap();
    assert_eq!(against.a.with, against.b.with);
}

/// Kernels of both are there once, and lead from one sum to the other, whatever was matched.
#[test]
fn changes_lead_from_one_program_to_the_other() {
    let other = SMALL.replace("Relu()", "Tanh()").replace("Dense(2)", "Dense(2), BatchNorm()");
    for data in [compared(SMALL, &other, &[]), compared(&other, SMALL, &["batch=6"])] {
        let entry = &data.entries[data.main];
        let base = entry.base.as_ref().unwrap();
        let once = |side: &dyn Fn(&against::Change) -> Option<usize>, count: usize| {
            let mut all: Vec<usize> = base.changes.iter().filter_map(side).collect();
            all.sort_unstable();
            assert_eq!(all, (0..count).collect::<Vec<_>>());
        };
        once(&|c| c.a, entry.kernels.len());
        once(&|c| c.b, base.kernels.len());
        let differences: Vec<f64> = base.changes.iter().filter_map(|c| c.seconds).map(|s| s.to - s.from).collect();
        let moved: f64 = differences.iter().sum();
        let sums = base.sums.as_ref().unwrap();
        assert!((sums.seconds.from + moved - sums.seconds.to).abs() < 1e-12 && moved != 0.0 && !sums.measured);
        let sizes: Vec<f64> = differences.iter().map(|difference| difference.abs()).collect();
        assert!(sizes.is_sorted_by(|a, b| a >= b), "{sizes:?}");
        // Its graph is whole: every operand is there, each name once.
        let names: std::collections::BTreeSet<usize> = base.nodes.iter().map(|&n| entry.nodes[n].name).collect();
        assert_eq!(names.len(), base.nodes.len());
        assert!(base.nodes.iter().all(|&n| entry.nodes[n].operands.iter().all(|o| names.contains(o))));
    }
}

/// One machine's ceilings say nothing of another's kernels: only what does not depend on it is compared.
#[test]
fn times_of_two_targets_are_not_compared() {
    let target = Target::Cuda(Architecture(90));
    let options = crate::compile::Options { target, ..Default::default() };
    let a = observe_with("a.ron", SMALL, &options, None).unwrap();
    let b = observe("a.ron", SMALL, &[], None).unwrap();
    let mut data = page_data(&a, None).unwrap();
    add_base(&mut data, &unmeasured(&a), &unmeasured(&b)).unwrap();
    for entry in &data.entries {
        let base = entry.base.as_ref().unwrap();
        assert!(base.sums.is_none() && base.changes.iter().all(|change| change.seconds.is_none()));
        assert_eq!(base.changes.iter().filter(|change| change.a.is_some()).count(), entry.kernels.len());
        let json = serde_json::to_value(base).unwrap();
        assert!(json.get("sums").is_none() && json["changes"][0].get("from").is_none(), "{json}");
    }
    // For one target they are.
    add_base(&mut data, &unmeasured(&a), &unmeasured(&a)).unwrap();
    assert!(data.entries.iter().all(|entry| entry.base.as_ref().unwrap().sums.is_some()));
}

#[test]
fn programs_without_a_common_entry_are_not_compared() {
    let other = SMALL.replace("train_step", "another");
    let (a, b) = (observe("a", SMALL, &[], None).unwrap(), observe("b", &other, &[], None).unwrap());
    let mut data = page_data(&a, None).unwrap();
    let error = add_base(&mut data, &unmeasured(&a), &unmeasured(&b)).unwrap_err().to_string();
    assert!(error.contains("`train_step`") && error.contains("`another`"), "{error}");
}

#[test]
fn changes_have_their_rules_and_passes_their_checks() {
    let options = crate::compile::Options { validate: Some(0), ..Default::default() };
    let observed = observe_with("small.ron", SMALL, &options, None).unwrap();
    let data = page_data(&observed, None).unwrap();
    let entry = &data.entries[data.main];
    assert!(!entry.rules.is_empty());
    let mut ruled = 0;
    for pair in entry.stages.windows(2) {
        let of = |stage: &data::StageData| -> std::collections::BTreeMap<usize, usize> {
            stage.nodes.iter().map(|&n| (entry.nodes[n].name, n)).collect()
        };
        let (before, after) = (of(&pair[0]), of(&pair[1]));
        for (name, rules) in &pair[1].by {
            ruled += 1;
            assert!(!rules.is_empty() && rules.iter().all(|&r| r < entry.rules.len()));
            assert_ne!(before.get(name), after.get(name), "{}: {} is as it was", pair[1].name, entry.names[*name]);
        }
        let is_checked = pair[1].check.is_some();
        assert_eq!(is_checked, pair[1].name != crate::compile::DIFFERENTIATE, "{}", pair[1].name);
        if let Some(check) = pair[1].check {
            assert!(check.worst_relative_error < 1e-9 && (check.values > 0) == (pair[0].nodes != pair[1].nodes));
        }
    }
    assert!(ruled > 0);
    assert!(
        page_data(&observe("small.ron", SMALL, &[], None).unwrap(), None).unwrap().entries[data.main]
            .stages
            .iter()
            .all(|stage| stage.check.is_none())
    );
}
