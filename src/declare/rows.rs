//! Rows of the tables of the language: a name, a signature, a line of meaning, an example and what it stands for.
//!
//! Everything else is made from the rows: how arguments are read, what an unknown name could have been, what
//! `gcc-gan ops` prints, and the table of the README.

use super::diagnostic::one_of;
use crate::ir::{DType, NodeId, Span};

/// A word of the language. `T` is what it stands for: most often the function that expands it.
#[derive(Debug)]
pub struct Row<T: 'static> {
    pub name: &'static str,
    /// In the order in which they are given by position.
    pub params: &'static [Param],
    /// One line.
    pub meaning: &'static str,
    pub example: &'static str,
    pub expand: T,
}

/// An argument of a row.
#[derive(Debug)]
pub struct Param {
    pub name: &'static str,
    pub kind: Kind,
    /// What stands for it where it is left out; without one it must be given.
    pub default: Option<fn() -> Arg>,
}

/// What an argument is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A tensor: a name, a number or an operation.
    Value,
    /// The same, where there may be none.
    MaybeValue,
    /// A list of them.
    Values,
    /// A size, from 1 on.
    Size,
    /// A list of sizes.
    Sizes,
    /// Sizes of which one may be -1, for what is left, and any 0, for the operand's own.
    Shape,
    /// A size for each dimension of an image, or one for all.
    Lengths,
    /// A number of pixels for each dimension of an image, or one for all.
    Amounts,
    /// What is added around images.
    Pads,
    /// The number of a dimension.
    Dimension,
    /// The dimensions in another order, or in the reverse one.
    Permutation,
    /// A list of dimensions, or all of them.
    Axes,
    /// Any whole number.
    Integer,
    /// A list of whole numbers, or one.
    Integers,
    /// A list of finite numbers.
    Numbers,
    /// Any finite number.
    Number,
    /// The same, where there may be none.
    MaybeNumber,
    /// A finite number, 0 or more.
    NotNegative,
    /// A finite number greater than 0.
    Positive,
    /// A number from 0 to below 1.
    Fraction,
    /// A number from 0 to 1.
    Probability,
    /// A number, 0 or more, or a value that an entry computes: a schedule.
    Rate,
    Flag,
    /// Whether dimensions stay, with size 1.
    Keep,
    /// A string.
    Text,
    /// One of some words.
    Word(&'static [&'static str]),
    /// `F32` or `Bf16`.
    ElementType,
    /// What the row reads by itself, in words.
    Written(&'static str),
}

/// What is added around images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pads {
    /// One number for all sides; one for each dimension, on both sides; or one for each dimension's start, then one for
    /// each dimension's end.
    Sides(Vec<usize>),
    /// As much as makes the result as large as the image is, divided by the stride; the odd one at the end.
    Same,
    /// The same, with the odd one at the start.
    SameLower,
}

/// An argument that was read: one variant for each [`Kind`], of the same name.
#[derive(Debug, Clone, PartialEq)]
pub enum Arg {
    Value(NodeId),
    MaybeValue(Option<NodeId>),
    Values(Vec<NodeId>),
    Size(usize),
    Sizes(Vec<usize>),
    Shape(Vec<i64>),
    /// Empty where the row has another for it.
    Lengths(Vec<usize>),
    Amounts(Vec<usize>),
    Pads(Pads),
    /// Negative ones count from the end.
    Dimension(i64),
    /// `None` for the reverse order.
    Permutation(Option<Vec<i64>>),
    /// `None` for all dimensions.
    Axes(Option<Vec<i64>>),
    Integer(i64),
    Integers(Vec<i64>),
    Numbers(Vec<f64>),
    Number(f64),
    MaybeNumber(Option<f64>),
    NotNegative(f64),
    Positive(f64),
    Fraction(f64),
    Probability(f64),
    Rate(Rate),
    Flag(bool),
    /// `None` where they stay unless all dimensions are combined.
    Keep(Option<bool>),
    Text(String),
    Word(&'static str),
    ElementType(DType),
    Written,
    /// What is left out, and has nothing in its place.
    Nothing,
}

/// A number that may change from step to step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rate {
    Fixed(f64),
    /// `f32[]`, computed in each step.
    Computed(NodeId),
}

/// Where an operation stands.
#[derive(Debug)]
pub struct At {
    pub span: Span,
    /// The place of each argument; that of the operation where it was left out.
    pub args: Vec<Span>,
}

impl Kind {
    /// What must be written, in words.
    pub fn words(self) -> String {
        let words = match self {
            Kind::Value => "a value",
            Kind::MaybeValue => "a value, or None",
            Kind::Values => "a list of values",
            Kind::Size => "a size",
            Kind::Sizes => "a list of sizes",
            Kind::Shape => "a list of sizes; -1 is what is left, 0 the size that x has there",
            Kind::Lengths => "a size, or a list of one for each dimension such as [height, width]",
            Kind::Amounts => "a number of pixels, or a list of one for each dimension such as [height, width]",
            Kind::Pads => "a number of pixels, [height, width], [top, left, bottom, right], Same or SameLower",
            Kind::Dimension => "a dimension, from 0, or from -1 backwards",
            Kind::Permutation => "a list of dimensions, or reversed",
            Kind::Axes => "a list of dimensions, from 0, or from -1 backwards, or all",
            Kind::Integer => "a whole number",
            Kind::Integers => "a list of whole numbers",
            Kind::Numbers => "a list of finite numbers",
            Kind::Number => "a finite number",
            Kind::MaybeNumber => "a finite number, or None",
            Kind::NotNegative => "a finite number, 0 or more",
            Kind::Positive => "a finite number greater than 0",
            Kind::Fraction => "a number from 0 to below 1",
            Kind::Probability => "a number from 0 to 1",
            Kind::Rate => "a finite number, 0 or more, or a schedule",
            Kind::Flag | Kind::Keep => "true or false",
            Kind::Text => "a text in quotes",
            Kind::Word(words) => return one_of(words),
            Kind::ElementType => "an element type, F32 or Bf16",
            Kind::Written(words) => words,
        };
        words.to_string()
    }
}

