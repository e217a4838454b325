//! A sandbox in words, for the evidence: what it is made of, and what is weak about it.

use super::bounds;
use super::encrypted;
use super::place::{Held, advice_on};
use super::swap::{self, SwapGuard};
use super::wire::IdMap;
use crate::domain::{Held as Bound, Requirement, SandboxFacts, Sanitization, ScratchKind};

/// For what control groups were made.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ByCgroup {
    pub memory: bool,
    pub processes: bool,
    pub cpu: bool,
}

/// Of a sandbox in namespaces. `memory` is the group's limit; `made` says which groups were made.
pub(super) fn isolated(held: &Held, ids: IdMap, guard: Option<SwapGuard>, memory: u64, made: ByCgroup) -> SandboxFacts {
    let (scratch, mut remarks) = scratch_words(held);
    let joined = held.lock_down.joined;
    let by_cgroup = if joined { made } else { ByCgroup::default() };
    if !by_cgroup.memory {
        remarks.push(
            "no control group for memory: each process is limited for itself, and running out is not told from other failures".to_owned(),
        );
    }
    if !by_cgroup.processes {
        remarks.push(NO_PROCESS_GROUP.to_owned());
    }
    if !by_cgroup.cpu && held.limits.cpus.is_some() {
        remarks.push(NO_CPU_GROUP.to_owned());
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
        memory_limit: by_cgroup.memory.then_some(memory),
        bounds: bounds::inside(held, by_cgroup),
        user,
        remarks,
    }
}

/// Of a place without processes.
pub(super) fn bare(held: &Held, why: &str, guard: Option<SwapGuard>) -> SandboxFacts {
    let (scratch, mut remarks) = scratch_words(held);
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
        bounds: bounds::bare(held),
        user: format!("{}:{}, the runner's own", held.owner.uid, held.owner.gid),
        remarks,
    }
}

/// A remark that the doctor looks for.
pub(super) const SWAP_IS_OPEN: &str = "restored data may reach the swap device";
const NO_PROCESS_GROUP: &str =
    "no control group for processes: limited by the user's count, and hitting it is told only where it still holds when the command ends";
const NO_CPU_GROUP: &str = "no control group for processor time: no quota holds what runs inside, only a total for each process";
/// What an administrator would change for control groups.
pub(super) const CGROUP_ADVICE: &str = "run as root, or as a systemd service or scope with Delegate=cpu memory pids";
/// And for swap.
pub(super) const SWAP_ADVICE: &str = "turn swap off, run as root on Linux 6.4 or newer, or give the service MemorySwapMax=0";
/// And for landlock.
pub(super) const LANDLOCK_ADVICE: &str = "use Linux 6.10 or newer with landlock among its security modules";

/// Why a sandbox does not keep what a scenario insists on, and what to change; `None` where it does.
pub(super) fn refusal(requirement: Requirement, held: &Held) -> Option<(String, &'static str)> {
    let facts = &held.facts;
    let together = |bound: &str| facts.bounds.iter().any(|b| b.bound == bound && b.held == Bound::Together && b.told);
    let (kept, why, advice) = match requirement {
        Requirement::Isolation => (facts.isolated, "nothing is apart from the host", advice_on("namespaces")),
        Requirement::Memory => (together("memory"), "memory is not bounded for all processes together", CGROUP_ADVICE),
        Requirement::Processes => (together("processes"), "processes are not counted together", CGROUP_ADVICE),
        Requirement::Cpu => {
            let kept = facts.bounds.iter().any(|b| b.bound == "cpu" && b.held == Bound::Together);
            (kept, "no quota holds processor time", CGROUP_ADVICE)
        }
        Requirement::Scratch => {
            (together("scratch"), "scratch in a plain directory has no size of its own", "use scratch = { kind = \"tmpfs\" }")
        }
        Requirement::NoSwap => (!swap::reaches(held), "memory with restored data could be written to the active swap device", SWAP_ADVICE),
        Requirement::Landlock => (held.lock_down.landlock == "full", "landlock is not fully enforced", LANDLOCK_ADVICE),
    };
    (!kept).then(|| (format!("the scenario requires `{}`, and here {why}", requirement.word()), advice))
}

/// What it amounts to when a sandbox with these facts is lost with its runner, and nothing of it is left: in words, and after
/// NIST SP 800-88. Read from the first word of what `scratch_words` says.
pub fn when_lost(facts: &SandboxFacts) -> (&'static str, Sanitization) {
    match facts.scratch.split_whitespace().next() {
        Some("tmpfs") if facts.remarks.iter().any(|r| r == SWAP_IS_OPEN) => {
            ("scratch was memory, and the swap device may have taken some of it", Sanitization::None)
        }
        Some("tmpfs") => ("scratch was memory, released with the last process", Sanitization::Clear),
        Some("encrypted") => ("scratch was ciphertext, whose key is gone", Sanitization::Purge),
        Some("directory") => ("scratch was a plain directory, whose files were unlinked", Sanitization::None),
        _ => ("scratch was of another kind", Sanitization::None),
    }
}

fn scratch_words(held: &Held) -> (String, Vec<String>) {
    match held.limits.scratch {
        ScratchKind::Tmpfs => ("tmpfs".to_owned(), Vec::new()),
        ScratchKind::Encrypted => encrypted::words(held),
        ScratchKind::Directory => (
            "directory".to_owned(),
            vec![
                "scratch is a plain directory: restored data survives a power cut and may be recovered from the medium".to_owned(),
                "the size of a scratch directory is held by the restore's budget, not by the file system".to_owned(),
            ],
        ),
    }
}
