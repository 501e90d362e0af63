//! Expressions made ready for tiles: which are computed when, and in which register.

use super::arena::Location;
use crate::kernel::access::Access;
use crate::kernel::body::{BufferId, Expr, ExprId, Exprs, Word};
use crate::plan::{DType, Distribution};
use crate::scalar::{VectorFn, pair};
use std::collections::BTreeMap;

/// How many points a tile holds at most. With the eight or so registers that a fused expression needs at
/// a time, a worker's tile stays in a first-level cache.
pub const TILE: usize = 512;
/// Bytes of registers that leave enough of a first-level cache of 32 KiB to what is read and written.
const REGISTERS: usize = 20 << 10;

/// An access made ready: rows of points that it reads with one stride, and the dimensions around them.
#[derive(Debug, Clone)]
pub struct Reader {
    pub offset: isize,
    /// Size, stride and valid range of each dimension, outermost first; neighbours that are one
    /// stride apart and unbounded are merged.
    pub dims: Vec<ReaderDim>,
    /// Bounds on several dimensions.
    pub joint: Vec<JointBound>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReaderDim {
    pub size: usize,
    pub stride: isize,
    pub valid: (usize, usize),
}

/// `0 ≤ offset + Σ i[d]·strides[d] < below`, with a stride for each of a reader's dimensions.
#[derive(Debug, Clone, PartialEq)]
pub struct JointBound {
    pub offset: isize,
    pub strides: Vec<isize>,
    pub below: usize,
}

impl Reader {
    pub fn new(access: &Access, space: &[usize]) -> Reader {
        let (ranges, joint) = access.ranges(space);
        let mut dims: Vec<ReaderDim> = Vec::new();
        // The innermost dimension of the space that is in each.
        let mut inner: Vec<usize> = Vec::new();
        for d in 0..space.len() {
            let (size, stride, valid) = (space[d], access.strides[d], ranges[d]);
            if size == 1 && valid == (0, 1) {
                continue;
            }
            let merges = |outer: &ReaderDim, innermost: usize| {
                outer.valid == (0, outer.size)
                    && valid == (0, size)
                    && outer.stride == stride * size as isize
                    && joint.iter().all(|b| b.strides[innermost] == b.strides[d] * size as isize)
            };
            match (dims.last_mut(), inner.last_mut()) {
                (Some(outer), Some(innermost)) if merges(outer, *innermost) => {
                    let size = outer.size * size;
                    *outer = ReaderDim { size, stride, valid: (0, size) };
                    *innermost = d;
                }
                _ => {
                    dims.push(ReaderDim { size, stride, valid });
                    inner.push(d);
                }
            }
        }
        if dims.is_empty() {
            // One point, or none inside a bound that never holds.
            let valid = if joint.iter().any(|b| b.below == 0) { (0, 0) } else { (0, 1) };
            return Reader {
                offset: access.offset,
                dims: vec![ReaderDim { size: 1, stride: 0, valid }],
                joint: Vec::new(),
            };
        }
        let joint = (joint.into_iter())
            .map(|b| JointBound {
                offset: b.offset,
                strides: inner.iter().map(|&d| b.strides[d]).collect(),
                below: b.below,
            })
            .collect();
        Reader { offset: access.offset, dims, joint }
    }

    /// Whether point `i` reads element `offset + i`.
    pub fn is_direct(&self) -> bool {
        self.joint.is_empty()
            && matches!(self.dims.as_slice(), [d] if (d.stride == 1 || d.size == 1) && d.valid == (0, d.size))
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
    /// Takes float `first + i` of the arena for point `i`, where it is.
    Read {
        first: usize,
    },
    /// Reads the buffer that starts at `base`.
    Load {
        base: Location,
        reader: Reader,
    },
    Inside {
        reader: Reader,
    },
    Iota {
        reader: Reader,
        divisor: usize,
        modulus: usize,
        dtype: DType,
    },
    Random {
        distribution: Distribution,
        stream: u64,
        seed: [Key; 2],
        step: Key,
        reader: Reader,
    },
    Slot(usize),
    Accumulator,
    Apply {
        function: VectorFn,
        args: Operands,
    },
}

/// Most operands of a scalar operation.
pub const MAX_ARITY: usize = 4;

/// The operands of a scalar operation.
#[derive(Debug, Clone, Copy)]
pub struct Operands {
    exprs: [ExprId; MAX_ARITY],
    count: usize,
}

impl Operands {
    fn new(args: &[ExprId]) -> Operands {
        let mut exprs = [ExprId::new(0); MAX_ARITY];
        exprs[..args.len()].copy_from_slice(args);
        Operands { exprs, count: args.len() }
    }

