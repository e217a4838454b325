//! The restored system as checks may see it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use async_trait::async_trait;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use crate::checks::{Entries, Programs, Ran, Tree};
use crate::domain::{Aspect, FileEntry, Period, RestorePath};
use crate::restore::Restored;
use crate::sandbox::{Afterwards, CommandSpec, Ended, Sandbox, SandboxError};
use crate::tree::{WalkOptions, walk};

/// The restored tree, reached by descriptor only.
pub(super) struct RestoredTree<'a> {
    root: OwnedFd,
    restored: &'a Restored,
}

impl<'a> RestoredTree<'a> {
    pub(super) fn new(root: OwnedFd, restored: &'a Restored) -> Self {
        Self { root, restored }
    }
}

impl Tree for RestoredTree<'_> {
    fn walk(&self) -> io::Result<Entries<'_>> {
        let walk = walk(self.root.as_fd(), WalkOptions::default()).map_err(io::Error::other)?;
        Ok(Box::new(walk.map(|entry| entry.map_err(io::Error::other))))
    }
    fn expected(&self) -> io::Result<Option<Entries<'_>>> {
        // attributes were compared while they were set, which saves a system call for every entry here
        let bare = |mut entry: FileEntry| {
            entry.xattrs.clear();
            entry
        };
        Ok(self.restored.index.as_ref().map(|index| Box::new(index.iter().map(move |entry| entry.map(bare))) as Entries<'_>))
    }
    fn met_while_writing(&self) -> (Vec<(Aspect, u64)>, Vec<RestorePath>) {
        match &self.restored.compared {
            None => (Vec::new(), Vec::new()),
            Some(compared) => {
                let counted = compared.aspects.iter().map(|(aspect, count)| (*aspect, *count)).collect();
                (counted, compared.examples.iter().map(|d| d.path.clone()).collect())
            }
        }
    }
    fn open(&self, path: &RestorePath) -> io::Result<File> {
        // a pipe in the restored tree must not hold the drill up
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        Ok(File::from(openat2(self.root.as_fd(), path.as_path(), flags, Mode::empty(), resolve)?))
    }
}

/// Starts programs in the drill's sandbox.
pub(super) struct InSandbox<'a> {
    pub(super) sandbox: &'a Sandbox,
    /// The scenario's time for the whole drill: no single command gets more.
    pub(super) time: Period,
    /// Whether servers run, which a check must leave running.
    pub(super) beside_servers: bool,
}

#[async_trait]
impl Programs for InSandbox<'_> {
    async fn run(&self, command: &[String]) -> Result<Ran, String> {
        let spec = CommandSpec {
            timeout: Duration::from_secs(self.time.seconds.max(1)),
            afterwards: if self.beside_servers { Afterwards::LeaveRunning } else { Afterwards::KillRest },
            ..CommandSpec::new(command.iter().cloned())
        };
        match self.sandbox.run(&spec).await {
            Ok(exit) => Ok(match exit.ended {
                Ended::Status(status) => Ran::Exited { status, truncated: exit.stdout_dropped > 0, stdout: exit.stdout },
                Ended::Signal(signal) => Ran::Killed { signal },
            }),
            Err(SandboxError::Limit { limit, value }) => Ok(Ran::Limit { limit: limit.word().to_owned(), value }),
            Err(SandboxError::NotStarted { source, .. }) => Ok(Ran::NotStarted { reason: source.kind().to_string() }),
            Err(other) => Err(other.to_string()),
        }
    }
}
