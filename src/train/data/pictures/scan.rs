//! Which files of a folder are pictures, and what its sub-folders mean.
//!
//! Sub-folders are classes, sorted by name. `train` with `test` (or `val`, `valid`, `validation`) beside it are the splits,
//! and classes are in them. The order of everything is that of the names, so it is the same on every machine.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::{LISTED, PictureError};

/// How deep folders are looked into.
const MOST_DEEP: usize = 16;

/// The endings of pictures' names, in small letters.
const ENDINGS: [&str; 5] = ["png", "jpg", "jpeg", "jpe", "jfif"];

/// What a folder has.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scan {
    pub train: Part,
    pub test: Option<Part>,
    /// The names of the classes, where sub-folders are classes.
    pub classes: Option<Vec<String>>,
    /// What is to be told, as sentences without a full stop.
    pub notes: Vec<String>,
    /// Why sub-folders are not taken for classes, where there are some.
    pub unlabelled: Option<String>,
}

/// The files of one split.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    pub files: Vec<PathBuf>,
    /// One class for each file.
    pub labels: Option<Vec<u8>>,
}

/// What lies in one folder, sub-folders of sub-folders taken together.
struct Tree {
    beside: Vec<PathBuf>,
    folders: BTreeMap<OsString, Vec<PathBuf>>,
}

/// Files that were seen and not taken.
#[derive(Default)]
struct Others {
    count: usize,
    example: Option<String>,
    unreadable: Vec<String>,
}

/// Looks through `root`. `None` where there is no picture anywhere in it.
pub(super) fn scan(root: &Path) -> Result<Option<Scan>, PictureError> {
    let mut others = Others::default();
    let tree = tree_of(root, &mut others);
    let mut notes = Vec::new();
    let (train, test) = match splits(&tree) {
        Some((train, test)) => {
            let left_out: Vec<String> = (tree.folders.keys())
                .filter(|name| **name != train && Some(*name) != test.as_ref())
                .map(|name| format!("{}/", name.to_string_lossy()))
                .collect();
            if !left_out.is_empty() {
                notes.push(format!("left out beside {}/: {}", train.to_string_lossy(), left_out.join(", ")));
            }
            if !tree.beside.is_empty() {
                notes.push(format!("left out: {} pictures outside the folders of splits", tree.beside.len()));
            }
            let mut part = |name: OsString| tree_of(&root.join(name), &mut Others::default());
            (part(train), test.map(&mut part))
        }
        None => (tree, None),
    };
    if train.beside.is_empty() && train.folders.is_empty() {
        return Ok(None);
    }
    others.tell(&mut notes);
    let is_mixed = !train.folders.is_empty() && !train.beside.is_empty();
    let unlabelled = is_mixed.then(|| stray(&train.beside, root));
    notes.extend(unlabelled.clone());
    let has_classes = !train.folders.is_empty() && !is_mixed;
    let classes: Option<Vec<OsString>> = has_classes.then(|| train.folders.keys().cloned().collect());
    let count = train.folders.len();
    if has_classes && count > 256 {
        return Err(PictureError::TooManyClasses { dir: root.to_owned(), count });
    }
    let train = part(train, classes.as_deref(), root)?;
    let test = match test {
        Some(tree) => {
            let known = if tree.beside.is_empty() { classes.as_deref() } else { None };
            if classes.is_some() && known.is_none() {
                notes.push("the test pictures are in no folders of classes, so they have no labels".into());
            }
            Some(part(tree, known, root)?)
        }
        None => None,
    };
    let classes = classes.map(|names| names.iter().map(|name| name.to_string_lossy().into_owned()).collect());
    Ok(Some(Scan { train, test, classes, notes, unlabelled }))
}

/// Which pictures beside sub-folders keep these from being classes, and what to do about it.
fn stray(beside: &[PathBuf], root: &Path) -> String {
    let name = |path: &PathBuf| path.strip_prefix(root).unwrap_or(path).display().to_string();
    let mut names: Vec<String> = beside.iter().take(LISTED).map(name).collect();
    if beside.len() > LISTED {
        names.push(format!("{} more", beside.len() - LISTED));
    }
    let them = if beside.len() == 1 { "it" } else { "them" };
    let names = match names.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => String::new(),
    };
    let verb = if beside.len() == 1 { "lies" } else { "lie" };
    format!("{names} {verb} beside sub-folders, so these are not taken for classes: move {them} into one, or away")
}

