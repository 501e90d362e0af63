//! The verifier: checks everything that execution relies on, for a plan that may come from an untrusted file.
//!
//! It uses none of the memory planner's code, nor the code by which the compiler decides that a result may overwrite
//! its operand. It checks that every expression is well-typed and reads only inside its buffer and only values that
//! were computed before; every store fills exactly its buffer; no two live buffers overlap, state included; what one
//! kernel writes overlaps nothing that it reads, except element for element; inputs, outputs and state have the
//! declared types.

use super::in_place::{may_overwrite, nests_reading};
use super::limits::{check_bounds, check_divisors, check_names, check_plan_names};
use super::overlap::{Placement, check_no_overlap};
use super::{EntryPlan, Plan};
use crate::kernel::access::{Access, kept_shape};
use crate::kernel::bits::bit_draw;
use crate::kernel::body::{
    Body, BufferId, Contraction, Expr, ExprId, Exprs, Kernel, Nest, Operand, SlotId, Store, TransformBody, Word,
};
use crate::kernel::choice::{Algorithm, Choice, MAX_SPLITS, MAX_TILE, RowSource, ThreadBlocks, Tile};
use crate::kernel::contraction::{ContractionKind, ConvShape};
use crate::kernel::gemm::Gemm;
use crate::kernel::schedule::{ALIGNMENT, Buffer, BufferRole, Schedule, Storage};
use crate::kernel::target::Target;
use crate::scalar::Lane;
use crate::tensor::{DType, Type};
use crate::types::{Feed, InputDecl, MAX_BLOCK, MAX_ELEMENTS, MAX_PADDED, MAX_RANK, ReduceKind};
use crate::winograd::{Direction, Part, TURNED, Transform};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// What is wrong with a plan, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct VerifyError {
    /// Entry and kernel, or the part of the plan.
    pub place: String,
    pub problem: String,
}

/// Most bounds of an access.
const MAX_BOUNDS: usize = 64;
/// Most kept values of a nest.
const MAX_SLOTS: usize = 1024;

pub(super) type Check = Result<(), String>;

macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!($($message)+));
        }
    };
}
pub(super) use ensure;

/// Checks that a plan is fit to run.
///
/// # Errors
/// The first thing found that execution could not rely on.
pub fn verify(plan: &Plan) -> Result<(), VerifyError> {
    check_plan_names(plan).map_err(|problem| VerifyError { place: "names".into(), problem })?;
    let kept = kept(plan).map_err(|problem| VerifyError { place: "state".into(), problem })?;
    states(plan, &kept).map_err(|problem| VerifyError { place: "state".into(), problem })?;
    if let Some(code) = &plan.device_code {
        code.check().map_err(|problem| VerifyError { place: "device code".into(), problem })?;
    }
    let mut names = HashSet::new();
    for entry in &plan.entries {
        let place = || format!("entry `{}`", entry.name.escape_debug());
        if !names.insert((&entry.name, &entry.sizes)) {
            return Err(VerifyError { place: place(), problem: "appears twice".into() });
        }
        check_names(entry).map_err(|problem| VerifyError { place: place(), problem })?;
        buffers(plan, &kept, entry).map_err(|problem| VerifyError { place: place(), problem })?;
        for (position, kernel) in entry.schedule.kernels.iter().enumerate() {
            check_kernel(&entry.schedule, plan.source.target, position, kernel).map_err(|problem| VerifyError {
                place: format!("{}, kernel {position} `{}`", place(), kernel.name),
                problem,
            })?;
        }
        order(entry).map_err(|problem| VerifyError { place: place(), problem })?;
    }
    Ok(())
}

fn elements(shape: &[usize]) -> Result<usize, String> {
    ensure!(shape.len() <= MAX_RANK, "{} dimensions are more than {MAX_RANK}", shape.len());
    let total = shape.iter().try_fold(1usize, |n, &s| n.checked_mul(s));
    match total {
        Some(0) => Err(format!("the shape {shape:?} has no elements")),
        Some(n) if n <= MAX_ELEMENTS => Ok(n),
        _ => Err(format!("the shape {shape:?} has too many elements")),
    }
}

/// What is kept from run to run: the state tensors, and the copies of some for devices that write them too.
fn kept(plan: &Plan) -> Result<BTreeMap<&str, Type>, String> {
    let mut kept = BTreeMap::new();
    for state in &plan.states {
        let is_new = kept.insert(state.name.as_str(), state.ty.clone()).is_none();
        ensure!(is_new, "`{}` is declared twice", state.name);
    }
    let copies = &plan.state_layout.copies;
    ensure!(copies.is_empty() || plan.source.target != Target::Cpu, "a plan for a CPU has no copies of state");
    let mut all = kept.clone();
    for (name, copy) in copies {
        let Some(of) = kept.get(copy.of.as_str()) else {
            return Err(format!("`{name}` is a copy of the undeclared `{}`", copy.of));
        };
        ensure!(of.dtype == DType::F32, "`{name}` is a copy of `{}`, which is of {}", copy.of, of.dtype);
        ensure!(all.insert(name, copy.ty(of)).is_none(), "`{name}` is declared twice");
    }
    Ok(all)
}

