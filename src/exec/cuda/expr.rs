//! Expressions as statements: one line of C++ for each value, in single-assignment form.

use super::fours::first_of_four;
use super::index::{Points, Space};
use super::names::Names;
use crate::kernel::access::Access;
use crate::kernel::body::{BufferId, Expr, ExprId, Exprs, Nest, SlotId, Word};
use crate::plan::{Buffer, DType, Distribution, Storage};
use crate::scalar::{Lane, ScalarOp};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Statements in one pair of braces, and the values that they have given names to.
#[derive(Debug, Default)]
pub struct Scope {
    pub lines: Vec<String>,
    values: HashMap<ExprId, String>,
}

impl Scope {
    /// Gives a value the name of something that is there already.
    pub fn name(&mut self, value: ExprId, name: &str) {
        self.values.insert(value, name.to_string());
    }

    /// The names that were declared.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.values.values()
    }
}

/// Renders the expressions of one nest.
pub struct Expressions<'n> {
    pub nest: &'n Nest<BufferId>,
    pub buffers: &'n [Buffer],
    pub pointers: &'n BTreeMap<BufferId, String>,
    pub space: Space,
    pub names: Names,
    /// Names of the kept values.
    pub slots: BTreeMap<SlotId, String>,
    /// What values that go to memory are called.
    wanted: HashMap<ExprId, String>,
    /// The dimension of the four points that a thread has, where it has as many.
    pub fours: Option<usize>,
    /// By index, whether a value at full points changes along the variable that inner scopes run over: what does not is
    /// computed outside.
    varies: Vec<bool>,
}

impl<'n> Expressions<'n> {
    pub fn new(
        nest: &'n Nest<BufferId>,
        buffers: &'n [Buffer],
        pointers: &'n BTreeMap<BufferId, String>,
        space: Space,
        names: Names,
        inner: usize,
    ) -> Self {
        let mut wanted = HashMap::new();
        for sweep in &nest.sweeps {
            for store in sweep.stores.iter().chain(&sweep.kept_stores) {
                wanted.insert(store.value, format!("{}_new", pointers[&store.buffer]));
            }
        }
        // A kept value is called like the slot that it goes to.
        for (slot, value) in nest.sweeps.iter().flat_map(|p| &p.kept) {
            let expr = nest.exprs.ids().find(|&e| nest.exprs[e] == Expr::Slot(*slot));
            if let Some(name) = expr.and_then(|e| wanted.get(&e)).cloned() {
                wanted.insert(*value, name);
            }
        }
        let varies = varying(&nest.exprs, &space, inner);
        Expressions { nest, buffers, pointers, space, names, slots: BTreeMap::new(), wanted, fours: None, varies }
    }

    /// A name for a kept value, after the buffer that it is written to where there is one.
    pub fn slot_name(&mut self, slot: SlotId, otherwise: &str) -> String {
        let stored =
            self.nest.exprs.ids().find(|&e| self.nest.exprs[e] == Expr::Slot(slot)).and_then(|e| self.wanted.get(&e));
        let name = stored.cloned().unwrap_or_else(|| otherwise.to_string());
        let name = self.names.fresh(&name);
        self.slots.insert(slot, name.clone());
        name
    }

    /// Writes what computes an expression at every point of the inner scope, and gives its text: a name
    /// or a literal. What does not vary in the inner scope goes to the outer.
    pub fn full(&mut self, id: ExprId, outer: &mut Scope, inner: &mut Scope) -> String {
        for operand in self.missing(id, &[&outer.values, &inner.values]) {
            self.full_value(operand, outer, inner);
        }
        self.full_value(id, outer, inner)
    }

    fn full_value(&mut self, id: ExprId, outer: &mut Scope, inner: &mut Scope) -> String {
        if !self.varies[id.index()] {
            return self.value(id, Points::Full, outer, None);
        }
        self.value(id, Points::Full, inner, Some(outer))
    }

    /// Writes what computes an expression over kept points, and gives its text.
    pub fn kept(&mut self, id: ExprId, scope: &mut Scope) -> String {
        for operand in self.missing(id, &[&scope.values]) {
            self.value(operand, Points::Kept, scope, None);
        }
        self.value(id, Points::Kept, scope, None)
    }

    /// What an expression needs and has no name yet, operands before users: a chain of operations may be longer than a
    /// thread's stack is deep.
    fn missing(&self, id: ExprId, named: &[&HashMap<ExprId, String>]) -> Vec<ExprId> {
        let nest = self.nest;
        let is_named = |id: ExprId| named.iter().any(|values| values.contains_key(&id));
        let mut order = Vec::new();
        let mut seen = HashSet::from([id]);
        let mut open = vec![(id, nest.exprs[id].args().iter())];
        while let Some((user, rest)) = open.last_mut() {
            match rest.next() {
                Some(&arg) if is_named(arg) || !seen.insert(arg) => {}
                Some(&arg) => open.push((arg, nest.exprs[arg].args().iter())),
                None => {
                    order.push(*user);
                    open.pop();
                }
            }
        }
        order.pop();
        order
    }

