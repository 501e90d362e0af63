//! The conformance suite on kernels as the host runs them: a GPU without tensor cores, and one that has them.

use crate::emulated::Emulated;
use gcc_gan::kernel::target::{Architecture, Precision, Target};
use gcc_gan::testing::conformance::{Exceptions, GROUPS, Tolerances, group, prepare, report};
use gcc_gan::testing::strategies_at;

fn check(name: &str, architecture: u32, precision: Precision, tolerances: &Tolerances) {
    let strategies = strategies_at(Target::Cuda(Architecture(architecture)), precision);
    let prepared = prepare(&group(name), &strategies, tolerances);
    let device = Emulated::default();
    let plans = prepared.iter().flat_map(|case| case.trials.iter().flatten()).map(|trial| &trial.plan);
    if !device.prepare(plans) {
        return;
    }
    let found = report(&device, &prepared, &Exceptions::none());
    print!("{found}");
    assert!(found.is_ok(), "failed: {:?}", found.failed());
}

macro_rules! groups {
    (quick: $($group:ident)*; long: $($long:ident)*) => {
        const CHECKED: &[&str] = &[$(stringify!($group),)* $(stringify!($long)),*];
        mod in_f32 {
            $(#[test]
            fn $group() {
                super::check(stringify!($group), 80, super::Precision::F32, &super::Tolerances::F32);
            })*
            $(#[test]
            #[ignore = "takes minutes: cargo test --test cuda -- --ignored"]
            fn $long() {
                super::check(stringify!($long), 80, super::Precision::F32, &super::Tolerances::F32);
            })*
        }
    };
}

// The others have hundreds of kernels, or large programs.
groups!(
    quick: scalars special_values elementwise multi_tensor matrix_products convolutions prologues transforms windows layouts sliced_operands
        draws bf16 states odd_sizes;
    long: reductions contraction_fusion random_graphs training_steps
);

#[test]
fn every_group_is_checked() {
    let sorted = |names: &[&'static str]| {
        let mut names = names.to_vec();
        names.sort_unstable();
        names
    };
    assert_eq!(sorted(CHECKED), sorted(&GROUPS));
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
contractions!(layouts sliced_operands matrix_products);

mod prologues {
    use super::*;

    /// Warps compute them in f32, above.
    #[test]
    fn in_tf32_by_warpgroups() {
        check("prologues", 90, Precision::Tf32, &Tolerances::TF32);
    }
}
