//! From texts of kernels to functions that can be launched.
//!
//! Code comes from the first of these that has it: the cubin of the plan for exactly this GPU; that for the nearest older
//! one of the same major version; the plan's PTX; the cache, and NVRTC. Nobody can tell from a cubin what it does, so code from
//! a plan is run where this machine's own cache holds the same, or where the user trusts it.

use super::cache::{self, Cache};
use super::driver::{Context, DriverError, Kind, Module};
use super::nvrtc::{self, Code, Nvrtc, NvrtcMissing};
use crate::exec::ExecError;
use crate::kernel::target::Architecture;
use crate::plan::device_code::{CodeKind, DeviceCode, Image};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Code that comes with a plan, and who is told of what must be compiled beside it.
#[derive(Debug, Clone, Default)]
pub struct Given {
    pub code: Option<Arc<DeviceCode>>,
    /// Whether it is run though this machine didn't make it.
    pub trusted: bool,
    pub progress: Progress,
}

/// What is told how many of how many texts are compiled, as long as any is; nothing by default.
#[derive(Clone, Default)]
pub struct Progress(Option<Arc<dyn Fn(usize, usize) + Send + Sync>>);

impl Progress {
    pub fn new(told: impl Fn(usize, usize) + Send + Sync + 'static) -> Progress {
        Progress(Some(Arc::new(told)))
    }

    fn tell(&self, done: usize, of: usize) {
        if let Some(told) = &self.0 {
            told(done, of);
        }
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Progress({})", if self.0.is_some() { "told" } else { "silent" })
    }
}

/// Where the code of a text is.
enum Found<'a> {
    /// In these sets of the plan, by number, the best first.
    Plan(Vec<(usize, &'a Image)>),
    /// In the cache; asked for only where there is no compiler.
    Cache(Code),
    /// To be made.
    Nowhere,
}

/// What a text is compiled to where it isn't known.
#[derive(Clone, Copy)]
struct Search<'a> {
    architecture: Architecture,
    given: &'a Given,
    nvrtc: Result<&'static Nvrtc, &'a NvrtcMissing>,
}

impl<'a> Search<'a> {
    /// The code of a text, and whether the plan has some that isn't trusted.
    fn find(&self, cache: &Cache, text: &str) -> (Found<'a>, bool) {
        let (mut images, mut is_distrusted) = (Vec::new(), false);
        if let Some(code) = &self.given.code {
            for (number, set) in code.for_device(self.architecture).into_iter().enumerate() {
                let Some(image) = set.image(&cache::key(text, &set.options, code.compiler)) else { continue };
                if self.given.trusted || is_known(cache, set.kind, image) {
                    images.push((number, image));
                } else {
                    is_distrusted = true;
                }
            }
        }
        if !images.is_empty() {
            return (Found::Plan(images), false);
        }
        let kept =
            || cache.get(&cache::hex(&cache::key(text, &nvrtc::exact_options(self.architecture), cache::ANY_COMPILER)));
        match self.nvrtc {
            Ok(_) => (Found::Nowhere, is_distrusted),
            Err(_) => (kept().map_or(Found::Nowhere, Found::Cache), is_distrusted),
        }
    }

    /// Why code that is nowhere can't be made, with what to do.
    fn missing(&self, missing: &NvrtcMissing, is_distrusted: bool) -> String {
        let here = self.architecture;
        match &self.given.code {
            Some(code) if is_distrusted => format!(
                "the plan has code for it ({}) that was not compiled on this machine, and nobody can tell what it does: \
                 add --trust-device-code if you trust where the plan is from; or have it compiled here: {missing}",
                code.architectures()
            ),
            Some(code) if code.for_device(here).is_empty() => format!(
                "it is of {here}, and the plan has code for {} only: compile its program elsewhere with `--device \
                 cuda:{here}`; or have it compiled here: {missing}",
                code.architectures()
            ),
            Some(_) => format!(
                "the plan has no code for one of the kernels: it was compiled from another program, for another kind of GPU, in \
                 another precision, or not for this size of batch (`gcc-gan compile --specialise N` adds one); or have it \
                 compiled here: {missing}"
            ),
            None => format!(
                "there is no code for its kernels: compile the program to a plan where NVRTC is (`gcc-gan compile PROGRAM \
                 --device cuda:{here} -o FILE`), and add --trust-device-code=FILE here; or have it compiled here: {missing}"
            ),
        }
    }
}

