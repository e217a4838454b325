//! Processes: none of the host's is seen, told, traced or slowed; none of its own outlives its command, PID 1 or its time.

use std::time::{Duration, Instant};

use firedrill::sandbox::{Afterwards, Limit, SandboxError};

use super::host::SECRET;
use super::{Kept, Ward, attacks, hold, py, sh};
use crate::sandbox::{processes_with, wait_until};

attacks![
    no_host_process_is_seen,
    no_host_process_hears_a_signal,
    no_host_process_is_slowed_or_moved,
    no_process_is_traced_or_read,
    the_first_process_cannot_be_stopped,
    no_abstract_socket_of_the_host_is_reached,
    no_memory_segment_or_queue_of_the_host_is_there,
    no_host_process_is_named_by_a_descriptor,
    a_daemon_dies_with_its_command,
    a_command_that_ignores_every_signal_ends_at_its_time,
    orphans_without_end_do_not_stretch_a_commands_time,
    a_stopped_command_still_ends_at_its_time,
    nobody_raises_his_own_priority,
    nobody_hides_from_the_killer_of_the_host,
];

async fn no_host_process_is_seen(ward: &Ward) -> Kept {
    let lines = ward
        .py("import glob\nprint(b'|'.join(open(f, 'rb').read() for f in glob.glob('/proc/[0-9]*/cmdline')).replace(b'\\0', b' '))")
        .await;
    hold!(!lines.contains(SECRET) && lines.matches("python3").count() == 1, "seen: {lines}");
    let count: u32 = ward.sh("ls -d /proc/[0-9]* | wc -l").await.parse().unwrap();
    hold!(count <= 4, "{count} processes, beside PID 1, bash, ls and wc");
    let victim = ward.host.victim();
    hold!(
        !ward.can(&format!("test -e /proc/{victim}/environ && grep -q {SECRET} /proc/{victim}/environ")).await,
        "its environment was read"
    );
    // A number that is hidden from a listing may still open.
    let hidden = ward.py("import os\nprint([n for n in range(1, 100000) if os.path.exists(f'/proc/{n}/status') and open(f'/proc/{n}/status').read().split()[1] not in ('firedrill', 'python3', 'exe', 'MainThread')])").await;
    hold!(hidden == "[]", "hidden but there: {hidden}");
    Ok(())
}

async fn no_host_process_hears_a_signal(ward: &Ward) -> Kept {
    let victim = ward.host.victim();
    let program = format!(
        "
import os, signal
me = os.getpid(); heard = []
signal.signal(signal.SIGUSR1, lambda *a: heard.append(1))
for target in [{victim}, -{victim}] + list(range(2, 40000)):
    if target in (me, os.getppid()): continue
    try: os.kill(target, signal.SIGUSR1); print('told', target)
    except OSError: pass
"
    );
    let told = ward.py(&program).await;
    hold!(told.is_empty(), "signals arrived: {}", told.lines().take(3).collect::<Vec<_>>().join(", "));
    // Everybody, and its own group: whoever hears it is inside.
    let _ = ward.run(sh("kill -USR1 -1; kill -TERM 0")).await.unwrap();
    Ok(())
}

