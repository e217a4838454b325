//! Files: the host's cannot be read, written, linked or named; what a backup plants leads nowhere and lifts nobody.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, XattrFlags};

use super::host::SECRET;
use super::{Kept, Mode as RunMode, Ward, attacks, hold};

attacks![
    nothing_outside_of_the_tree_is_written,
    nothing_of_the_hosts_files_is_there,
    no_hard_link_to_a_host_file_is_made,
    no_planted_link_shows_a_host_file,
    a_link_to_the_host_leads_the_runner_nowhere,
    a_directory_that_becomes_a_link_leads_the_runner_nowhere,
    no_device_node_is_made,
    a_planted_device_node_opens_nothing,
    a_planted_setuid_program_lifts_nobody,
    a_program_with_file_capabilities_has_none,
    no_setuid_program_of_the_host_lifts_anybody,
    no_file_is_given_away_or_taken,
    the_way_up_ends_at_the_private_root,
    proc_shows_no_way_to_the_hosts_root,
    nothing_below_proc_sys_can_be_opened_for_writing,
    nothing_else_below_proc_can_be_written,
    proc_tells_nothing_of_the_hosts_kernel,
    there_is_no_sysfs_and_no_control_group,
    read_only_mounts_stay_so,
];

async fn nothing_outside_of_the_tree_is_written(ward: &Ward) -> Kept {
    for target in ["/x", "/usr/x", "/usr/bin/x", "/usr/bin/env", "/etc/x", "/etc/passwd", "/etc/hosts", "/dev/x", "/proc/x", "/lib/x"] {
        hold!(!ward.can(&format!("echo x >> {target}")).await, "{target} was written");
    }
    for change in ["mkdir /d", "rm -f /usr/bin/env", "mv /etc/passwd /tmp/", "rmdir /data", "chmod 777 /", "touch /usr", "ln -s x /etc/l"] {
        hold!(!ward.can(change).await, "`{change}` worked");
    }
    Ok(())
}

async fn nothing_of_the_hosts_files_is_there(ward: &Ward) -> Kept {
    let marker = ward.host.marker.display().to_string();
    for absent in
        ["/root", "/home", "/var", "/sys", "/boot", "/mnt", "/srv", "/etc/shadow", "/etc/ssh", "/etc/fstab", "/etc/machine-id", &marker]
    {
        hold!(!ward.can(&format!("test -e {absent}")).await, "{absent} is there");
    }
    let etc = ward.sh("ls -A /etc | tr '\\n' ' '").await;
    hold!(etc == "alternatives group hostname hosts ld.so.cache nsswitch.conf passwd", "/etc holds {etc}");
    let found = ward.sh("find / -xdev -name host-marker 2>/dev/null; find /tmp /run /dev/shm -type f 2>/dev/null").await;
    hold!(found.is_empty(), "found {found}");
    Ok(())
}

async fn no_hard_link_to_a_host_file_is_made(ward: &Ward) -> Kept {
    for from in ["/usr/bin/env", "/etc/passwd", "/proc/self/exe", "/dev/null", &ward.host.marker.display().to_string()] {
        for flag in ["-P", "-L"] {
            hold!(!ward.can(&format!("ln {flag} {from} /data/linked")).await, "{from} was linked into the tree");
        }
    }
    let by_descriptor = "import os\nfd = os.open('/usr/bin/env', os.O_RDONLY)\ntry:\n    os.link(f'/proc/self/fd/{fd}', '/data/linked', follow_symlinks=True)\n    print('LINKED')\nexcept OSError as e: print('no')";
    hold!(ward.py(by_descriptor).await == "no", "an open host file was linked into the tree");
    Ok(())
}

/// Plants something in the tree as a hostile backup would: as the runner, before anything runs.
fn tree(ward: &Ward) -> OwnedFd {
    ward.sandbox.root().unwrap()
}

async fn no_planted_link_shows_a_host_file(ward: &Ward) -> Kept {
    let marker = ward.host.marker.display().to_string();
    let up = format!("{}{marker}", "../".repeat(20));
    let victim = ward.host.victim();
    for (n, to) in [marker.clone(), up, format!("/proc/1/root{marker}"), format!("/proc/{victim}/environ"), "/etc/shadow".to_owned()]
        .iter()
        .enumerate()
    {
        rustix::fs::symlinkat(to.as_str(), tree(ward), format!("planted-{n}")).unwrap();
        let seen = ward.sh(&format!("cat planted-{n} && echo READ")).await;
        hold!(!seen.contains("READ") && !seen.contains(SECRET), "a link to {to} showed it");
    }
    Ok(())
}

