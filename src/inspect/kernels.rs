//! Kernels as text.

use super::{bytes, hand_overs};
use crate::ir::Type;
use crate::kernel::access::{Access, kept_shape};
use crate::kernel::body::{
    Body, BufferId, Contraction, Expr, ExprId, Exprs, Kernel, Nest, Operand, Store, TransformBody, Word,
};
use crate::kernel::choice::{Algorithm, Choice};
use crate::kernel::contraction::{ContractionKind, ConvShape};
use crate::kernel::schedule::{Buffer, BufferRole, Schedule, Storage};
use crate::winograd::Matrix;
use std::fmt::Write as _;

/// Every kernel of a schedule in the order in which they run.
pub fn schedule_text(schedule: &Schedule) -> String {
    let mut text = String::new();
    let hand_overs = hand_overs(schedule);
    for (position, kernel) in schedule.kernels.iter().enumerate() {
        let _ = write!(text, "[{position}] {}", kernel_text(kernel, &schedule.buffers));
        for pair in hand_overs.iter().filter(|pair| pair.kernel == position) {
            let of = |b| name(&schedule.buffers, b);
            let _ = writeln!(text, "  in place: {} is written over {}", of(pair.new), of(pair.old));
        }
    }
    for output in &schedule.outputs {
        let _ = writeln!(text, "output {} = {}", output.name, name(&schedule.buffers, output.buffer));
    }
    text
}

/// How many values a kernel is there for: those that it computes and no other does. One that only copies has that one.
pub fn value_count(kernel: &Kernel) -> usize {
    kernel.nodes.len().max(1)
}

/// One kernel: a line about it, then a line for each of its expressions and stores.
pub fn kernel_text(kernel: &Kernel, buffers: &[Buffer]) -> String {
    let mut text = format!("{} ({})\n", kernel.name, kernel.kind().name());
    if let Some(choice) = choice_text(kernel, buffers) {
        let _ = writeln!(text, "  by {choice}");
    }
    match &kernel.body {
        Body::Nests(nests) => nests.iter().for_each(|nest| nest_text(nest, buffers, &mut text)),
        Body::Contraction(contraction) => contraction_text(contraction, buffers, &mut text),
        Body::Transform(transform) => transform_text(transform, buffers, &mut text),
    }
    text
}

/// How a kernel is computed, where there is a choice: the algorithm, its tile, its launches and its workspace.
pub fn choice_text(kernel: &Kernel, buffers: &[Buffer]) -> Option<String> {
    let Choice { algorithm, workspace } = &kernel.choice;
    if *algorithm == Algorithm::Loops {
        return None;
    }
    let launches = algorithm.launches(&kernel.body, |b| buffers[b.index()].dtype);
    let mut text = format!("{algorithm}, {launches} launch{}", if launches == 1 { "" } else { "es" });
    for (i, w) in workspace.iter().enumerate() {
        let before = if i == 0 { "; workspace: " } else { ", " };
        let _ = write!(text, "{before}{} {}", w.purpose.name(), bytes(buffers[w.buffer.index()].bytes()));
    }
    Some(text)
}

/// A buffer's name, marked where it outlives the run or is of bits.
fn name(buffers: &[Buffer], id: BufferId) -> String {
    let Some(buffer) = buffers.get(id.index()) else { return format!("buffer {id}") };
    match &buffer.role {
        BufferRole::Input(name) => format!("input {name}"),
        BufferRole::State(name) => format!("state {name}"),
        BufferRole::Temporary if buffer.storage == Storage::Bits => format!("bits {}", buffer.name),
        BufferRole::Output | BufferRole::Temporary | BufferRole::Workspace => buffer.name.clone(),
    }
}

