//! The conformance suite, for every device and instruction set by name. Another device is another line.

use gcc_gan::exec::Device;
use gcc_gan::exec::cpu::{CpuDevice, Isa};
use gcc_gan::kernel::target::Target;
use gcc_gan::testing::conformance::{GROUPS, failures};

/// What a device cannot do, with the reason.
type Exceptions = &'static [(&'static str, &'static str)];

fn check(device: Option<&dyn Device>, group: &str, exceptions: Exceptions) {
    assert!(GROUPS.contains(&group));
    let Some(device) = device else {
        println!("this machine has no such device");
        return;
    };
    let found = failures(device, Target::Cpu, group, exceptions);
    assert!(found.is_empty(), "{}:\n{}", device.name(), found.join("\n"));
}

/// The processor with an instruction set, where this one has it.
fn cpu(name: &str) -> Option<CpuDevice> {
    Isa::available().into_iter().find(|isa| isa.name() == name).map(|isa| CpuDevice { threads: 2, isa })
}

macro_rules! conformance {
    ($($device:ident: $make:expr, except $exceptions:expr;)*) => {$(
        mod $device {
            use super::*;
            conformance!(@groups $make, $exceptions, scalars movement reductions contractions draws state random_graphs programs);
        }
    )*};
    (@groups $make:expr, $exceptions:expr, $($group:ident)*) => {
        $(#[test]
        fn $group() {
            check($make.as_ref().map(|device| device as &dyn Device), stringify!($group), $exceptions);
        })*
    };
}

conformance! {
    cpu_portable: cpu("portable"), except &[];
    cpu_avx2: cpu("avx2"), except &[];
    cpu_avx512: cpu("avx512"), except &[];
}
