//! The order of a filter's points in memory.
//!
//! A convolution multiplies an image's points with the filter's, `[channels, results]` at each point; its gradient in the
//! input multiplies with the same matrices transposed. A product packs the columns that it reads, and along rows that
//! takes a third of the time. So where more products read points transposed than as they are, the transform writes them
//! so: it takes no longer.

use super::assemble::Assembled;
use crate::kernel::access::{Access, contiguous_strides};
use crate::kernel::body::{Body, BufferId, Kernel, Operand};
use crate::kernel::choice::{Algorithm, Columns};
use crate::kernel::schedule::{Buffer, BufferRole};
use crate::tensor::DType;
use crate::winograd::{Direction, Part, TURNED};

/// Turns the points that are mostly read transposed.
pub fn turn(work: &mut Assembled) {
    for k in 0..work.kernels.len() {
        let Some(points) = points_of_filter(&work.kernels[k], &work.buffers) else { continue };
        let shape = work.buffers[points.index()].shape.clone();
        let readers: Vec<usize> =
            (0..work.kernels.len()).filter(|&reader| work.kernels[reader].reads.contains(&points)).collect();
        let natural = contiguous_strides(&shape);
        // How many more read them transposed than not; nothing where one reads them in another way.
        let balance = readers.iter().map(|&reader| {
            let access = columns_from(&work.kernels[reader], points, &natural)?;
            Some(if access.strides[1] == 1 { 1 } else { -1i32 })
        });
        if balance.sum::<Option<i32>>().is_none_or(|balance| balance <= 0) {
            continue;
        }
        let turned = Access::ordered(&shape, &TURNED);
        for reader in readers {
            if let Body::Contraction(product) = &mut work.kernels[reader].body
                && let Operand::Buffer { access, .. } = &mut product.operands[1]
            {
                for stride in &mut access.strides {
                    let dimension = natural.iter().position(|natural| natural == stride);
                    *stride = dimension.map_or(*stride, |d| turned.strides[d]);
                }
            }
        }
        work.buffers[points.index()].order = TURNED.to_vec();
        if let Body::Transform(transform) = &mut work.kernels[k].body {
            transform.store.access = turned;
        }
    }
}

/// The buffer that a kernel writes a filter's points to, which nothing else writes.
fn points_of_filter(kernel: &Kernel, buffers: &[Buffer]) -> Option<BufferId> {
    let Body::Transform(body) = &kernel.body else { return None };
    let buffer = &buffers[body.store.buffer.index()];
    let is_filter = (body.transform.part, body.transform.direction) == (Part::Filter, Direction::ToPoints);
    // Strides tell the dimensions apart.
    let is_plain = buffer.order.is_empty() && buffer.dtype == DType::F32 && buffer.shape.iter().all(|&size| size > 1);
    (is_filter && is_plain && buffer.role == BufferRole::Temporary).then_some(body.store.buffer)
}

/// How a matrix product packs its columns from a buffer of these strides, where it reads nothing else of it.
fn columns_from<'k>(kernel: &'k Kernel, from: BufferId, strides: &[isize]) -> Option<&'k Access> {
    let Body::Contraction(product) = &kernel.body else { return None };
    let is_packed = matches!(kernel.choice.algorithm, Algorithm::MatMul { columns: Columns::Panels, .. });
    let reads = kernel.body.reads().filter(|read| **read == from).count();
    match &product.operands[1] {
        Operand::Buffer { buffer, access } if *buffer == from && reads == 1 && is_packed => {
            let is_whole = access.offset == 0 && access.bounds.is_empty();
            let are_all = access.strides.len() == strides.len() && strides.iter().all(|s| access.strides.contains(s));
            (is_whole && are_all).then_some(access)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::Graph;
    use crate::ir::text::parse;
    use crate::kernel::target::Fusion;
    use crate::plan::Plan;
    use crate::testing::conformance::plan_of;

    /// The points of one filter, multiplied once as they are, and what is made of them transposed.
    fn graph(lines: &str) -> Graph {
        let window = "input=[14,14] kernel=[4,4] stride=[2,2] pad=[1,1] output=[7,7] tile=[7,7]";
        let text = format!(
            r#"graph g {{
            %w: f32[24,20,4,4] = state "w"
            %x: f32[64,8,80] = input "x"
            %y: f32[64,8,24] = input "y"
            %p: f32[64,80,24] = filter_to_points %w {window}
            %natural: f32[64,8,24] = matmul %x %p
            %t: f32[64,24,80] = transpose %p permutation=[0,2,1]
            {lines}
            output natural = %natural
            }}"#
        );
        parse(&text).unwrap_or_else(|problem| panic!("{problem}"))
    }

    fn order(plan: &Plan) -> &[usize] {
        let buffers = &plan.entries[0].schedule.buffers;
        &buffers.iter().find(|buffer| buffer.name == "p").unwrap().order
    }

    #[test]
    fn points_lie_as_most_products_read_them() {
        let once = "%a: f32[64,8,80] = matmul %y %t\n output a = %a";
        let twice = "%b: f32[64,8,24] = exp %y\n %c: f32[64,8,80] = matmul %b %t\n output c = %c";
        let as_rows = "%z: f32[64,80,5] = input \"z\"\n %d: f32[64,24,5] = matmul %t %z\n output d = %d";
        let own_result = "output p = %p";
        let cases: [(&[&str], &[usize]); 5] = [
            (&[], &[]),
            (&[once], &[]),
            (&[once, twice], &TURNED),
            (&[once, twice, as_rows], &[]),
            (&[once, twice, own_result], &[]),
        ];
        for (lines, expected) in cases {
            let graph = graph(&lines.join("\n"));
            let plan = plan_of(&graph, Fusion::On);
            assert_eq!(order(&plan), expected, "{lines:?}");
        }
    }
}
