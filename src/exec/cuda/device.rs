//! NVIDIA GPUs as devices.

use super::ahead;
use super::code::{self, Given, Progress};
use super::driver::{self, Context, DriverError, Kind, Properties};
use super::executor::CudaExecutor;
use super::measure;
use super::nvrtc::NvrtcMissing;
use super::series::Desk;
use crate::exec::{Ceilings, Device, ExecError, Executor};
use crate::kernel::cost::Multiplied;
use crate::kernel::target::{Architecture, Target};
use crate::plan::{self, DeviceCode, Plan};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// The oldest version of CUDA that drivers must be for: the first with the form of graphs that is built here.
const OLDEST_DRIVER: (u32, u32) = (12, 0);

/// Why there is no GPU to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    NoDriver,
    OldDriver { found: String },
    NoDevice,
    NoSuchDevice { ordinal: usize, count: usize },
    OldDevice { found: Architecture },
    Broken(DriverError),
    Nvrtc(NvrtcMissing),
}

impl Missing {
    /// Why, within a sentence, and what to do about it where that is not said with the reason.
    fn parts(&self) -> (String, Option<&'static str>) {
        let oldest = Architecture::OLDEST;
        match self {
            Missing::NoDriver => {
                ("there is no NVIDIA driver here (no libcuda.so.1)".into(), Some("install one, or use the CPU"))
            }
            Missing::OldDriver { found } => (
                format!("the NVIDIA driver is too old ({found})"),
                Some("install one for CUDA 12.0 or newer (version 525 or newer)"),
            ),
            Missing::NoDevice => {
                ("the NVIDIA driver sees no GPU".into(), Some("plug one in, or look at $CUDA_VISIBLE_DEVICES"))
            }
            Missing::NoSuchDevice { ordinal, count } => (
                format!(
                    "there is no GPU {ordinal}: there {}, counted from 0 (`gcc-gan devices` lists them)",
                    number(*count)
                ),
                None,
            ),
            Missing::OldDevice { found } => (
                format!("the GPU is of {found}, and kernels are written for {oldest} and newer"),
                Some("take another, or the CPU"),
            ),
            Missing::Broken(error) => (format!("the NVIDIA driver does not work: {error}"), None),
            Missing::Nvrtc(missing) => (missing.to_string(), None),
        }
    }

    /// Why, within a sentence that says what is done instead.
    pub fn reason(&self) -> String {
        self.parts().0
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.parts() {
            (reason, Some(advice)) => write!(f, "{reason}: {advice}"),
            (reason, None) => f.write_str(&reason),
        }
    }
}

impl std::error::Error for Missing {}

impl From<NvrtcMissing> for Missing {
    fn from(missing: NvrtcMissing) -> Missing {
        Missing::Nvrtc(missing)
    }
}

fn number(count: usize) -> String {
    if count == 1 { "is 1".into() } else { format!("are {count}") }
}

/// A GPU and its driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    pub ordinal: usize,
    pub name: String,
    pub architecture: Architecture,
    /// Bytes.
    pub memory: usize,
    pub multiprocessors: usize,
    /// Bytes of the second-level cache.
    pub cache: usize,
    /// The version of CUDA that the driver is for: 12.4 is (12, 4).
    pub driver: (u32, u32),
}

impl DeviceInfo {
    /// Whether kernels run on it.
    pub fn is_usable(&self) -> bool {
        self.architecture >= Architecture::OLDEST
    }
}

/// Starts the driver; gives the version of CUDA that it is for, and the number of GPUs, at least 1.
fn start() -> Result<((u32, u32), usize), Missing> {
    if !driver::is_installed() {
        return Err(Missing::NoDriver);
    }
    if let Some(function) = driver::missing_function() {
        return Err(Missing::OldDriver { found: format!("it has no {function}") });
    }
    let broken = |error: DriverError| match error.kind {
        Kind::NoDevice => Missing::NoDevice,
        _ => Missing::Broken(error),
    };
    driver::init().map_err(broken)?;
    let version = driver::version().map_err(broken)?;
    if version < OLDEST_DRIVER {
        return Err(Missing::OldDriver { found: format!("it is for CUDA {}.{}", version.0, version.1) });
    }
    match driver::device_count().map_err(broken)? {
        0 => Err(Missing::NoDevice),
        count => Ok((version, count)),
    }
}

