//! Names and numbers that a plan may hold, before anything is computed from them.
//!
//! A plan may come from an untrusted file. What executors, renderers and tables prepare is every expression of a kernel,
//! those too that nothing needs, so here nothing depends on what is needed: after this check ranks fit, and no sum or
//! product of index arithmetic leaves its integers, neither on the CPU (64 bits) nor in rendered text (32 bits).

use super::verify::{Check, ensure};
use super::{EntryPlan, Plan};
use crate::kernel::access::Access;
use crate::kernel::body::{Body, BufferId, Contraction, Expr, Exprs, Nest, Operand, Store};
use crate::kernel::schedule::BufferRole;
use crate::types::MAX_ELEMENTS;

/// Most bytes of a name.
const MAX_NAME: usize = 1 << 16;
/// Most that the terms of an access add up to: far from what an `isize` holds, so that any part of the sum fits one.
const MAX_REACH: u128 = 1 << 62;

/// Names of the plan itself and of its state.
pub(super) fn check_plan_names(plan: &Plan) -> Check {
    check_name(&plan.name)?;
    plan.states.iter().try_for_each(|state| check_name(&state.name))
}

/// Names in an entry, and every access of its kernels.
pub(super) fn check_entry(entry: &EntryPlan) -> Check {
    check_name(&entry.name)?;
    entry.sizes.iter().try_for_each(|(name, _)| check_name(name))?;
    for input in &entry.inputs {
        check_name(&input.name)?;
        check_name(&input.meaning)?;
    }
    entry.schedule.outputs.iter().try_for_each(|output| check_name(&output.name))?;
    for buffer in &entry.schedule.buffers {
        check_name(&buffer.name)?;
        match &buffer.role {
            BufferRole::Input(key) | BufferRole::State(key) => check_name(key)?,
            BufferRole::Output | BufferRole::Temporary => {}
        }
    }
    for kernel in &entry.schedule.kernels {
        check_name(&kernel.name)?;
        kernel.nodes.iter().try_for_each(|node| check_name(node))?;
        check_body(&kernel.body).map_err(|problem| format!("kernel `{}`: {problem}", kernel.name))?;
    }
    Ok(())
}

/// That a name is shown as it is on a terminal, and ends no line of text or comment that it is part of.
fn check_name(name: &str) -> Check {
    ensure!(name.len() <= MAX_NAME, "a name has {} bytes, more than {MAX_NAME}", name.len());
    let is_direction =
        |c| matches!(c, '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let is_fine = |c: char| !c.is_control() && c != '\\' && !is_direction(c);
    ensure!(name.chars().all(is_fine), "the name \"{}\" holds control characters", name.escape_default());
    Ok(())
}

fn check_body(body: &Body<BufferId>) -> Check {
    match body {
        Body::Nests(nests) => nests.iter().try_for_each(check_nest),
        Body::Contraction(contraction) => check_contraction(contraction),
    }
}

fn check_nest(nest: &Nest<BufferId>) -> Check {
    ensure!(nest.reduced.len() == nest.space.len(), "the space has two ranks");
    check_exprs(&nest.exprs, &nest.space)?;
    nest.stores().try_for_each(|store| check_store(store, &nest.space))
}

fn check_contraction(contraction: &Contraction<BufferId>) -> Check {
    let (shapes, _) = contraction.kind.shapes();
    for (operand, shape) in contraction.operands.iter().zip(&shapes) {
        match operand {
            Operand::Buffer { access, .. } => check_access(access, shape)?,
            Operand::Computed { exprs } => check_exprs(exprs, shape)?,
        }
    }
    check_exprs(&contraction.exprs, &contraction.space)?;
    contraction.stores.iter().try_for_each(|store| check_store(store, &contraction.space))
}

fn check_store(store: &Store<BufferId>, space: &[usize]) -> Check {
    check_access(&store.access, space)
}

fn check_exprs(exprs: &Exprs<BufferId>, space: &[usize]) -> Check {
    for expr in exprs.iter() {
        if let Some(access) = expr.access() {
            check_access(access, space)?;
        }
        if let Expr::Iota { divisor, modulus, .. } = expr {
            let fits = |n: usize| (1..=MAX_ELEMENTS).contains(&n);
            ensure!(fits(*divisor) && fits(*modulus), "an iota divides by {divisor}, then by {modulus}");
        }
    }
    Ok(())
}

/// That an access has the rank of its space and numbers whose sums fit. A kept space is no larger than the full one.
fn check_access(access: &Access, space: &[usize]) -> Check {
    let rank = space.len();
    ensure!(access.strides.len() == rank, "an access of rank {} over {space:?}", access.strides.len());
    check_sum(access.offset, &access.strides, space)?;
    for bound in &access.bounds {
        ensure!(bound.strides.len() == rank, "a bound of rank {} over {space:?}", bound.strides.len());
        ensure!(bound.below <= MAX_ELEMENTS, "a bound of {} is too large", bound.below);
        check_sum(bound.offset, &bound.strides, space)?;
    }
    // Rendered text compares these sums as 32-bit numbers, in which one that is too large would look small.
    let (ranges, joint) = access.ranges(space);
    for bound in joint {
        let (mut least, mut greatest) = (bound.offset as i128, bound.offset as i128);
        for (&stride, &(lo, hi)) in bound.strides.iter().zip(&ranges) {
            let ends = [lo, hi.saturating_sub(1).max(lo)].map(|i| stride as i128 * i as i128);
            least += ends[0].min(ends[1]);
            greatest += ends[0].max(ends[1]);
        }
        let fits = |x: i128| x.unsigned_abs() <= MAX_ELEMENTS as u128;
        ensure!(fits(least) && fits(greatest), "a bound's sum goes from {least} to {greatest}");
    }
    Ok(())
}

fn check_sum(offset: isize, strides: &[isize], space: &[usize]) -> Check {
    let fits = |x: isize| x.unsigned_abs() <= MAX_ELEMENTS;
    ensure!(fits(offset), "an access starts at {offset}");
    // A number of at most 31 bits times one of 64, at most twelve times.
    let mut reach = offset.unsigned_abs() as u128;
    for (&stride, &size) in strides.iter().zip(space) {
        ensure!(fits(stride), "an access has a stride of {stride}");
        reach = reach.saturating_add(stride.unsigned_abs() as u128 * size as u128);
    }
    ensure!(reach <= MAX_REACH, "an access reaches too far");
    Ok(())
}
