//! The end of a sandbox: let go of everything, then look for remains.

use std::collections::HashSet;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use rustix::fs::{fstat, fstatvfs, statvfs};

use super::facts::SWAP_IS_OPEN;
use super::place::Held;
use super::scratch::{self, Removal};
use crate::domain::{Disposal, DrillId, Probe, Sanitization, ScratchKind};

const PATIENCE: Duration = Duration::from_secs(10);

/// Which file system a scratch is: its device number alone could be given to the next one at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileSystem {
    dev: u64,
    id: u64,
}

impl FileSystem {
    fn of(fd: impl AsFd) -> Option<FileSystem> {
        Some(FileSystem { dev: fstat(fd.as_fd()).ok()?.st_dev, id: fstatvfs(fd).ok()?.f_fsid })
    }
}

pub(super) async fn destroy(mut held: Held) -> Disposal {
    let mut namespace = None;
    let mut monitor_gone = true;
    if let Some(mut helper) = held.helper.take() {
        namespace = helper.pid_namespace.take();
        // The closed socket is the order to end; the monitor goes when everything inside is gone.
        helper.control = None;
        if tokio::time::timeout(PATIENCE, helper.monitor.wait()).await.is_err() {
            let _ = helper.monitor.start_kill();
            monitor_gone = tokio::time::timeout(PATIENCE, helper.monitor.wait()).await.is_ok();
        }
    }
    let rest = tokio::task::spawn_blocking(move || finish(held, namespace, monitor_gone));
    rest.await.unwrap_or_else(|_| Disposal {
        method: "interrupted".to_owned(),
        sanitization: Some(Sanitization::None),
        probes: vec![Probe { what: "the sandbox (its disposal did not finish)".to_owned(), gone: false }],
        ..Disposal::default()
    })
}

fn finish(mut held: Held, namespace: Option<OwnedFd>, monitor_gone: bool) -> Disposal {
    let isolated = held.facts.isolated;
    let mut probes = Vec::new();
    if isolated {
        probes.push(Probe { what: "the helper process".to_owned(), gone: monitor_gone });
        probes.push(Probe { what: "processes in the sandbox's pid namespace".to_owned(), gone: no_process_in(namespace.as_ref()) });
    }
    if let Some(groups) = held.groups.take()
        && groups.exist()
    {
        probes.push(Probe { what: "the sandbox's control groups".to_owned(), gone: groups.remove() });
    }
    let file_system = held.rooms.as_ref().and_then(|r| FileSystem::of(&r.tree));
    held.rooms = None;
    held.detached = None;
    if isolated || held.limits.scratch != ScratchKind::Directory {
        probes.push(Probe { what: "mounts of the sandbox in any mount namespace".to_owned(), gone: no_mount_of(&held.drill) });
    }
    let (method, kind) = match held.limits.scratch {
        ScratchKind::Tmpfs => {
            let gone = file_system.is_some_and(no_descriptor_on);
            probes.push(Probe { what: "descriptors of the runner on the scratch".to_owned(), gone });
            if held.facts.remarks.iter().any(|r| r == SWAP_IS_OPEN) {
                let method = "scratch was memory (a private tmpfs), released with its last reference; the swap device may have taken some of it (no sanitization after NIST SP 800-88)";
                (method, Sanitization::None)
            } else {
                let method = "scratch was memory only (a private tmpfs); released with its last reference, nothing was written to a medium (NIST SP 800-88: volatile memory, cleared by release)";
                (method, Sanitization::Clear)
            }
        }
        ScratchKind::Encrypted => {
            // A directory's file system is the host's: there an open descriptor shows as a key that is still in use.
            if held.directory.is_none() {
                let gone = file_system.is_some_and(no_descriptor_on);
                probes.push(Probe { what: "descriptors of the runner on the scratch".to_owned(), gone });
            }
            let (method, found) = match held.encrypted.take() {
                Some(encrypted) => encrypted.close(held.directory.as_ref()),
                None => ("scratch was to be encrypted, and was never made", Vec::new()),
            };
            let purged = !found.is_empty();
            probes.extend(found);
            if held.directory.is_some() {
                probes.push(Probe { what: "the scratch directory".to_owned(), gone: remove_directory(&mut held) });
            }
            (method, if purged { Sanitization::Purge } else { Sanitization::None })
        }
        ScratchKind::Directory => {
            probes.push(Probe { what: "the scratch directory".to_owned(), gone: remove_directory(&mut held) });
            let method = "scratch was a plain directory: its files were unlinked; blocks on the medium may still hold them (no sanitization after NIST SP 800-88)";
            (method, Sanitization::None)
        }
    };
    let mut disposal = Disposal { method: method.to_owned(), sanitization: Some(kind), probes, ..Disposal::default() };
    if !disposal.complete() {
        disposal.sanitization = Some(Sanitization::None);
    }
    // What resists stays registered, so that the next start tries again.
    match held.claim.take() {
        Some(claim) if disposal.complete() => claim.release(),
        kept => drop(kept),
    }
    disposal
}

