//! The driver by `cudarc`, which opens the library when it is first asked for.

use super::{AddKernelNode, Status};
pub use cudarc::driver::sys;
use std::ffi::{CStr, c_void};

/// Whether the library is there.
pub fn is_installed() -> bool {
    // SAFETY: opens a library of the system by the names of NVIDIA's driver, whose constructors are trusted.
    unsafe { sys::is_culib_present() }
}

/// Whether the library, which is there, has a function.
pub fn has(name: &CStr) -> bool {
    // SAFETY: the symbol is looked up, not called.
    unsafe { sys::culib().get::<*const c_void>(name.to_bytes_with_nul()) }.is_ok()
}

/// A function of the library by its name, where there is one.
macro_rules! find {
    ($name:ident($($ty:ty),*): $function:ty) => {
        // SAFETY: the types are those of NVIDIA's header `cuda.h`, whose enum of errors is as wide as a number.
        unsafe { sys::culib().get::<$function>(concat!(stringify!($name), "\0").as_bytes()) }.ok().map(|f| *f)
    };
}
pub(super) use find;

/// The function that adds a launch to a graph: its name, and itself.
pub const ADD_KERNEL_NODE: &CStr = c"cuGraphAddKernelNode_v2";

pub fn add_kernel_node() -> Option<AddKernelNode> {
    find!(cuGraphAddKernelNode_v2(): AddKernelNode)
}

/// The edge to a kernel that waits by itself: it may be launched when those before it have all begun and allow it.
const PROGRAMMATIC: sys::CUgraphEdgeData = sys::CUgraphEdgeData {
    from_port: 1, // CU_GRAPH_KERNEL_NODE_PORT_PROGRAMMATIC
    to_port: 0,
    type_: sys::CUgraphDependencyType_enum::CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC as u8,
    reserved: [0; 5],
};

/// Adds programmatic edges to a node of a graph from others of it. Drivers have them since CUDA 12.3.
///
/// # Safety
/// The library is there and all handles live.
pub unsafe fn add_early_edges(graph: sys::CUgraph, from: &[sys::CUgraphNode], to: sys::CUgraphNode) -> Status {
    type Function = unsafe extern "C" fn(
        sys::CUgraph,
        *const sys::CUgraphNode,
        *const sys::CUgraphNode,
        *const sys::CUgraphEdgeData,
        usize,
    ) -> Status;
    let Some(add) = find!(cuGraphAddDependencies_v2(): Function) else { return super::NOT_FOUND };
    let (to, edges) = (vec![to; from.len()], vec![PROGRAMMATIC; from.len()]);
    // SAFETY: by the caller's word; nodes and edges, each as many as told.
    unsafe { add(graph, from.as_ptr(), to.as_ptr(), edges.as_ptr(), from.len()) }
}
