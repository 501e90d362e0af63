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

use std::collections::HashMap;
use std::fmt::Write as _;

use super::diagnostic::{Diagnostic, Span};
use super::lexer::{Bracket, Token, TokenKind, tokenize};

/// Brackets may nest this deep, so that a hostile text cannot exhaust the stack. (The `ron` crate's
/// limit is 128.)
pub const MAX_DEPTH: usize = 100;
/// A longer text is refused, in bytes. Declared models are some kilobytes.
pub const MAX_SOURCE: usize = 1 << 20;
/// Reading gives up after so many errors: the text is then not RON at all.
const MAX_ERRORS: usize = 100;

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
    let mut parser = Parser { text, tokens: &tokens, at: 0, open: Vec::new(), diags, ended: false };
    let root = parser.document();
    match root {
        Some(root) if parser.diags.is_empty() => Ok(root),
        _ => Err(parser.diags),
    }
}

/// What follows an opening bracket: the items were read, up to the end of the closing bracket.
type End = usize;

struct Parser<'t, 's> {
    text: &'s str,
    tokens: &'t [Token<'s>],
    at: usize,
    /// The brackets that are open, from the outside in.
    open: Vec<(Bracket, Span)>,
    diags: Vec<Diagnostic>,
    /// The end of the text inside a bracket was reported; what follows from it is not.
    ended: bool,
}

impl<'t, 's> Parser<'t, 's> {
    fn token(&self) -> &'t Token<'s> {
        &self.tokens[self.at.min(self.tokens.len() - 1)]
    }

    fn kind(&self) -> &'t TokenKind<'s> {
        &self.token().kind
    }

    fn kind_after(&self) -> &'t TokenKind<'s> {
        &self.tokens[(self.at + 1).min(self.tokens.len() - 1)].kind
    }

    fn advance(&mut self) -> &'t Token<'s> {
        let token = self.token();
        self.at += 1;
        token
    }

    fn eat(&mut self, kind: &TokenKind) -> bool {
        let found = self.kind() == kind;
        if found {
            self.at += 1;
        }
        found
    }

    /// The end of the token before this one.
    fn previous_end(&self) -> usize {
        match self.at.min(self.tokens.len()) {
            0 => 0,
            at => self.tokens[at - 1].span.end,
        }
    }

    fn report(&mut self, diagnostic: Diagnostic) {
        self.diags.push(diagnostic);
        if self.diags.len() >= MAX_ERRORS {
            self.at = self.tokens.len() - 1;
            self.ended = true;
        }
    }

    /// Reports that the current token is not what must stand here. Silent where the token has been
    /// reported already.
    fn unexpected(&mut self, expected: &str) {
        let found = match self.kind() {
            TokenKind::Invalid => return,
            TokenKind::End if self.ended => return,
            TokenKind::End => "the end of the text".to_owned(),
            TokenKind::Literal(_) => "a value".to_owned(),
            TokenKind::Open(b) => format!("`{}`", b.open()),
            TokenKind::Close(b) => format!("`{}`", b.close()),
            TokenKind::Comma => "`,`".to_owned(),
            TokenKind::Colon => "`:`".to_owned(),
            TokenKind::Punct(c) => format!("`{c}`"),
            TokenKind::Ident { text, .. } => format!("`{text}`"),
        };
        let span = self.token().span;
        self.report(
            Diagnostic::new("unexpected-token", format!("expected {expected}, found {found}"))
                .label(span, format!("expected {expected}")),
        );
    }

    fn document(&mut self) -> Option<Node> {
        while matches!(self.kind(), TokenKind::Punct('#')) {
            self.attribute();
        }
        if *self.kind() == TokenKind::End {
            if self.diags.is_empty() {
                let empty = Diagnostic::new("empty-source", "there is nothing in this text")
                    .label(self.token().span, "expected a value");
                self.report(empty);
            }
            return None;
        }
        let root = self.value();
        if root.is_some() && !self.ended && *self.kind() != TokenKind::End {
            let extra = self.token();
            let problem = match extra.kind {
                TokenKind::Invalid => return root,
                TokenKind::Close(bracket) => stray(bracket, extra.span),
                _ => Diagnostic::new("trailing-input", "the text goes on after its value")
                    .label(extra.span, "expected the end of the text")
                    .help("a file holds one value; is a bracket closed too early?"),
            };
            self.report(problem);
        }
        root
    }

