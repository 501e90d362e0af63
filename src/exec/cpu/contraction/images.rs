//! Convolutions and their input gradients: each image's pixels times the filter.
//!
//! An image is copied with its channels innermost and zeros around it, so that what a tap row of the
//! filter reads for one pixel is consecutive in memory; rows of the product are then read where they are
//! (Dukhan, "The Indirect Convolution Algorithm", arXiv 1907.02129). The gradient of a strided
//! convolution in its input is one such product for each residue of the output's coordinates.

use super::layout::{Frame, TOGETHER};
use super::{DEPTH, Epilogue, Needs, Worker, parts};
use crate::exec::cpu::arena::Arena;
use crate::exec::cpu::gemm::{self, Isa, Rows};
use crate::kernel::contraction::ConvShape;
use std::sync::Arc;

/// Rows of the product that one task computes, about.
const ROWS: usize = 192;
/// Up to so many columns the product is taken as dot products instead of padding a panel.
const FEW_COLUMNS: usize = 3;
/// Tap rows that are shorter are gathered into one row of the product first.
const SHORT_RUN: usize = 32;

/// How the pixels of a destination image come from those of a source image.
#[derive(Debug)]
pub struct Geometry {
    images: usize,
    source: Plane,
    destination: Plane,
    /// Zeros before and after the source's rows and columns.
    padded: [usize; 2],
    low: [usize; 2],
    residues: Vec<Residue>,
    /// Columns of a panel of the packed filter, and how many panels there are.
    lanes: usize,
    panels: usize,
    /// Elements of the filter from one channel of the source to the next, and of the destination.
    filter_strides: [usize; 2],
}

#[derive(Debug, Clone, Copy)]
struct Plane {
    channels: usize,
    size: [usize; 2],
}

impl Plane {
    fn pixels(&self) -> usize {
        self.size[0] * self.size[1]
    }

    fn floats(&self) -> usize {
        self.channels * self.pixels()
    }
}

/// Pixels of the destination that use the same taps.
#[derive(Debug)]
struct Residue {
    /// Each pixel of the destination, and where its first tap's channels start in the padded source.
    pixels: Vec<(usize, usize)>,
    /// Position in the filter's plane of each tap, in the order in which the padded source has them.
    taps: Vec<usize>,
    /// Consecutive floats of a row of the product, relative to its start, in order.
    runs: Vec<(usize, usize)>,
    /// The runs cut to what is summed at a time.
    chunks: Vec<Chunk>,
    /// Whether the runs of a row are gathered into consecutive memory.
    gathered: bool,
    /// Where the residue's columns start in the packed filter.
    packed: usize,
}

#[derive(Debug, Clone, Copy)]
struct Chunk {
    offset: usize,
    depth: usize,
    /// How much of the summed dimension comes before.
    before: usize,
}

/// One dimension of a residue: the first tap, how many, the destination's coordinates.
struct Line {
    taps: Vec<usize>,
    /// Destination coordinate, and the source coordinate of the first tap (may lie in the padding).
    places: Vec<(usize, isize)>,
}

impl Geometry {
    /// `y[n,o,·] = Σ x[n,c,·] w[o,c,·]`.
    pub fn forward(c: &ConvShape, isa: Isa) -> Geometry {
        let line = |d: usize| Line {
            taps: (0..c.kernel[d]).collect(),
            places: (0..c.output[d])
                .map(|i| (i, (i * c.window.stride[d]) as isize - c.window.pad[d] as isize))
                .collect(),
        };
        let source = Plane { channels: c.c, size: c.input };
        let destination = Plane { channels: c.o, size: c.output };
        let plane = c.kernel[0] * c.kernel[1];
        Geometry::new(c, isa, source, destination, [vec![line(0)], vec![line(1)]], [plane, c.c * plane])
    }

