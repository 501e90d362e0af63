//! Diagnostics of the graph language: what is wrong, where in the user's text, and how to fix it.
//!
//! Readers and lowering collect [`Diagnostic`]s and go on as far as they can; [`Diagnostics`] then
//! binds them to the source they speak of and draws them with miette: file, line and column, the
//! line itself underlined, and a help text.

use std::fmt;

use super::source_text::SourceText;
use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, SourceCode, SourceSpan};

pub use super::source_text::escaped;
pub use crate::ir::Span;

/// At most this many diagnostics are drawn; the rest is counted in one closing line.
pub const MAX_SHOWN: usize = 20;

/// Whether a program can be used in spite of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Error,
    Warning,
}

/// One thing that is wrong with a declaration.
#[derive(Debug, Clone, PartialEq)]
pub struct Diagnostic {
    /// A stable kebab-case name of the kind of error, such as `unknown-op`: what tests, scripts and
    /// documentation refer to.
    pub code: &'static str,
    pub severity: Severity,
    /// One sentence without a full stop.
    pub message: String,
    /// Where, with a label for each place. The first one gives the position that is reported.
    pub labels: Vec<(Span, String)>,
    /// What was expected, or how to fix it.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A diagnostic with no place yet.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, severity: Severity::Error, message: message.into(), labels: Vec::new(), help: None }
    }

    /// Makes a warning of it.
    #[must_use]
    pub fn warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    /// Adds a place. An empty `text` underlines without a word.
    #[must_use]
    pub fn label(mut self, span: Span, text: impl Into<String>) -> Self {
        self.labels.push((span, text.into()));
        self
    }

    /// Says what was expected, or how to fix it.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }

    /// Proposes the candidate that `name` was most likely meant to be, if one is near.
    #[must_use]
    pub fn did_you_mean(self, name: &str, candidates: &[&str]) -> Self {
        match closest(name, candidates.iter().copied()) {
            Some(near) => self.help(format!("did you mean `{near}`?")),
            None => self,
        }
    }

    /// As [`Diagnostic::did_you_mean`], but lists all candidates where none is near.
    #[must_use]
    pub fn suggest(self, name: &str, candidates: &[&str]) -> Self {
        let proposed = self.did_you_mean(name, candidates);
        if proposed.help.is_some() || candidates.is_empty() {
            return proposed;
        }
        proposed.help(format!("expected {}", one_of(candidates)))
    }

    /// The span of the first label.
    pub fn span(&self) -> Option<Span> {
        self.labels.first().map(|(span, _)| *span)
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Diagnostic {}

impl miette::Diagnostic for Diagnostic {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.code))
    }

    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|text| Box::new(text) as Box<dyn fmt::Display + 'a>)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(self.labels.iter().enumerate().map(|(i, (span, text))| {
            let text = (!text.is_empty()).then(|| text.clone());
            let range = SourceSpan::from((span.start, span.end.saturating_sub(span.start)));
            if i == 0 {
                LabeledSpan::new_primary_with_span(text, range)
            } else {
                LabeledSpan::new_with_span(text, range)
            }
        })))
    }
}

/// Everything that is wrong with one source text, in the order of the text.
///
/// `Display` is one line, as for any error; [`Diagnostics::render`] draws the whole.
#[derive(Clone)]
pub struct Diagnostics {
    source: SourceText,
    /// Sorted by position.
    entries: Vec<Diagnostic>,
}

impl Diagnostics {
    /// Binds diagnostics to the source they speak of. `name` is shown as the file name.
    ///
    /// Labels are made to fit the text: a span that crosses lines keeps its first line, so that an
    /// error about a forty-line block does not print forty lines, and a span outside the text (a bug
    /// of ours, but no reason to crash while reporting an error) is moved to its end.
    pub fn new(name: impl Into<String>, text: impl Into<String>, mut entries: Vec<Diagnostic>) -> Self {
        let source = SourceText::new(escaped(&name.into()), text.into());
        for entry in &mut entries {
            entry.message = escaped(&entry.message);
            entry.help = entry.help.take().map(|help| escaped(&help));
            for (span, text) in &mut entry.labels {
                *span = source.fit(*span);
                *text = escaped(text);
            }
        }
        entries.sort_by_key(|d| d.span().map_or(0, |s| s.start));
        Self { source, entries }
    }

    /// The diagnostics, sorted by position.
    pub fn entries(&self) -> &[Diagnostic] {
        &self.entries
    }

    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The same with every warning as an error.
    #[must_use]
    pub fn denied(mut self) -> Self {
        self.entries.iter_mut().for_each(|d| d.severity = Severity::Error);
        self
    }

    /// The name the source was given.
    pub fn source_name(&self) -> &str {
        &self.source.name
    }

    /// The 1-based line and column (in characters) of a byte offset.
    pub fn line_column(&self, offset: usize) -> (usize, usize) {
        self.source.line_column(offset)
    }

