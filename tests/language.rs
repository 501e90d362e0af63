//! The words of the graph language as they are documented: every example is a program, and the README lists them all.

use gcc_gan::declare::load;
use gcc_gan::declare::vocabulary::{readme_table, vocabulary};

/// A program with the example of a word in its place.
fn program(group: &str, example: &str) -> String {
    let mut layer = "Flatten()".to_string();
    let mut steps = String::new();
    let mut optimiser = "Sgd(0.1)".to_string();
    let mut last = String::new();
    let mut start = String::new();
    let mut inputs = String::new();
    match group {
        // Dense layers take rows, the others images too.
        "layers" if example.starts_with("Dense") => layer = format!("Flatten(), {example}"),
        "layers" => layer = example.to_string(),
        "optimisers" => optimiser = example.to_string(),
        // Some steps need parameters that are there already.
        "steps" => last = format!(", {example}"),
        "weights" => start = format!(", init: {example}"),
        "inputs" => inputs = format!(", {}", example.replacen('"', "\"other_", 1)),
        _ => steps = format!("Let(\"result\", {example}),"),
    }
    format!(
        r#"Program(
    name: "examples",
    sizes: {{ "batch": 4, "samples": 3 }},
    networks: {{ "net": Network(input: [1, 8, 8], layers: [Conv(1, 1), {layer}]{start}) }},
    entries: {{
        "step": Entry(
            inputs: {{
                "images": Images(["batch", 1, 8, 8]), "labels": Labels(["batch"]),
                "x": Tensor([4, 6]), "y": Tensor([4, 6]){inputs}
            }},
            steps: [{steps} Let("loss", Mean(Call("net", "images", Training))), Minimise("loss", "net", {optimiser}){last}],
            outputs: ["loss"],
        ),
    }},
)"#
    )
}

#[test]
fn every_example_is_a_program() {
    for group in vocabulary() {
        for word in &group.words {
            let text = program(group.title, &word.example);
            if let Err(error) = load("example.ron", &text, &[], &[]) {
                panic!("{}: {error:?}", word.example);
            }
            assert!(word.example.contains(&word.name), "{} is not an example of {}", word.example, word.name);
            assert!(!word.meaning.is_empty() && !word.meaning.contains('\n'), "{}: one line", word.name);
        }
    }
}

/// After a change of the tables: `UPDATE_README=1 cargo test --test language`.
#[test]
fn the_readme_lists_every_word() {
    const START: &str =
        "<!-- Made by `UPDATE_README=1 cargo test --test language` from the tables in src/declare. -->\n";
    const END: &str = "<!-- End of the table. -->\n";
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = std::fs::read_to_string(file).unwrap();
    let start = readme.find(START).expect("the start of the table is marked") + START.len();
    let end = start + readme[start..].find(END).expect("the end of the table is marked");
    let table = readme_table();
    if std::env::var_os("UPDATE_README").is_some() {
        std::fs::write(file, [&readme[..start], &table, &readme[end..]].concat()).unwrap();
        return;
    }
    assert_eq!(readme[start..end], table, "the README's table is old: UPDATE_README=1 cargo test --test language");
}

fn ops(args: &[&str]) -> (Option<i32>, String, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_gcc-gan")).arg("ops").args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn ops_prints_every_word_one_in_full_and_what_a_wrong_one_could_be() {
    let (code, all, _) = ops(&[]);
    assert_eq!(code, Some(0));
    for group in vocabulary() {
        assert!(all.contains(&format!("{}, ", group.title)), "{all}");
        assert!(group.words.iter().all(|w| all.contains(&w.signature) && all.contains(&w.meaning)), "{all}");
    }
    insta::assert_snapshot!(ops(&["ConvTranspose"]).1);
    let (code, _, told) = ops(&["Rleu"]);
    assert_eq!((code, told.contains("did you mean `Relu`?")), (Some(1), true), "{told}");
    let images = ops(&["Images"]).1;
    assert!(images.contains("words of the kind's own where left out"), "{images}");
    let json: serde_json::Value = serde_json::from_str(&ops(&["Adam", "--json"]).1).unwrap();
    assert_eq!(json[0]["words"][0]["arguments"][1]["default"], "0.9");
}

/// Names of ONNX, PyTorch and NumPy lead to a word that there is.
#[test]
fn names_of_other_tools_are_understood() {
    for (theirs, ours) in
        [("ReduceSum", "Sum"), ("Where", "Select"), ("Greater", "Gt"), ("PixelShuffle", "DepthToSpace")]
    {
        let (code, _, told) = ops(&[theirs]);
        assert_eq!((code, told.contains(&format!("did you mean `{ours}`"))), (Some(1), true), "{told}");
    }
}
