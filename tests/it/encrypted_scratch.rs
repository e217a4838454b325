//! Encrypted scratch: nothing of a restore is on the disk in clear, while it lasts, after its end, and after a `kill -9`.
//!
//! As root it is a volume. The last test runs this file once more as an ordinary user, on an ext4 that encrypts, and then
//! looks at the bytes of that ext4. What an ordinary user's scratch cannot keep is named in [`WEAKER`], and shown.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use firedrill::codec::age::Identities;
use firedrill::domain::{ByteSize, Disposal, DrillId, Period, ResourceLimits, ScratchKind, Timestamp};
use firedrill::restore::{ArchiveOptions, CancelFlag, Target, restore_archive};
use firedrill::sandbox::{CommandSpec, Isolation, Kept, Limit, Sandbox, SandboxError, SandboxSpec, promises, provision, reap};
use rustix::fs::{Gid, Mode, OFlags, Uid, XattrFlags};

use crate::drills::{Home, PATIENT};
use crate::sealed_support::{Bytes, ROOMY};

/// What only root's volume keeps: the evidence says these of an ordinary user's directory.
const WEAKER: [&str; 3] =
    ["extended attributes stay readable", "held by the restore's budget", "after a crash the key stays in the kernel"];
const MARKER: &[u8] = b"MARKER-OF-A-PATIENT-Jane-Doe-4711";

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Where scratch is made: for an ordinary user, on the ext4 that root has prepared. `None` is an ordinary user without one.
fn disk() -> Option<PathBuf> {
    if is_root() { Some("/var/tmp".into()) } else { std::env::var_os("FIREDRILL_TEST_ENCRYPTS").map(PathBuf::from) }
}

/// A place for one test, gone with it.
struct Bench {
    home: tempfile::TempDir,
    scratch: tempfile::TempDir,
    drill: String,
}

impl Bench {
    /// `None` where this user has no encrypted scratch at all: then one test of its own shows that it is refused.
    fn new(name: &str) -> Option<Bench> {
        let Some(disk) = disk() else {
            println!("an ordinary user, and no ext4 that encrypts: see `where_nothing_encrypts_it_is_refused_with_advice`");
            return None;
        };
        let drill = format!("{name}-{}", std::process::id());
        Some(Bench { home: tempfile::tempdir().unwrap(), scratch: tempfile::tempdir_in(disk).unwrap(), drill })
    }
    fn state(&self) -> PathBuf {
        self.home.path().join("state")
    }
    fn spec(&self) -> SandboxSpec {
        spec_at(&self.state(), &self.drill, self.scratch.path())
    }
    fn left(&self) -> (usize, usize) {
        let count = |path: &Path| fs::read_dir(path).map(Iterator::count).unwrap_or(0);
        (count(&self.state()), count(self.scratch.path()))
    }
}

fn spec_at(state: &Path, drill: &str, scratch: &Path) -> SandboxSpec {
    let limits = ResourceLimits {
        memory: ByteSize::mib(128),
        processes: 32,
        scratch: ScratchKind::Encrypted,
        scratch_path: Some(scratch.to_owned()),
        scratch_size: ByteSize::mib(48),
        time: Period::from_secs(120),
        ..ResourceLimits::default()
    };
    let mut spec = SandboxSpec::new(DrillId(drill.to_owned()), limits, state.to_owned());
    spec.helper = helper();
    spec
}

fn helper() -> PathBuf {
    std::env::var_os("FIREDRILL_TEST_HELPER").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_firedrill")), PathBuf::from)
}

