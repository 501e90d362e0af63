//! The peak of memory: which buffers must be there together, why, and what computing one again would save and cost.

use super::profile::live_bytes;
use crate::kernel::body::BufferId;
use crate::kernel::cost::Machine;
use crate::kernel::schedule::{ALIGNMENT, Buffer, BufferRole, Schedule};
use serde::Serialize;
use std::collections::BTreeSet;

/// What shows that a schedule needs its memory.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Peak {
    /// The position of the first kernel at which most is live.
    pub at: usize,
    /// What is live there: no plan of this schedule can be smaller.
    pub bytes: usize,
    /// State that no kernel of this entry touches, and what fills state up to whole cache lines; part of the bytes.
    pub other_state: usize,
    /// All that is live there, the largest first.
    pub buffers: Vec<PeakBuffer>,
}

/// A buffer that is live at the peak.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PeakBuffer {
    pub buffer: usize,
    /// Up to the next cache line, where it is not state.
    pub bytes: usize,
    pub why: Why,
    pub again: Again,
}

/// Why a buffer is live at the peak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", content = "kernel", rename_all = "snake_case")]
pub enum Why {
    /// It is kept from run to run.
    State,
    /// The kernel at the peak reads it, writes it, or works in it.
    InUse,
    /// It is needed next by this kernel.
    NeededBy(usize),
    /// It is a result, which is kept to the end.
    Output,
}

/// What it would be to compute a buffer again after the peak.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Again {
    /// It is state or a result, or is in use at the peak.
    Never,
    /// It is an input, which nothing computes.
    Input,
    /// The kernel that makes it, or one before that, reads state that this kernel updates first.
    Overwritten { kernel: usize },
    Possible {
        /// The kernels that would run again, in their order.
        kernels: Vec<usize>,
        /// The least time that they take at the ceilings.
        seconds: f64,
        /// Bytes that would be free at the peak.
        bytes: usize,
        /// By how much the peak would fall at most: less than the bytes where as much is live at another kernel. The room of
        /// the kernels while they run again is not counted.
        falls: usize,
    },
}

/// The peak of a schedule; nothing where it has no kernels. `state_bytes` is all state, which lies at the start of the arena.
pub fn peak(schedule: &Schedule, state_bytes: usize, machine: &Machine) -> Option<Peak> {
    let live = live_bytes(schedule, state_bytes);
    let bytes = live.iter().copied().max()?;
    let at = live.iter().position(|&l| l == bytes)?;
    let uses = Uses::of(schedule);
    let looked = Looked { schedule, machine, live: &live, at, peak: bytes, uses: &uses };
    let is_live = |b: &&usize| {
        let Buffer { live: (from, to), .. } = schedule.buffers[**b];
        from <= at && at < to
    };
    let all: Vec<usize> = (0..schedule.buffers.len()).collect();
    let mut buffers: Vec<PeakBuffer> = all.iter().filter(is_live).map(|&b| looked.buffer(b)).collect();
    buffers.sort_by(|a, b| b.bytes.cmp(&a.bytes).then(a.buffer.cmp(&b.buffer)));
    let own_state: usize = buffers.iter().filter(|b| b.why == Why::State).map(|b| b.bytes).sum();
    Some(Peak { at, bytes, other_state: state_bytes.saturating_sub(own_state), buffers })
}

/// The kernels that write and read each buffer, in order.
struct Uses {
    writers: Vec<Vec<usize>>,
    readers: Vec<Vec<usize>>,
}

impl Uses {
    fn of(schedule: &Schedule) -> Uses {
        let mut uses = Uses {
            writers: vec![Vec::new(); schedule.buffers.len()],
            readers: vec![Vec::new(); schedule.buffers.len()],
        };
        for (k, kernel) in schedule.kernels.iter().enumerate() {
            kernel.reads.iter().for_each(|b| uses.readers[b.index()].push(k));
            kernel.writes.iter().for_each(|b| uses.writers[b.index()].push(k));
        }
        uses
    }

    /// The last kernel before `at` that writes the buffer.
    fn writer_before(&self, buffer: usize, at: usize) -> Option<usize> {
        let writers = &self.writers[buffer];
        writers[..writers.partition_point(|&k| k < at)].last().copied()
    }

    /// The first kernel from `from` on, and before `to`, that writes the buffer.
    fn writer_within(&self, buffer: usize, from: usize, to: usize) -> Option<usize> {
        let writers = &self.writers[buffer];
        writers.get(writers.partition_point(|&k| k < from)).copied().filter(|&k| k < to)
    }

    fn reader_after(&self, buffer: usize, at: usize) -> Option<usize> {
        let readers = &self.readers[buffer];
        readers.get(readers.partition_point(|&k| k <= at)).copied()
    }

    /// The last kernel before `at` that touches the buffer.
    fn touched_before(&self, buffer: usize, at: usize) -> Option<usize> {
        let readers = &self.readers[buffer];
        let reader = readers[..readers.partition_point(|&k| k < at)].last().copied();
        reader.max(self.writer_before(buffer, at))
    }
}

