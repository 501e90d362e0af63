//! `gcc-gan eval`.

use super::device::{DeviceArgs, Opened};
use super::output::check_output;
use anyhow::{Context, Result, anyhow, bail};
use gcc_gan::inspect::{Align, Table};
use gcc_gan::plan::{Feed, Plan};
use gcc_gan::train::batches::to_unit;
use gcc_gan::train::checkpoint::{self, Checkpoint};
use gcc_gan::train::data::{Dataset, Fit, Wanted};
use gcc_gan::train::picture::Format;
use gcc_gan::train::quality::judge::{Judge, Measures, NEAREST};
use gcc_gan::train::quality::neighbours::Nearest;
use gcc_gan::train::quality::{Images, classifier, image_file};
use gcc_gan::train::sample_grid::{self, Grid};
use gcc_gan::train::sampling;
use gcc_gan::train::{rundir, session, thousands};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Measure how good a program's samples are
///
/// Makes images with a trained program and compares them with real ones of the data that it was trained on, in the
/// features of a classifier of digits inside the program. Real images are measured in the same way beside them: that is as
/// good as samples can be. Distances depend on the number of samples: compare those of the same number only.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gcc-gan eval runs/dcgan-001
  gcc-gan eval runs/dcgan-001 -o nearest.png       samples, each beside its nearest training image
  gcc-gan eval runs/dcgan-paper-001 --ema --samples 2000
  gcc-gan eval --images samples.npy --data mnist   the images of another program
  gcc-gan eval runs/dcgan-001 --json")]
pub struct Args {
    /// A run's folder, or a checkpoint file
    #[arg(value_name = "RUN", required_unless_present = "images", conflicts_with = "images")]
    run: Option<PathBuf>,
    /// Measure the images of a file in place of a run's samples: an IDX file, or an array that numpy.save wrote, of bytes or
    /// of float32 from -1 to 1
    #[arg(long, value_name = "FILE", conflicts_with_all = ["ema", "seed"])]
    images: Option<PathBuf>,
    /// Samples to make, and real images to compare them with [default: 10,000, or as many as there are; with --images, all of the
    /// file's]
    #[arg(long, value_name = "N")]
    samples: Option<usize>,
    /// Another seed gives other samples
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Compare with these images [default: those that the run was trained on; with --images, auto: see `train`]
    #[arg(long)]
    data: Option<String>,
    /// With the moving averages of the weights, of a program that keeps them by `Average`
    #[arg(long)]
    ema: bool,
    /// A picture to write (.png, .jpg, .gif or .webp): samples, each with the training image that it is nearest to on its right
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print as JSON
    #[arg(long)]
    json: bool,
    /// Never use the network
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Pairs of images in the picture.
const PICTURE: Grid = Grid { rows: 8, columns: 5 };

#[derive(Serialize)]
struct Report<'r> {
    /// The run or the file of images.
    name: String,
    /// Of a run.
    step: Option<u64>,
    seed: Option<u64>,
    ema: bool,
    samples: usize,
    data: &'r str,
    /// Of the classifier's weights.
    classifier_sha256: &'r str,
    measures: &'r Measures,
    /// The same of real images.
    real: &'r Measures,
    /// The part of the samples in which the classifier sees the class that they were made for.
    label_agreement: Option<f64>,
}

