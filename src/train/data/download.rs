//! The data sets that can be fetched, their files' checksums, and fetching them into the user's cache folder.
//!
//! A file counts as present only if its SHA-256 is the published one, so neither a mirror nor a damaged disk can change
//! what is trained on; and it takes its name only when it is complete, so an interrupted download leaves nothing that
//! looks like data. Without a network every attempt ends in seconds, with a sentence for each mirror.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::atomic;

/// A data set with known files and mirrors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Handwritten digits: 60,000 + 10,000 of 28×28 (LeCun, Cortes, Burges).
    Mnist,
    /// Articles of clothing in the same format (Xiao, Rasul, Vollgraf, 2017; MIT licence).
    FashionMnist,
}

/// One file of a data set, as the mirrors serve it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownFile {
    /// Its name on the mirrors and in the cache.
    pub name: &'static str,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its SHA-256 in hexadecimal.
    pub sha256: &'static str,
    /// The size and the SHA-256 of what is compressed in it.
    pub plain: (u64, &'static str),
}

const MNIST: [KnownFile; 4] = [
    KnownFile {
        name: "train-images-idx3-ubyte.gz",
        bytes: 9_912_422,
        sha256: "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        plain: (47_040_016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
    },
    KnownFile {
        name: "train-labels-idx1-ubyte.gz",
        bytes: 28_881,
        sha256: "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        plain: (60_008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    },
    KnownFile {
        name: "t10k-images-idx3-ubyte.gz",
        bytes: 1_648_877,
        sha256: "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        plain: (7_840_016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    },
    KnownFile {
        name: "t10k-labels-idx1-ubyte.gz",
        bytes: 4_542,
        sha256: "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        plain: (10_008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
    },
];

const FASHION_MNIST: [KnownFile; 4] = [
    KnownFile {
        name: "train-images-idx3-ubyte.gz",
        bytes: 26_421_880,
        sha256: "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        plain: (47_040_016, "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
    },
    KnownFile {
        name: "train-labels-idx1-ubyte.gz",
        bytes: 29_515,
        sha256: "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        plain: (60_008, "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
    },
    KnownFile {
        name: "t10k-images-idx3-ubyte.gz",
        bytes: 4_422_102,
        sha256: "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        plain: (7_840_016, "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
    },
    KnownFile {
        name: "t10k-labels-idx1-ubyte.gz",
        bytes: 5_148,
        sha256: "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        plain: (10_008, "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
    },
];

impl DownloadError {
    /// Whether no mirror could be reached at all.
    pub fn is_without_network(&self) -> bool {
        match self {
            DownloadError::Disk { .. } => false,
            DownloadError::Mirrors { attempts, .. } => {
                attempts.iter().all(|a| a.contains(NO_NETWORK) || a.ends_with(NO_CONNECTION))
            }
        }
    }
}

const NO_NETWORK: &str = "(is there a network?)";
const NO_CONNECTION: &str = "no connection";

impl Known {
    /// All of them.
    pub const ALL: [Known; 2] = [Known::Mnist, Known::FashionMnist];

    /// The name on the command line and in the cache folder.
    pub fn name(self) -> &'static str {
        match self {
            Known::Mnist => "mnist",
            Known::FashionMnist => "fashion-mnist",
        }
    }

    /// The set of that name.
    pub fn by_name(name: &str) -> Option<Known> {
        Known::ALL.into_iter().find(|known| known.name() == name)
    }

    /// Its four files: training images and labels, test images and labels.
    pub fn files(self) -> &'static [KnownFile; 4] {
        match self {
            Known::Mnist => &MNIST,
            Known::FashionMnist => &FASHION_MNIST,
        }
    }

    /// Where the files can be had; a file's address is one of these followed by its name. The checksum, not the
    /// transport, is what makes a file trusted, so a plain http mirror will do as the last resort.
    pub fn mirrors(self) -> &'static [&'static str] {
        match self {
            Known::Mnist => &[
                "https://storage.googleapis.com/cvdf-datasets/mnist/",
                "https://ossci-datasets.s3.amazonaws.com/mnist/",
            ],
            Known::FashionMnist => &[
                "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            ],
        }
    }
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How far a download is.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// The file that is being fetched.
    pub file: &'static str,
    /// Bytes received of it so far.
    pub received: u64,
    /// Bytes it will have.
    pub total: u64,
}

/// The state of one file in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileState {
    /// There, with the right checksum.
    Good,
    /// Not there.
    Missing,
    /// There, but not the published file, or not readable; says how it differs.
    Damaged(String),
}

/// Why a data set could not be fetched.
#[derive(Debug, Error)]
pub enum DownloadError {
    /// The cache folder could not be written.
    #[error("{path} cannot be written: {error}")]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// No mirror gave the file.
    #[error("{file} could not be downloaded: {}", attempts.join("; "))]
    Mirrors {
        /// The file.
        file: &'static str,
        /// One sentence a mirror.
        attempts: Vec<String>,
    },
}

