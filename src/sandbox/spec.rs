//! What is asked of a sandbox, and what a command in it gives back.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::error::{Limit, SandboxError};
use crate::domain::{ByteSize, DrillId, Elapsed, OWN_PLACES, ResourceLimits};

/// Whether a drill may go on where processes cannot be isolated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// Refuse where it cannot be had.
    #[default]
    Required,
    /// Go on without; the facts say so, and commands are refused.
    IfPossible,
}

/// What to do where memory can reach a swap device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SwapPolicy {
    /// Refuse: plaintext on a swap device outlives the drill.
    #[default]
    Refuse,
    /// Go on; the facts say so.
    Allow,
}

/// A host directory that is shown inside, read-only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolDir {
    /// On the host, absolute.
    pub host: PathBuf,
    /// Inside, absolute.
    pub inside: PathBuf,
}

/// What is asked of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxSpec {
    /// The drill that it belongs to; its id labels everything outside of the namespaces.
    pub drill: DrillId,
    /// Memory, processes, scratch and time.
    pub limits: ResourceLimits,
    /// Where the registry for reaping is kept. Private to the user who runs drills.
    pub state_dir: PathBuf,
    /// Whether the drill may go on without isolation.
    pub isolation: Isolation,
    /// Whether the drill may go on where memory can be swapped out.
    pub swap: SwapPolicy,
    /// Host directories beside `/usr` that are shown inside.
    pub tools: Vec<ToolDir>,
    /// Names under which programs inside find what the runner serves; none where it serves nothing.
    pub served_hosts: Vec<String>,
    /// Our own binary, whose `main` calls [`super::become_helper_if_asked`] first.
    pub helper: PathBuf,
}

impl SandboxSpec {
    /// A strict sandbox, by the binary that is running.
    pub fn new(drill: DrillId, limits: ResourceLimits, state_dir: PathBuf) -> Self {
        Self {
            drill,
            limits,
            state_dir,
            isolation: Isolation::default(),
            swap: SwapPolicy::default(),
            tools: Vec::new(),
            served_hosts: Vec::new(),
            helper: PathBuf::from("/proc/self/exe"),
        }
    }

    /// Whether this can be asked at all.
    pub(super) fn check(&self) -> Result<(), SandboxError> {
        let bad = |what: &str| Err(SandboxError::Spec { what: what.to_owned() });
        let id = &self.drill.0;
        if id.is_empty() || id.len() > 64 || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return bad("a drill id is 1 to 64 letters, digits and hyphens");
        }
        if self.limits.scratch_size.0 < 1 << 20 {
            return bad("scratch must be at least 1 MiB");
        }
        if self.limits.memory.0 < 16 << 20 {
            return bad("memory must be at least 16 MiB");
        }
        if self.limits.processes == 0 || self.limits.time.seconds == 0 {
            return bad("a limit of zero processes or zero time");
        }
        if self.tools.iter().any(|t| !t.host.is_absolute() || !t.inside.is_absolute() || t.inside.components().count() < 2) {
            return bad("directories of tools are absolute, on the host and inside");
        }
        if self.tools.iter().any(|t| t.inside.components().any(|c| matches!(c, std::path::Component::ParentDir))) {
            return bad("directories of tools have no `..`");
        }
        if let Some(place) = OWN_PLACES.iter().find(|own| self.tools.iter().any(|t| t.inside.starts_with(own))) {
            return Err(SandboxError::Spec { what: format!("a directory of tools below {place}, which the sandbox has of its own") });
        }
        let is_host = |name: &str| {
            (1..=253).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
        };
        if !self.served_hosts.iter().all(|name| is_host(name)) {
            return bad("names of hosts are lower-case letters, digits, hyphens and dots");
        }
        Ok(())
    }
}

/// What becomes of processes that a command left behind when it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub enum Afterwards {
    /// They are killed, so that the next command starts alone.
    #[default]
    KillRest,
    /// They go on until the sandbox ends: how a server is started.
    LeaveRunning,
}

/// A command to run inside, working directory at the restored root. No shell, nothing on standard input.
#[derive(Clone)]
pub struct CommandSpec {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Beside `PATH`, `HOME`, `LANG`, `TMPDIR`; the same name replaces.
    pub env: Vec<(String, String)>,
    /// Longest wall time; then everything inside is killed.
    pub timeout: Duration,
    /// How many bytes of standard output and of standard error, each, are kept; the rest is read and dropped.
    pub output_cap: usize,
    /// What becomes of what it leaves behind.
    pub afterwards: Afterwards,
    /// Small files for it, by plain names below [`super::PRIVATE_FILES`]: in memory, readable for it alone, gone when it has ended.
    /// All that the command is must fit into 128 KiB.
    pub files: Vec<(String, Vec<u8>)>,
}

