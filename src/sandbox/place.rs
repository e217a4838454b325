//! A sandbox as the runner holds it: make, use, destroy.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::{fstat, fstatvfs};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use super::cgroup::{Groups, Layout};
use super::control::{self, Control};
use super::delegated::Wanted;
use super::disposal;
use super::egress::{Attempts, Recorder};
use super::encrypted::{self, Encrypted};
use super::error::{SandboxError, Step};
use super::facts::{self, ByCgroup};
use super::helper::{HELPER_ARGUMENT, INNER_ID, clone_shown};
use super::owner::Owner;
use super::registry::{Claim, ProcessRef, Record};
use super::scratch::{self, KIT, PlainDirectory, Rooms, TREE};
use super::spec::{CommandSpec, Exit, Isolation, SandboxSpec};
use super::swap::{self, SwapGuard};
use super::sys::{clone_open_tree, make_tmpfs};
use super::wire::{FromHelper, HostDirectory, IdMap, LockDown, ScratchOrder, Setup, Shown, ShownKind, ToHelper};
use crate::domain::{ByteSize, Disposal, DrillId, ResourceLimits, SandboxFacts, ScratchKind};

/// Nobody on any host is here; 65,536 ids, as one sandbox's users.
const RANGE: IdMap = IdMap::Range { base: 600_000_000, count: 65_536 };
const SET_UP_TIME: Duration = Duration::from_secs(30);
const SETTLE_TIME: Duration = Duration::from_secs(10);

/// A throwaway place. Destroy it: dropping is the safety net, which kills, cleans and complains.
#[derive(Debug)]
pub struct Sandbox {
    held: Option<Held>,
}

/// All that must be let go of. Dropping lets go of all of it.
#[derive(Debug)]
pub(super) struct Held {
    pub drill: DrillId,
    pub facts: SandboxFacts,
    pub owner: Owner,
    pub limits: ResourceLimits,
    pub lock_down: LockDown,
    pub helper: Option<Helper>,
    pub groups: Option<Groups>,
    /// Hears attempts to reach the outside, until it is settled.
    pub egress: std::sync::Mutex<Option<Recorder>>,
    pub rooms: Option<Rooms>,
    /// Where programs inside find what the runner serves, until somebody takes them.
    pub listeners: std::sync::Mutex<Vec<TcpListener>>,
    /// A tmpfs that is mounted nowhere.
    pub detached: Option<OwnedFd>,
    pub directory: Option<PlainDirectory>,
    pub encrypted: Option<Encrypted>,
    pub scratch_parent: Option<PathBuf>,
    pub claim: Option<Claim>,
}

/// The helper, alive.
#[derive(Debug)]
pub(super) struct Helper {
    pub monitor: Child,
    pub control: Option<Mutex<Control>>,
    /// Keeps the number of the namespace from being given to another one before we have looked for its processes.
    pub pid_namespace: Option<OwnedFd>,
}

/// Makes a sandbox.
///
/// # Errors
/// [`SandboxError::Unavailable`] with advice where this host cannot, [`SandboxError::Busy`] where the drill has one already.
pub async fn provision(spec: &SandboxSpec) -> Result<Sandbox, SandboxError> {
    spec.check()?;
    let held = match isolated(spec).await {
        Err(SandboxError::Unavailable { why, advice }) if spec.isolation == Isolation::IfPossible => bare(spec, &why, advice).await?,
        other => other?,
    };
    Ok(Sandbox { held: Some(held) })
}

impl Sandbox {
    fn held(&self) -> &Held {
        self.held.as_ref().expect("only destroy takes it, and destroy takes the sandbox")
    }
    fn rooms(&self) -> &Rooms {
        self.held().rooms.as_ref().expect("rooms are open until the sandbox is destroyed")
    }

    /// The restored tree's directory; what is written there counts as the runner's own memory. The only way to it: never look a path up inside, let openat2 hold each step to it.
    /// Close it before the sandbox is destroyed, else the disposal says that it was held.
    ///
    /// # Errors
    /// Where this process has no descriptor left.
    pub fn root(&self) -> Result<OwnedFd, SandboxError> {
        self.rooms().tree.try_clone().step("open the restored tree")
    }

    /// A directory in the same scratch that nothing inside can see. Close it as well.
    ///
    /// # Errors
    /// Where this process has no descriptor left.
    pub fn spool(&self) -> Result<OwnedFd, SandboxError> {
        self.rooms().spool.try_clone().step("open the spool")
    }