fn sh(script: &str) -> CommandSpec {
    CommandSpec::new(["bash", "-c", script])
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

async fn ask(sandbox: &Sandbox, script: &str) -> String {
    let exit = sandbox.run(&sh(script)).await.unwrap();
    assert!(exit.success(), "{:?}: {} {}", exit.ended, text(&exit.stdout), text(&exit.stderr));
    text(&exit.stdout)
}

fn assert_erased(disposal: &Disposal) {
    assert!(disposal.complete(), "{disposal:#?}");
    assert!(disposal.method.contains("cryptographic erase (NIST SP 800-88)") && disposal.method.contains("AES-256-XTS"), "{disposal:#?}");
    let probed: Vec<&str> = disposal.probes.iter().map(|p| p.what.as_str()).collect();
    let expected: &[&str] = if is_root() {
        &[
            "key in the kernel",
            "loop device of the opened volume",
            "loop device of the volume's image",
            "random marker",
            "name of the volume's image",
        ]
    } else {
        &["key in the kernel", "the scratch directory"]
    };
    for words in expected {
        assert!(probed.iter().any(|p| p.contains(words)), "{words} was not looked for: {probed:#?}");
    }
}

fn put(sandbox: &Sandbox, name: &str, content: &[u8]) -> File {
    let root = sandbox.root().unwrap();
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(&root, name, flags, Mode::RUSR | Mode::WUSR).unwrap());
    file.write_all_at(content, 0).unwrap();
    let owner = sandbox.owner();
    rustix::fs::fchown(&file, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid))).unwrap();
    file
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(15), "not within fifteen seconds: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// How often `needle` is in a file or device.
fn hits(file: &File, needle: &[u8]) -> usize {
    let mut reader = BufReader::with_capacity(1 << 20, file.try_clone().unwrap());
    std::io::Seek::rewind(&mut reader).unwrap();
    let mut window = Vec::new();
    let mut found = 0;
    loop {
        let bytes = reader.fill_buf().unwrap();
        if bytes.is_empty() {
            return found;
        }
        let length = bytes.len();
        window.extend_from_slice(bytes);
        reader.consume(length);
        let searcher = regex::bytes::Regex::new(&regex::escape(std::str::from_utf8(needle).unwrap())).unwrap();
        found += searcher.find_iter(&window).count();
        window.drain(..window.len().saturating_sub(needle.len() - 1));
    }
}

/// The raw image of a runner's volume: its one nameless file in the directory for scratch. Held open, it outlives the runner.
fn raw_image(pid: u32, scratch: &Path) -> File {
    let scratch = scratch.canonicalize().unwrap();
    let mut images = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().filter_map(|e| {
        let path = e.unwrap().path();
        let link = fs::read_link(&path).ok()?;
        (link.starts_with(&scratch) && link.to_string_lossy().ends_with("(deleted)")).then(|| File::open(path).unwrap())
    });
    let image = images.next().expect("the runner holds its image");
    assert_eq!(image.metadata().unwrap().nlink(), 0);
    image
}

/// Loop devices that bear a drill's name, and what they are bound to.
fn loops_of(drill: &str) -> Vec<PathBuf> {
    let listed = Command::new("losetup").args(["--list", "--noheadings", "--output", "NAME"]).output().unwrap();
    let named = |device: &&str| {
        let mut info = [0u8; 232];
        let Ok(file) = File::open(device) else { return false };
        // SAFETY: LOOP_GET_STATUS64 writes a `struct loop_info64`, which has 232 bytes.
        let asked = unsafe { libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&file), 0x4c05, info.as_mut_ptr()) };
        asked == 0 && info[56..120].starts_with(format!("firedrill-{drill}\0").as_bytes())
    };
    text(&listed.stdout).lines().map(str::trim).filter(named).map(PathBuf::from).collect()
}

// ---- the ordinary life -------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn what_is_restored_is_read_inside_and_outside_and_the_disposal_shows_an_erased_key() {
    let Some(bench) = Bench::new("life") else { return };
    let sandbox = provision(&bench.spec()).await.unwrap();
    drop(put(&sandbox, "record", MARKER));
    let long = "n".repeat(255);
    drop(put(&sandbox, &long, b"long"));
    let seen = ask(&sandbox, &format!("cat record {long}; id -u; ln record twin; ln -s record to; truncate -s 40M sparse; mkdir -p a/b; chmod 2750 a; stat -c '%h %s %a' record sparse | tr '\\n' ' '; stat -c %a a")).await;
    assert_eq!(seen, format!("{}long1000\n2 {} 600 1 41943040 644 2750", text(MARKER), MARKER.len()));
    let facts = sandbox.facts().clone();
    assert!(facts.isolated && facts.scratch.contains("encrypted") && facts.scratch.contains("AES-256-XTS"), "{facts:#?}");
    for weakness in WEAKER {
        assert_eq!(facts.remarks.iter().any(|r| r.contains(weakness)), !is_root(), "{weakness}: {facts:#?}");
    }
    assert!(facts.swap.contains("scratch is encrypted on its disk"), "{}", facts.swap);
    assert!(sandbox.free_bytes().unwrap() > 40 << 20);
    if is_root() {
        assert_eq!(loops_of(&bench.drill).len(), 2);
        assert_eq!(bench.left().1, 0, "nothing of it has a name");
    }
    assert_erased(&sandbox.destroy().await);
    assert_eq!(bench.left(), (0, 0));
    assert_eq!(loops_of(&bench.drill), Vec::<PathBuf>::new());
}

