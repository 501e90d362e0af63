//! Whole small programs, compiled with every pass: initialisation and some steps of training.

use super::case::{Case, Work};
use crate::declare;
use crate::kernel::target::Fusion;
use crate::plan::Source;
use crate::replay::Replay;
use crate::testing::program_inputs;

const STEPS: usize = 2;

/// Losses, gradients and state after these steps, against f64. Adam divides by the gradient's own size, so where that is
/// rounding alone, its updates are as large as the learning rate, 1e-3 at most here.
const TOLERANCE: f64 = 2e-3;

/// Programs, with the sets that make them small.
const PROGRAMS: [(&str, &str, &[&str]); 5] = [
    ("gan", include_str!("../../../tests/pytorch/small.ron"), &[]),
    ("wgan-gp", include_str!("../../../tests/programs/wgan-gp.ron"), &[]),
    ("conditional gan", include_str!("../../../tests/programs/conditional.ron"), &[]),
    ("mlp gan", include_str!("../../../graphs/mlp-gan.ron"), &["batch=3"]),
    ("classifier", include_str!("../../../graphs/lenet.ron"), &["batch=3"]),
];

pub fn training_steps() -> Vec<Case> {
    let fusions = [("", Fusion::On), (", not fused", Fusion::Off)];
    let pairs = PROGRAMS.iter().flat_map(|program| fusions.iter().map(move |fusion| (program, fusion)));
    pairs.map(|(&(name, text, sets), &(how, fusion))| case(&format!("{name}{how}"), text, sets, fusion)).collect()
}

fn case(name: &str, text: &str, sets: &[&str], fusion: Fusion) -> Case {
    let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
    let module = declare::load(name, text, &sets, &[]).unwrap_or_else(|e| panic!("{name}: {e}"));
    let given = program_inputs(&module, "train_step", STEPS);
    let replay = Replay::new(&module, "train_step", given, STEPS, 5).unwrap_or_else(|e| panic!("{name}: {e}"));
    let source =
        Source { name: name.into(), text: text.into(), overrides: sets, optional: vec![], fusion, fast_math: false };
    Case { name: name.into(), work: Work::Program { replay: Box::new(replay), source, tolerance: TOLERANCE } }
}
