//! The driver by `cust`, whose bindings are of CUDA 11.4 and linked with the library: so a program starts only where there is
//! a driver, and needs one (or a stub of it) to be linked. The crate's safe types have no launch of graphs, without which
//! there is no step; so what is taken of it are its declarations, by which the functions here are checked.

use super::{AddKernelNode, Status};
pub use cust::sys;
use std::ffi::CStr;

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

/// The function that adds a launch to a graph: its name, and itself.
pub const ADD_KERNEL_NODE: &CStr = c"cuGraphAddKernelNode";

pub fn add_kernel_node() -> Option<AddKernelNode> {
    find!(cuGraphAddKernelNode(
        *mut sys::CUgraphNode,
        sys::CUgraph,
        *const sys::CUgraphNode,
        usize,
        *const sys::CUDA_KERNEL_NODE_PARAMS
    ): AddKernelNode)
}

/// Programmatic edges are newer than the crate's bindings.
///
/// # Safety
/// Nothing is done.
pub unsafe fn add_early_edges(_: sys::CUgraph, _: &[sys::CUgraphNode], _: sys::CUgraphNode) -> Status {
    super::NOT_FOUND
}
