//! How a nest's space is walked, and cut into tasks: by its sizes alone.

use super::tile::Segment;
use super::tile_program::TILE;
use crate::types::MAX_RANK;

/// Full-space points that one task should have at least, so that handing it out costs nothing.
pub const TASK_POINTS: usize = 16 * TILE;
/// Floats of one buffer that a kept tile reads in a sweep: they stay in a second-level cache until the next one.
const SWEEP_FLOATS: usize = 64 * 1024;
/// Points in a step of a sweep below which it costs more to call functions than to copy runs together.
const LEAST_POINTS: usize = 64;
/// Tasks that a large nest should have at least, whatever the machine.
const TASKS: usize = 16;

/// How a nest's space is walked.
#[derive(Debug)]
pub enum Walk {
    /// Nothing is reduced.
    Elementwise { points: usize },
    /// Long runs of the innermost dimensions are reduced: a task is some kept points, each swept alone.
    Rows(Rows),
    /// Kept dimensions are innermost, or next to short runs of reduced points: a task is some tiles of kept points.
    Columns(Columns),
}

#[derive(Debug)]
pub struct Rows {
    kept: Positions,
    points_per_task: usize,
    /// Consecutive reduced points.
    pub run: usize,
    /// Where each run starts, relative to its kept point's first.
    pub runs: Positions,
}

/// A tile is consecutive kept points, and each step of a sweep is one row of them, contiguous in the space.
#[derive(Debug)]
pub struct Columns {
    kept: Positions,
    /// Consecutive kept points, cut into tiles of at most `tile`.
    run: usize,
    tile: usize,
    tiles_per_task: usize,
    /// Consecutive reduced points of each kept point in a row.
    pub each: usize,
    /// Where each row starts, relative to the tile's first.
    pub rows: Positions,
}

impl Rows {
    fn tasks(&self) -> usize {
        self.kept.count.div_ceil(self.points_per_task)
    }

    /// The kept points of a task, and where each starts in the space.
    pub fn points(&self, task: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
        let start = task * self.points_per_task;
        (start..(start + self.points_per_task).min(self.kept.count)).map(|point| (point, self.kept.at(point)))
    }
}

impl Columns {
    fn tiles(&self) -> usize {
        self.kept.count / self.run * self.run.div_ceil(self.tile)
    }

    fn tasks(&self) -> usize {
        self.tiles().div_ceil(self.tiles_per_task)
    }

    /// The tiles of a task: kept points, and where the first of each starts in the space.
    pub fn tiles_of(&self, task: usize) -> impl Iterator<Item = (Segment, usize)> + '_ {
        let start = task * self.tiles_per_task;
        (start..(start + self.tiles_per_task).min(self.tiles())).map(|index| {
            let tiles = self.run.div_ceil(self.tile);
            let offset = index % tiles * self.tile;
            let point = index / tiles * self.run + offset;
            (Segment { start: point, len: self.tile.min(self.run - offset) }, self.kept.at(point))
        })
    }
}

impl Walk {
    /// How a space, of which some dimensions are reduced, is walked by so many sweeps.
    pub fn new(space: &[usize], reduced: &[bool], sweeps: usize) -> Walk {
        let strides = row_major(space);
        let dims = |of_reduced: bool| -> Vec<(usize, usize)> {
            let varies = |&d: &usize| reduced[d] == of_reduced && space[d] != 1;
            (0..space.len()).filter(varies).map(|d| (space[d], strides[d])).collect()
        };
        let (kept_dims, reduced_dims) = (dims(false), dims(true));
        let kept = Positions::new(&kept_dims);
        if !reduced.contains(&true) {
            return Walk::Elementwise { points: space.iter().product() };
        }
        let (each, outer) = inner_run(&reduced_dims, 1);
        let rows = Positions::new(&reduced_dims[..outer]);
        let (run, _) = inner_run(&kept_dims, each);
        if let Some(tile) = tile_of_columns(kept.count, run, each, rows.count, sweeps) {
            let tiles_per_task = (TASK_POINTS / (tile * each * rows.count)).max(1);
            return Walk::Columns(Columns { kept, run, tile, tiles_per_task, each, rows });
        }
        let points_per_task = (TASK_POINTS / (each * rows.count)).max(1);
        Walk::Rows(Rows { kept, points_per_task, run: each, runs: rows })
    }

    /// How many tasks the space is cut into.
    pub fn tasks(&self) -> usize {
        match self {
            Walk::Elementwise { points } => points.div_ceil(TASK_POINTS),
            Walk::Rows(rows) => rows.tasks(),
            Walk::Columns(columns) => columns.tasks(),
        }
    }
}

