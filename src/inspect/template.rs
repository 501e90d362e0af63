//! Pages that need no network and no server: a template whose slots are filled with style, data and scripts.

use super::colour::page_style;
use serde::Serialize;

/// The colours of all pages.
const THEME: &str = include_str!("theme.css");

/// What is put into a page.
pub struct Parts<'p, D> {
    pub title: &'p str,
    pub style: &'p str,
    /// What the scripts find in the element `data`, as JSON.
    pub data: &'p D,
    /// By name, in the order in which they run. A page can find them by `script-` and the name.
    pub scripts: &'p [(&'p str, &'p str)],
}

/// A page around its data: the template's `{{title}}`, `{{style}}`, `{{data}}` and `{{scripts}}` are replaced.
pub fn fill<D: Serialize>(template: &str, parts: &Parts<D>) -> String {
    let json = serde_json::to_string(parts.data).expect("names are strings and numbers are finite");
    // Inside a script element only `<` could end it or open a comment.
    let json = json.replace('<', "\\u003c");
    let mut text = String::new();
    for part in template.split_inclusive("}}") {
        let Some((before, slot)) = part.split_once("{{") else {
            text.push_str(part);
            continue;
        };
        text.push_str(before);
        match slot {
            "title}}" => text.push_str(&escape(parts.title)),
            "style}}" => text.extend([THEME, parts.style, &page_style()]),
            "data}}" => text.push_str(&json),
            "scripts}}" => {
                for (name, script) in parts.scripts {
                    text.extend(["<script id=\"script-", name, "\">\n", script, "\n</script>\n"]);
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
