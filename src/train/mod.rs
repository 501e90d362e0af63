//! What a training run needs besides the compiler and the executor: data sets and their batches, checkpoints, sample
//! grids, metrics, and the folder of a run. Nothing here knows which device trains or which program is trained.
//!
//! Two promises hold throughout. A killed process leaves every file either as it was or complete ([`crate::atomic`]);
//! and a run that is resumed sees the same batches in the same order as one that was never stopped ([`batches`]).
//! [`trainer`] is the loop over all of it, with an example.

pub mod batches;
pub mod checkpoint;
pub mod data;
pub mod diverged;
pub mod diversity;
pub mod examiner;
pub mod metrics;
pub mod observer;
pub mod pace;
pub mod picture;
pub mod quality;
pub mod rundir;
pub mod sample_grid;
pub mod sampling;
pub mod session;
pub mod starts;
pub mod tensorboard;
pub mod trainer;

/// A number with a comma between groups of three digits, as all messages have it.
pub fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn thousands_are_grouped() {
        let texts = [0, 999, 1000, 60_000, 1_234_567].map(super::thousands);
        assert_eq!(texts, ["0", "999", "1,000", "60,000", "1,234,567"]);
    }
}
