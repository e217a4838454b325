//! What services work with: the sandbox, their own rooms on scratch, the restored tree to look into, and programs.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use super::{SERVICES, ServiceError};
use crate::domain::{EntryKind, RestorePath, ServiceProblem, Severity, Sha256};
use crate::restore::tool::{self, TEMPORARY};
use crate::sandbox::{Afterwards, CommandSpec, DATA_DIRECTORY, Exit, KIT_DIRECTORY, Sandbox, SandboxError};
use crate::tree::{Glob, WalkOptions, walk};

/// Bytes of a program's output that are kept.
const OUTPUT: usize = 8 << 20;

/// Something to know about a service that does not end it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// What it does to the drill.
    pub severity: Severity,
    /// What is wrong.
    pub problem: ServiceProblem,
    /// More, in our words.
    pub how: String,
    /// What programs said.
    pub output: Vec<u8>,
}

/// A file or directory of the restored tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Below the restored root.
    pub path: RestorePath,
    /// As programs inside see it.
    pub inside: String,
    /// Whether it is a directory.
    pub directory: bool,
    /// Bytes, of a file.
    pub size: u64,
}

/// One run of a program.
#[derive(Debug, Clone, Default)]
pub struct Job {
    argv: Vec<String>,
    env: Vec<(String, String)>,
    time: Option<Duration>,
    output: Option<usize>,
}

impl Job {
    /// A program and its arguments.
    pub fn new(argv: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { argv: argv.into_iter().map(Into::into).collect(), ..Self::default() }
    }
    /// With more arguments.
    pub fn args<'a>(mut self, more: impl IntoIterator<Item = &'a str>) -> Self {
        self.argv.extend(more.into_iter().map(str::to_owned));
        self
    }
    /// Reading what a shell command writes.
    pub fn through(mut self, producer: &str) -> Self {
        let script = format!("set -o pipefail; {producer} | \"$@\"");
        self.argv = ["bash", "-c", &script, "bash"].into_iter().map(str::to_owned).chain(self.argv).collect();
        self
    }
    /// With a variable in its environment.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }
    /// With less time than the drill has left.
    pub fn within(mut self, time: Duration) -> Self {
        self.time = Some(time);
        self
    }
    /// Keeping this much of its output.
    pub fn output(mut self, bytes: usize) -> Self {
        self.output = Some(bytes);
        self
    }
}

/// What a service works with.
pub struct Shop<'a> {
    /// The service's name.
    pub name: &'a str,
    /// Where it runs.
    pub sandbox: &'a Sandbox,
    /// Host directories of programs beside `/usr`.
    pub directories: &'a [PathBuf],
    /// Processors that it may use.
    pub processors: u32,
    /// Bytes of memory that it may use.
    pub memory: u64,
    /// What is left of the drill's time.
    pub left: &'a (dyn Fn() -> Duration + Send + Sync),
    /// A word that nobody outside of this drill can know.
    pub nonce: String,
    /// What is worth knowing, for who records it.
    pub remarks: Mutex<Vec<Remark>>,
}

