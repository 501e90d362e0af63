//! Looking at programs: every stage as text or as a picture. Nothing here changes anything.

mod colour;
mod condense;
mod diff;
mod dot;
mod explain;
mod groups;
mod hand_over;
mod history;
mod kernels;
mod layered;
mod memory;
mod node_cost;
pub mod page;
mod placement;
pub mod profile;
pub mod report;
mod summary;
mod svg;
mod table;
mod template;

use crate::visible::visible;
pub use colour::{COLOURS, Colour};
pub use condense::{Part, condense};
pub use diff::diff;
pub use dot::{graph_dot, schedule_dot};
pub use explain::{ExplainError, explain, explain_pair};
pub use groups::{Group, group_path};
pub use hand_over::{HandOver, hand_overs};
pub use history::{History, Observed, main_entry, observe, observe_with};
pub use kernels::{choice_text, kernel_text, schedule_text, value_count};
pub use memory::memory_text;
pub use placement::{Placement, by_name, kernel_core, placement};
pub use summary::summary_text;
pub use svg::{Detail, graph_svg, schedule_svg};
pub use table::{Align, Table, bytes, count};
