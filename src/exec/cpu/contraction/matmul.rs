//! Batched matrix products of strided operands.

use super::matrix::{Matrix, Part};
use super::patches::Patches;
use super::{Epilogue, Needs, Worker, parts};
use crate::exec::cpu::arena::{Arena, Location};
use crate::exec::cpu::gemm::{self, Ahead, Isa, Product, Rows, Words};
use crate::exec::cpu::tile::Registers;
use crate::exec::cpu::tile_program::TileProgram;
use crate::kernel::choice::{Columns, Tile};
use crate::tensor::DType;

/// Where the sums of a product go.
#[derive(Debug)]
pub enum Results {
    /// They are stored as they are.
    Plain(Location),
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
            Results::Plain(to) => unsafe { arena.store_in(*to, start, sums) },
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
    /// What the inner kernels multiply: pairs where both operands are bf16.
    words: Words,
    pub(super) results: Results,
    row_blocks: Vec<(usize, usize)>,
    /// Row blocks that a task computes, one after the other.
    row_groups: Vec<(usize, usize)>,
    column_blocks: Vec<(usize, usize)>,
    /// In words.
    depths: Vec<(usize, usize)>,
    lanes: usize,
}

/// A task takes several blocks of rows where there are this many tasks all the same: it packs their columns once.
const TASKS: usize = 64;
/// The most floats of packed columns that are kept for several blocks of rows: half of a second-level cache of 1 MiB.
const PACKED: usize = 1 << 17;

/// What a product's columns are.
#[derive(Debug)]
pub enum ColumnSource {
    Matrix(Matrix),
    /// Patches of images, which start at a float of the arena; with rows and columns exchanged where they are turned.
    Patches {
        of: Patches,
        images: usize,
        is_turned: bool,
    },
}

impl ColumnSource {
    fn dtype(&self) -> DType {
        match self {
            ColumnSource::Matrix(matrix) => matrix.dtype,
            ColumnSource::Patches { .. } => DType::F32,
        }
    }

