//! Checkpoints: every tensor of a training run's state, and what else is needed to resume, in one safetensors file.
//!
//! The facts about the run are in the file's own header, so tensors and facts cannot disagree, and one rename replaces
//! both. The file that was there before stays beside it with `.prev` added. A SHA-256 over all of it tells a damaged
//! file from a sound one, and the program's text is inside, so a run can be sampled from without its source.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use safetensors::tensor::{SafeTensorError, SafeTensors, TensorInfo};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::batches::Position;
use super::data::Dataset;
use super::pace::Target;
use crate::atomic;
use crate::exec::ExecError;
use crate::kernel::choice::TunedKernel;
use crate::kernel::target::{self, Convolutions, Fusion, Precision};
use crate::plan::Plan;
use crate::tensor::{DType, Tensor, TensorRef, Type};

/// What the header says under "format"; the number grows when an older program could misread the file.
const FORMAT: &str = "gcc-gan checkpoint 1";

/// Everything about a run that is not a tensor.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Meta {
    /// The program's name, for instance "dcgan".
    pub program: String,
    /// The program's text.
    pub text: String,
    /// The sizes and rates that were overridden on the command line.
    pub sets: BTreeMap<String, String>,
    /// The `--data` argument that finds the same data again.
    pub data: String,
    /// The data's digest, by which a resumed run sees that it is the same. Absent in files of older versions.
    #[serde(default)]
    pub digest: String,
    /// The optional passes that the program was compiled with.
    #[serde(default)]
    pub optional: Vec<String>,
    /// The algorithms that its kernels were tuned to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tuned: Vec<TunedKernel>,
    #[serde(default)]
    pub fusion: Fusion,
    /// Whether it was compiled under the assumption that all numbers are finite.
    #[serde(default)]
    pub fast_math: bool,
    /// How its convolutions are computed. Files of older versions say whether that is exact.
    #[serde(default, alias = "direct_convolutions", deserialize_with = "convolutions")]
    pub convolutions: Convolutions,
    /// What its kernels were made for, and what it ran on: the plan may have been for an older GPU. Absent in files of older
    /// versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_for: Option<target::Target>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ran_on: Option<target::Target>,
    /// How accurate its contractions are.
    #[serde(default)]
    pub precision: Precision,
    /// The seed of all randomness.
    pub seed: u64,
    /// How far the run is to go, by which it is resumed where nothing else is asked for. Absent in files of older
    /// versions.
    #[serde(default)]
    pub target: Option<Target>,
    /// Training steps that are complete.
    pub step: u64,
    /// Where the next batch begins.
    pub position: Position,
}

/// How convolutions are computed, or whether exactly.
fn convolutions<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Convolutions, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        How(Convolutions),
        IsExact(bool),
    }
    Ok(match Written::deserialize(from)? {
        Written::How(how) => how,
        Written::IsExact(true) => Convolutions::Exact,
        Written::IsExact(false) => Convolutions::Accurate,
    })
}

impl Meta {
    /// The overridden sizes and rates as `--set` takes them.
    pub fn set_arguments(&self) -> Vec<String> {
        self.sets.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    /// The facts about a run of a plan on a data set, at its start. To be taken before images are held out of the data
    /// for testing, which changes its digest.
    pub fn new(plan: &Plan, data: &Dataset, seed: u64) -> Meta {
        let source = &plan.source;
        Meta {
            program: plan.name.clone(),
            text: source.text.clone(),
            sets: super::session::sets(plan),
            data: data.argument(),
            digest: data.digest(),
            optional: source.optional.clone(),
            tuned: source.tuned.clone(),
            fusion: source.fusion,
            fast_math: source.fast_math,
            convolutions: source.convolutions,
            made_for: Some(source.target),
            precision: source.precision,
            seed,
            ..Meta::default()
        }
    }
}

/// A checkpoint in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// The file it came from.
    pub file: PathBuf,
    /// The facts about the run.
    pub meta: Meta,
    /// The state, by name.
    pub tensors: BTreeMap<String, Tensor>,
}

/// A checkpoint that could not be written, read or used; the message ends with what the user can do.
#[derive(Debug, Error)]
#[error("checkpoint {}: {problem}{}", file.display(), way_out(file, problem))]
pub struct CheckpointError {
    /// The file.
    pub file: PathBuf,
    /// What is wrong.
    pub problem: Problem,
}