/// The names of the folders of training and test pictures, if that is what the folders are: `train` may be a class too,
/// beside others.
fn splits(tree: &Tree) -> Option<(OsString, Option<OsString>)> {
    let named = |names: &[&str]| {
        let is_one = |folder: &&OsString| names.iter().any(|name| folder.eq_ignore_ascii_case(name));
        tree.folders.keys().find(is_one).cloned()
    };
    let train = named(&["train", "training"])?;
    let test = ["test", "testing", "val", "valid", "validation"].iter().find_map(|name| named(&[name]));
    (test.is_some() || (tree.folders.len() == 1 && tree.beside.is_empty())).then_some((train, test))
}

/// The files of a split in order, with the numbers of their classes.
fn part(tree: Tree, classes: Option<&[OsString]>, root: &Path) -> Result<Part, PictureError> {
    let Some(classes) = classes else {
        let mut files = tree.beside;
        files.extend(tree.folders.into_values().flatten());
        return Ok(Part { files, labels: None });
    };
    let mut part = Part { files: Vec::new(), labels: Some(Vec::new()) };
    for (name, files) in tree.folders {
        let Some(class) = classes.iter().position(|class| *class == name).and_then(|i| u8::try_from(i).ok()) else {
            let class = name.to_string_lossy().into_owned();
            return Err(PictureError::UnknownClass { dir: root.to_owned(), class });
        };
        part.labels.iter_mut().for_each(|labels| labels.extend(std::iter::repeat_n(class, files.len())));
        part.files.extend(files);
    }
    Ok(part)
}

fn tree_of(dir: &Path, others: &mut Others) -> Tree {
    let mut above = fs::canonicalize(dir).into_iter().collect();
    let (beside, folders) = list(dir, others);
    let mut tree = Tree { beside, folders: BTreeMap::new() };
    for folder in folders {
        let mut files = Vec::new();
        collect(&folder, &mut above, &mut files, others);
        if let (Some(name), false) = (folder.file_name(), files.is_empty()) {
            tree.folders.insert(name.to_owned(), files);
        }
    }
    tree
}

/// Adds all pictures in `dir` and below it. `above` are the folders on the way: a link that leads back to one of them is
/// not followed.
fn collect(dir: &Path, above: &mut Vec<PathBuf>, files: &mut Vec<PathBuf>, others: &mut Others) {
    let Ok(real) = fs::canonicalize(dir) else { return };
    if above.contains(&real) || above.len() > MOST_DEEP {
        return;
    }
    above.push(real);
    let (pictures, folders) = list(dir, others);
    files.extend(pictures);
    folders.iter().for_each(|folder| collect(folder, above, files, others));
    above.pop();
}

/// The pictures and the folders of one folder, each sorted by name. What is hidden is left out.
fn list(dir: &Path, others: &mut Others) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let (mut pictures, mut folders) = (Vec::new(), Vec::new());
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) => {
            others.unreadable.push(format!("{} ({error})", dir.display()));
            return (pictures, folders);
        }
    };
    for entry in entries.flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let lossy = name.to_string_lossy();
        if lossy.starts_with('.') || lossy == "__MACOSX" {
            continue;
        }
        // The kind of an entry costs no look at the file, but that of a link's end.
        let is_dir = entry.file_type().is_ok_and(|kind| if kind.is_symlink() { path.is_dir() } else { kind.is_dir() });
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
        if is_dir {
            folders.push(path);
        } else if ending.is_some_and(|ending| ENDINGS.contains(&&*ending)) {
            pictures.push(path);
        } else {
            others.count += 1;
            let first = others.example.get_or_insert_with(|| lossy.clone().into_owned());
            if *lossy < **first {
                *first = lossy.into_owned();
            }
        }
    }
    pictures.sort();
    folders.sort();
    (pictures, folders)
}