async fn a_link_to_the_host_leads_the_runner_nowhere(ward: &Ward) -> Kept {
    let marker = ward.host.marker.display();
    ward.sh(&format!("ln -s {marker} out; ln -s ../spool up; ln -s /proc/self/root magic; ln -s {marker} deep; mkfifo pipe")).await;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    for name in ["out", "up", "magic", "deep"] {
        let opened = rustix::fs::openat2(tree(ward), name, OFlags::RDONLY, Mode::empty(), resolve);
        hold!(opened.is_err_and(|e| e == rustix::io::Errno::XDEV), "{name} was followed");
    }
    Ok(())
}

async fn a_directory_that_becomes_a_link_leads_the_runner_nowhere(ward: &Ward) -> Kept {
    let host = ward.host.marker.parent().unwrap().display();
    // Swapped for as long as the runner looks: it must see the file or an error, never the host's.
    let mut swap = super::sh(&format!(
        "mkdir d; echo inside > d/host-marker; ln -s {host} l; (while mv -T d x && mv -T l d && mv -T d l && mv -T x d; do :; done) >/dev/null 2>&1 &"
    ));
    swap.afterwards = firedrill::sandbox::Afterwards::LeaveRunning;
    ward.run(swap).await.unwrap();
    let (tree, mut read) = (tree(ward), 0);
    let begin = std::time::Instant::now();
    // Longer where a busy host lets the swapping come to nothing.
    while begin.elapsed().as_millis() < 400 || (read == 0 && begin.elapsed().as_secs() < 20) {
        let opened =
            rustix::fs::openat2(&tree, "d/host-marker", OFlags::RDONLY, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS);
        if let Ok(file) = opened {
            let mut bytes = [0; 64];
            let n = rustix::io::read(&file, &mut bytes).unwrap();
            hold!(&bytes[..n] == b"inside\n", "the runner read the host's file");
            read += 1;
        }
    }
    assert!(read > 0, "the race was never run");
    Ok(())
}

async fn no_device_node_is_made(ward: &Ward) -> Kept {
    for node in ["c 1 3", "c 1 1", "c 5 1", "b 8 0", "b 259 0", "b 7 0"] {
        hold!(
            !ward.can(&format!("mknod /data/node {node} || mknod /tmp/node {node} || mknod /dev/shm/node {node}")).await,
            "a node {node} was made"
        );
    }
    Ok(())
}

async fn a_planted_device_node_opens_nothing(ward: &Ward) -> Kept {
    let mode = Mode::from_raw_mode(0o666);
    let planted = rustix::fs::mknodat(tree(ward), "null", FileType::CharacterDevice, mode, rustix::fs::makedev(1, 3));
    let block = rustix::fs::mknodat(tree(ward), "disk", FileType::BlockDevice, mode, rustix::fs::makedev(7, 0));
    if ward.mode == RunMode::Root {
        planted.unwrap();
        block.unwrap();
        for name in ["null", "disk"] {
            rustix::fs::chmodat(tree(ward), name, mode, AtFlags::empty()).unwrap();
        }
    } else {
        hold!(planted.is_err() && block.is_err(), "a runner without the right made a node");
    }
    hold!(!ward.can("cat /data/null || echo x 1<> /data/null").await || ward.mode != RunMode::Root, "a planted null device was opened");
    hold!(!ward.can("head -c 1 /data/disk").await, "a planted disk was opened");
    Ok(())
}

/// A copy of a host program in the tree, belonging to the runner.
fn plant(ward: &Ward, program: &str, name: &str, mode: u32) {
    let file = rustix::fs::openat(tree(ward), name, OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o755)).unwrap();
    std::io::Write::write_all(&mut std::fs::File::from(file.try_clone().unwrap()), &std::fs::read(program).unwrap()).unwrap();
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).unwrap();
}

