//! How good the samples of a program are, measured while it trains.

use super::data::Dataset;
use super::quality::judge::Judge;
use super::quality::{Images, QualityError};
use super::sample_grid::Grid;
use super::sampling;
use super::session::{Scalars, SessionError, copy_state, entry};
use crate::exec::Executor;
use crate::plan::Plan;
use crate::types::AVERAGE;

/// The metric by which the best checkpoint is chosen: lower is better.
pub const DISTANCE: &str = "eval_frechet_distance";
/// Samples that are measured each time where nothing else is asked for.
pub const USUAL: usize = 2000;

/// Makes samples of a program and compares them with real images. Of a network whose moving average the program keeps, the
/// average makes them.
pub struct Examiner {
    judge: Judge,
    /// Indices of the parameters whose averages are kept, and of these.
    averages: Vec<(usize, usize)>,
}

impl Examiner {
    /// Of so many samples at a time, which are compared with as many real images; [`USUAL`] of them, or as many as can be,
    /// where nothing else is asked for.
    ///
    /// # Errors
    /// When the program makes no images that can be measured, or there are too few real ones.
    pub fn new(plan: &Plan, data: &Dataset, samples: Option<usize>, threads: usize) -> Result<Examiner, SessionError> {
        let wrong =
            |problem: String| SessionError::Entry { program: plan.name.clone(), entry: entry::SAMPLE.into(), problem };
        let found = plan.entry(entry::SAMPLE);
        let found = found.ok_or_else(|| wrong("is not there: it makes no images that could be measured".into()))?;
        let [_, shape @ ..] = sampling::image_shape(found).map_err(wrong)?;
        Images::check(shape)?;
        let of = |name: &str| plan.states.iter().position(|state| state.name == name);
        let averages = plan.states.iter().enumerate();
        let averages = averages.filter_map(|(i, state)| Some((of(state.name.strip_suffix(AVERAGE)?)?, i))).collect();
        let samples = samples.unwrap_or_else(|| USUAL.min(Judge::most(data)));
        let judge = Judge::new(data, Some(samples), threads, &mut |_| {})?;
        Ok(Examiner { judge, averages })
    }

    /// Whether averages of weights make the samples.
    pub fn uses_averages(&self) -> bool {
        !self.averages.is_empty()
    }

    /// How many samples are made each time.
    pub fn samples(&self) -> usize {
        self.judge.count()
    }

    /// Measures the program as it is now. The state is afterwards what it was before.
    ///
    /// # Errors
    /// When the executor fails; the state may then be another.
    pub fn examine(&mut self, executor: &mut dyn Executor, seed: u64) -> Result<Scalars, SessionError> {
        let mut own = Vec::with_capacity(self.averages.len());
        for &(parameter, average) in &self.averages {
            own.push(copy_state(executor, parameter)?);
            let average = copy_state(executor, average)?;
            executor.write_state(parameter, average.view())?;
        }
        let grid = Grid { rows: self.samples(), columns: 1 };
        let made = sampling::sample(executor, &sampling::Wanted::of_seed(grid, seed))?;
        for (&(parameter, _), own) in self.averages.iter().zip(&own) {
            executor.write_state(parameter, own.view())?;
        }
        let Some(made) = made else { return Ok(Vec::new()) };
        self.measured(&Images::of_samples(&made)).map_err(SessionError::from)
    }

