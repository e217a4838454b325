//! The runner. Everything is in the library; see `firedrill::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    // First of all: the sandbox's helper must have one thread.
    firedrill::sandbox::become_helper_if_asked();
    firedrill::cli::main()
}