/// Places of state tensors, and the orders of their dimensions.
fn states(plan: &Plan, kept: &BTreeMap<&str, Type>) -> Check {
    let layout = &plan.state_layout;
    ensure!(layout.bytes <= isize::MAX as usize, "the state region of {} bytes is too large", layout.bytes);
    let mut placements = Vec::new();
    for (name, ty) in kept {
        let size = elements(&ty.shape)? * ty.dtype.size();
        let Some(&offset) = layout.offsets.get(*name) else {
            return Err(format!("`{name}` has no place"));
        };
        ensure!(offset % ALIGNMENT == 0, "`{name}` at byte {offset} is not aligned");
        placements.push(Placement { start: 0, end: 1, offset, size });
    }
    ensure!(layout.offsets.len() == kept.len(), "there are places for tensors that are not declared");
    for (name, order) in &layout.orders {
        let rank = kept.get(name.as_str()).map(|ty| ty.shape.len());
        ensure!(rank.is_some_and(|rank| is_permutation(order, rank)), "the dimensions of `{name}` are in no order");
    }
    check_no_overlap(&placements, layout.bytes).map_err(|e| e.to_string())?;
    // The region is allocated: it holds the states and nothing else.
    let end = placements.iter().map(|p| p.offset.saturating_add(p.size)).max().unwrap_or(0);
    let region = end.checked_next_multiple_of(ALIGNMENT);
    ensure!(region == Some(layout.bytes), "the state region of {} bytes is larger than the states", layout.bytes);
    Ok(())
}

/// Types, places and live ranges of an entry's buffers.
fn buffers(plan: &Plan, kept: &BTreeMap<&str, Type>, entry: &EntryPlan) -> Check {
    let schedule = &entry.schedule;
    let end = schedule.kernels.len();
    ensure!(schedule.arena_bytes <= isize::MAX as usize, "an arena of {} bytes is too large", schedule.arena_bytes);
    ensure!(plan.state_layout.bytes <= schedule.arena_bytes, "the arena is smaller than the state");
    let mut inputs: BTreeMap<&str, _> = BTreeMap::new();
    for input in &entry.inputs {
        ensure!(inputs.insert(&input.name, &input.ty).is_none(), "input `{}` is declared twice", input.name);
        check_input(input)?;
    }
    let mut seen = HashSet::new();
    let mut placements = Vec::new();
    for buffer in &schedule.buffers {
        let name = &buffer.name;
        elements(&buffer.shape)?;
        let size = buffer.bytes();
        check_storage(plan, buffer)?;
        ensure!(buffer.offset % ALIGNMENT == 0, "buffer `{name}` at byte {} is not aligned", buffer.offset);
        let declared = match &buffer.role {
            BufferRole::State(state) => {
                ensure!(buffer.live == (0, end), "state buffer `{name}` is not live throughout");
                let offset = plan.state_layout.offsets.get(state);
                ensure!(offset == Some(&buffer.offset), "state buffer `{name}` is not at its place");
                kept.get(state.as_str())
            }
            BufferRole::Input(input) => {
                ensure!(buffer.live.0 == 0, "input buffer `{name}` is not live from the start");
                inputs.get(input.as_str()).copied()
            }
            BufferRole::Output | BufferRole::Temporary | BufferRole::Workspace => None,
        };
        check_order(plan, buffer)?;
        if let BufferRole::State(key) | BufferRole::Input(key) = &buffer.role {
            let Some(ty) = declared else { return Err(format!("buffer `{name}` is of the undeclared `{key}`")) };
            ensure!(
                ty.dtype == buffer.dtype && ty.shape == buffer.shape,
                "buffer `{name}` is {}{:?}, declared {ty}",
                buffer.dtype,
                buffer.shape
            );
            ensure!(seen.insert(&buffer.role), "`{key}` has two buffers");
        }
        if !matches!(buffer.role, BufferRole::State(_)) {
            ensure!(buffer.offset >= plan.state_layout.bytes, "buffer `{name}` lies in the state region");
        }
        ensure!(buffer.live.0 < buffer.live.1 || end == 0, "buffer `{name}` is never live");
        ensure!(buffer.live.1 <= end.max(1), "buffer `{name}` outlives the schedule");
        placements.push(Placement { start: buffer.live.0, end: buffer.live.1, offset: buffer.offset, size });
    }
    check_no_overlap(&placements, schedule.arena_bytes).map_err(|e| e.to_string())?;
    check_figures(plan, schedule)?;
    check_workspace(schedule)?;
    for output in &schedule.outputs {
        let Some(buffer) = schedule.buffers.get(output.buffer.index()) else {
            return Err(format!("output `{}` has no buffer", output.name));
        };
        ensure!(buffer.live.1 == end.max(1) || end == 0, "output `{}` does not live to the end", output.name);
        ensure!(elements(&output.shape)? == buffer.elements(), "output `{}` has another size", output.name);
    }
    Ok(())
}

