//! One program in training: a plan's executor fed from a data set.

mod feeds;
mod plans;
mod state;

use super::batches::{Batches, Position};
use super::checkpoint::{Checkpoint, CheckpointError};
use super::data::{Dataset, ImageSize, Split, Wanted};
use super::examiner::Examiner;
use super::metrics;
use super::quality::QualityError;
use super::sample_grid::Grid;
use super::sampling::{self, Images};
use super::thousands;
use crate::exec::{Examples, ExecError, Executor, MOST_RUNS, TensorMut, flags, scalar_outputs, watched};
use crate::plan::{EntryPlan, Feed, Plan};
use crate::tensor::Tensor;
use feeds::MAX_INPUTS;
pub use feeds::examples;
pub(super) use feeds::{Feeds, seed_words};
pub use plans::{compile_again, leftovers, sets, specialise};
pub use state::{State, initialise, restore};
pub(super) use state::{copy_state, network_of};

/// The entries that the trainer knows by name; what they compute is the program's own affair.
pub mod entry {
    /// Gives every state tensor its first value.
    pub use crate::plan::INIT;
    /// One step on one batch.
    pub const TRAIN: &str = "train_step";
    /// Images from noise.
    pub const SAMPLE: &str = "sample";
    /// Images from images.
    pub const RECONSTRUCT: &str = "reconstruct";
    /// Measures on a batch that is not trained on.
    pub const EVALUATE: &str = "evaluate";
}

/// A program or data set that cannot be trained together.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error(transparent)]
    Exec(#[from] ExecError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("`{program}` has no entry `{entry}` for {examples} examples at a time: {hint}")]
    NoEntry { program: String, entry: &'static str, examples: usize, hint: &'static str },
    #[error("the data set {data} does not fit `{program}`: {problem}")]
    Data { data: String, program: String, problem: String },
    #[error("the data set {data} does not fit `{program}`: it has {count} examples, a batch takes {batch}; {hint}")]
    TooFew { data: String, program: String, count: usize, batch: usize, hint: String },
    #[error("entry `{entry}` of `{program}` {problem}")]
    Entry { program: String, entry: String, problem: String },
    #[error(transparent)]
    Quality(#[from] QualityError),
}

/// The scalar outputs of an entry that was just run.
fn read_scalars(executor: &mut dyn Executor, entry: usize) -> Result<Scalars, SessionError> {
    let plan = &executor.plan().entries[entry];
    let outputs: Vec<(usize, String)> =
        scalar_outputs(plan).map(|i| (i, plan.schedule.outputs[i].name.clone())).collect();
    let mut scalars = Vec::new();
    for (i, output) in outputs {
        let mut value = [0.0];
        executor.read_output(entry, i, TensorMut::f32(&mut value))?;
        scalars.push((output, value[0]));
    }
    Ok(scalars)
}

/// A named scalar that an entry gives.
pub type Scalars = Vec<(String, f32)>;

/// Steps that were handed to the device together. They may still be under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// How many, at least 1.
    pub steps: u64,
    /// Examples that each of them trains on.
    pub examples: usize,
    /// Whether an epoch ends with the last of them.
    pub ends_epoch: bool,
    /// Steps before the first.
    before: u64,
    position: Position,
    entry: usize,
    /// Which series of the executor they are; absent where inputs are staged.
    series: Option<u64>,
}

impl Group {
    /// The number of steps that are complete with step `i` of these.
    pub fn step(&self, i: u64) -> u64 {
        self.before + i + 1
    }

    /// Whether what the steps gave can be asked for when the next group is under way.
    pub fn can_wait(&self) -> bool {
        self.series.is_some()
    }
}

