//! Plans as files: a header, then the plan in bincode.
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | the magic `GCCGAN\r\n`, which a transfer in text mode would break |
//! | 8..12 | the format version, little-endian |
//! | 12..20 | bytes of the body, little-endian |
//! | 20..52 | SHA-256 of the body |
//! | 52.. | the body; after it, where a plan has compiled code, the section of [`device_code`] |

use super::{Plan, VerifyError, device_code, verify};
use crate::atomic;
use bincode::error::DecodeError;
use sha2::{Digest, Sha256};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MAGIC: [u8; 8] = *b"GCCGAN\r\n";
const VERSION: u32 = 14;
const HEADER: usize = 52;
/// Plans hold schedules, not tensors: none comes near this many bytes.
const MAX_BYTES: usize = 1 << 30;

/// A plan file that could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is not a plan: it does not start with the plan header (compile one with `gcc-gan compile GRAPH -o PLAN`)", .0.display())]
    NotAPlan(PathBuf),
    #[error("{} is a plan of format version {found}, this program reads version {VERSION}: compile it again", path.display())]
    Version { path: PathBuf, found: u32 },
    #[error("{} is damaged ({problem}): compile it again", path.display())]
    Damaged { path: PathBuf, problem: String },
    #[error("{} is not safe to run ({error}): compile it again", path.display())]
    Invalid { path: PathBuf, error: VerifyError },
}

/// The bytes of a plan file, and the plan that they hold.
///
/// # Errors
/// When the plan cannot be encoded.
pub fn encode(plan: &Plan) -> Result<Vec<u8>, String> {
    let body = bincode::serde::encode_to_vec(plan, bincode::config::standard()).map_err(|e| e.to_string())?;
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend((body.len() as u64).to_le_bytes());
    bytes.extend(Sha256::digest(&body));
    bytes.extend(body);
    if let Some(code) = &plan.device_code {
        bytes.extend(device_code::encode(code)?);
    }
    Ok(bytes)
}

/// SHA-256 of a plan in hexadecimal, as the header of its file has it: equal for equal plans, compiled code aside.
///
/// # Errors
/// When the plan cannot be encoded.
pub fn digest(plan: &Plan) -> Result<String, String> {
    let body = bincode::serde::encode_to_vec(plan, bincode::config::standard()).map_err(|e| e.to_string())?;
    Ok(Sha256::digest(&body).iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Reads a plan from the bytes of a file and verifies it; `path` is for messages.
///
/// # Errors
/// When the bytes are not a whole, undamaged plan that is safe to run.
pub fn decode(bytes: &[u8], path: &Path) -> Result<Plan, PlanError> {
    let damaged = |problem: String| PlanError::Damaged { path: path.into(), problem };
    if bytes.get(..8) != Some(&MAGIC) {
        return Err(PlanError::NotAPlan(path.into()));
    }
    let Some(header) = bytes.get(8..HEADER) else { return Err(damaged("its header is cut short".into())) };
    let version = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
    if version != VERSION {
        return Err(PlanError::Version { path: path.into(), found: version });
    }
    let rest = &bytes[HEADER..];
    let mut length = [0; 8];
    length.copy_from_slice(&header[4..12]);
    let length = u64::from_le_bytes(length);
    let split = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
    let Some((body, section)) = split else {
        return Err(damaged(format!("its body has {} bytes of {length}", rest.len())));
    };
    if Sha256::digest(body)[..] != header[12..] {
        return Err(damaged("its content does not match its hash".into()));
    }
    let mut plan = decode_body(body).map_err(damaged)?;
    verify(&plan).map_err(|error| PlanError::Invalid { path: path.into(), error })?;
    if !section.is_empty() {
        let code = device_code::decode(section).map_err(|problem| damaged(format!("of its device code: {problem}")))?;
        plan.device_code = Some(Arc::new(code));
    }
    Ok(plan)
}

fn decode_body(body: &[u8]) -> Result<Plan, String> {
    let config = bincode::config::standard().with_limit::<MAX_BYTES>();
    let (plan, read) = bincode::serde::decode_from_slice::<Plan, _>(body, config).map_err(|e| undecodable(&e))?;
    if read == body.len() { Ok(plan) } else { Err(format!("{} bytes follow the plan", body.len() - read)) }
}

/// Why a body is no plan, in words: what the format's own errors say is for its developers.
fn undecodable(error: &DecodeError) -> String {
    match error {
        DecodeError::UnexpectedEnd { .. } => "its body ends within a plan".into(),
        DecodeError::LimitExceeded => "its body tells of more than a plan may have".into(),
        DecodeError::OtherString(what) => format!("its body is no plan: {what}"),
        _ => "its body is no plan".into(),
    }
}

/// Writes a plan file: whole or not at all, also where the program is killed or the disk is full.
///
/// # Errors
/// When the file cannot be written; what was there before stays.
pub fn save(plan: &Plan, path: &Path) -> Result<(), PlanError> {
    let failed = |source| PlanError::Io { action: "write", path: path.into(), source };
    let bytes = encode(plan).map_err(|e| failed(io::Error::other(e)))?;
    atomic::write(path, |out| out.write_all(&bytes)).map_err(failed)
}

/// Reads and verifies a plan file.
///
/// # Errors
/// When it cannot be read, or is not a whole, undamaged plan that is safe to run.
pub fn load(path: &Path) -> Result<Plan, PlanError> {
    let failed = |source| PlanError::Io { action: "read", path: path.into(), source };
    atomic::check_ordinary(path).map_err(failed)?;
    let size = fs::metadata(path).map_err(failed)?.len();
    if size > MAX_BYTES as u64 {
        return Err(PlanError::Damaged { path: path.into(), problem: format!("{size} bytes are too many") });
    }
    decode(&fs::read(path).map_err(failed)?, path)
}

/// Whether a file starts as plans do.
pub fn is_plan(path: &Path) -> bool {
    let mut start = [0; 8];
    // Opening a pipe would wait for a writer, and take what it writes.
    atomic::check_ordinary(path)
        .and_then(|()| fs::File::open(path))
        .and_then(|mut f| io::Read::read_exact(&mut f, &mut start))
        .is_ok()
        && start == MAGIC
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
