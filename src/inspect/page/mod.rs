//! One HTML file that shows all sides of a program: every stage of its graph, its kernels, its memory and its times.
//!
//! The page has no network access and needs no server: data, style and script are inside it. Graphs are laid out in the
//! browser by dagre (`dagre.min.js`, its licence beside it), because what is laid out changes with every group that is
//! opened; very large groups by `layout.js` alone, which also folds tall chains into columns. Boxes are those of all
//! stages together (`tree.js`), so that one keeps its place while stages change, and they are laid out in a worker, so
//! that the page stays alive (`layouts.js`).
//! What each line of the program costs is worked out here (`lines.rs`) and shown beside the program (`source.js`); one
//! position in the step is shown in all views at once (`playhead.js`).
//!
//! Beside a program there may be another one (`against.rs`, `against.js`), whose graph is one more stage of the same boxes.

mod against;
mod data;
mod lines;
mod pairs;
mod rules;
#[cfg(test)]
mod tests;
mod times;

use super::Observed;
use super::profile::{Profile, ProfileError};
use super::template::{self, Parts};
pub use against::{AgainstData, AgainstError, Compared, add_base};
pub use data::{EntryData, PageData, ValuesData, arguments, check_program, page_data};
pub use lines::{LineBytes, LineShare};

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
/// By name, in the order in which they run. The worker that lays graphs out is made from `dagre` and `layout`.
const SCRIPTS: [(&str, &str); 27] = [
    ("dagre", include_str!("dagre.min.js")),
    ("words", include_str!("words.js")),
    ("model", include_str!("model.js")),
    ("tree", include_str!("tree.js")),
    ("layout", include_str!("layout.js")),
    ("layouts", include_str!("layouts.js")),
    ("canvas", include_str!("canvas.js")),
    ("paint", include_str!("paint.js")),
    ("graph", include_str!("graph.js")),
    ("schedule", include_str!("schedule.js")),
    ("zoom", include_str!("zoom.js")),
    ("peak", include_str!("peak.js")),
    ("memory", include_str!("memory.js")),
    ("roofline", include_str!("roofline.js")),
    ("kernels", include_str!("kernels.js")),
    ("layers", include_str!("layers.js")),
    ("missed", include_str!("missed.js")),
    ("timeline", include_str!("timeline.js")),
    ("source", include_str!("source.js")),
    ("playhead", include_str!("playhead.js")),
    ("rules", include_str!("rules.js")),
    ("against", include_str!("against.js")),
    ("stages", include_str!("stages.js")),
    ("search", include_str!("search.js")),
    ("values", include_str!("values.js")),
    ("details", include_str!("details.js")),
    ("page", include_str!("page.js")),
];

/// The page of a program, with measured times where a profile is given.
///
/// # Errors
/// When the profile is of another program.
pub fn page(observed: &Observed, profile: Option<&Profile>) -> Result<String, ProfileError> {
    Ok(render(&page_data(observed, profile)?))
}

/// The page around its data.
pub fn render(data: &PageData) -> String {
    let title = format!("{} — gcc-gan", data.program);
    template::fill(PAGE, &Parts { title: &title, style: STYLE, data, scripts: &SCRIPTS })
}