async fn no_host_process_is_slowed_or_moved(ward: &Ward) -> Kept {
    let victim = ward.host.victim();
    let program = format!("
import os, resource
for what, f in dict(nice=lambda: os.setpriority(0, {victim}, 19), sched=lambda: os.sched_setscheduler({victim}, os.SCHED_IDLE, os.sched_param(0)),
        affinity=lambda: os.sched_setaffinity({victim}, [0]), limit=lambda: resource.prlimit({victim}, resource.RLIMIT_CPU, (1, 1)),
        all_of_user=lambda: os.setpriority(os.PRIO_USER, os.getuid(), 15)).items():
    try: f(); print(what)
    except (OSError, ProcessLookupError): pass
");
    let reached = ward.py(&program).await;
    // By user means: those of this user in this namespace. The victim's own word is asked afterwards.
    hold!(reached.is_empty() || reached == "all_of_user", "reached: {reached}");
    Ok(())
}

async fn no_process_is_traced_or_read(ward: &Ward) -> Kept {
    let program = "
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
child = os.fork()
if child == 0:
    os.pause() if hasattr(os, 'pause') else __import__('signal').pause()
for pid in (1, os.getppid(), child):
    for request in (16, 0x4206):
        if libc.ptrace(request, pid, 0, 0) == 0: print('traced', pid)
    iov = (ctypes.c_void_p * 2)(0x400000, 16)
    if libc.process_vm_readv(pid, iov, 1, iov, 1, 0) >= 0: print('read', pid)
if libc.ptrace(0, 0, 0, 0) == 0: print('traceme')
try: open('/proc/1/mem', 'rb'); print('mem')
except OSError: pass
os.kill(child, 9)
";
    let got = ward.py(program).await;
    hold!(got.is_empty(), "{got}");
    Ok(())
}

async fn the_first_process_cannot_be_stopped(ward: &Ward) -> Kept {
    let _ = ward
        .run(sh("for s in KILL STOP TSTP SEGV ABRT TERM HUP USR1 PIPE ALRM 34 64; do kill -$s 1 2>/dev/null; done; kill -9 -1"))
        .await
        .unwrap();
    hold!(ward.alive().await, "no command is taken any more");
    Ok(())
}

async fn no_abstract_socket_of_the_host_is_reached(ward: &Ward) -> Kept {
    let name = &ward.host.abstract_name;
    let program = format!(
        "
import socket
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
    s = socket.socket(socket.AF_UNIX, kind)
    try: s.connect('\\0{name}'); print('OPEN')
    except ConnectionRefusedError: pass
print(open('/proc/net/unix').read().count('{SECRET}'))
"
    );
    let got = ward.py(&program).await;
    hold!(got == "0", "{got}");
    Ok(())
}

async fn no_memory_segment_or_queue_of_the_host_is_there(ward: &Ward) -> Kept {
    // SAFETY: makes and removes a segment of this process; nothing is attached.
    let (key, id) = unsafe {
        let key = 0x7f3a_0000 | (std::process::id() as i32 & 0xffff);
        (key, libc::shmget(key, 4096, libc::IPC_CREAT | 0o666))
    };
    assert!(id >= 0);
    let program = format!("
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
print(libc.shmget({key}, 0, 0), libc.shmctl({id}, 2, bytes(256)), len(open('/proc/sysvipc/shm').readlines()), len(open('/proc/sysvipc/sem').readlines()))
");
    let got = ward.py(&program).await;
    // SAFETY: removes the segment that was made above.
    unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
    hold!(got == "-1 -1 1 1", "a segment of the host was found: {got}");
    Ok(())
}

async fn no_host_process_is_named_by_a_descriptor(ward: &Ward) -> Kept {
    let victim = ward.host.victim();
    let program = format!(
        "
import os, signal
for pid in ({victim}, *range(100, 40000, 7)):
    try: fd = os.pidfd_open(pid)
    except OSError: continue
    print('named', pid)
    try: signal.pidfd_send_signal(fd, signal.SIGTERM); print('told')
    except OSError: pass
"
    );
    let got = ward.py(&program).await;
    hold!(got.is_empty(), "{got}");
    Ok(())
}

async fn a_daemon_dies_with_its_command(ward: &Ward) -> Kept {
    let mark = format!("{}-daemon", ward.spec.drill);
    let double = format!(
        "import os, signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        for fd in range(3): os.close(fd)\n        open('/data/ready', 'w').close()\n        os.execv('/bin/bash', ['{mark}', '-c', 'sleep 1000; :'])\n    os._exit(0)\nimport time\nwhile not os.path.exists('/data/ready'): time.sleep(0.01)"
    );
    ward.py(&double).await;
    hold!(processes_with(&mark).is_empty(), "a daemon lives on");
    ward.sh(&format!("setsid nohup bash -c 'trap \"\" TERM HUP; exec -a {mark} sleep 1000' >/dev/null 2>&1 & disown")).await;
    hold!(processes_with(&mark).is_empty(), "a second daemon lives on");
    // A server that was asked for is the exception, until the sandbox ends: the disposal is looked at after each attack.
    let mut server = sh(&format!("setsid nohup bash -c 'exec -a {mark} sleep 1000' >/dev/null 2>&1 & disown"));
    server.afterwards = Afterwards::LeaveRunning;
    ward.run(server).await.unwrap();
    wait_until("the server runs", || processes_with(&mark).len() == 1);
    Ok(())
}

async fn a_command_that_ignores_every_signal_ends_at_its_time(ward: &Ward) -> Kept {
    let mut stubborn = py(
        "import signal, os\nfor s in signal.valid_signals():\n    try: signal.signal(s, signal.SIG_IGN)\n    except OSError: pass\nfor _ in range(4): os.fork() or os.setsid()\nwhile True:\n    try: signal.pause()\n    except BaseException: pass",
    );
    stubborn.timeout = Duration::from_millis(500);
    ends_in_time(ward, stubborn).await
}

async fn ends_in_time(ward: &Ward, command: firedrill::sandbox::CommandSpec) -> Kept {
    let start = Instant::now();
    let result = ward.run(command).await;
    hold!(start.elapsed() < Duration::from_secs(6), "it took {:?}", start.elapsed());
    hold!(matches!(&result, Err(SandboxError::Limit { limit: Limit::Time | Limit::Processes, .. })), "{result:?}");
    let left = ward.sh("ls -d /proc/[0-9]* | wc -l").await;
    hold!(left.parse::<u32>().unwrap() <= 4, "{left} processes stand, beside PID 1, bash, ls and wc");
    Ok(())
}

async fn orphans_without_end_do_not_stretch_a_commands_time(ward: &Ward) -> Kept {
    let mut orphans = sh("for i in 1 2 3; do while :; do (true &); done & done; while :; do (true &); done");
    orphans.timeout = Duration::from_millis(500);
    let start = Instant::now();
    let result = ward.run(orphans).await;
    hold!(start.elapsed() < Duration::from_secs(6), "it took {:?}", start.elapsed());
    hold!(matches!(&result, Err(SandboxError::Limit { limit: Limit::Time | Limit::Processes, .. })), "{result:?}");
    Ok(())
}

async fn a_stopped_command_still_ends_at_its_time(ward: &Ward) -> Kept {
    let mut stopped = sh("sleep 1000 & kill -STOP $!; kill -STOP $$");
    stopped.timeout = Duration::from_millis(500);
    ends_in_time(ward, stopped).await
}

async fn nobody_raises_his_own_priority(ward: &Ward) -> Kept {
    let program = "
import os, resource
for what, f in dict(nice=lambda: os.nice(-5), fifo=lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10)),
        files=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (65536, 65536)), core=lambda: resource.setrlimit(resource.RLIMIT_CORE, (-1, -1)),
        lock=lambda: resource.setrlimit(resource.RLIMIT_MEMLOCK, (1 << 30, 1 << 30)), size=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))).items():
    try: f(); print(what)
    except (OSError, ValueError): pass
";
    let got = ward.py(program).await;
    hold!(got.is_empty(), "granted: {got}");
    Ok(())
}

async fn nobody_hides_from_the_killer_of_the_host(ward: &Ward) -> Kept {
    hold!(ward.sh("cat /proc/self/oom_score_adj").await == "500", "it goes after the host's own");
    // Down to the runner's own it may go back, where the runner has no right to forbid that; never below.
    let own: i32 = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse().unwrap();
    let tries =
        format!("for n in 0 {} -500 -1000; do echo $n 1<>/proc/$$/oom_score_adj; done 2>/dev/null; cat /proc/$$/oom_score_adj", own - 1);
    let score = ward.sh(&tries).await;
    hold!(score.parse::<i32>().unwrap() >= own, "it was set to {score}, below the runner's {own}");
    Ok(())
}
