use super::*;
use crate::inspect::observe;
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
