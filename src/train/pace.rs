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

/// How often a run was asked to leave something behind; the default where nothing was said. A run that is resumed keeps its
/// habits: each start records them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Habits {
    /// [`Pace::sample_every`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample_every: Option<u64>,
    /// [`Pace::metrics_every`] and [`Pace::report_every`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_every: Option<u64>,
    /// [`Pace::examine_every`]; 0 is never, as where nothing was said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_every: Option<u64>,
    /// Samples that are measured each time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_samples: Option<usize>,
    /// [`Pace::keep`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<usize>,
}

impl Habits {
    /// These, and where they say nothing, those of before.
    #[must_use]
    pub fn or(self, before: Habits) -> Habits {
        Habits {
            sample_every: self.sample_every.or(before.sample_every),
            log_every: self.log_every.or(before.log_every),
            eval_every: self.eval_every.or(before.eval_every),
            eval_samples: self.eval_samples.or(before.eval_samples),
            keep: self.keep.or(before.keep),
        }
    }

    /// Those about which `others` say nothing.
    #[must_use]
    pub fn without(self, others: Habits) -> Habits {
        Habits {
            sample_every: self.sample_every.filter(|_| others.sample_every.is_none()),
            log_every: self.log_every.filter(|_| others.log_every.is_none()),
            eval_every: self.eval_every.filter(|_| others.eval_every.is_none()),
            eval_samples: self.eval_samples.filter(|_| others.eval_samples.is_none()),
            keep: self.keep.filter(|_| others.keep.is_none()),
        }
    }

    /// As options of `gcc-gan train`.
    pub fn arguments(self) -> Vec<String> {
        let count = |count: Option<usize>| count.map(|count| count as u64);
        let options = [
            ("sample-every", self.sample_every),
            ("log-every", self.log_every),
            ("eval-every", self.eval_every),
            ("eval-samples", count(self.eval_samples)),
            ("keep", count(self.keep)),
        ];
        options.into_iter().filter_map(|(name, value)| Some(format!("--{name} {}", value?))).collect()
    }

    /// Whether the samples are measured.
    pub fn examines(self) -> bool {
        self.eval_every.is_some_and(|every| every > 0)
    }

    /// The pace of a run with these habits.
    pub fn pace(self, until: u64) -> Pace {
        let default = Pace::default();
        Pace {
            until,
            sample_every: self.sample_every.unwrap_or(default.sample_every),
            metrics_every: self.log_every.unwrap_or(default.metrics_every),
            report_every: self.log_every.unwrap_or(default.report_every),
            examine_every: self.eval_every.filter(|&every| every > 0).unwrap_or(default.examine_every),
            keep: self.keep.unwrap_or(default.keep),
            grid: default.grid,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_takes_the_place_of_what_was() {
        let (eval_every, eval_samples) = (Some(10), Some(20));
        let before = Habits { log_every: Some(5), eval_every, eval_samples, keep: Some(2), ..Habits::default() };
        let now = Habits { keep: Some(0), eval_every: Some(0), ..Habits::default() };
        let both = now.or(before);
        assert_eq!(both, Habits { log_every: Some(5), eval_samples, ..now }, "for when it is measured again");
        assert_eq!(both.without(now).arguments(), ["--log-every 5", "--eval-samples 20"]);
        assert!(before.examines() && !both.examines());
        let pace = both.pace(7);
        assert_eq!((pace.until, pace.metrics_every, pace.report_every, pace.keep), (7, 5, 5, 0));
        assert_eq!(Habits::default().pace(u64::MAX), Pace::default());
    }
}
