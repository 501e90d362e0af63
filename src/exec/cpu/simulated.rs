//! How a step would scale to more threads than this machine has: its tasks, measured on one thread, are handed out as the
//! pool does.

use super::arena::Arena;
use super::{CpuDevice, CpuExecutor};
use crate::exec::{ExecError, Executor, TensorRef};
use crate::plan::Plan;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The tasks of a kernel that may run at the same time. Those of one set are complete before the next set begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskTimes {
    /// The kernel's number.
    pub kernel: usize,
    /// How long each task takes, in the order in which they are handed out.
    pub tasks: Vec<Duration>,
}

impl CpuDevice {
    /// The tasks of an entry, set by set, and the shortest time of each in so many runs on one thread. `before` is an entry
    /// that is run once before, with its inputs, such as one that initialises the state.
    ///
    /// # Errors
    /// As for loading and running a plan.
    pub fn task_times(
        &self,
        plan: Arc<Plan>,
        before: (usize, &[TensorRef]),
        (entry, inputs): (usize, &[TensorRef]),
        runs: usize,
    ) -> Result<Vec<TaskTimes>, ExecError> {
        let mut executor = CpuExecutor::new(plan, 1, self.isa)?;
        executor.run(before.0, before.1)?;
        let mut shortest: Vec<TaskTimes> = Vec::new();
        for run in 0..runs {
            executor.write_inputs(entry, inputs)?;
            let CpuExecutor { memory, entries, workers, .. } = &mut executor;
            // SAFETY: the plan was verified when the executor was built, the tasks run one after the other, and the memory
            // is borrowed for as long.
            let arena = unsafe { Arena::new(memory.all()) };
            let mut set = 0;
            for (kernel, program) in entries[entry].kernels.iter().enumerate() {
                CpuExecutor::kernel(program, arena, workers, &mut |tasks, body| {
                    if run == 0 {
                        shortest.push(TaskTimes { kernel, tasks: vec![Duration::MAX; tasks] });
                    }
                    for (task, shortest) in shortest[set].tasks.iter_mut().enumerate() {
                        let started = Instant::now();
                        body(task, 0);
                        *shortest = started.elapsed().min(*shortest);
                    }
                    set += 1;
                });
            }
        }
        Ok(shortest)
    }
}

/// How long the sets take on so many threads, each of which takes the next task as soon as it has none, and all of which meet
/// at the end of a set, which takes `meeting`. Memory is as fast as for one thread: where it is what a step waits for, that
/// is too good.
pub fn simulated(sets: &[TaskTimes], threads: usize, meeting: Duration) -> Duration {
    let set = |set: &TaskTimes| {
        let mut busy = vec![Duration::ZERO; threads.max(1).min(set.tasks.len().max(1))];
        for task in &set.tasks {
            if let Some(first) = busy.iter_mut().min() {
                *first += *task;
            }
        }
        let meeting = if busy.len() > 1 { meeting } else { Duration::ZERO };
        busy.into_iter().max().unwrap_or_default() + meeting
    };
    sets.iter().map(set).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn tasks_go_to_whoever_has_none_and_sets_wait_for_the_last() {
        let set = |tasks: &[u64]| TaskTimes { kernel: 0, tasks: tasks.iter().map(|&ms| MS(ms)).collect() };
        let sets = [set(&[4, 1, 1, 3]), set(&[2]), set(&[])];
        assert_eq!(simulated(&sets, 1, MS(7)), MS(11));
        // The second thread takes 1, 1 and 3 while the first is busy with 4.
        assert_eq!(simulated(&sets, 2, MS(0)), MS(5 + 2));
        assert_eq!(simulated(&sets, 2, MS(7)), MS(5 + 7 + 2));
        assert_eq!(simulated(&sets, 64, MS(0)), MS(4 + 2));
        assert_eq!(simulated(&sets, 0, MS(0)), MS(11), "no thread counts as one");
    }
}
