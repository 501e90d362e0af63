//! Batched matrix products of strided operands.

use super::patches::Patches;
use super::transpose::{Turned, transpose};
use super::{Epilogue, InMemory, Needs, Worker, parts};
use crate::exec::cpu::arena::Arena;
use crate::exec::cpu::gemm::{self, Isa, Product, Rows};
use crate::exec::cpu::tile::Registers;
use crate::exec::cpu::tile_program::TileProgram;
use crate::kernel::choice::{Columns, Tile};

/// Where the sums of a product go.
#[derive(Debug)]
pub enum Results {
    /// They are stored as they are, from a float of the arena on.
    Plain(usize),
    Through(Epilogue),
}

impl Results {
    /// Before [`Results::store`], once a task.
    pub fn begin(&self, arena: Arena, registers: &mut Registers) {
        if let Results::Through(epilogue) = self {
            epilogue.share(arena, registers);
        }
    }

    /// Takes the sums of consecutive points of the output, which must be the calling task's alone.
    pub fn store(&self, start: usize, sums: &[f32], arena: Arena, registers: &mut Registers) {
        match self {
            // SAFETY: a task's points are its own, and results lie apart from the operands and from workers' memory.
            Results::Plain(base) => unsafe { arena.store(base + start, sums) },
            Results::Through(epilogue) => epilogue.run(start, sums, arena, registers),
        }
    }

    /// The program of the epilogue, where there is one.
    pub fn program(&self) -> Option<&TileProgram> {
        match self {
            Results::Plain(_) => None,
            Results::Through(epilogue) => Some(&epilogue.program),
        }
    }
}

/// `[batch, m, k] · [batch, k, n] → [batch / together, m, n]`.
#[derive(Debug)]
pub struct MatMul {
    isa: Isa,
    batch: usize,
    /// How many neighbours of a batch are added.
    together: usize,
    m: usize,
    n: usize,
    k: usize,
    a: Matrix,
    b: ColumnSource,
    pub(super) results: Results,
    row_blocks: Vec<(usize, usize)>,
    column_blocks: Vec<(usize, usize)>,
    depths: Vec<(usize, usize)>,
    lanes: usize,
}

/// What a product's columns are.
#[derive(Debug)]
pub enum ColumnSource {
    Matrix(Matrix),
    /// Patches of images, which start at a float of the arena.
    Patches {
        of: Patches,
        images: usize,
    },
    /// The same with rows and columns exchanged.
    TurnedPatches {
        of: Patches,
        images: usize,
    },
}

impl ColumnSource {
    /// Columns from `column` on, of which `used` exist, for the summed indices from `start` on: a panel of `lanes`.
    fn pack(&self, batch: usize, at: [usize; 2], sizes: [usize; 2], packed: &mut [f32], arena: Arena) {
        match self {
            ColumnSource::Matrix(matrix) => matrix.pack_columns(batch, at, sizes, packed, arena),
            ColumnSource::Patches { of, images } => of.pack_columns([*images, batch], at, sizes, packed, arena),
            ColumnSource::TurnedPatches { of, images } => of.pack_turned([*images, batch], at, sizes, packed, arena),
        }
    }
}

/// A matrix for each of a batch, in memory.
#[derive(Debug, Clone, Copy)]
pub struct Matrix {
    /// The float of the arena at which the first is.
    base: usize,
    batch: isize,
    row: isize,
    column: isize,
}

impl Matrix {
    /// With the strides of the batch, of rows and of columns.
    pub fn new(base: usize, [batch, row, column]: [isize; 3]) -> Matrix {
        Matrix { base, batch, row, column }
    }

    pub(super) fn of(source: &InMemory) -> Matrix {
        let base = source.base.wrapping_add_signed(source.access.offset);
        Matrix::new(base, [0, 1, 2].map(|d| source.access.strides[d]))
    }

    fn at(&self, batch: usize, row: usize, column: usize) -> usize {
        let offset = batch as isize * self.batch + row as isize * self.row + column as isize * self.column;
        self.base.wrapping_add_signed(offset)
    }

    /// Columns from `column` on, of which `used` exist, for the summed indices from `start` on: a panel of `lanes`.
    pub fn pack_columns(
        &self,
        batch: usize,
        [start, column]: [usize; 2],
        [used, lanes]: [usize; 2],
        packed: &mut [f32],
        arena: Arena,
    ) {
        if self.column == 1 || used == 1 {
            for (k, row) in packed.chunks_exact_mut(lanes).enumerate() {
                row[..used].copy_from_slice(arena.read(self.at(batch, start + k, column), used));
                row[used..].fill(0.0);
            }
        } else if self.row == 1 && self.column > 0 {
            // The operand is transposed in memory: read along the summed dimension.
            let (depth, stride) = (packed.len() / lanes, self.column as usize);
            let from = arena.read(self.at(batch, start, column), (used - 1) * stride + depth);
            transpose(Turned { from, stride, rows: used, columns: depth, to_stride: lanes }, packed);
            packed.chunks_exact_mut(lanes).for_each(|row| row[used..].fill(0.0));
        } else {
            for (k, row) in packed.chunks_exact_mut(lanes).enumerate() {
                for (lane, to) in row[..used].iter_mut().enumerate() {
                    *to = arena.read(self.at(batch, start + k, column + lane), 1)[0];
                }
                row[used..].fill(0.0);
            }
        }
    }

