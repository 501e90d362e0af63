//! Which device runs a plan: `--device`, `--precision`, `--threads`, `--isa` and `--trust-device-code`.

use super::device_code::compilation_bar;
use anyhow::{Context, Error, Result, anyhow, bail};
use clap::ValueEnum;
use gcc_gan::compile::Options;
use gcc_gan::exec::Device;
use gcc_gan::exec::cpu::{CpuDevice, Isa};
use gcc_gan::exec::cuda::nvrtc::{self, NvrtcMissing};
use gcc_gan::exec::cuda::{CudaDevice, Progress};
use gcc_gan::kernel::target::{Architecture, Precision, Target};
use gcc_gan::plan::{self, DeviceCode, Plan};
use gcc_gan::train::checkpoint::Meta;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

/// What runs it.
#[derive(Debug, Clone, clap::Args)]
pub struct DeviceArgs {
    /// What runs it: cpu, cuda (the first NVIDIA GPU), cuda:1 (another), or auto (a GPU where one works, else the CPU)
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    device: Wanted,
    /// How accurate matrix products are; a CPU has f32 and bf16 [default: f32, or a run's own]
    #[arg(long, value_enum, value_name = "PRECISION")]
    precision: Option<Accuracy>,
    /// Threads of the CPU to use; results do not depend on it
    #[arg(long, value_parser = super::thread_count, value_name = "N")]
    threads: Option<usize>,
    /// Use no wider instructions of the CPU than these: portable, or on x86-64 avx2, avx512, avx512-bf16, of what it has;
    /// results differ by rounding
    #[arg(long, value_parser = isa, value_name = "ISA")]
    isa: Option<Isa>,
    /// Run a plan's compiled GPU code though it was made on another machine: it can do all that a program can. With =PLAN,
    /// take the code from that file, for what is given as no plan (a run to resume, a checkpoint)
    #[arg(long, value_name = "PLAN", num_args = 0..=1, require_equals = true)]
    trust_device_code: Option<Option<PathBuf>>,
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
    /// Operands rounded to 10 bits of mantissa, sums in f32; on GPUs
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
    /// The device, where it is a GPU.
    gpu: Option<CudaDevice>,
    /// Whether the code of the plan itself is trusted, so that there must be some.
    trusts_plan: bool,
}

impl DeviceArgs {
    /// Finds the device.
    ///
    /// # Errors
    /// When it is not there, or has no such precision.
    pub fn open(&self) -> Result<Opened> {
        let gpu = |device: CudaDevice| {
            let device = device.with_progress(Progress::new(compilation_bar()));
            let device = match &self.trust_device_code {
                None => device,
                Some(None) => device.trusting_device_code(true),
                Some(Some(file)) => {
                    let (code, here) = (code_of(file)?, device.info().architecture);
                    if code.for_device(here).is_empty() {
                        let what = format!("{} has code for {}", file.display(), code.architectures());
                        return Err(for_another_gpu(&what, here));
                    }
                    device.with_device_code(code)
                }
            };
            Ok(Opened {
                target: Target::Cuda(device.info().architecture),
                device: Box::new(device.clone()),
                precision: self.precision.map(Precision::from),
                gpu: Some(device),
                trusts_plan: self.trust_device_code == Some(None),
            })
        };
        match self.device {
            Wanted::Cpu if self.trust_device_code.is_some() => {
                bail!("--trust-device-code is for GPUs: add --device cuda, or leave it out")
            }
            Wanted::Cpu => {
                if let Some(precision) = self.precision.map(Precision::from).filter(|p| !Target::Cpu.has(*p)) {
                    bail!("--precision {} is for GPUs: add --device cuda, or leave it out", precision.name());
                }
                Ok(self.cpu())
            }
            Wanted::Cuda(ordinal) => {
                gpu(CudaDevice::new(ordinal).with_context(|| format!("`--device cuda:{ordinal}` can't be used"))?)
            }
            Wanted::Auto => match CudaDevice::first().and_then(|device| Ok(self.with_compiler().map(|()| device)?)) {
                Ok(device) => {
                    say(&format!("device: {}", device.name()));
                    gpu(device)
                }
                Err(missing) => {
                    let lacking = self.precision.map(Precision::from).filter(|p| !Target::Cpu.has(*p));
                    let instead = lacking.map_or(String::new(), |_| " (in f32)".to_string());
                    say(&format!("device: the CPU{instead}, since {}", missing.reason()));
                    Ok(self.cpu())
                }
            },
        }
    }

    /// Threads of the CPU that work beside the device may use.
    pub fn thread_count(&self) -> usize {
        super::threads(self.threads)
    }

    /// What to add to a command that goes on with what this one began.
    pub fn to_continue(&self) -> String {
        match self.device {
            Wanted::Cpu => String::new(),
            Wanted::Auto => " --device auto".into(),
            Wanted::Cuda(0) => " --device cuda".into(),
            Wanted::Cuda(ordinal) => format!(" --device cuda:{ordinal}"),
        }
    }

