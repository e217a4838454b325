//! The edge: the only place that prints.

use std::io::{self, IsTerminal, Write};

use tracing_subscriber::EnvFilter;

use super::{Exit, Failure};

/// Writes a result to stdout. A reader that went away (`| head`) is no failure.
pub(super) fn write(bytes: &[u8]) -> Result<Exit, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(Exit::Passed),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Passed),
        Err(error) => Err(Failure::new(Exit::Inconclusive, anyhow::Error::new(error).context("cannot write to standard output"))),
    }
}

/// Writes one line of a result.
pub(super) fn line(text: &str) -> Result<Exit, Failure> {
    write(format!("{text}\n").as_bytes())
}

/// Writes a value as one JSON document.
pub(super) fn json(value: &impl serde::Serialize) -> Result<Exit, Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Failure::new(Exit::Inconclusive, e))?;
    line(&text)
}

/// One value of many, on a line of its own.
pub(super) fn json_line(value: &impl serde::Serialize) -> Result<Exit, Failure> {
    let text = serde_json::to_string(value).map_err(|e| Failure::new(Exit::Inconclusive, e))?;
    line(&text)
}

/// Says something beside the result.
pub(super) fn say(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Whether a person watches.
pub(super) fn is_watched() -> bool {
    io::stderr().is_terminal()
}

/// What failed, why, and what to try next.
pub(super) fn print_failure(failure: &Failure) {
    let mut text = format!("firedrill: {}", failure.error);
    let mut said = failure.error.to_string();
    for cause in failure.error.chain().skip(1) {
        let cause = cause.to_string();
        // wrappers often repeat what they wrap
        if !said.contains(&cause) {
            text.push_str("\n  because ");
            text.push_str(&cause);
            said = cause;
        }
    }
    if let Some(advice) = &failure.advice {
        text.push_str("\n  try: ");
        text.push_str(advice);
    }
    say(&text);
}

/// Logs to stderr: warnings and errors, more with `-v`; one JSON object a line with `--json`.
pub(super) fn start_logging(verbose: u8, json: bool) {
    let level = match verbose {
        0 => "warn",
        1 => "firedrill=info,warn",
        2 => "firedrill=debug,info",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_env("FIREDRILL_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(is_watched());
    // a second start in one process (tests) keeps the first
    let _ = if json { builder.json().try_init() } else { builder.with_target(false).try_init() };
}

/// Asks something: a question without a line feed, on stderr.
pub(super) fn ask(question: &str) -> io::Result<()> {
    let mut err = io::stderr().lock();
    err.write_all(question.as_bytes())?;
    err.flush()
}
