//! The words of the graph language as they are documented: every example is a program, and the README lists them all.

use gcc_gan::declare::load;
use gcc_gan::declare::vocabulary::{readme_table, vocabulary};

/// A program with the example of a word in its place.
fn program(group: &str, example: &str) -> String {
    let mut layer = "Flatten()".to_string();
    let mut steps = String::new();
    let mut optimiser = "Sgd(0.1)".to_string();
    let mut inputs = String::new();
    match group {
        // Dense layers take rows, the others images too.
        "layers" if example.starts_with("Dense") => layer = format!("Flatten(), {example}"),
        "layers" => layer = example.to_string(),
        "optimisers" => optimiser = example.to_string(),
        "steps" => steps = format!("{example},"),
        "inputs" => inputs = format!(", {}", example.replacen('"', "\"other_", 1)),
        _ => steps = format!("Let(\"result\", {example}),"),
    }
    format!(
        r#"Program(
    name: "examples",
    sizes: {{ "batch": 4, "samples": 3 }},
    networks: {{ "net": Network(input: [1, 8, 8], layers: [Conv(1, 1), {layer}]) }},
    entries: {{
        "step": Entry(
            inputs: {{
                "images": Images(["batch", 1, 8, 8]), "labels": Labels(["batch"]),
                "x": Tensor([4, 6]), "y": Tensor([4, 6]){inputs}
            }},
            steps: [{steps} Let("loss", Mean(Call("net", "images", Training))), Minimise("loss", "net", {optimiser})],
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