    /// That code can be made here, unless it is given.
    fn with_compiler(&self) -> Result<(), NvrtcMissing> {
        if self.trust_device_code.is_some() { Ok(()) } else { nvrtc::find().map(|_| ()) }
    }

    fn cpu(&self) -> Opened {
        if let Some(isa) = self.isa {
            isa.limit();
        }
        let device = Box::new(CpuDevice::new(super::threads(self.threads)));
        let precision = self.precision.map(Precision::from);
        Opened { device, target: Target::Cpu, precision, gpu: None, trusts_plan: false }
    }
}

/// An instruction set by name.
fn isa(name: &str) -> Result<Isa, String> {
    let available = Isa::available();
    available.iter().copied().find(|isa| isa.name() == name).ok_or_else(|| {
        let names: Vec<&str> = available.iter().map(|isa| isa.name()).collect();
        format!("this processor has {}", names.join(", "))
    })
}

/// The compiled code of a plan file.
fn code_of(file: &Path) -> Result<Arc<DeviceCode>> {
    let plan = plan::load(file)?;
    plan.device_code.with_context(|| format!("{} has no device code: {}", file.display(), COMPILE_WITH_CODE))
}

/// That trusted code is not for the GPU that is here.
fn for_another_gpu(what: &str, here: Architecture) -> Error {
    anyhow!(
        "--trust-device-code: {what}, which this GPU of {here} does not run: compile its program for {here} (`gcc-gan compile \
         --device cuda:{here}`)"
    )
}

const COMPILE_WITH_CODE: &str =
    "`gcc-gan compile PROGRAM --device cuda:sm_90 -o FILE` makes a plan with code where NVRTC is";

impl Opened {
    /// The same for a caller with a bar of its own: none is shown while kernels are compiled.
    pub fn without_bar(self) -> Opened {
        match self.gpu {
            Some(gpu) => {
                let gpu = gpu.with_progress(Progress::default());
                Opened { device: Box::new(gpu.clone()), gpu: Some(gpu), ..self }
            }
            None => self,
        }
    }

    /// That a plan's kernels can be loaded: there is code of them or a compiler. To be called before anything is written.
    ///
    /// # Errors
    /// When there is neither, or the plan's code is to be trusted and there is none.
    pub fn check(&self, plan: &Plan) -> Result<()> {
        if self.trusts_plan && plan.device_code.is_none() {
            bail!(
                "--trust-device-code: there is no device code here (a program that is compiled here has none, nor has a plan \
                 that is compiled again for another kind of GPU); name a plan that has some with \
                 --trust-device-code=PLAN ({COMPILE_WITH_CODE})"
            );
        }
        match &self.gpu {
            Some(gpu) if plan.source.target != Target::Cpu => Ok(gpu.check_code(plan)?),
            _ => Ok(()),
        }
    }

    /// As [`Opened::check`], for what is compiled later.
    ///
    /// # Errors
    /// When the code of a plan is to be trusted.
    pub fn check_no_plan(&self) -> Result<()> {
        if self.trusts_plan {
            bail!(
                "--trust-device-code: a program is always compiled anew here, also that of a plan; name the plan whose code to \
                 trust: --trust-device-code=PLAN"
            );
        }
        Ok(())
    }

    /// That code which is to be trusted is for this device.
    ///
    /// # Errors
    /// When it is of a plan for another.
    pub fn check_trusted(&self, plan: &Plan) -> Result<()> {
        match (self.trusts_plan, plan.source.target, self.target) {
            (true, Target::Cuda(needed), Target::Cuda(found)) if !found.runs(needed) => {
                Err(for_another_gpu(&format!("the plan's code is for {needed}"), found))
            }
            _ => Ok(()),
        }
    }

    /// The precision to compile for, of a program whose own is `own`.
    pub fn precision(&self, own: Precision) -> Precision {
        let precision = self.precision.unwrap_or(own);
        if self.target.has(precision) { precision } else { Precision::F32 }
    }

