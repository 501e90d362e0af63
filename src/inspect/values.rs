//! What the values of a step look like: the range and a histogram of each node's, and a picture of those that have rows and
//! columns.

use crate::ir::{Bindings, Graph, InterpError, NodeId, Value, evaluate_while};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use std::collections::BTreeMap;

/// Parts of a histogram; the summary tells of 32.
const PARTS: usize = 32;
/// Pixels on a side that a picture may have, all its tiles together: hundreds of pictures are on a page.
const SIDE: usize = 60;

/// A node's value.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ValueSummary {
    pub elements: usize,
    /// How many of them are NaN, infinite, and 0.
    pub nan: usize,
    pub infinite: usize,
    pub zero: usize,
    /// Of those that are finite; 0 where none is.
    pub low: f32,
    pub high: f32,
    pub mean: f32,
    /// The standard deviation, of all and not of a sample.
    pub deviation: f32,
    /// How many are in each of 32 equal parts of the range, the fullest as 255; in base 64. Empty where all are
    /// one number, or none is finite.
    pub histogram: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub picture: Option<ValuePicture>,
}

/// The last two dimensions as rows and columns, the leading ones as tiles.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ValuePicture {
    pub tiles: usize,
    pub width: usize,
    pub height: usize,
    /// Which part of the tensor it is, as an index.
    pub about: String,
    /// Tile by tile, row by row, in base 64. 0 is what is not finite; 1 to 255 are from the least to the highest, or where
    /// there are both signs from -m to m, with m the largest magnitude, so that 128 is 0.
    pub pixels: String,
}

/// Evaluates a graph in f32 by the reference interpreter; gives what each node's value looks like, by the node's name.
///
/// # Errors
/// As [`evaluate`](crate::ir::evaluate).
pub fn summarise_values(
    graph: &Graph,
    bindings: &Bindings<f32>,
    mut progress: impl FnMut(),
) -> Result<BTreeMap<String, ValueSummary>, InterpError> {
    let updates = graph.updates.iter().map(|update| update.node);
    let results: Vec<NodeId> = graph.outputs.iter().map(|output| output.node).chain(updates).collect();
    let mut found = BTreeMap::new();
    evaluate_while(graph, bindings, &results, &mut |id, _, value| {
        progress();
        found.insert(graph.node(id).name.clone(), summary(value));
        true
    })?;
    Ok(found)
}

fn summary(value: &Value<f32>) -> ValueSummary {
    let shape = value.ty().shape.to_vec();
    let values = value.to_f64();
    let finite = || values.iter().copied().filter(|v| v.is_finite());
    let count = finite().count();
    let (low, high) = finite().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    let (low, high) = if count == 0 { (0.0, 0.0) } else { (low, high) };
    let mean = finite().sum::<f64>() / count.max(1) as f64;
    let variance = finite().map(|v| (v - mean).powi(2)).sum::<f64>() / count.max(1) as f64;
    ValueSummary {
        elements: values.len(),
        nan: values.iter().filter(|v| v.is_nan()).count(),
        infinite: values.iter().filter(|v| v.is_infinite()).count(),
        zero: values.iter().filter(|v| **v == 0.0).count(),
        low: low as f32,
        high: high as f32,
        mean: mean as f32,
        deviation: variance.sqrt() as f32,
        histogram: histogram(finite(), low, high),
        picture: picture(&shape, &values, low, high),
    }
}

fn histogram(values: impl Iterator<Item = f64>, low: f64, high: f64) -> String {
    if low == high {
        return String::new();
    }
    let mut counts = [0usize; PARTS];
    for value in values {
        // The highest belongs to the last part.
        counts[(((value - low) / (high - low) * PARTS as f64) as usize).min(PARTS - 1)] += 1;
    }
    let most = counts.iter().copied().max().unwrap_or_default().max(1);
    // A part that is not empty shows, however few it holds.
    let heights = counts.map(|count| if count == 0 { 0 } else { (count * 255 / most).max(1) as u8 });
    STANDARD.encode(heights)
}

/// The picture of what has two dimensions or more, and more than one row and column.
fn picture(shape: &[usize], values: &[f64], low: f64, high: f64) -> Option<ValuePicture> {
    let [lead @ .., rows, columns] = shape else { return None };
    if *rows < 2 || *columns < 2 || values.is_empty() {
        return None;
    }
    let every = [rows.div_ceil(SIDE), columns.div_ceil(SIDE)];
    let (height, width) = (rows.div_ceil(every[0]), columns.div_ceil(every[1]));
    // Of images the examples are shown, of everything else the channels of the first.
    let (step, axis) = match lead {
        [_, channels @ 2..=3] => (*channels, 0),
        [.., _] => (1, lead.iter().rposition(|&size| size > 1).unwrap_or(0)),
        [] => (1, 0),
    };
    let here: usize = lead.iter().product();
    let along = lead.get(axis).copied().unwrap_or(1);
    let tiles = (SIDE / height).max(1) * (SIDE / width).max(1);
    let tiles = tiles.min(here.div_ceil(step)).min(along.max(1));
    let largest = low.abs().max(high.abs());
    let (from, to) = if low < 0.0 && high > 0.0 { (-largest, largest) } else { (low, high) };
    let level = |value: f64| match value.is_finite() {
        false => 0,
        true if from == to => 128,
        true => (1.0 + ((value - from) / (to - from) * 254.0).round()) as u8,
    };
    let tile = |t: usize| {
        let at = t * step * rows * columns;
        let of_row = move |y: usize| (0..width).map(move |x| at + y * every[0] * columns + x * every[1]);
        (0..height).flat_map(of_row).map(|i| level(values[i]))
    };
    let pixels: Vec<u8> = (0..tiles).flat_map(tile).collect();
    Some(ValuePicture { tiles, width, height, about: about(lead, axis, tiles, every), pixels: STANDARD.encode(pixels) })
}

