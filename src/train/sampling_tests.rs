//! What `sample` and `reconstruct` give, by programs whose images say what they were made of.

use super::*;
use crate::compile::{Options, compile};
use crate::exec::Device;
use crate::exec::cpu::CpuDevice;
use crate::train::data::{Dataset, Source, Split};
use crate::train::session::initialise;
use std::sync::Arc;

fn executor(text: &str) -> Box<dyn Executor> {
    let plan = compile("test.ron", text, &Options::default(), &mut |_| {}).unwrap().plan.unwrap();
    let mut executor = CpuDevice::new(1).load(Arc::new(plan)).unwrap();
    initialise(executor.as_mut(), 1).unwrap();
    executor
}

/// A program with these entries.
fn program(entries: &str) -> String {
    format!(
        r#"Program(
            name: "test",
            networks: {{ "net": Network(input: [1], layers: [Dense(1)]) }},
            entries: {{ {entries} }},
        )"#
    )
}

/// The images are the noise itself: five at a time, of two numbers.
fn noise_itself() -> Box<dyn Executor> {
    executor(&program(
        r#""sample": Entry(
            inputs: { "noise": Tensor([5, 2]) },
            steps: [Let("images", Reshape("noise", [5, 1, 1, 2]))],
            outputs: ["images"],
        )"#,
    ))
}

fn wanted(rows: usize, columns: usize, noise: Noise) -> Wanted {
    Wanted { grid: Grid { rows, columns }, noise, labels: Vec::new(), truncation: None }
}

fn made(executor: &mut dyn Executor, wanted: &Wanted) -> Vec<f32> {
    sample(executor, wanted).unwrap().unwrap().values
}

#[test]
fn noise_depends_on_the_seed_alone() {
    let mut executor = noise_itself();
    let seven = made(executor.as_mut(), &wanted(1, 7, Noise::Seed(3)));
    assert_eq!(made(executor.as_mut(), &wanted(4, 3, Noise::Seed(3)))[..14], seven);
    assert_ne!(made(executor.as_mut(), &wanted(1, 7, Noise::Seed(4))), seven);
    let mut told = Vec::new();
    sample_with(executor.as_mut(), &wanted(4, 3, Noise::Seed(3)), &mut |done| told.push(done)).unwrap();
    assert_eq!(told, [0, 5, 10, 12], "five at a time");
}

#[test]
fn rows_lead_from_seed_to_seed_on_the_great_circle() {
    let mut executor = noise_itself();
    let [a, b] = [3, 4].map(|seed| made(executor.as_mut(), &wanted(1, 3, Noise::Seed(seed))));
    let way = made(executor.as_mut(), &wanted(3, 5, Noise::Across(vec![3, 4, 3])));
    for (row, cells) in way.chunks_exact(10).enumerate() {
        let (a, b) = (&a[2 * row..][..2], &b[2 * row..][..2]);
        assert_eq!((&cells[..2], &cells[8..]), (a, a));
        let close = |x: &[f32], y: &[f32]| x.iter().zip(y).all(|(x, y)| (x - y).abs() < 1e-6);
        assert!(close(&cells[4..6], b), "{cells:?}");
        // Half way, of vectors of one length the length would be theirs; here it follows from the two angles.
        let angle = |v: &[f32]| f64::from(v[1]).atan2(f64::from(v[0]));
        let turn = (angle(b) - angle(a)).rem_euclid(std::f64::consts::TAU);
        let turn = turn.min(std::f64::consts::TAU - turn);
        let each = (turn / 2.0).sin() / turn.sin();
        let half: Vec<f32> = a.iter().zip(b).map(|(x, y)| (each * (f64::from(*x) + f64::from(*y))) as f32).collect();
        let tolerance = 1e-5 * each.abs().max(1.0) as f32;
        assert!(cells[2..4].iter().zip(&half).all(|(x, y)| (x - y).abs() < tolerance), "{cells:?} {half:?}");
    }
    // A moving grid passes the same places, each cell by itself.
    let moment = |executor: &mut dyn Executor, at| made(executor, &wanted(3, 1, Noise::At(vec![3, 4, 3], at)));
    for (column, at) in [(0, 0.0), (1, 0.5), (2, 1.0), (3, 1.5), (4, 2.0)] {
        let of_column: Vec<f32> = way.chunks_exact(10).flat_map(|row| row[2 * column..][..2].to_vec()).collect();
        assert_eq!(moment(executor.as_mut(), at), of_column, "{at}");
    }
}

#[test]
fn truncated_noise_stays_within_its_limit() {
    let mut executor = noise_itself();
    let all = made(executor.as_mut(), &wanted(20, 20, Noise::Seed(1)));
    assert!(all.iter().any(|x| x.abs() > 2.0));
    let of = |executor: &mut dyn Executor, most| {
        made(executor, &Wanted { truncation: Some(most), ..wanted(20, 20, Noise::Seed(1)) })
    };
    for most in [LEAST_TRUNCATION, 0.7, 2.0] {
        let truncated = of(executor.as_mut(), most);
        assert!(truncated.iter().all(|x| x.abs() <= most && *x != 0.0), "{most}");
        // What fits is as it was.
        assert!(all.iter().zip(&truncated).all(|(x, y)| x.abs() > most || x == y));
    }
    assert_eq!(of(executor.as_mut(), 10.0), all);
}

