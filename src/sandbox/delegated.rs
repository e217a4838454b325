//! Control groups of version 2: where one may be made, also by an ordinary user in a subtree that was delegated to him.
//!
//! The kernel's rule: a group that has processes passes no controllers down. So a runner that is alone in a group of its own
//! moves into a leaf of it, and the sandbox's group is made beside the leaf. What is allowed is found by doing it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::domain::Cpus;

/// The leaf that a runner moves into; it stays, and goes with the subtree.
const LEAF: &str = "firedrill-runner";
/// Of processor time, microseconds: the kernel's own default.
pub(super) const CPU_PERIOD_US: u64 = 100_000;

/// What is done to a tree of groups: the kernel's, or a test's.
pub(super) trait Tree {
    fn read(&self, path: &Path) -> io::Result<String>;
    fn write(&self, path: &Path, text: &str) -> io::Result<()>;
    fn make(&self, path: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// The kernel's tree.
pub(super) struct Kernel;

impl Tree for Kernel {
    fn read(&self, path: &Path) -> io::Result<String> {
        fs::read_to_string(path)
    }
    fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        fs::write(path, text)
    }
    fn make(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }
}

/// Bounds of a group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub memory: u64,
    pub processes: u32,
    pub cpus: Option<Cpus>,
}

/// A group that was made, and what it holds beside memory and processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Made {
    pub path: PathBuf,
    pub cpu: bool,
    pub swap_forbidden: bool,
}

/// Makes a group at the first of `candidates` that takes one; where none does, steps aside in the runner's own group.
pub(super) fn make(tree: &impl Tree, candidates: &[PathBuf], wanted: Wanted, runner: u32) -> Option<Made> {
    let made = candidates.iter().find_map(|path| make_at(tree, path, wanted));
    made.or_else(|| beside_the_runner(tree, candidates.first()?, wanted, runner))
}

fn make_at(tree: &impl Tree, path: &Path, wanted: Wanted) -> Option<Made> {
    let above = path.parent()?.join("cgroup.subtree_control");
    tree.make(path).ok()?;
    let has = |controller: &str| {
        let text = tree.read(&path.join("cgroup.controllers")).unwrap_or_default();
        text.split_whitespace().any(|word| word == controller)
    };
    let set = |file: &str, value: String| tree.write(&path.join(file), &value).is_ok();
    if !(has("memory") && has("pids")) {
        // Refused where the parent has processes of its own.
        let _ = tree.write(&above, "+memory +pids");
    }
    if !(has("memory") && has("pids") && set("memory.max", wanted.memory.to_string()) && set("pids.max", wanted.processes.to_string())) {
        let _ = tree.remove(path);
        return None;
    }
    let cpu = wanted.cpus.is_some_and(|cpus| {
        if !has("cpu") {
            let _ = tree.write(&above, "+cpu");
        }
        has("cpu") && set("cpu.max", format!("{} {CPU_PERIOD_US}", cpus.quota(CPU_PERIOD_US)))
    });
    // Absent where the kernel does not account for swap: nothing is forbidden then.
    let swap_forbidden = set("memory.swap.max", "0".to_owned());
    let _ = set("memory.oom.group", "1".to_owned());
    Some(Made { path: path.to_owned(), cpu, swap_forbidden })
}

