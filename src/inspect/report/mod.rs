//! What became of training runs, side by side: one HTML file, or their metrics as CSV.
//!
//! As the page of a program, the report needs neither a network nor a server, and equal runs give equal bytes.

mod csv;
mod data;
mod read;
#[cfg(test)]
mod tests;

use super::template::{self, Parts};
pub use csv::csv;
pub use data::{Limits, ReportData, RunData, Sample, report_data};
pub use read::{Found, LeftOut, NoRun, Run, read_runs};

const PAGE: &str = include_str!("report.html");
const STYLE: &str = include_str!("report.css");
const SCRIPTS: [(&str, &str); 6] = [
    ("tools", include_str!("tools.js")),
    ("curves", include_str!("curves.js")),
    ("samples", include_str!("samples.js")),
    ("tables", include_str!("tables.js")),
    ("program", include_str!("program.js")),
    ("report", include_str!("report.js")),
];

/// The report as a page. Its data must hold the images: [`Limits::PAGE`].
pub fn render(data: &ReportData) -> String {
    let names: Vec<&str> = data.runs.iter().map(|run| run.name.as_str()).collect();
    let title = format!("{} — gcc-gan report", names.join(", "));
    template::fill(PAGE, &Parts { title: &title, style: STYLE, data, scripts: &SCRIPTS })
}
