//! What a process inside gives up before the command's program starts: all that it does not need.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus,
};
use rustix::process::{Resource, Rlimit, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch, apply_filter,
    sock_filter,
};

use super::super::wire::{IdMap, LockDown, Setup};
use super::listen::{self, NOT_A_WAY_OUT, ORDINARY};
use super::{At, INNER_ID, StepError};
use crate::sandbox::sys::check;

/// Enters the control groups, if any. Tells whether it could.
pub(super) fn enter_groups(doors: &[OwnedFd]) -> bool {
    // "0" is who writes.
    doors.iter().all(|door| rustix::io::write(door, b"0").is_ok())
}

/// Whether the runner is asked about calls that lead outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asking {
    /// It is.
    Yes,
    /// It cannot be: they are refused, and nobody hears of them.
    No,
    /// To be found out.
    IfPossible,
}

/// Gives everything up. What comes after in this process is the user inside, alone. The descriptor, where there is one,
/// must reach the runner before the program starts: until then, nobody answers.
pub(super) fn give_up(setup: &Setup, joined: bool, asking: Asking) -> Result<(LockDown, Option<OwnedFd>), StepError> {
    limit(setup, joined)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    drop_privileges(setup)?;
    let landlock = restrict_files().at("apply landlock")?;
    let (listener, deaf) = match asking {
        Asking::Yes => (Some(listen::install().at("ask about attempts to reach the outside")?), None),
        Asking::No => (None, None),
        Asking::IfPossible => listen::install().map_or_else(|e| (None, Some(e.to_string())), |listener| (Some(listener), None)),
    };
    filter_system_calls(listener.is_some()).at("filter system calls")?;
    Ok((LockDown { landlock: landlock.to_owned(), joined, deaf }, listener))
}

fn limit(setup: &Setup, joined: bool) -> Result<(), StepError> {
    let both = |resource, n: u64| setrlimit(resource, Rlimit { current: Some(n), maximum: Some(n) }).at("set resource limits");
    // One byte, not zero: zero still feeds a core_pattern that is a pipe, which would carry memory out to the host.
    both(Resource::Core, 1)?;
    both(Resource::Nofile, 4_096.min(rustix::process::getrlimit(Resource::Nofile).maximum.unwrap_or(4_096)))?;
    both(Resource::Memlock, 64 << 10)?;
    both(Resource::Fsize, setup.file_size)?;
    // The soft limit's signal names the cause; the hard one, a second later, is for who ignores it.
    let most = rustix::process::getrlimit(Resource::Cpu).maximum.unwrap_or(u64::MAX);
    let cpu = Rlimit { current: Some(setup.cpu_seconds.min(most)), maximum: Some(setup.cpu_seconds.saturating_add(1).min(most)) };
    setrlimit(Resource::Cpu, cpu).at("set resource limits")?;
    if !(joined && setup.processes_by_cgroup) {
        both(Resource::Nproc, u64::from(setup.processes))?;
    }
    if !(joined && setup.memory_by_cgroup) {
        both(Resource::Data, setup.memory)?;
    }
    Ok(())
}

fn drop_privileges(setup: &Setup) -> Result<(), StepError> {
    /// Version 3 of the capability calls: 64 bits in two words each.
    const CAPABILITIES_V3: u32 = 0x2008_0522;
    // SAFETY: plain calls with values; the two capset structures are of the version named in the header.
    unsafe {
        for capability in 0..64 {
            // The first that does not exist ends the list.
            if libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) != 0 {
                break;
            }
        }
        if matches!(setup.ids, IdMap::Range { .. }) {
            check(libc::setgroups(0, std::ptr::null())).at("drop groups")?;
            check(libc::setresgid(INNER_ID, INNER_ID, INNER_ID)).at("become the user inside")?;
            check(libc::setresuid(INNER_ID, INNER_ID, INNER_ID)).at("become the user inside")?;
        }
        check(libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)).at("drop capabilities")?;
        let header: [u32; 2] = [CAPABILITIES_V3, 0];
        let none = [0u32; 6];
        check(libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr())).at("drop capabilities")?;
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)).at("refuse new privileges")?;
    }
    Ok(())
}

/// A second wall behind the mounts. Signals are not scoped: a later command must be able to stop a server that an earlier
/// one started, and nobody outside of the pid namespace can be named anyway.
fn restrict_files() -> io::Result<&'static str> {
    let abi = ABI::V6;
    let (all, read) = (AccessFs::from_all(abi), AccessFs::from_read(abi));
    let build = || -> Result<RulesetStatus, landlock::RulesetError> {
        let mut rules = Ruleset::default().set_compatibility(CompatLevel::BestEffort).handle_access(all)?.create()?;
        if let Ok(root) = PathFd::new("/") {
            rules = rules.add_rule(PathBeneath::new(root, read))?;
        }
        let proc = AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::WriteFile;
        for (path, access) in
            [("/proc", proc), ("/dev", all), ("/tmp", all), ("/run", all), (super::rootfs::DATA, all), (super::super::KIT_DIRECTORY, all)]
        {
            if let Ok(fd) = PathFd::new(path) {
                rules = rules.add_rule(PathBeneath::new(fd, access))?;
            }
        }
        Ok(rules.restrict_self()?.ruleset)
    };
    match build().map_err(io::Error::other)? {
        RulesetStatus::FullyEnforced => Ok("full"),
        RulesetStatus::PartiallyEnforced => Ok("partial"),
        RulesetStatus::NotEnforced => Ok("none"),
    }
}