/// What can be wrong with a checkpoint.
#[derive(Debug, Error)]
pub enum Problem {
    /// The system could not read it.
    #[error("cannot be read: {0}")]
    Read(io::Error),
    /// The system could not write it, for instance because the disk is full.
    #[error("cannot be written: {0}")]
    Write(io::Error),
    /// The device did not give a tensor to be saved.
    #[error("cannot be written: {0}")]
    Device(ExecError),
    /// The tensors to be saved contradict themselves; a caller's mistake.
    #[error("cannot be written: tensor {0}")]
    Unfit(String),
    /// The file ends too early, or continues after its end.
    #[error("is truncated, or has bytes after its end ({0} bytes found)")]
    Length(usize),
    /// The header is not that of a safetensors file.
    #[error("has a damaged header, or is not a safetensors file ({0})")]
    Header(String),
    /// A safetensors file of something else, or of a newer gcc-gan.
    #[error("is not a checkpoint that this version reads: its format is {found:?}, and {FORMAT:?} was expected")]
    Format {
        /// What it says it is.
        found: Option<String>,
    },
    /// The content has changed since it was written.
    #[error("is damaged: its content does not have the SHA-256 in its header")]
    Checksum,
    /// A tensor of a type that no state has.
    #[error("tensor {name}: f32, u32 or bf16 expected, {found} found")]
    Dtype {
        /// The tensor.
        name: String,
        /// Its type.
        found: String,
    },
    /// The tensors are not those of the program.
    #[error("does not fit the program: {}", shorten(.0))]
    Mismatch(Vec<String>),
}

/// The tensors of a checkpoint that is to be written. They are looked at one by one, so that they need not be in memory
/// together.
pub trait Tensors {
    /// Names and types, in any order.
    fn types(&self) -> Vec<(String, Type)>;

    /// The elements of tensor `index` of those. It is asked for more than once.
    ///
    /// # Errors
    /// When the device that holds it fails.
    fn view(&mut self, index: usize) -> Result<TensorRef<'_>, ExecError>;
}

impl Tensors for Vec<(String, Tensor)> {
    fn types(&self) -> Vec<(String, Type)> {
        self.iter().map(|(name, tensor)| (name.clone(), tensor.ty().clone())).collect()
    }

    fn view(&mut self, index: usize) -> Result<TensorRef<'_>, ExecError> {
        Ok(self[index].1.view())
    }
}

/// Writes a checkpoint to `file`, all or nothing, and keeps the one that was there as [`previous`].
///
/// A kill at any moment, a full disk or any other error leaves a complete checkpoint under `file`, if there was one.
pub fn save(file: &Path, meta: &Meta, tensors: &mut impl Tensors) -> Result<(), CheckpointError> {
    try_save(file, meta, tensors).map_err(|problem| CheckpointError { file: file.to_owned(), problem })
}

fn try_save(file: &Path, meta: &Meta, tensors: &mut impl Tensors) -> Result<(), Problem> {
    let temporary = atomic::temporary_beside(file).map_err(Problem::Write)?;
    let mut out = BufWriter::with_capacity(1 << 16, temporary);
    write_to(&mut out, meta, tensors)?;
    let temporary = out.into_inner().map_err(|error| Problem::Write(error.into_error()))?;
    temporary.as_file().sync_all().map_err(Problem::Write)?;
    // The new checkpoint is complete by now: that the old one cannot be kept beside it is no reason to lose it.
    let _ = keep_previous(file);
    atomic::commit(temporary, file).map_err(Problem::Write)
}

/// Where [`save`] keeps the checkpoint before the last: the same name with `.prev` added.
pub fn previous(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".prev");
    name.into()
}

/// Gives the present file a second name, if there is one.
fn keep_previous(file: &Path) -> io::Result<()> {
    if file.exists() { keep_as(file, &previous(file)) } else { Ok(()) }
}

/// Keeps a checkpoint under a second name in the same file system, without ever taking away its first. What had the second
/// name is replaced, all or nothing. Until the first is replaced it takes no more room.
///
/// # Errors
/// When the system refuses.
pub fn keep_as(file: &Path, name: &Path) -> io::Result<()> {
    // A name of our own that is free again at once: a link, unlike a file, cannot be made where one exists.
    let link = atomic::temporary_beside(name)?.into_temp_path().to_path_buf();
    match fs::hard_link(file, &link) {
        Ok(()) => {
            let renamed = fs::rename(&link, name);
            // Renaming does nothing where both names are the same file already, as after a kill between here and the
            // commit: the link would stay.
            let _ = fs::remove_file(&link);
            renamed
        }
        // Not every file system has links.
        Err(_) => atomic::write(name, |out| io::copy(&mut fs::File::open(file)?, out).map(drop)),
    }
}

