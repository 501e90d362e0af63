//! Expressions: one value for each point of an index space.

use super::access::Access;
use crate::scalar::{Lane, ScalarOp};
use crate::tensor::DType;
use crate::types::{Distribution, Real};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Index;

/// Defines an index into a list, so that indices into different lists are different types.
macro_rules! index_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(u32);

        impl $name {
            /// # Panics
            /// Beyond `u32::MAX`: no list is as long.
            pub fn new(index: usize) -> Self {
                $name(u32::try_from(index).expect("a list is shorter than 2^32"))
            }

            pub fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}
pub(crate) use index_type;

index_type! {
    /// An index into the buffers of a schedule.
    BufferId
}
index_type! {
    /// An index into the expressions of a body.
    ExprId
}
index_type! {
    /// An index into the kept values of a nest: see [`super::body::Nest`].
    SlotId
}

/// A 32-bit word that a random draw is keyed with.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Word<B> {
    Constant(u32),
    /// Element `offset` of a u32 buffer.
    Load {
        buffer: B,
        offset: usize,
    },
}

/// One value for each point of an index space. `B` names what is read: a value while kernels are being fused, a
/// buffer in a plan.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Expr<B> {
    /// The same value everywhere.
    Constant { value: Real, dtype: DType },
    /// What the access reads of the buffer, which holds elements of this lane type.
    Load { buffer: B, access: Access, lane: Lane },
    /// 1 inside the access's bounds, 0 outside: pads what is computed in the kernel.
    Inside { access: Access },
    /// `(element / divisor) % modulus`, where `element` is what the access reads of the row-major positions
    /// of an iota's shape: the index along one axis. 0 outside the bounds.
    Iota { access: Access, divisor: usize, modulus: usize, dtype: DType },
    /// Element `access` of a draw (see `ir::Op::Random`); 0 outside the bounds.
    Random { distribution: Distribution, stream: u64, seed: [Word<B>; 2], step: Word<B>, access: Access },
    /// A value of the nest's kept space, repeated along the reduced dimensions.
    Slot(SlotId),
    /// The complete sum of the contraction at this point of its output.
    Accumulator,
    /// An operation from the scalar table.
    Scalar { op: ScalarOp, args: Vec<ExprId> },
}

impl<B> Expr<B> {
    /// The expressions that this one uses.
    pub fn args(&self) -> &[ExprId] {
        match self {
            Expr::Scalar { args, .. } => args,
            Expr::Constant { .. }
            | Expr::Load { .. }
            | Expr::Inside { .. }
            | Expr::Iota { .. }
            | Expr::Random { .. }
            | Expr::Slot(_)
            | Expr::Accumulator => &[],
        }
    }

    /// How the expression depends on the point, where it does by an access.
    pub fn access(&self) -> Option<&Access> {
        match self {
            Expr::Load { access, .. }
            | Expr::Inside { access }
            | Expr::Iota { access, .. }
            | Expr::Random { access, .. } => Some(access),
            Expr::Constant { .. } | Expr::Slot(_) | Expr::Accumulator | Expr::Scalar { .. } => None,
        }
    }

    /// What the expression itself reads, the words that key a draw included.
    pub fn reads(&self) -> impl Iterator<Item = &B> {
        let (load, words) = match self {
            Expr::Load { buffer, .. } => (Some(buffer), None),
            Expr::Random { seed: [a, b], step, .. } => (None, Some([a, b, step])),
            Expr::Constant { .. }
            | Expr::Inside { .. }
            | Expr::Iota { .. }
            | Expr::Slot(_)
            | Expr::Accumulator
            | Expr::Scalar { .. } => (None, None),
        };
        let keys = words.into_iter().flatten().filter_map(|word| match word {
            Word::Load { buffer, .. } => Some(buffer),
            Word::Constant(_) => None,
        });
        load.into_iter().chain(keys)
    }

