//! The tree that a text is read to: values that know where they stand.

use crate::declare::diagnostic::Span;

/// Brackets may nest this deep, so that a hostile text cannot exhaust the stack. (The `ron` crate's
/// limit is 128.)
pub const MAX_DEPTH: usize = 100;
/// Reading stops after this many errors: the text is then not RON at all.
pub(super) const MAX_ERRORS: usize = 100;

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

impl Node {
    /// What stands before its brackets, or alone: of `Name(...)` and `Name`.
    pub fn name(&self) -> Option<&Name> {
        match &self.value {
            Value::Struct { name, .. } | Value::Tuple { name, .. } | Value::Unit { name } => name.as_ref(),
            _ => None,
        }
    }

    /// The same value, all of it at one place: for what is not in the user's text but there because of a part
    /// of it.
    pub fn at(self, span: Span) -> Node {
        let name = |name: Option<Name>| name.map(|n| Name { text: n.text, span });
        let all = |items: Vec<Node>| items.into_iter().map(|n| n.at(span)).collect();
        let value = match self.value {
            Value::List(items) => Value::List(all(items)),
            Value::Map(pairs) => Value::Map(pairs.into_iter().map(|(k, v)| (k.at(span), v.at(span))).collect()),
            Value::Struct { name: of, fields } => {
                let fields = fields.into_iter().map(|(n, v)| (Name { text: n.text, span }, v.at(span))).collect();
                Value::Struct { name: name(of), fields }
            }
            Value::Tuple { name: of, items } => Value::Tuple { name: name(of), items: all(items) },
            Value::Unit { name: of } => Value::Unit { name: name(of) },
            plain @ (Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Str(_) | Value::Char(_)) => plain,
        };
        Node { span, value }
    }
}
