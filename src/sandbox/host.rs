//! Risks of the host that no sandbox can take away: ways by which memory can reach a medium. They are told, not judged.

use std::fs;
use std::path::{Path, PathBuf};

use super::doctor::{Kept, Promise, promise};
use super::swap::is_active;

/// What of this host is outside of a sandbox's reach.
pub fn host_risks() -> Vec<Promise> {
    Host { root: PathBuf::from("/") }.risks()
}

/// Bytes of memory that the host can give without swapping.
pub(super) fn available_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let kib: u64 = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}

struct Host {
    root: PathBuf,
}

impl Host {
    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root.join(Path::new(path).strip_prefix("/").unwrap_or(Path::new(path)))).unwrap_or_default()
    }

    fn risks(&self) -> Vec<Promise> {
        vec![self.swap(), self.hibernation(), self.crash_dump(), self.core_handler(), self.freed_memory(), self.hypervisor()]
    }

    fn swap(&self) -> Promise {
        let text = self.read("/proc/swaps");
        if !is_active(&text) {
            return promise("swap", Kept::Yes, "no swap device is active", None);
        }
        let devices: Vec<&str> = text.lines().skip(1).filter_map(|l| l.split_whitespace().next()).collect();
        let how = format!("active: {}; whether it is encrypted is not known", devices.join(", "));
        promise("swap", Kept::Partly, how, Some("swapoff --all, or swap on an encrypted device with a key of its own each boot"))
    }

    fn hibernation(&self) -> Promise {
        let can =
            self.read("/sys/power/state").split_whitespace().any(|w| w == "disk") && !self.read("/sys/power/disk").contains("[disabled]");
        match can {
            false => promise("hibernation", Kept::Yes, "this kernel cannot", None),
            true => {
                let advice = "systemctl mask hibernate.target hybrid-sleep.target, or boot with nohibernate";
                promise("hibernation", Kept::Partly, "would write all memory to disk, restored data included", Some(advice))
            }
        }
    }

    fn crash_dump(&self) -> Promise {
        match self.read("/sys/kernel/kexec_crash_loaded").trim() {
            "1" => {
                let how = "a crash of the kernel writes memory to disk (kdump)";
                promise("crash dumps", Kept::Partly, how, Some("unload it while drills run: kexec -p -u"))
            }
            _ => promise("crash dumps", Kept::Yes, "no crash kernel is loaded", None),
        }
    }

    fn core_handler(&self) -> Promise {
        let how = match self.read("/proc/sys/kernel/core_pattern").trim_start().starts_with('|') {
            true => "core_pattern is a pipe; runner and sandbox are limited to one byte, which it is not fed with",
            false => "runner and sandbox write none",
        };
        promise("core handler", Kept::Yes, how, None)
    }

    fn freed_memory(&self) -> Promise {
        let zeroed = self.read("/proc/cmdline").split_whitespace().any(|w| w == "init_on_free=1");
        match zeroed {
            true => promise("freed memory", Kept::Yes, "zeroed at once (init_on_free=1)", None),
            false => {
                let how = "zeroed before it is given to anybody else, and not at once as far as can be told";
                promise("freed memory", Kept::Partly, how, Some("boot with init_on_free=1"))
            }
        }
    }

    fn hypervisor(&self) -> Promise {
        let cpuinfo = self.read("/proc/cpuinfo");
        let flags = cpuinfo.lines().find(|l| l.starts_with("flags")).unwrap_or_default();
        match flags.split_whitespace().any(|f| f == "hypervisor") {
            false => promise("hypervisor", Kept::Yes, "none is seen", None),
            true => {
                let how = "this is a virtual machine: snapshots and migration of it copy its memory";
                promise("hypervisor", Kept::Partly, how, Some("take no snapshots with memory of this machine while drills run"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let host = Host { root: root.path().to_owned() };
        (root, host)
    }

    fn partly(host: &Host) -> Vec<String> {
        host.risks().into_iter().filter(|p| p.kept == Kept::Partly && p.advice.is_some()).map(|p| p.name).collect()
    }

    #[test]
    fn a_quiet_host_has_no_risk_to_tell() {
        let (_root, quiet) = host(&[
            ("/proc/swaps", "Filename Type Size Used Priority\n"),
            ("/sys/power/state", "freeze mem\n"),
            ("/sys/kernel/kexec_crash_loaded", "0\n"),
            ("/proc/cmdline", "root=/dev/vda init_on_free=1\n"),
            ("/proc/cpuinfo", "flags\t: fpu aes\n"),
        ]);
        assert_eq!(partly(&quiet), Vec::<String>::new());
    }

    #[test]
    fn every_way_of_memory_to_a_medium_is_told() {
        let (_root, leaky) = host(&[
            ("/proc/swaps", "Filename Type Size Used Priority\n/dev/sda2 partition 999 0 -2\n"),
            ("/sys/power/state", "freeze mem disk\n"),
            ("/sys/power/disk", "[platform] shutdown\n"),
            ("/sys/kernel/kexec_crash_loaded", "1\n"),
            ("/proc/sys/kernel/core_pattern", "|/usr/lib/systemd/systemd-coredump %P\n"),
            ("/proc/cmdline", "root=/dev/vda\n"),
            ("/proc/cpuinfo", "flags\t: fpu hypervisor aes\n"),
        ]);
        assert_eq!(partly(&leaky), ["swap", "hibernation", "crash dumps", "freed memory", "hypervisor"]);
        assert!(leaky.swap().how.contains("/dev/sda2"));
        assert!(leaky.core_handler().how.contains("pipe"));
        let (_root, locked) = host(&[("/sys/power/state", "mem disk\n"), ("/sys/power/disk", "[disabled]\n")]);
        assert_eq!(locked.hibernation().kept, Kept::Yes);
    }
}
