//! Compiled code on the disk, in the user's cache folder. What can't be read is compiled again, and what can't be written
//! is forgotten: a cache changes how long things take, never what comes out.

use super::nvrtc::Code;
use crate::atomic;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// What files begin with: another number for another layout.
const MAGIC: &[u8] = b"gcc-gan cuda code 2\n";

/// A folder of compiled code.
#[derive(Debug, Clone)]
pub struct Cache {
    /// `None` keeps nothing.
    folder: Option<PathBuf>,
}

impl Cache {
    /// The user's.
    pub fn of_user() -> Cache {
        Cache { folder: dirs::cache_dir().map(|folder| folder.join("gcc-gan").join("cuda")) }
    }

    #[cfg(test)]
    fn in_folder(folder: &Path) -> Cache {
        Cache { folder: Some(folder.to_path_buf()) }
    }

    fn file(&self, key: &str) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join(key))
    }

    /// The code of a key, where it is kept whole.
    pub fn get(&self, key: &str) -> Option<Code> {
        let bytes = atomic::read(&self.file(key)?).ok()?;
        decode(&bytes)
    }

    /// Keeps code, if that is possible.
    pub fn put(&self, key: &str, code: &Code) {
        let Some(file) = self.file(key) else { return };
        let bytes = encode(code);
        let folder = file.parent().unwrap_or(Path::new("."));
        let written = std::fs::create_dir_all(folder).and_then(|()| atomic::write(&file, |out| out.write_all(&bytes)));
        if let Err(error) = written {
            tracing::debug!("{} is not kept: {error}", file.display());
        }
    }
}

/// Stands for the version of whatever compiler made the code that is kept, where there is none to ask.
pub const ANY_COMPILER: (u32, u32) = (0, 0);

impl Cache {
    /// Keeps code under its own key, and for those who have no compiler under that of any.
    pub fn put_compiled(&self, text: &str, options: &[String], version: (u32, u32), code: &Code) {
        self.put(&hex(&key(text, options, version)), code);
        self.put(&hex(&key(text, options, ANY_COMPILER)), code);
    }
}

/// A key as the name of a file.
pub fn hex(key: &[u8; 32]) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The name of what a text is compiled to: from all that it depends on.
pub fn key(text: &str, options: &[String], version: (u32, u32)) -> [u8; 32] {
    let mut hash = Sha256::new();
    let (major, minor) = version;
    for part in [&format!("{major}.{minor}"), &options.join(" "), text] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

fn encode(code: &Code) -> Vec<u8> {
    let mut content = (code.cubin.len() as u64).to_le_bytes().to_vec();
    content.extend(&code.cubin);
    content.extend(&code.ptx);
    [MAGIC, Sha256::digest(&content).as_slice(), &content].concat()
}

fn decode(bytes: &[u8]) -> Option<Code> {
    let (hash, content) = bytes.strip_prefix(MAGIC)?.split_at_checked(32)?;
    if Sha256::digest(content).as_slice() != hash {
        return None;
    }
    let (length, rest) = content.split_at_checked(8)?;
    let length = usize::try_from(u64::from_le_bytes(length.try_into().ok()?)).ok()?;
    let (cubin, ptx) = rest.split_at_checked(length)?;
    Some(Code { cubin: cubin.to_vec(), ptx: ptx.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code() -> Code {
        Code { cubin: b"\x7fELF and more".to_vec(), ptx: b".version 8.0\0".to_vec() }
    }

    #[test]
    fn what_is_kept_comes_back_and_what_is_damaged_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::in_folder(&folder.path().join("made/by/put"));
        assert_eq!(cache.get("one"), None);
        cache.put("one", &code());
        assert_eq!(cache.get("one"), Some(code()));
        let file = folder.path().join("made/by/put/one");
        let whole = std::fs::read(&file).unwrap();
        for end in 0..whole.len() {
            assert_eq!(decode(&whole[..end]), None);
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert_eq!(decode(&damaged), None, "byte {at}");
        }
    }

    #[test]
    fn a_folder_that_can_not_be_made_keeps_nothing() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        for cache in [Cache::in_folder(&folder.path().join("file/inside")), Cache { folder: None }] {
            cache.put("one", &code());
            assert_eq!(cache.get("one"), None);
        }
    }

    #[test]
    fn a_key_depends_on_every_part() {
        let options = ["--a".to_string(), "--b".to_string()];
        let all = [
            key("text", &options, (12, 8)),
            key("text2", &options, (12, 8)),
            key("text", &options[..1], (12, 8)),
            key("text", &options, (12, 9)),
            key("text", &[], (12, 8)),
        ];
        assert_eq!(all.iter().collect::<std::collections::HashSet<_>>().len(), all.len());
        assert_eq!(all[0], key("text", &options, (12, 8)));
        assert_eq!(hex(&all[0]).len(), 64);
    }
}
