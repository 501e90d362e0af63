//! The driver: the few functions and types of it that an executor needs. Nothing outside of this room knows which crate
//! reaches the driver: `cudarc`, or with the feature `cust` that crate.
//!
//! `cudarc` opens the library when it is first asked for, so a program that has this in it starts on every machine. Ask
//! [`is_installed`] and [`missing_function`] before anything else: the crate panics where the library, or a function of it,
//! is not there. With `cust` the program is linked with the library, and starts only where there is a driver.
//!
//! What is made here keeps its context alive and belongs to it. A context is the current one of each thread by itself:
//! [`Context::enter`] comes before other calls of a thread.

#[cfg(not(feature = "cust"))]
#[path = "driver/cudarc.rs"]
mod binding;
#[cfg(feature = "cust")]
#[path = "driver/cust.rs"]
mod binding;

use crate::kernel::target::Architecture;
use binding::{find, sys};
use std::ffi::{CStr, CString, c_char, c_int, c_uchar, c_uint, c_ulonglong, c_void};
use std::ops::Range;
use std::ptr::null_mut;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// What an error of the driver means for whoever called it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    OutOfMemory,
    /// The driver sees no GPU.
    NoDevice,
    /// The code is not for this device, or of a compiler that is newer than the driver.
    WrongCode,
    /// The context is dead, and all that is in it.
    Lost,
    Other,
}

/// What the driver said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct DriverError {
    pub kind: Kind,
    /// The error's name and meaning, and what was being done where that helps.
    pub text: String,
}

type Result<T> = std::result::Result<T, DriverError>;

/// How kernels are launched: blocks, threads of a block, and bytes of shared memory that are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub grid: u32,
    pub block: u32,
    pub shared_bytes: u32,
}

/// What a function of the driver gives: 0, or the number of an error. Newer drivers have more errors than a crate, whose
/// enum must hold no number that it does not name: so the functions are declared here, to give a number.
type Status = u32;
const SUCCESS: Status = 0;
const NOT_FOUND: Status = sys::CUresult::CUDA_ERROR_NOT_FOUND as Status;

/// Declares functions of the driver, and the list of them all.
macro_rules! functions {
    ($($name:ident($($argument:ident: $ty:ty),*);)*) => {
        const FUNCTIONS: &[&CStr] = &[$(
            match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                Ok(name) => name,
                Err(_) => panic!("an identifier has no zero byte"),
            }
        ),*];

        /// The functions by their own names.
        #[allow(non_snake_case)]
        mod call {
            use super::*;
            $(
                /// # Safety
                /// What the driver's manual asks for. The library is there.
                #[allow(clippy::too_many_arguments)] // as many as the driver's function has
                pub unsafe fn $name($($argument: $ty),*) -> Status {
                    type Function = unsafe extern "C" fn($($ty),*) -> Status;
                    static FUNCTION: OnceLock<Option<Function>> = OnceLock::new();
                    match FUNCTION.get_or_init(|| find!($name($($ty),*): Function)) {
                        // SAFETY: by the caller's word.
                        Some(function) => unsafe { function($($argument),*) },
                        None => NOT_FOUND,
                    }
                }
            )*
        }
    };
}

