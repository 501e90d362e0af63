//! Random graphs: as they stand, after all passes, differentiated, and on values that are not finite.

use super::case::{Agreement, Case};
use crate::autodiff::differentiate;
use crate::passes::{FORWARD, PIPELINE, PassContext};
use crate::testing::{GraphOptions, random_bindings, random_graph, special_bindings};

pub fn graphs() -> Vec<Case> {
    let near = Agreement::Near(4e-5);
    let mut cases = Vec::new();
    for seed in 0..64 {
        let options = GraphOptions { steps: 8 + seed as usize % 24, ..GraphOptions::default() };
        let mut graph = random_graph(seed, options);
        let given = random_bindings(&graph, seed);
        cases.push(Case::of(format!("as declared {seed}"), graph.clone(), given.clone(), near));
        for pass in FORWARD.iter().chain(PIPELINE) {
            (pass.run)(&mut graph, &PassContext::default());
        }
        cases.push(Case::of(format!("after all passes {seed}"), graph, given, near));

        let options = GraphOptions { gradients: true, smooth: true, steps: 12, ..GraphOptions::default() };
        let mut graph = random_graph(1000 + seed, options);
        let given = random_bindings(&graph, seed);
        differentiate(&mut graph);
        cases.push(Case::of(format!("gradient {seed}"), graph, given, near));

        let graph = random_graph(2000 + seed, GraphOptions { contractions: false, ..GraphOptions::default() });
        let given = special_bindings(&graph, seed, 2 + seed as usize);
        cases.push(Case::of(format!("special values {seed}"), graph, given, Agreement::Special(4e-5)));
    }
    cases
}