pub fn run(args: Args) -> Result<ExitCode> {
    let source = match (&args.run, &args.images) {
        (Some(run), _) => Source::of_run(&args, run)?,
        (None, Some(file)) => Source::of_file(&args, file)?,
        (None, None) => bail!("name a run, or a file of images with --images"),
    };
    let data = source.data(&args)?;
    let bar = Bar::new();
    bar.say("real images");
    let asked = source.images.as_ref().map(Images::len).map(|found| args.samples.unwrap_or(found)).or(args.samples);
    let mut judge = Judge::new(&data, asked, args.device.thread_count(), &mut |done| bar.at(done))?;
    let count = judge.count();

    bar.say("making samples");
    let images = source.samples(&args, count)?;
    bar.say("samples");
    let seen = judge.measure(&images, &mut |done| bar.at(done))?;
    bar.say("other real images");
    let real = judge.floor(&mut |done| bar.at(done))?;
    bar.clear();

    let classes = source.classes;
    // Only a classifier of as many classes can say whether a sample is of its own.
    let classes = classes.filter(|&classes| classes == seen.measures.classes.counts.len());
    let agreement = classes.map(|classes| {
        let right = seen.predicted.iter().enumerate().filter(|(i, class)| **class == i % classes).count();
        right as f64 / count as f64
    });
    if let Some(output) = &args.output {
        write_picture(output, &images, &seen.nearest, &judge)?;
    }
    let report = Report {
        name: source.name.display().to_string(),
        step: source.run.as_ref().map(|(checkpoint, ..)| checkpoint.meta.step),
        seed: source.run.as_ref().map(|_| args.seed),
        ema: args.ema,
        samples: count,
        data: &data.why,
        classifier_sha256: classifier::SHA256,
        measures: &seen.measures,
        real: &real,
        label_agreement: agreement,
    };
    if args.json {
        super::print_json(&report)?;
    } else {
        super::print(&table(&source.described(&args), &report, data.train.len()))?;
        if let Some(output) = &args.output {
            super::print(&format!("wrote {}: samples, each beside its nearest training image", output.display()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What is measured: a run's program, or a file of images.
struct Source {
    /// The run's folder or the file, as it was named.
    name: PathBuf,
    /// Absent for a file.
    run: Option<(Checkpoint, Plan, Opened)>,
    /// Absent for a run.
    images: Option<Images>,
    /// The number of its classes, where its samples are of a class.
    classes: Option<usize>,
}

impl Source {
    /// A run whose program makes images that can be measured: that is seen before anything takes time.
    fn of_run(args: &Args, run: &Path) -> Result<Source> {
        let file = rundir::checkpoint_of(run)?;
        check_picture(args, &file)?;
        let mut checkpoint = checkpoint::load(&file)?;
        if args.ema {
            sampling::use_averages(&mut checkpoint)?;
        }
        let opened = args.device.open()?.without_bar();
        let plan = super::program_text::plan_again(&checkpoint, &[], &opened, false)?;
        let Some(entry) = plan.entry(session::entry::SAMPLE) else {
            bail!("`{}` has no entry `sample`: it makes no images that could be measured", plan.name);
        };
        let shape = sampling::image_shape(entry);
        let [_, shape @ ..] = shape.map_err(|problem| anyhow!("entry `sample` of `{}` {problem}", plan.name))?;
        Images::check(shape)?;
        let classes = entry.inputs.iter().find(|input| input.feed == Feed::Labels).and_then(|input| input.below);
        opened.check(&plan)?;
        Ok(Source { name: run.to_owned(), run: Some((checkpoint, plan, opened)), images: None, classes })
    }

    fn of_file(args: &Args, file: &Path) -> Result<Source> {
        check_picture(args, file)?;
        let images = image_file::read(file)?;
        Images::check(images.shape).with_context(|| format!("{} can't be measured", file.display()))?;
        if let Some(asked) = args.samples.filter(|&asked| asked > images.len()) {
            bail!("--samples {asked}: {} holds {} images", file.display(), thousands(images.len()));
        }
        Ok(Source { name: file.to_owned(), run: None, images: Some(images), classes: None })
    }

    /// The real images: those of the run, or others that were asked for.
    fn data(&self, args: &Args) -> Result<Dataset> {
        let own = self.run.as_ref().map(|(checkpoint, ..)| &checkpoint.meta);
        let argument = args.data.as_deref().or(own.map(|meta| meta.data.as_str())).unwrap_or("auto");
        let wanted = match &self.run {
            Some((_, plan, _)) => session::wanted_images(plan),
            None => self.images.as_ref().and_then(|images| Wanted::of_shape(&images.shape)),
        };
        let data = super::data::load(argument, args.offline, Fit { wanted, strict: false })?;
        match own.filter(|meta| args.data.is_none() && !meta.digest.is_empty() && meta.digest != data.digest()) {
            None => Ok(data),
            Some(meta) => bail!(
                "{} was trained on other images than {} holds now ({} {}). Bring the former back, or name what to compare \
                 with by --data",
                self.name.display(),
                meta.data,
                thousands(data.train.len()),
                data.why
            ),
        }
    }

    /// So many of its images. Of a program that takes labels, classes take turns.
    fn samples(&self, args: &Args, count: usize) -> Result<Images> {
        if let Some(images) = &self.images {
            return Ok(images.select(&(0..count as u32).collect::<Vec<_>>()));
        }
        let Some((checkpoint, plan, opened)) = &self.run else { bail!("there is nothing to measure") };
        let mut executor = opened.device.load(Arc::new(plan.clone()))?;
        session::restore(executor.as_mut(), checkpoint)?;
        let grid = Grid { rows: count, columns: 1 };
        let wanted = sampling::Wanted::of_seed(grid, args.seed);
        match sampling::sample(executor.as_mut(), &wanted)? {
            Some(made) => Ok(Images::of_samples(&made)),
            None => bail!("`{}` has no entry `sample`: it makes no images", checkpoint.meta.program),
        }
    }

    /// What it is, in a few words.
    fn described(&self, args: &Args) -> String {
        let Some((checkpoint, ..)) = &self.run else { return format!("{}:", self.name.display()) };
        let meta = &checkpoint.meta;
        format!(
            "{}: `{}` after {} steps{}, seed {};",
            self.name.display(),
            meta.program,
            thousands(meta.step as usize),
            if args.ema { ", averaged weights" } else { "" },
            args.seed
        )
    }
}

/// That the picture may be written.
fn check_picture(args: &Args, read: &Path) -> Result<()> {
    if let Some(output) = &args.output {
        check_output(output, &[read])?;
        Format::of(output)?;
    }
    Ok(())
}

fn write_picture(output: &Path, images: &Images, nearest: &[Nearest], judge: &Judge) -> Result<()> {
    let pixels = images.pixels();
    let shown = PICTURE.cells().min(nearest.len());
    let to_values = |bytes: &[u8]| bytes.iter().copied().map(to_unit).collect::<Vec<_>>();
    let pairs = images.bytes.chunks(pixels).zip(nearest).take(shown);
    let values: Vec<f32> = pairs
        .flat_map(|(image, nearest)| [to_values(image), to_values(judge.training_image(nearest.index))].concat())
        .collect();
    let [channels, height, width] = images.shape;
    let grid = Grid { rows: PICTURE.rows, columns: 2 * PICTURE.columns };
    sample_grid::lay_out(&values, &[2 * shown, channels, height, width], grid)?.write(output)?;
    Ok(())
}

fn table(what: &str, report: &Report, training: usize) -> String {
    let (m, real) = (report.measures, report.real);
    let classes = m.classes.counts.len();
    let mut table = Table::new([Align::Left, Align::Right, Align::Right, Align::Left]);
    table.row(["", "samples", "real", ""]);
    let mut row = |name: &str, of: &dyn Fn(&Measures) -> String, meaning: &str| {
        table.row([name, &of(m), &of(real), meaning]);
    };
    row("Fréchet distance", &|m| format!("{:.2}", m.frechet_distance), "lower is better");
    row(
        "kernel distance (KID)",
        &|m| format!("{:.4} ± {:.4}", m.kernel_distance.mean, m.kernel_distance.spread),
        "lower is better",
    );
    row("precision", &|m| format!("{:.3}", m.precision_recall.precision), "samples that are like real images");
    row("recall", &|m| format!("{:.3}", m.precision_recall.recall), "real images that there are samples like");
    row("classifier score", &|m| format!("{:.2}", m.classifier_score), &format!("higher is better, up to {classes}"));
    row("classes covered", &|m| format!("{} of {classes}", m.classes.covered), "with a tenth of an even share");
    row("balance of classes", &|m| format!("{:.3}", m.classes.balance), "1 where all are as frequent");
    row(
        "nearest training image",
        &|m| format!("{:.3}", m.nearest_training),
        &format!(
            "root mean square of pixels, of the first {}; far below real: copied",
            thousands(report.samples.min(NEAREST))
        ),
    );
    let mut text = format!(
        "{what} {} images against as many of {} {}\n{}",
        thousands(report.samples),
        thousands(training),
        report.data,
        table.render("  ")
    );
    let counts = m.classes.counts.iter().enumerate().map(|(class, n)| format!("{class}: {}", thousands(*n)));
    text += &format!("samples of each class: {}\n", counts.collect::<Vec<_>>().join("  "));
    if let Some(agreement) = report.label_agreement {
        text += &format!("of the class they were made for: {:.1}%\n", 100.0 * agreement);
    }
    text
}

/// What is being done, where standard error is a terminal.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Bar {
        let bar = ProgressBar::with_draw_target(None, super::bar_target());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} {msg}  {elapsed}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(std::time::Duration::from_millis(200));
        Bar(bar)
    }

    fn say(&self, what: &'static str) {
        self.0.set_message("");
        self.0.set_prefix(what);
    }

    fn at(&self, done: usize) {
        self.0.set_message(thousands(done));
    }

    fn clear(&self) {
        self.0.finish_and_clear();
    }
}
