//! What this machine can do at most, measured.

use super::Memory;
use super::caches::caches;
use super::gemm::{self, Isa, Product, Rows, Words};
use super::pool::Pool;
use crate::exec::{Ceilings, ExecError, Spread};
use crate::plan::Machine;
use crate::tensor::Bf16;
use std::hint::black_box;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Floats in each of the three arrays of the bandwidth test: together far more than a cache holds.
const STREAM: usize = 16 << 20;
/// Depth and panels of the product in the arithmetic test: its operands stay in the first level of cache.
const DEPTH: usize = 256;
const PRODUCTS: usize = 500;
/// What the memory is for, in a message.
const MEASURED: &str = "the measurement of ceilings";
/// Rounds of each test at least, and for how long there are more.
const ROUNDS: usize = 8;
const TEST: Duration = Duration::from_millis(500);
/// How long each thread computes in a round of the arithmetic test.
const ROUND: Duration = Duration::from_millis(50);

/// Measures the ceilings of this machine for a number of threads, in about three seconds.
///
/// Arithmetic: multiply-adds of the widest vectors of `isa` on operands in the nearest cache, each thread timed by itself;
/// `with_bf16` also those of pairs of bf16, as matrix products of bf16 do them, in half a second more.
/// Memory: the triad `a = b + s·c` of the STREAM benchmark (McCalpin, 1995), counted as two reads and one write. Launch: a
/// kernel with a task for each thread and nothing in it. Caches: the same triad over what fits them. Each test runs
/// several rounds, and the best counts: a ceiling is what nothing else got in the way of.
///
/// # Errors
/// When there is no memory for the arrays.
pub fn ceilings(threads: usize, isa: Isa, with_bf16: bool) -> Result<Ceilings, ExecError> {
    let pool = Pool::new(threads);
    let (flops, waiting) = arithmetic(&pool, isa, Words::F32)?;
    let bf16 = if with_bf16 { Some(arithmetic(&pool, isa, Words::Bf16Pairs)?) } else { None };
    let bytes = bandwidth(&pool)?;
    let caches = caches(&pool)?;
    let launch = launch(&pool);
    Ok(Ceilings {
        machine: Machine {
            flops_per_second: flops.best,
            tf32_flops_per_second: None,
            bf16_flops_per_second: bf16.as_ref().map(|(rate, _)| rate.best),
            bytes_per_second: bytes.best,
            caches,
            launch_seconds: 1.0 / launch.best,
        },
        spread: Spread {
            arithmetic: flops.spread,
            bf16: bf16.as_ref().map_or(0.0, |(rate, _)| rate.spread),
            memory: bytes.spread,
            launch: launch.spread,
            waiting: bf16.map_or(waiting, |(_, of_bf16)| waiting.max(of_bf16)),
            ..Spread::default()
        },
    })
}

/// The rates of several rounds.
pub(super) struct Rate {
    pub best: f64,
    /// How far the third best is below, as a part of 1.
    pub spread: f64,
}

fn rounds(mut rate: impl FnMut() -> f64) -> Rate {
    let begun = Instant::now();
    let mut rates = Vec::new();
    while rates.len() < ROUNDS || begun.elapsed() < TEST {
        rates.push(rate());
    }
    rates.sort_by(|a, b| b.total_cmp(a));
    Rate { best: rates[0], spread: 1.0 - rates[2] / rates[0] }
}

/// Seconds that this thread was ready to run and had no core, where Linux says so.
fn waited() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().nth(1)?.parse::<f64>().ok().map(|nanoseconds| nanoseconds * 1e-9)
}

