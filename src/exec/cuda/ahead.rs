//! Compiling the kernels of a plan ahead of time, for GPUs that need not be here.

use super::code::{self, Job};
use super::nvrtc::{self, Code, Nvrtc};
use super::resources::{self, Resources};
use super::series::{self, Desk};
use super::{Launch, cache, prelude, ptx, render};
use crate::kernel::target::Architecture;
use crate::plan::Plan;
use crate::plan::device_code::{CodeKind, CodeSet, DeviceCode, Image};
use serde::Serialize;
use std::collections::BTreeMap;

/// A text of a plan as it is compiled.
#[derive(Debug, Clone)]
pub struct Text {
    /// The entry's index.
    pub entry: usize,
    /// Of the entry's kernels the one that it is; absent where it begins and ends runs on kept examples.
    pub kernel: Option<usize>,
    /// Its name in messages, then the text with all that it relies on.
    pub named: (String, String),
    pub launches: Vec<Launch>,
}

/// The texts of all kernels of a plan, in its order.
pub fn texts(plan: &Plan) -> Vec<Text> {
    let prelude = prelude();
    let mut texts = Vec::new();
    for (entry, own) in plan.entries.iter().enumerate() {
        for (kernel, k) in own.schedule.kernels.iter().enumerate() {
            let rendered = render(k, &own.schedule.buffers);
            let named = (format!("{}.cu", k.name), format!("{prelude}\n{}", rendered.source));
            texts.push(Text { entry, kernel: Some(kernel), named, launches: rendered.launches });
        }
    }
    texts
}

/// The texts of what begins and ends runs on kept examples, of each entry that can be run so.
fn series_texts(plan: &Plan) -> Vec<Text> {
    let desk = Desk::of(plan);
    let able = (0..plan.entries.len()).filter(|&entry| series::is_fed_from_examples(&plan.entries[entry]));
    able.map(|entry| {
        let (text, _) = series::text(plan, entry, desk);
        Text { entry, kernel: None, named: series::named(&text), launches: text.launches }
    })
    .collect()
}

/// Why a plan's kernels can't be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AheadError {
    #[error(transparent)]
    Missing(#[from] nvrtc::NvrtcMissing),
    #[error("{compiler} does not compile for {architecture} (it knows {known}): install another version of NVRTC")]
    Unknown { compiler: String, architecture: Architecture, known: String },
    #[error("NVRTC refuses a kernel: {0}")]
    Refused(String),
}

/// The kernels of a plan, compiled.
#[derive(Debug)]
pub struct Ahead {
    /// The compiler, in words.
    pub compiler: String,
    texts: Vec<Text>,
    version: (u32, u32),
    /// Of each architecture the code of each text.
    exact: Vec<(Architecture, Vec<Code>)>,
    /// PTX of each text for the first architecture and all newer ones, where there is such.
    portable: Vec<Option<Vec<u8>>>,
}

/// A function of a plan, and what it takes of a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FunctionResources {
    pub entry: String,
    pub sizes: Vec<(String, usize)>,
    /// The kernel's number in its entry; absent where it begins or ends runs on kept examples.
    pub kernel: Option<usize>,
    pub function: String,
    pub architecture: String,
    #[serde(flatten)]
    pub resources: Resources,
    /// Bytes of shared memory that a launch asks for, besides what is part of the function.
    pub dynamic_shared_bytes: u32,
}

/// The compiler, which knows all of these architectures.
///
/// # Errors
/// When there is no compiler, or it doesn't know one of them.
pub fn compiler_for(architectures: &[Architecture]) -> Result<&'static Nvrtc, AheadError> {
    let nvrtc = nvrtc::find()?;
    match architectures.iter().find(|&&architecture| !nvrtc.knows(architecture)) {
        None => Ok(nvrtc),
        Some(&architecture) => {
            let known = nvrtc.architectures().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            Err(AheadError::Unknown { compiler: format!("{nvrtc:?}"), architecture, known })
        }
    }
}

