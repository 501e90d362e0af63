//! Data sets of small images, grey or RGB: where they come from, and how they lie in memory.
//!
//! [`load`] answers one question, "what shall be trained on?", from the user's `--data` argument or, without one, from
//! what can be found: `$GCC_GAN_DATA`, the cache folder, a download, and at last the digits inside the program. The
//! answer says which it was and why, in a sentence to show to the user.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use thiserror::Error;

pub mod cifar;
pub mod download;
mod elements;
pub mod embedded;
pub mod fit;
pub mod idx;
pub mod npy;
pub mod pictures;
pub(crate) mod planes;

pub use download::{DownloadError, FileState, Known, KnownFile, Progress};
pub use fit::{ImageSize, Wanted};
use idx::{Content, IdxError};
use pictures::PictureError;

/// The environment variable that names a folder of data sets.
pub const ENV: &str = "GCC_GAN_DATA";

/// Images of one size with their labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// Pixels, `len × channels × rows × columns`, row-major; 0 is black.
    pub images: Vec<u8>,
    /// One class an image, where the source has them.
    pub labels: Option<Vec<u8>>,
    /// 1 is grey, 3 are red, green and blue.
    pub channels: usize,
    /// Height of an image.
    pub rows: usize,
    /// Width of an image.
    pub columns: usize,
}

impl Split {
    /// The number of images.
    pub fn len(&self) -> usize {
        self.images.len() / self.pixels()
    }

    /// Whether there are no images; a loaded data set never is empty.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// Bytes of one image: its pixels, those of each channel.
    pub fn pixels(&self) -> usize {
        self.size().bytes()
    }

    /// The size of an image.
    pub fn size(&self) -> ImageSize {
        ImageSize { channels: self.channels, rows: self.rows, columns: self.columns }
    }

    /// Images of each class, up to the highest label.
    pub fn class_counts(&self) -> Option<Vec<usize>> {
        let labels = self.labels.as_ref()?;
        let mut counts = vec![0; labels.iter().max().map_or(0, |&highest| usize::from(highest) + 1)];
        labels.iter().for_each(|&label| counts[usize::from(label)] += 1);
        Some(counts)
    }
}

/// A data set in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// A short name: that of a known set, or the folder's or file's.
    pub name: String,
    /// Where it was found.
    pub source: Source,
    /// What it is, where it is from and why it was chosen, to be shown behind the number of images: "built-in MNIST
    /// digits".
    pub why: String,
    /// The names of the classes, where the source has some.
    pub classes: Option<Vec<String>>,
    /// What was done to the images and what was left out: sentences without a full stop.
    pub notes: Vec<String>,
    /// Why there are no labels, where something that could be changed is the cause.
    pub unlabelled: Option<String>,
    /// The training images.
    pub train: Split,
    /// The test images, of the same size.
    pub test: Option<Split>,
}

impl Dataset {
    /// The largest class label, training and test images taken together.
    pub fn largest_label(&self) -> Option<u8> {
        let splits = [Some(&self.train), self.test.as_ref()];
        splits.into_iter().flatten().filter_map(|s| s.labels.as_ref()?.iter().max().copied()).max()
    }

    /// The `--data` argument that finds the same set again.
    pub fn argument(&self) -> String {
        match &self.source {
            Source::Given(path) => fs::canonicalize(path).unwrap_or_else(|_| path.clone()).display().to_string(),
            Source::Environment(_) | Source::Cache(_) | Source::Downloaded(_) => self.name.clone(),
            Source::Embedded => "embedded".into(),
        }
    }

    /// A number in hex that differs where the training images or labels do.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        hash.update((self.train.rows as u64).to_le_bytes());
        // Not for grey images: older versions, which knew no others, gave these the same number.
        if self.train.channels != 1 {
            hash.update((self.train.channels as u64).to_le_bytes());
        }
        hash.update(&self.train.images);
        hash.update(self.train.labels.as_deref().unwrap_or_default());
        short_hex(&hash.finalize())
    }

    /// Makes the last `count` training images the test set, if there is none yet. Leaves at least one image on either
    /// side, so a set of one image stays as it is.
    pub fn hold_out(&mut self, count: usize) {
        let count = count.min(self.train.len() - 1);
        if self.test.is_none() && count > 0 {
            let kept = self.train.len() - count;
            self.test = Some(Split {
                images: self.train.images.split_off(kept * self.train.pixels()),
                labels: self.train.labels.as_mut().map(|labels| labels.split_off(kept)),
                ..self.train
            });
        }
    }
}