/// As an index into the tensor: `[0, 0..16, :, :]`, or `[::3, ::3]` where rows and columns are left out.
fn about(lead: &[usize], axis: usize, tiles: usize, every: [usize; 2]) -> String {
    let lead = (0..lead.len()).map(|d| match d == axis && tiles > 1 {
        true => format!("0..{tiles}"),
        false => "0".to_string(),
    });
    let sides = every.map(|every| if every == 1 { ":".to_string() } else { format!("::{every}") });
    format!("[{}]", lead.chain(sides).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::{Options, Stage, compile};

    fn of(shape: &[usize], values: Vec<f32>) -> ValueSummary {
        summary(&Value::real(shape.to_vec(), values))
    }

    fn pixels(summary: &ValueSummary) -> Vec<u8> {
        STANDARD.decode(&summary.picture.as_ref().unwrap().pixels).unwrap()
    }

    #[test]
    fn figures_leave_out_what_is_not_finite() {
        let found = of(&[6], vec![1.0, f32::NAN, 0.0, f32::INFINITY, 3.0, f32::NEG_INFINITY]);
        assert_eq!((found.elements, found.nan, found.infinite, found.zero), (6, 1, 2, 1));
        assert_eq!((found.low, found.high), (0.0, 3.0));
        assert!((found.mean - 4.0 / 3.0).abs() < 1e-6 && (found.deviation - (14.0f32 / 9.0).sqrt()).abs() < 1e-6);
        assert!(found.picture.is_none());
        let none = of(&[2], vec![f32::NAN; 2]);
        assert_eq!((none.low, none.high, none.mean, none.histogram.as_str()), (0.0, 0.0, 0.0, ""));
    }

    #[test]
    fn a_histogram_has_the_ends_in_its_first_and_last_part() {
        let mut values: Vec<f32> = vec![-1.0; 10];
        values.extend([1.0; 5]);
        let heights = STANDARD.decode(of(&[15], values).histogram).unwrap();
        assert_eq!((heights.len(), heights[0], heights[PARTS - 1]), (PARTS, 255, 127));
        assert!(heights[1..PARTS - 1].iter().all(|&h| h == 0));
    }

    #[test]
    fn a_picture_has_zero_in_the_middle_where_there_are_both_signs() {
        let both = of(&[2, 2], vec![-1.0, 0.0, 2.0, f32::NAN]);
        assert_eq!(pixels(&both), [65, 128, 255, 0]);
        let positive = of(&[2, 2], vec![1.0, 2.0, 3.0, 5.0]);
        assert_eq!(pixels(&positive), [1, 65, 128, 255]);
        assert_eq!(positive.picture.unwrap().about, "[:, :]");
    }

    #[test]
    fn tiles_are_channels_of_one_example_or_examples_of_images() {
        let about = |shape: &[usize]| {
            let picture = of(shape, vec![1.0; shape.iter().product()]).picture.unwrap();
            (picture.tiles, picture.width, picture.about)
        };
        assert_eq!(about(&[128, 64, 14, 14]), (16, 14, "[0, 0..16, :, :]".into()));
        assert_eq!(about(&[128, 1, 28, 28]), (4, 28, "[0..4, 0, :, :]".into()));
        assert_eq!(about(&[128, 3, 28, 28]), (4, 28, "[0..4, 0, :, :]".into()));
        assert_eq!(about(&[64, 2, 100, 100]), (1, 50, "[0, 0, ::2, ::2]".into()));
        assert_eq!(about(&[128, 12544]), (1, 60, "[::3, ::210]".into()));
        // The second image begins where the first ends.
        let mut values = vec![0.0; 2 * 3 * 4];
        values[3 * 4] = 1.0;
        assert_eq!(pixels(&of(&[2, 3, 2, 2], values))[..5], [1, 1, 1, 1, 255]);
    }

    #[test]
    fn every_node_that_a_result_needs_has_a_value() {
        let text = crate::declare::builtin::text("mlp-gan").unwrap();
        let options = Options { sets: vec!["batch=4".into(), "noise_batch=4".into()], ..Options::default() };
        let mut graph = None;
        let mut observe = |stage: Stage| {
            if stage.entry == "sample" {
                graph = Some(stage.graph.clone());
            }
        };
        compile("mlp-gan.ron", text, &options, &mut observe).unwrap();
        let graph = graph.unwrap();
        let bindings = crate::testing::random_bindings(&graph, 1);
        let found = summarise_values(&graph, &bindings, || {}).unwrap();
        for id in graph.topological() {
            let node = graph.node(id);
            assert_eq!(found[&node.name].elements, node.ty.elements(), "{}", node.name);
        }
    }
}
