//! NVRTC, NVIDIA's compiler of CUDA C++ as a library: finding one, and compiling with it. It needs no GPU and no driver.

use super::ptx;
use crate::kernel::target::Architecture;
use libloading::Library;
use std::error::Error as _;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Names the library, or the folder that it is in.
pub const ENV: &str = "GCC_GAN_NVRTC";

/// Why there is no compiler.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NvrtcMissing {
    #[error(
        "NVRTC, which compiles CUDA kernels, is not installed: `pip install nvidia-cuda-nvrtc-cu12==12.8.*`, or set \
         ${ENV} to the folder that holds libnvrtc.so"
    )]
    NotFound,
    #[error(
        "${ENV} is `{path}`, and there is no libnvrtc.so.* there: set it to the folder that holds one, or unset it and \
         `pip install nvidia-cuda-nvrtc-cu12==12.8.*`"
    )]
    NotThere { path: String },
    #[error("NVRTC at `{path}` can't be loaded: {problem}")]
    NotLoaded { path: String, problem: String },
}

/// What a kernel's text was compiled to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Code {
    /// For exactly the architecture that was asked for; empty where the compiler doesn't know it.
    pub cubin: Vec<u8>,
    /// Text that drivers compile for the GPU that they have, of the oldest version that has all that it uses. It ends with a
    /// zero byte.
    pub ptx: Vec<u8>,
}

type Program = *mut c_void;
type Status = c_int;

/// The compiler's functions.
struct Functions {
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> Status,
    destroy: unsafe extern "C" fn(*mut Program) -> Status,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> Status,
    error: unsafe extern "C" fn(Status) -> *const c_char,
    log: Text,
    ptx: Text,
    cubin: Text,
}

/// Two functions: the size of something that came of a program, and the thing.
struct Text {
    size: unsafe extern "C" fn(Program, *mut usize) -> Status,
    get: unsafe extern "C" fn(Program, *mut c_char) -> Status,
}

/// A compiler that was found and loaded.
pub struct Nvrtc {
    /// Where it was found: a file, or a name that the system's loader knows.
    pub path: PathBuf,
    /// 12.8 is (12, 8).
    pub version: (u32, u32),
    /// In ascending order.
    architectures: Vec<Architecture>,
    functions: Functions,
    /// What the functions are in.
    _libraries: Vec<Library>,
}

/// The machine's compiler, found once: by `$GCC_GAN_NVRTC`, on the loader's path, in a CUDA toolkit's folder, or in that of
/// a Python package.
///
/// # Errors
/// When there is none.
pub fn find() -> Result<&'static Nvrtc, NvrtcMissing> {
    static FOUND: OnceLock<Result<Nvrtc, NvrtcMissing>> = OnceLock::new();
    FOUND.get_or_init(search).as_ref().map_err(Clone::clone)
}

fn search() -> Result<Nvrtc, NvrtcMissing> {
    // An empty value is none, as of other programs' variables.
    if let Some(path) = std::env::var_os(ENV).filter(|value| !value.is_empty()).map(PathBuf::from) {
        let file = if path.is_dir() { library_in(&path) } else { path.is_file().then(|| path.clone()) };
        return load(&file.ok_or_else(|| NvrtcMissing::NotThere { path: path.display().to_string() })?);
    }
    // Code of version 12 runs with the drivers of 12 and of 13.
    let known = ["libnvrtc.so.12", "libnvrtc.so.13", "libnvrtc.so"].map(PathBuf::from);
    let toolkits = toolkits().map(|root| root.join("lib64"));
    let found = toolkits.chain(package_folders(&python_prefixes())).filter_map(|folder| library_in(&folder));
    let mut problem = None;
    for path in known.into_iter().chain(found) {
        match load(&path) {
            Ok(nvrtc) => return Ok(nvrtc),
            // A name that the loader doesn't find is no problem, a file that can't be loaded is.
            Err(error) if path.is_absolute() => problem = problem.or(Some(error)),
            Err(_) => {}
        }
    }
    Err(problem.unwrap_or(NvrtcMissing::NotFound))
}

