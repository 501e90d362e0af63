//! One HTML file that shows all sides of a program: every stage of its graph, its kernels, its memory and its times.
//!
//! The page has no network access and needs no server: data, style and script are inside it. Graphs are laid out in the
//! browser by dagre (`dagre.min.js`, its licence beside it), because what is laid out changes with every group that is
//! opened.

mod data;
#[cfg(test)]
mod tests;

use super::Observed;
use super::profile::{Profile, ProfileError};
use super::template::{self, Parts};
pub use data::{EntryData, PageData, page_data};

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPTS: [&str; 6] = [
    include_str!("dagre.min.js"),
    include_str!("model.js"),
    include_str!("graph.js"),
    include_str!("memory.js"),
    include_str!("kernels.js"),
    include_str!("page.js"),
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
