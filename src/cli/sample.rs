//! `gcc-gan sample`.

use super::device::{DeviceArgs, Opened};
use super::output::check_output;
use super::screen::shown;
use anyhow::{Context, Result, bail};
use gcc_gan::exec::Executor;
use gcc_gan::inspect::bytes;
use gcc_gan::plan::Plan;
use gcc_gan::train::checkpoint::{self, Checkpoint};
use gcc_gan::train::picture::{self, Format};
use gcc_gan::train::quality::classifier::Classifier;
use gcc_gan::train::quality::{self, classes};
use gcc_gan::train::sample_grid::{self, Grid};
use gcc_gan::train::sampling::{self, Images, Noise, Wanted};
use gcc_gan::train::{rundir, session};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Make new images with a trained program
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gcc-gan sample runs/dcgan-001 -o digits.png
  gcc-gan sample runs/dcgan-001 --seed 7 --grid 12x20 --scale 4 -o digits.webp
  gcc-gan sample runs/dcgan-paper-001 --ema --truncation 1.5 -o digits.png
  gcc-gan sample runs/cgan-001 --label 7 -o sevens.png
  gcc-gan sample runs/cgan-001 --label 3-5 --grid 3x10 -o threes-to-fives.png
  gcc-gan sample runs/dcgan-001 --sort --grid 10x20 -o sorted.png
  gcc-gan sample runs/dcgan-001 --interpolate 1,2 -o between.png    each row leads from 1 to 2
  gcc-gan sample runs/dcgan-001 --interpolate 1,2,3 -o between.gif  the grid moves, round and round
  gcc-gan sample runs/vae-001 --reconstruct -o before-and-after.png")]
pub struct Args {
    /// A run's folder, or a checkpoint file
    #[arg(value_name = "RUN", required_unless_present = "checkpoint", conflicts_with = "checkpoint")]
    run: Option<PathBuf>,
    /// The same, as `run` has it
    #[arg(long, value_name = "RUN")]
    checkpoint: Option<PathBuf>,
    /// The file to write; its name ends in the format: .png, .jpg, .gif or .webp
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Rows x columns of images
    #[arg(long, default_value = "8x8")]
    grid: Grid,
    /// Another seed gives other images [training uses its own seed for its samples]
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The classes of the rows, of a program that takes labels: 7, or 0-4, or 1,3,5-9 [each row of the grid has the next
    /// class]
    #[arg(long, value_name = "CLASSES", value_delimiter = ',', value_parser = labels, allow_negative_numbers = true)]
    label: Vec<Labels>,
    /// With the moving averages of the weights, of a program that keeps them by `Average`
    #[arg(long)]
    ema: bool,
    /// From noise without numbers further from 0 than this: images that are more alike, and more like the common ones
    #[arg(long, value_name = "LIMIT", value_parser = limit)]
    truncation: Option<f32>,
    /// Lay the images out by the digit that the built-in classifier (see `eval`) sees in each, the surest of a digit first
    #[arg(long, conflicts_with_all = ["interpolate", "reconstruct", "label"])]
    sort: bool,
    /// From the noise of one seed to that of the next, on great circles: along the rows, or in a GIF one moment after the
    /// other
    #[arg(long, value_name = "SEED,SEED,...", value_delimiter = ',', num_args = 1, conflicts_with = "seed")]
    interpolate: Vec<u64>,
    /// Pictures from one seed to the next, in a GIF [default: 24]
    #[arg(long, requires = "interpolate", value_parser = clap::value_parser!(u32).range(1..=1000))]
    frames: Option<u32>,
    /// Pictures a second, in a GIF [default: 12]
    #[arg(long, requires = "interpolate", value_parser = clap::value_parser!(u32).range(1..=50))]
    fps: Option<u32>,
    /// Pixels on a side for each of the images' pixels
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = scale)]
    scale: usize,
    /// Images of the data set with what the program's entry `reconstruct` makes of them, below each row
    #[arg(long, conflicts_with_all = ["label", "truncation", "interpolate"])]
    reconstruct: bool,
    /// The data set to reconstruct from [default: the run's own]
    #[arg(long, value_name = "DATA", requires = "reconstruct")]
    data: Option<String>,
    /// Never use the network
    #[arg(long, requires = "reconstruct")]
    offline: bool,
    /// Print what was written as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

const FRAMES: u32 = 24;
const FPS: u32 = 12;

/// A part of `--label`: a class, or those from one to another.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Labels(RangeInclusive<u32>);

/// More than any data set has, and few enough to be listed.
const MOST_LABELS: u32 = 10_000;