functions! {
    cuInit(flags: c_uint);
    cuDriverGetVersion(version: *mut c_int);
    cuGetErrorName(error: Status, text: *mut *const c_char);
    cuGetErrorString(error: Status, text: *mut *const c_char);
    cuDeviceGetCount(count: *mut c_int);
    cuDeviceGet(device: *mut sys::CUdevice, ordinal: c_int);
    cuDeviceGetName(name: *mut c_char, length: c_int, device: sys::CUdevice);
    cuDeviceGetAttribute(value: *mut c_int, attribute: sys::CUdevice_attribute, device: sys::CUdevice);
    cuDeviceTotalMem_v2(bytes: *mut usize, device: sys::CUdevice);
    cuDevicePrimaryCtxRetain(context: *mut sys::CUcontext, device: sys::CUdevice);
    cuDevicePrimaryCtxRelease_v2(device: sys::CUdevice);
    cuCtxSetCurrent(context: sys::CUcontext);
    cuMemGetInfo_v2(free: *mut usize, total: *mut usize);
    cuModuleLoadDataEx(
        module: *mut sys::CUmodule, image: *const c_void, count: c_uint, options: *mut sys::CUjit_option,
        values: *mut *mut c_void
    );
    cuModuleUnload(module: sys::CUmodule);
    cuModuleGetFunction(function: *mut sys::CUfunction, module: sys::CUmodule, name: *const c_char);
    cuFuncSetAttribute(function: sys::CUfunction, attribute: sys::CUfunction_attribute, value: c_int);
    cuMemAlloc_v2(base: *mut sys::CUdeviceptr, bytes: usize);
    cuMemFree_v2(base: sys::CUdeviceptr);
    cuMemHostAlloc(base: *mut *mut c_void, bytes: usize, flags: c_uint);
    cuMemFreeHost(base: *mut c_void);
    cuMemcpyHtoDAsync_v2(to: sys::CUdeviceptr, from: *const c_void, bytes: usize, stream: sys::CUstream);
    cuMemcpyDtoHAsync_v2(to: *mut c_void, from: sys::CUdeviceptr, bytes: usize, stream: sys::CUstream);
    cuMemsetD8Async(at: sys::CUdeviceptr, value: c_uchar, bytes: usize, stream: sys::CUstream);
    cuStreamCreate(stream: *mut sys::CUstream, flags: c_uint);
    cuStreamDestroy_v2(stream: sys::CUstream);
    cuStreamSynchronize(stream: sys::CUstream);
    cuEventCreate(event: *mut sys::CUevent, flags: c_uint);
    cuEventRecord(event: sys::CUevent, stream: sys::CUstream);
    cuEventSynchronize(event: sys::CUevent);
    cuEventDestroy_v2(event: sys::CUevent);
    cuEventElapsedTime(milliseconds: *mut f32, start: sys::CUevent, end: sys::CUevent);
    cuGraphCreate(graph: *mut sys::CUgraph, flags: c_uint);
    cuGraphDestroy(graph: sys::CUgraph);
    cuGraphInstantiateWithFlags(ready: *mut sys::CUgraphExec, graph: sys::CUgraph, flags: c_ulonglong);
    cuGraphExecDestroy(graph: sys::CUgraphExec);
    cuGraphUpload(graph: sys::CUgraphExec, stream: sys::CUstream);
    cuGraphLaunch(graph: sys::CUgraphExec, stream: sys::CUstream);
    cuLaunchKernel(
        function: sys::CUfunction, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint, block_y: c_uint,
        block_z: c_uint, shared_bytes: c_uint, stream: sys::CUstream, arguments: *mut *mut c_void,
        extra: *mut *mut c_void
    );
}

/// The function that adds a launch to a graph, whose name depends on how many parameters a crate knows.
type AddKernelNode = unsafe extern "C" fn(
    *mut sys::CUgraphNode,
    sys::CUgraph,
    *const sys::CUgraphNode,
    usize,
    *const sys::CUDA_KERNEL_NODE_PARAMS,
) -> Status;

/// Whether the driver's library is there.
pub fn is_installed() -> bool {
    binding::is_installed()
}

/// A function that an installed driver lacks: it is too old.
pub fn missing_function() -> Option<&'static str> {
    let missing = FUNCTIONS.iter().chain(&[binding::ADD_KERNEL_NODE]).find(|name| !binding::has(name));
    missing.map(|name| name.to_str().unwrap_or("a function"))
}

/// Errors of code that is not for this device or driver.
const WRONG_CODE: [sys::CUresult; 7] = {
    use sys::CUresult as C;
    [
        C::CUDA_ERROR_NO_BINARY_FOR_GPU,
        C::CUDA_ERROR_UNSUPPORTED_PTX_VERSION,
        C::CUDA_ERROR_INVALID_PTX,
        C::CUDA_ERROR_INVALID_IMAGE,
        C::CUDA_ERROR_JIT_COMPILER_NOT_FOUND,
        C::CUDA_ERROR_JIT_COMPILATION_DISABLED,
        C::CUDA_ERROR_INVALID_SOURCE,
    ]
};