    /// The terms from `start` on of `rows` rows from `first` on, one row after the other.
    pub fn copy_rows(
        &self,
        batch: usize,
        [first, start]: [usize; 2],
        [rows, depth]: [usize; 2],
        into: &mut [f32],
        arena: Arena,
    ) {
        if self.row == 1 && self.column > 0 {
            // The operand is transposed in memory: read along the rows' dimension.
            let stride = self.column as usize;
            let from = arena.read(self.at(batch, first, start), (depth - 1) * stride + rows);
            transpose(Turned { from, stride, rows: depth, columns: rows, to_stride: depth }, into);
        } else {
            for (i, row) in into.chunks_exact_mut(depth).take(rows).enumerate() {
                for (k, to) in row.iter_mut().enumerate() {
                    *to = arena.read(self.at(batch, first + i, start + k), 1)[0];
                }
            }
        }
    }
}

impl MatMul {
    pub(super) fn new(
        isa: Isa,
        [batch, m, n, k]: [usize; 4],
        together: usize,
        columns: Columns,
        block: Tile,
        (a, b): (Matrix, ColumnSource),
        results: Results,
    ) -> MatMul {
        let (tile, lanes) = match columns {
            Columns::Dots => (1, 1),
            Columns::Panels => isa.tile(),
        };
        let row_blocks = parts(m.div_ceil(tile), block.rows / tile)
            .into_iter()
            .map(|(start, len)| (start * tile, (len * tile).min(m - start * tile)))
            .collect();
        let column_blocks = parts(n.div_ceil(lanes), block.columns / lanes)
            .into_iter()
            .map(|(start, len)| (start * lanes, (len * lanes).min(n - start * lanes)))
            .collect();
        MatMul {
            isa,
            batch,
            together,
            m,
            n,
            k,
            a,
            b,
            results,
            row_blocks,
            column_blocks,
            depths: parts(k, block.depth),
            lanes,
        }
    }

    pub fn tasks(&self) -> usize {
        self.batch.div_ceil(self.together) * self.row_blocks.len() * self.column_blocks.len()
    }

    pub fn needs(&self) -> Needs {
        let rows = self.row_blocks.iter().map(|b| b.1).max().unwrap_or(0);
        let width = self.column_blocks.iter().map(|b| b.1).max().unwrap_or(0).next_multiple_of(self.lanes);
        let depth = self.depths.iter().map(|d| d.1).max().unwrap_or(0);
        Needs {
            rows: if self.reads_rows_in_place() { 0 } else { rows * depth },
            columns: width * depth,
            block: rows.next_multiple_of(gemm::MAX_ROWS) * width,
            out: rows * width,
            starts: rows,
        }
    }

    /// Whether rows are consecutive in memory, and so need no copy.
    fn reads_rows_in_place(&self) -> bool {
        (self.a.column == 1 || self.k == 1) && self.a.row >= 0
    }

    pub fn run(&self, task: usize, arena: Arena, worker: &mut Worker) {
        let (rest, column_block) = (task / self.column_blocks.len(), task % self.column_blocks.len());
        let (group, row_block) = (rest / self.row_blocks.len(), rest % self.row_blocks.len());
        let (first_row, rows) = self.row_blocks[row_block];
        let (first_column, columns) = self.column_blocks[column_block];
        let panels = columns.div_ceil(self.lanes);
        let width = panels * self.lanes;
        let Worker { nest, rows: row_floats, columns: packed, block, out, starts } = worker;
        let batches = group * self.together..((group + 1) * self.together).min(self.batch);
        let terms = batches.flat_map(|batch| self.depths.iter().map(move |depth| (batch, *depth)));
        for (i, (batch, (start, depth))) in terms.enumerate() {
            for (panel, packed) in packed.chunks_exact_mut(depth * self.lanes).take(panels).enumerate() {
                let column = first_column + panel * self.lanes;
                let used = self.lanes.min(self.n - column);
                self.b.pack(batch, [start, column], [used, self.lanes], packed, arena);
            }
            starts.clear();
            let data = if self.reads_rows_in_place() {
                let first = self.a.at(batch, first_row, start);
                starts.extend((0..rows).map(|i| i * self.a.row as usize));
                arena.read(first, (rows - 1) * self.a.row as usize + depth)
            } else {
                self.a.copy_rows(batch, [first_row, start], [rows, depth], row_floats, arena);
                starts.extend((0..rows).map(|i| i * depth));
                &row_floats[..rows * depth]
            };
            let rows = Rows { data, starts };
            let product = Product { rows, offset: 0, depth, columns: packed, panels, accumulate: i > 0 };
            match self.lanes {
                1 => gemm::dots(&product, block),
                _ => gemm::block(self.isa, &product, block),
            }
        }
        let first = (group * self.m + first_row) * self.n + first_column;
        let lines = block.chunks_exact(width).take(rows).map(|line| &line[..columns]);
        self.results.begin(arena, &mut nest.registers);
        if columns == self.n && matches!(self.results, Results::Through(_)) {
            // The block's rows are neighbours in the output.
            for (out, line) in out.chunks_exact_mut(columns).zip(lines) {
                out.copy_from_slice(line);
            }
            self.results.store(first, &out[..rows * columns], arena, &mut nest.registers);
        } else {
            for (i, line) in lines.enumerate() {
                self.results.store(first + i * self.n, line, arena, &mut nest.registers);
            }
        }
    }
}
