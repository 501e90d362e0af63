//! Vectorised loads and stores (`float4`) of nests that reduce nothing: a thread has four neighbouring points. What lies in
//! memory as the points do is read and written 16 bytes at a time, and where it lies is computed once for all four.

use crate::kernel::access::Access;
use crate::kernel::body::{BufferId, Expr, Nest};
use crate::plan::{Buffer, DType, Storage};

/// Points of a thread.
pub const FOUR: usize = 4;

/// Points that are as many as an H100 has threads (132 multiprocessors of 2048), rounded: with fewer, threads of four points
/// would leave more of it idle.
const LEAST: usize = 1 << 18;

/// The nest with its innermost dimension in two, of which the second has four points, where that reads or writes any of its
/// tensors four elements at a time; and that dimension.
pub fn by_fours(nest: &Nest<BufferId>, buffers: &[Buffer]) -> Option<(Nest<BufferId>, usize)> {
    let last = (0..nest.space.len()).rev().find(|&d| nest.space[d] > 1)?;
    // A block of Philox makes four draws, but not of any four neighbours.
    let draws = nest.exprs.iter().any(|expr| matches!(expr, Expr::Random { .. }));
    let is_large = nest.space.iter().product::<usize>() >= LEAST;
    if draws || !is_large || nest.reduced.contains(&true) || !nest.space[last].is_multiple_of(FOUR) {
        return None;
    }
    let (cut, lane) = (nest.cut(last, FOUR), last + 1);
    let are_four = |buffer: &BufferId, access: &Access| first_of_four(access, lane, &buffers[buffer.index()]).is_some();
    let reads_fours = cut.exprs.iter().any(|expr| match expr {
        Expr::Load { buffer, access, .. } => are_four(buffer, access),
        _ => false,
    });
    let writes_fours = cut.stores().any(|store| are_four(&store.buffer, &store.access));
    (reads_fours || writes_fours).then_some((cut, lane))
}

/// The access of the first of four points along dimension `lane`, where the four are aligned neighbours of a buffer, and all of
/// them inside the access's bounds or none.
pub fn first_of_four(access: &Access, lane: usize, buffer: &Buffer) -> Option<Access> {
    let is_aligned = |step: isize| step.unsigned_abs().is_multiple_of(FOUR);
    let others = || access.strides.iter().enumerate().filter(|(d, _)| *d != lane).all(|(_, &step)| is_aligned(step));
    let is_float = matches!(buffer.dtype, DType::F32 | DType::Bf16) && buffer.storage == Storage::Elements;
    let are_four = access.strides[lane] == 1 && !access.is_bounded(lane) && is_aligned(access.offset) && others();
    let mut first = access.clone();
    first.strides[lane] = 0;
    (is_float && are_four).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::cuda::nest::render_nest;
    use crate::kernel::body::{Exprs, Store};
    use crate::plan::BufferRole;
    use crate::tensor::Lane;

    fn buffers() -> Vec<Buffer> {
        let buffer = |name: &str, dtype, storage, offset| Buffer {
            name: name.into(),
            dtype,
            storage,
            shape: vec![1 << 12, 64],
            order: Vec::new(),
            role: BufferRole::Temporary,
            offset,
            live: (0, 0),
        };
        vec![
            buffer("x", DType::F32, Storage::Elements, 0),
            buffer("y", DType::Bf16, Storage::Elements, 1 << 24),
            buffer("mask", DType::F32, Storage::Bits, 1 << 25),
        ]
    }

    /// `y[i] = x[i + by]` over images of so many channels.
    fn copied(channels: usize, by: isize, from: usize) -> Nest<BufferId> {
        let space = vec![1 << 12, channels];
        let mut exprs = Exprs::default();
        let access = Access { offset: by, ..Access::contiguous(&space) };
        let value = exprs.push(Expr::Load { buffer: BufferId::new(from), access, lane: Lane::Real });
        let store = Store { value, buffer: BufferId::new(1), access: Access::contiguous(&space) };
        Nest::elementwise(space, exprs, vec![store])
    }

    #[test]
    fn neighbours_are_read_and_written_by_fours() {
        let code = render_nest(&copied(64, 0, 0), &buffers(), "blockIdx.x", "gridDim.x");
        let text = code.lines.join("\n");
        assert!(text.contains("const Four x_i_4 = load_four(x + 4 * i);"), "{text}");
        assert!(text.contains("store_four(y + 4 * i, y_4);"), "{text}");
        assert_eq!(code.blocks, (1 << 18) / 4 / code.threads);
    }

    #[test]
    fn what_does_not_lie_so_is_read_one_by_one() {
        for (by, from) in [(1, 0), (0, 2)] {
            let text = render_nest(&copied(64, by, from), &buffers(), "blockIdx.x", "gridDim.x").lines.join("\n");
            assert!(!text.contains("load_four") && text.contains("store_four(y + 4 * i, y_4);"), "{text}");
        }
    }

    /// Not four neighbours are read one by one and written over, and another value is computed from what was there.
    #[test]
    fn all_values_are_computed_before_any_is_written() {
        let space = vec![1 << 12, 64];
        let mut exprs = Exprs::default();
        let shifted = Access { offset: 1, ..Access::contiguous(&space) };
        let load = |access: &Access| Expr::Load { buffer: BufferId::new(0), access: access.clone(), lane: Lane::Real };
        let value = exprs.push(load(&shifted));
        let other = exprs.push(Expr::Scalar { op: crate::scalar::ScalarOp::Neg, args: vec![value] });
        let over = Store { value: other, buffer: BufferId::new(0), access: shifted };
        let beside = Store { value, buffer: BufferId::new(1), access: Access::contiguous(&space) };
        let text = |stores| {
            let nest = Nest::elementwise(space.clone(), exprs.clone(), stores);
            render_nest(&nest, &buffers(), "blockIdx.x", "gridDim.x").lines
        };
        for stores in [vec![over.clone(), beside.clone()], vec![beside, over]] {
            let lines = text(stores);
            let last_value = lines.iter().rposition(|line| line.contains("const float")).unwrap();
            let first_store = lines.iter().position(|line| line.contains("] = ")).unwrap();
            assert!(last_value < first_store, "{}", lines.join("\n"));
        }
    }

    #[test]
    fn small_nests_and_odd_rows_stay() {
        assert_eq!(by_fours(&copied(60, 0, 0), &buffers()), None, "few points");
        assert_eq!(by_fours(&copied(65, 0, 0), &buffers()), None, "no whole fours");
    }
}