/// As it would be written.
impl std::fmt::Display for Arg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Arg::Size(n) => write!(f, "{n}"),
            Arg::Integer(i64::MAX) => write!(f, "all"),
            Arg::Dimension(n) | Arg::Integer(n) => write!(f, "{n}"),
            Arg::Lengths(list) if list.is_empty() => write!(f, "size"),
            Arg::Lengths(list) | Arg::Amounts(list) | Arg::Pads(Pads::Sides(list)) if list.len() == 1 => {
                write!(f, "{}", list[0])
            }
            Arg::Sizes(list) | Arg::Lengths(list) | Arg::Amounts(list) | Arg::Pads(Pads::Sides(list)) => {
                write!(f, "{list:?}")
            }
            Arg::Pads(Pads::Same) => write!(f, "Same"),
            Arg::Pads(Pads::SameLower) => write!(f, "SameLower"),
            Arg::Integers(list) if list.len() == 1 => write!(f, "{}", list[0]),
            Arg::Permutation(Some(list)) | Arg::Axes(Some(list)) | Arg::Shape(list) | Arg::Integers(list) => {
                write!(f, "{list:?}")
            }
            Arg::Numbers(list) => write!(f, "{list:?}"),
            Arg::Permutation(None) => write!(f, "reversed"),
            Arg::Axes(None) => write!(f, "all"),
            Arg::Number(x)
            | Arg::NotNegative(x)
            | Arg::Positive(x)
            | Arg::Fraction(x)
            | Arg::Probability(x)
            | Arg::Rate(Rate::Fixed(x)) => write!(f, "{x:?}"),
            Arg::MaybeNumber(Some(x)) => write!(f, "{x:?}"),
            Arg::MaybeNumber(None) | Arg::MaybeValue(None) => write!(f, "None"),
            Arg::Flag(x) | Arg::Keep(Some(x)) => write!(f, "{x}"),
            Arg::Keep(None) => write!(f, "unless all"),
            Arg::Text(text) => write!(f, "{text:?}"),
            Arg::Word(word) => write!(f, "{word}"),
            Arg::ElementType(dtype) => write!(f, "{dtype:?}"),
            Arg::Nothing => write!(f, "none"),
            Arg::Value(_) | Arg::MaybeValue(Some(_)) | Arg::Values(_) | Arg::Rate(Rate::Computed(_)) | Arg::Written => {
                write!(f, "...")
            }
        }
    }
}

impl Param {
    /// `bias = true`
    pub fn written(&self) -> String {
        match self.default {
            Some(default) => format!("{} = {}", self.name, default()),
            None => self.name.to_string(),
        }
    }
}

impl<T> Row<T> {
    /// `Dense(units, bias = true)`
    pub fn signature(&self) -> String {
        let params: Vec<String> = self.params.iter().map(Param::written).collect();
        format!("{}({})", self.name, params.join(", "))
    }
}

/// The row of that name.
pub fn find<'t, T>(table: &'t [Row<T>], name: &str) -> Option<&'t Row<T>> {
    table.iter().find(|row| row.name == name)
}

/// The names of a table, in its order.
pub fn names<T>(table: &[Row<T>]) -> Vec<&'static str> {
    table.iter().map(|row| row.name).collect()
}

/// A table whose rows are functions of arguments that were read for them.
///
/// ```text
/// rows! { OPERATIONS: Expand; |nodes, at|
///     /// The meaning, in one line.
///     Name(x: Value, epsilon: Positive = 1e-5), "Name(\"x\")" => what it stands for, in nodes, at, x and epsilon;
/// }
/// ```
macro_rules! rows {
    ($(#[doc = $about:literal])* $table:ident: $expand:ty; |$nodes:ident, $at:ident| $(
        #[doc = $meaning:literal]
        $name:ident($($param:ident: $kind:ident $(($words:expr))? $(= $default:expr)?),*), $example:literal => $body:expr;
    )*) => {
        $(#[doc = $about])*
        pub const $table: &[Row<$expand>] = &[$(Row {
            name: stringify!($name),
            params: &[$(Param {
                name: stringify!($param),
                kind: Kind::$kind $(($words))?,
                default: rows!(@default $kind $(= $default)?),
            }),*],
            meaning: $meaning.trim_ascii(),
            example: $example,
            expand: |$nodes, $at, args| {
                let _ = (&$nodes, &$at);
                let [$($param),*] = args else { unreachable!("an argument is read for each parameter") };
                $(let Arg::$kind($param) = $param.clone() else { unreachable!("an argument is read by its kind") };)*
                $body
            },
        }),*];
    };
    (@default $kind:ident) => { None };
    (@default $kind:ident = $default:expr) => { Some(|| Arg::$kind($default)) };
}
pub(super) use rows;