    /// A directory in the same scratch that programs inside see at [`super::KIT_DIRECTORY`], beside the restored tree. Close it as well.
    ///
    /// # Errors
    /// Where this process has no descriptor left.
    pub fn kit(&self) -> Result<OwnedFd, SandboxError> {
        self.rooms().kit.try_clone().step("open the kit")
    }

    /// Listening sockets on the loopback inside, for what the runner serves; once. None where nothing can run inside, or none
    /// was asked for.
    pub fn take_listeners(&self) -> Vec<TcpListener> {
        std::mem::take(&mut *self.held().listeners.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// As [`Sandbox::take_listeners`], for one of several who serve one after the other.
    ///
    /// # Errors
    /// [`SandboxError`] where the process has no descriptor left.
    pub fn lend_listeners(&self) -> Result<Vec<TcpListener>, SandboxError> {
        let listeners = self.held().listeners.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        listeners.iter().map(TcpListener::try_clone).collect::<Result<_, _>>().step("lend the listeners")
    }

    /// How often something inside has tried to reach the outside, so far.
    pub fn attempts_so_far(&self) -> u64 {
        let egress = self.held().egress.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        egress.as_ref().map_or(0, Recorder::total)
    }

    /// To whom restored files must belong so that commands inside can read them.
    pub fn owner(&self) -> Owner {
        self.held().owner
    }

    /// What it is made of, weaknesses included.
    pub fn facts(&self) -> &SandboxFacts {
        &self.held().facts
    }

    /// Whether commands can run.
    pub fn can_run(&self) -> bool {
        self.held().helper.is_some()
    }

    pub(super) fn landlock(&self) -> &str {
        &self.held().lock_down.landlock
    }

    /// Whether attempts to reach the outside can be listed here.
    ///
    /// # Errors
    /// Why not, in our words.
    pub fn hears_attempts(&self) -> Result<(), &str> {
        let held = self.held();
        match &held.lock_down.deaf {
            Some(why) => Err(why),
            None if held.helper.is_none() => Err("nothing can run here"),
            None => Ok(()),
        }
    }

    /// Ends everything that runs inside, and tells what it tried to reach outside. After it no command runs any more.
    /// `None` where nothing could run, or where it was asked before.
    pub async fn settle(&self) -> Option<Attempts> {
        let held = self.held();
        let helper = held.helper.as_ref()?;
        let mut control = helper.control.as_ref().expect("the control socket is open until the sandbox is destroyed").lock().await;
        let unrouted = tokio::time::timeout(SETTLE_TIME, control.settle(&|fd| held.hear(fd))).await.ok().flatten();
        let recorder = held.egress.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()?;
        let mut attempts = recorder.finish(unrouted);
        attempts.gaps.extend(held.lock_down.deaf.as_ref().map(|why| format!("they cannot be listed on this host ({why})")));
        Some(attempts)
    }

    /// Bytes of scratch that are left.
    ///
    /// # Errors
    /// Where the file system cannot be asked.
    pub fn free_bytes(&self) -> Result<u64, SandboxError> {
        let stat = fstatvfs(&self.rooms().tree).step("ask for free scratch")?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize).min(self.held().limits.scratch_size.0))
    }

    /// Entries that scratch has room for; `None` where its file system does not count them.
    ///
    /// # Errors
    /// Where the file system cannot be asked.
    pub fn free_entries(&self) -> Result<Option<u64>, SandboxError> {
        let stat = fstatvfs(&self.rooms().tree).step("ask for free scratch")?;
        Ok((stat.f_files > 0).then_some(stat.f_favail))
    }

    /// Which of scratch's bounds is reached: bytes or entries.
    pub fn scratch_is_full(&self) -> Option<SandboxError> {
        control::full_scratch(&self.rooms().tree, &self.held().limits)
    }

    /// Runs a command to its end. One at a time: a second waits for the first. Dropping the future ends the command.
    ///
    /// # Errors
    /// [`SandboxError::Limit`] where memory, time, processes or scratch ran out; the command's own failure is no error.
    pub async fn run(&self, command: &CommandSpec) -> Result<Exit, SandboxError> {
        command.check()?;
        let held = self.held();
        let Some(helper) = &held.helper else {
            return Err(SandboxError::Unavailable {
                why: "commands run only where processes can be isolated".to_owned(),
                advice: advice_on("namespaces").to_owned(),
            });
        };
        let control = helper.control.as_ref().expect("the control socket is open until the sandbox is destroyed");
        let mut control = control.lock().await;
        let hear = |fd| held.hear(fd);
        let bounds = control::Bounds {
            groups: held.groups.as_ref(),
            processes_by_group: held.lock_down.joined && held.groups.as_ref().is_some_and(Groups::limits_processes),
            limits: &held.limits,
            scratch: &self.rooms().tree,
            hear: &hear,
        };
        control.run(command, &bounds).await
    }