/// Errors after which a context is dead.
const LOST: [sys::CUresult; 14] = {
    use sys::CUresult as C;
    [
        C::CUDA_ERROR_ILLEGAL_ADDRESS,
        C::CUDA_ERROR_LAUNCH_TIMEOUT,
        C::CUDA_ERROR_CONTEXT_IS_DESTROYED,
        C::CUDA_ERROR_ASSERT,
        C::CUDA_ERROR_HARDWARE_STACK_ERROR,
        C::CUDA_ERROR_ILLEGAL_INSTRUCTION,
        C::CUDA_ERROR_MISALIGNED_ADDRESS,
        C::CUDA_ERROR_INVALID_ADDRESS_SPACE,
        C::CUDA_ERROR_INVALID_PC,
        C::CUDA_ERROR_LAUNCH_FAILED,
        C::CUDA_ERROR_ECC_UNCORRECTABLE,
        C::CUDA_ERROR_NVLINK_UNCORRECTABLE,
        C::CUDA_ERROR_DEINITIALIZED,
        C::CUDA_ERROR_UNKNOWN,
    ]
};

/// The context's device is not available any more. Not in the enum of all crates.
const DEVICE_UNAVAILABLE: Status = 46;

fn kind_of(error: Status) -> Kind {
    use sys::CUresult as C;
    let is = |known: &C| *known as Status == error;
    match error {
        _ if is(&C::CUDA_ERROR_OUT_OF_MEMORY) => Kind::OutOfMemory,
        _ if is(&C::CUDA_ERROR_NO_DEVICE) => Kind::NoDevice,
        _ if WRONG_CODE.iter().any(is) => Kind::WrongCode,
        _ if LOST.iter().any(is) || error == DEVICE_UNAVAILABLE => Kind::Lost,
        _ => Kind::Other,
    }
}

fn check(result: Status) -> Result<()> {
    if result == SUCCESS { Ok(()) } else { Err(error(result)) }
}

/// An error of the driver by its number.
fn error(result: Status) -> DriverError {
    let words = |get: unsafe fn(Status, *mut *const c_char) -> Status| {
        let mut text = std::ptr::null();
        // SAFETY: the pointer is to a place for a pointer.
        if unsafe { get(result, &mut text) } != SUCCESS || text.is_null() {
            return None;
        }
        // SAFETY: a string of the driver's own, which lives as long as the library.
        Some(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
    };
    let name = words(call::cuGetErrorName).unwrap_or_else(|| format!("error {result}"));
    let text = words(call::cuGetErrorString).filter(|meaning| *meaning != name);
    let text = text.map_or(name.clone(), |meaning| format!("{meaning} ({name})"));
    DriverError { kind: kind_of(result), text }
}

impl DriverError {
    /// With what was being done.
    fn while_(mut self, what: &str) -> DriverError {
        self.text = format!("{what}: {}", self.text);
        self
    }
}

/// Starts the driver.
pub fn init() -> Result<()> {
    // SAFETY: takes nothing of ours.
    check(unsafe { call::cuInit(0) })
}

/// The version of CUDA that the driver is for: 12.4 is (12, 4).
pub fn version() -> Result<(u32, u32)> {
    let mut version = 0;
    // SAFETY: a place for a number.
    check(unsafe { call::cuDriverGetVersion(&mut version) })?;
    Ok((version as u32 / 1000, version as u32 % 1000 / 10))
}

pub fn device_count() -> Result<usize> {
    let mut count = 0;
    // SAFETY: a place for a number.
    check(unsafe { call::cuDeviceGetCount(&mut count) })?;
    Ok(count as usize)
}

/// What a device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Properties {
    pub name: String,
    pub architecture: Architecture,
    /// Bytes.
    pub memory: usize,
    pub multiprocessors: usize,
    /// Bytes of the second-level cache.
    pub cache: usize,
}

