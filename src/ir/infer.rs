//! The type of an operation's result from the types of its operands.

use super::Window;
use super::{DType, Op, Shape, Type};
use crate::scalar::Lane;
use crate::tensor::round_to_bf16;
use crate::types::{MAX_ELEMENTS, MAX_PADDED, MAX_RANK, MAX_WINDOW};

/// Operands that do not fit an operation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{op}: {problem}")]
pub struct TypeError {
    pub op: &'static str,
    /// What was expected and what was found.
    pub problem: String,
}

/// The result type of `op` applied to operands of the given types.
///
/// # Errors
/// When the number, element types or shapes of the operands do not fit the operation.
pub fn infer(op: &Op, operands: &[&Type]) -> Result<Type, TypeError> {
    let err = |problem: String| TypeError { op: op.name(), problem };
    if let Some(expected) = arity(op)
        && operands.len() != expected
    {
        return Err(err(format!("takes {expected} operands, got {}", operands.len())));
    }
    let axis_in = |axis: usize, rank: usize| {
        if axis < rank { Ok(()) } else { Err(err(format!("axis {axis} is out of range for rank {rank}"))) }
    };
    let per_axis = |what: &str, len: usize, rank: usize| {
        if len == rank { Ok(()) } else { Err(err(format!("{what} has {len} entries for rank {rank}"))) }
    };
    let ty = match op {
        Op::Input { ty, .. } | Op::State { ty, .. } => ty.clone(),
        Op::Constant { value, ty } => {
            let v = value.0;
            if ty.dtype == DType::U32 && (v.fract() != 0.0 || !(0.0..=f64::from(u32::MAX)).contains(&v)) {
                return Err(err(format!("{v} is not a u32")));
            }
            if ty.dtype == DType::Bf16 && !v.is_nan() && f64::from(round_to_bf16(v as f32)) != v {
                return Err(err(format!("{v} is not a bf16")));
            }
            ty.clone()
        }
        Op::Iota { axis, ty } => {
            axis_in(*axis, ty.rank())?;
            if ty.dtype == DType::Bf16 {
                return Err(err("gives f32 or u32, not bf16".into()));
            }
            ty.clone()
        }
        Op::Random { shape, .. } => {
            if *operands[0] != Type::u32([2]) || *operands[1] != Type::u32([]) {
                return Err(err(format!(
                    "takes a seed u32[2] and a step u32[], got {} and {}",
                    operands[0], operands[1]
                )));
            }
            Type::f32(shape.clone())
        }
        Op::Scalar(scalar) => {
            let lane = |lane: Lane| match lane {
                Lane::Real => DType::F32,
                Lane::U32 => DType::U32,
            };
            for (i, (ty, l)) in operands.iter().zip(scalar.operand_lanes()).enumerate() {
                if ty.shape != operands[0].shape {
                    return Err(err(format!("shapes differ: {} and {}", operands[0], ty)));
                }
                if ty.dtype != lane(*l) {
                    return Err(err(format!("operand {i} must be {}, got {ty}", lane(*l))));
                }
            }
            Type::new(lane(scalar.result_lane()), operands[0].shape.clone())
        }
        Op::Reshape { to } => {
            let result = Type::new(operands[0].dtype, to.clone());
            if checked_elements(to) != Some(operands[0].elements()) {
                return Err(err(format!("{} cannot become {result}: element counts differ", operands[0])));
            }
            result
        }
        Op::Transpose { permutation } => {
            per_axis("permutation", permutation.len(), operands[0].rank())?;
            let mut seen = vec![false; permutation.len()];
            for &p in permutation {
                axis_in(p, permutation.len())?;
                if std::mem::replace(&mut seen[p], true) {
                    return Err(err(format!("axis {p} appears twice in the permutation")));
                }
            }
            let shape: Shape = permutation.iter().map(|&p| operands[0].shape[p]).collect();
            Type::new(operands[0].dtype, shape)
        }
        Op::Broadcast { to } => {
            per_axis("target shape", to.len(), operands[0].rank())?;
            for (&from, &to_size) in operands[0].shape.iter().zip(to) {
                if from != to_size && from != 1 {
                    return Err(err(format!("size {from} cannot be repeated to {to_size}")));
                }
            }
            Type::new(operands[0].dtype, to.clone())
        }
        Op::Pad { low, high } => {
            per_axis("low", low.len(), operands[0].rank())?;
            per_axis("high", high.len(), operands[0].rank())?;
            let shape: Option<Shape> = (operands[0].shape.iter().zip(low).zip(high))
                .map(|((s, l), h)| s.checked_add(*l)?.checked_add(*h))
                .collect();
            Type::new(operands[0].dtype, shape.ok_or_else(|| err("padding is too large".into()))?)
        }
        Op::Slice { start, end } => {
            per_axis("start", start.len(), operands[0].rank())?;
            per_axis("end", end.len(), operands[0].rank())?;
            let mut shape = Shape::new();
            for (axis, (&s, &e)) in start.iter().zip(end).enumerate() {
                let size = operands[0].shape[axis];
                if s >= e || e > size {
                    return Err(err(format!("{s}..{e} is not a range of axis {axis} of size {size}")));
                }
                shape.push(e - s);
            }
            Type::new(operands[0].dtype, shape)
        }
        Op::Concat { axis } => {
            let Some(first) = operands.first() else { return Err(err("takes at least one operand".into())) };
            axis_in(*axis, first.rank())?;
            let mut shape = first.shape.clone();
            shape[*axis] = 0;
            for ty in operands {
                let mut other = ty.shape.clone();
                let fits = ty.dtype == first.dtype && ty.rank() == first.rank();
                let extent = if fits { std::mem::replace(&mut other[*axis], first.shape[*axis]) } else { 0 };
                if !fits || other != first.shape {
                    return Err(err(format!("{first} and {ty} do not line up along axis {axis}")));
                }
                shape[*axis] += extent;
            }
            Type::new(first.dtype, shape)
        }
        Op::Reverse { axes } => {
            for &axis in axes {
                axis_in(axis, operands[0].rank())?;
            }
            strictly_increasing(axes).map_err(err)?;
            operands[0].clone()
        }
        Op::Convert { to } => {
            if !(operands[0].dtype.is_real() && to.is_real()) {
                return Err(err(format!("is between f32 and bf16, not from {} to {to}", operands[0])));
            }
            Type::new(*to, operands[0].shape.clone())
        }
        Op::Reduce { axes, .. } => {
            if operands[0].dtype != DType::F32 {
                return Err(err(format!("takes f32, got {}", operands[0])));
            }
            let mut shape = operands[0].shape.clone();
            strictly_increasing(axes).map_err(err)?;
            for &axis in axes {
                axis_in(axis, shape.len())?;
                shape[axis] = 1;
            }
            Type::f32(shape)
        }
        Op::MatMul => {
            let (a, b) = (operands[0], operands[1]);
            let rank = a.rank();
            let fits = a.dtype == DType::F32
                && b.dtype == DType::F32
                && rank >= 2
                && b.rank() == rank
                && a.shape[..rank - 2] == b.shape[..rank - 2]
                && a.shape[rank - 1] == b.shape[rank - 2];
            if !fits {
                return Err(err(format!("needs [.., m, k] and [.., k, n], got {a} and {b}")));
            }
            let mut shape = a.shape.clone();
            shape[rank - 1] = b.shape[rank - 1];
            Type::f32(shape)
        }
        Op::Conv2d { window } => {
            let (n, c, hw) = image("input", operands[0]).map_err(err)?;
            let (o, wc, kernel) = image("filter", operands[1]).map_err(err)?;
            if c != wc {
                return Err(err(format!("the input has {c} channels, the filter takes {wc}")));
            }
            let out = conv_output(window, hw, kernel).map_err(err)?;
            padded_fits(window, [n, c], hw, kernel).map_err(err)?;
            Type::f32([n, o, out[0], out[1]])
        }
        Op::Conv2dInputGrad { window, size } => {
            let (n, o, out) = image("output gradient", operands[0]).map_err(err)?;
            let (wo, c, kernel) = image("filter", operands[1]).map_err(err)?;
            if o != wo {
                return Err(err(format!("the output gradient has {o} channels, the filter gives {wo}")));
            }
            if conv_output(window, *size, kernel).map_err(err)? != out {
                return Err(err(format!("a convolution of {size:?} does not give {out:?}")));
            }
            padded_fits(window, [n, c], *size, kernel).map_err(err)?;
            Type::f32([n, c, size[0], size[1]])
        }
        Op::Conv2dFilterGrad { window, kernel } => {
            let (n, c, hw) = image("input", operands[0]).map_err(err)?;
            let (gn, o, out) = image("output gradient", operands[1]).map_err(err)?;
            if n != gn {
                return Err(err(format!("batches differ: {n} and {gn}")));
            }
            if conv_output(window, hw, *kernel).map_err(err)? != out {
                return Err(err(format!("a convolution of {hw:?} with kernel {kernel:?} does not give {out:?}")));
            }
            padded_fits(window, [n, c], hw, *kernel).map_err(err)?;
            Type::f32([o, c, kernel[0], kernel[1]])
        }
        Op::Im2col { window, kernel } => {
            let (n, c, hw) = image("input", operands[0]).map_err(err)?;
            let out = conv_output(window, hw, *kernel).map_err(err)?;
            // Its adjoint gives images whose sizes are multiples of the strides.
            let whole = [0, 1].map(|d| hw[d].next_multiple_of(window.stride[d]));
            windows_fit(window, [n, c], whole, *kernel).map_err(err)?;
            Type::f32([n, c * kernel[0] * kernel[1], out[0], out[1]])
        }
        Op::Col2im { window, kernel, size } => {
            let (n, channels, windows) = image("operand", operands[0]).map_err(err)?;
            let taps = checked_elements(kernel).filter(|&taps| taps > 0 && channels.is_multiple_of(taps));
            let taps = taps.ok_or_else(|| {
                err(format!("{channels} channels are not a multiple of the elements of a kernel {kernel:?}"))
            })?;
            let most = conv_output(window, *size, *kernel).map_err(err)?;
            if (0..2).any(|d| windows[d] > most[d] || !size[d].is_multiple_of(window.stride[d])) {
                let stride = window.stride;
                return Err(err(format!(
                    "{size:?} must be multiples of the strides {stride:?} with room for {windows:?} windows"
                )));
            }
            windows_fit(window, [n, channels / taps], *size, *kernel).map_err(err)?;
            Type::f32([n, channels / taps, size[0], size[1]])
        }
        Op::Winograd(transform) => {
            if !transform.is_sound() {
                return Err(err("its sizes are those of no convolution, or ask for more points than are known".into()));
            }
            let shape = Some(&operands[0].shape).filter(|_| operands[0].dtype == DType::F32);
            match shape.and_then(|shape| transform.result(shape)) {
                Some(shape) => Type::f32(shape),
                None => return Err(err(format!("does not take {}", operands[0]))),
            }
        }
        Op::Detach => operands[0].clone(),
        Op::Gradient => {
            if operands[0].elements() != 1 || operands[0].dtype != DType::F32 {
                return Err(err(format!("only a scalar has a gradient, got {}", operands[0])));
            }
            if operands[1].dtype != DType::F32 {
                return Err(err(format!("with respect to f32 only, got {}", operands[1])));
            }
            operands[1].clone()
        }
    };
    if ty.rank() > MAX_RANK {
        return Err(err(format!("{} dimensions are more than {MAX_RANK}", ty.rank())));
    }
    match checked_elements(&ty.shape) {
        Some(0) => Err(err(format!("{ty} has no elements"))),
        Some(n) if n <= MAX_ELEMENTS => Ok(ty),
        _ => Err(err(format!("{ty} has more than {MAX_ELEMENTS} elements"))),
    }
}