async fn a_planted_setuid_program_lifts_nobody(ward: &Ward) -> Kept {
    plant(ward, "/usr/bin/id", "id", 0o6755);
    let ids = ward.sh("./id -u; ./id -ru; ./id -g").await;
    hold!(ids == "1000\n1000\n1000", "a planted set-user-id program ran as {ids}");
    // Of the user 0 inside, were it mapped.
    if ward.mode == RunMode::Root {
        rustix::fs::chownat(tree(ward), "id", Some(Uid::from_raw(600_000_000)), Some(Gid::from_raw(600_000_000)), AtFlags::empty())
            .unwrap();
        rustix::fs::chmodat(tree(ward), "id", Mode::from_raw_mode(0o6755), AtFlags::empty()).unwrap();
        let ids = ward.sh("./id -u").await;
        hold!(ids == "1000", "one of the user 0 inside ran as {ids}");
    }
    hold!(ward.sh("cp /usr/bin/id made && chmod 6755 made && ./made -u").await == "1000", "one made inside lifted");
    Ok(())
}

async fn a_program_with_file_capabilities_has_none(ward: &Ward) -> Kept {
    plant(ward, "/usr/bin/grep", "grep", 0o755);
    // Version 2, effective: all capabilities.
    let all = [1, 0, 0, 2, 255, 255, 255, 255, 0, 0, 0, 0, 255, 1, 0, 0, 0, 0, 0, 0];
    let file = rustix::fs::openat(tree(ward), "grep", OFlags::WRONLY, Mode::empty()).unwrap();
    let set = rustix::fs::fsetxattr(&file, "security.capability", &all, XattrFlags::empty());
    drop(file);
    if ward.mode == RunMode::Root {
        set.unwrap();
    }
    let seen = ward.sh("./grep -E '^Cap(Prm|Eff)' /proc/self/status | cut -f2 | sort -u").await;
    hold!(seen == "0000000000000000", "capabilities came with a file: {seen}");
    let own = "import os\ntry:\n    os.setxattr('/data/grep', 'security.capability', bytes([1,0,0,2]+[255]*4+[0]*12)); print('SET')\nexcept OSError: print('no')";
    hold!(ward.py(own).await == "no", "file capabilities were set inside");
    Ok(())
}

async fn no_setuid_program_of_the_host_lifts_anybody(ward: &Ward) -> Kept {
    let found = ward.sh("find /usr -xdev -perm /6000 -type f 2>/dev/null | wc -l").await;
    assert!(found.parse::<u32>().unwrap() > 3, "the host has programs to try: {found}");
    for attempt in
        ["su -c id root", "mount -t tmpfs x /tmp", "umount /tmp", "passwd -d root", "chsh -s /bin/sh root", "newgrp root", "chage -l root"]
    {
        hold!(!ward.can(&format!("{attempt} </dev/null")).await, "`{attempt}` worked");
    }
    hold!(ward.sh("grep -E ' /(usr|data|tmp) ' /proc/self/mounts | grep -vc nosuid").await == "0", "a mount honours set-user-id");
    Ok(())
}

async fn no_file_is_given_away_or_taken(ward: &Ward) -> Kept {
    for attempt in ["chown root /data", "touch f && chown 0:0 f", "touch g && chgrp 65534 g", "touch h && chown 1001 h"] {
        hold!(!ward.can(attempt).await, "`{attempt}` worked");
    }
    let answer = ward.py("import os\nfor call in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.setgroups([0]), lambda: os.setresuid(0, 0, 0)):\n    try:\n        call(); print('OPEN')\n    except OSError: pass").await;
    hold!(answer.is_empty(), "became somebody else");
    Ok(())
}

