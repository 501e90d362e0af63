//! `gcc-gan devices`.

use anyhow::Result;
use gcc_gan::exec::Device;
use gcc_gan::exec::cpu::CpuDevice;
use gcc_gan::exec::cuda::{self, nvrtc};
use gcc_gan::kernel::target::Architecture;
use serde::Serialize;
use std::process::ExitCode;

/// List what plans can run on, and what is missing
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gcc-gan devices
  gcc-gan devices --json")]
pub struct Args {
    /// Print the list as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Listed {
    cpu: String,
    gpus: Vec<Gpu>,
    /// Why there is no GPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    no_gpu: Option<String>,
    /// Why kernels cannot be compiled for GPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    no_nvrtc: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nvrtc: Option<String>,
}

#[derive(Serialize)]
struct Gpu {
    device: String,
    name: String,
    architecture: String,
    memory_bytes: usize,
    multiprocessors: usize,
    cache_bytes: usize,
    driver: String,
    usable: bool,
}

pub fn run(args: Args) -> Result<ExitCode> {
    let (found, no_gpu) = match cuda::devices() {
        Ok(found) => (found, None),
        Err(missing) => (Vec::new(), Some(missing.to_string())),
    };
    let gpus = (found.into_iter())
        .map(|gpu| Gpu {
            device: format!("cuda:{}", gpu.ordinal),
            usable: gpu.is_usable(),
            name: gpu.name,
            architecture: gpu.architecture.to_string(),
            memory_bytes: gpu.memory,
            multiprocessors: gpu.multiprocessors,
            cache_bytes: gpu.cache,
            driver: format!("{}.{}", gpu.driver.0, gpu.driver.1),
        })
        .collect();
    let (nvrtc, no_nvrtc) = match nvrtc::find() {
        Ok(nvrtc) => (Some(format!("{nvrtc:?}")), None),
        Err(missing) => (None, Some(missing.to_string())),
    };
    let listed = Listed { cpu: CpuDevice::new(super::threads(None)).name(), gpus, no_gpu, no_nvrtc, nvrtc };
    if args.json {
        super::print_json(&listed)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = format!("cpu      {}\n", listed.cpu);
    for gpu in &listed.gpus {
        let memory = gpu.memory_bytes as f64 / f64::from(1 << 30);
        text += &format!(
            "{:<8} {}, {}, {memory:.1} GiB, {} multiprocessors, driver for CUDA {}",
            gpu.device, gpu.name, gpu.architecture, gpu.multiprocessors, gpu.driver
        );
        if !gpu.usable {
            text += &format!("; too old: kernels are written for {} and newer", Architecture::OLDEST);
        }
        text.push('\n');
    }
    if let Some(why) = &listed.no_gpu {
        text += &format!("cuda     {why}\n");
    }
    match (&listed.nvrtc, &listed.no_nvrtc) {
        (Some(found), _) => text += &format!("compiler {found}\n"),
        (None, Some(why)) => text += &format!("compiler {why}\n"),
        (None, None) => {}
    }
    super::print(&gcc_gan::visible::visible(&text))?;
    Ok(ExitCode::SUCCESS)
}
