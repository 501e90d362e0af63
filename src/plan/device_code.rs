//! Compiled device code beside a plan: an optional section at the end of its file.
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | the magic `CUDACODE` |
//! | 8..16 | bytes of the content as it is in the file, little-endian |
//! | 16..48 | SHA-256 of the content as it is in the file |
//! | 48.. | the content: [`DeviceCode`] in bincode, compressed by zlib |
//!
//! The plan does not depend on it: executors can make the same code again from the plan's kernels. What is checked here is
//! that code can be given to a driver without harm to this program. What code does on a GPU can't be checked: an executor
//! runs it only where it has a reason to trust it.

use super::elf;
use crate::kernel::target::Architecture;
use flate2::Compression;
use flate2::read::{ZlibDecoder, ZlibEncoder};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fmt;
use std::io::Read as _;

const MAGIC: &[u8; 8] = b"CUDACODE";
const HEADER: usize = 48;
/// A thousand kernels take some 20 KB each for an architecture.
const MAX_BYTES: usize = 1 << 29;
const MAX_SETS: usize = 64;
const MAX_OPTIONS: usize = 32;
const MAX_OPTION: usize = 256;

/// The code of a plan's kernels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceCode {
    /// The version of NVRTC that made it: 12.8 is (12, 8).
    pub compiler: (u32, u32),
    pub sets: Vec<CodeSet>,
}

/// What was compiled with the same options.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeSet {
    pub kind: CodeKind,
    pub architecture: Architecture,
    /// Whether it uses what this architecture alone has: compilers write `sm_90a`.
    pub own: bool,
    /// The compiler's options.
    pub options: Vec<String>,
    pub images: Vec<Image>,
}

/// A form of device code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CodeKind {
    /// A GPU's own code.
    Cubin,
    /// Text that drivers compile.
    Ptx,
}

/// The code of one text.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// SHA-256 of the text, the options and the compiler's version.
    pub source: [u8; 32],
    /// A whole ELF file, or text that ends with its only zero byte.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} bytes of code", self.bytes.len())
    }
}

impl CodeSet {
    /// Whether a GPU of an architecture can run it: cubins run where the major version is the same and the minor one not
    /// lower, PTX on everything newer, and what is an architecture's own nowhere else.
    pub fn runs_on(&self, device: Architecture) -> bool {
        let same_major = self.architecture.0 / 10 == device.0 / 10;
        match self.kind {
            _ if self.own => self.architecture == device,
            CodeKind::Cubin => same_major && self.architecture <= device,
            CodeKind::Ptx => self.architecture <= device,
        }
    }

    pub fn image(&self, source: &[u8; 32]) -> Option<&Image> {
        self.images.iter().find(|image| image.source == *source)
    }
}

impl fmt::Display for CodeSet {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let own = if self.own { "a" } else { "" };
        match self.kind {
            CodeKind::Cubin => write!(f, "{}{own}", self.architecture),
            CodeKind::Ptx => write!(f, "PTX for {}{own} and newer", self.architecture),
        }
    }
}

impl DeviceCode {
    /// The sets that a device can run, the best first: its own cubins, those of the nearest older one, then PTX.
    pub fn for_device(&self, device: Architecture) -> Vec<&CodeSet> {
        let mut sets: Vec<&CodeSet> = self.sets.iter().filter(|set| set.runs_on(device)).collect();
        sets.sort_by_key(|set| (set.kind == CodeKind::Ptx, std::cmp::Reverse((set.architecture, set.own))));
        sets
    }

    /// What it is for, in words, set by set.
    pub fn runs_on(&self) -> Vec<String> {
        self.sets.iter().map(ToString::to_string).collect()
    }

    /// The same as one phrase.
    pub fn architectures(&self) -> String {
        self.runs_on().join(", ")
    }

    /// Bytes of all code.
    pub fn bytes(&self) -> usize {
        self.sets.iter().flat_map(|set| &set.images).map(|image| image.bytes.len()).sum()
    }

    /// That every image can be given to a driver.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), String> {
        if self.sets.len() > MAX_SETS {
            return Err(format!("it is for {} architectures", self.sets.len()));
        }
        for set in &self.sets {
            if !(Architecture(1)..=Architecture(9999)).contains(&set.architecture) {
                return Err(format!("there is no {}", set.architecture));
            }
            let is_option =
                |option: &String| option.len() <= MAX_OPTION && option.bytes().all(|b| b.is_ascii_graphic());
            if set.options.len() > MAX_OPTIONS || !set.options.iter().all(is_option) {
                return Err(format!("the options of {set} are none of a compiler's"));
            }
            let sources: BTreeSet<&[u8; 32]> = set.images.iter().map(|image| &image.source).collect();
            if sources.len() != set.images.len() {
                return Err(format!("a kernel has two codes for {set}"));
            }
            for (number, image) in set.images.iter().enumerate() {
                let is_whole = match set.kind {
                    CodeKind::Cubin => elf::read(&image.bytes).is_some(),
                    CodeKind::Ptx => {
                        image.bytes.iter().position(|&b| b == 0).is_some_and(|n| n + 1 == image.bytes.len())
                    }
                };
                if !is_whole {
                    return Err(format!("code {number} for {set} is not whole"));
                }
            }
        }
        Ok(())
    }
}

/// The bytes of a section.
///
/// # Errors
/// When the code cannot be encoded.
pub fn encode(code: &DeviceCode) -> Result<Vec<u8>, String> {
    let plain = bincode::serde::encode_to_vec(code, bincode::config::standard()).map_err(|e| e.to_string())?;
    let mut content = Vec::new();
    ZlibEncoder::new(plain.as_slice(), Compression::best()).read_to_end(&mut content).map_err(|e| e.to_string())?;
    let length = (content.len() as u64).to_le_bytes();
    Ok([&MAGIC[..], &length, Sha256::digest(&content).as_slice(), &content].concat())
}

/// Reads the bytes of a section, and checks what it holds.
///
/// # Errors
/// When they are not a whole, undamaged section whose code can be given to a driver.
pub fn decode(bytes: &[u8]) -> Result<DeviceCode, String> {
    let (header, content) = bytes.split_at_checked(HEADER).ok_or("its header is cut short")?;
    if !header.starts_with(MAGIC) {
        return Err("it does not start as device code does".into());
    }
    let length = elf::number(header, 8, 8).unwrap_or(0);
    if length != content.len() as u64 {
        return Err(format!("it has {} bytes of {length}", content.len()));
    }
    if Sha256::digest(content)[..] != header[16..] {
        return Err("it does not match its hash".into());
    }
    let mut plain = Vec::new();
    let most = MAX_BYTES as u64;
    let mut inflated = ZlibDecoder::new(content).take(most + 1);
    inflated.read_to_end(&mut plain).map_err(|e| format!("it can't be decompressed: {e}"))?;
    if plain.len() > MAX_BYTES {
        return Err(format!("it decompresses to more than {most} bytes"));
    }
    let config = bincode::config::standard().with_limit::<MAX_BYTES>();
    let (code, read) = bincode::serde::decode_from_slice::<DeviceCode, _>(&plain, config).map_err(|e| e.to_string())?;
    if read != plain.len() {
        return Err(format!("{} bytes follow it", plain.len() - read));
    }
    code.check()?;
    Ok(code)
}

#[cfg(test)]
#[path = "device_code_tests.rs"]
mod tests;
