//! Typed access to a tree of values, for lowering: each mistake becomes a diagnostic that points at
//! the value and says what was expected, and decoding goes on so that several are found.
//!
//! ```
//! use gcc_gan::declare::ron::{decode::Decoder, parse};
//!
//! let node = parse("Dense(300, bias: false)").unwrap_err(); // named or by position, not both
//! assert_eq!(node[0].code, "mixed-arguments");
//!
//! let node = parse("Dense(units: 300)").unwrap();
//! let mut d = Decoder::default();
//! let (name, mut args) = d.call(&node, "a layer").unwrap();
//! let units = args.required(&mut d, "units").and_then(|n| d.usize(n, "the number of units"));
//! let bias = args.optional("bias").and_then(|n| d.bool(n, "`bias`")).unwrap_or(true);
//! args.finish(&mut d);
//! assert_eq!((name.text.as_str(), units, bias), ("Dense", Some(300), true));
//! assert!(d.diags.is_empty());
//! ```

use super::value::{Name, Node, Value};
use crate::declare::diagnostic::{Diagnostic, Span, closest, one_of};

/// Integers up to here are exact as `f64`, too.
const MAX_SIZE: i64 = 1 << 53;

/// Collects what is wrong while values are decoded. Each method returns `None` where it reported
/// something. `what` names the value in the message, as in "`bias` must be true or false".
#[derive(Debug, Default)]
pub struct Decoder {
    pub diags: Vec<Diagnostic>,
    /// What does not keep the text from being used.
    pub warnings: Vec<Diagnostic>,
}

/// A value given outright, or by the name of something declared elsewhere.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum OrName<'n, T> {
    Value(T),
    Name { text: &'n str, span: Span },
}

impl Decoder {
    /// Adds a diagnostic.
    pub fn report(&mut self, diagnostic: Diagnostic) {
        self.diags.push(diagnostic);
    }

    /// Adds a warning.
    pub fn warn(&mut self, diagnostic: Diagnostic) {
        self.warnings.push(diagnostic.warning());
    }

    /// Reports that a value is of the wrong kind.
    pub fn wrong_type(&mut self, node: &Node, what: &str, expected: &str) {
        self.report(
            Diagnostic::new("wrong-type", format!("{what} must be {expected}"))
                .label(node.span, format!("this is {}", describe(node))),
        );
    }

    pub fn bool(&mut self, node: &Node, what: &str) -> Option<bool> {
        match node.value {
            Value::Bool(x) => Some(x),
            _ => {
                self.wrong_type(node, what, "true or false");
                None
            }
        }
    }

    pub fn int(&mut self, node: &Node, what: &str) -> Option<i64> {
        match node.value {
            Value::Int(x) => Some(x),
            _ => {
                self.wrong_type(node, what, "an integer");
                None
            }
        }
    }

    /// A number that is not negative.
    pub fn usize(&mut self, node: &Node, what: &str) -> Option<usize> {
        match node.value {
            Value::Int(x) => self.size(x, node.span, what),
            _ => {
                self.wrong_type(node, what, "a whole number");
                None
            }
        }
    }

    fn size(&mut self, x: i64, span: Span, what: &str) -> Option<usize> {
        match usize::try_from(x) {
            Ok(size) if x <= MAX_SIZE => Some(size),
            _ => {
                let problem = if x < 0 { "negative" } else { "so large" };
                self.report(
                    Diagnostic::new("number-out-of-range", format!("{what} cannot be {problem}"))
                        .label(span, format!("expected a whole number from 0 to {MAX_SIZE}")),
                );
                None
            }
        }
    }

    /// A float, or an integer taken as one.
    pub fn f64(&mut self, node: &Node, what: &str) -> Option<f64> {
        match node.value {
            Value::Float(x) => Some(x),
            Value::Int(x) => Some(x as f64),
            _ => {
                self.wrong_type(node, what, "a number");
                None
            }
        }
    }

