//! Images of a program's `sample` entry, by its weights or by their moving averages.

use super::sample_grid::Grid;
use super::session::{Feeds, SessionError, entry, network_of, seed_words};
use crate::exec::{Executor, TensorMut};
use crate::plan::{DType, Feed, StateRole};
use crate::tensor::{Bf16, Tensor};
use crate::types::AVERAGE;
use std::collections::BTreeSet;

/// Images that a program made: values in [-1, 1] and `[count, channels, height, width]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Images {
    pub values: Vec<f32>,
    pub shape: Vec<usize>,
}

/// Puts the moving averages of parameters in the place of the parameters, for good.
///
/// # Errors
/// When the program keeps none, or no step has been taken that would have begun them.
pub fn use_averages(executor: &mut dyn Executor) -> Result<(), SessionError> {
    let plan = executor.plan();
    let (program, states) = (plan.name.clone(), plan.states.clone());
    let wrong = |problem: &str| SessionError::Entry {
        program: program.clone(),
        entry: entry::TRAIN.into(),
        problem: problem.into(),
    };
    let place = |name: &str| states.iter().position(|state| state.name == name);
    let averages = states.iter().enumerate().filter(|(_, state)| state.role == StateRole::Average);
    let pairs: Vec<(usize, usize)> =
        averages.filter_map(|(i, state)| Some((i, place(state.name.strip_suffix(AVERAGE)?)?))).collect();
    if pairs.is_empty() {
        return Err(wrong(
            "keeps no moving average of a network: `Average(\"generator\", 0.999)` behind the `Minimise` of that network does",
        ));
    }
    let networks: BTreeSet<&str> = pairs.iter().map(|(_, of)| network_of(&states[*of].name)).collect();
    for network in networks {
        let mut count = [0.0];
        if let Some(counter) = place(&format!("{network}{AVERAGE}/t")) {
            executor.read_state(counter, TensorMut::f32(&mut count))?;
        }
        if count == [0.0] {
            return Err(wrong("has averaged nothing yet: no step of training was taken"));
        }
    }
    for (average, of) in pairs {
        let mut tensor = Tensor::zeros(states[average].ty.clone());
        executor.read_state(average, tensor.view_mut())?;
        executor.write_state(of, tensor.view())?;
    }
    Ok(())
}

/// Images of the `sample` entry for the cells of a grid, from standard normal noise that depends on the seed alone; `None`
/// where the plan has no such entry. Where the entry takes labels too, all are `label`, or else each row of the grid has
/// the next class.
///
/// The entry is run as often as it takes, so any grid will do.
///
/// # Errors
/// When the entry takes other inputs than noise and labels, or gives no images; when there is a label and it takes none, or
/// has no such class.
pub fn sample(
    executor: &mut dyn Executor,
    seed: u64,
    grid: Grid,
    label: Option<u32>,
) -> Result<Option<Images>, SessionError> {
    let count = grid.cells();
    let plan = executor.plan();
    let Some(index) = plan.entries.iter().position(|e| e.name == entry::SAMPLE && e.sizes.is_empty()) else {
        return Ok(None);
    };
    let wrong = |problem: &str| SessionError::Entry {
        program: plan.name.clone(),
        entry: entry::SAMPLE.into(),
        problem: problem.into(),
    };
    let output = plan.entries[index].schedule.outputs.first().ok_or_else(|| wrong("gives nothing"))?;
    let [at_once, channels, height, width] = output.shape[..] else {
        return Err(wrong("gives no images: its first output must be [count, channels, height, width]"));
    };
    let image = channels * height * width;
    let mut feeds = Feeds::new(index, &plan.entries[index]);
    if feeds.buffers.iter().any(|(feed, _)| matches!(feed, Feed::Images)) {
        return Err(wrong("takes images: it must make them of noise, or of noise and labels"));
    }
    let labels = plan.entries[index].inputs.iter().find(|input| input.feed == Feed::Labels);
    let classes = labels.map(|input| input.below.unwrap_or(usize::MAX));
    match (label, classes) {
        (Some(_), None) => return Err(wrong("takes no labels, so none can be chosen")),
        (Some(label), Some(classes)) if label as usize >= classes => {
            return Err(wrong(&format!("has no class {label}: labels are from 0 to {}", classes - 1)));
        }
        _ => {}
    }
    let class_of = |cell: usize| label.unwrap_or((cell / grid.columns % classes.unwrap_or(1).max(1)) as u32);
    let mut noise = Noise::new(seed);
    let mut values = Vec::with_capacity(count * image);
    let mut made = vec![0.0; at_once * image];
    for round in 0.. {
        if values.len() >= count * image {
            break;
        }
        for (feed, buffer) in &mut feeds.buffers {
            match (feed, buffer.dtype()) {
                // A program that draws its own noise draws other noise in each round.
                (Feed::Seed, DType::U32) => {
                    let words = seed_words(seed.wrapping_add(round << 32));
                    buffer.values_mut().into_iter().for_each(|own: &mut [u32]| own.copy_from_slice(&words));
                }
                (_, DType::F32) => {
                    buffer.values_mut().into_iter().flatten().for_each(|x: &mut f32| *x = noise.next());
                }
                (_, DType::Bf16) => {
                    buffer.values_mut().into_iter().flatten().for_each(|x| *x = Bf16::from_f32(noise.next()));
                }
                (Feed::Labels, DType::U32) => {
                    let own = buffer.values_mut().into_iter().flatten();
                    own.enumerate().for_each(|(i, x): (usize, &mut u32)| *x = class_of(values.len() / image + i));
                }
                // Whole numbers that nobody gives are 0.
                (_, DType::U32) => {}
            }
        }
        feeds.run(executor)?;
        executor.read_output(index, 0, TensorMut::f32(&mut made))?;
        let wanted = (count * image - values.len()).min(made.len());
        values.extend_from_slice(&made[..wanted]);
    }
    Ok(Some(Images { values, shape: vec![count, channels, height, width] }))
}

/// Standard normal numbers by the Box–Muller transform, keyed by a seed: the noise of sample grids.
struct Noise {
    seed: [u32; 2],
    count: usize,
}

impl Noise {
    fn new(seed: u64) -> Noise {
        Noise { seed: seed_words(seed), count: 0 }
    }

    fn next(&mut self) -> f32 {
        let stream = crate::scalar::stream_hash("sample/noise");
        let value = crate::scalar::philox::normal(self.seed, 0, stream, self.count as u64);
        self.count += 1;
        value as f32
    }
}
