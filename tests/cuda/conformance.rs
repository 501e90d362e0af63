//! The conformance suite on kernels as the host runs them: a GPU without tensor cores, and one that has them.

use crate::emulated::Emulated;
use gcc_gan::kernel::body::Kernel;
use gcc_gan::kernel::choice::Algorithm;
use gcc_gan::kernel::target::{Architecture, Precision, Target};
use gcc_gan::kernel::warpgroup;
use gcc_gan::testing::conformance::{Exceptions, GROUPS, Tolerances, group, prepare, report};
use gcc_gan::testing::strategies_at;

fn check(name: &str, architecture: u32, precision: Precision, tolerances: &Tolerances) {
    let strategies = strategies_at(Target::Cuda(Architecture(architecture)), precision);
    let prepared = prepare(&group(name), &strategies, tolerances);
    let device = Emulated::default();
    let plans = || prepared.iter().flat_map(|case| case.trials.iter().flatten()).map(|trial| &trial.plan);
    let is_by_warpgroups =
        |kernel: &Kernel| matches!(&kernel.choice.algorithm, Algorithm::ThreadBlocks(b) if warpgroup::is_choice(b));
    let kernels = plans().flat_map(|plan| &plan.entries).flat_map(|entry| &entry.schedule.kernels);
    let by_warpgroups = kernels.filter(|kernel| is_by_warpgroups(kernel)).count();
    println!("{by_warpgroups} kernels by warpgroups");
    assert!(architecture != 90 || by_warpgroups > 0, "none by warpgroups");
    if !device.prepare(plans()) {
        return;
    }
    let found = report(&device, &prepared, &Exceptions::none());
    print!("{found}");
    assert!(found.is_ok(), "failed: {:?}", found.failed());
}

macro_rules! groups {
    ($($on:ident, $architecture:literal, $precision:ident, $tolerances:ident: $($group:ident)*;)*) => {
        const CHECKED: &[(&str, &[&str])] = &[$((stringify!($on), &[$(stringify!($group)),*])),*];
        $(mod $on {
            use super::*;
            $(#[test]
            fn $group() {
                check(stringify!($group), $architecture, Precision::$precision, &Tolerances::$tolerances);
            })*
        })*
    };
}

// Beside f32 on a GPU with tensor cores those in which contractions have operands of their own, of all sizes; by warpgroups those
// of which the model gives them any.
groups!(
    in_f32, 80, F32, F32:
        scalars special_values elementwise reductions multi_tensor matrix_products convolutions contraction_fusion prologues
        transforms windows layouts sliced_operands draws bf16 states odd_sizes random_graphs training_steps;
    without_tensor_cores, 75, F32, F32: layouts sliced_operands matrix_products convolutions;
    in_tf32, 80, Tf32, TF32: layouts sliced_operands matrix_products convolutions;
    in_bf16, 80, Bf16, BF16: layouts sliced_operands matrix_products convolutions;
    in_tf32_by_warpgroups, 90, Tf32, TF32: matrix_products prologues;
    in_bf16_by_warpgroups, 90, Bf16, BF16: matrix_products prologues;
);

#[test]
fn every_group_is_checked() {
    assert_eq!(CHECKED[0], ("in_f32", &GROUPS[..]));
}
