//! NVIDIA GPUs as devices.

use super::driver::{self, Context, DriverError, Kind, Properties};
use super::executor::CudaExecutor;
use super::measure;
use super::nvrtc::NvrtcMissing;
use crate::exec::{Ceilings, Device, ExecError, Executor};
use crate::kernel::target::{Architecture, Target};
use crate::plan::{self, Plan};
use std::sync::Arc;

/// The oldest version of CUDA that drivers must be for: the first with the form of graphs that is built here.
const OLDEST_DRIVER: (u32, u32) = (12, 0);

/// Why there is no GPU to use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    #[error("there is no NVIDIA driver here (no libcuda.so.1): install one, or use the CPU")]
    NoDriver,
    #[error("the NVIDIA driver is too old ({found}): install one for CUDA 12.0 or newer (version 525 or newer)")]
    OldDriver { found: String },
    #[error("the NVIDIA driver sees no GPU: plug one in, or look at $CUDA_VISIBLE_DEVICES")]
    NoDevice,
    #[error("there is no GPU {ordinal}: there {}, counted from 0", if *count == 1 { "is 1".to_string() } else { format!("are {count}") })]
    NoSuchDevice { ordinal: usize, count: usize },
    #[error("the GPU is of {found}, and kernels are written for {oldest} and newer", oldest = Architecture::OLDEST)]
    OldDevice { found: Architecture },
    #[error("the NVIDIA driver does not work: {0}")]
    Broken(DriverError),
    #[error(transparent)]
    Nvrtc(#[from] NvrtcMissing),
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
    /// The version of CUDA that the driver is for: 12.4 is (12, 4).
    pub driver: (u32, u32),
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
        let Properties { name, architecture, memory, multiprocessors } =
            driver::properties(ordinal).map_err(Missing::Broken)?;
        Ok(DeviceInfo { ordinal, name, architecture, memory, multiprocessors, driver })
    };
    (0..count).map(info).collect()
}

/// One NVIDIA GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CudaDevice {
    info: DeviceInfo,
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
        if info.architecture < Architecture::OLDEST {
            return Err(Missing::OldDevice { found: info.architecture });
        }
        Ok(CudaDevice { info })
    }

    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn open(&self) -> Result<Arc<Context>, ExecError> {
        Context::open(self.info.ordinal).map_err(|error| failure(&self.name(), error))
    }
}

/// What an error of the driver is to the caller of an executor.
pub fn failure(device: &str, error: DriverError) -> ExecError {
    let device = device.to_string();
    match error.kind {
        Kind::OutOfMemory => ExecError::OutOfMemory { bytes: 0, what: format!("something on {device}") },
        Kind::WrongCode => {
            let what = format!("its driver takes no code of this compiler: {}; install a newer driver", error.text);
            ExecError::Unsupported { device, what }
        }
        Kind::NoDevice | Kind::Lost | Kind::Other => ExecError::Lost { device, problem: error.text },
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
            Target::Cuda(architecture) if architecture > self.info.architecture => {
                return refused(format!(
                    "the plan's kernels are for GPUs of {architecture} and newer; compile its program for {}",
                    self.info.architecture
                ));
            }
            Target::Cuda(_) => {}
        }
        plan::verify(&plan).map_err(|e| ExecError::InvalidPlan(e.to_string()))?;
        Ok(Box::new(CudaExecutor::new(plan, self.name(), self.info.architecture, &self.open()?)?))
    }

    fn ceilings(&self) -> Result<Ceilings, ExecError> {
        measure::ceilings(&self.name(), &self.info, &self.open()?)
    }
}
