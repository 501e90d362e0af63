//! Programs that are wrong: what their authors are told, one kind of error each.

use gcc_gan::compile::{CompileError, Options, compile};
use gcc_gan::declare::{load, load_call, load_with_warnings};
use gcc_gan::ir::Type;
use insta::assert_snapshot;
use proptest::prelude::*;

/// A small program without a mistake, for mistakes to be made in.
const SOUND: &str = r#"Program(
    name: "tiny",
    sizes: { "batch": 4, "classes": 3 },
    values: { "rate": 0.1 },
    networks: {
        "net": Network(
            input: [1, 8, 8],
            layers: [
                Conv(channels: 2, kernel: 3, pad: 1), BatchNorm(), Relu(),
                Flatten(),
                Dense("classes"),
            ],
        ),
    },
    functions: {
        "Loss": Function(params: ["x", "y"], body: Mean(Mul("x", OneHot("y", "classes")))),
    },
    entries: {
        "step": Entry(
            inputs: { "images": Images(["batch", 1, 8, 8]), "labels": Labels(["batch"]) },
            steps: [
                Let("score", Call("net", "images", Training)),
                Let("loss", Loss("score", "labels")),
                Minimise("loss", "net", Adam(lr: "rate")),
            ],
            outputs: ["loss"],
        ),
    },
)
"#;

