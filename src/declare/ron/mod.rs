//! RON text to a tree of values that know where they stand.
//!
//! The `ron` crate reads into serde types: a value keeps no position there, and reading stops at
//! the first error. A compiler needs both (every later error, such as a shape mismatch, points at the
//! user's line, and several errors are shown at once), so this is a reader of our own for the
//! same language: what it accepts, the `ron` crate 0.12 accepts with the same meaning. The grammar is
//! <https://github.com/ron-rs/ron/blob/master/docs/grammar.md>.
//!
//! Left out on purpose, each with an error that says so: byte strings and ranges (nothing in a graph is
//! one), integers outside `i64`, and floats that round to infinity. Stricter than the `ron` crate's
//! untyped reading: a field or map key given twice is an error. Extensions (`#![enable(...)]`) are checked and have no
//! effect, for they only change how typed data is read.

pub mod decode;
mod lexer;
mod number;
mod parser;
mod recover;
mod value;

use crate::declare::diagnostic::{Diagnostic, Span};
use lexer::tokenize;
use parser::Parser;
pub use value::{MAX_DEPTH, Name, Node, Value};

/// A longer text is refused, in bytes. Models written by hand are some kilobytes, generated ones more.
pub const MAX_SOURCE: usize = 4 << 20;

/// Reads a text.
///
/// # Errors
/// Every syntax error that could be found: after one, reading goes on at the next `,` or closing
/// bracket. The tree is only given where there is none, for a tree with holes would bring errors that
/// are not the user's.
pub fn parse(text: &str) -> Result<Node, Vec<Diagnostic>> {
    if text.len() > MAX_SOURCE {
        return Err(vec![
            Diagnostic::new("source-too-large", format!("the text is longer than {MAX_SOURCE} bytes"))
                .label(Span { start: 0, end: 0 }, ""),
        ]);
    }
    let mut diags = Vec::new();
    let Ok(tokens) = tokenize(text, &mut diags) else {
        return Err(diags);
    };
    let (root, diags) = Parser::new(text, &tokens, diags).document();
    match root {
        Some(root) if diags.is_empty() => Ok(root),
        _ => Err(diags),
    }
}

#[cfg(test)]
mod tests;
