//! `lambert completions` and `lambert man`: completions for shells and man pages, made from the help texts.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::output::{print, print_text};

/// Print the completions of the command line for a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lambert completions bash > ~/.local/share/bash-completion/completions/lambert
  lambert completions zsh > ~/.zfunc/_lambert       # with fpath+=~/.zfunc before compinit
  lambert completions fish > ~/.config/fish/completions/lambert.fish")]
pub struct Completions {
    /// Shell
    shell: Shell,
}

pub fn completions(args: Completions) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "lambert", &mut script);
    print_text(String::from_utf8(script)?)?;
    Ok(ExitCode::SUCCESS)
}

/// Write a man page for each verb
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lambert man ~/.local/share/man/man1 && man lambert-pretrain")]
pub struct ManPages {
    /// Directory; pages of lambert in it are overwritten
    #[arg(value_name = "DIR")]
    out: PathBuf,
}

pub fn man_pages(args: ManPages) -> anyhow::Result<ExitCode> {
    let out = args.out.display();
    fs::create_dir_all(&args.out).with_context(|| format!("cannot create the directory {out}"))?;
    clap_mangen::generate_to(Cli::command(), &args.out)
        .with_context(|| format!("cannot write the man pages to {out}"))?;
    print(format_args!("wrote the man pages to {out}"))?;
    Ok(ExitCode::SUCCESS)
}