/// A program in training.
pub struct Session {
    executor: Box<dyn Executor>,
    data: Dataset,
    seed: u64,
    batches: Batches,
    /// The step for whole batches and, where an epoch does not divide, for its last.
    steps: Vec<Feeds>,
    evaluations: Vec<Feeds>,
    /// Steps done.
    step: u64,
    /// The entry that the last step ran, while its outputs are still there.
    last: Option<usize>,
    /// The state tensors that say of a network that it is no longer finite: index and network.
    flags: Vec<(usize, String)>,
    /// Whether the device keeps the training examples.
    keeps: bool,
    /// Numbers of the examples of a series, the count of series that were started, and the scalars of one of them. The
    /// buffers are reused.
    numbers: Vec<u32>,
    series: u64,
    scalars: (Option<u64>, Vec<f32>),
    /// Examples of the data set that are never used, one sentence for each reason.
    left_out: Vec<String>,
    /// Who measures the samples, if that is wanted.
    examiner: Option<Examiner>,
}

impl Session {
    /// A session at its start: state not yet initialised. Call [`Session::initialise`] or
    /// [`Session::restore`]. The training examples are kept on the device, where it has room for them.
    ///
    /// # Errors
    /// When the plan has no entry to train with, or the data set is not what it takes.
    pub fn new(mut executor: Box<dyn Executor>, data: Dataset, seed: u64) -> Result<Session, SessionError> {
        let plan = executor.plan();
        check_data(plan, &data)?;
        let whole = whole_step(plan)?;
        let (count, batch) = (data.train.len(), examples(&plan.entries[whole]));
        let mut batches = Batches::new(count, batch, seed);
        let mut steps = vec![Feeds::new(whole, &plan.entries[whole])];
        let mut left_out = Vec::new();
        let last = batches.last_size();
        if last != batch {
            match find(plan, entry::TRAIN, last) {
                Some(index) => steps.push(Feeds::new(index, &plan.entries[index])),
                None => {
                    batches = batches.whole_only();
                    let (count, program) = (thousands(count), &plan.name);
                    left_out.push(format!(
                        "each epoch leaves out {last} of the {count} images, which make no whole batch: `{program}` has \
                         no `{}` for {last} at a time",
                        entry::TRAIN
                    ));
                }
            }
        }
        let evaluations: Vec<Feeds> = (plan.entries.iter().enumerate())
            .filter(|(_, e)| e.name == entry::EVALUATE)
            .map(|(i, e)| Feeds::new(i, e))
            .collect();
        if let (Some(test), Some(own)) = (&data.test, plan.entry(entry::EVALUATE)) {
            let left = test.len().checked_rem(examples(own)).unwrap_or(0);
            if left > 0 && !evaluations.iter().any(|f| f.examples == left) {
                left_out.push(format!(
                    "the last {left} of the {} test images are left out: `{}` has no `{}` for {left} at a time",
                    thousands(test.len()),
                    plan.name,
                    entry::EVALUATE
                ));
            }
        }
        let flags = flags(plan).map(|i| (i, network_of(&plan.states[i].name).to_string())).collect();
        let trained: Vec<usize> = steps.iter().map(|feeds| feeds.entry).collect();
        let Split { images, labels, .. } = &data.train;
        let examples = Examples { count: data.train.len(), images, labels: labels.as_deref() };
        let keeps = executor.keep(&trained, examples)?;
        Ok(Session {
            executor,
            data,
            seed,
            batches,
            steps,
            evaluations,
            step: 0,
            last: None,
            flags,
            keeps,
            numbers: Vec::new(),
            series: 0,
            scalars: (None, Vec::new()),
            left_out,
            examiner: None,
        })
    }

    pub fn plan(&self) -> &Plan {
        self.executor.plan()
    }

    pub fn data(&self) -> &Dataset {
        &self.data
    }

    /// Steps done since the first initialisation.
    pub fn step_count(&self) -> u64 {
        self.step
    }

    /// The seed of all randomness.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Examples in a whole batch.
    pub fn batch(&self) -> usize {
        self.steps[0].examples
    }

    /// Which examples of the data set are never used, because no entry takes so few: sentences without a full stop.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// Epochs that are complete after step `i` of a group, and the part of the present one.
    pub fn epoch_after(&self, group: &Group, i: u64) -> f64 {
        let Position { epoch, batch } = group.position;
        epoch as f64 + (batch + i + 1) as f64 / self.steps_per_epoch() as f64
    }