impl CommandSpec {
    /// A command with a minute of time and a mebibyte of output.
    pub fn new(argv: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            timeout: Duration::from_secs(60),
            output_cap: 1 << 20,
            afterwards: Afterwards::default(),
            files: Vec::new(),
        }
    }

    pub(super) fn check(&self) -> Result<(), SandboxError> {
        let bad = |what: &str| Err(SandboxError::Spec { what: what.to_owned() });
        let Some(program) = self.argv.first() else { return bad("a command without a program") };
        if program.is_empty() || self.argv.iter().any(|a| a.contains('\0')) {
            return bad("a command has a program, and no NUL byte");
        }
        if self.env.iter().any(|(k, v)| k.is_empty() || k.contains(['=', '\0']) || v.contains('\0')) {
            return bad("an environment name is not empty and has no `=`; no NUL byte");
        }
        if self.timeout.is_zero() {
            return bad("a command with no time");
        }
        let is_plain = |name: &str| {
            (1..=64).contains(&name.len())
                && !name.starts_with('.')
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        };
        if !self.files.iter().all(|(name, _)| is_plain(name)) {
            return bad("a private file's name is 1 to 64 letters, digits, dots, hyphens and underscores");
        }
        Ok(())
    }
}

// Values of the environment may be secrets, arguments may be restored names.
impl fmt::Debug for CommandSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandSpec")
            .field("arguments", &self.argv.len())
            .field("timeout", &self.timeout)
            .field("output_cap", &self.output_cap)
            .field("afterwards", &self.afterwards)
            .field("files", &self.files.len())
            .finish_non_exhaustive()
    }
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
}

/// What a command gave back.
#[derive(Clone, PartialEq, Eq)]
pub struct Exit {
    /// How it ended.
    pub ended: Ended,
    /// Standard output, up to the cap.
    pub stdout: Vec<u8>,
    /// Standard error, up to the cap.
    pub stderr: Vec<u8>,
    /// Bytes of standard output beyond the cap, read and dropped.
    pub stdout_dropped: u64,
    /// Bytes of standard error beyond the cap, read and dropped.
    pub stderr_dropped: u64,
    /// From its start to its end, on the monotonic clock.
    pub took: Elapsed,
    pub(super) output_cap: usize,
}

impl Exit {
    /// An exit for tests of those who judge one.
    #[cfg(test)]
    pub(crate) fn for_tests(ended: Ended, stdout: &str, stderr: &str) -> Self {
        let (stdout, stderr) = (stdout.into(), stderr.into());
        Exit { ended, stdout, stderr, stdout_dropped: 0, stderr_dropped: 0, took: Elapsed::default(), output_cap: 1 << 20 }
    }
    /// Whether it ended by itself with status 0.
    pub fn success(&self) -> bool {
        self.ended == Ended::Status(0)
    }
    /// Whether some of its output is missing.
    pub fn truncated(&self) -> bool {
        self.stdout_dropped > 0 || self.stderr_dropped > 0
    }
    /// The same, where nothing of its output is missing.
    ///
    /// # Errors
    /// [`SandboxError::Limit`] of [`Limit::Output`]: for callers who judge by the whole output.
    pub fn whole(self) -> Result<Exit, SandboxError> {
        if self.truncated() {
            let value = ByteSize(self.output_cap as u64).to_string();
            return Err(SandboxError::Limit { limit: Limit::Output, value });
        }
        Ok(self)
    }
}

// Output may be restored data.
impl fmt::Debug for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exit")
            .field("ended", &self.ended)
            .field("stdout_bytes", &(self.stdout.len() as u64 + self.stdout_dropped))
            .field("stderr_bytes", &(self.stderr.len() as u64 + self.stderr_dropped))
            .field("took", &self.took)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn spec(id: &str) -> SandboxSpec {
        SandboxSpec::new(DrillId(id.to_owned()), ResourceLimits::default(), PathBuf::from("/nowhere"))
    }

    #[test]
    fn a_drill_id_that_could_be_a_path_is_refused() {
        assert!(spec("0192f0c1-2c3d-7abc-8def-0123456789ab").check().is_ok());
        for id in ["", "..", "a/b", "a b", &"x".repeat(65)] {
            assert!(matches!(spec(id).check(), Err(SandboxError::Spec { .. })), "{id}");
        }
    }

    #[test]
    fn its_own_places_are_those_that_it_makes() {
        for place in [super::super::DATA_DIRECTORY, super::super::KIT_DIRECTORY] {
            assert!(OWN_PLACES.contains(&place), "{place}");
        }
        assert!(Path::new(super::super::PRIVATE_FILES).starts_with("/run"));
    }

    #[test]
    fn a_tool_directory_cannot_cover_the_root() {
        for inside in ["/", "opt", "/opt/../data"] {
            let mut spec = spec("a");
            spec.tools.push(ToolDir { host: "/opt".into(), inside: inside.into() });
            assert!(spec.check().is_err(), "{inside}");
        }
    }

    #[test]
    fn output_and_environment_stay_out_of_debug() {
        let exit = Exit {
            ended: Ended::Status(0),
            stdout: b"Jane Doe".to_vec(),
            stderr: Vec::new(),
            stdout_dropped: 1,
            stderr_dropped: 0,
            took: Elapsed::default(),
            output_cap: 8,
        };
        assert!(!format!("{exit:?}").contains("Jane"));
        let mut command = CommandSpec::new(["psql"]);
        command.env.push(("PGPASSWORD".to_owned(), "hunter2".to_owned()));
        assert!(!format!("{command:?}").contains("hunter2"));
        assert!(matches!(exit.whole(), Err(SandboxError::Limit { limit: Limit::Output, .. })));
    }
}
