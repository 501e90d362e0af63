//! The conformance suite on the processor, with every instruction set: a test for each, and each group of cases.
//! `cargo test --test conformance -- --show-output` lists every case.
//!
//! What an instruction set can't do is an exception in its line below, by the case's name and with the reason.

use gcc_gan::exec::cpu::{CpuDevice, Isa};
use gcc_gan::kernel::target::{Precision, Target};
use gcc_gan::testing::conformance::{Exceptions, GROUPS, Prepared, Tolerances, group, prepare, report};
use gcc_gan::testing::{strategies, strategies_at};
use std::sync::OnceLock;

/// A group, compiled and evaluated once for all instruction sets: plans fit each.
fn prepared(name: &str) -> &'static [Prepared] {
    static ALL: [OnceLock<Vec<Prepared>>; GROUPS.len()] = [const { OnceLock::new() }; GROUPS.len()];
    let at = GROUPS.iter().position(|g| *g == name).unwrap_or_else(|| panic!("there is no group `{name}`"));
    ALL[at].get_or_init(|| prepare(&group(name), &strategies(), &Tolerances::F32))
}

fn check(isa: &str, group: &str, exceptions: &Exceptions) {
    check_prepared(isa, exceptions, || prepared(group));
}

/// Matrix products of operands rounded to bf16.
fn check_in_bf16(isa: &str, name: &str, exceptions: &Exceptions) {
    let strategies = || strategies_at(Target::Cpu, Precision::Bf16);
    check_prepared(isa, exceptions, || prepare(&group(name), &strategies(), &Tolerances::BF16));
}

fn check_prepared<P: AsRef<[Prepared]>>(isa: &str, exceptions: &Exceptions, prepared: impl FnOnce() -> P) {
    let Some(isa) = Isa::available().into_iter().find(|i| i.name() == isa) else {
        println!("not run: this processor has no {isa}");
        return;
    };
    let prepared = prepared();
    let found = report(&CpuDevice { threads: 3, isa }, prepared.as_ref(), exceptions);
    print!("{found}");
    assert!(found.is_ok(), "failed: {:?}", found.failed());
    // The bits do not depend on the number of threads.
    let alone = report(&CpuDevice { threads: 1, isa }, prepared.as_ref(), exceptions);
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
        scalars special_values elementwise reductions multi_tensor matrix_products convolutions contraction_fusion prologues transforms windows
        layouts sliced_operands draws bf16 states odd_sizes random_graphs training_steps
    ]
    cpu_portable: "portable", Exceptions::none();
    #[cfg(target_arch = "x86_64")]
    cpu_avx2: "avx2", Exceptions::none();
    #[cfg(target_arch = "x86_64")]
    cpu_avx512: "avx512", Exceptions::none();
}

/// Groups whose contractions have operands of their own: on any processor, and where bf16 is multiplied in one instruction.
macro_rules! in_bf16 {
    ($($group:ident)*) => {
        $(mod $group {
            #[test]
            fn in_bf16() {
                super::check_in_bf16("portable", stringify!($group), &super::Exceptions::none());
            }
            #[test]
            fn in_bf16_by_its_own_instruction() {
                let exceptions = super::Exceptions::none().with(
                    "matrix_products/special values in [3, 62, 65, 32], 5",
                    "the instruction takes numbers below the least normal one for zeros, and one meets an infinity",
                );
                super::check_in_bf16("avx512-bf16", stringify!($group), &exceptions);
            }
        })*
    };
}

in_bf16!(matrix_products convolutions contraction_fusion prologues transforms windows layouts sliced_operands bf16);