    pub fn str<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
        match &node.value {
            Value::Str(x) => Some(x),
            Value::Unit { name: Some(name) } => {
                self.report(
                    Diagnostic::new("wrong-type", format!("{what} must be a string"))
                        .label(node.span, "this name stands without quotes")
                        .help(format!("write \"{}\"", name.text)),
                );
                None
            }
            _ => {
                self.wrong_type(node, what, "a string");
                None
            }
        }
    }

    /// A list, or a tuple without a name, which people write for sizes: `(28, 28)`.
    pub fn list<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n [Node]> {
        match &node.value {
            Value::List(items) | Value::Tuple { name: None, items } => Some(items),
            Value::Unit { name: None } => Some(&[]),
            _ => {
                self.wrong_type(node, what, "a list `[...]`");
                None
            }
        }
    }

    /// A map. Its keys are any values.
    pub fn map<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n [(Node, Node)]> {
        match &node.value {
            Value::Map(entries) => Some(entries),
            _ => {
                self.wrong_type(node, what, "a map `{key: value}`");
                None
            }
        }
    }

    /// A map from strings: names in the order written.
    pub fn named_map<'n>(&mut self, node: &'n Node, what: &str) -> Option<Vec<(Name, &'n Node)>> {
        let entries = self.map(node, what)?;
        let mut named = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            if let Some(text) = self.str(key, &format!("a key of {what}")) {
                let name = Name { text: text.to_owned(), span: key.span };
                named.push((name, value));
            }
        }
        Some(named)
    }

    /// `Some(x)` or `None`.
    pub fn option<'n>(&mut self, node: &'n Node, what: &str) -> Option<Option<&'n Node>> {
        match &node.value {
            Value::Unit { name: Some(name) } if name.text == "None" => Some(None),
            Value::Tuple { name: Some(name), items } if name.text == "Some" => Some(items.first()),
            _ => {
                self.wrong_type(node, what, "`Some(...)` or `None`");
                None
            }
        }
    }

    /// One of several words, written as a name (`Training`) or as a string.
    pub fn choice<T: Copy>(&mut self, node: &Node, what: &str, table: &[(&str, T)]) -> Option<T> {
        let words: Vec<&str> = table.iter().map(|(word, _)| *word).collect();
        let word = match &node.value {
            Value::Unit { name: Some(name) } => &name.text,
            Value::Str(text) => text,
            _ => {
                self.wrong_type(node, what, &one_of(&words));
                return None;
            }
        };
        let found = table.iter().find(|(w, _)| w == word).map(|(_, value)| *value);
        if found.is_none() {
            self.report(
                Diagnostic::new("unknown-choice", format!("{what} cannot be `{word}`"))
                    .label(node.span, format!("expected {}", one_of(&words)))
                    .did_you_mean(word, &words),
            );
        }
        found
    }

    /// A size: a number, or in quotes the name of one.
    pub fn usize_or_name<'n>(&mut self, node: &'n Node, what: &str) -> Option<OrName<'n, usize>> {
        match &node.value {
            Value::Int(x) => self.size(*x, node.span, what).map(OrName::Value),
            Value::Str(text) => Some(OrName::Name { text, span: node.span }),
            _ => {
                self.not_a_number_or_name(node, what, "a whole number");
                None
            }
        }
    }

    /// A number, or in quotes the name of one.
    pub fn f64_or_name<'n>(&mut self, node: &'n Node, what: &str) -> Option<OrName<'n, f64>> {
        match &node.value {
            Value::Int(x) => Some(OrName::Value(*x as f64)),
            Value::Float(x) => Some(OrName::Value(*x)),
            Value::Str(text) => Some(OrName::Name { text, span: node.span }),
            _ => {
                self.not_a_number_or_name(node, what, "a number");
                None
            }
        }
    }

    fn not_a_number_or_name(&mut self, node: &Node, what: &str, number: &str) {
        if let Value::Unit { name: Some(name) } = &node.value {
            self.report(
                Diagnostic::new("wrong-type", format!("{what} must be {number} or the name of one in quotes"))
                    .label(node.span, "this name stands without quotes")
                    .help(format!("write \"{}\"", name.text)),
            );
        } else {
            self.wrong_type(node, what, &format!("{number} or the name of one in quotes"));
        }
    }

    /// Something with a name: `Name`, `Name(...)` by position or by field.
    pub fn call<'n>(&mut self, node: &'n Node, what: &str) -> Option<(&'n Name, Args<'n>)> {
        let Some(name) = node.name() else {
            self.wrong_type(node, what, "written `Name(...)`");
            return None;
        };
        Some((name, Args::new(format!("`{}`", name.text), node)))
    }

    /// A struct with named fields, with or without a name in front. `()` has no fields.
    pub fn fields<'n>(&mut self, node: &'n Node, what: &str) -> Option<Args<'n>> {
        match &node.value {
            Value::Struct { .. } | Value::Unit { name: None } => Some(Args::new(what.to_owned(), node)),
            Value::Tuple { items, .. } if items.is_empty() => Some(Args::new(what.to_owned(), node)),
            _ => {
                self.wrong_type(node, what, "written `(field: value, ...)`");
                None
            }
        }
    }
}

/// The arguments of a call, taken one after the other by [`Args::required`] and [`Args::optional`].
///
/// Where they are given by position, the n-th to be asked for is the n-th given; so ask in the
/// documented order. [`Args::finish`] reports those that nobody asked for.
#[derive(Debug)]
#[must_use = "`finish` reports unknown arguments"]
pub struct Args<'n> {
    what: String,
    /// Where a missing argument is reported: the name, or the first bracket.
    head: Span,
    given: Given<'n>,
    /// The names asked for so far.
    asked: Vec<&'static str>,
    /// The required ones that were not given, as reported.
    missing: Vec<(&'static str, Diagnostic)>,
}

