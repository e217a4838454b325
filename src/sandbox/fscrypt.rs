//! File-system encryption by the kernel (fscrypt, policies of version 2): a key that is made here, is told to the kernel and
//! to nobody else, and is wiped here at once.
//!
//! What fscrypt keeps in clear: sizes, modes, times, owners and extended attributes of what it encrypts. So an encrypted
//! volume is a whole file system in one encrypted file; only an ordinary user's scratch is encrypted file by file.

use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use super::sys::check;

/// How the evidence names it.
pub(super) const CIPHER: &str = "AES-256-XTS";
/// Bytes of the key: the most that fscrypt takes.
const KEY_BYTES: usize = 64;

const SPEC_IDENTIFIER: u32 = 2;
const POLICY_V2: u8 = 2;
const MODE_AES_256_XTS: u8 = 1;
const MODE_AES_256_CTS: u8 = 4;
const PAD_NAMES_TO_32: u8 = 3;
const FILES_BUSY: u32 = 1;
const KEY_ABSENT: u32 = 1;

/// `fscrypt_key_specifier`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Specifier {
    kind: u32,
    reserved: u32,
    identifier: [u8; 16],
    rest: [u8; 16],
}

impl Specifier {
    fn of(key: &KeyId) -> Specifier {
        Specifier { kind: SPEC_IDENTIFIER, identifier: key.0, ..Specifier::default() }
    }
}

/// `fscrypt_add_key_arg` without the key that follows it.
#[repr(C)]
struct AddKey {
    spec: Specifier,
    raw_size: u32,
    key_id: u32,
    reserved: [u32; 8],
}

/// The same, and the key.
#[repr(C)]
struct AddKeyAndKey {
    head: AddKey,
    raw: [u8; KEY_BYTES],
}

/// `fscrypt_remove_key_arg`.
#[repr(C)]
struct RemoveKey {
    spec: Specifier,
    status: u32,
    reserved: [u32; 5],
}

/// `fscrypt_get_key_status_arg`.
#[repr(C)]
struct KeyStatus {
    spec: Specifier,
    reserved: [u32; 6],
    status: u32,
    flags: u32,
    users: u32,
    out_reserved: [u32; 13],
}

/// `fscrypt_policy_v2`.
#[repr(C)]
struct PolicyV2 {
    version: u8,
    contents: u8,
    names: u8,
    flags: u8,
    reserved: [u8; 4],
    identifier: [u8; 16],
}

mod number {
    use super::{AddKey, KeyStatus, RemoveKey};
    use rustix::ioctl::opcode;

    /// Named after the older policy, whose size is 12.
    pub const SET_POLICY: u32 = opcode::read::<[u8; 12]>(b'f', 19) as u32;
    pub const ADD_KEY: u32 = opcode::read_write::<AddKey>(b'f', 23) as u32;
    pub const REMOVE_KEY: u32 = opcode::read_write::<RemoveKey>(b'f', 24) as u32;
    pub const KEY_STATUS: u32 = opcode::read_write::<KeyStatus>(b'f', 26) as u32;
}

fn ioctl<T>(fd: impl AsFd, number: u32, argument: &mut T) -> io::Result<()> {
    // SAFETY: the descriptor is open, and `argument` is the structure of this number, as the kernel's header has it; what the
    // kernel writes into it is valid for its plain fields.
    check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), number as _, std::ptr::from_mut(argument)) }).map(drop)
}

/// What the kernel calls a key: derived from it one way, so not secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyId([u8; 16]);

impl Serialize for KeyId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = String::new();
        for byte in self.0 {
            let _ = write!(text, "{byte:02x}");
        }
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for KeyId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(serde::de::Error::custom)?;
        bytes.try_into().map(KeyId).map_err(|_| serde::de::Error::custom("a key's name has 16 bytes"))
    }
}

/// A page of its own for a key on its way to the kernel: not in core dumps, not swapped where the host lets us pin it, not
/// in children, wiped before it is given back.
struct KeyPage(NonNull<AddKeyAndKey>);

impl KeyPage {
    const BYTES: usize = 4096;

    fn filled_by_getrandom() -> io::Result<KeyPage> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new private mapping, at no address of ours.
        let page = unsafe { libc::mmap(std::ptr::null_mut(), Self::BYTES, protection, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0) };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: advice on, and pinning of, the mapping that was just made; where refused, the key is still wiped in a moment.
        unsafe {
            libc::madvise(page, Self::BYTES, libc::MADV_DONTDUMP);
            libc::madvise(page, Self::BYTES, libc::MADV_WIPEONFORK);
            libc::mlock(page, Self::BYTES);
        }
        let mut page = KeyPage(NonNull::new(page.cast()).expect("a mapping is not at address 0"));
        let mut filled = 0;
        while filled < KEY_BYTES {
            filled += rustix::rand::getrandom(&mut page.request().raw[filled..], rustix::rand::GetRandomFlags::empty())?;
        }
        Ok(page)
    }

    fn request(&mut self) -> &mut AddKeyAndKey {
        // SAFETY: the page is mapped, large enough, aligned, begins as zeros, which are valid here, and is ours alone.
        unsafe { self.0.as_mut() }
    }
}