/// Whether this machine made the same code.
fn is_known(cache: &Cache, kind: CodeKind, image: &Image) -> bool {
    cache.get(&cache::hex(&image.source)).is_some_and(|code| match kind {
        CodeKind::Cubin => code.cubin == image.bytes,
        CodeKind::Ptx => code.ptx == image.bytes,
    })
}

/// That there is code of all texts (which are rendered only if it must be looked for), or a compiler to make it.
///
/// # Errors
/// What is missing, and what to do.
pub fn check(
    device: &str,
    architecture: Architecture,
    given: &Given,
    texts: impl FnOnce() -> Vec<(String, String)>,
) -> Result<(), ExecError> {
    let Err(missing) = nvrtc::find() else { return Ok(()) };
    let search = Search { architecture, given, nvrtc: Err(&missing) };
    let cache = Cache::of_user();
    for (_, text) in texts() {
        if let (Found::Nowhere, is_distrusted) = search.find(&cache, &text) {
            return Err(ExecError::Unavailable {
                device: device.into(),
                what: search.missing(&missing, is_distrusted),
            });
        }
    }
    Ok(())
}

/// Texts that were loaded.
#[derive(Debug)]
pub struct Loaded {
    /// One for each text.
    pub modules: Vec<Arc<Module>>,
    /// Whether there was code of some of them that is not trusted.
    pub passes_over_given: bool,
}

/// Loads texts, each with a name for the compiler's messages: what is the same is compiled once, what comes with the plan or
/// is in the cache not at all, and the rest on all cores. `refused` is what an error of the driver is to the caller.
///
/// # Errors
/// When there is no code and no compiler, it refuses a text, or the driver refuses what came of it.
pub fn load(
    device: &str,
    architecture: Architecture,
    context: &Arc<Context>,
    given: &Given,
    texts: &[(String, String)],
    refused: &dyn Fn(DriverError) -> ExecError,
) -> Result<Loaded, ExecError> {
    let unavailable = |what: String| ExecError::Unavailable { device: device.into(), what };
    let (unique, which) = unique(texts);
    let cache = Cache::of_user();
    let missing = nvrtc::find().err();
    let nvrtc = nvrtc::find();
    let search = Search { architecture, given, nvrtc: nvrtc.as_ref().map(|&n| n) };
    let mut driver = Driver { context, refused_sets: BTreeSet::new(), refusal: None, takes_cubins: true };
    let mut modules: Vec<Option<Arc<Module>>> = Vec::with_capacity(unique.len());
    let mut passes_over_given = false;
    for (_, text) in &unique {
        let (found, is_distrusted) = search.find(&cache, text);
        passes_over_given |= is_distrusted;
        modules.push(match (found, &missing) {
            (Found::Plan(images), _) => {
                let module = driver.load_given(&images).map_err(refused)?;
                if let Some((_, image)) = module.as_ref().filter(|_| given.trusted) {
                    remember(&cache, text, architecture, image);
                }
                if let (None, Some(missing), Some(refusal)) = (&module, &missing, &driver.refusal) {
                    let what =
                        format!("its driver refuses the plan's code ({refusal}); have it compiled here: {missing}");
                    return Err(unavailable(what));
                }
                module.map(|(module, _)| module)
            }
            (Found::Cache(code), _) => Some(driver.load(&code).map_err(refused)?),
            (Found::Nowhere, Some(missing)) => return Err(unavailable(search.missing(missing, is_distrusted))),
            (Found::Nowhere, None) => None,
        });
    }
    let open: Vec<usize> = (0..unique.len()).filter(|&i| modules[i].is_none()).collect();
    if !open.is_empty() {
        let nvrtc = nvrtc.map_err(|missing| unavailable(missing.to_string()))?;
        let options = nvrtc.options(architecture).ok_or_else(|| {
            unavailable(format!("{nvrtc:?} compiles nothing for {architecture}; install another version of NVRTC"))
        })?;
        let jobs: Vec<Job> =
            open.iter().map(|&i| Job { name: unique[i].0, text: unique[i].1, options: &options }).collect();
        for (&i, code) in open.iter().zip(compile(nvrtc, &jobs, &|done| given.progress.tell(done, jobs.len()))) {
            // The text came from a plan that was verified, so it is this program's mistake or the compiler's.
            let code = code.map_err(|problem| ExecError::Unsupported {
                device: device.into(),
                what: format!("NVRTC refuses a kernel: {problem}"),
            })?;
            modules[i] = Some(driver.load(&code).map_err(refused)?);
        }
    }
    let module = |i: usize| modules[i].clone().ok_or_else(|| unavailable("a kernel was not compiled".into()));
    let modules = which.into_iter().map(module).collect::<Result<_, _>>()?;
    Ok(Loaded { modules, passes_over_given })
}

