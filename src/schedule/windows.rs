//! The windows of [`Op::Im2col`] and [`Op::Col2im`] as movements, over spaces in which what they read and write is one stride
//! apart along every dimension.

use crate::ir::{Op, Shape};
use crate::types::Window;

/// The result of `Im2col` of images `from` with its taps as dimensions of their own: `[n,c,kh,kw,oh,ow]`.
pub fn taps_apart(kernel: [usize; 2], from: &[usize], to: &[usize]) -> Shape {
    vec![from[0], from[1], kernel[0], kernel[1], to[2], to[3]]
}

/// Images with their rows and columns taken apart by the stride, `[n,c,h/s,s,w/s,s]`: of the pixels of one residue a tap's
/// elements are next to each other.
pub fn residues_apart(window: &Window, images: &[usize]) -> Shape {
    let [down, across] = window.stride;
    vec![images[0], images[1], images[2] / down, down, images[3] / across, across]
}

/// How each tap of `Col2im` reads the windows `from` for the images `to`: movements, the last one first, each with the shape
/// that it moves. Taps that lie on no pixel are left out.
pub fn tap_moves(window: &Window, kernel: [usize; 2], from: &[usize], to: &[usize]) -> Vec<Vec<(Op, Shape)>> {
    let (apart, [n, c]) = (residues_apart(window, to), [to[0], to[1]]);
    let taps = (0..kernel[0]).flat_map(|down| (0..kernel[1]).map(move |across| [down, across]));
    let moves = taps.filter_map(|tap| {
        let [rows, columns] = [0, 1].map(|d| Line::new(window, d, tap[d], [from[d + 2], to[d + 2]]));
        let (rows, columns) = (rows?, columns?);
        // The windows with the taps as dimensions, one tap, its windows that lie on the images, and these in their places.
        let windows = vec![n, c, kernel[0], kernel[1], from[2], from[3]];
        let (start, end) = (
            vec![0, 0, tap[0], tap[1], rows.windows[0], columns.windows[0]],
            vec![n, c, tap[0] + 1, tap[1] + 1, rows.windows[1], columns.windows[1]],
        );
        let sliced: Shape = start.iter().zip(&end).map(|(start, end)| end - start).collect();
        let lined = vec![n, c, rows.count(), 1, columns.count(), 1];
        let low = vec![0, 0, rows.low, rows.residue, columns.low, columns.residue];
        let high = (0..6).map(|d| apart[d] - low[d] - lined[d]).collect();
        Some(vec![
            (Op::Reshape { to: to.to_vec() }, apart.clone()),
            (Op::Pad { low, high }, lined.clone()),
            (Op::Reshape { to: lined }, sliced),
            (Op::Slice { start, end }, windows.clone()),
            (Op::Reshape { to: windows }, from.to_vec()),
        ])
    });
    moves.collect()
}

/// One tap along one dimension.
struct Line {
    /// The first window whose tap lies on the image, and the one after the last.
    windows: [usize; 2],
    /// Where the first one's lies: so many strides from the image's start, and so many pixels more.
    low: usize,
    residue: usize,
}

impl Line {
    /// None where the tap of no window lies on the image.
    fn new(window: &Window, d: usize, tap: usize, [windows, size]: [usize; 2]) -> Option<Line> {
        let (stride, pad) = (window.stride[d], window.pad[d]);
        // Window `i` has the tap on pixel `i * stride + tap - pad`.
        let first = pad.saturating_sub(tap).div_ceil(stride);
        let pixel = first * stride + tap - pad;
        let end = windows.min(first + size.saturating_sub(pixel).div_ceil(stride));
        (first < end).then_some(Line { windows: [first, end], low: pixel / stride, residue: pixel % stride })
    }

    fn count(&self) -> usize {
        self.windows[1] - self.windows[0]
    }
}