    fn value(&mut self, id: ExprId, points: Points, scope: &mut Scope, mut outer: Option<&mut Scope>) -> String {
        if let Some(name) = scope.values.get(&id) {
            return name.clone();
        }
        let nest = self.nest;
        let dtype = element_type(nest.exprs.lane(id));
        let (hint, text) = match &nest.exprs[id] {
            Expr::Constant { value, dtype } => return literal(value.0, *dtype),
            Expr::Slot(slot) => return self.slots[slot].clone(),
            Expr::Accumulator => return "accumulator".to_string(),
            Expr::Load { buffer, access, .. } => match (self.four(*buffer, access), outer.as_deref_mut()) {
                (Some(first), Some(outer)) => self.load_of_four(*buffer, &first, points, outer),
                _ if self.space.is_alike_outside(access) => {
                    // Loaded at every point: the condition is no branch around the load then, and points have it in common.
                    let everywhere = Access { bounds: Vec::new(), ..access.clone() };
                    let (hint, text) = self.load(*buffer, &everywhere, points, outer.is_some());
                    let name = self.names.fresh(&hint);
                    scope.lines.push(format!("const {} {name} = {text};", c_type(dtype)));
                    (hint, self.inside(access, points, name, dtype))
                }
                _ => self.load(*buffer, access, points, outer.is_some()),
            },
            Expr::Inside { access } => {
                let text = self.inside(access, points, literal(1.0, dtype), dtype);
                ("inside".to_string(), text)
            }
            Expr::Iota { access, divisor, modulus, .. } => {
                let index = self.space.quotient(access, points, *divisor, *modulus);
                let index = match dtype {
                    DType::F32 | DType::Bf16 if index.contains(' ') => format!("(float)({index})"),
                    DType::F32 | DType::Bf16 => format!("(float){index}"),
                    DType::U32 => index,
                };
                ("index".to_string(), self.inside(access, points, index, dtype))
            }
            Expr::Random { distribution, stream, seed, step, access } => {
                let (draw, line) = self.draw(*stream, seed, step);
                // The key is the same at every point.
                outer.as_deref_mut().unwrap_or(scope).lines.push(line);
                let element = self.space.element(access, points);
                let (hint, call) = match distribution {
                    Distribution::Uniform => ("uniform", format!("uniform({draw}, {element})")),
                    Distribution::Normal => ("normal", format!("normal({draw}, {element})")),
                    Distribution::Bernoulli(p) => {
                        ("bernoulli", format!("bernoulli({draw}, {element}, {})", literal(p.0, DType::F32)))
                    }
                };
                (hint.to_string(), self.inside(access, points, call, dtype))
            }
            Expr::Scalar { op, args } => {
                let args: Vec<String> = args
                    .iter()
                    .map(|&arg| match outer.as_deref_mut() {
                        Some(outer) => self.full_value(arg, outer, scope),
                        None => self.value(arg, points, scope, None),
                    })
                    .collect();
                (op.name().to_string(), apply(*op, &args))
            }
        };
        let hint = match (&nest.exprs[id], self.wanted.get(&id)) {
            (Expr::Scalar { .. } | Expr::Random { .. } | Expr::Iota { .. }, Some(wanted)) => wanted.clone(),
            _ => hint,
        };
        let name = self.names.fresh(&hint);
        scope.lines.push(format!("const {} {name} = {text};", c_type(dtype)));
        scope.values.insert(id, name.clone());
        name
    }

    /// What a load may be called, and its text.
    fn load(&mut self, buffer: BufferId, access: &Access, points: Points, is_inner: bool) -> (String, String) {
        let element = self.space.element(access, points);
        let pointer = &self.pointers[&buffer];
        let at = if points == Points::Full && is_inner { "i" } else { "k" };
        let hint = format!("{pointer}_{at}");
        let buffer = &self.buffers[buffer.index()];
        let (load, dtype) = match (buffer.storage, buffer.dtype) {
            (Storage::Bits, _) => (format!("bit({pointer}, {element})"), DType::F32),
            (Storage::Elements, dtype @ (DType::F32 | DType::U32)) => (format!("{pointer}[{element}]"), dtype),
            (Storage::Elements, DType::Bf16) => (format!("from_bf16({pointer}[{element}])"), DType::F32),
        };
        (hint, self.inside(access, points, load, dtype))
    }

