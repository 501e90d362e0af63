//! The conformance suite on every device and instruction set: a test for each, and each group of cases.
//!
//! What a device can't do is an exception in its line below, by the case's name and with the reason.

use gcc_gan::exec::cpu::{CpuDevice, Isa};
use gcc_gan::testing::conformance::{Exceptions, GROUPS, run_group};

/// The processor with one instruction set; `None` where this one has not got it.
fn cpu(isa: &str) -> Option<Isa> {
    let found = Isa::available().into_iter().find(|i| i.name() == isa);
    if found.is_none() {
        println!("not run: this processor has no {isa}");
    }
    found
}

fn check_cpu(isa: &str, group: &str, exceptions: &Exceptions) {
    let Some(isa) = cpu(isa) else { return };
    let report = run_group(&CpuDevice { threads: 3, isa }, group, exceptions);
    assert!(report.is_ok(), "{report}");
    // The bits do not depend on the number of threads.
    let alone = run_group(&CpuDevice { threads: 1, isa }, group, exceptions);
    assert_eq!(alone.outcomes, report.outcomes, "one thread and three");
    print!("{report}");
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
                    check_cpu($isa, stringify!($group), &$exceptions);
                }
            )*
        }
        devices! { [$($group)*] $($rest)* }
    };
    ([$($group:ident)*]) => {
        #[test]
        fn every_group_is_run() {
            let groups: Vec<&str> = GROUPS.iter().map(|(name, _)| *name).collect();
            assert_eq!([$(stringify!($group)),*].as_slice(), groups);
        }
    };
}

devices! {
    [
        scalars special_values elementwise reductions multi_tensor matrix_products convolutions contraction_fusion
        layouts sliced_operands draws bf16 states odd_sizes random_graphs training_steps
    ]
    cpu_portable: "portable", Exceptions::none();
    #[cfg(target_arch = "x86_64")]
    cpu_avx2: "avx2", Exceptions::none();
    #[cfg(target_arch = "x86_64")]
    cpu_avx512: "avx512", Exceptions::none();
}