/// Compiles every kernel of a plan for each architecture, and what begins and ends runs on kept examples; the first is the
/// plan's own. `done` is told how many of how many texts are compiled.
///
/// # Errors
/// When there is no compiler, it doesn't know an architecture, or it refuses a text.
pub fn compile_ahead(
    plan: &Plan,
    architectures: &[Architecture],
    done: &(dyn Fn(usize, usize) + Sync),
) -> Result<Ahead, AheadError> {
    let nvrtc = compiler_for(architectures)?;
    let texts = [texts(plan), series_texts(plan)].concat();
    let named: Vec<(String, String)> = texts.iter().map(|text| text.named.clone()).collect();
    let (unique, which) = code::unique(&named);
    // The PTX that comes with the cubin of an architecture without anything of its own is what others take too.
    let portable = architectures.first().filter(|first| first.has_own() && !first.has_warpgroups());
    let portable = portable.map(|&a| nvrtc::portable_options(a));
    let options: Vec<Vec<String>> =
        architectures.iter().map(|&a| nvrtc::exact_options(a)).chain(portable.clone()).collect();
    let jobs: Vec<Job> = (options.iter())
        .flat_map(|options| unique.iter().map(move |&(name, text)| Job { name, text, options }))
        .collect();
    let mut compiled = code::compile(nvrtc, &jobs, &|count| done(count, jobs.len())).into_iter();
    let mut exact = Vec::new();
    for &architecture in architectures {
        let codes: Vec<Code> =
            compiled.by_ref().take(unique.len()).collect::<Result<_, _>>().map_err(AheadError::Refused)?;
        exact.push((architecture, which.iter().map(|&i| codes[i].clone()).collect()));
    }
    let portable: Vec<Option<Vec<u8>>> = match portable {
        // What uses its own architecture's instructions may be refused here: then there is no PTX of it.
        Some(_) => {
            let codes: Vec<Option<Code>> = compiled.map(Result::ok).collect();
            which.iter().map(|&i| codes[i].as_ref().map(|code| code.ptx.clone())).collect()
        }
        // A plan for an architecture with warpgroups is for no other.
        None => {
            let first =
                exact.iter().take(1).filter(|(architecture, _): &&(Architecture, _)| !architecture.has_warpgroups());
            let codes = first.flat_map(|(_, codes): &(_, Vec<Code>)| codes);
            let ptx: Vec<Option<Vec<u8>>> = codes.map(|code| Some(code.ptx.clone())).collect();
            if ptx.is_empty() { vec![None; texts.len()] } else { ptx }
        }
    };
    let is_portable = |ptx: &Vec<u8>| !ptx.is_empty() && !ptx::is_of_one_architecture(ptx);
    let portable = portable.into_iter().map(|ptx| ptx.filter(is_portable)).collect();
    Ok(Ahead { compiler: nvrtc.describe(), texts, version: nvrtc.version, exact, portable })
}

impl Nvrtc {
    /// Its name and version.
    pub fn describe(&self) -> String {
        format!("NVRTC {}.{}", self.version.0, self.version.1)
    }
}

impl Ahead {
    /// What a plan's file keeps.
    pub fn device_code(&self) -> DeviceCode {
        let set = |kind, architecture, own, options: Vec<String>, bytes: &mut dyn FnMut(usize) -> Option<Vec<u8>>| {
            let mut images = BTreeMap::new();
            for (i, text) in self.texts.iter().enumerate() {
                if let Some(bytes) = bytes(i) {
                    images.insert(cache::key(&text.named.1, &options, self.version), bytes);
                }
            }
            let images = images.into_iter().map(|(source, bytes)| Image { source, bytes }).collect();
            CodeSet { kind, architecture, own, options, images }
        };
        let mut sets: Vec<CodeSet> = (self.exact.iter())
            .map(|(architecture, codes)| {
                let options = nvrtc::exact_options(*architecture);
                let bytes = &mut |i: usize| Some(codes[i].cubin.clone()).filter(|cubin| !cubin.is_empty());
                set(CodeKind::Cubin, *architecture, architecture.has_own(), options, bytes)
            })
            .collect();
        if let Some(&(architecture, _)) = self.exact.first() {
            let options = nvrtc::portable_options(architecture);
            sets.push(set(CodeKind::Ptx, architecture, false, options, &mut |i| self.portable[i].clone()));
        }
        sets.retain(|set| !set.images.is_empty());
        DeviceCode { compiler: self.version, sets }
    }

    /// What every function takes, on each architecture; nothing of cubins that are not understood.
    pub fn resources(&self, plan: &Plan) -> Vec<FunctionResources> {
        let mut all = Vec::new();
        for (architecture, codes) in &self.exact {
            for (text, code) in self.texts.iter().zip(codes) {
                let Some(found) = resources::read(&code.cubin) else { continue };
                let entry = &plan.entries[text.entry];
                for launch in &text.launches {
                    let Some(resources) = found.get(&launch.function) else { continue };
                    all.push(FunctionResources {
                        entry: entry.name.clone(),
                        sizes: entry.sizes.clone(),
                        kernel: text.kernel,
                        function: launch.function.clone(),
                        architecture: architecture.to_string(),
                        resources: resources.clone(),
                        dynamic_shared_bytes: launch.shared_bytes,
                    });
                }
            }
        }
        all
    }

    /// The texts with the code of each for the first architecture: all kernels, then what begins and ends runs on kept
    /// examples.
    pub fn first(&self) -> impl Iterator<Item = (&Text, &Code)> {
        self.exact.first().into_iter().flat_map(|(_, codes)| self.texts.iter().zip(codes))
    }
}
