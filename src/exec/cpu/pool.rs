//! A small thread pool whose `run` never allocates.
//!
//! A training step must not touch the allocator, which rules out work-stealing pools that box a job for every
//! injection. Here a job is a borrowed closure and an atomic counter: threads draw task numbers until none is left.
//!
//! A job is published through one atomic word, the *gate*: its upper half numbers the job, bit 31 says that nobody
//! may join any more, and the bits below count the workers inside. The caller takes part in its own job, so it never
//! depends on a worker waking up in time: once the tasks are drained it closes the gate and waits only for the
//! workers that did join. On a loaded machine a sleeping worker therefore costs parallelism, not latency.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// What a pool runs: called with (task index, worker index), from several threads at once.
pub type Task<'a> = dyn Fn(usize, usize) + Sync + 'a;

const CLOSED: u64 = 1 << 31;
const INSIDE: u64 = CLOSED - 1;
const JOB_SHIFT: u32 = 32;
/// Polls of the gate before a worker goes to sleep: some tens of microseconds, the gap between two kernels of a step.
const SPINS_BEFORE_SLEEP: usize = 3_000;
/// Polls before a caller that waits for its workers gives its core to them.
const SPINS_BEFORE_WAIT: usize = 2_000;

thread_local! {
    /// The pool (by address) and worker index this thread is running a task for, so that a task may call `run` itself.
    static INSIDE_TASK: Cell<Option<(usize, usize)>> = const { Cell::new(None) };
}

/// A fixed set of threads that run indexed tasks together with the calling thread.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Callers from several threads take turns.
    turn: Mutex<()>,
}

struct Shared {
    gate: AtomicU64,
    job: UnsafeCell<Job>,
    next: AtomicUsize,
    sleepers: AtomicUsize,
    caller_waits: AtomicBool,
    stop: AtomicBool,
    lock: Mutex<()>,
    wake: Condvar,
    done: Condvar,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

#[derive(Clone, Copy)]
struct Job {
    tasks: usize,
    /// The caller's closure with its lifetime erased. Only read between joining and leaving a job.
    body: Option<*const Task<'static>>,
}

// SAFETY: `job` is written by the one caller that holds `Pool::turn`, and only while the gate is closed with nobody
// inside; workers read it only after joining through an open gate (acquire on the caller's release).
unsafe impl Sync for Shared {}
// SAFETY: the raw pointer in `job` is to a `Sync` closure, see above for when it is used.
unsafe impl Send for Shared {}

impl Pool {
    /// A pool in which `threads` threads work, the caller of [`run`](Self::run) among them (0 counts as 1).
    ///
    /// A thread that the operating system refuses is left out: fewer threads give the same results.
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            gate: AtomicU64::new(CLOSED),
            job: UnsafeCell::new(Job { tasks: 0, body: None }),
            next: AtomicUsize::new(0),
            sleepers: AtomicUsize::new(0),
            caller_waits: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            lock: Mutex::new(()),
            wake: Condvar::new(),
            done: Condvar::new(),
            panic: Mutex::new(None),
        });
        let workers = (1..threads.max(1))
            .map_while(|index| {
                let shared = Arc::clone(&shared);
                std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || shared.work(index)).ok()
            })
            .collect();
        Self { shared, workers, turn: Mutex::new(()) }
    }

    /// How many threads run tasks; worker indices are below this.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `body(task, worker)` once for each `task < tasks` and returns when all calls have returned.
    ///
    /// No two calls with the same worker index overlap, so scratch can be indexed by it. Called from inside a task of
    /// the same pool, the tasks run there and then on that task's thread. A panic in a task is passed on to the caller
    /// once no thread is inside the job any more; tasks not yet begun are then dropped. Allocates nothing.
    pub fn run(&self, tasks: usize, body: &Task<'_>) {
        let identity = std::ptr::from_ref(&*self.shared).addr();
        if let Some((pool, worker)) = INSIDE_TASK.get()
            && pool == identity
        {
            return (0..tasks).for_each(|task| body(task, worker));
        }
        let _turn = lock(&self.turn);
        let _inside = Inside::enter(identity, 0);
        if tasks <= 1 || self.workers.is_empty() {
            return (0..tasks).for_each(|task| body(task, 0));
        }
        self.shared.publish(tasks, body);
        self.shared.drain(0);
        self.shared.close_and_wait();
        if let Some(payload) = lock(&self.shared.panic).take() {
            resume_unwind(payload);
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads()).finish()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        {
            let _guard = lock(&self.shared.lock);
            self.shared.wake.notify_all();
        }
        for worker in self.workers.drain(..) {
            // A worker catches the panics of tasks, so joining cannot fail for a reason worth reporting here.
            let _ = worker.join();
        }
    }
}

/// Marks the current thread as running tasks of a pool, until dropped.
struct Inside(Option<(usize, usize)>);

impl Inside {
    fn enter(pool: usize, worker: usize) -> Self {
        Self(INSIDE_TASK.replace(Some((pool, worker))))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE_TASK.set(self.0);
    }
}

impl Shared {
    fn publish(&self, tasks: usize, body: &Task<'_>) {
        // SAFETY: only the lifetime changes. `close_and_wait` returns before `body`'s borrow ends, and after it nobody
        // is inside the job nor can join it.
        let body = unsafe { std::mem::transmute::<*const Task<'_>, *const Task<'static>>(std::ptr::from_ref(body)) };
        // SAFETY: the gate is closed with nobody inside (the previous job was waited for) and `turn` is held.
        unsafe { *self.job.get() = Job { tasks, body: Some(body) } };
        self.next.store(0, Ordering::Relaxed);
        let number = (self.gate.load(Ordering::Relaxed) >> JOB_SHIFT).wrapping_add(1);
        self.gate.store(number << JOB_SHIFT, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            let _guard = lock(&self.lock);
            self.wake.notify_all();
        }
    }