pub fn properties(ordinal: usize) -> Result<Properties> {
    use sys::CUdevice_attribute_enum as A;
    let mut device = 0;
    let mut name = [0u8; 256];
    let mut memory = 0;
    // SAFETY: places for a number, for as many characters as are told, and for a number.
    unsafe {
        check(call::cuDeviceGet(&mut device, ordinal as i32))?;
        check(call::cuDeviceGetName(name.as_mut_ptr().cast(), name.len() as i32, device))?;
        check(call::cuDeviceTotalMem_v2(&mut memory, device))?;
    }
    let attribute = |attribute| {
        let mut value = 0;
        // SAFETY: a place for a number.
        check(unsafe { call::cuDeviceGetAttribute(&mut value, attribute, device) })?;
        Ok(value as u32)
    };
    let major = attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    let name = CStr::from_bytes_until_nul(&name).unwrap_or_default().to_string_lossy().into_owned();
    let multiprocessors = attribute(A::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as usize;
    let cache = attribute(A::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)? as usize;
    Ok(Properties { name, architecture: Architecture(major * 10 + minor), memory, multiprocessors, cache })
}

/// A device's own context, which all of a process share.
#[derive(Debug)]
pub struct Context {
    device: sys::CUdevice,
    raw: sys::CUcontext,
}

// SAFETY: handles of the driver may be used by any thread; the driver locks what it must.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    /// Opens a device and enters its context.
    pub fn open(ordinal: usize) -> Result<Arc<Context>> {
        let mut device = 0;
        let mut raw = null_mut();
        // SAFETY: places for a number and a handle.
        unsafe {
            check(call::cuDeviceGet(&mut device, ordinal as i32))?;
            check(call::cuDevicePrimaryCtxRetain(&mut raw, device))?;
        }
        let context = Arc::new(Context { device, raw });
        context.enter()?;
        Ok(context)
    }

    /// Makes it the calling thread's context.
    pub fn enter(&self) -> Result<()> {
        // SAFETY: the context is retained as long as `self` lives.
        check(unsafe { call::cuCtxSetCurrent(self.raw) })
    }

    /// Free and total bytes of the device.
    pub fn memory(&self) -> Result<(usize, usize)> {
        let (mut free, mut total) = (0, 0);
        // SAFETY: places for two numbers.
        check(unsafe { call::cuMemGetInfo_v2(&mut free, &mut total) })?;
        Ok((free, total))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: retained once in `open`.
        let _ = unsafe { call::cuDevicePrimaryCtxRelease_v2(self.device) };
    }
}

/// A handle of the driver with the function that gives it back.
macro_rules! handle {
    ($(#[$doc:meta])* $name:ident: $raw:ty, $destroy:path) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name {
            raw: $raw,
            context: Arc<Context>,
        }

        // SAFETY: handles of the driver may be used by any thread; the driver locks what it must.
        unsafe impl Send for $name {}
        // SAFETY: as above.
        unsafe impl Sync for $name {}

        impl Drop for $name {
            fn drop(&mut self) {
                // A context that is lost refuses; then there is nothing left to give back.
                let _ = self.context.enter();
                // SAFETY: made by the driver, and given back once.
                let _ = unsafe { $destroy(self.raw) };
            }
        }
    };
}

handle! {
    /// Loaded code.
    Module: sys::CUmodule, call::cuModuleUnload
}
handle! {
    /// Work that is done in order.
    Stream: sys::CUstream, call::cuStreamDestroy_v2
}
handle! {
    /// A moment in a stream.
    Event: sys::CUevent, call::cuEventDestroy_v2
}
handle! {
    /// Launches with their order, ready to be launched as one.
    Graph: sys::CUgraphExec, call::cuGraphExecDestroy
}

