//! The times of two programs beside each other.

use super::data::{EntryData, ProfileData};
use super::pairs::Pair;
use crate::inspect::profile::{KernelTime, Profile, ProfileError, StepTime};
use crate::plan::{EntryPlan, Machine};
use serde::Serialize;

/// The kernels of a step, in seconds; of measured steps with the time between kernels.
#[derive(Debug, PartialEq, Serialize)]
pub struct Sums {
    /// In both; else times are the least that the page's machine allows.
    pub measured: bool,
    #[serde(flatten)]
    pub seconds: FromTo,
}

/// Seconds in B, and in A.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct FromTo {
    pub from: f64,
    pub to: f64,
    /// Whether both were measured, and each lies among what the other took over all steps.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub in_spread: bool,
}

/// The seconds of an entry's kernels in both programs.
pub(super) struct Seconds {
    /// By kernel of B, and of A.
    from: Vec<Measure>,
    to: Vec<Measure>,
    /// Of measured steps, B's and A's.
    steps: Option<[StepTime; 2]>,
}

/// A time, and the shortest and longest of those that it is a mean of.
#[derive(Debug, Clone, Copy)]
struct Measure {
    seconds: f64,
    spread: Option<[f64; 2]>,
}

impl Measure {
    const NONE: Measure = Measure { seconds: 0.0, spread: None };

    fn of_kernel(time: &KernelTime) -> Measure {
        Measure { seconds: time.seconds, spread: Some([time.min_seconds, time.max_seconds]) }
    }

    fn of_step(step: &StepTime) -> Measure {
        Measure { seconds: step.seconds, spread: Some([step.min_seconds, step.max_seconds]) }
    }

    fn least(seconds: f64) -> Measure {
        Measure { seconds, spread: None }
    }

    fn is_among(&self, spread: Option<[f64; 2]>) -> bool {
        spread.is_some_and(|[min, max]| (min..=max).contains(&self.seconds))
    }

    /// From this one to another.
    fn to(&self, to: &Measure) -> FromTo {
        let in_spread = self.is_among(to.spread) && to.is_among(self.spread);
        FromTo { from: self.seconds, to: to.seconds, in_spread }
    }
}

impl Seconds {
    /// The measured ones of both.
    ///
    /// # Errors
    /// When B's are not of its schedule.
    pub fn measured(ours: &ProfileData, theirs: &Profile, base: &EntryPlan) -> Result<Seconds, ProfileError> {
        Ok(Seconds {
            from: theirs.kernels(&base.schedule)?.iter().map(Measure::of_kernel).collect(),
            to: ours.kernels.iter().map(Measure::of_kernel).collect(),
            steps: Some([theirs.step_time(), ours.step]),
        })
    }

    /// The least that the page's machine allows.
    pub fn least(entry: &EntryData, machine: &Machine, base: &EntryPlan) -> Seconds {
        let schedule = &base.schedule;
        let theirs = schedule.kernels.iter().map(|kernel| machine.kernel_seconds(kernel, &schedule.buffers));
        Seconds {
            from: theirs.map(Measure::least).collect(),
            to: entry.kernels.iter().map(|kernel| Measure::least(kernel.ceiling)).collect(),
            steps: None,
        }
    }

    pub fn of_pair(&self, pair: Pair) -> FromTo {
        let from = pair.b.map_or(Measure::NONE, |b| self.from[b]);
        from.to(&pair.a.map_or(Measure::NONE, |a| self.to[a]))
    }

    /// The time of measured steps in which no kernel runs: what a step has beyond its kernels, so it varies as steps do.
    pub fn between(&self) -> Option<FromTo> {
        let [from, to] = &self.steps?;
        let FromTo { in_spread, .. } = Measure::of_step(from).to(&Measure::of_step(to));
        Some(FromTo { from: from.between_seconds, to: to.between_seconds, in_spread })
    }

    pub fn sums(&self) -> Sums {
        let sum = |of: &[Measure]| Measure::least(of.iter().map(|m| m.seconds).sum());
        let seconds = match &self.steps {
            Some([from, to]) => Measure::of_step(from).to(&Measure::of_step(to)),
            None => sum(&self.from).to(&sum(&self.to)),
        };
        Sums { measured: self.steps.is_some(), seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(seconds: f64, spread: [f64; 2]) -> Measure {
        Measure { seconds, spread: Some(spread) }
    }

    #[test]
    fn a_difference_is_in_the_spread_where_each_could_be_the_other() {
        let (slow, fast) = (measured(1.02, [0.99, 1.1]), measured(1.0, [0.98, 1.03]));
        assert!(slow.to(&fast).in_spread && fast.to(&slow).in_spread);
        // One step in which the machine did something else hides no real difference.
        let disturbed = measured(1.0, [0.98, 2.5]);
        assert!(!disturbed.to(&measured(2.0, [1.9, 2.1])).in_spread);
        // What is not there in one, or not measured, has no spread.
        assert!(!slow.to(&Measure::NONE).in_spread && !Measure::least(1.0).to(&Measure::least(1.0)).in_spread);
    }

    #[test]
    fn the_time_between_kernels_varies_as_steps_do() {
        let step = |seconds: f64, between_seconds: f64| StepTime {
            seconds,
            between_seconds,
            min_seconds: 0.9 * seconds,
            median_seconds: seconds,
            max_seconds: 1.1 * seconds,
        };
        let of = |from, to| Seconds { from: Vec::new(), to: Vec::new(), steps: Some([from, to]) };
        let near = of(step(1.0, 0.2), step(1.05, 0.1));
        assert_eq!(near.between(), Some(FromTo { from: 0.2, to: 0.1, in_spread: true }));
        assert!(near.sums().measured && near.sums().seconds.in_spread);
        let far = of(step(1.0, 0.2), step(2.0, 0.1));
        assert!(!far.between().unwrap().in_spread && !far.sums().seconds.in_spread);
    }
}
