//! Matrix-vector and outer products as elementwise products and their sums.

use super::movement::swaps_rows_and_columns;
use super::rewrite::replace;
use super::{PassContext, Report};
use crate::ir::{Builder, Graph, NodeId, Op};
use crate::scalar::ScalarOp;

/// Computes matrix products with one row, column or term as elementwise products, and their sums where there are several
/// terms, where [`PassContext::thin_products`] asks for it. Of a tile of a matrix product nearly all would be empty; and
/// elementwise products, such as a dense layer of one unit passes back, are computed where they are used.
///
/// ```text
/// %y: f32[8,1] = matmul %x %w            →   %v: f32[1,32] = reshape %w
///                                            %b: f32[8,32] = broadcast %v
///                                            %p: f32[8,32] = mul %x %b
///                                            %y: f32[8,1] = reduce_sum %p axes=[1]
/// %dx: f32[8,32] = matmul %dy %wt        →   %dx: f32[8,32] = mul %dyb %wtb
/// ```
///
/// A transposed matrix is multiplied as it lies, so that what reads a layer's activations goes through them in their own
/// order.
pub fn thin_products(graph: &mut Graph, context: &PassContext) -> Report {
    let nodes_before = graph.len();
    let mut changed = 0;
    if context.thin_products {
        for id in graph.topological() {
            changed += usize::from(rewrite(graph, id).is_some());
        }
    }
    Report::new(changed, nodes_before, graph)
}

fn rewrite(graph: &mut Graph, id: NodeId) -> Option<()> {
    if *graph.op(id) != Op::MatMul {
        return None;
    }
    let [a, b] = <[NodeId; 2]>::try_from(graph.operands(id)).ok()?;
    let &[.., m, k] = graph.shape(a) else { return None };
    let &[.., n] = graph.shape(b) else { return None };
    let batch = graph.shape(a)[..graph.shape(a).len() - 2].to_vec();
    let of = |rows: usize, columns: usize| [&batch[..], &[rows, columns]].concat();
    let rank = batch.len() + 2;
    let [rows, columns] = [rank - 2, rank - 1];
    let origin = graph.node(id).origin.clone();
    let mut builder = Builder::new(graph, origin);
    let new = if k == 1 {
        let (a, b) = (builder.broadcast(a, &of(m, n)), builder.broadcast(b, &of(m, n)));
        builder.scalar(ScalarOp::Mul, &[a, b])
    } else {
        // The columns of a transposed matrix are the rows of the matrix.
        let (matrix, vector, axis) = match (m, n) {
            (_, 1) => match untransposed(builder.graph, a) {
                Some(own) => (own, b, rows),
                None => (a, b, columns),
            },
            (1, _) => match untransposed(builder.graph, b) {
                Some(own) => (own, a, columns),
                None => (b, a, rows),
            },
            _ => return None,
        };
        let vector = builder.reshape(vector, &if axis == columns { of(1, k) } else { of(k, 1) });
        let shape = builder.shape(matrix);
        let repeated = builder.broadcast(vector, &shape);
        let product = builder.scalar(ScalarOp::Mul, &[matrix, repeated]);
        let sums = builder.sum(product, &[axis]);
        builder.reshape(sums, &of(m, n))
    };
    replace(graph, id, new);
    Some(())
}

/// What a node transposes the last two dimensions of, where that is what it does.
fn untransposed(graph: &Graph, id: NodeId) -> Option<NodeId> {
    let Op::Transpose { permutation } = graph.op(id) else { return None };
    swaps_rows_and_columns(permutation).then(|| graph.operands(id)[0])
}
