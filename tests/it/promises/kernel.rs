//! The kernel: system calls that no program needs for restoring or reading data are refused, by every door.

use super::{Kept, Ward, attacks, hold};

attacks![
    no_mount_is_made_moved_or_taken_away,
    no_namespace_is_made_or_entered,
    no_root_is_changed,
    no_key_is_added_or_asked_for,
    no_program_or_module_is_loaded_into_the_kernel,
    no_machine_wide_setting_is_changed,
    no_clock_is_set,
    no_tracing_and_no_counters_of_the_machine,
    no_asynchronous_ring_goes_around_the_filter,
    no_handle_names_a_file,
    no_socket_family_but_the_named_ones,
    no_call_by_the_32_bit_door,
    no_call_by_the_x32_door,
    no_character_is_pushed_into_a_terminal,
    no_filter_can_be_taken_off,
    no_capability_comes_back,
];

/// Makes system calls by number, and names those that were not refused with one of the errors allowed.
const CALLS: &str = r#"
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
def call(nr, *args):
    ctypes.set_errno(0)
    r = libc.syscall(ctypes.c_long(nr), *[ctypes.c_char_p(a) if isinstance(a, bytes) else ctypes.c_long(a) for a in args])
    return errno.errorcode.get(ctypes.get_errno(), "?") if r == -1 else "OPEN"
def refused(calls, by=("EPERM",)):
    for name, (nr, *args) in calls.items():
        answer = call(nr, *args)
        if answer not in by: print(name, answer)
"#;

async fn refused(ward: &Ward, calls: &str) -> Kept {
    let got = ward.py(&format!("{CALLS}\nrefused(dict({calls}))")).await;
    hold!(got.is_empty(), "not refused: {}", got.replace('\n', ", "));
    Ok(())
}

async fn no_mount_is_made_moved_or_taken_away(ward: &Ward) -> Kept {
    let before = ward.sh("cat /proc/self/mounts").await;
    refused(
        ward,
        r#"mount=(165,b"none",b"/tmp",b"tmpfs",0,0), bind=(165,b"/data",b"/usr",0,4096,0), remount=(165,b"",b"/",b"",32,0),
        umount2=(166,b"/usr",2), fsopen=(430,b"tmpfs",0), fsconfig=(431,0,0,0,0,0), fsmount=(432,0,0,0), fspick=(433,-100,b"/",0),
        open_tree=(428,-100,b"/",1), move_mount=(429,-100,b"/data",-100,b"/usr",0), mount_setattr=(442,-100,b"/",0,0,0)"#,
    )
    .await?;
    let newer = ward.py(&format!("{CALLS}\nrefused(dict(open_tree_attr=(467,-100,b'/',1,0,0)), ('EPERM', 'ENOSYS'))")).await;
    hold!(newer.is_empty(), "{newer}");
    hold!(ward.sh("cat /proc/self/mounts").await == before, "the mounts have changed");
    Ok(())
}

async fn no_namespace_is_made_or_entered(ward: &Ward) -> Kept {
    let before = ward.sh("readlink /proc/self/ns/*").await;
    refused(
        ward,
        "**{f'unshare{f:x}': (272,f) for f in (0x10000000,0x20000,0x20000000,0x40000000,0x8000000,0x4000000,0x2000000,0x80)}, \
                   **{f'clone{f:x}': (56,f|17,0,0,0,0) for f in (0x10000000,0x20000,0x20000000,0x40000000,0x8000000,0x4000000,0x2000000)}, \
                   setns=(308,0,0)",
    )
    .await?;
    // The flags of clone3 lie in memory, where no filter looks: it is not there at all, so that libraries use clone.
    let hidden = ward.py(&format!("{CALLS}\nprint(call(435, bytes(88), 88))")).await;
    hold!(hidden == "ENOSYS", "clone3 answered {hidden}");
    for attempt in ["unshare -Ur id", "unshare -m true", "unshare -n true", "nsenter -t 1 -a true", "nsenter -t $$ -U true"] {
        hold!(!ward.can(attempt).await, "`{attempt}` worked");
    }
    hold!(ward.sh("readlink /proc/self/ns/*").await == before, "its namespaces are others now");
    Ok(())
}