/// That bits are of numbers that no caller sees, for devices that read bits.
fn check_storage(plan: &Plan, buffer: &Buffer) -> Check {
    let fits = buffer.role == BufferRole::Temporary && buffer.dtype == DType::F32 && plan.source.target != Target::Cpu;
    ensure!(buffer.storage == Storage::Elements || fits, "buffer `{}` can't be stored as bits", buffer.name);
    Ok(())
}

fn is_permutation(order: &[usize], rank: usize) -> bool {
    let mut sorted = order.to_vec();
    sorted.sort_unstable();
    sorted.into_iter().eq(0..rank)
}

/// That the order of a buffer's dimensions is one, the same for a state tensor in all entries, and that of what callers
/// read and write row-major on a device that does not reorder it for them.
fn check_order(plan: &Plan, buffer: &Buffer) -> Check {
    let is_order = buffer.order.is_empty() || is_permutation(&buffer.order, buffer.shape.len());
    ensure!(is_order, "the dimensions of buffer `{}` are in no order", buffer.name);
    let is_cpu = plan.source.target == Target::Cpu;
    let is_free = match &buffer.role {
        BufferRole::Temporary => true,
        BufferRole::Output => !is_cpu,
        BufferRole::State(state) => {
            let declared = plan.state_layout.orders.get(state).map_or(&[][..], Vec::as_slice);
            ensure!(buffer.order == declared, "the dimensions of state `{state}` are in two orders");
            !is_cpu
        }
        BufferRole::Input(_) | BufferRole::Workspace => false,
    };
    ensure!(buffer.order.is_empty() || is_free, "buffer `{}` is not row-major", buffer.name);
    Ok(())
}

/// That every workspace belongs to one kernel and lives as long as that runs.
fn check_workspace(schedule: &Schedule) -> Check {
    let mut owned = vec![false; schedule.buffers.len()];
    for (position, kernel) in schedule.kernels.iter().enumerate() {
        for w in &kernel.choice.workspace {
            let Some(buffer) = schedule.buffers.get(w.buffer.index()) else {
                return Err(format!("kernel `{}` has no workspace {}", kernel.name, w.buffer));
            };
            ensure!(buffer.role == BufferRole::Workspace, "kernel `{}` works in `{}`", kernel.name, buffer.name);
            ensure!(!std::mem::replace(&mut owned[w.buffer.index()], true), "`{}` is used twice", buffer.name);
            ensure!(buffer.live == (position, position + 1), "workspace `{}` lives at another time", buffer.name);
        }
    }
    let unused = schedule.buffers.iter().zip(owned).find(|(b, owned)| b.role == BufferRole::Workspace && !owned);
    match unused {
        Some((buffer, _)) => Err(format!("no kernel works in `{}`", buffer.name)),
        None => Ok(()),
    }
}

/// That a kernel's algorithm fits its body, and has the workspace that it needs.
fn check_choice(schedule: &Schedule, target: Target, kernel: &Kernel) -> Check {
    let Choice { algorithm, workspace } = &kernel.choice;
    ensure!(algorithm.fits(&kernel.body), "`{algorithm}` does not compute such a kernel");
    ensure!(algorithm.suits(target), "`{algorithm}` is not for the plan's target");
    if let Algorithm::ThreadBlocks(ThreadBlocks { warps, stages, splits, .. }) = algorithm {
        let of_use = (1..=32).contains(&warps[0].saturating_mul(warps[1])) && (1..=8).contains(stages);
        ensure!(of_use && (1..=MAX_SPLITS).contains(splits), "`{algorithm}` is not something that can be launched");
    }
    if let Some(Tile { rows, columns, depth }) = algorithm.tile() {
        let fits = |size: usize| (1..=MAX_TILE).contains(&size);
        ensure!(fits(rows) && fits(columns) && fits(depth), "a tile of {rows}x{columns}x{depth} has no use");
    }
    if let (Algorithm::Images(images), Body::Contraction(c)) = (algorithm, &kernel.body) {
        let gemms = c.kind.gemms();
        let gathered = gemms.iter().zip(&images.rows).filter(|(_, rows)| **rows == RowSource::Gathered);
        let most = gathered.map(|(gemm, _)| gemm.gathered()).max().unwrap_or(0);
        ensure!(most <= MAX_BLOCK, "{most} elements of an image's rows are gathered, more than {MAX_BLOCK}");
    }
    let dtype = |b: &BufferId| schedule.buffers[b.index()].dtype;
    ensure!(algorithm.reads_operands(&kernel.body, dtype), "`{algorithm}` does not read operands of their types");
    let needed: Vec<_> =
        algorithm.workspace(&kernel.body, dtype).into_iter().filter(|(_, floats)| *floats > 0).collect();
    ensure!(needed.len() == workspace.len(), "the workspace is not what `{algorithm}` needs");
    for ((purpose, floats), w) in needed.into_iter().zip(workspace) {
        let buffer = &schedule.buffers[w.buffer.index()];
        let fits = w.purpose == purpose && buffer.dtype == DType::F32 && buffer.elements() == floats;
        ensure!(fits, "the workspace for the {} is not {floats} floats", purpose.name());
    }
    Ok(())
}

