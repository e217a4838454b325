//! What foreign tools get in a sandbox: small files in memory, a kit of their own, and a listener that the runner serves.
//!
//! Run as root, the tests of `sandbox` run these once more as an ordinary user.

use std::io::Write;
use std::os::fd::AsFd;

use firedrill::domain::ScratchKind;
use firedrill::sandbox::{SandboxError, provision};
use rustix::fs::{Mode, OFlags};

use crate::sandbox::{Bench, assert_gone, sh, text};

#[tokio::test(flavor = "multi_thread")]
async fn private_files_are_there_for_one_command_and_for_nobody_after_it() {
    let bench = Bench::new();
    let sandbox = provision(&bench.spec()).await.unwrap();
    let mut command = sh("cat /run/firedrill/key /run/firedrill/tool.conf; stat -c '%a %U' /run/firedrill /run/firedrill/key");
    command.files = vec![("key".to_owned(), b"hunter2 \x00\xff\n".to_vec()), ("tool.conf".to_owned(), b"[tool]\n".to_vec())];
    let exit = sandbox.run(&command).await.unwrap();
    assert!(exit.success(), "{}", text(&exit.stderr));
    assert_eq!(exit.stdout, b"hunter2 \x00\xff\n[tool]\n700 drill\n600 drill\n");
    let after = sandbox.run(&sh("ls -a /run; ls /run/firedrill")).await.unwrap();
    assert!(!after.success(), "{}", text(&after.stdout));
    // what a command leaves at their place is not written through
    sandbox.run(&sh("ln -s /data /run/firedrill")).await.unwrap();
    assert!(sandbox.run(&command).await.unwrap().success());
    assert_eq!(text(&sandbox.run(&sh("ls -A /data")).await.unwrap().stdout), "");
    command.files = vec![("../key".to_owned(), Vec::new())];
    assert!(matches!(sandbox.run(&command).await, Err(SandboxError::Spec { .. })));
    command.files = vec![("key".to_owned(), vec![7; 200 << 10])];
    assert!(matches!(sandbox.run(&command).await, Err(SandboxError::Spec { .. })));
    assert_gone(&sandbox.destroy().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn giving_a_file_away_is_not_permitted_rather_than_invalid() {
    let bench = Bench::new();
    let sandbox = provision(&bench.spec()).await.unwrap();
    let script = "import os, errno\nopen('f', 'w').close()\nos.chown('f', 1000, 1000); os.chown('f', -1, 1000)\n\
        for ids in [(0, 0), (1001, -1), (-1, 5)]:\n    for give in [os.chown, os.lchown]:\n        try:\n            give('f', *ids)\n            \
        print('given')\n        except OSError as e:\n            assert e.errno == errno.EPERM, e\nprint('kept')";
    let exit = sandbox.run(&crate::sandbox::py(script)).await.unwrap();
    assert_eq!(text(&exit.stdout), "kept", "{}", text(&exit.stderr));
    assert_gone(&sandbox.destroy().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kit_is_seen_by_both_sides_and_goes_with_the_sandbox() {
    for kind in [ScratchKind::Tmpfs, ScratchKind::Directory] {
        let bench = Bench::new();
        let mut spec = bench.spec();
        spec.limits.scratch = kind;
        spec.limits.scratch_path = Some(bench.scratch());
        let sandbox = provision(&spec).await.unwrap();
        let kit = sandbox.kit().unwrap();
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR | Mode::ROTH;
        let mut file = std::fs::File::from(rustix::fs::openat(&kit, "object", flags, mode).unwrap());
        file.write_all(b"ciphertext").unwrap();
        let owner = sandbox.owner();
        let (uid, gid) = (rustix::fs::Uid::from_raw(owner.uid), rustix::fs::Gid::from_raw(owner.gid));
        rustix::fs::fchown(file.as_fd(), Some(uid), Some(gid)).unwrap();
        drop(file);
        let exit = sandbox.run(&sh("cat /kit/object && mkdir /kit/home && touch /kit/home/cache && ls -A /data")).await.unwrap();
        assert!(exit.success(), "{kind:?}: {}", text(&exit.stderr));
        assert_eq!(text(&exit.stdout), "ciphertext");
        assert!(rustix::fs::statat(&kit, "home/cache", rustix::fs::AtFlags::empty()).is_ok());
        drop(kit);
        assert_gone(&sandbox.destroy().await);
        assert_eq!(std::fs::read_dir(bench.scratch()).unwrap().count(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_runner_serves_is_reached_by_its_names_and_is_no_attempt_to_leave() {
    let bench = Bench::new();
    let mut spec = bench.spec();
    spec.served_hosts = vec!["s3.drill.internal".to_owned(), "acme-backups.s3.drill.internal".to_owned()];
    let sandbox = provision(&spec).await.unwrap();
    let listeners = sandbox.take_listeners();
    assert_eq!((listeners.len(), sandbox.take_listeners().len()), (1, 0));
    let port = listeners[0].local_addr().unwrap().port();
    let served = std::thread::spawn(move || {
        for _ in 0..2 {
            let (mut connection, from) = listeners[0].accept().unwrap();
            assert!(from.ip().is_loopback());
            connection.write_all(b"served\n").unwrap();
        }
    });
    let script = format!("for h in 127.0.0.1 acme-backups.s3.drill.internal; do cat < /dev/tcp/$h/{port}; done");
    let exit = sandbox.run(&sh(&script)).await.unwrap();
    assert_eq!(text(&exit.stdout), "served\nserved", "{}", text(&exit.stderr));
    served.join().unwrap();
    assert_eq!(sandbox.attempts_so_far(), 0);
    // the host's loopback is another one
    let host = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let elsewhere = format!("cat < /dev/tcp/127.0.0.1/{}", host.local_addr().unwrap().port());
    assert!(!sandbox.run(&sh(&elsewhere)).await.unwrap().success());
    sandbox.run(&sh("echo > /dev/tcp/192.0.2.7/80")).await.unwrap();
    assert_eq!(sandbox.attempts_so_far(), 1);
    assert_eq!(sandbox.settle().await.unwrap().total, 1);
    assert_gone(&sandbox.destroy().await);
    spec.served_hosts = vec!["x\n127.0.0.1 evil".to_owned()];
    assert!(matches!(provision(&spec).await, Err(SandboxError::Spec { .. })));
}
