//! Folders of pictures as a user has them.

use super::*;
use image::{Rgb, RgbImage};
use std::time::{Duration, SystemTime};

const RGB8: Wanted = Wanted::Size(ImageSize { channels: 3, rows: 8, columns: 8 });

/// Twelve pictures of one colour each in three classes, four of them in each, and two files of no use.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..12u8 {
        let class = dir.path().join(["a", "b", "c"][usize::from(i) / 4]);
        fs::create_dir_all(&class).unwrap();
        // Sizes on both sides of what is wanted, and of any aspect.
        let picture = RgbImage::from_pixel(4 + u32::from(i) * 3, 20, Rgb([i * 20, 255 - i * 20, 7]));
        picture.save(class.join(format!("{i:02}.png"))).unwrap();
    }
    fs::write(dir.path().join("a/00-broken.png"), b"\x89PNG\r\n\x1a\nnothing").unwrap();
    fs::write(dir.path().join("b/zz.jpg"), b"").unwrap();
    dir
}

fn load(dir: &Path, strict: bool, cache: Option<&Path>) -> Result<(Dataset, usize), PictureError> {
    let mut ticks = 0;
    let set = Folder::open(dir).unwrap().unwrap().load(Some(RGB8), strict, cache, &mut |_| ticks += 1)?;
    Ok((set, ticks))
}

#[test]
fn pictures_keep_their_order_and_labels_over_files_that_are_skipped() {
    let dir = folder();
    let (set, _) = load(dir.path(), false, None).unwrap();
    assert_eq!((set.train.len(), set.train.channels, set.train.rows, set.train.columns), (12, 3, 8, 8));
    assert_eq!(set.train.labels.as_deref(), Some(&[0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2][..]));
    assert_eq!(set.classes, Some(vec!["a".to_string(), "b".into(), "c".into()]));
    for (image, i) in set.train.images.chunks_exact(3 * 64).zip(0u8..) {
        let colours: Vec<u8> = image.chunks_exact(64).map(|plane| plane[27]).collect();
        assert_eq!(colours, [i * 20, 255 - i * 20, 7]);
        assert!(image.chunks_exact(64).all(|plane| plane.iter().all(|v| *v == plane[0])), "one colour stays one");
    }
    let notes = set.notes.join("\n").replace(dir.path().to_str().unwrap(), "DIR").replace('\\', "/");
    insta::assert_snapshot!(notes);
    let error = load(dir.path(), true, None).unwrap_err().to_string();
    assert!(error.contains("2 of 14 files cannot be used: a/00-broken.png (") && error.contains("--strict"), "{error}");
}

#[test]
fn a_program_of_grey_images_gets_grey_ones() {
    let dir = folder();
    let grey = Wanted::Values(784);
    let set = Folder::open(dir.path()).unwrap().unwrap().load(Some(grey), false, None, &mut |_| {}).unwrap();
    assert_eq!((set.train.channels, set.train.rows, set.train.pixels()), (1, 28, 784));
    assert!(set.notes[0].ends_with("(12 smaller ones enlarged, 12 made grey)"), "{:?}", set.notes);
    for odd in [None, Some(Wanted::Values(785)), Some(Wanted::Size(ImageSize { channels: 4, rows: 8, columns: 8 }))] {
        let error = Folder::open(dir.path()).unwrap().unwrap().load(odd, false, None, &mut |_| {}).unwrap_err();
        assert!(matches!(error, PictureError::NoSize { .. }), "{error}");
    }
}

#[test]
fn a_folder_without_a_sound_picture_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    (0..9).for_each(|i| fs::write(dir.path().join(format!("{i}.png")), "no").unwrap());
    let error = load(dir.path(), false, None).unwrap_err().to_string();
    assert!(
        error.contains("has no picture that can be used: 9 of 9 files") && error.ends_with("and 4 more"),
        "{error}"
    );
}

#[test]
fn splits_are_kept_apart() {
    let dir = folder();
    fs::create_dir(dir.path().join("train")).unwrap();
    ["a", "b", "c"].iter().for_each(|c| fs::rename(dir.path().join(c), dir.path().join("train").join(c)).unwrap());
    fs::create_dir_all(dir.path().join("test/b")).unwrap();
    fs::write(dir.path().join("test/b/0.png"), "broken").unwrap();
    fs::copy(dir.path().join("train/c/11.png"), dir.path().join("test/b/1.png")).unwrap();
    let (set, _) = load(dir.path(), false, None).unwrap();
    let test = set.test.unwrap();
    assert_eq!((set.train.len(), test.len(), test.labels), (12, 1, Some(vec![1])));
    assert_eq!(test.images, set.train.images[11 * 192..]);
}

/// The second start decodes nothing, and any change of a file's name, size or time makes the cache old.
#[test]
fn what_was_decoded_is_kept_until_something_changes() {
    let (dir, cache) = (folder(), tempfile::tempdir().unwrap());
    let file = |set: &Dataset| set.digest();
    let first = load(dir.path(), false, Some(cache.path())).unwrap().0;
    let kept: Vec<_> = fs::read_dir(cache.path().join("pictures")).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(kept.len(), 1);
    let written = fs::metadata(&kept[0]).unwrap().modified().unwrap();
    assert_eq!(load(dir.path(), false, Some(cache.path())).unwrap().0, first);
    assert_eq!(fs::metadata(&kept[0]).unwrap().modified().unwrap(), written, "it was read, not written");

    // Same name, same size, other time and content.
    let picture = dir.path().join("a/01.png");
    let bytes = fs::read(&picture).unwrap();
    let other = fs::read(dir.path().join("a/02.png")).unwrap();
    fs::write(&picture, &other).unwrap();
    File::options()
        .write(true)
        .open(&picture)
        .unwrap()
        .set_modified(SystemTime::now() + Duration::from_secs(9))
        .unwrap();
    let second = load(dir.path(), false, Some(cache.path())).unwrap().0;
    assert_ne!(file(&second), file(&first));
    fs::write(&picture, bytes).unwrap();
    assert_eq!(file(&load(dir.path(), false, Some(cache.path())).unwrap().0), file(&first));
    fs::rename(dir.path().join("a/02.png"), dir.path().join("c/02.png")).unwrap();
    assert_ne!(file(&load(dir.path(), false, Some(cache.path())).unwrap().0), file(&first));
    fs::rename(dir.path().join("c/02.png"), dir.path().join("a/02.png")).unwrap();
    assert_eq!(load(dir.path(), false, Some(cache.path())).unwrap().0, first);
    assert_eq!(fs::read_dir(cache.path().join("pictures")).unwrap().count(), 1, "nothing piles up");

    // A damaged cache, and one that cannot be written, are no hindrance.
    let mut damaged = fs::read(&kept[0]).unwrap();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    fs::write(&kept[0], damaged).unwrap();
    assert_eq!(load(dir.path(), false, Some(cache.path())).unwrap().0, first);
    fs::write(cache.path().join("file"), "").unwrap();
    assert_eq!(load(dir.path(), false, Some(&cache.path().join("file"))).unwrap().0, first);
}

#[test]
fn a_survey_counts_and_keeps_nothing() {
    let dir = folder();
    let survey = Folder::open(dir.path()).unwrap().unwrap().survey(&mut |_| {});
    assert_eq!((survey.train, survey.test), (12, 0));
    assert_eq!(survey.classes, Some(["a", "b", "c"].map(|class| (class.to_string(), 4)).to_vec()));
    assert_eq!((survey.summary.smallest, survey.summary.largest), ([4, 20], [37, 20]));
    assert_eq!(survey.skipped.unwrap().files.len(), 2);
}
