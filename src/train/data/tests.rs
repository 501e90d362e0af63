//! Tests of finding and reading data sets.

use super::*;
use std::collections::HashSet;

fn idx_file(dims: &[u32], data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, dims.len() as u8];
    dims.iter().for_each(|dim| bytes.extend(dim.to_be_bytes()));
    bytes.extend(data);
    bytes
}

/// A folder with three training and two test images of 2×2.
fn small_set(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    let files = [
        idx_file(&[3, 2, 2], &(0..12).collect::<Vec<_>>()),
        idx_file(&[3], &[2, 0, 2]),
        idx_file(&[2, 2, 2], &[9; 8]),
        idx_file(&[2], &[1, 1]),
    ];
    STEMS.iter().zip(files).for_each(|(stem, bytes)| fs::write(dir.join(stem), bytes).unwrap());
}

fn offline(environment: Option<&Path>, cache: Option<&Path>) -> Locations {
    Locations { environment: environment.map(Path::to_owned), cache: cache.map(Path::to_owned), offline: true }
}

fn get(request: &str, locations: &Locations) -> Result<Dataset, DataError> {
    load(&Request::parse(request), locations, &mut |_| panic!("nothing may be downloaded"))
}

fn given_path(path: &Path) -> Result<Dataset, DataError> {
    get(path.to_str().unwrap(), &Locations::default())
}

#[test]
fn arguments_mean_names_first() {
    assert_eq!(Request::parse("auto"), Request::Auto);
    assert_eq!(Request::parse("embedded"), Request::Embedded);
    assert_eq!(Request::parse("fashion-mnist"), Request::Known(Known::FashionMnist));
    assert_eq!(Request::parse("./mnist"), Request::Path("./mnist".into()));
}

#[test]
fn a_folder_is_read_whole() {
    let dir = tempfile::tempdir().unwrap();
    small_set(dir.path());
    let set = given_path(dir.path()).unwrap();
    assert_eq!((set.train.len(), set.train.pixels()), (3, 4));
    assert_eq!(set.train.images, (0..12).collect::<Vec<u8>>());
    assert_eq!(set.train.class_counts(), Some(vec![1, 0, 2]));
    assert_eq!(set.test.unwrap().labels, Some(vec![1, 1]));
    assert_eq!(set.source, Source::Given(dir.path().to_owned()));
}

#[test]
fn labels_and_test_images_may_be_absent() {
    let dir = tempfile::tempdir().unwrap();
    small_set(dir.path());
    STEMS[1..].iter().for_each(|stem| fs::remove_file(dir.path().join(stem)).unwrap());
    let set = given_path(dir.path()).unwrap();
    assert_eq!((set.train.labels, set.test), (None, None));
    let file = given_path(&dir.path().join(STEMS[0])).unwrap();
    assert_eq!((file.train.len(), file.name.as_str()), (3, STEMS[0]));
}

#[test]
fn what_does_not_fit_together_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let message = |path: &Path| {
        given_path(path).unwrap_err().to_string().replace(dir.path().to_str().unwrap(), "DIR").replace('\\', "/")
    };
    let mut report = vec![message(&dir.path().join("absent")), message(dir.path())];
    (0..8).for_each(|i| fs::write(dir.path().join(format!("file{i}")), "").unwrap());
    report.push(message(dir.path()));
    report.push(message(&dir.path().join("file0")));
    small_set(dir.path());
    fs::write(dir.path().join(STEMS[1]), idx_file(&[2], &[1, 2])).unwrap();
    report.push(message(dir.path()));
    small_set(dir.path());
    fs::write(dir.path().join(STEMS[2]), idx_file(&[2, 1, 4], &[0; 8])).unwrap();
    report.push(message(dir.path()));
    small_set(dir.path());
    fs::write(dir.path().join(STEMS[2]), idx_file(&[2], &[0; 2])).unwrap();
    report.push(message(dir.path()));
    insta::assert_snapshot!(report.join("\n"));
}

#[test]
fn the_environment_decides_and_must_be_right() {
    let dir = tempfile::tempdir().unwrap();
    let locations = offline(Some(dir.path()), None);
    for request in ["auto", "mnist", "fashion-mnist"] {
        let error = get(request, &locations).unwrap_err();
        assert!(matches!(error, DataError::Environment { .. }), "{error}");
    }
    small_set(dir.path());
    assert_eq!(get("auto", &locations).unwrap().source, Source::Environment(dir.path().to_owned()));
    // Files at the top are taken for MNIST, not for its sister.
    assert!(get("fashion-mnist", &locations).is_err());
    small_set(&dir.path().join("fashion-mnist"));
    let fashion = get("fashion-mnist", &locations).unwrap();
    assert_eq!(fashion.source, Source::Environment(dir.path().join("fashion-mnist")));
}

#[test]
fn without_files_and_network_the_embedded_digits_serve() {
    let cache = tempfile::tempdir().unwrap();
    // Files that are not the published ones are no cache.
    small_set(&cache.path().join("mnist"));
    for locations in [offline(None, Some(cache.path())), offline(None, None)] {
        let set = get("auto", &locations).unwrap();
        assert_eq!(set.source, Source::Embedded);
        assert!(set.why.contains("(full MNIST not found, "), "{}", set.why);
    }
    let error = get("mnist", &offline(None, Some(cache.path()))).unwrap_err();
    assert!(matches!(error, DataError::Offline(Known::Mnist)), "{error}");
}

#[test]
fn holding_out_splits_without_loss() {
    let mut set = embedded::load();
    let whole = set.train.clone();
    set.hold_out(1000);
    let test = set.test.clone().unwrap();
    assert_eq!((set.train.len(), test.len()), (9000, 1000));
    assert_eq!([set.train.images.clone(), test.images].concat(), whole.images);
    assert_eq!([set.train.labels.clone().unwrap(), test.labels.unwrap()].concat(), whole.labels.unwrap());
    // A second call has nothing to do.
    let before = set.clone();
    set.hold_out(10);
    assert_eq!(set, before);
}

/// With the original files at hand: sizes, checksums, and that the embedded digits are among them.
#[test]
fn the_original_files() {
    let locations = Locations { offline: true, cache: None, ..Locations::of_user() };
    let Some(root) = &locations.environment else {
        eprintln!("skipped: ${ENV} is not set");
        return;
    };
    for set in Known::ALL.into_iter().filter(|set| root.join(set.name()).is_dir()) {
        let states = download::verify(set, &root.join(set.name()));
        assert!(states.iter().all(|(_, state)| *state == FileState::Good), "{states:?}");
        let data = get(set.name(), &locations).unwrap();
        let test = data.test.unwrap();
        assert_eq!((data.train.len(), test.len(), data.train.pixels()), (60_000, 10_000, 784));
        assert_eq!(data.train.class_counts().unwrap().len(), 10);
        assert_eq!(test.class_counts().unwrap().len(), 10);
    }
    let full = get("mnist", &locations).unwrap().train;
    let pairs = |split: &Split| -> Vec<(Vec<u8>, u8)> {
        split.images.chunks(split.pixels()).map(<[u8]>::to_vec).zip(split.labels.clone().unwrap()).collect()
    };
    let full: HashSet<_> = pairs(&full).into_iter().collect();
    let embedded: HashSet<_> = pairs(&embedded::load().train).into_iter().collect();
    assert_eq!(embedded.len(), 10_000);
    assert!(embedded.is_subset(&full));
}
