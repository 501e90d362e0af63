//! Named sizes and values, and the other numbers that a user puts in their place.

use super::Error;
use super::diagnostic::{Diagnostic, Span, closest};
use super::program::Program;
use super::ron::decode::{Decoder, OrName};
use super::ron::{Name, Node, Value};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// The numbers of a program. One whose declaration is wrong is there without a number: what is wrong is told
/// once, where it is declared.
#[derive(Debug, Default)]
pub struct Sizes {
    sizes: BTreeMap<String, Option<usize>>,
    values: BTreeMap<String, Option<f64>>,
    used: RefCell<BTreeSet<String>>,
    depth: usize,
}

/// A named number of a program.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    Size(usize),
    Value(f64),
}

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Number::Size(size) => write!(f, "{size}"),
            Number::Value(value) => write!(f, "{value:?}"),
        }
    }
}

/// Sizes are at most this: a tensor has less than 2³¹ elements.
const MAX: usize = i32::MAX as usize;
/// Sizes may depend on one another this far, so that a hostile text cannot exhaust the stack.
const MAX_DEPTH: usize = 200;

impl Sizes {
    /// Works out every size and value.
    ///
    /// # Errors
    /// When a `set` names nothing or is no fitting number. What is wrong with the text is reported to `d`.
    pub fn resolve(program: &Program, sets: &[String], d: &mut Decoder) -> Result<Sizes, Error> {
        let mut numbers = Sizes::default();
        for set in sets {
            numbers.set(program, set)?;
        }
        // Also where a `set` replaces what is written: a name is used or not by the text alone.
        program.sizes.iter().chain(&program.values).for_each(|(_, node)| numbers.mark(node));
        for (name, _) in &program.sizes {
            numbers.size_of(program, name, &mut Vec::new(), d);
        }
        for (name, _) in &program.values {
            numbers.value_of(program, name, &mut Vec::new(), d);
        }
        Ok(numbers)
    }

    /// Gives a size another number, without a change to those that were worked out from it.
    pub fn replace(&mut self, name: &str, size: usize) {
        self.sizes.insert(name.into(), Some(size));
    }

    /// Every number that there is, in the order of declaration, sizes first.
    pub fn list(&self, program: &Program) -> Vec<(String, Number)> {
        let sizes =
            program.sizes.iter().map(|(n, _)| (n, self.sizes.get(&n.text).copied().flatten().map(Number::Size)));
        let values =
            program.values.iter().map(|(n, _)| (n, self.values.get(&n.text).copied().flatten().map(Number::Value)));
        sizes.chain(values).filter_map(|(name, number)| Some((name.text.clone(), number?))).collect()
    }

    fn mark(&self, node: &Node) {
        match &node.value {
            Value::Str(name) => drop(self.used.borrow_mut().insert(name.clone())),
            Value::Tuple { items, .. } => items.iter().for_each(|item| self.mark(item)),
            _ => {}
        }
    }

    fn set(&mut self, program: &Program, set: &str) -> Result<(), Error> {
        let failed = |problem: String| Err(Error::Set(format!("--set {set}: {problem}")));
        let Some((name, number)) = set.split_once('=') else {
            return failed("`name=value` was expected, for instance --set batch=64".into());
        };
        let (name, number) = (name.trim(), number.trim());
        if program.sizes.iter().any(|(n, _)| n.text == name) {
            return match number.parse() {
                Ok(size @ 1..=MAX) => {
                    self.sizes.insert(name.into(), Some(size));
                    Ok(())
                }
                _ => failed(format!("`{name}` is a size, a whole number from 1 to {MAX}")),
            };
        }
        if program.values.iter().any(|(n, _)| n.text == name) {
            return match number.parse::<f64>() {
                Ok(value) if value.is_finite() && unheld(value).is_none() => {
                    self.values.insert(name.into(), Some(value));
                    Ok(())
                }
                Ok(value) if value.is_finite() => {
                    failed(unheld(value).unwrap_or_default().to_string() + "; numbers are f32")
                }
                _ => failed(format!("`{name}` is a number, for instance 1e-4")),
            };
        }
        let known: Vec<&str> = program.sizes.iter().chain(&program.values).map(|(n, _)| n.text.as_str()).collect();
        let hint = match closest(name, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.is_empty() => format!("`{}` has none", program.name),
            None => format!("`{}` has {}", program.name, known.join(", ")),
        };
        failed(format!("there is no size or value `{name}`; {hint}"))
    }

