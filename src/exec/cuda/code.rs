//! From texts of kernels to functions that can be launched.

use super::cache::{self, Cache};
use super::device::refusal;
use super::driver::{Context, DriverError, Kind, Module};
use super::nvrtc::{self, Code, Nvrtc};
use crate::exec::ExecError;
use crate::kernel::target::Architecture;
use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Loads texts, each with a name for the compiler's messages: what is the same is compiled once, what is in the cache not at
/// all, and the rest on all cores.
///
/// # Errors
/// When there is no compiler, it refuses a text, or the driver refuses what came of it.
pub fn load(
    device: &str,
    architecture: Architecture,
    context: &Arc<Context>,
    texts: &[(String, String)],
) -> Result<Vec<Arc<Module>>, ExecError> {
    let unavailable = |what: String| ExecError::Unavailable { device: device.into(), what };
    let nvrtc = nvrtc::find().map_err(|missing| unavailable(missing.to_string()))?;
    let options = nvrtc.options(architecture).ok_or_else(|| {
        unavailable(format!("{nvrtc:?} compiles nothing for {architecture}; install another version of NVRTC"))
    })?;
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    let mut unique: Vec<(&str, &str)> = Vec::new();
    let which: Vec<usize> = (texts.iter())
        .map(|(name, text)| {
            *places.entry(text).or_insert_with(|| {
                unique.push((name, text));
                unique.len() - 1
            })
        })
        .collect();
    let codes = compile(nvrtc, &options, &unique).map_err(|problem| {
        // The text came from a plan that was verified, so it is this program's mistake or the compiler's.
        ExecError::Unsupported { device: device.into(), what: format!("NVRTC refuses a kernel: {problem}") }
    })?;
    let mut takes_cubins = true;
    let modules: Vec<Arc<Module>> = (codes.iter())
        .map(|code| module(context, code, &mut takes_cubins).map_err(|error| refusal(device, error)))
        .collect::<Result<_, _>>()?;
    Ok(which.into_iter().map(|i| modules[i].clone()).collect())
}

/// Compiles texts on as many threads as the machine has cores.
fn compile(nvrtc: &Nvrtc, options: &[String], texts: &[(&str, &str)]) -> Result<Vec<Code>, String> {
    let cache = Cache::of_user();
    let one = |&(name, text): &(&str, &str)| {
        let key = cache::key(text, options, nvrtc.version);
        cache.get(&key).map_or_else(
            || {
                let code = nvrtc.compile(name, text, options)?;
                cache.put(&key, &code);
                Ok(code)
            },
            Ok,
        )
    };
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<Result<Code, String>>>> = texts.iter().map(|_| Mutex::new(None)).collect();
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(texts.len());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(text) = texts.get(index) else { break };
                    *results[index].lock().unwrap_or_else(PoisonError::into_inner) = Some(one(text));
                }
            });
        }
    });
    let result = |slot: Mutex<Option<Result<Code, String>>>| {
        let result = slot.into_inner().unwrap_or_else(PoisonError::into_inner);
        result.unwrap_or_else(|| Err("a thread of the compilation ended early".into()))
    };
    results.into_iter().map(result).collect()
}

/// Loads the code for exactly this device, or else that which the driver compiles. A driver that refuses one cubin is not
/// asked again.
fn module(context: &Arc<Context>, code: &Code, takes_cubins: &mut bool) -> Result<Arc<Module>, DriverError> {
    if !code.cubin.is_empty() && *takes_cubins {
        match Module::load(context, &code.cubin) {
            Err(error) if error.kind == Kind::WrongCode => {
                tracing::debug!("the driver refuses a cubin ({error}), and gets PTX");
                *takes_cubins = false;
            }
            loaded => return loaded,
        }
    }
    Module::load(context, &code.ptx)
}