/// That an input's type is one that what feeds it can give.
fn check_input(input: &InputDecl) -> Check {
    elements(&input.ty.shape)?;
    let (dtype, shape) = (input.ty.dtype, input.ty.shape.as_slice());
    let fits = match input.feed {
        Feed::Seed => dtype == DType::U32 && shape == [2],
        Feed::Images => dtype == DType::F32 && shape.len() > 1,
        Feed::Labels => dtype == DType::U32 && shape.len() == 1,
        Feed::Caller => true,
    };
    ensure!(fits, "input `{}` cannot be {} of {:?}", input.name, input.ty, input.feed);
    ensure!(input.below != Some(0), "input `{}` has no values that it may have", input.name);
    Ok(())
}

/// That the arena is no larger than what is in it, and the lower bound what the live ranges make it: the first is
/// allocated, the second is shown to people.
fn check_figures(plan: &Plan, schedule: &Schedule) -> Check {
    let mut end = plan.state_layout.bytes;
    let mut changes: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
    for buffer in schedule.buffers.iter().filter(|b| !matches!(b.role, BufferRole::State(_))) {
        let bytes = buffer.bytes().next_multiple_of(ALIGNMENT);
        end = end.max(buffer.offset + bytes);
        changes.entry(buffer.live.0).or_default().0 += bytes;
        changes.entry(buffer.live.1).or_default().1 += bytes;
    }
    let (arena, claimed) = (schedule.arena_bytes, schedule.lower_bound);
    ensure!(arena <= end.next_multiple_of(ALIGNMENT), "the arena of {arena} bytes is larger than the {end} in use");
    let (mut live, mut most) = (0usize, 0);
    for (begun, ended) in changes.into_values() {
        live = (live + begun).saturating_sub(ended);
        most = most.max(live);
    }
    let bound = plan.state_layout.bytes + most;
    ensure!(claimed == bound, "the lower bound is {bound} bytes, not {claimed}");
    Ok(())
}

/// Values are written before they are read, and read before they are overwritten.
fn order(entry: &EntryPlan) -> Check {
    let schedule = &entry.schedule;
    let given = |b: &crate::kernel::schedule::Buffer| matches!(b.role, BufferRole::Input(_) | BufferRole::State(_));
    let mut written: Vec<bool> = schedule.buffers.iter().map(given).collect();
    for (position, kernel) in schedule.kernels.iter().enumerate() {
        for &b in &kernel.reads {
            let buffer = &schedule.buffers[b.index()];
            ensure!(written[b.index()], "kernel `{}` reads `{}` before it is written", kernel.name, buffer.name);
            // A buffer that hands its place on is read in the kernel at which its live range ends; what
            // that kernel writes there is checked beside.
            let live = buffer.live.0 <= position && position <= buffer.live.1;
            ensure!(live, "kernel `{}` reads `{}` outside of its live range", kernel.name, buffer.name);
        }
        for &b in &kernel.writes {
            let buffer = &schedule.buffers[b.index()];
            let live = buffer.live.0 <= position && position < buffer.live.1;
            ensure!(live, "kernel `{}` writes `{}` outside of its live range", kernel.name, buffer.name);
            ensure!(
                !matches!(buffer.role, BufferRole::Input(_)),
                "kernel `{}` writes the input `{}`",
                kernel.name,
                buffer.name
            );
            written[b.index()] = true;
        }
    }
    for output in &schedule.outputs {
        ensure!(written[output.buffer.index()], "output `{}` is never written", output.name);
    }
    Ok(())
}

