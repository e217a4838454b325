//! What this host can promise, found by doing it.

use super::error::SandboxError;
use super::facts::{NO_PROCESS_GROUP, SWAP_IS_OPEN};
use super::place::provision;
use super::spec::{CommandSpec, Isolation, SandboxSpec, SwapPolicy};
use crate::domain::{ByteSize, ScratchKind};

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

fn promise(name: &str, kept: Kept, how: impl Into<String>, advice: Option<&str>) -> Promise {
    Promise { name: name.to_owned(), kept, how: how.into(), advice: advice.map(str::to_owned) }
}

/// Makes a small sandbox like `like`, runs a command in it, destroys it, and tells what held.
pub async fn promises(like: &SandboxSpec) -> Vec<Promise> {
    let mut spec = like.clone();
    spec.isolation = Isolation::Required;
    spec.swap = SwapPolicy::Allow;
    spec.limits.scratch = ScratchKind::Tmpfs;
    spec.limits.scratch_size = ByteSize::mib(4);
    spec.limits.memory = ByteSize::mib(64);
    let sandbox = match provision(&spec).await {
        Ok(sandbox) => sandbox,
        Err(error) => return without(&error),
    };
    let facts = sandbox.facts().clone();
    let landlock = sandbox.landlock().to_owned();
    let heard = sandbox.hears_attempts().map_err(str::to_owned);
    let ran = sandbox.run(&CommandSpec::new(["cat", "/proc/net/dev"])).await;
    let disposal = sandbox.destroy().await;

    let mut list = vec![promise("isolation", Kept::Yes, format!("own namespaces; commands run as {}", facts.user), None)];
    list.push(match &ran {
        Ok(exit) if exit.success() && only_loopback(&exit.stdout) => promise("network", Kept::Yes, "its own loopback, nothing else", None),
        Ok(_) => promise("network", Kept::No, "an interface other than the loopback was seen inside", None),
        Err(e) => promise("network", Kept::No, format!("no command could be run to look: {e}"), e.advice()),
    });
    list.push(match heard {
        Ok(()) => promise("egress attempts", Kept::Yes, "refused at once, and each is listed", None),
        Err(why) => promise("egress attempts", Kept::Partly, format!("refused, but not listed: {why}"), Some(EGRESS_ADVICE)),
    });
    list.push(match facts.memory_limit {
        Some(_) => promise("memory limit", Kept::Yes, "control group, for all processes together", None),
        None => promise("memory limit", Kept::Partly, "each process for itself", Some(CGROUP_ADVICE)),
    });
    let by_count = facts.remarks.iter().any(|r| r == NO_PROCESS_GROUP);
    list.push(match by_count {
        false => promise("process limit", Kept::Yes, "control group", None),
        true => promise("process limit", Kept::Partly, "the user's count inside; hitting it is not reported", Some(CGROUP_ADVICE)),
    });
    let swap_open = facts.remarks.iter().any(|r| r == SWAP_IS_OPEN);
    list.push(match swap_open {
        false => promise("scratch that cannot survive", Kept::Yes, format!("private tmpfs; {}", facts.swap), None),
        true => promise("scratch that cannot survive", Kept::No, facts.swap.clone(), Some(SWAP_ADVICE)),
    });
    list.push(match landlock.as_str() {
        "full" => promise("landlock", Kept::Yes, "on top of the mounts", None),
        other => promise("landlock", Kept::Partly, format!("{other}; the mounts alone hold files apart"), Some("Linux 6.10 or newer")),
    });
    list.push(match disposal.complete() {
        true => promise("disposal", Kept::Yes, format!("{} probes found nothing left", disposal.probes.len()), None),
        false => {
            let left: Vec<&str> = disposal.probes.iter().filter(|p| !p.gone).map(|p| p.what.as_str()).collect();
            promise("disposal", Kept::No, format!("still there: {}", left.join(", ")), Some("run `firedrill reap`"))
        }
    });
    list
}

const EGRESS_ADVICE: &str =
    "Linux 5.5 or newer, kernel.yama.ptrace_scope below 3, and no system-call filter around the runner that asks by itself";
const CGROUP_ADVICE: &str = "run as root, or as a systemd service with Delegate=memory pids";
const SWAP_ADVICE: &str = "turn swap off, run as root on Linux 6.4 or newer, or give the service MemorySwapMax=0";

fn without(error: &SandboxError) -> Vec<Promise> {
    let advice = error.advice();
    vec![
        promise("isolation", Kept::No, error.to_string(), advice),
        promise("network", Kept::No, "no command can be run", advice),
        promise("scratch that cannot survive", Kept::No, "only a plain directory is left", advice),
    ]
}

fn only_loopback(proc_net_dev: &[u8]) -> bool {
    let text = String::from_utf8_lossy(proc_net_dev);
    let names: Vec<&str> = text.lines().skip(2).filter_map(|l| Some(l.split_once(':')?.0.trim())).collect();
    // Tunnel drivers show fallback devices in every namespace; they are down and lead nowhere.
    names.contains(&"lo") && names.iter().all(|n| *n == "lo" || n.ends_with('0'))
}
