//! The loop as a library user calls it, on images of 4×4 pixels.

use super::*;
use crate::compile::{Options, compile};
use crate::exec::cpu::CpuDevice;
use crate::exec::{Device, Examples, ExecError, Executor, KernelTiming, TensorMut, TensorRef, Watched, watched};
use crate::plan::{Feed, Plan};
use crate::tensor::Tensor;
use crate::train::batches::{fill_images, fill_labels};
use crate::train::checkpoint::{Checkpoint, Tensors};
use crate::train::data::{Dataset, Source, Split};
use crate::train::sample_grid::Grid;
use crate::train::{sampling, session};
use crate::types::{InputDecl, StateRole};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;

const WGAN_GP: &str = include_str!("../../tests/programs/wgan-gp.ron");
const CONDITIONAL: &str = include_str!("../../tests/programs/conditional.ron");

fn data(count: usize) -> Dataset {
    let images = (0..count * 16).map(|i| (i * 37 % 256) as u8).collect();
    let labels = Some((0..count).map(|i| (i % 10) as u8).collect());
    let train = Split { images, labels, channels: 1, rows: 4, columns: 4 };
    let (classes, notes) = (None, Vec::new());
    let (name, why) = ("small".into(), "small images".into());
    Dataset { name, source: Source::Embedded, why, classes, notes, unlabelled: None, train, test: None }
}

fn plan(text: &str) -> Plan {
    compile("test.ron", text, &Options::default(), &mut |_| {}).unwrap().plan.unwrap()
}

fn executor(plan: Plan) -> Box<dyn Executor> {
    CpuDevice::new(1).load(Arc::new(plan)).unwrap()
}

/// One entry on batches of the given size, with its steps.
pub(super) fn program(batch: &str, networks: &str, steps: &str) -> String {
    let sizes = if batch.contains('"') { r#"sizes: { "batch": 4 },"# } else { "" };
    format!(
        r#"Program(
            name: "test", {sizes} networks: {{ {networks} }},
            entries: {{ "train_step": Entry(
                inputs: {{ "x": Images([{batch}, 1, 4, 4]) }}, steps: [{steps}], outputs: ["loss"],
            ) }},
        )"#
    )
}

pub(super) fn session(text: &str, count: usize) -> (Session, Meta) {
    let (mut plan, data) = (plan(text), data(count));
    let meta = Meta::new(&plan, &data, 5);
    session::specialise(&mut plan, &data);
    let mut session = Session::new(executor(plan), data, 5).unwrap();
    session.initialise().unwrap();
    (session, meta)
}

#[derive(Default)]
pub(super) struct Seen {
    pub(super) reports: Vec<Progress>,
    pub(super) saved: Vec<u64>,
    pub(super) warnings: Vec<String>,
    pub(super) notes: Vec<String>,
    pub(super) looks: bool,
    pub(super) looked: usize,
    pub(super) cancel_at: Option<usize>,
}

impl Observer for Seen {
    fn is_cancelled(&mut self) -> bool {
        self.cancel_at.is_some_and(|at| self.looked >= at)
    }
    fn wants_progress(&mut self) -> bool {
        self.looks
    }
    fn progress(&mut self, _: &Progress) {
        self.looked += 1;
    }
    fn report(&mut self, now: &Progress) {
        self.reports.push(now.clone());
    }
    fn saved(&mut self, step: u64, _: &Path) {
        self.saved.push(step);
    }
    fn warning(&mut self, message: &str) {
        self.warnings.push(message.into());
    }
    fn note(&mut self, message: &str) {
        self.notes.push(message.into());
    }
}

pub(super) fn pace(until: u64) -> Pace {
    Pace { until, ..Pace::default() }
}

pub(super) fn run_dir() -> (TempDir, RunDir) {
    let dir = TempDir::new().unwrap();
    let run = RunDir::create(dir.path(), Some("r"), "test").unwrap();
    (dir, run)
}

pub(super) const LINE: &str = r#""net": Network(input: [1, 4, 4], layers: [Flatten(), Dense(1)])"#;
const LINE_STEPS: &str = r#"Let("y", Call("net", "x", Training)), Let("loss", Mean(Mul("y", "y"))),
    Minimise("loss", "net", Sgd(lr: 0.001))"#;

