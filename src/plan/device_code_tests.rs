//! Sections that are cut short, changed or made to do harm.

use super::*;
use crate::plan::{self, Plan};
use crate::testing::formats::PLAN;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

fn set(kind: CodeKind, architecture: u32, own: bool) -> CodeSet {
    let bytes = match kind {
        CodeKind::Cubin => elf::write(elf::CUDA, &[(".text.k", b"code", 0, 0)]),
        CodeKind::Ptx => b".version 7.0\n\0".to_vec(),
    };
    let options = vec![format!("--gpu-architecture=sm_{architecture}")];
    CodeSet {
        kind,
        architecture: Architecture(architecture),
        own,
        options,
        images: vec![Image { source: [7; 32], bytes }],
    }
}

fn code() -> DeviceCode {
    use CodeKind::{Cubin, Ptx};
    let sets = vec![
        set(Cubin, 80, false),
        set(Cubin, 86, false),
        set(Cubin, 90, true),
        set(Ptx, 75, false),
        set(Ptx, 80, false),
        set(Ptx, 90, true),
    ];
    DeviceCode { compiler: (12, 8), sets }
}

fn sealed(content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u64).to_le_bytes();
    [&MAGIC[..], &length, Sha256::digest(content).as_slice(), content].concat()
}

fn compressed(plain: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::ZlibEncoder::new(Vec::new(), Compression::best());
    out.write_all(plain).unwrap();
    out.finish().unwrap()
}

#[test]
fn a_device_takes_its_own_cubin_then_an_older_one_then_ptx() {
    let code = code();
    let names = |device| code.for_device(Architecture(device)).iter().map(ToString::to_string).collect::<Vec<_>>();
    let (ptx80, ptx75) = ("PTX for sm_80 and newer", "PTX for sm_75 and newer");
    assert_eq!(names(80), ["sm_80", ptx80, ptx75]);
    assert_eq!(names(87), ["sm_86", "sm_80", ptx80, ptx75]);
    assert_eq!(names(90), ["sm_90a", "PTX for sm_90a and newer", ptx80, ptx75]);
    // What is one architecture's own is nobody else's.
    assert_eq!(names(93), [ptx80, ptx75]);
    assert_eq!(names(75), [ptx75]);
    assert_eq!(names(70), Vec::<String>::new());
}

#[test]
fn code_comes_back_and_damage_is_found() {
    let bytes = encode(&code()).unwrap();
    assert_eq!(decode(&bytes).unwrap(), code());
    for end in 0..bytes.len() {
        assert!(decode(&bytes[..end]).is_err(), "{end} bytes");
    }
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 4;
        assert!(decode(&changed).is_err(), "byte {at}");
    }
    assert!(decode(&[&bytes[..], b"more"].concat()).unwrap_err().contains("bytes of"));
}

#[test]
fn doctored_code_is_refused() {
    type Change = fn(&mut DeviceCode);
    let changes: [(&str, Change); 10] = [
        ("is not whole", |c| {
            c.sets[0].images[0].bytes.pop();
        }),
        ("is not whole", |c| c.sets[0].images[0].bytes = b"\x7fELF".to_vec()),
        ("is not whole", |c| c.sets[0].images[0].bytes.clear()),
        ("is not whole", |c| {
            c.sets[3].images[0].bytes.pop();
        }),
        ("is not whole", |c| c.sets[3].images[0].bytes.push(0)),
        ("two codes", |c| c.sets[0].images = vec![c.sets[0].images[0].clone(); 2]),
        ("architectures", |c| c.sets = vec![c.sets[0].clone(); MAX_SETS + 1]),
        ("there is no sm_", |c| c.sets[0].architecture = Architecture(u32::MAX)),
        ("options", |c| c.sets[0].options = vec!["\u{1b}[31m".into()]),
        ("options", |c| c.sets[0].options = vec!["-x".into(); 1000]),
    ];
    for (message, change) in changes {
        let mut code = code();
        change(&mut code);
        let error = decode(&encode(&code).unwrap()).unwrap_err();
        assert!(error.contains(message), "{message}: {error}");
        let plan = Plan { device_code: Some(Arc::new(code)), ..PLAN.clone() };
        assert!(plan::verify(&plan).unwrap_err().to_string().contains(message));
    }
}

/// A hash that fits makes no counts or sizes believable.
#[test]
fn absurd_sizes_take_no_memory() {
    let bomb = compressed(&vec![0; MAX_BYTES + 1]);
    assert!(bomb.len() < 1 << 20);
    assert!(decode(&sealed(&bomb)).unwrap_err().contains("decompresses to more than"));
    // The number of sets is 2⁶⁴ - 1.
    let many = compressed(&[&[12, 8, 253][..], &[0xff; 8]].concat());
    assert!(decode(&sealed(&many)).is_err());
    assert!(decode(&sealed(b"not compressed")).unwrap_err().contains("can't be decompressed"));
    let plain = bincode::serde::encode_to_vec(code(), bincode::config::standard()).unwrap();
    let longer = compressed(&[&plain[..], b"more"].concat());
    assert!(decode(&sealed(&longer)).unwrap_err().contains("4 bytes follow"));
}

#[test]
fn a_file_has_it_at_its_end_and_is_the_same_before() {
    let without = plan::encode(&PLAN).unwrap();
    let with = Plan { device_code: Some(Arc::new(code())), ..PLAN.clone() };
    let bytes = plan::encode(&with).unwrap();
    assert!(bytes.starts_with(&without));
    let decoded = |bytes: &[u8]| plan::decode(bytes, Path::new("some.plan"));
    assert_eq!(decoded(&bytes).unwrap(), with);
    assert_eq!(decoded(&without).unwrap(), *PLAN);
    for end in without.len() + 1..bytes.len() {
        let error = decoded(&bytes[..end]).unwrap_err().to_string();
        assert!(error.contains("damaged (of its device code: ") && error.contains("compile it again"), "{error}");
    }
}
