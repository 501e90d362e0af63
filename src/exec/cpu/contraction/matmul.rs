//! Batched matrix products of strided operands.

use super::transpose::{Turned, transpose};
use super::{Epilogue, InMemory, Needs, Worker, parts};
use crate::exec::cpu::arena::Arena;
use crate::exec::cpu::gemm::{self, Isa, Product, Rows};
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
    /// Row blocks that a task computes, one after the other.
    row_groups: Vec<(usize, usize)>,
    column_blocks: Vec<(usize, usize)>,
    depths: Vec<(usize, usize)>,
    lanes: usize,
}

/// A task takes several blocks of rows where there are this many tasks all the same: it packs their columns once.
const TASKS: usize = 64;
/// The most floats of packed columns that are kept for several blocks of rows: half of a second-level cache of 1 MiB.
const PACKED: usize = 1 << 17;

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
        let blocks = |total: usize, unit: usize, most: usize| -> Vec<(usize, usize)> {
            let parts = parts(total.div_ceil(unit), most / unit).into_iter();
            parts.map(|(start, len)| (start * unit, (len * unit).min(total - start * unit))).collect()
        };
        let (row_blocks, column_blocks) = (blocks(m, tile, block.rows), blocks(n, lanes, block.columns));
        let groups = TASKS.div_ceil(batch * column_blocks.len().max(1)).clamp(1, row_blocks.len().max(1));
        let row_groups = parts(row_blocks.len(), row_blocks.len().div_ceil(groups));
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
            row_groups,
            column_blocks,
            depths: parts(k, block.depth),
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
            rows: if self.reads_rows_in_place() { 0 } else { rows * depth },
            columns: if self.keeps_columns() { width * self.k } else { width * depth },
            block: rows.next_multiple_of(gemm::MAX_ROWS) * width,
            out: rows * width,
            starts: rows,
        }
    }

    /// Columns of the widest block, those that fill its last panel included.
    fn width(&self) -> usize {
        self.column_blocks.iter().map(|b| b.1).max().unwrap_or(0).next_multiple_of(self.lanes)
    }

    /// Whether all of a task's columns are packed before the first row, and not for each block of rows again.
    fn keeps_columns(&self) -> bool {
        self.depths.len() == 1 || self.width() * self.k <= PACKED
    }

    /// Whether rows need no copy: the inner kernels read along them where they are consecutive, and along their
    /// neighbours where the matrix is transposed.
    fn reads_rows_in_place(&self) -> bool {
        let Matrix { row, column, .. } = self.a;
        let is_consecutive = column == 1 || self.k == 1;
        let is_transposed = self.lanes > 1 && row == 1;
        row >= 0 && column >= 0 && (is_consecutive || is_transposed)
    }

    pub fn run(&self, task: usize, arena: Arena, worker: &mut Worker) {
        let (rest, column_block) = (task / self.column_blocks.len(), task % self.column_blocks.len());
        let (batch, group) = (rest / self.row_groups.len(), rest % self.row_groups.len());
        let (first, blocks) = self.row_groups[group];
        let columns = self.column_blocks[column_block];
        if self.keeps_columns() {
            for &depth in &self.depths {
                self.pack_columns(batch, depth, columns, &mut worker.columns[self.packed_at(depth, columns)..], arena);
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
                self.pack_columns(batch, (start, depth), (first_column, columns), packed, arena);
            }
            starts.clear();
            let (data, step) = if self.reads_rows_in_place() {
                let Matrix { row, column, .. } = self.a;
                let (row, column) = (row as usize, if self.k == 1 { 1 } else { column as usize });
                starts.extend((0..rows).map(|i| i * row));
                let floats = (rows - 1) * row + (depth - 1) * column + 1;
                (arena.read(self.a.at(batch, first_row, start), floats), column)
            } else {
                self.copy_rows(batch, first_row, rows, start, depth, row_floats, arena);
                starts.extend((0..rows).map(|i| i * depth));
                (&row_floats[..rows * depth], 1)
            };
            let rows = Rows { data, starts, step };
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

    /// Packs columns of some summed indices in panels. What fills the last panel is zero.
    fn pack_columns(
        &self,
        batch: usize,
        (start, depth): (usize, usize),
        (first, columns): (usize, usize),
        packed: &mut [f32],
        arena: Arena,
    ) {
        let lanes = self.lanes;
        let panels = || (0..columns.div_ceil(lanes)).map(|panel| (panel * lanes, lanes.min(columns - panel * lanes)));
        if self.b.column == 1 || columns == 1 {
            // Read along rows, all panels together.
            for k in 0..depth {
                let row = arena.read(self.b.at(batch, start + k, first), columns);
                for (panel, used) in panels() {
                    let to = &mut packed[panel * depth + k * lanes..][..lanes];
                    copy_padded(&row[panel..][..used], to);
                }
            }
            return;
        }
        for ((panel, used), packed) in panels().zip(packed.chunks_exact_mut(depth * lanes)) {
            let column = first + panel;
            if self.b.row == 1 && self.b.column > 0 {
                // The operand is transposed in memory: read along the summed dimension.
                let stride = self.b.column as usize;
                let from = arena.read(self.b.at(batch, start, column), (used - 1) * stride + depth);
                transpose(Turned { from, stride, rows: used, columns: depth, to_stride: lanes }, packed);
                if used < lanes {
                    packed.chunks_exact_mut(lanes).for_each(|row| row[used..].fill(0.0));
                }
            } else {
                for (k, row) in packed.chunks_exact_mut(lanes).enumerate() {
                    for (lane, to) in row[..used].iter_mut().enumerate() {
                        *to = arena.read(self.b.at(batch, start + k, column + lane), 1)[0];
                    }
                    row[used..].fill(0.0);
                }
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
        for (i, row) in into.chunks_exact_mut(depth).take(rows).enumerate() {
            for (k, to) in row.iter_mut().enumerate() {
                *to = arena.read(self.a.at(batch, first + i, start + k), 1)[0];
            }
        }
    }
}

/// A row of a panel from the floats that there are of it. A copy of a known length is a few vector moves.
fn copy_padded(from: &[f32], to: &mut [f32]) {
    const SIXTEEN: usize = 16;
    if from.len() == to.len() && from.len().is_multiple_of(SIXTEEN) {
        let (from, to) = (from.as_chunks::<SIXTEEN>().0, to.as_chunks_mut::<SIXTEEN>().0);
        from.iter().zip(to).for_each(|(from, to)| *to = *from);
    } else {
        to[..from.len()].copy_from_slice(from);
        to[from.len()..].fill(0.0);
    }
}
