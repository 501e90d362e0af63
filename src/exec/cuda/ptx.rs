//! The `.version` of PTX, which a driver refuses when it is newer than itself.
//!
//! NVRTC writes its own version, whatever the text uses. Drivers of an older CUDA take the text when the line names a
//! version that has all that is used: the numbers below are those of the release notes in NVIDIA's PTX ISA.

use crate::kernel::target::Architecture;

type Version = (u32, u32);

/// Instructions that are as old as the oldest architecture for which there are kernels, or of the version said.
const INSTRUCTIONS: &[(&str, Version)] = &[
    ("abs", (6, 3)),
    ("activemask", (6, 3)),
    ("add", (6, 3)),
    ("addc", (6, 3)),
    ("and", (6, 3)),
    ("bar", (6, 3)),
    ("barrier", (6, 3)),
    ("bfe", (6, 3)),
    ("bfi", (6, 3)),
    ("bra", (6, 3)),
    ("brev", (6, 3)),
    ("call", (6, 3)),
    ("clz", (6, 3)),
    ("cnot", (6, 3)),
    ("copysign", (6, 3)),
    ("cos", (6, 3)),
    ("cp", (7, 0)),
    ("cvt", (6, 3)),
    ("cvta", (6, 3)),
    ("div", (6, 3)),
    ("ex2", (6, 3)),
    ("exit", (6, 3)),
    ("fma", (6, 3)),
    ("fns", (6, 3)),
    ("griddepcontrol", (7, 8)),
    ("ld", (6, 3)),
    ("ldmatrix", (6, 5)),
    ("lg2", (6, 3)),
    ("mad", (6, 3)),
    ("mad24", (6, 3)),
    ("madc", (6, 3)),
    ("max", (6, 3)),
    ("membar", (6, 3)),
    ("min", (6, 3)),
    ("mma", (7, 0)),
    ("mov", (6, 3)),
    ("mul", (6, 3)),
    ("mul24", (6, 3)),
    ("neg", (6, 3)),
    ("not", (6, 3)),
    ("or", (6, 3)),
    ("popc", (6, 3)),
    ("prmt", (6, 3)),
    ("rcp", (6, 3)),
    ("rem", (6, 3)),
    ("ret", (6, 3)),
    ("rsqrt", (6, 3)),
    ("selp", (6, 3)),
    ("set", (6, 3)),
    ("setp", (6, 3)),
    ("shf", (6, 3)),
    ("shfl", (6, 3)),
    ("shl", (6, 3)),
    ("shr", (6, 3)),
    ("sin", (6, 3)),
    ("slct", (6, 3)),
    ("sqrt", (6, 3)),
    ("st", (6, 3)),
    ("sub", (6, 3)),
    ("subc", (6, 3)),
    ("testp", (6, 3)),
    ("trap", (6, 3)),
    ("vote", (6, 3)),
    ("xor", (6, 3)),
];

/// Modifiers that are newer than 7.0, and the types on which only newer instructions work.
const MODIFIERS: &[(&str, Version)] = &[
    ("L2::64B", (7, 4)),
    ("L2::128B", (7, 4)),
    ("L2::256B", (7, 4)),
    ("L2::cache_hint", (7, 4)),
    ("xorsign", (7, 2)),
    ("relu", (7, 0)),
    ("NaN", (7, 0)),
    ("tf32", (7, 0)),
    ("bf16", (7, 8)),
    ("bf16x2", (7, 8)),
];

/// Modifiers of families that are newer throughout, or for one architecture alone.
const UNKNOWN: &[&str] =
    &["bulk", "tensor", "cluster", "b128", "e4m3", "e5m2", "e4m3x2", "e5m2x2", "f32x2", "shared::cluster"];

/// The first version that knows an architecture.
fn of_target(architecture: Architecture) -> Option<Version> {
    Some(match architecture.0 {
        ..=75 => (6, 3),
        80 => (7, 0),
        86 => (7, 1),
        87 => (7, 4),
        89 | 90 => (7, 8),
        _ => return None,
    })
}

/// The instructions of a line of PTX.
fn instructions(line: &str) -> impl Iterator<Item = &str> {
    let code = line.split("//").next().unwrap_or_default();
    let parts = code.split(['{', '}', ';']).map(str::trim);
    parts.filter_map(|part| {
        // A predicate comes first.
        let part = match part.strip_prefix('@') {
            Some(rest) => rest.split_once(char::is_whitespace)?.1.trim_start(),
            None => part,
        };
        let word = part.split(char::is_whitespace).next()?;
        let starts = word.starts_with(|c: char| c.is_ascii_lowercase());
        (starts && !word.contains(':') | word.contains("::")).then_some(word)
    })
}

