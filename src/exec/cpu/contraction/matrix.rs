//! Matrices as they lie in memory, and as the inner kernels read them.

use super::InMemory;
use crate::exec::cpu::arena::Arena;
use crate::exec::cpu::gemm::{Ahead, Words, pair};
use crate::exec::cpu::transpose::{Turned, transpose};
use crate::scalar::simd::multiversion;
use crate::tensor::{Bf16, DType};

/// A matrix for each of a batch. Positions and strides are in elements.
#[derive(Debug, Clone, Copy)]
pub struct Matrix {
    base: usize,
    batch: isize,
    pub row: isize,
    pub column: isize,
    pub dtype: DType,
}

/// Some columns of a matrix, and some of its rows, which are summed over.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// The first row and how many, in words: each is of one row, or of two that are neighbours.
    pub start: usize,
    pub depth: usize,
    /// All rows that there are.
    pub terms: usize,
    pub first: usize,
    pub columns: usize,
}

/// A part of a line of some matrix: of a row, or of a column.
#[derive(Debug, Clone, Copy)]
struct Line {
    /// The element that it starts at.
    at: usize,
    stride: isize,
}

impl Matrix {
    /// Of f32, with the strides of the batch, of rows and of columns.
    pub fn new(base: usize, [batch, row, column]: [isize; 3]) -> Matrix {
        Matrix { base, batch, row, column, dtype: DType::F32 }
    }

    pub(super) fn of(source: &InMemory) -> Matrix {
        let base = source.base.wrapping_add_signed(source.access.offset);
        Matrix { dtype: source.dtype, ..Matrix::new(base, [0, 1, 2].map(|d| source.access.strides[d])) }
    }

    /// The element of a place.
    pub fn at(&self, batch: usize, row: usize, column: usize) -> usize {
        let offset = batch as isize * self.batch + row as isize * self.row + column as isize * self.column;
        self.base.wrapping_add_signed(offset)
    }

    pub fn transposed(self) -> Matrix {
        Matrix { row: self.column, column: self.row, ..self }
    }

    /// The matrix of words, each of two neighbours in a row, where the words are whole: the columns are then half as many.
    pub fn in_pairs(self) -> Option<Matrix> {
        let is_even = |stride: isize| stride % 2 == 0;
        let is_whole = self.dtype == DType::Bf16
            && self.column == 1
            && self.base.is_multiple_of(2)
            && is_even(self.batch)
            && is_even(self.row);
        is_whole.then_some(Matrix {
            base: self.base / 2,
            batch: self.batch / 2,
            row: self.row / 2,
            dtype: DType::F32,
            ..self
        })
    }

    /// What [`Matrix::pack`] reads of some columns, to be asked for.
    pub fn ahead(&self, batch: usize, rows: usize, first: usize, columns: usize, arena: Arena) -> Ahead {
        // Along memory, and across it.
        let lines = match (self.row, self.column) {
            (0.., 1) => [rows, columns, self.row as usize],
            (1, 0..) => [columns, rows, self.column as usize],
            _ => return Ahead::NONE,
        };
        let [count, length, stride] = lines;
        let at = self.at(batch, 0, first);
        let elements = count.saturating_sub(1) * stride + length;
        match self.dtype {
            DType::F32 | DType::U32 => Ahead::new(arena.read::<f32>(at, elements), count, length, stride),
            DType::Bf16 => Ahead::new(arena.read::<Bf16>(at, elements), count, length, stride),
        }
    }

    /// Copies some elements of a row, as f32.
    pub fn copy_row(&self, batch: usize, row: usize, column: usize, arena: Arena, into: &mut [f32]) {
        self.copy(Line { at: self.at(batch, row, column), stride: self.column }, arena, into);
    }

    /// Puts columns into panels of `lanes`, one after the other, with zeros where the last panel is wider than what is left.
    pub fn pack(&self, words: Words, batch: usize, part: &Part, lanes: usize, arena: Arena, packed: &mut [f32]) {
        let Part { start, depth, terms, first, columns } = *part;
        let panels = || (0..columns.div_ceil(lanes)).map(|panel| (panel * lanes, lanes.min(columns - panel * lanes)));
        // Columns that lie along memory: read along them.
        let turned = match words {
            Words::F32 => Some(self.transposed()).filter(|m| m.dtype == DType::F32 && m.column == 1),
            Words::Bf16Pairs => self.transposed().in_pairs().filter(|_| terms.is_multiple_of(2)),
        };
        if let Some(turned) = turned.filter(|m| m.row > 1 && columns > 1) {
            let stride = turned.row as usize;
            for ((panel, used), packed) in panels().zip(packed.chunks_exact_mut(depth * lanes)) {
                let from = arena.read(turned.at(batch, first + panel, start), (used - 1) * stride + depth);
                transpose(Turned { from, stride, rows: used, columns: depth, to_stride: lanes }, packed);
                if used < lanes {
                    packed.chunks_exact_mut(lanes).for_each(|row| row[used..].fill(0.0));
                }
            }
            return;
        }
        // Read along rows, all panels together.
        if let (Words::F32, DType::F32, 1, 0..) = (words, self.dtype, self.column, self.row)
            && depth > 0
        {
            let stride = self.row as usize;
            let from = arena.read(self.at(batch, start, first), (depth - 1) * stride + columns);
            let rows = Lines { from, stride, count: depth, length: columns };
            return match lanes {
                32 => into_panels_of_32(rows, packed),
                16 => into_panels_of_16(rows, packed),
                _ => into_panels(rows, lanes, packed),
            };
        }
        for k in 0..depth {
            for (panel, used) in panels() {
                let to = &mut packed[panel * depth + k * lanes..][..lanes];
                let (to, beyond) = to.split_at_mut(used);
                self.copy_words(words, batch, [start + k, terms], first + panel, arena, to);
                beyond.fill(0.0);
            }
        }
    }

