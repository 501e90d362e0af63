//! Folders of PNG and JPEG files as data sets.
//!
//! All pictures are decoded before the training begins, in all threads, resized and centre-cropped to what the program
//! takes, and kept as bytes: a step never waits for a file. What was decoded is kept in the cache folder too. A file that is
//! of no use is skipped and told of, or refused.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use fast_image_resize::Resizer;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::fit::{ImageSize, Wanted, each, room};
use super::{Dataset, Source, Split, short_hex};
use crate::train::thousands;

mod cache;
mod decode;
mod scan;

use decode::Failure;
use scan::{Part, Scan};

/// Names of files that are listed in a message.
const LISTED: usize = 5;

/// Why a folder of pictures is of no use.
#[derive(Debug, Error)]
pub enum PictureError {
    /// More classes than labels have values.
    #[error("{dir} has {count} sub-folders, which are its classes: at most 256 are supported", dir = .dir.display())]
    TooManyClasses {
        /// The folder.
        dir: PathBuf,
        /// Its classes.
        count: usize,
    },
    /// A test class that is not trained on.
    #[error("{dir} has test pictures in a folder {class}, and no training pictures in a folder of that name", dir = .dir.display())]
    UnknownClass {
        /// The folder.
        dir: PathBuf,
        /// The class's folder.
        class: String,
    },
    /// Files of no use where none is allowed.
    #[error("{dir}: {skipped}; without --strict they are skipped", dir = .dir.display())]
    Strict {
        /// The folder.
        dir: PathBuf,
        /// What would have been skipped.
        skipped: Skipped,
    },
    /// Nothing is left.
    #[error("{dir} has no picture that can be used: {skipped}", dir = .dir.display())]
    NoneLeft {
        /// The folder.
        dir: PathBuf,
        /// What is wrong with its files.
        skipped: Skipped,
    },
    /// The program does not say of what size images are.
    #[error("{dir} holds pictures, which are fitted to what a program takes, and this one takes {}", wanted(.taken), dir = .dir.display())]
    NoSize {
        /// The folder.
        dir: PathBuf,
        /// What the program takes.
        taken: Option<Wanted>,
    },
    /// More than there is memory for.
    #[error("{count} images of {size} do not fit into memory", count = thousands(*.count))]
    Memory {
        /// How many.
        count: usize,
        /// Of what size.
        size: ImageSize,
    },
}

fn wanted(taken: &Option<Wanted>) -> String {
    taken.map_or("no images".into(), |taken| format!("{taken}, neither grey nor RGB"))
}

/// Files that were skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Each file that was skipped, within the folder, and why.
    pub files: Vec<(String, String)>,
    /// Files that there are, with those.
    pub of: usize,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = thousands(self.files.len());
        write!(f, "{count} of {} files cannot be used: ", thousands(self.of))?;
        let listed: Vec<String> = self.files.iter().take(LISTED).map(|(file, why)| format!("{file} ({why})")).collect();
        f.write_str(&listed.join(", "))?;
        match self.files.len().saturating_sub(LISTED) {
            0 => Ok(()),
            more => write!(f, " and {} more", thousands(more)),
        }
    }
}

/// What pictures were like before they were fitted.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The least width and the least height, in pixels.
    pub smallest: [usize; 2],
    /// The greatest width and the greatest height.
    pub largest: [usize; 2],
    /// How many are grey, not RGB.
    pub grey: usize,
    /// How many had something transparent.
    pub transparent: usize,
    /// How many are smaller than what is wanted.
    pub smaller: usize,
}

impl Summary {
    fn add(&mut self, own: ImageSize, is_transparent: bool, wanted: Option<ImageSize>) {
        let sides = [own.columns, own.rows];
        if self.largest == [0, 0] {
            self.smallest = sides;
        }
        for (i, side) in sides.into_iter().enumerate() {
            self.smallest[i] = self.smallest[i].min(side);
            self.largest[i] = self.largest[i].max(side);
        }
        self.grey += usize::from(own.channels == 1);
        self.transparent += usize::from(is_transparent);
        self.smaller += usize::from(wanted.is_some_and(|w| own.rows < w.rows || own.columns < w.columns));
    }