#[derive(Debug)]
enum Given<'n> {
    Named(&'n [(Name, Node)]),
    Positional(&'n [Node]),
}

impl<'n> Args<'n> {
    fn new(what: String, node: &'n Node) -> Self {
        let (name, given) = match &node.value {
            Value::Struct { name, fields } => (name.as_ref(), Given::Named(fields)),
            Value::Tuple { name, items } => (name.as_ref(), Given::Positional(items)),
            Value::Unit { name } => (name.as_ref(), Given::Positional(&[])),
            _ => (None, Given::Positional(&[])),
        };
        let bracket = Span { start: node.span.start, end: node.span.start + 1 };
        Self { what, head: name.map_or(bracket, |n| n.span), given, asked: Vec::new(), missing: Vec::new() }
    }

    /// Where the call's name stands (or its opening bracket).
    pub fn head(&self) -> Span {
        self.head
    }

    /// How many arguments were given.
    pub fn len(&self) -> usize {
        match self.given {
            Given::Named(fields) => fields.len(),
            Given::Positional(items) => items.len(),
        }
    }

    /// Whether no argument was given.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An argument that may be left out.
    pub fn optional(&mut self, name: &'static str) -> Option<&'n Node> {
        let position = self.asked.len();
        self.asked.push(name);
        match self.given {
            Given::Named(fields) => fields.iter().find(|(field, _)| field.text == name).map(|(_, value)| value),
            Given::Positional(items) => items.get(position),
        }
    }

    /// An argument that must be given.
    pub fn required(&mut self, d: &mut Decoder, name: &'static str) -> Option<&'n Node> {
        let found = self.optional(name);
        if found.is_none() {
            let missing = Diagnostic::new("missing-field", format!("{} lacks its `{name}`", self.what))
                .label(self.head, format!("expected `{name}: ...`"));
            d.report(missing.clone());
            self.missing.push((name, missing));
        }
        found
    }

    /// Reports every argument that was not asked for. Where one looks like a misspelt required one,
    /// the report that the latter is missing is taken back.
    pub fn finish(self, d: &mut Decoder) {
        match self.given {
            Given::Named(fields) => {
                for (name, _) in fields {
                    if self.asked.contains(&name.text.as_str()) {
                        continue;
                    }
                    for (missing, report) in &self.missing {
                        if closest(&name.text, [*missing]).is_some() {
                            d.diags.retain(|given| given != report);
                        }
                    }
                    let allowed = match self.asked.as_slice() {
                        [] => "it takes none".to_owned(),
                        asked => format!("expected {}", one_of(asked)),
                    };
                    let given = |known: &str| fields.iter().any(|(field, _)| field.text == known);
                    let free: Vec<&str> = self.asked.iter().copied().filter(|known| !given(known)).collect();
                    d.report(
                        Diagnostic::new("unknown-field", format!("{} has no argument `{}`", self.what, name.text))
                            .label(name.span, allowed)
                            .did_you_mean(&name.text, &free),
                    );
                }
            }
            Given::Positional(items) => {
                if let Some(extra) = items.get(self.asked.len()) {
                    let takes = match self.asked.as_slice() {
                        [] => "it takes none".to_owned(),
                        asked => format!("it takes {}, in this order", all_of(asked)),
                    };
                    d.report(
                        Diagnostic::new("too-many-arguments", format!("{} has too many arguments", self.what))
                            .label(extra.span, "this is one too many")
                            .help(takes),
                    );
                }
            }
        }
    }
}

fn all_of(names: &[&str]) -> String {
    one_of(names).replace(" or ", " and ")
}

/// What a value is, in words.
pub fn describe(node: &Node) -> String {
    match &node.value {
        Value::Bool(x) => format!("`{x}`"),
        Value::Int(x) => format!("the integer {x}"),
        Value::Float(x) => format!("the float {x:?}"),
        Value::Str(_) => "a string".into(),
        Value::Char(_) => "a character".into(),
        Value::List(_) => "a list".into(),
        Value::Map(_) => "a map".into(),
        Value::Unit { name: None } => "the empty tuple".into(),
        Value::Unit { name: Some(name) } => format!("the name `{}`", name.text),
        Value::Struct { name: Some(name), .. } | Value::Tuple { name: Some(name), .. } => {
            format!("`{}(...)`", name.text)
        }
        Value::Struct { name: None, .. } => "a struct".into(),
        Value::Tuple { name: None, .. } => "a tuple".into(),
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