    /// `x[n,c,·] = Σ y[n,o,·] w[o,c,·]`: the pixel `h` takes tap `k` of row `(h + pad − k) / stride` where
    /// that is whole, so pixels of one residue of `h + pad` share their taps.
    pub fn input_grad(c: &ConvShape, isa: Isa) -> Geometry {
        let lines = |d: usize| -> Vec<Line> {
            let (stride, pad) = (c.window.stride[d], c.window.pad[d]);
            (0..stride)
                .map(|residue| {
                    // From the last tap to the first the source's coordinate rises.
                    let taps: Vec<usize> = (residue..c.kernel[d]).step_by(stride).collect::<Vec<_>>();
                    let count = taps.len() as isize;
                    let places = (0..c.input[d])
                        .filter(|h| (h + pad) % stride == residue)
                        .map(|h| (h, ((h + pad - residue) / stride) as isize - (count - 1)))
                        .collect();
                    Line { taps: taps.into_iter().rev().collect(), places }
                })
                // A stride may be much larger than the image.
                .filter(|line| !line.places.is_empty())
                .collect()
        };
        let source = Plane { channels: c.o, size: c.output };
        let destination = Plane { channels: c.c, size: c.input };
        let plane = c.kernel[0] * c.kernel[1];
        Geometry::new(c, isa, source, destination, [lines(0), lines(1)], [c.c * plane, plane])
    }

    fn new(
        c: &ConvShape,
        isa: Isa,
        source: Plane,
        destination: Plane,
        lines: [Vec<Line>; 2],
        filter_strides: [usize; 2],
    ) -> Geometry {
        let (mut low, mut padded) = ([0; 2], [0; 2]);
        for d in 0..2 {
            let reads = || {
                let used = lines[d].iter().filter(|l| !l.taps.is_empty());
                used.flat_map(|l| l.places.iter().map(|p| (p.1, p.1 + l.taps.len() as isize)))
            };
            low[d] = (-reads().map(|r| r.0).min().unwrap_or(0)).max(0) as usize;
            let end = reads().map(|r| r.1).max().unwrap_or(0).max(source.size[d] as isize);
            padded[d] = low[d] + end as usize;
        }
        let few = destination.channels <= FEW_COLUMNS;
        let lanes = if few { 1 } else { isa.tile().1 };
        let panels = destination.channels.div_ceil(lanes);
        let mut geometry = Geometry {
            images: c.n,
            source,
            destination,
            padded,
            low,
            residues: Vec::new(),
            lanes,
            panels,
            filter_strides,
        };
        let mut packed = 0;
        for rows in &lines[0] {
            for columns in &lines[1] {
                let residue = geometry.residue(rows, columns, c.kernel[1], packed);
                packed += residue.depth(source.channels) * lanes * panels;
                geometry.residues.push(residue);
            }
        }
        geometry
    }

    fn residue(&self, rows: &Line, columns: &Line, kernel_width: usize, packed: usize) -> Residue {
        let channels = self.source.channels;
        let position = |y: isize, x: isize| {
            // Lines without taps are not read: any place will do.
            let at = |d: usize, i: isize| (i + self.low[d] as isize).max(0) as usize;
            (at(0, y) * self.padded[1] + at(1, x)) * channels
        };
        let pixels = (rows.places.iter())
            .flat_map(|&(h, y)| columns.places.iter().map(move |&(w, x)| (h, w, y, x)))
            .map(|(h, w, y, x)| (h * self.destination.size[1] + w, position(y, x)))
            .collect();
        let taps: Vec<usize> =
            (rows.taps.iter()).flat_map(|ky| columns.taps.iter().map(move |kx| ky * kernel_width + kx)).collect();
        let run = columns.taps.len() * channels;
        let runs: Vec<(usize, usize)> = match run {
            0 => Vec::new(),
            _ => (0..rows.taps.len()).map(|i| (i * self.padded[1] * channels, run)).collect(),
        };
        let gathered = runs.len() > 1 && run < SHORT_RUN;
        let whole = [(0, run * runs.len())];
        let mut before = 0;
        let mut chunks = Vec::new();
        for &(offset, len) in if gathered { &whole[..] } else { &runs[..] } {
            for (start, depth) in parts(len, DEPTH) {
                chunks.push(Chunk { offset: offset + start, depth, before });
                before += depth;
            }
        }
        Residue { pixels, taps, runs, chunks, gathered, packed }
    }

    /// Floats of the packed filter.
    pub fn packed_floats(&self) -> usize {
        let depth: usize = self.residues.iter().map(|r| r.depth(self.source.channels)).sum();
        depth * self.lanes * self.panels
    }

