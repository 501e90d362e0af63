//! `gcc-gan completions`.

use anyhow::Result;
use clap::CommandFactory;
use clap_complete::{Shell, generate};
use std::process::ExitCode;

/// Print a script that completes commands, options and their values in a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gcc-gan completions bash > ~/.local/share/bash-completion/completions/gcc-gan
  gcc-gan completions zsh > ~/.zfunc/_gcc-gan      with fpath+=~/.zfunc before compinit in ~/.zshrc
  gcc-gan completions fish > ~/.config/fish/completions/gcc-gan.fish")]
pub struct Args {
    shell: Shell,
}

pub fn run(args: Args) -> Result<ExitCode> {
    let mut script = Vec::new();
    generate(args.shell, &mut super::Cli::command(), "gcc-gan", &mut script);
    super::print_exact(&String::from_utf8(script)?)?;
    Ok(ExitCode::SUCCESS)
}
