//! Which device runs a plan: `--device`, `--precision` and `--threads`.

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use gcc_gan::compile::Options;
use gcc_gan::exec::Device;
use gcc_gan::exec::cpu::CpuDevice;
use gcc_gan::exec::cuda::{CudaDevice, Missing, nvrtc};
use gcc_gan::kernel::target::{Architecture, Precision, Target};
use gcc_gan::plan::Plan;
use std::str::FromStr;

/// What runs it.
#[derive(Debug, Clone, clap::Args)]
pub struct DeviceArgs {
    /// What runs it: cpu, cuda (the first NVIDIA GPU), cuda:1 (another), or auto (a GPU where one works, else the CPU)
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    device: Wanted,
    /// How accurate a GPU's matrix products are [default: f32, or a run's own]
    #[arg(long, value_enum, value_name = "PRECISION")]
    precision: Option<Accuracy>,
    /// Threads of the CPU to use; results do not depend on it
    #[arg(long, value_parser = super::thread_count, value_name = "N")]
    threads: Option<usize>,
}

/// A device by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Auto,
    Cpu,
    Cuda(usize),
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Wanted, String> {
        let unknown = || format!("`{text}` is no device: cpu, cuda, cuda:N (a GPU by its number) or auto");
        match text {
            "auto" => Ok(Wanted::Auto),
            "cpu" => Ok(Wanted::Cpu),
            "cuda" => Ok(Wanted::Cuda(0)),
            _ => {
                let ordinal = text.strip_prefix("cuda:").ok_or_else(unknown)?;
                ordinal.parse().map(Wanted::Cuda).map_err(|_| unknown())
            }
        }
    }
}

/// `--precision`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Accuracy {
    /// As accurate as arithmetic in f32
    F32,
    /// Operands rounded to 10 bits of mantissa, sums in f32
    Tf32,
    /// Operands rounded to bf16, sums in f32
    Bf16,
}

impl From<Accuracy> for Precision {
    fn from(accuracy: Accuracy) -> Precision {
        match accuracy {
            Accuracy::F32 => Precision::F32,
            Accuracy::Tf32 => Precision::Tf32,
            Accuracy::Bf16 => Precision::Bf16,
        }
    }
}

/// A device that is there, and what to compile for it.
pub struct Opened {
    pub device: Box<dyn Device>,
    pub target: Target,
    /// What was asked for; else a run's or plan's own, or f32.
    precision: Option<Precision>,
}

impl DeviceArgs {
    /// Finds the device.
    ///
    /// # Errors
    /// When it is not there, or has no such precision.
    pub fn open(&self) -> Result<Opened> {
        let precision = self.precision.map(Precision::from);
        let gpu = |device: CudaDevice| Opened {
            target: Target::Cuda(device.info().architecture),
            device: Box::new(device),
            precision,
        };
        match self.device {
            Wanted::Cpu => self.cpu(),
            Wanted::Cuda(ordinal) => {
                let found = CudaDevice::new(ordinal).and_then(|device| Ok(nvrtc::find().map(|_| device)?));
                Ok(gpu(found.with_context(|| format!("`--device cuda:{ordinal}` can't be used"))?))
            }
            Wanted::Auto => match CudaDevice::new(0).and_then(|device| Ok(nvrtc::find().map(|_| device)?)) {
                Ok(device) => {
                    eprintln!("device: {}", device.name());
                    Ok(gpu(device))
                }
                Err(missing) => {
                    eprintln!("device: the CPU, since {}", reason(&missing));
                    self.cpu()
                }
            },
        }
    }

    fn cpu(&self) -> Result<Opened> {
        if let Some(precision) = self.precision.map(Precision::from).filter(|p| *p != Precision::F32) {
            bail!("--precision {} is for GPUs: add --device cuda, or leave it out", precision.name());
        }
        let device = Box::new(CpuDevice::new(super::threads(self.threads)));
        Ok(Opened { device, target: Target::Cpu, precision: None })
    }
}

/// Why there is no GPU, within a sentence.
fn reason(missing: &Missing) -> String {
    missing.to_string()
}

impl Opened {
    /// The precision to compile for, of a program whose own is `own`.
    pub fn precision(&self, own: Precision) -> Precision {
        match self.target {
            Target::Cpu => Precision::F32,
            Target::Cuda(_) => self.precision.unwrap_or(own),
        }
    }

    /// Makes options those for this device.
    pub fn aim(&self, options: &mut Options) {
        options.precision = self.precision(options.precision);
        options.target = self.target;
    }

    /// Whether a plan runs on the device as it is.
    pub fn suits(&self, plan: &Plan) -> bool {
        let fits = match (plan.source.target, self.target) {
            (Target::Cpu, Target::Cpu) => true,
            (Target::Cuda(needed), Target::Cuda(found)) => found.runs(needed),
            (Target::Cpu, Target::Cuda(_)) | (Target::Cuda(_), Target::Cpu) => false,
        };
        fits && self.precision.is_none_or(|precision| precision == plan.source.precision)
    }
}

/// `--device` of the compiler: a target, which need not be here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompileFor(Option<Target>);

impl FromStr for CompileFor {
    type Err = String;

    fn from_str(text: &str) -> Result<CompileFor, String> {
        let unknown = || {
            format!(
                "`{text}` is nothing to compile for: cpu, cuda (the GPU of this machine) or cuda:sm_80 (any GPU of that kind)"
            )
        };
        match text {
            "cpu" => Ok(CompileFor(Some(Target::Cpu))),
            "cuda" => Ok(CompileFor(None)),
            _ => {
                let number = text.strip_prefix("cuda:sm_").ok_or_else(unknown)?;
                let architecture = Architecture(number.trim_end_matches('a').parse().map_err(|_| unknown())?);
                if !(Architecture::OLDEST..=Architecture(999)).contains(&architecture) {
                    return Err(format!("kernels are written for {} and newer", Architecture::OLDEST));
                }
                Ok(CompileFor(Some(Target::Cuda(architecture))))
            }
        }
    }
}

impl CompileFor {
    /// The target: that of the first GPU where none was named.
    ///
    /// # Errors
    /// When there is no GPU whose kind could be taken.
    pub fn target(self) -> Result<Target> {
        match self.0 {
            Some(target) => Ok(target),
            None => {
                let device =
                    CudaDevice::new(0).context("name the kind of GPU to compile for, such as `--device cuda:sm_90`")?;
                Ok(Target::Cuda(device.info().architecture))
            }
        }
    }
}
