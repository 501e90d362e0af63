//! The training loop: steps, and what they leave behind in a run's folder.
//!
//! The checkpoint is what a run is for: that metrics or samples cannot be written does not end the run. They are written
//! before the checkpoint of the same step, so that none is missing after a kill. State that is no longer finite is never
//! saved. Losses are read only when something is made of them, so that a device need not be waited for after each step; a
//! device that keeps the data set gets several steps at once, and what they gave is read while it does the next.
//!
//! ```
//! use gcc_gan::compile::{Options, compile};
//! use gcc_gan::exec::{Device, cpu::CpuDevice};
//! use gcc_gan::train::observer::{Observer, Progress};
//! use gcc_gan::train::{checkpoint::Meta, data, pace::Pace, rundir::RunDir, session::Session, trainer};
//!
//! /// Prints a line now and then.
//! struct Printer;
//!
//! impl Observer for Printer {
//!     fn report(&mut self, now: &Progress) {
//!         println!("step {}: {:?}", now.step, now.values);
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let text = gcc_gan::declare::builtin::text("mlp-gan").ok_or("no such program")?;
//! let options = Options { sets: vec!["batch=8".into()], ..Options::default() };
//! let plan = compile("mlp-gan.ron", text, &options, &mut |_| {})?.plan.ok_or("stopped early")?;
//! let data = data::embedded::load();
//! let meta = Meta::new(&plan, &data, 1);
//! let mut session = Session::new(CpuDevice::new(1).load(plan.into())?, data, 1)?;
//! session.initialise()?;
//! let folder = tempfile::tempdir()?;
//! let run = RunDir::create(folder.path(), None, "mlp-gan")?;
//! let pace = Pace { until: 3, ..Pace::default() };
//! let ended = trainer::train(&mut session, &run, meta, &pace, &mut Printer)?;
//! assert_eq!(ended, trainer::Ended::Complete);
//! assert!(run.checkpoint().is_file() && run.sample(3).is_file());
//! # Ok(())
//! # }
//! ```

use super::checkpoint::{self, CheckpointError, Meta, Problem};
use super::diverged::{self, NonFinite};
use super::diversity::{self, DIVERSITY};
use super::examiner::DISTANCE;
use super::metrics::{self, Metrics, MetricsError, Record};
use super::observer::{Observer, Progress};
use super::pace::Pace;
use super::picture::ImageError;
use super::rundir::RunDir;
use super::sample_grid;
use super::sampling::Images;
use super::session::{Group, Scalars, Session, SessionError};
use super::tensorboard::{Events, EventsError};
use crate::exec::MOST_RUNS;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

/// How training ended, where nothing went wrong. The state is saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The last step was done.
    Complete,
    /// There was no step left to do.
    NothingToDo,
    /// The observer wanted it.
    Cancelled,
}

/// Why training stopped.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    #[error("{}", .0)]
    NonFinite(Box<NonFinite>),
}

/// Trains until [`Pace::until`], or until the observer wants no more. A run without a checkpoint gets one before its
/// first step. `meta` says what the run is; its step and position are the session's. Where the state is no longer
/// finite, the steps since the checkpoint are done again to find where that began ([`diverged`]).
///
/// # Errors
/// When the executor fails, the state is no longer finite, or the first or last checkpoint cannot be written. One in
/// between that cannot be written is a warning, and is tried again.
pub fn train(
    session: &mut Session,
    run: &RunDir,
    meta: Meta,
    pace: &Pace,
    observer: &mut dyn Observer,
) -> Result<Ended, TrainError> {
    if session.step_count() >= pace.until {
        return Ok(Ended::NothingToDo);
    }
    let started = session.step_count();
    let begun = Instant::now();
    let [recent, reported, total] = [Rate::start(begun); 3];
    let mut training = Training {
        session,
        run,
        meta,
        pace,
        observer,
        metrics: None,
        events: None,
        diversity: None,
        warned: BTreeSet::new(),
        good: started,
        saved: None,
        is_unsaved: false,
        together: 1,
        looked: begun,
        begun,
        before: Duration::ZERO,
        best: None,
        recent,
        reported,
        total,
    };
    if run.checkpoint().exists() {
        training.saved = Some(started);
    } else {
        training.save(&BTreeMap::new())?;
    }
    match Metrics::open(&run.metrics(), started) {
        Ok(metrics) => {
            training.before = Duration::try_from_secs_f64(metrics.seconds_before()).unwrap_or_default();
            training.metrics = Some(metrics);
        }
        Err(error @ MetricsError::Line { .. }) => return Err(error.into()),
        Err(error) => training.warn("metrics", &format!("no metrics are written: {error}")),
    }
    if training.saved == Some(started) && started > 0 {
        training.keep_last(started)?;
    }
    match Events::create(run.path(), started, &training.meta.text) {
        Ok(events) => training.events = Some(events),
        Err(error) => training.warn("events", &format!("nothing is written for TensorBoard: {error}")),
    }
    training.diversity = diversity::Watch::new(training.session.plan(), training.session.data(), pace.grid.cells());
    if let Some(watch) = &mut training.diversity {
        // What was told of before is not told again.
        for (step, value) in metrics::values(&run.metrics(), DIVERSITY).unwrap_or_default() {
            let _ = watch.look(step, value as f32, &run.sample(step));
        }
    }
    if started == 0 {
        let made = training.session.sample(pace.grid)?;
        training.keep_samples(made.as_ref());
    }
    training.looked = Instant::now();
    let ended = training.run();
    let Err(TrainError::NonFinite(mut found)) = ended else { return ended };
    let steps = session.step_count() - started;
    let each = begun.elapsed().div_f64(steps.max(1) as f64);
    found.first = diverged::look_for_first(session, &found, each, observer).map(Box::new);
    Err(TrainError::NonFinite(found))
}