    #[inline(always)]
    pub fn all(&self) -> &[ExprId] {
        &self.exprs[..self.count]
    }
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
pub struct TileProgram {
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
    /// The shape over which the accesses are.
    pub shape: &'s [usize],
    /// Dimensions along which tiles repeat with the same shared values; all others vary in a tile.
    pub repeated: &'s [bool],
}

impl TileProgram {
    /// The steps that compute `roots`; `place` says where a buffer is.
    ///
    /// Values that are the same in all tiles of a sweep (constants; in a nest, what does not vary along
    /// the reduced dimensions) are computed once and keep their registers; others share registers.
    pub fn new(
        exprs: &Exprs<BufferId>,
        roots: &[ExprId],
        space: TileSpace,
        place: &dyn Fn(BufferId) -> Location,
    ) -> TileProgram {
        let needed = exprs.needed(roots.iter().copied());
        let mut is_shared = vec![false; exprs.len()];
        for (id, expr) in exprs.iter().enumerate() {
            is_shared[id] = match expr {
                Expr::Constant { .. } => true,
                Expr::Slot(_) => space.repeated.contains(&true),
                Expr::Accumulator => false,
                Expr::Scalar { args, .. } => args.iter().all(|a| is_shared[a.index()]),
                Expr::Load { access, .. }
                | Expr::Inside { access }
                | Expr::Iota { access, .. }
                | Expr::Random { access, .. } => {
                    let is_fixed = |d: usize| access.strides[d] == 0 && !access.is_bounded(d);
                    space.repeated.contains(&true) && (0..space.shape.len()).all(|d| !space.repeated[d] || is_fixed(d))
                }
            };
        }
        let is_step = |id: ExprId| needed[id.index()] && !is_shared[id.index()];
        let pairs = pairs(exprs, roots, &is_step, &needed);
        let mut is_absorbed = vec![false; exprs.len()];
        pairs.values().for_each(|pair| is_absorbed[pair.first.index()] = true);
        let args = |id: ExprId| pairs.get(&id).map_or(exprs[id].args(), |pair| &pair.args);
        let mut last_use: BTreeMap<ExprId, usize> = BTreeMap::new();
        for id in exprs.ids().filter(|id| needed[id.index()]) {
            last_use.extend(args(id).iter().map(|&arg| (arg, id.index())));
        }
        // Roots are read after all steps.
        roots.iter().for_each(|&r| {
            last_use.insert(r, usize::MAX);
        });

        let mut program = TileProgram { exprs: exprs.len(), ..TileProgram::default() };
        for id in exprs.ids().filter(|id| needed[id.index()] && is_shared[id.index()]) {
            let step = Step { expr: id, action: action(&exprs[id], space.shape, place), register: program.registers };
            program.registers += 1;
            program.shared.push(step);
        }
        let mut free: Vec<usize> = Vec::new();
        let mut register_of: BTreeMap<ExprId, usize> = BTreeMap::new();
        for id in exprs.ids().filter(|&id| is_step(id) && !is_absorbed[id.index()]) {
            // Taken before the operands' registers are free: a step's result never overlaps an operand.
            let register = free.pop().unwrap_or_else(|| {
                program.registers += 1;
                program.registers - 1
            });
            register_of.insert(id, register);
            let action = match pairs.get(&id) {
                Some(pair) => Action::Apply { function: pair.function, args: Operands::new(&pair.args) },
                None => action(&exprs[id], space.shape, place),
            };
            program.steps.push(Step { expr: id, action, register });
            for arg in args(id) {
                if last_use.get(arg) == Some(&id.index())
                    && let Some(register) = register_of.remove(arg)
                {
                    free.push(register);
                }
            }
        }
        program
    }

