//! The intermediate representation: typed SSA over tensors.
//!
//! A [`Graph`] is a function (state, inputs) → (state', outputs). Each node has exactly one output
//! tensor, a [`Type`] with all sizes known, a unique name and an [`Origin`] that points back at the
//! declaration. Nothing here knows what a GAN, a device or a file is.

mod builder;
mod graph;
mod infer;
mod interp;
mod module;
mod op;
mod serial;
pub mod text;
mod types;
mod verify;
mod verify_module;

pub use crate::tensor::{DType, Shape, Type};
pub use crate::types::{
    Distribution, Feed, INIT, Initialiser, InputDecl, MAX_PADDED, Real, ReduceKind, Span, StateDecl, StateRole, Window,
};
pub use builder::{Builder, added};
pub use graph::{AddError, Graph, Node, NodeId, Output, Probe, Update};
pub use infer::{TypeError, infer};
pub use interp::{Bindings, Data, Element, Evaluation, InterpError, Value, evaluate, evaluate_nodes, evaluate_while};
pub use module::{Entry, Module};
pub use op::Op;
pub use types::{Origin, Role};
pub use verify::{VerifyError, is_legal_name, verify};
pub use verify_module::{ModuleError, verify_module};
