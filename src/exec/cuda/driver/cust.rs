//! The driver by `cust`, whose bindings are of CUDA 11.4 and linked with the library: so a program starts only where there is
//! a driver, and needs one (or a stub of it) to be linked. The crate's safe types have no launch of graphs, without which
//! there is no step; so what is taken of it are its declarations, by which the functions here are checked.

use super::{Shape, Status};
pub use cust::sys;
use std::ffi::{CStr, c_void};
use std::ptr::null_mut;

/// Whether the library is there: else the program would not have started.
pub fn is_installed() -> bool {
    true
}

/// Whether the library has a function. As above.
pub fn has(_name: &CStr) -> bool {
    true
}

/// A function that the crate declares, with an error's number as its result.
macro_rules! find {
    // These two take an error as the enum, which must not hold a number that it does not name.
    (cuGetErrorName($($ty:ty),*): $function:ty) => {
        find!(@error cuGetErrorName: $function)
    };
    (cuGetErrorString($($ty:ty),*): $function:ty) => {
        find!(@error cuGetErrorString: $function)
    };
    (@error $name:ident: $function:ty) => {{
        let declared: unsafe extern "C" fn(sys::CUresult, *mut *const c_char) -> sys::CUresult = sys::$name;
        // SAFETY: the same but for the enums, which are as wide as numbers.
        Some(unsafe {
            std::mem::transmute::<unsafe extern "C" fn(sys::CUresult, *mut *const c_char) -> sys::CUresult, $function>(
                declared,
            )
        })
    }};
    ($name:ident($($ty:ty),*): $function:ty) => {{
        let declared: unsafe extern "C" fn($($ty),*) -> sys::CUresult = sys::$name;
        // SAFETY: the same but for the result, whose enum is as wide as a number.
        Some(unsafe { std::mem::transmute::<unsafe extern "C" fn($($ty),*) -> sys::CUresult, $function>(declared) })
    }};
}
pub(super) use find;

/// The function that [`add_kernel_node`] calls.
pub const ADD_KERNEL_NODE: &CStr = c"cuGraphAddKernelNode";

/// Adds a launch to a graph, after others of it.
///
/// # Safety
/// All handles live, and `argument` points to what the kernel takes.
pub unsafe fn add_kernel_node(
    node: *mut sys::CUgraphNode,
    graph: sys::CUgraph,
    after: &[sys::CUgraphNode],
    function: sys::CUfunction,
    shape: Shape,
    argument: &mut *mut c_void,
) -> Status {
    type Function = unsafe extern "C" fn(
        *mut sys::CUgraphNode,
        sys::CUgraph,
        *const sys::CUgraphNode,
        usize,
        *const sys::CUDA_KERNEL_NODE_PARAMS,
    ) -> Status;
    let add: Option<Function> = find!(cuGraphAddKernelNode(
        *mut sys::CUgraphNode,
        sys::CUgraph,
        *const sys::CUgraphNode,
        usize,
        *const sys::CUDA_KERNEL_NODE_PARAMS
    ): Function);
    let Some(add) = add else { return super::NOT_FOUND };
    let parameters = sys::CUDA_KERNEL_NODE_PARAMS {
        func: function,
        gridDimX: shape.grid,
        gridDimY: 1,
        gridDimZ: 1,
        blockDimX: shape.block,
        blockDimY: 1,
        blockDimZ: 1,
        sharedMemBytes: shape.shared_bytes,
        kernelParams: argument,
        extra: null_mut(),
    };
    // SAFETY: by the caller's word; as many nodes as told.
    unsafe { add(node, graph, after.as_ptr(), after.len(), &parameters) }
}

/// Programmatic edges are newer than the crate's bindings.
///
/// # Safety
/// Nothing is done.
pub unsafe fn add_early_edges(_: sys::CUgraph, _: &[sys::CUgraphNode], _: sys::CUgraphNode) -> Status {
    super::NOT_FOUND
}
