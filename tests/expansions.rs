//! Every operation and layer of the graph language: its example is differentiated, and the gradient compared with central
//! differences of the reference interpreter in f64.

use gcc_gan::declare::load;
use gcc_gan::declare::vocabulary::vocabulary;
use gcc_gan::ir::Value;
use gcc_gan::replay::{Replay, Tensors};

/// What examples take, and some values: distinct, so that no two are the largest, none near 0, none on a jump or a kink.
fn given() -> Tensors {
    let number = |at: f64| (at * 0.754_877_666).fract() * 1.7 - 0.85;
    let away = |x: f64| x + 0.2f64.copysign(x);
    let numbers =
        |count: usize, start: f64| -> Vec<f64> { (0..count).map(|i| away(number(i as f64 + start))).collect() };
    [
        ("x", Value::real([4, 6], numbers(24, 0.4))),
        ("y", Value::real([4, 6], numbers(24, 40.7))),
        ("images", Value::real([4, 1, 8, 8], numbers(256, 7.3))),
        ("labels", Value::u32([4], vec![2, 0, 3, 1])),
    ]
    .map(|(name, value)| (name.to_string(), value))
    .into()
}

/// A program that gives a number that depends on the example, and its gradients in what the example takes.
fn program(example: &str, of: &[&str]) -> String {
    let gradients: Vec<String> = of.iter().map(|x| format!("Let(\"by_{x}\", Gradient(\"loss\", \"{x}\"))")).collect();
    let names: Vec<String> = of.iter().map(|x| format!("\"by_{x}\"")).collect();
    format!(
        r#"Program(
    name: "examples",
    entries: {{
        "step": Entry(
            inputs: {{
                "x": Tensor([4, 6]), "y": Tensor([4, 6]), "images": Tensor([4, 1, 8, 8]), "labels": Labels([4])
            }},
            steps: [
                Let("result", {example}), Let("loss", Sum(Sin(Add("result", 0.3)))), {}
            ],
            outputs: ["loss", {}],
        ),
    }},
)"#,
        gradients.join(", "),
        names.join(", ")
    )
}

fn run(text: &str, given: &Tensors) -> Tensors {
    let module = load("example.ron", text, &[], &[]).unwrap_or_else(|error| panic!("{text}\n{error:?}"));
    let needed = gcc_gan::replay::names(&module, Some("step"));
    let given = given.iter().filter(|(name, _)| needed.iter().any(|n| n.name == **name));
    let given = given.map(|(name, value)| (name.clone(), value.clone())).collect();
    Replay::new(&module, "step", given, 1, 0).unwrap().run_reference().unwrap()
}

/// Compares the gradients of an example with differences; gives how many elements were not 0, or where they differ.
fn check(example: &str) -> Result<usize, String> {
    // These depend on shapes alone.
    let is_constant = ["EyeLike", "Shape", "Size"].iter().any(|word| example.starts_with(word));
    let taken = |x: &&str| !is_constant && example.contains(&format!("\"{x}\""));
    let of: Vec<&str> = ["x", "y", "images"].into_iter().filter(taken).collect();
    let text = program(example, &of);
    let (step, mut moved) = (1e-6, 0);
    let given = given();
    let found = run(&text, &given);
    for name in of {
        let gradient = found[&format!("by_{name}")].to_f64();
        let values = given[name].to_f64();
        // Some elements of images stand for all, with some of those that count.
        let counted = (0..values.len()).filter(|&at| gradient[at] != 0.0).take(8);
        let some = (0..values.len()).step_by(if values.len() > 24 { 37 } else { 1 });
        for at in some.chain(counted) {
            let loss = |by: f64| {
                let (mut changed, mut moved) = (given.clone(), values.clone());
                moved[at] += by;
                changed.insert(name.to_string(), Value::real(given[name].shape.clone(), moved));
                run(&text, &changed)["loss"].to_f64()[0]
            };
            let difference = (loss(step) - loss(-step)) / (2.0 * step);
            let near = (difference - gradient[at]).abs() <= 1e-5 * (1.0 + difference.abs());
            // Roots and logarithms of what is negative, among others, are not numbers.
            if !(near || difference.is_nan()) {
                return Err(format!("{example}: by {name}[{at}] {} instead of {difference}", gradient[at]));
            }
            moved += usize::from(gradient[at] != 0.0);
        }
    }
    Ok(moved)
}

/// Words whose result does not change a little when what they take does.
const FLAT: &[&str] = &[
    "Abs",
    "And",
    "ArgMax",
    "ArgMin",
    "ConstantOfShape",
    "Eq",
    "Eye",
    "EyeLike",
    "Ge",
    "Gt",
    "Hardmax",
    "Iota",
    "IsInf",
    "IsNaN",
    "Le",
    "Lt",
    "Not",
    "OneHot",
    "Or",
    "Range",
    "Shape",
    "Sign",
    "Size",
    "Xor",
    "Floor",
    "Ceil",
    "Round",
    "Detach",
    "RoundBf16",
    "RoundTf32",
    "ToReal",
    "AddU32",
    "Acosh",
    "ReduceLogSum",
    "ReduceProd",
];

#[test]
fn the_gradient_of_every_operation_agrees_with_differences() {
    let (mut checked, mut wrong) = (0, Vec::new());
    for group in vocabulary() {
        if ["layers", "draws", "gradients", "optimisers", "steps", "inputs"].contains(&group.title) {
            continue;
        }
        for word in &group.words {
            // Networks have layers, which are checked by what they expand to; rounding and labels have no derivative; draws are
            // others in each run of a program, and a bf16 cannot be compared.
            if ["Call", "Convert", "RoundBf16", "RoundTf32", "AddU32", "ToReal"].contains(&word.name.as_str()) {
                continue;
            }
            checked += 1;
            match check(&word.example) {
                Ok(0) if !FLAT.contains(&word.name.as_str()) => wrong.push(format!("{} has no gradient", word.example)),
                Ok(_) => {}
                Err(problem) => wrong.push(problem),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked > 100, "{checked}");
}