fn sizes(shape: &[usize]) -> String {
    shape.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

fn nest_text(nest: &Nest<BufferId>, buffers: &[Buffer], text: &mut String) {
    let space: Vec<String> = (nest.space.iter().zip(&nest.reduced))
        .map(|(size, reduced)| if *reduced { format!("({size})") } else { size.to_string() })
        .collect();
    let _ = writeln!(text, "  for [{}]", space.join(","));
    let shape = |kept: bool| -> Vec<usize> {
        (nest.space.iter().zip(&nest.reduced)).map(|(&s, &r)| if r && kept { 1 } else { s }).collect()
    };
    let mut said = vec![false; nest.exprs.len()];
    let mut say = |root: ExprId, kept: bool, text: &mut String| {
        exprs_text(&nest.exprs, root, &shape(kept), buffers, &mut said, text);
    };
    for (number, sweep) in nest.sweeps.iter().enumerate() {
        if nest.sweeps.len() > 1 {
            let _ = writeln!(text, "    sweep {number}");
        }
        for reduction in &sweep.reductions {
            say(reduction.value, false, text);
            let kind = reduction.kind.name();
            let _ = writeln!(text, "    kept {} = {kind} %{}", reduction.slot, reduction.value);
        }
        for store in &sweep.stores {
            say(store.value, false, text);
            store_text(store, &shape(false), buffers, text);
        }
        for (slot, value) in &sweep.kept {
            say(*value, true, text);
            let _ = writeln!(text, "    kept {slot} = %{value}");
        }
        for store in &sweep.kept_stores {
            say(store.value, true, text);
            store_text(store, &shape(true), buffers, text);
        }
    }
}

fn store_text(store: &Store<BufferId>, space: &[usize], buffers: &[Buffer], text: &mut String) {
    let access = access_text(&store.access, space);
    let _ = writeln!(text, "    store %{} to {}{access}", store.value, name(buffers, store.buffer));
}

fn transform_text(t: &TransformBody<BufferId>, buffers: &[Buffer], text: &mut String) {
    let [down, across] = t.transform.matrices();
    let matrix = |m: &Matrix| format!("{}x{}", m.rows, m.columns);
    let _ = writeln!(text, "  {} by {} down and {} across", t.transform.name(), matrix(&down), matrix(&across));
    let _ = writeln!(text, "    of {}", name(buffers, t.operand));
    let mut said = vec![false; t.exprs.len()];
    exprs_text(&t.exprs, t.store.value, &t.space, buffers, &mut said, text);
    store_text(&t.store, &t.space, buffers, text);
}

fn contraction_text(c: &Contraction<BufferId>, buffers: &[Buffer], text: &mut String) {
    let ([a, b], out) = c.kind.shapes();
    let window = |c: &ConvShape| format!(" stride {} pad {}", sizes(&c.window.stride), sizes(&c.window.pad));
    let (kind, window) = match &c.kind {
        ContractionKind::MatMul { .. } => ("matmul", String::new()),
        ContractionKind::Conv2d(c) => ("conv2d", window(c)),
        ContractionKind::Conv2dInputGrad(c) => ("conv2d_input_grad", window(c)),
        ContractionKind::Conv2dFilterGrad(c) => ("conv2d_filter_grad", window(c)),
    };
    let mut operands = Vec::new();
    for (operand, shape) in c.operands.iter().zip([&a, &b]) {
        match operand {
            Operand::Buffer { buffer, access } => {
                operands.push(format!("{}{}", name(buffers, *buffer), access_text(access, shape)));
            }
            Operand::Computed { exprs, staged } => {
                let of = staged.map_or(String::new(), |staged| format!(", of %{staged} where that is staged"));
                let _ = writeln!(text, "  prologue for [{}]{of}", sizes(shape));
                let mut said = vec![false; exprs.len()];
                if let Some(value) = exprs.last() {
                    exprs_text(exprs, value, shape, buffers, &mut said, text);
                    operands.push(format!("prologue %{value}"));
                }
            }
        }
    }
    let _ = writeln!(text, "  {kind} [{}] x [{}] -> [{}]{window}", sizes(&a), sizes(&b), sizes(&out));
    for operand in operands {
        let _ = writeln!(text, "    of {operand}");
    }
    let mut said = vec![false; c.exprs.len()];
    let kept = kept_shape(&c.space, &c.reduced);
    for (number, reduction) in c.reductions.iter().enumerate() {
        exprs_text(&c.exprs, reduction.value, &c.space, buffers, &mut said, text);
        let _ = writeln!(text, "    kept {number} = {} %{}", reduction.kind.name(), reduction.value);
    }
    for store in &c.stores {
        exprs_text(&c.exprs, store.value, &c.space, buffers, &mut said, text);
        store_text(store, &c.space, buffers, text);
    }
    if !c.finish.stores.is_empty() {
        let _ = writeln!(text, "  then for [{}]", sizes(&kept));
    }
    let mut said = vec![false; c.finish.exprs.len()];
    for store in &c.finish.stores {
        exprs_text(&c.finish.exprs, store.value, &kept, buffers, &mut said, text);
        store_text(store, &kept, buffers, text);
    }
}

/// What a root needs and has not been said yet, operands first.
fn exprs_text(
    exprs: &Exprs<BufferId>,
    root: ExprId,
    space: &[usize],
    buffers: &[Buffer],
    said: &mut [bool],
    text: &mut String,
) {
    for (id, needed) in exprs.ids().zip(exprs.needed([root])) {
        if needed && !std::mem::replace(&mut said[id.index()], true) {
            let _ = writeln!(text, "    %{id} = {}", expr_text(&exprs[id], space, buffers));
        }
    }
}

fn expr_text(expr: &Expr<BufferId>, space: &[usize], buffers: &[Buffer]) -> String {
    let word = |word: &Word<BufferId>| match word {
        Word::Constant(value) => value.to_string(),
        Word::Load { buffer, offset } => format!("{}[{offset}]", name(buffers, *buffer)),
    };
    match expr {
        Expr::Constant { value, dtype } => format!("{value} {}", Type::new(*dtype, []).dtype),
        Expr::Load { buffer, access, .. } => format!("load {}{}", name(buffers, *buffer), access_text(access, space)),
        Expr::Inside { access } => format!("inside{}", access_text(access, space)),
        Expr::Iota { access, divisor, modulus, .. } => {
            format!("iota / {divisor} % {modulus}{}", access_text(access, space))
        }
        Expr::Random { distribution, stream, seed, step, access } => format!(
            "random {distribution:?} stream {stream:016x} seed {} {} step {}{}",
            word(&seed[0]),
            word(&seed[1]),
            word(step),
            access_text(access, space)
        ),
        Expr::Slot(slot) => format!("kept {slot}"),
        Expr::Accumulator => "the sum".to_string(),
        Expr::Scalar { op, args } => {
            let args: Vec<String> = args.iter().map(|a| format!("%{a}")).collect();
            format!("{} {}", op.name(), args.join(" "))
        }
    }
}

/// Nothing for an access of each point's own element; else its strides, offset and bounds.
fn access_text(access: &Access, space: &[usize]) -> String {
    if access.is_contiguous(space) {
        return String::new();
    }
    let list = |strides: &[isize]| strides.iter().map(isize::to_string).collect::<Vec<_>>().join(",");
    let mut text = format!(" strides [{}]", list(&access.strides));
    if access.offset != 0 {
        let _ = write!(text, " from {}", access.offset);
    }
    let (ranges, joint) = access.ranges(space);
    if ranges.iter().zip(space).any(|(&range, &size)| range != (0, size)) {
        let ranges: Vec<String> = (ranges.iter().zip(space))
            .map(|(&(lo, hi), &size)| if (lo, hi) == (0, size) { "..".into() } else { format!("{lo}..{hi}") })
            .collect();
        let _ = write!(text, " within [{}]", ranges.join(","));
    }
    for bound in joint {
        let _ = write!(text, " where strides [{}] from {} in 0..{}", list(&bound.strides), bound.offset, bound.below);
    }
    text
}
