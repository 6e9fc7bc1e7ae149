//! The program. (Only the hidden subcommand `compile` for now.)

use clap::Parser;

#[derive(Parser)]
enum Command {
    #[command(hide = true)]
    Compile(dossier::cli::compile::Args),
}

fn main() -> std::process::ExitCode {
    match Command::parse() {
        Command::Compile(args) => dossier::cli::compile::run(&args),
    }
}
