//! Canaries: planted in the source before a backup, remembered in the state directory, expected by drills.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use super::baseline::write_whole;
use super::{App, AppError};
use crate::domain::{PlantedCanary, Scenario, Timestamp};

/// Where a new canary goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plant {
    /// To whoever asked.
    Print,
    /// Into a file, which is replaced.
    File(PathBuf),
    /// To a command, on its standard input and as `FIREDRILL_CANARY`.
    Command(Vec<String>),
}

/// A canary was not planted.
#[derive(Debug, thiserror::Error)]
pub enum CanaryError {
    /// It could not be remembered, so it was not planted.
    #[error("the canary could not be remembered in {path}")]
    State {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The runner's key cannot be used.
    #[error(transparent)]
    Key(#[from] AppError),
    /// It did not get to where it should be.
    #[error("the canary could not be planted: {0}")]
    NotPlanted(String),
}

/// A line of what is remembered: a canary, or that it was never planted after all.
#[derive(Serialize, Deserialize)]
struct Line {
    at: Timestamp,
    digest: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    withdrawn: bool,
}

impl App {
    /// Makes a canary, remembers it, and plants it; one that could not be planted is not expected by anybody.
    ///
    /// # Errors
    /// [`CanaryError`].
    pub fn plant_canary(&self, scenario: &Scenario, plant: &Plant) -> Result<String, CanaryError> {
        let mut random = [0; 16];
        let unlucky = |_| CanaryError::NotPlanted("the system gives no randomness".to_owned());
        aws_lc_rs::rand::fill(&mut random).map_err(unlucky)?;
        let nonce = format!("firedrill-canary-{}", HEXLOWER.encode(&random));
        let digest = self.pseudonymizer()?.digest(&nonce);
        let line = Line { at: self.clock.now(), digest, withdrawn: false };
        // first: one that is in a backup and that nobody remembers would fail it
        self.remember(scenario, &line)?;
        let planted = match plant {
            Plant::Print => Ok(()),
            Plant::File(path) => {
                write_whole(path, format!("{nonce}\n").as_bytes()).map_err(|e| format!("{} cannot be written: {e}", path.display()))
            }
            Plant::Command(command) => run(command, &nonce),
        };
        if let Err(why) = planted {
            self.remember(scenario, &Line { withdrawn: true, ..line })?;
            return Err(CanaryError::NotPlanted(why));
        }
        Ok(nonce)
    }

    /// Canaries that were planted for a scenario, in the order of their times. What cannot be read is not expected.
    pub(super) fn planted(&self, scenario: &Scenario) -> Vec<PlantedCanary> {
        let text = fs::read_to_string(self.canaries(scenario)).unwrap_or_default();
        let mut planted: Vec<PlantedCanary> = Vec::new();
        for line in text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok()) {
            if line.withdrawn {
                planted.retain(|canary| canary.digest != line.digest);
            } else {
                planted.push(PlantedCanary { at: line.at, digest: line.digest });
            }
        }
        planted.sort_by_key(|canary| canary.at);
        planted
    }

    fn canaries(&self, scenario: &Scenario) -> PathBuf {
        self.settings.state.0.join("canaries").join(format!("{}.jsonl", scenario.name))
    }

    fn remember(&self, scenario: &Scenario, line: &Line) -> Result<(), CanaryError> {
        let path = self.canaries(scenario);
        let written = || -> io::Result<()> {
            super::private_directory(path.parent().unwrap_or(&path))?;
            let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
            let mut text = serde_json::to_vec(line)?;
            text.push(b'\n');
            file.write_all(&text)?;
            file.sync_all()
        };
        written().map_err(|source| CanaryError::State { path: path.clone(), source })
    }
}

/// What the command says is for whoever runs it.
fn run(command: &[String], nonce: &str) -> Result<(), String> {
    let [program, arguments @ ..] = command else { return Err("no command was named".to_owned()) };
    let failed = |e: io::Error| format!("{program} could not be run: {e}");
    let mut child = Command::new(program).args(arguments).env("FIREDRILL_CANARY", nonce).stdin(Stdio::piped()).spawn().map_err(failed)?;
    if let Some(mut input) = child.stdin.take() {
        // a command that reads the environment need not read this
        let _ = input.write_all(format!("{nonce}\n").as_bytes());
    }
    let status = child.wait().map_err(failed)?;
    if status.success() { Ok(()) } else { Err(format!("{program} ended with {status}")) }
}
