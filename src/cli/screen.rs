//! The progress of a training run, for a person or for a script.

use gcc_gan::kernel::target::Precision;
use gcc_gan::train::checkpoint::Meta;
use gcc_gan::train::data::Split;
use gcc_gan::train::observer::{Observer, Progress};
use gcc_gan::train::pace::Pace;
use gcc_gan::train::session::Session;
use gcc_gan::train::thousands;
use gcc_gan::visible::visible;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Between lines where there is no terminal: at least one every ten seconds, also where a step takes two.
const LINE_EVERY: Duration = Duration::from_secs(8);
/// Between changes of the line on a terminal.
const REFRESH_EVERY: Duration = Duration::from_millis(200);

/// What is trained on what, before it begins.
pub fn heading(session: &Session, meta: &Meta, device: &str, run: &Path) -> String {
    let data = session.data();
    let test = data.test.as_ref().map_or(String::new(), |t| format!(", {} more for testing", thousands(t.len())));
    let precision = match meta.precision {
        Precision::F32 => String::new(),
        lower => format!(" in {}", lower.name()),
    };
    let steps = session.steps_per_epoch() as usize;
    let mut text = format!(
        "{}: batches of {}, {} {} an epoch, on {device}{precision}, seed {}\n",
        meta.program,
        session.batch(),
        thousands(steps),
        if steps == 1 { "step" } else { "steps" },
        meta.seed
    );
    if !meta.sets.is_empty() {
        text += &format!("set: {}\n", meta.set_arguments().join(" "));
    }
    text += &format!("data: {} {}{test}\n", thousands(data.train.len()), data.why);
    data.notes.iter().chain(session.left_out()).for_each(|note| text += &format!("note: {}\n", visible(note)));
    text + &format!("run: {}\n", run.display())
}

/// The same for a script.
pub fn beginning(session: &Session, meta: &Meta, device: &str, run: &Path, pace: &Pace) -> Value {
    let data = session.data();
    let test = data.test.as_ref().map_or(0, Split::len);
    json!({
        "event": "begin", "run": shown(run), "program": meta.program, "set": meta.sets, "seed": meta.seed, "device": device,
        "precision": meta.precision.name(), "batch": session.batch(), "steps_per_epoch": session.steps_per_epoch(),
        "data": data.why, "images": data.train.len(), "test_images": test, "step": session.step_count(), "until": pace.until,
        "sample_every": pace.sample_every, "log_every": pace.metrics_every, "keep": pace.keep,
        "eval_every": session.examiner().map(|_| pace.examine_every),
    })
}

/// What the user sees: lines on standard output, and one that changes on a terminal; or JSON. None of it can end a run.
pub struct Screen {
    /// Whether lines are JSON objects.
    is_json: bool,
    /// Set where the user wants the run to end.
    pub interrupted: Arc<AtomicBool>,
    bar: ProgressBar,
    is_terminal: bool,
    /// When something was shown last, and when it all began.
    shown: Instant,
    pub started: Instant,
    /// Whether standard output still takes what is written to it.
    is_open: bool,
}

impl Screen {
    pub fn new(is_json: bool) -> Screen {
        let bar = ProgressBar::with_draw_target(None, super::bar_target());
        // Nothing but a message: it is cut to the terminal's width, which a bar and numbers around it are not.
        if let Ok(style) = ProgressStyle::with_template("{wide_msg}") {
            bar.set_style(style);
        }
        let (shown, started) = (Instant::now(), Instant::now());
        let is_terminal = io::stderr().is_terminal();
        Screen { is_json, interrupted: Arc::default(), bar, is_terminal, shown, started, is_open: true }
    }

    /// Shows lines to a person.
    pub fn print(&mut self, text: &str) {
        if !self.is_json {
            self.write(|| super::print(text.trim_end()));
        }
    }

    /// Shows an event to a script.
    pub fn event(&mut self, event: impl FnOnce() -> Value) {
        if self.is_json {
            let line = event().to_string();
            self.write(|| super::print_exact(&line));
        }
    }

