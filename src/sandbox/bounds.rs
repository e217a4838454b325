//! Each bound of a sandbox in words: its value, how it is held, and whether hitting it is told.

use super::facts::ByCgroup;
use super::place::{Held as Place, cpu_seconds, private_run, private_tmp};
use crate::domain::{BoundFacts, ByteSize, Held, Period, ScratchKind};

const GROUP: &str = "control group";

fn bound(bound: &str, value: String, held: Held, by: &str, told: bool) -> BoundFacts {
    BoundFacts { bound: bound.to_owned(), value, held, by: by.to_owned(), told }
}

/// Where commands can run.
pub(super) fn inside(place: &Place, by_cgroup: ByCgroup) -> Vec<BoundFacts> {
    let limits = &place.limits;
    let memory = limits.memory.to_string();
    let processes = limits.processes.to_string();
    let cpu_time = format!("{} for each process", Period::from_secs(cpu_seconds(limits)));
    let mut list = vec![
        match by_cgroup.memory {
            true => bound("memory", memory, Held::Together, GROUP, true),
            false => bound("memory", memory, Held::Each, "RLIMIT_DATA", false),
        },
        match by_cgroup.processes {
            true => bound("processes", processes, Held::Together, GROUP, true),
            // The kernel refuses the next process and tells nobody; PID 1 counts at a command's end.
            false => bound("processes", processes, Held::Together, "RLIMIT_NPROC of the user inside", false),
        },
    ];
    list.push(match (limits.cpus, by_cgroup.cpu) {
        (Some(cpus), true) => bound("cpu", cpus.to_string(), Held::Together, GROUP, false),
        (Some(cpus), false) => bound("cpu", cpus.to_string(), Held::Not, "no control group for it", false),
        (None, _) => bound("cpu", "all that the host has".to_owned(), Held::Not, "no quota was asked for", false),
    });
    list.push(bound("cpu time", cpu_time, Held::Each, "RLIMIT_CPU", true));
    list.extend(scratch(place));
    for (name, size) in [("private /tmp", private_tmp(limits)), ("private /run", private_run(limits)), ("/dev/shm", private_tmp(limits))] {
        list.push(bound(name, size.to_string(), Held::Together, "its own tmpfs", true));
    }
    list.push(bound("time", limits.time.to_string(), Held::Together, "timers of the kernel", true));
    list.push(bound("output", "1 MiB kept of each stream".to_owned(), Held::Each, "the runner, which drops the rest", true));
    list.push(bound("core dumps", ByteSize(1).to_string(), Held::Each, "RLIMIT_CORE", false));
    list
}

/// Where none can.
pub(super) fn bare(place: &Place) -> Vec<BoundFacts> {
    let limits = &place.limits;
    let mut list = scratch(place);
    list.push(bound("time", limits.time.to_string(), Held::Together, "the runner", true));
    list
}

fn scratch(place: &Place) -> Vec<BoundFacts> {
    let limits = &place.limits;
    let (size, entries) = (limits.scratch_size.to_string(), limits.max_files.to_string());
    let own = match limits.scratch {
        ScratchKind::Tmpfs => Some("its own tmpfs"),
        ScratchKind::Encrypted if place.directory.is_none() => Some("its own ext4, which rounds up by a few MiB and entries"),
        // a directory on the host's file system, encrypted or not
        ScratchKind::Encrypted | ScratchKind::Directory => None,
    };
    match own {
        Some(own) => vec![bound("scratch", size, Held::Together, own, true), bound("inodes", entries, Held::Together, own, true)],
        None => vec![
            bound("scratch", size, Held::Each, "the restore's budget, and RLIMIT_FSIZE for commands", true),
            bound("inodes", entries, Held::Each, "the restore's budget", true),
        ],
    }
}