impl Module {
    /// Loads a cubin, or PTX that ends with a zero byte.
    pub fn load(context: &Arc<Context>, image: &[u8]) -> Result<Arc<Module>> {
        use sys::CUjit_option_enum as J;
        let is_elf = image.starts_with(b"\x7fELF");
        assert!(is_elf || image.ends_with(b"\0"), "the driver reads to the zero byte");
        let mut log = vec![0u8; 8192];
        let mut options = [J::CU_JIT_ERROR_LOG_BUFFER, J::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
        let mut values = [log.as_mut_ptr().cast::<c_void>(), log.len() as *mut c_void];
        let mut raw = null_mut();
        // SAFETY: the image is whole, by its own header or by the zero byte at its end; the log is as long as told, and both
        // arrays have two elements.
        let loaded = check(unsafe {
            let (options, values) = (options.as_mut_ptr(), values.as_mut_ptr());
            call::cuModuleLoadDataEx(&mut raw, image.as_ptr().cast(), 2, options, values)
        });
        loaded.map_err(|mut error| {
            let log = CStr::from_bytes_until_nul(&log).unwrap_or_default().to_string_lossy();
            if !log.trim().is_empty() {
                error.text += &format!(": {}", log.trim());
            }
            error
        })?;
        Ok(Arc::new(Module { raw, context: context.clone() }))
    }

    /// Whether its kernels wait for those before them: see `kernels/prelude.cuh`.
    fn awaits(&self) -> bool {
        let mut raw = null_mut();
        // SAFETY: a place for a handle, and a string that ends with a zero.
        check(unsafe { call::cuModuleGetFunction(&mut raw, self.raw, c"kernels_await_predecessors".as_ptr()) }).is_ok()
    }

    /// A kernel `void name(unsigned char* arena)`, which may ask for so many bytes of shared memory.
    pub fn function(self: &Arc<Module>, name: &str, shared_bytes: u32) -> Result<Function> {
        use sys::CUfunction_attribute_enum as F;
        let c_name = CString::new(name).unwrap_or_default();
        let mut raw = null_mut();
        // SAFETY: a place for a handle, and a string that ends with a zero.
        check(unsafe { call::cuModuleGetFunction(&mut raw, self.raw, c_name.as_ptr()) }).map_err(|e| e.while_(name))?;
        if shared_bytes > 0 {
            let attribute = F::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: a function of this module.
            check(unsafe { call::cuFuncSetAttribute(raw, attribute, shared_bytes as i32) })
                .map_err(|e| e.while_(&format!("{name} with {shared_bytes} bytes of shared memory")))?;
        }
        Ok(Function { raw, awaits: self.awaits(), _module: self.clone() })
    }
}

/// A kernel of a module.
#[derive(Debug, Clone)]
pub struct Function {
    raw: sys::CUfunction,
    /// Whether it begins by waiting for the kernels that it depends on, so that it can be launched before they end.
    awaits: bool,
    _module: Arc<Module>,
}

// SAFETY: handles of the driver may be used by any thread; the driver locks what it must.
unsafe impl Send for Function {}
// SAFETY: as above.
unsafe impl Sync for Function {}

/// Bytes on the device.
#[derive(Debug)]
pub struct Memory {
    base: sys::CUdeviceptr,
    bytes: usize,
    context: Arc<Context>,
}

impl Memory {
    pub fn new(context: &Arc<Context>, bytes: usize) -> Result<Memory> {
        let mut base = 0;
        // The driver gives no empty memory.
        // SAFETY: a place for an address.
        check(unsafe { call::cuMemAlloc_v2(&mut base, bytes.max(1)) })?;
        Ok(Memory { base, bytes, context: context.clone() })
    }

    /// Where it is on the device, for kernels that find it in other memory. It must live as long as they run.
    pub fn address(&self) -> u64 {
        self.base
    }

