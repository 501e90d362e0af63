//! One HTML file that shows all sides of a program: every stage of its graph, its kernels, its memory and its times.
//!
//! The page has no network access and needs no server: data, style and script are inside it. Graphs are laid out in the
//! browser by dagre (`dagre.min.js`, its licence beside it), because what is laid out changes with every group that is
//! opened.

mod data;
#[cfg(test)]
mod tests;

use super::Observed;
use super::colour::page_style;
use super::profile::{Profile, ProfileError};
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
    let json = serde_json::to_string(data).expect("names are strings and numbers are finite");
    let title = escape(&format!("{} — gcc-gan", data.program));
    // Inside a script element only `<` could end it or open a comment.
    let json = json.replace('<', "\\u003c");
    let mut text = String::new();
    for part in PAGE.split_inclusive("}}") {
        let Some((before, slot)) = part.split_once("{{") else {
            text.push_str(part);
            continue;
        };
        text.push_str(before);
        match slot {
            "title}}" => text.push_str(&title),
            "style}}" => text.extend([STYLE, &page_style()]),
            "data}}" => text.push_str(&json),
            "scripts}}" => {
                for script in SCRIPTS {
                    text.extend(["<script>\n", script, "\n</script>\n"]);
                }
            }
            other => unreachable!("the page has no slot {other}"),
        }
    }
    text
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