#[test]
fn without_isolation_it_is_encrypted_all_the_same() {
    let Some(bench) = Bench::new("bare") else { return };
    // In a chroot nobody may make a user namespace; an ordinary user may be forbidden to.
    let (as_root, as_user) =
        ("d=$(mktemp -d) && mount --rbind / $d && exec chroot $d \"$@\"", "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"");
    let program: &[&str] = if is_root() {
        &["unshare", "--mount", "bash", "-c", as_root, "bash"]
    } else {
        &["unshare", "--user", "--map-root-user", "bash", "-c", as_user, "bash"]
    };
    let out = other_process(program, "bare", &bench).output().unwrap();
    assert!(out.status.success() && text(&out.stdout).contains("as expected"), "{}{}", text(&out.stdout), text(&out.stderr));
    assert_eq!((bench.left(), loops_of(&bench.drill).len()), ((0, 0), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_descriptor_that_is_still_open_is_seen_by_the_disposal() {
    let Some(bench) = Bench::new("held") else { return };
    let sandbox = provision(&bench.spec()).await.unwrap();
    let held = put(&sandbox, "record", MARKER);
    let disposal = sandbox.destroy().await;
    let left: Vec<_> = disposal.probes.iter().filter(|p| !p.gone).map(|p| p.what.as_str()).collect();
    assert!(left.iter().any(|l| l.contains("key in the kernel")), "{left:?}");
    assert_eq!(left.contains(&"descriptors of the runner on the scratch"), is_root(), "{left:?}");
    drop(held);
    wait_until("the record, which was kept, is reaped", || {
        reap(&bench.state(), Timestamp::from_unix(0)).unwrap().iter().any(|r| r.left.is_empty())
    });
    assert_eq!((bench.left(), loops_of(&bench.drill).len()), ((0, 0), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_is_dropped_takes_its_scratch_with_it() {
    let Some(bench) = Bench::new("dropped") else { return };
    let sandbox = provision(&bench.spec()).await.unwrap();
    drop(put(&sandbox, "record", MARKER));
    drop(sandbox);
    assert_eq!((bench.left(), loops_of(&bench.drill).len()), ((0, 0), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_are_restored_into_a_volume_and_left_out_of_a_directory_that_would_show_them() {
    let Some(bench) = Bench::new("attributes") else { return };
    let source = bench.home.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("record"), b"content").unwrap();
    let made = Command::new("bash")
        .args([
            "-euc",
            "setfattr -n user.patient -v MARKER-OF-A-PATIENT-Jane-Doe-4711 record; tar --xattrs --format=posix -cf ../tree.tar record",
        ])
        .current_dir(&source)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", text(&made.stderr));
    let sandbox = provision(&bench.spec()).await.unwrap();
    let owner = sandbox.owner();
    let target = Target {
        root: sandbox.root().unwrap(),
        spool: sandbox.spool().unwrap(),
        owner: Some((owner.uid, owner.gid)),
        budgets: ROOMY,
        cancel: CancelFlag::default(),
        progress: std::sync::Arc::default(),
        workers: None,
    };
    let options = ArchiveOptions { name: "tree.tar".to_owned(), captured_at: Timestamp::from_unix(0), must_be_encrypted: false };
    let archive = Bytes::new(fs::read(bench.home.path().join("tree.tar")).unwrap());
    let restored = restore_archive(&archive, &Identities::default(), &options, &target).unwrap();
    let file = rustix::fs::openat(&target.root, "record", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let mut value = [0; 64];
    let there = rustix::fs::fgetxattr(&file, "user.patient", &mut value[..]);
    drop((file, target));
    assert_eq!(ask(&sandbox, "cat record").await, "content");
    assert_eq!(restored.xattrs_left_out, u64::from(!is_root()));
    assert_eq!(there.map(|length| value[..length].to_vec()), if is_root() { Ok(MARKER.to_vec()) } else { Err(rustix::io::Errno::NODATA) });
    assert_erased(&sandbox.destroy().await);
}

// ---- limits ------------------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn a_full_volume_is_a_limit_that_was_hit_and_files_are_bounded_as_well() {
    let Some(bench) = Bench::new("full") else { return };
    if !is_root() {
        println!("an ordinary user's directory has no size of its own: {} (the evidence says so)", WEAKER[1]);
        return;
    }
    let mut spec = bench.spec();
    spec.limits.max_files = 100;
    let sandbox = provision(&spec).await.unwrap();
    let limit = |result| match result {
        Err(SandboxError::Limit { limit, value }) => (limit, value),
        other => panic!("no limit was hit: {other:?}"),
    };
    let bytes = sandbox.run(&sh("for n in $(seq 60); do head -c 1M /dev/zero > big.$n || exit 1; done")).await;
    assert_eq!(limit(bytes), (Limit::Scratch, "48 MiB".to_owned()));
    ask(&sandbox, "rm big.*").await;
    let files = sandbox.run(&sh("for n in $(seq 3000); do : > small.$n || exit 1; done")).await;
    assert!(!files.is_ok_and(|exit| exit.success()), "more files than were allowed");
    let made: u64 = ask(&sandbox, "ls | wc -l").await.parse().unwrap();
    assert!((100..2_000).contains(&made), "{made} files");
    assert_erased(&sandbox.destroy().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_the_sandboxs_memory_goes_through_it() {
    let Some(bench) = Bench::new("larger") else { return };
    let mut spec = bench.spec();
    spec.limits.memory = ByteSize::mib(32);
    spec.limits.scratch_size = ByteSize::mib(160);
    let sandbox = provision(&spec).await.unwrap();
    let mut command =
        sh("a=$(head -c 128M /dev/urandom | tee large | sha256sum) && b=$(sha256sum < large) && test \"$a\" = \"$b\" && stat -c %s large");
    command.timeout = Duration::from_secs(110);
    let exit = sandbox.run(&command).await.unwrap();
    assert_eq!((exit.success(), text(&exit.stdout)), (true, (128 << 20).to_string()), "{}", text(&exit.stderr));
    assert_erased(&sandbox.destroy().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_encrypts_it_is_refused_with_advice() {
    let home = tempfile::tempdir().unwrap();
    let mut spec = spec_at(&home.path().join("state"), &format!("refused-{}", std::process::id()), Path::new("/proc/self/fdinfo"));
    let refused = |result: Result<Sandbox, SandboxError>, words: &str| match result {
        Err(SandboxError::Unavailable { why, advice }) => assert!(advice.contains(words), "{why}; {advice}"),
        other => panic!("it was not refused: {other:?}"),
    };
    if is_root() {
        spec.limits.scratch_path = Some("/var/tmp".into());
        spec.limits.scratch_size = ByteSize(1 << 52);
        refused(provision(&spec).await, "smaller scratch");
    } else {
        spec.limits.scratch_path = Some("/dev/shm".into());
        refused(provision(&spec).await, "tune2fs -O encrypt");
        assert!(!Path::new("/dev/shm").join(format!("firedrill-{}", spec.drill)).exists());
    }
    spec.limits.scratch_path = None;
    assert!(matches!(provision(&spec).await, Err(SandboxError::Spec { .. })));
    assert_eq!(fs::read_dir(home.path().join("state")).map(Iterator::count).unwrap_or(0), 0);
}

#[test]
fn without_its_tools_it_is_refused_with_advice() {
    let Some(bench) = Bench::new("tools") else { return };
    if !is_root() {
        println!("an ordinary user's directory needs neither tool nor loop device");
        return;
    }
    for (hide, advice) in [
        ("for d in /usr/sbin /sbin; do mount -t tmpfs none $d; done", "e2fsprogs"),
        ("mount --bind /dev/null /dev/loop-control", "modprobe loop"),
    ] {
        let script = format!("set -e; {hide}; exec \"$@\"");
        let mut command = other_process(&["unshare", "--mount", "bash", "-c", &script, "bash"], "refused", &bench);
        let out = command.env("FIREDRILL_TEST_ADVICE", advice).output().unwrap();
        assert!(out.status.success() && text(&out.stdout).contains("as expected"), "{}{}", text(&out.stdout), text(&out.stderr));
        assert_eq!((bench.left(), loops_of(&bench.drill).len()), ((0, 0), 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_finds_by_doing() {
    let Some(bench) = Bench::new("doctor") else { return };
    let row = |list: Vec<firedrill::sandbox::Promise>| list.into_iter().find(|p| p.name == "scratch: encrypted").expect("a row of its own");
    let kept = row(promises(&bench.spec()).await);
    assert_eq!((kept.kept, kept.how.contains("AES-256-XTS")), (Kept::Yes, true), "{kept:#?}");
    let mut nowhere = bench.spec();
    nowhere.limits.scratch_path = Some("/proc".into());
    assert_eq!(row(promises(&nowhere).await).kept, Kept::Partly);
    assert_eq!((bench.left(), loops_of(&bench.drill).len()), ((0, 0), 0));
}

// ---- the disk ----------------------------------------------------------------------------------------------------------

/// A marker as content, as attribute, as name and as the target of a link, on its way to the disk as far as the kernel takes it.
fn spread(sandbox: &Sandbox) {
    let marker = std::str::from_utf8(MARKER).unwrap();
    let file = put(sandbox, "record", &MARKER.repeat(10_000));
    put(sandbox, marker, b"a name").sync_all().unwrap();
    let root = sandbox.root().unwrap();
    rustix::fs::symlinkat(marker, &root, "link").unwrap();
    if is_root() {
        rustix::fs::fsetxattr(&file, "user.patient", MARKER, XattrFlags::empty()).unwrap();
        rustix::fs::fsetxattr(&file, "user.large", &MARKER.repeat(1_000), XattrFlags::empty()).unwrap();
    }
    file.sync_all().unwrap();
    rustix::fs::syncfs(root.as_fd()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_marker_is_nowhere_in_the_raw_image_and_in_the_opened_volume_it_is() {
    let Some(bench) = Bench::new("raw") else { return };
    let sandbox = provision(&bench.spec()).await.unwrap();
    spread(&sandbox);
    if is_root() {
        let image = raw_image(std::process::id(), bench.scratch.path());
        assert!(Command::new("sync").status().unwrap().success());
        // The control: the same search on the device that the kernel decrypts.
        let opened: usize = loops_of(&bench.drill).iter().map(|device| hits(&File::open(device).unwrap(), MARKER)).sum();
        assert!(opened > 10_000, "the opened volume has it {opened} times");
        assert_eq!(hits(&image, MARKER), 0);
        assert!(image.metadata().unwrap().blocks() > 0);
    } else {
        println!("the bytes of an ordinary user's disk are root's to look at: the last test does");
    }
    assert_erased(&sandbox.destroy().await);
}

/// Not a test: a runner that holds a sandbox until it is killed.
#[test]
#[ignore = "started by other tests, in a process of its own"]
fn role() {
    let Some(role) = std::env::var_os("FIREDRILL_TEST_ROLE") else { return };
    let from = |name: &str| PathBuf::from(std::env::var_os(name).unwrap());
    let mut spec = spec_at(&from("FIREDRILL_TEST_STATE"), from("FIREDRILL_TEST_DRILL").to_str().unwrap(), &from("FIREDRILL_TEST_SCRATCH"));
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        if role == "refused" {
            let advice = std::env::var("FIREDRILL_TEST_ADVICE").unwrap();
            let refused = provision(&spec).await;
            assert!(matches!(&refused, Err(SandboxError::Unavailable { advice: a, .. }) if a.contains(&advice)), "{refused:?}");
            println!("\nas expected");
            return;
        }
        if role == "bare" {
            assert!(matches!(provision(&spec).await, Err(SandboxError::Unavailable { advice, .. }) if advice.contains("namespaces")));
            spec.isolation = Isolation::IfPossible;
            let sandbox = provision(&spec).await.unwrap();
            assert!(!sandbox.can_run() && sandbox.facts().scratch.contains("AES-256-XTS"), "{:#?}", sandbox.facts());
            drop(put(&sandbox, "record", MARKER));
            let disposal = sandbox.destroy().await;
            assert!(disposal.complete() && disposal.method.contains("cryptographic erase"), "{disposal:#?}");
            println!("\nas expected");
            return;
        }
        let sandbox = provision(&spec).await.unwrap();
        spread(&sandbox);
        println!("\nholding");
        let _ = sandbox.run(&sh("sleep 1000")).await;
    });
}

fn other_process(before: &[&str], role: &str, bench: &Bench) -> Command {
    let exe = std::env::current_exe().unwrap();
    let mut command = match before {
        [] => Command::new(&exe),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(&exe);
            command
        }
    };
    command
        .args(["--exact", "encrypted_scratch::role", "--ignored", "--nocapture"])
        .env("FIREDRILL_TEST_ROLE", role)
        .env("FIREDRILL_TEST_STATE", bench.state())
        .env("FIREDRILL_TEST_SCRATCH", bench.scratch.path())
        .env("FIREDRILL_TEST_DRILL", &bench.drill)
        .env("FIREDRILL_TEST_HELPER", helper())
        .stdout(Stdio::piped());
    command
}

/// A process that a failing test does not leave behind.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_killed_runner_leaves_noise_and_no_way_to_read_it() {
    let Some(bench) = Bench::new("killed") else { return };
    // Somebody else's loop device, which nobody of us may touch.
    let foreign = is_root().then(|| Foreign::new(bench.home.path()));
    let mut runner = Guarded(other_process(&[], "hold", &bench).spawn().unwrap());
    let mut output = BufReader::new(runner.0.stdout.take().unwrap());
    assert!(output.by_ref().lines().any(|l| l.unwrap() == "holding"), "the other runner made no sandbox");
    let image = is_root().then(|| raw_image(runner.0.id(), bench.scratch.path()));
    assert_eq!(reap(&bench.state(), Timestamp::from_unix(0)).unwrap(), [], "a living runner's scratch is left alone");
    runner.0.kill().unwrap();
    runner.0.wait().unwrap();
    if let Some(image) = &image {
        wait_until("the loop devices clear themselves", || loops_of(&bench.drill).is_empty());
        assert_eq!(hits(image, MARKER), 0);
    }
    let reaped = reap(&bench.state(), Timestamp::from_unix(7)).unwrap();
    assert!(reaped.len() == 1 && reaped[0].left.is_empty(), "{reaped:?}");
    let told = if is_root() {
        "an encrypted volume, whose key and image went with its runner"
    } else {
        "the key of an encrypted scratch directory"
    };
    assert!(reaped[0].what.iter().any(|w| w == told), "{reaped:?}");
    assert_eq!(bench.left(), (0, 0));
    if let Some(foreign) = foreign {
        assert!(foreign.is_bound(), "another one's loop device stays");
    }
}

#[test]
fn a_loop_device_that_somebody_holds_open_is_told_kept_on_record_and_gone_later() {
    let Some(bench) = Bench::new("stuck") else { return };
    if !is_root() {
        println!("an ordinary user's directory has no loop device");
        return;
    }
    let mut runner = Guarded(other_process(&[], "hold", &bench).spawn().unwrap());
    let mut output = BufReader::new(runner.0.stdout.take().unwrap());
    assert!(output.by_ref().lines().any(|l| l.unwrap() == "holding"), "the other runner made no sandbox");
    let held: Vec<File> = loops_of(&bench.drill).iter().map(|device| File::open(device).unwrap()).collect();
    runner.0.kill().unwrap();
    runner.0.wait().unwrap();
    let reaped = reap(&bench.state(), Timestamp::from_unix(7)).unwrap();
    assert!(reaped[0].left.len() == 2 && reaped[0].left.iter().all(|l| l.contains("something else has it open")), "{reaped:?}");
    assert_eq!(bench.left().0, 2, "lock and record are kept");
    drop(held);
    let reaped = reap(&bench.state(), Timestamp::from_unix(8)).unwrap();
    assert!(reaped.len() == 1 && reaped[0].left.is_empty(), "{reaped:?}");
    assert_eq!((bench.left(), loops_of(&bench.drill).len()), ((0, 0), 0));
}

#[test]
fn a_record_that_names_another_ones_loop_device_touches_nothing() {
    let Some(bench) = Bench::new("foreign") else { return };
    if !is_root() {
        println!("an ordinary user's directory has no loop device");
        return;
    }
    let foreign = Foreign::new(bench.home.path());
    fs::create_dir(bench.state()).unwrap();
    let (number, device, inode) = foreign.status();
    // As a record that was tampered with would have it: even the file behind it is right.
    let loops = serde_json::json!([{ "number": number, "device": device, "inode": inode, "label": "firedrill-lost" }]);
    let record =
        serde_json::json!({ "version": 1, "drill": "lost", "cgroups": [], "scratch_parent": null, "monitor": null, "loops": loops });
    fs::write(bench.state().join("lost.json"), record.to_string()).unwrap();
    let reaped = reap(&bench.state(), Timestamp::from_unix(7)).unwrap();
    assert!(reaped.len() == 1 && reaped[0].left.is_empty(), "{reaped:?}");
    assert!(foreign.is_bound(), "a device without our label is nobody's to clear");
}

/// A loop device of somebody else.
struct Foreign(PathBuf);

impl Foreign {
    fn new(folder: &Path) -> Foreign {
        let file = folder.join("foreign.img");
        File::create(&file).unwrap().set_len(1 << 20).unwrap();
        let made = Command::new("losetup").args(["--find", "--show"]).arg(&file).output().unwrap();
        assert!(made.status.success(), "{}", text(&made.stderr));
        Foreign(text(&made.stdout).into())
    }
    /// Number, device and inode of the file behind it, as the kernel has them.
    fn status(&self) -> (u32, u64, u64) {
        let mut info = [0u64; 29];
        let file = File::open(&self.0).unwrap();
        // SAFETY: LOOP_GET_STATUS64 writes a `struct loop_info64`, which has 232 bytes.
        assert_eq!(unsafe { libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&file), 0x4c05, info.as_mut_ptr()) }, 0);
        (self.0.to_str().unwrap().trim_start_matches("/dev/loop").parse().unwrap(), info[0], info[1])
    }
    fn is_bound(&self) -> bool {
        Command::new("losetup").arg(&self.0).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}

// ---- a whole drill -----------------------------------------------------------------------------------------------------

#[test]
fn a_drill_on_encrypted_scratch_passes_and_its_report_says_what_it_was() {
    let Some(bench) = Bench::new("drill") else { return };
    if !is_root() {
        println!("the drill's home is not an ordinary user's: the sandbox's tests above are");
        return;
    }
    let home = Home::new();
    home.tree();
    let script = format!(
        "cd tree; truncate -s 64M sparse; printf x >> sparse; ln sparse twin; ln -s ../elsewhere link; mkdir -p sticky; chmod 1770 sticky
         touch {long}; head -c 20000 /dev/urandom | base64 -w0 > large; setfattr -n user.patient -v '{PATIENT}' sparse
         setfattr -n user.large -v \"$(head -c 3000 large)\" large",
        long = "l".repeat(255)
    );
    home.shell(&script);
    home.fire(&["seal", "tree", "--to", "backups", "-r", &home.recipient]).exits(0);
    let place = bench.scratch.path().display();
    let scratch = |size: &str| format!("sandbox.scratch = {{ kind = \"encrypted\", path = \"{place}\", size = \"{size}\" }}");
    let drilled = home.drill(&home.sealed_scenario(&scratch("100MiB"))).ends("PASSED");
    let report = &drilled.report;
    assert!(report["sandbox"]["scratch"].as_str().unwrap().starts_with("encrypted volume"), "{:#}", report["sandbox"]);
    assert!(report["disposal"]["method"].as_str().unwrap().contains("cryptographic erase"), "{:#}", report["disposal"]);
    assert!(report["disposal"]["probes"].as_array().unwrap().iter().all(|p| p["gone"] == true));
    assert!(!report.to_string().contains("extended attributes"), "every attribute was restored: {report:#}");
    // Too small for what the manifest says: found before anything is restored, and nobody blames the backup.
    let drilled = home.drill(&home.sealed_scenario(&scratch("16MiB"))).ends("INCONCLUSIVE");
    drilled.blames_runner("scratch_full", &[]);
    assert_eq!(bench.left().1, 0);
}

#[test]
fn a_drill_that_is_killed_leaves_noise_and_is_closed_with_evidence() {
    let Some(bench) = Bench::new("lost-drill") else { return };
    if !is_root() {
        println!("the drill's home is not an ordinary user's: `a_killed_runner_leaves_noise_and_no_way_to_read_it` is");
        return;
    }
    let home = Home::new();
    home.bare_tree();
    let place = bench.scratch.path().display();
    let scenario = home.scenario(&format!(
        "[sandbox.scratch]\nkind = \"encrypted\"\npath = \"{place}\"\nsize = \"64MiB\"\n\
         [[check]]\nkind = \"command\"\ncommand = [\"bash\", \"-c\", \"sync .; sleep 600\"]"
    ));
    let mut runner = Guarded(home.start(&["run", scenario.to_str().unwrap()]));
    let journal = || fs::read_dir(home.path("state/drills")).into_iter().flatten().map(|e| e.unwrap().path());
    wait_until("the check runs", || journal().any(|p| fs::read_to_string(p).is_ok_and(|text| text.contains("\"verify\""))));
    let image = raw_image(runner.0.id(), bench.scratch.path());
    std::thread::sleep(Duration::from_millis(500));
    runner.0.kill().unwrap();
    runner.0.wait().unwrap();
    home.fire(&["reap"]).exits(0);
    assert_eq!(hits(&image, PATIENT.as_bytes()), 0);
    let evidence = home.evidence();
    let report = home.look_at(&evidence[0]);
    assert_eq!((evidence.len(), &report["verdict"]), (1, &serde_json::json!("INCONCLUSIVE")));
    assert!(report["disposal"].to_string().contains("an encrypted volume, whose key and image went"), "{:#}", report["disposal"]);
    assert_eq!(report["disposal"]["sanitization"], "purge", "{:#}", report["disposal"]);
    assert_eq!(bench.left().1, 0);
}

// ---- and all of it as an ordinary user ---------------------------------------------------------------------------------

#[test]
fn all_of_this_holds_for_an_ordinary_user_on_a_disk_that_encrypts() {
    if !is_root() {
        println!("this is the run as an ordinary user");
        return;
    }
    let place = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let run = |program: &str, args: &[&str]| {
        let out = Command::new(program).args(args).current_dir(place.path()).output().unwrap();
        assert!(out.status.success(), "{program}: {}", text(&out.stderr));
        text(&out.stdout)
    };
    run("truncate", &["-s", "400M", "disk.img"]);
    run("mkfs.ext4", &["-q", "-F", "-O", "encrypt", "disk.img"]);
    for folder in ["disk", "home"] {
        fs::create_dir(place.path().join(folder)).unwrap();
    }
    let disk = place.path().join("disk");
    run("mount", &["-o", "loop", "disk.img", "disk"]);
    let mounted = Mounted(disk.clone());
    for folder in [&disk, &place.path().join("home")] {
        std::os::unix::fs::chown(folder, Some(1000), Some(1000)).unwrap();
    }
    let copy = |from: &Path, name: &str| {
        let to = place.path().join(name);
        fs::copy(from, &to).unwrap();
        fs::set_permissions(&to, PermissionsExt::from_mode(0o755)).unwrap();
        to
    };
    let (tests, helper) = (copy(&std::env::current_exe().unwrap(), "it"), copy(&helper(), "firedrill"));
    let as_user = |encrypts: Option<&Path>| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=1000", "--regid=1000", "--clear-groups"]).arg(&tests).args(["encrypted_scratch::", "--test-threads=2"]);
        command.env("FIREDRILL_TEST_HELPER", &helper).env("TMPDIR", place.path().join("home")).current_dir("/");
        command.envs(encrypts.map(|path| ("FIREDRILL_TEST_ENCRYPTS", path)));
        let out = command.output().unwrap();
        assert!(out.status.success(), "{}\n{}", text(&out.stdout), text(&out.stderr));
        assert!(text(&out.stdout).contains("where_nothing_encrypts_it_is_refused_with_advice ... ok"));
    };
    as_user(Some(&disk));
    // And without such a disk it is refused, which is all that can be shown.
    as_user(None);
    // The control: what is beside the encrypted directories, in clear.
    fs::write(disk.join("beside"), b"CONTROL-IN-CLEAR-0815").unwrap();
    run("sync", &[]);
    drop(mounted);
    let image = File::open(place.path().join("disk.img")).unwrap();
    assert_eq!(hits(&image, MARKER), 0, "the disk of an ordinary user has what its drills restored");
    assert_eq!(hits(&image, b"CONTROL-IN-CLEAR-0815"), 1);
}

/// A mount that a failing test does not leave behind.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}
