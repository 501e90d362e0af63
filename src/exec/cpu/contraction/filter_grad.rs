//! Filter gradients of convolutions: output gradients times input patches, summed over all pixels of all
//! images.

use super::frame::Frame;
use super::{Needs, Worker, parts};
use crate::exec::cpu::arena::Arena;
use crate::exec::cpu::gemm::{self, Isa, Product, Rows};
use crate::kernel::choice::{Tile, padded_size};
use crate::kernel::contraction::{ContractionKind, ConvShape};
use std::sync::Arc;

/// Puts both operands into the order of the product: the output gradient in blocks
/// `[pixels / depth][output channels][depth]`, the images with channels innermost and zeros around.
#[derive(Debug)]
pub struct Gather {
    conv: ConvShape,
    /// The floats of the arena where the operands are and where they go.
    input: usize,
    gradient: usize,
    padded: usize,
    blocks: usize,
    frame: Frame,
    tile: Tile,
}

impl Gather {
    /// `from` and `made` are the floats of the arena at which the operands and the images and blocks are.
    pub fn new(conv: &ConvShape, tile: Tile, from: [usize; 2], made: [usize; 2]) -> Gather {
        let frame = Frame { channels: conv.c, size: conv.input, low: conv.window.pad, padded: padded_size(conv) };
        Gather { conv: *conv, input: from[0], gradient: from[1], padded: made[0], blocks: made[1], frame, tile }
    }

    /// One for each image.
    pub fn tasks(&self) -> usize {
        self.conv.n
    }

    pub fn run(&self, image: usize, arena: Arena) {
        let c = &self.conv;
        let (frame, depth) = (&self.frame, self.tile.depth);
        let floats = c.c * c.input[0] * c.input[1];
        let source = arena.read(self.input + image * floats, floats);
        // SAFETY: an image's frame is its task's own, in memory that only this contraction uses.
        frame.fill(source, unsafe { arena.write(self.padded + image * frame.floats(), frame.floats()) });
        let pixels = c.output[0] * c.output[1];
        let gradient = arena.read::<f32>(self.gradient + image * c.o * pixels, c.o * pixels);
        for (o, plane) in gradient.chunks_exact(pixels).enumerate() {
            let mut plane = plane;
            let mut at = image * pixels;
            while !plane.is_empty() {
                let run = (depth - at % depth).min(plane.len());
                let (head, tail) = plane.split_at(run);
                let to = (at / depth * c.o + o) * depth + at % depth;
                // SAFETY: an image's pixels are its task's own, in memory that only this contraction uses.
                unsafe { arena.store(self.blocks + to, head) };
                plane = tail;
                at += run;
            }
        }
    }
}

/// Consecutive floats of the images that are neighbouring columns of the product.
#[derive(Debug, Clone, Copy)]
struct Piece {
    /// Relative to the pixel's first.
    from: usize,
    lane: usize,
    len: usize,
}

/// The product.
#[derive(Debug)]
pub struct FilterGrad {
    gather: Arc<Gather>,
    isa: Isa,
    /// The float of the arena at which the filter's gradient starts.
    into: usize,
    /// First row and number of rows, first panel and number of panels of each task's block.
    row_blocks: Vec<(usize, usize)>,
    panel_blocks: Vec<(usize, usize)>,
    /// For each panel, where its columns come from.
    pieces: Vec<Vec<Piece>>,
    /// Where each pixel of the output starts in the padded image.
    pixels: Vec<usize>,
    /// Where each column goes in a row of the filter.
    column_to: Vec<usize>,
}

impl FilterGrad {
    pub fn new(isa: Isa, gather: Arc<Gather>, into: usize) -> FilterGrad {
        let c = &gather.conv;
        let (tile, lanes) = isa.tile();
        // Columns in the order (row of the kernel, column of the kernel, channel), as the images have them.
        let run = c.kernel[1] * c.c;
        let columns = c.kernel[0] * run;
        let pieces = (0..columns)
            .step_by(lanes)
            .map(|first| {
                let mut pieces = Vec::new();
                let mut column = first;
                let end = (first + lanes).min(columns);
                while column < end {
                    let len = (run - column % run).min(end - column);
                    let from = column / run * gather.frame.padded[1] * c.c + column % run;
                    pieces.push(Piece { from, lane: column - first, len });
                    column += len;
                }
                pieces
            })
            .collect();
        let gemms = ContractionKind::Conv2dFilterGrad(*c).gemms();
        let [gemm] = &gemms[..] else { unreachable!("a filter gradient is one product") };
        let [row, column] = [0, 1].map(|d| gemm.b.bounds[d].strides[1 + d] as usize);
        let pixels = (0..c.output[0] * c.output[1])
            .map(|i| {
                let (y, x) = (i / c.output[1] * row, i % c.output[1] * column);
                (y * gather.frame.padded[1] + x) * c.c
            })
            .collect();
        let column_to = (0..columns)
            .map(|j| {
                let place = [j / run, j % run / c.c, j % c.c];
                place.iter().zip(&gemm.out.strides[1..]).map(|(i, stride)| i * *stride as usize).sum()
            })
            .collect();
        let row_blocks = parts(c.o.div_ceil(tile), gather.tile.rows / tile)
            .into_iter()
            .map(|(start, len)| (start * tile, (len * tile).min(c.o - start * tile)))
            .collect();
        let panel_blocks = parts(columns.div_ceil(lanes), gather.tile.columns / lanes);
        FilterGrad { isa, into, row_blocks, panel_blocks, pieces, pixels, column_to, gather }
    }