    fn size_of(&mut self, program: &Program, name: &Name, path: &mut Vec<String>, d: &mut Decoder) -> Option<usize> {
        if let Some(&size) = self.sizes.get(&name.text) {
            return size;
        }
        let Some((_, node)) = program.sizes.iter().find(|(n, _)| n.text == name.text) else {
            unknown(d, "size", name, &program.sizes);
            return None;
        };
        let mut size = None;
        if path.contains(&name.text) {
            cycle(d, "size", path, &name.text, name.span);
        } else {
            path.push(name.text.clone());
            size = self.computed(program, node, path, d).and_then(|size| in_range(size, node.span, d));
            path.pop();
        }
        self.sizes.insert(name.text.clone(), size);
        size
    }

    /// A number, the name of a size, or arithmetic on these.
    fn computed(&mut self, program: &Program, node: &Node, path: &mut Vec<String>, d: &mut Decoder) -> Option<i64> {
        if self.depth >= MAX_DEPTH {
            let message = format!("sizes depend on one another more than {MAX_DEPTH} deep");
            d.report(Diagnostic::new("too-large", message).label(node.span, "too large from here on"));
            return None;
        }
        self.depth += 1;
        let size = self.computed_below(program, node, path, d);
        self.depth -= 1;
        size
    }

    fn computed_below(
        &mut self,
        program: &Program,
        node: &Node,
        path: &mut Vec<String>,
        d: &mut Decoder,
    ) -> Option<i64> {
        let Some((op, items)) = arithmetic(node) else {
            return match &node.value {
                Value::Int(_) | Value::Str(_) => match d.usize_or_name(node, "a size")? {
                    OrName::Value(size) => i64::try_from(size).ok(),
                    OrName::Name { text, span } => {
                        self.size_of(program, &Name { text: text.into(), span }, path, d).map(|size| size as i64)
                    }
                },
                _ => {
                    d.wrong_type(node, "a size", FORMS);
                    None
                }
            };
        };
        let sizes: Vec<Option<i64>> = items.iter().map(|item| self.computed(program, item, path, d)).collect();
        combined(node, op, sizes, d)
    }

    fn value_of(&mut self, program: &Program, name: &Name, path: &mut Vec<String>, d: &mut Decoder) -> Option<f64> {
        if let Some(&value) = self.values.get(&name.text) {
            return value;
        }
        let Some((_, node)) = program.values.iter().find(|(n, _)| n.text == name.text) else {
            unknown(d, "value", name, &program.values);
            return None;
        };
        let mut value = None;
        if path.contains(&name.text) {
            cycle(d, "value", path, &name.text, name.span);
        } else if path.len() >= MAX_DEPTH {
            let message = format!("values depend on one another more than {MAX_DEPTH} deep");
            d.report(Diagnostic::new("too-large", message).label(node.span, "too large from here on"));
        } else {
            path.push(name.text.clone());
            value = match d.f64_or_name(node, "a value") {
                Some(OrName::Value(value)) => held(value, node.span, d),
                Some(OrName::Name { text, span }) => self.value_of(program, &Name { text: text.into(), span }, path, d),
                None => None,
            };
            path.pop();
        }
        self.values.insert(name.text.clone(), value);
        value
    }

