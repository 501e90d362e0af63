//! Who looks at a training run, and what it is told.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Where a run stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// Steps that are complete, and the last one to be done.
    pub step: u64,
    pub until: u64,
    /// Epochs that are complete, and the part of the present one.
    pub epoch: f64,
    /// Whether an epoch ended with this step.
    pub ends_epoch: bool,
    /// Examples trained on per second since the last report; what else was done meanwhile is left out.
    pub images_per_second: f64,
    /// What the steps to come will take, by the rate since the start.
    pub left: Duration,
    /// The step's losses and measures, and (as `test_NAME`) those on the test set where it was just measured.
    pub values: BTreeMap<String, f32>,
}

/// Who looks at a training run. Every method does nothing by default.
pub trait Observer {
    /// Asked before steps are handed to the device: whether to stop after those that were. The state is then saved.
    fn is_cancelled(&mut self) -> bool {
        false
    }

    /// Asked after each step, or after several that were handed over together: whether [`Observer::progress`] is to be
    /// called. That reads the losses, for which the device has to be waited for.
    fn wants_progress(&mut self) -> bool {
        false
    }

    /// Where the run stands, between reports.
    fn progress(&mut self, _now: &Progress) {}

    /// Where the run stands, every [`report_every`](super::pace::Pace::report_every) steps, at the end of each epoch and of the run.
    fn report(&mut self, _now: &Progress) {}

    /// The samples were measured, and whether they were better than ever before in this run.
    fn examined(&mut self, _step: u64, _measures: &[(String, f32)], _is_best: bool) {}

    /// The checkpoint of a step was written.
    fn saved(&mut self, _step: u64, _file: &Path) {}

    /// The sample grid of a step was written.
    fn sampled(&mut self, _step: u64, _file: &Path) {}

    /// Something other than the training itself failed, told once for each kind of thing; or samples are nearly alike.
    /// The run goes on.
    fn warning(&mut self, _message: &str) {}

    /// Something is done besides the training that takes time.
    fn note(&mut self, _message: &str) {}
}

/// An observer that looks at nothing.
impl Observer for () {}