    /// Ends everything inside, takes the scratch away, looks for remains, and says what it found.
    pub async fn destroy(mut self) -> Disposal {
        let held = self.held.take().expect("a sandbox is destroyed once");
        disposal::destroy(held).await
    }
}

impl Held {
    /// After the sandbox was settled nobody hears any more: what still asks is refused by the kernel.
    fn hear(&self, listener: Vec<OwnedFd>) {
        if let Some(recorder) = &*self.egress.lock().unwrap_or_else(std::sync::PoisonError::into_inner) {
            recorder.hear_calls(listener);
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if let Some(held) = &self.held {
            tracing::error!(drill = %held.drill, "a sandbox was dropped without being destroyed: no disposal can be shown for it");
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        disposal::let_go(self);
    }
}

async fn isolated(spec: &SandboxSpec) -> Result<Held, SandboxError> {
    let label = scratch::label(&spec.drill);
    let layout = Layout::of_this_process(&label);
    let mut held = claim(spec, layout.paths())?;
    let ids = choose_ids();
    let passes = matches!(ids, IdMap::Range { .. });
    held.owner = match ids {
        IdMap::Range { base, .. } => Owner { uid: base + INNER_ID, gid: base + INNER_ID },
        IdMap::Single { uid, gid } => Owner { uid, gid },
    };

    let limits = &spec.limits;
    let in_memory = if limits.scratch == ScratchKind::Tmpfs { limits.scratch_size.0 } else { 0 };
    // Pages of a tmpfs count as memory of who wrote them, and no killer can free them.
    let memory = limits.memory.0.saturating_add(in_memory);
    let groups = held.groups.insert(layout.make(Wanted { memory, processes: limits.processes, cpus: limits.cpus }));
    let mut fds = groups.doors().step("open the control groups")?;
    let doors = fds.len();
    let by_cgroup = ByCgroup { memory: groups.limits_memory(), processes: groups.limits_processes(), cpu: groups.limits_cpu() };

    let mut noswap = false;
    let scratch = match (limits.scratch, passes) {
        (ScratchKind::Tmpfs, true) => {
            let (mount, guarded) = make_tmpfs(&label, in_memory, inodes(limits)).step("make the scratch tmpfs")?;
            noswap = guarded;
            let top = scratch::open_mount(&mount).step("open the scratch")?;
            if let IdMap::Range { base, .. } = ids {
                // The helper passes through here, as user 0 of the map.
                Owner { uid: base, gid: base }.gets(&top).step("furnish the scratch")?;
            }
            held.rooms = Some(Rooms::make(&top, held.owner.uid, held.owner.gid).step("furnish the scratch")?);
            fds.push(mount);
            ScratchOrder::PassedMount
        }
        (ScratchKind::Tmpfs, false) => ScratchOrder::MakeTmpfs { bytes: in_memory, inodes: inodes(limits) },
        (ScratchKind::Encrypted, true) => {
            let mount = encrypted::make_volume(spec, &mut held, inodes(limits)).await?;
            let top = scratch::open_mount(&mount).step("open the scratch")?;
            if let IdMap::Range { base, .. } = ids {
                Owner { uid: base, gid: base }.gets(&top).step("furnish the scratch")?;
            }
            held.rooms = Some(Rooms::make(&top, held.owner.uid, held.owner.gid).step("furnish the scratch")?);
            fds.push(mount);
            ScratchOrder::PassedMount
        }
        (ScratchKind::Directory | ScratchKind::Encrypted, _) => {
            match limits.scratch {
                ScratchKind::Encrypted => encrypted::make_directory(spec, &mut held)?,
                ScratchKind::Directory | ScratchKind::Tmpfs => make_directory(spec, &mut held)?,
            }
            let rooms = held.rooms.as_ref().expect("made with the directory");
            if passes {
                let flags = rustix::mount::MountAttrFlags::MOUNT_ATTR_NOSUID | rustix::mount::MountAttrFlags::MOUNT_ATTR_NODEV;
                for room in [&rooms.tree, &rooms.kit] {
                    fds.push(clone_open_tree(room, flags).step("show the scratch inside")?);
                }
                ScratchOrder::PassedDirectories
            } else {
                let directory = held.directory.as_ref().expect("just made");
                let of = |room: &OwnedFd, name| {
                    let stat = fstat(room).step("look at the scratch")?;
                    Ok::<_, SandboxError>(HostDirectory { path: directory.path_of(&spec.drill, name), dev: stat.st_dev, ino: stat.st_ino })
                };
                ScratchOrder::FindDirectories { tree: of(&rooms.tree, TREE)?, kit: of(&rooms.kit, KIT)? }
            }
        }
    };
    let guard = match limits.scratch {
        ScratchKind::Tmpfs => Some(swap::guard_scratch(spec, noswap)?),
        ScratchKind::Encrypted => Some(SwapGuard::Encrypted),
        ScratchKind::Directory => None,
    };

    let (shown, links) = what_is_shown(spec);
    if passes {
        for item in &shown {
            let (step, source) = match clone_shown(item) {
                Ok(fd) => {
                    fds.push(fd);
                    continue;
                }
                Err(e) => e,
            };
            return Err(unavailable(step, source.raw_os_error().unwrap_or(0)));
        }
    }
    let setup = Setup {
        label,
        ids,
        scratch,
        shown,
        shown_passed: passes,
        links,
        loader_cache: Some(PathBuf::from("/etc/ld.so.cache")),
        served_hosts: spec.served_hosts.clone(),
        cgroup_doors: doors,
        memory: limits.memory.0,
        memory_by_cgroup: by_cgroup.memory,
        processes: limits.processes,
        processes_by_cgroup: by_cgroup.processes,
        file_size: limits.scratch_size.0,
        private_tmp: private_tmp(limits).0,
        seconds: limits.time.seconds,
        cpu_seconds: cpu_seconds(limits),
    };
    start(spec, &mut held, setup, fds).await?;
    swap::guard_inside(spec, &held)?;
    held.facts.isolated = true;
    held.facts = facts::isolated(&held, ids, guard, memory, by_cgroup);
    require(spec, &held)?;
    Ok(held)
}

/// What this host could not do although the scenario insists on it: refused before anything is fetched.
fn require(spec: &SandboxSpec, held: &Held) -> Result<(), SandboxError> {
    match spec.limits.require.iter().find_map(|requirement| facts::refusal(*requirement, held)) {
        Some((why, advice)) => Err(SandboxError::Unavailable { why, advice: advice.to_owned() }),
        None => Ok(()),
    }
}

/// Size of the private `/tmp`, and of `/dev/shm`.
pub(super) fn private_tmp(limits: &ResourceLimits) -> ByteSize {
    ByteSize((limits.memory.0 / 4).clamp(1 << 20, 1 << 30))
}

/// Size of the private `/run`.
pub(super) fn private_run(limits: &ResourceLimits) -> ByteSize {
    private_tmp(limits).min(ByteSize::mib(16))
}

/// Processor time that each process may take: no more than its share of the whole time.
pub(super) fn cpu_seconds(limits: &ResourceLimits) -> u64 {
    match limits.cpus {
        Some(cpus) => cpus.seconds_in(limits.time.seconds),
        None => {
            let processors = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
            limits.time.seconds.saturating_mul(processors)
        }
    }
}

fn inodes(limits: &ResourceLimits) -> u64 {
    limits.max_files.saturating_add(1_024)
}

/// Registers the drill before anything is made for it.
fn claim(spec: &SandboxSpec, cgroups: Vec<PathBuf>) -> Result<Held, SandboxError> {
    let scratch_parent = match (spec.limits.scratch, &spec.limits.scratch_path) {
        (ScratchKind::Tmpfs, _) => None,
        (ScratchKind::Directory | ScratchKind::Encrypted, Some(path)) => {
            Some(scratch::true_parent(path).step("find the directory for scratch")?)
        }
        (ScratchKind::Directory | ScratchKind::Encrypted, None) => {
            return Err(SandboxError::Spec { what: "scratch on a disk, without naming a directory".to_owned() });
        }
    };
    let record = Record {
        version: 1,
        drill: spec.drill.clone(),
        cgroups,
        scratch_parent: scratch_parent.clone(),
        loops: Vec::new(),
        key: None,
        monitor: None,
    };
    Ok(Held {
        drill: spec.drill.clone(),
        facts: SandboxFacts::default(),
        owner: Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() },
        limits: spec.limits.clone(),
        lock_down: LockDown::default(),
        helper: None,
        groups: None,
        egress: std::sync::Mutex::new(None),
        rooms: None,
        listeners: std::sync::Mutex::new(Vec::new()),
        detached: None,
        directory: None,
        encrypted: None,
        scratch_parent,
        claim: Some(Claim::take(&spec.state_dir, record)?),
    })
}

/// A range of nobody's ids where we are root over them and may prepare mounts; else the runner's own id alone.
fn choose_ids() -> IdMap {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let single = IdMap::Single { uid: uid.as_raw(), gid: gid.as_raw() };
    let IdMap::Range { base, count } = RANGE else { return single };
    let covered = |file: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().any(|line| {
            let n: Vec<u64> = line.split_whitespace().filter_map(|w| w.parse().ok()).collect();
            matches!(n[..], [first, _, length] if first <= u64::from(base) && u64::from(base) + u64::from(count) <= first + length)
        })
    };
    let may_mount = || clone_shown(&Shown { host: "/usr".into(), inside: "/usr".into(), kind: ShownKind::Directory }).is_ok();
    if uid.is_root() && covered("/proc/self/uid_map") && covered("/proc/self/gid_map") && may_mount() { RANGE } else { single }
}