    /// A whole number given in the text, also a negative one: a number, the name of a size, or arithmetic on these.
    pub fn integer(&self, program: &Program, node: &Node, what: &str, d: &mut Decoder) -> Option<i64> {
        if let Some((op, items)) = arithmetic(node) {
            let each = format!("an operand of `{}` in {what}", op.0);
            let numbers = items.iter().map(|item| self.integer(program, item, &each, d)).collect();
            return combined(node, op, numbers, d);
        }
        match &node.value {
            Value::Int(x) => Some(*x),
            Value::Str(_) => self.size(program, node, what, d).map(|size| size as i64),
            _ => {
                d.wrong_type(
                    node,
                    what,
                    "a whole number, the name of a size in quotes, or arithmetic such as `Mul(a, b)`",
                );
                None
            }
        }
    }

    /// A size given in the text: a number, the name of one, or arithmetic on these.
    pub fn size(&self, program: &Program, node: &Node, what: &str, d: &mut Decoder) -> Option<usize> {
        if arithmetic(node).is_some() {
            let size = self.integer(program, node, what, d)?;
            return in_range(size, node.span, d);
        }
        match d.usize_or_name(node, what)? {
            OrName::Value(size) => in_range(i64::try_from(size).unwrap_or(i64::MAX), node.span, d),
            OrName::Name { text, span } => {
                self.used.borrow_mut().insert(text.into());
                if let Some(&size) = self.sizes.get(text) {
                    return size;
                }
                unknown(d, "size", &Name { text: text.into(), span }, &program.sizes);
                None
            }
        }
    }

    /// A list of sizes given in the text.
    pub fn shape(&self, program: &Program, node: &Node, what: &str, d: &mut Decoder) -> Option<Vec<usize>> {
        let items = d.list(node, what)?;
        let sizes: Vec<Option<usize>> = items.iter().map(|item| self.size(program, item, "a size", d)).collect();
        sizes.into_iter().collect()
    }

    /// A number given in the text.
    pub fn number(&self, program: &Program, node: &Node, what: &str, d: &mut Decoder) -> Option<f64> {
        match d.f64_or_name(node, what)? {
            OrName::Value(value) => held(value, node.span, d),
            OrName::Name { text, span } => {
                let value = self.named_number(text);
                if value.is_none() && !self.is_declared(text) {
                    unknown(d, "value", &Name { text: text.into(), span }, &program.values);
                }
                value
            }
        }
    }

    /// Whether a size or value is called so, also one whose declaration is wrong.
    pub fn is_declared(&self, name: &str) -> bool {
        self.values.contains_key(name) || self.sizes.contains_key(name)
    }

    /// A value, or a size as a number.
    pub fn named_number(&self, name: &str) -> Option<f64> {
        self.used.borrow_mut().insert(name.into());
        let value = self.values.get(name).copied().flatten();
        value.or_else(|| self.sizes.get(name).copied().flatten().map(|size| size as f64))
    }

    /// Reports what is declared and never used.
    pub fn report_unused(&self, program: &Program, d: &mut Decoder) {
        for (what, names) in [("size", &program.sizes), ("value", &program.values)] {
            for (name, _) in names.iter().filter(|(name, _)| !self.used.borrow().contains(&name.text)) {
                unused(d, what, &name.text, name.span);
            }
        }
    }
}

/// Why f32 cannot hold a number, where it can't: it would become infinite, or 0.
fn unheld(value: f64) -> Option<&'static str> {
    match value as f32 {
        near if near.is_infinite() && value.is_finite() => {
            Some("this number is too large: the largest is about 3.4e38")
        }
        near if near == 0.0 && value != 0.0 => Some("this number is too small: the smallest is about 1.4e-45"),
        _ => None,
    }
}

/// The number, where f32 can hold it; reports it where not.
pub fn held(value: f64, span: Span, d: &mut Decoder) -> Option<f64> {
    let Some(problem) = unheld(value) else { return Some(value) };
    let label = format!("as f32 it would be {:?}", value as f32);
    d.report(Diagnostic::new("number-out-of-range", problem).label(span, label));
    None
}

