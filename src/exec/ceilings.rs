//! What a device can do at most, as it was measured.

use crate::plan::Machine;
use serde::{Deserialize, Serialize};

/// How far the best rounds may be apart, and how much of the time may have gone to other work, on a machine that had
/// nothing else to do.
const MOST_SPREAD: f64 = 0.05;
const MOST_WAITING: f64 = 0.05;

/// The ceilings of a device, and how well they repeat.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ceilings {
    pub machine: Machine,
    pub spread: Spread,
}

/// What says whether a measurement would give the same again. All parts are of 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// How far the third best round is below the best: of arithmetic, of that on tf32 and on bf16, of memory, of the cache
    /// that cores share where that is a GPU's, of launches.
    pub arithmetic: f64,
    #[serde(default)]
    pub tf32: f64,
    #[serde(default)]
    pub bf16: f64,
    pub memory: f64,
    #[serde(default)]
    pub cache: f64,
    pub launch: f64,
    /// The part of the arithmetic test in which there was work to do and the device did another program's; 0 where nobody
    /// tells.
    pub waiting: f64,
}

impl Spread {
    /// Why the ceilings may be too low, where they may be.
    pub fn busy(&self) -> Option<String> {
        let percent = |part: f64| format!("{:.0}%", part * 100.0);
        if self.waiting > MOST_WAITING {
            return Some(format!("other programs took {} of the time", percent(self.waiting)));
        }
        let worst = [self.tf32, self.bf16, self.memory, self.cache].into_iter().fold(self.arithmetic, f64::max);
        (worst > MOST_SPREAD).then(|| format!("the best rounds differ by {}", percent(worst)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_machine_is_told() {
        assert_eq!(Spread { launch: 0.9, ..Spread::default() }.busy(), None);
        let told = |spread: Spread| spread.busy().unwrap();
        assert!(told(Spread { memory: 0.2, ..Spread::default() }).contains("20%"));
        assert!(told(Spread { waiting: 0.5, ..Spread::default() }).contains("other programs took 50%"));
    }
}