    /// Runs tasks until none is left. The caller of this must be inside the job.
    fn drain(&self, worker: usize) {
        // SAFETY: inside the job, so it is not being written and the closure is alive.
        let Job { tasks, body } = unsafe { *self.job.get() };
        let Some(body) = body else { return };
        // SAFETY: as above.
        let body = unsafe { &*body };
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            loop {
                let task = self.next.fetch_add(1, Ordering::Relaxed);
                if task >= tasks {
                    break;
                }
                body(task, worker);
            }
        }));
        if let Err(payload) = outcome {
            self.next.store(tasks, Ordering::Relaxed);
            lock(&self.panic).get_or_insert(payload);
        }
    }

    fn close_and_wait(&self) {
        let mut gate = self.gate.fetch_or(CLOSED, Ordering::AcqRel) | CLOSED;
        let mut spins = 0;
        while gate & INSIDE != 0 {
            if spins < SPINS_BEFORE_WAIT {
                spins += 1;
                std::hint::spin_loop();
            } else {
                let mut guard = lock(&self.lock);
                self.caller_waits.store(true, Ordering::SeqCst);
                while self.gate.load(Ordering::SeqCst) & INSIDE != 0 {
                    guard = self.done.wait(guard).unwrap_or_else(PoisonError::into_inner);
                }
                self.caller_waits.store(false, Ordering::SeqCst);
            }
            gate = self.gate.load(Ordering::Acquire);
        }
    }

    /// Joins a job newer than `seen`, if there is an open one.
    fn join(&self, seen: u64) -> Option<u64> {
        let mut gate = self.gate.load(Ordering::SeqCst);
        while gate >> JOB_SHIFT != seen && gate & CLOSED == 0 {
            match self.gate.compare_exchange_weak(gate, gate + 1, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return Some(gate >> JOB_SHIFT),
                Err(now) => gate = now,
            }
        }
        None
    }

    fn leave(&self) {
        let before = self.gate.fetch_sub(1, Ordering::SeqCst);
        if before & CLOSED != 0 && before & INSIDE == 1 && self.caller_waits.load(Ordering::SeqCst) {
            let _guard = lock(&self.lock);
            self.done.notify_all();
        }
    }

    fn work(&self, index: usize) {
        let _inside = Inside::enter(std::ptr::from_ref(self).addr(), index);
        let mut seen = self.gate.load(Ordering::SeqCst) >> JOB_SHIFT;
        // A job published before this thread started is open to it: take the number before that one as seen.
        seen = seen.wrapping_sub(1) & (u64::MAX >> JOB_SHIFT);
        while !self.stop.load(Ordering::SeqCst) {
            if let Some(number) = self.poll(seen) {
                seen = number;
                self.drain(index);
                self.leave();
            }
        }
    }

    /// Waits for a job: by polling for a while, then asleep. `None` after waking up without one.
    fn poll(&self, seen: u64) -> Option<u64> {
        for _ in 0..SPINS_BEFORE_SLEEP {
            if let Some(number) = self.join(seen) {
                return Some(number);
            }
            std::hint::spin_loop();
        }
        let guard = lock(&self.lock);
        // Announced before the last look at the gate, as `publish` opens the gate before it looks for sleepers.
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let job = self.join(seen);
        if job.is_none() && !self.stop.load(Ordering::SeqCst) {
            drop(self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner));
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        job
    }
}

/// A poisoned lock guards no broken invariant here: the panic itself is carried to the caller.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_exactly_once() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads);
            for tasks in [0, 1, 2, 3, 100, 1000] {
                let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(tasks, &|task, worker| {
                    assert!(worker < threads);
                    counts[task].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn a_worker_index_is_used_by_one_thread_at_a_time() {
        let pool = Pool::new(4);
        let busy: Vec<AtomicBool> = (0..4).map(|_| AtomicBool::new(false)).collect();
        for _ in 0..200 {
            pool.run(64, &|_, worker| {
                assert!(!busy[worker].swap(true, Ordering::SeqCst));
                std::hint::spin_loop();
                busy[worker].store(false, Ordering::SeqCst);
            });
        }
    }

    #[test]
    fn jobs_follow_each_other_with_sleeping_workers() {
        let pool = Pool::new(3);
        let total = AtomicUsize::new(0);
        for round in 0..300 {
            pool.run(7, &|_, _| {
                total.fetch_add(1, Ordering::Relaxed);
            });
            if round % 60 == 0 {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
        assert_eq!(total.into_inner(), 2100);
    }

    #[test]
    fn several_threads_may_share_a_pool() {
        let pool = Pool::new(2);
        let total = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        pool.run(5, &|_, _| {
                            total.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(total.into_inner(), 1500);
    }

    #[test]
    fn a_task_may_run_tasks_of_the_same_pool() {
        let pool = Pool::new(2);
        let total = AtomicUsize::new(0);
        pool.run(4, &|_, outer| {
            pool.run(3, &|_, inner| {
                assert_eq!(outer, inner);
                total.fetch_add(1, Ordering::Relaxed);
            });
        });
        assert_eq!(total.into_inner(), 12);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(3);
        for _ in 0..20 {
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                pool.run(50, &|task, _| {
                    if task == 17 {
                        resume_unwind(Box::new("task 17"));
                    }
                })
            }));
            assert_eq!(outcome.unwrap_err().downcast_ref::<&str>(), Some(&"task 17"));
            let total = AtomicUsize::new(0);
            pool.run(50, &|_, _| {
                total.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(total.into_inner(), 50);
        }
    }
}
