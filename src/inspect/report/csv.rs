//! The metrics of runs as CSV, RFC 4180: a row a line of the metrics, all names of all runs as columns.

use super::data::names;
use super::read::Run;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// The metrics as CSV. With several runs the first column names the run. What a line does not have is empty, and what was
/// not finite is `nan`.
pub fn csv(runs: &[Run]) -> String {
    let mut columns: Vec<&str> = Vec::new();
    for name in runs.iter().flat_map(|run| names(&run.lines)).collect::<BTreeSet<&str>>() {
        columns.push(name);
    }
    let mut text = if runs.len() > 1 { "run,".to_string() } else { String::new() };
    text += "step,epoch,seconds";
    columns.iter().for_each(|name| text.extend([",", &quoted(name)]));
    text.push('\n');
    let some = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
    for (run, line) in runs.iter().flat_map(|run| run.lines.iter().map(move |line| (run, line))) {
        if runs.len() > 1 {
            text.extend([&quoted(&run.name), ","]);
        }
        let _ = write!(text, "{},{},{}", line.step, some(line.epoch), some(line.seconds));
        for name in &columns {
            text.push(',');
            match line.values.get(*name) {
                Some(Some(value)) => text += &value.to_string(),
                Some(None) => text += "nan",
                None => {}
            }
        }
        text.push('\n');
    }
    text
}

fn quoted(field: &str) -> Cow<'_, str> {
    match field.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")).into(),
        false => field.into(),
    }
}
