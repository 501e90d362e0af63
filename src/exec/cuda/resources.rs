//! What a kernel takes of a GPU, read from its cubin.
//!
//! A cubin is an ELF file. What kernels take is in its section `.nv.info`, a list of attributes: a byte for the form, one for
//! the meaning, then two bytes of value, or of the length of a value that follows. A function is named by its number in the
//! table of symbols. The format is not documented; that the numbers are right was seen by comparing them with what NVIDIA's
//! tools print (`ptxas -v`, `cuobjdump -res-usage`).

use crate::plan::elf::{self, Elf, number};
use serde::Serialize;
use std::collections::BTreeMap;

/// What a function takes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Resources {
    /// Of a thread.
    pub registers: u32,
    /// Bytes of shared memory of a block that are part of the function; from sm_90 on with the 1024 that CUDA keeps for
    /// itself, where the function uses any.
    pub static_shared_bytes: u64,
    /// Bytes of local memory of a thread, where it keeps what has no place in registers: what was spilled, and arrays.
    pub local_bytes: u64,
}

/// A value follows, of the length that is said.
const WITH_LENGTH: u8 = 4;
const FRAME_SIZE: u8 = 0x11;
const REGISTERS: u8 = 0x2f;
const SYMBOL: usize = 24;

/// The functions of a cubin; `None` where it isn't one that is understood.
pub fn read(cubin: &[u8]) -> Option<BTreeMap<String, Resources>> {
    let elf = elf::read(cubin).filter(|elf| elf.machine == elf::CUDA)?;
    let mut found: BTreeMap<String, Resources> = BTreeMap::new();
    for section in &elf.sections {
        if let Some(function) = section.name.strip_prefix(".text.") {
            // Replaced below where an attribute says it: here are 8 bits only.
            found.entry(function.to_string()).or_default().registers = section.info >> 24;
        }
    }
    for section in &elf.sections {
        if let Some(resources) = section.name.strip_prefix(".nv.shared.").and_then(|name| found.get_mut(name)) {
            resources.static_shared_bytes = section.size;
        }
    }
    for (meaning, symbol, value) in attributes(&elf)? {
        let Some(resources) = name_of(&elf, symbol).and_then(|name| found.get_mut(name)) else { continue };
        match meaning {
            FRAME_SIZE => resources.local_bytes = value,
            _ => resources.registers = value as u32,
        }
    }
    Some(found)
}

/// The attributes of functions: their meaning, the function's symbol and the value.
fn attributes(elf: &Elf) -> Option<Vec<(u8, usize, u64)>> {
    let bytes = elf.section(".nv.info")?.bytes;
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let (form, meaning, length) = (bytes[at], *bytes.get(at + 1)?, number(bytes, at + 2, 2)? as usize);
        at += 4;
        if form != WITH_LENGTH {
            continue;
        }
        if length == 8 && [FRAME_SIZE, REGISTERS].contains(&meaning) {
            found.push((meaning, number(bytes, at, 4)? as usize, number(bytes, at + 4, 4)?));
        }
        at += length;
    }
    Some(found)
}

fn name_of<'b>(elf: &Elf<'b>, symbol: usize) -> Option<&'b str> {
    let at = number(elf.section(".symtab")?.bytes, symbol.checked_mul(SYMBOL)?, 4)? as usize;
    let names = elf.section(".strtab")?.bytes.get(at..)?;
    std::str::from_utf8(&names[..names.iter().position(|&byte| byte == 0)?]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(meaning: u8, symbol: u32, value: u32) -> Vec<u8> {
        [&[WITH_LENGTH, meaning, 8, 0][..], &symbol.to_le_bytes(), &value.to_le_bytes()].concat()
    }

    fn cubin(info: &[u8]) -> Vec<u8> {
        let mut symbols = vec![0; 3 * SYMBOL];
        symbols[SYMBOL] = 1;
        symbols[2 * SYMBOL] = 7;
        let sections: [(&str, &[u8], u64, u32); 6] = [
            (".strtab", b"\0first\0second\0", 0, 0),
            (".symtab", &symbols, 0, 0),
            (".nv.info", info, 0, 0),
            (".text.first", b"code", 0, 40 << 24 | 5),
            (".text.second", b"code", 0, 32 << 24 | 6),
            (".nv.shared.second", b"", 4096, 0),
        ];
        elf::write(elf::CUDA, &sections)
    }

    #[test]
    fn registers_shared_and_local_memory_are_each_functions_own() {
        // The second attribute is of another form, and the third of another meaning.
        let info = [
            attribute(FRAME_SIZE, 1, 24),
            vec![3, FRAME_SIZE, 7, 0],
            attribute(0x12, 2, 99),
            attribute(REGISTERS, 2, 168),
        ];
        let found = read(&cubin(&info.concat())).unwrap();
        let first = Resources { registers: 40, static_shared_bytes: 0, local_bytes: 24 };
        let second = Resources { registers: 168, static_shared_bytes: 4096, local_bytes: 0 };
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            [("first".to_string(), first), ("second".to_string(), second)]
        );
    }

    #[test]
    fn whatever_the_bytes_are_nothing_is_read_outside() {
        let bytes = cubin(&attribute(FRAME_SIZE, 1, 24));
        for end in 0..bytes.len() {
            assert_eq!(read(&bytes[..end]), None);
        }
        for at in 0..bytes.len() {
            for byte in [0, 4, 0xff] {
                let mut changed = bytes.clone();
                changed[at] = byte;
                read(&changed);
            }
        }
        assert_eq!(read(&cubin(&[WITH_LENGTH])), None);
        assert_eq!(read(&elf::write(62, &[(".nv.info", b"x", 0, 0)])), None, "code for another machine");
    }

    /// Where there is a compiler.
    #[test]
    fn a_real_cubin_is_understood() {
        use crate::exec::cuda::nvrtc;
        let Ok(nvrtc) = nvrtc::find() else {
            eprintln!("skipped: no NVRTC");
            return;
        };
        let text = "extern \"C\" __global__ void k(unsigned char* arena) {\n\
                    __shared__ unsigned char all[256]; unsigned local[64];\n\
                    for (unsigned i = 0; i < 64; ++i) local[i] = arena[i] * i;\n\
                    all[threadIdx.x] = arena[threadIdx.x]; __syncthreads();\n\
                    arena[threadIdx.x] = all[255 - threadIdx.x] + local[arena[99] % 64]; }";
        let Ok(code) = nvrtc.compile("k.cu", text, &nvrtc::exact_options(crate::kernel::target::Architecture(80)))
        else {
            eprintln!("skipped: the NVRTC here is a mock");
            return;
        };
        let Some(found) = read(&code.cubin) else {
            eprintln!("skipped: the NVRTC here is a mock");
            return;
        };
        assert!((8..=64).contains(&found["k"].registers), "{found:?}");
        assert_eq!((found["k"].static_shared_bytes, found["k"].local_bytes), (256, 256), "{found:?}");
    }
}
