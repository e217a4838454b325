//! What this host can promise, found by doing it.

use super::error::SandboxError;
use super::facts::{CGROUP_ADVICE, LANDLOCK_ADVICE, SWAP_ADVICE, SWAP_IS_OPEN};
use super::inside::Inside;
use super::place::provision;
use super::registry::leftovers;
use super::spec::{CommandSpec, Isolation, SandboxSpec, SwapPolicy};
use crate::domain::{ByteSize, Cpus, Disposal, Held, SandboxFacts, Sanitization, ScratchKind};

/// Whether a promise can be kept here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kept {
    /// It can.
    Yes,
    /// It cannot.
    No,
    /// With a weakness.
    Partly,
}

/// One promise of the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Promise {
    /// Which.
    pub name: String,
    /// Whether this host can keep it.
    pub kept: Kept,
    /// How, or why not.
    pub how: String,
    /// What to change where it cannot.
    pub advice: Option<String>,
}

pub(super) fn promise(name: &str, kept: Kept, how: impl Into<String>, advice: Option<&str>) -> Promise {
    Promise { name: name.to_owned(), kept, how: how.into(), advice: advice.map(str::to_owned) }
}

/// Makes a small sandbox like `like`, looks around in it, destroys it, and tells what held, promise by promise.
pub async fn promises(like: &SandboxSpec) -> Vec<Promise> {
    let mut spec = like.clone();
    spec.isolation = Isolation::Required;
    spec.swap = SwapPolicy::Allow;
    spec.limits.scratch = ScratchKind::Tmpfs;
    spec.limits.scratch_size = ByteSize::mib(4);
    spec.limits.memory = ByteSize::mib(64);
    spec.limits.cpus = Cpus::new(0.5);
    spec.limits.require.clear();
    let sandbox = match provision(&spec).await {
        Ok(sandbox) => sandbox,
        Err(error) => return without(&error, like),
    };
    let facts = sandbox.facts().clone();
    let landlock = sandbox.landlock().to_owned();
    let heard = sandbox.hears_attempts().map_err(str::to_owned);
    let looked = Inside::look(&sandbox).await;
    let disposal = sandbox.destroy().await;

    let mut list = match &looked {
        Ok(inside) => inside.promises(&facts),
        Err(e) => vec![promise("isolation", Kept::No, format!("no command could be run to look: {e}"), e.advice())],
    };
    list.push(match heard {
        Ok(()) => promise("egress attempts", Kept::Yes, "refused at once, and each is listed", None),
        Err(why) => promise("egress attempts", Kept::Partly, format!("refused, but not listed: {why}"), Some(EGRESS_ADVICE)),
    });
    list.push(match landlock.as_str() {
        "full" => promise("landlock", Kept::Yes, "on top of the mounts", None),
        other => promise("landlock", Kept::Partly, format!("{other}; the mounts alone hold files apart"), Some(LANDLOCK_ADVICE)),
    });
    list.extend(bounds(&facts));
    let swap_is_open = facts.remarks.iter().any(|r| r == SWAP_IS_OPEN);
    list.push(match swap_is_open {
        false => promise("no swap", Kept::Yes, facts.swap.clone(), None),
        true => promise("no swap", Kept::No, facts.swap.clone(), Some(SWAP_ADVICE)),
    });
    list.push(match swap_is_open {
        false => promise("scratch: tmpfs", Kept::Yes, "private to the sandbox, gone with it", None),
        true => promise("scratch: tmpfs", Kept::No, "refused while its pages could reach the swap device", Some(SWAP_ADVICE)),
    });
    list.push(encrypted_scratch(like).await);
    list.push(plain_directory());
    list.push(disposed(&disposal));
    list.push(left_over(like));
    list
}

/// Whether a sandbox stands exactly as a scenario wants it, and whether there is room for it.
pub async fn stands(spec: &SandboxSpec) -> Vec<Promise> {
    let sandbox = match provision(spec).await {
        Ok(sandbox) => sandbox,
        Err(error) => return vec![promise("sandbox", Kept::No, format!("a drill is refused: {error}"), error.advice())],
    };
    let facts = sandbox.facts().clone();
    let free = sandbox.free_bytes();
    let disposal = sandbox.destroy().await;
    let mut list = vec![match facts.remarks.as_slice() {
        [] => promise("sandbox", Kept::Yes, format!("{}, scratch {}", facts.kind, facts.scratch), None),
        // What is weaker is in the report of every drill, too.
        weaker => {
            promise("sandbox", Kept::Partly, format!("stands; {}", weaker.join("; ")), Some("[sandbox] require, where that must not be"))
        }
    }];
    let limits = &spec.limits;
    let (wanted, at_hand, of) = match limits.scratch {
        ScratchKind::Tmpfs => (limits.memory.0.saturating_add(limits.scratch_size.0), super::host::available_memory(), "memory"),
        // its whole size was set aside when it was made
        ScratchKind::Encrypted if facts.scratch.contains("volume") => {
            (limits.scratch_size.0, free.ok().max(Some(limits.scratch_size.0)), "the encrypted volume")
        }
        ScratchKind::Encrypted | ScratchKind::Directory => (limits.scratch_size.0, free.ok(), "the scratch directory's file system"),
    };
    list.push(match at_hand {
        Some(bytes) if bytes < wanted => {
            let how = format!("{} may be taken, and {of} has {} free", ByteSize(wanted), ByteSize(bytes));
            promise("room", Kept::Partly, how, Some("smaller limits in [sandbox], or a larger host"))
        }
        Some(bytes) => promise("room", Kept::Yes, format!("{} of {} free in {of}", ByteSize(wanted), ByteSize(bytes)), None),
        None => promise("room", Kept::Partly, format!("how much {of} has free cannot be told"), None),
    });
    if !disposal.complete() {
        list.push(disposed(&disposal));
    }
    list
}
const EGRESS_ADVICE: &str =
    "Linux 5.5 or newer, kernel.yama.ptrace_scope below 3, and no system-call filter around the runner that asks by itself";

