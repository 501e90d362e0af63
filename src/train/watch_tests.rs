//! The two watches over a run, on images of 4×4 pixels: where numbers stop being finite, and samples that become alike.

use super::tests::{LINE, Seen, pace, program, run_dir, session};
use super::*;
use crate::train::diverged::First;
use std::path::PathBuf;

/// The error of a run that is no longer finite, and what was told.
fn diverged(text: &str, count: usize, until: u64) -> (NonFinite, Seen) {
    let (mut session, meta) = session(text, count);
    let (_dir, run) = run_dir();
    let mut seen = Seen::default();
    match train(&mut session, &run, meta, &pace(until), &mut seen).unwrap_err() {
        TrainError::NonFinite(found) => (*found, seen),
        error => panic!("{error}"),
    }
}

/// The first node, and the text at its place.
fn first(found: &NonFinite, text: &str) -> (First, String) {
    let first = found.first.as_deref().unwrap_or_else(|| panic!("{found}")).clone();
    let span = first.place.entries()[0].span().unwrap();
    let place = text[span.start..span.end].to_string();
    (first, place)
}

#[test]
fn what_a_selection_does_not_take_is_not_blamed() {
    let text = program(
        r#""batch""#,
        LINE,
        r#"Let("y", Call("net", "x", Training)),
           Let("unused", Log(Mul("x", 0))),
           Let("harmless", Mean(Select(Gt("x", 7), "unused", 0))),
           Let("ratio", Div(1, Mul("y", 0))),
           Let("later", Mul("ratio", 0)),
           Let("loss", Add(Mean("later"), "harmless")),
           Minimise("loss", "net", Sgd(lr: 0.1))"#,
    );
    let (found, seen) = diverged(&text, 8, 10);
    let (first, place) = first(&found, &text);
    assert_eq!(place, r#"Div(1, Mul("y", 0))"#, "{found}");
    assert_eq!((first.step, first.op, first.is_nan), (1, "div", false), "{found}");
    assert_eq!(first.operands.iter().map(|(_, low, high)| (*low, *high)).collect::<Vec<_>>(), [(1.0, 1.0), (0.0, 0.0)]);
    let line = text[..text.find("Div(1").unwrap()].lines().count();
    assert!(found.to_string().contains(&format!("of step 1 (test.ron:{line}:")), "{found}");
    assert!(first.place.render(100, false).contains("was given"), "{:?}", first.place);
    assert!(seen.notes[0].contains("2 steps are done again from the checkpoint of step 0"), "{:?}", seen.notes);
    assert!(seen.notes[1].contains("it was in step 1"), "{:?}", seen.notes);
    // Where it is taken it is what is named.
    let taken = text.replace("\"x\", 7", "\"x\", -7");
    let (found, _) = diverged(&taken, 8, 10);
    assert_eq!(self::first(&found, &taken).1, r#"Log(Mul("x", 0))"#, "{found}");
}

/// A root has an infinite slope at 0, and that times 0 is NaN: it is in the gradient, not in what was declared.
#[test]
fn what_began_in_a_gradient_is_told_so() {
    let text = program(
        r#""batch""#,
        LINE,
        r#"Let("u", Mul(Call("net", "x", Training), 0)),
           Let("loss", Mean(Select(Gt("u", 0), Sqrt("u"), 0))), Minimise("loss", "net", Sgd(lr: 0.1))"#,
    );
    let (found, _) = diverged(&text, 8, 10);
    let (first, place) = first(&found, &text);
    assert_eq!((place.as_str(), first.step), (r#"Sqrt("u")"#, 1), "{found}");
    assert!(first.place.entries()[0].message.contains("in the gradient of `loss`"), "{:?}", first.place);
}

/// Steps lie between the checkpoint and the one that overflows: the weights grow by the same factor in each.
#[test]
fn the_first_node_is_found_steps_after_the_checkpoint() {
    let text = program(
        r#""batch""#,
        LINE,
        r#"Let("y", Call("net", Add(Mul("x", 0), 1), Training)), Let("loss", Mean(Mul("y", "y"))),
           Minimise("loss", "net", Sgd(lr: 20))"#,
    );
    let (found, _) = diverged(&text, 11, 100);
    let (first, _) = first(&found, &text);
    assert!(found.saved > 0 && (found.saved + 1..=found.step).contains(&first.step), "{found}");
    assert!(
        !first.is_nan && first.operands.iter().all(|(_, low, high)| low.is_finite() && high.is_finite()),
        "{found}"
    );
    assert!(first.operands.iter().any(|(_, low, high)| low.abs().max(high.abs()) > 1e15), "{found}");
}

/// A loss alone, whose parameters stay finite, is found in the first step in which it is not, whoever looked when.
#[test]
fn a_loss_that_nothing_is_trained_by_is_found_too() {
    let text = program(
        r#""batch""#,
        LINE,
        r#"Let("y", Call("net", "x", Training)), Let("good", Mean(Mul("y", "y"))),
           Minimise("good", "net", Sgd(lr: 0.001)), Let("loss", Log(Mul("good", 0)))"#,
    );
    let (found, _) = diverged(&text, 8, 10);
    assert!(found.networks.is_empty(), "{found}");
    let (first, place) = first(&found, &text);
    assert_eq!((first.step, first.op), (1, "log"), "{found}");
    assert!(place.starts_with("Log("), "{place}");
}

#[test]
fn a_search_can_be_interrupted_and_leaves_the_checkpoint() {
    struct Impatient {
        file: PathBuf,
        notes: Vec<String>,
        saved: Vec<u8>,
    }
    impl Observer for Impatient {
        fn is_cancelled(&mut self) -> bool {
            self.notes.iter().any(|note| note.contains("it was in step 1"))
        }
        fn note(&mut self, message: &str) {
            self.saved = fs::read(&self.file).unwrap();
            self.notes.push(message.into());
        }
    }
    let text = program(
        r#""batch""#,
        LINE,
        r#"Let("loss", Log(Mul(Mean(Call("net", "x", Training)), 0))), Minimise("loss", "net", Sgd(lr: 0.1))"#,
    );
    let (mut session, meta) = session(&text, 8);
    let (_dir, run) = run_dir();
    let mut observer = Impatient { file: run.checkpoint(), notes: Vec::new(), saved: Vec::new() };
    let error = train(&mut session, &run, meta, &pace(10), &mut observer).unwrap_err();
    assert!(matches!(&error, TrainError::NonFinite(found) if found.first.is_none()), "{error}");
    assert!(observer.notes.last().unwrap().contains("(the search was interrupted)"), "{:?}", observer.notes);
    assert_eq!(fs::read(run.checkpoint()).unwrap(), observer.saved);
}

/// A linear map of noise that training shrinks to nothing.
#[test]
fn samples_that_become_alike_are_warned_of_once_and_measured() {
    const SAMPLED: &str = r#""sample": Entry(inputs: { "z": Tensor([36, 1, 4, 4]) },
        steps: [Let("images", Call("map", "z", Inference))], outputs: ["images"]), "train_step""#;
    let text = program(
        r#""batch""#,
        r#""map": Network(input: [1, 4, 4], layers: [Flatten(), Dense(16), Reshape([1, 4, 4])])"#,
        r#"Let("y", Call("map", Normal(["batch", 1, 4, 4]), Training)),
           Let("loss", Add(Mean(Mul("y", "y")), Mul(Mean("x"), 0))), Minimise("loss", "map", Sgd(lr: 1.0))"#,
    );
    let sampling = text.replace(r#""train_step""#, SAMPLED);
    let (mut session, meta) = session(&sampling, 8);
    let (_dir, run) = run_dir();
    let mut seen = Seen::default();
    let often = Pace { sample_every: 3, ..pace(60) };
    assert_eq!(train(&mut session, &run, meta, &often, &mut seen).unwrap(), Ended::Complete);
    let metrics = fs::read_to_string(run.metrics()).unwrap();
    let records: Vec<Record> = metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let measured: Vec<(u64, f64)> =
        records.iter().filter_map(|r| Some((r.step, (*r.values.get(DIVERSITY)?)?))).collect();
    assert_eq!(measured.iter().map(|(step, _)| *step).collect::<Vec<_>>(), (1..=20).map(|i| 3 * i).collect::<Vec<_>>());
    assert!(measured[0].1 > 0.5 && measured[19].1 < 0.1, "{measured:?}");
    let falls = measured.iter().find(|(_, diversity)| *diversity < 0.25).unwrap().0;
    assert_eq!(seen.warnings.len(), 1, "{:?}", seen.warnings);
    let told = format!("the samples of step {falls} have become nearly alike");
    assert!(seen.warnings[0].starts_with(&told), "{:?}", seen.warnings);
    assert!(seen.warnings[0].contains(&run.sample(falls).display().to_string()), "{:?}", seen.warnings);
    // Without samples there is nothing to measure.
    let (mut session, meta) = super::tests::session(&text, 8);
    let (_dir, run) = run_dir();
    train(&mut session, &run, meta, &often, &mut ()).unwrap();
    assert!(!fs::read_to_string(run.metrics()).unwrap().contains(DIVERSITY));
}
