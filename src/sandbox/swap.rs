//! Swap: plaintext that the kernel writes to a swap device outlives the drill.

use std::path::Path;

use super::error::SandboxError;
use super::facts::SWAP_IS_OPEN;
use super::place::Held;
use super::spec::{SandboxSpec, SwapPolicy};
use crate::domain::ScratchKind;

/// What keeps the pages of a tmpfs off swap devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SwapGuard {
    /// The mount itself.
    NoSwapMount,
    /// The scratch is on a disk, encrypted: the kernel writes its pages there, never to swap.
    Encrypted,
    /// The host has no swap device in use.
    NoSwapDevice,
    /// The control group of the runner, which writes the pages, may not swap.
    OwnGroup,
    /// Nothing.
    Nothing,
}

impl SwapGuard {
    fn of(noswap_mount: bool, proc_swaps: &str, own_group_may_not: bool) -> SwapGuard {
        match (noswap_mount, is_active(proc_swaps), own_group_may_not) {
            (true, _, _) => SwapGuard::NoSwapMount,
            (false, false, _) => SwapGuard::NoSwapDevice,
            (false, true, true) => SwapGuard::OwnGroup,
            (false, true, false) => SwapGuard::Nothing,
        }
    }

    const fn words(self) -> &'static str {
        match self {
            SwapGuard::NoSwapMount => "scratch is mounted with noswap",
            SwapGuard::Encrypted => "scratch is encrypted on its disk, and never swapped",
            SwapGuard::NoSwapDevice => "no swap device was active when the drill started",
            SwapGuard::OwnGroup => "the runner's control group may not swap",
            SwapGuard::Nothing => "nothing keeps scratch off the active swap device",
        }
    }
}

/// What keeps a scratch in memory off the swap device: its pages are the runner's own, who writes them.
pub(super) fn guard_scratch(spec: &SandboxSpec, noswap: bool) -> Result<SwapGuard, SandboxError> {
    let guard = SwapGuard::of(noswap, &proc_swaps(), own_group_forbids());
    match guard {
        SwapGuard::Nothing => refuse_unless_allowed(spec).map(|()| guard),
        SwapGuard::NoSwapMount | SwapGuard::Encrypted | SwapGuard::NoSwapDevice | SwapGuard::OwnGroup => Ok(guard),
    }
}

/// The same for the memory and the private `/tmp` of what runs inside. With scratch in clear on a disk nothing is gained by it.
pub(super) fn guard_inside(spec: &SandboxSpec, held: &Held) -> Result<(), SandboxError> {
    if spec.limits.scratch != ScratchKind::Directory && inside(held) == Inside::MaySwap { refuse_unless_allowed(spec) } else { Ok(()) }
}

/// Whether memory with restored data can reach a swap device, whatever kind scratch is of.
pub(super) fn reaches(held: &Held) -> bool {
    let scratch = held.facts.remarks.iter().any(|r| r == SWAP_IS_OPEN);
    scratch || (held.facts.isolated && inside(held) == Inside::MaySwap)
}

fn refuse_unless_allowed(spec: &SandboxSpec) -> Result<(), SandboxError> {
    match spec.swap {
        SwapPolicy::Allow => Ok(()),
        SwapPolicy::Refuse => Err(SandboxError::Unavailable {
            why: "restored data in memory could be written to the active swap device".to_owned(),
            advice: "turn swap off; or run as root on Linux 6.4 or newer with control groups for memory; or allow it".to_owned(),
        }),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inside {
    MayNot,
    HasNowhere,
    MaySwap,
}

fn inside(held: &Held) -> Inside {
    let forbidden = held.lock_down.joined && held.groups.as_ref().is_some_and(|g| g.swap_forbidden);
    match (forbidden, is_active(&proc_swaps())) {
        (true, _) => Inside::MayNot,
        (false, false) => Inside::HasNowhere,
        (false, true) => Inside::MaySwap,
    }
}

/// For the facts: how it is kept, and whether restored data can reach a swap device after all.
pub(super) fn words(held: &Held, guard: Option<SwapGuard>) -> (String, bool) {
    let scratch = guard.map_or("scratch is on disk", SwapGuard::words);
    let runs = held.facts.isolated;
    let (inside, open) = match inside(held) {
        Inside::MayNot if runs => ("; what runs inside may not swap", false),
        Inside::MaySwap if runs => ("; what runs inside may be swapped out", true),
        Inside::MayNot | Inside::HasNowhere | Inside::MaySwap => ("", false),
    };
    (format!("{scratch}{inside}"), open || guard == Some(SwapGuard::Nothing))
}

fn proc_swaps() -> String {
    std::fs::read_to_string("/proc/swaps").unwrap_or_default()
}

/// From the text of `/proc/swaps`: one line of headings, then one for each device.
pub(super) fn is_active(proc_swaps: &str) -> bool {
    proc_swaps.lines().skip(1).any(|l| !l.trim().is_empty())
}

/// Whether this process's own control group forbids swap (version 2; version 1 has no such setting for a service).
fn own_group_forbids() -> bool {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let Some(path) = own.lines().find_map(|l| l.strip_prefix("0::/")) else { return false };
    let mut group = Path::new("/sys/fs/cgroup").join(path);
    while group.starts_with("/sys/fs/cgroup") {
        if std::fs::read_to_string(group.join("memory.swap.max")).is_ok_and(|t| t.trim() == "0") {
            return true;
        }
        group.pop();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_is_answered_by_the_strongest_guard() {
        let none = "Filename\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
        let some = "Filename Type Size Used Priority\n/dev/sda2 partition 999 0 -2\n";
        assert_eq!(SwapGuard::of(true, some, false), SwapGuard::NoSwapMount);
        assert_eq!(SwapGuard::of(false, none, false), SwapGuard::NoSwapDevice);
        assert_eq!(SwapGuard::of(false, some, true), SwapGuard::OwnGroup);
        assert_eq!(SwapGuard::of(false, some, false), SwapGuard::Nothing);
    }
}
