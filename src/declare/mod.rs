//! The graph language: RON text with source spans, and errors that point at it.

pub mod decode;
pub mod diagnostic;
mod lexer;
mod number;
mod parser;
mod recover;
pub mod syntax;
