//! Whole small programs, optimised by every pass: initialisation and some steps of training, against the interpreter on the
//! program as it was declared.

use super::case::{Agreement, Case};
use crate::autodiff::differentiate;
use crate::declare;
use crate::ir::{Bindings, Graph, Output, Value};
use crate::passes::{FORWARD, PIPELINE, Pass, PassContext};
use crate::testing::program_inputs;
use crate::types::{Feed, INIT};

const STEPS: usize = 2;

/// Losses and gradients of the first step, before anything has grown.
const FIRST: Agreement = Agreement::Near(2e-5);

/// What comes after Adam's first update: where a gradient is rounding alone, Adam divides it by its own size, so that
/// parameters may be the learning rate apart, 1e-3 at most here.
const LATER: Agreement = Agreement::Near(2e-3);

/// Programs, with the sets that make them small.
const PROGRAMS: [(&str, &str, &[&str]); 5] = [
    ("gan", include_str!("../../../tests/pytorch/small.ron"), &[]),
    ("wgan-gp", include_str!("../../../tests/programs/wgan-gp.ron"), &[]),
    ("conditional gan", include_str!("../../../tests/programs/conditional.ron"), &[]),
    ("mlp gan", include_str!("../../../graphs/mlp-gan.ron"), &["batch=3"]),
    ("classifier", include_str!("../../../graphs/lenet.ron"), &["batch=3"]),
];

pub fn training_steps() -> Vec<Case> {
    PROGRAMS.iter().map(|(name, text, sets)| case(name, text, sets)).collect()
}

fn optimised(graph: &Graph) -> Graph {
    let mut graph = graph.clone();
    let run = |passes: &[Pass], graph: &mut Graph| {
        for pass in passes {
            (pass.run)(graph, &PassContext::default());
        }
    };
    run(FORWARD, &mut graph);
    differentiate(&mut graph);
    run(PIPELINE, &mut graph);
    graph
}

fn case(name: &str, text: &str, sets: &[&str]) -> Case {
    let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
    let module = declare::load(name, text, &sets, &[]).unwrap_or_else(|e| panic!("{name}: {e}"));
    let mut given = Bindings::new();
    let f32_of = |value: &Value<f64>| match &value.data {
        crate::ir::Data::Real(reals) => Value::real(value.shape.clone(), reals.iter().map(|&x| x as f32).collect()),
        crate::ir::Data::U32(words) => Value::u32(value.shape.clone(), words.clone()),
    };
    // The step of number 0 is the run of number 1: the first initialises.
    for (name, value) in program_inputs(&module, "train_step", STEPS) {
        let (base, step) = name.split_once('@').unwrap_or((&name, "0"));
        let run = step.parse::<usize>().expect("a number of a step") + 1;
        given.insert(format!("{base}@{run}"), f32_of(&value));
    }
    let entry = |name: &str| module.entries.iter().find(|e| e.graph.name == name).expect("programs have both entries");
    let entries = [entry(INIT), entry("train_step")];
    for input in entries.iter().flat_map(|e| &e.inputs).filter(|i| i.feed == Feed::Seed) {
        given.insert(input.name.clone(), Value::u32([2], vec![5, 0]));
    }
    let declared = entries.map(|entry| {
        let mut graph = entry.graph.clone();
        let gradients = graph.probes.clone();
        graph.outputs.extend(gradients.into_iter().map(|p| Output { name: p.name, node: p.node }));
        graph.remove_dead();
        graph
    });
    let graphs = declared.iter().map(optimised).collect();
    let declared = declared.map(|mut graph| {
        differentiate(&mut graph);
        graph
    });
    let mut runs = vec![0];
    runs.resize(1 + STEPS, 1);
    let mut case = Case::of(name, Graph::new(name), given, FIRST);
    (case.graphs, case.runs) = (graphs, runs);
    (case.declared, case.later) = (Some(declared.into()), Some((2, LATER)));
    case
}
