//! Loop devices: a file as a block device. Each clears itself when nothing uses it any more, however its user ended.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags, open};
use serde::{Deserialize, Serialize};

use super::sys::check;

const LOOP_CTL_GET_FREE: u32 = 0x4c82;
const LOOP_CONFIGURE: u32 = 0x4c0a;
const LOOP_GET_STATUS64: u32 = 0x4c05;
const AUTOCLEAR: u32 = 4;
const DIRECT_IO: u32 = 16;

/// `loop_info64`.
#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

impl Info {
    const fn empty() -> Info {
        Info {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            size_limit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: 0,
            file_name: [0; 64],
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        }
    }
}

/// `loop_config`.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

/// Which loop device, and on which file of ours: by all of it together it is told from another user of the same device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LoopRef {
    pub number: u32,
    device: u64,
    inode: u64,
    label: String,
}

/// Where pages are kept in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caching {
    /// Only in the file system on the device, where the one below can do without.
    Above,
    /// In the file's as well: what encrypts it works on pages, and would make every write wait.
    Both,
}

/// A loop device that is held open. Closing it clears it, unless something is mounted from it.
#[derive(Debug)]
pub(super) struct Loop {
    pub what: LoopRef,
    _device: OwnedFd,
}

fn path(number: u32) -> PathBuf {
    PathBuf::from(format!("/dev/loop{number}"))
}

fn open_device(number: u32, access: OFlags) -> io::Result<OwnedFd> {
    Ok(open(path(number), access | OFlags::CLOEXEC, Mode::empty())?)
}

/// Binds `file` to a free loop device, with `label` as its name.
pub(super) fn attach(file: &File, label: &str, caching: Caching) -> io::Result<Loop> {
    let control = open("/dev/loop-control", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let fd = u32::try_from(file.as_raw_fd()).map_err(io::Error::other)?;
    let direct = if caching == Caching::Above { DIRECT_IO } else { 0 };
    let mut info = Info { flags: AUTOCLEAR | direct, ..Info::empty() };
    let length = label.len().min(info.file_name.len() - 1);
    info.file_name[..length].copy_from_slice(&label.as_bytes()[..length]);
    let config = Config { fd, block_size: 0, info, reserved: [0; 8] };
    // Others look for a free device at the same time.
    for _ in 0..256 {
        // SAFETY: takes no argument, answers a number.
        let number = check(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) })?;
        let number = u32::try_from(number).map_err(io::Error::other)?;
        let device = open_device(number, OFlags::RDWR)?;
        // SAFETY: `config` is a `struct loop_config`, whose descriptor is open.
        match check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, std::ptr::from_ref(&config)) }) {
            Ok(_) => {
                let what = status(&device, number)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
                return Ok(Loop { what, _device: device });
            }
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {}
            Err(e) => return Err(e),
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

impl Loop {
    /// Where it is, for mounting.
    pub fn path(&self) -> PathBuf {
        path(self.what.number)
    }
}

/// What a device is bound to; `None` where to nothing.
fn status(device: &OwnedFd, number: u32) -> io::Result<Option<LoopRef>> {
    let mut info = Info::empty();
    // SAFETY: `info` is a `struct loop_info64`, all of whose bytes the kernel may write.
    match check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64 as _, std::ptr::from_mut(&mut info)) }) {
        Ok(_) => {}
        Err(e) if e.raw_os_error() == Some(libc::ENXIO) => return Ok(None),
        Err(e) => return Err(e),
    }
    let end = info.file_name.iter().position(|b| *b == 0).unwrap_or(info.file_name.len());
    let label = String::from_utf8_lossy(&info.file_name[..end]).into_owned();
    Ok(Some(LoopRef { number, device: info.device, inode: info.inode, label }))
}

impl LoopRef {
    /// Whether the device is bound to our file still. To look is to open, and the last to close it clears it: so a look is also
    /// all that can be done about one that was left, and nothing is done to a device of somebody else.
    pub fn is_bound(&self) -> io::Result<bool> {
        match open_device(self.number, OFlags::RDONLY) {
            Ok(device) => Ok(status(&device, self.number)?.as_ref() == Some(self)),
            Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::ENXIO) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Looks for a while until it is free of us; `false` where it is bound still, or cannot be looked at.
    pub fn is_gone_within(&self, patience: std::time::Duration) -> bool {
        super::sys::within(patience, || self.is_bound().is_ok_and(|bound| !bound))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_kernels_structures_have_their_sizes() {
        assert_eq!((size_of::<Info>(), size_of::<Config>()), (232, 304));
    }

    #[test]
    fn a_device_is_cleared_when_its_last_user_goes_and_anothers_is_left_alone() {
        if !rustix::process::geteuid().is_root() {
            println!("loop devices need root: tests/it/encrypted_scratch.rs shows what an ordinary user has instead");
            return;
        }
        let home = tempfile::tempdir_in("/var/tmp").unwrap();
        let image = |name: &str| {
            let file = File::options().read(true).write(true).create_new(true).open(home.path().join(name)).unwrap();
            file.set_len(1 << 20).unwrap();
            file
        };
        let (ours, theirs) =
            (attach(&image("ours"), "firedrill-aa", Caching::Above).unwrap(), attach(&image("theirs"), "somebody", Caching::Both).unwrap());
        assert_ne!(ours.what.number, theirs.what.number);
        assert!(ours.what.is_bound().unwrap() && !ours.what.is_gone_within(Duration::from_millis(50)));
        // Another file on the number that we had, another label, another inode: not ours.
        let taken = LoopRef { number: theirs.what.number, ..ours.what.clone() };
        assert!(!taken.is_bound().unwrap() && taken.is_gone_within(Duration::ZERO));
        assert!(!LoopRef { label: "firedrill-aa".to_owned(), ..theirs.what.clone() }.is_bound().unwrap());
        assert!(!LoopRef { inode: 1, ..theirs.what.clone() }.is_bound().unwrap());
        let what = ours.what.clone();
        drop(ours);
        assert!(what.is_gone_within(Duration::from_secs(10)));
        assert!(theirs.what.is_bound().unwrap(), "another one's device stays");
    }
}