fn arity(op: &Op) -> Option<usize> {
    Some(match op {
        Op::Input { .. } | Op::State { .. } | Op::Constant { .. } | Op::Iota { .. } => 0,
        Op::Scalar(scalar) => scalar.operand_lanes().len(),
        Op::Reshape { .. }
        | Op::Transpose { .. }
        | Op::Broadcast { .. }
        | Op::Pad { .. }
        | Op::Slice { .. }
        | Op::Reverse { .. }
        | Op::Convert { .. }
        | Op::Reduce { .. }
        | Op::Im2col { .. }
        | Op::Col2im { .. }
        | Op::Winograd(_)
        | Op::Detach => 1,
        Op::Random { .. }
        | Op::MatMul
        | Op::Conv2d { .. }
        | Op::Conv2dInputGrad { .. }
        | Op::Conv2dFilterGrad { .. }
        | Op::Gradient => 2,
        Op::Concat { .. } => return None,
    })
}

fn checked_elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, &s| n.checked_mul(s))
}

fn strictly_increasing(axes: &[usize]) -> Result<(), String> {
    match axes.windows(2).find(|w| w[0] >= w[1]) {
        Some(_) => Err(format!("axes {axes:?} must be sorted and differ")),
        None => Ok(()),
    }
}

fn image(what: &str, ty: &Type) -> Result<(usize, usize, [usize; 2]), String> {
    match (ty.dtype, ty.shape.as_slice()) {
        (DType::F32, &[n, c, h, w]) => Ok((n, c, [h, w])),
        _ => Err(format!("the {what} must be f32 of rank 4, got {ty}")),
    }
}