/// Where a data set was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A folder or a file that the user named.
    Given(PathBuf),
    /// A folder under `$GCC_GAN_DATA`.
    Environment(PathBuf),
    /// The cache folder, filled earlier.
    Cache(PathBuf),
    /// The cache folder, filled just now.
    Downloaded(PathBuf),
    /// The digits inside the program.
    Embedded,
}

impl Source {
    /// The folder or file; none has what is inside the program.
    fn path(&self) -> Option<&Path> {
        match self {
            Source::Given(path) | Source::Environment(path) | Source::Cache(path) | Source::Downloaded(path) => {
                Some(path)
            }
            Source::Embedded => None,
        }
    }
}

/// A size, with the colours where another's are different.
fn beside(size: &ImageSize, other: &ImageSize) -> String {
    if size.channels == other.channels { format!("{}×{}", size.rows, size.columns) } else { size.to_string() }
}

/// The first eight bytes of a hash.
fn short_hex(hash: &[u8]) -> String {
    hash[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the user asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// The full MNIST if it can be had, else the embedded digits.
    Auto,
    /// This set and no other.
    Known(Known),
    /// The digits inside the program.
    Embedded,
    /// A folder of pictures or with the usual four files, or one IDX file of images.
    Path(PathBuf),
}

impl Request {
    /// Reads a `--data` argument. The names `auto`, `embedded`, `mnist` and `fashion-mnist` come first; `./mnist` is
    /// how to ask for a folder of that name.
    pub fn parse(argument: &str) -> Request {
        match argument {
            "auto" => Request::Auto,
            "embedded" => Request::Embedded,
            name => Known::by_name(name).map_or_else(|| Request::Path(name.into()), Request::Known),
        }
    }
}

/// Where to look, and whether the network may be used.
#[derive(Debug, Clone, Default)]
pub struct Locations {
    /// The folder that `$GCC_GAN_DATA` names: it holds `mnist/`, `fashion-mnist/`, or MNIST's files themselves.
    pub environment: Option<PathBuf>,
    /// The folder that holds a folder for each downloaded set.
    pub cache: Option<PathBuf>,
    /// Never use the network.
    pub offline: bool,
}

impl Locations {
    /// The user's: `$GCC_GAN_DATA`, and `gcc-gan` in the system's cache folder.
    pub fn of_user() -> Locations {
        Locations {
            environment: std::env::var_os(ENV).filter(|value| !value.is_empty()).map(PathBuf::from),
            cache: dirs::cache_dir().map(|dir| dir.join("gcc-gan")),
            offline: false,
        }
    }

    /// The folder of `set` that the environment names, if it names any.
    ///
    /// # Errors
    /// When what it names does not hold the set.
    pub fn environment_of(&self, set: Known) -> Result<Option<PathBuf>, DataError> {
        let Some(root) = &self.environment else { return Ok(None) };
        let inner = root.join(set.name());
        // Files at the top belong to the set that the folder is named after, or else to MNIST.
        let named = root.file_name().and_then(|name| Known::by_name(name.to_str()?)).unwrap_or(Known::Mnist);
        if find(&inner, STEMS[0]).is_some() {
            Ok(Some(inner))
        } else if named == set && find(root, STEMS[0]).is_some() {
            Ok(Some(root.clone()))
        } else {
            Err(DataError::Environment { dir: root.clone(), set })
        }
    }

    /// The cache folder of `set`.
    pub fn cache_of(&self, set: Known) -> Option<PathBuf> {
        self.cache.as_ref().map(|dir| dir.join(set.name()))
    }
}

/// Why there is no data set.
#[derive(Debug, Error)]
pub enum DataError {
    /// A file is not what it should be.
    #[error(transparent)]
    Idx(#[from] IdxError),
    /// An array is of no use.
    #[error(transparent)]
    Npy(#[from] npy::NpyError),
    /// A file of CIFAR-10 is of no use.
    #[error(transparent)]
    Cifar(#[from] cifar::CifarError),
    /// A folder of pictures is of no use.
    #[error(transparent)]
    Pictures(#[from] PictureError),
    /// A `--data` argument that means nothing.
    #[error("there is no folder or file {path}: give a folder of PNG or JPEG files, a folder with IDX files, NPY arrays or CIFAR-10's binary files, one such file of images, or one of the names auto, mnist, fashion-mnist, embedded", path = .0.display())]
    NotFound(PathBuf),
    /// A picture where a folder of them is wanted.
    #[error("{file} is one picture: give the folder that holds the pictures, as in --data {dir}", file = .file.display(), dir = .dir.display())]
    OnePicture {
        /// The picture.
        file: PathBuf,
        /// Its folder.
        dir: PathBuf,
    },
    /// An archive of files.
    #[error("{file} is a ZIP archive, {}", if *.is_npz { "of NumPy arrays: unpack it, or save each array by numpy.save, images as x_train.npy and labels as y_train.npy, and give their folder" } else { "which must be unpacked: give the folder" }, file = .file.display())]
    Archive {
        /// The archive.
        file: PathBuf,
        /// Whether it is one that numpy.savez wrote, by its name.
        is_npz: bool,
    },
    /// A folder without training images.
    #[error("{dir} holds no PNG or JPEG files, no {} (nor the same with .gz), no x_train.npy and no data_batch_1.bin{}", STEMS[0], contents(.names), dir = .dir.display())]
    NoImages {
        /// The folder.
        dir: PathBuf,
        /// Some of the names in it.
        names: Vec<String>,
    },
    /// The environment variable points at a folder without the set.
    #[error("${ENV} is {dir}, which holds neither a folder {set} nor that set's files: correct it or unset it", dir = .dir.display())]
    Environment {
        /// The folder.
        dir: PathBuf,
        /// The set.
        set: Known,
    },
    /// Images and labels that do not belong together.
    #[error("{images} has {image_count} images, but {labels} has {label_count} labels")]
    Counts {
        /// The images' file.
        images: String,
        /// Images in it.
        image_count: usize,
        /// The labels' file.
        labels: String,
        /// Labels in it.
        label_count: usize,
    },
    /// Test images of another size.
    #[error("{dir}: the training images are {}, but the test images are {}", beside(train, test), beside(test, train), dir = .dir.display())]
    Sizes {
        /// The folder.
        dir: PathBuf,
        /// Of the training images.
        train: ImageSize,
        /// Of the test images.
        test: ImageSize,
    },
    /// A set that is not on this machine, and must not be fetched.
    #[error(
        "{0} is not on this machine, and the network is not to be used: give its folder with --data DIR, or use --data embedded"
    )]
    Offline(Known),
    /// A set that could not be fetched.
    #[error(
        "{set} is not on this machine and could not be fetched. {error}. Give its folder with --data DIR, or use --data embedded"
    )]
    Download {
        /// The set.
        set: Known,
        /// Why not.
        error: DownloadError,
    },
    /// There is no folder to keep downloads in.
    #[error(
        "{0} is not on this machine, and the system names no cache folder to keep it in: set HOME or XDG_CACHE_HOME, or give its folder with --data DIR"
    )]
    NoCache(Known),
    /// A folder that cannot be listed.
    #[error("{dir} cannot be read: {error}", dir = .dir.display())]
    Folder {
        /// The folder.
        dir: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// The four files of a set, without `.gz`: training images and labels, test images and labels.
const STEMS: [&str; 4] =
    ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"];

/// What is wanted of a data set.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fit {
    /// What the images are brought to. Pictures in files need it.
    pub wanted: Option<Wanted>,
    /// Whether a picture that cannot be read is an error, and not skipped.
    pub strict: bool,
}