    /// The expression with what it reads named in another way.
    pub fn map<C>(self, name: &mut impl FnMut(B) -> C) -> Expr<C> {
        let mut word = |word| match word {
            Word::Constant(value) => Word::Constant(value),
            Word::Load { buffer, offset } => Word::Load { buffer: name(buffer), offset },
        };
        match self {
            Expr::Random { distribution, stream, seed: [a, b], step, access } => {
                let seed = [word(a), word(b)];
                Expr::Random { distribution, stream, seed, step: word(step), access }
            }
            Expr::Load { buffer, access, lane } => Expr::Load { buffer: name(buffer), access, lane },
            Expr::Constant { value, dtype } => Expr::Constant { value, dtype },
            Expr::Inside { access } => Expr::Inside { access },
            Expr::Iota { access, divisor, modulus, dtype } => Expr::Iota { access, divisor, modulus, dtype },
            Expr::Slot(slot) => Expr::Slot(slot),
            Expr::Accumulator => Expr::Accumulator,
            Expr::Scalar { op, args } => Expr::Scalar { op, args },
        }
    }
}

/// The expressions of a body, operands before their users, each with the type that it was given when it was added.
///
/// An index is trusted once [`Exprs::check`] has passed; a plan file's are checked by its verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exprs<B> {
    exprs: Vec<Expr<B>>,
    lanes: Vec<Lane>,
}

impl<B> Default for Exprs<B> {
    fn default() -> Self {
        Exprs { exprs: Vec::new(), lanes: Vec::new() }
    }
}

impl<B> Index<ExprId> for Exprs<B> {
    type Output = Expr<B>;

    fn index(&self, id: ExprId) -> &Expr<B> {
        &self.exprs[id.index()]
    }
}

impl<B> Exprs<B> {
    /// Adds an expression.
    ///
    /// # Panics
    /// Where it uses a later expression, or one of another type: whoever builds expressions knows better.
    pub fn push(&mut self, expr: Expr<B>) -> ExprId {
        match self.lane_of(&expr) {
            Ok(lane) => self.lanes.push(lane),
            Err(problem) => panic!("an ill-typed expression: {problem}"),
        }
        self.exprs.push(expr);
        ExprId::new(self.exprs.len() - 1)
    }

    pub fn len(&self) -> usize {
        self.exprs.len()
    }

    pub fn is_empty(&self) -> bool {
        self.exprs.is_empty()
    }

    pub fn get(&self, id: ExprId) -> Option<&Expr<B>> {
        self.exprs.get(id.index())
    }

    /// The element type of an expression.
    pub fn lane(&self, id: ExprId) -> Lane {
        self.lanes[id.index()]
    }

    pub fn iter(&self) -> impl Iterator<Item = &Expr<B>> {
        self.exprs.iter()
    }

    pub fn ids(&self) -> impl DoubleEndedIterator<Item = ExprId> + use<B> {
        (0..self.exprs.len()).map(ExprId::new)
    }

    /// The id of the last expression.
    pub fn last(&self) -> Option<ExprId> {
        self.ids().next_back()
    }

    /// By index, whether an expression is one of `roots` or needed to compute one.
    pub fn needed(&self, roots: impl IntoIterator<Item = ExprId>) -> Vec<bool> {
        let mut needed = vec![false; self.exprs.len()];
        roots.into_iter().for_each(|root| needed[root.index()] = true);
        // Operands come before their users.
        for id in (0..self.exprs.len()).rev() {
            if needed[id] {
                self.exprs[id].args().iter().for_each(|arg| needed[arg.index()] = true);
            }
        }
        needed
    }

    /// What all expressions read, repeated as often as it is read.
    pub fn reads(&self) -> impl Iterator<Item = &B> {
        self.exprs.iter().flat_map(Expr::reads)
    }

    pub fn map<C>(self, name: &mut impl FnMut(B) -> C) -> Exprs<C> {
        Exprs { exprs: self.exprs.into_iter().map(|expr| expr.map(name)).collect(), lanes: self.lanes }
    }

    /// The expressions over another space, whose points the accesses are mapped to.
    pub fn with_accesses(mut self, map: impl Fn(&Access) -> Access) -> Exprs<B> {
        for expr in &mut self.exprs {
            match expr {
                Expr::Load { access, .. }
                | Expr::Inside { access }
                | Expr::Iota { access, .. }
                | Expr::Random { access, .. } => *access = map(access),
                Expr::Constant { .. } | Expr::Slot(_) | Expr::Accumulator | Expr::Scalar { .. } => {}
            }
        }
        self
    }

