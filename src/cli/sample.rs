//! `gcc-gan sample`.

use super::device::DeviceArgs;
use super::output::check_output;
use anyhow::{Result, bail};
use gcc_gan::train::sample_grid::{self, Grid};
use gcc_gan::train::{checkpoint, rundir, sampling, session};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Make new images with a trained program
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gcc-gan sample --checkpoint runs/dcgan-001 -o digits.png
  gcc-gan sample --checkpoint runs/dcgan-001 --seed 7 --grid 12x20 -o digits.png
  gcc-gan sample --checkpoint runs/dcgan-paper-001 --ema -o digits.png
  gcc-gan sample --checkpoint runs/cgan-001 --label 7 -o sevens.png")]
pub struct Args {
    /// A run's folder, or a checkpoint file
    #[arg(long, value_name = "RUN")]
    checkpoint: PathBuf,
    /// The PNG file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Rows x columns of images
    #[arg(long, default_value = "8x8")]
    grid: Grid,
    /// Another seed gives other images [training uses its own seed for its samples]
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Only this class, of a program that takes labels [each row of the grid has the next class]
    #[arg(long, value_name = "CLASS")]
    label: Option<u32>,
    /// With the moving averages of the weights, of a program that keeps them by `Average`
    #[arg(long)]
    ema: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

pub fn run(args: Args) -> Result<ExitCode> {
    let file = rundir::checkpoint_of(&args.checkpoint)?;
    check_output(&args.output, &[&file])?;
    sample_grid::check_format(&args.output)?;
    let checkpoint = checkpoint::load(&file)?;
    let meta = &checkpoint.meta;
    let opened = args.device.open()?;
    let plan = super::program_text::plan_again(&checkpoint, &[], &opened, false)?;
    opened.check(&plan)?;
    let mut executor = opened.device.load(Arc::new(plan))?;
    session::restore(executor.as_mut(), &checkpoint)?;
    if args.ema {
        sampling::use_averages(executor.as_mut())?;
    }
    let Some(images) = sampling::sample(executor.as_mut(), args.seed, args.grid, args.label)? else {
        bail!("`{}` has no entry `sample`: it makes no images", meta.program);
    };
    sample_grid::write_png(&args.output, &images.values, &images.shape, args.grid)?;
    super::print(&format!(
        "wrote {}: {} image{} by `{}` after {} steps",
        args.output.display(),
        args.grid.cells(),
        if args.grid.cells() == 1 { "" } else { "s" },
        meta.program,
        meta.step
    ))?;
    Ok(ExitCode::SUCCESS)
}