#[test]
fn a_program_that_draws_its_own_noise_takes_none() {
    let mut executor = executor(&program(
        r#""sample": Entry(inputs: {}, steps: [Let("images", Normal([5, 1, 1, 2]))], outputs: ["images"])"#,
    ));
    assert_ne!(made(executor.as_mut(), &wanted(1, 2, Noise::Seed(1))), [0.0; 4]);
    let error = sample(executor.as_mut(), &wanted(1, 2, Noise::Across(vec![1, 2]))).unwrap_err().to_string();
    insta::assert_snapshot!(error, @"entry `sample` of `test` takes no noise, so none can be chosen: it draws its own");
}

/// Where images are made for labels, each row of a grid has the next class, or those that are asked for.
#[test]
fn samples_have_the_classes_of_their_rows() {
    // The image of a class is as bright as its number.
    let text = r#"Program(
        name: "labelled",
        networks: { "net": Network(input: [2], layers: [Dense(1)]) },
        entries: {
            "train_step": Entry(
                inputs: { "x": Images([4, 1, 4, 4]) },
                steps: [
                    Let("loss", Mean(Call("net", Slice(Flatten("x"), [0, 0], [4, 2]), Training))),
                    Minimise("loss", "net", Sgd(0.1)),
                ],
                outputs: ["loss"],
            ),
            "sample": Entry(
                inputs: { "noise": Tensor([5, 1]), "labels": Labels([5]) },
                steps: [
                    Let("number", Sum(Mul(OneHot("labels", 3), Iota([1, 3], 1)), [1])),
                    Let("images", Reshape(Add("number", Mul(0.0, "noise")), [5, 1, 1, 1])),
                ],
                outputs: ["images"],
            ),
        },
    )"#;
    let mut executor = executor(text);
    let mut made = |labels: &[u32]| {
        let wanted = Wanted { labels: labels.to_vec(), ..wanted(4, 3, Noise::Seed(3)) };
        sample(executor.as_mut(), &wanted).map(|made| made.unwrap().values)
    };
    assert_eq!(made(&[]).unwrap(), [0., 0., 0., 1., 1., 1., 2., 2., 2., 0., 0., 0.]);
    assert_eq!(made(&[2]).unwrap(), [2.0; 12]);
    assert_eq!(made(&[2, 0]).unwrap(), [2., 2., 2., 0., 0., 0., 2., 2., 2., 0., 0., 0.]);
    let error = made(&[1, 3]).unwrap_err().to_string();
    assert!(error.contains("no class 3: labels are from 0 to 2"), "{error}");
}

/// Ten images of four pixels, as bright as their numbers.
fn data() -> Dataset {
    let images = (0..40).map(|pixel| pixel / 4 * 20).collect();
    let train = Split { images, labels: None, channels: 1, rows: 2, columns: 2 };
    Dataset {
        name: "ten".into(),
        source: Source::Embedded,
        why: String::new(),
        train,
        test: None,
        classes: None,
        notes: Vec::new(),
        unlabelled: None,
    }
}

#[test]
fn reconstructions_stand_below_their_images() {
    let mut of_negatives = executor(&program(
        r#""reconstruct": Entry(
            inputs: { "images": Images([4, 1, 2, 2]) },
            steps: [Let("negatives", Neg("images"))],
            outputs: ["negatives"],
        )"#,
    ));
    let made = reconstruct(of_negatives.as_mut(), &data(), 1, Grid { rows: 5, columns: 6 }).unwrap().unwrap();
    // Two pairs of rows: 12 images of the ten, the first of which come again.
    assert_eq!(made.shape, [24, 1, 2, 2]);
    let first_pixels: Vec<f32> = made.values.iter().step_by(4).copied().collect();
    for (pair, rows) in first_pixels.chunks_exact(12).enumerate() {
        for (i, (given, back)) in rows[..6].iter().zip(&rows[6..]).enumerate() {
            let byte = (6 * pair + i) % 10 * 20;
            assert_eq!((*given, *back), (2.0 * byte as f32 / 255.0 - 1.0, 1.0 - 2.0 * byte as f32 / 255.0));
        }
    }
    let grid = Grid { rows: 2, columns: 2 };
    assert_eq!(reconstruct(noise_itself().as_mut(), &data(), 1, grid).unwrap(), None);
    let mut other = executor(&program(
        r#""reconstruct": Entry(
            inputs: { "images": Images([4, 1, 2, 3]) },
            steps: [Let("same", Neg("images"))],
            outputs: ["same"],
        )"#,
    ));
    let error = reconstruct(other.as_mut(), &data(), 1, grid).unwrap_err().to_string();
    assert!(error.contains("its images have 2×2 pixels, grey, `images` takes f32[4,1,2,3]"), "{error}");
}
