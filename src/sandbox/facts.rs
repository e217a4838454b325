//! A sandbox in words, for the evidence: what it is made of, and what is weak about it.

use super::place::Held;
use super::swap::{self, SwapGuard};
use super::wire::IdMap;
use crate::domain::{ResourceLimits, SandboxFacts, ScratchKind};

/// Of a sandbox in namespaces. `memory` is the group's limit; `by_cgroup` says for memory and processes whether a group was made.
pub(super) fn isolated(held: &Held, ids: IdMap, guard: Option<SwapGuard>, memory: u64, by_cgroup: (bool, bool)) -> SandboxFacts {
    let (scratch, mut remarks) = scratch_words(&held.limits);
    let joined = held.lock_down.joined;
    if !(joined && by_cgroup.0) {
        remarks.push(
            "no control group for memory: each process is limited for itself, and running out is not told from other failures".to_owned(),
        );
    }
    if !(joined && by_cgroup.1) {
        remarks.push(NO_PROCESS_GROUP.to_owned());
    }
    match held.lock_down.landlock.as_str() {
        "full" => {}
        other => remarks.push(format!("landlock: {other}")),
    }
    if let Some(why) = &held.lock_down.deaf {
        remarks.push(format!("attempts to reach the outside are refused, but cannot be listed: {why}"));
    }
    let (swap, swap_is_open) = swap::words(held, guard);
    if swap_is_open {
        remarks.push(SWAP_IS_OPEN.to_owned());
    }
    let user = match ids {
        IdMap::Range { .. } => format!("{}:{}, nobody on this host", held.owner.uid, held.owner.gid),
        IdMap::Single { uid: 0, .. } => {
            remarks.push("what runs inside is root's own user id, without capabilities: a range of ids could not be mapped".to_owned());
            "0:0, without capabilities".to_owned()
        }
        IdMap::Single { uid, gid } => format!("{uid}:{gid}, the runner's own, without capabilities"),
    };
    SandboxFacts {
        kind: "namespaces".to_owned(),
        isolated: true,
        network: "loopback only".to_owned(),
        scratch,
        scratch_bytes: held.limits.scratch_size.0,
        swap,
        memory_limit: (joined && by_cgroup.0).then_some(memory),
        user,
        remarks,
    }
}

/// Of a place without processes.
pub(super) fn bare(held: &Held, why: &str, guard: Option<SwapGuard>) -> SandboxFacts {
    let (scratch, mut remarks) = scratch_words(&held.limits);
    remarks.insert(0, format!("no isolation, and so no commands: {why}"));
    let (swap, swap_is_open) = swap::words(held, guard);
    if swap_is_open {
        remarks.push(SWAP_IS_OPEN.to_owned());
    }
    SandboxFacts {
        kind: "none".to_owned(),
        isolated: false,
        network: "nothing runs".to_owned(),
        scratch,
        scratch_bytes: held.limits.scratch_size.0,
        swap,
        memory_limit: None,
        user: format!("{}:{}, the runner's own", held.owner.uid, held.owner.gid),
        remarks,
    }
}

/// A remark that the doctor looks for.
pub(super) const SWAP_IS_OPEN: &str = "restored data may reach the swap device";
/// Another one.
pub(super) const NO_PROCESS_GROUP: &str = "no control group for processes: limited by the user's count, and hitting it is not reported";

fn scratch_words(limits: &ResourceLimits) -> (String, Vec<String>) {
    match limits.scratch {
        ScratchKind::Tmpfs => ("tmpfs".to_owned(), Vec::new()),
        ScratchKind::Directory => (
            "directory".to_owned(),
            vec![
                "scratch is a plain directory: restored data survives a power cut and may be recovered from the medium".to_owned(),
                "the size of a scratch directory is held by the restore's budget, not by the file system".to_owned(),
            ],
        ),
    }
}