/// 11 = 2·4 + 3: everything that follows the batch has 3 in the last step of the epoch.
#[test]
fn smaller_last_batches_train_wherever_the_size_is_used() {
    for text in [WGAN_GP, CONDITIONAL] {
        let (mut session, meta) = session(text, 11);
        assert_eq!(session.left_out(), [] as [&str; 0]);
        let (_dir, run) = run_dir();
        let mut seen = Seen::default();
        assert_eq!(train(&mut session, &run, meta, &pace(6), &mut seen).unwrap(), Ended::Complete);
        assert_eq!(seen.saved, [0, 3, 6]);
        let ends: Vec<(u64, f64)> = seen.reports.iter().map(|p| (p.step, p.epoch)).collect();
        assert_eq!(ends, [(3, 1.0), (6, 2.0)]);
        assert!(seen.reports.iter().all(|p| p.ends_epoch && p.values.len() == 2), "{:?}", seen.reports);
    }
}

#[test]
fn a_remainder_that_no_entry_takes_is_left_out() {
    // A number instead of a name, and a state tensor as large as the batch.
    let literal = program("4", LINE, LINE_STEPS);
    let shaped = program(r#""batch""#, &LINE.replace("Dense(1)", r#"Dense("batch")"#), LINE_STEPS);
    for text in [literal, shaped] {
        let (mut session, meta) = session(&text, 11);
        let left_out = session.left_out().join("\n");
        assert!(left_out.contains("leaves out 3 of the 11 images"), "{left_out}");
        assert_eq!(session.steps_per_epoch(), 2);
        let (_dir, run) = run_dir();
        assert_eq!(train(&mut session, &run, meta, &pace(4), &mut ()).unwrap(), Ended::Complete);
        assert_eq!(session.epoch(), 2.0);
    }
}

/// Parameters that are infinite behind a saturated unit, and NaN behind a selection (the root has an infinite slope at
/// 0): the losses stay finite.
#[test]
fn what_is_not_finite_behind_finite_losses_is_never_saved() {
    let saturated = program(
        r#""batch""#,
        LINE,
        r#"Let("loss", Mul(1e4, Mean(Sigmoid(Call("net", Add(Mul("x", 0), 1), Training))))),
           Minimise("loss", "net", Sgd(lr: 3e38))"#,
    );
    let hidden = program(
        r#""batch""#,
        LINE,
        r#"Let("y", Mul(Call("net", "x", Training), 0.0001)),
           Let("u", Mul("y", 0)),
           Let("loss", Mean(Select(Gt("u", 0), Sqrt("u"), 0))), Minimise("loss", "net", Sgd(lr: 0.1))"#,
    );
    for text in [saturated, hidden] {
        let (mut session, meta) = session(&text, 8);
        let (_dir, run) = run_dir();
        let mut seen = Seen::default();
        let error = train(&mut session, &run, meta, &pace(100), &mut seen).unwrap_err();
        let TrainError::NonFinite(found) = &error else { panic!("{error}") };
        assert_eq!(found.networks, ["net"], "{error}");
        assert!(found.values["loss"].is_finite(), "{error}");
        assert_eq!((found.after, found.step, found.saved), (0, 2, 0), "seen at the end of the first epoch");
        let told = error.to_string();
        assert!(told.contains("`net` became infinite or NaN between steps 1 and 2"), "{told}");
        assert!(told.contains("checkpoint.safetensors, of step 0") && told.contains("--set"), "{told}");
        assert_eq!(seen.saved, [0]);
        assert_eq!(checkpoint::load(&run.checkpoint()).unwrap().meta.step, 0);
    }
}

/// Each tensor of a network alone, at both ends, also where others have more parts; what is large and finite is no matter.
#[test]
fn every_tensor_that_a_step_updates_is_looked_at() {
    // Of a linear loss, whose gradients know nothing of the weights before them.
    let text = program(
        r#""batch""#,
        r#""net": Network(input: [1, 4, 4], layers: [Flatten(), Dense(700), BatchNorm()]),
           "other": Network(input: [700], layers: [Dense(3)])"#,
        r#"Let("y", Call("net", "x", Training)), Let("loss", Mean("y")),
           Let("z", Mean(Call("other", Detach("y"), Training))),
           Minimise("loss", "net", Sgd(lr: 0.1)), Minimise("z", "other", Sgd(lr: 0.1))"#,
    );
    let plan = plan(&text);
    let mut executor = CpuDevice::new(2).load(Arc::new(plan.clone())).unwrap();
    session::initialise(executor.as_mut(), 5).unwrap();
    let mut state = session::State::of(executor.as_mut());
    let types = state.types();
    let mut copy = |(i, (name, ty))| {
        let bytes = state.view(i).unwrap().to_le_bytes().into_owned();
        (name, Tensor::from_le_bytes(ty, &bytes).unwrap())
    };
    let start: Vec<(String, Tensor)> = types.into_iter().enumerate().map(&mut copy).collect();
    let mut session = Session::new(executor, data(8), 5).unwrap();
    let mut flagged = |poked: &str, at: usize, value: f32| {
        let mut tensors = BTreeMap::new();
        for (name, mut tensor) in start.clone() {
            if name == poked {
                tensor.values_mut().unwrap()[at] = value;
            }
            tensors.insert(name, tensor);
        }
        let meta = Meta::default();
        session.restore(&checkpoint::Checkpoint { file: "x".into(), meta, tensors }).unwrap();
        session.advance(1).unwrap();
        session.non_finite().unwrap()
    };
    assert!(flagged("", 0, 0.0).is_empty());
    let mut looked_at = 0;
    for state in &plan.states {
        if !matches!(state.role, StateRole::Parameter | StateRole::Statistic) {
            continue;
        }
        looked_at += 1;
        let network = state.name.split('/').next().unwrap();
        for at in [0, state.ty.elements() / 2, state.ty.elements() - 1] {
            for value in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
                let found = flagged(&state.name, at, value);
                assert!(found.iter().any(|n| n == network), "{} at {at}: {found:?}", state.name);
            }
        }
        if state.role == StateRole::Statistic {
            let found = flagged(&state.name, 0, f32::MAX);
            assert!(found.is_empty(), "{}: {found:?}", state.name);
        }
    }
    assert_eq!(looked_at, 8);
}