/// What takes its time while a data set is loaded.
#[derive(Debug, Clone, Copy)]
pub enum Stage {
    /// Something is downloaded.
    Fetch(Progress),
    /// Pictures are decoded.
    Decode {
        /// How many are done.
        done: usize,
        /// How many there are.
        of: usize,
    },
}

/// As [`load_fitted`], with the images as they are. `progress` is called while something is downloaded.
///
/// # Errors
/// Those of [`load_fitted`].
pub fn load(
    request: &Request,
    locations: &Locations,
    progress: &mut dyn FnMut(Progress),
) -> Result<Dataset, DataError> {
    load_fitted(request, locations, Fit::default(), &mut |stage| {
        if let Stage::Fetch(now) = stage {
            progress(now);
        }
    })
}

/// Finds and reads what `request` asks for, and brings the images to what is wanted; `notes` of the data set say how.
/// `stage` is called while something takes its time.
///
/// Only [`Request::Auto`] falls back on the embedded digits, and only where nothing was found: a file that is there but
/// damaged, or an environment variable that leads nowhere, is an error, since the user meant it.
///
/// # Errors
/// Where nothing is found, or something is of no use.
pub fn load_fitted(
    request: &Request,
    locations: &Locations,
    fit: Fit,
    stage: &mut dyn FnMut(Stage),
) -> Result<Dataset, DataError> {
    let mut dataset = match request {
        Request::Path(path) => given(path, locations, fit, stage)?,
        other => named(other, locations, &mut |now| stage(Stage::Fetch(now)))?,
    };
    if let (Some(dir), Some(test)) = (dataset.source.path(), dataset.test.as_ref().map(Split::size))
        && test != dataset.train.size()
    {
        return Err(DataError::Sizes { dir: dir.to_owned(), train: dataset.train.size(), test });
    }
    if let Some(wanted) = fit.wanted {
        fit::fit(&mut dataset, wanted);
    }
    Ok(dataset)
}

