//! What this machine can do at most, measured.

use super::Memory;
use super::gemm::{self, Isa, Product, Rows};
use super::pool::Pool;
use crate::exec::ExecError;
use crate::plan::Machine;
use std::hint::black_box;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Floats in each of the three arrays of the bandwidth test: together far more than a cache holds.
const STREAM: usize = 16 << 20;
/// Depth and panels of the product in the arithmetic test: its operands stay in the first level of cache.
const DEPTH: usize = 256;
const PRODUCTS: usize = 4_000;
/// Each test is repeated for so long, and the best counts: a ceiling is what nothing else got in the way of.
const TEST: Duration = Duration::from_millis(400);

/// Measures the ceilings of this machine for so many threads, in about two seconds.
///
/// Arithmetic: multiply-adds of the widest vectors on operands in the nearest cache. Memory: the triad `a = b + s·c` of
/// the STREAM benchmark (McCalpin, 1995), counted as two reads and one write. Launch: a kernel with a task for
/// each thread and nothing in it.
///
/// # Errors
/// When there is no memory for the arrays.
pub fn ceilings(threads: usize) -> Result<Machine, ExecError> {
    let pool = Pool::new(threads);
    Ok(Machine {
        flops_per_second: arithmetic(&pool)?,
        bytes_per_second: bandwidth(&pool)?,
        launch_seconds: launch(&pool),
    })
}

fn best(mut test: impl FnMut()) -> f64 {
    let begun = Instant::now();
    let mut best = f64::INFINITY;
    while begun.elapsed() < TEST {
        let started = Instant::now();
        test();
        best = best.min(started.elapsed().as_secs_f64());
    }
    best
}

fn arithmetic(pool: &Pool) -> Result<f64, ExecError> {
    let isa = Isa::detect();
    let (rows, columns) = isa.tile();
    let starts: Vec<usize> = (0..rows).map(|row| row * DEPTH).collect();
    let a = vec![0.5f32; rows * DEPTH];
    let mut b = Memory::new(DEPTH * columns * size_of::<f32>())?;
    b.floats().fill(0.25);
    let b = &*b.floats();
    let seconds = best(|| {
        pool.run(pool.threads(), &|_, _| {
            let mut c = [0f32; gemm::MAX_ROWS * 64];
            let rows = || Rows { data: black_box(&a), starts: &starts };
            for _ in 0..PRODUCTS {
                let product =
                    Product { rows: rows(), offset: 0, depth: DEPTH, columns: b, panels: 1, accumulate: false };
                gemm::block(isa, &product, black_box(&mut c[..starts.len() * columns]));
            }
        });
    });
    let products = (pool.threads() * PRODUCTS) as f64;
    Ok(products * (2 * rows * columns * DEPTH) as f64 / seconds)
}

fn bandwidth(pool: &Pool) -> Result<f64, ExecError> {
    let mut memory = Memory::new(3 * STREAM * size_of::<f32>())?;
    let (a, rest) = memory.floats().split_at_mut(STREAM);
    let (b, c) = rest.split_at_mut(STREAM);
    b.fill(1.0);
    c.fill(2.0);
    let share = STREAM.div_ceil(pool.threads());
    let parts: Vec<_> = a.chunks_mut(share).zip(b.chunks(share).zip(c.chunks(share))).map(Mutex::new).collect();
    let seconds = best(|| {
        pool.run(parts.len(), &|part, _| {
            let mut part = parts[part].lock().unwrap_or_else(PoisonError::into_inner);
            let (a, (b, c)) = &mut *part;
            a.iter_mut().zip(b.iter().zip(c.iter())).for_each(|(a, (b, c))| *a = b + 0.5 * c);
            black_box(&part);
        });
    });
    Ok((3 * STREAM * size_of::<f32>()) as f64 / seconds)
}

fn launch(pool: &Pool) -> f64 {
    const LAUNCHES: usize = 1_000;
    let seconds = best(|| {
        for _ in 0..LAUNCHES {
            pool.run(pool.threads(), &|task, _| {
                black_box(task);
            });
        }
    });
    seconds / LAUNCHES as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceilings_are_those_of_a_computer() {
        let machine = ceilings(1).unwrap();
        let figures = [machine.flops_per_second, machine.bytes_per_second, machine.launch_seconds];
        assert!(figures.iter().all(|figure| figure.is_finite() && *figure > 0.0), "{machine:?}");
    }
}