    fn measured(&mut self, images: &Images) -> Result<Scalars, QualityError> {
        let measures = self.judge.compare(images)?;
        let all = [
            (DISTANCE, measures.frechet_distance),
            ("eval_kernel_distance", measures.kernel_distance.mean),
            ("eval_precision", measures.precision_recall.precision),
            ("eval_recall", measures.precision_recall.recall),
            ("eval_classifier_score", measures.classifier_score),
            ("eval_balance", measures.classes.balance),
        ];
        Ok(all.map(|(name, value)| (name.to_string(), value as f32)).to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::{Options, compile};
    use crate::exec::Device;
    use crate::exec::cpu::CpuDevice;
    use crate::train::checkpoint::{self, Meta, Tensors};
    use crate::train::data::{Split, embedded};
    use crate::train::observer::Observer;
    use crate::train::pace::Pace;
    use crate::train::rundir::RunDir;
    use crate::train::session::Session;
    use crate::train::trainer::{Ended, train};
    use std::fs;

    /// A generator that learns the mean image: one that does not depend on its noise is enough here.
    const PROGRAM: &str = r#"Program(
        name: "mean",
        sizes: { "batch": 50 },
        networks: { "made": Network(input: [2], layers: [Dense(784), Reshape([1, 28, 28])]) },
        entries: {
            "train_step": Entry(
                inputs: { "real": Images(["batch", 1, 28, 28]) },
                steps: [
                    Let("fake", Call("made", Normal(["batch", 2]), Training)),
                    Let("off", Sub("fake", "real")),
                    Let("loss", Mean(Mul("off", "off"))),
                    Minimise("loss", "made", Sgd(lr: 20.0)),
                    Average("made", 0.5),
                ],
                outputs: ["loss"],
            ),
            "sample": Entry(
                inputs: { "noise": Tensor([7, 2]) },
                steps: [Let("images", Call("made", "noise", Inference))],
                outputs: ["images"],
            ),
        },
    )"#;

    fn few() -> Dataset {
        let mut data = embedded::load();
        let Split { images, labels, .. } = &mut data.train;
        images.truncate(100 * 784);
        labels.iter_mut().for_each(|labels| labels.truncate(100));
        data
    }

    fn session() -> (Session, Meta) {
        let plan = compile("mean.ron", PROGRAM, &Options::default(), &mut |_| {}).unwrap().plan.unwrap();
        let data = few();
        let meta = Meta::new(&plan, &data, 4);
        let executor = CpuDevice::new(1).load(plan.into()).unwrap();
        (Session::new(executor, data, 4).unwrap(), meta)
    }

    fn examined() -> (Session, Meta) {
        let (mut session, meta) = session();
        let examiner = Examiner::new(session.plan(), session.data(), Some(40), 1).unwrap();
        assert!(examiner.uses_averages() && examiner.samples() == 40);
        session.examine_by(examiner);
        (session, meta)
    }

    fn state_of(session: &mut Session) -> Vec<Vec<u8>> {
        let mut state = session.state();
        (0..state.types().len()).map(|i| state.view(i).unwrap().to_le_bytes().to_vec()).collect()
    }

    #[derive(Default)]
    struct Seen(Vec<(u64, f32, bool)>);

    impl Observer for Seen {
        fn examined(&mut self, step: u64, measures: &[(String, f32)], is_best: bool) {
            assert_eq!(measures[0].0, DISTANCE);
            self.0.push((step, measures[0].1, is_best));
        }
    }

    #[test]
    fn measuring_changes_nothing_and_the_best_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let pace = |until| Pace { until, examine_every: 3, keep: 2, ..Pace::default() };
        let (mut plain, meta) = session();
        plain.initialise().unwrap();
        let run = RunDir::create(dir.path(), Some("plain"), "mean").unwrap();
        train(&mut plain, &run, meta, &pace(10), &mut Seen::default()).unwrap();
        assert!(!run.best().exists());

        let (mut session, meta) = examined();
        session.initialise().unwrap();
        let run = RunDir::create(dir.path(), Some("examined"), "mean").unwrap();
        let mut seen = Seen::default();
        train(&mut session, &run, meta.clone(), &pace(10), &mut seen).unwrap();
        assert!(state_of(&mut session) == state_of(&mut plain), "another state");
        assert_eq!(seen.0.iter().map(|(step, ..)| *step).collect::<Vec<_>>(), [3, 6, 9, 10]);
        let least = |seen: &[(u64, f32, bool)]| seen.iter().copied().reduce(|a, b| if b.1 < a.1 { b } else { a });
        let best = least(&seen.0).unwrap();
        let saved = |file: &std::path::Path| checkpoint::load(file).unwrap().meta.step;
        assert!(best.2 && saved(&run.best()) == best.0, "{seen:?}", seen = seen.0);
        assert_eq!([8, 9, 10].map(|step| run.kept(step).is_file()), [false, true, true]);
        let lines = fs::read_to_string(run.metrics()).unwrap();
        assert_eq!(lines.lines().filter(|line| line.contains(DISTANCE)).count(), 4, "{lines}");

        // Killed before the best was kept: it is when the run goes on. One that is better is kept in its place alone.
        fs::remove_file(run.best()).unwrap();
        let (mut resumed, _) = examined();
        resumed.restore(&checkpoint::load(&run.checkpoint()).unwrap()).unwrap();
        let mut more = Seen::default();
        assert_eq!(train(&mut resumed, &run, meta, &pace(13), &mut more).unwrap(), Ended::Complete);
        let of_ten = seen.0[3];
        let since: Vec<_> = [&[of_ten], &more.0[..]].concat();
        assert_eq!(saved(&run.best()), least(&since).unwrap().0);
    }

    /// The averages make the samples, where there are any.
    #[test]
    fn averages_are_measured() {
        let (mut session, _) = examined();
        session.initialise().unwrap();
        for _ in 0..3 {
            session.advance(1).unwrap();
        }
        let averaged = session.examine().unwrap();
        let own = PROGRAM.replace(r#"Average("made", 0.5),"#, "");
        let plan = compile("mean.ron", &own, &Options::default(), &mut |_| {}).unwrap().plan.unwrap();
        let executor = CpuDevice::new(1).load(plan.into()).unwrap();
        let mut session = Session::new(executor, few(), 4).unwrap();
        session.initialise().unwrap();
        for _ in 0..3 {
            session.advance(1).unwrap();
        }
        session.examine_by(Examiner::new(session.plan(), session.data(), Some(40), 1).unwrap());
        assert!(!session.examiner().unwrap().uses_averages());
        assert_ne!(session.examine().unwrap(), averaged);
    }

    #[test]
    fn what_cannot_be_measured_is_said() {
        let (session, _) = session();
        let error =
            |samples| Examiner::new(session.plan(), session.data(), Some(samples), 1).err().unwrap().to_string();
        assert!(error(51).contains("from 20 to 50"), "{}", error(51));
        let plan = |text: &str| compile("t.ron", text, &Options::default(), &mut |_| {}).unwrap().plan.unwrap();
        let error = |plan: &Plan| Examiner::new(plan, session.data(), None, 1).err().unwrap().to_string();
        let lenet = plan(crate::declare::builtin::text("lenet").unwrap());
        assert!(error(&lenet).contains("`sample` of `lenet` is not there"), "{}", error(&lenet));
        let faces = plan(crate::declare::builtin::text("dcgan64").unwrap());
        assert!(error(&faces).contains("3 channels"), "{}", error(&faces));
    }
}