/// Where Python's packages may be installed: the active environment, that of the first `python3` on the path, and the user's.
fn python_prefixes() -> Vec<PathBuf> {
    let active = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let python = std::env::split_paths(&path).map(|folder| folder.join("python3")).find(|file| file.is_file());
    // In an environment `python3` is a link to that of another prefix.
    let python = python.into_iter().flat_map(|file| [Some(file.clone()), fs::canonicalize(&file).ok()]).flatten();
    let prefix = |file: PathBuf| file.parent().and_then(Path::parent).map(Path::to_path_buf);
    let user = dirs::home_dir().map(|home| home.join(".local"));
    let mut prefixes: Vec<PathBuf> = Vec::new();
    for found in active.chain(python.filter_map(prefix)).chain(user) {
        if !prefixes.contains(&found) {
            prefixes.push(found);
        }
    }
    prefixes
}

/// The folders in which Python packages of these prefixes keep NVRTC.
fn package_folders(prefixes: &[PathBuf]) -> Vec<PathBuf> {
    nvidia_folders(prefixes, &["cuda_nvrtc/lib", "cu12/lib", "cu13/lib"])
}

/// Those of these folders that NVIDIA's Python packages have in a prefix.
fn nvidia_folders(prefixes: &[PathBuf], folders: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for prefix in prefixes {
        for python in names_in(&prefix.join("lib"), "python3") {
            for packages in ["site-packages", "dist-packages"] {
                let nvidia = python.join(packages).join("nvidia");
                found.extend(folders.iter().map(|folder| nvidia.join(folder)));
            }
        }
    }
    found.retain(|folder| folder.is_dir());
    found
}

/// One of NVIDIA's programs: on the path, in a CUDA toolkit's folder, or in that of a Python package, which is in `folders` of
/// its own.
pub fn find_program(name: &str, folders: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).collect::<Vec<_>>();
    let toolkits = toolkits().map(|root| root.join("bin"));
    let packages = nvidia_folders(&python_prefixes(), folders);
    on_path.into_iter().chain(toolkits).chain(packages).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// The folders of CUDA toolkits.
fn toolkits() -> impl Iterator<Item = PathBuf> {
    let named = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
    named.chain([PathBuf::from("/usr/local/cuda")])
}

/// What in a folder has a name that starts so, the last name first.
fn names_in(folder: &Path, start: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let fits = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start));
    let mut found: Vec<PathBuf> = entries.filter(fits).collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    found
}

fn library_in(folder: &Path) -> Option<PathBuf> {
    names_in(folder, "libnvrtc.so").into_iter().find(|path| path.is_file())
}

fn load(path: &Path) -> Result<Nvrtc, NvrtcMissing> {
    let not_loaded = |problem: String| NvrtcMissing::NotLoaded { path: path.display().to_string(), problem };
    // What the system's loader says is the reason of the error.
    let failed =
        |error: &libloading::Error| not_loaded(error.source().map_or_else(|| error.to_string(), ToString::to_string));
    let mut libraries = Vec::new();
    // The compiler opens this one by its name, which the system's loader then knows.
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        for file in names_in(folder, "libnvrtc-builtins.so") {
            // SAFETY: NVIDIA's library beside its compiler, of which the user said or installed where it is.
            libraries.extend(unsafe { Library::new(file) });
        }
    }
    // SAFETY: as above.
    let library = unsafe { Library::new(path) }.map_err(|error| failed(&error))?;
    macro_rules! function {
        ($name:literal) => {
            // SAFETY: the types are those of NVIDIA's header `nvrtc.h`, unchanged since version 11.1.
            *unsafe { library.get($name) }.map_err(|error| failed(&error))?
        };
    }
    let functions = Functions {
        create: function!(b"nvrtcCreateProgram\0"),
        destroy: function!(b"nvrtcDestroyProgram\0"),
        compile: function!(b"nvrtcCompileProgram\0"),
        error: function!(b"nvrtcGetErrorString\0"),
        log: Text { size: function!(b"nvrtcGetProgramLogSize\0"), get: function!(b"nvrtcGetProgramLog\0") },
        ptx: Text { size: function!(b"nvrtcGetPTXSize\0"), get: function!(b"nvrtcGetPTX\0") },
        cubin: Text { size: function!(b"nvrtcGetCUBINSize\0"), get: function!(b"nvrtcGetCUBIN\0") },
    };
    let version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> Status = function!(b"nvrtcVersion\0");
    let count: unsafe extern "C" fn(*mut c_int) -> Status = function!(b"nvrtcGetNumSupportedArchs\0");
    let supported: unsafe extern "C" fn(*mut c_int) -> Status = function!(b"nvrtcGetSupportedArchs\0");
    let (mut major, mut minor, mut known) = (0, 0, 0);
    let mut architectures: Vec<c_int> = Vec::new();
    // SAFETY: places for numbers, and for as many as the compiler has just said.
    let statuses = unsafe {
        let versioned = version(&mut major, &mut minor);
        let counted = count(&mut known);
        architectures.resize(usize::try_from(known).unwrap_or(0), 0);
        [versioned, counted, supported(architectures.as_mut_ptr())]
    };
    if let Some(status) = statuses.into_iter().find(|&status| status != 0) {
        return Err(not_loaded(format!("it gives error {status}")));
    }
    let mut architectures: Vec<Architecture> = architectures.into_iter().map(|a| Architecture(a as u32)).collect();
    architectures.sort_unstable();
    libraries.push(library);
    let version = (major as u32, minor as u32);
    Ok(Nvrtc { path: path.to_path_buf(), version, architectures, functions, _libraries: libraries })
}