/// Multiply-adds a second of all threads, and the part of the time that they waited for a core.
fn arithmetic(pool: &Pool, isa: Isa, words: Words) -> Result<(Rate, f64), ExecError> {
    let (rows, columns) = isa.tile_of(words);
    let (a, b, terms) = match words {
        Words::F32 => (0.5, 0.25, 1),
        Words::Bf16Pairs => {
            let pair = |x: f32| gemm::pair(Bf16::from_f32(x), Bf16::from_f32(x));
            (pair(0.5), pair(0.25), 2)
        }
    };
    let starts: Vec<usize> = (0..rows).map(|row| row * DEPTH).collect();
    let a = vec![a; rows * DEPTH];
    let mut memory = Memory::new(DEPTH * columns * size_of::<f32>(), MEASURED)?;
    memory.floats().fill(b);
    let b = &*memory.floats();
    let products = |c: &mut [f32]| {
        let rows = || Rows { data: black_box(&a), starts: &starts, step: 1 };
        for _ in 0..PRODUCTS {
            let product =
                Product { words, rows: rows(), offset: 0, depth: DEPTH, columns: b, panels: 1, accumulate: false };
            gemm::block(isa, &product, black_box(&mut c[..starts.len() * columns]));
        }
    };
    let work = (PRODUCTS * 2 * terms * rows * columns * DEPTH) as f64;
    let sums = Mutex::new((0.0, 0.0));
    let rate = rounds(|| {
        let rates = Mutex::new(0.0);
        // A thread that loses its core for a while costs no other thread's rate.
        pool.run(pool.threads(), &|_, _| {
            let mut c = [0f32; gemm::MAX_ROWS * 64];
            let (begun, waited_before) = (Instant::now(), waited());
            let mut best = f64::INFINITY;
            while begun.elapsed() < ROUND {
                let started = Instant::now();
                products(&mut c);
                best = best.min(started.elapsed().as_secs_f64());
            }
            let waited = waited_before.zip(waited()).map_or(0.0, |(before, after)| after - before);
            *rates.lock().unwrap_or_else(PoisonError::into_inner) += work / best;
            let mut sums = sums.lock().unwrap_or_else(PoisonError::into_inner);
            *sums = (sums.0 + waited, sums.1 + begun.elapsed().as_secs_f64());
        });
        rates.into_inner().unwrap_or_else(PoisonError::into_inner)
    });
    let (waited, all) = sums.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok((rate, waited / all.max(f64::MIN_POSITIVE)))
}

fn bandwidth(pool: &Pool) -> Result<Rate, ExecError> {
    moved(pool, STREAM.div_ceil(pool.threads()), 1)
}

/// Bytes a second of all threads together in the triad `a = b + s·c`, each so many times over three arrays of its own, of
/// so many floats.
pub(super) fn moved(pool: &Pool, floats: usize, passes: usize) -> Result<Rate, ExecError> {
    let of_thread = 3 * floats;
    let mut memory = Memory::new(pool.threads() * of_thread * size_of::<f32>(), MEASURED)?;
    // Pages that nobody has written would all be read from one.
    memory.floats().fill(1.0);
    let parts: Vec<_> = memory.floats().chunks_mut(of_thread).map(Mutex::new).collect();
    Ok(rounds(|| {
        let started = Instant::now();
        pool.run(parts.len(), &|part, _| {
            let mut part = parts[part].lock().unwrap_or_else(PoisonError::into_inner);
            let (a, rest) = part.split_at_mut(floats);
            let (b, c) = rest.split_at(floats);
            for _ in 0..passes {
                let (a, b, c) = (black_box(&mut *a), black_box(b), black_box(c));
                a.iter_mut().zip(b.iter().zip(c)).for_each(|(a, (b, c))| *a = b + 0.5 * c);
            }
        });
        (parts.len() * passes * of_thread * size_of::<f32>()) as f64 / started.elapsed().as_secs_f64().max(1e-9)
    }))
}

/// Launches a second.
fn launch(pool: &Pool) -> Rate {
    const LAUNCHES: usize = 500;
    rounds(|| {
        let started = Instant::now();
        for _ in 0..LAUNCHES {
            pool.run(pool.threads(), &|task, _| {
                black_box(task);
            });
        }
        LAUNCHES as f64 / started.elapsed().as_secs_f64()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Caches;

    #[test]
    fn ceilings_are_those_of_a_computer() {
        let Ceilings { machine, spread } = ceilings(1, Isa::detect(), true).unwrap();
        let bf16 = machine.bf16_flops_per_second.expect("measured");
        let figures = [machine.flops_per_second, bf16, machine.bytes_per_second, machine.launch_seconds];
        let Caches { second_level, last_level } = machine.caches;
        assert!(second_level.into_iter().chain(last_level).all(|rate| rate.is_finite() && rate > 0.0), "{machine:?}");
        assert!(figures.iter().all(|figure| figure.is_finite() && *figure > 0.0), "{machine:?}");
        let parts = [spread.arithmetic, spread.bf16, spread.memory, spread.launch, spread.waiting];
        assert!(parts.iter().all(|part| (0.0..=1.0).contains(part)), "{spread:?}");
    }

    /// Two measurements agree, or say that they may not.
    #[test]
    fn ceilings_repeat_or_say_that_the_machine_is_busy() {
        let (a, b) = (ceilings(2, Isa::detect(), false).unwrap(), ceilings(2, Isa::detect(), false).unwrap());
        let close = |x: f64, y: f64| (x / y - 1.0).abs() < 0.05;
        let is_busy = a.spread.busy().is_some() || b.spread.busy().is_some();
        let arithmetic = close(a.machine.flops_per_second, b.machine.flops_per_second);
        let memory = close(a.machine.bytes_per_second, b.machine.bytes_per_second);
        assert!(is_busy || (arithmetic && memory), "{a:?} {b:?}");
    }
}
