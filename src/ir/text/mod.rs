//! The text form of a graph: one line per node, human-readable, for snapshots and tests too.
//!
//! ```text
//! graph train_step {
//!   %real: f32[128,1,28,28] = input "real"
//!   %w: f32[64,1,4,4] = state "discriminator/0-conv/weight"
//!   %conv: f32[128,64,14,14] = conv2d %real %w stride=[2,2] pad=[1,1]  # d/0-conv @120..180
//!   %sum: f32[1,1,1,1] = reduce_sum %conv axes=[0,1,2,3]
//!   %loss: f32[] = reshape %sum
//!   output loss_d = %loss
//!   update "discriminator/0-conv/weight" = %w
//!   probe "conv" = %conv
//! }
//! ```
//!
//! A line reads `%name: type = operation payload operands attributes`. Every node is defined before it
//! is used. What follows `#` is the node's origin: scope, `@` the byte range in the source, and the role
//! unless it is forward. Names of other than letters, digits and `_ . / -` stand in quotes. When
//! reading, `//` starts a comment, and a type may be left out where it follows from the operands.
//!
//! [`parse`] gives back a graph equal to the printed one; without origins, one equal but for these.

mod parse;
mod print;
mod scan;

pub use parse::parse;
pub use print::Printer;
pub use scan::ParseError;

use crate::types::Number;

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