/// Each mistake: its name, what stands in the sound program, and what stands there instead.
const MISTAKES: &[(&str, &str, &str)] = &[
    ("syntax_missing_bracket", "Flatten(),", "Flatten(,"),
    ("syntax_missing_comma", "Flatten(),", "Flatten()"),
    ("syntax_unclosed_string", "\"score\", Call", "\"score, Call"),
    ("not_a_program", "Program(", "Programme("),
    ("missing_field", "    name: \"tiny\",\n", ""),
    ("unknown_field", "pad: 1", "padding: 1"),
    ("unknown_op", "Mean(Mul", "Mean(Mull"),
    ("unknown_op_that_is_a_layer", "Loss(\"score\", \"labels\")", "Dense(\"score\")"),
    ("unknown_name", "Loss(\"score\"", "Loss(\"scores\""),
    ("unknown_size", "Dense(\"classes\")", "Dense(\"clases\")"),
    ("unknown_network", "Call(\"net\"", "Call(\"nets\""),
    ("unknown_layer", "Relu()", "Rellu()"),
    ("unknown_input", "Images([", "Pictures(["),
    ("unknown_optimiser", "Adam(", "Adan("),
    ("unknown_step", "Minimise(", "Minimize("),
    ("unknown_start", "input: [1, 8, 8],", "input: [1, 8, 8], init: Glorot_(),"),
    ("nesterov_without_momentum", "Adam(lr: \"rate\")", "Sgd(lr: 0.1, nesterov: true)"),
    ("clip_at_nothing", "Adam(lr: \"rate\")", "ClipNorm(0.0, Adam(lr: \"rate\"))"),
    ("rate_of_many_numbers", "lr: \"rate\"", "lr: \"score\""),
    ("one_network_twice", "\"net\", Adam", "[\"net\", \"net\"], Adam"),
    ("no_networks", "\"net\", Adam", "[], Adam"),
    ("average_of_nothing", "Let(\"score\"", "Average(\"net\", 0.9), Let(\"score\""),
    (
        "repeat_of_unequal_parts",
        "Let(\"score\", Call(\"net\", \"images\", Training))",
        "Repeat(times: 3, each: {\"part\": \"images\"}, steps: [Let(\"score\", Call(\"net\", \"part\", Training))])",
    ),
    ("mistake_in_repeated_steps", "Let(\"loss\", Loss", "Repeat(9, [Let(\"y\", Add(\"x\", 1))]), Let(\"loss\", Loss"),
    ("residual_of_another_shape", "Relu()", "Residual([Conv(channels: 3, kernel: 3, pad: 1)])"),
    ("spectral_norm_without_weights", "Relu()", "SpectralNorm(Relu())"),
    ("unknown_output", "outputs: [\"loss\"]", "outputs: [\"lose\"]"),
    ("unknown_mode", "Training", "Train"),
    ("cycle_of_sizes", "\"batch\": 4, \"classes\": 3", "\"batch\": \"classes\", \"classes\": \"batch\""),
    ("cycle_of_functions", "Mean(Mul(", "Loss(\"x\", Mul("),
    ("shape_mismatch_of_a_network", "input: [1, 8, 8]", "input: [1, 8, 9]"),
    ("shape_mismatch_of_operands", "Loss(\"score\", \"labels\")", "Mean(Add(\"score\", \"images\"))"),
    ("shape_mismatch_in_a_function", "Loss(\"score\", \"labels\")", "Loss(\"images\", \"labels\")"),
    ("shape_mismatch_of_a_layer", "                Flatten(),\n", ""),
    ("kernel_larger_than_the_image", "kernel: 3", "kernel: 30"),
    ("wrong_argument_count", "Mul(\"x\", OneHot(\"y\", \"classes\"))", "Mul(\"x\")"),
    ("wrong_arguments_of_a_function", "Loss(\"score\", \"labels\")", "Loss(\"score\")"),
    ("wrong_type_of_an_argument", "channels: 2", "channels: [2]"),
    ("wrong_value_of_an_argument", "Adam(lr: \"rate\")", "Adam(lr: \"rate\", beta1: 1.5)"),
    ("infinite_learning_rate", "Adam(lr: \"rate\")", "Adam(lr: inf)"),
    ("slope_that_is_nan", "Relu()", "LeakyRelu(NaN)"),
    ("batch_norm_without_epsilon", "BatchNorm()", "BatchNorm(epsilon: 0)"),
    ("adam_without_epsilon", "Adam(lr: \"rate\")", "Adam(lr: \"rate\", epsilon: 0)"),
    ("wrong_dtype", "OneHot(\"y\", \"classes\")", "Reshape(\"y\", [\"batch\", 1])"),
    ("too_many_arguments", "Dense(\"classes\")", "Dense(\"classes\", true, 3)"),
    ("non_scalar_loss", "Minimise(\"loss\"", "Minimise(\"score\""),
    ("independent_loss", "Loss(\"score\", \"labels\")", "Mean(Add(Mean(\"images\"), ToReal(\"labels\"), 0.0))"),
    ("duplicate_name", "Let(\"loss\", ", "Let(\"score\", "),
    ("duplicate_key", "\"classes\": 3", "\"classes\": 3, \"batch\": 5"),
    ("bad_size", "\"batch\": 4", "\"batch\": 0"),
    ("bad_name", "\"batch\": 4", "\"batch\": 4, \"my size\": 4"),
    ("reserved_name", "\"step\": Entry", "\"init\": Entry"),
    (
        "parameter_named_as_a_size",
        "params: [\"x\", \"y\"], body: Mean(Mul(\"x\", OneHot(\"y\"",
        "params: [\"x\", \"batch\"], body: Mean(Mul(\"x\", OneHot(\"batch\"",
    ),
    (
        "parameter_with_a_reserved_name",
        "params: [\"x\", \"y\"], body: Mean(Mul(\"x\"",
        "params: [\"seed\", \"y\"], body: Mean(Mul(\"seed\"",
    ),
    ("parameter_with_a_bad_name", "params: [\"x\", \"y\"]", "params: [\"x\", \"my y\"]"),
    (
        "no_results",
        "                Minimise(\"loss\", \"net\", Adam(lr: \"rate\")),\n            ],\n            outputs: [\"loss\"]",
        "],\n            outputs: []",
    ),
    ("too_large", "Dense(\"classes\")", "Dense(2000000000)"),
    ("number_out_of_range", "\"rate\": 0.1", "\"rate\": 1e999"),
    ("number_too_large_for_f32", "\"rate\": 0.1", "\"rate\": 1e39"),
    ("number_too_small_for_f32", "Adam(lr: \"rate\")", "Adam(lr: \"rate\", epsilon: 1e-60)"),
    ("literal_too_large_for_f32", "Mean(Mul(\"x\"", "Mean(Mul(-1e300"),
    ("fraction_that_rounds_to_one", "Adam(lr: \"rate\")", "Adam(lr: \"rate\", beta1: 0.99999999999)"),
    (
        "too_many_dimensions",
        "Labels([\"batch\"]) }",
        "Labels([\"batch\"]), \"t\": Tensor([1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]) }",
    ),
    ("too_much_padding", "pad: 1", "pad: 40000"),
    ("far_too_much_padding", "pad: 1", "pad: 9223372036854775807"),
    ("too_large_with_padding", "pad: 1", "pad: 16000"),
    ("too_many_elements", "\"batch\": 4, \"classes\": 3", "\"batch\": 2000000000, \"classes\": 3"),
    ("control_characters_in_a_name", "Loss(\"score\"", "Loss(\"sco\\u{1b}[31mre\u{1b}[0m\""),
    ("too_deep", "Loss(\"score\", \"labels\")", DEEP),
];

