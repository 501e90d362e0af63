//! `gcc-gan animate`.

use super::output::check_output;
use super::sample::{bar, scale};
use super::screen::shown;
use anyhow::{Context, Result, anyhow, bail};
use gcc_gan::train::picture::{self, Format, Picture};
use gcc_gan::train::rundir;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Show how a run learned: its sample images over the training, as a GIF
///
/// All are of one noise, so each cell is one image that becomes better. `train --sample-every 50` makes more of them.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gcc-gan animate runs/dcgan-001 -o training.gif
  gcc-gan animate runs/dcgan-001 --fps 4 --hold 3 --scale 3 -o training.gif")]
pub struct Args {
    /// A run's folder
    run: PathBuf,
    /// The GIF file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Pictures a second
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=50))]
    fps: u32,
    /// Seconds that the last picture is shown
    #[arg(long, default_value_t = 2.0, value_name = "SECONDS", value_parser = seconds)]
    hold: f64,
    /// Pixels on a side for each of the images' pixels
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = scale)]
    scale: usize,
    /// Print what was written as JSON
    #[arg(long)]
    json: bool,
}

/// `--hold`.
fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=600.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number of seconds from 0 to 600 was expected".into()),
    }
}

pub fn run(args: Args) -> Result<ExitCode> {
    Format::check_moving(&args.output)?;
    let samples = rundir::samples_of(&args.run)?;
    let Some((first, last)) = samples.first().zip(samples.last()).map(|(a, b)| (a.0, b.0)) else {
        bail!("{} has no sample images yet: `gcc-gan train --sample-every` makes them", args.run.display());
    };
    let files: Vec<_> = samples.iter().map(|(_, file)| file.as_path()).collect();
    check_output(&args.output, &files)?;
    let bar = bar(samples.len() as u64, "pictures");
    let each = Duration::from_millis(1000 / u64::from(args.fps));
    let pictures = samples.iter().map(|(step, file)| {
        bar.inc(1);
        let time = if *step == last { each.max(Duration::from_secs_f64(args.hold)) } else { each };
        let picture = Picture::read(file).map_err(|error| anyhow!("{error}; remove the file to show the others"))?;
        Ok((picture.scaled(args.scale).with_context(|| file.display().to_string())?, time))
    });
    picture::write_moving::<anyhow::Error>(&args.output, pictures)
        .with_context(|| format!("{} cannot be shown", args.run.display()))?;
    bar.finish_and_clear();
    if args.json {
        let (file, count) = (shown(&args.output), samples.len());
        super::print_json(&json!({ "file": file, "pictures": count, "first_step": first, "last_step": last }))?;
        return Ok(ExitCode::SUCCESS);
    }
    super::print(&format!(
        "wrote {}: {} pictures, from step {first} to step {last}",
        args.output.display(),
        samples.len()
    ))?;
    Ok(ExitCode::SUCCESS)
}
