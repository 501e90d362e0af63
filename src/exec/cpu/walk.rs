//! How a nest's space is walked, and cut into tasks: by its sizes alone.

use super::tile_program::TILE;
use crate::types::MAX_RANK;

/// Full-space points that one task should have at least, so that handing it out costs nothing.
pub const TASK_POINTS: usize = 16 * TILE;
/// Floats of one buffer that a kept tile reads in a sweep: they stay in a second-level cache until the next one.
const SWEEP_FLOATS: usize = 32 * 1024;

/// How a nest's space is walked.
#[derive(Debug)]
pub enum Walk {
    /// Nothing is reduced.
    Elementwise { points: usize },
    /// The innermost dimensions are reduced: a task is some kept points, each swept alone.
    Rows {
        kept: Positions,
        points_per_task: usize,
        /// Consecutive reduced points.
        run: usize,
        /// Where each run starts, relative to its kept point's first.
        runs: Positions,
    },
    /// The innermost dimensions are kept: a task is a tile of consecutive kept points, and each step of a
    /// sweep is one row of as many points.
    Columns {
        kept: Positions,
        /// Consecutive kept points, cut into tiles of `tile`.
        run: usize,
        tile: usize,
        /// Where each row starts, relative to the tile's first.
        rows: Positions,
    },
}

impl Walk {
    /// How a space is walked of which some dimensions are reduced.
    pub fn new(space: &[usize], reduced: &[bool]) -> Walk {
        let strides = row_major(space);
        let dims = |of_reduced: bool| -> Vec<(usize, usize)> {
            let varies = |&d: &usize| reduced[d] == of_reduced && space[d] != 1;
            (0..space.len()).filter(varies).map(|d| (space[d], strides[d])).collect()
        };
        let (kept_dims, reduced_dims) = (dims(false), dims(true));
        let kept = Positions::new(&kept_dims);
        let innermost = (0..space.len()).rev().find(|&d| space[d] != 1);
        match innermost {
            _ if !reduced.contains(&true) => Walk::Elementwise { points: space.iter().product() },
            Some(d) if !reduced[d] => {
                let (run, _) = inner_run(&kept_dims);
                let rows = Positions::new(&reduced_dims);
                let tile = (SWEEP_FLOATS / rows.count).clamp(16, TILE) / 16 * 16;
                Walk::Columns { kept, run, tile, rows }
            }
            _ => {
                let (run, outer) = inner_run(&reduced_dims);
                let runs = Positions::new(&reduced_dims[..outer]);
                let points_per_task = (TASK_POINTS / (run * runs.count)).clamp(1, kept.count);
                Walk::Rows { kept, points_per_task, run, runs }
            }
        }
    }

    /// How many tasks the space is cut into.
    pub fn tasks(&self) -> usize {
        match self {
            Walk::Elementwise { points } => points.div_ceil(TASK_POINTS),
            Walk::Rows { kept, points_per_task, .. } => kept.count.div_ceil(*points_per_task),
            Walk::Columns { kept, run, tile, .. } => kept.count / run * run.div_ceil(*tile),
        }
    }
}

fn row_major(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for d in (1..shape.len()).rev() {
        strides[d - 1] = strides[d] * shape[d];
    }
    strides
}

/// The number of consecutive points that the innermost dimensions make, and how many dimensions are
/// outside of them.
fn inner_run(dims: &[(usize, usize)]) -> (usize, usize) {
    let mut run = 1;
    let mut outer = dims.len();
    while outer > 0 && dims[outer - 1].1 == run {
        run *= dims[outer - 1].0;
        outer -= 1;
    }
    (run, outer)
}

/// The row-major positions of all points of some dimensions, in order. There may be as many as a tensor has elements,
/// so they are counted off, not listed.
#[derive(Debug)]
pub struct Positions {
    /// Size and stride of each dimension, outermost first.
    dims: Vec<(usize, usize)>,
    pub count: usize,
}

impl Positions {
    pub fn new(dims: &[(usize, usize)]) -> Positions {
        Positions { dims: dims.to_vec(), count: dims.iter().map(|d| d.0).product() }
    }

    /// One of them.
    pub fn at(&self, mut index: usize) -> usize {
        let mut position = 0;
        for &(size, stride) in self.dims.iter().rev() {
            position += index % size * stride;
            index /= size;
        }
        position
    }

    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        let mut index = [0usize; MAX_RANK];
        let mut position = 0;
        (0..self.count).map(move |_| {
            let current = position;
            for (i, &(size, stride)) in index.iter_mut().zip(&self.dims).rev() {
                *i += 1;
                position += stride;
                if *i < size {
                    break;
                }
                position -= size * stride;
                *i = 0;
            }
            current
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Positions;

    #[test]
    fn positions_are_counted_in_row_major_order() {
        let positions = |dims: &[(usize, usize)]| Positions::new(dims).iter().collect::<Vec<_>>();
        assert_eq!(positions(&[(3, 20), (2, 7)]), [0, 7, 20, 27, 40, 47]);
        assert_eq!(positions(&[]), [0]);
        assert_eq!((Positions::new(&[(3, 20), (2, 7)]).at(3), Positions::new(&[]).at(0)), (27, 0));
        let many = Positions::new(&[(1 << 20, 1 << 12), (1 << 10, 2)]);
        assert_eq!((many.count, many.iter().nth(1025)), (1 << 30, Some((1 << 12) + 2)));
    }
}