/// Brackets within brackets.
const DEEP: &str = concat!(
    "Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(",
    "Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(",
    "Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(",
    "Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(Neg(",
    "\"score\"))))))))))))))))))))))))))))))))))))))))))))))))))))))",
    "))))))))))))))))))))))))))))))))))))))))))))))))))))))",
);

/// What is odd, in the same form.
const ODDITIES: &[(&str, &str, &str)] = &[
    ("unused_input", "\"labels\": Labels([\"batch\"]) }", "\"labels\": Labels([\"batch\"]), \"more\": Tensor([2]) }"),
    ("unused_value", "{ \"rate\": 0.1 }", "{ \"rate\": 0.1, \"decay\": 0.9 }"),
    ("unused_let", "Let(\"loss\", L", "Let(\"probability\", Softmax(\"score\")), Let(\"loss\", L"),
    ("unused_network", "\"net\": Network(", "\"other\": Network(input: [1], layers: [Relu()]), \"net\": Network("),
    ("unused_size", "\"classes\": 3", "\"classes\": 3, \"heads\": 2"),
    (
        "unused_function",
        "    functions: {\n",
        "    functions: {\n        \"Half\": Function(params: [\"x\"], body: Mul(\"x\", 0.5)),\n",
    ),
    (
        "unused_parameter",
        "params: [\"x\", \"y\"], body: Mean(Mul(\"x\", OneHot(\"y\", \"classes\")))",
        "params: [\"x\", \"y\"], body: Mean(Mul(\"x\", \"classes\"))",
    ),
    ("no_gradient_behind_a_comparison", "Flatten(),", "Flatten(), Dense(4), Sign(),"),
];

#[test]
fn each_mistake_is_told_where_it_is() {
    load("tiny.ron", SOUND, &[], &[]).unwrap();
    for (name, sound, wrong) in MISTAKES {
        assert_eq!(SOUND.matches(sound).count(), 1, "{name}: {sound}");
        let text = SOUND.replacen(sound, wrong, 1);
        let error = load("tiny.ron", &text, &[], &[]).expect_err(name);
        let told = error.diagnostics().expect("it is the text that is wrong").render(100, false);
        assert!(told.contains("tiny.ron:"), "{name} has no place:\n{told}");
        assert_snapshot!(*name, told);
    }
}

#[test]
fn each_oddity_is_a_warning_where_it_is() {
    for (name, sound, odd) in ODDITIES {
        assert_eq!(SOUND.matches(sound).count(), 1, "{name}: {sound}");
        let text = SOUND.replacen(sound, odd, 1);
        let loaded = load_with_warnings("tiny.ron", &text, &[], &[]).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        let told = loaded.warnings.render(100, false);
        assert!(told.contains("tiny.ron:"), "{name} has no place:\n{told}");
        assert_snapshot!(*name, told);
        let denied = Options { deny_warnings: true, ..Options::default() };
        let error = compile("tiny.ron", &text, &denied, &mut |_| {}).expect_err(name);
        assert!(matches!(error, CompileError::Declare(_)), "{name}: {error}");
    }
    let denied = Options { deny_warnings: true, ..Options::default() };
    compile("tiny.ron", SOUND, &denied, &mut |_| {}).unwrap();
    let unused = SOUND.replace("\"classes\": 3", "\"classes\": 3, \"_heads\": 2");
    assert!(load_with_warnings("tiny.ron", &unused, &[], &[]).unwrap().warnings.is_empty());
}

#[test]
fn a_network_that_nothing_trains_is_a_warning() {
    let with = |name: &str| {
        let text = SOUND
            .replace(
                "\"net\": Network(",
                &format!("\"{name}\": Network(input: [1], layers: [Dense(1)]), \"net\": Network("),
            )
            .replace(
                "Loss(\"score\", \"labels\")",
                &format!("Add(Mean(Call(\"{name}\", Normal([2, 1]), Training)), Loss(\"score\", \"labels\"))"),
            );
        load_with_warnings("tiny.ron", &text, &[], &[]).unwrap().warnings
    };
    assert_snapshot!(with("fixed").render(100, false));
    assert!(with("_fixed").is_empty());
}