/// Whether images with their padding are small enough: executors make room for them.
fn padded_fits(window: &Window, [n, c]: [usize; 2], size: [usize; 2], kernel: [usize; 2]) -> Result<(), String> {
    let padded = [n, c, size[0] + 2 * window.pad[0], size[1] + 2 * window.pad[1]];
    match checked_elements(&padded) {
        Some(elements) if elements <= MAX_ELEMENTS => window.check_room(c, size, kernel),
        _ => Err(format!("images with their padding, {padded:?}, have more than {MAX_ELEMENTS} elements")),
    }
}

/// Whether images whose windows are added up are not too large, nor all their windows, nor the taps: each is an expression.
fn windows_fit(window: &Window, [n, c]: [usize; 2], size: [usize; 2], kernel: [usize; 2]) -> Result<(), String> {
    padded_fits(window, [n, c], size, kernel)?;
    let taps = kernel[0].saturating_mul(kernel[1]);
    if taps > MAX_WINDOW {
        return Err(format!("a kernel {kernel:?} has more than {MAX_WINDOW} elements"));
    }
    let [rows, columns] = conv_output(window, size, kernel)?;
    match checked_elements(&[n, c, taps, rows, columns]) {
        Some(elements) if elements <= MAX_ELEMENTS => Ok(()),
        _ => Err(format!("its windows have more than {MAX_ELEMENTS} elements")),
    }
}

/// Height and width that a convolution gives.
fn conv_output(window: &Window, size: [usize; 2], kernel: [usize; 2]) -> Result<[usize; 2], String> {
    let mut out = [0; 2];
    for i in 0..2 {
        let padded = window.pad[i].checked_mul(2).and_then(|p| p.checked_add(size[i]));
        let room = padded.and_then(|p| p.checked_sub(kernel[i]));
        match (room, window.stride[i]) {
            (Some(room), stride) if stride > 0 && kernel[i] > 0 => {
                out[i] = room / stride + 1;
                if padded.is_none_or(|padded| padded.max(stride) > MAX_PADDED) {
                    let pad = window.pad[i];
                    let size = size[i];
                    return Err(format!(
                        "a stride of {stride}, or {size} pixels with a padding of {pad}, is over {MAX_PADDED} pixels"
                    ));
                }
            }
            (_, stride) => {
                return Err(format!(
                    "kernel {} with stride {stride} and padding {} does not fit size {}",
                    kernel[i], window.pad[i], size[i]
                ));
            }
        }
    }
    Ok(out)
}
