//! The conformance suite on the processor, with every instruction set: a test for each, and each group of cases.
//! `cargo test --test conformance -- --show-output` lists every case.
//!
//! What an instruction set can't do is an exception in its line below, by the case's name and with the reason.

use gcc_gan::exec::cpu::{CpuDevice, Isa};
use gcc_gan::testing::conformance::{Exceptions, GROUPS, Prepared, Tolerances, group, prepare, report};
use gcc_gan::testing::strategies;
use std::sync::OnceLock;

/// A group, compiled and evaluated once for all instruction sets: plans fit each.
fn prepared(name: &str) -> &'static [Prepared] {
    static ALL: [OnceLock<Vec<Prepared>>; GROUPS.len()] = [const { OnceLock::new() }; GROUPS.len()];
    let at = GROUPS.iter().position(|g| *g == name).unwrap_or_else(|| panic!("there is no group `{name}`"));
    ALL[at].get_or_init(|| prepare(&group(name), &strategies(), &Tolerances::F32))
}

fn check(isa: &str, group: &str, exceptions: &Exceptions) {
    let Some(isa) = Isa::available().into_iter().find(|i| i.name() == isa) else {
        println!("not run: this processor has no {isa}");
        return;
    };
    let found = report(&CpuDevice { threads: 3, isa }, prepared(group), exceptions);
    print!("{found}");
    assert!(found.is_ok(), "failed: {:?}", found.failed());
    // The bits do not depend on the number of threads.
    let alone = report(&CpuDevice { threads: 1, isa }, prepared(group), exceptions);
    assert_eq!(alone.outcomes, found.outcomes, "one thread and three");
}

/// `device: instruction set, exceptions;` for each, with a test for each group.
macro_rules! devices {
    ([$($group:ident)*] $(#[$only:meta])? $device:ident: $isa:literal, $exceptions:expr; $($rest:tt)*) => {
        $(#[$only])?
        mod $device {
            use super::*;
            $(
                #[test]
                fn $group() {
                    check($isa, stringify!($group), &$exceptions);
                }
            )*
        }
        devices! { [$($group)*] $($rest)* }
    };
    ([$($group:ident)*]) => {
        #[test]
        fn every_group_is_run() {
            assert_eq!([$(stringify!($group)),*], GROUPS);
        }
    };
}

devices! {
    [
        scalars special_values elementwise reductions multi_tensor matrix_products convolutions contraction_fusion transforms
        layouts sliced_operands draws bf16 states odd_sizes random_graphs training_steps
    ]
    cpu_portable: "portable", Exceptions::none();
    #[cfg(target_arch = "x86_64")]
    cpu_avx2: "avx2", Exceptions::none();
    #[cfg(target_arch = "x86_64")]
    cpu_avx512: "avx512", Exceptions::none();
}
