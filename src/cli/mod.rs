//! The command line: one file for each sub-command. Arguments in, calls of the library, words out.
//!
//! Exit status: 0 where all went well; 1 where what was asked for failed or does not hold; 2 for arguments
//! that make no sense; 130 where training was interrupted and its state saved; 141 where the reader of standard output
//! has gone.

mod animate;
mod compile;
mod completions;
mod data;
mod device;
mod device_code;
mod devices;
mod diff;
mod eval;
mod explain;
mod export;
mod fitting;
mod graphs;
mod import;
mod inputs;
mod inspect;
mod man;
mod memory;
mod ops;
mod output;
mod profile;
mod program_text;
mod report;
mod run;
mod sample;
mod screen;
mod train;
mod tune;
mod verify;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use gcc_gan::visible::visible;
use indicatif::ProgressDrawTarget;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Compile a model, its losses and its training step to one static plan, and train it.
///
/// Programs are graphs in RON: a file, or one of the built-in programs, which `gcc-gan graphs` lists.
#[derive(Debug, Parser)]
#[command(
    name = "gcc-gan",
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  gcc-gan train                                  learn to draw digits
  gcc-gan compile graphs/dcgan.ron               check and compile a program, print its figures
  gcc-gan compile dcgan --emit dot -o dcgan.dot  draw it
  gcc-gan sample runs/dcgan-001 -o digits.png
  gcc-gan eval runs/dcgan-001                    how good its samples are
  gcc-gan devices                                what there is to run on

`gcc-gan help COMMAND` says more about each."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print nothing but errors, warnings and JSON
    #[arg(short, long, global = true)]
    quiet: bool,
}

/// Whether `--quiet` was given.
static IS_QUIET: AtomicBool = AtomicBool::new(false);

fn is_quiet() -> bool {
    IS_QUIET.load(Ordering::Relaxed)
}

#[derive(Debug, Subcommand)]
enum Command {
    Compile(compile::Args),
    Verify(verify::Args),
    Run(run::Args),
    Inputs(inputs::Args),
    Ops(ops::Args),
    Graphs(graphs::Args),
    Inspect(inspect::Args),
    Explain(explain::Args),
    Diff(diff::Args),
    Profile(profile::Args),
    Tune(tune::Args),
    Train(train::Args),
    Sample(sample::Args),
    Animate(animate::Args),
    Report(report::Args),
    Eval(eval::Args),
    Export(export::Args),
    Import(import::Args),
    Data(data::Args),
    Devices(devices::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// Interrupted, after the state was saved: 128 + SIGINT, as shells have it.
const INTERRUPTED: u8 = 130;
/// Nobody reads the output any more: 128 + SIGPIPE, as of other programs under a shell.
const UNREAD: u8 = 141;

pub fn main() -> ExitCode {
    let wanted = std::env::var("GCC_GAN_LOG").ok().and_then(|levels| levels.parse::<Targets>().ok());
    let filter = wanted.unwrap_or_else(|| Targets::new().with_default(LevelFilter::WARN));
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).without_time().with_target(false);
    tracing_subscriber::registry().with(lines).with(filter).init();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(told) => return tell(&told),
    };
    IS_QUIET.store(cli.quiet, Ordering::Relaxed);
    let result = match cli.command {
        Command::Compile(args) => compile::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Run(args) => run::run(args),
        Command::Inputs(args) => inputs::run(args),
        Command::Ops(args) => ops::run(args),
        Command::Graphs(args) => graphs::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Diff(args) => diff::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Profile(args) => profile::run(args),
        Command::Tune(args) => tune::run(args),
        Command::Train(args) => train::run(args),
        Command::Sample(args) => sample::run(args),
        Command::Animate(args) => animate::run(args),
        Command::Report(args) => report::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Export(args) => export::run(args),
        Command::Import(args) => import::run(args),
        Command::Data(args) => data::run(args),
        Command::Devices(args) => devices::run(args),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => man::run(args),
    };
    match result {
        Ok(code) => code,
        Err(error) if is_unread(&error) => ExitCode::from(UNREAD),
        Err(error) => {
            report(&error);
            ExitCode::from(1)
        }
    }
}