    /// `#![enable(name, ...)]`, `#![type = "..."]` or `#![schema = "..."]`.
    fn attribute(&mut self) {
        const EXTENSIONS: [&str; 4] =
            ["unwrap_newtypes", "implicit_some", "unwrap_variant_newtypes", "explicit_struct_names"];
        let start = self.advance().span.start;
        let mut sound = self.eat(&TokenKind::Punct('!'));
        sound = sound && self.eat(&TokenKind::Open(Bracket::Square));
        match self.kind() {
            TokenKind::Ident { text: "enable", .. } if sound => {
                self.advance();
                sound = self.eat(&TokenKind::Open(Bracket::Round));
                let mut more = sound;
                let mut count = 0;
                while more && let TokenKind::Ident { text, .. } = self.kind() {
                    let span = self.advance().span;
                    count += 1;
                    if !EXTENSIONS.contains(text) {
                        self.report(
                            Diagnostic::new("unknown-extension", format!("RON has no extension `{text}`"))
                                .label(span, "")
                                .suggest(text, &EXTENSIONS),
                        );
                    }
                    more = self.eat(&TokenKind::Comma);
                }
                sound = sound && count > 0 && self.eat(&TokenKind::Close(Bracket::Round));
            }
            TokenKind::Ident { text: "type" | "schema", .. } if sound => {
                self.advance();
                sound = self.eat(&TokenKind::Punct('='))
                    && matches!(self.advance().kind, TokenKind::Literal(Value::Str(_)));
            }
            _ => sound = false,
        }
        sound = sound && self.eat(&TokenKind::Close(Bracket::Square));
        if !sound {
            self.skip_to_separator();
            self.eat(&TokenKind::Close(Bracket::Round));
            self.eat(&TokenKind::Close(Bracket::Square));
            let span = Span { start, end: self.previous_end() };
            self.report(
                Diagnostic::new("invalid-attribute", "this attribute cannot be read")
                    .label(span, "")
                    .help("an attribute is written `#![enable(implicit_some)]`"),
            );
        }
    }

    /// Reads a value. `None` where there is none: that was reported, and the token that is not a
    /// value is still the current one.
    fn value(&mut self) -> Option<Node> {
        let token = self.token();
        let span = token.span;
        let value = match &token.kind {
            TokenKind::Literal(value) => {
                self.advance();
                value.clone()
            }
            TokenKind::Ident { text, raw } => {
                self.advance();
                return self.named(text, *raw, span);
            }
            TokenKind::Open(Bracket::Round) => return self.round(None, span),
            TokenKind::Open(Bracket::Square) => {
                let mut items = Vec::new();
                let end = self.bracketed(Bracket::Square, |p| {
                    items.push(p.value()?);
                    Some(())
                })?;
                return Some(Node { span: Span { end, ..span }, value: Value::List(items) });
            }
            TokenKind::Open(Bracket::Curly) => return self.map(span),
            TokenKind::Invalid => {
                // Stands for the value that was meant; nothing more to say about it.
                self.advance();
                return None;
            }
            _ => {
                self.unexpected("a value");
                return None;
            }
        };
        Some(Node { span, value })
    }

    /// What follows a name that stands where a value is expected.
    fn named(&mut self, text: &str, raw: bool, span: Span) -> Option<Node> {
        let keyword = match text {
            _ if raw => None,
            "true" => Some(Value::Bool(true)),
            "false" => Some(Value::Bool(false)),
            _ => super::number::word(text).map(Value::Float),
        };
        if let Some(value) = keyword {
            return Some(Node { span, value });
        }
        let name = Name { text: text.to_owned(), span };
        let has_arguments = *self.kind() == TokenKind::Open(Bracket::Round);
        let is_option = |word: &str| !raw && text == word;
        if !has_arguments || is_option("None") {
            if is_option("Some") {
                self.report(malformed_some(span));
                return None;
            }
            let name = Some(name);
            return Some(Node { span, value: Value::Unit { name } });
        }
        let node = self.round(Some(name), span)?;
        let one_item = matches!(&node.value, Value::Tuple { items, .. } if items.len() == 1);
        if is_option("Some") && !one_item {
            self.report(malformed_some(node.span));
            return None;
        }
        Some(node)
    }