    /// The same for one of four neighbours, which are loaded at once outside.
    fn load_of_four(
        &mut self,
        buffer: BufferId,
        first: &Access,
        points: Points,
        outer: &mut Scope,
    ) -> (String, String) {
        let element = self.space.element(first, points);
        let pointer = &self.pointers[&buffer];
        let is_alike_outside = self.space.is_alike_outside(first);
        let load = match self.space.condition(first, points).filter(|_| !is_alike_outside) {
            None => format!("load_four({pointer} + {element})"),
            Some(condition) => format!("{condition} ? load_four({pointer} + {element}) : Four()"),
        };
        let hint = format!("{pointer}_i");
        let four = self.names.fresh(&format!("{hint}_4"));
        outer.lines.push(format!("const Four {four} = {load};"));
        let one = format!("{four}.of[v]");
        (hint, if is_alike_outside { self.inside(first, points, one, DType::F32) } else { one })
    }

    /// A name for what keys a draw, and the line that declares it.
    pub fn draw(&mut self, stream: u64, seed: &[Word<BufferId>; 2], step: &Word<BufferId>) -> (String, String) {
        let [seed0, seed1, step] = [&seed[0], &seed[1], step].map(|word| self.word(word));
        let draw = self.names.fresh("draw");
        let (low, high) = (stream as u32, stream >> 32);
        let line = format!("const Draw {draw} = {{{{{seed0}, {seed1}}}, {step}, {{0x{low:08x}u, 0x{high:08x}u}}}};");
        (draw, line)
    }

    /// Where the first of four neighbours is that an access reads or writes at the points of one thread, where it does.
    pub fn four(&self, buffer: BufferId, access: &Access) -> Option<Access> {
        first_of_four(access, self.fours?, &self.buffers[buffer.index()])
    }

    /// `text` inside the access's bounds, else 0.
    fn inside(&mut self, access: &Access, points: Points, text: String, dtype: DType) -> String {
        match self.space.condition(access, points) {
            None => text,
            Some(condition) => format!("{condition} ? {text} : {}", literal(0.0, dtype)),
        }
    }

    /// A value as it is written to a buffer.
    pub fn stored(&self, buffer: BufferId, value: String) -> String {
        match self.buffers[buffer.index()].dtype {
            DType::F32 | DType::U32 => value,
            DType::Bf16 => format!("to_bf16({value})"),
        }
    }

    fn word(&self, word: &Word<BufferId>) -> String {
        match word {
            Word::Constant(value) => format!("{value}u"),
            Word::Load { buffer, offset } => format!("{}[{offset}]", self.pointers[buffer]),
        }
    }
}

/// By index, whether a value at full points changes along a variable.
fn varying(exprs: &Exprs<BufferId>, space: &Space, along: usize) -> Vec<bool> {
    let mut varies: Vec<bool> = Vec::with_capacity(exprs.len());
    for expr in exprs.iter() {
        varies.push(match expr {
            Expr::Constant { .. } | Expr::Slot(_) => false,
            Expr::Accumulator => true,
            Expr::Load { access, .. }
            | Expr::Inside { access }
            | Expr::Iota { access, .. }
            | Expr::Random { access, .. } => space.varies(access, along),
            Expr::Scalar { args, .. } => args.iter().any(|a| varies[a.index()]),
        });
    }
    varies
}

/// The scalar table's spelling, with the operands in their places.
fn apply(op: ScalarOp, args: &[String]) -> String {
    let mut text = op.cuda().to_string();
    for (i, arg) in args.iter().enumerate() {
        text = text.replace(&format!("{{{i}}}"), arg);
    }
    // A statement needs no parentheses around the whole.
    match text.strip_prefix('(').and_then(|t| t.strip_suffix(')')) {
        Some(inner) if is_balanced(inner) => inner.to_string(),
        _ => text,
    }
}

fn is_balanced(text: &str) -> bool {
    let mut depth = 0i32;
    for c in text.chars() {
        depth += i32::from(c == '(') - i32::from(c == ')');
        if depth < 0 {
            return false;
        }
    }
    depth == 0
}

/// A number in C++ that reads back to the same value.
pub fn literal(value: f64, dtype: DType) -> String {
    let x = value as f32;
    match dtype {
        DType::U32 => format!("{}u", value as u32),
        DType::F32 | DType::Bf16 if x.is_nan() => "__int_as_float(0x7fc00000)".to_string(),
        DType::F32 | DType::Bf16 if x.is_infinite() => {
            format!("{}__int_as_float(0x7f800000)", if x > 0.0 { "" } else { "-" })
        }
        DType::F32 | DType::Bf16 if x.is_sign_negative() => format!("({x:?}f)"),
        DType::F32 | DType::Bf16 => format!("{x:?}f"),
    }
}

pub fn c_type(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "float",
        DType::U32 => "unsigned",
        // Its bits: arithmetic is in float.
        DType::Bf16 => "unsigned short",
    }
}

/// What values of a lane type are in C++.
fn element_type(lane: Lane) -> DType {
    match lane {
        Lane::Real => DType::F32,
        Lane::U32 => DType::U32,
    }
}
