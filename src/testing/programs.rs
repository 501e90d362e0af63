//! Texts of large programs: deep, wide, and with many layers.

use std::fmt::Write as _;

/// A chain of `length` elementwise operations on eight numbers; the output is its end, or what the sum of that end
/// gives as the gradient.
pub fn chain(length: usize, gradient: bool) -> String {
    let mut steps = String::from("Let(\"v0\", Mul(\"x\", 0.5)),\n");
    for i in 1..length {
        let before = i - 1;
        let _ = match i % 4 {
            0 => writeln!(steps, "Let(\"v{i}\", Sin(\"v{before}\")),"),
            1 => writeln!(steps, "Let(\"v{i}\", Add(\"v{before}\", \"x\")),"),
            2 => writeln!(steps, "Let(\"v{i}\", Mul(\"v{before}\", 0.5)),"),
            _ => writeln!(steps, "Let(\"v{i}\", Tanh(\"v{before}\")),"),
        };
    }
    let end = length - 1;
    if gradient {
        let _ = writeln!(steps, "Let(\"sum\", Sum(\"v{end}\")), Let(\"g\", Gradient(\"sum\", \"x\")),");
    }
    let output = if gradient { "g".to_string() } else { format!("v{end}") };
    program("", "[8]", &steps, &format!("\"{output}\""))
}

/// `count` outputs that all read the same value.
pub fn outputs(count: usize) -> String {
    let steps: String = (0..count).map(|i| format!("Let(\"o{i}\", Mul(Sin(\"x\"), {i}.5)),\n")).collect();
    let outputs: Vec<String> = (0..count).map(|i| format!("\"o{i}\"")).collect();
    program("", "[8]", &steps, &outputs.join(", "))
}

/// `count` branches of four operations from one value, summed up one after the other.
pub fn branches(count: usize) -> String {
    let mut steps = String::from("Let(\"s0\", Mul(\"x\", 0.5)),\n");
    for i in 1..=count {
        let before = i - 1;
        let _ =
            writeln!(steps, "Let(\"a{i}\", Tanh(Mul(\"x\", {i}.25))), Let(\"b{i}\", Add(Sin(\"a{i}\"), \"a{i}\")),");
        let _ = writeln!(steps, "Let(\"s{i}\", Add(\"s{before}\", \"b{i}\")),");
    }
    program("", "[8]", &steps, &format!("\"s{count}\""))
}

/// `count` values in one.
pub fn concat(count: usize) -> String {
    let mut steps: String = (0..count).map(|i| format!("Let(\"a{i}\", Mul(\"x\", {i}.5)),\n")).collect();
    let parts: Vec<String> = (0..count).map(|i| format!("\"a{i}\"")).collect();
    let _ = writeln!(steps, "Let(\"c\", Concat([{}], 0)),", parts.join(", "));
    program("", "[8]", &steps, "\"c\"")
}

/// A value that is shifted by one place `count` times, which no one view expresses.
pub fn shifts(count: usize) -> String {
    let mut steps = String::from("Let(\"v0\", Mul(\"x\", 0.5)),\n");
    for i in 1..=count {
        let before = i - 1;
        let _ = writeln!(steps, "Let(\"v{i}\", Concat([Slice(\"v{before}\", [1], [8]), Slice(\"x\", [0], [1])], 0)),");
    }
    program("", "[8]", &steps, &format!("\"v{count}\""))
}

/// A training step, by Adam, of a network in which a layer is repeated `count` times: `"Dense(8), Relu()"`, say. It takes
/// four rows of eight numbers.
pub fn network(layer: &str, count: usize) -> String {
    let networks =
        format!("networks: {{ \"net\": Network(input: [8], layers: [{}]) }},", vec![layer; count].join(", "));
    let steps = "Let(\"y\", Call(\"net\", \"x\", Training)), Let(\"loss\", Mean(Mul(\"y\", \"y\"))),\n\
                 Minimise(\"loss\", \"net\", Adam(lr: 0.001)),";
    program(&networks, "[4, 8]", steps, "\"loss\"")
}

fn program(networks: &str, shape: &str, steps: &str, outputs: &str) -> String {
    format!(
        "Program(name: \"large\", {networks} entries: {{ \"run\": Entry(\n\
         inputs: {{ \"x\": Tensor({shape}) }},\nsteps: [\n{steps}],\noutputs: [{outputs}]) }})"
    )
}