fn make_directory(spec: &SandboxSpec, held: &mut Held) -> Result<(), SandboxError> {
    let parent = held.scratch_parent.as_deref().expect("a directory scratch has a parent");
    let directory = held.directory.insert(PlainDirectory::make(parent, &spec.drill).step("make the scratch directory")?);
    held.rooms = Some(Rooms::make(&directory.directory, held.owner.uid, held.owner.gid).step("furnish the scratch")?);
    Ok(())
}

/// Host programs and libraries, links as on the host, and the harmless devices.
fn what_is_shown(spec: &SandboxSpec) -> (Vec<Shown>, Vec<(PathBuf, PathBuf)>) {
    let mut shown = Vec::new();
    let mut links = Vec::new();
    let mut show = |path: &Path, kind| shown.push(Shown { host: path.to_owned(), inside: path.to_owned(), kind });
    show(Path::new("/usr"), ShownKind::Directory);
    for name in ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"] {
        let path = Path::new(name);
        match fs::read_link(path) {
            Ok(target) => links.push((path.to_owned(), target)),
            Err(_) if path.is_dir() => show(path, ShownKind::Directory),
            Err(_) => {}
        }
    }
    // Where Debian's `awk` and others lead.
    if Path::new("/etc/alternatives").is_dir() {
        show(Path::new("/etc/alternatives"), ShownKind::Directory);
    }
    for device in ["null", "zero", "full", "random", "urandom"] {
        show(&Path::new("/dev").join(device), ShownKind::Device);
    }
    shown.extend(spec.tools.iter().map(|t| Shown { host: t.host.clone(), inside: t.inside.clone(), kind: ShownKind::Directory }));
    (shown, links)
}