/// A data set that has a name.
fn named(request: &Request, locations: &Locations, progress: &mut dyn FnMut(Progress)) -> Result<Dataset, DataError> {
    match request {
        Request::Embedded => Ok(embedded::load()),
        Request::Path(path) => given(path, locations, Fit::default(), &mut |_| {}),
        Request::Known(set) => known(*set, locations, progress),
        Request::Auto => match known(Known::Mnist, locations, progress) {
            Ok(dataset) => Ok(dataset),
            Err(error) => {
                let reason = match error {
                    DataError::Offline(_) => "--offline".into(),
                    DataError::NoCache(_) => "no cache folder".into(),
                    DataError::Download { error, .. } if error.is_without_network() => "no network".into(),
                    DataError::Download { error, .. } => error.to_string(),
                    other => return Err(other),
                };
                let mut dataset = embedded::load();
                dataset.why = format!("{} (full MNIST not found, {reason})", dataset.why);
                Ok(dataset)
            }
        },
    }
}

/// The folder or file that the user named.
fn given(path: &Path, locations: &Locations, fit: Fit, stage: &mut dyn FnMut(Stage)) -> Result<Dataset, DataError> {
    let (name, source) = (path.file_name().unwrap_or(path.as_os_str()), Source::Given(path.to_owned()));
    let name = name.to_string_lossy().into_owned();
    let why = format!("images in {}", path.display());
    if path.is_dir() {
        if is_idx_folder(path) {
            folder(path, name, source, why, fit.wanted)
        } else if let Some(array) = npy::in_folder(path) {
            Ok(npy::load(&array, name, fit.wanted)?)
        } else if let batches @ [_, ..] = &cifar::batches(path)[..] {
            Ok(cifar::load(path, batches, name)?)
        } else if let Some(pictures) = pictures::Folder::open(path)? {
            let of = pictures.files();
            let mut decoded = |done| stage(Stage::Decode { done, of });
            Ok(pictures.load(fit.wanted, fit.strict, locations.cache.as_deref(), &mut decoded)?)
        } else {
            // Which says what is missing.
            folder(path, name, source, why, fit.wanted)
        }
    } else if npy::is_npy(path) {
        Ok(npy::load(path, name, fit.wanted)?)
    } else if cifar::is_batch(path) && path.is_file() {
        Ok(cifar::load(path, &[path.to_owned()], name)?)
    } else if path.exists() {
        other_format(path)?;
        let mut notes = Vec::new();
        let (train, _) = images(path, fit.wanted, &mut notes)?;
        Ok(Dataset { name, source, why, classes: None, notes, unlabelled: None, train, test: None })
    } else {
        Err(DataError::NotFound(path.to_owned()))
    }
}

/// Refuses a file that is no array of images but begins as another format does that data come in.
fn other_format(path: &Path) -> Result<(), DataError> {
    let mut first = Vec::new();
    if crate::atomic::check_ordinary(path).is_ok()
        && let Ok(file) = fs::File::open(path)
    {
        // What cannot be read is told of by what reads it next.
        let _ = io::Read::read_to_end(&mut io::Read::take(file, 12), &mut first);
    }
    let file = path.to_owned();
    match &first[..] {
        [0x89, b'P', b'N', b'G', ..] | [0xff, 0xd8, 0xff, ..] | [b'G', b'I', b'F', b'8', ..] | [b'B', b'M', ..] => (),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P'] => (),
        [b'P', b'K', 3 | 5, 4 | 6, ..] => {
            let is_npz = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("npz"));
            return Err(DataError::Archive { file, is_npz });
        }
        _ => return Ok(()),
    }
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
    Err(DataError::OnePicture { file, dir })
}