    fn frame(&self) -> Frame {
        Frame { channels: self.source.channels, size: self.source.size, low: self.low, padded: self.padded }
    }

    fn padded_floats(&self) -> usize {
        self.frame().floats()
    }
}

impl Residue {
    fn depth(&self, channels: usize) -> usize {
        self.taps.len() * channels
    }
}

/// Puts the filter into panels of columns, chunk by chunk of the summed dimension.
#[derive(Debug)]
pub struct PackFilter {
    geometry: Arc<Geometry>,
    filter: usize,
    packed: usize,
}

impl PackFilter {
    pub fn new(geometry: &Arc<Geometry>, filter: usize, packed: usize) -> PackFilter {
        PackFilter { geometry: geometry.clone(), filter, packed }
    }

    pub fn tasks(&self) -> usize {
        self.geometry.residues.len() * self.geometry.panels
    }

    pub fn run(&self, task: usize, arena: Arena) {
        let g = &*self.geometry;
        let (residue, panel) = (&g.residues[task / g.panels], task % g.panels);
        let channels = g.source.channels;
        let columns = panel * g.lanes..((panel + 1) * g.lanes).min(g.destination.channels);
        let used = columns.len();
        let filter_floats = channels * g.destination.channels * (g.filter_strides[0].min(g.filter_strides[1]));
        let filter = arena.read(self.filter, filter_floats);
        for chunk in &residue.chunks {
            let at = residue.packed + chunk.before * g.lanes * g.panels + panel * chunk.depth * g.lanes;
            // SAFETY: a panel of the packed filter is its task's own, in memory that only this contraction uses.
            let out = unsafe { arena.write::<f32>(self.packed + at, chunk.depth * g.lanes) };
            for (k, lanes) in out.chunks_exact_mut(g.lanes).enumerate() {
                let (tap, channel) = ((chunk.before + k) / channels, (chunk.before + k) % channels);
                let from = channel * g.filter_strides[0] + residue.taps[tap];
                for (lane, column) in lanes.iter_mut().zip(columns.clone()) {
                    *lane = filter[from + column * g.filter_strides[1]];
                }
                lanes[used..].fill(0.0);
            }
        }
    }
}

/// The product itself.
#[derive(Debug)]
pub struct ImageProduct {
    geometry: Arc<Geometry>,
    isa: Isa,
    source: usize,
    packed: usize,
    pub(super) epilogue: Epilogue,
    /// The float of the arena at which the sums are stored as they are, where nothing else is done.
    plain: Option<usize>,
    images_per_task: usize,
}

impl ImageProduct {
    pub fn new(
        geometry: &Arc<Geometry>,
        isa: Isa,
        source: usize,
        packed: usize,
        epilogue: Epilogue,
        plain: Option<usize>,
    ) -> ImageProduct {
        let rows = geometry.residues.iter().map(|r| r.pixels.len()).max().unwrap_or(1).max(1);
        // At least eight tasks, where there are as many images.
        let most = (ROWS / rows).clamp(1, geometry.images.div_ceil(8).max(1));
        let tile = isa.tile().0;
        let waste = |images: &usize| (images * rows).next_multiple_of(tile) * 1000 / (images * rows);
        let images_per_task = (1..=most).rev().min_by_key(waste).unwrap_or(1);
        ImageProduct { geometry: geometry.clone(), isa, source, packed, epilogue, plain, images_per_task }
    }

    pub fn tasks(&self) -> usize {
        self.geometry.images.div_ceil(self.images_per_task)
    }

    fn most_rows(&self) -> usize {
        self.geometry.residues.iter().map(|r| r.pixels.len()).max().unwrap_or(0) * self.images_per_task
    }

    /// Floats of gathered rows.
    fn gathered_floats(&self) -> usize {
        let g = &*self.geometry;
        let of = |r: &Residue| if r.gathered { r.pixels.len() * r.depth(g.source.channels) } else { 0 };
        g.residues.iter().map(of).max().unwrap_or(0) * self.images_per_task
    }

