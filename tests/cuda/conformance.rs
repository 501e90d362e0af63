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
    ($($group:ident)*) => {
        const CHECKED: &[&str] = &[$(stringify!($group)),*];
        mod in_f32 {
            $(#[test]
            fn $group() {
                super::check(stringify!($group), 80, super::Precision::F32, &super::Tolerances::F32);
            })*
        }
    };
}

groups!(
    scalars special_values elementwise reductions multi_tensor matrix_products convolutions contraction_fusion prologues transforms windows
    layouts sliced_operands draws bf16 states odd_sizes random_graphs training_steps
);

#[test]
fn every_group_is_checked() {
    assert_eq!(CHECKED, GROUPS);
}

macro_rules! contractions {
    ($($group:ident)*) => {
        $(mod $group {
            use super::*;
            #[test]
            fn without_tensor_cores() {
                check(stringify!($group), 75, Precision::F32, &Tolerances::F32);
            }
            #[test]
            fn in_tf32() {
                check(stringify!($group), 80, Precision::Tf32, &Tolerances::TF32);
            }
            #[test]
            fn in_bf16() {
                check(stringify!($group), 80, Precision::Bf16, &Tolerances::BF16);
            }
        })*
    };
}

// Those in which contractions have operands of their own, of all sizes.
contractions!(layouts sliced_operands matrix_products convolutions);

macro_rules! warpgroups {
    ($($group:ident)*) => {
        mod by_warpgroups {
            $(mod $group {
                use super::super::*;
                #[test]
                fn in_tf32() {
                    check(stringify!($group), 90, Precision::Tf32, &Tolerances::TF32);
                }
                #[test]
                fn in_bf16() {
                    check(stringify!($group), 90, Precision::Bf16, &Tolerances::BF16);
                }
            })*
        }
    };
}

// In the other groups the model gives them nothing.
warpgroups!(matrix_products prologues);
