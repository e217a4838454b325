//! The auditor's binary: checks evidence offline, with nothing of the runner in it.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser;
use firedrill::evidence::auditor::{self, Outcome, VerifyArgs};

/// Check the evidence of restore drills, offline.
///
/// Exit codes: 0 everything is trusted; 1 something is refused; 2 usage. Trusted evidence may be of a drill that failed:
/// read what it says.
#[derive(Debug, Parser)]
#[command(name = "firedrill-verify", version)]
struct Cli {
    #[command(flatten)]
    args: VerifyArgs,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match auditor::run(&cli.args, &[], &mut io::stdout().lock(), &mut io::stderr().lock()) {
        Ok(outcome) => ExitCode::from(outcome as u8),
        Err(error) => {
            // the answer did not get out: that is no trust
            let _ = writeln!(io::stderr(), "error: cannot write the answer\n  because: {error}");
            ExitCode::from(Outcome::Usage as u8)
        }
    }
}
