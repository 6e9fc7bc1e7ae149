//! The program `dossier`. Everything it does lies in the library: see [`dossier::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    dossier::cli::main()
}
