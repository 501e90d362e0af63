//! How far a run goes, and how often it leaves something behind.

use super::sample_grid::Grid;
use super::session::Session;
use serde::{Deserialize, Serialize};

/// How far a run is asked to go, since its first initialisation: to so many epochs, or steps, whichever end first.
/// Without either it has no end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Target {
    pub epochs: Option<u64>,
    pub steps: Option<u64>,
}

impl Target {
    /// The step at which a session has reached it. Epochs are counted from where it stands: those that are complete may have
    /// had other numbers of steps, where the data were changed on the way.
    pub fn last_step(self, session: &Session) -> u64 {
        let (per_epoch, position) = (session.steps_per_epoch(), session.position());
        let done = position.epoch.saturating_mul(per_epoch).saturating_add(position.batch);
        let of_epochs = |epochs: u64| {
            let total = epochs.saturating_mul(per_epoch);
            session.step_count().saturating_add(total).saturating_sub(done)
        };
        self.epochs.map_or(u64::MAX, of_epochs).min(self.steps.unwrap_or(u64::MAX))
    }
}

/// How far to train, and how many steps lie between the things that a run leaves behind. All are also done at the last
/// step; checkpoints, metrics and reports also at the end of an epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pace {
    /// The step after which training is complete, counted from the first initialisation.
    pub until: u64,
    /// Steps between sample grids, and between checkpoints within an epoch.
    pub sample_every: u64,
    /// Steps between lines of the metrics. At these steps it is also seen whether all is finite.
    pub metrics_every: u64,
    /// Steps between reports; a multiple of `metrics_every`.
    pub report_every: u64,
    /// Steps between measurements of the samples, where the session has an [examiner](super::examiner); the checkpoint is
    /// saved there too.
    pub examine_every: u64,
    /// How many of the last checkpoints are kept by their steps, besides the last two that always are.
    pub keep: usize,
    /// The images of a sample.
    pub grid: Grid,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            until: u64::MAX,
            sample_every: 1000,
            metrics_every: 50,
            report_every: 1000,
            examine_every: 1000,
            keep: 0,
            grid: Grid { rows: 6, columns: 6 },
        }
    }
}