fn check_kernel(schedule: &Schedule, target: Target, position: usize, kernel: &Kernel) -> Check {
    let reads: BTreeSet<BufferId> = kernel.body.reads().copied().collect();
    let writes: BTreeSet<BufferId> = kernel.body.stores().map(|store| store.buffer).collect();
    let stores = kernel.body.stores().count();
    ensure!(kernel.reads.iter().copied().eq(reads.iter().copied()), "the list of buffers read is wrong");
    ensure!(kernel.writes.iter().copied().eq(writes.iter().copied()), "the list of buffers written is wrong");
    ensure!(stores == writes.len(), "a buffer is written twice");
    ensure!(stores > 0, "nothing is written");
    for &b in reads.iter().chain(&writes) {
        ensure!(b.index() < schedule.buffers.len(), "there is no buffer {b}");
    }
    match &kernel.body {
        Body::Nests(nests) => nests.iter().try_for_each(|nest| check_nest(schedule, nest))?,
        Body::Contraction(contraction) => check_contraction(schedule, contraction)?,
        Body::Transform(transform) => check_transform(schedule, transform)?,
    }
    check_choice(schedule, target, kernel)?;
    let buffer = |b: BufferId| &schedule.buffers[b.index()];
    let range = |b: BufferId| (buffer(b).span().start, buffer(b).span().end);
    let size = |b: BufferId| buffer(b).dtype.size();
    let has_elements = |b: BufferId| buffer(b).storage == Storage::Elements;
    for w in kernel.choice.workspace.iter().map(|w| w.buffer) {
        for &other in reads.iter().chain(&writes) {
            ensure!(!buffer(other).overlaps(buffer(w)), "`{}` lies in the workspace", buffer(other).name);
        }
    }
    let reading = nests_reading(&kernel.body);
    let reads = reads.into_iter().map(|b| (range(b), b, false));
    let mut places: Vec<_> = reads.chain(writes.into_iter().map(|b| (range(b), b, true))).collect();
    places.sort_unstable();
    // Those that begin before the next one and have not ended: one or two, or the kernel is wrong.
    let mut open: Vec<((usize, usize), BufferId, bool)> = Vec::new();
    for (place, b, is_written) in places {
        open.retain(|&((_, end), ..)| end > place.0);
        for &(other_place, other, other_is_written) in &open {
            ensure!(!(is_written && other_is_written), "two results overlap");
            if is_written == other_is_written {
                continue;
            }
            let (r, w) = if is_written { (other, b) } else { (b, other) };
            ensure!(
                place == other_place
                    && size(r) == size(w)
                    && has_elements(r)
                    && has_elements(w)
                    && may_overwrite(&kernel.body, &reading, r, w),
                "at position {position} `{}` is written over `{}`, which is still read",
                buffer(w).name,
                buffer(r).name
            );
        }
        open.push((place, b, is_written));
    }
    Ok(())
}

/// That an access has a stride for each dimension of a space, and that no sum of theirs overflows.
fn check_access(access: &Access, space: &[usize]) -> Check {
    let fits = |offset: isize, strides: &[isize]| {
        let is_small = |x: isize| x.unsigned_abs() <= MAX_ELEMENTS;
        strides.len() == space.len() && is_small(offset) && strides.iter().all(|&stride| is_small(stride))
    };
    ensure!(fits(access.offset, &access.strides), "an access does not fit its index space");
    for bound in &access.bounds {
        ensure!(fits(bound.offset, &bound.strides), "a bound does not fit its index space");
        ensure!(bound.below <= MAX_ELEMENTS, "a bound is beyond the elements of any tensor");
    }
    ensure!(access.bounds.len() <= MAX_BOUNDS, "{} bounds are more than {MAX_BOUNDS}", access.bounds.len());
    check_bounds(access, space)
}

/// That all expressions are well-typed, those too that nothing needs: executors prepare them all.
fn check_exprs(
    schedule: &Schedule,
    exprs: &Exprs<BufferId>,
    space: &[usize],
    slots: usize,
    has_accumulator: bool,
) -> Check {
    exprs.check()?;
    for expr in exprs.iter() {
        expr.access().map_or(Ok(()), |access| check_access(access, space))?;
        check_divisors(expr)?;
        match expr {
            Expr::Load { buffer, lane, .. } => {
                let Some(buffer) = schedule.buffers.get(buffer.index()) else {
                    return Err(format!("there is no buffer {buffer}"));
                };
                ensure!(buffer.dtype.lane() == *lane, "`{}` is read as another type", buffer.name);
            }
            Expr::Random { seed: [a, b], step, .. } => {
                for word in [a, b, step] {
                    if let Word::Load { buffer, offset } = word {
                        let buffer = schedule.buffers.get(buffer.index());
                        let fits = buffer.is_some_and(|b| b.dtype == DType::U32 && *offset < b.elements());
                        ensure!(fits, "a draw's key is not in a u32 buffer");
                    }
                }
            }
            Expr::Slot(slot) => ensure!(slot.index() < slots, "there is no slot {slot}"),
            Expr::Accumulator => ensure!(has_accumulator, "there is no accumulator"),
            Expr::Constant { .. } | Expr::Inside { .. } | Expr::Iota { .. } | Expr::Scalar { .. } => {}
        }
    }
    Ok(())
}

