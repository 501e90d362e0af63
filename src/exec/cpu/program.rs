//! Expressions made ready for tiles: which are computed when, and in which register.

use super::arena::Location;
use crate::plan::kernel::{BufferId, Expr, ExprId, SlotId, Word};
use crate::plan::view::View;
use crate::plan::{DType, Distribution};
use crate::scalar::VectorFn;
use std::collections::BTreeMap;

/// How many points a tile holds at most. With the eight or so registers that a fused expression needs at
/// a time, a worker's tile stays in a first-level cache of 32 KiB.
pub const TILE: usize = 512;

/// A row of points that a view reads with one stride, and the dimensions around it.
#[derive(Debug, Clone)]
pub struct Access {
    pub offset: isize,
    /// Size, stride and valid range of each dimension, outermost first; neighbours that are one
    /// stride apart and unmasked are merged.
    pub dims: Vec<AccessDim>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AccessDim {
    pub size: usize,
    pub stride: isize,
    pub valid: (usize, usize),
}

impl Access {
    pub fn new(view: &View, space: &[usize]) -> Access {
        let mut dims: Vec<AccessDim> = Vec::new();
        for d in 0..space.len() {
            let (size, stride) = (space[d], view.strides[d]);
            let valid = view.mask.as_ref().map_or((0, size), |m| m[d]);
            if size == 1 && valid == (0, 1) {
                continue;
            }
            match dims.last_mut() {
                Some(outer)
                    if outer.valid == (0, outer.size)
                        && valid == (0, size)
                        && outer.stride == stride * size as isize =>
                {
                    *outer = AccessDim { size: outer.size * size, stride, valid: (0, outer.size * size) };
                }
                _ => dims.push(AccessDim { size, stride, valid }),
            }
        }
        if dims.is_empty() {
            dims.push(AccessDim { size: 1, stride: 0, valid: (0, 1) });
        }
        Access { offset: view.offset, dims }
    }

    /// Whether point `i` reads element `offset + i`.
    pub fn is_direct(&self) -> bool {
        matches!(self.dims.as_slice(), [d] if (d.stride == 1 || d.size == 1) && d.valid == (0, d.size))
    }
}

/// A word that keys a draw: known, or that u32 of the arena.
#[derive(Debug, Clone, Copy)]
pub enum Key {
    Known(u32),
    At(usize),
}

/// What computes one value of a tile.
#[derive(Debug, Clone)]
pub enum Action {
    Fill(f32),
    /// Reads the buffer that starts at `base`.
    Load {
        base: Location,
        access: Access,
    },
    Inside {
        access: Access,
    },
    Iota {
        access: Access,
        divisor: usize,
        modulus: usize,
        dtype: DType,
    },
    Random {
        distribution: Distribution,
        stream: u64,
        seed: [Key; 2],
        step: Key,
        access: Access,
    },
    Slot(SlotId),
    Accumulator,
    Apply {
        function: VectorFn,
        args: Vec<ExprId>,
    },
}

/// One value of a tile, and the register that it goes to.
#[derive(Debug, Clone)]
pub struct Step {
    pub expr: ExprId,
    pub action: Action,
    pub register: usize,
}

/// The steps that compute some expressions over tiles of one space.
#[derive(Debug, Clone, Default)]
pub struct Program {
    /// Once for many tiles: values that all tiles share.
    pub shared: Vec<Step>,
    /// For each tile.
    pub steps: Vec<Step>,
    /// Registers of [`TILE`] lanes that the steps use.
    pub registers: usize,
    /// One more than the largest expression that is computed.
    pub exprs: usize,
}

/// What a program's tiles range over.
#[derive(Debug, Clone, Copy)]
pub struct TileSpace<'s> {
    /// The shape over which the views are.
    pub shape: &'s [usize],
    /// Dimensions along which tiles repeat with the same shared values; all others vary in a tile.
    pub repeated: &'s [bool],
}

