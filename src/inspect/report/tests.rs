use super::data::report_data;
use super::*;
use crate::train::checkpoint::Meta;
use crate::train::metrics::Line;
use crate::train::picture::Picture;
use crate::train::starts::{Data, Machine, Start};
use insta::{assert_json_snapshot, assert_snapshot};
use std::collections::BTreeMap;
use std::path::PathBuf;

const HOSTILE: &str = "a\"</script><!--<b>,\n";

fn line(step: u64, values: &[(&str, Option<f64>)]) -> Line {
    let values = values.iter().map(|(name, value)| (name.to_string(), *value)).collect();
    Line { step, epoch: Some(step as f64 / 4.0), seconds: Some(step as f64 * 0.5), values }
}

fn meta(text: &str) -> Meta {
    let sets = BTreeMap::from([("lr".to_string(), "0.1".to_string())]);
    Meta {
        program: "small".into(),
        text: text.into(),
        sets,
        data: "embedded".into(),
        seed: 1,
        step: 4,
        ..Meta::default()
    }
}

fn start(step: u64, lr: &str, device: &str) -> Start {
    Start {
        command: format!("gcc-gan train --set lr={lr}"),
        time: "2026-01-31T12:00:00Z".into(),
        step,
        version: "0.1.0".into(),
        machine: Machine { cpu: Some("Some CPU".into()), device: device.into(), threads: 2 },
        precision: "f32".into(),
        seed: 1,
        sets: [("lr".to_string(), lr.to_string())].into(),
        data: Data { name: "embedded".into(), images: 10_000, digest: "12ab".into() },
        plan: "34cd".into(),
        habits: None,
    }
}

/// One with its record, which was resumed, and one of an older version whose checkpoint is gone.
fn runs() -> Vec<Run> {
    let lines = vec![
        line(1, &[("loss", Some(3.0)), ("images_per_second", Some(100.0))]),
        line(2, &[("loss", Some(1.0)), ("test_loss", Some(2.5)), ("images_per_second", Some(0.1f32.into()))]),
        line(4, &[("loss", None), ("images_per_second", Some(90.0))]),
    ];
    let starts = vec![start(0, "0.1", "CPU"), start(2, "0.05", "GPU")];
    let new = Run {
        name: "new".into(),
        folder: "runs/new".into(),
        resumed: vec![2],
        unread: None,
        notes: Vec::new(),
        samples: Vec::new(),
        meta: Ok(meta("one\ntwo\n")),
        starts,
        lines,
    };
    let old = Run {
        name: HOSTILE.into(),
        folder: "runs/old".into(),
        starts: Vec::new(),
        resumed: vec![5],
        unread: Some("run.json was written by a newer gcc-gan".into()),
        notes: vec!["line 3 of its metrics is left out".into()],
        lines: vec![line(5, &[(HOSTILE, Some(-1e-9))])],
        samples: Vec::new(),
        meta: Err("is damaged".into()),
    };
    vec![new, old]
}

#[test]
fn data_of_two_runs() {
    let gone = LeftOut { folder: "runs/gone".into(), problem: "there is no run in runs/gone".into() };
    assert_json_snapshot!(report_data(&runs(), &[gone], Limits::PAGE));
}

