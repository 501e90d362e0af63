//! The intermediate representation: typed SSA over tensors.
//!
//! A [`Graph`] is a function (state, inputs) → (state', outputs). Each node has exactly one output
//! tensor, a [`Type`] with all sizes known, a unique name and an [`Origin`] that points back at the
//! declaration. Nothing here knows what a GAN, a device or a file is.

mod builder;
mod graph;
mod infer;
mod interp;
mod limits;
mod module;
mod op;
mod serial;
pub mod text;
mod types;
mod verify;
mod verify_module;

pub use builder::Builder;
pub use graph::{AddError, Graph, Node, NodeId, Output, Probe, Update};
pub use infer::{TypeError, infer};
pub use interp::{Bindings, Data, Element, Evaluation, InterpError, Value, evaluate, evaluate_nodes};
pub use limits::{MAX_ELEMENTS, MAX_PADDED, MAX_RANK};
pub use module::{Entry, Feed, INIT, Initialiser, InputDecl, Module, StateDecl, StateRole};
pub use op::{Distribution, Op, ReduceKind, Window};
pub use types::{DType, Origin, Real, Role, Shape, Span, Type};
pub use verify::{VerifyError, is_legal_name, verify};
pub use verify_module::{ModuleError, verify_module};