async fn the_way_up_ends_at_the_private_root(ward: &Ward) -> Kept {
    let up = ward.sh("cd ../../../../..; pwd; ls -A .firedrill-scratch spool 2>/dev/null; ls -d tree").await;
    hold!(up.starts_with("/\n") && !up.contains("\ntree"), "above the tree there is {up}");
    let spool = ward.sandbox.spool().unwrap();
    drop(rustix::fs::openat(&spool, "spool-mark", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap());
    drop(spool);
    let found = ward.sh("find / -xdev -name spool-mark 2>/dev/null; find /data /tmp -name spool-mark").await;
    hold!(found.is_empty(), "the spool is seen at {found}");
    // chdir through a descriptor that was opened before a directory was moved out of the way
    let escape = "import os\nos.makedirs('/data/a/b'); fd = os.open('/data/a/b', os.O_RDONLY)\nos.rename('/data/a/b', '/data/c')\nos.chdir(fd)\nfor _ in range(30): os.chdir('..')\nprint(os.getcwd(), sorted(os.listdir('.'))[:3])";
    let seen = ward.py(escape).await;
    hold!(seen.starts_with("/ ['bin'"), "a moved directory led to {seen}");
    Ok(())
}

async fn proc_shows_no_way_to_the_hosts_root(ward: &Ward) -> Kept {
    for way in ["root/", "root/etc", "cwd/", "environ", "mem", "maps", "fd/", "map_files/", "exe", "auxv", "stack", "syscall"] {
        hold!(!ward.can(&format!("ls /proc/1/{way} && cat /proc/1/{way}")).await, "/proc/1/{way} is open");
    }
    let marker = ward.host.marker.display();
    hold!(
        !ward.can(&format!("cat /proc/[0-9]*/root{marker} /proc/[0-9]*/cwd{marker} /proc/self/task/*/root{marker}")).await,
        "the marker was read"
    );
    Ok(())
}

const OPENED: &str = "
import os, sys
def openable(top, skip):
    for directory, below, files in os.walk(top):
        below[:] = [d for d in below if not d.isdigit() and d not in skip]
        for name in files:
            path = os.path.join(directory, name)
            if os.path.islink(path): continue
            try: os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
            except OSError: continue
            print(path)
";

async fn nothing_below_proc_sys_can_be_opened_for_writing(ward: &Ward) -> Kept {
    let count = ward.sh("find /proc/sys -type f 2>/dev/null | wc -l").await;
    assert!(count.parse::<u32>().unwrap() > 100, "{count}");
    let opened = ward.py(&format!("{OPENED}\nopenable('/proc/sys', ())")).await;
    hold!(opened.is_empty(), "open for writing: {}", opened.lines().take(5).collect::<Vec<_>>().join(" "));
    Ok(())
}

async fn nothing_else_below_proc_can_be_written(ward: &Ward) -> Kept {
    let opened = ward.py(&format!("{OPENED}\nopenable('/proc', ('sys', 'self', 'thread-self'))")).await;
    // Bound over with /dev/null, which takes everything and does nothing.
    let masked = ["kcore", "keys", "key-users", "kallsyms", "kmsg", "modules", "sysrq-trigger", "timer_list", "sched_debug"];
    let others: Vec<&str> = opened.lines().filter(|l| !masked.iter().any(|m| *l == format!("/proc/{m}"))).collect();
    hold!(others.is_empty(), "open for writing: {others:?}");
    Ok(())
}

async fn proc_tells_nothing_of_the_hosts_kernel(ward: &Ward) -> Kept {
    assert!(Path::new("/proc/kallsyms").exists() && Path::new("/proc/key-users").exists());
    let told = ward.sh("cat /proc/kallsyms /proc/key-users /proc/keys /proc/kmsg /proc/modules /proc/sysrq-trigger /proc/timer_list 2>/dev/null | wc -c").await;
    hold!(told == "0", "{told} bytes were told");
    hold!(ward.sh("head -c 1 /proc/kcore 2>/dev/null | wc -c").await == "0", "the kernel's memory can be read");
    Ok(())
}

async fn there_is_no_sysfs_and_no_control_group(ward: &Ward) -> Kept {
    hold!(
        !ward
            .can("mkdir -p /tmp/m && { mount -t sysfs s /tmp/m || mount -t cgroup2 c /tmp/m || mount -t cgroup -o memory c /tmp/m; }")
            .await,
        "one was mounted"
    );
    let found = ward.sh("find / -path /usr -prune -o \\( -name release_agent -o -name cgroup.procs -o -name memory.max -o -name notify_on_release \\) -print 2>/dev/null").await;
    hold!(found.is_empty(), "there is {found}");
    let groups = ward.sh("cut -d: -f3 /proc/self/cgroup | sort -u").await;
    hold!(!groups.contains(".."), "a control group of the host is named: {groups}");
    Ok(())
}

async fn read_only_mounts_stay_so(ward: &Ward) -> Kept {
    let seen = ward.sh("awk '$4 ~ /^ro/ { print $2 }' /proc/self/mounts").await;
    for place in ["/", "/usr", "/proc/sys"] {
        hold!(seen.lines().any(|l| l == place), "{place} is writable for whoever gets the rights: {seen}");
    }
    for attempt in ["mount -o remount,rw /", "mount -o remount,rw,bind /usr", "mount --bind /data /usr", "umount -l /usr"] {
        hold!(!ward.can(attempt).await, "`{attempt}` worked");
    }
    Ok(())
}
