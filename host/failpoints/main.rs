//! The program `dossier` with its failpoints on: for tests, never shipped. It is the same program in all else.

use std::process::ExitCode;

fn main() -> ExitCode {
    dossier::cli::main()
}