#[test]
fn a_function_takes_labels_of_any_rank() {
    let text = SOUND
        .replace("OneHot(\"y\", \"classes\")", "ToReal(\"y\")")
        .replace("Loss(\"score\"", "Loss(ReduceMax(\"score\", [1])");
    let types = [("x".to_string(), Type::f32([2, 3])), ("y".to_string(), Type::u32([2, 3]))].into();
    let module = load_call("tiny.ron", &text, &[], "Loss", &types).unwrap().module;
    assert_eq!(module.entries[1].inputs[1].ty, Type::u32([2, 3]));
}

/// What is run is used, and so is what it needs; the rest is still told.
#[test]
fn what_is_called_is_used() {
    let more = "    functions: {
        \"Half\": Function(params: [\"h\"], body: Mul(\"h\", \"half\")),
        \"Quarter\": Function(params: [\"q\"], body: Half(Half(\"q\"))),\n";
    let text = SOUND.replace("    functions: {\n", more).replace("\"rate\": 0.1", "\"rate\": 0.1, \"half\": 0.5");
    let types = [("q".to_string(), Type::f32([2])), ("h".to_string(), Type::f32([2]))].into();
    assert_eq!(load_with_warnings("tiny.ron", &text, &[], &[]).unwrap().warnings.entries().len(), 3);
    let called = load_call("tiny.ron", &text, &[], "Quarter", &types).unwrap();
    assert!(called.warnings.is_empty(), "{:?}", called.warnings);
    let called = load_call("tiny.ron", &text, &[], "Half", &types).unwrap();
    let [warning] = called.warnings.entries() else { panic!("{:?}", called.warnings) };
    assert!(warning.to_string().contains("`Quarter`"), "{warning}");
}

#[test]
fn a_chain_of_30_000_steps_is_read() {
    let mut steps = String::from("Let(\"v0\", Mean(\"images\")),");
    for i in 1..30_000 {
        steps += &format!("Let(\"v{i}\", Add(\"v{}\", 1)),", i - 1);
    }
    let text = SOUND
        .replace("Let(\"loss\", ", &format!("{steps} Let(\"loss\", "))
        .replace("outputs: [", "outputs: [\"v29999\", ");
    let module = load("tiny.ron", &text, &[], &[]).unwrap();
    assert!(module.entries[1].graph.len() > 30_000);
}

#[test]
fn several_mistakes_are_told_at_once() {
    let mut text = SOUND.to_string();
    for (sound, wrong) in [("pad: 1", "padding: 1"), ("Call(\"net\"", "Call(\"nets\""), ("Adam(", "Adan(")] {
        text = text.replace(sound, wrong);
    }
    let error = load("tiny.ron", &text, &[], &[]).unwrap_err();
    assert_snapshot!(error.diagnostics().unwrap().render(100, false));
}

#[test]
fn sets_that_do_not_fit() {
    let told: Vec<String> = [
        "bach=3",
        "batch=0",
        "batch=1.5",
        "batch",
        "rate=fast",
        "rate=nan",
        "batch=99999999999",
        "rate=1e39",
        "rate=1e-60",
    ]
    .iter()
    .map(|set| format!("{set}: {}", load("tiny.ron", SOUND, &[set.to_string()], &[]).unwrap_err()))
    .collect();
    assert_snapshot!(told.join("\n"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever is done to a program, it is read or refused. What is read is valid.
    #[test]
    fn mutilated_programs_never_panic(
        which in 0..4usize,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..5u8), 1..4),
    ) {
        let whole = [SOUND, include_str!("../graphs/mlp-gan.ron"), include_str!("../graphs/lenet.ron"),
            include_str!("pytorch/small.ron")][which];
        // Words and single other characters.
        let mut tokens: Vec<String> = Vec::new();
        for c in whole.chars() {
            match tokens.last_mut() {
                Some(last) if c.is_alphanumeric() && last.ends_with(|l: char| l.is_alphanumeric()) => last.push(c),
                _ => tokens.push(c.to_string()),
            }
        }
        for (at, other, edit) in edits {
            if tokens.is_empty() {
                break;
            }
            let (i, j) = (at.index(tokens.len()), other.index(tokens.len()));
            match edit {
                0 => { tokens.remove(i); }
                1 => { let token = tokens[j].clone(); tokens.insert(i, token); }
                2 => tokens.swap(i, j),
                3 => tokens[i] = tokens[j].clone(),
                _ => tokens.truncate(i.max(1)),
            }
        }
        let text = tokens.concat();
        match load("mutilated.ron", &text, &[], &[]) {
            Ok(module) => prop_assert!(gcc_gan::ir::verify_module(&module).is_ok()),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}