    /// "64×64 pixels", or from the smallest to the largest; the width comes first.
    pub fn sizes(&self) -> String {
        let [[a, b], [c, d]] = [self.smallest, self.largest];
        if (a, b) == (c, d) { format!("{a}×{b} pixels") } else { format!("{a}×{b} to {c}×{d} pixels") }
    }
}

/// The pictures of a list of files.
#[derive(Debug, Default, PartialEq, Eq)]
struct Decoded {
    /// Those that could be used, one after the other.
    images: Vec<u8>,
    /// The numbers of the others, ascending, and what is wrong with them.
    failures: Vec<(usize, String)>,
    summary: Summary,
}

/// A folder of pictures, looked through but not decoded.
#[derive(Debug)]
pub struct Folder {
    dir: PathBuf,
    scan: Scan,
}

/// What [`Folder::survey`] finds.
#[derive(Debug)]
pub struct Survey {
    /// Training pictures that can be used.
    pub train: usize,
    /// Test pictures that can be used.
    pub test: usize,
    /// The classes, with their training pictures that can be used.
    pub classes: Option<Vec<(String, usize)>>,
    /// What the pictures are like.
    pub summary: Summary,
    /// Files that cannot be used, if any.
    pub skipped: Option<Skipped>,
    /// What else is to be told.
    pub notes: Vec<String>,
}

impl Folder {
    /// Looks through what the user named; `None` where that is no folder, or one of another kind of data set.
    ///
    /// # Errors
    /// Those of [`Folder::open`].
    pub fn at(path: &Path) -> Result<Option<Folder>, PictureError> {
        if path.is_dir() && !super::holds_sets(path) { Folder::open(path) } else { Ok(None) }
    }

    /// Looks through a folder; `None` where it has no pictures.
    ///
    /// # Errors
    /// When its classes are too many, or those for testing are others.
    pub fn open(dir: &Path) -> Result<Option<Folder>, PictureError> {
        Ok(scan::scan(dir)?.map(|scan| Folder { dir: dir.to_owned(), scan }))
    }

    /// Files that are named as pictures.
    pub fn files(&self) -> usize {
        self.paths().count()
    }

    fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.scan.train.files.iter().chain(self.scan.test.iter().flat_map(|part| &part.files))
    }

    /// The path of a file within the folder.
    fn inside(&self, path: &Path) -> String {
        path.strip_prefix(&self.dir).unwrap_or(path).display().to_string()
    }

    /// Decodes all pictures and keeps none. `decoded` is told how many are done.
    pub fn survey(self, decoded: &mut dyn FnMut(usize)) -> Survey {
        let paths: Vec<&PathBuf> = self.paths().collect();
        let (found, _) = decode_all(&paths, None, &mut [], decoded);
        let skipped = self.skipped(&found);
        let Scan { mut train, test, classes, notes, unlabelled: _ } = self.scan;
        let of_train = train.files.len();
        let test = test.map(|part| part.files.len() - found.failures.iter().filter(|(i, _)| *i >= of_train).count());
        train.drop_failed(&found.failures, 0);
        let classes = classes.map(|names| {
            let count = |i: usize| train.labels.iter().flatten().filter(|&&label| usize::from(label) == i).count();
            names.into_iter().enumerate().map(|(i, name)| (name, count(i))).collect()
        });
        let (train, test) = (train.files.len(), test.unwrap_or(0));
        Survey { train, test, classes, summary: found.summary, skipped, notes }
    }

    fn skipped(&self, decoded: &Decoded) -> Option<Skipped> {
        let paths: Vec<&PathBuf> = self.paths().collect();
        let name = |(i, why): &(usize, String)| (self.inside(paths[*i]), why.clone());
        let files: Vec<_> = decoded.failures.iter().map(name).collect();
        (!files.is_empty()).then_some(Skipped { files, of: paths.len() })
    }

    /// The pictures as a data set of images as `taken`: from the cache, where `cache` names its folder and it has them, or
    /// decoded and put there. `decoded` is told how many are done.
    ///
    /// # Errors
    /// When no picture can be used, or one cannot and all must be (`strict`), or a program does not say what it takes.
    pub fn load(
        self,
        taken: Option<Wanted>,
        strict: bool,
        cache: Option<&Path>,
        decoded: &mut dyn FnMut(usize),
    ) -> Result<Dataset, PictureError> {
        let no_size = || PictureError::NoSize { dir: self.dir.clone(), taken };
        let size = taken.and_then(|taken| taken.size(None)).filter(|s| matches!(s.channels, 1 | 3) && s.bytes() > 0);
        let size = size.ok_or_else(no_size)?;
        let found = self.decoded(size, cache, decoded)?;
        let skipped = self.skipped(&found);
        let of_train = self.scan.train.files.len();
        if found.failures.iter().filter(|(i, _)| *i < of_train).count() == of_train {
            let skipped = skipped.unwrap_or(Skipped { files: Vec::new(), of: of_train });
            return Err(PictureError::NoneLeft { dir: self.dir, skipped });
        }
        if let (true, Some(skipped)) = (strict, &skipped) {
            return Err(PictureError::Strict { dir: self.dir, skipped: skipped.clone() });
        }
        let Folder { dir, scan: Scan { mut train, mut test, classes, mut notes, unlabelled } } = self;
        train.drop_failed(&found.failures, 0);
        test.iter_mut().for_each(|test| test.drop_failed(&found.failures, of_train));
        notes.insert(0, found.summary.fitted(size, found.images.len() / size.bytes()));
        notes.extend(skipped.map(|skipped| format!("skipped: {skipped}; --strict refuses such files")));
        let mut images = found.images;
        let of_test = images.split_off(train.files.len() * size.bytes());
        let split = |images: Vec<u8>, labels: Option<Vec<u8>>| Split {
            images,
            labels,
            channels: size.channels,
            rows: size.rows,
            columns: size.columns,
        };
        let in_classes = match classes.as_deref() {
            Some([_]) => " in 1 class".into(),
            Some(names) => format!(" in {} classes", names.len()),
            None => String::new(),
        };
        let name = dir.file_name().unwrap_or(dir.as_os_str()).to_string_lossy().into_owned();
        Ok(Dataset {
            name,
            why: format!("pictures{in_classes} in {}", dir.display()),
            source: Source::Given(dir),
            classes,
            notes,
            unlabelled,
            train: split(images, train.labels),
            test: test.filter(|test| !test.files.is_empty()).map(|test| split(of_test, test.labels)),
        })
    }

    fn decoded(
        &self,
        size: ImageSize,
        cache: Option<&Path>,
        tick: &mut dyn FnMut(usize),
    ) -> Result<Decoded, PictureError> {
        let paths: Vec<&PathBuf> = self.paths().collect();
        let key = self.key(&paths, size);
        let cache = cache.map(|folder| folder.join("pictures").join(self.cache_name(size)));
        if let Some(Ok(file)) = cache.as_ref().map(File::open)
            && let Some(found) = cache::read(std::io::BufReader::new(file), &key, paths.len(), size)
        {
            return Ok(found);
        }
        let mut images = room(paths.len(), size).ok_or(PictureError::Memory { count: paths.len(), size })?;
        let (mut found, is_lasting) = decode_all(&paths, Some(size), &mut images, tick);
        close_gaps(&mut images, size.bytes(), &found.failures);
        found.images = images;
        // What could not be read may be readable next time, though its name, size and time stay.
        if let (true, Some(path)) = (is_lasting, cache)
            && let Err(error) = cache::write(&path, &key, size, &found)
        {
            tracing::debug!("{}: {error}", path.display());
        }
        Ok(found)
    }

    /// Differs where the folder or the size is another.
    fn cache_name(&self, size: ImageSize) -> String {
        let dir = fs::canonicalize(&self.dir).unwrap_or_else(|_| self.dir.clone());
        let hash = short_hex(&Sha256::digest(dir.as_os_str().as_encoded_bytes()));
        format!("{hash}-{}x{}x{}", size.channels, size.rows, size.columns)
    }

    /// Differs where a file's name, size or time does, or the size of the images.
    fn key(&self, paths: &[&PathBuf], size: ImageSize) -> cache::Key {
        let mut hash = Sha256::new();
        let number = |hash: &mut Sha256, number: u128| hash.update(number.to_le_bytes());
        [size.channels, size.rows, size.columns].iter().for_each(|&n| number(&mut hash, n as u128));
        for path in paths {
            let name = path.strip_prefix(&self.dir).unwrap_or(path).as_os_str().as_encoded_bytes();
            number(&mut hash, name.len() as u128);
            hash.update(name);
            let there = fs::metadata(path).ok();
            number(&mut hash, there.as_ref().map_or(u128::MAX, |there| there.len().into()));
            let time = there.and_then(|there| there.modified().ok());
            let since = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            number(&mut hash, since.map_or(u128::MAX, |since| since.as_nanos()));
        }
        hash.finalize().into()
    }
}

