//! What comes along from the runner: three descriptors and a named environment, and nothing goes back but output.

use firedrill::sandbox::{CommandSpec, Ended};
use rustix::fs::{Mode, OFlags};

use super::host::SECRET;
use super::{Kept, Ward, attacks, hold, py, text};

attacks![
    no_descriptor_of_the_runner_comes_along,
    the_three_descriptors_lead_nowhere,
    no_descriptor_of_the_first_process_is_reached,
    the_first_process_is_nobodys_to_look_into,
    no_environment_comes_along,
    there_is_no_terminal_and_no_input,
    a_crash_leaves_no_core,
    output_can_not_be_read_back_or_held_open,
    a_descriptor_passed_between_commands_is_none_of_the_hosts,
];

async fn no_descriptor_of_the_runner_comes_along(ward: &Ward) -> Kept {
    // Without close-on-exec, as careless libraries open them, and high up.
    let careless = rustix::fs::open(&ward.host.marker, OFlags::RDONLY, Mode::empty()).unwrap();
    // SAFETY: a plain call with values; the copy is closed below.
    let high = unsafe { libc::fcntl(std::os::fd::AsRawFd::as_raw_fd(&careless), libc::F_DUPFD, 900) };
    assert!(high >= 900);
    let program = "import os\nopen_ones = []\nfor fd in range(0, 5000):\n    try: os.fstat(fd); open_ones.append(fd)\n    except OSError: pass\nprint(open_ones)";
    let seen = ward.py(program).await;
    // SAFETY: closes the copy made above.
    unsafe { libc::close(high) };
    hold!(seen == "[0, 1, 2]", "open inside: {seen}");
    Ok(())
}

async fn the_three_descriptors_lead_nowhere(ward: &Ward) -> Kept {
    let seen = ward.py("import os\nprint([os.readlink(f'/proc/self/fd/{n}').split(':')[0] for n in range(3)])").await;
    hold!(seen == "['/dev/null', 'pipe', 'pipe']", "they are {seen}");
    hold!(!ward.can("cat /proc/self/fd/0/../../etc/shadow || ls /proc/self/fd/1/ || ls /dev/fd/0/..").await, "one led on");
    Ok(())
}

async fn no_descriptor_of_the_first_process_is_reached(ward: &Ward) -> Kept {
    // Its control socket would take orders, its groups' doors would let out.
    hold!(!ward.can("readlink /proc/1/fd/* || cat /proc/1/fdinfo/*").await, "they are told");
    let program = "import os\nfor n in range(64):\n    for flags in (os.O_RDONLY, os.O_WRONLY):\n        try: os.open(f'/proc/1/fd/{n}', flags | os.O_NONBLOCK); print('OPEN', n)\n        except OSError: pass";
    let got = ward.py(program).await;
    hold!(got.is_empty(), "{got}");
    Ok(())
}

async fn the_first_process_is_nobodys_to_look_into(ward: &Ward) -> Kept {
    hold!(!ward.can("ls /proc/1/fd/ || ls /proc/1/task/1/fd/").await, "its descriptors are numbered, though none can be told or opened");
    hold!(ward.sh("stat -c %u /proc/1/environ").await == "65534", "its files are those of the user inside");
    Ok(())
}

async fn no_environment_comes_along(ward: &Ward) -> Kept {
    let mut env = CommandSpec::new(["env"]);
    env.env.push(("NAMED".to_owned(), "yes".to_owned()));
    let exit = ward.run(env).await.unwrap();
    let said = text(&exit.stdout);
    let mut lines: Vec<&str> = said.lines().collect();
    lines.sort_unstable();
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    hold!(lines == ["HOME=/data", "LANG=C.UTF-8", "NAMED=yes", path, "TMPDIR=/tmp"], "{lines:?}");
    let others = ward.sh("cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | cut -d= -f1 | sort -u | tr '\\n' ' '").await;
    hold!(!others.contains("CARGO") && !others.contains("HOST_SECRET"), "{others}");
    Ok(())
}

async fn there_is_no_terminal_and_no_input(ward: &Ward) -> Kept {
    let seen = ward.sh("cat; tty; (: < /dev/tty) 2>/dev/null && echo TERMINAL; ps -o tty= -p $$ 2>/dev/null").await;
    hold!(seen.starts_with("not a tty") && !seen.contains("TERMINAL"), "{seen}");
    // A session of its own: no group of the runner's can be joined or told.
    let sid = ward.py("import os\nprint(os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid())").await;
    hold!(sid == "True True", "its session is another's: {sid}");
    Ok(())
}

async fn a_crash_leaves_no_core(ward: &Ward) -> Kept {
    // One byte, not zero: zero still feeds a core_pattern that is a pipe, which would carry memory out to the host.
    hold!(ward.py("import resource\nprint(resource.getrlimit(resource.RLIMIT_CORE))").await == "(1, 1)", "cores are larger than a byte");
    let crash = format!(
        "import os, resource\ns = '{SECRET}' * 1000\ntry: resource.setrlimit(resource.RLIMIT_CORE, (-1, -1))\nexcept Exception: pass\nos.abort()"
    );
    let exit = ward.run(py(&crash)).await.unwrap();
    assert_eq!(exit.ended, Ended::Signal(6));
    let found = ward.sh("find /data /tmp /run /dev/shm -name '*core*' -size +1c").await;
    hold!(found.is_empty(), "a core: {found}");
    Ok(())
}

async fn output_can_not_be_read_back_or_held_open(ward: &Ward) -> Kept {
    let program = "import os\nfor fd in (1, 2):\n    try: os.read(fd, 1); print('READ')\n    except OSError: pass\n    try: os.open(f'/proc/self/fd/{fd}', os.O_RDONLY | os.O_NONBLOCK); os.write(1, b'')\n    except OSError: pass";
    hold!(ward.py(program).await.is_empty(), "the output was read back");
    // A grandchild that keeps the pipe does not keep the runner.
    let start = std::time::Instant::now();
    ward.sh("setsid sleep 300 & echo done").await;
    hold!(start.elapsed().as_secs() < 5, "the runner waited {:?}", start.elapsed());
    Ok(())
}

async fn a_descriptor_passed_between_commands_is_none_of_the_hosts(ward: &Ward) -> Kept {
    let mut server = py(
        "import os, socket\nl = socket.socket(socket.AF_UNIX); l.bind('/tmp/s'); l.listen()\nif os.fork() == 0:\n    c, _ = l.accept()\n    socket.send_fds(c, [b'x'], [os.open('/', os.O_RDONLY), os.open('/proc/1', os.O_RDONLY)])\n    c.recv(1)",
    );
    server.afterwards = firedrill::sandbox::Afterwards::LeaveRunning;
    ward.run(server).await.unwrap();
    let client = "import os, socket\nc = socket.socket(socket.AF_UNIX); c.connect('/tmp/s')\n_, fds, _, _ = socket.recv_fds(c, 1, 2)\nos.fchdir(fds[0])\nfor _ in range(20): os.chdir('..')\nprint(sorted(os.listdir('.')) == sorted(os.listdir('/')))\ntry: os.open('root/etc/shadow', os.O_RDONLY, dir_fd=fds[1]); print('OPEN')\nexcept OSError: pass";
    let got = ward.py(client).await;
    hold!(got == "True", "it led to {got}");
    Ok(())
}
