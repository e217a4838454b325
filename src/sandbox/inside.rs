//! A look around from inside a sandbox, by the host's own programs: what a command there can see of its walls.

use std::collections::BTreeSet;

use super::doctor::{Kept, Promise, promise};
use super::error::SandboxError;
use super::place::Sandbox;
use super::spec::CommandSpec;
use crate::domain::SandboxFacts;

const NAMESPACES: [&str; 7] = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"];
/// What may be written inside; all else is read-only.
const WRITABLE: [&str; 6] = ["/data", "/kit", "/tmp", "/run", "/dev/shm", "/proc"];

/// What was seen.
pub(super) struct Inside {
    net_dev: String,
    status: String,
    limits: String,
    mounts: String,
    /// Numbers of the namespaces, one a line.
    namespaces: String,
    /// The runner's own.
    outside: Vec<String>,
}

impl Inside {
    pub async fn look(sandbox: &Sandbox) -> Result<Inside, SandboxError> {
        let read = async |path: &str| ask(sandbox, &["cat", path]).await;
        let links: Vec<String> = NAMESPACES.iter().map(|kind| format!("/proc/self/ns/{kind}")).collect();
        let readlink: Vec<&str> = std::iter::once("readlink").chain(links.iter().map(String::as_str)).collect();
        let name = |link: &String| std::fs::read_link(link).map(|l| l.display().to_string()).unwrap_or_default();
        Ok(Inside {
            net_dev: read("/proc/net/dev").await?,
            status: read("/proc/self/status").await?,
            limits: read("/proc/self/limits").await?,
            mounts: read("/proc/self/mounts").await?,
            namespaces: ask(sandbox, &readlink).await?,
            outside: links.iter().map(name).collect(),
        })
    }

    pub fn promises(&self, facts: &SandboxFacts) -> Vec<Promise> {
        let shared = self.shared_namespaces();
        let open = self.writable_places();
        let status = |key: &str| self.status.lines().find_map(|l| Some(l.strip_prefix(key)?.trim_start_matches(':').trim())).unwrap_or("?");
        let capabilities = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].iter().all(|key| status(key).bytes().all(|b| b == b'0'));
        let yes_or = |name: &str, kept: bool, how: String, not: String| match kept {
            true => promise(name, Kept::Yes, how, None),
            false => promise(name, Kept::No, not, Some("please report it: the sandbox should have been refused")),
        };
        let own = format!("{} namespaces of its own; commands run as {}", NAMESPACES.join(", "), facts.user);
        vec![
            yes_or("isolation", shared.is_empty(), own, format!("shared with the host: {}", shared.join(", "))),
            yes_or(
                "files",
                open.is_empty(),
                "host programs read-only; only the restored tree and private places can be written".to_owned(),
                format!("{} other places can be written", open.len()),
            ),
            yes_or(
                "network",
                only_loopback(&self.net_dev),
                "its own loopback, nothing else".to_owned(),
                "an interface other than the loopback was seen inside".to_owned(),
            ),
            yes_or(
                "no new privileges",
                status("NoNewPrivs") == "1",
                "refused by the kernel, set-user-id programs included".to_owned(),
                "not refused".to_owned(),
            ),
            yes_or("capabilities", capabilities, "none, and none to be had".to_owned(), "some are left".to_owned()),
            yes_or("system calls", status("Seccomp") == "2", "filtered by seccomp".to_owned(), "not filtered".to_owned()),
            yes_or(
                "core dumps",
                self.core_limit() == Some("1"),
                "one byte: a core_pattern that is a pipe is not fed either".to_owned(),
                "not limited".to_owned(),
            ),
        ]
    }

    fn shared_namespaces(&self) -> Vec<&'static str> {
        let inside: Vec<&str> = self.namespaces.lines().collect();
        let shared = NAMESPACES.iter().zip(&self.outside).enumerate();
        shared.filter(|(at, (_, outside))| inside.get(*at).is_none_or(|i| i == outside)).map(|(_, (kind, _))| *kind).collect()
    }

    fn writable_places(&self) -> BTreeSet<&str> {
        let places = self.mounts.lines().filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (point, options) = (fields.next()?, fields.nth(1)?);
            let masked = point.starts_with("/proc/");
            (!masked && options.split(',').any(|o| o == "rw") && !WRITABLE.contains(&point)).then_some(point)
        });
        places.collect()
    }

    fn core_limit(&self) -> Option<&str> {
        self.limits.lines().find_map(|l| l.strip_prefix("Max core file size")?.split_whitespace().next())
    }
}

async fn ask(sandbox: &Sandbox, argv: &[&str]) -> Result<String, SandboxError> {
    let exit = sandbox.run(&CommandSpec::new(argv.iter().copied())).await?.whole()?;
    if !exit.success() {
        return Err(SandboxError::Died { how: format!("`{}` failed inside", argv[0]) });
    }
    Ok(String::from_utf8_lossy(&exit.stdout).into_owned())
}

fn only_loopback(proc_net_dev: &str) -> bool {
    let names: Vec<&str> = proc_net_dev.lines().skip(2).filter_map(|l| Some(l.split_once(':')?.0.trim())).collect();
    // Tunnel drivers show fallback devices in every namespace; they are down and lead nowhere.
    names.contains(&"lo") && names.iter().all(|n| *n == "lo" || n.ends_with('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> Inside {
        let inside: Vec<String> = NAMESPACES.iter().map(|n| format!("{n}:[2]")).collect();
        let caps = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|c| format!("{c}:\t0000000000000000\n")).concat();
        Inside {
            net_dev: "Inter-|\n face |\n    lo: 0\n  tunl0: 0\n".into(),
            status: format!("{caps}NoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n"),
            limits: "Limit  Soft  Hard\nMax core file size        1                    1                    bytes\n".into(),
            mounts: "x / tmpfs ro 0 0\nx /usr ext4 ro,nosuid 0 0\nx /data tmpfs rw 0 0\nproc /proc proc rw 0 0\ndevtmpfs /proc/kcore devtmpfs rw 0 0\n"
                .into(),
            namespaces: inside.join("\n"),
            outside: NAMESPACES.iter().map(|n| format!("{n}:[1]")).collect(),
        }
    }

    fn broken(inside: &Inside) -> Vec<String> {
        let list = inside.promises(&SandboxFacts::default());
        list.into_iter().filter(|p| p.kept != Kept::Yes).map(|p| p.name).collect()
    }

    #[test]
    fn every_hole_in_a_wall_is_seen() {
        assert_eq!(broken(&sound()), Vec::<String>::new());
        type Hole = fn(&mut Inside);
        let holes: [(&str, Hole); 8] = [
            ("isolation", |i| i.outside[3] = "net:[2]".into()),
            ("isolation", |i| i.namespaces.clear()),
            ("files", |i| i.mounts.push_str("x /srv ext4 rw,nosuid 0 0\n")),
            ("network", |i| i.net_dev.push_str("  eth1: 0\n")),
            ("no new privileges", |i| i.status = i.status.replace("NoNewPrivs:\t1", "NoNewPrivs:\t0")),
            ("capabilities", |i| i.status = i.status.replace("CapBnd:\t0000000000000000", "CapBnd:\t0000000000000400")),
            ("system calls", |i| i.status = i.status.replace("Seccomp:\t2", "Seccomp:\t0")),
            ("core dumps", |i| i.limits = i.limits.replace("1    ", "unlimited    ")),
        ];
        for (name, make) in holes {
            let mut inside = sound();
            make(&mut inside);
            assert_eq!(broken(&inside), [name]);
        }
    }
}