    /// How many points a tile of the program holds at best: half of what it may where its registers are many.
    pub fn tile(&self) -> usize {
        if self.registers * TILE * size_of::<f32>() <= REGISTERS { TILE } else { TILE / 2 }
    }

    /// The kept values that are read.
    pub fn slots(&self) -> impl Iterator<Item = usize> {
        self.shared.iter().chain(&self.steps).filter_map(|step| match step.action {
            Action::Slot(slot) => Some(slot),
            _ => None,
        })
    }
}

/// An operation that is computed together with the one that makes an operand of it.
#[derive(Debug)]
struct Pair {
    function: VectorFn,
    /// The operand that has no step of its own.
    first: ExprId,
    /// Its operands, and the other one of the second operation.
    args: [ExprId; 3],
}

/// The second operations of pairs: of arithmetic, the first with no other use.
fn pairs(
    exprs: &Exprs<BufferId>,
    roots: &[ExprId],
    is_step: &dyn Fn(ExprId) -> bool,
    needed: &[bool],
) -> BTreeMap<ExprId, Pair> {
    let mut uses = vec![0usize; exprs.len()];
    roots.iter().for_each(|root| uses[root.index()] += 1);
    for id in exprs.ids().filter(|id| needed[id.index()]) {
        exprs[id].args().iter().for_each(|arg| uses[arg.index()] += 1);
    }
    let mut found: BTreeMap<ExprId, Pair> = BTreeMap::new();
    for id in exprs.ids().filter(|&id| is_step(id)) {
        let Expr::Scalar { op: second, args } = &exprs[id] else { continue };
        let &[a, b] = &args[..] else { continue };
        let together = |place: usize, first: ExprId, other: ExprId| match &exprs[first] {
            Expr::Scalar { op, args } if is_step(first) && uses[first.index()] == 1 && !found.contains_key(&first) => {
                let &[x, y] = &args[..] else { return None };
                Some(Pair { function: pair(*op, *second, place)?, first, args: [x, y, other] })
            }
            _ => None,
        };
        if let Some(pair) = together(0, a, b).or_else(|| together(1, b, a)) {
            found.insert(id, pair);
        }
    }
    found
}

fn action(expr: &Expr<BufferId>, shape: &[usize], place: &dyn Fn(BufferId) -> Location) -> Action {
    let key = |word: &Word<BufferId>| match word {
        Word::Constant(value) => Key::Known(*value),
        Word::Load { buffer, offset } => Key::At(place(*buffer).first() + offset),
    };
    match expr {
        Expr::Constant { value, dtype } => Action::Fill(match dtype {
            DType::F32 | DType::Bf16 => value.0 as f32,
            DType::U32 => f32::from_bits(value.0 as u32),
        }),
        Expr::Load { buffer, access, .. } => {
            let (base, reader) = (place(*buffer), Reader::new(access, shape));
            match base.first().checked_add_signed(reader.offset) {
                Some(first) if reader.is_direct() && base.dtype != DType::Bf16 => Action::Read { first },
                _ => Action::Load { base, reader },
            }
        }
        Expr::Inside { access } => Action::Inside { reader: Reader::new(access, shape) },
        Expr::Iota { access, divisor, modulus, dtype } => {
            Action::Iota { reader: Reader::new(access, shape), divisor: *divisor, modulus: *modulus, dtype: *dtype }
        }
        Expr::Random { distribution, stream, seed, step, access } => Action::Random {
            distribution: *distribution,
            stream: *stream,
            seed: [key(&seed[0]), key(&seed[1])],
            step: key(step),
            reader: Reader::new(access, shape),
        },
        Expr::Slot(slot) => Action::Slot(slot.index()),
        Expr::Accumulator => Action::Accumulator,
        Expr::Scalar { op, args } => Action::Apply { function: op.vector_fn(), args: Operands::new(args) },
    }
}