/// Kept points of a tile of columns, of `kept` points in runs of `run`, where each has `each` reduced points in every one
/// of `rows`; or nothing where columns do not pay.
fn tile_of_columns(kept: usize, run: usize, each: usize, rows: usize, sweeps: usize) -> Option<usize> {
    if each == 1 {
        return Some(((SWEEP_FLOATS / rows).clamp(16, TILE) / 16 * 16).min(run));
    }
    let fits = TILE / each;
    if fits == 0 || fits.min(run) * each < LEAST_POINTS {
        return None;
    }
    let cached = if sweeps > 1 { SWEEP_FLOATS / (each * rows) } else { fits };
    // A large nest is for many threads.
    let shared = if kept * each * rows < TASKS * TASK_POINTS { fits } else { kept / TASKS };
    let most = cached.min(shared).max(LEAST_POINTS.div_ceil(each)).min(fits).min(run);
    // Tiles of one size.
    Some(run.div_ceil(run.div_ceil(most)))
}

fn row_major(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for d in (1..shape.len()).rev() {
        strides[d - 1] = strides[d] * shape[d];
    }
    strides
}

/// The number of points that the innermost dimensions make, `stride` apart, and how many dimensions are outside of
/// them.
fn inner_run(dims: &[(usize, usize)], stride: usize) -> (usize, usize) {
    let mut run = 1;
    let mut outer = dims.len();
    while outer > 0 && dims[outer - 1].1 == run * stride {
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
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn positions_are_counted_in_row_major_order() {
        let positions = |dims: &[(usize, usize)]| Positions::new(dims).iter().collect::<Vec<_>>();
        assert_eq!(positions(&[(3, 20), (2, 7)]), [0, 7, 20, 27, 40, 47]);
        assert_eq!(positions(&[]), [0]);
        assert_eq!((Positions::new(&[(3, 20), (2, 7)]).at(3), Positions::new(&[]).at(0)), (27, 0));
        let many = Positions::new(&[(1 << 20, 1 << 12), (1 << 10, 2)]);
        assert_eq!((many.count, many.iter().nth(1025)), (1 << 30, Some((1 << 12) + 2)));
    }

    /// Short runs are swept many at a time, in tiles of one size, and a large nest has tasks for many threads; long or
    /// very narrow ones are swept alone.
    #[test]
    fn a_walk_follows_the_sizes() {
        let columns = |space: &[usize], reduced: &[bool], sweeps: usize| match Walk::new(space, reduced, sweeps) {
            Walk::Columns(columns) => Some((columns.tile, columns.each, columns.tasks())),
            Walk::Rows(_) | Walk::Elementwise { .. } => None,
        };
        let batch = [true, false, true, true];
        assert_eq!(columns(&[128, 128, 7, 7], &batch, 1), Some((8, 49, 16)));
        assert_eq!(columns(&[128, 64, 14, 14], &batch, 3), Some((2, 196, 32)));
        assert_eq!(columns(&[4, 64, 14, 14], &batch, 3), Some((2, 196, 7)));
        assert_eq!(columns(&[1000, 10], &[false, true], 2), Some((50, 10, 2)));
        assert_eq!(columns(&[128, 12544], &[true, false], 3), Some((512, 1, 25)));
        assert_eq!(columns(&[128, 64, 28, 28], &batch, 3), None);
        assert_eq!(columns(&[1000, 3, 2], &[true, false, true], 1), None);
        assert_eq!(columns(&[40, 50], &[true, true], 1), None);
    }

    /// For each point of a space, the kept point of which a task visits it, and how often.
    fn visits(space: &[usize], reduced: &[bool], sweeps: usize) -> Vec<Vec<usize>> {
        let mut visits = vec![Vec::new(); space.iter().product()];
        let walk = Walk::new(space, reduced, sweeps);
        for task in 0..walk.tasks() {
            match &walk {
                Walk::Elementwise { .. } => unreachable!("something is reduced"),
                Walk::Rows(rows) => {
                    for (kept, first) in rows.points(task) {
                        for start in rows.runs.iter() {
                            (0..rows.run).for_each(|i| visits[first + start + i].push(kept));
                        }
                    }
                }
                Walk::Columns(columns) => {
                    for (kept, first) in columns.tiles_of(task) {
                        assert!((1..=TILE).contains(&(kept.len * columns.each)));
                        for row in columns.rows.iter() {
                            let points = 0..kept.len * columns.each;
                            points.for_each(|i| visits[first + row + i].push(kept.start + i / columns.each));
                        }
                    }
                }
            }
        }
        visits
    }

    proptest! {
        #[test]
        fn a_walk_visits_every_point_once_with_its_kept_point(
            dims in prop::collection::vec((prop::sample::select(vec![1usize, 2, 3, 7, 33]), any::<bool>()), 1..5),
            sweeps in 1usize..4,
        ) {
            let (space, mut reduced): (Vec<usize>, Vec<bool>) = dims.into_iter().unzip();
            reduced[0] |= !reduced.contains(&true);
            for (point, kept) in visits(&space, &reduced, sweeps).into_iter().enumerate() {
                let (mut rest, mut expected, mut stride) = (point, 0, 1);
                for (&size, &reduced) in space.iter().zip(&reduced).rev() {
                    if !reduced {
                        expected += rest % size * stride;
                        stride *= size;
                    }
                    rest /= size;
                }
                prop_assert_eq!(kept, [expected]);
            }
        }
    }
}