    /// Copies words of one row, or of two that are neighbours; of `rows`, those beyond are zeros.
    pub fn copy_words(
        &self,
        words: Words,
        batch: usize,
        [word, rows]: [usize; 2],
        column: usize,
        arena: Arena,
        into: &mut [f32],
    ) {
        let line = |row: usize| Line { at: self.at(batch, row, column), stride: self.column };
        match words {
            Words::F32 => self.copy(line(word), arena, into),
            Words::Bf16Pairs => {
                copy_pairs([Some(line(2 * word)), (2 * word + 1 < rows).then(|| line(2 * word + 1))], arena, into);
            }
        }
    }

    fn copy(&self, Line { at, stride }: Line, arena: Arena, into: &mut [f32]) {
        match (self.dtype, stride) {
            (DType::Bf16, 1) => widen(arena.read(at, into.len()), into),
            (DType::Bf16, _) => {
                let value = |i: usize| arena.read::<Bf16>(at.wrapping_add_signed(i as isize * stride), 1)[0].to_f32();
                into.iter_mut().enumerate().for_each(|(i, to)| *to = value(i));
            }
            (DType::F32 | DType::U32, 1) => into.copy_from_slice(arena.read(at, into.len())),
            (DType::F32 | DType::U32, _) => {
                let value = |i: usize| arena.read::<f32>(at.wrapping_add_signed(i as isize * stride), 1)[0];
                into.iter_mut().enumerate().for_each(|(i, to)| *to = value(i));
            }
        }
    }
}

/// Words of two lines of bf16; what a missing one has is zero.
fn copy_pairs(lines: [Option<Line>; 2], arena: Arena, into: &mut [f32]) {
    if let [Some(first), Some(second)] = lines
        && (first.stride, second.stride) == (1, 1)
    {
        return interleave(arena.read(first.at, into.len()), arena.read(second.at, into.len()), into);
    }
    let value = |line: Option<Line>, i: usize| match line {
        Some(Line { at, stride }) => arena.read::<Bf16>(at.wrapping_add_signed(i as isize * stride), 1)[0],
        None => Bf16::default(),
    };
    into.iter_mut().enumerate().for_each(|(i, to)| *to = pair(value(lines[0], i), value(lines[1], i)));
}

/// Neighbouring lines of a matrix, of neighbours.
#[derive(Debug, Clone, Copy)]
struct Lines<'f> {
    from: &'f [f32],
    stride: usize,
    count: usize,
    length: usize,
}

multiversion! {
    /// The widths of panels that kernels take: a piece of a known length is a few vector moves.
    fn into_panels_of_32(rows: Lines, packed: &mut [f32]) {
        into_panels(rows, 32, packed);
    }
}

multiversion! {
    fn into_panels_of_16(rows: Lines, packed: &mut [f32]) {
        into_panels(rows, 16, packed);
    }
}

/// Puts rows into panels of `lanes` columns, with zeros where the last panel is wider than what is left.
#[inline(always)]
fn into_panels(Lines { from, stride, count, length }: Lines, lanes: usize, packed: &mut [f32]) {
    for k in 0..count {
        let row = &from[k * stride..][..length];
        for (panel, piece) in row.chunks(lanes).enumerate() {
            let to = &mut packed[(panel * count + k) * lanes..][..lanes];
            if piece.len() == lanes {
                to.copy_from_slice(piece);
            } else {
                let (to, beyond) = to.split_at_mut(piece.len());
                to.copy_from_slice(piece);
                beyond.fill(0.0);
            }
        }
    }
}

multiversion! {
    fn widen(from: &[Bf16], into: &mut [f32]) {
        from.iter().zip(into).for_each(|(from, to)| *to = from.to_f32());
    }
}

multiversion! {
    fn interleave(first: &[Bf16], second: &[Bf16], into: &mut [f32]) {
        for ((first, second), to) in first.iter().zip(second).zip(into) {
            *to = pair(*first, *second);
        }
    }
}
