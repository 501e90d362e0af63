//! Values that are computed twice, so that they need not lie in memory in between.
//!
//! What a step's first half makes and its second half reads again, such as the transform of a filter that the
//! gradient is multiplied with too, lies across the moment at which most memory is in use. Where the kernel that
//! makes it is cheap and what that reads is still there, the late readers get a copy that is made just before them:
//!
//! ```text
//! filter → points ─▶ product … peak … ─▶ gradient's product
//! filter → points ─▶ product … peak … filter → points again ─▶ gradient's product
//! ```
//!
//! A copy is made only if it lowers the peak, and all copies together may take a small share of the entry's time by
//! the cost model. They compute the same bits.

use super::assemble::Assembled;
use super::improve::improve;
use super::live::{Accesses, Live};
use super::order;
use crate::kernel::body::{Body, BufferId, Kernel};
use crate::kernel::cost::Machine;
use crate::kernel::schedule::{Buffer, BufferRole};
use std::collections::{BTreeSet, HashSet};

/// Copies that are made at most.
const MOST: usize = 32;
/// Of more kernels nothing is computed twice: each copy is weighed against the whole order.
const MOST_KERNELS: usize = 1024;
/// The part of the peak that a value must at least be to be worth it.
const WORTH: usize = 64;

/// Has sorted kernels compute values again where that lowers the peak of memory, for at most `percent` of the time
/// that all take. The kernels stay sorted.
pub fn recompute(work: &mut Assembled, percent: usize) {
    let seconds = |kernel: &Kernel, buffers: &[Buffer]| Machine::NOMINAL.kernel_seconds(kernel, buffers);
    let total: f64 = work.kernels.iter().map(|kernel| seconds(kernel, &work.buffers)).sum();
    let mut left = total * percent as f64 / 100.0;
    let most = if work.kernels.len() > MOST_KERNELS { 0 } else { MOST };
    for _ in 0..most {
        let accesses = Accesses::of(work);
        let sorted: Vec<usize> = (0..work.kernels.len()).collect();
        let now = accesses.live(&sorted);
        let candidates = candidates(work, &accesses, &sorted).into_iter().filter_map(|again| {
            let cost = seconds(&work.kernels[again.kernel], &work.buffers);
            let live = again.live(work, &accesses);
            (cost <= left && live.peak < now.peak).then_some((live, cost, again))
        });
        let best = candidates.min_by(|a, b| a.0.peak.cmp(&b.0.peak).then(a.1.total_cmp(&b.1)));
        let Some((_, cost, again)) = best else { break };
        left -= cost;
        again.apply(work);
        improve(work);
    }
}

/// A value that could be computed twice.
#[derive(Debug)]
struct Again {
    value: BufferId,
    /// What computes it.
    kernel: usize,
    /// Those that would read the copy, in their order. It is made before the first.
    late: Vec<usize>,
}

/// Values that are live at the peak, are not touched there, and are read before and after it, where what computes them
/// computes nothing else and would find its operands as they were.
fn candidates(work: &Assembled, accesses: &Accesses, sorted: &[usize]) -> Vec<Again> {
    let (mut peak, mut most) = (0, 0);
    accesses.walk(sorted, |place, bytes| {
        if bytes > most {
            (peak, most) = (place, bytes);
        }
    });
    let mut readers = vec![Vec::new(); work.buffers.len()];
    for (k, kernel) in work.kernels.iter().enumerate() {
        kernel.reads.iter().for_each(|b| readers[b.index()].push(k));
    }
    let candidate = |(k, kernel): (usize, &Kernel)| {
        let [value] = kernel.writes[..] else { return None };
        let is_there = |b: &BufferId| {
            let role = &work.buffers[b.index()].role;
            !matches!(role, BufferRole::Output | BufferRole::Workspace)
        };
        // A product is worth more than the memory of what it gives.
        let is_product = matches!(kernel.body, Body::Contraction(_));
        let is_plain = !is_product
            && work.buffers[value.index()].role == BufferRole::Temporary
            && kernel.choice.workspace.is_empty();
        let is_large = work.buffers[value.index()].bytes() >= most / WORTH;
        if !is_plain || !is_large || !kernel.reads.iter().all(is_there) || kernel.reads.contains(&value) {
            return None;
        }
        let readers = &readers[value.index()];
        let (early, late) = readers.split_at(readers.partition_point(|&reader| reader <= peak));
        let first = *late.first().filter(|_| early.last().is_some_and(|&last| last < peak))?;
        let overwrites = |by: &Kernel| kernel.reads.iter().any(|read| by.writes.binary_search(read).is_ok());
        let is_unchanged = !work.kernels[k + 1..first].iter().any(overwrites);
        is_unchanged.then(|| Again { value, kernel: k, late: late.to_vec() })
    };
    work.kernels[..peak].iter().enumerate().filter_map(candidate).collect()
}