    /// The address on the device of some of its bytes, once they are known to be inside.
    fn at(&self, range: &Range<usize>) -> sys::CUdeviceptr {
        assert!(range.start <= range.end && range.end <= self.bytes, "outside of the device's memory");
        self.base + range.start as sys::CUdeviceptr
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let _ = self.context.enter();
        // SAFETY: allocated in `new`, and freed once; the driver waits for what uses it.
        let _ = unsafe { call::cuMemFree_v2(self.base) };
    }
}

/// Bytes of the host that the device copies without the driver's help.
#[derive(Debug)]
pub struct Pinned {
    base: *mut u8,
    bytes: usize,
    context: Arc<Context>,
}

// SAFETY: memory that belongs to the value, like a boxed slice.
unsafe impl Send for Pinned {}
// SAFETY: as above; shared references only read.
unsafe impl Sync for Pinned {}

impl Pinned {
    /// Zeros.
    pub fn new(context: &Arc<Context>, bytes: usize) -> Result<Pinned> {
        let mut base = null_mut();
        // SAFETY: a place for an address.
        check(unsafe { call::cuMemHostAlloc(&mut base, bytes.max(1), 0) })?;
        let base = base.cast::<u8>();
        // SAFETY: so many bytes were just allocated.
        unsafe { base.write_bytes(0, bytes) };
        Ok(Pinned { base, bytes, context: context.clone() })
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: so many initialised bytes that are the value's own.
        unsafe { std::slice::from_raw_parts(self.base, self.bytes) }
    }

    /// To be written: not while a copy from it is under way.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed by nobody else.
        unsafe { std::slice::from_raw_parts_mut(self.base, self.bytes) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = self.context.enter();
        // SAFETY: allocated in `new`, and freed once.
        let _ = unsafe { call::cuMemFreeHost(self.base.cast()) };
    }
}

impl Stream {
    /// A stream that waits for no other.
    pub fn new(context: &Arc<Context>) -> Result<Stream> {
        let mut raw = null_mut();
        let flags = sys::CUstream_flags_enum::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: a place for a handle.
        check(unsafe { call::cuStreamCreate(&mut raw, flags) })?;
        Ok(Stream { raw, context: context.clone() })
    }

    /// Waits until all its work is done.
    pub fn wait(&self) -> Result<()> {
        // SAFETY: the handle lives as long as `self`.
        check(unsafe { call::cuStreamSynchronize(self.raw) })
    }

    /// Copies to the device and waits for it.
    pub fn write(&self, memory: &Memory, at: Range<usize>, from: &[u8]) -> Result<()> {
        assert_eq!(at.len(), from.len(), "as many bytes as they go to");
        // SAFETY: both sides have so many bytes, and the wait keeps the host's borrowed until the copy is made.
        check(unsafe { call::cuMemcpyHtoDAsync_v2(memory.at(&at), from.as_ptr().cast(), from.len(), self.raw) })?;
        self.wait()
    }

    /// Copies to the device when the work before is done; returns at once.
    ///
    /// # Safety
    /// `from` must stay, and not be written to, until an event that is recorded afterwards has happened.
    pub unsafe fn write_later(&self, memory: &Memory, at: Range<usize>, from: &Pinned, start: usize) -> Result<()> {
        let from = &from.bytes()[start..start + at.len()];
        // SAFETY: both sides have so many bytes; the host's stay, by the caller's word.
        check(unsafe { call::cuMemcpyHtoDAsync_v2(memory.at(&at), from.as_ptr().cast(), from.len(), self.raw) })
    }

    /// Copies from the device, after all work, and waits for it.
    pub fn read(&self, memory: &Memory, at: Range<usize>, into: &mut [u8]) -> Result<()> {
        assert_eq!(at.len(), into.len(), "as many bytes as they come from");
        // SAFETY: both sides have so many bytes, and the wait keeps the host's borrowed until the copy is made.
        check(unsafe { call::cuMemcpyDtoHAsync_v2(into.as_mut_ptr().cast(), memory.at(&at), into.len(), self.raw) })?;
        self.wait()
    }

    /// Copies from the device to the start of `into` when the work before is done; returns at once.
    ///
    /// # Safety
    /// `into` must stay, and be neither read nor written, until an event that is recorded afterwards has happened.
    pub unsafe fn read_later(&self, memory: &Memory, at: Range<usize>, into: &mut Pinned) -> Result<()> {
        let into = &mut into.bytes_mut()[..at.len()];
        // SAFETY: both sides have so many bytes; the host's stay, by the caller's word.
        check(unsafe { call::cuMemcpyDtoHAsync_v2(into.as_mut_ptr().cast(), memory.at(&at), into.len(), self.raw) })
    }

