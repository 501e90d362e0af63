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

use crate::declare::diagnostic::{Diagnostic, Span};
use lexer::tokenize;
use parser::Parser;

/// Brackets may nest this deep, so that a hostile text cannot exhaust the stack. (The `ron` crate's
/// limit is 128.)
pub const MAX_DEPTH: usize = 100;
/// A longer text is refused, in bytes. Declared models are some kilobytes.
pub const MAX_SOURCE: usize = 1 << 20;
/// Reading gives up after so many errors: the text is then not RON at all.
pub(super) const MAX_ERRORS: usize = 100;

/// A value and its place in the text.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub span: Span,
    pub value: Value,
}

/// A name (of a field, a variant, an op) and its place in the text.
#[derive(Debug, Clone, PartialEq)]
pub struct Name {
    pub text: String,
    pub span: Span,
}

/// A RON value. `Some(x)` is a [`Value::Tuple`] and `None` a [`Value::Unit`] of that name.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Bool(bool),
    /// An integer of any base; also a byte literal, `b'a'`.
    Int(i64),
    Float(f64),
    Str(String),
    Char(char),
    /// `[a, b]`
    List(Vec<Node>),
    /// `{key: value}`, in the order written; keys are distinct.
    Map(Vec<(Node, Node)>),
    /// `Name(field: value)` or `(field: value)`, in the order written; fields are distinct.
    Struct {
        name: Option<Name>,
        fields: Vec<(Name, Node)>,
    },
    /// `Name(a, b)`, `Name()` or `(a, b)`.
    Tuple {
        name: Option<Name>,
        items: Vec<Node>,
    },
    /// `Name` alone, or `()`.
    Unit {
        name: Option<Name>,
    },
}

impl Node {
    /// The same value, all of it at one place: for what is not in the user's text but there because of a part
    /// of it.
    pub fn at(self, span: Span) -> Node {
        let name = |name: Option<Name>| name.map(|n| Name { text: n.text, span });
        let all = |items: Vec<Node>| items.into_iter().map(|n| n.at(span)).collect();
        let value = match self.value {
            Value::List(items) => Value::List(all(items)),
            Value::Map(pairs) => Value::Map(pairs.into_iter().map(|(k, v)| (k.at(span), v.at(span))).collect()),
            Value::Struct { name: of, fields } => {
                let fields = fields.into_iter().map(|(n, v)| (Name { text: n.text, span }, v.at(span))).collect();
                Value::Struct { name: name(of), fields }
            }
            Value::Tuple { name: of, items } => Value::Tuple { name: name(of), items: all(items) },
            Value::Unit { name: of } => Value::Unit { name: name(of) },
            plain @ (Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Str(_) | Value::Char(_)) => plain,
        };
        Node { span, value }
    }
}

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
