//! Looking at programs: every stage as text or as a picture. Nothing here changes anything.

mod dot;
mod kernels;
mod memory;
mod summary;
mod table;

pub use dot::{graph_dot, schedule_dot};
pub use kernels::{kernel_text, schedule_text};
pub use memory::memory_text;
pub use summary::summary_text;
pub use table::{Align, Table, bytes, count};
