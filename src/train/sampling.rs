//! Images of a program's `sample` and `reconstruct` entries, by its weights or by their moving averages.

use super::checkpoint::Checkpoint;
use super::data::Dataset;
use super::sample_grid::Grid;
use super::session::{Feeds, SessionError, check_fit, entry, network_of, seed_words};
use crate::exec::{Executor, TensorMut};
use crate::plan::{DType, EntryPlan, Feed};
use crate::tensor::{Bf16, Tensor};
use crate::types::AVERAGE;

/// The least that noise may be truncated at: one draw in twelve fits.
pub const LEAST_TRUNCATION: f32 = 0.1;
/// Draws of a number before its truncation gives up and takes 0, which never happens to what may be asked for.
const MOST_DRAWS: u32 = 1000;

/// Images that a program made: values in [-1, 1] and `[count, channels, height, width]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Images {
    pub values: Vec<f32>,
    pub shape: Vec<usize>,
}

/// Puts the moving averages of a checkpoint's parameters in the place of the parameters.
///
/// # Errors
/// When the program keeps none, or no step has been taken that would have begun them.
pub fn use_averages(checkpoint: &mut Checkpoint) -> Result<(), SessionError> {
    let wrong = |problem: &str| SessionError::Entry {
        program: checkpoint.meta.program.clone(),
        entry: entry::TRAIN.into(),
        problem: problem.into(),
    };
    let tensors = &checkpoint.tensors;
    let averages: Vec<(String, Tensor)> = (tensors.iter())
        .filter_map(|(name, average)| Some((name.strip_suffix(AVERAGE)?, average)))
        .filter(|(of, _)| tensors.contains_key(*of))
        .map(|(of, average)| (of.to_string(), average.clone()))
        .collect();
    if averages.is_empty() {
        return Err(wrong(
            "keeps no moving average of a network: `Average(\"generator\", 0.999)` behind the `Minimise` of that network does",
        ));
    }
    let has_begun = |network: &str| {
        let count = tensors.get(&format!("{network}{AVERAGE}/t")).and_then(Tensor::values::<f32>);
        count.is_some_and(|count| count != [0.0])
    };
    if !averages.iter().all(|(of, _)| has_begun(network_of(of))) {
        return Err(wrong("has averaged nothing yet: no step of training was taken"));
    }
    checkpoint.tensors.extend(averages);
    Ok(())
}

/// What images are to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// How many, and how they will be laid out.
    pub grid: Grid,
    pub noise: Noise,
    /// The classes of the rows of the grid, again and again; where there are none, the program's own in their order.
    pub labels: Vec<u32>,
    /// No number of the noise is further from 0: those that are, are drawn again (the truncation trick of Brock, Donahue &
    /// Simonyan, "Large Scale GAN Training for High Fidelity Natural Image Synthesis", ICLR 2019, section 3.1). Less makes
    /// images that are more alike and closer to the common ones.
    pub truncation: Option<f32>,
}

impl Wanted {
    /// Images of the noise of a seed, of all classes in turn where the program takes labels.
    pub fn of_seed(grid: Grid, seed: u64) -> Wanted {
        Wanted { grid, noise: Noise::Seed(seed), labels: Vec::new(), truncation: None }
    }
}

/// The standard normal noise that images are made of.
#[derive(Debug, Clone, PartialEq)]
pub enum Noise {
    /// Each cell has its own, by a seed.
    Seed(u64),
    /// Each row has its own, and leads from the noise of the first seed, on its left, through that of the others to that
    /// of the last.
    Across(Vec<u64>),
    /// Each cell has its own on its way through the seeds: at 0 that of the first, at 1 that of the second, and in between
    /// what lies between them.
    At(Vec<u64>, f64),
}

/// A place on the way from the noise of one seed to that of another.
struct Place {
    /// Which noise of a seed: its images are numbered.
    image: usize,
    from: u64,
    to: u64,
    /// From 0 to 1.
    part: f64,
}

impl Noise {
    fn place(&self, cell: usize, grid: Grid) -> Place {
        let on_the_way = |image: usize, seeds: &[u64], at: f64| {
            let last = seeds.len().saturating_sub(1);
            let leg = (at as usize).min(last.saturating_sub(1));
            let seed = |i: usize| seeds.get(i).copied().unwrap_or_default();
            Place { image, from: seed(leg), to: seed((leg + 1).min(last)), part: at - leg as f64 }
        };
        match self {
            Noise::Seed(seed) => Place { image: cell, from: *seed, to: *seed, part: 0.0 },
            Noise::Across(seeds) => {
                let (legs, steps) = (seeds.len().saturating_sub(1), grid.columns.saturating_sub(1).max(1));
                on_the_way(cell / grid.columns, seeds, (cell % grid.columns * legs) as f64 / steps as f64)
            }
            Noise::At(seeds, at) => on_the_way(cell, seeds, *at),
        }
    }

    /// The seed of what a program draws by itself.
    fn seed(&self) -> u64 {
        match self {
            Noise::Seed(seed) => *seed,
            Noise::Across(seeds) | Noise::At(seeds, _) => seeds.first().copied().unwrap_or_default(),
        }
    }
}