/// Writes the file's bytes. Tensors go out in the order of their names, one after the other, so memory for a second copy
/// of the state is never needed. Each is looked at twice, because their digest stands before them.
fn write_to(out: &mut impl Write, meta: &Meta, tensors: &mut impl Tensors) -> Result<(), Problem> {
    let mut sorted: Vec<(usize, (String, Type))> = tensors.types().into_iter().enumerate().collect();
    sorted.sort_by(|(_, (a, _)), (_, (b, _))| a.cmp(b));
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0].1.0 == pair[1].1.0) {
        return Err(Problem::Unfit(format!("{} occurs twice", pair[0].1.0)));
    }
    let json = serde_json::to_string(meta).map_err(|error| Problem::Write(error.into()))?;
    let mut digest = Content::new(&json);
    // Sorted by key, so that the same state gives the same file.
    let mut header = serde_json::Map::new();
    let mut offset = 0;
    for (index, (name, ty)) in &sorted {
        if name == "__metadata__" {
            return Err(Problem::Unfit("__metadata__ has a name that the format reserves".into()));
        }
        digest.tensor(name, ty);
        digest.0.update(tensors.view(*index).map_err(Problem::Device)?.to_le_bytes());
        let dtype = match ty.dtype {
            DType::F32 => safetensors::Dtype::F32,
            DType::U32 => safetensors::Dtype::U32,
            DType::Bf16 => safetensors::Dtype::BF16,
        };
        let data_offsets = (offset, offset + ty.bytes());
        offset = data_offsets.1;
        let info = TensorInfo { dtype, shape: ty.shape.clone(), data_offsets };
        header.insert(name.clone(), serde_json::json!(info));
    }
    let facts = serde_json::json!({ "format": FORMAT, "meta": json, "sha256": digest.finish() });
    header.insert("__metadata__".into(), facts);
    let mut header = serde_json::to_vec(&header).map_err(|error| Problem::Write(error.into()))?;
    // Spaces up to a multiple of eight, so that the tensors are aligned for whoever maps the file.
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut write = |bytes: &[u8]| out.write_all(bytes).map_err(Problem::Write);
    write(&(header.len() as u64).to_le_bytes())?;
    write(&header)?;
    for (index, _) in sorted {
        write(&tensors.view(index).map_err(Problem::Device)?.to_le_bytes())?;
    }
    out.flush().map_err(Problem::Write)
}

/// The SHA-256 of what a checkpoint means: the facts, then each tensor's name, type, shape and bytes.
struct Content(Sha256);

impl Content {
    fn new(meta: &str) -> Content {
        let mut content = Content(Sha256::new());
        content.text(meta);
        content
    }

    /// Lengths go first, so that no two contents give the same bytes.
    fn text(&mut self, text: &str) {
        self.0.update((text.len() as u64).to_le_bytes());
        self.0.update(text);
    }

    /// To be followed by the elements.
    fn tensor(&mut self, name: &str, ty: &Type) {
        self.text(name);
        self.text(&format!("{}{:?}", ty.dtype, ty.shape));
    }

    fn finish(self) -> String {
        format!("{:x}", self.0.finalize())
    }
}

/// Reads and verifies a checkpoint. The file is untrusted: nothing in it can cause more than an error.
pub fn load(file: &Path) -> Result<Checkpoint, CheckpointError> {
    let bytes = atomic::read(file);
    let bytes = bytes.map_err(|e| CheckpointError { file: file.to_owned(), problem: Problem::Read(e) })?;
    decode(&bytes, file)
}

/// Reads and verifies the bytes of a checkpoint; `file` is for messages.
///
/// # Errors
/// When they are not a whole, undamaged checkpoint.
pub fn decode(bytes: &[u8], file: &Path) -> Result<Checkpoint, CheckpointError> {
    try_decode(bytes)
        .map(|(meta, tensors)| Checkpoint { file: file.to_owned(), meta, tensors })
        .map_err(|problem| CheckpointError { file: file.to_owned(), problem })
}