/// Whether a folder has training images as MNIST's come.
fn is_idx_folder(dir: &Path) -> bool {
    find(dir, STEMS[0]).is_some()
}

/// Whether a folder has training images in few files, as MNIST's and CIFAR-10's come, or as arrays.
fn holds_sets(dir: &Path) -> bool {
    is_idx_folder(dir) || npy::in_folder(dir).is_some() || !cifar::batches(dir).is_empty()
}

/// A known set: from the environment's folder, the cache or a mirror.
fn known(set: Known, locations: &Locations, progress: &mut dyn FnMut(Progress)) -> Result<Dataset, DataError> {
    if let Some(dir) = locations.environment_of(set)? {
        let why = format!("{} images in {} (from ${ENV})", set.name(), dir.display());
        return folder(&dir, set.name().into(), Source::Environment(dir.clone()), why, None);
    }
    let dir = locations.cache_of(set).ok_or(DataError::NoCache(set))?;
    if download::verify(set, &dir).iter().all(|(_, state)| *state == FileState::Good) {
        let why = format!("{} images in {}", set.name(), dir.display());
        return folder(&dir, set.name().into(), Source::Cache(dir.clone()), why, None);
    }
    if locations.offline {
        return Err(DataError::Offline(set));
    }
    download::fetch(set, &dir, progress).map_err(|error| DataError::Download { set, error })?;
    let why = format!("{} images, fetched into {}", set.name(), dir.display());
    folder(&dir, set.name().into(), Source::Downloaded(dir.clone()), why, None)
}

/// Reads the usual files of `dir`. Training images must be there; labels and test images need not.
fn folder(dir: &Path, name: String, source: Source, why: String, wanted: Option<Wanted>) -> Result<Dataset, DataError> {
    let mut notes = Vec::new();
    let Some(train) = split(dir, [STEMS[0], STEMS[1]], wanted, &mut notes)? else {
        let entries = fs::read_dir(dir).map_err(|error| DataError::Folder { dir: dir.to_owned(), error })?;
        let mut names: Vec<String> =
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        return Err(DataError::NoImages { dir: dir.to_owned(), names });
    };
    let test = split(dir, [STEMS[2], STEMS[3]], wanted, &mut notes)?;
    notes.dedup();
    Ok(Dataset { name, source, why, classes: None, notes, unlabelled: None, train, test })
}

/// Reads images and, where they are there, their labels.
fn split(
    dir: &Path,
    [image_stem, label_stem]: [&str; 2],
    wanted: Option<Wanted>,
    notes: &mut Vec<String>,
) -> Result<Option<Split>, DataError> {
    let Some(path) = find(dir, image_stem) else { return Ok(None) };
    let (mut split, image_count) = images(&path, wanted, notes)?;
    if let Some(label_path) = find(dir, label_stem) {
        let labels = idx::read(&label_path, Content::Labels)?.data;
        if labels.len() != image_count {
            return Err(DataError::Counts {
                images: path.display().to_string(),
                image_count,
                labels: label_path.display().to_string(),
                label_count: labels.len(),
            });
        }
        split.labels = Some(labels);
    }
    Ok(Some(split))
}

/// The images of one file, without labels, and their number.
fn images(path: &Path, wanted: Option<Wanted>, notes: &mut Vec<String>) -> Result<(Split, usize), DataError> {
    let idx = idx::read(path, Content::Images)?;
    let (dims, file) = (idx.dims.clone(), path.display().to_string());
    if let Some(range) = idx.range {
        notes.push(format!("the pixels of {dims:?} are read as {range}"));
    }
    let of_images = planes::channels_first(&idx.dims, idx.data, wanted);
    let (count, size, images) = of_images.ok_or(IdxError { file, problem: idx::Problem::Channels { dims } })?;
    Ok((Split { images, labels: None, channels: size.channels, rows: size.rows, columns: size.columns }, count))
}

/// The file of that name in `dir`, plain (faster to read) or compressed.
fn find(dir: &Path, stem: &str) -> Option<PathBuf> {
    [dir.join(stem), dir.join(format!("{stem}.gz"))].into_iter().find(|path| path.is_file())
}

/// The names in a folder, for an error message.
fn contents(names: &[String]) -> String {
    match names {
        [] => "; it is empty".into(),
        few if few.len() <= 6 => format!("; it holds {}", few.join(", ")),
        many => format!("; it holds {} and {} more", many[..6].join(", "), many.len() - 6),
    }
}

#[cfg(test)]
mod tests;