    /// Sets bytes to zero when the work before is done.
    pub fn clear(&self, memory: &Memory, at: Range<usize>) -> Result<()> {
        if at.is_empty() {
            return Ok(());
        }
        // SAFETY: the bytes are inside, and freeing the memory waits.
        check(unsafe { call::cuMemsetD8Async(memory.at(&at), 0, at.len(), self.raw) })
    }

    /// Launches a kernel on an arena when the work before is done.
    ///
    /// # Safety
    /// The kernel must stay inside the arena, for such a launch.
    pub unsafe fn launch(&self, function: &Function, shape: Shape, arena: &Memory) -> Result<()> {
        let mut base = arena.base;
        let mut arguments = [(&raw mut base).cast::<c_void>()];
        let Shape { grid, block, shared_bytes } = shape;
        let (raw, arguments) = (function.raw, arguments.as_mut_ptr());
        // SAFETY: the kernel takes one address, which is copied before this returns; the rest by the caller's word.
        check(unsafe {
            call::cuLaunchKernel(raw, grid, 1, 1, block, 1, 1, shared_bytes, self.raw, arguments, null_mut())
        })
    }
}

impl Event {
    pub fn new(context: &Arc<Context>) -> Result<Event> {
        let mut raw = null_mut();
        // SAFETY: a place for a handle.
        check(unsafe { call::cuEventCreate(&mut raw, sys::CUevent_flags_enum::CU_EVENT_DEFAULT as u32) })?;
        Ok(Event { raw, context: context.clone() })
    }

    /// Happens when what is in the stream now is done.
    pub fn record(&self, stream: &Stream) -> Result<()> {
        // SAFETY: both handles live.
        check(unsafe { call::cuEventRecord(self.raw, stream.raw) })
    }

    /// Waits until it has happened; returns at once where it was never recorded.
    pub fn wait(&self) -> Result<()> {
        // SAFETY: the handle lives as long as `self`.
        check(unsafe { call::cuEventSynchronize(self.raw) })
    }

    /// The time from an earlier event to this one, by the device's clock; both have happened.
    pub fn since(&self, earlier: &Event) -> Result<Duration> {
        let mut milliseconds = 0f32;
        // SAFETY: both handles live, and a place for a number.
        check(unsafe { call::cuEventElapsedTime(&mut milliseconds, earlier.raw, self.raw) })?;
        Ok(Duration::from_secs_f64(f64::from(milliseconds.max(0.0)) * 1e-3))
    }
}

/// A launch in a graph.
#[derive(Debug, Clone)]
pub struct Node {
    pub function: Function,
    pub shape: Shape,
    /// Indices of earlier nodes that must be complete.
    pub after: Vec<usize>,
}

impl Graph {
    /// A graph of launches on an arena. Kernels that wait for others by themselves are launched while these still run, where
    /// the driver can do that; what they compute is the same.
    ///
    /// # Safety
    /// Each kernel must stay inside the arena, which must live as long as the graph.
    pub unsafe fn new(context: &Arc<Context>, nodes: &[Node], arena: &Memory) -> Result<Graph> {
        let overlaps = nodes.iter().any(|node| node.function.awaits && !node.after.is_empty());
        match Graph::of(context, nodes, arena, overlaps) {
            // A driver for less than CUDA 12.3, or a crate that is.
            Err(error) if overlaps && error.kind == Kind::Other => Graph::of(context, nodes, arena, false),
            made => made,
        }
    }

    fn of(context: &Arc<Context>, nodes: &[Node], arena: &Memory, overlaps: bool) -> Result<Graph> {
        let mut graph = null_mut();
        // SAFETY: a place for a handle.
        check(unsafe { call::cuGraphCreate(&mut graph, 0) })?;
        let built = build(graph, nodes, arena, overlaps);
        // SAFETY: made above; what was made of it is a copy.
        let destroyed = check(unsafe { call::cuGraphDestroy(graph) });
        let graph = Graph { raw: built?, context: context.clone() };
        destroyed?;
        Ok(graph)
    }

