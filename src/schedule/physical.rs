//! The order in memory of the dimensions of values that go from kernel to kernel. The graph does not have one.

use super::fuse::Group;
use super::lower::Lowering;
use crate::ir::NodeId;
use std::collections::HashMap;

/// By node, the dimensions of its value from the outermost in memory to the innermost, where that is not the shape's
/// own order.
pub type Orders = HashMap<NodeId, Vec<usize>>;

/// `[n][c][h][w]` as `[h][w][n][c]`.
const PIXEL_MAJOR: [usize; 4] = [2, 3, 0, 1];

/// Gives pixel-major order to every image that goes from kernel to kernel (which `between` tells), where the kernels
/// that touch it can still be lowered.
pub(super) fn pixel_major(lowering: &Lowering, groups: &[Group], between: &dyn Fn(NodeId) -> bool) -> Orders {
    let graph = lowering.graph;
    let mut orders = Orders::new();
    let lowers = |orders: &Orders| {
        let lowering = Lowering { orders, ..*lowering };
        groups.iter().all(|group| lowering.body(&group.core, &group.members, &|_| true).is_ok())
    };
    let images = groups.iter().flat_map(|group| &group.members).copied();
    for image in images.filter(|&id| between(id) && graph.shape(id).len() == 4) {
        orders.insert(image, PIXEL_MAJOR.to_vec());
        if !lowers(&orders) {
            orders.remove(&image);
        }
    }
    orders
}