/// Images of the `sample` entry for the cells of a grid; `None` where the plan has no such entry. What they are depends on
/// what is wanted alone.
///
/// The entry is run as often as it takes, so any grid will do.
///
/// # Errors
/// When the entry takes other inputs than noise and labels, or gives no images; when there are labels and it takes none, or
/// has no such class; when the noise is chosen and the program draws its own.
pub fn sample(executor: &mut dyn Executor, wanted: &Wanted) -> Result<Option<Images>, SessionError> {
    sample_with(executor, wanted, &mut |_| {})
}

/// As [`sample`]; `progress` is told how many images there are already, now and then.
///
/// # Errors
/// As [`sample`].
pub fn sample_with(
    executor: &mut dyn Executor,
    wanted: &Wanted,
    progress: &mut dyn FnMut(usize),
) -> Result<Option<Images>, SessionError> {
    let (grid, count) = (wanted.grid, wanted.grid.cells());
    let plan = executor.plan();
    let Some(index) = plan.entries.iter().position(|e| e.name == entry::SAMPLE && e.sizes.is_empty()) else {
        return Ok(None);
    };
    let wrong = |problem: &str| SessionError::Entry {
        program: plan.name.clone(),
        entry: entry::SAMPLE.into(),
        problem: problem.into(),
    };
    let [at_once, channels, height, width] = image_shape(&plan.entries[index]).map_err(|problem| wrong(&problem))?;
    let image = channels * height * width;
    let mut feeds = Feeds::new(index, &plan.entries[index]);
    if feeds.buffers.iter().any(|(feed, _)| matches!(feed, Feed::Images)) {
        return Err(wrong("takes images: it must make them of noise, or of noise and labels"));
    }
    let chosen = wanted.truncation.is_some() || !matches!(wanted.noise, Noise::Seed(_));
    if chosen && !feeds.buffers.iter().any(|(_, buffer)| buffer.dtype() != DType::U32) {
        return Err(wrong("takes no noise, so none can be chosen: it draws its own"));
    }
    let labels = plan.entries[index].inputs.iter().find(|input| input.feed == Feed::Labels);
    let classes = labels.map(|input| input.below.unwrap_or(usize::MAX));
    for label in &wanted.labels {
        match classes {
            None => return Err(wrong("takes no labels, so none can be chosen")),
            Some(classes) if *label as usize >= classes => {
                return Err(wrong(&format!("has no class {label}: labels are from 0 to {}", classes - 1)));
            }
            Some(_) => {}
        }
    }
    let class_of = |cell: usize| {
        let row = cell / grid.columns;
        match wanted.labels.len() {
            0 => (row % classes.unwrap_or(1).max(1)) as u32,
            chosen => wanted.labels[row % chosen],
        }
    };
    // The noise of an image is a row of each input, and the draws of all inputs follow one another, run by run.
    let drawn = feeds.buffers.iter().filter(|(_, buffer)| buffer.dtype() != DType::U32);
    let numbers_of_a_run: usize = drawn.map(|(_, buffer)| buffer.ty().elements()).sum();
    let mut values = Vec::with_capacity(count * image);
    let mut made = vec![0.0; at_once * image];
    for run in 0.. {
        let first = values.len() / image;
        progress(first);
        if first >= count {
            break;
        }
        let mut before = 0;
        for (feed, buffer) in &mut feeds.buffers {
            match (feed, buffer.dtype()) {
                // A program that draws its own noise draws other noise in each run.
                (Feed::Seed, DType::U32) => {
                    let words = seed_words(wanted.noise.seed().wrapping_add(run << 32));
                    buffer.values_mut().into_iter().for_each(|own: &mut [u32]| own.copy_from_slice(&words));
                }
                (Feed::Labels, DType::U32) => {
                    let own = buffer.values_mut().into_iter().flatten();
                    own.enumerate().for_each(|(i, x): (usize, &mut u32)| *x = class_of(first + i));
                }
                // Whole numbers that nobody gives are 0.
                (_, DType::U32) => {}
                (_, DType::F32 | DType::Bf16) => {
                    let elements = buffer.ty().elements();
                    let rows = if buffer.shape().first() == Some(&at_once) { at_once } else { 1 };
                    let width = elements / rows;
                    let mut noise = Vec::with_capacity(elements);
                    for i in 0..rows {
                        let place = wanted.noise.place(first + i, grid);
                        let start = place.image / at_once * numbers_of_a_run + before + place.image % at_once * width;
                        noise.extend(between(&place, start, width, wanted.truncation));
                    }
                    if let Some(own) = buffer.values_mut() {
                        own.copy_from_slice(&noise);
                    } else if let Some(own) = buffer.values_mut() {
                        own.iter_mut().zip(noise).for_each(|(x, value)| *x = Bf16::from_f32(value));
                    }
                    before += elements;
                }
            }
        }
        feeds.run(executor)?;
        executor.read_output(index, 0, TensorMut::f32(&mut made))?;
        let wanted = (count * image - values.len()).min(made.len());
        values.extend_from_slice(&made[..wanted]);
    }
    Ok(Some(Images { values, shape: vec![count, channels, height, width] }))
}