    /// Draws the diagnostics for a writer `width` columns wide. `terminal` chooses colour and box
    /// characters; without it the text is plain ASCII apart from what the source itself holds.
    pub fn render(&self, width: usize, terminal: bool) -> String {
        let theme = if terminal { GraphicalTheme::unicode() } else { GraphicalTheme::none() };
        let handler = GraphicalReportHandler::new_themed(theme)
            .with_width(width.max(20))
            .with_links(false)
            .without_syntax_highlighting();
        let mut out = String::new();
        for entry in self.entries.iter().take(MAX_SHOWN) {
            let view = Located { entry, source: &self.source };
            if handler.render_report(&mut out, &view).is_err() {
                // Drawing failed, which no input should bring about: the bare facts still go out.
                let (line, column) = self.line_column(entry.span().map_or(0, |s| s.start));
                out += &format!("{}:{line}:{column}: {}: {entry}\n", self.source.name, entry.code);
            }
            out.push('\n');
        }
        let hidden = self.entries.len().saturating_sub(MAX_SHOWN);
        if hidden > 0 {
            out += &format!("and {hidden} more\n");
        }
        // miette pads some empty lines.
        out.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.entries.first() else {
            return write!(f, "{}: no errors", self.source.name);
        };
        let (line, column) = self.line_column(first.span().map_or(0, |s| s.start));
        write!(f, "{}:{line}:{column}: {first}", self.source.name)?;
        match self.entries.len() - 1 {
            0 => Ok(()),
            more => write!(f, " (and {more} more)"),
        }
    }
}

/// The drawing, so that `unwrap()` in a test shows something a person can read.
impl fmt::Debug for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\n")?;
        f.write_str(&self.render(100, false))
    }
}

impl std::error::Error for Diagnostics {}

impl miette::Diagnostic for Diagnostics {
    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.source)
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn miette::Diagnostic> + 'a>> {
        Some(Box::new(self.entries.iter().map(|d| d as &dyn miette::Diagnostic)))
    }
}

/// A diagnostic with its source, which is what miette draws.
#[derive(Debug)]
struct Located<'a> {
    entry: &'a Diagnostic,
    source: &'a SourceText,
}

impl fmt::Display for Located<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.entry.fmt(f)
    }
}

impl std::error::Error for Located<'_> {}

impl Located<'_> {
    /// Whether the label of this number is drawn: it must fit in one picture with the first.
    fn is_drawn(&self, number: usize) -> bool {
        let labels = &self.entry.labels;
        self.source.are_near(labels[0].0, labels[number].0)
    }
}

impl miette::Diagnostic for Located<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        miette::Diagnostic::code(self.entry)
    }
    fn severity(&self) -> Option<miette::Severity> {
        miette::Diagnostic::severity(self.entry)
    }
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        let far =
            (self.entry.labels.iter().enumerate()).filter(|(i, _)| !self.is_drawn(*i)).map(|(_, (span, text))| {
                let (line, column) = self.source.line_column(span.start);
                format!("{}:{line}:{column}: {text}", self.source.name)
            });
        let lines: Vec<String> = far.chain(self.entry.help.clone()).collect();
        (!lines.is_empty()).then(|| Box::new(lines.join("\n")) as Box<dyn fmt::Display + 'a>)
    }
    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let labels = miette::Diagnostic::labels(self.entry)?;
        Some(Box::new(labels.enumerate().filter(|(i, _)| self.is_drawn(*i)).map(|(_, label)| label)))
    }
    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(self.source)
    }
}

/// "`a`", "`a` or `b`", "`a`, `b` or `c`".
pub fn one_of(names: &[&str]) -> String {
    match names {
        [] => "nothing".into(),
        [only] => format!("`{only}`"),
        [rest @ .., last] => {
            let rest: Vec<String> = rest.iter().map(|n| format!("`{n}`")).collect();
            format!("{} or `{last}`", rest.join(", "))
        }
    }
}

/// The candidate that `name` was most likely meant to be: the nearest within a third of its length
/// in edits (at least one), upper and lower case taken as equal. Ties go to the earlier candidate.
///
/// An edit is an insertion, a deletion, a substitution or a swap of neighbours (the optimal string
/// alignment distance).
pub fn closest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Longer names are no typing errors of ours; the table is quadratic.
    const MAX_CHARS: usize = 64;
    let fold = |s: &str| -> String { s.chars().flat_map(char::to_lowercase).collect() };
    let name = fold(name);
    let length = name.chars().count();
    if length == 0 || length > MAX_CHARS {
        return None;
    }
    let limit = (length / 3).max(1);
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let folded = fold(candidate);
            let other = folded.chars().count();
            let near = other <= MAX_CHARS && other.abs_diff(length) <= limit;
            let distance = near.then(|| strsim::osa_distance(&name, &folded))?;
            // A one-letter name shares nothing with another one-letter name.
            let allowed = distance <= limit && distance < length.max(other);
            allowed.then_some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
#[path = "diagnostic_tests.rs"]
mod tests;