    /// What to compile the program of a run for: on the same kind of device what its kernels were made for before, so that
    /// the bits stay the run's.
    pub fn target_of(&self, meta: &Meta) -> Target {
        meta.made_for.filter(|_| meta.ran_on == Some(self.target)).unwrap_or(self.target)
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CompileFor {
    Cpu,
    /// The first GPU of this machine.
    Here,
    /// The first is the oldest: kernels are chosen for it, and compiled for each.
    Cuda(Vec<Architecture>),
}

impl FromStr for CompileFor {
    type Err = String;

    fn from_str(text: &str) -> Result<CompileFor, String> {
        let unknown = || {
            format!(
                "`{text}` is nothing to compile for: cpu, cuda (the GPU of this machine), cuda:sm_80 (any GPU of that kind), \
                 or cuda:sm_80,sm_90 (of either)"
            )
        };
        match text {
            "cpu" => return Ok(CompileFor::Cpu),
            "cuda" => return Ok(CompileFor::Here),
            _ => {}
        }
        let mut all: Vec<Architecture> = Vec::new();
        for name in text.strip_prefix("cuda:").ok_or_else(unknown)?.split(',') {
            let architecture = architecture(name.trim()).unwrap_or_else(|| Err(unknown()))?;
            if let Some(&first) = all.first().filter(|first| !architecture.runs(**first)) {
                return Err(format!(
                    "kernels are chosen for the first, and {architecture} can't run those of {first}: name the oldest first, \
                     and sm_90 alone or after an older one"
                ));
            }
            if !all.contains(&architecture) {
                all.push(architecture);
            }
        }
        Ok(CompileFor::Cuda(all))
    }
}

/// A kind of GPU by its name, such as sm_80 or sm_90a; `None` where that is not the form of one.
fn architecture(name: &str) -> Option<Result<Architecture, String>> {
    let number = name.strip_prefix("sm_")?;
    let (number, is_own) = number.strip_suffix('a').map_or((number, false), |number| (number, true));
    let architecture = Architecture(number.parse().ok()?);
    let is_known = Architecture::KNOWN.contains(&architecture);
    let known = || Architecture::KNOWN.map(|known| known.to_string()).join(", ");
    Some(if architecture < Architecture::OLDEST {
        Err(format!("kernels are written for {} and newer", Architecture::OLDEST))
    } else if !is_known && architecture <= Architecture::NEWEST {
        Err(format!("there are no GPUs of {architecture}: known are {}", known()))
    } else if architecture > Architecture(999) {
        Err(format!("there are no GPUs of {architecture} yet: known are {}", known()))
    } else if is_own && !architecture.has_own() {
        Err(format!("there is no {name}, as its instructions are those of newer GPUs too: write {architecture}"))
    } else {
        Ok(architecture)
    })
}

impl CompileFor {
    /// The target, and all architectures that code is made for: that of the first GPU where none was named. Warns of those
    /// that are too new to be known.
    ///
    /// # Errors
    /// When there is no GPU whose kind could be taken.
    pub fn target(&self) -> Result<(Target, Vec<Architecture>)> {
        let all = match self {
            CompileFor::Cpu => Vec::new(),
            CompileFor::Cuda(all) => all.clone(),
            CompileFor::Here => {
                let device =
                    CudaDevice::new(0).context("name the kind of GPU to compile for, such as `--device cuda:sm_90`")?;
                vec![device.info().architecture]
            }
        };
        for new in all.iter().filter(|architecture| **architecture > Architecture::NEWEST) {
            let newest = Architecture::NEWEST;
            eprintln!("warning: {new} is newer than all that is known here: kernels are chosen as for {newest}");
        }
        Ok((all.first().map_or(Target::Cpu, |&first| Target::Cuda(first)), all))
    }
}

/// Says which device was chosen, unless people want to hear nothing.
fn say(text: &str) {
    if !super::is_quiet() {
        eprintln!("{text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<CompileFor, String> {
        text.parse()
    }

    #[test]
    fn kinds_of_gpu_are_known_by_name() {
        let of = |numbers: &[u32]| Ok(CompileFor::Cuda(numbers.iter().map(|&n| Architecture(n)).collect()));
        assert_eq!(parsed("cuda:sm_80"), of(&[80]));
        assert_eq!(parsed("cuda:sm_90a"), parsed("cuda:sm_90"));
        assert_eq!(parsed("cuda:sm_80, sm_90a,sm_121,sm_80"), of(&[80, 90, 121]));
        // Newer than all that is known: there may be such GPUs by now.
        assert_eq!(parsed("cuda:sm_130a"), of(&[130]));
    }

    #[test]
    fn a_kind_that_does_not_exist_is_refused_with_those_that_do() {
        for text in ["cuda:sm_99", "cuda:sm_80,sm_91", "cuda:sm_102a", "cuda:sm_4294967295"] {
            let error = parsed(text).unwrap_err();
            assert!(error.starts_with("there are no GPUs of sm_") && error.ends_with("sm_120, sm_121"), "{error}");
        }
        assert!(parsed("cuda:sm_70").unwrap_err().contains("written for sm_75 and newer"));
        assert!(parsed("cuda:sm_80a").unwrap_err().contains("there is no sm_80a"));
        for text in ["cuda:sm_", "cuda:sm_x", "cuda:sm_90aa", "cuda:80", "cuda:", "gpu", "cuda:sm_99999999999"] {
            assert!(parsed(text).unwrap_err().contains("is nothing to compile for"), "{text}");
        }
    }
}
