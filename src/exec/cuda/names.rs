//! Identifiers of C++ for buffers and values.

use crate::kernel::body::BufferId;
use crate::plan::Buffer;
use std::collections::{BTreeMap, BTreeSet};

/// What a local name must not be: words of the language, and functions and types that bodies use.
const RESERVED: &[&str] = &[
    "alignas",
    "alignof",
    "and",
    "asm",
    "auto",
    "bool",
    "break",
    "case",
    "catch",
    "char",
    "class",
    "const",
    "continue",
    "default",
    "delete",
    "do",
    "double",
    "else",
    "enum",
    "explicit",
    "export",
    "extern",
    "false",
    "float",
    "for",
    "friend",
    "goto",
    "if",
    "inline",
    "int",
    "long",
    "mutable",
    "namespace",
    "new",
    "not",
    "operator",
    "or",
    "private",
    "protected",
    "public",
    "register",
    "return",
    "short",
    "signed",
    "sizeof",
    "static",
    "struct",
    "switch",
    "template",
    "this",
    "throw",
    "true",
    "try",
    "typedef",
    "typename",
    "union",
    "unsigned",
    "using",
    "virtual",
    "void",
    "volatile",
    "while",
    "xor", // words of the language
    "uniform",
    "normal",
    "bernoulli",
    "bit",
    "draw_words",
    "draw_columns",
    "round_bf16",
    "round_tf32",
    "to_bf16",
    "from_bf16",
    "min",
    "Draw",
    "Sum",
    "Max",
    "threadIdx",
    "blockIdx",
    "blockDim",
    "gridDim",
    "arena",
    "block",
    "blocks",
    "active",
    "accumulator",
    "element",
    "outer",
    "inner",
    "part",
    "signbit",
    "isnan",
    "isinf",
    "isfinite", // prelude, bodies
];

/// The names of one function's scope.
#[derive(Debug, Default)]
pub struct Names {
    taken: BTreeSet<String>,
    /// The number up to which a wanted name's are taken.
    tried: BTreeMap<String, usize>,
}

impl Names {
    /// A name that is not taken yet: `wanted`, or `wanted` with a number.
    pub fn fresh(&mut self, wanted: &str) -> String {
        let wanted = identifier(wanted);
        let mut number = self.tried.get(&wanted).copied().unwrap_or(1);
        let mut candidate = if number == 1 { wanted.clone() } else { format!("{wanted}_{number}") };
        while RESERVED.contains(&candidate.as_str()) || is_index(&candidate) || !self.taken.insert(candidate.clone()) {
            number += 1;
            candidate = format!("{wanted}_{number}");
        }
        self.tried.insert(wanted, number);
        candidate
    }

    /// Frees names at the end of the braces that they were declared in.
    pub fn release<'n>(&mut self, names: impl IntoIterator<Item = &'n String>) {
        for name in names {
            self.taken.remove(name);
        }
        self.tried.clear();
    }

    /// Names for the pointers to buffers: the last part of each buffer's name (after `/`) where that is
    /// unlike the others', else the whole.
    pub fn pointers(&mut self, used: &[BufferId], buffers: &[Buffer]) -> BTreeMap<BufferId, String> {
        let last = |b: BufferId| buffers[b.index()].name.rsplit('/').next().unwrap_or_default();
        let mut alike: BTreeMap<&str, usize> = BTreeMap::new();
        for &b in used {
            *alike.entry(last(b)).or_default() += 1;
        }
        let mut pointers = BTreeMap::new();
        for &b in used {
            let name = if alike[last(b)] == 1 { last(b) } else { &buffers[b.index()].name };
            pointers.insert(b, self.fresh(name));
        }
        pointers
    }
}

/// `name` with everything but letters and digits replaced by `_`.
pub fn identifier(name: &str) -> String {
    let mut result: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if !result.starts_with(|c: char| c.is_ascii_alphabetic()) {
        result.insert(0, 'v');
    }
    result
}

/// Whether it looks like a loop variable or a coordinate of one: `i`, `k0`, `r12`, `p1`, `v`.
fn is_index(name: &str) -> bool {
    name.strip_prefix(['i', 'k', 'r', 'p', 'v']).is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()))
}