    /// Epochs that are complete, and the part of the present one.
    pub fn epoch(&self) -> f64 {
        let position = self.position();
        position.epoch as f64 + position.batch as f64 / self.steps_per_epoch() as f64
    }

    pub fn steps_per_epoch(&self) -> u64 {
        self.batches.per_epoch()
    }

    pub fn position(&self) -> Position {
        self.batches.position()
    }

    /// Runs the program's own initialisation.
    ///
    /// # Errors
    /// When the plan has no such entry.
    pub fn initialise(&mut self) -> Result<(), SessionError> {
        initialise(self.executor.as_mut(), self.seed)
    }

    /// Continues from a checkpoint: state, step and place in the epoch.
    ///
    /// # Errors
    /// When a state tensor is missing or of another type or shape.
    pub fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), SessionError> {
        restore(self.executor.as_mut(), checkpoint)?;
        self.step = checkpoint.meta.step;
        self.batches.seek(checkpoint.meta.position);
        Ok(())
    }

    /// Trains on the next batch, or on the next `most` at most, where the device keeps the examples and so needs nothing
    /// from the host in between. Together are batches of one size and of one epoch.
    ///
    /// # Errors
    /// When the executor fails, or the data set has no labels and the program wants them.
    pub fn advance(&mut self, most: u64) -> Result<Group, SessionError> {
        let (position, examples) = (self.batches.position(), self.batches.next_size());
        let feeds = self.steps.iter_mut().find(|f| f.examples == examples);
        let Some(feeds) = feeds else { unreachable!("there is a step for each size of batch") };
        let (before, entry) = (self.step, feeds.entry);
        let series = self.keeps.then_some(self.series);
        let mut group = Group { steps: 0, examples, ends_epoch: false, before, position, entry, series };
        if self.keeps {
            self.numbers.clear();
            let most = most.clamp(1, MOST_RUNS as u64);
            while group.steps < most && !group.ends_epoch && self.batches.next_size() == examples {
                let batch = self.batches.next();
                self.numbers.extend_from_slice(batch.indices);
                group.ends_epoch = batch.ends_epoch;
                group.steps += 1;
            }
            self.executor.submit_series(entry, seed_words(self.seed), &self.numbers)?;
            self.series += 1;
        } else {
            let batch = self.batches.next();
            (group.steps, group.ends_epoch) = (1, batch.ends_epoch);
            if !feeds.fill(&self.data.train, batch.indices, self.seed) {
                return Err(SessionError::Entry {
                    program: self.executor.plan().name.clone(),
                    entry: entry::TRAIN.into(),
                    problem: "takes an input that the data set cannot give".into(),
                });
            }
            feeds.run(self.executor.as_mut())?;
        }
        self.last = Some(entry);
        self.step += group.steps;
        Ok(group)
    }

    /// All that the next step is given, by name: the state, and its inputs.
    ///
    /// # Errors
    /// When the executor fails.
    pub fn next_step(&mut self) -> Result<Vec<(String, Tensor)>, ExecError> {
        let (_, inputs) = self.next_inputs();
        Ok(self.copy_states()?.into_iter().chain(inputs).collect())
    }

    /// The entry that the next step runs, and the inputs that it is given, by name.
    pub(super) fn next_inputs(&mut self) -> (usize, Vec<(String, Tensor)>) {
        let (position, examples) = (self.batches.position(), self.batches.next_size());
        let Some(feeds) = self.steps.iter_mut().find(|f| f.examples == examples) else {
            unreachable!("there is a step for each size of batch")
        };
        // Where it cannot give all of them no step could run.
        feeds.fill(&self.data.train, self.batches.next().indices, self.seed);
        self.batches.seek(position);
        let names = self.executor.plan().entries[feeds.entry].inputs.iter().map(|input| input.name.clone());
        (feeds.entry, names.zip(feeds.buffers.iter().map(|(_, tensor)| tensor.clone())).collect())
    }

    /// The scalar outputs of step `i` of the last group, by name; or of the one before it, where it [can
    /// wait](Group::can_wait).
    ///
    /// # Errors
    /// When the executor fails.
    pub fn scalars_of(&mut self, group: &Group, i: u64) -> Result<Scalars, SessionError> {
        let Some(series) = group.series else { return self.scalars() };
        let row = self.row(group, series, i)?;
        let plan = &self.executor.plan().entries[group.entry];
        let names = scalar_outputs(plan).map(|i| plan.schedule.outputs[i].name.clone());
        Ok(names.zip(row).collect())
    }

    /// As [`Session::non_finite`], after step `i` of a group that [`Session::scalars_of`] can be asked for.
    ///
    /// # Errors
    /// When the executor fails.
    pub fn non_finite_of(&mut self, group: &Group, i: u64) -> Result<Vec<String>, SessionError> {
        let Some(series) = group.series else { return self.non_finite() };
        let row = self.row(group, series, i)?;
        let flags = &row[row.len() - self.flags.len()..];
        Ok(self.flags.iter().zip(flags).filter(|(_, flag)| **flag != 0.0).map(|((_, name), _)| name.clone()).collect())
    }

    /// What the executor noted of step `i` of a group.
    fn row(&mut self, group: &Group, series: u64, i: u64) -> Result<Vec<f32>, SessionError> {
        let width = watched(self.executor.plan(), group.entry).count();
        let (present, rows) = &mut self.scalars;
        if *present != Some(series) {
            rows.resize(group.steps as usize * width, 0.0);
            self.executor.read_series((self.series - 1 - series) as usize, rows)?;
            *present = Some(series);
        }
        Ok(rows[i as usize * width..][..width].to_vec())
    }

    /// The scalar outputs of the last step (its losses and measures), by name. They are read from the device now: a
    /// step that nobody looks at need not be waited for. Empty before the first step, and once another entry was run.
    ///
    /// # Errors
    /// When the executor fails.
    pub fn scalars(&mut self) -> Result<Scalars, SessionError> {
        let Some(entry) = self.last else { return Ok(Vec::new()) };
        read_scalars(self.executor.as_mut(), entry)
    }

    /// The networks whose parameters or running statistics a step has made infinite or NaN, by the flags that the steps
    /// themselves write. A program that was compiled before there were flags has none.
    ///
    /// # Errors
    /// When the executor fails.
    pub fn non_finite(&mut self) -> Result<Vec<String>, SessionError> {
        let mut found = Vec::new();
        for (state, network) in &self.flags {
            let mut flag = [0.0];
            self.executor.read_state(*state, TensorMut::f32(&mut flag))?;
            if flag != [0.0] {
                found.push(network.clone());
            }
        }
        Ok(found)
    }

    /// The means over the whole test set of what the program's `evaluate` entry gives; `None` where it
    /// has no such entry or the data set no test images.
    ///
    /// # Errors
    /// When the executor fails.
    pub fn evaluate(&mut self) -> Result<Option<Scalars>, SessionError> {
        let Some(test) = &self.data.test else { return Ok(None) };
        let Some(batch) = self.evaluations.iter().map(|f| f.examples).max() else { return Ok(None) };
        self.last = None;
        let indices: Vec<u32> = (0..test.len() as u32).collect();
        let mut totals: Vec<(String, f64)> = Vec::new();
        let mut measured = 0;
        // What takes no data is measured once.
        for part in indices.chunks(if batch == 0 { test.len() } else { batch }) {
            let wanted = part.len().min(batch);
            // Told at the start: see `left_out`.
            let Some(feeds) = self.evaluations.iter_mut().find(|f| f.examples == wanted) else { continue };
            if !feeds.fill(test, part, self.seed) {
                return Ok(None);
            }
            feeds.run(self.executor.as_mut())?;
            measured += part.len();
            for (output, value) in read_scalars(self.executor.as_mut(), feeds.entry)? {
                let weighted = f64::from(value) * part.len() as f64;
                match totals.iter_mut().find(|(name, _)| *name == output) {
                    Some((_, total)) => *total += weighted,
                    None => totals.push((output, weighted)),
                }
            }
        }
        if measured == 0 {
            return Ok(None);
        }
        Ok(Some(totals.into_iter().map(|(name, total)| (name, (total / measured as f64) as f32)).collect()))
    }

    /// Images from fixed noise, to be laid out in a grid, with a row for each class: see [`sampling::sample`].
    ///
    /// # Errors
    /// When the executor fails.
    pub fn sample(&mut self, grid: Grid) -> Result<Option<Images>, SessionError> {
        self.last = None;
        sampling::sample(self.executor.as_mut(), &sampling::Wanted::of_seed(grid, self.seed))
    }

    /// Has the samples measured by this examiner, whenever [`Session::examine`] is called.
    pub fn examine_by(&mut self, examiner: Examiner) {
        self.examiner = Some(examiner);
    }

    /// Who measures the samples, if anybody does.
    pub fn examiner(&self) -> Option<&Examiner> {
        self.examiner.as_ref()
    }

    /// What the examiner finds; nothing where there is none.
    ///
    /// # Errors
    /// When the executor or the classifier fails.
    pub fn examine(&mut self) -> Result<Scalars, SessionError> {
        self.last = None;
        match &mut self.examiner {
            Some(examiner) => examiner.examine(self.executor.as_mut(), self.seed),
            None => Ok(Vec::new()),
        }
    }

    /// What the examiner finds of the state of a checkpoint. The session's own is afterwards what it was before.
    ///
    /// # Errors
    /// When the checkpoint does not fit, or the executor or the classifier fails.
    pub fn examine_another(&mut self, checkpoint: &Checkpoint) -> Result<Scalars, SessionError> {
        let own = self.copy_states()?;
        restore(self.executor.as_mut(), checkpoint)?;
        let found = self.examine();
        for (i, (_, tensor)) in own.iter().enumerate() {
            self.executor.write_state(i, tensor.view())?;
        }
        found
    }

    /// A copy of every state tensor, with its name.
    ///
    /// # Errors
    /// When the executor fails.
    pub(super) fn copy_states(&mut self) -> Result<Vec<(String, Tensor)>, ExecError> {
        let names: Vec<String> = self.plan().states.iter().map(|state| state.name.clone()).collect();
        let copied = names.into_iter().enumerate();
        copied.map(|(i, name)| Ok((name, copy_state(self.executor.as_mut(), i)?))).collect()
    }

    /// Every state tensor, to be saved.
    pub fn state(&mut self) -> State<'_> {
        State::of(self.executor.as_mut())
    }
}