impl std::fmt::Debug for Nvrtc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (major, minor) = self.version;
        write!(f, "NVRTC {major}.{minor} ({})", self.path.display())
    }
}

/// The value of `--gpu-architecture` for a device: itself with all that it alone has, or the nearest older virtual one.
fn architecture_option(device: Architecture, known: &[Architecture]) -> Option<String> {
    if known.contains(&device) {
        return Some(exact_option(device));
    }
    let below = known.iter().rev().find(|&&a| a < device)?;
    Some(format!("compute_{}", below.0))
}

fn exact_option(device: Architecture) -> String {
    format!("{device}{}", if device.has_own() { "a" } else { "" })
}

fn with_architecture(architecture: &str) -> Vec<String> {
    // Products and sums are rounded one by one, as on the CPU; where they are to be one operation, the text says fmaf.
    vec![format!("--gpu-architecture={architecture}"), "--std=c++17".into(), "--fmad=false".into()]
}

/// The options with which a text is compiled to a cubin for exactly an architecture.
pub fn exact_options(architecture: Architecture) -> Vec<String> {
    with_architecture(&exact_option(architecture))
}

/// The options with which a text is compiled to PTX that this architecture and all newer ones take.
pub fn portable_options(architecture: Architecture) -> Vec<String> {
    match architecture.has_own() {
        // The PTX that comes with the cubin is that.
        false => exact_options(architecture),
        true => with_architecture(&format!("compute_{}", architecture.0)),
    }
}

impl Nvrtc {
    /// Whether it compiles to cubins of an architecture.
    pub fn knows(&self, architecture: Architecture) -> bool {
        self.architectures.contains(&architecture)
    }

    /// The architectures that it compiles for, oldest first.
    pub fn architectures(&self) -> &[Architecture] {
        &self.architectures
    }

    /// The options with which a text is compiled for a device; `None` where the compiler has nothing so old.
    pub fn options(&self, device: Architecture) -> Option<Vec<String>> {
        architecture_option(device, &self.architectures).map(|architecture| with_architecture(&architecture))
    }

    /// Compiles a text.
    ///
    /// # Errors
    /// The compiler's log.
    pub fn compile(&self, name: &str, text: &str, options: &[String]) -> Result<Code, String> {
        let source = CString::new(text).map_err(|_| "the text has a zero byte in it".to_string())?;
        let name = CString::new(name).unwrap_or_default();
        let options: Vec<CString> = options.iter().map(|o| CString::new(o.as_str()).unwrap_or_default()).collect();
        let options: Vec<*const c_char> = options.iter().map(|o| o.as_ptr()).collect();
        let mut program = Made { raw: std::ptr::null_mut(), nvrtc: self };
        let none = std::ptr::null();
        // SAFETY: strings that end with zeros and live as long as the program, and no headers.
        self.check(unsafe {
            (self.functions.create)(&mut program.raw, source.as_ptr(), name.as_ptr(), 0, none, none)
        })?;
        // SAFETY: the program lives; as many strings as told.
        let compiled =
            self.check(unsafe { (self.functions.compile)(program.raw, options.len() as c_int, options.as_ptr()) });
        compiled.map_err(|status| {
            let log = program.get(&self.functions.log).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            format!("{status}: {}", log.trim_end_matches('\0').trim())
        })?;
        let (cubin, ptx) = (program.get(&self.functions.cubin)?, program.get(&self.functions.ptx)?);
        Ok(Code { cubin, ptx: ptx::lowered(ptx) })
    }