/// Every expression that `roots` need reads inside its buffer over `space`, and only defined slots.
fn reads_inside(
    schedule: &Schedule,
    exprs: &Exprs<BufferId>,
    roots: &[ExprId],
    space: &[usize],
    defined: &[bool],
) -> Check {
    for root in roots {
        ensure!(root.index() < exprs.len(), "there is no expression {root}");
    }
    let within = |access: &Access, elements: usize| match access.element_range(space) {
        Ok(None) => Ok(()),
        Ok(Some((least, greatest))) if least >= 0 && (greatest as usize) < elements => Ok(()),
        Ok(Some((least, greatest))) => Err(format!("an access reaches {least}..={greatest} of {elements} elements")),
        Err(e) => Err(e.to_string()),
    };
    let needed = exprs.needed(roots.iter().copied());
    for (expr, _) in exprs.iter().zip(needed).filter(|(_, needed)| *needed) {
        match expr {
            Expr::Load { buffer, access, .. } => within(access, schedule.buffers[buffer.index()].elements())?,
            Expr::Inside { access } => {
                let bounds_alone = Access { offset: 0, strides: vec![0; access.strides.len()], ..access.clone() };
                within(&bounds_alone, 1)?;
            }
            Expr::Iota { access, .. } | Expr::Random { access, .. } => within(access, MAX_ELEMENTS)?,
            Expr::Slot(slot) => ensure!(defined[slot.index()], "slot {slot} is read before it is computed"),
            Expr::Constant { .. } | Expr::Accumulator | Expr::Scalar { .. } => {}
        }
    }
    Ok(())
}

/// That a store writes every element of its buffer once, and elements of the buffer's type.
fn check_store(schedule: &Schedule, exprs: &Exprs<BufferId>, store: &Store<BufferId>, space: &[usize]) -> Check {
    let buffer = &schedule.buffers[store.buffer.index()];
    let elements = elements(space)?;
    ensure!(
        buffer.elements() == elements,
        "`{}` has {} elements, {elements} are written",
        buffer.name,
        buffer.elements()
    );
    check_access(&store.access, space)?;
    ensure!(store.access.is_bijective(space), "a store does not fill `{}`", buffer.name);
    ensure!(store.value.index() < exprs.len(), "a store of no expression");
    ensure!(buffer.dtype.lane() == exprs.lane(store.value), "`{}` gets another type", buffer.name);
    Ok(())
}

fn check_nest(schedule: &Schedule, nest: &Nest<BufferId>) -> Check {
    ensure!(nest.reduced.len() == nest.space.len(), "the space has two ranks");
    ensure!(nest.slots <= MAX_SLOTS, "{} slots are more than {MAX_SLOTS}", nest.slots);
    elements(&nest.space)?;
    let kept_space = kept_shape(&nest.space, &nest.reduced);
    let exprs = &nest.exprs;
    check_exprs(schedule, exprs, &nest.space, nest.slots, false)?;
    let is_elementwise = !nest.reduced.contains(&true);
    ensure!(!is_elementwise || nest.sweeps.len() <= 1, "an elementwise nest has several sweeps");
    let mut defined = vec![false; nest.slots];
    let define = |slot: SlotId, defined: &mut [bool]| -> Check {
        let slot = defined.get_mut(slot.index()).ok_or("a value into no slot")?;
        ensure!(!std::mem::replace(slot, true), "a slot is computed twice");
        Ok(())
    };
    let bits = nest.stores().map(|store| &schedule.buffers[store.buffer.index()]).find(|b| b.storage == Storage::Bits);
    if let Some(buffer) = bits {
        ensure!(bit_draw(nest).is_some(), "the bits `{}` are not drawn by a nest of their own", buffer.name);
    }
    for sweep in &nest.sweeps {
        reads_inside(schedule, exprs, &sweep.swept().collect::<Vec<_>>(), &nest.space, &defined)?;
        for store in &sweep.stores {
            check_store(schedule, exprs, store, &nest.space)?;
        }
        ensure!(
            !is_elementwise || (sweep.reductions.is_empty() && sweep.kept.is_empty() && sweep.kept_stores.is_empty()),
            "an elementwise nest reduces"
        );
        for reduction in &sweep.reductions {
            ensure!(exprs.lane(reduction.value) == Lane::Real, "a reduction of another type");
            ensure!(reduction.kind != ReduceKind::Deviations, "a nest reduces to deviations in one sweep");
            define(reduction.slot, &mut defined)?;
        }
        for &(slot, value) in &sweep.kept {
            reads_inside(schedule, exprs, &[value], &kept_space, &defined)?;
            ensure!(exprs.lane(value) == Lane::Real, "a slot of another type");
            define(slot, &mut defined)?;
        }
        for store in &sweep.kept_stores {
            reads_inside(schedule, exprs, &[store.value], &kept_space, &defined)?;
            check_store(schedule, exprs, store, &kept_space)?;
        }
    }
    Ok(())
}