    /// A round bracket and what it holds: named fields, or values.
    fn round(&mut self, name: Option<Name>, start: Span) -> Option<Node> {
        let (first, second) = (self.kind_after(), self.tokens.get(self.at + 2));
        let colon = matches!(second.map(|t| &t.kind), Some(TokenKind::Colon | TokenKind::Punct('=')));
        let is_struct = colon && matches!(first, TokenKind::Ident { .. } | TokenKind::Literal(Value::Str(_)));
        let (end, value) = if is_struct {
            let mut fields = Vec::new();
            let mut seen = HashMap::new();
            let end = self.bracketed(Bracket::Round, |p| p.field(&mut seen, &mut fields))?;
            (end, Value::Struct { name, fields })
        } else {
            let mut items: Vec<Node> = Vec::new();
            let end = self.bracketed(Bracket::Round, |p| {
                let field = p.token();
                if let TokenKind::Ident { text, .. } = &field.kind
                    && *p.kind_after() == TokenKind::Colon
                {
                    let first = items.first().map_or(field.span, |n| n.span);
                    p.at += 2;
                    p.report(mixed(field.span, first, text));
                    p.value()?;
                    return Some(());
                }
                items.push(p.value()?);
                Some(())
            })?;
            let value = match name {
                None if items.is_empty() => Value::Unit { name: None },
                name => Value::Tuple { name, items },
            };
            (end, value)
        };
        let span = Span { start: start.start, end };
        Some(Node { span, value })
    }

    /// `name: value` among fields.
    fn field(&mut self, seen: &mut HashMap<String, Span>, fields: &mut Vec<(Name, Node)>) -> Option<()> {
        let token = self.token();
        let span = token.span;
        let text = match (&token.kind, self.kind_after()) {
            (TokenKind::Ident { text, .. }, _) => (*text).to_owned(),
            (TokenKind::Literal(Value::Str(text)), TokenKind::Colon) => {
                self.report(
                    Diagnostic::new("quoted-field", "a field's name stands without quotes")
                        .label(span, "")
                        .help(format!("write `{text}: ...`")),
                );
                text.clone()
            }
            (TokenKind::Literal(_) | TokenKind::Open(_), _) => {
                let first = fields.first().map(|(name, _)| name);
                let problem = match first {
                    Some(first) => mixed(first.span, span, &first.text),
                    None => Diagnostic::new("unexpected-token", "expected a field, found a value")
                        .label(span, "expected `name: value`"),
                };
                self.report(problem);
                self.value()?;
                return Some(());
            }
            _ => {
                self.unexpected("a field `name: value`");
                return None;
            }
        };
        self.advance();
        match self.kind() {
            TokenKind::Colon => {
                self.advance();
            }
            TokenKind::Punct('=') => {
                let equals = self.advance().span;
                self.report(
                    Diagnostic::new("unexpected-token", "expected `:`, found `=`")
                        .label(equals, "expected `:`")
                        .help(format!("a field is written `{text}: ...`")),
                );
            }
            TokenKind::Literal(_) if self.text[span.end..].starts_with(['-', '+', '.']) => {
                self.report(
                    Diagnostic::new("unexpected-token", "a name ends before `-`, `+` and `.`")
                        .label(span, "the name")
                        .help("a name with such characters is written `r#some-name`"),
                );
                return None;
            }
            TokenKind::Comma | TokenKind::Close(_) => {
                let problem = match fields.first() {
                    Some((first, _)) => mixed(first.span, span, &first.text),
                    None => Diagnostic::new("missing-value", format!("`{text}` has no value"))
                        .label(span, "expected `name: value`"),
                };
                self.report(problem);
                return Some(());
            }
            _ => {
                self.unexpected("`:`");
                return None;
            }
        }
        if matches!(self.kind(), TokenKind::Comma | TokenKind::Close(_)) {
            self.report(
                Diagnostic::new("missing-value", format!("the field `{text}` has no value"))
                    .label(span, "expected a value after the `:`"),
            );
            return Some(());
        }
        let value = self.value()?;
        if let Some(earlier) = seen.get(&text) {
            self.report(
                Diagnostic::new("duplicate-field", format!("the field `{text}` is given twice"))
                    .label(span, "given again here")
                    .label(*earlier, "first given here"),
            );
            return Some(());
        }
        seen.insert(text.clone(), span);
        fields.push((Name { text, span }, value));
        Some(())
    }