/// Starts the helper and leads it to readiness.
async fn start(spec: &SandboxSpec, held: &mut Held, setup: Setup, fds: Vec<OwnedFd>) -> Result<(), SandboxError> {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).step("make the control socket")?;
    rustix::io::ioctl_fionbio(&ours, true).step("make the control socket")?;
    let monitor = Command::new(&spec.helper)
        .args([HELPER_ARGUMENT, &setup.label])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .step("start the sandbox's helper")?;
    let pid = monitor.id();
    let mut control = Control::new(ours).step("watch the control socket")?;
    held.helper = Some(Helper { monitor, control: None, pid_namespace: None });
    let started = pid.and_then(|p| ProcessRef::of(i32::try_from(p).ok()?));
    held.claim.as_mut().expect("claimed before it is started").note_monitor(started)?;

    let recorder = Recorder::start().step("listen for attempts to reach the outside")?;
    let ids = setup.ids;
    let makes_tmpfs = matches!(setup.scratch, ScratchOrder::MakeTmpfs { .. });
    control.send(&ToHelper::Setup(Box::new(setup)), &fds).await.step("order the sandbox")?;
    drop(fds);
    let ready = async {
        loop {
            match control.receive().await.step("hear from the sandbox's helper")? {
                Some((FromHelper::WantsMaps, _)) => {
                    write_maps(pid, ids).step("write the sandbox's id maps")?;
                    control.send(&ToHelper::Mapped, &[]).await.step("order the sandbox")?;
                }
                Some((FromHelper::Hear, fds)) => recorder.hear_calls(fds),
                Some((FromHelper::Ready { lock_down, listeners }, mut fds)) => {
                    let served = fds.split_off(fds.len().saturating_sub(listeners));
                    return Ok((lock_down, fds, served));
                }
                Some((FromHelper::Failed { step, errno }, _)) => return Err(unavailable(&step, errno)),
                Some(_) => return Err(SandboxError::Died { how: "its helper spoke out of turn".to_owned() }),
                None => return Err(SandboxError::Died { how: "its helper ended while building it".to_owned() }),
            }
        }
    };
    let (mut lock_down, fds, served) =
        tokio::time::timeout(SET_UP_TIME, ready).await.map_err(|_| SandboxError::Died { how: "it was not built in time".to_owned() })??;
    let mut fds = fds.into_iter();
    if let Some(helper) = &mut held.helper {
        helper.pid_namespace = fds.next();
        helper.control = Some(Mutex::new(control));
    }
    if makes_tmpfs {
        let top = fds.next().ok_or_else(|| SandboxError::Died { how: "its helper kept the scratch".to_owned() })?;
        held.rooms = Some(Rooms::open(&top).step("open the scratch")?);
    }
    held.listeners = std::sync::Mutex::new(served.into_iter().map(TcpListener::from).collect());
    recorder.hear_names(fds.collect()).step("listen for questions for names")?;
    if lock_down.deaf.is_none() && !recorder.saw_the_probe() {
        lock_down.deaf = Some("the runner may not look into processes inside".to_owned());
    }
    held.lock_down = lock_down;
    held.egress = std::sync::Mutex::new(Some(recorder));
    Ok(())
}