    /// Writes on standard output. A reader that has gone is told of once, elsewhere, and the run goes on.
    fn write(&mut self, write: impl Fn() -> anyhow::Result<()>) {
        self.shown = Instant::now();
        if !self.is_open {
            return;
        }
        if let Err(error) = self.bar.suspend(write) {
            self.is_open = false;
            self.warning(&format!(
                "standard output cannot be written ({}): the run continues without it",
                error.root_cause()
            ));
        }
    }

    fn line(&mut self, now: &Progress, what: &str) {
        let text = format!(
            "step {:>6}  epoch {:>6.2}  {:>5.0} images/s  {}  {what}",
            now.step,
            now.epoch,
            now.images_per_second,
            listed(&now.values)
        );
        self.print(text.trim_end());
    }

    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Observer for Screen {
    fn is_cancelled(&mut self) -> bool {
        self.interrupted.load(Ordering::SeqCst)
    }

    fn wants_progress(&mut self) -> bool {
        if self.is_json || super::is_quiet() {
            return false;
        }
        let every = if self.is_terminal { REFRESH_EVERY } else { LINE_EVERY };
        self.shown.elapsed() >= every
    }

    fn progress(&mut self, now: &Progress) {
        if !self.is_terminal {
            return self.line(now, "");
        }
        self.shown = Instant::now();
        // What matters most comes first: the rest is cut off where the terminal is narrow.
        self.bar.set_message(format!(
            "step {}/{}  {}  {} left  epoch {:.2}  {:.0} images/s",
            now.step,
            now.until,
            visible(&listed(&now.values)),
            indicatif::HumanDuration(now.left),
            now.epoch,
            now.images_per_second
        ));
    }

    fn report(&mut self, now: &Progress) {
        self.event(|| {
            json!({
                "event": "report", "step": now.step, "until": now.until, "epoch": now.epoch, "ends_epoch": now.ends_epoch,
                "images_per_second": now.images_per_second, "values": now.values,
            })
        });
        self.line(now, if now.ends_epoch { "end of epoch" } else { "" });
    }

    fn examined(&mut self, step: u64, measures: &[(String, f32)], is_best: bool) {
        let values: BTreeMap<_, _> = measures.iter().map(|(name, value)| (name, value)).collect();
        self.event(|| json!({ "event": "examined", "step": step, "values": values, "is_best": is_best }));
        let named = |name: &str| name.trim_start_matches("eval_").replace('_', " ");
        let figures = measures.iter().map(|(name, value)| format!("{} {}", named(name), figure(*value)));
        let best = if is_best { "  the best so far" } else { "" };
        self.print(&format!("step {step:>6}  samples: {}{best}", figures.collect::<Vec<_>>().join("  ")));
    }

    fn saved(&mut self, step: u64, file: &Path) {
        self.event(|| json!({ "event": "saved", "step": step, "file": shown(file) }));
    }

    fn sampled(&mut self, step: u64, file: &Path) {
        self.event(|| json!({ "event": "sampled", "step": step, "file": shown(file) }));
    }

    fn note(&mut self, message: &str) {
        self.bar.suspend(|| super::note(message));
    }

    fn warning(&mut self, message: &str) {
        self.event(|| json!({ "event": "warning", "message": message }));
        self.bar.suspend(|| super::warn(message));
    }
}

/// A path as text; what is no text in it is replaced.
pub fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn listed(values: &BTreeMap<String, f32>) -> String {
    let figures = values.iter().map(|(name, value)| format!("{name} {}", figure(*value)));
    figures.collect::<Vec<_>>().join("  ")
}

/// Four places, or two digits of what would show too few of them, such as a learning rate.
fn figure(value: f32) -> String {
    if value != 0.0 && value.abs() < 1e-3 { format!("{value:.1e}") } else { format!("{value:.4}") }
}

#[cfg(test)]
mod tests {
    #[test]
    fn small_figures_are_not_shown_as_zero() {
        let shown = [0.0, 2e-4, -0.00099, 0.001, 1.23456, f32::NAN].map(super::figure);
        assert_eq!(shown, ["0.0000", "2.0e-4", "-9.9e-4", "0.0010", "1.2346", "NaN"]);
    }
}