/// Only for a runner that is alone in its group: nobody else is moved.
fn beside_the_runner(tree: &impl Tree, path: &Path, wanted: Wanted, runner: u32) -> Option<Made> {
    let own = path.parent()?;
    let members = tree.read(&own.join("cgroup.procs")).ok()?;
    if members.split_whitespace().collect::<Vec<_>>() != [runner.to_string()] {
        return None;
    }
    let leaf = own.join(LEAF);
    let new = match tree.make(&leaf) {
        Ok(()) => true,
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
        Err(_) => return None,
    };
    let moved = tree.write(&leaf.join("cgroup.procs"), &runner.to_string()).is_ok();
    let made = if moved { make_at(tree, path, wanted) } else { None };
    if made.is_none() {
        if moved {
            let _ = tree.write(&own.join("cgroup.procs"), &runner.to_string());
        }
        if new {
            let _ = tree.remove(&leaf);
        }
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::collections::{BTreeMap, BTreeSet};

    const RUNNER: u32 = 42;
    const OWN: &str = "/cg/user.slice/app.slice/run-1.scope";

    /// A tree that keeps the kernel's rules: this host mounts version 2 without controllers, so there is no real one to ask.
    #[derive(Default)]
    struct Fake {
        groups: RefCell<BTreeMap<PathBuf, Group>>,
        /// What belongs to the user: this group and all below it.
        delegated: PathBuf,
    }

    #[derive(Default, Clone)]
    struct Group {
        processes: BTreeSet<u32>,
        passes_down: BTreeSet<String>,
        values: BTreeMap<String, String>,
    }

    impl Fake {
        fn with(delegated: &str, controllers: &str, members: &[u32]) -> Fake {
            let fake = Fake { delegated: delegated.into(), ..Fake::default() };
            let mut path = PathBuf::from("/cg");
            let mut steps = vec![path.clone()];
            for step in OWN.strip_prefix("/cg/").unwrap().split('/') {
                path.push(step);
                steps.push(path.clone());
            }
            for step in steps {
                fake.groups.borrow_mut().insert(step, Group::default());
            }
            // As systemd leaves it: every slice passes down what the user was given; a scope is given the same.
            for (path, group) in fake.groups.borrow_mut().iter_mut() {
                if path != Path::new(OWN) {
                    group.passes_down = controllers.split_whitespace().map(str::to_owned).collect();
                }
            }
            fake.groups.borrow_mut().get_mut(Path::new(OWN)).unwrap().processes = members.iter().copied().collect();
            fake
        }
        fn controllers(&self, path: &Path) -> BTreeSet<String> {
            self.groups.borrow().get(path.parent().unwrap()).map(|above| above.passes_down.clone()).unwrap_or_default()
        }
        fn group(&self, path: &str) -> Group {
            self.groups.borrow().get(Path::new(path)).cloned().unwrap_or_else(|| panic!("{path} is not there"))
        }
        fn names(&self) -> Vec<String> {
            self.groups.borrow().keys().map(|p| p.display().to_string()).collect()
        }
    }

    fn refused(number: i32) -> io::Error {
        io::Error::from_raw_os_error(number)
    }

    impl Tree for Fake {
        fn read(&self, path: &Path) -> io::Result<String> {
            let (group, file) = (path.parent().unwrap(), path.file_name().unwrap());
            let groups = self.groups.borrow();
            let found = groups.get(group).ok_or_else(|| refused(libc::ENOENT))?;
            Ok(match file.to_str().unwrap() {
                "cgroup.controllers" => self.controllers(group).into_iter().collect::<Vec<_>>().join(" "),
                "cgroup.procs" => found.processes.iter().map(|p| format!("{p}\n")).collect(),
                other => found.values.get(other).cloned().ok_or_else(|| refused(libc::ENOENT))?,
            })
        }
        fn write(&self, path: &Path, text: &str) -> io::Result<()> {
            let (at, file) = (path.parent().unwrap(), path.file_name().unwrap().to_str().unwrap());
            if !at.starts_with(&self.delegated) {
                return Err(refused(libc::EACCES));
            }
            let controllers = self.controllers(at);
            let mut groups = self.groups.borrow_mut();
            let group = groups.get_mut(at).ok_or_else(|| refused(libc::ENOENT))?;
            match file {
                "cgroup.subtree_control" => {
                    let asked: BTreeSet<String> = text.split_whitespace().map(|w| w.trim_start_matches('+').to_owned()).collect();
                    if !asked.is_subset(&controllers) {
                        return Err(refused(libc::ENOENT));
                    }
                    if !group.processes.is_empty() {
                        return Err(refused(libc::EBUSY));
                    }
                    group.passes_down.extend(asked);
                }
                "cgroup.procs" => {
                    if !group.passes_down.is_empty() {
                        return Err(refused(libc::EBUSY));
                    }
                    let process: u32 = text.parse().unwrap();
                    for group in groups.values_mut() {
                        group.processes.remove(&process);
                    }
                    groups.get_mut(at).unwrap().processes.insert(process);
                }
                setting => {
                    let controller = setting.split('.').next().unwrap();
                    if !controllers.contains(controller) {
                        return Err(refused(libc::EACCES));
                    }
                    group.values.insert(setting.to_owned(), text.to_owned());
                }
            }
            Ok(())
        }
        fn make(&self, path: &Path) -> io::Result<()> {
            if !path.parent().unwrap().starts_with(&self.delegated) {
                return Err(refused(libc::EACCES));
            }
            match self.groups.borrow_mut().insert(path.to_owned(), Group::default()) {
                None => Ok(()),
                Some(_) => Err(refused(libc::EEXIST)),
            }
        }
        fn remove(&self, path: &Path) -> io::Result<()> {
            match self.groups.borrow_mut().remove(path) {
                Some(group) if group.processes.is_empty() => Ok(()),
                Some(_) => Err(refused(libc::EBUSY)),
                None => Err(refused(libc::ENOENT)),
            }
        }
    }

    fn attempt(fake: &Fake) -> Option<Made> {
        let candidates = [format!("{OWN}/firedrill-x"), "/cg/user.slice/app.slice/firedrill-x".to_owned()].map(PathBuf::from);
        make(fake, &candidates, Wanted { memory: 64 << 20, processes: 32, cpus: Cpus::new(0.5) }, RUNNER)
    }

    #[test]
    fn a_runner_alone_in_a_delegated_scope_steps_aside_into_a_leaf() {
        let fake = Fake::with(OWN, "cpu memory pids", &[RUNNER]);
        let made = attempt(&fake).unwrap();
        assert_eq!(made, Made { path: format!("{OWN}/firedrill-x").into(), cpu: true, swap_forbidden: true });
        assert!(fake.group(&format!("{OWN}/{LEAF}")).processes.contains(&RUNNER));
        let values = fake.group(&format!("{OWN}/firedrill-x")).values;
        let expected = [
            ("cpu.max", "50000 100000"),
            ("memory.max", "67108864"),
            ("memory.oom.group", "1"),
            ("memory.swap.max", "0"),
            ("pids.max", "32"),
        ];
        assert_eq!(values, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        // The next drill of the same runner finds the way open.
        fake.remove(&made.path).unwrap();
        let candidates = [format!("{OWN}/{LEAF}/firedrill-y"), format!("{OWN}/firedrill-y")].map(PathBuf::from);
        let next = make(&fake, &candidates, Wanted { memory: 1, processes: 1, cpus: None }, RUNNER).unwrap();
        assert_eq!(next.path, candidates[1]);
    }

    #[test]
    fn a_runner_beside_others_uses_the_group_above_where_that_is_the_users() {
        let fake = Fake::with("/cg/user.slice/app.slice", "memory pids", &[RUNNER, 7]);
        let made = attempt(&fake).unwrap();
        assert_eq!(made, Made { path: "/cg/user.slice/app.slice/firedrill-x".into(), cpu: false, swap_forbidden: true });
        assert_eq!(fake.group(OWN).processes, [7, RUNNER].into(), "nobody was moved");
    }

    #[test]
    fn where_nothing_is_delegated_nothing_is_made_or_left() {
        for members in [&[RUNNER][..], &[RUNNER, 7]] {
            let fake = Fake::with("/elsewhere", "cpu memory pids", members);
            let before = fake.names();
            assert_eq!(attempt(&fake), None);
            assert_eq!(fake.names(), before);
        }
    }

    #[test]
    fn a_scope_without_the_controllers_is_left_as_it_was() {
        let fake = Fake::with(OWN, "pids", &[RUNNER]);
        let before = fake.names();
        assert_eq!(attempt(&fake), None);
        assert_eq!(fake.names(), before);
        assert_eq!(fake.group(OWN).processes, [RUNNER].into(), "the runner came back");
    }

    #[test]
    fn a_runner_in_company_moves_nobody() {
        let fake = Fake::with(OWN, "cpu memory pids", &[RUNNER, 7]);
        assert_eq!(attempt(&fake), None);
        assert_eq!(fake.group(OWN).processes, [7, RUNNER].into());
    }
}
