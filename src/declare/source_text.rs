//! A source text as messages draw it: its lines and columns, long lines cut, nothing in it that acts on a terminal.

use crate::ir::Span;
use miette::{MietteError, MietteSpanContents, SourceCode, SourceSpan, SpanContents};

/// A longer source line is drawn as a window around the label: a generated file that is one line
/// of a megabyte must not fill the screen.
const MAX_LINE_BYTES: usize = 240;
/// Bytes kept on either side of the label of such a line.
const WINDOW_MARGIN: usize = 60;

/// A named text with the starts of its lines. miette's own `NamedSource` counts columns in bytes,
/// scans the text from the start for every label and has no notion of an overlong line.
#[derive(Debug, Clone)]
pub struct SourceText {
    pub name: String,
    text: String,
    line_starts: Vec<usize>,
}

impl SourceText {
    pub fn new(name: String, text: String) -> Self {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(i, _)| i + 1)).collect();
        Self { name, text: disarmed(text), line_starts }
    }

    /// Whether two places can be drawn in one picture: what lies between them is not too long for it.
    pub fn are_near(&self, a: Span, b: Span) -> bool {
        let (first, last) = if a.start <= b.start { (a, b) } else { (b, a) };
        let (top, bottom) = (self.line_of(first.start), self.line_of(last.start));
        if top == bottom && !self.is_short(top) {
            return last.end.max(first.end) - first.start <= MAX_LINE_BYTES;
        }
        (top..=bottom).all(|line| self.is_short(line))
    }

    /// The 0-based line that holds a byte offset.
    fn line_of(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|&start| start <= offset) - 1
    }

    /// The bytes of a 0-based line, its line ending excluded.
    fn line_range(&self, line: usize) -> (usize, usize) {
        let start = self.line_starts[line];
        let end = match self.line_starts.get(line + 1) {
            Some(next) => next - 1,
            None => self.text.len(),
        };
        let end = start + self.text[start..end].trim_end_matches('\r').len();
        (start, end)
    }

    pub fn line_column(&self, offset: usize) -> (usize, usize) {
        let offset = floor_char(&self.text, offset);
        let line = self.line_of(offset);
        let column = self.text[self.line_starts[line]..offset].chars().count();
        (line + 1, column + 1)
    }

    /// Cuts a span to its first line, to the text, to what is shown of a long line, and to character boundaries.
    pub fn fit(&self, span: Span) -> Span {
        let start = floor_char(&self.text, span.start);
        let (_, line_end) = self.line_range(self.line_of(start));
        let end = ceil_char(&self.text, span.end).min(line_end).max(start);
        let end = if end - start > MAX_LINE_BYTES { floor_char(&self.text, start + MAX_LINE_BYTES) } else { end };
        Span { start, end }
    }
}

impl SourceCode for SourceText {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let start = span.offset();
        let end = start + span.len();
        if end > self.text.len() {
            return Err(MietteError::OutOfBounds);
        }
        let (first, last) = (self.line_of(start), self.line_of(end));
        let (line_start, line_end) = (self.line_starts[first], self.line_range(last).1);
        let (line, from, to) = if line_end - line_start > MAX_LINE_BYTES && first == last {
            let from = floor_char(&self.text, start.saturating_sub(WINDOW_MARGIN));
            let to = ceil_char(&self.text, end + WINDOW_MARGIN);
            (first, from.max(line_start), to.min(line_end).max(end))
        } else if before == 0 && after == 0 {
            (first, start, end)
        } else {
            let top = (first.saturating_sub(before)..=first).find(|&l| self.is_short(l)).unwrap_or(first);
            let bottom = (last..=(last + after).min(self.line_starts.len() - 1))
                .rev()
                .find(|&l| self.is_short(l))
                .unwrap_or(last);
            (top, self.line_starts[top], self.line_range(bottom).1)
        };
        let column = self.text[self.line_starts[self.line_of(start)]..start].chars().count();
        Ok(Box::new(MietteSpanContents::new_named(
            self.name.clone(),
            &self.text.as_bytes()[from..to],
            (from, to - from).into(),
            // miette asks for the position of a label with no lines around it.
            if before == 0 && after == 0 { first } else { line },
            column,
            last - first + 1,
        )))
    }
}

impl SourceText {
    /// Whether a line may be shown as the surroundings of another.
    fn is_short(&self, line: usize) -> bool {
        let (start, end) = self.line_range(line);
        end - start <= MAX_LINE_BYTES
    }
}

/// The nearest character boundary at or before `offset`.
fn floor_char(text: &str, offset: usize) -> usize {
    let mut at = offset.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// The nearest character boundary at or after `offset`.
fn ceil_char(text: &str, offset: usize) -> usize {
    let mut at = offset.min(text.len());
    while !text.is_char_boundary(at) {
        at += 1;
    }
    at
}

/// Whether a character acts on a terminal instead of being shown: control characters, and those that turn the
/// direction of the text around them.
pub fn acts(c: char) -> bool {
    (c.is_control() && !matches!(c, '\n' | '\t')) || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text of a user's for a message: what would act on a terminal is spelled out.
pub fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if acts(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

/// A source for drawing: what would act on a terminal gives way to as many bytes that do nothing, so that places
/// stay where they are.
fn disarmed(text: String) -> String {
    let harmless = |c: char| !acts(c) || c == '\r';
    if text.chars().all(harmless) {
        return text;
    }
    (text.chars())
        .map(|c| match c.len_utf8() {
            _ if harmless(c) => c,
            1 => '?',
            2 => '\u{b7}',
            _ => '\u{fffd}',
        })
        .collect()
}