/// That a transform reads and writes whole buffers, rounding perhaps what it writes, of the sizes that it takes one to the other.
fn check_transform(schedule: &Schedule, t: &TransformBody<BufferId>) -> Check {
    ensure!(t.transform.is_sound(), "a transform is of no convolution");
    let [down, across] = t.transform.axes.map(|axis| axis.size(t.transform.part));
    let map = vec![t.planes[0], t.planes[1], down, across];
    let to_points = Transform { direction: Direction::ToPoints, ..t.transform };
    elements(&map)?;
    let points = to_points.result(&map).ok_or("a transform has too many elements")?;
    elements(&points)?;
    let (operand, result) = match t.transform.direction {
        Direction::ToPoints => (map, points),
        Direction::FromPoints => (points, map),
    };
    let holds = |id: BufferId, shape: &[usize], dtypes: &[DType]| {
        let buffer = &schedule.buffers[id.index()];
        dtypes.contains(&buffer.dtype)
            && buffer.storage == Storage::Elements
            && buffer.elements() == shape.iter().product::<usize>()
    };
    ensure!(holds(t.operand, &operand, &[DType::F32]), "the operand of a transform has another size");
    ensure!(
        t.space == result && holds(t.store.buffer, &result, &[DType::F32, DType::Bf16]),
        "the result of a transform has another size"
    );
    ensure!(schedule.buffers[t.operand.index()].order.is_empty(), "the operand of a transform is not row-major");
    let is_sum = t.exprs.len() == 1 && matches!(t.exprs[t.store.value], Expr::Accumulator);
    ensure!(is_sum, "a transform stores something else than its sums");
    let to_filter = (t.transform.part, t.transform.direction) == (Part::Filter, Direction::ToPoints);
    let written = &schedule.buffers[t.store.buffer.index()];
    let is_in_order = match written.order[..] {
        [] => t.store.access.is_contiguous(&result),
        ref order => {
            to_filter
                && *order == TURNED
                && written.shape == result
                && t.store.access == Access::ordered(&result, &TURNED)
        }
    };
    ensure!(is_in_order, "a transform writes its points in another order than their buffer has");
    Ok(())
}

