//! What must wait until the end: hard links, and modes and times of directories. Held in memory while it is little, in
//! nameless files in the spool when it is much.

use std::fs::File;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;

use super::RestoreError;
use crate::domain::{RestorePath, Xattr};

/// Bytes held in memory.
const IN_MEMORY: usize = 1 << 20;

/// One thing to do later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Later {
    /// A hard link.
    Link { path: RestorePath, target: RestorePath },
    /// What a directory is to have; `None` where the archive does not say.
    Directory { path: RestorePath, mode: Option<u32>, time: Option<(i64, u32)>, xattrs: Vec<Xattr> },
}

/// A list of things to do later.
#[derive(Debug, Default)]
pub(super) struct Deferred {
    buffer: Vec<u8>,
    spilled: Option<File>,
    /// Where the stretches end that were spilled.
    ends: Vec<u64>,
}

impl Deferred {
    pub(super) fn push(&mut self, later: &Later, spool: BorrowedFd<'_>) -> Result<(), RestoreError> {
        encode(later, &mut self.buffer);
        if self.buffer.len() < IN_MEMORY {
            return Ok(());
        }
        if self.spilled.is_none() {
            self.spilled = Some(nameless(spool, Mode::from_raw_mode(0o600))?);
        }
        let file = self.spilled.as_ref().expect("made above");
        let start = self.ends.last().copied().unwrap_or(0);
        file.write_all_at(&self.buffer, start).map_err(|e| RestoreError::scratch("spool", e))?;
        self.ends.push(start + self.buffer.len() as u64);
        self.buffer.clear();
        Ok(())
    }

    pub(super) fn each_in_order(&mut self, mut act: impl FnMut(Later) -> Result<(), RestoreError>) -> Result<(), RestoreError> {
        for number in 0..=self.ends.len() {
            decode(&self.stretch(number)?).into_iter().try_for_each(&mut act)?;
        }
        Ok(())
    }

    pub(super) fn each_backwards(&mut self, mut act: impl FnMut(Later) -> Result<(), RestoreError>) -> Result<(), RestoreError> {
        for number in (0..=self.ends.len()).rev() {
            decode(&self.stretch(number)?).into_iter().rev().try_for_each(&mut act)?;
        }
        Ok(())
    }

    fn stretch(&self, number: usize) -> Result<Vec<u8>, RestoreError> {
        let (Some(&end), Some(file)) = (self.ends.get(number), &self.spilled) else { return Ok(self.buffer.clone()) };
        let start = if number == 0 { 0 } else { self.ends[number - 1] };
        let mut bytes = vec![0; (end - start) as usize];
        file.read_exact_at(&mut bytes, start).map_err(|e| RestoreError::scratch("read the spool", e))?;
        Ok(bytes)
    }
}

/// A file without a name in `directory`: gone when it is closed, however the runner ends.
pub(super) fn nameless(directory: BorrowedFd<'_>, mode: Mode) -> Result<File, RestoreError> {
    match fs::openat(directory, ".", OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, mode) {
        Ok(file) => Ok(File::from(file)),
        // a file system that cannot do that: make it, and take its name away
        Err(Errno::NOTSUP | Errno::ISDIR | Errno::INVAL) => {
            let name = ".firedrill-spool";
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::RDWR | OFlags::CLOEXEC;
            let file = fs::openat(directory, name, flags, mode).map_err(|e| RestoreError::scratch("make a spool", e))?;
            fs::unlinkat(directory, name, fs::AtFlags::empty()).map_err(|e| RestoreError::scratch("make a spool", e))?;
            Ok(File::from(file))
        }
        Err(e) => Err(RestoreError::scratch("make a spool", e)),
    }
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn encode(later: &Later, out: &mut Vec<u8>) {
    match later {
        Later::Link { path, target } => {
            out.push(0);
            put(out, path.as_bytes());
            put(out, target.as_bytes());
        }
        Later::Directory { path, mode, time, xattrs } => {
            out.push(1);
            put(out, path.as_bytes());
            out.extend_from_slice(&mode.unwrap_or(u32::MAX).to_le_bytes());
            let (seconds, nanos) = time.unwrap_or((0, u32::MAX));
            out.extend_from_slice(&seconds.to_le_bytes());
            out.extend_from_slice(&nanos.to_le_bytes());
            out.extend_from_slice(&(xattrs.len() as u32).to_le_bytes());
            for xattr in xattrs {
                put(out, xattr.name.as_bytes());
                put(out, &xattr.value);
            }
        }
    }
}

fn decode(bytes: &[u8]) -> Vec<Later> {
    const OURS: &str = "we wrote these bytes ourselves, into memory or a file that has no name";
    fn take<'b>(rest: &mut &'b [u8], n: usize) -> &'b [u8] {
        let (head, tail) = rest.split_at_checked(n).expect(OURS);
        *rest = tail;
        head
    }
    fn number(rest: &mut &[u8]) -> u32 {
        u32::from_le_bytes(take(rest, 4).try_into().expect(OURS))
    }
    fn string(rest: &mut &[u8]) -> Vec<u8> {
        let n = number(rest) as usize;
        take(rest, n).to_vec()
    }
    fn path(rest: &mut &[u8]) -> RestorePath {
        RestorePath::from_bytes(&string(rest)).expect(OURS)
    }
    let mut rest = bytes;
    let mut all = Vec::new();
    while !rest.is_empty() {
        let kind = take(&mut rest, 1)[0];
        let at = path(&mut rest);
        if kind == 0 {
            all.push(Later::Link { path: at, target: path(&mut rest) });
            continue;
        }
        let mode = Some(number(&mut rest)).filter(|m| *m != u32::MAX);
        let seconds = i64::from_le_bytes(take(&mut rest, 8).try_into().expect(OURS));
        let nanos = number(&mut rest);
        let count = number(&mut rest);
        let xattrs =
            (0..count).map(|_| Xattr { name: String::from_utf8(string(&mut rest)).expect(OURS), value: string(&mut rest) }).collect();
        all.push(Later::Directory { path: at, mode, time: (nanos != u32::MAX).then_some((seconds, nanos)), xattrs });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn much_is_spilled_and_comes_back_in_both_orders() {
        let directory = tempfile::tempdir().unwrap();
        let spool = File::open(directory.path()).unwrap();
        let path = |n: usize| RestorePath::from_bytes(format!("{}/{n}", "d".repeat(200)).as_bytes()).unwrap();
        let wanted: Vec<Later> = (0..20_000)
            .map(|n| match n % 3 {
                0 => Later::Link { path: path(n), target: path(n + 1) },
                1 => Later::Directory { path: path(n), mode: None, time: None, xattrs: vec![] },
                _ => Later::Directory {
                    path: path(n),
                    mode: Some(0o2755),
                    time: Some((-1, 5)),
                    xattrs: vec![Xattr { name: "user.a".into(), value: vec![0, 1] }],
                },
            })
            .collect();
        let mut list = Deferred::default();
        wanted.iter().for_each(|later| list.push(later, spool.as_fd()).unwrap());
        assert!(list.ends.len() > 2, "nothing was spilled");
        let mut seen = Vec::new();
        list.each_in_order(|later| {
            seen.push(later);
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, wanted);
        seen.clear();
        list.each_backwards(|later| {
            seen.push(later);
            Ok(())
        })
        .unwrap();
        seen.reverse();
        assert_eq!(seen, wanted);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