/// What sizes are made of.
const FORMS: &str = "a whole number, the name of a size in quotes, or `Add`, `Sub`, `Mul` or `Div` of sizes";

/// The name of an operation on sizes, and what it makes of two; `None` for a division by 0.
type Arithmetic = (&'static str, fn(i64, i64) -> Option<i64>);

/// Operations on sizes. A division rounds down.
const ARITHMETIC: [Arithmetic; 4] = [
    ("Add", |a, b| Some(a.saturating_add(b))),
    ("Sub", |a, b| Some(a.saturating_sub(b))),
    ("Mul", |a, b| Some(a.saturating_mul(b))),
    ("Div", |a, b| {
        if b == 0 { None } else { Some(a.saturating_div(b) - i64::from(a.wrapping_rem(b) != 0 && (a < 0) != (b < 0))) }
    }),
];

/// The operation on sizes that an expression is, and its operands.
fn arithmetic(node: &Node) -> Option<(Arithmetic, &[Node])> {
    let Value::Tuple { name: Some(name), items } = &node.value else { return None };
    Some((*ARITHMETIC.iter().find(|(op, _)| *op == name.text)?, items))
}

/// An operation on sizes that were read, from the left on; reports what cannot be computed.
fn combined(node: &Node, (name, op): Arithmetic, sizes: Vec<Option<i64>>, d: &mut Decoder) -> Option<i64> {
    let sizes: Vec<i64> = sizes.into_iter().collect::<Option<_>>()?;
    let Some((&first, rest)) = sizes.split_first().filter(|(_, rest)| !rest.is_empty()) else {
        let diagnostic = Diagnostic::new("wrong-arguments", format!("`{name}` of sizes takes at least 2"));
        d.report(diagnostic.label(node.span, format!("{} given", sizes.len())));
        return None;
    };
    let total = rest.iter().try_fold(first, |a, &b| op(a, b));
    if total.is_none() {
        d.report(Diagnostic::new("bad-size", "a division by 0").label(node.span, "in this"));
    }
    total
}

fn in_range(size: i64, span: Span, d: &mut Decoder) -> Option<usize> {
    if let Some(size) = usize::try_from(size).ok().filter(|size| (1..=MAX).contains(size)) {
        return Some(size);
    }
    let message = match size {
        0 => "a size cannot be 0",
        ..0 => "a size cannot be negative",
        _ => "this size is too large",
    };
    d.report(Diagnostic::new("bad-size", message).label(span, format!("expected a whole number from 1 to {MAX}")));
    None
}

fn unknown(d: &mut Decoder, what: &str, name: &Name, known: &[(Name, &Node)]) {
    let known: Vec<&str> = known.iter().map(|(n, _)| n.text.as_str()).collect();
    d.report(
        Diagnostic::new("unknown-name", format!("there is no {what} `{}`", name.text))
            .label(name.span, "not declared")
            .suggest(&name.text, &known),
    );
}

/// Warns of what is declared and never used, except where its name starts with `_`.
pub fn unused(d: &mut Decoder, what: &str, name: &str, span: Span) {
    if name.starts_with('_') {
        return;
    }
    d.warn(
        Diagnostic::new("unused", format!("the {what} `{name}` is never used"))
            .label(span, "declared here")
            .help("use it or remove it"),
    );
}

/// Reports declarations that need each other.
pub fn cycle(d: &mut Decoder, what: &str, path: &[String], name: &str, span: Span) {
    let start = path.iter().position(|p| p == name).unwrap_or(0);
    let path: Vec<String> = path[start..].iter().chain([&name.to_string()]).map(|n| format!("`{n}`")).collect();
    d.report(Diagnostic::new("cycle", format!("the {what} `{name}` depends on itself")).label(span, path.join(" → ")));
}
