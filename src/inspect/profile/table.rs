//! A profile as a human-readable table.

use super::{KernelTime, Profile, Subject};
use crate::inspect::{Align, Table, bytes};
use crate::kernel::cost::Multiplied;

impl Profile {
    /// The figures as a table, the slowest kernel first. Its first column adds up to the step.
    pub fn table(&self, kernels: &[KernelTime]) -> String {
        let mut order: Vec<&KernelTime> = kernels.iter().collect();
        order.sort_by(|a, b| b.seconds.total_cmp(&a.seconds).then(a.kernel.cmp(&b.kernel)));
        let step = self.step_time();
        let right = [Align::Right; 10];
        let mut table = Table::new([&right[..], &[Align::Left, Align::Left]].concat());
        table.row([
            "ms",
            "share",
            "min",
            "median",
            "max",
            "at ceiling",
            "of ceiling",
            "GFLOP/s",
            "GB/s",
            "#",
            "kind",
            "kernel",
        ]);
        for k in order {
            let [gflops, gbytes] = rates(k.flops, k.bytes, k.seconds);
            table.row([
                ms(k.seconds),
                percent(k.share),
                ms(k.min_seconds),
                ms(k.median_seconds),
                ms(k.max_seconds),
                ms(k.ceiling_seconds),
                format!("{:.0}%", k.of_ceiling * 100.0),
                gflops,
                gbytes,
                k.kernel.to_string(),
                k.kind.clone(),
                k.name.clone(),
            ]);
        }
        let ceiling: f64 = kernels.iter().map(|k| k.ceiling_seconds).sum();
        let blank = || String::new();
        let rest = |name: &str, seconds: f64, spread: [String; 3], ceiling: String| {
            let share = percent(seconds / step.seconds.max(f64::MIN_POSITIVE));
            let [min, median, max] = spread;
            let start = [ms(seconds), share, min, median, max, ceiling];
            let end = [blank(), blank(), blank(), blank(), blank(), name.to_string()];
            [start, end].concat()
        };
        table.row(rest("between kernels", step.between_seconds, [blank(), blank(), blank()], blank()));
        let whole = [step.min_seconds, step.median_seconds, step.max_seconds].map(ms);
        table.row(rest("the step", step.seconds, whole, ms(ceiling)));
        format!("{}\n{}", self.heading(kernels), table.render(""))
    }

    /// What was measured and where, in two lines, or three where the machine was busy.
    pub(super) fn heading(&self, kernels: &[KernelTime]) -> String {
        let step = self.step_time();
        let ceiling: f64 = kernels.iter().map(|k| k.ceiling_seconds).sum();
        let Subject { machine, spread, .. } = &self.subject;
        let sum = |numbers: &mut dyn Iterator<Item = u64>| numbers.fold(0, u64::saturating_add);
        let (flops, moved) = (sum(&mut kernels.iter().map(|k| k.flops)), sum(&mut kernels.iter().map(|k| k.bytes)));
        let within = |part: f64| format!("(±{:.1}%)", part * 100.0);
        let busy = spread.busy().map_or(String::new(), |why| {
            format!("the machine was busy: {why}. Ceilings may be too low and times too long; measure again when it is idle\n")
        });
        let of_products = |of: &[Multiplied], name: &str, flops: Option<f64>, spread: f64| {
            let flops = flops.filter(|_| kernels.iter().any(|k| of.contains(&k.multiplied)));
            let words = |flops| format!(", of products of {name} {:.1} GFLOP/s {}", flops / 1e9, within(spread));
            flops.map_or(String::new(), words)
        };
        let tf32 = [Multiplied::Tf32, Multiplied::Tf32x3];
        let tf32 = of_products(&tf32, "tf32", machine.tf32_flops_per_second, spread.tf32);
        let bf16 = of_products(&[Multiplied::Bf16], "bf16", machine.bf16_flops_per_second, spread.bf16);
        let cached = machine.caches.last_level.map_or(String::new(), |bytes| {
            // That of a CPU's is not measured.
            let spread = if spread.cache > 0.0 { format!(" {}", within(spread.cache)) } else { String::new() };
            format!(", {:.1} GB/s from the last-level cache{spread}", bytes / 1e9)
        });
        format!(
            "{} of {}: {:.1} ms a step (mean of the {} typical of {} steps), {} kernels, {:.1} GFLOP/s, {} moved; at the \
             ceilings {:.1} ms\n\
             measured ceilings: {:.1} GFLOP/s {}{tf32}{bf16}, {:.1} GB/s {}{cached}, {:.1} µs a launch {}; {}\n{busy}",
            self.subject.entry,
            self.subject.program,
            step.seconds * 1e3,
            self.typical_steps().len(),
            self.subject.steps,
            kernels.len(),
            flops as f64 / step.seconds.max(f64::MIN_POSITIVE) / 1e9,
            bytes(moved as usize),
            ceiling * 1e3,
            machine.flops_per_second / 1e9,
            within(spread.arithmetic),
            machine.bytes_per_second / 1e9,
            within(spread.memory),
            machine.launch_seconds * 1e6,
            within(spread.launch),
            self.subject.device
        )
    }
}

/// Milliseconds to the microsecond.
pub(super) fn ms(seconds: f64) -> String {
    format!("{:.3}", seconds * 1e3)
}

pub(super) fn percent(part: f64) -> String {
    format!("{:.1}%", part * 100.0)
}

/// GFLOP/s and GB/s.
pub(super) fn rates(flops: u64, bytes: u64, seconds: f64) -> [String; 2] {
    [flops, bytes].map(|n| format!("{:.1}", n as f64 / seconds.max(f64::MIN_POSITIVE) / 1e9))
}
