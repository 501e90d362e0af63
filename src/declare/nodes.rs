//! Adding nodes to an entry's graph: names, origins, state and random draws.

use super::diagnostic::{Diagnostic, Span};
use super::entry::EntryLowering;
use super::lowering::{SEED, STEP};
use crate::ir::{
    DType, Distribution, Feed, Initialiser, InputDecl, NodeId, Op, Origin, Role, StateDecl, StateRole, Type,
};
use crate::scalar::{Lane, ScalarOp};

/// Expressions and layers that one entry may be expanded to. A program of a few lines can ask for
/// billions, with functions that call functions; the largest useful step has some thousands.
const MAX_EXPANSIONS: usize = 1 << 17;
/// Expressions may nest this deep, functions expanded, so that a hostile text cannot exhaust the stack.
const MAX_DEPTH: usize = 200;

impl EntryLowering<'_, '_, '_> {
    /// Counts one expansion and goes one level down; [`EntryLowering::leave`] goes up again. `None` where there
    /// are too many.
    pub fn descend(&mut self, span: Span) -> Option<()> {
        if self.exhausted {
            return None;
        }
        self.expansions += 1;
        let too_deep = self.depth >= MAX_DEPTH;
        if too_deep || self.expansions > MAX_EXPANSIONS {
            self.exhausted = true;
            let message = if too_deep {
                format!("expressions nest more than {MAX_DEPTH} deep")
            } else {
                format!("the entry `{}` comes to more than {MAX_EXPANSIONS} expressions", self.graph.name)
            };
            let help = "the bodies of functions count at each of their calls";
            self.d().report(Diagnostic::new("too-large", message).label(span, "given up here").help(help));
            return None;
        }
        self.depth += 1;
        Some(())
    }

    pub fn leave(&mut self) {
        self.depth -= 1;
    }

    /// Goes into a declaration; a path that was taken before gets a number.
    pub fn enter(&mut self, name: &str) {
        let path = self.scope.join("/");
        let mut unique = name.to_string();
        let mut number = 1;
        while !self.scopes.insert(format!("{path}/{unique}")) {
            unique = format!("{name}.{number}");
            number += 1;
        }
        self.scope.push(unique);
    }

    /// Adds a node that is named after where it stands; a mistake in its types is reported at `span`.
    pub fn add(&mut self, op: Op, operands: &[NodeId], name: &str, span: Span) -> Option<NodeId> {
        let scope = self.scope.join("/");
        let full = match (scope.is_empty(), name.is_empty()) {
            (true, _) => name.to_string(),
            (false, true) => scope.clone(),
            (false, false) => format!("{scope}/{name}"),
        };
        let origin = Origin { span: Some(span), scope, role: self.role.clone() };
        match self.graph.add(op, operands, &full, origin) {
            Ok(node) => Some(node),
            Err(error) => {
                let types: Vec<String> = operands.iter().map(|&o| self.graph.ty(o).to_string()).collect();
                let mut diagnostic = Diagnostic::new("shape-mismatch", error.to_string()).label(span, "in this");
                if !types.is_empty() {
                    let (noun, verb) = if types.len() == 1 { ("operand", "is") } else { ("operands", "are") };
                    diagnostic = diagnostic.help(format!("the {noun} {verb} {}", types.join(" and ")));
                }
                self.d().report(diagnostic);
                None
            }
        }
    }

    /// A constant scalar.
    pub fn constant(&mut self, value: f64, span: Span) -> Option<NodeId> {
        self.add(Op::constant(value, DType::F32, []), &[], "constant", span)
    }

    /// A scalar operation, named after it: see [`EntryLowering::apply_as`].
    pub fn apply(&mut self, op: ScalarOp, operands: &[NodeId], span: Span) -> Option<NodeId> {
        self.apply_as(op, operands, op.name(), span)
    }

    /// A scalar operation on operands that are brought to one shape first, as NumPy does: aligned at the last
    /// dimension, sizes of 1 repeated.
    pub fn apply_as(&mut self, op: ScalarOp, operands: &[NodeId], name: &str, span: Span) -> Option<NodeId> {
        let rank = operands.iter().map(|&o| self.graph.shape(o).len()).max().unwrap_or(0);
        let mut shape = vec![1; rank];
        for &operand in operands {
            let of = self.graph.shape(operand).to_vec();
            for (to, &size) in shape[rank - of.len()..].iter_mut().zip(&of) {
                if *to == 1 {
                    *to = size;
                } else if size != 1 && size != *to {
                    let types: Vec<String> = operands.iter().map(|&o| self.graph.ty(o).to_string()).collect();
                    let diagnostic =
                        Diagnostic::new("shape-mismatch", format!("the operands of `{}` do not fit", written(op)))
                            .label(span, format!("these are {}", types.join(" and ")))
                            .help("sizes are compared from the last on; they must be equal, or one of them 1");
                    self.d().report(diagnostic);
                    return None;
                }
            }
        }
        let mut fitted = Vec::new();
        for (&operand, lane) in operands.iter().zip(op.operand_lanes()) {
            let expected = if *lane == Lane::U32 { DType::U32 } else { DType::F32 };
            let found = self.graph.ty(operand).dtype;
            if found != expected {
                let mut diagnostic = Diagnostic::new("wrong-dtype", format!("`{}` takes {expected}", written(op)))
                    .label(span, format!("an operand is {}", self.graph.ty(operand)));
                if found == DType::U32 {
                    diagnostic = diagnostic.help("`ToReal(...)` makes real numbers of labels");
                }
                self.d().report(diagnostic);
                return None;
            }
            fitted.push(self.broadcast_to(operand, &shape, span)?);
        }
        self.add(Op::Scalar(op), &fitted, name, span)
    }

    /// `x` with sizes of 1 put in front and repeated to `shape`.
    pub fn broadcast_to(&mut self, x: NodeId, shape: &[usize], span: Span) -> Option<NodeId> {
        let from = self.graph.shape(x).to_vec();
        if from == shape {
            return Some(x);
        }
        // A constant is the same at any shape that it fits.
        if let (Op::Constant { value, ty }, true) = (self.graph.op(x).clone(), from.is_empty()) {
            return self.add(Op::constant(value.0, ty.dtype, shape), &[], "constant", span);
        }
        let mut x = x;
        if from.len() < shape.len() {
            let to = [vec![1; shape.len() - from.len()], from].concat();
            x = self.add(Op::Reshape { to }, &[x], "reshape", span)?;
        }
        if self.graph.shape(x) == shape {
            return Some(x);
        }
        self.add(Op::Broadcast { to: shape.to_vec() }, &[x], "broadcast", span)
    }

    /// The present value of a state tensor, which is declared where it is new.
    pub fn state(&mut self, name: &str, ty: Type, role: StateRole, init: Initialiser, span: Span) -> Option<NodeId> {
        if let Some(&node) = self.current.get(name) {
            return Some(node);
        }
        let scope = std::mem::take(&mut self.scope);
        let outer = std::mem::replace(&mut self.role, Role::Forward);
        let node = self.add(Op::State { name: name.into(), ty: ty.clone() }, &[], name, span);
        (self.scope, self.role) = (scope, outer);
        let node = node?;
        if !self.lowering.states.iter().any(|s| s.name == name) {
            self.lowering.states.push(StateDecl { name: name.into(), ty, role, init, span: Some(span) });
        }
        self.current.insert(name.into(), node);
        self.leaves.insert(name.into(), node);
        Some(node)
    }

    /// The count of steps, which keys the random draws.
    pub fn step_count(&mut self, span: Span) -> Option<NodeId> {
        self.state(STEP, Type::u32([]), StateRole::Counter, Initialiser::Constant(0.0), span)
    }

    /// A random draw. Its stream is named after where it stands, so it stays the same when other draws come
    /// and go, and in a specialisation for another number of examples.
    pub fn draw(&mut self, distribution: Distribution, shape: Vec<usize>, span: Span) -> Option<NodeId> {
        let path = [std::slice::from_ref(&self.graph.name), &self.scope[..]].concat().join("/");
        let mut stream = path.clone();
        let mut number = 1;
        while !self.streams.insert(stream.clone()) {
            stream = format!("{path}.{number}");
            number += 1;
        }
        let seed = match self.seed {
            Some(seed) => seed,
            None => {
                let ty = Type::u32([2]);
                let scope = std::mem::take(&mut self.scope);
                let seed = self.add(Op::Input { name: SEED.into(), ty: ty.clone() }, &[], SEED, span);
                self.scope = scope;
                let meaning = "the seed of all randomness".to_string();
                self.inputs.push(InputDecl { name: SEED.into(), ty, feed: Feed::Seed, below: None, meaning });
                self.seed = seed;
                seed?
            }
        };
        let step = self.step_count(span)?;
        self.add(Op::Random { distribution, stream, shape }, &[seed, step], "draw", span)
    }
}

/// How a scalar operation is written: `log` is `Log`, `add_u32` is `AddU32`.
pub fn written(op: ScalarOp) -> String {
    op.name().split('_').map(|part| part[..1].to_uppercase() + &part[1..]).collect()
}

/// The operation from the scalar table that is written like this.
pub fn scalar_named(name: &str) -> Option<ScalarOp> {
    ScalarOp::ALL.iter().copied().find(|&op| written(op) == name)
}