    /// Brings it to the device, so that the first launch is as fast as others.
    pub fn upload(&self, stream: &Stream) -> Result<()> {
        // SAFETY: both handles live.
        check(unsafe { call::cuGraphUpload(self.raw, stream.raw) })
    }

    /// Launches all of it when the work before is done.
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        // SAFETY: both handles live; the kernels stay inside an arena that lives, by the word given to `new`.
        check(unsafe { call::cuGraphLaunch(self.raw, stream.raw) })
    }
}

/// How a launch is told to a graph.
fn parameters(node: &Node, argument: &mut *mut c_void) -> sys::CUDA_KERNEL_NODE_PARAMS {
    // SAFETY: numbers and pointers, of which a crate for newer drivers has more than are set below: none of these.
    let mut parameters: sys::CUDA_KERNEL_NODE_PARAMS = unsafe { std::mem::zeroed() };
    parameters.func = node.function.raw;
    (parameters.gridDimX, parameters.gridDimY, parameters.gridDimZ) = (node.shape.grid, 1, 1);
    (parameters.blockDimX, parameters.blockDimY, parameters.blockDimZ) = (node.shape.block, 1, 1);
    parameters.sharedMemBytes = node.shape.shared_bytes;
    parameters.kernelParams = argument;
    parameters
}

/// Adds nodes to an empty graph, and makes it ready. Where `overlaps`, the edges to kernels that wait are programmatic. Such
/// a wait is for the end of the kernels at its edges, which end after their own waits: so what is ordered by a path of
/// edges is ordered as by full ones.
fn build(graph: sys::CUgraph, nodes: &[Node], arena: &Memory, overlaps: bool) -> Result<sys::CUgraphExec> {
    let Some(add_kernel_node) = binding::add_kernel_node() else { return Err(error(NOT_FOUND)) };
    let mut made: Vec<sys::CUgraphNode> = Vec::with_capacity(nodes.len());
    for node in nodes {
        let after: Vec<sys::CUgraphNode> = node.after.iter().map(|&i| made[i]).collect();
        let (full, early) =
            if overlaps && node.function.awaits { (&[][..], &after[..]) } else { (&after[..], &[][..]) };
        let mut base = arena.base;
        let mut argument = (&raw mut base).cast::<c_void>();
        let mut raw = null_mut();
        let parameters = parameters(node, &mut argument);
        // SAFETY: nodes of this graph, as many as told; the kernel takes one address, which is copied.
        check(unsafe { add_kernel_node(&mut raw, graph, full.as_ptr(), full.len(), &parameters) })?;
        made.push(raw);
        if !early.is_empty() {
            // SAFETY: nodes of this graph.
            check(unsafe { binding::add_early_edges(graph, early, raw) })?;
        }
    }
    let mut ready = null_mut();
    // SAFETY: a place for a handle, and a graph that lives.
    check(unsafe { call::cuGraphInstantiateWithFlags(&mut ready, graph, 0) })?;
    Ok(ready)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_after_which_a_context_is_dead_are_told_from_others() {
        use sys::CUresult as C;
        for sticky in [C::CUDA_ERROR_ILLEGAL_ADDRESS, C::CUDA_ERROR_LAUNCH_FAILED, C::CUDA_ERROR_MISALIGNED_ADDRESS] {
            assert_eq!(kind_of(sticky as Status), Kind::Lost);
        }
        assert_eq!(kind_of(C::CUDA_ERROR_OUT_OF_MEMORY as Status), Kind::OutOfMemory);
        assert_eq!(kind_of(C::CUDA_ERROR_NO_BINARY_FOR_GPU as Status), Kind::WrongCode);
        assert_eq!(kind_of(C::CUDA_ERROR_INVALID_VALUE as Status), Kind::Other);
        // Of a driver that is newer than the crate.
        assert_eq!(kind_of(4321), Kind::Other);
    }
}