/// The GPUs of this machine, in the driver's order.
///
/// # Errors
/// When there is none, or no driver that works.
pub fn devices() -> Result<Vec<DeviceInfo>, Missing> {
    let (driver, count) = start()?;
    let info = |ordinal| {
        let Properties { name, architecture, memory, multiprocessors, cache } =
            driver::properties(ordinal).map_err(Missing::Broken)?;
        Ok(DeviceInfo { ordinal, name, architecture, memory, multiprocessors, cache, driver })
    };
    (0..count).map(info).collect()
}

/// One NVIDIA GPU.
#[derive(Debug, Clone)]
pub struct CudaDevice {
    info: DeviceInfo,
    trusts_device_code: bool,
    /// Code that is used in place of the plan's own.
    device_code: Option<Arc<DeviceCode>>,
    progress: Progress,
}

impl CudaDevice {
    /// GPU number `ordinal`, counted from 0.
    ///
    /// # Errors
    /// When there is no such GPU, or no driver that works.
    pub fn new(ordinal: usize) -> Result<CudaDevice, Missing> {
        let mut devices = devices()?;
        if ordinal >= devices.len() {
            return Err(Missing::NoSuchDevice { ordinal, count: devices.len() });
        }
        let info = devices.swap_remove(ordinal);
        if !info.is_usable() {
            return Err(Missing::OldDevice { found: info.architecture });
        }
        Ok(CudaDevice { info, trusts_device_code: false, device_code: None, progress: Progress::default() })
    }

    /// The first GPU on which kernels run.
    ///
    /// # Errors
    /// When there is none, or no driver that works.
    pub fn first() -> Result<CudaDevice, Missing> {
        CudaDevice::new(devices()?.iter().position(DeviceInfo::is_usable).unwrap_or(0))
    }

    /// Runs the compiled code of plans as it is, also where it was made elsewhere.
    pub fn trusting_device_code(self, trusts_device_code: bool) -> CudaDevice {
        CudaDevice { trusts_device_code, ..self }
    }

    /// Runs this code, of whichever plan, where it is that of a kernel.
    pub fn with_device_code(self, code: Arc<DeviceCode>) -> CudaDevice {
        CudaDevice { trusts_device_code: true, device_code: Some(code), ..self }
    }

    /// Tells how far it is wherever kernels are compiled.
    pub fn with_progress(self, progress: Progress) -> CudaDevice {
        CudaDevice { progress, ..self }
    }

    fn given(&self, plan: &Plan) -> Given {
        let code = self.device_code.as_ref().or(plan.device_code.as_ref()).cloned();
        Given { code, trusted: self.trusts_device_code, progress: self.progress.clone() }
    }

    /// That there is code of a plan's kernels, or a compiler to make it: what loading the plan would find missing.
    ///
    /// # Errors
    /// When there is neither.
    pub fn check_code(&self, plan: &Plan) -> Result<(), ExecError> {
        let texts = || ahead::texts(plan).into_iter().map(|text| text.named).collect();
        code::check(&self.name(), self.info.architecture, &self.given(plan), texts)
    }

    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn open(&self) -> Result<Arc<Context>, ExecError> {
        Context::open(self.info.ordinal).map_err(|error| refusal(&self.name(), error))
    }
}

/// Bytes of a GPU's memory that a plan's arena takes there.
pub fn arena_bytes(plan: &Plan) -> usize {
    Desk::of(plan).end()
}

/// What an error of the driver is to whoever makes something ready.
pub fn refusal(device: &str, error: DriverError) -> ExecError {
    let device = device.to_string();
    match error.kind {
        Kind::OutOfMemory => {
            let what = "its memory is full: make the batch smaller (`--set batch=`), or end what else uses it";
            ExecError::Unavailable { device, what: what.into() }
        }
        Kind::WrongCode => {
            let what = format!("its driver does not take the kernels' code ({}): install a newer driver", error.text);
            ExecError::Unavailable { device, what }
        }
        Kind::NoDevice => ExecError::Unavailable { device, what: error.text },
        Kind::Lost => ExecError::Lost { device, problem: error.text },
        Kind::Other => ExecError::Unsupported { device, what: error.text },
    }
}

