//! Tokens of RON, with their spans. Lexical errors are reported here once; the parser sees a
//! [`TokenKind::Invalid`] in their place and stays silent about it.

use super::number;
use super::value::{MAX_ERRORS, Value};
use crate::declare::diagnostic::{Diagnostic, Span};

/// A kind of bracket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bracket {
    Round,
    Square,
    Curly,
}

impl Bracket {
    pub(super) fn open(self) -> char {
        match self {
            Self::Round => '(',
            Self::Square => '[',
            Self::Curly => '{',
        }
    }
    pub(super) fn close(self) -> char {
        match self {
            Self::Round => ')',
            Self::Square => ']',
            Self::Curly => '}',
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum TokenKind<'s> {
    Open(Bracket),
    Close(Bracket),
    Comma,
    Colon,
    /// `#`, `!` and `=`, which only attributes use.
    Punct(char),
    /// A name; `raw` where it is written `r#name` and so cannot be a keyword.
    Ident {
        text: &'s str,
        raw: bool,
    },
    /// A number, string or character. Words such as `true` are left to the parser, for they can
    /// also name a field.
    Literal(Value),
    /// Something that was already reported.
    Invalid,
    End,
}

#[derive(Debug, Clone)]
pub(super) struct Token<'s> {
    pub(super) kind: TokenKind<'s>,
    pub(super) span: Span,
}

/// Splits a text into tokens, the last of which is [`TokenKind::End`].
///
/// `Err` where the text holds a string or comment that never ends, and the tokens after it would
/// be nonsense, or too many errors to go on.
pub(super) fn tokenize<'s>(text: &'s str, diags: &mut Vec<Diagnostic>) -> Result<Vec<Token<'s>>, GaveUp> {
    let mut lexer = Lexer { text, at: 0, diags, first_multiline: None };
    // A byte order mark, which some editors put in front.
    lexer.eat("\u{feff}");
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blank()?;
        let start = lexer.at;
        let Some(c) = lexer.peek() else {
            let span = Span { start: text.len(), end: text.len() };
            tokens.push(Token { kind: TokenKind::End, span });
            return Ok(tokens);
        };
        let kind = lexer.token(c)?;
        let end = lexer.at;
        if lexer.diags.len() >= MAX_ERRORS {
            return Err(GaveUp);
        }
        tokens.push(Token { kind, span: Span { start, end } });
    }
}

/// There is no use in going on. Already reported.
pub(super) struct GaveUp;

struct Lexer<'s, 'd> {
    text: &'s str,
    at: usize,
    diags: &'d mut Vec<Diagnostic>,
    /// The first string with a line break in it: where a later one never ends, the closing quote
    /// is likely to be missing here.
    first_multiline: Option<Span>,
}