/// No program that restores or reads data needs these; each is a way to the kernel, to the host or to another process.
const REFUSED: &[libc::c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kcmp,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_memfd_secret,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_name_to_handle_at,
    libc::SYS_nfsservctl,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

fn filter_system_calls(asked: bool) -> io::Result<()> {
    let error = |e: &dyn std::error::Error| io::Error::other(e.to_string());
    for program in [refusing_foreign_numbers(), compile(refused_rules(asked), libc::EPERM)?, compile(hidden_flags(), libc::ENOSYS)?] {
        apply_filter(&program).map_err(|e| error(&e))?;
    }
    Ok(())
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn compile(rules: Rules, errno: i32) -> io::Result<BpfProgram> {
    let arch: TargetArch = std::env::consts::ARCH.try_into().map_err(io::Error::other)?;
    SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno as u32), arch)
        .and_then(TryInto::try_into)
        .map_err(io::Error::other)
}

fn when(argument: u8, length: SeccompCmpArgLen, operator: SeccompCmpOp, value: u64) -> SeccompCondition {
    SeccompCondition::new(argument, length, operator, value).expect("argument numbers are below six")
}

fn all_of(conditions: Vec<SeccompCondition>) -> SeccompRule {
    SeccompRule::new(conditions).expect("a rule has a condition")
}

/// `asked`: refusing without asking takes precedence over asking, so what is asked about is left out here.
fn refused_rules(asked: bool) -> Rules {
    use SeccompCmpArgLen::{Dword, Qword};
    use SeccompCmpOp::{Eq, MaskedEq, Ne};
    let mut rules: Rules = REFUSED.iter().map(|&call| (call, Vec::new())).collect();
    // AF_VSOCK and AF_ALG do not care about network namespaces; AF_PACKET and others have no business here either.
    let mut sockets = match asked {
        true => NOT_A_WAY_OUT.iter().map(|&f| all_of(vec![when(0, Dword, Eq, f as u64)])).collect(),
        false => vec![all_of(ORDINARY.iter().map(|&f| when(0, Dword, Ne, f as u64)).collect())],
    };
    let netlink_but_route = vec![when(0, Dword, Eq, libc::AF_NETLINK as u64), when(2, Dword, Ne, libc::NETLINK_ROUTE as u64)];
    sockets.push(all_of(netlink_but_route));
    rules.insert(libc::SYS_socket, sockets);
    // Nobody here may give a file away. Said before the kernel sees it: where one id alone is mapped, it would call all others
    // invalid, which restore tools take for damage.
    let given = |argument| {
        let not = |value: u32| when(argument, Dword, Ne, u64::from(value));
        all_of(vec![not(INNER_ID), not(u32::MAX)])
    };
    rules.insert(libc::SYS_fchown, vec![given(1), given(2)]);
    rules.insert(libc::SYS_fchownat, vec![given(2), given(3)]);
    #[cfg(target_arch = "x86_64")]
    for call in [libc::SYS_chown, libc::SYS_lchown] {
        rules.insert(call, vec![given(1), given(2)]);
    }
    let namespaces = [
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWNS,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWCGROUP,
    ];
    let with_flag = |&flag: &i32| all_of(vec![when(0, Qword, MaskedEq(flag as u64), flag as u64)]);
    rules.insert(libc::SYS_clone, namespaces.iter().map(with_flag).collect());
    // Pushing characters into a terminal's input.
    const TIOCSTI: u64 = 0x5412;
    const TIOCLINUX: u64 = 0x541c;
    let injections = [TIOCSTI, TIOCLINUX];
    rules.insert(libc::SYS_ioctl, injections.iter().map(|&request| all_of(vec![when(1, Dword, Eq, request)])).collect());
    rules
}

/// `clone3` passes its flags in memory, where no filter can look: the C library then falls back to `clone`.
fn hidden_flags() -> Rules {
    BTreeMap::from([(libc::SYS_clone3, Vec::new())])
}

/// On x86-64 the x32 calls have numbers of their own, which no rule above names.
fn refusing_foreign_numbers() -> BpfProgram {
    const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const JUMP_IF_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    const FIRST_X32: u32 = 0x4000_0000;
    vec![
        sock_filter { code: LOAD, jt: 0, jf: 0, k: 0 },
        sock_filter { code: JUMP_IF_AT_LEAST, jt: 0, jf: 1, k: FIRST_X32 },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32 },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW },
    ]
}