/// Compares each file of `set` in `dir` with its checksum.
pub fn verify(set: Known, dir: &Path) -> Vec<(&'static KnownFile, FileState)> {
    set.files().iter().map(|file| (file, state(file, dir))).collect()
}

/// Compares each file of `set` that would be read from `dir`, compressed or not, with its checksum.
pub fn verify_folder(set: Known, dir: &Path) -> Vec<(String, u64, FileState)> {
    let state = |file: &KnownFile| {
        let plain = file.name.trim_end_matches(".gz");
        match dir.join(plain).is_file() {
            true => (plain.to_string(), file.plain.0, state_of(&dir.join(plain), file.plain.0, file.plain.1)),
            false => (file.name.to_string(), file.bytes, state(file, dir)),
        }
    };
    set.files().iter().map(state).collect()
}

/// Fetches the files of `set` that are not good in `dir`, which is made if need be. Good files are kept.
pub fn fetch(set: Known, dir: &Path, progress: &mut dyn FnMut(Progress)) -> Result<(), DownloadError> {
    fetch_from(&agent(), set.mirrors(), set.files(), dir, progress)
}

fn fetch_from(
    agent: &ureq::Agent,
    mirrors: &[&str],
    files: &'static [KnownFile],
    dir: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), DownloadError> {
    fs::create_dir_all(dir).map_err(|error| DownloadError::Disk { path: dir.to_owned(), error })?;
    // Another process may be downloading into the same cache: an hour without a byte means that it is gone.
    atomic::remove_stale(dir, Duration::from_secs(3600));
    let mut first = 0;
    for file in files.iter().filter(|file| state(file, dir) != FileState::Good) {
        let mut attempts = Vec::new();
        // The mirror that gave the last file is asked first.
        let order = (0..mirrors.len()).map(|i| (first + i) % mirrors.len());
        let giver = order.into_iter().find_map(|i| {
            let url = format!("{}{}", mirrors[i], file.name);
            match download(agent, &url, file, &dir.join(file.name), progress) {
                Ok(()) => Some(Ok(i)),
                Err(Failure::Disk(error)) => Some(Err(DownloadError::Disk { path: dir.join(file.name), error })),
                Err(Failure::Mirror(reason)) => {
                    attempts.push(format!("{}: {reason}", host(mirrors[i])));
                    None
                }
            }
        });
        match giver {
            Some(giver) => first = giver?,
            None => return Err(DownloadError::Mirrors { file: file.name, attempts }),
        }
    }
    Ok(())
}

/// Why one attempt failed: the disk (no other mirror would help) or the mirror (another may).
enum Failure {
    Disk(io::Error),
    Mirror(String),
}

fn download(
    agent: &ureq::Agent,
    url: &str,
    file: &'static KnownFile,
    path: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), Failure> {
    let response = agent.get(url).call().map_err(|error| Failure::Mirror(explain(error)))?;
    // One byte too many is enough to know that it is another file: a mirror cannot fill the disk.
    let mut body = response.into_body().into_reader().take(file.bytes + 1);
    let mut out = atomic::temporary_beside(path).map_err(Failure::Disk)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut received = 0;
    loop {
        progress(Progress { file: file.name, received, total: file.bytes });
        match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                hash.update(&buffer[..count]);
                out.write_all(&buffer[..count]).map_err(Failure::Disk)?;
                received += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::Mirror(explain(ureq::Error::from(error)))),
        }
    }
    let found = difference((file.bytes, file.sha256), received, hash);
    match found {
        Some(difference) => Err(Failure::Mirror(format!("sent another file: {difference}"))),
        None => atomic::commit(out, path).map_err(Failure::Disk),
    }
}

/// An agent that gives up soon. Proxies come from the usual environment variables.
fn agent() -> ureq::Agent {
    let seconds = |s| Some(Duration::from_secs(s));
    ureq::Agent::config_builder()
        .timeout_resolve(seconds(5))
        .timeout_connect(seconds(5))
        .timeout_recv_response(seconds(10))
        .timeout_per_read(seconds(15))
        .accept_encoding("identity")
        .user_agent(concat!("gcc-gan/", env!("CARGO_PKG_VERSION")))
        .build()
        .into()
}

/// The host, with its port if there is one, of a mirror's address.
fn host(mirror: &str) -> &str {
    mirror.split('/').nth(2).unwrap_or(mirror)
}

/// What went wrong, for somebody who does not know the HTTP library.
fn explain(error: ureq::Error) -> String {
    match error {
        ureq::Error::StatusCode(code) => format!("the server answered with status {code}"),
        ureq::Error::HostNotFound => format!("the host's address was not found {NO_NETWORK}"),
        ureq::Error::Timeout(_) => "no answer in time".into(),
        ureq::Error::ConnectionFailed => NO_CONNECTION.into(),
        // The standard library's text for a resolver's error, which has no kind of its own.
        ureq::Error::Io(error) if error.to_string().contains("lookup address") => explain(ureq::Error::HostNotFound),
        other => other.to_string(),
    }
}

