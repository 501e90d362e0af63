//! Convolutions and their input gradients: each image's pixels times the filter.
//!
//! An image is copied with its channels innermost and zeros around it, so that what a tap row of the
//! filter reads for one pixel is consecutive in memory; rows of the product are then read where they are
//! (Dukhan, "The Indirect Convolution Algorithm", arXiv 1907.02129). The gradient of a strided
//! convolution in its input is one such product for each residue of the output's coordinates.

use super::frame::{Frame, TOGETHER};
use super::matmul::Results;
use super::{Needs, Worker, parts};
use crate::exec::cpu::arena::Arena;
use crate::exec::cpu::gemm::{self, Isa, Rows};
use crate::kernel::choice::{Columns, ImageChoice, RowSource, Tile};
use crate::kernel::contraction::ContractionKind;
use crate::kernel::gemm::Gemm;
use crate::types::MAX_BLOCK;
use std::sync::Arc;

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
    /// Elements of the filter.
    filter: usize,
    images_per_task: usize,
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

impl Geometry {
    /// The images that the products of a convolution or of its gradient in the input make of others.
    pub fn new(kind: &ContractionKind, isa: Isa, choice: &ImageChoice) -> Geometry {
        let gemms = kind.gemms();
        let ([source, _], destination) = kind.shapes();
        let plane = |shape: &[usize]| Plane { channels: shape[1], size: [shape[2], shape[3]] };
        let (source, destination) = (plane(&source), plane(&destination));
        // The source's coordinates that are read along each dimension.
        let reads = |d: usize| {
            let used = gemms.iter().filter(|g| g.depth() > 0);
            used.map(move |g| (g.a.bounds[d].offset, g.a.bounds[d].offset + reach(g, d)))
        };
        let low = [0, 1].map(|d| (-reads(d).map(|r| r.0).min().unwrap_or(0)).max(0) as usize);
        let padded = [0, 1].map(|d| {
            let end = reads(d).map(|r| r.1 + 1).max().unwrap_or(0).max(source.size[d] as isize);
            low[d] + end as usize
        });
        let lanes = match choice.columns {
            Columns::Dots => 1,
            Columns::Panels => isa.tile().1,
        };
        let panels = destination.channels.div_ceil(lanes);
        let filter_strides = gemms.first().map_or([0; 2], |g| [2, 3].map(|d| g.b.strides[d] as usize));
        let images = gemms.first().map_or(0, |g| g.m[0]);
        let mut geometry = Geometry {
            images,
            source,
            destination,
            padded,
            low,
            residues: Vec::new(),
            lanes,
            panels,
            filter_strides,
            filter: kind.shapes().0[1].iter().product(),
            images_per_task: 1,
        };
        let mut packed = 0;
        for (gemm, rows) in gemms.iter().zip(&choice.rows) {
            let residue = geometry.residue(gemm, *rows, choice.tile, packed);
            packed += residue.depth(source.channels) * lanes * panels;
            geometry.residues.push(residue);
        }
        geometry.images_per_task = geometry.images_for(choice.tile, isa);
        geometry
    }

    /// How many images one task takes: about as many rows as the tile has, at least eight tasks where there are as many
    /// images, no more than a thread has room for, and little of the inner kernel's rows unused.
    fn images_for(&self, tile: Tile, isa: Isa) -> usize {
        let rows = self.residues.iter().map(|r| r.pixels.len()).max().unwrap_or(1).max(1);
        let most = (tile.rows / rows).clamp(1, self.images.div_ceil(8).max(1));
        // A plan's verification bounds what one image takes.
        let most = most.min(MAX_BLOCK / (self.padded_floats() + self.gathered_floats()).max(1)).max(1);
        let height = isa.tile().0;
        let waste = |images: &usize| (images * rows).next_multiple_of(height) * 1000 / (images * rows);
        (1..=most).rev().min_by_key(waste).unwrap_or(1)
    }

