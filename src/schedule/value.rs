//! What kernels read and write while they are being fused, before buffers have numbers.

use crate::ir::NodeId;
use crate::kernel::expr::index_type;
use serde::{Deserialize, Serialize};
use std::fmt;

index_type! {
    /// A value: a graph node's, by the node's index, or a number beyond for a copy.
    ValueId
}

impl ValueId {
    /// The value of a node.
    pub fn of(node: NodeId) -> ValueId {
        ValueId::new(node.index())
    }
}