impl Shop<'_> {
    /// The service's own directory, as programs inside see it.
    pub fn home(&self) -> String {
        format!("{KIT_DIRECTORY}/{SERVICES}/{}", self.name)
    }

    /// Makes a directory of the service's own, private to it; answers its place inside.
    ///
    /// # Errors
    /// [`SandboxError`] where scratch does not take it.
    pub fn room(&self, name: &str) -> Result<String, SandboxError> {
        let kit = self.sandbox.kit()?;
        let own = self.make_directory(&kit, SERVICES)?;
        let own = self.make_directory(&own, self.name)?;
        self.make_directory(&own, name)?;
        Ok(format!("{}/{name}", self.home()))
    }

    fn make_directory(&self, at: &OwnedFd, name: &str) -> Result<OwnedFd, SandboxError> {
        let made = self.sandbox.owner().directory(at, name, Mode::RWXU);
        made.map_err(|e| SandboxError::Io { step: "make a directory for a service", source: e.into() })
    }

    /// Writes a file into one of the service's rooms, given to the user inside; answers its place inside.
    ///
    /// # Errors
    /// [`SandboxError`] where scratch does not take it.
    pub fn write(&self, room: &str, name: &str, bytes: &[u8]) -> Result<String, SandboxError> {
        self.room(room)?;
        let written = || -> std::io::Result<()> {
            let path = format!("{SERVICES}/{}/{room}/{name}", self.name);
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let kit = self.sandbox.kit().map_err(std::io::Error::other)?;
            let mut file = File::from(openat2(&kit, path, flags, Mode::RUSR | Mode::WUSR, WITHIN)?);
            file.write_all(bytes)?;
            self.sandbox.owner().gets(&file)?;
            Ok(())
        };
        written().map_err(|source| SandboxError::Io { step: "write a file for a service", source })?;
        Ok(format!("{}/{room}/{name}", self.home()))
    }

    /// How long a file in one of the service's rooms is by now; 0 where there is none.
    pub fn length(&self, room: &str, name: &str) -> u64 {
        self.own_file(room, name).and_then(|file| file.metadata()).map_or(0, |metadata| metadata.len())
    }

    /// What a file in one of the service's rooms, as a log, has from an offset on, but at most so many bytes of its end; empty where
    /// there is none.
    pub fn since(&self, room: &str, name: &str, offset: u64, bytes: u64) -> Vec<u8> {
        let read = |mut file: File| -> std::io::Result<Vec<u8>> {
            let size = file.metadata()?.len();
            file.seek(SeekFrom::Start(offset.max(size.saturating_sub(bytes))))?;
            let mut found = Vec::new();
            file.take(bytes).read_to_end(&mut found)?;
            Ok(found)
        };
        self.own_file(room, name).and_then(read).unwrap_or_default()
    }

    fn own_file(&self, room: &str, name: &str) -> std::io::Result<File> {
        let path = format!("{SERVICES}/{}/{room}/{name}", self.name);
        let kit = self.sandbox.kit().map_err(std::io::Error::other)?;
        Ok(File::from(openat2(&kit, path, READ, Mode::empty(), WITHIN)?))
    }

    /// The one file or directory of the restored tree that a pattern means.
    ///
    /// # Errors
    /// [`ServiceError::Backup`] where there is none; [`ServiceError::Runner`] where there are several.
    pub fn input(&self, pattern: &str) -> Result<Input, ServiceError> {
        let mut found = self.inputs(pattern)?;
        match found.len() {
            1 => Ok(found.remove(0)),
            0 => Err(ServiceError::backup(ServiceProblem::InputMissing, format!("nothing restored matches `{pattern}`"), [])),
            n => {
                let reason = format!("{n} of what was restored match `{pattern}`, and one must; write a narrower pattern");
                Err(ServiceError::runner(reason, []))
            }
        }
    }

    /// All that a pattern means, in the order of their paths.
    ///
    /// # Errors
    /// [`ServiceError::Runner`] where the pattern is none or the tree cannot be read.
    pub fn inputs(&self, pattern: &str) -> Result<Vec<Input>, ServiceError> {
        let as_given = pattern.trim_start_matches("./").trim_end_matches('/');
        let unreadable = |why: String| ServiceError::runner(format!("the restored tree cannot be looked through: {why}"), []);
        let root = self.sandbox.root()?;
        if as_given.is_empty() || as_given == "." {
            let path = RestorePath::from_bytes(b"").map_err(|e| unreadable(e.to_string()))?;
            return Ok(vec![Input { path, inside: DATA_DIRECTORY.to_owned(), directory: true, size: 0 }]);
        }
        let glob = Glob::new(as_given).map_err(|e| ServiceError::runner(e.to_string(), []))?;
        let mut found = Vec::new();
        for entry in walk(root.as_fd(), WalkOptions::default()).map_err(|e| unreadable(e.to_string()))? {
            let entry = entry.map_err(|e| unreadable(e.to_string()))?;
            let (directory, size) = match entry.kind {
                EntryKind::Dir => (true, 0),
                EntryKind::File { size, .. } => (false, size),
                _ => continue,
            };
            if !entry.path.is_root() && glob.matches(&entry.path) {
                // a name that is no text cannot be written into a command line
                let Ok(text) = std::str::from_utf8(entry.path.as_bytes()) else { continue };
                found.push(Input { inside: format!("{DATA_DIRECTORY}/{text}"), path: entry.path, directory, size });
            }
        }
        Ok(found)
    }

    /// Every file below a directory of the restored tree, in the order of their paths.
    ///
    /// # Errors
    /// [`ServiceError::Runner`] where it cannot be read.
    pub fn files_below(&self, directory: &Input) -> Result<Vec<Input>, ServiceError> {
        let unreadable = |why: String| ServiceError::runner(format!("the restored tree cannot be looked through: {why}"), []);
        let root = self.sandbox.root()?;
        let at = match directory.path.is_root() {
            true => root,
            false => openat2(&root, directory.path.as_path(), READ | OFlags::DIRECTORY, Mode::empty(), WITHIN)
                .map_err(|e| unreadable(std::io::Error::from(e).kind().to_string()))?,
        };
        let mut found = Vec::new();
        for entry in walk(at.as_fd(), WalkOptions::default()).map_err(|e| unreadable(e.to_string()))? {
            let entry = entry.map_err(|e| unreadable(e.to_string()))?;
            let EntryKind::File { size, .. } = entry.kind else { continue };
            let Ok(text) = std::str::from_utf8(entry.path.as_bytes()) else { continue };
            let below = directory.path.as_path().join(text);
            let Ok(path) = RestorePath::from_bytes(below.as_os_str().as_encoded_bytes()) else { continue };
            found.push(Input { inside: format!("{}/{text}", directory.inside), path, directory: false, size });
        }
        Ok(found)
    }

    /// Opens a file of the restored tree.
    ///
    /// # Errors
    /// The file system's.
    pub fn open(&self, path: &RestorePath) -> std::io::Result<File> {
        let root = self.sandbox.root().map_err(std::io::Error::other)?;
        Ok(File::from(openat2(&root, path.as_path(), READ, Mode::empty(), WITHIN)?))
    }

    /// Opens the file of the restored tree that has the same name with something behind it.
    ///
    /// # Errors
    /// The file system's.
    pub fn open_beside(&self, file: &Input, end: &str) -> std::io::Result<File> {
        let path = RestorePath::from_bytes(&[file.path.as_bytes(), end.as_bytes()].concat()).map_err(std::io::Error::other)?;
        self.open(&path)
    }

    /// Opens a file below a directory of the restored tree.
    ///
    /// # Errors
    /// The file system's.
    pub fn open_below(&self, directory: &Input, name: &str) -> std::io::Result<File> {
        let root = self.sandbox.root().map_err(std::io::Error::other)?;
        Ok(File::from(openat2(&root, directory.path.as_path().join(name), READ, Mode::empty(), WITHIN)?))
    }

    /// The first bytes of a file of the restored tree, as many as there are.
    pub fn head(&self, input: &Input, bytes: u64) -> Vec<u8> {
        let mut head = Vec::new();
        if let Ok(file) = self.open(&input.path) {
            let _ = file.take(bytes).read_to_end(&mut head);
        }
        head
    }

    /// The last bytes of a file of the restored tree, as many as there are.
    pub fn end(&self, input: &Input, bytes: u64) -> Vec<u8> {
        self.open(&input.path).and_then(|file| end_of(file, bytes)).unwrap_or_default()
    }

    /// Where a program of the host is that is run inside.
    ///
    /// # Errors
    /// [`ServiceError::Runner`] where it is not installed.
    pub fn program(&self, name: &str) -> Result<PathBuf, ServiceError> {
        let found = tool::program(name, self.directories);
        let advice = "install it below /usr, or name its directory: [sandbox] tools";
        found.map(|(path, _)| path).map_err(|e| ServiceError::runner(format!("{e}; {advice}"), []))
    }

    /// Runs a program to its end; servers go on.
    ///
    /// # Errors
    /// [`SandboxError`]; how the program ended is no error.
    pub async fn run(&self, job: Job) -> Result<Exit, SandboxError> {
        let left = (self.left)().max(Duration::from_secs(1));
        let spec = CommandSpec {
            env: self.environment()?.into_iter().chain(job.env).collect(),
            timeout: job.time.map_or(left, |time| time.min(left)),
            output_cap: job.output.unwrap_or(OUTPUT),
            afterwards: Afterwards::LeaveRunning,
            ..CommandSpec::new(job.argv)
        };
        self.sandbox.run(&spec).await
    }

    fn environment(&self) -> Result<Vec<(String, String)>, SandboxError> {
        let mut environment = tool::base_environment(self.directories);
        // servers and their clients have homes of their own
        environment.push(("HOME".to_owned(), self.home()));
        environment.push(("TMPDIR".to_owned(), self.room(TEMPORARY)?));
        environment.push(("TZ".to_owned(), "UTC".to_owned()));
        Ok(environment)
    }

    /// Notes what is worth knowing.
    pub fn remark(&self, severity: Severity, problem: ServiceProblem, how: impl Into<String>, output: impl Into<Vec<u8>>) {
        let remark = Remark { severity, problem, how: how.into(), output: output.into() };
        self.remarks.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(remark);
    }
}

fn end_of(mut file: File, bytes: u64) -> std::io::Result<Vec<u8>> {
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(bytes)))?;
    let mut end = Vec::new();
    file.take(bytes).read_to_end(&mut end)?;
    Ok(end)
}

/// SHA-256 of a program's file.
///
/// # Errors
/// [`ServiceError::Runner`] where it cannot be read.
pub fn digest_of(path: &Path) -> Result<Sha256, ServiceError> {
    let digest = fs::canonicalize(path).and_then(File::open).and_then(crate::codec::sha256);
    digest.map_err(|e| ServiceError::runner(format!("{} cannot be read: {}", path.display(), e.kind()), []))
}

const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOFOLLOW);
const WITHIN: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS).union(ResolveFlags::NO_XDEV);
