//! Control groups: memory, processes and processor time of everything inside, together. Version 2, or version 1 where its controllers are.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::delegated::{self, CPU_PERIOD_US, Kernel, Wanted};

/// Where groups could be made, and by which controllers. Known before anything is made, so that it can be registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Layout {
    /// Version 1: one directory for each controller.
    V1 { memory: Option<PathBuf>, pids: Option<PathBuf>, cpu: Option<PathBuf> },
    /// Version 2: the first of these that takes it.
    V2 { candidates: Vec<PathBuf> },
    /// No control groups are mounted.
    Absent,
}

/// Groups that were made for one sandbox.
#[derive(Debug)]
pub(super) struct Groups {
    memory: Option<Group>,
    pids: Option<Group>,
    cpu: Option<Group>,
    /// Whether what runs inside cannot be swapped out.
    pub swap_forbidden: bool,
}

#[derive(Debug, Clone)]
struct Group {
    path: PathBuf,
    version: u8,
}

impl Layout {
    /// Reads it from `/proc/self`; groups will be called `name`.
    pub fn of_this_process(name: &str) -> Layout {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Layout::parse(&mounts, &own, name)
    }

    fn parse(mounts: &str, own: &str, name: &str) -> Layout {
        let find_v1 = |controller: &str| {
            let path = own.lines().find_map(|line| {
                let mut fields = line.splitn(3, ':').skip(1);
                let mine = fields.next()?.split(',').any(|c| c == controller);
                mine.then(|| fields.next().unwrap_or("/"))
            })?;
            let (root, point) = find_mount(mounts, "cgroup", Some(controller))?;
            Some(below(&point, &root, path).join(name))
        };
        let (memory, pids) = (find_v1("memory"), find_v1("pids"));
        if memory.is_some() || pids.is_some() {
            return Layout::V1 { memory, pids, cpu: find_v1("cpu") };
        }
        let path = own.lines().find_map(|l| l.strip_prefix("0::"));
        let (Some(path), Some((root, point))) = (path, find_mount(mounts, "cgroup2", None)) else { return Layout::Absent };
        let here = below(&point, &root, path);
        // A group with processes of its own passes no controllers down; its parent, where we may write there, does.
        let mut candidates = vec![here.join(name)];
        if here != point
            && let Some(parent) = here.parent()
        {
            candidates.push(parent.join(name));
        }
        Layout::V2 { candidates }
    }

    /// All paths that making groups may leave behind.
    pub fn paths(&self) -> Vec<PathBuf> {
        match self {
            Layout::V1 { memory, pids, cpu } => memory.iter().chain(pids).chain(cpu).cloned().collect(),
            Layout::V2 { candidates } => candidates.clone(),
            Layout::Absent => Vec::new(),
        }
    }

    /// Makes the groups that can be made, and sets their limits. What cannot be made is absent: limits by process take over.
    pub fn make(&self, wanted: Wanted) -> Groups {
        let Wanted { memory, processes, cpus } = wanted;
        let mut groups = Groups { memory: None, pids: None, cpu: None, swap_forbidden: false };
        match self {
            Layout::V1 { memory: memory_path, pids: pids_path, cpu: cpu_path } => {
                if let Some(path) = memory_path
                    && let Some((group, swap_forbidden)) = make_v1_memory(path, memory)
                {
                    groups.memory = Some(group);
                    groups.swap_forbidden = swap_forbidden;
                }
                if let Some(path) = pids_path {
                    groups.pids = make_with(path, 1, &[("pids.max", processes.to_string())]);
                }
                if let (Some(path), Some(cpus)) = (cpu_path, cpus) {
                    let quota = cpus.quota(CPU_PERIOD_US).to_string();
                    groups.cpu = make_with(path, 1, &[("cpu.cfs_period_us", CPU_PERIOD_US.to_string()), ("cpu.cfs_quota_us", quota)]);
                }
            }
            Layout::V2 { candidates } => {
                if let Some(made) = delegated::make(&Kernel, candidates, wanted, std::process::id()) {
                    let group = Group { path: made.path, version: 2 };
                    groups.swap_forbidden = made.swap_forbidden;
                    groups.cpu = made.cpu.then(|| group.clone());
                    groups.pids = Some(group.clone());
                    groups.memory = Some(group);
                }
            }
            Layout::Absent => {}
        }
        groups
    }
}

fn find_mount(mounts: &str, kind: &str, controller: Option<&str>) -> Option<(String, PathBuf)> {
    mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        if right.next()? != kind {
            return None;
        }
        let options = right.nth(1)?;
        if controller.is_some_and(|c| !options.split(',').any(|o| o == c)) {
            return None;
        }
        let mut left = left.split(' ').skip(3);
        Some((left.next()?.to_owned(), PathBuf::from(left.next()?)))
    })
}

fn below(point: &Path, root: &str, path: &str) -> PathBuf {
    let inside = path.strip_prefix(root.trim_end_matches('/')).unwrap_or(path);
    point.join(inside.trim_start_matches('/'))
}