impl Part {
    /// Leaves out the files that failed. Their numbers count from `first`, this part's first file.
    fn drop_failed(&mut self, failures: &[(usize, String)], first: usize) {
        let failed = |i: usize| failures.binary_search_by_key(&(first + i), |(number, _)| *number).is_ok();
        let mut i = 0..;
        self.files.retain(|_| !failed(i.next().unwrap_or(0)));
        let mut i = 0..;
        self.labels.iter_mut().for_each(|labels| labels.retain(|_| !failed(i.next().unwrap_or(0))));
    }
}

impl Summary {
    /// What was done to `count` pictures.
    fn fitted(&self, size: ImageSize, count: usize) -> String {
        let mut text = format!("the pictures, {}, are ", self.sizes());
        let same = [self.smallest, self.largest] == [[size.columns, size.rows]; 2];
        text += &if same { format!("taken as {size}") } else { format!("resized and centre-cropped to {size}") };
        let mut more = Vec::new();
        if self.smaller > 0 {
            more.push(format!("{} smaller ones enlarged", thousands(self.smaller)));
        }
        match (size.channels, self.grey) {
            (1, grey) if grey < count => more.push(format!("{} made grey", thousands(count - grey))),
            (3, grey) if grey > 0 => more.push(format!("{} grey ones made RGB", thousands(grey))),
            _ => {}
        }
        if self.transparent > 0 {
            more.push(format!("{} transparent ones put on white", thousands(self.transparent)));
        }
        if !more.is_empty() {
            text += &format!(" ({})", more.join(", "));
        }
        text
    }
}

/// Decodes files in all threads, each into its place of `out` if a size is wanted. Whether the result will be the same next
/// time is the second of what it gives.
fn decode_all(
    paths: &[&PathBuf],
    wanted: Option<ImageSize>,
    out: &mut [u8],
    tick: &mut dyn FnMut(usize),
) -> (Decoded, bool) {
    let result = Mutex::new((Decoded::default(), true));
    let mut unused = Vec::new();
    let (out, bytes) = match wanted {
        Some(size) => (out, size.bytes()),
        None => {
            unused.resize(paths.len(), 0);
            (&mut unused[..], 1)
        }
    };
    each(paths.len(), out, bytes, tick, || {
        let mut resizer = Resizer::new();
        let result = &result;
        move |i, slot: &mut [u8]| {
            let done = decode::read(paths[i]).and_then(|decode::Picture { pixels, is_transparent }| {
                let own = pixels.size;
                if let Some(size) = wanted {
                    pixels.fit(&mut resizer, size, slot).map_err(Failure::Content)?;
                }
                Ok((own, is_transparent))
            });
            let mut result = result.lock().unwrap_or_else(PoisonError::into_inner);
            match done {
                Ok((own, is_transparent)) => result.0.summary.add(own, is_transparent, wanted),
                Err(failure) => {
                    result.1 &= matches!(failure, Failure::Content(_));
                    result.0.failures.push((i, failure.to_string()));
                }
            }
        }
    });
    let (mut decoded, is_lasting) = result.into_inner().unwrap_or_else(PoisonError::into_inner);
    decoded.failures.sort();
    (decoded, is_lasting)
}

/// Moves the images together over the places of those that failed.
fn close_gaps(images: &mut Vec<u8>, bytes: usize, failures: &[(usize, String)]) {
    let mut kept = 0;
    for i in 0..images.len() / bytes {
        if failures.binary_search_by_key(&i, |(number, _)| *number).is_err() {
            images.copy_within(i * bytes..(i + 1) * bytes, kept * bytes);
            kept += 1;
        }
    }
    images.truncate(kept * bytes);
}

#[cfg(test)]
mod tests;