    /// Puts columns into panels of `lanes`: see [`Matrix::pack`].
    fn pack(&self, words: Words, batch: usize, part: &Part, lanes: usize, arena: Arena, packed: &mut [f32]) {
        match self {
            ColumnSource::Matrix(matrix) => matrix.pack(words, batch, part, lanes, arena, packed),
            ColumnSource::Patches { of, images, is_turned } => {
                let Part { start, depth, first, columns, .. } = *part;
                for (panel, packed) in (0..columns).step_by(lanes).zip(packed.chunks_exact_mut(depth * lanes)) {
                    let used = lanes.min(columns - panel);
                    of.pack([*images, batch], [start, first + panel], [used, lanes], *is_turned, packed, arena);
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
        let words = match (columns, [a.dtype, b.dtype()]) {
            (Columns::Panels, [DType::Bf16, DType::Bf16]) => Words::Bf16Pairs,
            _ => Words::F32,
        };
        let (tile, lanes) = match columns {
            Columns::Dots => (1, 1),
            Columns::Panels => isa.tile_of(words),
        };
        let blocks = |total: usize, unit: usize, most: usize| -> Vec<(usize, usize)> {
            let parts = parts(total.div_ceil(unit), most / unit).into_iter();
            parts.map(|(start, len)| (start * unit, (len * unit).min(total - start * unit))).collect()
        };
        let (row_blocks, column_blocks) = (blocks(m, tile, block.rows), blocks(n, lanes, block.columns));
        let most = row_blocks.len().max(1);
        let groups = match together {
            1 => TASKS.div_ceil(batch * column_blocks.len().max(1)).clamp(1, most),
            // Columns are packed for each block of rows all the same.
            _ => most,
        };
        let row_groups = parts(row_blocks.len(), row_blocks.len().div_ceil(groups));
        let depth = match words {
            Words::F32 => k,
            Words::Bf16Pairs => k.div_ceil(2),
        };
        MatMul {
            isa,
            batch,
            together,
            m,
            n,
            k,
            a,
            b,
            words,
            results,
            row_blocks,
            row_groups,
            column_blocks,
            depths: parts(depth, block.depth),
            lanes,
        }
    }

    pub fn tasks(&self) -> usize {
        self.batch.div_ceil(self.together) * self.row_groups.len() * self.column_blocks.len()
    }

    pub fn needs(&self) -> Needs {
        let rows = self.row_blocks.iter().map(|b| b.1).max().unwrap_or(0);
        let depth = self.depths.iter().map(|d| d.1).max().unwrap_or(0);
        let width = self.width();
        Needs {
            rows: if self.rows_in_place().is_some() { 0 } else { rows * depth },
            columns: if self.keeps_columns() { width * self.depth() } else { width * depth },
            block: rows.next_multiple_of(gemm::MAX_ROWS) * width,
            out: rows * width,
            starts: rows,
        }
    }

    /// Words that are summed.
    fn depth(&self) -> usize {
        self.depths.iter().map(|d| d.1).sum()
    }

    /// Columns of the widest block, those that fill its last panel included.
    fn width(&self) -> usize {
        self.column_blocks.iter().map(|b| b.1).max().unwrap_or(0).next_multiple_of(self.lanes)
    }

    /// Whether all of a task's columns are packed before the first row, and not for each block of rows again.
    fn keeps_columns(&self) -> bool {
        self.together == 1 && (self.depths.len() == 1 || self.width() * self.depth() <= PACKED)
    }

    /// The rows as a matrix of words, where they need no copy: the inner kernels read along them where they are
    /// consecutive, and along their neighbours where the matrix is transposed.
    fn rows_in_place(&self) -> Option<Matrix> {
        let words = match self.words {
            Words::F32 => Some(self.a).filter(|a| a.dtype == DType::F32)?,
            Words::Bf16Pairs => self.a.in_pairs().filter(|_| self.k.is_multiple_of(2))?,
        };
        let is_transposed = self.lanes > 1 && words.row == 1;
        (words.row >= 0 && words.column >= 0 && (words.column == 1 || is_transposed)).then_some(words)
    }

    /// Which of the batch, of the groups of rows and of the blocks of columns.
    fn place(&self, task: usize) -> [usize; 3] {
        let (rest, column_block) = (task / self.column_blocks.len(), task % self.column_blocks.len());
        [rest / self.row_groups.len(), rest % self.row_groups.len(), column_block]
    }

    /// The columns of a task that follows, where they are others than a task's own.
    fn ahead(&self, [own_batch, _, own_columns]: [usize; 3], following: usize, arena: Arena) -> Ahead {
        let [batch, _, columns] = self.place(following);
        let is_other = following < self.tasks() && (batch, columns) != (own_batch, own_columns);
        match &self.b {
            ColumnSource::Matrix(matrix) if is_other && self.keeps_columns() && self.lanes > 1 => {
                let (first, columns) = self.column_blocks[columns];
                matrix.ahead(batch, self.k, first, columns, arena)
            }
            _ => Ahead::NONE,
        }
    }

    pub fn run(&self, task: usize, arena: Arena, worker: &mut Worker) {
        let place = self.place(task);
        let [batches, group, column_block] = place;
        let (first, blocks) = self.row_groups[group];
        let columns = self.column_blocks[column_block];
        if self.keeps_columns() {
            for &depth in &self.depths {
                let packed = &mut worker.columns[self.packed_at(depth, columns)..];
                self.b.pack(self.words, batches, &self.part(depth, columns), self.lanes, arena, packed);
            }
        }
        self.results.begin(arena, &mut worker.nest.registers);
        let mut ahead = self.ahead(place, task + worker.workers, arena);
        for &rows in &self.row_blocks[first..first + blocks] {
            self.block(batches, rows, columns, &mut ahead, arena, worker);
        }
    }

    fn part(&self, (start, depth): (usize, usize), (first, columns): (usize, usize)) -> Part {
        Part { start, depth, terms: self.k, first, columns }
    }

    /// Where the packed columns of a part of the depth start.
    fn packed_at(&self, (start, _): (usize, usize), (_, columns): (usize, usize)) -> usize {
        if self.keeps_columns() { start * columns.next_multiple_of(self.lanes) } else { 0 }
    }

    /// A block of the product, the sum of those of some of the batch: first row and rows, first column and columns.
    fn block(
        &self,
        batches: usize,
        (first_row, rows): (usize, usize),
        (first_column, columns): (usize, usize),
        ahead: &mut Ahead,
        arena: Arena,
        worker: &mut Worker,
    ) {
        let panels = columns.div_ceil(self.lanes);
        let width = panels * self.lanes;
        let Worker { nest, rows: row_floats, columns: packed, block, out, starts, .. } = worker;
        let range = batches * self.together..((batches + 1) * self.together).min(self.batch);
        let terms = range.flat_map(|batch| self.depths.iter().map(move |depth| (batch, *depth)));
        for (i, (batch, (start, depth))) in terms.enumerate() {
            let packed = &mut packed[self.packed_at((start, depth), (first_column, columns))..];
            if !self.keeps_columns() {
                let part = self.part((start, depth), (first_column, columns));
                self.b.pack(self.words, batch, &part, self.lanes, arena, packed);
            }
            starts.clear();
            let (data, step) = match self.rows_in_place() {
                Some(a) => {
                    let (row, column) = (a.row as usize, a.column as usize);
                    starts.extend((0..rows).map(|i| i * row));
                    let words = (rows - 1) * row + (depth - 1) * column + 1;
                    (arena.read(a.at(batch, first_row, start), words), column)
                }
                None => {
                    let step = self.copy_rows(batch, (first_row, rows), (start, depth), row_floats, arena);
                    starts.extend((0..rows).map(|i| if step == 1 { i * depth } else { i }));
                    (&row_floats[..rows * depth], step)
                }
            };
            let rows = Rows { data, starts, step };
            let product =
                Product { words: self.words, rows, offset: 0, depth, columns: packed, panels, accumulate: i > 0 };
            match self.lanes {
                1 => gemm::dots(&product, block),
                _ => gemm::block_before(self.isa, &product, ahead, block),
            }
        }
        let first = (batches * self.m + first_row) * self.n + first_column;
        let lines = block.chunks_exact(width).take(rows).map(|line| &line[..columns]);
        if columns == self.n && columns == width {
            // The block's rows are neighbours in the output.
            self.results.store(first, &block[..rows * columns], arena, &mut nest.registers);
        } else if columns == self.n && matches!(self.results, Results::Through(_)) {
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

    /// Copies rows, and gives the step from one element of a row to the next: one after the other, or word by word of
    /// all.
    fn copy_rows(
        &self,
        batch: usize,
        (first, rows): (usize, usize),
        (start, depth): (usize, usize),
        into: &mut [f32],
        arena: Arena,
    ) -> usize {
        if self.lanes == 1 || (self.words == Words::F32 && self.a.column == 1) {
            for (i, row) in into.chunks_exact_mut(depth).take(rows).enumerate() {
                self.a.copy_row(batch, first + i, start, arena, row);
            }
            return 1;
        }
        // A step of 1 is of rows one after the other, which a single row is.
        let a = self.a.transposed();
        for (k, words) in into.chunks_exact_mut(rows).take(depth).enumerate() {
            a.copy_words(self.words, batch, [start + k, self.k], first, arena, words);
        }
        rows
    }
}
