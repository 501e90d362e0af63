//! Reading characters: words, numbers, strings and lists, each with its place in the text.

use super::Number;
use crate::ir::verify::is_name_char;

/// A text that is not a graph: where, and what was expected there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {problem}")]
pub struct ParseError {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What was expected and what was found.
    pub problem: String,
}

/// A place in the text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    line: usize,
    column: usize,
}

impl Place {
    pub fn error(self, problem: impl Into<String>) -> ParseError {
        ParseError { line: self.line, column: self.column, problem: problem.into() }
    }
}

/// The text that is left. Spaces before what is asked for are skipped; ends of lines are not.
pub(super) struct Scanner<'t> {
    rest: &'t str,
    place: Place,
}

impl<'t> Scanner<'t> {
    pub fn new(text: &'t str) -> Self {
        Scanner { rest: text, place: Place { line: 1, column: 1 } }
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        if c == '\n' {
            self.place = Place { line: self.place.line + 1, column: 1 };
        } else {
            self.place.column += 1;
        }
        Some(c)
    }

    fn bump_while(&mut self, keep: impl Fn(char) -> bool) -> &'t str {
        let start = self.rest;
        while self.rest.chars().next().is_some_and(&keep) {
            self.bump();
        }
        &start[..start.len() - self.rest.len()]
    }

    fn skip_spaces(&mut self) {
        self.bump_while(|c| matches!(c, ' ' | '\t' | '\r'));
        if self.rest.starts_with("//") {
            self.bump_while(|c| c != '\n');
        }
    }

    /// Skips empty lines and comments too.
    pub fn skip_lines(&mut self) {
        loop {
            self.skip_spaces();
            if !self.rest.starts_with('\n') {
                return;
            }
            self.bump();
        }
    }

    /// The next character that is no space; `None` at the end of the text.
    pub fn peek(&mut self) -> Option<char> {
        self.skip_spaces();
        self.rest.chars().next()
    }

    pub fn place(&mut self) -> Place {
        self.skip_spaces();
        self.place
    }

    /// An error at this place: `expected` against what is there.
    pub fn unexpected(&mut self, expected: &str) -> ParseError {
        let found = match self.peek() {
            None => "the end of the text".to_string(),
            Some('\n') => "the end of the line".to_string(),
            Some(c) if is_name_char(c) => {
                let word: String = self.rest.chars().take_while(|&c| is_name_char(c)).take(40).collect();
                format!("`{word}`")
            }
            Some(c) => format!("`{}`", c.escape_debug()),
        };
        self.place.error(format!("expected {expected}, found {found}"))
    }

    /// Takes `c` if it is next.
    pub fn eat(&mut self, c: char) -> bool {
        let there = self.peek() == Some(c);
        if there {
            self.bump();
        }
        there
    }

    pub fn expect(&mut self, c: char) -> Result<(), ParseError> {
        if self.eat(c) { Ok(()) } else { Err(self.unexpected(&format!("`{c}`"))) }
    }

    /// A word of the characters of names.
    pub fn word(&mut self, expected: &str) -> Result<&'t str, ParseError> {
        self.skip_spaces();
        match self.bump_while(is_name_char) {
            "" => Err(self.unexpected(expected)),
            word => Ok(word),
        }
    }

    /// A word, or a string in quotes.
    pub fn label(&mut self, expected: &str) -> Result<String, ParseError> {
        if self.peek() == Some('"') { self.string(expected) } else { self.word(expected).map(str::to_string) }
    }

    pub fn string(&mut self, expected: &str) -> Result<String, ParseError> {
        if !self.eat('"') {
            return Err(self.unexpected(&format!("{expected} in quotes")));
        }
        let mut text = String::new();
        loop {
            let place = self.place;
            match self.bump() {
                Some('"') => return Ok(text),
                Some('\\') => text.push(self.escape(place)?),
                None | Some('\n') => return Err(place.error("expected `\"` before the end of the line")),
                Some(c) => text.push(c),
            }
        }
    }

    /// What follows a backslash, as `char::escape_debug` writes it.
    fn escape(&mut self, place: Place) -> Result<char, ParseError> {
        let c = match self.bump() {
            Some('n') => Some('\n'),
            Some('r') => Some('\r'),
            Some('t') => Some('\t'),
            Some('0') => Some('\0'),
            Some(c @ ('\\' | '"' | '\'')) => Some(c),
            Some('u') if self.rest.starts_with('{') => {
                self.bump();
                let digits = self.bump_while(|c| c.is_ascii_hexdigit());
                let closed = self.bump() == Some('}');
                u32::from_str_radix(digits, 16).ok().and_then(char::from_u32).filter(|_| closed)
            }
            _ => None,
        };
        c.ok_or_else(|| place.error(r#"expected one of `\n \r \t \0 \\ \" \u{…}`"#))
    }

    pub fn number(&mut self, expected: &str) -> Result<f64, ParseError> {
        let place = self.place();
        match self.bump_while(|c| is_name_char(c) || c == '+') {
            "" => Err(self.unexpected(expected)),
            word => match Number::parse(word) {
                Some(number) => Ok(number.0),
                None => Err(place.error(format!("expected {expected}, found `{word}`"))),
            },
        }
    }

    pub fn size(&mut self, expected: &str) -> Result<usize, ParseError> {
        let place = self.place();
        let word = self.word(expected)?;
        word.parse().map_err(|_| place.error(format!("expected {expected}, found `{word}`")))
    }

    /// `[1,2]`
    pub fn sizes(&mut self) -> Result<Vec<usize>, ParseError> {
        self.expect('[')?;
        let mut sizes = Vec::new();
        if self.eat(']') {
            return Ok(sizes);
        }
        loop {
            sizes.push(self.size("a size")?);
            if self.eat(']') {
                return Ok(sizes);
            }
            if !self.eat(',') {
                return Err(self.unexpected("`,` or `]`"));
            }
        }
    }
}