/// What an error of the driver is to whoever asks for memory.
pub fn no_memory(device: &str, context: &Context, bytes: usize, what: &str, error: DriverError) -> ExecError {
    match (error.kind, context.memory()) {
        (Kind::OutOfMemory, Ok((free, total))) => {
            ExecError::DeviceFull { device: device.into(), what: what.into(), bytes, free, total }
        }
        _ => refusal(device, error),
    }
}

/// What an error of the driver is to whoever has an arena of some bytes and makes ready what runs on it. What is free is said
/// as it is without the arena.
pub fn no_memory_beside_arena(device: &str, context: &Context, arena: usize, error: DriverError) -> ExecError {
    let what = "the plan's arena, beside which kernels and graphs need some,";
    match no_memory(device, context, arena, what, error) {
        ExecError::DeviceFull { device, what, bytes, free, total } => {
            ExecError::DeviceFull { device, what, bytes, free: free + arena, total }
        }
        other => other,
    }
}

/// What an error of the driver is in a run: nothing but a loss is expected then.
pub fn loss(device: &str, error: DriverError) -> ExecError {
    match error.kind {
        Kind::OutOfMemory => refusal(device, error),
        _ => ExecError::Lost { device: device.into(), problem: error.text },
    }
}

impl Device for CudaDevice {
    fn name(&self) -> String {
        format!("{} (GPU {}, {})", self.info.name, self.info.ordinal, self.info.architecture)
    }

    fn load(&self, plan: Arc<Plan>) -> Result<Box<dyn Executor>, ExecError> {
        let refused = |what: String| Err(ExecError::Unsupported { device: self.name(), what });
        match plan.source.target {
            Target::Cpu => {
                return refused("the plan's kernels are for the CPU; compile its program for a GPU".into());
            }
            Target::Cuda(architecture) if !self.info.architecture.runs(architecture) => {
                let newer = if architecture.has_warpgroups() { "" } else { " and newer" };
                return refused(format!(
                    "the plan's kernels are for GPUs of {architecture}{newer}; compile its program for {}",
                    self.info.architecture
                ));
            }
            Target::Cuda(_) => {}
        }
        plan::verify(&plan).map_err(|e| ExecError::InvalidPlan(e.to_string()))?;
        let (given, context) = (self.given(&plan), self.open()?);
        Ok(Box::new(CudaExecutor::new(plan.clone(), self.name(), self.info.architecture, &context, given)?))
    }

    fn ceilings(&self, multiplied: &BTreeSet<Multiplied>) -> Result<Ceilings, ExecError> {
        measure::ceilings(&self.name(), &self.info, &self.open()?, multiplied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: Kind) -> DriverError {
        DriverError { kind, text: "it is so".into() }
    }

    #[test]
    fn a_loss_says_what_is_gone_and_full_memory_what_helps() {
        for kind in [Kind::Lost, Kind::Other, Kind::NoDevice] {
            let text = loss("GPU", error(kind)).to_string();
            assert!(text.contains("GPU was lost: it is so") && text.contains("last checkpoint"), "{text}");
        }
        for text in [loss("GPU", error(Kind::OutOfMemory)), refusal("GPU", error(Kind::OutOfMemory))] {
            assert!(text.to_string().contains("--set batch="), "{text}");
        }
        assert!(matches!(refusal("GPU", error(Kind::Other)), ExecError::Unsupported { .. }));
        assert!(refusal("GPU", error(Kind::WrongCode)).to_string().contains("install a newer driver"));
    }

    #[test]
    fn what_is_missing_is_said_with_what_to_do() {
        let texts = [
            Missing::NoDriver,
            Missing::OldDriver { found: "it is for CUDA 11.4".into() },
            Missing::NoDevice,
            Missing::NoSuchDevice { ordinal: 3, count: 1 },
            Missing::NoSuchDevice { ordinal: 3, count: 2 },
            Missing::OldDevice { found: Architecture(61) },
            Missing::Broken(error(Kind::Other)),
        ]
        .map(|missing| missing.to_string());
        let said = |i: usize, part: &str| assert!(texts[i].contains(part), "{}", texts[i]);
        said(0, "install one");
        said(1, "CUDA 11.4");
        said(2, "CUDA_VISIBLE_DEVICES");
        said(3, "there is 1, counted from 0");
        said(4, "there are 2, counted from 0");
        said(5, "sm_61");
        said(6, "it is so");
    }
}