/// Images of a data set and what the `reconstruct` entry makes of them: a row of the grid has images, the row below it
/// what they became. `None` where the plan has no such entry.
///
/// # Errors
/// When the entry does not take images, or gives others than it takes; when the data set does not fit it.
pub fn reconstruct(
    executor: &mut dyn Executor,
    data: &Dataset,
    seed: u64,
    grid: Grid,
) -> Result<Option<Images>, SessionError> {
    let plan = executor.plan();
    let Some(index) = plan.entries.iter().position(|e| e.name == entry::RECONSTRUCT && e.sizes.is_empty()) else {
        return Ok(None);
    };
    let program = plan.name.clone();
    let wrong =
        |problem: String| SessionError::Entry { program: program.clone(), entry: entry::RECONSTRUCT.into(), problem };
    let own = &plan.entries[index];
    let [at_once, channels, height, width] = image_shape(own).map_err(&wrong)?;
    let taken = own.inputs.iter().position(|input| {
        input.feed == Feed::Images
            && input.ty.dtype == DType::F32
            && input.ty.elements() == at_once * channels * height * width
    });
    let Some(taken) = taken else {
        return Err(wrong("takes no images of the shape that it gives".into()));
    };
    check_fit(own, data).map_err(|problem| SessionError::Data {
        data: data.name.clone(),
        program: program.clone(),
        problem,
    })?;
    let mut feeds = Feeds::new(index, own);
    let split = data.test.as_ref().unwrap_or(&data.train);
    let image = channels * height * width;
    let count = grid.cells() / 2;
    let (mut before, mut after) = (Vec::with_capacity(count * image), Vec::with_capacity(count * image));
    let mut made = vec![0.0; at_once * image];
    while before.len() < count * image {
        let first = before.len() / image;
        let indices: Vec<u32> = (first..first + at_once).map(|i| (i % split.len()) as u32).collect();
        if !feeds.fill(split, &indices, seed) {
            return Err(wrong("takes an input that the data set cannot give".into()));
        }
        feeds.run(executor)?;
        executor.read_output(index, 0, TensorMut::f32(&mut made))?;
        before.extend_from_slice(feeds.buffers[taken].1.values().unwrap_or_default());
        after.extend_from_slice(&made);
    }
    let row = grid.columns * image;
    let rows = before.chunks_exact(row).zip(after.chunks_exact(row)).take(grid.rows / 2);
    let values: Vec<f32> = rows.flat_map(|(given, back)| [given, back].concat()).collect();
    Ok(Some(Images { shape: vec![values.len() / image, channels, height, width], values }))
}

/// Count, channels, height and width of the images that an entry gives first.
///
/// # Errors
/// What is wrong with the entry, to be put behind its name.
pub fn image_shape(entry: &EntryPlan) -> Result<[usize; 4], String> {
    let output = entry.schedule.outputs.first().ok_or("gives nothing")?;
    match output.shape[..] {
        [count, channels, height, width] if count > 0 => Ok([count, channels, height, width]),
        _ => Err("gives no images: its first output must be [count, channels, height, width]".into()),
    }
}

/// The noise of one image, which begins at draw `start` of either seed. Between two seeds it is on the great circle through
/// both, because standard normal noise lies close to a sphere, whose inside the generator never saw (White, "Sampling
/// Generative Networks", 2016, section 2.1).
fn between(place: &Place, start: usize, width: usize, truncation: Option<f32>) -> Vec<f32> {
    let of = |seed: u64| -> Vec<f64> { (start..start + width).map(|i| draw(seed, i as u64, truncation)).collect() };
    let from = of(place.from);
    if place.from == place.to || place.part == 0.0 {
        return from.into_iter().map(|x| x as f32).collect();
    }
    let to = of(place.to);
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    let cosine = product(&from, &to) / (product(&from, &from) * product(&to, &to)).sqrt();
    let angle = cosine.clamp(-1.0, 1.0).acos();
    let (a, b) = match angle.sin() {
        // In one line: there is no such circle, or any will do.
        sine if sine < 1e-6 || !sine.is_finite() => (1.0 - place.part, place.part),
        sine => (((1.0 - place.part) * angle).sin() / sine, (place.part * angle).sin() / sine),
    };
    from.iter().zip(&to).map(|(x, y)| (a * x + b * y) as f32).collect()
}

/// A standard normal number by the Box–Muller transform, keyed by a seed.
fn draw(seed: u64, index: u64, truncation: Option<f32>) -> f64 {
    let stream = crate::scalar::stream_hash("sample/noise");
    let again = |attempt: u32| crate::scalar::philox::normal(seed_words(seed), attempt, stream, index);
    let fits = |x: &f64| truncation.is_none_or(|most| x.abs() <= f64::from(most));
    (0..MOST_DRAWS).map(again).find(fits).unwrap_or_default()
}

#[cfg(test)]
#[path = "sampling_tests.rs"]
mod tests;