async fn no_root_is_changed(ward: &Ward) -> Kept {
    refused(ward, r#"chroot=(161,b"/data"), pivot_root=(155,b"/",b"/"), pivot_here=(155,b".",b".")"#).await
}

async fn no_key_is_added_or_asked_for(ward: &Ward) -> Kept {
    refused(
        ward,
        r#"add_key=(248,b"user",b"a",b"b",1,-3), session=(250,1,0), read=(250,11,-3,0,0), describe=(250,6,-4,0,0),
        join=(250,1,b"x"), request_key=(249,b"user",b"a",b"b",-3)"#,
    )
    .await
}

async fn no_program_or_module_is_loaded_into_the_kernel(ward: &Ward) -> Kept {
    refused(
        ward,
        r#"bpf=(321,0,0,0), bpf_prog=(321,5,0,128), init_module=(175,b"",0,b""), finit_module=(313,0,b"",0), delete_module=(176,b"x",0),
        kexec_load=(246,0,0,0,0), kexec_file_load=(320,0,0,0,b"",0)"#,
    )
    .await
}

async fn no_machine_wide_setting_is_changed(ward: &Ward) -> Kept {
    refused(ward, r#"reboot=(169,0xfee1dead,672274793,0x1234567), cad=(169,0xfee1dead,672274793,0x89abcdef), sethostname=(170,b"x",1),
        setdomainname=(171,b"x",1), swapon=(167,b"/data/x",0), swapoff=(168,b"/data/x"), acct=(163,b"/data/x"), quotactl=(179,0x800002,b"/dev/x",0,0),
        quotactl_fd=(443,0,0,0,0), syslog=(103,2,0,0), console=(103,7,0,0), vhangup=(153,), iopl=(172,3), ioperm=(173,0,1,1), modify_ldt=(154,0,0,0),
        nfsservctl=(180,0,0,0)"#).await
}

async fn no_clock_is_set(ward: &Ward) -> Kept {
    refused(
        ward,
        "clock_settime=(227,0,bytes(16)), settimeofday=(164,bytes(16),0), adjtimex=(159,bytes(208)), clock_adjtime=(305,0,bytes(284))",
    )
    .await?;
    hold!(!ward.can("date -s '2001-01-01'").await, "the clock was set");
    Ok(())
}

async fn no_tracing_and_no_counters_of_the_machine(ward: &Ward) -> Kept {
    refused(
        ward,
        "ptrace_me=(101,0,0,0,0), attach=(101,16,1,0,0), seize=(101,0x4206,os.getppid(),0,0), perf=(298,bytes(128),0,-1,-1,0), \
                   userfaultfd=(323,0), user_only=(323,1), read=(310,1,0,0,0,0,0), write=(311,1,0,0,0,0,0), kcmp=(312,1,1,0,0,0), \
                   pidfd_getfd=(438,0,0,0), lookup_dcookie=(212,0,0,0), fanotify=(300,0,0), madvise=(440,0,0,0,0,0), secret=(447,0)",
    )
    .await
}

async fn no_asynchronous_ring_goes_around_the_filter(ward: &Ward) -> Kept {
    refused(ward, "setup=(425,8,bytes(120)), enter=(426,0,0,0,0,0,0), register=(427,0,0,0,0)").await
}

async fn no_handle_names_a_file(ward: &Ward) -> Kept {
    refused(ward, r#"name_to_handle=(303,-100,b"/",bytes(136),bytes(8),0), open_by_handle=(304,0,bytes(136),0)"#).await
}

async fn no_socket_family_but_the_named_ones(ward: &Ward) -> Kept {
    let program = "
import socket
for family in range(0, 64):
    for kind in (1, 2, 3, 5, 10):
        for protocol in (0, 1, 3, 9, 12, 15, 16, 255):
            try: s = socket.socket(family, kind, protocol)
            except OSError: continue
            if family not in (1, 2, 10, 16): print('family', family)
            elif family == 16 and s.getsockopt(1, 38) != 0: print('netlink', protocol)
            elif kind in (3, 10) and family in (2, 10): print('raw', family)
            s.close()
";
    let opened = ward.py(program).await;
    hold!(opened.is_empty(), "opened: {}", opened.lines().take(4).collect::<Vec<_>>().join(", "));
    Ok(())
}

/// Machine code that makes one call, run from a page of its own.
const MACHINE_CODE: &str = "
import ctypes, mmap, os
def run(code):
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
";

async fn no_call_by_the_32_bit_door(ward: &Ward) -> Kept {
    // getpid, then unshare(CLONE_NEWUSER), as 32-bit programs number them: int 0x80.
    for code in [r"\xb8\x14\x00\x00\x00\xcd\x80\xc3", r"\x53\xb8\x36\x01\x00\x00\xbb\x00\x00\x00\x10\xcd\x80\x5b\xc3"] {
        let exit = ward.run(super::py(&format!("{MACHINE_CODE}\nprint('OPEN', run(b'{code}'), flush=True)"))).await.unwrap();
        hold!(!exit.success() && exit.stdout.is_empty(), "it answered: {}", super::text(&exit.stdout));
    }
    // The page itself runs: it is the call that is refused.
    let plain = ward
        .py(&format!(
            r"{MACHINE_CODE}
print(run(b'\xb8\x2a\x00\x00\x00\xc3'))"
        ))
        .await;
    assert_eq!(plain, "42");
    Ok(())
}

async fn no_call_by_the_x32_door(ward: &Ward) -> Kept {
    let calls = "**{f'x32-{nr}': (0x40000000 + nr, 0x10000000, 0, 0, 0, 0) for nr in (*range(0, 60), 101, 161, 165, 166, 272, 308, 321, *range(512, 548))}";
    let got = ward.py(&format!("{CALLS}\nrefused(dict({calls}), ('ENOSYS',))")).await;
    hold!(got.is_empty(), "{got}");
    Ok(())
}

async fn no_character_is_pushed_into_a_terminal(ward: &Ward) -> Kept {
    // The kernel looks at 32 bits of the request; so must the filter.
    refused(ward, "tiocsti=(16,1,0x5412,b'x'), high=(16,1,0x100005412,b'x'), tioclinux=(16,1,0x541c,b'\\x02'), stdin=(16,0,0x5412,b'x')")
        .await?;
    hold!(!ward.can("test -e /dev/ptmx || test -e /dev/tty || test -e /dev/console || test -e /dev/pts").await, "there is a terminal");
    Ok(())
}

async fn no_filter_can_be_taken_off(ward: &Ward) -> Kept {
    let program = format!(
        "{CALLS}\nlibc.prctl(38, 0, 0, 0, 0); libc.prctl(22, 0); call(317, 0, 0, 0)\nrefused(dict(ptrace=(101,16,1,0,0), unshare=(272,0x10000000)))"
    );
    // Mode 0 does not exist, strict mode would only take more away: the program may be killed for it, never freed.
    let exit = ward.run(super::py(&program)).await.unwrap();
    hold!(super::text(&exit.stdout).is_empty(), "free again: {}", super::text(&exit.stdout));
    hold!(
        ward.sh("grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status | tr -s '[:space:]' ' '").await == "NoNewPrivs: 1 Seccomp: 2",
        "unlocked"
    );
    Ok(())
}

async fn no_capability_comes_back(ward: &Ward) -> Kept {
    let none = "0000000000000000";
    let status = ward.sh("grep ^Cap /proc/self/status | tr -s '[:space:]' ' '").await;
    hold!(status == format!("CapInh: {none} CapPrm: {none} CapEff: {none} CapBnd: {none} CapAmb: {none}"), "held: {status}");
    let program = format!(
        "{CALLS}\nhead = (0x20080522).to_bytes(4, 'little') + bytes(4)\nrefused(dict(capset=(126, head, b'\\xff' * 24), ambient=(157, 47, 2, 21, 0, 0), \
         keep=(157, 8, 1, 0, 0, 0), bits=(157, 28, 1, 0, 0, 0)), ('EPERM', 'EINVAL') )"
    );
    let got = ward.py(&program).await;
    // Keeping capabilities over a change of user is no right, and there is none to keep.
    hold!(got.is_empty() || got == "keep OPEN", "granted: {got}");
    hold!(!ward.can("setpriv --reuid 0 id || setpriv --ambient-caps +sys_admin --inh-caps +sys_admin true").await, "granted by setpriv");
    Ok(())
}