impl Program {
    /// The steps that compute `roots`; `place` says where a buffer is.
    ///
    /// Values that are the same in all tiles of a sweep (constants; in a nest, what does not vary along
    /// the reduced dimensions) are computed once and keep their registers; others share registers.
    pub fn new(exprs: &[Expr], roots: &[ExprId], space: TileSpace, place: &dyn Fn(BufferId) -> Location) -> Program {
        let mut needed = vec![false; exprs.len()];
        roots.iter().for_each(|&r| needed[r] = true);
        for id in (0..exprs.len()).rev() {
            if let (true, Expr::Scalar { args, .. }) = (needed[id], &exprs[id]) {
                args.iter().for_each(|&a| needed[a] = true);
            }
        }
        let mut is_shared = vec![false; exprs.len()];
        for (id, expr) in exprs.iter().enumerate() {
            is_shared[id] = match expr {
                Expr::Constant { .. } => true,
                Expr::Slot(_) => space.repeated.contains(&true),
                Expr::Accumulator => false,
                Expr::Scalar { args, .. } => args.iter().all(|&a| is_shared[a]),
                Expr::Load { view, .. }
                | Expr::Inside { view }
                | Expr::Iota { view, .. }
                | Expr::Random { view, .. } => {
                    space.repeated.contains(&true)
                        && (0..space.shape.len())
                            .all(|d| !space.repeated[d] || (view.strides[d] == 0 && !view.masks(d, space.shape[d])))
                }
            };
        }
        let mut last_use: BTreeMap<ExprId, usize> = BTreeMap::new();
        for (id, expr) in exprs.iter().enumerate().filter(|(id, _)| needed[*id]) {
            if let Expr::Scalar { args, .. } = expr {
                args.iter().for_each(|&a| {
                    last_use.insert(a, id);
                });
            }
        }
        // Roots are read after all steps.
        roots.iter().for_each(|&r| {
            last_use.insert(r, usize::MAX);
        });

        let mut program = Program { exprs: exprs.len(), ..Program::default() };
        for id in (0..exprs.len()).filter(|&id| needed[id] && is_shared[id]) {
            let step = Step { expr: id, action: action(&exprs[id], space.shape, place), register: program.registers };
            program.registers += 1;
            program.shared.push(step);
        }
        let mut free: Vec<usize> = Vec::new();
        let mut register_of: BTreeMap<ExprId, usize> = BTreeMap::new();
        for id in (0..exprs.len()).filter(|&id| needed[id] && !is_shared[id]) {
            // Taken before the operands' registers are free: a step's result never overlaps an operand.
            let register = free.pop().unwrap_or_else(|| {
                program.registers += 1;
                program.registers - 1
            });
            register_of.insert(id, register);
            program.steps.push(Step { expr: id, action: action(&exprs[id], space.shape, place), register });
            if let Expr::Scalar { args, .. } = &exprs[id] {
                for arg in args {
                    if last_use.get(arg) == Some(&id)
                        && let Some(register) = register_of.remove(arg)
                    {
                        free.push(register);
                    }
                }
            }
        }
        program
    }
}

fn action(expr: &Expr, shape: &[usize], place: &dyn Fn(BufferId) -> Location) -> Action {
    let key = |word: &Word| match word {
        Word::Constant(value) => Key::Known(*value),
        Word::Load { buffer, offset } => Key::At(place(*buffer).first() + offset),
    };
    match expr {
        Expr::Constant { value, dtype } => Action::Fill(match dtype {
            DType::F32 | DType::Bf16 => value.0 as f32,
            DType::U32 => f32::from_bits(value.0 as u32),
        }),
        Expr::Load { buffer, view } => Action::Load { base: place(*buffer), access: Access::new(view, shape) },
        Expr::Inside { view } => Action::Inside { access: Access::new(view, shape) },
        Expr::Iota { view, divisor, modulus, dtype } => {
            Action::Iota { access: Access::new(view, shape), divisor: *divisor, modulus: *modulus, dtype: *dtype }
        }
        Expr::Random { distribution, stream, seed, step, view } => Action::Random {
            distribution: *distribution,
            stream: *stream,
            seed: [key(&seed[0]), key(&seed[1])],
            step: key(step),
            access: Access::new(view, shape),
        },
        Expr::Slot(slot) => Action::Slot(*slot),
        Expr::Accumulator => Action::Accumulator,
        Expr::Scalar { op, args } => Action::Apply { function: op.vector_fn(), args: args.clone() },
    }
}