impl Again {
    fn order(&self, kernels: usize) -> Vec<usize> {
        let first = self.late[0];
        (0..first).chain([kernels]).chain(first..kernels).collect()
    }

    /// What would be live.
    fn live(&self, work: &Assembled, accesses: &Accesses) -> Live {
        accesses.with_copy(self.kernel, self.value.index(), &self.late).live(&self.order(work.kernels.len()))
    }

    fn apply(self, work: &mut Assembled) {
        let (original, copy) = (self.value, BufferId::new(work.buffers.len()));
        let order = self.order(work.kernels.len());
        let renamed = |kernel: &Kernel| {
            let mut name = |b: BufferId| if b == original { copy } else { b };
            let mut reads: Vec<BufferId> = kernel.reads.iter().map(|&b| name(b)).collect();
            let mut writes: Vec<BufferId> = kernel.writes.iter().map(|&b| name(b)).collect();
            reads.sort_unstable();
            writes.sort_unstable();
            Kernel { body: kernel.body.clone().map(&mut name), reads, writes, ..kernel.clone() }
        };
        let index = work.kernels.len();
        let taken: HashSet<&str> = work.kernels.iter().map(|kernel| kernel.name.as_str()).collect();
        let mut again = renamed(&work.kernels[self.kernel]);
        let first = without_time(&again.name).to_string();
        let mut time = 1;
        while taken.contains(again.name.as_str()) {
            let of_time = if time == 1 { String::new() } else { format!("_{time}") };
            again.name = format!("{first}_again{of_time}");
            time += 1;
        }
        for &late in &self.late {
            work.kernels[late] = renamed(&work.kernels[late]);
            let overwrites_operand = work.kernels[late].writes.iter().any(|b| again.reads.contains(b));
            if !overwrites_operand {
                work.before[late].remove(&self.kernel);
            }
            work.before[late].insert(index);
        }
        // Its operands stay as they are until it has run.
        for later in self.late[0]..index {
            if work.kernels[later].writes.iter().any(|b| again.reads.contains(b)) {
                work.before[later].insert(index);
            }
        }
        let before: BTreeSet<usize> = work.before[self.kernel].clone();
        work.buffers.push(work.buffers[original.index()].clone());
        work.kernels.push(again);
        work.before.push(before);
        order::apply(work, &order);
    }
}