/// A state that a plan without flags left infinite is found when it is saved.
#[test]
fn state_is_looked_at_before_it_is_saved() {
    let mut plan = plan(&program(r#""batch""#, LINE, LINE_STEPS));
    // As a plan of an older version, whose flags are no flags.
    for state in &mut plan.states {
        if state.role == StateRole::NonFinite {
            state.role = StateRole::Statistic;
        }
    }
    let weight = plan.states.iter().position(|s| s.name.ends_with("weight")).unwrap();
    let data = data(8);
    let meta = Meta::new(&plan, &data, 5);
    let mut executor = executor(plan);
    executor.write_state(weight, TensorRef::f32(&[f32::INFINITY; 16])).unwrap();
    let mut session = Session::new(executor, data, 5).unwrap();
    let (_dir, run) = run_dir();
    let error = train(&mut session, &run, meta, &pace(1), &mut ()).unwrap_err();
    assert!(matches!(&error, TrainError::NonFinite(found) if found.networks == ["net"]), "{error}");
    assert!(!run.checkpoint().exists());
}

/// Counts what is read, as if each read were a wait for a device.
struct Counting {
    inner: Box<dyn Executor>,
    outputs: Arc<AtomicUsize>,
}

impl Executor for Counting {
    fn plan(&self) -> &Plan {
        self.inner.plan()
    }
    fn submit(&mut self, entry: usize, inputs: &[TensorRef]) -> Result<(), ExecError> {
        self.inner.submit(entry, inputs)
    }
    fn wait(&mut self) -> Result<(), ExecError> {
        self.inner.wait()
    }
    fn profile(&mut self, entry: usize, inputs: &[TensorRef]) -> Result<Vec<KernelTiming>, ExecError> {
        self.inner.profile(entry, inputs)
    }
    fn read_output(&mut self, entry: usize, output: usize, into: TensorMut) -> Result<(), ExecError> {
        self.outputs.fetch_add(1, Ordering::SeqCst);
        self.inner.read_output(entry, output, into)
    }
    fn read_state(&mut self, state: usize, into: TensorMut) -> Result<(), ExecError> {
        self.inner.read_state(state, into)
    }
    fn write_state(&mut self, state: usize, from: TensorRef) -> Result<(), ExecError> {
        self.inner.write_state(state, from)
    }
}

#[test]
fn losses_are_read_when_somebody_looks() {
    let reads = |seen: &mut Seen| {
        let plan = plan(&program(r#""batch""#, LINE, LINE_STEPS));
        let (data, outputs) = (data(400), Arc::new(AtomicUsize::new(0)));
        let meta = Meta::new(&plan, &data, 5);
        let executor = Counting { inner: executor(plan), outputs: outputs.clone() };
        let mut session = Session::new(Box::new(executor), data, 5).unwrap();
        session.initialise().unwrap();
        let (_dir, run) = run_dir();
        train(&mut session, &run, meta, &pace(120), seen).unwrap();
        outputs.load(Ordering::SeqCst)
    };
    // Metrics after 50 and 100 steps, the epoch's end after 100, and the last step.
    assert_eq!(reads(&mut Seen::default()), 3);
    let mut looking = Seen { looks: true, ..Seen::default() };
    assert_eq!(reads(&mut looking), 120);
    assert_eq!(looking.looked, 118, "two of the steps are reported");
}

/// A run's metrics.
fn lines(run: &RunDir) -> Vec<metrics::Line> {
    metrics::read(&run.metrics()).unwrap().into_iter().map(|placed| placed.line.unwrap()).collect()
}

#[test]
fn a_cancelled_run_is_saved_and_resumed_to_the_same_bits() {
    let text = program(r#""batch""#, LINE, LINE_STEPS);
    let states = |cancel: bool| {
        let (mut session, meta) = session(&text, 11);
        let (_dir, run) = run_dir();
        let mut seen = Seen { looks: cancel, cancel_at: cancel.then_some(2), ..Seen::default() };
        let ended = train(&mut session, &run, meta.clone(), &pace(8), &mut seen).unwrap();
        if cancel {
            assert_eq!((ended, session.step_count()), (Ended::Cancelled, 2));
            let checkpoint = checkpoint::load(&run.checkpoint()).unwrap();
            assert_eq!(checkpoint.meta.step, 2);
            let at_stop = lines(&run);
            let [line] = &at_stop[..] else { panic!("{at_stop:?}") };
            assert!(line.step == 2 && line.epoch == Some(2.0 / 3.0) && line.seconds > Some(0.0), "{line:?}");
            assert!(line.values["loss"].is_some() && line.values["images_per_second"] > Some(0.0), "{line:?}");
            session.initialise().unwrap();
            session.restore(&checkpoint).unwrap();
            assert_eq!(train(&mut session, &run, meta.clone(), &pace(8), &mut ()).unwrap(), Ended::Complete);
            let all = lines(&run);
            assert_eq!(all.iter().map(|line| line.step).collect::<Vec<_>>(), [2, 3, 6, 8]);
            assert!(all[0] == *line && all[1].seconds > line.seconds, "the clock goes on: {all:?}");
            assert_eq!(train(&mut session, &run, meta, &pace(8), &mut ()).unwrap(), Ended::NothingToDo);
        }
        checkpoint::load(&run.checkpoint()).unwrap().tensors
    };
    assert_eq!(states(true), states(false));
}

/// A schedule, a moving average, a spectral norm and several steps of the critic in one.
const CRITIC: &str = r#"Program(
    name: "critic",
    sizes: { "batch": 2, "times": 3, "all": Mul("times", "batch") },
    networks: {
        "generator": Network(input: [3], init: He(), layers: [Dense(16), Tanh(), Reshape([1, 4, 4])]),
        "critic": Network(input: [1, 4, 4], layers: [
            Residual([Conv(channels: 1, kernel: 3, pad: 1), LeakyRelu(0.2)]), Flatten(), SpectralNorm(Dense(1)),
        ]),
    },
    entries: {
        "train_step": Entry(
            inputs: { "images": Images(["all", 1, 4, 4]) },
            steps: [
                Repeat(times: "times", each: {"real": "images"}, steps: [
                    Let("fake", Detach(Call("generator", Normal(["batch", 3]), Training))),
                    Let("loss_c", Sub(Mean(Call("critic", "fake", Training)), Mean(Call("critic", "real", Training)))),
                    Minimise("loss_c", "critic", ClipNorm(0.5, RmsProp(lr: WarmUp(LinearDecay(1e-2, 1e-3, 6), 3)))),
                ]),
                Let("loss", Neg(Mean(Call("critic", Call("generator", Normal(["batch", 3]), Training), Training)))),
                Minimise("loss", "generator", AdamW(lr: CosineDecay(1e-2, 0.0, 8))),
                Average(network: "generator", decay: 0.9, ramp: true),
            ],
            outputs: ["loss", "loss_c"],
        ),
        "sample": Entry(
            inputs: { "noise": Tensor([4, 3]) },
            steps: [Let("made", Call("generator", "noise", Inference))],
            outputs: ["made"],
        ),
    },
)"#;

/// What follows the steps is state: a run that is resumed leaves the same bits, averages included.
#[test]
fn schedules_averages_and_repeated_steps_are_resumed_to_the_same_bits() {
    let states = |stops: &[u64]| {
        let (mut session, meta) = session(CRITIC, 20);
        assert_eq!(session.left_out().len(), 1, "two images make no whole step: {:?}", session.left_out());
        let (_dir, run) = run_dir();
        for &stop in stops {
            if run.checkpoint().is_file() {
                session.initialise().unwrap();
                session.restore(&checkpoint::load(&run.checkpoint()).unwrap()).unwrap();
            }
            assert_eq!(train(&mut session, &run, meta.clone(), &pace(stop), &mut ()).unwrap(), Ended::Complete);
        }
        checkpoint::load(&run.checkpoint()).unwrap().tensors
    };
    let whole = states(&[9]);
    assert_eq!(whole, states(&[4, 9]));
    let values = |name: &str| whole[name].values::<f32>().unwrap().to_vec();
    assert_ne!(values("generator/0-dense/weight/average"), values("generator/0-dense/weight"));
    assert_eq!(values("generator/average/t"), [9.0]);
}

/// Three steps of the critic draw three noises, and see three parts of the images.
#[test]
fn repeated_steps_differ() {
    let module = crate::declare::load("test.ron", CRITIC, &[], &[]).unwrap();
    let graph = &module.entries.iter().find(|e| e.graph.name == "train_step").unwrap().graph;
    let mut streams = BTreeSet::new();
    let mut starts = BTreeSet::new();
    for id in graph.ids() {
        match graph.op(id) {
            crate::ir::Op::Random { stream, .. } => assert!(streams.insert(stream.clone()), "{stream} is drawn twice"),
            crate::ir::Op::Slice { start, .. } => drop(starts.insert(start[0])),
            _ => {}
        }
    }
    assert_eq!((streams.len(), starts), (4, BTreeSet::from([0, 2, 4])));
}

/// A checkpoint with the state of an executor, and the facts of another.
fn state_of(executor: &mut dyn Executor, facts: &Checkpoint) -> Checkpoint {
    let mut state = session::State::of(executor);
    let types = state.types().into_iter().enumerate();
    let read = |(i, (name, ty))| (name, Tensor::from_le_bytes(ty, &state.view(i).unwrap().to_le_bytes()).unwrap());
    Checkpoint { tensors: types.map(read).collect(), ..facts.clone() }
}

/// `sample --ema`: the averages take the place of the parameters, where there are some.
#[test]
fn averages_take_the_place_of_parameters() {
    let (mut session, meta) = session(CRITIC, 18);
    let (_dir, run) = run_dir();
    train(&mut session, &run, meta, &pace(5), &mut ()).unwrap();
    let checkpoint = checkpoint::load(&run.checkpoint()).unwrap();
    let wanted = |labels| {
        let (grid, noise) = (Grid { rows: 1, columns: 6 }, sampling::Noise::Seed(3));
        sampling::Wanted { grid, noise, labels, truncation: None }
    };
    let made = |averaged: bool| {
        let (mut executor, mut checkpoint) = (executor(plan(CRITIC)), checkpoint.clone());
        if averaged {
            sampling::use_averages(&mut checkpoint).unwrap();
        }
        session::restore(executor.as_mut(), &checkpoint).unwrap();
        sampling::sample(executor.as_mut(), &wanted(Vec::new())).unwrap().unwrap()
    };
    let (plain, averaged) = (made(false), made(true));
    assert_eq!(plain.shape, averaged.shape);
    assert_ne!(plain.values, averaged.values);
    let mut new = executor(plan(CRITIC));
    session::initialise(new.as_mut(), 1).unwrap();
    let error = sampling::use_averages(&mut state_of(new.as_mut(), &checkpoint)).unwrap_err().to_string();
    assert!(error.contains("has averaged nothing yet"), "{error}");
    let mut other = executor(plan(WGAN_GP));
    let error = sampling::use_averages(&mut state_of(other.as_mut(), &checkpoint)).unwrap_err().to_string();
    assert!(error.contains("keeps no moving average") && error.contains("Average("), "{error}");
    let error = sampling::sample(new.as_mut(), &wanted(vec![1])).unwrap_err().to_string();
    assert!(error.contains("takes no labels"), "{error}");
}

/// A checkpoint of a version without flags can be resumed.
#[test]
fn a_checkpoint_without_flags_is_restored() {
    let (mut session, meta) = session(&program(r#""batch""#, LINE, LINE_STEPS), 8);
    let (_dir, run) = run_dir();
    train(&mut session, &run, meta, &pace(2), &mut ()).unwrap();
    let mut checkpoint = checkpoint::load(&run.checkpoint()).unwrap();
    assert!(checkpoint.tensors.remove("net/non_finite").is_some());
    session.restore(&checkpoint).unwrap();
    assert_eq!(session.non_finite().unwrap(), [] as [&str; 0]);
    checkpoint.tensors.remove("net/1-dense/weight").unwrap();
    session.restore(&checkpoint).unwrap_err();
}

#[cfg(target_os = "linux")]
#[test]
fn side_outputs_that_fail_are_told_once_and_end_nothing() {
    const SAMPLED: &str = r#""sample": Entry(inputs: { "z": Tensor([36, 1, 4, 4]) },
        steps: [Let("images", Call("same", "z", Inference))], outputs: ["images"]), "train_step""#;
    let networks =
        format!(r#"{LINE}, "same": Network(input: [1, 4, 4], layers: [Flatten(), Dense(16), Reshape([1, 4, 4])])"#);
    let text = program(r#""batch""#, &networks, LINE_STEPS).replace(r#""train_step""#, SAMPLED);
    let (mut session, meta) = session(&text, 8);
    let (_dir, run) = run_dir();
    // No folder can be made where a file is, and a device is not a file of metrics.
    fs::remove_dir(run.samples()).unwrap();
    fs::write(run.samples(), "in the way").unwrap();
    std::os::unix::fs::symlink("/dev/full", run.metrics()).unwrap();
    let mut seen = Seen::default();
    let often = Pace { until: 6, sample_every: 1, metrics_every: 1, ..Pace::default() };
    assert_eq!(train(&mut session, &run, meta.clone(), &often, &mut seen).unwrap(), Ended::Complete);
    assert_eq!(seen.saved, [0, 1, 2, 3, 4, 5, 6]);
    let told = seen.warnings.join("\n");
    assert_eq!(seen.warnings.len(), 2, "{told}");
    assert!(told.contains("samples are missing") && told.contains("no metrics are written"), "{told}");
    // A folder that was only removed is made again.
    fs::remove_file(run.samples()).unwrap();
    train(&mut session, &run, meta, &Pace { until: 7, ..often }, &mut seen).unwrap();
    assert!(run.sample(7).is_file());
}

/// Whoever is killed right after a checkpoint leaves the line of its step.
#[test]
fn the_metrics_are_written_before_the_checkpoint() {
    struct AtOnce {
        metrics: PathBuf,
        seen: Vec<(u64, u64)>,
    }
    impl Observer for AtOnce {
        fn saved(&mut self, step: u64, _: &Path) {
            let text = fs::read_to_string(&self.metrics).unwrap_or_default();
            let last = text.lines().last().map_or(0, |line| serde_json::from_str::<Record>(line).unwrap().step);
            self.seen.push((step, last));
        }
    }
    let (mut session, meta) = session(WGAN_GP, 11);
    let (_dir, run) = run_dir();
    let mut observer = AtOnce { metrics: run.metrics(), seen: Vec::new() };
    train(&mut session, &run, meta, &pace(6), &mut observer).unwrap();
    assert_eq!(observer.seen, [(0, 0), (3, 3), (6, 6)]);
}

/// A device that keeps examples: what is handed over together it does one by one.
struct Keeping {
    inner: Box<dyn Executor>,
    kept: Split,
    /// Of the last series and the one before it.
    rows: [Vec<f32>; 2],
    longest: Arc<AtomicUsize>,
}

impl Keeping {
    fn of(plan: Plan, longest: &Arc<AtomicUsize>) -> Box<dyn Executor> {
        let kept = Split { images: Vec::new(), labels: None, channels: 1, rows: 4, columns: 4 };
        Box::new(Keeping { inner: executor(plan), kept, rows: Default::default(), longest: longest.clone() })
    }
}

impl Executor for Keeping {
    fn plan(&self) -> &Plan {
        self.inner.plan()
    }
    fn submit(&mut self, entry: usize, inputs: &[TensorRef]) -> Result<(), ExecError> {
        assert_ne!(self.plan().entries[entry].name, session::entry::TRAIN, "nothing is staged");
        self.inner.submit(entry, inputs)
    }
    fn wait(&mut self) -> Result<(), ExecError> {
        self.inner.wait()
    }
    fn profile(&mut self, entry: usize, inputs: &[TensorRef]) -> Result<Vec<KernelTiming>, ExecError> {
        self.inner.profile(entry, inputs)
    }
    fn read_output(&mut self, entry: usize, output: usize, into: TensorMut) -> Result<(), ExecError> {
        self.inner.read_output(entry, output, into)
    }
    fn read_state(&mut self, state: usize, into: TensorMut) -> Result<(), ExecError> {
        self.inner.read_state(state, into)
    }
    fn write_state(&mut self, state: usize, from: TensorRef) -> Result<(), ExecError> {
        self.inner.write_state(state, from)
    }
    fn keep(&mut self, _: &[usize], examples: Examples) -> Result<bool, ExecError> {
        (self.kept.images, self.kept.labels) = (examples.images.to_vec(), examples.labels.map(<[u8]>::to_vec));
        Ok(true)
    }
    fn submit_series(&mut self, entry: usize, seed: [u32; 2], numbers: &[u32]) -> Result<(), ExecError> {
        let plan = self.plan().clone();
        let batch = session::examples(&plan.entries[entry]);
        self.longest.fetch_max(numbers.len() / batch, Ordering::SeqCst);
        self.rows.swap(0, 1);
        self.rows[0].clear();
        for numbers in numbers.chunks_exact(batch) {
            let input = |input: &InputDecl| {
                let mut tensor = Tensor::zeros(input.ty.clone());
                match input.feed {
                    Feed::Images => fill_images(&self.kept, numbers, tensor.values_mut().unwrap()),
                    Feed::Labels => assert!(fill_labels(&self.kept, numbers, tensor.values_mut().unwrap())),
                    _ => tensor = Tensor::new([2], &seed),
                }
                tensor
            };
            let inputs: Vec<Tensor> = plan.entries[entry].inputs.iter().map(input).collect();
            self.inner.submit(entry, &inputs.iter().map(Tensor::view).collect::<Vec<_>>())?;
            for it in watched(&plan, entry) {
                let mut value = [0f32];
                match it {
                    Watched::Output(i) => self.inner.read_output(entry, i, TensorMut::f32(&mut value))?,
                    Watched::State(i) => self.inner.read_state(i, TensorMut::f32(&mut value))?,
                }
                self.rows[0].push(value[0]);
            }
        }
        Ok(())
    }
    fn read_series(&mut self, before: usize, into: &mut [f32]) -> Result<(), ExecError> {
        into.copy_from_slice(&self.rows[before]);
        Ok(())
    }
}

/// All that a run leaves and tells, but for times.
#[derive(Debug, PartialEq)]
struct Whole {
    ended: Result<Ended, String>,
    tensors: BTreeMap<String, Tensor>,
    lines: Vec<(u64, u64, Vec<Option<f64>>)>,
    saved: Vec<u64>,
    reports: Vec<(u64, u64, bool, Vec<u32>)>,
}

/// A run of a program on small images; gives also the most steps that were handed over together, 0 where all were staged.
fn whole(text: &str, keeps: bool, pace: &Pace, cancel_at: Option<usize>) -> (Whole, usize) {
    let (mut plan, data) = (plan(text), data(103));
    session::specialise(&mut plan, &data);
    let longest = Arc::new(AtomicUsize::new(0));
    let meta = Meta::new(&plan, &data, 5);
    let executor = if keeps { Keeping::of(plan, &longest) } else { executor(plan) };
    let mut session = Session::new(executor, data, 5).unwrap();
    session.initialise().unwrap();
    let (dir, run) = run_dir();
    let mut seen = Seen { looks: cancel_at.is_some(), cancel_at, ..Seen::default() };
    let mut ended = train(&mut session, &run, meta.clone(), pace, &mut seen);
    if matches!(ended, Ok(Ended::Cancelled)) {
        seen.cancel_at = None;
        let checkpoint = checkpoint::load(&run.checkpoint()).unwrap();
        assert_eq!(checkpoint.meta.step, session.step_count());
        session.restore(&checkpoint).unwrap();
        ended = train(&mut session, &run, meta, pace, &mut seen);
    }
    let metrics = fs::read_to_string(run.metrics()).unwrap();
    let line = |line: &str| {
        let record: Record = serde_json::from_str(line).unwrap();
        assert!(record.images_per_second > 0.0 && record.images_per_second.is_finite() && record.seconds >= 0.0);
        (record.step, record.epoch.to_bits(), record.values.into_values().collect())
    };
    let bits = |values: &BTreeMap<String, f32>| values.values().map(|v| v.to_bits()).collect();
    let whole = Whole {
        ended: ended.map_err(|error| error.to_string().replace(&dir.path().display().to_string(), "")),
        tensors: checkpoint::load(&run.checkpoint()).unwrap().tensors,
        lines: metrics.lines().map(line).collect(),
        saved: seen.saved,
        reports: seen.reports.iter().map(|p| (p.step, p.epoch.to_bits(), p.ends_epoch, bits(&p.values))).collect(),
    };
    (whole, longest.load(Ordering::SeqCst))
}

/// 26 steps in an epoch, of which the last is of three images.
#[test]
fn steps_that_are_handed_over_together_leave_what_single_ones_leave() {
    let often = Pace { metrics_every: 7, report_every: 14, sample_every: 33, ..pace(100) };
    for text in [WGAN_GP, CONDITIONAL] {
        let (expected, none) = whole(text, false, &often, None);
        assert_eq!((&expected.ended, none), (&Ok(Ended::Complete), 0));
        assert_eq!(expected.saved, [0, 26, 33, 52, 66, 78, 99, 100]);
        let (together, longest) = whole(text, true, &often, None);
        assert!(together == expected, "{together:?}\n{expected:?}");
        assert!(longest > 1, "several steps at once");
        // Stopped anywhere, and resumed from there.
        let (mut stopped, _) = whole(text, true, &often, Some(3));
        assert_eq!(stopped.tensors, expected.tensors);
        // Where it stopped is a line too, if not one anyway.
        let is_usual = |step: u64| expected.lines.iter().any(|line| line.0 == step);
        let extra: Vec<u64> = stopped.lines.iter().map(|line| line.0).filter(|&step| !is_usual(step)).collect();
        assert!(extra.len() <= 1 && extra.iter().all(|step| stopped.saved.contains(step)), "{extra:?}");
        stopped.lines.retain(|line| is_usual(line.0));
        assert_eq!(stopped.lines, expected.lines);
    }
}

/// The very step after which something is not finite is told, though others were begun after it.
#[test]
fn what_is_not_finite_is_found_at_its_step_among_several() {
    let hidden = program(
        r#""batch""#,
        LINE,
        r#"Let("y", Call("net", "x", Training)), Let("loss", Mean(Mul("y", "y"))),
           Minimise("loss", "net", Sgd(lr: 30.0))"#,
    );
    for every in [1, 4, 50] {
        let pace = Pace { metrics_every: every, ..pace(100) };
        let (expected, _) = whole(&hidden, false, &pace, None);
        let error = expected.ended.as_ref().unwrap_err();
        assert!(error.contains("infinite or NaN") && error.contains("of step 0"), "{error}");
        assert_eq!(whole(&hidden, true, &pace, None).0, expected, "every {every}");
    }
}

/// Else two steps whose losses are read one right after the other would be a thousand times as fast as the device is.
#[test]
fn steps_that_are_complete_when_they_are_asked_for_were_so_when_they_were_handed_over() {
    let handed = Instant::now();
    let asked = handed + Duration::from_secs(2);
    assert_eq!(complete(handed, asked, asked + Duration::from_micros(50)), handed);
    let waited = asked + Duration::from_millis(30);
    assert_eq!(complete(handed, asked, waited), waited);
}

#[test]
fn rates_are_of_steps_alone() {
    let begun = Instant::now();
    let mut rate = Rate { images: 100, ..Rate::start(begun) };
    rate.leave_out(Duration::from_secs(3));
    assert_eq!(rate.per_second(begun + Duration::from_secs(4)), 100.0);
}