struct Looked<'s> {
    schedule: &'s Schedule,
    machine: &'s Machine,
    live: &'s [usize],
    at: usize,
    peak: usize,
    uses: &'s Uses,
}

/// What would have to be there for kernels to run again.
#[derive(Default)]
struct Needs {
    kernels: BTreeSet<usize>,
    /// Buffers that would have to stay until then.
    kept: BTreeSet<usize>,
}

impl Looked<'_> {
    fn bytes_of(&self, b: usize) -> usize {
        let buffer = &self.schedule.buffers[b];
        match buffer.role {
            BufferRole::State(_) => buffer.bytes(),
            BufferRole::Input(_) | BufferRole::Output | BufferRole::Temporary | BufferRole::Workspace => {
                buffer.bytes().next_multiple_of(ALIGNMENT)
            }
        }
    }

    fn buffer(&self, b: usize) -> PeakBuffer {
        let buffer = &self.schedule.buffers[b];
        let kernel = &self.schedule.kernels[self.at];
        let id = BufferId::new(b);
        let is_touched = kernel.reads.contains(&id) || kernel.writes.contains(&id);
        let next = self.uses.reader_after(b, self.at).or_else(|| self.uses.writer_within(b, self.at + 1, usize::MAX));
        let (why, again) = match (&buffer.role, next) {
            (BufferRole::State(_), _) => (Why::State, Again::Never),
            _ if is_touched || buffer.role == BufferRole::Workspace => (Why::InUse, Again::Never),
            (BufferRole::Output, next) => (next.map_or(Why::Output, Why::NeededBy), Again::Never),
            (BufferRole::Input(_), Some(next)) => (Why::NeededBy(next), Again::Input),
            (BufferRole::Input(_), None) => (Why::Output, Again::Input),
            (BufferRole::Temporary | BufferRole::Workspace, Some(next)) => (Why::NeededBy(next), self.again(b, next)),
            (BufferRole::Temporary | BufferRole::Workspace, None) => (Why::InUse, Again::Never),
        };
        PeakBuffer { buffer: b, bytes: self.bytes_of(b), why, again }
    }

    fn again(&self, b: usize, next: usize) -> Again {
        let mut needs = Needs::default();
        if let Err(kernel) = self.needs(b, self.at, next, &mut needs) {
            return Again::Overwritten { kernel };
        }
        // Live from its last use before the peak to the kernel that needs it: there it would not be.
        let from = self.uses.touched_before(b, self.at).map_or(0, |k| k + 1);
        let mut live = self.live.to_vec();
        live[from..next].iter_mut().for_each(|l| *l -= self.bytes_of(b));
        let mut bytes = self.bytes_of(b) as isize;
        for &kept in &needs.kept {
            let end = self.schedule.buffers[kept].live.1;
            if end < next {
                live[end..next].iter_mut().for_each(|l| *l += self.bytes_of(kept));
            }
            if end <= self.at {
                bytes -= self.bytes_of(kept) as isize;
            }
        }
        let peak = live.iter().copied().max().unwrap_or(0);
        let Schedule { kernels, buffers, .. } = self.schedule;
        let seconds = needs.kernels.iter().map(|&k| self.machine.kernel_seconds(&kernels[k], buffers)).sum();
        Again::Possible {
            kernels: needs.kernels.into_iter().collect(),
            seconds,
            bytes: bytes.max(0) as usize,
            falls: self.peak.saturating_sub(peak),
        }
    }

    /// Collects what it takes to have the value again that a buffer has at a position, just before `next`.
    ///
    /// # Errors
    /// The kernel that overwrites state which would be needed.
    fn needs(&self, buffer: usize, at: usize, next: usize, needs: &mut Needs) -> Result<(), usize> {
        let mut stack = vec![(buffer, at)];
        while let Some((b, before)) = stack.pop() {
            let Some(maker) = self.uses.writer_before(b, before) else { continue };
            if !needs.kernels.insert(maker) {
                continue;
            }
            for operand in self.schedule.kernels[maker].reads.iter().map(|b| b.index()) {
                let Buffer { role, live, .. } = &self.schedule.buffers[operand];
                let overwritten = self.uses.writer_within(operand, maker, next);
                match (role, overwritten) {
                    (BufferRole::State(_), Some(kernel)) => return Err(kernel),
                    (BufferRole::State(_), None) => {}
                    // As it was, and there at the peak: it may stay a little longer.
                    (_, None) if live.0 <= self.at && self.at < live.1 && operand != buffer => {
                        needs.kept.insert(operand);
                    }
                    (BufferRole::Input(_), None) => {
                        needs.kept.insert(operand);
                    }
                    (BufferRole::Input(_), Some(kernel)) => return Err(kernel),
                    (BufferRole::Output | BufferRole::Temporary | BufferRole::Workspace, _) => {
                        stack.push((operand, maker))
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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

    const SQUARE: usize = 128 * 128 * 4;

    fn plan(text: &str) -> Arc<Plan> {
        let strategy = Strategy::from(Fusion::On);
        let policy = Policy { recompute_percent: None, ..strategy.policy };
        plan_of(&parse(text).unwrap(), Strategy { policy, ..strategy })
    }

    fn peak_of(plan: &Plan) -> Peak {
        peak(&plan.entries[0].schedule, plan.state_layout.bytes, &Machine::NOMINAL).unwrap()
    }

    fn named<'p>(plan: &Plan, peak: &'p Peak, name: &str) -> &'p PeakBuffer {
        let buffers = &plan.entries[0].schedule.buffers;
        peak.buffers.iter().find(|b| buffers[b.buffer].name == name).unwrap_or_else(|| panic!("no {name} at the peak"))
    }

    #[test]
    fn the_peak_is_what_its_buffers_come_to() {
        for program in crate::declare::builtin::NAMES {
            let text = crate::declare::builtin::text(program).unwrap();
            let observed = crate::inspect::observe(program, text, &[], None).unwrap();
            for entry in &observed.plan.entries {
                let found = peak(&entry.schedule, observed.plan.state_layout.bytes, &Machine::NOMINAL).unwrap();
                let sum: usize = found.buffers.iter().map(|b| b.bytes).sum();
                assert_eq!(found.bytes, sum + found.other_state, "{program} {}", entry.name);
                assert_eq!(found.bytes, entry.schedule.lower_bound, "{program} {}", entry.name);
                for b in &found.buffers {
                    if let Again::Possible { kernels, seconds, bytes, falls } = &b.again {
                        assert!(!kernels.is_empty() && *seconds > 0.0, "{program} {b:?}");
                        assert!(bytes <= &b.bytes && falls <= &b.bytes, "{program} {b:?}");
                    }
                }
            }
        }
    }

    /// The same value that [`crate::schedule::recompute`] would choose, and what it would save.
    #[test]
    fn a_value_across_the_peak_can_be_computed_again() {
        let plan = plan(ACROSS);
        let schedule = &plan.entries[0].schedule;
        let found = peak_of(&plan);
        let v = named(&plan, &found, "v");
        let maker = schedule.kernels.iter().position(|k| k.nodes.contains(&"v".to_string())).unwrap();
        let user = schedule.kernels.iter().position(|k| k.nodes.contains(&"d".to_string())).unwrap();
        assert_eq!(v.why, Why::NeededBy(user));
        let Again::Possible { kernels, seconds, bytes, falls } = &v.again else { panic!("{v:?}") };
        assert_eq!((&kernels[..], *bytes, *falls), (&[maker][..], SQUARE, SQUARE));
        assert_eq!(*seconds, Machine::NOMINAL.kernel_seconds(&schedule.kernels[maker], &schedule.buffers));
        // The product is in use there, and state is always.
        assert_eq!((named(&plan, &found, "b").why, named(&plan, &found, "w").why), (Why::InUse, Why::State));
        // And that is what recomputation reaches.
        let strategy = Strategy::from(Fusion::On);
        let policy = Policy { recompute_percent: Some(100), ..strategy.policy };
        let again = plan_of(&parse(ACROSS).unwrap(), Strategy { policy, ..strategy });
        assert_eq!(found.bytes - peak_of(&again).bytes, *falls);
    }

    #[test]
    fn updated_state_is_not_there_any_more() {
        // `w` is updated, in place, before `v` is needed again.
        let text = ACROSS.replace("output d", "%u: f32[128,128] = add %w %a\n update \"w\" = %u\n output d");
        let plan = plan(&text);
        let schedule = &plan.entries[0].schedule;
        let found = peak_of(&plan);
        let update = schedule.kernels.iter().position(|k| k.nodes.contains(&"u".to_string())).unwrap();
        let user = schedule.kernels.iter().position(|k| k.nodes.contains(&"d".to_string())).unwrap();
        let v = named(&plan, &found, "v");
        if update < user {
            assert_eq!(v.again, Again::Overwritten { kernel: update });
        } else {
            assert!(matches!(v.again, Again::Possible { .. }), "{v:?}");
        }
    }

    /// What is made from a value that is gone at the peak needs that again too.
    #[test]
    fn what_is_gone_is_computed_again_too() {
        let text = ACROSS
            .replace("%v: f32[128,128] = exp %e", "%p: f32[128,128] = matmul %e %x\n %v: f32[128,128] = matmul %p %p");
        let plan = plan(&text);
        let schedule = &plan.entries[0].schedule;
        let found = peak_of(&plan);
        let v = named(&plan, &found, "v");
        let Again::Possible { kernels, bytes, .. } = &v.again else { panic!("{v:?}") };
        let of = |node: &str| schedule.kernels.iter().position(|k| k.nodes.contains(&node.to_string())).unwrap();
        assert!(kernels.contains(&of("p")) && kernels.contains(&of("v")), "{kernels:?}");
        // The input `x` is free at the peak now: it would have to stay.
        let x = schedule.buffers.iter().find(|b| b.name == "x").unwrap();
        let freed = if x.live.1 <= found.at { 0 } else { SQUARE };
        assert_eq!(*bytes, freed);
    }
}