fn remove_directory(held: &mut Held) -> bool {
    let Some(directory) = held.directory.take() else { return false };
    let removed = matches!(directory.remove(&held.drill), Ok(Removal::Removed(_) | Removal::Absent));
    removed && held.scratch_parent.as_ref().is_some_and(|parent| scratch::is_absent(parent, &held.drill))
}

/// The safety net: the same without waiting nicely, and without probes. What resists stays registered for reaping.
pub(super) fn let_go(held: &mut Held) {
    if let Some(mut helper) = held.helper.take() {
        // The monitor ends by itself when everything inside is gone, and only then.
        helper.control = None;
        for attempt in 0..400 {
            if !matches!(helper.monitor.try_wait(), Ok(None)) {
                break;
            }
            if attempt == 200 {
                let _ = helper.monitor.start_kill();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    let mut clean = held.groups.take().is_none_or(|g| g.remove());
    held.rooms = None;
    held.detached = None;
    if let Some(encrypted) = held.encrypted.take() {
        clean &= encrypted.close(held.directory.as_ref()).1.iter().all(|p| p.gone);
    }
    if held.directory.is_some() {
        clean &= remove_directory(held);
    }
    if clean && let Some(claim) = held.claim.take() {
        claim.release();
    }
}

fn pids() -> impl Iterator<Item = String> {
    let names = fs::read_dir("/proc").into_iter().flatten().filter_map(|e| e.ok()?.file_name().into_string().ok());
    names.filter(|n| n.bytes().all(|b| b.is_ascii_digit()))
}

/// Of the processes that this user may look at. The descriptor keeps the namespace's number from being given away.
fn no_process_in(namespace: Option<&OwnedFd>) -> bool {
    let Some(stat) = namespace.and_then(|n| fstat(n).ok()) else { return false };
    let ours = format!("pid:[{}]", stat.st_ino);
    !pids().any(|pid| fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|link| link.as_os_str() == ours.as_str()))
}

/// Every mount that a sandbox makes bears its label as source; an encrypted volume's shows as its loop device instead. Each mount namespace is read once.
fn no_mount_of(drill: &DrillId) -> bool {
    let mark = format!(" {} ", scratch::label(drill));
    let mut seen = HashSet::new();
    pids().all(|pid| {
        let namespace = fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        if namespace.is_some_and(|n| !seen.insert(n)) {
            return true;
        }
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        !mounts.lines().any(|line| line.contains(&mark))
    })
}

/// Whether the runner itself still holds a descriptor on the scratch: as long as one is open, the memory is not released.
fn no_descriptor_on(file_system: FileSystem) -> bool {
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().filter_map(Result::ok);
    !entries.map(|e| e.path()).any(|path| {
        let same_device = fs::metadata(&path).is_ok_and(|m| m.dev() == file_system.dev);
        same_device && statvfs(&path).is_ok_and(|s| s.f_fsid == file_system.id)
    })
}
