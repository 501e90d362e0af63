//! The gradient of a convolution in an input of few channels.
//!
//! Each tap of the filter times all channels of the output's gradient, pixel by pixel as they lie in memory; what the
//! taps give is added to the pixels that they are on.

use super::matmul::Results;
use super::matrix::{Matrix, Part};
use super::patches::{Patches, add_taps};
use super::{Needs, Worker, parts};
use crate::exec::cpu::arena::Arena;
use crate::exec::cpu::gemm::{self, Isa, Product, Rows, Words};
use crate::kernel::choice::{Tile, lines_met, lines_of_patches};
use crate::kernel::contraction::ConvShape;
use std::ops::Range;

#[derive(Debug)]
pub struct InputGrad {
    isa: Isa,
    conv: ConvShape,
    patches: Patches,
    /// The float of the arena at which the filter starts. It has a row for each channel of the output and a column for each
    /// tap: taps are the rows of the product.
    filter: usize,
    /// The output's gradient, with a row for each channel and a column for each pixel.
    gradient: Matrix,
    pub results: Results,
    /// The channels of the output that are summed at a time, and the rows of an image that are one task.
    depths: Vec<(usize, usize)>,
    lines: Vec<(usize, usize)>,
}

impl InputGrad {
    /// `gradient` and `filter` are the floats of the arena at which they start.
    pub fn new(isa: Isa, conv: &ConvShape, tile: Tile, [gradient, filter]: [usize; 2], results: Results) -> InputGrad {
        let pixels = conv.pixels();
        InputGrad {
            isa,
            conv: *conv,
            patches: Patches::new(conv),
            filter,
            gradient: Matrix::new(gradient, [(conv.o * pixels) as isize, pixels as isize, 1]),
            results,
            depths: parts(conv.o, tile.depth),
            lines: parts(conv.input[0], lines_of_patches(conv, tile)),
        }
    }

    pub fn tasks(&self) -> usize {
        self.conv.n * self.lines.len()
    }

    /// The pixels of the output whose taps are on some rows of the image.
    fn pixels(&self, (start, len): (usize, usize)) -> Range<usize> {
        let rows = lines_met(&self.conv, start..start + len);
        rows.start * self.conv.output[1]..rows.end * self.conv.output[1]
    }

    pub fn needs(&self) -> Needs {
        let lanes = self.isa.tile().1;
        let width = self.lines.iter().map(|lines| self.pixels(*lines).len()).max().unwrap_or(0).next_multiple_of(lanes);
        let lines = self.lines.iter().map(|lines| lines.1).max().unwrap_or(0);
        let depth = self.depths.iter().map(|depth| depth.1).max().unwrap_or(0);
        Needs {
            columns: width * depth,
            block: self.conv.taps().next_multiple_of(gemm::MAX_ROWS) * width,
            out: self.conv.c * lines * self.conv.input[1],
            starts: self.conv.taps(),
            ..Needs::default()
        }
    }

    pub fn run(&self, task: usize, arena: Arena, worker: &mut Worker) {
        let (image, (first, lines)) = (task / self.lines.len(), self.lines[task % self.lines.len()]);
        let (taps, lanes) = (self.conv.taps(), self.isa.tile().1);
        let pixels = self.pixels((first, lines));
        let panels = pixels.len().div_ceil(lanes);
        let Worker { nest, columns, block, out, starts, .. } = worker;
        starts.clear();
        starts.extend(0..taps);
        for (i, &(start, depth)) in self.depths.iter().enumerate() {
            let part = Part { start, depth, terms: self.conv.o, first: pixels.start, columns: pixels.len() };
            self.gradient.pack(Words::F32, image, &part, lanes, arena, columns);
            let data = arena.read(self.filter + start * taps, depth * taps);
            let rows = Rows { data, starts, step: taps };
            let product = Product { words: Words::F32, rows, offset: 0, depth, columns, panels, accumulate: i > 0 };
            gemm::block(self.isa, &product, block);
        }
        let [height, width] = self.conv.input;
        let out = &mut out[..self.conv.c * lines * width];
        out.fill(0.0);
        add_taps(&self.patches, block, panels * lanes, pixels, first..first + lines, out);
        self.results.begin(arena, &mut nest.registers);
        let start = image * self.conv.c * height * width;
        if lines == height {
            self.results.store(start, out, arena, &mut nest.registers);
            return;
        }
        for (channel, rows) in out.chunks_exact(lines * width).enumerate() {
            let start = start + (channel * height + first) * width;
            self.results.store(start, rows, arena, &mut nest.registers);
        }
    }
}