    fn map(&mut self, start: Span) -> Option<Node> {
        let mut entries: Vec<(Node, Node)> = Vec::new();
        let mut seen: HashMap<String, Span> = HashMap::new();
        let end = self.bracketed(Bracket::Curly, |p| {
            let key = p.value()?;
            if !p.eat(&TokenKind::Colon) {
                p.unexpected("`:` and a value");
                return None;
            }
            let value = p.value()?;
            let mut identity = String::new();
            key_identity(&key, &mut identity);
            if let Some(earlier) = seen.get(&identity) {
                p.report(
                    Diagnostic::new("duplicate-key", "this key is given twice")
                        .label(key.span, "given again here")
                        .label(*earlier, "first given here"),
                );
            } else {
                seen.insert(identity, key.span);
                entries.push((key, value));
            }
            Some(())
        })?;
        Some(Node { span: Span { end, ..start }, value: Value::Map(entries) })
    }

    /// Reads an opening bracket, items separated by commas, and the closing bracket. An item that
    /// returns `None` has reported why; reading goes on at the next separator.
    fn bracketed(&mut self, bracket: Bracket, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<End> {
        let opening = self.advance().span;
        self.open.push((bracket, opening));
        if self.open.len() > MAX_DEPTH {
            let problem = Diagnostic::new("too-deep", format!("brackets nest deeper than {MAX_DEPTH}"))
                .label(opening, "one bracket too many");
            self.report(problem);
            loop {
                self.skip_to_separator();
                if !self.eat(&TokenKind::Comma) {
                    break;
                }
            }
            self.eat(&TokenKind::Close(bracket));
            self.open.pop();
            return None;
        }
        let end = self.items(bracket, opening, &mut item);
        self.open.pop();
        end
    }

    fn items(
        &mut self,
        bracket: Bracket,
        opening: Span,
        item: &mut impl FnMut(&mut Self) -> Option<()>,
    ) -> Option<End> {
        loop {
            match self.kind() {
                TokenKind::Close(found) if *found == bracket => {
                    return Some(self.advance().span.end);
                }
                TokenKind::Close(found) => {
                    let span = self.token().span;
                    if self.open.iter().any(|(outer, _)| outer == found) {
                        // It closes an outer bracket: this one was forgotten.
                        self.report(
                            unclosed(bracket, opening)
                                .label(span, format!("expected `{}` before this", bracket.close())),
                        );
                        return None;
                    }
                    self.report(stray(*found, span));
                    self.advance();
                    continue;
                }
                TokenKind::End => {
                    self.unclosed_at_end(bracket, opening);
                    return None;
                }
                TokenKind::Comma => {
                    self.unexpected("a value");
                    self.advance();
                    continue;
                }
                _ => {}
            }
            if item(self).is_none() {
                self.skip_to_separator();
            }
            match self.kind() {
                TokenKind::Comma => {
                    self.advance();
                }
                TokenKind::Close(_) | TokenKind::End => {}
                _ => self.missing_comma(bracket),
            }
        }
    }

    /// Reports what stands between an item and the next `,` or closing bracket.
    fn missing_comma(&mut self, bracket: Bracket) {
        let starts_item = matches!(self.kind(), TokenKind::Literal(_) | TokenKind::Ident { .. } | TokenKind::Open(_));
        let next = self.token().span;
        let gap = self.previous_end();
        // `Name [` and `Name {` come from other languages; the next item of a list on the same
        // line and touching its neighbour is more likely one wrong word than two items.
        if starts_item && next.start > gap {
            let before = self.text[..gap].char_indices().next_back();
            let start = before.map_or(gap, |(i, _)| i);
            self.report(
                Diagnostic::new("missing-comma", "a `,` is missing between two items")
                    .label(Span { start, end: gap }, "expected `,` after this")
                    .help(format!("items are separated by `,`, and the bracket ends with `{}`", bracket.close())),
            );
            return;
        }
        self.unexpected(&format!("`,` or `{}`", bracket.close()));
        self.skip_to_separator();
        self.eat(&TokenKind::Comma);
    }

    /// Skips to the next `,` or closing bracket of this level.
    fn skip_to_separator(&mut self) {
        let mut depth = 0_usize;
        loop {
            match self.kind() {
                TokenKind::End => return,
                TokenKind::Comma if depth == 0 => return,
                TokenKind::Close(_) if depth == 0 => return,
                TokenKind::Open(_) => depth += 1,
                TokenKind::Close(_) => depth -= 1,
                _ => {}
            }
            self.at += 1;
        }
    }

    /// Reports a bracket that is open at the end of the text, once for all that are.
    fn unclosed_at_end(&mut self, bracket: Bracket, opening: Span) {
        if self.ended {
            return;
        }
        let problem = match self.misindented() {
            Some((suspect, at, closing)) if at != opening => unclosed(suspect, at)
                .label(closing, "closed by this, which is indented differently")
                .label(opening, "so that this one stays open to the end of the text"),
            _ => unclosed(bracket, opening),
        };
        self.report(problem);
        self.ended = true;
    }

    /// The first bracket whose partner starts a line of a different indentation than the line it
    /// stands on itself. Where a bracket is left open at the end of a text, its closing
    /// bracket has gone to an outer one, and this is the place to look at.
    fn misindented(&self) -> Option<(Bracket, Span, Span)> {
        let line_start = |at: usize| self.text[..at].rfind('\n').map_or(0, |i| i + 1);
        let indent = |start: usize| {
            let line = &self.text[start..];
            line.len() - line.trim_start_matches([' ', '\t']).len()
        };
        let mut open = Vec::new();
        for token in self.tokens {
            match token.kind {
                TokenKind::Open(bracket) => {
                    open.push((bracket, token.span));
                }
                TokenKind::Close(bracket) => {
                    let (partner, opening) = open.pop()?;
                    let here = line_start(token.span.start);
                    let leads = here + indent(here) == token.span.start;
                    let there = line_start(opening.start);
                    if leads && here != there && indent(here) != indent(there) {
                        return (partner == bracket).then_some((partner, opening, token.span));
                    }
                }
                _ => {}
            }
        }
        None
    }
}

fn unclosed(bracket: Bracket, opening: Span) -> Diagnostic {
    Diagnostic::new("unclosed-bracket", format!("this `{}` is never closed", bracket.open()))
        .label(opening, "opened here")
        .help(format!("close it with `{}`", bracket.close()))
}

fn stray(bracket: Bracket, span: Span) -> Diagnostic {
    Diagnostic::new("unopened-bracket", format!("this `{}` closes nothing", bracket.close()))
        .label(span, "")
        .help(format!("remove it, or open `{}` before", bracket.open()))
}

fn mixed(field: Span, positional: Span, name: &str) -> Diagnostic {
    Diagnostic::new("mixed-arguments", "arguments are either all named or all by position")
        .label(positional, "by position")
        .label(field, "named")
        .help(format!("name all of them, as in `{name}: ...`"))
}

fn malformed_some(span: Span) -> Diagnostic {
    Diagnostic::new("malformed-option", "`Some` holds exactly one value").label(span, "expected `Some(value)`")
}

/// Writes a text that two keys share where they are equal as data.
fn key_identity(key: &Node, out: &mut String) {
    let name_of = |name: &Option<Name>| name.as_ref().map(|n| n.text.clone());
    // Writing to a string cannot fail.
    let _ = match &key.value {
        Value::List(items) => {
            out.push('[');
            items.iter().for_each(|item| key_identity(item, out));
            write!(out, "]")
        }
        Value::Tuple { name, items } => {
            let _ = write!(out, "{:?}(", name_of(name));
            items.iter().for_each(|item| key_identity(item, out));
            write!(out, ")")
        }
        Value::Struct { name, fields } => {
            let _ = write!(out, "{:?}(", name_of(name));
            for (field, value) in fields {
                let _ = write!(out, "{:?}:", field.text);
                key_identity(value, out);
            }
            write!(out, ")")
        }
        Value::Map(entries) => {
            out.push('{');
            for (key, value) in entries {
                key_identity(key, out);
                out.push(':');
                key_identity(value, out);
            }
            write!(out, "}}")
        }
        Value::Unit { name } => write!(out, "u{:?},", name_of(name)),
        Value::Float(x) => write!(out, "f{},", x.to_bits()),
        Value::Int(x) => write!(out, "i{x},"),
        Value::Bool(x) => write!(out, "b{x},"),
        Value::Str(x) => write!(out, "s{x:?},"),
        Value::Char(x) => write!(out, "c{x:?},"),
    };
}

#[cfg(test)]
#[path = "syntax_tests.rs"]
mod tests;
