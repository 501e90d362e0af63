//! Batched matrix products of strided operands.

use super::{Epilogue, InMemory, Needs, Worker, parts};
use crate::exec::cpu::arena::Arena;
use crate::exec::cpu::gemm::{self, Isa, Product, Rows};
use crate::exec::cpu::transpose::{Turned, transpose};
use crate::kernel::choice::{Columns, Tile};

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
    pub(super) epilogue: Epilogue,
    plain: Option<usize>,
    row_blocks: Vec<(usize, usize)>,
    column_blocks: Vec<(usize, usize)>,
    depths: Vec<(usize, usize)>,
    lanes: usize,
}

/// A matrix for each of a batch, in memory.
#[derive(Debug, Clone, Copy)]
struct Matrix {
    base: usize,
    batch: isize,
    row: isize,
    column: isize,
}

impl Matrix {
    fn new(source: &InMemory) -> Matrix {
        let stride = |d: usize| source.access.strides[d];
        let base = source.base.wrapping_add_signed(source.access.offset);
        Matrix { base, batch: stride(0), row: stride(1), column: stride(2) }
    }

    fn at(&self, batch: usize, row: usize, column: usize) -> usize {
        let offset = batch as isize * self.batch + row as isize * self.row + column as isize * self.column;
        self.base.wrapping_add_signed(offset)
    }
}

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
        let (a, b) = (Matrix::new(&sources[0]), Matrix::new(&sources[1]));
        MatMul {
            isa,
            batch,
            m,
            n,
            k,
            a,
            b,
            epilogue,
            plain,
            row_blocks,
            column_blocks,
            depths: parts(k, block.depth),
            lanes,
        }
    }

    pub fn tasks(&self) -> usize {
        self.batch * self.row_blocks.len() * self.column_blocks.len()
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
        let (batch, row_block) = (rest / self.row_blocks.len(), rest % self.row_blocks.len());
        let (first_row, rows) = self.row_blocks[row_block];
        let (first_column, columns) = self.column_blocks[column_block];
        let panels = columns.div_ceil(self.lanes);
        let width = panels * self.lanes;
        let Worker { nest, rows: row_floats, columns: packed, block, out, starts } = worker;
        for (i, &(start, depth)) in self.depths.iter().enumerate() {
            for (panel, packed) in packed.chunks_exact_mut(depth * self.lanes).take(panels).enumerate() {
                let column = first_column + panel * self.lanes;
                self.pack_columns(batch, start, column, self.lanes.min(self.n - column), packed, arena);
            }
            starts.clear();
            let data = if self.reads_rows_in_place() {
                let first = self.a.at(batch, first_row, start);
                starts.extend((0..rows).map(|i| i * self.a.row as usize));
                arena.read(first, (rows - 1) * self.a.row as usize + depth)
            } else {
                self.copy_rows(batch, first_row, rows, start, depth, row_floats, arena);
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
        let first = (batch * self.m + first_row) * self.n + first_column;
        let lines = block.chunks_exact(width).take(rows).map(|line| &line[..columns]);
        if let Some(base) = self.plain {
            for (i, line) in lines.enumerate() {
                // SAFETY: a task's block of the product is its own, and lies apart from both operands.
                unsafe { arena.store(base + first + i * self.n, line) };
            }
            return;
        }
        self.epilogue.share(arena, &mut nest.registers);
        if columns == self.n {
            // The block's rows are neighbours in the output.
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

    /// Columns from `column` on, of which `used` exist, for the summed indices from `start` on.
    fn pack_columns(&self, batch: usize, start: usize, column: usize, used: usize, packed: &mut [f32], arena: Arena) {
        let lanes = self.lanes;
        if self.b.column == 1 || used == 1 {
            for (k, row) in packed.chunks_exact_mut(lanes).enumerate() {
                row[..used].copy_from_slice(arena.read(self.b.at(batch, start + k, column), used));
                row[used..].fill(0.0);
            }
        } else if self.b.row == 1 && self.b.column > 0 {
            // The operand is transposed in memory: read along the summed dimension.
            let (depth, stride) = (packed.len() / lanes, self.b.column as usize);
            let from = arena.read(self.b.at(batch, start, column), (used - 1) * stride + depth);
            transpose(Turned { from, stride, rows: used, columns: depth, to_stride: lanes }, packed);
            packed.chunks_exact_mut(lanes).for_each(|row| row[used..].fill(0.0));
        } else {
            for (k, row) in packed.chunks_exact_mut(lanes).enumerate() {
                for (lane, to) in row[..used].iter_mut().enumerate() {
                    *to = arena.read(self.b.at(batch, start + k, column + lane), 1)[0];
                }
                row[used..].fill(0.0);
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn copy_rows(
        &self,
        batch: usize,
        first: usize,
        rows: usize,
        start: usize,
        depth: usize,
        into: &mut [f32],
        arena: Arena,
    ) {
        if self.a.row == 1 && self.a.column > 0 {
            // The operand is transposed in memory: read along the rows' dimension.
            let stride = self.a.column as usize;
            let from = arena.read(self.a.at(batch, first, start), (depth - 1) * stride + rows);
            transpose(Turned { from, stride, rows: depth, columns: rows, to_stride: depth }, into);
        } else {
            for (i, row) in into.chunks_exact_mut(depth).take(rows).enumerate() {
                for (k, to) in row.iter_mut().enumerate() {
                    *to = arena.read(self.a.at(batch, first + i, start + k), 1)[0];
                }
            }
        }
    }
}