impl Drop for KeyPage {
    fn drop(&mut self) {
        self.request().raw.zeroize();
        // SAFETY: the mapping that we made, and nothing refers to it any more.
        unsafe { libc::munmap(self.0.as_ptr().cast(), Self::BYTES) };
    }
}

/// Makes a random key and gives it to the kernel, for the file system of `fs`. Nobody has it but the kernel when this returns.
pub(super) fn add_random_key(fs: impl AsFd) -> io::Result<KeyId> {
    let mut page = KeyPage::filled_by_getrandom()?;
    let request = page.request();
    request.head.spec.kind = SPEC_IDENTIFIER;
    request.head.raw_size = KEY_BYTES as u32;
    ioctl(fs, number::ADD_KEY, request)?;
    Ok(KeyId(request.head.spec.identifier))
}

/// From now on what is made in `directory`, which must be empty, is encrypted.
pub(super) fn encrypt(directory: impl AsFd, key: &KeyId) -> io::Result<()> {
    let mut policy = PolicyV2 {
        version: POLICY_V2,
        contents: MODE_AES_256_XTS,
        names: MODE_AES_256_CTS,
        flags: PAD_NAMES_TO_32,
        reserved: [0; 4],
        identifier: key.0,
    };
    ioctl(directory, number::SET_POLICY, &mut policy)
}

/// Wipes the key from the kernel, and what it had opened. Whether all of it is locked: not as long as a file is open.
pub(super) fn remove_key(fs: impl AsFd, key: &KeyId) -> io::Result<bool> {
    let mut request = RemoveKey { spec: Specifier::of(key), status: 0, reserved: [0; 5] };
    match ioctl(fs, number::REMOVE_KEY, &mut request) {
        Ok(()) => Ok(request.status & FILES_BUSY == 0),
        Err(e) if e.raw_os_error() == Some(libc::ENOKEY) => Ok(true),
        Err(e) => Err(e),
    }
}

/// Whether the kernel has nothing of the key any more.
pub(super) fn is_absent(fs: impl AsFd, key: &KeyId) -> io::Result<bool> {
    let mut request = KeyStatus { spec: Specifier::of(key), reserved: [0; 6], status: 0, flags: 0, users: 0, out_reserved: [0; 13] };
    ioctl(fs, number::KEY_STATUS, &mut request)?;
    Ok(request.status == KEY_ABSENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_structures_have_their_sizes() {
        assert_eq!((size_of::<Specifier>(), size_of::<AddKey>(), size_of::<AddKeyAndKey>()), (40, 80, 144));
        assert_eq!((size_of::<RemoveKey>(), size_of::<KeyStatus>(), size_of::<PolicyV2>()), (64, 128, 24));
        assert_eq!((number::SET_POLICY, number::ADD_KEY), (0x800c_6613, 0xc050_6617));
        assert_eq!((number::REMOVE_KEY, number::KEY_STATUS), (0xc040_6618, 0xc080_661a));
    }

    #[test]
    fn two_keys_are_two_and_their_pages_are_kept_from_dumps_and_children() {
        let (mut a, mut b) = (KeyPage::filled_by_getrandom().unwrap(), KeyPage::filled_by_getrandom().unwrap());
        assert_ne!(a.request().raw, b.request().raw);
        assert_ne!(a.request().raw, [0; KEY_BYTES]);
        let at = a.0.as_ptr() as u64;
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        // The kernel may show neighbouring pages as one.
        let holds = |line: &str| {
            let bounds = line.split(' ').next().and_then(|b| b.split_once('-'));
            let bounds = bounds.and_then(|(from, to)| Some((u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?)));
            bounds.is_some_and(|(from, to)| (from..to).contains(&at))
        };
        let flags = maps.lines().skip_while(|l| !holds(l)).find(|l| l.starts_with("VmFlags")).expect("the page is mapped");
        // "dd": left out of core dumps; "wf": wiped in children.
        assert!(flags.contains(" dd") && flags.contains(" wf"), "{flags}");
    }

    #[test]
    fn a_file_system_without_encryption_says_so() {
        let proc = std::fs::File::open("/proc").unwrap();
        assert!(add_random_key(&proc).is_err());
        assert!(encrypt(&proc, &KeyId([1; 16])).is_err());
    }

    #[test]
    fn a_keys_name_survives_the_record() {
        let key = KeyId([0xab; 16]);
        let text = serde_json::to_string(&key).unwrap();
        assert_eq!(text, format!("\"{}\"", "ab".repeat(16)));
        assert_eq!(serde_json::from_str::<KeyId>(&text).unwrap(), key);
        assert!(serde_json::from_str::<KeyId>("\"abcd\"").is_err());
    }
}
