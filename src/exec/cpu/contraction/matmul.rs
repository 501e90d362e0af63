//! Batched matrix products of strided operands.

use super::matrix::Matrix;
use super::{Epilogue, InMemory, Needs, Worker, parts};
use crate::exec::cpu::arena::Arena;
use crate::exec::cpu::gemm::{self, Isa, Product, Rows, Words};
use crate::kernel::choice::{Columns, Tile};
use crate::tensor::DType;

/// `[batch, m, k] · [batch, k, n] → [batch, m, n]`.
#[derive(Debug)]
pub struct MatMul {
    isa: Isa,
    batch: usize,
    m: usize,
    n: usize,
    k: usize,
    a: Matrix,
    b: Matrix,
    /// What the inner kernels multiply: pairs where both operands are bf16.
    words: Words,
    pub(super) epilogue: Epilogue,
    plain: Option<usize>,
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

impl MatMul {
    pub(super) fn new(
        isa: Isa,
        [batch, m, n, k]: [usize; 4],
        columns: Columns,
        block: Tile,
        sources: [InMemory; 2],
        epilogue: Epilogue,
        plain: Option<usize>,
    ) -> MatMul {
        let (a, b) = (Matrix::new(&sources[0]), Matrix::new(&sources[1]));
        let words = match (columns, [a.dtype, b.dtype]) {
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
        let groups = TASKS.div_ceil(batch * column_blocks.len().max(1)).clamp(1, row_blocks.len().max(1));
        let row_groups = parts(row_blocks.len(), row_blocks.len().div_ceil(groups));
        let depth = match words {
            Words::F32 => k,
            Words::Bf16Pairs => k.div_ceil(2),
        };
        MatMul {
            isa,
            batch,
            m,
            n,
            k,
            a,
            b,
            words,
            epilogue,
            plain,
            row_blocks,
            row_groups,
            column_blocks,
            depths: parts(depth, block.depth),
            lanes,
        }
    }

    pub fn tasks(&self) -> usize {
        self.batch * self.row_groups.len() * self.column_blocks.len()
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
        self.depths.len() == 1 || self.width() * self.depth() <= PACKED
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

    pub fn run(&self, task: usize, arena: Arena, worker: &mut Worker) {
        let (rest, column_block) = (task / self.column_blocks.len(), task % self.column_blocks.len());
        let (batch, group) = (rest / self.row_groups.len(), rest % self.row_groups.len());
        let (first, blocks) = self.row_groups[group];
        let columns = self.column_blocks[column_block];
        if self.keeps_columns() {
            for &depth in &self.depths {
                self.pack(batch, depth, columns, arena, &mut worker.columns[self.packed_at(depth, columns)..]);
            }
        }
        if self.plain.is_none() {
            self.epilogue.share(arena, &mut worker.nest.registers);
        }
        for &rows in &self.row_blocks[first..first + blocks] {
            self.block(batch, rows, columns, arena, worker);
        }
    }

    /// Where the packed columns of a part of the depth start.
    fn packed_at(&self, (start, _): (usize, usize), (_, columns): (usize, usize)) -> usize {
        if self.keeps_columns() { start * columns.next_multiple_of(self.lanes) } else { 0 }
    }

    /// A block of the product: first row and rows, first column and columns.
    fn block(
        &self,
        batch: usize,
        (first_row, rows): (usize, usize),
        (first_column, columns): (usize, usize),
        arena: Arena,
        worker: &mut Worker,
    ) {
        let panels = columns.div_ceil(self.lanes);
        let width = panels * self.lanes;
        let Worker { nest, rows: row_floats, columns: packed, block, out, starts } = worker;
        for (i, &(start, depth)) in self.depths.iter().enumerate() {
            let packed = &mut packed[self.packed_at((start, depth), (first_column, columns))..];
            if !self.keeps_columns() {
                self.pack(batch, (start, depth), (first_column, columns), arena, packed);
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
                _ => gemm::block(self.isa, &product, block),
            }
        }
        let first = (batch * self.m + first_row) * self.n + first_column;
        let lines = block.chunks_exact(width).take(rows).map(|line| &line[..columns]);
        if let Some(base) = self.plain {
            for (i, line) in lines.enumerate() {
                // SAFETY: a task's block of the product is its own, and lies apart from both operands.
                unsafe { arena.store(base + first + i * self.n, line) };
            }
            return;
        }
        if columns == self.n && columns == width {
            // The block's rows are neighbours in the output.
            self.epilogue.run(first, &block[..rows * columns], arena, &mut nest.registers);
        } else if columns == self.n {
            for (out, line) in out.chunks_exact_mut(columns).zip(lines) {
                out.copy_from_slice(line);
            }
            self.epilogue.run(first, &out[..rows * columns], arena, &mut nest.registers);
        } else {
            for (i, line) in lines.enumerate() {
                self.epilogue.run(first + i * self.n, line, arena, &mut nest.registers);
            }
        }
    }

    fn pack(&self, batch: usize, depth: (usize, usize), columns: (usize, usize), arena: Arena, packed: &mut [f32]) {
        self.b.pack(self.words, batch, depth, self.k, columns, self.lanes, arena, packed);
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
            a.copy_words(self.words, batch, start + k, self.k, first, arena, words);
        }
        rows
    }
}