impl Others {
    fn tell(&self, notes: &mut Vec<String>) {
        if let Some(example) = &self.example {
            let files = if self.count == 1 { "1 file is".into() } else { format!("{} files are", self.count) };
            notes.push(format!("{files} left out, not named as PNG or JPEG, for instance {example}"));
        }
        for folder in &self.unreadable {
            notes.push(format!("a folder cannot be read: {folder}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        dir
    }

    fn names(part: &Part, dir: &Path) -> Vec<String> {
        part.files.iter().map(|f| f.strip_prefix(dir).unwrap().to_str().unwrap().replace('\\', "/")).collect()
    }

    #[test]
    fn sub_folders_are_classes_in_order() {
        let dir = folder(&[
            "b/2.png",
            "b/10.PNG",
            "b/deep/er/x.jpeg",
            "a/z.jpg",
            "empty/list.txt",
            ".git/no.png",
            "ä/1.jfif",
        ]);
        let scan = scan(dir.path()).unwrap().unwrap();
        assert_eq!(scan.classes, Some(vec!["a".to_string(), "b".into(), "ä".into()]));
        assert_eq!(names(&scan.train, dir.path()), ["a/z.jpg", "b/10.PNG", "b/2.png", "b/deep/er/x.jpeg", "ä/1.jfif"]);
        assert_eq!(scan.train.labels, Some(vec![0, 1, 1, 1, 2]));
        assert_eq!(scan.notes, ["1 file is left out, not named as PNG or JPEG, for instance list.txt"]);
    }

    #[test]
    fn folders_may_be_splits() {
        let dir = folder(&["train/a/1.png", "train/b/2.png", "val/b/3.png", "docs/x.png", "y.png"]);
        let found = scan(dir.path()).unwrap().unwrap();
        assert_eq!(names(found.test.as_ref().unwrap(), dir.path()), ["val/b/3.png"]);
        assert_eq!((found.train.labels, found.test.unwrap().labels), (Some(vec![0, 1]), Some(vec![1])));
        assert_eq!(
            found.notes,
            ["left out beside train/: docs/", "left out: 1 pictures outside the folders of splits"]
        );
        // A class of trains, among others.
        let dir = folder(&["train/1.png", "bus/2.png"]);
        assert_eq!(scan(dir.path()).unwrap().unwrap().classes, Some(vec!["bus".to_string(), "train".into()]));
        let dir = folder(&["train/a/1.png", "test/c/2.png"]);
        assert!(matches!(scan(dir.path()), Err(PictureError::UnknownClass { .. })));
    }

    #[test]
    fn without_classes_there_are_no_labels() {
        let dir = folder(&["1.png", "2.png"]);
        let found = scan(dir.path()).unwrap().unwrap();
        assert_eq!((found.train.labels, found.classes, found.notes.len()), (None, None, 0));
        let dir = folder(&["1.png", "a/2.png"]);
        let found = scan(dir.path()).unwrap().unwrap();
        assert_eq!(
            (found.train.files.len(), found.train.labels, &found.notes),
            (
                2,
                None,
                &vec![
                    "1.png lies beside sub-folders, so these are not taken for classes: move it into one, or away"
                        .to_string()
                ]
            )
        );
        assert_eq!(found.unlabelled.as_ref(), found.notes.first());
        let many: Vec<String> =
            (1..8).map(|i| format!("train/{i}.png")).chain(["train/a/x.png".into(), "test/y.png".into()]).collect();
        let dir = folder(&many.iter().map(String::as_str).collect::<Vec<_>>());
        let unlabelled = scan(dir.path()).unwrap().unwrap().unlabelled.unwrap().replace('\\', "/");
        assert!(
            unlabelled
                .starts_with("train/1.png, train/2.png, train/3.png, train/4.png, train/5.png and 2 more lie beside"),
            "{unlabelled}"
        );
        assert_eq!(scan(folder(&["a.txt"]).path()).unwrap(), None);
    }

    #[test]
    fn there_are_no_more_classes_than_a_byte_has_values() {
        let files: Vec<String> = (0..257).map(|i| format!("{i}/x.png")).collect();
        let dir = folder(&files.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(matches!(scan(dir.path()), Err(PictureError::TooManyClasses { count: 257, .. })));
    }

    #[cfg(unix)]
    #[test]
    fn links_that_lead_back_are_not_followed() {
        let dir = folder(&["a/1.png", "b/2.png"]);
        std::os::unix::fs::symlink(dir.path(), dir.path().join("a/all")).unwrap();
        std::os::unix::fs::symlink("loop", dir.path().join("a/loop")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("b"), dir.path().join("c")).unwrap();
        let found = scan(dir.path()).unwrap().unwrap();
        assert_eq!(names(&found.train, dir.path()), ["a/1.png", "b/2.png", "c/2.png"]);
    }
}