/// Where encrypted scratch is tried when no directory is named for it.
const USUAL_DISK: &str = "/var/tmp";

/// Makes a small one, writes into it, destroys it. A host without is no worse a host, as long as restores fit into memory.
async fn encrypted_scratch(like: &SandboxSpec) -> Promise {
    let name = "scratch: encrypted";
    let mut spec = like.clone();
    spec.isolation = Isolation::Required;
    spec.swap = SwapPolicy::Allow;
    spec.limits.scratch = ScratchKind::Encrypted;
    spec.limits.scratch_path.get_or_insert_with(|| USUAL_DISK.into());
    spec.limits.scratch_size = ByteSize::mib(4);
    spec.limits.memory = ByteSize::mib(64);
    let sandbox = match provision(&spec).await {
        Ok(sandbox) => sandbox,
        Err(error) => return promise(name, Kept::Partly, format!("only in memory: {error}"), error.advice()),
    };
    let scratch = sandbox.facts().scratch.clone();
    let ran = sandbox.run(&CommandSpec::new(["sh", "-c", "echo x > x && cat x"])).await;
    let disposal = sandbox.destroy().await;
    match ran {
        Ok(exit) if exit.success() && disposal.complete() => promise(name, Kept::Yes, scratch, None),
        Ok(exit) if exit.success() => Promise { name: name.to_owned(), ..disposed(&disposal) },
        Ok(_) => promise(name, Kept::No, "what runs inside cannot write to it", None),
        Err(e) => promise(name, Kept::No, format!("no command could be run to look: {e}"), e.advice()),
    }
}

/// A bound of the facts, under the name that people look for.
const BOUNDS: [(&str, &str); 10] = [
    ("memory", "memory limit"),
    ("processes", "process limit"),
    ("cpu", "cpu quota"),
    ("cpu time", "cpu time"),
    ("scratch", "scratch size"),
    ("inodes", "scratch entries"),
    ("private /tmp", "private /tmp"),
    ("/dev/shm", "shared memory"),
    ("time", "time limit"),
    ("output", "output limit"),
];

fn bounds(facts: &SandboxFacts) -> Vec<Promise> {
    let rows = BOUNDS.iter().filter_map(|(bound, name)| {
        let found = facts.bounds.iter().find(|b| b.bound == *bound)?;
        let scope = match found.held {
            Held::Together => "all processes together",
            Held::Each => "each for itself",
            Held::Not => "not held",
        };
        // Held to a quota nothing is hit: it goes slower.
        let told = if found.told || *bound == "cpu" { "" } else { "; hitting it is not always told from other failures" };
        let groups = matches!(*bound, "memory" | "processes" | "cpu");
        let weak = found.held == Held::Not || (groups && (found.held == Held::Each || !told.is_empty()));
        let kept = if weak { Kept::Partly } else { Kept::Yes };
        Some(promise(name, kept, format!("{}, {scope}{told}", found.by), (weak && groups).then_some(CGROUP_ADVICE)))
    });
    rows.collect()
}

fn plain_directory() -> Promise {
    let how = "weaker on purpose: survives a power cut, and the report says so";
    promise("scratch: directory", Kept::Partly, how, Some("scratch = { kind = \"tmpfs\" } where it fits into memory"))
}

fn disposed(disposal: &Disposal) -> Promise {
    if disposal.complete() {
        let kind = disposal.sanitization.unwrap_or(Sanitization::None).words();
        let how = format!("{} probes found nothing left; NIST SP 800-88: {kind}", disposal.probes.len());
        return promise("disposal", Kept::Yes, how, None);
    }
    let left: Vec<&str> = disposal.probes.iter().filter(|p| !p.gone).map(|p| p.what.as_str()).collect();
    promise("disposal", Kept::No, format!("still there: {}", left.join(", ")), Some("run `firedrill reap`"))
}

/// What crashed runners left waits for the next start, or for `reap`.
fn left_over(like: &SandboxSpec) -> Promise {
    match leftovers(&like.state_dir) {
        Ok(drills) if drills.is_empty() => promise("leftovers", Kept::Yes, "none; every start of a drill reaps what a crash left", None),
        Ok(drills) => {
            let how = format!("{} of crashed runners; the next drill reaps them", drills.len());
            promise("leftovers", Kept::Partly, how, Some("run `firedrill reap` now"))
        }
        Err(error) => promise("leftovers", Kept::No, error.to_string(), Some("give the runner a state directory of its own: --state DIR")),
    }
}

/// No sandbox could be made: what that takes away, by name.
fn without(error: &SandboxError, like: &SandboxSpec) -> Vec<Promise> {
    let advice = error.advice();
    let mut list = vec![promise("isolation", Kept::No, error.to_string(), advice)];
    for name in ["files", "network", "egress attempts", "no new privileges", "capabilities", "system calls", "core dumps", "landlock"] {
        list.push(promise(name, Kept::No, "no command can be run", advice));
    }
    for (_, name) in BOUNDS {
        list.push(promise(name, Kept::No, "no command can be run", advice));
    }
    list.push(promise("scratch: tmpfs", Kept::No, "only a plain directory is left, for scenarios that run no command", advice));
    list.push(promise("scratch: encrypted", Kept::No, "needs a sandbox that stands", advice));
    list.push(plain_directory());
    list.push(promise("disposal", Kept::No, "no sandbox could be made to be disposed of", advice));
    list.push(left_over(like));
    list
}
