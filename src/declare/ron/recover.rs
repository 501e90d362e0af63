//! How the parser survives errors: commas, closing brackets and the places to read on from.

use super::lexer::{Bracket, TokenKind};
use super::parser::Parser;
use super::value::{MAX_DEPTH, MAX_ERRORS};
use crate::declare::diagnostic::{Diagnostic, Span};

/// The end of a closing bracket.
type End = usize;

impl Parser<'_, '_> {
    pub(super) fn report(&mut self, diagnostic: Diagnostic) {
        self.diags.push(diagnostic);
        if self.diags.len() >= MAX_ERRORS {
            self.at = self.tokens.len() - 1;
            self.ended = true;
        }
    }

    /// Reports that the current token is not what must stand here. Silent where the token has been
    /// reported already.
    pub(super) fn unexpected(&mut self, expected: &str) {
        let found = match self.kind() {
            TokenKind::Invalid => return,
            // The bracket that is open will be reported.
            TokenKind::End if self.ended || !self.open.is_empty() => return,
            TokenKind::End => "the end of the text".to_owned(),
            TokenKind::Literal(_) => format!("`{}`", self.excerpt()),
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

    /// The start of the current token's text, for a message.
    fn excerpt(&self) -> String {
        const MAX_CHARS: usize = 24;
        let span = self.token().span;
        let mut chars = self.text[span.start..span.end].chars();
        let mut text: String = chars.by_ref().take(MAX_CHARS).filter(|c| !c.is_control()).collect();
        if chars.next().is_some() {
            text.push('…');
        }
        text
    }

    /// Reads an opening bracket, items separated by commas, and the closing bracket. An item that
    /// returns `None` has reported why; reading goes on at the next separator.
    pub(super) fn bracketed(&mut self, bracket: Bracket, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<End> {
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
                    // The comma behind belongs to the item before.
                    self.eat(&TokenKind::Comma);
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
    pub(super) fn skip_to_separator(&mut self) {
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
        // Where the line at hand starts, and the place up to which line breaks have been counted:
        // each part of the text is looked at once, however long its lines are.
        let (mut line, mut counted) = (0, 0);
        let mut open = Vec::new();
        for token in self.tokens {
            let start = token.span.start;
            if let Some(at) = self.text[counted..start].rfind('\n') {
                line = counted + at + 1;
            }
            counted = start;
            match token.kind {
                TokenKind::Open(bracket) => open.push((bracket, token.span, line)),
                TokenKind::Close(bracket) => {
                    let (partner, opening, other) = open.pop()?;
                    let leads = line + self.indent(line) == start;
                    if leads && line != other && self.indent(line) != self.indent(other) {
                        return (partner == bracket).then_some((partner, opening, token.span));
                    }
                }
                _ => {}
            }
        }
        None
    }

    /// The bytes of blank space that a line starts with.
    fn indent(&self, line: usize) -> usize {
        let rest = &self.text[line..];
        rest.len() - rest.trim_start_matches([' ', '\t']).len()
    }
}

fn unclosed(bracket: Bracket, opening: Span) -> Diagnostic {
    Diagnostic::new("unclosed-bracket", format!("this `{}` is never closed", bracket.open()))
        .label(opening, "opened here")
        .help(format!("close it with `{}`", bracket.close()))
}

pub(super) fn stray(bracket: Bracket, span: Span) -> Diagnostic {
    Diagnostic::new("unopened-bracket", format!("this `{}` closes nothing", bracket.close()))
        .label(span, "")
        .help(format!("remove it, or open `{}` before", bracket.open()))
}

pub(super) fn mixed(field: Span, positional: Span, name: &str) -> Diagnostic {
    Diagnostic::new("mixed-arguments", "arguments are either all named or all by position")
        .label(positional, "by position")
        .label(field, "named")
        .help(format!("give all of them by position, or name the others too, as `{name}` is"))
}

pub(super) fn malformed_some(span: Span) -> Diagnostic {
    Diagnostic::new("malformed-option", "`Some` holds exactly one value").label(span, "expected `Some(value)`")
}