    fn residue(&self, gemm: &Gemm, rows: RowSource, tile: Tile, packed: usize) -> Residue {
        let channels = self.source.channels;
        let at = |start: isize, strides: [isize; 2], [i, j]: [usize; 2]| {
            start + i as isize * strides[0] + j as isize * strides[1]
        };
        let [row, column] = [0, 1].map(|d| &gemm.a.bounds[d]);
        let position = |[i, j]: [usize; 2]| {
            let y = row.offset + i as isize * row.strides[1];
            let x = column.offset + j as isize * column.strides[2];
            // Products without terms read nothing: any place will do.
            let [y, x] = [y + self.low[0] as isize, x + self.low[1] as isize].map(|at| at.max(0) as usize);
            (y * self.padded[1] + x) * channels
        };
        let pixels = (0..gemm.m[1])
            .flat_map(|i| (0..gemm.m[2]).map(move |j| [i, j]))
            .map(|pixel| {
                (at(gemm.out.offset, [gemm.out.strides[1], gemm.out.strides[2]], pixel) as usize, position(pixel))
            })
            .collect();
        let taps: Vec<usize> = (0..gemm.k[0])
            .flat_map(|i| (0..gemm.k[1]).map(move |j| [i, j]))
            .map(|tap| at(gemm.b.offset, [gemm.b.strides[0], gemm.b.strides[1]], tap) as usize)
            .collect();
        let run = gemm.k[1] * channels;
        let runs: Vec<(usize, usize)> = match run {
            0 => Vec::new(),
            _ => (0..gemm.k[0]).map(|i| (i * self.padded[1] * channels, run)).collect(),
        };
        let gathered = rows == RowSource::Gathered;
        let whole = [(0, run * runs.len())];
        let mut before = 0;
        let mut chunks = Vec::new();
        for &(offset, len) in if gathered { &whole[..] } else { &runs[..] } {
            for (start, depth) in parts(len, tile.depth) {
                chunks.push(Chunk { offset: offset + start, depth, before });
                before += depth;
            }
        }
        Residue { pixels, taps, runs, chunks, gathered, packed }
    }

    fn frame(&self) -> Frame {
        Frame { channels: self.source.channels, size: self.source.size, low: self.low, padded: self.padded }
    }

    fn padded_floats(&self) -> usize {
        self.frame().floats()
    }

    /// Floats of one image's gathered rows.
    fn gathered_floats(&self) -> usize {
        let of = |r: &Residue| if r.gathered { r.pixels.len() * r.depth(self.source.channels) } else { 0 };
        self.residues.iter().map(of).max().unwrap_or(0)
    }
}

/// How far beyond a bound's offset its sum goes over a product's space.
fn reach(gemm: &Gemm, d: usize) -> isize {
    let space = gemm.space([&gemm.m, &gemm.k]);
    gemm.a.bounds[d].strides.iter().zip(space).map(|(stride, size)| stride * (size as isize - 1)).sum()
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
        let filter: &[f32] = arena.read(self.filter, g.filter);
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
    pub(super) results: Results,
}

impl ImageProduct {
    pub(super) fn new(
        geometry: &Arc<Geometry>,
        isa: Isa,
        source: usize,
        packed: usize,
        results: Results,
    ) -> ImageProduct {
        ImageProduct { geometry: geometry.clone(), isa, source, packed, results }
    }

    pub fn tasks(&self) -> usize {
        self.geometry.images.div_ceil(self.geometry.images_per_task)
    }

    fn most_rows(&self) -> usize {
        self.geometry.residues.iter().map(|r| r.pixels.len()).max().unwrap_or(0) * self.geometry.images_per_task
    }

    pub fn needs(&self) -> Needs {
        let g = &*self.geometry;
        let out = match self.results {
            Results::Plain(_) => 0,
            Results::Through(_) => self.geometry.images_per_task * g.destination.floats(),
        };
        Needs {
            rows: self.geometry.images_per_task * g.padded_floats(),
            columns: self.geometry.images_per_task * g.gathered_floats(),
            block: self.most_rows().next_multiple_of(gemm::MAX_ROWS) * g.panels * g.lanes,
            out,
            starts: self.most_rows(),
        }
    }

    pub fn run(&self, task: usize, arena: Arena, worker: &mut Worker) {
        let g = &*self.geometry;
        let first = task * self.geometry.images_per_task;
        let images = self.geometry.images_per_task.min(g.images - first);
        let Worker { nest, rows, columns, block, out, starts, .. } = worker;
        for (i, padded) in rows.chunks_exact_mut(g.padded_floats()).take(images).enumerate() {
            let image = arena.read(self.source + (first + i) * g.source.floats(), g.source.floats());
            g.frame().fill(image, padded);
        }
        let out = match self.results {
            // SAFETY: a task's images are its own, and lie apart from source and filter.
            Results::Plain(to) => unsafe {
                arena.write(to.first() + first * g.destination.floats(), images * g.destination.floats())
            },
            Results::Through(_) => &mut out[..images * g.destination.floats()],
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
                    words: gemm::Words::F32,
                    rows: Rows { data, starts, step: 1 },
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
        if let Results::Through(epilogue) = &self.results {
            epilogue.share(arena, &mut nest.registers);
            epilogue.run(first * g.destination.floats(), out, arena, &mut nest.registers);
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