    pub fn needs(&self) -> Needs {
        let g = &*self.geometry;
        let out = if self.plain.is_some() { 0 } else { self.images_per_task * g.destination.floats() };
        Needs {
            rows: self.images_per_task * g.padded_floats(),
            columns: self.gathered_floats(),
            block: self.most_rows().next_multiple_of(gemm::MAX_ROWS) * g.panels * g.lanes,
            out,
            starts: self.most_rows(),
        }
    }

    pub fn run(&self, task: usize, arena: Arena, worker: &mut Worker) {
        let g = &*self.geometry;
        let first = task * self.images_per_task;
        let images = self.images_per_task.min(g.images - first);
        let Worker { nest, rows, columns, block, out, starts } = worker;
        for (i, padded) in rows.chunks_exact_mut(g.padded_floats()).take(images).enumerate() {
            let image = arena.read(self.source + (first + i) * g.source.floats(), g.source.floats());
            g.frame().fill(image, padded);
        }
        let out = match self.plain {
            // SAFETY: a task's images are its own, and lie apart from source and filter.
            Some(base) => unsafe {
                arena.write(base + first * g.destination.floats(), images * g.destination.floats())
            },
            None => &mut out[..images * g.destination.floats()],
        };
        let width = g.panels * g.lanes;
        for residue in &g.residues {
            starts.clear();
            for image in 0..images {
                starts.extend(residue.pixels.iter().map(|p| image * g.padded_floats() + p.1));
            }
            let mut data = &rows[..];
            if residue.gathered {
                let depth = residue.depth(g.source.channels);
                for (row, &start) in columns.chunks_exact_mut(depth).zip(starts.iter()) {
                    let mut row = row;
                    for &(offset, len) in &residue.runs {
                        let (head, tail) = row.split_at_mut(len);
                        head.copy_from_slice(&rows[start + offset..][..len]);
                        row = tail;
                    }
                }
                starts.iter_mut().enumerate().for_each(|(i, start)| *start = i * depth);
                data = &columns[..];
            }
            if residue.chunks.is_empty() {
                block[..starts.len() * width].fill(0.0);
            }
            for (i, chunk) in residue.chunks.iter().enumerate() {
                let at = self.packed + residue.packed + chunk.before * width;
                let panels = arena.read(at, chunk.depth * width);
                let product = gemm::Product {
                    rows: Rows { data, starts },
                    offset: chunk.offset,
                    depth: chunk.depth,
                    columns: panels,
                    panels: g.panels,
                    accumulate: i > 0,
                };
                match g.lanes {
                    1 => gemm::dots(&product, block),
                    _ => gemm::block(self.isa, &product, block),
                }
            }
            let pixels = residue.pixels.len();
            for (image, block) in block.chunks_exact(pixels.max(1) * width).take(images).enumerate() {
                let out = &mut out[image * g.destination.floats()..][..g.destination.floats()];
                channels_outermost(block, width, residue, g, out);
            }
        }
        if self.plain.is_none() {
            self.epilogue.share(arena, &mut nest.registers);
            self.epilogue.run(first * g.destination.floats(), out, arena, &mut nest.registers);
        }
    }
}

/// Rows of pixels to one plane for each channel.
fn channels_outermost(block: &[f32], width: usize, residue: &Residue, g: &Geometry, out: &mut [f32]) {
    let plane = g.destination.pixels();
    for c in (0..g.destination.channels).step_by(TOGETHER) {
        let together = TOGETHER.min(g.destination.channels - c);
        for (row, &(pixel, _)) in block.chunks_exact(width).zip(&residue.pixels) {
            for (i, value) in row[c..c + together].iter().enumerate() {
                out[(c + i) * plane + pixel] = *value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{MAX_PADDED, Window};

    /// Most residues of a large stride have no pixel: nothing is kept for them.
    #[test]
    fn a_stride_beyond_the_image_costs_nothing() {
        let window = Window { stride: [MAX_PADDED; 2], pad: [0; 2] };
        let conv = ConvShape { n: 1, c: 1, input: [2, 3], o: 1, kernel: [1, 1], output: [1, 1], window };
        let geometry = Geometry::input_grad(&conv, Isa::detect());
        assert_eq!(geometry.residues.len(), 6);
        assert_eq!(geometry.residues.iter().map(|r| r.pixels.len()).sum::<usize>(), 6);
    }
}