    /// Adds all expressions of others behind its own, each as `map` changes it, and gives their new numbers.
    pub fn append(&mut self, others: Exprs<B>, map: impl Fn(Expr<B>) -> Expr<B>) -> Vec<ExprId> {
        let mut renumbered: Vec<ExprId> = Vec::with_capacity(others.len());
        for expr in others.exprs {
            let expr = match map(expr) {
                Expr::Scalar { op, args } => {
                    Expr::Scalar { op, args: args.into_iter().map(|arg| renumbered[arg.index()]).collect() }
                }
                other => other,
            };
            renumbered.push(self.push(expr));
        }
        renumbered
    }

    /// The expressions with every [`Expr::Accumulator`] read from a buffer instead, where its parts (one or more) of so many
    /// elements lie one after the other, each read by `access`: their sum in order. Also gives the new number of each
    /// expression.
    pub fn with_accumulator_in(
        self,
        buffer: B,
        access: &Access,
        elements: usize,
        parts: usize,
    ) -> (Exprs<B>, Vec<ExprId>)
    where
        B: Clone,
    {
        let part = |number: usize| {
            let access = Access { offset: access.offset + (number * elements) as isize, ..access.clone() };
            Expr::Load { buffer: buffer.clone(), access, lane: Lane::Real }
        };
        let mut result = Exprs::default();
        let mut renumbered: Vec<ExprId> = Vec::with_capacity(self.exprs.len());
        for expr in self.exprs {
            let expr = match expr {
                Expr::Accumulator => {
                    let first = result.push(part(0));
                    let sum = (1..parts).fold(first, |sum, number| {
                        let next = result.push(part(number));
                        result.push(Expr::Scalar { op: ScalarOp::Add, args: vec![sum, next] })
                    });
                    renumbered.push(sum);
                    continue;
                }
                Expr::Scalar { op, args } => {
                    Expr::Scalar { op, args: args.into_iter().map(|arg| renumbered[arg.index()]).collect() }
                }
                other => other,
            };
            renumbered.push(result.push(expr));
        }
        (result, renumbered)
    }

    /// Checks that operands come before their users and have the types that these take, and that the recorded types are
    /// right. What a load reads is for its caller to compare with the buffer.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), String> {
        if self.exprs.len() != self.lanes.len() {
            return Err("expressions and their types differ in number".into());
        }
        for (id, (expr, lane)) in self.exprs.iter().zip(&self.lanes).enumerate() {
            if let Some(later) = expr.args().iter().find(|arg| arg.index() >= id) {
                return Err(format!("expression {id} uses a later one, {later}"));
            }
            let found = self.lane_of(expr)?;
            if found != *lane {
                return Err(format!("expression {id} is {found:?}, not {lane:?}"));
            }
        }
        Ok(())
    }

    /// The type of an expression whose operands are there already.
    fn lane_of(&self, expr: &Expr<B>) -> Result<Lane, String> {
        Ok(match expr {
            Expr::Constant { dtype, .. } | Expr::Iota { dtype, .. } => dtype.lane(),
            Expr::Load { lane, .. } => *lane,
            Expr::Inside { .. } | Expr::Random { .. } | Expr::Slot(_) | Expr::Accumulator => Lane::Real,
            Expr::Scalar { op, args } => {
                let wanted = op.operand_lanes();
                if args.len() != wanted.len() {
                    return Err(format!("{} takes {} operands", op.name(), wanted.len()));
                }
                let mut found = Vec::with_capacity(args.len());
                for (arg, lane) in args.iter().zip(wanted) {
                    let given = *self.lanes.get(arg.index()).ok_or("an expression uses a later one")?;
                    // A select moves bits of either type.
                    if given != *lane && !(*op == ScalarOp::Select && given == Lane::U32) {
                        return Err(format!("{} takes another type", op.name()));
                    }
                    found.push(given);
                }
                if *op == ScalarOp::Select { found[1] } else { op.result_lane() }
            }
        })
    }
}