fn find(plan: &Plan, name: &str, wanted: usize) -> Option<usize> {
    plan.entries.iter().position(|e| e.name == name && examples(e) == wanted)
}

/// The training step for whole batches.
fn whole_step(plan: &Plan) -> Result<usize, SessionError> {
    let found = plan.entries.iter().position(|e| e.name == entry::TRAIN && e.sizes.is_empty());
    found.ok_or_else(|| SessionError::NoEntry {
        program: plan.name.clone(),
        entry: entry::TRAIN,
        examples: 0,
        hint: "declare `train_step` among the program's entries",
    })
}

/// What a program's training step takes for one image; `None` where it takes none, or in a shape that is no image's.
pub fn wanted_images(plan: &Plan) -> Option<Wanted> {
    let entry = plan.entry(entry::TRAIN)?;
    let images = entry.inputs.iter().find(|input| input.feed == Feed::Images)?;
    Wanted::of_shape(images.ty.shape.get(1..)?)
}

/// Whether a program can be trained on a data set.
///
/// # Errors
/// What does not fit.
pub fn check_data(plan: &Plan, data: &Dataset) -> Result<(), SessionError> {
    let program = plan.name.clone();
    let batch = examples(&plan.entries[whole_step(plan)?]);
    if batch == 0 {
        let problem = "takes no images and no labels: there is nothing to train on".to_string();
        return Err(SessionError::Entry { program, entry: entry::TRAIN.into(), problem });
    }
    let misfit = |problem: String| SessionError::Data { data: data.name.clone(), program: program.clone(), problem };
    // First: no number of examples helps then.
    plan.entries.iter().try_for_each(|entry| check_labels(entry, data).map_err(misfit))?;
    let count = data.train.len();
    if count < batch {
        let size = crate::declare::data_size(&plan.source.name, &plan.source.text, Some(entry::TRAIN)).ok().flatten();
        let hint = match size {
            Some(size) => format!("use --set {size}={count}"),
            None => "the program's text fixes that number: make it smaller there".to_string(),
        };
        return Err(SessionError::TooFew { data: data.name.clone(), program, count, batch, hint });
    }
    if let Some(own) = plan.entry(entry::TRAIN)
        && let Some(i) = scalar_outputs(own).find(|&i| metrics::RESERVED.contains(&&*own.schedule.outputs[i].name))
    {
        let problem = format!(
            "has the output `{}`, which the metrics of a run have of their own: give it another name",
            own.schedule.outputs[i].name
        );
        return Err(SessionError::Entry { program, entry: entry::TRAIN.into(), problem });
    }
    plan.entries.iter().try_for_each(|entry| check_fit(entry, data).map_err(misfit))
}