/// The oldest version that has all that a text uses; `None` where something isn't known here.
fn oldest(text: &str) -> Option<Version> {
    let target = text.lines().find_map(|line| line.strip_prefix(".target sm_"))?;
    let mut version = of_target(Architecture(target.split(',').next()?.trim().parse().ok()?))?;
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        match line {
            "{" => inside = true,
            "}" => inside = false,
            _ => {}
        }
        if !inside && !line.starts_with('{') {
            continue;
        }
        for instruction in instructions(line) {
            let mut parts = instruction.split('.');
            let name = parts.next()?;
            let &(_, since) = INSTRUCTIONS.iter().find(|(known, _)| *known == name)?;
            version = version.max(since);
            for part in parts {
                if UNKNOWN.contains(&part) {
                    return None;
                }
                // Converting from f32 and multiplying matrices are older than arithmetic.
                let is_older = name == "mma" || (name == "cvt" && !instruction.ends_with("bf16"));
                let since = MODIFIERS.iter().find(|(known, _)| *known == part).map_or((6, 3), |&(_, since)| since);
                version = version.max(if is_older && part.starts_with("bf16") { (7, 0) } else { since });
            }
        }
    }
    Some(version)
}

/// Lowers the version of a text to the oldest that has all it uses; a text that uses something else stays as it is.
pub fn lowered(text: Vec<u8>) -> Vec<u8> {
    let Ok(text) = String::from_utf8(text.clone()) else { return text };
    let Some((major, minor)) = oldest(&text) else { return text.into_bytes() };
    let Some(start) = text.find("\n.version ").map(|at| at + 1).or(text.starts_with(".version ").then_some(0)) else {
        return text.into_bytes();
    };
    let end = text[start..].find('\n').map_or(text.len(), |length| start + length);
    let number = |part: Option<&str>| part.and_then(|n| n.trim().parse::<u32>().ok());
    let mut parts = text[start + ".version ".len()..end].split('.');
    match (number(parts.next()), number(parts.next())) {
        (Some(own), Some(own_minor)) if (own, own_minor) > (major, minor) => {
            format!("{}.version {major}.{minor}{}", &text[..start], &text[end..]).into_bytes()
        }
        _ => text.into_bytes(),
    }
}

/// Whether a text has instructions of one architecture alone, so that no other can run it.
pub fn is_of_one_architecture(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    let starts = ["wgmma.", "setmaxnreg.", "tcgen05."];
    text.lines().flat_map(instructions).any(|instruction| starts.iter().any(|start| instruction.starts_with(start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(target: &str, body: &str) -> Vec<u8> {
        format!(
            "// made\n\n.version 8.7\n.target {target}\n.address_size 64\n\n.visible .entry k(\n\t.param .u64 p\n)\n\
             {{\n\t.reg .b32 \t%r<3>;\n\n\tmov.u32 %r1, %tid.x; // newer.thing\n$L__BB0_1:\n\t{body}\n\tret;\n\n}}\n\0"
        )
        .into_bytes()
    }

    fn version(target: &str, body: &str) -> String {
        let lowered = lowered(text(target, body));
        let after = String::from_utf8(lowered).unwrap();
        let line = after.lines().find(|line| line.starts_with(".version")).unwrap().to_string();
        // Nothing else changes.
        assert_eq!(after.replace(&line, ".version 8.7").as_bytes(), text(target, body));
        line.replace(".version ", "")
    }

    #[test]
    fn the_version_is_the_oldest_that_has_all_that_is_used() {
        for (target, body, expected) in [
            ("sm_75", "add.s32 %r2, %r1, %r1;", "6.3"),
            ("sm_80", "@%p1 bra $L__BB0_1;", "7.0"),
            ("sm_86", "ret;", "7.1"),
            ("sm_90", "ret;", "7.8"),
            ("sm_90", "griddepcontrol.launch_dependents;", "7.8"),
            ("sm_80", "cp.async.cg.shared.global [%r1], [%rd1], 16;", "7.0"),
            ("sm_80", "cp.async.cg.shared.global.L2::128B [%r1], [%rd1], 16;", "7.4"),
            ("sm_75", "{ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r1, %r2}, [%r1];}", "6.5"),
            ("sm_80", "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f1}, {%r1}, {%r2}, {%f1};", "7.0"),
            ("sm_80", "cvt.rn.bf16x2.f32 %r1, %f1, %f2;", "7.0"),
            ("sm_80", "cvt.f32.bf16 %f1, %rs1;", "7.8"),
            ("sm_80", "add.bf16 %rs1, %rs1, %rs1;", "7.8"),
            // What isn't known stays as it is.
            ("sm_80", "unheard.of %r1;", "8.7"),
            ("sm_90", "cp.async.bulk.commit_group;", "8.7"),
            ("sm_90a", "wgmma.fence.sync.aligned;", "8.7"),
            ("sm_120", "ret;", "8.7"),
        ] {
            assert_eq!(version(target, body), expected, "{target}: {body}");
        }
    }

    #[test]
    fn what_is_no_ptx_or_old_already_stays() {
        for bytes in [
            &b""[..],
            b"\0",
            b"int x;\0",
            b"\xff\xfe\0",
            b".version\n.target sm_80\n\0",
            b".version 6.0\n.target sm_80\n\0",
        ] {
            assert_eq!(lowered(bytes.to_vec()), bytes);
        }
    }

    #[test]
    fn instructions_of_one_architecture_are_seen() {
        assert!(is_of_one_architecture(&text("sm_90a", "wgmma.fence.sync.aligned;")));
        assert!(!is_of_one_architecture(&text("sm_90", "mov.u32 %r1, %r2; // wgmma.fence")));
    }
}
