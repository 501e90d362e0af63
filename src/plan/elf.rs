//! The sections of 64-bit ELF files, which cubins are.
//!
//! A driver is given a pointer to a cubin and takes its length from its headers, so a cubin must lie whole inside its
//! bytes before a driver may see it.

use std::ops::Range;

/// What ELF files begin with.
pub const MAGIC: &[u8] = b"\x7fELF";
/// The machine of code for NVIDIA GPUs.
pub const CUDA: u16 = 190;
/// The kind of a section that takes memory and no bytes of the file.
const NO_BITS: u32 = 8;
const HEADER: usize = 64;
const SECTION: usize = 64;
const SEGMENT: usize = 56;

/// A file whose headers, sections and segments lie inside its bytes.
#[derive(Debug)]
pub struct Elf<'b> {
    /// What the code is for: see [`CUDA`].
    pub machine: u16,
    pub sections: Vec<Section<'b>>,
}

/// A section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section<'b> {
    pub name: &'b str,
    /// Bytes of memory that it takes.
    pub size: u64,
    /// What the file holds of it; nothing, of memory that is only reserved.
    pub bytes: &'b [u8],
    /// A number whose meaning depends on the kind of section.
    pub info: u32,
}

/// The little-endian number of at most 8 bytes at a place.
pub fn number(bytes: &[u8], at: usize, width: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(width)?)?;
    Some(bytes.iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte)))
}

/// `count` entries of `size` bytes from `start` on.
fn table(bytes: &[u8], start: u64, count: u64, size: usize) -> Option<Vec<&[u8]>> {
    let range = span(start, count.checked_mul(size as u64)?)?;
    Some(bytes.get(range)?.chunks_exact(size).collect())
}

fn span(start: u64, length: u64) -> Option<Range<usize>> {
    Some(usize::try_from(start).ok()?..usize::try_from(start.checked_add(length)?).ok()?)
}

/// Reads a file; `None` where it is no 64-bit little-endian ELF file, or not all of it is there.
pub fn read(bytes: &[u8]) -> Option<Elf<'_>> {
    // 64 bits, little-endian.
    if bytes.len() < HEADER || !bytes.starts_with(MAGIC) || bytes[4..6] != [2, 1] {
        return None;
    }
    let field = |at, width| number(bytes, at, width);
    let segments = field(56, 2)?;
    if segments > 0 {
        if field(54, 2)? != SEGMENT as u64 {
            return None;
        }
        for segment in table(bytes, field(32, 8)?, segments, SEGMENT)? {
            bytes.get(span(number(segment, 8, 8)?, number(segment, 32, 8)?)?)?;
        }
    }
    let count = field(60, 2)?;
    if count == 0 || field(58, 2)? != SECTION as u64 {
        return None;
    }
    let headers = table(bytes, field(40, 8)?, count, SECTION)?;
    let content = |header: &[u8]| -> Option<&[u8]> {
        if number(header, 4, 4)? as u32 == NO_BITS {
            return Some(&[]);
        }
        bytes.get(span(number(header, 24, 8)?, number(header, 32, 8)?)?)
    };
    let names = content(headers.get(field(62, 2)? as usize)?)?;
    let sections = (headers.iter())
        .map(|header| {
            let name = names.get(number(header, 0, 4)? as usize..)?;
            let name = std::str::from_utf8(&name[..name.iter().position(|&byte| byte == 0)?]).ok()?;
            let info = number(header, 44, 4)? as u32;
            Some(Section { name, size: number(header, 32, 8)?, bytes: content(header)?, info })
        })
        .collect::<Option<Vec<_>>>()?;
    Some(Elf { machine: field(18, 2)? as u16, sections })
}

impl<'b> Elf<'b> {
    pub fn section(&self, name: &str) -> Option<Section<'b>> {
        self.sections.iter().find(|section| section.name == name).copied()
    }
}

/// A file with sections of a name, bytes and info each; those without bytes reserve the size.
#[cfg(test)]
pub fn write(machine: u16, sections: &[(&str, &[u8], u64, u32)]) -> Vec<u8> {
    let mut names = vec![0];
    let mut content = Vec::new();
    let mut headers = vec![0; SECTION];
    let mut add = |name: &str, kind: u32, bytes: &[u8], size: u64, info: u32, names: &mut Vec<u8>| {
        let at = names.len() as u32;
        names.extend(name.as_bytes());
        names.push(0);
        let start = (HEADER + content.len()) as u64;
        content.extend(bytes);
        let mut header = vec![0; SECTION];
        header[..4].copy_from_slice(&at.to_le_bytes());
        header[4..8].copy_from_slice(&kind.to_le_bytes());
        header[24..32].copy_from_slice(&start.to_le_bytes());
        header[32..40].copy_from_slice(&size.to_le_bytes());
        header[44..48].copy_from_slice(&info.to_le_bytes());
        headers.extend(header);
    };
    for (name, bytes, size, info) in sections {
        match bytes {
            [] => add(name, NO_BITS, bytes, *size, *info, &mut names),
            _ => add(name, 1, bytes, bytes.len() as u64, *info, &mut names),
        }
    }
    let own = [&names[..], b".names\0"].concat();
    add(".names", 3, &own, own.len() as u64, 0, &mut names);
    let mut file = vec![0; HEADER];
    file[..4].copy_from_slice(MAGIC);
    file[4..7].copy_from_slice(&[2, 1, 1]);
    file[18..20].copy_from_slice(&machine.to_le_bytes());
    file[40..48].copy_from_slice(&((HEADER + content.len()) as u64).to_le_bytes());
    file[58..60].copy_from_slice(&(SECTION as u16).to_le_bytes());
    let count = (sections.len() + 2) as u16;
    file[60..62].copy_from_slice(&count.to_le_bytes());
    file[62..64].copy_from_slice(&(count - 1).to_le_bytes());
    [file, content, headers].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Vec<u8> {
        write(CUDA, &[(".text.k", b"code", 0, 40 << 24), (".nv.shared.k", b"", 1 << 12, 0)])
    }

    #[test]
    fn sections_are_read_with_their_sizes() {
        let bytes = file();
        let elf = read(&bytes).unwrap();
        assert_eq!(elf.machine, CUDA);
        let text = elf.section(".text.k").unwrap();
        assert_eq!((text.bytes, text.size, text.info), (&b"code"[..], 4, 40 << 24));
        let shared = elf.section(".nv.shared.k").unwrap();
        assert_eq!((shared.bytes, shared.size), (&b""[..], 1 << 12));
        assert_eq!(elf.section(".text"), None);
    }

    #[test]
    fn what_is_not_whole_is_no_file() {
        let bytes = file();
        for end in 0..bytes.len() {
            assert!(read(&bytes[..end]).is_none(), "{end} bytes");
        }
        // Whatever a byte is changed to, nothing is read outside.
        for at in 0..bytes.len() {
            for byte in [0, 1, 0x7f, 0xff] {
                let mut changed = bytes.clone();
                changed[at] = byte;
                read(&changed);
            }
        }
        for (at, width) in [(40, 8), (60, 2)] {
            let mut changed = bytes.clone();
            changed[at..at + width].fill(0xff);
            assert!(read(&changed).is_none(), "at {at}");
        }
    }
}
