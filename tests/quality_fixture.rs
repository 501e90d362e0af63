//! The measures of `gcc-gan eval` against numpy's and scipy's, which `tests/pytorch/metrics.py` made straight from the
//! definitions.

use gcc_gan::train::quality::frechet::Gaussian;
use gcc_gan::train::quality::kernel_distance::estimate;
use gcc_gan::train::quality::neighbours::{precision_recall, squared_radii};
use gcc_gan::train::quality::{Matrix, classes};
use safetensors::SafeTensors;

#[test]
fn measures_are_those_of_another_implementation() {
    let file = SafeTensors::deserialize(include_bytes!("pytorch/metrics/expected.safetensors")).unwrap();
    let values = |name: &str| -> Vec<f64> {
        let view = file.tensor(name).unwrap();
        view.data().as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect()
    };
    let matrix = |name: &str| {
        Matrix::from_vec(file.tensor(name).unwrap().shape()[1], file.tensor(name).unwrap().shape()[0], values(name))
    };
    let (real, made, logits) = (matrix("real"), matrix("made"), matrix("logits"));
    let check = |name: &str, found: f64, tolerance: f64| {
        let expected = values(name)[0];
        assert!((found - expected).abs() <= tolerance * expected.abs(), "{name}: {found}, expected {expected}");
    };
    // scipy's root of a product that is not symmetric has half the digits, where an eigenvalue is 0.
    check("frechet", Gaussian::of(&real).distance(&Gaussian::of(&made)), 1e-6);
    check("kernel", estimate(&real.columns(0, made.ncols()).clone_owned(), &made), 1e-12);
    let found = precision_recall((&real, &squared_radii(&real, 2)), (&made, &squared_radii(&made, 2)), 2);
    check("precision", found.precision, 0.0);
    check("recall", found.recall, 0.0);
    check("score", classes::score(&logits), 1e-12);
}