/// The name of what a copy is of.
fn without_time(name: &str) -> &str {
    match name.rsplit_once("_again") {
        Some((original, time))
            if time.is_empty() || time.strip_prefix('_').is_some_and(|n| n.parse::<u32>().is_ok()) =>
        {
            original
        }
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use crate::exec::cpu::CpuDevice;
    use crate::exec::{Device, TensorMut, TensorRef};
    use crate::ir::text::parse;
    use crate::kernel::target::{Fusion, Policy, Strategy};
    use crate::plan::Plan;
    use crate::testing::conformance::plan_of;
    use std::sync::Arc;

    /// `%v` is read by the first and the last product; in between the large `%b` is live.
    const ACROSS: &str = r#"graph g {
        %x: f32[128,128] = input "x"
        %m: f32[128,2048] = input "m"
        %n: f32[2048,128] = input "n"
        %w: f32[128,128] = state "w"
        %e: f32[128,128] = exp %w
        %v: f32[128,128] = exp %e
        %a: f32[128,128] = matmul %x %v
        %b: f32[128,2048] = matmul %a %m
        %c: f32[128,128] = matmul %b %n
        %d: f32[128,128] = matmul %c %v
        output d = %d
    }"#;

    fn plan(text: &str, recompute_percent: Option<usize>) -> Arc<Plan> {
        let strategy = Strategy::from(Fusion::On);
        plan_of(&parse(text).unwrap(), Strategy { policy: Policy { recompute_percent, ..strategy.policy }, ..strategy })
    }

    fn copies(plan: &Plan) -> Vec<&str> {
        let names = plan.entries[0].schedule.kernels.iter().map(|kernel| kernel.name.as_str());
        names.filter(|name| name.contains("_again")).collect()
    }

    fn results(plan: &Arc<Plan>) -> Vec<u32> {
        let mut executor = CpuDevice::new(2).load(plan.clone()).unwrap();
        let numbers = |n: usize| (0..n).map(|i| ((i * 37 % 101) as f32 - 50.0) / 500.0).collect::<Vec<f32>>();
        for (i, state) in plan.states.iter().enumerate() {
            executor.write_state(i, TensorRef::f32(&numbers(state.ty.elements()))).unwrap();
        }
        let inputs: Vec<Vec<f32>> = plan.entries[0].inputs.iter().map(|i| numbers(i.ty.elements())).collect();
        executor.run(0, &inputs.iter().map(|input| TensorRef::f32(input)).collect::<Vec<_>>()).unwrap();
        let mut found = vec![0.0; 128 * 128];
        executor.read_output(0, 0, TensorMut::f32(&mut found)).unwrap();
        let mut bits: Vec<u32> = found.iter().map(|x| x.to_bits()).collect();
        for (i, state) in plan.states.iter().enumerate() {
            let mut found = vec![0.0; state.ty.elements()];
            executor.read_state(i, TensorMut::f32(&mut found)).unwrap();
            bits.extend(found.iter().map(|x| x.to_bits()));
        }
        bits
    }

    #[test]
    fn copies_are_numbered() {
        let names = ["x", "x_again", "x_again_2", "play_again_now"].map(super::without_time);
        assert_eq!(names, ["x", "x", "x", "play_again_now"]);
    }

    #[test]
    fn what_lies_across_the_peak_is_made_again() {
        let (kept, again) = (plan(ACROSS, Some(0)), plan(ACROSS, Some(100)));
        assert_eq!((copies(&kept), copies(&again)), (vec![], vec!["exp_v_again"]));
        let [before, after] = [&kept, &again].map(|plan| plan.entries[0].schedule.arena_bytes);
        assert_eq!(before - after, 128 * 128 * size_of::<f32>());
        assert_eq!(results(&kept), results(&again));
    }

    #[test]
    fn what_is_not_at_the_peak_is_kept() {
        // The peak is at the end, where the value is read.
        let late = ACROSS.replace("matmul %c %v", "matmul %a %v").replace("output d", "output c = %c\n output d");
        assert_eq!(copies(&plan(&late, Some(100))), [""; 0]);
        // It is small beside the peak.
        let small = ACROSS.replace("2048", "65536");
        assert_eq!(copies(&plan(&small, Some(100))), [""; 0]);
        // It is a product itself.
        let product = ACROSS.replace("exp %e", "matmul %e %e");
        assert_eq!(copies(&plan(&product, Some(100))), [""; 0]);
    }

    /// The copy is made of the old state, or not at all.
    #[test]
    fn operands_are_as_they_were() {
        for new in ["%a", "%c", "%d"] {
            let text =
                ACROSS.replace("output d", &format!("%u: f32[128,128] = add %w {new}\n update \"w\" = %u\n output d"));
            let (kept, again) = (plan(&text, Some(0)), plan(&text, Some(100)));
            assert_eq!(results(&kept), results(&again), "updated with {new}");
        }
    }
}