fn state(file: &KnownFile, dir: &Path) -> FileState {
    state_of(&dir.join(file.name), file.bytes, file.sha256)
}

fn state_of(path: &Path, expected: u64, sha256: &str) -> FileState {
    let opened = atomic::check_ordinary(path).and_then(|()| File::open(path));
    let mut handle = match opened {
        Ok(handle) => handle,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return FileState::Missing,
        Err(error) => return FileState::Damaged(error.to_string()),
    };
    // The size tells most cases without reading.
    let bytes = handle.metadata().map_or(0, |m| m.len());
    let mut hash = Sha256::new();
    if bytes == expected
        && let Err(error) = io::copy(&mut handle, &mut hash)
    {
        return FileState::Damaged(error.to_string());
    }
    difference((expected, sha256), bytes, hash).map_or(FileState::Good, FileState::Damaged)
}

/// How a file of `bytes` bytes and this hash differs from what was expected, if it does.
fn difference((expected, sha256): (u64, &str), bytes: u64, hash: Sha256) -> Option<String> {
    if bytes != expected {
        let found = if bytes > expected { "more".into() } else { bytes.to_string() };
        return Some(format!("{expected} bytes expected, {found} found"));
    }
    let found = format!("{:x}", hash.finalize());
    (found != sha256).then(|| format!("SHA-256 {sha256} expected, {found} found"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    /// "0123456789" and its checksum.
    static FILES: [KnownFile; 1] = [KnownFile {
        name: "ten",
        bytes: 10,
        sha256: "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882",
        plain: (0, ""),
    }];

    /// A server on this machine that answers every request with `response`; returns its address.
    fn server(response: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let request = BufReader::new(stream.try_clone().unwrap()).lines();
                request.map_while(Result::ok).take_while(|line| !line.is_empty()).for_each(drop);
                let _ = stream.write_all(response.as_bytes());
            }
        });
        url
    }

    const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\n0123456789";
    const OTHER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\n012345678X";
    const LONG: &str = "HTTP/1.1 200 OK\r\nContent-Length: 12\r\nConnection: close\r\n\r\n012345678912";
    const CUT: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\n01234";
    const ABSENT: &str = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

    fn run(mirrors: &[&str], dir: &Path) -> Result<u64, DownloadError> {
        let agent: ureq::Agent =
            ureq::Agent::config_builder().proxy(None).timeout_global(Some(Duration::from_secs(5))).build().into();
        let mut last = 0;
        fetch_from(&agent, mirrors, &FILES, dir, &mut |p| last = p.received).map(|()| last)
    }

    #[test]
    fn a_good_file_arrives_and_is_not_fetched_again() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("made/by/fetch");
        assert_eq!(run(&[&server(GOOD)], &cache).unwrap(), 10);
        assert_eq!(fs::read(cache.join("ten")).unwrap(), b"0123456789");
        assert_eq!(run(&[], &cache).unwrap(), 0);
    }

    #[test]
    fn a_damaged_file_is_replaced_and_a_bad_mirror_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ten"), "012345678X").unwrap();
        assert!(matches!(state(&FILES[0], dir.path()), FileState::Damaged(_)));
        for bad in [OTHER, LONG, CUT, ABSENT] {
            fs::write(dir.path().join("ten"), "short").unwrap();
            run(&[&server(bad), &server(GOOD)], dir.path()).unwrap();
            assert_eq!(state(&FILES[0], dir.path()), FileState::Good);
        }
    }

    #[test]
    fn a_failure_says_why_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let reasons = [
            (OTHER, "sent another file: SHA-256 84d8"),
            (LONG, "sent another file: 10 bytes expected, more found"),
            (CUT, ""),
            (ABSENT, "the server answered with status 404"),
        ];
        for (response, reason) in reasons {
            let error = run(&[&server(response)], dir.path()).unwrap_err().to_string();
            assert!(error.starts_with("ten could not be downloaded: 127.0.0.1:"), "{error}");
            assert!(error.contains(reason), "{error}");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        }
        // Nobody listens on port 1.
        let error = run(&["http://127.0.0.1:1/"], dir.path()).unwrap_err().to_string();
        assert!(error.contains("onnection refused"), "{error}");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a file");
        fs::write(&path, "").unwrap();
        let error = run(&[], &path.join("cache")).unwrap_err().to_string();
        assert!(error.contains("a file/cache cannot be written: "), "{error}");
    }

    #[test]
    fn the_tables_are_complete() {
        for set in Known::ALL {
            assert_eq!(Known::by_name(set.name()), Some(set));
            assert!(set.files().iter().all(|file| file.sha256.len() == 64 && file.bytes > 0));
            assert!(set.mirrors().iter().all(|mirror| mirror.ends_with('/')));
        }
    }
}
