//! Images with channels innermost.

/// Channels that are moved at a time, so that both sides of a transposition stay within few cache lines.
pub const TOGETHER: usize = 8;

/// The frame of zeros into which an image of `[channels][height][width]` is put.
#[derive(Debug, Clone, Copy)]
pub struct Frame {
    pub channels: usize,
    pub size: [usize; 2],
    /// Zeros before the first row and column.
    pub low: [usize; 2],
    /// Rows and columns with all zeros counted in.
    pub padded: [usize; 2],
}

impl Frame {
    pub fn floats(&self) -> usize {
        self.padded[0] * self.padded[1] * self.channels
    }

    /// Copies an image to `[height][width][channels]`, with zeros around.
    pub fn fill(&self, image: &[f32], padded: &mut [f32]) {
        let Frame { channels, size: [height, width], low, padded: [rows, columns] } = *self;
        let line = columns * channels;
        padded[..low[0] * line].fill(0.0);
        padded[(low[0] + height) * line..rows * line].fill(0.0);
        let plane = height * width;
        for y in 0..height {
            let line = &mut padded[(low[0] + y) * line..][..line];
            line[..low[1] * channels].fill(0.0);
            line[(low[1] + width) * channels..].fill(0.0);
            let line = &mut line[low[1] * channels..][..width * channels];
            for c in (0..channels).step_by(TOGETHER) {
                let together = TOGETHER.min(channels - c);
                if together == TOGETHER {
                    let planes: [&[f32]; TOGETHER] =
                        std::array::from_fn(|i| &image[(c + i) * plane + y * width..][..width]);
                    for x in 0..width {
                        let pixel = &mut line[x * channels + c..][..TOGETHER];
                        for i in 0..TOGETHER {
                            pixel[i] = planes[i][x];
                        }
                    }
                } else {
                    for (x, pixel) in line.chunks_exact_mut(channels).enumerate() {
                        for (i, value) in pixel[c..c + together].iter_mut().enumerate() {
                            *value = image[(c + i) * plane + y * width + x];
                        }
                    }
                }
            }
        }
    }
}
