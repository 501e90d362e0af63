//! Rows of the tables of the language: a name, a signature, a line of meaning, an example and what it stands for.
//!
//! Everything else is made from the rows: how arguments are read, what an unknown name could have been, what
//! `gcc-gan ops` prints, and the table of the README.

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
    /// A list of them.
    Values,
    /// A size, from 1 on.
    Size,
    /// A list of sizes.
    Sizes,
    /// A size for both dimensions of an image, or a list of two.
    Pair,
    /// The same, where 0 is allowed.
    Padding,
    /// The number of a dimension.
    Dimension,
    /// A list of whole numbers, one for each dimension.
    Dimensions,
    /// A list of dimensions, or all of them.
    Axes,
    /// Any finite number.
    Number,
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
    /// `F32` or `Bf16`.
    ElementType,
    /// What the row reads by itself, in words.
    Written(&'static str),
}

/// An argument that was read: one variant for each [`Kind`], of the same name.
#[derive(Debug, Clone, PartialEq)]
pub enum Arg {
    Value(NodeId),
    Values(Vec<NodeId>),
    Size(usize),
    Sizes(Vec<usize>),
    Pair([usize; 2]),
    Padding([usize; 2]),
    Dimension(usize),
    Dimensions(Vec<usize>),
    /// `None` for all dimensions.
    Axes(Option<Vec<usize>>),
    Number(f64),
    NotNegative(f64),
    Positive(f64),
    Fraction(f64),
    Probability(f64),
    Rate(Rate),
    Flag(bool),
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
    pub fn words(self) -> &'static str {
        match self {
            Kind::Value => "a value",
            Kind::Values => "a list of values",
            Kind::Size => "a size",
            Kind::Sizes => "a list of sizes",
            Kind::Pair => "a size, or [height, width]",
            Kind::Padding => "a number of pixels, or [height, width]",
            Kind::Dimension => "a dimension, from 0",
            Kind::Dimensions => "a whole number for each dimension",
            Kind::Axes => "a list of dimensions, from 0",
            Kind::Number => "a finite number",
            Kind::NotNegative => "a finite number, 0 or more",
            Kind::Positive => "a finite number greater than 0",
            Kind::Fraction => "a number from 0 to below 1",
            Kind::Probability => "a number from 0 to 1",
            Kind::Rate => "a finite number, 0 or more, or a schedule",
            Kind::Flag => "true or false",
            Kind::ElementType => "an element type, F32 or Bf16",
            Kind::Written(words) => words,
        }
    }
}

/// As it would be written.
impl std::fmt::Display for Arg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Arg::Size(n) | Arg::Dimension(n) => write!(f, "{n}"),
            Arg::Pair([h, w]) | Arg::Padding([h, w]) if h == w => write!(f, "{h}"),
            Arg::Pair(pair) | Arg::Padding(pair) => write!(f, "{pair:?}"),
            Arg::Sizes(list) | Arg::Dimensions(list) | Arg::Axes(Some(list)) => write!(f, "{list:?}"),
            Arg::Axes(None) => write!(f, "all"),
            Arg::Number(x)
            | Arg::NotNegative(x)
            | Arg::Positive(x)
            | Arg::Fraction(x)
            | Arg::Probability(x)
            | Arg::Rate(Rate::Fixed(x)) => write!(f, "{x:?}"),
            Arg::Flag(x) => write!(f, "{x}"),
            Arg::ElementType(dtype) => write!(f, "{dtype:?}"),
            Arg::Nothing => write!(f, "none"),
            Arg::Value(_) | Arg::Values(_) | Arg::Rate(Rate::Computed(_)) | Arg::Written => write!(f, "..."),
        }
    }
}

impl<T> Row<T> {
    /// `Dense(units, bias = true)`
    pub fn signature(&self) -> String {
        let params: Vec<String> = (self.params.iter())
            .map(|p| match p.default {
                Some(default) => format!("{} = {}", p.name, default()),
                None => p.name.to_string(),
            })
            .collect();
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
        $name:ident($($param:ident: $kind:ident $(= $default:expr)?),*), $example:literal => $body:expr;
    )*) => {
        $(#[doc = $about])*
        pub const $table: &[Row<$expand>] = &[$(Row {
            name: stringify!($name),
            params: &[$(Param {
                name: stringify!($param),
                kind: Kind::$kind,
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