fn check_contraction(schedule: &Schedule, contraction: &Contraction<BufferId>) -> Check {
    match contraction.kind {
        ContractionKind::Conv2d(c) | ContractionKind::Conv2dInputGrad(c) | ContractionKind::Conv2dFilterGrad(c) => {
            check_conv(&c)?;
        }
        ContractionKind::MatMul { .. } => {}
    }
    let (operand_shapes, output) = contraction.kind.shapes();
    let total = elements(&output)?;
    check_gemms(&contraction.kind)?;
    for (operand, shape) in contraction.operands.iter().zip(&operand_shapes) {
        elements(shape)?;
        match operand {
            Operand::Buffer { buffer, access } => {
                check_access(access, shape)?;
                let buffer = schedule.buffers.get(buffer.index()).ok_or("an operand is in no buffer")?;
                ensure!(
                    buffer.dtype.is_real() && buffer.storage == Storage::Elements,
                    "an operand is not stored as real numbers"
                );
                ensure!(access.bounds.is_empty(), "an operand is padded");
                match access.element_range(shape) {
                    Ok(Some((least, greatest))) => {
                        ensure!(least >= 0 && (greatest as usize) < buffer.elements(), "an operand leaves its buffer");
                    }
                    _ => return Err("an operand's access does not fit".into()),
                }
            }
            Operand::Computed { exprs, staged } => {
                check_exprs(schedule, exprs, shape, 0, false)?;
                let Some(value) = exprs.last() else { return Err("a prologue computes nothing".into()) };
                ensure!(exprs.lane(value) == Lane::Real, "an operand is not f32");
                if let Some(staged) = staged {
                    let can_be = match exprs.get(*staged) {
                        Some(Expr::Load { buffer, access, .. }) => {
                            let buffer = &schedule.buffers[buffer.index()];
                            let holds = buffer.dtype == DType::F32 && buffer.storage == Storage::Elements;
                            holds && access.bounds.is_empty()
                        }
                        _ => false,
                    };
                    ensure!(can_be && contraction.kind.is_one_product(), "what a prologue reads cannot be staged");
                }
                let read: Vec<ExprId> = [value].into_iter().chain(*staged).collect();
                reads_inside(schedule, exprs, &read, shape, &[])?;
            }
        }
    }
    ensure!(elements(&contraction.space)? == total, "the epilogue's space is not the output's");
    check_exprs(schedule, &contraction.exprs, &contraction.space, 0, true)?;
    let finish = &contraction.finish;
    for buffer in contraction.stores.iter().chain(&finish.stores).map(|store| store.buffer) {
        let buffer = &schedule.buffers[buffer.index()];
        ensure!(buffer.storage == Storage::Elements, "an epilogue writes the bits `{}`", buffer.name);
    }
    for store in &contraction.stores {
        reads_inside(schedule, &contraction.exprs, &[store.value], &contraction.space, &[])?;
        check_store(schedule, &contraction.exprs, store, &contraction.space)?;
    }
    ensure!(contraction.reduced.len() == contraction.space.len(), "the epilogue's space has two ranks");
    ensure!(
        contraction.reduced.contains(&true) != contraction.reductions.is_empty(),
        "an epilogue reduces over nothing, or nothing"
    );
    ensure!(
        contraction.reductions.is_empty() == finish.stores.is_empty(),
        "an epilogue reduces for nothing, or stores what it does not reduce"
    );
    let slots = contraction.reductions.len();
    ensure!(slots <= MAX_SLOTS, "{slots} reductions are more than {MAX_SLOTS}");
    for reduction in &contraction.reductions {
        reads_inside(schedule, &contraction.exprs, &[reduction.value], &contraction.space, &[])?;
        ensure!(contraction.exprs.lane(reduction.value) == Lane::Real, "a reduction of another type");
    }
    let kept = kept_shape(&contraction.space, &contraction.reduced);
    check_exprs(schedule, &finish.exprs, &kept, slots, false)?;
    let defined = vec![true; slots];
    for store in &finish.stores {
        reads_inside(schedule, &finish.exprs, &[store.value], &kept, &defined)?;
        check_store(schedule, &finish.exprs, store, &kept)?;
    }
    Ok(())
}

/// That the matrix products that a contraction comes to stay inside its operands, and give every result once.
fn check_gemms(kind: &ContractionKind) -> Check {
    let ([first, second], output) = kind.shapes();
    let [first, second, total] = [elements(&first)?, elements(&second)?, elements(&output)?];
    let [a, b] = kind.in_product_order([first, second]);
    let gemms = kind.gemms();
    for gemm in &gemms {
        let groups = [
            ([&gemm.m, &gemm.k], &gemm.a, a),
            ([&gemm.k, &gemm.n], &gemm.b, b),
            ([&gemm.m, &gemm.n], &gemm.out, total),
        ];
        for (groups, access, size) in groups {
            let space = gemm.space(groups);
            let range = if space.contains(&0) { Ok(None) } else { access.element_range(&space) };
            match range {
                Ok(None) => {}
                Ok(Some((least, greatest))) if least >= 0 && (greatest as usize) < size => {}
                _ => return Err("a matrix product leaves its operands".into()),
            }
        }
    }
    ensure!(gemms.iter().map(Gemm::results).sum::<usize>() == total, "results are missing");
    Ok(())
}

fn check_conv(c: &ConvShape) -> Check {
    for i in 0..2 {
        ensure!(c.window.stride[i] > 0 && c.kernel[i] > 0, "a window has a size of 0");
        let room = (c.window.pad[i].checked_mul(2))
            .and_then(|p| p.checked_add(c.input[i]))
            .and_then(|padded| padded.checked_sub(c.kernel[i]));
        ensure!(
            room.is_some_and(|room| room / c.window.stride[i] + 1 == c.output[i]),
            "a convolution's sizes do not fit"
        );
        let padded = c.input[i] + 2 * c.window.pad[i];
        ensure!(padded.max(c.window.stride[i]) <= MAX_PADDED, "a stride or padding is too large");
    }
    // What executors make room for: the images with their padding.
    elements(&[c.n, c.c, c.input[0] + 2 * c.window.pad[0], c.input[1] + 2 * c.window.pad[1]])?;
    c.window.check_room(c.c, c.input, c.kernel)?;
    for shape in [c.input_shape(), c.filter_shape(), c.output_shape()] {
        elements(&shape)?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "bits_tests.rs"]
mod bits_tests;

#[cfg(test)]
#[path = "prologue_tests.rs"]
mod prologue_tests;
