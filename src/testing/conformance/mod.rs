//! The conformance suite: what every device must compute, by named cases and the interpreter.
//!
//! Cases are data and know no target: [`cases`] gives them, [`prepare`] (or [`Case::compile`] for one) compiles them as the
//! caller wants for its device, with plans, inputs and expected results in [`Trial`]s that can be looked through before
//! anything runs, and [`report()`] (or [`run()`] for one) runs them.
//!
//! A device passes when [`Report::is_ok`]. What it can't do, or does otherwise, is an exception by the name of the case, with
//! the reason; an exception that is no longer needed is a problem too.

mod case;
mod contractions;
mod draws;
mod fixture;
mod half;
mod movement;
mod nests;
mod random;
mod reference;
mod report;
mod run;
mod scalars;
mod special;
mod states;
mod steps;
#[cfg(test)]
mod tests;
mod transforms;

pub use case::{Agreement, Case, Expected, Tolerances, Trial};
#[cfg(test)]
pub(crate) use fixture::{Fixture, noise};
#[cfg(test)]
pub(crate) use half::bf16_specials;
pub use reference::{Results, plan_of, plan_of_all};
pub use report::{Exceptions, Outcome, Prepared, Report, prepare, report};
pub use run::{Mismatch, run};

/// Cases on one subject.
type Group = (&'static str, fn() -> Vec<Case>);

/// Every group by name, with what makes its cases.
const ALL: [Group; 19] = [
    ("scalars", scalars::ordinary),
    ("special_values", special::special_values),
    ("elementwise", nests::elementwise),
    ("reductions", nests::reductions),
    ("multi_tensor", nests::multi_tensor),
    ("matrix_products", contractions::matrix_products),
    ("convolutions", contractions::convolutions),
    ("contraction_fusion", contractions::fusion),
    ("prologues", contractions::prologues),
    ("transforms", transforms::transforms),
    ("windows", transforms::windows),
    ("layouts", movement::layouts),
    ("sliced_operands", movement::sliced_operands),
    ("draws", draws::draws),
    ("bf16", half::bf16),
    ("states", states::states),
    ("odd_sizes", nests::odd_sizes),
    ("random_graphs", random::graphs),
    ("training_steps", steps::training_steps),
];

/// The names of the groups, in the order of [`cases`].
pub const GROUPS: [&str; ALL.len()] = {
    let mut names = [""; ALL.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = ALL[i].0;
        i += 1;
    }
    names
};

/// Every case of every group. Names start with the group's, as in `convolutions/conv2d …`.
pub fn cases() -> Vec<Case> {
    GROUPS.into_iter().flat_map(group).collect()
}

/// The cases of one of [`GROUPS`]; none when there is no such group.
pub fn group(name: &str) -> Vec<Case> {
    let found = ALL.iter().filter(|(group, _)| *group == name);
    let named = |case: Case| Case { name: format!("{name}/{}", case.name), ..case };
    found.flat_map(|(_, cases)| cases()).map(named).collect()
}
