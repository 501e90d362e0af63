//! Distances between all pairs of two sets of points, block by block, on several threads.
//!
//! What a block gives depends on the block alone, and blocks are put together in their order: results have the same bits
//! for any number of threads.

use super::Matrix;
use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Points in one block.
pub(super) const BLOCK: usize = 512;

/// Does `tasks` tasks on at most `threads` threads, and gives their results in the order of the tasks. A thread that the
/// system refuses is left out.
pub(super) fn on_threads<T: Send>(threads: usize, tasks: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let take = || {
        let mut own = Vec::new();
        loop {
            let task = next.fetch_add(1, Ordering::Relaxed);
            if task >= tasks {
                return own;
            }
            own.push((task, work(task)));
        }
    };
    let mut done = thread::scope(|scope| {
        let others: Vec<_> = (1..threads.min(tasks))
            .filter_map(|_| thread::Builder::new().name("quality".into()).spawn_scoped(scope, take).ok())
            .collect();
        let mut done = take();
        for other in others {
            done.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        done
    });
    done.sort_by_key(|(task, _)| *task);
    done.into_iter().map(|(_, result)| result).collect()
}

/// The blocks of `count` points.
pub(super) fn blocks(count: usize) -> Vec<Range<usize>> {
    (0..count).step_by(BLOCK).map(|start| start..(start + BLOCK).min(count)).collect()
}

/// Points, one a column, with the squares of their lengths.
pub(super) struct Points<'m> {
    columns: &'m Matrix,
    squares: Vec<f64>,
}

impl<'m> Points<'m> {
    pub(super) fn new(columns: &'m Matrix) -> Points<'m> {
        let squares = columns.column_iter().map(|column| column.norm_squared()).collect();
        Points { columns, squares }
    }

    pub(super) fn len(&self) -> usize {
        self.squares.len()
    }

    /// Squared Euclidean distances `[own, others]` of some points to some of others: |x|² + |y|² - 2xy, never below 0.
    pub(super) fn squared_distances(&self, own: &Range<usize>, others: &Points, theirs: &Range<usize>) -> Matrix {
        let rows = self.columns.columns(own.start, own.len()).transpose();
        let mut distances = rows * others.columns.columns(theirs.start, theirs.len());
        for (mut column, other) in distances.column_iter_mut().zip(&others.squares[theirs.clone()]) {
            for (value, square) in column.iter_mut().zip(&self.squares[own.clone()]) {
                *value = (square + other - 2.0 * *value).max(0.0);
            }
        }
        distances
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_done_once_and_given_in_order() {
        for threads in [1, 3, 8] {
            assert_eq!(on_threads(threads, 5, |task| task * task), [0, 1, 4, 9, 16]);
            assert_eq!(on_threads(threads, 0, |task| task), [0; 0]);
        }
    }

    #[test]
    fn distances_are_those_of_the_definition() {
        let a = Matrix::from_column_slice(2, 3, &[0.0, 0.0, 3.0, 4.0, 1.0, -1.0]);
        let b = Matrix::from_column_slice(2, 2, &[0.0, 0.0, 3.0, 5.0]);
        let found = Points::new(&a).squared_distances(&(1..3), &Points::new(&b), &(0..2));
        assert_eq!(found, Matrix::from_row_slice(2, 2, &[25.0, 1.0, 2.0, 40.0]));
        assert_eq!(blocks(2 * BLOCK + 1), [0..BLOCK, BLOCK..2 * BLOCK, 2 * BLOCK..2 * BLOCK + 1]);
    }
}