fn make_with(path: &Path, version: u8, settings: &[(&str, String)]) -> Option<Group> {
    fs::create_dir(path).ok()?;
    for (file, value) in settings {
        if fs::write(path.join(file), value).is_err() {
            let _ = fs::remove_dir(path);
            return None;
        }
    }
    Some(Group { path: path.to_owned(), version })
}

fn make_v1_memory(path: &Path, memory: u64) -> Option<(Group, bool)> {
    let group = make_with(path, 1, &[("memory.limit_in_bytes", memory.to_string())])?;
    // Memory and swap together may be no more than memory alone: nothing is left for swap. Absent without swap accounting.
    let swap_forbidden = fs::write(path.join("memory.memsw.limit_in_bytes"), memory.to_string()).is_ok();
    Some((group, swap_forbidden))
}

/// How often limits were hit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Hits {
    pub out_of_memory: u64,
    pub out_of_processes: u64,
}

impl Groups {
    /// Whether memory is limited.
    pub fn limits_memory(&self) -> bool {
        self.memory.is_some()
    }
    /// Whether processes are limited.
    pub fn limits_processes(&self) -> bool {
        self.pids.is_some()
    }

    /// Whether processor time has a quota.
    pub fn limits_cpu(&self) -> bool {
        self.cpu.is_some()
    }
    /// Whether there is any.
    pub fn exist(&self) -> bool {
        self.limits_memory() || self.limits_processes() || self.limits_cpu()
    }

    fn directories(&self) -> Vec<&Path> {
        let mut all: Vec<&Path> = self.memory.iter().chain(&self.pids).chain(&self.cpu).map(|g| g.path.as_path()).collect();
        all.dedup();
        all
    }

    /// The way in: who writes `0` there enters. The right to do so is the opener's, so the helper needs none.
    pub fn doors(&self) -> io::Result<Vec<OwnedFd>> {
        let open =
            |d: &Path| rustix::fs::open(d.join("cgroup.procs"), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).map_err(io::Error::from);
        self.directories().into_iter().map(open).collect()
    }

    /// Counters since the groups were made.
    pub fn hits(&self) -> Hits {
        let count = |group: &Option<Group>, v1: &str, v2: &str, key: &str| {
            let Some(group) = group else { return 0 };
            let file = if group.version == 1 { v1 } else { v2 };
            let text = fs::read_to_string(group.path.join(file)).unwrap_or_default();
            field(&text, key)
        };
        Hits {
            out_of_memory: count(&self.memory, "memory.oom_control", "memory.events", "oom_kill"),
            out_of_processes: count(&self.pids, "pids.events", "pids.events", "max"),
        }
    }

    /// Kills what is left inside and removes the groups. A group that goes had no process left.
    pub fn remove(&self) -> bool {
        let gone: Vec<bool> = self.directories().into_iter().map(kill_and_remove).collect();
        gone.into_iter().all(|g| g)
    }
}

fn field(text: &str, key: &str) -> u64 {
    text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok()).unwrap_or(0)
}

/// Kills every process of a group and removes it; whether it is gone afterwards.
pub(super) fn kill_and_remove(path: &Path) -> bool {
    for _ in 0..200 {
        match fs::remove_dir(path) {
            Ok(()) => return true,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return true,
            Err(_) => {}
        }
        if fs::write(path.join("cgroup.kill"), "1").is_err() {
            let members = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
            for pid in members.lines().filter_map(|l| l.parse().ok()).filter_map(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_controllers_are_found_where_they_are_mounted() {
        let mounts = "30 1 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n31 1 0:31 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n32 1 0:32 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let own = "8:pids:/\n4:memory:/jobs/7\n0::/\n";
        let layout = Layout::parse(mounts, own, "firedrill-x");
        let expected = Layout::V1 {
            memory: Some("/sys/fs/cgroup/memory/jobs/7/firedrill-x".into()),
            pids: Some("/sys/fs/cgroup/pids/firedrill-x".into()),
            cpu: None,
        };
        assert_eq!(layout, expected);
    }

    #[test]
    fn version_2_tries_its_own_group_and_then_the_one_above() {
        let mounts = "30 1 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let layout = Layout::parse(mounts, "0::/system.slice/firedrill.service\n", "firedrill-x");
        let expected = ["/sys/fs/cgroup/system.slice/firedrill.service/firedrill-x", "/sys/fs/cgroup/system.slice/firedrill-x"];
        assert_eq!(layout.paths(), expected.map(PathBuf::from));
        assert_eq!(Layout::parse("", "0::/\n", "x"), Layout::Absent);
    }

    #[test]
    fn a_group_below_a_mounted_subtree_is_named_once() {
        let mounts = "30 1 0:30 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(Layout::parse(mounts, "0::/docker/abc\n", "x").paths(), [PathBuf::from("/sys/fs/cgroup/x")]);
    }

    #[test]
    fn counters_are_read_by_their_whole_name() {
        let text = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 1\n";
        assert_eq!(field(text, "oom_kill"), 2);
        assert_eq!(field(text, "max"), 12);
        assert_eq!(field(text, "absent"), 0);
    }
}
