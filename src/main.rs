//! The command `gcc-gan`.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