/// Keeps code of a plan that the user trusts, so that a run can be resumed from its checkpoint alone.
fn remember(cache: &Cache, text: &str, architecture: Architecture, image: &Image) {
    let key = cache::hex(&cache::key(text, &nvrtc::exact_options(architecture), cache::ANY_COMPILER));
    if cache.get(&key).is_none() {
        let bytes = image.bytes.clone();
        let is_cubin = bytes.starts_with(b"\x7fELF");
        let (cubin, ptx) = if is_cubin { (bytes, Vec::new()) } else { (Vec::new(), bytes) };
        cache.put(&key, &Code { cubin, ptx });
    }
}

/// Names and texts, each text once, and for each text that was given which of them it is.
pub fn unique(texts: &[(String, String)]) -> (Vec<(&str, &str)>, Vec<usize>) {
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    let mut unique: Vec<(&str, &str)> = Vec::new();
    let which = (texts.iter())
        .map(|(name, text)| {
            *places.entry(text).or_insert_with(|| {
                unique.push((name, text));
                unique.len() - 1
            })
        })
        .collect();
    (unique, which)
}

/// Something to compile.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// For messages.
    pub name: &'a str,
    pub text: &'a str,
    pub options: &'a [String],
}

/// Compiles on as many threads as the machine has cores what is not in the cache, and keeps it there. `progress` is told after
/// each how many are done.
///
/// # Errors
/// For each job the compiler's log.
pub fn compile(nvrtc: &Nvrtc, jobs: &[Job], progress: &(dyn Fn(usize) + Sync)) -> Vec<Result<Code, String>> {
    let cache = Cache::of_user();
    let one = |job: &Job| {
        let key = cache::hex(&cache::key(job.text, job.options, nvrtc.version));
        cache.get(&key).map_or_else(
            || {
                let code = nvrtc.compile(job.name, job.text, job.options)?;
                cache.put_compiled(job.text, job.options, nvrtc.version, &code);
                Ok(code)
            },
            Ok,
        )
    };
    let next = AtomicUsize::new(0);
    // Held while it is told, so that it hears the numbers in their order.
    let done = Mutex::new(0);
    let results: Vec<Mutex<Option<Result<Code, String>>>> = jobs.iter().map(|_| Mutex::new(None)).collect();
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(jobs.len());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(job) = jobs.get(index) else { break };
                    *results[index].lock().unwrap_or_else(PoisonError::into_inner) = Some(one(job));
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                    *done += 1;
                    progress(*done);
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

/// What the driver was seen to take.
struct Driver<'c> {
    context: &'c Arc<Context>,
    /// Sets of the plan of which it refused one: it is not asked for others.
    refused_sets: BTreeSet<usize>,
    /// Why it refused the last of these.
    refusal: Option<String>,
    takes_cubins: bool,
}

impl Driver<'_> {
    /// Loads the first of a plan's images that the driver takes, if there is one.
    fn load_given<'a>(
        &mut self,
        images: &[(usize, &'a Image)],
    ) -> Result<Option<(Arc<Module>, &'a Image)>, DriverError> {
        for &(set, image) in images {
            if self.refused_sets.contains(&set) {
                continue;
            }
            match Module::load(self.context, &image.bytes) {
                Err(error) if error.kind == Kind::WrongCode => {
                    tracing::debug!("the driver refuses code of the plan ({error})");
                    self.refused_sets.insert(set);
                    self.refusal = Some(error.text);
                }
                loaded => return loaded.map(|module| Some((module, image))),
            }
        }
        Ok(None)
    }

    /// Loads the code for exactly this device, or else that which the driver compiles. A driver that refuses one cubin is not
    /// asked again.
    fn load(&mut self, code: &Code) -> Result<Arc<Module>, DriverError> {
        if !code.cubin.is_empty() && (self.takes_cubins || code.ptx.is_empty()) {
            match Module::load(self.context, &code.cubin) {
                Err(error) if error.kind == Kind::WrongCode && !code.ptx.is_empty() => {
                    tracing::debug!("the driver refuses a cubin ({error}), and gets PTX");
                    self.takes_cubins = false;
                }
                loaded => return loaded,
            }
        }
        Module::load(self.context, &code.ptx)
    }
}