/// Prints the help or the version, or what is wrong with the arguments, and gives the exit status of that.
fn tell(told: &clap::Error) -> ExitCode {
    match told.print().and_then(|()| io::stdout().flush()) {
        Ok(()) => ExitCode::from(u8::try_from(told.exit_code()).unwrap_or(2)),
        Err(error) => {
            let error = anyhow::Error::from(error).context("standard output cannot be written");
            if is_unread(&error) {
                return ExitCode::from(UNREAD);
            }
            report(&error);
            ExitCode::from(1)
        }
    }
}

/// Whether an error is only that the reader of our output has gone, as `head` does.
fn is_unread(error: &anyhow::Error) -> bool {
    let broken = |e: &(dyn std::error::Error + 'static)| {
        e.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    };
    error.chain().any(broken)
}

/// Shows an error on standard error.
fn report(error: &anyhow::Error) {
    let mut err = io::stderr();
    let is_terminal = err.is_terminal();
    if let Some(diagnostics) = program_text::diagnostics(error) {
        // Where the text holds what a terminal would obey, that is written out, and colours are done without.
        let plain = diagnostics.render(width(), false);
        let is_coloured = is_terminal && visible(&plain) == plain;
        let _ = if is_coloured {
            write!(err, "{}", diagnostics.render(width(), true))
        } else {
            write!(err, "{}", visible(&plain))
        };
        return;
    }
    let (on, off) = if is_terminal { ("\x1b[31;1m", "\x1b[0m") } else { ("", "") };
    let _ = writeln!(err, "{on}error:{off} {}", visible(&error.to_string()));
    let mut last = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !last.contains(&cause) {
            let _ = writeln!(err, "  caused by: {}", visible(&cause));
        }
        last = cause;
    }
}

/// Shows what is to say about a program on standard error.
fn show(diagnostics: &gcc_gan::declare::diagnostic::Diagnostics) {
    let mut err = io::stderr();
    let is_terminal = err.is_terminal();
    let plain = diagnostics.render(width(), false);
    let is_coloured = is_terminal && visible(&plain) == plain;
    let _ = if is_coloured {
        write!(err, "{}", diagnostics.render(width(), true))
    } else {
        write!(err, "{}", visible(&plain))
    };
}

/// Columns to write in.
fn width() -> usize {
    std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok()).unwrap_or(100).clamp(40, 160)
}

/// Prints text for people on standard output, unless they want none. Names in it may come from a stranger's file: what a terminal would obey is
/// written out.
fn print(text: &str) -> Result<()> {
    if is_quiet() {
        return Ok(());
    }
    print_bytes(&visible(text))
}

/// Says on standard error what is done, unless people want to hear nothing.
fn note(text: &str) {
    if !is_quiet() {
        let _ = writeln!(io::stderr(), "note: {}", visible(text));
    }
}

/// Says on standard error what is missing from a result.
fn warn(text: &str) {
    let _ = writeln!(io::stderr(), "warning: {}", visible(text));
}

/// Prints text for programs on standard output: as it is, unless it goes to a terminal.
fn print_exact(text: &str) -> Result<()> {
    if io::stdout().is_terminal() { print_bytes(&visible(text)) } else { print_bytes(text) }
}

/// Where a bar of progress is drawn: on standard error, if that is a terminal, and if anything is to be seen.
fn bar_target() -> ProgressDrawTarget {
    if is_quiet() { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() }
}

fn print_bytes(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    let end = if text.ends_with('\n') { "" } else { "\n" };
    let written = [text, end].iter().try_for_each(|part| out.write_all(part.as_bytes())).and_then(|()| out.flush());
    written.context("standard output cannot be written")
}

/// Prints a value as JSON on standard output.
fn print_json(value: &impl serde::Serialize) -> Result<()> {
    print_exact(&serde_json::to_string_pretty(value)?)
}

/// The number of threads: what was asked for, or one for each core that the process may use.
fn threads(asked: Option<usize>) -> usize {
    asked.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, Into::into))
}

/// `--threads`: at least 1.
fn thread_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=1024) => Ok(n),
        _ => Err("a number from 1 to 1024 was expected".into()),
    }
}
