//! What is live while kernels run in some order.

use super::assemble::Assembled;
use super::select::workspace;
use crate::kernel::body::BufferId;
use crate::kernel::schedule::BufferRole;

/// What orders of kernels are compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Live {
    /// The largest sum of bytes of temporaries, outputs and workspace that are live together.
    pub peak: usize,
    /// The sum of what is live at each kernel.
    pub total: u128,
}

/// The temporaries and outputs that each kernel touches.
#[derive(Debug)]
pub(super) struct Accesses {
    kernels: Vec<KernelAccesses>,
    buffers: Vec<BufferBytes>,
}

#[derive(Debug, Clone, Default)]
struct KernelAccesses {
    /// What it writes and reads, by indices into the buffers.
    writes: Vec<usize>,
    reads: Vec<usize>,
    /// Bytes.
    workspace: usize,
}

#[derive(Debug, Clone, Copy)]
struct BufferBytes {
    bytes: usize,
    /// Whether it is needed until the end.
    is_output: bool,
}

impl Accesses {
    pub fn of(work: &Assembled) -> Accesses {
        let is_counted =
            |b: &BufferId| matches!(work.buffers[b.index()].role, BufferRole::Temporary | BufferRole::Output);
        let counted = |buffers: &[BufferId]| buffers.iter().filter(|b| is_counted(b)).map(|b| b.index()).collect();
        let kernels = work.kernels.iter().map(|kernel| KernelAccesses {
            writes: counted(&kernel.writes),
            reads: counted(&kernel.reads),
            workspace: workspace(kernel).map(|b| work.buffers[b.index()].bytes()).sum(),
        });
        let buffers = work
            .buffers
            .iter()
            .map(|buffer| BufferBytes { bytes: buffer.bytes(), is_output: buffer.role == BufferRole::Output });
        Accesses { kernels: kernels.collect(), buffers: buffers.collect() }
    }

    /// These, with one more kernel that does the same as `kernel` into a new buffer, which `readers` read in place of
    /// `buffer`.
    pub fn with_copy(&self, kernel: usize, buffer: usize, readers: &[usize]) -> Accesses {
        let (mut kernels, mut buffers) = (self.kernels.clone(), self.buffers.clone());
        let copy = buffers.len();
        buffers.push(buffers[buffer]);
        kernels.push(KernelAccesses { writes: vec![copy], ..kernels[kernel].clone() });
        for &reader in readers {
            kernels[reader].reads.iter_mut().filter(|b| **b == buffer).for_each(|b| *b = copy);
        }
        Accesses { kernels, buffers }
    }

    /// For kernels in this order, what is live.
    pub fn live(&self, order: &[usize]) -> Live {
        let mut live = Live { peak: 0, total: 0 };
        self.walk(order, |_, bytes| {
            live.peak = live.peak.max(bytes);
            live.total += bytes as u128;
        });
        live
    }

    /// Calls `at` with each place of the order and the bytes that are live there.
    pub fn walk(&self, order: &[usize], mut at: impl FnMut(usize, usize)) {
        const NEVER: usize = usize::MAX;
        let mut last_use = vec![NEVER; self.buffers.len()];
        for (place, &k) in order.iter().enumerate() {
            let KernelAccesses { writes, reads, .. } = &self.kernels[k];
            writes.iter().chain(reads).for_each(|&b| last_use[b] = place);
        }
        let mut is_live = vec![false; self.buffers.len()];
        let mut live = 0;
        for (place, &k) in order.iter().enumerate() {
            let KernelAccesses { writes, reads, workspace } = &self.kernels[k];
            for &b in writes {
                if !std::mem::replace(&mut is_live[b], true) {
                    live += self.buffers[b].bytes;
                }
            }
            at(place, live + workspace);
            for &b in writes.iter().chain(reads) {
                let BufferBytes { bytes, is_output } = self.buffers[b];
                if last_use[b] == place && !is_output && is_live[b] {
                    live -= bytes;
                    // Once, though it is both read and written.
                    last_use[b] = NEVER;
                }
            }
        }
    }
}
