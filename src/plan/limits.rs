//! Names and numbers that a plan may hold, before anything is computed from them.
//!
//! A plan may come from an untrusted file. Executors, renderers and tables prepare every expression of a kernel, those
//! too that nothing needs, so here nothing depends on what is needed: after this check no name does anything to a
//! terminal or a line of source, and no sum that rendered text writes leaves its 32-bit numbers.

use super::verify::{Check, ensure};
use super::{EntryPlan, Plan};
use crate::kernel::access::Access;
use crate::kernel::body::Expr;
use crate::kernel::schedule::BufferRole;
use crate::types::MAX_ELEMENTS;

/// Most bytes of a name.
const MAX_NAME: usize = 1 << 16;

/// Names of the plan itself and of its state.
pub(super) fn check_plan_names(plan: &Plan) -> Check {
    check_name(&plan.name)?;
    plan.states.iter().try_for_each(|state| check_name(&state.name))?;
    plan.state_layout.copies.keys().try_for_each(|name| check_name(name))
}

/// Names in an entry.
pub(super) fn check_names(entry: &EntryPlan) -> Check {
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
            BufferRole::Output | BufferRole::Temporary | BufferRole::Workspace => {}
        }
    }
    for kernel in &entry.schedule.kernels {
        check_name(&kernel.name)?;
        kernel.nodes.iter().try_for_each(|node| check_name(node))?;
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

/// What an iota divides by, over whole numbers of 31 bits.
pub(super) fn check_divisors<B>(expr: &Expr<B>) -> Check {
    if let Expr::Iota { divisor, modulus, .. } = expr {
        let fits = |n: usize| (1..=MAX_ELEMENTS).contains(&n);
        ensure!(fits(*divisor) && fits(*modulus), "an iota divides by {divisor}, then by {modulus}");
    }
    Ok(())
}

/// That the sums of bounds on several dimensions stay within 31 bits: rendered text compares them as 32-bit numbers, in
/// which one that is too large would look small. The numbers of the access are at most so large.
pub(super) fn check_bounds(access: &Access, space: &[usize]) -> Check {
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
