//! Einstein's summation: products of tensors by the letters of their dimensions, two at a time, as matrix products.

use super::diagnostic::{Diagnostic, Span};
use super::nodes::Nodes;
use crate::ir::{NodeId, Op, ReduceKind, Type};
use crate::scalar::ScalarOp;

/// A tensor and the letter of each of its dimensions, all different.
#[derive(Debug, Clone)]
struct Lettered {
    x: NodeId,
    letters: Vec<char>,
}

/// The letters of a term, where `...` stands for `rest`.
fn letters(term: &str, rest: &[char]) -> Option<Vec<char>> {
    let (before, after) = term.split_once("...").map_or((term, None), |(a, b)| (a, Some(b)));
    let named = |part: &str| part.chars().all(|c| c.is_ascii_alphabetic());
    if !named(before) || !after.is_none_or(named) {
        return None;
    }
    let rest = if after.is_some() { rest } else { &[] };
    Some(before.chars().chain(rest.iter().copied()).chain(after.unwrap_or("").chars()).collect())
}

impl Nodes<'_> {
    fn bad_equation(&mut self, equation: &str, problem: impl std::fmt::Display, span: Span) {
        let message = format!("`{equation}`: {problem}");
        let help = "a letter for each dimension of each tensor, as in \"bij,bjk->bik\"; \"...\" for any others";
        self.d().report(Diagnostic::new("bad-value", message).label(span, "in this").help(help));
    }

    pub fn einsum(&mut self, equation: &str, items: &[NodeId], span: Span) -> Option<NodeId> {
        let text: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
        let (inputs, result) = text.split_once("->").map_or((text.as_str(), None), |(a, b)| (a, Some(b)));
        let terms: Vec<&str> = inputs.split(',').collect();
        if terms.len() != items.len() {
            self.bad_equation(equation, format!("{} terms for {} tensors", terms.len(), items.len()), span);
            return None;
        }
        // Dimensions without a letter get digits, counted from the end.
        let rank_of_rest = |n: &Self, (term, &x): (&&str, &NodeId)| {
            let named = term.replace("...", "").chars().count();
            if term.contains("...") { n.shape(x).len().saturating_sub(named) } else { 0 }
        };
        let most = terms.iter().zip(items).map(|pair| rank_of_rest(self, pair)).max().unwrap_or(0);
        let rest: Vec<char> = (0..most).rev().map(|i| char::from(b'0' + i as u8)).collect();
        let mut operands = Vec::new();
        for pair in terms.iter().zip(items) {
            let own = rank_of_rest(self, pair);
            let (term, &x) = pair;
            let named = letters(term, &rest[rest.len().saturating_sub(own)..]);
            let Some(named) = named.filter(|named| named.len() == self.shape(x).len()) else {
                self.bad_equation(equation, format!("`{term}` is not the letters of {}", self.ty(x)), span);
                return None;
            };
            operands.push(self.diagonal(Lettered { x, letters: named }, equation, span)?);
        }
        let all: String = terms.concat().replace("...", "");
        let result = match result {
            Some(result) => letters(result, &rest),
            // Letters that occur once, in the order of the alphabet, after the others.
            None => {
                let mut once: Vec<char> = all.chars().filter(|&c| all.matches(c).count() == 1).collect();
                once.sort_unstable();
                Some([rest.clone(), once].concat())
            }
        };
        let fits = |result: &Vec<char>| {
            let given = |c: &char| operands.iter().any(|o| o.letters.contains(c));
            result.iter().enumerate().all(|(i, c)| given(c) && !result[..i].contains(c))
        };
        let Some(result) = result.filter(fits) else {
            self.bad_equation(equation, "the result has a letter twice, or one that no tensor has", span);
            return None;
        };
        let mut left = operands.into_iter();
        let mut product = left.next()?;
        while let Some(next) = left.next() {
            let needed: Vec<char> =
                left.as_slice().iter().flat_map(|o| o.letters.clone()).chain(result.clone()).collect();
            product = self.product_of(product, next, &needed, (equation, span))?;
        }
        let product = self.summed(product, &result, span)?;
        let order = result.iter().filter_map(|c| product.letters.iter().position(|l| l == c)).collect();
        self.permuted(product.x, order, span)
    }

    /// A letter that is there twice is the diagonal of two dimensions.
    fn diagonal(&mut self, of: Lettered, equation: &str, span: Span) -> Option<Lettered> {
        let Lettered { mut x, mut letters } = of;
        while let Some(second) = (0..letters.len()).find(|&i| letters[..i].contains(&letters[i])) {
            let first = letters.iter().position(|&l| l == letters[second])?;
            let size = self.shape(x)[first];
            if self.shape(x)[second] != size {
                self.bad_equation(equation, format!("`{}` has two sizes", letters[second]), span);
                return None;
            }
            let mut shape = vec![1; letters.len()];
            (shape[first], shape[second]) = (size, size);
            let row = self.add(Op::Iota { axis: first, ty: Type::f32(shape.clone()) }, &[], "row", span)?;
            let column = self.add(Op::Iota { axis: second, ty: Type::f32(shape) }, &[], "column", span)?;
            let mask = self.apply(ScalarOp::Eq, &[row, column], span)?;
            x = self.masked(mask, x, span)?;
            letters.remove(second);
            x = self.reduced_away(ReduceKind::Sum, x, second, span)?;
        }
        Some(Lettered { x, letters })
    }

    /// Summed over every dimension that nothing needs any more.
    fn summed(&mut self, of: Lettered, needed: &[char], span: Span) -> Option<Lettered> {
        let Lettered { mut x, mut letters } = of;
        while let Some(axis) = letters.iter().position(|l| !needed.contains(l)) {
            x = self.reduced_away(ReduceKind::Sum, x, axis, span)?;
            letters.remove(axis);
        }
        Some(Lettered { x, letters })
    }

    /// The product of two tensors, summed over the dimensions that both have and nothing needs any more: `[batch, rows, inner]`
    /// times `[batch, inner, columns]`.
    fn product_of(
        &mut self,
        a: Lettered,
        b: Lettered,
        needed: &[char],
        (equation, span): (&str, Span),
    ) -> Option<Lettered> {
        let a = self.summed(a, &[&b.letters[..], needed].concat(), span)?;
        let b = self.summed(b, &[&a.letters[..], needed].concat(), span)?;
        let shared = |l: &&char| b.letters.contains(l);
        let batch: Vec<char> = a.letters.iter().filter(shared).filter(|l| needed.contains(l)).copied().collect();
        let inner: Vec<char> = a.letters.iter().filter(shared).filter(|l| !needed.contains(l)).copied().collect();
        let rows: Vec<char> = a.letters.iter().filter(|l| !b.letters.contains(l)).copied().collect();
        let columns: Vec<char> = b.letters.iter().filter(|l| !a.letters.contains(l)).copied().collect();
        let size =
            |n: &Self, of: &Lettered, l: &char| of.letters.iter().position(|c| c == l).map_or(1, |d| n.shape(of.x)[d]);
        for letter in batch.iter().chain(&inner) {
            if size(self, &a, letter) != size(self, &b, letter) {
                self.bad_equation(equation, format!("`{letter}` has two sizes"), span);
                return None;
            }
        }
        let count = |n: &Self, of: &Lettered, group: &[char]| group.iter().map(|l| size(n, of, l)).product::<usize>();
        let mut matrices = Vec::new();
        for (of, groups) in [(&a, [&batch, &rows, &inner]), (&b, [&batch, &inner, &columns])] {
            let order =
                groups.iter().flat_map(|g| g.iter()).filter_map(|l| of.letters.iter().position(|c| c == l)).collect();
            let sizes = groups.iter().map(|group| count(self, of, group)).collect();
            let x = self.permuted(of.x, order, span)?;
            matrices.push(self.reshaped(x, sizes, span)?);
        }
        let product = self.add(Op::MatMul, &matrices, "einsum", span)?;
        let sizes =
            batch.iter().chain(&rows).map(|l| size(self, &a, l)).chain(columns.iter().map(|l| size(self, &b, l)));
        let x = self.reshaped(product, sizes.collect(), span)?;
        Some(Lettered { x, letters: [batch, rows, columns].concat() })
    }
}
