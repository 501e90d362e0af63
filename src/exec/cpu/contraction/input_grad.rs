//! The gradient of a convolution in an input of few channels.
//!
//! Each tap of the filter times all channels of the output's gradient, pixel by pixel as they lie in memory; what the
//! taps give is added to the pixels that they are on.

use super::matmul::{Matrix, Results};
use super::patches::{Patches, add_taps};
use super::{Needs, Worker, parts};
use crate::exec::cpu::arena::Arena;
use crate::exec::cpu::gemm::{self, Isa, Product, Rows};
use crate::kernel::choice::{Tile, lines_met, lines_of_patches};
use crate::kernel::contraction::ConvShape;
use std::ops::Range;

#[derive(Debug)]
pub struct InputGrad {
    isa: Isa,
    conv: ConvShape,
    patches: Patches,
    /// The filter with a row for each tap and a column for each channel of the output.
    filter: Matrix,
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
        let (taps, pixels) = (conv.taps(), conv.pixels());
        InputGrad {
            isa,
            conv: *conv,
            patches: Patches::new(conv),
            filter: Matrix::new(filter, [0, 1, taps as isize]),
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
            rows: self.conv.taps() * depth,
            columns: width * depth,
            block: self.conv.taps().next_multiple_of(gemm::MAX_ROWS) * width,
            out: self.conv.c * lines * self.conv.input[1],
            starts: self.conv.taps(),
        }
    }

    pub fn run(&self, task: usize, arena: Arena, worker: &mut Worker) {
        let (image, (first, lines)) = (task / self.lines.len(), self.lines[task % self.lines.len()]);
        let (taps, lanes) = (self.conv.taps(), self.isa.tile().1);
        let pixels = self.pixels((first, lines));
        let panels = pixels.len().div_ceil(lanes);
        let Worker { nest, rows, columns, block, out, starts } = worker;
        for (i, &(start, depth)) in self.depths.iter().enumerate() {
            self.filter.copy_rows(0, [0, start], [taps, depth], rows, arena);
            for (panel, packed) in columns.chunks_exact_mut(depth * lanes).take(panels).enumerate() {
                let column = pixels.start + panel * lanes;
                let used = lanes.min(pixels.end - column);
                self.gradient.pack_columns(image, [start, column], [used, lanes], packed, arena);
            }
            starts.clear();
            starts.extend((0..taps).map(|tap| tap * depth));
            let rows = Rows { data: &rows[..taps * depth], starts };
            gemm::block(self.isa, &Product { rows, offset: 0, depth, columns, panels, accumulate: i > 0 }, block);
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