/// Whether the data set has labels where an entry takes them.
fn check_labels(entry: &EntryPlan, data: &Dataset) -> Result<(), String> {
    match entry.inputs.iter().find(|input| input.feed == Feed::Labels) {
        Some(input) if data.train.labels.is_none() => {
            let why = data.unlabelled.as_deref().unwrap_or("in a folder of pictures, sub-folders are the classes");
            Err(format!("it has no labels, which `{}` takes ({why})", input.name))
        }
        _ => Ok(()),
    }
}

/// Whether the data set has what an entry takes from it.
pub(super) fn check_fit(entry: &EntryPlan, data: &Dataset) -> Result<(), String> {
    if entry.inputs.len() > MAX_INPUTS {
        return Err(format!(
            "`{}` takes {} inputs, more than the {MAX_INPUTS} there is room for",
            entry.name,
            entry.inputs.len()
        ));
    }
    check_labels(entry, data)?;
    let batch = examples(entry);
    for input in &entry.inputs {
        if matches!(input.feed, Feed::Images | Feed::Labels) && input.ty.shape.first() != Some(&batch) {
            return Err(format!(
                "`{}` takes {batch} examples at a time, but `{}` is {}: all data of an entry must have one batch size",
                entry.name, input.name, input.ty
            ));
        }
        match input.feed {
            Feed::Images => {
                let ImageSize { channels, rows, columns } = data.train.size();
                let colours = data.train.size().colours();
                // An image may be taken as rows and columns, or as pixels one after the other.
                let fits = match input.ty.shape.get(1..).unwrap_or_default() {
                    [.., height, width] if (*height, *width) == (rows, columns) => {
                        input.ty.elements() == batch * channels * rows * columns
                    }
                    [pixels] => *pixels == channels * rows * columns,
                    _ => false,
                };
                if !fits {
                    return Err(format!(
                        "its images have {rows}×{columns} pixels, {colours}, `{}` takes {}",
                        input.name, input.ty
                    ));
                }
            }
            Feed::Labels if data.largest_label().zip(input.below).is_some_and(|(found, b)| usize::from(found) >= b) => {
                return Err(format!(
                    "it has labels up to {}, the program expects `{}` below {}",
                    data.largest_label().unwrap_or_default(),
                    input.name,
                    input.below.unwrap_or_default()
                ));
            }
            Feed::Caller if entry.name == entry::TRAIN => {
                return Err(format!("the step takes `{}`, which comes from no data set", input.name));
            }
            Feed::Labels | Feed::Seed | Feed::Caller => {}
        }
    }
    Ok(())
}