/// Roughly how long the device may be busy with steps that are handed over together: an observer is asked, and shown
/// something, in between.
const TOGETHER: Duration = Duration::from_millis(50);

/// What is there so soon after it was asked for was complete before.
const AT_ONCE: Duration = Duration::from_millis(1);

/// When steps were complete that were handed over, asked for later, and there by `now`. Those that nobody waited for were so at
/// some moment since they were handed over: the earliest is taken.
fn complete(handed: Instant, asked: Instant, now: Instant) -> Instant {
    if now - asked < AT_ONCE { handed } else { now }
}

#[derive(Clone, Copy)]
struct Rate {
    since: Instant,
    images: usize,
}

impl Rate {
    fn start(since: Instant) -> Rate {
        Rate { since, images: 0 }
    }

    /// Other things than steps took so long.
    fn leave_out(&mut self, took: Duration) {
        self.since += took;
    }

    fn per_second(self, now: Instant) -> f64 {
        self.images as f64 / now.duration_since(self.since).as_secs_f64().max(1e-9)
    }
}

/// The loop, and what it keeps track of.
struct Training<'t> {
    session: &'t mut Session,
    run: &'t RunDir,
    meta: Meta,
    pace: &'t Pace,
    observer: &'t mut dyn Observer,
    /// Absent where they cannot be written.
    metrics: Option<Metrics>,
    /// For TensorBoard; absent where they cannot be written.
    events: Option<Events>,
    /// Absent where samples tell nothing about it.
    diversity: Option<diversity::Watch>,
    /// What was warned of already.
    warned: BTreeSet<&'static str>,
    /// The last step after which all was seen to be finite.
    good: u64,
    /// The step of the checkpoint.
    saved: Option<u64>,
    /// Whether a checkpoint is due and was not written.
    is_unsaved: bool,
    /// How many steps are handed over together, and when the last were looked at.
    together: u64,
    looked: Instant,
    /// The start, and what former processes trained.
    begun: Instant,
    before: Duration,
    /// How far the best samples so far are from real images.
    best: Option<f64>,
    /// Since the last line of the metrics, the last report, and the start; of steps alone.
    recent: Rate,
    reported: Rate,
    total: Rate,
}

/// What an examiner found, if one was asked.
#[derive(Default)]
struct Examined {
    measures: Scalars,
    /// How far the samples are from real images, where they are the best so far.
    best: Option<f64>,
}

/// How far samples are from real images, of what was measured of them.
fn distance(measures: &[(String, f32)]) -> Option<f64> {
    let found = measures.iter().find(|(name, _)| name == DISTANCE).map(|&(_, distance)| f64::from(distance));
    found.filter(|distance| distance.is_finite())
}