impl<'s> Lexer<'s, '_> {
    fn rest(&self) -> &'s str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn eat(&mut self, what: &str) -> bool {
        let found = self.rest().starts_with(what);
        if found {
            self.at += what.len();
        }
        found
    }

    fn eat_while(&mut self, mut keep: impl FnMut(char) -> bool) -> &'s str {
        let rest = self.rest();
        let len = rest.find(|c| !keep(c)).unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    fn span_from(&self, start: usize) -> Span {
        Span { start, end: self.at }
    }

    fn report(&mut self, diagnostic: Diagnostic) -> TokenKind<'s> {
        self.diags.push(diagnostic);
        TokenKind::Invalid
    }

    fn skip_blank(&mut self) -> Result<(), GaveUp> {
        loop {
            self.eat_while(is_blank);
            let start = self.at;
            if self.eat("//") {
                self.eat_while(|c| c != '\n');
            } else if self.eat("/*") {
                let mut depth = 1_usize;
                while depth > 0 {
                    self.eat_while(|c| !matches!(c, '/' | '*'));
                    if self.eat("/*") {
                        depth += 1;
                    } else if self.eat("*/") {
                        depth -= 1;
                    } else if self.bump().is_none() {
                        let opening = Span { start, end: start + 2 };
                        self.report(
                            Diagnostic::new("unclosed-comment", "this comment never ends")
                                .label(opening, "opened here")
                                .help("close it with `*/`; block comments nest, so each `/*` needs its own"),
                        );
                        return Err(GaveUp);
                    }
                }
            } else {
                return Ok(());
            }
        }
    }

    fn token(&mut self, c: char) -> Result<TokenKind<'s>, GaveUp> {
        let start = self.at;
        let simple = match c {
            '(' => Some(TokenKind::Open(Bracket::Round)),
            ')' => Some(TokenKind::Close(Bracket::Round)),
            '[' => Some(TokenKind::Open(Bracket::Square)),
            ']' => Some(TokenKind::Close(Bracket::Square)),
            '{' => Some(TokenKind::Open(Bracket::Curly)),
            '}' => Some(TokenKind::Close(Bracket::Curly)),
            ',' => Some(TokenKind::Comma),
            ':' => Some(TokenKind::Colon),
            '#' | '!' | '=' => Some(TokenKind::Punct(c)),
            _ => None,
        };
        if let Some(kind) = simple {
            self.bump();
            return Ok(kind);
        }
        if c == '"' {
            self.bump();
            return self.string(start);
        }
        if c == '\'' {
            self.bump();
            return Ok(match self.character(start) {
                Some(c) => TokenKind::Literal(Value::Char(c)),
                None => TokenKind::Invalid,
            });
        }
        if c.is_ascii_digit() || matches!(c, '+' | '-' | '.') {
            return Ok(self.number());
        }
        if let Some(kind) = self.prefixed(start)? {
            return Ok(kind);
        }
        if is_ident_start(c) {
            return Ok(self.ident(start));
        }
        self.bump();
        let help = match c {
            ';' => "items are separated by `,`",
            '“' | '”' | '„' | '‘' | '’' | '`' => "strings are written in straight quotes: \"...\"",
            '/' => "a comment is `// ...` to the end of the line, or `/* ... */`",
            '<' | '>' | '|' | '&' | '*' | '@' | '$' | '%' => "RON holds data: there are no operators in it",
            _ => "write such a character only in a string or a comment",
        };
        let span = self.span_from(start);
        Ok(self.report(
            Diagnostic::new("unexpected-character", format!("unexpected character `{}`", c.escape_debug()))
                .label(span, "")
                .help(help),
        ))
    }

    fn ident(&mut self, start: usize) -> TokenKind<'s> {
        self.eat_while(is_ident_continue);
        if self.eat_while(is_raw_ident).is_empty() {
            return TokenKind::Ident { text: &self.text[start..self.at], raw: false };
        }
        let (text, span) = (&self.text[start..self.at], self.span_from(start));
        self.report(
            Diagnostic::new("invalid-name", "a name has no `-`, `+` or `.` in it")
                .label(span, "")
                .help(format!("write `r#{text}`, or use `_`")),
        );
        // Reported; as a name it does no further harm.
        TokenKind::Ident { text, raw: true }
    }

    /// Raw names and strings, and everything that starts with `b` and a quote.
    fn prefixed(&mut self, start: usize) -> Result<Option<TokenKind<'s>>, GaveUp> {
        let rest = self.rest();
        if rest.starts_with("b'") {
            self.at += 2;
            let Some(c) = self.character(start) else {
                return Ok(Some(TokenKind::Invalid));
            };
            if c.is_ascii() {
                return Ok(Some(TokenKind::Literal(Value::Int(c as i64))));
            }
            let span = self.span_from(start);
            let invalid = Diagnostic::new("invalid-byte", "a byte literal holds one ASCII character").label(span, "");
            return Ok(Some(self.report(invalid)));
        }
        let after_r = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'));
        let is_raw = after_r.is_some_and(|s| s.trim_start_matches('#').starts_with('"'));
        let is_bytes = rest.starts_with("b\"") || (is_raw && rest.starts_with("br"));
        if is_raw {
            self.eat("b");
            self.eat("r");
            let hashes = self.eat_while(|c| c == '#');
            self.eat("\"");
            let ending = format!("\"{hashes}");
            let Some(len) = self.rest().find(&ending) else {
                let opening = self.span_from(start);
                self.report(
                    Diagnostic::new("unclosed-string", "this raw string never ends")
                        .label(opening, "opened here")
                        .help(format!("close it with `{ending}`")),
                );
                return Err(GaveUp);
            };
            let content = &self.rest()[..len];
            self.at += len + ending.len();
            if !is_bytes {
                return Ok(Some(TokenKind::Literal(Value::Str(content.into()))));
            }
        } else if is_bytes {
            self.at += 2;
            self.string(start)?;
        } else if let Some(name) = rest.strip_prefix("r#")
            && name.starts_with(is_raw_ident)
        {
            self.at += 2;
            let text = self.eat_while(is_raw_ident);
            return Ok(Some(TokenKind::Ident { text, raw: true }));
        } else {
            return Ok(None);
        }
        let span = self.span_from(start);
        let unsupported = Diagnostic::new("unsupported-byte-string", "byte strings mean nothing in a graph")
            .label(span, "")
            .help("drop the `b` to write a string, or write a list of integers");
        Ok(Some(self.report(unsupported)))
    }

    /// A string after its opening quote.
    fn string(&mut self, start: usize) -> Result<TokenKind<'s>, GaveUp> {
        let mut content = String::new();
        let mut sound = true;
        loop {
            content += self.eat_while(|c| !matches!(c, '"' | '\\'));
            match self.bump() {
                Some('"') => break,
                Some(_) if self.eat("\n") || self.eat("\r\n") => {
                    self.eat_while(|c| matches!(c, ' ' | '\t' | '\n' | '\r'));
                }
                Some(_) => match self.escape(true) {
                    Some(c) => content.push(c),
                    None => sound = false,
                },
                None => {
                    self.report_unending_string(start);
                    return Err(GaveUp);
                }
            }
        }
        let span = self.span_from(start);
        if self.text[start..self.at].contains('\n') {
            self.first_multiline.get_or_insert(span);
        }
        Ok(if sound { TokenKind::Literal(Value::Str(content)) } else { TokenKind::Invalid })
    }

    fn report_unending_string(&mut self, start: usize) {
        let opening = Span { start, end: start + 1 };
        let unclosed = Diagnostic::new("unclosed-string", "a string never ends");
        let unclosed = match self.first_multiline {
            // Where a closing quote is missing, the next string's opening quote closes it, and so on
            // to the end of the text: the place to look at is the first string that spans lines.
            Some(suspect) => unclosed
                .label(suspect, "this string runs over its line: is its closing quote missing?")
                .label(opening, "the quote that is left over"),
            None => unclosed.label(opening, "opened here"),
        };
        self.report(unclosed.help("close it with `\"`; a quote inside a string is written `\\\"`"));
    }

    /// A character literal after its opening quote. `None` where it was reported.
    fn character(&mut self, start: usize) -> Option<char> {
        let invalid = |span| {
            Diagnostic::new("invalid-char", "a character literal holds exactly one character")
                .label(span, "")
                .help("strings are written in double quotes: \"...\"")
        };
        let mut reported = false;
        let content = match self.bump() {
            Some('\\') => {
                let escaped = self.escape(false);
                reported = escaped.is_none();
                escaped
            }
            // `'''` is the quote itself, as the ron crate has it; `''` holds nothing.
            Some('\'') if !self.rest().starts_with('\'') => {
                let span = self.span_from(start);
                self.report(invalid(span));
                return None;
            }
            other => other,
        };
        if self.eat("'") {
            return content;
        }
        // Most likely a string in single quotes: take it whole if it ends on this line.
        let line = self.eat_while(|c| !matches!(c, '\'' | '\n'));
        if !self.eat("'") {
            self.at -= line.len();
        }
        if !reported {
            let span = self.span_from(start);
            self.report(invalid(span));
        }
        None
    }

    /// An escape after its backslash. `None` where it was reported. In strings, several `\x` may
    /// make up one UTF-8 character.
    fn escape(&mut self, in_string: bool) -> Option<char> {
        let start = self.at - 1;
        let problem = match self.bump() {
            Some(c @ ('\'' | '"' | '\\')) => return Some(c),
            Some('n') => return Some('\n'),
            Some('r') => return Some('\r'),
            Some('t') => return Some('\t'),
            Some('0') => return Some('\0'),
            Some('x') => match self.byte_escape(in_string) {
                Some(c) => return Some(c),
                None => "`\\x` takes two hexadecimal digits of a UTF-8 text",
            },
            Some('u') => match self.unicode_escape() {
                Some(c) => return Some(c),
                None => "`\\u{...}` takes one to six hexadecimal digits of a Unicode character",
            },
            _ => {
                "the escapes are \\\" \\' \\\\ \\n \\r \\t \\0 \\x7F and \\u{1F600}; a lone backslash is written `\\\\`"
            }
        };
        let span = self.span_from(start);
        self.report(Diagnostic::new("invalid-escape", "this escape has no meaning").label(span, "").help(problem));
        None
    }

    fn byte_escape(&mut self, in_string: bool) -> Option<char> {
        let mut bytes = Vec::with_capacity(4);
        loop {
            let digits = self.rest().get(..2)?;
            if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                return None;
            }
            self.at += 2;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            if let Ok(text) = std::str::from_utf8(&bytes) {
                return text.chars().next();
            }
            if !in_string || bytes.len() == 4 || !self.eat("\\x") {
                return None;
            }
        }
    }

    fn unicode_escape(&mut self) -> Option<char> {
        if !self.eat("{") {
            return None;
        }
        let digits = self.eat_while(|c| c.is_ascii_hexdigit());
        let value = (1..=6).contains(&digits.len()).then(|| u32::from_str_radix(digits, 16).ok())?;
        if !self.eat("}") {
            return None;
        }
        char::from_u32(value?)
    }

    fn number(&mut self) -> TokenKind<'s> {
        let start = self.at;
        if !self.eat("+") {
            self.eat("-");
        }
        let is_prefixed = self.rest().starts_with("0x");
        let mut previous = ' ';
        while let Some(c) = self.peek() {
            let part_of_it = match c {
                '.' => !self.rest().starts_with(".."),
                '+' | '-' => matches!(previous, 'e' | 'E') && !is_prefixed,
                _ => is_ident_continue(c),
            };
            if !part_of_it {
                break;
            }
            self.bump();
            previous = c;
        }
        let text = &self.text[start..self.at];
        if self.eat("..") {
            self.eat("=");
            self.eat_while(|c| is_ident_continue(c) || matches!(c, '.' | '+' | '-'));
            let span = self.span_from(start);
            let unsupported = Diagnostic::new("unsupported-range", "ranges mean nothing in a graph")
                .label(span, "")
                .help("write the two ends as two values");
            return self.report(unsupported);
        }
        match number::parse(text) {
            Ok(value) => TokenKind::Literal(value),
            Err(problem) => {
                let span = self.span_from(start);
                self.report(problem.label(span, ""))
            }
        }
    }
}

fn is_blank(c: char) -> bool {
    matches!(
        c,
        ' ' | '\t' | '\n' | '\r' | '\x0B' | '\x0C' | '\u{85}' | '\u{200E}' | '\u{200F}' | '\u{2028}' | '\u{2029}'
    )
}

// Unicode's XID_Start and XID_Continue, by the nearest classes that the standard library has.
fn is_ident_start(c: char) -> bool {
    c == '_' || c.is_alphabetic()
}
fn is_ident_continue(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}
fn is_raw_ident(c: char) -> bool {
    is_ident_continue(c) || matches!(c, '.' | '+' | '-')
}