    pub fn tasks(&self) -> usize {
        self.row_blocks.len() * self.panel_blocks.len()
    }

    pub fn needs(&self) -> Needs {
        let rows = self.row_blocks.iter().map(|b| b.1).max().unwrap_or(0);
        let columns = self.panel_blocks.iter().map(|b| b.1).max().unwrap_or(0) * self.isa.tile().1;
        Needs {
            columns: columns * self.gather.tile.depth,
            block: rows.next_multiple_of(gemm::MAX_ROWS) * columns,
            starts: rows,
            ..Needs::default()
        }
    }

    pub fn run(&self, task: usize, arena: Arena, worker: &mut Worker) {
        let g = &*self.gather;
        let c = &g.conv;
        let (first_row, rows) = self.row_blocks[task / self.panel_blocks.len()];
        let (first_panel, panels) = self.panel_blocks[task % self.panel_blocks.len()];
        let lanes = self.isa.tile().1;
        let Worker { columns, block, starts, .. } = worker;
        starts.clear();
        starts.extend((0..rows).map(|i| i * g.tile.depth));
        let total = c.n * self.pixels.len();
        for (number, start) in (0..total).step_by(g.tile.depth).enumerate() {
            let depth = g.tile.depth.min(total - start);
            for (panel, packed) in columns.chunks_exact_mut(depth * lanes).take(panels).enumerate() {
                self.pack(&self.pieces[first_panel + panel], start, packed, arena);
            }
            let at = g.blocks + (number * c.o + first_row) * g.tile.depth;
            let product = Product {
                words: gemm::Words::F32,
                rows: Rows { data: arena.read(at, rows * g.tile.depth), starts, step: 1 },
                offset: 0,
                depth,
                columns,
                panels,
                accumulate: number > 0,
            };
            gemm::block(self.isa, &product, block);
        }
        let row_floats = self.column_to.len();
        for (i, row) in block.chunks_exact(panels * lanes).take(rows).enumerate() {
            let columns_to = &self.column_to[first_panel * lanes..];
            for (value, to) in row.iter().zip(columns_to) {
                // SAFETY: each element of the filter's gradient is one task's, and lies apart from what is read.
                unsafe { arena.put(self.into + (first_row + i) * row_floats + to, *value) };
            }
        }
    }

    /// The columns of one panel for consecutive pixels of all images.
    fn pack(&self, pieces: &[Piece], start: usize, packed: &mut [f32], arena: Arena) {
        match (pieces, self.isa.tile().1) {
            // A copy of a known length is a few vector moves.
            ([Piece { from, len: 16, .. }], 16) => self.pack_with::<16>(start, packed, arena, |pixel, row| {
                row.copy_from_slice(&pixel[*from..][..16]);
            }),
            ([Piece { from, len: 32, .. }], 32) => self.pack_with::<32>(start, packed, arena, |pixel, row| {
                row.copy_from_slice(&pixel[*from..][..32]);
            }),
            (_, 32) => self.pack_with::<32>(start, packed, arena, |pixel, row| copy_pieces(pieces, pixel, row)),
            _ => self.pack_with::<16>(start, packed, arena, |pixel, row| copy_pieces(pieces, pixel, row)),
        }
    }

    fn pack_with<const LANES: usize>(
        &self,
        start: usize,
        packed: &mut [f32],
        arena: Arena,
        copy: impl Fn(&[f32], &mut [f32; LANES]),
    ) {
        let g = &*self.gather;
        let (mut image, mut pixel) = (start / self.pixels.len(), start % self.pixels.len());
        let mut padded = arena.read(g.padded + image * g.frame.floats(), g.frame.floats());
        for row in packed.as_chunks_mut::<LANES>().0 {
            copy(&padded[self.pixels[pixel]..], row);
            pixel += 1;
            if pixel == self.pixels.len() {
                pixel = 0;
                image += 1;
                if image < g.conv.n {
                    padded = arena.read(g.padded + image * g.frame.floats(), g.frame.floats());
                }
            }
        }
    }
}

fn copy_pieces(pieces: &[Piece], pixel: &[f32], row: &mut [f32]) {
    let mut used = 0;
    for piece in pieces {
        row[piece.lane..][..piece.len].copy_from_slice(&pixel[piece.from..][..piece.len]);
        used = piece.lane + piece.len;
    }
    row[used..].fill(0.0);
}