    fn check(&self, status: Status) -> Result<(), String> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: gives a string of the library's own for any number.
        let text = unsafe { (self.functions.error)(status) };
        if text.is_null() {
            return Err(format!("NVRTC gives error {status}"));
        }
        // SAFETY: the string ends with a zero.
        Err(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
    }
}

/// A program of the compiler's.
struct Made<'n> {
    raw: Program,
    nvrtc: &'n Nvrtc,
}

impl Made<'_> {
    fn get(&self, text: &Text) -> Result<Vec<u8>, String> {
        let mut size = 0;
        // SAFETY: the program lives, and a place for a number.
        self.nvrtc.check(unsafe { (text.size)(self.raw, &mut size) })?;
        let mut bytes = vec![0u8; size];
        if size > 0 {
            // SAFETY: as many bytes as the compiler has just said.
            self.nvrtc.check(unsafe { (text.get)(self.raw, bytes.as_mut_ptr().cast()) })?;
        }
        Ok(bytes)
    }
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        if !self.raw.is_null() {
            // SAFETY: made by the compiler, and given back once.
            unsafe { (self.nvrtc.functions.destroy)(&mut self.raw) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_found_in_every_prefix_and_the_builtins_are_not_taken_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let prefix = folder.path().to_path_buf();
        let lib = prefix.join("lib/python3.12/site-packages/nvidia/cuda_nvrtc/lib");
        fs::create_dir_all(&lib).unwrap();
        for name in ["libnvrtc-builtins.so.12.8", "libnvrtc.alt.so.12", "__init__.py"] {
            fs::write(lib.join(name), "").unwrap();
        }
        assert_eq!(package_folders(&[prefix.join("none"), prefix.clone()]), std::slice::from_ref(&lib));
        assert_eq!(library_in(&lib), None);
        fs::write(lib.join("libnvrtc.so.12"), "").unwrap();
        assert_eq!(library_in(&lib), Some(lib.join("libnvrtc.so.12")));
        let error = load(&lib.join("libnvrtc.so.12")).unwrap_err();
        assert!(matches!(&error, NvrtcMissing::NotLoaded { path, .. } if path.ends_with("libnvrtc.so.12")), "{error}");
        assert!(error.to_string().contains("file too short"), "{error}");
    }

    #[test]
    fn what_to_install_is_said_in_one_sentence() {
        let text = NvrtcMissing::NotFound.to_string();
        assert!(text.contains("pip install nvidia-cuda-nvrtc-cu12==12.8.*") && text.contains(ENV), "{text}");
    }

    #[test]
    fn a_device_is_compiled_for_by_its_own_architecture_or_the_nearest_older_one() {
        let known = [75, 80, 90, 120].map(Architecture);
        let option = |device| architecture_option(Architecture(device), &known);
        assert_eq!(option(80).as_deref(), Some("sm_80"));
        assert_eq!(option(90).as_deref(), Some("sm_90a"));
        assert_eq!(option(89).as_deref(), Some("compute_80"));
        assert_eq!(option(130).as_deref(), Some("compute_120"));
        assert_eq!(option(70), None);
    }

    /// Where there is a compiler.
    #[test]
    fn a_text_is_compiled_and_a_wrong_one_gives_the_log() {
        let Ok(nvrtc) = find() else {
            eprintln!("skipped: no NVRTC");
            return;
        };
        let options = nvrtc.options(Architecture(80)).unwrap();
        let text = "extern \"C\" __global__ void k(unsigned char* arena) { arena[threadIdx.x] = 1; }";
        let code = nvrtc.compile("k.cu", text, &options).unwrap();
        assert!(code.cubin.starts_with(b"\x7fELF"));
        assert!(code.ptx.ends_with(b"\0") && String::from_utf8_lossy(&code.ptx).contains(".entry k"));
        let log = nvrtc.compile("k.cu", "int x = y;", &options).unwrap_err();
        assert!(log.contains("k.cu(1)") && log.contains('y'), "{log}");
    }
}