fn write_maps(pid: Option<u32>, ids: IdMap) -> io::Result<()> {
    let (Some(pid), IdMap::Range { base, count }) = (pid, ids) else { return Err(io::ErrorKind::InvalidInput.into()) };
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{pid}/{map}"), format!("0 {base} {count}\n"))?;
    }
    Ok(())
}

fn unavailable(step: &str, errno: i32) -> SandboxError {
    let why = format!("could not {step}: {}", io::Error::from_raw_os_error(errno));
    SandboxError::Unavailable { why, advice: advice_on(step).to_owned() }
}

/// What an administrator would change.
pub(super) fn advice_on(step: &str) -> &'static str {
    if step.contains("proc") {
        "in a container, /proc must not be masked (procMount: Unmasked, or --security-opt systempaths=unconfined)"
    } else if step.contains("namespace") || step.contains("id map") {
        "allow user namespaces: sysctl user.max_user_namespaces above 0, kernel.unprivileged_userns_clone=1 where it exists, \
         an AppArmor profile with `userns,` where kernel.apparmor_restrict_unprivileged_userns=1; or run as root"
    } else {
        "run as root, or on a host with Linux 5.12 or newer and user namespaces"
    }
}

/// A place without processes: scratch only. For drills that run no command.
async fn bare(spec: &SandboxSpec, why: &str, advice: String) -> Result<Held, SandboxError> {
    let mut held = claim(spec, Vec::new())?;
    let limits = &spec.limits;
    let mut guard = None;
    match limits.scratch {
        ScratchKind::Directory => make_directory(spec, &mut held)?,
        ScratchKind::Encrypted => {
            guard = Some(SwapGuard::Encrypted);
            if matches!(choose_ids(), IdMap::Range { .. }) {
                let mount = encrypted::make_volume(spec, &mut held, inodes(limits)).await?;
                let top = scratch::open_mount(&mount).step("open the scratch")?;
                held.rooms = Some(Rooms::make(&top, held.owner.uid, held.owner.gid).step("furnish the scratch")?);
                held.detached = Some(mount);
            } else {
                encrypted::make_directory(spec, &mut held)?;
            }
        }
        ScratchKind::Tmpfs => {
            // Never attached anywhere: only who holds a descriptor can see it.
            let (mount, noswap) = make_tmpfs(&scratch::label(&spec.drill), limits.scratch_size.0, inodes(limits))
                .map_err(|_| SandboxError::Unavailable { why: format!("{why}; scratch in memory needs the same"), advice })?;
            let top = scratch::open_mount(&mount).step("open the scratch")?;
            held.rooms = Some(Rooms::make(&top, held.owner.uid, held.owner.gid).step("furnish the scratch")?);
            guard = Some(swap::guard_scratch(spec, noswap)?);
            held.detached = Some(mount);
        }
    }
    held.facts = facts::bare(&held, why, guard);
    require(spec, &held)?;
    Ok(held)
}