fn try_decode(bytes: &[u8]) -> Result<(Meta, BTreeMap<String, Tensor>), Problem> {
    use SafeTensorError::{HeaderTooSmall, InvalidHeaderLength, MetadataIncompleteBuffer};
    let (header_length, header) = SafeTensors::read_metadata(bytes).map_err(|error| match error {
        HeaderTooSmall | InvalidHeaderLength | MetadataIncompleteBuffer => Problem::Length(bytes.len()),
        other => Problem::Header(other.to_string()),
    })?;
    let fact = |key| header.metadata().as_ref().and_then(|facts| facts.get(key));
    if fact("format").is_none_or(|format| format != FORMAT) {
        return Err(Problem::Format { found: fact("format").cloned() });
    }
    let json = fact("meta").ok_or(Problem::Checksum)?;
    let mut digest = Content::new(json);
    let mut tensors = BTreeMap::new();
    // The crate has checked that the offsets follow one another, fit the shapes, and end with the file.
    let data = &bytes[8 + header_length..];
    for name in header.offset_keys() {
        let Some(info) = header.info(&name) else { continue };
        let part = &data[info.data_offsets.0..info.data_offsets.1];
        let dtype = match info.dtype {
            safetensors::Dtype::F32 => DType::F32,
            safetensors::Dtype::U32 => DType::U32,
            safetensors::Dtype::BF16 => DType::Bf16,
            other => return Err(Problem::Dtype { name, found: other.to_string() }),
        };
        let tensor = Tensor::from_le_bytes(Type::new(dtype, info.shape.clone()), part)
            .ok_or_else(|| Problem::Header(format!("tensor {name} has other bytes than its shape")))?;
        digest.tensor(&name, tensor.ty());
        digest.0.update(part);
        tensors.insert(name, tensor);
    }
    if fact("sha256") != Some(&digest.finish()) {
        return Err(Problem::Checksum);
    }
    let meta = serde_json::from_str(json).map_err(|error| Problem::Header(error.to_string()))?;
    Ok((meta, tensors))
}

impl Checkpoint {
    /// Checks that the tensors are exactly those of a program: names, types and shapes.
    pub fn check(&self, expected: &[(&str, &Type)]) -> Result<(), CheckpointError> {
        let mut problems = Vec::new();
        let show = |ty: &Type| format!("{} {:?}", ty.dtype, ty.shape);
        for &(name, want) in expected {
            match self.tensors.get(name).map(Tensor::ty) {
                None => problems.push(format!("tensor {name} ({}) is missing", show(want))),
                Some(found) if found != want => {
                    problems.push(format!("tensor {name}: {} expected, {} found", show(want), show(found)));
                }
                Some(_) => {}
            }
        }
        let names: HashSet<_> = expected.iter().map(|(name, _)| *name).collect();
        let unknown = self.tensors.keys().filter(|name| !names.contains(name.as_str()));
        problems.extend(unknown.map(|name| format!("tensor {name} is not in the program")));
        match problems.is_empty() {
            true => Ok(()),
            false => Err(CheckpointError { file: self.file.clone(), problem: Problem::Mismatch(problems) }),
        }
    }
}

/// What the user can do, as the rest of a message.
fn way_out(file: &Path, problem: &Problem) -> String {
    match problem {
        Problem::Write(_) if file.exists() => "; the checkpoint saved before it is untouched".into(),
        Problem::Write(_) | Problem::Device(_) | Problem::Unfit(_) => String::new(),
        Problem::Mismatch(_) => {
            "; use the graph file and the --set values that the run was started with, or start a new run".into()
        }
        Problem::Format { .. } => "; give the checkpoint of a run of gcc-gan train".into(),
        _ if previous(file).exists() => {
            let previous = previous(file);
            format!("; the checkpoint saved before it may be sound: rename {} to resume from there", previous.display())
        }
        _ => "; start a new run if there is no copy of it".into(),
    }
}

/// The first few of a list.
fn shorten(problems: &[String]) -> String {
    let mut text = problems.iter().take(5).cloned().collect::<Vec<_>>().join("; ");
    if problems.len() > 5 {
        let _ = write!(text, "; and {} more", problems.len() - 5);
    }
    text
}

#[cfg(test)]
mod tests;
