//! Tokens to a tree of values: the grammar. How errors are survived is in `recover`.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::lexer::{Bracket, Token, TokenKind};
use super::number;
use super::recover::{malformed_some, mixed, stray};
use super::value::{Name, Node, Value};
use crate::declare::diagnostic::{Diagnostic, Span};

pub(super) struct Parser<'t, 's> {
    pub(super) text: &'s str,
    pub(super) tokens: &'t [Token<'s>],
    pub(super) at: usize,
    /// The brackets that are open, from the outside in.
    pub(super) open: Vec<(Bracket, Span)>,
    pub(super) diags: Vec<Diagnostic>,
    /// The end of the text inside a bracket was reported; what follows from it is not.
    pub(super) ended: bool,
}

impl<'t, 's> Parser<'t, 's> {
    /// A parser of the tokens of `text`, of which there is at least the last, [`TokenKind::End`].
    pub(super) fn new(text: &'s str, tokens: &'t [Token<'s>], diags: Vec<Diagnostic>) -> Self {
        Self { text, tokens, at: 0, open: Vec::new(), diags, ended: false }
    }

    pub(super) fn token(&self) -> &'t Token<'s> {
        &self.tokens[self.at.min(self.tokens.len() - 1)]
    }

    pub(super) fn kind(&self) -> &'t TokenKind<'s> {
        &self.token().kind
    }

    fn kind_after(&self) -> &'t TokenKind<'s> {
        &self.tokens[(self.at + 1).min(self.tokens.len() - 1)].kind
    }

    pub(super) fn advance(&mut self) -> &'t Token<'s> {
        let token = self.token();
        self.at += 1;
        token
    }

    pub(super) fn eat(&mut self, kind: &TokenKind) -> bool {
        let found = self.kind() == kind;
        if found {
            self.at += 1;
        }
        found
    }

    /// The end of the token before this one.
    pub(super) fn previous_end(&self) -> usize {
        match self.at.min(self.tokens.len()) {
            0 => 0,
            at => self.tokens[at - 1].span.end,
        }
    }

    /// Reads the whole text: attributes and one value.
    pub(super) fn document(mut self) -> (Option<Node>, Vec<Diagnostic>) {
        let root = self.root();
        (root, self.diags)
    }

    fn root(&mut self) -> Option<Node> {
        while matches!(self.kind(), TokenKind::Punct('#')) {
            self.attribute();
        }
        if *self.kind() == TokenKind::End {
            if self.diags.is_empty() {
                let empty = Diagnostic::new("empty-source", "there is no value in this text")
                    .label(Span { start: 0, end: 0 }, "expected a value");
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
            TokenKind::Ident { text: "enable", raw: false } if sound => {
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
            TokenKind::Ident { text: "type" | "schema", raw: false } if sound => {
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
            _ => number::word(text).map(Value::Float),
        };
        if let Some(value) = keyword {
            return Some(Node { span, value });
        }
        let name = Name { text: text.to_owned(), span };
        if raw && matches!(text, "Some" | "None") {
            self.report(
                Diagnostic::new("invalid-name", format!("`{text}` cannot be the name of something else"))
                    .label(span, "an optional value is written without `r#`"),
            );
            return None;
        }
        let has_arguments = *self.kind() == TokenKind::Open(Bracket::Round);
        if !has_arguments || text == "None" {
            if text == "Some" {
                self.report(malformed_some(span));
                return None;
            }
            let name = Some(name);
            return Some(Node { span, value: Value::Unit { name } });
        }
        let node = self.round(Some(name), span)?;
        let one_item = matches!(&node.value, Value::Tuple { items, .. } if items.len() == 1);
        if text == "Some" && !one_item {
            self.report(malformed_some(node.span));
            return None;
        }
        Some(node)
    }

    /// A round bracket and what it holds: named fields, or values.
    fn round(&mut self, name: Option<Name>, start: Span) -> Option<Node> {
        let is_struct = self.looks_like_fields();
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

    /// Whether the round bracket at hand opens named fields, going by the first of them; a wrong
    /// separator or quotes around the name are forgiven here and reported there.
    fn looks_like_fields(&self) -> bool {
        let second = self.tokens.get(self.at + 2).map(|t| &t.kind);
        match self.kind_after() {
            TokenKind::Ident { .. } => {
                matches!(second, Some(TokenKind::Colon | TokenKind::Punct('=') | TokenKind::Literal(_)))
            }
            TokenKind::Literal(Value::Str(_)) => matches!(second, Some(TokenKind::Colon)),
            _ => false,
        }
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
            TokenKind::Punct('=') | TokenKind::Literal(_) => {
                let found = self.token();
                let equals = self.eat(&TokenKind::Punct('='));
                let message = if equals { "expected `:`, found `=`" } else { "expected `:`" };
                self.report(
                    Diagnostic::new("unexpected-token", message)
                        .label(found.span, "expected `:` before this")
                        .help(format!("a field is written `{text}: ...`")),
                );
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