impl Training<'_> {
    fn run(mut self) -> Result<Ended, TrainError> {
        // Steps that nobody has looked at yet, and when they were handed over: what they gave is read when those after them are
        // under way.
        let mut waiting: Option<(Group, Instant)> = None;
        loop {
            let goes_on = self.session.step_count() < self.pace.until && !self.observer.is_cancelled();
            let next = if goes_on { Some((self.session.advance(self.most())?, Instant::now())) } else { None };
            if let Some((group, handed)) = waiting.take() {
                self.look(&group, handed)?;
            }
            match next {
                None => break,
                Some((group, _)) if group.can_wait() && !self.is_due(&group) => waiting = next,
                Some((group, handed)) => {
                    self.look(&group, handed)?;
                    self.looked = Instant::now();
                }
            }
        }
        if self.session.step_count() >= self.pace.until {
            return Ok(Ended::Complete);
        }
        if self.saved != Some(self.session.step_count()) {
            let step = self.session.step_count();
            let moment = Instant::now();
            let mut values = self.session.scalars()?.into_iter().collect();
            let networks = self.session.non_finite()?;
            self.check_finite(step, networks, &values)?;
            // Else the time since the last line would be missing from all that follow.
            if self.recent.images > 0 {
                self.measure(step, self.session.epoch(), &mut values, &[], (false, moment))?;
            }
            self.save(&values)?;
            self.keep(step, None);
        }
        Ok(Ended::Cancelled)
    }

    /// The most steps that may be handed over together: what is made of the state needs the device to stop there.
    fn most(&self) -> u64 {
        let step = self.session.step_count();
        let until_multiple = |every: u64| step.checked_rem(every).map_or(u64::MAX, |rest| every - rest);
        let retry = if self.is_unsaved { until_multiple(self.pace.metrics_every) } else { u64::MAX };
        let examine =
            if self.session.examiner().is_some() { until_multiple(self.pace.examine_every) } else { u64::MAX };
        let least = until_multiple(self.pace.sample_every).min(examine).min(retry);
        (self.pace.until - step).min(least).min(self.together)
    }

    /// Whether the samples are measured after a step.
    fn examines(&self, step: u64) -> bool {
        let is_due = step == self.pace.until || step.is_multiple_of(self.pace.examine_every);
        is_due && self.session.examiner().is_some()
    }

    /// Whether something is made of the state after a group.
    fn is_due(&self, group: &Group) -> bool {
        let step = self.session.step_count();
        let samples = step == self.pace.until || step.is_multiple_of(self.pace.sample_every);
        samples || group.ends_epoch || self.is_unsaved || self.examines(step)
    }

    /// Waits for the steps of a group where somebody looks at them, and does what is due after each.
    fn look(&mut self, group: &Group, handed: Instant) -> Result<(), TrainError> {
        let (begun, asked) = (self.looked, Instant::now());
        let mut now = asked;
        if group.can_wait() {
            // Fetches those of all steps.
            self.session.scalars_of(group, 0)?;
            now = complete(handed, asked, Instant::now()).max(begun);
        }
        self.looked = now;
        let took = now - begun;
        if took < TOGETHER / 2 {
            self.together = (2 * self.together).min(MOST_RUNS as u64);
        } else if took > TOGETHER {
            self.together = (self.together / 2).max(1);
        }
        for i in 0..group.steps {
            // When a step of several was complete nobody knows: they take the same time.
            let moment = if group.can_wait() { begun + took.mul_f64((i + 1) as f64 / group.steps as f64) } else { now };
            self.look_at(group, i, moment)?;
        }
        Ok(())
    }

    /// Does what is due after step `i` of a group, which was complete at `moment`.
    fn look_at(&mut self, group: &Group, i: u64, moment: Instant) -> Result<(), TrainError> {
        let step = group.step(i);
        let is_last = i + 1 == group.steps;
        for rate in [&mut self.recent, &mut self.reported, &mut self.total] {
            rate.images += group.examples;
        }
        let ends = step == self.pace.until;
        let ends_epoch = group.ends_epoch && is_last;
        let samples = ends || step.is_multiple_of(self.pace.sample_every);
        let examines = self.examines(step);
        let measures = ends || ends_epoch || examines || samples || step.is_multiple_of(self.pace.metrics_every);
        self.is_unsaved |= samples || ends_epoch || examines;
        // The device waits for what is made of the state.
        let waits = is_last && self.is_unsaved;
        let looks = is_last && self.observer.wants_progress();
        if !(looks || measures || self.is_unsaved) {
            return Ok(());
        }
        let mut values: BTreeMap<String, f32> = self.session.scalars_of(group, i)?.into_iter().collect();
        if measures || self.is_unsaved {
            let networks = self.session.non_finite_of(group, i)?;
            self.check_finite(step, networks, &values)?;
        } else if values.values().any(|v| !v.is_finite()) {
            // Where the observer looks, only what is lost anyway ends a run: whether it stops must not depend on
            // the time of day. A flag stays, a loss can recover.
            let networks = self.session.non_finite_of(group, i)?;
            if !networks.is_empty() {
                return Err(self.non_finite(step, networks, values));
            }
        }
        let epoch = self.session.epoch_after(group, i);
        let examined = if examines { self.examine(step)? } else { Examined::default() };
        // How diverse they are belongs in the line. That they cannot be made must not keep the state from being saved.
        let made = if samples { self.session.sample(self.pace.grid) } else { Ok(None) };
        let measured = made.as_ref().ok().and_then(Option::as_ref).zip(self.diversity.as_ref());
        let diversity = measured.and_then(|(made, watch)| watch.measure(made));
        if let Some(diversity) = diversity {
            values.entry(DIVERSITY.to_string()).or_insert(diversity);
        }
        // The samples and the line come before the checkpoint: a kill between them leaves no saved step without these, and
        // what is beyond the checkpoint is made again, or removed, when the run is resumed.
        if let Ok(made) = &made {
            self.keep_samples(made.as_ref());
        }
        if measures {
            self.measure(step, epoch, &mut values, &examined.measures, (ends_epoch || ends, moment))?;
        }
        // Saving failed before where it is due and was not done: not at every step, and the last time is the last.
        if self.is_unsaved && (samples || measures) {
            self.is_unsaved = match self.save(&values) {
                Err(TrainError::Checkpoint(error)) if !ends => {
                    self.warn("checkpoint", &format!("{error}; trying again every {} steps", self.pace.metrics_every));
                    true
                }
                saved => {
                    saved?;
                    self.warned.remove("checkpoint");
                    self.keep(step, examined.best);
                    false
                }
            };
        }
        made?;
        let told = self.diversity.as_mut().zip(diversity);
        if let Some(told) = told.and_then(|(watch, diversity)| watch.look(step, diversity, &self.run.sample(step))) {
            self.observer.warning(&told);
        }
        let is_report = ends || ends_epoch || (measures && step.is_multiple_of(self.pace.report_every));
        if is_report || looks {
            let progress = self.progress(step, epoch, values, (is_report && ends_epoch, moment));
            if is_report {
                self.observer.report(&progress);
                self.reported = Rate::start(moment);
            } else {
                self.observer.progress(&progress);
            }
        }
        if waits {
            let took = moment.elapsed();
            for rate in [&mut self.recent, &mut self.reported, &mut self.total] {
                rate.leave_out(took);
            }
        }
        Ok(())
    }

    fn progress(
        &self,
        step: u64,
        epoch: f64,
        values: BTreeMap<String, f32>,
        (ends_epoch, moment): (bool, Instant),
    ) -> Progress {
        let until = self.pace.until;
        let seconds = (until - step) as f64 * self.session.batch() as f64 / self.total.per_second(moment).max(1e-9);
        Progress {
            step,
            until,
            epoch,
            ends_epoch,
            images_per_second: self.reported.per_second(moment),
            left: Duration::from_secs_f64(seconds.clamp(0.0, 1e9)),
            values,
        }
    }

    fn check_finite(
        &mut self,
        step: u64,
        networks: Vec<String>,
        values: &BTreeMap<String, f32>,
    ) -> Result<(), TrainError> {
        if networks.is_empty() && values.values().all(|v| v.is_finite()) {
            self.good = step;
            return Ok(());
        }
        Err(self.non_finite(step, networks, values.clone()))
    }

    fn non_finite(&self, step: u64, networks: Vec<String>, values: BTreeMap<String, f32>) -> TrainError {
        let saved = self.saved.unwrap_or_default();
        TrainError::NonFinite(Box::new(NonFinite {
            networks,
            // What no flag is about may be so since any step after the last that was saved.
            after: if self.good < step { self.good } else { saved },
            step,
            values,
            checkpoint: self.run.checkpoint(),
            saved,
            run: self.run.path().to_owned(),
            first: None,
        }))
    }

    /// Writes the checkpoint. `values` are what the last step gave, to be told where the state is not finite.
    fn save(&mut self, values: &BTreeMap<String, f32>) -> Result<(), TrainError> {
        let step = self.session.step_count();
        // The whole state is read anyway, so this also covers what no flag is about.
        let networks = self.session.state().non_finite().map_err(SessionError::from)?;
        if !networks.is_empty() {
            return Err(self.non_finite(step, networks, values.clone()));
        }
        let meta = Meta { step, position: self.session.position(), ..self.meta.clone() };
        let file = self.run.checkpoint();
        match checkpoint::save(&file, &meta, &mut self.session.state()) {
            // Nothing that trying again would mend.
            Err(CheckpointError { problem: Problem::Device(error), .. }) => {
                return Err(SessionError::from(error).into());
            }
            saved => saved?,
        }
        self.saved = Some(step);
        self.observer.saved(step, &file);
        Ok(())
    }

    /// Measures the samples.
    fn examine(&mut self, step: u64) -> Result<Examined, TrainError> {
        let measures = match self.session.examine() {
            // What could not be measured is no reason to stop.
            Err(SessionError::Quality(error)) => {
                self.warn("quality", &format!("the samples are not measured: {error}"));
                return Ok(Examined::default());
            }
            measured => measured?,
        };
        let best = distance(&measures).filter(|&found| self.best.is_none_or(|best| found < best));
        self.observer.examined(step, &measures, best.is_some());
        Ok(Examined { measures, best })
    }

    /// Makes up for what a process before this one could not do between its last checkpoint and its end: keeping that, and
    /// keeping it as the best.
    fn keep_last(&mut self, started: u64) -> Result<(), TrainError> {
        self.keep(started, None);
        if self.session.examiner().is_none() {
            return Ok(());
        }
        // What was measured before may have been by other images, or by fewer: the best so far is measured again.
        if let Ok(best) = checkpoint::load(&self.run.best()) {
            self.best = distance(&self.session.examine_another(&best)?);
        }
        let is_measured = metrics::values(&self.run.metrics(), DISTANCE).unwrap_or_default();
        if is_measured.iter().any(|(step, _)| *step == started) {
            let last = distance(&self.session.examine()?);
            let better = last.filter(|&found| self.best.is_none_or(|best| found < best));
            if better.is_some() {
                self.keep(started, better);
            }
        }
        Ok(())
    }

    /// Keeps the checkpoint of a step that was just saved, as far as that is wanted: as the best too, where its samples'
    /// distance is the least so far.
    fn keep(&mut self, step: u64, best: Option<f64>) {
        let mut kept = self.run.keep(step, self.pace.keep);
        if best.is_some() {
            self.best = best;
            kept = kept.and(self.run.keep_best());
        }
        if let Err(error) = kept {
            self.warn("kept", &format!("a checkpoint is not kept: {error}"));
        }
    }

    /// Writes a line of the metrics, with what an examiner found; on the test set too, where `tests`.
    fn measure(
        &mut self,
        step: u64,
        epoch: f64,
        values: &mut BTreeMap<String, f32>,
        examined: &[(String, f32)],
        (tests, moment): (bool, Instant),
    ) -> Result<(), TrainError> {
        let seconds = (self.before + moment.duration_since(self.begun)).as_secs_f64();
        let images_per_second = self.recent.per_second(moment);
        if tests && let Some(tests) = self.session.evaluate()? {
            values.extend(tests.into_iter().map(|(name, value)| (format!("test_{name}"), value)));
        }
        let finite = |x: f32| x.is_finite().then(|| f64::from(x));
        let own = values.iter().map(|(name, value)| (name.as_str(), *value));
        let all = || own.clone().chain(examined.iter().map(|(name, value)| (name.as_str(), *value)));
        let record = Record {
            step,
            epoch,
            seconds,
            images_per_second,
            values: all().map(|(name, value)| (name.to_string(), finite(value))).collect(),
        };
        if let Some(Err(error)) = self.metrics.as_mut().map(|metrics| metrics.write(&record)) {
            self.warn("metrics", &format!("metrics are missing: {error}"));
        }
        let rates = [("epoch", epoch as f32), ("images_per_second", images_per_second as f32)];
        let points = rates.into_iter().chain(all());
        let written = self.events.as_mut().map(|events| events.scalars(step, points));
        self.look_at_events(written);
        self.recent = Rate::start(moment);
        Ok(())
    }

    /// Writes the grid of the present step.
    fn keep_samples(&mut self, made: Option<&Images>) {
        let Some(made) = made else { return };
        let step = self.session.step_count();
        let file = self.run.sample(step);
        // Someone may have tidied up.
        let written = fs::create_dir_all(self.run.samples())
            .map_err(|error| ImageError::Write { path: self.run.samples(), error })
            .and_then(|()| sample_grid::lay_out(&made.values, &made.shape, self.pace.grid)?.write(&file));
        match written {
            Ok(png) => {
                let written = self.events.as_mut().map(|events| events.samples(step, png));
                self.look_at_events(written);
                self.observer.sampled(step, &file);
            }
            Err(error) => self.warn("samples", &format!("samples are missing: {error}")),
        }
    }

    fn look_at_events(&mut self, written: Option<Result<(), EventsError>>) {
        if let Some(Err(error)) = written {
            self.warn("events", &format!("TensorBoard will miss something: {error}"));
        }
    }

    fn warn(&mut self, kind: &'static str, message: &str) {
        if self.warned.insert(kind) {
            self.observer.warning(message);
        }
    }
}

#[cfg(test)]
#[path = "trainer_tests.rs"]
mod tests;
#[cfg(test)]
#[path = "watch_tests.rs"]
mod watch_tests;