fn labels(text: &str) -> Result<Labels, String> {
    let class = |text: &str| match text.trim().parse() {
        Ok(class) if class < MOST_LABELS => Ok(class),
        Ok(_) => Err(format!("classes are below {MOST_LABELS}")),
        Err(_) => Err("a class such as 7, or a range such as 0-9, was expected".to_string()),
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = class(first)?..=class(last)?;
    if range.is_empty() {
        return Err(format!("a range goes up: {last}-{first}"));
    }
    Ok(Labels(range))
}

/// `--truncation`.
fn limit(text: &str) -> Result<f32, String> {
    match text.parse() {
        Ok(limit) if (sampling::LEAST_TRUNCATION..=100.0).contains(&limit) => Ok(limit),
        _ => Err(format!("a number from {} to 100 was expected", sampling::LEAST_TRUNCATION)),
    }
}

/// `--scale`.
pub fn scale(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(scale @ 1..=64) => Ok(scale),
        _ => Err("a number from 1 to 64 was expected".into()),
    }
}

pub fn run(args: Args) -> Result<ExitCode> {
    let run = args.run.as_ref().or(args.checkpoint.as_ref()).context("a run was expected")?;
    let file = rundir::checkpoint_of(run)?;
    check_output(&args.output, &[&file])?;
    let moves = Format::of(&args.output)? == Format::Gif && !args.interpolate.is_empty();
    if args.interpolate.len() == 1 {
        bail!("--interpolate takes two seeds or more, with commas between: --interpolate 1,2");
    }
    if !moves && (args.frames.is_some() || args.fps.is_some()) {
        Format::check_moving(&args.output).context("--frames and --fps are of moving pictures")?;
    }
    if args.reconstruct && args.grid.rows % 2 == 1 {
        bail!("--grid {}: an even number of rows was expected, half of them for the reconstructions", args.grid);
    }
    let mut checkpoint = checkpoint::load(&file)?;
    if args.ema {
        sampling::use_averages(&mut checkpoint)?;
    }
    let opened = args.device.open()?;
    let mut executor = load(&checkpoint, &opened)?;
    let meta = &checkpoint.meta;
    let size = check_room(&args, executor.plan(), super::memory::free())?;
    let pictures = if moves {
        write_moving(&args, executor.as_mut(), &meta.program)?
    } else {
        let images = if args.reconstruct {
            let data =
                super::data::load_for(executor.plan(), args.data.as_ref().unwrap_or(&meta.data), args.offline, false)?;
            let made = sampling::reconstruct(executor.as_mut(), &data, args.seed, args.grid)?;
            made.with_context(|| {
                format!("`{}` has no entry `reconstruct`, which takes images and gives them back", meta.program)
            })?
        } else {
            let noise = match &args.interpolate[..] {
                [] => Noise::Seed(args.seed),
                seeds => Noise::Across(seeds.to_vec()),
            };
            let bar = bar(args.grid.cells() as u64, "images");
            let made = made(&args, executor.as_mut(), noise, &meta.program, &mut |done| bar.set_position(done as u64))?;
            bar.finish_and_clear();
            if args.sort { sorted(made, args.device.thread_count())? } else { made }
        };
        picture(&args, &images)?.write(&args.output)?;
        1
    };
    let images = args.grid.cells();
    if args.json {
        super::print_json(&json!({
            "file": shown(&args.output), "pictures": pictures, "height": size[0], "width": size[1], "images": images,
            "program": meta.program, "step": meta.step,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let what = match (moves, images) {
        (true, _) => format!("{pictures} pictures of {images} images"),
        (false, 1) => "1 image".into(),
        (false, _) => format!("{images} images"),
    };
    super::print(&format!("wrote {}: {what} by `{}` after {} steps", args.output.display(), meta.program, meta.step))?;
    Ok(ExitCode::SUCCESS)
}

/// Height and width of the picture, which the file's format and the memory can hold: so large a one would take its time
/// before that is found.
fn check_room(args: &Args, plan: &Plan, free: Option<u64>) -> Result<[usize; 2]> {
    let name = if args.reconstruct { session::entry::RECONSTRUCT } else { session::entry::SAMPLE };
    let entry = plan.entries.iter().find(|entry| entry.name == name && entry.sizes.is_empty());
    // What has no images at all is told of by who makes them.
    let Some([_, channels, height, width]) = entry.and_then(|entry| sampling::image_shape(entry).ok()) else {
        return Ok([0, 0]);
    };
    let format = Format::of(&args.output)?;
    let single = sample_grid::size(args.grid, height, width)?;
    let scaled = picture::scaled_size(single, args.scale)?;
    format.check_size(scaled)?;
    let needed = needed(args.grid.cells() * channels * height * width, channels, single, scaled);
    check_memory(needed, free).with_context(|| {
        format!("a {} grid of {height}×{width} images with --scale {} cannot be made", args.grid, args.scale)
    })?;
    Ok(scaled)
}

fn check_memory(needed: u64, free: Option<u64>) -> Result<()> {
    if let Some(free) = free.filter(|&free| needed > free) {
        bail!(
            "it takes {} of memory, and {} are free: make fewer, or smaller ones",
            bytes(needed as usize),
            bytes(free as usize)
        );
    }
    Ok(())
}

/// Bytes of all values, of the grid of them, of its larger copy, and of what an encoder has of that.
fn needed(values: usize, channels: usize, single: [usize; 2], scaled: [usize; 2]) -> u64 {
    let pixels = |[height, width]: [usize; 2]| (height * width) as u64;
    let copy = if scaled == single { 0 } else { pixels(scaled) * channels as u64 };
    // At most four bytes a pixel, and the file.
    values as u64 * 4 + pixels(single) * channels as u64 + copy + pixels(scaled) * 5
}

/// A checkpoint's program with its state, on a device.
fn load(checkpoint: &Checkpoint, opened: &Opened) -> Result<Box<dyn Executor>> {
    let plan = super::program_text::plan_again(checkpoint, &[], opened, false)?;
    opened.check(&plan)?;
    let mut executor = opened.device.load(Arc::new(plan))?;
    session::restore(executor.as_mut(), checkpoint)?;
    Ok(executor)
}

fn made(
    args: &Args,
    executor: &mut dyn Executor,
    noise: Noise,
    program: &str,
    progress: &mut dyn FnMut(usize),
) -> Result<Images> {
    let labels = args.label.iter().flat_map(|labels| labels.0.clone()).collect();
    let wanted = Wanted { grid: args.grid, noise, labels, truncation: args.truncation };
    let images = sampling::sample_with(executor, &wanted, progress)?;
    images.with_context(|| format!("`{program}` has no entry `sample`: it makes no images"))
}

/// In the order of the classes that the classifier sees.
fn sorted(images: Images, threads: usize) -> Result<Images> {
    let seen = Classifier::new(threads)?.see(&quality::Images::of_samples(&images), &mut |_| {})?;
    let each = images.shape[1..].iter().product::<usize>();
    let order = classes::order(&seen.logits);
    let values = order.into_iter().flat_map(|i| images.values[i * each..][..each].iter().copied()).collect();
    Ok(Images { values, ..images })
}

fn picture(args: &Args, images: &Images) -> Result<picture::Picture> {
    Ok(sample_grid::lay_out(&images.values, &images.shape, args.grid)?.scaled(args.scale)?)
}

/// The grid on its way from seed to seed and back to the first; gives the number of pictures.
fn write_moving(args: &Args, executor: &mut dyn Executor, program: &str) -> Result<u64> {
    let mut seeds = args.interpolate.clone();
    seeds.extend(args.interpolate.first());
    let each = args.frames.unwrap_or(FRAMES);
    let count = args.interpolate.len() as u64 * u64::from(each);
    let shown = Duration::from_millis(1000 / u64::from(args.fps.unwrap_or(FPS)));
    let bar = bar(count, "pictures");
    let pictures = (0..count).map(|frame| {
        bar.set_position(frame);
        let noise = Noise::At(seeds.clone(), frame as f64 / f64::from(each));
        Ok((picture(args, &made(args, executor, noise, program, &mut |_| {})?)?, shown))
    });
    picture::write_moving::<anyhow::Error>(&args.output, pictures)?;
    bar.finish_and_clear();
    Ok(count)
}

/// A bar that counts things of a name; nothing where standard error is no terminal.
pub fn bar(count: u64, what: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(count), super::bar_target());
    bar.set_style(
        ProgressStyle::with_template(&format!("{{wide_bar}} {{pos}}/{{len}} {what} {{eta}}"))
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_and_ranges_are_read() {
        let read = |text: &str| labels(text).map(|labels| labels.0);
        assert_eq!((read("7"), read("0-9"), read(" 3 - 3 ")), (Ok(7..=7), Ok(0..=9), Ok(3..=3)));
        for (text, told) in [
            ("seven", "a class such as 7, or a range such as 0-9, was expected"),
            ("-1", "a class such as 7, or a range such as 0-9, was expected"),
            ("1-2-3", "a class such as 7, or a range such as 0-9, was expected"),
            ("", "a class such as 7, or a range such as 0-9, was expected"),
            ("9-0", "a range goes up: 0-9"),
            ("0-4000000000", "classes are below 10000"),
        ] {
            assert_eq!(read(text), Err(told.to_string()), "{text}");
        }
    }

    #[test]
    fn what_memory_cannot_hold_is_refused() {
        check_memory(100, None).unwrap();
        check_memory(100, Some(100)).unwrap();
        let error = check_memory(3 << 30, Some(1 << 29)).unwrap_err().to_string();
        assert_eq!(error, "it takes 3.0 GiB of memory, and 512 MiB are free: make fewer, or smaller ones");
    }

    #[test]
    fn what_a_grid_needs_is_counted() {
        // A thousand million values, and five pictures of 900 MB.
        let side = [30_002, 30_002];
        assert_eq!(needed(784_000_000, 1, side, side), 784_000_000 * 4 + 6 * 30_002 * 30_002);
        assert_eq!(needed(12, 3, [8, 8], [16, 16]), 48 + 3 * 64 + 3 * 256 + 5 * 256);
    }
}
