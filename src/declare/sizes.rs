//! Named sizes and values, and the other numbers that a user puts in their place.

use super::Error;
use super::decode::{Decoder, OrName};
use super::diagnostic::{Diagnostic, Span, closest};
use super::program::Program;
use super::syntax::{Name, Node, Value};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// The numbers of a program.
#[derive(Debug, Default)]
pub struct Sizes {
    sizes: BTreeMap<String, usize>,
    values: BTreeMap<String, f64>,
    used: RefCell<BTreeSet<String>>,
}

/// Sizes are at most this: a tensor has less than 2³¹ elements.
const MAX: usize = i32::MAX as usize;

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
        for (name, _) in &program.sizes {
            numbers.size_of(program, name, &mut Vec::new(), d);
        }
        for (name, _) in &program.values {
            numbers.value_of(program, name, &mut Vec::new(), d);
        }
        Ok(numbers)
    }

    fn set(&mut self, program: &Program, set: &str) -> Result<(), Error> {
        let Some((name, number)) = set.split_once('=') else {
            return Err(Error::Set(format!("--set {set}: `name=value` was expected, for instance --set batch=64")));
        };
        let (name, number) = (name.trim(), number.trim());
        if program.sizes.iter().any(|(n, _)| n.text == name) {
            match number.parse() {
                Ok(size @ 1..=MAX) => self.sizes.insert(name.into(), size),
                _ => {
                    return Err(Error::Set(format!("--set {set}: `{name}` is a size, a whole number from 1 to {MAX}")));
                }
            };
            return Ok(());
        }
        if program.values.iter().any(|(n, _)| n.text == name) {
            match number.parse::<f64>() {
                Ok(value) if value.is_finite() => self.values.insert(name.into(), value),
                _ => return Err(Error::Set(format!("--set {set}: `{name}` is a number, for instance 1e-4"))),
            };
            return Ok(());
        }
        let known: Vec<&str> = program.sizes.iter().chain(&program.values).map(|(n, _)| n.text.as_str()).collect();
        let hint = match closest(name, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("`{}` has {}", program.name, known.join(", ")),
        };
        Err(Error::Set(format!("--set {set}: there is no size or value `{name}`; {hint}")))
    }

    fn size_of(&mut self, program: &Program, name: &Name, path: &mut Vec<String>, d: &mut Decoder) -> Option<usize> {
        if let Some(&size) = self.sizes.get(&name.text) {
            return Some(size);
        }
        let Some((_, node)) = program.sizes.iter().find(|(n, _)| n.text == name.text) else {
            unknown(d, "size", &name.text, name.span, &program.sizes);
            return None;
        };
        if path.contains(&name.text) {
            cycle(d, "size", path, &name.text, node.span);
            // A number of any kind, so that the cycle is told once.
            self.sizes.insert(name.text.clone(), 1);
            return None;
        }
        path.push(name.text.clone());
        let size = self.computed(program, node, path, d);
        path.pop();
        let size = self.in_range(size?, node.span, d)?;
        self.sizes.insert(name.text.clone(), size);
        Some(size)
    }

    /// A number, the name of a size, or a sum or product of these.
    fn computed(&mut self, program: &Program, node: &Node, path: &mut Vec<String>, d: &mut Decoder) -> Option<usize> {
        if let Value::Tuple { name: Some(op), items } = &node.value {
            let combine: fn(usize, usize) -> Option<usize> = match op.text.as_str() {
                "Mul" => usize::checked_mul,
                "Add" => usize::checked_add,
                _ => {
                    d.wrong_type(node, "a size", "a number, the name of one in quotes, `Mul(...)` or `Add(...)`");
                    return None;
                }
            };
            let items: Vec<Option<usize>> = items.iter().map(|item| self.computed(program, item, path, d)).collect();
            let items: Vec<usize> = items.into_iter().collect::<Option<_>>()?;
            let total = items.iter().skip(1).try_fold(*items.first()?, |a, &b| combine(a, b));
            return Some(total.unwrap_or(usize::MAX));
        }
        match d.usize_or_name(node, "a size")? {
            OrName::Value(size) => Some(size),
            OrName::Name { text, span } => {
                self.used.borrow_mut().insert(text.into());
                self.size_of(program, &Name { text: text.into(), span }, path, d)
            }
        }
    }

    fn in_range(&self, size: usize, span: Span, d: &mut Decoder) -> Option<usize> {
        if (1..=MAX).contains(&size) {
            return Some(size);
        }
        let size = if size == usize::MAX { "more than a machine word".to_string() } else { size.to_string() };
        d.report(
            Diagnostic::new("bad-size", format!("a size of {size} is not possible"))
                .label(span, format!("expected 1 to {MAX}")),
        );
        None
    }

    fn value_of(&mut self, program: &Program, name: &Name, path: &mut Vec<String>, d: &mut Decoder) -> Option<f64> {
        if let Some(&value) = self.values.get(&name.text) {
            return Some(value);
        }
        let Some((_, node)) = program.values.iter().find(|(n, _)| n.text == name.text) else {
            unknown(d, "value", &name.text, name.span, &program.values);
            return None;
        };
        if path.contains(&name.text) {
            cycle(d, "value", path, &name.text, node.span);
            self.values.insert(name.text.clone(), 0.0);
            return None;
        }
        path.push(name.text.clone());
        let value = match d.f64_or_name(node, "a value") {
            Some(OrName::Value(value)) => Some(value),
            Some(OrName::Name { text, span }) => {
                self.used.borrow_mut().insert(text.into());
                self.value_of(program, &Name { text: text.into(), span }, path, d)
            }
            None => None,
        };
        path.pop();
        self.values.insert(name.text.clone(), value?);
        value
    }

    /// A size given in the text.
    pub fn size(&self, program: &Program, node: &Node, what: &str, d: &mut Decoder) -> Option<usize> {
        match d.usize_or_name(node, what)? {
            OrName::Value(size) => self.in_range(size, node.span, d),
            OrName::Name { text, span } => {
                self.used.borrow_mut().insert(text.into());
                if let Some(&size) = self.sizes.get(text) {
                    return Some(size);
                }
                if !program.sizes.iter().any(|(n, _)| n.text == text) {
                    unknown(d, "size", text, span, &program.sizes);
                }
                None
            }
        }
    }

    /// A list of sizes given in the text.
    pub fn shape(&self, program: &Program, node: &Node, what: &str, d: &mut Decoder) -> Option<Vec<usize>> {
        let items = d.list(node, what)?;
        let sizes: Vec<Option<usize>> = items.iter().map(|item| self.size(program, item, what, d)).collect();
        sizes.into_iter().collect()
    }

    /// A number given in the text.
    pub fn number(&self, program: &Program, node: &Node, what: &str, d: &mut Decoder) -> Option<f64> {
        match d.f64_or_name(node, what)? {
            OrName::Value(value) => Some(value),
            OrName::Name { text, span } => {
                if let Some(value) = self.named_number(text) {
                    return Some(value);
                }
                if !program.values.iter().chain(&program.sizes).any(|(n, _)| n.text == text) {
                    unknown(d, "value", text, span, &program.values);
                }
                None
            }
        }
    }

    /// A value, or a size as a number.
    pub fn named_number(&self, name: &str) -> Option<f64> {
        self.used.borrow_mut().insert(name.into());
        self.values.get(name).copied().or_else(|| self.sizes.get(name).map(|&size| size as f64))
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

fn unknown(d: &mut Decoder, what: &str, name: &str, span: Span, known: &[(Name, &Node)]) {
    let known: Vec<&str> = known.iter().map(|(n, _)| n.text.as_str()).collect();
    d.report(
        Diagnostic::new("unknown-name", format!("there is no {what} `{name}`"))
            .label(span, "not declared")
            .suggest(name, &known),
    );
}

/// Reports what is declared and never used.
pub fn unused(d: &mut Decoder, what: &str, name: &str, span: Span) {
    d.report(
        Diagnostic::new("unused", format!("the {what} `{name}` is never used"))
            .label(span, "declared here")
            .help("use it, or take it away"),
    );
}

/// Reports declarations that need each other.
pub fn cycle(d: &mut Decoder, what: &str, path: &[String], name: &str, span: Span) {
    let start = path.iter().position(|p| p == name).unwrap_or(0);
    let path: Vec<String> = path[start..].iter().chain([&name.to_string()]).map(|n| format!("`{n}`")).collect();
    d.report(
        Diagnostic::new("cycle", format!("the {what} `{name}` needs itself"))
            .label(span, format!("{} makes a circle", path.join(" → "))),
    );
}