#[test]
fn metrics_as_csv() {
    let runs = runs();
    assert_snapshot!(csv(&runs[..1]), @"
    step,epoch,seconds,images_per_second,loss,test_loss
    1,0.25,0.5,100,3,
    2,0.5,1,0.10000000149011612,1,2.5
    4,1,2,90,nan,
    ");
    assert_snapshot!(csv(&runs), @r#"
    run,step,epoch,seconds,"a""</script><!--<b>,
    ",images_per_second,loss,test_loss
    new,1,0.25,0.5,,100,3,
    new,2,0.5,1,,0.10000000149011612,1,2.5
    new,4,1,2,,90,nan,
    "a""</script><!--<b>,
    ",5,1.25,2.5,-0.000000001,,,
    "#);
}

/// Names are the user's: none of them ends the data or begins an element.
#[test]
fn names_stay_within_the_page() {
    let page = render(&report_data(&runs(), &[], Limits::PAGE));
    let (_, data) = page.split_once(r#"<script id="data" type="application/json">"#).unwrap();
    let (data, _) = data.split_once("</script>").unwrap();
    let read: serde_json::Value = serde_json::from_str(data).unwrap();
    assert_eq!(read["runs"][1]["series"][0]["name"], HOSTILE);
    assert!(page.contains("<title>new, a&quot;&lt;/script&gt;&lt;!--&lt;b&gt;,\n — gcc-gan report</title>"));
    assert_eq!(page.matches("</script>").count(), 1 + SCRIPTS.len());
    assert!(!page.contains("{{"));
    assert!(!page.contains("http://") || page.matches("http://").count() == page.matches("http://www.w3.org/").count());
    assert_eq!(page, render(&report_data(&self::runs(), &[], Limits::PAGE)));
}

#[test]
fn long_runs_are_thinned_and_keep_their_ends() {
    let mut run = runs().remove(0);
    run.lines = (1..=1001).map(|step| line(step, &[("loss", Some(step as f64))])).collect();
    let limits = Limits { lines: 100, ..Limits::PAGE };
    let data = report_data(&[run], &[], limits);
    let data = &data.runs[0];
    assert_eq!((data.lines, data.every), (1001, 11));
    assert_eq!((data.steps.len(), data.steps.last()), (91, Some(&1001)));
    assert_eq!(data.figures[0].lowest, Some((1, 1.0)), "of all lines");
}

#[test]
fn what_few_lines_have_is_not_thinned() {
    let mut run = runs().remove(0);
    run.lines = (1..=1000).map(|step| line(step, &[("loss", Some(1.0))])).collect();
    for step in [50, 400, 777] {
        run.lines[step - 1] = line(step as u64, &[("loss", Some(1.0)), ("eval", Some(step as f64))]);
    }
    run.lines[122] = line(123, &[("loss", None)]);
    let limits = Limits { lines: 100, ..Limits::PAGE };
    let data = report_data(&[run], &[], limits);
    let series = |name: &str| data.runs[0].series.iter().find(|series| series.name == name).unwrap();
    assert_eq!(series("eval").values, [Some(50.0), Some(400.0), Some(777.0)]);
    assert_eq!(series("loss").values.iter().filter(|value| value.is_none()).count(), 1);
}

/// Runs are shown at the same steps, as many as there is room for.
#[test]
fn samples_are_thinned_together() {
    let dir = tempfile::tempdir().unwrap();
    let samples = |name: &str, every: u64, until: u64| -> Vec<(u64, PathBuf)> {
        let file = |step| {
            let path = dir.path().join(format!("{name}-{step}.png"));
            let mut bytes = Picture { width: 20, height: 20, channels: 1, data: vec![0; 400] }.write(&path).unwrap();
            // What follows the picture is not looked at.
            bytes.resize(1000, 0);
            std::fs::write(&path, bytes).unwrap();
            (step, path)
        };
        (0..=until).step_by(every as usize).map(file).collect()
    };
    let mut runs = runs();
    runs[0].samples = samples("a", 10, 100);
    runs[1].samples = samples("b", 5, 75);
    let steps = |limits: Limits| -> Vec<Vec<u64>> {
        let data = report_data(&runs, &[], limits);
        data.runs.iter().map(|run| run.samples.iter().map(|sample| sample.step).collect()).collect()
    };
    assert_eq!(steps(Limits::ALL)[1].len(), 16);
    // 0, 5, …, 75, 80, 90, 100 are all steps: of these the first, two between, and the last; and each run's own last.
    assert_eq!(steps(Limits { samples: 4, ..Limits::PAGE }), [vec![0, 30, 60, 100], vec![0, 30, 60, 75]]);
    assert_eq!(steps(Limits { samples: 1, ..Limits::PAGE }), [vec![100], vec![75]]);
    assert_eq!(steps(Limits { samples: 0, ..Limits::PAGE }), [Vec::<u64>::new(), Vec::new()]);
    let few = steps(Limits { bytes: 9000, ..Limits::PAGE });
    assert!(few.iter().flatten().count() <= 10 && few[0].len() >= 3 && few[0].last() == Some(&100), "{few:?}");
}

/// What cannot be shown is told, and the other images are there.
#[test]
fn damaged_samples_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = runs().remove(0);
    for step in 0..4 {
        let file = dir.path().join(format!("{step}.png"));
        let bytes = Picture { width: 40, height: 40, channels: 1, data: vec![9; 1600] }.write(&file).unwrap();
        if step == 2 {
            std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
        }
        run.samples.push((step, file));
    }
    let runs = [run];
    let data = &report_data(&runs, &[], Limits::PAGE).runs[0];
    assert_eq!(data.samples.iter().map(|sample| sample.step).collect::<Vec<_>>(), [0, 1, 3]);
    assert_eq!(data.all_samples, 3);
    let [note] = &data.notes[..] else { panic!("{:?}", data.notes) };
    assert!(note.starts_with("a sample image is left out: ") && note.contains("2.png cannot be read: "), "{note}");
    std::fs::remove_file(dir.path().join("3.png")).unwrap();
    let data = &report_data(&runs, &[], Limits::PAGE).runs[0];
    assert!(data.notes[0].starts_with("2 sample images are left out, the first of them because "), "{:?}", data.notes);
    assert_eq!(report_data(&runs, &[], Limits::ALL).runs[0].samples.len(), 4, "names alone");
}
